"""Train one cell, or sweep with -m.

    python -m bench.train loss=squared beta=0.3
    python -m bench.train -m loss=logistic,squared beta=0.1,0.3 seed=0,1
    python -m bench.train -m experiment=frontier

Exit status: 0 all cells done, 1 a cell failed, 2 something in the input has to be mended, 130 interrupted.
"""

import os
import sys
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from bench.cli import run_with_messages
from bench.sweep import run_single, run_sweep

CONFIG_DIR = Path(__file__).resolve().parent.parent / "conf"
CONFIG_NAME = "train"


def main() -> int:
    """Entry point; see the module's docstring."""
    # Hydra then raises what it would otherwise print, and run_with_messages explains it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    arguments = get_args_parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if arguments.multirun:
        config_dir = Path(arguments.config_dir).resolve() if arguments.config_dir else CONFIG_DIR
        config_name = arguments.config_name or CONFIG_NAME
        return run_with_messages(lambda: run_sweep(config_dir, config_name, arguments.overrides, console))
    return run_with_messages(lambda: _single(console))


def _single(console: Console) -> int:
    captured: list[tuple[DictConfig, list[str]]] = []

    @hydra.main(config_path=str(CONFIG_DIR), config_name=CONFIG_NAME, version_base="1.3")
    def capture(composed: DictConfig) -> None:
        captured.append((composed, list(HydraConfig.get().overrides.task)))

    # The cell runs outside of Hydra's job, which would print its own message before ours. Nothing is captured
    # where Hydra only prints, as with --cfg job.
    capture()
    return max((run_single(composed, overrides, console) for composed, overrides in captured), default=0)


if __name__ == "__main__":
    sys.exit(main())
