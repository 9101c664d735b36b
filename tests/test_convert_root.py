"""Conversion of ROOT trees and RNTuples, in files that uproot writes."""

import itertools
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepfeed.cli.convert import register
from hepfeed.convert import convert_root
from hepfeed.errors import CorruptDataError, FileFormatError, KeyMissingError, SourceError, SpecError

uproot = pytest.importorskip("uproot", reason="uproot is not installed: pip install 'hepfeed[root]'")
ak = pytest.importorskip("awkward")


@pytest.fixture
def run():
    """Call the command line with these arguments."""
    app = typer.Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path, entries, *, tree="Events", ntuple=False, baskets=1, **more):
    """Write columns, and columns of further trees (``more``), in so many baskets each."""
    with uproot.recreate(path) as file:
        for name, columns in {tree: entries, **more}.items():
            columns = {key: ak.Array(values) for key, values in columns.items()}
            if ntuple:
                file.mkrntuple(name, columns)
                continue
            # Of the type of one entry, which is without the length.
            file.mktree(name, {key: values.type.content for key, values in columns.items()})
            for part in np.array_split(np.arange(len(next(iter(columns.values())))), baskets):
                file[name].extend({key: values[part] for key, values in columns.items()})
    return path


EVENTS = {
    "MET_pt": np.float32([1, 2, 3, 4]),
    "HLT": np.array([True, False, True, True]),
    "image": np.arange(24, dtype=np.int16).reshape(4, 2, 3),
    "Jet.PT": ak.values_astype(ak.Array([[50.0, 40.0], [], [30.0], []]), np.float32),
    "Jet.Mother": ak.values_astype(ak.Array([[1, 2], [], [3], []]), np.int64),
}


def ragged(path, key, column="values"):
    with h5py.File(path) as file:
        values, offsets = file[key][column][()], file[key]["offsets"][()]
        assert offsets.dtype == np.int64
        assert offsets[-1] == len(values)
        return [values[a:b].tolist() for a, b in itertools.pairwise(offsets)]


def test_flat_fixed_and_jagged_branches_become_keys_of_their_names(tmp_path):
    source = write(tmp_path / "a.root", EVENTS)
    (path,) = convert_root(source, tmp_path / "h5")
    with h5py.File(path) as file:
        assert file["MET_pt"][()].tolist() == [1, 2, 3, 4]
        assert file["HLT"][()].tolist() == [True, False, True, True]
        assert file["image"][()].tolist() == EVENTS["image"].tolist()
        types = {key: file[key].dtype for key in ("MET_pt", "HLT", "image", "Jet.PT/values", "Jet.Mother/values")}
        assert list(types.values()) == [np.float32, np.bool_, np.int16, np.float32, np.int64]
        assert all(dtype.isnative for dtype in types.values())
        assert file["nJet.PT"][()].tolist() == [2, 0, 1, 0]
        assert file["Jet.PT"].attrs["branch"] == "Jet.PT"
        assert file.attrs["source_format"] == "ROOT"
    assert ragged(path, "Jet.PT") == [[50, 40], [], [30], []]
    assert ragged(path, "Jet.Mother") == [[1, 2], [], [3], []]


