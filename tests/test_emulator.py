"""The emulator of CUDA: each of its words against its definition, and each fault with its message."""

import itertools
import os
import re
import subprocess
import sys
import threading

import emulated
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = [0, 1, 2]
FAULTS = emulated.ROOT / "csrc" / "emu" / "tests" / "faults.cuh"
ALL_HALVES = np.arange(2**16, dtype=np.uint16)

pytestmark = pytest.mark.emulated("plain", "primitives")


@pytest.fixture(scope="module")
def module():
    if emulated.compiler() is None:
        pytest.skip("there is no C++ compiler to build the emulator with")
    return emulated.imported(emulated.build(program="primitives"))


@pytest.fixture
def run(module):
    """Call a function of the module with the addresses of arrays in place of these, in rising order."""

    def call(name, *arguments, seed=0):
        module.set_seed(seed)
        plain = [value.ctypes.data if isinstance(value, np.ndarray) else int(value) for value in arguments]
        getattr(module, name)(*plain)

    yield call
    module.set_seed(0)


def aligned(shape, dtype):
    """Zeros at an address that is a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bytes_ = np.zeros(size + 64, np.uint8)
    start = -bytes_.ctypes.data % 64
    return bytes_[start : start + size].view(dtype).reshape(shape)


# Threads and their order


@pytest.mark.parametrize("seed", SEEDS)
def test_each_thread_of_a_grid_runs_once_with_its_own_indices(run, seed):
    grid, block = (3, 2, 2), (5, 3, 2)
    indices = np.full((12, 30, 6), -1, np.int32)
    run("write_indices", *grid, *block, indices, seed=seed)
    x, y, z = np.meshgrid(range(5), range(3), range(2), indexing="ij")
    threads = np.stack([x, y, z], -1).transpose(2, 1, 0, 3).reshape(30, 3)
    x, y, z = np.meshgrid(range(3), range(2), range(2), indexing="ij")
    blocks = np.stack([x, y, z], -1).transpose(2, 1, 0, 3).reshape(12, 3)
    np.testing.assert_array_equal(indices[:, :, :3], np.broadcast_to(threads, (12, 30, 3)))
    np.testing.assert_array_equal(indices[:, :, 3:], np.broadcast_to(blocks[:, None], (12, 30, 3)))


def order(run, seed, blocks=3, threads=40):
    count, found = np.zeros(2, np.int32), np.full((2, blocks * threads), -1, np.int32)
    run("record_order", blocks, threads, count, found, seed=seed)
    return found


def test_seed_0_runs_threads_and_blocks_in_rising_order(run):
    np.testing.assert_array_equal(order(run, 0)[0], np.arange(120))


def test_seeds_reach_different_orders_of_threads_and_blocks(run):
    found = [order(run, seed) for seed in range(1, 9)]
    assert all((np.sort(one[phase]) == np.arange(120)).all() for one in found for phase in (0, 1))
    assert len({one.tobytes() for one in found}) == 8
    assert len({tuple(one[0, ::40] // 40) for one in found}) > 1  # blocks
    assert any((one[0] != one[1]).any() for one in found)  # after a barrier, another order


def test_a_seed_makes_the_same_orders_again(run):
    np.testing.assert_array_equal(order(run, 7), order(run, 7))


def test_launches_after_a_seed_have_orders_of_their_own(run, module):
    first = order(run, 5)
    count, second = np.zeros(2, np.int32), np.full((2, 120), -1, np.int32)
    module.record_order(3, 40, count.ctypes.data, second.ctypes.data)
    assert (first != second).any()


def test_host_threads_launch_at_the_same_time(module):
    results = {}

    def work(name):
        for _ in range(20):
            values = np.arange(256, dtype=np.int32)
            module.reverse(256, 1024, values.ctypes.data)
            results.setdefault(name, []).append(values)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in itertools.chain(*results.values()):
        np.testing.assert_array_equal(values, 2 * np.arange(256)[::-1] + 1)


# Limits of a launch


@pytest.mark.parametrize("block", [(1025, 1, 1), (32, 32, 2), (1, 1, 65), (0, 1, 1)])
def test_a_block_has_1_to_1024_threads(run, block):
    with pytest.raises(RuntimeError, match="a block has 1 to 1024 threads"):
        run("write_indices", 1, 1, 1, *block, np.zeros(6, np.int32))


@pytest.mark.parametrize("grid", [(2**31, 1, 1), (1, 65536, 1), (1, 1, 65536)])
def test_a_grid_is_within_the_limits_of_hardware(run, grid):
    with pytest.raises(RuntimeError, match=r"a grid has less than 2\^31 blocks along x"):
        run("write_indices", *grid, 1, 1, 1, np.zeros(6, np.int32))


@pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_grid_is_no_launch(run, grid):
    run("write_indices", *grid, 1, 1, 1, np.zeros(0, np.int32))


def test_dynamic_shared_memory_is_at_most_96_kib(run):
    values = np.arange(32, dtype=np.int32)
    run("reverse", 32, 94 * 1024, values)
    with pytest.raises(RuntimeError, match="98304 bytes of dynamic shared memory at most, not 98305"):
        run("reverse", 32, 96 * 1024 + 1, values)


def test_static_and_dynamic_shared_memory_are_at_most_99_kib(run):
    with pytest.raises(RuntimeError, match=r"shared array \w+ .*: 10240\d bytes of shared memory, static and dynamic"):
        run("reverse", 32, 96 * 1024, np.arange(32, dtype=np.int32))


# Shared memory, barriers and warps


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [1, 31, 32, 33, 63, 64, 65, 128, 1024])
def test_threads_exchange_through_shared_memory(run, threads, seed):
    values = np.arange(threads, dtype=np.int32)
    run("reverse", threads, 4 * threads, values, seed=seed)
    np.testing.assert_array_equal(values, 2 * np.arange(threads)[::-1] + 1)


def test_shared_memory_of_each_block_starts_as_bytes_ff(run):
    found = np.zeros(2 * 32 * 3, np.int32)
    run("read_unset", 3, found)
    assert (found == -1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [1, 33, 128])
def test_votes_of_a_block(run, rng, threads, seed):
    for values in (np.zeros(threads), np.full(threads, 7), rng.integers(-1, 2, threads)):
        values = values.astype(np.int32)
        results = np.zeros((threads, 3), np.int32)
        run("vote_in_block", threads, values, results, seed=seed)
        assert (results[:, 0].astype(bool) == values.any()).all()
        assert (results[:, 1].astype(bool) == values.all()).all()
        assert (results[:, 2] == np.count_nonzero(values)).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x1, 0x80000001, 0x0F0F00FF])
def test_votes_of_a_warp(run, rng, mask, seed):
    lanes = np.array([mask >> lane & 1 for lane in range(32)], bool)
    for values in (np.zeros(32), np.full(32, 3), rng.integers(0, 2, 32)):
        values = values.astype(np.int32)
        results = np.zeros((32, 3), np.uint32)
        run("vote_in_warp", mask, values, results, seed=seed)
        votes = sum(1 << lane for lane in range(32) if lanes[lane] and values[lane])
        expected = np.array([votes, votes != 0, votes == mask])
        np.testing.assert_array_equal(results, np.where(lanes[:, None], expected, 0))


def source(kind, lane, operand, width):
    """The lane that a shuffle reads, from the definition in the CUDA programming guide."""
    first = lane // width * width
    if kind == "index":
        return first + operand % width
    if kind == "up":
        return lane - operand if lane - operand >= first else lane
    if kind == "down":
        return lane + operand if lane + operand < first + width else lane
    return lane ^ operand if lane ^ operand < first + width else lane


@pytest.mark.parametrize("kind", ["index", "up", "down", "xor"])
@pytest.mark.parametrize("width", [2, 8, 32])
def test_shuffles(run, kind, width):
    integers = np.arange(32, dtype=np.int32) * 1000 + 7
    doubles = np.arange(32) + 0.1
    number = ["index", "up", "down", "xor"].index(kind)
    for operand, seed in itertools.product([0, 1, 2, 5, 16, 31], SEEDS):
        lanes = [source(kind, lane, operand, width) for lane in range(32)]
        results = np.zeros(32, np.int32)
        run("shuffle_integers", number, operand, width, integers, results, seed=seed)
        np.testing.assert_array_equal(results, integers[lanes])
        results = np.zeros(32)
        run("shuffle_doubles", number, operand, width, doubles, results, seed=seed)
        np.testing.assert_array_equal(results, doubles[lanes])


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_a_warp_shuffle_apart(run, seed):
    values = np.arange(32, dtype=np.int32)
    run("shuffle_halves", values, seed=seed)
    np.testing.assert_array_equal(values, [*range(15, -1, -1), *(np.arange(16, 32) ^ 1)])


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_meet_in_turn(run, seed):
    values = np.arange(32, dtype=np.int32)
    run("pass_round", 200, values, seed=seed)
    np.testing.assert_array_equal(values, (np.arange(32) + 200) % 32)


# Atomic functions


@pytest.mark.parametrize("seed", SEEDS)
def test_atomic_functions_lose_nothing(run, seed):
    blocks, threads = 3, 70
    values = np.arange(blocks * threads)
    arrays = [np.zeros(7, dtype) for dtype in (np.int32, np.uint32, np.uint64)]
    for array in arrays:
        array[1] = 1000
    sums = [np.zeros(1, np.float32), np.zeros(1)]
    run("change_integers", blocks, threads, *arrays, *sums, seed=seed)
    for array in arrays:
        assert list(array[:4].astype(np.int64)) == [values.sum(), 0, values.max(), 2**31 - 1]
        assert array[4] == array[5] + 1  # one thread was the first
        assert array[6] == values.sum()
    assert sums[0][0] == sums[1][0] == blocks * np.arange(threads).sum()


# Asynchronous copies


def copied(run, wait, valid, seed):
    source_ = aligned((64, 4), np.int32)
    source_[:] = np.arange(256).reshape(64, 4)
    late = aligned((64, 4), np.int32)
    run("copy_late", wait, valid, source_, late, seed=seed)
    expected = source_.reshape(2, 32, 4).copy()
    expected[:, valid:] = 0
    return late.reshape(2, 32, 4), expected


@pytest.mark.parametrize("valid", [0, 5, 32])
def test_a_copy_comes_with_the_wait_for_its_group(run, valid):
    for wait in (0, 1, 2):
        late, expected = copied(run, wait, valid, 0)
        np.testing.assert_array_equal(late[:wait], expected[:wait])
        assert (late[wait:] == -1).all()  # nothing was there before


@pytest.mark.parametrize("seed", SEEDS[1:])
def test_in_a_random_order_copies_come_early_or_late(run, seed):
    late, expected = copied(run, 1, 32, seed)
    np.testing.assert_array_equal(late[0], expected[0])
    early = (late[1] == expected[1]).all(1)
    assert 0 < early.sum() < 32
    assert (late[1, ~early] == -1).all()
    late, expected = copied(run, 2, 32, seed)
    np.testing.assert_array_equal(late, expected)


# Tensor cores.  Fragments as the PTX ISA describes them, in "Matrix Fragments for mma.m16n8k16 with floating point
# type" and "Matrix Fragments for mma.m16n8k8": group = lane >> 2, thread = lane % 4, numbers counted by i.


def place_in_a16(lane, i):
    row = lane >> 2 if 0 <= i < 2 or 4 <= i < 6 else (lane >> 2) + 8
    column = lane % 4 * 2 + (i & 1) if i < 4 else lane % 4 * 2 + (i & 1) + 8
    return row, column


def place_in_b16(lane, i):
    return lane % 4 * 2 + (i & 1) + (0 if i < 2 else 8), lane >> 2


def place_in_a_tf32(lane, i):
    return lane >> 2 if i in (0, 2) else (lane >> 2) + 8, lane % 4 if i in (0, 1) else lane % 4 + 4


def place_in_b_tf32(lane, i):
    return lane % 4 if i == 0 else lane % 4 + 4, lane >> 2


def place_in_d(lane, i):
    return lane >> 2 if i < 2 else (lane >> 2) + 8, lane % 4 * 2 + (i & 1)


def fragments(matrix, place, count):
    """The ``(32, count)`` numbers that lanes hold of a matrix."""
    return np.array([[matrix[place(lane, i)] for i in range(count)] for lane in range(32)], matrix.dtype)


def bits_of(numbers, dtype):
    """The bits of float32 as numbers of 16 bits."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(dtype).view(torch.uint16).numpy()


