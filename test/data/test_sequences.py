"""Rendered sequences: what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.bags import BagSource
from nocsfm_ros.data.sequences import (
    LABEL_HIDDEN,
    LABEL_VISIBLE,
    START_NS,
    SequenceFrame,
    read_reference,
    read_truths,
    write_sequence,
)
from nocsfm_ros.geometry.transforms import make_T

K = np.array([[150.0, 0, 80.2], [0, 150.0, 59.1], [0, 0, 1]])


def frame(index: int) -> SequenceFrame:
    rng = np.random.default_rng(index)
    rgb = np.full((120, 160, 3), rng.integers(40, 200, 3), np.uint8)
    labels = np.zeros((120, 160), np.uint8)
    labels[30:60, 40 + index : 80], labels[30:60, 80:90] = LABEL_VISIBLE, LABEL_HIDDEN
    T_cam_obj = make_T(Rotation.from_euler("xyz", (10, 20, 30 * index), degrees=True).as_matrix(), rng.normal(size=3))
    return SequenceFrame(rgb, np.full((120, 160), 0.6, np.float32), labels, T_cam_obj, K, START_NS + index * 10**8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequence") / "one"
    write_sequence(folder, frame(7), (frame(index) for index in range(3)))
    return folder


def test_truths_come_back_exactly(folder: Path) -> None:
    truths = read_truths(folder / "sequence")
    assert [truth.stamp_ns for truth in truths] == [START_NS, START_NS + 10**8, START_NS + 2 * 10**8]
    for index, truth in enumerate(truths):
        np.testing.assert_allclose(truth.T_cam_obj, frame(index).T_cam_obj, atol=1e-9)
        np.testing.assert_array_equal(truth.labels, frame(index).labels)


def test_pictures_come_back_as_a_camera_sees_them(folder: Path) -> None:
    source = BagSource(folder / "sequence")
    assert len(source) == 3 and source.rate_hz == pytest.approx(10)
    for index in range(3):
        seen = source.frame(index)
        np.testing.assert_allclose(seen.K, K)
        assert np.abs(np.median(seen.rgb, axis=(0, 1)) - frame(index).rgb[0, 0]).max() <= 4
        valid = seen.depth_m > 0
        assert valid.mean() > 0.8 and abs(np.median(seen.depth_m[valid]) - 0.6) < 0.01


def test_reference_has_only_the_visible_part_and_the_truths_pose(folder: Path) -> None:
    reference, written = read_reference(folder, "thing"), frame(7)
    assert reference.object_id == "thing" and reference.depth_m is not None and reference.T_cam_user is not None
    np.testing.assert_array_equal(reference.mask, written.labels == LABEL_VISIBLE)
    np.testing.assert_allclose(reference.T_cam_user, written.T_cam_obj)
    assert abs(float(np.median(reference.depth_m[reference.mask])) - 0.6) < 0.01


def test_writing_again_replaces_the_sequence(folder: Path) -> None:
    write_sequence(folder, frame(7), [frame(0)])
    assert len(read_truths(folder / "sequence")) == 1
