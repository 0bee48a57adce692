"""`make sweep` reports on what was trained, wherever that is, and ends as the training did."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Stands for Python: says what it was called with, and does as bench.train does.
PYTHON = """#!/bin/sh
echo "$@" | sed 's/--sweep-dir-to=[^ ]*/--sweep-dir-to=FILE/' >> "$CALLS"
for word in "$@"; do
    case $word in --sweep-dir-to=*) [ -z "$SAYS" ] || echo "$SAYS" > "${word#--sweep-dir-to=}"; exit $TRAINED;; esac
done
"""


@pytest.fixture
def make(tmp_path):
    """A function that runs make; returns its exit status and what Python was called with, a line each."""
    python, calls = tmp_path / "venv" / "bin" / "python", tmp_path / "calls"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*words, trained=0, says="some where/runs/s"):
        environment = {
            **os.environ,
            "CALLS": str(calls),
            "SAYS": says,
            "TRAINED": str(trained),
            "TMPDIR": str(tmp_path),
        }
        calls.write_text("")
        venv = python.parents[1]
        command = ["make", "-s", f"VENV={venv}", "-o", f"{venv}/.installed", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert not list(tmp_path.glob("tmp.*")), "nothing is left behind"
        return done.returncode, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize(("target", "experiment"), [("sweep", "frontier"), ("smoke", "smoke")])
@pytest.mark.parametrize("arguments", ["", "runs_dir=elsewhere sweep=other"])
def test_the_report_is_that_of_what_was_trained(make, target, experiment, arguments):
    status, (trained, reported) = make(target, f"ARGS={arguments}")
    assert status == 0
    assert trained == f"-m bench.train -m --sweep-dir-to=FILE experiment={experiment} {arguments}".rstrip()
    assert reported == "-m analysis.report --if-changed some where/runs/s"


def test_failed_cells_are_reported_and_the_status_is_kept(make):
    status, calls = make("sweep", trained=1)
    assert status != 0
    assert len(calls) == 2


@pytest.mark.parametrize("trained", [2, 130])
def test_what_was_not_trained_is_not_reported(make, trained):
    status, calls = make("sweep", trained=trained)
    assert status != 0
    assert len(calls) == 1


def test_where_nothing_is_trained_there_is_no_report(make):
    status, calls = make("sweep", "ARGS=--cfg job", says="")
    assert (status, len(calls)) == (0, 1)


def test_a_report_takes_its_sweep_not_arguments(make):
    assert make("report", "SWEEP=s") == (0, ["-m analysis.report runs/s"])
    assert make("report", "ARGS=sweep=s") == (2, [])
