"""What a model directory says of itself, for policies and gold models: refused before anything in it is loaded."""

import json
import shutil

import pytest

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.worlds.directories import Params, inputs
from gold_rm.model_directory import refusal_of
from gold_rm.reward_model import GoldModelError, load_gold_model


@pytest.fixture(params=["policy", "gold"])
def model(request, tiny_world, tmp_path):
    directory = tmp_path / request.param
    shutil.copytree(getattr(tiny_world, request.param), directory)
    return directory


def change(directory, **values):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | values))


def refused(directory, message):
    load, error = (load_policy, ConfigError) if directory.name == "policy" else (load_gold_model, GoldModelError)
    with pytest.raises(error, match=message) as caught:
        load(directory)
    assert len(str(caught.value).splitlines()) == 1


def test_a_plain_directory_is_not_refused(model):
    assert refusal_of(model) is None


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "compressed-tensors"])
def test_quantized_weights(model, method):
    change(model, quantization_config={"quant_method": method, "bits": 4})
    refused(model, rf"its weights are quantized \({method}\)")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_its_base(model, name):
    (model / name).write_text("{}")
    refused(model, "an adapter lies beside the weights; merge it")


def test_code_is_never_run_and_never_asked_about(model, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked on the terminal"))
    ran = model / "RAN"
    (model / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    change(model, model_type="mine", auto_map={name: "mine.Mine" for name in classes})
    refused(model, r"its model is code of its own \(auto_map\), which is never run")
    # One that transformers knows is loaded as what transformers knows.
    change(model, model_type="gpt2")
    load_policy(model) if model.name == "policy" else load_gold_model(model)
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"model_type": 7}', b'{"n_embd": "x"}'])
def test_a_damaged_configuration_is_one_line(model, content):
    (model / "config.json").write_bytes(content)
    refused(model, model.name)


def test_a_world_of_such_a_directory_is_refused_before_it_is_built(tiny_world, tmp_path):
    shutil.copytree(tiny_world.policy, tmp_path / "policy")
    (tmp_path / "policy/adapter_config.json").write_text("{}")
    params = Params(str(tmp_path / "policy"), str(tiny_world.prompts), gold=str(tiny_world.gold))
    with pytest.raises(ConfigError, match=r"world\.params\.policy=.*: an adapter lies beside the weights"):
        inputs(params)
