"""Online GPO: the same loss on pairs that are sampled from the policy itself every few steps, and labelled anew.

Tang et al. 2024 (arXiv 2402.05749, section 4): on the policy's own samples the μ-weighted squared loss ½ E[ρ²] pulls as
the KL does, its gradient being twice that of KL(π‖π_ref); on π_ref's samples it need not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from bench.config import CellConfig
from bench.data.judges import Judge
from bench.data.pairs import PreferencePairs
from bench.data.preferences import draw_prompts
from bench.methods.objective import Objective
from bench.methods.offline import OfflineTrainer, objective_of, offline_trainer
from bench.methods.trainer import Trainer, TrainingInputs
from bench.policies.policy import Policy
from bench.policies.tokens import SequenceBatch, TokenIds, collate
from bench.records import StepMetrics
from bench.seeding import generator_for, uniforms_for
from gold_rm.labeling import label_pairs

_MOST_ROUNDS = 20
_DRAWN, _BUFFER = "drawn", "pairs."


def online_trainer(inputs: TrainingInputs) -> Trainer:
    """The trainer of a cell with method ``online``; with ``online.every=null`` that of offline GPO."""
    if inputs.config.online.every is None:
        return offline_trainer(inputs)
    return OnlineTrainer(inputs.policy, inputs.prompts, inputs.labeller, objective_of(inputs), inputs.config)


class NothingToCompare(RuntimeError):
    """The policy's samples tie: it says one thing to every prompt, or the labeller tells its responses not apart."""


class _Kept(NamedTuple):
    """Pairs of one round that do not tie: token ids of prompts, chosen and rejected responses."""

    prompts: list[TokenIds]
    chosen: list[TokenIds]
    rejected: list[TokenIds]


class OnlineTrainer(OfflineTrainer):
    """AdamW on the mean of f(βρ), on pairs of the policy's own, `online.every` batches at a time."""

    def __init__(
        self, policy: Policy, prompts: list[str], labeller: Judge, objective: Objective, config: CellConfig
    ) -> None:
        assert config.online.every is not None
        self._prompts, self._labeller, self._config, self._every = prompts, labeller, config, config.online.every
        self._drawn = 0
        nothing = collate([[0]], [[]], pad_id=policy.pad_id)
        none = PreferencePairs(nothing, nothing, torch.zeros(1), torch.zeros(1))
        super().__init__(policy, none, objective, config.optim, seed=config.seed)

    @property
    def samples_drawn(self) -> int:
        """All that were sampled, those of dropped pairs included."""
        return self._drawn

    def preview(self) -> StepMetrics:
        """The first batch, without an update: the loss is f(0)."""
        pairs, _ = self._sample(after=0)
        return self._measure(pairs.take(torch.arange(self._optim.batch_pairs)), step=0)

    def _gradient(self, step: int) -> StepMetrics:
        batch = (step - 1) % self._every
        if batch == 0:
            self._pairs, drawn = self._sample(after=step - 1)
            self._drawn += drawn
        rows = torch.arange(self._optim.batch_pairs) + batch * self._optim.batch_pairs
        return self._measure(self._pairs.take(rows), step=step)

    def state_dict(self) -> dict[str, Tensor]:
        """That of offline GPO, and the pairs that the next steps take."""
        sides = {"chosen": self._pairs.chosen, "rejected": self._pairs.rejected}
        buffer = {f"{_BUFFER}{side}.{i}": t for side, batch in sides.items() for i, t in enumerate(batch)}
        buffer |= {f"{_BUFFER}ref_{side}": getattr(self._pairs, f"ref_logp_{side}") for side in sides}
        # Copies, as both sides are views of one tensor, which safetensors refuses.
        buffer = {name: tensor.clone() for name, tensor in buffer.items()}
        return super().state_dict() | buffer | {_DRAWN: torch.tensor(self._drawn)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        super().load_state_dict(state)
        chosen, rejected = (
            SequenceBatch(*(state[f"{_BUFFER}{side}.{i}"] for i in range(len(SequenceBatch._fields))))
            for side in ("chosen", "rejected")
        )
        self._pairs = PreferencePairs(chosen, rejected, state[f"{_BUFFER}ref_chosen"], state[f"{_BUFFER}ref_rejected"])
        self._drawn = int(state[_DRAWN])

    def _sample(self, *, after: int) -> tuple[PreferencePairs, int]:
        """Pairs for the next `online.every` steps from the policy as it is after `after` steps, and samples drawn.

        Raises:
            NothingToCompare: most pairs tie.
        """
        wanted, drawn = self._every * self._optim.batch_pairs, 0
        kept = _Kept([], [], [])
        for number in range(_MOST_ROUNDS):
            missing = wanted - len(kept.prompts)
            if missing <= 0:
                break
            for whole, part in zip(kept, self._round(missing, after, number), strict=True):
                whole.extend(part)
            drawn += 2 * missing
        if len(kept.prompts) < wanted:
            raise NothingToCompare(
                f"after step {after}: {len(kept.prompts)} of {drawn // 2} pairs of the policy's samples differ in the "
                f"score of {self._labeller.name}"
            )
        return self._collated(kept), drawn

    def _round(self, count: int, after: int, number: int) -> _Kept:
        config, seed = self._config, (self._config.seed, "online", after, number)
        prompts = draw_prompts(self._prompts, count, generator_for(*seed, "prompts"))
        prompt_ids = self._policy.encode(prompts)
        ids, scores, texts, policy = [], [], [], self._policy.whole()
        for side in ("a", "b"):
            uniforms = uniforms_for(*seed, side, count=count, tokens=config.world.max_new_tokens)
            ids.append(policy.sample(prompt_ids, uniforms=uniforms, batch_size=config.evaluation.batch_size))
            texts.append(self._policy.decode(ids[-1]))
            scores.append(torch.from_numpy(self._labeller.score(prompts, texts[-1])))
        labels = label_pairs(
            *scores, rule=config.labels.rule, temperature=config.labels.temperature,
            flip_rate=config.labels.flip_rate, generator=generator_for(*seed, "labels"),
        )  # fmt: skip
        kept = _Kept([], [], [])
        for i, a_wins in enumerate(labels.prefer_a.tolist()):
            # As in preference data: equal responses carry no signal, and a tie has no better one.
            if texts[0][i] == texts[1][i] or (config.labels.rule == "deterministic" and labels.tie[i]):
                continue
            kept.prompts.append(prompt_ids[i])
            kept.chosen.append(ids[1 - a_wins][i])
            kept.rejected.append(ids[int(a_wins)][i])
        return kept

    def _collated(self, kept: _Kept) -> PreferencePairs:
        count, reference = len(kept.prompts), self._policy.reference()
        both = collate(kept.prompts * 2, kept.chosen + kept.rejected, pad_id=self._policy.pad_id)
        logps = reference.logprobs(kept.prompts * 2, kept.chosen + kept.rejected)
        chosen, rejected = (
            SequenceBatch(*(tensor[part] for tensor in both)) for part in (slice(count), slice(count, None))
        )
        return PreferencePairs(chosen, rejected, logps[:count], logps[count:])
