"""Finding the object in the whole picture: similarity map, threshold, components, windows; several candidates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.matching.backbone import Backbone, FeatureMap
from nocsfm_ros.matching.matcher import cell_mask, similarity_map
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, Uint8Array

REFERENCE_SIDES = (96, 160)  # pixels of the object's longer side in the encoded reference crops
CONTEXT = 1.6  # side of the reference crop over the object's longer side
WINDOW_SIDES = (64.0, 96.0, 144.0, 216.0)  # pixels (at frame_side) of the windows looked through
RING_WEIGHT = 0.5  # of what surrounds a window: a blob larger than the object must not win
SHARPNESS = 10.0  # of the soft-argmax


@dataclass(frozen=True)
class Candidate:
    """Where the object may be. box_xywh and centre_uv in pixels of the frame; score: higher is better."""

    box_xywh: BoxXywh
    score: float
    centre_uv: tuple[float, float]


@dataclass(frozen=True)
class ReferenceFeatures:
    """What is looked for, computed once.

    Attributes:
        features: (N, C) float32 of length 1, cells on the object at all scales.
        background: (M, C) float32 of length 1, cells beside it.
        pixels_uv: (N, 2) float64 pixels of the reference picture.
        box_xywh: of the mask in the reference picture.
    """

    features: Float32Array
    background: Float32Array
    pixels_uv: Float64Array
    box_xywh: BoxXywh


def encode_reference(rgb: Uint8Array, mask: BoolArray, backbone: Backbone) -> ReferenceFeatures:
    """Features of the object at several sizes, and of what surrounds it.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool.
        backbone: the one the frames will be encoded with.

    Raises:
        ConfigError: the mask is empty.
    """
    box_xywh = box_from_mask(mask)
    if box_xywh is None:
        raise ConfigError("reference mask", got="no pixel of the object", expected="a mask with the object in it")
    x, y, w, h = box_xywh
    side = max(w, h)
    crop_side = side * CONTEXT
    left, top = x + w / 2 - crop_side / 2, y + h / 2 - crop_side / 2
    features, background, pixels = [], [], []
    for object_side in REFERENCE_SIDES:
        s = object_side / side
        size = max(backbone.stride, round(crop_side * s / backbone.stride) * backbone.stride)
        A = np.array([[s, 0, -s * left - 0.5], [0, s, -s * top - 0.5]])
        smooth = cv2.GaussianBlur(rgb, (0, 0), 0.4 / s) if s < 0.7 else rgb
        crop = cv2.warpAffine(smooth, A, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpAffine(mask.astype(np.uint8), A, (size, size), flags=cv2.INTER_LINEAR) > 0
        encoded = backbone.encode(crop.astype(np.uint8))
        chosen = cell_mask(encoded, inside)
        if not chosen.any():  # a thin thing between the cells' middles
            chosen = _cells_touched(encoded, inside)
        cells = np.argwhere(chosen)[:, ::-1].astype(np.float64)
        features.append(encoded.features[chosen])
        background.append(encoded.features[~chosen])
        pixels.append((encoded.pixels_from_cells(cells) + 0.5) / s + (left, top))
    return ReferenceFeatures(
        np.concatenate(features), np.concatenate(background), np.concatenate(pixels), box_xywh
    )


def _cells_touched(encoded: FeatureMap, inside: BoolArray) -> BoolArray:
    rows, columns = encoded.features.shape[:2]
    return cv2.resize(inside.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0


def find_candidates(
    rgb: Uint8Array, reference_features: ReferenceFeatures, backbone: Backbone, config: MatchingConfig
) -> list[Candidate]:
    """Regions of a frame that may show the object.

    Args:
        rgb: (H, W, 3) uint8.
        reference_features: of encode_reference with the same backbone.
        backbone: any.
        config: frame_side, similarity_threshold, max_candidates.

    Returns:
        At most max_candidates, best first; empty when no cell is above the threshold.
    """
    s = config.frame_side / max(rgb.shape[:2])
    size_wh = round(rgb.shape[1] * s), round(rgb.shape[0] * s)
    frame = backbone.encode(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA if s < 1 else cv2.INTER_LINEAR))
    evidence = object_evidence(reference_features, frame.features)
    if evidence.max() < config.similarity_threshold:
        return []
    aspect = reference_features.box_xywh[2] / reference_features.box_xywh[3]
    candidates: list[Candidate] = []
    windows = [_window_scores(evidence, side / frame.stride, aspect) for side in WINDOW_SIDES]
    scores = np.stack([window.scores for window in windows])
    for _ in range(config.max_candidates):
        k, row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        if not np.isfinite(scores[k, row, column]) or scores[k, row, column] <= 0:
            break
        candidates.append(_candidate(windows[k], evidence, int(row), int(column), frame, s))
        half_h, half_w = (max(1, round(n / 2)) for n in windows[k].size_hw)
        scores[:, max(0, row - half_h) : row + half_h + 1, max(0, column - half_w) : column + half_w + 1] = -np.inf
    return candidates


def object_evidence(reference: ReferenceFeatures, features_frame: Float32Array) -> Float32Array:
    """(h, w) in [-1, 1]: how much a cell looks like the object, once what all of the frame shares is taken out.

    Args:
        reference: of the object.
        features_frame: (h, w, C) float32.
    """
    mean = features_frame.mean(axis=(0, 1))
    return similarity_map(_centred(reference.features, mean), _centred(features_frame, mean))


@dataclass(frozen=True)
class _Window:
    """Mean evidence inside minus that of a ring around it, for each place of a window of size_hw cells."""

    scores: Float32Array
    size_hw: tuple[float, float]


def _window_scores(evidence: Float32Array, side_cells: float, aspect: float) -> _Window:
    """A window of the reference's aspect, whose longer side is `side_cells`, slid over the evidence."""
    width, height = side_cells * min(1.0, aspect), side_cells * min(1.0, 1 / aspect)
    # turned by 90 degrees in the picture an elongated thing has the other aspect: meet both half way
    width, height = (width * side_cells) ** 0.5, (height * side_cells) ** 0.5
    inner, outer = _box_size(width, height, 1.0), _box_size(width, height, 2.0)
    inside = cv2.blur(evidence, inner, borderType=cv2.BORDER_REPLICATE)
    around = cv2.blur(evidence, outer, borderType=cv2.BORDER_REPLICATE)
    share = inner[0] * inner[1] / (outer[0] * outer[1])
    ring = (around - share * inside) / max(1e-6, 1 - share)
    return _Window((inside - RING_WEIGHT * ring).astype(np.float32), (height, width))


