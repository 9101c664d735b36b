"""The autotuner: which of several ways to compute the same is the fastest on this card.

Ways are timed when a case occurs for the first time on a card, and the fastest is kept, in memory and in a file for
later processes: ``tuning.json`` in ``$HEPFEED_CACHE``, else in ``hepfeed`` in the user's cache directory.  Results may
differ in their last bits between ways, so with ``torch.use_deterministic_algorithms(True)`` the fixed rule holds,
whatever is in the file.  ``HEPFEED_TUNE=0`` turns the autotuner off.

What goes wrong with the file (another program's, a full disk, a folder that can't be written to) is logged, and the
choice kept in memory alone.
"""

from __future__ import annotations

import functools
import logging
import os
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from hepfeed import __version__
from hepfeed.device.tuning_file import Choice, TuningFile

__all__ = ["Case", "choose", "entries", "forget"]

_logger = logging.getLogger("hepfeed")
_ROUNDS = 5
"""Timed runs of each way, after one that is not timed."""
_HEAD_START = 2_000_000
"""Clock cycles, about a millisecond, that the device waits while the timed runs are queued: else short ones would wait
for the host, and all ways take as long as a launch."""


@dataclass(frozen=True)
class Case:
    """What a choice may depend on; sizes that are alike are one case.

    Attributes:
        operator: Name.
        arithmetic: As of :func:`hepfeed.device.arithmetic.arithmetic_of`.
        in_channels: Of all groups, as are the output's.
        out_channels: See above.
        taps: Of the kernel.
        groups: Of channels.
        rows: Of the output, rounded up to a power of 2.
        pairs_per_row: Rounded up to a power of 2.
        card: Name and compute capability; empty on the host.
        version: Of hepfeed.
    """

    operator: str
    arithmetic: str
    in_channels: int
    out_channels: int
    taps: int
    groups: int
    rows: int
    pairs_per_row: int
    card: str
    version: str = field(default=__version__)

    @classmethod
    def of(
        cls,
        operator: str,
        arithmetic: str,
        channels: tuple[int, int],
        taps: int,
        groups: int,
        rows: int,
        pairs: int,
        device: torch.device,
    ) -> Case:
        """Return the case of sizes.

        Args:
            operator: See above.
            arithmetic: See above.
            channels: Of input and output.
            taps: See above.
            groups: See above.
            rows: Of the output.
            pairs: Of the kernel map.
            device: Of the tensors.
        """
        each = -(-pairs // max(rows, 1))
        return cls(operator, arithmetic, *channels, taps, groups, _power(rows), _power(each), _card(device))


Way = TypeVar("Way")

_choices: dict[Case, Choice] = {}
_read: set[str] = set()
"""Paths of the files whose choices are in memory."""
_lock = threading.Lock()


def choose(
    case: Case,
    variants: Sequence[Way],
    run: Callable[[Way], object],
    timer: Callable[[Callable[[], object]], float] | None = None,
) -> Way:
    """Return the fastest of some variants; the first one where the autotuner is off.

    Choices that were made before are used at once.  Others are made by running every variant some times; not while a
    CUDA graph is captured, and not on the host unless a timer is given.  A variant that takes more memory than there is
    is left out.

    Args:
        case: For which the choice holds.
        variants: One or more, the one of the fixed rule first; told apart by their ``str``.
        run: Computes with a variant, on the current device; results are thrown away.
        timer: Returns the seconds that a run takes; by default the median of some, by CUDA events on the current
            stream.

    Raises:
        torch.OutOfMemoryError: All variants take more memory than there is.
    """
    rule = variants[0]
    if len(variants) == 1 or os.environ.get("HEPFEED_TUNE") == "0" or torch.are_deterministic_algorithms_enabled():
        return rule
    names = {str(variant): variant for variant in variants}
    known = _known(case)
    if known is not None and known.variant in names:
        return names[known.variant]
    if timer is None:
        if not case.card or torch.cuda.is_current_stream_capturing():
            return rule
        timer = _cuda_seconds
    seconds = _measure(names, run, timer)
    fastest = min(seconds, key=lambda name: seconds[name])  # the earlier one of equals
    _keep(case, Choice(fastest, {name: round(spent * 1e6, 2) for name, spent in seconds.items()}))
    return names[fastest]


def entries() -> dict[Case, Choice]:
    """Return the choices in memory and in the file."""
    _known(None)
    with _lock:
        return dict(_choices)


def forget() -> None:
    """Drop all choices, and the file."""
    with _lock:
        _choices.clear()
        _read.clear()
    TuningFile.default().remove()


def _known(case: Case | None) -> Choice | None:
    """The choice for a case; reads the file once."""
    choice = None if case is None else _choices.get(case)
    if choice is None:
        file = TuningFile.default()
        with _lock:
            if str(file.path) not in _read:
                _read.add(str(file.path))
                for kept, found in file.read(Case).items():
                    _choices.setdefault(kept, found)
            choice = None if case is None else _choices.get(case)
    return choice


def _keep(case: Case, choice: Choice) -> None:
    with _lock:
        _choices[case] = choice
    _logger.debug("tuned %s: %s of %s us", case, choice.variant, choice.microseconds)
    TuningFile.default().add(case, choice)


def _measure(
    names: dict[str, Way], run: Callable[[Way], object], timer: Callable[[Callable[[], object]], float]
) -> dict[str, float]:
    seconds: dict[str, float] = {}
    shortage: torch.OutOfMemoryError | None = None
    for name, variant in names.items():
        try:
            seconds[name] = timer(functools.partial(run, variant))
        except torch.OutOfMemoryError as error:
            shortage = error
            _logger.debug("%s takes more memory than there is", name)
    if shortage is not None and not seconds:
        raise shortage
    return seconds


def _cuda_seconds(run: Callable[[], object]) -> float:
    """The median of some runs on the current stream."""
    run()
    events = [(_event(), _event()) for _ in range(_ROUNDS)]
    torch.cuda._sleep(_HEAD_START)  # type: ignore[no-untyped-call]
    for begin, end in events:
        begin.record()
        run()
        end.record()
    events[-1][1].synchronize()
    milliseconds: float = statistics.median(begin.elapsed_time(end) for begin, end in events)
    return milliseconds / 1e3


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _power(number: int) -> int:
    """The next power of 2, or 0."""
    return 1 << (number - 1).bit_length() if number > 0 else 0


def _card(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return _card_of(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _card_of(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)} {major}.{minor}"
