"""The reader: events of a window to the places of their batches, and the user's functions on them."""

import os

import cloudpickle
import numpy as np
import pytest
from events import describe, images, write_file

from hepfeed.columns import Column
from hepfeed.errors import CorruptDataError, ProcessError, SourceError
from hepfeed.form import StreamForm, place_keys
from hepfeed.hdf5 import KeyTable, SourceTable
from hepfeed.pipeline import Pipeline
from hepfeed.reader import Reader
from hepfeed.ring import Ring
from hepfeed.source_reader import SourceReader, max_open_files, row_addresses
from hepfeed.tasks import Finish, Read

IMAGE = np.dtype("<f4")
NOTHING = np.empty(0, np.int64)


def table(path, key="image"):
    info = describe(str(path), [key])
    dataset = info.datasets[key]
    keys = {key: KeyTable(Column(key), dataset, info.tables[key], "<f4")}
    return SourceTable(info.path, info.size, info.mtime_ns, keys)


@pytest.fixture
def ring():
    ring = Ring()
    yield ring
    ring.close()


@pytest.fixture
def reader(ring):
    reader = Reader(ring.descriptor)
    yield reader
    reader.close()


@pytest.fixture
def files(tmp_path, reader):
    """Two files of 40 events in chunks of 16, known to the reader as catalog ``c``."""
    paths = [write_file(tmp_path / f"{i}.h5", 40, file=i, layout="all_filters") for i in range(2)]
    reader.add_files("c", {i: table(path) for i, path in enumerate(paths)})
    return paths


def form(functions=(), batch_size=8, skip_errors=False):
    keys, size = place_keys([("image", IMAGE, (5, 4), "")], batch_size)
    return StreamForm(keys, size, "c", cloudpickle.dumps(Pipeline(functions)) if functions else b"", 0, skip_errors)


def read_task(events, slot=0, unit=None, kept=None):
    """A task for (place, file, row) triples."""
    place, file, row = np.array(events, np.int64).T
    unit = np.full(len(row), -1) if unit is None else np.array(unit)
    return Read(1, np.full(len(row), slot), place, file, row, unit, kept or {})


def delivered(ring, form, slot, count):
    return form.keys[0].view(ring.view.bytes(slot, form.dense_bytes), count)


# ---- reading


def test_keys_lie_in_a_slot_one_after_another_on_cache_lines():
    a, b, c = (np.dtype(code) for code in ("f4", "i8", "u1"))
    keys, size = place_keys([("a", a, (5,), ""), ("b", b, (), ""), ("c", c, (0, 3), "")], 3)
    assert [(key.name, key.offset) for key in keys] == [("a", 0), ("b", 64), ("c", 128)]
    assert size == 128
    assert [key.row_bytes for key in keys] == [20, 8, 0]


def test_events_are_written_to_the_places_of_their_batches(ring, reader, files):
    reader.add_stream(1, form())
    done = reader.read(read_task([(4, 0, 1), (0, 0, 17), (2, 0, 39), (1, 1, 0), (3, 1, 20)]))
    assert done.failures == []
    events = [(0, 17), (1, 0), (0, 39), (1, 20), (0, 1)]
    assert (delivered(ring, form(), 0, 5) == np.stack([images(0, file, 40)[row] for file, row in events])).all()
    assert done.costs[5] == 5  # chunks


