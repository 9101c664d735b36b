"""Files in every layout, from the specification to batches: each event as it was written."""

import numpy as np
import pytest
import torch
from layout_files import FILES, larcv3_million

import hepfeed as hf
from hepfeed.tensors import Jagged


def feed(path, events, readers, shuffle, keys=None):
    """Yield (row, batch, place) of every event."""
    sample = {"files": str(path), "keys": keys or events.keys, "label": "x"}
    if events.layout is not None:
        sample["layout"] = events.layout
    dataset = hf.EventDataset([sample])
    assert len(dataset) == events.events
    with hf.DataLoader(dataset, 4, shuffle=shuffle, num_workers=readers, seed=5) as loader:
        for batch in loader:
            for place, row in enumerate(batch["event"][:, 1].tolist()):
                yield row, batch, place


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("name", FILES)
def test_every_event_of_every_layout_is_delivered_as_it_was_written(tmp_path, name, readers):
    path = tmp_path / "events.h5"
    events = FILES[name](path)
    seen = []
    for row, batch, place in feed(path, events, readers, shuffle=True):
        seen.append(row)
        for key, values in events.jagged.items():
            assert isinstance(batch[key], Jagged), key
            same(batch[key][place], values[row], key)
        for key, values in events.dense.items():
            same(batch[key][place], values[row], key)
    assert sorted(seen) == list(range(events.events))


def same(delivered, expected, key):
    expected = np.asarray(expected)
    values = delivered.numpy()
    assert values.dtype == expected.dtype.newbyteorder("="), key
    assert values.shape == expected.shape, key
    np.testing.assert_array_equal(values, expected, err_msg=key)


def test_an_event_of_a_million_voxels_comes_between_empty_ones(tmp_path):
    path = tmp_path / "events.h5"
    events = larcv3_million(path)
    lengths = {}
    for row, batch, place in feed(path, events, 2, shuffle=False):
        for key, values in events.jagged.items():
            same(batch[key][place], values[row], key)
        lengths[row] = len(batch[next(iter(events.jagged))][place])
    assert max(lengths.values()) == 1_000_000
    assert min(lengths.values()) == 0


def test_voxels_of_larcv3_become_sparse_images(tmp_path):
    path = tmp_path / "events.h5"
    events = FILES["larcv3"](path)
    coords, value = events.jagged
    shape = [int(c) for c in np.concatenate(events.jagged[coords]).max(0) + 1]
    voxelise = {"voxelise": {"points": coords, "features": value, "shape": shape, "into": "image"}}
    dataset = hf.EventDataset([[str(path), events.keys, "x"]], transform=[voxelise])
    (batch,) = hf.DataLoader(dataset, events.events)
    image = batch["image"]
    assert image.batch_size == events.events
    for event in range(events.events):
        mine = image.indices[:, 0] == event
        order = np.lexsort(events.jagged[coords][event].T[::-1])
        torch.testing.assert_close(
            image.indices[mine, 1:], torch.from_numpy(events.jagged[coords][event][order].astype(np.int32))
        )
        torch.testing.assert_close(image.features[mine, 0], torch.from_numpy(events.jagged[value][event][order]))
