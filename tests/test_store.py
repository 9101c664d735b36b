"""The index file: a second start opens no HDF5 file, and a changed file is read anew."""

import gc
import logging
import os
import pickle
import sqlite3
from pathlib import Path

import h5py
import numpy as np
import pytest
from events import write_classes, write_file

import hepfeed as hf
from hepfeed.errors import KeyMissingError, SourceError
from hepfeed.file_events import describe_events
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec
from hepfeed.store import IndexStore, Wanted, collector_paused, default_store_path, describe_files, load_tables


@pytest.fixture
def store(tmp_path):
    with IndexStore(tmp_path / "store.sqlite") as store:
        yield store


def spoil(path):
    """Replace the content of a file, but keep its size and time: whoever opens it now fails."""
    path, status = Path(path), os.stat(path)
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def files_of(store, *paths, keys=("image",)):
    return describe_files([Wanted(str(path), tuple(keys)) for path in paths], store=store)[0]


def test_what_was_described_is_found_again_with_its_tables(tmp_path, store):
    path = str(write_file(tmp_path / "a.h5", 40, layout="all_filters"))
    fresh = describe_events(path, ["image", "absent"])
    wanted = Wanted(path, ("image", "absent"))
    store.put_files([(wanted, fresh)])
    store.close()
    (kept,) = store.files([wanted]).values()
    assert kept == fresh
    assert kept.absent == {"absent"}
    tables = store.tables(kept)
    assert tables["image"].tobytes() == fresh.tables["image"].tobytes()


@pytest.mark.parametrize("layout", ["contiguous", "all_filters", "virtual"])
def test_a_second_start_opens_no_file(tmp_path, layout):
    samples = write_classes(tmp_path, {"a": [30, 20], "b": [10]}, layout=layout)
    spec = SampleSpec(samples, filter="energy >= 5")
    first = EventIndex(spec)
    for path in spec.files:
        spoil(path)
    second = EventIndex(spec)
    assert (second.rows == first.rows).all()
    assert second.sources == first.sources
    for file in range(3):
        ours, theirs = (load_tables(index.sources[file].info, index.store) for index in (second, first))
        assert {key: ours[key].tobytes() for key in ours} == {key: theirs[key].tobytes() for key in theirs}


def test_files_of_the_same_kind_share_what_is_known_of_them(tmp_path, store):
    paths = [write_file(tmp_path / f"{number}.h5", 40 + number, file=number) for number in range(3)]
    other = write_file(tmp_path / "other.h5", 40, layout="all_filters")
    fresh = files_of(store, *paths, other)
    kept = files_of(store, *paths, other)
    assert kept == fresh
    first, *others = (kept[str(path)] for path in paths)
    assert all(each.form and each.form is first.form and each.columns is first.columns for each in others)
    assert [each.events for each in (first, *others)] == [40, 41, 42]
    assert kept[str(other)].form not in ("", first.form)


def test_many_files_are_looked_at_at_a_time_where_that_takes_long(tmp_path, store, monkeypatch):
    write_file(tmp_path / "0.h5", 10)
    for number in range(1, 70):
        os.link(tmp_path / "0.h5", tmp_path / f"{number}.h5")
    paths = [tmp_path / f"{number}.h5" for number in range(70)]
    assert len(files_of(store, *paths)) == 70
    monkeypatch.setattr("hepfeed.store._SLOW_S", 0.0)
    paths[5].unlink()
    paths[65].unlink()
    write_file(paths[65], 11)
    wanted = [Wanted(str(path), ("image",)) for path in paths]
    assert set(store.files(wanted)) == {str(path) for n, path in enumerate(paths) if n not in (5, 65)}


def test_a_chunk_table_travels_as_it_is(tmp_path):
    table = describe_events(str(write_file(tmp_path / "a.h5", 40, layout="unallocated")), ["image"]).tables["image"]
    copy = pickle.loads(pickle.dumps(table))
    assert copy.tobytes() == table.tobytes()
    assert (copy.offset.dtype, copy.size.dtype, copy.mask.dtype) == (np.int64, np.int64, np.uint32)


def test_a_changed_file_is_read_anew(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 40)
    assert files_of(store, path)[str(path)].datasets["image"].events == 40
    write_file(path, 41)
    assert files_of(store, path)[str(path)].datasets["image"].events == 41


