"""Events of different lengths, from files to batches: every value, whatever the number of readers, and faults."""

import h5py
import numpy as np
import pytest
import torch
from events import bits

import hepfeed as hf
from hepfeed.errors import CorruptDataError, SpecError
from hepfeed.tensors import Jagged, Structured

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

KEYS = ["hits/charge", "hits/xyz", "hits/table.time", "hits/table[tot, time]", "tracks", "energy", "jets.pt"]
TABLE = np.dtype({"names": ["tot", "time"], "formats": ["<i4", ">f8"], "offsets": [0, 8], "itemsize": 24})


def write(path, counts, seed=0, chunk=64):
    """Write a file: hits of ``counts`` events in chunks that events share, tracks of variable length, and numbers."""
    random = np.random.default_rng(seed)
    total, events = int(np.sum(counts)), len(counts)
    chunk = min(chunk, total)
    table = np.zeros(total, TABLE)
    table["tot"], table["time"] = np.arange(total), random.normal(size=total)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "hits/charge", data=random.normal(size=total).astype(">f4"), chunks=(chunk,), compression=1, shuffle=True
        )
        file.create_dataset("hits/xyz", data=random.normal(size=(total, 3)), chunks=(chunk, 3), compression="lzf")
        file.create_dataset("hits/table", data=table, chunks=(chunk,), compression=1)
        file["hits/offsets"] = np.concatenate([[0], np.cumsum(counts)])
        tracks = file.create_dataset("tracks", (events,), h5py.vlen_dtype("f4"))
        for event in range(events):
            tracks[event] = random.normal(size=event % 5)
        file["energy"] = np.arange(events) + 1000.0 * seed
        jets = np.zeros(events, [("pt", "f4"), ("eta", "f8")])
        jets["pt"] = random.exponential(size=events)
        file["jets"] = jets
    return path


def expected(dataset, file, row):
    """What h5py reads of one event."""
    with h5py.File(dataset.files[file]) as opened:
        low, high = opened["hits/offsets"][row : row + 2]
        table = opened["hits/table"][low:high]
        return {
            "hits/charge": opened["hits/charge"][low:high].astype("f4"),
            "hits/xyz": opened["hits/xyz"][low:high],
            "hits/table.time": table["time"].astype("f8"),
            "hits/table[tot, time]": np.stack([table["tot"], table["time"]], -1),
            "tracks": opened["tracks"][row],
            "energy": opened["energy"][row],
            "jets.pt": opened["jets"][row]["pt"],
        }


@pytest.fixture
def spec(tmp_path):
    random = np.random.default_rng(1)
    for label in ("electron", "muon"):
        for number in range(2):
            counts = random.poisson(20, 57) * random.integers(0, 2, 57)
            write(tmp_path / label / f"{number}.h5", counts, seed=number)
    return [[str(tmp_path / label / "*.h5"), KEYS, label] for label in ("electron", "muon")]


def check(dataset, batches):
    """Compare every event of batches with h5py's; returns how many there were."""
    seen = set()
    for batch in batches:
        for place, (file, row) in enumerate(batch["event"].tolist()):
            assert (file, row) not in seen
            seen.add((file, row))
            for name, values in expected(dataset, file, row).items():
                delivered = batch[name][place].numpy()
                assert delivered.dtype == values.dtype.newbyteorder("="), name
                np.testing.assert_array_equal(delivered, values, err_msg=name)
    return len(seen)


def contents(batches):
    """Return the bytes of all arrays of batches, to compare epochs."""
    found = []
    for batch in batches:
        parts = {name: v.arrays() if isinstance(v, Structured) else {"": v} for name, v in batch.items()}
        found.append({name: {n: a.numpy().tobytes() for n, a in arrays.items()} for name, arrays in parts.items()})
    return found


@pytest.mark.parametrize("shuffle", [True, False, "full", "mixed"])
def test_every_event_comes_once_with_its_rows(spec, shuffle):
    dataset = hf.EventDataset(spec)
    with hf.DataLoader(dataset, 16, shuffle=shuffle, num_workers=2, seed=3) as loader:
        assert check(dataset, loader) == len(dataset) == 228


def test_batches_have_the_same_bits_for_any_number_of_readers(spec):
    dataset = hf.EventDataset(spec)
    epochs = []
    for readers in (0, 1, 3):
        with hf.DataLoader(dataset, 16, shuffle=True, num_workers=readers, seed=3, window_events=48) as loader:
            epochs.append(contents(loader))
    assert epochs[0] == epochs[1] == epochs[2]


