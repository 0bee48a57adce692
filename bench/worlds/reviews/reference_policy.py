"""Training π_ref: a small GPT-2 fitted to fresh reviews of the language by maximum likelihood."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from bench.checked import ConfigError
from bench.seeding import generator_for
from bench.worlds.reviews.language import EOS_ID, PAD_ID, VOCABULARY, Prompt, pad_reviews, sample_reviews
from bench.worlds.reviews.tokenizer import word_tokenizer
from gold_rm.threads import torch_threads

PROMPT_TOKENS = 4
_BUCKET = 16  # batches among which reviews are sorted by length, so that little is padded
_REPORTS = 5


@dataclass(frozen=True)
class PolicyParams:
    """Architecture and optimization of π_ref (AdamW, warm-up over a twentieth of the steps, cosine decay).

    Attributes:
        positions: tokens of a prompt and its longest response.
        threads: CPU threads while training; their number moves the rounding and so the weights.
    """

    layers: int = 2
    width: int = 64
    heads: int = 4
    positions: int = 48
    steps: int = 1000
    batch_reviews: int = 64
    lr: float = 6e-3
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "steps", "batch_reviews", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"world.params.policy.{name}={getattr(self, name)}: must be 1 or more")
        if self.width % self.heads:
            raise ConfigError(f"world.params.policy.width={self.width}: must be a multiple of heads={self.heads}")
        if self.positions <= PROMPT_TOKENS:
            raise ConfigError(f"world.params.policy.positions={self.positions}: a prompt alone has {PROMPT_TOKENS}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"world.params.policy.lr={self.lr}: must be a finite number above 0")


def train_reference_policy(
    prompts: Sequence[Prompt], params: PolicyParams, seed: int, directory: Path, progress: Callable[[str], None]
) -> None:
    """Fit a GPT-2 to `steps` batches of fresh reviews and write it with its tokenizer as an HF directory.

    Prompt tokens are not in the loss: π_ref is a model of responses only.
    """
    tokenizer = word_tokenizer()
    generator = generator_for(seed, "reference policy")
    drawn = torch.randint(len(prompts), (params.steps * params.batch_reviews,), generator=generator)
    works = [prompts[i] for i in drawn.tolist()]
    prompt_ids = tokenizer([work.text for work in works])["input_ids"]
    texts = [[*prompt, *review] for prompt, review in zip(prompt_ids, sample_reviews(works, generator), strict=True)]
    # Of the few reviews that are too long for the model, the beginning is learnt.
    token_ids = torch.from_numpy(pad_reviews(texts))[:, : params.positions]
    model = _new_model(params, seed)
    with torch_threads(params.threads):
        _fit(model, _batches(token_ids, params.batch_reviews, generator), params, progress)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _new_model(params: PolicyParams, seed: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_positions=params.positions, n_embd=params.width, n_layer=params.layers,
        n_head=params.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new in one fused kernel: a fifth of a step
        bos_token_id=None, eos_token_id=EOS_ID, pad_token_id=PAD_ID,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def _batches(token_ids: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Batches of reviews of like length, [reviews, tokens] each, in random order within a bucket."""
    lengths = (token_ids != PAD_ID).sum(-1)
    batches: list[Tensor] = []
    for start in range(0, len(token_ids), size * _BUCKET):
        bucket = torch.arange(start, min(start + size * _BUCKET, len(token_ids)))
        rows = bucket[lengths[bucket].argsort(stable=True)].split(size)
        for index in torch.randperm(len(rows), generator=generator).tolist():
            batches.append(token_ids[rows[index], : int(lengths[rows[index]].max())])
    return batches


def _fit(model: GPT2LMHeadModel, batches: list[Tensor], params: PolicyParams, progress: Callable[[str], None]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warmup = max(1, params.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.51 + 0.49 * math.cos(math.pi * step / params.steps))
    )
    tokens = sum(int((batch[:, PROMPT_TOKENS:] != PAD_ID).sum()) for batch in batches)
    tokens_per_review = tokens / sum(map(len, batches))
    model.train()
    for step, batch in enumerate(batches, start=1):
        # Per review, not per token of the batch: batches hold reviews of one length, and a mean over their tokens
        # would give short reviews more weight.
        loss = response_nats(model, batch) / (len(batch) * tokens_per_review)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % -(-len(batches) // _REPORTS) == 0 or step == len(batches):
            progress(f"reference policy: step {step} of {len(batches)}, loss {loss.item():.3f}")
    model.eval()


def response_nats(model: GPT2LMHeadModel, batch: Tensor) -> Tensor:
    """−log π(responses | prompts) in nats, summed over the batch of right-padded texts, [texts, tokens]."""
    # Attention is causal and padding on the right: no real token sees padding, so the mask may be all ones.
    hidden = model.transformer(batch, attention_mask=torch.ones_like(batch)).last_hidden_state
    targets = batch[:, PROMPT_TOKENS:]
    real = targets != PAD_ID
    return cross_entropy(model.lm_head(hidden[:, PROMPT_TOKENS - 1 : -1][real]), targets[real], reduction="sum")
