"""What a specification makes of its events: layouts, parts of keys, targets, transforms and weights."""

import json

import h5py
import numpy as np
import pytest
import yaml

import hepfeed as hf
from hepfeed import presets
from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.spec import SampleSpec
from hepfeed.transforms import OneHot, Target

ENTRIES = [["e", ["ECAL", "pdgID", "target"], "electron"], ["pi", ["ECAL", "pdgID", "target"], "pion"]]
ONE_HOT = {"one_hot": {"classes": 2}}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two classes of 6 and 4 events, and the working directory that holds them."""
    for name, pdg, events in (("e", 11, 6), ("pi", 211, 4)):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "1.h5", "w") as file:
            file["ECAL"] = np.arange(events * 4, dtype=np.float32).reshape(events, 2, 2)
            file["pdgID"] = np.full(events, pdg, np.int32)
            file["target"] = np.linspace(10, 60, events * 2).reshape(events, 1, 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(entries=ENTRIES, **options):
    with pytest.raises(SpecError) as caught:
        SampleSpec(entries, **options)
    return str(caught.value)


def everything(**more):
    """Return a specification with all options."""
    entries = [{"files": "e", "keys": ENTRIES[0][1], "label": "electron", "layout": "dense"}, ENTRIES[1]]
    options = {
        "targets": {
            "energy": "target[0, 1]",
            "signal": "abs(pdgID) == 11",
            "species": {"key": "pdgID", "map": {11: 0, 211: 1}},
            "copy": "species",
        },
        "transforms": ["cache", {"one_hot": {"key": "species", "classes": 2, "into": "vector"}}],
        "weights": ["target[0, 0]", {"classes": "balanced"}],
    }
    return SampleSpec(entries, **(options | more))


# ---- targets


def test_a_target_is_a_key_an_expression_or_a_mapping(data):
    assert everything().targets == {
        "energy": Target(name="energy", expression="target[0, 1]"),
        "signal": Target(name="signal", expression="abs(pdgID) == 11"),
        "species": Target(name="species", key="pdgID", map={11: 0, 211: 1}),
        "copy": Target(name="copy", key="species"),
    }


def test_the_steps_are_the_targets_then_the_transforms(data):
    spec = everything()
    steps = spec.steps
    assert [type(step) for step in steps.steps] == [Target] * 4 + [OneHot]
    assert steps.cached == 4
    assert SampleSpec(ENTRIES, transforms=[ONE_HOT]).steps.steps == [OneHot(classes=2)]
    assert len(SampleSpec(ENTRIES).steps) == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["energy"], "targets must map names to rules"),
        ({3: "pdgID"}, "targets must map names to rules"),
        ({"t": 3}, "target 't': a target is a key, an expression or a mapping"),
        ({"t": "pdgid == 11"}, "target 't': no key 'pdgid' is fed; did you mean 'pdgID'"),
        ({"t": {"key": "EACL"}}, "target 't': no key 'EACL' is fed; did you mean 'ECAL'"),
        ({"t": {"key": "EACL[0]"}}, "no key 'EACL[0]' is fed"),
        ({"a": "b", "b": "pdgID"}, "target 'a': no key 'b' is fed"),
        ({"ECAL": "pdgID"}, "there is a key of that name"),
        ({"label": "pdgID == 11"}, "can't be 'label'"),
        ({"t": {"kye": "pdgID"}}, "no option 'kye'; did you mean 'key'"),
        ({"t": {"name": "u", "key": "pdgID"}}, "leave the option 'name' out"),
        ({"t": "pdgID >"}, "target 't': target 'pdgID >', column"),
    ],
)
def test_a_wrong_target_is_refused_by_name(data, targets, message):
    assert message in refusal(targets=targets)


# ---- transforms, weights, layouts, keys


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": ["filp"]}, "there is no transform 'filp'"),
        ({"transforms": [{"one_hot": {"clases": 2}}]}, "transform 'one_hot': there is no option 'clases'"),
        ({"weights": {"to": "pin", "variables": "target[0, 1]"}}, "did you mean 'pion'"),
        ({"weights": {"flat": "pt", "bnis": 3}}, "did you mean 'bins'"),
        ({"transform": []}, "unexpected keyword"),
    ],
)
def test_wrong_options_are_refused(data, options, message):
    with pytest.raises((SpecError, TypeError)) as caught:
        SampleSpec(ENTRIES, **options)
    assert message in str(caught.value)


def test_a_wrong_layout_names_the_sample(data):
    entry = {"files": "e", "keys": ["ECAL"], "label": "x", "layout": "km3nte"}
    assert "sample 1 of 1: there is no layout 'km3nte'; did you mean 'km3net'" in refusal([entry])


def test_a_stated_layout_survives(data):
    layout = {"rows": {"hits/*": {"offsets": "hits/offsets"}}}
    spec = SampleSpec([{"files": "e", "keys": ["hits/q"], "label": "x", "layout": layout}])
    assert spec.samples[0].layout == layout
    assert SampleSpec(spec.samples) == spec
    spec.save("a.yaml")
    assert SampleSpec.load("a.yaml") == spec
    assert yaml.safe_load((data / "a.yaml").read_text())["samples"][0]["layout"] == layout


def test_parts_of_data_sets_are_keys_with_the_name_as_written(data):
    keys = ["jets.pt", "jets[pt, eta]", "HitData[1:4]", {"time": ["HitData[0]", "hits.time"]}]
    spec = SampleSpec([["e", keys, "x"]])
    assert spec.names == ("jets.pt", "jets[pt, eta]", "HitData[1:4]", "time")
    for suffix in ("yaml", "json"):
        spec.save(f"a.{suffix}")
        assert SampleSpec.load(f"a.{suffix}") == spec
    assert "mixes fields and items" in refusal([["e", ["jets[pt, 1]"], "x"]])
    assert "is not of the form" in refusal([["e", [{"a": ["jets[pt"]}], "x"]])


# ---- identity and file


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_everything_survives_the_file(data, suffix):
    spec = everything()
    spec.save(f"a.{suffix}")
    loaded = SampleSpec.load(f"a.{suffix}")
    assert loaded == spec
    assert loaded.fingerprint() == spec.fingerprint()
    assert loaded.steps.steps == spec.steps.steps


def test_the_file_reads_as_it_was_written_by_hand(data):
    text = (
        "samples:\n"
        "- files: e\n"
        "  keys: [ECAL, pdgID, target]\n"
        "  label: electron\n"
        "  layout: dense\n"
        "- [pi, [ECAL, pdgID, target], pion]\n"
        "classes:\n"
        "  electron: 0\n"
        "  pion: 1\n"
        "targets:\n"
        "  energy: target[0, 1]\n"
        "  signal: abs(pdgID) == 11\n"
        "  species:\n"
        "    key: pdgID\n"
        "    map:\n"
        "      11: 0\n"
        "      211: 1\n"
        "  copy: species\n"
        "transforms:\n"
        "- cache\n"
        "- one_hot:\n"
        "    key: species\n"
        "    classes: 2\n"
        "    into: vector\n"
        "weights:\n"
        "- target[0, 0]\n"
        "- classes: balanced\n"
    )
    assert everything().to_yaml() == text
    (data / "b.yaml").write_text(text)
    assert SampleSpec.load("b.yaml") == everything()


def test_a_rule_that_looks_like_the_other_kind_keeps_its_kind(data):
    targets = {
        "a": {"key": "target[0]"},
        "b": {"expression": "pdgID"},
        "c": {"expression": "target[0, 1]"},
        "d": {"key": "pdgID"},
    }
    spec = SampleSpec(ENTRIES, targets=targets)
    spec.save("a.json")
    assert json.loads((data / "a.json").read_text())["targets"] == targets | {"c": "target[0, 1]", "d": "pdgID"}
    assert SampleSpec.load("a.json").targets == spec.targets


def test_the_fingerprint_changes_with_targets_transforms_weights_and_layout(data):
    variants = [
        everything(),
        everything(targets={"species": {"key": "pdgID", "map": {11: 0, 211: 1}}}),
        everything(transforms=[{"one_hot": {"key": "species", "classes": 2, "into": "vector"}}]),
        everything(transforms=None),
        everything(transforms=[lambda batch: batch]),
        everything(weights=None),
        everything(weights="target[0, 0]"),
        SampleSpec(ENTRIES, **{name: getattr(everything(), name) for name in ("weights",)}),
    ]
    assert len({spec.fingerprint() for spec in variants}) == len(variants)
    assert all(a != b for at, a in enumerate(variants) for b in variants[:at])
    assert len({spec.as_read().fingerprint() for spec in variants[:7]}) == 1
    assert variants[0].as_read().weights is None
    assert not len(variants[0].as_read().steps)


def test_a_function_among_the_transforms_can_not_be_saved(data):
    spec = everything(transforms=[lambda batch: batch])
    assert "transforms=['<lambda>']" in repr(spec)
    with pytest.raises(SpecError, match=r"function .* can't be saved"):
        spec.save("a.yaml")


def test_a_pipeline_is_accepted_as_it_is(data):
    pipeline = Pipeline([ONE_HOT])
    assert SampleSpec(ENTRIES, transforms=pipeline).pipeline is pipeline


# ---- in a loader


def test_the_loader_delivers_targets_transforms_and_weights(data):
    outputs = (["ECAL"], {"y": "energy", "vector": "vector"}, "weight")
    seen = {}
    for workers in (0, 2):
        dataset = hf.EventDataset(everything())
        with hf.DataLoader(dataset, 4, num_workers=workers, seed=0, outputs=outputs) as loader:
            batches = [[part["y"].tolist(), part["vector"].tolist(), w.tolist()] for _, part, w in loader]
        seen[workers] = [[value for batch in batches for value in batch[i]] for i in range(3)]
    assert seen[0] == seen[2]
    energy, vector, weight = seen[0]
    expected = np.concatenate([np.linspace(10, 60, 12)[1::2], np.linspace(10, 60, 8)[1::2]])
    np.testing.assert_array_equal(energy, expected)
    assert vector == [[1, 0]] * 6 + [[0, 1]] * 4
    assert sum(weight[:6]) == pytest.approx(sum(weight[6:]))
    np.testing.assert_allclose(np.array(weight[:6]) / weight[0], np.linspace(10, 60, 12)[::2] / 10, rtol=1e-6)


def test_an_unknown_value_names_file_and_event(data):
    spec = SampleSpec(ENTRIES, targets={"species": {"key": "pdgID", "map": {11: 0}}})
    with hf.DataLoader(hf.EventDataset(spec), 10, seed=0) as loader, pytest.raises(ProcessError) as caught:
        list(loader)
    assert "the map of target 'species' has no value for 211" in str(caught.value)
    assert caught.value.event == 0
    assert str(caught.value.file).endswith("pi/1.h5")


def test_a_missing_key_of_a_target_is_a_key_error(data):
    with pytest.raises(KeyMissingError):
        SampleSpec(ENTRIES, targets={"t": "conversion == 1"})


# ---- presets


def test_presets_are_structures_of_names():
    assert presets.autoencoder("ECAL") == ("ECAL", "ECAL")
    assert presets.autoencoder(("ECAL", "HCAL")) == (["ECAL", "HCAL"], ["ECAL", "HCAL"])
    assert presets.conditional_generator("ECAL", "energy") == ("ECAL", "energy")
    assert presets.classifier(["ECAL", "HCAL"]) == (["ECAL", "HCAL"], "onehot")
    assert presets.classifier("ECAL", "label", weighted=True) == ("ECAL", "label", "weight")
    assert presets.regression("ECAL", ["energy", "eta"]) == ("ECAL", ["energy", "eta"])
    assert presets.segmentation("image", "mask") == ("image", "mask")
    for wrong in ([], "", [3]):
        with pytest.raises(SpecError, match="name the keys"):
            presets.autoencoder(wrong)


def test_an_autoencoder_gets_the_same_tensor_twice(data):
    with hf.DataLoader(hf.EventDataset(SampleSpec(ENTRIES)), 10, outputs=presets.autoencoder("ECAL")) as loader:
        ((x, y),) = loader
    assert x is y
