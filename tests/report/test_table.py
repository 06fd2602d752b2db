"""The table on terminals of any width and encoding: bars and lines over time where there is room, and no word cut."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from aimeter._support.signs import in_signs_of
from aimeter.record import Record
from aimeter.report import Summary, summarise
from aimeter.report.bins import Bins
from aimeter.report.strokes import bar, sparkline
from tests.records import make_record


def call(name: str, at_s: int, energy_j: float, duration_s: float, **more: object) -> Record:
    """Return the record of a call, `at_s` seconds after noon."""
    return make_record(
        **{
            "images": None,
            "model": None,
            "self_j": energy_j,
            "error_j": energy_j / 10,
            "resolution_j": 0.0,
            "co2e_g": energy_j / 1e5,
            **more,
        },
        name=name,
        start=f"2026-11-27T12:{at_s // 60:02d}:{at_s % 60:02d}.000000Z",
        energy_j=energy_j,
        duration_s=duration_s,
    )


def logged() -> Summary:
    """Return two minutes of chats that grow dearer, and one picture in the middle of them."""
    rows = []
    for number in range(12):
        inner = {"parent_id": f"chat{number}", "call_id": f"part{number}", "tokens_out": 50.0}
        rows += [
            call("chat.decode", 10 * number, 6.0 * (1 + number), 10.0, **inner),
            call("chat", 10 * number, 8.0 * (1 + number), 10.0, call_id=f"chat{number}", self_j=1.0),
        ]
    return summarise([*rows, call("DiffusionPipeline", 50, 120.0, 20.0, call_id="picture", images=4.0)])


def shown(summary: Summary, width: int) -> str:
    """Return what a terminal of that width shows, without blanks at the ends of lines."""
    console = Console(file=io.StringIO(), width=width)
    console.print(summary)
    return re.sub(r" +$", "", console.file.getvalue(), flags=re.MULTILINE)  # type: ignore[attr-defined]


WIDE = """\
name               calls  share                per call   per unit              energy     CO2e    time  over time
─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
chat                  12    84%  ██████▊   52.0 ± 5.2 J                     624 ± 62 J  6.24 mg   120 s  ▁▂▂▃▄▅▅▆▇▇██
├ decode              12    75%  ██████    39.0 ± 3.9 J   780 mJ/token out  468 ± 47 J  4.68 mg   120 s  ▁▂▂▃▄▅▅▆▇▇██
└ self                       2%  ▏                                              12.0 J
DiffusionPipeline      1    16%  █▎          120 ± 12 J   30.0 J/image      120 ± 12 J  1.20 mg  20.0 s       ██

total                 13                   57.2 ± 5.7 J                     744 ± 74 J  7.44 mg   140 s  ▁▂▂▃▄██▆▆▇▇█
Measured by: gpu counter, cpu estimate.
"""
MIDDLE = """\
                                   per
name      calls share             call  per unit         energy    CO2e   time
──────────────────────────────────────────────────────────────────────────────
chat         12   84% ██████▊     52.0                      624 6.24 mg  120 s
                               ± 5.2 J                   ± 62 J
├ decode     12   75% ██████      39.0  780 mJ/token out    468 4.68 mg  120 s
│                              ± 3.9 J                   ± 47 J
└ self             2% ▏                                  12.0 J
Diffusion     1   16% █▎           120  30.0 J/image        120 1.20 mg 20.0 s
Pipeline                        ± 12 J                   ± 12 J

total        13                   57.2                      744 7.44 mg  140 s
                               ± 5.7 J                   ± 74 J
Measured by: gpu counter, cpu estimate.
"""
NARROW = """\
chat
  calls      12
  share      84%  ██████▊
  per call   52.0 ± 5.2 J
  energy     624 ± 62 J
  CO2e       6.24 mg
  time       120 s
  over time  ▁▂▂▃▄▅▅▆▇▇██

├ decode
│   calls      12
│   share      75%  ██████
│   per call   39.0 ± 3.9 J
│   per unit   780 mJ/token out
│   energy     468 ± 47 J
│   CO2e       4.68 mg
│   time       120 s
│   over time  ▁▂▂▃▄▅▅▆▇▇██
│
└ self
    share      2%   ▏
    energy     12.0 J

DiffusionPipeline
  calls      1
  share      16%  █▎
  per call   120 ± 12 J
  per unit   30.0 J/image
  energy     120 ± 12 J
  CO2e       1.20 mg
  time       20.0 s
  over time       ██

total
  calls      13
  per call   57.2 ± 5.7 J
"""
LEAST = """\
chat
  calls      12
  share
    84%  ██████▊
  per call
    52.0 ± 5.2 J
  energy
    624 ± 62 J
  CO2e       6.24 mg
  time       120 s
  over time
    ▁▂▂▃▄▅▅▆▇▇██

