"""Four objects followed at once, two of them look-alikes that pass each other, on rendered pictures.

Run from the project root: ``python benchmarks/bench_objects.py [--seeds 4] [--frames 60] [--out out/objects]``. Each
seed is another scene of held-out meshes (data/table_scene.py); 1, 2 and 4 of its objects are given to one tracker,
which looks at every frame. The first two are the look-alikes: with one reference its double is there unasked for.

The columns: share of the visible frames with a pose within 5 deg 5 cm and 10 deg 5 cm; *any turn*: within 5 deg 5 cm,
whatever the turn about the object's upright axis; frames with a pose, visible or not; *swaps*: poses nearer to another
of the four objects' true place than to the own one's; ms a frame (median), and of each stage (mean); frames in which
something is searched, the searches in them, and the passes of the backbone over the whole frame for each such frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np

from nocsfm_ros.config import Config, ModelConfig
from nocsfm_ros.data.catalogue import DEFAULT_CACHE
from nocsfm_ros.data.library import build_cache
from nocsfm_ros.data.meshes import surface_samples
from nocsfm_ros.data.renderer import Renderer, enter_render_process
from nocsfm_ros.data.scenes import Target, surface_pool
from nocsfm_ros.data.table_scene import OBJECT_IDS, TableFrame, TableScene
from nocsfm_ros.data.videos import NUM_POINTS, NUM_SURFACES
from nocsfm_ros.evaluation.demo_pictures import write_png
from nocsfm_ros.evaluation.summary import visible_fractions
from nocsfm_ros.evaluation.tracking import VideoObject, score_track
from nocsfm_ros.evaluation.tracking_metrics import TrackedFrame
from nocsfm_ros.geometry.symmetry import CONTINUOUS
from nocsfm_ros.matching.localiser import encode_frame
from nocsfm_ros.tracking.tracker import Tracker, build_tracker
from nocsfm_ros.types import Reference, Track, Uint8Array
from nocsfm_ros.visualization import grid, overlay

COUNTS = (1, 2, 4)
SHEET_FRAMES, SHEET_COLUMNS, CELL_WH = 12, 4, (480, 382)


@dataclass(frozen=True)
class Shown:
    """One frame shown to the tracker: its answers, and what they cost."""

    tracks: Sequence[Track]
    ms: float
    stage_ms: dict[str, float]
    searches: int
    passes: int


@dataclass(frozen=True)
class Run:
    """One scene with some of its references.

    Attributes:
        shown: every frame.
        scores: every object's frames.
        turned: the same as if every object were a solid of revolution.
        swaps: who sat in another one's place, a name for each frame.
    """

    shown: Sequence[Shown]
    scores: Sequence[TrackedFrame]
    turned: Sequence[TrackedFrame]
    swaps: Sequence[str]


def main() -> None:
    """Measure, print and draw."""
    options = _parser().parse_args()
    enter_render_process()
    library, renderer = build_cache(options.cache), Renderer(surface_pool(2, NUM_SURFACES))
    tracker = build_tracker(Config(model=ModelConfig(num_threads=options.threads)))
    options.out.mkdir(parents=True, exist_ok=True)
    runs: dict[int, list[Run]] = {count: [] for count in COUNTS}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        scene = TableScene(seed, library, renderer, options.tint)
        references = [scene.reference(number) for number in range(len(OBJECT_IDS))]
        frames = list(islice(scene.frames(options.frames), options.stop))
        for count in COUNTS:
            runs[count].append(_run(tracker, references[:count], scene, frames))
            print(f"seed {seed}: {_told(runs[count][-1])}", flush=True)
        sheet = _sheet(references, frames, runs[COUNTS[-1]][-1])
        write_png(sheet, options.out / f"scene_{seed}.png")
    print("\n" + _table(runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="scenes")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=60, help="of each scene")
    parser.add_argument("--stop", type=int, help="show only so many of them: who is taken for whom shows at once")
    parser.add_argument("--tint", type=float, default=0.15, help="share by which the look-alikes' colours differ")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/objects"), help="gets a sheet per scene")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    return parser


def _run(tracker: Tracker, references: Sequence[Reference], scene: TableScene, frames: Sequence[TableFrame]) -> Run:
    tracker.remove_reference()
    for reference in references:
        tracker.set_reference(reference)
    shown = [_show(tracker, frame) for frame in frames]
    start_ns = frames[0].frame.stamp_ns
    scores, turned, swaps = list[TrackedFrame](), list[TrackedFrame](), list[str]()
    for number, reference in enumerate(references):
        fractions = visible_fractions([frame.truths[number] for frame in frames])
        T_obj_user, thing = tracker.objects[reference.object_id].model.T_obj_user, _thing(scene.targets[number])
        for frame, fraction, answer in zip(frames, fractions, shown, strict=True):
            truth, track = frame.truths[number], answer.tracks[number]
            score = partial(score_track, str(len(references)), truth, fraction, start_ns, track, answer.ms, T_obj_user)
            scores.append(score(thing))
            turned.append(score(replace(thing, symmetry=CONTINUOUS)))
            swaps += [track.object_id] if _is_swapped(track, frame, number) else []
    return Run(shown, scores, turned, swaps)


def _show(tracker: Tracker, frame: TableFrame) -> Shown:
    with (
        mock.patch("nocsfm_ros.estimator.encode_frame", wraps=encode_frame) as passes,
        mock.patch.object(tracker.estimator, "encode_frame", wraps=tracker.estimator.encode_frame) as searches,
    ):
        unseen = replace(frame.frame)  # features are kept for the frame of before, also if it was another run's
        begin = time.perf_counter()
        tracks = tracker.update(unseen)
        ms = (time.perf_counter() - begin) * 1e3
    return Shown(tracks, ms, tracker.stage_ms, searches.call_count, passes.call_count)


def _is_swapped(track: Track, frame: TableFrame, number: int) -> bool:
    if track.T_cam_user is None:
        return False
    places = np.stack([truth.T_cam_obj[:3, 3] for truth in frame.truths])
    return int(np.linalg.norm(places - track.T_cam_user[:3, 3], axis=1).argmin()) != number


def _thing(target: Target) -> VideoObject:
    points_m = surface_samples(target.look.mesh, NUM_POINTS, np.random.default_rng(0))[0] * target.diagonal_m
    return VideoObject(points_m, target.diagonal_m, target.look.mesh.symmetry)


def _told(run: Run) -> str:
    """A run in a line: every object's own share, and who sat elsewhere."""
    names = list(dict.fromkeys(score.video for score in run.scores))
    shares = [
        f"{name} {_within([s for s in run.scores if s.video == name], '5deg5cm'):.0f} %" for name in names
    ]
    swaps = [f"{name} {run.swaps.count(name)}" for name in dict.fromkeys(run.swaps)]
    return f"5deg5cm {', '.join(shares)}; swaps {', '.join(swaps) or 0}"


