"""What a cell costs in floating-point operations, from a formula, and a sweep in hours of an H100 under assumptions.

    python -m benchmarks.flops [--prompt 256] [--response 128] [--cells 420]

Prints the tables of docs/scaling.md. `tests/test_flops.py` holds the formula against a count of the operations that the
harness really makes.

A multiplication and an addition are two operations; only matrix products count. Attention counts as it is computed,
every query with every key of its row, also those that are masked.
"""

import argparse
import sys
from typing import NamedTuple

from bench.policies.language_model import DEFAULT_LOGITS_MIB
from bench.sections import EvaluationConfig, OptimConfig, PairsConfig

# H100 SXM, dense (NVIDIA's data sheet): bf16 on tensor cores, and fp32 without TF32, as the harness computes today.
PEAK = {"bf16": 989e12, "fp32": 67e12}
# Assumptions. fp32's was measured (docs/scaling.md); bf16's is what well-run training reaches.
UTILIZATION = {"bf16": 0.4, "fp32": 0.65}
# One token of one batch takes at least this long per layer, however little there is to compute: launches of kernels.
# 440 ms for 64 tokens of 12 layers, measured on an H100 (docs/performance.md).
SECONDS_PER_LAYER = 0.440 / 64 / 12
_FILL = 0.9  # of a batch's positions that hold tokens, the rest is padding: packed rows are full to 0.93, others to 0.8
_PACKED_WIDTH = 1.5  # rows, in longest sequences (bench.policies.packing)


class Shape(NamedTuple):
    """What of a decoder the number of its operations follows from.

    Attributes:
        queries, keys: features of all heads together; keys (and values) have fewer with grouped-query attention.
        hidden: features inside the MLP.
        mlp_matrices: 2, or 3 where it is gated.
    """

    layers: int
    width: int
    queries: int
    keys: int
    hidden: int
    mlp_matrices: int
    vocabulary: int

    @property
    def block_weights(self) -> int:
        """Weights that every token is multiplied with."""
        attention = 2 * self.width * self.queries + 2 * self.width * self.keys
        return self.layers * (attention + self.mlp_matrices * self.width * self.hidden)

    @property
    def head_weights(self) -> int:
        """Weights that every position whose logits are needed is multiplied with."""
        return self.width * self.vocabulary


class Pass(NamedTuple):
    """What one or several forward passes compute.

    Attributes:
        tokens: positions, padding included.
        attended: keys, summed over all queries: rows × width² of a batch without a cache.
        logits: positions whose logits are made.
    """

    tokens: float
    attended: float
    logits: float


MODELS = {
    "0.1 B (GPT-2)": Shape(12, 768, 768, 768, 3072, 2, 50_257),
    "1 B (Llama 3.2)": Shape(16, 2048, 2048, 512, 8192, 3, 128_256),
    "7 B (Llama 2)": Shape(32, 4096, 4096, 4096, 11_008, 3, 32_000),
}


def forward_flops(shape: Shape, work: Pass) -> float:
    """2 per weight and token, 4 per feature and attended key (scores, and the sum of values)."""
    attention = 4 * shape.layers * shape.queries * work.attended
    return 2 * shape.block_weights * work.tokens + attention + 2 * shape.head_weights * work.logits


def training_flops(shape: Shape, work: Pass, *, logits_mib: int = DEFAULT_LOGITS_MIB) -> float:
    """Forward and backward: the backward pass takes two products for each of the forward one's.

    Logits that do not fit into `logits_mib` are made again for it (`bench.policies.scoring`).
    """
    again = 2 * shape.head_weights * work.logits if 4 * shape.vocabulary * work.logits > logits_mib * 2**20 else 0
    return 3 * forward_flops(shape, work) + again


def sampling_pass(prompts: int, prompt: int, lengths: list[int]) -> Pass:
    """Responses of these lengths to as many prompts of one width: the prompts at once, then token by token.

    A row leaves the batch when its response has ended; what was drawn last is never read.
    """
    attended = prompts * prompt**2 + sum(prompt + step for length in lengths for step in range(1, length))
    return Pass(prompts * prompt + sum(lengths) - len(lengths), attended, sum(lengths))


def scoring_pass(sequences: float, prompt: int, response: int) -> Pass:
    """Batches of whole sequences as they are computed, with padding."""
    tokens = sequences * (prompt + response) / _FILL
    return Pass(tokens, tokens * _PACKED_WIDTH * (prompt + response), sequences * response)


class Cell(NamedTuple):
    """Floating-point operations of a cell by part, and tokens that are drawn one after the other."""

    training: float
    sampling: float
    kl: float
    gold: float
    held_out: float
    draws: int

    @property
    def total(self) -> float:
        return sum(self[:5])


def cell_flops(shape: Shape, prompt: int, response: int) -> Cell:
    """A cell with the default settings. The gold model is taken to be as large as the policy, with a head of one score.

    Step 0 is not in it: a worker measures π_ref once for all of its cells.
    """
    optim, evaluation, pairs = OptimConfig(), EvaluationConfig(), PairsConfig()
    # Step 0's loss and gradient are taken as well, without an update.
    step = training_flops(shape, scoring_pass(2 * optim.batch_pairs, prompt, response))
    samples = evaluation.prompts * (evaluation.checkpoints - 1 + evaluation.samples_per_prompt)
    forward = forward_flops(shape, scoring_pass(samples, prompt, response))
    gold = forward_flops(shape, scoring_pass(samples, prompt, response)._replace(logits=0))
    held_out = forward_flops(shape, scoring_pass(2 * pairs.held_out, prompt, response)) * evaluation.checkpoints
    drawn = forward_flops(shape, sampling_pass(samples, prompt, [response] * samples))
    return Cell(
        (optim.steps + 1) * step, drawn, 2 * forward, gold, held_out, response * samples // evaluation.batch_size
    )


def cell_seconds(shape: Shape, cell: Cell, dtype: str) -> float:
    """Under the assumptions above; drawing takes the longer of its operations and its launches."""
    rate = PEAK[dtype] * UTILIZATION[dtype]
    launches = cell.draws * shape.layers * SECONDS_PER_LAYER
    return (cell.total - cell.sampling) / rate + max(cell.sampling / rate, launches)


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=128, help="tokens")
    parser.add_argument("--cells", type=int, default=6 * 7 * 10, help="of the sweep")
    options = parser.parse_args()
    cells = {name: cell_flops(shape, options.prompt, options.response) for name, shape in MODELS.items()}
    parts = ("training", "sampling", "kl", "gold", "held_out")
    print("| PFLOP of a cell | " + " | ".join(parts) + " | all |\n" + "|---" * (len(parts) + 2) + "|")
    for name, cell in cells.items():
        values = [*(getattr(cell, part) for part in parts), cell.total]
        print(f"| {name} | " + " | ".join(f"{value / 1e15:.3g}" for value in values) + " |")
    print(f"\n| model | precision | a cell (min) | {options.cells} cells (GPU hours) |\n|---|---|---|---|")
    for name, cell in cells.items():
        for dtype in PEAK:
            seconds = cell_seconds(MODELS[name], cell, dtype)
            print(f"| {name} | {dtype} | {seconds / 60:.3g} | {options.cells * seconds / 3600:,.3g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
