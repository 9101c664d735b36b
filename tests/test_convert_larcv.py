"""Conversion of larcv3 files, written to that format's schema."""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepfeed.cli.convert import register
from hepfeed.convert import convert_larcv
from hepfeed.errors import CorruptDataError, FileFormatError, KeyMissingError, SpecError

EXTENTS = np.dtype({"names": ["first", "N"], "formats": ["u4", "u4"], "offsets": [0, 8], "itemsize": 16})
ID_EXTENTS = np.dtype(
    {"names": ["first", "ID", "N"], "formats": ["u4", "u4", "u4"], "offsets": [0, 12, 8], "itemsize": 16}
)
VOXEL = np.dtype({"names": ["id", "value"], "formats": ["u8", "f4"], "offsets": [0, 8], "itemsize": 16})
PARTICLE = np.dtype([("pdg", "i4"), ("energy", "f8"), ("process", "S4"), ("start", [("x", "f8"), ("y", "f8")])])


def write_images(file, name, grid, events, invalid=()):
    """Write a product; an event is ``{projection: {voxel id: value}}``; grid one for all, or by projection."""
    d = int(name[6])
    meta_type = np.dtype(
        {
            "names": ["valid", "projection_id", "image_sizes", "number_of_voxels", "origin"],
            "formats": ["u1", "u8", ("f8", d), ("u8", d), ("f8", d)],
        },
        align=True,
    )
    extents, images, meta, voxels = [], [], [], []
    for number, event in enumerate(events):
        extents.append((len(images), len(event)))
        for projection, sites in event.items():
            shape = grid[projection] if isinstance(grid, dict) else grid
            shape = (0,) * d if (number, projection) in invalid else shape
            images.append((len(voxels), projection, len(sites)))
            meta.append((any(shape), projection, [n * 0.5 for n in shape], shape, [-1.0] * d))
            voxels += list(sites.items())
    group = file.create_group(f"Data/{name}_group")
    for part, rows, dtype in (
        ("extents", extents, EXTENTS),
        ("voxel_extents", images, ID_EXTENTS),
        ("image_meta", meta, meta_type),
        ("voxels", voxels, VOXEL),
    ):
        group.create_dataset(part, data=np.array(rows, dtype), chunks=(10,), maxshape=(None,), compression="gzip")


@pytest.fixture
def run():
    """Call the command line with these arguments."""
    app = typer.Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path):
    """Three events, the second without anything: a 3D image, two wire planes, particles, numbers."""
    path = tmp_path / "sim.h5"
    with h5py.File(path, "w") as file:
        # Of a grid 2 x 3 x 4 voxel 23 is (1, 2, 3), voxel 5 is (0, 1, 1).
        write_images(file, "sparse3d_charge", (2, 3, 4), [{0: {5: 1.5, 23: 2.5}}, {0: {}}, {0: {0: 3.5}}])
        planes = [{0: {7: 1.0}, 1: {1: 2.0, 3: 3.0}}, {}, {0: {}, 1: {0: 4.0}}]
        write_images(file, "sparse2d_wire", {0: (3, 5), 1: (2, 2)}, planes)
        group = file.create_group("Data/particle_truth_group")
        group["extents"] = np.array([(0, 2), (2, 0), (2, 1)], EXTENTS)
        rows = [(11, 0.5, b"prim", (1, 2)), (22, 0.25, b"conv", (3, 4)), (13, 2, b"prim", (5, 6))]
        group["particles"] = np.array(rows, PARTICLE)
        file.create_group("Data/cluster3d_semantic_group")
        file["Events/event_id"] = np.array(
            [(1, 0, 7), (1, 0, 8), (1, 1, 1)], [(n, "i8") for n in ("run", "subrun", "event")]
        )
    return path


def sites(path, key):
    """``{coords: value}`` of each event."""
    with h5py.File(path) as file:
        coords, value, offsets = (file[key][name][()] for name in ("coords", "value", "offsets"))
        assert offsets[-1] == len(coords) == len(value)
        return [
            {tuple(c): float(v) for c, v in zip(coords[a:b].tolist(), value[a:b])}
            for a, b in itertools.pairwise(offsets)
        ]


def test_voxel_numbers_become_coordinates_of_their_event(source, tmp_path):
    (path,) = convert_larcv(source, tmp_path / "h5")
    assert sites(path, "sparse3d_charge") == [{(0, 1, 1): 1.5, (1, 2, 3): 2.5}, {}, {(0, 0, 0): 3.5}]
    with h5py.File(path) as file:
        group = file["sparse3d_charge"]
        assert (group["coords"].dtype, group["value"].dtype, group["offsets"].dtype) == (np.int16, np.float32, np.int64)
        assert group.attrs["spatial_shape"].tolist() == [2, 3, 4]
        assert group.attrs["origin"].tolist() == [-1, -1, -1]
        assert group.attrs["image_sizes"].tolist() == [1, 1.5, 2]


