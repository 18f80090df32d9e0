"""The backbone's features of rendered views, computed once and stored beside them; the flow learns with it frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nocsfm_ros.flow.model import FEATURE_SIDE
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.training.augmentation import augment_picture
from nocsfm_ros.training.view_tensors import FEATURES


def store_features(folder: Path, name: str, backbone: Backbone, report: Callable[[str], None]) -> int:
    """Write FEATURES of every shard that has none of this backbone yet.

    Pictures are augmented first, each in one way of its own.

    Args:
        folder: what `nocsfm render` wrote.
        name: of the backbone, kept beside the features: those of another one are replaced.
        backbone: whose features.
        report: gets a line per shard.

    Returns:
        Channels of the features.
    """
    channels, origin = 0, f"{name} of {FEATURE_SIDE}-pixel views"
    for shard in sorted(path for path in folder.glob("shard_*") if path.suffix != ".partial"):
        path, kept_origin = shard / f"{FEATURES}.npy", shard / f"{FEATURES}.txt"
        if not (kept_origin.is_file() and kept_origin.read_text(encoding="utf-8") == origin and path.is_file()):
            kept_origin.unlink(missing_ok=True)
            pictures = np.load(shard / "rgb.npy", mmap_mode="r")
            random = np.random.default_rng(int(shard.name.removeprefix("shard_")))
            stored = np.stack([_features(picture, backbone, random) for picture in pictures])
            np.save(path.with_suffix(".partial.npy"), stored)
            path.with_suffix(".partial.npy").replace(path)
            kept_origin.write_text(origin, encoding="utf-8")
            report(f"features of {shard.name}: {stored.shape}")
        channels = int(np.load(path, mmap_mode="r").shape[-1])
    return channels


def _features(picture: np.ndarray, backbone: Backbone, random: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    return backbone.encode(augment_picture(np.asarray(picture), random)).features.astype(np.float16)