def product(run, kind, a, b, d, seed=0):
    """d + a b of the module, with matrices in place of fragments."""
    if kind == 2:
        a = fragments(a, place_in_a_tf32, 4).view(np.uint32)
        b = fragments(b, place_in_b_tf32, 2).view(np.uint32)
    else:
        dtype = [torch.float16, torch.bfloat16][kind]
        a = fragments(bits_of(a, dtype), place_in_a16, 8).view(np.uint32)
        b = fragments(bits_of(b, dtype), place_in_b16, 4).view(np.uint32)
    found = fragments(d, place_in_d, 4)
    run("multiply_fragments", kind, np.ascontiguousarray(a), np.ascontiguousarray(b), found, seed=seed)
    result = np.zeros_like(d)
    for lane, i in itertools.product(range(32), range(4)):
        result[place_in_d(lane, i)] = found[lane, i]
    return result


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_products_of_integers_are_those_of_matrices(run, rng, kind, seed):
    depth = 8 if kind == 2 else 16
    a = rng.integers(-8, 9, (16, depth)).astype(np.float32)
    b = rng.integers(-8, 9, (depth, 8)).astype(np.float32)
    d = rng.integers(-100, 101, (16, 8)).astype(np.float32)
    np.testing.assert_array_equal(product(run, kind, a, b, d, seed), d + a @ b)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_products_are_added_in_rising_order_of_k(run, rng, kind):
    depth = 8 if kind == 2 else 16
    a, b, d = (rng.normal(size=shape).astype(np.float32) for shape in ((16, depth), (depth, 8), (16, 8)))
    if kind == 2:
        a, b = (rounded_to_tf32(x) for x in (a, b))
    else:
        a, b = (torch.from_numpy(x).to([torch.float16, torch.bfloat16][kind]).float().numpy() for x in (a, b))
    expected = d.copy()
    for k in range(depth):
        expected += a[:, k : k + 1] * b[k]
    np.testing.assert_array_equal(product(run, kind, a, b, d), expected)


