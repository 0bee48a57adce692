"""W&B mirrors the records, one offline run a cell, and whatever happens to it costs no cell."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import wandb
from running import prepared_for
from running import run as run_cell
from wandb_files import offline_run_files, read_offline_run

from bench import mirror, records
from bench.cells.tracking import MIRROR_FILE, check_login
from bench.checked import ConfigError
from bench.records import RECORDS_FILE
from bench.sweep.plan import write_plan

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """W&B keeps logs and looks for keys below the home directory, whatever it is told."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_API_KEY", "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    def make(mode="offline", **changes):
        return tiny_world.cell(tmp_path / "runs", {"tracking.wandb.mode": mode, **changes})

    return make


def split(history):
    """Training steps and checkpoints of a run's history."""
    return [row for row in history if "train/loss" in row], [row for row in history if "kl" in row]


def test_each_cell_is_one_run_that_ends_in_its_final_record(make_cell, tmp_path):
    cells = [make_cell(seed=seed, sweep="my-sweep") for seed in (0, 1)]
    assert [run_cell(cell).state for cell in cells] == ["done", "done"]
    runs = {run.name: run for run in map(read_offline_run, offline_run_files(tmp_path / "runs"))}
    assert len(offline_run_files(tmp_path / "runs")) == 2
    assert runs.keys() == {cell.name for cell in cells}
    assert len({run.id for run in runs.values()}) == 2
    for cell in cells:
        run, rows = runs[cell.name], records.read_records(cell.directory / RECORDS_FILE)
        assert (run.id, run.group, run.project, run.exit_code) == (rows[0]["cell_id"], "my-sweep", "gpo-bench", 0)
        curves, checkpoints = split(run.history)
        assert [step["step"] for step in checkpoints] == [row["step"] for row in rows]
        assert [step["train/loss"] for step in curves] == [
            step["loss"] for step in records.read_training(cell.directory)
        ]
        assert [step["step"] for step in curves] == list(range(9))
        for logged, row in zip(checkpoints, rows, strict=True):
            measured = {key: value for key, value in row.items() if isinstance(value, float) and key in logged}
            assert len(measured) == 27
            assert {key: logged[key] for key in measured} == pytest.approx(measured)
            assert (logged["frontier/gold"], logged["frontier/win_rate"]) == (row["gold"], row["win_rate"])
        for key in ("kl", "gold", "step", "loss", "beta", "gold_model", "preferences", "git_commit"):
            assert run.summary[key] == rows[-1][key]
        config = {key: value for key, value in run.config.items() if not key.startswith("_")}
        assert (config["optim"]["lr"], config["seed"], config["world"]["name"]) == (1e-2, cell.config.seed, "tiny")
        assert run.axes == {"step": "", "*": "step", "frontier/gold": "kl", "frontier/win_rate": "kl"}


def test_the_panels_that_the_docs_describe_have_their_metrics(make_cell, tmp_path):
    text = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
    run_cell(make_cell())
    (run,) = map(read_offline_run, offline_run_files(tmp_path / "runs"))
    tables = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
    logged = {key for row in run.history for key in row}
    named = 0
    for keys, _, axis in tables:
        for key in re.findall(r"`([^`]+)`", keys):
            assert key in logged, key
            assert run.axes.get(key, run.axes["*"]) == axis.strip(" `"), key
            named += 1
    assert named >= 15
    assert set(re.findall(r"`summary: (\w+)`", text)) <= set(run.summary)
    in_config = set(re.findall(r"`config: (\w+)`", text))
    assert {"variant", "strength", "seed"} <= in_config <= set(run.config)


def test_an_interrupted_cell_ends_with_one_run_of_the_same_id(make_cell, tmp_path):
    cell = make_cell()

    def interrupt(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, interrupt)
    (first,) = map(read_offline_run, offline_run_files(tmp_path / "runs"))
    assert (len(split(first.history)[1]), first.exit_code) == (1, 1)
    assert run_cell(cell).state == "done"
    (again,) = map(read_offline_run, offline_run_files(tmp_path / "runs"))
    assert (again.id, len(split(again.history)[1]), again.exit_code) == (first.id, 3, 0)


def test_disabled_writes_nothing(make_cell):
    cell = make_cell("disabled")
    assert run_cell(cell).state == "done"
    assert not list(cell.directory.glob("wandb*"))


