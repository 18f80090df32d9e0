"""`nocsfm train search`: the head by which objects are found in whole frames, its backbone frozen.

Views of many objects, large and small, are put together to a mosaic of the size of a frame. Another view of each must
look like its cells in the mosaic and like no other cell there (InfoNCE; van den Oord et al. 2018): among those are the
object's own surroundings, the hand that holds it, and all the other objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.matching.localiser import REFERENCE_SIDES, reference_crop
from nocsfm_ros.matching.search_head import SearchHead
from nocsfm_ros.training.augmentation import augment_picture
from nocsfm_ros.training.loop import Losses, TrainingRun
from nocsfm_ros.training.match_samples import RIGHT_RGB, WRONG_RGB
from nocsfm_ros.training.monitor import Monitor
from nocsfm_ros.training.pairs import members_by_cluster
from nocsfm_ros.types import BoolArray, BoxXywh, Uint8Array

FRAME_WH, TILE = (640, 480), 160
LARGE_SHARE, SMALL_SHARE = 0.4, 0.4  # of mosaics with a view twice as large, of tiles with four of half the size
GAIN = 14.0  # of the cosines
BEST = 2.0  # of the soft maximum over a reference's cells
OBJECT_CELL, OTHER_CELL = 0.5, 0.02  # share of a cell that is object from which it counts, and up to which it does not
FOUND_CELL = 0.3
NEVER = -1e4


@dataclass(frozen=True)
class Mosaic:
    """B views in one picture, and another view of each.

    Attributes:
        rgb: (H, W, 3) uint8.
        cells: (M, C) float32, the backbone's features of its cells, of length 1.
        share: (B, M) float32, of each cell that is the object.
        references: (B, N, C) float32 of length 1.
        is_object: (B, N) bool, which of the reference's cells are its object; one or more are.
        mesh: (B,) int64; other views of the same mesh are neither alike nor unlike.
    """

    rgb: Uint8Array
    cells: torch.Tensor
    share: torch.Tensor
    references: torch.Tensor
    is_object: torch.Tensor
    mesh: torch.Tensor


class MosaicSampler:
    """Draws mosaics of a folder of views.

    Args:
        views: two or more of each object.
        backbone: frozen.
        seed: of the draws and of the augmentation.
        augment: show the pictures in another light, blurred and noisy.

    Raises:
        ConfigError: no object with two views.
    """

    def __init__(self, views: ViewDataset, backbone: Backbone, seed: int, augment: bool = True) -> None:
        self.views, self.backbone, self.seed, self.augment = views, backbone, seed, augment
        self.clusters, self.mesh = list(members_by_cluster(views).values()), views.column("mesh")
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin the draws that belong to a step: a resumed training does not see its first ones again."""
        self.random = np.random.default_rng([self.seed, step])

    def draw(self) -> Mosaic:
        """One random mosaic."""
        rgb, labels = np.zeros((*FRAME_WH[::-1], 3), np.uint8), np.full(FRAME_WH[::-1], -1)
        object_side = float(self.random.choice(REFERENCE_SIDES))
        crops, inside, meshes = [], [], []
        for number, (x, y, side) in enumerate(_places(self.random)):
            live, reference, mesh = self._pair()
            window = np.s_[y : y + side, x : x + side]
            rgb[window] = cv2.resize(live[0], (side, side), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(live[1].astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
            labels[window][mask > 0] = number
            crop, of_object, _ = reference_crop(*reference, object_side, self.backbone.stride)
            crops.append(crop)
            inside.append(_object_cells(of_object, self.backbone.stride))
            meshes.append(mesh)
        stride = self.backbone.stride
        cells = labels.reshape(FRAME_WH[1] // stride, stride, FRAME_WH[0] // stride, stride)
        share = np.stack([(cells == number).mean(axis=(1, 3)).ravel() for number in range(len(meshes))])
        device = self.backbone.device
        return Mosaic(
            rgb, self._features(rgb[None])[0], torch.from_numpy(share).float().to(device),
            self._features(np.stack(crops)), torch.from_numpy(np.stack(inside)).flatten(1).to(device),
            torch.tensor(meshes, device=device),
        )

    def _pair(self) -> tuple[tuple[Uint8Array, BoolArray], tuple[Uint8Array, BoolArray, BoxXywh], int]:
        """Picture and mask of a view, the same and the mask's box of another one in which it is seen, and its mesh."""
        while True:
            rows = self.clusters[self.random.integers(len(self.clusters))]
            live, reference = (self._view(row) for row in self.random.choice(rows, 2, replace=False))
            box_xywh = box_from_mask(reference[1])
            if box_xywh is not None:
                return live, (*reference, box_xywh), int(self.mesh[rows[0]])

    def _view(self, row: int) -> tuple[Uint8Array, BoolArray]:
        view = self.views[int(row)]
        rgb = np.asarray(view["rgb"])
        return augment_picture(rgb, self.random) if self.augment else rgb, np.asarray(view["mask"]) > 0

    def _features(self, pictures: Uint8Array) -> torch.Tensor:
        """(B, H, W, 3) -> (B, cells, C) of length 1."""
        with torch.no_grad():
            shown = torch.from_numpy(pictures).to(self.backbone.device).permute(0, 3, 1, 2).float()
            return F.normalize(self.backbone.dense_features(shown).float(), dim=1).flatten(2).transpose(1, 2)


class SearchSamples:
    """The same mosaics every time, without augmentation.

    Args:
        sampler: of the data set they come from.
        count: of pairs, at least: a mosaic has some twenty.
        head: that is measured.
    """

    def __init__(self, sampler: MosaicSampler, count: int, head: SearchHead) -> None:
        self.head, self.mosaics = head, list[Mosaic]()
        while sum(len(mosaic.mesh) for mosaic in self.mosaics) < count:
            self.mosaics.append(sampler.draw())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """sample_loss, and sample_found: the share of the objects whose most similar cell shows them."""
        losses, found = zip(*(search_loss(self.head, mosaic) for mosaic in self.mosaics), strict=True)
        return {"sample_loss": float(torch.stack(losses).mean()), "sample_found": float(torch.cat(found).mean())}

    @torch.no_grad()
    def draw(self, path: Path) -> Uint8Array:
        """Write the first mosaic, a line from each object to the cell most similar to it; returns the picture."""
        mosaic = self.mosaics[0]
        picture, (height, width) = mosaic.rgb.copy(), mosaic.rgb.shape[:2]
        cell_px = (height * width / mosaic.share.shape[1]) ** 0.5
        columns = round(width / cell_px)
        best = similarities(self.head, mosaic).amax(dim=2).argmax(dim=1)
        for share, cell in zip(mosaic.share, best.tolist(), strict=True):
            start, end = (
                (round((index % columns + 0.5) * cell_px), round((index // columns + 0.5) * cell_px))
                for index in (int(share.argmax()), cell)
            )
            colour = RIGHT_RGB if share[cell] > FOUND_CELL else WRONG_RGB
            cv2.line(picture, start, end, colour, 1, cv2.LINE_AA)
            cv2.circle(picture, end, 4, colour, 1, cv2.LINE_AA)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        return picture


def train_search(sampler: MosaicSampler, head: SearchHead, run: TrainingRun, monitor: Monitor) -> None:
    """Train a head in place; every step is one mosaic."""
    sampler.restart(run.step)

    def step() -> tuple[Losses, int]:
        mosaic = sampler.draw()
        loss, found = search_loss(head, mosaic)
        return {"loss": loss, "found": found.mean()}, len(mosaic.mesh)

    head.train()
    run.run(step, monitor)
    run.finish()


def similarities(head: SearchHead, mosaic: Mosaic) -> torch.Tensor:
    """(B, M, N) cosines of every cell with every reference cell, NEVER where that is not its object."""
    cosines = torch.einsum("mc,bnc->bmn", head(mosaic.cells), head(mosaic.references))
    return cosines.masked_fill(~mosaic.is_object[:, None], NEVER)


def search_loss(head: SearchHead, mosaic: Mosaic) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of "which cell shows the object" over the mosaic's cells, and (B,) 1 where the best one does.

    A cell that is the object in part does not count, nor does another view of the same mesh.
    """
    cosines = similarities(head, mosaic)
    logits = torch.logsumexp(BEST * GAIN * cosines, dim=2) / BEST
    share, is_same = mosaic.share, mosaic.mesh[:, None] == mosaic.mesh
    wanted = torch.where(share > OBJECT_CELL, share, 0.0)
    wanted = torch.where(wanted.sum(dim=1, keepdim=True) > 0, wanted, share)  # a thin thing fills no cell
    elsewhere = (is_same & ~torch.eye(len(share), dtype=torch.bool, device=share.device)).float() @ share
    is_left_out = (wanted == 0) & ((share > OTHER_CELL) | (elsewhere > 0))
    log_chance = logits.masked_fill(is_left_out, NEVER).log_softmax(dim=1)
    is_seen = wanted.sum(dim=1) > 0
    cost = -(wanted * log_chance).sum(dim=1)[is_seen] / wanted.sum(dim=1)[is_seen]
    best = cosines.amax(dim=2).argmax(dim=1, keepdim=True)
    return cost.mean(), (share.gather(1, best)[:, 0] > FOUND_CELL).float()


def _places(random: np.random.Generator) -> list[tuple[int, int, int]]:
    """Left, top and side of the squares of a mosaic."""
    rows, columns = FRAME_WH[1] // TILE, FRAME_WH[0] // TILE
    places, is_free = [], np.ones((rows, columns), bool)
    if random.random() < LARGE_SHARE:
        row, column = int(random.integers(rows - 1)), int(random.integers(columns - 1))
        places.append((column * TILE, row * TILE, 2 * TILE))
        is_free[row : row + 2, column : column + 2] = False
    for row, column in np.argwhere(is_free).tolist():
        half = TILE // 2 if random.random() < SMALL_SHARE else TILE
        corners = [(y, x) for y in range(0, TILE, half) for x in range(0, TILE, half)]
        places += [(column * TILE + x, row * TILE + y, half) for y, x in corners]
    return places


def _object_cells(inside: BoolArray, stride: int) -> BoolArray:
    """(h, w) which cells of a reference's (S, S) mask are mostly object, or as much as any of them."""
    share = inside.reshape(len(inside) // stride, stride, -1, stride).mean(axis=(1, 3))
    return np.asarray(share >= min(0.5, float(share.max())))