def test_tf32_products_do_not_read_the_lowest_13_bits(run, rng):
    a, b, d = (rng.normal(size=shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    cut = [(x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for x in (a, b)]
    np.testing.assert_array_equal(product(run, 2, a, b, d), product(run, 2, *cut, d))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("matrices", "transposed"), [(4, False), (4, True), (2, False), (2, True)])
def test_matrices_are_loaded_as_fragments(run, matrices, transposed, seed):
    """``ldmatrix``: lane l takes the numbers 2 (l % 4) and the next of row l / 4, of each matrix."""
    rows = aligned((32, 8), np.uint16)
    rows[:] = np.arange(256).reshape(32, 8)
    registers = np.zeros((32, 4), np.uint32)
    run("load_fragments", (0 if matrices == 4 else 2) + transposed, rows, registers, seed=seed)
    for lane, matrix in itertools.product(range(32), range(matrices)):
        tile = rows[8 * matrix : 8 * matrix + 8]
        if transposed:
            tile = tile.T
        low, high = (int(x) for x in tile[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2])
        assert registers[lane, matrix] == low | high << 16
    assert (registers[:, matrices:] == 0).all()


# Numbers


@pytest.mark.parametrize(("kind", "dtype"), [(0, torch.float16), (1, torch.bfloat16)])
def test_all_numbers_of_16_bits_widen_exactly(run, kind, dtype):
    wide = np.zeros(2**16, np.float32)
    run("widen", kind, 2**16, ALL_HALVES, wide)
    expected = torch.from_numpy(ALL_HALVES).view(dtype).float().numpy()
    np.testing.assert_array_equal(wide, expected)
    assert (np.signbit(wide) == np.signbit(expected)).all()


@pytest.mark.parametrize(("kind", "dtype"), [(0, torch.float16), (1, torch.bfloat16)])
def test_all_numbers_of_16_bits_and_what_lies_around_them_narrow_to_the_nearest(run, kind, dtype):
    exact = torch.from_numpy(ALL_HALVES).view(dtype).float().numpy().view(np.uint32)
    above = exact + np.uint32(1 << (12 if kind == 0 else 15))  # halfway between two, of normal numbers
    numbers = np.concatenate([exact, above, above + np.uint32(1), above - np.uint32(1)]).view(np.float32)
    narrowed = np.zeros(numbers.size, np.uint16)
    run("narrow", kind, numbers.size, numbers, narrowed)
    expected = bits_of(numbers, dtype)
    nan = np.isnan(numbers)
    np.testing.assert_array_equal(narrowed[~nan], expected[~nan])
    assert (narrowed[nan] == 0x7FFF).all()


@settings(max_examples=100, deadline=None)
@given(number=st.floats(width=32))
@pytest.mark.parametrize(("kind", "dtype"), [(0, torch.float16), (1, torch.bfloat16)])
def test_any_number_narrows_as_torch_has_it(module, kind, dtype, number):
    numbers, narrowed = np.array([number], np.float32), np.zeros(1, np.uint16)
    module.narrow(kind, 1, numbers.ctypes.data, narrowed.ctypes.data)
    assert narrowed[0] == (0x7FFF if np.isnan(number) else bits_of(numbers, dtype)[0])


def rounded_to_tf32(numbers):
    """To 10 bits of mantissa, ties away from zero."""
    mantissa, exponent = np.frexp(numbers.astype(np.float64))
    scaled = np.abs(mantissa) * 2**11
    return np.ldexp(np.sign(mantissa) * np.floor(scaled + 0.5) / 2**11, exponent).astype(np.float32)


def test_tf32_rounds_ties_away_from_zero(run, rng):
    ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23], np.float32)
    numbers = np.concatenate([ties, rng.normal(size=1000).astype(np.float32), [0, -0.0, np.inf, -np.inf]])
    numbers = numbers.astype(np.float32)
    rounded = np.zeros(numbers.size, np.uint32)
    run("round_to_tf32", numbers.size, numbers, rounded)
    found = rounded.view(np.float32)
    np.testing.assert_array_equal(found[:4], [1 + 2**-10, 1 + 2 * 2**-10, -1 - 2**-10, 1])
    np.testing.assert_array_equal(found[:-2], rounded_to_tf32(numbers[:-2]))
    np.testing.assert_array_equal(found[-2:], numbers[-2:])
    assert (rounded & 0x1FFF == 0).all()


