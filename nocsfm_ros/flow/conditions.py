"""What the velocity network is told besides the latent: eight channels per view, batched, the same in training and use.

Live and reference views are described alike: colour, coordinates as a share of the object's scale, where those
coordinates are valid, and the mask (of the reference; the live one is what we look for).
"""

from __future__ import annotations

import torch

# A reference without depth has no metric scale. The side of a usual crop at the object's distance times this is near
# the scale_m a reference with depth would have had: 1.5 box diagonals for a crop of 1.5 box sides.
SCALE_PER_CROP_SIDE = 1.2
COORDINATE_LIMIT = 2.0  # background further than this many scales from the crop's centre tells nothing more


def pictures(rgb: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 in [0, 1]."""
    return rgb.permute(0, 3, 1, 2).float() / 255


def ray_points(depth_m: torch.Tensor, K_crop: torch.Tensor, R_ray_cam: torch.Tensor) -> torch.Tensor:
    """Back-project every pixel into the ray frame: the camera turned so that the crop's central ray is +Z.

    Args:
        depth_m: (B, S, S) metres, 0 = invalid.
        K_crop: (B, 3, 3).
        R_ray_cam: (B, 3, 3), see geometry.crops.R_ray_cam.

    Returns:
        (B, 3, S, S) metres; zeros where the depth is invalid.
    """
    side = depth_m.shape[-1]
    v, u = torch.meshgrid(
        torch.arange(side, device=depth_m.device, dtype=depth_m.dtype),
        torch.arange(side, device=depth_m.device, dtype=depth_m.dtype), indexing="ij",
    )
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    rays = R_ray_cam @ torch.linalg.inv(K_crop) @ pixels
    return rays.view(-1, 3, side, side) * depth_m[:, None]


def central_depth(depth_m: torch.Tensor) -> torch.Tensor:
    """(B, S, S) metres -> (B,) median of the valid depths in the central quarter, else of the whole crop, else 1.

    Taken on a coarse grid of the pixels: sorting all of them costs as much as the network.
    """
    side = depth_m.shape[-1]
    centre = slice(side // 4, side - side // 4, 3)
    answer = torch.full((len(depth_m),), float("nan"), device=depth_m.device)
    for region in (depth_m[:, centre, centre], depth_m[:, ::6, ::6]):
        values = torch.where(region > 0, region, torch.nan).flatten(1)
        answer = torch.where(answer.isnan(), values.nanmedian(dim=1).values, answer)
    return torch.nan_to_num(answer, nan=1.0)


def guessed_scale(depth_m: torch.Tensor, K_crop: torch.Tensor) -> torch.Tensor:
    """(B,) metres: stands in for scale_m where the reference came without depth."""
    return central_depth(depth_m) * depth_m.shape[-1] / K_crop[:, 0, 0] * SCALE_PER_CROP_SIDE


def live_condition(
    rgb: torch.Tensor, depth_m: torch.Tensor, K_crop: torch.Tensor, R_ray_cam: torch.Tensor, scale_m: torch.Tensor
) -> torch.Tensor:
    """Condition of the live crop.

    Args:
        rgb: (B, 3, S, S) in [0, 1].
        depth_m: (B, S, S) metres, 0 = invalid; all zeros for a picture without depth.
        K_crop, R_ray_cam: (B, 3, 3).
        scale_m: (B,) the object's scale.

    Returns:
        (B, 8, S, S): rgb in [-1, 1]; ray-frame coordinates from the point on the central ray at central_depth, as a
        share of scale_m, cut to COORDINATE_LIMIT; validity; zeros for the mask.
    """
    points = ray_points(depth_m, K_crop, R_ray_cam)
    points[:, 2] -= central_depth(depth_m)[:, None, None]
    valid = (depth_m > 0)[:, None].float()
    xyz = (points / scale_m.view(-1, 1, 1, 1)).clamp(-COORDINATE_LIMIT, COORDINATE_LIMIT) * valid
    return torch.cat([rgb * 2 - 1, xyz, valid, torch.zeros_like(valid)], dim=1)


def reference_condition(
    rgb: torch.Tensor, mask: torch.Tensor, nocs: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Condition of a reference or keyframe crop.

    Args:
        rgb: (B, 3, S, S) in [0, 1], background kept.
        mask: (B, 1, S, S) in {0, 1}.
        nocs: (B, 3, S, S) its object coordinates.
        valid: (B, 1, S, S) in {0, 1}: where nocs is known; all zeros for a picture without depth.

    Returns:
        (B, 8, S, S).
    """
    known = mask * valid
    return torch.cat([rgb * 2 - 1, nocs * known, known, mask], dim=1)
