"""What `nocsfm train` runs."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from nocsfm_ros.checkpoints import folder_or_hub_id, weights_folder
from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.device import choose_device
from nocsfm_ros.errors import CheckpointError, ConfigError
from nocsfm_ros.flow.autoencoder import Autoencoder, build_autoencoder
from nocsfm_ros.flow.model import Velocity, load_velocity
from nocsfm_ros.flow.transformer import VelocityTransformer
from nocsfm_ros.flow.velocity import PATCH, VelocityNetwork
from nocsfm_ros.matching.backbone import load_backbone
from nocsfm_ros.matching.search_head import FOLDER, SearchHead
from nocsfm_ros.training.autoencoder import reconstruct, start_from_patches, train_autoencoder
from nocsfm_ros.training.config import (
    PAGE,
    TrainAllConfig,
    TrainConfig,
    changed_values,
    check_train_config,
    load_train_config,
    save_config,
)
from nocsfm_ros.training.features import store_features
from nocsfm_ros.training.flow import one_step, train_flow
from nocsfm_ros.training.loop import TrainingRun
from nocsfm_ros.training.match_samples import MatchSamples
from nocsfm_ros.training.monitor import Monitor, Watched
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.samples import Samples
from nocsfm_ros.training.search import FRAME_WH, TILE, MosaicSampler, SearchSamples, train_search
from nocsfm_ros.training.student import TILES, Student, train_backbone
from nocsfm_ros.training.view_tensors import FEATURES

Report = Callable[[str], None]
EMBEDDED_NAME = "embedded"
PARTS = ("autoencoder", "flow", "backbone", "search")


def train(part: str, config: TrainConfig, out: Path, report: Report, start: Path | None = None) -> None:
    """Train one of PARTS; goes on from the state that `out` holds.

    ``out/autoencoder`` and ``out/velocity`` are the folders that model.weights takes, ``out/tracker.yaml`` the
    settings of `nocsfm track --config` that load them, ``out/backbone`` the folder that model.backbone takes, and
    ``out/search`` belongs to the former.

    Args:
        part: one of PARTS.
        config: the experiment.
        out: weights, log and state.
        report: gets lines for people.
        start: a weights folder to begin from instead of fresh weights; backbone and search take none.

    Raises:
        ConfigError: unknown part, or settings that cannot be.
        CheckpointError: flow before its autoencoder, a state that does not fit, weights that cannot be loaded, or
            start weights of another backbone.
    """
    if part not in PARTS:
        raise ConfigError("nocsfm train", got=part, expected=" or ".join(PARTS))
    check_train_config(config)
    torch.set_num_threads(config.machine.threads)
    torch.manual_seed(config.schedule.seed)
    device = choose_device(config.machine.device, "machine.device")
    with _only_writer(out / f"{part}_run"):
        _keep_config(out / f"{part}_run", config, report)
        if part in ("autoencoder", "flow"):
            trainings = {"autoencoder": _train_autoencoder, "flow": _train_flow}
            trainings[part](config, out, report, start, device)
        else:
            {"backbone": _train_backbone, "search": _train_search}[part](config, out, report, device)


def train_all(config: TrainAllConfig, out: Path, report: Report) -> None:
    """Train the autoencoder, then the flow with what is left of the clock; goes on from the state that `out` holds.

    A flow that had begun goes on to the end of what it was given first.
    """
    began = time.monotonic()
    check_train_config(_for_hours(config.flow, config.hours))
    if not (out / "autoencoder").is_dir():
        train("autoencoder", config.autoencoder, out, report)
    prepare_features(config.flow, report)
    hours = _hours_of_state(out / "flow_run") or config.hours - (time.monotonic() - began) / 3600
    if hours <= 0:
        raise ConfigError(
            "hours", got=f"{config.hours:g}, all spent before the flow", expected="time for the flow",
            mend="give more --hours; --resume goes on with the flow",
        )
    train("flow", _for_hours(config.flow, hours), out, report)
    report(f"{(time.monotonic() - began) / 60:.1f} min in all")


def prepare_features(config: TrainConfig, report: Report) -> int:
    """Store the backbone's features beside the views that will need them; returns their channels, 0 for none.

    Raises CheckpointError where the backbone cannot be loaded, also for a network that does not look at it: the
    tracker will need it.
    """
    if not config.network.backbone:
        return 0
    device = choose_device(config.machine.device, "machine.device")
    backbone = load_backbone(config.network.backbone, device)
    if config.network.kind == "transformer":
        return 0
    folders = [Path(folder) for folder in (config.data.train, config.data.validation) if folder]
    return max(store_features(folder, config.network.backbone, backbone, report) for folder in folders)


def _train_autoencoder(config: TrainConfig, out: Path, report: Report, start: Path | None, device: str) -> None:
    sampler = _sampler(config, config.data.train, (), device)
    model = (build_autoencoder() if start is None else Autoencoder.from_pretrained(start / "autoencoder")).to(device)
    if start is None:
        start_from_patches(model, sampler.batches(config.schedule.batch))
    samples = Samples(_watched_sampler(config, (), device), config.log.sample_pairs, partial(reconstruct, model))
    run, monitor = _begin(model, config, out / "autoencoder_run", samples, report)
    train_autoencoder(sampler, model, run, monitor)
    monitor.close()
    _save_whole(model.save_pretrained, out / "autoencoder")


def _train_flow(config: TrainConfig, out: Path, report: Report, start: Path | None, device: str) -> None:
    autoencoder = _frozen_autoencoder(config, out, start).to(device)
    channels = prepare_features(config, report)
    extra = (FEATURES,) if channels else ()
    velocity = build_velocity(config, autoencoder, channels) if start is None else load_velocity(start / "velocity")
    velocity.check_backbone(config.network.backbone)
    if (objective := velocity.config.get("objective", "flow")) != config.network.objective:
        raise CheckpointError(f"objective of {start}", got=objective, expected=config.network.objective,
                              mend="set network.objective to it, or train from fresh weights")
    # not its own `to`: diffusers warns there of an empty list of modules
    torch.nn.Module.to(velocity, device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    predict = partial(one_step, velocity, autoencoder)
    samples = Samples(_watched_sampler(config, extra, device), config.log.sample_pairs, predict)
    run, monitor = _begin(velocity, config, out / "flow_run", samples, report)
    train_flow(_sampler(config, config.data.train, extra, device), autoencoder, velocity, run, monitor, config.losses)
    monitor.close()
    _save_whole(velocity.save_pretrained, out / "velocity")
    settings = {"model": {"weights": str(out.resolve()), "backbone": config.network.backbone}}
    (out / "tracker.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _train_backbone(config: TrainConfig, out: Path, report: Report, device: str) -> None:
    if config.network.crop_side % (TILES * config.network.vit.patch) or config.schedule.batch % (2 * TILES**2):
        raise ConfigError(
            "training", got=f"network.crop_side={config.network.crop_side}, schedule.batch={config.schedule.batch}",
            expected=f"multiples of {TILES} x network.vit.patch and of {2 * TILES**2}", mend=f"see {PAGE}",
        )
    channels = prepare_features(config, report)
    extra = (FEATURES,) if channels else ()
    student = Student(config.network.vit, channels, config.network.crop_side, device)
    samples = MatchSamples(_watched_sampler(config, extra, device), config.log.sample_pairs, student.backbone)
    run, monitor = _begin(student, config, out / "backbone_run", samples, report)
    same_object = dataclasses.replace(config, drops=dataclasses.replace(config.drops, other_object=0.0))
    train_backbone(_sampler(same_object, config.data.train, extra, device), student, run, monitor, config.matching)
    monitor.close()
    _save_whole(student.vit.save_pretrained, out / "backbone")


def _train_search(config: TrainConfig, out: Path, report: Report, device: str) -> None:
    name, size = config.network.backbone, config.network.search
    backbone = load_backbone(name, device)
    if FRAME_WH[0] % backbone.stride or TILE % (2 * backbone.stride):
        raise ConfigError("network.backbone", got=f"{name!r} with cells of {backbone.stride} pixels",
                          expected=f"cells that divide {TILE // 2} pixels")
    channels = backbone.encode(np.zeros((TILE, TILE, 3), np.uint8)).features.shape[-1]
    head = SearchHead(name, channels, size.hidden_width, size.width).to(device)  # type: ignore[call-overload]
    watched = MosaicSampler(ViewDataset(Path(config.data.validation or config.data.train)), backbone, 0, augment=False)
    samples = SearchSamples(watched, config.log.sample_pairs, head)
    run, monitor = _begin(head, config, out / "search_run", samples, report)
    train_search(
        MosaicSampler(ViewDataset(Path(config.data.train)), backbone, config.schedule.seed), head, run, monitor
    )
    monitor.close()
    _save_whole(head.save_pretrained, out / FOLDER)


def build_velocity(config: TrainConfig, autoencoder: Autoencoder, context_channels: int) -> Velocity:
    """The network that the settings describe, with fresh weights. Raises ConfigError where the sides do not fit."""
    network, side = config.network, config.network.crop_side // autoencoder.cell_pixels
    whole = 4 if network.kind == "unet" else network.transformer.patch
    if network.crop_side % autoencoder.cell_pixels or side % whole:
        raise ConfigError(
            "network.crop_side", got=network.crop_side, expected=f"a multiple of {whole * autoencoder.cell_pixels}",
        )
    if network.kind == "transformer":
        size = network.transformer
        return VelocityTransformer(
            autoencoder.latent_channels, side, size.patch, size.width, size.layers, size.heads
        )
    if autoencoder.cell_pixels != PATCH:
        raise ConfigError(
            "network.kind", got=f"unet with latent cells of {autoencoder.cell_pixels} pixels", expected=f"of {PATCH}",
            mend="take the transformer, or the autoencoder of `nocsfm train autoencoder`",
        )
    return VelocityNetwork(
        autoencoder.latent_channels, side, dataclasses.astuple(network.unet), context_channels, network.backbone,
        network.objective, network.affine,
    )


def _frozen_autoencoder(config: TrainConfig, out: Path, start: Path | None) -> Autoencoder:
    """The autoencoder that the settings name, copied into `out` so that its weights are whole."""
    name = config.network.autoencoder
    own = out / "autoencoder"
    source: Path | str = own
    if start is not None:
        source = start / "autoencoder"
    elif name == EMBEDDED_NAME:
        source = weights_folder("") / "autoencoder"
    elif name:
        source = folder_or_hub_id(name)
    elif not own.is_dir():
        raise ConfigError(
            f"--out {out}", got="no autoencoder/ in it", expected="the one that the flow is to work in",
            mend=f"`nocsfm train autoencoder --out {out}` first, or set network.autoencoder: {EMBEDDED_NAME}",
        )
    autoencoder = Autoencoder.from_pretrained(source)
    if source != own:
        _save_whole(autoencoder.save_pretrained, own)
    return autoencoder


def _sampler(config: TrainConfig, folder: str, extra: tuple[str, ...], device: str) -> PairSampler:
    return PairSampler(
        ViewDataset(Path(folder), extra), config.schedule.seed, config.drops, config.data, config.network.crop_side,
        device,
    )


def _watched_sampler(config: TrainConfig, extra: tuple[str, ...], device: str) -> PairSampler:
    """Of few pairs, read from the disk again each time: they need no place on the device."""
    watched = dataclasses.replace(
        config, drops=dataclasses.replace(config.drops, other_object=0.0),
        data=dataclasses.replace(config.data, in_memory=False), schedule=dataclasses.replace(config.schedule, seed=0),
    )
    return _sampler(watched, config.data.validation or config.data.train, extra, device)


def _begin(
    model: torch.nn.Module, config: TrainConfig, folder: Path, samples: Watched, report: Report
) -> tuple[TrainingRun, Monitor]:
    """The run, resumed where it left off, and what watches it."""
    run = TrainingRun(model, folder, config.schedule)
    if run.resume():
        report(f"resumed at step {run.step}, {run.samples} samples, {run.spent_s / 3600:.3f} h")
    return run, Monitor(folder, config.log, samples, report, run.step)


def _save_whole(save: Callable[[Path], None], folder: Path) -> None:
    """Call `save` so that `folder` is there whole or not at all; replaces an older one."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _for_hours(config: TrainConfig, hours: float) -> TrainConfig:
    return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, hours=hours))


