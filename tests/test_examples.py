"""What README and examples show runs as it stands there."""

import inspect
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
    import hepfeed.sparse as hsp
    from hepfeed.sparse import convert

    named = set(re.findall(r"`([a-z]\w*)=", README))
    things = [hf.DataLoader, hf.DataProvider, hf.EventDataset, hf.SampleSpec]
    things += [getattr(module, name) for module in (hsp, convert) for name in module.__all__]
    known = set()
    for thing in filter(callable, things):
        known |= set(inspect.signature(thing).parameters)
    assert named - known == set()


def test_the_calorimeter_example_learns(tmp_path):
    out = run(ROOT / "examples" / "lcd_classes.py", "--events", "100", "--epochs", "4", cwd=tmp_path)
    accuracies = [float(value) for value in re.findall(r"validation accuracy ([\d.]+)", out)]
    assert len(accuracies) == 4
    assert accuracies[-1] > 0.35  # chance is 0.25


SMALL_UNET = ["--events", "96", "--voxel", "10", "--depth", "3", "--width", "8", "--batch-size", "8", "--threads", "1"]


def test_the_segmentation_example_learns_to_tell_voxels_apart(tmp_path):
    script = ROOT / "examples" / "lartpc_unet.py"
    out = run(script, *SMALL_UNET, "--epochs", "3", "--rate", "0.01", cwd=tmp_path)
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", out)]
    assert len(losses) == 3
    assert losses[2] < 0.8 * losses[0]
    accuracy, commonest = map(
        float, re.findall(r"accuracy ([\d.]+) %, if all were the commonest class ([\d.]+)", out)[0]
    )
    assert accuracy > commonest + 10
    last = out.split("epoch 2: ")[1].splitlines()[0]
    scores = dict(re.findall(r"(track|shower|bragg) (\d+)/\d+", last))
    assert set(scores) == {"track", "shower", "bragg"}
    assert min(map(int, scores.values())) > 20  # no class is given up
    assert re.search(r"\d+ events/s, \d+ % of the time waiting for data", last)
    assert re.search(r"\d+ ms with the kernel maps of the readers, \d+ ms if it builds them itself", out)
    assert (tmp_path / "lartpc_unet.png").read_bytes().startswith(b"\x89PNG")


def test_the_segmentation_example_does_without_the_kernel_maps_of_the_readers(tmp_path):
    script = ROOT / "examples" / "lartpc_unet.py"
    options = ["--epochs", "1", "--no-prebuild", "--workers", "0", "--picture", "event.pdf", "--folder", "files"]
    out = run(script, *SMALL_UNET[2:], "--events", "12", *options, cwd=tmp_path)
    assert "kernel maps" not in out
    assert (tmp_path / "event.pdf").exists()
    assert len(list((tmp_path / "files" / "events" / "Vertex").glob("*.h5"))) == 4


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
    out = run(script, "--data", f"{data}/dune-cvn", "--epochs", "1", "--work", tmp_path / "h5", cwd=tmp_path)
    assert "AUC" in out
