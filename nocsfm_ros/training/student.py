"""`nocsfm train backbone`: a small DINOv3ViTModel from random weights, for matching and finding objects.

Cells of two views that show the same point of an object must look alike, and unlike every other cell (InfoNCE; van
den Oord et al. 2018). Renders do not know the real world's look, so the features of a backbone that has seen photos
are learned beside it, through a linear head that is thrown away (distillation; Hinton et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from nocsfm_ros.device import fast_autocast
from nocsfm_ros.matching.backbone import DinoV3
from nocsfm_ros.training.config import MatchingConfig, VitConfig
from nocsfm_ros.training.correspondences import cell_pixels, of_pixels, reference_places
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.pairs import PairSampler, Triple
from nocsfm_ros.training.view_tensors import ViewTensors

TILES = 2  # along a side of a mosaic
# DINOv3 numbers positions from -1 to 1 across the picture, whatever its size: what is between 0.36 and 2.8 times as
# dense stands for a whole frame of 640 pixels and for a reference of 100, one axis may be denser than the other.
RESCALE, JITTER = 2.0, 1.4


@dataclass(frozen=True)
class Shown:
    """B views and how they look to the network.

    Attributes:
        views: with depth, mask and pose.
        kind: (B,) int64, equal where it is the same mesh.
        features: (B, C, h, w) float32 of length 1, the student's.
        distillation: mean of one minus the cosine to the teacher's features, 0 without a teacher.
    """

    views: ViewTensors
    kind: torch.Tensor
    features: torch.Tensor
    distillation: torch.Tensor


class Student(nn.Module):
    """The network that is trained, and the head that speaks the teacher's language.

    Args:
        size: of the network.
        teacher_channels: 0 for none.
        side: pixels of the pictures.
        device: where it runs.
    """

    def __init__(self, size: VitConfig, teacher_channels: int, side: int, device: str = "cpu") -> None:
        super().__init__()
        self.vit = DINOv3ViTModel(DINOv3ViTConfig(
            image_size=side, patch_size=size.patch, hidden_size=size.width, intermediate_size=4 * size.width,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, num_register_tokens=size.registers,
            pos_embed_rescale=RESCALE, pos_embed_jitter=JITTER,
        ))
        self.head = nn.Conv2d(size.width, teacher_channels, 1) if teacher_channels else None
        self.to(device)
        self.backbone = DinoV3(self.vit, device)

    def forward(self, pictures: torch.Tensor, as_mosaic: bool = False) -> torch.Tensor:
        """Pictures (B, 3, S, S) in [0, 1] -> (B, C, h, w); as mosaics, B a multiple of 4, they have half the cells."""
        tokens = self.backbone.dense_features(255 * (mosaics(pictures) if as_mosaic else pictures))
        return tiles(tokens) if as_mosaic else tokens

    def distillation_loss(self, tokens: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean of one minus the cosine of what the head makes of (B, C, h, w) and teacher features (B, H, W, T)."""
        if self.head is None:
            return tokens.new_zeros(())
        wanted = F.adaptive_avg_pool2d(teacher.float().permute(0, 3, 1, 2), (tokens.shape[-2], tokens.shape[-1]))
        return (1 - F.cosine_similarity(self.head(tokens).float(), wanted, dim=1)).mean()


