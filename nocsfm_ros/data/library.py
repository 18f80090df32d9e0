"""Every mesh that can be rendered, by index and split, loaded when asked for."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.catalogue import CatalogueEntry, find_archives, read_catalogue
from nocsfm_ros.data.meshes import Mesh, heldout_names, load_catalogue_mesh, load_mesh, save_mesh
from nocsfm_ros.data.random_shapes import find_wheel, load_random_shape, read_shapes
from nocsfm_ros.data.shapes import procedural_mesh
from nocsfm_ros.data.workers import worker_pool
from nocsfm_ros.errors import NocsfmError

TRAIN_SEEDS, TEST_SEEDS = range(3000), range(100_000, 100_080)
CACHE_VERSION = "meshes-5"
CATALOGUE_LIST, SHAPES_LIST = "usable.txt", "random.txt"
Loader = Callable[[CatalogueEntry], Mesh]
_log = logging.getLogger(__name__)


class MeshLibrary:
    """Catalogue meshes (sorted by name), procedural ones, random shapes where fetched. Build once with `build_cache`.

    Attributes:
        names: of all meshes, in index order.
        is_heldout: (N,) bool, never used in training.
        kind: (N,) of "catalogue", "procedural", "random"; the last is never held out.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / CACHE_VERSION
        catalogue = (self._folder / CATALOGUE_LIST).read_text(encoding="utf-8").splitlines()
        listed = self._folder / SHAPES_LIST
        shapes = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
        heldout = heldout_names()
        seeds = [*TRAIN_SEEDS, *TEST_SEEDS]
        self.names = [*catalogue, *(f"procedural/{seed}" for seed in seeds), *shapes]
        self.kind = np.repeat(["catalogue", "procedural", "random"], [len(catalogue), len(seeds), len(shapes)])
        self.is_heldout = np.array(
            [name in heldout for name in catalogue] + [seed in TEST_SEEDS for seed in seeds] + [False] * len(shapes)
        )
        self._meshes: dict[int, Mesh] = {}

    def mesh(self, index: int) -> Mesh:
        """The mesh of this index, kept in memory from then on."""
        if index not in self._meshes:
            name = self.names[index]
            path = self._folder / _file_name(name)
            if not path.exists():
                save_mesh(path, procedural_mesh(int(name.rpartition("/")[2])))
            self._meshes[index] = load_mesh(path)
        return self._meshes[index]

    def hull(self, index: int) -> npt.NDArray[np.float64]:
        """(M, 3) see Mesh.hull."""
        return self.mesh(index).hull.astype(np.float64)

    def indices(self, heldout: bool, kind: str) -> npt.NDArray[np.int64]:
        """Mesh indices of one split and kind."""
        return np.flatnonzero((self.is_heldout == heldout) & (self.kind == kind))


def build_cache(cache: Path, workers: int = 2, for_training: bool = False) -> MeshLibrary:
    """Parse what is not parsed yet; later starts only read. Safe to interrupt; a second process waits for the first.

    The random shapes, which no held-out scene shows, are fetched `for_training` alone.
    """
    folder = cache / CACHE_VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / CATALOGUE_LIST).exists():
            _parse_all(read_catalogue(find_archives(cache)), load_catalogue_mesh, folder / CATALOGUE_LIST, workers)
        if for_training and not (folder / SHAPES_LIST).exists():
            _parse_all(read_shapes(find_wheel(cache)), load_random_shape, folder / SHAPES_LIST, workers)
    return MeshLibrary(cache)


def _parse_all(entries: list[CatalogueEntry], load: Loader, listed: Path, workers: int) -> None:
    """Store every mesh beside the list `listed`, which names those that can be used and is written last."""
    with worker_pool(workers) as pool:
        usable = [name for name in pool.map(partial(_parse, listed.parent, load), entries, chunksize=8) if name]
    partial_list = listed.with_suffix(".partial")
    partial_list.write_text("\n".join(usable), encoding="utf-8")
    partial_list.replace(listed)


def _parse(folder: Path, load: Loader, entry: CatalogueEntry) -> str:
    path = folder / _file_name(entry.name)
    try:
        if not path.exists():
            save_mesh(path, load(entry))
    except (NocsfmError, ValueError, IndexError) as error:
        _log.info("left out: %s (%s)", entry.name, error)
        return ""
    return entry.name


def _file_name(name: str) -> str:
    return name.replace("/", "__") + ".safetensors"
