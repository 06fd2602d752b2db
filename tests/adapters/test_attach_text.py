"""Text pipelines and `generate`, attached: counts, prefill and decode, streams, lazy inputs, on an exact meter."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import threading
import types

import pytest

import aimeter
from aimeter.adapters.generation import _cached_length
from tests.fakes import WATT

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def tiny():
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    return importlib.import_module("tests.tiny_models")


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.text_pipeline()


@contextlib.contextmanager
def taking_time(clock, model, a_token_s=1.0):
    """Let each forward pass take a second a token: a prompt of seven takes seven, a new token one."""

    def pause(module, args, kwargs):
        given = kwargs.get("input_ids")
        given = args[0] if given is None else given
        clock.sleep(a_token_s * given.shape[1])

    handle = model.register_forward_pre_hook(pause, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def attached(meter, subject, **options):
    meter.attach(subject, **options)
    try:
        yield subject
    finally:
        aimeter.detach(subject)


def knows(setting):
    """Whether `generate` of the installed version has a setting."""
    utils = importlib.import_module("transformers.generation.utils")
    config = importlib.import_module("transformers").GenerationConfig()
    return hasattr(config, setting) or setting in inspect.signature(utils.GenerationMixin.generate).parameters


def by_name(meter):
    rows = {}
    for row in meter.records():
        rows.setdefault(row.name.rpartition(".")[2], []).append(row)
    return rows


def total(rows, column):
    return sum(getattr(row, column) for row in rows)


def test_a_pipeline_call_is_metered_counted_and_labelled(pipe, meter, clock):
    """One attach: joules, items, tokens in and out, and what the model is, in one row."""
    prompt = "two trains leave"
    length = len(pipe.tokenizer(prompt)["input_ids"])
    with attached(meter, pipe), taking_time(clock, pipe.model):
        pipe(prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    (row,) = by_name(meter)["text-generation"]
    assert (row.status, row.items, row.tokens_in, row.tokens_out) == ("ok", 1, length, 5)
    # The last new token is chosen, but never read again.
    assert row.energy_j == pytest.approx(WATT * (length + 4))
    assert row.model == "LlamaForCausalLM"
    assert row.meta["parameters"] == sum(p.numel() for p in pipe.model.parameters())
    assert row.meta["dtype"] == "float32"
    assert row.meta["device"] == "cpu"
    assert row.meta["batch_size"] == 1
    assert row.meta["framework"].startswith("transformers ")


def test_prefill_and_decode_are_told_apart_exactly(pipe, meter, clock):
    """The prefill's joules are those of the prompt's pass, the decode's those of the others; together all."""
    prompt = "snow on the roof keeps"
    length = len(pipe.tokenizer(prompt)["input_ids"])
    with attached(meter, pipe), taking_time(clock, pipe.model):
        pipe(prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    rows = by_name(meter)
    (whole,), (prefill,), (decode,) = rows["text-generation"], rows["prefill"], rows["decode"]
    assert prefill.parent_id == decode.parent_id == whole.call_id
    assert prefill.energy_j == pytest.approx(WATT * length)
    assert decode.energy_j == pytest.approx(WATT * 5)
    assert prefill.energy_j + decode.energy_j == pytest.approx(whole.energy_j)
    assert (prefill.tokens_in, prefill.tokens_out, decode.tokens_out) == (length, 1, 5)
    assert decode.model == whole.model


def test_parts_only_if_wanted(pipe, meter):
    """parts=False gives one row a call."""
    with attached(meter, pipe, parts=False, name="chat", model="mine"):
        pipe("snow", max_new_tokens=3)
    (row,) = meter.records()
    assert (row.name, row.model, row.parent_id) == ("chat", "mine", None)
    assert row.tokens_out <= 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True},
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 3},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 2},
        {"return_dict_in_generate": True, "output_scores": True},
    ],
    ids=lambda options: "+".join(options) or "greedy",
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_every_decoding_mode_counts_and_changes_no_token(tiny, meter, family, options):
    """In all modes of generate: the same tokens as without, counted to the end token, and two parts."""
    if family == "t5" and {"prefill_chunk_size", "prompt_lookup_num_tokens"} & set(options):
        pytest.skip("for decoders only")
    if "prefill_chunk_size" in options and not knows("prefill_chunk_size"):
        pytest.skip("of newer versions")
    torch = importlib.import_module("torch")
    tokenizer = tiny.byte_bpe()
    tiny.seeded()
    model = getattr(tiny, family)(len(tokenizer))
    rows = 1 if "prompt_lookup_num_tokens" in options else 2
    batch = tokenizer(["the kettle boils in", "snow"][:rows], return_tensors="pt", padding=True)
    settings = {"max_new_tokens": 7, **options}

    def run():
        tiny.seeded(1)
        return model.generate(**batch, **settings)

    plain = run()
    with attached(meter, model):
        metered = run()
    after = run()
    sequences = [getattr(result, "sequences", result) for result in (plain, metered, after)]
    assert torch.equal(sequences[0], sequences[1])
    assert torch.equal(sequences[0], sequences[2])
    prompt = 1 if family == "t5" else batch["input_ids"].shape[1]
    new = [row.tolist()[prompt:] for row in sequences[0]]
    expected = sum(row.index(tiny.EOS) + 1 if tiny.EOS in row else len(row) for row in new)
    found = by_name(meter)
    (row,) = found["generate"]
    assert row.name == f"{type(model).__name__}.generate"
    assert (row.items, row.tokens_in, row.tokens_out) == (rows, int(batch["attention_mask"].sum()), expected)
    assert [len(found[part]) for part in ("prefill", "decode")] == [1, 1]
    assert found["prefill"][0].tokens_out + found["decode"][0].tokens_out == expected


