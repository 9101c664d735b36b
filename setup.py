"""Build of the native extensions; everything else is declared in pyproject.toml.

Environment:
    HEPFEED_BUILD_JOBS: Files that are compiled at once; all processors by default.
    HEPFEED_CUDA: ``auto`` builds the CUDA kernels where nvcc is found, ``0`` never, ``1`` fails without nvcc.
    HEPFEED_CUDA_ARCHS: Compute capabilities to compile for, e.g. ``"80;90"``; the oldest of them as PTX too, from which
        drivers compile for other cards that are newer.  By default those of ``ARCHS`` that nvcc knows.
    HEPFEED_NVCC: Path of nvcc, where it is not in ``$CUDA_HOME/bin`` or on the path.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

JOBS = int(os.environ.get("HEPFEED_BUILD_JOBS", "0")) or os.cpu_count() or 1
CSRC = Path("csrc")
ARCHS = ("80", "86", "89", "90", "100", "120")
OLDEST = 80  # whose tensor cores and asynchronous copies the kernels need
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


class Nvcc:
    """The CUDA compiler: which one, and for which cards."""

    def __init__(self) -> None:
        home, named = os.environ.get("CUDA_HOME"), os.environ.get("HEPFEED_NVCC")
        if named and not shutil.which(named):
            raise ValueError(f"HEPFEED_NVCC must be the path of nvcc, and {named!r} is no program")
        found = named or (home and shutil.which(f"{home}/bin/nvcc")) or shutil.which("nvcc")
        if not found:
            raise CompileError(
                "there is no nvcc in $CUDA_HOME/bin or on the path: for CUDA kernels install the CUDA toolkit, or say"
                " where it is with HEPFEED_NVCC"
            )
        self.path = found
        known = [arch for arch in re.findall(r"compute_(\d+)", self._ask("--list-gpu-arch")) if int(arch) >= OLDEST]
        wanted = re.findall(r"[^\s;,]+", os.environ.get("HEPFEED_CUDA_ARCHS", ""))
        unknown = sorted({arch for arch in wanted if arch not in known})
        if unknown:
            raise ValueError(
                f"HEPFEED_CUDA_ARCHS names {', '.join(unknown)}: give some of those that {found} knows, such as"
                f' "80;90": {", ".join(sorted(known, key=int))}'
            )
        self.archs = wanted or [arch for arch in ARCHS if arch in known]
        if not self.archs:
            raise CompileError(f"{found} knows no compute capability from 8.0 on: install a newer CUDA toolkit")

    def _ask(self, *options: str) -> str:
        """Return what nvcc answers; its dry runs go to the other stream."""
        answer = subprocess.run([self.path, *options], capture_output=True, text=True)
        if answer.returncode:
            raise CompileError(f"{self.path} {' '.join(options)} fails: {(answer.stderr or answer.stdout).strip()}")
        return answer.stdout + answer.stderr

    @property
    def libraries(self) -> str:
        """The directory of the static runtime."""
        top = re.search(r"#\$ TOP=(.*)", self._ask("--dryrun", "-c", "x.cu"))
        places = [Path(top[1].strip()) / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")] if top else []
        for place in places:
            if (place / "libcudart_static.a").exists():
                return str(place)
        raise CompileError(f"libcudart_static.a is not beside {self.path}: install all of the CUDA toolkit")

    def compile(self, source: Path, target: Path) -> None:
        """Compile a file for all cards, unless its object is newer than all sources."""
        sources = [Path(__file__), *(path for kind in ("*.cu", "*.cuh", "*.h") for path in CSRC.rglob(kind))]
        if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in sources):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # Nothing in the sources depends on the card: they are translated once, which is most of the work.
        oldest = min(self.archs, key=int)
        codes = ",".join([*(f"sm_{arch}" for arch in self.archs), f"compute_{oldest}"])
        command = [
            self.path,
            "-std=c++17",
            "-O3",
            "-I",
            str(CSRC),
            "-Xcompiler",
            "-fPIC,-fvisibility=hidden,-Wall,-Wextra",
            "-Werror",
            "all-warnings",
            f"-gencode=arch=compute_{oldest},code=[{codes}]",
            "-c",
            str(source),
            "-o",
            str(target),
        ]
        print(" ".join(command), flush=True)
        if subprocess.run(command).returncode:
            raise CompileError(f"nvcc could not compile {source}")


class BuildExt(build_ext):
    """Compiles ``.cu`` files with nvcc, and gives their objects to the linker."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        """Build one extension."""
        if ext.name == "hepfeed._cuda":
            self._compile_kernels(ext)
        super().build_extension(ext)

    def _compile_kernels(self, ext: Pybind11Extension) -> None:
        nvcc = Nvcc()
        folder = Path(self.build_temp) / "cuda" / "_".join(nvcc.archs)
        objects = {path: folder / f"{path.stem}.o" for path in sorted(CSRC.glob("cuda/*.cu"))}
        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(nvcc.compile, objects, objects.values()))
        ext.extra_objects += map(str, objects.values())
        ext.library_dirs.append(nvcc.libraries)
        ext.libraries += ["cudart_static", "rt", "pthread"]


def cuda_extension() -> list[Pybind11Extension]:
    """Return the extension of the CUDA kernels, if it is to be built."""
    wish = os.environ.get("HEPFEED_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise ValueError(f"HEPFEED_CUDA must be auto, 0 or 1, not {wish!r}")
    if wish == "0":
        return []
    try:
        Nvcc()
    except CompileError as reason:
        if wish == "1":
            raise
        print(f"hepfeed is built without CUDA kernels: {reason}")
        return []
    made = extension("cuda", [])
    made.sources = [str(CSRC / "cuda_module.cpp"), *map(str, sorted(CSRC.glob("cuda/bind_*.cpp")))]
    made.depends += sorted(str(path) for kind in ("*.cu", "*.cuh") for path in CSRC.rglob(kind))
    made.optional = wish == "auto"  # hepfeed is of use without them
    return [made]


_compiled: set[str] = set()


def is_new(target: str, source: str) -> bool:
    """Whether an object is not made yet in this run: extensions share files, and their options are the same."""
    known = target in _compiled
    _compiled.add(target)
    return not known


ParallelCompile("HEPFEED_BUILD_JOBS", default=0, needs_recompile=is_new).install()
setup(
    ext_modules=[*(extension(name, kernels) for name, kernels in EXTENSIONS.items()), *cuda_extension()],
    cmdclass={"build_ext": BuildExt},
)
