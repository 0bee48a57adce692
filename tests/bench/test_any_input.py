"""Whatever is typed or lies in a file of a sweep: it is used, or refused by an error that is meant for its author.

Files of texts: tests/gold_rm/test_texts.py.
"""

import contextlib
import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from bench.cells.settings import read_cell_config
from bench.checked import known_keys
from bench.config import CellConfig, cell_config
from bench.records import (
    CONFIG_FILE,
    PLAN_FILE,
    RECORDS_FILE,
    STATUS_FILE,
    TRAINING_FILE,
    cell_view,
    read_plan,
    read_records,
    read_status,
    read_training,
)
from bench.sweep.compose import compose_one, compose_sweep
from gold_rm.errors import UserError

KEYS = [key for key in known_keys(CellConfig) if key.split(".")[0] not in ("external", "world")]
SCALARS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=12),
    st.sampled_from(["1e400", "0x10", "[1,2", "{a:1}", "${beta}", "${oc.env:HOME}", "null", "~", "''", "range(1,3)"]),
)  # fmt: skip
WORDS = st.builds(
    lambda prefix, key, value: f"{prefix}{key}={value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.one_of(st.sampled_from(KEYS), st.sampled_from(["world", "experiment", "hydra.run.dir", "loss.x", ""])),
    SCALARS,
)


@settings(max_examples=80)
@given(st.lists(WORDS, min_size=1, max_size=3))
@example(["~optim"])
@example(["optim={lr:1}"])
@example(["=1"])
@example(["loss=.x:y"])
@example(["seed=99999999999999999999999999"])
@example(["beta=" + "[" * 3000])
@example(["world.params=[1]"])
@example(["sweep=[red]"])
@example(["tracking=1"])
@example(["optim.lr=${optim.lr}"])
def test_overrides(words):
    words = [word for word in words if not word.startswith("-")]
    for compose in (lambda: [compose_one(words)], lambda: compose_sweep(["-m", *words]).jobs):
        with contextlib.suppress(UserError):
            for job in compose():
                assert job is not None
                cell_config(job.settings)


@pytest.fixture(scope="module")
def cell_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep") / "cell"


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda parts: st.one_of(
        st.lists(parts, max_size=4), st.dictionaries(st.sampled_from(
            ["schema", "cells", "cell", "jobs", "settings", "state", "step", "kl", "seed", "files", "warnings", "beta"]
        ), parts, max_size=6),
    ),
    max_leaves=12,
)  # fmt: skip
CONTENTS = st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: (json.dumps({"schema": 1, "cells": [], "state": "done", "x": value}) + "\n").encode()),
)  # fmt: skip


@settings(max_examples=300)
@given(CONTENTS)
@example(b"[" * 100_000)
@example(b"\xff\xfe{\x00")
@example(b"&a [*a, *a]")
@example(b'{"state": "done", "pid": 1e999}')
@example(b"")
def test_files_of_a_sweep(cell_dir, content):
    cell_dir.mkdir(exist_ok=True)
    for name in (CONFIG_FILE, RECORDS_FILE, STATUS_FILE, TRAINING_FILE):
        (cell_dir / name).write_bytes(content)
    (cell_dir.parent / PLAN_FILE).write_bytes(content)
    for read in (
        lambda: read_cell_config(cell_dir),
        lambda: read_records(cell_dir / RECORDS_FILE),
        lambda: read_records(cell_dir / RECORDS_FILE, allow_partial=True),
        lambda: read_status(cell_dir),
        lambda: read_training(cell_dir),
        lambda: read_plan(cell_dir.parent),
        lambda: cell_view(cell_dir.parent, cell_dir.name),
    ):
        with contextlib.suppress(UserError):
            read()
