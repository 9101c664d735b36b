"""Faults that many threads of a kernel find at once are told like one."""

import numpy as np
import pytest
import torch
from test_device_images import Bench

from hepfeed.device import weight_gradient


def test_many_bad_pairs_are_one_fault(backend):
    pairs = torch.zeros(600, dtype=torch.int32, device=backend.device)
    offsets = torch.tensor([0, 600], device=backend.device)
    none = pairs[:0]
    features, grad = torch.ones(30, 4, device=backend.device), torch.ones(40, 6, device=backend.device)
    with pytest.raises((ValueError, RuntimeError), match="row"):
        weight_gradient.sparse_conv_weight_grad(features, grad, pairs + 30, pairs, offsets, none, none, 1, False)


def test_many_sites_outside_of_the_images_are_one_fault(backend):
    bench = Bench(backend)
    out = bench.out((2, 3, 4), "f4")
    before = out.cpu().numpy().copy()
    sites = np.tile(np.array([2, 0, 0], np.int32), (300, 1))
    features = np.ones(300, np.float32)
    address = out.data_ptr()
    bench.kernels.put_sites(
        bench.at(sites), bench.at(features), 4, 300, (3, 4), 2, 1, 1, address, bench.faults.address(), bench.stream
    )
    np.testing.assert_array_equal(out.cpu().numpy(), before)
    assert bench.refused()