def test_functions_of_bits(run, rng):
    special = np.array([0, 1, 2**63, 2**64 - 1, 2**32], np.uint64)
    words = np.concatenate([special, rng.integers(0, 2**64, 50, np.uint64)])
    results = np.zeros((words.size, 10), np.uint64)
    run("count_bits", words.size, words, results)
    for word, found in zip(map(int, words), results.tolist()):
        low, high = word & 0xFFFFFFFF, word >> 32
        assert found == [
            low.bit_count(),
            word.bit_count(),
            (low & -low).bit_length(),
            (word & -word).bit_length(),
            32 - low.bit_length(),
            64 - word.bit_length(),
            int(f"{low:032b}"[::-1], 2),
            int(f"{word:064b}"[::-1], 2),
            low * high >> 32,
            word * (2**64 - 1 - word) >> 64,
        ]


# Faults

MESSAGES = {
    "kOtherBarrier": "divergent barrier: thread .* waits for the block at .*, thread .* waits for the block at",
    "kEndedBeforeBarrier": r"divergent barrier: thread .* waits for the block at .*, thread \([0-4], .* has ended",
    "kEndedBesideBarrier": r"divergent barrier: thread \([0-4], 0, 0\) .* waits for the block at .* has ended",
    "kBarrierAndWarp": "deadlock: thread .* waits for the block at .*; .* waits for its warp at",
    "kNotInOwnMask": r"a lane that its own mask doesn't name: thread \((31|63), 0, 0\) of block \(0, 0, 0\) at",
    "kNamesEndedLane": r"a mask names a lane that has ended|has ended or isn't of the block",
    "kEndedBesideWarp": r"a mask names a lane that has ended|a lane that its own mask doesn't name|has ended or isn't",
    "kNamesMissingLane": r"a mask names a lane that has ended or isn't of the block: thread \(32, 0, 0\)",
    "kDifferentMasks": "lanes of a warp do different things|a lane that its own mask doesn't name",
    "kDifferentWork": "lanes of a warp do different things: thread .* waits for its warp at",
    "kReadsUnnamedLane": "a shuffle reads lane 8, which its mask doesn't name",
    "kOddWidth": "a shuffle's width is a power of two up to 32, not 3",
    "kCopyToUnaligned": "an asynchronous copy to an address that isn't aligned to 16 bytes",
    "kCopyFromUnaligned": "an asynchronous copy from an address that isn't aligned to 16 bytes",
    "kCopyOutside": "an asynchronous copy to what isn't 16 bytes of one shared array",
    "kCopyNotAwaited": "an asynchronous copy that is never waited for",
    "kMatrixUnaligned": "a row of a matrix at an address that isn't aligned to 16 bytes",
    "kMatrixOutside": "a row of a matrix that isn't 16 bytes of one shared array",
    "kAtomicUnaligned": "an atomic function of an address that isn't aligned to its 4 bytes",
    "kVectorUnaligned": "an access to '.*float4' at an address that isn't aligned to 16 bytes",
    "kManyStaticBytes": "shared array large .*: 49664 bytes of static shared memory; a block has 49152 at most",
    "kWritesBehindArray": "a write behind the end of shared array tile .*, 0 bytes after it",
    "kThrows": "a kernel's own",
}


