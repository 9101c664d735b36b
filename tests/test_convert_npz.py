"""Conversion of NumPy archives, and what all conversions share."""

import itertools
import json
import os
import signal
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import hepfeed as hf
from hepfeed.cli.convert import register
from hepfeed.convert import convert_npz
from hepfeed.convert.block import Column, Field, Rows, bounded_steps, densify, sparsify
from hepfeed.convert.source import natural
from hepfeed.convert.writer import EventWriter, check_counts
from hepfeed.errors import (
    CorruptDataError,
    FileFormatError,
    HepfeedError,
    KeyMissingError,
    ResourceError,
    SourceError,
    SpecError,
)


@pytest.fixture
def run():
    """Call the command line with these arguments."""
    app = typer.Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def archive(tmp_path):
    """Seven events: an image of 2 x 3, a number, a vector."""
    path = tmp_path / "raw" / "run.npz"
    path.parent.mkdir()
    image = np.arange(42, dtype=np.float32).reshape(7, 2, 3)
    np.savez_compressed(path, image=image, energy=np.arange(7.0), target=np.arange(14, dtype=np.int16).reshape(7, 1, 2))
    return path


def joined(paths, key):
    parts = []
    for path in paths:
        with h5py.File(path) as file:
            parts.append(file[key][()])
    return np.concatenate(parts)


def events_of(paths, key, column="values"):
    """The rows of each event of a ragged key."""
    events = []
    for path in paths:
        with h5py.File(path) as file:
            values, offsets = file[key][column][()], file[key]["offsets"][()]
            assert offsets.dtype == np.int64
            assert offsets[-1] == len(values)
            events += [values[a:b] for a, b in itertools.pairwise(offsets)]
    return events


def leftovers(folder):
    return [path.name for path in Path(folder).rglob("*") if path.name.endswith(".tmp")]


# ---- arrays


def test_every_event_arrives_in_files_of_the_asked_number(archive, tmp_path):
    out = tmp_path / "h5"
    paths = convert_npz(archive, out, events_per_file=3, workers=1)
    assert list(paths) == [str(out / f"events_{k}.h5") for k in range(3)]
    assert paths.events == 7
    with np.load(archive) as source:
        for key in source:
            values = joined(paths, key)
            assert values.dtype == source[key].dtype
            np.testing.assert_array_equal(values, source[key])
    assert [len(joined([path], "energy")) for path in paths] == [3, 3, 1]


@pytest.mark.parametrize(
    "dtype", ["<f2", "<f4", ">f8", ">i2", "<u8", ">u4", "|i1", "|b1", "<c8", [("pt", ">f4"), ("n", "<i2")]]
)
def test_types_are_kept_in_the_byte_order_of_the_machine(tmp_path, dtype):
    values = np.zeros((3, 2), dtype)
    values.view(np.uint8)[...] = np.arange(values.nbytes, dtype=np.uint8).reshape(3, -1) % 2
    np.savez(tmp_path / "a.npz", x=values)
    with h5py.File(convert_npz(tmp_path / "a.npz", tmp_path / "h5")[0]) as file:
        assert file["x"].dtype == values.dtype.newbyteorder("=")
        assert file["x"].dtype.isnative
        np.testing.assert_array_equal(file["x"][()], values.astype(values.dtype.newbyteorder("=")))


def test_fortran_order_changes_nothing(tmp_path):
    values = np.asfortranarray(np.arange(24).reshape(4, 2, 3))
    np.savez(tmp_path / "a.npz", x=values)
    np.testing.assert_array_equal(
        joined(convert_npz(tmp_path / "a.npz", tmp_path / "h5", events_per_file=3), "x"), values
    )


def test_files_of_several_archives_go_end_to_end_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        np.savez(tmp_path / f"run{number}.npz", x=np.full(2, number))
    paths = convert_npz(str(tmp_path / "run*.npz"), tmp_path / "h5", events_per_file=3, workers=1)
    assert [joined([path], "x").tolist() for path in paths] == [[1, 1, 2], [2, 10, 10]]
    with h5py.File(paths[0]) as file:
        records = json.loads(file.attrs["sources"])
    assert [(Path(r["path"]).name, r["first"], r["end"]) for r in records] == [("run1.npz", 0, 2), ("run2.npz", 0, 1)]


