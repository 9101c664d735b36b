"""Events are physical, files are to schema, and the same seed gives the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from glob import glob
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepfeed.errors import SpecError
from hepfeed.synthetic import (
    SEMANTIC,
    LartpcGenerator,
    LcdGenerator,
    NextGenerator,
    Ragged,
    VertexGenerator,
    make_lartpc,
    make_lcd,
    make_next,
    make_vertices,
    plot_profiles,
    write_files,
)
from hepfeed.synthetic.argon import BRAGG, BRAGG_MM, LAR, SHOWER, TRACK, Cloud, contained, track_clouds
from hepfeed.synthetic.event import stream
from hepfeed.synthetic.features import calorimeter_features
from hepfeed.synthetic.lcd import SPOTS_PER_GEV
from hepfeed.synthetic.material import SILICON, TUNGSTEN, Layer
from hepfeed.synthetic.next_tracks import Q_VALUE_MEV, share_energy
from hepfeed.synthetic.storage import Storage
from hepfeed.synthetic.track import MUON, PION, PROTON, RangeTable, make_tracks, stopping_power

AUTO = (6, 5, 5, 30)  # of h5py, for 23 maps (20, 20, 60) float32
LCD_CLASSES = ("EleEscan", "ChPiEscan", "GammaEscan", "Pi0Escan")


def lcd_events(name, energy, events=96, seed=3):
    generator = LcdGenerator(name, (energy, energy))
    return generator.generate(stream(seed, name, 1, 0), events, ragged=False)


def visible(block):
    return block["ECAL"].sum(axis=(1, 2, 3)) + block["HCAL"].sum(axis=(1, 2, 3))


def mean_layer(block):
    profile = np.concatenate([block[name].sum(axis=(0, 1, 2)) for name in ("ECAL", "HCAL")])
    return profile @ np.arange(85) / profile.sum()


def read_all(path):
    """Every data set of a file by its path, and the attributes of the file."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
        found["attrs"] = dict(file.attrs)
    return found


def assert_same_content(first, second):
    assert first.keys() == second.keys()
    assert first.pop("attrs") == second.pop("attrs")
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


# Materials, features: numbers worked out by hand.


def test_a_layer_of_tungsten_and_silicon_has_the_effective_properties_of_its_masses():
    layer = Layer(TUNGSTEN, SILICON, absorber_mm=3.5, sensor_mm=0.5, pitch_mm=6.0)
    # 6.755 g/cm^2 of tungsten and 0.11645 of silicon: 0.99926 + 0.00534 radiation lengths.
    assert layer.radiation_lengths == pytest.approx(1.00460, rel=1e-4)
    assert layer.mip_gev == pytest.approx((6.755 * 1.145 + 0.11645 * 1.664) / 1000)
    assert layer.medium.x0_mm == pytest.approx(6.0 / 1.00460, rel=1e-4)
    assert layer.medium.e_mip == pytest.approx(1 / 1.42)
    assert 7.97e-3 < layer.medium.critical_gev < 8.2e-3


def test_features_of_three_cells_are_those_worked_out_by_hand():
    ecal, hcal = np.zeros((2, 25, 25, 25), np.float32), np.zeros((2, 5, 5, 60), np.float32)
    ecal[0, 10, 12, 4], ecal[0, 14, 12, 8] = 3, 1
    hcal[0, 2, 2, 7] = 2
    features = calorimeter_features(ecal, hcal)
    assert features["ECAL_E"][0] == 4
    assert features["ECAL_nHits"].tolist() == [2, 0]
    assert features["ECALMoment1X"][0] == 11  # (3 * 10 + 14) / 4
    assert features["ECALMoment2X"][0] == 3  # (3 * 1 + 9) / 4
    assert features["ECALMoment1Y"][0] == 12
    assert features["ECALMoment2Y"][0] == 0
    assert features["HCALMoment1Z"][0] == 7
    assert features["ECAL_HCAL_ERatio"][0] == 0.5
    assert np.isnan(features["ECALMoment1X"][1])
    assert np.isnan(features["ECAL_HCAL_ERatio"][1])


# Calorimeter showers.


def test_depth_of_the_electron_maximum_grows_with_the_logarithm_of_the_energy():
    means = [mean_layer(lcd_events("EleEscan", energy)) for energy in (5.0, 50.0, 500.0)]
    steps = np.diff(means)
    # ln 10 radiation lengths a decade, or a little more for the mean depth; a layer is 0.91 of them.
    assert np.all((steps > 2.0) & (steps < 3.5))
    assert steps[0] == pytest.approx(steps[1], abs=0.7)


def test_energy_seen_of_electrons_is_proportional_to_their_energy():
    energies = np.array([20.0, 50.0, 100.0, 200.0, 400.0])
    response = [visible(lcd_events("EleEscan", energy)).mean() / energy for energy in energies]
    # The threshold costs small showers more of their energy.
    assert np.ptp(response) < 0.1
    assert min(response) > 0.85


