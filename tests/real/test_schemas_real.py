"""Event by event: files that experiments wrote, cut by their layouts, against plain readings of the same files."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from slices import event

from hepfeed.errors import SpecError
from hepfeed.schemas import recognise, resolve


@pytest.fixture(scope="module")
def root():
    found = os.environ.get("HEPFEED_DATA")
    if found is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(found)


def check(file, keys, expected, events):
    """Compare each event of each key with ``expected(key, event)``."""
    found = resolve(file, file.filename, keys)
    assert found.events == events
    for key in keys:
        for number in range(events):
            np.testing.assert_array_equal(event(file, found, key, number), expected(key, number), err_msg=key)
    return found


@pytest.mark.parametrize("name", ["mupage_ARCA.h5", "online_events_sample.h5"])
def test_km3net_hits_are_those_of_their_group(root, name):
    with h5py.File(root / "km3net" / name) as file:
        groups = {key: file[f"{key}/group_id"][:] for key in ("hits", "mc_hits") if key in file}
        values = {f"{key}/time": file[f"{key}/time"][:] for key in groups}
        info = file["event_info"][:]

        def expected(key, number):
            if key in values:
                return values[key][groups[key.split("/")[0]] == number]
            return info[key.split(".")[1]][number]

        check(file, [*values, "event_info.run_id", "event_info.weight_w1"], expected, len(info))


def test_km3net_tracks_are_those_of_their_group(root):
    with h5py.File(root / "km3net/mupage_ARCA.h5") as file:
        tables = {key: file[key][:] for key in ("mc_tracks", "reco/tracks", "reco/rec_stages")}

        def expected(key, number):
            table, field = key.split(".")
            return tables[table][field][tables[table]["group_id"] == number]

        keys = ["mc_tracks.dir_z", "reco/tracks.E", "reco/rec_stages.rec_stage"]
        check(file, keys, expected, 150)


def test_icetray_frames_have_the_rows_of_their_index(root):
    with h5py.File(root / "km3net/antares.h5") as file:
        pulses, index = file["CalibratedPulses"][:], file["__I3Index__/CalibratedPulses"][:]
        check(
            file,
            ["CalibratedPulses.charge", "CalibratedPulses.time"],
            lambda key, n: pulses[key.split(".")[1]][int(index["start"][n]) : int(index["stop"][n])],
            81,
        )
        for entry in index:
            assert (pulses["Event"][int(entry["start"]) : int(entry["stop"])] == entry["Event"]).all()


def test_icetray_fits_leave_out_frames_without_one(root):
    with h5py.File(root / "km3net/antares.h5") as file:
        fits = file["AafitFinalFit"][:]
        hits, index = file["AafitFinalFitHitsUsed"][:], file["__I3Index__/AafitFinalFitHitsUsed"][:]
        fits, index = fits[fits["exists"] == 1], index[index["exists"] == 1]
        assert (fits["Event"] == index["Event"]).all()

        def expected(key, number):
            if key == "AafitFinalFit.energy":
                return fits["energy"][number]
            return hits["charge"][int(index["start"][number]) : int(index["stop"][number])]

        check(file, ["AafitFinalFit.energy", "AafitFinalFitHitsUsed.charge"], expected, len(fits))
        assert 0 < len(fits) < len(file["__I3Index__/AafitFinalFit"])


def test_icetray_tables_with_several_frames_an_event_can_not_be_matched(root):
    with (
        h5py.File(root / "km3net/antares.h5") as file,
        pytest.raises(SpecError, match=r"Run 45978, Event \d+ has \d+ entries in"),
    ):
        resolve(file, file.filename, ["CalibratedPulses.charge", "AafitFinalFit.energy"])


def test_larpix_events_have_the_hits_of_their_region(root):
    with h5py.File(root / "larpix/evd_qc_tpc.h5") as file:
        events = file["events"][:]

        def expected(key, number):
            table, field = key.split(".")
            if table == "events":
                return events[field][number]
            reference = events[{"hits": "hit_ref", "tracks": "track_ref"}[table]][number]
            return file[table][reference][field] if reference else np.empty((0, *file[table].dtype[field].shape))

        found = check(file, ["hits.q", "tracks.theta", "tracks.end", "events.nhit"], expected, 324)
        assert found.extents[found.columns["hits.q"].rows].count.tolist() == events["nhit"].tolist()


def test_larpix_packets_are_refused(root):
    with (
        h5py.File(root / "larpix/qc_tpc_cosmics.h5") as file,
        pytest.raises(SpecError, match="without event boundaries"),
    ):
        resolve(file, file.filename, ["packets.dataword"])


def test_lhe_events_have_their_particles(root):
    with h5py.File(root / "lhe/pylhe-testfile-hpcgen.hdf5") as file:
        events, particles = file["events"][:], file["particles"][:]
        events_of = {name: place for place, name in enumerate(file["events"].attrs["properties"])}

        def expected(key, number):
            if key == "events.scale":
                return events[number, events_of["scale"]]
            first = int(events[number, events_of["start"]])
            rows = particles[first : first + int(events[number, events_of["nparticles"]])]
            return rows[:, 6:10] if key == "particles[px, py, pz, e]" else rows[:, [9, 0]]

        check(file, ["particles[px, py, pz, e]", "particles[e, id]", "events.scale"], expected, 100)


def test_liquido_hits_are_those_with_the_number_of_the_truth(root):
    with h5py.File(root / "liquido/liquido_electrons.h5") as file:
        hits, truth = file["HitData"][:], file["TruthData"][:]
        check(
            file,
            ["HitData", "TruthData[1:4]"],
            lambda key, n: hits[hits[:, 0] == truth[n, 0]] if key == "HitData" else truth[n, 1:4],
            100,
        )


def test_next_hits_are_those_with_the_number_of_an_event(root):
    with h5py.File(root / "next-ic/KR_MC_penth_6evt.h5") as file:
        rows = file["RECO/Events"][:]
        ids = np.unique(rows["event"])
        assert (np.diff(ids) > 1).any()  # there are gaps
        check(file, ["RECO/Events.X"], lambda key, n: rows["X"][rows["event"] == ids[n]], 6)


def test_next_tracks_of_pandas_are_those_of_their_event(root):
    with h5py.File(root / "next-ic/esmeralda_tracks.hdf5") as file:
        event_of = file["Tracks/block0_values"][:, 0]
        names = [name.decode() for name in file["Tracks/block2_items"][:]]
        values = file["Tracks/block2_values"][:]
        ids = list(dict.fromkeys(event_of.tolist()))

        def expected(key, number):
            rows = values[event_of == ids[number]]
            if key == "Tracks.energy":
                return rows[:, names.index("energy")]
            return rows[:, [names.index(name) for name in ("x_max", "x_min", "energy")]]

        check(file, ["Tracks.energy", "Tracks[x_max, x_min, energy]"], expected, 7)


def test_next_waveforms_have_a_row_an_event(root):
    with h5py.File(root / "next-ic/6229_000_split_trigger.h5") as file:
        keys = ["RD/pmtrwf", "Trigger/events", "Run/events.timestamp"]
        values = [file["RD/pmtrwf"][:], file["Trigger/events"][:], file["Run/events"]["timestamp"]]
        check(file, keys, lambda key, n: values[keys.index(key)][n], 3)


def test_everything_that_is_offered_of_km3net_files_can_be_cut():
    testdata = pytest.importorskip("km3net_testdata", reason="the package km3net-testdata is not installed")
    files = sorted((Path(testdata.__file__).parent / "data").rglob("*.h5"))
    fed = 0
    for path in files:
        with h5py.File(path) as file:
            contents = recognise(file, str(path))
            found = resolve(file, str(path), list(contents.keys))
            assert found.events == contents.events
            for key in list(contents.keys)[:: max(1, len(contents.keys) // 6)]:
                rows = np.concatenate([np.atleast_1d(event(file, found, key, n)) for n in range(min(3, found.events))])
                column = found.columns[key]
                head = column.apply(file[column.dataset][: len(rows)])
                np.testing.assert_array_equal(rows, head)  # in these files events come in order, without gaps
            fed += bool(contents.keys)
    assert fed >= 9