def test_folders_below_a_directory_are_classes(tmp_path):
    for name in ("signal", "background"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        np.savez(tmp_path / "raw" / name / "a.npz", x=np.zeros(2))
    out = tmp_path / "h5"
    paths = convert_npz(tmp_path / "raw", out)
    assert list(paths) == [str(out / "background/background_0.h5"), str(out / "signal/signal_0.h5")]
    with h5py.File(paths[1]) as file:
        assert file.attrs["class"] == "signal"


def test_a_feed_reads_what_was_converted(archive, tmp_path):
    convert_npz(archive, tmp_path / "h5" / "electron", events_per_file=4)
    spec = hf.SampleSpec([[str(tmp_path / "h5/electron/*.h5"), ["image", "energy"], "electron", 1.0]])
    dataset = hf.EventDataset(spec)
    assert len(dataset) == 7
    assert dataset[5]["energy"] == 5.0
    np.testing.assert_array_equal(dataset[5]["image"], np.arange(30, 36).reshape(2, 3))


def test_keys_are_chosen_by_name_or_glob(archive, tmp_path):
    with h5py.File(convert_npz(archive, tmp_path / "h5", keys=["energy", "im*"])[0]) as file:
        assert sorted(file) == ["energy", "image"]


def test_large_arrays_are_read_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.convert.npz.STEP_BYTES", 100)
    values = np.random.default_rng(0).normal(size=(501, 7))
    np.savez_compressed(tmp_path / "a.npz", x=values)
    paths = convert_npz(tmp_path / "a.npz", tmp_path / "h5", events_per_file=200, workers=1)
    np.testing.assert_array_equal(joined(paths, "x"), values)


# ---- ragged


def ragged(*events):
    made = np.empty(len(events), object)
    made[:] = events
    return made


def test_objects_become_values_and_offsets(tmp_path):
    events = [np.float32([[1, 2], [3, 4]]), np.empty((0, 2), np.float32), [], np.float32([[5, 6]])]
    np.savez(tmp_path / "a.npz", hits=ragged(*events), n=np.array([2, 0, 0, 1]))
    paths = convert_npz(tmp_path / "a.npz", tmp_path / "h5", allow_pickle=True, events_per_file=3, workers=1)
    found = events_of(paths, "hits")
    assert [event.tolist() for event in found] == [[[1, 2], [3, 4]], [], [], [[5, 6]]]
    assert found[0].dtype == np.float32


def test_events_without_any_row_have_values_of_length_zero(tmp_path):
    np.savez(tmp_path / "a.npz", hits=ragged(np.empty(0, np.int8), np.empty(0, np.int8)))
    with h5py.File(convert_npz(tmp_path / "a.npz", tmp_path / "h5", allow_pickle=True)[0]) as file:
        assert (file["hits/values"].shape, file["hits/values"].dtype) == ((0,), np.int8)
        assert file["hits/offsets"][()].tolist() == [0, 0, 0]


def test_a_file_without_any_row_fits_every_other(tmp_path):
    np.savez(tmp_path / "a1.npz", hits=ragged([], []))
    np.savez(tmp_path / "a2.npz", hits=ragged(np.float32([[1, 2]]), np.zeros((0, 2), np.float32)))
    np.savez(tmp_path / "a3.npz", hits=ragged([]))
    paths = convert_npz(str(tmp_path / "a*.npz"), tmp_path / "h5", allow_pickle=True, events_per_file=2)
    assert [event.tolist() for event in events_of(paths, "hits")] == [[], [], [[1, 2]], [], []]
    with h5py.File(paths[0]) as file:
        assert (file["hits/values"].shape, file["hits/values"].dtype) == ((0, 2), np.float32)


def test_objects_need_leave_to_be_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", hits=ragged(np.zeros(2), np.zeros(3)))
    with pytest.raises(SpecError, match=r"'hits' of .* holds Python objects: allow pickle if you trust"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ((np.zeros(2), "text"), "got str in event 1|<U4 .* in event 1"),
        ((np.zeros(2), np.zeros(2, np.float32)), r"float64 \(\) in event 0 and float32 \(\) in event 1"),
        ((np.zeros((1, 2)), np.zeros((1, 3))), r"float64 \(2,\) in event 0 and float64 \(3,\) in event 1"),
        ((np.zeros(2), None), "got NoneType in event 1"),
    ],
)
def test_objects_that_are_no_rows_of_one_kind_are_refused(tmp_path, events, message):
    np.savez(tmp_path / "a.npz", hits=ragged(*events))
    with pytest.raises(SpecError, match=message) as caught:
        convert_npz(tmp_path / "a.npz", tmp_path / "h5", allow_pickle=True)
    assert caught.value.key == "hits"


