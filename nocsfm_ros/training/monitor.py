"""What a person looks at while a training runs: log.jsonl, TensorBoard, curves.png, samples/*.png."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nocsfm_ros.training.config import LogConfig
from nocsfm_ros.types import Uint8Array

FACTS = ("hours", "step", "samples", "learning_rate")
LogLine = dict[str, float]


class Watched(Protocol):
    """Fixed pairs of views on which a network is measured and looked at."""

    def measure(self) -> dict[str, float]:
        """Figures for the log."""
        ...

    def draw(self, path: Path) -> Uint8Array:
        """Write a picture, and return it as RGB (H, W, 3)."""
        ...


class Monitor:
    """Writes below `out`; nothing of it is called more often than every `config.save_every_s` seconds.

    Args:
        out: folder.
        config: how often.
        samples: fixed pairs to measure and to draw.
        report: gets lines for people.
        first_step: of this run; TensorBoard drops what a killed run wrote after it.
    """

    def __init__(
        self, out: Path, config: LogConfig, samples: Watched, report: Callable[[str], None], first_step: int = 0
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.out, self.config, self.samples, self.report = out, config, samples, report
        self.writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)  # type: ignore[no-untyped-call]
        self._last_look = float("-inf")
        lines = [line for line in read_log(out) if line["step"] <= first_step] if first_step else []
        if (out / "log.jsonl").is_file():
            (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def is_look_due(self) -> bool:
        """Whether the last samples are `samples_every_min` old."""
        return time.monotonic() - self._last_look > self.config.samples_every_min * 60

    def look(self, step: int) -> dict[str, float]:
        """Measure and draw the samples with the weights as they are, draw the curves; returns the measures."""
        picture = self.samples.draw(self.out / "samples" / f"step_{step:06d}.png")
        self.writer.add_image("samples", picture, step, dataformats="HWC")
        self._draw_curves()
        self._last_look = time.monotonic()
        return self.samples.measure()

    def write(self, facts: Mapping[str, float], values: Mapping[str, float], progress: str = "") -> None:
        """One line of log.jsonl, one point of each TensorBoard curve, one line for the person."""
        rounded = {name: round(value, 5) for name, value in values.items()}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**facts, **rounded}) + "\n")
        for name, value in {**rounded, "learning_rate": facts["learning_rate"]}.items():
            self.writer.add_scalar(name, value, int(facts["step"]))
        self.writer.flush()
        parts = " ".join(f"{name} {value:.4f}" for name, value in rounded.items())
        self.report(f"step {facts['step']}, {facts['samples']} samples{', ' if progress else ''}{progress}: {parts}")

    def close(self) -> None:
        """The last curves."""
        self._draw_curves()
        self.writer.close()

    def _draw_curves(self) -> None:
        lines = read_log(self.out)
        if lines:
            draw_curves(self.out / "curves.png", {"": lines})


def read_log(out: Path) -> list[LogLine]:
    """The lines of a run's log.jsonl; a line torn by a kill is left out."""
    path = out / "log.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def draw_curves(path: Path, logs: Mapping[str, Sequence[LogLine]], names: Sequence[str] = ()) -> None:
    """A PNG with one plot per logged value over the steps, and one curve in it per log.

    Args:
        path: of the PNG.
        logs: label -> lines of log.jsonl.
        names: values to draw, all where empty.
    """
    from matplotlib.figure import Figure

    keys = dict.fromkeys(key for lines in logs.values() for line in lines for key in line if key not in FACTS)
    names = names or list(keys)
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, number, title=name, xlabel="step")
        for label, lines in logs.items():
            measured = [line for line in lines if name in line]
            values = [line[name] for line in measured]
            axes.plot([line["step"] for line in measured], values, ".-", markersize=3, label=label)
            if values and max(values) > 3 * min(values) > 0:
                axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        if any(logs):
            axes.legend()
    figure.savefig(path, dpi=110)
