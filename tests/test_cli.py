"""The command as a user meets it: one clear line for bad input, nothing lost, nothing sent or paid for twice."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import Call
from zsemo_kit.cli import app
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.chat import ReplyStore

HERE = Path(__file__).parent
KEY = "sk-zk-recognisable-0123456789abcdef"
DEAD = "http://127.0.0.1:9/v1"  # the discard port: nothing listens
PATIENCE = 600  # seconds; no test fails because the machine is busy
SPEAKERS = "id: mine\nspeakers: {A: any, B: any}\n"
# a shell in the background ignores Ctrl-C and hands that down
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from zsemo_kit.cli import main; main()"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ZSEMO_CORPORA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def start(*words: Any, **environment: str) -> "subprocess.Popen[str]":
    "The command as a process of its own."
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def one_line(told: tuple[int, str, str], *parts: str) -> str:
    "Exit code 2, nothing on standard output, no traceback, and one line that says all of the parts."
    code, out, err = told
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = re.split(r"[\r\n]+", err.strip())
    assert lines[-1].startswith("zsemo: ") and sum(line.startswith("zsemo: ") for line in lines) == 1, err
    assert all(part in lines[-1] for part in parts), (parts, lines[-1])
    return lines[-1]


class Server:
    "fake_llm.py as a process."
    def __init__(self, log: Path, *options: str) -> None:
        self.log = log
        command = [sys.executable, str(HERE / "fake_llm.py"), "--log", str(log), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def asked(self) -> int:
        return sum(line.startswith("R ") for line in self.log.read_text().splitlines())

    def until_asked(self, n: int, process: "subprocess.Popen[str]") -> None:
        end = time.monotonic() + PATIENCE
        while self.asked() < n and time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        assert self.asked() >= n and process.poll() is None, process.communicate()[1] if process.poll() is not None else ""


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def started(*options: str) -> Server:
        running.append(Server(tmp_path_factory.mktemp("server") / "log", *options))
        return running[-1]
    yield started
    for server in running:
        server.process.kill()
        server.process.wait()


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def holds(folder: Path, secret: str) -> list[str]:
    return [f for f in files(folder) if secret.encode() in (folder / f).read_bytes()]


# --- help

def test_every_command_has_help_with_an_example(call: Call) -> None:
    commands = [c.callback.__name__ for c in app.registered_commands if c.callback]
    assert {"run", "report", "corpora", "doctor", "fetch", "generate", "label"} <= set(commands)
    for command in commands:
        code, out, _ = call(command, "--help")
        assert code == 0
        assert re.search(rf"Examples?:[^.]*zsemo {command}", out), command
    assert "zsemo run demo" in call("--help")[1]


def test_help_does_not_load_the_heavy_libraries() -> None:
    script = (
        "import sys\nfrom zsemo_kit.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert told.stdout.splitlines()[-1] == "[]"


# --- bad words

@pytest.mark.parametrize(("words", "parts"), [
    (("generate", "meld", "--n", "0"), ("--n", "greater than or equal to 1")),
    (("generate", "meld", "--n", "-3", "--recorded"), ("--n",)),
    (("generate", "meld", "--n", "many"), ("--n", "integer")),
    (("generate", "meld", "--colour"), ("--colour", "zsemo generate --help")),
    (("generate",), ("card",)),
    (("generat",), ("generat",)),
    (("run", "demo", "--jobs", "0"), ("--jobs",)),
    (("generate", "meld", "--price", "1", "x"), ("--price",)),
])
def test_bad_words(call: Call, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    one_line(call(*words), *parts)


# --- bad cards

@pytest.mark.parametrize(("text", "parts"), [
    (SPEAKERS, ("card.yaml", "expected a list 'prompt_labels' of the labels to ask for")),
    (SPEAKERS + "prompt_labels: [joy]\nlabel_map: {joy: glee}", ("card.yaml", "'joy'", "'glee'", "happy")),
    (SPEAKERS + "prompt_labels: [joy]\nlabel_map: {anger: angry}", ("card.yaml", "'joy'", "label_map")),
    ("id: [mine\n b: '", ("card.yaml", "not readable YAML", "line")),
    ("- a\n- list", ("card.yaml", "expected names and values", "found list")),
    ("id: !!python/object/apply:os.system ['true']", ("card.yaml", "not readable YAML")),
    (b"id: \xff\xfe", ("card.yaml", "UTF-8")),
    (SPEAKERS + "prompt_labels: [joy]\ncolour: red", ("card.yaml", "unknown field 'colour'")),
])
def test_bad_cards(call: Call, tmp_path: Path, text: str | bytes, parts: tuple[str, ...]) -> None:
    (tmp_path / "card.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    one_line(call("generate", "card.yaml", "--model", "fake", "--base-url", DEAD), *parts)
    assert files(tmp_path) == ["card.yaml"]


def test_unknown_cards(call: Call, tmp_path: Path) -> None:
    one_line(call("generate", "nowhere", "--recorded"), "unknown card 'nowhere'", "meld")
    one_line(call("generate", "nowhere.yaml"), "nowhere.yaml")
    (tmp_path / "card.yaml").write_text(SPEAKERS + "prompt_labels: [joy]\nlabel_map: {joy: happy}")
    one_line(call("generate", "card.yaml", "--recorded"), "no recorded replies", "'mine'")
    assert files(tmp_path) == ["card.yaml"]


# --- bad corpora

@pytest.mark.parametrize(("text", "parts"), [
    ("utterance,emotion,text\na,happy,hi\nb,glee,ho\n", ("mine.csv, line 3", "'glee'", "happy")),
    ("utterance,emotion,text\na,happy,hi\nb,sad,ho,hum\n", ("mine.csv, line 3", "4 fields", "expected 3")),
    ("utterance,text\na,hi\n", ("mine.csv", "'emotion'", "utterance, text")),
    ("utterance,emotion,text\na,happy,hi\na,sad,ho\n", ("mine.csv, line 3", "'utterance'", "'a'")),
    ("utterance,emotion,text,start\na,happy,hi,soon\n", ("mine.csv, line 2", "'soon'", "number")),
    ("utterance,emotion,audio\na,happy,../../secret.wav\n", ("mine.csv, line 2", "secret.wav")),
    ("", ("mine.csv", "empty")),
])
def test_unreadable_corpora(call: Call, tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "mine.csv").write_text(text)
    one_line(call("doctor", "mine.csv"), *parts)
    one_line(call("doctor", "mine.csv", "--json"), *parts)


def test_corpora_that_are_not_there(call: Call, tmp_path: Path) -> None:
    one_line(call("doctor", "nowhere"), "no corpus 'nowhere'", "meld")
    one_line(call("doctor", "meld"), "ZSEMO_CORPORA", "zsemo fetch meld")
    one_line(call("doctor", "iemocap"), "ask for it", "https://sail.usc.edu/iemocap/")
    one_line(call("doctor", "meld", tmp_path / "empty"), "empty")
    one_line(call("fetch", "iemocap", "--folder", tmp_path / "corpora"), "may not be downloaded", "https://sail.usc.edu/iemocap/")
    one_line(call("fetch", "nowhere", "--folder", tmp_path / "corpora"), "'nowhere'", "meld")
    one_line(call("fetch", "meld"), "--folder")
    assert files(tmp_path) == []


def test_fetch_without_a_network_leaves_no_corpus_behind(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zsemo_kit.corpora import fetch as fetching
    monkeypatch.setattr(fetching, "PAUSE", 0.01)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    one_line(call("fetch", "meld", "--folder", tmp_path / "corpora"), "cannot download https://", "by hand")
    assert not (tmp_path / "corpora" / "meld").exists()  # an empty folder would count as a corpus that is there
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path / "corpora"))
    one_line(call("doctor", "meld"), "was not found")


# --- folders (tests may run as root, whom no permission stops: a path below a file cannot be made by anybody)

def test_unwritable_folders(call: Call, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("precious")
    below = tmp_path / "file" / "deeper" / "folder"
    one_line(call("generate", "meld", "--recorded", "--out", below), "cannot write to")
    one_line(call("generate", "meld", "--model", "m", "--base-url", DEAD, "--out", below), "cannot use the reply store")
    one_line(call("generate", "meld", "--recorded", "--out", tmp_path / "file"), "will not write over", "--out")
    one_line(call("fetch", "meld", "--folder", below), "cannot write to")
    monkeypatch.chdir(project)
    one_line(call("run", "demo", "--out", below), "cannot write to", "--out")
    one_line(call("report", "demo", "--out", below), "run the study first")
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "precious"


def test_a_folder_with_other_things_is_refused_before_anything_is_sent(call: Call, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    words = ("--model", "m", "--base-url", DEAD, "--out", tmp_path / "thesis")
    for more in (words, ("--recorded", *words[-2:])):
        one_line(call("generate", "meld", *more), "will not write over", "thesis")
    assert files(tmp_path) == ["thesis/chapter.txt"]


# --- studies

@pytest.mark.parametrize(("words", "parts"), [
    (("nowhere",), ("unknown study 'nowhere'", "demo")),
    (("nowhere.yaml",), ("nowhere.yaml",)),
    (("demo", "--set", "sead=1"), ("unknown parameter 'sead'", "seed")),
    (("demo", "--set", "seed=one"), ("'seed'", "expected int", "'one'")),
    (("demo", "--set", "seed=1.5"), ("'seed'", "expected int")),
    (("demo", "--set", "seed=[0, x]"), ("'seed'", "expected int", "'x'")),
    (("demo", "--set", "seed="), ("'seed'", "expected int")),
    (("demo", "--set", "space=4"), ("'space'", "expected str")),
    (("demo", "--set", "seed"), ("bad --set 'seed'", "NAME=VALUE")),
    (("demo", "--set", "=3"), ("bad --set", "NAME=VALUE")),
    (("demo", "--set", "seed=[]"), ("bad --set", "at least one")),
    (("demo", "--set", "out=/tmp"), ("unknown parameter 'out'",)),
])
def test_bad_studies_and_parameters(
    call: Call, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(project)
    one_line(call("run", *words, "--out", tmp_path / "out"), *parts)
    one_line(call("run", *words, "--out", tmp_path / "out", "--dry-run"), *parts)
    one_line(call("report", *words, "--out", tmp_path / "out"), *parts)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_lists_and_runs_nothing(call: Call, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    code, out, _ = call("run", "demo", "--set", "seed=[0, 7]", "--set", "source=meld_synthetic", "--dry-run", "--out", tmp_path)
    assert code == 0 and len(out.splitlines()) == 2
    assert all(re.match(r"[0-9a-f]{12}  to do  ", line) for line in out.splitlines()) and "seed=7" in out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    "A project of its own with one small study, so that no figure of the checkout is touched."
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(project / "nbs" / "experiments", root / "nbs" / "experiments")
    (root / "runs" / "studies").mkdir(parents=True)
    (root / "runs" / "studies" / "tiny.yaml").write_text(
        "notebook: zero_shot_text\npublish: true\nbaseline: {source: meld_synthetic}\n"
        "parameters: {target: iemocap_synthetic, size: 150, seed: 0, source: meld_synthetic}\n"
    )
    return root


def test_run_and_report_of_a_tiny_study(call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    monkeypatch.setenv("ZSEMO_CACHE", str(tiny / "cache"))
    one_line(call("report", "tiny"), "run the study first")
    code, out, err = call("run", "tiny", "--json")
    told = json.loads(out)
    assert code == 0, err
    assert (told["finished"], told["skipped"], told["failed"]) == (1, 0, {})
    assert all((tiny / f).is_file() for f in told["files"])
    assert any(f.startswith("figures/") for f in told["files"])
    code, out, _ = call("run", "tiny")
    assert code == 0 and "0 finished, 1 complete before, 0 failed" in out and "stages" in out
    assert "  done  " in call("run", "tiny", "--dry-run")[1]
    code, out, _ = call("report", "tiny", "--json")
    rows = json.loads(out)
    assert code == 0 and [(r["source"], r["target"]) for r in rows] == [("meld_synthetic", "iemocap_synthetic")]
    assert 0 <= rows[0]["uar"] <= 1
    assert "| meld_synthetic |" in call("report", "tiny")[1]
    one_line(call("report", "tiny", "--set", "seed=5"), "no finished run")


def test_figures_are_drawn_again_from_runs_of_an_earlier_code(call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    monkeypatch.setenv("ZSEMO_CACHE", str(tiny / "cache"))
    assert call("run", "tiny")[0] == 0  # finished by the test before, unless that did not run
    before = {p.name: p.read_bytes() for p in (tiny / "figures").iterdir()}
    notebook = tiny / "nbs" / "experiments" / "zero_shot_text.ipynb"
    book = json.loads(notebook.read_text())
    next(c for c in book["cells"] if c["cell_type"] == "code" and not c["metadata"].get("tags"))["source"] += ["\n# changed"]
    notebook.write_text(json.dumps(book))
    assert "  to do  " in call("run", "tiny", "--dry-run")[1]  # as the code stands, nothing has run
    code, out, err = call("figures", "--redraw")
    assert code == 0 and "1 runs" in out, err
    assert {p.name: p.read_bytes() for p in (tiny / "figures").iterdir()} == before
    one_line(call("figures", "nothing"), "unknown study")



def test_a_study_whose_corpus_cannot_be_read_says_which_row(call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    (tiny / "mine.csv").write_text("utterance,emotion,text\na,happy,hi\nb,glee,ho\n")
    before = sorted((tiny / "runs/out").rglob("metrics.json"))
    code, _, err = call("run", "tiny", "--set", "source=mine.csv")
    assert code == 2 and "Traceback" not in err
    assert "mine.csv, line 3" in err.splitlines()[-1] and "'glee'" in err.splitlines()[-1]
    assert sorted((tiny / "runs/out").rglob("metrics.json")) == before


# --- corpora and doctor

def test_corpora_lists_what_is_found_and_where_to_ask(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call("corpora")
    assert code == 0 and "https://sail.usc.edu/iemocap/" in out and "zsemo fetch meld" in out and "not set" in out
    (tmp_path / "IEMOCAP_full_release").mkdir()
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    rows = {r["corpus"]: r for r in json.loads(call("corpora", "--json")[1])}
    assert rows["iemocap"]["found"] and rows["iemocap"]["folder"] == "IEMOCAP_full_release" and not rows["meld"]["found"]


def test_doctor_of_real_meld(call: Call, corpora_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(corpora_dir))
    code, out, _ = call("doctor", "meld")
    assert code == 0 and "9,989" in out
    checks = json.loads(call("doctor", "meld", "--json")[1])
    assert len(checks) > 20 and {c["status"] for c in checks} <= {"ok", "warn"}


def test_doctor_of_an_own_table(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("utterance,emotion,text\na,happy,hi\nb,sad,ho\n")
    code, out, _ = call("doctor", "mine.csv", "--json")
    assert code == 0 and {"check", "expected", "found", "status", "mend"} <= set(json.loads(out)[0])


# --- generate from recorded replies

@pytest.mark.parametrize("strategy", ["labels", "description", "scenario", "utterances", "contrast", "conversations+utterances"])
def test_generate_recorded(call: Call, tmp_path: Path, strategy: str) -> None:
    code, out, _ = call("generate", "meld", "--recorded", "--strategy", strategy, "--out", tmp_path / "made")
    assert code == 0 and "nothing was sent" in out
    corpus, lines = Corpus.load(tmp_path / "made"), pd.read_parquet(tmp_path / "made" / "lines.parquet")
    assert corpus.name == "meld_synthetic" and len(corpus) == (lines["status"] == "kept").sum() > 0
    assert set(lines["strategy"]) == set(strategy.replace("conversations", "labels+description+scenario").split("+"))


def test_generate_recorded_with_second_reading_and_json(call: Call, tmp_path: Path) -> None:
    code, out, err = call("generate", "meld", "--recorded", "--second-reading", "--json")
    told = json.loads(out)
    assert code == 0 and err == ""
    corpus = Corpus.load(tmp_path / told["folder"])
    assert told["folder"] == "runs/out/corpora/meld_synthetic" and told["utterances"] == len(corpus)
    assert corpus.table["emotion_second"].ne("").mean() > 0.9
    assert told["funnel"]["kept"] == len(corpus)
    call("generate", "meld", "--recorded", "--strategy", "labels")  # a saved corpus may be replaced
    assert set(Corpus.load(tmp_path / told["folder"]).table["strategy"]) == {"labels"}
    one_line(call("generate", "meld", "--recorded", "--strategy", "colour"), "unknown strategy 'colour'", "labels")
    assert set(Corpus.load(tmp_path / told["folder"]).table["strategy"]) == {"labels"}


# --- generate with a server

def words_for(server: Server, out: Path, *more: Any) -> tuple[Any, ...]:
    return ("generate", "meld", "--model", "fake", "--base-url", server.url, "--out", out, *more)


def test_bad_settings_of_a_server(call: Call, tmp_path: Path) -> None:
    ask = ("generate", "meld", "--model", "m", "--base-url", DEAD)
    one_line(call(*ask), f"no server answers at {DEAD}", "--base-url")
    one_line(call(*ask, "--max-cost", "1"), "needs a price")
    one_line(call(*ask, "--max-cost", "-1", "--price", "1", "1"), "price or limit")
    one_line(call(*ask, "--timeout", "-1"), "timeout")
    one_line(call(*ask, "--strategy", "colour"), "'colour'", "labels")
    one_line(call(*ask[:4], "--base-url", "nonsense"), "bad base URL")
    one_line(call(*ask[:2], "--base-url", DEAD), "--model")
    one_line(call(*ask[:4], "--base-url", "https://example.org/v1"), "no key", "OPENAI_API_KEY")
    assert not list(tmp_path.rglob("table.parquet"))
    assert not list(tmp_path.rglob("*-wal"))  # the store was closed, whatever was refused


def test_a_wrong_key_is_refused_and_never_written(
    call: Call, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve("--key", "the-right-key-0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    told = call(*words_for(server, tmp_path / "made", "--n", 3))
    one_line(told, "refuses the key", "OPENAI_API_KEY")
    assert KEY not in told[1] + told[2]  # the server repeats it
    assert holds(tmp_path, KEY) == [] and not (tmp_path / "made").exists()
    monkeypatch.setenv("OPENAI_API_KEY", "the-right-key-0123456789")
    code, out, err = call(*words_for(server, tmp_path / "made", "--n", 3))
    assert code == 0 and "3 replies asked for now" in out
    assert "the-right-key" not in out + err and holds(tmp_path, "the-right-key") == []


def test_an_unknown_model(call: Call, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--model", "another")
    one_line(call(*words_for(server, tmp_path / "made", "--n", 3)), "does not know the model 'fake'", "404")


def test_max_cost_stops_says_so_and_goes_on(call: Call, serve: Callable[..., Server], tmp_path: Path) -> None:
    server, priced = serve(), ("--n", 30, "--price", 10, 10, "--concurrency", 2, "--json")
    one_line(call(*words_for(server, tmp_path / "made", *priced, "--max-cost", "0.000001")), "no reply", "--max-cost")
    assert server.asked() == 0 and not (tmp_path / "made").exists()
    code, out, _ = call(*words_for(server, tmp_path / "made", *priced, "--max-cost", 0.025))
    first = json.loads(out)
    assert code == 0 and "stopped at --max-cost" in first["told"] and "goes on" in first["told"]
    with ReplyStore(tmp_path / "made.replies.sqlite") as store:
        assert 0 < len(store) < 30 and store.totals()["cost"] <= 0.025
        kept = len(store)
    assert server.asked() == kept and len(Corpus.load(tmp_path / "made")) == first["utterances"] == 3 * kept
    second = json.loads(call(*words_for(server, tmp_path / "made", *priced, "--max-cost", 9))[1])
    assert "stopped" not in second["told"] and f"{kept} from the store" in second["told"]
    assert server.asked() == 30 and second["utterances"] == 90


def test_second_reading_from_a_server(
    call: Call, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZSEMO_PROGRESS", "1")
    code, _, err = call(*words_for(serve(), tmp_path / "made", "--n", 3, "--second-reading"))
    corpus = Corpus.load(tmp_path / "made")
    assert code == 0 and "kept" in err and set(corpus.table["emotion_second"]) == {"neutral"}


def test_kill_9_loses_nothing_and_sends_nothing_twice(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--latency", "0.2")
    words = words_for(server, tmp_path / "made", "--n", 20, "--concurrency", 2, "--json")
    process = start(*words)
    server.until_asked(8, process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL and not (tmp_path / "made").exists()
    with ReplyStore(tmp_path / "made.replies.sqlite") as store:
        stored = len(store)
    asked = server.asked()
    assert 0 < stored < 20
    code, out, err = finish(start(*words))
    told = json.loads(out)
    assert code == 0, err
    assert server.asked() - asked == 20 - stored and f"{stored} from the store" in told["told"]
    assert told["utterances"] == len(Corpus.load(tmp_path / "made")) == 60
    assert finish(start(*words))[0] == 0 and server.asked() - asked == 20 - stored


def test_ctrl_c_says_how_to_go_on(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--latency", "0.2")
    words = words_for(server, tmp_path / "made", "--n", 20, "--concurrency", 2)
    process = start(*words)
    server.until_asked(6, process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Traceback" not in err
    assert "the same command goes on from there" in err.strip().splitlines()[-1]
    with ReplyStore(tmp_path / "made.replies.sqlite") as store:
        stored = len(store)
    asked = server.asked()
    assert stored == asked  # what was in flight was waited for
    code, out, err = finish(start(*words))
    assert code == 0, err
    assert f"{stored} from the store" in out and server.asked() == 20 and len(Corpus.load(tmp_path / "made")) == 60


# --- silver labels

SAID = ["Great! #say:positive#", "Great!  #say:positive#", "Awful. #say:Not positive#", "Well. #say:positive or negative#", "…",
        "Filtered #do:filtered#", "Broken #do:400#", "Secret. #say:positive#"]
SPLIT = ["train", "train", "train", "dev", "train", "train", "train", "test"]


def to_label(folder: Path, said: list[str] = SAID, split: list[str] = SPLIT) -> Path:
    "A saved corpus named mine."
    table = pd.DataFrame({"utterance": [f"u{i}" for i in range(len(said))], "text": said, "split": split, "emotion": "happy"})
    return Corpus("mine", table).save(folder)


def silver_words(server: Server, *more: Any) -> tuple[Any, ...]:
    return ("label", "mine", "--model", "fake", "--base-url", server.url, *more)


def test_label(call: Call, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_PROGRESS", "1")
    server = serve()
    to_label(tmp_path / "mine")
    code, out, err = call(*silver_words(server))
    assert code == 0 and "kept" in err, err  # the bar
    assert server.asked() == 5 and "Secret" not in server.log.read_text()  # equal words once, no words never, test never
    made = Corpus.load(tmp_path / "runs/out/corpora/mine_silver_sentiment")
    reasons = ["no_label", "two_labels", "no_text", "refused", "no_reply", "not_asked"]
    assert list(made.table["silver_status"]) == ["kept", "kept", *reasons]
    assert list(made.table["silver"]) == ["positive", "positive", "", "", "", "", "", ""]
    assert "mine: 2 of 8 utterances labelled in runs/out/corpora/mine_silver_sentiment" in out
    assert "labels of the corpus (rows) against silver (columns): 2 utterances, 100.0% equal" in out
    assert "4 replies asked for now, 0 from the store, 1 failed" in out and "asks again for what failed" in out
    _, out, err = call(*silver_words(server, "--json"))
    told = json.loads(out)
    assert "utterance/s" not in err, "JSON has no bar beside it"
    assert (told["utterances"], told["labelled"]) == (8, 2) and told["agreement"] == {"n": 2, "share": 1.0, "kappa": None}
    assert told["statuses"] == {"kept": 2, **dict.fromkeys(reasons, 1)}
    assert "4 from the store" in told["told"] and server.asked() == 6  # what failed is asked again


def test_label_for_emotion_goes_elsewhere(call: Call, serve: Callable[..., Server], tmp_path: Path) -> None:
    to_label(tmp_path / "mine", ["Great! #say:Joy#", "Awful. #say:frustration#"], ["", ""])
    told = json.loads(call(*silver_words(serve(), "--task", "emotion", "--json"))[1])
    assert told["folder"] == "runs/out/corpora/mine_silver_emotion" and told["statuses"] == {"kept": 1, "unknown_label": 1}
    assert list(Corpus.load(tmp_path / told["folder"]).table["silver"]) == ["happy", ""]


def test_label_with_labels_on_record(call: Call, tmp_path: Path) -> None:
    to_label(tmp_path / "mine")
    (tmp_path / "labels.csv").write_text("utterance,label,text\nu0,joy,Great! #say:positive#\nu1,anger,Other.\nu7,joy,\nx,joy,\n")
    code, out, err = call("label", "mine", "--labels", "labels.csv", "--out", "made")
    assert (code, err) == (0, "") and "nothing was sent; mine: of 4 recorded labels left out: 1 of utterances" in out
    made = Corpus.load(tmp_path / "made").table
    assert list(made["silver"]) == ["happy", *[""] * 7] and made["silver_status"][7] == "not_asked"
    again = json.loads(call("label", "mine", "--labels", "made", "--out", "more", "--json")[1])
    assert again["labelled"] == 1 and made.equals(Corpus.load(tmp_path / "more").table)
    one_line(call("label", "mine", "--labels", "made", "--task", "sentiment"), "another task")
    one_line(call("label", "mine", "--labels", "melt"), "MELT's labels were not found", "ZSEMO_CORPORA")
    assert files(tmp_path / "runs") == [] if (tmp_path / "runs").exists() else True


@pytest.mark.parametrize(("words", "parts"), [
    (("mine", "--recorded"), ("--recorded", "zsemo label --help")),
    (("mine", "--second-reading"), ("--second-reading",)),
    (("mine", "--json-mode"), ("--json-mode",)),
    (("mine", "--request", "min_p"), ("min_p",)),
    (("mine", "--labels", "melt", "--model", "m"), ("leave out --model",)),
    (("mine", "--labels", "melt", "--transcripts", "pocketsphinx"), ("leave out --model and --transcripts",)),
    (("mine", "--task", "mood", "--model", "m"), ("unknown task 'mood'", "sentiment, emotion")),
    (("nowhere",), ("no corpus 'nowhere'",)),
    (("mute",), ("has no text", "--transcripts pocketsphinx")),
    (("mine",), ("no model given", "--model")),
    (("mine", "--model", "m", "--base-url", DEAD), (f"no server answers at {DEAD}",)),
    (("mine", "--model", "m", "--base-url", DEAD, "--max-cost", "1"), ("needs a price",)),
    (("mine", "--model", "m", "--out", "thesis"), ("will not write over thesis", "--out")),
])
def test_bad_words_for_label(call: Call, tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    to_label(tmp_path / "mine")
    Corpus("mute", pd.DataFrame({"utterance": ["a"], "emotion": "happy", "text": ""})).save(tmp_path / "mute")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    one_line(call("label", *words), *parts)
    assert not list(tmp_path.rglob("*silver*/table.parquet")) and files(tmp_path / "thesis") == ["chapter.txt"]


@pytest.mark.parametrize(("words", "command"), [
    (("--silver", "mine"), "zsemo label mine"),
    (("--silver", "my corpus", "--labels", "melt"), "zsemo label 'my corpus' --labels melt"),  # options that label alone has
    (("mine", "--model", "m", "--silver", "--task", "emotion", "--n", "0"), "zsemo label mine --model m --task emotion --n 0"),
])
def test_generate_silver_calls_the_command_that_took_its_place(
    call: Call, tmp_path: Path, words: tuple[str, ...], command: str,
) -> None:
    to_label(tmp_path / "mine")
    with pytest.warns(UserWarning, match=re.escape(f"generate --silver is a command of its own; called: {command}")):
        told = call("generate", *words)
    assert told == call(*shlex.split(command)[1:])
    for option in ("--task", "--labels", "--transcripts"):
        one_line(call("generate", "meld", option, "melt"), option, "zsemo generate --help")


def test_label_stops_at_max_cost_and_goes_on(call: Call, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    to_label(tmp_path / "mine", [f"Line {i}." for i in range(30)], ["train"] * 30)
    priced = silver_words(server, "--price", 10, 10, "--concurrency", 2, "--json", "--max-cost")
    one_line(call(*priced, "0.000001"), "no utterance got a label", "'no_reply': 30", "--max-cost")
    assert server.asked() == 0
    first = json.loads(call(*priced, 0.025)[1])
    assert 0 < first["labelled"] < 30 and "stopped at --max-cost" in first["told"]
    assert first["statuses"] == {"kept": first["labelled"], "no_reply": 30 - first["labelled"]}
    second = json.loads(call(*priced, 9)[1])
    assert second["labelled"] == 30 == server.asked() and f"{first['labelled']} from the store" in second["told"]


def test_label_survives_kill_9(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--latency", "0.2")
    to_label(tmp_path / "mine", [f"Line {i}." for i in range(20)], [""] * 20)
    words = silver_words(server, "--concurrency", 2, "--json", "--out", tmp_path / "made")
    process = start(*words)
    server.until_asked(8, process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL and not (tmp_path / "made").exists()
    with ReplyStore(tmp_path / "made.replies.sqlite") as store:
        stored = len(store)
    asked = server.asked()
    assert 0 < stored < 20
    code, out, err = finish(start(*words))
    assert code == 0, err
    assert server.asked() - asked == 20 - stored and json.loads(out)["labelled"] == 20


def test_label_from_transcripts(
    call: Call, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pocketsphinx")
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))
    said = ["The weather is very good today.", "I do not want to go home.", "Nobody may hear this sentence."]
    to_label(tmp_path / "mine", said, ["train", "dev", "test"])
    assert call("speak", "mine", "--inject", "none", "--takes", 1, "--out", "spoken", "--jobs", 1)[0] == 0
    server, words = serve(), ("--transcripts", "pocketsphinx", "--out", "made")
    ask = ("label", "spoken", "--model", "fake", "--base-url", server.url, *words)
    told = json.loads(call(*ask, "--json")[1])
    made = Corpus.load(tmp_path / "made").table
    assert list(made["text_reference"]) == said[:2] and server.asked() == 2  # the test part is not even heard
    assert list(made["silver"]) == ["neutral"] * 2 and made["audio"].eq("").all()
    assert told["labelled"] == 2 and told["not_heard"] == 0 and 0 <= told["wer"] <= 1
    out = call(*ask)[1]
    assert "transcripts: 0 utterances could not be heard; word error rate" in out and "2 from the store" in out
    one_line(call("label", "mine", "--model", "fake", "--base-url", server.url, *words), "audio")


def test_label_of_meld_by_melt(call: Call, corpora_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (corpora_dir / "melt").is_dir():
        pytest.skip("no folder melt in ZSEMO_CORPORA")
    monkeypatch.setenv("ZSEMO_CORPORA", str(corpora_dir))
    told = json.loads(call("label", "meld", "--labels", "melt", "--json")[1])
    assert told["folder"] == "runs/out/corpora/meld_silver_emotion" and told["labelled"] == 7019
    assert told["statuses"]["not_asked"] == 2610 and told["agreement"]["kappa"] == pytest.approx(0.392, abs=1e-3)


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    process = start("corpora", PYTHONUNBUFFERED="1")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    assert "Traceback" not in err


# --- a stranger's first hour

def test_version(call: Call) -> None:
    code, out, _ = call("--version")
    assert code == 0 and re.fullmatch(r"zsemo_kit \d+\.\d+\.\d+\n", out)


def test_a_card_without_scenarios_needs_no_strategy(call: Call, serve: Callable[..., Server], tmp_path: Path) -> None:
    code, out, _ = call("generate", "ravdess", "--recorded", "--out", tmp_path / "made")
    assert code == 0 and "description" in out
    (tmp_path / "card.yaml").write_text(SPEAKERS + "prompt_labels: [joy, neutral]\nlabel_map: {joy: happy, neutral: neutral}")
    code, out, err = call("generate", "card.yaml", "--n", 2, "--model", "fake", "--base-url", serve().url)
    assert code == 0 and "2 replies asked for now" in out and "mine_synthetic" in out, err


@pytest.mark.parametrize("words", [("--n", 5), ("--model", "m"), ("--max-cost", 0), ("--json-mode",)])
def test_recorded_replies_take_no_option_of_a_server(call: Call, tmp_path: Path, words: tuple[Any, ...]) -> None:
    one_line(call("generate", "meld", "--recorded", *words), "--recorded asks no server", "leave out --n")
    assert files(tmp_path) == []


def test_set_chooses_among_the_runs_of_a_study(
    call: Call, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project)

    def runs(*words: str) -> set[str]:
        return set(call("run", "merits_l", "--dry-run", "--out", tmp_path, *words)[1].splitlines())
    whole = {line.split("  ")[0] for line in runs()}
    fusion = runs("--set", "stage=fusion", "--set", "seed=0")
    assert len(fusion) == 3 and {line.split("  ")[0] for line in fusion} < whole  # not the fusion that no grid asks for
    words = ("merits_l", "--set", "stage=text_1", "--set", "training=joint", "--out", tmp_path)
    one_line(call("run", *words), "no run with stage=text_1, training=joint")
    assert len(runs("--set", "seed=77")) == len(whole) / 5


def test_corpora_lists_what_others_measured(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "melt").mkdir()
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    lines = {line.split()[0]: line for line in call("corpora")[1].splitlines() if line}
    assert "found: melt" in lines["melt"] and "not found" in lines["meld_acoustic"]


def test_what_cannot_be_fetched_says_so_before_it_asks_for_a_folder(call: Call, tmp_path: Path) -> None:
    one_line(call("fetch", "iemocap"), "may not be downloaded", "https://sail.usc.edu/iemocap/")
    assert files(tmp_path) == []


def test_the_cache_is_shown_and_emptied_and_nothing_else(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    for name in ("features.sqlite", "features.sqlite-wal", "stages/text-1/model.bin", "speech/x/a.flac", "thesis/chapter.txt"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"x" * 1000)
    monkeypatch.setenv("ZSEMO_CACHE", str(cache))
    shown = json.loads(call("cache", "--json")[1])
    there = {"features": 2000, "stages": 1000, "speech": 1000}
    assert shown["bytes"] == there | dict.fromkeys(("edited", "voices", "weights"), 0) and not shown["cleared"]
    one_line(call("cache", "thesis", "--clear"), "unknown part 'thesis'", "stages")
    assert "deleted" in call("cache", "stages", "--clear")[1]
    assert files(cache) == ["features.sqlite", "features.sqlite-wal", "speech/x/a.flac", "thesis/chapter.txt"]
    assert call("cache", "--clear")[0] == 0 and files(cache) == ["thesis/chapter.txt"]
    assert str(cache) in call("cache")[1]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    "A file system of one megabyte with no room on it; only root may make one."
    place = tmp_path / "full"
    place.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if not made or made.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with contextlib.suppress(OSError):
            (place / "fill").write_bytes(b"x" * (1 << 20))
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(call: Call, full: Path) -> None:
    one_line(call("generate", "meld", "--recorded", "--out", full / "made"), "no room", "free some")
    assert files(full) == ["fill"]
    (full / "fill").unlink()
    assert call("generate", "meld", "--recorded", "--out", full / "made")[0] == 0
    assert len(Corpus.load(full / "made")) > 2000


def test_every_cache_in_use_is_shown_and_only_ones_own_is_emptied(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zsemo_kit.core import cache as caching
    shared, own = tmp_path / "shared", tmp_path / "home" / ".cache" / "zsemo_kit"
    for file, size in ((shared / "features.sqlite", 3000), (shared / "speech/a.flac", 500), (own / "features.sqlite", 200)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    (own / "stages").mkdir()
    (own / "stages" / "linked").symlink_to(shared / "speech/a.flac")
    monkeypatch.setenv("ZSEMO_CACHE", str(shared))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(caching, "_READ_ONLY", {shared})  # as a share that may only be read: root may write anywhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = json.loads(call("cache", "features", "speech", "--json")[1])
        assert shown["folders"] == {str(shared): {"features": 3000, "speech": 500}, str(own): {"features": 200, "speech": 0}}
        assert shown["bytes"] == {"features": 3200, "speech": 500} and shown["folder"] == str(shared)
        said = call("cache", "--clear")[1]
        assert said.count("deleted") == 2 and f"in {shared}, which may only be read\n" in said and f"in {own}\n" in said
    assert files(shared) == ["features.sqlite", "speech/a.flac"] and files(own) == []
