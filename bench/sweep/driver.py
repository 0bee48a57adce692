"""A sweep: every cell resolved and checked first, then run by Hydra's launcher until nothing is missing.

Hydra's own multirun has no resume, composes a cell's configuration only when the cell starts, and its joblib
launcher loses all cells that have not started when the kernel kills one worker. So the cells are planned here,
with Hydra's parser and sweeper, and Hydra's launcher is called for those that are not finished, as often as needed.
"""

import copy
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict
from rich.console import Console

from bench.cells.run import CellBusy, run_cell
from bench.cells.tracking import check_login
from bench.config import ConfigError, cell_config, cell_name
from bench.data.prepared import prepare_cells
from bench.records import DONE
from bench.sweep.plan import PlannedCell, check_cell_config, overridden_keys, write_plan
from bench.sweep.progress import SweepProgress
from bench.sweep.status import summary_line, sweep_views
from bench.sweep.supervise import supervise


class PlannedTask:
    """What Hydra's launcher runs in a worker: the planned cell of the job's number, as it was planned."""

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        self._cells = list(cells)

    def __call__(self, composed: DictConfig) -> None:
        """Run the cell; `composed`, made by the launcher at this moment, may differ from the plan by now."""
        # The process that holds a busy cell finishes it; the driver counts what is left at the end.
        with suppress(CellBusy):
            run_cell(self._cells[HydraConfig.get().job.num])


def run_sweep(config_dir: Path, config_name: str, overrides: Sequence[str], console: Console) -> int:
    """Plan, prepare and run a sweep.

    Returns:
        Exit status: 0 if every cell is done, 1 if some failed or are left to another process.
    Raises:
        ConfigError: before anything is built or trained.
    """
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        base = hydra.compose_config(config_name, list(overrides), RunMode.MULTIRUN, with_log_configuration=False)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(base))
        cells = plan_cells(base, context)
        sweep_dir = cells[0].config.sweep_dir
        prepare_cells(cells, _progress_to(console))
        write_plan(sweep_dir, cells, _command())
        pending = [cell for cell in cells if not cell.is_finished]
        console.print(
            f"{sweep_dir}: {len(cells)} cells, {len(cells) - len(pending)} finished, {len(pending)} to run",
            highlight=False,
        )

        def launch(batch: Sequence[PlannedCell]) -> None:
            launcher = Plugins.instance().instantiate_launcher(context, PlannedTask(batch), base)
            for result in launcher.launch([list(cell.overrides) for cell in batch], initial_job_idx=0):
                result.return_value  # noqa: B018  raises what a job raised outside of its cell

        workers = _workers(base)
        progress = SweepProgress(
            sweep_dir, [cell.name for cell in pending], total=len(cells), workers=workers, console=console
        )
        with progress:
            try:
                supervise(pending, launch)
            except BrokenProcessPool:
                console.print("workers are killed before they start a cell (for lack of memory?)", style="red")
    return _conclude(sweep_dir, cells, console)


def plan_cells(base: DictConfig, context: HydraContext) -> list[PlannedCell]:
    """Expand the sweep and check every cell.

    Raises:
        ConfigError: a setting that cannot be run, a directory made with other settings, or several sweeps at once.
    """
    arguments = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    arguments += base.hydra.overrides.task
    parser = OverridesParser.create(config_loader=context.config_loader)
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
    compose = _JobComposer(base, context.config_loader)
    cells: dict[str, PlannedCell] = {}
    for overrides in jobs:
        config = cell_config(compose(parser.parse_overrides(list(overrides))))
        cell = PlannedCell(cell_name(config, overridden_keys(overrides)), config, tuple(overrides))
        check_cell_config(cell)
        twin = cells.setdefault(cell.name, cell)  # two spellings of one value are one cell
        if twin.config.fingerprint != config.fingerprint:
            raise ConfigError(
                f"{' '.join(twin.overrides)} and {' '.join(overrides)} are different settings of one cell, {cell.name}"
            )
    sweeps = {cell.config.sweep_dir for cell in cells.values()}
    if len(sweeps) > 1:
        raise ConfigError(f"sweep={', '.join(sorted(map(str, sweeps)))}: one call fills one sweep")
    check_login(next(iter(cells.values())).config)
    return list(cells.values())


class _JobComposer:
    """Composes the configuration of a job, without Hydra's own part.

    Hydra takes 0.1 s to compose one. Jobs that choose the same files therefore share one composition, on which their
    plain values are then set in the way that Hydra sets them.
    """

    def __init__(self, base: DictConfig, loader: ConfigLoader) -> None:
        self._base, self._loader = base, loader
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._chooses_file: dict[str, bool] = {}

    def __call__(self, overrides: Sequence[Override]) -> DictConfig:
        """`overrides`: a job's, without sweeps."""
        values = [override for override in overrides if not self._is_choice(override)]
        choices = tuple(str(override.input_line) for override in overrides if self._is_choice(override))
        if choices not in self._composed:
            self._composed[choices] = _without_hydra(self._loader.load_sweep_config(self._base, list(choices)))
        composed = copy.deepcopy(self._composed[choices])
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        return composed

    def _is_choice(self, override: Override) -> bool:
        key = override.key_or_group
        if key not in self._chooses_file:
            self._chooses_file[key] = key.startswith("hydra") or bool(self._loader.get_group_options(key))
        return self._chooses_file[key]


def _without_hydra(composed: DictConfig) -> DictConfig:
    plain = composed.copy()
    with open_dict(plain):
        del plain["hydra"]
    return plain


def _command() -> list[str]:
    """What was typed, without the machine's paths."""
    return ["python", "-m", "bench.train", *sys.argv[1:]]


def _progress_to(console: Console) -> Callable[[str], None]:
    return lambda message: console.print(message, highlight=False, markup=False)


def _workers(base: DictConfig) -> int:
    n_jobs = base.hydra.launcher.get("n_jobs", 1)
    return n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)


def _conclude(sweep_dir: Path, cells: Sequence[PlannedCell], console: Console) -> int:
    names = {cell.name for cell in cells}
    views = [view for view in sweep_views(sweep_dir) if view.name in names]
    console.print(summary_line(views), highlight=False)
    unfinished = [view for view in views if view.state != DONE]
    if unfinished:
        console.print(f"errors and warnings: python -m bench.status {sweep_dir}", highlight=False)
    return 1 if unfinished else 0


def run_single(composed: DictConfig, overridden: Sequence[str], console: Console) -> int:
    """Run one cell in this process, printing every checkpoint.

    Returns:
        Exit status: 0 if the cell is done.
    """
    config = cell_config(composed)
    cell = PlannedCell(cell_name(config, overridden_keys(overridden)), config, tuple(overridden))
    check_cell_config(cell)
    check_login(config)
    prepare_cells([cell], _progress_to(console))
    write_plan(config.sweep_dir, [cell], _command())
    console.print(str(cell.directory), highlight=False, soft_wrap=True)
    try:
        status = run_cell(cell, lambda record: console.print(_checkpoint_line(asdict(record)), highlight=False))
    except CellBusy as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1
    if status.error:
        console.print(f"{status.state}: {status.error}", style="red", highlight=False, markup=False)
    else:
        console.print(status.state, highlight=False)
    return 0 if status.state == "done" else 1


def _checkpoint_line(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']:>5}  loss {record['train_loss']:.4f}  KL {record['kl']:.3f} ± {record['kl_se']:.3f}  "
        f"gold {record['gold']:+.3f} ± {record['gold_se']:.3f}"
    )
