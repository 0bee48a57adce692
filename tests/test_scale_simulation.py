"""Hundreds of cells and a crowd of workers on one folder, some of which are killed; and that the check would notice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = ("--cells", "300", "--workers", "8", "--deaths", "6", "--hosts", "4")
# What makes claims worthless, in the parent of all workers.
SABOTAGE = {
    "the living are taken for dead": "import bench.claims.taking as t; t.is_alive = lambda *a, **k: False",
    "two may hold one claim": "import bench.claims.taking as t; t._stands = lambda *a: True",
    "the dead are taken for living": "import bench.claims.taking as t; t.is_alive = lambda *a, **k: True",
}


def simulate(before=""):
    """The finished process of a simulation; `before` is run first in it."""
    program = f"{before}\nfrom scale_simulation.__main__ import main\nraise SystemExit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", program, *ARGUMENTS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_no_cell_is_lost_or_run_twice():
    ran = simulate()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (killed,) = re.findall(r"300 cells, (\d) workers killed, 0 problems", ran.stdout)
    assert int(killed) >= 3, "of 6 that were to be; some may lose the race for their cell"
    assert "296 cells in" in ran.stdout, "those with a living worker elsewhere are left to it"


@pytest.mark.slow
@pytest.mark.parametrize("what", SABOTAGE)
def test_claims_that_do_not_hold_are_noticed(what):
    ran = simulate(SABOTAGE[what])
    assert ran.returncode == 1, ran.stdout + ran.stderr
    # A worker that finds its cell taken from it in the middle may also end in an error.
    noticed = r"error: .*(was finished|is lost|was disturbed|two workers)|RuntimeError: worker \d+ ended"
    assert re.search(noticed, ran.stdout + ran.stderr)
