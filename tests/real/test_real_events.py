"""Files of real experiments: what can be fed comes bit for bit as h5py reads it, and the rest says why it can't."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from slices import event

import hepfeed as hf
from hepfeed.errors import FileFormatError, SpecError
from hepfeed.hdf5 import keys_of
from hepfeed.schemas import resolve

km3net_testdata = pytest.importorskip("km3net_testdata")

HITS = [f"hits/{name}" for name in ("channel_id", "dom_id", "group_id", "time", "tot", "triggered")]
MC_HITS = [f"mc_hits/{name}" for name in ("a", "group_id", "origin", "pmt_id", "time")]

# (file, keys, events)
FED = [
    ("next-ic/6229_000_split_trigger.h5", ["RD/sipmrwf", "RD/pmtrwf", "Trigger/events"], 3),
    ("next-ic/KR_MC_penth_6evt.h5", ["RECO/Events.X", "RECO/Events[X, Y, Z]"], 6),
    ("next-ic/esmeralda_tracks.hdf5", ["Tracks.energy", "Tracks.event"], None),
    ("lhe/pylhe-testfile-hpcgen.hdf5", ["particles[px, py, pz, e]", "events.scale"], 100),
    ("liquido/liquido_electrons.h5", ["HitData[1:4]", "HitData", "TruthData"], 100),
    ("larpix/evd_qc_tpc.h5", ["hits.q", "tracks.theta", "events.evid", "events.nhit"], 324),
    ("km3net/mupage_ARCA.h5", [*HITS, *MC_HITS, "mc_tracks.energy", "event_info.weight_w1"], 150),
    ("km3net/online_events_sample.h5", [*HITS, "event_info.run_id"], 10),
    ("km3net/antares.h5", ["CalibratedPulses.charge", "CalibratedPulses[time, charge]"], 81),
    ("km3net/antares.h5", ["AafitFinalFit.energy", "AafitFinalFitHitsUsed.charge"], None),
]

REFUSED = [
    ("next-ic/KR_MC_penth_6evt.h5", "RECO/Events", "has fields .* name a field, as 'RECO/Events.event'"),
    ("next-ic/6229_000_split_trigger.h5", "Trigger/configuration.param", "has dtype"),
    ("larpix/evd_qc_tpc.h5", "events", "has fields "),
    ("km3net/mupage_ARCA.h5", "event_info", "has fields "),
    ("km3net/antares.h5", "CalibratedPulses", "has fields "),
]


@pytest.fixture(scope="module")
def root():
    root = os.environ.get("HEPFEED_DATA")
    if root is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(root)


def assert_feeds_as_h5py_reads(path, keys, num_workers=0):
    """Compare every event of an epoch with plain readings; returns how many there are."""
    dataset = hf.EventDataset([[str(path), keys, "real"]])
    events = len(dataset)
    seen = []
    with (
        hf.DataLoader(dataset, max(2, events // 20), True, num_workers=num_workers, seed=1) as loader,
        h5py.File(path) as file,
    ):
        found = resolve(file, str(path), keys)
        for batch in loader:
            for place, number in enumerate(batch["event"][:, 1].tolist()):
                seen.append(number)
                for key in keys:
                    expected = np.asarray(event(file, found, key, number))
                    delivered = batch[key][place].numpy()
                    assert delivered.dtype == expected.dtype.newbyteorder("="), key
                    assert delivered.tobytes() == expected.astype(delivered.dtype).tobytes(), key
    assert sorted(seen) == list(range(events))
    return events


@pytest.mark.parametrize(("name", "keys", "events"), FED)
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_real_events_come_as_h5py_reads_them(root, name, keys, events, num_workers):
    came = assert_feeds_as_h5py_reads(root / name, keys, num_workers)
    assert came == events or (events is None and came > 0)


def test_rows_are_events_where_the_specification_says_so(root):
    path = root / "km3net" / "online_events_sample.h5"
    dataset = hf.EventDataset([{"files": str(path), "keys": HITS, "label": "hit", "layout": "dense"}])
    assert len(dataset) == 1078
    (batch,) = hf.DataLoader(dataset, 1078)
    with h5py.File(path) as file:
        for key in HITS:
            assert (batch[key].numpy() == file[key][:]).all()


@pytest.mark.parametrize(("name", "key", "message"), REFUSED)
def test_what_is_not_an_array_of_numbers_says_what_it_is(root, name, key, message):
    with pytest.raises(SpecError, match=message) as caught:
        hf.EventDataset([[str(root / name), [key], "real"]])
    assert (caught.value.file, caught.value.key) == (str(root / name), key)


def test_packets_without_events_are_refused(root):
    with pytest.raises(SpecError, match="without event boundaries: build events of them first"):
        hf.EventDataset([[str(root / "larpix/qc_tpc_cosmics.h5"), ["packets.dataword"], "real"]])


@pytest.mark.parametrize(
    ("name", "message"),
    [("lfs_pointer_named.h5", "a Git LFS pointer: run 'git lfs pull'"), ("zero_byte.h5", "the file is empty")],
)
def test_files_that_are_no_data_say_what_they_are(root, name, message):
    with pytest.raises(FileFormatError, match=message) as caught:
        hf.EventDataset([[str(root / "edge-cases" / name), ["x"], "real"]])
    assert caught.value.file == str(root / "edge-cases" / name)


def test_a_filter_on_real_events_keeps_what_numpy_keeps(root):
    path = root / "liquido" / "liquido_electrons.h5"
    with h5py.File(path) as file:
        truth = file["TruthData"][()]
    threshold = float(np.median(truth[:, 1]))
    spec = hf.SampleSpec([[str(path), ["TruthData"], "electron"]], filter=f"TruthData[1] > {threshold!r}")
    (batch,) = hf.DataLoader(hf.EventDataset(spec), 100)
    assert batch["event"][:, 1].tolist() == np.flatnonzero(truth[:, 1] > threshold).tolist()


# ---- the files that KM3NeT publishes as a package


KM3NET = [
    f"hdf5/{name}"
    for name in (
        "mupage_ARCA.h5",
        "geamon.h5",
        "mcv5.40.mupage_10G.sirene.jterbr00006060.962.root.h5",
        "atmospheric_muons_sample.h5",
    )
] + ["online/events_sample.h5"]


@pytest.mark.parametrize("name", KM3NET)
def test_every_column_of_km3net_comes_as_h5py_reads_it(name):
    path = km3net_testdata.data_path(name)
    columns = {}
    with h5py.File(path) as file:
        for key in keys_of(file):
            if file[key].dtype.names is None:
                columns.setdefault(key.split("/")[0], []).append(key)
        events = len(file["event_info"])
    assert columns
    for together in columns.values():
        assert assert_feeds_as_h5py_reads(path, together) == events
