"""The command line as people use it: real processes, on emulated hardware whose energy is known exactly."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import aimeter
from aimeter import report
from aimeter._curve.calibration import Calibration
from aimeter.calibration.measure import Outcomes
from aimeter.carbon.place import Step
from aimeter.cli import app
from aimeter.commands import report as reporting
from aimeter.commands import run as running_commands
from aimeter.commands.diagnosis import (
    METERED,
    NOT_METERED,
    PARTLY,
    CalibrationReport,
    CarbonReport,
    CostReport,
    Diagnosis,
    MeterReport,
    ProviderReport,
    SettingReport,
)
from aimeter.errors import ConfigurationError
from aimeter.report import export_csv
from aimeter.sinks import CsvLog, open_log
from tests.emulator.nvml import ENERGY
from tests.emulator.powercap import PowercapTree
from tests.records import make_record

ROOT = Path(__file__).parents[2]
AIMETER = [sys.executable, "-m", "aimeter"]
REFERENCE = ROOT / "docs" / "reference" / "cli.md"

needs_no_perf = pytest.mark.skipif(
    Path("/sys/bus/event_source/devices/power").exists(), reason="perf may meter this machine's CPU"
)


def call(environ, *arguments, **options):
    return subprocess.run(
        [*AIMETER, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def rows(log):
    with Path(log).open(newline="") as file:
        return list(csv.DictReader(file))


# run


def test_run_gives_the_exact_energy_of_the_commands_whole_time(environ, tree, tmp_path):
    """The joules are the emulator's integral from the command's start to its end, within their error."""
    environ |= {"AIMETER_POWERCAP": str(tree.root), "AIMETER_LOG": "calls.csv"}
    package, memory = tree.zones
    package.set_power(60, at=time.perf_counter() + 1.5)
    ran = call(environ, "run", "--region", "FR", "--", sys.executable, "-c", "import time; time.sleep(1)")
    assert ran.returncode == 0, ran.stderr
    (row,) = rows("calls.csv")
    to_monotonic = time.perf_counter() - time.time()
    start_s = datetime.fromisoformat(row["start"]).timestamp() + to_monotonic
    end_s = start_s + float(row["duration_s"])
    truth_j = package.true_energy_j(start_s, end_s) + memory.true_energy_j(start_s, end_s)
    assert float(row["duration_s"]) > 1
    assert float(row["energy_j"]) == pytest.approx(truth_j, abs=float(row["error_j"]))
    assert (row["name"], row["status"], row["zone"]) == (Path(sys.executable).name, "ok", "FR")
    assert (row["cpu_method"], row["dram_method"]) == ("counter", "counter")
    (line,) = ran.stderr.splitlines()
    assert re.fullmatch(
        r"aimeter: python\S*: .* ± .* J \(cpu counter, dram counter\), .* CO2e .*calls\.csv", line
    )


def test_run_passes_streams_status_and_files_through(environ, tree, tmp_path):
    """Bytes go in and out unchanged, other open files too; a failing command is an error of that name."""
    environ |= {"AIMETER_POWERCAP": str(tree.root)}
    secret, data = "hunter2", bytes(range(256)) * 300
    with (tmp_path / "other").open("w") as other:
        script = f"cat; echo oops >&2; echo more >/dev/fd/{other.fileno()}; : {secret}; exit 3"
        ran = subprocess.run(
            [*AIMETER, "run", "-q", "--log", "calls.jsonl", "--name", "job", "--", "sh", "-c", script],
            env=environ, input=data, capture_output=True, pass_fds=(other.fileno(),), timeout=60, check=False,
        )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, data, b"oops\n")
    assert (tmp_path / "other").read_text() == "more\n"
    (record,) = report.read("calls.jsonl")
    assert (record.name, record.status, record.error_type) == ("job", "error", "ExitStatus3")
    assert {key: record.meta[key] for key in ("command", "exit_status")} == {
        "command": "sh",
        "exit_status": 3,
    }
    assert secret not in Path("calls.jsonl").read_text()


def test_run_ends_as_a_killed_command_ended(environ):
    """The parent sees the signal that killed the command, which a shell calls 128 + n."""
    command = [*AIMETER, "run", "--log", "calls.csv", "--", "sh", "-c", "kill -KILL $$"]
    ran = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    (row,) = rows("calls.csv")
    assert (row["status"], row["error_type"], json.loads(row["meta"])["exit_status"]) == (
        "error",
        "SIGKILL",
        137,
    )


def test_run_forwards_signals(environ):
    """Each signal sent to aimeter reaches the command, whose answer counts; the row is written."""
    names = ["TERM", "INT", "HUP", "QUIT", "USR1"]
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in names)
    script = f"{traps}; trap 'exit 7' USR2; echo ready; while :; do sleep 0.02; done"
    command = [*AIMETER, "run", "-q", "--log", "calls.csv", "--", "sh", "-c", script]

    def as_in_the_foreground():
        # A shell starts background jobs with some signals ignored, and what is ignored cannot be trapped.
        for name in names:
            signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)

    with subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_the_foreground,  # noqa: PLW1509 - the test has one thread
    ) as running:
        assert running.stdout.readline() == "ready\n"
        for name in names:
            running.send_signal(signal.Signals[f"SIG{name}"])
            assert running.stdout.readline() == f"{name}\n"
        running.send_signal(signal.SIGUSR2)
    assert running.returncode == 7
    assert rows("calls.csv")[0]["error_type"] == "ExitStatus7"


def test_ctrl_c_in_a_terminal_reaches_the_command_once(environ):
    """The terminal interrupts the whole job itself, so aimeter must not interrupt the command again."""
    script = (
        "n=0; i=0; trap 'n=$((n+1))' INT; echo ready; "
        "while [ $i -lt 20 ]; do sleep 0.02; i=$((i+1)); done; echo n=$n"
    )
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execve(sys.executable, [*AIMETER, "run", "--", "sh", "-c", script], environ)
    seen = b""
    with os.fdopen(terminal, "rb+", buffering=0) as file:
        while True:
            try:
                seen += file.read(4096)
            except OSError:
                break  # how Linux says that nobody has the terminal open any more
            if b"ready" in seen and b"^C" not in seen:
                file.write(b"\x03")
                seen += b"^C"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"n=1\r\n" in seen


def test_run_leaves_no_trace_in_the_commands_signals(environ):
    """The command begins with the signal mask and dispositions that it would have without aimeter."""

    def signals(text):
        # The C library keeps two signals of its own above 31, and ignores them in what posix_spawn starts.
        return [int(line.split()[1], 16) & 0x7FFF_FFFF for line in text.splitlines()]

    command = ["grep", "^Sig[BI]", "/proc/self/status"]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    ran = call({**environ, "AIMETER_ENABLED": "off"}, "run", "--", *command)
    assert signals(ran.stdout) == signals(alone.stdout)
    assert ran.stderr == "aimeter: grep: not metered, because the setting `enabled` is false\n"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--", "no-such-command"], 127, "no-such-command: command not found"),
        (["--region", "Atlantis", "--", "touch", "ran"], 2, "The region 'Atlantis' is unknown"),
        (["--log", "no/calls.csv", "--", "touch", "ran"], 2, "mkdir -p"),
    ],
)
def test_run_refuses_before_the_command_runs(environ, options, status, message):
    """What cannot work is said in one line, with a shell's exit status, before anything has run."""
    ran = call(environ, "run", *options)
    assert ran.returncode == status
    assert ran.stderr.startswith("aimeter: ")
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [("no-such-command", 127), ("./absent", 127), ("./pyproject.toml", 126), ("./", 126), ("./text", 126)],
)
def test_what_cannot_be_executed_has_a_shells_status(environ, command, status):
    """Not found is 127; found but not executable, a folder or no program is 126."""
    Path("text").write_text("neither a program nor a script\n")
    Path("text").chmod(0o755)
    settings = {"enabled": False}
    with pytest.raises(running_commands.CannotRunError) as refused:
        running_commands.run([command], name=None, quiet=True, settings=settings)
    assert refused.value.status == status


