"""The model that predicts events/s."""

import itertools

import pytest

from hepfeed.prediction import EventCost, Host, amplification, demand, pays_from, predict, tail

COST = EventCost(
    read=1e-3, inflate=6e-3, scatter=2e-3, transform=0.0, other=1e-3, consumer=1e-3, bytes_read=1e6
)  # 10 ms of a reader
MANY = Host(cores=64)


def test_readers_that_have_cores_of_their_own_work_side_by_side():
    rate = predict(COST, 3, MANY)
    assert (rate.events_per_s, rate.limit) == (pytest.approx(300), "inflate")


def test_the_limit_of_busy_readers_is_their_dearest_stage():
    assert predict(EventCost(1, 1, 1, 2, 1, 0, 0), 1, MANY).limit == "transform"
    assert predict(EventCost(3, 1, 1, 2, 1, 0, 0), 1, MANY).limit == "read"


def test_the_consumer_is_the_limit_of_many_readers():
    rate = predict(COST, 30, MANY)
    assert (rate.events_per_s, rate.limit) == (pytest.approx(1000), "consumer")


def test_readers_and_consumer_share_the_cores():
    rate = predict(COST, 2, Host(cores=2))  # 11 ms of two cores
    assert (rate.events_per_s, rate.limit) == (pytest.approx(2 / 11e-3), "cores")
    assert predict(COST, 8, Host(cores=2)) == rate


def test_without_readers_the_consumer_does_it_all():
    rate = predict(COST, 0, MANY)
    assert (rate.events_per_s, rate.limit) == (pytest.approx(1 / 11e-3), "inflate")
    assert predict(EventCost(0, 1, 0, 0, 0, 2, 0), 0, MANY).limit == "consumer"


def test_the_disk_is_a_limit_where_it_is_known():
    assert predict(COST, 2, Host(64, disk_bytes_per_s=1e8)).limit == "disk"
    assert predict(COST, 2, Host(64, disk_bytes_per_s=1e8)).events_per_s == pytest.approx(100)
    assert predict(COST, 2, Host(64, disk_bytes_per_s=1e10)).limit == "inflate"


def test_further_busy_cores_make_events_dearer_up_to_their_number():
    host = Host(cores=4, contention=0.1)
    assert predict(COST, 1, host).events_per_s == pytest.approx(100)
    assert predict(COST, 3, host).events_per_s == pytest.approx(300 / 1.2)
    # 8 readers on 4 cores: all that 4 busy cores do, each event 1.3 times as dear.
    assert predict(COST, 8, host).events_per_s == pytest.approx(4 / 11e-3 / 1.3)


def test_an_event_that_costs_nothing_can_be_predicted():
    assert predict(EventCost(0, 0, 0, 0, 0, 0, 0), 1, MANY).events_per_s > 1e9


def test_events_that_are_decoded_for_nothing_cost_reading_and_inflating():
    more = COST.decoded(2)
    assert (more.read, more.inflate, more.bytes_read) == (2e-3, 12e-3, 2e6)
    assert (more.scatter, more.other, more.consumer) == (2e-3, 1e-3, 1e-3)
    assert COST.times(3).reader == pytest.approx(30e-3)
    assert COST.times(3).consumer == pytest.approx(3e-3)


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
def test_amplification_is_the_mean_over_all_ways_to_choose_events_of_a_block(part, block):
    decoded = 0.0
    for chosen in itertools.product([0, 1], repeat=block):
        wanted = sum(chosen)
        decoded += part**wanted * (1 - part) ** (block - wanted) * (block if wanted else 0)
    assert amplification(part, block) == pytest.approx(decoded / (part * block))


def test_amplification_ends_at_the_size_of_a_block():
    assert amplification(1e-9, 100) == pytest.approx(100)
    assert amplification(1.0, 100) == 1


def test_the_last_chunk_of_a_file_has_room_that_is_not_used():
    assert tail(100, 63) == 1.26
    assert tail(126, 63) == 1
    assert tail(10, 100) == 10
    assert tail(0, 10) == 1


@pytest.mark.parametrize(("first", "later", "without"), [(2, 1, 1.5), (10, 0.1, 1), (0.9, 0.5, 1), (3, 1, 2)])
def test_a_cache_pays_from_the_epoch_after_which_less_time_was_spent(first, later, without):
    spent = (first + later * epochs < without * (epochs + 1) for epochs in itertools.count())
    assert pays_from(first, later, without) == next(epoch for epoch, saves in enumerate(spent, 1) if saves)


def test_a_cache_that_is_no_faster_never_pays():
    assert pays_from(2, 1, 1) is None
    assert pays_from(2, 3, 1) is None


def test_a_device_waits_for_what_comes_later_than_its_step():
    rate = predict(COST, 1, MANY)  # a batch of 10 events every 100 ms
    slow = demand(rate, COST, 10, 0.05)
    assert (slow.events_per_s, slow.wait_s, slow.wait_fraction) == pytest.approx((200, 0.05, 0.5))
    # With 400 ms a step batches are there in time; a loop that goes step by step adds 10 ms of the consumer's work.
    fast = demand(rate, COST, 10, 0.4)
    assert (fast.wait_s, fast.wait_fraction, fast.serial_s) == pytest.approx((0, 0, 0.01))
