"""The kernels of the cache: by hand, against their NumPy forms, and over files that end under them."""

import errno
import mmap
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _cache
from hepfeed.reference import cells as reference

NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", ">f4"]
PAGE = mmap.PAGESIZE


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Each instruction set that the processor has."""
    before = _cache.isa()
    try:
        _cache.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _cache.set_isa(before)


def ints(*numbers):
    return np.array(numbers, np.int64)


def addresses(array, starts, item_bytes=1):
    """Addresses of the items of an array that have these numbers."""
    return (array.ctypes.data + np.asarray(starts, np.int64) * item_bytes).astype(np.uint64)


def starts_of(counts):
    return np.cumsum(counts) - counts


def some_images(dtype, events, volume, occupancy=0.05, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(1, 100, (events, volume)).astype(dtype)
    images[random.random((events, volume)) >= occupancy] = 0
    return images


def densified(cells, values, counts, volume, guarded=False, shift=0):
    """Images that begin `shift` bytes after a line, between bytes that must stay as they are."""
    item, events = values.itemsize, len(counts)
    room = np.full(64 + shift + events * volume * item + 64, 7, np.uint8)
    begin = -room.ctypes.data % 64 + shift
    starts = starts_of(counts)
    faults = _cache.densify(
        addresses(cells, starts, cells.itemsize),
        addresses(values, starts, item),
        counts,
        addresses(room, begin + np.arange(events) * volume * item),
        volume,
        cells.itemsize,
        item,
        guarded,
    )
    end = begin + events * volume * item
    assert (room[:begin] == 7).all()
    assert (room[end:] == 7).all()
    return faults, room[begin:end].copy().view(values.dtype).reshape(events, volume)


def unravelled(cells, counts, shape, first_event=0, guarded=False):
    out = np.full((int(counts.sum()) + 1, 1 + len(shape)), -7, np.int32)
    starts = addresses(cells, starts_of(counts), cells.itemsize)
    faults = _cache.unravel(starts, counts, shape, cells.itemsize, out.ctypes.data, first_event, guarded)
    assert (out[-1] == -7).all()
    return faults, out[:-1]


def assert_same(one, other):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


# ---- images to cells


def test_items_with_a_bit_set_are_counted_minus_zero_and_nan_too():
    images = np.array([[0, -0.0, 1], [0, 0, 0], [np.nan, 0, 5e-324]])
    assert _cache.count_cells(images, 3).tolist() == [2, 0, 2]
    counts, cells, values = _cache.pack(images, 3, 2)
    assert counts.tolist() == [2, 0, 2]
    assert_same(cells, np.array([1, 2, 0, 2], np.uint16))
    assert_same(values.view(np.uint64), images.ravel()[[1, 2, 6, 8]].view(np.uint64))


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("occupancy", [0, 0.03, 1])
def test_cells_of_images_equal_their_twin(isa, dtype, occupancy):
    for events, volume in ((3, 1000), (1, 64), (5, 1), (2, 300), (4, 0)):
        images = some_images(dtype, events, volume, occupancy)
        counts = _cache.count_cells(images, events)
        assert_same(counts, reference.count_cells(images, events))
        for cell_bytes in (2, 4, 8):
            made = _cache.pack(images, events, cell_bytes)
            for one, other in zip(made, reference.pack(images, events, cell_bytes), strict=True):
                assert_same(one, other)


def test_no_events_have_no_cells():
    assert _cache.count_cells(np.zeros((0, 5)), 0).tolist() == []
    assert [len(part) for part in _cache.pack(np.zeros((0, 5)), 0, 2)] == [0, 0, 0]
    assert _cache.densify(*no_addresses(2), ints(), *no_addresses(1), 5, 2, 4, False).tolist() == []
    assert _cache.unravel(*no_addresses(1), ints(), [5], 2, 0, 0, False).tolist() == []
    assert _cache.copy_runs(*no_addresses(2), ints(), False).tolist() == []
    assert _cache.read_runs(np.zeros(0, np.int32), ints(), ints(), *no_addresses(1)).tolist() == []


def no_addresses(how_many):
    return [np.zeros(0, np.uint64)] * how_many


def test_an_image_of_65536_items_has_cells_of_two_bytes_and_one_more_has_not():
    images = np.zeros(65537, np.uint8)
    images[65535] = 1
    assert _cache.pack(images[:65536], 1, 2)[1].tolist() == [65535]
    with pytest.raises(ValueError, match="need more bytes"):
        _cache.pack(images, 1, 2)
    assert _cache.pack(images, 1, 4)[1].tolist() == [65535]


# ---- sites to cells and back


def test_sites_are_numbered_in_c_order():
    sites = np.array([[0, 0, 0, 0], [0, 0, 0, 3], [7, 0, 1, 0], [9, 1, 2, 3]], np.int32)
    cells = _cache.ravel(sites, [2, 3, 4], 2)
    assert_same(cells, np.array([0, 3, 4, 23], np.uint16))
    faults, again = unravelled(cells, ints(2, 0, 1, 1), [2, 3, 4], first_event=5)
    assert faults.tolist() == [0, 0, 0, 0]
    assert again.tolist() == [[5, 0, 0, 0], [5, 0, 0, 3], [7, 0, 1, 0], [8, 1, 2, 3]]


def test_the_first_site_outside_of_the_shape_is_named():
    sites = np.array([[0, 1, 3], [4, 1, 4], [4, -1, 0]], np.int32)
    with pytest.raises(ValueError, match=r"site 1, \(1, 4\) of event 4, lies outside of the shape \(2, 4\)"):
        _cache.ravel(sites, [2, 4], 2)
    with pytest.raises(ValueError, match=r"site 0, \(-1, 0\) of event 4"):
        _cache.ravel(sites[2:], [2, 4], 2)
    with pytest.raises(ValueError, match="need more bytes"):
        _cache.ravel(sites, [256, 257], 2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sites_and_cells_equal_their_twins_for_any_shape(data):
    shape = data.draw(st.lists(st.integers(1, 2**31 - 1) | st.integers(1, 40), min_size=1, max_size=5))
    while np.prod([float(extent) for extent in shape]) > 2.0**61:
        shape.pop()
    volume = int(np.prod(shape, dtype=np.int64))
    cells = data.draw(st.lists(st.integers(0, volume - 1), max_size=20))
    cells = np.array(
        [*cells, 0, volume - 1], data.draw(st.sampled_from([f"u{w}" for w in (2, 4, 8) if volume <= 256**w]))
    )
    counts = ints(len(cells) - 2, 0, 2)
    faults, sites = unravelled(cells, counts, shape, 3)
    assert not faults.any()
    assert_same(sites, reference.unravel(cells, counts, shape, 3))
    again = _cache.ravel(sites, shape, cells.itemsize)
    assert_same(again, cells)
    assert_same(again, reference.ravel(sites, shape, cells.itemsize))


def test_every_cell_of_an_image_has_its_coordinates():
    shape = (25, 7, 13)
    cells = np.arange(25 * 7 * 13, dtype=np.uint16)
    faults, sites = unravelled(cells, ints(len(cells)), shape)
    assert not faults.any()
    assert_same(sites[:, 1:], np.indices(shape).reshape(3, -1).T.astype(np.int32))


def test_a_cell_outside_of_the_shape_is_a_fault_of_its_event_alone():
    cells = np.array([3, 6, 2, 4, 5], np.uint16)
    faults, sites = unravelled(cells, ints(1, 2, 2), (2, 3))
    assert faults.tolist() == [0, 2, 0]
    assert sites[[0, 3, 4]].tolist() == [[0, 1, 0], [2, 1, 1], [2, 1, 2]]


# ---- cells to images


def test_cells_are_set_and_all_else_is_cleared():
    cells, values = np.array([1, 4, 0], np.uint16), np.array([2.5, -0.0, 8], np.float32)
    faults, images = densified(cells, values, ints(2, 0, 1), 5)
    assert faults.tolist() == [0, 0, 0]
    assert images.tolist() == [[0, 2.5, 0, 0, 0], [0, 0, 0, 0, 0], [8, 0, 0, 0, 0]]
    assert np.signbit(images[0, 4])


@pytest.mark.parametrize("dtype", [name for name in NUMBERS if name != ">f4"])
@pytest.mark.parametrize("cell_bytes", [2, 4, 8])
def test_images_equal_their_twin_wherever_they_begin(isa, dtype, cell_bytes):
    for volume in (100, 15_625, 20_001):
        images = some_images(dtype, 3, volume, 0.02)
        counts = _cache.count_cells(images, 3)
        _, cells, values = _cache.pack(images, len(images), cell_bytes)
        twin = reference.densify(cells, values, counts, volume)
        assert_same(twin, images)
        for shift in (0, 1, 20, 56, 63):
            faults, made = densified(cells, values, counts, volume, shift=shift)
            assert not faults.any()
            assert_same(made, twin)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_cells_in_any_order_and_more_than_once_give_the_image_of_the_twin(data):
    volume = data.draw(st.integers(1, 60_000))
    runs = data.draw(st.lists(st.lists(st.integers(0, volume - 1), max_size=30), max_size=4))
    cells = np.array([cell for run in runs for cell in run], np.uint16)
    values = np.arange(1, len(cells) + 1, dtype=data.draw(st.sampled_from(["u1", "f4", "f8"])))
    counts = ints(*map(len, runs))
    faults, images = densified(cells, values, counts, volume, shift=data.draw(st.integers(0, 63)))
    assert not faults.any()
    assert_same(images, reference.densify(cells, values, counts, volume))


@pytest.mark.parametrize("volume", [10, 15_625])
@pytest.mark.parametrize("wrong", [0, 1, 5, 2**64 - 1, 2**64 - 4, 2**63])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cell_outside_of_the_image_is_a_fault_of_its_event_and_writes_nothing(isa, volume, wrong, place):
    run = np.array([1, 4, 9], np.uint64)
    bad = run.copy()
    bad[place] = (volume + wrong) % 2**64 if wrong < 2**63 else wrong
    cells, values = np.concatenate([run, bad, run]), np.arange(9, dtype=np.float32)
    counts = ints(3, 3, 3)
    for shift in (0, 4, 60):
        faults, images = densified(cells, values, counts, volume, shift=shift)
        assert faults.tolist() == [0, 2, 0]
        for event, first in ((0, 0), (2, 6)):
            assert np.flatnonzero(images[event]).tolist() == ([4, 9] if first == 0 else [1, 4, 9])
            assert images[event][[1, 4, 9]].tolist() == [first, first + 1, first + 2]


def test_an_image_of_no_items_has_room_for_no_cell():
    cells, values = np.zeros(1, np.uint16), np.ones(1, np.float32)
    assert densified(cells, values, ints(0, 1), 0)[0].tolist() == [0, 2]
    assert unravelled(cells, ints(0, 1), (3, 0))[0].tolist() == [0, 2]


def test_a_large_event_of_a_million_cells(isa):
    images = some_images("f4", 1, 4_000_000, 0.25)
    counts = _cache.count_cells(images, 1)
    assert counts[0] > 900_000
    _, cells, values = _cache.pack(images, len(images), 4)
    faults, made = densified(cells, values, counts, 4_000_000, shift=12)
    assert not faults.any()
    assert_same(made, images)
    faults, sites = unravelled(cells, counts, (100, 200, 200))
    assert not faults.any()
    assert_same(_cache.ravel(sites, [100, 200, 200], 4), cells)


def test_runs_of_every_length_are_copied(isa):
    lengths = ints(0, 1, 63, 4095, 4096, 8191, 8192, 8193, 12_345, 70_000)
    source = np.random.default_rng(0).integers(0, 256, int(lengths.sum()), np.uint8)
    target = np.full(len(source) + 200, 7, np.uint8)
    begins = starts_of(lengths)
    for shift in (0, 1, 100):
        target[:] = 7
        faults = _cache.copy_runs(addresses(source, begins), addresses(target, begins + shift), lengths, False)
        assert not faults.any()
        np.testing.assert_array_equal(target[shift : shift + len(source)], source)
        assert (target[:shift] == 7).all()
        assert (target[shift + len(source) :] == 7).all()


# ---- wrong arguments


def test_wrong_arguments_are_refused():
    one, two = np.zeros(1, np.uint64), np.zeros(2, np.uint64)
    count = ints(0)
    image = np.zeros((2, 4), np.float32)
    for wrong, message in [
        (lambda: _cache.count_cells(image, 3), "whole number of items an event"),
        (lambda: _cache.count_cells(image, 0), "whole number of items an event"),
        (lambda: _cache.count_cells(image[:, ::2], 2), "C order"),
        (lambda: _cache.count_cells(np.array(["a"]), 1), "do not hold numbers"),
        (lambda: _cache.count_cells(np.zeros(2, "V4"), 1), "do not hold numbers"),
        (lambda: _cache.pack(image, 2, 3), "2, 4 or 8 bytes"),
        (lambda: _cache.pack(image, 3, 2), "whole number of items"),
        (lambda: _cache.ravel(np.zeros((1, 3), np.int32), [4], 2), "a column for the event"),
        (lambda: _cache.ravel(np.zeros((1, 1), np.int32), [], 2), "one axis or more"),
        (lambda: _cache.ravel(np.zeros((1, 2), np.int32), [-1], 2), "0 to 2\\^31 - 1 cells"),
        (lambda: _cache.ravel(np.zeros((1, 4), np.int32), [2**30, 2**30, 4], 8), "less than 2\\^62"),
        (lambda: _cache.densify(one, two, count, one, 5, 2, 4, False), "differ in length"),
        (lambda: _cache.densify(one, one, count, two, 5, 2, 4, False), "differ in length"),
        (lambda: _cache.densify(one, one, ints(-1), one, 5, 2, 4, False), "negative"),
        (lambda: _cache.densify(one, one, count, one, 5, 1, 4, False), "2, 4 or 8"),
        (lambda: _cache.densify(one, one, count, one, 5, 2, 3, False), "1, 2, 4, 8 or 16"),
        (lambda: _cache.densify(one, one, count, one, 2**60, 2, 4, False), "at most 2\\^58"),
        (lambda: _cache.unravel(two, count, [5], 2, 0, 0, False), "differ in length"),
        (lambda: _cache.unravel(one, count, [5], 2, 0, 2**31 - 1, False), "must be int32"),
        (lambda: _cache.unravel(one, count, [5], 2, 0, -1, False), "must be int32"),
        (lambda: _cache.copy_runs(one, two, count, False), "differ in length"),
        (lambda: _cache.copy_runs(one, one, ints(-1), False), "less than no bytes"),
        (lambda: _cache.read_runs(np.zeros(1, np.int32), ints(-1), count, one), "offset is negative"),
        (lambda: _cache.read_runs(np.zeros(1, np.int32), count, ints(-1), one), "less than no bytes"),
        (lambda: _cache.read_runs(np.zeros(1, np.int32), ints(2**63 - 1), ints(1), one), "beyond 2\\^63"),
        (lambda: _cache.set_isa("mmx"), "'mmx' is none"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


def test_arrays_of_another_dtype_are_refused_and_not_copied():
    one, count = np.zeros(1, np.uint64), ints(0)
    for wrong in (
        lambda: _cache.densify(one.astype(np.int64), one, count, one, 5, 2, 4, False),
        lambda: _cache.densify(one, one, count.astype(np.int32), one, 5, 2, 4, False),
        lambda: _cache.copy_runs(np.zeros(4, np.uint64)[::2], np.zeros(2, np.uint64), ints(0, 0), False),
        lambda: _cache.ravel(np.zeros((1, 2)), [4], 2),
        lambda: _cache.read_runs(count, count, count, one),
    ):
        with pytest.raises(TypeError):
            wrong()


# ---- files that end under a map


def truncated_map(path, pages, kept):
    """A map of a file that had `pages` pages of ones and has but `kept` of them."""
    path.write_bytes(bytes([1]) * PAGE * pages)
    with open(path, "r+b") as file:
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        file.truncate(PAGE * kept)
    return memory


def test_a_run_whose_page_is_gone_is_a_fault_and_the_others_are_right(isa, tmp_path):
    _cache.guard_bus_errors()
    memory = truncated_map(tmp_path / "a", 12, 6)
    begins, lengths = np.array([0, 4, 7, 5, 1]) * PAGE, ints(2, 3, 5, 1, 4) * PAGE
    target = np.zeros((5, 5 * PAGE), np.uint8)
    for _ in range(3):  # the guard holds again and again
        target[:] = 0
        faults = _cache.copy_runs(addresses(memory, begins), addresses(target, np.arange(5) * 5 * PAGE), lengths, True)
        assert faults.tolist() == [0, 1, 1, 0, 0]
        for event in (0, 3, 4):
            assert target[event].sum() == lengths[event]


@pytest.mark.parametrize("volume", [PAGE // 4 + 400, 15_625])
def test_cells_or_values_that_are_gone_are_a_fault_and_leave_no_trace_in_other_images(isa, tmp_path, volume):
    _cache.guard_bus_errors()
    memory = truncated_map(tmp_path / "a", 4, 1)
    own = np.arange(0, 600, dtype=np.uint16)
    value, one = np.arange(1, 601, dtype=np.float32), np.array([volume - 1], np.uint16)
    # Event 1 loses its values and event 3 its cells, each when some were set already.
    cells = np.concatenate([addresses(x, [0]) for x in (one, own, one, memory, one)])
    cells[3] += np.uint64(PAGE - 200)
    values = np.concatenate([addresses(x, [0]) for x in (value, memory, value, value, value)])
    values[1] += np.uint64(PAGE - 200)
    images = np.full((5, volume), 7, np.float32)
    faults = _cache.densify(
        cells, values, ints(1, 600, 1, 600, 1), addresses(images, np.arange(5) * volume, 4), volume, 2, 4, True
    )
    assert faults.tolist() == [0, 1, 0, 1, 0]
    for event in (0, 2, 4):
        assert np.flatnonzero(images[event]).tolist() == [volume - 1]
        assert images[event, -1] == 1


def test_cells_that_are_gone_leave_the_sites_of_other_events_in_place(tmp_path):
    _cache.guard_bus_errors()
    memory = truncated_map(tmp_path / "a", 2, 1)
    good = np.array([5, 7], np.uint16)
    cells = np.concatenate([addresses(good, [0]), addresses(memory, [PAGE - 4]), addresses(good, [0])])
    out = np.zeros((9, 3), np.int32)
    assert _cache.unravel(cells, ints(2, 5, 2), [1000, 3], 2, out.ctypes.data, 0, True).tolist() == [0, 1, 0]
    assert out[[0, 1, 7, 8]].tolist() == [[0, 1, 2], [0, 2, 1], [2, 1, 2], [2, 2, 1]]


def test_guarded_work_over_whole_files_is_the_same(tmp_path):
    _cache.guard_bus_errors()
    images = some_images("f4", 4, 3000)
    counts = _cache.count_cells(images, 4)
    _, cells, values = _cache.pack(images, len(images), 2)
    faults, made = densified(cells, values, counts, 3000, guarded=True)
    assert not faults.any()
    assert_same(made, images)
    assert_same(unravelled(cells, counts, (30, 100), guarded=True)[1], reference.unravel(cells, counts, (30, 100)))


def test_threads_are_guarded_each_by_itself(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    _cache.guard_bus_errors()
    memory = truncated_map(tmp_path / "a", 4, 2)
    lengths = np.full(50, PAGE, np.int64)

    def work(seed):
        pages = np.random.default_rng(seed).integers(0, 4, 50)
        target = np.zeros((50, PAGE), np.uint8)
        faults = _cache.copy_runs(
            addresses(memory, pages * PAGE), addresses(target, np.arange(50) * PAGE), lengths, True
        )
        return (faults == (pages >= 2)).all() and (target[pages < 2] == 1).all()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


UNGUARDED = """
    import mmap, os, sys, numpy as np
    from hepfeed import _cache
    how = sys.argv[1]
    if how == "reported":
        import faulthandler
        faulthandler.enable()
    if how == "ignored":
        import signal
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
    if how == "handled":
        import signal
        signal.signal(signal.SIGBUS, lambda number, frame: print("seen", flush=True))
    if how != "refused":
        _cache.guard_bus_errors()
        _cache.guard_bus_errors()
    with open(sys.argv[2], "w+b") as file:
        file.truncate(4 * mmap.PAGESIZE)
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)
        file.truncate(0)
    target = np.zeros(mmap.PAGESIZE, np.uint8)
    place = [np.array([x.ctypes.data], np.uint64) for x in (memory, target)]
    try:
        print(_cache.copy_runs(*place, np.array([100]), True).tolist(), flush=True)
    except ValueError as error:
        print(error, flush=True)
    if how in ("sent", "ignored", "handled"):
        os.kill(os.getpid(), 7)
        print("alive", flush=True)
    if how not in ("refused", "handled"):
        _cache.copy_runs(*place, np.array([100]), False) if how == "unguarded" else int(memory[5])