def _box_size(width: float, height: float, times: float) -> tuple[int, int]:
    return max(1, 2 * round((times * width - 1) / 2) + 1), max(1, 2 * round((times * height - 1) / 2) + 1)


def _candidate(
    window: _Window, evidence: Float32Array, row: int, column: int, frame: FeatureMap, frame_scale: float
) -> Candidate:
    """Centre by soft-argmax of the evidence inside the window; the box is the window about it."""
    half_h, half_w = (max(1, round(n / 2)) for n in window.size_hw)
    rows = np.arange(max(0, row - half_h), min(evidence.shape[0], row + half_h + 1))
    columns = np.arange(max(0, column - half_w), min(evidence.shape[1], column + half_w + 1))
    weight = np.exp(evidence[np.ix_(rows, columns)] * SHARPNESS)
    total = float(weight.sum())
    cell = np.array([(weight.sum(axis=0) * columns).sum() / total, (weight.sum(axis=1) * rows).sum() / total])
    u, v = (frame.pixels_from_cells(cell) + 0.5) / frame_scale - 0.5
    h, w = (n * frame.stride / frame_scale for n in window.size_hw)
    return Candidate(
        (float(u - w / 2), float(v - h / 2), float(w), float(h)), float(window.scores[row, column]), (float(u), float(v))
    )


def _centred(features: Float32Array, mean: Float32Array) -> Float32Array:
    difference = features - mean
    result: Float32Array = difference / np.maximum(np.linalg.norm(difference, axis=-1, keepdims=True), 1e-6)
    return result
