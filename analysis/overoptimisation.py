"""Does gold rise, peak and fall with KL? Gao et al.'s forms against a monotone one."""

from dataclasses import dataclass

import pandas as pd

# d = √KL. Gao et al. 2023 (arXiv 2210.10760), section 3.1; `saturating` is ours: it rises for ever.
FORMS = {
    "best_of_n": "R = d (α − β d)",
    "rl": "R = d (α − β ln d)",
    "saturating": "R = a (1 − exp(−d / s))",
}


@dataclass(frozen=True)
class Overoptimisation:
    """Fits of gold against d = √KL, per loss.

    Attributes:
        fits: ``loss, form, first, first_low, first_high, second, second_low, second_high, kind, held_out_rmse,
            folds, chosen``; first and second are α, β (or a, s) in SD units and √nats; held_out_rmse in SD.
        curves: ``loss, form, kl, gold, chosen``; the fitted forms inside the data.
        peaks: one row per loss: ``loss, form, kl_peak, kl_peak_low, kl_peak_high, gold_peak, gold_peak_low,
            gold_peak_high, kl_max, inside, drop, drop_low, drop_high, drop_se, kind, note``; of the chosen form, NaN
            and a note ("no peak inside the data") where it has none up to kl_max. drop is gold at the smoothed
            frontier's peak minus gold at kl_max, free of the bias of picking the peak from the same seeds.
        warnings: sentences.
    """

    fits: pd.DataFrame
    curves: pd.DataFrame
    peaks: pd.DataFrame
    warnings: tuple[str, ...]
