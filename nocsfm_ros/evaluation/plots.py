"""The plots of an evaluation: accuracy over the view change, and over the time that more steps take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nocsfm_ros.types import Float64Array

COMPARED = ("identity", "matches", "flow_paper", "flow", "product", "diffusion_10")
STEPS = {"flow": ("flow", "flow_4", "flow_10"), "diffusion (DDIM)": ("diffusion_10", "diffusion_50")}
BINS = ("0-15", "15-30", "30-60", "60-90")
ALL = "le60"
COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]


def plot_curves(rows: Mapping[str, Any], path: Path) -> None:
    """5deg5cm and the median rotation error of the rows by view change, with 95 % intervals."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    within, rotation = figure.subplots(1, 2)
    for number, row in enumerate(name for name in COMPARED if name in rows):
        bins = rows[row]["bins"]
        for axes, key in ((within, "5deg5cm"), (rotation, "rot_err_deg_p50")):
            names = [name for name in BINS if name in bins]
            at = np.array([BINS.index(name) for name in names]) + 0.06 * (number - 2)  # beside each other
            values, errors = _with_interval([bins[name] for name in names], key)
            axes.errorbar(at, values, errors, label=row, color=COLOURS[number], marker="o", markersize=4, capsize=2)
    labels = "poses within 5 deg and 5 cm, %", "median rotation error, deg (180: no pose)"
    for axes, label in zip((within, rotation), labels, strict=True):
        axes.set_xticks(range(len(BINS)), BINS)
        _finish(axes, "view change from the reference, deg", label)
    figure.legend(*rotation.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def plot_steps(rows: Mapping[str, Any], path: Path) -> None:
    """5deg5cm and the median NOCS error up to 60 degrees over the time of a crop, for more and more steps."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    within, nocs = figure.subplots(1, 2)
    for colour, (label, family) in zip(COLOURS, STEPS.items(), strict=False):
        names = [name for name in family if name in rows and ALL in rows[name]["bins"]]
        if not names:
            continue
        at = [rows[name]["ms_per_object"] for name in names]
        bins = [rows[name]["bins"][ALL] for name in names]
        values, errors = _with_interval(bins, "5deg5cm")
        within.errorbar(at, values, errors, label=label, color=colour, marker="o", capsize=2)
        nocs.plot(at, [b["nocs_err_p50"] for b in bins], label=label, color=colour, marker="o")
        for axes, heights in ((within, values), (nocs, [b["nocs_err_p50"] for b in bins])):
            for x, y, name in zip(at, heights, names, strict=True):
                steps = name.rpartition("_")[2] if "_" in name else "1"
                axes.annotate(steps, (x, y), xytext=(5, 5), textcoords="offset points")
    labels = "poses within 5 deg and 5 cm, %", "median NOCS error, share of the diagonal"
    for axes, label in zip((within, nocs), labels, strict=True):
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        _finish(axes, "ms per object; the numbers are steps", label)
    figure.legend(*nocs.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def _with_interval(bins: list[Mapping[str, Any]], key: str) -> tuple[Float64Array, Float64Array]:
    """Values (N,) and their distances (2, N) to the lower and upper end of their intervals."""
    values = np.array([b[key] for b in bins], np.float64)
    ends = np.array([b[key.removesuffix("_p50") + "_interval"] for b in bins], np.float64).reshape(-1, 2)
    return values, np.abs(ends - values[:, None]).T


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
