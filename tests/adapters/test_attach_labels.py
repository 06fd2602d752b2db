"""Labels of a model are those of the call, whatever was done to the model since the last one."""

from __future__ import annotations

import importlib
import types

import pytest

import aimeter
from aimeter.testing import FakeClock, FakeSensor

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


@pytest.fixture
def torch(tiny):
    return importlib.import_module("torch")


@pytest.fixture
def meter():
    clock = FakeClock()
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as made:
        yield made


@pytest.fixture
def labels_of(torch, meter):
    """Run a model that generates, and return what its row says it is."""

    def run(model, *keys):
        model.generate(torch.full((1, 3), 40), max_new_tokens=1, do_sample=False)
        return tuple(meter.records()[-1].meta.get(key) for key in keys)

    return run


def test_parameters_that_are_added_and_taken_away(tiny, meter, labels_of):
    """More tokens, an adapter, and the adapter merged: each call has the number of its own."""
    peft = pytest.importorskip("peft", reason="peft is not installed; it comes with the extra test")
    model = meter.attach(tiny.llama(400))
    numbers = [model.num_parameters()]
    assert labels_of(model, "parameters") == (numbers[-1],)
    model.resize_token_embeddings(500)
    numbers.append(model.num_parameters())
    assert labels_of(model, "parameters") == (numbers[-1],)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    numbers.append(model.num_parameters())
    assert labels_of(model, "parameters") == (numbers[-1],)
    adapted.merge_and_unload()
    assert labels_of(model, "parameters") == (numbers[1],)
    aimeter.detach(model)
    assert sorted(set(numbers)) == [numbers[0], numbers[1], numbers[2]]


def test_the_data_type_is_that_of_most_weights(tiny, torch, meter, labels_of):
    """Not that of the first weight, which is often kept finer or coarser than the rest."""
    model = meter.attach(tiny.llama(400))
    assert labels_of(model, "dtype") == ("float32",)
    model.to(torch.bfloat16)
    assert labels_of(model, "dtype") == ("bfloat16",)
    model.model.embed_tokens.to(torch.float64)
    labels = importlib.import_module("aimeter.adapters.labels")
    assert labels.describe(model)["dtype"] == "bfloat16"
    aimeter.detach(model)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_no_parameters(tiny, torch, meter, labels_of):
    """torch's dynamic int8 keeps them packed: they count, and are what the model computes with."""
    model = tiny.llama(400)
    whole = model.num_parameters()
    packed = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    meter.attach(packed)
    assert labels_of(packed, "parameters", "dtype") == (whole, "int8")
    aimeter.detach(packed)


def test_weights_packed_several_in_an_element(torch):
    """As GPTQ and AWQ keep them, in buffers of a layer that says how large it is; by an object of that form."""
    labels = importlib.import_module("aimeter.adapters.labels")

    class QuantLinear(torch.nn.Module):
        in_features, out_features = 64, 32

        def __init__(self):
            super().__init__()
            self.register_buffer("qweight", torch.zeros(8, 32, dtype=torch.int32))

    net = torch.nn.Sequential(torch.nn.Linear(8, 8), QuantLinear())
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    net.config = config
    found = labels.describe(net)
    assert (found["parameters"], found["dtype"], found["quantization"]) == (72 + 2048, "int32", "gptq 4-bit")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (None, None),
        ({}, None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit"),
        ({"quant_method": types.SimpleNamespace(value="awq"), "bits": 4}, "awq 4-bit"),
        ({"quant_method": "torchao"}, "torchao"),
    ],
)
def test_quantisation_is_what_the_configuration_says(tiny, meter, labels_of, config, text):
    """As a mapping or as an object."""
    model = meter.attach(tiny.llama(400))
    if config is not None:
        model.config.quantization_config = config
    assert labels_of(model, "quantization") == (text,)
    if config:
        model.config.quantization_config = types.SimpleNamespace(**config)
        assert labels_of(model, "quantization") == (text,)
        del model.config.quantization_config
        assert labels_of(model, "quantization") == (None,)
    aimeter.detach(model)


def test_a_part_of_a_pipeline_that_is_replaced(tiny, torch, meter):
    """A diffusers pipeline says how large it is with the parts that it has, and what most of its denoiser is."""
    pytest.importorskip("diffusers", reason="diffusers is not installed; it comes with the extra demo")
    pipe = tiny.ddpm()
    pipe.set_progress_bar_config(disable=True)
    meter.attach(pipe)
    sizes = []
    for _ in range(2):
        pipe(num_inference_steps=1)
        row = meter.records()[-1]
        sizes.append(sum(weight.numel() for weight in pipe.unet.parameters()))
        assert row.meta["parameters"] == sizes[-1]
        pipe.unet.conv_in = torch.nn.Sequential(pipe.unet.conv_in, torch.nn.Conv2d(32, 32, 1))
    assert sizes[1] > sizes[0]
    aimeter.detach(pipe)
