"""The sample specification: entries, files, labels, rates, classes, and its file."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cloudpickle
import h5py
import numpy as np
import pytest
from events import write_classes
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.errors import FilterError, SpecError
from hepfeed.filters import Filter
from hepfeed.spec import Sample, SampleSpec, hdf5_files

FILES = [
    "EleEscan/EleEscan_1_1.h5",
    "EleEscan/EleEscan_1_2.h5",
    "ChPiEscan/ChPiEscan_1_1.h5",
    "ChPiEscan/deep/ChPiEscan_2_1.hdf5",
]


def write_files(folder, names=FILES):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / name, "w") as file:
            file["ECAL"] = np.zeros((2, 3, 3), np.float32)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four files of two classes below the working directory, and one that is not HDF5."""
    folder = tmp_path / "data"
    write_files(folder)
    (folder / "EleEscan" / "notes.txt").write_text("none")
    monkeypatch.chdir(tmp_path)
    return folder


def names(files):
    return [Path(path).name for path in files]


def refusal(samples, **options):
    """Return the message of the SpecError that a specification raises."""
    with pytest.raises(SpecError) as caught:
        SampleSpec(samples, **options)
    return str(caught.value)


# ---- entries


def test_the_short_form_is_a_list_of_files_keys_label_and_rate(data):
    spec = SampleSpec(
        [
            ["data/EleEscan/*.h5", ["ECAL", "target"], "electron", 1.0],
            ("data/ChPiEscan/*.h5", ("ECAL", "target"), "pion", 2),
        ]
    )
    electron, pion = spec.samples
    assert electron.files == (str(data / FILES[0]), str(data / FILES[1]))
    assert electron.patterns == ("data/EleEscan/*.h5",)
    assert electron.keys == {"ECAL": ("ECAL",), "target": ("target",)}
    assert (electron.label, electron.rate, electron.file_rates, electron.filter) == (
        "electron",
        1.0,
        None,
        None,
    )
    assert (pion.label, pion.rate) == ("pion", 2.0)
    assert spec.files == [str(data / name) for name in FILES[:3]]
    assert spec.names == ("ECAL", "target")
    assert spec.classes == {"electron": 0, "pion": 1}
    assert spec.n_classes == 2


