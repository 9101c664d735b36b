"""What benchmarks leave behind, and how it is shown: records, tables and plots."""

import datetime
import importlib
import io
import json
import logging
import xml.etree.ElementTree

import matplotlib
import pytest
import torch
from bench_records import kernels, record, sizes
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import hepfeed
from hepfeed.bench import sides
from hepfeed.bench.drawing import add_head, described, drawn_in, pages, ratio_axis, row_axes, save_figures
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Machine, Record
from hepfeed.bench.sheet import Sheet, three_digits
from hepfeed.bench.views import KINDS, view_of
from hepfeed.cli import app
from hepfeed.errors import SpecError


def printed(sheet):
    stream = io.StringIO()
    Console(width=200, file=stream).print(sheet)
    return stream.getvalue()


# ---- records


def test_a_record_is_the_same_after_saving_and_loading(tmp_path):
    made = Record.now("table", "Ünïcode → title", {"a": [1, {"b": None}]}, [{"x": 0.1, "y": "z"}], ["a note"])
    made.save(tmp_path / "a.json")
    assert Record.load(tmp_path / "a.json") == made
    assert json.loads((tmp_path / "a.json").read_text())["format"] == 1


def test_a_record_of_now_is_of_this_machine_and_this_moment():
    before = datetime.datetime.now().astimezone().replace(microsecond=0)
    made = Record.now("table", "", {}, [], [])
    created = datetime.datetime.fromisoformat(made.created)
    assert created.tzinfo is not None
    assert before <= created <= datetime.datetime.now().astimezone()
    assert made.machine == Machine.here()


def test_the_machine_is_described_as_it_is():
    machine = Machine.here()
    assert machine.processor
    assert machine.cores >= 1
    assert machine.memory_bytes > 1 << 28
    assert len(machine.cards) == torch.cuda.device_count()
    assert (machine.torch, machine.hepfeed) == (torch.__version__, hepfeed.__version__)
    assert machine.system.startswith("Linux ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        (b"rows: 1", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[]", "no results of hepfeed bench"),
        (b"{}", r"no results of hepfeed bench \(kind: Field required\)"),
        (json.dumps({**sizes().model_dump(), "format": 2}).encode(), r"\(format: Input should be 1\)"),
        (json.dumps({**sizes().model_dump(), "rows": {"a": 1}}).encode(), r"\(rows: "),
    ],
    ids=["missing", "yaml", "utf-16", "list", "empty", "other format", "rows are no list"],
)
def test_what_is_no_record_is_an_error_that_names_the_file(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        Record.load(path)
    assert caught.value.file == str(path)


# ---- tables


def test_a_sheet_is_printed_with_its_title_caption_and_text_as_it_is():
    sheet = Sheet("Title [bold]", ["what", "ms"], [["[red]a", "1"], ["b", ""]], frozenset({"what"}), "below")
    text = printed(sheet)
    for part in ("Title [bold]", "[red]a", "below", "what", "ms"):
        assert part in text


def test_marked_cells_stand_out_on_a_terminal():
    sheet = Sheet("", ["a", "b"], [["1", "2"], ["3", "4"]], marks={(0, 1): "best", (1, 0): "worse"})
    cells = [list(column.cells) for column in sheet.__rich__().renderables[0].columns]
    assert [[cell.style for cell in column] for column in cells] == [["", "red"], ["bold", ""]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (-12.34, "-12.3"), (999.4, "999"), (1234.5, "1,234"), (-1e6, "-1,000,000")],
)
def test_numbers_have_three_digits(value, text):
    assert three_digits(value) == text


def test_a_plain_table_has_a_column_for_each_key_of_any_row():
    rows = [{"name": "a", "n": 1234, "part": 0.123456, "right": True}, {"name": "b", "extra": None, "right": False}]
    (sheet,) = view_of(record("table", "T", rows)).sheets(record("table", "T", rows))
    assert list(sheet.columns) == ["name", "n", "part", "right", "extra"]
    assert sheet.rows == [["a", "1,234", "0.123", "yes", ""], ["b", "", "", "no", ""]]
    assert sheet.left == {"name"}


