"""Reference/live pairs of rendered views, as batches of tensors with their true coordinate maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.errors import ConfigError
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
from nocsfm_ros.geometry.symmetry import nearest_symmetries
from nocsfm_ros.training.augmentation import augment_each_depth, augment_each_picture
from nocsfm_ros.training.augmentation_torch import augment_depths, augment_pictures
from nocsfm_ros.training.config import DataConfig, DropsConfig
from nocsfm_ros.training.view_tensors import DiskViews, MemoryViews, ViewStore, ViewTensors

Triple = tuple[int, int, bool]  # live row, reference row, whether the reference shows another object
UPRIGHT_FRONT = np.diag([1.0, -1.0, -1.0])  # R_cam_obj of an object that stands upright and faces the camera


@dataclass(frozen=True)
class PairBatch:
    """B pairs on one device. Pictures (B, 3, S, S) in [0, 1]; conditions (B, 8, S, S), see flow.conditions.

    Attributes:
        rgb: the live picture, augmented.
        live, reference: conditions.
        live_context, reference_context: (B, C, h, w) backbone features, C = 0 where the views have none.
        hints: (B, 5, h, w) of their matches.
        nocs: (B, 3, S, S) true coordinates of the live view in the object frame, 0 outside the mask.
        mask: (B, 1, S, S) in {0, 1}: the true visible object; empty where the object is another one.
        T_obj_ref: (B, 4, 4) float64, reference camera -> object frame.
        scale_m: (B,) metres per NOCS unit.
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
    T_obj_ref: torch.Tensor
    scale_m: torch.Tensor
    index: torch.Tensor


class SeenPairs(NamedTuple):
    """B pairs before anything is withheld.

    live, reference: as they are stored.
    rgb, depth_m, rgb_ref, depth_ref_m: (B, 3, S, S) in [0, 1] and (B, S, S) metres as cameras would show them.
    T_obj_live, T_obj_ref: (B, 4, 4) float64, camera -> object frame; scale_m: (B,) metres per NOCS unit.
    """

    live: ViewTensors
    reference: ViewTensors
    rgb: torch.Tensor
    depth_m: torch.Tensor
    rgb_ref: torch.Tensor
    depth_ref_m: torch.Tensor
    T_obj_live: torch.Tensor
    T_obj_ref: torch.Tensor
    scale_m: torch.Tensor


