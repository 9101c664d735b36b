"""How ``hepfeed check --advice`` shows a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hepfeed.advice import Advice, Choice

__all__ = ["advice_lines"]


def advice_lines(advice: Advice) -> Iterator[RenderableType]:
    """Yield the table of choices, then what to do, then what is not predicted."""
    from rich.text import Text

    from hepfeed.bench.sheet import Sheet

    demanded = advice.today.demand is not None
    title = (
        f"Predicted for batches of {advice.batch_size:,} events on {_cores(advice.cores)}; "
        f"an epoch has {advice.events:,} events"
    )
    columns = ["what", "events/s", "x today", "limit", *(["the device waits"] if demanded else []), "needs"]
    rows = [_row(choice) for choice in advice.choices]
    yield Sheet(title, columns, rows, frozenset({"what", "limit", "needs"})).__rich__()
    for name, sentences in (("What to expect, and what to change", advice.sentences), ("Not predicted", advice.notes)):
        if sentences:
            yield Text(name, style="bold yellow")
        for sentence in sentences:
            yield Text(f"- {sentence}")


def _row(choice: Choice) -> list[str]:
    waits = [] if choice.demand is None else [f"{choice.demand.wait_s * 1e3:.2g} ms, {choice.demand.wait_fraction:.1%}"]
    return [choice.what, f"{choice.events_per_s:,.0f}", f"{choice.gain:.2f}", choice.limit, *waits, choice.needs]


def _cores(count: int) -> str:
    return f"{count} core{'' if count == 1 else 's'}"
