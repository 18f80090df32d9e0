"""Figures of a row by bins of view change, with bootstrap intervals, and the markdown table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nocsfm_ros.evaluation.pairs import RowResult
from nocsfm_ros.evaluation.point_errors import area_under_curve

BINS = {"0-15": (0, 15), "15-30": (15, 30), "30-60": (30, 60), "60-90": (60, 90), "le30": (0, 30), "le60": (0, 60)}
LIMITS = {"5deg2cm": (5, 0.02), "5deg5cm": (5, 0.05), "10deg2cm": (10, 0.02), "10deg5cm": (10, 0.05)}
BOX_IOUS = {"3diou25": 0.25, "3diou50": 0.5, "3diou75": 0.75}
ADD_DIAMETERS, ADDS_LIMIT_M = 0.1, 0.1
RESAMPLES = 1000
NO_POSE_DEG, NO_POSE_M = 180.0, 10.0  # stand for it in medians
TABLE = (
    "row", "view change", "n", "mask IoU", "NOCS", "rotation", "translation", "5deg5cm (95 %)", "10deg5cm", "3D IoU 50",
    "ADD", "ADD-S", "ADD-S AUC", "ms",
)
Floats = npt.NDArray[np.float64]


def summarise_row(results: Sequence[RowResult], degrees: Floats) -> dict[str, Any]:
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


def bootstrap_interval(
    values: Floats, statistic: Callable[..., Floats] = np.mean, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a statistic by resampling (B. Efron, Annals of Statistics 1979)."""
    random = np.random.default_rng(seed)
    resampled = statistic(values[random.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The figures people ask for first."""
    lines = [f"| {' | '.join(TABLE)} |", "|---" * len(TABLE) + "|"]
    for row, facts in metrics["rows"].items():
        lines += [_line(row, name, of_bin, facts["ms_per_object"]) for name, of_bin in facts["bins"].items()]
    robustness = metrics["robustness"]
    lines += ["", "| flow's mask | IoU |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in robustness["mask_iou"].items()]
    lines += ["", "| asked for | refused |", "|---|---|"]
    lines += [f"| {name} | {value:.0f} % |" for name, value in robustness["refused_percent"].items()]
    lines += [f"\nLeft out: {sentence}." for sentence in metrics["left_out"]]
    return "\n".join(lines) + "\n"


def _line(row: str, name: str, b: Mapping[str, Any], ms: float) -> str:
    low, high = b["5deg5cm_interval"]
    no_pose = b["rot_err_deg_p50"] == NO_POSE_DEG  # in half of the pairs
    cells = (
        row, name, str(b["n"]), f"{b['mask_iou']:.3f}",
        "-" if b["nocs_err_p50"] is None else f"{b['nocs_err_p50']:.3f}",
        "no pose" if no_pose else f"{b['rot_err_deg_p50']:.1f} deg",
        "no pose" if no_pose else f"{b['trans_err_m_p50'] * 100:.1f} cm",
        f"{b['5deg5cm']:.0f} % ({low:.0f}-{high:.0f})",
        *(f"{b[key]:.0f} %" for key in ("10deg5cm", "3diou50", "add", "adds", "adds_auc")), f"{ms:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _bin(columns: Mapping[str, Floats]) -> dict[str, Any]:
    """Percentages are of all pairs; one without a pose is a miss."""
    rotation, translation = (
        np.where(np.isfinite(columns[key]), columns[key], missing)
        for key, missing in (("rot_err_deg", NO_POSE_DEG), ("trans_err_m", NO_POSE_M))
    )
    within = {name: (rotation <= deg) & (translation <= metres) for name, (deg, metres) in LIMITS.items()}
    within |= {name: columns["box_iou"] > limit for name, limit in BOX_IOUS.items()}
    within |= {f"{name}_released": columns["released_box_iou"] > limit for name, limit in BOX_IOUS.items()}
    within |= {
        name: columns[f"{name}_m"] < ADD_DIAMETERS * columns["diameter_m"] for name in ("add", "adds")
    }
    return {
        "n": len(rotation), "mask_iou": round(float(columns["mask_iou"].mean()), 4),
        "mask_iou_interval": [round(end, 4) for end in bootstrap_interval(columns["mask_iou"])],
        "nocs_err_p50": _median_or_none(columns["nocs_err"]),
        "rot_err_deg_p50": round(float(np.median(rotation)), 2),
        "rot_err_deg_interval": [round(end, 2) for end in bootstrap_interval(rotation, np.median)],
        "trans_err_m_p50": round(float(np.median(translation)), 4),
        **{name: round(100 * float(good.mean()), 1) for name, good in within.items()},
        "5deg5cm_interval": [round(end, 1) for end in bootstrap_interval(np.where(within["5deg5cm"], 100.0, 0.0))],
        "adds_auc": round(100 * area_under_curve(columns["adds_m"], ADDS_LIMIT_M), 1),
    }


def _median_or_none(values: Floats) -> float | None:
    """Median of what there is; None for rows that make no coordinates."""
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 4) if len(known) else None
