"""All benchmarks that need no GPU, as markdown tables for docs/performance.md.

    python -m benchmarks [--against CHECKOUT] [--rounds 3] [--cpu] [--sweep runs/frontier] [KEY=VALUE ...]

KEY=VALUE are settings of the cells. The first run builds what cells stand on. Nothing else should run meanwhile.
"""

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--against", metavar="CHECKOUT", help="another working tree; TRL's side needs none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweep", default="runs/frontier", help="a finished sweep, for the reports' times")
    parser.add_argument("--cpu", action="store_true", help="processor time of cells, where the machine is busy")
    options = parser.parse_args()
    cpu = ["--cpu"] if options.cpu else []
    other = ["--against", options.against] if options.against else []
    print(f"{machine()}\n", flush=True)
    parts = {
        "A warm cell and its parts": ["cell.py", "--cells", str(options.rounds), *cpu, *other, *options.overrides],
        "Beside TRL's DPOTrainer": ["beside_trl.py", "--rounds", str(options.rounds), *cpu, *options.overrides],
        "Start-up and reports": ["commands.py", "--rounds", str(options.rounds), "--sweep", options.sweep, *other],
    }
    statuses = []
    for title, (script, *arguments) in parts.items():
        print(f"## {title}\n", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        ran = subprocess.run([sys.executable, str(HERE / script), *arguments], env=environment, check=False)
        statuses.append(ran.returncode)
        print(flush=True)
    return max(statuses)


def machine() -> str:
    """One line: processor, cores, load, and the versions that matter."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    return f"{processor}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, {libraries}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []


if __name__ == "__main__":
    sys.exit(main())
