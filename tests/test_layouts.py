"""Recognising what HDF5 files and directories hold."""

import os

import h5py
import numpy as np
import pytest

from hepfeed.errors import FileFormatError, SourceError, SpecError
from hepfeed.layouts import check_directory, check_file


def test_data_sets_with_one_row_an_event_can_be_fed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["RD/waveform"] = np.zeros((3, 12, 50), np.int16)
        file["RD/trigger"] = np.zeros((3, 4), np.int16)
        file["Sensors"] = np.zeros(12, [("channel", "i4"), ("id", "i4")])
        file["version"] = 7
    report = check_file(tmp_path / "a.h5")
    assert report.verdict == "can be fed: 3 events with the keys RD/trigger, RD/waveform"
    assert (report.events, report.keys) == (3, ("RD/trigger", "RD/waveform"))
    assert report.groups == {3: ("RD/trigger", "RD/waveform")}
    assert {d.path: (d.dtype, d.problem) for d in report.datasets} == {
        "RD/trigger": ("int16", ""),
        "RD/waveform": ("int16", ""),
        "Sensors": ("table of 2 fields", "not numbers"),
        "version": ("int64", "no event axis"),
    }


def test_a_file_of_tables_can_not_be_fed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["jets"] = np.zeros(5, [("pt", "f4"), ("eta", "f4")])
        file["tracks"] = np.zeros((5, 40), [("d0", "f4"), ("valid", "?")])
    report = check_file(tmp_path / "a.h5")
    assert report.verdict == (
        "can't be fed: no data set has numbers with one row an event; there are jets (table of 2 fields), "
        "tracks (table of 2 fields): copy their columns to data sets of numbers"
    )
    assert (report.events, report.keys) == (0, ())


def test_an_empty_file_can_not_be_fed(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    assert check_file(tmp_path / "a.h5").verdict.endswith("there are none")


INDICES = np.array([(0, 2), (2, 3)], [("index", "i8"), ("n_items", "i8")])
BOUNDS = np.array([(0, 2), (2, 5)], [("start", "u8"), ("stop", "u8")])


def km3net(file):
    file["hits/_indices"] = INDICES
    file["hits/time"] = np.zeros(5)
    file["hits/tot"] = np.zeros(5, np.uint8)


def icetray(file):
    file["__I3Index__/Pulses"] = BOUNDS
    file["Pulses"] = np.zeros(5, [("time", "f8"), ("charge", "f8")])


def lhe(file):
    file["events"] = np.array([[1.0, 2, 0], [1, 3, 2]])
    file["events"].attrs["properties"] = ["pid", "nparticles", "start"]
    file["particles"] = np.zeros((5, 13))


def larcv3(file):
    group = file.create_group("Data/sparse3d_voxels_group")
    group["extents"] = np.zeros(2, [("first", "u8"), ("n", "u8")])
    group["voxel_extents"] = np.zeros(2, [("first", "u8"), ("N", "u8"), ("ID", "u8")])
    group["voxels"] = np.zeros(5, [("id", "u8"), ("value", "f4")])


def larpix(file):
    hits = file.create_dataset("hits", data=np.zeros(5, [("px", "f8"), ("q", "f8")]))
    events = np.zeros(2, [("evid", "i8"), ("hit_ref", h5py.regionref_dtype)])
    file.create_dataset("events", (2,), dtype=events.dtype)
    for row, part in enumerate((slice(0, 2), slice(2, 5))):
        events[row] = (row, hits.regionref[part])
    file["events"][...] = events


def offsets(file):
    file["ECAL/C"] = np.zeros((5, 3), np.int16)
    file["ECAL/V"] = np.zeros(5, np.float32)
    file["ECAL/offsets"] = np.array([0, 2, 5])


def pynuml(file):
    file["hit_table/event_id.seq_cnt"] = np.array([[0, 2], [1, 3]])
    file["hit_table/integral"] = np.zeros((5, 1), np.float32)


def variable_length(file):
    rows = file.create_dataset("trajectory", (2,), h5py.vlen_dtype(np.float32))
    rows[0], rows[1] = np.zeros(2), np.zeros(3)


def row_table(file):
    rows = np.zeros(5, [("event", "i4"), ("X", "f8")])
    rows["event"] = [33, 33, 36, 36, 36]
    file["RECO/Events"] = rows


def row_array(file):
    rows = np.zeros((5, 7), np.float32)
    rows[:, 0] = [1, 1, 2, 2, 2]
    file["HitData"] = rows
    file["TruthData"] = np.zeros((2, 9), np.float32)


def pandas_fixed(file):
    file["Tracks/axis0"] = np.array([b"event", b"x"])
    file["Tracks/axis1"] = np.arange(5)
    file["Tracks/block0_items"] = np.array([b"event"])
    file["Tracks/block0_values"] = np.array([[7], [7], [8], [8], [8]])
    file["Tracks/block1_items"] = np.array([b"x"])
    file["Tracks/block1_values"] = np.zeros((5, 1))


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (km3net, "ragged hits: 2 events, 5 hits (KM3NeT: hits/_indices has index and n_items)"),
        (icetray, "ragged rows of Pulses: 2 events, 5 rows of Pulses (IceTray: __I3Index__/Pulses has start and stop)"),
        (lhe, "ragged particles: 2 events, 5 particles (LHE: events has start and nparticles)"),
        (
            larcv3,
            "ragged voxels: 2 events, 5 voxels (larcv3: Data/sparse3d_voxels_group has extents and voxel_extents)",
        ),
        (larpix, "ragged hits: 2 events, 5 hits (LArPix: events has region references hit_ref)"),
        (offsets, "ragged ECAL: 2 events, 5 ECAL (offsets: ECAL/offsets begins each event)"),
        (pynuml, "ragged rows of hit_table: 2 events, 5 rows of hit_table (pynuml: hit_table/event_id.seq_cnt)"),
        (variable_length, "ragged trajectory: 2 events, 5 items (HDF5 variable length: trajectory)"),
        (row_table, "ragged rows: 2 events, 5 rows (row table: column 'event' of RECO/Events has the event's number)"),
        (row_array, "ragged hits: 2 events, 5 hits (row table: column 0 of HitData has the event's number)"),
        (pandas_fixed, "ragged rows: 2 events, 5 rows of 2 columns in Tracks (pandas, fixed layout: "),
    ],
)
def test_ragged_layouts_are_named_with_their_events_and_rows(tmp_path, layout, sentence):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout(file)
    report = check_file(tmp_path / "a.h5")
    assert report.verdict.startswith(sentence)
    assert "can't be fed as dense keys yet" in report.verdict
    assert [(one.events, one.rows) for one in report.layouts] == [(2, 5)]


