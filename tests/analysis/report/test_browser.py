"""The report in a real browser: headless Chromium, driven by playwright."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.report.build import build_report
from analysis.statistics.practice.choosing import ORACLE
from bench import records

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (pip install -e .[dev])"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH (apt-get install chromium)")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser, report_dir):
    """A function that opens the report; whatever the page logs or asks of a network fails the test at its end."""
    complaints, contexts = [], []

    def open_page(viewport=DESKTOP, page_path=report_dir / "index.html", **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(page_path.as_uri())
        page.wait_for_selector("html[data-ready]")
        if viewport["width"] < 500:  # the verdicts come first, and plots are drawn when they come near
            page.locator("#frontier").scroll_into_view_if_needed()
        page.wait_for_selector("#frontier-plot .main-svg")
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert complaints == []
    assert set(hacked) == {None}


def traces(page, plot="frontier-plot"):
    """Names of the variants whose checkpoints are drawn, and the number of checkpoints of each."""
    script = "id => document.getElementById(id).data.filter(t => t.customdata).map(t => [t.name, t.customdata.length])"
    return dict(page.evaluate(script, plot))


def place_of_point(page, variant):
    """Window coordinates and number of the variant's checkpoint in the frontier plot farthest from all others."""
    return page.evaluate(
        """(variant) => {
            const plot = document.getElementById("frontier-plot");
            const box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            const points = plot.data.filter((t) => t.customdata).flatMap((t) => t.customdata.map((index, k) => ({
                variant: t.name, index, x: box.left + xaxis._offset + xaxis.d2p(t.x[k]),
                y: box.top + yaxis._offset + yaxis.d2p(t.y[k]),
            })));
            const room = (p) => Math.min(...points.filter((q) => q !== p).map((q) => Math.hypot(p.x - q.x, p.y - q.y)));
            const best = points.filter((p) => p.variant === variant).sort((p, q) => room(q) - room(p))[0];
            return [best.x, best.y, best.index];
        }""",
        variant,
    )


def test_first_screen_shows_what_was_run_the_verdicts_and_the_frontier(open_report):
    page = open_report()
    for selector in ("h1", ".verdict >> nth=0", "#frontier-plot .main-svg >> nth=0"):
        box = page.locator(selector).bounding_box()
        assert box["y"] < DESKTOP["height"] - 50, selector
    assert "30 of 32 cells done" in page.locator("header").inner_text()


def test_hover_tells_everything_about_a_checkpoint_and_two_samples(open_report, analysis):
    page = open_report()
    x, y, index = place_of_point(page, "squared")
    page.mouse.move(x, y)
    card = page.locator("#card")
    card.wait_for(state="visible")
    text = card.inner_text()
    row = analysis.sweep.checkpoints.iloc[index]
    assert "squared (IPO)" in text
    for name in ("β", "learning rate", "seed", "step", "KL (nats)", "gold (SD)", "win rate"):
        assert name in text
    assert f"{row['gold']:.2f}".replace("-", "−") in text
    assert " ± " in text
    assert f"{row['beta']:g}" in text
    assert card.locator("blockquote").count() == 2
    page.mouse.move(5, 5)
    card.wait_for(state="hidden")


def test_markup_in_samples_is_shown_and_not_executed(open_report):
    page = open_report()
    x, y, _ = place_of_point(page, "hinge")
    page.mouse.move(x, y)
    quotes = page.locator("#card blockquote")
    quotes.first.wait_for(state="visible")
    assert "<script>window.hacked = 1</script> fine ." in quotes.first.inner_text()
    page.locator("#samples").scroll_into_view_if_needed()
    rows = page.locator("#sample-rows")
    assert '<img src="x" onerror="window.hacked = 3"> good .' in rows.inner_text()
    assert rows.locator("script, img, b, a").count() == 0
    assert "non-finite loss at step 12" in page.locator("#cells").inner_text()
    assert page.locator("#cells img").count() == 0


