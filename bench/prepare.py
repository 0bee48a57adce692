"""Build what the cells of a sweep stand on: world, gold model, reference samples, preference data.

    python -m bench.prepare [world=NAME] [labels.rule=bradley_terry] ...

Everything is built once and found again afterwards; a second call only verifies.
"""

import sys

from gold_rm.command_line import run_with_messages


def main() -> int:
    """Entry point; see the module's docstring."""

    def action() -> int:
        from bench.sweep.compose import compose_one

        job = compose_one(sys.argv[1:])
        if job is None:
            return 0
        from bench.config import cell_config

        config = cell_config(job.settings)
        # torch: seconds that a message about a key or a value need not wait for
        from bench.sweep.preparing import prepare

        built = prepare(config, print)
        print(f"world and π_ref  {built.world.path}")
        print(f"gold model       {built.gold_dir}")
        print(f"reference        {built.reference.path}")
        print(f"preference data  {built.preferences.path}")
        return 0

    return run_with_messages(action, if_interrupted="what was built is kept")


if __name__ == "__main__":
    sys.exit(main())