@pytest.mark.parametrize("beams", [1, 2])
def test_a_single_new_token_is_the_prefills(tiny, meter, clock, beams):
    """All that is made of a prompt of which one token is wanted: nothing is decoded, and nothing spent on it."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.llama(400)
    with attached(meter, model), taking_time(clock, model):
        model.generate(torch.full((3, 4), 40), max_new_tokens=1, do_sample=False, num_beams=beams)
    rows = by_name(meter)
    (whole,), (prefill,), (decode,) = rows["generate"], rows["prefill"], rows["decode"]
    assert (whole.tokens_in, whole.tokens_out) == (12, 3)
    assert (prefill.tokens_in, prefill.tokens_out, decode.tokens_out) == (12, 3, 0)
    assert prefill.energy_j == pytest.approx(whole.energy_j) == pytest.approx(4 * WATT)
    assert decode.energy_j == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("where", ["argument", "configuration", "model", "pipeline"])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_each_sequence_of_a_prompt_has_its_first_token_of_the_prefill(tiny, meter, family, beams, where):
    """Three sequences of each of two prompts: six tokens are the prefill's, read are the two prompts; beams are work."""
    transformers = importlib.import_module("transformers")
    tokenizer = tiny.byte_bpe()
    tiny.seeded()
    model = getattr(tiny, family)(len(tokenizer))
    asked = {
        "max_new_tokens": 5,
        "min_new_tokens": 5,
        "do_sample": beams == 1,
        "num_beams": beams,
        "num_return_sequences": 3,
        "bad_words_ids": [[tiny.PAD]],  # which only a model with random weights would choose
    }
    prompts = ["two trains leave", "snow"]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    read = int(batch.attention_mask.sum())
    if where == "pipeline":
        task = {"llama": "text-generation", "t5": "text2text-generation"}[family]
        if task not in transformers.pipelines.SUPPORTED_TASKS:
            pytest.skip("of older versions")
        subject, whole = transformers.pipeline(task, model=model, tokenizer=tokenizer), task
        with attached(meter, subject):
            subject(prompts, batch_size=2, **asked)
    else:
        whole = "generate"
        if where == "configuration":
            config = transformers.GenerationConfig.from_model_config(model.config)
            config.update(**asked)
            asked = {"generation_config": config}
        elif where == "model":
            model.generation_config.update(**asked)
            asked = {}
        with attached(meter, model):
            model.generate(**batch, **asked)
    rows = by_name(meter)
    found = [(row.tokens_in, row.tokens_out) for name in (whole, "prefill", "decode") for row in rows[name]]
    assert found == [(read, 2 * 3 * 5), (read, 2 * 3), (None, 2 * 3 * 4)]
    assert rows[whole][0].items == 2


def test_a_draft_model_is_part_of_the_decode(tiny, meter, clock):
    """Assisted generation calls generate of the draft: one row, the same tokens, all joules in it."""
    tokenizer = tiny.byte_bpe()
    tiny.seeded()
    model, draft = tiny.llama(len(tokenizer)), tiny.llama(len(tokenizer), width=16)
    batch = tokenizer("two trains leave", return_tensors="pt")
    options = {"max_new_tokens": 6, "eos_token_id": -1, "do_sample": False, "assistant_model": draft}
    plain = model.generate(**batch, **options)
    aimeter.instrument(meter=meter)
    try:
        with taking_time(clock, model), taking_time(clock, draft, a_token_s=0.25):
            start = clock.now_s
            out = model.generate(**batch, **options)
            spent = clock.now_s - start
    finally:
        aimeter.uninstrument()
    assert plain.tolist() == out.tolist()
    rows = by_name(meter)
    (whole,) = rows["generate"]
    assert sorted(rows) == ["decode", "generate", "prefill"]
    assert whole.energy_j == pytest.approx(WATT * spent)
    assert whole.tokens_out == 6
    assert total(rows["prefill"] + rows["decode"], "energy_j") == pytest.approx(whole.energy_j)


