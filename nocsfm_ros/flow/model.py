"""Autoencoder and velocity network together: a crop and a reference in, NOCS and mask out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nocsfm_ros.device import fast_dtype
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.checkpoints import load_pretrained
from nocsfm_ros.flow.conditions import guessed_scale, live_condition, pictures, reference_condition
from nocsfm_ros.flow.path import integrate
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.geometry.crops import R_ray_cam
from nocsfm_ros.types import BoolArray, Float32Array, NocsMap, ObjectCrop

CROP_SIDE = 128


class FlowModel:
    """Runs the learned part, on one device, in inference mode.

    Args:
        autoencoder, velocity: the two networks.
        device: "cpu" or "cuda".
    """

    def __init__(self, autoencoder: Autoencoder, velocity: VelocityNetwork, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.dtype = fast_dtype(self.device)
        self.autoencoder = autoencoder.to(  # type: ignore[call-overload]
            self.device, self.dtype, memory_format=torch.channels_last
        ).eval()
        self.velocity = velocity.to(self.device, self.dtype, memory_format=torch.channels_last).eval()

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> FlowModel:
        """Load ``autoencoder/`` and ``velocity/``. Raises CheckpointError."""
        return cls(
            Autoencoder.from_pretrained(folder / "autoencoder"), load_pretrained(VelocityNetwork, folder / "velocity"),
            device,
        )

    @torch.inference_mode()
    def encode_view(self, crop: ObjectCrop, mask: BoolArray, nocs: Float32Array | None) -> torch.Tensor:
        """Tokens of a reference or keyframe, to be kept.

        Args:
            crop: S x S crop around the object.
            mask: (S, S) bool.
            nocs: (S, S, 3) its coordinates in its own anchored frame, NaN where unknown; None without depth.
        """
        known = np.zeros_like(mask) if nocs is None else np.asarray(np.isfinite(nocs).all(axis=2))
        coordinates = np.zeros((*mask.shape, 3), np.float32) if nocs is None else np.nan_to_num(nocs)
        condition = reference_condition(
            pictures(self._tensor(crop.rgb)), self._tensor(mask)[:, None].float(),
            self._tensor(coordinates).permute(0, 3, 1, 2).clamp(-0.5, 0.5), self._tensor(known)[:, None].float(),
        )
        return self.velocity.encode_reference(condition.to(self.dtype))

    @torch.inference_mode()
    def predict(self, crop: ObjectCrop, tokens: torch.Tensor, scale_m: float | None, steps: int = 1) -> NocsMap:
        """NOCS and mask of a crop, in the anchored frame of the view that `tokens` describe.

        Args:
            crop: S x S live crop; all-zero depth is allowed.
            tokens: from encode_view.
            scale_m: metres per NOCS unit of that view, or None if it had no depth.
            steps: Euler steps.
        """
        rgb, depth_m = pictures(self._tensor(crop.rgb)), self._tensor(crop.depth_m)
        K_crop = self._tensor(crop.K_crop).float()
        R = self._tensor(R_ray_cam(crop.K_crop, crop.rgb.shape[0])).float()
        scale = guessed_scale(depth_m, K_crop) if scale_m is None else torch.full((1,), scale_m, device=self.device)
        live = self.velocity.encode_live(live_condition(rgb, depth_m, K_crop, R, scale).to(self.dtype))
        z0 = self.autoencoder.encode_picture(rgb.to(self.dtype))
        z1 = integrate(lambda z, tau: self.velocity(z, tau, live, tokens), z0, steps)
        nocs, logit = self.autoencoder.decode_nocs(z1)
        return NocsMap(
            nocs=nocs[0].permute(1, 2, 0).clamp(-0.5, 0.5).cpu().numpy(), mask_prob=logit[0, 0].sigmoid().cpu().numpy()
        )

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)
