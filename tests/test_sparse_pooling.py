"""Pools over windows and events: against torch's dense pools, their gradients, and what they refuse."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.sparse import rows
from hepfeed.sparse.rows import RowLists

DENSE_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 1},
    {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1},
    {"kernel_size": 3, "subm": True},
    {"kernel_size": 3, "subm": True, "dilation": 2},
]


def tensor(shape, events=3, occupancy=0.3, channels=2, dtype=torch.float64, seed=0):
    """A tensor with its rows in no order, whose last event has no site."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(events, *shape, generator=generator) < occupancy
    active[-1] = False
    indices = active.nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    features = torch.randn(len(indices), channels, dtype=dtype, generator=generator)
    return hsp.SparseTensor(features, indices, shape, events)


def pool(kind, dims, **options):
    return getattr(hsp, f"Sparse{kind}Pool{dims}d")(**options)


def windows_of(x, options):
    """Each window of the dense images, and which of its sites are active: ``(B, C, *out_shape, taps)``."""
    dims = len(x.spatial_shape)
    kernel, dilation = options["kernel_size"], options.get("dilation", 1)
    stride = 1 if options.get("subm") else options.get("stride", kernel)
    padding = dilation * (kernel // 2) if options.get("subm") else options.get("padding", 0)
    shape = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in x.spatial_shape]
    active = x.replace_feature(torch.ones_like(x.features)).dense()
    taps = []
    for tap in itertools.product(range(kernel), repeat=dims):
        at = tuple(
            slice(k * dilation, k * dilation + (n - 1) * stride + 1, stride) for k, n in zip(tap, shape, strict=True)
        )
        padded = (functional.pad(each, [padding] * (2 * dims)) for each in (x.dense(), active))
        taps.append([each[(slice(None), slice(None), *at)] for each in padded])
    values, there = (torch.stack(each, -1) for each in zip(*taps, strict=True))
    return values, there > 0


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", [(23,), (9, 8), (6, 5, 7), (4, 3, 5, 4)])
def test_pools_reduce_the_active_sites_of_each_window(shape, options):
    x = tensor(shape)
    values, there = windows_of(x, options)
    counts = there.sum(-1)
    sums = values.sum(-1)
    means = sums / counts.clamp(min=1)
    lowest = torch.where(there, values, -torch.inf).amax(-1)
    maxima = torch.where(counts > 0, lowest, 0)
    for kind, expected in (("Sum", sums), ("Avg", means), ("Max", maxima)):
        out = pool(kind, len(shape), **options)(x)
        if options.get("subm"):
            assert out.sites is x.sites
            expected = expected * x.replace_feature(torch.ones_like(x.features)).dense()
        else:
            # Every window with an active site is an output, and no other.
            assert torch.equal(out.indices, counts[:, 0].nonzero().int())
        torch.testing.assert_close(out.dense(), expected)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pools_of_full_images_are_those_of_torch(dims):
    dense = torch.randn(2, 3, *[8] * dims, dtype=torch.float64)
    x = hsp.SparseTensor.from_dense(dense)
    torch.testing.assert_close(pool("Max", dims, kernel_size=2)(x).dense(), DENSE_MAX[dims](dense, 2))
    out = pool("Max", dims, kernel_size=3, stride=2, padding=1)(x).dense()
    torch.testing.assert_close(out, DENSE_MAX[dims](dense, 3, 2, 1))


def test_a_maximum_may_be_below_zero_and_sites_that_are_not_active_do_not_count():
    indices = torch.tensor([[0, 0], [0, 1], [0, 2]], dtype=torch.int32)
    x = hsp.SparseTensor(torch.tensor([[-1.0], [-3.0], [-5.0]]), indices, (4,), 1)
    assert hsp.SparseMaxPool1d(2)(x).features.tolist() == [[-1.0], [-5.0]]
    assert hsp.SparseAvgPool1d(2)(x).features.tolist() == [[-2.0], [-5.0]]
    assert hsp.SparseSumPool1d(2)(x).features.tolist() == [[-4.0], [-5.0]]


