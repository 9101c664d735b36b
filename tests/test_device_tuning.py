"""The autotuner: when it measures, what it keeps, and that nothing that happens to its file stops a training."""

import errno
import functools
import json
import logging
import os
import time

import numpy as np
import pytest
import torch
from test_device_weight_gradient import gradient, integers, pairs, twin

from hepfeed.device import tuning, tuning_file, weight_gradient
from hepfeed.device.tuning import Case, choose
from hepfeed.device.tuning_file import Choice, TuningFile


@pytest.fixture(autouse=True)
def _nothing_chosen():
    tuning.forget()
    yield
    tuning.forget()


@pytest.fixture
def file():
    return TuningFile.default()


def case(rows=1000, card="", **others):
    made = Case.of("sparse_conv", "bfloat16", (64, 32), 27, 1, rows, 4 * rows, torch.device("cpu"))
    return Case(**{**vars(made), "card": card, **others})


class Clock:
    """Gives each variant the time that it is told."""

    def __init__(self, **seconds):
        self.seconds, self.ran, self.timed = seconds, [], []

    def run(self, variant):
        self.ran.append(variant)

    def __call__(self, run):
        run()
        self.timed.append(self.ran[-1])
        return self.seconds[self.ran[-1]]


def wall_clock(run):
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def test_the_fastest_variant_is_chosen_and_not_measured_again():
    clock = Clock(a=3e-6, b=1e-6, c=2e-6)
    for _ in range(3):
        assert choose(case(), ["a", "b", "c"], clock.run, clock) == "b"
    assert clock.timed == ["a", "b", "c"]
    assert tuning.entries() == {case(): Choice("b", {"a": 3.0, "b": 1.0, "c": 2.0})}


def test_of_equals_the_fixed_rule_is_chosen():
    clock = Clock(a=1e-6, b=1e-6)
    assert choose(case(), ["a", "b"], clock.run, clock) == "a"


def test_variants_may_be_anything_with_a_name():
    seconds = iter([2.0, 1.0])
    assert choose(case(), [3, 7], lambda _: None, lambda _: next(seconds)) == 7


def test_sizes_that_are_alike_are_one_case():
    assert case(1000) == case(600) == case(1024)
    assert case(1000) != case(1025)
    assert (case(1000).rows, case(1000).pairs_per_row, case(0).rows, case(0).pairs_per_row) == (1024, 4, 0, 0)
    assert case() != case(card="Some Card 9.0")
    assert case() != case(version="0")


@pytest.mark.parametrize("off", ["one variant", "environment", "deterministic", "host", "capture"])
def test_the_fixed_rule_holds_where_the_autotuner_is_off(off, monkeypatch):
    clock = Clock(a=2.0, b=1.0)
    given, variants, timer = case(), ["a", "b"], clock
    if off == "one variant":
        variants = ["a"]
    elif off == "environment":
        monkeypatch.setenv("HEPFEED_TUNE", "0")
    elif off == "host":
        timer = None
    elif off == "capture":
        given, timer = case(card="Some Card 9.0"), None
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    else:
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choose(given, variants, clock.run, timer) == "a"
    assert not clock.ran
    assert not tuning.entries()


def test_in_deterministic_mode_the_file_does_not_count_either(file, monkeypatch):
    file.add(case(), Choice("b", {"a": 2.0, "b": 1.0}))
    assert choose(case(), ["a", "b"], None) == "b"
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choose(case(), ["a", "b"], None) == "a"


def test_a_choice_that_is_no_variant_any_more_is_made_again(file):
    file.add(case(), Choice("gone", {"gone": 0.5}))
    clock = Clock(a=2e-6, b=1e-6)
    assert choose(case(), ["a", "b"], clock.run, clock) == "b"
    assert tuning.entries()[case()].variant == "b"


def test_a_variant_without_enough_memory_is_left_out():
    def run(variant):
        if variant in lacking:
            raise torch.OutOfMemoryError("no memory")

    lacking = {"a", "c"}
    assert choose(case(), ["a", "b", "c"], run, wall_clock) == "b"
    assert set(tuning.entries()[case()].microseconds) == {"b"}
    lacking = {"a", "b"}
    with pytest.raises(torch.OutOfMemoryError):
        choose(case(4000), ["a", "b"], run, wall_clock)
    assert set(tuning.entries()) == {case()}


def test_choices_come_back_from_the_file_in_a_new_process(run_script):
    clock = Clock(a=2e-6, b=1e-6)
    choose(case(), ["a", "b"], clock.run, clock)
    script = """
        import torch
        from hepfeed.device import tuning
        case = tuning.Case.of("sparse_conv", "bfloat16", (64, 32), 27, 1, 700, 2800, torch.device("cpu"))
        print(tuning.choose(case, ["a", "b"], None), tuning.entries()[case].microseconds)
    """
    assert run_script(script).strip() == "b {'a': 2.0, 'b': 1.0}"


def test_forgotten_choices_are_gone_from_the_file_too(file):
    clock = Clock(a=2.0, b=1.0)
    choose(case(), ["a", "b"], clock.run, clock)
    assert file.path.exists()
    tuning.forget()
    assert not file.path.exists()
    assert not tuning.entries()


def test_choices_are_logged(caplog):
    clock = Clock(a=2e-6, b=1e-6)
    with caplog.at_level(logging.DEBUG, "hepfeed"):
        choose(case(), ["a", "b"], clock.run, clock)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "in_channels=64" in record.getMessage()
    assert "b of {'a': 2.0, 'b': 1.0} us" in record.getMessage()


