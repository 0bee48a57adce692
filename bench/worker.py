"""Run cells of a planned sweep, one after the other, until none is left.

    python -m bench.worker runs/<sweep>

Any number may run at once, started by hand or by any scheduler, on any machine that sees the folder. A signal
(SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2) makes it give its cell back with a resume point.

Exit status: 0 nothing is left to claim, 1 a cell failed, 2 something in the input has to be mended, 130 stopped.
"""

import argparse
import sys
from pathlib import Path

from bench.help import KEPT
from gold_rm.command_line import INTERRUPTED, run_with_messages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP", help="a sweep that has been planned")
    parser.add_argument("--max-cells", type=int, metavar="N", help="stop after N cells")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop after M minutes, giving the cell back")
    parser.add_argument("--device", help="in place of the planned one: auto, cpu, cuda, cuda:1")
    parser.add_argument("--call", help=argparse.SUPPRESS)  # of the driver that starts this worker
    parser.add_argument("--driver-pid", type=int, help=argparse.SUPPRESS)  # whose end is a request to stop
    return parser


def main() -> int:
    """Entry point; see the module's docstring."""
    options = _parser().parse_args()

    def action() -> int:
        from bench.sweep.stopping import StopRequest
        from bench.sweep.workers import work

        seconds = None if options.max_minutes is None else 60 * options.max_minutes
        stop = StopRequest(seconds=seconds, driver_pid=options.driver_pid)
        result = work(
            options.sweep_dir, stop, call=options.call, device=options.device, max_cells=options.max_cells,
            report=lambda status: print(f"{status.state:11}  {status.cell}  {status.error or ''}", flush=True),
        )  # fmt: skip
        if stop.by_signal:
            return INTERRUPTED
        return 1 if result.failed else 0

    return run_with_messages(action, if_interrupted=KEPT)


if __name__ == "__main__":
    sys.exit(main())
