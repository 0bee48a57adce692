"""The mirror of a cell's records in Weights & Biases; the only module that knows wandb.

The records on disk are the truth. Whatever fails here is reported once and costs the cell nothing. A run holds every
training step under ``train/``, every checkpoint, and ``frontier/gold`` over KL.
"""

import netrc
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from bench.cells.cell import Cell
from bench.checked import ConfigError
from bench.config import CellConfig
from bench.records import METRICS, CheckpointRecord, StepMetrics
from bench.records.metrics import IDENTITY, LABELS, PROVENANCE

if TYPE_CHECKING:
    from bench.cells.stored import Recorded

WANDB_DIR = "wandb"
# Groups of METRICS that say what a record is or where it came from belong into the run's config, not into its charts.
_CHARTED = {
    name for name, metric in METRICS.items() if metric.group not in (IDENTITY, PROVENANCE, LABELS)
} | {"step", "label_probability", "wall_s"}  # fmt: skip
_SECONDS_TO_ANSWER = 60.0  # of the server; what it has not got by then is on disk, for `wandb sync`
_PROVENANCE = ("gold_model", "preferences", "reference", "git_commit", "method", "variant", "strength")


def check_login(config: CellConfig) -> None:
    """Refuse ``online`` without a key at once; wandb itself would wait for somebody to type one.

    The server is not asked whether the key is valid: one that is down must cost no cell.

    Raises:
        ConfigError: no API key in the environment, in W&B's settings or in netrc; settings that W&B refuses; or
            WANDB_DISABLED, which says otherwise.
    """
    mode = config.tracking.wandb.mode
    if mode != "disabled" and os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        raise ConfigError(f"WANDB_DISABLED is set, but tracking.wandb.mode={mode}: unset it, or say disabled")
    if mode != "online":
        return
    import wandb

    # wandb.login(prompt=False) would ask the server, for as long as it takes.
    try:
        settings = wandb.setup().settings
    except (ValueError, wandb.errors.Error) as error:  # such as WANDB_MODE= in the environment
        raise ConfigError(
            f"tracking.wandb.mode=online: W&B refuses its settings ({' '.join(str(error).split())})"
        ) from error
    if not (settings.api_key or settings.identity_token_file or _has_netrc_key(settings.base_url)):
        raise ConfigError(
            "tracking.wandb.mode=online: no API key; run `wandb login`, set WANDB_API_KEY, or use "
            "tracking.wandb.mode=offline and `wandb sync` later"
        )


def _has_netrc_key(base_url: str) -> bool:
    """Whether ``wandb login`` has left a key for this server where it leaves them."""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(base_url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_config(config: CellConfig) -> dict[str, Any]:
    named = {"variant": config.variant, "strength": config.strength}
    trained_elsewhere = {"loss": None, "beta": None} if config.external is not None else {}
    return asdict(config) | named | trained_elsewhere


class Tracker:
    """One W&B run for one cell, a sink of its folder; every method is safe to call whatever the state of W&B."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._run: Any = None

    def start(self, recorded: "Recorded") -> None:
        """Open the run. An offline one cannot be taken up again: it is written anew from what is on disk."""
        if self._cell.config.tracking.wandb.mode == "disabled":
            return
        self._guarded(self._start)
        if self._cell.config.tracking.wandb.mode == "offline":
            self.log_steps(recorded.steps)
            for row in recorded.records:
                self._log(row)

    def _start(self) -> None:
        import wandb  # half a second; paid only where it is used

        config, settings = self._cell.config, self._cell.config.tracking.wandb
        if settings.mode == "offline":
            shutil.rmtree(self._cell.directory / WANDB_DIR, ignore_errors=True)
        run = wandb.init(
            mode=cast(Literal["offline", "online"], settings.mode),
            project=settings.project,
            entity=settings.entity,
            dir=str(self._cell.directory),
            id=self._cell.id,
            name=self._cell.name,
            group=config.sweep,
            config=_run_config(config),
            # Without this, all cells of a worker would end up in its first run.
            reinit="finish_previous",
            resume="allow" if settings.mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=_SECONDS_TO_ANSWER,
                finish_timeout=_SECONDS_TO_ANSWER,
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

        if self._run is not None:
            self._guarded(send)

    def log(self, record: CheckpointRecord) -> None:
        """Mirror one checkpoint record; the last one stays as the run's summary."""
        self._log(asdict(record))

    def _log(self, row: Mapping[str, Any]) -> None:
        metrics = {key: value for key, value in row.items() if key in _CHARTED and value is not None}
        frontier = {"frontier/gold": row["gold"], "frontier/win_rate": row["win_rate"]}
        facts = {key: row[key] for key in (*_PROVENANCE, "loss", "beta")}

        def send() -> None:
            self._run.log({**metrics, **frontier})
            self._run.summary.update({**metrics, **facts})

        if self._run is not None:
            self._guarded(send)

    def finish(self, exit_code: int) -> None:
        """End the run; without this the next cell of the worker would write into it."""
        if (run := self._run) is not None:
            self._guarded(lambda: run.finish(exit_code=exit_code))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        # wandb raises its own errors, OSErrors and errors of its service; none may end a cell.
        except Exception as error:
            print(f"warning: W&B stopped for {self._cell.name}: {error}", file=sys.stderr)
            self._run = None
