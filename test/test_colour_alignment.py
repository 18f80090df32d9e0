"""A printed plane in front of the camera: shape sees neither its slide nor its turn in itself, its print both."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from nocsfm_ros.colour_alignment import MIN_GAIN, ColourPicture, align_colours, log_opponent
from nocsfm_ros.geometry.camera import backproject
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg, transform
from nocsfm_ros.registration import Registration
from nocsfm_ros.types import Float64Array, ObjectCrop, SimilarityPose, Uint8Array

SIDE, DEPTH_M, SCALE_M = 128, 0.5, 0.2
K = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1]])
TRUE = SimilarityPose(np.eye(3), np.array([0.0, 0, DEPTH_M]), SCALE_M)
SEES_ALL = np.diag([1e-4] * 3 + [1e-4] * 3) ** 2
SEES_NO_TURN = np.diag([1e-4] * 3 + [1e-4, 1e-4, np.pi]) ** 2
SEES_NO_SLIDE = np.diag([0.2, 0.2, 1e-4, 1e-4, 1e-4, 1e-4]) ** 2


def printed() -> Uint8Array:
    blobs = np.random.default_rng(0).uniform(40, 220, (12, 12, 3)).astype(np.float32)
    return np.asarray(cv2.resize(blobs, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255), np.uint8)


def crop_of(rgb: Uint8Array) -> ObjectCrop:
    return ObjectCrop(rgb, np.full((SIDE, SIDE), DEPTH_M, np.float32), np.eye(3), K)


def view_of(rgb: Uint8Array) -> Any:
    """The middle of the picture as the object's view at the TRUE pose."""
    grid = np.zeros((SIDE, SIDE), bool)
    grid[30:98:2, 30:98:2] = True
    points_cam, uv = backproject(crop_of(rgb).depth_m, K, grid)
    colours = log_opponent(rgb)[uv[:, 1], uv[:, 0]]
    return SimpleNamespace(colour_points_obj=transform(invert(TRUE.T_cam_obj), points_cam), colours=colours)


def started(turn_deg: float = 0.0, shift_m: float = 0.0, covariance: Float64Array = SEES_NO_TURN) -> Registration:
    R = np.asarray(cv2.Rodrigues(np.radians([0, 0, turn_deg]))[0], np.float64)
    return Registration(SimilarityPose(R, TRUE.t_cam_obj + [shift_m, 0, 0], SCALE_M), 1.0, 0.0, covariance)


def error_deg(found: Registration) -> float:
    return rotation_angle_deg(found.pose.R_cam_obj, TRUE.R_cam_obj)


@pytest.mark.parametrize("turn_deg", [-28.0, -4.0, 4.0, 21.0])
def test_turn_that_shape_does_not_see_follows_the_print(turn_deg: float) -> None:
    found = align_colours(started(turn_deg), [view_of(printed())], ColourPicture(crop_of(printed())))
    assert error_deg(found) < 0.5
    assert found.covariance[5, 5] < np.radians(5) ** 2 < SEES_NO_TURN[5, 5]


def test_slide_that_shape_does_not_see_follows_the_print() -> None:
    start = started(shift_m=0.006, covariance=SEES_NO_SLIDE)
    found = align_colours(start, [view_of(printed())], ColourPicture(crop_of(printed())))
    assert np.linalg.norm(found.pose.t_cam_obj - TRUE.t_cam_obj) < 0.0005


def test_what_shape_has_measured_stays() -> None:
    start = started(4.0, covariance=SEES_ALL)
    found = align_colours(start, [view_of(printed())], ColourPicture(crop_of(printed())))
    assert error_deg(found) == pytest.approx(4.0, abs=0.1)


def test_another_lamp_does_not_matter() -> None:
    lit = (printed() * np.array([0.5, 0.8, 0.9])).astype(np.uint8)
    assert error_deg(align_colours(started(4.0), [view_of(printed())], ColourPicture(crop_of(lit)))) < 1.0


