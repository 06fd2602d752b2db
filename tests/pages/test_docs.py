"""The docs are kept true: their examples run, page by page, as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aimeter

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
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


@pytest.mark.parametrize(("page", "at_least"), [("situations", 39), ("attacks", 15), ("architecture", 40)])
def test_pages_name_tests_that_exist(page, at_least):
    """What is said to be tried is tried: each name is of a test of this suite, or of a file of tests."""
    text = (ROOT / "docs" / "explanation" / f"{page}.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    files = set(re.findall(r"`(?:tests/|benchmarks/)?(test_\w+\.py)`", text))
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(named) >= at_least
    assert named - known == set()
    there = {path.name for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("test_*.py")}
    assert files - there == set()
