"""The demonstration: make a small calorimeter set, feed it, train on it, and do the same with torch's own loader."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import torch
import torch.utils.data

from hepfeed.dataset import EventDataset
from hepfeed.demo_model import CaloNet
from hepfeed.errors import SpecError
from hepfeed.progress import Progress
from hepfeed.provider import DataProvider
from hepfeed.spec import SampleSpec
from hepfeed.stats import FeedStats
from hepfeed.synthetic import make_lcd

__all__ = [
    "Comparison",
    "EpochResult",
    "H5pyEvents",
    "Pass",
    "Training",
    "compare",
    "make_events",
    "open_provider",
    "plot_demo",
    "train",
]

BATCH_SIZE = 64
SPLITS = {"train": 0.8, "val": 0.2}
SPEC_NAME = "lcd.yaml"
_ENERGY_GEV = (10.0, 100.0)
_LEARNING_RATE = 3e-3

Batch: TypeAlias = dict[str, torch.Tensor]
Loader: TypeAlias = torch.utils.data.DataLoader[Any]


# ---- the events


def make_events(
    directory: str | os.PathLike[str], *, files: int, events: int, seed: int, progress: Progress | None = None
) -> SampleSpec:
    """Write electrons, photons, neutral and charged pions of 10 to 100 GeV, and their specification.

    The files are as most are in the field: gzip, in the chunks that h5py chooses by itself.

    Args:
        directory: Where to: new or empty.
        files: Files of each of the four classes.
        events: Events in each file.
        seed: Same seed, same events.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: The directory is not empty, or a number is out of range.
    """
    folder = Path(directory)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(f"the demonstration writes to a new or empty directory, and {str(folder)!r} is neither")
    done = 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("making events", done, 4 * files * events)

    samples = make_lcd(
        folder,
        files=files,
        events=events,
        energy=_ENERGY_GEV,
        seed=seed,
        chunks="auto",
        compression="gzip",
        level=4,
        progress=written,
    )
    spec = SampleSpec([[os.path.relpath(pattern, folder), *rest] for pattern, *rest in samples], root=folder)
    spec.save(folder / SPEC_NAME)
    return spec


def open_provider(spec: SampleSpec, directory: str | os.PathLike[str], *, workers: int, seed: int) -> DataProvider:
    """Feed the events: four fifths for training, one for validation.

    Args:
        spec: Of :func:`make_events`.
        directory: Where index and cache are kept.
        workers: Readers.
        seed: Of the split and of the order.
    """
    home = Path(directory)
    cache, index = home / "cache", home / "index.sqlite"
    return DataProvider(spec, BATCH_SIZE, splits=SPLITS, num_workers=workers, seed=seed, cache=cache, index=index)


# ---- training


@dataclass(frozen=True)
class Pass:
    """One time through some batches.

    Attributes:
        events: Events.
        batches: Batches.
        correct: Events whose class was found; 0 where nothing was classified.
        seconds: From the request of the first batch to the end of the last.
        wait_s: Of these, seconds of waiting for batches.
    """

    events: int
    batches: int
    correct: int
    seconds: float
    wait_s: float

    @property
    def accuracy(self) -> float:
        """Part of the events whose class was found."""
        return self.correct / max(1, self.events)

    @property
    def events_per_s(self) -> float:
        """Speed."""
        return self.events / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EpochResult:
    """An epoch: training, then validation."""

    train: Pass
    val: Pass


@dataclass(frozen=True)
class Training:
    """What training with hepfeed gave.

    Attributes:
        epochs: In their order.
        weights: Trainable numbers of the network.
        stats: Where the time of the training loader went.
    """

    epochs: tuple[EpochResult, ...]
    weights: int
    stats: FeedStats


class _Trainer:
    """A network and its optimiser."""

    def __init__(self, n_classes: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = CaloNet(n_classes)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=_LEARNING_RATE)

    def step(self, batch: Batch) -> int:
        """Learn from a batch; return how many events were right before."""
        logits = self.model(batch["ECAL"], batch["HCAL"])
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return _correct(logits, batch["label"])

    @torch.no_grad()
    def judge(self, batch: Batch) -> int:
        """Return how many events of a batch are right."""
        return _correct(self.model(batch["ECAL"], batch["HCAL"]), batch["label"])


def _correct(logits: torch.Tensor, label: torch.Tensor) -> int:
    return int((logits.argmax(1) == label).sum())


def train(provider: DataProvider, *, epochs: int, seed: int, progress: Progress | None = None) -> Training:
    """Train the network of the demonstration on the CPU.

    Args:
        provider: Of :func:`open_provider`.
        epochs: At least 1.
        seed: Of the network's first weights.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: ``epochs`` is below 1.
    """
    if epochs < 1:
        raise SpecError(f"expected 1 epoch or more, got {epochs}")
    trainer = _Trainer(len(provider.classes), seed)
    loaders, results = provider.loaders, []
    with _threads_beside(len(provider.pids)):
        for epoch in range(1, epochs + 1):
            training = _go_through(loaders["train"], trainer.step, f"training epoch {epoch}", progress)
            validation = _go_through(loaders["val"], trainer.judge, f"validating epoch {epoch}", progress)
            results.append(EpochResult(training, validation))
    weights = sum(parameter.numel() for parameter in trainer.model.parameters())
    return Training(tuple(results), weights, loaders["train"].stats())


@contextlib.contextmanager
def _threads_beside(readers: int) -> Iterator[None]:
    """Leave a processor to each reader while torch computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - readers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _go_through(
    loader: Loader,
    use: Callable[[Batch], int],
    what: str,
    progress: Progress | None,
    *,
    limit_s: float = math.inf,
    at_a_time: int = 1,
) -> Pass:
    """Take the batches of a loader until the end, or until the limit after whole rounds of ``at_a_time``."""
    events = batches = correct = 0
    wait_s = 0.0
    total = len(loader)
    begun = asked = time.perf_counter()
    for batch in loader:
        wait_s += time.perf_counter() - asked
        correct += use(batch)
        events += len(batch["label"])
        batches += 1
        if progress:
            progress(what, batches, total)
        asked = time.perf_counter()
        if asked - begun > limit_s and batches % at_a_time == 0:
            break
    seconds = asked - begun  # without the end of the workers, who finish what they have in hand
    if progress:
        progress(what, total, total)
    return Pass(events, batches, correct, seconds, wait_s)