def test_each_projection_is_a_key_and_an_event_may_lack_it(source, tmp_path):
    (path,) = convert_larcv(source, tmp_path / "h5")
    assert sites(path, "sparse2d_wire_0") == [{(1, 2): 1}, {}, {}]
    assert sites(path, "sparse2d_wire_1") == [{(0, 1): 2, (1, 1): 3}, {}, {(0, 0): 4}]
    with h5py.File(path) as file:
        assert file["sparse2d_wire_0"].attrs["spatial_shape"].tolist() == [3, 5]
        assert file["sparse2d_wire_1"].attrs["spatial_shape"].tolist() == [2, 2]


def test_particles_and_event_numbers_come_along(source, tmp_path):
    (path,) = convert_larcv(source, tmp_path / "h5")
    with h5py.File(path) as file:
        truth = file["particle_truth"]
        assert truth["offsets"][()].tolist() == [0, 2, 2, 3]
        assert truth["pdg"][()].tolist() == [11, 22, 13]
        assert truth["energy"][()].tolist() == [0.5, 0.25, 2]
        assert truth["start"]["x"].tolist() == [1, 3, 5]
        assert file["event_id/event"][()].tolist() == [7, 8, 1]
        assert file["event_id/subrun"][()].tolist() == [0, 0, 1]


def test_what_can_not_be_converted_is_reported(source, tmp_path):
    found = convert_larcv(source, tmp_path / "h5")
    assert sorted(found.left_out) == ["cluster3d_semantic", "particle_truth/process"]
    with pytest.raises(SpecError, match="only sparse2d, sparse3d and particle products are converted"):
        convert_larcv(source, tmp_path / "other", products="cluster3d_semantic")
    with pytest.raises(KeyMissingError, match="has no product 'sparse3d_chrge': did you mean 'sparse3d_charge'"):
        convert_larcv(source, tmp_path / "other", products="sparse3d_chrge")


def test_files_and_steps_change_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.convert.larcv.STEP_BYTES", 1)
    paths = convert_larcv(source, tmp_path / "h5", events_per_file=2, workers=1)
    assert [event for path in paths for event in sites(path, "sparse3d_charge")] == [
        {(0, 1, 1): 1.5, (1, 2, 3): 2.5},
        {},
        {(0, 0, 0): 3.5},
    ]


def test_dense_form_fills_whole_images(source, tmp_path):
    (path,) = convert_larcv(source, tmp_path / "h5", products="sparse*", form="dense")
    with h5py.File(path) as file:
        image = file["sparse3d_charge"][()]
        assert (image.shape, image.dtype) == ((3, 2, 3, 4), np.float32)
        assert image.reshape(3, -1)[0, [5, 23]].tolist() == [1.5, 2.5]
        assert np.count_nonzero(image) == 3
        assert file["sparse2d_wire_1"].shape == (3, 2, 2)


def test_threshold_leaves_small_voxels_out_and_zero_keeps_all(tmp_path):
    with h5py.File(tmp_path / "sim.h5", "w") as file:
        write_images(file, "sparse3d_charge", (2, 2, 2), [{0: {0: 0.0, 1: -3.0, 2: 1.0}}])
    (path,) = convert_larcv(tmp_path / "sim.h5", tmp_path / "all")
    assert sites(path, "sparse3d_charge") == [{(0, 0, 0): 0, (0, 0, 1): -3, (0, 1, 0): 1}]
    (path,) = convert_larcv(tmp_path / "sim.h5", tmp_path / "some", threshold=1)
    assert sites(path, "sparse3d_charge") == [{(0, 0, 1): -3}]
    with pytest.raises(SpecError, match="threshold must be a number of at least 0"):
        convert_larcv(tmp_path / "sim.h5", tmp_path / "h5", threshold=-1)


def test_voxels_in_any_order_are_sorted(tmp_path):
    with h5py.File(tmp_path / "sim.h5", "w") as file:
        write_images(file, "sparse3d_charge", (2, 2, 2), [{0: {7: 1.0, 2: 2.0}}, {0: {3: 3.0, 1: 4.0}}])
    (path,) = convert_larcv(tmp_path / "sim.h5", tmp_path / "h5")
    with h5py.File(path) as file:
        assert file["sparse3d_charge/coords"][()].tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1]]
        assert file["sparse3d_charge/value"][()].tolist() == [2, 1, 4, 3]


def test_a_place_without_image_is_passed_over(tmp_path):
    with h5py.File(tmp_path / "sim.h5", "w") as file:
        events = [{0: {}, 1: {1: 1.0}}, {0: {2: 2.0}, 1: {}}]
        write_images(file, "sparse2d_wire", (2, 2), events, invalid={(0, 0)})
    (path,) = convert_larcv(tmp_path / "sim.h5", tmp_path / "h5")
    assert sites(path, "sparse2d_wire_0") == [{}, {(1, 0): 2}]
    assert sites(path, "sparse2d_wire_1") == [{(0, 1): 1}, {}]


