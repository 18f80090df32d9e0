"""`nocsfm train` from end to end on a tiny folder: the default form, the published form, resume, refusals."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from diffusers import AutoencoderKL
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from nocsfm_ros import cli
from nocsfm_ros.config import load_config, replace_values
from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.flow.autoencoder import Autoencoder
from nocsfm_ros.flow.model import FlowModel
from nocsfm_ros.flow.transformer import VelocityTransformer
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.matching.backbone import DinoV3, load_backbone
from nocsfm_ros.training import commands
from nocsfm_ros.training.commands import train, train_all
from nocsfm_ros.training.comparison import train_comparison
from nocsfm_ros.training.config import TrainAllConfig, TrainConfig, save_config
from nocsfm_ros.training.monitor import read_log
from nocsfm_ros.types import ObjectCrop

SMALL_UNET = {"network.unet.fine": 8, "network.unet.middle": 48, "network.unet.coarse": 48, "network.backbone": ""}
SMALL_TRANSFORMER = {
    "network.kind": "transformer", "network.transformer.width": 16, "network.transformer.layers": 1,
    "network.transformer.heads": 2, "drops.other_object": 0.0,
}
PLAIN_LATENT = {
    "losses.tau_zero_share": 0.0, "losses.latent": 1.0, "losses.foreground": 0.0, "losses.nocs": 0.0,
    "losses.mask": 0.0, "losses.affine": 0.0, "losses.sigma": 0.0,
}


def _config(views_folder: Path, **values: Any) -> TrainConfig:
    few = {"data.train": str(views_folder), "schedule.steps": 2, "schedule.batch": 2, "log.sample_pairs": 6}
    return replace_values(TrainConfig(), few | {key.replace("__", "."): value for key, value in values.items()})


def _tiny_vae(folder: Path) -> Path:
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder)
    return folder


def _tiny_dino(folder: Path) -> Path:
    config = DINOv3ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_register_tokens=4
    )
    DINOv3ViTModel(config).save_pretrained(folder)
    return folder


def _crop(side: int) -> ObjectCrop:
    K = np.array([[300.0, 0, side / 2], [0, 300.0, side / 2], [0, 0, 1]])
    return ObjectCrop(
        rgb=np.full((side, side, 3), 90, np.uint8), depth_m=np.full((side, side), 0.5, np.float32),
        A_crop_image=np.eye(3), K_crop=K,
    )


def test_train_all_in_memory_leaves_weights_that_load_and_logs_to_look_at(views_folder: Path, tmp_path: Path) -> None:
    one = _config(views_folder, data__in_memory=True, **SMALL_UNET)
    lines: list[str] = []
    train_all(TrainAllConfig(hours=0.5, autoencoder=one, flow=one), tmp_path, lines.append)
    flow = FlowModel.from_folder(tmp_path)
    assert isinstance(flow.velocity, VelocityNetwork) and flow.crop_side == 128
    for part in ("autoencoder_run", "flow_run"):
        run = tmp_path / part
        assert [line["step"] for line in read_log(run)] == [0, 2]
        assert {"loss", "sample_error", "sample_iou"} <= read_log(run)[-1].keys()
        grid = cv2.imread(str(run / "samples" / "step_000000.png"))
        assert grid is not None and grid.shape == (6 * 128, 5 * 128, 3)
        assert (run / "curves.png").is_file() and list((run / "tensorboard").glob("events*"))
        assert yaml.safe_load((run / "config.yaml").read_text())["schedule"]["steps"] == 2
    assert "min left" in lines[-2]


def test_train_all_again_goes_on_towards_the_flows_first_budget(
    views_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = _config(views_folder, network__backbone="")
    (tmp_path / "autoencoder").mkdir()
    given: list[tuple[str, float]] = []
    monkeypatch.setattr(commands, "train", lambda part, config, *_: given.append((part, config.schedule.hours)))
    config = TrainAllConfig(hours=0.5, autoencoder=flow, flow=flow)
    train_all(config, tmp_path, lambda line: None)
    (tmp_path / "flow_run").mkdir()
    save_config(tmp_path / "flow_run" / "config.yaml", replace_values(flow, {"schedule.hours": 0.25}))
    train_all(config, tmp_path, lambda line: None)
    (tmp_path / "flow_run" / "state.pt").write_bytes(b"")
    train_all(config, tmp_path, lambda line: None)
    assert given == [("flow", pytest.approx(0.5, abs=0.01))] * 2 + [("flow", 0.25)]


def test_train_all_without_views_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "autoencoder").mkdir()
    with pytest.raises(ConfigError, match=r"no data\.train"):
        train_all(TrainAllConfig(), tmp_path, lambda line: None)


def test_weights_are_there_whole_or_not_at_all(
    views_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Autoencoder, folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    save = Autoencoder.save_pretrained
    monkeypatch.setattr(Autoencoder, "save_pretrained", killed)
    config = _config(views_folder, **SMALL_UNET)
    with pytest.raises(KeyboardInterrupt):
        train("autoencoder", config, tmp_path, lambda line: None)
    assert not (tmp_path / "autoencoder").exists()
    monkeypatch.setattr(Autoencoder, "save_pretrained", save)
    train("autoencoder", config, tmp_path, lambda line: None)
    Autoencoder.from_pretrained(tmp_path / "autoencoder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder", "autoencoder_run"]


def test_published_form_with_folders_of_its_classes_trains_loads_and_predicts(
    views_folder: Path, tmp_path: Path
) -> None:
    names = {"network.autoencoder": str(_tiny_vae(tmp_path / "vae")),
             "network.backbone": str(_tiny_dino(tmp_path / "dino"))}
    config = _config(
        views_folder, data__frame="category", network__crop_side=256, **SMALL_TRANSFORMER, **PLAIN_LATENT, **names
    )
    train("flow", config, tmp_path / "out", lambda line: None)
    settings = load_config(tmp_path / "out" / "tracker.yaml")
    assert isinstance(load_backbone(settings.model.backbone, "cpu"), DinoV3)
    flow = FlowModel.from_folder(Path(settings.model.weights))
    assert isinstance(flow.velocity, VelocityTransformer) and flow.crop_side == 256
    crop = _crop(flow.crop_side)
    view = flow.encode_view(crop, np.ones((256, 256), bool), None, None)
    answer = flow.predict(crop, view, None, None)
    assert answer.nocs.shape == (256, 256, 3) and np.isfinite(answer.sigma).all()
    last = read_log(tmp_path / "out" / "flow_run")[-1]
    assert last["loss"] == last["latent"] and "nocs" not in last


def test_resume_goes_on_and_refuses_another_network(views_folder: Path, tmp_path: Path) -> None:
    config = _config(views_folder, network__autoencoder="embedded", **SMALL_TRANSFORMER, network__backbone="")
    lines: list[str] = []
    train("flow", config, tmp_path, lines.append)
    longer = replace_values(config, {"schedule.steps": 4, "losses.mask": 1.0})
    train("flow", longer, tmp_path, lines.append)
    assert "resumed with another losses.mask 1.0 (was 3.0)" in lines
    assert [line["step"] for line in read_log(tmp_path / "flow_run")] == [0, 2, 4]
    with pytest.raises(CheckpointError, match=r"network.transformer.width 32 \(was 16\)"):
        train("flow", replace_values(longer, {"network.transformer.width": 32}), tmp_path, lines.append)


def test_second_training_into_the_same_folder_is_refused(tmp_path: Path, views_folder: Path) -> None:
    (tmp_path / "flow_run").mkdir()
    with (tmp_path / "flow_run" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another training"):
            train("flow", _config(views_folder), tmp_path, lambda line: None)


def test_comparison_trains_both_and_draws_them(views_folder: Path, tmp_path: Path) -> None:
    config = _config(
        views_folder, network__autoencoder="embedded", **SMALL_TRANSFORMER, **PLAIN_LATENT, network__backbone=""
    )
    figure = train_comparison(config, tmp_path, lambda line: None)
    assert cv2.imread(str(figure)) is not None
    kept = [
        yaml.safe_load((tmp_path / name / "flow_run" / "config.yaml").read_text())["data"]["background"]
        for name in ("with_background", "without_background")
    ]
    assert kept == [True, False]


def test_hub_that_refuses_says_what_to_do(
    views_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    paper = Path(__file__).resolve().parents[2] / "config" / "paper.yaml"
    command = ["train", "flow", "--config", str(paper), "--data", str(views_folder), "--out", str(tmp_path)]
    assert cli.main(command) == cli.USER_ERROR
    message = capsys.readouterr().err
    assert "stabilityai/sd-vae-ft-mse" in message and "hf auth login" in message and "licence" in message


@pytest.mark.parametrize(("model", "run"), [("flow", "flow_run"), ("all", "autoencoder_run"),
                                            ("compare", "with_background/flow_run")])
def test_state_without_resume_is_refused(
    views_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, run: str
) -> None:
    (tmp_path / run).mkdir(parents=True)
    (tmp_path / run / "state.pt").write_bytes(b"")
    assert cli.main(["train", model, "--data", str(views_folder), "--out", str(tmp_path)]) == cli.USER_ERROR
    assert "--resume" in capsys.readouterr().err


def test_flow_before_its_autoencoder_is_refused_whatever_state_that_has(
    views_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "autoencoder_run").mkdir()
    (tmp_path / "autoencoder_run" / "state.pt").write_bytes(b"")
    command = ["train", "flow", "--data", str(views_folder), "--out", str(tmp_path), "--steps", "2"]
    assert cli.main(command) == cli.USER_ERROR
    message = capsys.readouterr().err
    assert f"train autoencoder --out {tmp_path}" in message and "embedded" in message and "--resume" not in message


def test_unet_on_a_latent_of_other_cells_is_refused(views_folder: Path, tmp_path: Path) -> None:
    config = _config(views_folder, network__autoencoder=str(_tiny_vae(tmp_path / "vae")), **SMALL_UNET)
    with pytest.raises(Exception, match="unet with latent cells of 8 pixels"):
        train("flow", config, tmp_path, lambda line: None)


def test_log_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]