@pytest.mark.parametrize(
    ("layout", "keys"), [(km3net, ()), (lhe, ("events",)), (row_array, ("TruthData",)), (offsets, ()), (icetray, ())]
)
def test_beside_a_ragged_layout_only_data_with_one_row_an_event_can_be_fed(tmp_path, layout, keys):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout(file)
    report = check_file(tmp_path / "a.h5")
    assert report.keys == keys
    expected = f"can be fed directly are: {keys[0]} (2 events)" if keys else "there is no data set that can be fed"
    assert expected in report.verdict


def test_packets_have_no_event_boundaries(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["packets"] = np.zeros(9, [("packet_type", "u1"), ("timestamp", "u8"), ("dataword", "u1")])
    report = check_file(tmp_path / "a.h5")
    assert report.verdict.startswith("9 LArPix packets in the order of readout (packets) without event boundaries")
    assert report.layouts[0].events is None


def test_a_table_with_one_row_an_event_is_not_ragged(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = np.zeros(3, [("event", "i4"), ("X", "f8")])
        rows["event"] = [1, 2, 4]
        file["events"] = rows
        file["image"] = np.zeros((3, 4, 4))
    report = check_file(tmp_path / "a.h5")
    assert report.layouts == ()
    assert report.keys == ("image",)


def test_a_file_that_is_not_hdf5_is_an_error_that_says_what_it_is(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"root" + bytes(600))
    with pytest.raises(FileFormatError, match="a ROOT file"):
        check_file(tmp_path / "a.h5")
    with pytest.raises(SourceError, match="No such file"):
        check_file(tmp_path / "b.h5")


# ---- directories


def test_a_directory_reports_its_files_and_faults(tmp_path):
    for name, events in (("ele/1.h5", 4), ("pi/1.h5", 7)):
        (tmp_path / name).parent.mkdir()
        with h5py.File(tmp_path / name, "w") as file:
            file["ECAL"] = np.zeros((events, 2, 3), np.float32)
    (tmp_path / "pi/2.h5").write_bytes(b"")
    steps = []
    report = check_directory(tmp_path, progress=lambda *step: steps.append(step))
    assert [(os.path.relpath(f.path, tmp_path), f.events) for f in report.files] == [("ele/1.h5", 4), ("pi/1.h5", 7)]
    (fault,) = report.faults
    assert (fault.error, fault.file) == ("FileFormatError", str(tmp_path / "pi/2.h5"))
    assert steps == [("opening files", n, 3) for n in (1, 2, 3)]


def test_a_directory_without_hdf5_files_is_an_error(tmp_path):
    with pytest.raises(SpecError, match=r"there is no file \*\.h5"):
        check_directory(tmp_path)
    with pytest.raises(SpecError, match="is no directory"):
        check_directory(tmp_path / "none")


def test_recognising_needs_no_torch_and_no_reader(run_script):
    code = "import sys, hepfeed.layouts; print([m for m in ('torch', 'hepfeed.reader') if m in sys.modules])"
    assert run_script(code) == "[]\n"
