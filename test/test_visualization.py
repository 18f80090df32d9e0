"""Drawn things are where they belong, in their colours, and the input stays untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nocsfm_ros import visualization
from nocsfm_ros.types import PoseEstimate, SimilarityPose, Track, TrackState

K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
EMPTY = np.zeros((240, 320), bool)


def make_track(
    state: TrackState, mask: np.ndarray = EMPTY, t_cam_obj: tuple[float, float, float] | None = None
) -> Track:
    pose = None if t_cam_obj is None else SimilarityPose(np.eye(3), np.array(t_cam_obj), 0.2)
    estimate = PoseEstimate(pose, mask, np.zeros((240, 320, 3), np.float32), confidence=0.9)
    T_cam_user = None if pose is None else pose.T_cam_obj
    return Track("mug", state, 0, estimate, T_cam_user, np.array([0.2, 0.1, 0.1]), None, 1)


@pytest.mark.parametrize("grey", [0, 255])
def test_overlay_box_corner_is_where_the_pose_projects_it(grey: int) -> None:
    rgb = np.full((240, 320, 3), grey, np.uint8)
    picture = visualization.overlay(rgb, [make_track(TrackState.TRACKING, t_cam_obj=(0, 0, 1.0))], K)
    # nearest face at z = 0.95: corner (0.1, 0.05) projects to 160 + 300 * 0.1 / 0.95, 120 + 300 * 0.05 / 0.95
    u, v = round(160 + 30 / 0.95), round(120 + 15 / 0.95)
    colour = visualization.STATE_COLOURS[TrackState.TRACKING]
    assert np.abs(picture[v, u].astype(int) - colour).max() < 60
    assert np.all(picture[v + 12, u + 12] == grey)
    assert np.all(rgb == grey)


def test_overlay_axes_point_along_the_object_axes() -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    picture = visualization.overlay(rgb, [make_track(TrackState.TRACKING, t_cam_obj=(0, 0, 1.0))], K)
    assert picture[120, 180].tolist() == list(visualization.AXIS_COLOURS[0])  # x: right
    assert picture[140, 160].tolist() == list(visualization.AXIS_COLOURS[1])  # y: down


def test_overlay_mask_is_tinted_in_the_states_colour() -> None:
    mask = EMPTY.copy()
    mask[100:200, 100:200] = True
    rgb = np.full((240, 320, 3), 100, np.uint8)
    pixels = [
        visualization.overlay(rgb, [make_track(state, mask)], K)[150, 150].tolist() for state in TrackState
    ]
    expected = [
        np.round(65 + 0.35 * np.array(visualization.STATE_COLOURS[state])).tolist() for state in TrackState
    ]
    assert pixels == expected


@pytest.mark.parametrize("t_cam_obj", [(0, 0, -1), (0, 0, 0.0), (1e5, 0, 0.03), (float("nan"), 0, 1)])
def test_overlay_pose_at_or_behind_the_camera_draws_without_error(
    t_cam_obj: tuple[float, float, float],
) -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    picture = visualization.overlay(rgb, [make_track(TrackState.TRACKING, t_cam_obj=t_cam_obj)], K)
    assert picture.shape == rgb.shape


def test_overlay_text_differs_with_reason_and_latency() -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    track = make_track(TrackState.LOST)
    told = replace(track, estimate=replace(track.estimate, reason="too few points \N{SNOWMAN}"))
    bare = visualization.overlay(rgb, [track], K)
    assert np.count_nonzero(visualization.overlay(rgb, [told], K)) > np.count_nonzero(bare)
    with_latency = visualization.overlay(rgb, [track], K, latency_ms=12.0)
    assert with_latency[200:].any() and not bare[200:].any()


def test_overlay_names_each_of_several_objects_at_its_box() -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    near = replace(make_track(TrackState.TRACKING), box_xywh=(150.0, 200.0, 30.0, 20.0))
    assert not visualization.overlay(rgb, [near], K)[185:200, 150:].any()
    assert visualization.overlay(rgb, [near, make_track(TrackState.LOST)], K)[185:200, 150:].any()


def test_grid_keeps_shape_of_pictures_and_fills_cells() -> None:
    wide = np.full((20, 80, 3), 200, np.uint8)
    picture = visualization.grid([wide] * 5, ["one"], columns=3, cell_wh=(120, 90))
    assert picture.shape == (180, 360, 3)
    bright = np.argwhere((picture[30:90, :120] == 200).all(axis=2))
    height, width = np.ptp(bright, axis=0) + 1
    assert width / height == pytest.approx(4, rel=0.15)


def test_sheet_of_uneven_rows_is_as_wide_as_the_longest() -> None:
    cell = (np.zeros((10, 10, 3), np.uint8), "a caption far too long for such a narrow cell")
    assert visualization.sheet([[cell], [cell, cell]], cell_wh=(100, 80)).shape == (160, 200, 3)
