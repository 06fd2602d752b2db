"""`instrument`: hooks that wait for imports, plug-ins, the environment variable and `aimeter run --instrument`.

The framework is one of our own making, in a folder of the test, so that nothing needs torch.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import aimeter
from aimeter import adapters
from aimeter.testing import FakeClock, FakeSensor
from tests import programs, toy_framework
from tests.toy_framework import FRAMEWORK, PLUGIN


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a framework, and beside it a package with an adapter for it."""
    toy_framework.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    forget()
    yield tmp_path
    aimeter.uninstrument()
    forget()


def forget():
    """Forget what was found and imported."""
    adapters.entries.cache_clear()
    adapters._load.cache_clear()
    for name in [name for name in sys.modules if name.startswith("toy")]:
        del sys.modules[name]


@pytest.fixture
def meter():
    clock = FakeClock()
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as made:
        yield made


def test_our_adapters_use_the_same_door():
    """The entry points that pyproject.toml declares are those of a tree that is not installed."""
    project = tomllib.loads((programs.ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["aimeter.adapters"] == adapters.OURS
    for entry in adapters.entries():
        assert entry.load() is not None


def test_an_adapter_of_another_package(plugin, meter):
    """attach() knows what a plug-in teaches it."""
    models = importlib.import_module("toyframework.models")
    model = meter.attach(models.Special())
    assert model.run(3) == 7
    models.Special().run(1)
    aimeter.detach(model)
    (row,) = meter.records()
    assert (row.name, row.items, row.model, row.meta["batch_size"]) == ("Special.run", 3, "toy", 1)


def test_hooks_wait_for_the_import(plugin, meter):
    """A framework that is not imported is not imported by us, and hooked when the program does."""
    finders = list(sys.meta_path)
    aimeter.instrument(meter=meter)
    assert "toyframework" not in sys.modules
    assert "toyplugin" not in sys.modules
    models = importlib.import_module("toyframework.models")

    class Later(models.Model):
        def run(self, number):
            """Do it later."""
            return number

    assert [models.Model().run(1), models.Special().run(2), Later().run(3)] == [2, 5, 3]
    assert [row.name for row in meter.records()] == ["Model.run", "Special.run", "Later.run"]
    assert type(models.__loader__).__name__ == type(models.__spec__.loader).__name__ == "SourceFileLoader"
    assert "Double it" in inspect.getsource(models)
    aimeter.uninstrument()
    assert sys.meta_path == finders
    assert not hasattr(models.Model.run, "__wrapped__")
    assert not hasattr(Later.run, "__wrapped__")
    assert "__init_subclass__" not in vars(models.Model)
    models.Model().run(1)
    assert len(meter.records()) == 3


def test_instrumented_and_attached(plugin, meter):
    """An object that is attached in an instrumented program has one row a call, its own; each undo leaves the other."""
    models = importlib.import_module("toyframework.models")
    aimeter.instrument(meter=meter)
    model = meter.attach(models.Model(), name="mine")
    model.run(1)
    aimeter.uninstrument()
    model.run(1)
    models.Model().run(1)
    aimeter.detach(model)
    model.run(1)
    assert [row.name for row in meter.records()] == ["mine", "mine"]


def test_a_row_with_status_error(plugin, meter):
    """A call that raises keeps its exception."""
    models = importlib.import_module("toyframework.models")
    model = meter.attach(models.Model())
    with pytest.raises(ValueError, match="negative"):
        model.run(-1)
    aimeter.detach(model)
    (row,) = meter.records()
    assert (row.status, row.error_type) == ("error", "ValueError")


def test_somebody_wraps_our_method(plugin, meter):
    """A wrapper put around ours stays when we go, and the method works."""
    models = importlib.import_module("toyframework.models")
    model = meter.attach(models.Model())
    ours = models.Model.run
    models.Model.run = lambda self, number: ours(self, number) + 100
    aimeter.detach(model)
    assert model.run(1) == 102
    assert meter.records() == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("1/0", "ZeroDivisionError"), ("ADAPTER = 3", "is no aimeter.adapters.Adapter"), ("", "AttributeError")],
)
def test_a_broken_plug_in_is_one_warning(plugin, meter, caplog, text, complaint):
    """It is told by name, and everything else goes on."""
    (plugin / "toyplugin.py").write_text(text)
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        aimeter.instrument(meter=meter)
        models = importlib.import_module("toyframework.models")
        assert models.Model().run(1) == 2
        with pytest.raises(TypeError, match=r"toyframework\.models\.Model"):
            aimeter.attach(models.Model())
    assert [complaint in text and "toyplugin" in text for text in caplog.messages] == [True]


