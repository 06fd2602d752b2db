"""Files: replaced by the old one or the new one and nothing beside it, read as a whole, appended to and locked."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from aimeter._support import files
from tests.children import descriptors, run


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


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"durable": False}])
def test_a_file_is_on_disk_before_it_takes_the_place(tmp_path: Path, monkeypatch, options):
    """All of it, unless the caller does without."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    with files.replacing(tmp_path / "file", **options) as file:
        file.write(b"new")
    assert done == [3] * options.get("durable", True) + ["replace"]


def test_a_file_is_read_as_a_whole_or_refused(tmp_path: Path):
    """Up to the length that is allowed, of whatever bytes, in as many pieces as it takes; a byte more is too long."""
    before = descriptors()
    path = tmp_path / "file"
    for length in (0, 1, 65_536, 65_537, 200_000):
        content = bytes(range(256)) * (length // 256) + b"\r\n\x1a\0"[: length % 256]
        path.write_bytes(content)
        assert files.read_whole(path) == content
        assert files.read_whole(path, len(content)) == content
        if content:
            with pytest.raises(OSError, match=f"longer than {len(content) - 1:,} bytes") as fault:
                files.read_whole(path, len(content) - 1)
            assert fault.value.errno == errno.EFBIG
    assert descriptors() == before


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind):
    """A pipe to which nobody writes would be waited for, and of /dev/zero there is no end."""
    before = descriptors()
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(OSError) as fault:
        files.read_whole(path)
    assert fault.value.errno == (errno.ENOENT if kind == "nothing" else errno.EINVAL)
    assert descriptors() == before


def test_files_are_no_business_of_programs_that_are_started(tmp_path: Path):
    """What is opened here is not inherited by a program that this one becomes or starts."""
    for flags in (files.READ, files.APPEND):
        path = tmp_path / "file"
        path.touch()
        fd = os.open(path, flags)
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.parametrize("pread", [True, False])
def test_what_is_appended_goes_to_the_end_whoever_wrote_last(tmp_path: Path, monkeypatch, pread):
    """And what is there can be read with the same descriptor; a file that is not there is made."""
    if not pread:  # as in WebAssembly
        monkeypatch.delattr(os, "pread")
    path = tmp_path / "file"
    one, other = (os.open(path, files.APPEND, 0o600) for _ in range(2))
    for fd, data in ((one, b"a"), (other, b"bc"), (one, b"d")):
        os.write(fd, data)
    assert path.read_bytes() == b"abcd"
    assert [files.read_at(one, length, offset) for length, offset in ((2, 1), (9, 3), (1, 4))] == [
        b"bc",
        b"d",
        b"",
    ]
    os.write(one, b"e")  # where was read changes nothing
    assert path.read_bytes() == b"abcde"
    os.close(one)
    os.close(other)


def test_a_lock_is_of_one_at_a_time(tmp_path: Path):
    """Who does not get it is told so at once; it is free when it is given back, and when its file is closed."""
    one, other = (os.open(tmp_path / "file", files.APPEND, 0o600) for _ in range(2))
    assert files.lock(one)
    assert files.lock(one)
    assert not files.lock(other)
    files.unlock(one)
    assert files.lock(other)
    assert not files.lock(one)
    os.close(other)
    assert files.lock(one)
    os.close(one)
    with pytest.raises(OSError):
        files.lock(one)


def test_it_is_known_when_no_file_can_be_opened():
    """At the limit of open files, and before and after it not; asking leaves nothing open."""

    def work() -> None:
        assert not files.none_can_be_opened()
        held = [os.dup(0)]
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (held[0] + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        assert files.none_can_be_opened()
        os.close(held.pop())
        for _ in range(3):
            assert not files.none_can_be_opened()

    run(work)


def test_a_missing_device_is_no_limit_of_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A sandbox without /dev/null says nothing about how many files may be open."""
    monkeypatch.setattr(os, "devnull", str(tmp_path / "none"))
    assert not files.none_can_be_opened()
