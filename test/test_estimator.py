"""What objects share of one frame, and what a mask may cover."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.config import Config
from nocsfm_ros.estimator import MEMORY_SHIFT, MEMORY_TURN, Estimator, memory_covariance
from nocsfm_ros.geometry.camera import rolled, rolled_box
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.masks import within_memory
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.localiser import encode_reference, part_around
from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.registration import ObjectCloud, Registration
from nocsfm_ros.types import ObjectCrop, PoseEstimate, RgbdFrame, SimilarityPose, Uint8Array

K = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1.0]])
BLOCK = np.zeros((128, 128), bool)
BLOCK[32:96, 48:80] = True


class CountingBackbone:
    """Notes the sizes of the pictures it is given."""

    stride = 16

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        self.sizes.append(rgb.shape[:2])
        return FeatureMap(np.ones((rgb.shape[0] // 16, rgb.shape[1] // 16, 1), np.float32), 16.0)


class MeanColour:
    """Each cell's mean colour."""

    stride = 16

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        rows, columns = rgb.shape[0] // 16, rgb.shape[1] // 16
        cells = rgb[: 16 * rows, : 16 * columns].reshape(rows, 16, columns, 16, 3).mean(axis=(1, 3))
        return FeatureMap(cells.astype(np.float32), 16.0)


def test_a_frame_is_encoded_once_for_all_objects_and_the_next_one_again() -> None:
    backbone = CountingBackbone()
    nothing: Any = None
    estimator = Estimator(nothing, backbone, Config())  # type: ignore[arg-type]
    frames = [RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32), np.eye(3)) for _ in range(2)]
    first = [estimator.encode_frame(frames[0]) for _ in range(3)]
    assert first[0] is first[2] and first[0].scale == 10 and backbone.sizes == [(480, 640)]
    assert estimator.encode_frame(frames[1]) is not first[0] and len(backbone.sizes) == 2


@pytest.mark.parametrize(("confidence", "is_taken"), [(0.1, False), (0.39, False), (0.41, True)])
def test_surface_answers_in_place_of_the_mask_only_where_it_is_believed(
    monkeypatch: pytest.MonkeyPatch, confidence: float, is_taken: bool
) -> None:
    pose = SimilarityPose(np.eye(3), np.array([0, 0, 1.0]), 0.2)
    picture = np.zeros((2, 2), bool), np.zeros((2, 2, 3), np.float32)
    by_mask, on_surface = PoseEstimate(pose, *picture), PoseEstimate(pose, *picture, confidence=confidence)
    for name, answer in (
        ("_look", SimpleNamespace(crop=SimpleNamespace(depth_m=np.zeros((2, 2), np.float32)))),
        ("_from_mask", by_mask), ("_from_surface", on_surface),
    ):
        monkeypatch.setattr(Estimator, name, lambda *_, answer=answer: answer)
    nothing: Any = None
    estimator = Estimator(nothing, CountingBackbone(), Config())  # type: ignore[arg-type]
    view: Any = SimpleNamespace(R_cam_obj=np.eye(3))
    model = ObjectModel("thing", [view], 0.2, ObjectCloud(np.zeros((1, 3))))
    frame = RgbdFrame(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32), np.eye(3))
    taken = estimator.estimate(frame, (0, 0, 1, 1), model, [pose])  # type: ignore[arg-type]
    assert taken is (on_surface if is_taken else by_mask)


