"""`nocsfm train autoencoder`: one latent space for pictures and for NOCS maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from nocsfm_ros.flow.autoencoder import Autoencoder, build_autoencoder
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss
from nocsfm_ros.training.pairs import PairBatch

KL_WEIGHT = 1e-4
PICTURE_WEIGHT = 0.3  # the picture need not come back sharp: it is a start, not an answer
LATENT_SAMPLES = 512


def train_autoencoder(
    batches: Iterator[PairBatch], out: Path, hours: float, report: Callable[[str], None], learning_rate: float = 1e-3
) -> Autoencoder:
    """Train the embedded autoencoder and return it.

    Its scaling factor is set so that NOCS latents have unit variance.
    """
    model = build_autoencoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = TrainingRun(model, out, hours, learning_rate, ema_decay=0.999)
    run.resume()

    def step(_progress: float) -> tuple[Losses, int]:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            return reconstruction_losses(model, batch), len(batch.rgb)

    run.run(step, report)
    run.finish()
    _normalise_latents(model, batches)
    return model


def reconstruction_losses(model: Autoencoder, batch: PairBatch) -> Losses:
    """Losses of one batch: NOCS, mask, picture, KL."""
    whole = torch.ones_like(batch.mask)
    picture_kl, picture, opaque = _round_trip(model, batch.rgb * 2 - 1, whole * 2 - 1)
    grey = batch.nocs.clamp(-0.5, 0.5) * 2 * batch.mask
    nocs_kl, nocs, logit = _round_trip(model, grey, batch.mask * 2 - 1)
    parts = {
        "nocs": foreground_loss(nocs, batch.nocs, batch.mask), "mask": mask_loss(logit, batch.mask),
        "picture": (picture * 2 - (batch.rgb * 2 - 1)).abs().mean() + mask_loss(opaque, whole),
        "kl": picture_kl + nocs_kl,
    }
    loss = parts["nocs"] + parts["mask"] + PICTURE_WEIGHT * parts["picture"] + KL_WEIGHT * parts["kl"]
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def _round_trip(
    model: Autoencoder, picture: torch.Tensor, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(KL, coordinates, mask logit) of a picture encoded with sampling and decoded."""
    posterior = model.posterior(picture, alpha)
    latent = posterior.sample()
    coordinates, logit = model.decode_nocs(latent * model.latent_scale)
    return posterior.kl().mean() / latent[0].numel(), coordinates, logit


@torch.no_grad()
def _normalise_latents(model: Autoencoder, batches: Iterator[PairBatch]) -> None:
    latents: list[torch.Tensor] = []
    while sum(map(len, latents)) < LATENT_SAMPLES:
        batch = next(batches)
        latents.append(model.encode_nocs(batch.nocs, batch.mask) / model.latent_scale)
    model.set_latent_scale(1.0 / float(torch.cat(latents).std()))