def test_resolution_of_electrons_is_that_of_the_number_of_spots():
    relative = visible(lcd_events("EleEscan", 50.0, events=512)) / 50.0
    expected = 1 / np.sqrt(SPOTS_PER_GEV * 50.0**0.959)
    assert relative.std() / relative.mean() == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("name", LCD_CLASSES)
@pytest.mark.parametrize("energy", [3.0, 40.0, 300.0])
def test_no_event_shows_more_energy_than_its_particle_has_beyond_the_sampling_fluctuation(name, energy):
    block = lcd_events(name, energy)
    # Spots of 0.2 GeV give hadronic showers 45 % / sqrt(E) at most.
    sigma = np.sqrt(0.2 / energy) if name == "ChPiEscan" else 1 / np.sqrt(SPOTS_PER_GEV * energy**0.959)
    assert np.all(visible(block) <= energy * (1 + 5 * sigma))
    assert visible(block).mean() <= energy
    assert visible(block).mean() > 0.3 * energy


def test_charged_pions_deposit_deeper_than_electrons():
    electron, pion = (mean_layer(lcd_events(name, 50.0)) for name in ("EleEscan", "ChPiEscan"))
    assert pion > electron + 10


def test_photons_start_later_than_electrons():
    electron, photon = (mean_layer(lcd_events(name, 50.0, events=256)) for name in ("EleEscan", "GammaEscan"))
    # 9/7 less the tenth of a radiation length before the ECAL is 1.3 layers.
    assert 0.7 < photon - electron < 2.0


def test_neutral_pions_are_wider_than_photons_and_the_more_so_the_slower():
    def width(name, energy):
        block = lcd_events(name, energy, events=192)
        return np.nanmean(block["ECALMoment2X"] + block["ECALMoment2Y"])

    slow = width("Pi0Escan", 10.0) - width("GammaEscan", 10.0)
    fast = width("Pi0Escan", 100.0) - width("GammaEscan", 100.0)
    assert slow > 3.0
    assert slow > 5 * fast


def test_about_seven_percent_of_photons_convert_before_the_calorimeter():
    block = lcd_events("GammaEscan", 3.0, events=2000)
    # 1 - exp(-0.1 * 7 / 9) = 0.0748, with a statistical error of 0.006.
    assert block["conversion"].mean() == pytest.approx(0.0748, abs=0.024)


@pytest.mark.parametrize("name", LCD_CLASSES)
def test_occupancy_of_calorimeters_is_physical(name):
    generator = LcdGenerator(name)
    block = generator.generate(stream(0, name, 1, 0), 128, ragged=False)
    assert 0.005 < np.mean(block["ECAL"] > 0) < 0.05
    assert 0.001 < np.mean(block["HCAL"] > 0) < 0.25


# Tracks in argon and xenon.


def test_stopping_power_and_range_agree_with_the_tables():
    # Particle Data Group, muons in liquid argon: minimum 1.508 MeV cm^2/g, range at 10 MeV 0.9833 g/cm^2.
    energies = np.linspace(150, 500, 200)
    assert stopping_power(MUON, LAR, energies).min() * 10 / 1.396 == pytest.approx(1.508, rel=0.005)
    ten_mev = RangeTable(MUON, LAR, 1000.0).range_mm(np.array(10.0))
    assert ten_mev * 1.396 / 10 == pytest.approx(0.9833, rel=0.02)


def test_range_and_energy_are_inverse_to_each_other():
    table = RangeTable(PROTON, LAR, 1000.0)
    energies = np.geomspace(2, 900, 50)
    np.testing.assert_allclose(table.kinetic_mev(table.range_mm(energies)), energies, rtol=1e-6)


def test_muons_that_stop_have_the_length_of_their_range_and_leave_all_their_energy():
    generator = LartpcGenerator("Muon", (150.0, 150.0), shape=(24, 32))
    block = generator.generate(stream(1, "Muon", 1, 0), 32, ragged=True)
    expected = RangeTable(MUON, LAR, 200.0).range_mm(np.array(150.0))
    stopped = block["Track_length"] > 0.9 * expected
    assert stopped.mean() > 0.8
    np.testing.assert_allclose(block["Track_length"][stopped], expected, atol=1.5)
    points = block["/"]
    charge = np.add.reduceat(points.columns["charge"], points.offsets[:-1])
    np.testing.assert_allclose(charge[stopped], 150.0, rtol=0.01)


def test_protons_deposit_most_at_the_end_of_their_track():
    count = 16
    axis = np.tile([0.0, 0.0, 1.0], (count, 1))
    tracks = make_tracks(
        stream(0, "", 0, 0), PROTON, LAR, np.full(count, 200.0), np.zeros((count, 3)), axis, step_mm=1.0
    )
    mean = tracks.deposits.mean(axis=0)
    assert mean[-6:-1].mean() > 4 * mean[:20].mean()
    np.testing.assert_allclose(tracks.deposits.sum(axis=1), 200.0)


def test_steps_of_a_track_are_as_long_as_asked():
    axis = np.array([[0.0, 1.0, 0.0]])
    tracks = make_tracks(stream(0, "", 0, 0), MUON, LAR, np.array([50.0]), np.zeros((1, 3)), axis, step_mm=2.0)
    steps = np.linalg.norm(np.diff(tracks.points[0], axis=0), axis=1)
    assert np.all(steps <= 2.0 + 1e-9)
    assert steps[0] == pytest.approx(2.0, abs=0.01)


