"""Sparse networks under torch.compile and torch.export."""

import copy
import io
import shutil

import pytest
import torch
from torch import nn

import hepfeed.sparse as hsp

SHAPE, EVENTS = (6, 6, 5), 2
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Module):
    """A small U of convolutions that makes its sparse tensor itself."""

    def __init__(self, duplicates="error"):
        super().__init__()
        self.duplicates = duplicates
        self.before = hsp.SparseSequential(
            hsp.SubMConv3d(2, 8, 3, indice_key="a"),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            hsp.SubMConv3d(8, 8, 3, indice_key="a"),
        )
        self.down = hsp.SparseConv3d(8, 8, 2, 2, indice_key="down")
        self.below = hsp.SparseSequential(hsp.SparseBatchNorm(8), nn.ReLU(), hsp.SubMConv3d(8, 8, 3, groups=2))
        self.up = hsp.SparseInverseConv3d(8, 8, 2, "down")
        self.last = hsp.SparseLinear(16, 3)

    def forward(self, features, indices):
        x = hsp.SparseTensor(features, indices, SHAPE, EVENTS, duplicates=self.duplicates)
        before = self.before(x)
        up = self.up(self.below(self.down(before)))
        return self.last(before.replace_feature(torch.cat([before.features, up.features], 1))).features


def batch(occupancy, seed=0, shuffled=False):
    rng = torch.Generator().manual_seed(seed)
    indices = torch.nonzero(torch.rand(EVENTS, *SHAPE, generator=rng) < occupancy).int().contiguous()
    if shuffled:
        indices = indices[torch.randperm(len(indices), generator=rng)]
    return torch.randn(len(indices), 2, generator=rng), indices


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def results(net, features, indices):
    """Output and gradients, of the features too."""
    features = features.clone().requires_grad_()
    made = net(features, indices)
    given = [features, *net.parameters()]
    return [made.detach(), *torch.autograd.grad(made.square().sum(), given)]


def assert_equal(compiled, plain, **tolerance):
    for got, expected in zip(compiled, plain, strict=True):
        torch.testing.assert_close(got, expected, **tolerance)


def test_a_network_compiles_as_one_graph_for_any_number_of_sites():
    torch.manual_seed(0)
    plain = Net()
    net = copy.deepcopy(plain)
    graphs = []

    def backend(graph, example):
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(graph)
        return aot_eager(graph, example)

    compiled = torch.compile(net, backend=backend, fullgraph=True, dynamic=True)
    made = []
    for occupancy, shuffled in ((0.3, False), (0.1, True), (0.5, False)):
        given = batch(occupancy, shuffled=shuffled)
        assert_equal(results(compiled, *given), results(plain, *given), rtol=0, atol=0)
        made.append(len(graphs))
    assert made[0] == made[-1]  # nothing was compiled again


def test_batch_norm_of_torch_compiles_behind_a_strided_layer():
    net = hsp.SparseSequential(hsp.SparseConv3d(2, 4, 2, 2), nn.BatchNorm1d(4), nn.ReLU())

    def forward(features, indices):
        return net(hsp.SparseTensor(features, indices, SHAPE, EVENTS)).features

    compiled = torch.compile(forward, backend="eager", fullgraph=True, dynamic=True)
    for train in (True, False):
        net.train(train)
        given = batch(0.3)
        assert torch.equal(compiled(*given), forward(*given))


def test_merging_densifying_and_arithmetic_compile_too():
    conv = hsp.SubMConv3d(2, 2, 3)

    def loss(features, indices):
        x = hsp.SparseTensor(features, indices, SHAPE, EVENTS, duplicates="mean")
        images = (conv(x) + x * 2.0).dense()
        return hsp.SparseTensor.from_dense(images).dense().square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for occupancy in (0.1, 0.4):
        features, indices = batch(occupancy)
        given = torch.cat([features, features]), torch.cat([indices, indices])
        assert compiled(*given) == loss(*given)


def test_a_sparse_tensor_goes_into_a_compiled_module_and_comes_out():
    net = hsp.SparseSequential(hsp.SubMConv3d(2, 4, 3, indice_key="a"), hsp.SparseReLU(), hsp.SparseConv3d(4, 4, 2, 2))
    compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=True)
    features, indices = batch(0.3)
    x = hsp.SparseTensor(features, indices, SHAPE, EVENTS)
    made = compiled(x)
    expected = net(hsp.SparseTensor(features, indices, SHAPE, EVENTS))
    assert isinstance(made, hsp.SparseTensor)
    assert torch.equal(made.features, expected.features)
    assert torch.equal(made.indices, expected.indices)
    assert list(made.indice_dict) == ["a"]
    assert "2 kernel maps" in repr(x.sites)


def test_autocast_holds_in_compiled_networks():
    torch.manual_seed(0)
    net = hsp.SparseSequential(hsp.SubMConv3d(2, 4, 3), nn.ReLU())

    def forward(features, indices):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(hsp.SparseTensor(features, indices, SHAPE, EVENTS)).features

    compiled = torch.compile(forward, backend="aot_eager", fullgraph=True, dynamic=True)
    given = batch(0.3)
    made = compiled(*given)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, forward(*given))


@pytest.mark.parametrize("strict", [True, False])
def test_networks_are_exported_and_loaded_for_any_number_of_sites(strict):
    torch.manual_seed(0)
    net = Net().eval()
    sites = torch.export.Dim("sites", min=2)
    exported = torch.export.export(net, batch(0.3), dynamic_shapes=({0: sites}, {0: sites}), strict=strict)
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    saved.seek(0)
    for each in (exported, torch.export.load(saved)):
        for occupancy in (0.1, 0.5):
            given = batch(occupancy, shuffled=True)
            assert torch.equal(each.module()(*given), net(*given))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_layers(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    net = hsp.SparseSequential(hsp.SubMConv3d(2, 4, 3), hsp.SparseConv3d(4, 4, 2, 2))

    def forward(features, indices):
        return net(hsp.SparseTensor(features, indices, SHAPE, EVENTS)).features

    compiled = torch.compile(forward, fullgraph=True, dynamic=True)
    for occupancy in (0.3, 0.1):
        given = batch(occupancy)
        torch.testing.assert_close(compiled(*given), forward(*given), rtol=1e-6, atol=1e-6)
