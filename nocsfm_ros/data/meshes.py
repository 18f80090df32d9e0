"""Meshes: OBJ + MTL + textures into arrays, normalised, symmetry measured, cached."""

from __future__ import annotations

import io
import itertools
import json
import os
import posixpath
import zipfile
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.catalogue import CatalogueEntry
from nocsfm_ros.errors import FrameError
from nocsfm_ros.geometry.symmetry import ABOUT, CONTINUOUS, FLIPS, NONE

MAX_FACES = 45_000
TEXTURE_SIZE = 256
FINE_CELL, COARSE_CELL = 1 / 256, 1 / 64  # of the diagonal; a crop is about 256 pixels wide
HELDOUT_LIST = Path(__file__).with_name("heldout_meshes.txt")
FOLDS = (12, 10, 8, 6, 4, 2)
SIDE_WEIGHT = 0.1  # of a normal beside a place, in a mesh of diagonal 1
HULL_DIRECTIONS = 256
BLUR_SAMPLES, SAME_COLOUR = 16, 0.06  # of 4000 on the surface; of the range of a channel


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in its own frame: tight box centred, diagonal 1, y up.

    Attributes:
        name: unique.
        vertices: (N, 3) float32.
        normals: (N, 3) float32 unit.
        uv: (N, 2) float32, origin at the first row of the texture.
        colour: (N, 3) float32 in [0, 1], used where `layer` is -1.
        layer: (N,) float32 index into `textures`, -1 without one.
        faces: (F, 3) int32.
        textures: (L, 256, 256, 4) uint8 RGBA.
        symmetry: the turns that change nothing, see geometry.symmetry.
        hull: (M, 3) float32 the outermost vertices in HULL_DIRECTIONS directions: enough for boxes and contacts.
        coarse_vertices, coarse_faces: (K, 3) float32, (L, 3) int32 without colour and detail under COARSE_CELL: for
            shadows and silhouettes.
    """

    name: str
    vertices: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    uv: npt.NDArray[np.float32]
    colour: npt.NDArray[np.float32]
    layer: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    textures: npt.NDArray[np.uint8]
    symmetry: int = NONE

    @cached_property
    def hull(self) -> npt.NDArray[np.float32]:
        """See the class."""
        directions = np.random.default_rng(0).normal(size=(HULL_DIRECTIONS, 3)).astype(np.float32)
        return self.vertices[np.unique(np.argmax(directions @ self.vertices.T, axis=1))]

    @cached_property
    def coarse_vertices(self) -> npt.NDArray[np.float32]:
        """See the class."""
        inverse, counts = self._coarse_groups
        return _means(self.vertices, inverse, counts).astype(np.float32)

    @cached_property
    def coarse_faces(self) -> npt.NDArray[np.int32]:
        """See the class."""
        return _remapped(self.faces, self._coarse_groups[0]).astype(np.int32)

    @cached_property
    def _coarse_groups(self) -> tuple[npt.NDArray[np.signedinteger[Any]], npt.NDArray[np.signedinteger[Any]]]:
        return _groups(np.round(self.vertices / COARSE_CELL).astype(np.int64))


_COMPUTED = ("hull", "coarse_vertices", "coarse_faces")
_STORED = (*(one.name for one in fields(Mesh) if one.name not in ("name", "symmetry")), *_COMPUTED)


@dataclass
class _Obj:
    positions: list[list[float]] = field(default_factory=list)
    uvs: list[list[float]] = field(default_factory=list)
    normals: list[list[float]] = field(default_factory=list)
    corners: list[tuple[int, int, int, int]] = field(
        default_factory=list
    )  # v, vt, vn, material; 3 a triangle
    materials: list[str] = field(default_factory=list)
    library: str = ""


def normalised(name: str, arrays: dict[str, Any], size: npt.ArrayLike | None = None) -> Mesh:
    """Centre the tight box, stretch it to `size` (any unit) where given, make its diagonal 1, find the
    symmetry.
    """
    low, high = arrays["vertices"].min(0), arrays["vertices"].max(0)
    extent = np.maximum(high - low, 1e-9)
    stretch = np.ones(3) if size is None else np.asarray(size) / extent
    stretch = stretch / np.linalg.norm(extent * stretch)
    normals = arrays["normals"] / stretch
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    mesh = Mesh(
        name,
        ((arrays["vertices"] - (low + high) / 2) * stretch).astype(np.float32),
        normals.astype(np.float32),
        arrays["uv"].astype(np.float32),
        arrays["colour"].astype(np.float32),
        arrays["layer"].astype(np.float32),
        arrays["faces"].astype(np.int32),
        arrays["textures"].astype(np.uint8),
    )
    return replace(mesh, symmetry=symmetry_of(mesh))


def load_catalogue_mesh(entry: CatalogueEntry) -> Mesh:
    """Parse one model of the catalogue.

    Raises:
        FrameError: no faces, too many, or a broken file.
    """
    arrays = read_obj(entry)
    if entry.rotation is not None:
        R = np.array(entry.rotation).reshape(3, 3)
        arrays["vertices"], arrays["normals"] = arrays["vertices"] @ R.T, arrays["normals"] @ R.T
    return normalised(entry.name, arrays, entry.size_cm)


def read_obj(entry: CatalogueEntry) -> dict[str, Any]:
    """The arrays of a Mesh as they stand in the file, of any size and place.

    Raises:
        FrameError: no faces, too many, or a broken file.
    """
    with zipfile.ZipFile(entry.archive) as archive:
        obj = _parse_obj(archive.read(entry.member).decode("latin-1"))
        if not 12 <= len(obj.corners) // 3 <= MAX_FACES:
            raise FrameError(
                f"mesh {entry.name}", got=f"{len(obj.corners) // 3} faces", expected=f"12 to {MAX_FACES}"
            )
        folder = posixpath.dirname(entry.member)
        colours, layers, textures = _read_materials(archive, folder, obj)
    return _clustered(_indexed(obj, colours, layers)) | {"textures": textures}


def save_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh with all that is computed of it, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another process may be writing it too
    arrays = {name: np.ascontiguousarray(getattr(mesh, name)) for name in _STORED}
    save_file(arrays, partial, {"name": mesh.name, "symmetry": str(mesh.symmetry)})
    partial.replace(path)


def load_mesh(path: Path) -> Mesh:
    """Read what save_mesh wrote."""
    with safe_open(path, "np") as stored:
        arrays, told = {name: stored.get_tensor(name) for name in _STORED}, stored.metadata()
    computed = {name: arrays.pop(name) for name in _COMPUTED}
    mesh = Mesh(told["name"], **arrays, symmetry=int(told["symmetry"]))
    mesh.__dict__.update(computed)  # as the cached properties would
    return mesh


def heldout_names() -> frozenset[str]:
    """Catalogue meshes never trained on."""
    return frozenset(HELDOUT_LIST.read_text(encoding="utf-8").splitlines())


def symmetry_of(mesh: Mesh, tolerance: float = 0.012) -> int:
    """The group of turns that leave shape and look as they are, by chamfer distance of samples and their mean colours.

    Colours are compared blurred: stripes around a bottle leave it a surface of revolution, a word on it does not. They
    are blurred along the surface, not through it: a bowl's inside may have a colour of its own. Odd folds are not
    looked for: the middle of the box is not on their axis.

    Returns:
        The number of the group, see geometry.symmetry; of several the largest, of equal ones that about y.
    """
    points, normals, colours = surface_samples(mesh, 4000, np.random.default_rng(0))
    tree = cKDTree(points)
    sided = cKDTree(np.hstack([points, SIDE_WEIGHT * normals]))
    floor = float(tree.query(points, k=2)[0][:, 1].mean())

    def look(R: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The mean colours (N, 3) around the points as they lie after a turn."""
        _, index = sided.query(np.hstack([points @ R.T, SIDE_WEIGHT * normals @ R.T]), k=BLUR_SAMPLES)
        return np.asarray(colours[index].mean(axis=1), np.float64)

    blurred = look(np.eye(3))

    def is_same(axis: str, angle_deg: float) -> bool:
        R = Rotation.from_euler(axis, angle_deg, degrees=True).as_matrix()
        distance, _ = tree.query(points @ R.T)
        if distance.mean() > floor + tolerance / 2 or np.percentile(distance, 98) > 3 * floor + 2 * tolerance:
            return False
        change = np.abs(look(R) - blurred).max(axis=1)
        return bool(change.mean() < SAME_COLOUR and np.percentile(change, 95) < 3 * SAME_COLOUR)

    def group(axis: str, across: str) -> tuple[float, int]:
        """How many turns it has, and its number."""
        if all(is_same(axis, angle) for angle in (17.0, 51.0, 111.0, 200.0)):
            fold = CONTINUOUS
        else:
            fold = next((fold for fold in FOLDS if is_same(axis, 360 / fold)), NONE)
        if fold == NONE:
            return 1, NONE
        flips = is_same(across, 180.0)
        return (1 + flips) * (fold or np.inf), fold + ABOUT[axis] + flips * FLIPS

    return max((group(*axes) for axes in ("yz", "zx", "xy")), key=lambda found: found[0])[1]


