"""From correspondences and clouds to a pose: RANSAC around Umeyama, then ICP against the object's cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import small_gicp

from nocsfm_ros.config import RegistrationConfig
from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.camera import backproject
from nocsfm_ros.geometry.transforms import invert, motion_between, moved, nearest_rotation, transform
from nocsfm_ros.geometry.umeyama import squared_residuals, umeyama, umeyama_many
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, SimilarityPose

MIN_INLIERS = 6
MIN_ICP_POINTS = 11  # small_gicp refuses fewer, with words on the console
SCALE_RANGE = 3.0  # a sampled scale further than this factor from the ratio of the clouds' spreads is nonsense
MAD_CUT = 3.0 * 1.4826  # three standard deviations of a Gaussian, from the median absolute deviation
EDGE_JUMP_M, EDGE_JUMP_SHARE = 0.01, 0.02  # steeper inside 3x3 pixels is a depth edge: flying pixels live there
MIN_INLIER_DISTANCE_M = 0.004  # depth cameras are no better than this at arm's length
DEPTH_NOISE = 0.006  # metres at one metre, growing with the square: three deviations of an Xtion or a D435
MAX_CLOUD_POINTS, NORMAL_NEIGHBOURS = 4000, 20
MAX_LIVE_POINTS, LIVE_NEIGHBOURS = 600, 15  # more live points cost time and give no better poses
MAX_SCORED = 300
BEHIND = 0.3  # cosine of normal and viewing ray above which a point is seen from behind: normals are noisy
NEW_SIDE_SCORE = 0.5  # of a point of which nothing is known: between one that fits and one that does not
ICP_PASSES = ((1.0, 15), (1 / 3, 10), (1 / 7, 10))  # (share of icp_distance, most iterations)
NORMAL_NOISE = 0.06  # rad, of normals estimated on depth: motions seen only through it are not seen at all
MIN_SIGMA_M = 0.0005
# Error of a predicted pose, of scale_m and in rad: wide, so that whatever is measured at all wins
EXPECTED_SHIFT, EXPECTED_TURN = 0.1, np.radians(10)
# Errors of neighbouring depth pixels are alike: so many points say as much as one. Over 3815 tracked poses of rendered
# videos (within 10 deg) the median squared error was 14 times what independent points would give.
ALIKE_POINTS = 14.0


class ObjectCloud:
    """The object's known surface, thinned, with normals and a search tree, built once and asked often.

    Args:
        points_obj: (N, 3) metres in the object frame.
        voxel_m: grid on which the points are averaged; made coarser for clouds over MAX_CLOUD_POINTS.
        viewpoints_obj: (N, 3) the camera position from which each point was seen. With it the normals point to the
            side that was seen, and a pose that shows the camera the unseen side gets no inliers there.
            None: normals point away from the cloud's middle, and say nothing about poses.

    Raises:
        ShapeError: not (N, 3), or empty.
    """

    def __init__(
        self, points_obj: Float64Array, voxel_m: float = RegistrationConfig.icp_voxel_m,
        viewpoints_obj: Float64Array | None = None,
    ) -> None:
        if points_obj.ndim != 2 or points_obj.shape[1] != 3 or len(points_obj) == 0:
            raise ShapeError("object cloud", got=points_obj.shape, expected="(N, 3), N > 0")
        thinned, self.voxel_m = _thinned(points_obj, voxel_m, MAX_CLOUD_POINTS)
        self.has_viewpoints = viewpoints_obj is not None
        self.tree = small_gicp.KdTree(thinned)
        small_gicp.estimate_normals_covariances(thinned, self.tree, NORMAL_NEIGHBOURS)
        self.icp_target = thinned
        self.points_obj: Float64Array = np.array(thinned.points()[:, :3])
        normals = np.array(thinned.normals()[:, :3])
        if viewpoints_obj is None:
            outward = self.points_obj - self.points_obj.mean(axis=0)
        else:
            nearest, _ = small_gicp.KdTree(points_obj).batch_knn_search(self.points_obj, 1)
            outward = viewpoints_obj[nearest[:, 0].astype(np.int64)] - self.points_obj
        self.normals_obj: Float64Array = np.where(((normals * outward).sum(axis=1) < 0)[:, None], -normals, normals)

    def nearest(self, points_obj: Float64Array) -> tuple[npt.NDArray[np.int64], Float64Array]:
        """Index of and distance in metres to the nearest cloud point of each of (N, 3) points."""
        index, squared = self.tree.batch_knn_search(points_obj, 1)
        return index[:, 0].astype(np.int64), np.sqrt(squared[:, 0])

    def turns_away(self, index: npt.NDArray[np.int64], pose: SimilarityPose, points_cam: Float64Array) -> BoolArray:
        """Whether a camera that sees the points (N, 3) sees the cloud's points of that index (N,) from behind."""
        normals_cam = self.normals_obj[index] @ pose.R_cam_obj.T
        result: BoolArray = (normals_cam * points_cam).sum(axis=1) > BEHIND * np.linalg.norm(points_cam, axis=1)
        return result


