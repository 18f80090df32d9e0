"""Autoencoder and velocity network together: a crop and a reference in, NOCS and mask out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from nocsfm_ros.checkpoints import load_pretrained, model_class_of
from nocsfm_ros.device import fast_dtype
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.conditions import (
    CONTEXT_GAIN,
    central_depth,
    guessed_scale,
    live_condition,
    match_hints,
    pictures,
    reference_cells,
    reference_condition,
)
from nocsfm_ros.flow.diffusion import OBJECTIVE as DIFFUSION
from nocsfm_ros.flow.diffusion import denoise
from nocsfm_ros.flow.match_head import Matched
from nocsfm_ros.flow.path import integrate
from nocsfm_ros.flow.transformer import VelocityTransformer
from nocsfm_ros.flow.velocity import LOG_SIGMA_RANGE, FlowStep, VelocityNetwork
from nocsfm_ros.geometry.crops import R_ray_cam
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, NocsMap, ObjectCrop, SimilarityPose

CROP_SIDE = 128  # of the embedded weights
MIN_AGREEING = 6.0  # cells
FEATURE_SIDE = 256  # of the same square for the backbone: at stride 16 one feature cell is 8 x 8 pixels of the crop

Velocity = VelocityNetwork | VelocityTransformer


def load_velocity(folder: Path) -> Velocity:
    """The network that a folder's config.json names. Raises CheckpointError."""
    return load_pretrained(model_class_of(folder, VelocityNetwork, VelocityTransformer), folder)


@dataclass(frozen=True)
class EncodedView:
    """A reference or keyframe as the flow needs it; made once.

    Attributes:
        tokens: (1, N, C) what the velocity network attends to.
        features: (1, C, h, w) the backbone's, or None.
        cells: mask (1, 1, h, w), coordinates (1, 3, h, w) and validity (1, 1, h, w) of the feature cells.
    """

    tokens: torch.Tensor
    features: torch.Tensor | None
    cells: tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def solver_of(velocity: Velocity) -> Callable[..., tuple[torch.Tensor, FlowStep]]:
    """What takes z0 to z1 with this network: Euler steps of the flow, or DDIM."""
    return denoise if velocity.config.get("objective") == DIFFUSION else integrate


def matched_pose(
    matched: Matched | None, R_crop: Float64Array, depth_m: float, scale_m: float | None
) -> SimilarityPose | None:
    """The pose that the network's matches agree on, brought back from the coordinates of conditions.live_condition.

    Args:
        matched: of one picture; None of a network that does not match.
        R_crop: (3, 3) R_ray_cam of the crop.
        depth_m: its central_depth.
        scale_m: metres per NOCS unit of the reference, or None if it had no depth.

    Returns:
        Of the reference's frame in the camera; None without a scale, or where fewer than MIN_AGREEING cells agree.
    """
    if matched is None or scale_m is None or float(matched.num_agreeing[0]) < MIN_AGREEING:
        return None
    motion = matched.rigid[0].double().cpu().numpy()
    R_ray_obj, t_obj = motion[:, :3].T, motion[:, 3]
    t_ray_obj = np.array([0, 0, depth_m]) - scale_m * R_ray_obj @ t_obj
    return SimilarityPose(R_crop.T @ R_ray_obj, R_crop.T @ t_ray_obj, scale_m)


