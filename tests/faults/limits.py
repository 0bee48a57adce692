"""Too little of something: disk, file sizes, permissions, memory, file handles; then enough of it."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from faults.ground import Ground, Tally, end, limit


def _file_size(size: int) -> Callable[[], None]:
    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead, as of a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


LIMITS = {
    "files of at most 1 kB": _file_size(1 << 10),
    "files of at most 6 kB": _file_size(6 << 10),
    "files of at most 40 kB": _file_size(40 << 10),
    "12 file handles": limit(resource.RLIMIT_NOFILE, 12),
    "24 file handles": limit(resource.RLIMIT_NOFILE, 24),
    "48 file handles": limit(resource.RLIMIT_NOFILE, 48),
    "0.6 GB of addresses": limit(resource.RLIMIT_AS, 600 << 20),
    "1.2 GB of addresses": limit(resource.RLIMIT_AS, 1200 << 20),
    "2.2 GB of addresses": limit(resource.RLIMIT_AS, 2200 << 20),
}


def try_limits(ground: Ground) -> Tally:
    """Run the sweep under each limit, and then without it."""
    tally = Tally("limits")
    for number, (name, prepare) in enumerate(LIMITS.items()):
        runs = ground.root / f"limited-{number}"
        _, problem = end(ground.start(runs, prepare))
        tally.count(name, problem or ground.recovers(runs))
    return tally


def try_full_disk(ground: Ground) -> Tally:
    """Run the sweep on file systems that are too small for it, then make room."""
    tally = Tally("full disk")
    for size in (40, 150, 400):
        runs = ground.root / f"small-{size}"
        runs.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(runs)], check=False, stderr=-3
        ).returncode:
            tally.skipped = "no right to mount a small file system here"
            return tally
        try:
            _, problem = end(ground.start(runs))
            subprocess.run(["mount", "-o", "remount,size=64m", str(runs)], check=True)
            tally.count(f"{size} kB", problem or ground.recovers(runs))
        finally:
            subprocess.run(["umount", "-l", str(runs)], check=True)
    return tally


def try_read_only(ground: Ground) -> Tally:
    """A folder that may not be written: new, and with a finished sweep in it."""
    tally = Tally("read-only")
    for name in ("new", "finished"):
        runs = ground.root / f"read-only-{name}"
        runs.mkdir()
        if name == "finished":
            shutil.copytree(ground.root / "undisturbed" / "t", runs / "t")
        make, undo = _protection(runs)
        if any(subprocess.run(each, check=False, stderr=subprocess.DEVNULL).returncode for each in make):
            tally.skipped = "no right to make a folder read-only here"
            return tally
        try:
            output, problem = end(ground.start(runs))
        finally:
            subprocess.run(undo, check=True)
        expected = ("Read-only file system", "Permission denied", "8 finished")
        said = None if any(words in output for words in expected) else f"not said why: {output[-200:]!r}"
        tally.count(name, problem or said)
        tally.count(f"{name}, then writable", ground.recovers(runs))
    return tally


def _protection(path: Path) -> tuple[list[list[str]], list[str]]:
    """Commands that make a folder read-only and writable again; permissions do not hold for root."""
    if os.geteuid():
        return [["chmod", "-R", "a-w", str(path)]], ["chmod", "-R", "u+w", str(path)]
    bind = ["mount", "--bind", str(path), str(path)]
    return [bind, ["mount", "-o", "remount,bind,ro", str(path)]], ["umount", "-l", str(path)]
