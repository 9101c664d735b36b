"""The loader: every event exactly once and bit for bit, in the same order however many readers there are."""

import contextlib
import itertools
import random
from functools import partial

import numpy as np
import pytest
import torch
from events import (
    KEYS,
    LAYOUTS,
    SHAPE,
    all_events,
    bits,
    events_of,
    images,
    same_bits,
    stored,
    write_classes,
    write_file,
)

import hepfeed as hf
from hepfeed.errors import FeedTimeoutError, KeyMissingError, ProcessError, SpecError
from hepfeed.pool import ReaderPool

# Torch says so of num_workers; this package's readers are few because the tests' machine is small, not by mistake.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

CLASSES = {"electron": [60, 45], "pion": [83]}
SHUFFLES = [True, "full", "window", "mixed", False]


@pytest.fixture
def spec(tmp_path):
    return write_classes(tmp_path, CLASSES, layout="all_filters")


@pytest.fixture
def dataset(spec):
    return hf.EventDataset(spec)


def assert_as_h5py_reads(dataset, batches):
    for key in KEYS:
        delivered = torch.cat([batch[key] for batch in batches])
        assert same_bits(delivered, stored(dataset, events_of(batches), key)), key


# ---- which events, and their values


def combinations():
    """Every layout with every shuffle mode; the rest takes turns, of lengths without a common factor."""
    turns = zip(
        *map(itertools.cycle, ([0, 2, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0], [16, 1, 64], [False, True])), strict=True
    )
    return [(*pair, *turn) for pair, turn in zip(itertools.product(LAYOUTS, SHUFFLES), turns, strict=False)]


@pytest.mark.parametrize(("layout", "shuffle", "num_workers", "batch_size", "drop_last"), combinations())
def test_every_event_comes_exactly_once_as_h5py_reads_it(tmp_path, layout, shuffle, num_workers, batch_size, drop_last):
    dataset = hf.EventDataset(write_classes(tmp_path, CLASSES, layout=layout))
    loader = hf.DataLoader(dataset, batch_size, shuffle, num_workers=num_workers, drop_last=drop_last, seed=3)
    batches = list(loader)
    expected = 188 - 188 % batch_size if drop_last else 188
    events = events_of(batches)
    assert len(events) == len(set(events)) == expected
    assert set(events) <= all_events(dataset)
    assert len(batches) == len(loader) == -(-expected // batch_size)
    assert {len(batch["label"]) for batch in batches[:-1]} <= {batch_size}
    assert_as_h5py_reads(dataset, batches)
    loader.close()


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("layout", ["contiguous", "edge_chunks", "blosc"])
def test_order_and_bits_are_the_same_for_every_number_of_workers(tmp_path, layout, num_workers):
    dataset = hf.EventDataset(write_classes(tmp_path, CLASSES, layout=layout))

    def epochs(shuffle, **options):
        with hf.DataLoader(dataset, 16, shuffle, seed=5, window_events=40, **options) as loader:
            return bits(list(loader)) + bits(list(loader))

    with contextlib.closing(ReaderPool(num_workers)) as pool:
        for shuffle in SHUFFLES:
            assert epochs(shuffle, num_workers=num_workers, pool=pool) == epochs(shuffle), shuffle


def test_labels_belong_to_the_events(dataset):
    assert dataset.classes == {"electron": 0, "pion": 1}
    with hf.DataLoader(dataset, 32, True, seed=0) as loader:
        for batch in loader:
            assert batch["label"].dtype == torch.int64
            assert torch.equal(batch["label"], batch["id"][:, 0].long())
            assert torch.equal(batch["event"][:, 1], batch["id"][:, 2].long())


def test_unshuffled_events_come_in_the_order_of_the_files(dataset):
    with hf.DataLoader(dataset, 50) as loader:
        events = events_of(loader)
    assert events == [(file, row) for file, n in enumerate([60, 45, 83]) for row in range(n)]


def test_kept_batches_never_change(dataset):
    with hf.DataLoader(dataset, 4, True, num_workers=2, seed=1) as loader:
        kept, copies = [], []
        for batch in loader:
            kept.append(batch)
            copies.append(bits([batch])[0])
        assert len(kept) == 47
        assert bits(kept) == copies
    assert bits(kept) == copies  # nor when the loader is closed


def test_a_tensor_outlives_its_batch_loader_and_readers(dataset):
    loader = hf.DataLoader(dataset, 8, num_workers=1)
    image = next(iter(loader))["image"][2]
    loader.close()
    del loader
    assert same_bits(image, images(0, 0, 60)[2])


def test_dtypes_of_the_specification_are_delivered(tmp_path):
    samples = write_classes(tmp_path, {"electron": [30]}, layout="half")
    dataset = hf.EventDataset(hf.SampleSpec(samples, dtypes={"image": "float32", "energy": "float32"}))
    (batch,) = hf.DataLoader(dataset, 30)
    assert same_bits(batch["image"], images(0, 0, 30, dtype="<f2").astype(np.float32))
    assert same_bits(batch["energy"], np.arange(30, dtype=np.float32))


def test_a_scalar_key_and_a_key_with_an_empty_axis_are_delivered(tmp_path):
    extra = {"none": np.empty((9, 0, 3), np.float32), "flag": np.arange(9) % 2 == 0}
    write_file(tmp_path / "a.h5", 9, extra=extra)
    dataset = hf.EventDataset([[str(tmp_path / "a.h5"), ["energy", "none", "flag"], "a"]])
    (batch,) = hf.DataLoader(dataset, 9)
    assert batch["energy"].shape == (9,)
    assert batch["none"].shape == (9, 0, 3)
    assert batch["flag"].dtype == torch.bool
    assert batch["flag"].tolist() == [True, False] * 4 + [True]


def test_rates_set_the_composition_of_each_batch(tmp_path):
    rates = {"electron": 3.0, "pion": 1.0}
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [75], "pion": [25]}, rates=rates))
    with hf.DataLoader(dataset, 20, True, seed=0) as loader:
        assert [batch["label"].tolist().count(0) for batch in loader] == [15] * 5


