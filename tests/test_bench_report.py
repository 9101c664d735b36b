"""``hepfeed bench report``: the page as text, and as a browser without a network shows it."""

import html.parser
import importlib
import json
import shutil
import sys
import webbrowser
from itertools import pairwise

import pytest
from bench_records import SERVER, kernels, record, sizes
from chromium import MISSING, PROGRAM, Browser
from typer.testing import CliRunner

from hepfeed.bench.comparison import comparisons
from hepfeed.bench.report import load_records, report_page
from hepfeed.bench.views import view_of
from hepfeed.cli import app
from hepfeed.errors import SpecError

WICKED = "</title><script>window.wicked = 1</script><img src=http://wicked.invalid/ onerror='window.wicked = 2'>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", "report", *map(str, arguments)])


def saved(folder, **records):
    paths = []
    for name, each in records.items():
        paths.append(folder / f"{name}.json")
        each.save(paths[-1])
    return paths


def results(folder):
    """Files of two comparisons: kernels on two machines, and a table before and after."""
    wide = record(
        "table",
        WICKED,
        [{"name": f"row {n}", **{f"a long name of column {k}": n * k / 7 for k in range(16)}} for n in range(3)],
        {"wicked": WICKED, "nested": {"a": [1, 2], "b": None}},
        [WICKED],
    )
    return saved(
        folder,
        laptop=kernels(),
        server=kernels(0.25, SERVER, rows=2),
        before=sizes(),
        after=sizes(0.25),
        wide=wide,
    )


class Outline(html.parser.HTMLParser):
    """Elements of a page; an unclosed or doubly closed one, or an attribute given twice, is an error."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


# ---- the page as text


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Records and their page."""
    records = load_records(results(tmp_path_factory.mktemp("results")))
    return records, report_page(records, WICKED)