def test_the_gradient_of_a_maximum_goes_to_the_first_of_those_that_have_it():
    features = torch.tensor([[2.0], [2.0], [1.0]], requires_grad=True)
    indices = torch.tensor([[0, 1], [0, 0], [0, 3]], dtype=torch.int32)  # rows are in no order
    hsp.SparseMaxPool1d(4)(hsp.SparseTensor(features, indices, (4,), 1)).features.sum().backward()
    assert features.grad.tolist() == [[0.0], [1.0], [0.0]]


@pytest.mark.parametrize("kind", ["GlobalMax", "GlobalAvg", "GlobalSum"])
def test_global_pools_reduce_each_event(kind):
    x = tensor((6, 7), events=4, channels=5)
    out = getattr(hsp, f"Sparse{kind}Pool")()(x)
    assert out.shape == (4, 5)
    for event in range(3):
        of_event = x.features[x.indices[:, 0] == event]
        expected = {"GlobalMax": of_event.amax(0), "GlobalAvg": of_event.mean(0), "GlobalSum": of_event.sum(0)}[kind]
        torch.testing.assert_close(out[event], expected)
    assert out[3].tolist() == [0.0] * 5  # an event without a site


def test_a_mean_of_many_bfloat16_sites_is_rounded_like_few():
    indices = torch.stack([torch.zeros(5000), torch.arange(5000)], 1).int()
    x = hsp.SparseTensor(torch.full((5000, 3), 1.5, dtype=torch.bfloat16), indices, (5000,), 1)
    out = hsp.SparseGlobalAvgPool()(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), torch.full((1, 3), 1.5), rtol=2**-8, atol=0)


def test_unpooling_copies_to_the_sites_that_a_pool_came_from():
    indices = torch.tensor([[0, 3], [0, 0], [0, 1], [0, 4]], dtype=torch.int32)
    x = hsp.SparseTensor(torch.arange(4.0)[:, None], indices, (5,), 1)
    pooled = hsp.SparseMaxPool1d(2, indice_key="down")(x)
    assert pooled.indices.tolist() == [[0, 0], [0, 1]]  # site 4 is in no window
    back = hsp.SparseUnpool("down")(pooled.replace_feature(torch.tensor([[5.0], [7.0]])))
    assert back.sites is x.sites
    assert back.features.flatten().tolist() == [7.0, 5.0, 5.0, 0.0]


def test_unpooling_of_windows_that_overlap_is_their_mean_or_their_sum():
    x = tensor((9, 8))
    pooled = hsp.SparseSumPool2d(3, 2, 1, indice_key="down")(x)
    assert torch.equal(hsp.SparseUnpool("down")(pooled).features, hsp.SparseUnpool("down", "mean")(pooled).features)
    ones = pooled.replace_feature(torch.ones_like(pooled.features))
    assert torch.equal(hsp.SparseUnpool("down")(ones).features, torch.ones_like(x.features))
    # The sum is the adjoint of the sum pool: <pool(x), y> = <x, unpool(y)>.
    y = pooled.replace_feature(torch.randn_like(pooled.features))
    there = (pooled.features * y.features).sum()
    here = (x.features * hsp.SparseUnpool("down", "sum")(y).features).sum()
    torch.testing.assert_close(there, here)


@pytest.mark.parametrize("kind", ["Max", "Avg", "Sum"])
def test_pools_and_the_way_back_can_be_differentiated_twice(kind):
    x = tensor((5, 4), channels=2)
    features = x.features.requires_grad_()
    local, whole = (
        pool(kind, 2, kernel_size=3, stride=2, padding=1, indice_key="a"),
        getattr(hsp, f"SparseGlobal{kind}Pool"),
    )
    unpool = hsp.SparseUnpool("a", "sum" if kind == "Sum" else "mean")

    def net(features):
        given = x.replace_feature(features)
        pooled = local(given)
        return pooled.features, unpool(pooled).features, whole()(given)

    assert gradcheck(net, (features,))
    assert gradgradcheck(net, (features,))


