"""`nocsfm evaluate`: every row on the same pairs, robustness, and what is written of them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.evaluation.metrics import markdown_table, summarise_row
from nocsfm_ros.evaluation.pairs import ROWS, Case, RowResult, diffusion_rows, draw_pairs, view_change_deg
from nocsfm_ros.evaluation.plots import plot_curves, plot_steps
from nocsfm_ros.evaluation.robustness import Robustness
from nocsfm_ros.evaluation.shapes import ObjectShapes
from nocsfm_ros.flow.model import FlowModel

NO_DIFFUSION = "diffusion_10, diffusion_50: no `--diffusion WEIGHTS` was given"
NO_HANDS = "hand_1.0 to hand_0.5, absent: no `--hands DIR` was given"


def evaluate(
    views: ViewDataset, library: MeshLibrary, estimator: Estimator, out: Path, count: int, facts: Mapping[str, str],
    report: Callable[[str], None], *, diffusion: FlowModel | None = None, hands: ViewDataset | None = None,
) -> dict[str, Any]:
    """Run every row on `count` fixed pairs; write metrics.json, table.md and the plots into `out`.

    Args:
        views: of meshes never trained on.
        library: holds their meshes.
        estimator: the node's.
        out: folder.
        count: of pairs.
        facts: go into metrics.json as they are.
        report: gets lines for people.
        diffusion: trained as a diffusion model; without it there are no rows of it.
        hands: views of `nocsfm render --hands`, `count` clusters at most; without them there is no such robustness.

    Returns:
        What metrics.json holds.
    """
    rows = ROWS | (diffusion_rows(diffusion) if diffusion else {})
    shapes, pairs, robustness = ObjectShapes(views, library), draw_pairs(views, count), Robustness()
    results: dict[str, list[RowResult]] = {row: [] for row in rows}
    meshes = views.column("mesh")
    for number, (live, reference) in enumerate(pairs):
        case, shape = Case(views[live], views[reference], estimator), shapes.of(views[live])
        answers = {row: answer(case) for row, answer in rows.items()}
        for row, answer in answers.items():
            results[row].append(case.result(answer, shape))
        other = next((r for _, r in pairs[number + 1 :] + pairs[:number] if meshes[r] != meshes[live]), None)
        other_case = None if other is None else Case(views[live], views[other], estimator)
        robustness.add_pair(case, answers["product"], other_case, number)
        if (number + 1) % 25 == 0:
            report(f"{number + 1}/{count} pairs")
    if hands is not None:
        for cluster in np.unique(hands.column("cluster"))[:count]:
            robustness.add_hands(hands, int(cluster), estimator)
    degrees = np.array([view_change_deg(views[live], views[reference]) for live, reference in pairs])
    metrics: dict[str, Any] = {
        "rows": {row: summarise_row(of_row, degrees) for row, of_row in results.items()},
        "robustness": robustness.summary(),
        "left_out": [NO_DIFFUSION] * (diffusion is None) + [NO_HANDS] * (hands is None),
        **facts,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (out / "table.md").write_text(markdown_table(metrics), encoding="utf-8")
    plot_curves(metrics["rows"], out / "curves.png")
    plot_steps(metrics["rows"], out / "steps.png")
    return metrics


def weights_sha256(folder: Path) -> str:
    """Of all safetensors in a folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def describe_machine() -> str:
    """What times depend on: processor, device, torch and its threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