def test_a_mapping_and_a_sample_of_another_specification_are_entries_too(data):
    long = SampleSpec([{"files": "data/EleEscan/*.h5", "keys": ["ECAL"], "label": "e", "rate": 3, "filter": "E > 1"}])
    assert long.samples[0].filter == Filter("E > 1")
    again = SampleSpec([*long.samples, ["data/ChPiEscan", ["ECAL"], "pi", 1]])
    assert again.samples[0] == long.samples[0]
    assert isinstance(again.samples[0], Sample)
    assert SampleSpec(long.samples) == long


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("data", "a sample is [files, keys, label, rate] or a mapping of these options, not 'data'"),
        (["data"], "a sample is [files, keys, label, rate]"),
        (["data", ["ECAL"]], "the option 'label' is missing"),
        (["data", ["ECAL"], "e", 1, 2], "a sample is [files, keys, label, rate]"),
        ({"files": "data", "label": "e"}, "the option 'keys' is missing"),
        ({"files": "data", "kyes": ["ECAL"], "label": "e"}, "no option 'kyes'; did you mean 'keys'?"),
        ({"files": "data", "keys": ["ECAL"], "label": "e", "weight": 1}, "there is no option 'weight'"),
        ({"files": "data", "keys": ["ECAL"], "label": "e", 3: 1}, "option '3'"),
        ([3, ["ECAL"], "e"], "files must be a path"),
        ([[], ["ECAL"], "e"], "files must be a path"),
        ([["data", 3], ["ECAL"], "e"], "3 is none"),
        (["data", "ECAL", "e"], "keys must be a list such as ['ECAL', 'HCAL'], not 'ECAL'"),
        (["data", [], "e"], "the list is empty"),
        (["data", ["ECAL", "/ECAL"], "e"], "key 'ECAL' is given twice"),
        (["data", ["ECAL", 3], "e"], "not 3"),
        (["data", [{"ECAL": []}], "e"], "a list of them, not []"),
        (["data", [{"ECAL": [""]}], "e"], "not ''"),
        (["data", ["ECAL", "label"], "e"], "'label' is reserved"),
        (["data", ["event"], "e"], "'event' is reserved"),
        (["data", {"weight": "w"}, "e"], "'weight' is reserved"),
        (["data", ["ECAL"], None], "label must be a str, an int or a rule"),
        (["data", ["ECAL"], True], "not True"),
        (["data", ["ECAL"], 1.5], "not 1.5"),
        (["data", ["ECAL"], ""], "not ''"),
        (["data", ["ECAL"], {"form": "directory"}], "no option 'form'; did you mean 'from'?"),
        (["data", ["ECAL"], {"from": "file"}], "'directory' or 'filename'"),
        (["data", ["ECAL"], {"from": "filename"}], "a label rule is"),
        (["data", ["ECAL"], {"from": "directory", "pattern": "(a)"}], "a label rule is"),
        (["data", ["ECAL"], {"from": "filename", "pattern": "("}], "is no regular expression"),
        (["data", ["ECAL"], {"from": "filename", "pattern": "a"}], "needs a group"),
        (["data", ["ECAL"], "e", 0], "rate must be a finite number above 0"),
        (["data", ["ECAL"], "e", -1.0], "not -1.0"),
        (["data", ["ECAL"], "e", math.nan], "not nan"),
        (["data", ["ECAL"], "e", math.inf], "not inf"),
        (["data", ["ECAL"], "e", True], "not True"),
        (["data", ["ECAL"], "e", "1"], "not '1'"),
        (["data", ["ECAL"], "e", [1, 1, 0, 1]], "not 0"),
        (["data", ["ECAL"], "e", {"*": -1}], "not -1"),
        (["data", ["ECAL"], "e", {1: 1}], "by file names"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_number(data, entry, message):
    text = refusal([["data/EleEscan", ["ECAL"], "x"], entry])
    assert text.startswith("sample 2 of 2: ")
    assert message in text


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "one sample or more"),
        ("data", {}, "option 'samples'"),
        (None, {}, "'samples' is missing"),
        ([["data", ["ECAL"], "e"]], {"classes": ["e"]}, "classes must map"),
        ([["data", ["ECAL"], "e"]], {"classes": {"e": -1}}, "must be an int of 0 or more, not -1"),
        ([["data", ["ECAL"], "e"]], {"classes": {"e": True}}, "not True"),
        ([["data", ["ECAL"], "e"]], {"classes": {"e": 0, "f": 0}}, "given to several labels"),
        ([["data", ["ECAL"], "e"]], {"classes": {1.5: 0}}, "not 1.5"),
        ([["data", ["ECAL"], "muon"]], {"classes": {"mu": 0, "moun": 1}}, "'muon'; did you mean 'moun'"),
        ([["data", ["ECAL"], "e"]], {"dtypes": {"EACL": "float32"}}, "did you mean 'ECAL'"),
        ([["data", ["ECAL"], "e"]], {"dtypes": {"ECAL": "flaot32"}}, "not 'flaot32'"),
        ([["data", ["ECAL"], "e"]], {"dtypes": {"ECAL": "str"}}, "not 'str'"),
        ([["data", ["ECAL"], "e"]], {"dtypes": {"ECAL": None}}, "not None"),
        ([["data", ["ECAL"], "e"]], {"dtypes": ["ECAL"]}, "dtypes must map"),
        ([["data", ["ECAL"], "e"]], {"filter": 3}, "filter must be an expression"),
        (
            [["data/EleEscan", ["ECAL"], "e"], ["data/ChPiEscan", ["HCAL"], "pi"]],
            {},
            "must have the same keys",
        ),
        ([["data/EleEscan", ["ECAL"], "e", 1], ["data/ChPiEscan", ["ECAL"], "pi"]], {}, "'pi' has none"),
        ([["data/EleEscan", ["ECAL"], "e"], ["data/ChPiEscan", ["ECAL"], 11]], {}, "all str or all int"),
        ([["data", ["ECAL"], -11]], {}, "the label -11 is no class index"),
        (
            [["data/EleEscan", ["ECAL"], "e"], ["data", ["ECAL"], "all"]],
            {},
            "is in two samples ('e' and 'all')",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(data, samples, options, message):
    assert message in refusal(samples, **options)


# ---- files


def test_a_directory_means_its_hdf5_files_however_deep(data):
    assert SampleSpec([["data", ["ECAL"], "e"]]).files == sorted(str(data / name) for name in FILES)
    (data / "EleEscan" / ".hidden.h5").write_bytes(b"")
    assert len(hdf5_files(data)) == 4


def test_globs_are_sorted_and_lists_keep_their_order(data):
    spec = SampleSpec(
        [[["data/ChPiEscan/**/*.h*5", Path("data/EleEscan/*_2.h5"), "data/EleEscan/*.h5"], ["ECAL"], "e"]]
    )
    assert names(spec.files) == [
        "ChPiEscan_1_1.h5",
        "ChPiEscan_2_1.hdf5",
        "EleEscan_1_2.h5",
        "EleEscan_1_1.h5",
    ]
    assert all(os.path.isabs(path) for path in spec.files)


def test_a_glob_of_directories_means_the_files_in_them(data):
    assert len(SampleSpec([["data/*", ["ECAL"], "e"]]).files) == 4


def test_a_path_with_brackets_is_a_path_where_it_exists(data):
    (data / FILES[0]).rename(data / "run[1].h5")
    assert names(SampleSpec([["data/run[1].h5", ["ECAL"], "e"]]).files) == ["run[1].h5"]


def test_the_home_directory_is_expanded(data, monkeypatch):
    monkeypatch.setenv("HOME", str(data))
    assert len(SampleSpec([["~/EleEscan/*.h5", ["ECAL"], "e"]]).files) == 2


def test_a_link_to_a_directory_is_followed_and_a_circle_of_links_ends(data):
    (data / "EleEscan" / "up").symlink_to(data, target_is_directory=True)
    assert len(hdf5_files(data / "EleEscan")) == 4
    (data / "link.h5").symlink_to(data / FILES[0])
    assert "is in two samples" in refusal([["data/link.h5", ["ECAL"], "e"], ["data/EleEscan/*.h5", ["ECAL"], "f"]])


def test_links_to_files_are_known_in_a_directory_of_many(tmp_path):
    many = tmp_path / "many"
    (many / "below.h5").mkdir(parents=True)
    for number in range(50):
        (many / f"{number:02d}.h5").touch()
    (many / "below.h5" / "50.h5").touch()
    (many / "again.h5").symlink_to(many / "07.h5")
    (tmp_path / "other.h5").symlink_to(many / "08.h5")
    spec = SampleSpec([[f"{many}/*.h5", ["ECAL"], "e"]])
    assert sorted(names(spec.files)) == [f"{number:02d}.h5" for number in range(51)]
    assert "is in two samples" in refusal([[f"{many}/*.h5", ["ECAL"], "e"], [f"{tmp_path}/other.h5", ["ECAL"], "f"]])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/EleEscn/*.h5", "did you mean 'EleEscan'"),
        ("data/EleEscan/EleEscan_1_9.h5", "did you mean 'EleEscan_1_2.h5' or 'EleEscan_1_1.h5'"),
        ("/nowhere/at/all.h5", "no file matches '/nowhere/at/all.h5'"),
        ("data/empty", "is a directory without files"),
    ],
)
def test_a_pattern_without_files_is_refused_with_what_is_beside_it(data, pattern, message):
    (data / "empty").mkdir()
    text = refusal([[pattern, ["ECAL"], "e"]])
    assert pattern in text
    assert message in text


# ---- keys, labels, rates, filters, classes


def test_keys_have_candidates_and_a_name_in_the_batch(data):
    forms = [
        ["HCAL", {"ECAL": ["ECAL", "ECAL/ECAL"]}],
        {"HCAL": "/HCAL", "ECAL": ["ECAL", "/ECAL/ECAL", "ECAL"]},
    ]
    for keys in forms:
        sample = SampleSpec([["data", keys, "e"]]).samples[0]
        assert sample.keys == {"HCAL": ("HCAL",), "ECAL": ("ECAL", "ECAL/ECAL")}
    assert SampleSpec([["data", ["ECAL/ECAL"], "e"]]).names == ("ECAL/ECAL",)


def test_a_rule_takes_labels_from_directories(data):
    spec = SampleSpec([["data/*/*.h5", ["ECAL"], {"from": "directory"}, 2.0]], filter="E > 1")
    assert [(s.label, names(s.files), s.rate) for s in spec.samples] == [
        ("ChPiEscan", ["ChPiEscan_1_1.h5"], 2.0),
        ("EleEscan", ["EleEscan_1_1.h5", "EleEscan_1_2.h5"], 2.0),
    ]
    assert spec.classes == {"ChPiEscan": 0, "EleEscan": 1}


def test_a_rule_takes_labels_from_file_names(data):
    rule = {"from": "filename", "pattern": r"([A-Za-z]+)_\d+"}
    assert [s.label for s in SampleSpec([["data", ["ECAL"], rule]]).samples] == ["ChPiEscan", "EleEscan"]
    rule = {"from": "filename", "pattern": r"[A-Za-z]+_(\d)_(?P<label>\d)"}
    labels = {s.label: names(s.files) for s in SampleSpec([["data/EleEscan", ["ECAL"], rule]]).samples}
    assert labels == {"1": ["EleEscan_1_1.h5"], "2": ["EleEscan_1_2.h5"]}
    rule = {"from": "filename", "pattern": r"(Ele)"}
    text = refusal([["data", ["ECAL"], rule]])
    assert "does not match the file name 'ChPiEscan_1_1.h5'" in text
    assert str(data / FILES[2]) in text


def test_a_sample_that_a_rule_made_keeps_its_files_in_another_specification(data):
    split = SampleSpec([["data", ["ECAL"], {"from": "directory"}]])
    assert [s.label for s in split.samples] == ["ChPiEscan", "deep", "EleEscan"]
    assert SampleSpec(split.samples) == split
    assert SampleSpec(split.samples[2:]).files == [str(data / FILES[0]), str(data / FILES[1])]


def test_rates_by_file_follow_the_files(data):
    listed = SampleSpec([["data/EleEscan", ["ECAL"], "e", [1, 2.5]]])
    assert listed.samples[0].file_rates == (1.0, 2.5)
    assert listed.samples[0].rate is None
    for rates in (
        {"EleEscan_1_1.h5": 1, "*_2.h5": 2.5},
        {"data/EleEscan/*_1.h5": 1, str(data / FILES[1]): 2.5},
    ):
        assert SampleSpec([["data/EleEscan", ["ECAL"], "e", rates]]) == listed
    split = SampleSpec([["data/*/*.h5", ["ECAL"], {"from": "directory"}, [1, 2, 3]]])
    assert [s.file_rates for s in split.samples] == [(1.0,), (2.0, 3.0)]


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ([1], "one for each of the 2 files, and 1 came"),
        ({"*_1.h5": 1}, "EleEscan_1_2.h5': add it"),
        ({"*.h5": 1, "*_3.h5": 1}, "'*_3.h5', which is no file here"),
        ({"*.h5": 1, "*_1.h5": 2}, "both 1.0 and 2.0"),
    ],
)
def test_rates_that_do_not_fit_the_files_are_refused(data, rate, message):
    assert message in refusal([["data/EleEscan", ["ECAL"], "e", rate]])


