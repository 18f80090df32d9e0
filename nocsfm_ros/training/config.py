"""Every setting of a training once, as nocsfm_ros.config has those of the tracker; config/train/*.yaml set them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nocsfm_ros.config import Tunable, flatten, read_values, replace_values
from nocsfm_ros.data.views import CROP_SIZE
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.matching.backbone import EFFICIENTNET
from nocsfm_ros.training.optimizers import ADAMW, MUON

PAGE = "docs/training.md"


def _tunable(default: Any, reason: str, **facts: Any) -> Any:
    return field(default=default, metadata={"tunable": Tunable(reason, **facts)})


@dataclass(frozen=True)
class DataConfig:
    """What is learned from."""

    train: str = _tunable("", "folder that `nocsfm render --out` wrote")
    validation: str = _tunable("", "folder of `render --split test` for the sample loss; empty takes training pairs")
    frame: str = _tunable(
        "anchored", "of the coordinates: fixed by the reference view, or the category's canonical one as published",
        choices=("anchored", "category"),
    )
    background: bool = _tunable(True, "false cuts it away by the true masks: the published comparison")
    in_memory: bool = _tunable(
        False, "all views in the device's memory and augmented there, for a GPU; false reads them from the disk and "
        "augments with OpenCV, faster on a CPU",
    )


@dataclass(frozen=True)
class ScheduleConfig:
    """How long and how fast. Of hours and steps the first that is spent ends the training."""

    hours: float = _tunable(0.0, "of training over all resumed runs; 0 for no limit", unit="h", low=0.0, high=10000.0)
    steps: int = _tunable(0, "of the optimiser; 0 for no limit", unit="steps", low=0, high=10**9)
    batch: int = _tunable(16, "pairs a step, even: two views make two pairs; `train search` fills a mosaic",
                          unit="pairs", low=2, high=65536)
    optimizer: str = _tunable(
        "muon", "muon for the weights of linear layers and convolutions, AdamW for all else: see \"The optimizer\"",
        choices=(ADAMW, MUON),
    )
    learning_rate: float = _tunable(2e-3, "the highest", low=1e-7, high=1.0)
    decay: str = _tunable("cosine", "of the learning rate, after a short warm-up", choices=("cosine", "constant"))
    ema_decay: float = _tunable(0.9995, "of the averaged weights, which are the ones kept", low=0.0, high=0.999999)
    seed: int = _tunable(0, "of weights, pairs and augmentation", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class DropsConfig:
    """Shares of the samples in which a condition is withheld or another object is asked for."""

    live_depth: float = _tunable(0.2, "live depth withheld", low=0.0, high=1.0)
    reference_depth: float = _tunable(0.1, "reference depth withheld", low=0.0, high=1.0)
    context: float = _tunable(0.08, "backbone features withheld, and hints with them", low=0.0, high=1.0)
    hints: float = _tunable(0.15, "coordinates of the matches withheld", low=0.0, high=1.0)
    other_object: float = _tunable(0.12, "reference of another object: the true mask is empty", low=0.0, high=1.0)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the flow's losses; one of weight 0 is not computed. Published: the latent alone, tau uniform."""

    tau_zero_share: float = _tunable(
        0.85, "samples at flow time 0: one Euler step starts there, that is where accuracy counts", low=0.0, high=1.0
    )
    latent: float = _tunable(0.3, "squared error of the velocity", low=0.0, high=100.0)
    foreground: float = _tunable(4.0, "further weight of the object's cells in it", low=0.0, high=100.0)
    nocs: float = _tunable(1.0, "decoded coordinates", low=0.0, high=100.0)
    mask: float = _tunable(
        3.0, "decoded mask: registration forgives a coarse map, but not pixels of the table", low=0.0, high=100.0
    )
    affine: float = _tunable(1.0, "the affine map on the cells that show the object", low=0.0, high=100.0)
    match: float = _tunable(
        1.0, "which reference cell shows the same point; the transformer does not match", low=0.0, high=100.0
    )
    sigma: float = _tunable(0.05, "likelihood of the coordinates' error", low=0.0, high=100.0)


