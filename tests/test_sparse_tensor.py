"""Sparse tensors: what they hold, refuse, merge, move and make dense."""

import copy
import gc
import io
import pickle
import weakref

import numpy as np
import pytest
import torch

import hepfeed.sparse as hsp
from hepfeed.errors import ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.sparse import densify, maps
from hepfeed.sparse.sites import parameters_of
from hepfeed.tensors import KernelMap, Sparse

SHAPE = (5, 4, 6)


def sites(shape=SHAPE, events=3, occupancy=0.3, seed=0, shuffled=False):
    rng = torch.Generator().manual_seed(seed)
    found = torch.nonzero(torch.rand(events, *shape, generator=rng) < occupancy).int()
    return found[torch.randperm(len(found), generator=rng)] if shuffled else found.contiguous()


def tensor(shape=SHAPE, events=3, channels=4, dtype=torch.float64, **options):
    indices = sites(shape, events, **options)
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(len(indices), channels, generator=rng, dtype=torch.float64).to(dtype)
    return hsp.SparseTensor(features, indices, shape, events)


def test_it_has_the_fields_of_spconv_and_the_aliases_of_minkowski_engine():
    features, indices = torch.ones(2, 3), torch.tensor([[0, 1, 2], [1, 0, 0]], dtype=torch.int32)
    x = hsp.SparseTensor(features, indices, (4, 5), 2)
    assert x.features is x.F is features
    assert x.indices is x.C is indices
    assert (x.spatial_shape, x.batch_size, x.spatial_size) == ((4, 5), 2, 20)
    assert (len(x), x.num_sites, x.channels, x.occupancy) == (2, 2, 3, 0.05)
    assert (x.device, x.dtype, x.indice_dict) == (torch.device("cpu"), torch.float32, {})
    assert x.find_indice_pair(None) is x.find_indice_pair("down") is None


def test_its_repr_says_sites_occupancy_channels_and_device():
    x = hsp.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1, 2], [1, 0, 0]]).int(), (4, 5), 2)
    assert repr(x) == ("SparseTensor(2 sites in 2 images of 4 x 5 (5 % occupied), 3 channels, torch.float32, cpu)")
    y = hsp.SparseConv2d(3, 1, 2, indice_key="down")(x)
    assert repr(y).endswith("torch.float32, cpu, indice_dict: down)")
    assert repr(x.sites) == "Sites(2 in 2 images of 4 x 5, 1 kernel maps)"


def test_shapes_may_be_numpy_numbers_lists_or_torch_sizes():
    indices = torch.zeros(1, 3, dtype=torch.int32)
    for shape in ([4, 5], np.array([4, 5]), torch.Size([4, 5])):
        made = hsp.SparseTensor(torch.ones(1, 1), indices, shape, np.int64(2))
        assert made.spatial_shape == (4, 5)
        assert [type(n) for n in (*made.spatial_shape, made.batch_size)] == [int] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.ones(2)}, r"features must be a tensor \(N, C\), not \(2,\)"),
        ({"features": np.ones((2, 1))}, r"features must be a tensor \(N, C\), not ndarray"),
        ({"features": torch.ones(3, 1)}, "features must have one row for each of 2 sites, not 3"),
        ({"features": torch.ones(2, 1, device="meta")}, "features must be on the CPU, not on meta"),
        ({"indices": torch.zeros(2, 3)}, r"indices must be an int32 tensor, not \(2, 3\) torch.float32"),
        ({"indices": torch.zeros(2, 3, dtype=torch.int64)}, r"int32 tensor, not .* torch.int64: cast them with .int"),
        ({"indices": torch.zeros(2, 4, dtype=torch.int32)}, r"indices must be \(N, 3\).* 2 axes, not \(2, 4\)"),
        ({"indices": torch.zeros(2, 3, dtype=torch.int32, device="meta")}, "indices must be on the CPU, not on meta"),
        ({"spatial_shape": (4, 0)}, r"spatial_shape must .*\(4, 0\)"),
        ({"spatial_shape": (4, 2.5)}, r"spatial_shape must be integers.*\(4, 2.5\)"),
        ({"spatial_shape": ()}, "spatial_shape must .* not"),
        ({"spatial_shape": 4}, "spatial_shape must be integers.* not 4"),
        ({"batch_size": -1}, "batch_size must .* not -1"),
        ({"batch_size": None}, "batch_size .*None"),
        ({"duplicates": "first"}, "duplicates must be 'error', 'sum', 'mean' or 'max', not 'first'"),
    ],
)
def test_what_fits_no_sparse_tensor_is_refused(arguments, message):
    good = {
        "features": torch.ones(2, 1),
        "indices": torch.tensor([[0, 1, 2], [1, 0, 0]], dtype=torch.int32),
        "spatial_shape": (4, 5),
        "batch_size": 2,
    }
    with pytest.raises(SpecError, match=message):
        hsp.SparseTensor(**{**good, **arguments})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 1], [0, 4, 0]], "row 1 is outside of 2 images"),
        ([[2, 1, 1], [0, 0, 0]], "row 0 is outside of 2 images"),
        ([[0, -1, 1], [0, 0, 0]], "row 0 is outside"),
        ([[0, 1, 1], [0, 1, 1]], r"rows 0 and 1 are both \[0, 1, 1\]"),
    ],
)
def test_sites_outside_or_twice_are_refused(rows, message):
    with pytest.raises(ProcessError, match=message):
        hsp.SparseTensor(torch.ones(2, 1), torch.tensor(rows, dtype=torch.int32), (4, 5), 2)