class FlowModel:
    """Runs the learned part, on one device, in inference mode.

    Args:
        autoencoder, velocity: the two networks.
        device: "cpu" or "cuda".
    """

    def __init__(self, autoencoder: Autoencoder, velocity: Velocity, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.dtype = fast_dtype(self.device)
        self.autoencoder = autoencoder.to(  # type: ignore[call-overload]
            self.device, self.dtype, memory_format=torch.channels_last
        ).eval()
        # not its own `to`: diffusers warns there of an empty list of modules
        self.velocity: Velocity = torch.nn.Module.to(  # type: ignore[call-overload]
            velocity, self.device, self.dtype, memory_format=torch.channels_last
        ).eval()

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> FlowModel:
        """Load ``autoencoder/`` and ``velocity/``. Raises CheckpointError."""
        return cls(
            Autoencoder.from_pretrained(folder / "autoencoder"), load_velocity(folder / "velocity"), device,
        )

    @property
    def crop_side(self) -> int:
        """Pixels along a side of the crops that these weights were trained with."""
        return int(self.velocity.config["latent_side"]) * self.autoencoder.cell_pixels

    @torch.inference_mode()
    def encode_view(
        self, crop: ObjectCrop, mask: BoolArray, nocs: Float32Array | None, features: Float32Array | None
    ) -> EncodedView:
        """A reference or keyframe, to be kept.

        Args:
            crop: S x S crop around the object.
            mask: (S, S) bool.
            nocs: (S, S, 3) its coordinates in its own anchored frame, NaN where unknown; None without depth.
            features: (h, w, C) float32 of length 1, the backbone's of the same square; None without.
        """
        known = np.zeros_like(mask) if nocs is None else np.asarray(np.isfinite(nocs).all(axis=2))
        coordinates = np.zeros((*mask.shape, 3), np.float32) if nocs is None else np.nan_to_num(nocs)
        of_object, valid = self._tensor(mask)[:, None].float(), self._tensor(known)[:, None].float()
        coordinate_map = self._tensor(coordinates).permute(0, 3, 1, 2).clamp(-0.5, 0.5)
        condition = reference_condition(pictures(self._tensor(crop.rgb)), of_object, coordinate_map, valid)
        grid = self._grid(features)
        return EncodedView(
            self.velocity.encode_reference(condition.to(self.dtype), self._context(grid)), grid,
            reference_cells(of_object, coordinate_map, valid, self.velocity.context_side),
        )

    @torch.inference_mode()
    def predict(
        self, crop: ObjectCrop, view: EncodedView, scale_m: float | None, features: Float32Array | None, steps: int = 1
    ) -> NocsMap:
        """NOCS and mask of a crop, in the anchored frame of `view`.

        Args:
            crop: S x S live crop; all-zero depth is allowed.
            view: from encode_view.
            scale_m: metres per NOCS unit of that view, or None if it had no depth.
            features: (h, w, C) float32 of length 1, the backbone's of the same square; None without.
            steps: Euler steps, or DDIM steps of weights trained as a diffusion model.
        """
        rgb, depth_m = pictures(self._tensor(crop.rgb)), self._tensor(crop.depth_m)
        K_crop = self._tensor(crop.K_crop).float()
        R_crop = R_ray_cam(crop.K_crop, crop.rgb.shape[0])
        R = self._tensor(R_crop).float()
        scale = guessed_scale(depth_m, K_crop) if scale_m is None else torch.full((1,), scale_m, device=self.device)
        grid, hints = self._grid(features), None
        if grid is not None and view.features is not None:
            hints = match_hints(grid, view.features, *view.cells).to(self.dtype)
        condition = live_condition(rgb, depth_m, K_crop, R, scale).to(self.dtype)
        live = self.velocity.encode_live(condition, self._context(grid), hints)
        z0 = self.autoencoder.encode_picture(rgb.to(self.dtype))
        z1, last = solver_of(self.velocity)(lambda z, tau: self.velocity(z, tau, live, view.tokens), z0, steps)
        nocs, logit = self.autoencoder.decode_nocs(z1)
        log_sigma = last.log_sigma.float().clamp(*LOG_SIGMA_RANGE)
        sigma = interpolate(log_sigma, crop.rgb.shape[:2], mode="bilinear").exp()
        return NocsMap(
            nocs=nocs[0].permute(1, 2, 0).clamp(-0.5, 0.5).cpu().numpy(), mask_prob=logit[0, 0].sigmoid().cpu().numpy(),
            sigma=sigma[0, 0].cpu().numpy(),
            matched=matched_pose(last.matched, R_crop, float(central_depth(depth_m)), scale_m),
        )

    def _grid(self, features: Float32Array | None) -> torch.Tensor | None:
        """(1, C, h, w) unit features, or None where the network takes none."""
        if features is None or not self.velocity.config.get("context_channels"):
            return None
        return self._tensor(features).permute(0, 3, 1, 2)

    def _context(self, grid: torch.Tensor | None) -> torch.Tensor | None:
        return None if grid is None else (grid * CONTEXT_GAIN).to(self.dtype)

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)
