"""What ``python -m bench.evaluate`` does with a sweep: its saved policies again, or another tool's policy in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cells.again import Judge, measure_again, saved_policies, write_evaluations
from bench.cells.cell import Cell
from bench.cells.inputs import InputCache
from bench.checked import ConfigError
from bench.config import EXTERNAL, cell_config
from bench.data.reference_samples import load_reference
from bench.policies.load import load_policy, resolve_device
from bench.sweep.compose import Job
from bench.sweep.plan import read_jobs
from bench.sweep.single import run_cell_here
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.reward_model import load_gold_model


def evaluate_again(
    sweep_dir: Path,
    console: Console,
    *,
    cell: str | None = None,
    prompts: int | None = None,
    samples_per_prompt: int = 1,
    gold: Path | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Measure the saved policies of a sweep again and write evaluations.jsonl; returns its new rows.

    Raises:
        ConfigError: no such cell, no saved policies, or a number of prompts that the sweep does not have.
        GoldModelError: `gold` cannot be loaded.
    """
    jobs = {job.name: (job, prepared) for job, prepared in read_jobs(sweep_dir)[0]}
    if cell is not None and cell not in jobs:
        raise ConfigError(f"cell={cell}: not in {sweep_dir}; its cells are {', '.join(list(jobs)[:5])} …")
    found = list(saved_policies(sweep_dir, list(jobs) if cell is None else [cell]))
    if not found:
        raise ConfigError(f"{sweep_dir}: no saved policies; train with save=final, save=best or save=all")
    cache, rows = InputCache(), []
    judges: dict[Any, Judge] = {}
    for saved in found:
        job, prepared = jobs[saved.cell]
        config = replace(job.config, device=resolve_device(device))
        shared = cache.shared(prepared, config)
        if prepared not in judges:
            other = None if gold is None else load_gold_model(gold, device=config.device)
            judges[prepared] = (
                Judge(shared.gold, shared.standardization)
                if other is None
                else Judge.on(load_reference(prepared.reference.path), other)
            )
        judge = judges[prepared]
        policy = load_policy(saved.directory, device=config.device, logits_mib=config.logits_mib)
        chosen = len(shared.evaluation.prompts) if prompts is None else prompts
        measured = measure_again(
            policy.against(shared.reference), shared, judge, seed=config.seed, step=saved.step,
            max_new_tokens=config.world.max_new_tokens, batch_size=config.evaluation.batch_size, prompts=chosen,
            samples_per_prompt=samples_per_prompt,
        )  # fmt: skip
        rows.append({
            "cell": saved.cell, "step": saved.step, "method": config.method, "variant": config.variant,
            "strength": config.strength, "seed": config.seed, "prompts": chosen,
            "samples_per_prompt": samples_per_prompt,
            "gold_model": prepared.gold.fingerprint if gold is None else judge.gold.fingerprint, **measured,
        })  # fmt: skip
        console.print(f"measured {saved.cell}, step {saved.step}", highlight=False, soft_wrap=True)
    write_evaluations(sweep_dir, rows)
    return rows


def import_policy(
    job: Job, console: Console, *, policy: str, variant: str, strength: float = 1.0, step: int = 1
) -> int:
    """Measure a policy that was trained elsewhere as a cell of a sweep, which is made if it is not there.

    Args:
        job: the other settings, as of a cell.
        strength: of its regularization, where the report places it.
        step: optimizer steps behind it, for the record.
    Returns:
        Exit status: 0 if the cell is done.
    Raises:
        ConfigError: no model there, a setting that cannot be used, or a cell of that name with other settings.
    """
    if step < 1:
        raise ConfigError(f"step={step}: must be 1 or more; step 0 is π_ref")
    if not (Path(policy) / "config.json").is_file():
        raise ConfigError(f"policy={policy}: no config.json there; a Hugging Face model directory is needed")
    external = {
        "policy": str(Path(policy).absolute()), "fingerprint": fingerprint_of_model(Path(policy)), "variant": variant,
        "strength": float(strength),
    }  # fmt: skip
    settings = {**job.settings, "method": EXTERNAL, "external": external}
    settings["optim"] = {**settings["optim"], "steps": step}
    return run_cell_here(Cell.of(cell_config(settings)), console)
