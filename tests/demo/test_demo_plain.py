"""What the demo does without its models: its files and its refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import aimeter.demo

DIGITS = Path(aimeter.demo.__file__).parent / "digits"
SHIPPED_BYTES = 3_000_000

NONE = {"gpu_method": "none", "cpu_method": "none", "dram_method": "none"}
UNKNOWN = {**NONE, "energy_j": None, "error_j": None, "resolution_j": None}


def in_a_process_of_its_own(code, folder):
    """Run a few lines of Python in `folder`, where aimeter can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(Path(aimeter.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_weights_are_shipped_within_their_limit():
    """All files of the image model together are at most 3 MB."""
    sizes = {path.name: path.stat().st_size for path in DIGITS.rglob("*") if path.is_file()}
    assert "model_index.json" in sizes
    assert sum(sizes.values()) <= SHIPPED_BYTES


def test_sentences_are_many_and_distinct():
    """The encoder gets real, different sentences."""
    sentences = (DIGITS.parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(sentences)) == len(sentences) >= 60
    assert all(sentence.endswith(".") and len(sentence.split()) > 4 for sentence in sentences)


def test_missing_packages_are_named_with_their_remedy(tmp_path):
    """Without the extra: exit status 2, the packages and the command that installs them, and no log."""
    code = (
        "import sys; from pathlib import Path; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('torch', 'diffusers') else find(name, *a)\n"
        "import aimeter.demo; sys.exit(aimeter.demo.run(Path('calls.csv')))"
    )
    done = in_a_process_of_its_own(code, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "torch" in done.stdout
    assert "diffusers" in done.stdout
    assert "pip install 'aimeter-energy[demo]'" in done.stdout
    assert not list(tmp_path.iterdir())


def test_importing_the_demo_loads_no_framework(tmp_path):
    """`aimeter.demo` can be imported by the command line without paying for torch."""
    code = "import sys, aimeter.demo; print({'torch', 'numpy', 'rich', 'diffusers'} & set(sys.modules))"
    done = in_a_process_of_its_own(code, tmp_path)
    assert done.stdout.strip() == "set()", done.stderr
