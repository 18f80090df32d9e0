"""The velocity network ``v(z, tau | reference, live picture and depth)``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from nocsfm_ros.errors import CheckpointError
from nocsfm_ros.flow.diffusion import OBJECTIVE as DIFFUSION
from nocsfm_ros.flow.match_head import GUESS_CHANNELS, PLACE_CHANNELS, Matched, MatchHead
from nocsfm_ros.flow.motions import apply_affine, identity_affine

CONDITION_CHANNELS = 8  # rgb 3, xyz 3, depth validity 1, mask 1: see flow.conditions
HINT_CHANNELS = 5  # nocs of the match 3, whether it is mutual 1, similarity 1: see flow.conditions
PATCH = 4  # pixels of the crop per cell of the latent, along each side
HEAD_WIDTH = 48
LOG_SIGMA_RANGE = (-6.0, 1.0)


class LiveView(NamedTuple):
    """What the network knows of the live crop before any flow step, on grids of side n, n/2 and n.

    fine (B, widths[0], n, n); middle (B or 1, widths[1], n/2, n/2); xyz (B, 4, n, n): mean coordinates and validity of
    each cell.
    """

    fine: torch.Tensor
    middle: torch.Tensor
    xyz: torch.Tensor


class FlowStep(NamedTuple):
    """What the network says of one step.

    velocity: (B, C, n, n) of the latent.
    affine: (B, 3, 4) that maps live xyz (as in the condition) to NOCS: the rigid object's whole answer in 12 numbers.
    log_sigma: (B, 1, n, n) log of the expected error of the decoded NOCS.
    matched: what the network's own matches say; None of a network that does not match.
    """

    velocity: torch.Tensor
    affine: torch.Tensor
    log_sigma: torch.Tensor
    matched: Matched | None = None


class VelocityNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small UNet over the latent grid; the live view enters beside the latent, the reference through attention.

    Grids of side n, n/2 and n/4 (n = latent_side); the two coarser ones attend to the reference's tokens. One
    encoder serves reference and live crop; the backbone's features of both, where there are any, join at n/2, and so
    do the coordinates of their matches. There every live cell also says which reference cell shows the same point; the
    coordinates it takes from there, and those of the rigid motion that most of these agree on, are handed on. From the
    coarsest grid an affine map of the live coordinates is read off, exact for a rigid object, and its image is handed
    to the finest grid. A condition that is all zeros means "not given": training drops conditions at random, so that
    the same weights run without depth, without matches, or on the picture alone as in the paper.

    Args:
        latent_channels, latent_side: of the autoencoder.
        widths: channels at n, n/2 and n/4.
        context_channels: of the backbone's features; 0 for a network without.
        context_backbone: name of the backbone whose features it was trained with.
        objective: "flow", or "diffusion" for a network that is shown the picture's latent beside a noisy one.
        affine: False leaves the affine map at the identity: the ablation.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 16, latent_side: int = 32, widths: tuple[int, int, int] = (48, 96, 192),
        context_channels: int = 0, context_backbone: str = "", objective: str = "flow", affine: bool = True,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        time_width = 2 * middle
        self.time_proj = Timesteps(fine, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(fine, time_width)
        self.view_encoder = nn.Sequential(nn.Conv2d(CONDITION_CHANNELS, fine, PATCH, stride=PATCH), nn.SiLU())
        self.reference_down = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.reference_block = ResidualBlock(middle)
        self.context = nn.Conv2d(context_channels, middle, 1, bias=False) if context_channels else None
        self.hints = nn.Conv2d(HINT_CHANNELS, middle, 3, padding=1, bias=False) if context_channels else None
        self.positions = nn.Parameter(torch.randn(1, middle, latent_side // 2, latent_side // 2) * 0.02)
        shown = 2 * latent_channels if objective == DIFFUSION else latent_channels
        self.stem = nn.Conv2d(shown + fine, fine, 3, padding=1)
        self.down_fine = ResidualBlock(fine, time_width)
        self.to_middle = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.down_middle = ResidualBlock(middle, time_width)
        token_width = middle + PLACE_CHANNELS
        self.look = ReferenceAttention(middle, token_width)
        self.match = MatchHead(middle, token_width)
        self.from_match = nn.Conv2d(GUESS_CHANNELS, middle, 1)
        self.to_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(TransformerBlock(coarse, token_width) for _ in range(2))
        self.affine_head = AffineHead(coarse) if affine else None
        self.from_affine = nn.Conv2d(7, fine, 1)
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.up_middle = ResidualBlock(middle, time_width)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.up_fine = ResidualBlock(fine, time_width)
        self.head = nn.Sequential(nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, latent_channels + 1, 3, padding=1))

    @property
    def context_side(self) -> int:
        """Cells along a side of the context and hint grids."""
        return int(self.config["latent_side"]) // 2

    def check_backbone(self, name: str) -> None:
        """Raises CheckpointError where the network was trained with the features of another backbone than `name`."""
        trained_with = self.config["context_backbone"]
        if self.config["context_channels"] and trained_with != name:
            raise CheckpointError(
                "model.backbone", got=repr(name), expected=f"{trained_with!r}: the flow was trained with it",
                mend="set model.backbone to it, or model.weights to weights trained with yours",
            )

    def encode_reference(self, condition: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens (B, N, width + 4), once per keyframe.

        Args:
            condition: (B, 8, S, S), of the reference.
            context: (B, C, n/2, n/2) the backbone's features.
        """
        grid = self.reference_down(self.view_encoder(condition))
        if self.context is not None and context is not None:
            grid = grid + self.context(context)
        grid = self.reference_block(grid) + self.positions
        places = cell_xyz(condition, condition.shape[-1] // grid.shape[-1]).to(grid.dtype)
        tokens: torch.Tensor = torch.cat([grid, places], dim=1).flatten(2).transpose(1, 2)
        return tokens

    def encode_live(
        self, condition: torch.Tensor, context: torch.Tensor | None = None, hints: torch.Tensor | None = None
    ) -> LiveView:
        """Live condition (B, 8, S, S), features (B, C, n/2, n/2) and hints (B, 5, n/2, n/2)."""
        middle = self.positions
        if self.context is not None and context is not None:
            middle = middle + self.context(context)
        if self.hints is not None and hints is not None:
            middle = middle + self.hints(hints)
        return LiveView(self.view_encoder(condition), middle, cell_xyz(condition))

    def forward(self, z: torch.Tensor, tau: torch.Tensor, live: LiveView, tokens: torch.Tensor) -> FlowStep:
        """One evaluation.

        Args:
            z: (B, C, n, n) latent at flow time tau; (B, 2 C, n, n) for diffusion, see flow.diffusion.
            tau: (B,) in [0, 1].
            live: encode_live's output.
            tokens: encode_reference's output, batch B.
        """
        # the sinusoids of diffusers are spaced for times of 0..1000
        time = self.time_embedding(self.time_proj(tau * 1000).to(z.dtype))
        fine = self.down_fine(self.stem(torch.cat([z, live.fine], dim=1)), time)
        middle = self.look(self.down_middle(self.to_middle(fine) + live.middle, time), tokens)
        xyz = live.xyz[:, :3]
        matched = self.match(middle, tokens, live.xyz)
        middle = middle + self.from_match(matched.guess.to(middle.dtype))
        coarse = self.to_coarse(middle)
        for block in self.coarse:
            coarse = block(coarse, tokens)
        affine = identity_affine(len(z), z.device)
        if self.affine_head is not None:
            affine = self.affine_head(coarse, matched.rigid, matched.agreement)
        known = live.xyz[:, 3:]
        guess = torch.cat([apply_affine(affine, xyz) * known, apply_affine(matched.rigid, xyz) * known, known], dim=1)
        middle = self.up_middle(middle + _doubled(self.from_coarse(coarse)), time)
        fine = self.up_fine(fine + _doubled(self.from_middle(middle)) + self.from_affine(guess.to(z.dtype)), time)
        out: torch.Tensor = self.head(fine)
        return FlowStep(out[:, :-1], affine, out[:, -1:], matched)


def cell_xyz(condition: torch.Tensor, patch: int = PATCH) -> torch.Tensor:
    """Live condition (B, 8, S, S) -> (B, 4, S/patch, S/patch): mean coordinates of a cell's valid pixels, validity."""
    known = nn.functional.avg_pool2d(condition[:, 6:7].float(), patch)
    xyz = nn.functional.avg_pool2d(condition[:, 3:6].float(), patch) / known.clamp(min=1e-3)  # zeros where invalid
    return torch.cat([xyz, (known > 0.25).float()], dim=1)


class AffineHead(nn.Module):
    """A learned query looks over a grid and answers with an affine map, the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 4, width) * 0.02)
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, width)
        self.answer = nn.Sequential(nn.Linear(4 * width + 13, width), nn.GELU(), nn.Linear(width, 12))

    def forward(self, grid: torch.Tensor, rigid: torch.Tensor, agreement: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w), the matches' own answer (B, 3, 4) and the share (B,) behind it -> (B, 3, 4) float32."""
        cells = self.norm(grid.flatten(2).transpose(1, 2))
        looked = self.attention(self.query.expand(len(grid), -1, -1).to(cells.dtype), cells)
        turned = rigid - identity_affine(len(grid), grid.device)
        known = torch.cat([looked.flatten(1), turned.flatten(1).to(cells.dtype), agreement[:, None].to(cells.dtype)], 1)
        affine = 0.1 * self.answer(known).float().view(-1, 3, 4)
        return affine + identity_affine(len(grid), affine.device)


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