def shaded(contrast: float, slope: float) -> Uint8Array:
    """The print, fainter, under a lamp that darkens it to one side."""
    faint = 110 + contrast * (printed().astype(np.float32) - 110)
    return np.asarray((faint * np.exp(np.linspace(-slope, slope, SIDE))[None, :, None]).clip(0, 255), np.uint8)


def test_faint_print_is_followed_through_another_shading() -> None:
    start = started(shift_m=-0.006, covariance=SEES_NO_SLIDE)
    found = align_colours(start, [view_of(shaded(0.1, -0.7))], ColourPicture(crop_of(shaded(0.1, 0.4))))
    assert np.linalg.norm(found.pose.t_cam_obj - TRUE.t_cam_obj) < 0.0005


def test_faint_print_is_followed_over_small_turns() -> None:
    """The colours fit hardly better than before, but they see the turn."""
    faint = shaded(0.1, 0.0)
    picture, views, start = ColourPicture(crop_of(faint)), [view_of(faint)], started(2.0)
    before, there = picture.compare(views, start.pose), picture.compare(views, TRUE)
    assert before is not None and there is not None and 0 < before.misfit - there.misfit < MIN_GAIN
    assert error_deg(align_colours(start, views, picture)) < 0.5


def test_plain_object_keeps_its_pose() -> None:
    plain = np.full((SIDE, SIDE, 3), 120, np.uint8)
    noisy = np.clip(plain + np.random.default_rng(0).normal(0, 4, plain.shape), 0, 255).astype(np.uint8)
    start = started(4.0)
    found = align_colours(start, [view_of(plain)], ColourPicture(crop_of(noisy)))
    assert found.pose is start.pose
    assert found.covariance[5, 5] > 0.3 * start.covariance[5, 5]  # noise says nothing of a turn


def test_colours_that_agree_with_the_start_are_a_measurement_of_it() -> None:
    found = align_colours(started(0.0), [view_of(printed())], ColourPicture(crop_of(printed())))
    assert error_deg(found) < 0.1 and found.covariance[5, 5] < np.radians(1) ** 2 < SEES_NO_TURN[5, 5]


def test_object_out_of_the_picture_keeps_its_pose() -> None:
    start = started(shift_m=5.0)
    assert align_colours(start, [view_of(printed())], ColourPicture(crop_of(printed()))) is start


def test_view_without_depth_keeps_the_pose() -> None:
    start, nothing = started(), view_of(printed())
    nothing.colour_points_obj, nothing.colours = nothing.colour_points_obj[:0], nothing.colours[:0]
    assert align_colours(start, [nothing], ColourPicture(crop_of(printed()))) is start


def test_misfit_of_the_true_pose_is_the_smallest() -> None:
    picture, views = ColourPicture(crop_of(printed())), [view_of(printed())]
    misfits = []
    for turn_deg in (0, 5, 10, 20):
        compared = picture.compare(views, started(turn_deg).pose)
        assert compared is not None
        misfits.append(compared.misfit)
    assert misfits[0] < 0.1 and misfits == sorted(misfits)


def test_correlation_is_near_one_under_another_lamp_and_none_of_a_plain_thing() -> None:
    lamp = np.asarray((printed() * np.array([0.9, 0.7, 0.5])).clip(0, 255), np.uint8)
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)

    def correlation(view: Any, picture: Uint8Array, turn_deg: float = 0.0) -> float | None:
        compared = ColourPicture(crop_of(picture)).compare([view], started(turn_deg).pose)
        assert compared is not None
        return compared.correlation

    assert (correlation(view_of(printed()), lamp) or 0) > 0.9
    assert abs(correlation(view_of(printed()), printed(), 60.0) or 1) < 0.4
    assert correlation(view_of(printed()), plain) == pytest.approx(0.0, abs=0.05)
    assert correlation(view_of(plain), printed()) is None