def test_operators_pass_the_checks_of_torch():
    generator = torch.Generator().manual_seed(0)
    at = torch.randperm(5 * 7, generator=generator)[:12]
    targets, sources = (at // 7).int(), (at % 7).int()
    lists = RowLists.of_pairs(targets, sources, 5, 7, coefficients=True)
    features, left, factors = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((7, 3), (5, 3), (12,))
    )
    back = lists.back_starts, lists.back_columns
    _, argmax = rows.row_max(features, lists)
    for operator, arguments in (
        (rows._row_lists, (targets, sources, 5, 7, True)),
        (rows._row_sum, (features, factors, *lists.tensors())),
        (rows._row_sum, (features, None, *lists.tensors())),
        (rows._row_dot, (left, features, *lists.tensors())),
        (rows._row_max, (features, lists.starts, lists.columns, *back)),
        (rows._row_pick, (features, argmax, *back)),
        (rows._row_put, (left, argmax, *back)),
    ):
        torch.library.opcheck(operator, arguments)
    for function in (
        lambda features, factors: rows.row_sum(features, lists, factors),
        lambda features, factors: rows.row_dot(rows.row_sum(features, lists, factors), features, lists),
    ):
        assert gradcheck(function, (features, factors))
        assert gradgradcheck(function, (features, factors))


def network():
    return hsp.SparseSequential(
        hsp.SubMConv2d(2, 4, 3),
        hsp.SparseMaxPool2d(2, indice_key="down"),
        hsp.SparseAvgPool2d(3, subm=True),
        hsp.SparseUnpool("down"),
        hsp.SparseSumPool2d(2, padding=1),
        hsp.SparseGlobalAvgPool(),
        torch.nn.Linear(4, 3),
    )


def test_pools_within_a_net_compile_to_one_graph():
    net, x = network().double(), tensor((8, 9))

    def run(features, indices):
        return net(hsp.SparseTensor(features, indices, (8, 9), 3))

    expected = run(x.features, x.indices)
    made = torch.compile(run, fullgraph=True, backend="aot_eager")(x.features, x.indices)
    torch.testing.assert_close(made, expected)
    first = torch.autograd.grad(expected.square().sum(), list(net.parameters()))
    second = torch.autograd.grad(made.square().sum(), list(net.parameters()))
    torch.testing.assert_close(first, second)


def test_pools_within_a_net_are_exported():
    class OnSites(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, features, indices):
            return self.net(hsp.SparseTensor(features, indices, (8, 9), 3))

    module, x = OnSites(network().double()), tensor((8, 9))
    program = torch.export.export(module, (x.features, x.indices), strict=False)
    torch.testing.assert_close(program.module()(x.features, x.indices), module(x.features, x.indices))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_and_gradients_are_the_same_bits_for_any_number_of_threads(dtype):
    x = tensor((60, 50), occupancy=0.5, channels=5, dtype=dtype)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        features = x.features.clone().requires_grad_()
        given, outputs = x.replace_feature(features), []
        for kind in ("Max", "Avg", "Sum"):
            outputs.append(pool(kind, 2, kernel_size=3, stride=2)(given).features)
            outputs.append(getattr(hsp, f"SparseGlobal{kind}Pool")()(given))
        sum(out.float().square().sum() for out in outputs).backward()
        found.append([*outputs, features.grad])
    torch.set_num_threads(before)
    assert all(each.dtype == dtype for each in found[0])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize("sites", [[], [[1, 2, 3]]])
def test_batches_without_or_with_one_site_go_through_pools(sites):
    indices = torch.tensor(sites, dtype=torch.int32).reshape(-1, 3)
    features = torch.ones(len(sites), 2, requires_grad=True)
    x = hsp.SparseTensor(features, indices, (4, 4), 2)
    for kind in ("Max", "Avg", "Sum"):
        local, whole = pool(kind, 2, kernel_size=2)(x), getattr(hsp, f"SparseGlobal{kind}Pool")()(x)
        assert local.features.tolist() == [[1.0, 1.0]] * len(sites)
        assert whole.tolist() == [[0.0, 0.0], [float(len(sites))] * 2]
        (local.features.sum() + whole.sum()).backward()
    assert features.grad.tolist() == [[6.0, 6.0]] * len(sites)


def test_a_nan_stays_a_nan_in_its_window_alone():
    indices = torch.stack([torch.zeros(8), torch.arange(8)], 1).int()
    features = torch.arange(8.0)[:, None]
    features[5] = torch.nan
    x = hsp.SparseTensor(features, indices, (8,), 1)
    for kind in ("Max", "Avg", "Sum"):
        assert pool(kind, 1, kernel_size=2)(x).features.isnan().flatten().tolist() == [False, False, True, False]
        assert getattr(hsp, f"SparseGlobal{kind}Pool")()(x).isnan().all()


