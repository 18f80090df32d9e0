"""`nocsfm train refiner`: from renders at supposed poses, how to move them and how right they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from nocsfm_ros.device import fast_autocast
from nocsfm_ros.flow.motions import apply_affine
from nocsfm_ros.geometry.symmetry import nearest_symmetries
from nocsfm_ros.refinement.network import LEVELS, Opinion, PoseRefiner
from nocsfm_ros.refinement.windows import Surfaces, Windows, look_at, moved_poses, seen_surfaces
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.losses import laplace_loss
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.pairs import PairSampler, Triple
from nocsfm_ros.training.samples import CHUNK, DRAWN
from nocsfm_ros.types import Uint8Array

POSES = 6  # a pair
MAX_TURN = np.radians(75)  # from where on a motion is not asked for: nothing that is seen tells it
MOTION_WEIGHT, SIGMA_WEIGHT, KNEE = 4.0, 0.1, 0.02  # of displacements, their expected error; radii
ERROR_STEP = 8  # every so many points an error is measured at
# Kinds of supposed poses, the rest spun: share, turn in rad (normal, or uniform up to it), spread of the shift in radii
NEAR, USUAL, FAR = 0.3, 0.3, 0.15
NEAR_TURN, USUAL_TURN, NEAR_SHIFT, USUAL_SHIFT = np.radians(4), np.radians(40), 0.02, 0.1
ENLARGED = 2


@dataclass(frozen=True)
class Supposed:
    """B supposed poses and the truth.

    Attributes:
        rgb, depth_m, K: the live crops, (B, 3, S, S) in [0, 1], (B, S, S) metres, (B, 3, 3).
        surfaces: of the objects.
        T_cam_obj, T_true: (B, 4, 4) float64; the true one is the nearest by the object's symmetry.
        same: (B,) bool: the live view shows the surface's object.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    K: torch.Tensor
    surfaces: Surfaces
    T_cam_obj: torch.Tensor
    T_true: torch.Tensor
    same: torch.Tensor

    def windows(self) -> Windows:
        """The supposed poses, to be compared."""
        return look_at(self.rgb, self.depth_m, self.K, self.surfaces, self.T_cam_obj)

    def moved(self, windows: Windows, said: Opinion) -> Supposed:
        """The same after the motions that the network says."""
        motion = said.motion(windows.cells)
        return replace(self, T_cam_obj=moved_poses(self.T_cam_obj, self.surfaces, windows.R_ray_cam, motion))


def train_refiner(sampler: PairSampler, model: PoseRefiner, run: TrainingRun, monitor: Monitor) -> None:
    """Train a refiner in place."""
    draws = sampler.draws(run.schedule.batch, run.step)
    generator = torch.Generator(sampler.device).manual_seed(run.step)

    def step() -> tuple[Losses, int]:
        supposed = suppose(sampler, next(draws), generator)
        return refiner_losses(model, supposed), len(supposed.same)

    model.train()
    run.run(step, monitor)
    run.finish()


def suppose(sampler: PairSampler, pairs: list[Triple], generator: torch.Generator, augment: bool = True) -> Supposed:
    """POSES poses of each pair's object in its live view."""
    seen = sampler.seen(pairs, augment)
    live, reference = seen.live, seen.reference
    surfaces = seen_surfaces(seen.rgb_ref, seen.depth_ref_m, reference.mask, reference.K, seen.T_obj_ref)
    surfaces = surfaces.repeated(POSES)
    T_live_obj = torch.linalg.inv(seen.T_obj_live)
    T_obj_mesh = seen.T_obj_live @ live.T_cam_obj
    T_live_obj, T_obj_mesh, symmetry, K = (
        values.repeat_interleave(POSES, dim=0) for values in (T_live_obj, T_obj_mesh, live.symmetry, live.K)
    )
    T_live_mesh = T_live_obj @ T_obj_mesh
    motion = _motions(len(symmetry), T_live_mesh, generator)
    straight = torch.eye(3, device=motion.device).expand(len(symmetry), 3, 3)
    T_cam_obj = moved_poses(T_live_obj, surfaces, straight, motion)
    S = nearest_symmetries(T_live_mesh[:, :3, :3], (T_cam_obj @ T_obj_mesh)[:, :3, :3], symmetry)
    T_true = T_live_mesh @ S @ torch.linalg.inv(T_obj_mesh)
    rgb, depth_m, same = (
        values.repeat_interleave(POSES, dim=0) for values in (
            seen.rgb, seen.depth_m, torch.tensor([not other for *_, other in pairs], device=motion.device)
        )
    )
    return Supposed(rgb, depth_m, K, surfaces, T_cam_obj, T_true, same)


