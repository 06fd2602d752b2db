"""An attached object stays what it is, detaching restores everything, and nothing of a call is kept."""

from __future__ import annotations

import copy
import gc
import importlib
import inspect
import io
import logging
import pickle
import sys
import types
import weakref

import pytest

import aimeter
from aimeter import adapters
from aimeter.adapters import sessions
from aimeter.testing import FakeClock, FakeSensor

pytestmark = pytest.mark.models


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


def methods_of_hooks():
    """Every method that a hook of ours may replace, and every ``__init_subclass__``."""
    found = {}
    for adapter in adapters.loaded():
        for hook in adapter.hooks:
            owner = vars(sys.modules.get(hook.module, types)).get(hook.owner)
            for cls in [] if owner is None else [owner, *subclasses(owner)]:
                for name in (hook.method, "__init_subclass__"):
                    found[cls, name] = vars(cls).get(name)
    return found


def subclasses(cls):
    for derived in type.__subclasses__(cls):
        yield derived
        yield from subclasses(derived)


def test_the_object_stays_what_it_is(tiny, meter, tmp_path):
    """Type, attributes, docs, signature, pickle, copy and saved files are those of an object never attached."""
    pipe = tiny.text_pipeline()
    cls, attributes = type(pipe), dict(vars(pipe))
    described = (inspect.signature(pipe), pipe.__call__.__doc__, cls.__call__.__qualname__, repr(pipe))
    assert aimeter.attach(pipe, meter=meter) is pipe
    assert type(pipe) is cls
    assert isinstance(pipe, cls)
    assert vars(pipe) == attributes
    assert (
        inspect.signature(pipe),
        pipe.__call__.__doc__,
        cls.__call__.__qualname__,
        repr(pipe),
    ) == described
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    twin = pickle.loads(pickle.dumps(pipe.model))
    assert type(twin) is type(pipe.model)
    copied = copy.copy(pipe)
    copied("snow", max_new_tokens=1)
    assert meter.records() == []  # nobody attached the copy
    aimeter.detach(pipe)


def test_a_saved_model_knows_nothing_of_aimeter(tiny, meter):
    """A module that is attached and saved whole can be loaded where there is no aimeter."""
    torch = importlib.import_module("torch")
    model = meter.attach(tiny.llama(400))
    saved = io.BytesIO()
    torch.save(model, saved)
    assert b"aimeter" not in saved.getvalue()
    aimeter.detach(model)


def test_a_diffusers_pipeline_stays_what_it_is(tiny, meter, tmp_path):
    """A diffusers pipeline saves, moves and lists its parts as ever, and loads again."""
    pipe = tiny.ddpm()
    parts = set(pipe.components)
    meter.attach(pipe)
    assert set(pipe.components) == parts
    pipe.save_pretrained(tmp_path)
    assert type(type(pipe).from_pretrained(tmp_path)) is type(pipe)
    assert pipe.to("cpu") is pipe
    aimeter.detach(pipe)


def test_everything_is_restored(tiny, meter):
    """After detach, and after uninstrument, each method is the very object that it was."""
    pipe, painter, encoder = tiny.text_pipeline(), tiny.stable_diffusion(), tiny.bert("BertModel", 400)
    painter.set_progress_bar_config(disable=True)
    torch = importlib.import_module("torch")
    before = methods_of_hooks()
    parts = [(type(part), name) for part, name in ((painter.vae, "decode"), (painter.scheduler, "step"))]
    inner = [vars(cls)[name] for cls, name in parts]
    own = vars(type(encoder)).get("__call__")
    for subject in (pipe, pipe.model, painter, encoder):
        meter.attach(subject, steps=True)
    assert methods_of_hooks() != before
    pipe("snow", max_new_tokens=1)
    painter("snow", num_inference_steps=1, height=64, width=64)
    encoder(torch.ones(1, 3, dtype=torch.long))
    for subject in (pipe, painter, encoder, pipe.model):
        aimeter.detach(subject)
    assert methods_of_hooks() == before
    assert [vars(cls)[name] for cls, name in parts] == inner
    assert vars(type(encoder)).get("__call__") is own
    number = len(meter.records())
    aimeter.instrument(meter=meter)
    assert methods_of_hooks() != before
    aimeter.instrument(meter=meter)  # again: nothing
    aimeter.uninstrument()
    aimeter.uninstrument()
    assert methods_of_hooks() == before
    pipe("snow", max_new_tokens=1)
    assert len(meter.records()) == number


