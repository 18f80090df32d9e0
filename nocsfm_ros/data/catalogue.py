"""The household meshes of the Debian/Ubuntu package sweethome3d-furniture (CC0 and CC-BY): where they are,
what they are.

Each `.sh3f` is a zip of OBJ models and one latin-1 `PluginFurnitureCatalog.properties` with names and sizes
in cm.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from nocsfm_ros.errors import ConfigError

PACKAGE = "sweethome3d-furniture"
SYSTEM_FOLDER = Path("/usr/share/sweethome3d/furniture")
DEFAULT_CACHE = Path.home() / ".cache" / "nocsfm"


@dataclass(frozen=True)
class CatalogueEntry:
    """One model of the catalogue.

    Attributes:
        name: unique and stable, "<zip stem>/<path of the obj without its ending>".
        archive: the zip that holds it.
        member: path of the OBJ inside the zip.
        category: the catalogue's own word, e.g. "Kitchen".
        size_cm: width (x), height (y), depth (z), or None.
        rotation: nine numbers, row-major, that bring the model upright, or None.
        creator: author, for the attribution.
    """

    name: str
    archive: Path
    member: str
    category: str
    size_cm: tuple[float, float, float] | None
    rotation: tuple[float, ...] | None
    creator: str


def find_archives(cache: Path) -> list[Path]:
    """The package's zips: the system's own, else unpacked into `cache` by the system's package client (no
    root).

    Raises:
        ConfigError: neither is there nor can be got.
    """
    unpacked = cache / PACKAGE
    for folder in (SYSTEM_FOLDER, unpacked / SYSTEM_FOLDER.relative_to("/")):
        if archives := sorted(folder.glob("*.sh3f")):
            return archives
    cache.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, capture_output=True)
        package = max(cache.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg", "-x", package.name, PACKAGE], cwd=cache, check=True, capture_output=True)
        package.unlink()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ConfigError(
            "meshes to render",
            got=error,
            expected=f"the Debian/Ubuntu package {PACKAGE}",
            mend=f"sudo apt-get install {PACKAGE}, or unpack it into {unpacked}",
        ) from error
    return find_archives(cache)


def read_catalogue(archives: list[Path]) -> list[CatalogueEntry]:
    """All models that have an OBJ, sorted by name, each OBJ once."""
    entries: dict[str, CatalogueEntry] = {}
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            text = opened.read("PluginFurnitureCatalog.properties").decode("latin-1")
            members = set(opened.namelist())
        for facts in _records(text).values():
            member = facts.get("model", "").lstrip("/")
            if member.endswith(".obj") and member in members:
                name = f"{archive.stem}/{member.removesuffix('.obj')}"
                entries[name] = _entry(name, archive, member, facts)
    return [entries[name] for name in sorted(entries)]


def _records(text: str) -> dict[str, dict[str, str]]:
    records: dict[str, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        field, hash_sign, number = key.strip().partition("#")
        if equals and hash_sign and field:
            records[number][field] = value.strip()
    return records


def _entry(name: str, archive: Path, member: str, facts: dict[str, str]) -> CatalogueEntry:
    try:
        size_cm = (float(facts["width"]), float(facts["height"]), float(facts["depth"]))
    except (KeyError, ValueError):
        size_cm = None
    numbers = tuple(float(number) for number in facts.get("modelRotation", "").split())
    return CatalogueEntry(
        name,
        archive,
        member,
        facts.get("category", ""),
        size_cm,
        numbers if len(numbers) == 9 else None,
        facts.get("creator", ""),
    )
