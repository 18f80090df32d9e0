"""Crop views for training: rendering one cluster of them, reading many back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import FRAME_WH, TARGET, Scene, Target, sample_scene, sample_target, with_hand
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import Float64Array

CROP_SIZE = 256
VIEWS_PER_CLUSTER = 6
HAND_SHARES, HAND_TOLERANCE, HAND_TRIES = (1.0, 0.9, 0.7, 0.5), 0.05, 25
HELD_M = 0.2  # diagonal of what a hand holds, at most
NUM_SURFACES = 64
DEPTH_UNIT_M = 1e-4
MAX_DEPTH_M = 6.5
MARGINS = (1.15, 1.9)  # a crop's side over the longer side of the target's box
MAX_SHIFT = 0.12  # of the crop's middle from the box's, as a share of its side
_PROBE, MIN_SEEN = 64, 27  # pixels: the side of the first look at the target, and what must be seen of it
FIELDS: dict[str, tuple[tuple[int, ...], str]] = {
    "rgb": ((CROP_SIZE, CROP_SIZE, 3), "uint8"),
    "depth": ((CROP_SIZE, CROP_SIZE), "uint16"),
    "mask": ((CROP_SIZE, CROP_SIZE), "uint8"),
    "K": ((3, 3), "float64"),
    "T_cam_obj": ((4, 4), "float64"),
    "diagonal_m": ((), "float32"),
    "mesh": ((), "int32"),
    "cluster": ((), "int64"),
    "symmetry": ((), "uint8"),
    "visible": ((), "float32"),
}
View = dict[str, Any]


class ViewDataset:
    """Rendered views, memory-mapped.

    A view holds rgb (256, 256, 3) uint8, depth (256, 256) uint16 in 0.1 mm (0 none), mask (256, 256) uint8
    (255 on the visible target), K (3, 3) of the crop, T_cam_obj (4, 4) (centred tight box, y up, metres),
    diagonal_m, mesh index, cluster, symmetry (see geometry.symmetry) and the target's visible share.

    Args:
        folder: what shards.render_views wrote.
        extra: further fields that something else has stored beside them as <name>.npy in every shard, as
            training.features does.

    Attributes:
        shards: per shard a mapping of field name to array.
        mesh_names: names by mesh index.

    Raises:
        ConfigError: no complete shard in the folder, or a field is missing.
    """

    def __init__(self, folder: Path, extra: tuple[str, ...] = ()) -> None:
        shards = sorted(path for path in folder.glob("shard_*") if path.suffix != ".partial")
        if not shards:
            raise ConfigError(
                f"rendered views in {folder}",
                got="no shard",
                expected="shard_00000 and more",
                mend=f"nocsfm render --out {folder}, or nocsfm import",
            )
        try:
            self.shards = [
                {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in (*FIELDS, *extra)} for path in shards
            ]
        except FileNotFoundError as error:
            raise ConfigError(
                f"rendered views in {folder}", got=f"no {error.filename}", expected=f"{', '.join((*FIELDS, *extra))}",
                mend="another version wrote them: render or import into another folder",
            ) from error
        self._starts = np.cumsum([0, *(len(shard["mesh"]) for shard in self.shards)])
        listed = json.loads((folder / "meshes.json").read_text(encoding="utf-8"))
        self.mesh_names: list[str] = [mesh["name"] for mesh in listed]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> View:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return {name: array[index - self._starts[shard]] for name, array in self.shards[shard].items()}

    def column(self, name: str) -> npt.NDArray[Any]:
        """One small field of all views, in memory."""
        return np.concatenate([shard[name] for shard in self.shards])


def render_cluster(
    rng: np.random.Generator,
    library: MeshLibrary,
    renderer: Renderer,
    heldout: bool,
    num_views: int = VIEWS_PER_CLUSTER,
) -> list[View]:
    """Views of one random target; "cluster" is left for the caller to fill."""
    while True:
        target = sample_target(rng, library, heldout, NUM_SURFACES)
        views: list[View] = []
        for attempt in range(6 * num_views):
            scene = sample_scene(rng, library, target, heldout, NUM_SURFACES, crowded=attempt % 4 != 3)
            view = render_crop(rng, renderer, scene, target, library.hull(target.index))
            views += [view] if view is not None else []
            if len(views) == num_views:
                return views


def render_hands(
    rng: np.random.Generator, library: MeshLibrary, renderer: Renderer, heldout: bool
) -> list[View]:
    """Six views of one random target: a reference, then one other scene with a hand on the target.

    The hand leaves HAND_SHARES of the target visible, to HAND_TOLERANCE; 1 is the scene without a hand. The last view
    is the scene without the target, its mask empty.
    """
    while True:
        target = sample_target(rng, library, heldout, NUM_SURFACES)
        if target.diagonal_m > HELD_M:
            continue
        elsewhere, scene = (
            sample_scene(rng, library, target, heldout, NUM_SURFACES, crowded=False) for _ in range(2)
        )
        views: list[View] = []
        for wanted, share in ((elsewhere, 1.0), *((scene, share) for share in HAND_SHARES)):
            view = _with_share_visible(rng, library, renderer, wanted, target, share)
            if view is None:
                break
            views.append(view)
        else:
            return [*views, _without_target(renderer, scene, views[1])]


def _with_share_visible(
    rng: np.random.Generator, library: MeshLibrary, renderer: Renderer, scene: Scene, target: Target, share: float
) -> View | None:
    """The scene with hands that leave a share of the target visible, or None where HAND_TRIES found none."""
    for _ in range(HAND_TRIES if share < 1 else 1):
        held = scene
        for _ in range(int(rng.integers(1, 3)) if share < 1 else 0):
            held = with_hand(rng, library, target, held)
        view = render_crop(rng, renderer, held, target, library.hull(target.index))
        if view is not None and abs(view["visible"] - share) <= HAND_TOLERANCE:
            return view
    return None


def _without_target(renderer: Renderer, scene: Scene, view: View) -> View:
    """The same crop of the scene as `view`, the target taken away."""
    A = view["K"] @ np.linalg.inv(scene.K)
    emptied = replace(scene, items=scene.items[1:])
    return view | _picture_of(renderer, emptied, A, CROP_SIZE / A[0, 0]) | {"visible": 0.0}


def render_crop(
    rng: np.random.Generator, renderer: Renderer, scene: Scene, target: Target, hull: Float64Array
) -> View | None:
    """The target's crop, or None where too little of it is seen."""
    T_cam_obj = scene.items[0].T_cam_obj
    points = hull * target.diagonal_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
    uv = points[:, :2] / points[:, 2:] * scene.K[[0, 1], [0, 1]] + scene.K[:2, 2]
    low, high = uv.min(0), uv.max(0)
    A_probe = crop_matrix((low + high) / 2, 1.04 * float((high - low).max()), _PROBE)
    probe_items = [scene.items[0], *(item for item in scene.items[1:] if item.instance)]
    alone, seen = renderer.silhouettes(probe_items, A_probe @ scene.K, (_PROBE, _PROBE), 1)
    is_seen = (seen == TARGET) & inside_frame(A_probe, _PROBE)
    visible = float(is_seen.sum() / max((alone == TARGET).sum(), 1))
    if is_seen.sum() < MIN_SEEN or visible < (0.35 if rng.random() < 0.9 else 0.15):
        return None
    rows, columns = np.nonzero(is_seen)
    box = np.array([[columns.min() - 0.5, rows.min() - 0.5], [columns.max() + 0.5, rows.max() + 0.5]])
    low, high = (box - A_probe[:2, 2]) / A_probe[0, 0]
    side = float((high - low).max()) * rng.uniform(*MARGINS)
    if side < 16:
        return None
    A = crop_matrix((low + high) / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * side, side, CROP_SIZE)
    picture = _picture_of(renderer, scene, A, side)
    if np.count_nonzero(picture["mask"]) < MIN_SEEN:  # behind the table or a wall, which the first look leaves out
        return None
    return picture | {
        "K": A @ scene.K,
        "T_cam_obj": T_cam_obj,
        "diagonal_m": target.diagonal_m,
        "mesh": target.index,
        "symmetry": scene.items[0].mesh.symmetry if scene.items[0].print_layer < 0 else 1,
        "visible": visible,
    }


