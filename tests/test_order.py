"""Random numbers by purpose, and how well events are shuffled."""

import numpy as np
import pytest
from events import write_file

from hepfeed.filler import Filler
from hepfeed.index import EventIndex
from hepfeed.order import generator, neighbour_distance, same_block_fraction
from hepfeed.spec import SampleSpec


def test_a_purpose_always_has_the_same_random_numbers():
    first = generator(1, "lane", 2, 3).integers(2**32, size=4)
    assert (generator(1, "lane", 2, 3).integers(2**32, size=4) == first).all()
    # Fixed: an order that was saved must not change with a version of this package.
    assert first.tolist() == [810469295, 4138813540, 418066153, 3966072090]


def test_another_purpose_or_seed_has_others():
    purposes = [(1, "a"), (2, "a"), (1, "b"), (1, "a", 0), (1, "a", 0, 0), (-1, "a"), (2**63, "a")]
    assert len({int(generator(*purpose).integers(2**62)) for purpose in purposes}) == len(purposes)


def test_an_unshuffled_order_has_no_quality():
    assert neighbour_distance(np.arange(1000)) == pytest.approx(1 / (1000 * (1 - 0.5**0.5)))


def test_a_random_permutation_is_perfect():
    assert neighbour_distance(np.random.default_rng(0).permutation(20_000)) == pytest.approx(1, abs=0.03)


def test_neighbours_that_are_halved_and_interleaved_are_a_half_apart():
    position = np.concatenate([np.arange(0, 1000, 2), np.arange(1, 1000, 2)])
    assert neighbour_distance(position) == pytest.approx(500 / 292.9, abs=0.01)


def test_the_fraction_of_a_block_is_counted_in_pairs():
    # Batch 0 has blocks 0, 0, 1: one of three pairs; batch 1 has 2, 2, 2: three of three.
    assert same_block_fraction(np.array([0, 2, 0, 2, 1, 2]), np.array([0, 1, 0, 1, 0, 1])) == pytest.approx(4 / 6)


# ---- the orders of the filler, measured


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """4,000 events of two classes in chunks of 100."""
    folder = tmp_path_factory.mktemp("order")
    samples = []
    for number, label in enumerate("ab"):
        for file in range(2):
            write_file(folder / label / f"{file}.h5", 1000, number=number, file=file, layout="hundred_event_chunks")
        samples.append([str(folder / label), ["image"], label])
    return EventIndex(SampleSpec(samples))


def measured(index, order):
    """Return both qualities of an epoch at batch size 64."""
    filler = Filler(index, batch_size=64, order=order, seed=3)
    batches = list(filler.batches(0))
    file, row = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("file", "row"))
    batch = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
    position = index.file_start[file] + row
    return neighbour_distance(position), same_block_fraction(position // 100, batch)


def test_a_full_shuffle_is_a_random_permutation(index):
    distance, together = measured(index, "full")
    assert distance == pytest.approx(1, abs=0.05)
    assert together == pytest.approx(99 / 3999, abs=0.005)  # pairs of one block among all pairs


def test_windows_mix_blocks_of_every_class(index):
    _, together = measured(index, "window")
    # A window takes 2,048 events: some 21 blocks; a batch of 64 has about 3 events of each.
    assert together < 0.07


def test_mixed_classes_keep_the_order_of_their_files(index):
    distance, together = measured(index, "mixed")
    assert distance < 0.01
    assert together > 0.4


def test_a_sequential_order_is_not_shuffled(index):
    distance, together = measured(index, "sequential")
    assert distance < 0.001
    assert together > 0.7
