"""One picture of many rendered views, to see at a glance whether they make sense."""

from __future__ import annotations

import cv2
import numpy as np

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.types import Uint8Array

TILE = 128
OUTLINE_RGB = (60, 255, 60)


def contact_sheet(dataset: ViewDataset, rows: int = 12, columns: int = 6) -> Uint8Array:
    """(<= rows * 128, columns * 256, 3) RGB: a row is a cluster; a view is its picture, outlined, and its depth.

    Depth is coloured from one diagonal before the object's centre (red) to one behind it (blue), black without.
    """
    clusters = dataset.column("cluster")
    shown = np.unique(clusters)
    shown = shown[np.linspace(0, len(shown) - 1, min(rows, len(shown))).astype(int)]
    sheet = np.zeros((len(shown) * TILE, columns * 2 * TILE, 3), np.uint8)
    for row, cluster in enumerate(shown):
        for column, index in enumerate(np.flatnonzero(clusters == cluster)[:columns]):
            place = sheet[row * TILE :, column * 2 * TILE :]
            place[:TILE, : 2 * TILE] = np.hstack(_tiles(dataset[int(index)]))
    return sheet


def _tiles(view: View) -> tuple[Uint8Array, Uint8Array]:
    mask = np.ascontiguousarray(view["mask"])
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    rgb = cv2.drawContours(np.array(view["rgb"]), outlines, -1, OUTLINE_RGB, 2)
    depth_m = view["depth"] * DEPTH_UNIT_M
    behind = (depth_m - view["T_cam_obj"][2, 3]) / max(2 * float(view["diagonal_m"]), 1e-9) + 0.5
    colours = cv2.applyColorMap((255 * (1 - np.clip(behind, 0, 1))).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    depth = np.where((depth_m > 0)[..., None], colours, 0).astype(np.uint8)
    small = [cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA) for picture in (rgb, depth)]
    return np.asarray(small[0], np.uint8), np.asarray(small[1], np.uint8)
