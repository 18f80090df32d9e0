"""The options of `nocsfm evaluate-backbone`, turned into what is measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from nocsfm_ros.checkpoints import EMBEDDED
from nocsfm_ros.data.catalogue import DEFAULT_CACHE
from nocsfm_ros.data.library import build_cache
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.search_frames import SearchPair, render_search_pair
from nocsfm_ros.data.views import NUM_SURFACES, ViewDataset
from nocsfm_ros.device import choose_device
from nocsfm_ros.evaluation.backbones import backbone_table, evaluate_backbones, hots_pairs
from nocsfm_ros.evaluation.evaluate import describe_machine, weights_sha256
from nocsfm_ros.matching.backbone import EFFICIENTNET, Backbone, load_backbone
from nocsfm_ros.matching.search_head import load_search_backbone

WITH_HEAD = " + search head"
NO_REAL = "hots118: no `--real DIR` was given"


def run_evaluate_backbone(options: argparse.Namespace, report: Callable[[str], None]) -> str:
    """Carry out `nocsfm evaluate-backbone`; returns the table. Raises ConfigError and CheckpointError."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    names, backbones = options.backbone or [EFFICIENTNET], dict[str, Backbone]()
    for name in names:
        backbones[name] = load_backbone(name, device)
        with_head = load_search_backbone(name, backbones[name], EMBEDDED, device)
        if with_head is not backbones[name]:
            backbones[f"{name}{WITH_HEAD}"] = with_head
    views = ViewDataset(options.data)
    searches = {"rendered": rendered_pairs(options.cache or DEFAULT_CACHE, options.frames)}
    if options.real is not None:
        searches["hots118"] = hots_pairs(options.real / "hots118", options.questions)
    command = f"nocsfm evaluate-backbone {' '.join(f'--backbone {name}' for name in names)} --data {options.data}"
    command += f" --pairs {options.pairs} --frames {options.frames}"
    command += f" --real {options.real} --questions {options.questions}" if options.real is not None else ""
    facts = {
        "command": command, "machine": describe_machine(), "left_out": [NO_REAL] if options.real is None else [],
        "weights_sha256": {name: weights_sha256(Path(name)) for name in backbones if Path(name).is_dir()},
    }
    return backbone_table(evaluate_backbones(backbones, views, options.pairs, searches, options.out, facts, report))


def rendered_pairs(cache: Path, count: int) -> Iterator[SearchPair]:
    """The same `count` pairs of frames every time, of meshes never trained on."""
    library, renderer = build_cache(cache), Renderer(surface_pool(1, NUM_SURFACES))  # 1: surfaces of the test split
    for number in range(count):
        yield render_search_pair(np.random.default_rng([0, number]), library, renderer, heldout=True)
