"""The scene of the demo: a printed carton, never trained on, moved over a cluttered table."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.renderer import Item, Light, Renderer
from nocsfm_ros.data.sequences import START_NS, SequenceFrame, draw_frame
from nocsfm_ros.data.shapes import plane_mesh, procedural_mesh
from nocsfm_ros.types import Float64Array

RATE_HZ = 15.0
NUM_FRAMES = 112
SURFACE_SEED = 7
K_SEQUENCE = np.array([[612.0, 0, 321.4], [0, 612.0, 238.2], [0, 0, 1]])
K_REFERENCE = np.array([[598.0, 0, 317.8], [0, 598.0, 241.1], [0, 0, 1]])
NUM_SURFACES = 24
TABLE, WALL, REFERENCE_TABLE = 14, 15, 13  # cloth, bricks, grey: numbers in surface_pool(SURFACE_SEED)
DIAGONAL_M = 0.17
WORDS = ("TEA", "MINT", "HERBAL TEA", "50 BAGS")
_OBJECT = procedural_mesh(200_018, WORDS, kind="box")
_ELEVATION = np.radians(36)
_UP = np.array([0.0, -np.cos(_ELEVATION), -np.sin(_ELEVATION)])
_FLOOR_POINT = np.array([0.0, 0.13, 0.72])
# seed, kind, metres right and away of the floor point, diagonal in metres, turn in degrees
_CLUTTER = (
    (200_101, "box", -0.24, 0.02, 0.18, 25),
    (200_102, "mug", 0.25, -0.02, 0.13, 200),
    (200_103, "can", -0.12, 0.22, 0.14, 60),
    (200_104, "box", 0.17, 0.24, 0.19, -35),
    (200_105, "bowl", -0.38, 0.30, 0.17, 0),
    (200_106, "bottle", 0.02, 0.38, 0.24, 10),
    (200_107, "box", 0.40, 0.20, 0.15, 70),
    (200_108, "mug", -0.07, -0.12, 0.11, 300),
    (200_109, "can", 0.33, 0.42, 0.15, 0),
    (200_110, "blocks", -0.32, 0.50, 0.2, 40),
)
# time in seconds, position in the camera in metres: handled, then carried out to the right, then back from
# the upper left
_PATH = np.array(
    [
        (0.0, -0.06, 0.01, 0.62),
        (1.0, 0.00, -0.03, 0.58),
        (2.0, 0.05, -0.01, 0.55),
        (3.0, 0.01, 0.02, 0.58),
        (4.0, -0.03, 0.00, 0.62),
        (4.8, 0.05, -0.02, 0.60),
        (5.3, 0.28, -0.04, 0.60),
        (5.55, 0.46, -0.06, 0.60),
        (5.8, 0.60, -0.60, 0.60),
        (6.2, -0.60, -0.60, 0.64),
        (6.5, -0.46, -0.12, 0.64),
        (7.0, -0.18, -0.06, 0.62),
        (7.6, -0.10, -0.04, 0.60),
    ]
)


def demo_frame(renderer: Renderer, index: int) -> SequenceFrame:
    """Frame `index` of the sequence."""
    time_s = index / RATE_HZ
    T_cam_obj = object_pose(time_s)
    light = Light(np.array([-0.45, -0.75, -0.48]), (0.75, 0.72, 0.66), (0.5, 0.51, 0.54), 0.12, 0.6)
    items = [
        Item(_OBJECT, T_cam_obj, DIAGONAL_M, 1, shininess=(0.08, 25)),
        *_surroundings(),
        _passer_by(time_s),
    ]
    return draw_frame(renderer, items, K_SEQUENCE, light, START_NS + round(index * 1e9 / RATE_HZ))


def reference_frame(renderer: Renderer) -> SequenceFrame:
    """The user's picture: the carton alone on another table, other camera, other light."""
    T_cam_obj = np.eye(4)
    T_cam_obj[:3, :3], T_cam_obj[:3, 3] = _reference_rotation(), (0.01, 0.01, 0.46)
    floor = T_cam_obj[:3, 3] + _UP * float((_OBJECT.vertices * DIAGONAL_M @ T_cam_obj[:3, :3].T @ _UP).min())
    items = [
        Item(_OBJECT, T_cam_obj, DIAGONAL_M, 1, shininess=(0.08, 25)),
        _slab(floor, _UP, 4.0, REFERENCE_TABLE, 0.6),
    ]
    light = Light(np.array([0.5, -0.7, -0.5]), (0.6, 0.62, 0.66), (0.6, 0.6, 0.6), 0.1, 0.4)
    return draw_frame(renderer, items, K_REFERENCE, light)