# doctor


def test_doctor_finds_every_device_metered(environ, nvml, tree, tmp_path):
    """With a counter for each device the status is 0, and power and period are those of the hardware."""
    nvml.init_error(0)
    nvml.add("a100", counter_period_s=0.08).set_power(123)
    environ = {**nvml.environ(tmp_path, base=environ), "AIMETER_POWERCAP": str(tree.root)}
    ran = call({**environ, "AIMETER_LOG": "calls.csv"}, "doctor", "--json", "--region", "fr")
    assert ran.returncode == METERED, ran.stdout
    assert ran.stderr == ""
    found = json.loads(ran.stdout)
    meters = {meter["id"]: meter for meter in found["meters"]}
    assert {key: meter["source"] for key, meter in meters.items()} == {
        "gpu:0": "nvml",
        "cpu:0": "powercap",
        "dram:0": "powercap",
    }
    for key, watts in (("gpu:0", 123), ("cpu:0", 20), ("dram:0", 3)):
        assert meters[key]["power_w"] == pytest.approx(watts, rel=0.1)
        assert meters[key]["fault"] is None
    period_s, error_s = meters["gpu:0"]["observed_period_s"], meters["gpu:0"]["observed_period_error_s"]
    assert (
        error_s is None or abs(period_s - 0.08) <= error_s + 1e-3
    )  # None: this machine was too busy to look
    assert 0 < meters["gpu:0"]["reading_s"] < 1
    # The tree moves whenever this process gets to it: at every look, or as rarely as a busy machine lets it.
    assert (meters["cpu:0"]["observed_period_s"] or 1.0) > 1e-3
    assert (found["exit_status"], found["gaps"]) == (0, [])
    assert (found["carbon"]["zone"], found["carbon"]["zone_name"]) == ("FR", "France")
    assert found["settings"]["log"]["origin"] == "environment variable AIMETER_LOG"
    assert found["versions"]["nvidia-driver"] == "570.86.15"
    assert not Path("calls.csv").exists()


