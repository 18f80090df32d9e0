"""What the demo shows: a video, a sheet of some frames, and the errors over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nocsfm_ros import visualization
from nocsfm_ros.data.bag_images import decoded
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.summary import OCCLUDED_FRACTION, FrameScore
from nocsfm_ros.geometry.crops import box_from_mask, crop_frame, square_box
from nocsfm_ros.types import BoxXywh, Float64Array, TrackState, Uint8Array

VIDEO_HZ = 15.0
SHEET_COLUMNS = 8
CROP_SIDE, CROP_MARGIN = 200, 1.5


@dataclass(frozen=True)
class Run:
    """Everything of one run, by stamp. Pictures are kept as they were recorded: JPEG and PNG bytes."""

    scores: Sequence[FrameScore]
    tracks: Mapping[int, Any]
    pictures: Mapping[str, Mapping[int, Any]]

    def picture(self, topic: str, stamp_ns: int) -> Uint8Array | None:
        """(H, W, 3) uint8 RGB of ``colour``, ``mask``, ``nocs`` or ``overlay``, or None."""
        data = self.pictures[topic].get(stamp_ns)
        return None if data is None else decoded(data, cv2.IMREAD_COLOR)[..., ::-1]


def write_video(run: Run, path: Path) -> None:
    """All played frames at their own speed; while a dropped frame was there the last overlay stood on the
    screen.
    """
    newest = run.picture("colour", run.scores[0].truth.stamp_ns)
    if newest is None:
        raise ConfigError("sequence", got="no colour picture", expected="one per frame")
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), VIDEO_HZ, newest.shape[1::-1])
    for score in run.scores:
        overlay = run.picture("overlay", score.truth.stamp_ns)
        newest = newest if overlay is None else overlay
        video.write(cv2.cvtColor(newest, cv2.COLOR_RGB2BGR))
    video.release()
    # OpenCV's writer never says that the codec is missing or the disk full: look at what it left.
    capture = cv2.VideoCapture(str(path))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    if frames != len(run.scores):
        raise ConfigError(
            f"video {path.name}",
            got=f"{frames} frames that can be read",
            expected=len(run.scores),
            mend="Free some disk space; OpenCV must be able to write mp4v",
        )


def sheet(run: Run, data: Path) -> Uint8Array:
    """The reference and some frames: the picture, its crop, NOCS, mask and pose, each in a row."""
    reference = _read(data / "reference.png")[..., ::-1]
    mask = _read(data / "reference_mask.png")[..., ::-1]
    box = box_from_mask(mask[..., 0] > 0)
    blank = np.full((CROP_SIDE, CROP_SIDE, 3), visualization.BACKDROP, np.uint8)
    columns = [
        [
            (reference, "reference"),
            (_cut(reference, box), "crop"),
            (blank, "(live only)"),
            (_cut(mask, box), "mask"),
            (blank, "(live only)"),
        ]
    ]
    start_ns = run.scores[0].truth.stamp_ns
    for score in _chosen(run.scores):
        stamp = score.truth.stamp_ns
        picture, shown = run.picture("colour", stamp), run.picture("mask", stamp)
        box = None if shown is None else box_from_mask(shown[..., 0] > 0)
        state = "dropped" if score.result is None else score.result.state.name
        column = [(blank if picture is None else picture, f"{(stamp - start_ns) / 1e9:.1f} s {state}")]
        errors = f"{score.rot_err_deg:.1f} deg {100 * score.trans_err_m:.1f} cm"
        captions = (
            "crop",
            "NOCS",
            f"mask, IoU {score.mask_iou:.2f}",
            errors if np.isfinite(score.rot_err_deg) else "no pose",
        )
        for name, caption in zip(("colour", "nocs", "mask", "overlay"), captions, strict=True):
            layer = run.picture(name, stamp)
            column.append((blank if layer is None or box is None else _cut(layer, box), caption))
        columns.append(column)
    return visualization.sheet(list(zip(*columns, strict=True)), (220, 190))


def plot(scores: Sequence[FrameScore], path: Path) -> None:
    """Rotation and position error, mask IoU, confidence and state over time; occlusion and absence are
    shaded.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    time_s = np.array([(score.truth.stamp_ns - scores[0].truth.stamp_ns) / 1e9 for score in scores])
    done = np.array([score.result is not None for score in scores])
    confidence = [score.result.confidence for score in scores if score.result is not None]
    states = [score.result.state for score in scores if score.result is not None]
    figure, axes = pyplot.subplots(5, 1, figsize=(10, 9), sharex=True, height_ratios=(3, 3, 2, 2, 1.3))
    curves: tuple[tuple[list[float], str, float], ...] = (
        ([score.rot_err_deg for score in scores], "rotation error (deg)", 10.0),
        ([100 * score.trans_err_m for score in scores], "position error (cm)", 2.0),
    )
    for axis, (values, label, goal) in zip(axes, curves, strict=False):
        finite = [value for value in values if np.isfinite(value)]
        axis.plot(time_s, values, ".", color="tab:blue")
        axis.axhline(goal, color="tab:green", linestyle="--", linewidth=1, label="goal of the median")
        axis.set(
            ylabel=label,
            ylim=(0, max(1.5 * goal, 1.05 * float(np.percentile(finite, 98))) if finite else 2 * goal),
        )
    axes[2].plot(
        time_s[done],
        [score.mask_iou for score in scores if score.result is not None],
        ".",
        color="tab:orange",
    )
    axes[2].set(ylabel="mask IoU", ylim=(-0.02, 1.02))
    axes[3].plot(time_s[done], confidence, ".", color="tab:purple")
    axes[3].set(ylabel="confidence", ylim=(-0.02, 1.02))
    colours = [np.array(visualization.STATE_COLOURS[state]) / 255 for state in states]
    axes[4].scatter(time_s[done], [int(state) for state in states], c=colours, marker="s", s=14, zorder=3)
    axes[4].set(
        yticks=[int(s) for s in TrackState],
        yticklabels=[s.name for s in TrackState],
        ylim=(-0.6, 2.6),
        xlabel="time (s)",
        xlim=(time_s[0] - 0.1, time_s[-1] + 0.1),
    )
    _shade(axes, time_s, scores)
    axes[0].legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _shade(axes: Any, time_s: Float64Array, scores: Sequence[FrameScore]) -> None:
    """Mark when the object is out of view or partly hidden."""
    gone = np.array([score.is_gone for score in scores])
    hidden = np.array([score.hidden_fraction > OCCLUDED_FRACTION for score in scores])
    for axis in axes:
        for where, colour, label in ((gone, "0.75", "out of view"), (hidden, "moccasin", "partly hidden")):
            transform = axis.get_xaxis_transform()
            axis.fill_between(
                time_s,
                0,
                1,
                where=where,
                transform=transform,
                color=colour,
                step="mid",
                label=label,
                linewidth=0,
                zorder=0,
            )
        axis.grid(alpha=0.3)


