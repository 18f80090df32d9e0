"""Four objects on one table with their truth, two of them look-alikes that pass each other while the camera moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Item, Renderer
from nocsfm_ros.data.scenes import (
    Target,
    alone_on_table,
    camera_about,
    frame_with_up,
    placed,
    sample_light,
    standing,
    table_under,
    wall_behind,
    with_random_look,
)
from nocsfm_ros.data.sensor import sensed_depth_mm, sensed_rgb
from nocsfm_ros.data.sequences import (
    LABEL_VISIBLE,
    SIZE_WH,
    START_NS,
    FrameTruth,
    SequenceFrame,
    draw_frame,
    object_labels,
)
from nocsfm_ros.data.videos import K_REFERENCE, NUM_SURFACES, RATE_HZ, K
from nocsfm_ros.geometry.transforms import cross, make_T, transform
from nocsfm_ros.types import Float64Array, Reference, RgbdFrame

OBJECT_IDS = ("alike_1", "alike_2", "printed", "other")
# never trained on, of the catalogue, and a hand can hold it
CATALOGUE = (
    "coffee_cup/coffee_cup", "creamer/creamer", "casquette/casquette", "espressokettle/espressokettle",
    "mocassin/mocassin", "perceuse-electrique/perceuse-electrique", "handbag/handbag", "suitcase/suitcase",
    "wirelessOfficePhone3/wirelessOfficePhone3", "medicoscopia_bottle/medicoscopia_bottle", "box/box",
)
DIAGONALS_M, DISTANCE_M, STOUT = (0.12, 0.17), 0.52, 0.3  # stout: thinnest side over the longest
REFERENCE_TURN_DEG, ALIKE_TURN_DEG = (10.0, 30.0), 10.0
PATH_M, GAP_M, ROOM_M = 0.14, 0.01, 0.03  # the look-alikes' way from the middle, the gap between them, behind them
SWING_DEG, NOD_DEG, AWAY_M = 20.0, 5.0, 0.04  # of the camera


@dataclass(frozen=True)
class TableFrame:
    """A frame as the camera delivers it, and the truth of every object in it, in the order of OBJECT_IDS."""

    frame: RgbdFrame
    truths: tuple[FrameTruth, ...]


class TableScene:
    """The four objects, their table and their motion; the world is the camera's frame at the beginning.

    Args:
        seed: of everything in it.
        library: of meshes; held-out ones are shown.
        renderer: with NUM_SURFACES surfaces.
        tint: share by which red and blue of the two look-alikes differ.
    """

    def __init__(self, seed: int, library: MeshLibrary, renderer: Renderer, tint: float) -> None:
        self.seed, self.library, self.renderer = seed, library, renderer
        rng = np.random.default_rng([40, seed])
        elevation = np.radians(rng.uniform(30, 50))
        self.up = np.array([0, -np.cos(elevation), -np.sin(elevation)])
        self.away = cross(self.up, [1.0, 0, 0])
        self.centre = np.array([0, 0, DISTANCE_M])
        self.targets = self._draw_targets(rng, tint)
        hull = np.concatenate([self._hull_at(i, self.pose(i, 0.0)) for i in range(len(OBJECT_IDS))])
        table = table_under(rng, self.up, float(self.centre @ self.up), self.centre, NUM_SURFACES)
        self.surroundings = [replace(table, scale_m=2.5), wall_behind(rng, hull, NUM_SURFACES)]
        self.light = sample_light(rng, self.up)

    def reference(self, number: int) -> Reference:
        """One object alone, in another light, turned a little from where it is seen at first."""
        rng = np.random.default_rng([40, self.seed, 1 + number])
        axis = rng.normal(size=3)
        turn = Rotation.from_rotvec(np.radians(rng.uniform(*REFERENCE_TURN_DEG)) * axis / np.linalg.norm(axis))
        R = turn.as_matrix() @ self.pose(number, 0.0)[:3, :3]
        T_cam_obj = make_T(R, 0.85 * DISTANCE_M * np.array([0.02, 0.01, 1.0]))
        item, hull = placed(self.targets[number].look, T_cam_obj), self._hull_at(number, T_cam_obj)
        items, light = alone_on_table(rng, item, hull, turn.apply(self.up), NUM_SURFACES)
        drawn = draw_frame(self.renderer, items, K_REFERENCE, light)
        seen = _sensed(drawn, rng)
        return Reference(
            OBJECT_IDS[number], seen.rgb, drawn.labels == LABEL_VISIBLE, seen.depth_m, K_REFERENCE, T_cam_obj
        )

    def frames(self, count: int) -> Iterator[TableFrame]:
        """The look-alikes have passed each other when `count` pictures are over."""
        for index in range(count):
            yield self._frame(index, index / max(count - 1, 1))

    def pose(self, number: int, share: float) -> Float64Array:
        """T_world_obj (4, 4) of an object when this share of the time is over."""
        target, side = self.targets[number], (-1) ** number
        gap_m = self._depth_m(0) + GAP_M
        if number < 2:  # the look-alikes; the first one passes nearer to the camera
            right_m, away_m = side * PATH_M * np.cos(np.pi * share), -side * gap_m / 2
        else:
            right_m, away_m = side * PATH_M, gap_m + ROOM_M + self._depth_m(number) / 2
        place = self.centre + right_m * np.array([1.0, 0, 0]) + away_m * self.away
        return standing(make_T(target.R_cam_obj, place), self._hull(number), self.up, float(self.centre @ self.up))

    def _frame(self, index: int, share: float) -> TableFrame:
        T_cam_world = self._camera(share)
        objects = [placed(self.targets[i].look, T_cam_world @ self.pose(i, share)) for i in range(len(OBJECT_IDS))]
        items = [*objects, *(placed(item, T_cam_world @ item.T_cam_obj) for item in self.surroundings)]
        light = replace(self.light, to_sun_cam=T_cam_world[:3, :3] @ self.light.to_sun_cam)
        stamp_ns = START_NS + round(index * 1e9 / RATE_HZ)
        picture = self.renderer.render(items, K, SIZE_WH, light)
        truths = []
        for i, item in enumerate(objects):
            labels = object_labels(self.renderer, [item, *items[:i], *items[i + 1 :]], K)
            truths.append(FrameTruth(stamp_ns, item.T_cam_obj, labels))
        drawn = SequenceFrame(picture.rgb, picture.depth_m, truths[0].labels, truths[0].T_cam_obj, K, stamp_ns)
        return TableFrame(_sensed(drawn, np.random.default_rng([41, self.seed, index])), tuple(truths))

    def _camera(self, share: float) -> Float64Array:
        """T_cam_world (4, 4): once to and fro around the table."""
        wave = np.sin(2 * np.pi * share)
        yaw = Rotation.from_rotvec(np.radians(SWING_DEG) * wave * self.up)
        nod = Rotation.from_euler("x", NOD_DEG * np.sin(3 * np.pi * share), degrees=True)
        return camera_about(self.centre, (nod * yaw).as_matrix(), AWAY_M * wave)

    def _draw_targets(self, rng: np.random.Generator, tint: float) -> list[Target]:
        printed = [index for index in self.library.indices(heldout=True, kind="procedural") if self._is_stout(index)]
        catalogue = [
            index for index in self.library.indices(heldout=True, kind="catalogue")
            if self.library.names[index].endswith(CATALOGUE)
        ]
        alike, different = (int(index) for index in rng.choice(printed, 2, replace=False))
        other = int(rng.choice(catalogue or printed))
        diagonals_m = rng.uniform(*DIAGONALS_M, 3)
        one, third, fourth = (
            self._target(rng, index, float(diagonal_m), instance)
            for index, diagonal_m, instance in zip((alike, different, other), diagonals_m, (1, 3, 4), strict=True)
        )
        turn = Rotation.from_rotvec(np.radians(rng.uniform(-ALIKE_TURN_DEG, ALIKE_TURN_DEG)) * self.up).as_matrix()
        warm, cold = (1 + tint / 2, 1.0, 1 - tint / 2), (1 - tint / 2, 1.0, 1 + tint / 2)
        two = replace(one, R_cam_obj=turn @ one.R_cam_obj, look=replace(one.look, tint=cold, instance=2))
        return [replace(one, look=replace(one.look, tint=warm)), two, third, fourth]

    def _target(self, rng: np.random.Generator, index: int, diagonal_m: float, instance: int) -> Target:
        look = Item(self.library.mesh(index), np.eye(4), diagonal_m, instance)
        look = replace(with_random_look(look, rng, NUM_SURFACES, 0.0), shininess=(0.1, 20.0))
        return Target(index, diagonal_m, 1, frame_with_up(self.up, rng), look)

    def _is_stout(self, index: int) -> bool:
        extent = np.ptp(self.library.hull(index), axis=0)
        return bool(extent.min() > STOUT * extent.max())

    def _depth_m(self, number: int) -> float:
        """How deep an object is along `away`; of both look-alikes the deeper one."""
        numbers = (0, 1) if number < 2 else (number,)
        return max(
            float(np.ptp(self._hull(i) @ self.targets[i].R_cam_obj.T @ self.away)) for i in numbers
        )

    def _hull(self, number: int) -> Float64Array:
        return self.library.hull(self.targets[number].index) * self.targets[number].diagonal_m

    def _hull_at(self, number: int, T_cam_obj: Float64Array) -> Float64Array:
        return transform(T_cam_obj, self._hull(number))


def _sensed(drawn: SequenceFrame, rng: np.random.Generator) -> RgbdFrame:
    """A clean picture as colour and depth camera deliver it."""
    rgb, depth_mm = sensed_rgb(drawn.rgb, rng), sensed_depth_mm(drawn.depth_m, drawn.K, rng)
    return RgbdFrame(rgb, (depth_mm / 1000).astype(np.float32), drawn.K, drawn.stamp_ns)