def _within(scores: Sequence[TrackedFrame], limits: str) -> float:
    return 100 * float(np.mean([score.is_within(limits) for score in scores if score.is_visible]))


def _table(runs: dict[int, list[Run]]) -> str:
    stages = list(dict.fromkeys(stage for of in runs.values() for run in of for s in run.shown for stage in s.stage_ms))
    stages.remove("total")
    head = ["objects", "5deg5cm", "10deg5cm", "any turn", "poses", "swaps", "ms", *stages]
    head += ["searched frames", "searches", "passes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(_line(count, of_count, stages) for count, of_count in runs.items())])


def _line(count: int, runs: Sequence[Run], stages: Sequence[str]) -> str:
    scores, shown = [score for run in runs for score in run.scores], [s for run in runs for s in run.shown]
    searched = [s for s in shown if s.searches]
    cells = [
        str(count), f"{_within(scores, '5deg5cm'):.1f} %", f"{_within(scores, '10deg5cm'):.1f} %",
        f"{_within([score for run in runs for score in run.turned], '5deg5cm'):.1f} %",
        f"{sum(score.has_pose for score in scores)} of {len(scores)}", str(sum(len(run.swaps) for run in runs)),
        f"{np.median([s.ms for s in shown]):.0f}",
        *(f"{np.mean([s.stage_ms.get(stage, 0.0) for s in shown]):.0f}" for stage in stages),
        f"{len(searched)} of {len(shown)}", str(sum(s.searches for s in searched)),
        f"{sum(s.passes for s in searched) / max(len(searched), 1):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _sheet(references: Sequence[Reference], frames: Sequence[TableFrame], run: Run) -> Uint8Array:
    pictures, captions = [reference.rgb for reference in references], [r.object_id for r in references]
    for index in np.unique(np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)):
        frame, shown = frames[index].frame, run.shown[index]
        pictures.append(overlay(frame.rgb, shown.tracks, frame.K, shown.ms))
        captions.append(f"frame {index}")
    return grid(pictures, captions, SHEET_COLUMNS, CELL_WH)


if __name__ == "__main__":
    main()
