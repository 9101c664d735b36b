"""Steps in the readers, from files to torch tensors: every kind of result, random numbers, and events that go."""

import h5py
import numpy as np
import pytest
import torch

import hepfeed as hf
from hepfeed import presets
from hepfeed.errors import CorruptDataError, ProcessError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, Structured

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SHAPE = (6, 7, 5)
MAPS = [{"kernel_size": 3, "submanifold": True}, {"kernel_size": 2, "stride": 2}]
RANDOM = [
    {"sparsify": {"keys": "image", "into": "sites"}},
    "cache",
    {"flip": {"keys": ["image", "mask", "sites"], "axes": [0, 2]}},
    {"translate": {"keys": ["image", "mask"], "pixels": [1, 1, 1]}},
    {"gaussian_noise": {"keys": "image", "sigma": 0.1, "only_active": True}},
    {"jitter": {"coords": "hits/xyz", "sigma": 0.1}},
    {"drop_points": {"keys": ["hits/xyz", "hits/charge"], "probability": 0.2}},
    {"drop_out": {"keys": "sites", "probability": 0.1}},
]


@pytest.fixture
def spec(tmp_path):
    """Two classes of 40 events: images with segmentation masks, and hits; event 3 of each file is empty."""
    for number, label in enumerate(("electron", "pion")):
        random = np.random.default_rng(number)
        counts = random.poisson(12, 40)
        image = random.exponential(size=(40, *SHAPE)) * (random.random((40, *SHAPE)) < 0.1)
        counts[3], image[3] = 0, 0
        with h5py.File(tmp_path / f"{label}.h5", "w") as file:
            file.create_dataset("image", data=image.astype("f4"), chunks=(8, *SHAPE), compression=1)
            file["mask"] = (image > 1).astype("u1")
            file["energy"] = random.exponential(size=40)
            file["hits/xyz"] = random.normal(size=(int(counts.sum()), 3)).astype("f4")
            file["hits/charge"] = random.exponential(size=int(counts.sum())).astype("f4")
            file["hits/offsets"] = np.concatenate([[0], np.cumsum(counts)])
    keys = ["image", "mask", "energy", "hits/xyz", "hits/charge"]
    return [[str(tmp_path / f"{label}.h5"), keys, label] for label in ("electron", "pion")]


def contents(batches):
    """The bytes of all arrays of batches, with their types and shapes."""
    found = []
    for batch in batches:
        parts = {name: v.arrays() if isinstance(v, Structured) else {"": v} for name, v in batch.items()}
        found.append(
            {
                (name, part): (array.dtype, array.shape, array.numpy().tobytes())
                for name, arrays in parts.items()
                for part, array in arrays.items()
            }
        )
    return found


def epoch(spec, transform, readers=0, batch_size=16, epochs=1, **options):
    """The batches of the last of some epochs."""
    with hf.DataLoader(
        hf.EventDataset(spec, transform=transform), batch_size, shuffle=True, num_workers=readers, seed=3, **options
    ) as loader:
        for _ in range(epochs - 1):
            list(loader)
        return list(loader)


def test_augmented_epochs_have_the_same_bits_for_any_number_of_readers(spec):
    epochs = [contents(epoch(spec, RANDOM, readers)) for readers in (0, 1, 3)]
    assert epochs[0] == epochs[1] == epochs[2]


def test_augmentation_differs_from_epoch_to_epoch_and_comes_again(spec):
    first, second = (contents(epoch(spec, RANDOM, epochs=n)) for n in (1, 2))
    assert first != second
    assert contents(epoch(spec, RANDOM, readers=2, epochs=2)) == second


def test_an_event_is_augmented_alike_in_batches_of_any_size(spec):
    def events(batches):
        return {
            tuple(event): [
                batch[name][place].numpy().tobytes() for name in ("image", "mask", "hits/xyz", "hits/charge")
            ]
            for batch in batches
            for place, event in enumerate(batch["event"].tolist())
        }

    assert events(epoch(spec, RANDOM, batch_size=16)) == events(epoch(spec, RANDOM, batch_size=7, readers=2))


def test_masks_turn_with_their_images(spec):
    for batch in epoch(spec, [{"flip": {"keys": ["image", "mask"], "axes": [0, 1, 2]}}], readers=2):
        assert torch.equal(batch["mask"], (batch["image"] > 1).to(torch.uint8))


