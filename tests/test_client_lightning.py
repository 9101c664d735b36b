"""Lightning's Trainer and LightningCLI on hepfeed's loaders: loops, ranks, checkpoints."""

import contextlib
import json
import os
import random
import re
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
import yaml
from events import all_events, write_classes

import hepfeed as hf
from hepfeed.errors import SpecError

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint  # noqa: E402
from lightning.pytorch.cli import LightningCLI  # noqa: E402
from lightning.pytorch.demos.boring_classes import RandomDataset  # noqa: E402
from lightning.pytorch.loggers import Logger  # noqa: E402

from hepfeed.lightning import EventDataModule, FeedMonitor  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.pytorch.cli"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided:UserWarning"),
]


class Model(lightning.LightningModule):
    """A linear model that remembers the events of each loop's batches."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(20, 2)
        self.trained, self.validated, self.tested = [], [], []

    def _loss(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1) * 1e-3), batch["label"])

    def training_step(self, batch, index):
        self.trained.append(_events(batch))
        return self._loss(batch)

    def validation_step(self, batch, index):
        if not self.trainer.sanity_checking:
            self.validated.append(_events(batch))
        self.log("loss", self._loss(batch))

    def test_step(self, batch, index):
        self.tested.append(_events(batch))

    def predict_step(self, batch, index):
        return batch["event"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


class Interrupt(Callback):
    """Fails in a chosen batch."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, number):
        if trainer.global_step == self.at:
            raise RuntimeError("the power is gone")


def _events(batch):
    return [tuple(event) for event in batch["event"].tolist()]


def _flat(batches):
    return [event for batch in batches for event in batch]


def trainer(**options):
    return lightning.Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": "callbacks" in options,
            "max_epochs": 2,
            **options,
        }
    )


@pytest.fixture(autouse=True)
def _classes_as_they_were():
    """Lightning wraps methods of the loaders' classes while it asks for loaders, and leaves them so after an error."""
    classes = torch.utils.data.DataLoader, hf.DataLoader
    before = [dict(vars(each)) for each in classes]
    yield
    for each, attributes in zip(classes, before):
        for name in ("__init__", "__setattr__", "__delattr__"):
            if vars(each).get(name) is not attributes.get(name):
                setattr(each, name, attributes[name]) if name in attributes else delattr(each, name)
            if f"__old{name}" in vars(each) and f"__old{name}" not in attributes:
                delattr(each, f"__old{name}")


@pytest.fixture
def spec(tmp_path):
    return write_classes(tmp_path / "data", {"electron": [31, 20], "pion": [40]}, layout="hundred_event_chunks")


def module(spec, **options):
    return EventDataModule(
        spec, 8, **{"splits": {"train": 0.7, "val": 0.3}, "num_workers": 0, "cache": None, **options}
    )


def test_the_package_does_not_import_lightning(run_script):
    script = """
        import sys
        import hepfeed, hepfeed.loader, hepfeed.provider
        print("lightning" in sys.modules, "accelerate" in sys.modules)
    """
    assert run_script(script).split() == ["False", "False"]


