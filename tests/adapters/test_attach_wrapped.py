"""Models in other models, and other doors than `__call__`: whatever way an attached object is used, it leaves a row."""

from __future__ import annotations

import gc
import importlib
import logging
import subprocess
import sys

import pytest

import aimeter
from aimeter.adapters import sessions
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
def peft():
    return pytest.importorskip("peft", reason="peft is not installed; it comes with the extra test")


@pytest.fixture
def meter():
    clock = FakeClock()
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as made:
        yield made
    assert sessions.attached == {}, "the test detaches what it attaches"


OPTIONS = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


def calls_of(meter):
    """Name and counts of all calls, without their parts."""
    rows = [row for row in meter.records() if row.parent_id is None]
    return [(row.name.rpartition(".")[2], row.items, row.tokens_in, row.tokens_out) for row in rows]


def adapted(peft, model, kind):
    """A model with an adapter, whose wrapper has a `generate` of its own or passes it on."""
    if kind == "prompt":
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    else:
        task = None if kind == "plain" else "CAUSAL_LM"
        config = peft.LoraConfig(target_modules=["q_proj"], task_type=task)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("kind", ["lora", "plain", "prompt"])
@pytest.mark.parametrize("first", ["adapted", "attached"])
def test_a_model_with_an_adapter(tiny, torch, peft, meter, kind, first):
    """PEFT around a model, and either of them attached: each `generate` and forward pass is one row with its counts."""
    ids = torch.full((2, 4), 40)
    model = tiny.llama(400)
    if first == "attached":
        meter.attach(model)
    whole = adapted(peft, model, kind)
    subject = model if first == "attached" else meter.attach(whole)
    whole.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **OPTIONS)
    whole(input_ids=ids)
    aimeter.detach(subject)
    assert [(row[0], row[1], row[3]) for row in calls_of(meter)] == [
        ("generate", 2, 10),
        ("forward", 2, None),
    ]
    if kind != "prompt":
        assert [row[2] for row in calls_of(meter)] == [8, 8]
    parts = {row.name.rpartition(".")[2] for row in meter.records() if row.parent_id is not None}
    assert parts == {"prefill", "decode"}
    number = len(meter.records())
    whole.generate(input_ids=ids, **OPTIONS)
    whole(input_ids=ids)
    assert len(meter.records()) == number


@pytest.mark.parametrize("first", ["compiled", "attached"])
@pytest.mark.parametrize("adapter", [False, True], ids=["alone", "with an adapter"])
def test_a_compiled_model(tiny, torch, request, meter, first, adapter):
    """`torch.compile` before or after `attach`: `generate` and forward passes leave rows, under the model's own name."""
    ids = torch.full((2, 4), 40)
    model = tiny.llama(400)
    if adapter:
        model = adapted(request.getfixturevalue("peft"), model, "lora")
    if first == "attached":
        meter.attach(model)
    whole = torch.compile(model, backend="eager")
    subject = model if first == "attached" else meter.attach(whole)
    with torch.no_grad():
        whole.generate(input_ids=ids, **OPTIONS)
        whole(input_ids=ids)
    aimeter.detach(subject)
    assert calls_of(meter) == [("generate", 2, 8, 10), ("forward", 2, 8, None)]
    assert {row.model for row in meter.records()} == {type(model).__name__}


def test_a_plain_module_compiled_after_it_was_attached(torch, meter):
    """The compiled one is another object, that passes the module's `__call__` by."""
    net = meter.attach(torch.nn.Linear(8, 8))
    whole = torch.compile(net, backend="eager")
    whole(torch.zeros(4, 8))
    net.compile(backend="eager")
    net(torch.zeros(4, 8))
    aimeter.detach(net)
    whole(torch.zeros(4, 8))
    assert [row.name for row in meter.records()] == ["Linear.forward"] * 2


def test_a_model_on_several_devices(tiny, torch, meter):
    """What is spread over devices is asked to generate through its `module`."""
    ids = torch.full((2, 4), 40)
    whole = meter.attach(torch.nn.DataParallel(tiny.llama(400)))
    whole.module.generate(ids, **OPTIONS)
    whole(input_ids=ids)
    aimeter.detach(whole)
    assert calls_of(meter) == [("generate", 2, 8, 10), ("forward", 2, 8, None)]


def test_what_is_wrapped_may_be_attached_itself(tiny, torch, peft, meter):
    """An inner model that is attached, too, has rows of its own inside the wrapper's, and outlives it."""
    ids = torch.full((1, 4), 40)
    model = tiny.llama(400)
    whole = meter.attach(adapted(peft, model, "lora"), name="whole")
    meter.attach(model, name="model")
    whole.generate(input_ids=ids, **OPTIONS)
    names = [row.name for row in meter.records() if "." not in row.name]
    assert names == ["model", "whole"]
    aimeter.detach(whole)
    model.generate(ids, **OPTIONS)
    assert meter.records()[-1].name == "model"
    aimeter.detach(model)