def test_a_loss_is_isolated_by_the_legend_and_by_a_click_on_a_point(open_report):
    page = open_report()
    assert set(traces(page)) == {"logistic", "squared", "hinge"}
    button = page.get_by_role("button", name="hinge (SLiC)")
    button.click()
    assert set(traces(page)) == {"hinge"}
    assert button.get_attribute("aria-pressed") == "true"
    page.locator("#regularization-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#regularization-plot .main-svg")
    assert set(traces(page, "regularization-plot")) == {"hinge"}
    button.click()
    page.locator("h1").scroll_into_view_if_needed()
    number_drawn = "document.getElementById('frontier-plot').data.filter((t) => t.customdata).length"
    page.wait_for_function(f"scrollY === 0 && {number_drawn} === 3")
    x, y, _ = place_of_point(page, "squared")
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    page.wait_for_function(f"{number_drawn} === 1")
    assert set(traces(page)) == {"squared"}


def test_axes_and_checkpoints_switch(open_report, analysis):
    page = open_report()
    plot = "document.getElementById('frontier-plot')"
    rows = analysis.sweep.checkpoints.query("variant == 'logistic'")

    def drawn(axis):
        return page.evaluate(f"{plot}.data.find((t) => t.customdata && t.name === 'logistic').{axis}")

    assert drawn("x") == pytest.approx(list(rows["kl"] ** 0.5), rel=1e-3)
    page.get_by_text("KL", exact=True).first.click()
    assert drawn("x") == pytest.approx(list(rows["kl"]), rel=1e-3)
    assert drawn("y") == pytest.approx(list(rows["gold"]), rel=1e-3)
    page.get_by_text("win rate", exact=True).first.click()
    assert drawn("y") == pytest.approx(list(rows["win_rate"]), rel=1e-3)
    assert "win rate" in page.evaluate(f"{plot}.layout.yaxis.title.text")
    assert traces(page)["logistic"] == len(rows)
    page.get_by_text("final", exact=True).first.click()
    assert traces(page)["logistic"] == rows["is_final"].sum()


def test_the_slider_selects_a_beta(open_report):
    page = open_report()
    slider = page.locator("#strength")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#strength-value").inner_text() == "β = 0.03"
    assert slider.get_attribute("aria-valuetext") == "β = 0.03"
    opacity = page.evaluate("document.getElementById('frontier-plot').data.find((t) => t.customdata).marker.opacity")
    assert sorted(set(opacity)) == [0.07, 1]
    assert opacity.count(1) == 8  # two seeds, four checkpoints
    page.keyboard.press("Home")
    assert page.locator("#strength-value").inner_text() == "all β"


def test_samples_of_a_chosen_cell_sorted_by_gain(open_report, analysis):
    page = open_report()
    page.locator("#cell").select_option(label="loss=squared,beta=0.1,seed=1")
    samples = analysis.sweep.samples(cells=["loss=squared,beta=0.1,seed=1"])
    gains = (samples["gold"] - samples["gold_reference"]).sort_values(ascending=False)

    def shown(column):
        cells = page.locator(f"#sample-rows td:nth-child({column})").all_inner_texts()
        return [float(text.replace("−", "-")) for text in cells]

    assert shown(6) == pytest.approx(list(gains), abs=0.011)
    page.locator("#sort").select_option("loss")
    assert shown(6) == pytest.approx(list(gains)[::-1], abs=0.011)
    page.locator("#sort").select_option("gold")
    assert shown(5) == pytest.approx(sorted(samples["gold"], reverse=True), abs=0.011)


def test_a_sweep_without_training_curves_says_so(open_report):
    page = open_report()
    page.locator("#training").scroll_into_view_if_needed()
    assert page.locator("#training-note").inner_text() == "No steps of training are stored for this sweep."
    assert page.locator("#training-cell").is_disabled()
    assert not page.locator("#training-curves").is_visible()


