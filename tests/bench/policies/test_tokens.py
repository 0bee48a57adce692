"""Padding and masks, also of degenerate sizes, and when EOS doubles as padding."""

import pytest
import torch

from bench.policies.tokens import collate, pad_left

EOS = 0


def test_masks_mark_the_response_and_its_eos_though_padding_is_eos():
    batch = collate([[5, 6], [7]], [[8, EOS], [9, 9, 9, EOS]], pad_id=EOS)
    assert batch.input_ids.tolist() == [[5, 6, 8, 0, 0], [7, 9, 9, 9, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.response_mask.tolist() == [[False, False, True, True, False], [False, True, True, True, True]]
    assert [tensor.dtype for tensor in batch] == [torch.int64, torch.int64, torch.bool]


def test_empty_and_eos_only_responses():
    batch = collate([[5], [5, EOS]], [[], [EOS]], pad_id=3)
    assert batch.input_ids.tolist() == [[5, 3, 3], [5, 0, 0]]
    assert batch.response_mask.tolist() == [[False, False, False], [False, False, True]]


def test_no_sequences_make_an_empty_batch():
    batch = collate([], [], pad_id=EOS)
    assert [tuple(tensor.shape) for tensor in batch] == [(0, 0)] * 3


def test_an_empty_prompt_and_unequal_counts_are_refused():
    with pytest.raises(ValueError, match=r"prompt 1 has no tokens; give it at least a beginning-of-sequence token"):
        collate([[5], []], [[1], [1]], pad_id=EOS)
    with pytest.raises(ValueError, match="1 prompts but 2 responses"):
        collate([[5]], [[1], [1]], pad_id=EOS)


def test_left_padding():
    input_ids, mask = pad_left([[5], [6, 7, 8]], pad_id=EOS, device="cpu")
    assert input_ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
