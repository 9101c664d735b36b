"""Statistics of keys over the events of a split: one parallel pass of the readers, a file, and a check of its age.

For each key, and each channel of it where an axis of channels is given, over all finite values and over the *active*
ones, which are not 0: count, mean, standard deviation, extremes and percentiles.

Sums are in float64, pairwise within a batch, and merged batch by batch in the order of the events (Chan, Golub and
LeVeque 1979), so they do not depend on the number of readers.  Percentiles are those of :func:`numpy.percentile`,
exactly, where a key has :data:`GATHER` active values at most.  Otherwise a second pass refines the bins that they lie
in (:mod:`hepfeed.ordered`): that is exact for float16, float32 and integers of 8 and 16 bits, and has a relative error
of 2^-20 at most for other types.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.dataset import EventDataset
from hepfeed.errors import KeyMissingError, SpecError, nearest
from hepfeed.figures import After, Figure, KeyStatistics, Statistics, Summary, default_path
from hepfeed.index import OnError
from hepfeed.loader import DataLoader
from hepfeed.moments import Measure, Moments
from hepfeed.ordered import BINS, bin_of
from hepfeed.percentiles import Counts, Numbers
from hepfeed.pipeline import Pipeline
from hepfeed.progress import Progress, progress_bars
from hepfeed.provider import DEFAULT_SPLITS
from hepfeed.spec import SampleSpec, as_spec

__all__ = ["GATHER", "PERCENTILES", "KeyStatistics", "Statistics", "Summary", "collect", "default_path", "load"]

GATHER = 1 << 24
"""Active values of a key that are kept to sort them."""
PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
_BATCH_BYTES = 16 << 20
_BATCH_EVENTS = 256
_SPECTRUM_BINS = 60


def load(path: str | os.PathLike[str], dataset: EventDataset) -> Statistics:
    """Read statistics, and refuse them where they are of other events or another specification.

    Raises:
        SpecError: The file is missing, no such file, or stale.
    """
    made = Statistics.load(path)
    now = _fingerprint(_before(dataset, made.after))
    if made.fingerprint != now:
        raise SpecError(
            f"the statistics {os.fspath(path)!r} are stale: since they were collected the specification, its files, the"
            f" split or the transforms before changed ({made.fingerprint} is now {now}); collect them again",
            file=os.fspath(path),
        )
    return made


def collect(
    spec: EventDataset | SampleSpec | Sequence[Any] | str | os.PathLike[str],
    keys: Sequence[str] | str | None = None,
    split: str | None = "train",
    *,
    splits: Mapping[str, float] | None = None,
    split_by: str = "event",
    split_seed: int = 0,
    channel_axis: int | Mapping[str, int] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    max_events: int | None = None,
    num_workers: int | None = None,
    after: After = "read",
    on_error: OnError = "raise",
    index: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> Statistics:
    """Measure keys over the events of a split, in parallel.

    Args:
        spec: Specification in any form, or a dataset, which has its own split.
        keys: What to measure; None: all keys of the specification, or of the batch after the transforms.
        split: Part of the events; None for all.
        splits: Fractions by name; by default 80 % ``train``, 10 % ``val``, 10 % ``test``.
        split_by: As in :class:`~hepfeed.EventDataset`.
        split_seed: As in :class:`~hepfeed.EventDataset`.
        channel_axis: Axis of one event to give figures for each entry of, of all keys or by key: 0 is the first after
            the batch axis, -1 the last.  Of jagged and padded keys axis 0 is that of rows, of sparse ones only the last
            axis has channels.
        percentiles: 0 .. 100; with none, one pass is always enough.
        max_events: Measure the first events only.
        num_workers: Readers; by default one a processor, 8 at most; 0 reads in this process.
        after: ``"read"``: keys as they are read; ``"cache"``: after the transforms before the cache point.
        on_error: As in :class:`~hepfeed.EventDataset`.
        index: As in :class:`~hepfeed.EventDataset`.
        progress: Called with (what is done, finished, total); True, or None on a terminal, shows a bar.

    Raises:
        SpecError: An option is wrong, or a key has no numbers or no such axis.
        KeyMissingError: There is no such key.
        SourceError: A file can't be read.
    """
    if after not in ("read", "cache"):
        raise SpecError(f"after must be 'read' or 'cache', not {after!r}")
    wanted = tuple(float(p) for p in percentiles)
    if not all(0 <= p <= 100 for p in wanted):
        raise SpecError(f"percentiles must be 0 .. 100, not {list(percentiles)!r}")
    bars = (
        progress_bars(progress) if progress is None or isinstance(progress, bool) else contextlib.nullcontext(progress)
    )
    with bars as report:
        if isinstance(spec, EventDataset):
            if (splits, split_by, split_seed, on_error, index) != (None, "event", 0, "raise", None):
                raise SpecError(
                    "the dataset has its own split: leave splits, split_by, split_seed, on_error, index out"
                )
            dataset = spec
        else:
            dataset = EventDataset(
                SampleSpec.load(spec, after) if isinstance(spec, str | os.PathLike) else as_spec(spec),
                split,
                splits=None if split is None else splits or DEFAULT_SPLITS,
                split_by=split_by,
                split_seed=split_seed,
                on_error=on_error,
                index=index,
                progress=report,
            )
        dataset = _before(dataset, after)
        names = _names(dataset, keys, after)
        workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        run = _Run(dataset, names, channel_axis, wanted, max_events, workers, report)
        figures, spectra = run.measure()
    return Statistics(_fingerprint(dataset), dataset.split, after, run.events, figures, spectra)


def _before(dataset: EventDataset, after: After) -> EventDataset:
    """Return the same events, as they are read or as they are cached."""
    bare = copy.copy(dataset)
    bare.pipeline = Pipeline(dataset.pipeline.steps[: dataset.pipeline.cached] if after == "cache" else ())
    return bare


def _fingerprint(dataset: EventDataset) -> str:
    """Return what tells the events, and what was done to them, from others."""
    index = dataset.index
    digest = xxhash.xxh3_128(f"{dataset.spec.as_read().fingerprint()} {dataset.pipeline.fingerprint()}".encode())
    for numbers in (index.rows, index.file_start):
        digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()


def _names(dataset: EventDataset, keys: Sequence[str] | str | None, after: After) -> tuple[str, ...] | None:
    if keys is None:
        return dataset.spec.names if after == "read" else None
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    for name in names if after == "read" else ():
        if name not in dataset.spec.names:
            raise KeyMissingError(f"there is no key {name!r} to measure: {nearest(name, dataset.spec.names)}", key=name)
    return names


# ---- passes over the events


class _Run:
    """Measures the keys of a dataset.

    Attributes:
        events: How many were measured.
    """

    def __init__(
        self,
        dataset: EventDataset,
        keys: tuple[str, ...] | None,
        axes: int | Mapping[str, int] | None,
        percentiles: tuple[float, ...],
        max_events: int | None,
        workers: int,
        report: Progress,
    ) -> None:
        self.events = 0
        self._dataset = dataset
        self._keys = keys
        self._axes = dict(axes) if isinstance(axes, Mapping) else axes
        self._percentiles = percentiles
        self._max_events = max_events
        self._workers = workers
        self._report = report
        self._batch_size = max(1, min(_BATCH_EVENTS, int(_BATCH_BYTES // max(1.0, dataset.index.event_bytes))))
        self._total = min(len(dataset), len(dataset) if max_events is None else max_events)

    def measure(self) -> tuple[dict[str, KeyStatistics], dict[str, Any]]:
        """Return the figures and spectra of the keys."""
        batches = max(1, -(-self._total // self._batch_size))
        gather = GATHER // batches
        sums: dict[str, _Sums] = {}
        for batch in self._pass(Measure(self._keys, self._axes, gather), "measuring"):
            self.events += int(batch["events"].sum())
            for key in [name.removeprefix("zeros:") for name in batch if name.startswith("zeros:")]:
                sums.setdefault(key, _Sums(gather)).add({kind: batch[f"{kind}:{key}"] for kind in _KINDS})
        if isinstance(self._axes, dict) and sums:
            for name in self._axes.keys() - sums.keys():
                raise SpecError(f"channel_axis names {name!r}, which is not measured: {nearest(name, sums)}", key=name)
        numbers = {key: each.numbers() for key, each in sums.items()}
        self._refine(numbers)
        figures = {key: self._figures(key, each, numbers[key]) for key, each in sums.items()}
        return figures, {key: _spectrum(channels) for key, channels in numbers.items()}

    def _pass(self, measure: Measure, what: str) -> Iterator[dict[str, NDArray[Any]]]:
        done = 0
        batches: DataLoader[Any] = DataLoader(
            self._dataset,
            self._batch_size,
            shuffle=False,
            num_workers=self._workers,
            seed=0,  # none is drawn from torch's global generator
            process_fn=measure,
            max_events=self._max_events,
        )
        with batches as loader:
            for batch in loader:
                arrays = {name: value.numpy().copy() for name, value in batch.items()}  # the slot goes back at once
                done += int(arrays["events"].sum())
                self._report(what, done, self._total)
                yield arrays

    def _refine(self, numbers: dict[str, list[Numbers]]) -> None:
        """Count fine bins where percentiles lie, in a second pass where there are any."""
        bins = {
            key: np.concatenate([c * BINS + channel.to_refine(self._percentiles) for c, channel in enumerate(channels)])
            for key, channels in numbers.items()
        }
        bins = {key: codes for key, codes in bins.items() if len(codes)}
        if not bins:
            return
        counts = {key: Counts() for key in bins}
        for batch in self._pass(Measure(self._keys, self._axes, 0, bins), "refining percentiles"):
            for key, each in counts.items():
                each.add(batch[f"codes:{key}"], batch[f"counts:{key}"])
        for key, codes in bins.items():
            found, times = counts[key].total()
            edges = np.searchsorted(found, np.arange(len(codes) + 1) * BINS)
            for place, code in enumerate(codes.tolist()):
                part = slice(edges[place], edges[place + 1])
                numbers[key][code // BINS].fine[code % BINS] = (found[part] % BINS, times[part])

    def _figures(self, key: str, sums: _Sums, numbers: list[Numbers]) -> KeyStatistics:
        axis = self._axes.get(key) if isinstance(self._axes, dict) else self._axes
        active = sums.moments
        everything = active + Moments.of_zeros(sums.zeros)
        zeros = np.divide(sums.zeros, everything.count, out=np.zeros(len(sums.zeros)), where=everything.count > 0)
        return KeyStatistics(
            **vars(self._summary(everything, numbers, axis, active=False)),
            zeros=_listed(zeros, axis),
            nonfinite=_listed(sums.nonfinite, axis),
            channel_axis=axis,
            active=self._summary(active, numbers, axis, active=True),
        )

    def _summary(self, moments: Moments, numbers: list[Numbers], axis: int | None, *, active: bool) -> Summary:
        there = moments.count > 0
        rows = np.stack([each.percentiles(self._percentiles, active=active) for each in numbers])
        return Summary(
            count=_listed(moments.count.astype(np.int64), axis),
            mean=_listed(np.where(there, moments.mean, np.nan), axis),
            std=_listed(moments.std, axis),
            minimum=_listed(moments.minimum, axis),
            maximum=_listed(moments.maximum, axis),
            percentiles={f"{p:g}": _listed(rows[:, i], axis) for i, p in enumerate(self._percentiles)},
        )


_KINDS = ("moments", "zeros", "nonfinite", "values", "codes", "counts")


class _Sums:
    """What batches say of one key, added up in their order."""

    def __init__(self, gather: int) -> None:
        self.moments = Moments.of_zeros(np.zeros(1, np.int64))
        self.zeros: NDArray[np.int64] = np.zeros(1, np.int64)
        self.nonfinite: NDArray[np.int64] = np.zeros(1, np.int64)
        self._gather = gather
        self._dtype = np.dtype(np.float64)
        self._values: list[list[NDArray[Any]]] | None = []
        self._counts = Counts()

    def add(self, batch: dict[str, NDArray[Any]]) -> None:
        """Add a batch; it may consist of parts, joined on the first axis."""
        self._counts.add(batch["codes"], batch["counts"])
        self.zeros = self.zeros + batch["zeros"].sum(0)
        self.nonfinite = self.nonfinite + batch["nonfinite"].sum(0)
        self._dtype = batch["values"].dtype
        at = 0
        for packed in batch["moments"]:
            moments = Moments.unpacked(packed)
            self.moments = self.moments + moments
            lengths = moments.count.astype(np.int64)
            if lengths.sum() > self._gather:  # the reader counted it
                self._count_values()
                continue
            cuts = at + np.concatenate([[0], np.cumsum(lengths)])
            part = [batch["values"][low:high] for low, high in pairwise(cuts)]
            at = int(cuts[-1])
            if self._values is None:
                self._count(part)
            else:
                self._values.append(part)

    def numbers(self) -> list[Numbers]:
        """Return the numbers of each channel."""
        zeros = self.zeros.tolist()
        if self._values is not None:
            parts = zip(*self._values) if self._values else [()] * len(zeros)
            empty = np.empty(0, self._dtype)
            return [Numbers.gathered(np.concatenate([empty, *part]), zero) for part, zero in zip(parts, zeros)]
        codes, counts = self._counts.total()
        edges = np.searchsorted(codes, np.arange(len(zeros) + 1) * BINS)
        return [
            Numbers(self._dtype, zero, None, codes[low:high] % BINS, counts[low:high])
            for zero, low, high in zip(zeros, edges, edges[1:])
        ]

    def _count_values(self) -> None:
        """From now on count what would be gathered."""
        gathered, self._values = self._values or [], None
        for part in gathered:
            self._count(part)

    def _count(self, part: Sequence[NDArray[Any]]) -> None:
        codes = np.concatenate([c * BINS + bin_of(values) for c, values in enumerate(part)])
        found, counts = np.unique(codes, return_counts=True)
        self._counts.add(found, counts.astype(np.int64))


def _listed(figures: NDArray[Any], axis: int | None) -> Figure:
    """Return a number, or a list of one for each channel; what is not finite becomes None."""
    numbers = [number if np.isfinite(number) else None for number in figures.tolist()]
    return numbers[0] if axis is None else numbers


def _spectrum(numbers: list[Numbers]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count the active numbers of all channels in bins between their outer percentiles."""
    ends = np.array([each.percentiles((0.1, 99.9), active=True) for each in numbers if each.active])
    low, high = (ends[:, 0].min(), ends[:, 1].max()) if len(ends) else (0.0, 1.0)
    edges = np.linspace(low, high, _SPECTRUM_BINS + 1) if low < high else np.linspace(low - 0.5, low + 0.5, 2)
    return edges, np.sum([each.spectrum(edges) for each in numbers], axis=0)
