"""TRL's DPOTrainer with any convex f of GPO in place of its losses.

    trainer = GPOTrainer("model", loss="exponential", args=DPOConfig(beta=0.1, max_grad_norm=100), train_dataset=pairs)

Everything else is TRL's: datasets, collators, precomputed reference log-probs, PEFT, several devices. Needs TRL 1.16.
"""

from typing import Any

from torch import Tensor

from bench.checked import ConfigError
from bench.losses import resolve_loss

_BUILT_ON = ("_compute_loss", "_precompute_ref_logps", "compute_ref_log_probs")
_INSTALL = "pip install 'trl==1.16.*'"
try:
    from trl import DPOConfig, DPOTrainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"bench.integrations.trl needs TRL, which is not installed: {_INSTALL}") from error
if missing := [name for name in _BUILT_ON if not hasattr(DPOTrainer, name)]:
    raise ImportError(f"this version of TRL has no DPOTrainer.{missing[0]}, which GPOTrainer builds on: {_INSTALL}")

# What acts inside the losses that f replaces, and would be ignored; any other value is refused.
_NOT_OURS = {
    "loss_type": ["sigmoid"], "loss_weights": None, "label_smoothing": 0.0, "f_divergence_type": "reverse_kl",
    "ld_alpha": None, "use_weighting": False,
}  # fmt: skip
_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
_NOT_MODEL_INPUTS = ("completion_mask", *_REFERENCE)


class GPOTrainer(DPOTrainer):
    """Minimizes mean f(βρ) (Tang et al. 2024, eq. 5), ρ the difference of the two responses' log-ratios in nats.

    β is `DPOConfig.beta`. Clipping is TRL's, of the gradient of f(βρ) itself: its default `max_grad_norm=1.0` sets in
    at another β for each loss. The harness clips the gradient of f(βρ) / (β |f'(0)|), at 100.
    """

    # A card of TRL's would say that this was DPO.
    _name = "GPO"
    _tag_names = ["trl", "gpo"]  # noqa: RUF012  TRL's own type

    def __init__(self, *arguments: Any, loss: str = "logistic", **named: Any) -> None:
        """
        Args:
            loss: a name of `bench.losses.LOSSES`, or ``package.module:function``.
            arguments, named: of DPOTrainer.
        Raises:
            ValueError: `loss` is none, see `bench.losses.resolve_loss`.
            ConfigError: a setting of DPOConfig that would be ignored; a model with a router loss.
        """
        self.loss = resolve_loss(loss)
        config = named.get("args", arguments[2] if len(arguments) > 2 else None)
        _check(DPOConfig() if config is None else config)
        super().__init__(*arguments, **named)
        if self.aux_loss_enabled:
            raise ConfigError("GPOTrainer: this model adds a router loss to its own; set output_router_logits=false")

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        # Those of our files are of responses as they were sampled; TRL ends the ones that were cut with an EOS, too.
        known = [column for column in _REFERENCE if column in dataset.column_names]
        return super()._precompute_ref_logps(dataset.remove_columns(known), name, batch_size)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        if return_outputs:
            raise ConfigError("GPOTrainer: compute_metrics is not supported, as TRL no longer keeps logits for it")
        chosen, rejected = self._logps(model, inputs)
        if self.precompute_ref_logps:
            ref_chosen, ref_rejected = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            reference = self.model if self.ref_model is None else self.ref_model
            ref_chosen, ref_rejected = self.compute_ref_log_probs(reference, inputs)
        self._note(chosen.detach(), rejected.detach(), ref_chosen, ref_rejected)
        return self.loss.fn(self.beta * ((chosen - ref_chosen) - (rejected - ref_rejected))).mean()

    def _logps(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probs of the chosen and of the rejected responses, each [pairs], summed over their tokens."""
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        given = {name: value for name, value in inputs.items() if name not in _NOT_MODEL_INPUTS}
        # TRL's own head, which makes log-probs without keeping logits; prompt tuning puts tokens before ours.
        per_token = model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        chosen, rejected = per_token[:, 1 - labels.shape[1] :].sum(1).chunk(2)
        return chosen, rejected

    def _note(self, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> None:
        """The metrics that TRL logs of pairs, under its names."""
        rewards, others = self.beta * (chosen - ref_chosen), self.beta * (rejected - ref_rejected)
        measured = {
            "rewards/chosen": rewards, "rewards/rejected": others, "rewards/margins": rewards - others,
            "rewards/accuracies": (rewards > others).float(), "logps/chosen": chosen, "logps/rejected": rejected,
        }  # fmt: skip
        assert self.model is not None  # Trainer has refused None
        mode = "train" if self.model.training else "eval"
        for name, values in measured.items():
            self._metrics[mode][name].append(self.accelerator.gather_for_metrics(values).mean().item())


def _check(config: DPOConfig) -> None:
    for key, allowed in _NOT_OURS.items():
        value = getattr(config, key)
        if value != allowed and [value] != allowed:
            raise ConfigError(
                f"GPOTrainer: DPOConfig({key}={value!r}) would be ignored, as loss= says what is minimized; leave it "
                f"at {allowed!r}, or take TRL's DPOTrainer"
            )
