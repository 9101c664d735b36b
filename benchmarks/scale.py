"""How start-up time, memory and events/s grow with the number of events and of files.

python benchmarks/scale.py [--events 100000,1000000,10000000] [--files 100,2000,20000] [--quick] [--json FILE]

Sets of real files are written, measured and deleted one after another: all numbers of events in the fewest files, and
the largest number of events in all numbers of files.  Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scale_sets import EVENT_BYTES, make_set

from hepfeed.bench.record import Record
from hepfeed.cli.bench_output import PlotStyle, deliver, numbers_of
from hepfeed.errors import ResourceError, SpecError
from hepfeed.progress import Progress, progress_bars

PROBE = Path(__file__).with_name("scale_probe.py")
FULL = ("100000,1000000,10000000", "100,2000,20000", 10.0)
QUICK = ("10000,100000", "20,200", 1.0)
"""Events, files and seconds."""
STARTS = 3
"""With the index; the median counts."""
_FILE_BYTES = 12_000  # of HDF5's own, at least
_NOTES = [
    "open: until the data set knows all files; first: from then on until the first batch. cold has no index, and opens"
    " each file; warm has one. The page cache is warm in both.",
    "memory: private bytes of the parent above those after the imports, at most, over two epochs; slots of the ring are"
    " shared memory, and not among them.",
    "events/s: median of the epochs from the second on; the first one introduces the readers to the files. Every epoch"
    " is checked by the number of its events and two sums over their numbers.",
]


@dataclass
class Row:
    """What was found of one set.

    Attributes:
        events: In the set.
        files: In the set.
        set_bytes: On disk.
        cold_open_s: Without an index.
        cold_first_s: From then on until the first batch.
        warm_open_s: With the index, median.
        warm_first_s: From then on until the first batch, median.
        opened_bytes: Of the parent, once the set is open.
        most_bytes: Of the parent, at most.
        reader_bytes: Of the largest reader.
        first_rate: Events/s of the first epoch.
        rates: Events/s of each epoch from the second on.
        bottleneck: As the loader reports it, of the epochs from the second on.
    """

    events: int
    files: int
    set_bytes: int
    cold_open_s: float
    cold_first_s: float
    warm_open_s: float
    warm_first_s: float
    opened_bytes: int
    most_bytes: int
    reader_bytes: int
    first_rate: float
    rates: list[float]
    bottleneck: str


def measure(events: int, files: int, options: argparse.Namespace, progress: Progress) -> Row:
    """Write a set, measure it and delete it."""
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="hepfeed-scale-") as scratch:
        folder = Path(scratch) / "set"
        need = events * EVENT_BYTES + files * _FILE_BYTES
        free = shutil.disk_usage(scratch).free
        if free < 2 * need:
            raise ResourceError(
                f"a set of {events} events needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {scratch!r}:"
                " name another --directory, or fewer --events"
            )
        make_set(folder, events, files, progress)
        size = sum(path.stat().st_size for path in folder.rglob("*.h5"))

        def probe(what: str) -> dict[str, Any]:
            environment = {**os.environ, "HEPFEED_INDEX": f"{scratch}/index.sqlite"}
            numbers = map(str, (options.readers, options.batch_size, options.seconds))
            command = [sys.executable, str(PROBE), what, str(folder), *numbers]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}")
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        what = f"measuring {events:,} events in {files:,} files"
        cold = probe("start")
        progress(what, 1, STARTS + 2)
        warm = []
        for done in range(STARTS):
            warm.append(probe("start"))
            progress(what, done + 2, STARTS + 2)
        fed = probe("feed")
        progress(what, STARTS + 2, STARTS + 2)
        opened, first = (float(np.median([one[key] for one in warm])) for key in ("open_s", "first_s"))
        return Row(events, files, size, cold["open_s"], cold["first_s"], opened, first, **fed)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", help=f"numbers of events, by commas (default: {FULL[0]})")
    parser.add_argument("--files", help=f"numbers of files, by commas (default: {FULL[1]})")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seconds", type=float, help=f"of epochs that are timed, at least (default: {FULL[2]:g})")
    parser.add_argument(
        "--quick", action="store_true", help=f"other defaults: {QUICK[0]} events, {QUICK[1]} files, {QUICK[2]:g} s"
    )
    parser.add_argument("--directory", help="where sets are written; by default where temporary files are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .png, .svg or .pdf")
    parser.add_argument("--style", choices=[style.value for style in PlotStyle], default="default")
    options = parser.parse_args()
    for name, default in zip(("events", "files", "seconds"), QUICK if options.quick else FULL):
        if getattr(options, name) is None:
            setattr(options, name, default)
    try:
        if not (options.readers >= 0 and options.batch_size > 0 and 0 < options.seconds < math.inf):
            raise SpecError("--readers must be 0 or more, --batch-size 1 or more, and --seconds above 0 and finite")
        if options.directory and not Path(options.directory).is_dir():
            raise SpecError(f"--directory must be a directory that is there, not {options.directory!r}")
        events, files = sorted(numbers_of("events", options.events)), sorted(numbers_of("files", options.files))
        if events[0] < files[0] or events[-1] < files[-1]:
            raise SpecError("each file needs an event: give more --events, or fewer --files")
        sets = [(count, files[0]) for count in events] + [(events[-1], count) for count in files[1:]]
        with progress_bars() as progress:
            rows = [measure(*one, options, progress) for one in sets]
    except (SpecError, ResourceError) as error:
        parser.error(str(error))
    settings = {"readers": options.readers, "batch_size": options.batch_size, "event_bytes": EVENT_BYTES}
    title = f"Growth with events and files: {EVENT_BYTES} bytes an event, {options.readers} readers"
    record = Record.now("scale", title, settings, [asdict(row) for row in rows], _NOTES)
    deliver(record, options.json, options.plot, PlotStyle(options.style))


if __name__ == "__main__":
    main()
