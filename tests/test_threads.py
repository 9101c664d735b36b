"""Readers that are threads of this process: the same batches, errors as from processes, and nothing left behind."""

import gc
import os
import select
import threading
import weakref
from contextlib import contextmanager

import cached
import numpy as np
import pytest
from events import SHAPE, write_classes
from thread_targets import StallingReader, Target, Writer

import hepfeed as hf
from hepfeed import pool as pool_module
from hepfeed.errors import CorruptDataError, KeyMissingError, ProcessError, SourceError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.ring import Ring
from hepfeed.thread_worker import ThreadWorker
from hepfeed.transforms import Flip, Log
from hepfeed.transforms.step import Step

WAIT_S = 30


# ---- the worker


@pytest.fixture
def start():
    """Start workers; they are ended after the test."""
    workers = []

    def start(*args, target="Target"):
        workers.append(ThreadWorker(f"thread_targets:{target}", args))
        return workers[-1]

    Target.closed = []
    yield start
    for worker in workers:
        worker.close()


def replies(worker, count):
    """Wait for a number of replies, or for the end."""
    found = []
    while len(found) < count:
        assert select.select([worker], [], [], WAIT_S)[0]
        some = worker.receive()
        if some is None:
            return None
        found += some
    return found


def test_calls_are_answered_in_their_order_with_their_numbers(start):
    worker = start(100)
    for number in (7, 3, 9):
        worker.call(number, "add", number)
    assert replies(worker, 3) == [(7, True, 107), (3, True, 103), (9, True, 109)]
    assert worker.receive() == []
    assert (worker.has_unsent, worker.exit_code) == (False, None)


def test_a_worker_is_one_thread_of_this_process(start):
    worker = start()
    worker.call(1, "where")
    ((_, _, (process, same, name)),) = replies(worker, 1)
    assert (process, same, name) == (os.getpid(), True, "hepfeed-target")
    assert worker.pid == os.getpid()


def test_arguments_and_answers_are_handed_over_as_they_are(start):
    worker, value = start(), lambda: None  # which does not pickle
    worker.call(1, "same", value)
    assert replies(worker, 1)[0][2] is value


def test_nothing_is_kept_of_a_call_that_was_answered(start):
    worker = start()
    array = np.zeros(10)
    reference = weakref.ref(array)
    worker.call(1, "same", array)
    del array
    answer = replies(worker, 1)
    assert reference() is not None
    del answer
    worker.call(2, "add", 1)  # once it is answered, the thread has left the call before
    replies(worker, 1)
    assert reference() is None


def test_an_error_arrives_with_its_type_fields_and_traceback_and_holds_nothing(start):
    worker = start()
    worker.call(1, "fail", "no such key")
    ((number, succeeded, error),) = replies(worker, 1)
    assert (number, succeeded) == (1, False)
    assert type(error) is KeyMissingError
    assert (error.message, error.file, error.key, error.event) == ("no such key", "a.h5", "ECAL", 3)
    assert error.__traceback__ is None
    assert type(error.__cause__) is ProcessError
    assert "in fail" in str(error.__cause__)
    held = weakref.ref(Target.held.obj)
    del Target.held
    worker.call(2, "add", 1)
    replies(worker, 1)
    assert held() is None


def test_an_error_that_does_not_pickle_arrives_as_text(start):
    worker = start()
    worker.call(1, "odd")
    ((_, _, error),) = replies(worker, 1)
    assert type(error) is ProcessError
    assert "OddError: it does not pickle" in str(error)
    assert "Traceback" in str(error)


def test_a_target_that_can_not_be_built_is_reported_and_then_the_worker_is_gone(start):
    worker = start(1, 2, 3)
    ((number, succeeded, error),) = replies(worker, 1)
    assert (number, succeeded, type(error)) == (-1, False, TypeError)
    assert replies(worker, 1) is None
    assert worker.exit_code == 0


def test_a_call_that_ends_its_thread_ends_the_worker(start):
    worker = start(5)
    worker.call(1, "leave")
    worker.call(2, "add", 1)
    assert replies(worker, 1) is None
    assert worker.exit_code == 1
    assert Target.closed == [5]
    assert select.select([worker], [], [], 0)[0]  # its end is found again and again
    assert worker.receive() is None


def test_a_worker_that_is_closed_ends_after_its_present_call(start):
    worker, event = start(5), threading.Event()
    worker.call(1, "wait", event)
    worker.call(2, "same", event)
    worker.hang_up()
    assert worker.fileno() == -1
    assert worker.receive() is None
    event.set()
    worker.close()
    assert worker.exit_code == 0
    assert Target.closed == [5]
    worker.close()


