"""What all commands have in common: terminal, exit statuses, and messages for what a user can mend."""

import io
import sys
from collections.abc import Callable

from rich.console import Console

from gold_rm.errors import UserError
from gold_rm.interrupts import Interrupts
from gold_rm.memory import is_out_of_memory

BAD_INPUT, INTERRUPTED = 2, 130


def terminal() -> Console:
    """A console to print to; names may hold brackets, which are no markup. Files get long lines."""
    return Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)


def run_with_messages(action: Callable[[], int], *, if_interrupted: str = "") -> int:
    """Call `action` and return its exit status; what the user can mend becomes one message and status 2.

    An error of ours keeps its traceback, and Python's status 1.

    Args:
        if_interrupted: what an interrupted user wants to know, such as how to go on.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding without β or ± is no reason to lose the rest
            stream.reconfigure(errors="replace")
    with Interrupts() as interrupts:  # all as Ctrl-C does: workers are ended, claims and temporary files given up
        try:
            return action()
        except KeyboardInterrupt:
            return _interrupted(if_interrupted)
        except UserError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.strerror or error}: {error.filename or 'while reading or writing'}")
        except MemoryError as error:
            _fail(f"not enough memory: {error}")
        except Exception as error:
            if interrupts.heard:  # a library has made another error of one
                return _interrupted(if_interrupted)
            if not is_out_of_memory(error):
                raise
            _fail(f"not enough memory: {' '.join(str(error).split())}")
        return BAD_INPUT


def _interrupted(words: str) -> int:
    print(f"interrupted{': ' if words else ''}{words}", file=sys.stderr)
    return INTERRUPTED


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
