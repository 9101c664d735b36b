"""Parts: what is written and read again, with h5py as the witness that the files are what they are said to be."""

import json
import os

import h5py
import numpy as np
import pytest
import xxhash

from hepfeed.errors import CorruptDataError, FileFormatError, ProcessError, SourceError
from hepfeed.parts.form import cell_type, forms_of
from hepfeed.parts.part import FORMAT, Part
from hepfeed.parts.reader import PartReader
from hepfeed.parts.table import CacheTable
from hepfeed.parts.writer import PartWriter
from hepfeed.tensors import Graph, Jagged, KernelMap, Padded, Sparse, Structured, concatenate, take

KEY = "0123456789abcdef" * 2


def image(events, shape, dtype, occupancy=0.02, seed=0):
    random = np.random.default_rng(seed)
    values = random.integers(1, 100, (events, *shape))
    return np.where(random.random((events, *shape)) < occupancy, values, 0).astype(dtype)


def batch_of(events, first=0, seed=0):
    """Return a batch with every kind of array; event 1 has no rows."""
    random = np.random.default_rng(seed)
    counts = random.poisson(5, events)
    counts[1:2] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    dense = image(events, (9, 8, 7), "f4", 0.05, seed)
    indices = np.argwhere(dense).astype(np.int32)
    edges = np.array([(i, i) for i in range(total)], np.int64).reshape(total, 2)
    return {
        "ECAL": dense,
        "group/HCAL": random.normal(size=(events, 3, 4)).astype("f2"),
        "hits/xyz": Jagged(random.normal(size=(total, 3)), offsets),
        "tracks": Padded(random.normal(size=(events, 4, 2)).astype("f4"), random.random((events, 4)) < 0.5),
        "sites": Sparse(dense[dense != 0][:, None].astype("f2"), indices, (9, 8, 7), events),
        "graph": Graph(edges.T.copy(), offsets, offsets.copy()),
        "label": np.full(events, 2, np.int64),
        "event": np.stack([np.zeros(events, np.int64), first + np.arange(events)], 1),
    }


def write(folder, *batches, given=None, part_bytes=1 << 30):
    """Write batches, and return the one part, or all of them."""
    writer = PartWriter(str(folder), KEY, part_bytes)
    for batch in batches:
        writer.add(batch, batch["event"] if given is None else given)
    done = writer.close()
    assert done.error is None
    return done.parts[0] if len(done.parts) == 1 else done.parts


def read(folder, parts, forms, part, at, guarded=False, mapped=False):
    """Return events of parts, as a reader delivers them."""
    parts = parts if isinstance(parts, list) else [parts]
    blocks = np.concatenate([[0], np.cumsum([each.blocks for each in parts])])
    verified = np.zeros(int(blocks[-1]) + 1, np.uint8)
    reader = PartReader(lambda slot, size: verified, guarded, {})
    reader.add_cache(CacheTable(KEY, str(folder), forms, 0, len(verified), mapped))
    reader.add_parts(KEY, {number: (each, int(blocks[number])) for number, each in enumerate(parts)})
    part, at = np.asarray(part, np.int64), np.asarray(at, np.int64)
    runs = {}
    for path in {path for each in parts for path in each.stored if path.rpartition("/")[2] in ("offsets", "nodes")}:
        begin, count = np.zeros(len(part), np.int64), np.zeros(len(part), np.int64)
        for number, each in enumerate(parts):
            if path in each.stored:
                edges, here = each.read(path, str(folder)), part == number
                begin[here], count[here] = edges[at[here]], np.diff(edges)[at[here]]
        runs[path] = begin, count
    fetched = reader.fetch(KEY, part, at, runs, lambda dtype, shape: np.full(shape, 77).astype(dtype))
    reader.close()
    return fetched


def assert_equal(found, expected):
    """Two batches have the same arrays, with their types, shapes and bytes."""
    for name, value in expected.items():
        if name in ("event", "weight"):
            continue
        one = found[name].arrays() if isinstance(value, Structured) else {"": found[name]}
        other = value.arrays() if isinstance(value, Structured) else {"": value}
        assert one.keys() == other.keys(), name
        for part, array in other.items():
            assert (one[part].dtype, one[part].shape) == (array.dtype, array.shape), (name, part)
            assert np.ascontiguousarray(one[part]).tobytes() == np.ascontiguousarray(array).tobytes(), (name, part)