@dataclass(frozen=True)
class Registration:
    """A pose and how well the live points support it.

    Attributes:
        pose: object in the camera.
        inlier_ratio: share of the live points within the inlier distance of the cloud.
        residual_m: RMS distance of those points to the cloud, metres.
        covariance: (6, 6) of (x, y, z, rot_x, rot_y, rot_z) along the camera's axes about the object's origin,
            m and rad.
    """

    pose: SimilarityPose
    inlier_ratio: float
    residual_m: float
    covariance: Float64Array


def object_points(
    depth_m: Float32Array, mask: BoolArray, K: Float64Array, config: RegistrationConfig
) -> tuple[Float64Array, npt.NDArray[np.int64]]:
    """The trustworthy points of a masked object: no mask border, no depth edge, no stray range.

    Args:
        depth_m: (H, W) metres, 0 = invalid.
        mask: (H, W) bool.
        K: (3, 3) of that picture.

    Returns:
        points_cam (N, 3) metres and pixels_uv (N, 2), at most `config.max_points` (a seeded choice).
    """
    kernel = np.ones((3, 3), np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    if 4 * eroded.sum() >= mask.sum():  # a pen has no inside
        mask = eroded
    smooth = mask & _is_smooth(depth_m)
    if 4 * smooth.sum() < (mask & (depth_m > 0)).sum():  # all of it is an edge to what lies behind
        smooth = mask & _is_smooth(np.where(mask, depth_m, np.float32(0)))
    points_cam, pixels_uv = backproject(depth_m, K, smooth)
    if len(points_cam) == 0:
        return points_cam, pixels_uv
    offset = np.abs(points_cam - np.median(points_cam, axis=0))
    # never cut nearer than the object is wide: a spout in front of a flat side is no outlier
    reach = np.maximum(MAD_CUT * np.median(offset[:, 2]), np.percentile(np.linalg.norm(offset[:, :2], axis=1), 95))
    kept = np.flatnonzero(offset[:, 2] <= reach)
    if len(kept) > config.max_points:
        kept = np.sort(np.random.default_rng(config.seed).choice(kept, config.max_points, replace=False))
    return points_cam[kept], pixels_uv[kept]


def _is_smooth(depth_m: Float32Array) -> BoolArray:
    """(H, W) bool: within 3x3 pixels no depth is much farther than another; 0 is none."""
    kernel = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(depth_m, kernel)
    lowest = cv2.erode(np.where(depth_m > 0, depth_m, np.float32(np.inf)), kernel)
    return np.asarray(highest - lowest <= EDGE_JUMP_M + EDGE_JUMP_SHARE * depth_m)


def ransac_umeyama(
    points_nocs: Float64Array, points_cam: Float64Array, weights: Float64Array, config: RegistrationConfig,
    scale_m: float | None = None,
) -> SimilarityPose | None:
    """The pose most correspondences agree on: all three-point samples at once, best re-fitted on its inliers.

    M. Fischler and R. Bolles, "Random sample consensus", CACM 1981; samples scored by the truncated square of
    P. Torr and A. Zisserman, "MLESAC", CVIU 2000.

    Args:
        points_nocs: (N, 3) coordinates, centred.
        points_cam: (N, 3) metres.
        weights: (N,) not negative: how often a pair is sampled and how much it counts.
        scale_m: known metres per NOCS unit, or None to estimate it.

    Returns:
        The pose, or None when fewer than MIN_INLIERS pairs agree.

    Raises:
        ShapeError: wrong shapes.
    """
    if points_nocs.shape != points_cam.shape or points_cam.ndim != 2 or points_cam.shape[1] != 3 or (
        np.shape(weights) != (len(points_cam),)
    ):
        raise ShapeError("correspondences", got=(points_nocs.shape, points_cam.shape, np.shape(weights)),
                         expected="(N, 3), (N, 3) and (N,)")
    if np.count_nonzero(weights > 0) < MIN_INLIERS:
        return None
    samples = _sample_triplets(weights, config)
    R, t, scale = umeyama_many(points_nocs[samples], points_cam[samples], scale_m)
    spread_ratio = _spread(points_cam) / max(_spread(points_nocs), 1e-9) if scale_m is None else scale_m
    radius_m = config.ransac_threshold * np.clip(scale, spread_ratio / SCALE_RANGE, spread_ratio * SCALE_RANGE)
    squared = squared_residuals(R, t, scale, points_nocs, points_cam)
    score = np.maximum(0.0, 1.0 - squared / radius_m[:, None] ** 2) @ weights
    best = int(np.argmax(score))
    return _refit(squared[best], float(radius_m[best]), points_nocs, points_cam, weights, scale_m)


def score_pose(
    pose: SimilarityPose, points_cam: Float64Array, cloud: ObjectCloud, config: RegistrationConfig
) -> float:
    """Share of (at most MAX_SCORED of) the live points that lie on the cloud under this pose, [0, 1]."""
    distance = _distances(pose, points_cam[:: 1 + len(points_cam) // MAX_SCORED], cloud)
    return float((distance <= _inlier_distance_m(pose, cloud, config)).mean()) if len(distance) else 0.0


def best_pose(
    hypotheses: Sequence[SimilarityPose], points_cam: Float64Array, cloud: ObjectCloud, config: RegistrationConfig,
    bonus: Callable[[SimilarityPose], float] = lambda pose: 0.0, num_refined: int = 3,
    is_new: Callable[[SimilarityPose, Float64Array], BoolArray] | None = None, near: SimilarityPose | None = None,
) -> Registration:
    """Score every hypothesis, refine the `num_refined` best, and take the one the live points fit best.

    Args:
        hypotheses: at least one, unless there is `near`.
        points_cam: (N, 3) metres, the live object.
        bonus: added to the score of a refined pose, which lies in [0, 1]: what shape alone cannot tell.
        num_refined: of the hypotheses.
        is_new: which points (M, 3) a pose puts on sides not seen yet; they count for every pose alike.
        near: a pose that is nearly right. It is refined whatever its score, as shape cannot tell every turn, and
            without the first wide radius, in which a hand would draw it aside.

    Raises:
        ShapeError: no hypothesis or no point.
    """
    if (not hypotheses and near is None) or len(points_cam) == 0:
        raise ShapeError("hypotheses and live points", got=(len(hypotheses), len(points_cam)), expected="at least one")
    some = points_cam[:: 1 + len(points_cam) // MAX_SCORED]

    def fit(pose: SimilarityPose, radius_m: float) -> float:
        scores = _robust_scores(_distances(pose, some, cloud), radius_m)
        return float((scores if is_new is None else np.where(is_new(pose, some), NEW_SIDE_SCORE, scores)).mean())

    def coarse(pose: SimilarityPose) -> float:
        return fit(pose, config.icp_distance * pose.scale_m)

    def fine(result: Registration) -> float:
        return fit(result.pose, _inlier_distance_m(result.pose, cloud, config)) + bonus(result.pose)

    live = _live_cloud(points_cam, cloud, config)
    results = [
        _refined(pose, live, cloud, config) for pose in sorted(hypotheses, key=coarse, reverse=True)[:num_refined]
    ]
    if near is not None:
        results.append(_refined(near, live, cloud, config, ICP_PASSES[1:]))
    return max(results, key=fine)


def refine(
    pose: SimilarityPose, points_cam: Float64Array, cloud: ObjectCloud, config: RegistrationConfig
) -> Registration:
    """Generalized ICP of the live points to the cloud, coarse to fine; the start is kept if it fits better.

    A. Segal, D. Haehnel and S. Thrun, "Generalized-ICP", RSS 2009, by small_gicp: plane to plane. Point to plane loses
    a fifth of the poses it is started at on partial views of household meshes, this a tenth.
    Live points that find no cloud point inside the radius (surface never seen before) do not count.

    Args:
        pose: start; its scale is kept.
        points_cam: (N, 3) metres, the live object.

    Raises:
        ShapeError: points are not (N, 3), or none.
    """
    return _refined(pose, _live_cloud(points_cam, cloud, config), cloud, config)


def held_to(found: Registration, expected: SimilarityPose) -> Registration:
    """The pose found, but along what was not measured (the spin of a plain can) the expected one: no jumps, no flips.

    Kalman's update of an expected pose that is unsure by EXPECTED_SHIFT and EXPECTED_TURN. The covariance stays that of
    the measurement: what the frame does not show is still unknown.
    """
    motion = motion_between(found.pose.T_cam_obj, expected.T_cam_obj)
    unsure = np.diag([(EXPECTED_SHIFT * expected.scale_m) ** 2] * 3 + [EXPECTED_TURN**2] * 3)
    T_cam_obj = moved(found.pose.T_cam_obj, found.covariance @ np.linalg.inv(found.covariance + unsure) @ motion)
    return replace(found, pose=SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], found.pose.scale_m))


def _live_cloud(points_cam: Float64Array, cloud: ObjectCloud, config: RegistrationConfig) -> small_gicp.PointCloud:
    if points_cam.ndim != 2 or points_cam.shape[1] != 3 or len(points_cam) == 0:
        raise ShapeError("live points", got=points_cam.shape, expected="(N, 3), N > 0")
    thinned, _ = _thinned(points_cam, max(config.icp_voxel_m, cloud.voxel_m), MAX_LIVE_POINTS)
    if thinned.size() >= MIN_ICP_POINTS:
        small_gicp.estimate_normals_covariances(thinned, num_neighbors=LIVE_NEIGHBOURS)
    return thinned


def _thinned(points: Float64Array, voxel_m: float, most: int) -> tuple[small_gicp.PointCloud, float]:
    """The points averaged on a grid, and the grid's voxel: made coarser until at most `most` are left."""
    thinned = small_gicp.voxelgrid_sampling(points, voxel_m)
    while thinned.size() > most:  # points of a surface go with the square of the voxel
        voxel_m *= 1.05 * float(np.sqrt(thinned.size() / most))
        thinned = small_gicp.voxelgrid_sampling(points, voxel_m)
    return thinned, voxel_m


def _refined(
    pose: SimilarityPose, live: small_gicp.PointCloud, cloud: ObjectCloud, config: RegistrationConfig,
    passes: Sequence[tuple[float, int]] = ICP_PASSES,
) -> Registration:
    points_cam = live.points()[:, :3]
    T_obj_cam = invert(pose.T_cam_obj)
    enough = min(live.size(), cloud.icp_target.size()) >= MIN_ICP_POINTS
    for share, iterations in passes if enough else ():
        T_obj_cam = small_gicp.align(
            cloud.icp_target, live, cloud.tree, T_obj_cam, registration_type="GICP",
            max_correspondence_distance=max(share * config.icp_distance * pose.scale_m, 2 * cloud.voxel_m),
            max_iterations=iterations, rotation_epsilon=5e-4, translation_epsilon=1e-4,
        ).T_target_source
    refined = pose
    if np.isfinite(T_obj_cam).all():
        T_cam_obj = invert(T_obj_cam)
        refined = SimilarityPose(nearest_rotation(T_cam_obj[:3, :3]), T_cam_obj[:3, 3], pose.scale_m)
    radius_m = _inlier_distance_m(pose, cloud, config)
    before, after = _distances(pose, points_cam, cloud), _distances(refined, points_cam, cloud)
    if _robust_scores(before, radius_m).mean() > _robust_scores(after, radius_m).mean():
        refined, after = pose, before
    inlier = after <= radius_m
    return Registration(
        pose=refined, inlier_ratio=float(inlier.mean()),
        residual_m=float(np.sqrt((after[inlier] ** 2).mean())) if inlier.any() else 0.0,
        covariance=_covariance(refined, points_cam[inlier], cloud),
    )


def _sample_triplets(weights: Float64Array, config: RegistrationConfig) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(config.seed)
    chance = np.cumsum(weights, dtype=np.float64)
    drawn = rng.random((config.ransac_iterations, 3)) * chance[-1]
    index: npt.NDArray[np.int64] = np.searchsorted(chance, drawn, side="right")
    return np.minimum(index, len(weights) - 1)


def _refit(
    squared: Float64Array, radius_m: float, src: Float64Array, dst: Float64Array, weights: Float64Array,
    scale_m: float | None,
) -> SimilarityPose | None:
    fixed = 1.0 if scale_m is None else scale_m
    pose = None
    for _ in range(3):
        residual = np.sqrt(squared)
        inlier = residual <= radius_m
        if inlier.sum() < MIN_INLIERS:
            return None
        inlier &= residual <= max(MAD_CUT * float(np.median(residual[inlier])), 0.1 * radius_m)
        try:
            fit = umeyama(fixed * src[inlier], dst[inlier], weights[inlier], with_scale=scale_m is None)
        except ShapeError:  # the inliers lie on a line
            return None
        pose = SimilarityPose(fit.R_cam_obj, fit.t_cam_obj, fixed * fit.scale_m)
        squared = ((dst - fit.t_cam_obj - pose.scale_m * src @ fit.R_cam_obj.T) ** 2).sum(axis=1)
    return pose


def _spread(points: Float64Array) -> float:
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def _inlier_distance_m(pose: SimilarityPose, cloud: ObjectCloud, config: RegistrationConfig) -> float:
    noise_m = DEPTH_NOISE * float(pose.t_cam_obj[2]) ** 2
    return max(config.inlier_distance * pose.scale_m, MIN_INLIER_DISTANCE_M, noise_m, cloud.voxel_m)


def _distances(pose: SimilarityPose, points_cam: Float64Array, cloud: ObjectCloud) -> Float64Array:
    """(N,) metres to the nearest cloud point, infinite where the camera would see that point from behind."""
    index, distance = cloud.nearest(transform(invert(pose.T_cam_obj), points_cam))
    if cloud.has_viewpoints:
        distance = np.where(cloud.turns_away(index, pose, points_cam), np.inf, distance)
    return distance


def _robust_scores(distance: Float64Array, radius_m: float) -> Float64Array:
    """1 - (d / radius)^2, not under 0: rewards near points, ignores far ones."""
    return np.maximum(0.0, 1.0 - (distance / radius_m) ** 2)


def _covariance(pose: SimilarityPose, points_cam: Float64Array, cloud: ObjectCloud) -> Float64Array:
    """(6, 6) inverse Hessian of the point-to-plane residuals, with what they cannot see left wide.

    A small motion (d, w) about the object's origin changes the residual ``n . (p - q)`` by ``[n, (p - t) x n]``.
    Normals are wrong by about NORMAL_NOISE, which makes a sphere look as if its spin were seen: that much is taken off
    every direction's information. A prior of one scale_m and half a turn bounds what is left.
    """
    prior = np.diag([pose.scale_m**-2] * 3 + [np.pi**-2] * 3)
    if len(points_cam) == 0:
        return np.linalg.inv(prior)
    index, _ = cloud.nearest(transform(invert(pose.T_cam_obj), points_cam))
    normals = cloud.normals_obj[index] @ pose.R_cam_obj.T
    arms = points_cam - pose.t_cam_obj
    nearest_cam = transform(pose.T_cam_obj, cloud.points_obj[index])
    residual = ((points_cam - nearest_cam) * normals).sum(axis=1)
    sigma_m = max(1.4826 * float(np.median(np.abs(residual))), MIN_SIGMA_M)
    length_m = max(float(np.sqrt((arms**2).sum(axis=1).mean())), 1e-6)
    J = np.concatenate([normals, np.cross(arms, normals) / length_m], axis=1)
    information, directions = np.linalg.eigh(J.T @ J)
    information = np.maximum(information - len(J) * NORMAL_NOISE**2, 0.0) / (ALIKE_POINTS * sigma_m**2)
    units = np.diag([1.0] * 3 + [length_m] * 3)
    return np.linalg.inv(units @ (directions * information) @ directions.T @ units + prior)
