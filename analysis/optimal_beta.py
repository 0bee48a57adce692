"""Which β is best for each loss, and how β must move between losses."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class OptimalBetas:
    """Optimal β of all losses of a sweep, by final gold; β dimensionless, KL in nats, gold in SD units.

    Attributes:
        table: one row per loss: ``loss, betas, seeds, grid_beta, grid_gold, grid_gold_sd`` (over seeds; NaN with one),
            ``grid_kl, edge`` (low | high | none: where the grid's best β lies), ``peak_beta, peak_beta_low,
            peak_beta_high, peak_gold, peak_gold_low, peak_gold_high, kind, note``; peak_* by the smooth fit, NaN with
            a note where the fit has no peak inside the grid. An infinite peak_beta_high or a zero peak_beta_low
            says that the interval leaves the grid.
        cells: ``loss, beta, seeds, gold, gold_low, gold_high, gold_se, gold_sd, kl, kl_low, kl_high, kl_se, kind``;
            final checkpoints averaged over seeds.
        curves: ``loss, beta, gold, gold_low, gold_high, gold_se, kind``; the smooth fit in log β, inside the grid.
        at_kl: ``loss, kl, beta, beta_low, beta_high, kind``; β whose final KL is a budget, covered budgets only.
        ratios: ``loss, at, kl, ratio, ratio_low, ratio_high, kind, local, global_``; β(loss) / β(baseline); at is
            ``peak`` (kl NaN), ``kl`` (one row per budget that both cover) or ``kl_mean`` (geometric mean over those
            budgets); local and global_ are the theory's predictions, NaN when none are given.
        baseline: the loss that `ratios` compares with.
        warnings: sentences, the edge warnings among them.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    curves: pd.DataFrame
    at_kl: pd.DataFrame
    ratios: pd.DataFrame
    baseline: str
    warnings: tuple[str, ...]
