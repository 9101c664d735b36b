"""The demonstration: its events, its network, both loaders."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hepfeed.cli import app
from hepfeed.demo import H5pyEvents, Pass, compare, make_events, open_provider, plot_demo, train
from hepfeed.demo_model import CaloNet
from hepfeed.errors import SpecError
from hepfeed.spec import SampleSpec

LABELS = {"electron": 0, "photon": 1, "pi0": 2, "pion": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """4 classes x 1 file x 150 events."""
    directory = tmp_path_factory.mktemp("demo")
    make_events(directory, files=1, events=150, seed=0)
    return directory


@pytest.fixture
def provider(folder, tmp_path):
    with open_provider(SampleSpec.load(folder / "lcd.yaml"), tmp_path, workers=0, seed=0) as provider:
        yield provider


def test_the_events_have_a_specification_that_can_be_moved_with_them(folder):
    spec = SampleSpec.load(folder / "lcd.yaml")
    assert spec.classes == LABELS
    assert len(spec.files) == 4
    assert str(folder) not in (folder / "lcd.yaml").read_text()


def test_the_files_are_as_h5py_writes_them_by_default(folder, tmp_path):
    with h5py.File(folder / "EleEscan/EleEscan_1.h5") as file, h5py.File(tmp_path / "own.h5", "w") as own:
        ecal = own.create_dataset("ECAL", (150, 25, 25, 25), "f4", compression="gzip")
        assert (file["ECAL"].shape, file["ECAL"].chunks) == (ecal.shape, ecal.chunks)
        assert (file["ECAL"].compression, file["ECAL"].compression_opts) == ("gzip", 4)
        assert 10 <= file["energy"][...].min() < file["energy"][...].max() <= 100


def test_events_are_not_written_among_other_files(tmp_path):
    (tmp_path / "mine.h5").write_bytes(b"")
    with pytest.raises(SpecError, match="new or empty directory"):
        make_events(tmp_path, files=1, events=10, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.h5"]


def test_making_events_tells_how_many_are_done(tmp_path):
    steps = []
    make_events(tmp_path / "new", files=1, events=10, seed=0, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("making events", 40, 40)
    assert {total for _, _, total in steps} == {40}


def test_the_network_gives_a_logit_for_each_class_whatever_the_energies():
    model = CaloNet(4)
    ecal, hcal = torch.zeros(3, 25, 25, 25), torch.zeros(3, 5, 5, 60)
    ecal[1], ecal[2] = 1e3, -1e-3  # saturated; noise below 0
    logits = model(ecal, hcal)
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()
    assert sum(p.numel() for p in model.parameters()) < 10_000


def test_training_learns_more_than_chance_and_repeats_itself(folder, tmp_path):
    def run(index):
        spec = SampleSpec.load(folder / "lcd.yaml")
        with open_provider(spec, index, workers=0, seed=3) as provider:
            return train(provider, epochs=3, seed=3)

    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert [epoch.train.events for epoch in first.epochs] == [480] * 3
    assert [epoch.val.events for epoch in first.epochs] == [120] * 3
    assert first.epochs[-1].val.accuracy > 0.45  # chance is 0.25, and its standard deviation 0.04
    assert [epoch.train.correct for epoch in first.epochs] == [epoch.train.correct for epoch in second.epochs]
    assert first.stats["events"] == 1440


def test_training_leaves_the_number_of_threads_and_the_random_numbers_as_they_were(provider):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(provider, epochs=1, seed=0)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_less_than_one_epoch_is_an_error(provider):
    with pytest.raises(SpecError, match="1 epoch or more, got 0"):
        train(provider, epochs=0, seed=0)


def test_the_comparison_reads_the_same_events_with_the_same_values(provider):
    dataset = provider.train.dataset
    events = H5pyEvents(dataset)
    assert len(events) == len(dataset) == 480
    for number in (0, 123, 479):
        theirs, ours = events[number], dataset[number]
        assert theirs.keys() == ours.keys() - {"event"}
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    events.close()


def test_the_comparison_goes_through_the_whole_epoch_where_there_is_time(provider):
    result = compare(provider, workers=0, seed=0, limit_s=1e9)
    assert (result.feeding.events, result.loading.events, result.training.events) == (480, 480, 480)
    assert result.feeding.correct == result.loading.correct == 0
    assert result.training.correct > 0
    faster = max(result.loading.events_per_s, result.training.events_per_s)
    assert result.ratio == pytest.approx(result.feeding.events_per_s / faster)


def test_the_comparison_stops_at_its_limit(provider):
    result = compare(provider, workers=0, seed=0, limit_s=0)
    assert (result.loading.batches, result.loading.events) == (1, 64)
    assert (result.training.batches, result.training.events) == (1, 64)
    assert (result.feeding.events, result.epoch_events) == (480, 480)


def test_a_pass_knows_its_accuracy_and_speed():
    done = Pass(events=200, batches=4, correct=50, seconds=0.5, wait_s=0.1)
    assert (done.accuracy, done.events_per_s) == (0.25, 400.0)


def test_the_figure_is_drawn(provider, tmp_path):
    training = train(provider, epochs=1, seed=0)
    plot_demo(tmp_path / "demo.png", training, compare(provider, workers=0, seed=0, limit_s=0))
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


# ---- the command


def run_demo(*arguments):
    result = CliRunner().invoke(
        app, ["demo", "--events", "20", "--files", "1", "--epochs", "1", "--workers", "0", *arguments]
    )
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_command_makes_feeds_trains_and_compares(tmp_path):
    shown = run_demo(str(tmp_path / "lcd"), "--plot", str(tmp_path / "demo.png"))
    for part in ("What was made", "Training a network of 9,508 weights", "-bound: ", "torch + h5py", "hepfeed loads"):
        assert part in shown
    assert (tmp_path / "demo.png").stat().st_size > 1000
    assert len(SampleSpec.load(tmp_path / "lcd/lcd.yaml").files) == 4


@pytest.mark.parametrize("keep", [False, True])
def test_the_temporary_folder_stays_only_if_it_is_to_be_kept(tmp_path, monkeypatch, keep):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown = run_demo(*(["--keep"] if keep else []))
    kept = list(tmp_path.glob("hepfeed-demo-*"))
    assert len(kept) == keep
    assert ("The events are in" in shown) == keep
    assert all(np.shape(SampleSpec.load(Path(path) / "lcd.yaml").files) == (4,) for path in kept)
