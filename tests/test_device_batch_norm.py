"""Batch normalisation on a device: the kernels against their plain NumPy form and against those of the CPU."""

import itertools

import numpy as np
import pytest
import torch

from hepfeed.device import batch_norm as device
from hepfeed.errors import SpecError
from hepfeed.reference import rows as reference
from hepfeed.sparse import batch_norm as operators

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
EPS = 1e-3
SIZES = [(2, 1), (31, 5), (32, 16), (33, 3), (63, 8), (127, 4), (129, 33), (300, 130), (1030, 12)]
"""Rows and channels: below, at and above what blocks of any dtype take."""


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    return request.param


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


class Case:
    """Rows, a gradient, a weight and a bias; and what they come to in NumPy."""

    def __init__(self, rows, channels, dtype, backend, seed=0):
        random = torch.Generator().manual_seed(seed)

        def drawn(*shape, dtype=dtype):
            return torch.randn(shape, dtype=torch.float64, generator=random).to(dtype).to(backend.device)

        self.x, self.grad = drawn(rows, channels), drawn(rows, channels)
        self.weight, self.bias = drawn(channels, dtype=wide(dtype)), drawn(channels, dtype=wide(dtype))

    def plain(self):
        return [plain(each) for each in (self.x, self.weight, self.bias)]


def plain(tensor):
    return tensor.cpu().double().numpy()


def assert_near(made, expected, dtype, scale=1.0):
    assert made.dtype == dtype
    np.testing.assert_allclose(plain(made), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def normalised(case, relu=False, training=True, running=(None, None), affine=True):
    parameters = (case.weight, case.bias) if affine else (None, None)
    return device.batch_norm(case.x, *parameters, *running, training, EPS, relu)


@pytest.mark.parametrize("relu", [False, True])
def test_rows_are_normalised_as_by_their_twin(backend, dtype, relu):
    for rows, channels in SIZES:
        case = Case(rows, channels, dtype, backend)
        out, mean, inverse, variance = normalised(case, relu)
        twin, centre, spread = reference.batch_norm(*case.plain(), EPS, relu)
        kind = wide(dtype)
        assert_near(mean, centre, kind)
        assert_near(inverse, 1 / np.sqrt(spread + EPS), kind, 4)
        assert_near(variance, spread * rows / (rows - 1), kind)
        assert_near(out, twin, dtype, 30)


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_equal_those_of_their_twin(backend, dtype, relu):
    kind = wide(dtype)
    for rows, channels in SIZES[1:]:
        case = Case(rows, channels, dtype, backend)
        _, mean, inverse, _ = normalised(case, relu)
        made = device.batch_norm_grad(case.grad, case.x, case.weight, case.bias, mean, inverse, True, EPS, relu)
        expected = reference.batch_norm_grad(plain(case.grad), *case.plain(), EPS, relu)
        assert_near(made[0], expected[0], dtype, 100)
        assert_near(made[1], expected[1], kind, 10 * rows)
        assert_near(made[2], expected[2], kind, 10 * rows)


@pytest.mark.parametrize("rows", [0, 1, 2, 70])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_results_are_those_of_the_cpu(backend, training, affine, rows):
    case = Case(rows, 5, torch.float64, backend)
    random = np.random.default_rng(0)
    running = [torch.from_numpy(random.random(5)).to(backend.device) for _ in range(2)]
    for statistics, relu in itertools.product((running, (None, None)), (False, True)):
        if statistics[0] is None and (rows == 1 or (not training and rows)):
            with pytest.raises(SpecError, match="needs two sites or more in training, not"):
                normalised(case, relu, training, statistics, affine)
            continue
        made = normalised(case, relu, training, statistics, affine)
        parameters = (case.weight, case.bias) if affine else (None, None)
        given = [None if each is None else each.cpu() for each in (case.x, *parameters, *statistics)]
        expected = operators.batch_norm(*given, training, EPS, relu)
        assert_all_near(made, expected)
        gradients = device.batch_norm_grad(case.grad, case.x, *parameters, *made[1:3], training, EPS, relu)
        theirs = operators.batch_norm_grad(case.grad.cpu(), *given[:3], *expected[1:3], training, EPS, relu)
        assert_all_near(gradients, theirs)


def assert_all_near(made, expected):
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-11, atol=1e-11)


def test_parameters_of_another_dtype_are_converted(backend):
    case = Case(40, 3, torch.float32, backend)
    expected = normalised(case)
    case.weight, case.bias = case.weight.double(), case.bias.double()
    for made, one in zip(normalised(case), expected, strict=True):
        assert torch.equal(made, one)


