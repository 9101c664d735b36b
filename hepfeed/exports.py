"""The figures of feeds for those who watch runs: scalars for TensorBoard, metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hepfeed.bottleneck import READER_STAGES
from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["FeedCollector", "prometheus_text", "scalars", "write_scalars"]

_NOT_SCALARS = ("by_reader", "setting")

_STAGES = (*READER_STAGES, "wait", "transfer")
_COUNTERS = {
    "events": ("events", "Events that the loop got."),
    "batches": ("batches", "Batches that the loop got."),
    "skipped": ("skipped_events", "Events left out by on_error='skip'."),
    "removed": ("removed_events", "Events that steps of the pipeline took out."),
    "restarts": ("reader_restarts", "Readers that died and were replaced."),
    "copies": ("copied_batches", "Batches copied because the loop kept earlier ones."),
    "cache_hits": ("cache_hits", "Events that came from the cache."),
    "cache_misses": ("cache_misses", "Events that the cache did not have."),
    "chunks": ("chunks", "Chunks that were decoded."),
    "bytes_read": ("read_bytes", "Bytes read from files or the cache."),
    "bytes_inflated": ("inflated_bytes", "Bytes after decoding."),
    "bytes_sent": ("sent_bytes", "Bytes copied to a device."),
    "seconds": ("epoch_seconds", "Time in which epochs ran."),
    "starting": ("start_seconds", "Time that the loop waited for the first reader and for memory."),
    "no_room": ("no_room_seconds", "Time that the loop waited while readers had no slot to fill."),
}
"""Key of the figures -> name, without ``hepfeed_`` and ``_total``, and help."""


class ScalarWriter(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` and ``tensorboardX.SummaryWriter`` have."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number of a step."""
        ...


class Loader(Protocol):
    """What is asked for its figures."""

    def stats(self) -> Mapping[str, Any]:
        """Return them."""
        ...


def scalars(stats: Mapping[str, Any], prefix: str = "hepfeed") -> dict[str, float]:
    """Return the numbers of a feed by flat names, such as ``hepfeed/events_per_s`` and ``hepfeed/queues/ready``.

    They are those of :class:`hepfeed.stats.FeedStats`, but for ``by_reader``, ``setting`` and what is no number.  They
    are what most loggers take::

        self.log_dict(scalars(loader.stats()))          # in a LightningModule
        wandb.log(scalars(loader.stats().since(earlier)))   # of the time since an earlier report

    Args:
        stats: What ``loader.stats()`` returns.
        prefix: Comes before all names; empty for none.
    """
    found: dict[str, float] = {}
    for key, value in stats.items():
        if key not in _NOT_SCALARS:
            found.update(_flat(f"{prefix}/{key}" if prefix else key, value))
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{name}/{key}", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def write_scalars(writer: ScalarWriter, stats: Mapping[str, Any], step: int, prefix: str = "hepfeed") -> None:
    """Write the numbers of a feed for TensorBoard.

    ::

        writer = torch.utils.tensorboard.SummaryWriter("runs/1")    # pip install 'hepfeed[monitor]'
        for step, batch in enumerate(loader):
            ...
            if step % 100 == 0:
                write_scalars(writer, loader.stats(), step)

    Args:
        writer: Where to.
        stats: What ``loader.stats()`` returns, or ``.since(earlier)`` of it.
        step: Of the training.
        prefix: As in :func:`scalars`.
    """
    for name, value in scalars(stats, prefix).items():
        writer.add_scalar(name, value, step)


