"""The page, opened in a real browser: drawn, searched, hovered, narrow and dark; and the pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aimeter.record import Record
from aimeter.report.charts import charts
from aimeter.report.digest import Digester, digest
from aimeter.report.page import page
from tests.records import make_record

pytest.importorskip("vl_convert", reason="vl-convert-python is not installed; it comes with the extra report")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = '</script><img src=x onerror="document.title=1"> \x1b[2J $$x$$ {{7*7}} \u202e'


def rows() -> list[Record]:
    """Return generations and images, with parts, an error, and a hostile name."""
    made = []
    for number in range(20):
        start = f"2026-11-27T12:00:{2 * number:02d}.000000Z"
        common = {
            "start": start,
            "devices": "gpu:0 cpu:0",
            "model": "m",
            "images": None,
            "intensity_g_per_kwh": 56.0,
        }
        made += [
            make_record(
                **common,
                name=f"chat.{part}",
                call_id=f"{part}{number}",
                parent_id=f"chat{number}",
                energy_j=joules,
                devices_j=(joules - 1, 1.0),
                duration_s=0.5,
                **counts,
            )
            for part, joules, counts in (
                ("prefill", 4.0 + number / 10, {"tokens_in": 50.0}),
                ("decode", 20.0, {"tokens_out": 90.0}),
            )
        ]
        made.append(
            make_record(
                **common,
                name="chat",
                call_id=f"chat{number}",
                energy_j=30.0 + number / 10,
                devices_j=(28.0 + number / 10, 2.0),
                duration_s=1.5,
                self_j=6.0,
                status="error" if number == 3 else "ok",
                error_type="ValueError" if number == 3 else None,
            )
        )
    return [
        *made,
        make_record(
            name=HOSTILE, model=HOSTILE, call_id="h", devices=HOSTILE, error_type=HOSTILE, status="error"
        ),
    ]


def opened(path: Path, script: str = "", *, width: int = 1000, dark: bool = False) -> dict[str, object]:
    """Open a page in Chromium, run a script in it once all is drawn, and return what the script returns and the log."""
    assert CHROMIUM is not None
    probe = path.with_name("probe.html")
    ask = f"""<script type="module">
