"""A directory is claimed by one process at a time, whoever is killed, stopped, slow or on another machine.

Time is not slept through: heartbeats are set back, and interleavings are driven by hooks on os.link and
os.listdir. Where a real process is needed, it is one of a forkserver's.
"""

import dataclasses
import errno
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.claims import Claim, ClaimLost, Holder, files, hold, is_alive, is_claimed, read_holder, try_claim
from bench.claims.owner import parse_holder, this_process

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["bench.claims"])
RACERS, ROUNDS = 8, 200


@pytest.fixture(autouse=True)
def no_clock_is_remembered(monkeypatch):
    monkeypatch.setattr(files, "_clocks", {})


@pytest.fixture
def unbeaten(monkeypatch):
    """No heartbeat thread: a file's time moves only when a test moves it."""
    monkeypatch.setattr("bench.claims.holding.HEART.add", lambda claim: None)


@pytest.fixture(scope="module")
def ended() -> Holder:
    """A process of this machine that has ended."""
    process = SERVER.Process(target=int)
    process.start()
    process.join()
    return dataclasses.replace(holder(), pid=process.pid)


def holder(**changes) -> Holder:
    """This process as a holder, with changes."""
    return dataclasses.replace(this_process(call=None, token="another", generation=1, replaces=None), **changes)


def write_claim(directory: Path, claim: Holder | bytes, *, generation: int = 1, age: float = 0) -> Path:
    path = files.claim_path(directory, generation)
    path.write_bytes(claim if isinstance(claim, bytes) else claim.to_json())
    set_age(path, age)
    return path


def set_age(path: Path, age: float) -> None:
    now = time.time_ns() - int(age * 1e9)
    os.utime(path, ns=(now, now))


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- One at a time -------------------------------------------------------------------------------------------


def race(directory: Path, barrier, wins) -> None:
    won = []
    for number in range(ROUNDS):
        barrier.wait(60)
        if try_claim(directory / str(number)) is not None:
            won.append(number)
    wins.put(won)
    barrier.wait(60)  # nobody ends, and so is dead, before all have tried all


