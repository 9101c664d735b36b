"""Hugging Face accelerate's Accelerator on hepfeed's loaders."""

import gc
import json
import socket

import pytest
import torch
from events import all_events, events_of, write_classes

import hepfeed as hf
from hepfeed.accelerated import Accelerated, accelerates

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: E402


@pytest.fixture
def dataset(tmp_path):
    classes = {"electron": [31, 20], "pion": [40]}
    return hf.EventDataset(write_classes(tmp_path / "data", classes, layout="hundred_event_chunks"))


@pytest.fixture
def accelerator():
    yield accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def steps_of(accelerator, loader):
    """Train a weight through a loop and return after which batches the optimizer stepped."""
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-3))
    stepped = []
    for number, batch in enumerate(loader):
        with accelerator.accumulate(model):
            accelerator.backward(model(batch["energy"][:, None].float()).mean())
            if accelerator.sync_gradients:
                stepped.append(number)
            optimizer.step()
            optimizer.zero_grad()
    return stepped


def test_prepare_keeps_the_loader(dataset, accelerator):
    with hf.DataLoader(dataset, 8) as loader:
        assert accelerator.prepare(loader) is loader
        assert accelerator.prepare_data_loader(loader) is loader


@pytest.mark.parametrize("workers", [0, 2])
def test_accumulated_gradients_are_applied_at_the_end_of_each_epoch(dataset, accelerator, workers):
    with hf.DataLoader(dataset, 9, shuffle=True, num_workers=workers, seed=2) as loader:
        prepared = accelerator.prepare(loader)
        for _ in range(2):
            assert steps_of(accelerator, prepared) == [3, 7, 10]  # 11 batches
    reference = accelerator.prepare(torch.utils.data.DataLoader(dataset, batch_size=9))
    assert steps_of(accelerator, reference) == [3, 7, 10]


def test_the_end_is_known_also_after_a_resume_within_the_epoch(dataset, accelerator):
    loader = accelerator.prepare(hf.DataLoader(dataset, 9, shuffle=True, seed=2))
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()
    assert state == loader.state_dict()
    resumed = accelerator.prepare(hf.DataLoader(dataset, 9, shuffle=True, seed=2))
    resumed.load_state_dict(state)
    ends = []
    for batch, other in zip(resumed, iterator, strict=True):
        assert events_of([batch]) == events_of([other])
        ends.append(accelerator.gradient_state.end_of_dataloader)
    assert ends == [False] * 5 + [True]
    loader.close()
    resumed.close()


def test_a_loop_within_a_loop_and_one_that_is_left_early_do_not_mix_up_their_ends(dataset, accelerator):
    training = accelerator.prepare(hf.DataLoader(dataset, 31))
    validation = accelerator.prepare(hf.DataLoader(dataset, 50))
    state, seen = accelerator.gradient_state, []
    for _ in training:
        inner = [state.end_of_dataloader for _ in validation]
        assert inner == [False, True]
        for _ in validation:
            break
        seen.append(state.end_of_dataloader)
    gc.collect()
    assert seen == [False, False, True]
    assert not state.in_dataloader
    training.close()
    validation.close()


def test_gathered_events_of_one_process_are_all_events(dataset, accelerator):
    with accelerator.prepare(hf.DataLoader(dataset, 9)) as loader:
        gathered = [accelerator.gather_for_metrics(batch["event"]) for batch in loader]
        assert {tuple(event) for event in torch.cat(gathered).tolist()} == all_events(dataset)
        assert len(torch.cat(gathered)) == len(dataset)


def test_batches_come_on_the_device_of_accelerate(dataset, accelerator, monkeypatch):
    with monkeypatch.context() as patch, accelerator.prepare(hf.DataLoader(dataset, 9)) as loader:
        patch.setattr(PartialState(), "device", torch.device("meta"))
        batch = next(iter(loader))
        assert {value.device.type for value in batch.values()} == {"meta"}


def test_loops_are_plain_where_there_is_no_accelerator(dataset):
    assert not accelerates()
    with hf.DataLoader(dataset, 9) as loader:
        assert not isinstance(iter(loader), Accelerated)


def test_of_an_iterator_without_end_the_end_is_not_known(accelerator):
    state = accelerator.gradient_state
    wrapped = Accelerated(iter([3, 4, 5]), None, -1)
    assert not state.in_dataloader
    assert next(wrapped) == 3
    assert (state.in_dataloader, state.end_of_dataloader, state.remainder) == (True, False, -1)
    assert list(wrapped) == [4, 5]
    assert not state.in_dataloader


def test_a_wrapped_iterator_shows_what_is_in_it(dataset, accelerator):
    with hf.DataLoader(dataset, 9) as loader:
        iterator = iter(loader)
        assert isinstance(iterator, Accelerated)
        assert len(iterator) == len(loader)
        assert not iterator.ended
        next(iterator)
        iterator.close()
        assert iterator.ended
        assert not accelerator.gradient_state.in_dataloader
        with pytest.raises(AttributeError, match="nothing"):
            iterator.nothing  # noqa: B018


TWO = """
    import json
    import os
    import sys
    from pathlib import Path

    import accelerate
    import torch

    import hepfeed as hf

    folder = Path(sys.argv[1])
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)

    def train(spec, options):
        loader = hf.DataLoader(hf.EventDataset(spec), 8, num_workers=1, seed=2, **options)
        assert accelerator.prepare(loader) is loader
        model = accelerator.prepare(torch.nn.Linear(1, 1))
        optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), 1e-4))
        epochs, stepped = [], []
        for _ in range(2):
            epochs.append([])
            for number, batch in enumerate(loader):
                with accelerator.accumulate(model):
                    accelerator.backward(model(batch["energy"][:, None].float()).mean())
                    if accelerator.sync_gradients:
                        stepped.append(number)
                    optimizer.step()
                    optimizer.zero_grad()
                epochs[-1] += accelerator.gather_for_metrics(batch["event"]).tolist()
        loader.close()
        return epochs, stepped, next(model.parameters()).item()

    found = [train(*case) for case in json.loads((folder / "cases.json").read_text())]
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(found))
    accelerator.end_training()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


CASES = [
    (80, "one_event_chunks", {}),
    (81, "one_event_chunks", {"shuffle": True}),
    (81, "hundred_event_chunks", {"shuffle": "window"}),
    (91, "all_filters", {"shuffle": True}),
    (81, "hundred_event_chunks", {"uneven": "drop"}),
]


def test_two_processes_gather_every_event_once(tmp_path, start_script):
    specs = [
        write_classes(tmp_path / str(number), {"electron": [31, 20], "pion": [events - 51]}, layout=layout)
        for number, (events, layout, _) in enumerate(CASES)
    ]
    cases = [(spec, options) for spec, (_, _, options) in zip(specs, CASES, strict=True)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "1"}
    started = [start_script(TWO, tmp_path, env={**world, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for (events, _, options), spec, (epochs, steps, _) in zip(CASES, specs, first, strict=True):
        dropped = options.get("uneven") == "drop"
        assert steps == ([2, 4] if events == 80 or dropped else [2, 5]) * 2  # five or six batches each
        for gathered in epochs:
            found = {tuple(event) for event in gathered}
            assert len(gathered) == len(found) == events - dropped
            assert found <= all_events(hf.EventDataset(spec))
