"""A Lightning callback that logs how a run is fed; needs ``hepfeed[lightning]``."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("hepfeed.feed_monitor needs lightning: pip install 'hepfeed[lightning]'") from error

from hepfeed.errors import SpecError
from hepfeed.exports import scalars
from hepfeed.stats import FeedStats

__all__ = ["FeedMonitor"]


class FeedMonitor(Callback):
    """Logs the figures of the training loader, each time those since it last did, to all loggers of the trainer.

    ::

        trainer = Trainer(logger=TensorBoardLogger("runs"), callbacks=[FeedMonitor()])
        trainer.fit(model, EventDataModule("lcd.yaml"))

    Names are those of :func:`hepfeed.exports.scalars`: ``hepfeed/events_per_s``, ``hepfeed/wait_fraction`` and so on.

    Args:
        every_n_steps: How often, in batches; None: as often as the trainer logs.
        prefix: Comes before all names.

    Raises:
        SpecError: The batches of the training do not come from hepfeed, or ``every_n_steps`` is below 1.
    """

    def __init__(self, every_n_steps: int | None = None, prefix: str = "hepfeed") -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise SpecError(f"every_n_steps must be 1 or more, not {every_n_steps}")
        self._every = every_n_steps
        self._prefix = prefix
        self._last: FeedStats | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the loader; what it did before is not this run's."""
        self._last = self._report(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, where it is time to."""
        every = self._every or max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if (batch_idx + 1) % every == 0:
            self._log(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is left of the epoch."""
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        stats = self._report(trainer)
        new = stats if self._last is None else stats.since(self._last)
        self._last = stats
        if new["batches"]:
            for logger in trainer.loggers:
                logger.log_metrics(scalars(new, self._prefix), step=trainer.global_step)

    def _report(self, trainer: Trainer) -> FeedStats:
        loader: Any = trainer.train_dataloader
        loader = getattr(loader, "loader", loader)  # an EventDataModule's own wraps it
        stats = loader.stats() if hasattr(loader, "stats") else None
        if not isinstance(stats, FeedStats):
            raise SpecError(
                f"FeedMonitor needs batches of a hepfeed.DataLoader or an EventDataModule, not of a"
                f" {type(loader).__name__}"
            )
        return stats
