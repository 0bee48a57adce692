"""The rules of the verdicts (conf/claims.yaml, whose comments say what each means), read and checked."""

import difflib
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from analysis import RULES_FILE
from analysis.data.sweep import RefusedSweep

FITS = ("last", "all")
MULTIPLICITY = ("holm", "bonferroni")
FINGERPRINTS = ("gold_model", "reference", "preferences")


class RefusedRules(RefusedSweep):
    """A file of rules that cannot be used: says which key, the value seen and what is allowed."""


def _require(allowed: bool, key: str, value: object, what: str) -> None:
    if not allowed:
        raise RefusedRules(f"{key}={value!r}: must be {what}")


def _number(key: str, value: object, low: float, high: float = math.inf) -> None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    what = f"a number above {low:g}" + (f" and below {high:g}" if high < math.inf else "")
    _require(known and low < float(value) < high, key, value, what)  # type: ignore[arg-type]


def _count(key: str, value: object, least: int) -> None:
    known = isinstance(value, int) and not isinstance(value, bool)
    _require(known and value >= least, key, value, f"a whole number, {least} or more")  # type: ignore[operator]


def _ascending(key: str, values: tuple[Any, ...]) -> None:
    _require(len(values) > 0, key, list(values), "a list of KLs in nats")
    for value in values:
        _number(key, value, 0)
    _require(all(a < b for a, b in itertools.pairwise(values)), key, list(values), "ascending")


@dataclass(frozen=True)
class SameFrontier:
    """C1: KL budgets in nats, margin in SD."""

    budgets: tuple[float, ...] = (0.5, 1, 2)
    margin: float = 0.1

    def __post_init__(self) -> None:
        _ascending("C1.budgets", self.budgets)
        _number("C1.margin", self.margin, 0)


@dataclass(frozen=True)
class BetaMoves:
    """C2: KL budgets in nats; `same` is the factor within which two β count as one."""

    budgets: tuple[float, ...] = (0.5, 1, 2)
    baseline: str = "logistic"
    same: float = 1.25

    def __post_init__(self) -> None:
        _ascending("C2.budgets", self.budgets)
        _require(isinstance(self.baseline, str), "C2.baseline", self.baseline, "a variant's name")
        _number("C2.same", self.same, 1)


@dataclass(frozen=True)
class RiseAndFall:
    """C3: KLs in nats at which the fall may end; data must reach the first, and `reach` to show none. Margin in SD."""

    ends: tuple[float, ...] = (5, 7, 10, 14, 20, 28, 40, 56, 80)
    reach: float = 20
    margin: float = 0.1

    def __post_init__(self) -> None:
        _ascending("C3.ends", self.ends)
        _number("C3.reach", self.reach, 0)
        _require(self.ends[0] <= self.reach <= self.ends[-1], "C3.reach", self.reach, "within C3.ends")
        _number("C3.margin", self.margin, 0)


@dataclass(frozen=True)
class Discord:
    """C4: false discovery rate of discordant pairs; factor in KL at equal E[ρ²] that counts as none."""

    false_discovery_rate: float = 0.05
    kl_ratio: float = 1.25

    def __post_init__(self) -> None:
        _number("C4.false_discovery_rate", self.false_discovery_rate, 0, 1)
        _number("C4.kl_ratio", self.kl_ratio, 1)


