"""Plans of convolutions on devices: what they say of pairs, faults in these, and how long they are kept."""

import gc
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from hepfeed import _convolution
from hepfeed.device.keeper import Keeper
from hepfeed.device.plan import pairs_of, plan_of

TILE = 64
SORTED_TAPS = 62
SIZES = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 513]


def random_pairs(rng, in_rows, out_rows, taps, part=0.3):
    """Output and input rows of the pairs of each tap, output rows rising, and offsets; on the host."""
    outs = [np.flatnonzero(rng.random(out_rows) < part) if in_rows else np.zeros(0, int) for _ in range(taps)]
    ins = [rng.integers(0, max(in_rows, 1), len(rows)) for rows in outs]
    offsets = np.cumsum([0, *map(len, outs)], dtype=np.int64)
    joined = [np.concatenate([np.zeros(0), *lists]).astype(np.int32) for lists in (outs, ins)]
    return *map(torch.from_numpy, joined), torch.from_numpy(offsets)


def on_device(backend, tensors):
    return tuple(tensor.to(backend.device) for tensor in tensors)


def twin(out_maps, in_maps, offsets, out_rows):
    """(table by rows instead of positions, key of each row)."""
    taps = len(offsets) - 1
    table = np.full((taps, out_rows), -1, np.int32)
    for tap in range(taps):
        here = slice(offsets[tap], offsets[tap + 1])
        table[tap, out_maps[here]] = in_maps[here]
    keys = [sum(1 << tap for tap in range(min(taps, SORTED_TAPS)) if table[tap, row] >= 0) for row in range(out_rows)]
    return table, keys


