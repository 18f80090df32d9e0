"""Real photos: which questions are asked, how an answer is judged, and what is written. Trackers are scripted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hots_scenes import SIZE_HW, K, hots_folder, square
from nocs_scenes import Thing, pose, write_frame
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.pictures import read_rgb
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.real_photos import answer, evaluate_real, judge, markdown_table
from nocsfm_ros.evaluation.real_questions import Question, There, questions_of, rolled_question
from nocsfm_ros.geometry.camera import project
from nocsfm_ros.types import BoolArray, PoseEstimate, Reference, RgbdFrame, SimilarityPose, Track, TrackState

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the optional test data ../shared/data is absent")


def track_of(mask: BoolArray, T_cam_user: npt.NDArray[np.float64] | None, reason: str = "") -> Track:
    """A track with that mask and pose; without a pose, one that refuses."""
    found = None if T_cam_user is None else SimilarityPose(T_cam_user[:3, :3], T_cam_user[:3, 3], 0.1)
    estimate = PoseEstimate(found, mask, np.zeros((*mask.shape, 3), np.float32), confidence=0.7, reason=reason)
    state = TrackState.SEARCHING if found is None else TrackState.TRACKING
    return Track("thing", state, 0, estimate, T_cam_user, np.full(3, 0.1), None, 1)


class ScriptedTracker:
    """Answers with what it was given as the reference, its mask and pose, lying or not; refuses in frames of `gone`."""

    def __init__(self, gone: tuple[int, ...] = ()) -> None:
        self.gone, self.frame = gone, -1
        self.references: list[Reference] = []

    def set_reference(self, reference: Reference) -> Any:
        self.references.append(reference)

    def remove_reference(self, object_id: str | None = None) -> list[str]:
        names, self.references = [reference.object_id for reference in self.references], []
        return names

    def update(self, frame: RgbdFrame) -> list[Track]:
        self.frame += 1
        (reference,) = self.references
        T = pose((0, 0, 0), (0, 0, 0.5)) if reference.T_cam_user is None else reference.T_cam_user
        mask = reference.mask if reference.mask.shape == frame.depth_m.shape else np.rot90(reference.mask)
        return [track_of(mask, None if self.frame in self.gone else T, "nothing like it")]


class StrictTracker(ScriptedTracker):
    def set_reference(self, reference: Reference) -> Any:
        raise ConfigError("reference depth", got="no smooth surface", expected="a surface")


@pytest.fixture
def question() -> Question:
    rgb, depth_m = np.full((*SIZE_HW, 3), 90, np.uint8), np.full(SIZE_HW, 0.5, np.float32)
    T = pose((10, 20, 30), (0, 0, 0.5))
    reference = Reference("thing", rgb, square(40, 40), depth_m, K, T)
    return Question(
        "hots118", "another frame", "thing", reference, "one", RgbdFrame(rgb, depth_m, K), "two", There.YES,
        square(40, 40), T,
    )


def nocs_folder(root: Path) -> Path:
    """real_train with a mug and a bottle, real_test with another mug and a can."""
    left, right = pose((10, 20, 5), (-0.15, 0.0, 0.8)), pose((5, -30, 0), (0.12, 0.05, 0.9))
    write_frame(root / "real_train/scene_1", "0000", [Thing(1, "6 mug_a", left), Thing(2, "1 bottle_a", right)])
    write_frame(root / "real_test/scene_1", "0000", [Thing(1, "6 mug_b", right), Thing(2, "4 can_b", left)])
    return root


def cup_folder(root: Path) -> Path:
    rgb, depth = np.full((330, 300, 3), 90, np.uint8), np.full((330, 300), 700, np.uint16)
    for folder, picture in (("rgb", rgb), ("depth", depth)):
        (root / folder).mkdir(parents=True)
        for index in range(62):
            cv2.imwrite(str(root / folder / f"frame_{index:04d}.png"), picture)
    np.savetxt(root / "cam_K.txt", K)
    return root


def test_nocs_asks_each_instance_in_its_own_frame_and_real_train_in_real_test(tmp_path: Path) -> None:
    asked = list(questions_of(nocs_folder(tmp_path), "nocs_samples", 0))
    same, kin = ([q for q in asked if q.task == task] for task in ("same frame", "same class"))
    assert len(same) == 4 and {q.there for q in same} == {There.YES}
    assert [(q.object_name, q.there) for q in kin] == [("mug mug_a", There.KIN), ("bottle bottle_a", There.NO)]
    mug, bottle = kin
    assert mug.reference_name == "real_train/scene_1/0000" and mug.frame_name == "real_test/scene_1/0000"
    assert bottle.mask is None and bottle.T_cam_obj is None


def test_true_pose_of_nocs_questions_is_that_of_the_coordinate_map(tmp_path: Path) -> None:
    mug = next(q for q in questions_of(nocs_folder(tmp_path), "nocs_samples", 0) if q.task == "same class")
    assert mug.T_cam_obj is not None and mug.reference.T_cam_user is not None
    assert mug.T_cam_obj[:3, 3] == pytest.approx([0.12, 0.05, 0.9], abs=0.01)
    assert mug.reference.T_cam_user[:3, 3] == pytest.approx([-0.15, 0.0, 0.8], abs=0.01)


def test_hots_asks_two_thirds_with_the_object_and_a_third_without(tmp_path: Path) -> None:
    asked = list(questions_of(hots_folder(tmp_path), "hots118", 30))[:30]
    assert [q.there for q in asked] == [There.YES, There.YES, There.NO] * 10
    for q in asked:
        assert q.reference_name != q.frame_name
        seen = {"0": {"apple"}, "1": {"apple", "spoon"}, "2": {"spoon"}}
        assert (q.object_name in seen[q.frame_name]) is (q.there is There.YES)
        assert q.object_name in seen[q.reference_name]
        assert (q.mask is not None and bool(q.mask.any())) is (q.there is There.YES)


def test_hots_asks_the_same_questions_every_time(tmp_path: Path) -> None:
    folder = hots_folder(tmp_path)
    first, second = ([(q.object_name, q.frame_name) for q in questions_of(folder, "hots118", 12)] for _ in range(2))
    assert first == second


def test_hots_asks_the_first_half_again_in_frames_turned_by_quarters(tmp_path: Path) -> None:
    asked = list(questions_of(hots_folder(tmp_path), "hots118", 18))
    assert len(asked) == 27 and {q.task for q in asked[18:]} == {"another frame, turned"}
    for number, (upright, turned) in enumerate(zip(asked[:9], asked[18:], strict=True)):
        quarters = 1 + number // 3
        assert turned.frame_name == f"{upright.frame_name} turned {90 * quarters} deg"
        assert turned.object_name == upright.object_name and turned.there is upright.there
        np.testing.assert_array_equal(turned.frame.depth_m, np.rot90(upright.frame.depth_m, quarters))
        if upright.mask is not None:
            np.testing.assert_array_equal(turned.mask, np.rot90(upright.mask, quarters))


def test_pose_of_a_turned_question_shows_the_object_where_its_mask_is(question: Question) -> None:
    turned = rolled_question(replace(question, mask=square(65, 45), T_cam_obj=pose((0, 0, 0), (0.0, 0.0, 0.5))), 3)
    assert turned.T_cam_obj is not None and turned.mask is not None
    (u, v), (rows, columns) = project(turned.T_cam_obj[None, :3, 3], turned.frame.K)[0], np.nonzero(turned.mask)
    assert (u, v) == pytest.approx((columns.mean(), rows.mean()), abs=1)
    upright = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(turned.T_cam_obj[:3, :3], upright, atol=1e-9)


def test_find_is_on_a_thing_whose_middle_is_empty(question: Question) -> None:
    ring = square(40, 40) & ~square(44, 44, 22)
    assert judge(replace(question, mask=ring), track_of(ring, pose((0, 0, 0), (0, 0, 0.5))))["answer"] == "found"


def test_find_on_the_object_is_right_and_its_errors_are_measured(question: Question) -> None:
    T = pose((10, 20, 30), (0, 0, 0.52))
    T[:3, :3] = T[:3, :3] @ Rotation.from_euler("y", 8, degrees=True).as_matrix()
    record = judge(question, track_of(square(43, 40), T))
    assert record["answer"] == "found" and record["reason"] == "" and record["confidence"] == 0.7
    assert record["mask_iou"] == pytest.approx(27 / 33, abs=0.001)
    assert record["rot_err_deg"] == pytest.approx(8, abs=0.01) and record["trans_err_m"] == pytest.approx(0.02)


def test_turn_about_the_axis_of_a_round_object_is_no_error(question: Question) -> None:
    T = pose((10, 20, 30), (0, 0, 0.5))
    T[:3, :3] = T[:3, :3] @ Rotation.from_euler("y", 70, degrees=True).as_matrix()
    record = judge(replace(question, symmetry=0), track_of(square(40, 40), T))
    assert record["rot_err_deg"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("there", "left", "is_posed", "expected"),
    [
        (There.YES, 40, True, "found"), (There.YES, 90, True, "found elsewhere"), (There.YES, 40, False, "missed"),
        (There.NO, 40, True, "false find"), (There.NO, 40, False, "refused"), (There.KIN, 40, True, "found its kin"),
        (There.KIN, 90, True, "found elsewhere"), (There.KIN, 40, False, "refused"),
        (There.UNKNOWN, 40, True, "found something"), (There.UNKNOWN, 40, False, "refused"),
    ],
)
def test_answer_in_words(question: Question, there: There, left: int, is_posed: bool, expected: str) -> None:
    known = there in (There.YES, There.KIN)
    asked = replace(question, there=there, mask=question.mask if known else None, T_cam_obj=None)
    T = pose((0, 0, 0), (0, 0, 0.5)) if is_posed else None
    record = judge(asked, track_of(square(left, 40), T, "too few points"))
    assert record["answer"] == expected
    assert record["reason"] == ("" if is_posed else "too few points")
    assert record["mask_iou"] == ((1.0 if left == 40 else 0.0) if known else None) and record["rot_err_deg"] is None


def test_reference_that_is_not_taken_is_an_answer(question: Question) -> None:
    record, cells = answer(question, StrictTracker())
    assert record["answer"] == "reference not taken" and "no smooth surface" in record["reason"]
    assert len(cells) == 3


def test_every_question_is_put_to_a_tracker_that_knows_one_reference(tmp_path: Path) -> None:
    nocs_folder(tmp_path / "nocs_samples")
    hots_folder(tmp_path / "hots118")
    results = evaluate_real(tmp_path, ScriptedTracker(), tmp_path / "out", {"machine": "m"}, lambda line: None, 6)
    answers = [(r["task"], r["answer"]) for r in results["questions"]]
    assert answers[:4] == [("same frame", "found")] * 4  # it answers with the reference's own mask and pose
    assert [a for task, a in answers if task == "another frame"] == ["found", "found", "false find"] * 2
    assert sum(task == "another frame, turned" for task, _ in answers) == 3
    errors = [r["rot_err_deg"] for r in results["questions"][:4]]
    assert errors == pytest.approx([0] * 4, abs=0.1)
    assert results["left_out"] == ["single_frames: no such folder", "cup129: no such folder"]
    assert json.loads((tmp_path / "out/real.json").read_text()) == json.loads(json.dumps(results))
    for name in results["grids"]:
        assert read_rgb(tmp_path / "out" / name).shape[1] == 6 * 240
    assert results["grids"] == ["nocs_samples_1.png", "hots118_1.png"]


def test_cup_is_followed_through_all_frames(tmp_path: Path) -> None:
    cup_folder(tmp_path / "cup129")
    results = evaluate_real(
        tmp_path, ScriptedTracker(gone=(0, 1, 20, 21, 40)), tmp_path / "out", {}, lambda line: None, 6
    )
    cup = results["cup129"]
    assert (cup["reference"], cup["frames"], cup["posed"]) == ("frame_0060", 62, 57)
    assert (cup["losses"], cup["finds_again"]) == (2, 2)
    assert read_rgb(tmp_path / "out/cup129.png").shape == (2 * 202, 4 * 320, 3)


def test_table_counts_answers_of_each_kind_and_leaves_unknown_unjudged(question: Question) -> None:
    T = pose((10, 20, 30), (0, 0, 0.5))
    right, missed = judge(question, track_of(square(40, 40), T)), judge(question, track_of(square(40, 40), None))
    unknown = judge(replace(question, there=There.UNKNOWN, mask=None, T_cam_obj=None), track_of(square(4, 4), T))
    text = markdown_table({"questions": [right, missed, unknown], "left_out": ["cup129: no such folder"]})
    assert "| hots118 | another frame | yes | 2 | 1 | found 1, missed 1 | 1.00 | 0.0 deg | 0.0 cm |" in text
    assert "| not known | 1 | not judged | found something 1 | - | - | - |" in text
    assert "Left out: cup129: no such folder." in text


def test_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the real sets"):
        evaluate_real(tmp_path, ScriptedTracker(), tmp_path / "out", {}, lambda line: None, 6)


@needs_shared
def test_questions_of_the_real_sets_are_complete() -> None:
    nocs = list(questions_of(SHARED / "nocs_samples", "nocs_samples", 0))
    single = list(questions_of(SHARED / "single_frames", "single_frames", 0))
    kin = {q.object_name.split()[0]: q.there for q in nocs if q.task == "same class"}
    assert kin == {"mug": There.KIN, "bowl": There.KIN, "bottle": There.NO, "can": There.KIN}
    assert sum(q.task == "same frame" for q in nocs) == 19
    assert [sum(q.task == task for q in single) for task in ("same frame", "another camera")] == [12, 20]


@needs_shared
def test_objects_of_hots_are_where_their_masks_are() -> None:
    asked = list(questions_of(SHARED / "hots118", "hots118", 6))
    assert all(q.mask is not None and q.mask.any() for q in asked if q.there is There.YES)
    assert all(q.reference.mask.any() and q.frame.depth_m.any() for q in asked)