def test_photons_start_showering_later_than_electrons_in_argon():
    def first_charge(name):
        generator = LartpcGenerator(name, (200.0, 200.0), shape=(24, 32))
        points = generator.generate(stream(2, name, 1, 0), 64, ragged=True)["/"]
        return np.minimum.reduceat(points.columns["coords"][:, 2], points.offsets[:-1]).mean()

    # 9/7 of 140 mm is 180 mm, less the photons that leave without converting.
    assert 100 < first_charge("Photon") - first_charge("Electron") < 200


def argon_rows(generator, events=32, seed=4):
    """Points of events of liquid argon: event of each point, and the columns."""
    points = generator.generate(stream(seed, generator.name, 1, 0), events, ragged=True)["/"]
    return np.repeat(np.arange(events), np.diff(points.offsets)), points.columns


def test_the_residual_range_falls_by_the_steps_of_a_track_to_its_end():
    axis = np.tile([0.0, 0.0, 1.0], (2, 1))
    start = (np.full(2, 40.0), np.zeros((2, 3)), axis)
    # The second of two equal muons is taken away after 20 mm.
    tracks = make_tracks(stream(0, "", 0, 0), MUON, LAR, *start, step_mm=1.0, length_mm=np.array([np.inf, 20.0]))
    full = float(RangeTable(MUON, LAR, 40.0).range_mm(np.array(40.0)))
    assert tracks.stops.tolist() == [True, False]
    steps = np.count_nonzero(tracks.deposits, axis=1)
    assert steps.tolist() == [int(np.ceil(full)), 20]
    np.testing.assert_allclose(tracks.residual[0, :10], full - np.arange(10) - 0.5)
    assert tracks.residual[0, steps[0] - 1] == pytest.approx(max(full - (steps[0] - 0.5), 0))
    assert tracks.residual[1, 19] == pytest.approx(full - 19.5)


@pytest.mark.parametrize("particle", [MUON, PION, PROTON])
def test_particles_lose_more_than_twice_the_minimum_from_where_their_bragg_end_begins(particle):
    table = RangeTable(particle, LAR, 1000.0)
    residual = np.linspace(1, BRAGG_MM, 30)
    minimum = stopping_power(particle, LAR, np.linspace(20, 3000, 1000)).min()
    assert np.all(stopping_power(particle, LAR, table.kinetic_mev(residual)) > 2.1 * minimum)
    assert stopping_power(MUON, LAR, RangeTable(MUON, LAR, 100.0).kinetic_mev(np.array(35.0))) < 2.1 * minimum


def test_the_bragg_end_is_the_last_three_centimetres_of_a_muon_that_stops():
    generator = LartpcGenerator("Muon", (150.0, 400.0))
    block = generator.generate(stream(1, "Muon", 1, 0), 32, ragged=True)
    points = block["/"]
    stopped = block["Track_length"] > RangeTable(MUON, LAR, 400.0).range_mm(block["Energy"]) - 0.5
    assert 0 < stopped.sum() < 32
    for event in range(32):
        semantic = points.columns["semantic"][slice(*points.offsets[event : event + 2])]
        assert semantic.dtype == np.uint8
        # Steps of 1 mm, of which one straddles the end and one the beginning.
        expected = BRAGG_MM if stopped[event] else 0
        assert abs(np.count_nonzero(semantic == BRAGG) - expected) <= 1
        assert np.all(np.diff(semantic.astype(int)) >= 0)
        assert set(semantic) <= {TRACK, BRAGG}


def test_tracks_that_interact_or_leave_have_no_bragg_end():
    count = 64
    energy, axis = np.full(count, 300.0), np.tile([0.0, 0.0, 1.0], (count, 1))
    cloud = track_clouds(stream(2, "", 0, 0), PROTON, energy, np.zeros((count, 3)), axis)
    length = np.bincount(cloud.event, minlength=count)
    full = float(RangeTable(PROTON, LAR, 300.0).range_mm(np.array(300.0)))
    bragg = np.bincount(cloud.event, weights=cloud.semantic == BRAGG, minlength=count)
    assert np.all((bragg > 0) == (length > full))
    assert 0.3 < np.mean(bragg > 0) < 0.8  # exp(-511 / 857) = 0.55
    # From 10 mm before the wall a muon of 150 MeV, whose range is 53 cm, leaves.
    leaving = track_clouds(stream(2, "", 0, 0), MUON, energy[:4] / 2, np.array([[0.0, 0.0, 890.0]] * 4), axis[:4])
    assert set(leaving.semantic) == {TRACK}


@pytest.mark.parametrize("name", ["Electron", "Photon"])
def test_showers_are_showers_everywhere(name):
    _, columns = argon_rows(LartpcGenerator(name))
    assert set(columns["semantic"]) == {SHOWER}


def test_semantic_classes_have_names():
    assert (SEMANTIC[TRACK], SEMANTIC[SHOWER], SEMANTIC[BRAGG]) == ("track", "shower", "bragg")


