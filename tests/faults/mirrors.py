"""W&B that does not answer: its service is frozen while cells run, or its server is not there."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from processes import find_processes
from sweep_process import ROOT

from faults.ground import Ground, Tally, end

_SECONDS = 300


def try_mirrors(ground: Ground) -> Tally:
    """Run the sweep with W&B offline and freeze every service; then online against a port where nothing listens."""
    tally = Tally("dead W&B")
    runs = ground.root / "frozen-service"
    process = ground.start(runs, extra=["tracking.wandb.mode=offline"])
    deadline, services = time.monotonic() + 60, list[int]()
    while len(services) < 2 and process.poll() is None and time.monotonic() < deadline:
        services = find_processes("wandb-core", environment=f"GPO_FAULT={runs}")
        time.sleep(0.05)
    for pid in services:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    _, problem = end(process, _SECONDS)
    tally.count("frozen services", problem or ground.difference(runs) or (None if services else "none was found"))
    mended = subprocess.run(
        [sys.executable, "-m", "bench.mirror", str(runs / "t")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    left = list((runs / "t").glob("*/wandb-incomplete.txt"))
    tally.count(
        "frozen services, then bench.mirror", mended.stderr or (f"{len(left)} runs are incomplete" if left else None)
    )
    runs = ground.root / "no-server"
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40}
    _, problem = end(ground.start(runs, extra=["tracking.wandb.mode=online"], env=nowhere), _SECONDS)
    tally.count("no server", problem or ground.difference(runs))
    return tally
