"""Predictions of ``hepfeed check --advice`` against what the loader then does.

Isolated: each input is predicted as it is, with one and with two readers, and measured with the real loader over whole
epochs of persistent readers, from the page cache.  Then the predictions of other storage are checked by writing the
set anew in each form, and those of a cache by filling and reading one.  A prediction holds that is within 30 % of what
is measured.  Nothing else may run meanwhile: predictions go by processor time, and what is measured by the clock.

    python benchmarks/bench_advice.py            # about 8 minutes
    python benchmarks/bench_advice.py --quick    # smaller sets, one round, about 2 minutes
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console

import hepfeed as hf
from hepfeed.advice import Advice, advise
from hepfeed.bench.feeds.inputs import INPUTS
from hepfeed.bench.record import Record
from hepfeed.bench.table_view import sheets
from hepfeed.check.forms import FORMS, Form
from hepfeed.index import EventIndex
from hepfeed.pool import ReaderPool
from hepfeed.prediction import Host, predict

BATCH = 128
READERS = (1, 2)
WITHIN = 0.3
MEASURED = ("lcd-auto", "lcd-100", "lcd-1", "lcd-contiguous", "jets-ragged", "hits-ragged")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        files: Of each class.
        events: Of all classes; of hits a sixteenth.
        rounds: Whose median counts.
        seconds: Of each measurement, and a tenth of those for a prediction.
    """

    files: int
    events: int
    rounds: int
    seconds: float


def write_anew(spec: hf.SampleSpec, form: Form, folder: Path) -> hf.SampleSpec:
    """Write all files of a specification again, the images in another form and the rest as it is."""
    index = EventIndex(spec)
    entries = []
    for number, sample in enumerate(spec.samples):
        for path in sample.files:
            copy = folder / str(number) / Path(path).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            source = next(source for source in index.sources if source.path == path)
            with h5py.File(path) as old, h5py.File(copy, "w") as new:
                for name in spec.names:
                    info = source.dataset(name)
                    options = form.options(info) if len(info.shape) > 1 else {}
                    new.create_dataset(info.key, data=old[info.key][...], **options)
        entries.append({**sample.entry(), "files": str(folder / str(number))})
    return hf.SampleSpec(entries)


def rate(dataset: hf.EventDataset, readers: int, sizes: Sizes) -> float:
    """Return events/s of whole epochs, after one that is not counted; the median of the rounds."""
    with hf.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=readers, persistent_workers=readers > 0, seed=0
    ) as loader:
        assert sum(len(batch["event"]) for batch in loader) == len(dataset), "events are missing"
        found = []
        for _ in range(sizes.rounds):
            events, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < sizes.seconds:
                events += sum(len(batch["event"]) for batch in loader)
            found.append(events / (time.perf_counter() - begun))
    return float(np.median(found))


def first_epoch(spec: hf.SampleSpec, folder: Path, readers: int, sizes: Sizes) -> float:
    """Return events/s of epochs that fill a cache, by readers that are up; the median of the rounds."""
    found = []
    pool = ReaderPool(readers)
    for number in range(-1, sizes.rounds):  # the first one without a cache: it starts the readers
        dataset = hf.EventDataset(spec, cache=None if number < 0 else folder / str(number))
        with hf.DataLoader(dataset, BATCH, shuffle=True, num_workers=readers, pool=pool, seed=0) as loader:
            begun = time.perf_counter()
            events = sum(len(batch["event"]) for batch in loader)
            found.append(events / (time.perf_counter() - begun))
            assert events == len(dataset), "events are missing"
    pool.close()
    return float(np.median(found[1:]))


def row(what: str, readers: int, predicted: float, measured: float) -> dict[str, Any]:
    """Return a row of the table."""
    ratio = predicted / measured
    within = 1 / (1 + WITHIN) <= ratio <= 1 + WITHIN
    return {
        "what": what,
        "readers": readers,
        "predicted, events/s": predicted,
        "measured, events/s": measured,
        "predicted / measured": ratio,
        "within 30 %": within,
    }


def as_it_is(name: str, spec: hf.SampleSpec, sizes: Sizes) -> tuple[Advice, list[dict[str, Any]]]:
    """Predict a specification and measure it, with its files in the page cache."""
    for sample in spec.samples:
        for path in sample.files:
            Path(path).read_bytes()
    advice = advise(spec, batch_size=BATCH, readers=max(READERS), seconds=10 * sizes.seconds)
    host = Host(advice.cores, advice.contention)
    dataset = hf.EventDataset(spec)
    rows = [
        row(name, readers, predict(advice.today.cost, readers, host).events_per_s, rate(dataset, readers, sizes))
        for readers in READERS
    ]
    return advice, rows


def otherwise(advice: Advice, spec: hf.SampleSpec, folder: Path, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Do what was predicted, and measure it."""
    readers = advice.readers
    told = {choice.what: choice for choice in advice.choices}
    for number, form in enumerate(FORMS):
        choice = told.get(f"files: {form.name}")
        if choice is not None:
            anew = hf.EventDataset(write_anew(spec, form, folder / f"form{number}"))
            yield row(f"the first set, {choice.what}", readers, choice.events_per_s, rate(anew, readers, sizes))
    filling, later = (next(choice for choice in advice.choices if choice.kind == kind) for kind in ("filling", "cache"))
    caches = folder / "caches"
    yield row(
        f"the first set, {filling.what}", readers, filling.events_per_s, first_epoch(spec, caches, readers, sizes)
    )
    cached = hf.EventDataset(spec, cache=caches / "0")
    yield row(f"the first set, {later.what}", readers, later.events_per_s, rate(cached, readers, sizes))
    sparse = next((choice for choice in advice.choices if choice.kind == "sparse"), None)
    if sparse is not None:
        steps = [{"sparsify": {"keys": ["ECAL", "HCAL"]}}]
        cached = hf.EventDataset(spec, cache=folder / "sparse", transform=steps)
        yield row(f"the first set, {sparse.what}", readers, sparse.events_per_s, rate(cached, readers, sizes))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sets, one round")
    parser.add_argument("--data", type=Path, help="keep the sets here, and take those that are there")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    sizes = Sizes(2, 1600, 1, 0.5) if options.quick else Sizes(4, 16_000, 3, 1.5)
    console, rows = Console(width=180), []
    with tempfile.TemporaryDirectory() as scratch:
        home = options.data or Path(scratch) / "sets"
        advices = {}
        for name in MEASURED:
            console.print(f"measuring {INPUTS[name].title} ...")
            spec = INPUTS[name].make(home, sizes.events, sizes.files).spec
            advice, found = as_it_is(INPUTS[name].title, spec, sizes)
            advices[name] = advice, spec
            rows += found
        console.print("measuring what was predicted of other storage ...")
        rows += otherwise(*advices["lcd-auto"], Path(scratch), sizes)
    held = sum(each["within 30 %"] for each in rows)
    notes = [f"{held} of {len(rows)} predictions are within {WITHIN:.0%} of what was measured."]
    settings = {"batch": BATCH, "quick": options.quick, "files": sizes.files, "events": sizes.events}
    settings |= {"rounds": sizes.rounds, "seconds": sizes.seconds}
    record = Record.now("table", "Predicted and measured events/s", settings, rows, notes)
    for shown in itertools.chain(sheets(record), notes):
        console.print(shown)
    if options.json:
        record.save(options.json)


if __name__ == "__main__":
    main()
