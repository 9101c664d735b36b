"""The machine code of the device kernels: within its budgets, and made of the instructions that are claimed."""

import importlib.util
import os
import shutil

import cuda_code
import pytest

ARCHS = {"80", "86", "89", "90", "100", "120"}
WANTED = set(os.environ["HEPFEED_CUDA_ARCHS"].split(";")) if os.environ.get("HEPFEED_CUDA_ARCHS") else ARCHS


@pytest.fixture(scope="module")
def binary():
    found = importlib.util.find_spec("hepfeed._cuda")
    if found is None:
        pytest.skip("hepfeed was built without CUDA kernels")
    if not cuda_code.tool("cuobjdump") or not shutil.which("c++filt"):
        pytest.skip("cuobjdump or c++filt is missing")
    return found.origin


@pytest.fixture(scope="module")
def kernels(binary):
    return cuda_code.resources(binary)


def test_every_kernel_is_compiled_for_every_architecture(kernels):
    names = {kernel.name for kernel in kernels}
    assert names
    for name in names:
        assert {kernel.arch for kernel in kernels if kernel.name == name} == {f"sm_{arch}" for arch in WANTED}, name


def test_every_kernel_has_a_budget_and_every_budget_a_kernel(kernels):
    assert {kernel.name for kernel in kernels} == set(cuda_code.budgets())


def test_no_kernel_spills_registers(kernels):
    spilling = [kernel for kernel in kernels if kernel.stack or kernel.local]
    assert not spilling


def test_kernels_keep_within_their_budgets(kernels):
    budgets = cuda_code.budgets()
    for kernel in kernels:
        budget = budgets[kernel.name]
        assert kernel.registers <= int(budget["registers"]), kernel
        assert kernel.shared <= int(budget["shared"]), kernel


def test_kernels_use_the_instructions_that_are_claimed(binary):
    budgets = cuda_code.budgets()
    claimed = {name: row["instructions"].split() for name, row in budgets.items()}
    assert any("HMMA" in kinds for kinds in claimed.values())
    archs = sorted(WANTED, key=lambda arch: int(arch.rstrip("a")))
    for arch in {archs[0], archs[-1]}:  # the oldest and the newest: each takes the disassembler ten seconds
        assert cuda_code.instructions(binary, f"sm_{arch}") == claimed, arch
