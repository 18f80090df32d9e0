"""Does the flow use what it is given? Masks with the picture greyed, the depth gone or torn, and another object asked.

Keys: ``as_is``; ``grey`` both pictures without colour; ``no_depth`` live depth all zeros; ``holes`` a fifth of the
live depth lost in blobs; ``flat`` the pairs whose object shows an almost plane surface; ``other_object`` the reference
shows another mesh, and the answer should be a refusal (``same_object``: it should not).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from nocsfm_ros.config import Config
from nocsfm_ros.evaluation.pairs import Answer, Case, iou, mask_of
from nocsfm_ros.types import RgbdFrame, Uint8Array

HOLE_SHARE, HOLE_CELLS = 0.2, 12
FLAT_RATIO = 0.06  # of the standard deviations along the thinnest and the longest axis of the visible surface
MASKS = ("as_is", "grey", "no_depth", "holes")


def masks_iou(case: Case, seed: int) -> dict[str, float]:
    """IoU of the flow's own mask under each change."""
    grey = replace(case.frame, rgb=_grey(case.frame.rgb))
    grey_reference = {**case.reference, "rgb": _grey(np.asarray(case.reference["rgb"]))}
    grey_case = Case({**case.live, "rgb": grey.rgb}, grey_reference, case.estimator)
    blind = replace(case.frame, depth_m=np.zeros_like(case.frame.depth_m))
    maps = {
        "as_is": case.flow(case.frame), "grey": grey_case.flow(grey), "no_depth": case.flow(blind),
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