@pytest.mark.parametrize("is_stale", [False, True], ids=["free", "stale"])
def test_of_many_takers_exactly_one_gets_it(tmp_path, is_stale, ended):
    for number in range(ROUNDS):
        (tmp_path / str(number)).mkdir()
        if is_stale:
            write_claim(tmp_path / str(number), ended)
    barrier, wins = SERVER.Barrier(RACERS), SERVER.Queue()
    racers = [SERVER.Process(target=race, args=(tmp_path, barrier, wins)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    won = [wins.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(60)
    assert sorted(number for one in won for number in one) == list(range(ROUNDS))
    assert sum(map(bool, won)) > 1, "the racers did not race"
    generation = 2 if is_stale else 1
    assert {name for number in range(ROUNDS) for name in names(tmp_path / str(number))} == {f".claim-{generation:06d}"}


def test_threads_of_one_process_exclude_each_other(tmp_path):
    claims: list[Claim | None] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        claims.append(try_claim(tmp_path))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [claim for claim in claims if claim is not None]
    claim.release()


def test_release_frees_and_leaves_nothing(tmp_path):
    assert (read_holder(tmp_path), is_claimed(tmp_path)) == (None, False)
    with hold(tmp_path, call="sweep") as claim:
        assert (claim.directory, claim.generation, claim.previous, claim.held()) == (tmp_path, 1, None, True)
        claim.require_held()
        found = read_holder(tmp_path)
        assert (found.host, found.pid, found.call, found.token) == (
            socket.gethostname(), os.getpid(), "sweep", claim.token,
        )  # fmt: skip
        assert is_claimed(tmp_path)
        assert try_claim(tmp_path) is None
        assert names(tmp_path) == [".claim-000001"]
    assert (read_holder(tmp_path), is_claimed(tmp_path), claim.held(), names(tmp_path)) == (None, False, False, [])
    with pytest.raises(ClaimLost, match="now it is free"):
        claim.require_held()
    with hold(tmp_path) as again:
        claim.release()  # a second time: it must not release the new one
        assert again.held()


def test_waiting_ends_when_the_holder_releases(tmp_path):
    first = try_claim(tmp_path)
    threading.Timer(0.1, first.release).start()
    with hold(tmp_path, timeout=30, poll=0.01) as second:
        assert second.held()


def test_waiting_in_vain_says_for_whom(tmp_path):
    with (
        hold(tmp_path),
        pytest.raises(TimeoutError, match=f"process {os.getpid()} on {socket.gethostname()}.* after 0.02 s"),
        hold(tmp_path, timeout=0.02, poll=0.01),
    ):
        pass


# --- Owners on this machine ----------------------------------------------------------------------------------


def keep(directory: Path, heartbeat_seconds: float) -> None:
    claim = try_claim(directory, heartbeat_seconds=heartbeat_seconds)
    (directory / "claimed").touch()
    wait_for((directory / "look").exists)
    try:
        claim.require_held()
    except ClaimLost as error:
        claim.release()
        (directory / "lost").write_text(str(error))
    time.sleep(600)


@pytest.fixture
def owner(tmp_path):
    """Start a process that holds tmp_path, and end it with the test."""
    started = []

    def start(heartbeat_seconds: float = 20):
        process = SERVER.Process(target=keep, args=(tmp_path, heartbeat_seconds))
        process.start()
        started.append(process)
        wait_for((tmp_path / "claimed").exists)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_killed_owner_is_replaced_at_once(tmp_path, owner):
    process = owner()
    token = read_holder(tmp_path).token
    assert is_claimed(tmp_path)
    assert try_claim(tmp_path) is None
    process.kill()
    process.join()
    assert not is_claimed(tmp_path)
    with try_claim(tmp_path) as claim:
        assert (claim.generation, claim.previous.token, claim.previous.pid) == (2, token, process.pid)
        assert names(tmp_path) == [".claim-000002", "claimed"]


def test_a_zombie_is_dead(tmp_path):
    code = f"from pathlib import Path; from bench.claims import try_claim; c = try_claim(Path({str(tmp_path)!r})); "
    process = subprocess.Popen([sys.executable, "-c", code + "print(1, flush=True); input()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with process:
        assert process.stdout.readline() == b"1\n"
        assert try_claim(tmp_path) is None
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped
        assert Path(f"/proc/{process.pid}").exists()
        with try_claim(tmp_path) as claim:
            assert claim.previous.pid == process.pid


def test_a_living_owner_keeps_its_claim_by_beating(tmp_path, owner):
    """Without the beats the claim would be stale after 0.5 s."""
    owner(heartbeat_seconds=0.05)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert try_claim(tmp_path, stale_seconds=0.5) is None
        time.sleep(0.05)


def test_a_stopped_owner_loses_its_claim_and_notices(tmp_path, owner):
    process = owner(heartbeat_seconds=0.02)
    os.kill(process.pid, signal.SIGSTOP)
    with hold(tmp_path, timeout=30, poll=0.02, stale_seconds=0.4, heartbeat_seconds=600) as claim:
        assert claim.previous.pid == process.pid
        path = files.claim_path(tmp_path, 2)
        before = (path.stat().st_mtime_ns, path.read_bytes(), names(tmp_path))
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.2)  # ten of its heartbeats
        assert (path.stat().st_mtime_ns, path.read_bytes(), names(tmp_path)) == before
        (tmp_path / "look").touch()
        wait_for((tmp_path / "lost").exists)
        assert claim.held()
    assert f"held by process {os.getpid()}" in (tmp_path / "lost").read_text()
    assert names(tmp_path) == ["claimed", "look", "lost"]


def test_a_process_with_the_same_id_that_started_later_is_another(tmp_path):
    now = holder()
    assert now.process_started is not None
    write_claim(tmp_path, now)
    assert is_claimed(tmp_path)
    write_claim(tmp_path, dataclasses.replace(now, process_started=now.process_started - 1))
    assert not is_claimed(tmp_path)
    with try_claim(tmp_path) as claim:
        assert claim.held()


def test_a_living_owner_that_does_not_beat_is_stale(tmp_path):
    write_claim(tmp_path, holder(), age=299)
    assert is_claimed(tmp_path)
    write_claim(tmp_path, holder(), age=301)
    assert not is_claimed(tmp_path)


def test_a_forked_child_neither_beats_nor_holds_nor_releases(tmp_path):
    claim = try_claim(tmp_path, heartbeat_seconds=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # it may have been forked while another thread held a lock
            claim.release()
            (tmp_path / "child").mkdir()
            own = try_claim(tmp_path / "child", heartbeat_seconds=0.02)
            path = files.claim_path(own.directory, 1)
            stamp = path.stat().st_mtime_ns
            wait_for(lambda: path.stat().st_mtime_ns > stamp)  # its own claims beat
            status = 10 + 2 * own.held() + claim.held()
        finally:
            os._exit(status)  # never back into pytest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
    assert claim.held()
    claim.release()


def test_a_child_that_outlives_its_parent_does_not_keep_the_claim_alive(tmp_path):
    code = (
        "import os, time; from pathlib import Path; from bench.claims import try_claim\n"
        f"claim = try_claim(Path({str(tmp_path)!r}), heartbeat_seconds=0.02)\n"
        "child = os.fork()\n"
        "if child == 0: os.close(1); time.sleep(600)\n"
        "print(child, flush=True); os._exit(0)"
    )
    child = int(subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, check=True).stdout)
    try:
        with try_claim(tmp_path) as claim:
            path = files.claim_path(tmp_path, claim.generation)
            stamp = path.stat().st_mtime_ns
            time.sleep(0.1)
            assert path.stat().st_mtime_ns == stamp
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_heartbeat_keeps_no_process_alive_and_ends_with_the_last_claim(tmp_path):
    code = f"from pathlib import Path; from bench.claims import try_claim; try_claim(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
    with hold(tmp_path):
        assert [thread.name for thread in threading.enumerate()].count("claims") == 1
    wait_for(lambda: "claims" not in [thread.name for thread in threading.enumerate()])
    with hold(tmp_path, heartbeat_seconds=0.02):  # and starts again
        stamp = files.claim_path(tmp_path, 1).stat().st_mtime_ns
        wait_for(lambda: files.claim_path(tmp_path, 1).stat().st_mtime_ns > stamp)


# --- Owners elsewhere ----------------------------------------------------------------------------------------

ELSEWHERE = {
    "another host": {"host": "elsewhere"},
    "another container": {"pid_namespace": "pid:[1]"},
    "another machine of that name": {"boot": "another"},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=ELSEWHERE.keys())
@pytest.mark.parametrize("wrong_by", [-3600, 0, 3600])
def test_an_owner_elsewhere_is_judged_by_the_file_servers_clock(tmp_path, monkeypatch, ended, changes, wrong_by):
    claim = dataclasses.replace(ended, **changes)  # a process of that id is gone here, which says nothing
    path = write_claim(tmp_path, claim, age=290)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + wrong_by)
    assert is_alive(tmp_path, claim)
    assert is_claimed(tmp_path)
    assert try_claim(tmp_path) is None
    monkeypatch.setattr(time, "time", true_time)
    set_age(path, 310)
    monkeypatch.setattr(time, "time", lambda: true_time() + wrong_by)
    assert not is_alive(tmp_path, claim)
    with try_claim(tmp_path) as taken:
        assert taken.previous == claim


def test_beats_are_stamped_by_the_file_server(tmp_path, monkeypatch):
    claim = try_claim(tmp_path)
    path = files.claim_path(tmp_path, 1)
    set_age(path, 100)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600)
    assert claim.beat()
    assert abs(path.stat().st_mtime - true_time()) < 30
    claim.release()


@pytest.mark.parametrize("content", [b"", b'{"host": "a', b"{}", b"[]", b"\xff", b'{"host": 1, "pid": "x"}'])
def test_an_unreadable_claim_is_held_by_nobody_known_while_it_beats(tmp_path, content):
    write_claim(tmp_path, content, age=200)
    assert is_claimed(tmp_path)
    assert try_claim(tmp_path) is None
    assert str(read_holder(tmp_path)) == "an unknown process"
    write_claim(tmp_path, content, age=400)
    assert not is_claimed(tmp_path)
    with try_claim(tmp_path) as claim:
        assert (claim.generation, claim.held()) == (2, True)
        assert not claim.previous.is_known
    assert names(tmp_path) == []


def test_looking_writes_nothing_when_the_process_decides(tmp_path, ended, monkeypatch):
    write_claim(tmp_path, ended)
    os.utime(tmp_path, ns=(1, 1))
    assert not is_claimed(tmp_path)
    assert read_holder(tmp_path) == ended
    assert tmp_path.stat().st_mtime_ns == 1


@pytest.mark.parametrize("age", [200, 400])
def test_a_read_only_directory_can_be_looked_at(tmp_path, monkeypatch, age):
    write_claim(tmp_path, holder(), age=age)
    real_open = os.open

    def read_only(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert is_claimed(tmp_path) == (age == 200)


def test_what_job_and_call_is_kept(tmp_path, monkeypatch):
    for variable, value, job in (
        ("PBS_JOBID", "5.server", "5.server"),
        ("SLURM_JOB_ID", "17", "17"),
        ("SLURM_ARRAY_JOB_ID", "15", "17"),
        ("SLURM_ARRAY_TASK_ID", "2", "15_2"),
    ):
        monkeypatch.setenv(variable, value)
        with hold(tmp_path):
            assert read_holder(tmp_path).job == job
            assert str(read_holder(tmp_path)).endswith(f"(job {job})")


def test_a_claim_of_a_version_with_more_or_fewer_facts_is_read():
    now = holder()
    values = json.loads(now.to_json())
    assert parse_holder(json.dumps({**values, "new": 1}).encode(), 7) == dataclasses.replace(now, generation=7)
    del values["boot"], values["replaces"]
    assert parse_holder(json.dumps(values).encode(), 1) == dataclasses.replace(now, boot=None)


# --- Slow takers: the order of steps is driven, not hoped for ------------------------------------------------


@pytest.fixture
def before_link(monkeypatch):
    """Run something between what the next taker has seen and its making of a claim, and something after it."""
    real_link = os.link

    def arrange(before: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        def link(source, target):
            monkeypatch.setattr(os, "link", real_link)
            before()
            real_link(source, target)
            after()

        monkeypatch.setattr(os, "link", link)

    return arrange


def test_a_taker_that_saw_it_free_gets_nothing_when_another_was_faster(tmp_path, before_link):
    fast: list[Claim] = []
    before_link(lambda: fast.append(try_claim(tmp_path)))
    assert try_claim(tmp_path) is None
    assert fast[0].held()
    assert names(tmp_path) == [".claim-000001"]
    fast[0].release()


def test_a_taker_that_saw_it_free_backs_off_below_a_later_generation(tmp_path, before_link, ended):
    """It was claimed, left by a dead owner and taken over since: generation 1 is free again, and 2 is held."""
    later: list[Claim] = []

    def claimed_and_taken_over() -> None:
        write_claim(tmp_path, ended)
        later.append(try_claim(tmp_path))
        assert names(tmp_path)[0] == ".claim-000002"

    before_link(claimed_and_taken_over, lambda: later[0].require_held())
    assert try_claim(tmp_path) is None
    assert later[0].held()
    assert names(tmp_path) == [".claim-000002"]
    later[0].release()


def test_a_taker_that_saw_a_dead_owner_gets_nothing_when_another_was_faster(tmp_path, before_link, ended):
    write_claim(tmp_path, ended)
    fast: list[Claim] = []
    before_link(lambda: fast.append(try_claim(tmp_path)))
    assert try_claim(tmp_path) is None
    assert (fast[0].held(), fast[0].generation) == (True, 2)
    assert names(tmp_path) == [".claim-000002"]
    fast[0].release()


def test_a_taker_that_saw_a_dead_owner_never_disturbs_who_came_after_the_next_one(tmp_path, before_link, ended):
    """Taken over, released and claimed afresh since: the late taker's generation 2 stands above a live 1."""
    write_claim(tmp_path, ended)
    live: list[Claim] = []
    seen: list[object] = []

    def taken_over_released_claimed() -> None:
        try_claim(tmp_path).release()
        live.append(try_claim(tmp_path))

    def while_it_stands_above() -> None:
        assert names(tmp_path)[:2] == [".claim-000001", ".claim-000002"]
        seen.extend([live[0].held(), live[0].beat(), is_claimed(tmp_path), try_claim(tmp_path)])

    before_link(taken_over_released_claimed, while_it_stands_above)
    assert try_claim(tmp_path) is None
    assert seen == [True, True, True, None]
    assert (live[0].held(), live[0].generation) == (True, 1)
    assert names(tmp_path) == [".claim-000001"]
    live[0].release()


def test_what_a_late_taker_leaves_when_it_is_killed_disturbs_nobody(tmp_path, ended):
    with hold(tmp_path) as live:
        left = dataclasses.replace(ended, generation=2, token="late", replaces="long gone")
        write_claim(tmp_path, left, generation=2)
        assert live.held()
        assert is_claimed(tmp_path)
        assert try_claim(tmp_path) is None
    with hold(tmp_path) as claim:
        assert (claim.generation, claim.previous) == (3, left)
        assert names(tmp_path) == [".claim-000003"]


def test_an_owner_that_wakes_up_sees_who_replaced_it_before_its_own_file_is_removed(tmp_path, before_link, unbeaten):
    slept = try_claim(tmp_path)
    path = files.claim_path(tmp_path, 1)
    set_age(path, 400)
    stamp = path.stat().st_mtime_ns
    seen: list[object] = []

    def both_are_there() -> None:
        seen.extend([slept.held(), slept.beat(), path.stat().st_mtime_ns == stamp])

    before_link(lambda: None, both_are_there)
    taken = try_claim(tmp_path)
    assert seen == [False, False, True]
    slept.release()
    assert taken.held()
    assert not slept.held()
    taken.release()


def test_a_lost_claim_is_noticed_when_its_successor_is_gone_too(tmp_path, unbeaten):
    slept = try_claim(tmp_path)
    set_age(files.claim_path(tmp_path, 1), 400)
    try_claim(tmp_path).release()
    with hold(tmp_path) as third:  # generation 1 again
        assert (third.generation, third.held(), slept.held(), slept.beat()) == (1, True, False, False)
        slept.release()
        assert third.held()


def test_older_claims_are_removed_oldest_first(tmp_path, ended, monkeypatch):
    """Else a killed taker could leave the replaced claim without its successor, and its owner would wake up to it."""
    for generation in (10, 9, 11):
        write_claim(tmp_path, ended, generation=generation)
    removed: list[str] = []
    real_unlink = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        real_unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        claim = try_claim(tmp_path)
    claim.release()
    assert [name for name in removed if not name.endswith(".tmp")] == [f".claim-{n:06d}" for n in (9, 10, 11)]


def test_a_listing_torn_by_a_takeover_gives_no_second_holder(tmp_path, monkeypatch, ended):
    """POSIX lets a directory listing miss both the claim removed and the one made during it."""
    write_claim(tmp_path, ended)
    real = os.listdir
    with try_claim(tmp_path) as claim:
        answers = iter([[]])
        monkeypatch.setattr(os, "listdir", lambda path: next(answers, None) or real(path))
        assert try_claim(tmp_path) is None
        assert claim.held()
        assert names(tmp_path) == [".claim-000002"]


# --- File systems --------------------------------------------------------------------------------------------


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def no_hard_links(request, monkeypatch):
    def link(source, target):
        raise OSError(request.param, os.strerror(request.param), str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links(tmp_path, no_hard_links, ended):
    with try_claim(tmp_path) as claim:
        assert claim.held()
        assert read_holder(tmp_path).token == claim.token
        assert try_claim(tmp_path) is None
        assert names(tmp_path) == [".claim-000001"]
    write_claim(tmp_path, ended)
    with try_claim(tmp_path) as claim:
        assert (claim.generation, try_claim(tmp_path), names(tmp_path)) == (2, None, [".claim-000002"])
    assert names(tmp_path) == []


def test_a_server_that_repeats_an_answer_is_believed_by_content(tmp_path, monkeypatch):
    """The link was made, the answer was lost, and the client's second try says that it exists."""
    real = os.link

    def link(source, target):
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    with try_claim(tmp_path) as claim:
        assert claim.held()


def test_a_directory_that_is_not_there_is_neither_claimed_nor_free(tmp_path):
    directory = tmp_path / "gone"
    directory.mkdir()
    claim = try_claim(directory)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    assert (claim.held(), claim.beat(), is_claimed(directory), try_claim(directory)) == (False, False, False, None)
    assert not is_alive(directory, holder())
    claim.release()
    with pytest.raises(FileNotFoundError, match="gone"), hold(directory):
        pass
    assert not directory.exists()


def test_a_directory_that_vanishes_on_the_way_is_not_taken(tmp_path, before_link):
    directory = tmp_path / "gone"
    directory.mkdir()

    def vanish() -> None:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()

    before_link(vanish)
    assert try_claim(directory) is None


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC])
def test_other_errors_name_the_file_and_leave_nothing(tmp_path, monkeypatch, code):
    def link(source, target):
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match=r"\.claim-000001") as caught:
        try_claim(tmp_path)
    assert caught.value.errno == code
    assert names(tmp_path) == []


def test_a_full_disk_leaves_no_half_written_file(tmp_path):
    # A limit on the size of files stands for it: part is written, then writing fails.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match=r"\.claim-.*\.tmp") as caught:
            try_claim(tmp_path, call="x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert names(tmp_path) == []


def test_debris_of_killed_processes_is_removed_and_what_is_in_use_is_not(tmp_path):
    for name, age in ((".claim-0.tmp", 400), (".claim-1.tmp", 200), ("mine.tmp", 400), (".claims.tmp", 400)):
        (tmp_path / name).touch()
        set_age(tmp_path / name, age)
    with hold(tmp_path):
        assert names(tmp_path) == [".claim-000001", ".claim-1.tmp", ".claims.tmp", "mine.tmp"]


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    (tmp_path / "cell").mkdir()
    monkeypatch.chdir(tmp_path)
    with hold(Path("cell")) as claim:
        monkeypatch.chdir("/")
        assert (claim.held(), claim.beat()) == (True, True)
    assert names(tmp_path / "cell") == []
