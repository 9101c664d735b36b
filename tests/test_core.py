"""The native kernels, each against its definition: h5py, NumPy or zlib."""

import os
import zlib

import h5py
import numpy as np
import pytest
from events import describe
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hepfeed import _core
from hepfeed.inflaters import register_inflaters
from hepfeed.source_reader import native_dataset, row_addresses

LIBRARIES = register_inflaters()
FLOATS = ["f2", "f4", "f8"]
NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", *FLOATS]
NATIVE = [order + kind for order in "<>" for kind in NUMBERS] + ["<c8", "?"]


def available():
    before, names = _core.isa(), []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _core.set_isa(name)
        except ValueError:  # this processor lacks it
            continue
        names.append(name)
    _core.set_isa(before)
    return names


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Each instruction set that the processor has."""
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="'mmx' is none of 'baseline', 'avx2', 'avx512'"):
        _core.set_isa("mmx")


# ---- unshuffle


def test_unshuffling_two_items_of_three_bytes():
    assert _core.unshuffle(b"adbecf", 3) == b"abcdef"


@pytest.mark.parametrize("item", [1, 2, 3, 4, 6, 8, 12, 16])
def test_unshuffling_transposes_the_planes_for_every_length(isa, item):
    random = np.random.default_rng(item)
    for count in [*range(0, 140), 255, 256, 257, 1000]:
        data = random.integers(0, 256, count * item, np.uint8)
        assert _core.unshuffle(data.tobytes(), item) == data.reshape(item, count).T.tobytes(), count


# ---- conversion


def assert_converts_as_numpy(values, to):
    with np.errstate(all="ignore"):
        expected = values.astype(to)
    types = values.dtype.str[1:], expected.dtype.str[1:]
    got = np.frombuffer(_core.convert(values.tobytes(), *types, values.itemsize, expected.itemsize), expected.dtype)
    nan = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(len(expected), bool)
    if expected.dtype.kind == "f":
        assert (np.isnan(got) == nan).all()
    assert (got[~nan].view(f"u{got.itemsize}") == expected[~nan].view(f"u{got.itemsize}")).all()


def test_all_half_precision_numbers_are_widened_exactly(isa):
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for to in FLOATS:
        assert_converts_as_numpy(values, to)


def test_rounding_to_half_precision_is_to_the_nearest_even(isa):
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.999, 65520.0, 2**-25, 3 * 2**-26, -0.0, 1e-30], np.float64)
    expected = np.array([1.0, 1 + 2**-9, 65504.0, np.inf, 0.0, 2**-24, -0.0, 0.0], np.float16)
    for kind in ("f8", "f4"):
        assert_converts_as_numpy(values.astype(kind), "f2")
    got = np.frombuffer(_core.convert(values.tobytes(), "f8", "f2", 8, 2), np.float16)
    assert got.view(np.uint16).tolist() == expected.view(np.uint16).tolist()


def test_a_double_is_rounded_to_half_precision_once():
    value = np.array([1 + 2**-11 + 2**-40])  # via float32 it would become a tie, and round down
    got = np.frombuffer(_core.convert(value.tobytes(), "f8", "f2", 8, 2), np.float16)
    assert got[0] == 1 + 2**-10


@given(data=st.binary(min_size=8, max_size=400), kind=st.sampled_from(FLOATS), to=st.sampled_from(FLOATS))
def test_any_bits_convert_between_floats_as_in_numpy(data, kind, to):
    values = np.frombuffer(data[: len(data) // 8 * 8], kind)
    before = _core.isa()
    try:
        for name in available():
            _core.set_isa(name)
            assert_converts_as_numpy(values, to)
    finally:
        _core.set_isa(before)


@given(data=st.binary(min_size=8, max_size=200), kind=st.sampled_from(NUMBERS[:8]), to=st.sampled_from(NUMBERS))
def test_any_integers_convert_as_in_numpy(data, kind, to):
    assert_converts_as_numpy(np.frombuffer(data[: len(data) // 8 * 8], kind), to)


@given(values=st.lists(st.integers(0, 127), max_size=40), kind=st.sampled_from(NUMBERS), to=st.sampled_from(NUMBERS))
def test_small_numbers_survive_every_conversion(values, kind, to):
    assert_converts_as_numpy(np.array(values, kind), to)


# ---- checksum


def test_fletcher32_of_known_bytes():
    # Sums of the big-endian words 0x0102 and 0x0304: 0x0406, and 0x0102 + 0x0406 = 0x0508.
    assert _core.fletcher32(b"\x01\x02\x03\x04") == 0x05080406


@pytest.mark.parametrize("size", [1, 2, 3, 7, 719, 720, 721, 722, 5000, 100_001])
@pytest.mark.parametrize("byte", [0x00, 0xFF, None])
def test_fletcher32_is_what_the_hdf5_library_writes(tmp_path, size, byte):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8) if byte is None else np.full(size, byte, "u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=data, chunks=(size,), fletcher32=True)
        file.flush()
        stored = file["x"].id.read_direct_chunk((0,))[1]
    assert stored[:-4] == data.tobytes()
    assert _core.fletcher32(data.tobytes()) == int.from_bytes(stored[-4:], "little")


# ---- inflate


def test_a_library_that_inflates_is_there():
    assert set(LIBRARIES) <= {"libdeflate", "zlib-ng", "zlib"}
    assert list(LIBRARIES) == _core.inflaters()
    with pytest.raises(ValueError, match="library 'lzma' is not registered"):
        _core.inflate("lzma", b"", 1)
    assert not _core.register_inflater("another", "/no/such/library.so")


@pytest.mark.parametrize("library", LIBRARIES)
@given(data=st.binary(max_size=3000), level=st.integers(0, 9), repeats=st.integers(1, 50))
def test_every_library_inflates_what_zlib_deflates(library, data, level, repeats):
    data = data * repeats
    stream = zlib.compress(data, level)
    assert _core.inflate(library, stream, len(data)) == data


@pytest.mark.parametrize("library", LIBRARIES)
@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(1, 8), junk=st.binary(max_size=200))
def test_no_library_accepts_a_broken_stream(library, data, cut, junk):
    stream = zlib.compress(data)
    assert _core.inflate(library, stream[:-cut], len(data)) is None
    assert _core.inflate(library, stream, len(data) + 1) is None
    assert _core.inflate(library, stream, len(data) - 1) is None
    assert _core.inflate(library, stream[:-1] + bytes([stream[-1] ^ 1]), len(data)) is None
    assume(not junk.startswith(b"\x78"))
    assert _core.inflate(library, junk, 1000) is None


# ---- decoding of files


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that is written anew again and again."""
    return str(tmp_path_factory.mktemp("core") / "events.h5")


