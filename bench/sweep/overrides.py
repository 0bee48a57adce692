"""Overrides that Hydra would take and nothing here would hear: refused, not dropped."""

import re
from collections.abc import Iterable

from bench.checked import ConfigError

NOT_BY_MODE = "hydra.mode: a sweep is asked for with -m, python -m bench.train -m KEY=VALUE,VALUE"
# Of Hydra's own keys, those that are heard here; folders and logs are ours.
_HYDRA_KEYS = re.compile(r"hydra/.*|hydra\.(launcher|searchpath|sweeper\.params)(\..*)?")


def check_overrides(words: Iterable[str]) -> None:
    """Refuse settings of Hydra itself that change nothing here, and overrides without a key.

    Raises:
        ConfigError: naming the override and what is heard.
    """
    for word in words:
        key, sign, value = word.lstrip("+~").partition("=")
        if sign and not key:
            raise ConfigError(f"{word}: no key before the =")
        if key == "hydra.mode":
            raise ConfigError(NOT_BY_MODE)
        if key.startswith("hydra") and not key.startswith("-") and not _HYDRA_KEYS.fullmatch(key):
            raise ConfigError(
                f"{word}: would change nothing; of Hydra's keys, hydra/launcher, hydra.launcher.*, hydra.searchpath "
                "and hydra.sweeper.params.* are heard (runs_dir and sweep say where things are kept)"
            )
        if key == "hydra.sweeper.params" and value.replace(" ", "") == "{}":
            raise ConfigError(f"{word}: Hydra adds nothing to the lists that are there; null takes them away")
