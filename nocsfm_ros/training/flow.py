"""`nocsfm train flow`: the velocity network, the autoencoder frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import avg_pool2d

from nocsfm_ros.device import fast_autocast
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.diffusion import NUM_TIMES, clean_latent, noise_schedule, tau_of_times
from nocsfm_ros.flow.diffusion import OBJECTIVE as DIFFUSION
from nocsfm_ros.flow.path import draw_tau, point_on_path
from nocsfm_ros.flow.velocity import LOG_SIGMA_RANGE, PATCH, VelocityNetwork, apply_affine
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss
from nocsfm_ros.training.pairs import PairBatch

TAU_ZERO_SHARE = 0.85  # one Euler step starts at 0: that is where accuracy counts
FOREGROUND_WEIGHT = 4.0
LATENT_WEIGHT = 0.3
MASK_WEIGHT = 3.0  # registration forgives a coarse map, but not pixels of the table
SIGMA_WEIGHT = 0.05
WHOLE_CELL = 0.99  # of a cell's pixels: where the mean of its coordinates is the object's alone


def train_flow(
    batches: Iterator[PairBatch], autoencoder: Autoencoder, model: VelocityNetwork, out: Path, hours: float,
    report: Callable[[str], None], learning_rate: float = 6e-4,
) -> None:
    """Train a velocity network in place, the autoencoder frozen."""
    model.to(memory_format=torch.channels_last)
    autoencoder.requires_grad_(False)
    run = TrainingRun(model, out, hours, learning_rate, ema_decay=0.9995)
    if run.resume():
        report(f"resumed at {run.samples} samples")
    generator = torch.Generator().manual_seed(run.step)

    def step(_progress: float) -> tuple[Losses, int]:
        batch = next(batches)
        with fast_autocast(torch.device("cpu")):
            return flow_losses(model, autoencoder, batch, generator), len(batch.rgb)

    run.run(step, report)
    run.finish()


def flow_losses(
    model: VelocityNetwork, autoencoder: Autoencoder, batch: PairBatch, generator: torch.Generator
) -> Losses:
    """Error of the velocity in the latent, foreground-weighted, plus losses on what the one-step result decodes to.

    Those are the coordinates, the mask, the affine map on the cells that show the object, and the likelihood of the
    coordinates' error under the predicted sigma (Laplace; Kendall and Gal, NeurIPS 2017).
    """
    with torch.no_grad():
        z0 = autoencoder.encode_picture(batch.rgb).float()
        z1 = autoencoder.encode_nocs(batch.nocs, batch.mask).float()
    sample = (_noisy if model.config.get("objective") == DIFFUSION else _on_path)(z0, z1, generator)
    tokens = model.encode_reference(batch.reference, batch.reference_context)
    live = model.encode_live(batch.live, batch.live_context, batch.hints)
    said = model(sample.shown, sample.tau, live, tokens)
    velocity = said.velocity.float()
    share = avg_pool2d(batch.mask, PATCH)
    weight = 1 + FOREGROUND_WEIGHT * share
    latent = (weight * (velocity - sample.velocity) ** 2).mean() / weight.mean()
    nocs, logit = autoencoder.decode_nocs(sample.end(velocity))
    whole_cell = (share > WHOLE_CELL).float() * live.xyz[:, 3:]
    cell_nocs = avg_pool2d(batch.nocs * batch.mask, PATCH) / share.clamp(min=1e-3)
    error = avg_pool2d((nocs.detach() - batch.nocs).abs().mean(dim=1, keepdim=True) * batch.mask, PATCH) / share.clamp(
        min=1e-3
    )
    parts = {
        "latent": latent, "nocs": foreground_loss(nocs, batch.nocs, batch.mask), "mask": mask_loss(logit, batch.mask),
        "affine": foreground_loss(apply_affine(said.affine, live.xyz[:, :3]), cell_nocs, whole_cell),
        "sigma": _laplace(error, said.log_sigma.float(), share),
    }
    loss = (
        LATENT_WEIGHT * latent + parts["nocs"] + MASK_WEIGHT * parts["mask"] + parts["affine"]
        + SIGMA_WEIGHT * parts["sigma"]
    )
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


class _Sample(NamedTuple):
    """What the network is shown at time tau (B,), the velocity it should say, and the z1 that a velocity leads to."""

    shown: torch.Tensor
    tau: torch.Tensor
    velocity: torch.Tensor
    end: Callable[[torch.Tensor], torch.Tensor]


def _on_path(z0: torch.Tensor, z1: torch.Tensor, generator: torch.Generator) -> _Sample:
    """Flow matching: see flow.path."""
    tau = draw_tau(len(z0), TAU_ZERO_SHARE, generator)
    z_tau = point_on_path(z0, z1, tau)
    return _Sample(z_tau, tau, z1 - z0, lambda velocity: z_tau + (1 - tau.view(-1, 1, 1, 1)) * velocity)


def _noisy(z0: torch.Tensor, z1: torch.Tensor, generator: torch.Generator) -> _Sample:
    """Diffusion: see flow.diffusion."""
    schedule = noise_schedule()
    times = torch.randint(NUM_TIMES, (len(z1),), generator=generator, device=generator.device)
    noise = torch.randn(z1.shape, generator=generator, device=generator.device)
    z = schedule.add_noise(z1, noise, times)
    return _Sample(
        torch.cat([z, z0], dim=1), tau_of_times(times), schedule.get_velocity(z1, noise, times),
        lambda velocity: clean_latent(z, velocity, times),
    )


def _laplace(error: torch.Tensor, log_sigma: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of errors (B, 1, h, w) with the given scale, mean with the weights `where`."""
    log_sigma = log_sigma.clamp(*LOG_SIGMA_RANGE)
    return ((error * (-log_sigma).exp() + log_sigma) * where).sum() / where.sum().clamp(min=1)
