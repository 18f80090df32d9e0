"""`nocsfm real`: the product on real photos it was never trained on, judged where something is known.

real.json holds a record of every question; table.md the counts; a PNG per set shows every answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nocsfm_ros.data.sources import frame_index, open_source
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.evaluation.demo_pictures import write_png
from nocsfm_ros.evaluation.pairs import iou
from nocsfm_ros.evaluation.real_grids import Cell, question_cells, write_pages
from nocsfm_ros.evaluation.real_questions import (
    CUP_BOX,
    CUP_FRAME,
    SETS,
    Question,
    There,
    left_out,
    questions_of,
)
from nocsfm_ros.geometry.symmetry import nearest_symmetry
from nocsfm_ros.geometry.transforms import rotation_angle_deg
from nocsfm_ros.tracking.reference import reference_from_arrays
from nocsfm_ros.types import BoolArray, Reference, RgbdFrame, Track
from nocsfm_ros.visualization import grid, overlay

CUP = "cup129"
CUP_SHOWN = 10  # every tenth frame
CUP_CELL_WH = (320, 202)
RIGHT = {"found", "refused", "found its kin"}
TABLE = ("set", "frame", "is there", "n", "right", "answers", "mask IoU", "rotation", "translation")


class PhotoTracker(Protocol):
    """What is needed of tracking.tracker.Tracker."""

    def set_reference(self, reference: Reference) -> Any: ...

    def remove_reference(self, object_id: str | None = None) -> list[str]: ...

    def update(self, frame: RgbdFrame) -> list[Track]: ...


def evaluate_real(
    root: Path, tracker: PhotoTracker, out: Path, facts: Mapping[str, str], report: Callable[[str], None],
    count: int,
) -> dict[str, Any]:
    """Ask every question of the sets in a folder; write real.json, table.md and the grids.

    Args:
        root: holds some of SETS.
        tracker: the node's; its references are replaced.
        out: folder.
        facts: go into real.json as they are.
        report: gets lines for people.
        count: of questions drawn from hots118.

    Returns:
        What real.json holds.

    Raises:
        ConfigError: none of the sets is there, or a set's files cannot be used.
        FrameError: a picture cannot be used.
    """
    found_sets = [name for name in SETS if (root / name).is_dir()]
    if not found_sets:
        raise ConfigError(f"folder {root}", got="none of the real sets", expected=f"at least one of {', '.join(SETS)}")
    out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    results: dict[str, Any] = {"left_out": left_out(root), **facts, "grids": [], "questions": records}
    for name in found_sets:
        if name == CUP:
            results[CUP] = _follow_cup(root / CUP, tracker, out / f"{CUP}.png")
            results["grids"].append(f"{CUP}.png")
            continue
        rows: list[Sequence[Cell]] = []
        for question in questions_of(root / name, name, count):
            record, cells = answer(question, tracker)
            records.append(record)
            rows.append(cells)
            if len(rows) % 10 == 0:
                report(f"{name}: {len(rows)} questions")
        results["grids"] += write_pages(rows, out / name)
    (out / "real.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (out / "table.md").write_text(markdown_table(results), encoding="utf-8")
    return results


def answer(question: Question, tracker: PhotoTracker) -> tuple[dict[str, Any], list[Cell]]:
    """Put one question to a tracker that knows nothing else; its record and its cells of the grid."""
    tracker.remove_reference()
    given = question.reference
    try:
        tracker.set_reference(
            reference_from_arrays("object", given.rgb, given.mask, None, given.depth_m, given.K, given.T_cam_user)
        )
    except ConfigError as error:  # a reference that the product does not take is an answer too
        record = judge(question, None) | {"answer": "reference not taken", "reason": str(error)}
        return record, question_cells(question, None, _words(record))
    (track,) = tracker.update(question.frame)
    record = judge(question, track)
    return record, question_cells(question, track, _words(record))


def judge(question: Question, track: Track | None) -> dict[str, Any]:
    """The record of one question; None where something is not known or there is no pose.

    The mask's IoU is also given of an answer that was refused: it tells whether the right place was looked at.
    """
    T_cam_obj = None if track is None else track.T_cam_user
    errors: dict[str, float | None] = {"mask_iou": None, "rot_err_deg": None, "trans_err_m": None}
    is_on_it = False
    if track is not None and question.mask is not None:
        is_on_it = _is_mostly_inside(track.estimate.mask, question.mask)
        errors["mask_iou"] = round(iou(track.estimate.mask, question.mask), 3)
    if T_cam_obj is not None and question.T_cam_obj is not None and is_on_it:
        R, R_true = T_cam_obj[:3, :3], question.T_cam_obj[:3, :3]
        turned = R @ nearest_symmetry(R, R_true, question.symmetry)[:3, :3]
        errors["rot_err_deg"] = round(rotation_angle_deg(turned, R_true), 2)
        errors["trans_err_m"] = round(float(np.linalg.norm(T_cam_obj[:3, 3] - question.T_cam_obj[:3, 3])), 4)
    is_found = T_cam_obj is not None
    return {
        "set": question.set_name, "task": question.task, "object": question.object_name,
        "reference": question.reference_name, "frame": question.frame_name, "there": question.there.value,
        "answer": _answer_in_words(question.there, is_found, is_on_it),
        "confidence": None if track is None else round(track.estimate.confidence, 3), **errors,
        "reason": "" if track is None or is_found else track.estimate.reason,
    }


def markdown_table(results: Mapping[str, Any]) -> str:
    """Counts and medians of every kind of question; errors are those of finds on the object."""
    records = results["questions"]
    lines = [f"| {' | '.join(TABLE)} |", "|---" * len(TABLE) + "|"]
    for kind in dict.fromkeys((record["set"], record["task"], record["there"]) for record in records):
        lines.append(_line(kind, [r for r in records if (r["set"], r["task"], r["there"]) == kind]))
    if CUP in results:
        cup = results[CUP]
        lines.append(
            f"\ncup129, reference frame {cup['reference']}: a pose in {cup['posed']} of {cup['frames']} frames, "
            f"lost {cup['losses']} times, found again {cup['finds_again']} times."
        )
    lines += [f"\nLeft out: {sentence}." for sentence in results["left_out"]]
    return "\n".join(lines) + "\n"


def _line(kind: tuple[str, str, str], records: Sequence[Mapping[str, Any]]) -> str:
    answers = Counter(record["answer"] for record in records)
    right = sum(count for name, count in answers.items() if name in RIGHT)
    on_it = [record for record in records if record["answer"] in ("found", "found its kin")]
    cells = (
        *kind, str(len(records)), "not judged" if kind[2] == There.UNKNOWN.value else str(right),
        ", ".join(f"{name} {count}" for name, count in answers.most_common()),
        _median(on_it, "mask_iou", "{:.2f}"), _median(on_it, "rot_err_deg", "{:.1f} deg"),
        _median(on_it, "trans_err_m", "{:.1f} cm", 100),
    )
    return f"| {' | '.join(cells)} |"


def _median(records: Sequence[Mapping[str, Any]], key: str, form: str, gain: float = 1) -> str:
    known = [record[key] for record in records if record[key] is not None]
    return form.format(gain * float(np.median(known))) if known else "-"


def _answer_in_words(there: There, is_found: bool, is_on_it: bool) -> str:
    if not is_found:
        return "missed" if there is There.YES else "refused"
    if there is There.NO:
        return "false find"
    if there is There.UNKNOWN:
        return "found something"
    if not is_on_it:
        return "found elsewhere"
    return "found" if there is There.YES else "found its kin"


def _words(record: Mapping[str, Any]) -> list[str]:
    """The verdict for people; what is not known is not said."""
    known = (
        ("confidence", "confidence {:.2f}"), ("mask_iou", "mask IoU {:.2f}"), ("rot_err_deg", "{:.1f} deg off"),
        ("trans_err_m", "{:.3f} m off"), ("reason", "{}"),
    )
    facts = [form.format(record[key]) for key, form in known if record[key] not in (None, "")]
    return [record["answer"].upper(), f"there: {record['there']}", *facts]


def _is_mostly_inside(mask: BoolArray, true_mask: BoolArray) -> bool:
    """Whether half of a mask or more lies on the true one; its centre does not, of a bowl seen from above."""
    return bool(mask.any()) and float(true_mask[mask].mean()) >= 0.5


def _follow_cup(folder: Path, tracker: PhotoTracker, picture: Path) -> dict[str, Any]:
    """Follow the mug through all frames and write a sheet of every tenth; nothing is known to judge it by."""
    source = open_source(folder)
    start = frame_index(source, str(CUP_FRAME))
    frame = source.frame(start)
    tracker.remove_reference()
    tracker.set_reference(reference_from_arrays("mug", frame.rgb, None, CUP_BOX, frame.depth_m, frame.K))
    overlays, posed, dropped = [], [], []
    for index in range(len(source)):
        try:
            frame = source.frame(index)
            (track,) = tracker.update(frame)
        except FrameError as error:
            dropped.append(f"{source.name(index)}: {error}")
            continue
        posed.append(track.T_cam_user is not None)
        if index % CUP_SHOWN == 0:
            overlays.append((overlay(frame.rgb, [track], frame.K), source.name(index)))
    if not overlays:
        raise FrameError(f"pictures of {folder}", got=f"{len(dropped)} that cannot be used", expected="RGB-D frames")
    pictures, names = zip(*overlays, strict=True)
    write_png(grid(pictures, names, 4, CUP_CELL_WH), picture)
    changes = np.diff(np.array(posed, dtype=int))
    return {
        "reference": source.name(start), "frames": len(source), "dropped": dropped, "posed": sum(posed),
        "losses": int((changes < 0).sum()), "finds_again": max(int((changes > 0).sum()) - (not posed[0]), 0),
        "posed_by_frame": [int(value) for value in posed],
    }
