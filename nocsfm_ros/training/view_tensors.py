"""Rendered views as tensors on one device, from the disk or kept in the device's memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.geometry.crops import R_ray_cam, crop_frame, crop_mask
from nocsfm_ros.geometry.nocs import anchored_frame
from nocsfm_ros.types import SimilarityPose

FRAME_POINTS = 500
FEATURES = "features"  # field of a view: (h, w, C) float16 of length 1
CHUNK = 256


@dataclass(frozen=True)
class ViewTensors:
    """B views at the flow's size, on one device.

    Attributes:
        rgb: (B, S, S, 3) uint8.
        depth_m: (B, S, S) float32, 0 = invalid.
        mask: (B, S, S) bool.
        features: (B, h, w, C) float16 of length 1, the backbone's; C = 0 where nothing was stored.
        K, R_ray_cam: (B, 3, 3) float32, of the crop.
        T_cam_obj: (B, 4, 4) float64, pose of the mesh: centred tight box, y up, metres.
        symmetry: (B,) int64, numbers of the objects' groups, see geometry.symmetry.
        T_cam_frame, scale_m: (B, 4, 4) float64 and (B,) float32, the object frame that the view fixes as a reference.
        diagonal_m: (B,) float32, of the mesh's box.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    mask: torch.Tensor
    features: torch.Tensor
    K: torch.Tensor
    R_ray_cam: torch.Tensor
    T_cam_obj: torch.Tensor
    symmetry: torch.Tensor
    T_cam_frame: torch.Tensor
    scale_m: torch.Tensor
    diagonal_m: torch.Tensor

    def take(self, rows: torch.Tensor) -> ViewTensors:
        """The views of some rows."""
        return ViewTensors(*(value[rows] for value in self._values()))

    def to(self, device: torch.device) -> ViewTensors:
        """The same on another device."""
        return ViewTensors(*(value.to(device) for value in self._values()))

    @staticmethod
    def joined(parts: Iterable[ViewTensors]) -> ViewTensors:
        """All parts, one after the other."""
        columns = zip(*(part._values() for part in parts), strict=True)
        return ViewTensors(*(torch.cat(column) for column in columns))

    def _values(self) -> list[torch.Tensor]:
        return [getattr(self, item.name) for item in fields(self)]


class ViewStore(Protocol):
    """Where a PairSampler takes its views from."""

    device: torch.device

    def take(self, rows: list[int]) -> ViewTensors:
        """The views of some rows of the data set."""
        ...


class DiskViews:
    """Reads views from their memory-mapped files when they are asked for."""

    def __init__(self, views: ViewDataset, side: int, device: torch.device) -> None:
        self.views, self.side, self.device = views, side, device

    def take(self, rows: list[int]) -> ViewTensors:
        """See ViewStore."""
        return view_tensors([self.views[row] for row in rows], self.side).to(self.device)


class MemoryViews:
    """Holds all views on the device: 24 000 of 128 pixels without features take 3 GB, with 304 channels 7 GB."""

    def __init__(self, views: ViewDataset, side: int, device: torch.device) -> None:
        self.device = device
        disk = DiskViews(views, side, device)
        self.whole = ViewTensors.joined(
            disk.take(list(range(first, min(first + CHUNK, len(views))))) for first in range(0, len(views), CHUNK)
        )

    def take(self, rows: list[int]) -> ViewTensors:
        """See ViewStore."""
        return self.whole.take(torch.tensor(rows, device=self.device))


def view_tensors(views: list[View], side: int) -> ViewTensors:
    """Stored views at `side` pixels, on the CPU."""
    crops = [flow_view(view, side) for view in views]
    frames = [reference_frame(crop) for crop in crops]

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(crop[name]) for crop in crops]))

    features = stacked(FEATURES) if FEATURES in views[0] else torch.zeros(len(views), 1, 1, 0, dtype=torch.float16)
    return ViewTensors(
        rgb=stacked("rgb"), depth_m=stacked("depth") * DEPTH_UNIT_M, mask=stacked("mask"), features=features,
        K=stacked("K").float(),
        R_ray_cam=torch.from_numpy(np.stack([R_ray_cam(crop["K"], side) for crop in crops])).float(),
        T_cam_obj=stacked("T_cam_obj").double(), symmetry=stacked("symmetry").long(),
        T_cam_frame=torch.from_numpy(np.stack([frame.T_cam_obj for frame in frames])),
        scale_m=torch.tensor([frame.scale_m for frame in frames], dtype=torch.float32),
        diagonal_m=stacked("diagonal_m").float(),
    )


def flow_view(view: View, side: int) -> View:
    """A stored view at the flow's own size, resampled as the node crops its pictures."""
    stored = view["rgb"].shape[0]
    whole = (-0.5, -0.5, float(stored), float(stored))
    crop = crop_frame(np.asarray(view["rgb"]), view["depth"].astype(np.float32), view["K"], whole, side)
    return {
        **view, "rgb": crop.rgb, "depth": crop.depth_m, "mask": crop_mask(np.asarray(view["mask"]) > 0, crop),
        "K": crop.K_crop,
    }


def reference_frame(view: View) -> SimilarityPose:
    """The object frame that a rendered view would fix as a reference, from its clean depth."""
    K, side = view["K"], view["rgb"].shape[0]
    v, u = np.nonzero(view["mask"] > 0)
    step = max(1, len(u) // FRAME_POINTS)
    u, v = u[::step], v[::step]
    depth_m = view["depth"][v, u] * DEPTH_UNIT_M
    points_cam = np.stack([(u - K[0, 2]) / K[0, 0] * depth_m, (v - K[1, 2]) / K[1, 1] * depth_m, depth_m], axis=1)
    return anchored_frame(points_cam[depth_m > 0], R_ray_cam(K, side)[2])
