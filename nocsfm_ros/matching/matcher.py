"""Which cells look alike: similarity map, mutual nearest neighbours, point matches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array


def similarity_map(features_ref: Float32Array, features_frame: Float32Array) -> Float32Array:
    """How much a frame's cells look like any cell of the reference: ``S(u, v) = max_i cos(ref_i, frame_uv)``.

    Args:
        features_ref: (N, C) float32 of length 1.
        features_frame: (h, w, C) float32 of length 1.

    Returns:
        (h, w) float32 in [-1, 1].

    Raises:
        ShapeError: no reference features, or channels that differ.
    """
    _check(features_ref, features_frame.reshape(-1, features_frame.shape[-1]))
    height, width, channels = features_frame.shape
    best: Float32Array = (features_frame.reshape(-1, channels) @ features_ref.T).max(axis=1)
    return best.reshape(height, width)


def mutual_nearest_neighbours(a: Float32Array, b: Float32Array) -> tuple[npt.NDArray[np.intp], Float32Array]:
    """Pairs of rows that are each other's most similar.

    Args:
        a: (N, C) float32 of length 1.
        b: (M, C) float32 of length 1.

    Returns:
        (P, 2) int rows of a and b, in the order of a, and (P,) float32 cosine similarities.

    Raises:
        ShapeError: channels that differ.
    """
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.intp), np.zeros(0, np.float32)
    _check(a, b)
    similarity = a @ b.T
    nearest_b, nearest_a = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.flatnonzero(nearest_a[nearest_b] == np.arange(len(a)))
    pairs = np.stack([rows, nearest_b[rows]], axis=1)
    return pairs, similarity[pairs[:, 0], pairs[:, 1]]


def mean_cosine(a: Float32Array, b: Float32Array) -> float:
    """Mean cosine of the rows of (N, C) and (N, C), each with its own in the other."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())


def centred_cosine(a: Float32Array, b: Float32Array) -> float:
    """The same after each side's own mean is taken out: not what kind of thing it is, but where its parts are."""
    return mean_cosine(a - a.mean(axis=0), b - b.mean(axis=0))


def match_points(
    features_ref: FeatureMap,
    mask_ref: BoolArray,
    features_live: FeatureMap,
    mask_live: BoolArray | None = None,
) -> tuple[Float64Array, Float64Array, Float32Array]:
    """Pixels of two pictures that show the same point.

    Args:
        features_ref: of the reference picture.
        mask_ref: (H, W) bool of the reference picture: only its cells are matched.
        features_live: of the live picture.
        mask_live: (H, W) bool of the live picture, or None for all of it.

    Returns:
        (P, 2) float64 pixels of the reference, (P, 2) float64 pixels of the live picture, (P,) float32 cosine
        similarities. Live pixels are refined to a part of a cell; P may be 0.
    """
    cells_ref, cells_live = _cells(features_ref, mask_ref), _cells(features_live, mask_live)
    rows_ref = features_ref.features[cells_ref[:, 1], cells_ref[:, 0]]
    rows_live = features_live.features[cells_live[:, 1], cells_live[:, 0]]
    pairs, similarity = mutual_nearest_neighbours(rows_ref, rows_live)
    refined = _refined_cells(features_live.features, cells_live[pairs[:, 1]], rows_ref[pairs[:, 0]])
    return (
        features_ref.pixels_from_cells(cells_ref[pairs[:, 0]].astype(np.float64)),
        features_live.pixels_from_cells(refined),
        similarity,
    )


def cell_mask(features: FeatureMap, mask: BoolArray) -> BoolArray:
    """(h, w) bool: the cells whose middle pixel is in a (H, W) bool mask of the same picture."""
    rows, columns = features.features.shape[:2]
    middle = features.pixels_from_cells(np.arange(max(rows, columns))[:, None])[:, 0].round().astype(int)
    v, u = np.minimum(middle[:rows], mask.shape[0] - 1), np.minimum(middle[:columns], mask.shape[1] - 1)
    result: BoolArray = mask[np.ix_(v, u)]
    return result


def _cells(features: FeatureMap, mask: BoolArray | None) -> npt.NDArray[np.intp]:
    """(N, 2) column and row of the cells in a mask."""
    chosen = np.ones(features.features.shape[:2], bool) if mask is None else cell_mask(features, mask)
    return np.argwhere(chosen)[:, ::-1]


def _refined_cells(
    features: Float32Array, cells_uv: npt.NDArray[np.intp], wanted: Float32Array
) -> Float64Array:
    """(P, 2) whole cells -> the top of the parabola through its similarity and its neighbours'."""
    height, width = features.shape[:2]
    refined = cells_uv.astype(np.float64)
    for axis, size in ((0, width), (1, height)):
        step = np.eye(2, dtype=np.intp)[axis]
        before, after = np.maximum(cells_uv - step, 0), np.minimum(cells_uv + step, (width - 1, height - 1))
        low, middle, high = (
            np.einsum("pc,pc->p", features[cell[:, 1], cell[:, 0]], wanted)
            for cell in (before, cells_uv, after)
        )
        bend = low - 2 * middle + high
        inside = (cells_uv[:, axis] > 0) & (cells_uv[:, axis] < size - 1) & (bend < -1e-6)
        offset = np.where(inside, 0.5 * (low - high) / np.where(inside, bend, 1.0), 0.0)
        refined[:, axis] += np.clip(offset, -0.5, 0.5)
    return refined


def _check(a: Float32Array, b: Float32Array) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a):
        raise ShapeError(
            "features", got=(a.shape, b.shape), expected="(N, C) and (M, C) with the same C and N > 0"
        )
