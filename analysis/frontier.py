"""Gold reward as a function of KL: curves, budgets, areas, Pareto sets and differences between losses."""

from dataclasses import dataclass

import pandas as pd

KL_BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0)  # nats
EQUIVALENCE_MARGIN = 0.1  # SD of π_ref's gold scores


@dataclass(frozen=True)
class Frontiers:
    """Frontiers of all losses of a sweep; KL in nats, gold in SD units.

    Attributes:
        curves: ``loss, kl, gold, gold_low, gold_high, gold_se, kind``; pointwise band, 80 KLs per loss equally spaced
            in √KL between the smallest and the largest KL that the loss covers (nothing is extrapolated).
        budgets: ``loss, kl, covered, gold, gold_low, gold_high, gold_se, kind``; one row per loss and KL budget,
            NaN where not covered.
        areas: ``loss, kl_max, area, area_low, area_high, area_se, mean_gold, mean_gold_low, mean_gold_high,
            mean_gold_se, kind``; ∫ gold dKL from 0 to `common_kl` (SD · nats), and that divided by `common_kl`.
        pairwise: ``loss_a, loss_b, kl, difference, difference_low, difference_high, difference_se, kind, verdict``;
            gold of a minus gold of b at a KL budget that both cover, simultaneous over all rows; verdict is
            equivalent (interval inside ±margin) | different (interval outside ±margin) | unclear.
        points: ``loss, beta, step, is_final, seeds, kl, gold, gold_se, pareto, pareto_overall``; checkpoints averaged
            over seeds; pareto: no other point of the same loss (of any loss) has both smaller KL and larger gold.
        common_kl: largest KL covered by every loss.
        margin: the equivalence margin of `pairwise`.
        smoother: one sentence about the smoother, for captions.
        warnings: sentences.
    """

    curves: pd.DataFrame
    budgets: pd.DataFrame
    areas: pd.DataFrame
    pairwise: pd.DataFrame
    points: pd.DataFrame
    common_kl: float
    margin: float
    smoother: str
    warnings: tuple[str, ...]
