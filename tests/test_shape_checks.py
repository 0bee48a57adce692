"""Shapes and types in signatures are checked under pytest, and only there."""

import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from tiny_world import pairs_of

from bench.losses import LOSSES, resolve_loss
from bench.policies.kl import disagreement_in_se
from bench.policies.logprobs import sum_over_response, token_logprobs
from gold_rm.labeling import label_pairs
from gold_rm.reward_model import Standardization


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: token_logprobs(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64)),
        lambda: token_logprobs(torch.zeros(3, 4), torch.zeros(3)),
        lambda: sum_over_response(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool)),
        lambda: disagreement_in_se(torch.zeros(3), torch.zeros(4)),
        lambda: pairs_of([[1]], [[2]], [[3]], torch.zeros(1, 1), torch.zeros(1)),
        lambda: LOSSES["logistic"].fn(torch.zeros(3, dtype=torch.int64)),
        lambda: Standardization.fit(torch.zeros(2, 3)),
        lambda: label_pairs(
            torch.zeros(2), torch.zeros(2, dtype=torch.int64), rule="deterministic", temperature=1.0, flip_rate=0.0,
            generator=torch.Generator(),
        ),
    ],
)  # fmt: skip
def test_a_wrong_shape_or_type_is_refused(wrong):
    with pytest.raises(jaxtyping.TypeCheckError):
        wrong()


def wrong_shape(z):
    return z.sum()


def my_loss(z):
    return (1 - z) ** 2


def test_losses_of_users_are_theirs_to_annotate(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_module", sys.modules[__name__])
    assert resolve_loss("my_module:my_loss").slope_at_zero == -2
    with pytest.raises(ValueError, match="unreduced tensor of its shape"):
        resolve_loss("my_module:wrong_shape")


def test_nothing_is_checked_outside_pytest():
    code = (
        "import sys, torch\n"
        "from bench.policies.logprobs import sum_over_response\n"
        "assert sum_over_response(torch.zeros(1, 3), torch.ones(2, 3, dtype=torch.bool)).shape == (2,)\n"
        "assert 'beartype' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], timeout=300)