def test_an_attached_object_whose_class_overrides_the_method(plugin, meter):
    """It is metered, once a call, though the hook has no family and the override may not call what is hooked."""
    path = plugin / "toyplugin.py"
    path.write_text(PLUGIN.replace(", family=True", ""))
    models = importlib.import_module("toyframework.models")

    class Alone(models.Model):
        def run(self, number):
            return number

    class Inherits(Alone):
        pass

    before = vars(Alone)["run"]
    subjects = [Alone(), Alone(), Inherits(), models.Special()]
    for subject in subjects:
        meter.attach(subject)
    aimeter.detach(subjects.pop(0))
    assert [subject.run(1) for subject in subjects] == [1, 1, 3]
    Alone().run(1)
    assert [row.name for row in meter.records()] == ["Alone.run", "Inherits.run", "Special.run"]
    for subject in subjects:
        aimeter.detach(subject)
    assert vars(Alone)["run"] is before
    assert "run" not in vars(Inherits)


@pytest.mark.parametrize("family", [", family=True", ""])
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"run", run', '"run{}", run'),
        ('"Model", "run"', '"Model{}", "run"'),
        ("toyframework.models", "toyframework.models{}"),
    ],
)
def test_a_misspelt_hook_is_one_warning_of_attach(plugin, caplog, right, wrong, family):
    """The object is refused, and what is wrong is told, though the object cannot be called."""
    wrong = wrong.format("s" if family else "z")  # what was said once is not said again
    text = PLUGIN.replace(right, wrong).replace(", family=True", family)
    (plugin / "toyplugin.py").write_text(text)
    models = importlib.import_module("toyframework.models")
    with caplog.at_level(logging.WARNING, logger="aimeter"), pytest.raises(TypeError, match="does not know"):
        aimeter.attach(models.Model())
    assert [wrong.split(", ")[0].strip('"') in text for text in caplog.messages] == [True]


@pytest.mark.parametrize("family", [", family=True", ""])
def test_a_misspelt_hook_beside_one_that_is_right_is_one_warning(plugin, meter, caplog, family):
    """The object is attached, and metered by the other one."""
    wrong = "Hook('toyframework.models', 'Model', 'stroll" + ("s" if family else "") + f"', run{family})"
    (plugin / "toyplugin.py").write_text(PLUGIN.replace("(Hook(", f"({wrong}, Hook("))
    models = importlib.import_module("toyframework.models")
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        model = meter.attach(models.Model())
        assert model.run(2) == 4
        aimeter.detach(model)
    assert ["Model.stroll" in text for text in caplog.messages] == [True]
    assert len(meter.records()) == 1


def test_an_entry_point_that_is_not_named_after_the_framework(plugin):
    """What refuses the object says which adapter would know it, and how the entry point is to be named."""
    points = plugin / "toyplugin-1.0.dist-info" / "entry_points.txt"
    points.write_text("[aimeter.adapters]\ntoymodels = toyplugin:ADAPTER\n")
    models = importlib.import_module("toyframework.models")
    with pytest.raises(
        TypeError, match=r"toyplugin:ADAPTER .* toymodels, .*name its entry point toyframework\. "
    ):
        aimeter.attach(models.Model())


def test_the_handler_of_a_coroutine(plugin, meter):
    """The one that the page on plug-ins shows: the row spans what is awaited, and has its counts."""
    page = (programs.ROOT / "docs" / "how-to" / "plug-ins.md").read_text("utf-8")
    handler = page.partition("```python\n")[2].partition("```")[0]
    (plugin / "toyplugin.py").write_text(
        f"{handler}\nfrom aimeter.adapters import Adapter, Hook\n"
        "ADAPTER = Adapter('toy models', (Hook('toyframework.models', 'Model', 'generate', generate),))\n"
    )
    (plugin / "toyframework" / "models.py").write_text(
        "class Model:\n    async def generate(self, number):\n        return [number] * number\n"
    )
    models = importlib.import_module("toyframework.models")
    model = meter.attach(models.Model())
    assert asyncio.run(model.generate(3)) == [3, 3, 3]
    assert asyncio.run(models.Model().generate(2)) == [2, 2]
    aimeter.detach(model)
    assert [(row.name, row.items) for row in meter.records()] == [("Model.generate", 3)]


def test_a_moved_hook_is_one_warning(plugin, meter, caplog):
    """A version of the framework without the method: one warning, and it works."""
    path = plugin / "toyframework" / "models.py"
    path.write_text(FRAMEWORK.replace("class Model", "class Modell").replace("(Model)", "(Modell)"))
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        aimeter.instrument(meter=meter)
        models = importlib.import_module("toyframework.models")
        assert models.Modell().run(1) == 2
    assert ["toyframework.models.Model.run" in text for text in caplog.messages] == [True]


