"""The mirror of a cell's records in Weights & Biases; the only module that knows wandb.

The records on disk are the truth. Whatever fails here is reported once and costs the cell nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from bench.config import CellConfig, ConfigError
from bench.records import CheckpointRecord

WANDB_DIR = "wandb"
# Keys that say what a record is or where it came from; they belong into the run's config, not into its charts.
_NOT_METRICS = {
    "schema", "cell_id", "sweep", "world", "loss", "beta", "lr", "seed", "label_rule",
    "config", "gold_model", "preferences", "reference", "git_commit", "versions",
}  # fmt: skip


def check_login(config: CellConfig) -> None:
    """Refuse ``online`` without a key at once; wandb itself would wait for somebody to type one.

    The server is not asked whether the key is valid: one that is down must cost no cell.

    Raises:
        ConfigError: no API key in the environment, in W&B's settings or in netrc.
    """
    if config.tracking.wandb.mode != "online":
        return
    import wandb
    from wandb.sdk.lib import wbauth  # wandb.login(prompt=False) would ask the server, for as long as it takes

    settings = wandb.setup().settings
    if not (settings.api_key or settings.identity_token_file or wbauth.read_netrc_auth(host=settings.base_url)):
        raise ConfigError(
            "tracking.wandb.mode=online: no API key; run `wandb login`, set WANDB_API_KEY, or use "
            "tracking.wandb.mode=offline and `wandb sync` later"
        )


class Tracker:
    """One W&B run for one cell; every method is safe to call whatever the state of W&B."""

    def __init__(self, config: CellConfig, cell: str, cell_dir: Path, run_id: str) -> None:
        self._run: Any = None
        self._cell = cell
        if config.tracking.wandb.mode != "disabled":
            self._guarded(lambda: self._start(config, cell_dir, run_id))

    def _start(self, config: CellConfig, cell_dir: Path, run_id: str) -> None:
        import wandb  # half a second; paid only where it is used

        settings = config.tracking.wandb
        run = wandb.init(
            mode=cast(Literal["offline", "online"], settings.mode),
            project=settings.project,
            entity=settings.entity,
            dir=str(cell_dir),
            id=run_id,
            name=self._cell,
            group=config.sweep,
            config=asdict(config),
            # Without this, all cells of a worker would end up in its first run.
            reinit="finish_previous",
            resume="allow" if settings.mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=60),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        run.define_metric("frontier/gold", step_metric="kl")
        run.define_metric("frontier/win_rate", step_metric="kl")
        self._run = run

    def log(self, record: CheckpointRecord) -> None:
        """Mirror one checkpoint record; the last one stays as the run's summary."""
        metrics = {key: value for key, value in asdict(record).items() if key not in _NOT_METRICS}
        frontier = {"frontier/gold": record.gold, "frontier/win_rate": record.win_rate}
        provenance = {key: getattr(record, key) for key in ("gold_model", "preferences", "reference", "git_commit")}

        def send() -> None:
            self._run.log({**metrics, **frontier})
            self._run.summary.update({**metrics, **provenance, "loss": record.loss, "beta": record.beta})

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
            print(f"warning: W&B stopped for {self._cell}: {error}", file=sys.stderr)
            self._run = None
