"""What `nocsfm train` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.training.autoencoder import train_autoencoder
from nocsfm_ros.training.flow import train_flow
from nocsfm_ros.training.pairs import PairSampler


def train(
    part: str, data: Path, out: Path, hours: float, report: Callable[[str], None], *, batch_size: int = 32,
    seed: int = 0, num_threads: int = 2,
) -> None:
    """Train "autoencoder" or "flow" on the views in `data`; resumes from what `out` holds.

    ``out/autoencoder`` and ``out/velocity`` are the folders that model.weights takes.

    Raises:
        ConfigError: unknown part.
        CheckpointError: flow before its autoencoder, or a state that does not fit.
    """
    if part not in ("autoencoder", "flow"):
        raise ConfigError("nocsfm train", got=part, expected="autoencoder or flow")
    torch.set_num_threads(num_threads)
    torch.manual_seed(seed)
    batches = PairSampler(ViewDataset(data), seed).batches(batch_size)
    if part == "autoencoder":
        train_autoencoder(batches, out / "autoencoder_run", hours, report).vae.save_pretrained(
            out / "autoencoder", safe_serialization=True
        )
    else:
        autoencoder = Autoencoder.from_pretrained(out / "autoencoder")
        train_flow(batches, autoencoder, out / "flow_run", hours, report).save_pretrained(
            out / "velocity", safe_serialization=True
        )
