"""Small batches for the tests of steps."""

import numpy as np

from hepfeed.draws import Draws
from hepfeed.tensors import Jagged, Padded, Sparse


def jagged(*events, dtype=np.float32, item=()):
    """Return events, each a list of rows, as a jagged array."""
    rows = [np.asarray(rows, dtype).reshape(-1, *item) for rows in events]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Jagged(np.concatenate(rows) if rows else np.zeros((0, *item), dtype), offsets)


def padded(mask, values, dtype=np.float32):
    return Padded(np.asarray(values, dtype), np.asarray(mask, bool))


def sparse(sites, features, shape, events, dtype=np.float32):
    """Return sites ``(event, coordinates ...)`` with one feature each."""
    indices = np.asarray(sites, np.int32).reshape(len(features), 1 + len(shape))
    return Sparse(np.asarray(features, dtype)[:, None], indices, tuple(shape), events)


def batch_of(**arrays):
    """Return a batch: event i is row 10 + i of file 3, its label i % 2 unless it is given."""
    first = next(iter(arrays.values()))
    count = first.events if hasattr(first, "events") else len(first)
    event = np.stack([np.full(count, 3), 10 + np.arange(count)], axis=-1).astype(np.int64)
    return {"label": np.arange(count) % 2, "event": event, **arrays}


def draws_of(batch, seed=0, epoch=0, number=0):
    return Draws(seed=seed, epoch=epoch, batch=number, event=batch["event"], step=1)


def part_of(batch, events):
    """Return some events of a batch of arrays and structured arrays."""
    chosen = np.asarray(events, np.int64)
    return {key: value.take(chosen) if hasattr(value, "take") and hasattr(value, "events") else value[chosen]
            for key, value in batch.items()}  # fmt: skip
