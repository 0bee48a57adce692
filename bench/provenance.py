"""Which code and which libraries produced a record."""

import functools
import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_CODE = ("bench", "gold_rm")
_PACKAGES = ("torch", "transformers", "numpy", "pandas", "hydra-core", "wandb")


@functools.cache
def git_commit() -> str:
    """Commit of the checked-out code, with ``-dirty`` if tracked files differ; ``unknown`` outside git."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def code_hash() -> str:
    """12 hex digits over the source files that make a cell what it is, as they were when first asked for."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for package in _CODE for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.read_text(encoding='utf-8')}\0".encode())
    return digest.hexdigest()[:12]


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can move a number."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
