"""Confirmatory or exploratory: whether a sweep is the one that the rules were made for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from analysis.data.settings import made_with
from analysis.data.sweep import Sweep
from analysis.statistics.claims.rules import Rules

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"


@dataclass(frozen=True)
class Standing:
    """What verdicts may be cited as.

    Attributes:
        status: confirmatory | exploratory.
        why: one sentence; of an exploratory sweep, the first thing that differs from the rules.
        rules: name of the rules and their digest.
    """

    status: str
    why: str
    rules: str


def standing_of(sweep: Sweep, rules: Rules, *, changed: str = "") -> Standing:
    """Compare a sweep's plan, settings and states with the rules.

    Args:
        changed: what the analysis itself does otherwise than the rules say, in words.
    """
    named = f"{rules.name} ({rules.digest})"
    first = changed or next(_mismatches(sweep, rules), "")
    if first:
        return Standing(EXPLORATORY, first, named)
    return Standing(CONFIRMATORY, f"Cells, settings and seeds are those that {rules.name} names.", named)


def _mismatches(sweep: Sweep, rules: Rules) -> Iterator[str]:
    named = rules.sweep
    if named is None:
        yield f"{rules.name} names no sweep."
        return
    expected = set(product(named.variants, map(float, named.strengths), named.seeds))
    columns = [sweep.cells[key] for key in ("variant", "strength", "seed")]
    planned = [(variant, float(strength), int(seed)) for variant, strength, seed in zip(*columns, strict=True)]
    there = set(planned)
    if missing := sorted(expected - there):
        yield f"{len(missing)} of the {len(expected)} cells that {rules.name} names are not planned, such as " + _cell(
            missing[0], sweep.strength_name
        )
    if further := sorted(there - expected):
        yield f"{len(further)} planned cells are not among those that {rules.name} names, such as " + _cell(
            further[0], sweep.strength_name
        )
    if len(planned) > len(there):
        yield f"{len(planned) - len(there)} planned cells repeat a variant, strength and seed."
    if len(sweep.unfinished):
        yield f"{len(sweep.unfinished)} of {len(sweep.cells)} planned cells are not finished."
    yield from _other_settings(sweep.plan, named.settings, rules.name)
    for key, value in named.fingerprints.items():
        if (seen := sweep.fingerprint(key)) != value:
            yield f"{key} is {seen or 'not recorded'}; {rules.name} has {value}."
    if (commits := sweep.checkpoints["git_commit"].nunique()) > 1:
        yield f"Cells were made with {commits} versions of the code."


def _cell(cell: tuple[str, float, int], strength_name: str) -> str:
    return f"{cell[0]} at {strength_name} = {cell[1]:g}, seed {cell[2]}."


def _other_settings(plan: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> Iterator[str]:
    if settings and not plan["jobs"]:
        yield "The plan does not say with what settings the cells were made."
        return
    for cell, made in made_with(plan):
        sections = {key.split(".")[0] for key in made}
        for key, value in settings.items():
            if key.split(".")[0] not in sections and "." in key:  # a plan from before there was the section
                continue
            if key not in made or made[key] != value:
                seen = repr(made[key]) if key in made else "not in the plan"
                yield f"{key} is {seen} for {cell}; {name} has {value!r}."
                return
