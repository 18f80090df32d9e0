"""The trained network at work on one live crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nocsfm_ros.flow.checkpoints import part_folder
from nocsfm_ros.flow.conditions import pictures
from nocsfm_ros.geometry.transforms import invert, nearest_rotation
from nocsfm_ros.refinement.network import Opinion, PoseRefiner, load_refiner
from nocsfm_ros.refinement.windows import Surfaces, Windows, look_at, moved_poses, seen_surfaces
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, ObjectCrop, SimilarityPose

MIN_SURFACE = 20  # points


class Refiner:
    """Compares live crops with surfaces at supposed poses.

    Args:
        network: trained.
        device: where it runs.
    """

    def __init__(self, network: PoseRefiner, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.eval()
        # not its own `to`: diffusers warns there of an empty list of modules
        torch.nn.Module.to(self.network, self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> Refiner:
        """Of a weights folder, or the embedded one where that has none. Raises CheckpointError."""
        return cls(load_refiner(part_folder(folder, "refiner")), device)

    @torch.inference_mode()
    def surface(self, crop: ObjectCrop, mask: BoolArray) -> Surfaces | None:
        """What a crop (S, S) with its mask shows of the object, in its camera's frame; None without enough depth."""
        surfaces = seen_surfaces(
            pictures(self._tensor(crop.rgb)), self._tensor(crop.depth_m), self._tensor(mask),
            self._tensor(crop.K_crop).float(), self._tensor(np.eye(4)),
        )
        return surfaces if int(surfaces.known.sum()) >= MIN_SURFACE else None

    @torch.inference_mode()
    def moved(
        self, crop: ObjectCrop, surface: Surfaces, T_view_obj: Float64Array, poses: Sequence[SimilarityPose], steps: int
    ) -> list[SimilarityPose]:
        """Poses after so many motions.

        Args:
            crop: S x S live crop.
            surface: of one view.
            T_view_obj: (4, 4) the object's pose in that view.
            poses: supposed ones in the live camera, at least one.
            steps: each asks the network once.
        """
        T_cam_view, surfaces = self._in_view(poses, T_view_obj), surface.repeated(len(poses))
        for _ in range(steps):
            windows, said = self._compared(crop, surfaces, T_cam_view)
            T_cam_view = moved_poses(T_cam_view, surfaces, windows.R_ray_cam, said.motion(windows.cells))
        return [
            SimilarityPose(nearest_rotation(T_cam_obj[:3, :3]), T_cam_obj[:3, 3], pose.scale_m)
            for T_cam_obj, pose in zip(T_cam_view.cpu().numpy() @ T_view_obj, poses, strict=True)
        ]

    @torch.inference_mode()
    def scores(
        self, crop: ObjectCrop, surface: Surfaces, T_view_obj: Float64Array, poses: Sequence[SimilarityPose]
    ) -> Float32Array:
        """(N,) how right the poses are, [0, 1]; see `moved`."""
        _, said = self._compared(crop, surface.repeated(len(poses)), self._in_view(poses, T_view_obj))
        return np.asarray(said.score.cpu().numpy(), np.float32)

    def _compared(self, crop: ObjectCrop, surfaces: Surfaces, T_cam_view: torch.Tensor) -> tuple[Windows, Opinion]:
        rgb, depth_m, K = (
            x.expand(len(T_cam_view), *x.shape[1:])
            for x in (pictures(self._tensor(crop.rgb)), self._tensor(crop.depth_m), self._tensor(crop.K_crop).float())
        )
        windows = look_at(rgb, depth_m, K, surfaces, T_cam_view)
        return windows, self.network(windows.seen.contiguous(memory_format=torch.channels_last))

    def _in_view(self, poses: Sequence[SimilarityPose], T_view_obj: Float64Array) -> torch.Tensor:
        """(N, 4, 4) of the view's camera in the live one, as if the object had not moved."""
        return torch.from_numpy(np.stack([pose.T_cam_obj for pose in poses]) @ invert(T_view_obj)).to(self.device)

    def _tensor(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)
