"""Artifacts are built once, whole or not at all, and damage is found, whatever stops a build."""

import errno
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.claims import try_claim
from bench.config import fingerprint_of
from bench.data import artifacts
from bench.data.artifacts import MANIFEST_FILE, DamagedArtifact, build_once, verify

INPUTS = {"size": 3, "nested": {"rule": "deterministic"}}
# The server imports once for all children, and has none of this process's threads.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["bench.data.artifacts"])


def write_two_files(directory: Path) -> None:
    (directory / "model").mkdir()
    (directory / "model" / "weights.bin").write_bytes(b"\1\2\3" * 100)
    (directory / "facts.json").write_text("{}")


def slow_and_counted(directory: Path) -> None:
    write_two_files(directory)
    with (directory.parent.parent / "builds.log").open("a") as log:
        log.write("built\n")
    time.sleep(0.2)


def never_ending(directory: Path) -> None:
    write_two_files(directory)
    (directory.parent.parent / "started").touch()
    time.sleep(600)


def build_in_child(root: Path, builder: Callable[[Path], None]) -> None:
    build_once(root, "kind", INPUTS, builder)


def contents(directory: Path) -> set[str]:
    """Names below `directory`, hidden ones too."""
    return {str(p.relative_to(directory)) for p in directory.rglob("*")}


def test_an_artifact_is_named_by_its_inputs_and_known_by_its_content(tmp_path):
    artifact = build_once(tmp_path, "kind", INPUTS, write_two_files)
    assert artifact.path == tmp_path / "kind" / fingerprint_of(INPUTS)
    assert contents(artifact.path) == {MANIFEST_FILE, "facts.json", "model", "model/weights.bin"}
    same_content = build_once(tmp_path, "kind", {"size": 4}, write_two_files)
    assert same_content.path != artifact.path
    assert same_content.fingerprint == artifact.fingerprint

    def other_content(directory: Path) -> None:
        write_two_files(directory)
        (directory / "facts.json").write_text("{ }")

    assert build_once(tmp_path, "kind", {"size": 5}, other_content).fingerprint != artifact.fingerprint


def test_a_second_call_builds_nothing_and_key_order_does_not_matter(tmp_path):
    messages: list[str] = []
    first = build_once(tmp_path, "kind", INPUTS, write_two_files, messages.append)
    again = build_once(tmp_path, "kind", dict(reversed(INPUTS.items())), pytest.fail, messages.append)
    assert again == first
    assert len(messages) == 1