def test_attaching_twice_does_nothing(tiny, meter):
    """One row a call, and one detach ends it."""
    pipe = tiny.text_pipeline()
    for _ in range(3):
        meter.attach(pipe, parts=False)
    pipe("snow", max_new_tokens=1)
    assert len(meter.records()) == 1
    aimeter.detach(pipe)
    aimeter.detach(pipe)
    pipe("snow", max_new_tokens=1)
    assert len(meter.records()) == 1


def test_only_the_attached_one_is_metered(tiny, meter):
    """Another pipeline of the class is left alone."""
    one, other = tiny.text_pipeline(), tiny.text_pipeline()
    meter.attach(one, parts=False)
    other("snow", max_new_tokens=1)
    assert meter.records() == []
    aimeter.detach(one)


def test_an_attached_object_is_not_kept_alive(tiny, meter):
    """When the program drops it, it is collected, and the methods are as before."""
    before = methods_of_hooks()
    pipe = meter.attach(tiny.text_pipeline())
    pipe("snow", max_new_tokens=2)
    gone = weakref.ref(pipe), weakref.ref(pipe.model)
    del pipe
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert methods_of_hooks() == before
    assert sessions.attached == {}


def test_no_prompt_output_or_tensor_is_kept(tiny, meter):
    """After the call its arguments and results can be collected, and no text of them is in the rows."""
    torch = importlib.import_module("torch")

    class Prompt(str):
        __slots__ = ("__weakref__",)

    class Noted(torch.Tensor):
        pass

    pipe = meter.attach(tiny.text_pipeline())
    prompt = Prompt("two trains leave the station")
    model = meter.attach(tiny.llama(400))
    ids = torch.full((1, 4), 40).as_subclass(Noted)
    out = model.generate(ids, max_new_tokens=3, do_sample=False)
    result = pipe(prompt, max_new_tokens=2)
    refs = [weakref.ref(thing) for thing in (prompt, ids, out)]
    assert "station" not in str(meter.records())
    del prompt, ids, out, result
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]
    aimeter.detach(pipe)
    aimeter.detach(model)


@pytest.mark.parametrize(
    "subject", [object(), 3, "pipe", print, object, {}.keys()], ids=lambda one: type(one).__name__
)
def test_an_unknown_object_is_refused(tiny, subject):
    """A TypeError that names the object's class and what is known."""
    with pytest.raises(
        TypeError, match=r"attach\(\) does not know .*diffusers pipelines.*transformers pipelines"
    ):
        aimeter.attach(subject)


def test_a_tokenizer_is_refused(tiny):
    """Not everything of a known framework is a model."""
    with pytest.raises(TypeError, match=r"TokenizersBackend|PreTrainedTokenizerFast"):
        aimeter.attach(tiny.byte_bpe())


def test_a_moved_marker_makes_one_warning_and_a_plain_row(tiny, meter, monkeypatch, caplog):
    """Where prefill and decode cannot be told any more, the call is metered and counted whole."""
    criteria = importlib.import_module("transformers.generation.stopping_criteria")
    pipe = tiny.text_pipeline()
    monkeypatch.delattr(criteria, "StoppingCriteriaList")
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        for _ in range(2):
            meter.attach(pipe)
            pipe("snow", max_new_tokens=3, min_new_tokens=3)
            aimeter.detach(pipe)
    rows = meter.records()
    assert [(row.name, row.tokens_out) for row in rows] == [("text-generation", 3)] * 2
    assert len([text for text in caplog.messages if "StoppingCriteriaList" in text]) == 1


def test_a_moved_class_makes_one_warning_and_a_plain_row(tiny, meter, monkeypatch, caplog):
    """Where the class that was hooked is gone, the object's own call is metered without counts."""
    base = importlib.import_module("transformers.pipelines.base")
    pipe = tiny.text_pipeline()
    monkeypatch.delattr(base, "Pipeline")
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        meter.attach(pipe)
        pipe("snow", max_new_tokens=3)
        aimeter.detach(pipe)
    (row,) = [row for row in meter.records() if row.parent_id is None]
    assert (row.name, row.status) == ("TextGenerationPipeline", "ok")
    assert any("Pipeline" in text for text in caplog.messages)


