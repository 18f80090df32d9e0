"""`nocsfm train compare`: the published comparison of crops with and without their background, as one figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nocsfm_ros.training.commands import train
from nocsfm_ros.training.config import TrainConfig
from nocsfm_ros.training.monitor import draw_curves, read_log

VARIANTS = {"with background": True, "without background": False}
CURVES = {"loss": "train loss", "sample_error": "sample loss"}


def train_comparison(config: TrainConfig, out: Path, report: Callable[[str], None]) -> Path:
    """Train the same network twice, goes on where it was stopped, and draw both; returns the figure's path."""
    logs = {}
    for label, background in VARIANTS.items():
        folder = out / label.replace(" ", "_")
        report(label)
        data = dataclasses.replace(config.data, background=background)
        train("flow", dataclasses.replace(config, data=data), folder, report)
        logs[label] = read_log(folder / "flow_run")
    figure = out / "comparison.png"
    renamed = {
        label: [{CURVES.get(key, key): value for key, value in line.items()} for line in lines]
        for label, lines in logs.items()
    }
    draw_curves(figure, renamed, list(CURVES.values()))
    return figure
