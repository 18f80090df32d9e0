"""Reference/live pairs of rendered views, as batches of tensors with their true coordinate maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.flow.conditions import (
    CONTEXT_GAIN,
    guessed_scale,
    live_condition,
    match_hints,
    pictures,
    ray_points,
    reference_cells,
    reference_condition,
)
from nocsfm_ros.flow.model import CROP_SIDE
from nocsfm_ros.flow.velocity import HINT_CHANNELS
from nocsfm_ros.geometry.crops import R_ray_cam, crop_frame, crop_mask
from nocsfm_ros.geometry.nocs import anchored_frame
from nocsfm_ros.training.augmentation import augment_depth, augment_picture
from nocsfm_ros.types import Float64Array, SimilarityPose

FRAME_POINTS = 500
FEATURES = "features"  # field of a view: (h, w, C) float16 of length 1


@dataclass(frozen=True)
class PairBatch:
    """B pairs. Pictures (B, 3, S, S) in [0, 1]; conditions (B, 8, S, S), see flow.conditions.

    Attributes:
        rgb: the live picture, augmented.
        live, reference: conditions.
        live_context, reference_context: (B, C, h, w) backbone features, C = 0 where the views have none.
        hints: (B, 5, h, w) of their matches.
        nocs: (B, 3, S, S) true coordinates of the live view in the reference's frame, 0 outside the mask.
        mask: (B, 1, S, S) in {0, 1}: the true visible object; empty where the object is another one.
        frame: per pair, the object frame in the reference camera.
        index: (B, 2) rows of the dataset: live, reference.
    """

    rgb: torch.Tensor
    live: torch.Tensor
    reference: torch.Tensor
    live_context: torch.Tensor
    reference_context: torch.Tensor
    hints: torch.Tensor
    nocs: torch.Tensor
    mask: torch.Tensor
    frame: list[SimilarityPose]
    index: torch.Tensor


@dataclass(frozen=True)
class Drops:
    """Shares of the samples in which a condition is withheld or another object is asked for."""

    live_depth: float = 0.2
    reference_depth: float = 0.1
    context: float = 0.08
    hints: float = 0.15
    other_object: float = 0.12


class PairSampler:
    """Draws pairs of views of one cluster (same object, other scene) from a ViewDataset, endlessly.

    Views that hold a field FEATURES (see training.features) give contexts and hints.
    """

    def __init__(self, views: ViewDataset, seed: int, drops: Drops | None = None) -> None:
        self.views = views
        self.drops = drops or Drops()
        self.random = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        clusters = views.column("cluster")
        self.mesh = views.column("mesh")
        self.members = {int(c): np.flatnonzero(clusters == c) for c in np.unique(clusters)}
        self.clusters = [c for c, rows in self.members.items() if len(rows) > 1]

    def batches(self, size: int) -> Iterator[PairBatch]:
        """Yield batches of `size` (even) pairs without end: each two views are used both ways."""
        while True:
            yield self.make([self.draw() for _ in range(size // 2)], both_ways=True)

    def draw(self) -> tuple[int, int, bool]:
        """(live row, reference row, whether the reference shows another object)."""
        live, reference = self.random.choice(self.members[int(self.random.choice(self.clusters))], 2, replace=False)
        other = bool(self.random.random() < self.drops.other_object)
        if other:
            reference = self.random.choice(self.members[int(self.random.choice(self.clusters))])
            other = bool(self.mesh[reference] != self.mesh[live])
        return int(live), int(reference), other

    def make(self, pairs: list[tuple[int, int, bool]], augment: bool = True, both_ways: bool = False) -> PairBatch:
        """Tensors of the given (live row, reference row, other object) triples, and of their reverses if asked."""
        live_views, reference_views = ([flow_view(self.views[p[side]]) for p in pairs] for side in (0, 1))
        live, reference = _gather(live_views), _gather(reference_views)
        seen_live, seen_reference = (
            (self._augmented(live), self._augmented(reference)) if augment else (live, reference)
        )
        if both_ways:
            pairs = pairs + [(b, a, other) for a, b, other in pairs]
            live_views, reference_views = live_views + reference_views, reference_views + live_views
            live, reference = live.joined(reference), reference.joined(live)
            seen_live, seen_reference = seen_live.joined(seen_reference), seen_reference.joined(seen_live)
        frame = [reference_frame(view) for view in reference_views]
        scale_m = torch.tensor([f.scale_m for f in frame], dtype=torch.float32)
        T_obj_live = torch.from_numpy(np.stack([
            object_from_live(*triple) for triple in zip(live_views, reference_views, frame, strict=True)
        ])).float()
        T_obj_reference = torch.from_numpy(np.stack([np.linalg.inv(f.T_cam_obj) for f in frame])).float()
        mask = live.mask * torch.tensor([not p[2] for p in pairs])[:, None, None, None]
        nocs = (_coordinates(live, T_obj_live, scale_m) * mask).clamp(-0.5, 0.5)
        reference_nocs = _coordinates(reference, T_obj_reference, scale_m).clamp(-0.5, 0.5)
        if augment:
            seen_live = replace(seen_live, depth_m=seen_live.depth_m * self._kept(self.drops.live_depth, len(pairs)))
            has_scale = self._kept(self.drops.reference_depth, len(pairs))
            seen_reference = replace(seen_reference, depth_m=seen_reference.depth_m * has_scale)
            guess = guessed_scale(seen_live.depth_m, live.K)
            scale_m = torch.where(has_scale[:, 0, 0], scale_m, guess)
        valid = (seen_reference.depth_m > 0)[:, None].float()
        live_context, reference_context, hints = self._matched(live, reference, reference_nocs, valid, augment)
        return PairBatch(
            rgb=seen_live.rgb,
            live=live_condition(seen_live.rgb, seen_live.depth_m, live.K, live.R_ray_cam, scale_m),
            reference=reference_condition(seen_reference.rgb, reference.mask, reference_nocs, valid),
            live_context=live_context, reference_context=reference_context, hints=hints,
            nocs=nocs, mask=mask, frame=frame, index=torch.tensor([p[:2] for p in pairs]),
        )

    def _matched(
        self, live: _Views, reference: _Views, reference_nocs: torch.Tensor, valid: torch.Tensor, augment: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Contexts of both views and the hints of their matches, each withheld at times."""
        count, side = len(live.mask), live.features.shape[-1]
        if not live.features.shape[1]:
            return live.features, reference.features, torch.zeros(count, HINT_CHANNELS, side, side)
        cells = reference_cells(reference.mask, reference_nocs, valid, side)
        hints = match_hints(live.features, reference.features, *cells)
        kept = kept_hints = torch.ones(count, 1, 1, 1)
        if augment:
            kept = self._kept(self.drops.context, count)[..., None].float()
            kept_hints = kept * self._kept(self.drops.hints, count)[..., None]
        gain = kept * CONTEXT_GAIN
        return live.features * gain, reference.features * gain, hints * kept_hints

    def _augmented(self, views: _Views) -> _Views:
        rgb = (views.rgb * 255).byte().permute(0, 2, 3, 1).numpy()
        return replace(
            views, rgb=pictures(torch.from_numpy(np.stack([augment_picture(x, self.random) for x in rgb]))),
            depth_m=torch.from_numpy(np.stack([augment_depth(x, self.random) for x in views.depth_m.numpy()])),
        )

    def _kept(self, dropped: float, size: int) -> torch.Tensor:
        return (torch.rand(size, generator=self.generator) >= dropped)[:, None, None]


