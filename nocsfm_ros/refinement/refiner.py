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
from nocsfm_ros.refinement.network import PoseRefiner, load_refiner
from nocsfm_ros.refinement.windows import Surfaces, look_at, moved_poses, seen_surfaces
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
    def refine(
        self, crop: ObjectCrop, surface: Surfaces, T_view_obj: Float64Array, poses: Sequence[SimilarityPose], steps: int
    ) -> tuple[list[SimilarityPose], Float32Array]:
        """Poses after so many motions, and their scores (N,) in [0, 1].

        Args:
            crop: S x S live crop.
            surface: of one view.
            T_view_obj: (4, 4) the object's pose in that view.
            poses: supposed ones in the live camera, at least one.
            steps: 0 for scores alone.
        """
        count = len(poses)
        T_cam_view = np.stack([pose.T_cam_obj for pose in poses]) @ invert(T_view_obj)
        T = torch.from_numpy(T_cam_view).to(self.device)
        rgb, depth_m, K = pictures(self._tensor(crop.rgb)), self._tensor(crop.depth_m), self._tensor(crop.K_crop)
        rgb, depth_m, K = (x.expand(count, *x.shape[1:]) for x in (rgb, depth_m, K.float()))
        surfaces = surface.repeated(count)
        for step in range(steps + 1):
            windows = look_at(rgb, depth_m, K, surfaces, T)
            said = self.network(windows.seen.contiguous(memory_format=torch.channels_last))
            if step < steps:
                T = moved_poses(T, surfaces, windows.R_ray_cam, said.motion(windows.cells))
        refined = [
            SimilarityPose(nearest_rotation(T_cam_obj[:3, :3]), T_cam_obj[:3, 3], pose.scale_m)
            for T_cam_obj, pose in zip(T.cpu().numpy() @ T_view_obj, poses, strict=True)
        ]
        return refined, said.score.cpu().numpy()

    def _tensor(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)