def refiner_losses(model: PoseRefiner, supposed: Supposed) -> Losses:
    """Of the displacements under poses that are not all too wrong, their expected error, and the levels reached."""
    windows = supposed.windows()
    with fast_autocast(windows.seen.device):
        said = model(windows.seen.contiguous(memory_format=torch.channels_last))
    motion = true_motions(supposed, windows.R_ray_cam)
    asked = supposed.same & (_angles(motion) < MAX_TURN)
    places, share = windows.cells[:, :3], windows.cells[:, 3:] * asked.view(-1, 1, 1, 1)
    wanted = apply_affine(motion, places) - places
    cost = (smooth_l1_loss(said.displacement, wanted, reduction="none", beta=KNEE) * share).sum()
    error = (said.displacement.detach() - wanted).abs().mean(dim=1, keepdim=True)
    reached = (pose_errors(supposed)[:, None] < torch.tensor(LEVELS, device=asked.device)) & supposed.same[:, None]
    parts = {
        "motion": cost / share.sum().clamp(min=1), "sigma": laplace_loss(error, said.log_sigma, share),
        "right": binary_cross_entropy_with_logits(said.logits, reached.float()),
    }
    loss = MOTION_WEIGHT * parts["motion"] + SIGMA_WEIGHT * parts["sigma"] + parts["right"]
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def true_motions(supposed: Supposed, R_ray_cam: torch.Tensor) -> torch.Tensor:
    """(B, 3, 4) float32, as windows.moved_poses takes them."""
    to_ray, surfaces = R_ray_cam.double(), supposed.surfaces
    turn = to_ray @ supposed.T_true[:, :3, :3] @ supposed.T_cam_obj[:, :3, :3].mT @ to_ray.mT
    shift_m = _moved(supposed.T_true, surfaces.middle) - _moved(supposed.T_cam_obj, surfaces.middle)
    shift = to_ray @ shift_m[..., None] / surfaces.radius_m[:, None, None]
    return torch.cat([turn, shift], dim=2).float()


def pose_errors(supposed: Supposed) -> torch.Tensor:
    """(B,) float32 mean distance of the surface's points from their true places, radii."""
    surfaces = supposed.surfaces
    motion = (supposed.T_true - supposed.T_cam_obj).float()
    points, known = surfaces.points[:, ::ERROR_STEP], surfaces.known[:, ::ERROR_STEP].float()
    distance = (points @ motion[:, :3, :3].mT + motion[:, None, :3, 3]).norm(dim=2)
    return (distance * known).sum(dim=1) / known.sum(dim=1).clamp(min=1) / surfaces.radius_m