def test_numpy_numbers_are_numbers(data):
    spec = SampleSpec([["data", ["ECAL"], np.int64(3), np.float32(0.5)]], classes={np.int64(3): np.int32(1)})
    assert (spec.samples[0].label, spec.samples[0].rate, spec.classes) == (3, 0.5, {3: 1})
    assert type(spec.samples[0].rate) is float


def test_the_common_filter_and_the_own_one_both_apply(data):
    electron = {"files": "data/EleEscan", "keys": ["ECAL"], "label": "e", "filter": "E > 1"}
    pion = {"files": "data/ChPiEscan", "keys": ["ECAL"], "label": "pi"}
    spec = SampleSpec([electron, pion], filter="eta < 2")
    assert spec.event_filter(spec.samples[0]) == Filter("eta < 2 and E > 1")
    assert spec.event_filter(spec.samples[1]) == Filter("eta < 2")
    assert SampleSpec([pion]).event_filter(spec.samples[1]) is None


def test_a_bare_function_filters_on_the_keys_of_the_batch(data):
    spec = SampleSpec([["data", ["ECAL", "HCAL"], "e"]], filter=lambda columns: columns["ECAL"] > 1)
    assert spec.filter is not None
    assert spec.filter.keys == {"ECAL", "HCAL"}


def test_a_wrong_filter_names_the_sample(data):
    with pytest.raises(FilterError, match="sample 1 of 1: filter 'E >>', column"):
        SampleSpec([{"files": "data", "keys": ["ECAL"], "label": "e", "filter": "E >>"}])


