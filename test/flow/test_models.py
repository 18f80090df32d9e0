"""Autoencoder and velocity network: shapes, ranges, saving, and clear errors for bad weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from nocsfm_ros.checkpoints import load_pretrained, weights_folder
from nocsfm_ros.errors import CheckpointError, ShapeError
from nocsfm_ros.flow.autoencoder import Autoencoder, build_autoencoder
from nocsfm_ros.flow.model import CROP_SIDE, FlowModel
from nocsfm_ros.flow.transformer import VelocityTransformer
from nocsfm_ros.flow.velocity import HINT_CHANNELS, FlowStep, VelocityNetwork, cell_xyz

SMALL = (16, 48, 48)


def test_autoencoder_latent_is_a_quarter_and_decodes_to_full_size() -> None:
    model = build_autoencoder()
    latent = model.encode_picture(torch.rand(2, 3, 64, 64))
    assert latent.shape == (2, 16, 16, 16)
    nocs, logit = model.decode_nocs(latent)
    assert nocs.shape == (2, 3, 64, 64) and logit.shape == (2, 1, 64, 64)


def test_autoencoder_latent_scale_scales_latents_and_survives_saving(tmp_path: Path) -> None:
    model = build_autoencoder()
    rgb = torch.rand(1, 3, 32, 32)
    before = model.encode_picture(rgb)
    model.set_latent_scale(0.5)
    torch.testing.assert_close(model.encode_picture(rgb), before * 0.5)
    model.save_pretrained(tmp_path)
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert loaded.latent_scale == 0.5
    torch.testing.assert_close(loaded.encode_picture(rgb), before * 0.5)


def test_autoencoder_with_wrong_shape_raises_shape_error() -> None:
    with pytest.raises(ShapeError, match="expected"):
        build_autoencoder().encode_picture(torch.rand(1, 4, 32, 32))


def test_rgb_autoencoder_takes_what_is_not_black_as_the_object() -> None:
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, sample_size=32)
    model = Autoencoder(vae)
    assert not model.has_alpha and model.patch == 1
    picture = torch.full((1, 3, 32, 32), -1.0)
    picture[..., 16:] = 0.4
    vae.decode = lambda z: type("Output", (), {"sample": picture})()  # type: ignore[method-assign]
    nocs, logit = model.decode_nocs(torch.zeros(1, 4, 32, 32))
    assert (logit[..., :16] < 0).all() and (logit[..., 16:] > 0).all()
    torch.testing.assert_close(nocs[..., 16:], torch.full((1, 3, 32, 16), 0.2))


def test_velocity_depends_on_reference_live_view_and_time() -> None:
    torch.manual_seed(0)
    model = VelocityNetwork(latent_side=16, widths=SMALL).eval()
    z, tau = torch.randn(1, 16, 16, 16), torch.zeros(1)
    live, reference = torch.rand(1, 8, 64, 64), torch.rand(1, 8, 64, 64)

    def velocity(live: torch.Tensor, reference: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        said: FlowStep = model(z, tau, model.encode_live(live), model.encode_reference(reference))
        return said.velocity

    with torch.no_grad():
        base = velocity(live, reference, tau)
        assert base.shape == z.shape
        for other in (velocity(1 - live, reference, tau), velocity(live, 1 - reference, tau),
                      velocity(live, reference, tau + 0.5)):
            assert float((other - base).abs().max()) > 1e-4


def test_velocity_depends_on_context_and_hints_and_runs_without_them() -> None:
    torch.manual_seed(0)
    model = VelocityNetwork(latent_side=16, widths=SMALL, context_channels=12).eval()
    z, tau, condition = torch.randn(1, 16, 16, 16), torch.zeros(1), torch.rand(1, 8, 64, 64)
    context, hints = torch.rand(1, 12, 8, 8), torch.rand(1, HINT_CHANNELS, 8, 8)
    with torch.no_grad():
        tokens = model.encode_reference(condition, context)
        without = model(z, tau, model.encode_live(condition), tokens).velocity
        zeros = model(z, tau, model.encode_live(condition, context * 0, hints * 0), tokens).velocity
        torch.testing.assert_close(zeros, without)
        for live in (model.encode_live(condition, context), model.encode_live(condition, None, hints)):
            assert float((model(z, tau, live, tokens).velocity - without).abs().max()) > 1e-4


def test_fresh_velocity_network_answers_with_an_affine_map_near_the_identity() -> None:
    torch.manual_seed(0)
    model = VelocityNetwork(latent_side=16, widths=SMALL).eval()
    condition = torch.rand(1, 8, 64, 64)
    with torch.no_grad():
        said = model(torch.randn(1, 16, 16, 16), torch.zeros(1), model.encode_live(condition),
                     model.encode_reference(condition))
    assert said.log_sigma.shape == (1, 1, 16, 16) and said.affine.shape == (1, 3, 4)
    torch.testing.assert_close(said.affine[0], torch.eye(3, 4), atol=0.2, rtol=0)


def test_cell_xyz_is_the_mean_over_the_valid_pixels_only() -> None:
    condition = torch.zeros(1, 8, 8, 8)
    condition[:, 3:6, :4, :2], condition[:, 6, :4, :2] = 0.4, 1  # half of the first cell
    cells = cell_xyz(condition)
    torch.testing.assert_close(cells[0, :, 0, 0], torch.tensor([0.4, 0.4, 0.4, 1.0]))
    assert cells[0, :, 1, 1].abs().max() == 0


def test_flow_of_another_backbone_raises_checkpoint_error() -> None:
    velocity = VelocityNetwork(widths=SMALL, context_channels=12, context_backbone="this")
    velocity.check_backbone("this")
    with pytest.raises(CheckpointError, match="'this'"):
        velocity.check_backbone("that")
    VelocityNetwork(widths=SMALL).check_backbone("any")


def test_velocity_saved_and_loaded_is_the_same_function(tmp_path: Path) -> None:
    model = VelocityNetwork(latent_side=16, widths=SMALL).eval()
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(VelocityNetwork, tmp_path)
    condition = torch.rand(1, 8, 64, 64)
    torch.testing.assert_close(loaded.encode_reference(condition), model.encode_reference(condition))


def test_transformer_begins_at_zero_and_depends_on_latent_and_time_alone() -> None:
    torch.manual_seed(0)
    model = VelocityTransformer(latent_channels=4, latent_side=16, width=24, layers=1, heads=2).eval()
    z, tau, condition = torch.randn(1, 4, 16, 16), torch.zeros(1), torch.rand(1, 8, 128, 128)

    def velocity(z: torch.Tensor, tau: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        said: FlowStep = model(z, tau, model.encode_live(condition), model.encode_reference(condition))
        assert said.affine.shape == (1, 3, 4) and said.log_sigma.shape == (1, 1, 16, 16)
        return said.velocity

    with torch.no_grad():
        assert velocity(z, tau, condition).abs().max() == 0
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        base = velocity(z, tau, condition)
        torch.testing.assert_close(velocity(z, tau, 1 - condition), base)
        assert (velocity(z + 0.5, tau, condition) - base).abs().max() > 1e-3
        assert (velocity(z, tau + 0.5, condition) - base).abs().max() > 1e-3


def test_transformer_of_the_published_size_has_its_parameters() -> None:
    with torch.device("meta"):
        model = VelocityTransformer()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(33e6, rel=0.1)


def test_flow_model_takes_class_and_crop_side_from_the_folder(tmp_path: Path) -> None:
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    Autoencoder(vae).save_pretrained(tmp_path / "autoencoder")
    VelocityTransformer(latent_side=32, width=24, layers=1, heads=2).save_pretrained(tmp_path / "velocity")
    flow = FlowModel.from_folder(tmp_path)
    assert isinstance(flow.velocity, VelocityTransformer) and flow.crop_side == 256
    assert FlowModel(build_autoencoder(), VelocityNetwork(widths=SMALL)).crop_side == CROP_SIDE


def test_load_pretrained_of_a_hub_id_that_is_refused_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="hf auth login"):
        Autoencoder.from_pretrained("somebody/something")


def test_load_pretrained_of_truncated_file_raises_checkpoint_error(tmp_path: Path) -> None:
    VelocityNetwork(latent_side=16, widths=SMALL).save_pretrained(tmp_path)
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_pretrained(VelocityNetwork, tmp_path)


def test_load_pretrained_of_other_architecture_raises_checkpoint_error(tmp_path: Path) -> None:
    VelocityNetwork(latent_side=16, widths=SMALL).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"latent_channels": 16', '"latent_channels": 4'))
    with pytest.raises(CheckpointError):
        load_pretrained(VelocityNetwork, tmp_path)


def test_weights_folder_without_weights_names_the_missing_part(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="autoencoder/config.json"):
        weights_folder(str(tmp_path))
