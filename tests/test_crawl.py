"""Crawling a directory tree into a specification, and the command that does it."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepfeed.cli.spec import register
from hepfeed.crawl import crawl, survey
from hepfeed.errors import FilterError, HepfeedError, KeyMissingError, SpecError
from hepfeed.spec import SampleSpec

ECAL, ENERGY = np.zeros((4, 3, 2), np.float32), np.arange(4.0)


def write(path, **datasets):
    """Write an HDF5 file; ``__`` in a name is ``/``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two classes, a directory each; their keys in common are ECAL and Event/energy."""
    for number in (1, 2):
        write(tmp_path / f"lcd/EleEscan/EleEscan_{number}_1.h5", ECAL=ECAL, Event__energy=ENERGY, HCAL=ENERGY)
        write(tmp_path / f"lcd/ChPiEscan/ChPiEscan_{number}.h5", ECAL=ECAL, Event__energy=ENERGY)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lcd"


@pytest.fixture
def run(monkeypatch):
    """Call the command line with these arguments, wide enough to keep each line whole."""
    monkeypatch.setenv("COLUMNS", "250")
    app = typer.Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_directory_is_a_class_with_the_keys_in_common(data):
    spec = crawl(data)
    assert [(sample.label, len(sample.files), sample.rate) for sample in spec.samples] == [
        ("ChPiEscan", 2, None),
        ("EleEscan", 2, None),
    ]
    assert spec.names == ("ECAL", "Event/energy")
    assert spec.classes == {"ChPiEscan": 0, "EleEscan": 1}
    assert spec.samples[0].patterns == (str(data / "ChPiEscan" / "*.h5"),)
    assert spec == SampleSpec(
        [
            ["lcd/ChPiEscan", ["ECAL", "Event/energy"], "ChPiEscan"],
            ["lcd/EleEscan", ["ECAL", "Event/energy"], "EleEscan"],
        ]
    )


def test_a_directory_with_several_prefixes_has_a_class_for_each(tmp_path):
    for name in (
        "EleEscan_1_1.h5",
        "EleEscan_1_2.h5",
        "ChPiEscan_2.h5",
        "Pi0_1.h5",
        "Pi0_12.h5",
        "Pi0x.h5",
        "gamma7.h5",
    ):
        write(tmp_path / name, ECAL=ECAL)
    labels = {sample.label: sample.patterns for sample in crawl(tmp_path).samples}
    assert labels == {
        "ChPiEscan": (str(tmp_path / "ChPiEscan_2.h5"),),
        "EleEscan": (str(tmp_path / "EleEscan_*.h5"),),
        "Pi0": (str(tmp_path / "Pi0_*.h5"),),
        "Pi0x": (str(tmp_path / "Pi0x.h5"),),
        "gamma": (str(tmp_path / "gamma7.h5"),),
    }


def test_the_source_of_labels_can_be_chosen(data):
    write(data / "EleEscan" / "MuEscan_1.h5", ECAL=ECAL)
    assert [s.label for s in crawl(data).samples] == ["ChPiEscan", "EleEscan", "MuEscan"]
    assert [s.label for s in crawl(data, label="directory").samples] == ["ChPiEscan", "EleEscan"]
    (data / "EleEscan" / "MuEscan_1.h5").rename(data / "ChPiEscan" / "0001.h5")
    labels = {s.label: len(s.files) for s in crawl(data, label="filename").samples}
    assert labels == {"ChPiEscan": 3, "EleEscan": 2}


def test_files_of_one_label_in_several_directories_are_one_class(tmp_path):
    for part in ("a", "b"):
        write(tmp_path / part / "signal" / f"{part}_1.h5", ECAL=ECAL)
        write(tmp_path / part / "signal" / f"{part}_2.h5", ECAL=ECAL)
    (sample,) = crawl(tmp_path).samples
    assert sample.label == "signal"
    assert sample.patterns == tuple(str(tmp_path / part / "signal" / "*.h5") for part in ("a", "b"))


def test_keys_are_the_data_sets_with_one_row_an_event(tmp_path):
    table = np.zeros(4, [("a", "f4"), ("b", "i4")])
    write(
        tmp_path / "a.h5",
        ECAL=ECAL,
        energy=ENERGY,
        good=np.ones(4, bool),
        bins=np.arange(9),
        names=np.array([b"a", b"b", b"c", b"d"]),
        table=table,
        label=np.arange(4),
        run=7,
        _i_table__x=np.arange(4),
        hits___indices__index=np.arange(4),
    )
    (found,) = survey(tmp_path).classes
    assert found.events == 4
    numbers = {"ECAL": ((3, 2), "float32"), "energy": ((), "float64"), "good": ((), "bool")}
    assert found.keys == numbers | {"table.a": ((), "float32"), "table.b": ((), "int32")}
    assert found.left_out == {
        "bins": "9 rows for 4 events",
        "label": "a reserved name",
        "names": "no numbers",
        "run": "no event axis",
    }


def test_images_count_the_events_where_lengths_are_as_frequent(tmp_path):
    write(tmp_path / "a.h5", ECAL=ECAL, bins=np.arange(9))
    (found,) = survey(tmp_path).classes
    assert (found.events, list(found.keys)) == (4, ["ECAL"])


def test_events_of_different_lengths_are_keys_with_their_layout(tmp_path, run):
    for label in ("muon", "neutrino"):
        write(tmp_path / label / "1.h5", Hits__V=ENERGY, Hits__offsets=np.array([0, 1, 4]), energy=ENERGY[:2])
    found = survey(tmp_path)
    first = found.classes[0]
    assert (first.events, first.keys) == (2, {"Hits/V": ((), "float64"), "energy": ((), "float64")})
    assert (first.jagged, first.layout) == ({"Hits/V"}, "offsets")
    assert first.left_out == {"Hits/offsets": "3 rows for 2 events"}
    assert [sample.layout for sample in found.spec().samples] == ["offsets", "offsets"]
    assert [sample.layout for sample in found.spec(keys=["energy"]).samples] == [None, None]
    result = run(tmp_path, "-o", tmp_path / "a.yaml")
    assert result.exit_code == 0
    assert "Hits/V rows of () float64" in result.output
    assert SampleSpec.load(tmp_path / "a.yaml") == found.spec()


def test_a_file_that_is_not_hdf5_is_left_out_with_a_warning_that_names_it(data):
    (data / "EleEscan" / "EleEscan_0.h5").write_text("version https://git-lfs.github.com/spec/v1")
    (data / "EleEscan" / "EleEscan_9.h5").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out") as caught:
        spec = crawl(data)
    assert ["EleEscan_0.h5" in str(caught[0].message), "EleEscan_9.h5" in str(caught[1].message)] == [
        True,
        True,
    ]
    assert [Path(path).name for path in spec.samples[1].files] == ["EleEscan_1_1.h5", "EleEscan_2_1.h5"]
    assert len(spec.samples[1].patterns) == 2
    assert list(survey(data).skipped) == [str(data / "EleEscan" / name) for name in ("EleEscan_0.h5", "EleEscan_9.h5")]


def test_a_directory_without_hdf5_files_is_refused(data):
    (data / "empty").mkdir()
    with pytest.raises(SpecError, match=r"no file \*\.h5, \*\.hdf5, \*\.hdf, \*\.he5 in .*empty"):
        crawl(data / "empty")
    with pytest.raises(SpecError, match=r"lcdd' is no directory; did you mean 'lcd'"):
        crawl(data.parent / "lcdd")
    (data / "empty" / "a.h5").write_bytes(b"")
    with pytest.raises(SpecError, match=r"none of the 1 files .* is HDF5"):
        crawl(data / "empty")


def test_keys_rate_and_filter_go_into_the_specification(data):
    spec = crawl(data, keys=["ECAL"], rate=2, filter="Event.energy > 1")
    assert spec.names == ("ECAL",)
    assert [sample.rate for sample in spec.samples] == [2.0, 2.0]
    assert spec.filter is not None
    assert spec.filter.expression == "Event.energy > 1"
    with pytest.raises(FilterError):
        crawl(data, filter="Event.energy >")


def test_a_key_that_a_class_lacks_is_refused_with_what_it_has(data):
    with pytest.raises(KeyMissingError, match=r"'energy' of the class 'ChPiEscan' .* did you mean 'Event/energy'"):
        crawl(data, keys=["energy"])
    write(data / "EleEscan" / "EleEscan_0.h5", ECAL=ECAL, Event__energy=ENERGY, bins=np.arange(3))
    write(data / "ChPiEscan" / "ChPiEscan_0.h5", ECAL=ECAL, Event__energy=ENERGY, bins=np.arange(3))
    with pytest.raises(KeyMissingError, match=r"is no key \(3 rows for 4 events\)"):
        crawl(data, keys=["bins"])


def test_classes_without_a_key_in_common_are_refused_with_what_each_has(data):
    write(data / "MuEscan" / "MuEscan_1.h5", images=ECAL)
    with pytest.raises(SpecError, match=r"no key in common: .*'MuEscan' has images"):
        crawl(data)


# ---- the command


def test_the_command_prints_yaml_alone_on_its_output(data, run):
    done = run("lcd")
    assert done.exit_code == 0
    assert done.stdout == (
        "samples:\n"
        "- [lcd/ChPiEscan/*.h5, [ECAL, Event/energy], ChPiEscan]\n"
        "- [lcd/EleEscan/*.h5, [ECAL, Event/energy], EleEscan]\n"
        "classes:\n"
        "  ChPiEscan: 0\n"
        "  EleEscan: 1\n"
    )
    for part in ("ChPiEscan", "ECAL (3, 2) float32", "Event/energy () float64"):
        assert part in done.stderr


def test_the_command_writes_the_file_that_it_is_given(data, run):
    done = run(
        "lcd",
        "-o",
        "lcd/a.json",
        "--keys",
        "ECAL",
        "--keys",
        "Event/energy",
        "--rate",
        "2",
        "--filter",
        "x > 1",
    )
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "2 classes, 4 files: wrote lcd/a.json" in done.stderr
    assert SampleSpec.load("lcd/a.json") == crawl("lcd", rate=2, filter="x > 1")


def test_the_command_takes_keys_with_commas_and_the_source_of_labels(data, run):
    write(data / "EleEscan" / "MuEscan_1.h5", ECAL=ECAL)
    done = run("lcd", "--keys", "ECAL,Event/energy", "--label", "directory")
    assert done.exit_code == 0
    assert "EleEscan/*.h5, [ECAL, Event/energy], EleEscan]" in done.stdout
    assert "MuEscan" not in done.stdout


def test_the_command_warns_of_files_that_are_not_hdf5(data, run):
    (data / "EleEscan" / "[bold]broken.h5").write_bytes(b"")
    done = run("lcd", "--label", "directory")
    assert done.exit_code == 0
    assert "[bold]broken.h5" in done.stderr
    assert "broken" not in done.stdout


def test_the_command_raises_what_the_library_raises(data, run):
    done = run("lcd", "--keys", "HACL")
    assert done.exit_code == 1
    assert isinstance(done.exception, HepfeedError)
    assert "'HACL' of the class 'ChPiEscan'" in str(done.exception)


# ---- files of experiments


@pytest.fixture
def real():
    """The folder of event files that experiments made."""
    folder = os.environ.get("HEPFEED_DATA")
    if not folder:
        pytest.skip("HEPFEED_DATA is not set: no event files of experiments")
    return Path(folder)


def test_a_liquido_file_and_broken_neighbours_are_told_apart(real):
    with pytest.raises(SpecError, match="Git LFS pointer"):
        crawl(real / "edge-cases")
    spec = crawl(real / "liquido")
    assert [len(sample.files) for sample in spec.samples] == [1]


def test_waveforms_of_next_are_keys_and_sensor_tables_are_not(real):
    found = {sort.label: sort for sort in survey(real / "next-ic").classes}["6229_000_split_trigger"]
    assert found.events == 3
    assert found.keys["RD/sipmrwf"] == ((1792, 1300), "int16")
    assert found.keys["RD/pmtrwf"] == ((12, 52000), "int16")
    assert "Sensors/DataSiPM" in found.left_out