├ decode
│   calls      12
│   share
│     75%  ██████
│   per call
│     39.0 ± 3.9 J
│   per unit
│     780 mJ/token
│     out
│   energy
│     468 ± 47 J
│   CO2e
│     4.68 mg
│   time       120 s
│   over time
│     ▁▂▂▃▄▅▅▆▇▇██
│
"""


@pytest.mark.parametrize(
    ("width", "golden"), [(140, WIDE), (80, MIDDLE), (60, NARROW), (40, NARROW), (20, LEAST)]
)
def test_the_table_at_a_width(width: int, golden: str):
    """Strokes go first where there is no room, then figures stand under one another, each whole."""
    assert shown(logged(), width).startswith(golden)


def test_a_pipe_has_no_strokes():
    """Nor has a page or a pull request: there the table is text."""
    summary = logged()
    for form in (str(summary), summary.markdown(), summary._repr_html_()):
        assert not set(form) & set("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉")
        assert "over time" not in form


@pytest.mark.parametrize("width", range(20, 160, 7))
def test_no_word_is_cut_at_any_width(width: int):
    """Each word of the widest table is a word of the others, but for names, which have places to be broken at."""
    words = set(shown(logged(), 200).split())
    broken = {"Diffusion", "Pipeline"}
    drawn = set("│├└─") | {"─" * n for n in range(200)}
    seen = set(shown(logged(), width).split())
    loose = {part for word in words for part in re.split(r"(?=/)", word)}
    assert seen <= words | loose | broken | drawn
    assert max(map(len, shown(logged(), width).splitlines())) <= width


def test_in_ascii_units_and_strokes_can_be_read():
    """A container's terminal often has no other signs: no figure becomes a question mark, and columns stay straight."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    console = Console(file=file, width=140)
    console.print(summarise([call("chat", 0, 1e-3, 1.0, items=2.0), call("chat", 9, 5e-4, 1.0, items=2.0)]))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "750 +- 75 uJ" in text
    assert "375 uJ/item" in text
    assert "########" in text
    assert "?" not in text


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_signs_of_an_encoding_can_be_written_in_it(text: str, encoding: str):
    """And what could be written before is as it was."""
    put = in_signs_of(encoding, text)
    put.encode(encoding)
    if all(ord(sign) < 128 for sign in text):
        assert put == text


@given(st.floats(0, 1), st.integers(1, 20))
def test_a_bar_is_as_long_as_its_part(part: float, width: int):
    """To an eighth of a character, and no longer than all of it; more than nothing is seen."""
    drawn = bar(part, width)
    assert len(drawn) == width
    eighths = sum(" ▏▎▍▌▋▊▉█".index(sign) for sign in drawn)
    assert abs(eighths - part * width * 8) <= 1
    assert (eighths > 0) == (part > 0)


def test_a_line_over_time_is_empty_where_nothing_was_used():
    """Which is not the same as little."""
    assert sparkline([4.0, 0.0, 0.001, 2.0]) == "█ ▁▅"
    assert sparkline([math.inf, 1.0]) == ""
    assert sparkline([]) == sparkline([0.0, 0.0]) == ""


CALLS = st.lists(
    st.tuples(st.floats(0, 1e5), st.floats(0, 1e4) | st.just(0.0), st.floats(0, 1e3)), min_size=1, max_size=20
)


@given(CALLS, CALLS, st.integers(1, 20))
@example([(0.0, 0.0, 0.0)], [(1.0, 0.0, 1.0)], 1)
@example([(0.0, 0.0, 0.0)], [(5e-324, 0.0, 0.0)], 2)
def test_merged_stretches_hold_what_each_held(one: CALLS, other: CALLS, count: int):
    """All that was used from the first begin to the last end is in one of the equal stretches."""
    first, second = Bins(16), Bins(16)
    for bins, calls in ((first, one), (second, other)):
        for begin_s, length_s, joules in calls:
            bins.spread(begin_s, begin_s + length_s, {"J": joules})
    first.merge(second)
    held = first.evenly("J", first.begin_s, first.end_s, count)
    total = sum(joules for *_, joules in (*one, *other))
    if (first.end_s - first.begin_s) / count > 0:  # no number is half of the least one
        assert len(held) == count
        assert sum(held) == pytest.approx(total, rel=1e-6, abs=1e-6)
    else:
        assert held == ()


def test_more_names_than_are_noted_have_no_line_over_time():
    """Rather than one of which a part is missing."""
    few, many = (
        summarise(call(f"call {number}", number % 60, 1.0, 1.0) for number in range(count))
        for count in (100, 101)
    )
    assert len(few.total.over_time_j) == 12
    assert many.span_s is None
    assert not any(row.over_time_j for row in (many.total, *many.tree, *many.rows))


def test_joules_over_time_are_those_of_the_calls():
    """Even power gives even stretches, and a call in the middle stands there."""
    summary = logged()
    assert summary.span_s is not None
    assert summary.span_s[1] - summary.span_s[0] == pytest.approx(120.0)
    chat, picture = sorted(summary.tree, key=lambda row: -row.calls)
    assert chat.over_time_j == pytest.approx([8.0 * (1 + number) for number in range(12)], abs=8.0)
    assert sum(chat.over_time_j) == pytest.approx(chat.energy_j)
    assert sum(picture.over_time_j[5:7]) == pytest.approx(120.0, rel=0.15)
    assert sum(picture.over_time_j[:4]) == 0.0
