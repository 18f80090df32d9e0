"""The pinhole camera against its formula and itself."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.camera import backproject, pixel_rays, project, rolled, rolled_box
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.geometry.transforms import transform
from nocsfm_ros.types import RgbdFrame

K = np.array([[500.0, 0, 31.5], [0, 510, 20.25], [0, 0, 1]])


def test_backproject_then_project_returns_the_pixels() -> None:
    depth_m = np.random.default_rng(0).uniform(0.3, 2, (40, 60)).astype(np.float32)
    points_cam, pixels_uv = backproject(depth_m, K)
    np.testing.assert_allclose(project(points_cam, K), pixels_uv, atol=1e-9)
    assert len(points_cam) == depth_m.size


def test_backproject_of_the_principal_point_lies_on_the_axis() -> None:
    depth_m = np.zeros((40, 60), np.float32)
    depth_m[20, 31] = 2.0
    points_cam, pixels_uv = backproject(depth_m, K)
    np.testing.assert_allclose(points_cam, [[-0.5 / 500 * 2, -0.25 / 510 * 2, 2.0]], atol=1e-12)
    assert pixels_uv.tolist() == [[31, 20]]


def test_backproject_leaves_out_holes_and_background() -> None:
    depth_m = np.ones((4, 4), np.float32)
    depth_m[0] = 0
    mask = np.zeros((4, 4), bool)
    mask[:, 1] = True
    assert backproject(depth_m, K, mask)[1].tolist() == [[1, 1], [1, 2], [1, 3]]


def test_backproject_nothing_has_shape_0_3() -> None:
    points_cam, pixels_uv = backproject(np.zeros((3, 3), np.float32), K)
    assert points_cam.shape == (0, 3) and pixels_uv.shape == (0, 2)


def test_backproject_mask_of_another_size_raises() -> None:
    with pytest.raises(ShapeError):
        backproject(np.ones((4, 4), np.float32), K, np.ones((4, 5), bool))


def test_project_behind_the_camera_is_nan() -> None:
    assert np.isnan(project(np.array([[0, 0, -1.0], [0, 0, 0]]), K)).all()


def test_pixel_rays_times_depth_are_the_points() -> None:
    depth_m = np.random.default_rng(1).uniform(0.3, 2, (5, 7)).astype(np.float32)
    points = (pixel_rays((7, 5), K) * depth_m[..., None]).reshape(-1, 3)
    np.testing.assert_allclose(points, backproject(depth_m, K)[0], atol=1e-12)


def test_rolled_camera_sees_the_same_points_and_after_four_quarters_the_same_picture() -> None:
    random = np.random.default_rng(0)
    depth_m = random.uniform(0.3, 2, (40, 60)).astype(np.float32)
    frame = RgbdFrame(random.integers(0, 255, (40, 60, 3), np.uint8), depth_m, K, stamp_ns=7, frame_id="camera")
    mask = np.zeros((40, 60), bool)
    mask[3:9, 20:50] = True
    box_xywh = box_from_mask(mask)
    assert box_xywh is not None
    turned, T_rolled_cam = rolled(frame)
    turned_mask, turned_box = np.rot90(mask), rolled_box(box_xywh, 60)
    assert turned.size_wh == (40, 60) and turned_box == box_from_mask(turned_mask) and turned.stamp_ns == 7
    before, after = backproject(depth_m, K, mask)[0], backproject(turned.depth_m, turned.K, turned_mask)[0]
    expected = transform(T_rolled_cam, before)
    np.testing.assert_allclose(after[np.lexsort(after.T)], expected[np.lexsort(expected.T)], atol=1e-9)
    for _ in range(3):
        turned_box, turned = rolled_box(turned_box, turned.size_wh[0]), rolled(turned)[0]
    np.testing.assert_array_equal(turned.rgb, frame.rgb)
    np.testing.assert_allclose(turned.K, K)
    assert turned_box == box_xywh
