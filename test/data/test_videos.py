"""Videos: the motion does what its kind says."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.sequences import LABEL_VISIBLE, SIZE_WH, START_NS
from nocsfm_ros.data.videos import (
    HELD_VISIBLE,
    NUM_FRAMES,
    RATE_HZ,
    REFERENCE_TURN_DEG,
    K,
    Stage,
    Video,
    all_videos,
)
from nocsfm_ros.geometry.camera import project
from nocsfm_ros.geometry.transforms import rotation_angle_deg


@pytest.fixture
def stage(request: pytest.FixtureRequest, library: MeshLibrary, renderer: Renderer) -> Stage:
    return Stage(Video(request.param, 0), library, renderer)


def of(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", kinds, indirect=True)


def test_there_are_twenty_videos_or_more_of_other_seeds() -> None:
    videos = all_videos() + all_videos(heldout=False) + all_videos(set_seed=1)
    assert len(all_videos()) >= 20
    assert len({tuple(video.seed) for video in videos}) == len({video.name for video in videos}) == len(videos)


@pytest.mark.parametrize("heldout", [True, False])
def test_object_is_of_the_videos_split(heldout: bool, library: MeshLibrary, renderer: Renderer) -> None:
    for number in range(2):
        stage = Stage(Video("camera", number, heldout), library, renderer)
        assert library.is_heldout[stage.target.index] == heldout


@of("slow")
def test_reference_is_turned_a_little_and_shows_the_whole_object(stage: Stage) -> None:
    reference = stage.reference()
    first = next(iter(stage.frames(1)))
    turn_deg = rotation_angle_deg(reference.T_cam_obj[:3, :3], first.T_cam_obj[:3, :3])
    assert turn_deg == pytest.approx(REFERENCE_TURN_DEG, abs=1e-6)
    assert (reference.labels == LABEL_VISIBLE).sum() > 0.98 * (reference.labels > 0).sum() > 1000
    assert first.stamp_ns == START_NS


@of("slow", "occlusion")
def test_hand_leaves_most_of_the_object_to_be_seen(stage: Stage) -> None:
    first = next(iter(stage.frames(1)))
    visible = (first.labels == LABEL_VISIBLE).sum() / (first.labels > 0).sum()
    assert abs(visible - HELD_VISIBLE) < 0.25


@of("hand_turn")
def test_hand_turn_turns_the_object_once_around(stage: Stage) -> None:
    for share, expected_deg in ((0.25, 90), (0.5, 180), (1.0, 0)):
        time_s = share * NUM_FRAMES / RATE_HZ
        turned_deg = rotation_angle_deg(stage.pose(time_s)[:3, :3], stage._held_pose(time_s)[:3, :3])
        assert turned_deg == pytest.approx(expected_deg, abs=1e-4)


@of("leaving", "look_alikes")
def test_object_that_leaves_is_out_of_the_picture_and_comes_back(stage: Stage) -> None:
    away_s = {"leaving": 5.2, "look_alikes": 9.2}[stage.video.kind]
    u = project(stage.hull_at(stage.pose(away_s)), K)[:, 0]
    assert (u < 0).all() or (u > SIZE_WH[0]).all()
    u = project(stage.hull_at(stage.pose(18.0)), K)[:, 0]
    assert 0 < u.mean() < SIZE_WH[0]


@of("camera", "lighting")
def test_object_on_the_table_moves_only_with_the_camera(stage: Stage) -> None:
    (first, light), (later, other_light) = stage.scene(0.0), stage.scene(3.0)
    T_later_first = later[0].T_cam_obj @ np.linalg.inv(first[0].T_cam_obj)
    for before, after in zip(first, later, strict=True):
        np.testing.assert_allclose(after.T_cam_obj, T_later_first @ before.T_cam_obj, atol=1e-9)
    moved_deg = rotation_angle_deg(T_later_first[:3, :3], np.eye(3))
    assert moved_deg > 20 if stage.video.kind == "camera" else moved_deg < 8
    assert (np.asarray(light.colour) == other_light.colour).all() == (stage.video.kind == "camera")


@of("dropped")
def test_dropped_frames_leave_gaps_but_keep_their_times(stage: Stage) -> None:
    stamps_s = (np.array([frame.stamp_ns for frame in stage.frames(110)]) - START_NS) * 1e-9
    steps = np.diff(stamps_s) * RATE_HZ
    np.testing.assert_allclose(steps, steps.round(), atol=1e-5)
    assert 50 < len(stamps_s) < 90 and steps.max() > 10


@of("look_alikes")
def test_look_alikes_have_the_objects_shape_and_another_print(stage: Stage) -> None:
    items, _ = stage.scene(0.0)
    twins = [item for item in items[1:] if item.mesh.name == items[0].mesh.name]
    assert len(twins) == 3
    assert all(item.print_layer >= 0 and item.print_layer != items[0].print_layer for item in twins)


@of("slow")
def test_same_video_is_the_same_again(stage: Stage) -> None:
    again = Stage(stage.video, stage.library, stage.renderer)
    np.testing.assert_array_equal(next(iter(stage.frames(1))).rgb, next(iter(again.frames(1))).rgb)
