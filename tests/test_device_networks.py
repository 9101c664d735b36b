"""All of `hepfeed.sparse` over the kernels of a device: networks, pools, points and joins, as over those of the CPU."""

import copy
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn
from torch._library.custom_ops import CustomOpDef

import hepfeed.sparse as hsp
from hepfeed.device import native
from hepfeed.errors import ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.sparse import arrays, batch_norm, densify, maps, rows
from hepfeed.sparse.pooling import event_lists
from hepfeed.tensors import Sparse

SHAPE, EVENTS = (6, 4, 5), 2
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def some_indices(seed=0, occupancy=0.3, shuffled=True):
    random = torch.Generator().manual_seed(seed)
    indices = torch.nonzero(torch.rand(EVENTS, *SHAPE, generator=random) < occupancy).int().contiguous()
    return indices[torch.randperm(len(indices), generator=random)] if shuffled else indices


def some_features(count, channels, dtype=torch.float64, seed=0):
    return torch.randn(count, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def some_tensor(device, channels=2, seed=0, dtype=torch.float64, shuffled=True):
    indices = some_indices(seed, shuffled=shuffled)
    features = some_features(len(indices), channels, dtype, seed).to(device).requires_grad_()
    return hsp.SparseTensor(features, indices.to(device), SHAPE, EVENTS)


def both(backend, function):
    """What a function of a device returns over the kernels of the CPU, and over those of the backend."""
    torch.manual_seed(0)
    expected = function("cpu")
    torch.manual_seed(0)
    with backend.operators():
        return expected, function(backend.device)


def assert_same(backend, function, **tolerance):
    """Tensors, or sparse tensors, that a function returns are those of the CPU."""
    expected, made = both(backend, function)
    for theirs, ours in zip(parts(expected), parts(made), strict=True):
        assert ours.device.type == backend.device
        torch.testing.assert_close(ours.cpu(), theirs, **tolerance)


def parts(value):
    if isinstance(value, hsp.SparseTensor):
        return [value.features, value.indices]
    if isinstance(value, torch.Tensor):
        return [value]
    return [part for each in value if each is not None for part in parts(each)]


def with_gradients(out, *inputs):
    """A result and the gradients of its square sum."""
    total = sum(part.double().square().sum() for part in parts(out) if part.requires_grad)
    return out, torch.autograd.grad(total, inputs)


MODELS = {
    "resnet": lambda: hsp.SparseResNet(2, 3, depth=(1, 1), width=4),
    "unet": lambda: hsp.SparseUNet(2, 3, width=3, depth=2, blocks=1),
}


def trained(name, device, dtype):
    """Output, gradients, statistics and parameters of two steps of training, and the output of evaluation then."""
    torch.manual_seed(0)
    net = MODELS[name]().to(dtype).to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    found = []
    for seed in (0, 1):
        x = some_tensor(device, seed=seed, dtype=dtype)
        out = net(x)
        optimiser.zero_grad()
        out.square().mean().backward()
        optimiser.step()
        found += [out.detach(), x.features.grad, *(parameter.grad.clone() for parameter in net.parameters())]
    with torch.no_grad():
        return [*found, *net.parameters(), *net.buffers(), net.eval()(some_tensor(device, seed=2, dtype=dtype))]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_networks_train_as_on_the_cpu(backend, name, dtype):
    near = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert_same(backend, lambda device: trained(name, device, dtype), **near)


class Counter:
    """A module that remembers which of its functions were called."""

    def __init__(self, module):
        self.module, self.called = module, set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self.module, name)


def test_networks_run_on_the_kernels_of_the_device(backend, monkeypatch):
    counter = Counter(backend.kernels)
    monkeypatch.setattr(native, "kernels", lambda: counter)
    trained("resnet", "cpu", torch.float32)
    assert not counter.called
    with backend.operators():
        trained("resnet", backend.device, torch.float32)
    wanted = {"look_at_pairs", "row_sum", "batch_statistics", "given_statistics", "batch_norm", "batch_norm_grad"}
    assert not wanted - counter.called
    assert {name for name in counter.called if "conv" in name or "weight_gradient" in name}