BROKEN = {
    "empty": b"",
    "cut": b'{"format": 1, "choices": [{"case"',
    "binary": bytes(range(256)),
    "a list": b"[]",
    "of another program": b'{"format": 1, "settings": {}}',
    "of a later format": b'{"format": 2, "choices": []}',
    "of other cases": b'{"format": 1, "choices": [{"case": {"x": 1}, "variant": "a", "microseconds": {}}]}',
    "without a case": b'{"format": 1, "choices": [{"variant": "a", "microseconds": {}}]}',
    "of other times": b'{"format": 1, "choices": [{"case": {}, "variant": "a", "microseconds": "b"}]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_not_ours_is_reported_and_rewritten(file, content, caplog):
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    clock = Clock(a=2.0, b=1.0)
    with caplog.at_level(logging.WARNING, "hepfeed"):
        assert choose(case(), ["a", "b"], clock.run, clock) == "b"
    assert str(file.path) in caplog.text
    assert list(file.read(Case)) == [case()]


def test_a_file_that_is_too_large_is_not_read(file, monkeypatch, caplog):
    file.add(case(), Choice("b", {}))
    monkeypatch.setattr(tuning_file, "_BYTES", 10)
    assert file.read(Case) == {}
    assert "too large" in caplog.text


def test_a_folder_that_can_not_be_written_to_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEPFEED_CACHE", str(tmp_path / "file" / "below"))
    clock = Clock(a=2.0, b=1.0)
    with caplog.at_level(logging.DEBUG, "hepfeed"):
        for _ in range(2):
            assert choose(case(), ["a", "b"], clock.run, clock) == "b"
    assert clock.timed == ["a", "b"]
    assert "are not kept in" in caplog.text
    tuning.forget()


def test_a_full_disk_stops_nothing_and_leaves_the_file_as_it_was(file, monkeypatch):
    file.add(case(), Choice("b", {}))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(os, "replace", full)
        file.add(case(4000), Choice("a", {}))
    assert list(file.read(Case)) == [case()]
    assert sorted(os.listdir(file.path.parent)) == ["tuning.json", "tuning.json.lock"]


def test_a_process_that_holds_the_lock_for_long_is_not_waited_for(file, monkeypatch):
    import fcntl

    file.add(case(), Choice("b", {}))
    monkeypatch.setattr(tuning_file, "_PATIENCE_S", 0.05)
    with open(f"{file.path}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file.add(case(4000), Choice("a", {}))
    assert list(file.read(Case)) == [case(), case(4000)]


def test_the_oldest_choices_are_dropped(file, monkeypatch):
    monkeypatch.setattr(tuning_file, "_MOST", 3)
    for rows in (1, 2, 4, 1, 8):
        file.add(case(rows), Choice("a", {}))
    assert [each.rows for each in file.read(Case)] == [4, 1, 8]
    assert len(json.loads(file.path.read_text())["choices"]) == 3


def test_processes_keep_each_others_choices(start_script, file):
    script = """
        import sys
        from dataclasses import dataclass
        from hepfeed.device.tuning_file import Choice, TuningFile

        @dataclass(frozen=True)
        class Case:
            process: int
            number: int

        for number in range(15):
            TuningFile.default().add(Case(int(sys.argv[1]), number), Choice("a", {"a": 1.0}))
    """
    started = [start_script(script, number) for number in range(3)]
    for process in started:
        _, trouble = process.communicate(timeout=60)
        assert process.returncode == 0, trouble
    kept = json.loads(file.path.read_text())["choices"]
    assert {(each["case"]["process"], each["case"]["number"]) for each in kept} == {
        (process, number) for process in range(3) for number in range(15)
    }


def test_the_file_lies_in_the_users_cache_where_none_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("HEPFEED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert TuningFile.default().path == tmp_path / "hepfeed" / "tuning.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TuningFile.default().path == tmp_path / ".cache" / "hepfeed" / "tuning.json"


def test_every_way_of_a_kernel_gives_the_same_gradient_whichever_is_chosen(backend, monkeypatch):
    rng = np.random.default_rng(0)
    x, grad = integers(rng, 30, 24, torch.float32), integers(rng, 40, 40, torch.float32)
    lists = pairs(rng, 30, 40, [20, 40])
    monkeypatch.setattr(tuning, "choose", functools.partial(choose, timer=wall_clock))
    for _ in range(2):
        assert torch.equal(gradient(backend, x, grad, lists).double(), twin(x, grad, lists))
    ((given, made),) = tuning.entries().items()
    assert (given.operator, given.in_channels, given.out_channels) == ("sparse_conv_weight_grad", 24, 40)
    assert (given.taps, given.groups, given.rows, given.pairs_per_row) == (2, 1, 64, 2)
    assert bool(given.card) == (backend.device == "cuda")
    assert set(made.microseconds) == set(weight_gradient._variants("float32", 24, 40))
    assert all(spent > 0 for spent in made.microseconds.values())


@pytest.mark.gpu
def test_a_device_measures_with_its_events():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    numbers = torch.ones(1 << 24, device="cuda")
    given = case(card=tuning._card(numbers.device))
    assert choose(given, [100, 1], lambda times: [numbers.add(1) for _ in range(times)]) == 1
    assert tuning.entries()[given].microseconds["100"] > tuning.entries()[given].microseconds["1"] > 0
