"""The device kernels under the steps of the feed, each against NumPy or the kernel of the CPU, to the last bit."""

import itertools

import numpy as np
import pytest
import torch

from hepfeed.device.sorting import sort_pairs
from hepfeed.device.transforms.arrays import movable, torch_type
from hepfeed.device.transforms.casting import cast_numbers
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Faults
from hepfeed.draws import Draws
from hepfeed.noise import drop_items, gaussian_noise, poisson_noise
from hepfeed.programs import Operation, run_program
from hepfeed.transforms.cast import misfits

SIZES = (0, 1, 3, 4, 5, 31, 32, 33, 63, 64, 65, 127, 128, 129)
"""Items of events: about the four that a thread takes, warps and blocks."""
NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?")


class Bench:
    """Calls kernels on arrays of the host, on whatever backend there is."""

    def __init__(self, backend, draws=None):
        self.backend = backend
        self.kernels = backend.kernels
        self.kept = []
        draws = draws if draws is not None else draws_of(1)
        self.faults = Faults(torch.device(backend.device))
        self.context = Context(draws, self.tensor(draws.event), self.faults)
        self.stream = self.context.stream

    def tensor(self, array):
        made = torch.from_numpy(np.array(array)).to(self.backend.device)
        self.kept.append(made)
        return made

    def at(self, array):
        """Address of an array on the device."""
        return self.tensor(array).data_ptr()

    def items(self, array):
        """Address and type of numbers."""
        codes = {"i1": 0, "i2": 1, "i4": 2, "i8": 3, "u1": 4, "u2": 5, "u4": 6, "u8": 7, "f2": 8, "f4": 9, "f8": 10}
        kind = "b1" if array.dtype == bool else array.dtype.str[1:]
        return self.at(array), {**codes, "b1": 11}[kind]

    def out(self, shape, dtype):
        made = torch.full(shape, 0, dtype=torch_type(dtype), device=self.backend.device)
        movable(made).view(torch.uint8 if made.dim() and made.numel() else made.dtype).fill_(77)  # what nobody wrote
        self.kept.append(made)
        return made

    def refused(self):
        self.faults.close()
        return self.faults.any()


