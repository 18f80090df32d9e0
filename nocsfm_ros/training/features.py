"""The backbone's features of rendered views, computed once and stored beside them; the flow learns with it frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from nocsfm_ros.flow.model import FEATURE_SIDE
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.training.augmentation import augment_picture
from nocsfm_ros.training.pairs import FEATURES


def store_features(folder: Path, backbone: Backbone, report: Callable[[str], None]) -> int:
    """Write FEATURES of every shard that has none yet; pictures are augmented first, each in one way of its own.

    Args:
        folder: what `nocsfm render` wrote.
        backbone: whose features.
        report: gets a line per shard.

    Returns:
        Channels of the features.
    """
    channels = 0
    for shard in sorted(path for path in folder.glob("shard_*") if path.suffix != ".partial"):
        path = shard / f"{FEATURES}.npy"
        if not path.exists():
            pictures = np.load(shard / "rgb.npy", mmap_mode="r")
            random = np.random.default_rng(int(shard.name.removeprefix("shard_")))
            stored = np.stack([_features(picture, backbone, random) for picture in pictures])
            np.save(path.with_suffix(".partial.npy"), stored)
            path.with_suffix(".partial.npy").replace(path)
            report(f"features of {shard.name}: {stored.shape}")
        channels = int(np.load(path, mmap_mode="r").shape[-1])
    return channels


def _features(picture: np.ndarray, backbone: Backbone, random: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    seen = augment_picture(np.asarray(picture), random)
    larger = cv2.resize(seen, (FEATURE_SIDE, FEATURE_SIDE), interpolation=cv2.INTER_LINEAR)
    return backbone.encode(larger.astype(np.uint8)).features.astype(np.float16)