def change(path, where, row, column, value):
    with h5py.File(path, "r+") as file:
        rows = file[where][()]
        rows[column][row] = value
        file[where][...] = rows


@pytest.mark.parametrize(
    ("part", "row", "column", "value", "message"),
    [
        ("voxels", 1, "id", 24, r"within a grid of \(2, 3, 4\) .* got number 24 in event 0"),
        ("voxels", 1, "id", 5, "each voxel once .* got number 5 twice in event 0"),
        ("voxel_extents", 2, "N", 9, "extents within 3 rows in .*voxel_extents.* got 9 rows from 2 in row 2"),
        ("extents", 2, "first", 9, "extents within 3 rows in .*extents.* got 1 rows from 9"),
        ("extents", 2, "N", 0, None),
    ],
)
def test_extents_and_voxels_that_contradict_each_other_are_corrupt(source, tmp_path, part, row, column, value, message):
    change(source, f"Data/sparse3d_charge_group/{part}", row, column, value)
    if message is None:
        (path,) = convert_larcv(source, tmp_path / "h5")
        assert sites(path, "sparse3d_charge")[2] == {}
        return
    with pytest.raises(CorruptDataError, match=message) as caught:
        convert_larcv(source, tmp_path / "h5")
    assert caught.value.file == str(source)


def test_a_damaged_event_costs_only_its_step(source, tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.convert.larcv.STEP_BYTES", 1)
    change(source, "Data/sparse3d_charge_group/voxels", 0, "id", 10**9)
    found = convert_larcv(source, tmp_path / "h5", on_error="skip")
    assert [(each.first, each.events, each.fault.event) for each in found.skipped] == [(0, 1, 0)]
    assert sites(found[0], "sparse3d_charge") == [{}, {(0, 0, 0): 3.5}]
    with h5py.File(found[0]) as file:
        assert file["event_id/event"][()].tolist() == [8, 1]


def test_a_file_of_damaged_events_only_is_not_written(source, tmp_path):
    convert_larcv(source, tmp_path / "h5", events_per_file=1)
    change(source, "Data/sparse3d_charge_group/voxels", 0, "id", 10**9)
    found = convert_larcv(source, tmp_path / "h5", events_per_file=1, on_error="skip", overwrite=True)
    assert [Path(path).name for path in found] == ["events_1.h5", "events_2.h5"]
    assert sorted(path.name for path in (tmp_path / "h5").iterdir()) == ["events_1.h5", "events_2.h5"]
    assert (found.events, found.skipped_events) == (2, 1)


def test_products_of_other_numbers_of_events_are_corrupt(source, tmp_path):
    with h5py.File(source, "r+") as file:
        file["Data/particle_truth_group/extents"].file.move("Data/particle_truth_group/extents", "old")
        file["Data/particle_truth_group/extents"] = file["old"][:2]
    with pytest.raises(CorruptDataError, match="one number of events in all products"):
        convert_larcv(source, tmp_path / "h5")


def test_a_grid_that_changes_is_refused(tmp_path):
    with h5py.File(tmp_path / "sim.h5", "w") as file:
        write_images(file, "sparse3d_charge", (2, 2, 2), [{0: {0: 1.0}}, {0: {0: 1.0}}])
    change(tmp_path / "sim.h5", "Data/sparse3d_charge_group/image_meta", 1, "number_of_voxels", [2, 2, 3])
    with pytest.raises(SpecError, match=r"got \(2, 2, 2\) in event 0 and \(2, 2, 3\) in event 1"):
        convert_larcv(tmp_path / "sim.h5", tmp_path / "h5")


def test_other_hdf5_files_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ECAL"] = np.zeros(3)
    with pytest.raises(FileFormatError, match=r"group 'Data' of larcv3 in .*a\.h5, found ECAL"):
        convert_larcv(tmp_path / "a.h5", tmp_path / "h5")


def test_what_was_written_is_no_source_of_the_next_run(source, tmp_path):
    convert_larcv(source, tmp_path / "h5")
    with pytest.raises(SpecError, match="expected to write beside the sources"):
        convert_larcv(tmp_path, tmp_path / "h5")


def test_command_converts(run, source, tmp_path):
    result = run("convert", "larcv", source, "--out", tmp_path / "h5", "-p", "sparse3d_*", "--events-per-file", 2)
    assert result.exit_code == 0, result.output
    assert "2 files, 3 events" in result.output
    assert sites(tmp_path / "h5/events_1.h5", "sparse3d_charge") == [{(0, 0, 0): 3.5}]
