"""``hepfeed bench kernels``, and the bounds that it and the roofline script print."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hepfeed.bench import sides
from hepfeed.bench.cards import CARDS, Work
from hepfeed.bench.kernels import bench_kernels, cases
from hepfeed.bench.layer import Layer
from hepfeed.bench.tracks import tracks
from hepfeed.cli import app
from hepfeed.errors import ProcessError, SpecError

ROOFLINE = Path(__file__).resolve().parents[1] / "benchmarks" / "roofline.py"
CPU = torch.device("cpu")


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "kernels", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_sides_are_timed_and_written(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(sides, "SIDES", tuple(side for side in sides.SIDES if side.package is None))
    monkeypatch.setattr("hepfeed.bench.kernels.SIDES", sides.SIDES)
    monkeypatch.setattr("hepfeed.bench.kernels.IMAGES", (0.05, 9, 4))
    path = tmp_path / "kernels.json"
    done = run("--sites", 160, "--channels", 4, "--rounds", 2, "--threads", 1, "--numbers", "float32", "--json", path)
    assert done.exit_code == 0, done.output
    assert "bound, not measured" in done.output
    record = json.loads(path.read_text())
    assert record["threads"] == 1
    assert record["numbers"] == ["float32"]
    rows = {row["what"]: row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == 2 + 4 + 2
    for what, row in rows.items():
        assert row["bound"] > 0
        assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
        rivals = {"gather, mm, scatter", "dense conv3d"}
        assert set(row["seconds"]) | set(row["absent"]) == {"hepfeed", *rivals}
        assert "hepfeed" in row["seconds"]
        assert what in done.output
    assert sum("dense conv3d" in row["seconds"] for what, row in rows.items() if "4 images of 9^3" in what) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sites", "100"), "multiples of 16"),
        (("--sites", "many"), "--sites must be integers"),
        (("--channels", "0"), "--channels must be integers"),
        (("--numbers", "float8"), "float8"),
        (("--sites", "16", "--numbers", "tf32"), "tf32 need a CUDA device"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    done = run(*arguments)
    assert done.exit_code
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error_that_says_so():
    done = run("--device", "cuda")
    assert isinstance(done.exception, SpecError)
    assert "CUDA" in str(done.exception)


def test_a_wrong_result_is_never_timed(monkeypatch):
    right = sides.Hepfeed.prepare

    def wrong(side, layer, backward):
        made = right(side, layer, backward)
        return sides.Prepared(lambda: made.forward() * 1.01, made.features, made.weight, made.layer_weight)

    monkeypatch.setattr(sides.Hepfeed, "prepare", wrong)
    monkeypatch.setattr("hepfeed.bench.kernels.SIDES", (sides.SIDES[0],))
    rows = bench_kernels(CPU, [16], [2], ["float32"], 1, CARDS["H100"])
    assert [next(rows).what, next(rows).what] == ["map 3^3, 16 sites", "map 2^3, stride 2, 16 sites"]
    with pytest.raises(ProcessError, match="hepfeed is wrong by"):
        next(rows)


def test_the_bound_is_the_larger_of_bytes_and_operations():
    card = CARDS["H100"]
    assert card.bound(Work(3.35e12), "16") == pytest.approx(1.0)
    assert card.bound(Work(1.0, 989.5e12), "16") == pytest.approx(1.0)
    assert card.bound(Work(1.0, 67e12), "float32") == pytest.approx(1.0)


def test_the_work_of_a_layer_is_what_is_counted_by_hand():
    indices = torch.from_numpy(tracks(160, 64, 16))
    options = {"kernel_size": 3, "submanifold": True}
    layer = Layer.make(indices, 64, 16, options, (4, 8), torch.bfloat16, CPU)
    pairs = len(layer.kernel_map.in_maps)
    moved = 2 * (160 * 4 + 8 * 27 * 4 + 160 * 8) + 8 * pairs
    assert layer.work(1) == Work(moved, 2 * pairs * 4 * 8)
    assert layer.work(3) == Work(3 * moved, 6 * pairs * 4 * 8)
    assert layer.map_work == Work(160 * 4 * 4 + 8 * pairs)


def test_the_roofline_script_prints_the_same_bounds():
    spec = importlib.util.spec_from_file_location("roofline", ROOFLINE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = script.bounds([160], [4], "float32", ["A100", "H200"])
    expected = [(str(case), case.bound(CARDS["H200"])) for case in cases(CPU, [160], [4], ["float32"])]
    assert [(row["what"], row["bound_s"]["H200"]) for row in rows] == expected
    for row in rows:
        assert row["bound_s"]["A100"] == max(row["bytes"] / 2039e9, row["flops"] / 19.5e12)
