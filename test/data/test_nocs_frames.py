"""CAMERA25 and REAL275: every layout and encoding is read, poses are matched, hostile and corrupt files are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from nocs_scenes import SIZE_WH, Thing, pose, seen, write_frame

from nocsfm_ros.data.folders import NOCS_CAMERA_K, NOCS_REAL_K, scene_folders
from nocsfm_ros.data.nocs_frames import NocsFrames, load_arrays
from nocsfm_ros.errors import FrameError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nocs_samples"
MUG = Thing(1, "6 mug_blue_norm", pose((20, 50, -70), (0.05, -0.02, 0.7)))
BOTTLE = Thing(4, "1 02876657 a12f", pose((0, 10, 190), (-0.15, 0.02, 0.8)), 0.15)
DISTRACTOR = Thing(3, "0 02954340 90c6", pose((0, 0, 0), (0.12, 0.1, 0.9)))

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the optional test data ../shared/data is absent")


def write_truth(file: Path, things: list[Thing], **more: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    T_cam_nocs = np.stack([thing.T_cam_obj @ np.diag([*[thing.diagonal_m] * 3, 1]) for thing in things])
    file.write_bytes(pickle.dumps({"gt_RTs": T_cam_nocs, "image_path": "0000", **more}, protocol=3))


@pytest.mark.parametrize(
    ("scene", "truth", "is_camera"),
    [
        ("real_test/scene_1", "gts/real_test/results_real_test_scene_1_0000.pkl", False),
        ("val/00000", "gts/val/results_val_00000_0000.pkl", True),
        ("Real/test/scene_1", "gts/real_test/results_real_test_scene_1_0000.pkl", False),
        ("CAMERA/val/00000", "gts/val/results_val_00000_0000.pkl", True),
        (".", "results_real_test_scene_1_0000.pkl", False),
    ],
)
def test_load_finds_instances_and_poses_in_every_layout(
    tmp_path: Path, scene: str, truth: str, is_camera: bool
) -> None:
    write_frame(tmp_path / scene, "0000", [MUG, DISTRACTOR, BOTTLE], is_camera)
    write_truth(tmp_path / truth, [MUG, BOTTLE], handle_visibility=np.array([0.0, 1.0]))
    assert [folder.resolve() for folder in scene_folders(tmp_path)] == [(tmp_path / scene).resolve()]
    frames = NocsFrames(tmp_path / scene)

    frame = frames.load(0)

    assert (frames.is_camera, len(frames), frame.name) == (is_camera, 1, "0000")
    np.testing.assert_array_equal(frame.rgbd.K, NOCS_CAMERA_K if is_camera else NOCS_REAL_K)
    assert [(i.number, i.class_name, i.model) for i in frame.instances] == [
        (1, "mug", "mug_blue_norm"), (4, "bottle", "02876657/a12f"),
    ]
    found = frames.truth(frame)
    assert [found[number].has_visible_handle for number in (1, 4)] == [False, True]
    for thing in (MUG, BOTTLE):
        np.testing.assert_allclose(found[thing.number].pose.T_cam_obj, thing.T_cam_obj, atol=1e-12)
        assert found[thing.number].pose.scale_m == pytest.approx(thing.diagonal_m)


@pytest.mark.parametrize("is_camera", [False, True])
def test_load_coordinates_and_depth_agree_with_geometry_and_end_at_the_mask(tmp_path: Path, is_camera: bool) -> None:
    write_frame(tmp_path, "0000", [MUG], is_camera)
    frame = NocsFrames(tmp_path).load(0)
    depth_m, nocs = seen(MUG, frame.rgbd.K)
    (instance,) = frame.instances
    np.testing.assert_array_equal(instance.mask, depth_m > 0)
    np.testing.assert_allclose(instance.nocs[instance.mask], nocs[instance.mask], atol=0.51 / 255)
    assert not instance.nocs[~instance.mask].any()  # although the file shows the photo there
    np.testing.assert_allclose(frame.rgbd.depth_m[instance.mask], depth_m[instance.mask], atol=0.00051)
    wall_m = 0.0 if is_camera else 1.5
    assert np.unique(frame.rgbd.depth_m[~instance.mask]) == pytest.approx([wall_m])


@pytest.mark.parametrize("scene", ["train/00000", "CAMERA/train/00000"])
def test_load_takes_the_composed_depth_where_there_is_one(tmp_path: Path, scene: str) -> None:
    write_frame(tmp_path / scene, "0000", [MUG], is_camera=True)
    composed = tmp_path / "camera_full_depths" / "train" / "00000"
    composed.mkdir(parents=True)
    cv2.imwrite(str(composed / "0000_composed.png"), np.full(SIZE_WH[::-1], 1234, np.uint16))
    frame = NocsFrames(tmp_path / scene).load(0)
    assert np.unique(frame.rgbd.depth_m) == pytest.approx([1.234])
    np.testing.assert_array_equal(frame.rgbd.K, NOCS_CAMERA_K)


def test_truth_without_a_file_is_empty(tmp_path: Path) -> None:
    write_frame(tmp_path / "real_train" / "scene_2", "0000", [MUG])
    frames = NocsFrames(tmp_path / "real_train" / "scene_2")
    assert frames.truth(frames.load(0)) == {}


def test_truth_without_handle_visibility_shows_all_handles(tmp_path: Path) -> None:
    write_frame(tmp_path, "0000", [MUG])
    write_truth(tmp_path / "results_val_0_0000.pkl", [MUG])
    frames = NocsFrames(tmp_path)
    assert frames.truth(frames.load(0))[1].has_visible_handle


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"gt_RTs": np.stack([np.eye(4)] * 2)}, "2 of them"),
        ({"gt_RTs": np.zeros((1, 4, 4))}, "scaled rotations"),
        ({"gt_RTs": "none"}, "scaled rotations"),
        ({}, "scaled rotations"),
        ({"gt_RTs": np.eye(4)[None], "handle_visibility": np.ones(3)}, "handle_visibility"),
    ],
)
def test_truth_that_does_not_fit_the_frame_raises(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    write_frame(tmp_path, "0000", [MUG, DISTRACTOR])
    (tmp_path / "results_val_0_0000.pkl").write_bytes(pickle.dumps(facts, protocol=3))
    frames = NocsFrames(tmp_path)
    with pytest.raises(FrameError, match=message):
        frames.truth(frames.load(0))


class Hostile:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_load_arrays_refuses_a_pickle_that_calls_functions(tmp_path: Path) -> None:
    written, file = tmp_path / "written", tmp_path / "hostile.pkl"
    file.write_bytes(pickle.dumps({"gt_RTs": Hostile(written)}))
    with pytest.raises(FrameError, match="no part of an array"):
        load_arrays(file)
    assert not written.exists()
    pickle.loads(file.read_bytes())
    assert written.exists()  # it would have worked


@pytest.mark.parametrize("content", [b"", b"\x80\x03garbage", pickle.dumps([1, 2])])
def test_load_arrays_of_a_broken_pickle_raises_frame_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pkl").write_bytes(content)
    with pytest.raises(FrameError, match=r"broken\.pkl"):
        load_arrays(tmp_path / "broken.pkl")


@pytest.mark.parametrize("line", ["2 6", "two 6 mug", "2 7 kettle_norm", "2 6 03797390 a b"])
def test_load_of_a_corrupt_meta_line_names_file_and_line(tmp_path: Path, line: str) -> None:
    write_frame(tmp_path, "0000", [MUG])
    meta = tmp_path / "0000_meta.txt"
    meta.write_text(meta.read_text() + line + "\n")
    with pytest.raises(FrameError, match=r"0000_meta\.txt, line 2"):
        NocsFrames(tmp_path).load(0)


@pytest.mark.parametrize("kind", ["coord.png", "mask.png", "meta.txt"])
def test_load_without_a_label_file_names_it(tmp_path: Path, kind: str) -> None:
    write_frame(tmp_path, "0000", [MUG])
    (tmp_path / f"0000_{kind}").unlink()
    with pytest.raises(FrameError, match=f"0000_{kind}"):
        NocsFrames(tmp_path).load(0)


@needs_shared
@pytest.mark.parametrize(
    ("scene", "models"),
    [
        ("real_test/scene_1", ["bowl", "can", "camera", "mug", "laptop"]),
        ("real_train/scene_1", ["mug", "bowl", "bowl", "bottle", "can"]),
        ("train/00000", ["bottle", "bowl", "mug", "bottle"]),
        ("val/00000", ["laptop", "laptop"]),
    ],
)
def test_shared_scene_holds_the_classes_that_are_seen(scene: str, models: list[str]) -> None:
    frame = NocsFrames(SHARED / scene).load(0)
    assert [instance.class_name for instance in frame.instances] == models


@needs_shared
def test_shared_poses_of_python_2_are_read() -> None:
    frames = NocsFrames(SHARED / "real_test" / "scene_1")
    truth = frames.truth(frames.load(0))
    assert sorted(truth) == [1, 2, 3, 4, 5]
    diagonal_m = np.linalg.norm(np.loadtxt(SHARED / "obj_models/real_test/mug_daniel_norm.txt"))
    assert truth[4].pose.scale_m == pytest.approx(diagonal_m, abs=1e-4)
    for file in (SHARED / "gts").rglob("*.pkl"):
        assert load_arrays(file)["gt_RTs"].shape[1:] == (4, 4)
