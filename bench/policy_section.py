"""The section ``policy`` of a cell's configuration: in what precision policies are loaded and what of them is trained.

Which model is π_ref is the world's to say (``world.params.policy`` of ``world=directories``).
"""

from dataclasses import asdict, dataclass
from typing import Any

from bench.checked import ConfigError, require_count, require_one_of

FLOAT32, BFLOAT16, AUTO = "float32", "bfloat16", "auto"
# Not what transformers would fetch from the hub by name, which is code.
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")

_OF_SAMPLES = ("dtype", "attn_implementation", "stop_strings")


@dataclass(frozen=True)
class PolicyConfig:
    """How π_ref is loaded, and the policy that starts as its copy is trained.

    Attributes:
        dtype: ``auto`` is that of the weights on disk. Below float32 only adapters are trained, and these in float32:
            AdamW's steps are smaller than the spacing of bfloat16 weights and would be rounded away.
        attn_implementation: one of `ATTENTION`; None: transformers' choice.
        revision: branch, tag or commit of a model of the Hugging Face hub; None: its main branch.
        gradient_checkpointing: keep the inputs of layers only and compute the rest again in the backward pass; costs a
            third of a step's time and changes no number.
        stop_strings: texts that end a response, beside the policy's own end tokens; they are not of the text that is
            scored. Their tokens are of the response, as EOS is: the KL is that of a response that stops there.
        use_peft: train low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) in place of all weights. This name
            and the next four are those of TRL's ModelConfig.
        lora_r: rank of the adapters.
        lora_alpha: their output is multiplied by lora_alpha / lora_r.
        lora_dropout: has to be 0. π_ref's log-probs are those of the function that is trained, which a random mask
            would make another one at every step.
        lora_target_modules: names of the modules that get adapters; None: all linear ones but the head.
    """

    dtype: str = FLOAT32
    attn_implementation: str | None = None
    revision: str | None = None
    gradient_checkpointing: bool = False
    stop_strings: tuple[str, ...] = ()
    use_peft: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require_one_of("policy.dtype", self.dtype, (FLOAT32, BFLOAT16, AUTO))
        if self.attn_implementation is not None:
            require_one_of("policy.attn_implementation", self.attn_implementation, ATTENTION)
        require_count("policy.lora_r", self.lora_r)
        require_count("policy.lora_alpha", self.lora_alpha)
        if self.lora_dropout != 0:
            raise ConfigError(
                f"policy.lora_dropout={self.lora_dropout}: must be 0; π_ref was scored without dropout, and ρ compares "
                "the two"
            )
        if "" in self.stop_strings:
            raise ConfigError(f"policy.stop_strings={list(self.stop_strings)}: an empty text ends nothing")
        if self.lora_target_modules == ():
            raise ConfigError("policy.lora_target_modules=[]: name at least one module, or null for all linear ones")

    @property
    def moving_samples(self) -> dict[str, Any]:
        """Settings that move what π_ref samples and how it is scored, where they differ from the defaults."""
        return {key: value for key, value in self._set.items() if key in _OF_SAMPLES}

    @property
    def moving_results(self) -> dict[str, Any]:
        """Settings that move a cell's results, where they differ from the defaults."""
        unread = () if self.use_peft else ("lora_r", "lora_alpha", "lora_target_modules")
        return {key: value for key, value in self._set.items() if key not in ("gradient_checkpointing", *unread)}

    @property
    def _set(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value != getattr(PolicyConfig, key)}