@needs_no_perf
def test_doctor_on_a_virtual_machine(environ):
    """Where only an estimate is possible the status is 1, and the text tells the error and no host name."""
    ran = call(environ, "doctor")
    assert ran.returncode == PARTLY
    assert ran.stderr == ""
    assert re.search(r"cpu:0 .*estimate .*±50%", ran.stdout)
    assert "475 g CO2e/kWh, a world average, because no region is set" in ran.stdout
    assert ran.stdout.endswith("\nMetered in part: cpu:0 only estimated.\n")
    assert not re.search(
        rf"\b{re.escape(socket.gethostname())}\b", ran.stdout.replace("virtual machines", "")
    )


def without_roots_rights():
    """In a child about to be executed: give up root's right to read everything; others have none to lose."""
    drop_from_bounding_set, rights = 24, (1, 2)  # prctl(2); CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for right in rights if os.geteuid() == 0 else ():
        ctypes.CDLL(None).prctl(drop_from_bounding_set, right)


@needs_no_perf
def test_doctor_names_the_command_that_opens_a_denied_meter(environ, tmp_path):
    """A meter that may not be read gives status 1, and the remedy stands on one line, to be copied."""
    tree = PowercapTree(tmp_path / "sys")
    tree.zone("package-0").energy_file.chmod(0o200)
    ran = call({**environ, "AIMETER_POWERCAP": str(tree.root)}, "doctor", preexec_fn=without_roots_rights)
    assert ran.returncode == PARTLY, ran.stderr
    assert "✗ powercap package-0: denied." in ran.stdout
    assert re.search(r"^    to mend it: sudo chmod a\+r .*perf_event_paranoid=0$", ran.stdout, re.MULTILINE)


def test_doctor_sees_dead_meters(environ, nvml, tmp_path):
    """A counter that stands still is no meter: another way of reading the device is used, or it is a gap."""
    nvml.init_error(0)
    gpu = nvml.add("a100").set(counter_period_s=0.05)
    gpu.set_power(200)
    gpu.freeze(ENERGY)
    tree = PowercapTree(tmp_path / "sys")
    tree.zone("package-0", watts=20)
    dead = tree.zone("package-1", watts=0)
    environ = {**nvml.environ(tmp_path, base=environ), "AIMETER_POWERCAP": str(tree.root)}
    with tree.live():
        ran = call(environ, "doctor", "--json")
    assert ran.returncode == PARTLY
    found = json.loads(ran.stdout)
    (gap,) = found["gaps"]
    assert (gap["subject"], gap["status"]) == (dead.name, "dead")
    gpu_meter = next(meter for meter in found["meters"] if meter["id"] == "gpu:0")
    assert (gpu_meter["method"], gpu_meter["fault"]) == ("power", None)
    assert gpu_meter["power_w"] == pytest.approx(200, rel=0.05)
    assert gpu_meter["notes"][0].startswith("Its counter has not advanced")


