"""One cell in this process, checkpoint by checkpoint on the screen."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from bench.cells.cell import Cell
from bench.cells.folder import CellBusy, Stopped
from bench.cells.inputs import InputCache
from bench.cells.run import run_cell
from bench.cells.settings import check_cell_config
from bench.cells.tracking import check_login
from bench.data.prepared import Prepared
from bench.records import DONE
from bench.sweep.driver import new_call, note_unsaved, prepare_cells, typed_command
from bench.sweep.plan import write_plan
from bench.sweep.progress import progress_to
from bench.sweep.stopping import StopRequest


def run_single(cell: Cell, console: Console) -> int:
    """Run the cell that a command line without ``-m`` asks for.

    Returns, raises: as `prepare_here` and `run_here`.
    """
    return run_here(cell, prepare_here(cell, console), InputCache(), typed_command(), console)


def prepare_here(cell: Cell, console: Console) -> Prepared:
    """Check one cell, and build what it stands on.

    Raises:
        ConfigError: a directory made with other settings, or a W&B that nobody is logged in to.
    """
    check_cell_config(cell)
    check_login(cell.config)
    return prepare_cells([cell], progress_to(console))[cell.name]


def run_here(cell: Cell, prepared: Prepared, cache: InputCache, command: Sequence[str], console: Console) -> int:
    """Plan one cell and run it in this process, printing every checkpoint.

    Args:
        command: what the plan says was typed.
    Returns:
        Exit status: 0 if the cell is done.
    Raises:
        KeyboardInterrupt: a signal asked to stop; the cell was given back with a resume point.
    """
    call, stop = new_call(cell.sweep_dir), StopRequest()
    write_plan(cell.sweep_dir, [cell], {cell.name: prepared}, command, call)
    console.print(str(cell.directory), highlight=False, soft_wrap=True)
    note_unsaved([cell], console)
    try:
        with stop.listening():
            status = run_cell(
                cell, prepared, cache, call=call, stop=stop,
                on_record=lambda record: console.print(_checkpoint_line(asdict(record)), highlight=False),
            )  # fmt: skip
    except CellBusy as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1
    except Stopped:
        raise KeyboardInterrupt from None
    if status.error:
        console.print(f"{status.state}: {status.error}", style="red", highlight=False, markup=False)
    else:
        console.print(status.state, highlight=False)
    return 0 if status.state == DONE else 1


def _checkpoint_line(record: dict[str, Any]) -> str:
    loss = "" if record["train_loss"] is None else f"loss {record['train_loss']:.4f}  "
    return (
        f"step {record['step']:>5}  {loss}KL {record['kl']:.3f} ± {record['kl_se']:.3f}  "
        f"gold {record['gold']:+.3f} ± {record['gold_se']:.3f}"
    )
