"""Statistics of keys: equal to NumPy's, whatever the number of readers, kept with what they are of."""

import json

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import hepfeed as hf
from hepfeed import ordered, statistics
from hepfeed.cli import app
from hepfeed.errors import KeyMissingError, SpecError
from hepfeed.figures import Statistics, default_path
from hepfeed.moments import Moments, channels
from hepfeed.percentiles import Counts, Numbers
from hepfeed.spec import SampleSpec
from hepfeed.statistics import collect, load
from hepfeed.tensors import Graph, Jagged, Padded, Sparse

PERCENTILES = (0, 0.1, 1, 37.5, 50, 99, 99.9, 100)
KEYS = ["image", "energy", "counts", "half", "flag", "hits/q"]


def write(path, events, seed):
    """Write events of many types, half of whose values are 0."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        image = random.normal(3, 10, (events, 4, 3)).astype(np.float32)
        file["image"] = np.where(random.random(image.shape) < 0.5, 0, image)
        energy = random.exponential(50, events) - 20
        energy[: events // 10] = [np.nan, np.inf, -np.inf, -0.0][: events // 10] or 0
        file["energy"] = energy
        file["counts"] = random.integers(-1000, 1000, events).astype(np.int32)
        file["half"] = random.normal(0, 1, (events, 2)).astype(np.float16)
        file["flag"] = random.integers(0, 2, events).astype(np.uint8)
        lengths = random.integers(0, 5, events)
        file["hits/offsets"] = np.concatenate([[0], np.cumsum(lengths)])
        file["hits/q"] = random.normal(0, 1e-3, (lengths.sum(), 2))


@pytest.fixture
def spec(tmp_path):
    """Two classes of 40 events."""
    for number, name in enumerate("ab"):
        write(tmp_path / name / "1.h5", 40, number)
    return SampleSpec([[str(tmp_path / name), KEYS, name] for name in "ab"])


def read(spec, key):
    parts = []
    for path in spec.files:
        with h5py.File(path) as file:
            parts.append(file[key][()])
    return np.concatenate(parts)


@pytest.fixture(params=["gathered", "binned"])
def gather(request, monkeypatch):
    """Whether percentiles come from sorted values or from bins."""
    if request.param == "binned":
        monkeypatch.setattr(statistics, "GATHER", 0)
    return request.param


def compare(figures, values, percentiles=PERCENTILES):
    """Check figures, of one channel, against NumPy's."""
    values = np.asarray(values).astype(np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    assert figures.nonfinite == len(values) - len(finite)
    assert figures.zeros == pytest.approx(np.mean(finite == 0), abs=1e-12)
    for summary, chosen in ((figures, finite), (figures.active, finite[finite != 0])):
        assert summary.count == len(chosen)
        scale = np.abs(chosen).max()
        assert summary.mean == pytest.approx(chosen.mean(), rel=1e-12, abs=1e-12 * scale)
        assert summary.std == pytest.approx(chosen.std(), rel=1e-12)
        assert (summary.minimum, summary.maximum) == (chosen.min(), chosen.max())
        expected = np.percentile(chosen, percentiles)
        assert [*summary.percentiles] == [f"{p:g}" for p in percentiles]
        np.testing.assert_allclose([*summary.percentiles.values()], expected, rtol=1e-6, atol=1e-12 * scale)


def of_channel(figures, channel):
    """Return one channel's figures."""
    part = {}
    for name, value in vars(figures).items():
        if name == "active":
            part[name] = of_channel(value, channel)
        elif name == "percentiles":
            part[name] = {p: each[channel] for p, each in value.items()}
        else:
            part[name] = None if name == "channel_axis" else value[channel]
    return type(figures)(**part)


# ---- figures


def test_the_figures_are_those_of_numpy(spec, gather):
    found = collect(spec, split=None, percentiles=PERCENTILES, num_workers=0)
    assert found.events == 80
    assert [*found.keys] == KEYS
    for key in KEYS:
        compare(found.keys[key], read(spec, key))


def test_each_channel_has_its_figures(spec, gather):
    axes = {"image": 0, "half": -1, "hits/q": 1}
    found = collect(spec, split=None, channel_axis=axes, percentiles=PERCENTILES, num_workers=0)
    for key, count in (("image", 4), ("half", 2), ("hits/q", 2)):
        assert len(found.keys[key].mean) == count
        for channel in range(count):
            compare(of_channel(found.keys[key], channel), read(spec, key)[:, channel])
    compare(found.keys["energy"], read(spec, "energy"))


def test_the_figures_are_the_same_for_any_number_of_readers(spec, gather, monkeypatch):
    monkeypatch.setattr(statistics, "_BATCH_EVENTS", 7)
    found = [collect(spec, split=None, num_workers=workers) for workers in (0, 1, 2)]
    assert found[0] == found[1] == found[2]
    assert found[0].keys["energy"].nonfinite == 6
    for key in KEYS:
        compare(found[0].keys[key], read(spec, key), statistics.PERCENTILES)
        for one, other in zip(found[0].spectra[key], found[2].spectra[key]):
            np.testing.assert_array_equal(one, other)


def test_batches_of_which_some_are_gathered_count_all(spec, monkeypatch):
    monkeypatch.setattr(statistics, "_BATCH_EVENTS", 7)
    monkeypatch.setattr(statistics, "GATHER", 12 * 42)  # 42 values of a batch: some images have more
    found = collect(spec, ["image"], None, percentiles=PERCENTILES, num_workers=0)
    compare(found.keys["image"], read(spec, "image"))


def test_only_the_events_of_the_split_count(spec):
    splits = {"train": 0.5, "val": 0.5}
    dataset = hf.EventDataset(spec, "train", splits=splits)
    energies = np.array([dataset[i]["energy"] for i in range(len(dataset))])
    found = collect(spec, "energy", splits=splits, percentiles=PERCENTILES, num_workers=0)
    assert (found.split, found.events) == ("train", len(dataset))
    compare(found.keys["energy"], energies)
    assert collect(dataset, "energy", percentiles=PERCENTILES, num_workers=0) == found
    first = collect(dataset, "energy", max_events=10, percentiles=PERCENTILES, num_workers=0)
    assert first.events == 10
    compare(first.keys["energy"], energies[:10])


def test_keys_are_measured_as_read_or_as_cached(spec):
    options = {
        "targets": {"double": "energy * 2"},
        "transforms": ["cache", {"target": {"name": "late", "expression": "energy"}}],
    }
    made = SampleSpec(spec.samples, **options)
    assert [*collect(made, split=None, num_workers=0).keys] == KEYS
    with pytest.raises(Exception, match="'double' is undefined where 'energy' is NaN"):
        collect(made, split=None, after="cache", num_workers=0)
    made = SampleSpec(spec.samples, filter="isfinite(energy)", **options)
    found = collect(made, split=None, after="cache", percentiles=PERCENTILES, num_workers=2)
    assert [*found.keys] == [*KEYS, "double"]
    energy = read(spec, "energy")
    compare(found.keys["double"], 2 * energy[np.isfinite(energy)])


def test_an_event_that_a_step_refuses_is_left_out_where_that_is_asked_for(spec):
    options = {"targets": {"double": "energy * 2"}}  # NaN in one event of each class
    made = SampleSpec(spec.samples, **options)
    found = collect(made, ["energy"], None, after="cache", on_error="skip", percentiles=PERCENTILES, num_workers=0)
    energy = read(spec, "energy")
    assert found.events == 78
    compare(found.keys["energy"], energy[~np.isnan(energy)])


def test_events_without_hits_have_no_figures(tmp_path, gather):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["hits/q"] = np.zeros((0, 2))
        file["hits/offsets"] = np.zeros(4, np.int64)
        file["zero"] = np.zeros((3, 2))
    layout = {"rows": {"hits/*": {"offsets": "hits/offsets"}}}
    entry = {"files": str(tmp_path / "a.h5"), "keys": ["hits/q", "zero"], "label": "a", "layout": layout}
    spec = SampleSpec([entry])
    found = collect(spec, split=None, percentiles=(50,), num_workers=0)
    for summary in (found.keys["hits/q"], found.keys["hits/q"].active, found.keys["zero"].active):
        assert (summary.count, summary.mean, summary.std, summary.minimum) == (0, None, None, None)
        assert summary.percentiles == {"50": None}
    zero = found.keys["zero"]
    assert (zero.count, zero.mean, zero.std, zero.maximum, zero.zeros) == (6, 0, 0, 0, 1)
    assert zero.percentiles == {"50": 0}


def test_one_event_and_no_percentiles_are_enough(spec):
    found = collect(spec, "counts", None, percentiles=(), max_events=1, num_workers=0)
    (value,) = read(spec, "counts")[:1]
    assert (found.keys["counts"].mean, found.keys["counts"].std) == (value, 0)
    assert found.keys["counts"].percentiles == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "enrgy"}, "no key 'enrgy' to measure: did you mean 'energy'"),
        ({"after": "write"}, "after must be 'read' or 'cache'"),
        ({"percentiles": (50, 101)}, "percentiles must be 0 .. 100"),
        ({"split": "test", "splits": {"train": 1}}, "split 'test' is not defined"),
        ({"channel_axis": {"images": 0}}, "channel_axis names 'images', which is not measured"),
        ({"channel_axis": 0, "keys": "energy"}, "key 'energy' has no axis of channels"),
        ({"channel_axis": 2, "keys": "image"}, "channel_axis=2 is no axis of an event of key 'image'"),
        ({"channel_axis": 0, "keys": "hits/q"}, "there are 1 .. 1"),
        ({"keys": ["late"], "after": "cache"}, "no key 'late' to measure"),
    ],
)
def test_wrong_options_are_refused(spec, options, message):
    with pytest.raises(SpecError) as caught:
        collect(spec, **{"num_workers": 0, "splits": {"train": 1.0}, **options})
    assert message in str(caught.value)


