"""Data sets and functions for the tests of the loader; a file of its own, for spawned readers must import them."""

import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

WAIT_S = 0.01


def reader_number():
    """Number of this reader; -1 in the main process."""
    info = get_worker_info()
    return -1 if info is None else info.id


def only_list(events):
    """Collate to the plain list."""
    return list(events)


# ---- by index


class Numbers(Dataset):
    """The numbers 0 to n - 1."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return index


class Images(Numbers):
    """A float image and its number."""

    def __init__(self, n, shape=(3, 5)):
        super().__init__(n)
        self.shape = shape

    def __getitem__(self, index):
        return torch.full(self.shape, float(super().__getitem__(index))), index


class Noise(Numbers):
    """Draws of all three generators that a reader seeds; an event takes as many as its index says."""

    def __getitem__(self, index):
        draws = 1 + super().__getitem__(index) % 3
        return {
            "index": index,
            "torch": torch.rand(draws)[-1],
            "numpy": np.random.random(draws)[-1],  # noqa: NPY002 (the generator that a reader seeds)
            "python": [random.random() for _ in range(draws)][-1],
        }


class Whereabouts(Numbers):
    """Which reader fetched which event, and with which seeds and threads."""

    def __getitem__(self, index):
        info = get_worker_info()
        assert info.dataset is self
        return index, info.id, info.num_workers, info.seed, torch.initial_seed(), torch.get_num_threads()


class Bulk(Numbers):
    """Fetches many events at once, and marks them so."""

    def __getitems__(self, indices):
        return [self[index] + 1000 for index in indices]


class Keyed(Dataset):
    """Events by name."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return key, self.values[key]


class Failing(Numbers):
    """Raises for some events."""

    def __init__(self, n, errors):
        super().__init__(n)
        self.errors = errors

    def __getitem__(self, index):
        if index in self.errors:
            raise self.errors[index]
        return super().__getitem__(index)


class ThreePieceError(Exception):
    """Can't be made of one text."""

    def __init__(self, a, b, c):
        super().__init__(f"{a}, {b} and {c}")


class UnpicklableError(Exception):
    """Holds what no process can send."""

    def __init__(self, text="made of a lock"):
        super().__init__(text)
        self.held = (each for each in [text])


class Gated(Numbers):
    """One event waits until a file exists."""

    def __init__(self, n, gate, closed):
        super().__init__(n)
        self.gate, self.closed = Path(gate), closed

    def __getitem__(self, index):
        while index == self.closed and not self.gate.exists():
            time.sleep(WAIT_S)
        return super().__getitem__(index)


class Deadly(Noise):
    """One event ends its reader; where ``once`` names a file, only the first time."""

    def __init__(self, n, index, how, once=None):
        super().__init__(n)
        self.index, self.how, self.once = index, how, once and Path(once)

    def __getitem__(self, index):
        if index == self.index and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            end(self.how)
        return super().__getitem__(index)


def end(how):
    """End this process: by a signal, ``os._exit(17)``, or ``SystemExit(17)``."""
    if how == "exit":
        os._exit(17)
    if how == "SystemExit":
        raise SystemExit(17)
    os.kill(os.getpid(), how)
    while True:
        time.sleep(WAIT_S)


class Forgetful(Numbers):
    """Counts what this copy has fetched; says by which reader and how many."""

    def __init__(self, n):
        super().__init__(n)
        self.fetched = 0

    def __getitem__(self, index):
        self.fetched += 1
        return index, reader_number(), self.fetched


class Matching:
    """A collate function: a batch of a class of its own, which knows how to be page-locked."""

    def __init__(self, events):
        images, numbers = zip(*events)
        self.images, self.numbers = torch.stack(images), torch.tensor(numbers)

    def pin_memory(self):
        self.images, self.numbers = self.images.pin_memory(), self.numbers.pin_memory()
        return self


# ---- one after another


class Count(IterableDataset):
    """The numbers 0 to n - 1, from each reader."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


class CountWithLength(Count):
    """Says how many there are, as if there were one reader."""

    def __len__(self):
        return self.n


class Shards(CountWithLength):
    """The numbers 0 to n - 1; reader r of W has r, r + W, ..."""

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


class Uneven(IterableDataset):
    """Pairs of a reader and a number; ``sizes[r]`` of them from reader r."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __iter__(self):
        number = reader_number()
        return ((number, each) for each in range(self.sizes[number]))


class NoisyShards(Shards):
    """Draws of the reader's generators beside each number."""

    def __iter__(self):
        for number in super().__iter__():
            yield number, torch.rand(2), np.random.random(), random.random()  # noqa: NPY002


class Draining(IterableDataset):
    """Its own iterator: what was taken is gone, from this copy."""

    def __init__(self, n):
        self.left = n

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class FailingStream(IterableDataset):
    """Raises in ``__iter__``, or after some numbers and again and again."""

    def __init__(self, after):
        self.after = after

    def __iter__(self):
        if self.after is None:
            raise ValueError("no stream today")
        return self

    def __next__(self):
        if not self.after:
            raise ValueError("the stream is broken")
        self.after -= 1
        return self.after


class GatedStream(Shards):
    """The last reader's first number waits until a file exists."""

    def __init__(self, n, gate):
        super().__init__(n)
        self.gate = Path(gate)

    def __iter__(self):
        info = get_worker_info()
        while info.id == info.num_workers - 1 and not self.gate.exists():
            time.sleep(WAIT_S)
        return super().__iter__()


class Resumable(NoisyShards):
    """Says where it is, and goes on from there; writes down each number that it makes."""

    def __init__(self, n, journal):
        super().__init__(n)
        self.journal = Path(journal)
        self.position = 0

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        while first + self.position * step < self.n:
            number = first + self.position * step
            self.position += 1
            with self.journal.open("a") as journal:
                journal.write(f"{number}\n")
            yield number, torch.rand(2)
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


# ---- functions of readers


def fail_in_reader(number):
    """Fail as ``worker_init_fn``."""
    raise ValueError(f"reader {number} can't begin")


def pin_to_last_core(number):
    """Let the reader run on one core only."""
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])


class Cores(IterableDataset):
    """The cores that this reader may use."""

    def __iter__(self):
        return iter(sorted(os.sched_getaffinity(0)))


def lengthen_in_reader(number):
    """Change the reader's copy of an uneven stream, as ``worker_init_fn``."""
    info = get_worker_info()
    assert info.id == number
    info.dataset.sizes = [size + 1 + number for size in info.dataset.sizes]


def fail_to_collate(events):
    """Fail as ``collate_fn``, but for the batches without an odd number."""
    if any(event % 2 for event in events):
        raise ValueError(f"can't collate {events}")
    return torch.tensor(events)