def test_classes_do_not_depend_on_the_order_of_samples(data):
    entries = [["data/EleEscan", ["ECAL"], "pion"], ["data/ChPiEscan", ["ECAL"], "electron"]]
    assert SampleSpec(entries).classes == SampleSpec(entries[::-1]).classes == {"electron": 0, "pion": 1}


def test_int_labels_are_their_own_index_and_classes_may_say_otherwise(data):
    entries = [["data/EleEscan", ["ECAL"], 11], ["data/ChPiEscan", ["ECAL"], 211]]
    spec = SampleSpec(entries)
    assert (spec.classes, spec.n_classes) == ({11: 11, 211: 211}, 212)
    spec = SampleSpec(entries, classes={11: 0, 211: 2, 22: 1})
    assert (spec.classes, spec.n_classes) == ({11: 0, 211: 2, 22: 1}, 3)


def test_dtypes_are_written_with_one_name(data):
    spec = SampleSpec([["data", ["ECAL", "HCAL"], "e"]], dtypes={"ECAL": "f2", "HCAL": np.float32})
    assert spec.dtypes == {"ECAL": "float16", "HCAL": "float32"}


# ---- identity


def test_the_fingerprint_changes_with_every_option(data):
    entry = {"files": "data", "keys": ["ECAL"], "label": "e"}
    variants = [
        SampleSpec([entry]),
        SampleSpec([entry | {"files": "data/EleEscan"}]),
        SampleSpec([entry | {"keys": ["HCAL"]}]),
        SampleSpec([entry | {"keys": {"ECAL": ["HCAL"]}}]),
        SampleSpec([entry | {"label": "f"}]),
        SampleSpec([entry | {"rate": 2}]),
        SampleSpec([entry | {"rate": [2, 2, 2, 2]}]),
        SampleSpec([entry | {"filter": "E > 1"}]),
        SampleSpec([entry], filter="E > 1"),
        SampleSpec([entry], filter=lambda columns: columns["ECAL"] > 1),
        SampleSpec([entry], filter=lambda columns: columns["ECAL"] > 2),
        SampleSpec([entry], classes={"e": 1}),
        SampleSpec([entry], dtypes={"ECAL": "float16"}),
    ]
    assert len({spec.fingerprint() for spec in variants}) == len(variants)
    assert all(a != b for at, a in enumerate(variants) for b in variants[:at])
    assert SampleSpec([entry]).fingerprint() == SampleSpec([["data", ["ECAL"], "e"]]).fingerprint()
    assert SampleSpec([entry]) != "data"