@dataclass(frozen=True)
class MatchingConfig:
    """What the backbone learns: cells of two views that show the same point look alike, all others do not."""

    temperature: float = _tunable(0.07, "of the cosine similarities", low=0.001, high=10.0)
    exclusion_cells: float = _tunable(1.5, "around the true place, neither alike nor unlike", unit="cells", low=0.0,
                                      high=16.0)
    others: int = _tunable(512, "cells of other objects that must look unlike", unit="cells", low=0, high=65536)
    mosaic_share: float = _tunable(
        0.5, "steps in which four pictures are shown at half their size in one: small objects among others, and four "
        "times as fast", low=0.0, high=1.0,
    )
    distillation: float = _tunable(1.0, "weight, at the start, of also predicting network.backbone's features: renders "
                                   "do not show what photos look like", low=0.0, high=100.0)
    distillation_end: float = _tunable(0.2, "the same at the end", low=0.0, high=100.0)


@dataclass(frozen=True)
class VitConfig:
    """Size of the backbone that `train backbone` makes, a DINOv3ViTModel."""

    width: int = _tunable(144, "a multiple of 4 times heads", unit="channels", low=8, high=4096)
    layers: int = _tunable(6, "attention and feed-forward", unit="layers", low=1, high=100)
    heads: int = _tunable(3, "of the attention", unit="heads", low=1, high=64)
    patch: int = _tunable(16, "side of a cell; twice it must divide crop_side", unit="pixels", low=4, high=64)
    registers: int = _tunable(4, "tokens beside the cells that attention may use", unit="tokens", low=0, high=64)


@dataclass(frozen=True)
class SearchConfig:
    """Size of the head that `train search` makes."""

    hidden_width: int = _tunable(384, "of its hidden layer", unit="channels", low=8, high=4096)
    width: int = _tunable(96, "of the features that are compared", unit="channels", low=8, high=1024)


@dataclass(frozen=True)
class UnetConfig:
    """Channels of VelocityNetwork at the latent's side, its half and its quarter."""

    fine: int = _tunable(48, "a multiple of 8", unit="channels", low=8, high=4096)
    middle: int = _tunable(96, "a multiple of 48", unit="channels", low=48, high=4080)
    coarse: int = _tunable(192, "a multiple of 48", unit="channels", low=48, high=4080)


@dataclass(frozen=True)
class TransformerConfig:
    """Size of VelocityTransformer; the defaults are those of SiT-S/2."""

    width: int = _tunable(384, "a multiple of heads", unit="channels", low=8, high=4096)
    layers: int = _tunable(12, "attention and feed-forward", unit="layers", low=1, high=100)
    heads: int = _tunable(6, "of the attention", unit="heads", low=1, high=64)
    patch: int = _tunable(2, "latent cells along a side of a token", unit="cells", low=1, high=16)