def _hours_of_state(folder: Path) -> float:
    """The budget of a run that left a state, else 0."""
    path = folder / "config.yaml"
    is_begun = (folder / "state.pt").is_file() and path.is_file()
    return load_train_config(path, TrainConfig()).schedule.hours if is_begun else 0.0


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Raises ConfigError while another process trains into the folder: two would overwrite each other's state."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"training into {folder}", got="another training that still runs there", expected="none",
                mend="stop it first, or train into another --out folder",
            ) from error
        yield


def _keep_config(folder: Path, config: TrainConfig, report: Report) -> None:
    """Write the settings beside the state; those of a resumed run may differ, but not in the network.

    Raises CheckpointError where they do.
    """
    path = folder / "config.yaml"
    if (folder / "state.pt").is_file() and path.is_file():
        changed = changed_values(load_train_config(path, TrainConfig()), config)
        words = {key: f"{key} {new!r} (was {old!r})" for key, (old, new) in changed.items()}
        of_network = [text for key, text in words.items() if key.startswith("network.")]
        if of_network:
            raise CheckpointError(
                f"training state in {folder}", got=", ".join(of_network), expected="the network it began with",
                mend="train into another --out folder, or take the settings of its config.yaml",
            )
        for text in words.values():
            report(f"resumed with another {text}")
    save_config(path, config)
