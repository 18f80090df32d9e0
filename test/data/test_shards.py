"""A rendered folder: whose it is, what is missing, its progress and its contact sheet."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nocsfm_ros.data import shards
from nocsfm_ros.data.contact_sheet import TILE, contact_sheet
from nocsfm_ros.data.views import FIELDS, VIEWS_PER_CLUSTER, ViewDataset, save_shard
from nocsfm_ros.errors import ConfigError


def _job(folder: Path, seed: int = 0) -> shards.RenderJob:
    return shards.RenderJob(folder / "out", folder, num_clusters=250, seed=seed)


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


def test_clusters_of_all_shards_are_the_jobs_once_each(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert [*job.clusters(0), *job.clusters(1), *job.clusters(2)] == list(range(250))


def test_folder_of_same_job_is_taken_again_and_of_another_seed_refused(tmp_path: Path) -> None:
    shards._claim(_job(tmp_path))
    _job(tmp_path).shard(0).mkdir()
    shards._claim(_job(tmp_path))
    with pytest.raises(ConfigError, match="another folder"):
        shards._claim(_job(tmp_path, seed=1))


def test_folder_with_shards_of_an_engine_that_left_no_key_is_refused(tmp_path: Path) -> None:
    _job(tmp_path).shard(0).mkdir(parents=True)
    with pytest.raises(ConfigError, match="another folder"):
        shards._claim(_job(tmp_path))


def test_short_last_shard_of_a_smaller_job_is_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, whole = replace(_job(tmp_path), num_clusters=60), _job(tmp_path)
    small.out.mkdir()
    save_shard(small.shard(0), {"mesh": np.zeros(60 * VIEWS_PER_CLUSTER, np.int32)})
    assert small.is_there(0) and not whole.is_there(0) and not whole.is_there(1)
    save_shard(whole.shard(0), {"mesh": np.zeros(100 * VIEWS_PER_CLUSTER, np.int32)})
    assert small.is_there(0) and whole.is_there(0)

    asked: list[int] = []

    def submit(render: object, index: int) -> Future[None]:
        asked.append(index)
        return _done()

    rendered = SimpleNamespace(submit=submit)
    monkeypatch.setattr(shards, "worker_pool", lambda *_: nullcontext(rendered))
    monkeypatch.setattr(shards, "build_cache", lambda *_, **__: SimpleNamespace(names=[], is_heldout=[]))
    monkeypatch.setattr(shards, "ViewDataset", lambda _: None)
    monkeypatch.setattr(shards, "contact_sheet", lambda _: np.zeros((4, 4, 3), np.uint8))
    shutil.rmtree(whole.shard(0))
    shards._claim(small)
    save_shard(small.shard(0), {"mesh": np.zeros(60 * VIEWS_PER_CLUSTER, np.int32)})
    shards.render_views(whole)
    assert asked == [0, 1, 2]


def test_progress_says_rate_and_time_left() -> None:
    assert str(shards.Progress(600, 1800, 20.0)) == "600/1800 views, 20 views/s, 1.0 min left"


def test_contact_sheet_shows_picture_with_outline_and_depth_by_distance(tmp_path: Path) -> None:
    (tmp_path / "meshes.json").write_text("[]", encoding="utf-8")
    (tmp_path / "shard_00000").mkdir()
    arrays = {name: np.zeros((4, *shape), dtype) for name, (shape, dtype) in FIELDS.items()}
    arrays["cluster"][:] = (0, 0, 7, 7)
    arrays["mask"][:, 64:192, 64:192] = 255
    arrays["T_cam_obj"][:] = np.eye(4)
    arrays["T_cam_obj"][:, 2, 3], arrays["diagonal_m"][:] = 0.8, 0.2
    arrays["depth"][:, :128], arrays["depth"][:, 128:] = 6500, 9500
    for name, array in arrays.items():
        np.save(tmp_path / "shard_00000" / f"{name}.npy", array)
    sheet = contact_sheet(ViewDataset(tmp_path), rows=5, columns=2)
    assert sheet.shape == (2 * TILE, 4 * TILE, 3)
    picture, depth = sheet[:TILE, :TILE].astype(int), sheet[:TILE, TILE : 2 * TILE].astype(int)
    assert picture[32, 64, 1] > 200 and picture[64, 64].sum() == 0
    assert depth[10, 10, 0] > 100 > depth[10, 10, 2] and depth[120, 10, 2] > 100 > depth[120, 10, 0]
