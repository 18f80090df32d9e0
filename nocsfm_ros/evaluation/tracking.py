"""`nocsfm evaluate-tracking`: the tracker on rendered videos, against what it would do with less memory.

Rows:

* ``product``: the tracker as it is on a robot, but for the clock: it looks at every frame.
* ``no_memory``: the user's reference alone (tracking.max_keyframes 0).
* ``chained``: the published feedback: each frame's mask cuts the only reference for the next frame.
* ``per_frame``: every frame searched from nothing, each PER_FRAME_STRIDE-th one, as it remembers none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import Config
from nocsfm_ros.data.bags import BagSource
from nocsfm_ros.data.sequences import LABEL_VISIBLE, FrameTruth, read_reference, read_truths
from nocsfm_ros.data.videos import OBJECT_NAME, POINTS_NAME
from nocsfm_ros.data.workers import worker_pool
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.demo_pictures import write_png
from nocsfm_ros.evaluation.point_errors import add_m, adds_m
from nocsfm_ros.evaluation.summary import VISIBLE_FRACTION, mask_iou, visible_fractions
from nocsfm_ros.evaluation.tracking_metrics import TrackedFrame, summarise_tracking, tracking_table
from nocsfm_ros.evaluation.tracking_plots import plot_calibration, plot_errors_over_time
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.geometry.symmetry import nearest_symmetry
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg
from nocsfm_ros.tracking.tracker import Tracker, build_tracker
from nocsfm_ros.types import Float64Array, Reference, RgbdFrame, Track, TrackState
from nocsfm_ros.visualization import grid, overlay

ROWS = ("per_frame", "chained", "no_memory", "product")
PER_FRAME_STRIDE = 5
SHEET_FRAMES, SHEET_ROW = 12, "product"
FRAMES_NAME = "frames.jsonl"


@dataclass(frozen=True)
class VideoObject:
    """What is true of a video's object: points (N, 3) of its surface and diameter, metres; symmetry about y."""

    points_m: Float64Array
    diameter_m: float
    symmetry: int


def evaluate_tracking(
    videos: Path, out: Path, config: Config, rows: Sequence[str], workers: int, facts: dict[str, Any],
    report: Callable[[str], None], per_kind: int | None = None,
) -> dict[str, Any]:
    """Run the rows on all videos and write metrics.json, table.md, frames.jsonl, PNG curves and a sheet per video.

    Args:
        videos: what `nocsfm render --videos` wrote.
        out: made if missing.
        config: of the tracker.
        rows: of ROWS.
        workers: processes, each with a tracker of one thread.
        facts: further entries of metrics.json.
        report: gets a line per video.
        per_kind: how many videos of each kind; None for all.

    Returns:
        The content of metrics.json.

    Raises:
        ConfigError: no videos, or an unknown row.
    """
    folders = sorted(path.parent for path in videos.glob("*/sequence"))
    folders = [folder for folder in folders if not per_kind or int(folder.name.rpartition("_")[2]) < per_kind]
    if not folders or not set(rows) <= set(ROWS):
        raise ConfigError(
            "nocsfm evaluate-tracking", got=f"{len(folders)} videos in {videos}, rows {', '.join(rows)}",
            expected=f"videos, and rows of {', '.join(ROWS)}", mend=f"nocsfm render --videos {videos}",
        )
    out.mkdir(parents=True, exist_ok=True)
    frames: list[TrackedFrame] = []
    with worker_pool(workers, _enter_worker, config) as pool:
        running = {pool.submit(_run_video, folder, out, tuple(rows)): folder for folder in folders}
        for number, future in enumerate(as_completed(running), 1):
            frames += future.result()
            report(f"{number}/{len(folders)} videos: {running[future].name}")
    with (out / FRAMES_NAME).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(frame)) + "\n" for frame in frames)
    metrics = {"rows": summarise_tracking(frames), **facts}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(tracking_table(metrics["rows"]), encoding="utf-8")
    plot_errors_over_time(frames, out / "errors.png")
    plot_calibration(frames, out / "calibration.png")
    return metrics


_tracker: Tracker


def _enter_worker(config: Config) -> None:
    global _tracker
    _tracker = build_tracker(replace(config, model=replace(config.model, num_threads=1)))


def _run_video(folder: Path, out: Path, rows: Sequence[str]) -> list[TrackedFrame]:
    source, truths = BagSource(folder / "sequence"), read_truths(folder / "sequence")
    reference, thing = read_reference(folder, folder.name), read_object(folder)
    fractions, start_ns = visible_fractions(truths), truths[0].stamp_ns
    shown = set(np.linspace(0, len(source) - 1, SHEET_FRAMES).round().astype(int).tolist())
    frames, pictures, captions = list[TrackedFrame](), [reference.rgb], ["reference"]
    for row in rows:
        for index, track, ms in run_row(row, _tracker, source, reference):
            T_obj_user = _tracker.objects[track.object_id].model.T_obj_user
            frames.append(
                score_track(row, truths[index], fractions[index], start_ns, track, ms, T_obj_user, thing)
            )
            if row == SHEET_ROW and index in shown:
                frame = source.frame(index)
                pictures.append(overlay(frame.rgb, [track], frame.K, ms))
                captions.append(f"frame {index}")
    write_png(grid(pictures, captions, columns=5, cell_wh=(320, 240)), out / f"{folder.name}.png")
    return frames


