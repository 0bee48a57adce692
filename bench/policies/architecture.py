"""What differs between architectures, found out once when a model is loaded: optional arguments and the head.

A causal language model is a base model, whose hidden states a head turns into logits. Where nothing else happens
between the two and after them, the head can be applied to the positions that are asked for; where something does
(Gemma caps its logits, Cohere and Granite scale them), only the whole model gives the right numbers.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Arguments beyond tokens and attention mask that the harness would like to pass; not every architecture takes all.
_WANTED = ("position_ids", "use_cache", "cache", "logits_to_keep")
_PROBE_TOKENS = 8
# Relative to the largest value: float32 rounding is a hundred times smaller. In bfloat16, four units of its precision.
_TOLERANCE = 1e-4
_ROUNDINGS = 4
# Logits as large as these show every cap and scale; those of an untrained model are too small to reach a cap.
_LARGE_LOGIT = 1000.0


@dataclass(frozen=True)
class Architecture:
    """Facts of a loaded model.

    Attributes:
        vocabulary: number of tokens that it predicts; when a policy is loaded, those that its tokenizer knows.
        positions: tokens that prompt and response together may take; None where its configuration does not say.
        options: arguments among position_ids, use_cache, cache and logits_to_keep that its forward pass takes.
        base_options: those that the forward pass of its base model takes.
        has_separate_head: logits are ``model.get_output_embeddings()`` of the base model's last hidden state.
        keeps_packed_apart: the base model takes several sequences in one row, told apart by their position ids, and
            gives the hidden states of each as if it were alone. Recurrent models do not.
    """

    vocabulary: int
    positions: int | None
    options: frozenset[str]
    base_options: frozenset[str]
    has_separate_head: bool
    keeps_packed_apart: bool


@torch.no_grad()
def inspect_architecture(model: PreTrainedModel) -> Architecture:
    """Find the facts of `model`, which is in evaluation mode, by its signatures and a few short forward passes."""
    positions = getattr(model.config, "max_position_embeddings", None)
    tokens = torch.arange(min(_PROBE_TOKENS, positions or _PROBE_TOKENS), device=model.device)[None]
    first = tokens[:, :1]
    vocabulary = model(input_ids=first, attention_mask=torch.ones_like(first)).logits.shape[-1]
    base = model.base_model
    has_separate_head = base is not model and _has_separate_head(model, base, tokens % vocabulary)
    keeps_packed_apart = has_separate_head and _keeps_packed_apart(base, tokens % vocabulary)
    return Architecture(vocabulary, positions, _options(model), _options(base), has_separate_head, keeps_packed_apart)


def _options(model: nn.Module) -> frozenset[str]:
    return frozenset(_WANTED).intersection(inspect.signature(model.forward).parameters)


def _has_separate_head(model: PreTrainedModel, base: nn.Module, tokens: Tensor) -> bool:
    """Whether the head reads the base model's last hidden state and what it returns comes out as it is.

    The head's output is replaced by a ramp of large values, so that the answer does not depend on the weights.
    """
    head = model.get_output_embeddings()
    if head is None:
        return False
    read, written = [], []

    def swap(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ramp = torch.linspace(-_LARGE_LOGIT, _LARGE_LOGIT, output.numel(), device=output.device)
        read.append(inputs[0])
        written.append(ramp.reshape(output.shape))
        return written[-1]

    hook = head.register_forward_hook(swap)
    try:
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    finally:
        hook.remove()
    output = base(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    hidden = getattr(output, "last_hidden_state", None)
    return hidden is not None and len(read) == 1 and _all_alike([(read[0], hidden), (logits, written[0])])


def _keeps_packed_apart(base: nn.Module, tokens: Tensor) -> bool:
    """Whether the halves of a row come out as each does alone, where position ids say that they are two sequences.

    What is masked counts exactly 0, so that the second half does not change by one bit with what is in the first: an
    answer that holds for other weights as well, where nearly equal numbers may only mean that attention is weak yet.
    """
    half = tokens.shape[1] // 2
    if "position_ids" not in _options(base) or half < 2:
        return False
    first, second = tokens[:, : 2 * half].split(half, dim=1)
    uncached = {"use_cache": False} if "use_cache" in _options(base) else {}
    position_ids = torch.arange(half, device=tokens.device).repeat(2)[None]
    try:
        packed, other = (
            base(input_ids=torch.cat([before, second], dim=1), position_ids=position_ids, **uncached).last_hidden_state
            for before in (first, first.flip(1))
        )
    except Exception:  # whatever an architecture says that does not take such rows
        return False
    alone = [base(input_ids=each, attention_mask=torch.ones_like(each)).last_hidden_state for each in (first, second)]
    return torch.equal(packed[:, half:], other[:, half:]) and _all_alike([(packed, torch.cat(alone, dim=1))])


def _all_alike(pairs: Iterable[tuple[Tensor, Tensor]]) -> bool:
    return all(
        one.shape == other.shape and bool((one - other).abs().max() <= _tolerance(one.dtype) * other.abs().max())
        for one, other in pairs
    )


def _tolerance(dtype: torch.dtype) -> float:
    return max(_TOLERANCE, _ROUNDINGS * torch.finfo(dtype).eps)
