"""How often the object is found in the whole frame, and at what cost: 200 fixed pairs of real frames.

Run from the project root: ``python benchmarks/bench_matching.py [--frame-side 640] [--threads 2]``. The frames
are those of ``../shared/data/hots118``; without that folder there is nothing to measure and the command says so.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.evaluation.backbones import is_centre_on
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.matching.backbone import load_backbone
from nocsfm_ros.matching.localiser import encode_frame, encode_reference, find_candidates
from nocsfm_ros.types import BoxXywh

FOLDER = Path("../shared/data/hots118")
MIN_PIXELS = 300


def choose_pairs(semantic: list[np.ndarray], number: int) -> list[tuple[int, int, int]]:  # type: ignore[type-arg]
    """(object, live frame, reference frame), the same every time."""
    frames: dict[int, list[int]] = {}
    for index, labels in enumerate(semantic):
        for label, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
            if label and pixels > MIN_PIXELS:
                frames.setdefault(int(label), []).append(index)
    chooser = random.Random(0)
    shots = [(label, index) for label, indices in frames.items() for index in indices if len(indices) > 1]
    chooser.shuffle(shots)
    return [
        (label, live, chooser.choice([i for i in frames[label] if i != live]))
        for label, live in shots[:number]
    ]


def box_iou(a: BoxXywh, b: BoxXywh) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    overlap = max(0.0, width) * max(0.0, height)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--frame-side", type=int, default=MatchingConfig().frame_side)
    parser.add_argument("--threshold", type=float, default=MatchingConfig().similarity_threshold)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not FOLDER.is_dir():
        print(f"skipped: {FOLDER} is not there", file=sys.stderr)
        return 0
    backbone = load_backbone(options.backbone, "cpu")
    config = MatchingConfig(
        frame_side=options.frame_side, similarity_threshold=options.threshold, max_candidates=4
    )
    colour = sorted((FOLDER / "rgb").iterdir())
    semantic = [
        cv2.imread(str(FOLDER / "semantic" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED) for path in colour
    ]
    first, any_of_four, ious, wall_ms, cpu_ms = [], [], [], [], []
    for label, live, reference in choose_pairs(semantic, options.pairs):
        reference_rgb, live_rgb = (
            np.ascontiguousarray(cv2.imread(str(colour[i]))[..., ::-1]) for i in (reference, live)
        )
        wanted = encode_reference(reference_rgb, semantic[reference] == label, backbone)
        mask = semantic[live] == label
        begin, begin_cpu = time.perf_counter(), time.process_time()
        candidates = find_candidates(encode_frame(live_rgb, backbone, config), [wanted], config)
        wall_ms.append((time.perf_counter() - begin) * 1e3)
        cpu_ms.append((time.process_time() - begin_cpu) * 1e3)
        hits = [is_centre_on(candidate, mask) for candidate in candidates]
        first.append(any(hits[:1]))
        any_of_four.append(any(hits))
        box = box_from_mask(mask)
        ious += [box_iou(candidates[hits.index(True)].box_xywh, box)] if any(hits) and box else []
    print(
        f"{len(first)} pairs at {options.frame_side} px: centre on the object {np.mean(first):.0%} first, "
        f"{np.mean(any_of_four):.0%} in four; box IoU of hits {np.median(ious):.2f} (median); "
        f"{np.median(wall_ms):.0f} ms wall, {np.median(cpu_ms):.0f} ms CPU"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
