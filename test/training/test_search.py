"""Training of the search head: what a mosaic is, what its loss wants, and the command from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nocsfm_ros import cli
from nocsfm_ros.config import replace_values
from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.errors import CheckpointError
from nocsfm_ros.matching.backbone import Backbone
from nocsfm_ros.matching.search_head import SearchHead, load_search_backbone
from nocsfm_ros.training.commands import train
from nocsfm_ros.training.config import SEARCH
from nocsfm_ros.training.monitor import read_log
from nocsfm_ros.training.search import FRAME_WH, Mosaic, MosaicSampler, search_loss


class Colours(Backbone):
    """Each 16 x 16 cell's mean colour."""

    stride = 16

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 16) + 1


def identity_head() -> SearchHead:
    head = SearchHead("", 3, hidden_width=1, width=3)
    torch.nn.init.eye_(head.linear.weight)
    torch.nn.init.zeros_(head.from_hidden.bias)
    return head


def four_cells(reference: list[float], share: list[float]) -> Mosaic:
    """A mosaic of one view whose cells are red, green, blue and grey."""
    cells = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0]]), dim=1)
    return Mosaic(
        np.zeros((32, 32, 3), np.uint8), cells, torch.tensor([share]), torch.tensor([[reference, [0.0, 1.0, 0]]]),
        torch.tensor([[True, False]]), torch.tensor([0]),
    )


def test_loss_is_small_where_the_reference_looks_like_its_cells_alone() -> None:
    right, found = search_loss(identity_head(), four_cells([1.0, 0, 0], [1.0, 0, 0, 0]))
    wrong, not_found = search_loss(identity_head(), four_cells([1.0, 0, 0], [0, 0, 1.0, 0]))
    assert right.item() < 0.01 < 5 < wrong.item()
    assert found.tolist() == [1] and not_found.tolist() == [0]


def test_cells_that_are_object_in_part_do_not_count() -> None:
    alike = [0.577350, 0.577350, 0.577350]  # grey
    whole, _ = search_loss(identity_head(), four_cells(alike, [1.0, 0, 0, 0]))
    in_part, _ = search_loss(identity_head(), four_cells(alike, [1.0, 0, 0, 0.3]))
    assert in_part.item() < whole.item() - 3


def test_other_views_of_the_same_mesh_do_not_count_but_those_of_others_do() -> None:
    one = four_cells([1.0, 0, 0], [1.0, 0, 0, 0])
    cells = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0], [0, 0, 1.0]])
    two = replace(
        one, cells=cells, share=torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]),
        references=one.references.repeat(2, 1, 1), is_object=one.is_object.repeat(2, 1),
    )
    same, _ = search_loss(identity_head(), replace(two, mesh=torch.tensor([3, 3])))
    other, _ = search_loss(identity_head(), replace(two, mesh=torch.tensor([3, 4])))
    assert same.item() < 0.01 and other.item() == pytest.approx(np.log(2), abs=0.01)


def test_mosaic_shows_each_object_where_its_share_says(views_folder: Path) -> None:
    views = ViewDataset(views_folder)
    sampler = MosaicSampler(views, Colours("cpu"), seed=0, augment=False)
    sizes = set()
    for _ in range(8):
        mosaic = sampler.draw()
        assert mosaic.rgb.shape == (FRAME_WH[1], FRAME_WH[0], 3)
        assert mosaic.share.shape == (len(mosaic.mesh), 30 * 40) and mosaic.is_object.any(dim=1).all()
        assert float(mosaic.share.sum(dim=0).max()) <= 1
        on_objects = mosaic.share.sum(dim=0).reshape(30, 40).repeat_interleave(16, 0).repeat_interleave(16, 1) == 1
        assert (mosaic.rgb[on_objects.numpy()] != 60).mean() > 0.9, "60 is the wall behind the blocks"
        sizes |= {round(float(cells)) for cells in mosaic.share.sum(dim=1)}
    assert max(sizes) > 10 * min(sizes)


def test_draws_are_those_of_the_step_and_augmented_on_demand(views_folder: Path) -> None:
    sampler = MosaicSampler(ViewDataset(views_folder), Colours("cpu"), seed=3)
    first, second = sampler.draw(), sampler.draw()
    sampler.restart(0)
    assert np.array_equal(sampler.draw().rgb, first.rgb) and not np.array_equal(first.rgb, second.rgb)
    sampler.restart(7)
    assert not np.array_equal(sampler.draw().rgb, first.rgb)
    plain = MosaicSampler(ViewDataset(views_folder), Colours("cpu"), seed=3, augment=False).draw()
    assert not np.array_equal(plain.rgb, first.rgb)


def test_command_leaves_a_head_that_loads_and_logs_to_look_at(views_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text("network: {search: {hidden_width: 16, width: 8}}\nlog: {sample_pairs: 6}\n")
    out = tmp_path / "out"
    command = ["train", "search", "--config", str(path), "--data", str(views_folder), "--out", str(out), "--steps", "2"]
    assert cli.main(command) == cli.DONE
    backbone = load_search_backbone("efficientnet_lite0", Colours("cpu"), out, "cpu")
    assert backbone.head.config["width"] == 8  # type: ignore[attr-defined]
    first, last = read_log(out / "search_run")
    assert first["step"] == 0 and last["step"] == 2
    assert {"loss", "found", "sample_loss", "sample_found"} <= last.keys()
    picture = cv2.imread(str(out / "search_run" / "samples" / "step_000002.png"))
    assert picture is not None and picture.shape == (FRAME_WH[1], FRAME_WH[0], 3)
    assert cli.main(command) == cli.USER_ERROR, "a second training into the folder needs --resume"


def test_training_learns_and_resumes(views_folder: Path, tmp_path: Path) -> None:
    values = {"data.train": str(views_folder), "schedule.steps": 20, "log.sample_pairs": 6, "log.save_every_s": 0.1,
              "schedule.learning_rate": 3e-3, "network.search.hidden_width": 16, "network.search.width": 8}
    config = replace_values(SEARCH, values)
    train("search", config, tmp_path, lambda line: None)
    losses = [line["loss"] for line in read_log(tmp_path / "search_run") if "loss" in line]
    assert np.mean(losses[-4:]) < np.mean(losses[:2]) - 0.4
    train("search", replace_values(config, {"schedule.steps": 22}), tmp_path, lambda line: None)
    assert read_log(tmp_path / "search_run")[-1]["step"] == 22
    with pytest.raises(CheckpointError, match=r"network.search.width 9 \(was 8\)"):
        train("search", replace_values(config, {"network.search.width": 9}), tmp_path, lambda line: None)
