"""Build of the native extensions; everything else is declared in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

CSRC = Path("csrc")
SHARED = ["isa", "stream_copy"]
EXTENSIONS = {
    "cache": ["bus_guard", "pack_cells", "read_runs", "unpack_cells"],
    "convolution": [
        "bf16_product",
        "column_sum",
        "convolution",
        "convolution_bf16",
        "convolve_bf16",
        "pair_lists",
        "products",
        "products_avx2",
        "products_avx512",
        "threads",
        "weight_gradient",
        "weight_gradient_bf16",
    ],
    "core": ["chunk_reader", "convert", "dataset", "fletcher32", "inflate", "unshuffle"],
    "images": ["blocks", "convert", "geometry", "noise", "philox", "pointwise", "warp"],
    "rows": ["batch_norm", "row_lists", "row_max", "row_sum", "threads"],
    "sites": ["kernel_map", "radix_sort", "reaching_map", "sort_sites", "submanifold_map", "threads"],
    "voxels": [
        "cells",
        "convert",
        "densify",
        "group",
        "histogram",
        "labels",
        "move_sites",
        "neighbours",
        "radix_sort",
        "reduce",
        "sparsify",
        "threads",
    ],
}


def extension(name: str, kernels: list[str]) -> Pybind11Extension:
    """Return the extension ``hepfeed._name``: its bindings and its kernels."""
    return Pybind11Extension(
        f"hepfeed._{name}",
        sources=[str(CSRC / f"{name}_module.cpp"), *(str(CSRC / "cpu" / f"{k}.cpp") for k in [*SHARED, *kernels])],
        depends=sorted(str(path) for path in CSRC.rglob("*.h")),
        include_dirs=[str(CSRC)],
        cxx_std=17,
        extra_compile_args=[
            "-O3",
            "-fno-math-errno",
            "-fno-trapping-math",
            "-ffp-contract=off",
            "-Wall",
            "-Wextra",
            "-Wno-maybe-uninitialized",
            "-pthread",
        ],
        libraries=["dl"],
    )


ParallelCompile("HEPFEED_BUILD_JOBS", default=0).install()
setup(ext_modules=[extension(name, kernels) for name, kernels in EXTENSIONS.items()])
