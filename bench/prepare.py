"""Build what the cells of a sweep stand on: world, gold model, reference samples, preference data.

    python -m bench.prepare [world=NAME] [labels.rule=bradley_terry] ...

Everything is built once and found again afterwards; a second call only verifies.
"""

import sys

from bench.config import cell_config
from bench.data.prepared import prepare
from bench.messages import compose_from_command_line, run_with_messages


def main() -> int:
    """Entry point; see the module's docstring."""

    def action() -> int:
        for composed, _ in compose_from_command_line():
            built = prepare(cell_config(composed), print)
            print(f"world and π_ref  {built.world.policy_dir.parent}")
            print(f"gold model       {built.gold_dir}")
            print(f"reference        {built.reference.path}")
            print(f"preference data  {built.preferences.path}")
        return 0

    return run_with_messages(action)


if __name__ == "__main__":
    sys.exit(main())
