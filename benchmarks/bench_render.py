"""Views rendered a second by one process, as `nocsfm render` makes them.

Run from the project root: ``python benchmarks/bench_render.py [--clusters 40]``. The clusters are rendered twice:
the first time loads and uploads the meshes, the second is what a long run is like. A busy machine spoils the
seconds of the wall clock; the processor's own hardly.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("LP_NUM_THREADS", "1")  # as the workers of nocsfm render

import numpy as np

from nocsfm_ros.data.catalogue import DEFAULT_CACHE
from nocsfm_ros.data.library import MeshLibrary, build_cache
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.views import NUM_SURFACES, render_cluster


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    options = parser.parse_args()
    library, renderer = build_cache(options.cache, for_training=True), Renderer(surface_pool(0, NUM_SURFACES))
    for name in ("first", "again"):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        count = _render(options.clusters, library, renderer)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        print(f"{name}: {count / cpu_s:6.1f} views/s of processor time, {count / wall_s:6.1f} of wall time")


def _render(clusters: int, library: MeshLibrary, renderer: Renderer) -> int:
    return sum(
        len(render_cluster(np.random.default_rng([0, 0, cluster]), library, renderer, heldout=False))
        for cluster in range(clusters)
    )


if __name__ == "__main__":
    main()