def test_the_page_is_well_formed_and_says_what_its_parts_are(report):
    page = report[1]
    assert page.startswith('<!doctype html>\n<html lang="en">')
    outline = Outline(page)
    names = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    links = [attributes["href"] for attributes in outline.all("a")]
    assert len(links) == 2 + 2 + 5
    labels = [attributes["aria-labelledby"] for _, attributes in outline.elements if "aria-labelledby" in attributes]
    assert {link.removeprefix("#") for link in links} | set(labels) <= set(names)
    assert all(attributes["alt"].startswith("Plot. ") for attributes in outline.all("img"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in outline.all("th"))
    levels = [int(tag[1]) for tag, _ in outline.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(following <= level + 1 for level, following in pairwise(levels))


def test_text_of_records_stays_text(report):
    outline = Outline(report[1])
    assert outline.texts["title"] == [WICKED]
    assert outline.texts["h1"] == [WICKED]
    assert WICKED in outline.texts["h2"]
    assert WICKED in outline.texts["li"]
    assert WICKED in outline.texts["td"]
    assert len(outline.all("script")) == 1
    assert {attributes["src"][:26] for attributes in outline.all("img")} == {"data:image/svg+xml;base64,"}


def test_the_same_files_give_the_same_page(tmp_path):
    paths = saved(tmp_path, laptop=kernels(), before=sizes())
    assert report_page(load_records(paths), "T") == report_page(load_records(paths), "T")


def test_files_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    paths = [*saved(tmp_path / "old", a=sizes()), *saved(tmp_path / "new", a=sizes(), b=sizes())]
    assert list(load_records(paths)) == ["old/a.json", "new/a.json", "new/b.json"]


# ---- comparisons


def test_records_of_the_same_rows_are_compared_with_the_first(tmp_path):
    found = comparisons(load_records(results(tmp_path)))
    assert [(each.kind, each.names, each.alone, each.equal) for each in found] == [
        ("kernels", ("laptop.json", "server.json"), 2, ()),
        ("table", ("before.json", "after.json"), 0, ("files",)),
    ]
    means, times = found[0].sheets()
    assert means.rows == [
        ["time, ms (lower is better)", "hepfeed", "server.json", "2", "4", "4", "4"],
        ["time, ms (lower is better)", "spconv", "server.json", "1", "1", "1", "1"],
    ]
    assert list(times.columns) == ["row", "side", "laptop.json", "server.json", "ratio"]
    assert times.rows == [
        ["map 3^3, 1 sites", "hepfeed", "1", "0.25", "4 x"],
        ["map 3^3, 1 sites", "spconv", "4", "4", "1 x"],
        ["map 3^3, 2 sites", "hepfeed", "2", "0.5", "4 x"],
    ]
    assert times.marks == {(0, 4): "better", (2, 4): "better"}
    starts = found[1].sheets()[1]
    assert list(starts.columns) == ["row", "before.json", "after.json", "ratio"]
    assert starts.rows[1] == ["events 100,000, torch, verified yes", "4", "2", "0.5 x"]
    assert starts.marks == {}  # a plain table does not tell what is better


def test_what_got_worse_is_marked_and_a_missing_row_has_no_ratio():
    found = comparisons({"a": kernels(rows=1), "b": kernels(2.0, rows=3), "c": kernels(rows=3)})
    (times,) = found[0].sheets()[1:]
    assert list(times.columns) == ["row", "side", "a", "b", "c", "ratio, b", "ratio, c"]
    assert times.rows[0] == ["map 3^3, 1 sites", "hepfeed", "1", "2", "1", "0.5 x", "1 x"]
    assert times.rows[2] == ["map 3^3, 2 sites", "hepfeed", "", "4", "2", "", ""]
    assert times.marks == {(0, 5): "worse"}


def test_the_plot_of_a_comparison_shows_its_ratios(tmp_path):
    (figure,) = comparisons({"a": kernels(), "b": kernels(0.5)})[0].figures()
    assert [axes.get_title() for axes in figure.axes] == ["hepfeed", "spconv"]
    ours = next(line for line in figure.axes[0].lines if line.get_label() == "b")
    assert list(ours.get_xdata()) == pytest.approx([2.0, 2.0, 2.0])
    assert list(ours.get_ydata()) == [0, 1, 2]


def test_records_without_a_common_row_are_not_compared():
    assert comparisons({"a": kernels(), "b": sizes(), "c": record("table", "", [{"other": "x", "s": 1.0}])}) == []


# ---- the command


def test_the_command_writes_the_page_of_all_files(tmp_path):
    done = invoke(*saved(tmp_path, a=sizes(), b=sizes(0.1)), "-o", tmp_path / "page.html", "--title", "Ours & theirs")
    assert done.exit_code == 0, done.output
    assert done.output.split() == ["wrote", str(tmp_path / "page.html")]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>Ours &amp; theirs</h1>" in page
    assert "b.json: Start-up by number of events" in page


@pytest.fixture
def browser_that_notes(tmp_path, monkeypatch):
    """A program that is the user's browser, and the file in which it notes what it is to open."""
    script, note = tmp_path / "browser.py", tmp_path / "opened"
    script.write_text(f"import sys; open({str(note)!r}, 'w').write(sys.argv[1])")
    monkeypatch.setenv("BROWSER", f"{sys.executable} {script} %s")
    importlib.reload(webbrowser)  # which has looked at the environment long ago
    yield note
    monkeypatch.undo()
    importlib.reload(webbrowser)


def test_the_page_is_opened_where_that_is_asked_for(tmp_path, browser_that_notes):
    done = invoke(*saved(tmp_path, a=sizes()), "-o", tmp_path / "a page.html", "--open")
    assert done.exit_code == 0, done.output
    assert browser_that_notes.read_text() == (tmp_path / "a page.html").as_uri()


def broken(kind):
    """The arguments of a command that must fail, by what is wrong with them, in the present folder."""
    content = {
        "no json": "not JSON",
        "unknown kind": json.dumps({**sizes().model_dump(), "kind": "kernel"}),
        "other rows": json.dumps({**sizes().model_dump(), "kind": "kernels"}),
    }
    return content.get(kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "can't be read: No such file"),
        ("no json", "this is no JSON"),
        ("unknown kind", "no benchmark 'kernel': did you mean 'kernels'"),
        ("other rows", r"no rows of 'kernels' \(KeyError: 'seconds'\): measure again"),
    ],
)
def test_a_file_that_can_t_be_shown_is_an_error_that_names_it(tmp_path, kind, message):
    (good,) = saved(tmp_path, good=sizes())
    bad = tmp_path / "bad.json"
    if broken(kind) is not None:
        bad.write_text(broken(kind))
    done = invoke(good, bad, "-o", tmp_path / "page.html")
    assert isinstance(done.exception, SpecError)
    assert done.exception.file == str(bad)
    with pytest.raises(SpecError, match=message):
        raise done.exception
    assert not (tmp_path / "page.html").exists()