def test_training_curves_of_a_chosen_cell(open_report, tmp_path, few_figures):
    sweep_dir = write_sweep(
        tmp_path / "trained", Truth(losses=("logistic",), betas=(0.1, 1.0), seeds=(0, 1), prompts=8)
    )
    first, second = (row["cell"] for row in records.read_plan(sweep_dir)["cells"][:2])
    for cell, start in ((first, 0.7), (second, 0.6)):
        rows = [
            {"step": k, "loss": start / (k + 1), "pair_accuracy": 0.5, "rho": k / 10, "grad_norm": 2.0, "lr": 1e-3}
            for k in range(40)
        ]
        lines = [json.dumps(row if cell == first else row | {"rho": None}) for row in rows]
        (sweep_dir / cell / records.TRAINING_FILE).write_text("\n".join(lines) + "\n")
    page_path = build_report([load_sweep(sweep_dir)], tmp_path / "report", notebooks=False)
    page = open_report(page_path=page_path)

    def drawn(name, axis="y"):
        page.locator(f"#training-{name}-plot").scroll_into_view_if_needed()
        page.wait_for_selector(f"#training-{name}-plot .main-svg")
        return page.evaluate(f"document.getElementById('training-{name}-plot').data[0].{axis}")

    assert page.locator("#training-cell option").all_inner_texts() == [first, second]
    assert drawn("loss", "x") == list(range(40))
    assert drawn("loss") == pytest.approx([0.7 / (k + 1) for k in range(40)], rel=1e-4)
    assert drawn("rho") == pytest.approx([k / 10 for k in range(40)])
    assert drawn("accuracy") == [0.5] * 40
    assert drawn("gradient") == [2.0] * 40
    assert drawn("rate") == pytest.approx([1e-3] * 40)
    page.locator("#training-cell").select_option(label=second)
    assert drawn("loss") == pytest.approx([0.6 / (k + 1) for k in range(40)], rel=1e-4)
    drawn("rho")
    assert "not measured" in page.locator("#training-rho-plot").inner_text()


def test_a_phone_scrolls_in_one_direction_only(open_report):
    page = open_report(PHONE, has_touch=True, is_mobile=True)
    page.evaluate("document.querySelectorAll('.plot').forEach((plot) => plot.redraw())")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # Nothing sticks out but what lies inside a region that scrolls by itself.
    outside = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((node) => {
            const box = node.getBoundingClientRect();
            const scrolls = node.closest(".scroll, svg, .visually-hidden");
            return box.width && box.right > innerWidth + 1 && !scrolls;
        }).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_titles_of_axes_fit_a_phone(open_report):
    page = open_report({"width": 400, "height": 800})
    outside = page.evaluate(
        """() => {
            const plot = document.getElementById("frontier-plot").getBoundingClientRect();
            return [...document.querySelectorAll("#frontier-plot .g-xtitle, #frontier-plot .g-ytitle, "
                + "#frontier-plot .annotation-text")].filter((node) => {
                const box = node.getBoundingClientRect();
                return box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1;
            }).map((node) => node.textContent);
        }"""
    )
    assert outside == []


def test_a_clicked_point_leads_to_its_files_and_samples(open_report, analysis, hostile_sweep_dir):
    page = open_report()
    x, y, index = place_of_point(page, "squared")
    page.mouse.click(x, y)
    links = page.locator("#point-links a")
    cell = analysis.sweep.checkpoints["cell"].iloc[index]
    assert cell in page.locator("#point-links").inner_text()
    assert links.all_inner_texts() == ["config.yaml", "records.jsonl", "samples.parquet", "samples"]
    path = page.evaluate("() => new URL(document.querySelector('#point-links a').href).pathname")
    assert Path(unquote(path)) == hostile_sweep_dir / cell / "config.yaml"
    links.last.click()
    assert page.locator("#cell").evaluate("select => select.selectedOptions[0].label") == cell


def test_the_regret_of_every_rule_is_drawn(open_report, analysis):
    page = open_report()
    page.locator("#choosing-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#choosing-plot .main-svg")
    drawn = dict(page.evaluate("() => document.getElementById('choosing-plot').data.map(t => [t.name, t.x])"))
    table = analysis.practice.choosing
    assert set(drawn) == set(table["variant"])
    for variant, values in drawn.items():
        rows = table[(table["variant"] == variant) & (table["rule"] != ORACLE)]
        assert [value for value in values if value is not None] == pytest.approx(list(rows["regret"]), rel=1e-3)
    page.get_by_role("button", name="hinge (SLiC)").click()
    assert page.evaluate("() => document.getElementById('choosing-plot').data.map(t => t.name)") == ["hinge"]


def test_residuals_are_drawn_when_their_details_open(open_report, analysis):
    page = open_report()
    page.get_by_text("How well the lines fit").click()
    page.wait_for_selector("#residual-frontier-plot .main-svg")
    drawn = dict(page.evaluate("() => document.getElementById('residual-frontier-plot').data.map(t => [t.name, t.y])"))
    table = analysis.practice.residuals.query("line == 'frontier'")
    for variant, rows in table.groupby("variant"):
        assert drawn[variant] == pytest.approx(list(rows["residual"]), rel=1e-3)
    width = page.locator("#residual-frontier-plot .main-svg").first.bounding_box()["width"]
    assert width <= page.locator("#residual-frontier-plot").bounding_box()["width"] + 1


