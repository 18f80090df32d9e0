"""Crops: the pixel-centre convention, exactly, and back again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.camera import project
from nocsfm_ros.geometry.crops import R_ray_cam, blurred, box_from_mask, crop_frame, paste, square_box
from nocsfm_ros.types import ObjectCrop

RED, GREEN = (200, 20, 20), (20, 200, 20)
K = np.array([[600.0, 0, 320.3], [0, 590, 241.7], [0, 0, 1]])


def crop_of(rgb: np.ndarray, box: tuple[float, float, float, float], size: int) -> ObjectCrop:
    numbers_mm = np.arange(1, rgb.shape[0] * rgb.shape[1] + 1).reshape(rgb.shape[:2])
    depth_m = (numbers_mm / 1000).astype(np.float32)
    return crop_frame(rgb, depth_m, K, box, size)


def random_picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("box", [(100.5, 60.5, 128.0, 128.0), (-40.2, 300.0, 333.3, 333.3)])
def test_crop_then_project_equals_project_with_k_crop(box: tuple[float, float, float, float]) -> None:
    crop = crop_of(random_picture(480, 640), box, 128)
    points_cam = np.random.default_rng(0).uniform([-0.5, -0.5, 0.5], [0.5, 0.5, 2], (50, 3))
    pixels = np.c_[project(points_cam, K), np.ones(50)]
    np.testing.assert_allclose((pixels @ crop.A_crop_image.T)[:, :2], project(points_cam, crop.K_crop), atol=1e-6)


def test_crop_edges_of_the_box_become_edges_of_the_crop() -> None:
    A = crop_of(random_picture(100, 100), (10.0, 20.0, 50.0, 50.0), 128).A_crop_image
    np.testing.assert_allclose(A @ [10, 20, 1], [-0.5, -0.5, 1])
    np.testing.assert_allclose(A @ [60, 70, 1], [127.5, 127.5, 1])


def test_crop_of_same_size_copies_the_pixels() -> None:
    rgb = random_picture(50, 60)
    crop = crop_of(rgb, (9.5, 4.5, 32.0, 32.0), 32)
    np.testing.assert_array_equal(crop.rgb, rgb[5:37, 10:42])
    np.testing.assert_allclose(crop.depth_m[0, 0], (5 * 60 + 10 + 1) / 1000)


def test_crop_doubled_depth_repeats_measured_values_only() -> None:
    crop = crop_of(random_picture(50, 60), (9.5, 4.5, 16.0, 16.0), 32)
    np.testing.assert_array_equal(crop.depth_m[::2, ::2], crop.depth_m[1::2, 1::2])


def test_crop_outside_the_picture_is_zero() -> None:
    crop = crop_of(np.full((20, 20, 3), 200, np.uint8), (-10.5, -10.5, 20.0, 20.0), 20)
    assert (crop.rgb[:10] == 0).all() and (crop.depth_m[:, :10] == 0).all()
    assert (crop.rgb[10:, 10:] == 200).all() and (crop.depth_m[10:, 10:] > 0).all()


def test_crop_wholly_outside_is_black() -> None:
    crop = crop_of(random_picture(20, 20), (500.0, 500.0, 300.0, 300.0), 16)
    assert not crop.rgb.any() and not crop.depth_m.any()


def test_crop_shrunk_checkers_turn_grey() -> None:
    v, u = np.mgrid[:400, :400]
    checkers = np.repeat((((u // 2 + v // 2) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    inner = crop_of(checkers, (-0.5, -0.5, 400.0, 400.0), 47).rgb[3:-3, 3:-3].astype(float)
    assert abs(inner.mean() - 127.5) < 3 and inner.std() < 12


def test_crop_depth_of_another_size_raises() -> None:
    with pytest.raises(ShapeError):
        crop_frame(random_picture(20, 20), np.ones((20, 21), np.float32), K, (0, 0, 5, 5), 8)


def test_paste_of_a_crop_returns_the_picture_inside_and_zeros_outside() -> None:
    rgb = random_picture(50, 60)
    crop = crop_of(rgb, (9.5, 4.5, 32.0, 32.0), 32)
    pasted = paste(crop.rgb, crop.A_crop_image, (60, 50))
    np.testing.assert_array_equal(pasted[5:37, 10:42], rgb[5:37, 10:42])
    pasted[5:37, 10:42] = 0
    assert not pasted.any()


def test_paste_of_a_mask_nearest_has_the_box_area() -> None:
    crop = crop_of(random_picture(200, 300), (50.5, 20.5, 96.0, 96.0), 32)
    pasted = paste(np.ones((32, 32), np.uint8), crop.A_crop_image, (300, 200), nearest=True)
    assert pasted.sum() == 96 * 96 and box_from_mask(pasted > 0) == (50.5, 20.5, 96, 96)


def test_box_from_mask_is_tight_from_edge_to_edge() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2, 3] = mask[6, 7] = True
    assert box_from_mask(mask) == (2.5, 1.5, 5.0, 5.0)
    assert box_from_mask(np.zeros((3, 3), bool)) is None


def test_square_box_keeps_the_centre() -> None:
    assert square_box((10, 20, 40, 20), 1.5) == (0.0, 0.0, 60.0, 60.0)


def test_ray_rotation_brings_the_central_ray_to_z() -> None:
    crop = crop_of(random_picture(480, 640), (500.5, 300.5, 64.0, 64.0), 32)
    ray = np.linalg.inv(K) @ [532.5, 332.5, 1]
    turned = R_ray_cam(crop.K_crop, 32) @ ray
    np.testing.assert_allclose(turned, [0.0, 0.0, float(np.linalg.norm(ray))], atol=1e-12)


def thing_before_a_wall(width: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((40, 40), bool)
    mask[:, 20 : 20 + width] = True
    return np.where(mask[..., None], RED, GREEN).astype(np.uint8), mask


def test_colours_of_a_thin_thing_have_nothing_of_what_lies_behind() -> None:
    rgb, mask = thing_before_a_wall(2)
    inside = blurred(rgb, mask, 1.5)[mask]
    np.testing.assert_allclose(inside, np.broadcast_to(np.array(RED) / 255, inside.shape), atol=1e-5)
    assert blurred(rgb, None, 1.5)[mask][:, 1].min() > 0.25  # and without a mask they do


def test_far_from_the_mask_a_picture_is_blurred_as_ever() -> None:
    rgb, mask = thing_before_a_wall(8)
    far = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    np.testing.assert_array_equal(blurred(rgb, mask, 1.5)[far], blurred(rgb, None, 1.5)[far])


def test_an_empty_mask_is_none() -> None:
    rgb, mask = thing_before_a_wall(8)
    np.testing.assert_array_equal(blurred(rgb, np.zeros_like(mask), 1.5), blurred(rgb, None, 1.5))
