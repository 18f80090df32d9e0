"""Which pixels of two rendered views show the same point of the object, by their depths and poses."""

from __future__ import annotations

import torch

from nocsfm_ros.training.pairs import camera_motion
from nocsfm_ros.training.view_tensors import ViewTensors

AGREES = 0.04  # of the diagonal: how far depth may lie before or behind the point that a pixel should show


def cell_pixels(side: int, cells: int, device: torch.device) -> torch.Tensor:
    """(cells^2, 2) int64 column and row of the pixel nearest to each cell's middle, cells row by row.

    The middle of an even number of pixels lies between two; the later one is taken, 1 / 32 of a cell away.
    """
    middle = torch.arange(cells, device=device) * side // cells + side // cells // 2
    v, u = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([u.flatten(), v.flatten()], dim=1)


def of_pixels(maps: torch.Tensor, pixels_uv: torch.Tensor) -> torch.Tensor:
    """Values (B, N) of maps (B, S, S) at pixels (N, 2) or (B, N, 2) int64 inside them."""
    pixels_uv = pixels_uv.expand(len(maps), -1, 2)
    return maps.flatten(1).gather(1, pixels_uv[..., 1] * maps.shape[-1] + pixels_uv[..., 0])


def reference_places(
    live: ViewTensors, reference: ViewTensors, pixels_uv: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the reference picture shows what live pixels show.

    Args:
        live, reference: B views of the same objects.
        pixels_uv: (N, 2) int64 of the live picture.

    Returns:
        (B, N, 2) float32 pixels of the reference; (B, N) bool, whether the live pixel shows the object and the
        reference shows this point of it too: inside its picture and mask, hidden by nothing.
    """
    points = camera_motion(live, reference).float() @ _homogeneous(back_projected(live, pixels_uv)).transpose(1, 2)
    projected = (reference.K @ points[:, :3]).transpose(1, 2)
    depth_m, side = projected[..., 2], reference.mask.shape[-1]
    places_uv = projected[..., :2] / depth_m[..., None].clamp(min=1e-6)
    nearest = places_uv.round().long()
    seen = (depth_m > 0) & ((nearest >= 0) & (nearest < side)).all(dim=-1)
    nearest = nearest.clamp(0, side - 1)
    seen &= of_pixels(live.mask, pixels_uv) & (of_pixels(live.depth_m, pixels_uv) > 0)
    seen &= of_pixels(reference.mask, nearest)
    seen &= (of_pixels(reference.depth_m, nearest) - depth_m).abs() < AGREES * reference.diagonal_m[:, None]
    return places_uv, seen


def match_errors(
    pixels_ref: torch.Tensor, pixels_live: torch.Tensor, reference: ViewTensors, live: ViewTensors
) -> torch.Tensor:
    """How far apart the points are that matched pixels show.

    Args:
        pixels_ref, pixels_live: (B, P, 2) pixels, fractions allowed.
        reference, live: B views of the same objects.

    Returns:
        (B, P) distance as a share of the object's diagonal; infinite where one of the pixels has no depth.
    """
    side = live.mask.shape[-1]
    pixels_ref, pixels_live = (uv.round().long().clamp(0, side - 1) for uv in (pixels_ref, pixels_live))
    points_ref = back_projected(reference, pixels_ref)
    points = _homogeneous(back_projected(live, pixels_live)) @ camera_motion(live, reference).float().transpose(1, 2)
    error = (points[..., :3] - points_ref).norm(dim=-1) / reference.diagonal_m[:, None]
    known = (of_pixels(reference.depth_m, pixels_ref) > 0) & (of_pixels(live.depth_m, pixels_live) > 0)
    return torch.where(known, error, torch.inf)


def back_projected(views: ViewTensors, pixels_uv: torch.Tensor) -> torch.Tensor:
    """(B, N, 3) float32 points in metres in the views' cameras of pixels (N, 2) or (B, N, 2) int64."""
    pixels_uv = pixels_uv.expand(len(views.K), -1, 2)
    rays = _homogeneous(pixels_uv.float()) @ torch.linalg.inv(views.K).transpose(1, 2)
    return rays * of_pixels(views.depth_m, pixels_uv)[..., None]


def _homogeneous(points: torch.Tensor) -> torch.Tensor:
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
