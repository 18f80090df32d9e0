"""What the object of a reference is, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nocsfm_ros.errors import ConfigError
from nocsfm_ros.tracking.reference import reference_from_arrays

K = np.array([[500.0, 0, 79.5], [0, 500, 59.5], [0, 0, 1]])
RGB = np.zeros((120, 160, 3), np.uint8)
OBJECT = np.zeros((120, 160), bool)
OBJECT[40:80, 60:110] = True


def tilted_table_m() -> np.ndarray:
    """Depth of the plane z = 0.8 - 0.5 y, a table seen from above: exact from the rays."""
    v = np.arange(120)[:, None] * np.ones((1, 160))
    return np.asarray(0.8 / (1 + 0.5 * (v - K[1, 2]) / K[1, 1]), dtype=np.float32)


def scene_m() -> np.ndarray:
    depth_m = tilted_table_m()
    depth_m[OBJECT] = 0.7
    return depth_m


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def test_mask_is_taken_as_it_is() -> None:
    reference = reference_from_arrays("mug", RGB, OBJECT)
    assert (
        np.array_equal(reference.mask, OBJECT) and reference.depth_m is None and reference.object_id == "mug"
    )


def test_mask_of_numbers_inside_box_is_cut_to_it() -> None:
    reference = reference_from_arrays("mug", RGB, (OBJECT * 255).astype(np.uint8), roi=(60, 40, 20, 20))
    assert reference.mask.sum() == 400 and reference.mask[40:60, 60:80].all()


def test_alpha_channel_is_the_mask() -> None:
    rgba = np.dstack([RGB, np.where(OBJECT, 255, 0).astype(np.uint8)])
    reference = reference_from_arrays("mug", rgba)
    assert np.array_equal(reference.mask, OBJECT) and reference.rgb.shape == (120, 160, 3)


def test_nothing_given_takes_the_whole_picture() -> None:
    assert reference_from_arrays("mug", RGB).mask.all()


def test_box_without_depth_is_the_box() -> None:
    assert np.array_equal(reference_from_arrays("mug", RGB, roi=(60, 40, 50, 40)).mask, OBJECT)


def test_box_reaching_out_of_the_picture_is_cut() -> None:
    assert reference_from_arrays("mug", RGB, roi=(-10, -10, 30, 30)).mask.sum() == 400


def test_box_with_depth_finds_what_stands_on_a_tilted_table() -> None:
    reference = reference_from_arrays("mug", RGB, roi=(45, 25, 80, 70), depth_m=scene_m(), K=K)
    assert iou(reference.mask, OBJECT) > 0.97


def test_whole_picture_with_depth_finds_what_stands_in_front() -> None:
    assert iou(reference_from_arrays("mug", RGB, depth_m=scene_m(), K=K).mask, OBJECT) > 0.97


def test_box_with_depth_takes_the_middle_one_of_two_things() -> None:
    depth_m = scene_m()
    depth_m[40:80, 126:150] = 0.7
    assert (
        iou(reference_from_arrays("mug", RGB, roi=(45, 25, 100, 70), depth_m=depth_m, K=K).mask, OBJECT)
        > 0.97
    )


def test_box_with_holes_in_the_objects_depth_keeps_them() -> None:
    depth_m = scene_m()
    depth_m[50:60, 70:80] = 0
    mask = reference_from_arrays("mug", RGB, roi=(45, 25, 80, 70), depth_m=depth_m, K=K).mask
    assert mask[50:60, 70:80].all() and iou(mask, OBJECT) > 0.97


def test_box_with_depth_in_front_of_nothing_is_the_surface() -> None:
    depth_m = np.where(OBJECT, np.float32(0.7), np.float32(np.nan))
    mask = reference_from_arrays("mug", RGB, roi=(45, 25, 80, 70), depth_m=depth_m, K=K).mask
    assert iou(mask, OBJECT) > 0.97


def test_box_on_a_flat_thing_is_the_box() -> None:
    mask = reference_from_arrays("card", RGB, roi=(60, 40, 50, 40), depth_m=tilted_table_m(), K=K).mask
    assert np.array_equal(mask, OBJECT)


def test_depth_of_nan_becomes_zero() -> None:
    depth_m = scene_m()
    depth_m[0, :] = np.nan
    reference = reference_from_arrays("mug", RGB, OBJECT, depth_m=depth_m, K=K)
    assert reference.depth_m is not None and np.all(reference.depth_m[0] == 0)


def test_depth_on_little_of_the_object_is_said(caplog: pytest.LogCaptureFixture) -> None:
    depth_m = scene_m()
    depth_m[45:80] = 0
    reference_from_arrays("mug", RGB, OBJECT, depth_m=depth_m, K=K)
    assert "only 12 % of the object has depth" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": np.zeros((120, 160), bool)}, "without a single object pixel"),
        ({"mask": np.ones((60, 80), bool)}, "80x60.*160x120"),
        ({"mask": OBJECT, "roi": (0, 0, 10, 10)}, "inside the box"),
        ({"roi": (200, 10, 10, 10)}, "160x120"),
        ({"roi": (10, 10, 0, 10)}, "x,y,width,height"),
        ({"roi": (10, 10, float("nan"), 10)}, "x,y,width,height"),
        ({"rgb": np.zeros((1, 1, 3), np.uint8)}, "1x1"),
        ({"rgb": np.zeros((16, 8193, 3), np.uint8)}, "8193x16"),
        ({"rgb": np.zeros((120, 160), np.uint8)}, "uint8"),
        ({"depth_m": scene_m()}, "without a camera"),
        ({"depth_m": scene_m()[:60], "K": K}, "160x60"),
        ({"depth_m": np.zeros((120, 160), np.float32), "K": K}, "no valid depth"),
        ({"depth_m": scene_m(), "K": np.zeros((3, 3))}, "focal"),
        ({"K": np.full((3, 3), np.nan)}, "focal"),
        ({"T_cam_user": np.diag([2.0, 2, 2, 1])}, "rigid"),
        ({"T_cam_user": np.eye(3)}, "rigid"),
        ({"object_id": " "}, "name"),
    ],
)
def test_unusable_reference_raises_and_says_why(changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"object_id": "mug", "rgb": RGB, **changes}
    with pytest.raises(ConfigError, match=words):
        reference_from_arrays(**arguments)