class BrokenRun:
    """A run of which one method raises."""

    def __init__(self, run, broken):
        self._run, self._broken = run, broken

    def __getattr__(self, name):
        if name == self._broken:
            raise wandb.errors.CommError("the service is gone")
        return getattr(self._run, name)


@pytest.mark.parametrize("broken", ["init", "define_metric", "log", "summary", "finish"])
def test_a_w_and_b_that_raises_costs_no_cell(make_cell, monkeypatch, capsys, broken):
    init = wandb.init

    def failing_init(**settings):
        if broken == "init":
            raise OSError("no space left for W&B")
        return BrokenRun(init(**settings), broken)

    cell = make_cell()
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", failing_init)
        status = run_cell(cell)
    assert (status.state, status.error) == ("done", None)
    assert len(records.read_records(cell.directory / RECORDS_FILE)) == 3
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: W&B")]
    assert len(warnings) == 1, "said once"
    assert cell.name in warnings[0]
    after = make_cell(seed=1)
    assert run_cell(after).state == "done"
    (run,) = map(read_offline_run, offline_run_files(after.directory))
    assert (run.name, len(split(run.history)[1])) == (after.name, 3), "the next cell has a run of its own"


def test_a_w_and_b_agents_variables_do_not_make_one_run_of_all_cells(tiny_world, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw1")
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-agent")
    in_own_process(tiny_world, tmp_path / "runs", "pass", keep=("WANDB_SWEEP_ID", "WANDB_RUN_ID"))
    runs = list(map(read_offline_run, offline_run_files(tmp_path / "runs")))
    cells = [tiny_world.cell(tmp_path / "runs", {"seed": seed}) for seed in (0, 1)]
    assert {(run.id, run.project) for run in runs} == {(cell.id, "gpo-bench") for cell in cells}


def test_settings_that_w_and_b_refuses_are_one_message(make_cell, tmp_path):
    """In a process of its own: W&B reads the environment once."""
    code = (
        "from bench.cells.tracking import check_login\nfrom bench.sections import TrackingConfig, WandbConfig\n"
        "from types import SimpleNamespace\n"
        "check_login(SimpleNamespace(tracking=TrackingConfig(WandbConfig('online'))))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "WANDB_MODE": "nonsense"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    last = ended.stderr.strip().splitlines()[-1]
    assert "ConfigError: tracking.wandb.mode=online: W&B refuses its settings" in last


def test_a_server_that_does_not_answer_is_waited_for_half_a_minute(make_cell, monkeypatch):
    init, given = wandb.init, []

    def noted(**settings):
        given.append(settings["settings"])
        return init(**settings)

    monkeypatch.setattr(wandb, "init", noted)
    run_cell(make_cell())
    (settings,) = given
    assert (settings.init_timeout, settings.finish_timeout, settings.finish_timeout_raises) == (30, 30, True)


def in_own_process(tiny_world, runs, harm, *, seeds=(0, 1), mode="offline", keep=()):
    """Run cells of which the first does `harm`, statements on `service` (a pid); what was said, and seconds it took.

    In a process of its own: W&B starts its service once for each.
    """
    code = f"""
import os, signal, time, psutil
from pathlib import Path
from running import prepared_for
from running import run as run_cell
from tiny_world import TinyWorld
from bench.cells.tracking import tracker
tracker.SECONDS_TO_ANSWER = 3.0
world = TinyWorld(*map(Path, {list(map(str, tiny_world))!r}))
def services():
    return [child.pid for child in psutil.Process().children() if child.name().startswith("wandb-core")]
def harm(record):
    if record.step == 0:
        for _ in range(300):
            if services():
                break
            time.sleep(0.1)
        (service,) = services()
        {harm}
for seed in {seeds!r}:
    cell = world.cell(Path({str(runs)!r}), {{"tracking.wandb.mode": {mode!r}, "seed": seed}})
    status = run_cell(cell, harm if seed == 0 else lambda record: None)
    print(status.state, status.error)
"""
    # W&B tells processes started by this one, through a variable, to use this one's service.
    environment = {key: value for key, value in os.environ.items() if "WANDB" not in key or key in keep}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40} if mode == "online" else {}
    started = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout.split()) == (0, ["done", "None"] * len(seeds)), ran.stderr
    return ran.stderr, time.monotonic() - started