def check(plan, pairs, out_rows):
    """A plan is the table of its pairs, rows sorted by their taps, and the taps of tiles are those of their rows."""
    table, keys = twin(*(each.numpy() for each in pairs), out_rows)
    rows = plan.rows.cpu().numpy()
    assert rows.tolist() == sorted(range(out_rows), key=keys.__getitem__)  # those of one key in their order
    np.testing.assert_array_equal(plan.table.cpu().numpy(), table[:, rows])
    tiles = plan.tile_taps.cpu().numpy().view(np.uint32)
    assert tiles.shape == (-(-out_rows // TILE), 2 * -(-len(table) // 64))
    for tile, words in enumerate(tiles):
        bits = [bool(words[tap // 32] >> (tap % 32) & 1) for tap in range(32 * len(words))]
        has = (table[:, rows[tile * TILE : (tile + 1) * TILE]] >= 0).any(axis=1)
        assert bits == [*has, *[False] * (len(bits) - len(has))]


def test_a_plan_of_four_pairs(backend):
    given = [torch.tensor(rows, dtype=torch.int32) for rows in ([1, 2, 0, 1], [4, 3, 0, 1])]
    pairs = on_device(backend, [*given, torch.tensor([0, 2, 4])])
    plan = plan_of(*pairs, 3, 5)
    assert plan.rows.tolist() == [2, 0, 1]  # of tap 0, of tap 1, of both
    assert plan.table.tolist() == [[3, -1, 4], [-1, 0, 1]]
    assert plan.tile_taps.tolist() == [[3, 0]]
    assert (plan.taps, plan.out_rows, plan.in_rows) == (2, 3, 5)


def test_plans_of_any_size_equal_their_twin_in_every_order_of_threads(backend):
    rng = np.random.default_rng(0)
    for seed, out_rows in enumerate(SIZES):
        backend.seed(seed)
        pairs = random_pairs(rng, 70, out_rows, 5)
        check(plan_of(*on_device(backend, pairs), out_rows, 70), pairs, out_rows)


@pytest.mark.parametrize("taps", [0, 1, 27, 31, 32, 33, 62, 63, 64, 65, 125, 343])
def test_plans_of_any_number_of_taps_equal_their_twin(backend, taps):
    rng = np.random.default_rng(taps)
    for part in (0.0, 0.1, 1.0):
        pairs = random_pairs(rng, 10, 70, taps, part)
        check(plan_of(*on_device(backend, pairs), 70, 10), pairs, 70)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 200), st.integers(1, 70), st.floats(0, 1), st.integers(0, 2**31))
def any_plan(backend, in_rows, out_rows, taps, part, seed):
    backend.seed(seed)
    pairs = random_pairs(np.random.default_rng(seed), in_rows, out_rows, taps, part)
    check(plan_of(*on_device(backend, pairs), out_rows, in_rows), pairs, out_rows)


def test_any_plan_equals_its_twin(backend):
    any_plan(backend)


def test_swapped_pairs_are_those_of_the_way_back_where_there_are_any():
    a, b, c, d = (torch.tensor([number], dtype=torch.int32) for number in range(4))
    none = torch.empty(0, dtype=torch.int32)
    assert pairs_of(a, b, c, d, False) == (a, b)
    assert pairs_of(a, b, c, d, True) == (c, d)
    assert pairs_of(a, b, none, none, True) == (b, a)


def words_of_the_processor(pairs, out_rows, in_rows):
    out_maps, in_maps, offsets = (each.numpy() for each in pairs)
    features, weight = np.zeros((in_rows, 1), np.float32), np.zeros((1, len(offsets) - 1, 1), np.float32)
    out = np.zeros((out_rows, 1), np.float32)
    with pytest.raises((ValueError, TypeError)) as refused:
        _convolution.forward(features, weight, None, in_maps, out_maps, offsets, out, 1, 1)
    return refused.value


FAULTS = {
    "row of the input": ("in", 250, 40),
    "row of the input below 0": ("in", 0, -1),
    "row of the output": ("out", 449, 400),
    "row of the output below 0": ("out", 0, -1),
    "lowest": ("out", 17, -(2**31)),
    "highest": ("in", 17, 2**31 - 1),
    "output row twice": ("out", 255, 254),
    "output rows fall": ("out", 310, 0),
    "first offset": ("offsets", 0, 1),
    "offset falls": ("offsets", 1, 350),
    "last offset": ("offsets", 3, 449),
    "offset far away": ("offsets", 2, 2**40),
    "offset below 0": ("offsets", 1, -(2**40)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_pairs_that_no_map_has_are_refused_in_the_words_of_the_processor(backend, fault):
    where, at, value = FAULTS[fault]
    rising = torch.arange(150, dtype=torch.int32)
    lists = {"out": rising.repeat(3), "in": rising.repeat(3) % 40, "offsets": torch.tensor([0, 150, 300, 450])}
    lists[where][at] = value
    pairs = lists["out"], lists["in"], lists["offsets"]
    expected = words_of_the_processor(pairs, 400, 40)
    for seed in range(2):
        backend.seed(seed)
        with pytest.raises(type(expected)) as refused:
            plan_of(*on_device(backend, pairs), 400, 40)
        assert str(refused.value) == str(expected)


def test_lists_that_do_not_fit_each_other_are_refused_in_the_words_of_the_processor(backend):
    ints = torch.arange(3, dtype=torch.int32)
    for pairs in (
        (ints, ints[:2], torch.tensor([0, 3])),
        (ints, ints, torch.tensor([0])),
        (ints, ints, torch.tensor([[0, 3]])),
        (ints.long(), ints, torch.tensor([0, 3])),
        (ints, ints, torch.tensor([0, 3], dtype=torch.int32)),
    ):
        expected = words_of_the_processor(pairs, 5, 5)
        with pytest.raises(type(expected)) as refused:
            plan_of(*on_device(backend, pairs), 5, 5)
        assert str(refused.value) == str(expected)


def test_a_plan_is_made_once_and_dies_with_its_pairs(backend):
    pairs = on_device(backend, random_pairs(np.random.default_rng(0), 9, 9, 3))
    plan = plan_of(*pairs, 9, 9)
    assert plan_of(*pairs, 9, 9) is plan
    assert plan_of(*pairs, 10, 9) is not plan
    assert plan_of(*pairs, 9, 10) is not plan
    table = weakref.ref(plan.table)
    del plan
    gc.collect()
    assert table() is not None
    del pairs
    gc.collect()
    assert table() is None


def test_pairs_at_the_address_of_others_have_a_plan_of_their_own(backend):
    memory = torch.tensor([0, 1, 2], dtype=torch.int32, device=backend.device)
    in_maps, offsets = memory.clone(), torch.tensor([0, 3], device=backend.device)
    first = memory.view(-1)
    plan = plan_of(first, in_maps, offsets, 4, 3)
    assert plan.table.tolist() == [[-1, 0, 1, 2]]
    del first
    memory.data.add_(1)  # torch counts no change of what is not the same tensor
    second = memory.view(-1)
    assert plan_of(second, in_maps, offsets, 4, 3).table.tolist() == [[-1, 0, 1, 2]]
    assert plan_of(second, in_maps, offsets, 4, 3).rows.tolist() == [0, 1, 2, 3]


def test_pairs_that_change_have_a_new_plan(backend):
    out_maps, in_maps, offsets = on_device(backend, random_pairs(np.random.default_rng(1), 9, 30, 2, 0.5))
    plan = plan_of(out_maps, in_maps, offsets, 30, 9)
    for changed in (in_maps, out_maps, offsets):
        changed.add_(0)
        again = plan_of(out_maps, in_maps, offsets, 30, 9)
        assert again is not plan
        plan = again
    with pytest.raises(ValueError, match="must lie in"):
        plan_of(out_maps, in_maps.add_(9), offsets, 30, 9)


def test_pairs_of_inference_mode_have_a_plan_too(backend):
    with torch.inference_mode():
        pairs = on_device(backend, [each + 0 for each in random_pairs(np.random.default_rng(2), 9, 30, 2)])
        assert plan_of(*pairs, 30, 9) is plan_of(*pairs, 30, 9)


def test_what_is_kept_holds_no_tensor_of_which_it_was_made():
    made = []
    keeper = Keeper(lambda first, second, number: made.append(number) or (number,), lambda _: ())
    first, second, other = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    assert keeper.of((first, second), 1) is keeper.of((first, second), 1)
    assert keeper.of((first, other), 1) == (1,)
    assert keeper.of((second, first), 2) == (2,)
    assert made == [1, 1, 2]
    assert len(keeper) == 3
    del other
    keeper.of((first, second), 1)
    assert len(keeper) == 2  # what nobody can ask for again was dropped
    assert keeper.has((second, first), 2)
    first.add_(1)
    assert not keeper.has((second, first), 2)
    assert len(keeper) == 1
    del first
    gc.collect()
    assert len(keeper) == 0
    assert made == [1, 1, 2]


def test_nothing_is_kept_of_what_failed():
    calls = []

    def fail(tensor):
        calls.append(tensor.shape)
        raise ValueError("no")

    keeper = Keeper(fail, lambda _: ())
    tensor = torch.zeros(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            keeper.of((tensor,))
    assert len(keeper) == 0
    assert len(calls) == 2


def test_threads_that_ask_at_once_have_the_same_plan(backend):
    pairs = random_pairs(np.random.default_rng(3), 40, 200, 4)
    mine = on_device(backend, pairs)
    plans = []
    threads = [threading.Thread(target=lambda: plans.append(plan_of(*mine, 200, 40))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 4
    for plan in plans:
        check(plan, pairs, 200)
    assert plan_of(*mine, 200, 40) is plan_of(*mine, 200, 40)


class Stream:
    """What a keeper asks of a stream."""

    def __init__(self, number, log):
        self.cuda_stream = number
        self._log = log

    def record_event(self):
        self._log.append(("recorded", self.cuda_stream))
        return f"event of {self.cuda_stream}"

    def wait_event(self, event):
        self._log.append((event, self.cuda_stream))


def test_other_streams_wait_once_for_the_making_and_keep_the_memory(monkeypatch):
    log, capturing = [], []
    current = [Stream(1, log)]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[0])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(capturing))
    part = types.SimpleNamespace(record_stream=lambda stream: log.append(("kept for", stream.cuda_stream)))
    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda")
    keeper = Keeper(lambda tensor: part, lambda made: (made,))
    for _ in range(2):
        assert keeper.of((tensor,)) is part
    assert log == [("recorded", 1)]
    current[0] = Stream(2, log)
    capturing.append(True)
    keeper.of((tensor,))
    assert log == [("recorded", 1)]
    capturing.clear()
    for _ in range(2):
        keeper.of((tensor,))
    assert log == [("recorded", 1), ("event of 1", 2), ("kept for", 2)]


def test_nothing_is_made_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda")
    made = []
    keeper = Keeper(made.append, lambda _: ())
    with pytest.raises(RuntimeError, match="run the same once"):
        keeper.of((tensor,))
    assert not made
    assert len(keeper) == 0


@pytest.mark.gpu
def test_another_stream_waits_for_the_making():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    keeper = Keeper(lambda tensor: torch.cuda._sleep(10**8) or tensor * 2, lambda made: (made,))
    numbers = torch.arange(1000, device="cuda")
    made = keeper.of((numbers,))
    with torch.cuda.stream(torch.cuda.Stream()):
        assert keeper.of((numbers,)) is made
        copy = made.clone()
    torch.cuda.synchronize()
    assert torch.equal(copy, numbers * 2)
