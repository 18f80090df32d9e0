"""`nocsfm evaluate-backbone`: how well backbones match points and find objects, on the same pictures, and how fast."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nocsfm_ros.config import MatchingConfig
from nocsfm_ros.data.search_frames import SearchPair
from nocsfm_ros.data.views import CROP_SIZE, ViewDataset
from nocsfm_ros.evaluation.metrics import BINS, bootstrap_interval
from nocsfm_ros.evaluation.pairs import draw_pairs, view_change_deg
from nocsfm_ros.evaluation.plots import BINS as SINGLE_BINS
from nocsfm_ros.evaluation.real_questions import There, hots_questions
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.matching.localiser import Candidate, encode_frame, encode_reference, find_candidates
from nocsfm_ros.training.match_samples import CORRECT, matches
from nocsfm_ros.training.view_tensors import DiskViews
from nocsfm_ros.types import BoolArray

# A threshold is tuned to one backbone's cosines; where the centres of the candidates lie does not depend on it.
SEARCH = MatchingConfig(similarity_threshold=-1.0, max_candidates=4)
FRAME_WH = (640, 480)
TIMED, WARM_UP = 15, 3
Backbones = Mapping[str, Backbone]
Figures = dict[str, Any]


def evaluate_backbones(
    backbones: Backbones, views: ViewDataset, num_pairs: int, searches: Mapping[str, Iterable[SearchPair]], out: Path,
    facts: Mapping[str, Any], report: Callable[[str], None],
) -> Figures:
    """Measure every backbone on the same pairs of views and the same frames; write metrics.json and table.md.

    Args:
        backbones: by name.
        views: of meshes never trained on.
        num_pairs: of views.
        searches: sets of frames by name.
        out: folder.
        facts: go into metrics.json as they are.
        report: gets lines for people.

    Returns:
        What metrics.json holds: per backbone "matches" by bins of view change, "found" by set, and times.
    """
    of_matches = match_figures(backbones, views, num_pairs)
    report(f"{num_pairs} pairs of views matched")
    found: dict[str, dict[str, Figures]] = {name: {} for name in backbones}
    for set_name, pairs in searches.items():
        for name, figures in search_figures(backbones, pairs).items():
            found[name][set_name] = figures
        report(f"{set_name}: searched")
    rows = {
        name: {
            "matches": of_matches[name], "found": found[name],
            "crop": encode_times(backbone, (CROP_SIZE, CROP_SIZE)), "frame": encode_times(backbone, FRAME_WH),
        }
        for name, backbone in backbones.items()
    }
    metrics = {"rows": rows, **facts}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (out / "table.md").write_text(backbone_table(metrics), encoding="utf-8")
    return metrics


def match_figures(backbones: Backbones, views: ViewDataset, num_pairs: int) -> dict[str, Figures]:
    """Per backbone and bin of view change: the share of matches of a pair that are right, and how many right ones."""
    pairs, store = draw_pairs(views, num_pairs), DiskViews(views, CROP_SIZE, torch.device("cpu"))
    degrees = np.array([view_change_deg(views[live], views[reference]) for live, reference in pairs])
    right: dict[str, list[tuple[float, int]]] = {name: [] for name in backbones}
    for live, reference in pairs:
        seen = store.take([reference]), store.take([live])
        for name, backbone in backbones.items():
            errors = matches(backbone, *seen)[2]
            correct = int((errors < CORRECT).sum())
            right[name].append((100 * correct / max(len(errors), 1), correct))
    return {name: _by_bins(np.array(of_pairs), degrees) for name, of_pairs in right.items()}


def _by_bins(right: np.ndarray, degrees: np.ndarray) -> Figures:  # type: ignore[type-arg]
    bins = {}
    for name in SINGLE_BINS:
        low, high = BINS[name]
        chosen = right[(degrees >= low) & (degrees < high)]
        if len(chosen):
            bins[name] = {"n": len(chosen), **_percent("correct", chosen[:, 0]),
                          "correct_matches_p50": float(np.median(chosen[:, 1]))}
    return bins


def search_figures(backbones: Backbones, pairs: Iterable[SearchPair]) -> dict[str, Figures]:
    """Per backbone: how often the first candidate's centre lies on the object, and that of any of the first four."""
    hits: dict[str, list[tuple[bool, bool]]] = {name: [] for name in backbones}
    for pair in pairs:
        for name, backbone in backbones.items():
            wanted = encode_reference(pair.reference_rgb, pair.reference_mask, backbone)
            candidates = find_candidates(encode_frame(pair.rgb, backbone, SEARCH), [wanted], SEARCH)
            on_object = [is_centre_on(candidate, pair.mask) for candidate in candidates]
            hits[name].append((any(on_object[:1]), any(on_object)))
    return {
        name: {"n": len(of_pairs), **_percent("first", 100.0 * np.array(of_pairs)[:, 0]),
               **_percent("any_of_four", 100.0 * np.array(of_pairs)[:, 1])}
        for name, of_pairs in hits.items() if of_pairs
    }


