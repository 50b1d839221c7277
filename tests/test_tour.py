"""The tour, walked from end to end: without a server or a real corpus, and with a server that answers."""

import ast
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile as sf
from nbclient import NotebookClient

LINES = {  # a wording for each label of the card that the tour writes
    "neutral": "The {} item on the list is number {}.",
    "frustrated": "We have asked about the {} {} times now.",
    "pleased": "Thank you so much for the {}, all {} of us are delighted.",
    "angry": "How dare you touch our {}, that is outrageous, {} years of lies!",
    "sad": "My father loved that {}, and he died {} weeks ago.",
}
HEARD = {"list": "neutral", "asked": "angry", "Thank": "happy", "dare": "angry", "father": "sad"}


class Model(BaseHTTPRequestHandler):
    """Answers the three kinds of prompt of the tour, each request differently."""

    asked = 0

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        Model.asked += 1
        message = {"role": "assistant", "content": answer(prompt, Model.asked)}
        body: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake",
                                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def answer(prompt: str, turn: int) -> str:
    things = ("bench", "bridge", "school", "square", "well", "clock")
    if "Line: " in prompt:
        return next(label for word, label in HEARD.items() if word in prompt.split("Line: ")[1])
    if found := re.search(r"all of them (\w+)\.", prompt):
        return "\n".join(LINES[found[1]].format(things[i], 100 * turn + i) for i in range(5))
    return "\n".join(f"{'CMP'[i % 3]}: {LINES[label].format(things[turn % 6], 100 * turn + i)} [{label}]"
                     for i, label in enumerate([*LINES, *LINES]))


