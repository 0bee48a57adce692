"""KL-regularized policy gradient with a leave-one-out baseline (RLOO).

Ahmadian et al. 2024, arXiv 2402.14740, with the KL in the reward. What is maximized is E[r] − β KL(π‖π_ref), by

    R = r(x, y) − β (log π(y|x) − log π_ref(y|x))
    A_i = R_i − mean of the other R of the prompt
    minimize −mean A_i log π(y_i|x), R and A held fixed

The expected gradient is exactly that of −(E[r] − β KL), as the derivative of log π inside R has mean 0. r is the
labeller's score, in SD of π_ref's samples, so that β is in SD per nat.
"""

import torch
from torch import Tensor

from bench.config import CellConfig
from bench.data.judges import Judge
from bench.data.preferences import draw_prompts
from bench.methods.optimizer import OptimizerSteps, require_finite
from bench.methods.trainer import TrainingInputs
from bench.policies.policy import Policy
from bench.policies.scoring import response_logprobs
from bench.policies.spread import full
from bench.policies.tokens import collate
from bench.records import StepMetrics
from bench.seeding import generator_for, uniforms_for


def rloo_trainer(inputs: TrainingInputs) -> "RlooTrainer":
    """The trainer of a cell with method ``rloo``."""
    return RlooTrainer(inputs.policy, inputs.prompts, inputs.labeller, inputs.config)


def leave_one_out(regularized: Tensor) -> Tensor:
    """Each reward less the mean of the others of its prompt, [prompts, samples].

    >>> leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([[-3.0000, -1.5000,  4.5000]])
    """
    others = (regularized.sum(1, keepdim=True) - regularized) / (regularized.shape[1] - 1)
    return regularized - others


def surrogate(logp: Tensor, ref_logp: Tensor, reward: Tensor, beta: float) -> Tensor:
    """What is minimized, [prompts, samples]: its gradient is the estimate; its value means nothing.

    Args:
        logp, ref_logp: log π and log π_ref of each response in nats; the first with a gradient.
        reward: of each response, SD.
        beta: SD per nat.
    """
    regularized = reward - beta * (logp.detach() - ref_logp)
    return -leave_one_out(regularized) * logp


class RlooTrainer(OptimizerSteps):
    """AdamW on fresh samples of the policy, a new batch for every step; 2 × optim.batch_pairs responses each."""

    def __init__(self, policy: Policy, prompts: list[str], labeller: Judge, config: CellConfig) -> None:
        super().__init__(policy, config.optim)
        self._prompts, self._labeller, self._config = prompts, labeller, config

    @property
    def samples_drawn(self) -> int:
        """Those of every step."""
        return self.steps_done * 2 * self._optim.batch_pairs

    def preview(self) -> StepMetrics:
        """The first batch, without an update."""
        return self._measure(draws_of=1, step=0)

    def _gradient(self, step: int) -> StepMetrics:
        return self._measure(draws_of=step, step=step)

    def _measure(self, *, draws_of: int, step: int) -> StepMetrics:
        config, samples = self._config, self._config.rloo.samples
        responses = 2 * self._optim.batch_pairs
        drawn = draw_prompts(self._prompts, responses // samples, generator_for(config.seed, "rloo prompts", draws_of))
        prompts = [prompt for prompt in drawn for _ in range(samples)]
        prompt_ids = self._policy.encode(prompts)
        uniforms = uniforms_for(config.seed, "rloo", draws_of, count=responses, tokens=config.world.max_new_tokens)
        ids = self._policy.whole().sample(prompt_ids, uniforms=uniforms, batch_size=config.evaluation.batch_size)
        reward = torch.from_numpy(self._labeller.score(prompts, self._policy.decode(ids))).float()
        ref_logp = self._policy.reference().logprobs(prompt_ids, ids)
        self._policy.zero_grad()
        logps, ranks = [], self._policy.ranks
        # Pieces of whole prompts, as a baseline needs all samples of its prompt.
        own = torch.arange(responses).view(-1, samples)[ranks.part(len(drawn))].flatten()
        pieces = own.split(max(1, 2 * (self._optim.micro_batch_pairs or responses) // samples) * samples)
        for number, rows in enumerate(pieces, start=1):
            batch = collate([prompt_ids[i] for i in rows], [ids[i] for i in rows], pad_id=self._policy.pad_id)
            with self._policy.exchanging(now=number == len(pieces)):
                logp = response_logprobs(self._policy, batch).cpu()
                own_logp, reference, rewards = (
                    each.reshape(-1, samples) for each in (logp, ref_logp[rows], reward[rows])
                )
                loss = surrogate(own_logp, reference, rewards, config.beta).sum() / responses
                (ranks.size * loss).backward()  # which is averaged over ranks
            logps.append(logp.detach())
        norm = full(torch.nn.utils.clip_grad_norm_(list(self._policy.parameters()), self._optim.clip_norm))
        logp = torch.cat(ranks.gather(torch.cat(logps)))
        loss = -(reward - config.beta * (logp - ref_logp)).mean()
        measured = torch.stack([loss, norm.cpu(), reward.mean()]).tolist()
        require_finite(step, measured, measured[0], measured[1])
        return StepMetrics(step, measured[0], None, None, measured[1], self._rate(step), measured[2])
