"""Is this pose believable? Checks that know nothing of how the pose was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from nocsfm_ros.geometry.camera import depth_at, project
from nocsfm_ros.geometry.transforms import invert, transform
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.matcher import cell_mask
from nocsfm_ros.object_model import ObjectModel, View, depth_tolerance_m
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, ObjectCrop, RgbdFrame, SimilarityPose, Uint8Array

MAX_CHECKED = 400
MIN_CHECKED = 10
THIN_SAMPLES = 4  # per cell and side, where the cells' middles alone are too few


class Scores(NamedTuple):
    """What is checked of a pose.

    Attributes:
        fit: share of the live points that lie on the object, of those on sides that are known.
        agreement: see depth_agreement.
        similarity: see pose_similarity.
        correlation, seen: of the colours, see colour_alignment.Comparison; None and 0 where too few points are seen.
        colour: see colour_difference; None where too few points are seen.
        certainty: mean probability of the mask, by the flow.
    """

    fit: float
    agreement: float
    similarity: float
    correlation: float | None
    seen: float
    colour: float | None
    certainty: float


# The confidence is a logistic regression on scores between the worst and the best that are met: (weight, worst, best).
# Fitted by benchmarks/fit_confidence.py --pairs 800 to 1885 poses on rendered training objects, right, turned and of
# another object; it is the share of right ones (10 degrees, a tenth of scale_m) among poses of such scores.
WEIGHTS = {
    "fit": (2.12, 0.3, 0.95), "agreement": (2.45, 0.5, 1.0), "similarity": (2.18, 0.1, 0.6),
    "correlation": (2.15, 0.0, 0.5), "seen": (1.08, 0.2, 0.8),
}
BIAS, UNKNOWN = -6.86, 0.7
# What refutes a pose alone: (impossible, harmless). Plain walls fit plain things in all but features. Colours are in
# CIELAB: on real tables 15 of 17 right poses lie under 13, a blue pen for a red one at 49. The flow is sure of what it
# was asked for (0.94 and more when 21 rendered objects were found), and not of a can's lid that fits a rock (0.67)
VETOES = {"agreement": (0.25, 0.6), "similarity": (0.1, 0.3), "colour": (28.0, 14.0), "certainty": (0.5, 0.85)}
WORDS = {
    "fit": "{:.0%} of the points fit the object", "agreement": "{:.0%} of the object agrees with the depth",
    "similarity": "similarity {:.2f} to the reference", "correlation": "correlation {:.2f} of the colours",
    "seen": "{:.0%} of the reference's points are seen", "colour": "colours {:.0f} apart from the reference's",
    "certainty": "mask probability {:.2f}",
}
# Without depth in the reference nothing but the look can be checked
SIMILARITY_RAMP, MASK_RAMP = (0.33, 0.5), (0.5, 0.9)
LIGHTNESS, MIN_LIGHTNESS = 50.0, 20.0  # what is darker has hardly a colour left, but noise
COLOUR_BLUR = 1.5  # pixels: a pose is right to about that much
CHOICE_GAIN = 0.1  # cosine to the best of many partners over that to the right one


def depth_agreement(pose: SimilarityPose, model: ObjectModel, frame: RgbdFrame) -> float:
    """Share of the object memory's camera-facing points that the frame's depth does not contradict, [0, 1].

    A point is contradicted when the camera looks through it: the measured depth lies well behind. A nearer surface
    (an occluder) and missing depth say nothing.
    """
    if model.cloud is None:
        return 1.0
    step = max(1, len(model.cloud.points_obj) // MAX_CHECKED)
    points_cam = transform(pose.T_cam_obj, model.cloud.points_obj[::step])
    normals_cam = model.cloud.normals_obj[::step] @ pose.R_cam_obj.T
    # seen at 60 degrees or less from the normal: grazing points are the ones that depth noise moves most
    facing = -(normals_cam * points_cam).sum(axis=1) > 0.5 * np.linalg.norm(points_cam, axis=1)
    points_cam = points_cam[facing & (points_cam[:, 2] > 0)]
    measured = depth_at(frame.depth_m, project(points_cam, frame.K))
    known = measured > 0
    if known.sum() < MIN_CHECKED:
        return 0.0
    tolerance_m = depth_tolerance_m(pose.scale_m)
    seen_through = measured[known] > points_cam[known, 2] + tolerance_m
    hidden = measured[known] < points_cam[known, 2] - tolerance_m
    visible = ~hidden
    if visible.sum() < MIN_CHECKED:
        return 0.0
    return float(1.0 - seen_through.sum() / visible.sum())


def is_new_side(pose: SimilarityPose, points_cam: Float64Array, model: ObjectModel) -> BoolArray:
    """Which of the live points (N, 3) lie on a side that no view has seen: they speak neither for nor against the pose.

    Not on the known surface, and either on the back of it (of a thin thing) or, for every view, behind what it saw.
    """
    if model.cloud is None:
        return np.zeros(len(points_cam), bool)
    points_obj = transform(invert(pose.T_cam_obj), points_cam)
    tolerance_m = depth_tolerance_m(pose.scale_m)
    index, distance_m = model.cloud.nearest(points_obj)
    is_near = distance_m <= tolerance_m
    hidden = np.ones(len(points_obj), bool)
    for view in model.views:
        points_view = transform(view.T_cam_obj, points_obj)
        measured = depth_at(view.crop.depth_m, project(points_view, view.crop.K_crop))
        hidden &= (measured <= 0) | (points_view[:, 2] > measured + tolerance_m)
    result: BoolArray = np.where(is_near, model.cloud.turns_away(index, pose, points_cam), hidden)
    return result


def pose_similarity(pose: SimilarityPose, view: View, crop: ObjectCrop, features: FeatureMap) -> float | None:
    """How alike the view's features and the live ones are where the pose says the same point is seen, [-1, 1].

    The mean of two cosines: of the features as they are (is it the same kind of thing?), and after each side's own
    mean is taken out (are its parts where the pose says?). On the demo sequence the first alone gives 0.6-0.76 for
    the right pose and up to 0.54 for a similar carton; the second 0.43-0.64 and up to 0.22.

    Points that the live depth shows to be behind something, or that have no live depth, do not count.

    None when the view has no depth, or on a sliver of its points; 0 when fewer than MIN_CHECKED of its points are left.
    """
    known_somewhere = False
    for per_cell in (1, THIN_SAMPLES):  # a thin object slips between the cells' middles
        points_obj, reference = _sampled(view, per_cell)
        points_cam = transform(pose.T_cam_obj, points_obj)
        pixels_uv = project(points_cam, crop.K_crop)
        measured = depth_at(crop.depth_m, pixels_uv)
        cells = np.floor((np.nan_to_num(pixels_uv, nan=-1e6) + 0.5) / features.stride).astype(int)
        inside = (cells >= 0).all(axis=1) & (cells < features.features.shape[1::-1]).all(axis=1)
        inside &= (measured > 0) & (measured > points_cam[:, 2] - depth_tolerance_m(pose.scale_m))
        if inside.sum() >= MIN_CHECKED * per_cell:
            seen, live = reference[inside], features.features[cells[inside, 1], cells[inside, 0]]
            return 0.5 * (_mean_cosine(seen, live) + _mean_cosine(seen - seen.mean(axis=0), live - live.mean(axis=0)))
        known_somewhere |= len(points_obj) >= MIN_CHECKED * per_cell
    return 0.0 if known_somewhere else None


def _sampled(view: View, per_cell: int) -> tuple[Float64Array, Float32Array]:
    """Object points (N, 3) and features (N, C) of the view, on a grid of `per_cell` samples a cell and side."""
    rows, columns = view.features.features.shape[:2]
    step = view.features.stride / per_cell
    samples = np.rint((np.arange(max(rows, columns) * per_cell) + 0.5) * step - 0.5).astype(int)
    v, u = np.meshgrid(samples[: rows * per_cell], samples[: columns * per_cell], indexing="ij")
    points_obj = view.feature_points_obj[v, u].reshape(-1, 3).astype(np.float64)
    known = np.asarray(np.isfinite(points_obj).all(axis=1))
    features = view.features.features.repeat(per_cell, axis=0).repeat(per_cell, axis=1)
    return points_obj[known], features.reshape(len(known), -1)[known]


def chroma(rgb: Uint8Array) -> Float32Array:
    """(H, W, 3) uint8 -> (H, W, 2): a and b of CIELAB as they would be at LIGHTNESS, slightly blurred.

    Half the light takes a quarter off a and b, and off L + 16 as well: their ratio is the colour, whatever the lamp.
    """
    blurred = cv2.GaussianBlur(rgb, (0, 0), COLOUR_BLUR).astype(np.float32) / 255
    lightness, ab = np.split(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), [1], axis=2)
    return np.asarray(ab * (LIGHTNESS + 16) / (np.maximum(lightness, MIN_LIGHTNESS) + 16), np.float32)


def seen_points(
    pose: SimilarityPose, points_obj: Float64Array, crop: ObjectCrop
) -> tuple[Float64Array, Float64Array, BoolArray]:
    """Points (N, 3) of the object in the camera, metres, and in the crop (N, 2), and which (N,) the live depth shows.

    Hidden points, and points without live depth or outside the crop, are not seen.
    """
    points_cam = transform(pose.T_cam_obj, points_obj)
    pixels_uv = project(points_cam, crop.K_crop)
    measured = depth_at(crop.depth_m, pixels_uv)  # 0 outside the crop
    seen: BoolArray = (measured > 0) & (np.abs(measured - points_cam[:, 2]) < depth_tolerance_m(pose.scale_m))
    return points_cam, pixels_uv, seen


def colour_difference(pose: SimilarityPose, view: View, crop: ObjectCrop) -> float | None:
    """Median distance in chroma between the view's points and what is seen where the pose puts them.

    Features hardly see colour; this tells a red can from a green one. Hidden points, and points without live depth, do
    not count.

    Returns:
        CIELAB units, or None where fewer than MIN_CHECKED points can be compared.
    """
    _, pixels_uv, seen = seen_points(pose, view.colour_points_obj, crop)
    if seen.sum() < MIN_CHECKED:
        return None
    u, v = np.rint(pixels_uv[seen]).astype(int).T
    return float(np.median(np.linalg.norm(chroma(crop.rgb)[v, u] - view.chroma[seen], axis=1)))


def look_similarity(view: View, features: FeatureMap, mask: BoolArray) -> float:
    """How alike two masked pictures are where no depth says which parts belong together, [-1, 1].

    Every cell is compared with the one most like it on the other side, both ways; else as in pose_similarity, to
    whose scale it is brought. On 89 crops of 46 kinds of real table-top things, 10 and 50 % of the pairs of the same
    thing are under 0.31 and 0.45, 90 and 95 % of the pairs of different ones under 0.32 and 0.38.

    Args:
        view: the object, without depth or too thin for pose_similarity.
        features: of the live crop.
        mask: (S, S) bool, the object in that crop.
    """
    seen = view.features.features[cell_mask(view.features, view.feature_mask)]
    live = features.features[cell_mask(features, mask)]
    if not len(seen) or not len(live):
        return 0.0
    parts = _best_cosine(seen - seen.mean(axis=0), live - live.mean(axis=0))
    return 0.5 * (_best_cosine(seen, live) + parts) - CHOICE_GAIN


def combine_scores(scores: Scores) -> tuple[float, str]:
    """How likely the pose is right, [0, 1], and its weakest side in words."""
    known = {name: value for name, value in scores._asdict().items() if value is not None}
    missing = {name: weight * (1 - (_ramp(known[name], ends) if name in known else UNKNOWN))
               for name, (weight, *ends) in WEIGHTS.items()}
    passed = {name: _ramp(known[name], ends) for name, ends in VETOES.items() if name in known}
    logit = BIAS + sum(weight for weight, *_ in WEIGHTS.values()) - sum(missing.values())
    confidence = float(np.prod(list(passed.values())) / (1 + np.exp(-logit)))
    hardest = min(passed, key=lambda name: passed[name])
    worst = max(known.keys() & missing.keys(), key=lambda name: missing[name])
    said = hardest if passed[hardest] < 0.5 else worst
    return confidence, WORDS[said].format(known[said])


def combine_looks(similarity: float, mask_probability: float) -> tuple[float, str]:
    """The same for a reference without depth, of which only the look can be checked: not calibrated."""
    scores = {
        f"mask probability {mask_probability:.2f}": _ramp(mask_probability, MASK_RAMP),
        f"similarity {similarity:.2f} to the reference": _ramp(similarity, SIMILARITY_RAMP),
    }
    return float(np.sqrt(np.prod(list(scores.values())))), min(scores, key=lambda name: scores[name])


def _mean_cosine(a: Float32Array, b: Float32Array) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())


def _best_cosine(a: Float32Array, b: Float32Array) -> float:
    """Mean over both sides' (N, C) and (M, C) rows of the cosine to the most similar row of the other side."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    cosine = a @ b.T / np.maximum(lengths, 1e-9)
    return 0.5 * float(cosine.max(axis=1).mean() + cosine.max(axis=0).mean())


def _ramp(value: float, ends: Sequence[float]) -> float:
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))
