"""Prepares what ./run needs inside the repository: .venv (Python packages) and .build (messages, state).

Every step can be killed at any moment and goes on at the next start. Nothing is installed elsewhere.
Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from environment import (
    FROM_DISTRIBUTION,
    MESSAGE_STANDINS,
    STANDINS,
    choose_requirements,
    environment_script,
    missing_standins,
    uses_distribution,
)
from failure import SetupError, check_machine
from interfaces import build_interfaces, patch_cmake_exports, python_paths
from packages import explain_pip, install, install_project, make_venv

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".build"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NUM_STEPS = 7


class Setup:
    """The steps in their order; every child holds `lock_fd` too, so that an orphaned pip is waited for."""

    def __init__(self, lock_fd: int) -> None:
        self.lock_fd = lock_fd
        self.step = 0
        self.started = time.monotonic()
        self.environ = dict(os.environ)
        self.wheels = not uses_distribution(os.environ, can_import)

    def run_all(self) -> None:
        """All steps; each is quick where its work is done already."""
        self.say("machine: Python, compiler, headers, disk")
        check_machine(ROOT, installed=(VENV / "lib").is_dir() and any(VENV.glob("lib/*/site-packages/torch")))
        self.say(
            "virtual environment .venv"
            + ("" if self.wheels else f", beside ROS 2 {os.environ['ROS_DISTRO']} of this machine")
        )
        make_venv(VENV, STATE, not self.wheels, self.run)
        self.install_packages()
        self.say("commands of the project")
        install_project(ROOT, VENV, self.run)
        self.say("messages: nocsfm_msgs, generated and compiled")
        self.build_messages()
        self.check()

    def install_packages(self) -> None:
        versions = (
            None
            if self.wheels
            else {
                name: version for name, module in FROM_DISTRIBUTION.items() if (version := version_of(module))
            }
        )
        chosen = choose_requirements((ROOT / "requirements.txt").read_text(), versions)
        titles = {
            "torch": torch_title(),
            "python": "Python packages",
            "ros": "ROS 2 Kilted wheels" if self.wheels else "no ROS 2 wheels: the distribution's is used",
        }
        for name, title in titles.items():
            self.say(title)
            if chosen.get(name):
                install(chosen[name], chosen["constraints"], name, VENV, STATE, self.run)

    def build_messages(self) -> None:
        site_packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        libraries = sorted((VENV / site_packages).glob("ros_*.libs"))
        if self.wheels:
            patch_cmake_exports(VENV / "share", *python_paths(PYTHON))
            self.environ.update(AMENT_PREFIX_PATH=str(VENV), CMAKE_PREFIX_PATH=str(VENV))
        self.environ.update(VIRTUAL_ENV=str(VENV), PATH=f"{VENV / 'bin'}:{os.environ['PATH']}")
        missing = missing_standins(venv_can_import, MESSAGE_STANDINS)
        packages = [ROOT / "msg", *(ROOT / "standins" / name for name in missing)]
        build_interfaces(packages, STATE / "interfaces", PYTHON, self.run)
        link_standins(STATE / "standins", ROOT / "standins" / "python", missing_standins(venv_can_import, STANDINS))
        write(STATE / "env.sh", environment_script(ROOT, Path(site_packages), libraries, self.wheels))

    def check(self) -> None:
        code = "import torch, cv2, rclpy, tf2_ros, message_filters, cv_bridge, nocsfm_msgs.srv, tf2_msgs.msg"
        self.run(
            ["bash", "-c", 'source "$1" && exec python -c "$2"', "check", STATE / "env.sh", code], "check"
        )
        print(f"ready after {time.monotonic() - self.started:.0f} s", flush=True)

    def say(self, text: str) -> None:
        self.step += 1
        print(f"[{self.step}/{NUM_STEPS}] {text}", flush=True)

    def run(self, command: Sequence[object], name: str) -> None:
        """Run a command with its output in .build/logs/<name>.log; on a terminal pip's packages are shown.

        Raises:
            SetupError: naming what failed, the log and the way on.
        """
        log_path = STATE / "logs" / f"{name}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with (
            log_path.open("w") as log,
            subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[self.lock_fd],
            ) as process,
        ):
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                show_progress(line)
        show_progress("")
        if process.returncode:
            raise self.explain(name, log_path)

    def explain(self, name: str, log_path: Path) -> SetupError:
        text = log_path.read_text(errors="replace")
        if name.startswith("pip-"):
            return explain_pip(text, log_path)
        last = " ".join(text.split()[-60:])
        return SetupError(
            f"The step {name} failed: ... {last} (the full output is in {log_path}). What was done is "
            "kept: start the same command again to go on."
        )


def can_import(module: str) -> bool:
    """Whether the Python that runs this, with the caller's environment, can import a module."""
    return bool(version_of(module))


def venv_can_import(module: str) -> bool:
    """Whether .venv, with the caller's environment, can import a module that is not a stand-in."""
    return bool(version_of(module, PYTHON))


def version_of(module: str, python: str | Path = sys.executable) -> str:
    """The version of a module, '?' if it does not tell, '' when it cannot be imported."""
    answer = subprocess.run(
        [python, "-c", f"import {module} as m; print(getattr(m, '__version__', '?'))"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""


def torch_title() -> str:
    """What to expect of PyTorch's size."""
    smi = shutil.which("nvidia-smi")
    gpu = bool(smi) and subprocess.run([str(smi), "-L"], capture_output=True, check=False).returncode == 0
    return (
        "PyTorch for the GPU of this machine"
        if gpu
        else 'PyTorch (no GPU here: README "CPU-only PyTorch" tells how to get the small build)'
    )


def link_standins(folder: Path, source: Path, names: Sequence[str]) -> None:
    """A folder for PYTHONPATH with links to just those stand-ins whose real package is missing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to(source / name)


def show_progress(line: str) -> None:
    """One changing line on a terminal, nothing in a log."""
    found = re.match(r"(Collecting|Downloading|Installing|Building) [^\s(]+|\[\d+/\d+\]", line)
    if sys.stdout.isatty() and (found or not line):
        print(f"\r\033[K{'      ' + found[0] if found else ''}", end="", flush=True)


def write(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


@contextmanager
def only_one(path: Path) -> Iterator[int]:
    """Wait until no other set-up of this repository runs; the answer is the lock's file descriptor."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this repository is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def leave_own_environment(environ: MutableMapping[str, str]) -> None:
    """Take this repository's folders out of the search paths: ./run may be started inside ./run."""
    for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        if name in environ:
            kept = [
                part
                for part in environ[name].split(":")
                if part != str(ROOT) and not part.startswith((f"{VENV}/", f"{STATE}/")) and part != str(VENV)
            ]
            environ[name] = ":".join(kept)
    environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)


def main(stamp: str) -> int:
    """Set up, and write the stamp of the inputs last of all."""
    leave_own_environment(os.environ)
    STATE.mkdir(exist_ok=True)
    stamp_path = STATE / "stamp"
    try:
        with only_one(STATE / "lock") as lock_fd:
            if not (stamp_path.is_file() and stamp_path.read_text() == stamp and PYTHON.exists()):
                stamp_path.unlink(missing_ok=True)
                Setup(lock_fd).run_all()
                write(stamp_path, stamp)
    except SetupError as error:
        print(f"\nset-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"\nset-up stopped: {error}. Mend that and start the same command again to go on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted: what was done is kept, the next start goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