def test_options_of_a_split_are_refused_for_a_dataset(spec):
    with pytest.raises(SpecError, match="the dataset has its own split"):
        collect(hf.EventDataset(spec), splits={"train": 1.0})


# ---- the file


def test_the_file_has_what_a_normalisation_needs(spec, tmp_path):
    found = collect(spec, ["image", "energy"], None, channel_axis={"image": -1}, percentiles=(1, 99.9), num_workers=0)
    path = default_path(tmp_path / "lcd.yaml")
    assert path == str(tmp_path / "lcd.stats.yaml")
    found.save(path)
    document = yaml.safe_load((tmp_path / "lcd.stats.yaml").read_text())
    assert document["keys"]["energy"]["mean"] == found.keys["energy"].mean
    assert len(document["keys"]["image"]["percentiles"]["99.9"]) == 3
    assert {"mean", "std", "minimum", "maximum", "percentiles", "active"} <= set(document["keys"]["image"])
    assert Statistics.load(path) == found
    assert load(path, hf.EventDataset(spec)) == found
    assert sorted(p.name for p in tmp_path.glob("*stats*")) == ["lcd.stats.yaml"]


def test_statistics_of_other_events_are_refused(spec, tmp_path):
    path = tmp_path / "a.stats.yaml"
    splits = {"train": 0.5, "val": 0.5}
    collect(spec, splits=splits, num_workers=0).save(path)
    load(path, hf.EventDataset(spec, "train", splits=splits))
    # What is done to the events later does not matter.
    transformed = SampleSpec(spec.samples, targets={"t": "counts * 2"}, weights={"classes": "balanced"})
    load(path, hf.EventDataset(transformed, "train", splits=splits))
    others = [
        hf.EventDataset(spec, "val", splits=splits),
        hf.EventDataset(spec, "train", splits=splits, split_seed=1),
        hf.EventDataset(spec),
        hf.EventDataset(SampleSpec(spec.samples, filter="energy > 0 or isnan(energy)"), "train", splits=splits),
        hf.EventDataset(SampleSpec(spec.samples[:1]), "train", splits=splits),
    ]
    for other in others:
        with pytest.raises(SpecError, match=r"a\.stats\.yaml' are stale: .* collect them again"):
            load(path, other)


