"""What ``python -m bench.evaluate`` does with a sweep: its saved policies again, or another tool's policy in it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cells.again import SavedPolicy, ScaledGold, measure_again, saved_policies, write_evaluation
from bench.cells.cell import Cell
from bench.cells.imported import load_imported
from bench.cells.inputs import InputCache
from bench.cells.settings import flat
from bench.checked import ConfigError, nearest
from bench.config import EXTERNAL, cell_config
from bench.data.prepared import Prepared
from bench.data.reference_samples import load_reference
from bench.losses import LOSSES
from bench.methods import METHODS
from bench.policies.directories import fingerprint_of_policy
from bench.policies.load import resolve_device
from bench.records import PLAN_FILE, read_plan
from bench.sweep.compose import Job
from bench.sweep.driver import typed_command
from bench.sweep.plan import read_jobs
from bench.sweep.single import prepare_here, run_here
from gold_rm.reward_model import load_gold_model

# What a policy is measured on and by; one sweep has one of each, and its report refuses more.
_MEASURED_ON = ("world", "policy", "labels", "pairs", "evaluation", "logits_mib", "artifacts_dir")
_MOVES_NO_MEASUREMENT = ("pairs.per_cell", "evaluation.checkpoints", "evaluation.batch_size", "artifacts_dir")


def evaluate_again(
    sweep_dir: Path,
    console: Console,
    *,
    cell: str | None = None,
    prompts: int | None = None,
    samples_per_prompt: int | None = None,
    gold: Path | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Measure the saved policies of a sweep again and write evaluations.jsonl; returns its new rows.

    Args:
        prompts, samples_per_prompt: as many as the cell was evaluated on in the end, unless said.
    Raises:
        ConfigError: no such cell, no saved policies, or a number of prompts that the sweep does not have.
        GoldModelError: `gold` cannot be loaded.
    """
    jobs = {job.name: (job, prepared) for job, prepared in read_jobs(sweep_dir)}
    if cell is not None and cell not in jobs:
        raise ConfigError(f"cell={cell}: not in {sweep_dir}; did you mean {nearest(cell, list(jobs))!r}?")
    found = list(saved_policies(job for job, _ in jobs.values() if cell in (None, job.name)))
    if not found:
        raise ConfigError(
            f"{sweep_dir if cell is None else sweep_dir / cell}: no saved policies; save=final, best or all keeps them "
            "while a cell trains (in another sweep=NAME, where it is done already)"
        )
    device, cache, rows = resolve_device(device), InputCache(), []
    judges: dict[Prepared, ScaledGold] = {}
    for number, saved in enumerate(found, start=1):
        config, prepared = replace(saved.cell.config, device=device), jobs[saved.cell.name][1]
        shared = cache.shared(prepared, config)
        if prepared not in judges:
            judges[prepared] = (
                ScaledGold(shared.gold, shared.standardization, prepared.gold.fingerprint)
                if gold is None
                else ScaledGold.on(load_reference(prepared.reference.path), load_gold_model(gold, device=device))
            )
        measured = measure_again(
            saved.load(shared.reference, device=device), shared, judges[prepared], seed=config.seed, step=saved.step,
            max_new_tokens=config.world.max_new_tokens, batch_size=config.evaluation.batch_size, prompts=prompts,
            samples_per_prompt=samples_per_prompt or config.evaluation.samples_per_prompt,
        )  # fmt: skip
        rows.append(_about(saved) | measured)
        write_evaluation(sweep_dir, rows[-1])
        console.print(f"{number}/{len(found)}  {saved.cell.name}, step {saved.step}", highlight=False, soft_wrap=True)
    return rows


def _about(saved: SavedPolicy) -> dict[str, Any]:
    config = saved.cell.config
    return {
        "cell": saved.cell.name, "step": saved.step, "method": config.method, "variant": config.variant,
        "strength": config.strength, "seed": config.seed,
    }  # fmt: skip


def import_policy(
    job: Job, console: Console, *, policy: Path, variant: str, strength: float = 1.0, step: int = 1
) -> int:
    """Measure a policy that was trained elsewhere as a cell of a sweep, which is made if it is not there.

    Args:
        job: the other settings, as of a cell. Where none says what to measure on, those of the sweep count.
        policy: a model directory.
        strength: of its regularization, where the report places it.
        step: optimizer steps behind it, for the record.
    Returns:
        Exit status: 0 if the cell is done.
    Raises:
        ConfigError: a setting that cannot be used, a policy that cannot be measured, other data than the sweep's, or a
            cell of that name with other settings.
    """
    external = {
        "policy": str(policy.absolute()), "fingerprint": fingerprint_of_policy(policy), "variant": variant,
        "strength": float(strength),
    }  # fmt: skip
    settings = {key: value for key, value in job.settings.items() if key not in ("loss", "beta", "save", "resume")}
    settings |= {"method": EXTERNAL, "external": external, "optim": {"steps": step}}
    sweep_dir = Path(settings["runs_dir"]) / settings["sweep"]
    if (sweep_dir / PLAN_FILE).exists():
        settings |= _as_in_sweep(sweep_dir, settings, job.overridden)
    cell = Cell.of(cell_config(settings))
    _check_variant(variant, sweep_dir)
    prepared, cache = prepare_here(cell, console), InputCache()
    if not cell.is_finished:  # a policy that cannot be measured is refused here, and not planned
        load_imported(cell.config, cache.shared(prepared, cell.config).reference)
    # Reports say how a sweep was made, not what was added to it.
    return run_here(cell, prepared, cache, read_plan(sweep_dir)["command"] or typed_command(), console)


def _as_in_sweep(sweep_dir: Path, settings: dict[str, Any], overridden: tuple[str, ...]) -> dict[str, Any]:
    """What a sweep measures on, unless the command line says it too; then the two have to agree."""
    planned = asdict(read_jobs(sweep_dir)[0][0].config)
    theirs = {key: planned[key] for key in _MEASURED_ON}
    if not any(key.split(".")[0] in (*_MEASURED_ON, "experiment") for key in overridden):
        return theirs
    was, now = flat(theirs), flat(asdict(cell_config(settings)))
    if differing := [key for key in was if was[key] != now.get(key) and key not in _MOVES_NO_MEASUREMENT]:
        told = "; ".join(f"{key}: {was[key]!r} there, {now.get(key)!r} now" for key in differing[:3])
        raise ConfigError(
            f"{sweep_dir} is measured on other data ({told}): leave such settings out to take the sweep's, or use "
            "another sweep=NAME"
        )
    return {}


def _check_variant(variant: str, sweep_dir: Path) -> None:
    """Refuse a name under which other policies are trained: the report would draw both as one curve."""
    rows = read_plan(sweep_dir)["cells"]
    trained = {str(row["variant"]) for row in rows if row.get("method") != EXTERNAL}
    if variant in {*LOSSES, *METHODS, *trained}:
        raise ConfigError(f"variant={variant}: the name of what is trained here; choose another, such as my_{variant}")
