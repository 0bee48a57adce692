"""Entry point; see the package's docstring."""

import argparse
import sys

import pandas as pd

from analysis.power.simulate import Size
from analysis.power.study import BUDGETS, markdown, study, summarize
from analysis.power.truth import SCENARIOS

# What a sweep was, and what it could be: seeds and samples per prompt on 256 prompts.
SIZES = (Size(3, 1), Size(5, 4), Size(8, 4), Size(10, 1), Size(10, 4), Size(10, 8))


def main() -> int:
    """Print coverage and verdicts by scenario, or with --power what sweeps of several sizes find."""
    parser = argparse.ArgumentParser(description="Coverage and power of the statistics, by simulation.")
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--power", action="store_true", help="sizes of sweep instead of scenarios")
    parser.add_argument("--replications", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    for name, default in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    rows = []
    if given.power:
        rows = [_power(size, given.replications, given.processes) for size in SIZES]
    else:
        size = Size(given.seeds, given.samples, given.prompts)
        for scenario in given.scenario:
            rows.append(summarize(scenario, study(scenario, size, given.replications, given.processes)))
    print("\n".join(markdown(rows)))
    return 0


def _power(size: Size, replications: int, processes: int) -> dict[str, str]:
    equal, better = (
        study(name, size, replications, processes) for name in ("all equal, β as predicted", "one better by .2")
    )
    widths = [f"{equal[f'half-width at {kl:g}'].mean():.3f}" for kl in BUDGETS]
    share = lambda frame, claim, verdict: f"{100 * (frame[claim] == verdict).mean():.0f}"  # noqa: E731
    found: dict[str, pd.DataFrame] = {"equal": equal, "better": better}
    return {
        "seeds × samples": f"{size.seeds} × {size.samples}",
        **{f"half-width at KL {kl:g} (SD)": width for kl, width in zip(BUDGETS, widths, strict=True)},
        "C1 supported, all equal (%)": share(found["equal"], "C1", "supported"),
        "C1 not supported, one better by .2 (%)": share(found["better"], "C1", "not supported"),
        "C2 supported (%)": share(found["equal"], "C2", "supported"),
        "C3 supported (%)": share(found["equal"], "C3", "supported"),
    }


if __name__ == "__main__":
    sys.exit(main())