@pytest.mark.parametrize("readers", [0, 2])
def test_sparse_images_come_with_the_kernel_maps_of_the_readers(spec, readers):
    seen = 0
    steps = [{"sparsify": {"keys": "image"}}, {"select": {"keys": "image"}}]
    for batch in epoch(spec, steps, readers, prebuild=MAPS):
        image = batch["image"]
        assert isinstance(image, Sparse)
        assert image.indices.dtype == torch.int32
        assert (image.batch_size, image.spatial_shape) == (len(batch["label"]), SHAPE)
        indices, shape = image.indices.numpy(), image.spatial_shape
        for options, delivered in zip(MAPS, image.kernel_maps, strict=True):
            expected = build_kernel_map(indices, shape, image.batch_size, **options)
            for name, array in expected.arrays().items():
                assert torch.equal(delivered.arrays()[name], torch.from_numpy(array)), name
            indices, shape = expected.indices, expected.spatial_shape
        seen += len(batch["label"])
    assert seen == 80


def test_kernel_maps_need_sparse_images(spec):
    with pytest.raises(ProcessError, match="kernel maps need sparse images, and the batch has none"):
        epoch(spec, None, prebuild=MAPS)


@pytest.mark.parametrize("readers", [0, 2])
def test_every_kind_of_tensors_arrives(spec, readers):
    box = {"shape": [4, 4, 4], "low": [-4.0] * 3, "high": [4.0] * 3}
    steps = [
        {"graph": {"points": "hits/xyz", "k": 3, "into": "graph"}},
        {"voxelise": {"points": "hits/xyz", "features": "hits/charge", **box, "into": "voxels", "keep": True}},
        {"pad_rows": {"keys": "hits/charge", "length": 40}},
        {"densify": {"keys": "voxels", "into": "dense"}},
    ]
    for batch in epoch(spec, steps, readers):
        hits, padded, graph = batch["hits/xyz"], batch["hits/charge"], batch["graph"]
        assert isinstance(hits, Jagged)
        assert isinstance(padded, Padded)
        assert isinstance(graph, Graph)
        assert torch.equal(padded.mask.sum(1), hits.lengths())
        assert torch.equal(graph.offsets, hits.offsets)
        assert (graph.edge_index < len(hits.values)).all()
        site = batch["voxels"].indices.long()
        assert torch.equal(batch["dense"][tuple(site.T)], batch["voxels"].features[:, 0])
        inside = ((hits.values >= -4) & (hits.values < 4)).all(1)
        charge = padded.values[padded.mask][inside]
        torch.testing.assert_close(batch["dense"].sum(), charge.sum())


def test_a_batch_whose_events_are_all_empty_goes_through_all_steps(spec):
    only = [{"files": files, "keys": keys, "label": label, "filter": "energy < 0"} for files, keys, label in spec]
    for sample in only:
        with h5py.File(sample["files"], "r+") as file:
            file["energy"][3] = -1.0
    box = {"shape": [4, 4, 4], "low": [-4.0] * 3, "high": [4.0] * 3}
    voxelise = {"voxelise": {"points": "hits/xyz", **box, "into": "voxels", "keep": True}}
    steps = [*RANDOM, voxelise, {"graph": {"points": "hits/xyz", "k": 3}}]
    (batch,) = epoch(only, steps, readers=1)
    assert len(batch["label"]) == 2
    assert batch["sites"].indices.shape == (0, 4)
    assert batch["voxels"].features.shape == (0, 1)
    assert batch["voxels"].batch_size == 2
    assert batch["hits/xyz"].offsets.tolist() == [0, 0, 0]
    assert batch["graph"].edge_index.shape == (2, 0)


