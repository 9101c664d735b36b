"""Loops as users write them, over the feed and over a general dataset in hepfeed's loader."""

import itertools

import pytest
import torch
from events import all_events, bits, events_of, write_classes
from torch.utils.data import TensorDataset

import hepfeed as hf


@pytest.fixture
def dataset(tmp_path):
    spec = write_classes(tmp_path / "data", {"electron": [31, 20], "pion": [40]}, layout="hundred_event_chunks")
    return hf.EventDataset(spec)


@pytest.fixture(params=["feed without readers", "feed", "persistent feed", "general", "general with readers"])
def loader(request, dataset):
    """A loader of 91 events in 12 batches of ``{"number": ...}``, in their order."""
    numbers = TensorDataset(torch.arange(91))
    made = {
        "feed without readers": lambda: hf.DataLoader(dataset, 8, delivery_fn=numbered(dataset)),
        "feed": lambda: hf.DataLoader(dataset, 8, num_workers=2, delivery_fn=numbered(dataset)),
        "persistent feed": lambda: hf.DataLoader(
            dataset, 8, num_workers=2, persistent_workers=True, delivery_fn=numbered(dataset)
        ),
        "general": lambda: hf.DataLoader(numbers, 8),
        "general with readers": lambda: hf.DataLoader(numbers, 8, num_workers=2),
    }[request.param]()
    yield made
    made.close()


def numbered(dataset):
    """Deliver the place of each event in the dataset, as a list of one tensor."""
    places = {tuple(event["event"].tolist()): i for i, event in enumerate(map(dataset.__getitem__, range(91)))}
    return lambda batch: [torch.tensor([places[tuple(event)] for event in batch["event"].tolist()])]


def flat(batches):
    return [number for (batch,) in batches for number in batch.tolist()]


def test_enumerate_counts_batches_and_len_knows_them(loader):
    numbers = [number for number, _ in enumerate(loader)]
    assert numbers == list(range(12))
    assert len(loader) == len(iter(loader)) == 12


def test_two_loaders_are_zipped(loader, dataset):
    with hf.DataLoader(dataset, 16, num_workers=2) as other:
        pairs = list(zip(loader, other))
        assert len(pairs) == len(other) == 6
        assert flat(mine for mine, _ in pairs) == list(range(48))


def test_a_loader_is_zipped_with_itself(loader):
    for (mine,), (other,) in zip(loader, loader):
        assert torch.equal(mine, other)


def test_loops_over_the_same_loader_are_nested(loader):
    outer = []
    for batch in loader:
        outer.append(batch)
        if len(outer) in (2, 12):
            assert flat(loader) == list(range(91))
    assert flat(outer) == list(range(91))


def test_a_loop_is_left_and_begun_again(loader):
    for _ in range(3):
        for (batch,) in loader:
            assert batch.tolist() == list(range(8))
            break
    assert flat(loader) == list(range(91))


def test_cycle_repeats_the_batches_it_kept(loader):
    assert flat(itertools.islice(itertools.cycle(loader), 30)) == [*range(91), *range(91), *range(48)]


def test_islice_and_sum_and_list_take_batches(loader):
    assert flat(itertools.islice(loader, 3)) == list(range(24))
    assert sum(len(batch) for (batch,) in loader) == 91
    kept = list(loader)  # more than there are slots
    assert flat(kept) == list(range(91))


def test_next_with_a_default_ends_a_loop(loader):
    iterator = iter(loader)
    assert iter(iterator) is iterator
    count = 0
    while next(iterator, None) is not None:
        count += 1
    assert count == 12
    assert next(iterator, "over") == "over"


@pytest.mark.parametrize("bar", ["tqdm", "rich"])
def test_progress_bars_find_the_length(loader, bar, capsys):
    if bar == "tqdm":
        tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed").tqdm
        bars = tqdm(loader, ncols=60)
        assert bars.total == 12
        assert flat(bars) == list(range(91))
        assert "12/12" in capsys.readouterr().err
    else:
        from rich.progress import track

        assert flat(track(loader)) == list(range(91))
        assert "100%" in capsys.readouterr().out


def test_a_sentinel_for_loop_runs_over_an_endless_feed(dataset):
    with hf.DataLoader(dataset, 8, shuffle=True, num_workers=2, infinite=True, seed=1) as loader:
        batches = list(itertools.islice(loader, 36))
    for epoch in (batches[:12], batches[12:24], batches[24:]):
        assert set(events_of(epoch)) == all_events(dataset)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_model_takes_the_batches(dataset):
    @torch.compile(backend="eager", fullgraph=True)
    def step(image, label):
        return torch.nn.functional.cross_entropy(image.flatten(1)[:, :2], label)

    with hf.DataLoader(dataset, 8, num_workers=2, drop_last=True) as loader:
        for batch in loader:
            expected = torch.nn.functional.cross_entropy(batch["image"].flatten(1)[:, :2], batch["label"])
            assert torch.equal(step(batch["image"], batch["label"]), expected)


def test_batches_that_are_kept_do_not_change(dataset):
    with hf.DataLoader(dataset, 8, num_workers=2, shuffle=True, seed=1) as loader:
        kept, copies = [], []
        for batch in loader:
            kept.append(batch)
            copies.append(bits([batch])[0])
        list(loader)
        assert bits(kept) == copies