def test_values_are_those_of_uproot_over_files_steps_and_baskets(tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.convert.root.STEP_BYTES", 2000)
    rng = np.random.default_rng(1)
    columns = []
    for number in range(2):
        lengths = rng.integers(0, 5, 301)
        entries = {
            "x": rng.normal(size=(301, 2)),
            "hits": ak.unflatten(rng.normal(size=lengths.sum()).astype(np.float32), lengths),
        }
        columns.append(entries)
        write(tmp_path / f"run{number}.root", entries, baskets=7)
    paths = convert_root(str(tmp_path / "run*.root"), tmp_path / "h5", events_per_file=100, workers=1)
    assert len(paths) == 7
    expected = np.concatenate([entries["x"] for entries in columns])
    found = []
    for path in paths:
        with h5py.File(path) as file:
            found.append(file["x"][()])
    np.testing.assert_array_equal(np.concatenate(found), expected)
    hits = [event for entries in columns for event in entries["hits"].to_list()]
    assert [event for path in paths for event in ragged(path, "hits")] == hits


def test_an_rntuple_becomes_the_same_keys(tmp_path):
    jets = ak.zip({"pt": EVENTS["Jet.PT"], "mother": EVENTS["Jet.Mother"]})
    entries = {"MET_pt": EVENTS["MET_pt"], "Jet": jets, "image": EVENTS["image"]}
    (path,) = convert_root(write(tmp_path / "a.root", entries, ntuple=True), tmp_path / "h5")
    assert ragged(path, "Jet", "pt") == [[50, 40], [], [30], []]
    assert ragged(path, "Jet", "mother") == [[1, 2], [], [3], []]
    with h5py.File(path) as file:
        assert file["MET_pt"][()].tolist() == [1, 2, 3, 4]
        assert file["image"][()].tolist() == EVENTS["image"].tolist()


def test_leaves_of_a_branch_become_keys_of_their_own(tmp_path):
    vertices = ak.zip({"x": np.array([1.0, 2.0]), "n": np.array([3, 4])})
    source = write(tmp_path / "a.root", {"Vertex": vertices}, ntuple=True)
    with h5py.File(convert_root(source, tmp_path / "h5")[0]) as file:
        assert file["Vertex.x"][()].tolist() == [1, 2]
        assert file["Vertex.n"][()].tolist() == [3, 4]


def test_branches_are_chosen_by_name_or_glob(tmp_path):
    source = write(tmp_path / "a.root", EVENTS)
    (path,) = convert_root(source, tmp_path / "h5", branches=["Jet.*", "MET_pt"])
    with h5py.File(path) as file:
        assert sorted(file) == ["Jet.Mother", "Jet.PT", "MET_pt"]
    with pytest.raises(KeyMissingError, match=r"has no branch 'MET_phi': did you mean 'MET_pt'"):
        convert_root(source, tmp_path / "h5", branches="MET_phi")


def test_trees_of_as_many_entries_stand_side_by_side(tmp_path):
    source = write(tmp_path / "a.root", {"x": np.arange(3)}, **{"truth/More": {"x": np.arange(3) * 2}})
    with pytest.raises(SpecError, match=r"has several trees, 'Events', 'truth/More': name those to convert"):
        convert_root(source, tmp_path / "h5")
    (path,) = convert_root(source, tmp_path / "h5", trees=["*"])
    with h5py.File(path) as file:
        assert file["Events/x"][()].tolist() == [0, 1, 2]
        assert file["truth/More/x"][()].tolist() == [0, 2, 4]
    (path,) = convert_root(source, tmp_path / "one", trees="truth/More")
    with h5py.File(path) as file:
        assert file["x"][()].tolist() == [0, 2, 4]
    with pytest.raises(KeyMissingError, match="has no tree 'Event': did you mean 'Events'"):
        convert_root(source, tmp_path / "h5", trees="Event")


def test_trees_of_other_numbers_of_entries_are_refused(tmp_path):
    source = write(tmp_path / "a.root", {"x": np.arange(3)}, More={"y": np.arange(4)})
    with pytest.raises(SpecError, match=r"got 'Events' 3, 'More' 4; convert them one by one"):
        convert_root(source, tmp_path / "h5", trees="*")


def test_fixed_arrays_can_become_sparse(tmp_path):
    image = np.zeros((3, 2, 3), np.float32)
    image[0, 1, 2], image[2, 0, 0] = 5, 7
    source = write(tmp_path / "a.root", {"image": image, "x": np.arange(3)})
    (path,) = convert_root(source, tmp_path / "h5", form="sparse")
    with h5py.File(path) as file:
        assert file["image/coords"][()].tolist() == [[1, 2], [0, 0]]
        assert file["image/value"][()].tolist() == [5, 7]
        assert file["image/offsets"][()].tolist() == [0, 1, 1, 2]
        assert file["x"].shape == (3,)


def test_what_is_no_array_of_numbers_is_left_out_and_reported(tmp_path):
    entries = {"x": np.arange(2), "name": ak.Array(["a", "bc"]), "deep": ak.Array([[[1.0], []], []])}
    source = write(tmp_path / "a.root", entries, ntuple=True)
    found = convert_root(source, tmp_path / "h5")
    assert found.left_out == {
        "name": "it is text",
        "deep": "it has lists of any length within lists of any length",
    }
    with h5py.File(found[0]) as file:
        assert sorted(file) == ["x"]
        assert json.loads(file.attrs["left_out"]) == found.left_out
    with pytest.raises(SpecError, match=r"branch 'name' of .* can't be converted: it is text"):
        convert_root(source, tmp_path / "h5", branches=["x", "name"])


def test_brackets_in_names_become_underscores(tmp_path):
    source = write(tmp_path / "a.root", {"pt[0]": np.arange(2.0)})
    with h5py.File(convert_root(source, tmp_path / "h5")[0]) as file:
        assert sorted(file) == ["pt_0_"]
        assert file["pt_0_"].attrs["branch"] == "pt[0]"


def test_events_without_any_hit_are_there(tmp_path):
    source = write(tmp_path / "a.root", {"hits": ak.values_astype(ak.Array([[1.0], []])[1:], np.float32)})
    (path,) = convert_root(source, tmp_path / "h5")
    assert ragged(path, "hits") == [[]]


def spoil(path, start=0.3, stop=0.5):
    data = bytearray(path.read_bytes())
    for place in range(int(start * len(data)), int(stop * len(data))):
        data[place] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_basket_is_named_or_its_events_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("hepfeed.convert.root.STEP_BYTES", 8000)  # 1,000 numbers
    values = np.random.default_rng(0).normal(size=10_000)
    source = write(tmp_path / "a.root", {"x": values}, baskets=10)
    spoil(source)
    with pytest.raises(
        CorruptDataError, match=r"could not read entries \d+ to \d+ of branch 'x' in .*a\.root"
    ) as caught:
        convert_root(source, tmp_path / "h5", workers=1)
    assert caught.value.key == "x"
    assert list((tmp_path / "h5").iterdir()) == []
    found = convert_root(source, tmp_path / "h5", workers=1, on_error="skip")
    lost = np.concatenate([np.arange(each.first, each.first + each.events) for each in found.skipped])
    assert 1000 <= len(lost) <= 5000
    assert found.events + len(lost) == 10_000
    with h5py.File(found[0]) as file:
        np.testing.assert_array_equal(file["x"][()], np.delete(values, lost))
        assert len(json.loads(file.attrs["skipped"])) == len(found.skipped)


def test_a_branch_whose_first_basket_is_damaged_is_not_left_out(tmp_path):
    source = write(tmp_path / "a.root", {"x": np.random.default_rng(0).normal(size=5000)})
    spoil(source)
    with pytest.raises(CorruptDataError, match=r"could not read entries 0 to 4999 of branch 'x'"):
        convert_root(source, tmp_path / "h5")


def test_files_that_are_no_root_files_are_named(tmp_path):
    (tmp_path / "a.root").write_text("version https://git-lfs")
    with pytest.raises(FileFormatError, match=r"expected a ROOT file at .*a\.root, but uproot can't open it"):
        convert_root(tmp_path / "a.root", tmp_path / "h5")
    with uproot.recreate(tmp_path / "b.root") as file:
        file["h"] = np.histogram([1.0])
    with pytest.raises(FileFormatError, match=r"expected a tree in .*b\.root, found h; name another file"):
        convert_root(tmp_path / "b.root", tmp_path / "h5")


def test_a_tree_without_entries_has_no_events(tmp_path):
    write(tmp_path / "a.root", {"x": np.zeros(0)})
    with pytest.raises(SourceError, match="expected events of ROOT, found none"):
        convert_root(tmp_path / "a.root", tmp_path / "h5")


def test_without_uproot_the_error_says_what_to_install(tmp_path):
    write(tmp_path / "a.root", {"x": np.zeros(1)})
    script = """
import sys
sys.modules["uproot"] = None
from hepfeed.convert import convert_root
from hepfeed.errors import SpecError
try:
    convert_root(sys.argv[1], sys.argv[2])
except SpecError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.root"), str(tmp_path / "h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "ROOT files are read with uproot and awkward, and uproot is missing: pip install 'hepfeed[root]'\n"
    )


def test_processes_share_the_files(tmp_path):
    source = write(tmp_path / "a.root", EVENTS)
    paths = convert_root(source, tmp_path / "h5", events_per_file=1, workers=2)
    assert [ragged(path, "Jet.PT") for path in paths] == [[[50, 40]], [[]], [[30]], [[]]]


def test_command_converts(run, tmp_path):
    source = write(tmp_path / "a.root", EVENTS, More={"y": np.arange(4)})
    result = run("convert", "root", source, "--out", tmp_path / "h5", "-t", "Events", "-b", "Jet.*", "-b", "MET_pt")
    assert result.exit_code == 0, result.output
    assert "1 file, 4 events" in result.output
    with h5py.File(tmp_path / "h5/events_0.h5") as file:
        assert sorted(file) == ["Jet.Mother", "Jet.PT", "MET_pt"]