# ---- the file


def test_a_part_is_what_its_description_says(tmp_path):
    batch = batch_of(10)
    part = write(tmp_path, batch)
    with h5py.File(tmp_path / part.name, "r") as file:
        np.testing.assert_array_equal(file["event"], batch["event"])
        np.testing.assert_array_equal(file["label"], batch["label"])
        np.testing.assert_array_equal(file["group/HCAL"], batch["group/HCAL"])
        assert file["group/HCAL"].dtype == np.float16
        np.testing.assert_array_equal(file["tracks/values"], batch["tracks"].values)
        np.testing.assert_array_equal(file["tracks/mask"], batch["tracks"].mask)
        assert file["tracks/mask"].dtype == bool
        assert tuple(file["ECAL"].attrs["shape"]) == tuple(file["sites"].attrs["shape"]) == (9, 8, 7)
        assert file["ECAL/coords"].dtype == np.uint16
        for i in range(10):
            some = slice(file["ECAL/offsets"][i], file["ECAL/offsets"][i + 1])
            made = np.zeros((9, 8, 7), file["ECAL/values"].dtype)
            made.reshape(-1)[file["ECAL/coords"][some]] = file["ECAL/values"][some]
            np.testing.assert_array_equal(made, batch["ECAL"][i])
            some = slice(file["hits/xyz/offsets"][i], file["hits/xyz/offsets"][i + 1])
            np.testing.assert_array_equal(file["hits/xyz/values"][some], batch["hits/xyz"][i])
            some = slice(file["sites/offsets"][i], file["sites/offsets"][i + 1])
            sites = np.stack(np.unravel_index(file["sites/coords"][some], (9, 8, 7)), 1)
            np.testing.assert_array_equal(sites, np.argwhere(batch["ECAL"][i]))
            edges = file["graph/edges"][file["graph/offsets"][i] : file["graph/offsets"][i + 1]]
            nodes = int(file["graph/nodes"][i + 1] - file["graph/nodes"][i])
            np.testing.assert_array_equal(edges, np.stack([np.arange(nodes)] * 2, 1))
        file.visititems(lambda name, node: isinstance(node, h5py.Group) or _contiguous(node))


def _contiguous(node):
    assert node.chunks is None
    assert node.compression is None
    assert node.size == 0 or node.id.get_offset() is not None


def test_checksums_are_xxh3_of_the_bytes_of_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.parts.buffer._BLOCK_BYTES", 2_000)
    part = write(tmp_path, batch_of(6), batch_of(5, 6, seed=1))
    assert part.events == 11
    assert part.blocks > 2
    with h5py.File(tmp_path / part.name, "r") as file:
        books = file["_cache"]
        columns = json.loads(books.attrs["columns"])
        assert books["checksums"].shape == (part.blocks, len(columns))
        for block in range(part.blocks):
            low = block * int(books.attrs["block_events"])
            high = min(low + int(books.attrs["block_events"]), 11)
            for column, (path, by) in enumerate(columns.items()):
                some = slice(file[by][low], file[by][high]) if by else slice(low, high)
                assert books["checksums"][block, column] == xxhash.xxh3_64_intdigest(file[path][some].tobytes()), path
        for path in ("event", "ECAL/offsets", "hits/xyz/offsets", "graph/nodes", "_cache/checksums"):
            assert file[path].attrs["xxh3"] == xxhash.xxh3_64_hexdigest(file[path][()].tobytes())


def test_what_is_said_of_a_part_can_be_read_from_its_file(tmp_path):
    part = write(tmp_path, batch_of(10))
    opened, key, forms = Part.open(str(tmp_path / part.name))
    assert (opened, key, forms) == (part, KEY, forms_of(batch_of(10)))
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
    assert part.bytes == os.path.getsize(tmp_path / part.name)
    assert os.listdir(tmp_path) == [part.name]