@dataclass(frozen=True)
class NetworkConfig:
    """What is trained; a resumed run must have the same."""

    kind: str = _tunable(
        "unet", "the UNet with all conditions, or the published transformer on the picture's latent alone",
        choices=("unet", "transformer"),
    )
    objective: str = _tunable(
        "flow", "diffusion trains the UNet to denoise, for the comparison", choices=("flow", "diffusion")
    )
    affine: bool = _tunable(True, "of the UNet: an affine map of the live coordinates besides the dense answer")
    crop_side: int = _tunable(128, "of the square picture", unit="pixels", low=16, high=256)
    autoencoder: str = _tunable(
        "", "frozen one: 'embedded', a folder or a hub id; empty takes the one trained in --out"
    )
    backbone: str = _tunable(EFFICIENTNET, "as model.backbone; empty for none. The transformer does not look at it, "
                             "the tracker does; `train backbone` learns from it, `train search` bends it")
    vit: VitConfig = field(default_factory=VitConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    unet: UnetConfig = field(default_factory=UnetConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)


@dataclass(frozen=True)
class MachineConfig:
    """Where it runs."""

    device: str = _tunable("auto", "where torch runs", choices=("auto", "cpu", "cuda"))
    threads: int = _tunable(2, "of the CPU", unit="threads", low=1, high=256)


@dataclass(frozen=True)
class LogConfig:
    """What a person can look at while it runs."""

    save_every_s: float = _tunable(50.0, "between saved states and log lines: all that a kill can lose", unit="s",
                                   low=0.1, high=60.0)
    samples_every_min: float = _tunable(10.0, "between sample grids and sample losses, not counted as training",
                                        unit="min", low=0.01, high=10000.0)
    sample_pairs: int = _tunable(64, "fixed pairs of the sample loss; six of them are drawn", unit="pairs", low=6,
                                 high=100000)


@dataclass(frozen=True)
class TrainConfig:
    """One training."""

    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    drops: DropsConfig = field(default_factory=DropsConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    log: LogConfig = field(default_factory=LogConfig)


FLOW = TrainConfig()
AUTOENCODER = TrainConfig(schedule=ScheduleConfig(optimizer=ADAMW, learning_rate=2e-4, ema_decay=0.999))
BACKBONE = TrainConfig(
    schedule=ScheduleConfig(optimizer=ADAMW, learning_rate=5e-4, ema_decay=0.999),
    network=NetworkConfig(crop_side=CROP_SIZE),
)
SEARCH = TrainConfig(schedule=ScheduleConfig(optimizer=ADAMW, learning_rate=1e-3, ema_decay=0.99))


@dataclass(frozen=True)
class TrainAllConfig:
    """Both trainings inside one wall clock."""

    hours: float = _tunable(
        25 / 60, "by the clock, loading included; the flow gets what the autoencoder leaves", unit="h", low=0.001,
        high=10000.0,
    )
    autoencoder: TrainConfig = field(default_factory=lambda: AUTOENCODER)
    flow: TrainConfig = field(default_factory=lambda: FLOW)


def load_train_config(path: Path, defaults: TrainConfig) -> TrainConfig:
    """Read a YAML file of TrainConfig; what it leaves out keeps its default. Raises ConfigError."""
    return replace_values(defaults, read_values(path), PAGE)


def check_train_config(config: TrainConfig) -> None:
    """Raises ConfigError for what single ranges cannot say."""
    schedule, network = config.schedule, config.network
    problems = []
    if not config.data.train:
        problems.append("no data.train")
    if not schedule.hours and not schedule.steps:
        problems.append("neither schedule.hours nor schedule.steps")
    if schedule.batch % 2:
        problems.append(f"schedule.batch={schedule.batch} (odd)")
    if network.unet.fine % 8 or network.unet.middle % 48 or network.unet.coarse % 48:
        problems.append(f"network.unet={dataclasses.astuple(network.unet)} (multiples of 8, 48 and 48)")
    if network.objective == "diffusion" and network.kind == "transformer":
        problems.append("network.objective=diffusion (of the transformer)")
    if network.transformer.width % network.transformer.heads:
        problems.append("network.transformer.width (no multiple of heads)")
    vit = network.vit
    if vit.width % (4 * vit.heads):
        problems.append(f"network.vit.width={vit.width} (no multiple of 4 times heads)")
    if problems:
        raise ConfigError("training", got="; ".join(problems), expected="a folder of views, a budget, fitting sizes",
                          mend=f"give --data and --hours or --steps, or see {PAGE}")


def save_config(path: Path, config: TrainConfig) -> None:
    """Write the YAML file that load_train_config reads."""
    path.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False), encoding="utf-8")


def changed_values(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) of every setting that differs."""
    before, after = flatten(dataclasses.asdict(old)), flatten(dataclasses.asdict(new))
    return {key: (before[key], value) for key, value in after.items() if before[key] != value}
