"""What is shared is as readable as the umask says, also where a library writes private files."""

from pathlib import Path


def follow_umask(directory: Path) -> None:
    """Make files in `directory`, which this process has just made, as readable as it is; safetensors writes 0600."""
    mode = directory.stat().st_mode & 0o666
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(mode)