def test_statistics_after_the_cache_point_depend_on_the_steps_before(spec, tmp_path):
    path = tmp_path / "a.stats.yaml"
    late = {"one_hot": {"classes": 2}}
    made = SampleSpec(spec.samples, targets={"t": "counts * 2"}, transforms=["cache", late])
    collect(made, "t", None, after="cache", num_workers=0).save(path)
    load(path, hf.EventDataset(SampleSpec(spec.samples, targets={"t": "counts * 2"}, transforms=["cache"])))
    with pytest.raises(SpecError, match="stale"):
        load(path, hf.EventDataset(SampleSpec(spec.samples, targets={"t": "counts * 3"})))


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "can't be read"), ("a: [", "no YAML"), ("[]", "no statistics"), ("version: 1\nkeys: 3", "no statistics")],
)
def test_what_are_no_statistics_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        Statistics.load(tmp_path / "a.yaml")


# ---- the command


def test_the_command_writes_beside_the_specification_and_prints_a_table(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    spec.save(tmp_path / "lcd.yaml")
    arguments = ["stats", tmp_path / "lcd.yaml", "--split", "all", "--keys", "image", "--keys", "energy"]
    arguments += ["--channel-axis", "image=-1", "--percentiles", "5,95", "--workers", "0", "--plot", tmp_path / "a.png"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "80 events" in result.output
    assert "image channel 2" in result.output
    assert "95 %" in result.output
    found = load(tmp_path / "lcd.stats.yaml", hf.EventDataset(spec))
    assert [*found.keys["energy"].percentiles] == ["5", "95"]
    assert len(found.keys["image"].mean) == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "option",
    [
        ["--percentiles", "a"],
        ["--splits", "train"],
        ["--channel-axis", "x"],
        ["--channel-axis", "1", "--channel-axis", "2"],
    ],
)
def test_the_command_refuses_what_it_does_not_understand(spec, tmp_path, option):
    spec.save(tmp_path / "lcd.yaml")
    assert CliRunner().invoke(app, ["stats", str(tmp_path / "lcd.yaml"), *option]).exit_code == 2


def test_the_file_may_be_named_in_the_specification_that_it_is_made_for(spec, tmp_path, monkeypatch):
    path = tmp_path / "lcd.yaml"
    spec.save(path)
    path.write_text(
        path.read_text()
        + """
targets: {double: counts * 2}
transforms:
- cache
- normalise: {keys: [counts, double], statistics: lcd.stats.yaml}
"""
    )
    with pytest.raises(SpecError, match=r"lcd\.stats\.yaml' can't be read .*: collect them"):
        SampleSpec.load(path)
    found = collect(path, split=None, num_workers=0)
    assert [*found.keys] == KEYS
    found = collect(path, ["counts", "double"], None, after="cache", num_workers=0)
    found.save(default_path(path))
    monkeypatch.chdir("/")
    made = SampleSpec.load(path)
    assert made.pipeline.steps[0].statistics["double"]["mean"] == found.keys["double"].mean
    load(default_path(path), hf.EventDataset(made))
    made.save(tmp_path / "moved.yaml")
    assert SampleSpec.load(tmp_path / "moved.yaml") == made
    with hf.DataLoader(hf.EventDataset(made), 80, seed=0) as loader:
        (double,) = [batch["double"].double() for batch in loader]
    assert float(double.mean()) == pytest.approx(0, abs=1e-6)
    assert float(double.std(correction=0)) == pytest.approx(1, abs=1e-6)


# ---- its parts


def test_channels_of_what_a_batch_may_hold():
    dense = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(channels(dense, 0, "x")[1], dense[:, 1].reshape(-1))
    np.testing.assert_array_equal(channels(dense, -1, "x")[3], dense[:, :, 3].reshape(-1))
    jagged = Jagged(np.arange(6).reshape(3, 2), np.array([0, 0, 3]))
    np.testing.assert_array_equal(channels(jagged, 1, "x"), [[0, 2, 4], [1, 3, 5]])
    padded = Padded(np.arange(8).reshape(2, 2, 2), np.array([[True, False], [True, True]]))
    np.testing.assert_array_equal(channels(padded, -1, "x"), [[0, 4, 6], [1, 5, 7]])
    np.testing.assert_array_equal(channels(padded, None, "x"), [[0, 1, 4, 5, 6, 7]])
    sparse = Sparse(np.arange(4).reshape(2, 2), np.array([[0, 1, 1], [1, 0, 2]], np.int32), (3, 3), 2)
    for axis in (2, -1):
        np.testing.assert_array_equal(channels(sparse, axis, "x"), [[0, 2], [1, 3]])
    for value, axis in ((sparse, 0), (jagged, 0), (dense, 2), (dense, -3), (np.zeros(3), 0)):
        with pytest.raises(SpecError, match="channel_axis"):
            channels(value, axis, "x")
    graph = Graph(np.zeros((2, 0), np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64))
    for value in (graph, np.array(["a"])):
        with pytest.raises(SpecError, match="no statistics"):
            channels(value, None, "x")


TYPES = [np.float16, np.float32, np.float64, np.int16, np.uint16]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(TYPES))
def test_codes_have_the_order_of_numbers_and_stand_for_them(data, kind):
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        numbers = st.floats(allow_nan=False, allow_infinity=False, width=8 * dtype.itemsize)
    else:
        numbers = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = np.sort(np.array(data.draw(st.lists(numbers, min_size=2, max_size=30)), dtype))
    bins = ordered.bin_of(values)
    fine = ordered.fine_bin_of(values) if dtype.itemsize > 2 else None
    assert (np.diff(bins) >= 0).all()
    assert (ordered.lowest(bins, dtype) <= values).all()
    if fine is not None:
        assert (np.diff(bins * ordered.BINS + fine) >= 0).all()
    back = ordered.number_of(bins, fine, dtype)
    if ordered.is_exact(dtype, fine is not None):
        np.testing.assert_array_equal(back, values.astype(np.float64))
    else:
        np.testing.assert_allclose(back, values, rtol=2**-20, atol=2**-1042)  # subnormal: a fine bin is 2^-1042 wide


