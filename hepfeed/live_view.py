"""The view of feeds that run: what each of their loaders did since the last look."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from hepfeed.errors import SpecError
from hepfeed.stats import FeedStats
from hepfeed.stats_table import stats_table

__all__ = ["FeedView", "sparkline"]

_HISTORY = 30
_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float]) -> str:
    """Return a line of text as high as the values, the largest of which is full."""
    most = max(values, default=0.0)
    if most <= 0:
        return _LEVELS[0] * len(values)
    return "".join(_LEVELS[round((len(_LEVELS) - 1) * max(0.0, value) / most)] for value in values)


class FeedView:
    """Tables of the loaders of one process, each with the time since the one before, and the history of its speed.

    A loader without an epoch has one line.  One whose epoch waits for a long step of the training has told nothing new,
    and keeps its table.
    """

    def __init__(self) -> None:
        self._before: dict[str, FeedStats] = {}
        self._lately: dict[str, FeedStats] = {}
        self._histories: dict[str, deque[float]] = {}

    def look(self, loaders: Mapping[str, FeedStats], head: RenderableType = "") -> Group:
        """Return what there is to show.

        Args:
            loaders: Figures since the start of each loader, by its name.
            head: What stands above.
        """
        tables: list[RenderableType] = [head] if head else []
        for name, stats in loaders.items():
            history = self._histories.setdefault(name, deque(maxlen=_HISTORY))
            if stats != self._before.get(name):
                self._lately[name] = self._since(name, stats)
                history.append(self._lately[name]["events_per_s"])
                self._before[name] = stats
            elif not stats["queues"]["slots"]:
                self._lately[name] = stats.since(stats)
            tables.append(self._shown(name, stats, self._lately[name], list(history)))
        return Group(*tables)

    def _since(self, name: str, stats: FeedStats) -> FeedStats:
        before = self._before.get(name)
        if before is None:
            return stats
        try:
            return stats.since(before)
        except SpecError:  # another loader has its name by now
            return stats

    def _shown(self, name: str, stats: FeedStats, lately: FeedStats, history: list[float]) -> RenderableType:
        runs = lately["seconds"] > 0
        speed = f"{lately['events_per_s']:,.0f} events/s" if runs else "idle"
        done = f"{stats['events']:,} events in {stats['batches']:,} batches"
        title = Text.assemble((name, "bold"), f"  {speed}  ", (sparkline(history), "cyan"), f"  {done}")
        return stats_table(lately, title) if runs else title
