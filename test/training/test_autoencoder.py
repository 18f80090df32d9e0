"""The autoencoder's start: principal components bring NOCS maps and masks back before any training."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nocsfm_ros.flow.autoencoder import build_autoencoder
from nocsfm_ros.training.autoencoder import reconstruction_losses, start_from_patches
from nocsfm_ros.training.pairs import PairBatch

SIDE = 64


def ball_batches(seed: int) -> Iterator[PairBatch]:
    """Balls of random size and place with smooth coordinates that change direction from ball to ball."""
    random = torch.Generator().manual_seed(seed)
    v, u = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    while True:
        centre, radius = torch.rand(8, 2, 1, 1, generator=random), torch.rand(8, 1, 1, generator=random) * 0.3 + 0.1
        offset = torch.stack([u - centre[:, 0], v - centre[:, 1]], dim=1)
        mask = (offset.norm(dim=1) < radius)[:, None].float()
        turned = torch.linalg.qr(torch.randn(8, 3, 3, generator=random)).Q[:, :, :2]
        nocs = torch.einsum("bij,bjvu->bivu", turned, offset).clamp(-0.5, 0.5) * mask
        nothing = torch.zeros(8, 0, 1, 1)
        yield PairBatch(
            rgb=torch.rand(8, 3, SIDE, SIDE, generator=random), live=nothing, reference=nothing, live_context=nothing,
            reference_context=nothing, hints=nothing, nocs=nocs, mask=mask, T_obj_ref=nothing,
            scale_m=nothing, index=torch.zeros(8, 2),
        )


def test_start_from_patches_brings_maps_and_masks_back() -> None:
    torch.manual_seed(0)
    model = build_autoencoder()
    start_from_patches(model, ball_batches(0))
    batch = next(ball_batches(1))
    with torch.no_grad():
        nocs, logit = model.decode_nocs(model.encode_nocs(batch.nocs, batch.mask))
    error = (nocs - batch.nocs).norm(dim=1, keepdim=True)[batch.mask > 0]
    found = logit > 0
    iou = float((found & (batch.mask > 0)).sum() / (found | (batch.mask > 0)).sum())
    assert float(error.median()) < 0.01 and iou > 0.98


def test_reconstruction_losses_reach_the_weights() -> None:
    model = build_autoencoder()
    losses = reconstruction_losses(model, next(ball_batches(0)))
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
