"""The least-squares similarity between corresponding points, in closed form."""

from __future__ import annotations

import numpy as np

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.types import Float64Array, SimilarityPose

MIN_SPREAD = 1e-6  # second singular value over the first: below it the points lie on a line


def umeyama(
    points_src: Float64Array, points_dst: Float64Array, weights: Float64Array | None = None, with_scale: bool = True
) -> SimilarityPose:
    """The rotation, translation and scale with ``points_dst ~ R @ (s * points_src) + t``; never a reflection.

    S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    equations 40 to 43, with a weight per pair.

    Args:
        points_src: (N, 3).
        points_dst: (N, 3).
        weights: (N,) not negative, or None for equal ones.
        with_scale: False keeps the scale at 1.

    Raises:
        ShapeError: wrong shapes, fewer than three pairs of positive weight, or points on a line.
    """
    if points_src.shape != points_dst.shape or points_src.ndim != 2 or points_src.shape[1] != 3:
        raise ShapeError("corresponding points", got=(points_src.shape, points_dst.shape), expected="(N, 3) twice")
    w = np.ones(len(points_src)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(points_src),) or (w < 0).any():
        raise ShapeError("weights", got=w.shape, expected=f"({len(points_src)},), none negative")
    if np.count_nonzero(w) < 3:
        raise ShapeError("corresponding points", got=np.count_nonzero(w), expected="at least 3 of positive weight")
    w = w / w.sum()
    mean_src, mean_dst = w @ points_src, w @ points_dst
    src, dst = points_src - mean_src, points_dst - mean_dst
    covariance = dst.T @ (w[:, None] * src)
    if not _spans_a_plane(np.sqrt(w)[:, None] * src) or not _spans_a_plane(np.sqrt(w)[:, None] * dst):
        raise ShapeError("corresponding points", got="points on one line", expected="points that span a plane")
    R, singular = _rotations(covariance[None])
    scale = float(singular[0].sum() / (w @ (src**2).sum(axis=1))) if with_scale else 1.0
    return SimilarityPose(R[0], mean_dst - scale * R[0] @ mean_src, scale)


def umeyama_many(
    points_src: Float64Array, points_dst: Float64Array, scale: float | None = None
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """The same for many small sets at once, unweighted and unchecked: a degenerate set gives a useless answer.

    Args:
        points_src: (M, K, 3).
        points_dst: (M, K, 3).
        scale: known scale, or None.

    Returns:
        R (M, 3, 3), t (M, 3) and s (M,) with ``points_dst ~ s * R @ points_src + t``.
    """
    mean_src, mean_dst = points_src.mean(axis=1), points_dst.mean(axis=1)
    src, dst = points_src - mean_src[:, None], points_dst - mean_dst[:, None]
    R, singular = _rotations(np.matmul(dst.transpose(0, 2, 1), src))
    variance = np.maximum((src**2).sum(axis=(1, 2)), 1e-12)
    s = singular.sum(axis=1) / variance if scale is None else np.full(len(src), scale)
    return R, mean_dst - s[:, None] * (R @ mean_src[..., None])[..., 0], s


def squared_residuals(
    R: Float64Array, t: Float64Array, s: Float64Array, points_src: Float64Array, points_dst: Float64Array
) -> Float64Array:
    """(M, N): ``|dst - s R src - t|^2`` of M similarities and N pairs, expanded into a single matrix product."""
    middle = points_dst.mean(axis=0)  # keeps the terms small: they cancel
    src, t, dst = points_src, t - middle, points_dst - middle
    sR = s[:, None, None] * R
    per_similarity = [-2 * sR.reshape(-1, 9), (s**2)[:, None], 2 * np.einsum("mi,mij->mj", t, sR), -2 * t]
    per_pair = [(dst[:, :, None] * src[:, None, :]).reshape(-1, 9), (src**2).sum(axis=1, keepdims=True), src, dst]
    product = np.concatenate(per_similarity, axis=1) @ np.concatenate(per_pair, axis=1).T
    result: Float64Array = np.maximum(product + (t**2).sum(axis=1)[:, None] + (dst**2).sum(axis=1), 0.0)
    return result


def _rotations(covariances: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Best rotation of each (M, 3, 3) sum of ``dst @ src.T``; the singular values, the last signed as in eq. 43."""
    U, singular, Vt = np.linalg.svd(covariances)
    sign = np.where(np.linalg.det(U) * np.linalg.det(Vt) < 0, -1.0, 1.0)
    U[:, :, 2] *= sign[:, None]
    singular[:, 2] *= sign
    return U @ Vt, singular


def _spans_a_plane(centred: Float64Array) -> bool:
    singular = np.linalg.svd(centred, compute_uv=False)
    return bool(singular[1] > MIN_SPREAD * singular[0])
