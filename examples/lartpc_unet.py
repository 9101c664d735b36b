"""Tell tracks, showers and Bragg ends apart, voxel by voxel, in images of a liquid-argon chamber.

Makes events of several particles from one point, feeds them as sparse images with the class of every voxel, and
trains a sparse U-Net on them, on the CPU.  Without options, in about a minute on two cores:

    python examples/lartpc_unet.py

Finer voxels and more events, whose files stay:

    python examples/lartpc_unet.py --voxel 3 --events 2000 --width 32 --epochs 20 --folder lartpc

What it costs to build the kernel maps in the training process instead of the readers:

    python examples/lartpc_unet.py --no-prebuild

The network is the U-ResNet of L. Dominé and K. Terao, Phys. Rev. D 102 (2020) 012005.  A Bragg end is what lies
within the last 30 mm of a track that stops: there it loses more than twice the energy of a minimum-ionising particle.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import hepfeed as hf
import hepfeed.sparse as hsp
from hepfeed.synthetic import SEMANTIC, make_vertices
from hepfeed.tensors import Sparse
from hepfeed.transforms import FlipPoints, Voxelise

LOW_MM, HIGH_MM = (-240.0, -200.0, 0.0), (240.0, 200.0, 900.0)
CENTRE_MM = tuple((low + high) / 2 for low, high in zip(LOW_MM, HIGH_MM, strict=True))
FILES = 4
MEV_PER_VOXEL = 2.0
"""Scale of the features: they are about 1."""


def steps(voxel_mm: float, depth: int) -> list[Any]:
    """Return what the readers do with the points of an event.

    Points are mirrored before they become voxels, so that the labels of voxels need not be moved; validation leaves
    that out.  The grid is a multiple of the coarsest voxels of a network of that ``depth``.
    """
    coarsest = 2 ** (depth - 1)
    lengths = [(high - low) / voxel_mm for low, high in zip(LOW_MM, HIGH_MM, strict=True)]
    return [
        "cache",
        FlipPoints(coords="coords", axes=(0, 1, 2), about=CENTRE_MM),
        Voxelise(
            points="coords",
            features="charge",
            labels="semantic",  # a voxel has the class of its largest deposit
            shape=tuple(coarsest * math.ceil(length / coarsest) for length in lengths),
            low=LOW_MM,
            size=voxel_mm,
            into="image",
            labels_into="truth",
        ),
    ]


def take(batch: dict[str, Any], image: Sparse | None = None) -> tuple[hsp.SparseTensor, Tensor]:
    """Return the image of a batch, or another one in its place, and the class of each of its sites."""
    x = hsp.SparseTensor.from_feed(batch["image"] if image is None else image)
    return x.replace_feature(x.features / MEV_PER_VOXEL), batch["truth"].values.long()


@dataclass
class Score:
    """How a pass over events went.

    Attributes:
        confusion: ``(3, 3)`` voxels by true and predicted class.
        loss: Sum over voxels.
        events: Seen so far.
        seconds: Of the pass.
        waiting: Seconds of them in which it waited for a batch.
    """

    confusion: Tensor = field(default_factory=lambda: torch.zeros(len(SEMANTIC), len(SEMANTIC), dtype=torch.int64))
    loss: float = 0.0
    events: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def batches(self, loader: hf.DataLoader) -> Iterator[dict[str, Any]]:
        """Go through a loader, and note the time of the pass and of the waits."""
        begun = asked = time.perf_counter()
        for batch in loader:
            self.waiting += time.perf_counter() - asked
            self.events += len(batch["event"])
            yield batch
            asked = time.perf_counter()
        self.seconds += time.perf_counter() - begun

    def add(self, logits: Tensor, truth: Tensor, loss: Tensor) -> None:
        """Count a batch: ``logits (N, 3)``, ``truth (N,)`` and the mean loss."""
        pairs = truth * len(SEMANTIC) + logits.detach().argmax(1)
        self.confusion += pairs.bincount(minlength=len(SEMANTIC) ** 2).view_as(self.confusion)
        self.loss += loss.item() * len(truth)

    @property
    def mean_loss(self) -> float:
        """Loss of a voxel."""
        return self.loss / max(1, int(self.confusion.sum()))

    @property
    def accuracy(self) -> float:
        """Part of the voxels whose class is found."""
        return int(self.confusion.trace()) / max(1, int(self.confusion.sum()))

    @property
    def majority(self) -> float:
        """Accuracy of calling every voxel what most of them are."""
        return int(self.confusion.sum(1).max()) / max(1, int(self.confusion.sum()))

    @property
    def recall(self) -> list[float]:
        """Part of each class that is found."""
        return (self.confusion.diag() / self.confusion.sum(1).clamp(min=1)).tolist()

    @property
    def iou(self) -> list[float]:
        """Intersection over union of the true and the predicted voxels of each class."""
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diag()
        return (self.confusion.diag() / union.clamp(min=1)).tolist()


def class_weights(loader: hf.DataLoader) -> Tensor:
    """Weigh rare classes up, by the root of their frequency in the training events; the pass fills the cache too."""
    counts = torch.zeros(len(SEMANTIC))
    for batch in loader:
        counts += batch["truth"].values.bincount(minlength=len(SEMANTIC))
    weights = counts.clamp(min=1).rsqrt()
    return weights / weights.mean()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, loader: hf.DataLoader, weights: Tensor) -> Score:
    """Train for an epoch."""
    net.train()
    score = Score()
    for batch in score.batches(loader):
        x, truth = take(batch)
        logits = net(x)
        loss = functional.cross_entropy(logits, truth, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        score.add(logits, truth, loss)
    return score


@torch.no_grad()
def evaluate(net: nn.Module, loader: hf.DataLoader, weights: Tensor) -> Score:
    """Predict the voxels of all events of a loader."""
    net.eval()
    score = Score()
    for batch in score.batches(loader):
        x, truth = take(batch)
        logits = net(x)
        score.add(logits, truth, functional.cross_entropy(logits, truth, weights))
    return score


def time_steps(net: nn.Module, batch: dict[str, Any], repetitions: int = 7) -> tuple[float, float]:
    """Return the seconds of a forward and backward pass with the kernel maps that came, and without; best of some."""
    net.train()
    images = (batch["image"], replace(batch["image"], kernel_maps=()))
    seconds = [math.inf, math.inf]
    for _ in range(repetitions):
        for place, image in enumerate(images):
            begun = time.perf_counter()
            x, truth = take(batch, image)
            functional.cross_entropy(net(x), truth).backward()
            seconds[place] = min(seconds[place], time.perf_counter() - begun)
    net.zero_grad()
    return seconds[0], seconds[1]


def draw(path: Path, net: nn.Module, loader: hf.DataLoader) -> None:
    """Draw the event of a loader's first batch that has most voxels in Bragg ends: truth beside prediction."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    net.eval()
    x, truth = take(next(iter(loader)))
    with torch.no_grad():
        found = net(x).argmax(1)
    event = x.indices[:, 0].long()
    counts = event[truth == SEMANTIC.index("bragg")].bincount(minlength=x.batch_size)
    mine = (event == counts.argmax()).numpy()
    _, horizontal, _, along = x.indices.numpy()[mine].T
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, title, classes in zip(panels, ("truth", "prediction"), (truth.numpy(), found.numpy()), strict=True):
        for number, name in enumerate(SEMANTIC):
            chosen = classes[mine] == number
            panel.scatter(along[chosen], horizontal[chosen], s=6, label=f"{name} ({np.count_nonzero(chosen)})")
        panel.set(title=title, xlabel="voxel along the beam", ylabel="voxel along the drift")
        panel.legend()
    figure.savefig(path)