def run_row(
    row: str, tracker: Tracker, source: BagSource, reference: Reference
) -> Iterator[tuple[int, Track, float]]:
    """Show the source's frames to the tracker in the row's own way; yields (frame, track, ms)."""
    config = tracker.config
    try:
        tracker.configure(_row_config(row, config))
        tracker.set_reference(reference)
        for index in range(0, len(source), PER_FRAME_STRIDE if row == "per_frame" else 1):
            frame = source.frame(index)
            if row == "per_frame":
                tracker.reset()
            begin = time.perf_counter()
            (track,) = tracker.update(frame)
            yield index, track, (time.perf_counter() - begin) * 1e3
            if row == "chained":
                _chain(tracker, frame, track)
    finally:
        tracker.configure(config)
        tracker.remove_reference()


def _row_config(row: str, config: Config) -> Config:
    if row == "per_frame":
        every = replace(config.matching, candidates_per_frame=config.matching.max_candidates)
        return replace(config, matching=every)
    if row in ("no_memory", "chained"):
        return replace(config, tracking=replace(config.tracking, max_keyframes=0))
    return config


def _chain(tracker: Tracker, frame: RgbdFrame, track: Track) -> None:
    """Forget the reference for what this frame's mask shows; it is in the same object frame by this frame's pose."""
    pose, mask = track.estimate.pose, track.estimate.mask
    box_xywh = box_from_mask(mask)
    if pose is None or box_xywh is None:
        return
    model = tracker.objects[track.object_id].model
    view = tracker.estimator.make_view(frame, mask, box_xywh, pose.T_cam_obj)
    if view.anchor_scale_m is None:
        return
    model.views, model.rolled = [view], []
    model.rebuild_cloud()


def score_track(
    row: str, truth: FrameTruth, visible_fraction: float, start_ns: int, track: Track, ms: float,
    T_obj_user: Float64Array | None, thing: VideoObject,
) -> TrackedFrame:
    """One answer against the truth, the symmetry taken out; T_obj_user is that of the tracker's model."""
    iou = mask_iou(track.estimate.mask, truth.labels == LABEL_VISIBLE)
    seen = TrackedFrame(
        video=track.object_id, row=row, time_s=(truth.stamp_ns - start_ns) * 1e-9, visible_fraction=visible_fraction,
        is_tracking=track.state is TrackState.TRACKING, confidence=track.estimate.confidence, ms=ms,
        diameter_m=thing.diameter_m, reason=track.estimate.reason,
        mask_iou=iou if visible_fraction >= VISIBLE_FRACTION else None,
    )
    T_est, estimate = track.T_cam_user, track.estimate
    if T_est is None or estimate.pose is None or T_obj_user is None:
        return seen
    T_true = nearest_truth(T_est, truth, thing)
    error = pose_error(T_est, T_true, T_obj_user)
    sigma = np.sqrt(np.diag(estimate.covariance))
    return replace(
        seen, has_pose=True, rot_err_deg=rotation_angle_deg(T_est[:3, :3], T_true[:3, :3]),
        trans_err_m=float(np.linalg.norm(T_est[:3, 3] - T_true[:3, 3])),
        add_m=add_m(T_est, truth.T_cam_obj, thing.points_m, thing.symmetry),
        adds_m=adds_m(T_est, truth.T_cam_obj, thing.points_m),
        sigma_m=float(np.linalg.norm(sigma[:3])), sigma_deg=float(np.degrees(np.linalg.norm(sigma[3:]))),
        mahalanobis=float(error @ np.linalg.pinv(estimate.covariance) @ error),
    )


def nearest_truth(T_est: Float64Array, truth: FrameTruth, thing: VideoObject) -> Float64Array:
    """(4, 4) of the true poses that look alike, the one nearest to the estimate."""
    return truth.T_cam_obj @ invert(nearest_symmetry(T_est[:3, :3], truth.T_cam_obj[:3, :3], thing.symmetry))


def pose_error(T_est: Float64Array, T_true: Float64Array, T_obj_user: Float64Array) -> Float64Array:
    """(6,) what PoseEstimate.covariance speaks of: metres and radians along the camera's axes.

    Both poses are of the user's frame; the shift is that of the tracker's own frame, about whose origin it turns.
    """
    shift_m = ((T_est - T_true) @ invert(T_obj_user))[:3, 3]
    return np.concatenate([shift_m, Rotation.from_matrix(T_est[:3, :3] @ T_true[:3, :3].T).as_rotvec()])


def read_object(folder: Path) -> VideoObject:
    """Of a video's folder."""
    facts = json.loads((folder / OBJECT_NAME).read_text(encoding="utf-8"))
    points_m = np.load(folder / POINTS_NAME).astype(np.float64)
    return VideoObject(points_m, float(pdist(points_m).max()), int(facts["symmetry"]))
