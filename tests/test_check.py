"""Checking specifications."""

import os

import h5py
import numpy as np
import pytest

from hepfeed.check import check_spec
from hepfeed.errors import SpecError
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


def test_many_files_that_do_not_fit_are_each_a_fault_and_the_others_are_measured(tmp_path):
    write(tmp_path / "a/00.h5")
    for number in range(1, 31):
        write(tmp_path / f"a/{number:02}.h5", image=np.zeros((3, 3), np.float32))
    report = check_spec(SampleSpec([[str(tmp_path / "a"), ["ECAL"], "a"]]))
    assert [os.path.basename(fault.file) for fault in report.faults] == [f"{n:02}.h5" for n in range(1, 31)]
    assert {(fault.error, fault.key) for fault in report.faults} == {("SpecError", "ECAL")}
    assert [(c.files, c.events) for c in report.classes] == [(1, 4)]
    assert report.cost.events == 4


def test_a_file_of_another_type_is_a_fault_that_names_the_conversion(spec, tmp_path):
    write(tmp_path / "ele/2.h5", image=IMAGE.astype(np.float64))
    report = check_spec(spec)
    assert only(report).file == str(tmp_path / "ele/2.h5")
    assert "dtypes={'ECAL': 'float64'}" in only(report).message
    assert [(c.label, c.files, c.events) for c in report.classes] == [("ele", 1, 4), ("pi", 1, 5)]


def test_a_conversion_that_no_file_allows_is_one_fault(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name)
    report = check_spec(SampleSpec([[str(tmp_path), ["ECAL"], "a"]], dtypes={"ECAL": "int32"}))
    assert (only(report).error, only(report).key, report.keys) == ("SpecError", "ECAL", ())
    assert "as int32, but it is stored as float32" in only(report).message


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


def test_checking_needs_no_torch(run_script):
    assert run_script("import sys, hepfeed.check; print('torch' in sys.modules)") == "False\n"