def print_epoch(number: int, training: Score, validation: Score) -> None:
    """Print what an epoch came to."""
    scores = ", ".join(
        f"{name} {100 * recall:.0f}/{100 * iou:.0f}"
        for name, recall, iou in zip(SEMANTIC, validation.recall, validation.iou, strict=True)
    )
    print(
        f"epoch {number}: loss {training.mean_loss:.3f}, validation {validation.mean_loss:.3f},"
        f" accuracy {100 * validation.accuracy:.1f} %; recall/IoU in %: {scores};"
        f" {training.events / training.seconds:.0f} events/s,"
        f" {100 * training.waiting / training.seconds:.0f} % of the time waiting for data",
        flush=True,
    )


def run(options: argparse.Namespace, folder: Path) -> None:
    """Make events, train and report."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    begun = time.perf_counter()
    per_file = -(-options.events // FILES)
    events = make_vertices(
        folder / "events",
        files=FILES,
        events=per_file,
        ragged=True,
        chunks=16,
        compression="gzip",
        seed=options.seed,
    )
    print(f"made {FILES * per_file} events in {time.perf_counter() - begun:.1f} s")
    net = hsp.SparseUNet(1, len(SEMANTIC), width=options.width, depth=options.depth)
    with hf.DataProvider(
        events,
        options.batch_size,
        splits={"train": 0.8, "val": 0.2},
        transform=steps(options.voxel, options.depth),
        prebuild=net.kernel_maps() if options.prebuild else (),
        num_workers=options.workers,
        cache=folder / "cache",
        seed=options.seed,
    ) as provider:
        weights = class_weights(provider.train)
        optimizer = torch.optim.AdamW(net.parameters(), options.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
        for epoch in range(options.epochs):
            training = train(net, optimizer, provider.train, weights)
            schedule.step()
            validation = evaluate(net, provider.val, weights)
            print_epoch(epoch, training, validation)
        found, commonest = 100 * validation.accuracy, 100 * validation.majority
        print(f"accuracy {found:.1f} %, if all were the commonest class {commonest:.1f} %")
        draw(options.picture, net, provider.val)
        print(f"picture of an event: {options.picture}")
        if options.prebuild:
            there, built = time_steps(net, next(iter(provider.train)))
            print(
                f"forward and backward of a batch: {1000 * there:.0f} ms with the kernel maps of the readers,"
                f" {1000 * built:.0f} ms if it builds them itself: a factor of {built / there:.2f}"
            )
        print(provider.train.stats())


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400, help="events, of which a fifth validates (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training events (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="events of a batch (%(default)s)")
    parser.add_argument("--voxel", type=float, default=5.0, help="edge of a voxel in mm (%(default)s)")
    parser.add_argument("--depth", type=int, default=4, help="resolutions of the network (%(default)s)")
    parser.add_argument("--width", type=int, default=16, help="channels at the finest of them (%(default)s)")
    parser.add_argument("--rate", type=float, default=5e-3, help="first learning rate (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="reader processes (%(default)s)")
    # OpenMP's threads spin while they wait: on cores that are taken, they make a step several times slower.
    parser.add_argument("--threads", type=int, help="of the training process (default: cores that the readers leave)")
    parser.add_argument(
        "--prebuild",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the readers build the kernel maps (%(default)s)",
    )
    parser.add_argument("--picture", type=Path, default=Path("lartpc_unet.png"), help="file to draw to (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where events and cache stay (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=0, help="of events, order and network (%(default)s)")
    options = parser.parse_args()
    if options.threads is None:
        options.threads = max(1, len(os.sched_getaffinity(0)) - options.workers)
    for name in ("events", "epochs", "batch_size", "depth", "width", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    if not options.voxel > 0:
        parser.error(f"--voxel must be above 0 mm, got {options.voxel}")
    with tempfile.TemporaryDirectory() as scratch:
        run(options, options.folder or Path(scratch))


if __name__ == "__main__":
    main()
