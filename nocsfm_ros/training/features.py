"""The backbone's features of rendered views, computed once and stored beside them; the flow learns with it frozen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from nocsfm_ros.flow.model import FEATURE_SIDE
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.training.augmentation import augment_picture
from nocsfm_ros.training.view_tensors import FEATURES

DEAD_S = 600.0  # a file not written to for so long was left by a killed process


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
            _save_whole(path, stored)
            kept_origin.write_text(origin, encoding="utf-8")
            report(f"features of {shard.name}: {stored.shape}")
        channels = int(np.load(path, mmap_mode="r").shape[-1])
    return channels


def _save_whole(path: Path, stored: np.ndarray) -> None:  # type: ignore[type-arg]
    """Write a file whole or not at all, also while another training writes the same one."""
    for partial in path.parent.glob(f"{path.stem}.*partial.npy"):
        with suppress(FileNotFoundError):  # the other one was just finished
            if time.time() - partial.stat().st_mtime > DEAD_S:
                partial.unlink()
    partial = path.with_suffix(f".{os.getpid()}.partial.npy")
    np.save(partial, stored)
    partial.replace(path)


def _features(picture: np.ndarray, backbone: Backbone, random: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    return backbone.encode(augment_picture(np.asarray(picture), random)).features.astype(np.float16)