@dataclass(frozen=True)
class NamedSweep:
    """The sweep that the rules were made for.

    Attributes:
        variants, strengths, seeds: every combination of them is a cell.
        settings: dotted keys of a cell's configuration, the same for all.
        fingerprints: of FINGERPRINTS, where they are known beforehand.
    """

    variants: tuple[str, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, kinds in (("variants", str), ("strengths", (int, float)), ("seeds", int)):
            values = getattr(self, key)
            known = len(values) > 0 and all(isinstance(value, kinds) for value in values)  # type: ignore[arg-type]
            _require(known, f"sweep.{key}", list(values), "a list of names, numbers or whole numbers")
            _require(len(set(values)) == len(values), f"sweep.{key}", list(values), "without repeats")
        for key in ("settings", "fingerprints"):
            _require(isinstance(getattr(self, key), Mapping), f"sweep.{key}", getattr(self, key), "keys with values")
        for key in self.fingerprints:
            _require(key in FINGERPRINTS, f"sweep.fingerprints.{key}", self.fingerprints[key], f"of {FINGERPRINTS}")


@dataclass(frozen=True)
class Rules:
    """Everything that a verdict depends on beside the data; the defaults are those of conf/claims.yaml.

    Attributes:
        level: of intervals; tests are at 1 − level.
        seeds, strengths: fewest of each per variant.
        sweep: None: no sweep can be confirmatory.
        name: where the rules come from, for readers.
    """

    level: float = 0.95
    multiplicity: str = "holm"
    seeds: int = 3
    strengths: int = 4
    fit: str = "last"
    c1: SameFrontier = field(default_factory=SameFrontier)
    c2: BetaMoves = field(default_factory=BetaMoves)
    c3: RiseAndFall = field(default_factory=RiseAndFall)
    c4: Discord = field(default_factory=Discord)
    sweep: NamedSweep | None = None
    name: str = "built in"

    def __post_init__(self) -> None:
        _number("level", self.level, 0.5, 1)
        _require(self.multiplicity in MULTIPLICITY, "multiplicity", self.multiplicity, " or ".join(MULTIPLICITY))
        _count("seeds", self.seeds, 2)
        _count("strengths", self.strengths, 2)
        _require(self.fit in FITS, "fit", self.fit, " or ".join(FITS))

    @property
    def digest(self) -> str:
        """Twelve digits of SHA-256 over everything but the name."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


_PARTS: dict[str, tuple[str, type]] = {
    "C1": ("c1", SameFrontier), "C2": ("c2", BetaMoves), "C3": ("c3", RiseAndFall), "C4": ("c4", Discord),
    "sweep": ("sweep", NamedSweep),
}  # fmt: skip


def read_rules(path: Path = RULES_FILE) -> Rules:
    """Read a file of rules; what it leaves out has the built-in value.

    Raises:
        RefusedRules: no such file, not YAML, a key that there is not, or a value that is not allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedRules(f"rules {path}: cannot be read ({' '.join(str(error).split())})") from error
    try:
        return _rules({} if content is None else content, path.name)
    except RefusedRules as error:
        raise RefusedRules(f"rules {path}: {error}") from error


def _rules(content: Any, name: str) -> Rules:
    simple = [item.name for item in fields(Rules) if item.name not in ("name", "c1", "c2", "c3", "c4", "sweep")]
    values = _checked_keys("", content, [*simple, *_PARTS])
    for key, (attribute, part) in _PARTS.items():
        if (given := values.pop(key, None)) is None:
            continue
        given = _checked_keys(f"{key}.", given, [item.name for item in fields(part)])
        for item in fields(part):
            if isinstance(given.get(item.name), list):
                given[item.name] = tuple(given[item.name])
            elif "tuple" in str(item.type) and item.name in given:
                raise RefusedRules(f"{key}.{item.name}={given[item.name]!r}: must be a list")
        try:
            values[attribute] = part(**given)
        except TypeError as error:
            needed = ", ".join(f"{key}.{need}" for need in ("variants", "strengths", "seeds") if need not in given)
            raise RefusedRules(f"{key}: lacks {needed or error}") from error
    return Rules(**values, name=name)


def _checked_keys(prefix: str, content: Any, known: list[str]) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise RefusedRules(f"{prefix.rstrip('.') or 'the file'}={content!r}: must be keys with values")
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(known)}"
            raise RefusedRules(f"{prefix}{key}: no such key; {hint}")
    return dict(content)