def test_vertices_have_the_particles_that_they_say():
    generator = VertexGenerator(energy=(60.0, 120.0), tracks=(0, 3), showers=(0, 2))
    block = generator.generate(stream(3, "Vertex", 1, 0), 64, ragged=True)
    points = block["/"]
    event = np.repeat(np.arange(64), np.diff(points.offsets))
    columns = points.columns
    assert set(block["tracks"]) == {0, 1, 2, 3}
    assert set(block["showers"]) == {0, 1, 2}
    particles = block["tracks"] + block["showers"]
    assert np.all((block["Energy"] >= 60 * particles) & (block["Energy"] <= 120 * particles))
    charge = np.bincount(event, weights=columns["charge"], minlength=64)
    assert np.all(charge <= block["Energy"] * (1 + 1e-5))
    for kind, classes in (("tracks", [TRACK, BRAGG]), ("showers", [SHOWER])):
        found = np.bincount(event, weights=np.isin(columns["semantic"], classes), minlength=64) > 0
        assert not np.any(found & (block[kind] == 0))
    assert np.all(contained(columns["coords"]))
    # Every track starts at the vertex, or 3.5 mm away where diffusion takes it 5 sigma.
    distance = np.linalg.norm(columns["coords"] - block["vertex"][event], axis=1)
    nearest = np.full(64, np.inf)
    np.minimum.at(nearest, event, distance)
    assert np.all(nearest[block["tracks"] > 0] < 3.5)


def test_all_classes_of_voxels_are_in_events_of_vertices():
    event, columns = argon_rows(VertexGenerator())
    assert np.all(np.diff(event) >= 0)
    share = np.bincount(columns["semantic"], minlength=3) / len(event)
    assert share[TRACK] > share[SHOWER] > share[BRAGG] > 0.02


def test_events_without_a_particle_are_empty():
    generator = VertexGenerator(tracks=(0, 0), showers=(0, 1), shape=(8, 8), block=2)
    blocks = [generator.generate(stream(seed, "Vertex", 1, 0), 2, ragged=True) for seed in range(40)]
    empty = [block for block in blocks if not block["showers"].any()]
    assert empty
    assert empty[0]["/"].offsets.tolist() == [0, 0, 0]
    assert Cloud.empty().write(2, (8, 8), ragged=False)["images"].sum() == 0


def blobs(name, radius_mm=20.0):
    """Energies about the two ends of each event, the smaller first."""
    block = NextGenerator(name).generate(stream(5, name, 1, 0), 128, ragged=True)
    hits = block["Hits"]
    found = []
    for event, ends in enumerate(block["ends"]):
        rows = slice(*hits.offsets[event : event + 2])
        distance = np.linalg.norm(hits.columns["C"][rows, None] - ends, axis=2)
        found.append(np.sort((hits.columns["V"][rows, None] * (distance < radius_mm)).sum(axis=0)))
    return np.array(found)


def test_two_electrons_have_two_blobs_and_one_electron_has_one():
    two, one = blobs("TwoElectron"), blobs("OneElectron")
    # A stopping electron leaves about 1 MeV in 2 cm, one that starts with 2.458 MeV a quarter of it.
    assert np.median(two[:, 0]) > 2 * np.median(one[:, 0])
    assert np.median(two[:, 1]) == pytest.approx(np.median(one[:, 1]), rel=0.25)
    threshold = 0.45
    assert np.mean(two[:, 0] > threshold) > 0.8
    assert np.mean(one[:, 0] > threshold) < 0.2


@pytest.mark.parametrize("name", ["TwoElectron", "OneElectron"])
def test_xenon_events_have_the_energy_of_the_decay_at_most(name):
    block = NextGenerator(name).generate(stream(6, name, 1, 0), 128, ragged=False)
    totals = block["maps"].sum(axis=(1, 2, 3))
    assert np.all(totals <= Q_VALUE_MEV * (1 + 1e-5))
    assert np.median(totals) == pytest.approx(Q_VALUE_MEV, rel=1e-3)
    np.testing.assert_allclose(totals, block["energy"], rtol=1e-5)


def test_electrons_of_a_decay_share_its_energy_and_fly_apart():
    energies, cosines = share_energy(stream(0, "", 0, 0), 20000)
    assert energies.min() >= 0
    assert energies.max() <= Q_VALUE_MEV
    assert energies.mean() == pytest.approx(Q_VALUE_MEV / 2, rel=0.02)
    # The mean of c under 1 - k c is -k / 3, and k is 0.85 or so.
    assert -1 / 3 < cosines.mean() < -0.22


# Dense and ragged forms.


def rebuild_lcd(generator, block, name, events):
    cells = block[name]
    image = np.zeros((events, *((25, 25, 25) if name == "ECAL" else (5, 5, 60))), np.float32)
    event = np.repeat(np.arange(events), np.diff(cells.offsets))
    image[(event, *cells.columns["C"].T)] = cells.columns["V"]
    return image