def test_images_are_kept_as_cells_where_that_is_smaller(tmp_path):
    def stored(occupancy, dtype="f4", shape=(16, 16)):
        batch = {"x": image(8, shape, dtype, occupancy), "event": batch_of(8)["event"]}
        return set(write(tmp_path, batch).stored)

    cells = {"x/coords", "x/values", "x/offsets"}
    assert cells < stored(0.05)
    assert "x" in stored(0.9)
    assert "x" in stored(0.4)  # a cell takes 6 bytes for 4
    assert cells < stored(0.25)  # 6 x 0.25 < 4 x 0.5
    assert "x" in stored(0.25, "u1")  # 3 x 0.25 > 1 x 0.5
    assert "x" in stored(0.0, "f4", (4, 4))  # so small that offsets would take more


@pytest.mark.parametrize(
    ("volume", "dtype"), [(1, "u2"), (65536, "u2"), (65537, "u4"), (2**32, "u4"), (2**32 + 1, "u8")]
)
def test_cell_numbers_are_as_small_as_the_volume_allows(volume, dtype):
    assert cell_type(volume) == np.dtype(dtype)


# ---- reading


@pytest.mark.parametrize("mapped", [False, True])
def test_events_come_back_in_any_order_and_more_than_once(tmp_path, mapped):
    batch = batch_of(12)
    part = write(tmp_path, batch)
    forms = forms_of(batch)
    for at in ([*range(12)], [5, 1, 1, 11, 0], [1], []):
        fetched = read(tmp_path, part, forms, [0] * len(at), at, guarded=mapped, mapped=mapped)
        assert not fetched.bad.any()
        assert fetched.damaged == []
        assert_equal(fetched.batch, {name: take(value, np.array(at, np.int64)) for name, value in batch.items()})


@pytest.mark.parametrize("mapped", [False, True])
def test_parts_with_rows_and_parts_with_cells_come_in_one_batch(tmp_path, mapped):
    batches = [
        {"x": image(6, (16, 16), "f4", occupancy, seed), "event": batch_of(6, 6 * seed)["event"]}
        for seed, occupancy in enumerate((0.01, 1.0, 0.01, 0.0))
    ]
    parts = [write(tmp_path, batch) for batch in batches]
    assert ["x" in part.columns for part in parts] == [False, True, False, False]
    part, at = np.repeat(np.arange(4), 6)[::-1], np.tile(np.arange(6), 4)
    fetched = read(tmp_path, parts, forms_of(batches[0]), part, at, guarded=mapped, mapped=mapped)
    whole = concatenate([batch["x"] for batch in batches])
    assert fetched.batch["x"].tobytes() == whole[part * 6 + at].tobytes()
    assert fetched.damaged == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i1", "u2", "i8", "u8", "?", "c8", "c16"])
def test_arrays_of_every_type_and_shape_keep_their_bits(tmp_path, dtype):
    shapes = [(), (1,), (40, 50), (300, 300), (0,)]
    batch = {f"{shape} {occupancy}": image(5, shape, dtype, occupancy) for shape in shapes for occupancy in (0.01, 1.0)}
    batch["event"] = batch_of(5)["event"]
    part = write(tmp_path, batch)
    assert part.stored["(40, 50) 0.01/coords"].dtype == "<u2"
    assert part.stored["(300, 300) 0.01/coords"].dtype == ("<u4")  # 90,000 cells
    assert "(40, 50) 1.0" in part.stored
    found = read(tmp_path, part, forms_of(batch), [0, 0, 0], [4, 0, 2])
    assert found.damaged == []
    assert_equal(found.batch, {name: values[[4, 0, 2]] for name, values in batch.items()})


def test_the_other_byte_order_becomes_this_machines(tmp_path):
    batch = {"x": np.arange(12.0).reshape(3, 4).astype(">f4"), "event": batch_of(3)["event"]}
    found = read(tmp_path, write(tmp_path, batch), forms_of(batch), [0, 0], [2, 1]).batch["x"]
    assert found.dtype == np.dtype("<f4")
    assert found.tolist() == [[8, 9, 10, 11], [4, 5, 6, 7]]


def test_a_big_array_and_a_strided_one_are_kept(tmp_path):
    big = np.arange(2 * 1024 * 1024, dtype=np.float32).reshape(2, 1024, 1024)
    batch = {"big": big, "strided": big[:, ::256, ::-256], "event": batch_of(2)["event"]}
    part = write(tmp_path, batch)
    assert part.blocks == 2
    assert_equal(
        read(tmp_path, part, forms_of(batch), [0, 0], [1, 0]).batch, {n: batch[n][::-1] for n in ("big", "strided")}
    )