@pytest.fixture
def server() -> Iterator[str]:
    """A local server of a language model."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, without real corpora, server or key."""
    for name in ("ZSEMO_CORPORA", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for folder in ("nbs/tour", "runs/studies"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def walk(project: Path, alone: Path, name: str, **settings: object) -> list[nbformat.NotebookNode]:
    """Execute a copy of a tour notebook with some settings of its first cell changed; its code cells."""
    book = nbformat.read(project / "nbs" / "tour" / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    known = {node.target.id for node in ast.parse(first.source).body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert set(settings) <= known
    first.source += "".join(f"\n{key} = {value!r}" for key, value in settings.items())
    folder = {"metadata": {"path": str(alone / "nbs" / "tour")}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=folder).execute()
    return [cell for cell in book.cells if cell.cell_type == "code"]


def told(cells: list[nbformat.NotebookNode]) -> str:
    """Everything that a notebook printed or showed as text."""
    outputs = [output for cell in cells for output in cell.outputs if output.get("name") != "stderr"]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def uar(text: str) -> float:
    """The score that a notebook shows last."""
    return float(re.findall(r"'uar': ([0-9.]+)", text)[-1])


def test_a_card_becomes_a_score_without_a_server(project: Path, alone: Path) -> None:
    text = told(walk(project, alone, "your_own_card"))
    assert "No server was given" in text
    assert "Real meld was not found" in text
    assert "'pleased' is in one of them only" in text
    assert 0.35 < uar(text) < 0.9, "clearly better than chance, .25"
    assert (alone / "runs" / "out" / "tour" / "town_hall.yaml").is_file()
    assert text.rstrip().endswith("10 runs")


def test_a_card_becomes_a_score_with_a_server(
    project: Path, alone: Path, server: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-tour-secret")
    few = {"scenario": 16, "utterances": 5}
    text = told(walk(project, alone, "your_own_card", model="fake", replies=few, target="iemocap_synthetic"))
    assert "A server will answer" in text
    assert "town_hall_synthetic" in text
    assert "stand in" not in text
    assert uar(text) > 0.25
    made = alone / "runs" / "out" / "tour"
    assert (made / "town_hall_synthetic" / "table.parquet").is_file()
    assert not any(b"sk-tour-secret" in file.read_bytes() for file in made.rglob("*") if file.is_file())
    before = Model.asked
    again = told(walk(project, alone, "your_own_card", model="fake", replies=few, target="iemocap_synthetic"))
    assert Model.asked == before, "every reply was in the store"
    assert uar(again) == uar(text)


def test_a_corpus_is_explored_without_real_ones(project: Path, alone: Path) -> None:
    text = told(walk(project, alone, "explore_corpus"))
    assert "row 1" in text and "joyful" in text, "the refused table says which row"
    assert "near_text" in text
    assert text.count(" s\n") >= 4, "five lines of a dialogue, spoken, with their lengths"


@pytest.fixture(scope="module")
def speech_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store of synthetic speech for the walks of this file."""
    for needed in ("parselmouth", "opensmile", "espeakng_loader"):
        pytest.importorskip(needed)
    return tmp_path_factory.mktemp("cache")


def test_recordings_are_spoken_guessed_and_measured(
    project: Path, alone: Path, speech_cache: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZSEMO_CACHE", str(speech_cache))
    text = told(walk(project, alone, "your_own_audio"))
    assert "GPL-3" in text and "no real corpus was named" in text
    assert "zz_damaged.wav: " not in text, "what cannot be used is listed, and guessed nothing"
    emotion = "(?:neutral|happy|sad|angry)"
    assert len(re.findall(rf"_{emotion}\.wav: a? ?\w+ speaks with .* guessed {emotion}", text)) == 8
    found = re.search(r"UAR on the synthetic dev part ([0-9.]+)", text)
    assert found and 0.3 < float(found[1]) < 0.95
    assert (alone / "runs" / "out" / "tour" / "audio" / "recordings" / "keys_sad.wav").is_file()


def test_any_folder_of_recordings_will_do(
    project: Path, alone: Path, speech_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZSEMO_CACHE", str(speech_cache))
    folder, rng, t = tmp_path / "my recordings", np.random.default_rng(0), np.arange(96_000) / 48_000
    (folder / "more").mkdir(parents=True)
    buzz = 0.1 * np.sign(np.sin(2 * np.pi * 130 * t)) * np.clip(np.sin(2 * np.pi * 3 * t), 0, 1)
    sf.write(folder / "stereo.wav", np.stack([buzz, 0.5 * buzz], 1), 48_000, subtype="PCM_24")
    sf.write(folder / "more" / "hiss.flac", 0.01 * rng.standard_normal(16_000), 16_000)
    sf.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    sf.write(folder / "click.wav", 0.1 * rng.standard_normal(500), 16_000)
    (folder / "empty.wav").touch()
    (folder / "notes.txt").write_text("not audio")
    text = told(walk(project, alone, "your_own_audio", folder=str(folder), rooms=1))
    assert "your folder" in text and "empty.wav" in text and "notes.txt" not in text
    assert "silent.wav: somebody speaks; guessed nothing" in text
    assert "click.wav: somebody speaks; guessed nothing" in text
    assert re.search(r"stereo\.wav: a man speaks with .*; guessed \w+ \(strange\)", text)


def test_committed_outputs_are_small_and_show_what_was_not_there(project: Path) -> None:
    for path in sorted((project / "nbs" / "tour").glob("*.ipynb")):
        assert path.stat().st_size < 600_000, path.name
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2, f"{path.name} is committed with its outputs"
        for output in (output for cell in cells for output in cell.outputs):
            assert len(output.get("data", {}).get("image/png", "")) < 133_000, "pictures under 100 kB"
    card = nbformat.read(project / "nbs" / "tour" / "your_own_card.ipynb", as_version=4)
    text = told([cell for cell in card.cells if cell.cell_type == "code"])
    assert "No server was given" in text and "was not found" in text, "committed outputs hold nothing real"


def test_every_emotion_is_heard_without_a_real_corpus(project: Path, alone: Path) -> None:
    cells = walk(project, alone, "listen_and_compare", emotions=["neutral", "angry"])
    text = told(cells)
    assert "ravdess was not found" in text and "GPL" in text
    pages = "".join(str(o.get("data", {}).get("text/html", "")) for cell in cells for o in cell.outputs)
    assert pages.count("<audio") == 2 + 2 + 8, "the panel, two emotions of one voice, then four voices in two emotions"


def test_results_are_explored_where_nothing_was_run_yet(project: Path, alone: Path, speech_cache: Path) -> None:
    (alone / "nbs" / "experiments").mkdir()
    shutil.copy(project / "nbs" / "experiments" / "zero_shot_text.ipynb", alone / "nbs" / "experiments")
    cells = walk(project, alone, "results_explorer")
    text = told(cells)
    assert "first_look: 2 runs executed, 0 were there, 0 failed" in text and "2 finished runs of first_look" in text
    pages = "".join(str(o.get("data", {}).get("text/html", "")) for cell in cells for o in cell.outputs)
    assert "2 of 2 runs" in pages and "UAR difference" in pages and "<a " not in pages
    assert len(list((alone / "runs" / "out" / "first_look").glob("*/notebook.ipynb"))) == 2
    again = told(walk(project, alone, "results_explorer"))
    assert "first_look:" not in again and "2 finished runs of first_look" in again
    one = str(alone / "runs" / "out" / "first_look")
    assert "2 finished runs" in told(walk(project, alone, "results_explorer", results=one))