def test_a_worker_without_a_name_ends():
    Target.closed = []
    before = set(threading.enumerate())
    worker = ThreadWorker("thread_targets:Target", (9,))
    (thread,) = set(threading.enumerate()) - before
    del worker
    thread.join(WAIT_S)
    assert Target.closed == [9]


def test_a_thread_that_can_not_be_ended_is_given_up_and_its_late_answer_is_dropped(start):
    worker, event = start(), threading.Event()
    worker.call(1, "wait", event)
    assert worker.kill() is False  # nothing is known of what it may still do
    assert worker.exit_code == -9
    assert worker.receive() is None
    event.set()
    worker.close()
    assert worker.exit_code == -9


def test_a_worker_may_be_closed_from_within_its_own_thread(start):
    # The garbage collector may end a loader in any thread.
    worker = start()
    worker.call(1, "add", 1)
    replies(worker, 1)
    closing = threading.Event()

    class Value:
        def __radd__(self, _):
            worker.close()
            closing.set()

    worker.call(2, "add", Value())
    assert closing.wait(WAIT_S)
    worker.close()
    assert worker.fileno() == -1


def test_what_a_thread_writes_after_it_was_given_up_is_lost(start):
    ring = Ring()
    slot = ring.acquire(64)
    worker, begun, event = start(ring.descriptor, target="Writer"), threading.Event(), threading.Event()
    Writer.done = threading.Event()
    worker.call(1, "write", begun, event, slot, 100_000)
    assert begun.wait(WAIT_S)
    assert worker.kill() is True
    ring.release(slot)
    assert ring.acquire(200_000) == slot  # for another batch
    mine = ring.view.bytes(slot, 200_000)
    mine[:] = 7
    event.set()
    assert Writer.done.wait(WAIT_S)
    assert (mine == 7).all()
    worker.close()
    ring.close()


def test_a_forked_process_leaves_the_thread_of_its_parent_alone(run_script):
    script = """
        import os, sys, select, warnings
        warnings.simplefilter("ignore")
        from hepfeed.thread_worker import ThreadWorker
        worker = ThreadWorker("fractions:Fraction", (1, 3))
        child = os.fork()
        if child == 0:
            worker.hang_up()
            worker.close()
            os._exit(0 if worker.kill() is False else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        worker.call(1, "limit_denominator", 2)
        select.select([worker], [], [], 30)
        print(worker.receive())
        worker.close()
    """
    assert run_script(script) == "[(1, True, Fraction(1, 2))]\n"


# ---- readers


@contextmanager
def readers(method, target="hepfeed.reader:Reader"):
    """Let loaders that begin an epoch meanwhile have threads or processes as readers."""

    def start(method, ring, count, number):
        return ThreadWorker(target, (ring, False, number, count))

    with pytest.MonkeyPatch.context() as patch:
        if method == "thread":
            patch.setattr(pool_module, "_start", start)
        yield


def epochs(method, spec, count=1, *, dataset=None, **options):
    """Return the arrays of all batches of some epochs."""
    options = {"batch_size": 12, "shuffle": True, "seed": 5, "num_workers": 2, "persistent_workers": True, **options}
    options["persistent_workers"] &= options["num_workers"] > 0
    with readers(method), hf.DataLoader(hf.EventDataset(spec, **(dataset or {})), **options) as loader:
        return [cached.all_bits(loader) for _ in range(count)]


def assert_same_as_processes(spec, count=1, **options):
    threads, processes = (epochs(method, spec, count, **options) for method in ("thread", "process"))
    assert threads == processes
    assert sum(map(len, threads)) > 3 * count


def two_classes(folder, layout="hundred_event_chunks"):
    return write_classes(folder, {"a": [50, 31], "b": [44]}, layout=layout)


@pytest.mark.parametrize("layout", ["contiguous", "all_filters", "big_endian", "edge_chunks", "blosc", "virtual"])
def test_dense_events_are_the_same_as_from_processes(tmp_path, layout):
    assert_same_as_processes(two_classes(tmp_path, layout), 2, window_events=40)


def test_readers_that_start_anew_each_epoch_give_the_same(tmp_path):
    assert_same_as_processes(two_classes(tmp_path), 2, persistent_workers=False)


def test_jagged_events_are_the_same_as_from_processes(tmp_path):
    assert_same_as_processes(cached.write_set(tmp_path), 2)