def test_rows_keep_their_order_and_the_order_of_sites_is_known():
    assert tensor().sites.order.shape == (0,)
    x = tensor(shuffled=True)
    ordered = x.indices[x.sites.order.long()]
    assert torch.equal(ordered, sites())


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_rows_on_one_site_are_merged_on_request(how):
    indices = torch.tensor([[1, 3], [0, 2], [1, 3], [0, 0], [1, 3]], dtype=torch.int32)
    features = torch.tensor([[1.0, -1.0], [2.0, 0.0], [4.0, -2.0], [8.0, 1.0], [1.0, 9.0]], dtype=torch.float64)
    x = hsp.SparseTensor(features.requires_grad_(), indices, (4,), 2, duplicates=how)
    assert x.indices.tolist() == [[0, 0], [0, 2], [1, 3]]
    third = {"sum": [6.0, 6.0], "mean": [2.0, 2.0], "max": [4.0, 9.0]}[how]
    assert x.features.tolist() == [[8.0, 1.0], [2.0, 0.0], third]
    merged = lambda f: hsp.SparseTensor(f, indices, (4,), 2, duplicates=how).features  # noqa: E731
    torch.autograd.gradcheck(merged, (features,))
    torch.autograd.gradgradcheck(merged, (features,))


@pytest.mark.parametrize("shuffled", [True, False])
def test_merging_of_distinct_sites_only_sorts_them(shuffled):
    x = tensor(shuffled=shuffled)
    for how in ("sum", "mean", "max"):
        y = hsp.SparseTensor(x.features, x.indices, SHAPE, 3, duplicates=how)
        assert torch.equal(y.indices, sites())
        assert torch.equal(y.dense(), x.dense())


def test_merged_sites_outside_are_refused_too():
    with pytest.raises(ProcessError, match="outside"):
        hsp.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 7]]).int(), (4,), 1, duplicates="sum")


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_dense_images_hold_the_features_at_their_sites(channels_first, shuffled):
    x = tensor(shuffled=shuffled)
    dense = x.dense(channels_first)
    assert dense.shape == ((3, 4, *SHAPE) if channels_first else (3, *SHAPE, 4))
    last = dense.movedim(1, -1) if channels_first else dense
    assert torch.equal(last[tuple(x.indices.long().T)], x.features)
    assert int((last != 0).any(-1).sum()) == len(x)
    again = hsp.SparseTensor.from_dense(dense, channels_first)
    assert torch.equal(again.indices, sites())
    assert torch.equal(again.dense(channels_first), dense)


