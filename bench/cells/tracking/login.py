"""Whether W&B can be used with what this machine knows, asked before anything is trained."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from bench.checked import ConfigError
from bench.config import CellConfig

_OF_AN_AGENT = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RESUME")


def leave_agent() -> None:
    """Forget the W&B agent that started this process: all cells would end up in the agent's one run."""
    for name in _OF_AN_AGENT:
        os.environ.pop(name, None)


def check_login(config: CellConfig) -> None:
    """Refuse ``online`` without a key at once; wandb itself would wait for somebody to type one.

    The server is not asked whether the key is valid: one that is down must cost no cell.

    Raises:
        ConfigError: no API key in the environment, in W&B's settings or in netrc; settings that W&B refuses; or
            WANDB_DISABLED, which says otherwise.
    """
    mode = config.tracking.wandb.mode
    if mode != "disabled" and os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        raise ConfigError(f"WANDB_DISABLED is set, but tracking.wandb.mode={mode}: unset it, or say disabled")
    if mode != "online":
        return
    import wandb

    leave_agent()
    # wandb.login(prompt=False) would ask the server, for as long as it takes.
    try:
        settings = wandb.setup().settings
    except (ValueError, wandb.errors.Error) as error:  # such as WANDB_MODE= in the environment
        raise ConfigError(
            f"tracking.wandb.mode=online: W&B refuses its settings ({' '.join(str(error).split())})"
        ) from error
    if not (settings.api_key or settings.identity_token_file or _has_netrc_key(settings.base_url)):
        raise ConfigError(
            "tracking.wandb.mode=online: no API key; run `wandb login`, set WANDB_API_KEY, or use "
            "tracking.wandb.mode=offline and `wandb sync` later"
        )


def _has_netrc_key(base_url: str) -> bool:
    """Whether ``wandb login`` has left a key for this server where it leaves them."""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(base_url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
