"""The augmentation of training.augmentation for whole batches on a GPU: the same steps, the same ranges.

The random numbers come from a generator on the batch's device; nothing is copied to the host.
"""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d, grid_sample, interpolate, max_pool2d, pad

from nocsfm_ros.training.augmentation import EDGE_JUMP_M, HOLE_CELLS, LUMA, MAX_RAGGED_PX, MAX_SHIFT_PX

BLUR_RADIUS = 4  # pixels: over three times the widest sigma


def augment_pictures(rgb: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 3, S, S) in [0, 1] -> the same with random saturation, contrast, gamma, white balance, blur and noise."""
    count = len(rgb)

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        draw = torch.rand(count, channels, 1, 1, generator=generator, device=rgb.device)
        return low + (high - low) * draw

    luma = torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    grey = (rgb * luma).sum(dim=1, keepdim=True)
    saturation = uniform(0.5, 1.4) * (uniform(0, 1) >= 0.06)
    picture = (grey + saturation * (rgb - grey)).clamp(0, 1)
    picture = (picture ** uniform(0.6, 1.6) - 0.5) * uniform(0.7, 1.3) + 0.5 + uniform(-0.1, 0.15)
    picture = (picture * uniform(0.88, 1.12, 3)).clamp(0, 1)
    blurred = _blurred(picture, uniform(0.3, 1.2))
    picture = torch.where(uniform(0, 1) < 0.5, blurred, picture)
    noise = torch.randn(picture.shape, generator=generator, device=rgb.device)
    return (picture + noise * uniform(0, 10 / 255)).clamp(0, 1)


def augment_depths(depth_m: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, S, S) metres -> the same displaced, with noise growing with the square of the range, lost edges and holes."""
    count, side = depth_m.shape[:2]

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator, device=depth_m.device)

    def blobs(cells: int) -> torch.Tensor:
        """(B, S, S) smooth uniform noise of about `cells` bumps along a side."""
        coarse = torch.rand(count, 1, cells, cells, generator=generator, device=depth_m.device)
        return interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[:, 0]

    pixel = torch.arange(side, device=depth_m.device, dtype=depth_m.dtype)
    ragged = uniform(0, 2 * MAX_RAGGED_PX)
    u, v = (
        along + uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX) + (blobs(24) - 0.5) * ragged for along in (pixel, pixel[:, None])
    )
    places = (torch.stack([u, v], dim=-1) + 0.5) * (2 / side) - 1
    shifted = grid_sample(depth_m[:, None], places, "nearest", "border", align_corners=False)[:, 0]
    waves = (blobs(24) - 0.5) * uniform(0, 0.012)
    noise = torch.randn(depth_m.shape, generator=generator, device=depth_m.device) * uniform(0, 0.003) + waves
    jump = max_pool2d(shifted[:, None], 3, 1, 1)[:, 0] + max_pool2d(-shifted[:, None], 3, 1, 1)[:, 0]
    edge_lost = (jump > EDGE_JUMP_M) & (blobs(20) < uniform(0, 0.9))
    sizes = torch.stack([blobs(cells) for cells in HOLE_CELLS], dim=1)
    chosen = torch.randint(len(HOLE_CELLS), (count,), generator=generator, device=depth_m.device)
    hole = sizes[torch.arange(count, device=depth_m.device), chosen] < uniform(-0.3, 0.35)
    return (shifted + noise * shifted**2).masked_fill(edge_lost | hole | (shifted <= 0), 0.0)


def _blurred(picture: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of (B, 3, S, S), each picture with its own sigma (B, 1, 1, 1) pixels."""
    count, channels = picture.shape[:2]
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, 0, 0]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    padded = pad(picture, (BLUR_RADIUS,) * 4, mode="reflect")
    planes = padded.reshape(1, count * channels, *padded.shape[2:])
    planes = conv2d(planes, kernel[:, None, :, None], groups=count * channels)
    planes = conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    return planes.view(picture.shape)
