"""A model and prompts that the repository does not know, through a sweep by overrides alone."""

import json
import math
import random
import sys
from itertools import product

import pandas as pd
import pytest
from tiny_chat import write_chat_gold, write_chat_policy
from tiny_world import SETTINGS

from bench import evaluate, train
from bench.policies.directories import is_adapter
from bench.records import read_records, read_status

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
BETAS = ("0.1", "1")
LOSSES = ("logistic", "squared")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Settings of a chat model, a reward model with a template of its own, and a JSON Lines file of messages."""
    root = tmp_path_factory.mktemp("own")
    write_chat_policy(root / "llama", seed=2)
    write_chat_gold(root / "gold")
    asked = random.Random(0).sample(list(product("abcdefgh", repeat=3)), 80)
    rows = [
        {"prompt": [{"role": "system", "content": "c"}, {"role": "user", "content": " ".join(words)}], "split": split}
        for words, split in zip(asked, ["train", "eval"] * 40, strict=True)
    ]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        **SETTINGS, "world.params.policy": root / "llama", "world.params.gold": root / "gold",
        "world.params.prompts": root / "prompts.jsonl", "policy.dtype": "bfloat16", "policy.use_peft": True,
        "policy.lora_r": 4, "policy.gradient_checkpointing": True, "policy.stop_strings": '[" h h"]',
        "optim.lr": 5e-2, "runs_dir": root / "runs", "artifacts_dir": root / "artifacts", "sweep": "own",
        "save": "final", "device": "cpu",
    }  # fmt: skip
    return root, ["world=directories", *(f"{key}={value}" for key, value in settings.items())]


def call(main, monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *words])
    return main()


def test_a_chat_model_with_adapters_in_bfloat16_goes_through_a_sweep_and_is_measured_again(arguments, monkeypatch):
    root, overrides = arguments
    swept = [f"loss={','.join(LOSSES)}", f"beta={','.join(BETAS)}", "hydra/launcher=basic"]
    assert call(train.main, monkeypatch, "bench.train", "-m", *overrides, *swept) == 0
    cells = sorted(path.parent for path in (root / "runs" / "own").glob("*/records.jsonl"))
    assert len(cells) == len(LOSSES) * len(BETAS)
    for cell in cells:
        first, *_, last = read_records(cell / "records.jsonl")
        status = read_status(cell)
        assert status is not None
        assert (status.state, first["dtype"]) == ("done", "bfloat16")
        assert first["kl"] == first["rho_sq_mean"] == 0
        assert first["held_out_loss"] == pytest.approx({"logistic": math.log(2), "squared": 1}[first["loss"]], abs=1e-6)
        assert 0 < first["trained_parameters"] < first["parameters"]
        assert last["kl"] > 0
        assert is_adapter(cell / "policy")
        samples = pd.read_parquet(cell / "samples.parquet")
        assert samples["prompt"].map(json.loads).map(lambda messages: messages[-1]["role"]).eq("user").all()
        assert not samples["response"].str.contains(" h h").any()
        assert samples["ended"].any()

    monkeypatch.chdir(root)
    again = ["runs/own", f"cell={cells[0].name}", "samples_per_prompt=8", "device=cpu"]
    assert call(evaluate.main, monkeypatch, "bench.evaluate", *again) == 0
    (row,) = map(json.loads, (root / "runs" / "own" / "evaluations.jsonl").read_text().splitlines())
    last = read_records(cells[0] / "records.jsonl")[-1]
    assert abs(row["kl"] - last["kl"]) < 4 * math.hypot(row["kl_se"], last["kl_se"])
    assert row["kl"] > 0


def test_an_adapter_of_another_tool_is_placed_beside_them(arguments, monkeypatch):
    """Here one of our own, by its directory: its base is named in it, and it is the cell's policy again."""
    root, _ = arguments
    (cell,) = (root / "runs" / "own").glob("loss=squared,beta=0.1,seed=0*")
    words = [
        f"policy={cell / 'policy'}",
        "variant=theirs",
        "strength=0.1",
        "step=8",
        f"runs_dir={root / 'runs'}",
        "sweep=own",
    ]
    assert call(evaluate.main, monkeypatch, "bench.evaluate", *words) == 0
    (theirs,) = (path.parent for path in (root / "runs" / "own").glob("*theirs*/records.jsonl"))
    ours, imported = (read_records(each / "records.jsonl")[-1] for each in (cell, theirs))
    assert imported["kl"] == pytest.approx(ours["kl"], rel=1e-6)
    assert imported["gold"] == pytest.approx(ours["gold"], rel=1e-5)
    assert imported["trained_parameters"] == 0
