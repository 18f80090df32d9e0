"""`nocsfm train flow`: the velocity network, the autoencoder frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import avg_pool2d

from nocsfm_ros.device import fast_autocast
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.diffusion import NUM_TIMES, clean_latent, noise_schedule, tau_of_times
from nocsfm_ros.flow.diffusion import OBJECTIVE as DIFFUSION
from nocsfm_ros.flow.model import Velocity, solver_of
from nocsfm_ros.flow.motions import apply_affine
from nocsfm_ros.flow.path import draw_tau, point_on_path
from nocsfm_ros.flow.velocity import LOG_SIGMA_RANGE, FlowStep, LiveView, cell_xyz
from nocsfm_ros.training.config import LossConfig
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, laplace_loss, mask_loss
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.pairs import PairBatch, PairSampler

WATCHED_STEPS = 10  # of a diffusion model, for samples
MATCH_SPREAD, MAX_MATCH_ERROR = 0.04, 0.1  # NOCS: half a cell of a usual crop, and further than its neighbours
WHOLE_CELL = 0.99  # of a cell's pixels: where the mean of its coordinates is the object's alone


def train_flow(
    sampler: PairSampler, autoencoder: Autoencoder, model: Velocity, run: TrainingRun, monitor: Monitor,
    weights: LossConfig,
) -> None:
    """Train a velocity network in place, the autoencoder frozen."""
    autoencoder.requires_grad_(False)
    batches = sampler.batches(run.schedule.batch, run.step)
    generator = torch.Generator(sampler.device).manual_seed(run.step)

    def step() -> tuple[Losses, int]:
        batch = next(batches)
        with fast_autocast(sampler.device):
            return flow_losses(model, autoencoder, batch, generator, weights), len(batch.rgb)

    model.train()
    run.run(step, monitor)
    run.finish()


def flow_losses(
    model: Velocity, autoencoder: Autoencoder, batch: PairBatch, generator: torch.Generator, weights: LossConfig
) -> Losses:
    """Error of the velocity in the latent, foreground-weighted, plus losses on what the one-step result decodes to.

    Those are the coordinates, the mask, the affine map on the cells that show the object, the matches of the cells,
    and the likelihood of the coordinates' error under the predicted sigma (Laplace; Kendall and Gal, NeurIPS 2017). A
    loss of weight 0 is left out, and with it the decoder where none needs it.
    """
    with torch.no_grad():
        z0 = autoencoder.encode_picture(batch.rgb).float()
        z1 = autoencoder.encode_nocs(batch.nocs, batch.mask).float()
    if model.config.get("objective") == DIFFUSION:
        sample = _noisy(z0, z1, generator)
    else:
        sample = _on_path(z0, z1, weights.tau_zero_share, generator)
    tokens = model.encode_reference(batch.reference, batch.reference_context)
    live = model.encode_live(batch.live, batch.live_context, batch.hints)
    said = model(sample.shown, sample.tau, live, tokens)
    velocity = said.velocity.float()
    share = avg_pool2d(batch.mask, batch.mask.shape[-1] // z0.shape[-1])
    weight = 1 + weights.foreground * share
    parts = {"latent": (weight * (velocity - sample.velocity) ** 2).mean() / weight.mean()}
    if weights.nocs or weights.mask or weights.sigma:
        parts |= _decoded_losses(*autoencoder.decode_nocs(sample.end(velocity)), said, batch, share)
    if weights.affine:
        parts["affine"] = _affine_loss(said, live, batch, share)
    if weights.match and said.matched is not None:
        parts["match"] = _match_loss(said.matched.logits, batch)
    loss = sum(getattr(weights, name) * value for name, value in parts.items())
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}  # type: ignore[dict-item]


@torch.no_grad()
def one_step(model: Velocity, autoencoder: Autoencoder, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (B, 3, S, S) and mask logit (B, 1, S, S) after one Euler step, or WATCHED_STEPS of DDIM."""
    with fast_autocast(batch.rgb.device):
        tokens = model.encode_reference(batch.reference, batch.reference_context)
        live = model.encode_live(batch.live, batch.live_context, batch.hints)
        steps = WATCHED_STEPS if model.config.get("objective") == DIFFUSION else 1
        z0 = autoencoder.encode_picture(batch.rgb)
        z1, _ = solver_of(model)(lambda z, tau: model(z, tau, live, tokens), z0, steps)
        return autoencoder.decode_nocs(z1)


