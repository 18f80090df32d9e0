"""Stored features: one per view, found again, not computed twice."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

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


def test_two_trainings_may_store_the_same_features_and_leftovers_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "shard_00000"
    shard.mkdir()
    np.save(shard / "rgb.npy", np.full((1, 256, 256, 3), 90, np.uint8))
    (shard / f"{FEATURES}.7.partial.npy").touch()
    os.utime(shard / f"{FEATURES}.7.partial.npy", (0, 0))
    save, begun = np.save, list[Path]()

    def save_after_the_other(path: Path, array: np.ndarray) -> None:
        save(path, array)
        begun.append(path)
        if len(begun) == 1:
            with monkeypatch.context() as other:
                other.setattr(os, "getpid", lambda: 8)
                store_features(tmp_path, "mean", CountingBackbone(), print)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "save", save_after_the_other)
    assert store_features(tmp_path, "mean", CountingBackbone(), print) == 3  # type: ignore[arg-type]
    assert len(begun) == 2
    assert sorted(path.name for path in shard.iterdir()) == [f"{FEATURES}.npy", f"{FEATURES}.txt", "rgb.npy"]
