"""Four objects on a table: look-alikes that pass each other without touching, and a truth that fits the picture."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.sequences import LABEL_VISIBLE, SIZE_WH, START_NS
from nocsfm_ros.data.table_scene import OBJECT_IDS, PATH_M, REFERENCE_TURN_DEG, TableScene
from nocsfm_ros.data.videos import RATE_HZ, K
from nocsfm_ros.geometry.camera import project
from nocsfm_ros.geometry.transforms import rotation_angle_deg, transform


@pytest.fixture
def scene(library: MeshLibrary, renderer: Renderer) -> TableScene:
    return TableScene(0, library, renderer, 0.15)


def hull_at(scene: TableScene, number: int, share: float) -> np.ndarray:  # type: ignore[type-arg]
    target = scene.targets[number]
    return transform(scene.pose(number, share), scene.library.hull(target.index) * target.diagonal_m)


def test_look_alikes_differ_in_tint_alone_and_the_others_in_mesh(scene: TableScene) -> None:
    one, two, *others = (target.look for target in scene.targets)
    assert one.mesh is two.mesh and one.scale_m == two.scale_m and one.tint != two.tint
    assert all(other.mesh is not one.mesh for other in others)
    turn_deg = rotation_angle_deg(scene.pose(0, 0.0)[:3, :3], scene.pose(1, 0.0)[:3, :3])
    assert turn_deg <= 10.0


def test_look_alikes_pass_each_other_closely_and_nothing_touches_them(scene: TableScene) -> None:
    for share in np.linspace(0, 1, 7):
        near, far, *behind = (hull_at(scene, number, share) @ scene.away for number in range(len(OBJECT_IDS)))
        assert 0 < far.min() - near.max() < 0.05
        assert all(other.min() > far.max() for other in behind)
    before, after = ([scene.pose(i, share)[0, 3] for i in (0, 1)] for share in (0.0, 1.0))
    assert np.ptp(before) > 1.5 * PATH_M
    assert (before[0] > before[1]) != (after[0] > after[1])


def test_truth_of_every_object_is_where_the_picture_shows_it(scene: TableScene) -> None:
    for number_of_frame, shown in enumerate(scene.frames(3)):
        assert shown.frame.rgb.shape[1::-1] == SIZE_WH
        assert shown.frame.stamp_ns == pytest.approx(START_NS + number_of_frame / RATE_HZ * 1e9)
        for target, truth in zip(scene.targets, shown.truths, strict=True):
            visible = truth.labels == LABEL_VISIBLE
            assert visible.sum() > 300
            hull = transform(truth.T_cam_obj, scene.library.hull(target.index) * target.diagonal_m)
            u, v = project(hull, K).T
            rows, columns = np.nonzero(truth.labels)
            np.testing.assert_allclose([columns.min(), columns.max()], np.clip([u.min(), u.max()], 0, 639), atol=6)
            np.testing.assert_allclose([rows.min(), rows.max()], np.clip([v.min(), v.max()], 0, 479), atol=6)


def test_references_are_turned_a_little_and_show_the_whole_object(scene: TableScene) -> None:
    for number, object_id in enumerate(OBJECT_IDS):
        reference = scene.reference(number)
        assert reference.object_id == object_id and reference.T_cam_user is not None and reference.depth_m is not None
        turn_deg = rotation_angle_deg(reference.T_cam_user[:3, :3], scene.pose(number, 0.0)[:3, :3])
        assert REFERENCE_TURN_DEG[0] <= turn_deg <= REFERENCE_TURN_DEG[1]
        assert reference.mask.sum() > 1000 and (reference.depth_m[reference.mask] > 0).mean() > 0.7
