"""Does the flow use what it is given? Its mask with the picture greyed, the depth gone or torn, another object asked
for, a hand on the object, and the object away.

IoU of the flow's own mask with the visible object, mean over the pairs:
``as_is``; ``grey`` both pictures without colour; ``no_depth`` live depth all zeros; ``holes`` a fifth of the live depth
lost in blobs; ``flat`` the pairs whose object shows an almost plane surface;
``hand_1.0`` a scene without a hand; ``hand_0.9``, ``hand_0.7``, ``hand_0.5`` the same with one that leaves about that
share of the object visible.

Where the asked object is not to be seen, and the right mask is empty:
``other_object`` the reference shows another mesh: IoU with what the frame shows instead, so that low is right;
``absent`` the scene of ``hand_1.0`` without the object: 1 for a mask too small to count, else 0.

``refused_percent`` is how often the product gives no pose: right for these two, wrong for ``same_object``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nocsfm_ros.config import Config
from nocsfm_ros.data.shards import holds_hands
from nocsfm_ros.data.views import HAND_SHARES, ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.evaluation.pairs import Answer, Case, iou, mask_of, product
from nocsfm_ros.types import RgbdFrame, Uint8Array

HOLE_SHARE, HOLE_CELLS = 0.2, 12
FLAT_RATIO = 0.06  # of the standard deviations along the thinnest and the longest axis of the visible surface


class Robustness:
    """Collects masks and refusals; `summary` is their means."""

    def __init__(self) -> None:
        self.masks: dict[str, list[float]] = defaultdict(list)
        self.refused: dict[str, list[bool]] = defaultdict(list)

    def add_pair(self, case: Case, of_product: Answer, other: Case | None, seed: int) -> None:
        """One pair; `other` is the same live view with the reference of another mesh, where there is one."""
        changed = masks_iou(case, seed)
        for name, value in changed.items():
            self.masks[name].append(value)
        if is_flat(case):
            self.masks["flat"].append(changed["as_is"])
        config = case.estimator.config
        self.refused["same_object"].append(is_refused(of_product, config))
        if other is not None:
            self.masks["other_object"].append(iou(mask_of(other.answer_of_flow[0]), other.mask))
            self.refused["other_object"].append(is_refused(product(other), config))

    def add_hands(self, views: ViewDataset, cluster: int, estimator: Estimator) -> None:
        """One cluster of `nocsfm render --hands`, see data.views.render_hands."""
        reference, *shown, absent = (views[int(row)] for row in np.flatnonzero(views.column("cluster") == cluster))
        for share, live in zip(HAND_SHARES, shown, strict=True):
            case = Case(live, reference, estimator)
            self.masks[f"hand_{share}"].append(iou(mask_of(case.answer_of_flow[0]), case.mask))
        case = Case(absent, reference, estimator)
        too_small = mask_of(case.answer_of_flow[0]).sum() < estimator.config.tracking.min_mask_pixels
        self.masks["absent"].append(float(too_small))
        self.refused["absent"].append(is_refused(product(case), estimator.config))

    def summary(self) -> dict[str, Any]:
        """What goes into metrics.json."""
        return {
            "mask_iou": {name: round(float(np.mean(values)), 4) for name, values in self.masks.items()},
            "refused_percent": {name: round(100 * float(np.mean(values)), 1) for name, values in self.refused.items()},
            "num_flat": len(self.masks.get("flat", ())), "num_hands": len(self.masks.get("absent", ())),
        }


def check_hands(data: Path, hands: Path | None) -> None:
    """Raises ConfigError where the views of pairs have hands, or those of `add_hands` have none."""
    if holds_hands(data):
        raise ConfigError(f"--data {data}", got="views with hands", expected="views of `nocsfm render` without --hands",
                          mend=f"--hands {data}")
    if hands is not None and not holds_hands(hands):
        raise ConfigError(f"--hands {hands}", got="views without hands", expected="views of `nocsfm render --hands`",
                          mend="nocsfm render --split test --hands --out DIR")


def masks_iou(case: Case, seed: int) -> dict[str, float]:
    """IoU of the flow's own mask under each change."""
    grey = replace(case.frame, rgb=_grey(case.frame.rgb))
    grey_reference = {**case.reference, "rgb": _grey(np.asarray(case.reference["rgb"]))}
    grey_case = Case({**case.live, "rgb": grey.rgb}, grey_reference, case.estimator)
    blind = replace(case.frame, depth_m=np.zeros_like(case.frame.depth_m))
    maps = {
        "as_is": case.answer_of_flow[0], "grey": grey_case.answer_of_flow[0], "no_depth": case.flow(blind),
        "holes": case.flow(with_holes(case.frame, seed)),
    }
    return {name: iou(mask_of(nocs_map), case.mask) for name, nocs_map in maps.items()}


def is_refused(answer: Answer, config: Config) -> bool:
    """Whether the product has no pose, or one under the gate of acquisition: right for another object's reference."""
    return answer.pose is None or answer.confidence < config.tracking.acquire_confidence


def is_flat(case: Case) -> bool:
    """Whether the object, as far as its reference shows it, is thinner than FLAT_RATIO of its length."""
    if case.model.cloud is None:
        return False
    points = case.model.cloud.points_obj
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[2] < FLAT_RATIO * spread[0])


def _grey(rgb: Uint8Array) -> Uint8Array:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def with_holes(frame: RgbdFrame, seed: int) -> RgbdFrame:
    """HOLE_SHARE of the depth lost in blobs."""
    coarse = np.random.default_rng(seed).random((HOLE_CELLS, HOLE_CELLS)).astype(np.float32)
    blobs = cv2.resize(coarse, frame.size_wh, interpolation=cv2.INTER_LINEAR)
    kept = blobs > np.quantile(blobs, HOLE_SHARE)
    return replace(frame, depth_m=np.where(kept, frame.depth_m, 0).astype(np.float32))
