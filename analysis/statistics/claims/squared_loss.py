"""C4: does a smaller μ-weighted squared loss E[ρ²] go with a smaller KL?

The claim denies an implication, so one clear counterexample supports it: two configurations of which the one with the
smaller E[ρ²] has the larger KL, over seeds, so that it is no accident of one run. That no pair was found is no evidence
for the implication; what speaks for it is a bound on how far KL can differ at equal E[ρ²].
"""

from dataclasses import asdict
from typing import Any

from analysis.statistics.claims.claim import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Claim, make_claim
from analysis.statistics.claims.rules import Rules
from analysis.statistics.configurations import DiscordantPair
from analysis.statistics.discordance import Discordance

QUANTITY = "KL of the configuration with the smaller E[ρ²] over KL of the other, clearest discordant pair"
QUANTITY_AT_EQUAL = "largest ratio of KL at equal E[ρ²], between two variants or steps"


def squared_loss_is_not_kl(discordance: Discordance, rules: Rules) -> Claim:
    """Verdict on C4."""
    found, equal = discordance.configurations, discordance.at_equal_rho
    words: dict[str, Any] = {"rule": _rule(rules), "numbers": _numbers(discordance)}
    shown: dict[str, Any]
    if (pair := found.clearest) is not None:
        shown = {"estimate": pair.kl_ratio, "low": pair.kl_ratio_low, "high": pair.kl_ratio_high, "kind": "seeds_only"}
        return make_claim("C4", SUPPORTED, _found(discordance, pair), quantity=QUANTITY, **words, **shown)
    sentence = (
        f"Of {found.compared:,} pairs of configurations, none has E[ρ²] and KL in opposite order beyond the scatter of "
        f"runs.{_policies(discordance)}"
    )
    if equal.ratios.empty:
        return make_claim("C4", INCONCLUSIVE, sentence, quantity=QUANTITY_AT_EQUAL, **words)
    sentence += f" {equal.sentence}"
    verdict = NOT_SUPPORTED if found.compared and equal.bound < rules.c4.kl_ratio else INCONCLUSIVE
    shown = {"estimate": equal.largest, "low": equal.low, "high": equal.high, "kind": "equal_rho"}
    return make_claim("C4", verdict, sentence, quantity=QUANTITY_AT_EQUAL, **words, **shown)


def _rule(rules: Rules) -> str:
    return (
        "Supported: over seeds some configuration (variant, strength, steps) has a smaller E[ρ²] and a larger KL than "
        f"another, by paired t tests with at most {rules.c4.false_discovery_rate:.0%} false discoveries expected. Not "
        "supported: none has, and KL at equal E[ρ²] differs between variants and steps by less than a factor of "
        f"{rules.c4.kl_ratio:g} (two one-sided tests at every point; all must pass, so no correction is due)."
    )


def _found(discordance: Discordance, pair: DiscordantPair) -> str:
    found = discordance.configurations
    return (
        f"Of {found.compared:,} pairs of configurations, {found.discordant:,} "
        f"({found.discordant / found.compared:.1%}) have E[ρ²] and KL in opposite order beyond the scatter of runs. "
        f"Clearest, in {pair.seeds} of {pair.of_seeds} seeds: {pair.variant_a} at "
        f"strength {pair.strength_a:g}, step {pair.step_a} has {pair.rho_sq_ratio:.2f} [{pair.rho_sq_ratio_low:.2f}, "
        f"{pair.rho_sq_ratio_high:.2f}] times the E[ρ²] of {pair.variant_b} at strength {pair.strength_b:g}, step "
        f"{pair.step_b}, and {pair.kl_ratio:.2f} [{pair.kl_ratio_low:.2f}, {pair.kl_ratio_high:.2f}] times its KL."
        f"{_policies(discordance)}"
    )


def _policies(discordance: Discordance) -> str:
    """What the single policies of one seed show, accidents of one run included."""
    if not discordance.tested:
        return ""
    compared, found = (int(discordance.pairs.set_index("pairs").loc["all", key]) for key in ("compared", "discordant"))
    return f" Of {compared:,} pairs of single policies of one seed, {found:,} have, beyond the noise of measurement."


def _numbers(discordance: Discordance) -> dict[str, Any]:
    return {
        "pairs": discordance.pairs.to_dict("records"),
        "by_seed": discordance.by_seed.to_dict("records"),
        "rank_correlations": discordance.rank_correlations.to_dict("records"),
        "at_equal_rho_sq": discordance.at_equal_rho.ratios.to_dict("records"),
        "configurations": asdict(discordance.configurations),
    }