def test_the_best_of_a_row_of_kernels_is_marked():
    made = kernels(factor=5.0)  # 5, 10 and 15 ms; the rival 4 ms, none, and 12 ms
    (sheet,) = view_of(made).sheets(made)
    assert list(sheet.columns) == ["what", "bound", "hepfeed", "of bound", "spconv"]
    assert sheet.rows[0] == ["map 3^3, 1 sites", "0.1", "5", "2 %", "4 (0.80 x)"]
    assert sheet.rows[1][4] == ""
    assert sheet.marks == {(0, 4): "best", (2, 4): "best"}


# ---- kinds


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_benchmark_is_shown(kind):
    view = importlib.import_module(f"hepfeed.bench.{kind}_view")
    assert {"figures", "measures", "sheets"} <= set(view.__all__)
    assert view_of(record(kind, "", [])) is view


def test_an_unknown_kind_is_an_error_with_the_nearest_one():
    with pytest.raises(SpecError, match="no benchmark 'kernel': did you mean 'kernels'"):
        view_of(record("kernel", "", []))


def test_measures_of_a_plain_table_are_the_numbers_that_do_not_tell_its_rows_apart():
    found = view_of(sizes()).measures(sizes())
    starts = {measure.row: measure.values for measure in found if measure.quantity == "start_s"}
    assert starts == {
        "events 100,000, hepfeed, verified yes": (0.5,),
        "events 100,000, torch, verified yes": (4.0,),
        "events 1,000,000, hepfeed, verified yes": (0.5,),
        "events 1,000,000, torch, verified yes": (4.0,),
    }
    assert {measure.quantity for measure in found} == {"start_s", "files"}
    assert {measure.better for measure in found} == {"unknown"}


def test_rows_of_a_plain_table_that_are_equal_but_for_a_value_are_counted():
    made = record("table", "", [{"name": "a", "s": 1.0}, {"name": "a", "s": 1.0}, {"name": "a", "s": float("nan")}])
    found = view_of(made).measures(made)
    assert [(measure.row, measure.quantity) for measure in found] == [("a", "s"), ("a (2)", "s")]


def test_a_gain_above_one_is_better_whatever_is_measured():
    def measure(better, *values):
        return Measure("row", "side", "q", "u", better, values)

    assert measure("lower", 2.0, 1.0, 9.0).gain(measure("lower", 4.0)) == 2.0
    assert measure("higher", 2.0).gain(measure("higher", 4.0)) == 0.5
    assert measure("unknown", 2.0).gain(measure("unknown", 4.0)) == 0.5
    assert measure("lower", 0.0).gain(measure("lower", 4.0)) is None
    assert measure("higher", 2.0).gain(measure("higher", 0.0)) is None


def test_measures_differ_clearly_where_no_rounds_overlap():
    def measure(*values):
        return Measure("row", "side", "q", "u", "lower", values)

    assert measure(1.0, 2.0).clearly_differs(measure(3.0, 2.5))
    assert measure(3.0, 2.5).clearly_differs(measure(1.0, 2.0))
    assert not measure(1.0, 2.0).clearly_differs(measure(1.9, 3.0))
    assert not measure(1.0).clearly_differs(measure(3.0, 4.0))


# ---- plots


@pytest.mark.parametrize(("count", "lengths"), [(0, []), (1, [1]), (40, [40]), (41, [20, 21]), (100, [33, 33, 34])])
def test_rows_are_divided_evenly_among_figures(count, lengths):
    rows = [f"row {number}" for number in range(count)]
    divided = pages(rows)
    assert [len(page) for page in divided] == lengths
    assert [row for page in divided for row in page] == rows


def test_a_figure_is_described_in_words():
    figure, (left, right) = row_axes(["a^3", "b"], 2)
    left.plot([1, 2], [0, 1], label="hepfeed")
    right.plot([1, 2], [0, 1], label="rival")
    right.set_title("right one")
    for axes in (left, right):
        ratio_axis(axes, [1, 2])
    left.set_xlabel("time, ms")
    add_head(figure, "A title that is " + "very " * 20 + "long")
    words = "Plot. A title that is " + "very " * 20 + "long, right one; across: time, ms; shown: hepfeed, rival"
    assert described(figure) == words
    assert [label.get_text() for label in left.get_yticklabels()] == ["a³", "b"]


