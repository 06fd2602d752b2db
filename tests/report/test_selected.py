"""What a report tells of selected calls: each joule once, whatever stands between those that are wanted."""

from __future__ import annotations

from itertools import permutations

import pytest

from aimeter.record import Record
from aimeter.report import summarise
from aimeter.report.digest import digest
from tests.records import make_record

ROWS = [
    make_record(call_id="outer", name="chat", energy_j=10.0, devices_j=(8.0, 2.0)),
    make_record(call_id="between", parent_id="outer", name="tool", energy_j=6.0, devices_j=(5.0, 1.0)),
    make_record(call_id="inner", parent_id="between", name="chat.again", energy_j=4.0, devices_j=(3.0, 1.0)),
]


def is_chat(record: Record) -> bool:
    """Tell whether a call is a chat."""
    return record.name.startswith("chat")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_is_inside_a_call_that_is_not_wanted_is_counted_once(order: tuple[int, ...]):
    """It stands under the one around that, in the table and over time, in whatever order rows come."""
    rows = [ROWS[number] for number in order]
    summary = summarise(rows, wanted=is_chat)
    assert (summary.total.energy_j, summary.total.calls, summary.nested) == (10.0, 1, 1)
    (chat,) = summary.tree
    assert [(part.name, part.energy_j, part.share) for part in chat.parts] == [("again", 4.0, 0.4)]
    found = digest(rows, wanted=is_chat)
    assert found.summary.total == summary.total
    assert {device.name: device.energy_j for device in found.devices} == {"gpu:0": 8.0, "cpu:0": 2.0}
    assert len(found.calls) == 2


def test_what_is_around_all_that_is_wanted_is_not_counted():
    """Then those inside it are what no other call encloses."""
    summary = summarise(ROWS[::-1], wanted=lambda record: record.name != "chat")
    assert [row.name for row in summary.tree] == ["tool"]
    assert (summary.total.energy_j, summary.nested) == (6.0, 1)


def test_a_call_inside_itself_ends():
    """Be it wanted or not."""
    rows = [make_record(call_id="x", parent_id="x", name="tool"), make_record(call_id="y", parent_id="x")]
    assert digest(rows, wanted=lambda record: record.name != "tool").summary.total.calls == 1