class Memory(Logger):
    """Keeps what it is told."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.metrics = []

    def log_hyperparams(self, params, *args, **options):
        pass

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, metrics))


@pytest.mark.filterwarnings("ignore:You defined a .validation_step.:UserWarning")
@pytest.mark.parametrize("through", ["data module", "loader"])
def test_the_feed_of_a_run_is_logged_between_its_steps(spec, through):
    logger, data = Memory(), module(spec)
    with contextlib.ExitStack() as stack:
        if through == "loader":
            loader = stack.enter_context(hf.DataLoader(hf.EventDataset(spec), 8))
            assert len(list(loader)) == 12, "an epoch before the run, which is not logged"
            data = loader
        fitter = trainer(
            logger=logger,
            log_every_n_steps=5,
            callbacks=[FeedMonitor()],
            limit_val_batches=0,
            enable_checkpointing=False,
        )
        fitter.fit(Model(), data)
    fed = [(step, metrics) for step, metrics in logger.metrics if "hepfeed/events" in metrics]
    counts = [metrics["hepfeed/batches"] for _, metrics in fed]
    assert counts == ([5, 3] if through == "data module" else [5, 5, 2]) * 2
    assert [step for step, _ in fed] == np.cumsum(counts).tolist()
    events = 2 * (91 if through == "loader" else 64)
    assert sum(metrics["hepfeed/events"] for _, metrics in fed) == events
    assert all(metrics["hepfeed/events_per_s"] > 0 for _, metrics in fed)


@pytest.mark.filterwarnings("ignore:You defined a .validation_step.:UserWarning")
def test_a_feed_that_is_not_hepfeeds_can_not_be_watched():
    other = torch.utils.data.DataLoader(RandomDataset(20, 8))
    with pytest.raises(SpecError, match="not of a DataLoader"):
        trainer(callbacks=[FeedMonitor()]).fit(Model(), other)
    with pytest.raises(SpecError, match="1 or more, not 0"):
        FeedMonitor(every_n_steps=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_validate_test_and_predict_see_every_event_once(spec, workers):
    data = module(spec, num_workers=workers, splits={"train": 0.6, "val": 0.2, "test": 0.2})
    model, fitter = Model(), trainer()
    fitter.fit(model, data)
    half = len(model.trained) // 2
    first, second = _flat(model.trained[:half]), _flat(model.trained[half:])
    assert sorted(first) == sorted(second)
    assert first != second
    validated = model.validated[: len(model.validated) // 2]
    assert model.validated == validated * 2
    fitter.test(model, data)
    parts = [*first, *_flat(validated), *_flat(model.tested)]
    assert len(parts) == len(set(parts)) == 91
    predicted = torch.cat(fitter.predict(model, data))
    assert [tuple(event) for event in predicted.tolist()] == _flat(model.tested)
    with pytest.raises(SpecError, match="no provider"):
        data.provider  # noqa: B018


def test_an_epoch_is_that_of_the_trainer_also_in_a_second_fit(spec):
    model, data = Model(), module(spec)
    fitter = trainer()
    fitter.fit(model, data)
    fitter.fit_loop.max_epochs = 3
    fitter.fit(model, data)
    straight = Model()
    trainer(max_epochs=3).fit(straight, module(spec))
    assert model.trained == straight.trained


def test_overfitting_takes_the_same_batches_in_each_epoch(spec):
    model = Model()
    trainer(overfit_batches=2).fit(model, module(spec))
    assert len(model.trained) == 4
    assert model.trained[:2] == model.trained[2:]


@pytest.mark.parametrize("saved_after", [1, 5, 8, 11])
@pytest.mark.parametrize("limits", [{}, {"limit_train_batches": 5}, {"val_check_interval": 3}], ids=str)
def test_a_checkpoint_within_an_epoch_goes_on_with_the_batches_that_were_left(spec, tmp_path, saved_after, limits):
    whole, first, second = Model(), Model(), Model()
    trainer(**limits, max_epochs=3).fit(whole, module(spec))
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=saved_after, save_top_k=-1)
    interrupted = trainer(**limits, max_epochs=3, callbacks=[saving, Interrupt(saved_after + 1)])
    interrupted_module = module(spec)
    with pytest.raises(RuntimeError, match="power"):
        interrupted.fit(first, interrupted_module)
    assert first.trained == whole.trained[: saved_after + 1]
    path = str(tmp_path / f"step={saved_after}.ckpt")
    trainer(**limits, max_epochs=3).fit(second, module(spec, num_workers=2), ckpt_path=path)
    assert second.trained == whole.trained[saved_after:]


@pytest.mark.parametrize("after_validation", [False, True])
def test_a_checkpoint_at_the_end_of_an_epoch_goes_on_with_the_next(spec, tmp_path, after_validation):
    whole, first, second = Model(), Model(), Model()
    trainer().fit(whole, module(spec))
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_epochs=1, save_on_train_epoch_end=not after_validation)
    trainer(max_epochs=1, callbacks=[saving]).fit(first, module(spec))
    (path,) = tmp_path.glob("step*.ckpt")
    trainer().fit(second, module(spec), ckpt_path=str(path))
    assert first.trained + second.trained == whole.trained


def test_a_checkpoint_holds_the_options_and_loads_without_pickles(spec, tmp_path):
    data = module(spec, outputs=None, transform=[{"log": {"keys": "energy"}}])
    fitter = trainer(max_epochs=1)
    fitter.fit(Model(), data)
    fitter.save_checkpoint(tmp_path / "last.ckpt")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert (kept["batch_size"], kept["transform"]) == (8, [{"log": {"keys": "energy"}}])
    again = EventDataModule.load_from_checkpoint(tmp_path / "last.ckpt", batch_size=4)
    assert again.hparams["batch_size"] == 4
    assert again.hparams["spec"] == spec
    assert again.classes == {"electron": 0, "pion": 1}


def test_a_checkpoint_of_other_events_is_refused(spec, tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
    trainer(max_steps=4, callbacks=[saving]).fit(Model(), module(spec))
    with pytest.raises(SpecError, match="another order of events"):
        trainer(max_steps=6).fit(Model(), module(spec, split_by="block"), ckpt_path=str(tmp_path / "step=3.ckpt"))


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero:UserWarning")
def test_splits_that_are_missing_are_named(spec):
    data = module(spec, splits={"train": 0.9, "held_out": 0.1}, predict_split="held_out")
    model = Model()
    trainer(max_epochs=1).fit(model, data)  # goes without validation
    assert not model.validated
    with pytest.raises(SpecError, match="split 'val' is not defined"):
        trainer().validate(model, data)
    with pytest.raises(SpecError, match="split 'test' is not defined"):
        trainer().test(model, data)
    assert trainer().predict(model, data)
    with pytest.raises(SpecError, match=r"predict_split='heldout' .*did you mean 'held_out'"):
        module(spec, splits={"train": 0.9, "held_out": 0.1}, predict_split="heldout")


def test_the_readers_end_when_training_fails(spec):
    data = module(spec, num_workers=2)
    with pytest.raises(RuntimeError, match="power"):
        trainer(callbacks=[Interrupt(2)], enable_checkpointing=False).fit(Model(), data)
    with pytest.raises(SpecError, match="no provider"):
        data.provider  # noqa: B018


def test_the_module_works_without_a_trainer(spec):
    data = module(spec)
    data.setup("fit")
    feed = data.train_dataloader()
    epochs = [[_events(batch) for batch in feed] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(_flat(epochs[0])) == sorted(_flat(epochs[1]))
    assert len(feed) == len(epochs[0])
    assert set(_flat(epochs[0])) == all_events(data.provider.train.dataset)
    iterator = iter(feed)
    left = [_events(next(iterator)), feed.state_dict(), *map(_events, iterator)]
    feed.load_state_dict(left[1])
    assert feed.state_dict() == left[1]
    assert [_events(batch) for batch in feed] == left[2:]
    data.teardown("fit")
    data.teardown("fit")


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`:UserWarning")
def test_a_plain_loader_is_fed_to_the_trainer(spec):
    model = Model()
    with hf.DataLoader(
        hf.EventDataset(spec), 8, shuffle=True, num_workers=2, seed=1, persistent_workers=True
    ) as loader:
        trainer(max_epochs=2).fit(model, loader)
        half = len(model.trained) // 2
        assert set(_flat(model.trained[:half])) == all_events(loader.dataset)
        assert len(_flat(model.trained[:half])) == 91
        assert model.trained[:half] != model.trained[half:]


def has_lightning(batch):
    """Say whether the reader was initialised by Lightning, which it imports for nothing else."""
    return {**batch, "initialised": np.array(["lightning" in sys.modules] * len(batch["event"]))}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`:UserWarning")
@pytest.mark.parametrize("workers", [False, True])
def test_a_plain_loader_takes_the_function_that_seeds_its_readers(spec, monkeypatch, workers):
    monkeypatch.setitem(os.environ, "PL_GLOBAL_SEED", "")  # what seed_everything sets is undone after the test
    monkeypatch.setitem(os.environ, "PL_SEED_WORKERS", "")
    states = take_random_states()
    lightning.seed_everything(3, workers=workers, verbose=False)
    initialised = []

    class Watching(Model):
        def training_step(self, batch, index):
            initialised.extend(batch["initialised"].tolist())
            return super().training_step(batch, index)

    try:
        with hf.DataLoader(hf.EventDataset(spec), 8, num_workers=1, seed=1, process_fn=has_lightning) as loader:
            trainer(max_epochs=1).fit(Watching(), loader)
            assert (loader.worker_init_fn is not None) == workers
    finally:
        set_random_states(states)
    assert initialised == [workers] * 91


def take_random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def set_random_states(states):
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


class Rows(lightning.LightningModule):
    """Trains on the rows of a general dataset."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.trained = []

    def training_step(self, batch, index):
        self.trained.append(batch.clone())
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_general_dataset_is_fed_to_the_trainer(workers):
    model, rows = Rows(), RandomDataset(4, 10)
    trainer(max_epochs=1).fit(model, hf.DataLoader(rows, batch_size=3, num_workers=workers))
    assert torch.equal(torch.cat(model.trained), rows.data)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_general_dataset_goes_on_within_an_epoch(tmp_path, workers):
    models, rows = [Rows(), Rows(), Rows()], RandomDataset(4, 20)

    def loader():
        torch.manual_seed(5)
        return hf.DataLoader(rows, batch_size=3, shuffle=True, num_workers=workers)

    trainer().fit(models[0], loader())
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    trainer(max_steps=5, callbacks=[saving]).fit(models[1], loader())
    trainer(max_epochs=1).fit(models[2], loader(), ckpt_path=str(tmp_path / "step=4.ckpt"))
    whole, _, resumed = (model.trained for model in models)
    assert [batch.tolist() for batch in resumed] == [batch.tolist() for batch in whole[4:7]]


