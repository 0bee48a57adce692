"""All of it for one sweep."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.frontier import Frontiers
from analysis.statistics.overoptimization import Overoptimization
from analysis.statistics.practice.choosing import compare_rules
from analysis.statistics.practice.length import control_length, implicit_reward
from analysis.statistics.practice.noise import detectable, split_variance, visible_at_equal_kl
from analysis.statistics.practice.policies import read_policies
from analysis.statistics.practice.residuals import residuals
from analysis.statistics.practice.runs import below_reference, probability_of_improvement


@dataclass(frozen=True)
class Practice:
    """Frames, each described by the function that makes it.

    Attributes:
        choosing: `choosing.compare_rules`.
        variance, detectable, visible: `noise.split_variance`, `noise.detectable`, `noise.visible_at_equal_kl`.
        length, implicit: `length.control_length`, `length.implicit_reward`; length is empty without reference samples.
        below: `runs.below_reference`.
        improvement: `runs.probability_of_improvement`.
        residuals: `residuals.residuals`.
    """

    choosing: pd.DataFrame
    variance: pd.DataFrame
    detectable: pd.DataFrame
    visible: pd.DataFrame
    length: pd.DataFrame
    implicit: pd.DataFrame
    below: pd.DataFrame
    improvement: pd.DataFrame
    residuals: pd.DataFrame


def study_practice(
    sweep: Sweep, rng: np.random.Generator, frontiers: Frontiers, overoptimization: Overoptimization
) -> Practice | None:
    """Compute everything; None without trained policies that have samples of the same prompts."""
    policies = read_policies(sweep)
    if policies is None:
        return None
    components = split_variance(policies)
    reference = sweep.reference
    return Practice(
        compare_rules(policies),
        components,
        detectable(policies, components),
        visible_at_equal_kl(frontiers.pairwise, policies.rows["seed"].nunique()),
        pd.DataFrame() if reference is None else control_length(policies, reference),
        implicit_reward(sweep, policies),
        below_reference(policies.rows),
        probability_of_improvement(policies, rng),
        residuals(policies.rows, frontiers.smoothed, overoptimization.fits),
    )
