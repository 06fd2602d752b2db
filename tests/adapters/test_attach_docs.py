"""The page on attach, with tiny models in place of those that it downloads: the quick tours with a line added."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import aimeter

pytestmark = pytest.mark.models

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "attach.md"
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_on_attach(tmp_path, monkeypatch):
    """Its blocks run one after another as they stand."""
    for package in ("torch", "transformers", "diffusers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    tiny = importlib.import_module("tests.tiny_models")
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny.byte_bpe()
    pipe, painter = tiny.text_pipeline(), tiny.stable_diffusion()
    painter.set_progress_bar_config(disable=True)
    # Loading diffusers' pipelines replaces the module transformers by a fresh one.
    transformers, diffusers = sys.modules["transformers"], sys.modules["diffusers"]

    class Small(type(painter)):
        def __call__(self, prompt, **options):
            return super().__call__(prompt, height=64, width=64, **options)

    painter.__class__ = Small
    given = {
        (transformers, "pipeline"): lambda *_, **__: pipe,
        (diffusers.DiffusionPipeline, "from_pretrained"): lambda *_: painter,
        (transformers.AutoModelForCausalLM, "from_pretrained"): lambda *_: tiny.llama(len(tokenizer)),
        (transformers.AutoTokenizer, "from_pretrained"): lambda *_: tokenizer,
    }
    for (owner, name), value in given.items():
        monkeypatch.setattr(owner, name, value)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True
    )
    torch = importlib.import_module("torch")
    rows = [{"input_ids": torch.full((4,), 20), "labels": torch.tensor(0)}] * 2
    bert = tiny.bert("BertForSequenceClassification", 400)
    namespace = {"trainer": transformers.Trainer(bert, arguments, train_dataset=rows)}
    text = PAGE.read_text()
    try:
        for match in BLOCK.finditer(text):
            line = text[: match.start(1)].count("\n")
            exec(compile("\n" * line + match.group(1), str(PAGE), "exec"), namespace)
        names = {row.name for row in aimeter.records()}
    finally:
        aimeter.configure(log=None, region="FR")
    assert (tmp_path / "calls.csv").exists()
    assert {"text-generation.prefill", "Small.denoise", "LlamaForCausalLM.generate", "Trainer.train"} <= names
