"""References on a disk: what is saved comes back, what is made by hand is read, what is broken is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from nocsfm_ros.errors import ConfigError, NocsfmError
from nocsfm_ros.tracking.saved_references import forget_reference, read_reference, save_reference, saved_references
from nocsfm_ros.types import Reference

SIDE = 48


def _reference(object_id: str = "mug", with_depth: bool = True, far_m: float = 0.9) -> Reference:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:30, 12:40] = True
    depth_m = np.where(mask, np.float32(0.61234), np.float32(far_m))
    depth_m[:3] = 0
    T_cam_user = np.eye(4)
    T_cam_user[:3, 3] = 0.1, 0.2, 0.7
    K = np.array([[600.0, 0, 24], [0, 601.5, 23], [0, 0, 1]])
    return Reference(object_id, rgb, mask, depth_m if with_depth else None, K if with_depth else None, T_cam_user)


def _only(folder: Path) -> Reference:
    (path,) = saved_references(folder)
    return read_reference(path)


@pytest.mark.parametrize("with_depth", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, with_depth: bool) -> None:
    given = _reference(with_depth=with_depth)
    save_reference(tmp_path / "new", given)
    back = _only(tmp_path / "new")
    assert back.object_id == "mug"
    assert np.array_equal(back.rgb, given.rgb) and np.array_equal(back.mask, given.mask)
    assert np.array_equal(back.T_cam_user, given.T_cam_user)  # type: ignore[arg-type]
    if with_depth:
        assert back.depth_m is not None and given.depth_m is not None
        assert np.abs(back.depth_m - given.depth_m).max() < 6e-5 and not back.depth_m[:3].any()
        assert np.array_equal(back.K, given.K)  # type: ignore[arg-type]
    else:
        assert back.depth_m is None and back.K is None


def test_far_depth_is_kept_more_coarsely(tmp_path: Path) -> None:
    save_reference(tmp_path, _reference(far_m=40.0))
    back = _only(tmp_path)
    assert back.depth_m is not None
    assert back.depth_m.max() == pytest.approx(40.0, abs=1e-3)


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", "red mug", ".hidden", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    for act in (lambda: save_reference(tmp_path / "in", _reference(name)), lambda: forget_reference(tmp_path, name)):
        with pytest.raises(NocsfmError, match="object_id"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_what_is_forgotten_does_not_come_back(tmp_path: Path) -> None:
    save_reference(tmp_path, _reference())
    forget_reference(tmp_path, "mug")
    assert saved_references(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_reference(tmp_path, _reference())
    save_reference(tmp_path, _reference(with_depth=False))
    back = _only(tmp_path)
    assert back.depth_m is None
    assert [path.name for path in tmp_path.iterdir()] == ["mug"]


def test_a_kill_between_the_two_renames_of_saving_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, target: Path) -> None:
        if path.name.endswith(".part"):
            raise KeyboardInterrupt
        shutil.move(path, target)

    path = save_reference(tmp_path, _reference())
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save_reference(tmp_path, _reference())
    monkeypatch.undo()
    assert not path.exists() and saved_references(tmp_path) == [path]
    assert np.array_equal(read_reference(path).rgb, _reference().rgb)


def test_a_folder_made_by_hand_needs_a_picture_alone(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    cv2.imwrite(str(tmp_path / "box" / "rgb.jpg"), _reference().rgb)
    back = _only(tmp_path)
    assert back.mask.all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "rgb.png").unlink(), "no rgb.png"),
        (lambda folder: (folder / "rgb.png").write_bytes(b"no"), "no picture"),
        (lambda folder: (folder / "camera.json").unlink(), "camera.json"),
        (lambda folder: (folder / "camera.json").write_text("{"), "camera.json"),
        (lambda folder: (folder / "camera.json").write_text("[1]"), "camera.json"),
        (lambda folder: (folder / "camera.json").write_text(json.dumps({"K": [1], "T_cam_user": [2]})), "T_cam_user"),
        (lambda folder: cv2.imwrite(str(folder / "mask.png"), np.zeros((SIDE, SIDE), np.uint8)), "mask"),
        (lambda folder: cv2.imwrite(str(folder / "mask.png"), np.ones((5, 5), np.uint8)), "mask"),
    ],
)
def test_a_broken_one_is_named_and_the_others_are_read(tmp_path: Path, spoil: object, words: str) -> None:
    save_reference(tmp_path, _reference("a"))
    save_reference(tmp_path, _reference("b"))
    spoil(tmp_path / "a")  # type: ignore[operator]
    broken, whole = saved_references(tmp_path)
    with pytest.raises(ConfigError) as raised:
        read_reference(broken)
    assert words in str(raised.value) and str(tmp_path / "a") in str(raised.value)
    assert read_reference(whole).object_id == "b"


def test_forgetting_one_made_by_hand_leaves_none_of_its_pictures(tmp_path: Path) -> None:
    save_reference(tmp_path, _reference())
    (tmp_path / "mug/rgb.png").rename(tmp_path / "mug/rgb.JPG")
    shutil.copy(tmp_path / "mug/rgb.JPG", tmp_path / "mug/rgb.jpeg")
    forget_reference(tmp_path, "mug")
    assert saved_references(tmp_path) == []


def test_saving_again_keeps_what_is_not_ours(tmp_path: Path) -> None:
    folder = save_reference(tmp_path, _reference())
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "rgb.png").rename(folder / "rgb.jpg")
    save_reference(tmp_path, _reference(with_depth=False))
    assert sorted(path.name for path in folder.iterdir()) == ["camera.json", "mask.png", "notes.txt", "rgb.png"]


def test_forgetting_keeps_what_is_not_ours(tmp_path: Path) -> None:
    folder = save_reference(tmp_path, _reference())
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    forget_reference(tmp_path, "mug")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    forget_reference(tmp_path, "never_saved")
