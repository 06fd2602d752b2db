"""Replacing a file: the old one or the new one, and nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aimeter._support import files


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path, old, durable):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with files.replacing(path, durable=durable) as file:
        file.write(b"new")
        assert (path.read_bytes() if path.exists() else None) == old
    assert path.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt, ValueError])
def test_the_old_file_stays_when_the_new_one_fails(tmp_path: Path, fault):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        with files.replacing(path) as file:
            file.write(b"half")
            raise fault

    with pytest.raises(fault):
        write()
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_take_the_place_is_removed(tmp_path: Path):
    def write() -> None:
        with files.replacing(tmp_path / "folder") as file:
            file.write(b"new")

    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write()
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_on_disk_before_it_takes_the_place(tmp_path: Path, monkeypatch, durable):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    with files.replacing(tmp_path / "file", durable=durable) as file:
        file.write(b"new")
    assert done == ["fsync"] * durable + ["replace"]
