"""Frames of folders and bags come out in metres, paired, counted, with their masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nocsfm_ros.data.sources import frame_index, open_source
from nocsfm_ros.errors import ConfigError, FrameError

K = [600.0, 0, 31.5, 0, 601.0, 23.5, 0, 0, 1]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RGB = np.full((48, 64, 3), (200, 100, 50), np.uint8)
DEPTH_MM = np.full((48, 64), 750, np.uint16)
DEPTH_MM[0, 0] = 0

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the optional test data ../shared/data is absent"
)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, picture[..., ::-1] if picture.ndim == 3 else picture)[1]
    path.write_bytes(encoded.tobytes())


def make_plain(folder: Path, stems: tuple[str, ...] = ("frame_2", "frame_10"), **camera: Any) -> Path:
    for stem in stems:
        write(folder / "rgb" / f"{stem}.png", RGB)
        write(folder / "depth" / f"{stem}.png", DEPTH_MM)
    (folder / "camera.json").write_text(json.dumps({"K": K, **camera}))
    return folder


def test_plain_folder_gives_rgb_metres_and_intrinsics(tmp_path: Path) -> None:
    source = open_source(make_plain(tmp_path))
    frame = source.frame(0)
    assert frame.rgb[5, 5].tolist() == [200, 100, 50]
    assert frame.depth_m[5, 5] == pytest.approx(0.75) and frame.depth_m[0, 0] == 0
    assert frame.depth_m.dtype == np.float32
    assert frame.K.ravel().tolist() == K


def test_plain_folder_counts_as_people_do_and_stamps_rise(tmp_path: Path) -> None:
    source = open_source(make_plain(tmp_path, ("frame_10", "frame_2", "frame_1")))
    assert [source.name(index) for index in range(3)] == ["frame_1", "frame_2", "frame_10"]
    assert np.all(np.diff([frame.stamp_ns for frame in source]) > 0)


def test_plain_folder_rgb_without_depth_is_skipped_and_counted(tmp_path: Path) -> None:
    make_plain(tmp_path)
    write(tmp_path / "rgb" / "frame_3.png", RGB)
    source = open_source(tmp_path)
    assert len(source) == 2
    assert source.notes == ["1 colour pictures without depth were skipped"]


def test_plain_folder_depth_scale_and_focal_names_are_used(tmp_path: Path) -> None:
    make_plain(tmp_path)
    (tmp_path / "camera.json").write_text(
        json.dumps({"fx": 5, "fy": 6, "cx": 7, "cy": 8, "depth_scale": 0.0001})
    )
    frame = open_source(tmp_path).frame(0)
    assert frame.depth_m[5, 5] == pytest.approx(0.075)
    assert frame.K.tolist() == [[5, 0, 7], [0, 6, 8], [0, 0, 1]]


def test_plain_folder_cam_k_txt_is_read(tmp_path: Path) -> None:
    make_plain(tmp_path)
    (tmp_path / "camera.json").unlink()
    (tmp_path / "cam_K.txt").write_text(" ".join(str(value) for value in K))
    assert open_source(tmp_path).frame(0).K.ravel().tolist() == K


@pytest.mark.parametrize("numbers", [[0.0] * 9, [600.0, 0, 1], "nine", None])
def test_plain_folder_bad_intrinsics_raise(tmp_path: Path, numbers: Any) -> None:
    make_plain(tmp_path)
    (tmp_path / "camera.json").write_text(json.dumps({"K": numbers}))
    with pytest.raises(ConfigError, match=r"camera\.json"):
        open_source(tmp_path)


def test_plain_folder_label_masks_are_given_by_number(tmp_path: Path) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[10:20, 10:30], labels[30:, :] = 3, 7
    write(make_plain(tmp_path) / "masks" / "frame_2.png", labels)
    source = open_source(tmp_path)
    assert source.objects(0) == [3, 7] and source.objects(1) == []
    mask = source.mask(0, 3)
    assert mask is not None and mask.sum() == 200
    assert source.mask(0, 4) is None and source.mask(1, 3) is None


def test_plain_folder_semantic_mask_is_of_the_largest_instance(tmp_path: Path) -> None:
    labels, instances = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
    labels[5:10, 5:10], labels[20:40, 20:40] = 6, 6
    instances[5:10, 5:10], instances[20:40, 20:40] = 1, 2
    folder = make_plain(tmp_path)
    write(folder / "semantic" / "frame_2.png", labels)
    write(folder / "instance" / "frame_2.png", instances)
    mask = open_source(tmp_path).mask(0, 6)
    assert mask is not None and np.array_equal(mask, instances == 2)


def test_frame_unreadable_or_unregistered_raises_frame_error(tmp_path: Path) -> None:
    make_plain(tmp_path)
    (tmp_path / "rgb" / "frame_2.png").write_bytes(b"no picture")
    write(tmp_path / "depth" / "frame_10.png", DEPTH_MM[:20])
    source = open_source(tmp_path)
    with pytest.raises(FrameError, match=r"frame_2\.png"):
        source.frame(0)
    with pytest.raises(FrameError, match="64x20"):
        source.frame(1)


def test_frame_of_8_bit_depth_raises(tmp_path: Path) -> None:
    write(make_plain(tmp_path) / "depth" / "frame_2.png", DEPTH_MM.astype(np.uint8))
    with pytest.raises(FrameError, match="raw depth"):
        open_source(tmp_path).frame(0)


def make_bop(folder: Path) -> Path:
    for image, units in ((3, 7500), (4, 9000)):
        write(folder / "rgb" / f"{image:06d}.png", RGB)
        write(folder / "depth" / f"{image:06d}.png", np.full((48, 64), units, np.uint16))
    camera = {str(image): {"cam_K": [600.0 + image, *K[1:]], "depth_scale": 0.1} for image in (3, 4)}
    (folder / "scene_camera.json").write_text(json.dumps(camera))
    (folder / "scene_gt.json").write_text(
        json.dumps({"3": [{"obj_id": 5}, {"obj_id": 9}], "4": [{"obj_id": 9}]})
    )
    for instance, columns in enumerate((slice(0, 4), slice(8, 18))):
        mask = np.zeros((48, 64), np.uint8)
        mask[:10, columns] = 255
        write(folder / "mask_visib" / f"000003_{instance:06d}.png", mask)
    return folder


def test_bop_scene_uses_each_images_camera_and_scale(tmp_path: Path) -> None:
    source = open_source(make_bop(tmp_path))
    assert [frame.K[0, 0] for frame in source] == [603.0, 604.0]
    assert [frame.depth_m[5, 5] for frame in source] == pytest.approx([0.75, 0.9])


def test_bop_scene_mask_is_that_of_the_object_id(tmp_path: Path) -> None:
    source = open_source(make_bop(tmp_path))
    mask = source.mask(0, 9)
    assert mask is not None and mask.sum() == 100 and mask[5, 10]
    assert source.objects(0) == [5, 9]
    assert source.mask(0, 6) is None and source.mask(1, 9) is None


def test_bop_scene_frames_are_named_by_image_number(tmp_path: Path) -> None:
    source = open_source(make_bop(tmp_path))
    assert frame_index(source, "4") == frame_index(source, "000004") == 1
    with pytest.raises(ConfigError, match="000003"):
        frame_index(source, "0")


def test_frame_index_of_named_frames_counts_from_zero(tmp_path: Path) -> None:
    source = open_source(make_plain(tmp_path))
    assert frame_index(source, "frame_10") == frame_index(source, "1") == 1
    with pytest.raises(ConfigError):
        frame_index(source, "2")


def test_nocs_scene_camera_depth_is_256_green_plus_red(tmp_path: Path) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[..., 0], rgba[..., 1], rgba[..., 3] = 0xEE, 0x02, 255  # red, green: 256 * 2 + 238 = 750 mm
    rgba[0, 0, :2] = 32001 % 256, 32001 // 256
    (tmp_path / "0000_depth.png").write_bytes(
        cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    )
    write(tmp_path / "0000_color.png", RGB)
    frame = open_source(tmp_path).frame(0)
    assert frame.depth_m[5, 5] == pytest.approx(0.75) and frame.depth_m[0, 0] == 0
    assert frame.K[0, 0] == 577.5


def test_nocs_scene_real_depth_and_instances(tmp_path: Path) -> None:
    mask = np.full((48, 64), 255, np.uint8)
    mask[:10, :10] = 2
    for name, picture in (("color", RGB), ("depth", DEPTH_MM), ("mask", mask)):
        write(tmp_path / f"0007_{name}.png", picture)
    source = open_source(tmp_path)
    assert source.objects(0) == [2]
    found = source.mask(0, 2)
    assert found is not None and found.sum() == 100
    assert source.mask(0, 255) is None
    assert source.frame(0).K[0, 0] == 591.0125


def test_open_source_of_something_else_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("")
    with pytest.raises(ConfigError, match=r"holiday\.txt"):
        open_source(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        open_source(tmp_path / "nothing")


@needs_shared
@pytest.mark.parametrize(("folder", "num_frames", "num_skipped"), [("cup129", 129, 0), ("hots118", 86, 32)])
def test_shared_folders_open_and_count(folder: str, num_frames: int, num_skipped: int) -> None:
    source = open_source(SHARED / folder)
    assert len(source) == num_frames
    assert [note.split()[0] for note in source.notes] == ([str(num_skipped)] if num_skipped else [])
    assert 0.2 < np.median(source.frame(0).depth_m[source.frame(0).depth_m > 0]) < 3.0


@needs_shared
@pytest.mark.parametrize("scene", ["real_test/scene_1", "real_train/scene_1", "train/00000", "val/00000"])
def test_shared_nocs_scenes_have_depth_on_every_class_instance(scene: str) -> None:
    source = open_source(SHARED / "nocs_samples" / scene)
    frame = source.frame(0)
    masks = [source.mask(0, number) for number in source.objects(0)]
    assert len(masks) >= 4
    assert np.mean([np.mean(frame.depth_m[mask] > 0) for mask in masks if mask is not None]) > 0.8