def native(path, rows, key="x", dtype=None):
    """Read events with the native reader; returns them and its failures."""
    info = describe(path, [key])
    dataset = info.datasets[key]
    assert dataset.storage != "library", dataset.reason
    rows = np.asarray(rows, np.int64)
    out = np.full((len(rows), *dataset.shape[1:]), 99, np.dtype(dtype or dataset.dtype).newbyteorder("="))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        made = native_dataset(dataset, info.tables[key], out.dtype.str)
        _, failures = _core.ChunkReader().read([(made, descriptor, 0, len(rows))], rows, row_addresses(out))
    finally:
        os.close(descriptor)
    return out, failures


def assert_reads_as_h5py(path, rows, dtype=None):
    with h5py.File(path) as file:
        expected = file["x"][()][rows]
    out, failures = native(path, rows, dtype=dtype)
    assert failures == []
    assert out.tobytes() == expected.astype(out.dtype).tobytes()


@st.composite
def datasets(draw, types):
    """Shape, options of the data set and of the file, and which rows are written."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    shape = (draw(st.integers(1, 30)), *shape[1:])
    options = {}
    if draw(st.booleans()):
        options["chunks"] = tuple(draw(st.integers(1, n)) for n in shape)
        options["compression"] = draw(st.sampled_from([None, 0, 1, 9]))
        options["shuffle"] = draw(st.booleans())
        options["fletcher32"] = draw(st.booleans())
        if draw(st.booleans()):
            options["maxshape"] = tuple(n + 3 for n in shape)
    return {
        "shape": shape,
        "dtype": draw(st.sampled_from(types)),
        "options": options,
        "fill": draw(st.sampled_from([None, 0, 1, 3])),
        "file": {
            "userblock_size": draw(st.sampled_from([0, 512, 1024])),
            "libver": draw(st.sampled_from(["earliest", "latest", ("v108", "v110")])),
        },
        "written": slice(*sorted(draw(st.tuples(st.integers(0, 30), st.integers(0, 30))))),
        "sparse": draw(st.booleans()),
        "seed": draw(st.integers(0, 9)),
    }


def write(path, plan):
    random = np.random.default_rng(plan["seed"])
    values = random.integers(0, 256, (*plan["shape"], np.dtype(plan["dtype"]).itemsize), np.uint8)
    if plan["sparse"]:
        values[random.random(values.shape) < 0.9] = 0
    values = values % 2 if plan["dtype"] == "?" else values
    values = values.view(plan["dtype"])[..., 0]
    if values.dtype.kind == "f":  # the payload of a NaN is not kept by every conversion of byte order
        values = np.nan_to_num(values)
    fill = None if values.dtype.kind == "c" else plan["fill"]  # h5py has no fill values for complex numbers
    fill = bool(fill) if values.dtype.kind == "b" and fill else fill  # and would store a 3 as no bool at all
    with h5py.File(path, "w", **plan["file"]) as file:
        node = file.create_dataset("x", plan["shape"], plan["dtype"], fillvalue=fill, **plan["options"])
        node[plan["written"]] = values[plan["written"]]


@settings(max_examples=300, deadline=None)
@given(plan=datasets(NATIVE), picks=st.lists(st.integers(0, 10**6), max_size=40))
def test_any_data_set_is_read_as_h5py_reads_it(path, plan, picks):
    write(path, plan)
    rows = [pick % plan["shape"][0] for pick in picks] or list(range(plan["shape"][0]))
    assert_reads_as_h5py(path, rows)


@settings(max_examples=100, deadline=None)
@given(plan=datasets([order + kind for order in "<>" for kind in FLOATS]), to=st.sampled_from(FLOATS))
def test_any_floats_are_converted_as_numpy_converts_them(path, plan, to):
    write(path, plan)
    with np.errstate(all="ignore"):
        assert_reads_as_h5py(path, np.arange(plan["shape"][0]), dtype=to)


def test_filters_that_were_left_out_of_a_chunk_are_not_undone(path):
    values = np.arange(12, dtype="<f4").reshape(4, 3)
    with h5py.File(path, "w") as file:
        node = file.create_dataset("x", (4, 3), "<f4", chunks=(2, 3), compression="gzip", shuffle=True)
        node[:2] = values[:2]
        node.id.write_direct_chunk((2, 0), values[2:].tobytes(), filter_mask=0b11)
    assert_reads_as_h5py(path, [3, 0, 2, 1])


@pytest.mark.parametrize("chunks", [None, (1, 3)])
def test_zeros_behind_a_user_block_do_not_mislead(path, chunks):
    values = np.zeros((8, 3))
    values[5:] = np.arange(9.0).reshape(3, 3)
    with h5py.File(path, "w", userblock_size=1024) as file:
        file.create_dataset("x", data=values, chunks=chunks)
    assert_reads_as_h5py(path, np.arange(8))


def test_chunks_beyond_the_end_of_a_shrunken_data_set_are_ignored(path):
    with h5py.File(path, "w") as file:
        node = file.create_dataset("x", data=np.arange(60.0).reshape(20, 3), chunks=(4, 2), maxshape=(None, 3))
        node.resize((9, 3))
    assert_reads_as_h5py(path, np.arange(9))


def test_an_event_may_be_asked_for_twice_and_out_of_order(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(60, dtype=">i2").reshape(20, 3), chunks=(4, 3), compression=1)
    assert_reads_as_h5py(path, [7, 7, 0, 19, 7, 1])


def test_several_files_are_read_in_one_call(tmp_path):
    parts, rows, expected = [], [], []
    for number in range(3):
        name = str(tmp_path / f"{number}.h5")
        with h5py.File(name, "w") as file:
            file["x"] = np.arange(10.0) + 100 * number
        info = describe(name, ["x"])
        made = native_dataset(info.datasets["x"], info.tables["x"], "<f8")
        parts.append((made, os.open(name, os.O_RDONLY), len(rows), len(rows) + number + 1))
        rows += list(range(number + 1))
        expected += [100.0 * number + row for row in range(number + 1)]
    out = np.zeros(6)
    costs, failures = _core.ChunkReader().read(parts, np.array(rows), row_addresses(out))
    for _, descriptor, *_ in parts:
        os.close(descriptor)
    assert out.tolist() == expected
    assert failures == []
    assert costs[3] >= 6 * 8  # bytes read


@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 10**6),
    mask=st.integers(1, 255),
    shuffle=st.booleans(),
    fletcher32=st.booleans(),
)
def test_a_changed_byte_of_a_chunk_is_a_failure_and_never_a_wrong_value(path, position, mask, shuffle, fletcher32):
    values = np.random.default_rng(0).integers(0, 9, (6, 40)).astype("<f4")
    with h5py.File(path, "w") as file:
        options = {"compression": 4, "shuffle": shuffle, "fletcher32": fletcher32}
        node = file.create_dataset("x", data=values, chunks=(2, 40), **options)
        file.flush()
        info = node.id.get_chunk_info(1)
    with open(path, "r+b") as stream:
        stream.seek(info.byte_offset + position % info.size)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ mask]))
    out, failures = native(path, np.arange(6))
    assert (out[[0, 1, 4, 5]] == values[[0, 1, 4, 5]]).all()
    if failures:
        assert sorted(place for place, *_ in failures) == [2, 3]
        assert {fault for _, fault, *_ in failures} <= {2, 3}
        assert {offset for *_, offset, _ in failures} == {info.byte_offset}
        assert (out[2:4] == 0).all()
    else:  # a bit of the zlib header that does not matter, such as its level
        assert (out[2:4] == values[2:4]).all()
        assert not fletcher32


@pytest.mark.parametrize("compression", [None, 1])
def test_a_file_that_ends_too_early_is_a_failure_of_the_events_beyond(path, compression):
    values = np.random.default_rng(0).integers(0, 1 << 60, (20, 50))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(5, 50), compression=compression)
    info = describe(path, ["x"])
    table = info.tables["x"]
    made = native_dataset(info.datasets["x"], table, "<i8")
    os.truncate(path, int(table.offset[2]) + 10)
    out = np.full((20, 50), 99)
    descriptor = os.open(path, os.O_RDONLY)
    _, failures = _core.ChunkReader().read([(made, descriptor, 0, 20)], np.arange(20), row_addresses(out))
    os.close(descriptor)
    assert sorted(place for place, *_ in failures) == list(range(10, 20))
    assert {(fault, error) for _, fault, _, error in failures} == {(1, 0)}
    assert (out[:10] == values[:10]).all()
    assert (out[10:] == 0).all()


def test_an_unreadable_descriptor_is_a_failure_with_its_number(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4.0)
    info = describe(path, ["x"])
    descriptor = os.open(path, os.O_WRONLY)
    out = np.empty(1)
    made = native_dataset(info.datasets["x"], info.tables["x"], "<f8")
    _, failures = _core.ChunkReader().read([(made, descriptor, 0, 1)], np.array([2]), row_addresses(out))
    os.close(descriptor)
    assert [(fault, error) for _, fault, _, error in failures] == [(1, 9)]  # EBADF


def test_events_beyond_the_end_are_refused(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4.0)
    with pytest.raises(IndexError, match="an event beyond the end of its file"):
        native(path, [4])


def test_tables_that_do_not_fit_are_refused():
    fields = {
        "shape": (4, 2),
        "type": "f4",
        "item": 4,
        "out_type": "f4",
        "out_item": 4,
        "swap": False,
        "offset": -1,
        "chunk": (2, 2),
        "filters": (1,),
        "fill": bytes(4),
        "chunk_offset": np.zeros(2, np.int64),
        "chunk_size": np.zeros(2, np.int64),
        "chunk_mask": np.zeros(2, np.uint32),
    }
    assert _core.Dataset(**fields).out_row_bytes == 8
    wrong = [
        ({"shape": ()}, "a data set needs an event axis"),
        ({"fill": b""}, "fill value of a wrong size"),
        ({"chunk": (2,)}, "chunk and shape differ"),
        ({"chunk": (0, 2)}, "length zero"),
        ({"chunk": (3, 1)}, "chunk table of a wrong length"),
        ({"filters": (5,)}, "a filter that is not decoded here"),
        ({"filters": (1, 2)}, "after deflate only fletcher32"),
        ({"filters": (2,) * 9}, "too many filters"),
        ({"type": "c8"}, "can't be converted"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            _core.Dataset(**{**fields, **change})


def test_rows_are_copied_to_their_places():
    source, target = np.arange(12.0).reshape(4, 3), np.zeros((3, 3))
    _core.copy_rows(row_addresses(source)[[3, 0, 3]], row_addresses(target), 24)
    assert target.tolist() == [[9, 10, 11], [0, 1, 2], [9, 10, 11]]
