"""The motions of an object that shape cannot see (a can about its axis), from its colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.linalg import block_diag

from nocsfm_ros.geometry.crops import blurred, resized_mask
from nocsfm_ros.geometry.transforms import motion_between, moved
from nocsfm_ros.object_model import View
from nocsfm_ros.registration import Registration
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, ObjectCrop, SimilarityPose, Uint8Array
from nocsfm_ros.verification import seen_points

MIN_POINTS = 20
MAX_STEPS = 5
STILL = 1e-3  # rad, and share of scale_m: a smaller step ends the search
BLUR = 1.0  # pixels of the crop
# Lightness is moved by shading where the object turns, its ratios of colours hardly: less weight for the first
DEVIATION = np.array([1.0, 0.25, 0.25], np.float32)
DARKNESS = 0.04  # of the picture's median: what is darker is noise, whose logarithm would count
OUTLIER = 1.5  # deviations, P. Huber's
MAX_RESIDUAL = 3.0  # deviations, when two poses are compared
# Neighbouring pixels err alike, in shading above all: so many say as much as one, by 117 held-out renders
ALIKE_PIXELS = 100.0
MIN_DEVIATION = 0.05
NOISE_SLOPE = 0.7  # squared slope, both ways, of blurred noise of deviation 1
PLAIN, NOISE = 0.1, 0.02  # squared deviations: a weaker pattern says nothing; and what is none at all
MIN_SEEN = 0.6  # of the points: a pose that turns them away is no better match
MIN_GAIN = 0.05  # deviations: plain things fit anywhere, and a smaller gain is no reason to leave what shape says,
MEASURED = 1.0  # unless the colours see the motion: its square over their own variance
UNSEEN = np.radians(60)  # a deviation larger than this says that shape does not see a motion at all
MIN_TURN = 0.5  # share of turn in that motion: a plane sliding in itself is not swept
SWEEP = np.radians([*range(-30, 0, 5), *range(5, 31, 5)])
MAX_POINTS = 400
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]], np.float32)
_GAMMA = 2.2


def log_opponent(rgb: Uint8Array, mask: BoolArray | None = None) -> Float32Array:
    """(H, W, 3) uint8 -> (H, W, 3) logarithms of lightness, red : green and yellow : blue, slightly blurred.

    Another lamp or exposure adds the same number to all pixels of a channel. `mask`: where the object is, see blurred.
    """
    linear = blurred(rgb, mask, BLUR) ** _GAMMA
    floor = DARKNESS * max(float(np.median(linear)), 0.02)
    return np.asarray(np.log(linear + floor) @ _OPPONENT.T, np.float32)


@dataclass(frozen=True)
class Comparison:
    """The views' points that are seen under a pose.

    Attributes:
        points_cam: (N, 3) metres.
        pixels_uv: (N, 2) in the crop.
        shadings: (N, M) orthonormal columns: the lamp and the slopes across the object, of each view.
        residuals: (N, 3) differences in colour, the shadings taken out, deviations.
        colours: (N, 3) of the views, likewise.
        seen: share of the views' points, [0, 1].
    """

    points_cam: Float64Array
    pixels_uv: Float32Array
    shadings: Float64Array
    residuals: Float32Array
    colours: Float32Array
    seen: float

    @property
    def misfit(self) -> float:
        """How badly the colours fit, deviations."""
        return float(np.abs(self.residuals).clip(0, MAX_RESIDUAL).mean())

    @property
    def correlation(self) -> float | None:
        """How much of one pattern the colours share, [-1, 1]; None for plain things, which fit anywhere."""
        looks = [values.clip(-MAX_RESIDUAL, MAX_RESIDUAL) for values in (self.colours, self.colours + self.residuals)]
        remembered, live = (look - look.mean(axis=0) for look in looks)
        pattern = float(np.square(remembered).mean())
        if pattern < PLAIN:
            return None
        return float((remembered * live).mean() / (np.sqrt(pattern * np.square(live).mean()) + NOISE))


class ColourPicture:
    """A crop's colours and their slopes.

    Args:
        crop: the live one, or a view's.
        mask: (S, S) bool, the object in it, as far as is known.
    """

    def __init__(self, crop: ObjectCrop, mask: BoolArray | None = None) -> None:
        self.crop = crop
        self.look = log_opponent(crop.rgb, mask)
        self.slopes = [  # per pixel along u and v
            np.asarray(cv2.Scharr(self.look, -1, *axis) / 32, np.float32) for axis in ((1, 0), (0, 1))
        ]

    @classmethod
    def of_view(cls, view: View) -> ColourPicture:
        """Of a view that others are compared with."""
        return cls(view.crop, resized_mask(view.feature_mask, view.crop))

    def compare(self, views: Sequence[View], pose: SimilarityPose) -> Comparison | None:
        """Residuals of one or more views, what another lamp explains taken out.

        Views with fewer than MIN_POINTS seen points are left out; None where none is left.
        """
        parts, num_points = list[tuple[Float64Array, Float32Array, Float32Array, Float32Array]](), 0
        bases: list[Float64Array] = []
        for view in views:
            step = 1 + len(view.colours) // MAX_POINTS
            points_cam, pixels_uv, seen = seen_points(pose, view.colour_points_obj[::step], self.crop)
            if seen.sum() < MIN_POINTS:
                continue
            pixels = pixels_uv[seen].astype(np.float32)
            colours = view.colours[::step][seen]
            shadings = _shadings(points_cam[seen])
            residuals = _unshaded(_sampled(self.look, pixels) - colours, shadings)
            parts.append((points_cam[seen], pixels, residuals, _unshaded(colours, shadings)))
            bases.append(shadings)
            num_points += len(seen)
        if not parts:
            return None
        points_cam, pixels, residuals, colours = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Comparison(
            points_cam, pixels, block_diag(*bases), residuals, colours, len(points_cam) / num_points
        )

    def normal_equations(
        self, compared: Comparison, pose: SimilarityPose, trust: Float64Array | float = 1.0
    ) -> tuple[Float64Array, Float64Array]:
        """(6, 6) information and (6,) gradient of a small motion, shift and turn about the object's origin.

        A motion whose effect the shadings could have as well measures nothing.

        `trust`: of each channel's slopes (3,), see trust.
        """
        (x, y, z), K = compared.points_cam.T, self.crop.K_crop
        zero = np.zeros_like(z)
        du = np.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2], axis=1)
        dv = np.stack([zero, K[1, 1] / z, -K[1, 1] * y / z**2], axis=1)
        along_u, along_v = (slope * np.sqrt(trust) for slope in self._slopes_at(compared))
        by_shift = along_u[:, :, None] * du[:, None] + along_v[:, :, None] * dv[:, None]  # (N, channel, xyz)
        by_turn = np.cross((compared.points_cam - pose.t_cam_obj)[:, None], by_shift)
        J = np.concatenate([by_shift, by_turn], axis=2)
        flat = J.reshape(len(J), -1)
        J = (flat - compared.shadings @ (compared.shadings.T @ flat)).reshape(-1, 6)
        r = compared.residuals.reshape(-1).astype(np.float64)
        variance = max(1.4826 * float(np.median(np.abs(r))), MIN_DEVIATION) ** 2
        weights = np.minimum(1.0, OUTLIER / np.maximum(np.abs(r), 1e-9)) / (ALIKE_PIXELS * variance)
        weighted = J * weights[:, None]
        return weighted.T @ J, weighted.T @ r

    def trust(self, compared: Comparison) -> Float64Array:
        """(3,) the share of each channel's squared slopes that noise of the residuals' size would not have made."""
        deviation = 1.4826 * np.median(np.abs(compared.residuals), axis=0)
        steepness = np.square(self._slopes_at(compared)).sum(axis=0).mean(axis=0)
        share: Float64Array = np.clip(1 - NOISE_SLOPE * deviation**2 / np.maximum(steepness, 1e-12), 0.0, 1.0)
        return share

    def _slopes_at(self, compared: Comparison) -> list[Float32Array]:
        return [_sampled(slope, compared.pixels_uv) / DEVIATION for slope in self.slopes]


def align_colours(start: Registration, views: Sequence[View], picture: ColourPicture) -> Registration:
    """Move a pose until the views' colours lie on the same ones, as far as shape leaves it free.

    Gauss-Newton on the photometric residuals of the views' points, with the shape's covariance as the prior: what ICP
    has measured stays, what it could not see follows the colours. After J. Park, Q. Zhou and V. Koltun, "Colored point
    cloud registration revisited", ICCV 2017, with the pictures' gradients in place of the clouds'.

    Args:
        start: by shape alone.
        views: where the colours come from.
        picture: the live one.

    Returns:
        The moved pose, or the start's where the colours would gain too little, with the covariance of shape and
        colours together; `start` where too few points are seen.
    """
    before = picture.compare(views, start.pose)
    if before is None:
        return start
    pose, last = _swept(start, before, views, picture)
    # what shape has not seen is as unknown after the sweep as before: no pull back to the start
    prior, motion = _inverse(start.covariance), np.zeros(6)
    for _ in range(MAX_STEPS):
        seen_information, gradient = picture.normal_equations(last, pose)
        step = -_inverse(seen_information + prior) @ (gradient + prior @ motion)
        pose, motion = _moved(pose, step), motion + step
        there = picture.compare(views, pose)
        if there is None:
            break
        last = there
        if max(np.abs(step[:3]).max() / pose.scale_m, np.abs(step[3:]).max()) < STILL:
            break
    measured = picture.normal_equations(last, pose, picture.trust(last))[0]
    motion = motion_between(start.pose.T_cam_obj, pose.T_cam_obj)
    needed_gain = 0.0 if motion @ measured @ motion > MEASURED else MIN_GAIN
    if there is None or not _is_better(last, before, needed_gain):
        pose, measured = start.pose, picture.normal_equations(before, start.pose, picture.trust(before))[0]
    # colours that agree with the start are as much of a measurement as colours that move it
    return replace(start, pose=pose, covariance=_inverse(measured + prior))


def _inverse(matrix: Float64Array) -> Float64Array:
    """np.linalg.inv, of whose result numpy's types only say that it is some float."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _swept(
    start: Registration, before: Comparison, views: Sequence[View], picture: ColourPicture
) -> tuple[SimilarityPose, Comparison]:
    """The pose of best fitting colours along the motion that shape sees least, where it does not see it at all."""
    units = np.diag([start.pose.scale_m / 2] * 3 + [1.0] * 3)  # a turn moves the surface about so far
    to_units = np.linalg.inv(units)
    variances, motions = np.linalg.eigh(to_units @ start.covariance @ to_units)
    twist = units @ motions[:, -1]
    if np.sqrt(variances[-1]) < UNSEEN or np.linalg.norm(twist[3:]) < MIN_TURN:
        return start.pose, before
    found = [(start.pose, before)]
    for angle in SWEEP:
        pose = _turned(start.pose, twist / np.linalg.norm(twist[3:]), angle)
        if (there := picture.compare(views, pose)) is not None and _is_better(there, before):
            found.append((pose, there))
    return min(found, key=lambda one: one[1].misfit)


