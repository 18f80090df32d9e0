"""The training loop: spends its budget, resumes, refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.training.config import LogConfig, ScheduleConfig
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss


class FakeMonitor:
    """Keeps what it is told; `look` notes whether the model was in eval mode, and its weights."""

    def __init__(self, model: torch.nn.Linear) -> None:
        self.config, self.model = LogConfig(save_every_s=1.0), model
        self.lines: list[tuple[dict[str, float], dict[str, float], str]] = []
        self.looks: list[tuple[int, bool, torch.Tensor]] = []

    def is_look_due(self) -> bool:
        return True

    def look(self, step: int) -> dict[str, float]:
        self.looks.append((step, self.model.training, self.model.weight.detach().clone()))
        return {"sample_error": 1.0}

    def write(self, facts: dict[str, float], values: dict[str, float], progress: str = "") -> None:
        self.lines.append((dict(facts), dict(values), progress))


def _run(model: torch.nn.Module, out: Path, **schedule: Any) -> TrainingRun:
    return TrainingRun(model, out, ScheduleConfig(learning_rate=0.05, ema_decay=0.9, **schedule))


def _fit(model: torch.nn.Linear) -> Callable[[], tuple[Losses, int]]:
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    return lambda: ({"loss": ((model(x) - 3 * x[:, :1]) ** 2).mean()}, 16)


def test_run_lowers_the_loss_in_the_given_steps_and_keeps_the_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    monitor, before = FakeMonitor(model), float(_fit(model)()[0]["loss"])
    run = _run(model, tmp_path, steps=200)
    run.run(_fit(model), monitor)  # type: ignore[arg-type]
    run.finish()
    assert run.step == 200 and run.samples == 3200
    assert float(_fit(model)()[0]["loss"]) < 0.5 * before
    assert (tmp_path / "state.pt").is_file()
    facts, values, progress = monitor.lines[-1]
    assert facts["step"] == 200 and values["sample_error"] == 1.0 and progress.startswith("100 %")


def test_run_by_the_clock_ends_when_its_hours_are_spent(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    run = _run(model, tmp_path, hours=0.2 / 3600)
    run.run(_fit(model), FakeMonitor(model))  # type: ignore[arg-type]
    assert 0.2 <= run.spent_s < 5 and run.progress >= 1


def test_run_looks_at_the_start_and_at_the_end_with_averaged_weights(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    monitor, run = FakeMonitor(model), _run(model, tmp_path, steps=20)
    run.run(_fit(model), monitor)  # type: ignore[arg-type]
    trained = model.weight.detach().clone()
    run.finish()
    assert [look[:2] for look in monitor.looks] == [(0, False), (20, False)]
    torch.testing.assert_close(monitor.looks[1][2], model.weight)
    assert not torch.equal(trained, model.weight), "training goes on with the weights that are not averaged"


def test_resume_continues_with_the_saved_step_and_weights(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    first = _run(model, tmp_path, steps=10)
    first.run(_fit(model), FakeMonitor(model))  # type: ignore[arg-type]
    again = torch.nn.Linear(2, 1)
    second = _run(again, tmp_path, steps=20)
    assert second.resume() and second.step == first.step and second.spent_s == first.spent_s
    assert second.progress == 0.5
    torch.testing.assert_close(again.weight, model.weight)


def test_resume_of_another_architecture_raises_checkpoint_error(tmp_path: Path) -> None:
    _run(torch.nn.Linear(2, 1), tmp_path, steps=1).save()
    with pytest.raises(CheckpointError, match="another --out"):
        _run(torch.nn.Linear(3, 1), tmp_path, steps=1).resume()


def test_resume_of_a_torn_file_raises_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError):
        _run(torch.nn.Linear(2, 1), tmp_path, steps=1).resume()


def test_loss_that_is_not_finite_stops_and_leaves_the_last_good_state(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    run = _run(model, tmp_path, steps=5)
    run.save()
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="finite"):
        run.run(lambda: ({"loss": model.weight.sum() * torch.nan}, 1), FakeMonitor(model))  # type: ignore[arg-type]
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize(("decay", "shares"), [("cosine", (0.01, 1.0, 0.5, 0.0)), ("constant", (0.01, 1.0, 1.0, 1.0))])
def test_learning_rate_warms_up_then_follows_the_decay(tmp_path: Path, decay: str, shares: tuple[float, ...]) -> None:
    run = TrainingRun(torch.nn.Linear(2, 1), tmp_path, ScheduleConfig(steps=10000, learning_rate=1.0, decay=decay))
    for step, share in zip((0, 200, 5000, 10000), shares, strict=True):
        run.step = step
        assert run._learning_rate() == pytest.approx(share, abs=2e-3)


def test_progress_line_tells_what_is_left(tmp_path: Path) -> None:
    run = _run(torch.nn.Linear(2, 1), tmp_path, steps=1000)
    run.step = 250
    assert run._progress_line(10.0, 8).startswith("25 %, 10 samples/s, 10 min left, ends ")


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
