"""Hands of capsules that hold an object: palm and forearm on one side, fingers around it, the thumb opposite."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.renderer import Item
from nocsfm_ros.data.shapes import CAPSULE_RADIUS, capsule_mesh
from nocsfm_ros.geometry.transforms import cross
from nocsfm_ros.types import Float64Array

HAND = 250
GLOVED_SHARE = 0.3
_CAPSULE = capsule_mesh()
_ANGLES = np.radians(np.arange(0, 360, 5))


def holding_hand(rng: np.random.Generator, hull_cam: Float64Array, up: Float64Array | None) -> list[Item]:
    """A hand that touches the object.

    Args:
        rng: decides from where, which fingers, size and skin.
        hull_cam: (M, 3) outermost points of the object in the camera, metres.
        up: (3,) normal of the table that the object stands on, None in free air; the arm comes from above it.
    """
    size = rng.uniform(0.85, 1.15)
    side = Rotation.from_euler("z", rng.uniform(0, 360), degrees=True).apply([1.0, 0, rng.uniform(-0.6, 0.3)])
    if up is not None:
        side += (abs(side @ up) - side @ up + rng.uniform(0, 0.5)) * up
    grasp = _Grasp(hull_cam, side, rng)
    radius, spacing = 0.0085 * size, 0.019 * size
    low, high = grasp.reach(2)
    middle = rng.uniform(low + 0.25 * (high - low), high - 0.25 * (high - low))
    heights = middle + spacing * (np.arange(rng.integers(3, 5)) - 1.5)
    segments = []
    for height in heights[(heights > low - radius) & (heights < high + radius)]:
        segments += grasp.finger(height, rng.uniform(0.3, 0.5), rng.uniform(0.07, 0.1) * size, radius)
    segments += grasp.finger(heights.mean() + spacing, -rng.uniform(0.3, 0.6), 0.06 * size, 1.15 * radius)
    palm = grasp.point(0.0, middle, 0.013 * size)
    along = 0.035 * size * grasp.axes[2]
    segments.append((palm - along, palm + along, 0.022 * size))
    away = grasp.axes[0] + rng.normal(0, 0.3, 3) + (0 if up is None else 0.3 * up)
    wrist = palm + 0.04 * size * grasp.axes[0]
    segments += [(palm, wrist, 0.03 * size), (wrist, wrist + 0.35 * away / np.linalg.norm(away), 0.036 * size)]
    tint = _skin(rng)
    return [_capsule(start, end, thick, tint) for start, end, thick in segments]


Segment = tuple[Float64Array, Float64Array, float]


class _Grasp:
    """The object's outline across the hand: axes (3, 3) rows towards the palm, around, and along the knuckles."""

    def __init__(self, hull_cam: Float64Array, side: Float64Array, rng: np.random.Generator) -> None:
        side = side / np.linalg.norm(side)
        around = cross(side, rng.normal(size=3))
        around /= np.linalg.norm(around)
        self.axes = np.stack([side, around, cross(side, around)])
        self.centre = (hull_cam.min(0) + hull_cam.max(0)) / 2
        self._points = (hull_cam - self.centre) @ self.axes.T
        rays = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
        self._support = (self._points[:, :2] @ rays).max(axis=0)

    def reach(self, axis: int) -> tuple[float, float]:
        """Least and greatest coordinate of the object along one of the axes."""
        return float(self._points[:, axis].min()), float(self._points[:, axis].max())

    def radius(self, angle: float) -> float:
        """Distance from the centre to the convex outline in the direction `angle` from the palm, radians."""
        towards = np.cos(_ANGLES - angle)
        return float((self._support[towards > 0.1] / towards[towards > 0.1]).min())

    def point(self, angle: float, height: float, gap: float) -> Float64Array:
        """(3,) in the camera: `gap` metres off the outline at this angle and height."""
        distance = self.radius(angle) + gap
        local = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        return np.asarray(self.centre + local @ self.axes)

    def finger(self, height: float, start: float, length: float, thick: float) -> list[Segment]:
        """Three phalanges from the knuckle at the angle `start` on around the object, the way of its sign."""
        knuckle = self.point(0.25 * start, height, 1.5 * thick)
        angle, joints = start, [knuckle]
        for share in (0.42, 0.32, 0.26):
            joints.append(self.point(angle, height, 0.8 * thick))
            step = share * length / max(self.radius(angle), thick)
            angle += float(np.sign(start)) * min(step, 0.9)
        joints.append(self.point(angle, height, 0.8 * thick))
        return [(a, b, thick) for a, b in zip(joints[:-1], joints[1:], strict=True)]


def _skin(rng: np.random.Generator) -> tuple[float, float, float]:
    skin = np.array([0.95, 0.72, 0.6]) * rng.uniform(0.35, 1.15) * rng.uniform(0.9, 1.1, 3)
    if rng.random() < GLOVED_SHARE:
        skin = rng.uniform(0.1, 1.2, 3)
    red, green, blue = skin
    return float(red), float(green), float(blue)


def _capsule(start: Float64Array, end: Float64Array, thick: float, tint: tuple[float, float, float]) -> Item:
    along = end - start
    length = float(np.linalg.norm(along))
    along = along / max(length, 1e-9)
    right = cross(along, [0.0, 0, 1] if abs(along[2]) < 0.9 else [1.0, 0, 0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.stack([right, along, cross(right, along)], axis=1), (start + end) / 2
    width = thick / CAPSULE_RADIUS
    return Item(_CAPSULE, T, (width, length + 1.6 * thick, width), HAND, tint=tint)
