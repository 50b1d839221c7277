"""The tour in a real JupyterLab, in a real browser: notebooks run from top to bottom, sounds play, panels answer."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest
import yaml

from zsemo_kit.batch import run_study
from zsemo_kit.studies import load_study
from zsemo_kit.corpora.readers import find

PATIENCE = 300  # seconds; no test fails because the machine is busy
QUIET = {  # settings of JupyterLab: no news, no updates, and every cell in the page, also those out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
GUESSER = '''from pathlib import Path

import numpy as np
import pandas as pd

from zsemo_kit.analysis.runs import write_run
from zsemo_kit.analysis.scores import scores
from zsemo_kit.generation.corpus_by_name import open_corpus

test = open_corpus(target, "four", strategy="conversations", second_reading="agreed")
drawn = np.random.default_rng(seed).random(len(test)) < skill
guess = test.table["emotion"].where(drawn, "neutral")
frame = test.table[["utterance", "dialogue", "speaker"]].assign(truth=test.table["emotion"], guess=guess)
scored = scores(frame, ["neutral", "happy", "sad", "angry"], n_boot=50)
write_run(Path(out), frame, scored, study=study, run_id=run_id, system="guesser", modality="text", source=source, target=target,
          space="four", seed=seed, transductive=False, n_train=0, n_dev=0, n_test=len(test), seconds={})
print("this notebook was executed with skill", skill)'''


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    root: Path
    runs: list[str]
    elsewhere: list[str] = field(default_factory=list)  # requests to other hosts


def guessed_runs(root: Path) -> list[str]:
    """Two real runs of a run notebook that takes a second: papermill, parameters, predictions, executed notebook."""
    parameters = 'source: str = "nobody"\ntarget: str = "iemocap_synthetic"\nskill: float = 0.5\nseed: int = 0\n'
    parameters += 'study: str = ""\nrun_id: str = ""\nout: str = ""'
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(GUESSER)],
                                    metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
    nbformat.write(book, root / "nbs" / "experiments" / "guesser.ipynb")
    study = root / "runs" / "studies" / "guessing.yaml"
    study.write_text(yaml.safe_dump({"notebook": "guesser", "grid": {"skill": [0.2, 0.9]}}))
    outcome = run_study(load_study(str(study)), root=root, find=find, fetch=lambda _: None)
    assert outcome.finished == 2, outcome.failed
    return outcome.ids


def started(root: Path, place: Path, token: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server on a free port, with settings, configuration and runtime files of its own; its address."""
    for name, values in QUIET.items():
        file = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    own = {f"JUPYTER_{kind}_DIR": str(place / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(place / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces")}
    own |= {"IPYTHONDIR": str(place / "ipython"), "ZSEMO_CACHE": str(place / "cache")}
    own |= {"JUPYTER_TOKEN": token, "OMP_NUM_THREADS": "1"}
    left_out = ("ZSEMO_CORPORA", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
         "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}",
         "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
         "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        env={k: v for k, v in os.environ.items() if k not in left_out} | own, cwd=root,
        stdout=subprocess.DEVNULL, stderr=(place / "lab.log").open("wb"), start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for info in (place / "runtime").glob("jpserver-*.json"):  # the server may have taken the next free port
            if text := info.read_text():
                return process, str(json.loads(text)["url"])
        time.sleep(0.2)
    raise AssertionError((place / "lab.log").read_text()[-2000:])


@pytest.fixture(scope="module")
def lab(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all tests, started in a project of its own without corpora and keys."""
    for needed in ("jupyterlab", "ipywidgets", "espeakng_loader", "parselmouth", "opensmile"):
        pytest.importorskip(needed)
    root, place = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("lab")
    for folder in ("runs/studies", "nbs/experiments"):
        (root / folder).mkdir(parents=True)
    shutil.copytree(project / "nbs" / "tour", root / "nbs" / "tour", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    runs, token = guessed_runs(root), secrets.token_hex()
    process, url = started(root, place, token)
    try:
        yield Lab(url, token, root, runs)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # the server ends its kernels
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # "are you sure?"
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


CELLS = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  return panel.content.widgets.filter(c => c.model.type === 'code').map(c => ({
    source: c.model.sharedModel.getSource(), state: c.model.executionState, count: c.model.executionCount,
    outputs: c.model.outputs.toJSON().map(o => ({kind: o.output_type, text: JSON.stringify(o).slice(0, 2000)})),
  }));
}"""


@pytest.fixture
def opened(lab: Lab, browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens a notebook of the lab and runs all its cells; pages are closed and their kernels ended afterwards."""
    context = browser.new_context(viewport={"width": 1400, "height": 1100})

    def watched(request: Any) -> None:
        if urlsplit(request.url).netloc not in ("", urlsplit(lab.url).netloc):
            lab.elsewhere.append(request.url)

    context.on("request", watched)
    pages = []

    def run(name: str) -> Any:
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{lab.url}lab/tree/nbs/tour/{name}.ipynb?reset&token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        return page

    yield run
    for page in pages:
        page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext?.shutdown?.()")
    context.close()


def finished(page: Any) -> list[dict[str, Any]]:
    """The code cells, when the last one has run; an error is told with its cell."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        cells: list[dict[str, Any]] = page.evaluate(CELLS)
        wrong = [f"{c['source'][:200]}\n{o['text']}" for c in cells for o in c["outputs"] if o["kind"] == "error"]
        assert not wrong, wrong[0]
        if all(c["count"] for c in cells if c["source"].strip()):
            return cells
        page.wait_for_timeout(300)
    raise AssertionError("the notebook did not end")


def play(page: Any, sound: Any) -> float:
    """Plays an audio element a little; seconds of its whole length."""
    length: float = sound.evaluate("""async a => {
        a.muted = true; await a.play();
        await new Promise((done, fail) => {
            a.ontimeupdate = () => a.currentTime > 0 && done();
            setTimeout(() => fail('no time passes'), 20000);
        });
        a.pause(); return a.duration; }""")
    return length


PLAYERS = ".widget-output audio"  # of a panel: as it is read, and with the emotion


def panel(page: Any) -> Any:
    """The part of the page that holds the panel with its controls."""
    return page.locator(".jp-OutputArea-output:has(.widget-dropdown)").first


def menu(page: Any, name: str) -> Any:
    """A drop-down menu of a panel, by its label."""
    return panel(page).locator(f".widget-dropdown:has(label:text-is('{name}')) select")


def shown(page: Any, *texts: str) -> str:
    """The panel's page, when it holds all these texts."""
    output, html = panel(page).locator(".widget-output").first, ""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        html = str(output.inner_html())
        if all(text in html for text in texts):
            return html
        page.wait_for_timeout(100)
    raise AssertionError(f"no {texts} in the panel: {re.sub('src=.*?>', '', html)[-1500:]}")


def injected(page: Any) -> str:
    """The sound of the panel that an emotion was put into, when the panel has one."""
    return str(panel(page).locator("audio").nth(1).get_attribute("src"))


def test_a_change_is_heard_at_once(lab: Lab, opened: Callable[[str], Any]) -> None:
    page = opened("listen_and_compare")
    finished(page)
    shown(page, "angry, strength 1.0", "pitch, Hz")
    sounds, neutral = [injected(page)], panel(page).locator("audio").first.get_attribute("src")
    assert 0.5 < play(page, panel(page).locator("audio").nth(1)) < 10
    menu(page, "emotion").select_option(label="sad")
    shown(page, "sad, strength 1.0")
    assert panel(page).locator("audio").nth(1).evaluate("a => a.autoplay"), "it plays of its own accord"
    sounds.append(injected(page))
    panel(page).locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    shown(page, "sad, strength 1.1")
    sounds.append(injected(page))
    assert panel(page).locator("audio").first.get_attribute("src") == neutral, "the reading is the same"
    voices = menu(page, "voice").locator("option").all_inner_texts()
    menu(page, "voice").select_option(label=next(v for v in voices if v.endswith("(male)")))
    page.wait_for_function("([one, before]) => document.querySelectorAll(one)[1].src != before", arg=[PLAYERS, sounds[-1]])
    sounds.append(injected(page))
    assert len(set(sounds)) == 4 and panel(page).locator("audio").first.get_attribute("src") != neutral
    menu(page, "corpus").select_option(label="emodb_synthetic")
    page.wait_for_function("([one, before]) => document.querySelectorAll(one)[1].src != before", arg=[PLAYERS, sounds[-1]])
    assert menu(page, "voice").locator("option").first.inner_text().startswith("de.")
    assert page.locator("audio").count() == 2 + 8 + 8


def test_runs_are_filtered_compared_and_opened(lab: Lab, opened: Callable[[str], Any]) -> None:
    page = opened("results_explorer")
    text = "".join(o["text"] for cell in finished(page) for o in cell["outputs"])
    assert "2 finished runs of guessing" in text and "first_look" not in text
    shown(page, "2 of 2 runs", "UAR difference -0.", "<b>worse</b>", *lab.runs)
    menu(page, "compare").select_option(index=1)
    shown(page, "2 of 2 runs", "a run is not compared with itself")
    menu(page, "with").select_option(index=0)
    shown(page, "2 of 2 runs", "UAR difference +0.", "<b>better</b>")
    menu(page, "skill").select_option(label="0.9")
    shown(page, "1 of 2 runs", "A comparison needs two runs")
    panel(page).locator("a").first.click()
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.context?.path?.endsWith('/notebook.ipynb')")
    path = page.evaluate("window.jupyterapp.shell.currentWidget.context.path")
    assert path in {f"runs/out/guessing/{run}/notebook.ipynb" for run in lab.runs}
    page.wait_for_selector("text=this notebook was executed with skill 0.9 >> visible=true")


def test_a_table_of_utterances_plays(lab: Lab, opened: Callable[[str], Any]) -> None:
    page = opened("explore_corpus")
    finished(page)
    sounds = page.locator("td audio")
    assert sounds.count() == 5
    assert 0.3 < play(page, sounds.last) < 15


def test_the_other_notebooks_run_from_top_to_bottom(lab: Lab, opened: Callable[[str], Any]) -> None:
    known = {"listen_and_compare", "results_explorer", "explore_corpus"}
    others = sorted(p.stem for p in (lab.root / "nbs" / "tour").glob("*.ipynb") if p.stem not in known)
    assert len(others) >= 2
    pages = [opened(name) for name in others]  # side by side
    for page in pages:
        assert len(finished(page)) > 5
    assert any(page.locator("audio").count() for page in pages)


def test_nothing_was_loaded_from_elsewhere(lab: Lab) -> None:
    assert lab.elsewhere == []
