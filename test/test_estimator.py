"""What objects share of one frame, and what a mask may cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nocsfm_ros.config import Config
from nocsfm_ros.estimator import Estimator, within_memory
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.registration import ObjectCloud
from nocsfm_ros.types import RgbdFrame, SimilarityPose, Uint8Array


class CountingBackbone:
    """Notes the sizes of the pictures it is given."""

    stride = 16

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        self.sizes.append(rgb.shape[:2])
        return FeatureMap(np.ones((rgb.shape[0] // 16, rgb.shape[1] // 16, 1), np.float32), 16.0)


def test_a_frame_is_encoded_once_for_all_objects_and_the_next_one_again() -> None:
    backbone = CountingBackbone()
    nothing: Any = None
    estimator = Estimator(nothing, backbone, Config())  # type: ignore[arg-type]
    frames = [RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32), np.eye(3)) for _ in range(2)]
    first = [estimator.encode_frame(frames[0]) for _ in range(3)]
    assert first[0] is first[2] and first[0].scale == 10 and backbone.sizes == [(480, 640)]
    assert estimator.encode_frame(frames[1]) is not first[0] and len(backbone.sizes) == 2


@pytest.mark.parametrize(("half_size_m", "kept"), [(0.05, [1, 1, 0, 0]), (0.3, [1, 1, 1, 0])])
def test_mask_ends_near_the_known_box_and_where_coordinates_end(half_size_m: float, kept: list[int]) -> None:
    points = np.random.default_rng(0).uniform(-half_size_m, half_size_m, (500, 3))
    model = ObjectModel("box", [], 0.4, ObjectCloud(points))
    x_m = np.array([0.0, 0.06, 0.19, 0.21])  # 0.4 m of scale: coordinates end at 0.2
    points_obj = np.stack([x_m, np.zeros(4), np.zeros(4)], axis=1)[None].astype(np.float32)
    pose = SimilarityPose(np.eye(3), np.array([0, 0, 1.0]), 0.4)
    assert within_memory(np.ones((1, 4), bool), points_obj, pose, model).tolist() == [kept]
    unknown = np.full_like(points_obj, np.nan)
    assert within_memory(np.ones((1, 4), bool), unknown, pose, model).all()
