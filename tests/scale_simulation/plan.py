"""The simulated sweep's plan, made as `python -m bench.train -m` makes it."""

import time
from pathlib import Path

from tiny_world import TinyWorld, write_tiny_world

_LOSSES, _SEEDS = "logistic,squared,hinge,exponential,savage", "0,1,2,3"
_CELLS_PER_BETA = 20


def overrides_of(root: Path, cells: int) -> list[str]:
    """Arguments of `bench.train` that name so many cells, a multiple of 20, of a sweep below `root`."""
    betas = ",".join(f"{number / 1000:g}" for number in range(1, cells // _CELLS_PER_BETA + 1))
    settings = _world(root).overrides(root / "runs", {"sweep": "s", "pairs.per_cell": 20})
    return ["-m", *settings, f"loss={_LOSSES}", f"beta={betas}", f"seed={_SEEDS}"]


def plan_sweep(root: Path, cells: int) -> None:
    """Compose, check, prepare and write the plan; print the seconds of each."""
    from bench.sweep.compose import compose_sweep
    from bench.sweep.driver import new_call, prepare_cells
    from bench.sweep.plan import plan_cells, read_planned, write_plan

    root.mkdir(parents=True, exist_ok=True)
    write_tiny_world(root / "world")
    marks = [time.perf_counter()]

    def lap() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    request = compose_sweep(overrides_of(root, cells))
    composed = lap()
    planned = plan_cells(request.jobs)
    checked = lap()
    prepared = prepare_cells(planned, lambda message: None)
    built = lap()
    write_plan(planned[0].sweep_dir, planned, prepared, ["simulated"], new_call(planned[0].sweep_dir))
    written = lap()
    read_planned(planned[0].sweep_dir)
    print(
        f"plan: composing {composed:.1f} s, checking {checked:.1f} s, preparing {built:.1f} s, "
        f"writing {written:.1f} s, reading {lap():.1f} s",
        flush=True,
    )


def _world(root: Path) -> TinyWorld:
    world = root / "world"
    return TinyWorld(world / "policy", world / "gold", world / "prompts.parquet", world / "artifacts")
