"""Files of real experiments: what can be fed comes bit for bit as h5py reads it, and the rest says why it can't."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hepfeed as hf
from hepfeed.errors import FileFormatError, SpecError
from hepfeed.hdf5 import keys_of

km3net_testdata = pytest.importorskip("km3net_testdata")

HITS = [f"hits/{name}" for name in ("channel_id", "dom_id", "group_id", "time", "tot", "triggered")]
MC_HITS = [f"mc_hits/{name}" for name in ("a", "group_id", "origin", "pmt_id", "time")]

# (file, keys, rows): a row is an event, or a hit where the file has hits only.
FED = [
    ("next-ic/6229_000_split_trigger.h5", ["RD/sipmrwf", "RD/pmtrwf", "Trigger/events"], 3),
    ("next-ic/esmeralda_tracks.hdf5", ["Tracks/axis1", *(f"Tracks/block{i}_values" for i in range(3))], 9),
    ("lhe/pylhe-testfile-hpcgen.hdf5", ["events"], 100),
    ("lhe/pylhe-testfile-hpcgen.hdf5", ["particles"], 400),
    ("liquido/liquido_electrons.h5", ["TruthData"], 100),
    ("liquido/liquido_electrons.h5", ["HitData"], 121_096),
    ("km3net/mupage_ARCA.h5", HITS, 737_772),
    ("km3net/mupage_ARCA.h5", MC_HITS, 207_180),
    ("km3net/online_events_sample.h5", HITS, 1078),
]

REFUSED = [
    ("next-ic/KR_MC_penth_6evt.h5", "RECO/Events", "has fields "),
    ("next-ic/esmeralda_tracks.hdf5", "Tracks/axis0", "has dtype text"),
    ("larpix/evd_qc_tpc.h5", "events", "has fields "),
    ("larpix/qc_tpc_cosmics.h5", "packets", "has fields "),
    ("km3net/mupage_ARCA.h5", "hits/_indices", "has fields "),
    ("km3net/antares.h5", "CalibratedPulses", "has fields "),
]


@pytest.fixture(scope="module")
def root():
    root = os.environ.get("HEPFEED_DATA")
    if root is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(root)


def assert_feeds_as_h5py_reads(path, keys, num_workers=0):
    dataset = hf.EventDataset([[str(path), keys, "real"]])
    rows = len(dataset)
    with hf.DataLoader(dataset, max(2, rows // 20), True, num_workers=num_workers, seed=1) as loader:
        batches = list(loader)
    order = torch.cat([batch["event"][:, 1] for batch in batches]).numpy()
    assert np.array_equal(np.sort(order), np.arange(rows))
    with h5py.File(path) as file:
        for key in keys:
            expected = file[key][()]
            delivered = torch.cat([batch[key] for batch in batches]).numpy()
            assert delivered.dtype == expected.dtype.newbyteorder("=")
            assert delivered.tobytes() == expected[order].astype(delivered.dtype).tobytes(), key
    return rows


@pytest.mark.parametrize(("name", "keys", "rows"), FED)
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_real_events_come_as_h5py_reads_them(root, name, keys, rows, num_workers):
    assert assert_feeds_as_h5py_reads(root / name, keys, num_workers) == rows


@pytest.mark.parametrize(("name", "key", "message"), REFUSED)
def test_what_is_not_an_array_of_numbers_says_what_it_is(root, name, key, message):
    with pytest.raises(SpecError, match=message) as caught:
        hf.EventDataset([[str(root / name), [key], "real"]])
    assert (caught.value.file, caught.value.key) == (str(root / name), key)


@pytest.mark.parametrize(
    ("name", "message"),
    [("lfs_pointer_named.h5", "a Git LFS pointer: run 'git lfs pull'"), ("zero_byte.h5", "the file is empty")],
)
def test_files_that_are_no_data_say_what_they_are(root, name, message):
    with pytest.raises(FileFormatError, match=message) as caught:
        hf.EventDataset([[str(root / "edge-cases" / name), ["x"], "real"]])
    assert caught.value.file == str(root / "edge-cases" / name)


def test_hits_do_not_align_with_events(root):
    path = root / "liquido" / "liquido_electrons.h5"
    with pytest.raises(SpecError, match="'HitData' has 121096, 'TruthData' has 100"):
        hf.EventDataset([[str(path), ["HitData", "TruthData"], "electron"]])


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
def test_every_dense_column_of_km3net_comes_as_h5py_reads_it(name):
    path = km3net_testdata.data_path(name)
    columns = {}
    with h5py.File(path) as file:
        dense = [key for key in keys_of(file) if file[key].dtype.names is None]
        for key in dense:
            columns.setdefault((key.split("/")[0], len(file[key])), []).append(key)
    assert columns
    for (_, rows), together in columns.items():
        assert assert_feeds_as_h5py_reads(path, together) == rows
