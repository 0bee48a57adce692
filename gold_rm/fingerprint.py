"""What a model directory is, by content; needs no model to be loaded."""

import hashlib
from pathlib import Path

# What a model's outputs depend on: weights, configuration and tokenizer. Notes and logs beside them do not count.
_FINGERPRINTED = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "*.model", "generation_config.json",
)  # fmt: skip


def fingerprint_of_model(directory: Path) -> str:
    """12 hex digits of the SHA-256 over the files of a model directory that its outputs depend on."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _FINGERPRINTED for path in directory.glob(pattern)}):
        with path.open("rb") as stream:
            digest.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]
