"""What the velocity network is told besides the latent: eight channels per view, batched, the same in training and use.

Live and reference views are described alike: colour, coordinates as a share of the object's scale, where those
coordinates are valid, and the mask (of the reference; the live one is what we look for). Beside them stand the
backbone's features of both views and the coordinates that their matches suggest.
"""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d

# A reference without depth has no metric scale. The side of a usual crop at the object's distance times this is near
# the scale_m a reference with depth would have had: 1.5 box diagonals for a crop of 1.5 box sides.
SCALE_PER_CROP_SIDE = 1.2
CONTEXT_GAIN = 16.0  # features are unit vectors of hundreds of channels; this brings a channel to about unit size
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


def reference_cells(
    mask: torch.Tensor, nocs: torch.Tensor, valid: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask (B, 1, S, S), coordinates (B, 3, S, S) and validity (B, 1, S, S) of a reference per feature cell.

    Returns:
        The same at (side, side): mostly object; mean coordinates of its known pixels; whether there are any.
    """
    size, known = mask.shape[-1] // side, mask * valid
    share = avg_pool2d(known, size)
    return (avg_pool2d(mask, size) > 0.5).float(), avg_pool2d(nocs * known, size) / share.clamp(min=1e-3), (
        share > 0.25
    ).float()


def match_hints(
    live: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, nocs: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """What the backbone's matches say of each live cell.

    Args:
        live, reference: (B, C, h, w) features of length 1.
        mask: (B, 1, h, w) in {0, 1}: cells of the reference that show the object.
        nocs: (B, 3, h, w) their coordinates.
        known: (B, 1, h, w) in {0, 1}: where nocs is known.

    Returns:
        (B, 5, h, w): coordinates of the most similar object cell where the two are mutual nearest neighbours and the
        coordinates are known, else zeros; 1 there; and the cosine similarity to that cell, 0 without any object cell.
    """
    cosine = live.flatten(2).transpose(1, 2) @ reference.flatten(2)  # (B, live cells, reference cells)
    cosine = cosine.masked_fill(mask.flatten(2) < 0.5, -2.0)
    similarity, nearest = cosine.max(dim=2)
    backwards = cosine.argmax(dim=1)
    cells = torch.arange(live.shape[2] * live.shape[3], device=live.device)
    mutual = backwards.gather(1, nearest) == cells
    usable = mutual & (known.flatten(1).gather(1, nearest) > 0.5) & (similarity > -1.5)
    matched = nocs.flatten(2).gather(2, nearest[:, None].expand(-1, 3, -1)) * usable[:, None]
    hints = torch.cat([matched, usable[:, None].float(), similarity.clamp(min=0)[:, None]], dim=1)
    return hints.view(len(live), -1, *live.shape[2:])
