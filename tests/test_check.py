"""Checking specifications, files and directories."""

import os

import h5py
import numpy as np
import pytest

from hepfeed.check import check_directory, check_file, check_spec
from hepfeed.errors import FileFormatError, SourceError, SpecError
from hepfeed.spec import SampleSpec

IMAGE = np.array([[0, 0, 0], [0, 0, 5]], np.float32)  # one of six cells is not 0


def write(path, events=4, image=IMAGE, **options):
    """Write a file of equal images with energies 0, 1, 2, ... GeV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("ECAL", data=np.repeat(image[None], events, 0), **options)
        file["energy"] = np.arange(events, dtype=np.float32)
    return path


@pytest.fixture
def spec(tmp_path):
    """Electrons: 4 + 6 events; pions: 5 events."""
    files = {"ele": [("1.h5", 4), ("2.h5", 6)], "pi": [("1.h5", 5)]}
    for label, named in files.items():
        for name, events in named:
            write(tmp_path / label / name, events)
    return SampleSpec([[str(tmp_path / label), ["ECAL", "energy"], label, 1.0] for label in files])


def only(report):
    (fault,) = report.faults
    return fault


# ---- specifications


def test_classes_count_their_files_and_events(spec):
    report = check_spec(spec, measure=False)
    assert [(c.label, c.index, c.files, c.events, c.kept) for c in report.classes] == [
        ("ele", 0, 2, 10, 10),
        ("pi", 1, 1, 5, 5),
    ]
    assert report.faults == ()


def test_the_filter_is_counted_apart(spec):
    filtered = SampleSpec(spec.samples, filter="energy > 2.5")
    # Of 0..3 one event is left, of 0..5 three, of 0..4 two.
    assert [(c.events, c.kept) for c in check_spec(filtered, measure=False).classes] == [(10, 4), (5, 2)]


def test_keys_say_how_they_are_stored(spec):
    image, energy = check_spec(spec, measure=False).keys
    assert (image.name, image.shape, image.dtype) == ("ECAL", (2, 3), "float32")
    assert (energy.name, energy.shape, energy.dtype) == ("energy", (), "float32")
    assert [(s.files, s.storage, s.chunk, s.codec) for s in image.storages] == [(3, "contiguous", (), "none")]
    assert (image.bytes, image.stored_bytes, image.ratio) == (15 * 24, 15 * 24, 1.0)


def test_without_measuring_there_is_no_cost_and_no_occupancy(spec):
    report = check_spec(spec, measure=False)
    assert report.cost is None
    assert [(key.occupancy, key.not_finite) for key in report.keys] == [(None, None)] * 2


def test_occupancy_is_the_part_of_items_that_is_not_zero(spec):
    image, energy = check_spec(spec).keys
    assert image.occupancy == pytest.approx(1 / 6)
    assert energy.occupancy == pytest.approx(12 / 15)  # each of the three files has one event of 0 GeV
    assert image.not_finite == 0


def test_values_that_are_not_finite_are_found(tmp_path):
    write(tmp_path / "a.h5", image=np.array([[1, np.nan], [np.inf, 1]], np.float32))
    report = check_spec(SampleSpec([[str(tmp_path / "a.h5"), ["ECAL"], "a"]]))
    assert report.keys[0].not_finite == 0.5
    assert report.advice[0].startswith("ECAL: 50.00% of its values are NaN or infinite")


def test_the_cost_counts_the_events_and_bytes_of_an_epoch(spec):
    cost = check_spec(spec).cost
    assert (cost.events, cost.epoch_events) == (15, 15)
    assert cost.epoch_batch_bytes == 15 * (24 + 4)
    assert cost.epoch_read_bytes == 15 * (24 + 4)  # contiguous: what is delivered is what is read
    seconds = cost.read_s + cost.inflate_s + cost.scatter_s
    assert cost.events_per_s == pytest.approx(1 / seconds)
    assert cost.events_per_s_all == pytest.approx(cost.cores / seconds)


def test_measuring_stops_after_the_window_with_enough_events(tmp_path):
    write(tmp_path / "a.h5", events=300)
    spec = SampleSpec([[str(tmp_path / "a.h5"), ["ECAL"], "a"]])
    assert check_spec(spec, events=100).cost.events == 128  # a window of one batch
    assert check_spec(spec, events=129).cost.events == 256
    assert check_spec(spec, events=1000).cost.events == 300


def test_less_than_one_event_to_measure_is_an_error(spec):
    with pytest.raises(SpecError, match="events must be 1 or more, not 0"):
        check_spec(spec, events=0)


def test_a_specification_is_read_from_its_file(spec, tmp_path):
    spec.save(tmp_path / "lcd.yaml")
    assert check_spec(tmp_path / "lcd.yaml", measure=False).classes == check_spec(spec, measure=False).classes


# ---- faults


def test_each_file_that_fails_is_a_fault_and_the_others_are_reported(spec, tmp_path):
    (tmp_path / "ele/2.h5").write_bytes(b"")
    (tmp_path / "pi/0.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    report = check_spec(SampleSpec([[str(tmp_path / c), ["ECAL", "energy"], c] for c in ("ele", "pi")]))
    assert {os.path.relpath(f.file, tmp_path): f.error for f in report.faults} == {
        "ele/2.h5": "FileFormatError",
        "pi/0.h5": "FileFormatError",
    }
    assert "zero bytes" in report.faults[0].message
    assert "git lfs pull" in report.faults[1].message
    assert [(c.files, c.events) for c in report.classes] == [(1, 4), (1, 5)]
    assert report.cost.events == 9


def test_a_missing_key_is_a_fault_of_its_file(spec, tmp_path):
    with h5py.File(tmp_path / "ele/2.h5", "a") as file:
        file.move("ECAL", "ECAL2")
    fault = only(check_spec(spec))
    assert (fault.error, fault.key) == ("KeyMissingError", "ECAL")
    assert fault.file == str(tmp_path / "ele/2.h5")
    assert "did you mean 'ECAL2'?" in fault.message


def test_every_file_of_another_shape_is_a_fault(spec, tmp_path):
    other = np.zeros((3, 3), np.float32)
    write(tmp_path / "ele/2.h5", image=other)
    write(tmp_path / "pi/1.h5", image=other)
    write(tmp_path / "pi/2.h5")
    report = check_spec(SampleSpec([[str(tmp_path / c), ["ECAL", "energy"], c] for c in ("ele", "pi")]))
    assert [os.path.relpath(f.file, tmp_path) for f in report.faults] == ["ele/2.h5", "pi/1.h5"]
    assert "(3, 3)" in report.faults[0].message
    assert [c.events for c in report.classes] == [4, 4]


def test_many_files_that_do_not_fit_end_the_check(tmp_path):
    write(tmp_path / "a/0.h5")
    for number in range(1, 31):
        write(tmp_path / f"a/{number}.h5", image=np.zeros((3, 3), np.float32))
    report = check_spec(SampleSpec([[str(tmp_path / "a"), ["ECAL"], "a"]]))
    assert len(report.faults) == 21
    assert "ends after 20 files" in report.faults[-1].message
    assert report.keys == ()


def test_where_no_file_can_be_read_each_is_a_fault(tmp_path):
    for name in ("a.h5", "b.h5", "c.h5", "d.h5"):
        (tmp_path / name).write_bytes(b"")
    report = check_spec(SampleSpec([[str(tmp_path), ["ECAL"], "a"]]))
    assert [os.path.basename(fault.file) for fault in report.faults] == ["a.h5", "b.h5", "c.h5", "d.h5"]
    assert (report.keys, report.cost) == ((), None)
    assert [(c.label, c.files, c.events) for c in report.classes] == [("a", 0, 0)]


def test_a_filter_that_keeps_nothing_is_one_fault(spec):
    report = check_spec(SampleSpec(spec.samples, filter="energy > 99"))
    assert "no events are left" in only(report).message


def test_a_broken_chunk_is_found_by_measuring(tmp_path):
    path = write(tmp_path / "a.h5", events=8, chunks=(4, 2, 3), compression="gzip")
    with h5py.File(path) as file:
        place = file["ECAL"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    spec = SampleSpec([[str(path), ["ECAL"], "a"]])
    assert check_spec(spec, measure=False).faults == ()
    report = check_spec(spec)
    assert {(fault.error, fault.event) for fault in report.faults} == {
        ("CorruptDataError", event) for event in (4, 5, 6, 7)
    }
    assert report.cost.events == 4


# ---- advice


def advice(path, key="ECAL"):
    report = check_spec(SampleSpec([[str(path), [key], "a"]]))
    return [sentence for sentence in report.advice if sentence.startswith(key)]


def test_small_chunks_are_to_be_rewritten_with_about_a_megabyte(tmp_path):
    # 10 kB an event: 104 events make 1 MiB.
    image = np.ones((50, 50), np.float32)
    path = write(tmp_path / "a.h5", 500, image, chunks=(1, 50, 50), compression="gzip")
    assert advice(path) == [
        "ECAL: chunks of 1 x 50 x 50 (10.0 kB) are small: rewrite with 104 events a chunk: "
        "h5repack -l ECAL:CHUNK=104x50x50 -f ECAL:GZIP=4 OLD.h5 NEW.h5"
    ]


def test_chunks_that_cut_events_are_counted(tmp_path):
    image = np.ones((50, 50), np.float32)
    path = write(tmp_path / "a.h5", 500, image, chunks=(500, 10, 8), compression="gzip")
    (sentence,) = advice(path)  # 5 pieces of 10, and 7 of 8
    assert "chunks of 500 x 10 x 8 (160.0 kB) cut an event into 35 pieces" in sentence


def test_good_chunks_need_no_change(tmp_path):
    image = np.ones((50, 50), np.float32)
    assert advice(write(tmp_path / "a.h5", 500, image, chunks=(100, 50, 50), compression="gzip")) == []


def test_sparse_data_without_compression_are_to_be_compressed(tmp_path):
    image = np.zeros((50, 50), np.float32)
    image[0, 0] = 1  # 1 of 2,500
    (sentence,) = advice(write(tmp_path / "a.h5", 500, image))
    assert sentence.startswith("ECAL: stored without compression, but 100.0% of it is 0: compress it: h5repack")


def test_data_that_need_the_library_name_the_filter(tmp_path):
    image = np.ones((50, 50), np.float32)
    (sentence,) = advice(write(tmp_path / "a.h5", 500, image, chunks=(100, 50, 50), compression="lzf"))
    assert sentence.startswith("ECAL: read through h5py because of filter lzf")


def test_different_ways_of_storing_are_named(tmp_path):
    image = np.ones((50, 50), np.float32)
    write(tmp_path / "a.h5", 500, image, chunks=(100, 50, 50), compression="gzip")
    write(tmp_path / "b.h5", 500, image, chunks=(50, 50, 50), compression="gzip")
    (sentence,) = advice(tmp_path)
    assert "1 files 100 x 50 x 50 deflate; 1 files 50 x 50 x 50 deflate" in sentence


def test_double_precision_is_to_be_converted(tmp_path):
    (sentence,) = advice(write(tmp_path / "a.h5", 500, np.ones((50, 50))))
    assert sentence == "ECAL: float64 takes twice the memory of float32: dtypes={'ECAL': 'float32'}"


def test_the_full_shuffle_of_shared_chunks_is_advised_against(tmp_path):
    path = write(tmp_path / "a.h5", 100, chunks=(20, 2, 3), compression="gzip")
    report = check_spec(SampleSpec([[str(path), ["ECAL"], "a"]]))
    assert (report.cost.order, report.cost.block) == ("window", 20)
    assert "shuffle='full' would decode a chunk up to 20 times" in report.advice[-1]


# ---- files


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
    write(tmp_path / "ele/1.h5")
    write(tmp_path / "pi/1.h5", 7)
    (tmp_path / "pi/2.h5").write_bytes(b"")
    steps = []
    report = check_directory(tmp_path, progress=lambda *step: steps.append(step))
    assert [(os.path.relpath(f.path, tmp_path), f.events) for f in report.files] == [("ele/1.h5", 4), ("pi/1.h5", 7)]
    assert only(report).file == str(tmp_path / "pi/2.h5")
    assert steps == [("opening files", n, 3) for n in (1, 2, 3)]


def test_a_directory_without_hdf5_files_is_an_error(tmp_path):
    with pytest.raises(SpecError, match=r"there is no file \*\.h5"):
        check_directory(tmp_path)
    with pytest.raises(SpecError, match="is no directory"):
        check_directory(tmp_path / "none")


def test_checking_needs_no_torch(run_script):
    assert run_script("import sys, hepfeed.check; print('torch' in sys.modules)") == "False\n"
