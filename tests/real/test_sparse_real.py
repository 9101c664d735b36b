"""Sparse convolutions of real events, from their files, against dense convolutions of the same images."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

import hepfeed as hf
import hepfeed.sparse as hsp
from hepfeed.convert import convert_dune_cvn
from hepfeed.transforms import Sparsify, Voxelise

HITS = {"points": "HitData[2:5]", "features": "HitData[5:6]", "shape": (24, 28, 64), "low": (-900.0, -1200.0, -2700.0)}
SUBMANIFOLD = {"kernel_size": 3, "submanifold": True}
DOWN = {"kernel_size": 2, "stride": 2}


@pytest.fixture(scope="module")
def root():
    root = os.environ.get("HEPFEED_DATA")
    if root is None:
        pytest.skip("HEPFEED_DATA is unset: no real event files")
    return Path(root)


def dense_weight(module):
    """Weights ``[C_out, *kernel, C_in]`` as torch's dense convolutions have them."""
    return module.weight.detach().movedim(-1, 1)


def at(dense, x):
    """The rows of dense images ``(B, C, *shape)`` at the sites of a tensor."""
    return dense.movedim(1, -1)[tuple(x.indices.long().T)]


def assert_near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def batches(spec, transform, size, **options):
    with hf.DataLoader(
        hf.EventDataset(spec, transform=transform), size, True, num_workers=1, seed=1, **options
    ) as feed:
        yield from feed


def test_hits_of_liquido_in_voxels_are_convolved_as_the_dense_images(root):
    path = root / "liquido" / "liquido_electrons.h5"
    spec = [[str(path), ["HitData[2:5]", "HitData[5:6]"], "electron"]]
    steps = [Voxelise(**HITS, size=100.0, reduce="mean", into="image")]
    torch.manual_seed(0)
    first, down = hsp.SubMConv3d(1, 6, 3).double(), hsp.SparseConv3d(6, 4, 2, stride=2).double()
    events = sites = 0
    for batch in batches(spec, steps, 34, prebuild=[SUBMANIFOLD, DOWN]):
        assert len(batch["image"].kernel_maps) == 2
        x = hsp.SparseTensor.from_feed(batch["image"])
        x = x.replace_feature(x.features.double() / 100)
        y = first(x)
        assert torch.equal(y.indices, batch["image"].indices)
        expected = functional.conv3d(x.dense(), dense_weight(first), first.bias.detach(), padding=1)
        assert_near(y.features, at(expected, y))
        z = down(y)
        assert torch.equal(z.indices, batch["image"].kernel_maps[1].indices)
        expected = functional.conv3d(y.dense().detach(), dense_weight(down), down.bias.detach(), stride=2)
        assert z.spatial_shape == tuple(expected.shape[2:])
        assert_near(z.features, at(expected, z))
        events += len(batch["event"])
        sites += len(x.features)
    assert events == 100
    with h5py.File(path) as file:
        hits = file["HitData"][()].astype(np.float64)
    cells = np.floor((hits[:, 2:5] - HITS["low"]) / 100)
    assert np.all((cells >= 0) & (cells < HITS["shape"]))
    assert sites == len(np.unique(np.column_stack([hits[:, 0], cells]), axis=0))


def test_pixel_maps_of_dune_are_convolved_as_the_dense_images(root, tmp_path):
    for name in ("nue", "nc"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for number in range(3):
            for suffix in ("gz", "info"):
                shutil.copy(root / "dune-cvn" / name / f"event{number}.{suffix}", tmp_path / "raw" / name)
    files = convert_dune_cvn(tmp_path / "raw", tmp_path / "h5", workers=1)
    spec = [[str(path), ["image"], Path(path).parent.name] for path in files]
    torch.manual_seed(0)
    conv = hsp.SubMConv2d(3, 5, 3)
    events = 0
    # The views are channels: a site is where one of them has charge.
    for batch in batches(spec, [Sparsify(keys="image", channel_axis=0, into="sites")], 6):
        x = hsp.SparseTensor.from_feed(batch["sites"])
        x = x.replace_feature(x.features / 255)
        assert 0 < x.occupancy < 0.1
        assert torch.equal(x.dense(), batch["image"] / 255)
        expected = functional.conv2d(x.dense(), dense_weight(conv), conv.bias.detach(), padding=1)
        y = conv(x)
        assert_near(y.features, at(expected, y))
        events += len(batch["event"])
    assert events == 6
