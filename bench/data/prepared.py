"""What the cells of a sweep stand on, by path and fingerprint, as it travels in plan.json (bench.sweep.preparing)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checked import fingerprint_of
from bench.data.artifacts import Artifact, DamagedArtifact, verify
from bench.data.sources import verify_sources
from gold_rm.fingerprint import fingerprint_of_model

GOLD_DIR = "model"


@dataclass(frozen=True)
class Prepared:
    """Directories that a cell reads, with fingerprints over their content. Travels with the cell to its worker.

    Attributes:
        gold: its path is the model's directory, or an artifact that holds it as `GOLD_DIR`, if it was fitted here.
        judges: who else scores, by name (`bench.data.judges`).
        best_of_n: π_ref's samples to take the best of, for cells that do.
    """

    world: Artifact
    policy_dir: Path
    gold: Artifact
    reference: Artifact
    preferences: Artifact
    judges: tuple[tuple[str, Artifact], ...] = ()
    best_of_n: Artifact | None = None

    @property
    def gold_dir(self) -> Path:
        return gold_directory(self.gold)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the content of everything, wherever it lies."""
        return fingerprint_of([artifact.fingerprint for artifact in self._artifacts().values()])

    def _artifacts(self) -> dict[str, Artifact]:
        """Everything by name."""
        judges = {f"{_JUDGE}{name}": artifact for name, artifact in self.judges}
        samples = {} if self.best_of_n is None else {_BEST_OF_N: self.best_of_n}
        return {name: getattr(self, name) for name in _ALWAYS} | judges | samples

    def verify(self) -> None:
        """Check that everything is still what was prepared.

        Raises:
            DamagedArtifact: naming what is missing or differs.
        """
        for name, planned in self._artifacts().items():
            if not planned.path.is_dir():
                raise DamagedArtifact(f"{name} {planned.path}: not there, and the sweep was planned on it")
            ready_gold = name == "gold" and self.gold_dir == planned.path
            found = fingerprint_of_model(planned.path) if ready_gold else verify(planned.path).fingerprint
            if found != planned.fingerprint:
                raise DamagedArtifact(
                    f"{name} {planned.path} is {found}, the sweep was planned on {planned.fingerprint}"
                )
        verify_sources(self.world.path)

    def to_plan(self, sweep_dir: Path) -> dict[str, Any]:
        """As in plan.json: paths of artifacts relative to the sweep, so that both can move, or be mounted, together."""
        root = self.preferences.path.resolve().parents[1]

        def written(path: Path) -> str:
            path = path.resolve()
            return os.path.relpath(path, sweep_dir.resolve()) if path.is_relative_to(root) else str(path)

        parts: dict[str, Any] = {_POLICY: written(self.policy_dir)}
        for name, artifact in self._artifacts().items():
            parts[name] = {"path": written(artifact.path), "fingerprint": artifact.fingerprint}
        return parts

    @classmethod
    def from_plan(cls, parts: dict[str, Any], sweep_dir: Path) -> "Prepared":
        """What `to_plan` has written.

        Raises:
            KeyError, TypeError: it has not.
        """
        base = sweep_dir.resolve()
        artifacts = {
            name: Artifact(Path(os.path.normpath(base / part["path"])), part["fingerprint"])
            for name, part in parts.items()
            if name != _POLICY
        }
        judges = [(n.removeprefix(_JUDGE), artifact) for n, artifact in artifacts.items() if n.startswith(_JUDGE)]
        return cls(
            policy_dir=Path(os.path.normpath(base / parts[_POLICY])),
            judges=tuple(judges),
            best_of_n=artifacts.get(_BEST_OF_N),
            **{name: artifacts[name] for name in _ALWAYS},
        )


def gold_directory(gold: Artifact) -> Path:
    """Directory of the model: one that was fitted here lies in its artifact, a ready one is what it is."""
    fitted = gold.path / GOLD_DIR
    return fitted if fitted.is_dir() else gold.path


_ALWAYS = ("world", "gold", "reference", "preferences")
_POLICY, _BEST_OF_N, _JUDGE = "policy", "best_of_n", "judge "
