"""Errors of the user's code in a reader: they come with their type and their traceback, and the loop may go on."""

import itertools
import traceback

import pytest
import torch
from loader_datasets import (
    Count,
    Failing,
    FailingStream,
    Numbers,
    ThreePieceError,
    UnpicklableError,
    fail_in_reader,
    fail_to_collate,
    only_list,
)
from outcomes import error_of
from torch.utils.data import DataLoader as Torch

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]

ERRORS = {
    "plain": ValueError("wrong value"),
    "without a text": ValueError(),
    "of several lines": RuntimeError("one\ntwo"),
    "key": KeyError("energy"),
    "index": IndexError(3),
    "system": OSError(2, "no such thing", "a.h5"),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "more arguments": ThreePieceError("a", "b", "c"),
    "can't be pickled": UnpicklableError(),
    "assertion": AssertionError(),
    "not implemented": NotImplementedError("later"),
    "time": TimeoutError("too late"),
}


def words_of(error):
    """Type and text, without the frames of the loader itself."""
    head, _, trace = str(error).partition("Original Traceback (most recent call last):\n")
    lines = trace.splitlines()
    first = next(number for number, line in enumerate(lines) if "loader_datasets.py" in line)
    return type(error), head, lines[first:]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_has_the_type_and_the_text_that_torch_gives_it(kind):
    def run(loader):
        return words_of(error_of(list, loader(Failing(4, {1: ERRORS[kind]}), 2, num_workers=1)))

    theirs = run(Torch)
    assert theirs[1] == f"Caught {type(ERRORS[kind]).__name__} in DataLoader worker process 0.\n"
    assert run(hf.DataLoader) == theirs


def test_the_traceback_shows_the_users_line(Loader):
    error = error_of(list, Loader(Failing(4, {3: ValueError("wrong")}), num_workers=2))
    assert "in DataLoader worker process 1." in str(error)
    assert "raise self.errors[index]\n" in str(error)
    assert str(error).endswith("ValueError: wrong\n") or str(error).endswith("ValueError: wrong")


def test_an_error_in_the_main_process_is_the_error_itself(Loader):
    wrong = ValueError("wrong")
    assert error_of(list, Loader(Failing(4, {1: wrong}), 2)) is wrong


def outcomes_of(loader):
    """What each step of the loop gives: a batch, or the type of an error."""
    iterator, steps = iter(loader), []
    while True:
        try:
            steps.append(next(iterator))
        except StopIteration:
            return steps
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            steps.append(type(error))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_loop_goes_on_after_an_error(Loader, num_workers):
    dataset = Failing(9, {2: ValueError("a"), 3: KeyError("b"), 8: TypeError("c")})
    loader = Loader(dataset, None, num_workers=num_workers)
    for _ in range(2):
        assert outcomes_of(loader) == [0, 1, ValueError, KeyError, 4, 5, 6, 7, TypeError]


def test_every_batch_may_be_an_error(Loader):
    dataset = Failing(7, {index: NotImplementedError() for index in range(7)})
    assert outcomes_of(Loader(dataset, 2, num_workers=2)) == [NotImplementedError] * 4


def test_an_error_leaves_persistent_workers_to_the_next_epoch(Loader):
    loader = Loader(Failing(5, {1: ValueError("a")}), None, num_workers=2, persistent_workers=True)
    assert type(error_of(list, loader)) is ValueError
    assert outcomes_of(loader) == [0, ValueError, 2, 3, 4]


def test_an_error_of_collating_is_one_of_the_reader(Loader):
    loader = Loader(Numbers(4), None, sampler=[[0, 2], [1, 2], [0]], collate_fn=str, num_workers=1)
    assert outcomes_of(loader) == [TypeError] * 3
    loader = Loader(Numbers(4), batch_sampler=[[0, 2], [1, 2], [2]], collate_fn=fail_to_collate, num_workers=1)
    first, second, third = outcomes_of(loader)
    assert (first.tolist(), second, third.tolist()) == ([0, 2], ValueError, [2])


def test_a_stop_of_iteration_in_a_data_set_by_index_ends_no_epoch_in_silence(Loader):
    iterator = iter(Loader(Failing(4, {2: StopIteration("enough")}), None, num_workers=1))
    assert [next(iterator), next(iterator)] == [0, 1]
    error = error_of(next, iterator)
    assert isinstance(error, StopIteration | RuntimeError)
    assert "Caught StopIteration in DataLoader worker process 0." in str(error)


# ---- of streams


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_that_can_not_begin_is_an_error(Loader, num_workers):
    error = error_of(list, Loader(FailingStream(None), num_workers=num_workers))
    assert type(error) is ValueError
    assert "no stream today" in str(error)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_that_breaks_is_an_error_after_what_it_gave(Loader, num_workers):
    iterator = iter(Loader(FailingStream(3), 2, num_workers=num_workers, collate_fn=only_list))
    assert next(iterator) == [2, 1]
    for _ in range(2):
        error = error_of(next, iterator)
        assert type(error) is ValueError
        assert "the stream is broken" in str(error)


# ---- of the start


@pytest.mark.parametrize("dataset", [Numbers(6), Count(6)], ids=["map", "stream"])
def test_an_error_of_the_init_function_comes_with_the_first_batch(Loader, dataset):
    def run():
        return list(Loader(dataset, num_workers=2, worker_init_fn=fail_in_reader))

    error = error_of(run)
    assert type(error) is ValueError
    assert "Caught ValueError in DataLoader worker process 0.\n" in str(error)
    assert "reader 0 can't begin" in str(error)


@pytest.mark.usefixtures("multiprocessing_helpers")
def test_what_can_not_be_sent_to_a_spawned_reader_is_an_error_at_once(Loader):
    loader = Loader([lambda: 0], num_workers=1, multiprocessing_context="spawn")
    with pytest.warns(UserWarning, match="pickle error when attempting to start a worker"):
        error = error_of(iter, loader)
    assert "lambda" in str(error)


# ---- of the loop


@pytest.mark.parametrize("persistent", [False, True])
def test_an_error_in_the_loop_leaves_a_loader_that_works(Loader, persistent):
    loader = Loader(torch.arange(8), 2, num_workers=2, persistent_workers=persistent)

    def loop():
        for number, _ in enumerate(loader):
            if number == 1:
                raise ZeroDivisionError

    for _ in range(2):
        assert type(error_of(loop)) is ZeroDivisionError
    assert list(itertools.chain(*loader)) == list(range(8))
