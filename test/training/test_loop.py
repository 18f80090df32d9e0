"""The training loop: spends its budget, resumes, refuses what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss


def _run(model: torch.nn.Linear, out: Path, hours: float) -> TrainingRun:
    return TrainingRun(model, out, hours, learning_rate=0.05, ema_decay=0.9)


def _fit(model: torch.nn.Linear) -> tuple[Losses, int]:
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    return {"loss": ((model(x) - 3 * x[:, :1]) ** 2).mean()}, 16


def test_run_lowers_the_loss_and_writes_state_and_log(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, lines = torch.nn.Linear(2, 1), list[str]()
    before = float(_fit(model)[0]["loss"])
    run = _run(model, tmp_path, 0.3 / 3600)
    run.run(lambda progress: _fit(model), lines.append)
    run.finish()
    assert float(_fit(model)[0]["loss"]) < 0.5 * before
    assert (tmp_path / "state.pt").is_file() and (tmp_path / "log.jsonl").read_text().count("\n") == len(lines) >= 1


def test_resume_continues_with_the_saved_step_and_weights(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    first = _run(model, tmp_path, 0.05 / 3600)
    first.run(lambda progress: _fit(model), lambda line: None)
    again = torch.nn.Linear(2, 1)
    second = _run(again, tmp_path, 1.0)
    assert second.resume() and second.step == first.step and second.spent_s == first.spent_s
    torch.testing.assert_close(again.weight, model.weight)


def test_resume_of_another_architecture_raises_checkpoint_error(tmp_path: Path) -> None:
    _run(torch.nn.Linear(2, 1), tmp_path, 1.0).save()
    with pytest.raises(CheckpointError, match="another --out"):
        _run(torch.nn.Linear(3, 1), tmp_path, 1.0).resume()


def test_resume_of_a_torn_file_raises_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError):
        _run(torch.nn.Linear(2, 1), tmp_path, 1.0).resume()


def test_no_budget_raises_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hours"):
        _run(torch.nn.Linear(2, 1), tmp_path, 0.0)


def test_foreground_loss_ignores_the_background() -> None:
    target, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    wrong_outside = torch.zeros(1, 3, 4, 4)
    wrong_outside[..., 2:] = 5
    assert foreground_loss(wrong_outside, target, mask) == 0
    # beyond beta the smooth L1 is |e| - beta / 2, here per beta: 0.1 / 0.05 - 0.5
    assert float(foreground_loss(target + 0.1, target, mask)) == pytest.approx(1.5)


def test_mask_loss_is_small_for_the_right_and_large_for_the_wrong_mask() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    assert float(mask_loss((mask * 2 - 1) * 20, mask)) < 0.05
    assert float(mask_loss((1 - mask * 2) * 20, mask)) > 5
