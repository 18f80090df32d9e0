"""Makes the virtual environment and fills it with pip, so that a kill at any moment does no harm."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from failure import SetupError

Runner = Callable[..., None]


def make_venv(venv: Path, state: Path, system_packages: bool, run: Runner) -> None:
    """A working .venv of this Python: kept where it is one already, made anew where it is not."""
    creating = state / "venv-unfinished"  # there while venv works: a kill leaves a half-made environment
    if not creating.exists() and is_usable(venv, sys.version_info[:2], system_packages):
        return
    creating.touch()
    option = ["--system-site-packages"] if system_packages else []
    run([sys.executable, "-m", "venv", "--clear", *option, venv], "venv")
    creating.unlink()


def is_usable(venv: Path, version: tuple[int, ...], system_packages: bool) -> bool:
    """Whether `venv` is of this Python version, sees the system's packages or not as wanted, and has pip."""
    try:
        settings = dict(re.findall(r"^([\w-]+)\s*=\s*(.*)$", (venv / "pyvenv.cfg").read_text(), re.MULTILINE))
    except OSError:
        return False
    if settings.get("version", "").split(".")[:2] != [str(number) for number in version[:2]]:
        return False
    if (settings.get("include-system-site-packages") == "true") != system_packages:
        return False
    try:
        pip = subprocess.run(
            [venv / "bin/python", "-m", "pip", "--version"], capture_output=True, check=False
        )
    except OSError:
        return False
    return pip.returncode == 0


def install(
    lines: Sequence[str], constraints: Sequence[str], name: str, venv: Path, state: Path, run: Runner
) -> None:
    """Have pip install requirement lines; what an earlier pip was killed in is installed again."""
    unfinished = state / "pip-unfinished"
    if unfinished.exists():
        drop_unfinished(next((venv / "lib").glob("python*/site-packages")))
    unfinished.touch()
    wanted, bounds = state / f"{name}.txt", state / f"{name}-constraints.txt"
    wanted.write_text("\n".join(lines) + "\n")
    bounds.write_text("\n".join(line for line in constraints if line not in lines) + "\n")
    run(
        [
            venv / "bin/python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--prefer-binary",
            "--no-compile",  # Python compiles what is imported, when it is
            "-r",
            wanted,
            "-c",
            bounds,
        ],
        f"pip-{name}",
    )
    unfinished.unlink()


def install_project(root: Path, venv: Path, run: Runner) -> None:
    """The project's own commands, editable: what is changed in the repository counts at once."""
    run(
        [
            venv / "bin/python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            root,
        ],
        "pip-project",
    )


def drop_unfinished(site_packages: Path) -> list[str]:
    """Forget packages whose files are not all there: pip takes them for installed.

    pip writes RECORD, the list of a package's files, last. The answer is the names of what was forgotten.
    """
    dropped = []
    for info in sorted(site_packages.glob("*.dist-info")):
        record = info / "RECORD"
        names = (
            [line.rsplit(",", 2)[0].strip('"') for line in record.read_text().splitlines()]
            if record.is_file()
            else []
        )
        if not names or not all(
            (site_packages / name).exists() for name in names if not name.endswith(".pyc")
        ):
            shutil.rmtree(info)
            dropped.append(info.name)
    for rest in site_packages.glob("~*"):  # what pip had moved aside
        if rest.is_dir():
            shutil.rmtree(rest)
        else:
            rest.unlink()
    return dropped


def explain_pip(log: str, log_path: Path) -> SetupError:
    """What pip's output says about why it stopped."""
    retry = f"The full output is in {log_path}; what was done is kept: start the same command again to go on."
    if "No space left on device" in log or "Errno 28" in log:
        return SetupError(f"The disk ran full while pip was installing. Make room. {retry}")
    named = re.findall(
        r"(?:No matching distribution found for|Failed building wheel for|"
        r"Failed to build|Cannot install|satisfies the requirement) ([\w.\[\]=<>~!-]+)",
        log,
    )
    collecting = re.findall(r"^(?:Collecting|Downloading) (\S+)", log, re.MULTILINE)
    package = named[-1] if named else collecting[-1] if collecting else "a package"
    network = re.search(
        r"NewConnectionError|name resolution|timed out|ConnectionResetError|Connection broken"
        r"|SSLError|ProxyError",
        log,
    )
    why = (
        "the package index could not be reached: check the network, proxy and PIP_* variables"
        if network
        else next(iter(re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)[:1]), "see the log")
    )
    return SetupError(f"pip could not install {package}: {why}. {retry}")