# ---- seeds


def first_events(dataset, **options):
    with hf.DataLoader(dataset, 188, True, **options) as loader:
        return [events_of([batch]) for batch in (*loader, *loader)]


def test_each_epoch_has_its_own_order_and_the_same_seed_repeats_them(dataset):
    first, second = first_events(dataset, seed=1)
    assert first != second
    assert sorted(first) == sorted(second)
    assert first_events(dataset, seed=1) == [first, second]
    assert first_events(dataset, seed=2)[0] != first


def test_without_a_seed_torch_decides(dataset):
    torch.manual_seed(7)
    first = first_events(dataset)
    torch.manual_seed(7)
    assert first_events(dataset) == first
    assert first_events(dataset) != first


def test_a_generator_decides_and_is_moved_on(dataset):
    made = [first_events(dataset, generator=torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)]
    assert made[0] == made[1] != made[2]
    shared = torch.Generator().manual_seed(4)
    assert first_events(dataset, generator=shared) == made[0]
    assert first_events(dataset, generator=shared) != made[0]


def test_set_epoch_chooses_the_order(dataset):
    with hf.DataLoader(dataset, 64, True, seed=1) as loader:
        epochs = [events_of(loader) for _ in range(3)]
        loader.set_epoch(1)
        assert loader.epoch == 1
        assert events_of(loader) == epochs[1]
        assert loader.epoch == 2


def test_random_numbers_of_functions_depend_on_seed_epoch_and_batch_alone(dataset):
    def noisy(batch):
        return {"noise": np.random.normal(size=len(batch["label"])), "coin": [random.random()]}  # noqa: NPY002

    def epochs(num_workers, seed):
        with hf.DataLoader(dataset, 32, True, num_workers=num_workers, seed=seed, process_fn=noisy) as loader:
            return bits(loader) + bits(loader)

    here = epochs(0, 1)
    assert epochs(2, 1) == here
    assert epochs(0, 2) != here
    assert len({batch["noise"][2] for batch in here}) == 12  # six batches of two epochs


