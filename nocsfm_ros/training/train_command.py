"""The options of `nocsfm train`, turned into settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nocsfm_ros.config import read_values, replace_values
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.training.commands import train, train_all
from nocsfm_ros.training.comparison import train_comparison
from nocsfm_ros.training.config import AUTOENCODER, BACKBONE, FLOW, PAGE, SEARCH, TrainAllConfig, TrainConfig

OPTION_KEYS = {
    "data": "data.train", "validation": "data.validation", "hours": "schedule.hours", "steps": "schedule.steps",
    "batch": "schedule.batch", "seed": "schedule.seed", "device": "machine.device", "threads": "machine.threads",
}


def run_train(options: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Carry out `nocsfm train`. Raises ConfigError and CheckpointError."""
    runs = {"all": "*_run", "compare": "*/flow_run"}.get(options.model, f"{options.model}_run")
    states = list(options.out.glob(f"{runs}/state.pt"))
    if states and not options.resume:
        raise ConfigError(
            f"--out {options.out}", got=f"the state of an earlier training in {states[0].parent.name}/",
            expected="none", mend="add --resume to go on with it, or name another folder",
        )
    if options.start is not None and options.model not in ("autoencoder", "flow"):
        raise ConfigError("--start", got=f"it with {options.model}", expected="it with autoencoder or flow")
    if options.model == "all":
        train_all(all_config(options), options.out, report)
    elif options.model == "compare":
        report(f"figure: {train_comparison(one_config(options), options.out, report)}")
    else:
        train(options.model, one_config(options), options.out, report, options.start)


def one_config(options: argparse.Namespace) -> TrainConfig:
    """Settings of one training: defaults, then the file, then single options."""
    defaults = {"autoencoder": AUTOENCODER, "backbone": BACKBONE, "search": SEARCH}.get(options.model, FLOW)
    return replace_values(defaults, _file_values(options) | _given(options), PAGE)


def all_config(options: argparse.Namespace) -> TrainAllConfig:
    """Settings of both trainings; --hours is the clock's, the other options are for both."""
    given = _given(options)
    hours = {"hours": given.pop("schedule.hours")} if "schedule.hours" in given else {}
    both = {f"{part}.{key}": value for part in ("autoencoder", "flow") for key, value in given.items()}
    return replace_values(TrainAllConfig(), _file_values(options) | hours | both, PAGE)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {key: value for name, key in OPTION_KEYS.items() if (value := getattr(options, name)) is not None}


def _file_values(options: argparse.Namespace) -> dict[str, Any]:
    return read_values(Path(options.config)) if options.config is not None else {}