class PairSampler:
    """Draws pairs of views of one cluster (same object, other scene) from a ViewDataset, endlessly.

    Views that hold a field FEATURES (see training.features) give contexts and hints.

    Args:
        views: what pairs are drawn from.
        seed: of the draws and of the augmentation.
        drops: shares of withheld conditions.
        options: frame, background, and where views are kept.
        side: pixels of the crops.
        device: where the batches are made.

    Raises:
        ConfigError: no object with two views.
    """

    def __init__(
        self, views: ViewDataset, seed: int, drops: DropsConfig | None = None, options: DataConfig | None = None,
        side: int = CROP_SIDE, device: str = "cpu",
    ) -> None:
        self.drops, self.options, self.seed = drops or DropsConfig(), options or DataConfig(), seed
        self.device = torch.device(device)
        self.store: ViewStore = (MemoryViews if self.options.in_memory else DiskViews)(views, side, self.device)
        self.generator = torch.Generator(self.device)
        self._seed_for(0)
        self.mesh = views.column("mesh")
        self.members = members_by_cluster(views)
        self.clusters = list(self.members)

    def batches(self, size: int, first_step: int = 0) -> Iterator[PairBatch]:
        """Yield batches of `size` (even) pairs without end: each two views are used both ways.

        Another `first_step` gives other pairs: a resumed training does not see its first ones again.
        """
        for pairs in self.draws(size // 2, first_step):
            yield self.make(pairs, both_ways=True)

    def draws(self, count: int, first_step: int = 0) -> Iterator[list[Triple]]:
        """Yield `count` pairs at a time without end; see batches."""
        self._seed_for(first_step)
        while True:
            yield [self.draw() for _ in range(count)]

    def draw(self) -> Triple:
        """One random pair."""
        live, reference = self.random.choice(self.members[int(self.random.choice(self.clusters))], 2, replace=False)
        other = bool(self.random.random() < self.drops.other_object)
        if other:
            reference = self.random.choice(self.members[int(self.random.choice(self.clusters))])
            other = bool(self.mesh[reference] != self.mesh[live])
        return int(live), int(reference), other

    def seen(self, pairs: list[Triple], augment: bool = True, both_ways: bool = False) -> SeenPairs:
        """The given pairs as cameras would see them, and their reverses if asked."""
        live, reference = (self.store.take([pair[side] for pair in pairs]) for side in (0, 1))
        of_live, of_reference = self._seen(live, augment), self._seen(reference, augment)
        if both_ways:
            live, reference = ViewTensors.joined([live, reference]), ViewTensors.joined([reference, live])
            (rgb, depth_m), (rgb_ref, depth_ref_m) = of_live, of_reference
            of_live = torch.cat([rgb, rgb_ref]), torch.cat([depth_m, depth_ref_m])
            of_reference = torch.cat([rgb_ref, rgb]), torch.cat([depth_ref_m, depth_m])
        return SeenPairs(live, reference, *of_live, *of_reference, *self._object_frames(live, reference))

    def make(self, pairs: list[Triple], augment: bool = True, both_ways: bool = False) -> PairBatch:
        """Tensors of the given pairs, and of their reverses if asked."""
        live, reference, rgb, depth_m, rgb_ref, depth_ref_m, T_obj_live, T_obj_ref, scale_m = self.seen(
            pairs, augment, both_ways
        )
        if both_ways:
            pairs = pairs + [(b, a, other) for a, b, other in pairs]
        mask, reference_mask = live.mask[:, None].float(), reference.mask[:, None].float()
        mask = mask * torch.tensor([not other for *_, other in pairs], device=self.device)[:, None, None, None]
        nocs = (_coordinates(live, T_obj_live, scale_m) * mask).clamp(-0.5, 0.5)
        reference_nocs = _coordinates(reference, T_obj_ref, scale_m).clamp(-0.5, 0.5)
        told_scale_m = scale_m
        if augment:
            depth_m = depth_m * self._kept(self.drops.live_depth, len(pairs))
            has_scale = self._kept(self.drops.reference_depth, len(pairs))
            depth_ref_m = depth_ref_m * has_scale
            told_scale_m = torch.where(has_scale[:, 0, 0], scale_m, guessed_scale(depth_m, live.K))
        valid = (depth_ref_m > 0)[:, None].float()
        live_context, reference_context, hints = self._matched(
            live, reference, reference_cells(reference_mask, reference_nocs, valid, live.features.shape[1]), augment
        )
        return PairBatch(
            rgb=rgb, live=live_condition(rgb, depth_m, live.K, live.R_ray_cam, told_scale_m),
            reference=reference_condition(rgb_ref, reference_mask, reference_nocs, valid),
            live_context=live_context, reference_context=reference_context, hints=hints, nocs=nocs, mask=mask,
            T_obj_ref=T_obj_ref, scale_m=scale_m, index=torch.tensor([pair[:2] for pair in pairs], device=self.device),
        )

    def augmented_pictures(self, views: ViewTensors) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1], each with another light, colour, blur and noise."""
        if self.options.in_memory:
            return augment_pictures(pictures(views.rgb), self.generator)
        noisy = augment_each_picture(views.rgb.cpu().numpy(), self.random)
        return pictures(torch.from_numpy(noisy)).to(self.device)

    def _seed_for(self, step: int) -> None:
        self.random = np.random.default_rng([self.seed, step])
        self.generator.manual_seed((self.seed << 32) + step)

    def _seen(self, views: ViewTensors, augment: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, S, S) in [0, 1] and depth (B, S, S) m as a camera would show them."""
        rgb, depth_m = self.augmented_pictures(views) if augment else pictures(views.rgb), views.depth_m
        if augment and self.options.in_memory:
            depth_m = augment_depths(depth_m, self.generator)
        elif augment:
            depth_m = torch.from_numpy(augment_each_depth(depth_m.cpu().numpy(), self.random)).to(self.device)
        if not self.options.background:
            rgb, depth_m = rgb * views.mask[:, None], depth_m * views.mask
        return rgb, depth_m

    def _object_frames(
        self, live: ViewTensors, reference: ViewTensors
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 4, 4) T_obj_live and T_obj_ref, (B,) metres per NOCS unit; symmetry taken out."""
        if self.options.frame == "category":
            return _canonical(live), _canonical(reference), live.diagonal_m
        T_obj_ref = torch.linalg.inv(reference.T_cam_frame)
        return T_obj_ref @ camera_motion(live, reference), T_obj_ref, reference.scale_m

    def _matched(
        self, live: ViewTensors, reference: ViewTensors, cells: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        augment: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Contexts of both views and the hints of their matches, each withheld at times."""
        of_live, of_reference = (views.features.float().permute(0, 3, 1, 2) for views in (live, reference))
        count, channels, side = of_live.shape[:3]
        if not channels:
            return of_live, of_reference, of_live.new_zeros(count, HINT_CHANNELS, side, side)
        hints = match_hints(of_live, of_reference, *cells)
        kept = kept_hints = torch.ones(count, 1, 1, 1, device=self.device)
        if augment:
            kept = self._kept(self.drops.context, count)[..., None].float()
            kept_hints = kept * self._kept(self.drops.hints, count)[..., None]
        gain = kept * CONTEXT_GAIN
        return of_live * gain, of_reference * gain, hints * kept_hints

    def _kept(self, dropped: float, size: int) -> torch.Tensor:
        return (torch.rand(size, generator=self.generator, device=self.device) >= dropped)[:, None, None]


