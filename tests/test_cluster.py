"""The model of nodes that share a file system: its limits, and what must hold whatever the numbers are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepfeed.bench.cluster import PLACES, Cluster, FileSystem, Node, Stored, Work, break_even, run, start_s
from hepfeed.bench.queues import rounds_per_s
from hepfeed.store import LOOKERS

MANY = 1e15
FAST = FileSystem(MANY, MANY, MANY, 0.0)
LOCAL = Node(
    readers=4, link_bytes_per_s=MANY, memory_bytes=0.0, disk_bytes=MANY, disk_bytes_per_s=MANY, disk_latency_s=0
)
SOURCES = Stored(files=100, event_bytes=1000.0, request_bytes=100_000.0, in_flight=1, event_s=1e-4)
CACHE = Stored(files=10, event_bytes=500.0, request_bytes=50_000.0, in_flight=8, event_s=1e-5)
WORK = Work(10_000_000, SOURCES, CACHE, parent_s=0.0, batch_size=100, step_s=1e-9, open_s=1e-3)
NODES = (1, 2, 10, 100, 1000)


def cluster(nodes=1, shared=FAST, work=WORK, **changes):
    return Cluster(nodes, replace(LOCAL, **changes), shared, work)


# ---- queues


@pytest.mark.parametrize("think_s", [0.0, 0.5])
def test_one_customer_never_waits(think_s):
    assert rounds_per_s(1, 1, think_s, [0.2, 0.1], [0.3]) == pytest.approx(1 / (think_s + 0.6))


def test_customers_that_only_think_do_not_hinder_each_other():
    assert rounds_per_s(7, 3, 0.5, [], []) == pytest.approx(42)


def test_two_customers_at_one_station_keep_it_busy():
    assert rounds_per_s(2, 1, 0.0, [0.25], []) == pytest.approx(4)  # exact: it never rests


def test_two_customers_that_think_are_as_fast_as_exact_analysis_says():
    # Exact: X(1) = 1/2; an arriving one finds 1/2 in the queue, so R = 1.5 and X(2) = 2 / (1 + 1.5) = 0.8.
    assert rounds_per_s(2, 1, 1.0, [1.0], []) == pytest.approx(0.8, rel=0.05)  # off by 4.5 %


def test_many_customers_are_as_fast_as_the_slowest_station():
    assert rounds_per_s(1000, 16, 0.1, [1e-4, 1e-3], [1e-4]) == pytest.approx(1000, rel=1e-3)


def test_groups_do_not_wait_at_the_stations_of_others():
    assert rounds_per_s(50, 4, 0.1, [], [0.3]) == pytest.approx(50 * rounds_per_s(1, 4, 0.1, [], [0.3]))


# ---- limits


def test_one_reader_on_one_node_takes_the_sum_of_all_times():
    shared = FileSystem(bytes_per_s=1e8, requests_per_s=1e3, metadata_per_s=MANY, latency_s=0.002)
    done = run(cluster(1, shared, readers=1, link_bytes_per_s=5e8), "sources", 1)
    a_request = 0.002 + 1e5 / 1e8 + 1e-3 + 1e5 / 5e8 + 100 * 1e-4
    assert done.epochs[0].seconds == pytest.approx(1e5 * a_request)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("nodes", NODES)
def test_without_limits_of_storage_readers_are_bound_by_decoding(nodes, place):
    done = run(cluster(nodes, memory_bytes=MANY if place == "cache in memory" else 0.0), place, 2)
    event_s = SOURCES.event_s if place == "sources" else CACHE.event_s
    for epoch in done.epochs:
        assert epoch.seconds == pytest.approx(1e7 * event_s / (4 * nodes), rel=1e-3)


@pytest.mark.parametrize("limit", ["bytes_per_s", "requests_per_s"])
def test_half_of_the_bandwidth_takes_twice_the_time_where_it_is_the_limit(limit):
    slow = replace(FAST, **{limit: 1e9 if limit == "bytes_per_s" else 1e4})
    slower = replace(slow, **{limit: getattr(slow, limit) / 2})
    first, second = (run(cluster(1000, shared), "sources", 1).epochs[0] for shared in (slow, slower))
    assert first.seconds == pytest.approx(10.0, rel=0.01)  # 10 GB, or 1e5 requests
    assert second.seconds == pytest.approx(2 * first.seconds, rel=0.01)
    assert first.shared_load == pytest.approx(1, rel=0.01)


def test_a_node_is_no_faster_than_its_link():
    done = run(cluster(10, readers=100, link_bytes_per_s=1e7), "sources", 1)
    assert done.epochs[0].seconds == pytest.approx(1e10 / 10 / 1e7, rel=0.02)


def test_the_training_process_and_the_device_bound_the_rate():
    slow_parent = run(cluster(work=replace(WORK, parent_s=0.001)), "sources", 1).epochs[0]
    assert slow_parent.node_events_per_s == pytest.approx(1000)
    slow_device = run(cluster(work=replace(WORK, step_s=0.1)), "sources", 1).epochs[0]
    assert slow_device.node_events_per_s == pytest.approx(1000)
    assert slow_device.wait == pytest.approx(0)
    starving = run(cluster(work=replace(WORK, step_s=1 / 800)), "sources", 1).epochs[0]  # 80,000 wanted, 40,000 come
    assert starving.wait == pytest.approx(0.5)


# ---- memory and copies


def test_a_node_alone_finds_in_memory_what_fits_from_the_second_epoch_on():
    first, second = run(cluster(1, memory_bytes=2.5e9), "sources", 2).epochs
    assert first.memory_bytes == 0
    assert second.memory_bytes == pytest.approx(2.5e9)
    assert second.shared_bytes == pytest.approx(7.5e9)


def test_nodes_together_find_what_each_has_seen_by_chance():
    epochs = run(cluster(4, memory_bytes=MANY), "sources", 3).epochs
    assert [epoch.memory_bytes / 1e10 for epoch in epochs] == pytest.approx([0, 1 / 4, 1 - (3 / 4) ** 2])


def test_a_copy_needs_room():
    for place in ("cache on disk", "cache in memory"):
        done = run(cluster(disk_bytes=4e9, memory_bytes=4e9), place, 3)
        assert done.impossible == "the cache takes 5 GB, and a node has 4 GB"
        assert done.epochs == ()
        assert break_even(run(cluster(), "sources", 3), done) is None


def test_copies_share_the_bandwidth_of_the_file_system():
    shared = replace(FAST, bytes_per_s=1e9)
    built, copied = (run(cluster(100, shared), place, 1).prepare_s for place in ("shared cache", "cache on disk"))
    assert copied - built == pytest.approx(100 * 5e9 / 1e9)


def test_staging_pays_once_it_has_saved_what_it_took():
    shared = replace(FAST, bytes_per_s=1e8)
    runs = [run(cluster(2, shared, readers=64), place, 30) for place in ("shared cache", "cache on disk")]
    saved = runs[0].epochs[0].seconds - runs[1].epochs[0].seconds
    longer = runs[1].prepare_s - runs[0].prepare_s
    assert 0 < saved < longer
    assert break_even(*runs) == int(longer / saved) + 1
    assert break_even(runs[1], runs[0]) == 1


# ---- the start


def test_one_node_looks_at_several_files_at_a_time():
    shared = FileSystem(MANY, MANY, MANY, 0.001)
    assert start_s(cluster(1, shared), index=True) == pytest.approx(100 * 0.001 / LOOKERS)


def test_many_nodes_wait_for_the_metadata_server():
    shared = FileSystem(MANY, MANY, 1e4, 0.001)
    assert start_s(cluster(1000, shared), index=True) == pytest.approx(1000 * 100 / 1e4, rel=0.02)
    slower = FileSystem(MANY, 5e3, 1e4, 0.001)
    assert start_s(cluster(1000, slower), index=False) == pytest.approx(1000 * 100 / 5e3, rel=0.02)


# ---- whatever the numbers are

amounts = st.floats(1e6, 1e12)
clusters = st.builds(
    Cluster,
    st.sampled_from(NODES),
    st.builds(Node, st.integers(1, 64), amounts, amounts, amounts, amounts, st.floats(0, 0.01)),
    st.builds(FileSystem, amounts, st.floats(1e2, 1e7), st.floats(1e2, 1e6), st.floats(0, 0.01)),
    st.builds(
        Work,
        st.integers(1000, 10**9),
        *(
            st.builds(Stored, st.integers(1, 10**5), st.floats(10, 1e6), st.floats(1e3, 1e7), st.integers(1, 100), rate)
            for rate in (st.floats(1e-6, 1e-2), st.floats(1e-7, 1e-3))
        ),
        st.floats(0, 1e-5),
        st.integers(1, 4096),
        st.floats(1e-4, 1.0),
        st.floats(0, 0.1),
    ),
)


@given(clusters, st.sampled_from(PLACES))
def test_all_bytes_are_read_and_nothing_is_used_by_more_than_all(one, place):
    done = run(one, place, 3)
    size = one.work.events * one.work.stored(place).event_bytes
    for epoch in done.epochs:
        assert epoch.shared_bytes + epoch.disk_bytes + epoch.memory_bytes == pytest.approx(size)
        assert min(epoch.shared_bytes, epoch.disk_bytes, epoch.memory_bytes) >= -1e-6 * size
        assert 0 <= epoch.shared_load <= 1 + 1e-6
        assert -1e-9 <= epoch.wait <= 1
        assert epoch.seconds * epoch.node_events_per_s * one.nodes == pytest.approx(one.work.events)


@given(clusters, st.sampled_from(PLACES), st.sampled_from(["bytes_per_s", "requests_per_s", "metadata_per_s"]))
def test_a_better_file_system_is_never_slower(one, place, what):
    better = replace(one, shared=replace(one.shared, **{what: 2 * getattr(one.shared, what)}))
    before, after = run(one, place, 2), run(better, place, 2)
    assert after.total_s(2) <= before.total_s(2) * (1 + 1e-6)
    for index in (False, True):
        assert start_s(better, index) <= start_s(one, index) * (1 + 1e-6)


@given(clusters, st.sampled_from(PLACES))
def test_the_same_numbers_give_the_same_result(one, place):
    assert run(one, place, 3) == run(replace(one), place, 3)