const told = {{}};
addEventListener("error", (event) => {{ told.error = String(event.message); }});
const drawn = () => [...document.querySelectorAll(".chart")].every((one) => one.querySelector("svg"));
const wait = async (done) => {{ for (let n = 0; n < 400 && !done(); n++) await new Promise((go) => setTimeout(go, 25)); }};
await wait(drawn);
told.drawn = drawn();
told.result = await (async () => {{ {script} }})();
const out = document.createElement("pre"); out.id = "told"; out.textContent = JSON.stringify(told); document.body.append(out);
</script>"""
    whole, _, _ = path.read_text("utf-8").rpartition("</body>")
    probe.write_text(f"{whole}{ask}</body></html>", "utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ]
    flags += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},1200", "--dump-dom"]
    flags += ["--virtual-time-budget=30000", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run(
        [CHROMIUM, *flags, probe.as_uri()], capture_output=True, text=True, check=True, timeout=180
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stderr[-2000:]
    text = told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(text), "console": console}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(digest(rows())), "utf-8")
    return path


@browser
def test_every_chart_is_drawn_and_the_browser_says_nothing(made: Path):
    """No error, no warning, no request; each chart has an accessible name and can be reached by keyboard."""
    told = opened(
        made,
        """return [...document.querySelectorAll(".chart")].map((one) => [one.id, one.getAttribute("aria-label"),
        one.tabIndex, one.querySelectorAll("path, rect").length])""",
    )
    assert (told["drawn"], told["console"], told.get("error")) == (True, [], None)
    keys = [chart.key for chart in charts(digest(rows()))]
    assert keys == ["per-call", "per-unit", "power", "timeline", "distribution", "parts", "devices", "carbon"]
    assert [one[0] for one in told["result"]] == keys
    for _, name, tab, marks in told["result"]:
        assert name
        assert tab == 0
        assert marks > 1


@browser
def test_the_search_shows_what_has_the_text_in_its_name(made: Path):
    """In every chart of names, in whatever case; without a text all are back."""
    told = opened(
        made,
        """const box = document.getElementById("search");
        const names = () => [...document.querySelectorAll("#per-call .mark-text.role-axis-label text")].map((one) => one.textContent);
        const type = async (text, done) => { box.value = text; box.dispatchEvent(new Event("input")); await wait(done); };
        const all = names();
        await type("PREFILL", () => names().length < all.length);
        const some = names().filter((one) => !/^[0-9.]*$/.test(one));
        const spread = [...document.querySelectorAll("#distribution .mark-text.role-axis-label text")]
          .map((one) => one.textContent).filter((one) => /chat/.test(one));
        await type("", () => names().length == all.length);
        return [some, spread, names().length == all.length];""",
    )
    assert told["result"] == [["chat > prefill"], ["chat.prefill"], True]


SEEN = """const bars = () => document.querySelectorAll("#timeline .mark-rect.role-mark path").length;
        const names = (key) => [...document.querySelectorAll(`#${key} .mark-text.role-axis-label text`)].map((one) => one.textContent);
        const named = (key) => names(key).filter((one) => !/^[0-9., ]*[µmkM]?$/.test(one));
        const look = async (id, text) => { const box = document.getElementById(id); box.value = text;
          box.dispatchEvent(new Event("input")); };"""


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of ten calls of one name and device, then as many of another."""
    made = [
        make_record(
            name=name,
            call_id=f"{name}{number}",
            start=f"2026-11-27T12:00:{first + number:02d}.000000Z",
            duration_s=0.5,
            devices=device,
            devices_j=(2.0,),
            energy_j=2.0,
            error_j=0.2,
        )
        for name, first, device in (("early", 0, "gpu:0"), ("late", 30, "gpu:1"))
        for number in range(10)
    ]
    path = tmp_path_factory.mktemp("halves") / "page.html"
    path.write_text(page(digest(made)), "utf-8")
    return path


@browser
def test_the_boxes_of_time_leave_what_happened_then(halves: Path):
    """In all charts of calls, devices and carbon, in UTC; the button brings all back."""
    told = opened(
        halves,
        f"""{SEEN}
        const state = () => [bars(), named("per-call"), named("distribution"), names("devices").filter((one) => /gpu/.test(one))];
        const found = [state()];
        await look("until", "2026-11-27T12:00:20"); await wait(() => bars() == 10); found.push(state());
        await look("since", "2026-11-27T12:00:05"); await wait(() => bars() == 5); found.push(state());
        document.getElementById("whole").click(); await wait(() => bars() == 20); found.push(state());
        await look("since", "2026-11-27T12:00:20"); await wait(() => bars() == 10); found.push(state());
        await look("since", "2027-01-01T00:00:00"); await wait(() => bars() == 0); found.push(state());
        return found;""",
    )
    both = [["early", "late"], ["early", "late"], ["gpu:0 (counter)", "gpu:1 (counter)"]]
    early, late = (
        [[name], [name], [f"{device} (counter)"]] for name, device in (("early", "gpu:0"), ("late", "gpu:1"))
    )
    assert told["result"] == [
        [20, *both],
        [10, *early],
        [5, *early],
        [20, *both],
        [10, *late],
        [0, [], [], []],
    ]
    assert told.get("error") is None


