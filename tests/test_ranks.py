"""Ranks: every event once over all of them, as many batches on each, the same global batches for every number."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
import torch
from conftest import HOME
from events import all_events, bits, events_of, write_classes
from hypothesis import given
from hypothesis import strategies as st

import hepfeed as hf
from hepfeed.errors import SpecError
from hepfeed.partition import deal_out, share_of
from hepfeed.ranks import Ranks

SHUFFLES = [True, "full", "window", "mixed", False]
UNEVEN = {"electron": [60, 45, 3], "pion": [83, 7]}


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path, UNEVEN, layout="all_filters"))  # chunks of 16


def ranks_of(dataset, world_size, batch_size=8, shuffle=True, **options):
    """Deliver an epoch on each rank, one after another."""
    options = {"seed": 4, "window_events": 32, **options}
    for rank in range(world_size):
        loader = hf.DataLoader(dataset, batch_size, shuffle, rank=rank, world_size=world_size, **options)
        with loader:
            length = len(loader)
            batches = list(loader)
            assert len(batches) == length
        yield batches


def global_batches(dataset, world_size, **options):
    """The batches of all ranks in the order of their numbers."""
    parts = list(ranks_of(dataset, world_size, **options))
    assert len({len(part) for part in parts}) == 1
    return [batch for step in zip(*parts, strict=True) for batch in step]


# ---- shares


@given(count=st.integers(0, 40), partitions=st.integers(1, 7), first=st.integers(0, 20))
def test_shares_are_those_of_cards_that_are_dealt(count, partitions, first):
    for partition in range(partitions):
        dealt = sum(number % partitions == partition for number in range(first, first + count))
        assert share_of(count, partition, partitions, first) == dealt


@given(
    sizes=st.lists(st.integers(1, 30), max_size=60), partitions=st.integers(1, 6), before=st.lists(st.integers(0, 99))
)
def test_units_are_dealt_to_whom_has_least(sizes, partitions, before):
    sizes = sorted(sizes, reverse=True)
    loads = (before + [0] * partitions)[:partitions]
    start = list(loads)
    owner = deal_out(np.array(sizes, np.int64), loads)
    assert loads == [start[p] + sum(s for s, o in zip(sizes, owner, strict=True) if o == p) for p in range(partitions)]
    assert max(loads) - min(loads) <= max([max(start) - min(start), *sizes[:1]])
    expected = list(start)
    for size in sizes:  # the plain greedy rule
        expected[expected.index(min(expected))] += size
    assert sorted(loads) == sorted(expected)


# ---- which events


def sizes_of(batches):
    return [len(batch["label"]) for batch in batches]


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("partitions", [2, 3, 4, 7])
@pytest.mark.parametrize("uneven", ["pad", "drop"])
def test_every_event_comes_once_and_a_step_has_as_many_events_on_every_rank(dataset, shuffle, partitions, uneven):
    ranks = list(ranks_of(dataset, partitions, shuffle=shuffle, uneven=uneven))
    sizes = [sizes_of(batches) for batches in ranks]
    assert sizes == [sizes[0]] * partitions
    assert sizes[0][:-1] == [8] * (len(sizes[0]) - 1)
    steps = list(zip(*ranks, strict=True))
    events = events_of(batch for step in steps for batch in step)
    each = -(-198 // partitions) if uneven == "pad" else 198 // partitions
    assert len(events) == each * partitions
    distinct = min(198, len(events))
    assert len(set(events[:distinct])) == distinct
    if uneven == "pad":
        assert set(events) == all_events(dataset)
        assert events[198:] == events[: len(events) - 198]  # the first of the epoch, at the end of the last step


@pytest.mark.parametrize("shuffle", ["window", "mixed", False])
def test_no_chunk_is_decoded_on_two_ranks_before_the_last_steps(dataset, shuffle):
    owners = {}
    for rank, batches in enumerate(ranks_of(dataset, 3, shuffle=shuffle)):
        for file, row in events_of(batches[:6]):
            assert owners.setdefault((file, row // 16), rank) == rank


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("uneven", ["pad", "drop"])
@pytest.mark.parametrize("count", [2, 31, 32, 61, 63, 64, 65, 95])
def test_steps_are_those_of_a_distributed_sampler(tmp_path, count, uneven, drop_last):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [count]}, layout="all_filters"))
    options = {"partitions": 4, "uneven": uneven, "drop_last": drop_last}
    sampler = torch.utils.data.distributed.DistributedSampler(range(count), 4, 3, drop_last=uneven == "drop")
    batches = torch.utils.data.BatchSampler(sampler, 8, drop_last)
    expected = [len(batch) for batch in batches for _ in range(4)]
    with hf.DataLoader(dataset, 8, "window", seed=4, **options) as loader:
        if uneven == "drop" and count < 4:
            with pytest.raises(SpecError, match="2 events for 4 partitions, so that uneven='drop' leaves none"):
                len(loader)
            return
        assert len(loader) == len(expected)
        assert sizes_of(loader) == expected


def test_full_batches_of_a_long_partition_stay_whole(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [40, 20]}, layout="hundred_event_chunks"))
    with hf.DataLoader(dataset, 8, "window", seed=4, partitions=2) as loader:
        batches = events_of(loader)
        fillers = [loader._make_filler(4, False, partition, 2) for partition in range(2)]
        own = [[list(zip(s.file.tolist(), s.row.tolist())) for s in filler.batches(0)] for filler in fillers]
    assert sorted(len(part) for part in own) == [3, 5]  # of 8, but one of 4
    long = max(own, key=len)
    steps = [batch for step in zip(own[0][:2], own[1][:2], strict=True) for batch in step]
    assert batches == [event for batch in [*steps, *long[2:], min(own, key=len)[2]] for event in batch]


def test_a_full_permutation_is_divided_to_an_event(dataset):
    sizes = [len(events_of(part)) for part in ranks_of(dataset, 4, shuffle="full", batch_size=1)]
    assert sizes == [50] * 4  # of 198 events, 2 repeated


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_the_global_batches_are_the_same_for_every_number_of_ranks(dataset, shuffle):
    alone = bits(global_batches(dataset, 1, shuffle=shuffle, partitions=4))
    assert bits(global_batches(dataset, 2, shuffle=shuffle, partitions=4)) == alone
    assert bits(global_batches(dataset, 4, shuffle=shuffle, partitions=4)) == alone


def test_one_partition_has_the_order_of_a_single_process(dataset):
    with hf.DataLoader(dataset, 8, True, seed=4, window_events=32) as loader:
        assert bits(global_batches(dataset, 1, partitions=1)) == bits(loader)


def test_random_numbers_of_functions_are_those_of_the_global_batch(dataset):
    def noisy(batch):
        return {"event": batch["event"], "noise": np.random.normal(size=3)}  # noqa: NPY002

    one, two = (bits(global_batches(dataset, w, partitions=2, process_fn=noisy)) for w in (1, 2))
    assert one == two
    assert len({batch["noise"][2] for batch in one}) == len(one)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_readers_change_nothing(dataset, num_workers):
    here = bits(global_batches(dataset, 1, partitions=3))
    assert bits(global_batches(dataset, 1, partitions=3, num_workers=num_workers)) == here


def test_windows_of_a_ranks_partitions_are_read_together(dataset):
    options = {"seed": 4, "window_events": 32, "partitions": 4, "uneven": "drop", "max_events": 4 * 40}
    with hf.DataLoader(dataset, 8, "window", **options) as loader:
        sizes = [len(window.batches) for window in loader.filler.windows(0)]
        assert sizes[0] == loader.filler.window_batches_in(0) == 16
        list(loader)
        assert loader.stats()["chunks"] <= 4 + 3 + 1 + 6 + 1  # each is decoded once


@pytest.mark.parametrize(
    "options",
    [
        {"drop_last": True},
        {"skip": 21},
        {"max_events": 61},
        {"skip": 5, "max_events": 3},
        {"exhausted": "stop"},
        {"exhausted": "wrap"},
        {"composition": "random", "exhausted": "stop"},
    ],
)
@pytest.mark.parametrize("shuffle", ["full", "window"])
def test_options_hold_for_all_ranks_together(dataset, shuffle, options):
    batches = global_batches(dataset, 2, shuffle=shuffle, partitions=4, **options)
    assert bits(batches) == bits(global_batches(dataset, 4, shuffle=shuffle, **options))
    events = events_of(batches)
    if options.get("exhausted") != "wrap":
        assert len(set(events)) <= min(198 - options.get("skip", 0), options.get("max_events", 198))
    if set(options) <= {"skip", "max_events"}:
        assert len(set(events)) == min(198 - options.get("skip", 0), options.get("max_events", 198))
    if options.get("drop_last"):
        assert {len(batch["label"]) for batch in batches} == {8}


@pytest.mark.parametrize("packing", [{"length_matched": True}, {"max_points": 40}])
def test_packed_batches_are_as_many_on_every_rank(tmp_path, packing):
    counts = np.random.default_rng(3).integers(1, 20, 150)
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file.create_dataset("hits/pt", data=np.arange(counts.sum(), dtype=np.float32), chunks=(64,))
        file["hits/offsets"] = np.concatenate([[0], np.cumsum(counts)])
    dataset = hf.EventDataset([[str(tmp_path / "jets.h5"), ["hits/pt"], "jet"]])
    for shuffle in ("full", "window"):
        batches = global_batches(dataset, 2, shuffle=shuffle, partitions=4, **packing)
        assert {event for _, event in events_of(batches)} == set(range(150))
        if "length_matched" in packing:
            assert sizes_of(batches) == [8] * 16 + [6] * 4
            assert len(events_of(batches)) == 152
        four = global_batches(dataset, 4, shuffle=shuffle, **packing)
        assert [batch["event"].tolist() for batch in four] == [batch["event"].tolist() for batch in batches]


def test_an_endless_loader_goes_on_on_every_rank(dataset):
    from itertools import islice

    options = {"seed": 4, "rank": 1, "world_size": 2}
    with hf.DataLoader(dataset, 32, True, **options) as loader:
        two = bits(loader) + bits(loader)
    with hf.DataLoader(dataset, 32, True, infinite=True, **options) as endless:
        assert bits(islice(endless, len(two))) == two


def test_the_next_epoch_is_read_ahead_on_each_rank(dataset):
    options = {"seed": 4, "rank": 1, "world_size": 2, "window_events": 32}
    with hf.DataLoader(dataset, 8, True, **options) as loader:
        expected = [bits(loader) for _ in range(3)]
    with hf.DataLoader(dataset, 8, True, num_workers=1, persistent_workers=True, **options) as loader:
        assert [bits(loader) for _ in range(3)] == expected


# ---- uneven partitions


def test_the_events_of_one_chunk_are_shared_by_all_ranks(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [40]}, layout="hundred_event_chunks"))
    first, second = ranks_of(dataset, 2, shuffle="window")
    assert sizes_of(first) == sizes_of(second) == [8, 8, 4]
    assert set(events_of(first)) | set(events_of(second)) == all_events(dataset)
    with hf.DataLoader(dataset, 8, "window", seed=4, window_events=32) as loader:
        whole = events_of(loader)
    assert [e for step in zip(first, second, strict=True) for e in events_of(step)] == whole


def test_fewer_events_than_ranks_are_repeated_until_there_is_one_for_each(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [2]}))
    events = [events_of(batches) for batches in ranks_of(dataset, 5, shuffle=False)]
    assert [row for ((_, row),) in events] == [0, 1, 0, 1, 0]


def jets(path, counts):
    """Write events of so many points each, 16 of which share a chunk."""
    with h5py.File(path, "w") as file:
        file["hits/pt"] = np.arange(sum(counts), dtype=np.float32)
        file.create_dataset("mass", data=np.arange(len(counts)), chunks=(16,), compression="gzip")
        file["hits/offsets"] = np.concatenate([[0], np.cumsum(counts)])
    return hf.EventDataset([[str(path), ["hits/pt", "mass"], "jet"]])


def test_a_partition_with_fewer_packed_batches_repeats_its_own_and_says_so_once(tmp_path, caplog):
    dataset = jets(tmp_path / "jets.h5", [1] * 16 + [8] * 16)
    options = {"max_points": 16, "shuffle": False}
    first, second = ranks_of(dataset, 2, **options)
    short, long = sorted([first, second], key=lambda batches: len(set(events_of(batches))))
    own = len({tuple(events_of([batch])) for batch in short})
    assert own < len(short) == len(long)
    short_events = [events_of([batch]) for batch in short]
    assert short_events == (short_events[:own] * len(short))[: len(short)]
    assert {event for _, event in events_of([*first, *second])} == set(range(32))
    dropped = list(ranks_of(dataset, 2, uneven="drop", **options))
    assert [len(batches) for batches in dropped] == [own] * 2
    with hf.DataLoader(dataset, 8, seed=1, partitions=2, max_points=16) as loader:
        caplog.clear()
        list(loader)
        list(loader)
        assert loader.filler.remainder(0) == -1
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("partitions are uneven, because a chunk is never divided")


def test_a_partition_without_packed_batches_repeats_those_of_the_fullest(tmp_path):
    dataset = jets(tmp_path / "jets.h5", [8] * 16)
    first, second = ranks_of(dataset, 2, shuffle="window", max_points=16)
    assert [events_of([batch]) for batch in first] == [events_of([batch]) for batch in second]
    with pytest.raises(SpecError, match="partition 1 of 2 has no batch, so that nothing is left of the epoch"):
        list(ranks_of(dataset, 2, shuffle="window", uneven="drop", max_points=16))


@pytest.mark.parametrize(
    ("count", "world_size", "uneven", "remainder"),
    [
        (64, 4, "pad", 0),  # nothing is repeated
        (65, 4, "pad", 1),  # each of the last batches has one event, and three are repeated
        (65, 1, "pad", -1),  # two of them in batches before the last one
        (74, 4, "pad", 10),  # of 3 each
        (74, 2, "pad", 4),
        (74, 1, "pad", 1),
        (74, 4, "drop", 0),
    ],
)
def test_the_events_before_the_repeated_ones_are_known(tmp_path, count, world_size, uneven, remainder):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [count]}))
    options = {"rank": 0, "world_size": world_size, "partitions": 4, "uneven": uneven}
    with hf.DataLoader(dataset, 8, True, seed=4, **options) as loader:
        assert loader.filler.remainder(0) == remainder
        iterator = iter(loader)
        assert iterator.remainder == remainder
        iterator.close()


@pytest.mark.parametrize(
    ("shuffle", "options"),
    [
        *((shuffle, options) for shuffle in SHUFFLES for options in ({}, {"skip": 5}, {"drop_last": True})),
        *((shuffle, {"exhausted": "wrap", "composition": "random"}) for shuffle in SHUFFLES if shuffle),
    ],
    ids=str,
)
def test_every_batch_of_a_rank_may_be_the_first(dataset, shuffle, options):
    loader = hf.DataLoader(dataset, 8, shuffle, seed=4, partitions=4, rank=1, world_size=2, **options)
    filler = loader.filler
    specs = list(filler.batches(1))
    assert [spec.index % 2 for spec in specs] == [1] * len(specs)
    for first in range(len(specs) + 1):
        from_windows = [spec for window in filler.windows(1, first) for spec in window.batches]
        for found in (list(filler.batches(1, first)), from_windows):
            assert [(s.index, s.row.tolist()) for s in found] == [(s.index, s.row.tolist()) for s in specs[first:]]
    for window in filler.windows(1):
        for batch, place, file, row in zip(window.batch, window.place, window.file, window.row, strict=True):
            assert (window.batches[batch].file[place], window.batches[batch].row[place]) == (file, row)


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank must be in 0..world_size - 1, not rank 2 of world_size 2"),
        ({"rank": 0}, "rank=0 and world_size=None: give both, or none of them"),
        ({"rank": 0, "world_size": 3, "partitions": 4}, "world_size 3 does not divide the 4 canonical partitions"),
        ({"partitions": 0}, "world_size 1 does not divide the 0 canonical partitions"),
        ({"rank": 0.0, "world_size": 1}, "rank must be an integer, not 0.0"),
        ({"uneven": "padd"}, "uneven='padd' is unknown: did you mean 'pad'"),
    ],
)
def test_ranks_that_can_not_be_are_refused(dataset, options, message):
    with pytest.raises(SpecError) as caught:
        hf.DataLoader(dataset, 8, **options)
    assert message in str(caught.value)


def test_ranks_know_their_partitions():
    assert list(Ranks(1, 2, 6).own) == [1, 3, 5]
    assert list(Ranks().own) == [0]


# ---- processes


WORKER = """
    import json, sys
    import torch
    import torch.distributed as dist
    import hepfeed as hf
    from torch.utils.data.distributed import DistributedSampler

    class Mine(DistributedSampler):
        pass

    def deliver(what, samples):
        dataset = hf.EventDataset(samples, cache=sys.path[0] + "/cache" if what == "cache" else None)
        options = {"shuffle": True}
        if what == "sampler":
            options = {"sampler": DistributedSampler(dataset, seed=5)}
        elif what == "other sampler":
            options = {"sampler": Mine(dataset, seed=5)}
        found, orders = [], []
        with hf.DataLoader(dataset, 8, num_workers=1, persistent_workers=True, **options) as loader:
            for epoch in (0, 0, 1, 2):
                if "sampler" in what:
                    options["sampler"].set_epoch(epoch)
                else:
                    loader.set_epoch(epoch)
                length = len(loader)
                iterator = iter(loader)
                orders.append("" if what == "other sampler" else loader.filler.order)
                batches = [batch["event"].tolist() for batch in iterator]
                assert what == "cache" or len(batches) == length, (len(batches), length)
                everyone = [None] * world_size
                dist.all_gather_object(everyone, batches)
                found.append(everyone)
            iterator = iter(loader)
            next(iterator)
            state = loader.state_dict()
            states = [None] * world_size
            dist.all_gather_object(states, state)
            if what != "other sampler":
                assert states.count(states[0]) == world_size, states
            dist.barrier()
            dist.destroy_process_group()
            error = ""
            if what == "own":
                try:
                    next(iterator)
                except hf.errors.SpecError as raised:
                    error = str(raised)
        return found, state if what == "own" else orders, error

    rank, world_size, port, samples, *kinds = sys.argv[1:]
    rank, world_size, samples = int(rank), int(world_size), json.loads(samples)
    store = dist.TCPStore("127.0.0.1", int(port), world_size, rank == 0)
    answers = {}
    for what in kinds:
        group = dist.PrefixStore(what, store)
        dist.init_process_group("gloo", store=group, rank=rank, world_size=world_size)
        answers[what] = deliver(what, samples)
    print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Files of uneven classes: the list of a specification."""
    return write_classes(tmp_path_factory.mktemp("uneven"), UNEVEN, layout="all_filters")


def train_together(folder, world_size, samples, *kinds):
    """Run processes of one group; return for each kind what each delivered in each epoch, the state and the error."""
    path = folder / "worker.py"
    path.write_text(textwrap.dedent(WORKER))
    environment = {**os.environ, "PYTHONPATH": HOME}
    started, port = [], free_port()
    try:
        for rank in range(world_size):
            arguments = map(str, (rank, world_size, port, json.dumps(samples), *kinds))
            command = [sys.executable, "-W", "ignore", str(path), *arguments]
            started.append(
                subprocess.Popen(
                    command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
                )
            )
        outputs = [process.communicate(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0] * world_size, outputs
    answers = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert all(answer[kind][0] == answers[0][kind][0] for answer in answers for kind in kinds)
    return answers[0]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, uneven):
    """What two processes deliver, by what they go through."""
    folder = tmp_path_factory.mktemp("two")
    with hf.DataLoader(hf.EventDataset(uneven, cache=str(folder / "cache")), 8) as loader:
        list(loader)
    return train_together(folder, 2, uneven, "own", "sampler", "other sampler", "cache")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_epochs(dataset, epochs, repeated):
    """Every event comes in every epoch, on as many batches of each rank, in the order of the epoch's number."""
    for ranks in epochs:
        assert len({len(batches) for batches in ranks}) == 1
        events = [tuple(event) for batches in ranks for batch in batches for event in batch]
        assert set(events) == all_events(dataset)
        assert len(events) - len(set(events)) == repeated
    assert epochs[0] == epochs[1]
    assert epochs[1] != epochs[2] != epochs[3] != epochs[1]