def test_counts_that_cannot_be_found_never_break_a_call(tiny, meter, monkeypatch, caplog):
    """Whatever fails while aimeter looks at a call: one warning, and the row goes without."""
    module = importlib.import_module("aimeter.adapters.transformers")

    def fail(*_):
        message = "two trains"
        raise RuntimeError(message)

    for name in ("tokens_made", "tokens_read", "describe", "_items"):
        monkeypatch.setattr(module, name, fail)
    pipe = meter.attach(tiny.text_pipeline(), name="fragile")
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        assert pipe("snow", max_new_tokens=2)
        assert pipe("snow", max_new_tokens=2)
    aimeter.detach(pipe)
    rows = [row for row in meter.records() if row.name == "fragile"]
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[0].tokens_out is None
    warnings = [text for text in caplog.messages if "fragile" in text]
    assert warnings
    assert len(set(warnings)) == len(warnings)
    assert "trains" not in str(warnings)


def test_switched_off(tiny):
    """With enabled=False the pipeline runs and there is no row."""
    with aimeter.Meter(sensors=[], enabled=False) as meter:
        pipe = meter.attach(tiny.text_pipeline())
        assert pipe("snow", max_new_tokens=1)
        assert meter.records() == []
        aimeter.detach(pipe)


def test_a_call_inside_a_call_of_ones_own(tiny, meter):
    """What is attached becomes a child of the program's own call around it."""
    pipe = meter.attach(tiny.text_pipeline(), parts=False)
    with meter.track("request") as request:
        pipe("snow", max_new_tokens=1)
    aimeter.detach(pipe)
    rows = {row.name: row for row in meter.records()}
    assert rows["text-generation"].parent_id == request.call_id


def test_a_pipeline_whose_model_is_attached_too(tiny, meter):
    """The model's row is a child with the parts; both count the tokens."""
    pipe = meter.attach(tiny.text_pipeline())
    model = meter.attach(pipe.model)
    pipe("snow", max_new_tokens=4, min_new_tokens=4)
    aimeter.detach(model)
    aimeter.detach(pipe)
    rows = {row.name: row for row in meter.records()}
    outer, inner = rows["text-generation"], rows["LlamaForCausalLM.generate"]
    assert (outer.tokens_out, inner.tokens_out, inner.parent_id) == (4, 4, outer.call_id)
    assert outer.tokens_in == inner.tokens_in
    assert rows["LlamaForCausalLM.generate.decode"].parent_id == inner.call_id


@pytest.mark.parametrize(
    ("path", "name", "revision"),
    [
        ("gpt2", "gpt2", None),
        ("org/model", "org/model", None),
        ("/home/ann/secret/model", "model", None),
        ("./secret/model", "model", None),
        ("C:\\Users\\ann\\model", "model", None),
        ("/x/models--org--model/snapshots/" + "ab" * 20 + "/unet", "org/model", "ab" * 20),
        ("", None, None),
        (None, None, None),
    ],
)
def test_names_of_models(path, name, revision):
    """A hub's id is a name; of a local path only the last part is told."""
    labels = importlib.import_module("aimeter.adapters.labels")
    assert (labels.name_of(path), labels.revision_of(path)) == (name, revision)


def test_parts_of_an_attached_object_that_are_attached_too(tiny, meter):
    """A component attached by itself gets rows of its own, as children."""
    painter = tiny.stable_diffusion()
    painter.set_progress_bar_config(disable=True)
    meter.attach(painter, parts=False)
    meter.attach(painter.unet)
    painter("snow", num_inference_steps=2, height=64, width=64)
    aimeter.detach(painter)
    aimeter.detach(painter.unet)
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name, []).append(row)
    assert len(rows["UNet2DConditionModel.forward"]) == 2
    assert {row.parent_id for row in rows["UNet2DConditionModel.forward"]} == {
        rows["StableDiffusionPipeline"][0].call_id
    }


def test_a_compiled_model_is_not_disturbed(tiny, meter):
    """Dynamo traces an attached module as if aimeter were not there."""
    torch = importlib.import_module("torch")
    model = meter.attach(tiny.bert("BertModel", 400))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    ids = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(compiled(ids)[0], model(ids)[0])
    aimeter.detach(model)
