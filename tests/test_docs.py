"""The docs are kept true: their examples run, page by page, as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aimeter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.name)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    """A page's python blocks run one after another, in an empty folder, with the core alone installed."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    try:
        for match in BLOCK.finditer(text):
            line = text[: match.start(1)].count("\n")
            exec(compile("\n" * line + match.group(1), str(page), "exec"), namespace)
    finally:
        aimeter.configure(log=None, region="FR")


def test_links_between_pages_lead_somewhere():
    """A relative link names a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_situations_name_tests_that_exist():
    """Each line of the list of situations names a test of this suite."""
    lines = (ROOT / "docs" / "explanation" / "situations.md").read_text("utf-8").splitlines()
    named = [re.fullmatch(r"\|.*\| `(test_\w+)` \|", line) for line in lines if line.startswith("| ")]
    missing = {match[1] for match in named if match} - {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert sum(match is not None for match in named) >= 39
    assert missing == set()
