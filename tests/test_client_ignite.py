"""ignite's engines on hepfeed's loader: a run that goes on within an epoch sees the batches that were left."""

import pytest
import torch
from events import all_events, write_classes
from torch.utils.data import TensorDataset

import hepfeed as hf

pytest.importorskip("ignite", reason="pytorch-ignite is not installed")

from ignite.engine import DeterministicEngine, Engine, Events


@pytest.fixture
def dataset(tmp_path):
    spec = write_classes(tmp_path / "data", {"electron": [31, 20], "pion": [40]}, layout="hundred_event_chunks")
    return hf.EventDataset(spec)


def _key(batch):
    """What identifies a batch: its events, or the numbers in it."""
    return tuple(map(tuple, batch["event"].tolist())) if isinstance(batch, dict) else tuple(batch[0].tolist())


def run(engine_class, loader, epochs, *, state=None, stop_after=None):
    """Run an engine and return its batches, and its state at the end."""
    seen = []
    engine = engine_class(lambda engine, batch: seen.append(_key(batch)))
    if stop_after is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), engine.terminate)
    torch.manual_seed(11)
    if state is not None:
        engine.load_state_dict(state)
    engine.run(loader, max_epochs=epochs)
    return seen, engine.state_dict()


@pytest.mark.parametrize("stop_after", [3, 12, 17])
@pytest.mark.parametrize(("kind", "workers"), [("events", 0), ("events", 2), ("rows", 2)])
def test_the_deterministic_engine_goes_on_where_it_stopped(dataset, kind, workers, stop_after):
    """Over rows without readers it does not with torch's loader either: the sampler draws too late there."""
    rows = TensorDataset(torch.arange(91))

    def make():
        return hf.DataLoader(dataset if kind == "events" else rows, 8, shuffle=True, num_workers=workers)

    whole, _ = run(DeterministicEngine, make(), 2)
    first, state = run(DeterministicEngine, make(), 2, stop_after=stop_after)
    assert first == whole[:stop_after]
    rest, _ = run(DeterministicEngine, make(), 2, state=state)
    assert rest == whole[stop_after:]
    for epoch in (whole[:12], whole[12:]):
        numbers = [number for batch in epoch for number in batch]
        assert len(numbers) == 91
        assert set(numbers) == (all_events(dataset) if kind == "events" else set(range(91)))
    assert whole[:12] != whole[12:]


def test_the_deterministic_engine_rebuilds_the_loader_as_it_was(dataset):
    loader = hf.DataLoader(dataset, 8, shuffle=True, num_workers=2, process_fn=None, outputs=("image", "label"))
    kept = []
    engine = DeterministicEngine(lambda engine, batch: kept.append(batch))
    engine.run(loader, max_epochs=1)
    rebuilt = engine.state.dataloader
    assert type(rebuilt) is hf.DataLoader
    assert (rebuilt.num_workers, rebuilt.outputs) == (2, ("image", "label"))
    image, label = kept[0]
    assert image.shape == (8, 5, 4)
    assert label.shape == (8,)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_engine_sees_the_epochs_of_the_feed(dataset, workers):
    with hf.DataLoader(dataset, 8, shuffle=True, num_workers=workers, seed=4) as loader:
        seen, _ = run(Engine, loader, 2)
        loader.set_epoch(0)
        assert seen == [_key(batch) for _ in range(2) for batch in loader]