def test_statistics_of_another_dtype_give_gradients_of_that_of_the_sums(backend):
    case = Case(5, 40, torch.float64, backend)
    mean, inverse = case.x.mean(0), 1 / case.x.std(0)
    parameters = case.grad, case.x, case.weight, case.bias
    made = device.batch_norm_grad(*parameters, mean.bfloat16(), inverse.float(), True, EPS, False)
    expected = device.batch_norm_grad(*parameters, mean.bfloat16().double(), inverse.float().double(), True, EPS, False)
    for a, b in zip(made, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stays_in_its_row_where_the_statistics_are_given(backend, bad):
    case = Case(5, 3, torch.float32, backend)
    case.grad[1, 0] = bad
    statistics = case.x.mean(0), 1 / case.x.std(0)
    made, *_ = device.batch_norm_grad(case.grad, case.x, None, None, *statistics, False, EPS, False)
    assert made.isfinite().logical_not().nonzero().tolist() == [[1, 0]]


def test_moments_far_from_zero_keep_their_digits(backend):
    x = (torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) + 1000).to(backend.device)
    _, mean, _, variance = device.batch_norm(x, None, None, None, None, True, EPS, False)
    np.testing.assert_allclose(plain(mean), plain(x).mean(0), rtol=1e-7)
    np.testing.assert_allclose(plain(variance), plain(x).var(0, ddof=1), rtol=1e-5)


def test_an_outlier_in_the_first_row_costs_no_digits(backend):
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    x[0] = 1e4
    x = x.to(backend.device)
    _, _, _, variance = device.batch_norm(x, None, None, None, None, True, EPS, False)
    np.testing.assert_allclose(plain(variance), plain(x).var(0, ddof=1), rtol=1e-6)


def test_a_channel_that_never_changes_has_no_variance(backend):
    x = torch.full((500, 3), 0.1, device=backend.device)
    out, mean, _, variance = device.batch_norm(x, None, None, None, None, True, EPS, False)
    assert torch.equal(mean, x[0])
    assert not variance.any()
    assert not out.any()


def test_relu_keeps_nan_and_cuts_gradients_where_it_cut(backend, dtype):
    case = Case(64, 4, dtype, backend)
    case.x[3, 1] = torch.nan
    out, mean, inverse, _ = normalised(case, relu=True)
    assert out[:, 1].isnan().all()
    assert (out[:, 0] >= 0).all()
    grad, _, of_bias = device.batch_norm_grad(
        torch.ones_like(case.x), case.x, case.weight, case.bias, mean, inverse, False, EPS, True
    )
    passed = out[:, 0] > 0
    assert torch.equal(grad[:, 0] != 0, passed)
    assert of_bias[0] == passed.sum()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_results_are_the_same_bits_in_every_order_of_threads(backend, dtype, seed):
    case = Case(300, 20, dtype, backend)

    def everything():
        made = normalised(case, relu=True)
        grad = device.batch_norm_grad(case.grad, case.x, case.weight, case.bias, *made[1:3], True, EPS, True)
        return [*made, *grad]

    expected = everything()
    backend.seed(seed)
    for made, one in zip(everything(), expected, strict=True):
        assert torch.equal(made, one)


def test_rows_that_do_not_lie_well_are_normalised_too(backend):
    case = Case(66, 8, torch.float32, backend)
    expected = normalised(case)
    storage = torch.zeros(66 * 8 + 1, device=backend.device)
    storage[1:] = case.x.flatten()
    for x in (storage[1:].view(66, 8), case.x.t().contiguous().t()):
        case.x = x
        for made, one in zip(normalised(case), expected, strict=True):
            assert torch.equal(made, one)


def test_no_channels_are_no_trouble(backend):
    x = torch.zeros(5, 0, device=backend.device)
    out, mean, inverse, _ = device.batch_norm(x, None, None, None, None, True, EPS, False)
    assert out.shape == (5, 0)
    assert mean.shape == (0,)
    assert device.batch_norm_grad(x, x, None, None, mean, inverse, True, EPS, False)[0].shape == (5, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": lambda t: t.int()}, SpecError, "features must be float32, float64, bfloat16 or float16"),
        ({"weight": lambda t: t[1:]}, ValueError, "weight must have a number for each of 5 channels"),
        ({"bias": lambda t: t.to("meta")}, SpecError, "bias must be on"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(backend, change, error, message):
    case = Case(7, 5, torch.float32, backend)
    for name, function in change.items():
        setattr(case, name, function(getattr(case, name)))
    with pytest.raises(error, match=message):
        normalised(case)


def test_a_gradient_of_other_rows_is_refused(backend):
    case = Case(7, 5, torch.float32, backend)
    with pytest.raises(ValueError, match=r"grad must be \(7, 5\), not \(6, 5\)"):
        device.batch_norm_grad(case.grad[1:], case.x, None, None, case.bias, case.weight, True, EPS, False)
