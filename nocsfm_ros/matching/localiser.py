"""Finding the object in the whole picture: similarity map, windows, threshold, components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.matching.backbone import Backbone, FeatureMap
from nocsfm_ros.matching.matcher import cell_mask, similarity_map
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, Uint8Array

REFERENCE_SIDES = (64, 96, 160)  # pixels of the object's longer side in the encoded reference crops
BLUR_REACH = 32  # pixels that a reference is smoothed over before it is made small
CONTEXT = 1.6  # side of the reference crop over the object's longer side
# Longer sides, in pixels of the encoded frame, of the windows looked through where the object's own is not known
WINDOW_SIDES = (48.0, 72.0, 108.0, 162.0, 243.0)
# and where depth tells it: those within REACH of it, as the object may turn another side to the camera
KNOWN_SIDES, REACH = tuple(32.0 * 1.22**i for i in range(13)), 1.35
RING_WEIGHT = 0.8  # of what surrounds a window: a blob larger than the object must not win
DEPTH_SAMPLES = 4  # along a side of a cell
SHARPNESS = 10.0  # of the soft-argmax
SAME_BOX = 0.7  # overlap of two places that are one: windows beside each other lead to the same component
# A component's longer side over its window's; outside this range the window is the box.
BELIEVABLE_SIDE = (0.6, 1.7)


@dataclass(frozen=True)
class Candidate:
    """Where the object may be.

    Attributes:
        box_xywh, centre_uv: in pixels of the frame.
        score: higher is better.
    """

    box_xywh: BoxXywh
    score: float
    centre_uv: tuple[float, float]


@dataclass(frozen=True)
class ReferenceFeatures:
    """What is looked for, computed once.

    Attributes:
        features: (N, C) float32 of length 1, cells on the object at all scales.
        pixels_uv: (N, 2) float64 pixels of the reference picture.
        box_xywh: of the mask in the reference picture.
        side_m: metres along the box's longer side; None where no depth tells it.
    """

    features: Float32Array
    pixels_uv: Float64Array
    box_xywh: BoxXywh
    side_m: float | None = None


def encode_reference(
    rgb: Uint8Array, mask: BoolArray, backbone: Backbone, m_per_pixel: float | None = None
) -> ReferenceFeatures:
    """Features of the object at several sizes.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool.
        backbone: the one the frames will be encoded with.
        m_per_pixel: metres that a pixel is wide at the object; None where no depth tells it.

    Raises:
        ConfigError: the mask is empty.
    """
    box_xywh = box_from_mask(mask)
    if box_xywh is None:
        raise ConfigError(
            "reference mask", got="no pixel of the object", expected="a mask with the object in it"
        )
    side = max(box_xywh[2:])
    features, pixels = [], []
    for object_side in REFERENCE_SIDES:
        crop, inside, A = reference_crop(rgb, mask, box_xywh, object_side, backbone.stride)
        encoded = backbone.encode(crop)
        chosen = cell_mask(encoded, inside)
        if not chosen.any():  # a thin thing between the cells' middles
            chosen = _cells_touched(encoded, inside)
        cells = np.argwhere(chosen)[:, ::-1].astype(np.float64)
        features.append(encoded.features[chosen])
        pixels.append((encoded.pixels_from_cells(cells) - A[:, 2]) / A[0, 0])
    side_m = None if m_per_pixel is None else side * m_per_pixel
    return ReferenceFeatures(np.concatenate(features), np.concatenate(pixels), box_xywh, side_m)


def reference_crop(
    rgb: Uint8Array, mask: BoolArray, box_xywh: BoxXywh, object_side: float, stride: int
) -> tuple[Uint8Array, BoolArray, Float64Array]:
    """The square about a reference's object, whose longer side becomes `object_side` pixels.

    Args:
        rgb, mask: (H, W, 3) uint8 and (H, W) bool.
        box_xywh: of the mask.
        object_side: pixels.
        stride: the crop's side is a multiple of it.

    Returns:
        (S, S, 3) uint8 picture, (S, S) bool mask, (2, 3) crop pixels from those of the picture.
    """
    x, y, w, h = box_xywh
    crop_side = max(w, h) * CONTEXT
    s = object_side / max(w, h)
    size = max(stride, round(crop_side * s / stride) * stride)
    A = np.array([[s, 0, -s * (x + w / 2 - crop_side / 2) - 0.5], [0, s, -s * (y + h / 2 - crop_side / 2) - 0.5]])
    smooth = cv2.GaussianBlur(rgb, (0, 0), 0.4 / s) if s < 0.7 else rgb
    crop = cv2.warpAffine(smooth, A, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(mask.astype(np.uint8), A, (size, size), flags=cv2.INTER_LINEAR) > 0
    return np.asarray(crop, np.uint8), np.asarray(inside), A


def part_around(rgb: Uint8Array, mask: BoolArray, box_xywh: BoxXywh) -> tuple[Uint8Array, BoolArray, float]:
    """What encode_reference looks at of a picture and mask, no larger than it needs; box_xywh is the mask's.

    Returns:
        Copies of the part, and how many pixels of the picture each of its pixels is wide.
    """
    x, y, w, h = box_xywh
    reach = max(w, h) + BLUR_REACH
    rows = slice(max(int(y + h / 2 - reach), 0), int(y + h / 2 + reach) + 1)
    columns = slice(max(int(x + w / 2 - reach), 0), int(x + w / 2 + reach) + 1)
    part, part_mask = rgb[rows, columns], mask[rows, columns]
    shrink = max(w, h) / (2 * REFERENCE_SIDES[-1])
    if shrink <= 1:
        return part.copy(), part_mask.copy(), 1.0
    size_wh = round(part.shape[1] / shrink), round(part.shape[0] / shrink)
    small = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8)
    small_mask = cv2.resize(part_mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST) > 0
    return small, small_mask, shrink


def _cells_touched(encoded: FeatureMap, inside: BoolArray) -> BoolArray:
    rows, columns = encoded.features.shape[:2]
    return cv2.resize(inside.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0


@dataclass(frozen=True)
class EncodedFrame:
    """All that a search needs of a frame, whichever object is searched.

    Attributes:
        features: of the frame resized by `scale`.
        scale: pixels of the resized frame per pixel of the frame.
        pixels_per_m: (h, w) float32, of the resized frame, at the depth of each cell; None without any depth.
    """

    features: FeatureMap
    scale: float
    pixels_per_m: Float32Array | None


def encode_frame(
    rgb: Uint8Array, backbone: Backbone, config: MatchingConfig, depth_m: Float32Array | None = None,
    focal_px: float = 0.0,
) -> EncodedFrame:
    """Features of a frame whose longer side is brought to `frame_side`.

    Args:
        rgb: (H, W, 3) uint8.
        backbone: also that of the references.
        config: frame_side.
        depth_m: (H, W) registered, 0 = none; it tells how large the object is in each place.
        focal_px: of the frame's camera.
    """
    scale = config.frame_side / max(rgb.shape[:2])
    size_wh = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    resized = cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    features = backbone.encode(resized.astype(np.uint8))
    pixels_per_m = None
    if depth_m is not None and depth_m.any():
        pixels_per_m = scale * focal_px / _cell_range_m(depth_m, features.features.shape[:2], features.stride / scale)
    return EncodedFrame(features, scale, pixels_per_m)


def _cell_range_m(depth_m: Float32Array, grid_hw: tuple[int, int], cell_px: float) -> Float32Array:
    """(h, w) median of the known depths in each cell of `cell_px` pixels; of the nearest cell where it has none."""
    height, width = depth_m.shape
    rows, columns = (((np.arange(n * DEPTH_SAMPLES) + 0.5) * cell_px / DEPTH_SAMPLES).astype(int) for n in grid_hw)
    samples = depth_m[np.ix_(rows.clip(max=height - 1), columns.clip(max=width - 1))]
    cells = samples.reshape(grid_hw[0], DEPTH_SAMPLES, grid_hw[1], DEPTH_SAMPLES).transpose(0, 2, 1, 3)
    ordered = np.sort(cells.reshape(*grid_hw, -1), axis=2)
    num_known = (ordered > 0).sum(axis=2)
    if not num_known.any():  # what depth there is lies between the samples
        return np.full(grid_hw, depth_m[depth_m > 0].mean(), np.float32)
    middle = ordered.shape[2] - (num_known + 1) // 2  # the zeros come first
    range_m = np.take_along_axis(ordered, middle.clip(max=ordered.shape[2] - 1)[..., None], axis=2)[..., 0]
    nearest = distance_transform_edt(num_known == 0, return_distances=False, return_indices=True)
    return np.asarray(range_m[tuple(nearest)], np.float32)


def find_candidates(
    encoded: EncodedFrame, references: Sequence[ReferenceFeatures], config: MatchingConfig
) -> list[Candidate]:
    """Regions of a frame that may show the object.

    Args:
        encoded: the frame.
        references: pictures of the object, by encode_reference with the same backbone.
        config: similarity_threshold, max_candidates.

    Returns:
        At most max_candidates, best first, no two alike; empty when no cell is above the threshold.
    """
    frame = encoded.features
    windows: list[_Window] = []
    for reference in references:
        similarity = similarity_map(reference.features, frame.features)
        if similarity.max() >= config.similarity_threshold:
            windows += _windows(similarity, reference, encoded)
    if not windows:
        return []
    candidates: list[Candidate] = []
    scores = np.stack([window.scores for window in windows])
    while len(candidates) < config.max_candidates:
        k, row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        if not np.isfinite(scores[k, row, column]) or scores[k, row, column] <= 0:
            break
        peak = int(row), int(column)
        found = _candidate(windows[k], peak, frame.stride, encoded.scale, config.similarity_threshold)
        if all(box_iou(found.box_xywh, other.box_xywh) < SAME_BOX for other in candidates):
            candidates.append(found)
        half_h, half_w = (max(1, round(n / 2)) for n in windows[k].size_hw)
        scores[
            :, max(0, row - half_h) : row + half_h + 1, max(0, column - half_w) : column + half_w + 1
        ] = -np.inf
    return candidates


def box_iou(a: BoxXywh, b: BoxXywh) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    common = max(width, 0.0) * max(height, 0.0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@dataclass(frozen=True)
class _Window:
    """Mean squared similarity inside, minus a part of that of the ring around, for each place of a window.

    Where the object cannot be of this size the score is minus infinity.
    """

    scores: Float32Array
    size_hw: tuple[float, float]
    similarity: Float32Array
    is_known_size: bool


def _windows(
    similarity: Float32Array, reference: ReferenceFeatures, encoded: EncodedFrame
) -> list[_Window]:
    """Windows of the reference's aspect slid over the similarity map: of all sizes, or of those that depth allows."""
    width, height = reference.box_xywh[2:]
    aspect, stride = width / height, encoded.features.stride
    if reference.side_m is None or encoded.pixels_per_m is None:
        sizes = [_window_size(side / stride, aspect) for side in WINDOW_SIDES]
        return [_Window(_scores(similarity, size), size, similarity, False) for size in sizes]
    # nearer than the largest window it fills the picture; where it would be smaller than the smallest it is not seen
    expected = np.minimum(reference.side_m * encoded.pixels_per_m, KNOWN_SIDES[-1])
    windows = []
    for side in KNOWN_SIDES:
        is_possible = np.abs(np.log(side / expected)) < np.log(REACH)
        if is_possible.any():
            size = _window_size(side / stride, aspect)
            scores = np.where(is_possible, _scores(similarity, size), -np.inf)
            windows.append(_Window(scores.astype(np.float32), size, similarity, True))
    return windows


