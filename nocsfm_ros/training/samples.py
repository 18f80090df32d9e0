"""Fixed pairs on which a training is measured and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import torch

from nocsfm_ros.training.pairs import PairBatch, PairSampler
from nocsfm_ros.types import Uint8Array

Predict = Callable[[PairBatch], tuple[torch.Tensor, torch.Tensor]]
DRAWN = 6
CHUNK = 16


class Samples:
    """The same pairs every time, without augmentation.

    Args:
        sampler: of the data set they come from; made so that it asks for no other object.
        count: of pairs.
        predict: batch -> coordinates (B, 3, S, S) and mask logit (B, 1, S, S), as Autoencoder.decode_nocs.
    """

    def __init__(self, sampler: PairSampler, count: int, predict: Predict) -> None:
        self.sampler, self.predict = sampler, predict
        self.pairs = [sampler.draw() for _ in range(count)]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """sample_error: mean distance of predicted and true NOCS on the true mask; sample_iou: mean of the masks."""
        distance, pixels, ious = 0.0, 0.0, list[torch.Tensor]()
        for batch in self._batches(self.pairs):
            nocs, logit = self.predict(batch)
            error = (nocs.clamp(-0.5, 0.5) - batch.nocs).norm(dim=1, keepdim=True) * batch.mask
            distance, pixels = distance + float(error.sum()), pixels + float(batch.mask.sum())
            found, true = logit > 0, batch.mask > 0
            ious.append((found & true).sum(dim=(1, 2, 3)) / (found | true).sum(dim=(1, 2, 3)).clamp(min=1))
        return {"sample_error": distance / max(pixels, 1.0), "sample_iou": float(torch.cat(ious).mean())}

    @torch.no_grad()
    def draw(self, path: Path) -> Uint8Array:
        """Write six rows of reference, live, true NOCS, predicted NOCS, predicted mask; returns the picture as RGB."""
        batch = next(self._batches(self.pairs[:DRAWN]))
        nocs, logit = self.predict(batch)
        found = logit.sigmoid()
        columns = [
            (batch.reference[:, :3] + 1) / 2, batch.rgb, (batch.nocs + 0.5) * batch.mask,
            (nocs.float() + 0.5) * (found > 0.5), found.float().expand_as(nocs),
        ]
        rows = torch.cat(columns, dim=3).clamp(0, 1).permute(0, 2, 3, 1).flatten(0, 1)
        picture: Uint8Array = (rows * 255).byte().cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        return picture

    def _batches(self, pairs: list[tuple[int, int, bool]]) -> Iterator[PairBatch]:
        for first in range(0, len(pairs), CHUNK):
            yield self.sampler.make(pairs[first : first + CHUNK], augment=False)
