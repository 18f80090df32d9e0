"""What is compared: the live view and the object as it would look at a supposed pose, in one window. Batched.

The window looks straight at the object's middle and is as wide as the object: wherever the object is and however large,
the picture is the same, so that a network need not learn places and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch.nn.functional import avg_pool2d, grid_sample

from nocsfm_ros.flow.conditions import COORDINATE_LIMIT, ray_points

SIDE, CELL = 64, 4  # pixels of a window, and of the cells whose displacement is asked
CHANNELS = 10
STEP = 2  # every second pixel of a reference crop becomes a point of its surface
RADIUS_PER_RMS = 1.8  # of the points' distances from their middle: a rod's half length, and a disc's radius and a bit
MARGIN = 1.2  # half the window's width, in radii: room for poses that are off
MIN_FACING = 0.05  # cosine of normal and viewing ray
FLYING = 0.25  # of the radius: neighbours further apart are of two surfaces
DEPTH_STEPS = 1 << 20
MIN_DISTANCE_M = 0.05


@dataclass(frozen=True)
class Surfaces:
    """B surfaces of at most N coloured points, each seen in one view.

    Attributes:
        points: (B, N, 3) metres in the object frame.
        normals: (B, N, 3) of length 1.
        rgb: (B, N, 3) in [0, 1].
        known: (B, N) bool: which of the N there are.
        middle: (B, 3) metres, mean of the points.
        radius_m: (B,) size.
    """

    points: torch.Tensor
    normals: torch.Tensor
    rgb: torch.Tensor
    known: torch.Tensor
    middle: torch.Tensor
    radius_m: torch.Tensor

    def repeated(self, times: int) -> Surfaces:
        """Every surface `times` times, one after the other."""
        return Surfaces(*(getattr(self, item.name).repeat_interleave(times, dim=0) for item in fields(self)))


def seen_surfaces(
    rgb: torch.Tensor, depth_m: torch.Tensor, mask: torch.Tensor, K: torch.Tensor, T_obj_cam: torch.Tensor
) -> Surfaces:
    """The surfaces that masked crops with depth show.

    Args:
        rgb: (B, 3, S, S) in [0, 1].
        depth_m: (B, S, S) metres, 0 = invalid.
        mask: (B, S, S) bool.
        K: (B, 3, 3) of the crops.
        T_obj_cam: (B, 4, 4).
    """
    R, t = T_obj_cam[:, :3, :3].float(), T_obj_cam[:, :3, 3].float()
    seen = ray_points(depth_m, K, torch.eye(3, device=K.device).expand_as(K))  # in the camera
    along_u = seen[:, :, 1:-1, 2:] - seen[:, :, 1:-1, :-2]
    along_v = seen[:, :, 2:, 1:-1] - seen[:, :, :-2, 1:-1]
    normals = torch.nn.functional.normalize(torch.linalg.cross(along_v, along_u, dim=1), dim=1)  # to the camera
    inside = mask & (depth_m > 0)
    whole = -torch.nn.functional.max_pool2d(-inside[:, None].float(), 3, 1)[:, 0] > 0.5  # all neighbours too
    steep = torch.maximum(along_u.square().sum(dim=1), along_v.square().sum(dim=1))
    seen, inside = seen[:, :, 1:-1, 1:-1], inside[:, 1:-1, 1:-1]
    is_thin = (4 * whole.sum(dim=(1, 2)) < inside.sum(dim=(1, 2)))[:, None, None]  # a pen has no inside, and no normals
    whole, steep = torch.where(is_thin, inside, whole), torch.where(is_thin, 0.0, steep)
    normals = torch.where(is_thin[:, None], -torch.nn.functional.normalize(seen, dim=1), normals)
    points, normals, colours, whole, steep = (
        grid[..., ::STEP, ::STEP].flatten(-2) for grid in (seen, normals, rgb[:, :, 1:-1, 1:-1], whole, steep)
    )
    points, normals = points.mT @ R.mT + t[:, None], normals.mT @ R.mT
    middle, radius_m = _middle_and_radius(points, whole)
    known = whole & (steep < (FLYING * radius_m[:, None]) ** 2)
    return Surfaces(points, normals, colours.mT, known, middle, radius_m)


def _middle_and_radius(points: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shares = known[..., None] / known.sum(dim=1).clamp(min=1)[:, None, None]
    middle = (shares * points).sum(dim=1)
    squared = (shares * (points - middle[:, None]).square()).sum(dim=(1, 2))
    return middle, RADIUS_PER_RMS * squared.sqrt().clamp(min=1e-3)


@dataclass(frozen=True)
class Windows:
    """B pictures for the network and how to undo their view.

    Attributes:
        seen: (B, 10, W, W): of the live view rgb 3 in [-1, 1], distance beyond the middle in radii 1, validity 1; of
            the rendered surface the same with 1 where it is hit.
        cells: (B, 4, W/4, W/4): mean place of the rendered pixels of a cell, from the middle along the window's axes in
            radii 3, and the share of its pixels that are hit 1.
        R_ray_cam: (B, 3, 3) turns the camera to look at the middle.
    """

    seen: torch.Tensor
    cells: torch.Tensor
    R_ray_cam: torch.Tensor


def look_at(
    rgb: torch.Tensor, depth_m: torch.Tensor, K: torch.Tensor, surfaces: Surfaces, T_cam_obj: torch.Tensor
) -> Windows:
    """Live crops (B, 3, S, S) in [0, 1], (B, S, S) metres, (B, 3, 3) and surfaces at the poses (B, 4, 4)."""
    R, t = T_cam_obj[:, :3, :3].float(), T_cam_obj[:, :3, 3].float()
    middle = (R @ surfaces.middle[..., None])[..., 0] + t
    distance = middle.norm(dim=1).clamp(min=MIN_DISTANCE_M)
    R_ray = _turned_to(middle / distance[:, None])
    half = MARGIN * surfaces.radius_m / distance  # tangent of half the window's angle
    live = _live(rgb, depth_m, K, R_ray, half, distance, surfaces.radius_m)
    points = (surfaces.points @ R.mT + t[:, None]) @ R_ray.mT
    normals = surfaces.normals @ (R_ray @ R).mT
    facing = -(normals * points).sum(dim=2) > MIN_FACING * points.norm(dim=2)
    shown = surfaces.known & facing & (points[..., 2] > MIN_DISTANCE_M)
    beyond = (points[..., 2] - distance[:, None]) / surfaces.radius_m[:, None]
    places = points[..., :2] / points[..., 2:].clamp(min=MIN_DISTANCE_M) / half[:, None, None]
    rendered = _rendered(places, beyond, surfaces.rgb, shown)
    return Windows(torch.cat([live, rendered], dim=1), _cells(rendered, surfaces.radius_m / distance), R_ray)


def _turned_to(direction: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) the smallest turns that bring unit vectors (B, 3) to +Z; they must not point to -Z."""
    x, y, z = direction.unbind(dim=1)
    share = 1 / (1 + z.clamp(min=-0.99))
    rows = [1 - x * x * share, -x * y * share, -x, -x * y * share, 1 - y * y * share, -y, x, y, z]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _live(
    rgb: torch.Tensor, depth_m: torch.Tensor, K: torch.Tensor, R_ray: torch.Tensor, half: torch.Tensor,
    distance: torch.Tensor, radius_m: torch.Tensor,
) -> torch.Tensor:
    """(B, 5, W, W): the crop as a camera sees it that looks at the middle."""
    along = ((torch.arange(SIDE, device=rgb.device) + 0.5) * (2 / SIDE) - 1) * half[:, None]
    x, y = along[:, None, :].expand(-1, SIDE, -1), along[:, :, None].expand(-1, -1, SIDE)
    rays = R_ray.mT @ torch.stack([x, y, torch.ones_like(x)], dim=1).flatten(2)  # in the crop's camera
    pixels = K.float() @ (rays / rays[:, 2:].clamp(min=1e-3))
    grid = ((pixels[:, :2] + 0.5) * (2 / rgb.shape[-1]) - 1).mT.view(-1, SIDE, SIDE, 2)
    colour = grid_sample(rgb, grid, "bilinear", "zeros", align_corners=False)
    measured = grid_sample(depth_m[:, None], grid, "nearest", "zeros", align_corners=False)
    valid = (measured > 0).float()
    beyond = measured / rays[:, 2:].clamp(min=1e-3).view(-1, 1, SIDE, SIDE) - distance.view(-1, 1, 1, 1)
    beyond = (beyond / radius_m.view(-1, 1, 1, 1)).clamp(-COORDINATE_LIMIT, COORDINATE_LIMIT)
    return torch.cat([colour * 2 - 1, beyond * valid, valid], dim=1)