def _window_size(side_cells: float, aspect: float) -> tuple[float, float]:
    """Height and width in cells of a window whose longer side is `side_cells`."""
    width, height = side_cells * min(1.0, aspect), side_cells * min(1.0, 1 / aspect)
    # turned by 90 degrees in the picture an elongated thing has the other aspect: meet both half way
    return (height * side_cells) ** 0.5, (width * side_cells) ** 0.5


def _scores(similarity: Float32Array, size_hw: tuple[float, float]) -> Float32Array:
    height, width = size_hw
    likeness = np.maximum(similarity, 0) ** 2  # a few good cells say more than many fair ones
    inner, outer = _box_size(width, height, 1.0), _box_size(width, height, 2.0)
    inside = cv2.blur(likeness, inner, borderType=cv2.BORDER_REPLICATE)
    around = cv2.blur(likeness, outer, borderType=cv2.BORDER_REPLICATE)
    share = inner[0] * inner[1] / (outer[0] * outer[1])
    ring = (around - share * inside) / max(1e-6, 1 - share)
    return np.asarray(inside - RING_WEIGHT * ring, np.float32)


def _box_size(width: float, height: float, times: float) -> tuple[int, int]:
    return max(1, 2 * round((times * width - 1) / 2) + 1), max(1, 2 * round((times * height - 1) / 2) + 1)


