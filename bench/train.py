"""Train one cell, or sweep with -m.

    python -m bench.train loss=squared beta=0.3
    python -m bench.train -m loss=logistic,squared beta=0.1,0.3 seed=0,1
    python -m bench.train -m experiment=frontier

Exit status: 0 all cells done, 1 a cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import sys
from pathlib import Path

from hydra._internal.utils import get_args_parser
from rich.console import Console

from bench.messages import CONFIG_DIR, CONFIG_NAME, compose_from_command_line, run_with_messages
from bench.sweep.driver import run_single, run_sweep


def main() -> int:
    """Entry point; see the module's docstring."""
    arguments = get_args_parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)

    def sweep() -> int:
        config_dir = Path(arguments.config_dir).resolve() if arguments.config_dir else CONFIG_DIR
        return run_sweep(config_dir, arguments.config_name or CONFIG_NAME, arguments.overrides, console)

    def single() -> int:
        cells = compose_from_command_line()
        return max((run_single(composed, overrides, console) for composed, overrides in cells), default=0)

    return run_with_messages(sweep if arguments.multirun else single)


if __name__ == "__main__":
    sys.exit(main())