def members_by_cluster(views: ViewDataset) -> dict[int, npt.NDArray[np.intp]]:
    """Rows of every cluster of which pairs can be made. Raises ConfigError where there is none."""
    clusters = views.column("cluster")
    rows = {int(cluster): np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)}
    paired = {cluster: members for cluster, members in rows.items() if len(members) > 1}
    if not paired:
        raise ConfigError("training views", got="one view of every object", expected="two or more to make pairs of",
                          mend="import or render more of them")
    return paired


def _coordinates(view: ViewTensors, T_obj_cam: torch.Tensor, scale_m: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) NOCS of every pixel with depth, from a view's camera through T_obj_cam (B, 4, 4)."""
    points = view.R_ray_cam.transpose(1, 2) @ ray_points(view.depth_m, view.K, view.R_ray_cam).flatten(2)
    T = T_obj_cam.float()
    points = T[:, :3, :3] @ points + T[:, :3, 3:]
    return (points / scale_m[:, None, None]).view(-1, 3, *view.depth_m.shape[1:])


def camera_motion(live: ViewTensors, reference: ViewTensors) -> torch.Tensor:
    """(B, 4, 4) float64 T_ref_live of the cameras as if the object had not moved, its symmetry taken out."""
    T_mesh_mesh = nearest_symmetries(reference.T_cam_obj[:, :3, :3], live.T_cam_obj[:, :3, :3], live.symmetry)
    return reference.T_cam_obj @ T_mesh_mesh @ torch.linalg.inv(live.T_cam_obj)


def _canonical(views: ViewTensors) -> torch.Tensor:
    """(B, 4, 4) T_obj_cam of the mesh's own frame; of a symmetric one, the turn nearest to upright and facing us."""
    R_cam_obj = views.T_cam_obj[:, :3, :3]
    front = torch.from_numpy(UPRIGHT_FRONT).to(R_cam_obj).expand_as(R_cam_obj)
    return nearest_symmetries(front, R_cam_obj, views.symmetry) @ torch.linalg.inv(views.T_cam_obj)