def _decoded_losses(
    nocs: torch.Tensor, logit: torch.Tensor, said: FlowStep, batch: PairBatch, share: torch.Tensor
) -> Losses:
    """Of the decoded coordinates and mask; share (B, 1, n, n) of each latent cell that is object."""
    error = (nocs.detach() - batch.nocs).abs().mean(dim=1, keepdim=True) * batch.mask
    cell_error = avg_pool2d(error, error.shape[-1] // share.shape[-1]) / share.clamp(min=1e-3)
    return {
        "nocs": foreground_loss(nocs, batch.nocs, batch.mask), "mask": mask_loss(logit, batch.mask),
        "sigma": laplace_loss(cell_error, said.log_sigma.float().clamp(*LOG_SIGMA_RANGE), share),
    }


def _affine_loss(said: FlowStep, live: LiveView, batch: PairBatch, share: torch.Tensor) -> torch.Tensor:
    """Of the affine map's coordinates on the cells that are all object."""
    cell_nocs = _cell_nocs(batch, share)
    whole_cell = (share > WHOLE_CELL).float() * live.xyz[:, 3:]
    return foreground_loss(apply_affine(said.affine, live.xyz[:, :3]), cell_nocs, whole_cell)


def _cell_nocs(batch: PairBatch, share: torch.Tensor) -> torch.Tensor:
    """(B, 3, n, n) mean true coordinates of the object's pixels in each cell; share (B, 1, n, n) that is object."""
    return avg_pool2d(batch.nocs * batch.mask, batch.mask.shape[-1] // share.shape[-1]) / share.clamp(min=1e-3)


def _match_loss(logits: torch.Tensor, batch: PairBatch) -> torch.Tensor:
    """Cross-entropy of (B, M, N + 1) logits to the reference cells near each live cell's point, or to "none".

    Cells on the object and cells without a partner weigh alike; a cell that is object in part does not count.
    """
    live_side, reference_side = (int(count**0.5) for count in (logits.shape[1], logits.shape[2] - 1))
    places = cell_xyz(batch.reference, batch.reference.shape[-1] // reference_side).flatten(2).transpose(1, 2)
    cell_share = avg_pool2d(batch.mask, batch.mask.shape[-1] // live_side)
    points, share = _cell_nocs(batch, cell_share).flatten(2).transpose(1, 2), cell_share.flatten(1)
    distance = torch.cdist(points.float(), places[..., :3].float()).masked_fill(places[:, None, :, 3] < 0.5, 1e3)
    has_partner = (share > 0.5) & (distance.amin(dim=2) < MAX_MATCH_ERROR)
    near = torch.softmax(-0.5 * (distance / MATCH_SPREAD) ** 2, dim=2) * has_partner[..., None]
    wanted = torch.cat([near, (~has_partner)[..., None].float()], dim=2)
    cost = -(wanted * logits.log_softmax(dim=2)).sum(dim=2)
    has_none = ~has_partner & ((share > 0.5) | (share < 0.05))
    of_partners, of_none = ((cost * cells).sum() / cells.sum().clamp(min=1) for cells in (has_partner, has_none))
    return 0.5 * (of_partners + of_none)


class _Sample(NamedTuple):
    """What the network is shown at time tau (B,), the velocity it should say, and the z1 that a velocity leads to."""

    shown: torch.Tensor
    tau: torch.Tensor
    velocity: torch.Tensor
    end: Callable[[torch.Tensor], torch.Tensor]


def _on_path(z0: torch.Tensor, z1: torch.Tensor, tau_zero_share: float, generator: torch.Generator) -> _Sample:
    """Flow matching: see flow.path."""
    tau = draw_tau(len(z0), tau_zero_share, generator)
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