def write_png(picture: Uint8Array, path: Path) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise ConfigError(
            f"picture {path.name}", got="OpenCV could not write it", expected="a folder with free space"
        )



def _chosen(scores: Sequence[FrameScore]) -> list[FrameScore]:
    """Answered frames spread over time, with the most hidden one and the middle of an absence among them."""
    done = [score for score in scores if score.result is not None]
    spread = [done[round(place)] for place in np.linspace(0, len(done) - 1, SHEET_COLUMNS)]
    gone = [score for score in done if score.is_gone]
    for special in ([max(done, key=lambda score: score.hidden_fraction)], gone[len(gone) // 2 :][:1]):
        for score in special:
            place = int(np.argmin([abs(score.truth.stamp_ns - item.truth.stamp_ns) for item in spread]))
            spread[place] = score
    return spread


def _cut(picture: Uint8Array, box_xywh: BoxXywh | None) -> Uint8Array:
    if box_xywh is None:
        return picture
    no_depth = np.zeros(picture.shape[:2], np.float32)
    return crop_frame(picture, no_depth, np.eye(3), square_box(box_xywh, CROP_MARGIN), CROP_SIDE).rgb


def _read(path: Path) -> Uint8Array:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ConfigError(f"picture {path}", got="no readable file", expected="a PNG")
    return np.asarray(picture, dtype=np.uint8)
