"""What to stage, and when: one to a thousand nodes that read a set over a shared file system.  Simulated, not measured.

python benchmarks/cluster.py [--file-system flash] [--nodes 1,10,100,1000] [--json FILE] [--plot FILE]
python benchmarks/cluster.py --validate [--directory DIR]

The model and its assumptions are those of hepfeed.bench.cluster.  --validate measures hepfeed at one and two processes
on this machine, page cache warm and cold, and compares with what the model makes of this machine's parameters.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster_validate import validate

from hepfeed.bench.cluster import PLACES, Cluster, FileSystem, Node, Run, Stored, Work, break_even, run, start_s
from hepfeed.bench.record import Record
from hepfeed.cli.bench_output import PlotStyle, deliver, numbers_of
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.progress import progress_bars


@dataclass(frozen=True)
class Known:
    """A file system whose figures are published.

    Attributes:
        shared: Its figures.
        source: Who says so; and what was assumed.
    """

    shared: FileSystem
    source: str


_SFS = "https://support.huaweicloud.com/intl/en-us/productdesc-sfsturbo/sfsturbo_01_0005.html"
_STAT = "metadata: 100,000 looks/s at one Lustre server (Lustre Operations Manual 2.x, table of practical ranges)"
KNOWN = {
    "disk": Known(
        FileSystem(8e9, 250e3, 100e3, 3.5e-3),
        f"8 GB/s, 250,000 requests/s, 2 to 5 ms: a service on magnetic disks, 20 MB/s a TiB ({_SFS}); {_STAT}",
    ),
    "flash": Known(
        FileSystem(20e9, 1e6, 100e3, 2e-3),
        f"20 GB/s, 1,000,000 requests/s, 1 to 3 ms: a service on flash, 250 MB/s a TiB ({_SFS}); {_STAT}",
    ),
    "leadership": Known(
        FileSystem(10e12, 10e6, 1e6, 0.5e-3),
        "10 TB/s, 10,000,000 requests/s: the largest Lustre in production (Lustre Operations Manual 2.x, table of"
        " practical ranges); assumed: 0.5 ms, ten metadata servers of 100,000 looks/s",
    ),
}
OPTIONS: dict[str, tuple[float | None, str]] = {
    "gb-per-s": (None, "of the file system, 1e9 bytes"),
    "requests-per-s": (None, "of the file system"),
    "metadata-per-s": (None, "opens and looks of the file system"),
    "latency-ms": (None, "of the file system"),
    "readers": (4, "a node"),
    "link-gb-per-s": (12.5, "of a node: 100 Gbit/s"),
    "memory-gb": (256, "of a node, for its page cache"),
    "disk-gb": (1600, "of a node, free"),
    "disk-gb-per-s": (3.0, "of a node"),
    "disk-latency-ms": (0.1, "of a node"),
    "events": (50e6, "of an epoch, on all nodes together"),
    "files": (20000, "of the sources"),
    "parts": (200, "files of the cache"),
    "source-bytes": (6000, "an event, compressed"),
    "source-request-bytes": (750e3, "125 events that share chunks, which lie one after another"),
    "source-us": (75, "of a reader, to decode an event"),
    "cache-bytes": (2600, "an event"),
    "cache-request-bytes": (2600, "a run of events"),
    "cache-in-flight": (128, "reads that a reader begins together"),
    "cache-us": (12, "of a reader, to copy an event"),
    "parent-us": (2, "of the training process, to plan and hand over an event"),
    "batch-size": (512, "of all devices of a node together"),
    "step-ms": (5, "of the devices"),
    "open-ms": (2, "of a process, to describe a file that the index does not know"),
    "epochs": (20, "of a training run"),
}
"""Default and help; the defaults of an event are those of calorimeter images of 68 kB that are 4 % occupied."""


def build(options: argparse.Namespace) -> Cluster:
    """Return the cluster that options describe, of one node."""
    o = options
    given = {
        "bytes_per_s": o.gb_per_s and o.gb_per_s * 1e9,
        "requests_per_s": o.requests_per_s,
        "metadata_per_s": o.metadata_per_s,
        "latency_s": None if o.latency_ms is None else o.latency_ms * 1e-3,
    }
    known = asdict(KNOWN[o.file_system].shared)
    shared = FileSystem(**(known | {name: value for name, value in given.items() if value is not None}))
    disk = (o.disk_gb * 1e9, o.disk_gb_per_s * 1e9, o.disk_latency_ms * 1e-3)
    node = Node(int(o.readers), o.link_gb_per_s * 1e9, o.memory_gb * 1e9, *disk)
    sources = Stored(int(o.files), o.source_bytes, o.source_request_bytes, 1, o.source_us * 1e-6)
    cache = Stored(int(o.parts), o.cache_bytes, o.cache_request_bytes, int(o.cache_in_flight), o.cache_us * 1e-6)
    times = (o.parent_us * 1e-6, int(o.batch_size), o.step_ms * 1e-3, o.open_ms * 1e-3)
    return Cluster(1, node, shared, Work(int(o.events), sources, cache, *times))


def simulate(cluster: Cluster, nodes: list[int], epochs: int) -> list[dict[str, Any]]:
    """Return a row for each number of nodes and each place."""
    rows = []
    for count in nodes:
        one = replace(cluster, nodes=count)
        runs = {place: run(one, place, epochs) for place in PLACES}
        starts = {"start_s": start_s(one, index=False), "start_with_index_s": start_s(one, index=True)}
        rows += [{"nodes": count, **starts, **_row(runs[place], runs)} for place in PLACES]
    return rows


def _row(one: Run, runs: dict[Any, Run]) -> dict[str, Any]:
    row: dict[str, Any] = {"place": one.place, "impossible": one.impossible, "prepare_s": one.prepare_s}
    if one.epochs:
        row |= {"first": asdict(one.epochs[0]), "last": asdict(one.epochs[-1]), "total_s": one.total_s(len(one.epochs))}
        row["pays_after"] = break_even(runs["sources"], one)
        row["staging_pays_after"] = break_even(runs["shared cache"], one)
    return row


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1,2,4,8,16,32,64,128,256,512,1000", help="numbers of nodes, by commas")
    parser.add_argument(
        "--file-system", choices=[*KNOWN], default="flash", help="whose figures to take where none come"
    )
    for name, (default, text) in OPTIONS.items():
        said = "of --file-system" if default is None else f"{default:,g}"
        parser.add_argument(f"--{name}", type=float, default=default, metavar="N", help=f"{text} (default: {said})")
    parser.add_argument("--validate", action="store_true", help="measure hepfeed here, and compare")
    parser.add_argument("--directory", help="of --validate: where the set is written, on the disk to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .png, .svg or .pdf")
    parser.add_argument("--style", choices=[style.value for style in PlotStyle], default="default")
    options = parser.parse_args()
    try:
        if options.validate:
            with progress_bars() as progress:
                record = validate(options.directory, progress)
        else:
            _check(options)
            cluster, epochs = build(options), int(options.epochs)
            rows = simulate(cluster, numbers_of("nodes", options.nodes), epochs)
            notes = [
                "simulated, not measured: see hepfeed.bench.cluster for the model, and --validate for a check of it",
                f"file system: {options.file_system}: {KNOWN[options.file_system].source}",
                "prepare: to build the cache with all nodes, and to copy it to each of them. waits: part of the time"
                " that the device has no batch. pays: epochs until less time was taken than from the sources.",
            ]
            settings = {"epochs": epochs, "file_system": options.file_system, **asdict(cluster)}
            title = f"{cluster.work.events:,} events over a shared file system, {epochs} epochs: simulated"
            record = Record.now("cluster", title, settings, rows, notes)
        deliver(record, options.json, options.plot, PlotStyle(options.style))
    except HepfeedError as error:
        parser.error(str(error))


def _check(options: argparse.Namespace) -> None:
    for name in OPTIONS:
        value = getattr(options, name.replace("-", "_"))
        least = 0 if name.endswith(("-us", "latency-ms", "-gb")) else math.ulp(0)
        if value is not None and not least <= value < math.inf:
            raise SpecError(f"--{name} must be {'0 or more' if not least else 'above 0'} and finite, not {value:g}")


if __name__ == "__main__":
    main()
