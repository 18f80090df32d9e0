"""The loop shared by all trainings: a budget of hours, EMA, a log line and a checkpoint a minute, resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from nocsfm_ros.errors import CheckpointError, ConfigError

Losses = dict[str, torch.Tensor]
SAVE_EVERY_S = 60.0
WARM_UP = 0.02
GRADIENT_LIMIT = 1.0
MAX_STEP_S = 30.0  # a longer step was a suspended process, which trains nothing


class TrainingRun:
    """Trains a module until its time budget is spent; the budget counts training time over all resumed runs.

    Args:
        model: what is trained, in place.
        out: folder for ``state.pt`` (resume) and ``log.jsonl`` (one line per save).
        hours: budget of training time.
        learning_rate: peak; a short warm-up, then cosine to zero at the end of the budget.
        ema_decay: of the weights that `finish` puts into the model.
    """

    def __init__(self, model: torch.nn.Module, out: Path, hours: float, learning_rate: float, ema_decay: float) -> None:
        if hours <= 0:
            raise ConfigError("--hours", got=hours, expected="more than 0")
        self.model, self.out, self.budget_s, self.peak = model, out, hours * 3600, learning_rate
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.99))
        self.ema = EMAModel(self.parameters, decay=ema_decay, use_ema_warmup=True, power=0.75)
        self.spent_s, self.step, self.samples = 0.0, 0, 0
        out.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Continue from ``state.pt`` if there is one. Raises CheckpointError if it does not fit the model."""
        path = self.out / "state.pt"
        if not path.is_file():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.spent_s, self.step, self.samples = state["spent_s"], state["step"], state["samples"]
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"training state {path}", got=error, expected="a state of this very architecture",
                mend="train into another --out folder",
            ) from error
        return True

    def run(self, step_losses: Callable[[float], tuple[Losses, int]], report: Callable[[str], None]) -> None:
        """Call `step_losses(progress)` -> ({"loss": ..., parts}, batch size) until the budget is spent, then save."""
        last_save, sums = time.monotonic(), dict[str, float]()
        counted = 0
        while self.spent_s < self.budget_s:
            begin = time.monotonic()
            progress = self.spent_s / self.budget_s
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak * _schedule(progress)
            losses, size = step_losses(progress)
            self.optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_LIMIT)
            self.optimizer.step()
            self.ema.step(self.parameters)
            self.step, self.samples, counted = self.step + 1, self.samples + size, counted + 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            self.spent_s += min(time.monotonic() - begin, MAX_STEP_S)
            if time.monotonic() - last_save > SAVE_EVERY_S or self.spent_s >= self.budget_s:
                self.save()
                self._log({name: round(value / counted, 5) for name, value in sums.items()}, report)
                last_save, sums, counted = time.monotonic(), {}, 0

    def finish(self) -> None:
        """Put the averaged weights into the model."""
        self.ema.copy_to(self.parameters)
        self.model.eval()

    def save(self) -> None:
        """Write ``state.pt`` whole or not at all."""
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": self.ema.state_dict(),
            "spent_s": self.spent_s, "step": self.step, "samples": self.samples,
        }
        torch.save(state, self.out / "state.pt.part")
        os.replace(self.out / "state.pt.part", self.out / "state.pt")

    def _log(self, losses: dict[str, float], report: Callable[[str], None]) -> None:
        line = {"hours": round(self.spent_s / 3600, 4), "step": self.step, "samples": self.samples, **losses}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        left_min = (self.budget_s - self.spent_s) / 60
        parts = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
        speed = self.samples / max(self.spent_s, 1e-9)
        report(f"{self.samples} samples, {speed:.0f}/s, {left_min:.0f} min left: {parts}")


def _schedule(progress: float) -> float:
    """Learning rate as a share of its peak."""
    return min(progress / WARM_UP + 0.01, 1.0) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
