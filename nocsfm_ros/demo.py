"""``./run demo``: the node at work on the embedded sequence, over real DDS, measured against the truth.

Player, node, recorder and the service call are processes of their own on a private ROS_DOMAIN_ID. The
sequence is played at its own speed; what the node is too slow for, it drops, and the summary counts it (see
evaluation/summary.py for what every number means). The latency includes DDS, waiting for the worker, and
drawing the overlay, mask and NOCS pictures, which are all subscribed.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nocsfm_ros.errors import ConfigError, NocsfmError
from nocsfm_ros.processes import Crew, ProcessError

EMBEDDED = Path(__file__).parent / "demo_data"
NODE = (sys.executable, "-m", "nocsfm_ros.ros.node")
COLOUR, DEPTH, INFO = (
    "/camera/rgb/image_rect_color",
    "/camera/depth_registered/image_rect",
    "/camera/rgb/camera_info",
)
INPUTS = {"rgb/image_rect_color": COLOUR, "depth_registered/image_rect": DEPTH, "rgb/camera_info": INFO}
OBJECT_ID = "object"
REFERENCE = (
    "reference.png",
    "reference_mask.png",
    "reference_depth.png",
    "reference_camera.json",
    "reference_pose.json",
)
NEEDED_BYTES = 200_000_000
LOAD_S, SILENCE_S = 300.0, 60.0  # weights from a cold disk on a busy machine; between two signs of life


def run_demo(
    out: Path, data: Path = EMBEDDED, node_command: Sequence[str] = NODE, node_args: Sequence[str] = ()
) -> None:
    """Play, track, record, measure, draw. `out` appears when all is done, and not before.

    Args:
        out: folder to make; an earlier demo there is replaced.
        data: sequence/ and the reference, as in nocsfm_ros/demo_data.
        node_command: starts the node.
        node_args: more ROS arguments of the node: ``-p tracking.lost_after:=8``.

    Raises:
        NocsfmError: data or folder cannot be used, or a process failed; logs are then in
        ``<out>.failed/log``.
    """
    _check(out, data)
    from nocsfm_ros.evaluation.demo_report import write_report  # OpenCV and rosbags: a second to load

    with _appearing_at(out) as work:
        _play(work, data, node_command, node_args)
        print("writing pictures", flush=True)
        table = write_report(work, data, {"command": shlex.join(["demo", *sys.argv[1:]])})
    print(
        f"\n{table}\n\n{out}/: overlay.mp4 sheet.png errors.png tracks.jsonl output.mcap summary.json",
        flush=True,
    )


def free_domain_id() -> int:
    """A ROS_DOMAIN_ID on which no participant of this machine listens.

    The first participant of a domain takes UDP port 7410 + 250 * domain (DDSI-RTPS 9.6.1.1); up to 101 no
    port is in the range that systems hand out by themselves.
    """
    for domain_id in random.SystemRandom().sample(range(1, 102), 101):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain_id))
                return domain_id
            except OSError:
                continue
    raise ConfigError(
        "ROS_DOMAIN_ID", got="no free one from 1 to 101", expected="one", mend="End some ROS processes"
    )


def _play(work: Path, data: Path, node_command: Sequence[str], node_args: Sequence[str]) -> None:
    domain_id = free_domain_id()
    env = {"ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    module = (sys.executable, "-m")
    print(f"starting node and recorder on ROS_DOMAIN_ID {domain_id}", flush=True)
    with Crew(work / "log", env) as crew:
        crew.start("recorder", [*module, "nocsfm_ros.ros.recorder", str(work), "--image-topic", COLOUR])
        crew.start("node", [*node_command, "--ros-args", *_node_arguments(), *node_args])
        _wait(crew, "recorder", "ready", "the node loads its weights", LOAD_S)
        print("setting the reference by the service ~/set_reference", flush=True)
        crew.start("set_reference", [*module, "nocsfm_ros.ros.set_reference", *_reference_arguments(data)])
        print(
            f"  {_wait(crew, 'set_reference', None, 'the node learns the reference', SILENCE_S)}", flush=True
        )
        waited = [
            f"{topic}={count}"
            for topic, count in (
                (COLOUR, 2),
                (DEPTH, 1),
                (INFO, 1),
                ("/player/end", 1),
                ("/ground_truth/pose", 1),
                ("/ground_truth/mask", 1),
            )
        ]
        crew.start(
            "player",
            [*module, "nocsfm_ros.ros.player", str(data / "sequence"), "--wait-for-subscribers", *waited],
        )
        _wait(crew, "player", None, "the sequence plays", SILENCE_S)
        print("\nwaiting for the answer to the last frame", flush=True)
        _wait(crew, "recorder", None, "the recorder finishes", SILENCE_S)
        crew.stop("node")


def _wait(crew: Crew, name: str, line: str | None, doing: str, timeout_s: float) -> str:
    """Until `name` says `line`, or ends well when `line` is None; returns the last thing it said.

    Raises:
        ProcessError: it failed, said nothing for `timeout_s`, or one of the others ended meanwhile.
    """
    said = crew.said(name)
    if line is None and crew.has_ended(name):
        if crew.exit_code(name):
            raise crew.failed(name, doing)
        return said
    deadline = time.monotonic() + timeout_s
    while True:
        event = crew.next_event(deadline - time.monotonic(), doing)
        if event.line is None:
            # Only these end by themselves; the recorder may be done before the player has noticed the end.
            if event.name == "node" or crew.exit_code(event.name):
                raise crew.failed(event.name, doing)
            if event.name == name:
                return said
        elif event.name == name:
            said, deadline = event.line, time.monotonic() + timeout_s
            if said == line:
                return said
            if name == "player" and sys.stdout.isatty():
                print(f"\r  {said} ", end="", flush=True)


def _node_arguments() -> list[str]:
    arguments = ["-p", "service_timeout_s:=60.0"]
    for name, topic in INPUTS.items():
        # Reliable: best effort loses megabyte pictures between processes, and the demo measures the node, not
        # that.
        arguments += [
            "-r",
            f"{name}:={topic}",
            "-p",
            f"qos_overrides.{topic}.subscription.reliability:=reliable",
        ]
    return arguments


def _reference_arguments(data: Path) -> list[str]:
    picture, *files = (str(data / name) for name in REFERENCE)
    options = zip(("--mask", "--depth", "--camera", "--pose"), files, strict=True)
    return [picture, "--id", OBJECT_ID, "--timeout", "60", *(part for option in options for part in option)]


def _check(out: Path, data: Path) -> None:
    missing = [name for name in ("sequence", *REFERENCE) if not (data / name).exists()]
    if missing:
        raise ConfigError(
            f"demo data {data}",
            got=f"no {', '.join(missing)}",
            expected="the sequence and its reference",
            mend="`nocsfm render --demo DIR` makes them",
        )
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "summary.json").is_file())):
        raise ConfigError(
            f"--out {out}",
            got="something that is not a demo",
            expected="a new folder, or an old demo",
            mend="Name another folder: this one would be deleted",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < NEEDED_BYTES:
        raise ConfigError(
            f"disk of {out}",
            got=f"{free / 1e6:.0f} MB free",
            expected=f"{NEEDED_BYTES / 1e6:.0f} MB",
            mend="Free some space or name another --out",
        )


@contextmanager
def _appearing_at(out: Path) -> Iterator[Path]:
    """A folder to work in, renamed to `out` at the end; after an error it is kept as ``<out>.failed``."""
    work, failed = (
        Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent)),
        out.with_name(f"{out.name}.failed"),
    )
    work.chmod(0o755)
    try:
        yield work
        shutil.rmtree(failed, ignore_errors=True)
        if out.exists():
            out.rename(work / ".old")
            work.rename(out)
            shutil.rmtree(out / ".old")
        else:
            work.rename(out)
    except Exception:
        shutil.rmtree(failed, ignore_errors=True)
        work.rename(failed)
        print(f"\nlogs: {failed}/log", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def main(args: Sequence[str] | None = None) -> int:
    """0 when the run is complete, 1 when a process or the disk failed, 2 on a wrong argument, 130 on
    Ctrl-C, SIGTERM and SIGHUP.
    """
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="default: %(default)s")
    parser.add_argument(
        "--data", type=Path, default=EMBEDDED, help="sequence and reference (default: embedded)"
    )
    parser.add_argument(
        "--node-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="all that follows goes to the node: --node-args -p tracking.lost_after:=8",
    )
    arguments = parser.parse_args(args)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or lost ssh; nohup wants that ignored
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        run_demo(arguments.out, arguments.data, node_args=arguments.node_args)
    except (ProcessError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except NocsfmError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
