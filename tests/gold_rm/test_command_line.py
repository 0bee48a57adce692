"""What a user can mend is one message; a signal is an interrupt; what is ours keeps its traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest
from rich.table import Table

from bench.claims import hold
from bench.sweep.stopping import StopRequest
from gold_rm.command_line import run_with_messages, terminal


@pytest.fixture
def restored():
    """Signals are listened to, as in a terminal's foreground, and their handlers put back afterwards."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_so(number, restored):
    """As by nohup: the terminal is closed, and the sweep goes on."""
    signal.signal(number, signal.SIG_IGN)
    stop = StopRequest()

    def action():
        with stop.listening():
            os.kill(os.getpid(), number)
        return 7

    assert run_with_messages(action) == 7
    assert not stop()
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_what_a_library_makes_of_an_interrupt_is_still_one(capsys, number, restored):
    def action():
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise ModuleNotFoundError("could not import") from error
        return 0

    assert run_with_messages(action) == 130
    assert capsys.readouterr().err.startswith("interrupted")


def test_an_interrupt_of_an_import_or_a_finalizer_is_not_lost(monkeypatch, tmp_path, restored):
    """Seen of workers that were asked to stop while transformers was imported: they went on, and were killed."""

    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def finalize():
        Finalized()  # an exception in __del__ is printed and dropped
        time.sleep(5)
        return 0

    (tmp_path / "tries_what_it_can_import.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.2)\nexcept BaseException:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def import_it():
        __import__("tries_what_it_can_import")
        time.sleep(5)
        return 0

    assert run_with_messages(finalize) == 130
    assert run_with_messages(import_it) == 130


def test_an_import_that_never_ends_is_interrupted_after_a_while(monkeypatch, tmp_path, restored):
    (tmp_path / "never_ends.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gold_rm.interrupts._MOST_SECONDS", 0.5)
    assert run_with_messages(lambda: bool(__import__("never_ends"))) == 130


def test_what_has_ended_is_not_interrupted_later(monkeypatch, tmp_path, restored):
    (tmp_path / "asked_at_its_end.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_with_messages(lambda: 0 if __import__("asked_at_its_end") else 1) == 0
    time.sleep(0.2)


def test_an_error_of_ours_is_not_hidden(restored):
    with pytest.raises(ZeroDivisionError):
        run_with_messages(lambda: 1 // 0)


def test_a_lost_claim_is_one_message(capsys, tmp_path):
    def action():
        with hold(tmp_path) as claim:
            next(tmp_path.glob(".claim-*")).unlink()
            claim.require_held()
        return 0

    assert run_with_messages(action) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not held any more; now it is free\n"


def test_handlers_are_as_they_were_afterwards(restored):
    before = signal.getsignal(signal.SIGTERM)
    run_with_messages(lambda: 0)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "error", [MemoryError("3 TiB"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_memory_that_is_not_there_is_one_message(capsys, error):
    def action():
        raise error

    assert run_with_messages(action) == 2
    assert capsys.readouterr().err == f"error: not enough memory: {error}\n"


def test_a_terminal_without_greek_loses_a_letter_and_no_more():
    code = (
        "from gold_rm.command_line import run_with_messages, terminal\n"
        "run_with_messages(lambda: print('β = 1 ± 0.5') or terminal().print('β') or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True
    )
    assert done.stdout == b"? = 1 ? 0.5\n?\n"


def test_brackets_in_names_are_no_markup(capsys):
    table = Table("cell")
    table.add_row("[red]x")
    console = terminal()
    console.print("runs/[red]x")
    console.print(table)
    said = capsys.readouterr().out
    assert said.count("[red]x") == 2
