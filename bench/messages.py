"""Messages instead of tracebacks for what a user can mend, and exit statuses; shared by all commands."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

from bench.claims import ClaimLost
from bench.records import DamagedRecord
from gold_rm.errors import UserError

BAD_INPUT, INTERRUPTED = 2, 130
SWEEP_DIR_TO = "--sweep-dir-to="  # bench.train's option: a file that is to hold the sweep's directory


def run_with_messages(action: Callable[[], int]) -> int:
    """Call `action` and return its exit status; what the user can mend becomes one message and status 2."""
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    # All as Ctrl-C does: workers are ended, claims and temporary files given up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has asked for
            signal.signal(number, interrupt)
    try:
        return action()
    except KeyboardInterrupt:
        return _interrupted()
    except (UserError, DamagedRecord, ClaimLost) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'while reading or writing'}")
    except Exception:
        if not signals:
            raise
        return _interrupted()  # numpy and transformers make other errors of an interrupt while they are imported
    return BAD_INPUT


def _interrupted() -> int:
    print("interrupted: finished cells are kept; the same command runs what is missing", file=sys.stderr)
    return INTERRUPTED


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