@browser
def test_dragging_over_the_power_leaves_what_happened_then(halves: Path):
    """The boxes say from when to when; a double click brings all back."""
    told = opened(
        halves,
        f"""{SEEN}
        const svg = document.querySelector("#power svg"), box = svg.querySelector(".background").getBoundingClientRect();
        const at = (part) => ({{ bubbles: true, button: 0, buttons: 1, clientX: box.x + part * box.width, clientY: box.y + 40 }});
        const group = svg.querySelector(".mark-group.role-scope, .mark-group.role-frame .background") ?? svg;
        const send = (kind, part, to = group) => {{ to.dispatchEvent(new PointerEvent(kind.replace("mouse", "pointer"), at(part)));
          to.dispatchEvent(new MouseEvent(kind, at(part))); }};
        send("mousedown", 0.6); send("mousemove", 0.8, window); send("mousemove", 0.99, window); send("mouseup", 0.99, window);
        await wait(() => bars() == 10);
        const dragged = [bars(), named("per-call"), document.getElementById("since").value.slice(0, 17)];
        group.dispatchEvent(new MouseEvent("dblclick", at(0.3)));
        await wait(() => bars() == 20);
        return [dragged, bars(), document.getElementById("since").value];""",
    )
    assert told["result"] == [[10, ["late"], "2026-11-27T12:00:"], 20, ""]


@browser
def test_the_pointer_tells_the_figures(made: Path):
    """Over a mark of a chart its name and its joules are shown."""
    told = opened(
        made,
        """const mark = document.querySelector("#parts .mark-rect path");
        const box = mark.getBoundingClientRect();
        for (const kind of ["pointerover", "pointermove", "mouseover", "mousemove"])
          mark.dispatchEvent(new PointerEvent(kind, { bubbles: true, clientX: box.x + 3, clientY: box.y + 3 }));
        const tip = () => document.getElementById("vg-tooltip-element");
        await wait(() => tip()?.textContent);
        return tip()?.textContent;""",
    )
    assert "chat" in str(told["result"])
    assert " J" in str(told["result"])


@browser
@pytest.mark.parametrize("width", [390, 1000])
def test_the_page_fits_a_phone(made: Path, width: int):
    """Nothing but a table scrolls sideways."""
    told = opened(made, "return [document.documentElement.scrollWidth, innerWidth]", width=width)
    wide, room = told["result"]
    assert wide <= room


@browser
def test_the_page_is_dark_where_that_is_wished(made: Path):
    """Paper and ink change places; axes are drawn in the ink of the page."""
    ask = """const style = getComputedStyle(document.querySelector("#per-call text"));
        return [getComputedStyle(document.body).backgroundColor, style.fill];"""
    light, dark = opened(made, ask)["result"], opened(made, ask, dark=True)["result"]
    assert light == ["rgb(255, 255, 255)", "rgb(26, 26, 26)"]
    assert dark == ["rgb(21, 24, 28)", "rgb(232, 232, 232)"]


@browser
def test_what_a_log_holds_is_never_run(made: Path):
    """Names with markup, escapes and templates stay text, in tables and charts."""
    told = opened(
        made, "return [document.title, document.images.length, document.body.innerText.includes('onerror')]"
    )
    assert told["result"] == ["What model calls took", 0, True]


def test_the_page_needs_nothing_from_anywhere(made: Path):
    """Nothing to load stands in it, and a browser is told to load nothing."""
    text, _, _ = made.read_text("utf-8").partition('<script type="module">')
    assert "default-src 'none'" in text
    assert not re.findall(r"<(?:link|img|iframe|script|base)\b[^>]*(?:src|href)=", text)
    assert "\x1b" not in text


def test_a_page_of_many_calls_stays_small(tmp_path: Path):
    """Aggregated then, and it says so."""
    digester = Digester()
    for number in range(20_000):
        digester.add(
            make_record(
                name=f"call {number}",
                call_id=str(number),
                start=f"2026-11-27T12:{number % 60:02d}:00.000000Z",
            )
        )
    text = page(digester.digest())
    assert len(text.encode()) < 3_000_000
    assert "drawn by chance" in text


def test_a_page_of_no_call_says_so():
    """An empty log is no error."""
    assert "There is no call in these logs" in page(digest([]))


def test_pictures_are_drawn_without_a_browser(made: Path):
    """SVG that can be parsed and is accessible, and PNG; both of the same description."""
    from aimeter.report.picture import png, svg

    found = digest(rows())
    root = ET.fromstring(svg(found))
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    for chart in charts(found):
        assert chart.title in texts
    assert png(found).startswith(b"\x89PNG\r\n")
