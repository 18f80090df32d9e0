"""Where the live view's cells lie in the reference: the part of the velocity network that learns to match."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from nocsfm_ros.flow.motions import apply_affine, rigid_motion

PLACE_CHANNELS = 4  # of a reference token: its cell's coordinates, and whether they are known
GUESS_CHANNELS = 8
MATCH_WIDTH, MATCH_GAIN = 64, 10.0  # of the vectors that are compared, and of their cosines at first
NO_PLACE = -1e4  # logit of a reference cell without coordinates


class Matched(NamedTuple):
    """What MatchHead says.

    logits: (B, h w, N + 1) which of the N reference cells shows a live cell's point; the last one: none.
    guess: (B, 8, h, w) coordinates of the match 3, how surely there is one 1, coordinates by `rigid` 3, validity 1.
    rigid: (B, 3, 4) the motion of live xyz to NOCS that most matches agree on; without gradient.
    agreement: (B,) the share of the matches that do.
    num_agreeing: (B,) that share of the cells that surely have a match.
    """

    logits: torch.Tensor
    guess: torch.Tensor
    rigid: torch.Tensor
    agreement: torch.Tensor
    num_agreeing: torch.Tensor


class MatchHead(nn.Module):
    """Says for every live cell which reference cell shows the same point, and where that lies in the object."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_query, self.to_key = nn.Linear(width, MATCH_WIDTH), nn.Linear(token_width, MATCH_WIDTH)
        self.gain = nn.Parameter(torch.tensor(MATCH_GAIN).log())
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, grid: torch.Tensor, tokens: torch.Tensor, xyz: torch.Tensor) -> Matched:
        """Grid (B, width, h, w), tokens (B, N, token_width), live coordinates and validity (B, 4, 2 h, 2 w)."""
        query = self.to_query(self.norm(grid.flatten(2).transpose(1, 2)))
        key = self.to_key(tokens)
        with torch.autocast(grid.device.type, enabled=False):  # coordinates need more digits than bfloat16 has
            logits = self._logits(query.float(), key.float(), tokens[..., -1].float())
            share = logits.softmax(dim=2)
            sure = 1 - share[..., -1:]
            coordinates = share[..., :-1] @ tokens[..., -PLACE_CHANNELS:-1].float() / sure.clamp(min=1e-3)
            valid = nn.functional.avg_pool2d(xyz[:, 3:], 2)
            live = nn.functional.avg_pool2d(xyz[:, :3] * xyz[:, 3:], 2) / valid.clamp(min=1e-3)
            is_valid = (valid > 0).float()
            weights = sure[..., 0] * is_valid.flatten(1)
            rigid, agreement = rigid_motion(live.flatten(2).transpose(1, 2), coordinates, weights)
            guess = torch.cat([coordinates * sure, sure], dim=2).transpose(1, 2).reshape(len(grid), 4, *grid.shape[2:])
            guess = torch.cat([guess, apply_affine(rigid, live) * is_valid, is_valid], dim=1)
            return Matched(logits, guess, rigid, agreement, agreement * weights.sum(dim=1))

    def _logits(self, query: torch.Tensor, key: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Cosines of (B, M, C) and (B, N, C) times the gain, and the logit of "none": (B, M, N + 1)."""
        query, key = nn.functional.normalize(query, dim=2), nn.functional.normalize(key, dim=2)
        logits = (self.gain.float().exp() * query @ key.transpose(1, 2)).masked_fill(known[:, None] < 0.5, NO_PLACE)
        return torch.cat([logits, self.nothing.float().expand(*logits.shape[:2], 1)], dim=2)
