"""Every tunable once, with unit, range and reason. ROS parameters, YAML files and the docs come from here.

A field's dotted path is its name everywhere: ``matching.similarity_threshold`` in YAML nests, in ROS it is the
parameter name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nocsfm_ros.errors import ConfigError

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Tunable:
    """What a person needs to know of one setting."""

    reason: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = True

    def allowed(self) -> str:
        """The range in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is None:
            return "any"
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()


def _tunable(default: Any, reason: str, **facts: Any) -> Any:
    return field(default=default, metadata={"tunable": Tunable(reason, **facts)})


@dataclass(frozen=True)
class ModelConfig:
    """Which weights, and where they run. Read at start."""

    weights: str = _tunable(
        "", "folder with autoencoder/ and velocity/; empty takes the embedded weights", live=False
    )
    backbone: str = _tunable(
        "efficientnet_lite0", "'efficientnet_lite0' or a folder or hub id of a DINOv3ViTModel", live=False
    )
    device: str = _tunable("auto", "where torch runs", choices=("auto", "cpu", "cuda"), live=False)
    num_threads: int = _tunable(
        0, "CPU threads of torch and of NumPy's BLAS; 0 takes half of the cores: camera and ROS need the others",
        unit="threads", low=0, high=64, live=False,
    )
    steps: int = _tunable(1, "Euler steps of the flow; trained for one", unit="steps", low=1, high=100)


@dataclass(frozen=True)
class MatchingConfig:
    """Finding the object in the whole picture, and point matches inside a crop."""

    frame_side: int = _tunable(
        640, "longer side of the picture given to the backbone: small objects need more", unit="pixels", low=128,
        high=4096,
    )
    similarity_threshold: float = _tunable(
        0.5, "cells under this cosine similarity are background", low=-1.0, high=1.0
    )
    max_candidates: int = _tunable(4, "regions of a searched frame that may show the object", unit="regions", low=1,
                                   high=32)
    candidates_per_frame: int = _tunable(
        2, "of them looked at in one frame, the next ones in the next frame: each costs a flow pass and ICP. "
        "`nocsfm track` looks at all", unit="regions", low=1, high=32,
    )
    crop_margin: float = _tunable(
        1.5, "side of the square crop over the longer side of the object's box", low=1.0, high=4.0
    )
    point_matches: bool = _tunable(
        True, "feature matches inside the crop as further pose hypotheses; off is faster"
    )


