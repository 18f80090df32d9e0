"""A coloured square is found where it is, with a backbone whose features are the colours themselves."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.matching import localiser
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.matching.localiser import encode_frame, encode_reference, find_candidates
from nocsfm_ros.types import BoolArray, Float32Array, Uint8Array

GREY, ORANGE, BLUE = (90, 90, 90), (250, 120, 10), (20, 40, 240)


class MeanColour(Backbone):
    """Each 16 x 16 cell's mean colour, its brightness taken out."""

    stride = 16

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        colour = torch.nn.functional.avg_pool2d(image, 16)
        return colour - colour.mean(dim=1, keepdim=True) + 1.0


def picture(*squares: tuple[int, int, int, tuple[int, int, int]]) -> Uint8Array:
    rgb = np.full((480, 640, 3), GREY, np.uint8)
    for x, y, side, colour in squares:
        rgb[y : y + side, x : x + side] = colour
    return rgb


def mask_of(x: int, y: int, side: int) -> BoolArray:
    mask = np.zeros((480, 640), bool)
    mask[y : y + side, x : x + side] = True
    return mask


CONFIG = MatchingConfig(frame_side=640, similarity_threshold=0.8, max_candidates=3)
REFERENCE = encode_reference(picture((300, 200, 90, ORANGE)), mask_of(300, 200, 90), MeanColour("cpu"))


