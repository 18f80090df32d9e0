"""Pictures of the questions to real photos: reference, frame with what was found, and the verdict in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.evaluation.demo_pictures import write_png
from nocsfm_ros.evaluation.real_questions import Question
from nocsfm_ros.geometry.crops import box_from_mask, crop_frame, crop_mask, square_box
from nocsfm_ros.types import BoolArray, ObjectCrop, Track, Uint8Array
from nocsfm_ros.visualization import BACKDROP, TEXT, draw_outline, draw_text, draw_tracks, sheet

CELL_WH = (240, 202)
PER_LINE, LINES = 2, 5  # questions: a page stays under 2 MB
CLOSE_SIDE, CLOSE_MARGIN = 176, 2.0
OUTLINE_REFERENCE, OUTLINE_TRUTH = (60, 255, 60), (255, 255, 255)
WORDS_PER_LINE, TEXT_STEP, TEXT_SCALE = 36, 16, 0.38
Cell = tuple[Uint8Array, str]


def question_cells(question: Question, track: Track | None, verdict: Sequence[str]) -> list[Cell]:
    """Three cells: the reference, outlined green; the frame, the truth outlined white; the verdict, a line each.

    Of the frame, what is around the answer and the truth is shown; all of it where there is neither.
    """
    frame = question.frame
    picture = frame.rgb.copy()
    draw_tracks(picture, [] if track is None else [track], frame.K)
    if question.mask is not None:
        draw_outline(picture, question.mask, OUTLINE_TRUTH)
    masks = [question.mask, None if track is None or track.T_cam_user is None else track.estimate.mask]
    around = np.logical_or.reduce([mask for mask in masks if mask is not None] or [np.zeros(frame.rgb.shape[:2], bool)])
    reference = _close_up(question.reference.rgb, question.reference.mask)
    draw_outline(reference.rgb, crop_mask(question.reference.mask, reference), OUTLINE_REFERENCE)
    live = _close_up(picture, around).rgb if around.any() else picture
    name = f"{question.object_name} of {question.reference_name}"
    return [(reference.rgb, name), (live, question.frame_name), (_words(verdict), question.task)]


def write_pages(rows: Sequence[Sequence[Cell]], stem: Path) -> list[str]:
    """Questions' cells as PNG pages STEM_1.png, STEM_2.png ...; their names."""
    lines = [
        [cell for row in rows[start : start + PER_LINE] for cell in row] for start in range(0, len(rows), PER_LINE)
    ]
    pages = [lines[start : start + LINES] for start in range(0, len(lines), LINES)]
    names = [f"{stem.name}_{number}.png" for number in range(1, len(pages) + 1)]
    for page, name in zip(pages, names, strict=True):
        write_png(sheet(page, CELL_WH), stem.parent / name)
    return names


def _close_up(rgb: Uint8Array, mask: BoolArray) -> ObjectCrop:
    """The square around a mask that is not empty."""
    box = box_from_mask(mask)
    if box is None:
        raise ShapeError("mask", got="no pixel", expected="some")
    no_depth = np.zeros(mask.shape, np.float32)
    return crop_frame(rgb, no_depth, np.eye(3), square_box(box, CLOSE_MARGIN), CLOSE_SIDE)


def _words(lines: Sequence[str]) -> Uint8Array:
    picture = np.full((CELL_WH[1] - 25, CELL_WH[0] - 6, 3), BACKDROP, np.uint8)
    wrapped = [part for line in lines for part in textwrap.wrap(line, WORDS_PER_LINE)]
    for row, text in enumerate(wrapped):
        draw_text(picture, text, (4, 18 + row * TEXT_STEP), TEXT, TEXT_SCALE)
    return picture
