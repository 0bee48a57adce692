"""Train one cell, or sweep with -m.

    python -m bench.train loss=squared beta=0.3
    python -m bench.train -m loss=logistic,squared beta=0.1,0.3 seed=0,1
    python -m bench.train -m experiment=frontier

Exit status: 0 all cells done, 1 a cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import sys

from rich.console import Console

from bench.help import asks_for_help, help_text
from bench.messages import run_with_messages


def main() -> int:
    """Entry point; see the module's docstring."""
    arguments = sys.argv[1:]
    if asks_for_help(arguments):
        print(help_text())
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)

    def action() -> int:
        # Not before: Hydra takes half a second that --help need not wait for, and torch seconds that a message about
        # a key need not wait for.
        from bench.sweep.compose import asks_for_sweep, compose_one, compose_sweep

        if asks_for_sweep(arguments):
            request = compose_sweep(arguments)
            from bench.sweep.driver import run_sweep

            return run_sweep(request, console)
        job = compose_one(arguments)
        if job is None:
            return 0
        from bench.sweep.single import run_single

        return run_single(job, console)

    return run_with_messages(action)


if __name__ == "__main__":
    sys.exit(main())