def object_pose(time_s: float) -> Float64Array:
    """T_cam_obj (4, 4): smooth path, at most 60 deg from the reference, at most 30 deg a second."""
    yaw = -12 + 52 * np.sin(2 * np.pi * time_s / 15)
    pitch, roll = 14 * np.sin(2 * np.pi * time_s / 8), 10 * np.sin(2 * np.pi * time_s / 6 + 0.8)
    T_cam_obj = np.eye(4)
    tilt = Rotation.from_euler("xz", (pitch, roll), degrees=True).as_matrix()
    T_cam_obj[:3, :3] = tilt @ _reference_rotation() @ Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    T_cam_obj[:3, 3] = _smooth_path(time_s)
    return T_cam_obj


def _smooth_path(time_s: float) -> Float64Array:
    weights = np.exp(
        -0.5 * ((_TIMES - time_s) / 0.1) ** 2
    )  # corners of the path rounded over a tenth of a second
    return np.asarray(weights @ _POSITIONS / weights.sum())


_TIMES = np.linspace(-0.5, 8.2, 600)
_POSITIONS = np.stack([np.interp(_TIMES, _PATH[:, 0], column) for column in _PATH[:, 1:].T], axis=1)


def _reference_rotation() -> Float64Array:
    """Standing upright, seen from above, front and one side visible."""
    right = np.array([1.0, 0, 0])
    upright = np.stack([right, _UP, np.cross(right, _UP)], axis=1)
    return np.asarray(upright @ Rotation.from_euler("y", -28, degrees=True).as_matrix())


def _surroundings() -> list[Item]:
    away = np.cross(_UP, [1.0, 0, 0])
    right = np.array([1.0, 0, 0])
    items = [
        _slab(_FLOOR_POINT, _UP, 4.0, TABLE, 0.5),
        _slab(np.array([0, 0, 2.4]), np.array([0.12, 0.1, -1]), 9.0, WALL, 0.4),
    ]
    for number, (seed, kind, x, z, diagonal_m, turn) in enumerate(_CLUTTER):
        mesh = procedural_mesh(seed, WORDS, kind)
        T = np.eye(4)
        upright = np.stack([right, _UP, np.cross(right, _UP)], axis=1)
        T[:3, :3] = upright @ Rotation.from_euler("y", turn, degrees=True).as_matrix()
        lift = -float(mesh.vertices[:, 1].min()) * diagonal_m
        T[:3, 3] = _FLOOR_POINT + x * right + z * away + lift * _UP
        items.append(Item(mesh, T, diagonal_m, 10 + number, shininess=(0.1, 20)))
    return items


def _slab(point: Float64Array, normal: Float64Array, side: float, surface: int, repeats: float) -> Item:
    normal = normal / np.linalg.norm(normal)
    right = np.cross(normal, [0.0, 0, 1] if abs(normal[2]) < 0.9 else [0.0, 1, 0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, normal, np.cross(right, normal)], axis=1)
    T[:3, 3] = point + T[:3, :3] @ np.array([0.5, 0, 0.5]) / repeats  # the middle of a tile, seams far away
    return Item(plane_mesh(), T, side, 0, surface, repeats, shininess=(0.0, 20), casts_shadow=False)


def _passer_by(time_s: float) -> Item:
    """A bottle led past nearer to the camera; about a second in front of the carton, hiding up to 57 %."""
    T = np.eye(4)
    T[:3, :3] = np.stack([[1.0, 0, 0], _UP, np.cross([1.0, 0, 0], _UP)], axis=1)
    T[:3, 3] = (-0.02 + 0.115 * (time_s - 3.3) + 0.3 * max(0.0, time_s - 4.1) ** 2, 0.02, 0.40)
    if not 1.0 < time_s < 5.8:
        T[:3, 3] = (2.0, 2.0, 1.0)
    return Item(procedural_mesh(200_121, kind="bottle"), T, 0.13, 60, shininess=(0.2, 30))