def test_functions_leave_the_random_numbers_of_the_process_alone(dataset):
    def noisy(batch):
        return {"noise": np.random.normal(size=3)}  # noqa: NPY002

    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    next(iter(hf.DataLoader(dataset, 8, process_fn=noisy)))
    assert np.random.random() == expected  # noqa: NPY002


# ---- functions


@pytest.mark.parametrize("num_workers", [0, 2])
def test_process_fn_may_change_number_shapes_and_dtypes_of_tensors(dataset, num_workers):
    def change(batch):
        hits = np.argwhere(batch["image"] > 0)
        return {
            "sum": batch["image"].sum((1, 2), dtype=np.float64),
            "hits": hits.astype(np.int16),
            "swapped": batch["image"].swapaxes(1, 2),
            "big": batch["energy"].astype(">f8"),
            "empty": np.empty((0, 3), np.uint8),
            "note": "as it is",
            "event": batch["event"],
        }

    with hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=2, process_fn=change) as loader:
        batches = list(loader)
    assert set(events_of(batches)) == all_events(dataset)
    assert len({len(batch["hits"]) for batch in batches}) > 1
    for batch in batches:
        image = stored(dataset, batch["event"], "image")
        assert same_bits(batch["sum"], image.sum((1, 2), dtype=np.float64))
        assert same_bits(batch["hits"], np.argwhere(image > 0).astype(np.int16))
        assert same_bits(batch["swapped"], image.swapaxes(1, 2))
        assert same_bits(batch["big"], stored(dataset, batch["event"], "energy"))
        assert batch["empty"].shape == (0, 3)
        assert batch["note"] == "as it is"
        assert "image" not in batch


def test_transforms_of_the_dataset_come_before_process_fn(spec):
    def double(batch):
        return {**batch, "energy": batch["energy"] * 2}

    def add(batch):
        batch["energy"] += 1
        return batch

    dataset = hf.EventDataset(spec, transform=[double, add])
    with hf.DataLoader(dataset, 10, process_fn=double) as loader:
        first = next(iter(loader))["energy"]
    assert first.tolist() == [2.0 * (2 * row + 1) for row in range(10)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_failing_process_fn_names_file_and_event_and_has_its_traceback(dataset, num_workers):
    def picky(batch):
        wrong = np.flatnonzero(batch["energy"] == 1017.0)
        if len(wrong):
            raise ValueError("an energy that is unheard of")
        return batch

    with (
        hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=1, process_fn=picky) as loader,
        pytest.raises(ProcessError, match="an energy that is unheard of") as caught,
    ):
        list(loader)
    assert caught.value.file == dataset.files[1]
    assert caught.value.event == 17
    assert "in picky" in str(caught.value)
    assert "Traceback" in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_failing_process_fn_costs_only_its_events_where_errors_are_skipped(spec, num_workers, caplog):
    def picky(batch):
        batch["image"] += 1
        if (batch["energy"] % 10 == 7).any():
            raise ValueError("seven")
        return batch

    dataset = hf.EventDataset(spec, on_error="skip")
    with hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=1, process_fn=picky) as loader:
        batches = list(loader)
        skipped = loader.stats()["skipped"]
    expected = {(file, row) for file, row in all_events(dataset) if row % 10 != 7}
    assert skipped == 188 - len(expected) == 18
    assert set(events_of(batches)) == expected
    for batch in batches:
        assert same_bits(batch["image"], stored(dataset, batch["event"], "image") + 1)
    assert len([record for record in caplog.records if "seven" in record.getMessage()]) == 18


def test_a_process_fn_must_return_a_dict(dataset):
    def no_dict(batch):
        return batch["image"]

    with pytest.raises(ProcessError, match=r"no_dict must return a dict of arrays, not ndarray"):
        next(iter(hf.DataLoader(dataset, 4, process_fn=no_dict)))


def test_delivery_fn_makes_the_batch_in_the_consumer(dataset):
    seen = []

    def deliver(batch):
        seen.append(batch)
        return batch["image"], batch["label"]

    with hf.DataLoader(dataset, 100, num_workers=1, delivery_fn=deliver) as loader:
        image, label = next(iter(loader))
    assert image.shape == (100, *SHAPE)
    assert label is seen[0]["label"]


