"""A sweep from its command line to its end: plan, prepare, start workers until nothing is left, conclude."""

import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.cells.cell import Cell
from bench.cells.tracking import check_login
from bench.checked import ConfigError
from bench.claims import server_time
from bench.data.parts import check_disjoint
from bench.data.prepared import Prepared
from bench.data.published import is_published
from bench.help import SWEEP_DIR_TO
from bench.records import (
    BEST_OF_N,
    DONE,
    GPO,
    ONLINE,
    POLICY_DIR,
    RECORDS_FILE,
    cell_view,
    read_plan,
    read_records,
    read_status,
)
from bench.sections import PROXY
from bench.sweep.compose import SweepRequest
from bench.sweep.launching import check_launcher, is_detached, run_in_rounds, submit_workers, workers_wanted
from bench.sweep.plan import is_planned, plan_cells, write_plan
from bench.sweep.progress import SweepProgress, progress_to, warnings_to
from bench.sweep.status import summary_line, times_line

_STANDS_ON = ("world", "labels", "pairs", "evaluation", "logits_mib", "proxy", "watch", "best_of_n")
_ON_PAIRS = (GPO, ONLINE)  # methods that train on π_ref's pairs, of which a seed has a part to itself


def run_sweep(request: SweepRequest, console: Console, tell: Callable[[Path], None] = lambda sweep_dir: None) -> int:
    """Plan, prepare and run a sweep.

    Args:
        tell: told where the sweep is, before anything is built.
    Returns:
        Exit status: 0 if every cell is done, 1 if some failed.
    Raises:
        ConfigError: before anything is built or trained.
        KeyboardInterrupt: a worker in this process was asked to stop.
    """
    started = time.monotonic()
    cells = plan_cells(request.jobs)
    check_login(cells[0].config)
    check_launcher(request, cells[0].config.parallel)
    sweep_dir = cells[0].sweep_dir
    tell(sweep_dir)
    call = ""  # of a call that has nothing to do
    if not (is_planned(sweep_dir, cells) and all(cell.is_finished for cell in cells) and is_published(sweep_dir)):
        prepared, call = prepare_cells(cells, progress_to(console)), new_call(sweep_dir)
        write_plan(sweep_dir, cells, prepared, typed_command(), call)
    pending = [cell for cell in cells if not cell.is_finished]
    console.print(
        f"{sweep_dir}: {len(cells)} cells, {len(cells) - len(pending)} finished, {len(pending)} to run",
        highlight=False,
    )
    note_unsaved(cells, console)
    if pending:
        prepared_at = time.monotonic()
        workers = min(workers_wanted(request, cells[0].config), len(pending))
        names = [cell.name for cell in pending]
        if is_detached(request):
            submit_workers(request, sweep_dir, call, workers, console)
            return 0
        with SweepProgress(sweep_dir, names, total=len(cells), workers=workers, console=console):
            run_in_rounds(request, sweep_dir, pending, call, workers, console)
        views = [cell_view(sweep_dir, name) for name in names]
        took = times_line(views, prepared_at - started, time.monotonic() - prepared_at)
        console.print(took, highlight=False, soft_wrap=True)
    return _conclude(sweep_dir, cells, console)


def note_unsaved(cells: Sequence[Cell], console: Console) -> None:
    """Say of how many finished cells the policy that `save` asks for was not kept when they ran."""
    done = [cell for cell in cells if (status := read_status(cell.directory)) is not None and status.state == DONE]
    unsaved = [cell for cell in done if cell.config.save != "none" and not (cell.directory / POLICY_DIR).exists()]
    if unsaved:
        warnings_to(console)(
            f"{len(unsaved)} finished cells have kept no policy, such as {unsaved[0].name}: save={cells[0].config.save}"
            " is for cells still to run; another sweep=NAME trains them again"
        )


def new_call(sweep_dir: Path) -> str:
    """Id of one call of a driver: its time, so that later ones compare as greater, and chance to be the only one;
    `sweep_dir` is there, and gives the clock."""
    now = datetime.fromtimestamp(server_time(sweep_dir), UTC)  # one clock, whichever machine the call is made on
    return f"{now:%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:6]}"


def prepare_cells(cells: Sequence[Cell], progress: Callable[[str], None]) -> dict[str, Prepared]:
    """Build what the cells stand on, once for each set of data settings, and copy what the analysis reads.

    Returns:
        What each cell stands on, by the cells' names.
    """
    # torch and transformers: seconds, which a sweep that has nothing left to do need not wait for
    from bench.data.published import publish
    from bench.sweep.preparing import prepare

    built: dict[str, Prepared] = {}
    prepared: dict[str, Prepared] = {}
    for cell in cells:
        settings = asdict(cell.config)
        key = repr([settings[name] for name in _STANDS_ON] + [cell.config.method == BEST_OF_N])
        if key not in built:
            built[key] = prepare(cell.config, progress)
            publish(cell.sweep_dir, built[key])
        _check_data(cell, built[key])
        prepared[cell.name] = built[key]
    _check_parts(cells, prepared)
    return prepared


def _check_parts(cells: Sequence[Cell], prepared: Mapping[str, Prepared]) -> None:
    """Refuse two seeds that would train on the same pairs, in this call or beside cells that are planned already."""
    from bench.data.proxies import check_parts
    from bench.sweep.preparing import training_pairs_in

    with_proxy = [cell for cell in cells if cell.config.uses_proxy]
    check_parts((cell.config.proxy, dict(prepared[cell.name].judges)[PROXY].path) for cell in with_proxy)

    plan = read_plan(cells[0].sweep_dir)
    on_pairs = [row for row in plan["cells"] if row["cell"] in plan["jobs"] and row["method"] in _ON_PAIRS]
    planned = {row["cell"]: row["seed"] for row in on_pairs}
    for data in {each.preferences for each in prepared.values()}:
        here = [cell for cell in cells if prepared[cell.name].preferences == data and cell.config.method in _ON_PAIRS]
        earlier = [
            seed
            for name, seed in planned.items()
            if plan["prepared"][plan["jobs"][name]["prepared"]]["preferences"]["fingerprint"] == data.fingerprint
        ]
        for per_cell in {cell.config.pairs.per_cell for cell in here}:
            seeds = [cell.config.seed for cell in here if cell.config.pairs.per_cell == per_cell]
            check_disjoint([*seeds, *earlier], training_pairs_in(data), per_cell, here[0].config.pairs.pool)


def _check_data(cell: Cell, prepared: Prepared) -> None:
    """Refuse to add cells to finished ones that were trained on other data, for example by an older version."""
    if not cell.is_finished or not (records := cell.directory / RECORDS_FILE).exists():
        return
    rows = read_records(records)
    if rows and rows[-1]["preferences"] != prepared.preferences.fingerprint:
        raise ConfigError(
            f"{cell.directory} was trained on preference data {rows[-1]['preferences']}, but these settings now give "
            f"{prepared.preferences.fingerprint} (another version of the code?): use another sweep=NAME"
        )


def typed_command() -> list[str]:
    """What was typed, without the machine's paths and what moves no result."""
    words = [word for word in sys.argv[1:] if not word.startswith(SWEEP_DIR_TO)]
    return ["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *words]


def _conclude(sweep_dir: Path, cells: Sequence[Cell], console: Console) -> int:
    views = [cell_view(sweep_dir, cell.name) for cell in cells]
    console.print(summary_line(views), highlight=False)
    unfinished = [view for view in views if view.state != DONE]
    if unfinished:
        console.print(f"errors and warnings: python -m bench.status {sweep_dir}", highlight=False, soft_wrap=True)
    return 1 if unfinished else 0
