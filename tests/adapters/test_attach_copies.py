"""Objects made of an attached one: they are not metered, and the first call of each kind says so."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle

import pytest

import aimeter
from aimeter._support import log
from aimeter.testing import FakeClock, FakeSensor

pytestmark = pytest.mark.models

OPTIONS = {"max_new_tokens": 1, "do_sample": False}


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers", "diffusers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


@pytest.fixture
def meter():
    clock = FakeClock()
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as made:
        yield made


@pytest.fixture
def said(caplog):
    """What is said, as in a program in which nothing has been said."""
    log._said.clear()
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        yield lambda: [text for text in caplog.messages if "give it to aimeter.attach" in text]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_of_a_model(tiny, meter, said, how):
    """Each of its methods would leave no row; attached, the copy leaves its own."""
    torch = importlib.import_module("torch")
    ids = torch.full((1, 3), 40)
    model = meter.attach(tiny.llama(400))
    twin = how(model)
    assert said() == []
    twin.generate(ids, **OPTIONS)
    twin.generate(ids, **OPTIONS)
    twin(ids)
    (text,) = said()
    assert text.startswith("A LlamaForCausalLM that is not attached is called, and leaves no row")
    assert meter.records() == []
    meter.attach(twin)
    twin.generate(ids, **OPTIONS)
    assert meter.records()
    aimeter.detach(twin)
    aimeter.detach(model)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copies_of_a_pipeline(tiny, meter, said, how):
    """Be its parts shared or copied."""
    pipe = meter.attach(tiny.text_pipeline())
    twin = how(pipe)
    twin("snow", **OPTIONS)
    (text,) = said()
    assert "TextGenerationPipeline" in text
    aimeter.detach(pipe)


def test_a_pipeline_derived_from_another(tiny, meter, said):
    """diffusers makes a pipeline of another class from the parts of one."""
    diffusers = importlib.import_module("diffusers")
    pipe = meter.attach(tiny.stable_diffusion())
    other = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other("snow", image=importlib.import_module("torch").zeros(1, 3, 16, 16), num_inference_steps=2)
    (text,) = said()
    assert "StableDiffusionImg2ImgPipeline" in text
    assert "StableDiffusionPipeline that is" in text
    aimeter.detach(pipe)


def test_a_part_that_is_used_alone(tiny, meter, said):
    """A pipeline's model that is asked directly is outside of the pipeline's calls."""
    torch = importlib.import_module("torch")
    pipe = meter.attach(tiny.text_pipeline())
    pipe("snow", **OPTIONS)
    assert said() == []
    pipe.model.generate(torch.full((1, 3), 40), **OPTIONS)
    (text,) = said()
    assert "it is a part of a TextGenerationPipeline" in text
    aimeter.detach(pipe)


def test_strangers_are_left_alone(tiny, meter, said):
    """Others of the class, what was detached, and a pipeline around an attached model, which is metered: no word."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    ids = torch.full((1, 3), 40)
    model, other = meter.attach(tiny.llama(400)), tiny.llama(400)
    other.generate(ids, **OPTIONS)
    other(ids)
    around = transformers.pipeline("text-generation", model=model, tokenizer=tiny.byte_bpe())
    around("snow", **OPTIONS)
    net, beside = meter.attach(torch.nn.Linear(3, 3)), torch.nn.Linear(3, 3)
    beside(torch.zeros(1, 3))
    pipe = meter.attach(tiny.text_pipeline())
    meter.attach(pipe.model)
    aimeter.detach(pipe)
    pipe("snow", **OPTIONS)
    assert said() == []
    for one in (model, net, pipe.model):
        aimeter.detach(one)
