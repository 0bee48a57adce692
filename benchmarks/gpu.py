"""Step time and memory of larger policies on a CUDA device, with random weights.

    python -m benchmarks.gpu

Prints a markdown table: milliseconds of a training step (16 pairs), of sampling and of KL (64 responses each), and the
most memory that the whole took. fp32, TF32 off.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench.config import OptimConfig
from bench.data.pairs import PreferencePairs
from bench.losses import LOSSES
from bench.methods.objective import Objective
from bench.methods.offline import OfflineTrainer
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.policies.scoring import sequence_kl
from bench.policies.tokens import SequenceBatch, collate
from bench.seeding import uniforms_for
from bench.worlds.reviews.tokenizer import word_tokenizer

PAIRS, RESPONSES, PROMPT, RESPONSE = 16, 64, 32, 64


def _gpt2(layers: int, width: int, heads: int, vocabulary: int) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=vocabulary, n_positions=PROMPT + RESPONSE, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip


def _llama(layers: int, width: int, heads: int, vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=PROMPT + RESPONSE, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip


SHAPES: dict[str, Callable[[], PreTrainedModel]] = {
    "GPT-2, 2 × 64": lambda: _gpt2(2, 64, 4, 153),
    "GPT-2, 12 × 768": lambda: _gpt2(12, 768, 12, 50_257),
    "Llama, 16 × 2048": lambda: _llama(16, 2048, 32, 32_000),
}


def main() -> int:
    """Entry point; see the module's docstring."""
    if not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| policy | parameters | step (ms) | sampling (ms) | KL (ms) | peak memory (GB) |\n|---|---|---|---|---|---|")
    for name, build in SHAPES.items():
        with tempfile.TemporaryDirectory() as directory:
            build().save_pretrained(directory)
            word_tokenizer().save_pretrained(directory)
            print(_row(name, load_policy(Path(directory), device="cuda")), flush=True)
    return 0


def _row(name: str, reference: Policy) -> str:
    torch.cuda.reset_peak_memory_stats()
    policy = reference.trainable()
    prompts = torch.randint(4, 60, (RESPONSES, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    uniforms = uniforms_for(0, "gpu", count=RESPONSES, tokens=RESPONSE)
    responses = policy.sample(prompts, uniforms=uniforms, batch_size=RESPONSES)
    trainer = OfflineTrainer(
        policy, _pairs(reference, prompts, responses), Objective.scaled(LOSSES["logistic"], 0.1),
        OptimConfig(lr=1e-6, batch_pairs=PAIRS), seed=0,
    )  # fmt: skip
    times = [
        _milliseconds(action)
        for action in (
            trainer.step,
            lambda: policy.sample(prompts, uniforms=uniforms, batch_size=RESPONSES),
            lambda: sequence_kl(policy, reference, prompts, responses, batch_size=RESPONSES),
        )
    ]
    count = sum(parameter.numel() for parameter in policy.parameters())
    memory = torch.cuda.max_memory_allocated() / 1e9
    return f"| {name} | {count / 1e6:.3g} M | " + " | ".join(f"{each:.3g}" for each in times) + f" | {memory:.3g} |"


def _pairs(reference: Policy, prompts: list[list[int]], responses: list[list[int]]) -> PreferencePairs:
    half = RESPONSES // 2
    logps = reference.logprobs(prompts, responses)
    both = collate(prompts, responses, pad_id=reference.pad_id)
    chosen, rejected = (SequenceBatch(*(tensor[part] for tensor in both)) for part in (slice(half), slice(half, None)))
    return PreferencePairs(chosen, rejected, logps[:half], logps[half:])


def _milliseconds(action: Callable[[], object], repeats: int = 5) -> float:
    action()
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 1000 * sorted(taken)[repeats // 2]


if __name__ == "__main__":
    sys.exit(main())
