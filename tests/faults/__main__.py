"""``make faults``: try every fault, print what was tried and what was lost; status 1 if anything was."""

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from faults.damages import try_damages
from faults.ground import Tally, make_ground
from faults.kills import try_kills
from faults.limits import try_full_disk, try_limits, try_read_only
from faults.mirrors import try_mirrors

CAMPAIGN = (try_kills, try_limits, try_full_disk, try_read_only, try_mirrors, try_damages)


def run_campaign(root: Path) -> list[Tally]:
    """Every kind of fault on a ground of its own below `root`."""
    ground = make_ground(root)
    return [attempt(ground) for attempt in CAMPAIGN]


def main() -> int:
    """Entry point."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)  # one of the faults is to be another user
        tallies = run_campaign(root)
    table = Table("fault", "tried", "survived", "lost", "")
    for tally in tallies:
        lost = len(tally.lost)
        table.add_row(tally.kind, str(tally.tried), str(tally.tried - lost), str(lost), tally.skipped)
    console = Console(markup=False, highlight=False)
    console.print(table)
    for sentence in (each for tally in tallies for each in tally.lost):
        console.print(f"lost: {sentence}", soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s")
    return 1 if any(tally.lost for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
