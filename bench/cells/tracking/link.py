"""What a process has with W&B's service and server, either of which may hang or be gone."""

from contextlib import suppress

import psutil

from bench.cells.background import Background

OFFLINE, DISABLED = "offline", "disabled"


class Link:
    """What this process has with W&B: calls are made in the background, as its service and its server may hang."""

    def __init__(self) -> None:
        self.background, self._failures = Background(), 0

    def mode(self, wanted: str) -> str:
        """What a run is in: offline after a server has failed, disabled after W&B's own service has, too."""
        return (wanted, OFFLINE, DISABLED)[min(self._failures, 2)]

    def give_up(self) -> None:
        """Leave what hangs to itself, and end W&B's service, for which the end of this process would wait."""
        self._failures += 1
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name().startswith("wandb-core"):
                    child.kill()
        self.background = Background()
        self.background.call(_forget_service)


def _forget_service() -> None:
    import wandb

    with suppress(Exception):  # of a connection that is broken
        wandb.teardown(exit_code=1)


LINK = Link()
