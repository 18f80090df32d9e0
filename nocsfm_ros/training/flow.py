"""`nocsfm train flow`: the velocity network, the autoencoder frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d

from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.path import draw_tau, point_on_path
from nocsfm_ros.flow.velocity import PATCH, VelocityNetwork
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss
from nocsfm_ros.training.pairs import PairBatch

TAU_ZERO_SHARE = 0.85  # one Euler step starts at 0: that is where accuracy counts
FOREGROUND_WEIGHT = 4.0
LATENT_WEIGHT = 0.3
MASK_WEIGHT = 3.0  # registration forgives a coarse map, but not pixels of the table


def train_flow(
    batches: Iterator[PairBatch], autoencoder: Autoencoder, out: Path, hours: float, report: Callable[[str], None],
    learning_rate: float = 6e-4,
) -> VelocityNetwork:
    """Train the embedded velocity network and return it."""
    model = VelocityNetwork(latent_channels=autoencoder.latent_channels).to(memory_format=torch.channels_last)
    autoencoder.requires_grad_(False)
    run = TrainingRun(model, out, hours, learning_rate, ema_decay=0.9995)
    if run.resume():
        report(f"resumed at {run.samples} samples")
    generator = torch.Generator().manual_seed(run.step)

    def step(_progress: float) -> tuple[Losses, int]:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            return flow_losses(model, autoencoder, batch, generator), len(batch.rgb)

    run.run(step, report)
    run.finish()
    return model


def flow_losses(
    model: VelocityNetwork, autoencoder: Autoencoder, batch: PairBatch, generator: torch.Generator
) -> Losses:
    """Flow matching in the latent, foreground-weighted, plus losses on the decoded map of the one-step result."""
    with torch.no_grad():
        z0 = autoencoder.encode_picture(batch.rgb).float()
        z1 = autoencoder.encode_nocs(batch.nocs, batch.mask).float()
    tau = draw_tau(len(z0), TAU_ZERO_SHARE, generator)
    z_tau = point_on_path(z0, z1, tau)
    tokens, live = model.encode_reference(batch.reference), model.encode_live(batch.live)
    velocity = model(z_tau, tau, live, tokens).float()
    weight = 1 + FOREGROUND_WEIGHT * avg_pool2d(batch.mask, PATCH)
    latent = (weight * (velocity - (z1 - z0)) ** 2).mean() / weight.mean()
    nocs, logit = autoencoder.decode_nocs(z_tau + (1 - tau.view(-1, 1, 1, 1)) * velocity)
    parts = {
        "latent": latent, "nocs": foreground_loss(nocs, batch.nocs, batch.mask), "mask": mask_loss(logit, batch.mask)
    }
    loss = LATENT_WEIGHT * latent + parts["nocs"] + MASK_WEIGHT * parts["mask"]
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}
