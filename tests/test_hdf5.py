"""What is read of an HDF5 file: shapes, layouts, chunk tables, and rows through h5py."""

import os

import h5py
import hdf5plugin
import numpy as np
import pytest
from events import LAYOUTS, describe, images, write_file

from hepfeed.errors import FileFormatError, KeyMissingError, SourceError, SpecError
from hepfeed.file_events import describe_events
from hepfeed.hdf5 import ChunkTable, keys_of, open_file, read_rows
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec

LIBRARY = {"lzf": "filters", "blosc": "filters", "virtual": "virtual"}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "events.h5")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_way_of_reading_follows_the_layout(tmp_path, layout):
    path = write_file(tmp_path / "a.h5", 40, layout=layout)
    info = describe(str(path), ["image"]).datasets["image"]
    chunked = "chunks" in LAYOUTS[layout].dataset
    native = "chunked" if chunked else "contiguous"
    assert info.storage == ("library" if layout in LIBRARY else native)
    assert info.reason == LIBRARY.get(layout, "")
    assert (info.events, info.event_shape) == (40, (5, 4))
    assert np.dtype(info.dtype) == np.dtype(LAYOUTS[layout].dtype)


def test_a_description_has_what_the_file_says(path):
    with h5py.File(path, "w") as file:
        options = {"chunks": (4, 3), "compression": 1, "shuffle": True, "fletcher32": True, "fillvalue": 2}
        file.create_dataset("ECAL/x", data=np.ones((10, 3), ">i2"), **options)
    file = describe(path, ["ECAL/x"])
    status = os.stat(path)
    assert (file.path, file.size, file.mtime_ns) == (path, status.st_size, status.st_mtime_ns)
    info = file.datasets["ECAL/x"]
    assert (info.shape, info.dtype, info.chunk) == ((10, 3), ">i2", (4, 3))
    assert info.filters == (2, 1, 3)
    assert info.codec == "shuffle+deflate+fletcher32"
    assert info.fill == b"\x00\x02"
    assert (info.event_bytes, info.chunk_events) == (6, 4)
    table = file.tables["ECAL/x"]
    assert info.stored_bytes == table.size.sum()


def test_a_chunk_table_is_in_the_order_of_the_grid_and_marks_what_is_not_there(path):
    with h5py.File(path, "w") as file:
        node = file.create_dataset("x", (6, 4), "f4", chunks=(2, 3))  # a grid of 3 x 2
        node[4:, 3:] = 1  # chunk 5 is written first
        node[:2, :3] = 2  # then chunk 0
    table = describe(path, ["x"]).tables["x"]
    assert (table.offset >= 0).tolist() == [True, False, False, False, False, True]
    assert table.offset[5] < table.offset[0]
    assert table.size.tolist() == [24, 0, 0, 0, 0, 24]
    assert table.mask.tolist() == [0] * 6


def test_a_chunk_table_survives_its_bytes(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(100.0), chunks=(7,), compression=1)
    table = describe(path, ["x"]).tables["x"]
    again = ChunkTable.frombytes(table.tobytes())
    for name in ("offset", "size", "mask"):
        assert (getattr(again, name) == getattr(table, name)).all()
        assert getattr(again, name).dtype == getattr(table, name).dtype
    assert len(ChunkTable.empty().offset) == 0


@pytest.mark.parametrize(
    ("options", "events"),
    [
        ({}, 1),
        ({"chunks": (8, 5, 4)}, 1),  # no filter, and an event lies together: each can be read alone
        ({"chunks": (8, 5, 2)}, 8),
        ({"chunks": (8, 5, 4), "compression": 1}, 8),
        ({"chunks": (8, 5, 4), "fletcher32": True}, 8),
        ({"chunks": (1, 5, 4), "compression": 1}, 1),
        ({"chunks": (8, 5, 4), "compression": "lzf"}, 8),
    ],
)
def test_events_share_a_chunk_where_they_can_not_be_read_alone(path, options, events):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((20, 5, 4)), **options)
    assert describe(path, ["x"]).datasets["x"].chunk_events == events


