"""`nocsfm track`: from its options to a source, a reference, a tracker and the loop of tracking.offline."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

from nocsfm_ros.config import Config, iterate_tunables, load_config, replace_values
from nocsfm_ros.data import pictures
from nocsfm_ros.data.sources import FrameSource, frame_index, open_source
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.tracking.offline import TRACKS_NAME, VIDEO_NAME, TrackReport, track_source
from nocsfm_ros.tracking.reference import reference_from_arrays
from nocsfm_ros.types import BoolArray, Reference, RgbdFrame

VIDEO_HZ_RANGE = (1.0, 60.0)


def run_track(options: argparse.Namespace) -> None:
    """Carry `nocsfm track` out. Cheap checks come first, the weights last.

    Raises:
        ConfigError, FrameError, CheckpointError: for people.
        KeyboardInterrupt: after saying how far it got.
    """
    config = config_from_options(options.config, options.settings, patient_config())
    source = open_source(options.source, options.image_topic, options.depth_topic, options.info_topic)
    print(f"{options.source}: {len(source)} frames" + "".join(f"; {note}" for note in source.notes))
    indices = range(len(source))[options.start : options.stop : options.stride]
    if not indices:
        raise ConfigError(
            "--start, --stop",
            got=f"{options.start}, {options.stop}",
            expected=f"a span inside 0 to {len(source)}",
        )
    reference = _reference(options, source)

    from nocsfm_ros.tracking.tracker import build_tracker  # torch: seconds

    tracker = build_tracker(config)
    found = tracker.set_reference(reference)
    size = (
        " x ".join(f"{100 * side:.1f}" for side in found.size_m) + " cm" if found.scale_m else "not known yet"
    )
    print(f"reference {found.object_id}: {found.foreground_pixels} foreground pixels, visible size {size}")
    report = TrackReport()
    try:
        video_hz = options.video_hz or float(np.clip(source.rate_hz / options.stride, *VIDEO_HZ_RANGE))
        track_source(source, tracker, indices, options.out, video_hz, report, _progress(len(indices)))
    except KeyboardInterrupt:
        print(f"\nstopped after {report.frames} of {len(indices)} frames")
        raise
    finally:
        _print_report(report, options.out)


def patient_config() -> Config:
    """The node's defaults but one: recorded frames do not run away, so every candidate of a frame is looked at."""
    highest = {key: tunable.high for key, _, tunable in iterate_tunables(Config())}["matching.candidates_per_frame"]
    return replace_values(Config(), {"matching.candidates_per_frame": int(highest or 1)})


def config_from_options(path: Path | None, settings: Sequence[str], defaults: Config) -> Config:
    """Defaults, then the YAML file, then KEY=VALUE settings. Raises ConfigError naming every bad key."""
    config = defaults if path is None else load_config(path, defaults)
    malformed = [text for text in settings if "=" not in text]
    if malformed:
        raise ConfigError(
            "--set", got=", ".join(malformed), expected="KEY=VALUE", mend="docs/parameters.md lists keys"
        )
    pairs = (text.split("=", 1) for text in settings)
    return replace_values(config, {key.strip(): yaml.safe_load(value) for key, value in pairs})


def _reference(options: argparse.Namespace, source: FrameSource) -> Reference:
    mask = None if options.reference_mask is None else pictures.read_labels(options.reference_mask) != 0
    box = options.reference_box
    if Path(options.reference).is_file():
        if options.reference_object is not None:
            raise ConfigError(
                "--reference-object",
                got="a picture file as reference",
                expected="SOURCE:FRAME",
                mend="give the mask with --reference-mask",
            )
        K, metres_per_unit = None, pictures.MILLIMETRE
        if options.reference_camera is not None:
            K, metres_per_unit = pictures.read_camera(options.reference_camera)
        depth = options.reference_depth
        depth_m = None if depth is None else pictures.read_depth_m(depth, metres_per_unit)
        rgb = pictures.read_rgb_or_rgba(Path(options.reference))
        return reference_from_arrays(
            options.object_id or Path(options.reference).stem, rgb, mask, box, depth_m, K
        )
    if options.reference_depth or options.reference_camera:
        raise ConfigError(
            "--reference-depth, --reference-camera",
            got="a frame as reference",
            expected="neither",
            mend="a frame of a source brings its own depth and camera",
        )
    frame, own_mask = _source_frame(options, source)
    number = options.reference_object
    mask = own_mask if mask is None else mask
    name = options.object_id or ("object" if number is None else f"object_{number}")
    return reference_from_arrays(name, frame.rgb, mask, box, frame.depth_m, frame.K)


def _source_frame(options: argparse.Namespace, source: FrameSource) -> tuple[RgbdFrame, BoolArray | None]:
    """The frame named by --reference SOURCE:FRAME, and the source's own mask of --reference-object."""
    folder, colon, wanted = options.reference.rpartition(":")
    if not colon or (folder and not Path(folder).exists()):
        raise ConfigError(
            "--reference",
            got=options.reference,
            expected="a picture file, or SOURCE:FRAME",
            mend="check the path",
        )
    if folder and Path(folder).resolve() != options.source.resolve():
        source = open_source(Path(folder), options.image_topic, options.depth_topic, options.info_topic)
    index, number = frame_index(source, wanted), options.reference_object
    if number is None:
        return source.frame(index), None
    mask = source.mask(index, number)
    if mask is None:
        numbers = ", ".join(str(value) for value in source.objects(index)) or "a source with masks"
        raise ConfigError(f"--reference-object in frame {source.name(index)}", got=number, expected=numbers)
    return source.frame(index), mask


def _progress(total: int) -> Callable[[TrackReport], None]:
    """Prints a line for every tenth of the frames."""

    def show(report: TrackReport) -> None:
        done = report.frames + report.dropped
        if done % max(1, total // 10) == 0 or done == total:
            poses = sum(report.tracked.values())
            print(
                f"{done}/{total} frames, {1000 * float(np.mean(report.update_s)):.0f} ms each, {poses} poses",
                flush=True,
            )

    return show


def _print_report(report: TrackReport, out_dir: Path) -> None:
    if not report.frames:
        return
    poses = ", ".join(f"{name} {count}" for name, count in report.tracked.items()) or "none"
    dropped = f", {report.dropped} dropped" if report.dropped else ""
    print(
        f"{report.frames} frames{dropped}; frames with a pose: {poses}; "
        f"median {1000 * float(np.median(report.update_s)):.0f} ms a frame"
    )
    print(f"wrote {out_dir / TRACKS_NAME} and {out_dir / VIDEO_NAME}")
