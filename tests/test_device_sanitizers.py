"""The kernels of devices under AddressSanitizer and ThreadSanitizer, which see what the emulator runs.

AddressSanitizer knows the bounds of tensors, of shared arrays and of local ones; ThreadSanitizer takes the threads of a
grid for threads that run at once, ordered by barriers alone.
"""

import subprocess
import sys
from pathlib import Path

import emulated
import forked_tests
import pytest

IN_BOUNDS = [
    "test_device_sites.py::test_sites_in_no_order_are_sorted_as_by_their_twin",
    "test_device_sites.py::test_equal_sites_are_merged_as_by_their_twin",
    "test_device_sites.py::test_sites_are_found_as_by_their_twin",
    "test_device_sites.py::test_cells_of_points_are_those_of_the_host",
    "test_device_sites.py::test_rows_of_a_mask_are_those_of_the_host",
    "test_device_kernel_map.py::test_maps_of_any_number_of_sites_are_those_of_the_host",
    "test_device_kernel_map.py::test_full_images_have_all_pairs",
    "test_device_plan.py::test_plans_of_any_size_equal_their_twin_in_every_order_of_threads",
    "test_device_convolution.py::test_every_kernel_gives_the_exact_sums_of_integers_in_every_order_of_threads",
    "test_device_convolution.py::test_every_number_of_channels_gives_the_exact_sums",
    "test_device_convolution.py::test_every_number_of_rows_gives_the_exact_sums",
    "test_device_convolution.py::test_groups_of_channels_see_their_own_alone",
    "test_device_weight_gradient.py::test_every_tile_gives_the_exact_sums_of_integers_in_every_order_of_threads",
    "test_device_weight_gradient.py::test_every_number_of_pairs_is_summed_exactly",
    "test_device_weight_gradient.py::test_numbers_may_lie_anywhere_and_in_any_order",
    "test_device_weight_gradient.py::test_columns_are_summed_exactly",
    "test_device_rows.py",
    "test_device_batch_norm.py",
    "test_device_densify.py",
    "test_device_images.py",
]
WITHOUT_RACES = [
    "test_device_sites.py::test_sites_in_no_order_are_sorted_as_by_their_twin[emulated-0]",
    "test_device_sites.py::test_faults_of_sites_are_found_wherever_they_are",
    "test_device_kernel_map.py::test_maps_of_any_number_of_sites_are_those_of_the_host[emulated-True]",
    "test_device_plan.py::test_plans_of_any_number_of_taps_equal_their_twin",
    "test_device_convolution.py::test_groups_of_channels_see_their_own_alone",
    "test_device_weight_gradient.py::test_groups_see_their_own_channels_alone",
    "test_device_weight_gradient.py::test_columns_are_summed_exactly[emulated-33]",
    "test_device_rows.py::test_lists_equal_those_of_the_cpu",
    "test_device_rows.py::test_long_lists_are_summed_in_parts",
    "test_device_rows.py::test_products_of_rows_of_whole_numbers_are_exact",
    "test_device_batch_norm.py::test_gradients_equal_those_of_their_twin[emulated-torch.float32-True]",
    "test_device_batch_norm.py::test_gradients_equal_those_of_their_twin[emulated-torch.bfloat16-False]",
    "test_device_densify.py::test_images_of_any_axes_go_there_and_back",
    "test_device_images.py::test_sites_are_marked_by_an_exact_comparison",
    "test_device_images.py::test_labels_are_those_of_the_largest_weight_or_of_most_rows",
]
ORDERS = ["kRight", "kNoBarrier", "kNoWarpBarrier", "kNoAtomic", "kSharedByBlocks", "kReadsOutside", "kWritesOutside"]

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="there is no C++ compiler to build the emulator with"
)


@pytest.mark.slow
@pytest.mark.timeout(660)
@pytest.mark.parametrize(
    ("variant", "tests"),
    [
        pytest.param("address", IN_BOUNDS, marks=pytest.mark.emulated("address")),
        pytest.param("thread", WITHOUT_RACES, marks=pytest.mark.emulated("thread")),
    ],
)
def test_all_kernels_pass_under_a_sanitizer(variant, tests):
    module = emulated.build(variant)
    (outcome,) = forked_tests.run([forked_tests.Job(str(module), tests)], variant)
    assert outcome.status == 0, outcome.output


def races(variant, wrong):
    """Run a small kernel that does something wrong under a sanitizer; return its exit status and output."""
    module = emulated.build(variant, "primitives")
    command = [sys.executable, "-c", RACE, str(module), str(ORDERS.index(wrong))]
    home = str(Path(__file__).parent)
    variables = {**forked_tests.environment(variant), "PYTHONPATH": home}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


RACE = """
import sys
import numpy as np
import emulated

module = emulated.imported(sys.argv[1])
for seed in (0, 1):
    module.set_seed(seed)
    values = np.zeros(131, np.int32)
    module.race(int(sys.argv[2]), values.ctypes.data)
"""


@pytest.mark.emulated("address", "primitives")
@pytest.mark.parametrize("wrong", ["kReadsOutside", "kWritesOutside"])
def test_addresses_out_of_bounds_are_found(wrong):
    status, output = races("address", wrong)
    assert status == 67, output
    assert "AddressSanitizer" in output
    assert "races.cuh" in output


@pytest.mark.emulated("thread", "primitives")
@pytest.mark.parametrize("wrong", ["kNoBarrier", "kNoWarpBarrier", "kNoAtomic", "kSharedByBlocks"])
def test_races_of_threads_are_found(wrong):
    status, output = races("thread", wrong)
    assert status == 66, output
    assert "data race" in output
    assert "races.cuh" in output


@pytest.mark.emulated("address", "primitives")
@pytest.mark.emulated("thread", "primitives")
@pytest.mark.parametrize("variant", ["address", "thread"])
def test_what_is_right_passes(variant):
    status, output = races(variant, "kRight")
    assert status == 0, output