def test_a_touched_file_is_read_anew(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 40)
    files_of(store, path)
    spoil(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="is not an HDF5 file"):
        files_of(store, path)


def test_a_removed_file_is_an_error_though_it_is_known(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 40)
    files_of(store, path)
    path.unlink()
    with pytest.raises(SourceError, match="was it moved or deleted"):
        files_of(store, path)


def test_what_is_known_of_some_keys_stays_beside_what_is_known_of_others(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 40, layout="all_filters")
    files_of(store, path)
    files_of(store, path, keys=("energy", "nowhere"))
    spoil(path)
    (file,) = files_of(store, path).values()
    assert set(file.datasets) == {"image"}
    assert len(load_tables(file, store)["image"].offset) == 3
    (file,) = files_of(store, path, keys=("energy", "nowhere")).values()
    assert file.absent == {"nowhere"}
    with pytest.raises(SourceError, match="is not an HDF5 file"):
        files_of(store, path, keys=("image", "energy"))


def test_the_rows_of_jagged_events_are_kept(tmp_path, store):
    path = tmp_path / "jagged.h5"
    with h5py.File(path, "w") as file:
        file["hits/charge"] = np.arange(7.0)
        file["hits/offsets"] = np.array([0, 3, 3, 7])
    (fresh,) = files_of(store, path, keys=("hits/charge",)).values()
    spoil(path)
    (kept,) = files_of(store, path, keys=("hits/charge",)).values()
    assert kept == fresh
    rows = kept.extents[kept.columns["hits/charge"].rows]
    assert (rows.start.tolist(), rows.count.tolist()) == ([0, 3, 3], [3, 0, 4])


def test_a_filter_is_evaluated_again_when_it_or_the_file_changes(tmp_path):
    path = write_file(tmp_path / "a.h5", 40)

    def rows(condition):
        return len(EventIndex(SampleSpec([[str(path), ["image"], "a"]], filter=condition)))

    assert rows("energy < 10") == 10
    assert rows("energy < 12") == 12
    assert rows("energy < 10") == 10
    write_file(path, 41, file=5)  # energies from 5,000
    assert rows("energy < 5003") == 3


def test_files_that_can_not_be_read_are_returned_where_errors_are_skipped(tmp_path, store):
    good, bad = write_file(tmp_path / "a.h5", 4), tmp_path / "b.h5"
    bad.write_bytes(b"")
    wanted = [Wanted(str(path), ("image",)) for path in (good, bad)]
    known, errors = describe_files(wanted, store=store, on_error="skip")
    assert set(known) == {str(good)}
    assert [error.file for error in errors] == [str(bad)]


def test_missing_keys_are_known_without_opening_the_file(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 4)
    assert files_of(store, path, keys=("nowhere",))[str(path)].absent == {"nowhere"}
    with pytest.raises(KeyMissingError, match="key 'nowhere' does not exist"):
        hf.EventDataset([[str(path), ["nowhere"], "a"]])


def test_six_hundred_files_are_indexed_once(tmp_path, store):
    content = write_file(tmp_path / "first.h5", 3).read_bytes()
    paths = [tmp_path / "many" / f"{number}.h5" for number in range(600)]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(content)
    calls = []
    known, errors = describe_files(
        [Wanted(str(path), ("image",)) for path in paths],
        store=store,
        workers=2,
        progress=lambda what, done, total: calls.append((done, total)),
    )
    assert errors == []
    assert {file.datasets["image"].events for file in known.values()} == {3}
    assert calls[-1] == (600, 600)
    for path in paths:
        spoil(path)
    assert set(files_of(store, *paths)) == {str(path) for path in paths}


# ---- where it lies


