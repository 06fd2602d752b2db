"""Windows, macOS and WebAssembly lack names that Linux has: everything that does not depend on them works without.

None of them is at hand here. What they lack is taken away from a Python on Linux, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WITHOUT = """
import os, signal, subprocess, sys, asyncio, tempfile, multiprocessing, time
import psutil  # whose module for Linux needs some of it
for module in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[module] = None
for name in ("O_CLOEXEC", "O_NOCTTY", "pread", "fork", "register_at_fork", "getuid", "geteuid", "sched_getaffinity",
             "getpgid", "posix_spawn", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)
subprocess._USE_POSIX_SPAWN = False  # it looked for it when it was loaded
for name in ("pthread_sigmask", "sigwaitinfo", "SIGCHLD", "SIGHUP", "SIGQUIT", "SIGUSR1"):
    if hasattr(signal, name):
        delattr(signal, name)
"""


def run(program, *arguments, cwd, platform=None):
    """Run a program in a Python that lacks what Windows lacks; `sys.platform` says another name if one is given."""
    pretend = f"sys.platform = {platform!r}\n" if platform else ""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + pretend + textwrap.dedent(program), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd), "AIMETER_CALIBRATION": "off"},
    )  # fmt: skip


def test_calls_are_metered_and_logged(tmp_path):
    """Importing, tracking, estimating and the log need nothing that only Unix has."""
    done = run(
        """
        import aimeter
        aimeter.configure(region="FR", log="calls.csv")
        for _ in range(3):
            with aimeter.track("x", items=1) as call:
                time.sleep(0.2)
        print(call.energy_j > 0, call.record.cpu_method)
        """,
        cwd=tmp_path,
    )
    assert (done.stdout.split(), done.stderr) == (["True", "estimate"], "")
    lines = (tmp_path / "calls.csv").read_text("utf-8").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("schema,call_id")


def test_a_log_goes_on_after_a_torn_line(tmp_path):
    """Reading at a place and cutting the file work by other means."""
    program = """
        import aimeter
        aimeter.configure(region="FR", log="calls.csv")
        with aimeter.track("x"):
            pass
        """
    run(program, cwd=tmp_path)
    log = tmp_path / "calls.csv"
    log.write_bytes(log.read_bytes() + b"3,torn")
    done = run(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = log.read_text("utf-8").splitlines()
    assert [row.split(",")[3] for row in rows if "torn" not in row] == ["name", "x", "x"]


def test_a_gpu_is_metered(tmp_path, nvml):
    """NVML is a library like any other."""
    nvml.reset()
    nvml.add("rtx3090").set_power(100.0)
    environ = nvml.environ(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + textwrap.dedent(
            """
            import aimeter
            aimeter.configure(region="FR")
            with aimeter.track("x") as call:
                time.sleep(0.5)
            print(call.record.gpu_method, "gpu:0" in call.record.devices)
            """
        )],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**environ, "PYTHONPATH": str(ROOT), "AIMETER_CALIBRATION": "off"},
    )  # fmt: skip
    assert done.stdout.split() == ["counter", "True"], done.stderr


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_is_metered(tmp_path, status):
    """`aimeter run` starts the command and returns its status where signals cannot be waited for."""
    done = run(
        """
        import codecarbon  # which does ask for the platform
        real, sys.platform = sys.platform, "darwin"
        from aimeter.commands import child
        sys.platform = real
        from aimeter.cli import main
        sys.argv = ["aimeter", "run", "--log", "calls.jsonl", "--", *sys.argv[1:]]
        main()
        """,
        sys.executable, "-c", f"print('from the command'); raise SystemExit({status})",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "from the command\n"), done.stderr
    row = json.loads((tmp_path / "calls.jsonl").read_text("utf-8").splitlines()[0])
    assert row["status"] == ("error" if status else "ok")


def test_windows_locks_a_byte_that_no_line_reaches(tmp_path):
    """The lock of the C runtime is one byte's, at the file position; the file is read and written as if it were not."""
    done = run(
        """
        import types
        held = set()
        def locking(fd, mode, length):
            place = os.lseek(fd, 0, os.SEEK_CUR)
            if mode == 2 and place in held:
                raise PermissionError
            (held.add if mode == 2 else held.discard)(place)
        sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
        from aimeter._support import files
        sys.platform = "linux"
        one, other = (os.open("log", files.APPEND, 0o666) for _ in range(2))
        print(files.lock(one), files.lock(other), held)
        os.write(one, b"line\\n")
        files.unlock(one)
        print(files.lock(other), files.read_at(other, 100, 0))
        """,
        cwd=tmp_path,
        platform="win32",
    )
    assert done.stdout.splitlines() == ["True False {2147483646}", "True b'line\\n'"], done.stderr


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_names_of_other_platforms_are_known_to_the_type_checker(platform):
    """CI checks the types for each platform: see noxfile.py."""
    assert f'"mypy", "--platform", "{platform}"' in (ROOT / "noxfile.py").read_text("utf-8")
