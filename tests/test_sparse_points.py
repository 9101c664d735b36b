"""Points into voxels, voxels to points, and interpolation: by hand, and against dense images."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import hepfeed.sparse as hsp
from hepfeed.errors import ProcessError, SpecError
from hepfeed.sparse import lookup

SHAPE = (5, 4, 6)


def cloud(count=40, channels=2, seed=0, dtype=torch.float64, shape=SHAPE):
    """Features, coordinates within the images, and events, of which the last has no point."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, len(shape), dtype=torch.float64, generator=generator) * torch.tensor(shape)
    events = torch.randint(0, 2, (count,), generator=generator)
    return torch.randn(count, channels, dtype=dtype, generator=generator), points, events


def tensor(seed=1, channels=2, occupancy=0.5, dtype=torch.float64, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    indices = (torch.rand(3, *shape, generator=generator) < occupancy).nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    return hsp.SparseTensor(torch.randn(len(indices), channels, dtype=dtype, generator=generator), indices, shape, 3)


def test_points_go_into_voxels_of_their_size():
    features = torch.tensor([[1.0], [5.0], [3.0], [7.0]])
    points = torch.tensor([[-9.5, 0.0], [-9.1, 1.9], [-5.0, 2.0], [-9.5, 0.0]])
    events = torch.tensor([0, 0, 0, 1])
    grid = {"size": (0.5, 2.0), "low": (-10.0, 0.0)}
    for reduce, expected in (("sum", [6.0, 3.0, 7.0]), ("mean", [3.0, 3.0, 7.0]), ("max", [5.0, 3.0, 7.0])):
        x, voxel = hsp.point_to_voxel(features, points, events, (11, 2), 3, reduce=reduce, **grid)
        assert x.indices.tolist() == [[0, 1, 0], [0, 10, 1], [1, 1, 0]]
        assert x.features.flatten().tolist() == expected
        assert voxel.tolist() == [0, 0, 1, 2]
        assert (x.spatial_shape, x.batch_size) == ((11, 2), 3)


def test_voxels_of_many_points_are_those_of_their_cells():
    features, points, events = cloud(300)
    x, voxel = hsp.point_to_voxel(features, points, events, SHAPE, 3, reduce="sum")
    dense = torch.zeros(3, *SHAPE, 2, dtype=torch.float64)
    dense.index_put_((events, *points.long().unbind(1)), features, accumulate=True)
    torch.testing.assert_close(x.dense(channels_first=False), dense)
    assert torch.equal(x.indices[voxel.long(), 1:], points.int())
    assert torch.equal(x.indices[voxel.long(), 0], events.int())


def test_points_outside_are_left_out_or_an_error():
    features = torch.arange(4.0)[:, None]
    points, events = torch.tensor([[0.5], [4.0], [-0.1], [3.9]]), torch.tensor([0, 0, 0, 0])
    x, voxel = hsp.point_to_voxel(features, points, events, (4,), 1, outside="drop")
    assert x.indices.tolist() == [[0, 0], [0, 3]]
    assert voxel.tolist() == [0, -1, -1, 1]
    assert hsp.voxel_to_point(x, voxel).flatten().tolist() == [0.0, 0.0, 0.0, 3.0]
    with pytest.raises(ProcessError, match=r"site \[0, 4\] .* in row 1 is outside of 1 images"):
        hsp.point_to_voxel(features, points, events, (4,), 1)
    with pytest.raises(ProcessError, match="outside"):
        hsp.point_to_voxel(features[:1], points[:1], torch.tensor([1]), (4,), 1)
    x, voxel = hsp.point_to_voxel(features[:2], points[:2], torch.tensor([2**40, 0]), (4,), 1, outside="drop")
    assert voxel.tolist() == [-1, -1]


def test_voxels_go_back_to_their_points():
    features, points, events = cloud()
    x, voxel = hsp.point_to_voxel(features, points, events, SHAPE, 3)
    assert torch.equal(hsp.voxel_to_point(x, voxel), x.features[voxel.long()])
    assert torch.equal(hsp.interpolate(x, points, events, mode="nearest"), x.features[voxel.long()])


def by_hand(x, points, events, renormalise):
    dense = torch.nn.functional.pad(x.dense(channels_first=False), (0, 0, *[2, 2] * len(x.spatial_shape)))
    ones = x.replace_feature(torch.ones_like(x.features)).dense(channels_first=False)
    there = torch.nn.functional.pad(ones, (0, 0, *[2, 2] * len(x.spatial_shape)))
    lowest = (points - 0.5).floor()
    share = points - 0.5 - lowest
    total, weights = 0, 0
    for corner in itertools.product((0, 1), repeat=points.shape[1]):
        at = (events, *(lowest.long() + torch.tensor(corner) + 2).unbind(1))
        weight = torch.where(torch.tensor(corner) > 0, share, 1 - share).prod(1)[:, None]
        total, weights = total + weight * dense[at], weights + weight * there[at]
    return total / torch.where(weights > 0, weights, 1) if renormalise else total


@pytest.mark.parametrize("shape", [(9,), (6, 5), SHAPE, (3, 4, 3, 2)])
@pytest.mark.parametrize("renormalise", [False, True])
def test_interpolation_is_linear_between_the_centres_of_voxels(shape, renormalise):
    x = tensor(shape=shape)
    _, points, events = cloud(60, shape=shape)
    points = points * 1.2 - 0.3  # some of them outside
    made = hsp.interpolate(x, points, events, renormalise=renormalise)
    torch.testing.assert_close(made, by_hand(x, points, events, renormalise))


def test_interpolation_at_centres_is_the_features_and_far_away_0():
    x = tensor()
    centres, events = x.indices[:, 1:] + 0.5, x.indices[:, 0]
    assert torch.equal(hsp.interpolate(x, centres, events), x.features)
    for renormalise in (False, True):
        out = hsp.interpolate(
            x, torch.tensor([[1e30, 0, 0], [-50.0, 2, 2]]), torch.tensor([0, 0]), renormalise=renormalise
        )
        assert out.tolist() == [[0.0, 0.0]] * 2
    assert hsp.interpolate(x, torch.full((1, 3), 1.5), torch.tensor([7])).tolist() == [[0.0, 0.0]]  # no such event


def test_interpolation_renormalised_near_a_lone_voxel_is_its_value():
    x = hsp.SparseTensor(torch.tensor([[4.0]]), torch.tensor([[0, 2, 2]]).int(), (5, 5), 1)
    points = torch.tensor([[2.2, 2.9], [3.0, 2.5], [3.6, 2.5]])
    made = hsp.interpolate(x, points, torch.zeros(3).long(), renormalise=True).flatten().tolist()
    assert made == pytest.approx([4.0, 4.0, 0.0])
    made = hsp.interpolate(x, points, torch.zeros(3).long()).flatten().tolist()
    assert made == pytest.approx([4 * 0.7 * 0.6, 4 * 0.5, 0.0])


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_voxels_of_points_can_be_differentiated_twice(reduce):
    features, points, events = cloud(16)

    def net(features):
        x, voxel = hsp.point_to_voxel(features, points, events, SHAPE, 3, reduce=reduce)
        return x.features, hsp.voxel_to_point(x, voxel).square()

    assert gradcheck(net, (features.requires_grad_(),))
    assert gradgradcheck(net, (features,))


@pytest.mark.parametrize("renormalise", [False, True])
def test_interpolation_can_be_differentiated_twice_in_features_and_coordinates(renormalise):
    x = tensor(shape=(4, 3))
    _, points, events = cloud(8, shape=(4, 3))

    def net(features, points):
        return hsp.interpolate(x.replace_feature(features), points, events, renormalise=renormalise)

    inputs = x.features.requires_grad_(), points.requires_grad_()
    assert gradcheck(net, inputs)
    assert gradgradcheck(net, inputs)


def test_points_within_a_net_compile_to_one_graph():
    features, points, events = cloud()

    def net(features, points):
        x, voxel = hsp.point_to_voxel(features, points, events, SHAPE, 3, outside="drop")
        return hsp.voxel_to_point(x, voxel), hsp.interpolate(x, points, events, renormalise=True)

    inputs = features.requires_grad_(), points
    made, expected = torch.compile(net, fullgraph=True, backend="aot_eager")(*inputs), net(*inputs)
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))
    first, second = (
        torch.autograd.grad(sum(out.square().sum() for out in each), features)[0] for each in (made, expected)
    )
    torch.testing.assert_close(first, second)