@pytest.mark.parametrize("name", LCD_CLASSES)
def test_cells_of_the_ragged_form_fill_the_dense_image(name):
    generator = LcdGenerator(name)
    dense, ragged = (generator.generate(stream(7, name, 1, 0), 8, ragged=form) for form in (False, True))
    for image in ("ECAL", "HCAL"):
        np.testing.assert_array_equal(rebuild_lcd(generator, ragged, image, 8), dense[image])


@pytest.mark.parametrize("name", ["TwoElectron", "OneElectron"])
def test_hits_histogrammed_in_voxels_are_the_map(name):
    generator = NextGenerator(name)
    dense, ragged = (generator.generate(stream(8, name, 1, 0), 4, ragged=form) for form in (False, True))
    hits = ragged["Hits"]
    edges = [np.linspace(-100, 100, 21), np.linspace(-100, 100, 21), np.linspace(-150, 150, 61)]
    for event in range(4):
        rows = slice(*hits.offsets[event : event + 2])
        expected, _ = np.histogramdd(hits.columns["C"][rows], edges, weights=hits.columns["V"][rows])
        np.testing.assert_allclose(dense["maps"][event], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["Muon", "Pion", "Proton", "Electron", "Photon", "Vertex"])
def test_points_histogrammed_along_the_wires_are_the_images(name):
    generator = VertexGenerator(shape=(48, 60)) if name == "Vertex" else LartpcGenerator(name, shape=(48, 60))
    dense, ragged = (generator.generate(stream(9, name, 1, 0), 3, ragged=form) for form in (False, True))
    points = ragged["/"]
    for event, (plane, sign) in product(range(3), enumerate((1, -1))):
        rows = slice(*points.offsets[event : event + 2])
        x, y, z = points.columns["coords"][rows].astype(float).T
        across = 0.5 * z + sign * np.sqrt(0.75) * y
        # 48 wires over 960 mm are 20 mm apart, 60 bins over 600 mm are 10 mm wide.
        edges = [-255 + 20 * np.arange(49), -300 + 10 * np.arange(61)]
        expected, _, _ = np.histogram2d(across, x, edges, weights=points.columns["charge"][rows])
        np.testing.assert_allclose(dense["images"][event, plane], expected, rtol=1e-3, atol=1e-6)


def test_head_of_ragged_rows_keeps_whole_events():
    table = Ragged.from_counts(np.array([2, 0, 3]), V=np.arange(5))
    assert table.offsets.tolist() == [0, 2, 2, 5]
    assert table.head(2).columns["V"].tolist() == [0, 1]
    joined = Ragged.concatenate([table, table.head(1)])
    assert joined.offsets.tolist() == [0, 2, 2, 5, 7]
    assert joined.columns["V"].tolist() == [0, 1, 2, 3, 4, 0, 1]


# Files.


def test_calorimeter_files_have_the_first_schema(tmp_path):
    lecture = make_lcd(tmp_path, files=2, events=5, workers=1)
    assert lecture[0] == [
        str(tmp_path / "EleEscan" / "EleEscan_*.h5"),
        ["ECAL", "HCAL", "target"],
        "electron",
        1.0,
    ]
    assert [entry[2] for entry in lecture] == ["electron", "pion", "photon", "pi0"]
    for (pattern, *_), pdg in zip(lecture, (11, 211, 22, 111), strict=True):
        name = Path(pattern).parent.name
        assert sorted(Path(path).name for path in glob(pattern)) == [f"{name}_1.h5", f"{name}_2.h5"]
        content = read_all(tmp_path / name / f"{name}_1.h5")
        assert content["ECAL"].shape == (5, 25, 25, 25)
        assert content["HCAL"].shape == (5, 5, 5, 60)
        assert content["target"].shape == (5, 1, 5)
        assert {content[key].dtype for key in ("ECAL", "HCAL", "target", "energy")} == {np.dtype(np.float32)}
        assert np.all(content["target"][:, 0, 0] == pdg)
        assert np.all(content["pdgID"] == pdg)
        np.testing.assert_array_equal(content["target"][:, 0, 1], content["energy"])
        momentum = np.linalg.norm(content["target"][:, 0, 2:], axis=1)
        np.testing.assert_allclose(momentum, content["energy"], rtol=1e-3)
        assert np.all((content["energy"] >= 10) & (content["energy"] <= 500))
        np.testing.assert_allclose(content["ECAL_E"], content["ECAL"].sum(axis=(1, 2, 3)), rtol=1e-5)


def test_calorimeter_files_have_the_nested_schema(tmp_path):
    ((_, keys, _, _),) = make_lcd(tmp_path, classes=["GammaEscan"], files=1, events=3, schema="nested", workers=1)
    assert keys == ["ECAL/ECAL", "HCAL/HCAL", "Event/energy"]
    content = read_all(tmp_path / "GammaEscan" / "GammaEscan_1.h5")
    assert content["ECAL/ECAL"].shape == (3, 25, 25, 25)
    assert content["HCAL/HCAL"].shape == (3, 5, 5, 60)
    for name in ("energy", "pdgID", "conversion", "ECAL_HCAL_ERatio", "ECALMoment1X", "HCALMoment2Z"):
        assert content[f"Event/{name}"].shape == (3,)