def test_whole_numbers_are_exact_in_fine_bins_of_float64():
    values = np.array([-(2.0**21) + 1, -1000, -3, -1, 1, 2, 49, 2.0**21 - 1])
    np.testing.assert_array_equal(
        ordered.number_of(ordered.bin_of(values), ordered.fine_bin_of(values), values.dtype), values
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=5))
def test_moments_of_parts_add_up_to_those_of_the_whole(parts):
    whole = np.concatenate([np.array(part, np.float64) for part in parts])
    total = Moments.of(np.empty(0))
    for part in parts:
        total = total + Moments.unpacked(Moments.of(np.array(part, np.float64)).packed())
    assert total.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(total.mean, whole.mean(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(total.std, whole.std(), rtol=1e-7, atol=1e-7)
        assert (total.minimum, total.maximum) == (whole.min(), whole.max())


def test_counts_of_integers_add_up():
    counts = Counts()
    assert [len(part) for part in counts.total()] == [0, 0]
    counts.add(np.array([5, 9]), np.array([1, 2]))
    counts.add(np.array([9, 1, 9]), np.array([1, 1, 1]))
    assert [part.tolist() for part in counts.total()] == [[1, 5, 9], [1, 1, 4]]
    counts.add(np.array([1]), np.array([3]))
    assert [part.tolist() for part in counts.total()] == [[1, 5, 9], [4, 1, 4]]


def test_a_spectrum_of_bins_keeps_their_sum():
    values = np.random.default_rng(0).normal(0, 3, 1000).astype(np.float32)
    bins, counts = np.unique(ordered.bin_of(values), return_counts=True)
    edges = np.linspace(-20, 20, 41)
    exact = Numbers.gathered(values, 5).spectrum(edges)
    binned = Numbers(values.dtype, 5, None, bins, counts).spectrum(edges)
    assert exact.sum() == 1000
    assert binned.sum() == pytest.approx(1000)
    np.testing.assert_allclose(binned, exact, atol=6)


def test_the_statistics_can_be_written_as_json(spec):
    found = collect(spec, split=None, num_workers=0, percentiles=(50,))
    for figures in found.keys.values():
        json.dumps({name: value for name, value in vars(figures).items() if name != "active"}, allow_nan=False)


def test_a_missing_key_is_a_key_error(spec):
    with pytest.raises(KeyMissingError):
        collect(spec, "nothing", None)
