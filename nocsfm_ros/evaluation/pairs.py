"""`nocsfm evaluate`: one reference view, one live view of a mesh never trained on; how far off is the pose?

Every row runs the same code as the node: the views are handed to the Estimator as frames. The rows:
``identity``  ICP from the reference's own pose with the flow's mask: what the network's pose must beat;
``flow``      RANSAC-Umeyama on the flow's NOCS map, nothing else;
``product``   what the node does when it searches: all hypotheses, scored and refined, and a second look.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.estimator import MIN_POINTS, Estimator, flow_pose, guessed_poses, largest_component
from nocsfm_ros.flow.model import CROP_SIDE
from nocsfm_ros.geometry.crops import crop_frame
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg
from nocsfm_ros.matching.localiser import encode_reference
from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.registration import object_points, refine
from nocsfm_ros.training.pairs import nearest_symmetry
from nocsfm_ros.types import BoxXywh, Float64Array, ObjectCrop, RgbdFrame, SimilarityPose

BINS = {"0-15": (0, 15), "15-30": (15, 30), "30-60": (30, 60), "60-90": (60, 90), "le30": (0, 30), "le60": (0, 60)}
ROWS = ("identity", "flow", "product")
LIMITS = {"5deg2cm": (5, 0.02), "5deg5cm": (5, 0.05), "10deg2cm": (10, 0.02), "10deg5cm": (10, 0.05)}


@dataclass(frozen=True)
class PairResult:
    """Errors of one pair; pose errors are infinite where there is no pose. `nocs_err` is a share of the diagonal.

    The product's mask is the flow's after the pose has cut and completed it; the other rows' is the flow's own.
    """

    view_deg: float
    mask_iou: dict[str, float]
    nocs_err: float
    rot_err_deg: dict[str, float]
    trans_err_m: dict[str, float]
    ms: dict[str, float]


def draw_pairs(views: ViewDataset, count: int, seed: int = 0, limit_deg: float = 90.0) -> list[tuple[int, int]]:
    """Fixed (live row, reference row) pairs of one cluster, with the object well visible, view change up to a limit."""
    random = np.random.default_rng(seed)
    clusters, visible = views.column("cluster"), views.column("visible")
    rows = np.arange(len(clusters))
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        live = int(random.choice(rows))
        reference = int(random.choice(np.flatnonzero(clusters == clusters[live])))
        if live == reference or visible[reference] <= 0.8:
            continue
        if view_change_deg(views[live], views[reference]) <= limit_deg:
            pairs.append((live, reference))
    return pairs


def view_change_deg(live: View, reference: View) -> float:
    """Angle between the two views of the object, degrees, symmetry taken out."""
    R_ref, R_live = reference["T_cam_obj"][:3, :3], live["T_cam_obj"][:3, :3]
    return rotation_angle_deg(R_ref @ nearest_symmetry(R_ref, R_live, int(live["fold"]))[:3, :3], R_live)


def evaluate_pair(live: View, reference: View, estimator: Estimator) -> PairResult:
    """All rows for one pair."""
    reference_frame, live_frame = _frame(reference), _frame(live)
    mask_ref, mask_live = reference["mask"] > 0, live["mask"] > 0
    margin = estimator.config.matching.crop_margin
    box_xywh = _whole_box(live["rgb"].shape[0], margin)
    view = estimator.make_view(reference_frame, mask_ref, _whole_box(reference["rgb"].shape[0], margin), None)
    search = encode_reference(reference_frame.rgb, mask_ref, estimator.backbone)
    model = ObjectModel("test", search, [view], view.anchor_scale_m, None)
    model.rebuild_cloud()
    estimator.stage_ms = {}
    begin = time.perf_counter()
    first = estimator.estimate(live_frame, box_xywh, model)
    estimate = estimator.second_look(live_frame, first, model)
    product_ms = (time.perf_counter() - begin) * 1e3
    poses: dict[str, SimilarityPose | None] = {"product": estimate.pose}
    nocs_map = first.nocs_map
    mask_crop = largest_component(nocs_map.mask_prob > 0.5) if nocs_map else np.zeros_like(mask_live)
    crop = crop_frame(live_frame.rgb, live_frame.depth_m, live_frame.K, (0, 0, *live_frame.size_wh), CROP_SIDE)
    points_cam, uv = object_points(crop.depth_m, mask_crop, crop.K_crop, estimator.config.registration)
    begin = time.perf_counter()
    poses["flow"] = None
    if nocs_map is not None and len(points_cam) >= MIN_POINTS:
        anchor = flow_pose(nocs_map, points_cam, uv, estimator.config.registration, view.anchor_scale_m)
        poses["flow"] = None if anchor is None else view.pose_from_anchor(anchor, anchor.scale_m)
    flow_ms = (time.perf_counter() - begin) * 1e3 + estimator.stage_ms.get("flow", 0.0)
    poses["identity"] = _identity(crop, points_cam, model, estimator)
    T_live_obj = live["T_cam_obj"] @ invert(_aligned_mesh(live, reference)) @ view.T_cam_obj
    errors = {row: _pose_errors(live, reference, view.T_cam_obj, poses[row]) for row in ROWS}
    return PairResult(
        view_deg=view_change_deg(live, reference), mask_iou={
            "identity": _iou(mask_crop, mask_live), "flow": _iou(mask_crop, mask_live),
            "product": _iou(estimate.mask, mask_live),
        },
        nocs_err=_nocs_error(nocs_map.nocs if nocs_map else None, crop.depth_m, crop.K_crop, mask_live, T_live_obj,
                             view.anchor_scale_m or 1.0, float(live["diagonal_m"])),
        rot_err_deg={row: errors[row][0] for row in ROWS}, trans_err_m={row: errors[row][1] for row in ROWS},
        ms={"product": product_ms, "flow": flow_ms, "identity": float("nan")},
    )


def summarise(results: Sequence[PairResult]) -> dict[str, Any]:
    """Rows and bins as in metrics.json; percentages and medians."""
    table: dict[str, Any] = {}
    for row in ROWS:
        bins = {}
        for name, (low, high) in BINS.items():
            chosen = [r for r in results if low <= r.view_deg < high]
            if chosen:
                bins[name] = _bin(chosen, row)
        ms = [r.ms[row] for r in results]
        table[row] = {
            "mask_iou": round(float(np.mean([r.mask_iou[row] for r in results])), 4),
            "nocs_err_p50": round(float(np.median([r.nocs_err for r in results])), 4),
            "ms_per_object": None if np.isnan(ms).all() else round(float(np.median(ms)), 1), "bins": bins,
        }
    return table


def evaluate_pairs(
    views: ViewDataset, estimator: Estimator, out: Path, count: int, facts: dict[str, str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Run `count` fixed pairs, write ``metrics.json`` and ``table.md`` into `out`, return the metrics."""
    results = []
    for number, (live, reference) in enumerate(draw_pairs(views, count), start=1):
        results.append(evaluate_pair(views[live], views[reference], estimator))
        if number % 50 == 0:
            report(f"{number}/{count} pairs")
    metrics: dict[str, Any] = {"rows": summarise(results), **facts}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (out / "table.md").write_text(markdown_table(metrics["rows"]), encoding="utf-8")
    return metrics


