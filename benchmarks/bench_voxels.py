"""The kernels between points, voxels, images and graphs against their NumPy twins, in one process and thread.

Every result is compared with its twin's before it is timed, and times are the best of several.  ``should be`` is what
the project asks of itself.  Beside the twins stand ``numpy.histogramdd``, a k-d tree of SciPy where that is installed,
and for what only moves data the time of reading (``sum``) or clearing (``fill``) the same memory.  Kernel maps are
among what ``hepfeed bench kernels`` measures.

    python benchmarks/bench_voxels.py [WORD] [--json FILE]        cases whose name has the word
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from race import best, write_table

from hepfeed import _voxels, graphs, voxels
from hepfeed.grid import Box, edges_of
from hepfeed.progress import progress_bars
from hepfeed.reference import graphs as graphs_reference
from hepfeed.reference import voxels as voxels_reference

POINTS = 100_000
TWIN = 5.0

Case = tuple[str, Callable[[], Any], str, Callable[[], Any], float | None]
"""Name, kernel, name of the rival, the rival, and how many times faster the kernel should be."""


def assert_same(one: Any, other: Any) -> None:
    """Compare arrays, structured arrays or tuples of arrays, types included."""
    parts = [list(each.arrays().values()) if hasattr(each, "arrays") else each for each in (one, other)]
    if isinstance(parts[0], np.ndarray):
        parts = [[each] for each in parts]
    for a, b in zip(*parts, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def voxelise_cases() -> Iterator[Case]:
    """Deposits of one large event, half of them in voxels of their own, and of many small events."""
    random = np.random.default_rng(0)
    points = random.normal(0, 20, (POINTS, 3)).astype(np.float32)
    charge = random.exponential(size=POINTS).astype(np.float32)
    one, many = np.array([0, POINTS]), np.linspace(0, POINTS, 129).astype(np.int64)
    for name, offsets, side in (
        ("1 event, 100^3", one, 100),
        ("1 event, 512^3", one, 512),
        ("128 events, 25^3", many, 25),
    ):
        box = Box.of((side,) * 3, -50.0, 50.0)

        def kernel(offsets: Any = offsets, box: Box = box) -> Any:
            return voxels.voxelise(points, offsets, [charge], box)

        def twin(offsets: Any = offsets, box: Box = box) -> Any:
            return voxels_reference.voxelise(points, offsets, charge[:, None], box.shape, box.low, box.size)

        assert_same(kernel(), twin())
        yield f"voxelise 10^5 points, {name}", kernel, "twin", twin, TWIN
    box, ranges = Box.of((100,) * 3, -50.0, 50.0), ((-50.0, 50.0),) * 3
    edges = edges_of(box.shape, ranges)

    def histogramdd() -> Any:
        return np.histogramdd(points, box.shape, ranges, weights=charge)[0]

    def histogram() -> Any:
        return voxels.histogram(points, one, edges, charge, last_closed=True)

    assert_same(histogram()[0], histogramdd().astype(np.float32))
    yield (
        "voxelise 10^5 points, 1 event, 100^3",
        lambda: voxels.voxelise(points, one, [charge], box),
        "histogramdd",
        histogramdd,
        3.0,
    )
    yield "histogram 10^5 points, 100^3", histogram, "histogramdd (= twin)", histogramdd, TWIN


def resite_cases() -> Iterator[Case]:
    """Sites mirrored along an axis, as augmentation does."""
    random = np.random.default_rng(0)
    dense = np.where(random.random((64, 40, 40, 40)) < 0.03, 1, 0).astype(np.float32)
    sparse = voxels.sparsify(dense)
    coords = sparse.indices[:, 1:].astype(np.int64) * [1, -1, 1] + [0, 39, 0]
    kernel = lambda: voxels.resite(sparse, coords, None, (40, 40, 40))  # noqa: E731
    twin = lambda: voxels_reference.resite(sparse, coords, None, (40, 40, 40))  # noqa: E731
    assert_same(kernel(), twin())
    yield f"resite {len(coords):,} sites", kernel, "twin", twin, TWIN


def image_cases() -> Iterator[Case]:
    """A batch of calorimeter images of 8 MB as float32, 4 % of it above zero."""
    random = np.random.default_rng(0)
    dense = random.exponential(9, (128, 25, 25, 25)) * (random.random((128, 25, 25, 25)) < 0.04)
    for dtype in ("f2", "f4", "f8", "u1", "i4"):
        images = np.ceil(dense).astype(dtype)

        def kernel(images: Any = images) -> Any:
            return voxels.sparsify(images)

        def twin(images: Any = images) -> Any:
            return voxels_reference.sparsify(images)

        assert_same(kernel(), twin())
        yield f"sparsify 2 x 10^6 {images.dtype}", kernel, "twin", twin, TWIN
    images = dense.astype(np.float32)
    sparse, out = voxels.sparsify(images), np.empty_like(images)
    assert_same(voxels.densify(sparse, out=out), voxels_reference.densify(sparse))
    yield "sparsify 2 x 10^6 float32", lambda: voxels.sparsify(images), "sum", images.sum, 0.6
    yield (
        "densify 8 MB",
        lambda: voxels.densify(sparse, out=out),
        "twin",
        lambda: voxels_reference.densify(sparse),
        TWIN,
    )
    yield "densify 8 MB", lambda: voxels.densify(sparse, out=out), "fill", lambda: out.fill(0), 0.6


def label_cases() -> Iterator[Case]:
    """Labels of voxels that hold several points."""
    random = np.random.default_rng(0)
    points, offsets = random.integers(0, 20, (20_000, 3)), np.array([0, 20_000])
    labels, weights = random.integers(0, 5, 20_000), random.random(20_000)
    found = voxels.Voxels.of_points(points, offsets, Box.of((20, 20, 20)))
    order = found.order.astype(np.int64)
    for name, kernel, twin in (
        (
            "largest",
            lambda: found.labels(labels, weights),
            lambda: voxels_reference.labels_of_largest(labels, weights, order, found.starts),
        ),
        (
            "majority",
            lambda: found.labels(labels),
            lambda: voxels_reference.labels_of_majority(labels, order, found.starts),
        ),
    ):
        assert_same(kernel(), twin())
        yield f"labels by {name}, 20,000 points", kernel, "twin", twin, TWIN


def graph_cases() -> Iterator[Case]:
    """Hits of small, middling and large events."""
    random = np.random.default_rng(0)
    for count, events in ((60, 64), (2000, 1)):
        points = random.normal(size=(count * events, 3))
        offsets = np.arange(events + 1, dtype=np.int64) * count
        for options in ({"k": 16}, {"radius": 0.3}):

            def kernel(points: Any = points, offsets: Any = offsets, options: Any = options) -> Any:
                return graphs.build_graph(points, offsets, **options)

            def twin(points: Any = points, offsets: Any = offsets, options: Any = options) -> Any:
                return graphs_reference.build_graph(points, offsets, **options)

            assert_same(kernel(), twin())
            how = " ".join(f"{name} {value}" for name, value in options.items())
            yield f"graph {events} x {count} points, {how}", kernel, "twin (all distances)", twin, TWIN
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        return
    points, offsets = random.normal(size=(POINTS, 3)), np.array([0, POINTS])

    def tree() -> Any:
        return cKDTree(points).query(points, 17)[1]

    made = graphs.build_graph(points, offsets, k=16).edge_index[0].reshape(-1, 16)
    np.testing.assert_array_equal(made, np.sort(tree()[:, 1:], axis=1))  # random points have no ties
    yield "graph 10^5 points, k 16", lambda: graphs.build_graph(points, offsets, k=16), "SciPy cKDTree", tree, None


CASES = (voxelise_cases, resite_cases, image_cases, label_cases, graph_cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", nargs="?", default="", help="in the names of what is measured")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    cases = [case for group in CASES for case in group() if options.word in case[0]]
    rows = []
    with progress_bars() as progress:
        for number, (name, kernel, rival_name, rival, target) in enumerate(cases):
            ours = best(kernel)
            ratio = best(rival, 3) / ours
            row = {"kernel": name, "ms": 1e3 * ours, "rival": rival_name, "rival / kernel": ratio, "should be": target}
            rows.append(row)
            progress("kernels", number + 1, len(cases))
    settings = {"instruction set": _voxels.isa(), "NumPy": np.__version__}
    write_table(
        "kernels between points, voxels, images and graphs, best times, one thread", rows, settings, options.json
    )


if __name__ == "__main__":
    main()
