"""What nvcc made of the device kernels: registers, memory and instructions, read from the extension itself.

``python tests/cuda_code.py`` prints the table of budgets as the present build would have it.
"""

import csv
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "csrc" / "cuda" / "budgets.csv"
INSTRUCTIONS = ("HMMA", "LDSM", "LDGSTS")
"""Products of the tensor cores, ``ldmatrix`` and ``cp.async``, as the disassembly calls them."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of ours for one architecture."""

    name: str
    arch: str
    registers: int
    stack: int
    local: int
    shared: int


def tool(name):
    """Path of a tool of the CUDA toolkit, from its wheel or the path; None where there is none."""
    for package in (f"nvidia-cuda-{name}", "nvidia-cuda-sanitizer-api"):
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == name and file.locate().is_file():
                return str(file.locate())
    return shutil.which(name)


def resources(binary):
    """The kernels in an extension."""
    text = _run(tool("cuobjdump"), "--dump-resource-usage", str(binary))
    found, arch = [], ""
    for line in text.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            arch = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            found.append((name, arch, registers, stack, local, shared))
    names = _demangled([row[0] for row in found])
    return [Kernel(names[row[0]], *row[1:]) for row in found if names[row[0]]]


def instructions(binary, arch):
    """By kernel: which of :data:`INSTRUCTIONS` it has on an architecture."""
    # nvdisasm is found beside cuobjdump or on the path.
    text = _run(tool("cuobjdump"), "--dump-sass", "--gpu-architecture", arch, str(binary))
    found, name = {}, ""
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\S+)", line):
            name = match[1]
            found[name] = set()
        elif (match := re.search(r"\*/\s+(?:@!?\w+ )?(\w+)", line)) and match[1] in INSTRUCTIONS:
            found[name].add(match[1])
    names = _demangled(list(found))
    return {names[mangled]: sorted(kinds) for mangled, kinds in found.items() if names[mangled]}


def budgets():
    """Rows of the table by kernel."""
    with TABLE.open(newline="") as file:
        return {row["kernel"]: row for row in csv.DictReader(file)}


def _demangled(names):
    """Our kernels' names without arguments; empty for those of others."""
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return {mangled: _short(name) for mangled, name in zip(names, plain.splitlines())}


def _short(name):
    """``void hepfeed::device::kernel<float, 2>(int*)`` as ``kernel<float, 2>``."""
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    if not name.startswith("hepfeed::device::"):
        return ""
    depth = 0
    for place, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and not depth and place and name[place - 1] != "<":
            name = name[:place]
            break
    return re.sub(r"hepfeed::device::|\((?:int|bool|unsigned int|long)\)", "", name)


def _run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main():
    import hepfeed._cuda

    binary = hepfeed._cuda.__file__
    kernels = resources(binary)
    archs = sorted({kernel.arch for kernel in kernels}, key=lambda arch: int(arch[3:].rstrip("a")))
    has = instructions(binary, archs[0])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["kernel", "registers", "shared", "instructions"])
    for name in sorted({kernel.name for kernel in kernels}):
        same = [kernel for kernel in kernels if kernel.name == name]
        most = max(kernel.registers for kernel in same)
        shared = max(kernel.shared for kernel in same)
        writer.writerow([name, -(-most // 8) * 8, shared, " ".join(has[name])])


if __name__ == "__main__":
    main()
