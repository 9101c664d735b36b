"""Sparse convolution given what it should not be given: right results or errors that say what was wrong."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as dense

import hepfeed.sparse as hsp
from hepfeed import _convolution, _rows, _sites
from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.reference import convolution as reference
from hepfeed.sparse.functional import convolve

EXTENSIONS = (_convolution, _rows, _sites)
SETS = ("baseline", "avx2", "avx512", "avx512_bf16", "amx")


@pytest.fixture
def instruction_set():
    """A function that restricts the kernels to an instruction set, for one test."""
    before = _convolution.isa()

    def choose(name):
        try:
            for extension in EXTENSIONS:
                extension.set_isa(name)
        except ValueError:
            pytest.skip(f"this processor has no {name}")

    yield choose
    for extension in EXTENSIONS:
        extension.set_isa(before)


# ---- any network is the dense one


class Images:
    """What a sparse tensor is, densely: features (B, C, ...), 0 where there is no site, and the mask (B, 1, ...)."""

    def __init__(self, features, mask):
        self.features, self.mask = features * mask, mask
        self.dims = mask.ndim - 2

    def convolved(self, weight, bias, options, submanifold=False):
        run = getattr(dense, f"conv{self.dims}d")
        features = run(self.features, weight.movedim(-1, 1), bias, **options)
        mask = self.mask if submanifold else reached(run, self.mask, weight.shape[1:-1], options)
        return Images(features, mask)

    def spread(self, weight, bias, options):
        run = getattr(dense, f"conv_transpose{self.dims}d")
        features = run(self.features, weight.movedim(-1, 0), bias, **options)
        return Images(features, reached(run, self.mask, weight.shape[1:-1], options))

    def brought_back(self, weight, bias, options, source):
        """The convolution of ``options`` walked backwards, to the images it came from."""
        adjoint = getattr(torch.nn.grad, f"conv{self.dims}d_input")
        size = (len(self.mask), weight.shape[0], *source.mask.shape[2:])
        features = adjoint(size, weight.movedim(-1, 0), self.features, **options)
        return Images(features + bias.view(-1, *[1] * self.dims), source.mask)

    def pooled(self, how, kernel, options):
        run, channels = getattr(dense, f"conv{self.dims}d"), self.features.shape[1]
        counts = run(self.mask, self.mask.new_ones(1, 1, *kernel), **options)
        if how == "max":
            lowest = self.features.masked_fill(self.mask == 0, -torch.inf)
            around = [n for n in reversed(options["padding"]) for _ in range(2)]
            window = {"stride": options["stride"], "dilation": options["dilation"]}
            padded = dense.pad(lowest, around, value=-torch.inf)
            largest = getattr(dense, f"max_pool{self.dims}d")(padded, kernel, **window)
            return Images(largest.masked_fill(counts == 0, 0), (counts > 0).to(counts))
        sums = run(self.features, self.features.new_ones(channels, 1, *kernel), **options, groups=channels)
        return Images(sums / counts.clamp(min=1) if how == "mean" else sums, (counts > 0).to(counts))


def reached(run, mask, kernel, options):
    return (run(mask, mask.new_ones(1, 1, *kernel), **options) > 0.5).to(mask)


def parameter(rng, *shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()


@st.composite
def geometries(draw):
    """Dimensions, shape of the images, events, share of active cells, order of the rows and layers."""
    dims = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, (12, 7, 5)[dims - 1])) for _ in range(dims))
    kinds = st.sampled_from(["submanifold", "convolution", "transposed", "there and back", "max", "mean", "sum"])
    layers = []
    for kind in draw(st.lists(kinds, min_size=1, max_size=3)):
        options = {
            name: tuple(draw(st.integers(least, most)) for _ in range(dims))
            for name, least, most in (("kernel", 1, 4), ("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2))
        }
        layers.append((kind, options, draw(st.integers(1, 3))))
    return shape, draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), draw(st.booleans()), layers


def layer_of(kind, sparse, images, options, channels, rng, key):
    """One layer on both sides, and its parameters; None where the output would have no cell."""
    dims, ins = images.dims, images.features.shape[1]
    kernel, sizes = options["kernel"], {name: options[name] for name in ("stride", "padding", "dilation")}
    if kind == "submanifold":
        kernel = tuple(size | 1 for size in kernel)
        centred = {"dilation": sizes["dilation"]}
        centred["padding"] = tuple(d * (k // 2) for d, k in zip(sizes["dilation"], kernel))
        layer = getattr(hsp, f"SubMConv{dims}d")(ins, channels, kernel, dilation=sizes["dilation"]).double()
        weight, bias = fill(layer, rng)
        return layer(sparse), images.convolved(weight, bias, centred, submanifold=True), [weight, bias]
    if kind in ("max", "mean", "sum"):
        if not fits(images, kernel, sizes):
            return None
        name = {"max": "Max", "mean": "Avg", "sum": "Sum"}[kind]
        layer = getattr(hsp, f"Sparse{name}Pool{dims}d")(kernel, **sizes)
        return layer(sparse), images.pooled(kind, kernel, sizes), []
    if not fits(images, kernel, sizes, transposed=kind == "transposed"):
        return None
    name = "SparseConvTranspose" if kind == "transposed" else "SparseConv"
    layer = getattr(hsp, f"{name}{dims}d")(ins, channels, kernel, **sizes, indice_key=key).double()
    weight, bias = fill(layer, rng)
    if kind == "transposed":
        return layer(sparse), images.spread(weight, bias, sizes), [weight, bias]
    made, twin = layer(sparse), images.convolved(weight, bias, sizes)
    if kind == "convolution" or made.sites is sparse.sites:  # one tap that moves nothing leaves no way to go back
        return made, twin, [weight, bias]
    back = getattr(hsp, f"SparseInverseConv{dims}d")(channels, ins, kernel, key).double()
    back_weight, back_bias = fill(back, rng)
    twin = twin.brought_back(back_weight, back_bias, sizes, images)
    return back(made), twin, [weight, bias, back_weight, back_bias]


def fill(layer, rng):
    with torch.no_grad():
        layer.weight.copy_(parameter(rng, *layer.weight.shape))
        layer.bias.copy_(parameter(rng, *layer.bias.shape))
    return layer.weight, layer.bias


def fits(images, kernel, sizes, transposed=False):
    """Whether all axes of the output have a cell."""
    for n, k, s, p, d in zip(images.mask.shape[2:], kernel, *sizes.values()):
        if (n - 1) * s - 2 * p + d * (k - 1) < 0 if transposed else n + 2 * p < d * (k - 1) + 1:
            return False
    return True


@settings(max_examples=30, deadline=None)
@given(geometries(), st.integers(0, 2**16))
def test_any_stack_of_layers_and_its_gradients_are_those_of_dense_images(geometry, seed):
    shape, events, share, shuffled, layers = geometry
    rng = torch.Generator().manual_seed(seed)
    indices = torch.nonzero(torch.rand(events, *shape, generator=rng) < share).int()
    if shuffled:
        indices = indices[torch.randperm(len(indices), generator=rng)]
    features = parameter(rng, len(indices), 2)
    sparse = hsp.SparseTensor(features, indices, shape, events)
    images = Images(
        sparse.dense(), hsp.SparseTensor(torch.ones(len(indices), 1).double(), indices, shape, events).dense()
    )
    parameters = [features]
    for place, (kind, options, channels) in enumerate(layers):
        made = layer_of(kind, sparse, images, options, channels, rng, str(place))
        if made is None or made[0].spatial_size > 4000:
            continue
        sparse, images, more = made
        sparse, images = sparse.replace_feature(sparse.features.tanh()), Images(images.features.tanh(), images.mask)
        parameters += more
    made = sparse.dense()
    torch.testing.assert_close(made, images.features, rtol=1e-10, atol=1e-10)
    assert len(sparse) == int(images.mask.sum())
    wanted = torch.randn(made.shape, generator=rng, dtype=torch.float64)
    grads, twins = (
        torch.autograd.grad((side * wanted).sum(), parameters, allow_unused=True) for side in (made, images.features)
    )
    for grad, twin in zip(grads, twins):
        torch.testing.assert_close(grad, twin, rtol=1e-9, atol=1e-9)


# ---- sites that are none, few, or at the ends of what can be numbered

MODULES = {
    "submanifold": lambda: hsp.SubMConv3d(3, 4, 3),
    "strided": lambda: hsp.SparseConv3d(3, 4, 2, 2),
    "transposed": lambda: hsp.SparseConvTranspose3d(3, 4, 3, 2),
    "there and back": lambda: hsp.SparseSequential(
        hsp.SparseConv3d(3, 4, 2, 2, indice_key="way"), hsp.SparseInverseConv3d(4, 4, 2, "way")
    ),
    "max pool": lambda: hsp.SparseMaxPool3d(2),
    "mean pool": lambda: hsp.SparseAvgPool3d(3, 1, subm=True),
    "unpool": lambda: hsp.SparseSequential(hsp.SparseMaxPool3d(2, indice_key="way"), hsp.SparseUnpool("way")),
    "global max pool": hsp.SparseGlobalMaxPool,
    "global mean pool": hsp.SparseGlobalAvgPool,
    "batch norm": lambda: hsp.SparseBatchNorm(3),
    "instance norm": lambda: hsp.SparseInstanceNorm(3, affine=True),
    "group norm": lambda: hsp.SparseGroupNorm(3, 3),
    "linear": lambda: hsp.SparseLinear(3, 4),
    "dense": hsp.ToDense,
    "residual block": lambda: hsp.ResBlock(3, 4),
    "unet": lambda: hsp.SparseUNet(3, 2, width=4, depth=2, blocks=1),
    "resnet": lambda: hsp.SparseResNet(3, 2, width=4, depth=(1, 1)),
}
ON_CHANNELS = [name for name in MODULES if "pool" not in name and name != "dense"]


def tensor(rows, events=2, shape=(4, 4, 4), channels=3, dtype=torch.float64):
    indices = torch.tensor(rows, dtype=torch.int32).reshape(-1, 1 + len(shape))
    features = torch.arange(len(indices) * channels, dtype=torch.float64).reshape(-1, channels).sin()
    return hsp.SparseTensor(features.to(dtype).requires_grad_(), indices, shape, events)


FEW = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 2, 2], [1, 0, 0, 0], [1, 3, 3, 3]]


def numbers_of(made):
    return made.features if isinstance(made, hsp.SparseTensor) else made


@pytest.mark.parametrize(
    ("rows", "events"),
    [([], 0), ([], 2), (FEW[:1], 1), (FEW[:3], 4), ([[2, 3, 0, 1]], 4)],
    ids=["no event", "events without sites", "one site", "last events without sites", "one site among empty events"],
)
@pytest.mark.parametrize("name", MODULES)
def test_every_module_takes_no_site_and_one_site_forward_and_backward(name, rows, events):
    torch.manual_seed(0)
    module, x = MODULES[name]().double(), tensor(rows, events)
    made = numbers_of(module(x))
    made.square().sum().backward()
    assert made.isfinite().all()
    assert x.features.grad is None or (x.features.grad.shape == x.features.shape and x.features.grad.isfinite().all())
    assert all(each.grad is None or each.grad.isfinite().all() for each in module.parameters())


def test_an_event_without_a_site_changes_nothing_for_the_others():
    torch.manual_seed(0)
    net = hsp.SparseUNet(3, 2, width=4, depth=2, blocks=1).double()
    gaps = [[2 * event + 1, *site] for event, *site in FEW]
    assert torch.equal(net(tensor(gaps, 5)), net(tensor(FEW)))


@pytest.mark.parametrize("name", ["submanifold", "strided", "transposed", "there and back"])
@pytest.mark.parametrize("shape", [(2**20, 2**19, 2**18), (2**31 - 8, 4, 4), (4, 4, 2**31 - 8), (2**30, 4, 2**20)])
def test_sites_in_the_last_corner_of_the_largest_images_are_as_those_of_small_ones(name, shape):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    if name == "transposed":
        shape = tuple(max(4, n // 4 * 2) for n in shape)  # twice as large behind it
    corner = [n - 4 for n in shape]
    far = [[event, *(c + x for c, x in zip(corner, site))] for event, *site in FEW]
    small, large = module(tensor(FEW)), module(tensor(far, shape=shape))
    scale = {"strided": 0.5, "transposed": 2}.get(name, 1)
    moved = torch.tensor([0, *(int(c * scale) for c in corner)])
    assert torch.equal(large.indices, small.indices + moved)
    assert torch.equal(large.features, small.features)


@pytest.mark.parametrize(
    ("shape", "events", "message"),
    [
        ((2**31 - 1, 2**31 - 1, 1), 2, r"up to 2\^62 places, and 2 grids of \(2147483647, 2147483647, 1\)"),
        ((2**31 - 1, 2**31 - 1, 2), 1, r"up to 2\^62 places"),
        ((2**31, 4, 4), 1, r"1 to 2\^31 - 1 cells each, not \(2147483648, 4, 4\)"),
        ((4, 4, 4), 2**31, r"batch_size must be 0 to 2\^31 - 1, not 2147483648"),
    ],
)
def test_more_places_than_can_be_numbered_are_an_error_and_never_an_overflow(shape, events, message):
    with pytest.raises(SpecError, match=message):
        tensor(FEW[:3], events, shape)


def test_images_may_fit_where_a_kernel_with_its_margin_does_not():
    shape = (2**21, 2**21, 2**20)
    with pytest.raises(SpecError, match=r"up to 2\^62 places, and 1 grids of \(2097153, 2097153, 1048577\)"):
        MODULES["submanifold"]().double()(tensor(FEW[:3], 1, shape))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 0], [2, 0, 0, 0]], r"site \[2, 0, 0, 0\] .* in row 1 is outside of 2 images of \(4, 4, 4\)"),
        ([[0, 0, 0, 4]], r"site \[0, 0, 0, 4\] .* in row 0 is outside"),
        ([[-(2**31), 0, 0, 0]], "in row 0 is outside"),
        ([[0, 2**31 - 1, -(2**31), 2**31 - 1]], "in row 0 is outside"),
        ([[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]], r"rows 0 and 2 are both \[0, 1, 1, 1\]"),
    ],
)
def test_sites_outside_and_double_sites_are_named_with_their_rows(rows, message):
    with pytest.raises(ProcessError, match=message):
        tensor(rows)
    with pytest.raises(ProcessError, match=message):
        build_kernel_map(np.array(rows, np.int32), (4, 4, 4), 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 5}, r"kernel of \(5, 5, 5\) .* does not fit the shape \(4, 4, 4\)"),
        ({"kernel_size": 2, "dilation": 2**31 - 1}, "does not fit the shape"),
        ({"kernel_size": 2, "stride": 2**31}, r"strides, paddings and dilations go up to 2\^31 - 1"),
        ({"kernel_size": 1025}, r"kernels have up to 1024 taps an axis .*\(1025, 1025, 1025\)"),
        ({"kernel_size": 2, "padding": 2**30 - 3}, r"up to 2\^62 places"),
        ({"kernel_size": 2, "padding": 2**30 - 1}, r"up to 2\^31 - 1 cells an axis, .* \(2147483649, "),
        ({"kernel_size": 3.0}, "kernel_size must be an integer of 1 or more, .* not 3.0"),
        ({"kernel_size": "333"}, "kernel_size must be an integer"),
        ({"kernel_size": (3, 3)}, r"one for each of 3 axes, not \(3, 3\)"),
        ({"kernel_size": 2, "stride": True}, "stride must be an integer .* not True"),
    ],
)
def test_kernels_that_fit_no_image_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        hsp.SparseConv3d(3, 4, **options)(tensor(FEW, dtype=torch.float32))


@pytest.mark.parametrize("kernel", [5, (1, 1, 1023), (9, 1, 3)])
def test_submanifold_kernels_may_be_larger_than_the_images(kernel):
    torch.manual_seed(0)
    layer = hsp.SubMConv3d(3, 4, kernel).double()
    x = tensor(FEW)
    padding = tuple(n // 2 for n in layer.kernel_size)
    images = dense.conv3d(x.dense(), layer.weight.movedim(-1, 1), layer.bias, padding=padding)
    made = images.movedim(1, -1)[tuple(x.indices.long().T)]
    torch.testing.assert_close(layer(x).features, made, rtol=1e-12, atol=1e-12)


def test_strides_may_be_larger_than_the_images():
    layer = hsp.SparseConv3d(3, 4, 2, 2**31 - 1).double()
    made = layer(tensor(FEW))
    assert made.spatial_shape == (1, 1, 1)
    assert torch.equal(made.indices, torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.int32))


# ---- tensors that do not fit


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to("meta"), "must be on the CPU, not on meta"),
        (lambda x: x.replace_feature(x.features.to("meta")), "must be on the CPU, not on meta"),
    ],
    ids=["all elsewhere", "features elsewhere"],
)
def test_every_module_refuses_other_devices(name, change, message):
    with pytest.raises(SpecError, match=message):
        MODULES[name]()(change(tensor(FEW, dtype=torch.float32)))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "batch norm"])
@pytest.mark.parametrize("given_to", [torch.ones(5, 3), None], ids=["features", "nothing"])
def test_every_module_refuses_what_is_no_sparse_tensor(name, given_to):
    module = MODULES[name]()
    kind = "a NoneType" if given_to is None else r"a tensor \(5, 3\)"
    with pytest.raises(SpecError, match=f"takes a SparseTensor, not {kind}"):
        (module[0] if isinstance(module, hsp.SparseSequential) else module)(given_to)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "dense"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool, torch.complex64])
def test_every_module_refuses_dtypes_that_have_no_kernels(name, dtype):
    x = tensor(FEW, dtype=torch.float32).detach()
    hint = "; on the CPU use bfloat16" if dtype == torch.float16 else ""
    with pytest.raises(SpecError, match=f"features must be float32, float64 or bfloat16, not {dtype}{hint}$"):
        MODULES[name]()(x.replace_feature(x.features.to(dtype)))


@pytest.mark.parametrize("name", ON_CHANNELS)
def test_every_module_with_channels_refuses_others(name):
    with pytest.raises(SpecError, match=r"3\b.*, not (\(5, )?2"):
        MODULES[name]()(tensor(FEW, channels=2, dtype=torch.float32))


@pytest.mark.parametrize("name", ["submanifold", "strided", "transposed", "there and back", "linear", "unet"])
def test_every_convolution_refuses_features_of_another_dtype_than_its_weight(name):
    with pytest.raises(SpecError, match=r"weight must be torch.float64, as features is, not torch.float32"):
        MODULES[name]()(tensor(FEW))


def test_rows_and_biases_of_other_sites_and_devices_are_refused():
    x = tensor(FEW)
    ones = (1, 1, 1)
    link = x.sites.link((3, 3, 3), ones, ones, ones, submanifold=True)
    weight = torch.ones(4, 3, 3, 3, 3, dtype=torch.float64)
    for rows in (4, 6):
        with pytest.raises(SpecError, match=f"features must have one row for each of 5 sites, not {rows}"):
            convolve(torch.ones(rows, 3, dtype=torch.float64), weight, None, link)
    with pytest.raises(SpecError, match="bias must be on the CPU, not on meta"):
        convolve(x.features, weight, torch.ones(4, dtype=torch.float64, device="meta"), link)
    with pytest.raises(SpecError, match=r"features must be a tensor \(N, C\), not \(5,\)"):
        convolve(x.features[:, 0], weight, None, link)
    for change in (torch.Tensor.half, torch.Tensor.long):
        with pytest.raises(HepfeedError):
            hsp.add(x, x.replace_feature(change(x.features)))
    with pytest.raises(SpecError, match="sparse tensors were expected, not a Tensor"):
        hsp.add(x, x.features)
    with pytest.raises(SpecError, match=r"mask must be \(N,\) bool, not list"):
        hsp.prune(x, [True] * 5)
    with pytest.raises(SpecError, match=r"SparseBatchNorm takes features \(N, 3\), not NoneType"):
        hsp.SparseBatchNorm(3)(None)
    with pytest.raises(SpecError, match=r"dense must have a batch, .*, not ndarray"):
        hsp.SparseTensor.from_dense(np.ones((1, 1, 4)))


def test_features_in_any_layout_of_memory_give_the_same_bits():
    torch.manual_seed(0)
    net = hsp.SparseUNet(3, 2, width=4, depth=2, blocks=1)
    plain = tensor(FEW, dtype=torch.float32).features.detach()
    expected = net(tensor(FEW, dtype=torch.float32))
    unaligned = torch.frombuffer(bytearray(4 * plain.numel() + 1), dtype=torch.float32, offset=1).reshape(plain.shape)
    unaligned.copy_(plain)
    wide = torch.full((5, 7), torch.nan)
    wide[:, 2:5] = plain
    conjugate = torch.complex(torch.zeros_like(plain), -plain).conj().imag  # a view that is negated when it is read
    indices = torch.tensor(FEW, dtype=torch.int32)
    for features in (plain.T.contiguous().T, unaligned, wide[:, 2:5], conjugate):
        for places in (indices, indices.T.contiguous().T, torch.cat([indices, indices], 1)[:, :4]):
            made = net(hsp.SparseTensor(features, places, (4, 4, 4), 2))
            assert torch.equal(made, expected)
    expanded = hsp.SparseTensor(plain[:1, :1].expand(5, 3), indices, (4, 4, 4), 2)
    assert torch.equal(net(expanded), net(expanded.replace_feature(plain[:1, :1].repeat(5, 3))))


def test_indices_in_any_layout_of_memory_give_the_same_map():
    indices = np.array(FEW, np.int32)
    unaligned = np.frombuffer(bytearray(indices.nbytes + 1), np.uint8)[1:].view(np.int32).reshape(indices.shape)
    unaligned[:] = indices
    same = [
        indices[::-1][::-1],
        np.asfortranarray(indices),
        unaligned,
        indices.astype(">i4"),
        indices.astype(np.uint64),
    ]
    expected = build_kernel_map(indices, (4, 4, 4), 2, 3, submanifold=True)
    for each in same:
        made = build_kernel_map(each, (4, 4, 4), 2, 3, submanifold=True)
        for name in ("in_maps", "out_maps", "offsets", "back_in", "back_out"):
            assert np.array_equal(getattr(made, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("of_features", "of_weight", "of_bias"), list(itertools.product([False, True], repeat=3)), ids=str
)
@pytest.mark.parametrize("name", ["submanifold", "strided", "transposed", "linear"])
def test_every_choice_of_gradients_gives_those_and_no_others(name, of_features, of_weight, of_bias):
    torch.manual_seed(0)
    layer, x = MODULES[name]().double(), tensor(FEW)
    parts = [x.features, layer.weight, layer.bias]
    expected = torch.autograd.grad(layer(x).features.sin().sum(), parts)
    for part, wanted in zip(parts, (of_features, of_weight, of_bias)):
        part.requires_grad_(wanted)
    made = layer(x).features.sin().sum()
    assert made.requires_grad == (of_features or of_weight or of_bias)
    if made.requires_grad:
        made.backward()
    for part, wanted, grad in zip(parts, (of_features, of_weight, of_bias), expected):
        assert (part.grad is not None) == wanted
        assert not wanted or torch.equal(part.grad, grad)


def test_not_a_number_and_infinity_stay_in_their_events():
    torch.manual_seed(0)
    for name in ("submanifold", "strided", "transposed", "there and back", "max pool", "mean pool", "unpool"):
        module, x = MODULES[name]().double(), tensor(FEW).detach()
        expected = module(x)
        for value in (torch.nan, torch.inf):
            features = x.features.clone()
            features[3] = value
            made = module(x.replace_feature(features))
            of_event = made.indices[:, 0] == 1
            assert torch.equal(made.features[~of_event], expected.features[~of_event])
            assert not made.features[of_event].isfinite().all()


# ---- lists of pairs that no kernel map has


def numbers(rng, *shape, kind=np.float32):
    values = rng.integers(-3, 4, shape).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if kind is np.uint16 else values.astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("isa", SETS)
def test_output_rows_that_fall_once_anywhere_are_never_taken_for_rising_ones(isa, kind, instruction_set):
    instruction_set(isa)
    rng = np.random.default_rng(0)
    rows = 4500
    features, weight, out = (
        numbers(rng, rows, 1, kind=kind),
        numbers(rng, 1, 1, 1, kind=kind),
        np.empty((rows, 1), kind),
    )
    for place in [*range(127, rows - 1, 128), *rng.integers(0, rows - 1, 40)]:
        out_maps = np.arange(rows, dtype=np.int32)
        out_maps[[place, place + 1]] = out_maps[[place + 1, place]]
        in_maps = rng.integers(0, rows, rows).astype(np.int32)
        with pytest.raises(ValueError, match=f"pair {place + 1} of tap 0 has rows .*, {place}\\)"):
            _convolution.forward(features, weight, None, in_maps, out_maps, np.array([0, rows]), out, 1, 1)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_operators_give_the_sum_over_any_lists_that_they_take(data):
    """Right for what they take, and an error for the rest."""
    in_rows, out_rows, taps = (data.draw(st.integers(0, most)) for most in (5, 5, 3))
    sizes = [data.draw(st.integers(0, min(in_rows, out_rows))) for _ in range(taps)]
    in_maps = [sorted(data.draw(st.permutations(range(in_rows)))[:size]) for size in sizes]
    out_maps = [sorted(data.draw(st.permutations(range(out_rows)))[:size]) for size in sizes]
    lists = [
        np.array([row for rows in in_maps for row in rows], np.int32),
        np.array([row for rows in out_maps for row in rows], np.int32),
        np.cumsum([0, *sizes]),
    ]
    spoilt = data.draw(st.sampled_from([None, 0, 1, 2]))
    if spoilt is not None and len(lists[spoilt]):
        bad = data.draw(st.sampled_from([-(2**31), -1, 0, 1, 2, 5, 2**31 - 1]))
        lists[spoilt][data.draw(st.integers(0, len(lists[spoilt]) - 1))] = bad
    rng = np.random.default_rng(0)
    x, w, g = (rng.integers(-3, 4, shape).astype(float) for shape in ((in_rows, 2), (3, taps, 2), (out_rows, 3)))
    maps = [*map(torch.from_numpy, lists), torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int32)]
    run, twins = torch.ops.hepfeed, [np.asarray(each) for each in lists]
    calls = [
        (
            lambda: run.sparse_conv(*map(torch.from_numpy, (x, w)), None, *maps, out_rows, 1, False),
            lambda: reference.forward(x, w, None, *twins, out_rows),
        ),
        (
            lambda: run.sparse_conv_input_grad(*map(torch.from_numpy, (g, w)), *maps, in_rows, 1, False),
            lambda: reference.input_grad(g, w, *twins, in_rows),
        ),
        (
            lambda: run.sparse_conv_weight_grad(*map(torch.from_numpy, (x, g)), *maps, 1, False),
            lambda: reference.weight_grad(x, g, *twins),
        ),
    ]
    for operator, twin in calls:
        message = None
        try:
            made = operator()
        except ValueError as error:
            message = str(error)
        if message is None:
            assert np.array_equal(made.numpy(), twin())
        else:
            assert spoilt is not None
            assert "pair" in message or "offsets" in message


@pytest.mark.parametrize("isa", SETS)
def test_no_channels_and_more_groups_than_can_be_are_errors(isa, instruction_set):
    instruction_set(isa)
    rows, offsets = np.arange(3, dtype=np.int32), np.array([0, 3])

    def run(name, ins, outs, groups, per_group):
        x, g, w = (np.zeros(shape, np.float32) for shape in ((3, ins), (3, outs), (outs, 1, per_group)))
        first, second, third = {"forward": (x, w, g), "input_grad": (g, w, x), "weight_grad": (x, g, w)}[name]
        bias = (None,) if name == "forward" else ()
        getattr(_convolution, name)(first, second, *bias, rows, rows, offsets, third, groups, 1)

    for name in ("forward", "input_grad", "weight_grad"):
        run(name, 4, 4, 2, 2)
        for ins, outs, groups, per_group in ((4, 0, 1, 4), (0, 4, 1, 0), (0, 0, 1, 0), (0, 0, 2**62, 2), (4, 4, 0, 4)):
            with pytest.raises(ValueError, match=r"channel|groups"):
                run(name, ins, outs, groups, per_group)


def test_images_of_other_sites_are_refused():
    x = tensor(FEW)
    with pytest.raises(ValueError, match="features must have one row for each of 5 sites, not 1"):
        torch.ops.hepfeed.densify(x.features[:1], x.indices, [4, 4, 4], 2, True)
    for moved, message in ((-1, "negative|outside|must be"), (2, "out of bounds|outside|must be")):
        with pytest.raises((IndexError, ValueError), match=message):
            torch.ops.hepfeed.densify(x.features, x.indices + moved, [4, 4, 4], 2, True)
        with pytest.raises((IndexError, ValueError), match=message):
            torch.ops.hepfeed.take_sites(x.dense(), x.indices + moved, True)


# ---- the same bits


@pytest.fixture
def threads():
    """Sets the number of threads of torch, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scattered(dtype, share=0.15, size=20):
    rng = torch.Generator().manual_seed(1)
    indices = torch.nonzero(torch.rand(2, size, size, size, generator=rng) < share).int()
    return torch.randn(len(indices), 2, generator=rng).to(dtype), indices, rng


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_training_step_of_a_network_gives_the_same_bits_for_any_number_of_threads(dtype, threads):
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    features, indices, _ = scattered(kind)
    passes = []
    for number in (1, 2, 3):
        threads(number)
        torch.manual_seed(0)
        net = hsp.SparseUNet(2, 3, width=8, depth=3, blocks=1).to(kind)
        x = hsp.SparseTensor(features.clone().requires_grad_(), indices, (20, 20, 20), 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = net(x)
        logits.float().square().sum().backward()
        passes.append([logits, x.features.grad, *(each.grad for each in net.parameters()), *net.buffers()])
    assert passes[0][0].dtype == dtype
    for made in passes[1:]:
        assert all(map(torch.equal, made, passes[0]))


@pytest.mark.parametrize(("share", "size"), [(0.15, 20), (1.0, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_order_of_rows_changes_no_bit_of_the_outputs_and_input_gradients_of_convolutions(dtype, share, size):
    torch.manual_seed(0)
    features, indices, rng = scattered(dtype, share, size)
    net = hsp.SparseSequential(
        hsp.SubMConv3d(2, 7, 3),
        hsp.SparseConv3d(7, 9, 3, 2, 1, indice_key="way"),
        hsp.SubMConv3d(9, 9, 3),
        hsp.SparseInverseConv3d(9, 5, 3, "way"),
    ).to(dtype)
    order = torch.randperm(len(indices), generator=rng)
    wanted = torch.randn(len(indices), 5, generator=rng).to(dtype)
    results = []
    for rows in (torch.arange(len(indices)), order):
        x = hsp.SparseTensor(features[rows].requires_grad_(), indices[rows], (size,) * 3, 2)
        made = net(x).features
        made.backward(wanted[rows])
        results.append((made, x.features.grad))
    for given_order, shuffled in zip(*results):
        assert torch.equal(given_order[order], shuffled)
