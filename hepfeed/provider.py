"""One provider for training, validation and test: one pool of readers and one ring serve them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from hepfeed.cache.option import CacheOption
from hepfeed.collate import Outputs
from hepfeed.dataset import EventDataset
from hepfeed.errors import SpecError, nearest
from hepfeed.index import OnError
from hepfeed.loader import DataLoader, Shuffle
from hepfeed.packing import Oversize
from hepfeed.pipeline import Function, Transform
from hepfeed.pool import ReaderPool, WorkerMethod
from hepfeed.progress import Progress
from hepfeed.quotas import Composition, Exhausted
from hepfeed.ranks import Uneven
from hepfeed.spec import SampleSpec, as_spec

__all__ = ["DataProvider"]

DEFAULT_SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}


class DataProvider:
    """Loaders for the parts of a data set, e.g. ``provider.train``, ``provider.val``, ``provider.test``.

    Readers start with the first epoch and end with :meth:`close`, with the ``with`` block, or with the provider.

    Args:
        spec: The specification, its list form, or the path of its file.
        batch_size: Events of a batch; None: as ``loader`` of the specification says, or 128.
        splits: Fractions by name; one loader for each.
        num_workers: Readers, shared by all loaders; 0 reads in this process; None: as ``loader`` of the specification
            says, or 2.
        cache: What comes out of the steps before the cache point is kept in the first epoch and read from then on, for
            all parts together; as in :class:`~hepfeed.EventDataset`.  ``"spec"``: as ``loader`` of the specification
            says, or ``"auto"``.
        cache_size: As in :class:`~hepfeed.EventDataset`.
        seed: Of the splits, the orders and the functions' random numbers.
        shuffle: Order of the part named ``train`` (or the first one); the others come in the order of the dataset.
        split_by: How events are divided; see :class:`hepfeed.splits.Splits`.
        transform: Steps and functions on each batch, in the readers; of the dataset.  Steps that draw random numbers
            are left out of all parts but the training one.
        on_nonfinite: As in :class:`~hepfeed.EventDataset`.
        process_fn: As in :class:`~hepfeed.DataLoader`.
        delivery_fn: As in :class:`~hepfeed.DataLoader`.
        outputs: As in :class:`~hepfeed.DataLoader`.
        prebuild: As in :class:`~hepfeed.DataLoader`.
        drop_last: Leave out an incomplete last batch of the training part; the others are always complete.
        pin_memory: As in :class:`~hepfeed.DataLoader`.
        prefetch_factor: As in :class:`~hepfeed.DataLoader`; None: as ``loader`` of the specification says.
        timeout: As in :class:`~hepfeed.DataLoader`.
        composition: Of the training part.
        exhausted: Of the training part.
        max_events: Most events of an epoch, of each part.
        window_events: As in :class:`~hepfeed.DataLoader`; None: as ``loader`` of the specification says.
        window_bytes: As in :class:`~hepfeed.DataLoader`.
        length_matched: As in :class:`~hepfeed.DataLoader`.
        max_points: As in :class:`~hepfeed.DataLoader`.
        oversize: As in :class:`~hepfeed.DataLoader`.
        rank: As in :class:`~hepfeed.DataLoader`.
        world_size: As in :class:`~hepfeed.DataLoader`.
        partitions: As in :class:`~hepfeed.DataLoader`.
        uneven: As in :class:`~hepfeed.DataLoader`.
        worker_method: As in :class:`~hepfeed.DataLoader`.
        device: As in :class:`~hepfeed.DataLoader`.
        device_transform: As in :class:`~hepfeed.DataLoader`; as of ``transform``, random steps are left out of all
            parts but the training one.
        on_error: ``"raise"``, or ``"skip"`` files and events at fault.
        index: Path of the index file; by default the user's own.
        progress: As in :class:`~hepfeed.EventDataset`.
        watch: As in :class:`~hepfeed.DataLoader`; one view shows all parts whose loops run.

    Attributes:
        loaders: The loaders by the names of their parts.
    """

    def __init__(
        self,
        spec: SampleSpec | Sequence[Any] | str | os.PathLike[str],
        batch_size: int | None = None,
        *,
        splits: Mapping[str, float] | None = None,
        num_workers: int | None = None,
        cache: CacheOption = "spec",
        cache_size: float | None = None,
        seed: int = 0,
        shuffle: Shuffle = True,
        split_by: str = "event",
        transform: Sequence[Transform] | Transform | None = None,
        on_nonfinite: Literal["raise", "zero", "drop"] | None = None,
        process_fn: Function | None = None,
        delivery_fn: Callable[[dict[str, Any]], Any] | None = None,
        outputs: Outputs | None = None,
        prebuild: Sequence[Mapping[str, Any]] = (),
        drop_last: bool = False,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        timeout: float = 0,
        composition: Composition = "exact",
        exhausted: Exhausted = "drain",
        max_events: int | None = None,
        window_events: int | None = None,
        window_bytes: int = 256 << 20,
        length_matched: bool = False,
        max_points: int | None = None,
        oversize: Oversize = "alone",
        rank: int | None = None,
        world_size: int | None = None,
        partitions: int | None = None,
        uneven: Uneven = "pad",
        worker_method: WorkerMethod = "process",
        device: str | torch.device | None = None,
        device_transform: Sequence[Transform] | Transform | None = None,
        on_error: OnError = "raise",
        index: str | os.PathLike[str] | None = None,
        progress: Progress | bool | None = None,
        watch: bool = False,
    ) -> None:
        splits = DEFAULT_SPLITS if splits is None else dict(splits)
        for name in splits:
            if not name.isidentifier() or hasattr(type(self), name) or name == "loaders":
                raise SpecError(f"split {name!r} can't be an attribute of the provider: choose another name")
        self._spec = as_spec(spec)
        chosen = self._spec.loader.chosen(
            batch_size=batch_size,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            window_events=window_events,
        )
        workers, kept = chosen["num_workers"], chosen["cache"] if cache == "spec" else cache
        self.loaders: dict[str, DataLoader[Any]] = {}
        training = "train" if "train" in splits else next(iter(splits))
        datasets = {
            name: EventDataset(
                self._spec,
                name,
                splits=splits,
                split_by=split_by,
                split_seed=seed,
                transform=transform,
                augment=name == training,
                on_nonfinite=on_nonfinite,
                on_error=on_error,
                cache=kept,
                cache_size=cache_size,
                index=index,
                progress=progress,
            )
            for name in splits
        }
        self._pool = ReaderPool(workers, worker_method)
        for name, dataset in datasets.items():
            trains = name == training
            self.loaders[name] = DataLoader(
                dataset,
                chosen["batch_size"],
                shuffle if trains else False,
                num_workers=workers,
                pin_memory=pin_memory,
                drop_last=drop_last and trains,
                timeout=timeout,
                prefetch_factor=chosen["prefetch_factor"] if workers else None,
                persistent_workers=workers > 0,
                seed=seed,
                process_fn=process_fn,
                delivery_fn=delivery_fn,
                outputs=outputs,
                prebuild=prebuild,
                composition=composition if trains else "exact",
                exhausted=exhausted if trains else "drain",
                max_events=max_events,
                window_events=chosen["window_events"],
                window_bytes=window_bytes,
                length_matched=length_matched,
                max_points=max_points,
                oversize=oversize,
                rank=rank,
                world_size=world_size,
                partitions=partitions,
                uneven=uneven,
                worker_method=worker_method,
                pool=self._pool,
                device=device,
                device_transform=device_transform,
                watch=watch,
            )

    def __getattr__(self, name: str) -> DataLoader[Any]:
        loaders: dict[str, DataLoader[Any]] = self.__dict__.get("loaders", {})
        if name in loaders:
            return loaders[name]
        raise AttributeError(f"the provider has no {name!r}: {nearest(name, [*loaders, 'close', 'classes', 'pids'])}")

    def __getitem__(self, name: str) -> DataLoader[Any]:
        if name not in self.loaders:
            raise SpecError(f"split {name!r} is not defined: {nearest(name, self.loaders)}")
        return self.loaders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaders)

    @property
    def classes(self) -> dict[str | int, int]:
        """Label -> class index."""
        return self._spec.classes

    @property
    def pids(self) -> list[int]:
        """Process numbers of the readers."""
        return self._pool.pids

    def close(self) -> None:
        """End the readers and give shared memory back; batches that are kept stay valid."""
        for loader in self.loaders.values():
            loader.close()
        self._pool.close()

    def __enter__(self) -> DataProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}: {len(loader.dataset)} events" for name, loader in self.loaders.items())  # type: ignore[arg-type]
        return f"DataProvider({parts}; {self._pool.num_readers} readers)"
