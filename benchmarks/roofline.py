"""What each layer of a sparse network takes at least on a card: bounds from its maker's figures, nothing is measured.

Kernel maps are real ones, of random walks as tracks of a time projection chamber and of calorimeter images (see
``hepfeed.bench``).  A layer reads and writes every number of features, weights, gradients and pairs once at least, and
multiplies for each pair; the bound is the larger of bytes over bandwidth and operations over the peak.

    python benchmarks/roofline.py                                  # all cards, bfloat16
    python benchmarks/roofline.py --cards H100 --numbers float32   # one card
    python benchmarks/roofline.py --json roofline.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hepfeed.bench.cards import CARDS
from hepfeed.bench.kernels import KINDS, Case, Kind, cases
from hepfeed.bench.record import Record
from hepfeed.cli.bench_output import PlotStyle, deliver


def bounds(sites: Sequence[int], channels: Sequence[int], kind: Kind, cards: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each case: its name, bytes, operations, and the seconds of each card."""
    return [_row(case, cards) for case in cases(torch.device("cpu"), sites, channels, [kind])]


def _row(case: Case, cards: Sequence[str]) -> dict[str, Any]:
    work = case.layer.work(case.products) if case.products else case.layer.map_work
    seconds = {name: case.bound(CARDS[name]) for name in cards}
    return {"what": str(case), "bytes": work.bytes, "flops": work.flops, "bound_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", nargs="+", choices=CARDS, default=list(CARDS), metavar="CARD", help=", ".join(CARDS))
    parser.add_argument("--sites", type=int, nargs="+", default=[20_000, 100_000], help="multiples of 16")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--numbers", choices=KINDS, default="bfloat16")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows = bounds(options.sites, options.channels, options.numbers, options.cards)
    title = "bound, not measured: microseconds that the card can't beat"
    settings = {"numbers": options.numbers, "sites": options.sites, "channels": options.channels}
    notes = [f"{name}: {CARDS[name].source}" for name in options.cards]
    record = Record.now("table", title, settings, [_said(row) for row in rows], notes)
    deliver(record, options.json, None, PlotStyle.default)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of the table."""
    numbers = {"MB": row["bytes"] / 1e6, "GFLOP": row["flops"] / 1e9}
    return {"what": row["what"], **numbers, **{name: 1e6 * seconds for name, seconds in row["bound_s"].items()}}


if __name__ == "__main__":
    main()
