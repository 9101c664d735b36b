"""Networks against twins that are made of torch's dense convolutions on the same weights, and their kernel maps."""

import copy
import functools
import pickle

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hepfeed as hf
import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.sparse import convert, maps
from hepfeed.tensors import Sparse
from hepfeed.transforms import KernelMaps

SHAPE = (8, 4, 8)
DENSE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DENSE_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


MODELS = {
    "unet": functools.partial(hsp.SparseUNet, 1, 3, width=2, depth=3),
    "resnet": functools.partial(hsp.SparseResNet, 1, 3, depth=(1, 2, 1), width=2),
}


def some_sites(seed=0, shape=SHAPE, events=2, occupancy=0.2):
    random = np.random.default_rng(seed)
    return np.argwhere(random.random((events, *shape)) < occupancy).astype(np.int32)


def some_tensor(channels=2, seed=0, shape=SHAPE, events=2, occupancy=0.2, dtype=torch.float64):
    indices = torch.from_numpy(some_sites(seed, shape, events, occupancy))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(indices), channels, dtype=dtype, generator=generator)
    return hsp.SparseTensor(features, indices, shape, events)


class Grid:
    """Sites of one level, and dense convolutions that are looked at there."""

    def __init__(self, mask):
        self.mask, self.dims = mask, mask.ndim - 1
        self.sites = mask.nonzero().unbind(1)

    def dense(self, rows):
        image = rows.new_zeros(*self.mask.shape, rows.shape[1])
        image[self.sites] = rows
        return image.movedim(-1, 1)

    def rows(self, image):
        return image.movedim(1, -1)[self.sites]

    def same(self, rows, weight):
        padding = [size // 2 for size in weight.shape[1:-1]]
        return self.rows(DENSE[self.dims](self.dense(rows), weight.movedim(-1, 1), padding=padding))

    def coarser(self):
        pooled = MAX_POOL[self.dims](self.mask[:, None].double(), 2)
        return Grid(pooled[:, 0] > 0)

    def down(self, rows, weight, coarse):
        return coarse.rows(DENSE[self.dims](self.dense(rows), weight.movedim(-1, 1), stride=2))

    def up(self, rows, weight, coarse):
        image = DENSE_TRANSPOSED[self.dims](coarse.dense(rows), weight.movedim(-1, 0), stride=2)
        missing = [(0, n - m) for n, m in zip(self.mask.shape[1:], image.shape[2:], strict=True)]
        return self.rows(F.pad(image, [n for pair in reversed(missing) for n in pair]))


def normed(rows, norm, relu=True):
    """Normalise by the statistics of the batch."""
    made = F.batch_norm(rows, None, None, norm.weight, norm.bias, training=True)
    return F.relu(made) if relu else made


def block_twin(grid, rows, block):
    first, second = block.first, block.second
    around = rows
    if block.preactivation:
        made = grid.same(normed(rows, first.norm), first.conv.weight)
        made = grid.same(normed(made, second.norm), second.conv.weight)
        if len(block.shortcut):
            around = grid.same(rows, block.shortcut.conv.weight)
        return made + around
    made = normed(grid.same(rows, first.conv.weight), first.norm)
    made = normed(grid.same(made, second.conv.weight), second.norm, relu=False)
    if len(block.shortcut):
        around = normed(grid.same(rows, block.shortcut.conv.weight), block.shortcut.norm, relu=False)
    return F.relu(made + around)


def level_twin(grid, rows, level):
    for block in level.encoder:
        rows = block_twin(grid, rows, block)
    if level.bottom:
        return rows
    coarse = grid.coarser()
    below = grid.down(normed(rows, level.down.norm), level.down.conv.weight, coarse)
    below = level_twin(coarse, below, level.inner)
    risen = grid.up(normed(below, level.up.norm), level.up.conv.weight, coarse)
    rows = torch.cat([rows, risen], 1)
    for block in level.decoder:
        rows = block_twin(grid, rows, block)
    return rows


def grid_of(x):
    mask = torch.zeros(x.batch_size, *x.spatial_shape, dtype=torch.bool)
    mask[x.indices.long().unbind(1)] = True
    return Grid(mask)


def gradients(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def assert_close_with_gradients(module, made, expected):
    """The results, and the gradients of all parameters."""
    assert made.shape == expected.shape
    assert torch.allclose(made, expected, atol=1e-10)
    push = torch.randn(made.shape, dtype=made.dtype, generator=torch.Generator().manual_seed(1))
    module.zero_grad()
    (made * push).sum().backward()
    found = gradients(module)
    module.zero_grad()
    (expected * push).sum().backward()
    for name, expected_gradient in gradients(module).items():
        assert torch.allclose(found[name], expected_gradient, atol=1e-9), name


@pytest.mark.parametrize("preactivation", [True, False])
@pytest.mark.parametrize("channels", [(3, 3), (2, 4)])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_residual_block_is_the_one_of_dense_convolutions(dims, channels, preactivation):
    x = some_tensor(channels[0], shape=SHAPE[:dims], events=3, occupancy=0.4)
    block = hsp.ResBlock(*channels, dims=dims, preactivation=preactivation).double()
    made = block(x)
    assert made.sites is x.sites
    assert_close_with_gradients(block, made.features, block_twin(grid_of(x), x.features, block))


def test_a_residual_block_of_four_axes_is_one_of_three_where_the_last_axis_has_one_cell():
    x = some_tensor(2)
    flat = hsp.ResBlock(2, 3, dims=3).double()
    block = hsp.ResBlock(2, 3, dims=4).double()
    with torch.no_grad():
        for name, parameter in flat.named_parameters():
            wide = block.get_parameter(name)
            if parameter.ndim == 5:
                parameter.copy_(wide[..., wide.shape[4] // 2, :])
    indices = F.pad(x.indices, (0, 1))
    deep = hsp.SparseTensor(x.features, indices, (*SHAPE, 1), 2)
    assert torch.allclose(block(deep).features, flat(x).features, atol=1e-12)


@pytest.mark.parametrize("shape", [(8,), (8, 4), (9, 7), (8, 4, 8)])
def test_a_unet_is_the_one_of_dense_convolutions(shape):
    x = some_tensor(2, shape=shape, events=3, occupancy=0.4)
    model = hsp.SparseUNet(2, 3, dims=len(shape), width=3, depth=3).double()
    grid = grid_of(x)
    rows = level_twin(grid, grid.same(x.features, model.stem.weight), model.levels)
    expected = F.linear(normed(rows, model.norm.norm), model.head.weight, model.head.bias)
    assert_close_with_gradients(model, model(x), expected)


@pytest.mark.parametrize("pool", ["mean", "max", "sum"])
def test_a_resnet_is_the_one_of_dense_convolutions(pool):
    x = some_tensor(1, events=3)
    model = hsp.SparseResNet(1, 4, depth=(1, 2), width=3, pool=pool).double()
    grid = grid_of(x)
    coarse = grid.coarser()
    fine, (down, *blocks) = model.stages[0], model.stages[1]
    rows = block_twin(grid, grid.same(x.features, model.stem.weight), fine[0])
    rows = grid.down(normed(rows, down.norm), down.conv.weight, coarse)
    for block in blocks:
        rows = block_twin(coarse, rows, block)
    rows = normed(rows, model.norm.norm)
    pools = {"mean": lambda r: r.mean(0), "max": lambda r: r.amax(0), "sum": lambda r: r.sum(0)}
    pooled = torch.stack([pools[pool](rows[coarse.sites[0] == event]) for event in range(3)])
    assert_close_with_gradients(model, model(x), F.linear(pooled, model.head.weight, model.head.bias))


def test_logits_come_in_the_order_of_the_rows():
    x = some_tensor(1)
    model = hsp.SparseUNet(1, 3, width=4, depth=3).double()
    order = torch.randperm(len(x))
    shuffled = hsp.SparseTensor(x.features[order], x.indices[order], SHAPE, 2)
    assert torch.allclose(model(shuffled), model(x)[order], atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_features_and_gradients_are_the_same_bits_for_any_number_of_threads(name, threads):
    x = some_tensor(1, shape=(32, 32, 32), dtype=torch.float32, occupancy=0.05)
    model = MODELS[name]()
    rows = isinstance(model, hsp.SparseUNet)

    def run(number):
        torch.set_num_threads(number)
        model.zero_grad()
        made = model(x) if rows else model.features(x).features
        made.backward(torch.sin(torch.arange(made.numel()).reshape(made.shape)))
        return [made.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    first = run(1)
    assert len(first) == 1 + len(list(model.parameters())) - (0 if rows else 2)  # features are before the head
    for number in (2, 3):
        for one, other in zip(first, run(number), strict=True):
            assert torch.equal(one, other)


@pytest.fixture
def threads():
    number = torch.get_num_threads()
    yield number
    torch.set_num_threads(number)


@pytest.fixture
def counted(monkeypatch):
    """The kernel maps that this process builds."""
    built = []
    build = maps.build_kernel_map

    def count(indices, shape, batch, *options, **others):
        built.append(options)
        return build(indices, shape, batch, *options, **others)

    monkeypatch.setattr(maps, "build_kernel_map", count)
    return built


@pytest.mark.parametrize("name", MODELS)
def test_kernel_maps_of_the_readers_are_all_that_a_network_needs(name, counted):
    model = MODELS[name]()
    indices = some_sites()
    sparse = Sparse(np.ones((len(indices), 1), np.float32), indices, SHAPE, 2)
    made = KernelMaps(maps=model.kernel_maps())({"image": sparse}, None)["image"]
    assert len(made.kernel_maps) == 5
    x = hsp.SparseTensor.from_feed(made)
    ahead = model(x)
    ahead.sum().backward()
    assert counted == []
    alone = model.train()(hsp.SparseTensor.from_feed(sparse))
    assert len(counted) == 5
    assert torch.equal(ahead, alone)


def test_a_loader_prebuilds_the_kernel_maps_of_a_network(tmp_path, counted):
    with h5py.File(tmp_path / "events.h5", "w") as file:
        image = np.random.default_rng(0).random((8, *SHAPE)).astype(np.float32)
        file["image"] = np.where(image < 0.2, image, 0)
    model = MODELS["unet"]()
    dataset = hf.EventDataset([[str(tmp_path / "*.h5"), ["image"], "all"]], transform=[{"sparsify": {"keys": "image"}}])
    sites = 0
    with hf.DataLoader(dataset, 4, prebuild=model.kernel_maps()) as loader:
        for batch in loader:
            x = hsp.SparseTensor.from_feed(batch["image"])
            assert model(x).shape == (len(x), 3)
            sites += len(x)
    assert sites > 0
    assert counted == []


def test_networks_copy_pickle_and_load():
    x = some_tensor(1, dtype=torch.float32)
    for make in MODELS.values():
        model = make()
        model(x)  # so that running statistics are something
        model.eval()
        expected = model(x)
        again = make()
        again.load_state_dict(model.state_dict())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again.eval()):
            assert torch.equal(other(x), expected)


def test_training_and_evaluation_differ_by_the_statistics():
    x = some_tensor(1, dtype=torch.float32)
    model = MODELS["unet"]()
    assert not torch.allclose(model(x), model.eval()(x))


def test_a_network_compiles_as_one_graph():
    model = hsp.SparseUNet(1, 3, width=2, depth=2, blocks=1).eval()

    def run(features, indices):
        return model(hsp.SparseTensor(features, indices, SHAPE, 2))

    indices = torch.from_numpy(some_sites())
    features = torch.randn(len(indices), 1)
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(features, indices), run(features, indices), atol=1e-6)


def test_batches_without_sites_and_events_without_sites_go_through():
    for make in MODELS.values():
        model = make().eval()
        nothing = some_tensor(1, occupancy=0.0, dtype=torch.float32)
        made = model(nothing)
        assert made.shape == ((0, 3) if isinstance(model, hsp.SparseUNet) else (2, 3))
        made.sum().backward()
        one = hsp.SparseTensor(torch.ones(1, 1), torch.tensor([[1, 0, 3, 0]], dtype=torch.int32), SHAPE, 3)
        made = model(one)
        assert made.shape == ((1, 3) if isinstance(model, hsp.SparseUNet) else (3, 3))
        assert made.isfinite().all()


def test_two_networks_follow_each_other_on_one_tensor():
    x = some_tensor(1, dtype=torch.float32)
    first, second = MODELS["unet"]().eval(), hsp.SparseUNet(2, 3, width=2, depth=2).eval()
    made = first.features(x)
    assert made.indice_dict is x.indice_dict
    assert second(made).shape == (len(x), 3)


def test_gradients_of_a_block_are_those_of_differences():
    x = some_tensor(1, shape=(4, 4), events=1, occupancy=0.5)
    block = hsp.ResBlock(1, 2, dims=2).double()
    features = x.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: block(x.replace_feature(f)).features, features)


def test_bfloat16_is_near_float32():
    x = some_tensor(1, dtype=torch.float32)
    for make in MODELS.values():
        model = make()
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(x)
        assert made.dtype == torch.bfloat16
        assert (made - expected).abs().max() < 0.1 * expected.abs().max()
        made.float().sum().backward()


def test_other_normalisations_have_their_relu_behind_them():
    x = some_tensor(2, dtype=torch.float32)
    for preactivation in (True, False):
        block = hsp.ResBlock(2, 4, preactivation=preactivation, norm=lambda n: hsp.SparseGroupNorm(2, n))
        fused = hsp.ResBlock(2, 4, preactivation=preactivation)
        assert block(x).features.isfinite().all()
        assert list(block.state_dict()) == [
            name for name in fused.state_dict() if "running" not in name and "num_b" not in name
        ]
        relus = [module for module in block.modules() if isinstance(module, hsp.SparseReLU)]
        assert len(relus) == 2


def test_the_normalisation_is_chosen():
    model = hsp.SparseUNet(1, 3, width=2, depth=2, norm=functools.partial(hsp.SparseBatchNorm, eps=1e-4))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 2 * 6 + 2 + 1
    assert {norm.eps for norm in norms} == {1e-4}


def parameters(model):
    return f"{sum(parameter.numel() for parameter in model.parameters()):,}"


def test_docstrings_tell_the_numbers_of_parameters():
    assert f"{parameters(hsp.SparseUNet(1, 5))} parameters" in " ".join(hsp.SparseUNet.__doc__.split())
    for depth in (10, 18, 34):
        assert f"{parameters(hsp.SparseResNet(1, 2, depth=depth))} with depth {depth}" in " ".join(
            hsp.SparseResNet.__doc__.split()
        )


def uresnet_of_sparseconvnet(width, depth, classes, kernel=27):
    """Names and shapes of a U-ResNet of SparseConvNet's UNet(reps=2, residual_blocks=True), in its order."""
    found = {}

    def conv(name, inputs, outputs, taps=kernel):
        found[f"{name}.weight"] = (taps, 1, inputs, outputs)

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{leaf}"] = (channels,)

    def block(name, inputs, outputs):
        if inputs != outputs:
            found[f"{name}.0.weight"] = (inputs, outputs)  # NetworkInNetwork
        norm(f"{name}.1.0", inputs)
        conv(f"{name}.1.1", inputs, outputs)
        norm(f"{name}.1.2", outputs)
        conv(f"{name}.1.3", outputs, outputs)

    def level(name, planes):
        here = planes[0]
        for place in (0, 2):  # AddTable lies between
            block(f"{name}.{place}", here, here)
        if len(planes) > 1:
            norm(f"{name}.4.1.0", here)
            conv(f"{name}.4.1.1", here, planes[1], 8)
            level(f"{name}.4.1.2", planes[1:])
            norm(f"{name}.4.1.3", planes[1])
            conv(f"{name}.4.1.4", planes[1], here, 8)
            for place, inputs in ((6, 2 * here), (8, here)):
                block(f"{name}.{place}", inputs, here)

    conv("sparseModel.1", 1, width)
    level("sparseModel.2", [width * (n + 1) for n in range(depth)])
    norm("sparseModel.3", width)
    found["linear.weight"], found["linear.bias"] = (classes, width), (classes,)
    return {name: torch.randn(shape).abs() for name, shape in found.items()}


def test_weights_of_a_uresnet_of_sparseconvnet_go_over_in_order():
    source = uresnet_of_sparseconvnet(width=3, depth=3, classes=5)
    model = hsp.SparseUNet(1, 5, width=3, depth=3)
    model.load_state_dict(convert.from_sparseconvnet(source, model, rename="order"))
    level = model.levels.inner
    assert torch.equal(model.norm.norm.running_var, source["sparseModel.3.running_var"])
    assert torch.equal(level.up.norm.weight, source["sparseModel.2.4.1.2.4.1.3.weight"])
    found = level.decoder[0].shortcut.conv.weight.flatten(1)
    assert torch.equal(found, source["sparseModel.2.4.1.2.6.0.weight"].t())
    found = level.encoder[1].second.conv.weight
    assert torch.equal(found.flatten(1, 3).permute(1, 2, 0), source["sparseModel.2.4.1.2.2.1.3.weight"][:, 0])
    assert model(some_tensor(1, dtype=torch.float32)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsp.ResBlock(1, 2, dims=5), "dims must be an integer from 1 to 4, not 5"),
        (lambda: hsp.ResBlock(1, 2, dims=True), "dims must be an integer from 1 to 4, not True"),
        (lambda: hsp.ResBlock(1, 2, kernel_size=2), "odd kernels"),
        (lambda: hsp.SparseUNet(1, 2, depth=0), "depth must be an integer of 1 or more, not 0"),
        (lambda: hsp.SparseUNet(1, 0), "classes must be"),
        (lambda: hsp.SparseUNet(0, 2), "in_channels must be"),
        (lambda: hsp.SparseUNet(1, 2, blocks=0), "blocks must be"),
        (lambda: hsp.SparseResNet(1, 2, depth=20), r"depth must be 10, 18, 34 or blocks of each stage, not 20"),
        (lambda: hsp.SparseResNet(1, 2, depth=(1, 0)), r"one block or more .* not \(1, 0\)"),
        (lambda: hsp.SparseResNet(1, 2, depth=()), r"one stage or more"),
        (lambda: hsp.SparseResNet(1, 2, width=-1), "width must be"),
        (lambda: hsp.SparseResNet(1, 2, pool="median"), "pool must be 'mean', 'max', 'sum', not 'median'"),
    ],
)
def test_arguments_out_of_range_are_errors(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_images_that_are_too_small_for_the_depth_are_errors():
    x = some_tensor(1)
    with pytest.raises(SpecError, match=r"depth 4 needs images of 8 cells .* not \(8, 4, 8\)"):
        hsp.SparseUNet(1, 2, width=2, depth=4).double()(x)
    with pytest.raises(SpecError, match=r"4 stages needs images of 8 cells .* not \(8, 4, 8\)"):
        hsp.SparseResNet(1, 2, width=2).double()(x)
