"""Loading: what becomes a row, what is refused and why."""

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.load import RefusedSweep, load_sweep
from analysis.statistics.prompt_noise import make_prompt_noise
from bench import records

SMALL = Truth(losses=("logistic", "squared"), betas=(0.1, 1.0), seeds=(0, 1), steps=(0, 5, 10), prompts=8)
FIRST = cell_name("logistic", 0.1, 0)


@pytest.fixture
def sweep_dir(tmp_path):
    return write_sweep(tmp_path / "runs" / "small", SMALL)


def edit_records(cell_dir, change):
    """Rewrite a cell's records; `change` gets the list of rows and may alter it in place."""
    path = cell_dir / records.RECORDS_FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_plan(sweep_dir, change):
    path = sweep_dir / records.PLAN_FILE
    plan = json.loads(path.read_text())
    change(plan["cells"])
    path.write_text(json.dumps(plan))


def set_state(cell_dir, state, error=None, updated_at=1e9):
    status = records.CellStatus(state, cell_dir.name, 2, 1e9, updated_at, 5, 10, "another host", 1, error)
    records.write_status(cell_dir, status)


def test_every_record_of_finished_cells_is_a_row(sweep_dir):
    sweep = load_sweep(sweep_dir)
    assert len(sweep.cells) == 2 * 2 * 2
    assert len(sweep.checkpoints) == 2 * 2 * 2 * 3
    assert set(records.METRICS) | {"cell", "is_final"} == set(sweep.checkpoints.columns)
    line = json.loads((sweep_dir / FIRST / records.RECORDS_FILE).read_text().splitlines()[1])
    row = sweep.checkpoints.query("cell == @FIRST and step == 5").iloc[0]
    assert {key: row[key] for key in records.METRICS if key in line} == line
    assert all(row[key] is None or np.isnan(row[key]) for key in records.METRICS if key not in line)
    assert list(sweep.checkpoints.query("cell == @FIRST")["is_final"]) == [False, False, True]
    assert (sweep.final["step"] == 10).all()
    assert sweep.methods == {"logistic": "gpo", "squared": "gpo"}
    assert sweep.variants == ("logistic", "squared")
    assert sweep.seeds == (0, 1)
    assert sweep.warnings == ()


def test_only_finished_cells_enter_and_the_others_are_rows_with_a_state(sweep_dir):
    set_state(sweep_dir / FIRST, "failed", "non-finite loss at step 7")
    running, silent = (sweep_dir / cell_name(loss, 0.1, 1) for loss in ("logistic", "squared"))
    set_state(running, "running", updated_at=time.time())
    (running / records.RECORDS_FILE).write_text('{"half": ')  # its last line is being written
    set_state(silent, "running", updated_at=time.time() - 3600)
    edit_plan(sweep_dir, lambda cells: cells.append(cells[0] | {"cell": "never started", "strength": 3.0}))
    sweep = load_sweep(sweep_dir)
    states = sweep.cells.set_index("cell")["state"]
    assert dict(states.value_counts()) == {"done": 5, "failed": 1, "running": 1, "interrupted": 1, "missing": 1}
    # The report and `python -m bench.status` cannot disagree: both ask one function.
    assert states.to_dict() == {name: records.cell_view(sweep_dir, name).state for name in states.index}
    assert set(sweep.checkpoints["cell"]) == set(states.index[states == "done"])
    failed = sweep.cells.set_index("cell").loc[FIRST]
    assert (failed["error"], failed["attempts"]) == ("non-finite loss at step 7", 2)
    assert any("4 of 9 planned cells are not finished" in sentence for sentence in sweep.warnings)
    assert len(sweep.unfinished) == 4


def test_missing_seeds_are_said(sweep_dir):
    set_state(sweep_dir / FIRST, "failed", "x")
    (sentence,) = (s for s in load_sweep(sweep_dir).warnings if "Seeds are missing" in s)
    assert "1 of 4 pairs of variant and β, such as logistic at β = 0.1" in sentence


def test_one_seed_is_said(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path / "one", Truth(losses=("squared",), betas=(0.1,), seeds=(4,), prompts=4)))
    assert any("One seed only" in sentence for sentence in sweep.warnings)


def drop_records(cell):
    (cell / records.RECORDS_FILE).unlink()


def set_key(key, value, row=0):
    return lambda cell: edit_records(cell, lambda rows: rows[row].__setitem__(key, value))


def set_everywhere(key, value):
    return lambda cell: edit_records(cell, lambda rows: [row.update({key: value}) for row in rows])


