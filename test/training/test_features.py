"""Stored features: one per view, found again, not computed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.training.features import store_features
from nocsfm_ros.training.view_tensors import FEATURES
from nocsfm_ros.types import Uint8Array


class CountingBackbone:
    """Mean colour of each cell as its features."""

    calls = 0

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        self.calls += 1
        side = rgb.shape[0] // 16
        means = rgb.reshape(side, 16, side, 16, 3).mean(axis=(1, 3))
        return FeatureMap((means / np.linalg.norm(means, axis=2, keepdims=True)).astype(np.float32), 16)


def test_store_features_writes_each_shard_once(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"shard_{number:05d}").mkdir()
        np.save(tmp_path / f"shard_{number:05d}" / "rgb.npy", np.full((3, 256, 256, 3), 90, np.uint8))
    (tmp_path / "shard_00002.partial").mkdir()
    backbone, lines = CountingBackbone(), list[str]()
    assert store_features(tmp_path, "mean", backbone, lines.append) == 3  # type: ignore[arg-type]
    assert backbone.calls == 6 and len(lines) == 2
    stored = np.load(tmp_path / "shard_00001" / f"{FEATURES}.npy")
    assert stored.shape == (3, 16, 16, 3) and stored.dtype == np.float16
    assert store_features(tmp_path, "mean", backbone, lines.append) == 3 and backbone.calls == 6  # type: ignore[arg-type]
    store_features(tmp_path, "another", backbone, lines.append)  # type: ignore[arg-type]
    assert backbone.calls == 12, "features of another backbone are not taken for its own"