def test_training_gives_the_same_bits_in_every_order_of_threads(backend):
    with backend.operators():
        expected = trained("unet", backend.device, torch.float32)
        backend.seed(3)
        made = trained("unet", backend.device, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


@pytest.mark.parametrize("reduce", ["Max", "Avg", "Sum"])
def test_pools_are_those_of_the_cpu(backend, reduce):
    layers = [
        getattr(hsp, f"Sparse{reduce}Pool3d")(2),
        getattr(hsp, f"Sparse{reduce}Pool3d")(3, 2, padding=1),
        getattr(hsp, f"Sparse{reduce}Pool3d")(3, subm=True),
        getattr(hsp, f"SparseGlobal{reduce}Pool")(),
    ]

    def pooled(device):
        x = some_tensor(device, 5)
        return [with_gradients(layer(x), x.features) for layer in layers]

    assert_same(backend, pooled)


def test_unpooling_is_that_of_the_cpu(backend):
    def there_and_back(device):
        x = some_tensor(device, 3)
        down = hsp.SparseMaxPool3d(3, 2, padding=1, indice_key="down")(x)
        ups = [hsp.SparseUnpool("down", reduce)(down) for reduce in ("sum", "mean")]
        return with_gradients(ups, x.features)

    assert_same(backend, there_and_back)


@pytest.mark.parametrize("layer", [hsp.SparseInstanceNorm(4, affine=True), hsp.SparseGroupNorm(2, 4)], ids=str)
def test_norms_of_events_are_those_of_the_cpu(backend, layer):
    def normalised(device):
        x = some_tensor(device, 4)
        return with_gradients(copy.deepcopy(layer).double().to(device)(x), x.features)

    assert_same(backend, normalised)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("outside", ["raise", "drop"])
def test_points_become_voxels_as_on_the_cpu(backend, reduce, outside):
    random = torch.Generator().manual_seed(0)
    low = 0.0 if outside == "raise" else -1.0
    points = torch.rand(90, 3, dtype=torch.float64, generator=random) * (torch.tensor(SHAPE) / 2 - low) + low
    events = torch.randint(0, EVENTS, (90,), generator=random)

    def voxels(device):
        features = some_features(90, 3).to(device).requires_grad_()
        given = features, points.to(device), events.to(device), SHAPE, EVENTS
        x, voxel = hsp.point_to_voxel(*given, size=0.5, reduce=reduce, outside=outside)
        back = hsp.voxel_to_point(x, voxel)
        return [x, voxel, *with_gradients(back, features)]

    assert_same(backend, voxels)


@pytest.mark.parametrize("renormalise", [False, True])
def test_features_between_voxels_are_those_of_the_cpu(backend, renormalise):
    random = torch.Generator().manual_seed(0)
    points = torch.rand(40, 3, dtype=torch.float64, generator=random) * (torch.tensor(SHAPE) + 2) - 1
    events = torch.randint(0, EVENTS, (40,), generator=random)

    def interpolated(device):
        x, at = some_tensor(device, 3), points.to(device).requires_grad_()
        out = hsp.interpolate(x, at, events.to(device), renormalise=renormalise)
        nearest = hsp.interpolate(x, at, events.to(device), mode="nearest")
        return [*with_gradients(out, x.features, at), *with_gradients(nearest, x.features)]

    assert_same(backend, interpolated)


def test_tensors_are_joined_as_on_the_cpu(backend):
    def joined(device):
        x, y = some_tensor(device, 3), some_tensor(device, 3, seed=1)
        mask = (x.indices[:, 1] % 2 == 0).to(device)
        made = [hsp.add(x, y), hsp.concatenate(x, y), *hsp.union(x, y), hsp.prune(x, mask), x + x, x * 2]
        return with_gradients(made, x.features, y.features)

    assert_same(backend, joined)


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_rows_on_one_site_are_merged_as_on_the_cpu(backend, how):
    def merged(device):
        indices = torch.cat([some_indices(), some_indices(1)]).to(device)
        features = some_features(len(indices), 3).to(device).requires_grad_()
        x = hsp.SparseTensor(features, indices, SHAPE, EVENTS, duplicates=how)
        return with_gradients(x, features)

    assert_same(backend, merged)


def test_two_rows_on_one_site_are_an_error_as_on_the_cpu(backend):
    indices = some_indices()[[0, 1, 0]]

    def made(device):
        return hsp.SparseTensor(some_features(3, 1).to(device), indices.to(device), SHAPE, EVENTS)

    with pytest.raises(ProcessError) as expected:
        made("cpu")
    with backend.operators(), pytest.raises(ProcessError) as raised:
        made(backend.device)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("channels_first", [False, True])
def test_dense_images_go_there_and_back_as_on_the_cpu(backend, channels_first):
    def images(device):
        x = some_tensor(device, 3)
        dense = x.dense(channels_first)
        again = hsp.SparseTensor.from_dense(dense, channels_first)
        return [*with_gradients(again, x.features), dense]

    assert_same(backend, images)


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_parted_and_joined_as_on_the_cpu(backend, shuffled):
    def parted(device):
        x = some_tensor(device, shuffled=shuffled)
        return [*x.unbatch(), x.event(-1), hsp.SparseTensor.batch(x.unbatch())]

    assert_same(backend, parted)


def test_maps_that_readers_built_are_used_on_the_device(backend, monkeypatch):
    indices = some_indices(shuffled=False)
    features = some_features(len(indices), 2)
    options = {"kernel_size": 3, "stride": 1, "padding": 0, "dilation": 1, "submanifold": True}
    kernel_map = build_kernel_map(indices.numpy(), SHAPE, EVENTS, **options)
    batch = Sparse(features, indices, SHAPE, EVENTS, (kernel_map.map(torch.from_numpy),))

    def fail(*arguments):
        raise AssertionError("a kernel map was built")

    monkeypatch.setattr(maps, "kernel_map", fail)

    def convolved(device):
        layer = hsp.SubMConv3d(2, 3, 3).double().to(device)
        return layer(hsp.SparseTensor.from_feed(batch.to(device)))

    assert_same(backend, convolved)


@pytest.fixture
def float16(backend, monkeypatch):
    """Let tensors of the emulator be float16, as those of a device may be."""
    if backend.device == "cpu":
        monkeypatch.setattr(rows, "check_dtypes", lambda **tensors: None)


def test_autocast_takes_16_bits_and_scaled_steps(backend, float16):
    dtype = torch.float16
    torch.manual_seed(0)
    net = hsp.SparseSequential(
        hsp.SubMConv3d(2, 8, 3), hsp.SparseBatchNorm(8, relu=True), hsp.SparseMaxPool3d(2), hsp.SparseGlobalAvgPool()
    ).to(backend.device)
    before = copy.deepcopy(net.state_dict())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(backend.device, init_scale=64.0)
    x = some_tensor(backend.device, dtype=torch.float32)
    with backend.operators():
        full = net(x)
        with torch.autocast(backend.device, dtype):
            out = net(x)
            assert out.dtype == dtype
            loss = out.float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
    torch.testing.assert_close(out.float(), full, rtol=0.02, atol=0.02)
    assert scaler.get_scale() == 64.0
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert not torch.equal(net[0].weight, before["0.weight"])


def test_a_mean_in_float16_is_there_where_the_sum_is_too_large(backend, float16):
    features = torch.full((700, 2), 100.0, dtype=torch.float16, device=backend.device, requires_grad=True)
    own = torch.arange(700, dtype=torch.int32, device=backend.device)
    with backend.operators():
        lists = rows.RowLists.of_pairs(torch.zeros_like(own), own, 1, 700)
        assert rows.row_sum(features, lists).isinf().all()
        mean = rows.row_mean(features, lists)
        mean.sum().backward()
    assert mean.dtype == torch.float16
    assert mean.tolist() == [[100.0, 100.0]]
    torch.testing.assert_close(features.grad, torch.full_like(features, 1 / 700))


def row_arguments(backend, coefficients=True):
    lists = rows.RowLists.of_pairs(
        *(torch.tensor(each, dtype=torch.int32, device=backend.device) for each in ([0, 2, 2, 1, 0], [1, 1, 3, 0, 2])),
        3,
        4,
        coefficients,
    )
    x = some_features(4, 3).to(backend.device).requires_grad_()
    factors = some_features(5, 1, seed=1)[:, 0].to(backend.device).requires_grad_()
    return lists, x, factors


def test_gradients_of_rows_are_those_of_their_definition(backend):
    with backend.operators():
        lists, x, factors = row_arguments(backend)
        for function in (lambda x, f: rows.row_sum(x, lists, f), lambda x, f: rows.row_max(x, lists)[0] * f[:3, None]):
            assert torch.autograd.gradcheck(function, (x, factors))
            assert torch.autograd.gradgradcheck(function, (x, factors))


def test_gradients_of_batch_norm_are_those_of_its_definition(backend):
    with backend.operators():
        x = some_features(6, 3).to(backend.device).requires_grad_()
        weight, bias = (some_features(3, 1, seed=n)[:, 0].to(backend.device).requires_grad_() for n in (1, 2))

        def normalised(x, weight, bias):
            return batch_norm.batch_norm(x, weight, bias, None, None, True, 1e-3, True)[0]

        assert torch.autograd.gradcheck(normalised, (x, weight, bias))
        assert torch.autograd.gradgradcheck(normalised, (x, weight, bias), atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_operators_of_rows_keep_torchs_rules(backend):
    with backend.operators():
        lists, x, factors = row_arguments(backend)
        _, argmax = rows.row_max(x, lists)
        back = lists.back_starts, lists.back_columns
        pairs = [torch.tensor(each, dtype=torch.int32, device=backend.device) for each in ([0, 1, 0], [1, 0, 1])]
        sites = some_tensor(backend.device, 3)
        channels = torch.ones(3, dtype=torch.float64, device=backend.device)
        cases = {
            rows._row_lists: (*pairs, 2, 2, True),
            rows._row_sum: (x, factors, *lists.tensors()),
            rows._row_dot: (x[:3].detach(), x, *lists.tensors()),
            rows._row_max: (x, lists.starts, lists.columns, *back),
            rows._row_pick: (x, argmax, *back),
            rows._row_put: (x[:3].detach().requires_grad_(), argmax, *back),
            batch_norm.batch_norm: (x, channels, None, None, None, True, 1e-3, True),
            batch_norm.batch_norm_grad: (x, x, channels, None, channels, channels, True, 1e-3, True),
            densify.densify: (sites.features, sites.indices, SHAPE, EVENTS, True),
            densify.take_sites: (sites.dense(), sites.indices, True),
            densify.active_sites: (sites.dense().detach(), True),
        }
        for operator, arguments in cases.items():
            torch.library.opcheck(operator, arguments, test_utils=["test_schema", "test_faketensor"])


def operators_of(package):
    """Every custom operator that a module of a package defines."""
    names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    found = [vars(importlib.import_module(name)).values() for name in names]
    return {thing for things in found for thing in things if isinstance(thing, CustomOpDef)}


def test_every_operator_has_a_function_for_cuda():
    operators = operators_of(hsp)
    assert len(operators) >= 21
    missing = [operator._qualname for operator in operators if "cuda" not in operator._backend_fns]
    assert not missing


def test_functions_for_cuda_have_the_parameters_of_their_operators():
    import inspect

    for operator in operators_of(hsp):
        ours, theirs = (inspect.signature(operator._backend_fns[kind]).parameters for kind in ("cuda", "cpu"))
        assert list(ours) == list(theirs), operator._qualname


@pytest.fixture
def no_device(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "there is no CUDA device that can be used: none was found")


@pytest.mark.parametrize(
    "move", [lambda x: x.cuda(), lambda x: x.to("cuda"), lambda x: x.to(device=torch.device("cuda", 1))]
)
def test_going_to_cuda_where_there_is_none_says_why(no_device, move):
    with pytest.raises(SpecError, match=r"a SparseTensor must be on the CPU, not on cuda.*: there is no CUDA device"):
        move(some_tensor("cpu"))


def test_tensors_of_cuda_are_taken_where_there_are_kernels(monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        there, here = torch.empty(2, 3, device="cuda", dtype=torch.float16), torch.empty(2, 3, dtype=torch.float16)
    monkeypatch.setattr(native, "available", lambda: True)
    arrays.check_device(features=there, weight=there)
    arrays.check_dtypes(features=there, weight=there)
    with pytest.raises(SpecError, match="weight must be on cuda:0, as features is, not on cpu: move it"):
        arrays.check_device(features=there, weight=here)
    with pytest.raises(SpecError, match="on the CPU use bfloat16"):
        arrays.check_dtypes(features=here)
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "there is no driver")
    with pytest.raises(SpecError, match="features must be on the CPU, not on cuda:0: there is no driver"):
        arrays.check_device(features=there)


def test_what_is_shared_stays_shared_on_another_device():
    x = some_tensor("cpu", shuffled=False)
    y = hsp.SparseConv3d(2, 2, 2, 2, indice_key="down").double()(hsp.SubMConv3d(2, 2, 1, indice_key="one").double()(x))
    moved = y.to("meta")
    one, down = moved.indice_dict["one"], moved.indice_dict["down"]
    assert one.kernel_map.in_maps is one.kernel_map.out_maps
    assert one.kernel_map.indices is one.source.indices
    assert down.source is one.source
    assert down.target is moved.sites
    assert down.kernel_map.indices is moved.sites.indices
    assert moved.sites.to(torch.device("meta")).num_sites == y.num_sites


def test_lists_of_events_are_made_without_sorting(backend, monkeypatch):
    def fail(*arguments):
        raise AssertionError("sorted")

    with backend.operators():
        x = some_tensor(backend.device, shuffled=False)
        monkeypatch.setattr(native, "kernels", lambda: Only(backend.kernels, sort_pairs=fail))
        lists = event_lists(x.sites)
    counts = np.bincount(x.indices[:, 0].cpu().numpy(), minlength=EVENTS)
    np.testing.assert_array_equal(lists.counts().cpu().numpy(), counts)


class Only:
    """A module some of whose functions are others."""

    def __init__(self, module, **others):
        self._module = module
        vars(self).update(others)

    def __getattr__(self, name):
        return getattr(self._module, name)


def test_layers_in_float16_work_on_a_device(backend):
    layers = nn.Sequential(hsp.SubMConv3d(2, 4, 3), hsp.SparseBatchNorm(4), hsp.SparseGlobalMaxPool()).half()
    x = some_tensor("cpu", dtype=torch.float16)
    expected = copy.deepcopy(layers).float()(x.float())
    with backend.operators():
        out = layers.to(backend.device)(some_tensor(backend.device, dtype=torch.float16))
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0.01, atol=0.01)