"""


@pytest.mark.skipif(signal.SIGBUS != 7, reason="the script sends signal 7 as SIGBUS")
@pytest.mark.parametrize(
    ("how", "printed", "error"),
    [
        ("read", "[1]\n", ""),  # by NumPy
        ("unguarded", "[1]\n", ""),  # by a kernel without a guard
        ("sent", "[1]\n", ""),  # by kill(2)
        ("ignored", "[1]\nalive\n", ""),
        ("reported", "[1]\n", "Fatal Python error: Bus error"),
    ],
)
def test_a_bus_error_elsewhere_ends_the_process_as_before(start_script, tmp_path, how, printed, error):
    process = start_script(UNGUARDED, how, tmp_path / "a")
    out, err = process.communicate(timeout=60)
    assert out == printed
    assert error in err
    assert process.returncode == -signal.SIGBUS


@pytest.mark.skipif(signal.SIGBUS != 7, reason="the script sends signal 7 as SIGBUS")
def test_a_handler_of_before_gets_the_signals_that_are_not_ours(run_script, tmp_path):
    assert run_script(UNGUARDED, "handled", tmp_path / "a").split() == ["[1]", "seen", "alive"]


def test_a_guard_must_be_installed_first(run_script, tmp_path):
    assert "needs guard_bus_errors()" in run_script(UNGUARDED, "refused", tmp_path / "a")


# ---- runs of bytes from files


@pytest.fixture
def file(tmp_path):
    """Descriptor of a file of 300,000 bytes, and these."""
    content = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8)
    content.tofile(tmp_path / "runs")
    descriptor = os.open(tmp_path / "runs", os.O_RDONLY)
    yield descriptor, content
    os.close(descriptor)


def read(descriptors, offsets, lengths):
    """Results and the bytes of each run; no byte beside them may change."""
    target = np.full(int(lengths.sum()) + 10 * len(lengths), 7, np.uint8)
    begins = starts_of(lengths + 10)
    descriptors = np.broadcast_to(np.asarray(descriptors, np.int32), lengths.shape).copy()
    results = _cache.read_runs(descriptors, offsets, lengths, addresses(target, begins))
    assert results.dtype == np.int32
    pieces = [target[begin : begin + length] for begin, length in zip(begins, lengths, strict=True)]
    for begin, length in zip(begins, lengths, strict=True):
        assert (target[begin + length : begin + length + 10] == 7).all()
    return results.tolist(), pieces


@pytest.mark.parametrize("cold", [False, True])
def test_runs_are_read_wherever_they_lie(file, cold):
    descriptor, content = file
    random = np.random.default_rng(2)
    offsets = random.integers(0, 290_000, 200)
    lengths = random.integers(0, 10_000, 200)
    offsets[100:150] = offsets[99] // 50 + np.cumsum(lengths[99:149])  # some follow one another
    lengths = np.minimum(lengths, 300_000 - offsets)
    if cold:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    results, pieces = read(descriptor, offsets, lengths)
    assert results == [0] * 200
    for offset, piece in zip(offsets, pieces, strict=True):
        np.testing.assert_array_equal(piece, content[offset : offset + len(piece)])


def test_more_neighbours_than_one_system_call_takes_are_read(file):
    descriptor, content = file
    lengths = np.full(3000, 100, np.int64)
    results, pieces = read(descriptor, starts_of(lengths), lengths)
    assert results == [0] * 3000
    np.testing.assert_array_equal(np.concatenate(pieces), content)


def test_a_run_beyond_the_end_of_its_file_fails_alone(file):
    descriptor, content = file
    offsets = ints(299_000, 299_500, 299_900, 300_100, 300_100, 5, 400_000)
    lengths = ints(500, 400, 200, 0, 10, 5, 1)
    results, pieces = read(descriptor, offsets, lengths)
    assert results == [0, 0, -1, 0, -1, 0, -1]
    np.testing.assert_array_equal(np.concatenate(pieces[:2]), content[299_000:299_900])
    np.testing.assert_array_equal(pieces[5], content[5:10])


def test_a_descriptor_that_cannot_be_read_gives_its_errno(file, tmp_path):
    descriptor, content = file
    folder = os.open(tmp_path, os.O_RDONLY)
    written = os.open(tmp_path / "w", os.O_WRONLY | os.O_CREAT)
    pipe = os.pipe()
    closed = os.dup(descriptor)
    os.close(closed)
    try:
        descriptors = [closed, closed, folder, descriptor, written, pipe[0], -1, descriptor]
        results, pieces = read(descriptors, ints(0, 100, 0, 7, 0, 0, 0, 9), np.full(8, 100, np.int64))
    finally:
        for each in (folder, written, *pipe):
            os.close(each)
    bad = errno.EBADF
    assert results == [bad, bad, errno.EISDIR, 0, bad, errno.ESPIPE, bad, 0]
    np.testing.assert_array_equal(pieces[7], content[9:109])


def test_files_without_a_page_cache_are_read_too():
    with open("/proc/self/status", "rb") as status, open("/dev/zero", "rb") as zero:
        descriptors = [status.fileno(), zero.fileno(), status.fileno()]
        results, pieces = read(descriptors, ints(0, 0, 5), ints(5, 1000, 2))
    assert results == [0, 0, 0]
    assert pieces[0].tobytes() == b"Name:"
    assert not pieces[1].any()


def test_a_large_run_of_zeros_is_read(tmp_path):
    with open(tmp_path / "hole", "w+b") as hole:
        hole.truncate(30_000_000)
        results, pieces = read(hole.fileno(), ints(0, 20_000_000), ints(20_000_000, 10_000_000))
    assert results == [0, 0]
    assert not pieces[0].any()
    assert not pieces[1].any()
