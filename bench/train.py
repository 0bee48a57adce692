"""Train one cell, or sweep with -m.

    python -m bench.train loss=squared beta=0.3
    python -m bench.train -m loss=logistic,squared beta=0.1,0.3 seed=0,1
    python -m bench.train -m experiment=frontier
    python -m bench.train -m experiment=frontier --sweep-dir-to=FILE    # writes RUNS/SWEEP there before it trains

Exit status: 0 all cells done, 1 a cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import sys
from pathlib import Path

from bench.help import KEPT, SWEEP_DIR_TO, asks_for_help, help_text
from gold_rm.command_line import run_with_messages, terminal


def main() -> int:
    """Entry point; see the module's docstring."""
    arguments = [word for word in sys.argv[1:] if not word.startswith(SWEEP_DIR_TO)]
    console = terminal()

    def action() -> int:
        if asks_for_help(arguments):
            print(help_text())
            return 0
        # Not before: Hydra takes half a second that --help need not wait for, and torch seconds that a message about
        # a key or a value need not wait for.
        from bench.sweep.compose import asks_for_sweep, compose_one, compose_sweep

        if asks_for_sweep(arguments):
            request = compose_sweep(arguments)
            from bench.sweep.driver import run_sweep

            return run_sweep(request, console, _tell)
        job = compose_one(arguments)
        if job is None:
            return 0
        from bench.cells.cell import Cell
        from bench.config import cell_config

        cell = Cell.of(cell_config(job.settings), job.overridden)
        _tell(cell.sweep_dir)
        from bench.sweep.single import run_single

        return run_single(cell, console)

    return run_with_messages(action, if_interrupted=KEPT)


def _tell(sweep_dir: Path) -> None:
    """Write where the sweep is to the files that the command line names for it."""
    for word in sys.argv[1:]:
        if word.startswith(SWEEP_DIR_TO):
            Path(word.removeprefix(SWEEP_DIR_TO)).write_text(f"{sweep_dir}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
