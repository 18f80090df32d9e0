"""Fit the confidence: what share of poses with such scores is right?

    python benchmarks/fit_confidence.py --data data/train --pairs 800

Poses of rendered training objects under another light, with the noise, the holes and the displaced edges of a depth
camera: what a search finds of the right object, of another one that looks like it and of one of the same shape in other
colours, and some of all turned at random and refined again. Each comes with the scores that confidence.py combines.
Prints the constants for confidence.py, and what three gates let through in five-fold cross-validation,
vetoes included.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from scipy.optimize import minimize

from nocsfm_ros import estimator as estimator_module
from nocsfm_ros.confidence import UNKNOWN, VETOES, WEIGHTS, Scores, combine_scores
from nocsfm_ros.config import Config
from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.evaluation.pairs import Case, draw_pairs, whole_box
from nocsfm_ros.geometry.symmetry import nearest_symmetry
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg
from nocsfm_ros.masks import large_components
from nocsfm_ros.matching.matcher import cell_mask
from nocsfm_ros.registration import object_points, refine
from nocsfm_ros.tracking.tracker import build_tracker
from nocsfm_ros.training.augmentation import augment_depth, augment_picture
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, SimilarityPose, Uint8Array

RIGHT_DEG, RIGHT_SHARE = 10.0, 0.1  # of scale_m
TURNED_SHARE, TURNED_DEG = 0.6, (15.0, 50.0)
OTHERS = 12  # views of other objects, of which the one most alike is asked for
# Share of training's changes of light: at half of them the colours of nine in ten right poses are less than 15 apart
# in CIELAB, as on real tables under one lamp
LIGHTS = (0.5, 1.0)
RECOLOURED_SHARE, HUE_DEG, MIN_CHROMA = 0.3, (70.0, 180.0), 15.0  # CIELAB: greyer things have no other colour
# On real things features tell more than on rendered ones, to which alone this would give them no weight
LEAST_WEIGHTS = {"similarity": 2.0}
RIDGE, FOLDS = 2e-4, 5


class Recorder:
    """Stands in for combine_scores and keeps what it was asked last."""

    last: Scores

    def __call__(self, scores: Scores) -> tuple[float, str]:
        self.last = scores
        return combine_scores(scores)


def as_seen(view: View, rng: np.random.Generator) -> View:
    """A clean view as a camera would show it."""
    depth_m = augment_depth(np.asarray(view["depth"]) * np.float32(DEPTH_UNIT_M), rng)
    clean = np.asarray(view["rgb"])
    share = float(rng.choice(LIGHTS))
    rgb: Uint8Array = np.asarray(cv2.addWeighted(clean, 1 - share, augment_picture(clean, rng), share, 0), np.uint8)
    return {**view, "rgb": rgb, "depth": np.rint(depth_m / DEPTH_UNIT_M).astype(np.uint16)}


def look_alike(live: View, references: Sequence[View], estimator: Estimator) -> int:
    """Which of the references has features most like the live ones, where their masks are."""
    def look(view: View) -> Float32Array:
        features = estimator.backbone.encode(np.ascontiguousarray(view["rgb"]))
        seen = features.features[cell_mask(features, np.asarray(view["mask"]) > 0)].sum(axis=0)
        return np.asarray(seen / max(float(np.linalg.norm(seen)), 1e-9), np.float32)

    return int(np.argmax(np.stack([look(view) for view in references]) @ look(live)))


def recoloured(view: View, rng: np.random.Generator) -> View | None:
    """The same object with its hues turned, or None where it has none."""
    mask = np.asarray(view["mask"]) > 0
    lab = cv2.cvtColor(np.asarray(view["rgb"]).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    if np.linalg.norm(lab[mask][:, 1:], axis=1).mean() < MIN_CHROMA:
        return None
    angle = np.radians(rng.uniform(*HUE_DEG)) * rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lab[mask, 1:] = lab[mask][:, 1:] @ turn.T.astype(np.float32)
    rgb: Uint8Array = np.rint(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).clip(0, 1) * 255).astype(np.uint8)
    return {**view, "rgb": rgb}


def poses_of(case: Case, estimator: Estimator, rng: np.random.Generator) -> Iterator[SimilarityPose]:
    """Poses that were just checked: the first look's, then one turned at random."""
    look = estimator._look(case.frame, whole_box(case.frame.size_wh[0], case.margin), case.view)
    found = estimator._from_mask(look, case.model, ())
    if found.pose is None or case.model.cloud is None:
        return
    yield found.pose
    if rng.random() > TURNED_SHARE:
        return
    axis = rng.normal(size=3)
    turn = cv2.Rodrigues(axis / np.linalg.norm(axis) * np.radians(rng.uniform(*TURNED_DEG)))[0]
    mask = large_components(look.nocs_map.mask_prob > 0.5)
    config = estimator.config.registration
    points_cam, _ = object_points(look.crop.depth_m, mask, look.crop.K_crop, config)
    start = SimilarityPose(turn @ found.pose.R_cam_obj, found.pose.t_cam_obj, found.pose.scale_m)
    turned = refine(start, points_cam, case.model.cloud, config)
    estimator._verify(look, case.model, turned, mask)
    yield turned.pose