def test_the_command_line_drives_the_module(spec, tmp_path, monkeypatch):
    hf.SampleSpec(spec).save(tmp_path / "spec.yaml")
    settings = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        | {"enable_progress_bar": False, "enable_model_summary": False},
        "data": {
            "spec": str(tmp_path / "spec.yaml"),
            "batch_size": 16,
            "num_workers": 0,
            "cache": None,
            "splits": {"train": 0.5, "val": 0.5},
            "transform": [{"clip": {"keys": "image", "low": -1.0, "high": 1.0}}],
            "window_events": 20,
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["fit", "--config", str(tmp_path / "config.yaml"), "--data.batch_size=4", "--data.on_nonfinite=drop"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    ran = LightningCLI(Model, EventDataModule, save_config_callback=None, seed_everything_default=False)
    assert ran.datamodule.hparams["batch_size"] == 4
    assert ran.datamodule.hparams["on_nonfinite"] == "drop"
    assert {len(batch) for batch in ran.model.trained[:-1]} == {4}
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--data.shuffle=rows"])
    with pytest.raises(SystemExit):
        LightningCLI(Model, EventDataModule, save_config_callback=None, seed_everything_default=False)


def test_the_options_are_those_of_a_provider_and_documented():
    import inspect

    mine = inspect.signature(EventDataModule.__init__).parameters
    provider = inspect.signature(hf.DataProvider.__init__).parameters
    assert set(mine) - set(provider) == {"predict_split"}
    assert set(provider) - set(mine) == {"rank", "world_size"}  # the trainer knows them
    defaults = {name: provider[name].default for name in set(provider) & set(mine) - {"prebuild"}}
    assert {name: mine[name].default for name in defaults} == defaults
    documented = re.findall(r"^    +(\w+): ", EventDataModule.__doc__, re.MULTILINE)
    assert set(mine) - {"self"} <= set(documented)


DDP = """
    import json
    import sys
    from pathlib import Path

    sys.path.insert(0, sys.argv[1])
    from test_client_lightning import Model, module, trainer

    import hepfeed as hf

    folder = Path(sys.argv[2])
    spec = json.loads((folder / "spec.json").read_text())
    found = {}
    for kind in ("module", "loaders"):
        model, fitter = Model(), trainer(strategy="ddp", devices=2)
        if kind == "module":
            fitter.fit(model, module(spec))
        else:
            train, val = (hf.EventDataset(spec, split, splits={"train": 0.7, "val": 0.3}) for split in ("train", "val"))
            fitter.fit(model, hf.DataLoader(train, 8, shuffle=True, num_workers=2), hf.DataLoader(val, 8))
        found[kind] = [model.trained, model.validated]
    (folder / f"{fitter.global_rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_share_the_events_of_each_epoch(tmp_path, run_script):
    spec = write_classes(tmp_path / "data", {"electron": [31, 20], "pion": [40]}, layout="one_event_chunks")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    run_script(DDP, str(Path(__file__).parent), tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    splits = {"train": 0.7, "val": 0.3}
    datasets = [hf.EventDataset(spec, split, splits=splits) for split in splits]
    for kind in ("module", "loaders"):
        ranks = [of_rank[kind] for of_rank in found]
        for loop, dataset in enumerate(datasets):
            of_both = [rank[loop] for rank in ranks]
            assert len(of_both[0]) == len(of_both[1])
            steps = len(of_both[0]) // 2  # of each of two epochs
            for epoch in (slice(0, steps), slice(steps, None)):
                own = [[tuple(event) for event in _flat(batches[epoch])] for batches in of_both]
                assert set(own[0]) | set(own[1]) == all_events(dataset), kind
                assert len(set(own[0]) & set(own[1])) <= 1  # an odd event is repeated
                assert len(own[0]) + len(own[1]) <= len(dataset) + 1
        trained = ranks[0][0]
        assert trained[: len(trained) // 2] != trained[len(trained) // 2 :]