def test_equal_specifications_have_equal_hashes_and_pickle(data):
    made = [SampleSpec([["data", ["ECAL"], "e", 1.0]], filter="E > 1", dtypes={"ECAL": "f4"}) for _ in range(2)]
    assert made[0] == made[1]
    assert hash(made[0]) == hash(made[1])
    assert pickle.loads(pickle.dumps(made[0])) == made[0]
    by_function = SampleSpec([["data", ["ECAL"], "e"]], filter=lambda columns: columns["ECAL"] > 1)
    assert pickle.loads(cloudpickle.dumps(by_function)).fingerprint() == by_function.fingerprint()


def test_the_repr_is_one_line_of_what_matters(data):
    spec = SampleSpec([["data", ["ECAL"], "e", 1.0]], filter="E > 1")
    assert repr(spec) == ("SampleSpec(1 samples, 4 files, keys=['ECAL'], classes={'e': 0}, filter=Filter('E > 1'))")
    assert repr(spec.samples[0]) == "Sample('e', 4 files, keys=['ECAL'], rate=1.0)"
    assert repr(SampleSpec([["data", ["ECAL"], "e", [1, 1, 1, 1]]]).samples[0]).endswith("rate=per file)")


# ---- its file


def test_a_bare_list_in_yaml_is_a_specification_relative_to_its_file(data, monkeypatch):
    (data / "lcd.yaml").write_text(
        """
- [EleEscan/*.h5, [ECAL, {HCAL: [HCAL, HCAL/HCAL]}], electron, 1e-1]
- files: [ChPiEscan/*.h5, ChPiEscan/deep]
  keys: [ECAL, {HCAL: [HCAL]}]
  label: pion
  rate: 1
  filter: Energy > 0.61
"""
    )
    monkeypatch.chdir("/")
    spec = SampleSpec.load(data / "lcd.yaml")
    assert spec.files == [str(data / name) for name in FILES]
    assert spec.samples[0].rate == 0.1
    assert spec.samples[1].filter == Filter("Energy > 0.61")
    assert spec.samples[0].keys["HCAL"] == ("HCAL", "HCAL/HCAL")


