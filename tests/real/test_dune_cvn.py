"""Conversion of 400 simulated DUNE far-detector events."""

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from hepfeed.convert import convert_dune_cvn


@pytest.fixture(scope="module")
def source():
    root = os.environ.get("HEPFEED_DATA")
    if root is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(root) / "dune-cvn"


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("dune")
    paths = convert_dune_cvn(source, out, form="both", workers=2)
    assert [os.path.relpath(path, out) for path in paths] == [
        "nc/nc_0.h5",
        "nc/nc_1.h5",
        "nue/nue_0.h5",
        "nue/nue_1.h5",
    ]
    return paths


def of_class(paths, name, key):
    parts = []
    for path in paths:
        if Path(path).parent.name == name:
            with h5py.File(path) as file:
                parts.append(file[key][()])
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ["nc", "nue"])
def test_all_events_are_there_in_the_order_of_their_numbers(converted, name):
    assert of_class(converted, name, "event_number").tolist() == list(range(200))


def test_images_are_the_inflated_files_byte_for_byte(converted, source):
    with h5py.File(converted[3]) as file:
        for row in (0, 17, 99):
            number = file["event_number"][row]
            raw = zlib.decompress((source / f"nue/event{number}.gz").read_bytes())
            assert file["image"][row].tobytes() == raw


@pytest.mark.parametrize("name", ["nc", "nue"])
def test_hits_are_the_pixels_above_zero_and_at_most_the_reconstructed_hits(converted, name):
    coords, offsets = [], []
    for path in converted:
        if Path(path).parent.name == name:
            with h5py.File(path) as file:
                image = file["image"][()]
                sites = np.argwhere(image)
                np.testing.assert_array_equal(file["hits/coords"][()], sites[:, 1:])
                np.testing.assert_array_equal(file["hits/value"][()], image[tuple(sites.T)])
                counts = np.diff(file["hits/offsets"][()])
                np.testing.assert_array_equal(counts, np.count_nonzero(image, axis=(1, 2, 3)))
                offsets.append(counts)
                coords.append(sites)
    pixels = np.concatenate(offsets)
    assert (pixels.min(), pixels.max()) == {"nc": (62, 16967), "nue": (308, 21334)}[name]
    assert (pixels <= of_class(converted, name, "n_hits")).all()


def test_truth_is_that_of_the_info_files(converted, source):
    assert set(of_class(converted, "nue", "pdg").tolist()) == {12, -12}
    assert set(of_class(converted, "nc", "pdg").tolist()) == {1}
    energy = of_class(converted, "nue", "energy")
    assert energy[0] == np.float32(3.44544)
    assert (energy.min(), energy.max()) == (np.float32(0.453203), np.float32(37.5865))
    assert of_class(converted, "nue", "n_hits")[0] == 4281
    lines = (source / "nc/event7.info").read_text().split()
    np.testing.assert_array_equal(of_class(converted, "nc", "info")[7], np.array(lines, np.float32))
