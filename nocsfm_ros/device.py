"""Where torch runs, and in which precision."""

from __future__ import annotations

import torch

from nocsfm_ros.errors import ConfigError


def choose_device(asked: str, setting: str = "model.device") -> str:
    """ "cuda" or "cpu". Raises ConfigError, naming the `setting`, when CUDA is asked for and not there."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            setting, got="cuda", expected="a CUDA GPU that torch can see",
            mend="set it to auto or cpu, or install a CUDA build of torch",
        )
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware has it: twice as fast there, many times slower where it is emulated."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def fast_autocast(device: torch.device) -> torch.autocast:
    """A context in which float32 weights compute in fast_dtype."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