def test_a_failing_delivery_fn_names_batch_and_event(dataset):
    def deliver(batch):
        raise RuntimeError("no such head")

    with pytest.raises(ProcessError, match=r"no such head on batch 0, whose first event is event 0 of") as caught:
        next(iter(hf.DataLoader(dataset, 4, delivery_fn=deliver)))
    assert caught.value.file == dataset.files[0]


def test_outputs_arrange_the_batch(dataset):
    outputs = (["image", "energy"], {"class": "onehot", "where": "event"})
    with hf.DataLoader(dataset, 188, outputs=outputs) as loader:
        (((image, energy), targets),) = loader
    assert image.shape == (188, *SHAPE)
    assert energy.shape == (188,)
    assert targets["class"].dtype == torch.float32
    assert targets["class"].sum(0).tolist() == [105.0, 83.0]
    assert targets["where"].shape == (188, 2)


def test_outputs_name_the_nearest_key_when_one_is_missing(dataset):
    loader = hf.DataLoader(dataset, 4, outputs=["imagee"])
    with pytest.raises(KeyMissingError, match=r"outputs names 'imagee'.*did you mean 'image'"):
        next(iter(loader))


@pytest.mark.parametrize("outputs", [[], {"x": []}, 3, ["image", 4]])
def test_outputs_must_be_a_structure_of_names(dataset, outputs):
    with pytest.raises(SpecError, match="outputs must be names in tuples, lists or dicts"):
        hf.DataLoader(dataset, 4, outputs=outputs)


# ---- epochs


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("taken", [0, 1, 5, 11, 12])
def test_the_state_in_the_middle_of_an_epoch_resumes_it_bit_for_bit(dataset, shuffle, taken):
    options = {"batch_size": 16, "shuffle": shuffle, "seed": 9, "window_events": 48}
    with hf.DataLoader(dataset, **options) as loader:
        list(loader)
        iterator = iter(loader)
        for _ in range(taken):
            next(iterator)
        state = loader.state_dict()
        rest = bits(iterator) + bits(loader)
    with hf.DataLoader(dataset, **options) as resumed:
        resumed.load_state_dict(state)
        assert bits(resumed) + bits(resumed) == rest


def test_a_state_is_small_and_travels_as_json(dataset):
    import json

    with hf.DataLoader(dataset, 16, True, num_workers=2) as loader:
        iterator = iter(loader)
        next(iterator)
        state = json.loads(json.dumps(loader.state_dict()))
        rest = bits(iterator)
    with hf.DataLoader(dataset, 16, True, num_workers=1) as resumed:
        resumed.load_state_dict(state)
        assert bits(resumed) == rest


def test_the_state_after_a_loop_was_left_is_that_of_its_last_batch(dataset):
    with hf.DataLoader(dataset, 16, True, seed=1) as loader:
        epoch = bits(loader)
        loader.set_epoch(0)
        for taken, _ in enumerate(loader, 1):
            if taken == 4:
                break
        state = loader.state_dict()
    with hf.DataLoader(dataset, 16, True, seed=1) as resumed:
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert bits(resumed) == epoch[4:]


def test_a_state_of_another_order_is_refused(dataset):
    state = hf.DataLoader(dataset, 16, True, seed=1).state_dict()
    with pytest.raises(SpecError, match="the state is of another order of events"):
        hf.DataLoader(dataset, 17, True, seed=1).load_state_dict(state)
    state.pop("order")
    with pytest.raises(SpecError, match=r"not the state of a hepfeed loader: \['order'\] is wrong"):
        hf.DataLoader(dataset, 16, True).load_state_dict(state)


def test_an_infinite_loader_goes_on_with_the_next_epoch(dataset):
    options = {"batch_size": 100, "shuffle": True, "seed": 1}
    with hf.DataLoader(dataset, **options) as loader:
        three = bits(loader) + bits(loader) + bits(loader)
    with hf.DataLoader(dataset, **options, infinite=True, num_workers=1) as endless:
        assert bits(itertools.islice(endless, 6)) == three
        with pytest.raises(TypeError, match="an infinite loader has no length"):
            len(endless)