def train_backbone(
    sampler: PairSampler, student: Student, run: TrainingRun, monitor: Monitor, options: MatchingConfig
) -> None:
    """Train a student in place."""
    draws = sampler.draws(run.schedule.batch // 2, run.step)
    generator = torch.Generator(sampler.device).manual_seed(run.step)

    def step() -> tuple[Losses, int]:
        pairs = next(draws)
        sides = [show(student, sampler, pairs, side, options) for side in (0, 1)]
        return backbone_losses(sides[0], sides[1], options, generator, run.progress), 2 * len(pairs)

    student.train()
    run.run(step, monitor)
    run.finish()


def show(student: Student, sampler: PairSampler, pairs: list[Triple], side: int, options: MatchingConfig) -> Shown:
    """The live (0) or reference (1) views of some pairs, augmented and encoded."""
    rows = [pair[side] for pair in pairs]
    views = sampler.store.take(rows)
    as_mosaic = bool(sampler.random.random() < options.mosaic_share)
    with fast_autocast(sampler.device):
        tokens = student(sampler.augmented_pictures(views), as_mosaic)
    distillation = student.distillation_loss(tokens, views.features)
    kind = torch.as_tensor(sampler.mesh[rows], device=sampler.device)
    return Shown(views, kind, F.normalize(tokens.float(), dim=1), distillation)


def backbone_losses(
    live: Shown, reference: Shown, options: MatchingConfig, generator: torch.Generator, progress: float
) -> Losses:
    """Contrast both ways, and distillation whose weight goes from its first to its last value."""
    contrast = (
        contrast_loss(live, reference, options, generator) + contrast_loss(reference, live, options, generator)
    ) / 2
    distillation = (live.distillation + reference.distillation) / 2
    share = min(progress, 1.0)
    weight = (1 - share) * options.distillation + share * options.distillation_end
    return {
        "loss": contrast + weight * distillation, "contrast": contrast.detach(), "distillation": distillation.detach(),
    }


def contrast_loss(asking: Shown, answering: Shown, options: MatchingConfig, generator: torch.Generator) -> torch.Tensor:
    """InfoNCE of the asking views' cells that the answering ones show too; 0 where there are none.

    Alike must be the place in the answering picture. Unlike must be its cells further than `exclusion_cells` away, and
    `others` cells of other objects out of the batch. Turned by its symmetry an object looks the same: such a one is not
    told from itself.
    """
    side, cells = asking.views.mask.shape[-1], asking.features.shape[-1]
    places_uv, known = reference_places(asking.views, answering.views, cell_pixels(side, cells, asking.features.device))
    pair, cell = known.nonzero(as_tuple=True)
    if not len(pair):
        return asking.features.sum() * 0
    asked = asking.features.flatten(2).transpose(1, 2)[pair, cell]
    there = F.grid_sample(
        answering.features, ((places_uv + 0.5) * (2 / side) - 1)[:, None], padding_mode="border", align_corners=False
    )[:, :, 0].transpose(1, 2)[pair, cell]
    alike = (asked * F.normalize(there, dim=1)).sum(dim=1, keepdim=True)
    own = torch.einsum("bcn,bcm->bnm", asking.features.flatten(2), answering.features.flatten(2))[pair, cell]
    own = own.masked_fill(~_unlike(answering, places_uv[pair, cell], pair, options.exclusion_cells), -torch.inf)
    others, kind = _object_cells(answering, options.others, generator)
    other = (asked @ others.T).masked_fill(asking.kind[pair, None] == kind, -torch.inf)
    logits = torch.cat([alike, own, other], dim=1) / options.temperature
    return F.cross_entropy(logits, torch.zeros_like(pair))


def _unlike(answering: Shown, places_uv: torch.Tensor, pair: torch.Tensor, exclusion: float) -> torch.Tensor:
    """(M, cells^2) bool: cells of each one's answering picture that do not show its place (M, 2)."""
    side, cells = answering.views.mask.shape[-1], answering.features.shape[-1]
    middles_uv = cell_pixels(side, cells, pair.device)
    far = torch.cdist(places_uv, middles_uv.float()) > exclusion * side / cells
    of_symmetric = of_pixels(answering.views.mask, middles_uv) & (answering.views.symmetry != 1)[:, None]
    return far & ~of_symmetric[pair]


def _object_cells(shown: Shown, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, C) and kind (N,) of `count` random cells on the objects, fewer where there are not so many."""
    cells = shown.features.shape[-1]
    on_object = of_pixels(shown.views.mask, cell_pixels(shown.views.mask.shape[-1], cells, shown.features.device))
    pair, cell = on_object.nonzero(as_tuple=True)
    chosen = torch.randperm(len(pair), generator=generator, device=pair.device)[:count]
    return shown.features.flatten(2).transpose(1, 2)[pair[chosen], cell[chosen]], shown.kind[pair[chosen]]


def mosaics(pictures: torch.Tensor) -> torch.Tensor:
    """(4 B, 3, S, S) -> (B, 3, S, S): four at half their size in one, small among other objects as in a frame."""
    count, colours, side = len(pictures) // TILES**2, pictures.shape[1], pictures.shape[-1]
    halved = F.avg_pool2d(pictures, TILES).view(count, TILES, TILES, colours, side // TILES, side // TILES)
    return halved.permute(0, 3, 1, 4, 2, 5).reshape(count, colours, side, side)


def tiles(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) of mosaics -> (4 B, C, h / 2, w / 2) of their pictures."""
    count, channels, cells = maps.shape[:3]
    tile = cells // TILES
    parted = maps.view(count, channels, TILES, tile, TILES, tile).permute(0, 2, 4, 1, 3, 5)
    return parted.reshape(count * TILES**2, channels, tile, tile)