def test_native_augmentation_is_the_same_as_from_processes(tmp_path):
    steps = [
        {"log": {"keys": "ECAL"}},
        {"flip": {"keys": "ECAL", "axes": [0, 1]}},
        {"gaussian_noise": {"keys": "HCAL", "sigma": 0.1}},
        {"sparsify": {"keys": "ECAL"}},
    ]
    assert_same_as_processes(cached.write_set(tmp_path), 2, dataset={"transform": steps})


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_epochs_that_fill_a_cache_and_come_from_it_are_the_same_as_from_processes(tmp_path, where):
    spec = cached.write_set(tmp_path / "set")
    steps = [{"sparsify": {"keys": "ECAL"}}, "cache", {"gaussian_noise": {"keys": "HCAL", "sigma": 0.1}}]
    found = []
    for method in ("thread", "process"):
        cache = tmp_path / method if where == "disk" else "ram"
        found.append(epochs(method, spec, 3, dataset={"transform": steps, "cache": cache}))
    assert found[0] == found[1]
    if where == "disk":
        counts = [len(cached.stored_events(tmp_path / method)) for method in ("thread", "process")]
        assert counts == [240, 240]


def test_this_process_keeps_what_readers_of_their_own_process_change(tmp_path):
    import random
    import signal

    gc.unfreeze()
    handler = signal.getsignal(signal.SIGTERM)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    epochs("thread", two_classes(tmp_path), dataset={"transform": [Log(keys="image", offset=1e6)]})
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002
    assert gc.get_freeze_count() == 0
    assert signal.getsignal(signal.SIGTERM) == handler


