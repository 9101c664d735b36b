"""The figures of feeds as TensorBoard's scalars and as Prometheus' metrics, read back by their own readers."""

import json
import urllib.request

import pytest
from events import write_classes

import hepfeed as hf
from hepfeed.exports import FeedCollector, prometheus_text, scalars, write_scalars

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

DERIVED = {"events_per_s", "mb_read_per_s", "mb_inflated_per_s", "wait_fraction", "busy", "waiting", "busy_by_stage"}
"""What Prometheus computes itself."""


@pytest.fixture(scope="module")
def stats(tmp_path_factory):
    """The figures after three batches of an epoch with two readers."""
    dataset = hf.EventDataset(write_classes(tmp_path_factory.mktemp("events"), {"electron": [12], "pion": [12]}))
    with hf.DataLoader(dataset, batch_size=5, num_workers=2) as loader:
        batches = iter(loader)
        assert sum(len(next(batches)["event"]) for _ in range(3)) == 15
        return loader.stats()


def samples(text):
    """Return the numbers by name and labels, and the families by name."""
    families = list(text_string_to_metric_families(text))
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    return found, {family.name: family for family in families}


def test_scalars_are_flat_numbers(stats):
    found = scalars(stats)
    assert all(name.startswith("hepfeed/") and type(value) is float for name, value in found.items())
    assert found["hepfeed/events"] == 15.0
    assert found["hepfeed/queues/slots"] == stats["queues"]["slots"]
    assert found["hepfeed/busy_by_stage/inflate"] == stats["busy_by_stage"]["inflate"]
    missing = {key for key in stats if not any(name.split("/")[1] == key for name in found)}
    assert missing == {"bottleneck", "advice", "setting", "by_reader"}
    assert scalars(stats, prefix="")["events"] == 15.0
    assert scalars(json.loads(json.dumps(stats)), "train")["train/events"] == 15.0


def test_numbers_alone_become_scalars():
    given = {"a": 1, "b": {"c": 0.5, "d": {"e": 2}}, "name": "inflate", "yes": True, "none": None, "rows": [1.0, 2.0]}
    assert scalars(given, "x") == {"x/a": 1.0, "x/b/c": 0.5, "x/b/d/e": 2.0}


def test_tensorboard_reads_what_was_written(stats, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard.SummaryWriter(tmp_path / "run") as writer:
        write_scalars(writer, stats, 7)
        write_scalars(writer, stats.since(stats), 8, prefix="since")
    read = EventAccumulator(str(tmp_path / "run")).Reload()
    assert set(read.Tags()["scalars"]) == {*scalars(stats), *scalars(stats, "since")}
    (event,) = read.Scalars("hepfeed/events")
    assert (event.step, event.value) == (7, 15.0)
    (event,) = read.Scalars("since/events")
    assert (event.step, event.value) == (8, 0.0)


def test_prometheus_reads_what_was_written(stats):
    found, families = samples(prometheus_text({"train": stats}))
    loader = ("loader", "train")
    assert found["hepfeed_events_total", (loader,)] == 15.0
    assert found["hepfeed_batches_total", (loader,)] == 3.0
    assert found["hepfeed_read_bytes_total", (loader,)] == stats["bytes_read"] > 0
    for stage in ("read", "inflate", "scatter", "transform", "wait", "transfer"):
        assert found["hepfeed_stage_seconds_total", (loader, ("stage", stage))] == pytest.approx(stats[stage])
    for number, row in enumerate(stats["by_reader"]):
        labels = (loader, ("reader", str(number)), ("stage", "read"))
        assert found["hepfeed_reader_stage_seconds_total", labels] == pytest.approx(row[0])
    assert found["hepfeed_readers", (loader,)] == 2.0
    assert found["hepfeed_queue_batches", (loader, ("queue", "ready"))] == stats["queues"]["ready"]
    assert found["hepfeed_slots", (loader,)] == stats["queues"]["slots"] > 0
    assert found["hepfeed_slots_free", (loader,)] == stats["queues"]["slots_free"]
    assert found["hepfeed_bottleneck", (("bottleneck", stats["bottleneck"]), loader)] == 1.0
    for name, family in families.items():
        assert family.documentation, name
        counts = all(sample.name.endswith("_total") for sample in family.samples)
        assert family.type == ("counter" if counts else "gauge"), name


def test_no_figure_is_forgotten(stats):
    def value_of(text):
        return sorted(value for (name, _), value in samples(text)[0].items())

    before = value_of(prometheus_text({"train": stats}))
    forgotten = set()
    for key, value in stats.items():
        if isinstance(value, int | float) and value_of(prometheus_text({"train": {**stats, key: 12345.5}})) == before:
            forgotten.add(key)
    assert forgotten == DERIVED - {"busy_by_stage"}


def test_several_loaders_share_families_and_names_are_escaped(stats):
    name = 'a "quoted\\ name"\nof two lines'
    text = prometheus_text({"train": stats, name: stats})
    assert text.count("# TYPE hepfeed_events_total counter") == 1
    found, _ = samples(text)
    assert found["hepfeed_events_total", (("loader", name),)] == found["hepfeed_events_total", (("loader", "train"),)]


def test_no_loader_is_no_error():
    found, families = samples(prometheus_text({}))
    assert not found
    assert "hepfeed_events" in families


def test_a_collector_serves_what_is_up_to_date(tmp_path):
    registry = CollectorRegistry()
    with hf.DataLoader(hf.EventDataset(write_classes(tmp_path, {"electron": [12]})), batch_size=4) as loader:
        registry.register(FeedCollector({"train": loader}))
        server, thread = start_http_server(0, "127.0.0.1", registry)
        try:
            for epoch in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
                    found, _ = samples(answer.read().decode())
                assert found["hepfeed_events_total", (("loader", "train"),)] == 12.0 * epoch
                list(loader)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_without_the_package_the_error_says_how_to_get_it(run_script):
    script = """
        import sys
        sys.modules["prometheus_client"] = None
        from hepfeed.errors import SpecError
        from hepfeed.exports import FeedCollector, prometheus_text, scalars
        print(scalars({"events": 1}))
        for call in (lambda: prometheus_text({}), lambda: FeedCollector({})):
            try:
                call()
            except SpecError as error:
                print(error)
    """
    said = run_script(script).splitlines()
    assert said[0] == "{'hepfeed/events': 1.0}"
    assert len(said) == 3
    assert all("pip install 'hepfeed[monitor]'" in line for line in said[1:])