def test_from_dense_keeps_nan_and_leaves_zeros_out():
    dense = torch.zeros(1, 2, 3)
    dense[0, 1, 2] = float("nan")
    x = hsp.SparseTensor.from_dense(dense)
    assert x.indices.tolist() == [[0, 2]]
    assert x.features[0, 0] == 0
    assert x.features[0, 1].isnan()
    with pytest.raises(SpecError, match=r"dense must have .* not \(2, 3\)"):
        hsp.SparseTensor.from_dense(torch.ones(2, 3))


@pytest.mark.parametrize("channels_first", [True, False])
def test_densify_and_sparsify_can_be_differentiated_twice(channels_first):
    x = tensor((3, 2), 2, 2, shuffled=True)
    features = x.features.clone().requires_grad_()
    dense = lambda f: hsp.SparseTensor(f, x.indices, (3, 2), 2).dense(channels_first)  # noqa: E731
    taken = lambda d: densify.take_sites(d, x.indices, channels_first)  # noqa: E731
    torch.autograd.gradcheck(dense, (features,))
    torch.autograd.gradgradcheck(dense, (features,))
    images = x.dense(channels_first).requires_grad_()
    torch.autograd.gradcheck(taken, (images,))
    torch.autograd.gradgradcheck(taken, (images,))
    hsp.SparseTensor.from_dense(images, channels_first).features.square().sum().backward()
    assert torch.equal(images.grad, 2 * images.detach())


def test_operators_on_sites_pass_the_checks_of_torch():
    x = tensor((3, 2), 2, 2, shuffled=True)
    features = x.features.clone().requires_grad_()
    images = x.dense().requires_grad_()
    for operator, arguments in (
        (densify.densify, (features, x.indices, [3, 2], 2, True)),
        (densify.take_sites, (images, x.indices, True)),
        (densify.active_sites, (images.detach(), False)),
        (maps.sort_sites, (x.indices, [3, 2], 2)),
        (maps.unique_sites, (x.indices, [3, 2], 2)),
        (maps.kernel_map, (x.indices, x.sites.order, 2, [3, 2], [2, 2], [2, 2], [0, 0], [1, 1], False, False)),
    ):
        torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("events", [0, 2])
def test_a_batch_without_a_site_works(events):
    x = hsp.SparseTensor(torch.ones(0, 3), torch.zeros(0, 3, dtype=torch.int32), (4, 5), events)
    assert x.occupancy == 0
    assert x.dense().shape == (events, 3, 4, 5)
    assert len(x.unbatch()) == events
    assert "0 sites" in repr(x)
    assert len(hsp.SparseTensor.from_dense(x.dense())) == 0
    merged = hsp.SparseTensor(x.features, x.indices, (4, 5), events, duplicates="mean")
    assert merged.features.shape == (0, 3)


def test_replaced_features_need_one_row_for_each_site():
    x = tensor()
    y = x.replace_feature(x.features[:, :1])
    assert y.sites is x.sites
    assert y.channels == 1
    with pytest.raises(SpecError, match=f"feature must have one row for each of {len(x)} sites, not 2"):
        x.replace_feature(x.features[:2])
    with pytest.raises(AttributeError):
        x.features = x.features


def test_tensors_on_the_same_sites_are_added_and_multiplied():
    x = tensor()
    key = hsp.SubMConv3d(4, 4, 1, indice_key="a").double()(x)
    y = x + key
    assert torch.equal(y.features, x.features + key.features)
    assert list(y.indice_dict) == ["a"]
    assert torch.equal((x + 1.0).features, (1.0 + x).features)
    assert torch.equal((2 * x).features, (x * x.features.new_full((len(x), 4), 2)).features)
    same = hsp.SparseTensor(x.features, x.indices.clone(), SHAPE, 3)
    assert torch.equal((x + same).features, 2 * x.features)
    with pytest.raises(SpecError, match=r"on the same sites were expected.*hepfeed.sparse.add"):
        x + tensor(seed=5)
    with pytest.raises(SpecError, match="same sites"):
        x + hsp.SparseTensor(x.features, x.indices, (9, 9, 9), 3)