def test_one_event_and_events_without_any_row_are_kept(tmp_path):
    nothing = Jagged(np.empty((0, 3), np.float32), np.zeros(3, np.int64))
    batch = {"hits": nothing, "x": np.zeros((2, 30, 30), np.uint8), "event": batch_of(2)["event"]}
    part = write(tmp_path, batch)
    fetched = read(tmp_path, part, forms_of(batch), [0, 0], [1, 0])
    assert fetched.damaged == []
    assert_equal(fetched.batch, batch)
    one = {name: take(value, np.array([0])) for name, value in batch_of(3).items()}
    assert_equal(read(tmp_path, write(tmp_path, one), forms_of(one), [0], [0]).batch, one)


# ---- writing


def test_parts_are_closed_when_they_are_large_enough(tmp_path):
    parts = write(tmp_path, *(batch_of(4, 4 * i, seed=i) for i in range(6)), part_bytes=1)
    assert [part.events for part in parts] == [4] * 6
    assert len({part.name for part in parts}) == 6
    assert write(tmp_path, *(batch_of(4, 4 * i) for i in range(6))).events == 24


def test_events_that_went_are_told_with_the_others(tmp_path):
    batch = {name: take(value, np.array([0, 3])) for name, value in batch_of(5).items()}
    part = write(tmp_path, batch, given=batch_of(5)["event"])
    assert (part.events, part.removed) == (2, 3)
    assert part.read("_cache/removed", str(tmp_path)).tolist() == [[0, 1], [0, 2], [0, 4]]
    nobody = {name: take(value, np.arange(0)) for name, value in batch.items()}
    part = write(tmp_path, nobody, given=batch_of(5)["event"])
    assert (part.events, part.removed, part.blocks) == (0, 5, 0)
    assert Part.open(str(tmp_path / part.name))[0] == part


def test_only_events_that_are_wanted_are_written_and_each_once(tmp_path):
    batch = {name: take(value, np.array([2, 0, 2, 1, 4])) for name, value in batch_of(5).items()}
    writer = PartWriter(str(tmp_path), KEY)
    writer.add(batch, batch["event"], np.array([True, False, False, True, False]))
    (part,) = writer.close().parts
    assert part.read("event", str(tmp_path)).tolist() == [[0, 2], [0, 1]]


def test_nothing_is_written_of_nothing(tmp_path):
    writer = PartWriter(str(tmp_path), KEY)
    writer.add({name: take(value, np.arange(0)) for name, value in batch_of(3).items()}, np.empty((0, 2), np.int64))
    assert writer.close().parts == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"x": np.array(["a", "b"])}, "'x' is ndarray of <U1, which can't be cached"),
        ({"x": np.zeros(3)}, "'x' has 3 rows for 2 events"),
        ({"x": [1, 2]}, "'x' is list, which can't be cached"),
        ({"x": Jagged(np.zeros(4), np.array([0, 1, 2, 4]))}, "'x' has 3 rows for 2 events"),
    ],
)
def test_what_can_not_be_kept_event_by_event_is_refused(tmp_path, wrong, match):
    with pytest.raises(ProcessError, match=match):
        PartWriter(str(tmp_path), KEY).add({**wrong, "event": batch_of(2)["event"]}, batch_of(2)["event"])


def test_kernel_maps_are_refused(tmp_path):
    none, pairs = np.empty((0, 2), np.int32), [np.empty(0, np.int32)] * 4
    map_ = KernelMap(*pairs[:2], np.zeros(2, np.int64), *pairs[2:], none, (1,), (1,), (0,), (1,), True, False, (5,))
    sites = Sparse(np.empty((0, 1), np.float32), np.empty((0, 2), np.int32), (5,), 2, (map_,))
    with pytest.raises(ProcessError, match="'x' is Sparse, which can't be cached"):
        PartWriter(str(tmp_path), KEY).add({"x": sites, "event": batch_of(2)["event"]}, batch_of(2)["event"])


