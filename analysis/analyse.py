"""Everything that this package computes for one sweep at one setting, in one call."""

from dataclasses import dataclass

from analysis.best_of_n import Ceiling
from analysis.claims import Claim
from analysis.frontier import Frontiers
from analysis.load import Sweep
from analysis.optimal_beta import OptimalBetas
from analysis.overoptimisation import Overoptimisation


@dataclass(frozen=True)
class Analysis:
    """Results for one sweep; `ceiling` is None when the sweep has no reference pool."""

    sweep: Sweep
    frontiers: Frontiers
    optimal_betas: OptimalBetas
    overoptimisation: Overoptimisation
    ceiling: Ceiling | None
    claims: tuple[Claim, ...]
    warnings: tuple[str, ...]


# To come: analyse(sweep: Sweep, rng: np.random.Generator, *, predictions: pd.DataFrame | None = None) -> Analysis,
# claims.write_claims(claims, path), tables.{cell_table,optimal_beta_table,frontier_table}(...) -> DataFrame.