@pytest.mark.parametrize("readers", [0, 2])
def test_what_is_not_finite_is_refused_zeroed_or_dropped_and_counted(spec, readers):
    with h5py.File(spec[0][0], "r+") as file:
        file["energy"][5] = np.nan
        file["hits/charge"][file["hits/offsets"][9]] = np.inf
    with pytest.raises(CorruptDataError, match="must have finite numbers, and has nan") as caught:
        list(hf.DataLoader(hf.EventDataset(spec, on_nonfinite="raise"), 16, num_workers=readers))
    assert (caught.value.file, caught.value.event) == (spec[0][0], 5)

    with hf.DataLoader(hf.EventDataset(spec, on_nonfinite="drop"), 16, num_workers=readers) as loader:
        events = {tuple(event) for batch in loader for event in batch["event"].tolist()}
        assert loader.stats()["removed"] == 2
    assert len(events) == 78
    assert not events & {(0, 5), (0, 9)}

    batches = list(hf.DataLoader(hf.EventDataset(spec, on_nonfinite="zero"), 80, num_workers=readers))
    assert batches[0]["energy"][5] == 0.0
    assert torch.isfinite(batches[0]["hits/charge"].values).all()


def test_a_step_that_fails_names_the_event_and_may_leave_it_out(spec):
    with h5py.File(spec[1][0], "r+") as file:
        file["energy"][7] = -3.0
    steps = [{"log": {"keys": "energy", "offset": 0.0}}]
    with pytest.raises(ProcessError) as caught:
        epoch(spec, steps, readers=1)
    assert (caught.value.file, caught.value.event) == (spec[1][0], 7)
    dataset = hf.EventDataset(spec, transform=steps, on_error="skip")
    with hf.DataLoader(dataset, 16, num_workers=1) as loader:
        assert sum(len(batch["label"]) for batch in loader) == 79
        assert loader.stats()["skipped"] == 1


def test_validation_is_not_augmented(spec):
    with hf.DataProvider(
        spec, 16, splits={"train": 0.5, "val": 0.5}, num_workers=1, seed=1, transform=RANDOM
    ) as provider:
        plain = hf.EventDataset(spec, "val", splits={"train": 0.5, "val": 0.5}, split_seed=1)
        expected = {tuple(plain[i]["event"].tolist()): plain[i]["image"] for i in range(len(plain))}
        for batch in provider.val:
            for event, image in zip(batch["event"].tolist(), batch["image"]):
                assert torch.equal(image, expected[tuple(event)])
        changed = sum(len(batch["label"]) for batch in provider.train)
        assert changed == 80 - len(plain)


def test_presets_arrange_batches_with_targets_and_weights(spec):
    rules = {"weights": {"flat": ["energy"], "bins": 4}, "targets": {"log_energy": "log(energy + 1)"}}
    dataset = hf.EventDataset(hf.SampleSpec(spec, **rules))
    outputs = presets.regression(["image"], "log_energy", weighted=True)
    for images, target, weight in hf.DataLoader(dataset, 16, num_workers=1, outputs=outputs):
        (image,) = images
        assert image.shape == (len(target), *SHAPE)
        assert (weight > 0).all()
    x, y = next(iter(hf.DataLoader(dataset, 16, outputs=presets.autoencoder("image"))))
    assert x is y
    x, condition = next(iter(hf.DataLoader(dataset, 16, outputs=presets.conditional_generator("image", "energy"))))
    assert condition.shape == (16,)


def test_a_specification_file_holds_all_steps(spec, tmp_path):
    made = hf.SampleSpec(spec, transforms=RANDOM, targets={"hard": "energy > 1"}, weights={"classes": "balanced"})
    made.save(tmp_path / "spec.yaml")
    again = hf.SampleSpec.load(tmp_path / "spec.yaml")
    assert again == made
    assert again.fingerprint() == made.fingerprint()
    assert contents(epoch(again, None, readers=1)) == contents(epoch(made, None))


def test_kept_batches_of_structured_tensors_do_not_change(spec):
    loader = hf.DataLoader(hf.EventDataset(spec, transform=RANDOM), 4, shuffle=True, num_workers=2, seed=3)
    kept = list(loader)
    assert contents(kept) == contents(epoch(spec, RANDOM, batch_size=4))


def test_batches_travel_to_another_type_as_a_whole(spec):
    batch = next(iter(hf.DataLoader(hf.EventDataset(spec, transform={"sparsify": {"keys": "image"}}), 16)))
    moved = batch["image"].to(torch.float64)
    assert moved.features.dtype == torch.float64
    assert moved.indices.dtype == torch.int32
    assert batch["hits/xyz"].to("cpu").offsets is not None