def test_a_file_that_is_given_twice_is_an_error_whatever_its_name(tmp_path):
    (path,) = saved(tmp_path, a=sizes())
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(SpecError, match="given twice") as caught:
        load_records([path, tmp_path / "link.json"])
    assert caught.value.file == str(tmp_path / "link.json")


def test_results_are_never_overwritten_and_the_folder_must_be_there(tmp_path):
    (path,) = saved(tmp_path, a=sizes())
    before = path.read_bytes()
    for out, message in ((path, "-o names one of the results"), (tmp_path / "no" / "a.html", "there is no folder")):
        done = invoke(path, "-o", out)
        assert isinstance(done.exception, SpecError)
        assert message in str(done.exception)
    assert path.read_bytes() == before


# ---- the page in a browser

PARTS = """({
    size: [document.documentElement.scrollWidth, innerWidth],
    mode: document.compatMode,
    title: document.title,
    scripts: document.scripts.length,
    wicked: window.wicked ?? null,
    buttons: document.querySelectorAll("th button").length,
    images: [...document.images].map((image) => {
        const box = image.getBoundingClientRect();
        return [image.complete, image.naturalWidth, image.naturalHeight, box.width, box.height];
    }),
    tables: Object.fromEntries([...document.querySelectorAll("table")].map((table) =>
        [table.id, [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent))])),
    regions: [...document.querySelectorAll(".scroll")].map((region) => {
        const box = region.getBoundingClientRect();
        return [box.left, box.right, region.scrollWidth, region.clientWidth];
    }),
    filter: getComputedStyle(document.images[0]).filter,
})"""

CONTRASTS = """(() => {
    const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (colour) => {
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (colour !== "rgba(0, 0, 0, 0)") return luminance(colour);
        }
        return 1;
    };
    const found = {};
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
        const [ink, paper] = [luminance(getComputedStyle(element).color), ground(element)];
        const name = `${element.tagName}.${element.className}`;
        const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        found[name] = Math.min(found[name] ?? Infinity, contrast);
    }
    return { paper: ground(document.body), text: found };
})()"""

SORTED = """[0, 1].map(() => {
    const table = document.getElementById("comparison-1-table-2");
    table.rows[0].cells[2].querySelector("button").click();
    return [...table.rows].slice(1).map((row) => row.cells[2].textContent)
        .concat(table.rows[0].cells[2].ariaSort);
})"""

FETCHED = """new Promise((done) => {
    const image = new Image();
    image.onload = () => done("loaded");
    image.onerror = () => done("refused");
    image.src = "https://example.org/a.png";
})"""

PRINTED = """({
    settings: document.getElementById("result-1-settings").getBoundingClientRect().height,
    contents: document.querySelector("nav").getBoundingClientRect().height,
})"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory, report):
    """What a browser finds on a page, by what it was asked; the browser is gone before the first test."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("report")
    page = folder / "report.html"
    page.write_text(report[1], encoding="utf-8")
    found = {"records": report[0], "page": page}
    with Browser(folder / "profile") as browser:
        for width, scheme in ((390, "light"), (1280, "dark"), (1280, "light")):
            browser.show(width, scheme=scheme)
            browser.visit(page)
            found[width, scheme] = browser.ask(PARTS) | {"contrasts": browser.ask(CONTRASTS)}
        found["requests"], found["messages"] = list(browser.requests), list(browser.messages)
        found["sorted"] = browser.ask(SORTED)
        found["fetched"] = browser.ask(FETCHED), list(browser.messages)
        browser.tell("Emulation.setEmulatedMedia", media="print")
        found["print"] = browser.ask(PRINTED)
        browser.tell("Emulation.setScriptExecutionDisabled", value=True)
        browser.visit(page)
        found["without script"] = browser.ask(PARTS)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return found


