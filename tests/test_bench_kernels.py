"""``hepfeed bench kernels``, and the bounds that it and the roofline script print."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hepfeed.bench import inputs, sides
from hepfeed.bench.cards import CARDS, Work
from hepfeed.bench.clock import Clock
from hepfeed.bench.kernels import bench_kernels, cases
from hepfeed.bench.kernels_view import sheets
from hepfeed.bench.layer import Layer
from hepfeed.bench.record import Record
from hepfeed.bench.tracks import tracks
from hepfeed.bench.transform_case import arrays_of, wrong
from hepfeed.bench.transforms import bench_transforms, transform_cases
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
    some = ("--groups", "maps,convolutions", "--sites", 160, "--channels", 4, "--numbers", "float32")
    done = run(*some, "--rounds", 2, "--threads", 1, "--json", path)
    assert done.exit_code == 0, done.output
    assert "bound, not measured" in done.output
    record = json.loads(path.read_text())
    assert record["kind"] == "kernels"
    assert record["settings"]["threads"] == 1
    assert record["settings"]["numbers"] == ["float32"]
    assert record["settings"]["groups"] == ["maps", "convolutions"]
    rows = {row["what"]: row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == 2 + 4 + 2
    for what, row in rows.items():
        assert row["bound"] > 0
        assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
        rivals = {"twin", "gather, mm, scatter", "dense conv3d"}
        assert set(row["seconds"]) | set(row["absent"]) == {"hepfeed", *rivals}
        assert "hepfeed" in row["seconds"]
        assert ("twin" in row["seconds"]) == (row["group"] == "maps")
        assert what in done.output
    assert sum("dense conv3d" in row["seconds"] for what, row in rows.items() if "4 images of 9^3" in what) == 2


@pytest.fixture
def few(monkeypatch):
    """Let transforms be measured on few events."""
    monkeypatch.setattr(inputs, "IMAGES", 4)
    monkeypatch.setattr(inputs, "TRACKS", 2)


def test_transforms_are_timed_beside_their_twins_and_rivals(few, tmp_path, threads, monkeypatch):
    monkeypatch.setattr("hepfeed.bench.cards.card_of", lambda device: CARDS["H100"])  # to measure peaks takes a second
    path = tmp_path / "transforms.json"
    done = run("--groups", "transforms", "--rounds", 1, "--threads", 1, "--json", path)
    assert done.exit_code == 0, done.output
    record = Record.load(path)
    assert {row["group"] for row in record.rows} == {"transforms"}
    for row in record.rows:
        assert {"hepfeed", "twin", "torch"} <= set(row["seconds"]) <= {"hepfeed", "twin", "torch", "NumPy"}
        assert not row["absent"], "all rivals are right"
        assert row["bound"] > 0
        assert row["what"] in done.output
    names = [row["what"].partition(",")[0] for row in record.rows]
    assert len(set(names)) == len(names) == 18


def test_each_group_has_a_table_of_its_own():
    rows = [
        {"group": group, "what": what, "bound": 0.001, "seconds": {"hepfeed": [0.002, 0.004], rival: [0.006, 0.012]}}
        for group, what, rival in (("transforms", "flip", "NumPy"), ("maps", "map 3^3", "spconv"))
    ]
    found = sheets(Record.now("kernels", "a processor", {}, rows, []))
    assert [sheet.title for sheet in found] == ["transforms; a processor", "maps; a processor"]
    assert found[0].columns == ["what", "bound", "hepfeed", "of bound", "NumPy"]
    assert found[0].rows == [["flip", "1", "3", "33 %", "9 (3.00 x)"]]
    assert found[1].columns[-1] == "spconv"


def case_of(name):
    return next(case for case in transform_cases(CPU) if case.what.startswith(name))


def test_a_wrong_transform_is_never_timed(few):
    case = case_of("flip of two axes, ")
    mirrored = replace(case, twin=lambda: case.twin()[:, ::-1])
    with pytest.raises(ProcessError, match=r"hepfeed is wrong in flip of two axes, .* numbers differ"):
        next(bench_transforms([mirrored], CPU, 1, CARDS["H100"]))


def test_a_rival_that_is_wrong_does_not_take_part(few):
    case = case_of("normalise")
    off = replace(case, rivals={"NumPy": lambda: case.twin() * 1.1, "torch": case.rivals["torch"]})
    (row,) = bench_transforms([off], CPU, 1, CARDS["H100"])
    assert "wrong by 0.1 of the largest number" in row.absent["NumPy"]
    assert set(row.seconds) == {"hepfeed", "twin", "torch"}


@pytest.mark.parametrize("name", ["Gaussian noise", "drop-out"])
def test_noise_of_another_size_is_found(few, name):
    case = case_of(name)
    images = case.batch["ECAL"]
    assert case.differs(case.rivals["NumPy"]()) is None
    assert "off by" in case.differs(images), "nothing was done"
    assert case.differs(images + np.float32(0.2)) is not None


def test_results_are_compared_in_form_and_type():
    expected = [np.array([1.0, 2.0], np.float32)]
    assert wrong(np.array([1.0, 2.0], np.float32), expected, 0.0) is None
    assert wrong(torch.tensor([1.0, 2.0 + 1e-6]), expected, 1e-6) is None
    assert "1 of 2 numbers differ" in wrong(torch.tensor([1.0, 2.0 + 1e-6]), expected, 0.0)
    assert "wrong by 0.5 of" in wrong(torch.tensor([1.0, 3.0]), expected, 1e-6)
    assert "wrong by nan" in wrong(torch.tensor([1.0, torch.nan]), expected, 1e-6)
    assert "float64" in wrong(np.array([1.0, 2.0]), expected, 1e-6)
    assert "(3,)" in wrong(np.zeros(3, np.float32), expected, 1e-6)


def test_steps_of_a_device_give_what_their_twins_do(few, backend):
    def place(array):
        return torch.from_numpy(array).to(backend.device)

    done = []
    for case in transform_cases(CPU):
        if case.not_on_device():
            continue
        assert wrong(case.on_device(place)(), arrays_of(case.twin()), case.tolerance) is None, case.what
        done.append(case.what.partition(",")[0])
    assert len(done) == 14


def test_a_transform_that_a_device_lacks_says_why(few):
    lacking = {case.what.partition(",")[0]: case.not_on_device() for case in transform_cases(CPU)}
    assert lacking["scatter of cached cells"] == "it is done in the readers"
    assert "can't run on a device" in lacking["downsample"]
    assert lacking["densify"] == ""


def test_a_wrong_kernel_map_is_never_timed(monkeypatch):
    right = Layer.twin_map

    def wrong_map(layer):
        first, *rest = right(layer)
        return first[::-1], *rest

    monkeypatch.setattr(Layer, "twin_map", wrong_map)
    with pytest.raises(ProcessError, match=r"hepfeed's kernel map is wrong: .* numbers differ"):
        next(bench_kernels(CPU, [160], [2], ["float32"], 1, CARDS["H100"]))


def test_a_long_call_is_made_once_for_each_round_and_once_before(monkeypatch):
    clock, calls = Clock(CPU), []
    monkeypatch.setattr(clock, "_time", lambda run, repeats: (calls.append(repeats), 0.5 * repeats)[1])
    assert clock.rounds(lambda: None, 3) == [0.5] * 3
    assert calls == [1, 1, 1]
    monkeypatch.setattr(clock, "_time", lambda run, repeats: (calls.append(repeats), 0.002 * repeats)[1])
    assert clock.rounds(lambda: None, 2) == [0.002] * 2
    assert calls[3:] == [1, 10, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--groups", "maps,unets"), "--groups must be some of transforms, maps, convolutions, not 'unets'"),
        (("--sites", "100"), "multiples of 16"),
        (("--sites", "many"), "--sites must be integers"),
        (("--channels", "0"), "--channels must be integers"),
        (("--numbers", "float8"), "float8"),
        (("--groups", "maps", "--sites", "16", "--numbers", "tf32"), "tf32 need a CUDA device"),
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
