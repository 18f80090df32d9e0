"""A folder laid out as hots118: objects on a wall, labelled, in three frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from nocsfm_ros.types import BoolArray

SIZE_HW = (120, 160)
K = np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]])


def square(left: int, top: int, side: int = 30) -> BoolArray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def hots_folder(root: Path) -> Path:
    """Three frames: object 1 in the first two, object 2 in the last two."""
    for folder in ("rgb", "depth", "semantic"):
        (root / folder).mkdir(parents=True)
    for index, numbers in enumerate(((1,), (1, 2), (2,))):
        labels = np.zeros(SIZE_HW, np.uint8)
        for number in numbers:
            labels[square(20 + 60 * (number - 1), 30)] = number
        cv2.imwrite(str(root / f"rgb/{index}.png"), np.full((*SIZE_HW, 3), 90, np.uint8))
        cv2.imwrite(str(root / f"depth/{index}.png"), np.full(SIZE_HW, 700, np.uint16))
        cv2.imwrite(str(root / f"semantic/{index}.png"), labels)
    np.savetxt(root / "cam_K.txt", K)
    (root / "class_names.txt").write_text("_background_\napple\nspoon")
    return root