def _rendered(
    places: torch.Tensor, beyond: torch.Tensor, rgb: torch.Tensor, shown: torch.Tensor
) -> torch.Tensor:
    """(B, 5, W, W): the nearest point in every pixel; each covers four.

    Args:
        places: (B, N, 2) in the window, -1 to 1.
        beyond: (B, N) what the nearest is nearest in, radii.
        rgb: (B, N, 3).
        shown: (B, N) bool.
    """
    count, num_points = beyond.shape
    corner = torch.floor((places + 1) * (SIDE / 2) - 0.5).long()
    steps = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], device=places.device)
    cells = corner[:, :, None] + steps  # (B, N, 4, 2)
    drawn = shown[..., None] & ((cells >= 0) & (cells < SIDE)).all(dim=3)
    pixel = torch.where(drawn, cells[..., 1] * SIDE + cells[..., 0], SIDE * SIDE).flatten(1)
    level = ((beyond.clamp(-3.9, 3.9) + 4) * (DEPTH_STEPS / 8)).long()
    key = level * num_points + torch.arange(num_points, device=places.device)
    nothing = DEPTH_STEPS * num_points
    nearest = torch.full((count, SIDE * SIDE + 1), nothing, device=places.device)
    nearest.scatter_reduce_(1, pixel, key[..., None].expand(-1, -1, 4).flatten(1), "amin")
    nearest = nearest[:, :-1]
    hit = (nearest < nothing).float()
    index = nearest.remainder(num_points)
    colour = rgb.gather(1, index[..., None].expand(-1, -1, 3)).mT * 2 - 1
    channels = [colour, beyond.gather(1, index)[:, None].clamp(-COORDINATE_LIMIT, COORDINATE_LIMIT)]
    return torch.cat([torch.cat(channels, dim=1) * hit[:, None], hit[:, None]], dim=1).view(count, -1, SIDE, SIDE)