def test_data_that_were_never_written_have_no_place(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", (3, 2), "f4", fillvalue=4)
    info = describe(path, ["x"]).datasets["x"]
    assert (info.storage, info.offset, info.fill) == ("contiguous", -1, np.float32(4).tobytes())


def test_compact_external_and_wide_data_are_read_through_the_library(path, tmp_path):
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), plist)
        file.create_dataset("external", (4,), "f4", external=[(str(tmp_path / "raw"), 0, 16)])
        file["wide"] = np.zeros(3, np.longdouble)
        file["complex"] = np.zeros(3, ">c8")
        file.create_dataset("twice", data=np.zeros((8, 2)), chunks=(2, 2), **hdf5plugin.Bitshuffle(cname="none"))
    keys = ["compact", "external", "wide", "complex", "twice"]
    found = describe(path, keys).datasets
    assert {found[key].storage for key in keys} == {"library"}
    assert [found[key].reason for key in keys] == [
        "compact",
        "external",
        "extended precision",
        "complex numbers of the other byte order",
        "filters",
    ]


def test_a_missing_key_is_an_error_or_noted(path):
    with h5py.File(path, "w") as file:
        file["ECAL"] = np.zeros(3)
        file.create_group("HCAL")
    with pytest.raises(KeyMissingError, match=r"key 'ecal' does not exist in .*: did you mean 'ECAL'\?"):
        EventIndex(SampleSpec([[path, ["ecal"], "a"]]))
    with pytest.raises(KeyMissingError, match="key 'HCAL' is a group"):
        EventIndex(SampleSpec([[path, ["HCAL"], "a"]]))
    info = describe_events(path, ["ECAL", "ecal"])
    assert set(info.datasets) == {"ECAL"}
    assert info.absent == {"ecal"}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("scalar", 3.0, "is a single value without an event axis"),
        ("empty", h5py.Empty("f4"), "is a single value without an event axis"),
        ("text", ["electron"], "has dtype text"),
        ("table", np.zeros(3, [("x", "f4"), ("y", "i2")]), "has fields x, y"),
    ],
)
def test_data_that_are_no_events_are_refused(path, name, content, what):
    with h5py.File(path, "w") as file:
        file[name] = content
    with pytest.raises(SpecError, match=what) as caught:
        describe(path, [name])
    assert (caught.value.file, caught.value.key) == (path, name)


def test_data_of_variable_length_are_refused(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("ragged", (3,), h5py.vlen_dtype("f4"))
    with pytest.raises(SpecError, match="dtype of variable length"):
        describe(path, ["ragged"])


def test_keys_are_all_data_sets_but_index_groups(path):
    with h5py.File(path, "w") as file:
        for name in ("ECAL", "Event/energy", "Event/_i_table/energy", "_i_maps"):
            file[name] = np.zeros(3)
    with open_file(path) as file:
        assert keys_of(file) == ["ECAL", "Event/energy"]


def test_a_file_that_is_gone_or_a_directory_is_named(tmp_path):
    with pytest.raises(SourceError, match="was it moved or deleted"), open_file(str(tmp_path / "gone.h5")):
        pass
    with pytest.raises(SourceError, match="Is a directory"), open_file(str(tmp_path)):
        pass


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
def test_a_file_that_this_process_has_open_is_read_too(path, locking):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
    with h5py.File(path, "r", locking=locking):
        assert describe(path, ["x"]).datasets["x"].events == 3


def test_a_signature_behind_a_user_block_is_found(path):
    with h5py.File(path, "w", userblock_size=2048) as file:
        file["x"] = np.arange(3)
    with open(path, "r+b") as stream:
        stream.write(b"# notes of the run")
    assert describe(path, ["x"]).datasets["x"].events == 3


def test_a_broken_superblock_is_named(path):
    with open(path, "wb") as stream:
        stream.write(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(FileFormatError, match="HDF5 can't open"), open_file(path):
        pass


@pytest.mark.parametrize("layout", ["contiguous", "lzf", "virtual", "blosc"])
def test_rows_are_read_through_the_library_with_repeats(tmp_path, layout):
    path = write_file(tmp_path / "a.h5", 40, layout=layout)
    rows = np.array([0, 1, 2, 7, 7, 38, 39])
    assert (read_rows(str(path), "image", rows)[0] == images(0, 0, 40)[rows]).all()


def test_rows_of_a_key_that_is_gone_are_an_error(path):
    with h5py.File(path, "w") as file:
        file["y"] = np.zeros(3)
    with pytest.raises(KeyMissingError, match="key 'x' is gone from"):
        read_rows(path, "x", np.array([0]))
