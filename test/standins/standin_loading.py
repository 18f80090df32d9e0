"""The stand-ins, loaded under names of their own so that they are tested beside the real packages too."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

STANDINS = Path(__file__).resolve().parents[2] / "standins" / "python"


def load_standin(name: str) -> ModuleType:
    """The stand-in module of that name."""
    spec = importlib.util.spec_from_file_location(f"standin_{name}", STANDINS / name / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no stand-in {name} in {STANDINS}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def real_or_none(name: str) -> ModuleType | None:
    """The real package of that name, or None where only the stand-in is found."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != STANDINS]
    if importlib.machinery.PathFinder.find_spec(name, elsewhere) is None:
        return None
    module = importlib.import_module(name)
    return None if STANDINS in Path(module.__file__ or "").resolve().parents else module
