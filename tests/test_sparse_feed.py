"""From files of points to sparse images with a label for every site, as a segmentation network takes them."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import hepfeed as hf
import hepfeed.sparse as hsp
from hepfeed.synthetic import make_vertices
from hepfeed.tensors import Jagged, Sparse
from hepfeed.transforms import Crop, Flip, FlipPoints, Voxelise

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

EVENTS = 30
SHAPE, LOW, SIZE = (32, 24, 60), (-240.0, -180.0, 0.0), 15.0
GRID = {"points": "coords", "shape": SHAPE, "low": LOW, "size": SIZE, "into": "image"}
LABELLED = {**GRID, "features": "charge", "labels": "semantic", "labels_into": "truth"}
MIRRORS = (0.0, 0.0, 450.0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Events of tracks and showers: small enough to be made in a second."""
    folder = tmp_path_factory.mktemp("vertices")
    return make_vertices(folder, files=1, events=EVENTS, energy=(30.0, 120.0), ragged=True, chunks=8, workers=1)


def epoch(spec, transform, readers=0, **options):
    with hf.DataLoader(
        hf.EventDataset(spec, transform=transform, **options.pop("dataset", {})),
        8,
        shuffle=True,
        num_workers=readers,
        seed=3,
        **options,
    ) as loader:
        return list(loader)


def points_of(path, row):
    """Coordinates, charge and class of the points of an event, as h5py reads them."""
    with h5py.File(path) as file:
        rows = slice(*file["offsets"][row : row + 2])
        return tuple(file[name][rows] for name in ("coords", "charge", "semantic"))


def voxels_of(coords, charge, semantic):
    """Sites in ascending order, their charge, and the class of the point with the largest charge, one by one."""
    cells = {}
    for row, place in enumerate(np.floor((coords.astype(np.float64) - LOW) / SIZE).astype(int)):
        if np.all((place >= 0) & (place < SHAPE)):
            cells.setdefault(tuple(place.tolist()), []).append(row)
    sites = sorted(cells)
    sums = [np.float32(charge[cells[site]].astype(np.float64).sum()) for site in sites]
    classes = [semantic[max(cells[site], key=lambda row: (charge[row], -row))] for site in sites]
    return sites, np.array(sums), np.array(classes)


def event_of(batch, place):
    """Sites, features and labels of one event of a batch."""
    image, truth = batch["image"], batch["truth"]
    rows = image.indices[:, 0] == place
    return image.indices[rows, 1:].tolist(), image.features[rows].numpy(), truth[place].numpy()


@pytest.mark.parametrize("readers", [0, 2])
def test_labels_come_in_the_order_of_the_sites_and_are_those_of_the_file(spec, readers):
    seen, classes = 0, set()
    for batch in epoch(spec, [Voxelise(**LABELLED)], readers):
        assert isinstance(batch["image"], Sparse)
        assert isinstance(batch["truth"], Jagged)
        assert batch["truth"].values.dtype == torch.uint8
        assert len(batch["truth"].values) == len(batch["image"].indices)
        for place, (_, row) in enumerate(batch["event"].tolist()):
            sites, sums, labels = voxels_of(*points_of(spec[0][0].replace("*", "1"), row))
            found = event_of(batch, place)
            assert [tuple(site) for site in found[0]] == sites
            np.testing.assert_array_equal(found[1][:, 0], sums)
            np.testing.assert_array_equal(found[2], labels)
            classes |= set(labels.tolist())
            seen += 1
    assert seen == EVENTS
    assert classes == {0, 1, 2}


def test_labels_stay_with_their_sites_when_points_are_mirrored(spec):
    mirror = FlipPoints(coords="coords", axes=(0, 1, 2), about=MIRRORS)
    flips = set()
    for batch in epoch(spec, [mirror, Voxelise(**LABELLED, keep=True)], 2):
        for place, (_, row) in enumerate(batch["event"].tolist()):
            coords, charge, semantic = points_of(spec[0][0].replace("*", "1"), row)
            moved = batch["coords"][place].numpy()
            turned = [not np.array_equal(moved[:, axis], coords[:, axis]) for axis in range(3)]
            expected = np.where(turned, 2 * np.array(MIRRORS) - coords, coords)
            np.testing.assert_allclose(moved, expected, atol=1e-4)
            np.testing.assert_array_equal(batch["charge"][place].numpy(), charge)
            sites, sums, labels = voxels_of(moved, charge, semantic)
            found = event_of(batch, place)
            assert [tuple(site) for site in found[0]] == sites
            np.testing.assert_array_equal(found[1][:, 0], sums)
            np.testing.assert_array_equal(found[2], labels)
            flips.add(tuple(turned))
    assert len(flips) >= 6


