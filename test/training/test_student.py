"""The own backbone: what its loss wants, what a mosaic is, and the command from end to end on a tiny network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from nocsfm_ros import cli
from nocsfm_ros.config import replace_values
from nocsfm_ros.data.views import CROP_SIZE, ViewDataset
from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.matching.backbone import Backbone, DinoV3, load_backbone
from nocsfm_ros.training.commands import train
from nocsfm_ros.training.config import BACKBONE, DropsConfig, MatchingConfig, TrainConfig, VitConfig
from nocsfm_ros.training.correspondences import back_projected, cell_pixels
from nocsfm_ros.training.match_samples import MatchSamples
from nocsfm_ros.training.monitor import read_log
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.samples import DRAWN
from nocsfm_ros.training.student import Shown, Student, contrast_loss, mosaics, tiles
from nocsfm_ros.training.view_tensors import DiskViews, ViewTensors

TINY = {"network.vit.width": 16, "network.vit.layers": 1, "network.vit.heads": 2, "network.vit.registers": 1}
OPTIONS = MatchingConfig(others=64)


def _config(views_folder: Path, **values: Any) -> TrainConfig:
    few = {"data.train": str(views_folder), "schedule.steps": 2, "schedule.batch": 8, "log.sample_pairs": 6,
           "network.backbone": ""}
    return replace_values(BACKBONE, few | TINY | {key.replace("__", "."): value for key, value in values.items()})


def _coordinate_features(views: ViewTensors, cells: int = 16) -> torch.Tensor:
    """(B, 64, h, w): smooth random functions of the place on the object, as a perfect backbone has them."""
    points = back_projected(views, cell_pixels(CROP_SIZE, cells, torch.device("cpu")))
    R, t = views.T_cam_obj[:, :3, :3].float(), views.T_cam_obj[:, :3, 3].float()
    waves = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)) / 0.02
    features = torch.cos(((points - t[:, None]) @ R) @ waves + torch.arange(64))
    return torch.nn.functional.normalize(features, dim=-1).transpose(1, 2).reshape(len(points), 64, cells, cells)


def _shown(views_folder: Path, rows: list[int], features: torch.Tensor | None = None, **values: Any) -> Shown:
    views = replace(DiskViews(ViewDataset(views_folder), CROP_SIZE, torch.device("cpu")).take(rows), **values)
    features = _coordinate_features(views) if features is None else features
    return Shown(views, torch.tensor([row // 3 for row in rows]), features, torch.zeros(()))


def _contrast(asking: Shown, answering: Shown, **values: Any) -> float:
    return float(contrast_loss(asking, answering, replace(OPTIONS, **values), torch.Generator().manual_seed(0)))


def test_contrast_is_small_for_features_of_the_place_and_that_of_chance_for_equal_ones(views_folder: Path) -> None:
    asking, answering = _shown(views_folder, [1]), _shown(views_folder, [0])
    equal = torch.ones(1, 64, 16, 16) / 8
    assert _contrast(asking, answering) < 0.5
    chance = _contrast(replace(asking, features=equal), replace(answering, features=equal))
    assert np.log(240) < chance < np.log(256)  # all cells but the nine around the place


def test_contrast_tells_objects_apart_but_not_two_views_of_one(views_folder: Path) -> None:
    """Blocks of one shape have the same coordinates: other objects of the batch look alike and cost."""
    with_other = _contrast(_shown(views_folder, [1, 4]), _shown(views_folder, [0, 3]))
    with_itself = _contrast(_shown(views_folder, [1, 1]), _shown(views_folder, [0, 0]))
    assert with_other > with_itself + 0.3
    assert _contrast(_shown(views_folder, [1, 4]), _shown(views_folder, [0, 3]), others=0) == pytest.approx(
        with_itself, abs=0.1
    )


def test_contrast_does_not_tell_a_symmetric_object_from_itself(views_folder: Path) -> None:
    equal, symmetry = torch.ones(1, 64, 16, 16) / 8, torch.zeros(1, dtype=torch.int64)
    rows = {"features": equal, "symmetry": symmetry}
    asking, answering = _shown(views_folder, [0], **rows), _shown(views_folder, [0], **rows)
    on_block = int(answering.views.mask[0, 8::16, 8::16].sum())
    assert _contrast(asking, answering) < np.log(256 - on_block + 1) + 0.01


def test_contrast_without_any_common_point_is_zero_and_has_a_gradient(views_folder: Path) -> None:
    features = torch.rand(1, 64, 16, 16, requires_grad=True)
    asking = _shown(views_folder, [0], features, mask=torch.zeros(1, CROP_SIZE, CROP_SIZE, dtype=torch.bool))
    loss = contrast_loss(asking, _shown(views_folder, [0]), OPTIONS, torch.Generator())
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0 and features.grad is not None


def test_tiles_undo_mosaics() -> None:
    pictures = torch.rand(8, 3, 32, 32)
    assert mosaics(pictures).shape == (2, 3, 32, 32)
    torch.testing.assert_close(tiles(mosaics(pictures)), torch.nn.functional.avg_pool2d(pictures, 2))


def test_student_learns_its_teachers_features() -> None:
    torch.manual_seed(0)
    student = Student(VitConfig(width=32, layers=1, heads=2), 8, 64)
    pictures, teacher = torch.rand(4, 3, 64, 64), torch.randn(4, 4, 4, 8).half()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = student.distillation_loss(student(pictures), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 0.7 and losses[-1] < 0.3
    assert student(pictures, as_mosaic=True).shape == (4, 32, 2, 2)
    assert float(Student(VitConfig(width=32, layers=1, heads=2), 0, 64).distillation_loss(pictures, teacher)) == 0


def test_command_leaves_a_backbone_that_loads_and_logs_to_look_at(views_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text("network: {vit: {width: 16, layers: 1, heads: 2}}\nlog: {sample_pairs: 6}\n")
    command = ["train", "backbone", "--config", str(path), "--data", str(views_folder), "--out", str(tmp_path / "out"),
               "--steps", "2", "--batch", "8"]
    assert cli.main(command) == cli.DONE
    loaded = load_backbone(str(tmp_path / "out" / "backbone"), "cpu")
    assert isinstance(loaded, DinoV3) and loaded.encode(np.zeros((96, 64, 3), np.uint8)).features.shape == (6, 4, 16)
    run = tmp_path / "out" / "backbone_run"
    lines = read_log(run)
    assert [line["step"] for line in lines] == [0, 2] and lines[-1]["samples"] == 16
    assert {"loss", "contrast", "distillation", "sample_error", "sample_correct"} <= lines[-1].keys()
    assert 0 < lines[-1]["distillation"] < 2, "EfficientNet's features were not stored"
    picture = cv2.imread(str(run / "samples" / "step_000002.png"))
    assert picture is not None and picture.shape == (DRAWN * CROP_SIZE, 2 * CROP_SIZE, 3)


def test_training_makes_better_matches_and_resumes(views_folder: Path, tmp_path: Path) -> None:
    config = _config(views_folder, schedule__steps=40, schedule__learning_rate=3e-3, schedule__ema_decay=0.8)
    train("backbone", config, tmp_path, lambda line: None)
    train("backbone", replace_values(config, {"schedule.steps": 42}), tmp_path, lambda line: None)
    first, *_, last = read_log(tmp_path / "backbone_run")
    assert last["step"] == 42
    assert last["sample_correct"] > first["sample_correct"] + 0.1
    with pytest.raises(CheckpointError, match=r"network.vit.layers 2 \(was 1\)"):
        train("backbone", replace_values(config, {"network.vit.layers": 2}), tmp_path, lambda line: None)


@pytest.mark.parametrize(("key", "value"), [("schedule.batch", 12), ("network.crop_side", 240)])
def test_sizes_that_make_no_mosaic_are_refused(views_folder: Path, tmp_path: Path, key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=key):
        train("backbone", replace_values(_config(views_folder), {key: value}), tmp_path, lambda line: None)


class _Perfect(Backbone):
    """Knows the views by their pictures."""

    def __init__(self, views: ViewTensors) -> None:
        super().__init__("cpu")
        self.stride, self.views, self.known = 16, views, _coordinate_features(views)

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        pictures = self.views.rgb.permute(0, 3, 1, 2).float()
        return self.known[(pictures - image).abs().mean(dim=(1, 2, 3)).argmin()][None]


def test_samples_of_a_perfect_backbone_are_right_and_of_a_blind_one_are_not(views_folder: Path) -> None:
    sampler = PairSampler(ViewDataset(views_folder), 0, DropsConfig(other_object=0.0), side=CROP_SIZE)
    perfect = _Perfect(sampler.store.take(list(range(6))))
    measured = MatchSamples(sampler, 8, perfect).measure()
    assert measured["sample_correct"] > 0.9 and measured["sample_error"] < 0.06
    blind = _Perfect(sampler.store.take(list(range(6))))
    blind.known = torch.rand(6, 64, 16, 16)
    assert MatchSamples(sampler, 8, blind).measure()["sample_correct"] < 0.3
