"""What the entry points share: messages instead of tracebacks for what a user can mend, and exit statuses."""

import difflib
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bench.config import CellConfig, ConfigError, known_keys
from bench.data.artifacts import DamagedArtifact
from bench.records import DamagedRecord
from gold_rm.reward_model import GoldModelError

CONFIG_DIR = Path(__file__).resolve().parent.parent / "conf"
CONFIG_NAME = "train"
BAD_INPUT, INTERRUPTED = 2, 130
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")


def run_with_messages(action: Callable[[], int]) -> int:
    """Call `action` and return its exit status; what the user can mend becomes one message and status 2."""
    signal.signal(signal.SIGTERM, _terminate)
    # Hydra then raises what it would otherwise print by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        return action()
    except HydraException as error:
        _fail(_explain_hydra(error))
    except (ConfigError, DamagedRecord, DamagedArtifact, GoldModelError, OmegaConfBaseException) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'while reading or writing'}")
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept; the same command runs what is missing", file=sys.stderr)
        return INTERRUPTED
    return BAD_INPUT


def compose_from_command_line() -> list[tuple[DictConfig, list[str]]]:
    """The configuration that the command line asks for, with its overrides.

    Empty where Hydra only prints, as with ``--cfg job``. What follows runs outside of Hydra's job, which would
    print its own message before ours.
    """
    captured: list[tuple[DictConfig, list[str]]] = []

    @hydra.main(config_path=str(CONFIG_DIR), config_name=CONFIG_NAME, version_base="1.3")
    def capture(composed: DictConfig) -> None:
        captured.append((composed, list(HydraConfig.get().overrides.task)))

    capture()
    return captured


def _terminate(signum: int, frame: Any) -> None:
    # As Ctrl-C does: workers are ended, locks and temporary files given up.
    raise KeyboardInterrupt


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def _explain_hydra(error: HydraException) -> str:
    message = str(error).split("\nConfig search path")[0].strip()
    if unknown := _UNKNOWN_KEY.search(message):
        key = unknown.group(1)
        nearest = difflib.get_close_matches(key, ["experiment", *known_keys(CellConfig)], n=1, cutoff=0.0)[0]
        return f"{key}: no such key; did you mean {nearest!r}? All keys: python -m bench.train --cfg job"
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", message):
        group, name = missing.groups()
        options = re.search(r"Available options in '[^']+':\n((?:\s+\S+\n?)+)", message)
        known = options.group(1).split() if options else []
        nearest_option = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f"; did you mean {nearest_option[0]!r}? Known are {', '.join(known)}" if nearest_option else ""
        return f"{group}={name}: no such file in conf/{group}{hint}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        return f"{message}: {str(error.__cause__).splitlines()[0]}"
    return message
