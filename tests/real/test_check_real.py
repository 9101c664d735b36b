"""What ``hepfeed.check`` and ``hepfeed.layouts`` say of files that experiments wrote."""

import os
from pathlib import Path

import pytest

from hepfeed.check import check_spec
from hepfeed.errors import FileFormatError
from hepfeed.layouts import check_directory, check_file
from hepfeed.spec import SampleSpec


@pytest.fixture(scope="module")
def root():
    found = os.environ.get("HEPFEED_DATA")
    if found is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(found)


@pytest.mark.parametrize(
    ("path", "events", "sentence", "some"),
    [
        (
            "km3net/mupage_ARCA.h5",
            150,
            "ragged hits: 150 events, 737,772 hits (km3net",
            {"hits/time", "event_info.run_id"},
        ),
        ("km3net/online_events_sample.h5", 10, "ragged hits: 10 events, 1,078 hits (km3net", {"hits/tot"}),
        ("km3net/antares.h5", 81, "ragged rows of CalibratedPulses: 81 events, 13,556", {"CalibratedPulses.charge"}),
        ("larpix/evd_qc_tpc.h5", 324, "ragged hits: 324 events, 10,743 hits (region_ref", {"hits.q", "events.nhit"}),
        ("lhe/pylhe-testfile-hpcgen.hdf5", 100, "ragged particles: 100 events, 400", {"particles.px", "events.scale"}),
        ("liquido/liquido_electrons.h5", 100, "ragged hits: 100 events, 121,096 hits", {"HitData", "TruthData"}),
        ("next-ic/KR_MC_penth_6evt.h5", 6, "ragged rows of Events: 6 events, 33 rows", {"RECO/Events.X"}),
        ("next-ic/esmeralda_tracks.hdf5", 7, "ragged rows of Tracks: 7 events, 9 rows", {"Tracks.energy"}),
        (
            "next-ic/6229_000_split_trigger.h5",
            3,
            "",
            {"RD/pmtrwf", "RD/sipmrwf", "Trigger/events", "Run/events.timestamp"},
        ),
    ],
)
def test_every_layout_is_recognised(root, path, events, sentence, some):
    report = check_file(root / path)
    assert report.events == events
    assert report.verdict.startswith(f"can be fed: {events} events with the keys ")
    assert sentence in report.verdict
    assert some <= set(report.keys)


def test_packets_are_said_to_have_no_events(root):
    report = check_file(root / "larpix/qc_tpc_cosmics.h5")
    assert report.verdict.startswith("can't be fed: 12,201 LArPix packets in the order of readout")
    assert report.keys == ()


@pytest.mark.parametrize(
    ("name", "what"), [("lfs_pointer_named.h5", "run 'git lfs pull'"), ("zero_byte.h5", "zero bytes")]
)
def test_what_is_not_hdf5_is_named(root, name, what):
    with pytest.raises(FileFormatError, match=what):
        check_file(root / "edge-cases" / name)


def test_the_whole_directory_has_ten_files_and_two_faults(root):
    report = check_directory(root)
    assert len(report.files) == 10
    assert len(report.faults) == 2


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("next-ic/6229_000_split_trigger.h5", ["RD/pmtrwf", "RD/sipmrwf", "Trigger/events"]),
        ("lhe/pylhe-testfile-hpcgen.hdf5", ["events"]),
        ("liquido/liquido_electrons.h5", ["TruthData"]),
    ],
)
def test_what_is_said_to_be_fed_can_be_fed(root, path, keys):
    report = check_spec(SampleSpec([[str(root / path), keys, "any"]]))
    assert report.faults == ()
    assert report.cost.events == report.cost.epoch_events == check_file(root / path).events


def test_waveforms_in_small_chunks_are_counted_and_measured(root):
    path = root / "next-ic/6229_000_split_trigger.h5"
    report = check_spec(SampleSpec([[str(path), ["RD/pmtrwf", "RD/sipmrwf"], "kr"]]))
    pmt, sipm = report.keys
    assert (pmt.shape, pmt.storages[0].chunk) == ((12, 52000), (1, 1, 32768))
    assert (sipm.shape, sipm.storages[0].chunk) == ((1792, 1300), (1, 50, 1300))
    assert 0 < sipm.occupancy < 1
    (advice,) = (sentence for sentence in report.advice if sentence.startswith("RD/"))
    assert advice.startswith("RD/sipmrwf: chunks of 1 x 50 x 1300 (130.0 kB) cut an event into 36 pieces")