def test_bad_settings_are_told_at_once(monkeypatch):
    """attach() and instrument() raise where the program can still be mended."""
    monkeypatch.setenv("AIMETER_PUE", "much")
    with pytest.raises(aimeter.ConfigurationError):
        aimeter.instrument()
    with pytest.raises(aimeter.ConfigurationError):
        aimeter.attach(object())
    assert not hasattr(sys.meta_path[0], "_begin")


# Programs


APP = """
import sys
from toyframework.models import Model
print(Model().run(int(sys.argv[1])))
"""


@pytest.fixture
def app(plugin):
    path = plugin / "app.py"
    path.write_text(APP)
    return path


def run(*arguments, plugin, environ=None):
    """Run Python with the framework, its plug-in and aimeter on the path."""
    given = programs.environment(environ)
    given["PYTHONPATH"] = os.pathsep.join([str(plugin), given["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, *arguments],
        env=given,
        cwd=plugin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_run_instrument(app, plugin):
    """A program that knows nothing of aimeter is metered call by call; the log holds its calls only."""
    log = plugin / "calls.csv"
    command = ("-m", "aimeter", "run", "--instrument", "--log", str(log), "--region", "FR", "--")
    done = run(*command, sys.executable, str(app), "4", plugin=plugin)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    assert "rows in" in done.stderr
    (row,) = programs.rows(log)
    assert (row["name"], float(row["items"]), row["intensity_g_per_kwh"] != "") == ("Model.run", 4, True)


@pytest.mark.parametrize("already", [False, True])
def test_run_instrument_says_that_there_was_no_row(plugin, already):
    """The sum does not promise rows, in a log that is there or not, where no call was metered."""
    log = plugin / "calls.csv"
    if already:
        with aimeter.Meter(sensors=[], log=log) as meter, meter.track("before"):
            pass
    command = ("-m", "aimeter", "run", "--instrument", "--log", str(log), "--")
    done = run(*command, sys.executable, "-c", "", plugin=plugin)
    assert done.returncode == 0
    assert f"no row in {log}" in done.stderr


def test_run_instrument_passes_the_exit_status(app, plugin):
    """The command's own status, its traceback and its row."""
    log = plugin / "calls.csv"
    command = ("-m", "aimeter", "run", "-q", "--instrument", "--log", str(log), "--")
    done = run(*command, sys.executable, str(app), "-1", plugin=plugin)
    assert done.returncode == 1
    assert "ValueError: negative" in done.stderr
    (row,) = programs.rows(log)
    assert (row["status"], row["error_type"]) == ("error", "ValueError")


def test_run_instrument_passes_signals(plugin):
    """A signal sent to aimeter reaches the instrumented command, and aimeter ends by it."""
    (plugin / "app.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    given = programs.environment()
    given["PYTHONPATH"] = os.pathsep.join([str(plugin), given["PYTHONPATH"]])
    command = [sys.executable, "-m", "aimeter", "run", "-q", "--instrument", "--", sys.executable, "app.py"]
    with subprocess.Popen(command, env=given, cwd=plugin, stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == -signal.SIGTERM


def test_the_users_own_sitecustomize_still_runs(app, plugin):
    """Ours stands before it on the path, and runs it."""
    (plugin / "sitecustomize.py").write_text("import builtins\nbuiltins.MINE = 'mine'\n")
    app.write_text(APP + "print(MINE, __import__('sitecustomize').__file__)\n")
    done = run(
        "-m", "aimeter", "run", "-q", "--instrument", "--", sys.executable, str(app), "4", plugin=plugin
    )
    assert done.stdout.split() == ["8", "mine", str(plugin / "sitecustomize.py")], done.stderr


def test_an_interpreter_without_aimeter(app, plugin, tmp_path):
    """A command of another environment runs as if it were not instrumented."""
    folder = os.fspath(programs.ROOT / "aimeter" / "autoload")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; print('aimeter' in sys.modules)"],
        env={"PYTHONPATH": folder, "AIMETER_INSTRUMENT": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_variable(app, plugin):
    """AIMETER_INSTRUMENT=1 works as soon as the program imports aimeter; 0 does not."""
    app.write_text("import aimeter\n" + APP + "print([row.name for row in aimeter.records()])\n")
    on = run(str(app), "4", plugin=plugin, environ={"AIMETER_INSTRUMENT": "1"})
    assert on.stdout == "8\n['Model.run']\n", on.stderr
    off = run(str(app), "4", plugin=plugin, environ={"AIMETER_INSTRUMENT": "0"})
    assert off.stdout == "8\n[]\n", off.stderr


def test_the_environment_variable_alone(app, plugin):
    """What is installed beside the package has a program instrumented that does not know of aimeter."""
    site = plugin / "site-packages"
    site.mkdir()
    shutil.copy(Path(aimeter.__file__).parent / "autoload" / "aimeter_energy.pth", site)
    project = tomllib.loads((programs.ROOT / "pyproject.toml").read_text())
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert installed == {"aimeter/autoload/aimeter_energy.pth": "aimeter_energy.pth"}
    log = plugin / "calls.csv"
    # site.addsitedir() does what Python does at its start with the folder that packages are in.
    start = f"import site, sys, runpy; site.addsitedir({str(site)!r}); loaded = 'aimeter' in sys.modules;"
    code = f"{start} sys.argv[1:] = ['4']; runpy.run_path({str(app)!r}); print(loaded)"
    on = run("-c", code, plugin=plugin, environ={"AIMETER_INSTRUMENT": "1", "AIMETER_LOG": str(log)})
    assert on.stdout == "8\nTrue\n", on.stderr
    assert [row["name"] for row in programs.rows(log)] == ["Model.run"]
    off = run("-c", code, plugin=plugin)
    assert off.stdout == "8\nFalse\n", off.stderr


def test_bad_settings_never_break_an_instrumented_program(app, plugin):
    """Nobody asked for anything in its code: a warning, and it runs."""
    app.write_text("import logging; logging.basicConfig()\nimport aimeter\n" + APP)
    done = run(str(app), "4", plugin=plugin, environ={"AIMETER_INSTRUMENT": "1", "AIMETER_PUE": "much"})
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    assert "not instrumented" in done.stderr


def test_instrument_loads_the_standard_library_only(plugin):
    """Nothing of a framework, nor NumPy, is loaded for it."""
    code = (
        "import sys, aimeter; aimeter.instrument();"
        "print(*{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = run("-S", "-c", code, plugin=plugin)
    assert set(done.stdout.split()) - {"aimeter", "__main__", "__mp_main__"} == set(), done.stderr


ENGINE = """
class Engine:
    def run(self, number):
        return 2 * number
"""


@pytest.mark.parametrize("first", ["toyself", "toyhome"])
@pytest.mark.parametrize("where", ["framework", "submodule", "beside", "namespace"])
def test_an_adapter_that_lies_in_its_framework_or_imports_it(plugin, meter, caplog, where, first):
    """It is loaded when the framework's import is done, which runs once, whatever the program imports first."""
    package = plugin / "toyself"
    package.mkdir()
    engine, home = ENGINE + "import builtins; builtins.toy_runs.append(__name__)\n", "toyhome"
    body = PLUGIN.replace('"toyframework.models", "Model"', '"toyself.engine", "Engine"')
    (package / "engine.py").write_text(engine)
    (plugin / "toyhome.py").write_text("import toyself.engine\n" + body)
    if where == "framework":
        home = "toyself"
        (package / "__init__.py").write_text("from .engine import Engine\n" + body)
    elif where == "submodule":
        home = "toyself.teach"
        (package / "__init__.py").write_text("from . import teach\nfrom .engine import Engine\n")
        (package / "teach.py").write_text("from toyself.engine import Engine\n" + body)
    elif where == "beside":
        (package / "__init__.py").write_text("from .engine import Engine\n")
    (plugin / "toyplugin-1.0.dist-info" / "entry_points.txt").write_text(
        f"[aimeter.adapters]\ntoyself = {home}:ADAPTER\n"
    )
    builtins = importlib.import_module("builtins")
    builtins.toy_runs = []
    try:
        with caplog.at_level(logging.WARNING, logger="aimeter"):
            aimeter.instrument(meter=meter)
            importlib.import_module(first)
            engines = importlib.import_module("toyself.engine")
            assert engines.Engine().run(4) == 8
        assert builtins.toy_runs == ["toyself.engine"]
    finally:
        del builtins.toy_runs
    assert caplog.messages == []
    assert [(row.name, row.items) for row in meter.records()] == [("Engine.run", 4)]


def test_a_forked_child_goes_on(plugin, meter):
    """After fork the child's attached objects are metered by the child."""
    models = importlib.import_module("toyframework.models")
    model = meter.attach(models.Model())
    child = os.fork()
    if child == 0:
        model.run(2)
        aimeter.detach(model)
        os._exit(0 if [row.items for row in meter.records()] == [2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    aimeter.detach(model)
