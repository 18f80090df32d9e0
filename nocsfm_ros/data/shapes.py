"""Procedural table-top objects with prints: boxes, cans, bottles, bowls, mugs, laptops, cameras; plain helpers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.meshes import TEXTURE_SIZE, Mesh, normalised
from nocsfm_ros.data.textures import keyboard_texture, label_texture, random_colour, surface_texture

KINDS = ("box", "box", "can", "bottle", "bowl", "mug", "mug", "blocks", "laptop", "camera")
CAPSULE_RADIUS = 0.12
Arrays = dict[str, Any]


def procedural_mesh(seed: int, words: tuple[str, ...] = (), kind: str | None = None) -> Mesh:
    """The object of this seed, always the same; `kind` one of KINDS, `words` printed on it instead of random
    letters.
    """
    rng = np.random.default_rng([20, seed])
    drawn = KINDS[rng.integers(len(KINDS))]
    kind = kind or drawn
    builders = {
        "box": _box, "can": _can, "bottle": _bottle, "bowl": _bowl, "mug": _mug, "blocks": _blocks,
        "laptop": _laptop, "camera": _camera,
    }
    return normalised(f"procedural/{kind}_{seed:05d}", builders[kind](rng, words))


def plane_mesh() -> Mesh:
    """A square of side 1 in x, z with normal +y. Not centred in a box of diagonal 1: for tables and walls."""
    corners = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]], np.float32)
    return Mesh(
        "plane",
        corners,
        np.tile(np.array([[0, 1, 0]], np.float32), (4, 1)),
        corners[:, [0, 2]] + 0.5,
        np.full((4, 3), 0.7, np.float32),
        np.full(4, -1, np.float32),
        np.array([[0, 2, 1], [0, 3, 2]], np.int32),
        np.zeros((0, TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8),
    )


def capsule_mesh() -> Mesh:
    """A finger: a cylinder with round ends along y, length 1, radius CAPSULE_RADIUS (to be scaled per axis)."""
    bend = np.linspace(0, np.pi / 2, 5)
    profile = [
        *zip(CAPSULE_RADIUS * np.sin(bend), CAPSULE_RADIUS - 0.5 - CAPSULE_RADIUS * np.cos(bend), strict=True),
        *zip(CAPSULE_RADIUS * np.cos(bend), 0.5 - CAPSULE_RADIUS + CAPSULE_RADIUS * np.sin(bend), strict=True),
    ]
    arrays = _revolved(np.array(profile), 16, layer=-1, colour=(0.8, 0.6, 0.5))
    return Mesh("capsule", **arrays, textures=stacked([]))


def stacked(pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """(L, 256, 256, 4) uint8: RGB pictures as the textures of a Mesh."""
    if not pictures:
        return np.zeros((0, TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8)
    rgb = np.stack(pictures)
    return np.concatenate([rgb, np.full((*rgb.shape[:3], 1), 255, np.uint8)], axis=3)


def _picture(rng: np.random.Generator, words: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    return label_texture(rng, words) if rng.random() < 0.8 or words else surface_texture(rng)


def _box(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    thickness = rng.uniform(0.01, 0.08) if rng.random() < 0.25 else rng.uniform(0.08, 1.0)
    half = np.array([1.0, rng.uniform(0.35, 1.6), thickness]) / 2
    shared = rng.random() < 0.3 and not words  # the same print on front and back, as packages have
    pictures = [_picture(rng, words) for _ in range(6)]
    arrays = _cuboid(half, [0, 1, 2, 3, 4, 4 if shared else 5])
    arrays["textures"] = stacked(pictures)
    return arrays


def _cuboid(
    half: npt.NDArray[np.float64], layers: list[int], colour: npt.ArrayLike = (0.7, 0.7, 0.7)
) -> Arrays:
    """Six faces in the order -x +x -y +y -z +z; prints stand upright on the four sides."""
    vertices, normals, uv = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            up = np.array([0.0, 1, 0]) if axis != 1 else np.array([0.0, 0, -sign])
            right = np.cross(up, normal)
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
                vertices.append((normal + (2 * u - 1) * right + (1 - 2 * v) * up) * half)
                normals.append(normal)
                uv.append((0.002 + 0.996 * u, 0.002 + 0.996 * v))
    faces = [
        [4 * side + a, 4 * side + b, 4 * side + c] for side in range(6) for a, b, c in ((0, 1, 2), (0, 2, 3))
    ]
    return {
        "vertices": np.array(vertices),
        "normals": np.array(normals),
        "uv": np.array(uv),
        "faces": np.array(faces),
        "colour": np.tile(np.asarray(colour, np.float64), (24, 1)),
        "layer": np.repeat(np.array(layers, np.float64), 4),
    }


def _revolved(
    profile: npt.NDArray[np.float64],
    segments: int = 48,
    layer: int = 0,
    colour: npt.ArrayLike = (0.7, 0.7, 0.7),
) -> Arrays:
    """Turn (radius, height) points around y. The texture goes once around; its rows follow the arc length."""
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    step = np.gradient(profile, axis=0)
    outward = np.column_stack([step[:, 1], -step[:, 0]])
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    around = np.stack([np.cos(turn), np.sin(turn)], 1)

    def swept(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        r, y = np.broadcast_arrays(rows[:, :1], np.zeros((1, segments + 1)))[0], rows[:, 1:]
        return np.stack([r * around[:, 0], np.broadcast_to(y, r.shape), r * around[:, 1]], -1).reshape(-1, 3)

    uv = np.stack(np.meshgrid(1 - turn / (2 * np.pi), 1 - arc / max(arc[-1], 1e-9)), -1).reshape(-1, 2)
    first = (np.arange(len(profile) - 1)[:, None] * (segments + 1) + np.arange(segments)).ravel()
    faces = np.concatenate(
        [
            np.stack([first, first + segments + 1, first + 1], 1),
            np.stack([first + 1, first + segments + 1, first + segments + 2], 1),
        ]
    )
    count = len(uv)
    return {
        "vertices": swept(profile).astype(np.float32),
        "normals": swept(outward).astype(np.float32),
        "uv": uv.astype(np.float32),
        "faces": faces.astype(np.int32),
        "colour": np.tile(np.asarray(colour, np.float32), (count, 1)),
        "layer": np.full(count, layer, np.float32),
    }


def _joined(parts: list[Arrays], pictures: list[npt.NDArray[np.uint8]]) -> Arrays:
    offsets = np.cumsum([0, *(len(part["vertices"]) for part in parts[:-1])])
    whole: Arrays = {
        key: np.concatenate([part[key] for part in parts])
        for key in ("vertices", "normals", "uv", "colour", "layer")
    }
    whole["faces"] = np.concatenate(
        [part["faces"] + shift for part, shift in zip(parts, offsets, strict=True)]
    )
    whole["textures"] = stacked(pictures)
    return whole


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return random_colour(rng) / 255


def _can(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    radius, height, metal = rng.uniform(0.2, 0.8), 1.0, _colour(rng) * 0.5 + 0.4
    neck = radius * rng.uniform(0.8, 1.0)
    side = _revolved(np.array([[radius, 0.05], [radius, height - 0.05]]), 40)
    lower = _revolved(np.array([[0, 0.02], [neck * 0.9, 0.02], [neck, 0.0], [radius, 0.05]]), 40, -1, metal)
    upper = _revolved(
        np.array(
            [
                [radius, height - 0.05],
                [neck, height],
                [neck * 0.92, height],
                [neck * 0.9, height - 0.04],
                [0, height - 0.04],
            ]
        ),
        40,
        -1,
        metal,
    )
    return _joined([side, lower, upper], [_picture(rng, words)])


def _bottle(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    radius, shoulder, neck = rng.uniform(0.13, 0.3), rng.uniform(0.5, 0.75), rng.uniform(0.03, 0.1)
    body, cap = _colour(rng), _colour(rng)
    top = min(shoulder + rng.uniform(0.08, 0.25), 0.88)
    bend = np.linspace(0, np.pi / 2, 7)
    dome = np.column_stack(
        [neck + (radius - neck) * np.cos(bend), shoulder + (top - shoulder) * np.sin(bend)]
    )
    label = sorted(rng.uniform(0.05, shoulder, 2))
    label[1] = max(label[1], min(label[0] + 0.15, shoulder))
    parts = [
        _revolved(np.array([[0, 0], [radius * 0.95, 0], [radius, 0.03], [radius, label[0]]]), 40, -1, body),
        _revolved(np.array([[radius * 1.005, label[0]], [radius * 1.005, label[1]]]), 40, 0),
        _revolved(np.vstack([[radius, label[1]], dome, [neck, 0.9]]), 40, -1, body),
        _revolved(np.array([[neck * 1.15, 0.9], [neck * 1.15, 1.0], [0, 1.0]]), 32, -1, cap),
    ]
    return _joined(parts, [_picture(rng, words)])


def _vessel(rng: np.random.Generator, outer: npt.NDArray[np.float64], words: tuple[str, ...]) -> list[Arrays]:
    wall = 0.03 + 0.02 * rng.random()
    inner = outer[::-1] - np.array([wall, 0.0])
    inner[-1] = (0, outer[0, 1] + wall)
    inner[:, 0] = np.maximum(inner[:, 0], 0)
    inner[:, 1] = np.maximum(inner[:, 1], outer[0, 1] + wall)
    foot = np.array([[0, outer[0, 1]], outer[0]])
    plain = _colour(rng)
    return [
        _revolved(outer, 40, 0 if rng.random() < 0.8 or words else -1, plain),
        _revolved(np.vstack([outer[-1], inner]), 40, -1, plain if rng.random() < 0.5 else _colour(rng)),
        _revolved(foot, 40, -1, plain),
    ]


def _bowl(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    bend = np.linspace(0.0, np.pi / 2, 10)
    foot, depth = rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.9)
    outer = np.column_stack(
        [foot + (1 - foot) * np.sin(bend) ** rng.uniform(0.6, 1.5), depth * (1 - np.cos(bend))]
    )
    return _joined(_vessel(rng, outer, words), [_picture(rng, words)])


def _mug(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    radius, taper = rng.uniform(0.3, 0.55), rng.uniform(0.75, 1.1)
    rows = np.linspace(0, 1, 6)
    outer = np.column_stack([radius * (taper + (1 - taper) * rows), rows])
    parts = _vessel(rng, outer, words)
    bend = np.linspace(-np.pi / 2, np.pi / 2, 14)
    reach, height = rng.uniform(0.2, 0.35), rng.uniform(0.25, 0.36)
    path = np.column_stack(
        [
            radius * min(taper, 1) - 0.03 + reach * np.cos(bend),
            0.5 + height * np.sin(bend),
            np.zeros_like(bend),
        ]
    )
    parts.append(
        _tube(path, rng.uniform(0.035, 0.06), _colour(rng) if rng.random() < 0.3 else parts[0]["colour"][0])
    )
    return _joined(parts, [_picture(rng, words)])


def _tube(path: npt.NDArray[np.float64], radius: float, colour: npt.ArrayLike, segments: int = 10) -> Arrays:
    """A tube along a path in the x, y plane."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.0, 0, 1])
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    normals = side[:, None] * np.cos(turn)[:, None] + np.array([0.0, 0, 1]) * np.sin(turn)[:, None]
    first = (np.arange(len(path) - 1)[:, None] * (segments + 1) + np.arange(segments)).ravel()
    faces = np.concatenate(
        [
            np.stack([first, first + 1, first + segments + 1], 1),
            np.stack([first + 1, first + segments + 2, first + segments + 1], 1),
        ]
    )
    count = normals.shape[0] * normals.shape[1]
    return {
        "vertices": (path[:, None] + radius * normals).reshape(-1, 3),
        "normals": normals.reshape(-1, 3),
        "uv": np.zeros((count, 2)),
        "colour": np.tile(np.asarray(colour), (count, 1)),
        "layer": np.full(count, -1.0),
        "faces": faces,
    }