def test_argon_files_have_images_or_points(tmp_path):
    ((_, keys, label, _),) = make_lartpc(tmp_path / "a", classes=["Proton"], files=1, events=2, workers=1)
    assert (keys, label) == (["images"], "proton")
    content = read_all(tmp_path / "a" / "Proton" / "Proton_1.h5")
    assert content["images"].shape == (2, 2, 240, 4096)
    assert content["images"].dtype == np.float16
    assert np.all(content["pdg"] == 2212)

    ((_, keys, _, _),) = make_lartpc(tmp_path / "b", classes=["Proton"], files=1, events=2, workers=1, ragged=True)
    assert keys == ["coords", "charge"]
    content = read_all(tmp_path / "b" / "Proton" / "Proton_1.h5")
    assert content["offsets"].dtype == np.int64
    assert content["offsets"].shape == (3,)
    assert content["coords"].shape == (content["offsets"][-1], 3)
    assert content["charge"].shape == (content["offsets"][-1],)
    assert content["coords"].dtype == content["charge"].dtype == np.float32
    assert content["semantic"].shape == (content["offsets"][-1],)
    assert content["semantic"].dtype == np.uint8

    ((_, keys, label, _),) = make_vertices(tmp_path / "c", files=1, events=2, workers=1, ragged=True)
    assert (keys, label) == (["coords", "charge", "semantic"], "vertex")
    content = read_all(tmp_path / "c" / "Vertex" / "Vertex_1.h5")
    assert {"coords", "charge", "semantic", "offsets", "vertex", "tracks", "showers", "Energy"} < set(content)
    assert json.loads(content["attrs"]["parameters"])["tracks"] == [1, 3]


def test_xenon_files_have_maps_or_hits(tmp_path):
    lecture = make_next(tmp_path / "a", files=1, events=3, workers=1)
    assert [entry[1:] for entry in lecture] == [
        [["maps"], "two_electron", 1.0],
        [["maps"], "one_electron", 1.0],
    ]
    assert read_all(tmp_path / "a" / "OneElectron" / "OneElectron_1.h5")["maps"].shape == (3, 20, 20, 60)
    make_next(tmp_path / "b", files=1, events=200, workers=1, ragged=True)
    content = read_all(tmp_path / "b" / "TwoElectron" / "TwoElectron_1.h5")
    assert content["Hits/offsets"].shape == (201,)
    assert content["Hits/C"].shape == (content["Hits/offsets"][-1], 3)
    assert np.all(np.diff(content["Hits/offsets"]) > 10)


@pytest.mark.parametrize("ragged", [False, True])
def test_one_worker_and_two_write_the_same_bits(tmp_path, ragged):
    reports = []
    for workers in (1, 2):
        make_lcd(
            tmp_path / str(workers),
            classes=["EleEscan", "ChPiEscan"],
            files=2,
            events=40,
            energy=(5.0, 20.0),
            ragged=ragged,
            workers=workers,
            progress=reports.append,
        )
    assert sum(reports) == 2 * 2 * 2 * 40
    paths = sorted((tmp_path / "1").glob("*/*.h5"))
    assert len(paths) == 4
    for path in paths:
        other = tmp_path / "2" / path.relative_to(tmp_path / "1")
        assert_same_content(read_all(path), read_all(other))
    assert not list(tmp_path.glob("**/*.tmp"))


def test_files_and_seeds_differ_and_a_longer_file_starts_like_a_shorter_one(tmp_path):
    generator = NextGenerator("OneElectron", block=16)
    first, second = write_files(tmp_path / "a", generator, files=2, events=20, workers=1)
    (longer,) = write_files(tmp_path / "b", generator, files=1, events=40, workers=1)
    (other,) = write_files(tmp_path / "c", generator, files=1, events=20, seed=1, workers=1)
    maps = read_all(first)["maps"]
    assert not np.array_equal(maps, read_all(second)["maps"])
    assert not np.array_equal(maps, read_all(other)["maps"])
    np.testing.assert_array_equal(maps, read_all(longer)["maps"][:20])


def test_files_say_how_they_were_made(tmp_path):
    (path,) = write_files(tmp_path, LcdGenerator("EleEscan", (10.0, 20.0)), files=1, events=8, seed=4, workers=1)
    content = read_all(path)
    attrs = content["attrs"]
    assert attrs["generator"] == "hepfeed.synthetic.LcdGenerator"
    assert (attrs["class"], attrs["seed"], attrs["file"], attrs["events"]) == ("EleEscan", 4, 1, 8)
    assert json.loads(attrs["parameters"])["energy"] == [10.0, 20.0]
    with h5py.File(path) as file:
        assert file["ECAL"].attrs["occupancy"] == pytest.approx(np.mean(content["ECAL"] > 0))