def draws_of(events, seed=7, epoch=2, step=5):
    event = np.stack([np.arange(events) // 3, 2**40 + 11 * np.arange(events)], axis=1).astype(np.int64)
    return Draws(seed=seed, epoch=epoch, batch=0, event=event, step=step)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def orders(backend):
    """Several orders of threads and blocks; a device has its own."""
    for seed in (0, 1, 2) if backend.device == "cpu" else (0,):
        backend.seed(seed)
        yield seed


def numbers_of(dtype, size, seed=0):
    """Numbers of a type, of which about half are 0."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 2 if dtype == "?" else 50, size) * (random.random(size) < 0.5)
    return small.astype(dtype)


@pytest.mark.parametrize("lengths", [(), (0,), (5,), (0, 3, 0, 4, 1), SIZES, tuple(reversed(SIZES))])
def test_random_numbers_have_the_bits_of_the_cpu_whatever_the_lengths_of_events(backend, lengths):
    draws, offsets = draws_of(len(lengths)), offsets_of(lengths)
    for _ in orders(backend):
        bench = Bench(backend, draws)
        there = bench.tensor(offsets)
        raw = bench.context.raw(there, int(offsets[-1])).cpu().numpy().view(np.uint64)
        np.testing.assert_array_equal(raw, draws.raw_jagged(offsets))
        uniform = bench.context.uniform(there, int(offsets[-1])).cpu().numpy()
        np.testing.assert_array_equal(uniform, draws.uniform_jagged(offsets))
        normal = bench.context.normal(there, int(offsets[-1])).cpu().numpy()
        np.testing.assert_array_equal(normal, draws.normal_jagged(offsets))


def test_random_numbers_are_those_of_numpys_generator(backend):
    draws = Draws(seed=2**63 + 5, epoch=3, batch=0, event=np.array([[4, 2**33]], np.int64), step=9 | 2 << 32)
    bench = Bench(backend, draws)
    raw = bench.context.raw(bench.tensor([0, 11]), 11).cpu().numpy().view(np.uint64)
    numpys = np.random.Philox(key=np.array([draws.seed, draws.step], np.uint64), counter=[0, 2**33, 4, 3])
    np.testing.assert_array_equal(raw, numpys.random_raw(11))


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "u8", "f2", "f4", "f8", "?"])
def test_noise_is_that_of_the_cpu_for_every_type(backend, dtype):
    lengths = (7, 0, 33, 4)
    draws, offsets = draws_of(len(lengths)), offsets_of(lengths)
    values = numbers_of(dtype, offsets[-1])
    real = "f8" if dtype == "f8" else "f4"
    for seed in orders(backend):
        bench = Bench(backend, draws)
        events = (bench.at(offsets), len(lengths), 1)
        for relative, only_active in ((False, False), (True, False), (False, True)):
            out = bench.out((len(values),), real)
            bench.kernels.gaussian_noise(
                bench.items(values), (out.data_ptr(), 10 if real == "f8" else 9), events, len(values),
                bench.context.key(), 1.5, relative, only_active, bench.stream,
            )  # fmt: skip
            wanted = gaussian_noise(values, offsets, draws, 1.5, relative, only_active)
            np.testing.assert_array_equal(out.cpu().numpy(), wanted)
        if seed == 0:
            out = bench.out((len(values),), real)
            bench.kernels.poisson_noise(
                bench.items(values), (out.data_ptr(), 10 if real == "f8" else 9), events, len(values),
                bench.context.key(), 1.25, bench.faults.address(), bench.stream,
            )  # fmt: skip
            np.testing.assert_array_equal(out.cpu().numpy(), poisson_noise(values, offsets, draws, 1.25)[0])
            assert not bench.refused()
        if dtype != "?":
            out = bench.out((len(values),), dtype)
            bench.kernels.drop_items(
                bench.at(values), out.data_ptr(), values.itemsize, events, len(values), bench.context.key(), 0.4,
                bench.stream,
            )  # fmt: skip
            np.testing.assert_array_equal(out.cpu().numpy(), drop_items(values, offsets, draws, 0.4))


def test_poisson_numbers_of_all_means_are_those_of_the_cpu(backend):
    means = np.array([0, 1e-300, 0.1, 1, 9.99, 10, 10.01, 30, 1e3, 1e6, 1e12, 2.0**40, 700.5], np.float64)
    values = np.tile(means, 4)
    offsets = offsets_of([26, 26])
    draws = draws_of(2)
    bench = Bench(backend, draws)
    out = bench.out((52,), "f8")
    bench.kernels.poisson_noise(
        bench.items(values), (out.data_ptr(), 10), (bench.at(offsets), 2, 1), 52, bench.context.key(), 1.0,
        bench.faults.address(), bench.stream,
    )  # fmt: skip
    np.testing.assert_array_equal(out.cpu().numpy(), poisson_noise(values, offsets, draws)[0])


@pytest.mark.parametrize("mean", [-1.0, np.nan, 2.0**41, np.inf])
def test_a_mean_that_poisson_numbers_can_not_have_is_a_fault(backend, mean):
    bench = Bench(backend)
    out = bench.out((3,), "f8")
    bench.kernels.poisson_noise(
        bench.items(np.array([1.0, 2.0, mean])), (out.data_ptr(), 10), (bench.at([0, 3]), 1, 1), 3,
        bench.context.key(), 1.0, bench.faults.address(), bench.stream,
    )  # fmt: skip
    assert bench.refused()


PROGRAMS = {
    "linear": [Operation("linear", 1.5, 1 / 3, 0.1)],
    "clip": [Operation("clip", -1.0, 7.0)],
    "log": [Operation("log", 1.0, 1 / np.log(10))],
    "log_tanh": [Operation("log_tanh", 0.25)],
    "all": [
        Operation("clip", 0.0, 30.0),
        Operation("log", 1.0),
        Operation("round"),
        Operation("linear", 0.3, 2.0, 1.0),
    ],
}


def ran(bench, values, operations, entries=1, run=1):
    """Run a program as the CPU does, and return its results."""
    real = "f8" if values.dtype == np.float64 else "f4"
    chosen = [op for op in operations if op.name != "round" or real == "f4"]
    names = ["linear", "clip", "log", "log_tanh", "round"]
    params = [[np.broadcast_to(value, entries) for value in (op.p, op.q, op.r)] for op in chosen]
    out = bench.out(values.shape, real)
    bench.kernels.pointwise(
        bench.items(values), (out.data_ptr(), 10 if real == "f8" else 9), values.size,
        bench.at(np.array([names.index(op.name) for op in chosen], np.int32)), len(chosen),
        bench.at(np.array(params, np.float64)), entries, run, 0, 1, bench.faults.address(), bench.stream,
    )  # fmt: skip
    return out.cpu().numpy()


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_have_the_bits_of_the_cpu_for_every_type(backend, name):
    for dtype, size in itertools.product(NUMBERS, (0, 1, 33, 130)):
        bench = Bench(backend)
        values = numbers_of(dtype, size, seed=size)
        np.testing.assert_array_equal(ran(bench, values, PROGRAMS[name]), run_program(values, PROGRAMS[name])[0])
        assert not bench.refused()


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 7), (1, 1, 9), (4, 2, 64), (5, 300)])
def test_each_channel_has_its_own_parameters(backend, shape):
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for axis in range(1, len(shape)):
        channels, run = shape[axis], int(np.prod(shape[axis + 1 :]))
        operation = Operation("linear", tuple(np.arange(channels) + 0.5), tuple(1 / (1.0 + np.arange(channels))), 2.0)
        made = ran(Bench(backend), values, [operation], channels, run)
        np.testing.assert_array_equal(made, run_program(values, [operation], axis)[0])


def test_logarithms_have_the_bits_of_the_cpu_everywhere(backend):
    random = np.random.default_rng(11)
    sizes = 2.0 ** random.uniform(-1074, 1023, 1500)
    ends = [0.0, 5e-324, 2.0**-1022, 2.0**-53, 1.0, 1.7e308, np.inf, np.nan, -0.0]
    values = np.concatenate([sizes, random.uniform(-0.999, 4, 1500), -np.minimum(sizes, 0.5), ends])
    for operation in (Operation("log", 1.0), Operation("log", 1e-300, 3.0), Operation("log_tanh", 1.0)):
        allowed = values if operation.p >= 1 else np.abs(values)
        np.testing.assert_array_equal(ran(Bench(backend), allowed, [operation]), run_program(allowed, [operation])[0])


def test_a_number_without_a_logarithm_is_a_fault(backend):
    for value, refused in ((-0.5, False), (-1.0, True), (-2.0, True), (np.nan, False), (np.inf, False)):
        for name in ("log", "log_tanh"):
            bench = Bench(backend)
            ran(bench, np.array([3.0, 0.0, 1.0, 2.0, value]), [Operation(name, 1.0)])
            assert bench.refused() == refused, (value, name)


EDGES = {
    "f": [0, -0.0, 1, 0.5, 1.5, 2.5, -1, 127, 128, 255, 256, -128.5, 65504, 65520, 7e4, 2.0**24 + 1, 2.0**31, 2.0**53,
          2.0**63, 2.0**64, 3.5e38, 1e300, 1e-8, 6e-8, 3e-8, np.nan, np.inf, -np.inf],
    "i": [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24 + 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1,
          -1, -128, -129, -(2**15) - 1, -(2**31) - 1, -(2**63)],
}  # fmt: skip


def edges_of(dtype):
    """Numbers at the ends of some type, those that a type holds."""
    if dtype == "?":
        return np.array([False, True])
    if dtype[0] == "f":
        with np.errstate(over="ignore"):
            return np.array(EDGES["f"]).astype(dtype)
    limits = np.iinfo(dtype)
    return np.array([number for number in EDGES["i"] if limits.min <= number <= limits.max], dtype)


@pytest.mark.parametrize("into", NUMBERS)
def test_casts_give_numpys_numbers_and_refuse_what_the_cpu_refuses(backend, into):
    for dtype in NUMBERS:
        check_cast(backend, edges_of(dtype), into)


def check_cast(backend, values, into):
    wrong = misfits(values, np.dtype(into))
    wrong = np.zeros(len(values), bool) if wrong is None else wrong
    fits = values[~wrong]
    bench = Bench(backend)
    made = cast_numbers(bench.tensor(fits), torch_type(into), bench.context).cpu().numpy()
    assert made.dtype == np.dtype(into)
    np.testing.assert_array_equal(made, fits.astype(into))
    assert not bench.refused()
    for value in values[wrong][:: 3 if len(values) > 9 else 1]:
        bench = Bench(backend)
        cast_numbers(bench.tensor(np.array([fits[0], value])), torch_type(into), bench.context)
        assert bench.refused(), (values.dtype, value)


def test_float64_becomes_float16_in_one_rounding(backend):
    random = np.random.default_rng(3)
    halves = random.normal(size=200).astype(np.float16).astype(np.float64)
    steps = np.spacing(halves.astype(np.float16)).astype(np.float64)
    # Half-way between two float16, and so little beside it that a float32 does not show it.
    ties = halves + steps / 2
    values = np.concatenate([ties, ties * (1 + 1e-12), ties * (1 - 1e-12), halves * 1e-7, halves * 65504])
    bench = Bench(backend)
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    made = cast_numbers(bench.tensor(values), torch.float16, bench.context).cpu().numpy()
    np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_casts_round_fractions_as_they_are_told(backend, rounding):
    values = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 2.7, -3.2, 127.4], np.float32)
    bench = Bench(backend)
    made = cast_numbers(bench.tensor(values), torch.int8, bench.context, rounding).cpu().numpy()
    np.testing.assert_array_equal(made, (np.rint if rounding == "nearest" else np.floor)(values).astype(np.int8))
    assert not bench.refused()


def moved(bench, images, shape, origin=None, reversed=None, quarters=None, plane=(-1, -1), fill=0):
    out = bench.out((len(images), *shape), images.dtype.str[1:])
    bench.kernels.move_images(
        bench.at(images), out.data_ptr(), images.itemsize, images.shape[1:], shape, len(images),
        0 if origin is None else bench.at(np.asarray(origin, np.int64)),
        0 if reversed is None else bench.at(np.asarray(reversed, np.uint8)),
        0 if quarters is None else bench.at(np.asarray(quarters, np.uint8)),
        *plane, np.array(fill, images.dtype).tobytes(), bench.stream,
    )  # fmt: skip
    return out.cpu().numpy()


@pytest.mark.parametrize("length", [1, 31, 33, 1023, 1024, 1025, 2049])
def test_images_move_whatever_the_number_of_blocks(backend, length):
    images = np.arange(2 * length, dtype=np.uint16).reshape(2, length)
    for _ in orders(backend):
        bench = Bench(backend)
        made = moved(bench, images, (length,), reversed=[[1], [0]])
        np.testing.assert_array_equal(made, np.stack([images[0, ::-1], images[1]]))
        made = moved(bench, images, (length + 2,), origin=[[-1], [5]], fill=9)
        padded = np.pad(images, ((0, 0), (1, 7)), constant_values=9)
        np.testing.assert_array_equal(made, np.stack([padded[0, : length + 2], padded[1, 6 : length + 8]]))


@pytest.mark.parametrize("plane", [(0, 1), (1, 0), (2, 0), (1, 2)])
def test_turns_are_those_of_numpy_in_every_plane(backend, plane):
    quarters = [0, 1, 2, 3, 1]
    for dtype in ("u1", "i2", "f4", "f8"):
        images = np.random.default_rng(5).integers(0, 200, (5, 3, 3, 3)).astype(dtype)
        made = moved(Bench(backend), images, (3, 3, 3), quarters=quarters, plane=plane)
        wanted = np.stack([np.rot90(image, turn, plane) for image, turn in zip(images, quarters)])
        np.testing.assert_array_equal(made, wanted)


def test_a_site_outside_of_the_images_is_a_fault_and_nothing_is_written_there(backend):
    for site in ([2, 0, 0], [-1, 0, 0], [0, 3, 0], [0, 0, 4], [1, -1, 0], [1, 2, 2**31 - 1]):
        bench = Bench(backend)
        out = bench.out((2, 3, 4), "f4")
        before = out.cpu().numpy().copy()
        bench.kernels.put_sites(
            bench.at(np.array([site, [1, 2, 3]], np.int32)), bench.at(np.array([5, 6], np.float32)), 4, 2, (3, 4), 2, 1,
            1, out.data_ptr(), bench.faults.address(), bench.stream,
        )  # fmt: skip
        before[1, 2, 3] = 6
        np.testing.assert_array_equal(out.cpu().numpy(), before)
        assert bench.refused(), site


@pytest.mark.parametrize("channels", [1, 3])
def test_sites_are_marked_by_an_exact_comparison(backend, channels):
    for dtype in NUMBERS:
        check_marks(backend, dtype, channels)


def check_marks(backend, dtype, channels):
    values = np.resize(edges_of(dtype), (11, channels, 3)) if dtype != "?" else np.ones((11, channels, 3), bool)
    for threshold in (0.0, 0.5, 127.0, 2.0**53, 2.0**63, np.inf):
        for absolute in (False, True):
            bench = Bench(backend)
            marks = bench.out((11, 3), "u1")
            bench.kernels.mark_active(
                bench.items(values), 11, channels, 3, threshold, absolute, marks.data_ptr(), bench.stream
            )

            def active(x, threshold=threshold, absolute=absolute):
                exact = float(x) if dtype[0] == "f" else int(x)  # Python compares integers with floats exactly
                return not exact <= threshold or (absolute and exact < -threshold)

            wanted = np.array([[any(active(values[o, c, i]) for c in range(channels)) for i in range(3)]
                               for o in range(11)])  # fmt: skip
            np.testing.assert_array_equal(marks.cpu().numpy(), wanted)


def test_negative_thresholds_are_compared_exactly_too(backend):
    for dtype in ("i8", "u8", "f4", "i1"):
        values = edges_of(dtype)
        bench = Bench(backend)
        marks = bench.out((len(values),), "u1")
        bench.kernels.mark_active(bench.items(values), len(values), 1, 1, -1.5, False, marks.data_ptr(), bench.stream)
        wanted = [not (x if dtype[0] == "f" else int(x)) <= -1.5 for x in values]
        np.testing.assert_array_equal(marks.cpu().numpy(), wanted)


@pytest.mark.parametrize("rows", [0, 1, 31, 33, 64, 129])
def test_groups_are_reduced_in_the_order_of_their_rows(backend, rows):
    for how in ("sum", "mean", "max"):
        check_groups(backend, rows, how)


def check_groups(backend, rows, how):
    random = np.random.default_rng(rows)
    cells = np.sort(random.integers(0, 9, rows)).astype(np.int64)  # 7 and above are outside
    order = random.permutation(rows).astype(np.int32)
    values = random.normal(size=(rows, 3)) * 10.0 ** random.integers(-8, 8, (rows, 3))
    starts = np.flatnonzero(np.diff(cells, prepend=-1) * (cells < 7) > 0).astype(np.int64)
    functions = {"sum": sum_in_order, "mean": lambda x: sum_in_order(x) / len(x), "max": lambda x: x.max(axis=0)}
    wanted = np.array([functions[how](values[order[cells == cells[start]]]) for start in starts], np.float32)
    for _ in orders(backend):
        bench = Bench(backend)
        groups = (bench.at(cells), bench.at(order), bench.at(starts), len(starts), rows, 7)
        out = bench.out((len(starts), 4), "f4")
        bench.kernels.reduce_groups(groups, bench.items(values), 3, how, out.data_ptr(), 4, bench.stream)
        np.testing.assert_array_equal(out.cpu().numpy()[:, :3], wanted.reshape(-1, 3))
        spread = torch.zeros(7, dtype=torch.float32, device=backend.device)
        groups = (bench.at(cells), bench.at(order), 0, rows, rows, 7)
        bench.kernels.reduce_groups(
            groups, bench.items(np.ascontiguousarray(values[:, 0])), 1, how, spread.data_ptr(), 1, bench.stream
        )
        found = np.zeros(7, np.float32)
        found[cells[starts]] = wanted.reshape(-1, 3)[:, 0]
        np.testing.assert_array_equal(spread.cpu().numpy(), found)


def sum_in_order(rows):
    total = np.zeros(rows.shape[1])
    for row in rows:
        total = total + row
    return total


def test_a_maximum_with_a_nan_is_nan(backend):
    values = np.array([1, np.nan, 3, 2, 5, np.nan], np.float32)
    bench = Bench(backend)
    groups = (
        bench.at(np.array([0, 0, 0, 1, 1, 2])),
        bench.at(np.arange(6, dtype=np.int32)),
        bench.at([0, 3, 5]),
        3,
        6,
        9,
    )
    out = bench.out((3, 1), "f4")
    bench.kernels.reduce_groups(groups, bench.items(values), 1, "max", out.data_ptr(), 1, bench.stream)
    np.testing.assert_array_equal(out.cpu().numpy()[:, 0], [np.nan, 5, np.nan])


def test_labels_are_those_of_the_largest_weight_or_of_most_rows(backend):
    labels = np.array([5, 5, -7, 1, 2, 2, 1, 9], np.int64)
    weights = np.array([np.nan, 2, 2, np.nan, 1, 8, 8, -1], np.float32)
    bench = Bench(backend)
    groups = (bench.at(np.array([0, 0, 0, 3, 3, 3, 3, 8])), bench.at(np.arange(8, dtype=np.int32)), bench.at([0, 3, 7]),
              3, 8, 9)  # fmt: skip
    found = bench.out((3,), "i8")
    bench.kernels.labels_of_largest(groups, bench.at(labels), bench.items(weights), 1, found.data_ptr(), bench.stream)
    assert found.tolist() == [5, 2, 9]
    order = np.array([2, 0, 1, 3, 6, 4, 5, 7], np.int32)  # by label within a group
    groups = (groups[0], bench.at(order), *groups[2:])
    bench.kernels.labels_of_majority(groups, bench.at(labels), found.data_ptr(), bench.stream)
    assert found.tolist() == [5, 1, 9]


def test_sorted_pairs_of_one_key_keep_their_order(backend):
    keys = np.random.default_rng(0).integers(0, 5, 70)
    bench = Bench(backend)
    made, rows = sort_pairs(bench.tensor(keys), bench.tensor(np.arange(70, dtype=np.int32)), 6)
    np.testing.assert_array_equal(rows.cpu().numpy(), np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(made.cpu().numpy(), np.sort(keys))


def test_names_that_kernels_do_not_know_are_refused(backend):
    bench = Bench(backend)
    out = bench.out((1,), "f4")
    with pytest.raises(ValueError, match="there is no 'median'"):
        bench.kernels.reduce_groups((0, 0, 0, 0, 0, 0), (0, 0), 1, "median", out.data_ptr(), 1, bench.stream)
    with pytest.raises(ValueError, match="there is no such type"):
        bench.kernels.mark_active((0, 12), 1, 1, 1, 0.0, False, out.data_ptr(), bench.stream)
    with pytest.raises(ValueError, match="items have 1, 2, 4 or 8 bytes"):
        bench.kernels.drop_items(0, 0, 3, (0, 0, 1), 0, bench.context.key(), 0.5, bench.stream)
    with pytest.raises(ValueError, match="8 axes"):
        bench.kernels.put_sites(0, 0, 4, 0, (1,) * 9, 1, 1, 1, 0, 0, bench.stream)