def test_batches_must_agree_in_form(tmp_path):
    writer = PartWriter(str(tmp_path), KEY)
    event = batch_of(2)["event"]
    writer.add({"x": np.zeros((2, 3)), "event": event}, event)
    with pytest.raises(ProcessError, match=r"'x' was dense \(3,\) <f8, and is dense \(4,\) <f8"):
        writer.add({"x": np.zeros((2, 4)), "event": event}, event)
    writer.refuse(ProcessError("enough"))
    assert writer.failed
    assert writer.close().parts == []


def test_keys_whose_names_are_groups_of_others_do_not_meet(tmp_path):
    event = batch_of(3)["event"]
    hits = Jagged(np.arange(4.0), np.array([0, 1, 1, 4]))
    batch = {
        "hits": hits,
        "hits/values": np.arange(3.0),
        "event/weight": np.arange(3),
        "event.weight": np.arange(3) + 5,
        "event": event,
    }
    part = write(tmp_path, batch)
    with h5py.File(tmp_path / part.name, "r") as file:
        assert file["hits.values"][()].tolist() == [0, 1, 2]
        assert file["event.weight"][()].tolist() == [5, 6, 7]
    assert_equal(read(tmp_path, part, forms_of(batch), [0] * 3, [0, 1, 2]).batch, batch)


def test_a_directory_that_is_not_there_is_an_error_of_the_report(tmp_path):
    writer = PartWriter(str(tmp_path / "none"), KEY)
    writer.add(batch_of(3), batch_of(3)["event"])
    done = writer.close()
    assert done.parts == []
    assert isinstance(done.error, SourceError)
    assert "name a directory that you may write to" in str(done.error)
    writer.add(batch_of(3), batch_of(3)["event"])  # it goes on, and writes nothing more
    assert writer.close().parts == []


# ---- damage


def test_damage_is_told_by_part_and_block(tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.parts.buffer._BLOCK_BYTES", 1_000)
    batch = batch_of(12)
    part = write(tmp_path, batch)
    with open(tmp_path / part.name, "r+b") as file:
        file.seek(part.stored["label"].offset + 8 * 11)
        file.write(b"\xff")
    fetched = read(tmp_path, part, forms_of(batch), [0] * 12, range(12))
    assert fetched.damaged == [(0, part.blocks - 1)]
    good = np.flatnonzero(~fetched.bad)
    np.testing.assert_array_equal(good, np.arange((part.blocks - 1) * part.block_events))
    assert_equal(fetched.batch, {name: take(value, good) for name, value in batch.items()})


def test_offsets_that_were_changed_are_not_used(tmp_path):
    part = write(tmp_path, batch_of(12))
    with open(tmp_path / part.name, "r+b") as file:
        file.seek(part.stored["hits/xyz/offsets"].offset + 8)
        file.write(b"\x63")
    with pytest.raises(CorruptDataError, match=r"'hits/xyz/offsets' of .* fails its checksum") as caught:
        part.read("hits/xyz/offsets", str(tmp_path))
    assert caught.value.file == str(tmp_path / part.name)


def test_what_is_no_part_is_refused(tmp_path):
    part = write(tmp_path, batch_of(12))
    path = tmp_path / part.name
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["event"] = np.zeros((3, 2))
    with pytest.raises(FileFormatError, match="no part of a cache"):
        Part.open(str(tmp_path / "other.h5"))
    os.truncate(path, part.bytes - 1)
    with pytest.raises(FileFormatError, match=r"cut short|truncated"):
        Part.open(str(path))
    last = max(part.stored, key=lambda name: part.stored[name].offset)
    os.truncate(path, part.stored[last].offset)
    with pytest.raises(CorruptDataError, match="is cut short"):
        part.read(last, str(tmp_path))
    path.unlink()
    with pytest.raises(SourceError, match="can't read"):
        part.read("event", str(tmp_path))


def test_another_format_is_not_read(tmp_path):
    part = write(tmp_path, batch_of(3))
    with h5py.File(tmp_path / part.name, "r+") as file:
        file["_cache"].attrs["format"] = FORMAT + 1
    with pytest.raises(FileFormatError, match=f"has format {FORMAT + 1}, this is {FORMAT}"):
        Part.open(str(tmp_path / part.name))