def test_the_state_of_an_infinite_loader_resumes_in_its_epoch(dataset):
    options = {"batch_size": 100, "shuffle": True, "seed": 1, "infinite": True}
    with hf.DataLoader(dataset, **options) as loader:
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        state = loader.state_dict()
        following = bits(itertools.islice(iterator, 3))
    assert (state["epoch"], state["batch"]) == (1, 1)
    with hf.DataLoader(dataset, **options) as resumed:
        resumed.load_state_dict(state)
        assert bits(itertools.islice(resumed, 3)) == following


def test_skip_and_max_events_bound_an_epoch(dataset):
    with hf.DataLoader(dataset, 10, skip=30, max_events=25) as loader:
        assert len(loader) == 3
        assert events_of(loader) == [(0, row) for row in range(30, 55)]


def test_replayed_specifications_give_the_same_batches(dataset, tmp_path):
    path = tmp_path / "batches.jsonl"
    with hf.DataLoader(dataset, 16, True, seed=1) as loader:
        hf.BatchSpec.dump(path, loader.filler.batches(0))
        epoch = bits(loader)
        assert bits(loader.replay(hf.BatchSpec.load(path))) == epoch
        assert loader.epoch == 1


def test_two_iterators_of_a_loader_do_not_disturb_each_other(dataset):
    with hf.DataLoader(dataset, 16, True, num_workers=2, persistent_workers=True, seed=1) as loader:
        pairs = list(zip(loader, loader, strict=True))
        loader.set_epoch(0)
        assert bits(first for first, _ in pairs) == bits(loader)
        assert bits(second for _, second in pairs) == bits(loader)


# ---- readers


def test_persistent_workers_stay_and_others_do_not(dataset):
    def where(batch):
        import os

        return {"pid": np.array([os.getpid()])}

    def pids(**options):
        with hf.DataLoader(dataset, 8, num_workers=2, process_fn=where, **options) as loader:
            return [{int(batch["pid"]) for batch in loader} for _ in range(2)]

    first, second = pids(persistent_workers=True)
    assert len(first | second) <= 2
    first, second = pids()
    assert not first & second


def test_a_reader_imports_no_torch(dataset):
    def modules(batch):
        import sys

        return {"torch": np.array(["torch" in sys.modules])}

    with hf.DataLoader(dataset, 188, num_workers=1, process_fn=modules) as loader:
        assert [bool(batch["torch"]) for batch in loader] == [False]


def test_a_hanging_function_ends_in_a_time_out(dataset):
    def hang(batch):
        import time

        time.sleep(600)

    with (
        hf.DataLoader(dataset, 8, num_workers=1, process_fn=hang, timeout=0.5) as loader,
        pytest.raises(FeedTimeoutError, match=r"timed out after 0\.5 seconds"),
    ):
        next(iter(loader))


def test_stats_count_what_was_delivered(dataset):
    with hf.DataLoader(dataset, 16, True, num_workers=1, seed=1) as loader:
        assert len(list(loader)) == 12
        stats = loader.stats()
    assert (stats["events"], stats["batches"], stats["readers"]) == (188, 12, 1)
    assert stats["skipped"] == stats["restarts"] == 0
    assert stats["chunks"] == 4 + 3 + 6  # each of 16 events, decoded once
    assert stats["bytes_inflated"] == 13 * 16 * 20 * 4
    assert stats["bottleneck"] in ("read", "inflate", "scatter", "transform", "transfer", "consumer", "start")


