"""Reversed and shifted sites of sparse images: sorted, and those within the window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepfeed import voxels
from hepfeed.errors import SpecError
from hepfeed.reference import voxels as reference
from hepfeed.tensors import Sparse


def random_images(random, events, shape, occupancy, channels=1, dtype=np.float32):
    dense = random.random((events, *shape)) < occupancy
    indices = np.argwhere(dense).astype(np.int32)
    return Sparse(random.normal(size=(len(indices), channels)).astype(dtype), indices, shape, events)


def same(one, other):
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.features, other.features)
    assert one.features.dtype == other.features.dtype
    assert (one.spatial_shape, one.batch_size) == (other.spatial_shape, other.batch_size)


def test_a_site_goes_where_the_equation_says():
    image = Sparse(np.array([[1.0], [2.0], [3.0]]), np.array([[0, 0, 1], [0, 2, 0], [1, 2, 3]], np.int32), (3, 4), 2)
    reverse = np.array([[True, False], [False, True]])
    moved = voxels.move_sites(image, reverse, np.array([[0, 0], [1, 0]]), (2, 4))
    assert moved.indices.tolist() == [[0, 0, 0], [1, 1, 0]]
    assert moved.features.tolist() == [[2.0], [3.0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(["f4", "f8", "u1", "i8"]))
def test_sites_are_those_of_the_plain_twin(seed, axes, dtype):
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 7, axes).tolist())
    events = int(random.integers(0, 5))
    image = random_images(random, events, shape, random.random(), int(random.integers(0, 4)), dtype)
    reverse = random.random((events, axes)) < 0.5 if random.random() < 0.8 else None
    origin = random.integers(-3, 4, (events, axes)) if random.random() < 0.8 else None
    window = tuple(random.integers(1, 8, axes).tolist())
    same(voxels.move_sites(image, reverse, origin, window), reference.move_sites(image, reverse, origin, window))


def test_reversing_twice_gives_the_image_back():
    random = np.random.default_rng(1)
    image = random_images(random, 6, (5, 6, 7), 0.3)
    reverse = random.random((6, 3)) < 0.5
    same(voxels.move_sites(voxels.move_sites(image, reverse, None, (5, 6, 7)), reverse, None, (5, 6, 7)), image)


def test_arrays_must_fit():
    image = random_images(np.random.default_rng(1), 2, (3, 4), 0.5)
    with pytest.raises(SpecError, match=r"reverse must be of shape \(2, 2\), not \(2, 3\)"):
        voxels.move_sites(image, np.zeros((2, 3), bool), None, (3, 4))
    with pytest.raises(SpecError, match=r"origin must be of shape \(2, 2\)"):
        voxels.move_sites(image, None, np.zeros((1, 2), np.int64), (3, 4))
    with pytest.raises(SpecError, match="int32 were expected"):
        voxels.move_sites(image, None, None, (3, 4, 5))
