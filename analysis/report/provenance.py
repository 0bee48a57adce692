"""What was run, in one line and in full."""

import json

import pandas as pd

from analysis.statistics.analyze import Analysis


def headline(analysis: Analysis) -> str:
    """What was run, in one line."""
    sweep = analysis.sweep
    states = sweep.cells["state"].value_counts()
    counts = [
        f"{states[state]} {state}" for state in ("failed", "running", "interrupted", "missing") if state in states
    ]
    name, values = sweep.strength_name, sorted(analysis.optimal_betas.cells["strength"].unique())
    span = (
        [f"{len(values)} {name} from {values[0]:g} to {values[-1]:g}"]
        if len(values) > 1
        else [f"{name} = {value:g} only" for value in values]
    )
    return " · ".join([
        f"{states.get('done', 0):,} of {len(sweep.cells):,} cells done",
        *(counts or ["none failed or missing"]),
        f"world {sweep.checkpoints['world'].iloc[0]}",
        _count(len(sweep.variants), "variant", "variants"),
        *span,
        _count(len(sweep.seeds), "seed", "seeds"),
        f"{len(sweep.checkpoints):,} checkpoints",
    ])  # fmt: skip


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def provenance(analysis: Analysis) -> list[tuple[str, str]]:
    sweep = analysis.sweep
    checkpoints = sweep.checkpoints
    versions = {json.dumps(value, sort_keys=True) for value in checkpoints["versions"]}
    rows = [
        ("git commit", ", ".join(sorted(checkpoints["git_commit"].unique()))),
        ("gold model", sweep.fingerprint("gold_model")),
        ("preference data", sweep.fingerprint("preferences") or "none"),
        ("reference samples", sweep.fingerprint("reference")),
        ("labels", _label_words(checkpoints)),
        ("learning rate", ", ".join(f"{lr:g}" for lr in sorted(checkpoints["lr"].dropna().unique())) or "none"),
        ("training and evaluation", f"{sweep.final['wall_s'].sum() / 60:.1f} minutes summed over cells"),
        ("records", str(sweep.path)),
    ]  # fmt: skip
    for number, text in enumerate(sorted(versions)):
        name = "versions" if len(versions) == 1 else f"versions, set {number + 1}"
        rows.append((name, ", ".join(f"{package} {version}" for package, version in json.loads(text).items())))
    return rows


def _label_words(checkpoints: pd.DataFrame) -> str:
    labeled = checkpoints.dropna(subset="label_rule")
    if labeled.empty:
        return "none"
    rules = ", ".join(labeled["label_rule"].unique())
    return f"{rules}, following the gold order with probability {labeled['label_probability'].mean():.3g}"
