"""`nocsfm render --videos DIR`: videos of held-out objects with their truth, to measure tracking.

Those of `--split train` show other objects in the same ways, for whatever is to be fitted to tracking.

Every video begins with the object in view and near the reference's side. KINDS says what then makes it hard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.hands import holding_hand
from nocsfm_ros.data.library import MeshLibrary, build_cache
from nocsfm_ros.data.meshes import surface_samples
from nocsfm_ros.data.renderer import Item, Light, Renderer, enter_render_process
from nocsfm_ros.data.scenes import (
    Target,
    alone_on_table,
    camera_about,
    clutter_around,
    frame_with_up,
    placed,
    sample_light,
    standing,
    surface_pool,
    table_under,
    wall_behind,
    with_random_look,
)
from nocsfm_ros.data.sequences import SIZE_WH, START_NS, SequenceFrame, draw_frame, write_sequence
from nocsfm_ros.data.workers import worker_pool
from nocsfm_ros.geometry.transforms import cross, invert, make_T, transform
from nocsfm_ros.types import Float64Array

RATE_HZ = 15.0
NUM_FRAMES = 300
NUM_SURFACES = 64
PNG_LEVEL = 3
# of each video: points of the surface (N, 3) in metres, and mesh, symmetry about y (0 continuous) and size
POINTS_NAME, OBJECT_NAME, NUM_POINTS = "object_points_m.npy", "object.json", 1000
K = np.array([[612.0, 0, 321.4], [0, 612.0, 238.2], [0, 0, 1]])
K_REFERENCE = np.array([[598.0, 0, 317.8], [0, 598.0, 241.1], [0, 0, 1]])
DIAGONALS_M, SHOWN_PX = (0.09, 0.22), (130, 220)  # size of the object, and of its picture
REFERENCE_TURN_DEG = 20.0
HAND_DRAWS, HAND_MOMENTS, HELD_VISIBLE = 12, 6, 0.75
CLUTTER_DRAWS, MIN_VISIBLE = 20, 0.7
TARGET, OCCLUDER = 1, 240
# kind -> how many of them
KINDS = {
    "slow": 2, "fast": 2, "hand_turn": 3, "occlusion": 3, "leaving": 3, "look_alikes": 3, "lighting": 2, "camera": 2,
    "dropped": 2,
}
# of the motion by hand: degrees, metres (share of the distance), seconds of a swing
_CALM, _QUICK = (25.0, 0.06, 7.0), (40.0, 0.1, 2.4)
_AWAY_S = {"leaving": ((4.0, 6.0), (12.0, 14.5)), "look_alikes": ((9.0, 11.0),)}  # out of the picture between them
_DROPPED_SHARE, _DROPPED_S = 0.25, ((6.0, 6.7), (13.0, 14.0))


@dataclass(frozen=True)
class Video:
    """One video of a set: what it shows follows from these alone."""

    kind: str
    number: int
    heldout: bool = True
    set_seed: int = 0

    @property
    def name(self) -> str:
        """Its folder."""
        parts = [self.kind, *([] if self.heldout else ["train"]), *([f"set{self.set_seed}"] if self.set_seed else [])]
        return f"{'_'.join(parts)}_{self.number}"

    @property
    def seed(self) -> list[int]:
        """Of everything in it."""
        return [100 * self.set_seed + (30 if self.heldout else 31), list(KINDS).index(self.kind), self.number]


def all_videos(heldout: bool = True, set_seed: int = 0) -> list[Video]:
    """A whole set, of held-out or of training objects."""
    return [Video(kind, number, heldout, set_seed) for kind, count in KINDS.items() for number in range(count)]


def render_videos(
    folder: Path, cache: Path, workers: int, heldout: bool = True, set_seed: int = 0, num_frames: int = NUM_FRAMES,
    report: Callable[[str], None] = print,
) -> None:
    """Render the videos that are not there yet, each complete or not at all.

    Args:
        folder: gets a folder per video, see data.sequences.
        cache: of parsed meshes.
        workers: processes.
        heldout: show objects that training never sees.
        set_seed: another one gives another set, of other objects and motions.
        num_frames: moments of each; those of "dropped" have fewer pictures.
        report: gets a line per video.

    Raises:
        ConfigError: no off-screen OpenGL here, or no meshes.
    """
    build_cache(cache, workers, for_training=not heldout)
    videos = all_videos(heldout, set_seed)
    missing = [video for video in videos if not (folder / video.name / "sequence").is_dir()]
    total = len(videos)
    with worker_pool(min(workers, len(missing)), enter_render_process) as pool:
        running = {pool.submit(partial(_render_video, folder, cache, num_frames), video): video for video in missing}
        for number, future in enumerate(as_completed(running), total - len(missing) + 1):
            future.result()
            report(f"{number}/{total} videos: {running[future].name}")


def _render_video(folder: Path, cache: Path, num_frames: int, video: Video) -> None:
    stage = Stage(video, MeshLibrary(cache), Renderer(surface_pool(1, NUM_SURFACES)))
    (folder / video.name).mkdir(parents=True, exist_ok=True)
    look, diagonal_m = stage.target.look, stage.target.diagonal_m
    points, *_ = surface_samples(look.mesh, NUM_POINTS, np.random.default_rng(0))
    np.save(folder / video.name / POINTS_NAME, (points * diagonal_m).astype(np.float32))
    facts = {"mesh": look.mesh.name, "symmetry": look.mesh.symmetry, "diagonal_m": diagonal_m}
    (folder / video.name / OBJECT_NAME).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_sequence(folder / video.name, stage.reference(), stage.frames(num_frames), PNG_LEVEL)


class Stage:
    """The set, the object and its motion of one video; the world is the camera's frame at time 0.

    Args:
        video: which.
        library: of meshes.
        renderer: with NUM_SURFACES surfaces.
    """

    def __init__(self, video: Video, library: MeshLibrary, renderer: Renderer) -> None:
        self.video, self.library, self.renderer = video, library, renderer
        self.rng = rng = np.random.default_rng(video.seed)
        self.target, self.up = self._draw_target()
        self.distance_m = K[0, 0] * self.target.diagonal_m / rng.uniform(*SHOWN_PX)
        self.T_world_obj = make_T(self.target.R_cam_obj, self.distance_m * np.array([0, 0.02, 1.0]))
        hull = self.hull_at(self.T_world_obj)
        floor = float((hull @ self.up).min()) - (0.0 if self._is_standing else 0.06)
        self.light = sample_light(rng, self.up)
        degrees, share, period_s = _QUICK if video.kind == "fast" else _CALM
        self.turning = _Sway(rng, np.radians(degrees), period_s)
        self.moving = _Sway(rng, share * self.distance_m, 0.8 * period_s)
        self.surroundings = [
            table_under(rng, self.up, floor, self.T_world_obj[:3, 3], NUM_SURFACES),
            wall_behind(rng, hull, NUM_SURFACES), *self._draw_clutter(hull, floor),
        ]
        self.hand = [] if self._is_standing else self._draw_hand(hull)
        index = int(rng.choice(library.indices(video.heldout, kind="procedural")))
        self.passer_by = with_random_look(
            Item(library.mesh(index), np.eye(4), 0.5 * self.target.diagonal_m, OCCLUDER), rng, NUM_SURFACES, 0.2
        )

    @property
    def _is_standing(self) -> bool:
        """Whether the object stays on its table."""
        return self.video.kind in ("camera", "lighting")

    def hull_at(self, T_cam_obj: Float64Array) -> Float64Array:
        """(M, 3) outermost points of the object in the camera."""
        return transform(T_cam_obj, self.library.hull(self.target.index) * self.target.diagonal_m)

    def reference(self) -> SequenceFrame:
        """The object alone on another table in another light, turned a little from where the video begins."""
        rng = np.random.default_rng([*self.video.seed, 1])
        axis = rng.normal(size=3)
        turn = Rotation.from_rotvec(np.radians(REFERENCE_TURN_DEG) * axis / np.linalg.norm(axis)).as_matrix()
        T_cam_obj = make_T(turn @ self.pose(0.0)[:3, :3], 0.85 * self.distance_m * np.array([0.02, 0.01, 1.0]))
        item = placed(self.target.look, T_cam_obj)
        items, light = alone_on_table(rng, item, self.hull_at(T_cam_obj), turn @ self.up, NUM_SURFACES)
        return draw_frame(self.renderer, items, K_REFERENCE, light)

    def frames(self, count: int) -> Iterator[SequenceFrame]:
        """The pictures of `count` moments, without those that the camera drops."""
        kept = np.random.default_rng([*self.video.seed, 2]).random(count) > _DROPPED_SHARE
        for index in range(count):
            time_s = index / RATE_HZ
            in_gap = any(begin <= time_s < end for begin, end in _DROPPED_S)
            if self.video.kind == "dropped" and index and (in_gap or not kept[index]):
                continue
            items, light = self.scene(time_s)
            yield draw_frame(self.renderer, items, K, light, START_NS + round(time_s * 1e9))

    def scene(self, time_s: float) -> tuple[list[Item], Light]:
        """Everything that the camera sees at a time; the object first."""
        T_held = self._held_pose(time_s) @ invert(self.T_world_obj)
        items = [placed(self.target.look, self.pose(time_s)), *self.surroundings]
        items += [placed(part, T_held @ part.T_cam_obj) for part in self.hand]
        if self.video.kind == "occlusion":
            items.append(placed(self.passer_by, self._passing(time_s)))
        T_cam_world, light = self._camera(time_s), self._light(time_s)
        items = [placed(item, T_cam_world @ item.T_cam_obj) for item in items]
        return items, replace(light, to_sun_cam=T_cam_world[:3, :3] @ light.to_sun_cam)

    def pose(self, time_s: float) -> Float64Array:
        """T_world_obj (4, 4); hand_turn turns it in its hand, once around in the whole video."""
        share = time_s * RATE_HZ / NUM_FRAMES if self.video.kind == "hand_turn" else 0.0
        turn = Rotation.from_rotvec(2 * np.pi * share * self._turning_axis).as_matrix()
        return self._held_pose(time_s) @ make_T(turn, np.zeros(3))

    def _held_pose(self, time_s: float) -> Float64Array:
        """T_world_obj (4, 4) of an object that never moves in its hand."""
        if self._is_standing:
            return self.T_world_obj
        place = self.T_world_obj[:3, 3] * 0.9 + self.moving(time_s)
        place[0] += self._way_out(time_s)
        return make_T(Rotation.from_rotvec(self.turning(time_s)).as_matrix() @ self.T_world_obj[:3, :3], place)

    @property
    def _turning_axis(self) -> Float64Array:
        return np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0.8, 0.6]][self.video.number % 3])

    def _way_out(self, time_s: float) -> float:
        """Metres to the right: out of the picture on one side, back on the other."""
        out = 0.6 * self.distance_m + self.target.diagonal_m
        for begin, end in _AWAY_S.get(self.video.kind, ()):
            if begin - 0.7 < time_s < end + 0.7:
                times = (begin - 0.7, begin, (begin + end) / 2, (begin + end) / 2 + 0.01, end, end + 0.7)
                return float(np.interp(time_s, times, (0, out, out, -out, -out, 0)))
        return 0.0

    def _passing(self, time_s: float) -> Float64Array:
        """Pose of what is led to and fro before the object, slow where it hides it most."""
        near = 0.62 * self.pose(time_s)[:3, 3]
        phase = 2 * np.pi * time_s / 9.0
        near[0] += 1.3 * self.target.diagonal_m * np.cos(phase) ** 3
        return make_T(Rotation.from_rotvec([0.3, 0.2 * phase, 0]).as_matrix(), near)

    def _camera(self, time_s: float) -> Float64Array:
        """T_cam_world (4, 4): still, or around the object and to and fro."""
        if not self._is_standing:
            return np.eye(4)
        swing = 38.0 if self.video.kind == "camera" else 6.0
        phase = 2 * np.pi * time_s / 12
        yaw = Rotation.from_rotvec(np.radians(swing) * np.sin(phase) * self.up)
        pitch = Rotation.from_euler("x", 0.3 * swing * np.sin(1.7 * phase), degrees=True)
        away_m = 0.004 * swing * np.sin(0.8 * phase) * self.distance_m
        return camera_about(self.T_world_obj[:3, 3], (pitch * yaw).as_matrix(), away_m)

    def _light(self, time_s: float) -> Light:
        if self.video.kind != "lighting":
            return self.light
        phase = 2 * np.pi * time_s / 8
        strength = 0.75 + 0.35 * np.sin(1.3 * phase)
        turn = Rotation.from_euler("z", 70 * np.sin(phase), degrees=True)
        (sun_r, sun_g, sun_b), (sky_r, sky_g, sky_b) = strength * np.array([self.light.colour, self.light.ambient])
        return replace(
            self.light, to_sun_cam=turn.apply(self.light.to_sun_cam), colour=(sun_r, sun_g, sun_b),
            ambient=(sky_r, sky_g, sky_b),
        )

    def _draw_target(self) -> tuple[Target, Float64Array]:
        """An object of the split, printed or of the catalogue, upright, seen from above; and the up direction."""
        rng = self.rng
        is_printed = (self.video.number + list(KINDS).index(self.video.kind)) % 2
        kind = "procedural" if is_printed else "catalogue"
        index = int(rng.choice(self.library.indices(self.video.heldout, kind)))
        elevation = np.radians(rng.uniform(20, 50))
        up = np.array([0, -np.cos(elevation), -np.sin(elevation)])
        diagonal_m = float(rng.uniform(*DIAGONALS_M))
        look = Item(self.library.mesh(index), np.eye(4), diagonal_m, TARGET)
        look = replace(with_random_look(look, rng, NUM_SURFACES, 0.0), shininess=(0.1, 20.0))
        return Target(index, diagonal_m, 1, frame_with_up(up, rng), look), up

    def _draw_hand(self, hull: Float64Array) -> list[Item]:
        """A hand on the object as it is at first, which leaves most of it to be seen."""
        hands = [holding_hand(self.rng, hull, None) for _ in range(HAND_DRAWS)]
        moments = np.linspace(0, NUM_FRAMES / RATE_HZ, HAND_MOMENTS)

        def misfit(hand: list[Item]) -> float:
            return float(np.mean([abs(self._share_visible(t, hand) - HELD_VISIBLE) for t in moments]))

        return min(hands, key=misfit)

    def _share_visible(self, time_s: float, others: list[Item]) -> float:
        """Of the object, with others held or standing before it."""
        held = self._held_pose(time_s) @ invert(self.T_world_obj)
        items = [placed(item, held @ item.T_cam_obj) for item in (placed(self.target.look, self.T_world_obj), *others)]
        alone, seen = self.renderer.silhouettes(items, K, SIZE_WH, 1)
        return float((seen == TARGET).sum() / max((alone == TARGET).sum(), 1))

    def _draw_clutter(self, hull: Float64Array, floor: float) -> list[Item]:
        """Things on the table that leave most of the object to be seen."""
        for _ in range(CLUTTER_DRAWS):
            items = self._clutter(hull, floor)
            if self._share_visible(0.0, items) >= MIN_VISIBLE:
                return items
        return []

    def _clutter(self, hull: Float64Array, floor: float) -> list[Item]:
        """Things on the table, none of them the object; for look_alikes three of its shape in other prints."""
        heldout = self.video.heldout
        items = clutter_around(self.rng, self.library, self.target, hull, self.up, floor, heldout, NUM_SURFACES)
        items = [item for item in items if item.mesh.name != self.target.look.mesh.name]
        if self.video.kind == "look_alikes":
            for number, (right, away) in enumerate(((-1.5, 0.3), (1.5, 0.2), (0.2, 1.6))):
                print_layer = int(self.rng.integers(NUM_SURFACES))
                look = replace(self.target.look, instance=100 + number, print_layer=print_layer, print_scale=6.0)
                items.append(placed(look, self._beside(right, away, floor)))
        return items

    def _beside(self, right: float, away: float, floor: float) -> Float64Array:
        """Pose of something upright on the table, so many diagonals beside the object."""
        axis_right = np.array([1.0, 0, 0])
        axis_away = cross(self.up, axis_right)
        place = self.T_world_obj[:3, 3] + self.target.diagonal_m * (right * axis_right + away * axis_away)
        T = make_T(frame_with_up(self.up, self.rng), place)
        return standing(T, self.library.hull(self.target.index) * self.target.diagonal_m, self.up, floor)


class _Sway:
    """A smooth wandering vector (3,) of about this size, zero at time 0."""

    def __init__(self, rng: np.random.Generator, size: float, period_s: float) -> None:
        self.size, self.periods_s = size, period_s * rng.uniform(0.7, 1.4, (2, 3))
        self.phases = rng.uniform(0, 2 * np.pi, (2, 3))
        self.start = np.zeros(3)
        self.start = self(0.0)

    def __call__(self, time_s: float) -> Float64Array:
        waves = np.sin(2 * np.pi * time_s / self.periods_s + self.phases)
        return np.asarray(self.size * (0.7 * waves[0] + 0.3 * waves[1]) - self.start)
