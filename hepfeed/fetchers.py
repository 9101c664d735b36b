"""Fetchers: what a fetch takes from a map-style or iterable dataset, as torch's loader takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Protocol

__all__ = ["Fetcher", "IterableFetcher", "MapFetcher", "count_examples"]


class Fetcher(Protocol):
    """Takes from a dataset what one fetch asks for, before collation."""

    def fetch(self, index: Any) -> Any:
        """Return a list of examples, or one example where batches are not made."""


def count_examples(index: Any, examples: Any, iterable: bool) -> int:
    """Return how many examples a fetch took.

    Args:
        index: That was asked for; of iterable datasets the last one may be longer than what is left.
        examples: That were taken; a ``__getitems__`` may return a batch that does not tell their number.
        iterable: Whether the dataset is an iterable one.
    """
    counted = examples if iterable or not isinstance(index, Sized) else index
    return len(counted) if isinstance(counted, Sized) else 1


class MapFetcher:
    """Takes examples by their indices.

    Args:
        dataset: Has ``__getitem__``, and maybe ``__getitems__``, which then is asked for whole batches.
        auto_collation: Whether an index is a list of them.
    """

    def __init__(self, dataset: Any, auto_collation: bool) -> None:
        self._dataset = dataset
        self._auto_collation = auto_collation

    def fetch(self, index: Any) -> Any:
        """Return the examples of an index."""
        if not self._auto_collation:
            return self._dataset[index]
        if getattr(self._dataset, "__getitems__", None):
            return self._dataset.__getitems__(index)
        return [self._dataset[each] for each in index]


class IterableFetcher:
    """Takes the next examples.

    Args:
        dataset: Its iterator is made at once.
        auto_collation: Whether a fetch takes as many examples as its index is long.
        drop_last: Whether a last batch that is not full is left out.

    Attributes:
        iterator: Of the dataset; may be replaced.
    """

    def __init__(self, dataset: Iterable[Any], auto_collation: bool, drop_last: bool) -> None:
        self.iterator = iter(dataset)
        self._auto_collation = auto_collation
        self._drop_last = drop_last
        self._ended = False

    def fetch(self, index: Any) -> Any:
        """Return the next examples.

        Raises:
            StopIteration: There are no more.
        """
        if self._ended:
            raise StopIteration
        if not self._auto_collation:
            return next(self.iterator)
        examples = []
        for _ in index:
            try:
                examples.append(next(self.iterator))
            except StopIteration:
                self._ended = True
                break
        if not examples or (self._drop_last and len(examples) < len(index)):
            raise StopIteration
        return examples