def markdown_table(rows: dict[str, Any]) -> str:
    """The figures people ask for first."""
    lines = [
        "| row | view change | n | mask IoU | NOCS error | rotation p50 | translation p50 | 5deg5cm | 10deg5cm |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, facts in rows.items():
        for name, b in facts["bins"].items():
            lines.append(
                f"| {row} | {name} | {b['n']} | {b['mask_iou']:.3f} | {b['nocs_err_p50']:.3f} | "
                f"{b['rot_err_deg_p50']:.1f} deg | {b['trans_err_m_p50'] * 100:.1f} cm | {b['5deg5cm']:.0f} % | "
                f"{b['10deg5cm']:.0f} % |"
            )
    return "\n".join(lines) + "\n"


def _bin(chosen: Sequence[PairResult], row: str) -> dict[str, float]:
    rotation = np.array([r.rot_err_deg[row] for r in chosen])
    translation = np.array([r.trans_err_m[row] for r in chosen])
    finite = np.isfinite(rotation)
    return {
        "n": len(chosen), "mask_iou": round(float(np.mean([r.mask_iou[row] for r in chosen])), 4),
        "nocs_err_p50": round(float(np.median([r.nocs_err for r in chosen])), 4),
        "rot_err_deg_p50": round(float(np.median(np.where(finite, rotation, 180.0))), 2),
        "trans_err_m_p50": round(float(np.median(np.where(finite, translation, 10.0))), 4),
        **{
            name: round(100 * float(((rotation <= deg) & (translation <= metres)).mean()), 1)
            for name, (deg, metres) in LIMITS.items()
        },
    }


def _frame(view: View) -> RgbdFrame:
    depth_m = view["depth"].astype(np.float32) * np.float32(DEPTH_UNIT_M)
    return RgbdFrame(np.array(view["rgb"]), depth_m, np.array(view["K"]))


def _whole_box(side: int, margin: float) -> BoxXywh:
    """The box whose crop is the whole view."""
    inner = side / margin
    return (side - inner) / 2 - 0.5, (side - inner) / 2 - 0.5, inner, inner


def _aligned_mesh(live: View, reference: View) -> Float64Array:
    """(4, 4) T_ref_mesh with the mesh turned, by its symmetry, as near to the live view as may be."""
    T_ref, T_live = reference["T_cam_obj"], live["T_cam_obj"]
    result: Float64Array = T_ref @ nearest_symmetry(T_ref[:3, :3], T_live[:3, :3], int(live["fold"]))
    return result


def _identity(
    crop: ObjectCrop, points_cam: Float64Array, model: ObjectModel, estimator: Estimator
) -> SimilarityPose | None:
    """ICP from the reference's own viewpoint."""
    if model.cloud is None or len(points_cam) < MIN_POINTS:
        return None
    start = guessed_poses(crop, points_cam, model.views[0], model)[0]
    return refine(start, points_cam, model.cloud, estimator.config.registration).pose


def _pose_errors(
    live: View, reference: View, T_ref_obj: Float64Array, pose: SimilarityPose | None
) -> tuple[float, float]:
    """Rotation (deg) and translation (m, of the mesh's centre) error, symmetry taken out."""
    if pose is None:
        return float("inf"), float("inf")
    T_est = pose.T_cam_obj @ invert(T_ref_obj) @ reference["T_cam_obj"]
    T_true = live["T_cam_obj"]
    S = nearest_symmetry(T_est[:3, :3], T_true[:3, :3], int(live["fold"]))
    trans_err_m = float(np.linalg.norm(T_est[:3, 3] - T_true[:3, 3]))
    return rotation_angle_deg(T_est[:3, :3] @ S[:3, :3], T_true[:3, :3]), trans_err_m


def _iou(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _nocs_error(
    nocs: np.ndarray | None, depth_m: np.ndarray, K: Float64Array, mask: np.ndarray, T_live_obj: Float64Array,  # type: ignore[type-arg]
    scale_m: float, diagonal_m: float,
) -> float:
    """Median distance of predicted to true coordinates over the true mask, as a share of the mesh's diagonal."""
    v, u = np.nonzero(mask & (depth_m > 0))
    if nocs is None or len(u) == 0:
        return 1.0
    z = depth_m[v, u].astype(np.float64)
    points_cam = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=1)
    T_obj_live = invert(T_live_obj)
    true = points_cam @ T_obj_live[:3, :3].T + T_obj_live[:3, 3]
    return float(np.median(np.linalg.norm(nocs[v, u] * scale_m - true, axis=1)) / diagonal_m)