def prometheus_text(stats_by_name: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of feeds in Prometheus' text format.

    What grows is a counter, such as ``hepfeed_events_total{loader="train"}`` and
    ``hepfeed_stage_seconds_total{loader="train",stage="inflate"}``; what is so now is a gauge, such as
    ``hepfeed_queue_batches{loader="train",queue="ready"}``.  Rates and fractions are left to Prometheus:
    ``rate(hepfeed_events_total[1m])`` are events a second, and ``rate(hepfeed_stage_seconds_total{stage="wait"}[1m])``
    is the part of its time that the loop waits.

    Args:
        stats_by_name: What ``loader.stats()`` returns, by the name for the label ``loader``.

    Raises:
        SpecError: The package prometheus-client is not installed.
    """
    exposition, registry = _prometheus("exposition"), _prometheus("registry").CollectorRegistry(auto_describe=False)
    registry.register(_Reports(stats_by_name))
    text: str = exposition.generate_latest(registry).decode()
    return text


class FeedCollector:
    """Figures of loaders that are up to date whenever Prometheus asks.

    ::

        import prometheus_client                            # pip install 'hepfeed[monitor]'

        prometheus_client.REGISTRY.register(FeedCollector({"train": loader}))
        prometheus_client.start_http_server(9400)           # or where the program has one already

    Metrics are those of :func:`prometheus_text`.

    Args:
        loaders: By the name for the label ``loader``; they are kept alive.

    Raises:
        SpecError: The package prometheus-client is not installed.
    """

    def __init__(self, loaders: Mapping[str, Loader]) -> None:
        _prometheus("core")
        self._loaders = dict(loaders)

    def describe(self) -> list[Metric]:
        """Return nothing: no loader is asked for its figures before the first request."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as a registry asks for them."""
        return _metrics({name: loader.stats() for name, loader in self._loaders.items()})


class _Reports:
    """Figures as they are."""

    def __init__(self, stats_by_name: Mapping[str, Mapping[str, Any]]) -> None:
        self._stats_by_name = stats_by_name

    def collect(self) -> Iterator[Metric]:
        return _metrics(self._stats_by_name)


def _metrics(feeds: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    core = _prometheus("core")
    counter, gauge = core.CounterMetricFamily, core.GaugeMetricFamily

    def family(kind: Any, name: str, text: str, *labels: str) -> Any:
        return kind(f"hepfeed_{name}", text, labels=["loader", *labels])

    for key, (name, text) in _COUNTERS.items():
        metric = family(counter, name, text)
        for loader, stats in feeds.items():
            metric.add_metric([loader], stats[key])
        yield metric
    stages = family(counter, "stage_seconds", "Time in a stage: of all readers together, and of the loop.", "stage")
    by_reader = family(counter, "reader_stage_seconds", "Time of a reader in a stage.", "reader", "stage")
    readers = family(gauge, "readers", "Readers; 0 where the process of the loop reads.")
    queues = family(gauge, "queue_batches", "Batches on their way: planned, in_hand of readers, or ready.", "queue")
    slots = family(gauge, "slots", "Slots of shared memory.")
    free = family(gauge, "slots_free", "Slots of shared memory that hold nothing.")
    bottleneck = family(gauge, "bottleneck", "1 for what limits the feed since its start.", "bottleneck")
    for loader, stats in feeds.items():
        for stage in _STAGES:
            stages.add_metric([loader, stage], stats[stage])
        for number, row in enumerate(stats["by_reader"]):
            for stage, seconds in zip(READER_STAGES, row):
                by_reader.add_metric([loader, str(number), stage], seconds)
        readers.add_metric([loader], stats["readers"])
        for queue in ("planned", "in_hand", "ready"):
            queues.add_metric([loader, queue], stats["queues"][queue])
        slots.add_metric([loader], stats["queues"]["slots"])
        free.add_metric([loader], stats["queues"]["slots_free"])
        bottleneck.add_metric([loader, stats["bottleneck"]], 1)
    yield from (stages, by_reader, readers, queues, slots, free, bottleneck)


def _prometheus(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"prometheus_client.{module}")
    except ImportError:
        raise SpecError(
            "metrics for Prometheus need the package prometheus-client: pip install 'hepfeed[monitor]'"
        ) from None
