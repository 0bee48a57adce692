"""Build the world that comes with the code, from its word lists: for a new version of it, not for its users.

    python -m bench.freeze [--replace]

Writes bench/worlds/reviews/frozen: world, gold model, π_ref's samples and the pool, as `bench.prepare` builds them for
the default settings, each with a manifest of its inputs and the SHA-256 of its files. Another build is another world:
raise the VERSION of `bench.worlds.reviews`.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from gold_rm.command_line import run_with_messages


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Build the world that comes with the code.")
    parser.add_argument("--replace", action="store_true", help="in place of the one that is there")
    return run_with_messages(lambda: freeze(replace=parser.parse_args().replace))


def freeze(*, replace: bool) -> int:
    """Build everything in a temporary directory, then put it where it is shipped from."""
    from bench import worlds
    from bench.checked import ConfigError
    from bench.config import cell_config
    from bench.data.shipped import FROZEN_DIR
    from bench.sweep.compose import compose_one
    from bench.sweep.preparing import prepare
    from bench.worlds import reviews

    target = Path(reviews.__file__).parent / FROZEN_DIR
    if target.exists() and not replace:
        raise ConfigError(f"{target} is there: --replace builds it anew, and every result that stands on it is void")
    job = compose_one([f"world={reviews.SHIPS}"])
    assert job is not None
    with tempfile.TemporaryDirectory() as root:
        job.settings["artifacts_dir"] = root
        prepare(cell_config(job.settings), print, from_shipped=False)
        shutil.rmtree(target, ignore_errors=True)
        for kind in worlds.SHIPPED_KINDS:
            (built,) = (path for path in (Path(root) / kind).iterdir() if path.is_dir())
            shutil.copytree(built, target / kind)
    print(f"{target}: {sum(path.stat().st_size for path in target.rglob('*') if path.is_file()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