def _is_better(now: Comparison, before: Comparison, gain: float = MIN_GAIN) -> bool:
    return now.misfit < before.misfit - gain and len(now.points_cam) > MIN_SEEN * len(before.points_cam)


def _turned(pose: SimilarityPose, twist: Float64Array, angle: float) -> SimilarityPose:
    """Along a screw: (shift, unit turn) about the object's origin, by an angle."""
    shift, axis = twist[:3], twist[3:]
    lever = -np.cross(axis, shift)  # from the screw's axis to the origin
    turned = cv2.Rodrigues(axis * angle)[0] @ lever - lever
    return _moved(pose, np.concatenate([turned + axis @ shift * angle * axis, axis * angle]))


def _moved(pose: SimilarityPose, motion: Float64Array) -> SimilarityPose:
    T_cam_obj = moved(pose.T_cam_obj, motion)
    return SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], pose.scale_m)


def _shadings(points_cam: Float64Array) -> Float64Array:
    """(N, 4) orthonormal: what another lamp can do to the logarithms of colours, a constant and slopes in space."""
    return np.asarray(np.linalg.qr(np.column_stack([np.ones(len(points_cam)), points_cam]))[0])


def _unshaded(colours: Float32Array, shadings: Float64Array) -> Float32Array:
    """(N, 3) without each channel's median and the shadings, deviations."""
    centred = (colours - np.median(colours, axis=0)) / DEVIATION
    return np.asarray(centred - shadings @ (shadings.T @ centred.clip(-MAX_RESIDUAL, MAX_RESIDUAL)), np.float32)


def _sampled(image: Float32Array, pixels_uv: Float32Array) -> Float32Array:
    """(N, C) bilinear values."""
    u, v = (np.ascontiguousarray(axis)[None] for axis in pixels_uv.T)
    return np.asarray(cv2.remap(image, u, v, cv2.INTER_LINEAR)[0], np.float32)
