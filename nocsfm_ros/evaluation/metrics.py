"""Tables from pair results: bins of view change, percentages, bootstrap intervals, metrics.json and markdown."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.evaluation.pairs import ROWS, Case, RowResult, draw_pairs, product, view_change_deg
from nocsfm_ros.evaluation.robustness import MASKS, is_flat, is_refused, masks_iou

BINS = {"0-15": (0, 15), "15-30": (15, 30), "30-60": (30, 60), "60-90": (60, 90), "le30": (0, 30), "le60": (0, 60)}
LIMITS = {"5deg2cm": (5, 0.02), "5deg5cm": (5, 0.05), "10deg2cm": (10, 0.02), "10deg5cm": (10, 0.05)}
RESAMPLES = 1000
NO_POSE_DEG, NO_POSE_M = 180.0, 10.0  # stand for it in medians


def evaluate_pairs(
    views: ViewDataset, estimator: Estimator, out: Path, count: int, facts: Mapping[str, str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Run every row on `count` fixed pairs; write ``metrics.json`` and ``table.md`` into `out`; return the metrics."""
    results: dict[str, list[RowResult]] = {row: [] for row in ROWS}
    pairs = draw_pairs(views, count)
    degrees = np.array([view_change_deg(views[live], views[reference]) for live, reference in pairs])
    masks: dict[str, list[float]] = {name: [] for name in (*MASKS, "flat")}
    refused: dict[str, list[bool]] = {"other_object": [], "same_object": []}
    meshes = views.column("mesh")
    for number, (live, reference) in enumerate(pairs):
        case = Case(views[live], views[reference], estimator)
        answers = {row: answer(case) for row, answer in ROWS.items()}
        for row, answer in answers.items():
            results[row].append(case.result(answer))
        changed = masks_iou(case, number)
        for name, value in changed.items():
            masks[name].append(value)
        masks["flat"] += [changed["as_is"]] if is_flat(case) else []
        other = next((r for _, r in pairs[number + 1 :] + pairs[:number] if meshes[r] != meshes[live]), None)
        if other is not None:
            asked = product(Case(views[live], views[other], estimator))
            refused["other_object"].append(is_refused(asked, estimator.config))
        refused["same_object"].append(is_refused(answers["product"], estimator.config))
        if (number + 1) % 25 == 0:
            report(f"{number + 1}/{count} pairs")
    metrics = {
        "rows": {row: summarise_row(of_row, degrees) for row, of_row in results.items()},
        "robustness": {
            "mask_iou": {name: round(float(np.mean(values)), 4) for name, values in masks.items() if values},
            "refused_percent": {name: round(100 * float(np.mean(v)), 1) for name, v in refused.items() if v},
            "num_flat": len(masks["flat"]),
        },
        **facts,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (out / "table.md").write_text(markdown_table(metrics), encoding="utf-8")
    return metrics


def summarise_row(results: Sequence[RowResult], degrees: npt.NDArray[np.float64]) -> dict[str, Any]:
    """One row of metrics.json: means, medians, and the same by bins of view change."""
    columns = {name: np.array([getattr(r, name) for r in results]) for name in RowResult.__dataclass_fields__}
    bins = {}
    for name, (low, high) in BINS.items():
        chosen = (degrees >= low) & (degrees < high)
        if chosen.any():
            bins[name] = _bin({key: values[chosen] for key, values in columns.items()})
    return {
        "mask_iou": round(float(columns["mask_iou"].mean()), 4),
        "nocs_err_p50": _median_or_none(columns["nocs_err"]),
        "ms_per_object": round(float(np.median(columns["ms"])), 1), "bins": bins,
    }


def bootstrap_interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean by resampling (B. Efron, Annals of Statistics 1979)."""
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def machine_and_weights(weights: Path) -> dict[str, str]:
    """What a figure depends on besides its command: the processor, and the hash of the weights."""
    digest = hashlib.sha256()
    for path in sorted(weights.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        "weights_sha256": digest.hexdigest(),
    }


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The figures people ask for first."""
    lines = [
        "| row | view change | n | mask IoU | NOCS | rotation | translation | 5deg5cm (95 %) | 10deg5cm | ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, facts in metrics["rows"].items():
        for name, b in facts["bins"].items():
            low, high = b["5deg5cm_interval"]
            nocs = "-" if b["nocs_err_p50"] is None else f"{b['nocs_err_p50']:.3f}"
            errors = f"{b['rot_err_deg_p50']:.1f} deg | {b['trans_err_m_p50'] * 100:.1f} cm"
            if b["rot_err_deg_p50"] == NO_POSE_DEG:  # in half of the pairs
                errors = "no pose | no pose"
            lines.append(
                f"| {row} | {name} | {b['n']} | {b['mask_iou']:.3f} | {nocs} | {errors} | {b['5deg5cm']:.0f} % "
                f"({low:.0f}-{high:.0f}) | {b['10deg5cm']:.0f} % | {facts['ms_per_object']:.0f} |"
            )
    robustness = metrics["robustness"]
    lines += ["", "| flow's mask | IoU |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in robustness["mask_iou"].items()]
    lines += ["", "| reference of | refused |", "|---|---|"]
    lines += [f"| {name} | {value:.0f} % |" for name, value in robustness["refused_percent"].items()]
    return "\n".join(lines) + "\n"


def _median_or_none(values: npt.NDArray[np.float64]) -> float | None:
    """Median of what there is; None for rows that make no coordinates."""
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 4) if len(known) else None


def _bin(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    rotation, translation = columns["rot_err_deg"], columns["trans_err_m"]
    finite = np.isfinite(rotation)
    within = {name: (rotation <= deg) & (translation <= metres) for name, (deg, metres) in LIMITS.items()}
    interval = bootstrap_interval(100.0 * within["5deg5cm"].astype(np.float64))
    return {
        "n": len(rotation), "mask_iou": round(float(columns["mask_iou"].mean()), 4),
        "mask_iou_interval": [round(end, 4) for end in bootstrap_interval(columns["mask_iou"])],
        "nocs_err_p50": _median_or_none(columns["nocs_err"]),
        "rot_err_deg_p50": round(float(np.median(np.where(finite, rotation, NO_POSE_DEG))), 2),
        "trans_err_m_p50": round(float(np.median(np.where(finite, translation, NO_POSE_M))), 4),
        **{name: round(100 * float(good.mean()), 1) for name, good in within.items()},
        "5deg5cm_interval": [round(end, 1) for end in interval],
    }