def surface_samples(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points (count, 3) spread evenly over the surface, its normals there, and their colours (count, 3) in [0, 1]."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = (
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) + 1e-15
    )
    chosen = rng.choice(len(area), count, p=area / area.sum())
    weights = rng.dirichlet(np.ones(3), count)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    normals = np.einsum("nk,nkd->nd", weights, mesh.normals[mesh.faces[chosen]].astype(np.float64))
    uv = np.einsum("nk,nkd->nd", weights, mesh.uv[mesh.faces[chosen]])
    layer = mesh.layer[mesh.faces[chosen, 0]].astype(int)
    colours = mesh.colour[mesh.faces[chosen, 0]].astype(np.float64)
    if len(mesh.textures):
        column, row = (np.mod(uv, 1.0) * TEXTURE_SIZE).astype(int).clip(0, TEXTURE_SIZE - 1).T
        texels = mesh.textures[np.maximum(layer, 0), row, column, :3] / 255.0
        colours = np.where(layer[:, None] >= 0, texels, colours)
    return points, normals, colours


def _parse_obj(text: str) -> _Obj:
    obj, material = _Obj(), -1
    names: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        head = words[0]
        if head == "v":
            obj.positions.append([float(word) for word in words[1:4]])
        elif head == "vt":
            obj.uvs.append([float(word) for word in words[1:3]])
        elif head == "vn":
            obj.normals.append([float(word) for word in words[1:4]])
        elif head == "f":
            ring = [_corner(word, obj, material) for word in words[1:]]
            for second, third in itertools.pairwise(ring[1:]):
                obj.corners += [ring[0], second, third]
        elif head == "usemtl":
            material = names.setdefault(line.split(None, 1)[1].strip() if len(words) > 1 else "", len(names))
        elif head == "mtllib":
            obj.library = line.split(None, 1)[1].strip()
    obj.materials = list(names)
    return obj


