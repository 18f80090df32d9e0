"""`nocsfm train autoencoder`: one latent space for pictures and for NOCS maps.

Inside an object a NOCS map is nearly linear over 4 x 4 pixels, so the principal components of its patches are nearly
the best code there is. Training starts from them and only has to improve on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch.nn.functional import pixel_unshuffle

from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import foreground_loss, mask_loss
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.pairs import PairBatch, PairSampler

PICTURE_WEIGHT = 0.1  # the picture need not come back sharp: it is a start, not an answer
ALPHA_WEIGHT = 0.3  # of the mask against the coordinates, when components are chosen: .007 and IoU .996 come back
RAW_SCALE = 0.1  # AutoencoderTiny squashes latents by 3 tanh(z / 3): small ones pass unchanged
START_BATCHES = 40


def train_autoencoder(sampler: PairSampler, model: Autoencoder, run: TrainingRun, monitor: Monitor) -> None:
    """Train an autoencoder in place.

    Its scaling factor is set so that NOCS latents have unit variance.
    """
    batches = sampler.batches(run.schedule.batch, run.step)

    def step() -> tuple[Losses, int]:
        batch = next(batches)  # no bfloat16 here: its 8 bits are coarser than the error aimed at
        return reconstruction_losses(model, batch), len(batch.rgb)

    model.train()
    run.run(step, monitor)
    run.finish()
    _normalise_latents(model, next(batches))


def reconstruct(model: Autoencoder, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (B, 3, S, S) and mask logit (B, 1, S, S) of the true maps, encoded and decoded."""
    return model.decode_nocs(model.encode_nocs(batch.nocs, batch.mask))


def reconstruction_losses(model: Autoencoder, batch: PairBatch) -> Losses:
    """Losses of one batch: NOCS, mask, picture."""
    whole = torch.ones_like(batch.mask)
    picture, opaque = model.decode_nocs(model.encode_picture(batch.rgb))
    nocs, logit = reconstruct(model, batch)
    parts = {
        "nocs": foreground_loss(nocs, batch.nocs, batch.mask), "mask": mask_loss(logit, batch.mask),
        "picture": (picture * 2 - (batch.rgb * 2 - 1)).abs().mean() + mask_loss(opaque, whole),
    }
    loss = parts["nocs"] + parts["mask"] + PICTURE_WEIGHT * parts["picture"]
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


@torch.no_grad()
def start_from_patches(model: Autoencoder, batches: Iterator[PairBatch]) -> None:
    """Set an embedded autoencoder to the principal components of the NOCS patches of START_BATCHES batches.

    A latent channel is one component; the decoder carries it as positive and negative part through its ReLUs.
    """
    patches = torch.cat([_object_patches(model, batch) for batch in islice(batches, START_BATCHES)])
    weight = torch.ones(patches.shape[1], device=patches.device)
    weight[-model.patch**2 :] = ALPHA_WEIGHT  # pixel_unshuffle keeps the channels of one colour together
    weighted = patches * weight
    components = torch.linalg.eigh(weighted.T @ weighted).eigenvectors.flip(1)[:, : model.latent_channels].T
    # the encoder sees (picture + 1) / 2, the decoder answers in that range too
    encode = RAW_SCALE * 2 * components * weight
    decode = (components / weight).T / RAW_SCALE / 2
    encoder, decoder, count = model.vae.encoder.layers, model.vae.decoder.layers, len(components)
    identity = torch.eye(count, device=patches.device)
    _set_pointwise(encoder[0], encode, -encode.sum(dim=1) / 2)
    _set_pointwise(encoder[1], identity)
    _set_pointwise(decoder[0], torch.cat([identity, -identity]))
    block_out = decoder[2].conv[-1]
    block_out.weight.zero_()
    block_out.bias.zero_()
    _set_pointwise(decoder[3], torch.cat([decode, -decode], dim=1), torch.full_like(decode[:, 0], 0.5))


def _object_patches(model: Autoencoder, batch: PairBatch) -> torch.Tensor:
    """(N, 64) patches with at least one object pixel, values in [-1, 1]."""
    rgba = torch.cat([batch.nocs * 2 * batch.mask, batch.mask * 2 - 1], dim=1)
    patches = pixel_unshuffle(rgba, model.patch).permute(0, 2, 3, 1).flatten(0, 2)
    return patches[patches[:, -model.patch**2 :].amax(dim=1) > 0]


def _set_pointwise(
    convolution: torch.nn.Conv2d, matrix: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """Make the first outputs of a convolution `matrix` times the first inputs of the same pixel."""
    rows, columns = matrix.shape
    convolution.weight[:rows] = 0
    convolution.weight[:rows, :columns, 1, 1] = matrix
    convolution.bias[:rows] = 0 if bias is None else bias  # type: ignore[index]


@torch.no_grad()
def _normalise_latents(model: Autoencoder, batch: PairBatch) -> None:
    """Unit variance on the object: the background is the same latent everywhere."""
    latent = model.encode_nocs(batch.nocs, batch.mask) / model.latent_scale
    of_object = torch.nn.functional.avg_pool2d(batch.mask, batch.mask.shape[-1] // latent.shape[-1]) > 0
    model.set_latent_scale(1.0 / float(latent.permute(0, 2, 3, 1)[of_object[:, 0]].std()))