def _blocks(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    """Two to four cuboids stuck together: a toy, a device, a part."""
    parts: list[Arrays] = []
    pictures: list[npt.NDArray[np.uint8]] = []
    for index in range(int(rng.integers(2, 5))):
        printed = rng.random() < 0.5
        half = rng.uniform(0.08, 0.5, 3)
        part = _cuboid(half, [len(pictures) if printed else -1] * 6, _colour(rng))
        if index:
            part["vertices"] = part["vertices"] + rng.uniform(-0.4, 0.4, 3)
        parts.append(part)
        pictures += [_picture(rng, words)] if printed else []
    return _joined(parts, pictures)


def _laptop(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    """Two slabs on a hinge, opened by 60 to 150 deg: keys on the lower one, a picture and a lid on the other."""
    depth, thick, lid = rng.uniform(0.6, 0.8), rng.uniform(0.02, 0.06), rng.uniform(0.012, 0.03)
    body = _colour(rng)
    base = _cuboid(np.array([1.0, thick, depth]) / 2, [-1, -1, -1, 0, -1, -1], body)
    screen = _cuboid(np.array([1.0, depth, lid]) / 2, [-1, -1, -1, -1, 2, 1], body)
    screen = _moved(screen, np.eye(3), (0, depth / 2, 0))
    leaning = Rotation.from_euler("x", 90 - rng.uniform(60, 150), degrees=True).as_matrix()
    screen = _moved(screen, leaning, (0, thick / 2, -depth / 2))
    lid_picture = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 255 * body, np.uint8)
    shown = _picture(rng, words)
    return _joined([base, screen], [keyboard_texture(rng, 255 * body), shown, _with_logo(lid_picture, shown)])


def _with_logo(ground: npt.NDArray[np.uint8], picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`ground` with a small piece of `picture` in its middle."""
    middle = slice(TEXTURE_SIZE * 2 // 5, TEXTURE_SIZE * 3 // 5)
    ground[middle, middle] = picture[middle, middle]
    return ground


def _camera(rng: np.random.Generator, words: tuple[str, ...]) -> Arrays:
    """A body with a lens of one to three rings, a grip, a finder and a button; prints in front and behind."""
    height, thick = rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.5)
    body, dark = _colour(rng), np.full(3, rng.uniform(0.03, 0.3))
    lens_x, radius = rng.uniform(-0.15, 0.15), rng.uniform(0.17, 0.42) * height
    parts = [_cuboid(np.array([1.0, height, thick]) / 2, [-1, -1, -1, -1, 0, 1], body)]
    front = thick / 2
    forward = Rotation.from_euler("x", 90, degrees=True).as_matrix()  # turned parts stand along y: now along z
    for _ in range(int(rng.integers(1, 4))):
        length = rng.uniform(0.05, 0.25)
        ring = np.array([[radius, 0], [radius, length], [radius * 0.85, length], [0, length - 0.02]])
        parts.append(_moved(_revolved(ring, 32, -1, dark), forward, (lens_x, 0, front)))
        front, radius, dark = front + length, radius * rng.uniform(0.75, 0.95), _colour(rng) * 0.5
    grip = _cuboid(np.array([0.08, 0.45 * height, 0.5 * thick]), [-1] * 6, dark)
    finder = _cuboid(np.array([rng.uniform(0.1, 0.2), 0.1, 0.35 * thick]), [-1] * 6, body)
    button = _revolved(np.array([[0.05, 0], [0.05, 0.05], [0, 0.05]]), 20, -1, _colour(rng))
    parts += [
        _moved(grip, np.eye(3), (-0.44, 0, 0.5 * thick)),
        _moved(finder, np.eye(3), (lens_x, height / 2 + 0.05, 0)),
        _moved(button, np.eye(3), (-0.35, height / 2, rng.uniform(-0.1, 0.1))),
    ]
    return _joined(parts, [_picture(rng, words), _picture(rng, words)])


def _moved(part: Arrays, R: npt.NDArray[np.float64], t: npt.ArrayLike) -> Arrays:
    return part | {"vertices": part["vertices"] @ R.T + np.asarray(t), "normals": part["normals"] @ R.T}