def copy_of(other):
    """The records of another cell, as a folder that was copied and renamed has them."""

    def damage(cell):
        text = (cell.parent / other / records.RECORDS_FILE).read_text()
        (cell / records.RECORDS_FILE).write_text(text)

    return damage


REFUSED = {
    "no records": (drop_records, "marked done but has no records"),
    "no step 0": (lambda cell: edit_records(cell, lambda rows: rows.pop(0)), "step 0 is not recorded"),
    "no last step": (lambda cell: edit_records(cell, lambda rows: rows.pop()), "last recorded step is 5"),
    "step twice": (lambda cell: edit_records(cell, lambda rows: rows.insert(1, rows[1])), "steps do not ascend"),
    "another world": (set_everywhere("world", "other"), "2 values of 'world'.*other: 1 cells.*synthetic: 7 cells"),
    "another gold model": (set_key("gold_model", "g2"), "2 values of 'gold_model'"),
    "another reference": (set_key("reference", "r2"), "2 values of 'reference'"),
    "another variant": (set_key("variant", "hinge"), "records.jsonl: variant = 'hinge' at step 0, but 'logistic' in"),
    "another loss": (set_key("loss", "hinge", row=1), "loss = 'hinge' at step 5, but 'logistic' in the plan"),
    "another β": (set_key("beta", 0.3, row=2), "beta = 0.3 at step 10, but 0.1 in the plan"),
    "another strength": (set_key("strength", 0.3), "strength = 0.3 at step 0, but 0.1 in the plan"),
    "another learning rate": (set_key("lr", 1.0), "lr = 1.0 at step 0, but 0.0005 in the plan"),
    "another cell's line": (
        set_key("cell_id", "0" * 12, row=1),
        "cell_id = '000000000000' at step 5, but '.*' at step 0",
    ),
    "another sweep's line": (set_key("sweep", "large", row=1), "sweep = 'large' at step 5, but 'small' at step 0"),
    "a copy under another seed": (copy_of(cell_name("logistic", 0.1, 1)), "seed = 1 at step 0, but 0 in the plan"),
    "other preferences": (set_key("preferences", "p2"), "2 values of 'preferences'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(sweep_dir, case):
    damage, reason = REFUSED[case]
    damage(sweep_dir / FIRST)
    with pytest.raises(RefusedSweep, match=reason):
        load_sweep(sweep_dir)


def test_a_copy_with_its_identity_edited_is_known_by_its_id(sweep_dir):
    original = cell_name("logistic", 0.1, 1)
    copy_of(original)(sweep_dir / FIRST)
    edit_records(sweep_dir / FIRST, lambda rows: [row.update(seed=0) for row in rows])
    with pytest.raises(RefusedSweep, match=f"{original}/records.jsonl: cell_id is that of {FIRST}, as of a copy"):
        load_sweep(sweep_dir)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_kl_that_rounding_has_made_negative_is_0(sweep_dir, row):
    """And so the whole analysis goes through, which takes roots of KLs."""
    cell = sweep_dir / FIRST
    edit_records(cell, lambda rows: rows[row].update(kl=-2e-7))
    frame = pd.read_parquet(cell / records.SAMPLES_FILE)
    frame.loc[frame["step"] == SMALL.steps[row], "kl"] = -2e-7
    frame.to_parquet(cell / records.SAMPLES_FILE, index=False)
    sweep = load_sweep(sweep_dir)
    assert sweep.checkpoints.query("cell == @FIRST")["kl"].iloc[row] == 0
    others = sweep.checkpoints.query("cell == @FIRST")["kl"].drop(index=row)
    assert (others[others.index > 0] > 0).all()
    noise, _ = make_prompt_noise(sweep, 10, np.random.default_rng(0))
    assert noise.kl.min() == 0


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(cell):
    path = cell / records.RECORDS_FILE
    path.write_text(path.read_text()[:-40])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, r"records.jsonl:3: not a complete JSON line"),
        (set_key("schema", 99), r"records.jsonl:1: schema 99"),
        (lambda cell: edit_records(cell, lambda rows: rows[1].pop("kl")), r"records.jsonl:2: missing kl"),
        (set_key("kl", -0.3, row=2), r"records.jsonl: kl = -0.3 nats at step 10, more below 0 than rounding explains"),
        (set_key("gold", "0.5", row=1), r"records.jsonl:2: gold = '0.5' is no float"),
        (set_key("strength", 0, row=1), r"records.jsonl:2: strength = 0 is not above 0"),
        (set_key("beta", -0.1), r"records.jsonl:1: beta = -0.1 is not above 0"),
        (set_key("seed", 2**63), r"records.jsonl:1: seed has 64 bits, 63 can be"),
        (set_key("gold", 10**400), r"records.jsonl:1: gold has 1329 bits, 63 can be"),
    ],
)
def test_damaged_files_are_named(sweep_dir, damage, reason):
    damage(sweep_dir / FIRST)
    with pytest.raises(records.DamagedRecord, match=reason):
        load_sweep(sweep_dir)


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_text("{"), lambda path: path.write_bytes(b""), lambda path: path.unlink()]
)
def test_a_status_that_cannot_be_trusted_costs_its_cell_and_is_spoken_of(sweep_dir, damage):
    damage(sweep_dir / FIRST / records.STATUS_FILE)
    sweep = load_sweep(sweep_dir)
    assert FIRST not in set(sweep.checkpoints["cell"])
    assert "1 failed" in sweep.warnings[0]
    assert "status.json" in sweep.unfinished["error"].iloc[0]


