"""The figures of a feed as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text, TextType

from hepfeed.bottleneck import READER_STAGES

__all__ = ["bar", "stats_table"]

_WIDTH = 20
_REST = 49  # columns of text that the table takes beside bars
_WHO = 15  # of which those that say who spent the time
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(part: float, width: int = _WIDTH) -> str:
    """Return a bar of text that is full at 1."""
    eighths = round(8 * width * min(1.0, max(0.0, part)))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def stats_table(stats: Mapping[str, Any], title: TextType | None = None) -> Group:
    """Return each stage with its part of the readers' or of the consumer's time; queues, rates, and below the advice.

    Args:
        stats: As :class:`hepfeed.stats.FeedStats`.
        title: Instead of the events and their rate.

    Where the terminal is narrow, bars are shorter; then it is not said whose time it is, and at last there are no bars.
    """
    return Group(_Stages(stats, title), Text(stats["advice"], "bold"))


class _Stages:
    """The table, which is as wide as there is room for."""

    def __init__(self, stats: Mapping[str, Any], title: TextType | None) -> None:
        self._stats = stats
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rest = _REST if options.max_width >= _REST + _WIDTH // 4 else _REST - _WHO
        yield _table(self._stats, self._title, min(_WIDTH, max(0, options.max_width - rest)), rest == _REST)


def _table(stats: Mapping[str, Any], title: TextType | None, width: int, says_who: bool) -> Table:
    """Return the table with bars of some width, and with or without the last column."""
    rate = f"{stats['events']:,} events in {stats['batches']:,} batches, {stats['events_per_s']:,.0f} events/s"
    table = Table(title=title or rate, title_justify="left")
    table.add_column("stage", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("part of the time")
    if says_who:
        table.add_column("of", no_wrap=True)

    def add(name: str, seconds: float, part: float, who: str) -> None:
        shown = f"{bar(part, width)} {100 * part:3.0f} %" if width else f"{100 * part:.0f} %"
        table.add_row(name, f"{seconds:.3f}", shown, *([who] if says_who else []))

    readers = f"{stats['readers']} readers" if stats["readers"] != 1 else "1 reader"
    who = readers if stats["readers"] else "this process"
    for stage in READER_STAGES:
        add(stage, stats[stage], stats["busy_by_stage"][stage], who)
    if stats["readers"]:
        add("waiting", stats["waiting"], 1.0 - stats["busy"] if stats["seconds"] else 0.0, who)
    table.add_section()
    if stats["readers"] or stats["wait"]:
        add("wait", stats["wait"], stats["wait_fraction"], "this process")
    add("transfer", stats["transfer"], _over(stats["transfer"], stats["seconds"]), "this process")
    table.add_section()
    for name, said in _figures(stats):
        table.add_row(name, "", said)
    return table


def _figures(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what stands below the stages, where there is something to say."""
    queues = stats["queues"]
    figures = []
    if stats["bytes_read"]:
        read, inflated = stats["mb_read_per_s"], stats["mb_inflated_per_s"]
        figures.append(("MB/s", f"{read:,.1f} read" + (f", {inflated:,.1f} inflated" if inflated else "")))
    if queues["slots"]:
        figures.append(
            ("batches", f"{queues['planned']} planned, {queues['in_hand']} in hand, {queues['ready']} ready")
        )
        figures.append(("slots", f"{queues['slots_free']} of {queues['slots']} free"))
    asked = stats["cache_hits"] + stats["cache_misses"]
    if asked:
        figures.append(("cache", f"{100 * stats['cache_hits'] / asked:.0f} % of {asked:,} events"))
    figures += [(name, f"{stats[name]:,}") for name in ("restarts", "skipped", "removed", "copies") if stats[name]]
    return figures


def _over(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0
