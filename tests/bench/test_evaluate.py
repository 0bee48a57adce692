"""``python -m bench.evaluate``: saved policies again, policies trained elsewhere; from words to files and messages."""

import json
import shutil
import sys

import pytest
from running import prepared_for
from tiny_models import write_policy
from tiny_world import POSITIONS, WORDS, write_gold

from analysis.data.load import load_sweep
from analysis.statistics.views import analyze_views
from bench import evaluate, records, status, worker
from bench.sweep.plan import write_plan


@pytest.fixture(scope="module")
def sweep_dir(tiny_world, tmp_path_factory):
    """A sweep of three cells, two of which have saved their policies; tests work on copies of it."""
    runs = tmp_path_factory.mktemp("runs")
    changes = [{"beta": 0.1}, {"beta": 1.0}, {"beta": 1.0, "loss": "squared", "save": "none"}]
    cells = [tiny_world.cell(runs, {"sweep": "t", "save": "final", **each}) for each in changes]
    write_plan(runs / "t", cells, {cell.name: prepared_for(cell) for cell in cells}, ["python", "typed"], "call")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.worker", str(runs / "t")])
        assert worker.main() == 0
    return runs / "t"


@pytest.fixture
def sweep(sweep_dir, tmp_path):
    """A copy, in which the paths to artifacts are still right."""
    shutil.copytree(sweep_dir, copy := tmp_path / "t")
    plan = records.read_plan(copy)
    for parts in plan["prepared"].values():
        for part in parts.values():
            if isinstance(part, dict):
                part["path"] = str((sweep_dir / part["path"]).resolve())
    records.write_json(copy / "plan.json", plan)
    return copy


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a command with arguments; returns its exit status and what it said on stdout and stderr."""

    def call(*arguments, command=evaluate):
        monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
        code = command.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def evaluations(sweep):
    return [json.loads(line) for line in (sweep / "evaluations.jsonl").read_text().splitlines()]


def test_help_says_what_there_is(call):
    for words in (["--help"], ["-h"], ["policy=x", "--help"]):
        code, out, err = call(*words)
        assert (code, err) == (0, "")
        for option in (*evaluate._AGAIN, *evaluate._IMPORT):
            assert f"{option}=" in out


def test_saved_policies_are_measured_printed_and_kept(call, sweep):
    code, out, err = call(sweep, "samples_per_prompt=4")
    assert (code, err) == (0, "")
    rows = evaluations(sweep)
    assert [(row["variant"], row["strength"], row["step"]) for row in rows] == [
        ("logistic", 0.1, 8),
        ("logistic", 1.0, 8),
    ]
    for number, row in enumerate(rows, start=1):
        assert f"{number}/2  {row['cell']}, step 8\n" in out
        (line,) = (line for line in out.splitlines() if line.split()[:1] == [row["cell"]])
        assert f"{row['kl']:.3f} ± {row['kl_se']:.3f}" in line
        assert f"{row['gold']:+.3f} ± {row['gold_se']:.3f}" in line
        assert (row["prompts"], row["samples_per_prompt"]) == (24, 4)
        recorded = records.read_records(sweep / row["cell"] / "records.jsonl")[-1]
        assert row["gold_model"] == recorded["gold_model"]
        assert abs(row["kl"] - recorded["kl"]) < 4 * (row["kl_se"] + recorded["kl_se"])
    assert call("samples_per_prompt=4", sweep)[:2] == (0, out), "the order of words does not matter"
    assert evaluations(sweep) == rows, "the same rows in their places"
    cell = rows[1]["cell"]
    assert call(sweep, f"cell={cell}", "prompts=10", "device=cpu")[0] == 0
    assert evaluations(sweep)[:2] == rows
    (fewer,) = evaluations(sweep)[2:]
    assert (fewer["cell"], fewer["prompts"], fewer["samples_per_prompt"]) == (cell, 10, 4), "4 is the sweep's setting"


def test_another_gold_model_is_a_row_of_its_own(call, sweep, tmp_path):
    other = write_gold(tmp_path / "gold", seed=3)
    assert call(sweep)[0] == call(sweep, f"gold={other}")[0] == 0
    own, another = evaluations(sweep)[:2], evaluations(sweep)[2:]
    assert len(another) == 2
    for one, two in zip(own, another, strict=True):
        assert one["cell"] == two["cell"]
        assert one["kl"] == two["kl"], "the same samples"
        assert one["gold"] != two["gold"]
        assert one["gold_model"] != two["gold_model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one RUNS/SWEEP, or policy=DIR, is needed; seen: none"),
        (["SWEEP", "SWEEP"], "one RUNS/SWEEP, or policy=DIR, is needed"),
        (["SWEEP", "promts=4"], "promts: no such option; did you mean 'prompts'?"),
        (["SWEEP", "--cell"], "--cell: no such option; did you mean 'cell'?"),
        (["SWEEP", "prompts=many"], "prompts=many: must be a whole number"),
        (["SWEEP", "prompts=25"], "prompts=25: the sweep was evaluated on 24; from 2 to 24 are possible"),
        (["SWEEP", "prompts=1"], "prompts=1: "),
        (["SWEEP", "samples_per_prompt=0"], "samples_per_prompt=0: must be 1 or more"),
        (["SWEEP", "device=gpu"], "device='gpu'"),
        (["SWEEP", "gold=NOWHERE"], "NOWHERE"),
        (["SWEEP", "cell=loss=logistic,beta=0.1,seed=1"], "did you mean 'loss=logistic,beta=0.1,seed=0"),
        (["NOWHERE"], "NOWHERE: has no plan.json; plan it with python -m bench.train -m sweep=NOWHERE"),
    ],
)
def test_what_cannot_be_measured_is_one_line(call, sweep, words, message):
    code, _, err = call(*(str(sweep) if word == "SWEEP" else word for word in words))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (sweep / "evaluations.jsonl").exists()


def test_a_sweep_without_saved_policies_says_how_to_keep_them(call, sweep):
    (squared,) = (path.name for path in sweep.glob("loss=squared*"))
    for path in sweep.glob("*/policy"):
        shutil.rmtree(path)
    for words in ([sweep], [sweep, f"cell={squared}"]):
        code, _, err = call(*words)
        assert code == 2
        assert "no saved policies; save=final, best or all keeps them while a cell trains" in err


def place(sweep, **changes):
    """Words that import a policy into a sweep."""
    (policy,) = sweep.glob("loss=logistic,beta=0.1*/policy")
    options = {"policy": policy, "variant": "theirs", "sweep": sweep.name, "runs_dir": sweep.parent}
    options |= {"tracking.wandb.mode": "disabled"}
    return [f"{key}={value}" for key, value in {**options, **changes}.items() if value is not None]


def test_an_imported_policy_stands_beside_the_others(call, sweep):
    """In a sweep that is there nothing else has to be said: it is measured on what the sweep is measured on."""
    plan = records.read_plan(sweep)
    code, out, err = call(*place(sweep, strength=0.5, step=8))
    assert (code, err) == (0, "")
    name = "variant=theirs,strength=0.5,seed=0"
    row = records.read_records(sweep / name / "records.jsonl")[-1]
    assert f"step     8  KL {row['kl']:.3f} ± {row['kl_se']:.3f}  gold {row['gold']:+.3f}" in out
    assert out.endswith("done\n")

    now = records.read_plan(sweep)
    assert now["cells"][:3] == plan["cells"]
    assert now["cells"][3] == {
        "cell": name, "config": row["config"], "method": "external", "variant": "theirs", "strength": 0.5, "seed": 0,
    }  # fmt: skip
    assert now["command"] == ["python", "typed"], "how the sweep was made"
    assert len(now["prepared"]) == 1
    code, out, _ = call(sweep, command=status)
    assert (code, "4 cells: 4 done" in out, name in out) == (0, True, True)

    loaded = load_sweep(sweep)
    assert loaded.methods == {"logistic": "gpo", "squared": "gpo", "theirs": "external"}
    (analysis,) = analyze_views([loaded]).values()
    points = analysis.frontiers.points.query("is_final and variant in ('theirs', 'logistic')")
    mine, own = (points[points["variant"] == variant].iloc[0] for variant in ("theirs", "logistic"))
    assert (mine["kl"], mine["gold"]) == pytest.approx((own["kl"], own["gold"])), "it is that cell's policy"


def test_the_same_import_again_changes_nothing_and_another_of_its_name_is_refused(call, sweep, tmp_path):
    assert call(*place(sweep))[0] == 0
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*") if path.is_file()}
    moved = shutil.copytree(next(sweep.glob("loss=logistic,beta=0.1*/policy")), tmp_path / "moved")
    assert call(*place(sweep, policy=moved))[0] == 0
    another = next(sweep.glob("loss=logistic,beta=1*/policy"))
    for changes in ({"policy": another}, {"step": 5}):
        code, _, err = call(*place(sweep, **changes))
        assert (code, err.count("\n")) == (2, 1)
        assert "was made with another configuration" in err
    after = {path: path.stat().st_mtime_ns for path in sweep.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after.get(path)} <= {"plan.json"}
    assert before.keys() == after.keys()
    assert call(*place(sweep, policy=another, strength=3))[0] == 0, "under another strength it is another cell"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "policy=… is missing: python -m bench.evaluate policy=DIR variant=NAME sweep=NAME"),
        ({"variant": None}, "variant=… is missing"),
        ({"policy": "NOWHERE"}, "policy=NOWHERE: no such directory; a Hugging Face model directory is needed"),
        ({"step": 0}, "step=0: must be 1 or more; step 0 is π_ref"),
        ({"step": 1.5}, "step=1.5: must be a whole number"),
        ({"strength": 0}, "strength=0.0: must be a finite number above 0"),
        ({"strength": "nan"}, "strength=nan: must be a finite number above 0"),
        ({"strength": "strong"}, "strength=strong: must be a number"),
        ({"variant": ""}, "variant: must name what competes"),
        ({"variant": "savage"}, "variant=savage: the name of what is trained here; choose another"),
        ({"variant": "gpo"}, "variant=gpo: the name of what is trained here"),
        ({"strenght": 0.1}, "strenght: no such option or setting; did you mean 'strength'?"),
        ({"optimm.lr": 0.1}, "did you mean 'optim.lr'?"),
        ({"beta": 0.1}, "beta: says how a policy is trained, and this one has been; give strength="),
        ({"optim.lr": 0.1}, "optim.lr: says how a policy is trained"),
        ({"evaluation.promts": 4}, "evaluation.promts: no such key; did you mean 'evaluation.prompts'?"),
        ({"world": "oracle"}, "is measured on other data (world.name: 'tiny' there, 'oracle' now"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(f"{key}={each}" for key, each in value.items()),
)
def test_what_cannot_be_imported_is_one_line_and_is_not_planned(call, sweep, changes, message):
    plan, cells = (sweep / "plan.json").read_bytes(), sorted(path.name for path in sweep.iterdir())
    code, _, err = call(*place(sweep, **changes))
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert (sweep / "plan.json").read_bytes() == plan
    assert sorted(path.name for path in sweep.iterdir()) == cells


@pytest.mark.parametrize("kind", ["other tokens", "a reward model", "damaged"])
def test_a_policy_that_cannot_be_measured_is_refused_before_it_is_planned(call, sweep, tmp_path, kind):
    directory, message = {
        "other tokens": (write_policy(tmp_path / "p", words=(*WORDS, " i"), positions=POSITIONS), "different tokens"),
        "a reward model": (write_gold(tmp_path / "g"), "reward model"),
        "damaged": (write_policy(tmp_path / "d", words=WORDS, positions=POSITIONS), "not a causal language model"),
    }[kind]
    if kind == "damaged":
        (directory / "model.safetensors").write_bytes(b"half")
    plan = (sweep / "plan.json").read_bytes()
    code, _, err = call(*place(sweep, policy=directory))
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert (sweep / "plan.json").read_bytes() == plan


def test_a_new_sweep_takes_its_world_from_the_command_line(call, tiny_world, tmp_path):
    settings = {
        key: value for key, value in tiny_world.settings(tmp_path / "runs").items() if not key.startswith("optim.")
    }
    words = [f"{key}={value}" for key, value in {"world": "directories", **settings}.items()]
    code, _, err = call(*words, f"policy={tiny_world.policy}", "variant=start", "sweep=new")
    assert (code, err) == (0, "")
    (row,) = records.read_plan(tmp_path / "runs" / "new")["cells"]
    assert (row["variant"], row["strength"], row["method"]) == ("start", 1.0, "external")
    last = records.read_records(tmp_path / "runs" / "new" / row["cell"] / "records.jsonl")[-1]
    assert (last["step"], last["world"]) == (1, "directories")
    assert abs(last["kl"]) < 1e-4, "π_ref itself"


def test_a_worker_measures_a_planned_import_and_evaluate_measures_it_again(call, sweep):
    assert call(*place(sweep))[0] == 0
    (cell,) = sweep.glob("variant=theirs*")

    def rows():
        return [{k: v for k, v in row.items() if k in ("step", "kl", "gold")} for row in
                records.read_records(cell / "records.jsonl")]  # fmt: skip

    here = rows()
    shutil.rmtree(cell)
    code, out, _ = call(sweep, command=worker)
    assert (code, out) == (0, f"done         {cell.name}  \n")
    assert rows() == here
    assert call(sweep, f"cell={cell.name}")[0] == 0
    (row,) = evaluations(sweep)
    assert (row["method"], row["variant"], row["step"]) == ("external", "theirs", 1)
    assert abs(row["kl"] - here[-1]["kl"]) < 8 * row["kl_se"]