def test_a_wrapper_that_is_dropped_takes_its_hold_with_it(tiny, peft, meter):
    """Nothing stays attached for the sake of an object that is gone."""
    model = tiny.llama(400)
    whole = meter.attach(adapted(peft, model, "lora"))
    assert len(sessions.attached) == 2
    del whole
    gc.collect()
    assert sessions.attached == {}


def test_the_usual_doors_of_a_module_of_ones_own(torch, meter):
    """A module is not only called: `generate`, `encode` and their like leave rows, and are parts inside another."""

    def nameless(method):
        def wrapper(self, *args):
            return method(self, *args)

        return wrapper

    class Coder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 4)

        @nameless
        def encode(self, x):
            return self.inner(x)

        def decode(self, x):
            return self.inner(x)

        def forward(self, x):
            return self.decode(self.encode(x))

        def generate(self, number):
            return [self(torch.zeros(1, 4)) for _ in range(number)]

    net = meter.attach(Coder())
    other = Coder()
    for one in (net, other):
        one(torch.zeros(2, 4))
        one.encode(torch.zeros(3, 4))
        one.decode(torch.zeros(3, 4))
        one.generate(2)
    aimeter.detach(net)
    net.generate(1)
    assert [row.name for row in meter.records()] == [
        f"Coder.{method}" for method in ("forward", "encode", "decode", "generate")
    ]
    assert "generate" in vars(Coder)
    assert not hasattr(Coder.generate, "__wrapped__")


def test_a_model_around_one_that_generates(tiny, torch, meter):
    """A `generate` of one's own that leads to transformers' has its tokens and its parts."""

    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.language = tiny.llama(400)

        def generate(self, ids):
            return self.language.generate(ids, **OPTIONS)

    net = meter.attach(Around())
    net.generate(torch.full((2, 4), 40))
    aimeter.detach(net)
    assert calls_of(meter) == [("generate", 2, 8, 10)]
    assert len(meter.records()) == 3


def test_an_autoencoder_is_attached_beside_its_pipeline(tiny, torch, meter):
    """Decoding alone is a row; inside a pipeline it is one of its own, and still ends the pipeline's denoising."""
    pytest.importorskip("diffusers", reason="diffusers is not installed; it comes with the extra demo")
    pipe = tiny.stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    latents = torch.zeros(1, 4, 8, 8)
    meter.attach(pipe.vae)
    pipe.vae.decode(latents)
    meter.attach(pipe)
    pipe("snow", num_inference_steps=1, height=16, width=16)
    aimeter.detach(pipe.vae)
    pipe("snow", num_inference_steps=1, height=16, width=16)
    aimeter.detach(pipe)
    pipe.vae.decode(latents)
    name = "StableDiffusionPipeline"
    parts = [f"{name}.encode", f"{name}.denoise", f"{name}.decode"]
    own = "AutoencoderKL.decode"
    assert [row.name for row in meter.records()] == [own, *parts[:2], own, parts[2], name, *parts, name]


def test_a_traced_module_is_another_object(torch, meter, caplog):
    """What `torch.jit.trace` makes is not metered, and that is said; the trace is as if aimeter were not there."""
    net = meter.attach(torch.nn.Linear(3, 3))
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        traced = torch.jit.trace(net, torch.zeros(2, 3), check_trace=False)
        torch.jit.trace(net, torch.zeros(2, 3), check_trace=False)
    assert meter.records() == []
    assert [text for text in caplog.messages if "torch.jit.trace" in text and "aimeter.attach" in text]
    meter.attach(traced)
    traced(torch.zeros(2, 3))
    aimeter.detach(traced)
    aimeter.detach(net)
    assert len(meter.records()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("COMPILE", ["False", "True", "['Linear.forward']", "True"]), ("PIPELINE", ["False", "True"])],
)
def test_what_is_loaded_later_is_hooked_then(tiny, tmp_path, text, expected):
    """torch loads its compiler when it is first asked to compile, and transformers its pipelines: without a word."""
    program = tmp_path / "program.py"
    program.write_text(globals()[text])
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.split() == expected, done.stderr
    assert "is not where" not in done.stderr


PIPELINE = """
import sys
import aimeter
import transformers
from aimeter.testing import FakeClock, FakeSensor

clock = FakeClock()
with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as meter:
    config = transformers.GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = meter.attach(transformers.GPT2LMHeadModel(config))
    print("transformers.pipelines.base" in sys.modules)
    from transformers.pipelines.base import Pipeline
    print(hasattr(Pipeline.__call__, "__wrapped__"))
    aimeter.detach(model)
"""

COMPILE = """
import sys
import torch
import aimeter
from aimeter.testing import FakeClock, FakeSensor

finders = list(sys.meta_path)
clock = FakeClock()
with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as meter:
    net = meter.attach(torch.nn.Linear(3, 3))
    print("torch._dynamo.eval_frame" in sys.modules)
    whole = torch.compile(net, backend="eager")
    print("torch._dynamo.eval_frame" in sys.modules)
    whole(torch.zeros(2, 3))
    print([row.name for row in meter.records()])
    aimeter.detach(net)
    print(sys.meta_path == finders)
"""
