"""Whether a cell kills its workers, judged by those that died while they held it."""

import json
from pathlib import Path

from bench.records import DEATHS_FILE, WORKERS_DIR, CellStatus

_MOST_DEATHS = 2


def killer_of(status: CellStatus, sweep_dir: Path) -> str | None:
    """What is known, if a cell has killed its workers: two under one call that got no further than the last.

    Args:
        status: of the attempt that has just begun.
    """
    same = [d for d in status.deaths if d["call"] == status.call and d["from_step"] == status.resumed_from]
    if status.call is None or len(same) < _MOST_DEATHS:
        return None
    known = _known_deaths(sweep_dir)
    told = "; ".join(f"{d['host']}, pid {d['pid']}{known.get((d['host'], d['pid']), '')}" for d in same)
    return f"its worker was killed {len(same)} times while it ran ({told})"


def _known_deaths(sweep_dir: Path) -> dict[tuple[str, int], str]:
    """What a driver has noted of workers that were killed, by host and pid."""
    path = sweep_dir / WORKERS_DIR / DEATHS_FILE
    if not path.exists():
        return {}
    notes = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        (n["host"], n["pid"]): f", ended by {n['signal']} (the largest worker so far took {n['largest_worker_mb']} MB)"
        for n in notes
    }
