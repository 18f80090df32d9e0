"""Comparing backbones: who sees the place matches it, who sees colours finds them, and what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hots_scenes import hots_folder
from torch.nn.functional import avg_pool2d

from nocsfm_ros import cli
from nocsfm_ros.data.search_frames import SearchPair
from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.evaluation import backbones_command
from nocsfm_ros.evaluation.backbones import (
    backbone_table,
    encode_times,
    evaluate_backbones,
    hots_pairs,
    is_centre_on,
    match_figures,
    search_figures,
)
from nocsfm_ros.matching.backbone import Backbone, load_backbone
from nocsfm_ros.matching.localiser import Candidate
from nocsfm_ros.types import BoolArray

RED, GREY, GREEN = (220, 30, 30), (90, 90, 90), (40, 200, 40)


class Colours(Backbone):
    """Mean colour of each cell against grey; all cells look the same where `is_blind`."""

    stride = 16

    def __init__(self, is_blind: bool = False) -> None:
        super().__init__("cpu")
        self.is_blind = is_blind

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        means = avg_pool2d(image, 16) - 90.0
        return torch.cat([0 * means if self.is_blind else means, torch.ones_like(means[:, :1])], dim=1)


def _square(left: int, top: int, side: int) -> BoolArray:
    mask = np.zeros((480, 640), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def _search_pair(found_at: BoolArray) -> SearchPair:
    """A red square among green ones, in another place than in the reference."""
    reference_mask, red, green = _square(100, 100, 96), _square(416, 240, 96), _square(64, 320, 128)
    picture = np.full((480, 640, 3), GREY, np.uint8)
    reference, frame = picture.copy(), picture
    reference[reference_mask], frame[red], frame[green] = RED, RED, GREEN
    return SearchPair(reference, reference_mask, frame, found_at)


def test_candidates_on_the_object_count_and_elsewhere_do_not() -> None:
    there, elsewhere = _search_pair(_square(416, 240, 96)), _search_pair(_square(0, 0, 8))
    figures = search_figures({"colours": Colours()}, [there, there, there, elsewhere])["colours"]
    assert (figures["n"], figures["first"], figures["any_of_four"]) == (4, 75.0, 75.0)
    low, high = figures["first_interval"]
    assert low < 75 < high


def test_frames_without_any_pair_have_no_figures() -> None:
    assert search_figures({"colours": Colours()}, []) == {}


def test_centre_beyond_the_picture_is_judged_at_its_border() -> None:
    mask = np.zeros((4, 6), bool)
    mask[3, 5] = True
    box = (0.0, 0.0, 1.0, 1.0)
    assert is_centre_on(Candidate(box, 1.0, (7.2, 3.4)), mask)
    assert not is_centre_on(Candidate(box, 1.0, (4.4, 3.0)), mask)


def test_backbone_that_sees_prints_matches_them_and_a_blind_one_does_not(views_folder: Path) -> None:
    """The blocks are turned by 0, 20 and 45 degrees: pairs differ by 20, 25 and 45."""
    both = {"lite": load_backbone("efficientnet_lite0", "cpu"), "blind": Colours(is_blind=True)}
    figures = match_figures(both, ViewDataset(views_folder), 12)
    assert figures["lite"].keys() == {"15-30", "30-60"}
    assert sum(of_bin["n"] for of_bin in figures["lite"].values()) == 12
    assert figures["lite"]["15-30"]["correct"] > 60 > 30 > figures["blind"]["15-30"]["correct"]
    assert figures["lite"]["15-30"]["correct_matches_p50"] > 8


def test_every_backbone_gets_the_same_pictures_from_one_pass(views_folder: Path, tmp_path: Path) -> None:
    passes: list[int] = []

    def once() -> Iterator[SearchPair]:
        passes.append(1)
        yield _search_pair(_square(416, 240, 96))

    both = {"one": Colours(), "two": Colours()}
    metrics = evaluate_backbones(
        both, ViewDataset(views_folder), 4, {"rendered": once()}, tmp_path, {"command": "c"}, lambda line: None
    )
    assert passes == [1] and metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rows"]["one"]["matches"] == metrics["rows"]["two"]["matches"]
    assert metrics["rows"]["two"]["found"]["rendered"]["first"] == 100.0
    assert metrics["rows"]["one"]["frame"]["ms"] > 0 and metrics["command"] == "c"


def test_times_are_of_the_given_size() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(Colours):
        def dense_features(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(image.shape))
            return super().dense_features(image)

    assert encode_times(Watching(), (64, 32))["ms"] > 0
    assert set(seen) == {(1, 3, 32, 64)}


def test_hots_pairs_are_the_questions_whose_object_is_there(tmp_path: Path) -> None:
    pairs = list(hots_pairs(hots_folder(tmp_path / "hots118"), 9))
    assert len(pairs) == 6
    assert all(pair.mask.sum() == pair.reference_mask.sum() == 900 for pair in pairs)


def test_table_has_a_line_per_backbone_and_a_dash_for_what_was_not_measured() -> None:
    match = {"30-60": {"n": 3, "correct": 61.2, "correct_interval": [50.0, 70.4], "correct_matches_p50": 9.0}}
    found = {"rendered": {"n": 2, "first": 50.0, "first_interval": [0.0, 100.0], "any_of_four": 100.0,
                          "any_of_four_interval": [100.0, 100.0]}}
    times = {"ms": 12.4, "processor_ms": 20.0}
    rows = {"a": {"matches": match, "found": found, "crop": times, "frame": times},
            "b": {"matches": match, "found": {}, "crop": times, "frame": times}}
    text = backbone_table({"rows": rows, "left_out": ["hots118: none"]})
    assert "| a | - | - | 61 % (50-70) | - | 50 % (0-100) | 100 % (100-100) | 12 | 12 |" in text
    assert "| b | - | - | 61 % (50-70) | - | - | - | 12 | 12 |" in text
    assert "Left out: hots118: none." in text


def test_command_measures_the_named_backbones(
    views_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def rendered(cache: Path, count: int) -> list[SearchPair]:
        asked.append(count)
        return [_search_pair(_square(416, 240, 96))]

    monkeypatch.setattr(backbones_command, "rendered_pairs", rendered)
    hots_folder(tmp_path / "real" / "hots118")
    command = ["evaluate-backbone", "--backbone", "efficientnet_lite0", "--data", str(views_folder), "--pairs", "4",
               "--frames", "3", "--real", str(tmp_path / "real"), "--questions", "3", "--out", str(tmp_path / "out")]
    assert cli.main(command) == cli.DONE and asked == [3]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    row = metrics["rows"]["efficientnet_lite0"]
    assert row["found"]["rendered"]["n"] == 1 and row["found"]["hots118"]["n"] == 2
    assert metrics["rows"].keys() == {"efficientnet_lite0", "efficientnet_lite0 + search head"}
    assert "--pairs 4 --frames 3" in metrics["command"] and "threads" in metrics["machine"]
    assert (tmp_path / "out" / "table.md").read_text() in capsys.readouterr().out


def test_command_with_a_folder_that_holds_no_backbone_says_so(
    views_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate-backbone", "--backbone", str(tmp_path), "--data", str(views_folder), "--out", str(tmp_path)]
    assert cli.main(command) == cli.USER_ERROR
    assert "no config.json" in capsys.readouterr().err