@pytest.mark.parametrize("shuffled", [True, False])
def test_events_are_taken_apart_and_put_together_again(shuffled):
    x = tensor(events=4, shuffled=shuffled)
    empty = x.indices[:, 0] != 2
    x = hsp.SparseTensor(x.features[empty], x.indices[empty], SHAPE, 4)
    events = x.unbatch()
    assert [len(event) for event in events] == torch.bincount(x.indices[:, 0], minlength=4).tolist()
    assert len(events[2]) == 0
    for number, event in enumerate(events):
        alone = x.event(number)
        for each in (event, alone):
            assert each.batch_size == 1
            assert torch.equal(each.dense()[0], x.dense()[number])
        assert torch.equal(alone.indices, event.indices)
    assert torch.equal(x.event(-1).indices, events[3].indices)
    again = hsp.SparseTensor.batch(events)
    assert torch.equal(again.dense(), x.dense())
    if not shuffled:
        assert torch.equal(again.indices, x.indices)
    for number in (4, -5):
        with pytest.raises(IndexError, match=f"event {number} was asked for, and the batch has 4"):
            x.event(number)


def test_only_tensors_that_match_make_a_batch():
    with pytest.raises(SpecError, match="one or more"):
        hsp.SparseTensor.batch([])
    with pytest.raises(SpecError, match=r"shape \(5, 4, 6\) with 4 channels were expected, not \(5, 4, 6\) with 2"):
        hsp.SparseTensor.batch([tensor(), tensor(channels=2)])


def test_dtypes_change_and_integers_are_held():
    x = tensor(dtype=torch.float32)
    for method, dtype in (
        ("float", torch.float32),
        ("double", torch.float64),
        ("half", torch.float16),
        ("bfloat16", torch.bfloat16),
    ):
        made = getattr(x, method)()
        assert made.dtype == dtype
        assert made.sites is x.sites
    assert x.cpu().sites is x.sites
    labels = x.replace_feature(torch.arange(len(x)).unsqueeze(1))
    assert labels.dtype == torch.int64
    assert labels.dense().sum() == sum(range(len(x)))
    assert not x.replace_feature(x.features.requires_grad_()).detach().features.requires_grad


def test_moving_to_another_device_takes_kernel_maps_and_links_along():
    x = tensor()
    y = hsp.SparseConv3d(4, 2, 2, 2, indice_key="down").double()(hsp.SubMConv3d(4, 4, 3, indice_key="a").double()(x))
    moved = y.to("meta")
    assert moved.device.type == moved.sites.device.type == "meta"
    link = moved.indice_dict["down"]
    assert link.target is moved.sites
    assert link.kernel_map.in_maps.device.type == "meta"
    assert moved.indice_dict["a"].target is link.source
    assert parameters_of(link.kernel_map) == parameters_of(y.indice_dict["down"].kernel_map)
    with pytest.raises(SpecError, match="features must be on the CPU, not on meta"):
        moved.dense()
    for layer in (hsp.SubMConv3d(2, 2, 3), hsp.SparseLinear(2, 2)):
        with pytest.raises(SpecError, match="indices must be on the CPU, not on meta"):
            layer(moved)
    with pytest.raises(SpecError, match="features must be on the CPU, not on meta"):
        hsp.SparseInverseConv3d(2, 2, 2, "down")(moved)


def test_copies_and_pickles_have_kernel_maps_of_their_own():
    x = tensor(shuffled=True)
    y = hsp.SparseConv3d(4, 2, 2, 2, indice_key="down").double().requires_grad_(False)(x)
    saved = io.BytesIO()
    torch.save(y, saved)
    saved.seek(0)
    for made in (copy.deepcopy(y), pickle.loads(pickle.dumps(y)), torch.load(saved)):
        assert made.sites is not y.sites
        assert torch.equal(made.features, y.features)
        assert made.indice_dict["down"].target is made.sites
        back = hsp.SparseInverseConv3d(2, 1, 2, "down").double()(made)
        assert torch.equal(back.indices, x.indices)


