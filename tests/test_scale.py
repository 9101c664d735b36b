"""How the growth with events and files is measured and shown, and how the model of a cluster is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hepfeed.bench.drawing import save_figures
from hepfeed.bench.record import Record
from hepfeed.bench.views import view_of

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ROW = {
    "set_bytes": 1,
    "cold_open_s": 3.0,
    "cold_first_s": 0.5,
    "warm_first_s": 0.5,
    "opened_bytes": 1,
    "first_rate": 90.0,
    "bottleneck": "inflate",
}


def script(name, *arguments, **variables):
    """Run a file of benchmarks/ and return what it printed; it must succeed."""
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(
        command, cwd="/", env={**os.environ, **variables}, check=True, capture_output=True, text=True
    ).stdout


def growth(*sets):
    rows = [
        {**ROW, "events": events, "files": files, "warm_open_s": open_s, "most_bytes": most, "reader_bytes": reader}
        | {"rates": [rate - 1.0, rate, rate + 5.0]}
        for events, files, open_s, most, reader, rate in sets
    ]
    return Record.now("scale", "growth", {}, rows, [])


def test_limits_are_judged_by_growth():
    record = growth((1000, 10, 0.1, 50_000, 1000, 100.0), (11_000, 10, 0.2, 250_000, 1000, 95.0),
                    (11_000, 110, 1.6, 450_000, 51_000, 80.0))  # fmt: skip
    table, limits = view_of(record).sheets(record)
    assert table.rows[2][:2] == ["11,000", "110"]
    found = {row[0]: row[1:] for row in limits.rows}
    assert found["memory of the parent, for each event more"] == ["20.0 bytes", "< 24 bytes", "yes"]
    assert found["memory of the parent an event, all of it, 11,000 events in 10 files"][2] == "yes"
    assert found["memory of the parent, for each file more"][0] == "2.0 kB"
    assert found["memory of a reader, for each file more"][0] == "0.5 kB"
    assert found["start to first batch with the index, 11,000 events in 110 files"] == ["2.10 s", "< 2 s", "no"]
    assert found["events/s, slowest against fastest number of events"][::2] == ["- 5 %", "yes"]
    assert found["events/s, slowest against fastest number of files"][::2] == ["- 16 %", "no"]
    assert len({measure.name for measure in view_of(record).measures(record)}) == 15


def test_growth_of_one_set_has_no_slopes_and_can_be_drawn(tmp_path):
    record = growth((1000, 10, 0.1, 50_000, 1000, 100.0))
    assert len(view_of(record).sheets(record)[1].rows) == 2
    (path,) = save_figures(view_of(record).figures(record), tmp_path / "growth.png")
    assert path.stat().st_size > 10_000


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """601 events in 6 files, as benchmarks/scale.py writes them."""
    folder = tmp_path_factory.mktemp("scale") / "set"
    program = f"""
import sys; sys.path.insert(0, {str(BENCHMARKS)!r})
from pathlib import Path
from scale_sets import make_set
if __name__ == "__main__":
    make_set(Path({str(folder)!r}), 601, 6, lambda *progress: print(*progress))
"""
    path = folder.parent / "make.py"
    path.write_text(program)
    out = subprocess.run([sys.executable, str(path)], check=True, capture_output=True, text=True, cwd="/").stdout
    assert out.splitlines()[-1] == "writing 601 events in 6 files 6 6"
    return folder


def test_events_are_numbered_through_all_files(small_set):
    numbers = []
    for path in sorted(small_set.rglob("*.h5")):
        with h5py.File(path) as file:
            numbers.append(file["number"][:])
            assert file["features"].shape == (len(numbers[-1]), 28)
    assert sorted(map(len, numbers)) == [100] * 5 + [101]
    assert sorted(np.concatenate(numbers)) == list(range(601))


def test_a_process_of_its_own_measures_and_checks_every_epoch(small_set, tmp_path):
    out = script("scale_probe.py", "feed", small_set, 1, 64, 0, HEPFEED_INDEX=str(tmp_path / "index.sqlite"))
    found = json.loads(out)
    assert len(found["rates"]) == 3
    assert min(found["rates"]) > 0
    assert found["reader_bytes"] > 1 << 20
    assert found["most_bytes"] >= found["opened_bytes"]


def test_the_simulation_says_what_it_is_and_draws_itself(tmp_path):
    arguments = ("--nodes", "1,1000", "--epochs", 5, "--json", tmp_path / "c.json", "--plot", tmp_path / "c.svg")
    out = script("cluster.py", *arguments, "--disk-gb", 10)
    assert "simulated, not measured" in out
    assert "the cache takes 130 GB, and a node has 10 GB" in " ".join(out.split())
    record = Record.load(tmp_path / "c.json")
    assert [(row["nodes"], row["place"]) for row in record.rows][::4] == [(1, "sources"), (1000, "sources")]
    impossible = [row["place"] for row in record.rows if row["impossible"]]
    assert impossible == ["cache on disk"] * 2
    assert len(view_of(record).measures(record)) == 2 * 6
    assert (tmp_path / "c.svg").stat().st_size > 10_000