def test_a_mapping_in_json_is_a_specification(data):
    (data / "lcd.json").write_text(
        json.dumps(
            {
                "samples": [["EleEscan", ["ECAL"], 11], ["ChPiEscan", ["ECAL"], 211]],
                "filter": "E > 1",
                "classes": {"11": 0, "211": 1},
                "dtypes": {"ECAL": "float16"},
            }
        )
    )
    spec = SampleSpec.load(data / "lcd.json")
    assert spec.classes == {11: 0, 211: 1}
    assert spec.filter == Filter("E > 1")
    assert spec.dtypes == {"ECAL": "float16"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "- [EleEscan, [ECAL], e]\nfilter: a\n", "no YAML in line 2"),
        ("a.yaml", "samples: []\nfilter: a\nfilter: b\n", "no YAML in line 3: 'filter' is given twice"),
        ("a.yaml", "", "a list of samples or a mapping, not None"),
        ("a.yaml", "smaples: []\n", "no option 'smaples'; did you mean 'samples'?"),
        ("a.yaml", "filter: a > 1\n", "'samples' is missing"),
        ("a.yaml", "- [EleEscan, [ECAL], no]\n", "not False"),
        (
            "a.yaml",
            "- [EleEscan, [ECAL], e]\n- {files: ChPiEscan, keys: [ECAL], lable: e}\n",
            "sample 2 of 2",
        ),
        ("a.yaml", "a: \x07\n", "no YAML"),
        ("a.json", '{"samples": [\n}', "no JSON in line 2"),
        ("a.json", '{"samples": [], "filter": "a", "filter": "b"}', "'filter' is given twice"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_line(data, name, text, message):
    (data / name).write_text(text)
    with pytest.raises(SpecError) as caught:
        SampleSpec.load(data / name)
    assert message in str(caught.value)
    assert str(data / name) in str(caught.value)


def test_a_missing_or_binary_file_is_refused(data):
    (data / "lcd.yaml").write_bytes(b"\x89HDF\xff")
    with pytest.raises(SpecError, match=r"did you mean 'lcd\.yaml'"):
        SampleSpec.load("data/lcd.yml")
    with pytest.raises(SpecError, match="is a binary file"):
        SampleSpec.load("data/lcd.yaml")
    with pytest.raises(SpecError, match="directory"):
        SampleSpec.load("data")


def test_a_saved_file_reads_as_it_was_written_by_hand(data):
    spec = SampleSpec(
        [
            ["data/EleEscan/*.h5", ["ECAL", {"HCAL": ["HCAL", "HCAL/HCAL"]}], "electron", 1.0],
            {
                "files": "data/ChPiEscan",
                "keys": ["ECAL", "HCAL"],
                "label": "pion",
                "rate": 2.0,
                "filter": "E > 1",
            },
        ],
        dtypes={"ECAL": "float16"},
    )
    spec.save("data/lcd.yaml")
    assert (data / "lcd.yaml").read_text() == (
        "samples:\n"
        "- [EleEscan/*.h5, [ECAL, {HCAL: [HCAL, HCAL/HCAL]}], electron, 1.0]\n"
        "- files: ChPiEscan\n"
        "  keys: [ECAL, HCAL]\n"
        "  label: pion\n"
        "  rate: 2.0\n"
        "  filter: E > 1\n"
        "classes:\n"
        "  electron: 0\n"
        "  pion: 1\n"
        "dtypes:\n"
        "  ECAL: float16\n"
    )
    assert spec.to_yaml("data") == (data / "lcd.yaml").read_text()
    assert "[data/EleEscan/*.h5, " in spec.to_yaml()


def test_absolute_patterns_stay_and_relative_ones_follow_the_file(data, tmp_path, monkeypatch):
    absolute, relative = str(data / "EleEscan" / "*.h5"), "data/ChPiEscan/*.h5"
    spec = SampleSpec([[absolute, ["ECAL"], "e"], [relative, ["ECAL"], "pi", None]])
    (tmp_path / "specs").mkdir()
    spec.save("specs/a.yaml")
    text = Path("specs/a.yaml").read_text()
    assert absolute in text
    assert "- [../data/ChPiEscan/*.h5," in text
    monkeypatch.chdir("/")
    loaded = SampleSpec.load(tmp_path / "specs" / "a.yaml")
    assert loaded == spec
    loaded.save(tmp_path / "b.json")
    assert SampleSpec.load(tmp_path / "b.json") == spec


def test_a_label_rule_and_rates_by_file_survive_the_file(data, monkeypatch, tmp_path):
    rule = {"from": "filename", "pattern": r"([A-Za-z]+)_\d+"}
    rates = {"data/EleEscan/EleEscan_1_1.h5": 3.0, "EleEscan_1_2.h5": 2.0, "ChPi*": 1.0}
    spec = SampleSpec([["data", ["ECAL"], rule, rates]])
    listed = SampleSpec([["data", ["ECAL"], rule, [1, 1, 3, 2]]])
    assert listed == spec
    (tmp_path / "specs").mkdir()
    for name in ("a.yaml", "a.json"):
        for made in (spec, listed):
            made.save(f"specs/{name}")
            monkeypatch.chdir("/")
            assert SampleSpec.load(tmp_path / "specs" / name) == spec
            monkeypatch.chdir(tmp_path)


def test_classes_are_saved_so_that_a_new_class_does_not_renumber(data):
    SampleSpec([["data/EleEscan", ["ECAL"], "pion"]]).save("a.yaml")
    loaded = SampleSpec.load("a.yaml")
    assert loaded.classes == {"pion": 0}
    both = SampleSpec(
        [*loaded.samples, ["data/ChPiEscan", ["ECAL"], "electron"]], classes={**loaded.classes, "electron": 1}
    )
    assert both.classes == {"pion": 0, "electron": 1}


def test_a_function_and_another_suffix_can_not_be_saved(data):
    with pytest.raises(SpecError, match=r"sample 1 of 1: a filter function .* can't be saved"):
        SampleSpec([{"files": "data", "keys": ["a"], "label": "e", "filter": len}]).save("a.yaml")
    with pytest.raises(SpecError, match="can't be saved"):
        SampleSpec([["data", ["a"], "e"]], filter=Filter("a > 1") & Filter(len, keys=["a"])).to_yaml()
    with pytest.raises(SpecError, match=r"not '\.toml'"):
        SampleSpec([["data", ["a"], "e"]]).save("a.toml")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = TEXT.map(lambda name: re.sub(r"[\[\]]", "", name)).filter(
    lambda name: name.strip("/ \t") and name.strip("/") not in ("label", "event", "weight")
)
KEYS = st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=2), min_size=1, max_size=3).filter(
    lambda keys: len({name.strip("/") for name in keys}) == len(keys)
)
RATES = st.floats(min_value=0, max_value=1e300, exclude_min=True)
LABELS = st.lists(TEXT, min_size=2, max_size=2) | st.lists(st.integers(0, 9), min_size=2, max_size=2)
FILTERS = st.none() | st.sampled_from(["E > 1", "name == 'a: b # c'", "key('a/b')[0, -1] in [1, -2.5e-7]"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two files, one a directory."""
    folder = tmp_path_factory.mktemp("tree")
    write_files(folder, ["a/1.h5", "b/1.h5"])
    return folder


@settings(max_examples=60, deadline=None)
@given(
    keys=KEYS,
    labels=LABELS,
    rates=st.none() | st.tuples(RATES, RATES),
    filters=st.tuples(FILTERS, FILTERS),
    suffix=st.sampled_from([".yaml", ".json"]),
    dtype=st.none() | st.sampled_from(["float16", "float32", "int64"]),
)
def test_any_specification_survives_its_file(tree, keys, labels, rates, filters, suffix, dtype):
    spec = SampleSpec(
        [
            {"files": name, "keys": keys, "label": label, "rate": rate, "filter": own}
            for name, label, rate, own in zip("ab", labels, rates or (None, None), (filters[0], None), strict=True)
        ],
        filter=filters[1],
        dtypes=dtype and {next(iter(keys)): dtype},
        root=tree,
    )
    path = tree / f"saved{suffix}"
    spec.save(path)
    loaded = SampleSpec.load(path)
    assert loaded == spec
    assert loaded.fingerprint() == spec.fingerprint()


def test_the_specification_imports_neither_torch_nor_h5py(tmp_path):
    code = "import sys, hepfeed.spec; print([m for m in ('torch', 'h5py') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=60,
        cwd=tmp_path,  # else Python takes the source tree of the working directory
    )
    assert done.stdout.strip() == "[]"


# ---- how a machine reads them


def test_loader_options_are_kept_and_found_from_anywhere(tmp_path, monkeypatch):
    files = write_classes(tmp_path, {"electron": [4], "pion": [4]})
    options = {"num_workers": 3, "cache": "caches", "batch_size": 16}
    spec = SampleSpec(files, loader=options, root=tmp_path)
    assert spec.loader.given == {**options, "cache": str(tmp_path / "caches")}
    spec.save(tmp_path / "set.yaml")
    assert "cache: caches" in (tmp_path / "set.yaml").read_text()
    monkeypatch.chdir("/")
    assert SampleSpec.load(tmp_path / "set.yaml") == spec
    assert SampleSpec.load(tmp_path / "set.yaml", until="read").loader == spec.loader


def test_loader_options_do_not_change_what_the_events_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = SampleSpec(write_classes(tmp_path, {"electron": [4], "pion": [4]}))
    other = spec.with_loader({"cache": None, "window_events": 5})
    assert other.loader.given == {"cache": None, "window_events": 5}
    assert spec.loader.given == {}
    assert other != spec
    assert other.fingerprint() == spec.fingerprint()
    assert spec.with_loader({"cache": "here"}).loader.cache == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_worker": 2}, "loader: there is no option 'num_worker'; did you mean 'num_workers'"),
        ({"num_workers": -1}, "loader: option 'num_workers': .*greater than or equal to 0"),
        ({"batch_size": "many"}, "loader: option 'batch_size'"),
        ([4], "loader must be a mapping"),
    ],
)
def test_wrong_loader_options_are_errors(tmp_path, options, message):
    with pytest.raises(SpecError, match=message):
        SampleSpec(write_classes(tmp_path, {"electron": [4]}), loader=options)
