"""What the terminal shows during a sweep is what the cells' files say."""

import io
import socket
import time
from dataclasses import replace

import pytest
import synthetic_runs
from rich.console import Console

from bench.records import ERROR_FILE, RECORDS_FILE, CellStatus, read_records, read_status, write_status
from bench.sweep import progress
from bench.sweep.progress import SweepProgress

TRUTH = synthetic_runs.Truth(losses=("logistic",), betas=(0.1, 0.3, 1.0), seeds=(0,), steps=(0, 96), prompts=8)
NAMES = [synthetic_runs.cell_name("logistic", beta, 0) for beta in TRUTH.betas]


@pytest.fixture
def sweep_dir(tmp_path):
    """Three cells with records; their statuses are from long ago until a test writes newer ones."""
    return synthetic_runs.write_sweep(tmp_path / "sweep", TRUTH, with_samples=False)


@pytest.fixture
def follow(sweep_dir, monkeypatch):
    """A function that follows the sweep while `happens` runs, and returns what was printed."""
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)

    def follow(happens, *, terminal=False, pending=NAMES):
        output = io.StringIO()
        console = Console(file=output, width=200, force_terminal=terminal, no_color=True)
        with SweepProgress(sweep_dir, pending, total=4, workers=2, console=console):
            happens()
            time.sleep(0.15)
        return output.getvalue()

    return follow


def update(sweep_dir, name, **changes):
    now = time.time()
    write_status(sweep_dir / name, replace(read_status(sweep_dir / name), updated_at=now, **changes))


def test_each_finished_cell_is_one_line_with_its_last_kl_and_gold(sweep_dir, follow):
    def happens():
        update(sweep_dir, NAMES[0], started_at=time.time() - 12)
        time.sleep(0.1)
        update(sweep_dir, NAMES[1], state="failed", error="ValueError: [bad] value\nTraceback")

    lines = follow(happens).splitlines()
    last = read_records(sweep_dir / NAMES[0] / RECORDS_FILE)[-1]
    kl, gold = f"{last['kl']:.2f} ± {last['kl_se']:.2f}", f"{last['gold']:+.2f} ± {last['gold_se']:.2f}"
    assert lines == [
        f"2/4  {NAMES[0]}  KL {kl}  gold {gold}  12.0 s  (0:00 left)",
        f"3/4  {NAMES[1]}  FAILED: ValueError: [bad] value",
    ]


def test_a_cell_that_ends_as_the_sweep_ends_is_still_reported(sweep_dir, follow, monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 100)
    assert NAMES[2] in follow(lambda: update(sweep_dir, NAMES[2]))


def test_the_bar_counts_cells_and_names_the_running_ones(sweep_dir, follow):
    now = time.time()
    running = CellStatus("running", NAMES[1], 1, now, now, 24, 96, socket.gethostname(), 1)
    write_status(sweep_dir / NAMES[1], running)
    update(sweep_dir, NAMES[2], started_at=now - 10)
    shown = follow(lambda: None, terminal=True)
    assert "1/4" in shown
    assert f"{NAMES[1]} step 24/96 KL " in shown


def test_damage_and_old_failures_are_not_taken_for_news(sweep_dir, follow):
    update(sweep_dir, NAMES[0], state="failed", error="from an earlier call")
    (sweep_dir / NAMES[1] / RECORDS_FILE).write_text("{")
    (sweep_dir / NAMES[1] / ERROR_FILE).write_text("")
    time.sleep(0.01)
    assert follow(lambda: None) == ""


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_cell_finished_on_a_machine_whose_clock_is_wrong_is_reported(sweep_dir, follow, hours):
    def happens():
        at = time.time() + 3600 * hours
        status = replace(read_status(sweep_dir / NAMES[0]), attempts=2, started_at=at - 12, updated_at=at)
        write_status(sweep_dir / NAMES[0], status)

    (line,) = follow(happens).splitlines()
    assert line.startswith(f"2/4  {NAMES[0]}  KL ")
    assert "  12.0 s  " in line