def test_a_chunk_is_decoded_once_for_all_batches_of_a_window(ring, reader, files):
    reader.add_stream(1, form())
    rows = np.arange(16)
    task = Read(1, rows % 2, rows // 2, np.zeros(16, np.int64), rows, np.zeros(16, np.int64))
    done = reader.read(task)
    assert done.costs[5] == 1
    for slot in (0, 1):
        assert (delivered(ring, form(), slot, 8) == images(0, 0, 40)[slot:16:2]).all()


def test_the_rest_of_a_chunk_is_kept_for_the_window_that_asks_for_it(ring, reader, files):
    reader.add_stream(1, form())
    rest = np.array([3, 5, 11])
    first = reader.read(read_task([(0, 0, 0), (1, 0, 7)], unit=[4, 4], kept={4: rest}))
    files[0].unlink()
    reader._sources.close()
    second = reader.read(read_task([(0, 0, 3), (1, 0, 11)], slot=1, unit=[4, 4], kept={4: rest}))
    third = reader.read(read_task([(0, 0, 5)], slot=2, unit=[4]))
    assert (first.costs[5], second.costs[5], third.costs[5]) == (1, 0, 0)
    assert (delivered(ring, form(), 1, 2) == images(0, 0, 40)[[3, 11]]).all()
    assert (delivered(ring, form(), 2, 1) == images(0, 0, 40)[[5]]).all()
    again = reader.read(read_task([(0, 0, 5)], slot=2, unit=[4]))  # it was given up: now the file is missed
    assert [type(error) for _, _, error in again.failures] == [SourceError]


def test_a_task_may_be_done_again_by_another_reader(ring, reader, files):
    task = read_task([(0, 0, 3), (1, 1, 5)])
    for worker in (reader, Reader(ring.descriptor)):
        worker.add_files("c", {i: table(path) for i, path in enumerate(files)})
        worker.add_stream(1, form())
        assert worker.read(task).failures == []
        assert (delivered(ring, form(), 0, 2) == np.stack([images(0, 0, 40)[3], images(0, 1, 40)[5]])).all()
        worker.close()


def test_events_of_a_bad_chunk_fail_and_the_others_do_not(ring, reader, tmp_path):
    path = write_file(tmp_path / "a.h5", 40, layout="all_filters")
    source = table(path)
    offset = int(source.keys["image"].chunks.offset[1])
    with open(path, "r+b") as stream:
        stream.seek(offset + 5)
        stream.write(b"\x00\xff\x00\xff")
    reader.add_files("c", {0: table(path)})
    reader.add_stream(1, form())
    done = reader.read(read_task([(0, 0, 3), (1, 0, 16), (2, 0, 31), (3, 0, 39)]))
    assert [(slot, place, type(error), error.event) for slot, place, error in done.failures] == [
        (0, 1, CorruptDataError, 16),
        (0, 2, CorruptDataError, 31),
    ]
    assert f"(byte {offset} of the file)" in str(done.failures[0][2])
    assert (delivered(ring, form(), 0, 4)[[0, 3]] == images(0, 0, 40)[[3, 39]]).all()


def test_no_more_files_are_open_than_allowed(tmp_path):
    paths = [write_file(tmp_path / f"{i}.h5", 2, file=i) for i in range(12)]
    reader = SourceReader()
    reader._max_open = 4
    reader.add_files("c", {i: table(path) for i, path in enumerate(paths)})
    out = np.empty((24, 5, 4), np.float32)
    file, row = np.repeat(np.arange(12), 2), np.tile([0, 1], 12)
    before = len(os.listdir("/proc/self/fd"))
    _, failed = reader.read_events("c", file, row, {"image": row_addresses(out)})
    assert failed == {}
    assert len(os.listdir("/proc/self/fd")) - before == 4
    assert (out == np.concatenate([images(0, i, 2) for i in range(12)])).all()
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_limit_of_descriptors_leaves_room_for_others():
    assert 8 <= max_open_files() <= 256


# ---- functions


def finish_task(rows, dropped=NOTHING):
    rows = np.array(rows, np.int64)
    zeros = np.zeros(len(rows), np.int64)
    return Finish(1, 0, 0, 5, zeros, rows, zeros + 1, np.array(dropped, np.int64))


def finished(ring, reader, functions, rows=(3, 7), dropped=NOTHING, **options):
    """Read rows of file 0 and run functions on them; returns arrays of what is in the slot."""
    reader.add_stream(1, form(functions, **options))
    reader.read(read_task([(i, 0, row) for i, row in enumerate(rows)]))
    done = reader.finish(finish_task(rows, dropped))
    memory = ring.view.bytes(0, done.bytes)
    return done, done.batch(memory, lambda array: array)


def test_an_array_that_was_changed_in_place_stays_in_its_place(ring, reader, files):
    def double(batch):
        batch["image"] *= 2
        return batch

    done, arrays = finished(ring, reader, [double])
    assert done.tensors["image", ""] == ("<f4", (2, 5, 4), 0)
    assert (arrays["image"] == 2 * images(0, 0, 40)[[3, 7]]).all()
    assert arrays["label"].tolist() == [1, 1]
    assert arrays["event"].tolist() == [[0, 3], [0, 7]]


def test_new_arrays_lie_behind_what_was_read_and_may_be_larger(ring, reader, files):
    def grow(batch):
        return {"tiled": np.tile(batch["image"], (1, 30, 1)), "row": batch["image"][1]}

    done, arrays = finished(ring, reader, [grow])
    assert done.tensors["tiled", ""][2] >= 8 * 80
    assert done.tensors["row", ""][2] == 80
    assert (arrays["tiled"] == np.tile(images(0, 0, 40)[[3, 7]], (1, 30, 1))).all()
    assert (arrays["row"] == images(0, 0, 40)[7]).all()


def test_what_is_not_an_array_of_numbers_is_handed_over_as_it_is(ring, reader, files):
    def strange(batch):
        return {"text": "abc", "names": np.array(["a", "bc"]), "ragged": [[1, 2], [3]], "list": [1.5, 2], "n": 3}

    done, arrays = finished(ring, reader, [strange])
    assert done.inline["text"] == "abc"
    assert done.inline["names"].tolist() == ["a", "bc"]
    assert done.inline["ragged"] == [[1, 2], [3]]
    assert arrays["list"].tolist() == [1.5, 2]
    assert arrays["n"].shape == ()


def test_rows_that_could_not_be_read_are_not_shown_to_functions(ring, reader, files):
    def count(batch):
        return {"n": np.array([len(batch["image"])]), "event": batch["event"]}

    _, arrays = finished(ring, reader, [count], rows=(3, 7, 9), dropped=[1])
    assert arrays["n"].tolist() == [2]
    assert arrays["event"].tolist() == [[0, 3], [0, 9]]


def test_the_event_at_fault_is_found_though_the_batch_was_changed_before(ring, reader, files):
    def spoil(batch):
        batch["image"][...] = np.nan
        if 7 in batch["event"][:, 1]:
            raise ArithmeticError("seven")
        return batch

    with pytest.raises(
        ProcessError, match=r"process_fn or transform raised ArithmeticError: seven on event 7 of"
    ) as caught:
        finished(ring, reader, [spoil])
    assert (caught.value.file, caught.value.event) == (str(files[0]), 7)


def test_only_the_event_at_fault_is_left_out_where_errors_are_skipped(ring, reader, files):
    def double(batch):
        batch["image"] *= 2
        if 7 in batch["event"][:, 1]:
            raise ArithmeticError("seven")
        return batch

    done, arrays = finished(ring, reader, [double], rows=(3, 7, 9), skip_errors=True)
    assert [(place, error.event) for place, error in done.failures] == [(1, 7)]
    assert (arrays["image"] == 2 * images(0, 0, 40)[[3, 9]]).all()


def test_a_function_that_fails_on_batches_only_fails_as_a_whole(ring, reader, files):
    def single(batch):
        if len(batch["image"]) > 1:
            raise ValueError("one at a time")
        return batch

    with pytest.raises(ProcessError, match="one at a time"):
        finished(ring, reader, [single], skip_errors=True)