def test_two_loaders_run_at_once_in_two_threads(tmp_path):
    spec = cached.write_set(tmp_path)
    expected = {seed: epochs("process", spec, 2, seed=seed) for seed in (1, 2)}
    found = {}

    def run(seed):
        found[seed] = [epochs_here(seed) for _ in range(2)]

    def epochs_here(seed):
        dataset = hf.EventDataset(spec)
        with hf.DataLoader(dataset, 12, True, seed=seed, num_workers=2, persistent_workers=True) as loader:
            return [cached.all_bits(loader) for _ in range(2)]

    with readers("thread"):
        threads = [threading.Thread(target=run, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert found == {seed: [each, each] for seed, each in expected.items()}


def test_one_dataset_serves_two_loaders_in_two_threads(tmp_path):
    spec = two_classes(tmp_path)
    dataset, found = hf.EventDataset(spec), []

    def run():
        with hf.DataLoader(dataset, 12, True, seed=1, num_workers=2) as loader:
            found.append(cached.all_bits(loader))

    with readers("thread"):
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert found == 2 * epochs("process", spec, seed=1)


def hepfeed_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("hepfeed")]


def errors_of(method, spec):
    """Return the error of an epoch, with what it says."""
    with pytest.raises((SourceError, CorruptDataError)) as caught:
        epochs(method, spec)
    assert hepfeed_threads() == []
    error = caught.value
    return type(error), error.message, error.file, error.key, error.event


def test_a_broken_chunk_is_the_same_error_as_from_processes(tmp_path):
    spec = two_classes(tmp_path, "all_filters")
    path = tmp_path / "b" / "b_0.h5"
    index = hf.EventDataset(spec).index  # what it says of chunks is kept
    table = index.source_table(index.files.index(str(path))).keys["image"].chunks
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(int(table.offset[1]) + 3)
        file.write(b"\xff\xff\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = [errors_of(method, spec) for method in ("thread", "process")]
    assert found[0] == found[1]
    assert found[0][:1] + found[0][2:4] == (CorruptDataError, str(path), "image")


def test_a_file_that_goes_away_is_the_same_error_as_from_processes(tmp_path):
    found = []
    for method in ("thread", "process"):
        spec = two_classes(tmp_path / "set")
        dataset = hf.EventDataset(spec)
        (tmp_path / "set" / "b" / "b_0.h5").unlink()
        with readers(method), hf.DataLoader(dataset, 12, num_workers=2) as loader:
            with pytest.raises(SourceError) as caught:
                list(loader)
            error = caught.value
            found.append((type(error), error.message, error.file, error.event))
    assert found[0] == found[1]
    assert "was it moved or deleted?" in found[0][1]
    del error, caught
    assert hepfeed_threads() == []


def test_an_early_break_and_the_end_of_the_loader_leave_no_thread(tmp_path):
    dataset = hf.EventDataset(two_classes(tmp_path))
    with readers("thread"):
        batches = iter(hf.DataLoader(dataset, 12, num_workers=2))
        for batch in batches:
            assert batch["image"].shape == (12, *SHAPE)
            break
        del batches
        gc.collect()
        assert hepfeed_threads() == []
        loader = hf.DataLoader(dataset, 12, num_workers=2, persistent_workers=True)
        kept = next(iter(loader))
        assert len(hepfeed_threads()) == 2
        copy = kept["image"].clone()
        del loader
        gc.collect()
        assert hepfeed_threads() == []
    assert (kept["image"] == copy).all()  # a batch that is held outlives the readers


def test_an_exception_in_the_loop_leaves_no_thread(tmp_path):
    dataset = hf.EventDataset(two_classes(tmp_path))

    def loop():
        for _ in hf.DataLoader(dataset, 12, num_workers=2):
            raise ValueError("of the user")

    with readers("thread"):
        with pytest.raises(ValueError, match="of the user"):
            loop()
        gc.collect()
    assert hepfeed_threads() == []


def test_a_program_that_ends_in_the_middle_of_an_epoch_ends_at_once(run_script, tmp_path):
    two_classes(tmp_path / "set")
    script = """
        import sys
        import hepfeed as hf
        from hepfeed import pool
        start = pool._start
        pool._start = lambda method, *args: start("thread", *args)
        dataset = hf.EventDataset([[sys.argv[1] + "/*.h5", ["image"], "a"]])
        loader = hf.DataLoader(dataset, 4, num_workers=2, persistent_workers=True)
        print(next(iter(loader))["image"].shape[0])
    """
    assert run_script(script, tmp_path / "set" / "a", cwd="/") == "4\n"


def test_readers_share_the_descriptors_of_the_process(run_script, tmp_path):
    write_classes(tmp_path, {"a": [3] * 60})
    script = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140))
        import hepfeed as hf
        from hepfeed import pool
        start = pool._start
        pool._start = lambda method, *args: start("thread", *args)
        dataset = hf.EventDataset([[sys.argv[1] + "/*.h5", ["image", "energy"], "a"]])
        with hf.DataLoader(dataset, 20, True, num_workers=8, persistent_workers=True) as loader:
            print(*(sum(len(batch["label"]) for batch in loader) for _ in range(3)))
    """
    assert run_script(script, tmp_path / "a", cwd="/") == "180 180 180\n"


def test_a_reader_that_stalls_is_replaced_and_what_it_writes_later_is_lost(tmp_path):
    spec = two_classes(tmp_path)
    expected = epochs("process", spec, 2)
    StallingReader.stalls = threading.Lock()
    StallingReader.go_on, StallingReader.late = threading.Event(), []
    dataset = hf.EventDataset(spec)
    options = {"seed": 5, "num_workers": 2, "persistent_workers": True, "timeout": 1}
    with readers("thread", "thread_targets:StallingReader"), hf.DataLoader(dataset, 12, True, **options) as loader:
        found = [cached.all_bits(loader)]
        assert len(hepfeed_threads()) == 3
        StallingReader.go_on.set()
        found.append(cached.all_bits(loader))
    assert found == expected
    for thread in hepfeed_threads():
        thread.join(WAIT_S)
    assert len(StallingReader.late) == 1


@pytest.mark.parametrize(("reader", "written"), [("hepfeed.reader:Reader", True), ("thread_targets:LostReader", False)])
def test_a_reader_that_was_given_up_writes_nothing_to_the_cache(tmp_path, reader, written):
    dataset = hf.EventDataset(cached.write_set(tmp_path / "set"), cache=tmp_path / "cache")
    with readers("thread", reader), hf.DataLoader(dataset, 12, True, seed=5, num_workers=1) as loader:
        for number, _ in enumerate(loader):
            if number == 5:
                break
    assert bool(cached.stored_events(tmp_path / "cache")) == written


# ---- which pipelines may run in threads


class Doubled(Step):
    """A step of the user's own."""

    def __call__(self, batch, draws):
        return {**batch, "image": 2 * batch["image"]}


def add_noise(batch):
    return {**batch, "image": batch["image"] + np.random.normal()}  # noqa: NPY002


def test_steps_of_hepfeed_may_run_in_threads():
    steps = [
        Log(keys="image", offset=1.0),
        "cache",
        Flip(keys="image", axes=[0]),
    ]
    Pipeline(steps).need_native()
    Pipeline().need_native()


@pytest.mark.parametrize(
    ("steps", "name"), [([Flip(keys="image", axes=[0]), add_noise], "add_noise"), ([Doubled()], "Doubled")]
)
def test_user_code_is_refused_in_threads(steps, name):
    with pytest.raises(SpecError, match=f"own steps only, not {name}: user code .* use worker_method='process'"):
        Pipeline(steps).need_native()


def test_every_user_step_is_named():
    with pytest.raises(SpecError, match=r"not add_noise, Doubled, Target\.same:"):
        Pipeline([add_noise, Doubled(), Target().same]).need_native()
