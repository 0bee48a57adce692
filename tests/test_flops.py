"""The formula for floating-point operations against a count of those that the harness makes.

The count is PyTorch's own, operator by operator; attention is computed as plain matrix products, which it sees.
"""

import pytest
import torch
from tiny_models import EOS, word_tokenizer
from tiny_world import pairs_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from bench.config import OptimConfig
from bench.losses import LOSSES
from bench.methods.objective import Objective
from bench.methods.offline import OfflineTrainer
from bench.policies.load import load_policy
from bench.policies.packing import is_worth_packing, pack
from bench.policies.scoring import response_logprobs, sequence_kl
from bench.policies.tokens import collate
from bench.seeding import uniforms_for
from benchmarks.flops import MODELS, Pass, Shape, cell_flops, forward_flops, sampling_pass, training_flops

POSITIONS = 96
SHAPES = {
    "small": Shape(2, 64, 64, 64, 256, 2, 40),
    "larger": Shape(4, 128, 128, 128, 512, 2, 900),
    "grouped queries, gated": Shape(6, 192, 192, 64, 500, 3, 3000),
}


def model_of(shape):
    sizes = {"vocab_size": shape.vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    if shape.mlp_matrices == 2:
        return GPT2LMHeadModel(GPT2Config(
            n_layer=shape.layers, n_embd=shape.width, n_head=4, n_inner=shape.hidden, n_positions=POSITIONS, **sizes
        ))  # fmt: skip
    heads = 6
    return LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=shape.layers, hidden_size=shape.width, intermediate_size=shape.hidden,
        num_attention_heads=heads, num_key_value_heads=heads * shape.keys // shape.queries,
        max_position_embeddings=POSITIONS, **sizes,
    ))  # fmt: skip


@pytest.fixture(params=SHAPES, scope="module")
def shape_and_reference(request, tmp_path_factory):
    """A shape and a policy of it with random weights."""
    shape, directory = SHAPES[request.param], tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    model_of(shape).save_pretrained(directory)
    word_tokenizer((EOS, *(f" w{number}" for number in range(1, shape.vocabulary)))).save_pretrained(directory)
    return shape, load_policy(directory, logits_mib=1)


def counted(action):
    """Operations of `action`, by PyTorch's count."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def texts(lengths, seed=0):
    """Token ids that end no response before its end."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 30, (length,), generator=draw).tolist() for length in lengths]


def work_of(batch):
    """The pass that scores a batch, from its padded or packed shape."""
    ids = pack(batch, pad_id=0, positions=POSITIONS).input_ids if is_worth_packing(batch) else batch.input_ids
    rows, width = ids.shape
    return Pass(rows * width, rows * width**2, int(batch.response_mask.sum()))


@pytest.mark.parametrize("lengths", [[40] * 8, [60, 10, 11, 12, 30, 9, 8, 60]], ids=["padded", "packed"])
def test_a_training_step(shape_and_reference, lengths):
    shape, reference = shape_and_reference
    prompts, chosen, rejected = texts([20] * 8), texts(lengths), texts(lengths[::-1], seed=1)
    pairs = pairs_of(prompts, chosen, rejected, torch.zeros(8), torch.zeros(8))
    trainer = OfflineTrainer(
        reference.trainable(), pairs, Objective.scaled(LOSSES["logistic"], 0.1), OptimConfig(batch_pairs=8), seed=0
    )
    assert is_worth_packing(pairs.sequences) == (len(set(lengths)) > 1)
    formula = training_flops(shape, work_of(pairs.sequences), logits_mib=1)
    assert formula == pytest.approx(counted(trainer.step), rel=0.02)


def test_logits_are_made_twice_in_training_where_they_do_not_fit(shape_and_reference):
    """Of the shapes here, in 1 MiB: those of 40 tokens do, those of 900 and 3,000 do not."""
    shape, reference = shape_and_reference
    batch = collate(texts([10] * 16), texts([40] * 16, seed=1), pad_id=0)
    policy = reference.trainable()
    count = counted(lambda: response_logprobs(policy, batch).sum().backward())
    once = 3 * forward_flops(shape, work_of(batch))
    assert (count > once + 0.5 * 2 * shape.head_weights * 640) == (shape.vocabulary > 40)
    assert training_flops(shape, work_of(batch), logits_mib=1) == pytest.approx(count, rel=0.02)


def test_sampling(shape_and_reference):
    shape, reference = shape_and_reference
    prompts, uniforms = texts([20] * 16), uniforms_for(0, "flops", count=16, tokens=30)
    drawn = []
    count = counted(lambda: drawn.extend(reference.sample(prompts, uniforms=uniforms, batch_size=16)))
    formula = forward_flops(shape, sampling_pass(16, 20, list(map(len, drawn))))
    assert formula == pytest.approx(count, rel=0.02)


def test_scoring_with_both_policies(shape_and_reference):
    shape, reference = shape_and_reference
    prompts, responses = texts([20] * 16), texts([30] * 16, seed=1)
    policy = reference.trainable()
    count = counted(lambda: sequence_kl(policy, reference, prompts, responses, batch_size=16))
    formula = 2 * forward_flops(shape, work_of(collate(prompts, responses, pad_id=0)))
    assert formula == pytest.approx(count, rel=0.02)


@pytest.mark.parametrize(
    ("name", "parameters"), [("0.1 B (GPT-2)", 124.4e6), ("1 B (Llama 3.2)", 1.236e9), ("7 B (Llama 2)", 6.738e9)]
)
def test_the_models_are_as_large_as_they_are_known_to_be(name, parameters):
    """The cards of gpt2 (124M), Llama-3.2-1B (1.24 B) and Llama-2-7b (6.74 B); the rest is biases and norms."""
    shape = MODELS[name]
    embeddings = 2 if name.startswith("7 B") else 1  # the others' are their heads as well
    assert shape.block_weights + embeddings * shape.head_weights == pytest.approx(parameters, rel=0.01)


def test_a_long_cell_costs_what_the_rule_of_thumb_says():
    """6 N per token of training, with little attention and a small head: 161 steps of 32 sequences of 384 tokens."""
    shape = MODELS["7 B (Llama 2)"]
    assert cell_flops(shape, 256, 128).training == pytest.approx(6 * 6.7e9 * 161 * 32 * 384 / 0.9, rel=0.1)
