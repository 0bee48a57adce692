"""What a policy's place holds, before anything is loaded: a model directory, an adapter, a GGUF file, a hub id.

Light on purpose: what can be said of files alone is said without waiting for torch.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bench.checked import ConfigError, fingerprint_of
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.model_directory import refusal_of

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# Weights, configuration and tokenizer; never code, and no weights that are pickle.
_WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")


def why_unusable(path: Path) -> str | None:
    """Why there is no policy at `path`, in one line; None where nothing is known against it."""
    if gguf_file(path) is not None or is_adapter(path):
        return None
    if not (path / CONFIG_FILE).is_file():
        what = "no config.json there" if path.is_dir() else "no such directory"
        return f"{what}; a Hugging Face model directory is needed, an adapter's, or a .gguf file"
    return refusal_of(path)


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that `path` is, or the only one that it holds beside no model of another kind."""
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_dir() and not (path / CONFIG_FILE).exists() and len(found := sorted(path.glob("*.gguf"))) == 1:
        return found[0]
    return None


def is_adapter(path: Path) -> bool:
    """Whether `path` is a directory of peft with an adapter alone, whose base lies elsewhere."""
    return (path / ADAPTER_CONFIG_FILE).is_file() and not (path / CONFIG_FILE).exists()


def base_of(adapter: Path) -> Path:
    """Where the model lies that an adapter belongs on.

    Raises:
        ConfigError: the adapter does not say, or it is not there, or is no LoRA in safetensors.
    """
    said = _adapter_config(adapter)
    if said.get("peft_type") != "LORA" or said.get("megatron_config"):  # the latter imports modules by name
        raise ConfigError(f"policy {adapter}: a {said.get('peft_type')} adapter; LoRA adapters are read here")
    if not (adapter / ADAPTER_WEIGHTS_FILE).is_file():
        raise ConfigError(f"policy {adapter}: no {ADAPTER_WEIGHTS_FILE} there; adapters are read from safetensors only")
    if not isinstance(base := said.get("base_model_name_or_path"), str) or not base:
        raise ConfigError(f"policy {adapter}: {ADAPTER_CONFIG_FILE} names no base_model_name_or_path")
    if not Path(base).is_absolute() and (adapter / base).exists():
        return adapter / base
    try:
        return locate(f"{base}@{revision}" if (revision := said.get("revision")) else base)
    except ConfigError as error:
        raise ConfigError(f"policy {adapter}: an adapter whose base cannot be found: {error}") from error


def locate(name: str) -> Path:
    """The directory or file `name`, or the snapshot of a model of the Hugging Face hub.

    Args:
        name: a path, or ``ORGANIZATION/NAME`` or ``ORGANIZATION/NAME@REVISION`` of the hub.
    Raises:
        ConfigError: a hub's model that is not in its cache, and that the hub does not give; a revision of a path.
    """
    repository, _, revision = name.partition("@")
    if Path(name).exists():
        return Path(name)
    if revision and Path(repository).exists():
        raise ConfigError(f"policy.revision={revision}: {repository} is no model of the hub, which has revisions")
    return _snapshot(repository, revision or None) if _HUB_ID.fullmatch(repository) else Path(name)


def _snapshot(repository: str, revision: str | None) -> Path:
    # Half a second, which a directory need not wait for.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    about: dict[str, Any] = {"revision": revision, "allow_patterns": list(_WANTED)}
    try:
        try:
            return Path(snapshot_download(repository, **about, local_files_only=True))
        except LocalEntryNotFoundError:  # the hub is asked, and says why it cannot give it
            return Path(snapshot_download(repository, **about))
    except Exception as error:  # network, no such model, a gated one
        told = " ".join(str(error).split())
        at = f" at revision {revision}" if revision else ""
        raise ConfigError(
            f"{repository}{at}: no such directory, not in the cache of the Hugging Face hub, and the hub cannot be had "
            f"({type(error).__name__}: {told:.160}); download it first (hf download {repository}), or name a directory"
        ) from error


def fingerprint_of_policy(path: Path) -> str:
    """12 hex digits over the files that a policy's outputs depend on; of an adapter, those of its base as well."""
    if (file := gguf_file(path)) is not None:
        return _hash(file)[:12]
    if not is_adapter(path):
        return fingerprint_of_model(path)
    said = {key: value for key, value in _adapter_config(path).items() if key != "base_model_name_or_path"}
    base = fingerprint_of_policy(base_of(path))
    # Lists that peft writes in no fixed order.
    named = {key: sorted(value) if isinstance(value, list) else value for key, value in said.items()}
    return fingerprint_of([named, fingerprint_of_model(path), base])


def fingerprint_of_templates(path: Path) -> str:
    """12 hex digits over the chat templates in `path` that are files of their own."""
    return fingerprint_of({file.name: _hash(file) for file in sorted(path.glob("*.jinja"))})


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _adapter_config(adapter: Path) -> dict[str, Any]:
    try:
        said = json.loads((adapter / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"policy {adapter}: {ADAPTER_CONFIG_FILE} cannot be read ({error})") from error
    if not isinstance(said, dict):
        raise ConfigError(f"policy {adapter}: {ADAPTER_CONFIG_FILE} holds a {type(said).__name__}")
    return said