def test_keys_of_the_same_rows_have_the_same_offsets(spec):
    (batch,) = hf.DataLoader(hf.EventDataset(spec), 228)
    charge, xyz = batch["hits/charge"], batch["hits/xyz"]
    assert isinstance(charge, Jagged)
    assert torch.equal(charge.offsets, xyz.offsets)
    assert charge.offsets[-1] == len(charge.values) == len(xyz.values)
    assert charge.lengths().sum() == len(charge.values)
    assert charge.nested().shape[0] == 228


def test_single_events_are_those_of_batches(spec):
    dataset = hf.EventDataset(spec)
    for place in (0, 5, 227):
        event = dataset[place]
        file, row = event["event"].tolist()
        for name, values in expected(dataset, file, row).items():
            np.testing.assert_array_equal(event[name].numpy(), values, err_msg=name)


def test_an_interrupted_epoch_goes_on_where_it_was(spec):
    dataset = hf.EventDataset(spec)
    with hf.DataLoader(dataset, 16, shuffle=True, seed=3, max_points=300) as loader:
        whole = contents(loader)
    with hf.DataLoader(dataset, 16, shuffle=True, seed=3, max_points=300) as loader:
        batches = iter(loader)
        first = contents(next(batches) for _ in range(4))
        state = loader.state_dict()
        del batches
    with hf.DataLoader(dataset, 16, shuffle=True, num_workers=2, max_points=300) as loader:
        loader.load_state_dict(state)
        assert first + contents(loader) == whole


def test_a_batch_has_no_more_points_than_allowed(spec):
    dataset = hf.EventDataset(spec)
    with hf.DataLoader(dataset, 64, shuffle=True, num_workers=1, seed=3, max_points=200) as loader:
        batches = [(len(batch["event"]), len(batch["hits/charge"].values)) for batch in loader]
        assert len(batches) == len(loader)
    assert sum(events for events, _ in batches) == 228
    assert max(points for _, points in batches) <= 200


def test_length_aware_batches_need_a_jagged_key(spec):
    short = [[files, ["energy"], label] for files, _, label in spec]
    with pytest.raises(SpecError, match="name a jagged key"):
        hf.DataLoader(hf.EventDataset(short), 16, length_matched=True)


@pytest.mark.parametrize("readers", [0, 2])
def test_events_without_hits_with_one_and_with_a_million(tmp_path, readers):
    counts = [0, 1, 1_000_000, 0, 0, 2, 0]
    path = write(tmp_path / "a.h5", counts, chunk=20_000)
    dataset = hf.EventDataset([[str(path), ["hits/charge", "hits/xyz"], "a"]])
    with hf.DataLoader(dataset, 2, num_workers=readers) as loader:
        batches = list(loader)
    lengths = [length for batch in batches for length in batch["hits/charge"].lengths().tolist()]
    assert lengths == counts
    with h5py.File(path) as file:
        joined = torch.cat([batch["hits/charge"].values for batch in batches]).numpy()
        np.testing.assert_array_equal(joined, file["hits/charge"][:])
        joined = torch.cat([batch["hits/xyz"].values for batch in batches]).numpy()
        np.testing.assert_array_equal(joined, file["hits/xyz"][:])


def test_a_batch_of_empty_events_is_a_batch(tmp_path):
    path = write(tmp_path / "a.h5", [0, 0, 0, 0, 7])
    dataset = hf.EventDataset([[str(path), ["hits/charge", "hits/xyz", "energy"], "a"]])
    first, _ = hf.DataLoader(dataset, 4)
    assert first["hits/charge"].values.shape == (0,)
    assert first["hits/xyz"].values.shape == (0, 3)
    assert first["hits/xyz"].offsets.tolist() == [0] * 5
    assert first["energy"].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("readers", [0, 2])
def test_events_that_touch_a_bad_chunk_are_left_out_and_no_others(tmp_path, readers):
    counts = [40, 30, 0, 30, 64, 10]
    path = write(tmp_path / "a.h5", counts)
    with h5py.File(path) as file:
        place = file["hits/charge"].id.get_chunk_info(1)  # rows 64 .. 127: events 1, 3 and 4
    with open(path, "r+b") as stream:
        stream.seek(place.byte_offset + 3)
        stream.write(b"\xff\x00\xff\x00")
    keys = ["hits/charge", "hits/xyz", "energy"]
    with pytest.raises(CorruptDataError, match="key 'hits/charge'"):
        list(hf.DataLoader(hf.EventDataset([[str(path), keys, "a"]]), 6, num_workers=readers))
    dataset = hf.EventDataset([[str(path), keys, "a"]], on_error="skip")
    with hf.DataLoader(dataset, 6, num_workers=readers) as loader:
        (batch,) = loader
        assert loader.stats()["skipped"] == 3
    assert batch["event"][:, 1].tolist() == [0, 2, 5]
    assert batch["hits/charge"].lengths().tolist() == [40, 0, 10]
    with h5py.File(path) as file:
        rows = [*range(40), *range(164, 174)]
        charge = np.concatenate([file["hits/charge"][:40], file["hits/charge"][164:174]])
        np.testing.assert_array_equal(batch["hits/charge"].values.numpy(), charge)
        np.testing.assert_array_equal(batch["hits/xyz"].values.numpy(), file["hits/xyz"][:][rows])


