"""The published velocity network: a diffusion transformer on the latent alone."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, DiTTransformer2DModel, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from nocsfm_ros.flow.motions import identity_affine
from nocsfm_ros.flow.velocity import FlowStep, LiveView, cell_xyz


class VelocityTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Stands where VelocityNetwork does, but looks at nothing besides the latent and the flow time.

    The architecture of DiT (Peebles and Xie, ICCV 2023) and SiT (Ma et al., ECCV 2024), by default of size S/2. It
    says nothing of an affine map (the identity) nor of its error (the same everywhere).

    Args:
        latent_channels, latent_side: of the autoencoder.
        patch: latent cells along a side of a token.
        width, layers, heads: of the transformer.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 4, latent_side: int = 32, patch: int = 2, width: int = 384, layers: int = 12,
        heads: int = 6,
    ) -> None:
        super().__init__()
        self.transformer = DiTTransformer2DModel(
            num_attention_heads=heads, attention_head_dim=width // heads, in_channels=latent_channels,
            out_channels=latent_channels, num_layers=layers, patch_size=patch, sample_size=latent_side,
            num_embeds_ada_norm=1,
        )
        # as in DiT every block begins as the identity and the whole network at zero
        for block in self.transformer.transformer_blocks:
            nn.init.zeros_(block.norm1.linear.weight)
            nn.init.zeros_(block.norm1.linear.bias)
        nn.init.zeros_(self.transformer.proj_out_2.weight)
        nn.init.zeros_(self.transformer.proj_out_2.bias)

    @property
    def context_side(self) -> int:
        """Cells along a side of the grids of matches, which it does not look at."""
        return int(self.config["latent_side"]) // 2

    def check_backbone(self, name: str) -> None:
        """Any backbone will do: it was trained without features."""

    def encode_reference(self, condition: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """No tokens: (B, 0, 1)."""
        return condition.new_zeros(len(condition), 0, 1)

    def encode_live(
        self, condition: torch.Tensor, context: torch.Tensor | None = None, hints: torch.Tensor | None = None
    ) -> LiveView:
        """The live view's coordinates alone, for the losses."""
        nothing = condition.new_zeros(len(condition), 0, 1, 1)
        patch = condition.shape[-1] // int(self.config["latent_side"])
        return LiveView(nothing, nothing, cell_xyz(condition, patch))

    def forward(self, z: torch.Tensor, tau: torch.Tensor, live: LiveView, tokens: torch.Tensor) -> FlowStep:
        """One evaluation at latents z (B, C, n, n) and flow times tau (B,) in [0, 1]."""
        no_class = torch.zeros(len(z), dtype=torch.long, device=z.device)
        # the sinusoids of diffusers are spaced for times of 0..1000
        velocity: torch.Tensor = self.transformer(z, timestep=tau * 1000, class_labels=no_class).sample
        return FlowStep(velocity, identity_affine(len(z), z.device), torch.zeros_like(z[:, :1]))
