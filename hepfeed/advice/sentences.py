"""Predictions in words: what to expect, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hepfeed.advice.report import Choice, Kind

__all__ = ["sentences"]

_WORTH = 1.1
"""A smaller gain is within what predictions are wrong by."""
_STARVING = 0.05
_LIMITS = {
    "read": "getting bytes from the files",
    "inflate": "decompression",
    "scatter": "copying events to batches",
    "transform": "the steps",
    "other": "the readers' own work",
    "consumer": "handing batches over in the training process",
    "cores": "the processors, which readers and training process share",
    "disk": "the disk",
}


def sentences(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return what there is to say about choices, of which the first is today's."""
    today = choices[0]
    better = [best for kind in ("readers", "form", "cache", "sparse") if (best := _best(choices, kind)) is not None]
    better.sort(key=lambda choice: -choice.gain)
    said = [*_today(today), *(_said(choice) for choice in better)]
    if not better:
        said.append(f"Nothing that was tried is more than {_WORTH - 1:.0%} faster.")
    elif today.demand is not None and today.demand.wait_fraction > _STARVING:
        said += _enough(better)
    said += (
        f"shuffle='full' would decode chunks again and again: {choice.events_per_s:,.0f} events/s."
        for choice in choices
        if choice.kind == "shuffle" and choice.gain * _WORTH < 1
    )
    return tuple(said)


def _best(choices: Sequence[Choice], kind: Kind) -> Choice | None:
    """Return the fastest choice of a kind, where it is worth it; of those that are about as fast the first."""
    some = [choice for choice in choices if choice.kind == kind and choice.gain >= _WORTH]
    if not some:
        return None
    fastest = max(choice.gain for choice in some)
    return next(choice for choice in some if choice.gain * _WORTH >= fastest)


def _today(today: Choice) -> Iterator[str]:
    who = f"{today.readers} reader{'s deliver' if today.readers > 1 else ' delivers'}"
    who = who if today.readers else "the training process itself reads"
    yield f"Today {who} {today.events_per_s:,.0f} events/s; the limit is {_LIMITS[today.limit]}."
    if today.demand is not None:
        wanted = today.demand
        step = f"A device that takes {wanted.step_s * 1e3:g} ms a step asks for {wanted.events_per_s:,.0f} events/s"
        busy = f"it waits {wanted.wait_s * 1e3:.2g} ms for a batch, {wanted.wait_fraction:.1%} of the time"
        kept = "is kept busy" if wanted.wait_fraction <= _STARVING else "starves"
        yield f"{step} and {kept}: {busy}."
        if wanted.wait_fraction <= _STARVING < wanted.serial_s / (wanted.step_s + wanted.serial_s):
            yield (
                f"A loop that waits for the end of each step, to look at its loss for instance, adds the"
                f" {wanted.serial_s * 1e3:.2g} ms that the training process needs for a batch to every step."
            )


def _said(choice: Choice) -> str:
    gain = f"{choice.gain:.1f} x today's, {choice.events_per_s:,.0f} events/s"
    if choice.kind == "readers":
        return f"With {choice.command}: {gain}."
    if choice.kind == "form":
        return f"Write the files anew ({choice.what.removeprefix('files: ')}): {gain}. {choice.command}"
    cached = choice.what.removesuffix(": later epochs")
    return f"With a {cached}: {gain}; {choice.needs}. {choice.command}"


def _enough(better: list[Choice]) -> Iterator[str]:
    """Say which of the better choices keep the device busy."""
    enough = [choice.what for choice in better if choice.demand and choice.demand.wait_fraction <= _STARVING]
    if enough:
        yield f"This keeps it busy: {', or '.join(enough)}."
    else:
        yield "None of these alone keeps it busy for more than 95 % of the time."
