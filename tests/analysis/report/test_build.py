"""The report as a whole: files, self-containment, escaping, atomic replacement, refusals."""

import json
import os
import re
import socket
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.load import load_sweep
from analysis.report import build
from analysis.report.__main__ import main
from analysis.report.build import RefusedOutput, build_report
from bench import records

SMALL = Truth(losses=("logistic", "squared"), betas=(0.03, 0.1, 0.3, 1.0), seeds=(0, 1), steps=(0, 24, 192), prompts=16)


class Page(HTMLParser):
    """Elements of a page: (tag, attributes), text outside scripts and styles, and nesting errors."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID and tag != "path":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(report_dir):
    return Page((report_dir / "index.html").read_text())


def test_every_figure_and_table_is_there(report_dir):
    names = {path.stem for path in (report_dir / "figures").iterdir()}
    assert {"frontier", "gold_and_kl_against_beta", "regularization", "health", "overoptimization"} <= names
    for name in names:
        assert all((report_dir / "figures" / f"{name}.{kind}").stat().st_size for kind in ("png", "svg", "pdf", "csv"))
    tables = {path.stem: pd.read_csv(path) for path in (report_dir / "tables").glob("*.csv")}
    assert {path.stem for path in (report_dir / "tables").glob("*.parquet")} == set(tables)
    for name, table in tables.items():
        kept = pd.read_parquet(report_dir / "tables" / f"{name}.parquet")
        assert (list(kept), len(kept)) == (list(table), len(table)), name
    assert {"cells", "checkpoints", "frontier", "optimal_beta", "beta_ratios", "best_of_n"} <= set(tables)
    assert len(tables["cells"]) == 32
    assert len(tables["checkpoints"]) == 120
    claims = json.loads((report_dir / "claims.json").read_text())
    assert "C1" in json.dumps(claims)


def test_links_lead_to_files_and_sections(report_dir, page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) > 20
    for link in links:
        assert link.removeprefix("#") in ids if link.startswith("#") else (report_dir / link).exists(), link


def test_the_page_is_one_file_that_asks_for_nothing(page):
    assert not [attributes for attributes in page.all("script") if "src" in attributes]
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    assert not page.all("iframe")
    assert not page.all("img")


def test_screen_reader_basics(page):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert page.all("nav")[0]["aria-label"]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    labeled = {attributes.get("for") for attributes in page.all("label")}
    assert {attributes["id"] for attributes in page.all("select")} <= labeled
    for tag, attributes in page.elements:
        assert "aria-label" in attributes or tag != "div" or "plot" not in attributes.get("class", "")
        target = attributes.get("aria-labeledby")
        assert target is None or any(other.get("id") == target for _, other in page.elements)


def test_what_was_run_is_said_first(page):
    text = " ".join(" ".join(page.words).split())
    assert (
        "30 of 32 cells done · 1 failed · 1 missing · world synthetic · 3 variants · 5 β from 0.01 to 1 · 2 seeds"
        in text
    )
    assert all(claim in text for claim in ("C1", "C2", "C3", "C4"))
    assert "KL is not comparable across kinds of optimization" in text
    assert "deadbeef" in text
    assert "torch 2.13.0" in text


def test_hostile_texts_are_text(page):
    # An element made of a sample or an error message would be an <img> or a script beyond the page's own three.
    assert len(page.all("script")) == 3
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert any("<img" in word and "non-finite loss" in word for word in page.words)


def test_a_second_report_replaces_the_first_with_the_same_bytes(tmp_path, few_figures):
    sweep = load_sweep(write_sweep(tmp_path / "small", SMALL))
    first = build_report([sweep], tmp_path / "small" / "report", notebooks=False)
    before = {path.name: path.read_bytes() for path in first.parent.rglob("*") if path.is_file()}
    assert build_report([sweep], first.parent, notebooks=False) == first
    assert {path.name: path.read_bytes() for path in first.parent.rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / "small").iterdir() if path.name.startswith(".")] == []


def test_a_failure_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch, few_figures):
    sweep = load_sweep(write_sweep(tmp_path / "small", SMALL))
    output = tmp_path / "out"
    output.mkdir()
    (output / "index.html").write_text(f'<meta name="generator" content="{build.GENERATOR}">old')

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "render_page", fail)
    with pytest.raises(OSError, match="No space"):
        build_report([sweep], output, notebooks=False)
    assert (output / "index.html").read_text().endswith("old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small"]


def test_what_a_killed_report_has_left_is_removed_by_the_next(tmp_path, few_figures):
    sweep_dir = write_sweep(tmp_path / "runs" / "s", SMALL, with_samples=False)
    process = subprocess.Popen(["true"])
    process.wait()
    here = f"{sweep_dir}/.report-{socket.gethostname()}"
    dead, alive, foreign = (
        Path(f"{name}-x")
        for name in (f"{here}-{process.pid}", f"{here}-{os.getpid()}", f"{sweep_dir}/.report-elsewhere-1")
    )
    for path in (dead, alive, foreign):
        (path / "report").mkdir(parents=True)
    build_report([load_sweep(sweep_dir)], sweep_dir / "report", notebooks=False)
    assert [path.exists() for path in (dead, alive, foreign)] == [False, True, True]


def test_a_folder_that_is_no_report_is_never_replaced(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path / "small", SMALL))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "index.html").write_text("years of work")
    with pytest.raises(RefusedOutput, match="not a report"):
        build_report([sweep], tmp_path / "thesis", notebooks=False)
    assert (tmp_path / "thesis" / "index.html").read_text() == "years of work"


def break_line(sweep_dir):
    path = sweep_dir / cell_name("logistic", 0.1, 0) / records.RECORDS_FILE
    path.write_text(path.read_text()[:-40])


def mix_worlds(sweep_dir):
    path = sweep_dir / cell_name("squared", 0.1, 0) / records.RECORDS_FILE
    path.write_text(path.read_text().replace('"world": "synthetic"', '"world": "another"'))


def take_all_cells_away(sweep_dir):
    for path in sweep_dir.glob(f"*/{records.STATUS_FILE}"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [(break_line, "records.jsonl:3: not a complete JSON line"), (mix_worlds, "2 values of 'world'"),
     (take_all_cells_away, "no finished cell")],
)  # fmt: skip
def test_bad_sweeps_end_with_one_line_and_status_2(tmp_path, capsys, damage, said):
    sweep_dir = write_sweep(tmp_path / "small", SMALL)
    damage(sweep_dir)
    assert main([str(sweep_dir), "--no-notebooks"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (sweep_dir / "report").exists()


def test_a_missing_directory_names_its_neighbors(tmp_path, capsys):
    write_sweep(tmp_path / "small", SMALL)
    assert main([str(tmp_path / "smal")]) == 2
    assert str(tmp_path / "small") in capsys.readouterr().err


def test_large_sweeps_leave_the_notebooks_out_and_say_so(tmp_path, capsys, few_figures, monkeypatch):
    sweep_dir = write_sweep(tmp_path / "large", SMALL)
    made = []
    monkeypatch.setattr("analysis.report.build.execute_notebooks", lambda sweep, draft: made.append(sweep) or [])

    def told_and_made(*options):
        made.clear()
        assert main([*options, str(sweep_dir)]) == 0
        told = "notebooks are left out, for more than 5 cells; --notebooks" in capsys.readouterr().out
        return told, len(made)

    assert told_and_made() == (False, 1)
    monkeypatch.setattr("analysis.report.__main__.NOTEBOOK_CELLS", 5)
    assert told_and_made() == (True, 0)
    assert told_and_made("--notebooks") == (False, 1)
    assert told_and_made("--no-notebooks") == (False, 0)


def test_a_report_is_made_again_only_if_something_changed(tmp_path, capsys, few_figures):
    sweep = write_sweep(tmp_path / "small", SMALL)

    def made(*options):
        assert main(["--no-notebooks", *options, str(sweep)]) == 0
        return "is up to date" not in capsys.readouterr().out

    assert made("--if-changed")
    assert not made("--if-changed")
    assert made()
    assert made("--if-changed", "--seed=1")
    assert not made("--if-changed", "--seed=1")
    status = next(sweep.glob("*/status.json"))
    status.write_text(status.read_text() + " ")
    assert made("--if-changed", "--seed=1")
    (sweep / "report" / "index.html").unlink()
    assert main(["--no-notebooks", "--if-changed", "--seed=1", str(sweep)]) == 2  # no page: it is not up to date


def test_command_line_writes_beside_the_sweep(tmp_path, capsys, few_figures):
    sweep_dir = write_sweep(tmp_path / "small", SMALL)
    assert main([str(sweep_dir), "--no-notebooks"]) == 0
    took, page = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"report \d+ s", took)
    assert page == str(sweep_dir / "report" / "index.html")


@pytest.mark.parametrize(
    "truth",
    [
        Truth(losses=("savage",), betas=(0.1,), seeds=(0,), steps=(0, 12, 24, 48), prompts=8),
        Truth(losses=("logistic", "my.module:f"), betas=(0.1, 1.0), seeds=(0, 1), steps=(0, 24), prompts=8),
    ],
    ids=["one of everything", "a user's loss"],
)
def test_the_smallest_sweeps_have_a_report(tmp_path, truth, monkeypatch, one_format):
    monkeypatch.setitem(__import__("synthetic_runs").STRENGTHS, "my.module:f", 1.0)
    page = build_report([load_sweep(write_sweep(tmp_path / "tiny", truth))], tmp_path / "report", notebooks=False)
    cells = len(truth.losses) * len(truth.betas) * len(truth.seeds)
    assert f"{cells} of {cells} cells done" in page.read_text()


def test_several_sweeps_are_compared(tmp_path, few_figures):
    sweeps = [load_sweep(write_sweep(tmp_path / name, SMALL, rng_seed=k)) for k, name in enumerate(("one", "two"))]
    page = build_report(sweeps, tmp_path / "report", notebooks=False)
    text = page.read_text()
    assert "two minus one" in text
    assert 'id="side-plot-1"' in text
    assert (page.parent / "two" / "figures" / "frontier.svg").exists()
    assert (page.parent / "two" / "claims.json").exists()
    parsed = Page(text)
    links = [a["href"] for a in parsed.all("a") if a["href"].endswith((".svg", ".csv", ".json", "tables/"))]
    assert all((page.parent / link).exists() for link in links)
