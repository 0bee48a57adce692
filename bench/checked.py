"""Settings as frozen dataclasses, built from nested mappings with every key, type and value checked."""

import difflib
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from gold_rm.errors import UserError

T = TypeVar("T")
LARGEST_COUNT = 10_000_000


class ConfigError(UserError):
    """A configuration that cannot be run."""


def build_checked(kind: type[T], values: Any, where: str = "") -> T:
    """Build the frozen dataclass `kind` from nested mappings, checking keys and types all the way down.

    Args:
        where: prefix of the keys in messages, such as ``world.params``.
    Raises:
        ConfigError: naming the key, the value seen and what is allowed.
    """
    try:
        # Strict, so that beta=true is not 1.0; as JSON, in which an integer is a float and a list a tuple.
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # mypy doubts that a class is hashable
        return adapter.validate_json(json.dumps(values), strict=True, extra="forbid")
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, where, item) for item in error.errors())) from error
    except RecursionError as error:
        raise ConfigError(f"{where or 'configuration'}: nested too deeply") from error


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _spell_whole_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# A name such as 20240101, which a command line takes for a number.
Name = Annotated[str, BeforeValidator(_spell_whole_number)]


def _explain(kind: type, where: str, item: Any) -> str:
    key = ".".join([where, *map(str, item["loc"])] if where else map(str, item["loc"]))
    if isinstance(cause := item.get("ctx", {}).get("error"), ValueError):
        return str(cause) if isinstance(cause, ConfigError) else f"{key}: {cause}"
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] == "unexpected_keyword_argument":
        known = known_keys(kind, f"{where}." if where else "")
        return f"{key}: no such key" + (f"; did you mean {nearest(key, known)!r}?" if known else "")
    return f"{key}={item['input']!r:.200}: {item['msg'].lower()}"


def nearest(word: str, known: Sequence[str]) -> str:
    """The word among `known` (one or more) that is most like `word`; of several, the first."""
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word)

    def likeness(candidate: str) -> float:
        matcher.set_seq1(candidate)
        return matcher.ratio()

    return max(known, key=likeness)


def known_keys(kind: type, prefix: str = "") -> list[str]:
    """Every dotted key of the dataclass `kind`, such as ``optim.lr``, each after `prefix`."""
    keys = []
    for name, hint in get_type_hints(kind).items():
        keys.append(prefix + name)
        if isinstance(hint, type) and is_dataclass(hint):
            keys += known_keys(hint, f"{prefix}{name}.")
    return keys


def fingerprint_of(value: Any) -> str:
    """12 hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def require_positive(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key}={value}: must be a finite number above 0")


def require_at_least(key: str, value: float, minimum: float) -> None:
    if not (math.isfinite(value) and value >= minimum):
        raise ConfigError(f"{key}={value}: must be {minimum} or more")


def require_count(key: str, value: int, minimum: int = 1) -> None:
    """A number of things, all of which have to be made: far beyond what can be is a slip of the keyboard."""
    if not minimum <= value <= LARGEST_COUNT:
        raise ConfigError(f"{key}={value}: must be {minimum} or more, and at most {LARGEST_COUNT:,}")


def require_seed(key: str, value: int) -> None:
    if not 0 <= value < 2**63:  # what files and generators hold
        raise ConfigError(f"{key}={value}: must be an integer from 0 to 2**63 - 1")


def require_within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise ConfigError(f"{key}={value}: must lie in [{low}, {high})")


def require_one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value!r}: allowed are {', '.join(allowed)}")
