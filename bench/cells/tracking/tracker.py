"""One W&B run for one cell: every training step under ``train/``, every checkpoint, ``frontier/gold`` over KL."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from bench.cells.cell import Cell
from bench.cells.tracking.link import DISABLED, LINK, OFFLINE
from bench.cells.tracking.login import leave_agent
from bench.config import CellConfig
from bench.records import METRICS, RECORDS_FILE, CheckpointRecord, StepMetrics, read_records, read_training
from bench.records.metrics import IDENTITY, LABELS, PROVENANCE

if TYPE_CHECKING:
    from bench.cells.stored import Recorded

WANDB_DIR = "wandb"
# Groups of METRICS that say what a record is or where it came from belong into the run's config, not into its charts.
_CHARTED = {
    name for name, metric in METRICS.items() if metric.group not in (IDENTITY, PROVENANCE, LABELS)
} | {"step", "label_probability", "wall_s"}  # fmt: skip
MIRROR_FILE = "wandb-incomplete.txt"  # in a cell's folder: why its run is
SECONDS_TO_ANSWER = 30.0  # of the server, or of W&B's own service; what it has not got by then is in the records
_PROVENANCE = ("gold_model", "preferences", "reference", "git_commit", "method", "variant", "strength")


def _run_config(config: CellConfig) -> dict[str, Any]:
    """Settings as a run shows them: without where things lie on this machine, which nobody has asked to publish."""
    named = {"variant": config.variant, "strength": config.strength}
    trained_elsewhere = {"loss": None, "beta": None} if config.external is not None else {}
    settings = {key: value for key, value in asdict(config).items() if key not in ("runs_dir", "artifacts_dir")}
    return _without_folders(settings) | named | trained_elsewhere


def _without_folders(value: Any) -> Any:
    """Absolute paths by their last names."""
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str | Path) and str(value)[:1] in ("/", "~") else value


class Tracker:
    """One W&B run for one cell, a sink of its folder; every method is safe to call whatever the state of W&B.

    Nothing waits for W&B before `finish`, and that for `SECONDS_TO_ANSWER` at most. A run that is not complete by then
    leaves `MIRROR_FILE` with the reason in the cell's folder; `write_mirror` makes it anew from the records.
    """

    def __init__(self, cell: Cell, mode: str | None = None) -> None:
        """
        Args:
            mode: in place of the cell's.
        """
        self._cell, self._wanted = cell, mode or cell.config.tracking.wandb.mode
        self._mode, self._run, self.error = DISABLED, cast(Any, None), cast(str | None, None)

    def start(self, recorded: "Recorded") -> None:
        """Open the run. An offline one cannot be taken up again: it is written anew from what is on disk."""
        self._mode = LINK.mode(self._wanted)
        if self._mode == DISABLED:
            if self._wanted != DISABLED:
                self._fail("it has failed twice in this process")
            return
        self._call(self._start)
        if self._mode == OFFLINE:
            self.log_steps(list(recorded.steps))
            for row in list(recorded.records):
                self._log(row)

    def _start(self) -> None:
        import wandb  # half a second; paid only where it is used

        leave_agent()
        config, settings = self._cell.config, self._cell.config.tracking.wandb
        if self._mode == OFFLINE:
            shutil.rmtree(self._cell.directory / WANDB_DIR, ignore_errors=True)
        run = wandb.init(
            mode=cast(Literal["offline", "online"], self._mode),
            project=settings.project,
            entity=settings.entity,
            dir=str(self._cell.directory),
            id=self._cell.id,
            name=self._cell.name,
            group=config.sweep,
            config=_run_config(config),
            # Without this, all cells of a worker would end up in its first run.
            reinit="finish_previous",
            resume="allow" if self._mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=SECONDS_TO_ANSWER,
                finish_timeout=SECONDS_TO_ANSWER,
                finish_timeout_raises=True,
            ),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        run.define_metric("frontier/gold", step_metric="kl")
        run.define_metric("frontier/win_rate", step_metric="kl")
        self._run = run

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Mirror training steps: the curves."""

        def send() -> None:
            for each in steps:
                values = asdict(each)
                step = values.pop("step")
                self._run.log({"step": step, **{f"train/{name}": value for name, value in values.items()}})

        self._call(send)

    def log(self, record: CheckpointRecord) -> None:
        """Mirror one checkpoint record; the last one stays as the run's summary."""
        self._log(asdict(record))

    def _log(self, row: Mapping[str, Any]) -> None:
        # Records that were read say NaN of what a cell has not.
        metrics = {k: v for k, v in row.items() if k in _CHARTED and v is not None and v == v}
        frontier = {"frontier/gold": row["gold"], "frontier/win_rate": row["win_rate"]}
        facts = {key: row[key] for key in (*_PROVENANCE, "loss", "beta") if row[key] == row[key]}

        def send() -> None:
            self._run.log({**metrics, **frontier})
            self._run.summary.update({**metrics, **facts})

        self._call(send)

    def finish(self, exit_code: int) -> None:
        """End the run; without this the next cell of the worker would write into it."""
        if self._mode != DISABLED:
            self._call(lambda: self._run.finish(exit_code=exit_code))
            if not LINK.background.wait(SECONDS_TO_ANSWER):
                self._fail(f"no answer within {SECONDS_TO_ANSWER:g} s")
                LINK.give_up()
            elif self.error is not None and self._mode == "online":
                LINK.give_up()
        self._note()

    def _note(self) -> None:
        """Say in the cell's folder whether the run is complete."""
        path = self._cell.directory / MIRROR_FILE
        with suppress(OSError):  # a full disk has been spoken of
            path.unlink(missing_ok=True) if self.error is None else path.write_text(f"{self.error}\n", encoding="utf-8")

    def _call(self, action: Callable[[], None]) -> None:
        def guarded() -> None:
            if self.error is None:
                try:
                    action()
                # wandb raises its own errors, OSErrors and errors of its service; none may end a cell.
                except Exception as error:
                    self._fail(str(error) or repr(error))

        if self._mode != DISABLED:
            LINK.background.call(guarded)

    def _fail(self, error: str) -> None:
        if self.error is None:
            print(f"warning: W&B stopped for {self._cell.name}: {error}", file=sys.stderr)
            self.error = error


def write_mirror(cell: Cell) -> str | None:
    """Write the run of a finished cell anew from its records, offline; returns why it could not be.

    Raises:
        DamagedRecord: its records cannot be read.
    """
    from bench.cells.stored import Recorded

    records = read_records(cell.directory / RECORDS_FILE)
    tracker = Tracker(cell, OFFLINE)
    tracker.start(Recorded(records, [StepMetrics(**row) for row in read_training(cell.directory)]))
    tracker.finish(0)
    return tracker.error