def test_doctor_refuses_bad_settings(environ):
    """A setting that cannot be used gives status 2 and one line with the near match, and no document."""
    ran = call({**environ, "AIMETER_REGOIN": "FR"}, "doctor", "--json")
    assert (ran.returncode, ran.stdout) == (NOT_METERED, "")
    assert re.fullmatch(r"aimeter: Unknown setting 'regoin'.*Did you mean 'region'.*\n", ran.stderr)


# report


@pytest.fixture
def logs(tmp_path):
    """Two logs of three calls in all, and a torn line."""
    for path, records in (
        ("a.csv", [make_record(), make_record(status="error", error_type="OSError")]),
        ("b.csv", [make_record(name="chat", tokens_out=100.0, images=None)]),
    ):
        log = CsvLog(tmp_path / path)
        log.write(records)
        log.close()
    with (tmp_path / "b.csv").open("a") as file:
        file.write("1,torn\n")
    return tmp_path


def test_report_adds_up_logs_by_name(environ, logs):
    """Logs and patterns are read, each file once; skipped lines are counted in a footnote and located."""
    ran = call(environ, "report", "a.csv", "*.csv")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert re.match(r"image-gen\s+2\s+1\s+67%\s+12\.5 ± 1\.[0-9]+ J\s+3\.12 J/image", lines[2])
    assert re.match(r"chat\s+1\s+0\s+33%\s+12\.5 ± 1\.3 J\s+125 mJ/token out", lines[3])
    assert "1 line of the log was torn or foreign and skipped." in ran.stdout
    assert re.fullmatch(r"aimeter: skipped b\.csv:3: .*\n", ran.stderr)


