"""A ``LightningDataModule`` of events, which ``LightningCLI`` can drive from YAML; needs ``hepfeed[lightning]``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

try:
    from lightning.pytorch import LightningDataModule
except ImportError as error:
    raise ImportError("hepfeed.lightning needs lightning: pip install 'hepfeed[lightning]'") from error

from hepfeed.dataset import EventDataset
from hepfeed.errors import SpecError, nearest
from hepfeed.feed_monitor import FeedMonitor
from hepfeed.loader import DataLoader
from hepfeed.provider import DataProvider
from hepfeed.spec import as_spec

__all__ = ["EventDataModule", "FeedMonitor"]

_Path = str | os.PathLike[str]
_BatchFunction = Callable[[dict[str, Any]], dict[str, Any]]


class EventDataModule(LightningDataModule):
    """Training, validation and test events of a specification, for Lightning's ``Trainer`` and ``LightningCLI``.

    One :class:`~hepfeed.DataProvider` feeds all loops.  It is made in :meth:`setup`, once the ranks are known, and
    closed in :meth:`teardown`.  All options are plain values, so that a YAML file can hold them and checkpoints keep
    them as hyperparameters::

        data:
          class_path: hepfeed.lightning.EventDataModule
          init_args: {spec: lcd.yaml, batch_size: 128, num_workers: 4}

    **Distributed.**  Each rank is fed its own part of the events, with the same number of batches on all ranks.
    Lightning leaves these loaders as they are, whatever ``use_distributed_sampler`` says.

    **Resuming.**  The order of an epoch follows from ``seed`` and the trainer's epoch.  The position in the epoch is
    part of Lightning's checkpoints (``"combined_loader"`` of the fit loop), and ``fit(ckpt_path=...)`` trains on just
    the batches that were left, whatever ``num_workers`` is.  With ``max_steps``, write checkpoints by
    ``every_n_train_steps``: from one that was written at the end of an epoch Lightning goes on within that epoch, and
    the next one is cut short.

    Args:
        spec: Path of the specification's file, or its list form.
        batch_size: Events of a batch, on each rank; this and the options below that have a default of
            :class:`~hepfeed.DataProvider` are taken from ``loader`` of the specification where they are not given.
        splits: Fractions by name; by default 0.8 ``train``, 0.1 ``val`` and 0.1 ``test``.
        num_workers: Readers of each rank; 0 reads in the training process.
        cache: ``"auto"``, ``"ram"``, a directory, None or ``"spec"``; as in :class:`~hepfeed.DataProvider`.
        cache_size: Most bytes of the cache.
        seed: Of the splits, the orders and the functions' random numbers.
        shuffle: Order of the training events.  ``Trainer(overfit_batches=...)`` turns it off.
        split_by: ``"event"``, ``"block"``, ``"file"`` or ``"key:NAME"``.
        transform: Steps as in a specification file, e.g. ``[{"sparsify": {"keys": "ECAL"}}, "cache"]``, or functions.
        on_nonfinite: ``"raise"``, ``"zero"`` or ``"drop"``; None does not look for NaN and infinity.
        process_fn: Called in the readers on each batch; for ``LightningCLI`` its import path.
        delivery_fn: Called in the training process on each batch.
        outputs: Structure of the batch, e.g. ``["ECAL", "label"]``.
        prebuild: Kernel maps that the readers build.
        drop_last: Leave out an incomplete last training batch.
        pin_memory: Page-lock batches, where there is a CUDA device.
        prefetch_factor: Batches ahead for each reader.
        timeout: Seconds to wait for a batch; 0 waits for ever.
        composition: ``"exact"`` or ``"random"`` quotas of the classes in training.
        exhausted: ``"drain"``, ``"wrap"`` or ``"stop"``: what happens once a class runs out in training.
        max_events: Most events of an epoch, of each part.
        window_events: Events of a window, at least.
        window_bytes: Most bytes of a window.
        length_matched: Batches of events with similar numbers of points.
        max_points: Most points of a batch.
        oversize: ``"alone"``, ``"raise"`` or ``"skip"``: events of more points than that.
        partitions: Canonical partitions of the order; by default the number of ranks.  A run can go on with any number
            of ranks that divides it.
        uneven: ``"pad"`` or ``"drop"``: what is done where ranks can't share the events equally.
        worker_method: ``"process"`` or ``"thread"``: what readers are.
        device: ``"cuda"``: each rank's batches are copied to its device one ahead of the loop.  None leaves that to
            Lightning, which copies a batch when it is due.
        device_transform: Steps that run on that device.
        watch: Show what the feed does on the standard error output, if that is a terminal; Lightning's progress bar is
            in its way.
        on_error: ``"raise"``, or ``"skip"`` files and events at fault.
        index: Path of the index file; by default the user's own.
        progress: Show a bar while files are opened; None: on a terminal.
        predict_split: Name of the split that ``Trainer.predict`` reads.

    Raises:
        SpecError: The specification is wrong, or ``predict_split`` is not one of ``splits``.
    """

    def __init__(
        self,
        spec: _Path | list[Any],
        batch_size: int | None = None,
        *,
        splits: dict[str, float] | None = None,
        num_workers: int | None = None,
        cache: _Path | None = "spec",
        cache_size: float | None = None,
        seed: int = 0,
        shuffle: bool | Literal["full", "window", "mixed"] = True,
        split_by: str = "event",
        transform: list[Any] | None = None,
        on_nonfinite: Literal["raise", "zero", "drop"] | None = None,
        process_fn: _BatchFunction | None = None,
        delivery_fn: Callable[[dict[str, Any]], Any] | None = None,
        outputs: Any = None,
        prebuild: list[dict[str, Any]] | None = None,
        drop_last: bool = False,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        timeout: float = 0,
        composition: Literal["exact", "random"] = "exact",
        exhausted: Literal["drain", "wrap", "stop"] = "drain",
        max_events: int | None = None,
        window_events: int | None = None,
        window_bytes: int = 256 << 20,
        length_matched: bool = False,
        max_points: int | None = None,
        oversize: Literal["alone", "raise", "skip"] = "alone",
        partitions: int | None = None,
        uneven: Literal["pad", "drop"] = "pad",
        worker_method: Literal["process", "thread"] = "process",
        device: str | None = None,
        device_transform: list[Any] | None = None,
        watch: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        index: _Path | None = None,
        progress: bool | None = None,
        predict_split: str = "test",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._spec = as_spec(spec)
        self._predict_split = predict_split
        self._shuffle = shuffle
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "splits": splits,
            "num_workers": num_workers,
            "cache": cache,
            "cache_size": cache_size,
            "seed": seed,
            "split_by": split_by,
            "transform": transform,
            "on_nonfinite": on_nonfinite,
            "process_fn": process_fn,
            "delivery_fn": delivery_fn,
            "outputs": outputs,
            "prebuild": prebuild or (),
            "drop_last": drop_last,
            "pin_memory": pin_memory,
            "prefetch_factor": prefetch_factor,
            "timeout": timeout,
            "composition": composition,
            "exhausted": exhausted,
            "max_events": max_events,
            "window_events": window_events,
            "window_bytes": window_bytes,
            "length_matched": length_matched,
            "max_points": max_points,
            "oversize": oversize,
            "partitions": partitions,
            "uneven": uneven,
            "worker_method": worker_method,
            "device": device,
            "device_transform": device_transform,
            "watch": watch,
            "on_error": on_error,
            "index": index,
            "progress": progress,
        }
        if splits is not None and predict_split not in splits and predict_split != "test":
            raise SpecError(f"predict_split={predict_split!r} is none of the splits: {nearest(predict_split, splits)}")
        self._provider: DataProvider | None = None

    @property
    def classes(self) -> dict[str | int, int]:
        """Label -> class index; known before :meth:`setup`."""
        return self._spec.classes

    @property
    def provider(self) -> DataProvider:
        """The loaders, between :meth:`setup` and :meth:`teardown`.

        Raises:
            SpecError: The module is not set up.
        """
        if self._provider is None:
            raise SpecError("the data module has no provider yet: call setup() first, or give it to a Trainer")
        return self._provider

    def prepare_data(self) -> None:
        """Open all files once, in one process, so that the other ranks find what they hold in the index."""
        if self.trainer is not None and self.trainer.world_size > 1:
            options = self._options
            names = ("on_error", "index", "progress")
            EventDataset(self._spec, **{name: options[name] for name in names})

    def setup(self, stage: str | None = None) -> None:
        """Make the provider, unless it is there; the same for all stages."""
        if self._provider is None:
            self._provider = DataProvider(self._spec, **self._options, **self._of_trainer())

    def _of_trainer(self) -> dict[str, Any]:
        """Return the options that the trainer decides."""
        options: dict[str, Any] = {"shuffle": self._shuffle}
        if self.trainer is None:
            return options
        if self.trainer.overfit_batches:  # type: ignore[attr-defined]
            options["shuffle"] = False
        ranks = self.trainer.distributed_sampler_kwargs  # of data parallelism alone, where a model is divided, too
        if ranks is not None:
            options.update(rank=ranks["rank"], world_size=ranks["num_replicas"])
        return options

    def teardown(self, stage: str | None = None) -> None:
        """End the readers and give shared memory back."""
        if self._provider is not None:
            self._provider.close()
            self._provider = None

    def on_exception(self, exception: BaseException) -> None:
        """End the readers where training failed."""
        self.teardown()

    def train_dataloader(self) -> _Feed:
        """Return the batches of the part ``train``, or of the first one."""
        return self._feed("train" if "train" in self.provider.loaders else next(iter(self.provider)))

    def val_dataloader(self) -> _Feed | list[_Feed]:
        """Return the batches of the part ``val``; none where ``fit`` has no such part."""
        if "val" not in self.provider.loaders and self._fitting():
            return []
        return self._feed("val")

    def test_dataloader(self) -> _Feed:
        """Return the batches of the part ``test``."""
        return self._feed("test")

    def predict_dataloader(self) -> _Feed:
        """Return the batches of the part ``predict_split``."""
        return self._feed(self._predict_split)

    def _fitting(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "fit"

    def _feed(self, name: str) -> _Feed:
        return _Feed(self.provider[name])


class _Epoch:
    """The trainer's epoch; it stands where Lightning looks for what has a ``set_epoch``.

    Attributes:
        number: None until a trainer tells it.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def sampler(self) -> _Epoch:
        """Itself: Lightning calls ``loader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch that begins."""
        self.number = epoch


class _Feed:
    """A loader as Lightning's loops use it.

    It is no torch ``DataLoader``, so that Lightning does not take it apart to shard it with a sampler of its own: the
    loader knows its rank.

    Attributes:
        loader: Makes the batches.
        batch_sampler: Tells which order of events the next iteration has.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.batch_sampler = _Epoch()
        self._state: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning asks for the first iterator before it tells the epoch.
        epoch = self.batch_sampler.number
        state, self._state = self._state, None
        if state is not None and epoch in (None, state["epoch"]):
            self.loader.load_state_dict(state)
        elif epoch is not None:
            self.loader.set_epoch(epoch)
        yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last delivered batch."""
        return self.loader.state_dict() if self._state is None else self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on at a position, unless its epoch is over by then."""
        self._state = state
