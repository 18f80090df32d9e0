"""Fixed pairs on which a backbone's matches are measured and looked at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.matching.matcher import match_points
from nocsfm_ros.training.correspondences import match_errors
from nocsfm_ros.training.pairs import PairSampler, Triple
from nocsfm_ros.training.samples import DRAWN
from nocsfm_ros.training.view_tensors import ViewTensors
from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

CORRECT = 0.1  # of the diagonal
WORST = 1.0  # of the diagonal: a match with the background stands for no more in a mean
RIGHT_RGB, WRONG_RGB = (60, 220, 60), (230, 50, 50)


class MatchSamples:
    """The same pairs every time, without augmentation.

    Args:
        sampler: of the data set they come from.
        count: of pairs.
        backbone: that is measured.
    """

    def __init__(self, sampler: PairSampler, count: int, backbone: Backbone) -> None:
        self.sampler, self.backbone = sampler, backbone
        self.pairs = [sampler.draw() for _ in range(count)]

    def measure(self) -> dict[str, float]:
        """sample_error: mean distance of matched points as a share of the diagonal; sample_correct: share under .1."""
        errors = np.concatenate([matches(self.backbone, *self._views(pair))[2] for pair in self.pairs])
        return {
            "sample_error": float(np.minimum(errors, WORST).mean()), "sample_correct": float((errors < CORRECT).mean())
        }

    def draw(self, path: Path) -> Uint8Array:
        """Write six rows of reference and live, their matches joined, wrong ones red; returns the picture as RGB."""
        rows = []
        for pair in self.pairs[:DRAWN]:
            reference, live = self._views(pair)
            rows.append(_joined(reference, live, *matches(self.backbone, reference, live)))
        picture = np.concatenate(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        return picture

    def _views(self, pair: Triple) -> tuple[ViewTensors, ViewTensors]:
        live, reference, _ = pair
        return self.sampler.store.take([reference]), self.sampler.store.take([live])


def matches(
    backbone: Backbone, reference: ViewTensors, live: ViewTensors
) -> tuple[Float64Array, Float64Array, Float32Array]:
    """Mutual nearest neighbours of the reference's object and the whole live crop, and whether they are right.

    Args:
        backbone: that encodes both.
        reference, live: one view each, of the same object.

    Returns:
        (P, 2) pixels of the reference, (P, 2) of the live picture, (P,) distance of the points they show as a share of
        the object's diagonal.
    """
    encoded_ref, encoded_live = (backbone.encode(views.rgb[0].cpu().numpy()) for views in (reference, live))
    pixels_ref, pixels_live, _ = match_points(encoded_ref, reference.mask[0].cpu().numpy(), encoded_live)
    uv_ref, uv_live = (torch.from_numpy(uv).to(live.K.device)[None] for uv in (pixels_ref, pixels_live))
    errors = match_errors(uv_ref, uv_live, reference, live)
    return pixels_ref, pixels_live, errors[0].cpu().numpy()


def _joined(
    reference: ViewTensors, live: ViewTensors, pixels_ref: Float64Array, pixels_live: Float64Array, errors: Float32Array
) -> Uint8Array:
    """(S, 2 S, 3) reference beside live, a line per match."""
    picture = np.concatenate([reference.rgb[0].cpu().numpy(), live.rgb[0].cpu().numpy()], axis=1)
    for start, end, error in zip(pixels_ref, pixels_live + (live.rgb.shape[1], 0), errors, strict=True):
        colour = RIGHT_RGB if error < CORRECT else WRONG_RGB
        ends = [(round(float(u)), round(float(v))) for u, v in (start, end)]
        cv2.line(picture, ends[0], ends[1], colour, 1, cv2.LINE_AA)
    return picture