@pytest.mark.parametrize(
    ("style", "suffix"), [("default", ".png"), ("default", ".pdf"), ("mplhep", ".png"), ("mplhep", ".svg")]
)
def test_plots_are_written_in_each_style_and_format_without_a_warning(tmp_path, caplog, style, suffix):
    if style == "mplhep":
        pytest.importorskip("mplhep", reason="mplhep is not installed")
    made = kernels()
    before = dict(matplotlib.rcParams)
    with caplog.at_level(logging.WARNING), drawn_in(style):
        (path,) = save_figures(view_of(made).figures(made), tmp_path / f"a{suffix}")
    assert dict(matplotlib.rcParams) == before
    assert [entry.getMessage() for entry in caplog.records] == []
    if suffix == ".png":
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100
    elif suffix == ".svg":
        assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"%PDF")


def test_styles_differ_but_not_in_the_size_of_text():
    pytest.importorskip("mplhep", reason="mplhep is not installed")
    found = {}
    for style in ("default", "mplhep"):
        with drawn_in(style):
            found[style] = [matplotlib.rcParams[name] for name in ("font.size", "axes.labelsize", "xtick.direction")]
    assert found == {"default": [10.0, "medium", "out"], "mplhep": [10.0, "medium", "in"]}


def test_a_style_that_is_not_installed_says_how_to_get_it(run_script):
    script = """
        import sys
        sys.modules["mplhep"] = None
        from hepfeed.bench.drawing import drawn_in
        from hepfeed.errors import SpecError
        try:
            with drawn_in("mplhep"):
                print("drawn")
        except SpecError as error:
            print(error)
    """
    assert "pip install 'hepfeed[plots]'" in run_script(script)


def test_several_figures_get_numbers(tmp_path):
    made = kernels(rows=41)
    with drawn_in("default"):
        paths = save_figures(view_of(made).figures(made), tmp_path / "a.svg")
    assert [path.name for path in paths] == ["a.svg", "a-2.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_other_suffixes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SpecError, match=r"\.png, \.svg or \.pdf, not '\.jpg'"):
        save_figures([], tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--plot", "a.jpg", "not '.jpg'"),
        ("--plot", "no/a.png", "no folder"),
        ("--json", "no/a.json", "no folder"),
        ("--json", ".", "this is a folder"),
    ],
)
def test_a_place_that_can_t_be_written_is_refused_before_anything_is_measured(tmp_path, option, name, message):
    done = CliRunner().invoke(app, ["bench", "kernels", "--sites", "1", option, str(tmp_path / name)])
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_points_of_a_plot_are_the_medians_and_lines_reach_from_the_slowest_to_the_fastest_round():
    made = kernels()
    with drawn_in("default"):
        (figure,) = view_of(made).figures(made)
    (axes,) = figure.axes
    points = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(points) == ["hepfeed", "spconv"]
    assert points["hepfeed"].get_xdata() == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert list(points["hepfeed"].get_ydata()) == [0, 1, 2]
    assert list(points["spconv"].get_ydata()) == [0, 2]
    spread = next(lines for lines in axes.collections if type(lines).__name__ == "LineCollection")
    assert spread.get_segments()[0][:, 0] == pytest.approx([0.1 / 1.1, 0.1 / 0.9])


def test_the_command_draws_in_the_style_that_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("mplhep", reason="mplhep is not installed")
    monkeypatch.setattr("hepfeed.bench.kernels.SIDES", sides.SIDES[:1])
    place = tmp_path / "x.svg"
    options = ["--groups", "maps", "--sites", "16", "--rounds", "1", "--plot", place, "--style", "mplhep"]
    done = CliRunner().invoke(app, ["bench", "kernels", *map(str, options)])
    assert done.exit_code == 0, done.output
    assert f"wrote {place}" in done.output.splitlines()
    assert "#d55e00" in place.read_text()  # the first colour of the style