def test_labels_and_images_from_the_cache_are_those_of_the_files(spec, tmp_path):
    steps = [Voxelise(**LABELLED), "cache"]
    with hf.DataLoader(
        hf.EventDataset(spec, transform=steps, cache=tmp_path / "cache"), 8, num_workers=1, seed=3
    ) as loader:
        first, second = list(loader), list(loader)
    plain = epoch(spec, [Voxelise(**LABELLED)])
    rows = {
        tuple(event): event_of(batch, place) for batch in plain for place, event in enumerate(batch["event"].tolist())
    }
    for batches in (first, second):
        seen = 0
        for batch in batches:
            for place, event in enumerate(batch["event"].tolist()):
                for one, other in zip(event_of(batch, place), rows[tuple(event)], strict=True):
                    np.testing.assert_array_equal(one, other)
                seen += 1
        assert seen == EVENTS


def test_labels_as_a_channel_move_with_the_sites_of_images(spec):
    image = Voxelise(**GRID, features=("charge", "semantic"), reduce=("sum", "max"))
    moves = [Flip(keys="image", axes=(0, 1, 2)), Crop(keys="image", shape=(24, 24, 48), at="maximum", shift=2)]
    plain = epoch(spec, [image])
    moved = epoch(spec, [image, *moves], 2)
    assert len(plain) == len(moved)
    changed = 0
    for before, after in zip(plain, moved, strict=True):
        assert torch.equal(before["event"], after["event"])
        for place in range(len(before["event"])):
            one, other = (batch["image"].features[batch["image"].indices[:, 0] == place] for batch in (before, after))
            # A site keeps its pair of charge and class wherever it goes; the crop takes some away.
            pairs = {tuple(pair) for pair in one.tolist()}
            assert {tuple(pair) for pair in other.tolist()} <= pairs
            changed += not torch.equal(one, other)
    assert changed > EVENTS / 2


def test_labels_as_an_image_of_their_own_move_like_the_image(spec):
    charge = Voxelise(**GRID, features="charge", keep=True)
    classes = Voxelise(**{**GRID, "into": "classes"}, features="semantic", reduce="max")
    for batch in epoch(spec, [charge, classes, Flip(keys=("image", "classes"), axes=(0, 2))]):
        assert torch.equal(batch["image"].indices, batch["classes"].indices)
        assert set(batch["classes"].features.unique().tolist()) <= {0.0, 1.0, 2.0}


SUBMANIFOLD = {"kernel_size": 3, "submanifold": True}
CHAIN = [SUBMANIFOLD, {"kernel_size": 2, "stride": 2}, SUBMANIFOLD]


def hourglass():
    torch.manual_seed(0)
    return hsp.SparseSequential(
        hsp.SubMConv3d(1, 4, 3),
        hsp.SparseReLU(),
        hsp.SparseConv3d(4, 8, 2, stride=2, indice_key="down"),
        hsp.SubMConv3d(8, 8, 3),
        hsp.SparseInverseConv3d(8, 3, 2, indice_key="down"),
    )


def trained(image, truth):
    """Logits and gradients of a network, bytes of each."""
    net = hourglass()
    y = net(hsp.SparseTensor.from_feed(image))
    assert torch.equal(y.indices, image.indices)
    torch.nn.functional.cross_entropy(y.features, truth.values.long()).backward()
    return [y.features.detach().numpy().tobytes(), *(each.grad.numpy().tobytes() for each in net.parameters())]


@pytest.mark.parametrize("readers", [0, 2])
def test_with_the_maps_of_the_readers_a_network_builds_none_and_gives_the_same_bits(spec, readers, monkeypatch):
    batches = epoch(spec, [Voxelise(**LABELLED)], readers, prebuild=CHAIN)
    own = [trained(replace(batch["image"], kernel_maps=()), batch["truth"]) for batch in batches]

    def build(*arguments):
        raise AssertionError("a kernel map was built")

    monkeypatch.setattr("hepfeed.sparse.maps.kernel_map", build)
    assert [trained(batch["image"], batch["truth"]) for batch in batches] == own
    with pytest.raises(AssertionError, match="a kernel map was built"):
        trained(replace(batches[0]["image"], kernel_maps=()), batches[0]["truth"])


def test_a_sparse_tensor_has_the_sites_and_features_of_the_batch_without_a_copy(spec):
    for batch in epoch(spec, [Voxelise(**LABELLED)], 1):
        x = hsp.SparseTensor.from_feed(batch["image"])
        assert x.features.data_ptr() == batch["image"].features.data_ptr()
        assert x.indices.data_ptr() == batch["image"].indices.data_ptr()
        assert (x.spatial_shape, x.batch_size) == (SHAPE, len(batch["event"]))
        dense = x.dense()[:, 0]
        charge = batch["image"].features.sum(dtype=torch.float64)
        torch.testing.assert_close(dense.sum(dtype=torch.float64), charge)


def test_an_event_without_a_site_passes_through(spec):
    image = Voxelise(**{**LABELLED, "low": (1e4, 0.0, 0.0)})
    for batch in epoch(spec, [image], prebuild=CHAIN):
        assert len(batch["truth"].values) == 0
        y = hourglass()(hsp.SparseTensor.from_feed(batch["image"]))
        assert y.features.shape == (0, 3)
        y.features.sum().backward()