def flow_view(view: View) -> View:
    """A stored view at the flow's own size, resampled as the node crops its pictures."""
    side = view["rgb"].shape[0]
    whole = (-0.5, -0.5, float(side), float(side))
    crop = crop_frame(np.asarray(view["rgb"]), view["depth"].astype(np.float32), view["K"], whole, CROP_SIDE)
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


@dataclass(frozen=True)
class _Views:
    rgb: torch.Tensor
    depth_m: torch.Tensor
    mask: torch.Tensor
    K: torch.Tensor
    R_ray_cam: torch.Tensor
    features: torch.Tensor

    def joined(self, other: _Views) -> _Views:
        """Both, one after the other."""
        return _Views(*(torch.cat(both) for both in zip(self._fields(), other._fields(), strict=True)))

    def _fields(self) -> list[torch.Tensor]:
        return [getattr(self, item.name) for item in fields(self)]


def _gather(views: list[View]) -> _Views:
    side = views[0]["rgb"].shape[0]
    return _Views(
        rgb=pictures(torch.from_numpy(np.stack([view["rgb"] for view in views]))),
        depth_m=torch.from_numpy(np.stack([view["depth"] for view in views]).astype(np.float32) * DEPTH_UNIT_M),
        mask=torch.from_numpy(np.stack([view["mask"] > 0 for view in views]))[:, None].float(),
        K=torch.from_numpy(np.stack([view["K"] for view in views])).float(),
        R_ray_cam=torch.from_numpy(np.stack([R_ray_cam(view["K"], side) for view in views])).float(),
        features=_features(views),
    )