def misdeeds():
    names = re.search(r"enum class Misdeed {(.*?)}", FAULTS.read_text(), re.DOTALL)[1]
    return [name.strip() for name in names.split(",")]


def misbehave(run, misdeed, seed):
    memory = aligned((1024,), np.int32)
    threads = 33 if misdeed == "kNamesMissingLane" else 64
    run("misbehave", misdeeds().index(misdeed), threads, 0, memory, memory[512:], seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("misdeed", misdeeds()[:-1])
def test_a_fault_is_told_with_its_thread_and_place(run, misdeed, seed):
    with pytest.raises((RuntimeError, ValueError), match=MESSAGES[misdeed]) as caught:
        misbehave(run, misdeed, seed)
    lines = [i for i, line in enumerate(FAULTS.read_text().splitlines(), 1) if f"fault: {misdeed}" in line]
    for line in lines:
        assert re.search(rf"csrc/emu/tests/faults\.cuh:{line}\b", str(caught.value)), caught.value
    assert lines or misdeed in ("kWritesBehindArray", "kThrows")


@pytest.mark.parametrize("misdeed", misdeeds()[:-1])
def test_after_a_fault_kernels_run_as_before(run, misdeed):
    misbehave(run, "kNone", 0)
    for seed in SEEDS:
        with pytest.raises((RuntimeError, ValueError)):
            misbehave(run, misdeed, seed)
        values = np.arange(65, dtype=np.int32)
        run("reverse", 65, 260, values, seed=seed)
        np.testing.assert_array_equal(values, 2 * np.arange(65)[::-1] + 1)


def test_many_faults_leave_no_stacks_behind(run):
    def mapped():
        with open("/proc/self/maps") as maps:
            return sum(1 for _ in maps)

    misbehave(run, "kNone", 0)
    for misdeed in misdeeds()[:-1]:
        with pytest.raises((RuntimeError, ValueError)):
            misbehave(run, misdeed, 0)
    before = mapped()
    for misdeed in misdeeds()[:-1]:
        for _ in range(3):
            with pytest.raises((RuntimeError, ValueError)):
                misbehave(run, misdeed, 0)
    assert mapped() <= before + 8


# The build


def test_a_build_is_kept_and_a_changed_source_is_another():
    assert emulated.build(program="primitives") == emulated.build(program="primitives")
    path = "emu/tests/primitives.cuh"
    text = (emulated.ROOT / "csrc" / path).read_text()
    changed = emulated.build(program="primitives", changes={path: text.replace("+ offset;", "+ offset + 1;")})
    assert changed != emulated.build(program="primitives")
    values = np.arange(32, dtype=np.int32)
    emulated.imported(changed).reverse(32, 128, values.ctypes.data)
    np.testing.assert_array_equal(values, 2 * np.arange(32)[::-1] + 2)


COMPILER = """#!/bin/sh
[ "$1" = --version ] && exit
for target; do :; done
echo "${target%.*.*}" >> "$LOG"
sleep 0.05
: > "$target"
"""


def test_two_processes_that_build_the_same_compile_each_source_once(tmp_path):
    compiler, log, kept = tmp_path / "compiler", tmp_path / "log", tmp_path / "kept"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    variables = {**os.environ, "CXX": str(compiler), "LOG": str(log), "HEPFEED_EMULATED_BUILD": str(kept)}
    command = [sys.executable, emulated.__file__, "plain", "primitives"]
    builders = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) for _ in range(2)]
    modules = {builder.communicate()[0] for builder in builders}
    assert len(modules) == 1
    made = log.read_text().split()
    assert sorted(made) == sorted(str(path) for path in kept.iterdir() if path.suffix in (".o", ".so"))


@pytest.fixture
def rng():
    return np.random.default_rng(7)
