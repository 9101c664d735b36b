"""Seeded bugs: what a hurried hand might do to a kernel is found by the tests of its family, or by a sanitizer.

Each bug is one replacement in a copy of a source, which must match once; only the units named are compiled with it.
The tests that find it pass without it.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import emulated
import forked_tests
import pytest

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="there is no C++ compiler to build the emulator with"
)

CONVOLUTION = "test_device_convolution.py::test_every_kernel_gives_the_exact_sums_of_integers_in_every_order_of_threads"
GRADIENT = "test_device_weight_gradient.py::test_every_tile_gives_the_exact_sums_of_integers_in_every_order_of_threads"
MAPS = "test_device_kernel_map.py::test_maps_of_any_number_of_sites_are_those_of_the_host"


VARIANTS = ["plain", "address", "thread"]


@dataclass(frozen=True)
class Bug:
    """One seeded bug.

    Attributes:
        name: What is wrong.
        file: The source, below ``csrc``.
        old: Text that occurs in it once.
        new: What stands there with the bug.
        unit: The file that is compiled with it.
        test: The test that must find it.
        tells: What it says then, as a regular expression.
        variant: The build that is tested.
    """

    name: str
    file: str
    old: str
    new: str
    unit: str
    test: str
    tells: str = "assert|not equal"
    variant: str = field(default="plain")


BUGS = [
    # Convolution.
    Bug(
        "no barrier before a chunk is read",
        "kernels/convolution.cuh",
        "      __syncthreads();  // the chunk is there for all, and the stage before it has been read by all\n",
        "",
        "cuda/convolution.cu",
        f"{CONVOLUTION}[emulated-float32]",
    ),
    Bug(
        "one group of copies too many under way",
        "kernels/convolution.cuh",
        "copy_async_wait<Tile::kStages - 2>();",
        "copy_async_wait<Tile::kStages - 1>();",
        "cuda/convolution.cu",
        f"{CONVOLUTION}[emulated-float32]",
    ),
    Bug(
        "a fragment of the sums in the wrong row",
        "kernels/tile_products.cuh",
        "visit(row + 8, column, sums_[i][j][2]);",
        "visit(row + 4, column, sums_[i][j][2]);",
        "cuda/convolution_bf16.cu",
        f"{CONVOLUTION}[emulated-bfloat16]",
    ),
    Bug(
        "registers of the weight swapped",
        "kernels/tile_products.cuh",
        "        b[j][1] = two[1];\n",
        "        b[j][1] = two[2];\n",
        "cuda/convolution_tf32.cu",
        f"{CONVOLUTION}[emulated-tf32]",
    ),
    Bug(
        "a barrier for the rows that are there",
        "kernels/convolve_rows.cuh",
        "    __syncthreads();  // the list has been used\n",
        "    if (is_there) __syncthreads();\n",
        "cuda/convolution.cu",
        f"{CONVOLUTION}[emulated-float32]",
        "divergent barrier: .*convolve_rows.cuh",
    ),
    Bug(
        "a row behind the last one written",
        "kernels/convolution.cuh",
        "if (first_position + row >= work.positions ||",
        "if (first_position + row > work.positions ||",
        "cuda/convolution.cu",
        f"{CONVOLUTION}[emulated-float32]",
        "AddressSanitizer: .*convolve_tiles",
        "address",
    ),
    Bug(
        "the bits of taps set by a plain or",
        "kernels/plan.cuh",
        "      atomicOr(&row_taps[static_cast<int64_t>(tap / 64) * map.out_rows + map.out_maps[thread]],\n"
        "               TapBits{1} << (tap % 64));\n",
        "      row_taps[static_cast<int64_t>(tap / 64) * map.out_rows + map.out_maps[thread]] |=\n"
        "          TapBits{1} << (tap % 64);\n",
        "cuda/plan.cu",
        "test_device_plan.py::test_plans_of_any_number_of_taps_equal_their_twin",
        "data race.*plan.cuh",
        "thread",
    ),
    # Gradient of the weight.
    Bug(
        "no barrier before a step's rows are read",
        "kernels/weight_gradient.cuh",
        "    __syncthreads();  // this step's rows are there, and all have done with those of the step before\n",
        "",
        "cuda/weight_gradient.cu",
        f"{GRADIENT}[emulated-float32]",
    ),
    Bug(
        "no wait for a step's rows",
        "kernels/weight_gradient.cuh",
        "    copy_async_wait<kStages - 2>();\n",
        "",
        "cuda/weight_gradient.cu",
        "test_device_weight_gradient.py::test_every_number_of_pairs_is_summed_exactly[emulated-bfloat16]",
        "an asynchronous copy that is never waited for: thread .*fetched_rows.cuh",
    ),
    Bug(
        "an item of the next tap added",
        "kernels/weight_gradient.cuh",
        "item < first_item[tap + 1]; item += blockDim.y",
        "item <= first_item[tap + 1]; item += blockDim.y",
        "cuda/weight_gradient.cu",
        f"{GRADIENT}[emulated-float32]",
    ),
    Bug(
        "a fault of pairs noted by a plain write",
        "kernels/pair_check.cuh",
        "if (wrong) atomicOr(fault, 1);",
        "if (wrong) *fault |= 1;",
        "cuda/weight_gradient.cu",
        "test_device_faults.py::test_many_bad_pairs_are_one_fault",
        "data race.*pair_check.cuh",
        "thread",
    ),
    # Kernel maps and sites.
    Bug(
        "a lane that counts itself",
        "kernels/kernel_map.cuh",
        "__popc(mask_ & ((1u << lane_) - 1))",
        "__popc(mask_ & ((2u << lane_) - 1))",
        "cuda/kernel_map.cu",
        MAPS,
    ),
    Bug(
        "a ballot without the last lane",
        "kernels/kernel_map.cuh",
        "__ballot_sync(~0u, has_pair)",
        "__ballot_sync(0x7fffffffu, has_pair)",
        "cuda/kernel_map.cu",
        MAPS,
        "a lane that its own mask doesn't name: thread .*kernel_map.cuh",
    ),
    Bug(
        "no barrier before the window is read",
        "kernels/kernel_map.cuh",
        "      __syncthreads();\n      low = window[0], high = window[1];\n",
        "      low = window[0], high = window[1];\n",
        "cuda/kernel_map.cu",
        MAPS,
    ),
    Bug(
        "a site behind the last one",
        "kernels/sites.cuh",
        "  if (n >= count) return;\n  const int32_t number = firsts[n] - 1;\n",
        "  if (n > count) return;\n  const int32_t number = firsts[n] - 1;\n",
        "cuda/sites.cu",
        "test_device_sites.py::test_equal_sites_are_merged_as_by_their_twin",
        "AddressSanitizer: .*sites.cuh",
        "address",
    ),
    # Rows.
    Bug(
        "no barrier before the lists of entries are read",
        "kernels/row_sum.cuh",
        "list_of_entry(lists, begin + threadIdx.x);\n  __syncthreads();\n",
        "list_of_entry(lists, begin + threadIdx.x);\n",
        "cuda/rows.cu",
        "test_device_rows.py::test_products_of_rows_of_whole_numbers_are_exact",
    ),
    Bug(
        "half of the lanes named in a sum",
        "kernels/row_sum.cuh",
        "__shfl_xor_sync(0xffffffffu, sum, apart)",
        "__shfl_xor_sync(0xffffu, sum, apart)",
        "cuda/rows.cu",
        "test_device_rows.py::test_products_of_rows_of_whole_numbers_are_exact",
        "mask doesn't name: thread .*row_sum.cuh|a shuffle reads lane",
    ),
    Bug(
        "a vote of the threads that have a pair",
        "kernels/row_lists.cuh",
        "    if (__syncthreads_or(bits & bit)) all |= bit;\n",
        "    if (p < pairs && __syncthreads_or(bits & bit)) all |= bit;\n",
        "cuda/rows.cu",
        "test_device_rows.py::test_lists_equal_those_of_the_cpu",
        "divergent barrier: .*row_lists.cuh",
    ),
    Bug(
        "faults of pairs added by a plain or",
        "kernels/row_lists.cuh",
        "if (all && threadIdx.x == 0) atomicOr(found, all);",
        "if (all && threadIdx.x == 0) *found |= all;",
        "cuda/rows.cu",
        "test_device_rows.py::test_lists_equal_those_of_the_cpu",
        "data race.*row_lists.cuh",
        "thread",
    ),
    Bug(
        "no barrier between the moments of rows",
        "kernels/batch_norm.cuh",
        "    __syncthreads();\n"
        "    if (share.group % (2 * step) == 0 && share.group + step < share.groups)\n"
        "      known[threadIdx.x].join(known[threadIdx.x + step * width]);\n",
        "    if (share.group % (2 * step) == 0 && share.group + step < share.groups)\n"
        "      known[threadIdx.x].join(known[threadIdx.x + step * width]);\n",
        "cuda/batch_norm.cu",
        "test_device_batch_norm.py::test_rows_are_normalised_as_by_their_twin",
    ),
    # Images.
    Bug(
        "an image's cell behind the last one",
        "kernels/move_images.cuh",
        "if (place >= layout.out_units) return;",
        "if (place > layout.out_units) return;",
        "cuda/images.cu",
        "test_device_images.py::test_images_move_whatever_the_number_of_blocks",
        "AddressSanitizer: .*move_images.cuh|assert|not equal",
        "address",
    ),
    Bug(
        "a fault of sites noted by a plain write",
        "kernels/put_sites.cuh",
        "    atomicOr(fault, 1);\n",
        "    *fault |= 1;\n",
        "cuda/images.cu",
        "test_device_faults.py::test_many_sites_outside_of_the_images_are_one_fault",
        "data race.*put_sites.cuh",
        "thread",
    ),
    Bug(
        "a group that ends one row early",
        "kernels/groups.cuh",
        "  for (; i < groups.rows && groups.keys[i] == key; ++i) {",
        "  for (; i + 1 < groups.rows && groups.keys[i] == key; ++i) {",
        "cuda/images.cu",
        "test_device_images.py::test_groups_are_reduced_in_the_order_of_their_rows",
    ),
]


def module_of(bug):
    text = (emulated.ROOT / "csrc" / bug.file).read_text()
    assert text.count(bug.old) == 1, f"{bug.name}: {bug.file} has its text {text.count(bug.old)} times"
    changes = {bug.file: text.replace(bug.old, bug.new)}
    return emulated.build(bug.variant, changes=changes, only=[bug.unit])


@pytest.fixture(scope="module", params=[pytest.param(each, marks=pytest.mark.emulated(each)) for each in VARIANTS])
def outcomes(request):
    """The bugs that are looked for in a build, with how their tests ended; and how these end without any bug."""
    bugs = [bug for bug in BUGS if bug.variant == request.param]
    with ThreadPoolExecutor(2) as pool:
        jobs = [forked_tests.Job(str(path), [bug.test]) for bug, path in zip(bugs, pool.map(module_of, bugs))]
    sound = forked_tests.Job(str(emulated.build(request.param)), sorted({bug.test for bug in bugs}))
    *found, right = forked_tests.run([*jobs, sound], request.param)
    return list(zip(bugs, found)), right


@pytest.mark.slow
@pytest.mark.timeout(60, func_only=True)  # what is built and run for it has limits of its own
def test_every_seeded_bug_is_found_and_nothing_else(outcomes):
    found, right = outcomes
    assert right.status == 0, right.output
    missed = [bug.name for bug, outcome in found if not outcome.caught]
    assert not missed, [(bug.name, outcome.status, outcome.output[-2000:]) for bug, outcome in found]
    for bug, outcome in found:
        assert re.search(bug.tells, outcome.output, re.DOTALL), f"{bug.name}: {outcome.output}"


def test_bugs_of_all_kinds_are_seeded_in_all_families():
    units = {bug.unit for bug in BUGS}
    assert {"cuda/plan.cu", "cuda/weight_gradient.cu", "cuda/kernel_map.cu", "cuda/sites.cu", "cuda/rows.cu"} <= units
    assert {"cuda/convolution.cu", "cuda/batch_norm.cu", "cuda/images.cu"} <= units
    assert len({bug.name for bug in BUGS}) == len(BUGS)