@pytest.mark.parametrize(
    ("options", "chunks", "codec"),
    [
        ({}, AUTO, None),
        ({"compression": "gzip"}, AUTO, ("gzip", 4)),
        ({"chunks": "contiguous"}, None, None),
        ({"chunks": 4, "compression": "gzip", "level": 7}, (4, 20, 20, 60), ("gzip", 7)),
        ({"chunks": 100, "compression": "lzf", "shuffle": True}, (23, 20, 20, 60), ("lzf", None)),
    ],
)
def test_maps_are_chunked_and_compressed_as_asked(tmp_path, options, chunks, codec):
    (path,) = write_files(tmp_path, NextGenerator("OneElectron"), files=1, events=23, workers=1, **options)
    with h5py.File(path) as file:
        maps = file["maps"]
        assert maps.chunks == chunks
        assert (maps.compression and (maps.compression, maps.compression_opts)) == codec
        assert maps.shuffle == options.get("shuffle", False)
        assert not maps.fletcher32


STORAGE = {"compression": "gzip", "level": 4, "shuffle": False, "fletcher32": False}


def test_automatic_chunks_of_calorimeter_images_are_those_of_h5py_and_cut_every_axis():
    storage = Storage("auto", **STORAGE)
    assert storage.arguments((1000, 25, 25, 25), np.float32)["chunks"] == (125, 4, 4, 7)
    assert storage.arguments((1000,), np.float32)["chunks"] == (1000,)
    assert storage.arguments((0, 3), np.float32) == {}


def test_the_chunk_cache_has_room_for_all_chunks_of_the_same_events():
    images = {"ECAL": np.zeros((1, 25, 25, 25), np.float32), "energy": np.zeros(1, np.float32)}
    # 7 x 7 x 4 chunks of 125 x 4 x 4 x 7 float32; HDF5's own 521 slots are enough for 8 x 8 x 4.
    assert Storage("auto", **STORAGE).chunk_cache(images, 1000) == (196 * 56_000, 521)
    # 13 x 13 x 13 chunks of 6250 x 2 x 2 x 2; 4099 is the first prime after 16 x 16 x 16.
    assert Storage("auto", **STORAGE).chunk_cache(images, 100_000) == (2197 * 200_000, 4099)
    # 100 images of 62,500 bytes, or what HDF5 takes by itself.
    assert Storage(100, **STORAGE).chunk_cache(images, 1000) == (6_250_000, 521)
    assert Storage(1, **STORAGE).chunk_cache(images, 1000) == (1 << 20, 521)
    hits = {"Hits": Ragged.from_counts(np.array([2]), V=np.arange(2))}
    assert Storage("auto", **STORAGE).chunk_cache(hits, 1000) == (1 << 20, 521)


def test_codecs_of_hdf5plugin_and_checksums_can_be_read_back(tmp_path):
    pytest.importorskip("hdf5plugin", reason="needs the package hdf5plugin")
    plain = write_files(tmp_path / "plain", NextGenerator("OneElectron"), files=1, events=6, workers=1)
    for codec in ("zstd", "blosc"):
        packed = write_files(
            tmp_path / codec,
            NextGenerator("OneElectron"),
            files=1,
            events=6,
            workers=1,
            chunks=4,
            compression=codec,
            fletcher32=True,
        )
        with h5py.File(packed[0]) as file:
            assert file["maps"].fletcher32
        assert packed[0].stat().st_size < plain[0].stat().st_size / 3
        assert_same_content(read_all(plain[0]), read_all(packed[0]))


