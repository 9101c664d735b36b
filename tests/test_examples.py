"""What README and examples show runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hepfeed.synthetic import make_lcd

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run(*command, cwd, seconds=120, warnings="error"):
    done = subprocess.run(
        [sys.executable, "-W", warnings, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_two_set_up_commands_stand_on_lines_of_their_own():
    lines = README.splitlines()
    assert "pip install . && hepfeed demo" in lines
    assert "pip install '.[test]' && pytest" in lines


def test_the_code_of_the_readme_runs_as_it_is(tmp_path):
    code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 15 <= len(code.splitlines()) <= 25
    make_lcd(tmp_path / "data", classes=("EleEscan", "ChPiEscan"), files=1, events=200, compression="gzip", workers=1)
    (tmp_path / "use.py").write_text(code)
    out = run("use.py", cwd=tmp_path)
    assert len(re.findall(r"events/s .* bottleneck: ", out)) == 3


def test_every_option_that_the_readme_names_exists():
    import hepfeed as hf

    named = set(re.findall(r"`(\w+)=", README))
    known = set()
    for thing in (hf.DataLoader, hf.DataProvider, hf.EventDataset, hf.SampleSpec):
        known |= set(thing.__init__.__annotations__)
    assert named - known == set()


def test_the_calorimeter_example_learns(tmp_path):
    out = run(ROOT / "examples" / "lcd_classes.py", "--events", "100", "--epochs", "4", cwd=tmp_path)
    accuracies = [float(value) for value in re.findall(r"validation accuracy ([\d.]+)", out)]
    assert len(accuracies) == 4
    assert accuracies[-1] > 0.35  # chance is 0.25


def test_the_lightning_example_learns(tmp_path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
    # Lightning warns of what its own code does.
    out = run(ROOT / "examples" / "lightning_events.py", cwd=tmp_path, warnings="default")
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+)", out)]
    assert len(accuracies) == 4
    assert accuracies[-1] > 0.35  # chance is 0.25
    assert not (tmp_path / "checkpoints").exists()


def test_the_dune_example_runs(tmp_path):
    data = os.environ.get("HEPFEED_DATA")
    if not data:
        pytest.skip("HEPFEED_DATA is not set: the DUNE pixel maps are not at hand")
    script = ROOT / "examples" / "dune_cvn.py"
    out = run(script, "--data", f"{data}/dune-cvn", "--epochs", "2", "--work", tmp_path / "h5", cwd=tmp_path)
    assert "AUC" in out