# ---- sparse


def test_sparse_form_keeps_the_occupied_sites_of_images_only(tmp_path):
    image = np.zeros((3, 2, 4), np.float16)
    image[0, 1, 2], image[0, 0, 3], image[2, 1, 0], image[2, 0, 0] = 2, -1, 0.5, np.nan
    np.savez(tmp_path / "a.npz", image=image, target=np.zeros((3, 1, 5)))
    (path,) = convert_npz(tmp_path / "a.npz", tmp_path / "h5", form="sparse")
    with h5py.File(path) as file:
        group = file["image"]
        assert group["coords"][()].tolist() == [[0, 3], [1, 2], [0, 0], [1, 0]]
        np.testing.assert_array_equal(group["value"][()], np.float16([-1, 2, np.nan, 0.5]))
        assert group["offsets"][()].tolist() == [0, 2, 2, 4]
        assert (group["coords"].dtype, group["value"].dtype) == (np.int16, np.float16)
        assert group.attrs["spatial_shape"].tolist() == [2, 4]
        assert file["target"].shape == (3, 1, 5)


def test_threshold_is_on_the_absolute_value(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.int8([[[-128, 3], [2, -2]]]))
    (path,) = convert_npz(tmp_path / "a.npz", tmp_path / "h5", form="sparse", threshold=2)
    with h5py.File(path) as file:
        assert file["image/value"][()].tolist() == [-128, 3]
        assert json.loads(file.attrs["options"])["threshold"] == 2