VIEWS = [(390, "light"), (1280, "light"), (1280, "dark")]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view[0]} {view[1]}")
def test_plots_are_seen_and_nothing_is_wider_than_the_window(seen, view):
    parts = seen[view]
    assert parts["mode"] == "CSS1Compat"
    assert parts["size"][0] <= parts["size"][1] == view[0]
    assert len(parts["images"]) == 2 + 1 + 1  # kernels, their comparison, and that of the plain tables
    for complete, *lengths in parts["images"]:
        assert complete
        assert min(lengths) > 100
    for left, right, _, _ in parts["regions"]:
        assert 0 <= left < right <= view[0]
    assert any(inner > outer for _, _, inner, outer in parts["regions"])  # the wide table scrolls


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view[0]} {view[1]}")
def test_all_text_can_be_read(seen, view):
    contrasts = seen[view]["contrasts"]
    assert contrasts["paper"] > 0.9 if view[1] == "light" else contrasts["paper"] < 0.05
    assert {"TD.better", "P.note", "BUTTON.", "A."} <= contrasts["text"].keys()
    assert {name: value for name, value in contrasts["text"].items() if value < 4.5} == {}
    assert (seen[view]["filter"] == "none") == (view[1] == "light")


def test_tables_have_the_rows_of_the_records(seen):
    tables = seen[1280, "light"]["tables"]
    for number, made in enumerate(seen["records"].values(), 1):
        for place, sheet in enumerate(view_of(made).sheets(made), 1):
            assert tables[f"result-{number}-table-{place}"] == [list(sheet.columns), *map(list, sheet.rows)]
    for number, compared in enumerate(comparisons(seen["records"]), 1):
        for place, sheet in enumerate(compared.sheets(), 1):
            assert tables[f"comparison-{number}-table-{place}"] == [list(sheet.columns), *map(list, sheet.rows)]
    assert [row[0] for row in tables["files-table"][1:]] == list(seen["records"])
    assert tables["machines-table"][1] == ["processor", "Small CPU", "Large CPU"]
    assert ["peaks.flops.float32", "1e+12"] in tables["result-1-settings"]


def test_nothing_but_the_page_is_asked_for(seen):
    others = [address for address in seen["requests"] if not address.startswith("data:image/svg+xml;base64,")]
    assert others == [seen["page"].as_uri()] * len(VIEWS)
    assert seen["messages"] == []


def test_the_page_lets_nothing_be_loaded(seen):
    outcome, messages = seen["fetched"]
    assert outcome == "refused"
    assert any("Content Security Policy" in message for message in messages)


def test_text_of_records_is_text_in_a_browser_too(seen):
    for view in VIEWS:
        assert seen[view]["wicked"] is None
        assert seen[view]["scripts"] == 1
        assert seen[view]["title"] == WICKED


def test_a_heading_sorts_its_table_both_ways(seen):
    assert seen["sorted"] == [["1", "2", "4", "ascending"], ["4", "2", "1", "descending"]]


def test_the_page_is_complete_without_its_script(seen):
    with_it, without = seen[1280, "light"], seen["without script"]
    assert with_it["buttons"] > 0 == without["buttons"]
    assert without["tables"] == with_it["tables"]
    assert all(complete and width for complete, width, *_ in without["images"])


def test_settings_are_printed_and_contents_are_not(seen):
    assert seen["print"]["settings"] > 50
    assert seen["print"]["contents"] == 0
