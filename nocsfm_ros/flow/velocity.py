"""The velocity network ``v(z, tau | reference, live picture and depth)``."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

CONDITION_CHANNELS = 8  # rgb 3, xyz 3, depth validity 1, mask 1: see flow.conditions
PATCH = 4  # pixels of the crop per cell of the latent, along each side
HEAD_WIDTH = 48


class VelocityNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small UNet over the latent grid; the live view enters beside the latent, the reference through attention.

    Grids of side n, n/2 and n/4 (n = latent_side); the two coarser ones attend to the reference's tokens. One
    encoder serves reference and live crop. A condition that is all zeros means "not given": training drops
    conditions at random, so that the same weights run without depth, or on the picture alone as in the paper.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 8, latent_side: int = 32, widths: tuple[int, int, int] = (48, 96, 192),
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        time_width = 2 * middle
        self.time_proj = Timesteps(fine, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(fine, time_width)
        self.view_encoder = nn.Sequential(
            nn.Conv2d(CONDITION_CHANNELS, fine, PATCH, stride=PATCH), ResidualBlock(fine)
        )
        self.reference_down = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.reference_block = ResidualBlock(middle)
        self.positions = nn.Parameter(torch.randn(1, middle, latent_side // 2, latent_side // 2) * 0.02)
        self.stem = nn.Conv2d(latent_channels + fine, fine, 3, padding=1)
        self.down_fine = ResidualBlock(fine, time_width)
        self.to_middle = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.down_middle = ResidualBlock(middle, time_width)
        self.match = ReferenceAttention(middle, middle)
        self.to_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(TransformerBlock(coarse, middle) for _ in range(2))
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.up_middle = ResidualBlock(middle, time_width)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.up_fine = ResidualBlock(fine, time_width)
        self.head = nn.Sequential(nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, latent_channels, 3, padding=1))

    def encode_reference(self, condition: torch.Tensor) -> torch.Tensor:
        """Reference condition (B, 8, S, S) -> tokens (B, N, C); done once per keyframe."""
        grid = self.reference_block(self.reference_down(self.view_encoder(condition))) + self.positions
        tokens: torch.Tensor = grid.flatten(2).transpose(1, 2)
        return tokens

    def encode_live(self, condition: torch.Tensor) -> torch.Tensor:
        """Live condition (B, 8, S, S) -> features (B, C, S/4, S/4)."""
        features: torch.Tensor = self.view_encoder(condition)
        return features

    def forward(self, z: torch.Tensor, tau: torch.Tensor, live: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Velocity of the latent, shape of z.

        Args:
            z: (B, C, n, n) latent at flow time tau.
            tau: (B,) in [0, 1].
            live: encode_live's output.
            tokens: encode_reference's output, batch B.
        """
        # the sinusoids of diffusers are spaced for times of 0..1000
        time = self.time_embedding(self.time_proj(tau * 1000).to(z.dtype))
        fine = self.down_fine(self.stem(torch.cat([z, live], dim=1)), time)
        middle = self.match(self.down_middle(self.to_middle(fine), time) + self.positions, tokens)
        coarse = self.to_coarse(middle)
        for block in self.coarse:
            coarse = block(coarse, tokens)
        middle = self.up_middle(middle + _doubled(self.from_coarse(coarse)), time)
        fine = self.up_fine(fine + _doubled(self.from_middle(middle)), time)
        velocity: torch.Tensor = self.head(fine)
        return velocity


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the flow time, where given, shifts the features between them."""

    def __init__(self, width: int, time_width: int = 0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.time = nn.Linear(time_width, width) if time_width else None
        self.second = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """(B, width, h, w), (B, time_width) -> (B, width, h, w)."""
        hidden = self.first(x)
        if self.time is not None and time is not None:
            hidden = hidden + self.time(time)[:, :, None, None]
        result: torch.Tensor = x + self.second(hidden)
        return result


class ReferenceAttention(nn.Module):
    """Every cell of a grid looks at the reference's tokens: this is where the network matches."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, token_width)

    def forward(self, grid: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w), (B, N, token_width) -> (B, width, h, w)."""
        cells = grid.flatten(2).transpose(1, 2)
        return _as_grid(cells + self.attention(self.norm(cells), tokens), grid)


class TransformerBlock(nn.Module):
    """Attention among the cells of a grid, then to the reference's tokens, then a feed-forward layer."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.among = Attention(width, width)
        self.to_reference = Attention(width, token_width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, grid: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w), (B, N, token_width) -> (B, width, h, w)."""
        cells = grid.flatten(2).transpose(1, 2)
        normed = self.norms[0](cells)
        cells = cells + self.among(normed, normed)
        cells = cells + self.to_reference(self.norms[1](cells), tokens)
        return _as_grid(cells + self.feed_forward(self.norms[2](cells)), grid)


class Attention(nn.Module):
    """Multi-head attention of queries (B, M, width) to tokens (B, N, token_width)."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.to_query, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_key, self.to_value = nn.Linear(token_width, width), nn.Linear(token_width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """See the class; returns (B, M, width)."""
        q, k, v = (
            x.unflatten(2, (-1, HEAD_WIDTH)).transpose(1, 2)
            for x in (self.to_query(queries), self.to_key(tokens), self.to_value(tokens))
        )
        # plain products: on a CPU twice as fast as scaled_dot_product_attention's backward at these sizes
        weights = torch.softmax(q @ k.transpose(2, 3) / HEAD_WIDTH**0.5, dim=-1)
        mixed = weights.to(v.dtype) @ v
        result: torch.Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return result


def _as_grid(cells: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return cells.transpose(1, 2).reshape(grid.shape)


def _doubled(grid: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(grid, scale_factor=2.0, mode="nearest")