def test_kernel_maps_are_freed_with_the_last_tensor_that_uses_them():
    x = tensor()
    y = hsp.SparseConv3d(4, 2, 2, 2, indice_key="down").double()(x)
    pairs = weakref.ref(y.indice_dict["down"].kernel_map.in_maps)
    gc.disable()  # so that a cycle would show
    try:
        del y
        assert pairs() is not None
        del x
        assert pairs() is None
    finally:
        gc.enable()


def test_kernel_maps_of_inference_serve_training_too():
    x, conv = tensor(), hsp.SparseConv3d(4, 2, 2, 2).double()
    with torch.inference_mode():
        expected = conv(x).features
        assert torch.equal(hsp.SparseTensor(x.features, x.indices, SHAPE, 3).dense(), x.dense())
    made = conv(x).features
    made.sum().backward()
    assert torch.equal(made, expected)


def test_layers_of_the_same_parameters_share_a_kernel_map():
    x = tensor()
    ones, threes = (1,) * 3, (3,) * 3
    link = x.sites.link(threes, ones, ones, ones, submanifold=True)
    assert link.source is link.target is x.sites
    assert x.sites.link(threes, ones, ones, ones, submanifold=True).kernel_map is link.kernel_map
    down = x.sites.link((2,) * 3, (2,) * 3, (0,) * 3, ones)
    assert x.sites.link((2,) * 3, (2,) * 3, (0,) * 3, ones).target is down.target
    assert down.target.spatial_shape == (2, 2, 3)


CHAIN = [
    {"kernel_size": 3, "submanifold": True},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "submanifold": True},
    {"kernel_size": 2, "stride": 2, "transposed": True},
]


def chained(x):
    """Sparse images with the kernel maps of a chain of convolutions, as readers make them."""
    made, indices, shape = [], x.indices.numpy(), x.spatial_shape
    for options in CHAIN:
        made.append(build_kernel_map(indices, shape, x.batch_size, **options))
        indices, shape = made[-1].indices, made[-1].spatial_shape
    return Sparse(x.features.numpy(), x.indices.numpy(), x.spatial_shape, x.batch_size, tuple(made))


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_kernel_maps_of_the_feed_are_used_in_the_order_of_the_chain(kind, monkeypatch):
    x = tensor()
    sparse = chained(x)
    net = hsp.SparseSequential(
        hsp.SubMConv3d(4, 4, 3),
        hsp.SubMConv3d(4, 4, 3),
        hsp.SparseConv3d(4, 4, 2, 2),
        hsp.SubMConv3d(4, 4, 3),
        hsp.SparseConvTranspose3d(4, 4, 2, 2),
    ).double()
    expected = net(x)
    fed = hsp.SparseTensor.from_feed(sparse.map(torch.from_numpy) if kind == "tensors" else sparse)
    assert fed.features.data_ptr() == sparse.features.ctypes.data

    def refuse(*_):
        raise AssertionError("a kernel map was built")

    monkeypatch.setattr(maps, "kernel_map", refuse)
    made = net(fed)
    assert torch.equal(made.features, expected.features)
    assert torch.equal(made.indices, expected.indices)


def test_kernel_maps_of_other_images_are_refused():
    x = tensor()
    sparse = chained(x)
    first, second = sparse.kernel_maps[:2]
    for kernel_map, message in (
        (build_kernel_map(np.zeros((0, 2), np.int32), (4,), 1, 3), "images of 3 axes was expected"),
        (build_kernel_map(x.indices.numpy()[:5], SHAPE, 3, 3, submanifold=True), f"of {len(x)} sites was expected"),
        (KernelMap(**{**vars(second), "in_maps": second.in_maps[:-1]}), r"in_maps, out_maps \(P,\)"),
        (KernelMap(**{**vars(first), "offsets": first.offsets[:-1]}), r"offsets \(27,\)"),
    ):
        with pytest.raises(SpecError, match=message):
            hsp.SparseTensor.from_feed(Sparse(x.features, x.indices, SHAPE, 3, (kernel_map,)))


def test_unsorted_or_double_sites_of_a_feed_are_found():
    x = tensor()
    twice = x.indices.clone()
    twice[1] = twice[0]
    with pytest.raises(ProcessError, match="unique"):
        hsp.SparseTensor.from_feed(Sparse(x.features, twice, SHAPE, 3))