def test_a_loader_may_be_left_and_taken_up_again(dataset):
    with hf.DataLoader(dataset, 8, True, num_workers=2, persistent_workers=True, seed=1) as loader:
        for _ in range(3):
            for batch in loader:
                assert len(batch["label"]) == 8
                break
        loader.set_epoch(0)
        assert set(events_of(loader)) == all_events(dataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_worker_init_fn_that_is_assigned_is_taken_when_an_epoch_begins(dataset, tmp_path, num_workers):
    def leave(number, name):
        (tmp_path / f"{name}_{number}").touch()

    def left():
        return {path.name for path in tmp_path.glob("*_?")}

    with hf.DataLoader(dataset, 8, num_workers=num_workers, worker_init_fn=partial(leave, name="given")) as loader:
        loader.worker_init_fn = partial(leave, name="assigned")
        list(loader)
        assert left() == {f"assigned_{number}" for number in range(num_workers)}
        loader.worker_init_fn = None
        list(loader)
        loader.worker_init_fn = partial(leave, name="again")
        assert left() == {f"assigned_{number}" for number in range(num_workers)}
        list(loader)
        assert left() == {f"{name}_{number}" for number in range(num_workers) for name in ("assigned", "again")}


def test_readers_that_are_kept_call_a_function_once_and_another_one_too(dataset, tmp_path):
    def count(number, name):
        with open(tmp_path / name, "a") as file:
            file.write("x")

    with hf.DataLoader(dataset, 64, num_workers=1, persistent_workers=True) as loader:
        for name in ("first", "second"):
            loader.worker_init_fn = partial(count, name=name)
            for _ in range(3):
                list(loader)
                assert (tmp_path / name).read_text() == "x"


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": "mixt"}, "shuffle='mixt' is none of True, False, 'full', 'window', 'mixed'"),
        ({"skip": -1}, "skip must be an integer of at least 0, not -1"),
        ({"max_events": 0}, "max_events must be an integer of at least 1, not 0"),
        ({"window_events": 0}, "window_events must be an integer of at least 1, not 0"),
        ({"composition": "exakt"}, "composition='exakt' is unknown: did you mean 'exact'?"),
        ({"exhausted": "wrapp", "shuffle": True}, "exhausted='wrapp' is unknown: did you mean 'wrap'?"),
        ({"exhausted": "stop"}, "exhausted='stop' needs lanes that are mixed by rates"),
        ({"outputs": ["image"], "delivery_fn": len}, "give outputs or delivery_fn, not both"),
    ],
)
def test_a_wrong_option_is_an_error_at_once(dataset, options, message):
    with pytest.raises(SpecError) as caught:
        hf.DataLoader(dataset, 4, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"prefetch_factor": 2}, {"timeout": -1}])
def test_what_torch_refuses_is_refused(dataset, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        hf.DataLoader(dataset, **options)


# ---- other datasets and functions


def test_another_dataset_is_served_as_torch_does():
    values = torch.arange(10.0)
    loader = hf.DataLoader(torch.utils.data.TensorDataset(values), batch_size=4)
    assert torch.equal(torch.cat([batch for (batch,) in loader]), values)
    assert len(loader) == 3
    with pytest.raises(SpecError, match=r"replay\(\) needs an EventDataset"):
        next(loader.replay([]))


def test_a_sampler_a_batch_sampler_and_collate_fn_are_obeyed(dataset):
    (batch,) = hf.DataLoader(dataset, 3, sampler=[7, 0, 70])
    assert batch["event"].tolist() == [[0, 7], [0, 0], [1, 10]]
    assert same_bits(batch["image"], stored(dataset, batch["event"], "image"))
    batches = list(hf.DataLoader(dataset, batch_sampler=[[1, 2], [3]]))
    assert [batch["event"].tolist() for batch in batches] == [[[0, 1], [0, 2]], [[0, 3]]]
    assert list(hf.DataLoader(dataset, 94, collate_fn=len)) == [94, 94]
    assert next(iter(hf.DataLoader(dataset, batch_size=None)))["image"].shape == SHAPE


def test_options_of_the_feed_are_refused_where_it_does_not_run(dataset):
    with pytest.raises(SpecError, match=r"seed, skip can't be used with collate_fn: only the feed of an Event"):
        hf.DataLoader(dataset, 4, collate_fn=len, seed=1, skip=3)
    with pytest.raises(SpecError, match=r"process_fn can't be used with a list"):
        hf.DataLoader([1, 2], process_fn=len)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_torch_reads_the_dataset_in_its_own_workers(dataset):
    loader = torch.utils.data.DataLoader(dataset, 64, num_workers=1, multiprocessing_context="fork")
    batches = list(loader)
    assert events_of(batches) == [(file, row) for file, n in enumerate([60, 45, 83]) for row in range(n)]
    assert_as_h5py_reads(dataset, batches)
