"""Checks of a pose: by features, matches, colours and depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nocsfm_ros.flow.model import EncodedView
from nocsfm_ros.masks import outside_empty_space
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.localiser import ReferenceFeatures
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import ObjectCloud
from nocsfm_ros.types import BoolArray, NocsMap, ObjectCrop, RgbdFrame, SimilarityPose
from nocsfm_ros.verification import (
    chroma,
    colour_difference,
    coordinate_error,
    depth_agreement,
    is_new_side,
    look_similarity,
    mask_coverage,
    pose_similarity,
)

SIDE, STRIDE, CHANNELS = 224, 16.0, 32
K_CROP = np.array([[400.0, 0, 111.5], [0, 400.0, 111.5], [0, 0, 1]])
DEPTH_M = np.ones((SIDE, SIDE), np.float32)
CROP = ObjectCrop(np.zeros((SIDE, SIDE, 3), np.uint8), DEPTH_M, np.eye(3), K_CROP)
STILL = SimilarityPose(np.eye(3), np.zeros(3), 0.2)
WHOLE = np.zeros((SIDE, SIDE), bool)
WHOLE[40:180, 40:180] = True
SLIVER = np.zeros((SIDE, SIDE), bool)
SLIVER[40:180, 121:127] = True  # between the middles of two columns of cells
NO_CELLS = torch.zeros(1, 1, 1, 1)
SEARCH = ReferenceFeatures(np.zeros((1, CHANNELS), np.float32), np.zeros((1, 2)), (0, 0, 1, 1))
ENCODED = EncodedView(torch.zeros(1, 1, 1), None, (NO_CELLS, NO_CELLS, NO_CELLS))


def features_of(seed: int) -> FeatureMap:
    values = np.random.default_rng(seed).normal(size=(14, 14, CHANNELS)).astype(np.float32)
    return FeatureMap(values / np.linalg.norm(values, axis=2, keepdims=True), STRIDE)


def view_of(features: FeatureMap, mask: BoolArray, has_depth: bool = True) -> View:
    v, u = np.mgrid[:SIDE, :SIDE]
    points = (np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K_CROP).T).astype(np.float32)
    points[~mask if has_depth else slice(None)] = np.nan
    coloured = points[mask if has_depth else np.zeros_like(mask)].astype(np.float64)
    return View(
        np.eye(4), np.eye(4), 0.2, ENCODED, lambda: SEARCH, CROP, features, mask, points, np.zeros((0, 3)), coloured,
        np.zeros((len(coloured), 2), np.float32), np.zeros((len(coloured), 3), np.float32),
    )


@pytest.mark.parametrize("mask", [WHOLE, SLIVER])
def test_right_pose_of_the_same_picture_is_as_similar_as_can_be(mask: BoolArray) -> None:
    features = features_of(0)
    assert pose_similarity(STILL, view_of(features, mask), CROP, features) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("mask", [WHOLE, SLIVER])
def test_another_picture_is_not_similar(mask: BoolArray) -> None:
    similarity = pose_similarity(STILL, view_of(features_of(0), mask), CROP, features_of(1))
    assert similarity is not None and similarity < 0.3


def test_pose_outside_the_crop_is_not_similar() -> None:
    features = features_of(0)
    aside = SimilarityPose(np.eye(3), np.array([5.0, 0, 0]), 0.2)
    assert pose_similarity(aside, view_of(features, WHOLE), CROP, features) == 0.0


def test_view_without_depth_has_no_similarity_of_a_pose() -> None:
    features = features_of(0)
    assert pose_similarity(STILL, view_of(features, WHOLE, has_depth=False), CROP, features) is None


def test_look_without_depth_tells_the_same_thing_from_another() -> None:
    view = view_of(features_of(0), WHOLE, has_depth=False)
    same, other = (look_similarity(view, features_of(seed), WHOLE) for seed in (0, 1))
    assert same == pytest.approx(0.9, abs=1e-5)
    assert other < 0.5
    assert look_similarity(view, features_of(0), np.zeros((SIDE, SIDE), bool)) == 0.0


def painted(rgb: tuple[int, int, int], depth_m: float = 1.0) -> ObjectCrop:
    picture = np.full((SIDE, SIDE, 3), rgb, np.uint8)
    return ObjectCrop(picture, np.full((SIDE, SIDE), depth_m, np.float32), np.eye(3), K_CROP)


def test_colours_of_a_grey_view_are_apart_from_a_red_thing_and_not_from_a_darker_grey_one() -> None:
    grey_view = view_of(features_of(0), WHOLE)
    assert colour_difference(STILL, grey_view, painted((60, 60, 60))) == pytest.approx(0.0, abs=0.5)
    red = colour_difference(STILL, grey_view, painted((200, 30, 30)))
    assert red is not None and red > 50


def test_colours_are_not_compared_where_something_hides_the_object_or_the_view_has_no_depth() -> None:
    assert colour_difference(STILL, view_of(features_of(0), WHOLE), painted((200, 30, 30), 0.8)) is None
    assert colour_difference(STILL, view_of(features_of(0), WHOLE, has_depth=False), painted((9, 9, 9))) is None


def test_colours_of_a_pose_at_the_camera_or_outside_the_crop_are_not_compared() -> None:
    view = view_of(features_of(0), WHOLE)
    for t_cam_obj in ((0.0, 0.0, -1.0), (50.0, 0.0, -1.0), (50.0, 0.0, 0.0)):
        pose = SimilarityPose(np.eye(3), np.array(t_cam_obj), 0.2)
        assert colour_difference(pose, view, painted((60, 60, 60), 0.001)) is None


def test_chroma_is_zero_for_grey_and_has_the_sign_of_the_colour() -> None:
    assert np.abs(chroma(painted((128, 128, 128)).rgb)).max() < 0.5
    assert chroma(painted((200, 30, 30)).rgb)[0, 0, 0] > 40 and chroma(painted((30, 30, 200)).rgb)[0, 0, 1] < -40


def test_chroma_is_the_same_in_half_the_light() -> None:
    orange, in_half_the_light = (186, 123, 65), (136, 90, 48)  # linear values, with a gamma of 2.2
    bright, dim = (chroma(painted(rgb).rgb)[5, 5] for rgb in (orange, in_half_the_light))
    assert np.linalg.norm(bright - dim) < 0.1 * np.linalg.norm(bright)


AWAY = SimilarityPose(np.eye(3), np.array([0.1, 0.0, 0.0]), 0.2)  # 40 pixels to the right


def plate_model(view: View) -> ObjectModel:
    points = view.feature_points_obj[WHOLE][::51].astype(np.float64)
    return ObjectModel("plate", [view], 0.2, ObjectCloud(points, viewpoints_obj=np.zeros_like(points)))


def test_depth_agrees_with_what_is_there_and_not_with_what_is_looked_through() -> None:
    model = plate_model(view_of(features_of(0), WHOLE))
    behind, before = (RgbdFrame(CROP.rgb, np.full_like(DEPTH_M, z), K_CROP, 0, "camera") for z in (1.5, 0.5))
    assert depth_agreement(STILL, model, RgbdFrame(CROP.rgb, DEPTH_M, K_CROP, 0, "camera")) == 1.0
    assert depth_agreement(STILL, model, behind) == 0.0
    assert depth_agreement(STILL, model, before) == 0.0  # all hidden: nothing speaks for it


def test_depth_agreement_of_what_shows_the_camera_hardly_a_point_is_unknown() -> None:
    line = np.array([[0.001 * i, 0.0, 1.0] for i in range(6)])
    model = ObjectModel("line", [], 0.2, ObjectCloud(line, viewpoints_obj=np.zeros_like(line)))
    assert depth_agreement(STILL, model, RgbdFrame(CROP.rgb, DEPTH_M, K_CROP, 0, "camera")) is None


def test_coverage_is_the_share_of_what_should_be_seen_that_lies_in_the_mask() -> None:
    model, mask_prob = plate_model(view_of(features_of(0), WHOLE)), WHOLE.astype(np.float32)
    half = mask_prob * (np.arange(SIDE) < 110)
    assert mask_coverage(STILL, model, CROP, mask_prob) == pytest.approx(1.0, abs=0.02)
    assert mask_coverage(STILL, model, CROP, half) == pytest.approx(0.5, abs=0.05)
    assert mask_coverage(AWAY, model, CROP, mask_prob) == pytest.approx(1 - 40 / 140, abs=0.05)
    assert mask_coverage(STILL, model, CROP, 0.7 * mask_prob) == pytest.approx(0.7, abs=0.02)


def test_coverage_asks_nothing_of_what_is_hidden_but_something_of_what_has_no_depth() -> None:
    model, half = plate_model(view_of(features_of(0), WHOLE)), (WHOLE & (np.arange(SIDE) < 110)).astype(np.float32)
    hidden, unknown = (np.where(half > 0, DEPTH_M, np.float32(z)) for z in (0.5, 0.0))
    assert mask_coverage(STILL, model, replace(CROP, depth_m=hidden), half) == pytest.approx(1.0, abs=0.02)
    assert mask_coverage(STILL, model, replace(CROP, depth_m=unknown), half) == pytest.approx(0.5, abs=0.05)
    assert mask_coverage(STILL, model, replace(CROP, depth_m=np.full_like(DEPTH_M, 0.5)), half) is None
    assert mask_coverage(STILL, ObjectModel("unknown", [], None, None), CROP, half) is None


def test_coordinates_of_the_flow_agree_with_the_right_pose_alone() -> None:
    view, ahead = view_of(features_of(0), WHOLE), np.array([0.0, 0.0, 1.0])
    nocs = np.nan_to_num((view.feature_points_obj - ahead) / STILL.scale_m).astype(np.float32)
    said = NocsMap(nocs, WHOLE.astype(np.float32), np.full((SIDE, SIDE), 0.02, np.float32))
    there, beside = (SimilarityPose(np.eye(3), ahead + shift, STILL.scale_m) for shift in (0.0, AWAY.t_cam_obj))
    middle = WHOLE & (np.abs(nocs) < 0.5).all(axis=2)
    assert coordinate_error(there, view, CROP, said, middle) == pytest.approx(0.0, abs=1e-3)
    assert coordinate_error(beside, view, CROP, said, middle) == pytest.approx(0.1 / STILL.scale_m, abs=1e-3)
    assert coordinate_error(there, view, replace(CROP, depth_m=np.zeros_like(DEPTH_M)), said, middle) is None


def test_new_side_is_what_no_view_could_see() -> None:
    depth_m = np.full((SIDE, SIDE), 3.0, np.float32)
    depth_m[WHOLE] = 1.0  # a plate of 0.35 m before a wall
    view = replace(view_of(features_of(0), WHOLE), crop=replace(CROP, depth_m=depth_m))
    plate = view.feature_points_obj[WHOLE][::7].astype(np.float64)
    model = ObjectModel("plate", [view], 0.2, ObjectCloud(plate, viewpoints_obj=np.zeros_like(plate)))
    points = np.array([
        [0.0, 0.0, 1.0],  # on the plate
        [0.05, 0.0, 1.2],  # behind it
        [0.25, 0.0, 1.0],  # beside it, where the wall was seen
        [5.0, 0.0, 1.2],  # outside that picture
    ])
    assert is_new_side(STILL, points, model).tolist() == [False, True, False, True]
    around = SimilarityPose(np.diag([-1.0, 1.0, -1.0]), np.array([0, 0, 2.0]), 0.2)  # seen from behind
    assert is_new_side(around, np.array([[0.0, 0.0, 0.995]]), model).tolist() == [True]


def test_mask_keeps_no_place_that_a_view_has_looked_through() -> None:
    depth_m = np.full((SIDE, SIDE), 3.0, np.float32)
    depth_m[WHOLE] = 1.0  # a plate of 0.35 m before a wall
    depth_m[:, 200:] = 0.0
    view = replace(view_of(features_of(0), WHOLE), crop=replace(CROP, depth_m=depth_m))
    model = ObjectModel("plate", [view], 0.2, None)
    places = {
        (0.0, 0.0, 1.0): True,  # on the plate
        (0.05, 0.0, 1.2): True,  # behind it
        (0.25, 0.0, 1.2): False,  # a hand beside it, where the wall was seen
        (0.0, 0.0, 0.9): False,  # a hand before it
        (0.0, 0.0, 0.995): True,  # nearer than depth cameras are right
        (0.175, 0.0, 1.0): True,  # at its edge: the outline is no better
        (0.26, 0.0, 1.0): True,  # where depth was unknown
        (5.0, 0.0, 1.2): True,  # outside that picture
        (np.nan, np.nan, np.nan): True,  # without depth now
    }
    points_obj = np.array([list(places)], np.float32)
    kept = outside_empty_space(np.ones((1, len(places)), bool), points_obj, STILL, model)
    assert kept.tolist() == [list(places.values())]