def test_images_can_be_named(tmp_path):
    np.savez(tmp_path / "a.npz", wave=np.eye(3), image=np.ones((3, 2, 2)))
    (path,) = convert_npz(tmp_path / "a.npz", tmp_path / "h5", form="sparse", images="wave")
    with h5py.File(path) as file:
        assert file["wave/coords"][()].tolist() == [[0], [1], [2]]
        assert file["image"].shape == (3, 2, 2)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_dense_images_come_back_from_their_sites(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    values = data.draw(st.lists(st.integers(-2, 2), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    images = np.array(values, np.int8).reshape(shape)
    rows = sparsify(images)
    np.testing.assert_array_equal(densify(rows, shape[1:]), images)
    events = np.repeat(np.arange(shape[0]), rows.counts)
    keys = [(int(e), *map(int, c)) for e, c in zip(events, rows.columns["coords"])]
    assert keys == sorted(set(keys))
    assert rows.columns["coords"].tolist() == np.argwhere(images)[:, 1:].tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 20))
def test_steps_cover_all_events_once_and_hold_their_bound(sizes, most):
    steps = list(bounded_steps(np.array(sizes, np.int64), 3, most))
    assert [event for start, stop in steps for event in range(start, stop)] == list(range(3, 3 + len(sizes)))
    for start, stop in steps:
        assert stop == start + 1 or sum(sizes[start - 3 : stop - 3]) <= most


def test_names_sort_by_their_numbers():
    assert sorted(["run10_2", "run2", "run10_1", "a"], key=natural) == ["a", "run2", "run10_1", "run10_2"]


# ---- provenance, resume, interruption


def test_a_file_says_where_its_events_come_from(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    monkeypatch.setattr("sys.argv", ["hepfeed", "convert", "npz", "a b.npz"])
    with h5py.File(convert_npz(archive, tmp_path / "h5", keys="energy")[0]) as file:
        attributes = dict(file.attrs)
    assert attributes["source_format"] == "npz"
    assert attributes["source"] == str(archive)
    assert attributes["command"] == "hepfeed convert npz 'a b.npz'"
    assert attributes["creator"] == f"hepfeed {hf.__version__}"
    assert attributes["created"] == "2017-07-14T02:40:00+00:00"
    assert attributes["events"] == 7
    assert json.loads(attributes["options"])["keys"] == ["energy"]
    assert json.loads(attributes["sources"]) == [
        {
            "path": str(archive),
            "bytes": archive.stat().st_size,
            "xxh64": xxhash.xxh64_hexdigest(archive.read_bytes()),
            "first": 0,
            "end": 7,
        }
    ]


def test_what_an_earlier_run_finished_is_kept(archive, tmp_path):
    first = convert_npz(archive, tmp_path / "h5", events_per_file=3, workers=1)
    os.unlink(first[1])
    before = {path: os.stat(path).st_ino for path in (first[0], first[2])}
    again = convert_npz(archive, tmp_path / "h5", events_per_file=3, workers=1)
    assert (again.files, again.events, again.kept) == (first.files, 7, 2)
    assert {path: os.stat(path).st_ino for path in before} == before
    np.testing.assert_array_equal(joined(again, "energy"), np.arange(7.0))


def test_files_of_changed_sources_are_not_kept_but_refused(archive, tmp_path):
    convert_npz(archive, tmp_path / "h5")
    np.savez(archive, energy=np.zeros(3))
    with pytest.raises(SourceError, match=r"events_0\.h5 to be of the same sources and options"):
        convert_npz(archive, tmp_path / "h5")
    assert convert_npz(archive, tmp_path / "h5", overwrite=True).events == 3


def test_files_that_no_conversion_wrote_are_refused(archive, tmp_path):
    (tmp_path / "h5").mkdir()
    (tmp_path / "h5/events_0.h5").write_bytes(b"mine")
    with pytest.raises(SourceError, match="no conversion wrote it; overwrite it"):
        convert_npz(archive, tmp_path / "h5")
    assert (tmp_path / "h5/events_0.h5").read_bytes() == b"mine"


def test_a_killed_conversion_leaves_whole_files_and_goes_on(start_script, tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 20_000)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=values)
    process = start_script(
        """
        import sys
        from hepfeed.convert import convert_npz
        convert_npz(sys.argv[1], sys.argv[2], events_per_file=20, workers=1,
                    progress=lambda what, done, total: print(what, done, flush=True))
        """,
        tmp_path / "a.npz",
        tmp_path / "h5",
    )
    for line in process.stdout:
        if line.startswith("converting events") and int(line.split()[-1]) > 20:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = sorted((tmp_path / "h5").glob("*.h5"))
    assert 1 <= len(whole) < 20
    for path in whole:
        with h5py.File(path) as file:
            assert len(file["x"]) == file.attrs["events"] == 20
    paths = convert_npz(tmp_path / "a.npz", tmp_path / "h5", events_per_file=20, workers=1)
    assert paths.kept == len(whole)
    assert leftovers(tmp_path / "h5") == []
    np.testing.assert_array_equal(joined(paths, "x"), values)


def test_a_disk_that_takes_no_file_is_named(archive, tmp_path):
    (tmp_path / "h5").write_text("in the way")
    with pytest.raises(ResourceError, match="could not make the folder"):
        convert_npz(archive, tmp_path / "h5")


# ---- the writer

FIELDS = {"x": Field.dense(np.float32, (2,)), "hits": Field.ragged({"values": Column(np.dtype(np.int16))})}


def hits(counts, rows=None):
    return Rows({"values": np.zeros(sum(counts) if rows is None else rows, np.int16)}, np.array(counts, np.int64))


@pytest.mark.parametrize(
    "block",
    [
        {"x": np.zeros((3, 2), np.float64), "hits": hits([0, 1, 2])},
        {"x": np.zeros((2, 2), np.float32), "hits": hits([0, 1, 2])},
        {"x": np.zeros((3, 2), np.float32), "hits": hits([1, 2])},
        {"x": np.zeros((3, 2), np.float32), "hits": hits([0, 1, 2], rows=4)},
        {"x": np.zeros((3, 2), np.float32), "hits": np.zeros(3, np.int16)},
    ],
)
def test_a_block_that_is_not_as_promised_is_refused_as_a_whole(tmp_path, block):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        writer = EventWriter(file, FIELDS, events=4, level=1)
        with pytest.raises(CorruptDataError, match=r"expected 3 events of '(x|hits)' as .* from raw"):
            writer.append(block, 3, "raw")
        writer.append({"x": np.ones((1, 2), np.float32), "hits": hits([2])}, 1, "raw")
        writer.finish()
        check_counts(file, FIELDS, 1)
        assert file["x"][()].tolist() == [[1, 1]]
        with pytest.raises(ResourceError, match=r"expected 2 whole events of 'x' in .*, found 1"):
            check_counts(file, FIELDS, 2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=8))
