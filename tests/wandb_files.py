"""Read the file of an offline W&B run: the log format of LevelDB, holding W&B's own protocol buffers."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto import wandb_internal_pb2

FILE_HEADER, BLOCK, RECORD_HEADER = struct.Struct("<4sHB"), 32768, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class OfflineRun(NamedTuple):
    """What W&B would upload."""

    id: str
    name: str
    group: str
    project: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    axes: dict[str, str]  # metric, or pattern of metrics -> the metric on its x axis
    exit_code: int | None


def offline_run_files(directory: Path) -> list[Path]:
    """The files of all offline runs below `directory`, without W&B's links to them."""
    return sorted(path for path in directory.rglob("offline-run-*/run-*.wandb") if not path.is_symlink())


def read_offline_run(path: Path) -> OfflineRun:
    """Replay a finished run's file; W&B's service may write its end a moment after `finish` has returned."""
    deadline = time.monotonic() + 10
    while (run := _replay(path)) is None or run.exit_code is None:
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.02)
    return run


def _replay(path: Path) -> OfflineRun | None:
    run: Any = None
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    axes: dict[str, str] = {}
    exit_code = None
    for data in _chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "history":
            history.append(_items(record.history.item))
        elif kind == "summary":
            summary |= _items(record.summary.update)
        elif kind == "metric":
            axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            exit_code = record.exit.exit_code
    if run is None:
        return None
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    return OfflineRun(
        run.run_id, run.display_name, run.run_group, run.project, config, history, summary, axes, exit_code
    )


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _chunks(content: bytes) -> Iterator[bytes]:
    """The records of a log file: pieces in blocks of 32 KiB, each piece with checksum, length and type."""
    assert FILE_HEADER.unpack_from(content)[0] == b":W&B"
    offset, parts = FILE_HEADER.size, []
    while offset + RECORD_HEADER.size <= len(content):
        if (left := BLOCK - offset % BLOCK) < RECORD_HEADER.size:
            offset += left  # too small for a header: filled with zeros
            continue
        _, length, kind = RECORD_HEADER.unpack_from(content, offset)
        offset += RECORD_HEADER.size
        if offset + length > len(content):
            return  # it is still being written
        parts.append(content[offset : offset + length])
        offset += length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