def _corner(word: str, obj: _Obj, material: int) -> tuple[int, int, int, int]:
    parts = (word.split("/") + ["", ""])[:3]
    lengths = (len(obj.positions), len(obj.uvs), len(obj.normals))
    v, vt, vn = (
        -1 if not part else int(part) - 1 if int(part) > 0 else length + int(part)
        for part, length in zip(parts, lengths, strict=True)
    )
    return v, vt, vn, material


def _indexed(obj: _Obj, colours: npt.NDArray[np.float64], layers: list[int]) -> dict[str, Any]:
    corners = np.array(obj.corners, dtype=np.int64)
    positions = np.array(obj.positions, dtype=np.float64)[:, :3]
    triangles = positions[corners[:, 0]].reshape(-1, 3, 3)
    flat = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    corners[:, 2] = np.where(corners[:, 2] < len(obj.normals), corners[:, 2], -1)
    flat_key = np.where(
        corners[:, 2] < 0, np.arange(len(corners)) // 3, -1
    )  # a corner without normal stays its own
    rows, first, inverse = np.unique(
        np.column_stack([corners, flat_key]), axis=0, return_index=True, return_inverse=True
    )
    normals = flat[first // 3]
    if obj.normals:
        given = np.array(obj.normals, dtype=np.float64)[rows[:, 2]]
        normals = np.where((rows[:, 2] >= 0)[:, None], given, normals)
    uv = np.array([*obj.uvs, [0.0, 0.0]], dtype=np.float64)[rows[:, 1]] * (1.0, -1.0)
    layer = np.array([*layers, -1])[rows[:, 3]]
    return {
        "vertices": positions[rows[:, 0]],
        "normals": normals,
        "uv": uv,
        "colour": np.vstack([colours, [[0.7, 0.7, 0.7]]])[rows[:, 3]],
        "layer": np.where(rows[:, 1] < 0, -1, layer),
        "faces": inverse.reshape(-1, 3),
    }


def _clustered(arrays: dict[str, Any]) -> dict[str, Any]:
    """Merge vertices of one look, normal and cell of FINE_CELL: half of the vertices of CAD meshes, nothing seen."""
    cell_size = FINE_CELL * np.linalg.norm(np.ptp(arrays["vertices"], axis=0))
    look = np.column_stack([arrays["layer"], arrays["colour"] * 255, arrays["uv"] * 32])
    look[:, 4:] *= arrays["layer"][:, None] >= 0
    rows = np.column_stack([arrays["vertices"] / max(cell_size, 1e-12), arrays["normals"] * 3, look])
    inverse, count = _groups(np.round(rows).astype(np.int64))
    merged = {key: _means(arrays[key], inverse, count) for key in ("vertices", "normals", "uv", "colour", "layer")}
    return merged | {"faces": _remapped(arrays["faces"], inverse)}


def _groups(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Group number (N,) of each row and the size (G,) of each group: equal rows are one group."""
    _, inverse, count = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return inverse.reshape(-1), count


def _means(values: npt.NDArray[Any], inverse: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    columns = values.reshape(len(values), -1).T
    sums = np.stack([np.bincount(inverse, column, len(count)) for column in columns], axis=1)
    return (sums / count[:, None]).reshape(-1, *values.shape[1:])


def _remapped(faces: npt.NDArray[Any], inverse: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Faces (F, 3) between groups, without those that have shrunk to an edge or a point."""
    grouped = inverse[faces]
    a, b, c = grouped.T
    return np.asarray(grouped[(a != b) & (b != c) & (c != a)])


def _read_materials(
    archive: zipfile.ZipFile, folder: str, obj: _Obj
) -> tuple[npt.NDArray[np.float64], list[int], npt.NDArray[np.uint8]]:
    """Colour (M, 3), texture layer (M, -1 = none) of each material and the textures themselves."""
    members = {name.lower(): name for name in archive.namelist() if name.startswith(f"{folder}/")}
    colours, maps = np.full((len(obj.materials), 3), 0.7), [""] * len(obj.materials)
    library, current = members.get(f"{folder}/{obj.library}".lower()), -1
    for line in io.StringIO(archive.read(library).decode("latin-1") if library else ""):
        head, _, rest = line.strip().partition(" ")
        if head == "newmtl":
            current = obj.materials.index(rest.strip()) if rest.strip() in obj.materials else -1
        elif head == "Kd" and current >= 0:
            colours[current] = np.clip([float(word) for word in rest.split()[:3]], 0, 1)
        elif head == "map_Kd" and current >= 0:
            maps[current] = rest.strip().replace("\\", "/").split("/")[-1].lower()
    textures: list[npt.NDArray[np.uint8]] = []
    layer_of: dict[str, int] = {"": -1}
    for name in maps:
        if name not in layer_of:
            texture = _decode_texture(archive, members.get(f"{folder.lower()}/{name}"))
            layer_of[name] = len(textures) if texture is not None else -1
            textures += [texture] if texture is not None else []
    stacked = np.stack(textures) if textures else np.zeros((0, TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8)
    return colours, [layer_of[name] for name in maps], stacked


def _decode_texture(archive: zipfile.ZipFile, member: str | None) -> npt.NDArray[np.uint8] | None:
    if member is None:
        return None
    image = cv2.imdecode(np.frombuffer(archive.read(member), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.dtype != np.uint8:
        image = (image / 257).astype(np.uint8)
    code = {2: cv2.COLOR_GRAY2RGBA}.get(image.ndim) or (
        cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGBA
    )
    return np.asarray(
        cv2.resize(cv2.cvtColor(image, code), (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def write_mesh_list(path: Path, meshes: list[tuple[str, bool]]) -> None:
    """meshes.json of a rendered folder: name and split by mesh index."""
    rows = [{"name": name, "split": "test" if held else "train"} for name, held in meshes]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
