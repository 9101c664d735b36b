"""Readers that stop or hang: they are replaced after the time-out, and what stays dead is an error that names it."""

import os
import signal
import time

import psutil
import pytest
from events import all_events, bits, events_of, write_classes

import hepfeed as hf
from hepfeed.errors import FeedTimeoutError

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path, {"electron": [150, 60], "pion": [190]}, layout="all_filters"))


def first_reader(loader):
    return psutil.Process(loader._own_pool.pids[0])


@pytest.mark.parametrize("moment", [0, 3, 11])
def test_a_stopped_reader_is_replaced_and_the_epoch_is_the_same(dataset, moment):
    options = {"batch_size": 16, "shuffle": True, "seed": 1, "window_events": 48}
    undisturbed = bits(hf.DataLoader(dataset, **options))
    with hf.DataLoader(dataset, **options, num_workers=2, persistent_workers=True, timeout=2) as loader:
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(moment)]
        stopped = first_reader(loader)
        stopped.suspend()
        batches += iterator
        assert bits(batches) == undisturbed
        assert set(events_of(loader)) == all_events(dataset)  # an epoch later, at the latest, the stopped one was asked
        assert loader.stats()["restarts"] == 1
        assert not stopped.is_running()


def test_batches_that_are_finished_come_before_a_reader_that_hangs(dataset):
    def hang(batch):
        import time

        if batch["event"][0].tolist() == [1, 0]:
            time.sleep(1000)
        return batch

    with hf.DataLoader(dataset, 30, num_workers=2, process_fn=hang, timeout=6) as loader:
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(5)]
        assert [batch["event"][0].tolist() for batch in batches] == [[0, 30 * i] for i in range(5)]
        with pytest.raises(FeedTimeoutError, match=r"DataLoader timed out after 6 seconds.*event 0 of") as caught:
            next(iterator)
    assert caught.value.file == dataset.files[1]
    assert caught.value.event == 0


def test_a_hang_that_passes_costs_one_reader(dataset, tmp_path):
    marker = str(tmp_path / "hung")

    def hang_once(batch):
        import os
        import time

        if batch["event"][0].tolist() == [1, 0] and not os.path.exists(marker):
            open(marker, "w").close()
            time.sleep(1000)
        return batch

    options = {"batch_size": 30}
    undisturbed = bits(hf.DataLoader(dataset, **options))
    with hf.DataLoader(dataset, **options, num_workers=2, process_fn=hang_once, timeout=4) as loader:
        assert bits(loader) == undisturbed
        assert loader.stats()["restarts"] == 1


def test_a_reader_that_is_stopped_again_and_again_is_an_error(dataset):
    def stop(batch):
        import os

        os.kill(os.getpid(), signal.SIGSTOP)
        return batch

    begun = time.monotonic()
    with (
        hf.DataLoader(dataset, 16, num_workers=1, process_fn=stop, timeout=1.5) as loader,
        pytest.raises(FeedTimeoutError, match=r"timed out after 1\.5 seconds"),
    ):
        next(iter(loader))
    assert time.monotonic() - begun < 30


def test_without_a_time_out_a_stopped_reader_is_waited_for(dataset):
    options = {"batch_size": 16, "window_events": 48}
    undisturbed = bits(hf.DataLoader(dataset, **options))
    with hf.DataLoader(dataset, **options, num_workers=1, persistent_workers=True) as loader:
        iterator = iter(loader)
        batches = [next(iterator)]
        reader = first_reader(loader)
        reader.suspend()
        # Somebody else lets it go on.
        waker = f"import os, signal, time; time.sleep(1.5); os.kill({reader.pid}, signal.SIGCONT)"
        with psutil.Popen(["python3", "-c", waker]) as process:
            batches += iterator
            assert process.wait() == 0
        assert bits(batches) == undisturbed
        assert loader.stats()["restarts"] == 0
        assert reader.pid in loader._own_pool.pids
        assert os.getpid() == reader.ppid()
