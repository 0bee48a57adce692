"""Run cells of a planned sweep, one after the other, until none is left.

    python -m bench.worker runs/<sweep>

Any number may run at once, started by hand or by any scheduler, on any machine that sees the folder. A signal
(SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2) makes it give its cell back with a resume point.

Exit status: 0 nothing is left to claim, 1 a cell failed, 2 something in the input has to be mended, 130 stopped.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.help import KEPT
from gold_rm.command_line import INTERRUPTED, run_with_messages

if TYPE_CHECKING:
    from bench.cells.inputs import InputCache


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP", help="a sweep that has been planned")
    parser.add_argument("--max-cells", type=int, metavar="N", help="stop after N cells")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop after M minutes, giving the cell back")
    parser.add_argument("--nproc", type=int, metavar="N", help="processes that share a cell, in place of the planned")
    parser.add_argument("--device", help="in place of the planned one: auto, cpu, cuda, cuda:1")
    parser.add_argument("--call", help=argparse.SUPPRESS)  # of the driver that starts this worker
    parser.add_argument("--driver-pid", type=int, help=argparse.SUPPRESS)  # whose end is a request to stop
    return parser


def main() -> int:
    """Entry point; see the module's docstring."""
    options = _parser().parse_args()

    status = run_with_messages(lambda: _run(options), if_interrupted=KEPT)
    if is_in_group():
        # Not through Python's end, in which torch aborts now and then after FSDP2 on gloo (2 of 8 tries).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def is_in_group() -> bool:
    """Whether torch.distributed's agent has started this process: of ours (`--nproc`), or of the user's torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _run(options: argparse.Namespace) -> int:
    if is_in_group():
        return _work(options)
    from bench.sweep.joining import wait_for_plan
    from bench.sweep.plan import is_left, read_planned

    wait_for_plan(options.sweep_dir, options.call)
    plan = read_planned(options.sweep_dir, options.call)
    # One value per call: it names no cell.
    processes = options.nproc or (plan.job(plan.names[0])[0].config.parallel.processes if plan.names else 1)
    if processes == 1:
        return _work(options)
    from bench.sweep.group import run_as_group

    def cells_left() -> int:
        now = read_planned(options.sweep_dir, options.call)
        return sum(is_left(now.sweep_dir / name, options.call or now.call) for name in now.names)

    return run_as_group(processes, options.sweep_dir, _arguments(options), cells_left, driver_pid=options.driver_pid)


def _arguments(options: argparse.Namespace) -> list[str]:
    """What was asked for, for each process of a group."""
    named = {"--max-cells": options.max_cells, "--max-minutes": options.max_minutes, "--device": options.device}
    named |= {"--call": options.call, "--driver-pid": os.getpid()}
    given = [(name, str(value)) for name, value in named.items() if value is not None]
    return [word for pair in given for word in pair]


def _follow(cache: "InputCache") -> int:
    from bench.cells.training import follow

    try:
        follow(cache)
    except Exception as error:
        if not cache.ranks.has_lost_one(error):
            raise
        return 1  # the first process has ended, and has said why
    return 0


def _work(options: argparse.Namespace) -> int:
    from bench.cells.inputs import InputCache
    from bench.policies.ranks import Ranks
    from bench.sweep.stopping import StopRequest, deaf
    from bench.sweep.workers import work

    ranks = Ranks.join()
    try:
        if not ranks.leads:
            with deaf():
                return _follow(InputCache(ranks))
        if ranks.world_size > 1:
            print(f"a group of {ranks.world_size} processes", flush=True)
        seconds = None if options.max_minutes is None else 60 * options.max_minutes
        stop = StopRequest(seconds=seconds, driver_pid=options.driver_pid)
        result = work(
            options.sweep_dir, stop, call=options.call, device=options.device, max_cells=options.max_cells,
            ranks=ranks,
            report=lambda status: print(f"{status.state:11}  {status.cell}  {status.error or ''}", flush=True),
        )  # fmt: skip
    finally:
        ranks.leave()
    if stop.by_signal:
        return INTERRUPTED
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
