"""What the pipeline costs beside reading, and what kernel maps cost the consumer when readers build them.

1. Readers sparsify, normalise, flip and crop the calorimeter images of LCD events from gzip files; the time of these
   steps is set against the time of reading, inflating and scattering in the same epochs.
2. The same batches with and without kernel maps that the readers build: time of the consumer's own process a batch, and
   the rival, maps built by the consumer.

The sparse batches are compared with NumPy on the dense ones before anything is timed.

    python benchmarks/bench_pipeline.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hepfeed as hf
from hepfeed.bench.feeds.lcd import make_set
from hepfeed.kernel_map import build_kernel_map
from hepfeed.tensors import KernelMap, Sparse
from hepfeed.transforms import Crop, Flip, Normalise, Sparsify

BATCH = 128
STEPS = [
    Sparsify(keys="ECAL"),
    "cache",
    Normalise(keys="ECAL", scale=50.0),
    Flip(keys="ECAL", axes=(0, 1)),
    Crop(keys="ECAL", shape=(20, 20, 25)),
]
MAPS: list[dict[str, Any]] = [
    {"kernel_size": 3, "submanifold": True},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "submanifold": True},
]
TARGET = 0.25
READING = ("read", "inflate", "scatter")


def verify(spec: list[list[Any]]) -> None:
    """Compare the first batches with NumPy on the dense images, without the random flip."""
    dense = hf.DataLoader(hf.EventDataset(spec), BATCH)
    sparse = hf.DataLoader(hf.EventDataset(spec, transform=STEPS, augment=False), BATCH, num_workers=1)
    for _, one, other in zip(range(4), dense, sparse):
        image = one["ECAL"].numpy()[:, 2:22, 2:22, :].astype(np.float32) * np.float32(50.0)
        sites = np.argwhere(image > 0)
        np.testing.assert_array_equal(other["ECAL"].indices.numpy(), sites)
        np.testing.assert_allclose(other["ECAL"].features.numpy()[:, 0], image[tuple(sites.T)], rtol=1e-6)
    sparse.close()


def steps_over_reading(spec: list[list[Any]], epochs: int) -> tuple[float, dict[str, float]]:
    """Time of the steps over the time of reading, of one reader, once its memory is there."""
    dataset = hf.EventDataset(spec, transform=STEPS)
    with hf.DataLoader(dataset, BATCH, shuffle=True, num_workers=1, persistent_workers=True, seed=0) as loader:
        before: dict[str, float] = {}
        for epoch in range(1 + epochs):
            for batch in loader:
                assert batch["ECAL"].batch_size == len(batch["label"])
            if epoch == 0:
                before = dict(loader.stats())
        after = loader.stats()
    events = after["events"] - before["events"]
    stages = {stage: (after[stage] - before[stage]) / events for stage in (*READING, "transform")}
    return stages["transform"] / sum(stages[stage] for stage in READING), stages


def same(one: KernelMap, other: KernelMap) -> None:
    """Check that two maps have the same pairs."""
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(other.arrays()[name]))


def build(image: Sparse) -> list[KernelMap]:
    """Build the maps in this process."""
    made: list[KernelMap] = []
    indices, shape = image.indices.numpy(), image.spatial_shape
    for options in MAPS:
        made.append(build_kernel_map(indices, shape, image.batch_size, **options))
        indices, shape = made[-1].indices, made[-1].spatial_shape
    return made


def consumer(spec: list[list[Any]], prebuild: bool, build_here: bool, epochs: int) -> float:
    """CPU seconds of this process a batch."""
    dataset = hf.EventDataset([[*sample[:1], ["ECAL"], *sample[2:]] for sample in spec], transform=STEPS)
    maps = MAPS if prebuild else ()
    with hf.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True, seed=0, prebuild=maps
    ) as loader:
        for batch in loader:  # starts the readers
            if prebuild:
                for one, other in zip(batch["ECAL"].kernel_maps, build(batch["ECAL"])):
                    same(one, other)
        begun, batches = time.process_time(), 0
        for _ in range(epochs):
            for batch in loader:
                batches += 1
                if build_here:
                    build(batch["ECAL"])
        return (time.process_time() - begun) / batches


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 classes x 2 files x 250 events, one round")
    options = parser.parse_args()
    files, events, rounds = (2, 250, 1) if options.quick else (2, 1000, options.rounds)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        spec = make_set(Path(scratch), "auto", files, events)
        verify(spec)
        table = Table(
            title="Steps {sparsify, normalise, flip, crop} in the reader, LCD events, gzip-4; microseconds an event"
        )
        for column in ("round", *READING, "steps", "steps / reading", "should be below"):
            table.add_column(column, justify="right")
        for number in range(rounds):
            part, stages = steps_over_reading(spec, 2)
            figures = [f"{stages[stage] * 1e6:.1f}" for stage in (*READING, "transform")]
            table.add_row(str(number + 1), *figures, f"{part:.3f}", f"{TARGET:g}")
        console.print(table)
        table = Table(title=f"CPU time of the training process a batch of {BATCH}, milliseconds; three kernel maps")
        for column in ("round", "no maps", "built by readers", "built by the consumer", "readers / none"):
            table.add_column(column, justify="right")
        for number in range(rounds):
            none, readers, here = (consumer(spec, p, b, 3) for p, b in ((False, False), (True, False), (False, True)))
            table.add_row(
                str(number + 1),
                f"{none * 1e3:.2f}",
                f"{readers * 1e3:.2f}",
                f"{here * 1e3:.2f}",
                f"{readers / none:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