def _candidate(
    window: _Window, peak: tuple[int, int], stride: float, frame_scale: float, threshold: float
) -> Candidate:
    """Centre and box about a window's peak.

    The centre is the soft-argmax of the similarity inside the window. The box is the window where depth tells the
    object's size; else that of the connected component above the threshold when its size is believable.
    """
    similarity = window.similarity
    half_h, half_w = (max(1, round(n / 2)) for n in window.size_hw)
    rows = np.arange(max(0, peak[0] - half_h), min(similarity.shape[0], peak[0] + half_h + 1))
    columns = np.arange(max(0, peak[1] - half_w), min(similarity.shape[1], peak[1] + half_w + 1))
    weight = np.exp(similarity[np.ix_(rows, columns)] * SHARPNESS)
    row, column = (
        (weight.sum(axis=1) * rows).sum() / weight.sum(),
        (weight.sum(axis=0) * columns).sum() / weight.sum(),
    )
    component = None
    if not window.is_known_size:
        component = _component_box(similarity, (rows, columns), threshold, max(window.size_hw))
    x, y, w, h = component or (
        column - window.size_hw[1] / 2,
        row - window.size_hw[0] / 2,
        *window.size_hw[::-1],
    )
    cell = stride / frame_scale  # pixels of the frame; boxes run from edge to edge, of cells as of pixels
    return Candidate(
        ((x + 0.5) * cell - 0.5, (y + 0.5) * cell - 0.5, w * cell, h * cell),
        float(window.scores[peak]),
        (float((column + 0.5) * cell - 0.5), float((row + 0.5) * cell - 0.5)),
    )


def _component_box(
    similarity: Float32Array,
    window: tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]],
    threshold: float,
    side: float,
) -> BoxXywh | None:
    """Box in cells (edges at halves) of the component with the window's best cell, None if not believable."""
    rows, columns = window
    best = np.unravel_index(int(similarity[np.ix_(rows, columns)].argmax()), (len(rows), len(columns)))
    _, labels = cv2.connectedComponents((similarity > threshold).astype(np.uint8))
    label = labels[rows[best[0]], columns[best[1]]]
    box = box_from_mask(labels == label) if label else None
    if box is None or not BELIEVABLE_SIDE[0] <= max(box[2:]) / side <= BELIEVABLE_SIDE[1]:
        return None
    return box
