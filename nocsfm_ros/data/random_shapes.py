"""A thousand shapes that no catalogue has: the unions of random convex pieces in the Python wheel `pybullet` (zlib).

The wheel gives bare geometry; each shape gets a paint of its own here, always the same. For training only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.catalogue import CatalogueEntry
from nocsfm_ros.data.meshes import Mesh, normalised, read_obj
from nocsfm_ros.data.shapes import stacked
from nocsfm_ros.data.textures import label_texture, random_colour, surface_texture
from nocsfm_ros.errors import ConfigError

WHEEL = "pybullet==3.2.7"
_MEMBER = re.compile(r"pybullet_data/random_urdfs/(\d{3})/\1\.obj")
PRINTED, MOST_PATCHES = 0.6, 6  # share of the shapes with a print; patches of plain colour on the others


def find_wheel(cache: Path) -> Path:
    """The wheel in `cache`, fetched with pip where it is missing (100 MB; nothing of it is installed).

    Raises:
        ConfigError: neither is there nor can be got.
    """
    name, _, version = WHEEL.partition("==")
    pattern = f"{name}-{version}-*.whl"
    if not list(cache.glob(pattern)):
        cache.mkdir(parents=True, exist_ok=True)
        # for one platform by name: the shapes are the same in all, and not every Python has a wheel
        command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary=:all:",
                   "--dest", str(cache), "--python-version=3.11", "--platform=manylinux2014_x86_64"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                "random shapes to render",
                got=(getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1],
                expected=f"the Python wheel {WHEEL}",
                mend=f"put {pattern} into {cache}",
            ) from error
    return min(cache.glob(pattern))


def read_shapes(wheel: Path) -> list[CatalogueEntry]:
    """All shapes of the wheel, by number."""
    with zipfile.ZipFile(wheel) as archive:
        found = sorted(filter(None, map(_MEMBER.fullmatch, archive.namelist())), key=lambda match: match[1])
    return [CatalogueEntry(f"pybullet/{match[1]}", wheel, match[0], "random", None, None, "") for match in found]


def load_random_shape(entry: CatalogueEntry) -> Mesh:
    """One shape of read_shapes, painted by its number.

    Raises:
        FrameError: a broken file.
    """
    rng = np.random.default_rng([30, int(entry.name.rpartition("/")[2])])
    return normalised(entry.name, painted(read_obj(entry), rng))


def painted(arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The mesh with flat faces and a new look: prints along the strongest axis of each face, or patches of colour."""
    corners = arrays["vertices"][arrays["faces"]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count = 3 * len(corners)
    if rng.random() < PRINTED:
        painters = [label_texture if rng.random() < 0.7 else surface_texture for _ in range(rng.integers(1, 4))]
        pictures = [painter(rng) for painter in painters]
        axis = np.abs(normals).argmax(axis=1)
        layer, colour = axis % len(pictures), np.full((len(corners), 3), 0.7)
    else:
        pictures, axis, layer = [], np.zeros(len(corners), int), np.full(len(corners), -1)
        colour = _patches(corners.mean(axis=1), rng)
    low, side = corners.min((0, 1)), np.ptp(corners, axis=(0, 1)).max()
    across = np.array([[2, 1], [0, 2], [0, 1]])[axis]  # the two axes that lie in the picture
    uv = np.take_along_axis((corners - low) / side, across[:, None].repeat(3, axis=1), axis=2)
    lengths = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return {
        "vertices": corners.reshape(count, 3),
        "normals": np.repeat(normals / lengths, 3, axis=0),
        "uv": uv.reshape(count, 2),
        "colour": np.repeat(colour, 3, axis=0),
        "layer": np.repeat(layer, 3),
        "faces": np.arange(count).reshape(-1, 3),
        "textures": stacked(pictures),
    }


def _patches(places: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(F, 3) the colour of the nearest of some of the places (F, 3)."""
    seeds = places[rng.integers(len(places), size=rng.integers(1, MOST_PATCHES + 1))]
    nearest = np.linalg.norm(places[:, None] - seeds, axis=2).argmin(axis=1)
    return np.stack([random_colour(rng) / 255 for _ in seeds])[nearest]
