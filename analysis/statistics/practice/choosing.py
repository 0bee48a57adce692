"""Choosing a strength: what a rule gets that sees no gold, against a choice by gold, without the winner's curse.

The evaluation prompts are split in halves. The oracle chooses by gold on one half; what it and every other rule have
chosen is reported on the other half, both ways round, so that nobody is judged on the noise that made the choice.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from analysis.statistics.practice.policies import Policies, over_seeds

ORACLE = "gold on other prompts"
KL_BUDGETS = (1.0, 2.0, 5.0)  # nats
USUAL_BETA = 0.1  # the default of DPO implementations
COLUMNS = (
    "variant", "rule", "strength", "gold", "gold_low", "gold_high", "regret", "regret_low", "regret_high", "seeds",
    "kind",
)  # fmt: skip

Rule = Callable[[pd.DataFrame], int | None]


def _highest(column: str, sign: int) -> Rule:
    def choose(rows: pd.DataFrame) -> int | None:
        values = sign * rows[column].to_numpy(float)
        return None if np.isnan(values).any() else int(values.argmax())

    return choose


def _within_budget(kl: float) -> Rule:
    def choose(rows: pd.DataFrame) -> int | None:
        inside = rows["kl"].to_numpy() <= kl
        return int(np.where(inside, rows["kl"], -1.0).argmax()) if inside.any() else None

    return choose


def _usual(rows: pd.DataFrame) -> int | None:
    near = np.flatnonzero(np.isclose(rows["strength"], USUAL_BETA))
    return int(near[0]) if len(near) else None


RULES: dict[str, Rule] = {
    "lowest held-out loss": _highest("held_out_loss", -1),
    "highest pair accuracy": _highest("pair_accuracy", 1),
    **{f"largest KL up to {kl:g} nats": _within_budget(kl) for kl in KL_BUDGETS},
    "smallest strength": _highest("strength", -1),
    "largest strength": _highest("strength", 1),
    f"strength {USUAL_BETA:g}": _usual,
}


def compare_rules(policies: Policies) -> pd.DataFrame:
    """What each rule's choice among the strengths of one variant and seed is worth.

    Returns:
        COLUMNS: gold of the choice on prompts that did not choose it, and its regret, the oracle's gold minus that,
        with t intervals over seeds (paired; for these evaluation prompts); `strength` is the one that is chosen most
        often. A rule that cannot choose in some seed is left out.
    """
    rows = []
    for variant, part in policies.rows.groupby("variant", sort=False):
        seeds = [group for _, group in part.groupby("seed") if len(group) > 1]
        chosen = {ORACLE: [_oracle(policies, seed) for seed in seeds]}
        for name, rule in RULES.items():
            places = [place for seed in seeds if (place := rule(seed)) is not None]
            if len(places) == len(seeds):
                chosen[name] = [[place, place] for place in places]
        rows += list(_worth(str(variant), policies, seeds, chosen))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _oracle(policies: Policies, seed: pd.DataFrame) -> list[int]:
    """Choices by the first half of the prompts and by the second."""
    gold = policies.gold[seed.index]
    return [int(gold[:, half::2].mean(axis=1).argmax()) for half in (0, 1)]


def _worth(
    variant: str, policies: Policies, seeds: list[pd.DataFrame], chosen: dict[str, list[list[int]]]
) -> Iterator[tuple]:
    if not seeds:
        return
    gold = {
        rule: np.array([
            np.mean([policies.gold[seed.index[place], 1 - half :: 2].mean() for half, place in enumerate(places)])
            for seed, places in zip(seeds, choices, strict=True)
        ])
        for rule, choices in chosen.items()
    }  # fmt: skip
    for rule, values in gold.items():
        strengths = pd.Series([
            seed["strength"].iloc[place] for seed, places in zip(seeds, chosen[rule], strict=True) for place in places
        ])  # fmt: skip
        regret = (0.0, np.nan, np.nan) if rule == ORACLE else over_seeds(gold[ORACLE] - values)
        often = float(strengths.mode().iloc[0])
        yield variant, rule, often, *over_seeds(values), *regret, len(seeds), "seeds_only" if len(seeds) > 1 else "none"