def test_lookups_pass_the_checks_of_torch():
    x = tensor()
    _, points, events = cloud(7)
    torch.library.opcheck(lookup.cells_of_points, (points, events))
    cells = lookup.cells_of_points(points, events)
    torch.library.opcheck(lookup.find_sites, (x.indices, x.sites.order, cells, list(SHAPE), 3))
    torch.library.opcheck(lookup.rows_of_mask, (events > 0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_of_the_dtype_of_the_features_and_the_same_bits_for_any_number_of_threads(dtype):
    features, points, events = cloud(2000, dtype=dtype)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        given = features.clone().requires_grad_()
        at = points.float().requires_grad_()
        x, voxel = hsp.point_to_voxel(given, at, events, SHAPE, 3)
        outputs = [hsp.interpolate(x, at, events, renormalise=flag) for flag in (False, True)]
        outputs.append(hsp.voxel_to_point(x, voxel))
        sum(out.float().square().sum() for out in outputs).backward()
        assert all(out.dtype == dtype for out in outputs)
        found.append([*outputs, given.grad, at.grad])
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_no_points_make_no_voxels():
    x, voxel = hsp.point_to_voxel(torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0).long(), SHAPE, 2)
    assert (len(x), voxel.shape, x.features.shape) == (0, (0,), (0, 2))
    assert hsp.voxel_to_point(x, voxel).shape == (0, 2)
    assert hsp.interpolate(x, torch.zeros(4, 3), torch.zeros(4).long()).tolist() == [[0.0, 0.0]] * 4
    assert hsp.interpolate(tensor(), torch.zeros(0, 3), torch.zeros(0).long()).shape == (0, 2)


FEATURES, POINTS, EVENTS = cloud(4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": FEATURES[:3]}, r"features must be \(4, C\)"),
        ({"features": FEATURES.half()}, "on the CPU use bfloat16"),
        ({"points": POINTS[:, :2]}, r"points must be \(T, 3\)"),
        ({"points": POINTS.int()}, "floating point"),
        ({"events": EVENTS[:3]}, r"events must be \(4,\)"),
        ({"events": EVENTS.float()}, "int32 or int64"),
        ({"size": 0.0}, "size must be above 0"),
        ({"size": (1.0, 2.0)}, "one for each of 3 axes"),
        ({"low": float("nan")}, "low must be a finite number"),
        ({"reduce": "median"}, "reduce must be 'sum', 'mean' or 'max', not 'median'"),
        ({"outside": "clip"}, "outside must be 'raise' or 'drop', not 'clip'"),
        ({"spatial_shape": (5, 0, 6)}, "1 to 2\\^31"),
        ({"points": POINTS.to("meta")}, "points must be on the CPU"),
    ],
)
def test_points_that_do_not_fit_are_refused(changes, message):
    given = {"features": FEATURES, "points": POINTS, "events": EVENTS, "spatial_shape": SHAPE, "batch_size": 3}
    with pytest.raises(SpecError, match=message):
        hsp.point_to_voxel(**{**given, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: hsp.interpolate(x, POINTS, EVENTS, mode="cubic"), "mode must be 'linear' or 'nearest', not 'cubic'"),
        (lambda x: hsp.interpolate(x, POINTS[:, :1], EVENTS), r"points must be \(T, 3\)"),
        (lambda x: hsp.interpolate(x.half(), POINTS, EVENTS), "on the CPU use bfloat16"),
        (lambda x: hsp.voxel_to_point(x, EVENTS), r"voxel must be \(T,\) int32"),
    ],
)
def test_lookups_that_do_not_fit_are_refused(call, message):
    with pytest.raises(SpecError, match=message):
        call(tensor())


def test_rows_that_are_not_there_and_coordinates_that_are_no_numbers_are_errors():
    x = tensor()
    with pytest.raises(ValueError, match=f"must be one of {len(x)} rows, not {len(x)}"):
        hsp.voxel_to_point(x, torch.tensor([0, len(x)], dtype=torch.int32))
    with pytest.raises(ProcessError, match="must be finite, and point 1 is at"):
        hsp.interpolate(x, torch.tensor([[1.0, 1, 1], [1, torch.nan, 1]]), torch.tensor([0, 0]))
    with pytest.raises(ProcessError, match="must be finite, and point 0"):
        hsp.point_to_voxel(FEATURES, POINTS / 0, EVENTS, SHAPE, 3)