def test_a_batch_that_is_kept_does_not_change(spec):
    dataset = hf.EventDataset(spec)
    with hf.DataLoader(dataset, 16, shuffle=True, num_workers=2, seed=0) as loader:
        kept = list(loader)
        assert check(dataset, kept) == 228


def test_files_must_agree_on_what_is_jagged(tmp_path):
    write(tmp_path / "a.h5", [3, 4])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["hits/charge"] = np.zeros((5, 1), "f4")
    spec = [[str(tmp_path / f"{name}.h5"), ["hits/charge"], name] for name in "ab"]
    with pytest.raises(SpecError, match=r"key 'hits/charge' is dense in .*b.h5', but jagged in"):
        hf.EventDataset(spec)


def test_filters_and_targets_may_name_fields_of_tables(spec):
    dataset = hf.EventDataset(hf.SampleSpec(spec, filter="jets.pt > 1", targets={"hard": "jets.pt > 2"}))
    assert 0 < len(dataset) < 228
    for batch in hf.DataLoader(dataset, 16):
        assert (batch["jets.pt"] > 1).all()
        assert torch.equal(batch["hard"], (batch["jets.pt"] > 2).long())


def test_filters_need_one_value_an_event(spec):
    with pytest.raises(SpecError, match=r"'hits/charge' .* has several rows an event"):
        hf.EventDataset(hf.SampleSpec(spec, filter="hits.charge > 1"))


def test_weights_come_with_their_events(spec):
    plain = hf.EventDataset(spec)
    dataset = hf.EventDataset(hf.SampleSpec(spec, weights="jets.pt"))
    norm = dataset.index.weights.sum() / sum(plain[i]["jets.pt"] for i in range(len(plain)))
    with hf.DataLoader(dataset, 16, shuffle=True, num_workers=2, seed=1) as loader:
        for batch in loader:
            torch.testing.assert_close(batch["weight"], batch["jets.pt"] * norm, rtol=1e-5, atol=0)
    torch.testing.assert_close(dataset[7]["weight"], dataset[7]["jets.pt"] * norm, rtol=1e-5, atol=0)


def test_dense_epochs_are_as_they_were(tmp_path):
    path = write(tmp_path / "a.h5", [3] * 40)
    dataset = hf.EventDataset([[str(path), ["energy", "jets.pt"], "a"]])
    epochs = []
    for readers in (0, 2):
        with hf.DataLoader(dataset, 8, shuffle=True, num_workers=readers, seed=1) as loader:
            epochs.append(bits(loader))
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize("matched_first", [True, False])
@pytest.mark.parametrize("readers", [0, 1])
def test_files_may_differ_in_whether_events_are_matched_by_number(tmp_path, matched_first, readers):
    hits = np.zeros(3, [("event", "i8"), ("q", "f4")])
    hits["event"], hits["q"] = [3, 3, 7], [1.0, 2.0, 3.0]
    names = ["a", "b"] if matched_first else ["b", "a"]
    with h5py.File(tmp_path / f"{names[0]}.h5", "w") as file:
        file["hits"], file["info/event"], file["info/value"] = hits, np.array([7, 3]), np.array([70.0, 30.0])
        file["events/id"] = np.array([3, 7])
    with h5py.File(tmp_path / f"{names[1]}.h5", "w") as file:
        file["hits"], file["info/event"], file["info/value"] = hits, np.array([7, 3]), np.array([70.0, 30.0])
        file["n_hits"] = np.array([2, 1])
    by_number = {
        "rows": {"hits": {"id": "hits.event"}, "info/*": {"id": "info/event", "single": True}},
        "events": {"id": "events/id"},
    }
    layouts = {names[0]: by_number, names[1]: {"rows": {"hits": {"count": "n_hits"}}}}
    spec = [
        {
            "files": str(tmp_path / f"{name}.h5"),
            "keys": ["hits.q", "info/value"],
            "label": name,
            "layout": layouts[name],
        }
        for name in sorted(names)
    ]
    (batch,) = hf.DataLoader(hf.EventDataset(spec), 4, num_workers=readers)
    value = dict(zip(map(tuple, batch["event"].tolist()), batch["info/value"].tolist(), strict=True))
    matched = sorted(names).index(names[0])
    assert (value[matched, 0], value[matched, 1]) == (30.0, 70.0)
    assert (value[1 - matched, 0], value[1 - matched, 1]) == (70.0, 30.0)
