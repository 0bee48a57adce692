"""The paper's claims C1 to C4 and what a sweep says about them.

A module per claim; the rules, with their reasons, are in conf/claims.yaml and read by `rules`. What stands against any
verdict (too few seeds, missing cells, copies, constant gold) is found by `evidence` and makes all four inconclusive.
"""

from dataclasses import replace

from analysis import RULES_FILE
from analysis.statistics.claims.beta_moves import beta_moves
from analysis.statistics.claims.claim import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    STATEMENTS,
    SUPPORTED,
    Claim,
    write_claims,
)
from analysis.statistics.claims.evidence import Evidence, gather_evidence
from analysis.statistics.claims.rise_and_fall import rise_and_fall
from analysis.statistics.claims.rules import RefusedRules, Rules, read_rules
from analysis.statistics.claims.same_frontier import same_frontier
from analysis.statistics.claims.squared_loss import squared_loss_is_not_kl
from analysis.statistics.claims.standing import CONFIRMATORY, EXPLORATORY, Standing, standing_of
from analysis.statistics.discordance import Discordance
from analysis.statistics.frontier import Frontiers
from analysis.statistics.optimal_beta import OptimalBetas
from analysis.statistics.overoptimization import Overoptimization

__all__ = [
    "CONFIRMATORY", "EXPLORATORY", "INCONCLUSIVE", "NOT_SUPPORTED", "RULES_FILE", "STATEMENTS", "SUPPORTED", "Claim",
    "Evidence", "RefusedRules", "Rules", "Standing", "assess_claims", "gather_evidence", "read_rules", "standing_of",
    "write_claims",
]  # fmt: skip


def assess_claims(
    frontiers: Frontiers,
    betas: OptimalBetas,
    overoptimization: Overoptimization,
    discordance: Discordance,
    evidence: Evidence,
    rules: Rules,
) -> tuple[Claim, ...]:
    """Verdicts on C1 to C4, in this order."""
    claims = (
        same_frontier(frontiers.smoothed, evidence, rules),
        beta_moves(betas, evidence, rules),
        rise_and_fall(frontiers.smoothed, overoptimization, evidence, rules),
        squared_loss_is_not_kl(discordance, rules),
    )
    return tuple(_gated(claim, evidence.obstacles) for claim in claims)


def _gated(claim: Claim, obstacles: tuple[str, ...]) -> Claim:
    """Nothing is concluded where something stands against it, whatever the numbers say."""
    if not obstacles:
        return claim
    sentence = f"No verdict, as {'; '.join(obstacles)}. The numbers so far: {claim.sentence}"
    numbers = claim.numbers | {"obstacles": list(obstacles)}
    return replace(claim, verdict=INCONCLUSIVE, sentence=sentence, numbers=numbers)