@pytest.mark.parametrize("name", [records.RECORDS_FILE, records.SAMPLES_FILE])
@pytest.mark.parametrize(
    ("damage", "reason"), [(lambda path: path.unlink(), "missing, but it was there"), (flip, "not what it was")]
)
def test_a_file_that_is_not_what_its_cell_has_written_is_no_result(sweep_dir, name, damage, reason):
    """The numbers could still be read, and would be other numbers."""
    cell = sweep_dir / FIRST
    status = records.read_status(cell)
    records.write_status(cell, replace(status, files=records.cell_checksums(cell)))
    load_sweep(sweep_dir)
    damage(cell / name)
    with pytest.raises(records.DamagedRecord, match=f"{name}: {reason}"):
        load_sweep(sweep_dir)


@pytest.mark.parametrize(
    ("damage", "reason"), [(lambda path: path.unlink(), "missing, but it was there"), (flip, "not what it was")]
)
def test_a_shared_file_that_is_not_what_was_published_is_no_result(sweep_dir, damage, reason):
    path = next(sweep_dir.glob("reference-*.parquet"))
    plan = records.read_plan(sweep_dir)
    plan["published"] = {path.name: records.checksum(path)}
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    load_sweep(sweep_dir)
    damage(path)
    with pytest.raises(
        records.DamagedRecord, match=f"{path.name}: {reason}.*the next call of the sweep copies it again"
    ):
        load_sweep(sweep_dir)


def test_no_finished_cell(sweep_dir):
    for cell in sweep_dir.glob("loss=*"):
        set_state(cell, "failed", "x")
    with pytest.raises(RefusedSweep, match=r"no finished cell.*8 planned cells are \{'failed': 8\}"):
        load_sweep(sweep_dir)


def test_an_unknown_directory_suggests_nearby_sweeps(sweep_dir):
    with pytest.raises(RefusedSweep, match=r"no plan.json there.*sweeps nearby: \S*runs/small"):
        load_sweep(sweep_dir.parent / "smal")
    with pytest.raises(RefusedSweep, match=r"sweeps nearby: .*small"):  # the folder of sweeps instead of one
        load_sweep(sweep_dir.parent)
    with pytest.raises(RefusedSweep, match="holds no sweep"):
        load_sweep(sweep_dir.parent / "nowhere" / "deep")


def test_a_damaged_plan_is_named(sweep_dir):
    (sweep_dir / records.PLAN_FILE).write_text("[]")
    with pytest.raises(records.DamagedRecord, match=r"plan\.json"):
        load_sweep(sweep_dir)


def test_samples_are_read_on_demand_and_carry_their_cell(sweep_dir):
    sweep = load_sweep(sweep_dir)
    frame = sweep.samples(["prompt_id", "gold"])
    assert list(frame.columns) == ["cell", "variant", "strength", "lr", "seed", "step", "prompt_id", "gold"]
    assert len(frame) == 8 * SMALL.prompts
    assert (frame["step"] == 10).all()
    means = frame.groupby("cell")["gold"].mean()
    np.testing.assert_allclose(means[sweep.final["cell"]], sweep.final["gold"])
    everything = sweep.samples(final_only=False, cells=[FIRST])
    raw = pd.read_parquet(sweep_dir / FIRST / records.SAMPLES_FILE)
    pd.testing.assert_frame_equal(everything[list(raw.columns)], raw)
    (sweep_dir / FIRST / records.SAMPLES_FILE).unlink()
    reloaded = load_sweep(sweep_dir)  # does not mind
    assert not reloaded.has_samples
    with pytest.raises(RefusedSweep, match="its samples are missing"):
        reloaded.samples(["gold"])
    with pytest.raises(RefusedSweep, match="'elsewhere' is not a finished cell"):
        sweep.samples(cells=["elsewhere"])


