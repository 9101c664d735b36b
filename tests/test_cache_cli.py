"""``hepfeed cache``: what its commands print, and their exit codes."""

import json
import re

import h5py
import numpy as np
import pytest
from cached import parts_of, write_set
from typer.testing import CliRunner

from hepfeed.cli import app
from hepfeed.cli.cache import _size
from hepfeed.errors import SpecError
from hepfeed.spec import SampleSpec


@pytest.fixture
def run(monkeypatch):
    """Call the command line with these arguments, wide enough to keep each line whole."""
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(app, ["cache", *map(str, arguments)])


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "set.yaml"
    SampleSpec(write_set(tmp_path / "data")).save(path)
    return path


@pytest.fixture
def built(tmp_path, spec, run):
    result = run("build", spec, "-o", tmp_path / "caches", "--workers", 1)
    assert result.exit_code == 0, result.output
    return tmp_path / "caches"


def spoil(part):
    with h5py.File(part) as file:
        offset = file["HCAL"].id.get_offset()
    with open(part, "r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 8)


def test_build_says_what_it_did_and_then_that_nothing_is_to_be_done(tmp_path, spec, run):
    first = run("build", spec, "-o", tmp_path / "caches", "--workers", 1, "--verify").output
    assert "the cache has 240 of 240 events" in first
    assert "All checksums are right." in first
    assert "nothing was to be done" in run("build", spec, "-o", tmp_path / "caches", "--resume").output
    assert "240 events in" in run("build", spec, "-o", tmp_path / "caches", "--fresh", "--workers", 1).output


def test_a_full_cache_has_an_exit_code_of_its_own(tmp_path, spec, run):
    result = run("build", spec, "-o", tmp_path / "caches", "--workers", 1, "--max-size", "1kB")
    assert result.exit_code == 3
    assert "240 events are not in the cache" in result.output
    assert parts_of(tmp_path / "caches") == []


def test_info_tells_what_is_in_a_cache(built, run):
    text = run("info", built).output
    assert re.search(r"complete\W+yes", text)
    assert re.search(r"classes\W+electron = 0, gamma = 1, pion = 2", text)
    assert re.search(r"ECAL\W+dense\W+<f4\W+\(9, 8, 7\)\W+cells \(240\)", text)
    assert re.search(r"hits/charge\W+jagged\W+<f8", text)


def test_info_as_json_has_everything(built, run):
    (report,) = json.loads(run("info", built, "--json").output)
    assert (report["events"], report["expected"], report["parts"]) == (240, 240, 1)
    ecal = next(array for array in report["arrays"] if array["name"] == "ECAL")
    assert 0.02 < ecal["occupancy"] < 0.04
    assert ecal["statistics"]["zeros"] == ecal["statistics"]["values"] - ecal["statistics"]["active"]["count"]


def test_info_lists_several_caches_and_finds_that_of_a_specification(tmp_path, built, spec, run):
    other = tmp_path / "other.yaml"
    SampleSpec(SampleSpec.load(spec).samples, transforms=[{"log": {"keys": "ECAL"}}]).save(other)
    missing = run("info", built, "--spec", other)
    assert missing.exit_code == 1
    assert "is not the cache of" in missing.output
    assert "steps" in missing.output
    run("build", other, "-o", built, "--workers", 1)
    both = run("info", built, "--spec", other)
    assert both.exit_code == 0
    assert "2 caches" in both.output
    assert f"is the cache of {other}" in both.output


def test_statistics_of_parts_that_training_wrote_are_read_on_demand(tmp_path, spec, run):
    import hepfeed as hf

    with hf.DataLoader(hf.EventDataset(spec, cache=tmp_path / "caches"), 32) as loader:
        assert sum(len(batch["label"]) for batch in loader) == 240
    assert "--statistics reads them" in run("info", tmp_path / "caches").output
    (report,) = json.loads(run("info", tmp_path / "caches", "--statistics", "--json").output)
    assert report["arrays"][0]["statistics"]["values"] > 0


def test_verify_changes_nothing_unasked_and_its_exit_code_tells(built, run):
    right = run("verify", built, "--workers", 1)
    assert right.exit_code == 0
    assert "all checksums are right" in right.output
    (part,) = parts_of(built)
    spoil(part)
    manifest = part.with_name("manifest.json").read_bytes()
    wrong = run("verify", built, "--workers", 1)
    assert wrong.exit_code == 1
    assert f"part {part.name}: block 0 is damaged" in wrong.output
    assert "Training processes the events of damaged blocks again" in wrong.output
    assert part.with_name("manifest.json").read_bytes() == manifest
    assert "1 damaged blocks are marked" in run("verify", built, "--mark", "--workers", 1).output
    assert "known to be damaged" in run("verify", built, "--workers", 1).output


def test_merge_tells_what_is_missing(tmp_path, spec, run):
    made = run("build", spec, "-o", tmp_path / "caches", "--shard", "1/2", "--workers", 1)
    assert made.exit_code == 0
    assert "hepfeed cache merge" in made.output
    merged = run("merge", tmp_path / "caches")
    assert merged.exit_code == 1
    assert "0 of 240 events" in merged.output
    assert "electron_0.h5 are missing" in merged.output
    assert run("merge", tmp_path / "caches", "--partial").exit_code == 0
    run("build", spec, "-o", tmp_path / "caches", "--shard", "0/2", "--workers", 1)
    assert run("merge", tmp_path / "caches").exit_code == 0


def test_export_writes_files_and_asks_before_it_replaces_them(tmp_path, built, run):
    result = run("export", built, "-o", tmp_path / "ecal.npz", "--format", "npz", "-k", "ECAL", "--dense")
    assert "240 events in 1 files" in result.output
    with np.load(tmp_path / "ecal.npz") as file:
        assert file["ECAL"].shape == (240, 9, 8, 7)
    again = ("export", built, "-o", tmp_path / "ecal.npz", "--format", "npz")
    assert isinstance(run(*again).exception, SpecError)
    assert run(*again, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("32MiB", 32 << 20), ("1.5k", 1500), ("7", 7), ("2 TiB", 2 << 40)]
)
def test_sizes_have_units(text, size):
    assert _size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1XB", "1.2.3k"])
def test_a_wrong_size_is_an_error_of_usage(tmp_path, spec, run, text):
    result = run("build", spec, "-o", tmp_path / "caches", f"--max-size={text}")
    assert result.exit_code == 2
