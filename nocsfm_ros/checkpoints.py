"""Loading diffusers folders with errors a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from nocsfm_ros.errors import CheckpointError

ModelT = TypeVar("ModelT")
HUB_MEND = (
    "If this is a hub id: accept the licence on its page, log in with `hf auth login`, check the network; or fetch it "
    "elsewhere with `hf download` and name the folder"
)
EMBEDDED = Path(__file__).resolve().parent / "weights"


def weights_folder(configured: str) -> Path:
    """The configured folder, or the embedded weights for an empty string. Raises CheckpointError if it is missing."""
    folder = Path(configured).expanduser() if configured else EMBEDDED
    for part in ("autoencoder", "velocity"):
        if not (folder / part / "config.json").is_file():
            raise CheckpointError(
                f"weights folder {folder}", got=f"no {part}/config.json", expected="autoencoder/ and velocity/ inside",
                mend="train with `nocsfm train`, or leave model.weights empty for the embedded weights",
            )
    return folder


def folder_or_hub_id(name: str) -> Path | str:
    """A Path where `name` is a folder of this machine, else `name` itself, which may be a hub id."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else name


def model_class_of(folder: str | Path, default: type[ModelT], *others: type[Any]) -> type[ModelT]:
    """The one of the classes that a diffusers folder or hub id says it is; `default` where it cannot be read."""
    try:
        name = default.load_config(str(folder), local_files_only=isinstance(folder, Path))["_class_name"]  # type: ignore[attr-defined]
    except (OSError, KeyError, ValueError):
        return default  # loading it will say what is wrong
    return next((other for other in others if other.__name__ == name), default)


def load_pretrained(model_class: type[ModelT], folder: str | Path, **kwargs: Any) -> ModelT:
    """`model_class.from_pretrained(folder)`, strict, safetensors only, in eval mode.

    A Path is a folder of this machine; a str may be a hub id and may be downloaded.

    Raises:
        CheckpointError: missing, corrupt, or of another architecture.
    """
    try:
        model, report = model_class.from_pretrained(  # type: ignore[attr-defined]
            str(folder), local_files_only=isinstance(folder, Path), use_safetensors=True, output_loading_info=True,
            low_cpu_mem_usage=False, **kwargs,
        )
    except Exception as error:  # diffusers raises a dozen kinds for a bad file; each means the same to the user
        mend = "restore the folder (`git checkout nocsfm_ros/weights`), or train new weights with `nocsfm train`"
        if isinstance(folder, str):
            mend = HUB_MEND
        raise CheckpointError(
            f"weights in {folder}", got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            expected=f"a readable {model_class.__name__} folder (config.json, *.safetensors)",
            mend=mend,
        ) from error
    wrong = [*report.get("missing_keys", ()), *report.get("unexpected_keys", ()), *report.get("mismatched_keys", ())]
    if wrong:
        raise CheckpointError(
            f"weights in {folder}", got=f"{len(wrong)} tensors that do not fit, first {wrong[0]}",
            expected="every tensor of the architecture, no other",
            mend="the config.json and the safetensors file are of different models",
        )
    return model.eval()  # type: ignore[no-any-return]
