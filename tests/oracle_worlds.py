"""Oracle worlds of a dozen responses, loaded, with a policy that has moved away from its reference."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.oracle.exact import ExactWorld, exact_world
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.worlds import oracle, read_world
from gold_rm.reward_model import GoldModel, Standardization, load_gold_model

SMALL = oracle.Params(tokens=4, length=2, contexts=2, prompts=8)  # 13 responses


class SmallWorld(NamedTuple):
    """A built world, enumerated on its evaluation prompts; gold has mean 0 and SD 1 under π_ref, exactly."""

    policy: Policy
    gold: GoldModel
    standardization: Standardization
    prompts: list[str]
    world: ExactWorld

    def moved(self, size: float = 0.6, seed: int = 1) -> Policy:
        """A trainable copy with noise on every weight."""
        policy = self.policy.trainable()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.parameters():
                spread = size * parameter.std(correction=0).clamp(min=0.1)
                parameter += spread * torch.randn(parameter.shape, generator=generator)
        return policy

    @torch.no_grad()
    def moved_logprobs(self) -> Tensor:
        """Exact log-probs of `moved`, [contexts, responses]."""
        return self.world.logprobs(self.moved())


def build_small_world(directory: Path, params: oracle.Params = SMALL, **changes) -> SmallWorld:
    """Build the world of `params`, with `changes`, in an empty directory."""
    params = replace(params, **changes)
    oracle.build(params, directory, lambda message: None)
    files = read_world(directory)
    policy, gold = load_policy(files.policy_dir), load_gold_model(files.gold_dir)
    raw = exact_world(policy, gold, Standardization(0.0, 1.0), files.eval_prompts, params.length)
    probability = raw.context_share[:, None] * raw.log_reference.exp()
    mean = float((probability * raw.gold).sum())
    sd = float((probability * (raw.gold - mean) ** 2).sum() ** 0.5)
    standardization = Standardization(mean, sd)
    world = exact_world(policy, gold, standardization, files.eval_prompts, params.length)
    return SmallWorld(policy, gold, standardization, files.eval_prompts, world)