def crop_matrix(centre_uv: npt.ArrayLike, side: float, size: int) -> Float64Array:
    """(3, 3) A_crop_image of the square of `side` image pixels around centre_uv, resampled to size x size."""
    scale = size / side
    offset = (size - 1) / 2 - scale * np.asarray(centre_uv, np.float64)
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1]])


def inside_frame(
    A_crop_image: Float64Array, size: int, size_wh: tuple[int, int] = FRAME_WH
) -> npt.NDArray[np.bool_]:
    """(size, size) bool: crop pixels that lie in the picture."""
    grid = (np.arange(size)[:, None] - A_crop_image[:2, 2]) / A_crop_image[0, 0]
    inside = (grid > -0.5) & (grid < np.asarray(size_wh) - 0.5)
    return np.asarray(inside[:, 1][:, None] & inside[:, 0][None, :])


def _picture_of(renderer: Renderer, scene: Scene, A_crop_image: Float64Array, side: float) -> View:
    """The square of `side` camera pixels: no sharper than the camera's own picture of it."""
    picture = renderer.render(
        scene.items, A_crop_image @ scene.K, (CROP_SIZE, CROP_SIZE), scene.light, scene.background, smooth=False
    )
    rgb = picture.rgb
    if side < CROP_SIZE:
        native = cv2.resize(rgb, (round(side), round(side)), interpolation=cv2.INTER_AREA)
        rgb = cv2.resize(native, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    inside = inside_frame(A_crop_image, CROP_SIZE)
    return {
        "rgb": rgb * inside[..., None],
        "depth": stored_depth(picture.depth_m) * inside,
        "mask": np.where(inside & (picture.instance == TARGET), 255, 0).astype(np.uint8),
    }


def stored_depth(depth_m: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint16]:
    """Metres as a view keeps them; what is further than MAX_DEPTH_M becomes 0 = none."""
    near = np.isfinite(depth_m) & (depth_m < MAX_DEPTH_M)
    return np.where(near, depth_m * np.float32(1 / DEPTH_UNIT_M) + 0.5, 0).astype(np.uint16)


def shard_path(folder: Path, index: int) -> Path:
    """Where a finished shard of a folder of views lies."""
    return folder / f"shard_{index:05d}"


def save_shard(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write the FIELDS of some views, complete or not at all; replaces a shard of that name."""
    partial_path = path.with_suffix(".partial")
    shutil.rmtree(partial_path, ignore_errors=True)
    partial_path.mkdir()
    for name, array in arrays.items():
        np.save(partial_path / f"{name}.npy", array)
    shutil.rmtree(path, ignore_errors=True)
    partial_path.rename(path)