@dataclass(frozen=True)
class RegistrationConfig:
    """From correspondences to a pose."""

    mask_threshold: float = _tunable(0.5, "foreground probability above which a pixel is object", low=0.05, high=0.95)
    max_points: int = _tunable(2000, "points used for a fit", unit="points", low=50, high=100000)
    ransac_iterations: int = _tunable(256, "three-point samples drawn", unit="samples", low=16, high=10000)
    ransac_threshold: float = _tunable(
        0.08, "largest residual of an inlier, as a share of scale_m: the flow's own error is about this", low=0.005,
        high=0.5,
    )
    icp_voxel_m: float = _tunable(0.004, "grid on which clouds are thinned before ICP", unit="m", low=0.0005, high=0.1)
    icp_distance: float = _tunable(
        0.15, "first correspondence radius of ICP as a share of scale_m; two more passes take a third and a seventh",
        low=0.005, high=0.5,
    )
    inlier_distance: float = _tunable(
        0.02, "a live point this near the object memory agrees with it, as a share of scale_m (at least 4 mm, and 6 mm "
        "times the square of the range in metres: depth cameras are no better)",
        low=0.002, high=0.2,
    )
    seed: int = _tunable(0, "of the random samples: the same frames give the same poses", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class TrackingConfig:
    """States and their gates."""

    min_confidence: float = _tunable(
        0.4, "below it a frame counts as a failure; enough to go on where the object was just lost", low=0.0, high=1.0
    )
    acquire_confidence: float = _tunable(
        0.6, "needed to find an object of which one reference with depth is known: higher than to stay, so that states "
        "do not flicker", low=0.0, high=1.0,
    )
    reacquire_confidence: float = _tunable(
        0.8, "needed to find it elsewhere than where it was last, once it has keyframes (the more sides are known, "
        "the more other things look like one of them), and by a reference without depth", low=0.0, high=1.0,
    )
    min_mask_pixels: int = _tunable(60, "smallest mask in the crop that is called an object", unit="pixels", low=4,
                                    high=16384)
    lost_after: int = _tunable(2, "failed frames in a row before TRACKING becomes LOST", unit="frames", low=1, high=100)
    search_after: int = _tunable(60, "frames LOST before it is called SEARCHING again; both look everywhere",
                                 unit="frames", low=1, high=100000)
    max_rotation_deg: float = _tunable(45.0, "largest believable turn between two frames", unit="deg", low=1.0,
                                       high=180.0)
    max_translation: float = _tunable(
        0.6, "largest believable shift between two frames, as a share of scale_m", low=0.02, high=10.0
    )
    max_keyframes: int = _tunable(12, "kept besides the user's reference, which is never dropped", unit="keyframes",
                                  low=0, high=200)
    keyframe_min_deg: float = _tunable(15.0, "a view nearer than this to a keyframe is not a new one", unit="deg",
                                       low=1.0, high=90.0)
    keyframe_confidence: float = _tunable(
        0.6, "needed to become a keyframe: a bad one poisons the memory, without new ones a turning object is lost",
        low=0.0, high=1.0,
    )


@dataclass(frozen=True)
class FilterConfig:
    """Smoothing and prediction of the published pose; the tracker itself works with the raw one."""

    cutoff_hz: float = _tunable(
        0.0, "of the 1-euro filter at rest, where it lags by 1 / (2 pi cutoff_hz) seconds; 0 is off", unit="Hz",
        low=0.0, high=100.0,
    )
    speed_gain: float = _tunable(
        1.0, "Hz by which the cutoff rises for each scale_m/s or rad/s: more follows quick motion better", low=0.0,
        high=100.0,
    )
    predict_up_to_s: float = _tunable(
        0.0, "TF, ~/pose and ~/pose_with_covariance are moved on at constant velocity from the picture's time to the "
        "node's clock, by this at most, and their stamp with them; 0 is off: the stamp is the picture's. 0.2 is a good "
        "start", unit="s", low=0.0, high=0.5,
    )


@dataclass(frozen=True)
class Config:
    """All settings of the tracker, without ROS."""

    model: ModelConfig = field(default_factory=ModelConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)


def iterate_tunables(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Tunable]]:
    """Yield (dotted key, value, Tunable) of every setting, depth first, in the order they are written."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from iterate_tunables(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value, item.metadata["tunable"]


def replace_values(config: ConfigT, values: Mapping[str, Any], page: str = "docs/parameters.md") -> ConfigT:
    """A copy of `config` with the dotted keys of `values` replaced and checked; `page` is where they are listed.

    Raises:
        ConfigError: names every unknown key and every value of wrong type or range at once.
    """
    known = {key: (value, tunable) for key, value, tunable in iterate_tunables(config)}
    problems = [f"{key} (unknown)" for key in values if key not in known]
    checked: dict[str, Any] = {}
    for key in values.keys() & known.keys():
        default, tunable = known[key]
        checked[key], problem = _checked_value(key, values[key], default, tunable)
        problems += [problem] if problem else []
    if problems:
        raise ConfigError(
            "settings", got="; ".join(sorted(problems)), expected="known keys inside their ranges",
            mend=f"{page} lists every key",
        )
    return _with_values(config, checked, "")


def load_config(path: Path, defaults: Config | None = None) -> Config:
    """Read a YAML file whose nesting is that of Config; what it leaves out keeps its default.

    Raises:
        ConfigError: no such file, not YAML, or bad keys.
    """
    return replace_values(defaults or Config(), read_values(path))


def read_values(path: Path) -> dict[str, Any]:
    """The dotted keys of a YAML file of settings. Raises ConfigError: no such file, or not a mapping in YAML."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"settings file {path}", got=error, expected="a readable YAML file") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"settings file {path}", got=type(tree).__name__, expected="a mapping of sections")
    return flatten(tree)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _checked_value(key: str, value: Any, default: Any, tunable: Tunable) -> tuple[Any, str]:
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        return default, f"{key}={value!r} ({type(value).__name__}, needs {wanted.__name__})"
    if tunable.choices and value not in tunable.choices:
        return default, f"{key}={value!r} ({tunable.allowed()})"
    if tunable.low is not None and tunable.high is not None and not tunable.low <= value <= tunable.high:
        return default, f"{key}={value!r} ({tunable.allowed()})"
    return value, ""


def _with_values(config: Any, values: Mapping[str, Any], prefix: str) -> Any:
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            changes[item.name] = _with_values(value, values, f"{key}.")
        elif key in values:
            changes[item.name] = values[key]
    return dataclasses.replace(config, **changes)
