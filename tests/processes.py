"""Find processes by their command line and environment, read from /proc."""

import os
from pathlib import Path


def find_processes(word: str, *, environment: str = "") -> list[int]:
    """Ids of the processes, other than this one, with `word` in the command line and `environment` in theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            command, variables = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has ended, or is not ours
            continue
        if word.encode() in command and environment.encode() in variables:
            found.append(int(process.name))
    return sorted(found)
