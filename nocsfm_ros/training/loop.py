"""The loop shared by all trainings: a budget of hours or steps, EMA, a checkpoint within a minute, resume."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.training.config import ScheduleConfig
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.optimizers import build_optimizer

Losses = dict[str, torch.Tensor]
WARM_UP = 0.02
GRADIENT_LIMIT = 1.0
MAX_STEP_S = 30.0  # a longer step was a suspended process, which trains nothing


class TrainingRun:
    """Trains a module until its budget is spent; the budget counts training over all resumed runs.

    Args:
        model: what is trained, in place, on the device where it is.
        out: folder for ``state.pt``.
        schedule: budget and learning rate.
    """

    def __init__(self, model: torch.nn.Module, out: Path, schedule: ScheduleConfig) -> None:
        self.model, self.out, self.schedule = model, out, schedule
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(schedule.optimizer, model, schedule.learning_rate)
        self.ema = EMAModel(self.parameters, decay=schedule.ema_decay, use_ema_warmup=True, power=0.75)
        self.spent_s, self.step, self.samples = 0.0, 0, 0
        out.mkdir(parents=True, exist_ok=True)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        of_time = self.spent_s / (self.schedule.hours * 3600) if self.schedule.hours else 0.0
        return max(of_time, self.step / self.schedule.steps if self.schedule.steps else 0.0)

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
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"training state {path}", got=error, expected="a state of this very architecture and optimizer",
                mend="train into another --out folder",
            ) from error
        self.ema.to(self.parameters[0].device)
        # the schedule is of this call: the loaded decay is that of the first one
        self.ema.decay = self.schedule.ema_decay
        return True

    def run(self, step_losses: Callable[[], tuple[Losses, int]], monitor: Monitor) -> None:
        """Call `step_losses()` -> ({"loss": ..., parts}, batch size) until the budget is spent, then save.

        Losses are summed on their device and read once per log line: a step waits for no copy to the host.
        """
        if not self.step:
            monitor.write(self._facts(), self._looked(monitor))
        began_s, began_samples = self.spent_s, self.samples
        last_save, sums, counted = time.monotonic(), dict[str, torch.Tensor](), 0
        while self.progress < 1:
            begin = time.monotonic()
            losses, size = step_losses()
            self._update(losses["loss"])
            self.step, self.samples, counted = self.step + 1, self.samples + size, counted + 1
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            self.spent_s += min(time.monotonic() - begin, MAX_STEP_S)
            if time.monotonic() - last_save > monitor.config.save_every_s or self.progress >= 1:
                means = {name: float(value) / counted for name, value in sums.items()}
                self._check_finite(means)
                self.save()
                speed = (self.samples - began_samples) / max(self.spent_s - began_s, 1e-9)
                if monitor.is_look_due() or self.progress >= 1:
                    means |= self._looked(monitor)
                monitor.write(self._facts(), means, self._progress_line(speed, size))
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

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model in eval mode with the averaged weights, as they would be kept."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        self.model.eval()
        try:
            yield
        finally:
            self.ema.restore(self.parameters)
            self.model.train()

    def _looked(self, monitor: Monitor) -> dict[str, float]:
        with self.averaged():
            return monitor.look(self.step)

    def _update(self, loss: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_LIMIT)
        self.optimizer.step()
        self.ema.step(self.parameters)

    def _learning_rate(self) -> float:
        share = min(self.progress / WARM_UP + 0.01, 1.0)
        if self.schedule.decay == "cosine":
            share *= 0.5 * (1 + math.cos(math.pi * min(self.progress, 1.0)))
        return self.schedule.learning_rate * share

    def _check_finite(self, means: dict[str, float]) -> None:
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise ConfigError(
                f"loss at step {self.step}", got=f"no finite {', '.join(bad)}", expected="finite losses",
                mend="--resume goes on from the last good state; a smaller schedule.learning_rate may help",
            )

    def _facts(self) -> dict[str, float]:
        return {
            "hours": round(self.spent_s / 3600, 4), "step": self.step, "samples": self.samples,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _progress_line(self, speed: float, batch: int) -> str:
        left_s = [self.schedule.hours * 3600 - self.spent_s] if self.schedule.hours else []
        left_s += [(self.schedule.steps - self.step) * batch / speed] if self.schedule.steps else []
        left = max(min(left_s), 0.0)
        ends = time.strftime("%H:%M", time.localtime(time.time() + left))
        share = 100 * min(self.progress, 1.0)
        return f"{share:.0f} %, {speed:.0f} samples/s, {left / 60:.0f} min left, ends {ends}"