def test_encode_reference_pixels_lie_in_the_mask_and_features_are_unit() -> None:
    u, v = REFERENCE.pixels_uv.T
    assert REFERENCE.pixels_uv.shape == (len(REFERENCE.features), 2)
    assert u.min() >= 299 and u.max() <= 391 and v.min() >= 199 and v.max() <= 291
    assert np.allclose(np.linalg.norm(REFERENCE.features, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("frame_side", [640, 960, 320])
@pytest.mark.parametrize("side", [64, 128])
def test_find_candidates_square_among_others_is_first_with_its_box(frame_side: int, side: int) -> None:
    frame = picture((96, 320, side, ORANGE), (400, 100, 128, BLUE))
    config = MatchingConfig(frame_side=frame_side, similarity_threshold=0.8)
    best = find_candidates(encode_frame(frame, MeanColour("cpu"), config), [REFERENCE], config)[0]
    centre = np.array([96 + side / 2 - 0.5, 320 + side / 2 - 0.5])
    assert np.abs(np.array(best.centre_uv) - centre).max() < side / 4
    assert best.box_xywh[0] < centre[0] < best.box_xywh[0] + best.box_xywh[2]
    assert best.box_xywh[1] < centre[1] < best.box_xywh[1] + best.box_xywh[3]


def test_find_candidates_cell_aligned_square_box_is_exact() -> None:
    frame = encode_frame(picture((96, 320, 96, ORANGE)), MeanColour("cpu"), CONFIG)
    best = find_candidates(frame, [REFERENCE], CONFIG)[0]
    assert best.box_xywh == pytest.approx((95.5, 319.5, 96.0, 96.0))


def test_find_candidates_two_squares_gives_both_and_no_more_than_asked() -> None:
    frame = picture((96, 320, 96, ORANGE), (400, 96, 96, ORANGE))
    candidates = find_candidates(encode_frame(frame, MeanColour("cpu"), CONFIG), [REFERENCE], CONFIG)
    assert len(candidates) <= CONFIG.max_candidates
    assert {candidate.centre_uv[0] > 320 for candidate in candidates[:2]} == {True, False}
    assert candidates == sorted(candidates, key=lambda candidate: -candidate.score)


def test_find_candidates_windows_on_one_thing_are_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = encode_frame(picture((64, 192, 256, ORANGE)), MeanColour("cpu"), CONFIG)

    def alike() -> int:
        boxes = [candidate.box_xywh for candidate in find_candidates(frame, [REFERENCE], CONFIG)]
        return sum(localiser.box_iou(a, b) > 0.7 for a, b in itertools.combinations(boxes, 2))

    assert alike() == 0
    monkeypatch.setattr(localiser, "SAME_BOX", 2.0)
    assert alike() > 0


def test_find_candidates_of_several_references_are_all_found() -> None:
    frame = encode_frame(picture((96, 320, 96, ORANGE), (400, 96, 96, BLUE)), MeanColour("cpu"), CONFIG)
    blue = encode_reference(picture((300, 200, 90, BLUE)), mask_of(300, 200, 90), MeanColour("cpu"))
    first, second = find_candidates(frame, [blue, REFERENCE], CONFIG)[:2]
    assert {candidate.centre_uv[0] > 320 for candidate in (first, second)} == {True, False}
    (orange,) = find_candidates(frame, [REFERENCE], CONFIG)[:1]
    assert orange in (first, second)
    assert find_candidates(frame, [], CONFIG) == []


def test_find_candidates_object_absent_gives_none() -> None:
    frame = encode_frame(picture((400, 100, 128, BLUE)), MeanColour("cpu"), CONFIG)
    assert find_candidates(frame, [REFERENCE], CONFIG) == []


NEAR_M, FAR_M, FOCAL_PX = 0.5, 1.5, 600.0
ACROSS_M = 96 / FOCAL_PX * NEAR_M  # an object that is 96 pixels wide where it is near


def two_depths(hole: slice = slice(0)) -> Float32Array:
    """The left half of a frame is near, the right one far."""
    depth_m = np.full((480, 640), NEAR_M, np.float32)
    depth_m[:, 320:] = FAR_M
    depth_m[:, hole] = 0
    return depth_m


def test_find_candidates_takes_what_is_of_the_right_size_at_its_depth() -> None:
    frame = picture((96, 192, 96, ORANGE), (416, 192, 96, ORANGE))  # the right one is three times too large
    sized = replace(REFERENCE, side_m=ACROSS_M)
    encoded = encode_frame(frame, MeanColour("cpu"), CONFIG, two_depths(), FOCAL_PX)
    first, *others = find_candidates(encoded, [sized], CONFIG)
    assert first.box_xywh == pytest.approx((95.5, 191.5, 96.0, 96.0), abs=12)  # windows come in steps of 22 %
    assert others and all(other.score < first.score - 0.1 for other in others)
    assert all(other.box_xywh[2] < 48 for other in others), "at the far wall the object is 32 pixels wide"
    by_colour_alone = find_candidates(encoded, [REFERENCE], CONFIG)
    assert by_colour_alone[0].score == pytest.approx(by_colour_alone[1].score, abs=1e-3)


def test_encode_frame_knows_the_pixels_of_a_metre_in_every_cell() -> None:
    depth_m = two_depths(hole=slice(0, 160))
    depth_m[100, 170] = 9.0  # one wrong pixel moves no median
    config = replace(CONFIG, frame_side=320)
    encoded = encode_frame(picture(), MeanColour("cpu"), config, depth_m, FOCAL_PX)
    assert encoded.pixels_per_m is not None
    assert encoded.pixels_per_m.shape == encoded.features.features.shape[:2] == (15, 20)
    assert encoded.pixels_per_m[:, :10] == pytest.approx(FOCAL_PX / 2 / NEAR_M), "a hole has the depth beside it"
    assert encoded.pixels_per_m[:, 10:] == pytest.approx(FOCAL_PX / 2 / FAR_M)


def test_encode_frame_of_hardly_any_depth_takes_what_there_is() -> None:
    depth_m = np.zeros((480, 640), np.float32)
    assert encode_frame(picture(), MeanColour("cpu"), CONFIG, depth_m, FOCAL_PX).pixels_per_m is None
    depth_m[0, 0] = NEAR_M
    encoded = encode_frame(picture(), MeanColour("cpu"), CONFIG, depth_m, FOCAL_PX)
    assert encoded.pixels_per_m == pytest.approx(np.full((30, 40), FOCAL_PX / NEAR_M))


def test_encode_reference_side_is_that_of_its_box_in_metres() -> None:
    wide = mask_of(300, 200, 90)
    wide[200:240, 390:420] = True
    assert encode_reference(picture(), wide, MeanColour("cpu"), m_per_pixel=0.002).side_m == pytest.approx(0.24)
    assert REFERENCE.side_m is None


def test_encode_reference_empty_mask_raises() -> None:
    with pytest.raises(ConfigError, match="no pixel"):
        encode_reference(picture(), np.zeros((480, 640), bool), MeanColour("cpu"))


def test_encode_reference_one_pixel_mask_gives_features() -> None:
    mask = np.zeros((480, 640), bool)
    mask[17, 33] = True
    assert len(encode_reference(picture(), mask, MeanColour("cpu")).features) > 0