def test_an_end_token_that_is_the_padding_is_counted(tiny, meter):
    """GPT-2 pads with its end token: each row counts up to its first one."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.gpt2(400)
    model.generation_config.pad_token_id = tiny.EOS

    def end_of_first_row(ids, scores):
        scores = torch.full_like(scores, -1e9)
        scores[:, 50] = 0
        if ids.shape[1] >= 5:
            scores[0, 50], scores[0, tiny.EOS] = -1e9, 0
        return scores

    with attached(meter, model):
        out = model.generate(
            torch.full((2, 3), 40), max_new_tokens=6, logits_processor=[end_of_first_row], do_sample=False
        )
    assert out.shape == (2, 9)
    row = by_name(meter)["generate"][0]
    assert (row.tokens_in, row.tokens_out) == (6, 3 + 6)


def test_a_list_in_batches(pipe, meter, clock):
    """A list is one call: its items, and tokens without padding, over all batches."""
    prompts = ["two trains", "snow on the roof keeps the house", "the kettle"]
    lengths = [len(pipe.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    with attached(meter, pipe), taking_time(clock, pipe.model):
        results = pipe(prompts, batch_size=2, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    rows = by_name(meter)
    (row,) = rows["text-generation"]
    assert len(results) == row.items == 3
    assert (row.tokens_in, row.tokens_out) == (sum(lengths), 12)
    assert row.meta["batch_size"] == 2
    assert len(rows["prefill"]) == len(rows["decode"]) == 2
    assert total(rows["prefill"] + rows["decode"], "energy_j") == pytest.approx(row.energy_j)
    assert total(rows["decode"], "tokens_out") == 9


def test_chats_are_items(pipe, meter):
    """A conversation is one item, a list of them as many."""
    chat = [{"role": "user", "content": "snow"}, {"role": "assistant", "content": "roof"}]
    with attached(meter, pipe):
        pipe(chat, max_new_tokens=2)
        pipe([chat, chat], max_new_tokens=2)
        pipe(chat[:1], max_new_tokens=2)
        pipe(["snow"], max_new_tokens=2)
    assert [row.items for row in by_name(meter)["text-generation"]] == [1, 2, 1, 1]


def test_a_generator_is_metered_while_it_is_consumed(pipe, meter, clock):
    """The call returns at once and the energy is spent later: it is charged, the consumer's own is not."""
    lengths = [len(pipe.tokenizer(text)["input_ids"]) for text in ("two trains", "snow", "the kettle boils")]
    with attached(meter, pipe), taking_time(clock, pipe.model):
        lazy = pipe(
            (text for text in ("two trains", "snow", "the kettle boils")),
            max_new_tokens=2,
            min_new_tokens=2,
            do_sample=False,
        )
        assert type(lazy).__name__ == "PipelineIterator"
        assert aimeter.current_call() is None
        for _ in lazy:
            clock.sleep(50.0)  # the consumer's own business
            assert aimeter.current_call() is None
    rows = by_name(meter)
    (row,) = rows["text-generation"]
    assert (row.status, row.items) == ("ok", 3)
    assert (row.tokens_in, row.tokens_out) == (sum(lengths), 6)
    assert row.energy_j == pytest.approx(WATT * (sum(lengths) + 3))
    assert total(rows["prefill"] + rows["decode"], "energy_j") == pytest.approx(row.energy_j)
    assert row.meta["aimeter"]["suspended_s"] == pytest.approx(150.0)


def test_what_is_consumed_is_what_the_pipeline_gives(pipe, meter):
    """Item by item the same as without metering; who asks on behind the end is told so, and nothing is counted."""
    texts = ["two trains", "snow", "the kettle boils"]
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    plain = list(pipe((text for text in texts), **options))
    with attached(meter, pipe):
        lazy = pipe((text for text in texts), **options)
        assert list(lazy) == plain
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(lazy)
    (row,) = by_name(meter)["text-generation"]
    assert (row.status, row.items, row.tokens_out) == ("ok", 3, 9)
    assert aimeter.current_call() is None


