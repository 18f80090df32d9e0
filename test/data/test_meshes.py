"""Meshes, shapes, textures and the sensor model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from nocsfm_ros.data.catalogue import CatalogueEntry, read_catalogue
from nocsfm_ros.data.meshes import heldout_names, load_catalogue_mesh, load_mesh, read_obj, save_mesh, symmetry_of
from nocsfm_ros.data.random_shapes import find_wheel, load_random_shape, painted, read_shapes
from nocsfm_ros.data.sensor import sensed_depth_mm
from nocsfm_ros.data.shapes import KINDS, procedural_mesh
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.geometry.symmetry import ABOUT, CONTINUOUS, FLIPS

BOX_OBJ = """mtllib box.mtl
v 0 0 0\nv 4 0 0\nv 4 2 0\nv 0 2 0\nv 0 0 1\nv 4 0 1\nv 4 2 1\nv 0 2 1
usemtl my red
f 1 2 3 4\nf 5 8 7 6\nf 1 5 6 2\nf 2 6 7 3\nf 3 7 8 4\nf -8 -5 -1 -4
"""
K = np.array([[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "Some.sh3f"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(
            "PluginFurnitureCatalog.properties",
            "# a remark\nid=Some\nname#1=Bo\u00eete\nmodel#1=/some/box.obj\ncategory#1=Kitchen\n"
            "width#1=8\nheight#1=4\ndepth#1=2\n\nname#2=gone\nmodel#2=/some/missing.obj\n".encode("latin-1"),
        )
        opened.writestr("some/box.obj", BOX_OBJ)
        opened.writestr("some/box.mtl", "newmtl my red\nKd 0.9 0.1 0.1\n")
        opened.writestr("some/few.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    return path


def test_catalogue_with_latin1_and_missing_model_lists_what_is_there(archive: Path) -> None:
    (entry,) = read_catalogue([archive])
    assert (entry.name, entry.category, entry.size_cm) == ("Some/some/box", "Kitchen", (8.0, 4.0, 2.0))


def test_catalogue_mesh_is_centred_with_unit_diagonal_its_size_and_colour(archive: Path) -> None:
    (entry,) = read_catalogue([archive])
    mesh = load_catalogue_mesh(entry)
    extent = np.ptp(mesh.vertices, axis=0)
    np.testing.assert_allclose(extent / extent[2], (4, 2, 1), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(extent), 1, rtol=1e-5)
    np.testing.assert_allclose(mesh.vertices.max(0), -mesh.vertices.min(0), atol=1e-6)
    np.testing.assert_allclose(mesh.colour, np.tile((0.9, 0.1, 0.1), (len(mesh.colour), 1)), rtol=1e-5)
    assert len(mesh.faces) == 12 and mesh.symmetry == 2 + FLIPS


def test_catalogue_mesh_of_too_few_faces_raises(archive: Path) -> None:
    with pytest.raises(FrameError, match="1 faces"):
        load_catalogue_mesh(CatalogueEntry("few", archive, "some/few.obj", "", None, None, ""))


def test_random_shapes_of_a_wheel_are_listed_by_number_and_painted_alike_each_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pybullet-3.2.7-any.whl", "w") as wheel:
        for number in ("007", "002"):
            wheel.writestr(f"pybullet_data/random_urdfs/{number}/{number}.obj", BOX_OBJ)
        wheel.writestr("pybullet_data/random_urdfs/002/other.obj", BOX_OBJ)
    entries = read_shapes(find_wheel(tmp_path))
    assert [entry.name for entry in entries] == ["pybullet/002", "pybullet/007"]
    first, again = (load_random_shape(entries[0]) for _ in range(2))
    assert first.vertices.shape == (36, 3) and first.textures.tobytes() == again.textures.tobytes()
    np.testing.assert_allclose(np.linalg.norm(np.ptp(first.vertices, axis=0)), 1, rtol=1e-5)


def test_missing_wheel_of_random_shapes_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConfigError, match=r"pybullet==3\.2\.7[\s\S]*put pybullet-3\.2\.7-\*\.whl into"):
        find_wheel(tmp_path)


def test_paint_lies_flat_on_every_face_within_its_picture(archive: Path) -> None:
    box = read_obj(CatalogueEntry("box", archive, "some/box.obj", "", None, None, ""))
    looks = [painted(box, np.random.default_rng(seed)) for seed in range(8)]
    assert {bool(len(look["textures"])) for look in looks} == {True, False}
    for look in looks:
        assert look["layer"].max() == len(look["textures"]) - 1 and 0 <= look["uv"].min() <= look["uv"].max() <= 1
        across = look["vertices"][look["faces"]]
        area = np.linalg.norm(np.cross(across[:, 1] - across[:, 0], across[:, 2] - across[:, 0]), axis=1)
        a, b, c = look["uv"][look["faces"]].transpose(1, 0, 2)
        drawn = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) * np.ptp(across) ** 2
        np.testing.assert_allclose(drawn[look["layer"][::3] >= 0], area[look["layer"][::3] >= 0], rtol=1e-5)


def test_mesh_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    mesh = procedural_mesh(5)
    save_mesh(tmp_path / "m.safetensors", mesh)
    again = load_mesh(tmp_path / "m.safetensors")
    assert (again.name, again.symmetry) == (mesh.name, mesh.symmetry)
    for name in ("vertices", "textures", "hull", "coarse_vertices", "coarse_faces"):
        np.testing.assert_array_equal(getattr(again, name), getattr(mesh, name))


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_procedural_mesh_of_each_kind_is_closed_in_indices_and_normalised(kind: str) -> None:
    mesh = procedural_mesh(11, kind=kind)
    assert mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)
    assert mesh.layer.max() < len(mesh.textures)
    np.testing.assert_allclose(np.linalg.norm(np.ptp(mesh.vertices, axis=0)), 1, rtol=1e-4)
    assert procedural_mesh(11, kind=kind).vertices.tobytes() == mesh.vertices.tobytes()


def test_symmetry_of_plain_bottle_is_continuous_and_of_mug_none() -> None:
    bottle = procedural_mesh(3, kind="bottle")
    plain = type(bottle)(
        **{
            **bottle.__dict__,
            "layer": np.full_like(bottle.layer, -1),
            "colour": np.full_like(bottle.colour, 0.5),
        }
    )
    assert symmetry_of(plain) == CONTINUOUS
    assert procedural_mesh(3, kind="mug").symmetry == 1


def test_symmetry_of_a_bowl_of_another_colour_inside_is_continuous() -> None:
    bowl = procedural_mesh(100032)
    assert bowl.name.startswith("procedural/bowl") and len(np.unique(bowl.colour, axis=0)) > 1
    assert bowl.symmetry == CONTINUOUS


@pytest.mark.parametrize(
    ("size", "symmetry"), [((2, 1, 1), 4 + ABOUT["x"]), ((1, 1, 3), 4 + ABOUT["z"]), ((1, 2, 3), 2)]
)
def test_symmetry_of_a_plain_cuboid_is_about_its_odd_axis_with_flips(
    archive: Path, size: tuple[float, float, float], symmetry: int
) -> None:
    cuboid = load_catalogue_mesh(CatalogueEntry("box", archive, "some/box.obj", "", size, None, ""))
    assert cuboid.symmetry == symmetry + FLIPS


def test_heldout_list_names_every_mesh_once() -> None:
    assert len(heldout_names()) > 100


def test_sensed_depth_of_step_misses_the_strip_left_of_the_nearer_thing() -> None:
    depth_m = np.full((120, 200), 1.0, np.float32)
    depth_m[:, 100:] = 0.5
    sensed = sensed_depth_mm(depth_m, K, np.random.default_rng(0))
    hidden_px = 600 * 0.05 * (1 / 0.5 - 1 / 1.0)
    assert (sensed[:, round(100 - hidden_px) + 2 : 100] == 0).all()
    assert (sensed[:, : round(100 - hidden_px) - 4] > 0).mean() > 0.95
    seen = sensed[:, 110:][sensed[:, 110:] > 0]
    assert abs(seen.mean() - 500) < 1 and 0 < seen.std() < 5
