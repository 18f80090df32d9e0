"""What `nocsfm train` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.flow.autoencoder import Autoencoder, build_autoencoder
from nocsfm_ros.flow.checkpoints import load_pretrained
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.matching.backbone import EFFICIENTNET, load_backbone
from nocsfm_ros.training.autoencoder import start_from_patches, train_autoencoder
from nocsfm_ros.training.features import store_features
from nocsfm_ros.training.flow import train_flow
from nocsfm_ros.training.pairs import FEATURES, PairSampler


def train(
    part: str, data: Path, out: Path, hours: float, report: Callable[[str], None], *, batch_size: int = 32,
    seed: int = 0, num_threads: int = 2, backbone: str = EFFICIENTNET, start: Path | None = None,
    objective: str = "flow",
) -> None:
    """Train "autoencoder" or "flow" on the views in `data`; resumes from what `out` holds.

    ``out/autoencoder`` and ``out/velocity`` are the folders that model.weights takes.

    Args:
        part: "autoencoder" or "flow".
        data: what `nocsfm render` wrote.
        out: weights, log and state.
        hours: of training over all resumed runs.
        report: gets lines for people.
        batch_size: even.
        seed: of weights, pairs and augmentation.
        num_threads: of the CPU.
        backbone: whose features the flow is given, see model.backbone; empty for none.
        start: a weights folder to begin from instead of fresh weights.
        objective: "flow", or "diffusion" to train the velocity network as flow.diffusion needs it.

    Raises:
        ConfigError: unknown part, or an odd batch size.
        CheckpointError: flow before its autoencoder, a state that does not fit, or start weights of another backbone
            or objective.
    """
    if part not in ("autoencoder", "flow"):
        raise ConfigError("nocsfm train", got=part, expected="autoencoder or flow")
    if batch_size < 2 or batch_size % 2:
        raise ConfigError("batch size", got=batch_size, expected="an even number from 2: two views make two pairs")
    torch.set_num_threads(num_threads)
    torch.manual_seed(seed)
    if part == "autoencoder":
        batches = PairSampler(ViewDataset(data), seed).batches(batch_size)
        if start is None:
            autoencoder = build_autoencoder()
            start_from_patches(autoencoder, batches)
        else:
            autoencoder = Autoencoder.from_pretrained(start / "autoencoder")
        train_autoencoder(batches, autoencoder, out / "autoencoder_run", hours, report)
        autoencoder.save_pretrained(out / "autoencoder")
        return
    autoencoder = Autoencoder.from_pretrained((start or out) / "autoencoder")
    if start is not None:
        autoencoder.save_pretrained(out / "autoencoder")
    channels = store_features(data, backbone, load_backbone(backbone, "cpu"), report) if backbone else 0
    views = ViewDataset(data, (FEATURES,) if backbone else ())
    velocity = (
        VelocityNetwork(
            autoencoder.latent_channels, context_channels=channels, context_backbone=backbone, objective=objective
        )
        if start is None else load_pretrained(VelocityNetwork, start / "velocity")
    )
    velocity.check_backbone(backbone)
    if velocity.config["objective"] != objective:
        raise CheckpointError(f"objective of {start}", got=velocity.config["objective"], expected=objective)
    train_flow(PairSampler(views, seed).batches(batch_size), autoencoder, velocity.train(), out / "flow_run", hours,
               report)
    velocity.save_pretrained(out / "velocity", safe_serialization=True)