def test_a_text_begun_from_nothing_has_its_new_tokens(tiny, meter):
    """Without a prompt the model begins with a token of its own, which is none that it made."""
    tiny.seeded()
    model = tiny.llama(400)
    with attached(meter, model):
        out = model.generate(max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape == (1, 5)
    rows = by_name(meter)
    assert [rows[name][0].tokens_out for name in ("generate", "prefill", "decode")] == [4, 1, 3]


def test_a_dataset_is_metered_while_it_is_consumed(pipe, meter):
    """So is a torch Dataset, which keeps its length."""
    torch = importlib.import_module("torch")

    class Prompts(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, place):
            return ["two", "trains", "leave", "snow"][place]

    with attached(meter, pipe):
        lazy = pipe(Prompts(), max_new_tokens=2)
        assert len(lazy) == 4
        assert len(list(lazy)) == 4
    assert by_name(meter)["text-generation"][0].items == 4


def test_a_lazy_result_that_is_given_up_ends_its_row(pipe, meter):
    """A consumer that stops early leaves a closed row with what was done."""
    with attached(meter, pipe):
        lazy = pipe((text for text in ("two", "trains", "leave")), max_new_tokens=2)
        next(iter(lazy))
        del lazy
        gc.collect()
    (row,) = by_name(meter)["text-generation"]
    assert (row.status, row.items) == ("closed", 1)


def test_an_error_in_a_lazy_result_is_the_callers(pipe, meter):
    """The input's own exception arrives, and the row says so."""

    def inputs():
        yield "two"
        message = "no more"
        raise OSError(message)

    with attached(meter, pipe):
        lazy = pipe(inputs(), max_new_tokens=2)
        with pytest.raises(OSError, match="no more"):
            list(lazy)
    (row,) = by_name(meter)["text-generation"]
    assert (row.status, row.error_type, row.items) == ("error", "OSError", 1)


def test_streaming_in_a_thread(tiny, meter, pipe):
    """The usual pattern of servers: generate in a thread; tokens are counted, not pieces."""
    transformers = importlib.import_module("transformers")
    streamer = transformers.TextIteratorStreamer(pipe.tokenizer, skip_prompt=True)
    batch = pipe.tokenizer("two trains", return_tensors="pt")
    options = {**batch, "streamer": streamer, "max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    with attached(meter, pipe.model):
        thread = threading.Thread(target=pipe.model.generate, kwargs=options, name="server")
        thread.start()
        pieces = list(streamer)
        thread.join()
    rows = by_name(meter)
    assert pieces
    assert (rows["generate"][0].tokens_out, rows["generate"][0].thread) == (8, "server")
    assert len(rows["decode"]) == 1


def test_a_call_that_raises_keeps_its_exception(pipe, meter, clock):
    """Its own exception, a row with status error, and the energy spent until then."""

    def broken(ids, scores):
        message = "broken"
        raise ZeroDivisionError(message)

    with (
        attached(meter, pipe),
        taking_time(clock, pipe.model),
        pytest.raises(ZeroDivisionError, match="broken"),
    ):
        pipe("two trains", max_new_tokens=3, logits_processor=[broken])
    rows = by_name(meter)
    (row,), (prefill,) = rows["text-generation"], rows["prefill"]
    assert (row.status, row.error_type) == ("error", "ZeroDivisionError")
    assert prefill.status == "error"
    assert row.energy_j == pytest.approx(WATT * len(pipe.tokenizer("two trains")["input_ids"]))
    assert aimeter.current_call() is None


@pytest.mark.parametrize(
    ("task", "kind", "text"),
    [
        ("text-classification", "BertForSequenceClassification", "the kettle boils"),
        ("fill-mask", "BertForMaskedLM", "the [MASK] boils"),
        ("feature-extraction", "BertModel", "the kettle boils"),
        ("token-classification", "BertForTokenClassification", "the kettle boils"),
    ],
)
def test_tasks_without_generation(tiny, meter, clock, task, kind, text):
    """An encoder's pipeline counts items and the tokens that it reads, padding left out."""
    transformers = importlib.import_module("transformers")
    tokenizer = tiny.wordpiece()
    pipe = transformers.pipeline(task, model=tiny.bert(kind, len(tokenizer)), tokenizer=tokenizer)
    texts = [text, f"{text} in three minutes"]
    lengths = [len(tokenizer(one)["input_ids"]) for one in texts]
    plain = pipe(texts, batch_size=2)
    with attached(meter, pipe), taking_time(clock, pipe.model):
        assert str(pipe(texts, batch_size=2)) == str(plain)
    (row,) = meter.records()
    assert (row.name, row.items, row.tokens_in, row.tokens_out) == (task, 2, sum(lengths), None)
    assert row.model == kind
    assert row.energy_j == pytest.approx(WATT * max(lengths))


def test_pictures(tiny, meter):
    """Image classification counts pictures."""
    numpy = importlib.import_module("numpy")
    image = importlib.import_module("PIL.Image")
    pipe = tiny.vit_pipeline()
    picture = image.fromarray(numpy.zeros((48, 64, 3), dtype=numpy.uint8))
    with attached(meter, pipe):
        pipe([picture] * 3, batch_size=2)
    (row,) = meter.records()
    assert (row.name, row.items, row.images) == ("image-classification", 3, 3)


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_seconds_of_audio(tiny, meter, kind):
    """Speech recognition counts the seconds that go in, once, also where chunks overlap."""
    pipe = getattr(tiny, f"{kind}_pipeline")()
    options = (
        {"generate_kwargs": {"max_new_tokens": 4, "language": "en", "task": "transcribe"}}
        if kind == "whisper"
        else {}
    )

    def clip(seconds):
        return {"raw": tiny.tone(seconds), "sampling_rate": tiny.RATE}

    with attached(meter, pipe):
        pipe(clip(2), **options)
        pipe([clip(1), tiny.tone(3)], **options)
        if kind == "whisper":
            pipe(clip(40), chunk_length_s=10, batch_size=2, **options)
    rows = by_name(meter)["automatic-speech-recognition"]
    assert [row.audio_s for row in rows[:2]] == [2, 4]
    assert [row.items for row in rows] == [1, 2, 1][: len(rows)]
    if kind == "whisper":
        assert rows[2].audio_s == 40
        # Each attempt of its own makes four.
        assert all(row.tokens_out >= 4 * row.items and row.tokens_out % 4 == 0 for row in rows)
        assert all(row.tokens_in is None for row in rows)
        children = [row for row in meter.records() if row.parent_id == rows[0].call_id]
        parts = [row.name.rpartition(".")[2] for row in children]
        assert set(parts) == {"prefill", "decode"}
        assert rows[0].tokens_out == 4 * parts.count("prefill")
        assert sum(row.energy_j for row in children) <= rows[0].energy_j * (1 + 1e-9)


def test_a_class_with_its_own_generate(tiny, meter):
    """Whisper's generate calls the inner one several times: one row, with the parts of each."""
    torch = importlib.import_module("torch")
    model = tiny.whisper_pipeline().model
    with attached(meter, model):
        model.generate(torch.zeros(1, 80, 3000), max_new_tokens=4, language="en", task="transcribe")
    rows = by_name(meter)
    (row,) = rows["generate"]
    assert row.name == "WhisperForConditionalGeneration.generate"
    assert row.tokens_out == 4 * len(rows["prefill"])
    assert {part.parent_id for part in rows["prefill"] + rows["decode"]} == {row.call_id}


def test_embeddings_as_prompt(tiny, meter):
    """Without token ids the prompt's length is that of its embeddings."""
    model = tiny.llama(400)
    torch = importlib.import_module("torch")
    with attached(meter, model):
        model.generate(
            inputs_embeds=torch.zeros(2, 5, 32), max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    (row,) = by_name(meter)["generate"]
    assert (row.items, row.tokens_in, row.tokens_out) == (2, 10, 6)


def test_a_decoding_loop_that_never_asks(tiny, meter):
    """A loop of one's own that has no stopping criteria: its parts cannot be told, and are not made up."""
    if not knows("custom_generate"):
        pytest.skip("of newer versions")
    torch = importlib.import_module("torch")
    model = tiny.llama(400)
    ids = torch.full((2, 3), 40)

    def loop(model, input_ids, **_):
        return torch.cat([input_ids, input_ids], dim=1)

    with attached(meter, model):
        model.generate(ids, custom_generate=loop, max_new_tokens=3)
    rows = {row.name: row.tokens_out for row in meter.records()}
    assert rows == {"LlamaForCausalLM.generate": 6, "LlamaForCausalLM.generate.whole": 6}


def test_a_generate_that_is_all_ones_own(tiny, meter):
    """A class whose generate never leads to transformers' own is metered whole."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")

    class Mine(transformers.LlamaForCausalLM):
        def generate(self, input_ids):
            """Answer at once."""
            return input_ids

    model = Mine(tiny.llama(400).config)
    with attached(meter, model):
        model.generate(torch.full((2, 3), 40))
        assert Mine.generate.__doc__ == "Answer at once."
    assert not hasattr(Mine.generate, "__wrapped__")
    (row,) = meter.records()
    assert (row.name, row.items, row.tokens_out) == ("Mine.generate", 2, None)


@pytest.mark.parametrize("form", ["tensor", "output"])
@pytest.mark.parametrize("where", ["config", "audio_encoder", "generation_config"])
def test_a_model_that_generates_sound(tiny, meter, where, form):
    """Music and speech are seconds, in whichever configuration a model keeps how fast it is played; not tokens."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")

    class Music(transformers.LlamaForCausalLM):
        def generate(self, input_ids):
            sound = torch.zeros(len(input_ids), 1, 24_000)
            return sound if form == "tensor" else types.SimpleNamespace(waveform=sound)

    model = Music(tiny.llama(400).config)
    if where == "audio_encoder":
        model.config.audio_encoder = types.SimpleNamespace(sampling_rate=16_000)
    else:
        owner, name = {
            "config": (model.config, "sampling_rate"),
            "generation_config": (model.generation_config, "sample_rate"),
        }[where]
        setattr(owner, name, 16_000)
    with attached(meter, model):
        model.generate(torch.full((2, 3), 40))
    (row,) = meter.records()
    assert (row.items, row.audio_s, row.tokens_out) == (2, 3.0, None)


def test_a_pipeline_of_ones_own_that_makes_audio(tiny, meter):
    """A class of the program's own is metered like any other; seconds of audio come from its result."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")

    class Speak(transformers.Pipeline):
        def _sanitize_parameters(self, **_):
            return {}, {}, {}

        def preprocess(self, text):
            return {"length": torch.tensor([len(text)])}

        def _forward(self, inputs):
            return inputs

        def postprocess(self, outputs):
            made = tiny.tone(float(outputs["length"]))
            return {
                "audio": [made, made[:0]] if len(made) > 3 * tiny.RATE else made,
                "sampling_rate": tiny.RATE,
            }

    pipe = Speak(model=tiny.llama(400), tokenizer=tiny.byte_bpe(), task="speak")
    with attached(meter, pipe):
        pipe("abc")
        pipe(["a", "ab"])
        list(pipe(text for text in ["abcd"]))
    rows = meter.records()
    assert [(row.name, row.items, row.audio_s) for row in rows] == [
        ("speak", 1, 3),
        ("speak", 2, 3),
        ("speak", 1, 4),
    ]


def test_a_pipeline_that_is_not_attached_is_left_alone(tiny, meter, caplog):
    """Another object of the same class gives its result, whether one that is attached is at work or not."""
    transformers = importlib.import_module("transformers")

    class Outer(transformers.Pipeline):
        inner = None

        def _sanitize_parameters(self, **_):
            return {}, {}, {}

        def preprocess(self, text):
            return {"text": text}

        def _forward(self, inputs):
            return inputs

        def postprocess(self, outputs):
            return {"text": outputs["text"], "inner": None if self.inner is None else self.inner(["a", "b"])}

    model, tokenizer = tiny.llama(400), tiny.byte_bpe()
    outer, other = (Outer(model=model, tokenizer=tokenizer, task=task) for task in ("outer", "other"))
    outer.inner = other
    with attached(meter, outer):
        assert other("c") == {"text": "c", "inner": None}
        assert [one["text"] for one in outer("d")["inner"]] == ["a", "b"]
    assert [(row.name, row.items) for row in meter.records()] == [("outer", 1)]
    assert [row.meta.get("problems") for row in meter.records()] == [None]
    (said,) = [one.getMessage() for one in caplog.records if one.name == "aimeter"]
    assert "not attached is called, and leaves no row" in said


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_cache_of_bare_tensors_is_as_long_as_its_first_layer(layers):
    """Keys and values of each layer, as older models take them; a cache without a layer holds nothing."""
    layer = types.SimpleNamespace(shape=(2, 4, 7, 8))
    assert _cached_length({"past_key_values": ((layer, layer),) * layers}) == (7 if layers else 0)


def test_an_end_token_that_is_switched_off_ends_no_count(tiny, meter):
    """``eos_token_id=None`` has `generate` go on to the full length, whatever the model's configuration says."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.gpt2(400)
    prompt = torch.full((1, 3), 40)
    first = int(model.generate(prompt, max_new_tokens=1, do_sample=False)[0, -1])
    model.generation_config.eos_token_id = first
    with attached(meter, model):
        out = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert out.shape == (1, 11)
    assert by_name(meter)["generate"][0].tokens_out == 8


@pytest.mark.parametrize(("padding", "read"), [("padding", 6), ("end", 8), (None, 8)])
def test_padding_without_a_mask_is_not_read(tiny, meter, caplog, padding, read):
    """`generate` makes the mask itself where padding stands in the prompt, unless that may be an end token: so does
    the count."""
    torch = importlib.import_module("torch")
    model = tiny.gpt2(400)
    filling = tiny.EOS if padding == "end" else tiny.PAD
    model.generation_config.pad_token_id = padding and filling
    with attached(meter, model):
        model.generate(
            torch.tensor([[filling, filling, 5, 6], [5, 6, 7, 8]]), max_new_tokens=2, do_sample=False
        )
    assert by_name(meter)["generate"][0].tokens_in == read
    assert not [record for record in caplog.records if record.name == "aimeter"]


def test_what_a_cache_holds_is_not_read_again(tiny, meter):
    """With the keys and values of a prompt's head given, only its tail is read."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.gpt2(400)
    ids = torch.randint(4, 400, (2, 8))
    cache = model(ids[:, :7], use_cache=True).past_key_values
    with attached(meter, model):
        model.generate(
            ids,
            past_key_values=cache,
            attention_mask=torch.ones(2, 8, dtype=torch.long),
            max_new_tokens=2,
            do_sample=False,
        )
    assert by_name(meter)["generate"][0].tokens_in == 2


@contextlib.contextmanager
def listening(model):
    """Note the token ids of each forward pass."""
    read = []

    def note(module, args, kwargs):
        read.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield read
    finally:
        handle.remove()


def name_of_the_cache():
    """`generate` takes what it keeps under a name that depends on the version."""
    utils = importlib.import_module("transformers.generation.utils")
    return "cache" if "cache" in getattr(utils, "ALL_CACHE_NAMES", ()) else "past_key_values"


@pytest.mark.parametrize("form", ["cache", "legacy tuple", "tail only"])
@pytest.mark.parametrize("more", ["my friend of the house", "yes"], ids=["long turn", "short turn"])
@pytest.mark.parametrize("texts", [["snow"], ["snow", "two trains leave the station at noon"]], ids=len)
def test_a_second_turn_counts_what_the_model_reads_in_it(tiny, meter, texts, more, form):
    """A chat goes on from a kept cache, also where rows are padded: only what is new is read, in two parts."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    old = transformers.__version__ < "5"
    if form == ("tail only" if old else "legacy tuple"):
        pytest.skip("another version's")
    tokenizer = tiny.byte_bpe()
    tiny.seeded()
    model = tiny.llama(len(tokenizer))
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    before = model.generate(**batch, **options, return_dict_in_generate=True)
    name = name_of_the_cache()
    cache = getattr(before, name)
    if form == "legacy tuple" and not isinstance(cache, tuple):
        cache = cache.to_legacy_cache()
    elif form == "cache" and isinstance(cache, tuple):
        cache = transformers.DynamicCache.from_legacy_cache(cache)
    added = tokenizer([more] * len(texts), return_tensors="pt").input_ids
    ids = torch.cat([before.sequences, added], 1)
    grown = torch.ones(len(texts), ids.shape[1] - batch.input_ids.shape[1], dtype=torch.long)
    mask = torch.cat([batch.attention_mask, grown], 1)
    if form == "tail only":
        ids = ids[:, -(added.shape[1] + 1) :]  # the last token of the answer was chosen, but not read
    with attached(meter, model), listening(model) as read:
        model.generate(ids, attention_mask=mask, **{name: cache}, **options)
    rows = by_name(meter)
    (whole,), (prefill,), (decode,) = rows["generate"], rows["prefill"], rows["decode"]
    assert read[0] == len(texts) * (added.shape[1] + 1)
    assert (whole.items, whole.tokens_in, whole.tokens_out) == (len(texts), read[0], 4 * len(texts))
    assert (prefill.tokens_in, prefill.tokens_out) == (read[0], len(texts))
    assert (decode.tokens_in, decode.tokens_out) == (None, 3 * len(texts))


def test_the_cache_of_a_decoder_says_nothing_of_its_encoder(tiny, meter):
    """An encoder reads its whole prompt, unless what it made of it is given."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.t5(400)
    ids = torch.full((1, 6), 40)
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    before = model.generate(ids, **options, return_dict_in_generate=True)
    name = name_of_the_cache()
    encoded = model.encoder(ids, return_dict=True)
    with attached(meter, model):
        model.generate(ids, decoder_input_ids=before.sequences, **{name: getattr(before, name)}, **options)
        model.generate(encoder_outputs=encoded, **options)
    rows = by_name(meter)["generate"]
    assert [(row.items, row.tokens_in, row.tokens_out) for row in rows] == [(1, 6, 3), (1, None, 3)]


def test_what_an_encoder_made_has_as_many_rows_as_went_in(tiny, meter):
    """Of prompts that were encoded before there are items and new tokens, each sequence's first in the prefill."""
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.t5(400)
    encoded = model.encoder(torch.full((3, 6), 40), return_dict=True)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": True, "num_return_sequences": 2}
    with attached(meter, model):
        model.generate(encoder_outputs=encoded, **options)
    rows = by_name(meter)
    found = [
        (row.items, row.tokens_in, row.tokens_out)
        for name in ("generate", "prefill", "decode")
        for row in rows[name]
    ]
    assert found == [(3, None, 3 * 2 * 4), (None, None, 3 * 2), (None, None, 3 * 2 * 3)]
    assert rows["generate"][0].meta["batch_size"] == 3


@pytest.mark.parametrize("given", ["positional", "inputs", "input_ids"])
def test_a_prompt_is_counted_by_whatever_name_it_is_given(tiny, meter, given):
    """And so is what a configuration asks for that stands beside it without a name."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    tiny.seeded()
    model = tiny.llama(400)
    ids = torch.full((2, 3), 40)
    config = transformers.GenerationConfig.from_model_config(model.config)
    config.update(max_new_tokens=4, min_new_tokens=4, do_sample=True, num_return_sequences=2)
    with attached(meter, model):
        if given == "positional":
            model.generate(ids, config)
        else:
            model.generate(**{given: ids}, generation_config=config)
    rows = by_name(meter)
    found = [
        (row.tokens_in, row.tokens_out) for name in ("generate", "prefill", "decode") for row in rows[name]
    ]
    assert found == [(6, 16), (6, 4), (None, 12)]
    assert rows["generate"][0].items == 2


def test_a_state_without_a_length_has_all_that_is_given_read(tiny, meter):
    """Mamba goes on from a state that holds no tokens: with it a prompt is read as a whole, as without it."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    if transformers.__version__ < "5":
        pytest.skip("of newer versions")
    tiny.seeded()
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(
            vocab_size=400, hidden_size=32, state_size=4, num_hidden_layers=2, **tiny._SPECIAL
        )
    ).eval()
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    ids = torch.full((2, 6), 40)
    before = model.generate(ids, **options, return_dict_in_generate=True)
    longer = torch.cat([before.sequences, ids[:, :2]], 1)
    name = name_of_the_cache()
    with attached(meter, model), listening(model) as read:
        model.generate(longer, **{name: getattr(before, name)}, **options)
    row = by_name(meter)["generate"][0]
    assert (row.tokens_in, row.tokens_out) == (read[0], 6)
    assert read[0] == 2 * (6 + 3 + 2)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("where", ["argument", "model"])
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("padding", [2, 60])
def test_each_of_several_end_tokens_ends_its_row(tiny, meter, beams, where, tensor, padding):
    """A row counts up to and with the first of them that it chose, and nothing of what fills it up behind that."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    if transformers.__version__ < "5" and (beams > 1 or (tensor and where == "model")):
        pytest.skip("before transformers 5 beams end otherwise, and a configuration takes no tensor")
    tiny.seeded()
    model = tiny.llama(400)
    model.generation_config.pad_token_id = padding
    prompt = torch.tensor([[5, 6, 7], [8, 9, 10]])
    first, second, other = 50, 60, 70
    ends = torch.tensor([first, second]) if tensor else [first, second]

    def chosen(ids, scores):
        """Have the first row end at its second token, and the other at its fourth."""
        scores = torch.full_like(scores, -1e4)
        scores[:, other] = 0
        of_first = ids[:, 0] == 5
        for rows, length, end in ((of_first, 4, first), (~of_first, 6, second)):
            if ids.shape[1] == length:
                scores[rows, end], scores[rows, other] = 0, -1e4
        return scores

    options = {"eos_token_id": ends} if where == "argument" else {}
    if where == "model":
        model.generation_config.eos_token_id = ends
    with attached(meter, model):
        out = model.generate(
            prompt, max_new_tokens=7, do_sample=False, num_beams=beams, logits_processor=[chosen], **options
        )
    assert out[:, 3:].tolist()[0][:2] == [other, first]
    assert out[:, 3:].tolist()[1][:4] == [other] * 3 + [second]
    rows = by_name(meter)
    assert (rows["generate"][0].tokens_out, rows["prefill"][0].tokens_out) == (2 + 4, 2)
    assert rows["decode"][0].tokens_out == 1 + 3


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("how", ["strings", "criteria"])
@pytest.mark.parametrize("pad", ["padding", "end"])
def test_rows_that_stop_one_by_one(tiny, meter, how, beams, pad):
    """What fills up a row that has stopped is no token that was made, whatever stopped it."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    if beams > 1 and pad == "end":
        pytest.skip("of a beam's filling nothing tells its end token apart")
    tokenizer = tiny.byte_bpe()
    tiny.seeded()
    model = tiny.llama(len(tokenizer))
    model.generation_config.pad_token_id = tiny.PAD if pad == "padding" else tiny.EOS
    batch = tokenizer(["the kettle", "snow"], return_tensors="pt", padding=True)
    prompt = batch.input_ids.shape[1]
    stop, go = tokenizer("q").input_ids[0], tokenizer("a").input_ids[0]

    def chosen(ids, scores):
        """Have rows of the first prompt say ``q`` third, and all others ``a``."""
        scores = torch.full_like(scores, -1e4)
        scores[:, go] = 0
        if ids.shape[1] == prompt + 2:
            first = ids[:, prompt - 1] == batch.input_ids[0, -1]
            scores[first, stop], scores[first, go] = 0, -1e4
        return scores

    class Said(transformers.StoppingCriteria):
        def __call__(self, ids, scores, **_):
            return ids[:, -1] == stop

    ways = {
        "strings": {"stop_strings": ["q"], "tokenizer": tokenizer},
        "criteria": {"stopping_criteria": transformers.StoppingCriteriaList([Said()])},
    }
    with attached(meter, model):
        out = model.generate(
            **batch,
            max_new_tokens=9,
            do_sample=False,
            num_beams=beams,
            logits_processor=[chosen],
            **ways[how],
        )
    if beams > 1 and transformers.__version__ < "5":
        made = 2 * 9  # no single beam is stopped there
    else:
        made = 3 + 9
        assert out[0, prompt:].tolist() == [go, go, stop] + [model.generation_config.pad_token_id] * 6
    rows = by_name(meter)
    assert rows["generate"][0].tokens_out == made
    assert rows["prefill"][0].tokens_out + rows["decode"][0].tokens_out == made


def test_rows_without_padding_count_to_their_length(tiny, meter):
    """Where no end token is known, a row that has stopped goes on for as long as others do, and is work."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")

    class FirstStops(transformers.StoppingCriteria):
        def __call__(self, ids, scores, **_):
            return torch.tensor([ids.shape[1] >= 5, False])

    tiny.seeded()
    model = tiny.llama(400)
    with attached(meter, model):
        out = model.generate(
            torch.full((2, 3), 40),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            stopping_criteria=transformers.StoppingCriteriaList([FirstStops()]),
        )
    assert out.shape == (2, 9)
    assert by_name(meter)["generate"][0].tokens_out == 12


def test_a_part_that_cannot_be_told_is_the_whole(tiny, meter, monkeypatch):
    """Where counting fails, parts keep their names and their time; a loop that never asks is whole."""
    if not knows("custom_generate"):
        pytest.skip("of newer versions")
    module = importlib.import_module("aimeter.adapters.transformers")

    def fail(*_):
        raise ValueError

    model = tiny.llama(400)
    ids = importlib.import_module("torch").full((2, 3), 40)
    monkeypatch.setattr(module, "tokens_read", fail)
    with attached(meter, model):
        model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        model.generate(ids, custom_generate=lambda model, input_ids, **_: input_ids.repeat(1, 2))
    rows = [(row.name.rpartition(".")[2], row.tokens_in, row.tokens_out) for row in meter.records()]
    assert rows == [
        ("prefill", None, 2),
        ("decode", None, 4),
        ("generate", None, 6),
        ("whole", None, 6),
        ("generate", None, 6),
    ]


def test_a_pipeline_class_with_its_own_call(pipe, meter, clock):
    """What it does before and after its base's `__call__` is in the row, and a call without its base's has one."""

    class Own(type(pipe)):
        def __call__(self, inputs, **options):
            clock.sleep(3.0)
            return super().__call__([inputs] if isinstance(inputs, str) else inputs, **options)

    class Alone(type(pipe)):
        def __call__(self, inputs, **options):
            clock.sleep(2.0)
            return inputs

    class Split(type(pipe)):
        def __call__(self, inputs, **options):
            return super().__call__(inputs.split(";"), **options)

    own = Own(model=pipe.model, tokenizer=pipe.tokenizer)
    alone = Alone(model=pipe.model, tokenizer=pipe.tokenizer)
    split = Split(model=pipe.model, tokenizer=pipe.tokenizer)
    with attached(meter, own), attached(meter, alone), attached(meter, split):
        own(["two trains", "the kettle"], max_new_tokens=2, do_sample=False)
        alone("unused")
        split("two trains;the kettle;snow", max_new_tokens=2, do_sample=False)
    rows = by_name(meter)
    assert rows["Split"][0].items == 3  # what its base was given, and not what it made that of
    (first,), (second,) = rows["Own"], rows["Alone"]
    assert (first.items, first.parent_id) == (2, None)
    assert first.energy_j == pytest.approx(3 * WATT)
    assert second.energy_j == pytest.approx(2 * WATT)
