"""A small set of events for the tests of the cache, and what batches and parts hold, event by event."""

import json
from pathlib import Path

import h5py
import numpy as np

import hepfeed as hf
from hepfeed.tensors import Structured, take

SHAPE = (9, 8, 7)
KEYS = ["ECAL", "HCAL", "hits/xyz", "hits/charge", "energy"]
LABELS = ("electron", "gamma", "pion")


def write_set(folder, labels=LABELS, files=2, events=40, chunk=8):
    """Write files of each class and return the list of a specification.

    ``ECAL`` is mostly 0, ``HCAL`` is not; event 3 of every file has no hits at all.
    """
    for number, label in enumerate(labels):
        for file in range(files):
            write_file(folder / label / f"{label}_{file}.h5", 10 * number + file, events, chunk)
    return [[str(folder / label / "*.h5"), KEYS, label] for label in labels]


def write_file(path, seed, events=40, chunk=8):
    """Write one file of events."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = random.exponential(size=(events, *SHAPE)) * (random.random((events, *SHAPE)) < 0.03)
    counts = random.poisson(6, events)
    image[3], counts[3] = 0, 0
    with h5py.File(path, "w") as file:
        chunks = {"chunks": (chunk, *SHAPE), "compression": 1}
        file.create_dataset("ECAL", data=image.astype("f4"), **chunks)
        file["HCAL"] = random.normal(size=(events, 3, 4)).astype("f2")
        file["energy"] = 1.0 + seed + np.arange(events) / 100
        file["hits/xyz"] = random.normal(size=(int(counts.sum()), 3)).astype("f4")
        file["hits/charge"] = random.exponential(size=int(counts.sum()))
        file["hits/offsets"] = np.concatenate([[0], np.cumsum(counts)])


def contents(batches):
    """Return (file, row) -> what was delivered of the event: dtype, shape and bytes of each of its arrays.

    An event that comes twice is an error.
    """
    found = {}
    for batch in batches:
        arrays = {
            name: value.map(lambda tensor: tensor.numpy()) if isinstance(value, Structured) else value.numpy()
            for name, value in batch.items()
        }
        for place, event in enumerate(map(tuple, arrays["event"].tolist())):
            assert event not in found, f"{event} comes twice"
            found[event] = {name: _one(value, place) for name, value in arrays.items()}
    return found


def _one(value, place):
    one = take(value, np.array([place]))
    if not isinstance(one, Structured):
        return one.dtype, one.shape, np.ascontiguousarray(one).tobytes()
    return {
        part: (array.dtype, array.shape, np.ascontiguousarray(array).tobytes()) for part, array in one.arrays().items()
    }


def assert_same(found, expected):
    """Two results of :func:`contents` have the same events, and each of them the same arrays."""
    assert found.keys() == expected.keys()
    for event, arrays in expected.items():
        assert found[event].keys() == arrays.keys(), event
        for name, value in arrays.items():
            assert found[event][name] == value, (event, name)


def all_bits(batches):
    """Return all arrays of batches, batch by batch."""
    return [
        {
            name: {part: (array.dtype, array.shape, array.numpy().tobytes()) for part, array in value.arrays().items()}
            if isinstance(value, Structured)
            else (value.dtype, value.shape, np.asarray(value).tobytes())
            for name, value in batch.items()
        }
        for batch in batches
    ]


def epochs(spec, count=1, *, batch_size=16, readers=0, shuffle=True, seed=7, transform=None, dataset=None, **options):
    """Return the contents of some epochs, each from :func:`contents`."""
    made = hf.EventDataset(spec, transform=transform, **(dataset or {}))
    options = {"persistent_workers": "pool" not in options, **options} if readers else options
    with hf.DataLoader(made, batch_size, shuffle, num_workers=readers, seed=seed, **options) as loader:
        return [contents(loader) for _ in range(count)]


def cached_epochs(spec, root, count=1, **options):
    """Return the contents of epochs with a cache."""
    return epochs(spec, count, **{**options, "dataset": {"cache": root, **options.get("dataset", {})}})


def directories(root):
    """Return the caches in a directory."""
    return sorted(path for path in Path(root).iterdir() if path.is_dir()) if Path(root).exists() else []


def parts_of(root):
    """Return the parts of all caches in a directory, or of one cache."""
    return sorted(Path(root).rglob("part-*.h5"))


def stored_events(root):
    """Return the (file, row) of all events that parts hold, with those that steps took out, as h5py reads them."""
    found = []
    for path in parts_of(root):
        with h5py.File(path, "r") as part:
            found += [tuple(event) for event in part["event"][()].tolist()]
            found += [tuple(event) for event in part["_cache/removed"][()].tolist()]
    return found


def manifest_of(root):
    """Return the manifest of the one cache in a directory."""
    (path,) = Path(root).rglob("manifest.json")
    return json.loads(path.read_text())