def test_report_as_json(environ, logs):
    """The document holds the same sums, and stands alone on standard output."""
    ran = call({**environ, "AIMETER_LOG": "a.csv"}, "report", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    (row,) = found["rows"]
    assert (row["name"], row["calls"], row["errors"], row["energy_j"]) == ("image-gen", 2, 1, 25.0)
    assert (found["total"]["co2e_g"], found["skipped"], found["problems"]) == (0.0033, 0, [])


def test_report_without_a_log(environ, logs):
    """A log that is not there is said in one line with status 2, and the near match is offered."""
    ran = call(environ, "report", "c.csv")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(
        r"aimeter: The log c\.csv cannot be read: .* Did you mean '[ab]\.csv'.*\n", ran.stderr
    )
    for arguments, message in (
        (["x*.csv"], "No log matches x"),
        (["loop.csv"], "cannot be read"),
        (["pyproject.toml"], "no aimeter log"),
        ([], "aimeter report calls.csv"),
    ):
        (logs / "pyproject.toml").write_text("[project]\n")
        (logs / "loop.csv").unlink(missing_ok=True)
        (logs / "loop.csv").symlink_to("loop.csv")
        with pytest.raises(ConfigurationError, match=message):
            reporting.add_up(arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "--nope"], "No such option: --nope.* See aimeter report --help."),
        (["--nope"], "No such option: --nope.* See aimeter --help."),
        (["repor"], "No such command 'repor'. Did you mean 'report'.* See aimeter --help."),
        (["carbon", "bst"], "No such command 'bst'. Did you mean 'best'.* See aimeter carbon --help."),
        (["sci", "a.csv"], "Missing option '--per'. See aimeter sci --help."),
        (["calibrate", "--seconds", "1"], ".*--seconds.* See aimeter calibrate --help."),
        (
            ["report", "a.csv", "--csv", "--json"],
            "One form at a time: run --csv and --json one after another.",
        ),
        (
            ["report", "a.csv", "--html", "p.html", "--json"],
            "One form at a time: run --html and --json one after .*",
        ),
    ],
)
def test_a_bad_option_gets_one_line_that_says_what_to_do(environ, logs, arguments, told):
    """On standard error, with status 2, and nothing is printed or written."""
    ran = call(environ, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(f"aimeter: {told}\n", ran.stderr)
    assert not (logs / "p.html").exists()


def test_names_in_csv_do_not_steer_a_terminal(environ, logs):
    """There they are escaped; a file has them as they are."""
    open_log(logs / "odd.csv").write([make_record(name="\x1b[2Jodd")])
    # Our own log has escapes already; another program's may have not.
    (logs / "odd.csv").write_bytes((logs / "odd.csv").read_bytes().replace(b"\\x1b", b"\x1b"))
    seen, (terminal, other) = b"", os.openpty()
    with subprocess.Popen([*AIMETER, "report", "odd.csv", "--csv"], env=environ, stdout=other):
        os.close(other)
        while piece := _read(terminal):
            seen += piece
    os.close(terminal)
    assert b"\\x1b[2Jodd,," in seen
    assert b"\x1b" not in seen
    assert "\x1b[2Jodd,," in call(environ, "report", "odd.csv", "--csv").stdout


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # how Linux says that nobody has the terminal open any more


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_units_can_be_read_in_any_encoding(environ, logs, encoding):
    """In a pipe as well: no figure loses its sign."""
    open_log(logs / "small.csv").write(
        [make_record(name="déjà …", energy_j=1e-3, error_j=1e-4, resolution_j=0.0)]
    )
    ran = subprocess.run(
        [*AIMETER, "report", "small.csv"],
        env={**environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        timeout=60,
    )
    text = ran.stdout.decode(encoding)
    assert ("1.00 +- 0.10 mJ" in text) == (encoding == "ascii")
    assert ("1.00 ± 0.10 mJ" in text) == (encoding == "latin-1")
    assert ("250 uJ/image" if encoding == "ascii" else "250 µJ/image") in text
    widths = {len(line) for line in text.splitlines() if set(line) == {"-"}}
    assert len(widths) == 1


def test_a_closed_pipe_is_no_error_to_talk_about(environ, logs):
    """A reader that has seen enough ends the report in silence."""
    with subprocess.Popen(
        [*AIMETER, "report", "--json", "a.csv"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        running.stdout.close()
        assert running.stderr.read() == b""


def test_a_full_disk_is_said_in_one_line(environ, logs):
    """Output that cannot be written gives one line and status 1, not a traceback."""
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*AIMETER, "report", "a.csv"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (
        1,
        "aimeter: its output cannot be written: No space left on device.\n",
    )


def test_demo_refuses_in_plain_words(environ):
    """Without its packages, or with a bad region, the demo says so and gives status 2."""
    ran = call(environ, "demo", "--region", "Atlantis")
    assert ran.returncode == 2
    assert "Atlantis" in ran.stdout or "pip install 'aimeter-energy[demo]'" in ran.stdout
    assert ran.stderr == ""


# calibrate


def test_what_a_load_prints_is_not_in_the_document(environ, nvml, tmp_path):
    """With --json standard output is the document alone; what the load says at import and in calls goes to stderr."""
    nvml.reset()
    nvml.add("h100").set_power(71.0)
    (tmp_path / "chatty.py").write_text(
        "import sys\nprint('imported')\ndef f():\n    print('called')\n    sys.exit(0)\n"
    )
    ran = call(
        nvml.environ(tmp_path, base=environ), "calibrate", "--seconds", "5", "--json", "--load", "chatty:f"
    )
    assert ran.returncode == 1, ran.stderr
    document = json.loads(ran.stdout)
    assert document["exit_status"] == 1
    assert "the load raised SystemExit(0)" in " ".join(document["problems"])
    assert Path(document["path"]).exists()
    assert ran.stderr.index("imported") < ran.stderr.index("called")


# all of it


def test_help_and_version_load_little(environ):
    """Help comes without the libraries that metering needs, and the version is the package's."""
    code = (
        "import sys; from aimeter.cli import main; sys.argv = ['aimeter', '--help']\n"
        "try: main()\n"
        "finally: print(*{'numpy', 'psutil', 'pynvml', 'torch', 'pandas'} & set(sys.modules), 'END')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith("\nEND\n")
    for name in ("doctor", "calibrate", "run", "report", "sci", "carbon", "demo"):
        assert re.search(rf"\b{name}\b", ran.stdout)
    assert call(environ, "--version").stdout == f"aimeter {aimeter.__version__}\n"


def test_the_reference_has_every_command_option_and_key():
    """docs/reference/cli.md names each command, each option and each key of doctor's document."""
    text = REFERENCE.read_text()
    for name, command in typer.main.get_command(app).commands.items():
        _, _, rest = text.partition(f"## `aimeter {name}")
        section = rest.partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            for option in (one for one in parameter.opts if one.startswith("-") and one != "--help"):
                assert f"`{option}" in section, f"{name} {option}"
    values = (
        MeterReport,
        CarbonReport,
        ProviderReport,
        Step,
        CostReport,
        SettingReport,
        report.Summary,
        report.SummaryRow,
    )
    for value in (Diagnosis, CalibrationReport, *values, Outcomes, Calibration):
        for key in value.__dataclass_fields__:
            assert f"`{key}`" in text, f"{value.__name__}.{key}"


# --- help, completion, advice


def every_command(group, path=()):
    """Yield each command's words and the command."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize("words", [(), *(words for words, _ in every_command(typer.main.get_command(app)))])
def test_help_names_no_type_of_python(words: tuple[str, ...]):
    """Neither a flag nor an argument shows what Python holds it in."""
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    assert "--help" in done.output
    assert not re.search(r"<[a-z]|\bbool\b|list\[", done.output)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("aimeter rep", "report"),
        ("aimeter carbon comp", "compare"),
        ("aimeter report --b", "--by"),
        ("aimeter report --by mo", "model"),
        ("aimeter sci --per im", "images"),
    ],
)
def test_the_shell_completes(environ, typed: str, expected: str):
    """Commands, options, and what they take."""
    words = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
        "_AIMETER_COMPLETE": "complete_bash",
    }
    done = subprocess.run(AIMETER, env={**environ, **words}, capture_output=True, text=True, check=True)
    assert expected in done.stdout.split()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("sci calls.csv --per steps --name chta", "no call named 'chta'. Did you mean 'chat'?"),
        ("sci calls.csv --per steps --embodied h10", "hardware 'h10'"),
        ("sci calls.csv --per image", "Did you mean 'images'?"),
        ("sci calls.csv --per steps", "They count images."),
        ("report calls.csv --by modle", "Did you mean 'model'?"),
        ("report call.csv", "Did you mean 'calls.csv'?"),
        ("carbon compare calls.csv --regions FR,Grmany", "The region 'Grmany' is unknown"),
        ("carbon compare calls.csv --shift 2 --provider gbb", "'gbb' is unknown. Did you mean 'gb'?"),
    ],
)
def test_a_wrong_name_is_the_fault_that_is_named(environ, tmp_path, command: str, named: str):
    """And not what follows from it; with the name that it resembles."""
    export_csv([make_record(name="chat")], tmp_path / "calls.csv")
    done = call(environ, *command.split())
    assert done.returncode == 2
    assert named in done.stderr


def test_advice_names_options_that_the_command_has(environ, tmp_path):
    """What `compare` says is missing can be given to it."""
    export_csv([make_record()], tmp_path / "calls.csv")
    asked = ["carbon", "compare", "calls.csv", "--shift", "2"]
    options = {
        one
        for words, command in every_command(typer.main.get_command(app))
        if words == ("carbon", "compare")
        for parameter in command.params
        for one in parameter.opts
    }
    for given in ([], ["--provider", "gb"]):
        advised = set(re.findall(r"--[a-z]+", call(environ, *asked, *given).stderr))
        assert advised
        assert advised <= options


def test_report_tells_models_of_one_name_apart(environ, tmp_path):
    """With `--by model`, in the table and the document."""
    export_csv(
        [make_record(name="chat", model=model) for model in ("small", "large")], tmp_path / "calls.csv"
    )
    assert {"small", "large", "model"} <= set(
        call(environ, "report", "calls.csv", "--by", "model").stdout.split()
    )
    document = json.loads(call(environ, "report", "calls.csv", "--by", "model", "--json").stdout)
    assert {(row["name"], row["model"]) for row in document["rows"]} == {("chat", "small"), ("chat", "large")}