@pytest.mark.slow
def test_a_w_and_b_whose_service_is_killed_costs_no_cell(tiny_world, tmp_path):
    said, _ = in_own_process(tiny_world, tmp_path / "runs", "os.kill(service, signal.SIGKILL)")
    assert "warning: W&B stopped" in said


def test_a_frozen_service_holds_up_neither_cells_nor_the_end(tiny_world, tmp_path):
    """Its connection stays open, so that nothing fails: whoever waits for an answer waits for ever."""
    runs = tmp_path / "runs"
    said, seconds = in_own_process(tiny_world, runs, "os.kill(service, signal.SIGSTOP)")
    assert said.count("warning: W&B stopped") == 1
    assert "no answer within 3 s" in said
    assert seconds < 60
    frozen, after = (tiny_world.cell(runs, {"tracking.wandb.mode": "offline", "seed": seed}) for seed in (0, 1))
    assert "no answer within 3 s" in (frozen.directory / MIRROR_FILE).read_text()
    (run,) = map(read_offline_run, offline_run_files(after.directory))
    assert (run.name, len(split(run.history)[1])) == (after.name, 3), "the next cell has a service of its own"


def test_a_server_that_is_not_there_is_waited_for_once(tiny_world, tmp_path):
    """The next cells write offline."""
    runs = tmp_path / "runs"
    said, _ = in_own_process(tiny_world, runs, "pass", seeds=(0, 1, 2), mode="online")
    assert said.count("warning: W&B stopped") == 1
    for seed in (1, 2):
        cell = tiny_world.cell(runs, {"tracking.wandb.mode": "online", "seed": seed})
        (run,) = map(read_offline_run, offline_run_files(cell.directory))
        assert (run.name, len(split(run.history)[1])) == (cell.name, 3)
        assert not (cell.directory / MIRROR_FILE).exists()


def test_an_incomplete_run_is_written_anew_from_the_records(make_cell, tmp_path, monkeypatch, capsys):
    cell, untouched = make_cell(), make_cell(seed=1)
    for each in (cell, untouched):
        run_cell(each)
    write_plan(
        cell.sweep_dir, [cell, untouched], {each.name: prepared_for(each) for each in (cell, untouched)}, [], "0"
    )
    (before,) = map(read_offline_run, offline_run_files(cell.directory))
    shutil.rmtree(cell.directory / "wandb")
    (cell.directory / MIRROR_FILE).write_text("no answer")
    stamps = {path: path.stat().st_mtime_ns for path in untouched.directory.glob("*.*")}
    monkeypatch.setattr(sys, "argv", ["mirror", str(cell.sweep_dir)])
    assert mirror.main() == 0
    assert "1 of 1 incomplete W&B runs" in capsys.readouterr().out
    (after,) = map(read_offline_run, offline_run_files(cell.directory))
    assert (after.id, after.config, after.axes, after.exit_code) == (before.id, before.config, before.axes, 0)
    was, now = (
        [[{k: v for k, v in row.items() if k[0] != "_"} for row in rows] for rows in split(run.history)]
        for run in (before, after)
    )
    assert now == was
    assert not (cell.directory / MIRROR_FILE).exists()
    assert {path: path.stat().st_mtime_ns for path in untouched.directory.glob("*.*")} == stamps


def test_no_folder_of_this_machine_reaches_w_and_b(make_cell, tmp_path):
    cell = make_cell()
    assert str(tmp_path) in str(cell.config)
    run_cell(cell)
    (path,) = offline_run_files(cell.directory)
    run = read_offline_run(path)
    assert run.config["world"]["params"]["policy"] == Path(cell.config.world.params["policy"]).name
    for folder in (str(tmp_path), str(Path(cell.config.world.params["policy"]).parent), str(ROOT)):
        assert folder.encode() not in path.read_bytes()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_without_online_no_key_is_needed(make_cell, mode):
    check_login(make_cell(mode).config)


def test_online_without_a_key_is_refused_at_once(make_cell):
    with pytest.raises(ConfigError, match=r"mode=online: no API key; run `wandb login`, set WANDB_API_KEY, or use"):
        check_login(make_cell("online").config)


def test_a_key_in_netrc_is_enough_and_no_server_is_asked(make_cell, home):
    """Nothing listens there: asking would fail, or wait."""
    host = urlsplit(wandb.setup().settings.base_url).hostname
    netrc = home / ".netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {'k' * 40}\n")
    netrc.chmod(0o600)
    check_login(make_cell("online").config)
