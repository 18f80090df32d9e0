"""The autoencoder behind two verbs: pictures to latents, latents to object coordinates and mask."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from nocsfm_ros.checkpoints import load_pretrained, model_class_of
from nocsfm_ros.errors import ShapeError

# One pixel for the network holds a PATCH x PATCH square of RGBA pixels: the same result as convolving at full size,
# at a fraction of the time.
PATCH, RGBA = 4, 4
EMBEDDED_CONFIG: dict[str, Any] = {
    "in_channels": RGBA * PATCH**2, "out_channels": RGBA * PATCH**2, "latent_channels": 16,
    "encoder_block_out_channels": (32,), "num_encoder_blocks": (0,),
    "decoder_block_out_channels": (48,), "num_decoder_blocks": (1,), "upsampling_scaling_factor": 1,
}
# An RGB autoencoder has no alpha: an object pixel is one that is not black (the paper's rule). Half of full mask
# probability lies at this level of the brightest channel, full at twice the level.
BLACK_LEVEL = 0.06


class Autoencoder(torch.nn.Module):
    """Encodes pictures and NOCS maps into one latent space and decodes NOCS and mask.

    The embedded one is a small deterministic AutoencoderTiny (as TAESD) on RGBA: alpha is 1 all over a photo and the
    foreground of a NOCS map, whose background is grey (coordinate 0) so that borders stay smooth. A plain
    three-channel AutoencoderKL (Stable Diffusion's VAE) has no alpha: the NOCS map stands on black and the mask is all
    that is not black, as in the NocsFM paper.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.vae = vae
        self.has_alpha = vae.config["in_channels"] % RGBA == 0
        self.patch = math.isqrt(vae.config["in_channels"] // (RGBA if self.has_alpha else 3))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Autoencoder:
        """Load a diffusers folder or hub id. Raises CheckpointError."""
        return cls(load_pretrained(model_class_of(folder, AutoencoderKL, AutoencoderTiny), folder))

    def save_pretrained(self, folder: Path) -> None:
        """Write a diffusers folder, safetensors."""
        self.vae.save_pretrained(folder, safe_serialization=True)
        if isinstance(self.vae, AutoencoderTiny):  # it writes a key that it complains about when it reads it
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config.pop("block_out_channels", None)
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return int(self.vae.config["latent_channels"])

    @property
    def cell_pixels(self) -> int:
        """Pixels of the picture along a side of a latent cell."""
        of_encoder = "encoder_block_out_channels" if isinstance(self.vae, AutoencoderTiny) else "block_out_channels"
        return int(self.patch * 2 ** (len(self.vae.config[of_encoder]) - 1))

    @property
    def latent_scale(self) -> float:
        """What latents are multiplied by to have about unit variance (diffusers' scaling_factor)."""
        return float(self.vae.config["scaling_factor"])

    def set_latent_scale(self, scale: float) -> None:
        """Change latent_scale; it is saved with the weights."""
        self.vae.register_to_config(scaling_factor=scale)

    def encode_picture(self, rgb: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1] -> latent (B, C, S/f, S/f)."""
        _check_image(rgb, 3)
        return self._encode(rgb * 2 - 1, torch.ones_like(rgb[:, :1]))

    def encode_nocs(self, nocs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) centred coordinates and (B, 1, S, S) mask in {0, 1} -> latent (B, C, S/f, S/f)."""
        _check_image(nocs, 3)
        background = 0.0 if self.has_alpha else -1.0
        picture = torch.clamp(nocs * 2, -1, 1) * mask + background * (1 - mask)
        return self._encode(picture, mask * 2 - 1)

    def decode_nocs(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent -> centred coordinates (B, 3, S, S), not yet cut to their range, and mask logit (B, 1, S, S)."""
        picture = pixel_shuffle(self.vae.decode(latent / self.latent_scale).sample.float(), self.patch)
        if self.has_alpha:
            # alpha lives in [-1, 1]; four times that makes a logit of a sensible slope
            return picture[:, :3] / 2, picture[:, 3:] * 4
        brightest = (picture.amax(dim=1, keepdim=True) + 1) / 2
        return picture / 2, (brightest - BLACK_LEVEL) / BLACK_LEVEL * 4

    def _encode(self, picture: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Scaled latent of (B, 3, S, S) and (B, 1, S, S), both in [-1, 1]."""
        picture = torch.cat([picture, alpha], dim=1) if self.has_alpha else picture
        encoded = self.vae.encode(pixel_unshuffle(picture, self.patch))
        latent: torch.Tensor = encoded.latents if "latents" in encoded else encoded.latent_dist.mode()
        return latent * self.latent_scale


def build_autoencoder() -> Autoencoder:
    """The embedded architecture with fresh weights: 4x down, 16 channels."""
    return Autoencoder(AutoencoderTiny(**EMBEDDED_CONFIG))


def _check_image(image: torch.Tensor, channels: int) -> None:
    if image.ndim != 4 or image.shape[1] != channels or image.shape[2] != image.shape[3]:
        raise ShapeError("autoencoder input", got=tuple(image.shape), expected=f"(B, {channels}, S, S)")
