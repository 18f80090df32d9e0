"""How often a box that fits the object is among the first places searched, with and without search head and depth.

Run from the project root, after ``nocsfm render --videos data/videos``:
``python benchmarks/bench_search.py [--videos data/videos --videos data/videos_1]``. Every 20th frame in which half of
the object or more is seen is searched with the reference alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nocsfm_ros.checkpoints import EMBEDDED
from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.data.bags import BagSource
from nocsfm_ros.data.sequences import LABEL_VISIBLE, read_reference, read_truths
from nocsfm_ros.evaluation.summary import visible_fractions
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.matching.backbone import EFFICIENTNET, Backbone, load_backbone
from nocsfm_ros.matching.localiser import box_iou, encode_frame, encode_reference, find_candidates
from nocsfm_ros.matching.search_head import load_search_backbone

STRIDE, MIN_VISIBLE, FITS = 20, 0.5, 0.4
CONFIG = MatchingConfig(max_candidates=4)
Ranks = dict[str, list[int]]  # of the first box that fits, CONFIG.max_candidates for none


def search_video(folder: Path, backbones: dict[str, Backbone]) -> Ranks:
    """Every row's ranks in one video."""
    source, truths = BagSource(folder / "sequence"), read_truths(folder / "sequence")
    reference, ranks = read_reference(folder, folder.name), Ranks()
    if reference.depth_m is None or reference.K is None:
        raise SystemExit(f"{folder}: a reference without depth")
    m_per_pixel = float(np.median(reference.depth_m[reference.mask & (reference.depth_m > 0)]) / reference.K[0, 0])
    fractions = visible_fractions(truths)
    for index in (i for i in range(0, len(source), STRIDE) if fractions[i] >= MIN_VISIBLE):
        frame, box = source.frame(index), box_from_mask(truths[index].labels == LABEL_VISIBLE)
        for name, backbone in backbones.items():
            wanted = encode_reference(reference.rgb, reference.mask, backbone, m_per_pixel)
            encoded = encode_frame(frame.rgb, backbone, CONFIG, frame.depth_m, float(frame.K[0, 0]))
            for row, sought in ((name, replace(wanted, side_m=None)), (f"{name}, depth", wanted)):
                found = [candidate.box_xywh for candidate in find_candidates(encoded, [sought], CONFIG)]
                fits = [i for i, other in enumerate(found) if box is not None and box_iou(other, box) > FITS]
                ranks.setdefault(row, []).append(min(fits, default=CONFIG.max_candidates))
    return ranks


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, action="append", help="default: data/videos; can be repeated")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain = load_backbone(EFFICIENTNET, "cpu")
    backbones = {"features": plain, "search head": load_search_backbone(EFFICIENTNET, plain, EMBEDDED, "cpu")}
    print("| searched with | set | frames | box fits: first | first or second | one of four |")
    print("|---" * 6 + "|")
    for videos in options.videos or [Path("data/videos")]:
        ranks = Ranks()
        for folder in sorted(path.parent for path in videos.glob("*/sequence")):
            for row, of_video in search_video(folder, backbones).items():
                ranks.setdefault(row, []).extend(of_video)
        for row, found in ranks.items():
            shares = " | ".join(f"{100 * np.mean(np.array(found) < n):.0f} %" for n in (1, 2, 4))
            print(f"| {row} | {videos} | {len(found)} | {shares} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