# ---- the comparison


class H5pyEvents(torch.utils.data.Dataset[Batch]):
    """The same events as a map-style dataset over h5py, as one would write it for torch's ``DataLoader``.

    Args:
        dataset: Whose events, in the same order.
    """

    def __init__(self, dataset: EventDataset) -> None:
        index = dataset.index
        self._files = index.files
        self._file = index.file_of(np.arange(len(index)))
        self._row = index.rows
        self._label = index.file_class[self._file]
        self._keys = [key.name for key in index.keys]
        self._open: dict[int, h5py.File] = {}

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, event: int) -> Batch:
        number, row = int(self._file[event]), int(self._row[event])
        if number not in self._open:
            self._open[number] = h5py.File(self._files[number], "r")
        file = self._open[number]
        tensors = {key: torch.from_numpy(file[key][row]) for key in self._keys}
        return {**tensors, "label": torch.tensor(int(self._label[event]))}

    def close(self) -> None:
        """Close the files that this process opened."""
        for file in self._open.values():
            file.close()
        self._open.clear()


@dataclass(frozen=True)
class Comparison:
    """hepfeed and torch's loader on the same events, with the same network and the same number of workers.

    Attributes:
        feeding: An epoch with hepfeed, without training.
        loading: Batches with torch's loader, without training.
        training: Batches with torch's loader, with training.
        epoch_events: Events of an epoch; those of the last two may be fewer.
    """

    feeding: Pass
    loading: Pass
    training: Pass
    epoch_events: int

    @property
    def ratio(self) -> float:
        """How many times as many events a second hepfeed loads; of torch's loader the faster pass counts."""
        return self.feeding.events_per_s / max(self.loading.events_per_s, self.training.events_per_s)


def compare(
    provider: DataProvider, *, workers: int, seed: int, limit_s: float = 6.0, progress: Progress | None = None
) -> Comparison:
    """Load and train through ``torch.utils.data.DataLoader`` with h5py, event by event.

    Args:
        provider: Of :func:`open_provider`.
        workers: Worker processes of torch's loader.
        seed: Of the network's first weights and of the order.
        limit_s: Seconds after which torch's loader is stopped, in training and again in loading.
        progress: Called with (what is done, finished, total).
    """
    feed = provider.loaders["train"]
    dataset = feed.dataset
    assert isinstance(dataset, EventDataset)
    events = H5pyEvents(dataset)
    loader = torch.utils.data.DataLoader(
        events, BATCH_SIZE, shuffle=True, num_workers=workers, generator=torch.Generator().manual_seed(seed)
    )
    trainer = _Trainer(len(provider.classes), seed)

    def part(use: Callable[[Batch], int], what: str) -> Pass:
        return _go_through(loader, use, what, progress, limit_s=limit_s, at_a_time=max(1, workers))

    with _threads_beside(workers), contextlib.closing(events):
        training = part(trainer.step, "training with torch's loader")
        loading = part(_ignore, "loading with torch's loader")
        feeding = _go_through(feed, _ignore, "loading with hepfeed", progress)
    return Comparison(feeding, loading, training, len(events))


def _ignore(batch: Batch) -> int:
    return 0


# ---- the figure


def plot_demo(path: str | os.PathLike[str], training: Training, comparison: Comparison) -> None:
    """Draw the accuracy by epoch, and the events a second of both loaders.

    Args:
        path: File to write; its suffix chooses the format.
        training: Of :func:`train`.
        comparison: Of :func:`compare`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, speed = figure.subplots(1, 2)
    epochs = range(1, len(training.epochs) + 1)
    accuracy.plot(epochs, [epoch.train.accuracy for epoch in training.epochs], "o-", label="training")
    accuracy.plot(epochs, [epoch.val.accuracy for epoch in training.epochs], "s-", label="validation")
    accuracy.axhline(0.25, color="grey", linestyle=":", label="chance")
    accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), xticks=list(epochs))
    accuracy.legend()
    last = training.epochs[-1].train
    names = ("hepfeed\nloading", "hepfeed\ntraining", "torch\nloading", "torch\ntraining")
    passes = (comparison.feeding, last, comparison.loading, comparison.training)
    bars = speed.bar(names, [one.events_per_s for one in passes], color=["C0", "C0", "C1", "C1"])
    speed.bar_label(bars, [f"{one.events_per_s:,.0f}" for one in passes])
    speed.set(ylabel="events/s", yscale="log")
    speed.margins(y=0.15)
    figure.savefig(path)