def test_a_pool_shares_the_kernel_map_of_its_key():
    x = tensor((8, 8))
    first = hsp.SparseMaxPool2d(2, indice_key="a")(x)
    second = hsp.SparseAvgPool2d(2, indice_key="a")(x)
    assert torch.equal(first.indices, second.indices)
    assert first.sites is hsp.SparseConv2d(2, 2, 2, 2)(x.float()).sites  # and that of a convolution without a key
    with pytest.raises(SpecError, match="'a' is taken by a layer with kernel"):
        hsp.SparseSequential(hsp.SparseMaxPool2d(2, indice_key="a"), hsp.SparseMaxPool2d(3, indice_key="a"))(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: hsp.SparseMaxPool2d(0), "kernel_size must be"),
        (lambda x: hsp.SparseMaxPool2d(2, subm=True), "odd"),
        (lambda x: hsp.SparseMaxPool2d(3, 2, subm=True), "stride 1"),
        (lambda x: hsp.SparseMaxPool3d(2)(x), "takes images of 3 axes"),
        (lambda x: hsp.SparseMaxPool2d(99)(x), "does not fit"),
        (lambda x: hsp.SparseMaxPool2d(2)(x.features), "takes a SparseTensor"),
        (lambda x: hsp.SparseGlobalMaxPool()(x.features), "takes a SparseTensor"),
        (lambda x: hsp.SparseMaxPool2d(2)(x.half()), "float32, float64 or bfloat16, not torch.float16"),
        (lambda x: hsp.SparseGlobalSumPool()(x.to(torch.int64)), "not torch.int64"),
        (lambda x: hsp.SparseUnpool("a")(x), "must be that of a layer before this one"),
        (lambda x: hsp.SparseUnpool(None), "indice_key must be"),
        (lambda x: hsp.SparseUnpool("a", "max"), "reduce must be 'mean' or 'sum', not 'max'"),
        (lambda x: hsp.SparseUnpool("a")(hsp.SparseMaxPool2d(3, subm=True, indice_key="a")(x)), "submanifold"),
        (lambda x: hsp.SparseGlobalMaxPool()(x.to("meta")), "features must be on the CPU, not on meta"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(SpecError, match=message):
        call(tensor((6, 6)))


def test_pools_say_their_arguments():
    assert repr(hsp.SparseMaxPool2d(2)) == "SparseMaxPool2d(kernel_size=(2, 2), stride=(2, 2))"
    shown = repr(hsp.SparseAvgPool1d(3, 2, 1, 2, indice_key="a"))
    assert shown == "SparseAvgPool1d(kernel_size=(3,), stride=(2,), padding=(1,), dilation=(2,), indice_key='a')"
    assert repr(hsp.SparseSumPool1d(3, subm=True)) == "SparseSumPool1d(kernel_size=(3,), stride=(1,), subm=True)"
    assert repr(hsp.SparseUnpool("a")) == "SparseUnpool(indice_key='a', reduce='mean')"


@pytest.mark.parametrize("kind", ["Max", "Avg", "Sum"])
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_a_pool_is_told_the_number_of_axes_or_has_it_in_its_name(kind, dims):
    x = tensor((5, 4, 5, 4)[:dims])
    general = getattr(hsp, f"Sparse{kind}Pool")(dims, 3, 2, padding=1, indice_key="down")
    made, expected = general(x), pool(kind, dims, kernel_size=3, stride=2, padding=1)(x)
    assert torch.equal(made.features, expected.features)
    assert torch.equal(made.indices, expected.indices)
    assert list(made.indice_dict) == ["down"]
    assert "kernel_size" in repr(general)


def test_pools_of_any_number_of_axes_check_it():
    with pytest.raises(SpecError, match="ndim must be 1, 2, 3 or 4, the number of axes of the images, not 5"):
        hsp.SparseMaxPool(5, 2)
    with pytest.raises(SpecError, match="images of 2 axes"):
        hsp.SparseAvgPool(2, 2)(tensor((4, 4, 4)))
