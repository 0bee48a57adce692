"""SIGKILL at random moments, to the driver, to one worker, or to all at once."""

import os
import random
import signal
import time
from contextlib import suppress

from faults.ground import Ground, Tally, end, processes_of

KILLS = 14
_VICTIMS = ("driver", "one worker", "everything")


def try_kills(ground: Ground, seed: int = 0) -> Tally:
    """Kill a sweep again and again, starting it anew each time; at last it runs to its end."""
    draw, tally, runs = random.Random(seed), Tally("SIGKILL"), ground.root / "killed"
    for number in range(KILLS):
        if number % 7 == 0 and number:
            problem = ground.recovers(runs)
            tally.count(f"kills up to {number}", problem)
            runs = ground.root / f"killed-{number}"
        process = ground.start(runs)
        time.sleep(draw.uniform(1.0, 9.0))
        victim = _VICTIMS[number % len(_VICTIMS)]
        workers = [pid for pid in processes_of(runs) if pid != process.pid]
        targets = {"driver": [process.pid], "one worker": workers[:1], "everything": [process.pid, *workers]}[victim]
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, problem = end(process)
        tally.count(f"{victim} killed", problem)
        deadline = time.monotonic() + 30
        while victim != "one worker" and processes_of(runs) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left := processes_of(runs):
            tally.lost.append(f"{victim} killed: processes {left} are left")
    tally.count("the last kills", ground.recovers(runs))
    return tally
