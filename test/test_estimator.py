"""What objects share of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from nocsfm_ros.config import Config
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.types import RgbdFrame, Uint8Array


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