def test_blocks_of_any_size_arrive_whole_and_in_order(tmp_path_factory, sizes):
    values = np.arange(sum(sizes), dtype=np.float32)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    path = tmp_path_factory.mktemp("blocks") / "a.h5"
    with h5py.File(path, "w") as file:
        writer = EventWriter(file, {"x": Field.dense(np.float32)}, sum(sizes), level=0)
        for part in parts:
            writer.append({"x": part}, len(part), "raw")
        writer.finish()
        np.testing.assert_array_equal(file["x"][()], values)
        assert writer.events == sum(sizes)


# ---- damage


def spoil(path, at=-200):
    """Flip bits of a member's data."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_array_is_named_and_no_file_is_left(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000.0))
    spoil(path, 4000)
    with pytest.raises(CorruptDataError, match=r"could not read array 'x' of .*a\.npz: Bad CRC-32") as caught:
        convert_npz(path, tmp_path / "h5", events_per_file=10)
    assert (caught.value.file, caught.value.key) == (str(path), "x")
    assert list((tmp_path / "h5").iterdir()) == []


@pytest.mark.parametrize("damage", ["crc", "cut", "text", "header"])
def test_damaged_files_are_skipped_and_counted(tmp_path, damage):
    for number in range(3):
        np.savez(tmp_path / f"run{number}.npz", x=np.full(1000, number))
    bad = tmp_path / "run1.npz"
    if damage == "crc":
        spoil(bad, 4000)
    elif damage == "cut":
        bad.write_bytes(bad.read_bytes()[:2000])
    elif damage == "text":
        bad.write_text("version https://git-lfs")
    else:
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': 1}")
    found = convert_npz(str(tmp_path / "run*.npz"), tmp_path / "h5", on_error="skip", events_per_file=1500, workers=1)
    assert found.events == 2000
    assert {each.fault.file for each in found.skipped} == {str(bad)}
    assert found.skipped_events == (1000 if damage == "crc" else 0)
    assert sorted(set(joined(found, "x").tolist())) == [0, 2]
    again = convert_npz(str(tmp_path / "run*.npz"), tmp_path / "h5", on_error="skip", events_per_file=1500, workers=1)
    assert (again.kept, again.events, again.skipped_events) == (2, 2000, found.skipped_events)


def test_a_member_that_ends_early_is_corrupt(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(tmp_path / "whole.npz", x=np.arange(10.0))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(path, "w") as short:
        short.writestr("x.npy", whole.read("x.npy")[:-8])
    with pytest.raises(CorruptDataError, match="it ends 8 bytes early"):
        convert_npz(path, tmp_path / "h5")
    assert list((tmp_path / "h5").iterdir()) == []


def test_nothing_but_damage_is_an_error_that_tells_the_first(tmp_path):
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(SourceError, match=r"found none; the first fault: expected an npz archive at .*a\.npz"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5", on_error="skip")


def test_a_file_that_another_process_writes_is_left_to_it(archive, tmp_path, run_script):
    (tmp_path / "h5").mkdir()
    with h5py.File(tmp_path / "h5/.events_0.h5.tmp", "w"):
        out = run_script(
            """
            import sys
            from hepfeed.convert import convert_npz
            from hepfeed.errors import ResourceError
            try:
                convert_npz(sys.argv[1], sys.argv[2])
            except ResourceError as error:
                print(error)
            """,
            archive,
            tmp_path / "h5",
        )
        assert "see that no other conversion writes it" in out
        assert leftovers(tmp_path / "h5") == [".events_0.h5.tmp"]


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(FileFormatError, match=r"expected an npz archive at .*a\.npz"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5")


# ---- mistakes


def test_a_wrong_key_is_told_its_neighbours(archive, tmp_path):
    with pytest.raises(KeyMissingError, match="has no array 'enrgy': did you mean 'energy'"):
        convert_npz(archive, tmp_path / "h5", keys=["enrgy"])
    with pytest.raises(KeyMissingError, match="no key 'imag' to make sparse: did you mean 'image'"):
        convert_npz(archive, tmp_path / "h5", form="sparse", images="imag")


def test_arrays_of_other_lengths_are_no_keys_of_the_events(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), edges=np.zeros(4))
    with pytest.raises(SpecError, match="got 'x' 3, 'edges' 4; name those of the events"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5")
    assert convert_npz(tmp_path / "a.npz", tmp_path / "h5", keys="x").events == 3


def test_what_is_no_event_data_is_left_out_and_reported(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), note=np.array("made in 2017"), version=np.array(3), meta=np.array({}))
    found = convert_npz(tmp_path / "a.npz", tmp_path / "h5")
    assert found.left_out == dict.fromkeys(["note", "version", "meta"], "it has no event axis")
    with h5py.File(found[0]) as file:
        assert json.loads(file.attrs["left_out"]) == found.left_out
        assert sorted(file) == ["x"]
    with pytest.raises(SpecError, match=r"'version' of .* can't be converted: it has no event axis"):
        convert_npz(tmp_path / "a.npz", tmp_path / "other", keys=["x", "version"])


def test_archives_of_other_types_are_not_mixed(tmp_path):
    np.savez(tmp_path / "a1.npz", x=np.zeros(3))
    np.savez(tmp_path / "a2.npz", x=np.zeros(3, np.float32))
    with pytest.raises(SpecError, match=r"'x' is dense float32 \(\) in .*a2\.npz and dense float64 \(\) in .*a1\.npz"):
        convert_npz(str(tmp_path / "a*.npz"), tmp_path / "h5")


def test_a_key_within_another_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"a": np.zeros(3), "a/b": np.zeros(3)})
    with pytest.raises(SpecError, match=r"keys 'a' and 'a/b' of .* can't both be data sets"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5")


def test_no_events_at_all_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((0, 2)))
    with pytest.raises(SourceError, match="expected events of npz, found none"):
        convert_npz(tmp_path / "a.npz", tmp_path / "h5")


@pytest.mark.parametrize("sources", ["nothing_*.npz", "nothing.npz", []])
def test_sources_that_are_not_there_are_refused(tmp_path, sources):
    with pytest.raises(SpecError, match=r"no file|at least one file"):
        convert_npz(str(tmp_path / sources) if sources else [], tmp_path / "h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "both"}, "form must be one of 'dense', 'sparse'; got 'both'"),
        ({"threshold": 1.0}, "give them with form='sparse'"),
        ({"form": "sparse", "threshold": -1.0}, "threshold must be a number of at least 0; got -1.0"),
        ({"form": "sparse", "images": "energy"}, "'energy' is dense float64 .* which is no image"),
        ({"events_per_file": 0}, "events_per_file must be at least 1; got 0"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"level": 10}, r"level must be 0 \(no compression\) to 9"),
        ({"on_error": "ignore"}, "on_error must be one of 'raise', 'skip'; got 'ignore'"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(archive, tmp_path, options, message):
    with pytest.raises(SpecError, match=message):
        convert_npz(archive, tmp_path / "h5", **options)
    assert not (tmp_path / "h5").exists()


# ---- command


def test_command_converts_and_says_what_it_wrote(run, archive, tmp_path):
    result = run(
        "convert", "npz", archive, "--out", tmp_path / "h5", "-k", "image", "--form", "sparse", "--threshold", 9
    )
    assert result.exit_code == 0, result.output
    assert "1 file, 7 events" in result.output
    assert joined([tmp_path / "h5/events_0.h5"], "image/value").tolist() == list(range(10, 42))
    assert (
        "(1 of them from an earlier run)"
        in run(
            "convert", "npz", archive, "-o", tmp_path / "h5", "-k", "image", "--form", "sparse", "--threshold", 9
        ).output
    )


def test_command_reports_what_is_skipped_and_left_out(run, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), note=np.array("n"))
    (tmp_path / "b.npz").write_text("no")
    result = run("convert", "npz", tmp_path / "a.npz", tmp_path / "b.npz", "-o", tmp_path / "h5", "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "left out: note: it has no event axis" in result.output
    assert "skipped 0 events and 1 whole file that are damaged" in result.output
    assert isinstance(run("convert", "npz", tmp_path / "b.npz", "-o", tmp_path / "no").exception, HepfeedError)


@pytest.mark.parametrize("name", ["npz", "root", "larcv", "dune-cvn"])
def test_help_of_each_format_has_examples(run, name):
    result = run("convert", name, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert f"hepfeed convert {name}" in result.output