def is_centre_on(candidate: Candidate, mask: BoolArray) -> bool:
    """Whether a candidate's centre lies in a (H, W) mask of the frame."""
    u, v = (int(np.clip(round(x), 0, n - 1)) for x, n in zip(candidate.centre_uv, mask.shape[::-1], strict=True))
    return bool(mask[v, u])


def _percent(name: str, values: np.ndarray) -> Figures:  # type: ignore[type-arg]
    interval = bootstrap_interval(values)
    return {name: round(float(values.mean()), 1), f"{name}_interval": [round(end, 1) for end in interval]}


def encode_times(backbone: Backbone, size_wh: tuple[int, int]) -> Figures:
    """Median milliseconds of a picture of noise, and of the processor, which others on the machine lengthen less."""
    rgb = np.random.default_rng(0).integers(0, 255, (*size_wh[::-1], 3), dtype=np.uint8)
    spent = []
    for _ in range(WARM_UP + TIMED):
        begin = time.perf_counter(), time.process_time()
        backbone.encode(rgb)
        spent.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    wall, processor = 1e3 * np.median(spent[WARM_UP:], axis=0)
    return {"ms": round(float(wall), 2), "processor_ms": round(float(processor), 2)}


def hots_pairs(folder: Path, count: int) -> Iterator[SearchPair]:
    """Those of the first `count` questions of `nocsfm real` about hots118 whose object is in the frame."""
    for question in hots_questions(folder, count):
        if question.there is There.YES and question.mask is not None:
            given = question.reference
            yield SearchPair(given.rgb, given.mask, question.frame.rgb, question.mask)


def backbone_table(metrics: Figures) -> str:
    """Markdown: a line per backbone, percentages with their 95 % intervals."""
    sets = list(dict.fromkeys(name for row in metrics["rows"].values() for name in row["found"]))
    head = ["backbone", *(f"right matches {name} deg" for name in SINGLE_BINS),
            *(f"{name}: {what}" for name in sets for what in ("first", "in four")), "ms crop", "ms frame"]
    lines = [head, ["---"] * len(head)]
    for name, row in metrics["rows"].items():
        searches = [row["found"].get(set_name, {}) for set_name in sets]
        lines.append([
            name, *(_cell(row["matches"].get(of_bin, {}), "correct") for of_bin in SINGLE_BINS),
            *(_cell(figures, key) for figures in searches for key in ("first", "any_of_four")),
            f"{row['crop']['ms']:.0f}", f"{row['frame']['ms']:.0f}",
        ])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    return text + "".join(f"\nLeft out: {sentence}.\n" for sentence in metrics.get("left_out", ()))


def _cell(figures: Figures, key: str) -> str:
    if not figures:
        return "-"
    low, high = figures[f"{key}_interval"]
    return f"{figures[key]:.0f} % ({low:.0f}-{high:.0f})"