def test_length_controlled_gold_stands_beside_raw_gold(open_report, analysis):
    page = open_report()
    page.locator("#controlled-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#controlled-plot .main-svg")
    seen = "[t.name, t.marker.symbol.includes('open'), t.y]"
    script = f"() => document.getElementById('controlled-plot').data.map(t => {seen})"
    drawn = {(name, hollow): values for name, hollow, values in page.evaluate(script)}
    for variant, rows in analysis.practice.length.groupby("variant"):
        assert drawn[variant, True] == pytest.approx(list(rows["gold"]), rel=1e-3)
        assert drawn[variant, False] == pytest.approx(list(rows["controlled"]), rel=1e-3)


def test_a_policy_far_beyond_every_curve_is_counted_and_shown_on_a_double_click(open_report, tmp_path, few_figures):
    sweep_dir = write_sweep(
        tmp_path / "far", Truth(losses=("logistic",), betas=(0.1, 0.3, 1.0, 3.0), seeds=(0, 1), prompts=8)
    )
    path = sweep_dir / records.read_plan(sweep_dir)["cells"][0]["cell"] / records.RECORDS_FILE
    *rows, last = map(json.loads, path.read_text().splitlines())
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, last | {"kl": 900.0, "kl_k1": 900.0}]))
    for samples in sweep_dir.glob(f"*/{records.SAMPLES_FILE}"):
        samples.unlink()
    sweep = load_sweep(sweep_dir)
    page = open_report(page_path=build_report([sweep], tmp_path / "report", notebooks=False))
    end = "document.getElementById('frontier-plot')._fullLayout.xaxis.range[1]"
    assert page.evaluate(end) < 20
    words = page.locator("#frontier-plot .annotation-text").all_text_contents()
    beyond = (sweep.checkpoints["kl"] ** 0.5 > page.evaluate(end)).sum()
    assert any(f"{beyond} beyond, up to KL 900" in text for text in words), words
    box = page.locator("#frontier-plot .nsewdrag").first.bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] / 3, box["y"] + 8)
    page.wait_for_function(f"{end} >= 30")


def test_on_a_phone_the_frontier_comes_before_the_verdicts(open_report):
    page = open_report(PHONE)
    assert page.locator("#frontier").bounding_box()["y"] < page.locator(".verdicts").bounding_box()["y"]


def test_lines_of_each_seed_on_demand(open_report, analysis):
    page = open_report()
    lines = "() => document.getElementById('frontier-plot').data.filter(t => t.mode === 'lines' && !t.fill).length"
    before = page.evaluate(lines)
    page.get_by_text("each seed").click()
    smoothed = len(analysis.frontiers.smoothed)
    assert page.evaluate(lines) == before - smoothed + 3 * 2, "three variants, two seeds"


def test_theme_follows_the_system_and_the_button_and_plots_follow_the_theme(open_report):
    page = open_report(color_scheme="dark")

    def seen():
        return page.evaluate(
            """() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor,
                      document.getElementById("frontier-plot").layout.font.color,
                      document.getElementById("frontier-plot").data.find((t) => t.name === "logistic").marker.color]"""
        )

    dark = seen()
    assert dark[0] == "dark"
    page.get_by_role("button", name="Light theme").click()
    light = seen()
    assert light[0] == "light"
    assert all(one != other for one, other in zip(dark, light, strict=True))


def test_the_keyboard_reaches_everything(open_report):
    page = open_report()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
        if page.evaluate("document.activeElement.id") == "sort":
            break
    assert {"theme", "x", "y", "checkpoints", "strength", "frontier-plot", "cell", "sort"} <= reached


def test_arrow_keys_walk_through_the_checkpoints(open_report):
    page = open_report()
    page.locator("#frontier-plot").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("ArrowRight")
    first = page.locator("#announcer").text_content()
    page.keyboard.press("ArrowRight")
    second = page.locator("#announcer").text_content()
    assert outline == "solid"
    assert first != second
    assert "KL (nats)" in first


def test_without_scripts_the_words_and_tables_are_there(browser, report_dir):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report_dir / "index.html").as_uri())
    text = page.locator("body").inner_text()
    context.close()
    assert "The plots need JavaScript" in text
    assert "similar frontiers" in text
    assert "squared (IPO)" in text