def check_own(dataset, world_size, answer):
    epochs, state, error = answer
    check_epochs(dataset, epochs, 0)
    assert (state["partitions"], state["batch"], state["epoch"]) == (world_size, world_size, 3)
    assert f"the epoch began as rank 0 of {world_size}, but this is now rank 0 of 1" in error


def test_two_processes_of_a_group_share_the_events(dataset, of_two):
    check_own(dataset, 2, of_two["own"])


def test_three_processes_of_a_group_share_the_events(tmp_path, dataset, uneven):
    check_own(dataset, 3, train_together(tmp_path, 3, uneven, "own")["own"])


def test_a_distributed_sampler_divides_the_events_by_chunks(dataset, of_two):
    epochs, _, _ = of_two["sampler"]
    check_epochs(dataset, epochs, 0)
    owners = [{(file, row // 16) for batch in batches for file, row in batch} for batches in epochs[0]]
    assert len(owners[0] & owners[1]) <= 2  # those of the last step


def test_another_sampler_is_followed_index_by_index(dataset, of_two):
    epochs, _, _ = of_two["other sampler"]
    check_epochs(dataset, epochs, 0)
    sampler = torch.utils.data.distributed.DistributedSampler(dataset, 2, 0, seed=5)
    index = dataset.index
    expected = [[int(index.file_of(np.array([i]))[0]), int(index.rows[i])] for i in sampler]
    assert [event for batch in epochs[0][0] for event in batch] == expected


def test_epochs_from_the_cache_are_divided_in_one_order(dataset, of_two):
    epochs, orders, _ = of_two["cache"]
    check_epochs(dataset, epochs, 0)
    assert orders == ["window", "window", "full", "full"]
