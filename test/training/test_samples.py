"""Samples: always the same pairs, a perfect answer measures 0 and 1, a shifted one its shift."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.training.config import DropsConfig
from nocsfm_ros.training.pairs import PairBatch, PairSampler
from nocsfm_ros.training.samples import DRAWN, Predict, Samples

SIDE = 64


def _samples(views_folder: Path, predict: Predict) -> Samples:
    sampler = PairSampler(ViewDataset(views_folder), 0, DropsConfig(other_object=0.0), side=SIDE)
    return Samples(sampler, 8, predict)


def _perfect(batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.nocs, batch.mask * 20 - 10


def test_perfect_answer_has_no_error_and_a_shifted_one_its_shift(views_folder: Path) -> None:
    assert _samples(views_folder, _perfect).measure() == {"sample_error": 0.0, "sample_iou": 1.0}
    towards_centre = _samples(views_folder, lambda b: (b.nocs - 0.01 * b.nocs.sign(), -b.mask)).measure()
    assert towards_centre["sample_error"] == pytest.approx(0.01 * 2**0.5, rel=0.01)  # the plate is flat: its z is 0
    assert towards_centre["sample_iou"] == 0


def test_pairs_are_the_same_each_time_and_show_the_asked_object(views_folder: Path) -> None:
    seen: list[torch.Tensor] = []

    def predict(batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        assert (batch.mask.sum(dim=(1, 2, 3)) > 0).all()
        seen.append(batch.live)
        return _perfect(batch)

    samples = _samples(views_folder, predict)
    samples.measure()
    samples.measure()
    torch.testing.assert_close(seen[0], seen[1])


def test_draw_writes_six_rows_of_five_pictures(views_folder: Path, tmp_path: Path) -> None:
    picture = _samples(views_folder, _perfect).draw(tmp_path / "samples" / "step_000000.png")
    written = cv2.imread(str(tmp_path / "samples" / "step_000000.png"))
    assert written is not None and picture.shape == written.shape == (DRAWN * SIDE, 5 * SIDE, 3)
    assert (written[..., ::-1] == picture).all()
    true, predicted = picture[:, 2 * SIDE : 3 * SIDE], picture[:, 3 * SIDE : 4 * SIDE]
    assert (true == predicted).all() and true.max() > 0
