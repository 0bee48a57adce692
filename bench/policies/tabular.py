"""A tabular softmax policy as a Hugging Face model: one logit vector for every sequence of last tokens.

With a window as long as prompt and response together it can represent every distribution over responses, so
what a loss's population optimum is and what training reaches can be compared without a model's limits between.
"""

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TabularConfig(PretrainedConfig):
    """Settings of `TabularForCausalLM`.

    Args:
        vocab_size: number of tokens, EOS included.
        window: how many last tokens the prediction of the next one depends on.
    """

    model_type = "gpo-bench-tabular"

    def __init__(self, vocab_size: int = 6, window: int = 4, **kwargs) -> None:
        self.vocab_size = vocab_size
        self.window = window
        super().__init__(**kwargs)

    @property
    def rows(self) -> int:
        """Logit vectors in the table: every window of tokens, shorter ones at a text's beginning included."""
        return (self.vocab_size + 1) ** self.window


class TabularForCausalLM(PreTrainedModel):
    """Next-token logits looked up by the last `window` tokens; no cache."""

    config_class = TabularConfig

    def __init__(self, config: TabularConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.rows, config.vocab_size)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False
    ) -> CausalLMOutput:
        """Logits [sequences, tokens, vocabulary]; padding may be on either side, `use_cache` has no effect."""
        # A window is a number in base vocabulary + 1: digit 0 for "no token there", token + 1 otherwise.
        digits = input_ids + 1
        if attention_mask is not None:
            digits = digits * attention_mask
        row = torch.zeros_like(digits)
        for back in range(self.config.window):
            shifted = nn.functional.pad(digits, (back, 0))[:, : digits.shape[1]]
            row = row + shifted * (self.config.vocab_size + 1) ** back
        return CausalLMOutput(logits=self.table(row))


AutoConfig.register(TabularConfig.model_type, TabularConfig)
AutoModelForCausalLM.register(TabularConfig, TabularForCausalLM)