def test_the_index_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HEPFEED_INDEX", str(tmp_path / "here"))
    assert default_store_path() == tmp_path / "here"
    monkeypatch.delenv("HEPFEED_INDEX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store_path() == tmp_path / "hepfeed" / "index.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_store_path() == Path("/home/someone/.cache/hepfeed/index.sqlite")


@pytest.mark.parametrize("place", ["file", "directory"])
def test_a_place_that_can_not_be_written_is_reported_and_done_without(tmp_path, caplog, place):
    path = write_file(tmp_path / "a.h5", 4)
    (tmp_path / "blocked").write_text("not a directory")
    where = tmp_path / "blocked" / "index.sqlite" if place == "file" else tmp_path
    with caplog.at_level(logging.WARNING, "hepfeed"), IndexStore(where) as store:
        assert len(files_of(store, path)) == 1
        assert len(files_of(store, path)) == 1
    (record,) = caplog.records
    assert "the index can't be kept in" in record.getMessage()


def test_a_read_only_file_system_is_done_without(tmp_path, caplog):
    path = write_file(tmp_path / "a.h5", 4)
    dataset = hf.EventDataset([[str(path), ["image"], "a"]], index="/proc/hepfeed/index.sqlite")
    assert len(dataset) == 4
    assert "the index can't be kept in /proc/hepfeed/index.sqlite" in caplog.text


def test_an_index_in_memory_forgets(tmp_path):
    path = write_file(tmp_path / "a.h5", 4)
    with IndexStore(None) as store:
        files_of(store, path)
        assert list(store.files([Wanted(str(path), ("image",))])) == [str(path)]
        store.close()
        assert store.files([Wanted(str(path), ("image",))]) == {}


def test_an_index_of_another_format_is_made_anew(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as database:
        database.execute("CREATE TABLE files (what TEXT)")
        database.execute("PRAGMA user_version = 99")
    database.close()
    path = write_file(tmp_path / "a.h5", 4)
    with IndexStore(tmp_path / "old.sqlite") as store:
        files_of(store, path)
        assert list(store.files([Wanted(str(path), ("image",))])) == [str(path)]


def test_a_file_that_is_no_index_is_reported_and_left_alone(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("my notes, which are precious" * 100)
    path = write_file(tmp_path / "a.h5", 4)
    with IndexStore(tmp_path / "notes.txt") as store:
        assert len(files_of(store, path)) == 1
    assert "file is not a database" in caplog.text
    assert (tmp_path / "notes.txt").read_text().startswith("my notes")


def test_a_store_travels_as_its_path(tmp_path, store):
    path = write_file(tmp_path / "a.h5", 4)
    files_of(store, path)
    with pickle.loads(pickle.dumps(store)) as again:
        assert list(again.files([Wanted(str(path), ("image",))])) == [str(path)]


def test_several_processes_write_one_index(tmp_path, start_script):
    path = write_file(tmp_path / "a.h5", 4)
    script = """
        import sys
        import hepfeed as hf
        for number in range(20):
            hf.EventDataset([[sys.argv[1], ["image"], "a"]], index=sys.argv[2]).index.store.close()
            open(sys.argv[1], "a").close()
    """
    started = [start_script(script, path, tmp_path / "shared.sqlite") for _ in range(3)]
    for process in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert err == ""


def test_the_store_of_a_dead_dataset_is_closed(tmp_path):
    path = write_file(tmp_path / "a.h5", 4)
    for _ in range(3):
        hf.EventDataset([[str(path), ["image"], "a"]])
    with h5py.File(path) as file:
        assert np.asarray(file["id"]).shape == (4, 3)
    assert not [fd for fd in os.listdir("/proc/self/fd") if _is(fd, tmp_path / "index.sqlite")]


def _is(fd, path):
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(path)
    except OSError:  # the descriptor of the listing itself
        return False


def test_the_database_of_another_program_is_left_alone(tmp_path, caplog):
    foreign = tmp_path / "mine.sqlite"
    database = sqlite3.connect(foreign)
    with database:
        database.execute("CREATE TABLE files (name TEXT)")
        database.execute("INSERT INTO files VALUES ('precious')")
    database.close()
    path = write_file(tmp_path / "a.h5", 5)
    with IndexStore(foreign) as store:
        assert files_of(store, path)[str(path)].datasets["image"].events == 5
    assert "another program" in caplog.text
    database = sqlite3.connect(foreign)
    assert database.execute("SELECT * FROM files").fetchall() == [("precious",)]
    database.close()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_once_files_are_known(enabled):
    @collector_paused()
    def fail():
        assert not gc.isenabled()
        raise KeyError

    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError):
            fail()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