def test_chunks_of_ragged_columns_hold_as_many_events_on_average(tmp_path):
    (path,) = write_files(tmp_path, NextGenerator("TwoElectron"), files=1, events=30, workers=1, chunks=10, ragged=True)
    with h5py.File(path) as file:
        assert file["Hits/offsets"].chunks == (10,)
        assert file["Hits/C"].chunks == (round(len(file["Hits/C"]) / 3), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunks": "big"}, "events a chunk, got 'big'"),
        ({"chunks": 0}, "at least 1 event a chunk"),
        ({"compression": "rar"}, "got 'rar'"),
        ({"level": 11}, "0 to 9, got 11"),
        ({"chunks": "contiguous", "compression": "gzip"}, "for contiguous data"),
        ({"chunks": "contiguous", "fletcher32": True}, "for contiguous data"),
        ({"workers": 0}, "at least 1 worker"),
        ({"seed": -1}, "seed of at least 0"),
        ({"events": 0}, "events of at least 1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(tmp_path, options, message):
    arguments = {"files": 1, "events": 1, **options}
    with pytest.raises(SpecError, match=message):
        write_files(tmp_path / "data", NextGenerator("OneElectron"), **arguments)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LcdGenerator("Muon"), "expected an LCD class, one of EleEscan"),
        (lambda: LcdGenerator("EleEscan", (50.0, 20.0)), "got 50 and 20"),
        (lambda: LcdGenerator("EleEscan", schema="v9"), "got 'v9'"),
        (lambda: LartpcGenerator("Kaon"), "got 'Kaon'"),
        (lambda: LartpcGenerator("Muon", (1.0, 2.0)), "got 1 and 2"),
        (lambda: LartpcGenerator("Muon", shape=(0, 5)), r"got \(0, 5\)"),
        (lambda: VertexGenerator(energy=(5.0, 50.0)), "got 5 and 50"),
        (lambda: VertexGenerator(tracks=(3, 1)), "numbers of tracks .* got 3 and 1"),
        (lambda: VertexGenerator(showers=(0, 50)), "numbers of showers .* got 0 and 50"),
        (lambda: VertexGenerator(tracks=(0, 0), showers=(0, 0)), "no tracks and no showers"),
        (lambda: VertexGenerator(shape=(5, 0)), r"got \(5, 0\)"),
        (lambda: NextGenerator("ThreeElectron"), "got 'ThreeElectron'"),
        (lambda: NextGenerator("OneElectron", pressure=0.0), "5 to 50 bar, got 0"),
        (lambda: NextGenerator("OneElectron", diffusion_mm=-1.0), "got -1"),
    ],
)
def test_generators_refuse_what_they_cannot_make(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_an_error_in_a_worker_arrives_with_its_class_and_no_file_is_left(tmp_path):
    for name in ("OneElectron_1.h5", "OneElectron_2.h5"):
        (tmp_path / "OneElectron" / name).mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        write_files(tmp_path, NextGenerator("OneElectron"), files=2, events=1, workers=2)
    assert "Traceback" in str(caught.value.__cause__)
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_generator_of_the_main_script_works_in_processes_and_one_that_dies_is_an_error(run_script, tmp_path):
    out = run_script(
        """
        import os, sys
        from dataclasses import dataclass
        import numpy as np
        from hepfeed.errors import ReaderError
        from hepfeed.synthetic import write_files

        @dataclass
        class Generator:
            name: str
            block: int = 2

            def parameters(self):
                return {}

            def generate(self, rng, events, *, ragged):
                if self.name == "dying":
                    os._exit(7)
                return {"energy": np.arange(events, dtype=np.float32)}

        for name in ("living", "dying"):
            try:
                print(len(write_files(sys.argv[1], Generator(name), files=2, events=3, workers=2)))
            except ReaderError as error:
                print(error)
        """,
        tmp_path / "data",
    )
    assert out.splitlines()[0] == "2"
    assert "ended with code 7: check the memory, or use fewer workers" in out.splitlines()[1]
    for number in (1, 2):
        content = read_all(tmp_path / "data" / "living" / f"living_{number}.h5")
        assert content["energy"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_interrupted_leaves_no_file(tmp_path, workers):
    seen = []

    def interrupt(events):
        seen.extend(tmp_path.glob("**/*.tmp"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files(
            tmp_path,
            NextGenerator("OneElectron", block=8),
            files=2,
            events=4000,
            workers=workers,
            progress=interrupt,
        )
    assert seen
    assert [path for path in tmp_path.glob("**/*") if path.is_file()] == []


def test_the_same_class_twice_is_refused(tmp_path):
    with pytest.raises(SpecError, match="each of them once, got OneElectron, OneElectron"):
        make_next(tmp_path, classes=["OneElectron", "OneElectron"])
    with pytest.raises(SpecError, match="at least one class"):
        make_next(tmp_path, classes=[])


# The rest of the surface.


def test_importing_the_package_loads_neither_torch_nor_matplotlib():
    program = "import hepfeed.synthetic, sys; print(sorted({'torch', 'matplotlib', 'rich'} & set(sys.modules)))"
    path = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_profiles_of_each_class_are_drawn(tmp_path):
    plot_profiles(
        tmp_path / "profiles.png", [LcdGenerator("EleEscan", (5.0, 9.0)), LcdGenerator("ChPiEscan")], events=8
    )
    assert (tmp_path / "profiles.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (["lcd", "--energy", "5", "10", "--plot", "plot.png"], "EleEscan"),
        (["lcd", "--energy", "5", "10", "--schema", "nested", "--ragged", "--chunks", "2"], "Pi0Escan"),
        (["lartpc", "--shape", "24", "64", "--compression", "none", "--chunks", "contiguous"], "Proton"),
        (["vertices", "--ragged", "--tracks", "1", "1", "--showers", "0", "1"], "Vertex"),
        (["next", "--pressure", "10", "--compression", "lzf", "--shuffle"], "TwoElectron"),
    ],
)
def test_the_command_writes_files_and_lists_them(tmp_path, monkeypatch, arguments, row):
    from hepfeed.cli.synthetic import register

    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    register(app)
    command, *options = arguments
    common = ["--files", "1", "--events", "4", "--workers", "1", "--seed", "2"]
    # A lone sub-application needs its name only if there is another command beside it.
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["synthetic", command, "data", *common, *options])
    assert result.exit_code == 0, result.output
    assert row in result.output
    with h5py.File(tmp_path / "data" / row / f"{row}_1.h5") as file:
        assert file.attrs["events"] == 4
        assert file.attrs["seed"] == 2
    assert (tmp_path / "plot.png").exists() == ("--plot" in arguments)


def test_the_help_of_each_command_has_examples():
    from hepfeed.cli.synthetic import register

    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    for command in ("lcd", "lartpc", "next", "vertices"):
        result = CliRunner().invoke(app, ["synthetic", command, "--help"])
        assert result.exit_code == 0
        assert "Examples" in result.output
        assert f"hepfeed synthetic {command}" in result.output
