"""The network that compares a window's live view with the object rendered at a supposed pose."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from nocsfm_ros.flow.checkpoints import load_pretrained
from nocsfm_ros.flow.motions import rigid_motion
from nocsfm_ros.flow.velocity import LOG_SIGMA_RANGE, ResidualBlock
from nocsfm_ros.refinement.windows import CELL, CHANNELS, SIDE

LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5)  # mean distance of the points from their true places, in radii
HEADS = 4


class Opinion(NamedTuple):
    """What the network says of B poses.

    displacement: (B, 3, W/4, W/4) of each cell's rendered point to where it is seen, along the window's axes in radii.
    log_sigma: (B, 1, W/4, W/4) log of the expected error of that.
    logits: (B, 5) of being nearer to the truth than each of LEVELS.
    """

    displacement: torch.Tensor
    log_sigma: torch.Tensor
    logits: torch.Tensor

    @property
    def score(self) -> torch.Tensor:
        """(B,) in [0, 1]: the share of LEVELS that it expects to be reached."""
        return self.logits.sigmoid().mean(dim=1)

    def motion(self, cells: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4) the rotation and shift that most cells of the windows agree on, none where nothing is drawn."""
        places, share = cells[:, :3], cells[:, 3:]
        seen = places + self.displacement * (share > 0)
        weights = share * (-2 * self.log_sigma).exp()
        return rigid_motion(places.flatten(2).mT, seen.flatten(2).mT, weights.flatten(1))[0]


class PoseRefiner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Convolutions down to cells of eight pixels, attention among these, and back up to cells of four.

    Args:
        widths: channels at a half, a quarter and an eighth of the window's resolution.
        layers: of attention.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96), layers: int = 2) -> None:
        super().__init__()
        first, second, third = widths
        self.fine = nn.Sequential(
            nn.Conv2d(CHANNELS, first, 4, stride=2, padding=1), ResidualBlock(first),
            nn.Conv2d(first, second, 3, stride=2, padding=1), ResidualBlock(second), ResidualBlock(second),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(second, third, 3, stride=2, padding=1), ResidualBlock(third), ResidualBlock(third)
        )
        side = SIDE // CELL // 2
        self.positions = nn.Parameter(torch.randn(1, third, side, side) * 0.02)
        block = nn.TransformerEncoderLayer(third, HEADS, 2 * third, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(third), enable_nested_tensor=False)
        self.right = nn.Sequential(nn.Linear(third, third), nn.GELU(), nn.Linear(third, len(LEVELS)))
        self.from_coarse = nn.Conv2d(third, second, 1)
        self.displaced = nn.Sequential(
            ResidualBlock(second), nn.GroupNorm(8, second), nn.SiLU(), nn.Conv2d(second, 4, 3, padding=1)
        )

    def forward(self, seen: torch.Tensor) -> Opinion:
        """(B, 10, W, W), see windows."""
        fine = self.fine(seen)
        coarse = self.coarse(fine) + self.positions
        tokens = self.blocks(coarse.flatten(2).mT)
        coarse = self.from_coarse(tokens.mT.reshape(coarse.shape))
        said = self.displaced(fine + nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")).float()
        return Opinion(said[:, :3], said[:, 3:].clamp(*LOG_SIGMA_RANGE), self.right(tokens.mean(dim=1)).float())


def load_refiner(folder: Path) -> PoseRefiner:
    """From a folder that save_pretrained wrote. Raises CheckpointError."""
    return load_pretrained(PoseRefiner, folder)