def test_the_artifact_can_be_read_by_whoever_may_read_new_directories(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    artifact = build_once(tmp_path, "kind", INPUTS, write_two_files)
    assert artifact.path.stat().st_mode == plain.stat().st_mode


def test_the_finished_directory_is_renamed_not_copied(tmp_path):
    """A copy could be seen, or left behind, half done."""
    built_in: list[Path] = []
    inodes: list[int] = []

    def watched(directory: Path) -> None:
        write_two_files(directory)
        built_in.append(directory)
        inodes.append(directory.stat().st_ino)

    artifact = build_once(tmp_path, "kind", INPUTS, watched)
    assert built_in != [artifact.path]
    assert inodes == [artifact.path.stat().st_ino]


def test_processes_that_start_together_build_once(tmp_path):
    children = [SERVER.Process(target=build_in_child, args=(tmp_path, slow_and_counted)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (tmp_path / "builds.log").read_text() == "built\n"
    assert contents(tmp_path / "kind") == contents_of_one_build()


def contents_of_one_build() -> set[str]:
    name = fingerprint_of(INPUTS)
    files = (MANIFEST_FILE, "facts.json", "model", "model/weights.bin")
    return {name, *(f"{name}/{file}" for file in files)}


@pytest.mark.parametrize(
    "error",
    [ValueError("bad params"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()],
    ids=["failure", "full disk", "Ctrl-C"],
)
def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path, error):
    def failing(directory: Path) -> None:
        write_two_files(directory)
        raise error

    with pytest.raises(type(error)) as caught:
        build_once(tmp_path, "kind", INPUTS, failing)
    assert caught.value is error
    assert contents(tmp_path / "kind") == set()
    assert build_once(tmp_path, "kind", INPUTS, write_two_files).path.is_dir()


def test_a_build_killed_by_the_kernel_is_cleared_away_and_repeated(tmp_path):
    child = start_never_ending(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert contents(tmp_path / "kind"), "the killed build left its temporary directory"
    build_once(tmp_path, "kind", INPUTS, write_two_files)
    assert contents(tmp_path / "kind") == contents_of_one_build()


def start_never_ending(root: Path) -> multiprocessing.Process:
    child = SERVER.Process(target=build_in_child, args=(root, never_ending))
    child.start()
    deadline = time.monotonic() + 60
    while not (root / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return child


def test_who_waits_says_for_whom_and_builds_at_once_when_the_builder_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "REPORT_WAIT_SECONDS", 0.3)
    child = start_never_ending(tmp_path)
    messages: list[str] = []

    def progress(message: str) -> None:
        messages.append(message)
        if message.startswith("waiting"):
            child.kill()
            child.join()

    began = time.monotonic()
    build_once(tmp_path, "kind", INPUTS, write_two_files, progress)
    assert 0.3 < time.monotonic() - began < 20
    name = fingerprint_of(INPUTS)
    who = f"process {child.pid} on {socket.gethostname()}"
    assert [message.partition(" (job")[0] for message in messages] == [
        f"waiting for kind {name}, which {who} is building", f"building kind {name}",
    ]  # fmt: skip
    assert contents(tmp_path / "kind") == contents_of_one_build()


@pytest.mark.parametrize("is_finished", [True, False], ids=["the other has built it", "the other has died"])
def test_a_builder_that_lost_its_claim_publishes_nothing_of_its_own(tmp_path, is_finished):
    """It was stopped for so long that another process took over."""
    attempts: list[Path] = []

    def overtaken(directory: Path) -> None:
        attempts.append(directory)
        write_two_files(directory)
        if len(attempts) > 1:
            return
        (directory / "facts.json").write_text("late")
        building = directory.parent / f".{fingerprint_of(INPUTS)}.building"
        for claim in building.iterdir():
            os.utime(claim, ns=(1, 1))
        with try_claim(building):
            if is_finished:
                shutil.copytree(build_once(tmp_path / "other", "kind", INPUTS, write_two_files).path,
                                directory.parent / fingerprint_of(INPUTS))  # fmt: skip

    messages: list[str] = []
    artifact = build_once(tmp_path, "kind", INPUTS, overtaken, messages.append)
    assert (artifact.path / "facts.json").read_text() == "{}"
    assert len(attempts) == (1 if is_finished else 2)
    assert "was taken over" in messages[1]
    assert contents(tmp_path / "kind") == contents_of_one_build()


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda path: (path / "facts.json").write_text("{ }"), "facts.json does not match its checksum"),
        (lambda path: (path / "model/weights.bin").write_bytes(b"\1\2\3" * 99), "model/weights.bin does not match"),
        (lambda path: (path / "model/weights.bin").unlink(), "model/weights.bin is missing"),
        (lambda path: (path / MANIFEST_FILE).unlink(), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_FILE).write_text('{"files": {'), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_FILE).write_text("{}"), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_FILE).write_text("[1]"), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_FILE).write_bytes(b"\xff"), "manifest.json is unreadable"),
    ],
    ids=[
        "changed",
        "truncated",
        "deleted",
        "no manifest",
        "cut manifest",
        "empty manifest",
        "list as manifest",
        "bytes",
    ],
)
def test_damage_is_found_and_the_message_says_what_to_do(tmp_path, harm, complaint):
    artifact = build_once(tmp_path, "kind", INPUTS, write_two_files)
    harm(artifact.path)
    for call in (lambda: verify(artifact.path), lambda: build_once(tmp_path, "kind", INPUTS, write_two_files)):
        with pytest.raises(DamagedArtifact) as caught:
            call()
        assert str(caught.value).startswith(f"artifact {artifact.path}: ")
        assert complaint in str(caught.value)
        assert str(caught.value).endswith("delete that directory and it is built again")


def test_one_flipped_bit_of_unchanged_size_is_found(tmp_path):
    artifact = build_once(tmp_path, "kind", INPUTS, write_two_files)
    weights = artifact.path / "model" / "weights.bin"
    damaged = bytearray(weights.read_bytes())
    damaged[150] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(DamagedArtifact, match=r"weights\.bin does not match its checksum"):
        verify(artifact.path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """Another user's, or a network that is down: to delete it would be the wrong advice."""
    artifact = build_once(tmp_path, "kind", INPUTS, write_two_files)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bench.data.artifacts._describe", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        verify(artifact.path)


def test_what_is_built_is_as_readable_as_the_umask_says(tmp_path):
    """safetensors writes files that only their owner can read."""

    def write_private(directory):
        write_two_files(directory)
        (directory / "model" / "weights.bin").chmod(0o600)

    before = os.umask(0o027)
    try:
        artifact = build_once(tmp_path, "kind", INPUTS, write_private)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in artifact.path.rglob("*") if path.is_file()} == {0o640}