def _features(views: list[View]) -> torch.Tensor:
    """(B, C, h, w) float32 of length 1; (B, 0, 1, 1) where nothing was stored."""
    if FEATURES not in views[0]:
        return torch.zeros(len(views), 0, 1, 1)
    return torch.from_numpy(np.stack([view[FEATURES] for view in views])).float().permute(0, 3, 1, 2)


def _coordinates(view: _Views, T_obj_cam: torch.Tensor, scale_m: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) NOCS of every pixel with depth, from a view's camera through T_obj_cam (B, 4, 4)."""
    points = view.R_ray_cam.transpose(1, 2) @ ray_points(view.depth_m, view.K, view.R_ray_cam).flatten(2)
    points = T_obj_cam[:, :3, :3] @ points + T_obj_cam[:, :3, 3:]
    return (points / scale_m[:, None, None]).view(-1, 3, *view.depth_m.shape[1:])


def object_from_live(live: View, reference: View, frame: SimilarityPose) -> Float64Array:
    """(4, 4) T_obj_live: live camera -> object frame anchored in the reference, symmetry taken out."""
    T_reference_mesh, T_live_mesh = reference["T_cam_obj"], live["T_cam_obj"]
    T_mesh_mesh = nearest_symmetry(T_reference_mesh[:3, :3], T_live_mesh[:3, :3], int(live["fold"]))
    result: Float64Array = np.linalg.inv(frame.T_cam_obj) @ T_reference_mesh @ T_mesh_mesh @ np.linalg.inv(T_live_mesh)
    return result


def nearest_symmetry(R_ref_mesh: Float64Array, R_live_mesh: Float64Array, fold: int) -> Float64Array:
    """The (4, 4) turn about the mesh's y axis, out of its symmetry group, that makes the view change smallest.

    Args:
        R_ref_mesh, R_live_mesh: (3, 3) rotations of the mesh in the two cameras.
        fold: n for an n-fold axis (1: none), 0 for a continuous one.

    It maximises trace(R_ref S R_live^T) = a cos + b sin + const over the turn's angle.
    """
    M = R_live_mesh.T @ R_ref_mesh
    angle = float(np.arctan2(M[2, 0] - M[0, 2], M[0, 0] + M[2, 2]))
    if fold >= 1:
        angle = round(angle / (2 * np.pi / fold)) * (2 * np.pi / fold)
    T = np.eye(4)
    T[0, 0] = T[2, 2] = np.cos(angle)
    T[0, 2], T[2, 0] = np.sin(angle), -np.sin(angle)
    return T
