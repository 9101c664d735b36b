"""The command line as a whole, and ``hepfeed check``."""

import json
import sys

import h5py
import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from hepfeed.cli import COMMANDS, app, main
from hepfeed.errors import SpecError
from hepfeed.spec import SampleSpec


@pytest.fixture
def run(monkeypatch):
    """Call the command line with these arguments, wide enough to keep each line whole."""
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def lcd(tmp_path):
    """A specification of two classes with 4 events each."""
    for label in ("electron", "pion"):
        (tmp_path / label).mkdir()
        with h5py.File(tmp_path / label / "1.h5", "w") as file:
            file["ECAL"] = np.eye(4, 6, dtype=np.float32)
    path = tmp_path / "lcd.yaml"
    SampleSpec([[str(tmp_path / label), ["ECAL"], label] for label in ("electron", "pion")]).save(path)
    return path


def leaves(command, name="hepfeed"):
    """Yield the full name and help of each command that does something."""
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from leaves(below, f"{name} {word}")
    else:
        yield name, command.help


ALL = dict(leaves(typer.main.get_command(app)))


# ---- all commands


def test_every_command_is_there():
    assert {name.split()[1] for name in ALL} == set(COMMANDS)


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_examples_of_itself(name):
    assert "[bold]Examples[/]" in ALL[name]
    assert name in ALL[name].split("[bold]Examples[/]")[1]


def test_without_a_command_the_help_is_shown(run):
    shown = run().output
    assert all(command in shown for command in COMMANDS)


def test_an_error_is_one_line_and_the_exit_code_is_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "argv", ["hepfeed", "check", str(tmp_path / "a.h5")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("FileFormatError: ")
    assert "zero bytes" in line


def test_an_error_names_the_file_that_is_at_fault(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "argv", ["hepfeed", "bench", "report", str(tmp_path / "a.json")])
    with pytest.raises(SystemExit):
        main()
    assert f"[file '{tmp_path / 'a.json'}']" in capsys.readouterr().err


# ---- hepfeed check


def test_a_specification_is_shown_with_its_classes_keys_and_cost(run, lcd):
    result = run("check", lcd)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "│ electron │ 0 │ 1 │ 4 │ 4 │" in shown
    # 4 of 24 items are 1 in each file.
    assert "│ ECAL │ (6,) │ float32 │ contiguous, none: 2 files │ 192 bytes │ 192 bytes │ 1.0 │ 16.67% │" in shown
    assert "│ an epoch │ 8 events │" in shown
    assert "No faults, and nothing to change." in shown


def test_the_report_of_a_specification_as_json_has_all_findings(run, lcd):
    result = run("check", lcd, "--json", "--no-measure")
    report = json.loads(result.stdout)
    assert report["classes"][1] == {"label": "pion", "index": 1, "files": 1, "events": 4, "kept": 4}
    assert report["keys"][0]["storages"][0]["storage"] == "contiguous"
    assert (report["faults"], report["cost"]) == ([], None)


def test_the_events_to_measure_are_counted(run, lcd):
    report = json.loads(run("check", lcd, "--json", "--events", "5").stdout)
    assert report["cost"]["events"] == 8  # the only batch


def test_a_fault_is_one_line_and_the_exit_code_is_1(run, lcd):
    (lcd.parent / "pion/2.h5").write_text("<html>not found</html>")
    result = run("check", lcd)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[lines.index("1 fault") + 1].startswith("- FileFormatError: ")
    assert json.loads(run("check", lcd, "--json").stdout)["faults"][0]["file"].endswith("pion/2.h5")


def test_a_file_is_shown_with_its_data_sets_and_a_verdict(run, lcd):
    result = run("check", lcd.parent / "pion/1.h5")
    assert result.exit_code == 0
    assert "│ ECAL     │ (4, 6) │ float32 │       │ none  │ 96 bytes │ 4 events │" in result.output
    assert "\ncan be fed: 4 events with the key ECAL\n" in result.output
    written = yaml.safe_load(result.output[result.output.index("samples:") :])
    assert written["samples"] == [[str(lcd.parent / "pion/1.h5"), ["ECAL"], "pion"]]


def test_events_of_different_lengths_are_shown_with_their_specification(run, tmp_path):
    (tmp_path / "muons").mkdir()
    with h5py.File(tmp_path / "muons/a.h5", "w") as file:
        file["hits/q"] = np.zeros(5)
        file["hits/offsets"] = np.array([0, 2, 5])
    result = run("check", tmp_path / "muons/a.h5")
    assert "hits of 2 events" in result.output
    assert "can be fed: 2 events with the key hits/q; ragged hits: 2 events, 5 hits" in result.output
    written = yaml.safe_load(result.output[result.output.index("samples:") :])
    (sample,) = written["samples"]
    assert (sample["keys"], sample["label"], sample["layout"]) == (["hits/q"], "muons", "offsets")
    assert run("check", tmp_path / "muons/a.h5", "--write", tmp_path / "muons.yaml").exit_code == 0
    assert SampleSpec.load(tmp_path / "muons.yaml").samples[0].label == "muons"


def test_what_can_not_be_fed_has_no_specification(run, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["names"] = np.array([b"a", b"b"])
    result = run("check", tmp_path / "a.h5")
    assert result.exit_code == 0
    assert "no specification: the classes in" in result.output
    result = run("check", tmp_path / "a.h5", "--write", tmp_path / "a.yaml")
    assert isinstance(result.exception, SpecError)
    assert not (tmp_path / "a.yaml").exists()


def test_writing_is_for_files_and_directories(run, lcd, tmp_path):
    result = run("check", lcd, "--write", tmp_path / "b.yaml")
    assert result.exit_code == 2
    assert "--write is for a file or a directory" in " ".join(result.output.split())


def test_files_of_one_form_are_shown_once(run, lcd):
    (lcd.parent / "pion/0.h5").write_bytes(b"")
    with h5py.File(lcd.parent / "geometry.h5", "w") as file:
        file["position"] = np.zeros((7, 3))
    result = run("check", lcd.parent)
    assert result.exit_code == 1
    assert "2 files such as" in result.output
    assert "8 events in 2 files; the first can be fed: 4 events with the key ECAL" in result.output
    assert "1 file such as" in result.output
    assert "1 fault" in result.output


@pytest.mark.parametrize("option", [["--events", "3"], ["--no-measure"]])
def test_options_of_measuring_are_refused_for_a_file(run, lcd, option):
    result = run("check", lcd.parent / "pion/1.h5", *option)
    assert result.exit_code == 2
    assert "are for a specification" in result.output