def test_damaged_samples_are_named(sweep_dir):
    (sweep_dir / FIRST / records.SAMPLES_FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(RefusedSweep, match=r"samples.parquet: cannot read step, gold"):
        load_sweep(sweep_dir).samples(["gold"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("reference-r1.parquet", "no column prompt_id"), ("labels-p1.parquet", "no column label_probability")],
)
def test_damaged_shared_files_are_named_and_missing_ones_said(sweep_dir, name, reason):
    def read(sweep):
        return sweep.reference if name.startswith("reference") else sweep.label_probability

    pd.DataFrame({"other": [1.0]}).to_parquet(sweep_dir / name)
    with pytest.raises(RefusedSweep, match=f"{name}: {reason}"):
        read(load_sweep(sweep_dir))
    (sweep_dir / name).write_bytes(b"PAR1")
    with pytest.raises(RefusedSweep, match=f"{name}: cannot be read"):
        read(load_sweep(sweep_dir))
    (sweep_dir / name).unlink()
    (sentence,) = load_sweep(sweep_dir).warnings
    assert sentence.startswith(f"{name} is missing")


def test_reference_and_labels_belong_to_the_records(sweep_dir):
    sweep = load_sweep(sweep_dir)
    assert tuple(sweep.reference.columns) == records.REFERENCE_COLUMNS
    assert sweep.label_probability.shape == (100,)
    (sweep_dir / "reference-r1.parquet").rename(sweep_dir / "reference-r0.parquet")
    assert load_sweep(sweep_dir).reference is None


def with_learning_rates(sweep_dir):
    """Seed 1 is turned into seed 0 at another learning rate."""

    def change(cells):
        for row in cells:
            row |= {"lr": 1e-3 if row["seed"] else 5e-4, "optim.lr": 1e-3 if row["seed"] else 5e-4, "seed": 0}

    edit_plan(sweep_dir, change)
    for cell in sweep_dir.glob("*seed=1"):
        edit_records(cell, lambda rows: [row.update(lr=1e-3, seed=0) for row in rows])
    return sweep_dir


def test_a_swept_learning_rate_is_a_setting_to_be_chosen(sweep_dir):
    sweep = load_sweep(with_learning_rates(sweep_dir))
    assert sweep.setting_keys == ("lr",)
    parts = sweep.by_setting()
    assert [setting for setting, _ in parts] == [{"lr": 5e-4}, {"lr": 1e-3}]
    for setting, part in parts:
        assert (part.checkpoints["lr"] == setting["lr"]).all()
        assert len(part.cells) == 4
        assert part.setting_keys == ()
    assert len(sweep.only(lr=[5e-4, 1e-3]).cells) == 8
    with pytest.raises(RefusedSweep, match=r"no finished cell has \{'lr': 7\}; the plan has .*0.0005, 0.001"):
        sweep.only(lr=7)
    with pytest.raises(RefusedSweep, match="nothing to select by 'warmup'; the plan has variant, strength, seed, lr"):
        sweep.only(warmup=1)


def test_further_swept_keys_come_from_the_plan(sweep_dir):
    def change(cells):
        for row in cells:
            row |= {"labels.flip_rate": 0.1 * row["seed"], "train.eval_steps": [0, row["seed"]], "world": "synthetic"}

    edit_plan(sweep_dir, change)
    sweep = load_sweep(sweep_dir)
    assert sweep.setting_keys == ("labels.flip_rate", "train.eval_steps")
    assert "world" in sweep.cells
    assert len(sweep.only(**{"labels.flip_rate": 0.1}).final) == 4


def test_parts_of_different_worlds_can_be_loaded_by_themselves(sweep_dir):
    edit_plan(sweep_dir, lambda cells: [row.update(world="ab"[row["seed"]]) for row in cells])
    for cell in sweep_dir.glob("loss=*"):
        edit_records(cell, lambda rows: [row.update(world="ab"[row["seed"]]) for row in rows])
    with pytest.raises(RefusedSweep, match=r"2 values of 'world'.*of world"):
        load_sweep(sweep_dir)
    part = load_sweep(sweep_dir, only={"world": "b"})
    assert part.seeds == (1,)
    with pytest.raises(RefusedSweep, match="nothing to select by 'wrold'"):
        load_sweep(sweep_dir, only={"wrold": "b"})