def test_object_turned_by_quarters_is_seen_as_the_reference_turned_by_as_many() -> None:
    random = np.random.default_rng(0)
    frame = RgbdFrame(np.full((128, 128, 3), 60, np.uint8), np.full((128, 128), 0.6, np.float32), K)
    prints = random.integers(0, 255, (8, 4, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frame.rgb[BLOCK], frame.depth_m[BLOCK] = prints.reshape(-1, 3), 0.5
    flow: Any = SimpleNamespace(
        crop_side=128, encode_view=lambda *_: None,
        predict=lambda *_: SimpleNamespace(mask_prob=np.ones((128, 128), np.float32)),
    )
    estimator = Estimator(flow, MeanColour(), Config())  # type: ignore[arg-type]
    box_xywh = box_from_mask(BLOCK)
    assert box_xywh is not None
    model = estimator.make_model("block", frame, BLOCK, box_xywh)
    assert model.views == model.sights[:1] and model.rolled == model.sights[1:] and model.cloud is not None
    for view in model.sights:
        assert view is estimator._look(frame, box_xywh, model.sights).view
        assert view is model.nearest_view(view.R_cam_obj)
        # the frame of its own coordinates is turned with the picture, the object's is not
        np.testing.assert_allclose(sorted(view.points_obj[:, 2]), sorted(model.views[0].points_obj[:, 2]), atol=1e-4)
        np.testing.assert_allclose(view.T_cam_obj @ view.T_obj_anchor, model.views[0].T_cam_obj, atol=1e-3)
        frame, box_xywh = rolled(frame)[0], rolled_box(box_xywh, 128)


def test_mask_ends_near_the_known_box_and_keeps_pixels_without_depth() -> None:
    points = np.random.default_rng(0).uniform(-0.05, 0.05, (500, 3))
    model = ObjectModel("box", [], 0.4, ObjectCloud(points))
    x_m = np.array([0.0, 0.09, 0.13])  # the box ends at 0.05, and 0.06 is the slack
    points_obj = np.stack([x_m, np.zeros(3), np.zeros(3)], axis=1)[None].astype(np.float32)
    pose = SimilarityPose(np.eye(3), np.array([0, 0, 1.0]), 0.4)
    assert within_memory(np.ones((1, 3), bool), points_obj, pose, model).tolist() == [[True, True, False]]
    assert within_memory(np.ones((1, 3), bool), np.full_like(points_obj, np.nan), pose, model).all()


def test_answers_covariance_is_that_of_the_fit_and_of_the_memory() -> None:
    nothing: Any = None
    estimator = Estimator(nothing, CountingBackbone(), Config())  # type: ignore[arg-type]
    crop = ObjectCrop(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.float32), np.eye(3), np.eye(3))
    nocs_map = SimpleNamespace(nocs=np.zeros((4, 4, 3), np.float32))
    view = SimpleNamespace(nocs_in_object=lambda nocs, _: nocs)
    look: Any = SimpleNamespace(crop=crop, frame=SimpleNamespace(size_wh=(4, 4)), view=view, nocs_map=nocs_map)
    fit = Registration(SimilarityPose(np.eye(3), np.array([0, 0, 1.0]), 0.5), 1.0, 0.0, np.eye(6))
    answer = estimator._answer(look, np.ones((4, 4), bool), "", fit)
    np.testing.assert_allclose(answer.covariance - np.eye(6), memory_covariance(0.5))
    shift_m, turn = np.sqrt(np.diag(memory_covariance(0.5))[[0, 3]])
    assert shift_m == pytest.approx(0.5 * MEMORY_SHIFT) and turn == pytest.approx(MEMORY_TURN) and turn > 0


def test_part_of_a_picture_is_looked_for_as_the_whole_would_be() -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[200:290, 300:420] = True
    backbone: Any = MeanColour()
    whole = encode_reference(rgb, mask, backbone)
    box_xywh = box_from_mask(mask)
    assert box_xywh is not None
    part = encode_reference(*part_around(rgb, mask, box_xywh)[:2], backbone)
    np.testing.assert_allclose(part.features, whole.features, atol=1e-6)


def test_large_picture_is_kept_no_larger_than_it_is_looked_at_and_is_as_many_metres() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    rgb = coarse.repeat(40, axis=0).repeat(40, axis=1)
    mask = np.zeros((2400, 3200), bool)
    mask[1000:1600, 1400:2200] = True
    backbone: Any = MeanColour()
    whole = encode_reference(rgb, mask, backbone, 1e-4)
    box_xywh = box_from_mask(mask)
    assert box_xywh is not None
    part, part_mask, shrink = part_around(rgb, mask, box_xywh)
    assert part.shape[:2] == part_mask.shape and max(part.shape) < 700 and shrink == 2.5
    small = encode_reference(part, part_mask, backbone, 1e-4 * shrink)
    assert small.side_m == pytest.approx(whole.side_m, rel=0.01)
    assert np.abs(small.features - whole.features).mean() < 6  # of 255
