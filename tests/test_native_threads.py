"""Every native function in four threads at once: each gets what it gets alone.  Needs neither h5py nor torch."""

import mmap
import os
import pathlib
import threading
import zlib

import numpy as np
import pytest

from hepfeed import _cache, _core, _images, _rows, _sites, _voxels
from hepfeed.inflaters import register_inflaters

THREADS, ROUNDS = 4, 50
WAIT_S = 60
PAGE = mmap.PAGESIZE
CASES = {}
LIBRARY = register_inflaters()[0]


def case(function):
    """Enter what prepares calls of a native function: ``module_function(random)`` returns a call without arguments."""
    CASES[function.__name__] = function
    return function


def frozen(value):
    """Return a result in a form that can be compared."""
    if isinstance(value, tuple | list):
        return tuple(map(frozen, value))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes()
    return value


def in_threads(calls):
    """Make each call many times, all of them at the same time; returns the distinct results of each."""
    found = [set() for _ in calls]
    errors = []
    start = threading.Barrier(len(calls))

    def run(number):
        try:
            start.wait(WAIT_S)
            for _ in range(ROUNDS):
                found[number].add(frozen(calls[number]()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert errors == []
    return found


# ---- decoding


@case
def core_unshuffle(random):
    data = random.bytes(4096)
    return lambda: _core.unshuffle(data, 8)


@case
def core_convert(random):
    data = random.normal(size=2000).tobytes()
    return lambda: _core.convert(data, "f8", "f2", 8, 2)


@case
def core_fletcher32(random):
    data = random.bytes(5001)
    return lambda: _core.fletcher32(data)


@case
def core_inflate(random):
    plain = random.integers(0, 4, 20000, np.uint8).tobytes()
    data = zlib.compress(plain)
    assert _core.inflate(LIBRARY, data, len(plain)) == plain
    return lambda: _core.inflate(LIBRARY, data, len(plain))


@case
def core_inflaters(random):
    return lambda: _core.inflaters()


@case
def core_register_inflater(random):
    return lambda: (_core.register_inflater(LIBRARY, "/nowhere"), _core.register_inflater("zlib", "/nowhere"))


def addresses(array):
    """Addresses of the rows of an array."""
    return np.uint64(array.ctypes.data) + np.arange(len(array), dtype=np.uint64) * np.uint64(array.strides[0])


@case
def core_copy_rows(random):
    values, order = random.integers(0, 1 << 60, (40, 700)), random.permutation(40)

    def call():
        out = np.zeros_like(values)
        _core.copy_rows(addresses(values)[order], addresses(out), values.strides[0])
        return out

    return call


@case
def core_copy_runs(random):
    values, lengths = random.integers(0, 1 << 60, (40, 700)), random.integers(0, 5600, 40)

    def call():
        out = np.zeros_like(values)
        _core.copy_runs(addresses(values), addresses(out), lengths)
        return out

    return call


EVENTS, CHUNK, SHAPE = 60, 8, (6, 5)


def chunked_file(path, random):
    """Write shuffled and deflated chunks one after another; returns the data set and what it holds."""
    values = random.normal(size=(EVENTS, *SHAPE)).astype("<f4")
    values[random.random(values.shape) < 0.7] = 0
    blocks = -(-EVENTS // CHUNK)
    whole = np.concatenate([values, np.zeros((blocks * CHUNK - EVENTS, *SHAPE), "<f4")])
    offsets, sizes = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    with open(path, "wb") as file:
        for block in range(blocks):
            plain = whole[block * CHUNK : (block + 1) * CHUNK].reshape(-1).view(np.uint8).reshape(-1, 4)
            data = zlib.compress(plain.T.tobytes())
            offsets[block], sizes[block] = file.tell(), len(data)
            file.write(data)
    dataset = _core.Dataset(
        shape=(EVENTS, *SHAPE),
        type="f4",
        item=4,
        out_type="f4",
        out_item=4,
        swap=False,
        offset=-1,
        chunk=(CHUNK, *SHAPE),
        filters=(2, 1),
        fill=bytes(4),
        chunk_offset=offsets,
        chunk_size=sizes,
        chunk_mask=np.zeros(blocks, np.uint32),
    )
    return dataset, values


def reading(reader, dataset, descriptor, random):
    """Return a call that reads some events, and what it gives."""
    rows = random.integers(0, EVENTS, 45)

    def call():
        out = np.full((len(rows), *SHAPE), -1, "<f4")
        _, failures = reader.read([(dataset, descriptor, 0, len(rows))], rows, addresses(out))
        return out, tuple(failures), dataset.inflater < len(_core.inflaters())

    return call, rows


@pytest.mark.parametrize("shared", ["nothing", "the data set", "the reader", "the reader and the data set"])
def test_events_are_read_by_several_threads(tmp_path, shared):
    one = _core.ChunkReader()
    files = [chunked_file(tmp_path / f"{i}", np.random.default_rng(i)) for i in range(THREADS)]
    descriptors = [os.open(tmp_path / f"{i}", os.O_RDONLY) for i in range(THREADS)]
    try:
        calls, expected = [], []
        for number in range(THREADS):
            which = 0 if "data set" in shared else number
            reader = one if "reader" in shared else _core.ChunkReader()
            dataset, values = files[which]
            call, rows = reading(reader, dataset, descriptors[which], np.random.default_rng(10 + number))
            calls.append(call)
            expected.append({frozen((values[rows], (), True))})
        assert in_threads(calls) == expected
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_list_of_parts_may_change_while_its_events_are_read(tmp_path):
    reader = _core.ChunkReader()
    _, values = chunked_file(tmp_path / "a", np.random.default_rng(0))
    rows, descriptor = np.arange(EVENTS), os.open(tmp_path / "a", os.O_RDONLY)
    parts = []

    def read():
        fresh, _ = chunked_file(tmp_path / f"{threading.get_ident()}", np.random.default_rng(0))
        out = np.zeros_like(values)
        given = [(fresh, descriptor, 0, EVENTS)]
        parts.append(given)
        del fresh
        reader.read(given, rows, addresses(out))
        return out

    def clear():
        while parts:
            parts.pop().clear()

    try:
        results = in_threads([read, read, clear, clear])
    finally:
        os.close(descriptor)
    # A list that was cleared before the call asks for nothing; one that is cleared later is read all the same.
    assert results[0] | results[1] <= {frozen(values), frozen(np.zeros_like(values))}


def test_the_libraries_are_registered_once_by_threads_that_start_together(run_script):
    script = """
        import threading
        from hepfeed import _core
        from hepfeed.inflaters import register_inflaters
        start, found = threading.Barrier(8), []
        def run():
            start.wait()
            names = register_inflaters()
            _core.ChunkReader()
            found.append(names)
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and set(found) == {register_inflaters()}
        assert len(set(found[0])) == len(found[0])
        print("once")
    """
    assert run_script(script) == "once\n"


# ---- images and random numbers


def pictures(random, dtype="<f4"):
    values = random.integers(-3, 50, (6, 9, 9)).astype(dtype)
    values[random.random(values.shape) < 0.5] = 0
    return values


def streams(random, items):
    """Return key, counters and offsets of six events."""
    cuts = np.sort(random.integers(0, items + 1, 5))
    offsets = np.concatenate([[0], cuts, [items]]).astype(np.int64)
    return random.integers(0, 1 << 63, 2, np.uint64), random.integers(0, 1 << 63, (6, 4), np.uint64), offsets


def into(out, function, *args):
    """Return a call of ``function(*args, out)`` with an output of its own, which it returns with the result."""

    def call():
        made = out.copy()
        return function(*(made if arg is ... else arg for arg in args)), made

    return call


@case
def images_window(random):
    values, origin = pictures(random), random.integers(-4, 5, (6, 2))
    return into(np.zeros((6, 7, 8), "<f4"), _images.window, values, ..., origin, np.float32([3]))


@case
def images_flip(random):
    values = pictures(random)
    return into(np.zeros_like(values), _images.flip, values, ..., random.integers(0, 2, (6, 2), np.uint8))


@case
def images_rotate90(random):
    values = pictures(random)
    return into(np.zeros_like(values), _images.rotate90, values, ..., 0, 1, random.integers(0, 4, 6, np.uint8))


@case
def images_extents(random):
    return into(np.zeros((6, 2, 2), np.int64), _images.extents, pictures(random), 0x7FFFFFFF, ...)


@case
def images_warp(random):
    values, none = pictures(random), np.zeros(1, np.int64)
    matrix = random.normal(size=(6, 2, 2))
    return into(
        np.zeros_like(values), _images.warp, values, ..., (0, 1), none, 1, matrix, None, True, np.float32([0.5])
    )


@case
def images_smooth(random):
    values, taps = random.normal(size=(3, 9, 11)), random.random(5)

    def call():
        out, scratch = np.zeros(values.shape, np.float32), np.zeros(2 * 99 + 11 + 4)
        _images.smooth(values, out, taps, 2.0, scratch)
        return out

    return call


@case
def images_reduce_blocks(random):
    factor = np.array([2, 3])
    return into(np.zeros((6, 5, 3), "<f4"), _images.reduce_blocks, pictures(random), ..., "mean", factor)


@case
def images_pointwise(random):
    values, params = pictures(random), np.array([[[1.5], [2.0], [0.25]], [[60.0], [1.0], [0.0]]])
    return into(np.zeros_like(values), _images.pointwise, values, ..., np.array([0, 2]), params, 1)


@case
def images_raw(random):
    return into(np.zeros(700, np.uint64), _images.raw, *streams(random, 700), ...)


@case
def images_uniform(random):
    return into(np.zeros(700), _images.uniform, *streams(random, 700), -1.0, 3.0, ...)


@case
def images_normal(random):
    return into(np.zeros(700), _images.normal, *streams(random, 700), ...)


@case
def images_gaussian_noise(random):
    values = pictures(random)
    key, counters, offsets = streams(random, values.size)
    out = np.zeros_like(values)
    return into(out, _images.gaussian_noise, values, ..., key, counters, offsets, 0.3, True, False)


@case
def images_poisson_noise(random):
    values = np.abs(pictures(random))
    return into(np.zeros_like(values), _images.poisson_noise, values, ..., *streams(random, values.size), 1.5)


@case
def images_drop_items(random):
    values = pictures(random)
    return into(np.zeros_like(values), _images.drop_items, values, ..., *streams(random, values.size), 0.4)


@case
def images_drop_slices(random):
    values = pictures(random)
    return into(np.zeros_like(values), _images.drop_slices, values, ..., 1, random.integers(0, 2, (6, 9), np.uint8))


# ---- voxels

GRID = (7, 6, 5)
CELLS = 7 * 6 * 5


def cells(random, rows=300):
    """Return cell numbers, some of them -1, and the offsets of four events."""
    cuts = np.sort(random.integers(0, rows + 1, 3))
    return random.integers(-1, CELLS, rows), np.concatenate([[0], cuts, [rows]]).astype(np.int64)


def grouped(random):
    cell, offsets = cells(random)
    return len(cell), *_voxels.group_rows(cell, offsets, CELLS)


def sites(random):
    """Return sorted sites ``(event, coordinates)`` of four events."""
    chosen = np.sort(random.choice(4 * CELLS, 200, replace=False))
    return np.stack(np.unravel_index(chosen, (4, *GRID)), 1).astype(np.int32)


@case
def voxels_cells_of_sites(random):
    coords, keep = random.integers(-1, 7, (300, 3)), random.random(300) < 0.8
    return lambda: _voxels.cells_of_sites(coords, GRID, keep)


@case
def voxels_group_rows(random):
    cell, offsets = cells(random)
    return lambda: _voxels.group_rows(cell, offsets, CELLS)


@case
def voxels_group_of_rows(random):
    rows, order, starts, _, offsets = grouped(random)
    return lambda: _voxels.group_of_rows(order, starts, offsets, rows)


@case
def voxels_reduce_groups(random):
    rows, order, starts, _, _ = grouped(random)
    features = random.normal(size=(rows, 3)).astype(np.float32)
    out = np.zeros((len(starts) - 1, 4), np.float32)
    return into(out, _voxels.reduce_groups, features, order, starts, "mean", ..., 1)


@case
def voxels_sites_of_cells(random):
    cell, offsets = cells(random)
    cell = np.abs(cell)
    return lambda: _voxels.sites_of_cells(cell, offsets, GRID)


@case
def voxels_cells_of_points(random):
    points, edges = random.normal(size=(400, 3)), np.linspace(-2.0, 2.0, 9)
    axes = [(points[:, 0], -2.0, 0.5, 8), (points[:, 1], edges, True), (points[:, 2], -2.0, 1.0, 4)]
    return lambda: _voxels.cells_of_points(axes, False)


@case
def voxels_labels(random):
    rows, order, starts, _, _ = grouped(random)
    label, weight = random.integers(0, 5, rows), random.random(rows)
    return lambda: (_voxels.labels(label, weight, order, starts), _voxels.labels(label, None, order, starts))


@case
def voxels_histogram(random):
    cell, offsets = cells(random)
    weight = random.random(len(cell))
    return lambda: _voxels.histogram(cell, weight, offsets, GRID)


@case
def voxels_sparsify(random):
    dense = random.random((4, 2, *GRID)).astype(np.float32)
    return lambda: _voxels.sparsify(dense, 0.9, False, 0, False)


@case
def voxels_densify(random):
    indices = sites(random)
    features = random.normal(size=(len(indices), 2)).astype(np.float32)
    return into(np.zeros((4, 2, *GRID), np.float32), _voxels.densify, indices, features, ..., 0)


@case
def voxels_edges(random):
    points, (_, offsets) = random.normal(size=(300, 3)), cells(random)
    return lambda: _voxels.edges(points, offsets, 4, 0.5, False)


@case
def voxels_move_sites(random):
    indices = sites(random)
    features = random.normal(size=(len(indices), 2)).astype(np.float32)
    turned, origin = random.random((4, 3)) < 0.5, random.integers(-2, 3, (4, 3))
    options = {"reversed": turned, "origin": origin, "events": 4, "lengths": GRID, "shape": (6, 6, 6)}
    return lambda: _voxels.move_sites(indices, features, **options)


# ---- sets of sites


def shuffled(random):
    """Sites in no order, the order that they should have, and both again."""
    indices = sites(random)
    mixed = indices[random.permutation(len(indices))]
    return indices, mixed, _sites.sort_sites(mixed, GRID, 4)[0]


@case
def sites_sort_sites(random):
    indices, mixed, _ = shuffled(random)
    return lambda: (_sites.sort_sites(indices, GRID, 4), _sites.sort_sites(mixed, GRID, 4, 2))


@case
def sites_unique_sites(random):
    indices, mixed, _ = shuffled(random)
    twice = np.concatenate([mixed, indices])
    return lambda: (_sites.unique_sites(indices, GRID, 4), _sites.unique_sites(twice, GRID, 4, 2))


@case
def sites_find_sites(random):
    indices, mixed, order = shuffled(random)
    return lambda: _sites.find_sites(mixed, order, indices + np.int32(1), GRID, 4, 2)


@case
def sites_kernel_map(random):
    indices, mixed, order = shuffled(random)
    ones, zeros, none = (1, 1, 1), (0, 0, 0), order[:0]

    def call():
        same = _sites.kernel_map(indices, none, 4, GRID, GRID, (3, 3, 3), ones, ones, ones, True, False, 2)
        half = _sites.kernel_map(mixed, order, 4, GRID, (3, 3, 2), (2, 2, 2), (2, 2, 2), zeros, ones, False, False, 1)
        return same, half

    return call


# ---- rows of matrices


def listed(random):
    """A matrix, and lists of its rows: starts, columns, places."""
    target, source = (random.integers(0, 60, 400).astype(np.int32) for _ in range(2))
    return random.normal(size=(60, 9)).astype(np.float32), *_rows.list_rows(target, source, 60, 60, True)


@case
def rows_list_rows(random):
    target, source = (random.integers(0, 60, 400).astype(np.int32) for _ in range(2))
    return lambda: _rows.list_rows(target, source, 60, 60, True)


@case
def rows_row_sum(random):
    features, starts, columns, places = listed(random)
    factors = random.normal(size=400).astype(np.float32)

    def call():
        out = np.empty((60, 9), np.float32)
        return _rows.row_sum(features, factors, starts, columns, places, out, 2), out

    return call


@case
def rows_row_dot(random):
    features, starts, columns, places = listed(random)

    def call():
        out = np.empty(400, np.float32)
        return _rows.row_dot(features, features, starts, columns, places, out, 2), out

    return call


@case
def rows_row_max(random):
    features, starts, columns, _ = listed(random)

    def call():
        out, argmax = np.empty((60, 9), np.float32), np.empty((60, 9), np.int32)
        return _rows.row_max(features, starts, columns, out, argmax, 2), out, argmax

    return call


@case
def rows_row_pick(random):
    features, argmax = listed(random)[0], random.integers(-1, 60, (60, 9)).astype(np.int32)

    def call():
        out = np.empty((60, 9), np.float32)
        return _rows.row_pick(features, argmax, out, 2), out

    return call


@case
def rows_row_put(random):
    features, starts, columns, _ = listed(random)
    argmax = random.integers(-1, 60, (60, 9)).astype(np.int32)

    def call():
        out = np.empty((60, 9), np.float32)
        return _rows.row_put(features, argmax, starts, columns, out, 2), out

    return call


def channels(random, count):
    """A matrix of more rows than a block has, and some numbers for each channel."""
    return random.normal(size=(300, 5)).astype(np.float32), random.normal(size=(count, 5)).astype(np.float32)


@case
def rows_column_moments(random):
    x, _ = channels(random, 0)

    def call():
        out = np.empty((2, 5), np.float32)
        return _rows.column_moments(x, *out, 2), out

    return call


@case
def rows_normalise(random):
    x, how = channels(random, 3)

    def call():
        out = np.empty_like(x)
        return _rows.normalise(x, *how, True, out, 2), out

    return call


@case
def rows_gradient_sums(random):
    x, how = channels(random, 3)

    def call():
        out = np.empty((2, 5), np.float32)
        return _rows.gradient_sums(x, x, *how, True, *out, 2), out

    return call


@case
def rows_normalise_back(random):
    x, how = channels(random, 5)

    def call():
        out = np.empty_like(x)
        return _rows.normalise_back(x, x, *how[:3], True, *how[3:], out, 2), out

    return call


# ---- the cache


def packed(random):
    """Return images, and what they are as cells: counts, cells, values and the first cell of each."""
    images = pictures(random)
    counts, numbers, values = _cache.pack(images, len(images), 2)
    return images, counts, numbers, values, np.cumsum(counts) - counts


def at(array, places):
    """Addresses of the items of an array that have these numbers."""
    return (array.ctypes.data + places * array.itemsize).astype(np.uint64)


@case
def cache_count_cells(random):
    images = pictures(random)
    return lambda: _cache.count_cells(images, len(images))


@case
def cache_pack(random):
    images = pictures(random)
    return lambda: _cache.pack(images, len(images), 2)


@case
def cache_ravel(random):
    indices = sites(random)
    return lambda: _cache.ravel(indices, GRID, 2)


@case
def cache_densify(random):
    images, counts, numbers, values, first = packed(random)

    def call():
        out = np.ones_like(images)
        faults = _cache.densify(at(numbers, first), at(values, first), counts, addresses(out), 81, 2, 4, False)
        return faults, out

    return call


@case
def cache_unravel(random):
    _, counts, numbers, _, first = packed(random)

    def call():
        out = np.zeros((len(numbers), 3), np.int32)
        return _cache.unravel(at(numbers, first), counts, (9, 9), 2, out.ctypes.data, 5, False), out

    return call


@case
def cache_copy_runs(random):
    values, lengths = random.integers(0, 1 << 60, (40, 700)), random.integers(0, 5600, 40)

    def call():
        out = np.zeros_like(values)
        return _cache.copy_runs(addresses(values), addresses(out), lengths, False), out

    return call


def columns(random):
    """Return parts in memory with a column of eight bytes a row: bases, offsets; part and row of events."""
    memory = random.integers(0, 1 << 60, (3, 50))
    return memory, addresses(memory), np.array([0, 8, 16]), random.integers(0, 3, 60), random.integers(0, 40, 60)


@case
def cache_locate(random):
    memory, base, offset, part, row = columns(random)
    return lambda: _cache.locate(base, offset, part, row, 8) - np.uint64(memory.ctypes.data)


@case
def cache_gather(random):
    memory, base, offset, part, row = columns(random)
    counts = random.integers(0, 5, 60)

    def call():
        out = np.zeros(int(counts.sum()), np.int64)
        return _cache.gather(base, offset, part, row, counts, 8, out.ctypes.data, False), out, memory[0]

    return call


@case
def cache_read_runs(random):
    data = random.bytes(20000)
    offsets, lengths = random.integers(0, 15000, 30), random.integers(0, 5000, 30)

    def call():
        descriptor = os.memfd_create("hepfeed-test")
        try:
            os.write(descriptor, data)
            out = np.zeros((30, 5000), np.uint8)
            return _cache.read_runs(np.full(30, descriptor, np.int32), offsets, lengths, addresses(out)), out
        finally:
            os.close(descriptor)

    return call


@case
def cache_guard_bus_errors(random):
    return lambda: _cache.guard_bus_errors()


def prepare(name, *seeds):
    return [CASES[name](np.random.default_rng(seed)) for seed in seeds]


@pytest.mark.parametrize("name", CASES)
def test_threads_with_data_of_their_own_get_what_each_gets_alone(name):
    calls = prepare(name, *range(THREADS))
    expected = [{frozen(call())} for call in calls]
    assert in_threads(calls) == expected


@pytest.mark.parametrize("name", CASES)
def test_threads_with_the_same_inputs_get_the_same(name):
    (call,) = prepare(name, 7)
    expected = {frozen(call())}
    assert in_threads([call] * THREADS) == [expected] * THREADS


@pytest.mark.parametrize("module", [_core, _images, _rows, _sites, _voxels, _cache], ids=lambda module: module.__name__)
def test_no_function_is_left_out(module):
    prefix = module.__name__.rpartition("._")[2]
    functions = {name for name, value in vars(module).items() if callable(value) and not isinstance(value, type)}
    assert functions - {"isa", "set_isa"} == {
        name.removeprefix(f"{prefix}_") for name in CASES if name.startswith(f"{prefix}_")
    }


@pytest.mark.parametrize("module", [_core, _images, _rows, _sites, _voxels, _cache], ids=lambda module: module.__name__)
def test_the_instruction_set_may_change_while_kernels_run(module):
    prefix = module.__name__.rpartition("._")[2]
    names = [name for name in CASES if name.startswith(f"{prefix}_")]
    before, sets = module.isa(), []
    calls = [call for name in names for call in prepare(name, 3)]
    expected = [{frozen(call())} for call in calls]
    for name in ("baseline", "avx2", "avx512"):
        try:
            module.set_isa(name)
        except ValueError:  # this processor lacks it
            continue
        sets.append(name)
    turns = iter(range(1 << 30))

    def change():
        module.set_isa(sets[next(turns) % len(sets)])
        return module.isa() in sets

    try:
        assert in_threads([lambda: tuple(frozen(call()) for call in calls), change]) == [
            {tuple(next(iter(each)) for each in expected)},
            {True},
        ]
    finally:
        module.set_isa(before)


def test_a_bus_error_in_one_thread_leaves_the_others_alone(tmp_path, run_script):
    # In a process of its own: in this one others may have put their handlers of bus errors before hepfeed's.
    script = """
        import pathlib, sys
        sys.path.insert(0, sys.argv[1])
        from test_native_threads import copy_with_bus_errors
        copy_with_bus_errors(pathlib.Path(sys.argv[2]))
        print("alive")
    """
    assert run_script(script, pathlib.Path(__file__).parent, tmp_path) == "alive\n"


def copy_with_bus_errors(directory):
    """Copy files in several threads, the last page of every other one being gone."""
    _cache.guard_bus_errors()
    maps, calls, expected = [], [], []
    random = np.random.default_rng(1)
    for number in range(THREADS):
        path = directory / f"{number}"
        data = random.bytes(4 * PAGE)
        path.write_bytes(data)
        with open(path, "r+b") as file:
            maps.append(mmap.mmap(file.fileno(), 4 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ))
            if number % 2:  # the last page of every other file is gone
                file.truncate(3 * PAGE)
        source = np.frombuffer(maps[-1], np.uint8).reshape(4, PAGE)

        def call(source=source):
            out = np.zeros((4, PAGE), np.uint8)
            faults = _cache.copy_runs(addresses(source), addresses(out), np.full(4, PAGE), True)
            return faults, out[:3], out[3] * (faults[3] == 0)

        whole = np.frombuffer(data, np.uint8).reshape(4, PAGE)
        gone = number % 2
        faults = np.array([0, 0, 0, gone], np.uint8)
        calls.append(call)
        expected.append({frozen((faults, whole[:3], whole[3] * np.uint8(1 - gone)))})
    assert in_threads(calls) == expected
    del calls, source, call
    for each in maps:
        each.close()
