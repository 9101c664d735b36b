"""Recognising what HDF5 files and directories hold."""

import os

import h5py
import numpy as np
import pytest
from layout_files import FILES

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
    assert report.groups == {3: ("RD/trigger", "RD/waveform"), 12: ("Sensors",)}
    assert (report.jagged, report.fed) == ((), ("RD/trigger", "RD/waveform"))
    assert {d.path: (d.dtype, d.problem) for d in report.datasets} == {
        "RD/trigger": ("int16", ""),
        "RD/waveform": ("int16", ""),
        "Sensors": ("table of 2 fields", ""),
        "version": ("int64", "no event axis"),
    }


def test_the_fields_of_tables_can_be_fed(tmp_path):
    FILES["atlas"](tmp_path / "a.h5")
    report = check_file(tmp_path / "a.h5")
    assert report.verdict.startswith("can be fed: 6 events with the keys jets.pt, jets.eta, jets.flavour")
    assert (report.events, report.fed) == (6, ("jets", "tracks"))


def test_a_file_without_numbers_can_not_be_fed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["names"] = np.array([b"a", b"b"])
        file["version"] = 7
    report = check_file(tmp_path / "a.h5")
    assert report.verdict == (
        "can't be fed: no data set has numbers with one row an event; there are names (text), version (int64)"
    )
    assert (report.events, report.keys) == (0, ())


def test_an_empty_file_can_not_be_fed(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    assert check_file(tmp_path / "a.h5").verdict.endswith("there are none")


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("km3net", "ragged hits: 6 events, 11 hits (km3net: hits/_indices has index and n_items)"),
        (
            "icetray",
            "ragged rows of Pulses: 6 events, 11 rows of Pulses (icetray: __I3Index__/Pulses has start and stop)",
        ),
        ("lhe", "ragged particles: 6 events, 11 particles (lhe: events has start and nparticles)"),
        (
            "larcv3",
            "ragged voxels: 6 events, 11 voxels (larcv: Data/sparse3d_voxels_group has extents and voxel_extents)",
        ),
        ("region_reference", "ragged hits: 6 events, 11 hits (region_reference: events has region references hit_ref)"),
        ("flat", "ragged Hits: 6 events, 11 Hits (offsets: Hits/offsets begins each event)"),
        ("pynuml", "ragged rows of hit_table: 4 events, 11 rows of hit_table (pynuml: hit_table/event_id.seq_cnt)"),
        ("variable_length", "ragged C: 6 events, 11 C (variable_length: images3D/C has rows of variable length)"),
        (
            "row_table",
            "ragged rows of Events: 4 events, 11 rows of Events (row_table: column 'event' of RECO/Events has the "
            "event's number)",
        ),
        ("row_array", "ragged hits: 4 events, 11 hits (row_table: column 0 of HitData has the event's number)"),
        (
            "pandas_fixed",
            "ragged rows of Tracks: 4 events, 11 rows of Tracks (pandas: fixed format, columns lie in blocks by type; "
            "event has the event's number)",
        ),
    ],
)
def test_ragged_layouts_are_named_with_their_events_and_rows(tmp_path, layout, sentence):
    expected = FILES[layout](tmp_path / "a.h5")
    report = check_file(tmp_path / "a.h5")
    assert report.layouts[0].sentence == sentence
    assert report.verdict.startswith(f"can be fed: {expected.events} events with the keys ")
    assert report.verdict.partition("; ")[2].startswith(sentence)
    assert {key for key in expected.jagged if "[" not in key} <= set(report.jagged)
    assert {key for key in expected.dense if "[" not in key} - {"events", "hits/_indices.n_items"} <= set(report.keys)


def test_packets_have_no_event_boundaries(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["packets"] = np.zeros(9, [("packet_type", "u1"), ("timestamp", "u8"), ("dataword", "u1")])
    report = check_file(tmp_path / "a.h5")
    assert report.verdict.startswith("can't be fed: 9 LArPix packets in the order of readout (packets) without event")
    assert report.layouts[0].events is None
    assert (report.events, report.keys) == (0, ())


def test_rows_of_an_event_apart_are_told(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.array([(3, 0.0), (3, 1.0), (7, 2.0), (3, 3.0)], [("event", "i4"), ("x", "f4")])
    report = check_file(tmp_path / "a.h5")
    assert report.verdict.startswith("can't be fed: event 3 comes back in row 3 of 'a'")


def test_a_table_with_one_row_an_event_is_not_ragged(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = np.zeros(3, [("event", "i4"), ("X", "f8")])
        rows["event"] = [1, 2, 4]
        file["events"] = rows
        file["image"] = np.zeros((3, 4, 4))
    report = check_file(tmp_path / "a.h5")
    assert report.layouts == ()
    assert report.keys == ("events.event", "events.X", "image")


def test_images_come_before_tables_of_other_events(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((30, 4, 4))
        rows = file.create_dataset("log", (2,), h5py.vlen_dtype(np.int32))
        rows[0], rows[1] = [1, 2], [3]
    report = check_file(tmp_path / "a.h5")
    assert (report.events, report.keys) == (30, ("image",))


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
