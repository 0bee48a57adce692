"""What π_ref's own samples allow: best-of-n and the KL-constrained optimum, the ceiling of every frontier."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Ceiling:
    """Best-of-n and the KL-constrained optimum from one pool of N reference samples per prompt.

    Attributes:
        best_of_n: ``n, kl, gold, gold_low, gold_high, gold_se, kind``; kl is the bound ln n − (n − 1)/n in nats.
        tilted: ``temperature, kl, kl_low, kl_high, kl_se, gold, gold_low, gold_high, gold_se, ess, trusted, kind``;
            π* ∝ π_ref exp(gold / temperature); ess is the mean effective sample size over prompts.
        shares: ``loss, kl, gold, ceiling, share, share_low, share_high, share_se, kind``; frontier's gold over the
            ceiling's at KL budgets that both cover (the ceiling only where trusted).
        pool_size: N.
        warnings: sentences.
    """

    best_of_n: pd.DataFrame
    tilted: pd.DataFrame
    shares: pd.DataFrame
    pool_size: int
    warnings: tuple[str, ...]