class RefinerSamples:
    """The same pairs and poses every time, without augmentation.

    Args:
        sampler: of the data set they come from.
        count: of pairs.
        model: that is measured.
    """

    def __init__(self, sampler: PairSampler, count: int, model: PoseRefiner) -> None:
        self.sampler, self.model = sampler, model
        self.pairs = [sampler.draw() for _ in range(count)]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """sample_error: median error, in radii, of the poses that are not all too wrong after one motion;
        sample_right: how often of two poses of a pair the one that is twice as good gets the better score."""
        errors, ordered, generator = list[torch.Tensor](), list[torch.Tensor](), self._generator()
        for first in range(0, len(self.pairs), CHUNK):
            supposed = suppose(self.sampler, self.pairs[first : first + CHUNK], generator, augment=False)
            windows = supposed.windows()
            with fast_autocast(windows.seen.device):
                said = self.model(windows.seen)
            asked = _angles(true_motions(supposed, windows.R_ray_cam)) < MAX_TURN
            errors.append(pose_errors(supposed.moved(windows, said))[asked])
            error, score = (x.view(-1, POSES) for x in (pose_errors(supposed), said.score))
            better = 2 * error[:, :, None] < error[:, None]
            ordered.append((score[:, :, None] > score[:, None])[better])
        return {
            "sample_error": float(torch.cat(errors).median()), "sample_right": float(torch.cat(ordered).float().mean())
        }

    @torch.no_grad()
    def draw(self, path: Path) -> Uint8Array:
        """Write six rows of live view, object as supposed, after one and two motions, and as it is; returns the picture
        as RGB."""
        supposed = suppose(self.sampler, self.pairs[:DRAWN], self._generator(), augment=False)
        columns = list[torch.Tensor]()
        for last in (False, False, False, True):
            windows = (replace(supposed, T_cam_obj=supposed.T_true) if last else supposed).windows()
            shown = windows.seen[::POSES]
            columns += ([] if columns else [(shown[:, :3] + 1) / 2]) + [(shown[:, 5:8] + 1) / 2 * shown[:, 9:]]
            supposed = supposed.moved(windows, self.model(windows.seen))
        table = torch.cat(columns, dim=3).clamp(0, 1).permute(0, 2, 3, 1).flatten(0, 1)
        picture: Uint8Array = (table * 255).byte().cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED)[..., ::-1])
        return picture

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.sampler.device).manual_seed(0)


def _motions(count: int, T_cam_mesh: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 3, 4) float64 away from the truth: small ones, usual ones, any, and turns about the mesh's upright axis.

    Of the last, shape often sees nothing.
    """
    def uniform() -> torch.Tensor:
        return torch.rand(count, generator=generator, device=T_cam_mesh.device, dtype=torch.float64)

    def normal() -> torch.Tensor:
        return torch.randn(count, 3, generator=generator, device=T_cam_mesh.device, dtype=torch.float64)

    kind = torch.bucketize(uniform(), torch.tensor([NEAR, NEAR + USUAL, NEAR + USUAL + FAR], dtype=torch.float64))
    axis = torch.nn.functional.normalize(normal(), dim=1)
    near, usual, far = normal().norm(dim=1) * NEAR_TURN, uniform() * USUAL_TURN, uniform() * np.pi
    angle = torch.stack([near, usual, far, far * (2 * (uniform() > 0.5) - 1)]).gather(0, kind[None])[0]
    axis = torch.where((kind == 3)[:, None], T_cam_mesh[:, :3, 1], axis)
    spread = torch.tensor([NEAR_SHIFT, USUAL_SHIFT, USUAL_SHIFT, NEAR_SHIFT], dtype=torch.float64)[kind]
    cross = torch.linalg.cross(axis[:, None], torch.eye(3).to(axis).expand(count, 3, 3)).mT
    turn = torch.linalg.matrix_exp(cross * angle[:, None, None])
    return torch.cat([turn, (normal() * spread[:, None])[..., None]], dim=2)


def _moved(T: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(B, 4, 4) on (B, 3)."""
    return (T[:, :3, :3] @ points.to(T.dtype)[..., None])[..., 0] + T[:, :3, 3]


def _angles(motion: torch.Tensor) -> torch.Tensor:
    """(B,) rad of motions (B, 3, 4)."""
    cosine = 0.5 * (motion[:, :, :3].diagonal(dim1=1, dim2=2).sum(dim=1) - 1)
    return cosine.clamp(-1, 1).arccos()
