"""Rendering a folder of views: shards by worker processes, progress, resuming, a contact sheet at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import numpy as np

from nocsfm_ros.data.contact_sheet import contact_sheet
from nocsfm_ros.data.library import MeshLibrary, build_cache
from nocsfm_ros.data.meshes import write_mesh_list
from nocsfm_ros.data.renderer import Renderer, enter_render_process
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.views import (
    FIELDS,
    NUM_SURFACES,
    VIEWS_PER_CLUSTER,
    ViewDataset,
    render_cluster,
    render_hands,
    save_shard,
    shard_path,
)
from nocsfm_ros.data.workers import worker_pool
from nocsfm_ros.errors import ConfigError

ENGINE_VERSION = 5  # one version, seed and cluster number: one picture
REPORT_EVERY_S = 3.0
_KEY = "render.json"


@dataclass(frozen=True)
class RenderJob:
    """What one folder of views is: `num_clusters` clusters of six views, `split` "train" or "test".

    With `hands` the clusters are those of render_hands, for evaluation only.
    """

    out: Path
    cache: Path
    num_clusters: int
    split: str = "train"
    seed: int = 0
    clusters_per_shard: int = 100
    hands: bool = False

    def shard(self, index: int) -> Path:
        """Folder of one finished shard."""
        return shard_path(self.out, index)

    def clusters(self, index: int) -> range:
        """Numbers of the clusters in one shard."""
        first = index * self.clusters_per_shard
        return range(first, min(first + self.clusters_per_shard, self.num_clusters))

    def is_there(self, index: int) -> bool:
        """Whether a shard is finished and holds all clusters: the last one of a smaller job is short."""
        file = self.shard(index) / "mesh.npy"
        return file.is_file() and len(np.load(file, mmap_mode="r")) >= len(self.clusters(index)) * VIEWS_PER_CLUSTER


@dataclass(frozen=True)
class Progress:
    """Views that are there, views wanted, views rendered a second since the start."""

    done: int
    total: int
    views_per_s: float

    def __str__(self) -> str:
        if not self.views_per_s:
            return f"{self.done}/{self.total} views"
        left_min = (self.total - self.done) / self.views_per_s / 60
        return f"{self.done}/{self.total} views, {self.views_per_s:.0f} views/s, {left_min:.1f} min left"


def render_views(job: RenderJob, workers: int = 2, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
    """Render all shards that are not there yet, or too short, then contact_sheet.png of what is.

    An interrupted run loses the shards it was in. However many workers: same seed, same pictures.

    Args:
        job: what to render.
        workers: processes.
        on_progress: called every REPORT_EVERY_S and at the end.

    Raises:
        ConfigError: the folder holds views of another job.
    """
    library = build_cache(job.cache, workers, for_training=job.split == "train")
    _claim(job)
    meshes = [(name, bool(library.is_heldout[index])) for index, name in enumerate(library.names)]
    write_mesh_list(job.out / "meshes.json", meshes)
    shards = range(-(-job.num_clusters // job.clusters_per_shard))
    missing = [index for index in shards if not job.is_there(index)]
    total = job.num_clusters * VIEWS_PER_CLUSTER
    there = total - VIEWS_PER_CLUSTER * sum(len(job.clusters(index)) for index in missing)
    context = get_context("spawn")
    count, stop, started = context.Value("q", 0), context.Event(), time.monotonic()

    def report() -> None:
        on_progress(Progress(there + count.value, total, count.value / max(time.monotonic() - started, 1e-9)))

    with worker_pool(min(workers, len(missing)), _enter_worker, count, stop) as pool:
        running = {pool.submit(partial(_render_shard, job), index) for index in missing}
        try:
            while running:
                done, running = wait(running, REPORT_EVERY_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                report()
        finally:
            stop.set()
    cv2.imwrite(str(job.out / "contact_sheet.png"), contact_sheet(ViewDataset(job.out))[..., ::-1])


def holds_hands(folder: Path) -> bool:
    """Whether a folder of views was rendered with hands; an imported one was not."""
    path = folder / _KEY
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8"))["hands"])


def _claim(job: RenderJob) -> None:
    """Write or compare render.json: shards of two jobs in one folder would be a silent mixture."""
    key = {
        "engine": ENGINE_VERSION, "split": job.split, "seed": job.seed, "clusters_per_shard": job.clusters_per_shard,
        "hands": job.hands,
    }
    path = job.out / _KEY
    job.out.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if found != key and any(job.out.glob("shard_*")):
        raise ConfigError(
            f"rendered views in {job.out}", got=found or f"no {_KEY}", expected=key, mend="render into another folder"
        )
    path.write_text(json.dumps(key), encoding="utf-8")


_count: Synchronized[int]
_stop: Event
_kept: tuple[MeshLibrary, Renderer] | None = None  # with every mesh that was drawn once


def _enter_worker(count: Synchronized[int], stop: Event) -> None:
    global _count, _stop
    _count, _stop = count, stop
    enter_render_process()


def _render_shard(job: RenderJob, index: int) -> None:
    """Write one shard, complete or, where the parent stops, not at all."""
    global _kept
    heldout = job.split == "test"
    library, renderer = _kept = _kept or (MeshLibrary(job.cache), Renderer(surface_pool(int(heldout), NUM_SURFACES)))
    clusters = job.clusters(index)
    arrays = {name: np.zeros((len(clusters) * VIEWS_PER_CLUSTER, *shape), dtype)
              for name, (shape, dtype) in FIELDS.items()}
    for place, cluster in enumerate(clusters):
        if _stop.is_set():
            return
        rng = np.random.default_rng([job.seed, int(heldout), cluster])
        views = (render_hands if job.hands else render_cluster)(rng, library, renderer, heldout)
        for number, view in enumerate(views):
            for name, value in (view | {"cluster": cluster}).items():
                arrays[name][place * VIEWS_PER_CLUSTER + number] = value
        with _count.get_lock():
            _count.value += VIEWS_PER_CLUSTER
    save_shard(job.shard(index), arrays)