def _cells(rendered: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """(B, 4, W/4, W/4), see Windows; radius (B,) as a share of the distance."""
    beyond, hit = rendered[:, 3:4], rendered[:, 4:]
    along = ((torch.arange(SIDE, device=hit.device) + 0.5) * (2 / SIDE) - 1) * MARGIN
    farther = 1 + beyond * radius.view(-1, 1, 1, 1)
    places = torch.cat([along * farther, along[:, None] * farther, beyond], dim=1)
    share = avg_pool2d(hit, CELL)
    return torch.cat([avg_pool2d(places * hit, CELL) / share.clamp(min=1e-3), share], dim=1)


def moved_poses(
    T_cam_obj: torch.Tensor, surfaces: Surfaces, R_ray_cam: torch.Tensor, motion: torch.Tensor
) -> torch.Tensor:
    """Poses (B, 4, 4) after motions (B, 3, 4): a rotation about the surface's middle and a shift in radii, both in the
    window's axes.
    """
    R, dtype = T_cam_obj[:, :3, :3], T_cam_obj.dtype
    to_ray, middle_obj = R_ray_cam.to(dtype), surfaces.middle.to(dtype)[..., None]
    shift_m = motion[:, :, 3:].to(dtype) * surfaces.radius_m.to(dtype)[:, None, None]
    middle = R @ middle_obj + T_cam_obj[:, :3, 3:] + to_ray.mT @ shift_m
    R_new = to_ray.mT @ motion[:, :, :3].to(dtype) @ to_ray @ R
    moved = T_cam_obj.clone()
    moved[:, :3, :3], moved[:, :3, 3:] = R_new, middle - R_new @ middle_obj
    return moved
