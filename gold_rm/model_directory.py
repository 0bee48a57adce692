"""What a model directory says of itself before anything in it is loaded, for policies and reward models."""

import json
from pathlib import Path
from typing import Any


def refusal_of(directory: Path) -> str | None:
    """Why a Hugging Face model directory cannot be used here, in one line; None where nothing is known against it.

    Code in the directory is never run, quantized weights are neither trained nor read as gold, and an adapter that
    lies beside its base would be left out in silence.
    """
    config, tokenizer = (_read(directory / name) for name in ("config.json", "tokenizer_config.json"))
    if (directory / "adapter_config.json").exists() or list(directory.glob("adapter_model.*")):
        return "an adapter lies beside the weights; merge it into them first (peft: merge_and_unload), or move it away"
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        return f"its weights are quantized ({method}); full-precision weights are needed"
    for part, said in (("model", config), ("tokenizer", tokenizer)):
        if said.get("auto_map") and not _is_known(config.get("model_type")):
            return f"its {part} is code of its own (auto_map), which is never run; a class of transformers is needed"
    return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an absent or damaged one says nothing, and whoever loads the model says what is wrong."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_known(model_type: object) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # seconds, which most directories need not

    return isinstance(model_type, str) and model_type in CONFIG_MAPPING
