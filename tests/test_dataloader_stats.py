"""Statistics of loaders over any dataset: what was delivered, by whom, and where the time went."""

import json
import pickle
import time

import pytest
import torch
from events import Layout, write_classes
from torch.utils.data import IterableDataset, TensorDataset, get_worker_info

import hepfeed as hf
from hepfeed.errors import SpecError
from hepfeed.stats import FeedStats

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

UNKNOWN = ("read", "inflate", "scatter", "skipped", "removed", "bytes_read", "bytes_inflated", "chunks")


class Slow:
    """Takes its time for each example."""

    def __len__(self):
        return 10

    def __getitem__(self, place):
        time.sleep(0.01)
        return torch.full((3,), float(place))


class Columns:
    """Gives whole batches, as columns."""

    def __len__(self):
        return 10

    def __getitems__(self, places):
        return {"place": places, "half": [place / 2 for place in places], "three": [3] * len(places)}


class Slices:
    """Is asked for slices, which have no length."""

    def __getitem__(self, some):
        return list(range(10))[some]

    def __getitems__(self, some):
        return self[some]


class Stream(IterableDataset):
    """Seven examples, shared by the workers."""

    def __iter__(self):
        worker = get_worker_info()
        return iter(range(7) if worker is None else range(worker.id, 7, worker.num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_examples_and_batches_of_all_epochs_are_counted(num_workers):
    loader = hf.DataLoader(TensorDataset(torch.arange(10)), batch_size=4, num_workers=num_workers)
    assert loader.stats()["batches"] == 0
    for epoch in (1, 2):
        list(loader)
        stats = loader.stats()
        assert (stats["events"], stats["batches"], stats["readers"]) == (10 * epoch, 3 * epoch, num_workers)
    assert [stats[name] for name in UNKNOWN] == [0] * len(UNKNOWN)
    assert stats["restarts"] == 0
    assert stats["events_per_s"] == 20 / stats["seconds"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_time_of_a_slow_dataset_is_named(num_workers):
    loader = hf.DataLoader(Slow(), batch_size=5, num_workers=num_workers)
    list(loader)
    stats = loader.stats()
    assert 0.1 <= stats["transform"] <= stats["seconds"]
    assert stats["bottleneck"] == "transform"
    assert 0 < stats["busy"] <= 1
    assert (stats["wait"] > 0) == (num_workers > 0)
    assert "dataset" in str(stats)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("dataset", "options", "events", "batches"),
    [
        (Stream(), {"batch_size": 3}, 7, (3, 3)),  # two workers have 4 and 3
        (Stream(), {"batch_size": 3, "drop_last": True}, 6, (2, 2)),
        (Stream(), {"batch_size": None}, 7, (7, 7)),
        (TensorDataset(torch.arange(10)), {"batch_size": None}, 10, (10, 10)),
        (Columns(), {"batch_size": 4, "collate_fn": dict}, 10, (3, 3)),
        (Slices(), {"batch_sampler": [slice(0, 4), slice(4, 10)], "collate_fn": tuple}, 10, (2, 2)),
        (TensorDataset(torch.arange(10)), {"batch_sampler": [[1], [2, 3, 4]]}, 4, (2, 2)),
    ],
    ids=["iterable", "drop_last", "single iterable", "single", "columns", "slices", "batch_sampler"],
)
def test_examples_are_counted_wherever_they_come_from(num_workers, dataset, options, events, batches):
    loader = hf.DataLoader(dataset, num_workers=num_workers, **options)
    assert len(list(loader)) == batches[num_workers > 0]
    stats = loader.stats()
    assert (stats["events"], stats["batches"]) == (events, batches[num_workers > 0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loop_that_is_left_counts_what_it_got(num_workers):
    loader = hf.DataLoader(TensorDataset(torch.arange(10)), batch_size=4, num_workers=num_workers)
    iterator = iter(loader)
    next(iterator)
    assert (loader.stats()["events"], loader.stats()["batches"]) == (4, 1)
    del iterator


# ---- over events

LARGE = (100, 100)  # pixels of an image, half of them noise: inflating it takes longer than all else


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Events that are compressed one by one."""
    folder = tmp_path_factory.mktemp("large")
    layout = Layout(dataset={"chunks": (1, *LARGE), "compression": "gzip"})
    return write_classes(folder, {"a": [40], "b": [40]}, layout=layout, shape=LARGE)


@pytest.fixture
def small(tmp_path):
    """Events that cost next to nothing."""
    return hf.EventDataset(write_classes(tmp_path, {"a": [60], "b": [60]}))


def slow():
    """Return a function for readers that is pickled with what it consists of, so that they need not import torch."""

    def pause(batch):
        import time

        time.sleep(0.01)
        return batch

    return pause


def lately(loader, batches=20, work_s=0.0):
    """Return the statistics of some batches once all readers have begun."""
    iterator = iter(loader)
    next(iterator)
    before = loader.stats()
    while len(before["by_reader"]) < before["readers"] or not all(map(sum, before["by_reader"])):
        next(iterator)
        before = loader.stats()
    for _ in range(batches):
        next(iterator)
        time.sleep(work_s)
    return loader.stats().since(before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_slow_function_makes_the_transform_the_bottleneck(small, num_workers):
    with hf.DataLoader(small, 8, num_workers=num_workers, process_fn=slow(), infinite=True) as loader:
        stats = lately(loader)
    assert stats["bottleneck"] == "transform"
    assert stats["batches"] == 20
    assert len(stats["by_reader"]) == max(1, num_workers)
    assert sum(stats["by_reader"][0]) > 0
    assert stats["transform"] >= 0.01 * 15
    assert stats["busy_by_stage"]["transform"] > 0.9 * stats["busy"] > 0.3
    assert stats["transform"] > stats["transfer"]  # what is done here is not counted twice
    whose = f"of {num_workers} readers" if num_workers else "this process, which reads itself,"
    assert stats["advice"].startswith("transform-bound: ")
    assert whose in stats["advice"]
    readers_s = num_workers * stats["seconds"]
    assert stats["waiting"] == pytest.approx(max(0.0, readers_s - sum(map(sum, stats["by_reader"]))))


def test_a_slow_loop_is_its_own_limit(small):
    with hf.DataLoader(small, 8, num_workers=1, infinite=True) as loader:
        stats = lately(loader, work_s=0.02)
    assert stats["bottleneck"] == "consumer"
    assert stats["wait_fraction"] < 0.05
    assert stats["queues"]["ready"] > 0
    assert stats["waiting"] > 0.5 * stats["seconds"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_compressed_set_is_bound_by_inflating(large, num_workers):
    with hf.DataLoader(hf.EventDataset(large), 8, num_workers=num_workers, infinite=True) as loader:
        stats = lately(loader, 10)
    assert stats["bottleneck"] == "inflate"
    assert "build a cache (cache='auto')" in stats["advice"]
    assert stats["mb_inflated_per_s"] == pytest.approx(stats["bytes_inflated"] / stats["seconds"] / 1e6)
    assert stats["mb_inflated_per_s"] > stats["mb_read_per_s"] > 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_cache_has_is_counted(large, tmp_path, num_workers):
    dataset = hf.EventDataset(large, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=0) as loader:
        assert (loader.stats()["cache_hits"], loader.stats()["cache_misses"]) == (0, 0)
        list(loader)
        first = loader.stats()
        assert (first["cache_hits"], first["cache_misses"], first["setting"]["cache"]) == (0, 80, "filling")
        list(loader)
        second = loader.stats().since(first)
        assert (second["cache_hits"], second["cache_misses"], second["setting"]["cache"]) == (80, 0, "on")
        assert second["bytes_read"] > 0
        assert second["bytes_inflated"] == 0


def test_without_a_cache_nothing_hits_or_misses(small):
    with hf.DataLoader(small, 16) as loader:
        list(loader)
        stats = loader.stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["setting"]["cache"]) == (0, 0, "off")


def test_a_cache_that_would_save_no_work_is_not_advised(tmp_path):
    spec = write_classes(tmp_path, {"a": [60]})
    with hf.DataLoader(hf.EventDataset(spec, cache="auto"), 8) as loader:
        list(loader)
        stats = loader.stats()
    assert stats["setting"]["cache"] == "needless"
    assert "cache" not in stats["advice"]


def test_readers_that_are_threads_are_counted_one_by_one(large):
    with hf.DataLoader(hf.EventDataset(large), 8, num_workers=2, worker_method="thread") as loader:
        list(loader)
        stats = loader.stats()
    assert [sum(row) > 0 for row in stats["by_reader"]] == [True, True]
    for place, stage in enumerate(("read", "inflate", "scatter", "transform")):
        assert sum(row[place] for row in stats["by_reader"]) == pytest.approx(stats[stage])


def test_queues_tell_where_batches_are(small):
    with hf.DataLoader(small, 8, num_workers=2, process_fn=slow(), prefetch_factor=2) as loader:
        assert set(loader.stats()["queues"].values()) == {0}
        for _ in loader:
            queues = loader.stats()["queues"]
            on_their_way = queues["planned"] + queues["in_hand"] + queues["ready"]
            assert on_their_way <= 15
            assert on_their_way + 1 <= queues["slots"] - queues["slots_free"]
            assert queues["slots_free"] >= 0
        assert set(loader.stats()["queues"].values()) == {0}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_queues_of_any_dataset_tell_where_batches_are(num_workers):
    loader = hf.DataLoader(Slow(), batch_size=2, num_workers=num_workers)
    found = []
    for _ in loader:
        queues = loader.stats()["queues"]
        found.append(queues["planned"] + queues["in_hand"] + queues["ready"])
    assert found == ([4, 3, 2, 1, 0] if num_workers else [0] * 5)
    assert set(loader.stats()["queues"].values()) == {0}


class SlowFirst:
    """Takes its time for the first example only."""

    def __len__(self):
        return 12

    def __getitem__(self, place):
        time.sleep(0.3 * (place == 0))
        return place


def test_readers_that_have_no_room_are_named():
    options = {"num_workers": 2, "prefetch_factor": 1, "persistent_workers": True}
    with hf.DataLoader(SlowFirst(), batch_size=2, **options) as loader:
        list(loader)
        before = loader.stats()
        list(loader)
        stats = loader.stats().since(before)
    assert 0.2 < stats["no_room"] <= stats["wait"]
    assert (stats["bottleneck"], stats["starting"]) == ("ring", 0)
    assert "prefetch_factor=2" in stats["advice"]


def test_the_wait_for_readers_that_start_is_named(small):
    with hf.DataLoader(small, 120, num_workers=1) as loader:
        list(loader)
        stats = loader.stats()
    assert stats["bottleneck"] == "start"
    assert stats["wait"] / 2 < stats["starting"] <= stats["wait"]
    assert "persistent_workers=True" in stats["advice"]


def test_memory_for_slots_is_a_wait_at_the_start(small):
    with hf.DataLoader(small, 8) as loader:
        assert loader.stats()["starting"] == 0
        list(loader)
        stats = loader.stats()
    assert 0 < stats["starting"] == stats["wait"] < stats["seconds"]


@pytest.mark.parametrize("events", [True, False])
def test_what_passes_between_two_loops_is_not_counted(small, events):
    with hf.DataLoader(small if events else Slow(), 4, num_workers=1, persistent_workers=True) as loader:
        begun = time.perf_counter()
        for _ in range(2):
            next(iter(loader))
            time.sleep(0.1)
        assert loader.stats()["seconds"] < time.perf_counter() - begun - 0.19


def test_statistics_are_what_json_can_hold(small):
    with hf.DataLoader(small, 8, num_workers=1) as loader:
        list(loader)
        stats = loader.stats()
    again = FeedStats(json.loads(json.dumps(stats)))
    assert again == stats
    assert str(again) == str(stats)
    assert again.since(again)["bottleneck"] == "none"


def test_only_an_earlier_report_can_be_taken_away(small):
    with hf.DataLoader(small, 8) as loader:
        before = loader.stats()
        list(loader)
        after = loader.stats()
    assert after.since(before)["events"] == 120
    with pytest.raises(SpecError, match=r"earlier report .* events"):
        before.since(after)


def test_statistics_print_as_a_table(small):
    from rich.console import Console

    with hf.DataLoader(small, 8, num_workers=2, process_fn=slow()) as loader:
        list(loader)
        stats = loader.stats()
    console = Console(width=200)
    with console.capture() as captured:
        console.print(stats)
    shown = captured.get()
    for said in ("120 events in 15 batches", "transform", "2 readers", "this process", stats["advice"]):
        assert said in shown


def test_a_loader_that_was_counted_pickles(small):
    with hf.DataLoader(small, 8) as loader:
        next(iter(loader))
        again = pickle.loads(pickle.dumps(loader))
    with again:
        assert len(list(again)) == 15