def is_right(case: Case, pose: SimilarityPose) -> bool:
    """Within RIGHT_DEG and RIGHT_SHARE of the truth, symmetry taken out."""
    T_est = pose.T_cam_obj @ invert(case.view.T_cam_obj) @ case.reference["T_cam_obj"]
    T_true = case.live["T_cam_obj"]
    S = nearest_symmetry(T_est[:3, :3], T_true[:3, :3], int(case.live["symmetry"]))[:3, :3]
    shift_m = float(np.linalg.norm(T_est[:3, 3] - T_true[:3, 3]))
    return rotation_angle_deg(T_est[:3, :3] @ S, T_true[:3, :3]) < RIGHT_DEG and shift_m < RIGHT_SHARE * pose.scale_m


def collect(folder: Path, count: int) -> tuple[Float64Array, BoolArray, BoolArray]:
    """Scores (N, S) with NaN for unknown, right or not (N,), of another object or not (N,)."""
    tracker = build_tracker(Config())
    estimator, record = tracker.estimator, Recorder()
    views, rng = ViewDataset(folder), np.random.default_rng(0)
    pairs, meshes = draw_pairs(views, count, limit_deg=75), views.column("mesh")
    rows: list[tuple[Scores, bool, bool]] = []
    with mock.patch.object(estimator_module, "combine_scores", record):
        for number, (live, own) in enumerate(pairs, 1):
            shown = as_seen(views[live], rng)
            others = [int(row) for row in rng.choice(np.flatnonzero(meshes != meshes[live]), OTHERS, replace=False)]
            other = views[others[look_alike(shown, [views[row] for row in others], estimator)]]
            double = recoloured(views[own], rng) if rng.random() < RECOLOURED_SHARE else None
            for reference, is_other in ((views[own], False), (other, True), (double, True)):
                if reference is None:
                    continue
                case = Case(shown, as_seen(reference, rng), estimator)
                rows += [
                    (record.last, not is_other and is_right(case, pose), is_other)
                    for pose in poses_of(case, estimator, rng)
                ]
            if number % 20 == 0:
                print(f"{number}/{count} pairs", flush=True)
    scores, right, of_other = zip(*rows, strict=True)
    return np.array(scores, np.float64), np.array(right), np.array(of_other)


def reached(scores: Float64Array) -> Float64Array:
    """(N, 1 + S) regressors: one, and each score between its ends."""
    columns = [np.ones(len(scores))]
    for name, (_, worst, best) in WEIGHTS.items():
        share = np.clip((scores[:, Scores._fields.index(name)] - worst) / (best - worst), 0, 1)
        columns.append(np.where(np.isnan(share), UNKNOWN, share))
    return np.stack(columns, axis=1)


def fit(A: Float64Array, right: BoolArray) -> Float64Array:
    """Weights of a ridge logistic regression, the first free, the rest at least LEAST_WEIGHTS or 0.

    No good score speaks against a pose.
    """
    ridge = RIDGE * len(A) * np.array([0.0, *np.ones(A.shape[1] - 1)])

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        logits = A @ weights
        value = np.logaddexp(0, logits).sum() - logits[right].sum() + 0.5 * (ridge * weights**2).sum()
        return float(value), A.T @ (_sigmoid(logits) - right) + ridge * weights

    bounds = [(None, None), *((LEAST_WEIGHTS.get(name, 0.0), None) for name in WEIGHTS)]
    return np.asarray(minimize(loss, np.zeros(A.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)


def vetoes(scores: Float64Array) -> Float64Array:
    """(N,) the factor of the vetoes."""
    factor = np.ones(len(scores))
    for name, (worst, best) in VETOES.items():
        share = np.clip((scores[:, Scores._fields.index(name)] - worst) / (best - worst), 0, 1)
        factor *= np.where(np.isnan(share), 1.0, share)
    return factor


def _sigmoid(x: Float64Array) -> Float64Array:
    return np.asarray(1 / (1 + np.exp(-x)), np.float64)


def main() -> None:
    """Collect, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/train"), help="views of nocsfm render")
    parser.add_argument("--pairs", type=int, default=800)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scores, right, other = collect(options.data, options.pairs)
    A = reached(scores)
    bias, *weights = fit(A, right)
    print(f"{len(right)} poses, {right.sum()} right, {other.sum()} of another object")
    print(f"BIAS {bias:.2f}", ", ".join(f"{name} {w:.2f}" for name, w in zip(WEIGHTS, weights, strict=True)))
    confidence = np.empty(len(right))
    for fold in np.array_split(np.arange(len(A)), FOLDS):  # the poses of a pair are neighbours
        rest = np.setdiff1d(np.arange(len(A)), fold)
        confidence[fold] = _sigmoid(A[fold] @ fit(A[rest], right[rest]))
    confidence *= vetoes(scores)
    for gate in (0.4, 0.6, 0.8):
        through = confidence >= gate
        print(
            f"gate {gate:.2f}: {100 * through[right].mean():.0f} % of the right, "
            f"{100 * through[other].mean():.1f} % of other objects pass; {100 * right[through].mean():.0f} % of "
            "what passes is right"
        )
    for low in np.arange(0, 1, 0.2):
        inside = (confidence >= low) & (confidence < low + 0.2)
        if inside.any():
            print(f"confidence {low:.1f}-{low + 0.2:.1f}: {100 * right[inside].mean():.0f} % right of {inside.sum()}")


if __name__ == "__main__":
    main()
