"""A real Ray cluster of two nodes on this machine, one of which is killed at work; results on a real file server."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat
import pandas as pd
import pytest

from zsemo_kit.batch import run_study
from zsemo_kit.studies import load_study
from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.remote import Remote
from zsemo_kit.synthesis import speak as speaking
from zsemo_kit.synthesis.voices import open_engine

KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
PARAMETERS = 'seed: int = 0\nwait: float = 0.0\nlog: str = ""\nout: str = ""'
WRITES = """import json, os, pathlib, time
with open(log, "a") as side: side.write(f"{seed}\\n")
time.sleep(wait)
if seed < 0: raise ValueError("a negative seed")
folder = pathlib.Path(out)
(folder / "predictions.parquet").write_bytes(b"")
threads = os.environ.get("OMP_NUM_THREADS", "")
(folder / "metrics.json").write_text(json.dumps({"seed": seed, "square": seed ** 2, "threads": threads}))"""
QUICK = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    made = cluster_utils.Cluster()
    added(made, include_dashboard=False)
    yield made
    made.shutdown()


def added(cluster: Any, **more: Any) -> Any:
    "A further node; Ray gives a raylet 30 s to start, which is not always enough on a busy machine."
    for patience in (2, 1, 0):
        try:
            return cluster.add_node(**QUICK, **more)
        except Exception:
            if not patience:
                raise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("runs/studies", "nbs/experiments"):
        (tmp_path / folder).mkdir(parents=True)
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(WRITES)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), tmp_path / "nbs/experiments/toy.ipynb")
    return tmp_path


def study(root: Path, seeds: list[int], wait: float = 0.0, more: str = "") -> None:
    grid = f"notebook: toy\nparameters: {{wait: {wait}, log: {root / 'log.txt'}}}\ngrid: {{seed: {seeds}}}\n{more}"
    (root / "runs/studies/toy.yaml").write_text(grid)


def go(root: Path, out: Path | str, runner: Any = None):
    return run_study(load_study("toy", root), root=root, out=out, runner=runner, find=lambda n: None, fetch=print)


def metrics(folder: Path) -> dict[str, dict[str, Any]]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/metrics.json") if "." not in p.parent.name}


def started(root: Path) -> list[int]:
    log = root / "log.txt"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def at_work(root: Path) -> int:
    return len(started(root)) - len(metrics(root / "out/toy")) - len(list((root / "out/toy").glob("*.failed")))


def on_ray(jobs: list[Any]) -> Iterator[Any]:
    from zsemo_kit.cluster import connected, run_on
    with connected() as ray:
        yield from run_on(ray, jobs)


def test_a_node_that_dies_loses_no_finished_run_and_the_rest_is_as_on_one_machine(
    root: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study(root, [0, 1, -2, 3, 4, 5], wait=3.0)
    node = added(cluster)
    found: list[Any] = []
    work = Thread(target=lambda: found.append(go(root, root / "out", on_ray)))
    work.start()
    until = time.monotonic() + 90
    before: dict[str, Any] = {}
    failed: list[Path] = []  # the node may not die while it works on the one that fails: that would be tried again, and rightly
    while time.monotonic() < until and not (before and failed and at_work(root) == 2):  # one on each node
        time.sleep(0.05)
        before, failed = metrics(root / "out/toy"), list((root / "out/toy").glob("*.failed"))
    assert before and at_work(root) == 2
    cluster.remove_node(node, allow_graceful=False)
    work.join(120)
    outcome = found[0]
    assert (outcome.finished, list(outcome.failed.values())) == (5, ["ValueError: a negative seed"])
    runs = started(root)
    assert runs.count(-2) == 1, "a notebook that fails is not tried again"
    assert all(runs.count(m["seed"]) == 1 for m in before.values()), "what was finished is not run again"
    assert len(runs) > 6, "what the dead node was doing is run again"
    assert not list((root / "out/toy").glob("*.partial-*"))
    here = go(root, root / "local")
    assert here.ids == outcome.ids and metrics(root / "out/toy") == metrics(root / "local/toy")
    again = go(root, root / "out", on_ray)
    assert (again.skipped, again.finished) == (5, 0)
    told = capfd.readouterr()
    assert "raylet" not in told.out + told.err and "Traceback" not in told.err


def test_speech_made_on_two_nodes_of_which_one_dies_is_that_of_one_machine(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zsemo_kit.cluster import connected, spread_on
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setattr(speaking, "_SHARD", 4)
    rows = [(f"u{i}{e}", f"d{i}", f"Sentence number {i} of them is said here.", e) for i in range(20) for e in ("happy", "sad")]
    rows.append(("odd", "x", "...", "sad"))
    corpus = Corpus("toy", pd.DataFrame(rows, columns=["utterance", "dialogue", "text", "emotion"]))
    local = speaking.speak(corpus, open_engine("espeak"), tmp_path / "local")
    node, lost = added(cluster), []

    def killing(work: Any, shards: Any) -> Iterator[Any]:
        assert len(shards) == 10
        for n, made in enumerate(spread(work, shards)):
            yield made
            if n == 1:
                cluster.remove_node(node, allow_graceful=False)
                lost.append(node)

    with connected() as ray:
        spread = spread_on(ray)
        far = speaking.speak(corpus, open_engine("espeak"), tmp_path / "far", spread=killing)
    assert lost and far.seconds == local.seconds
    assert far.corpus.table.equals(local.corpus.table) and far.problems.equals(local.problems) and len(far.problems) == 1
    files = {p.relative_to(tmp_path / "local"): p.read_bytes() for p in (tmp_path / "local").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "far"): p.read_bytes() for p in (tmp_path / "far").rglob("*") if p.is_file()}


def test_a_node_with_other_code_is_refused(root: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    shutil.copytree(project / "zsemo_kit", root / "old/zsemo_kit", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "old/zsemo_kit/batch.py").open("a").write("# an older version\n")
    # Ray lets a worker import from the folder that this process works in, which would hide the other version
    monkeypatch.chdir(root)
    node = added(cluster, env_vars={"PYTHONPATH": str(root / "old")})
    study(root, [0])
    try:
        with pytest.raises(InputError, match=r"the node .* has zsemo_kit \w+ instead of \w+; install the same versions"):
            go(root, root / "out", on_ray)
    finally:
        cluster.remove_node(node)
    assert not started(root)


def test_runs_that_no_node_can_hold_are_refused(root: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    study(root, [0], more="resources: {gpus: 1}\n")
    with pytest.raises(InputError, match="no node is large enough for a run; expected one with 1 CPUs, 1 GPUs"):
        go(root, root / "out", on_ray)


@pytest.mark.parametrize(("environment", "modules", "told"), [
    ({"RAY_ADDRESS": "127.0.0.1:1"}, {}, "zsemo: no Ray cluster at 127.0.0.1:1; expected host:port of its head, or auto"),
    ({}, {"ray": None}, "zsemo: Ray is missing; pip install 'zsemo_kit[cluster]'"),
])
def test_what_is_missing_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    environment: dict[str, str], modules: dict[str, None], told: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(root)
    study(root, [0])
    with pytest.raises(SystemExit) as stopped:
        main(["run", "toy", "--engine", "ray"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith(told) and len(said.splitlines()) == 1
    with pytest.raises(SystemExit):
        main(["run", "toy", "--engine", "slurm"])
    assert "unknown engine 'slurm'; expected local or ray" in capsys.readouterr().err


def test_ray_is_imported_by_nothing_that_does_not_use_it() -> None:
    code = "import sys, zsemo_kit.cli, zsemo_kit.batch, zsemo_kit.cluster; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer
    home = tmp_path / "server"
    home.mkdir()
    authorizer = DummyAuthorizer()
    authorizer.add_user("me", "s3cret", str(home), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    ftp = ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=ftp.serve_forever, daemon=True)
    thread.start()
    yield f"ftp://me:s3cret@127.0.0.1:{ftp.address[1]}/runs", home / "runs"
    ftp.close_all()
    thread.join(10)


def test_runs_go_to_a_server_whole_and_are_not_repeated(root: Path, server: tuple[str, Path]) -> None:
    url, there = server
    study(root, [0, 1, -1])
    first = go(root, url)
    assert (first.finished, first.skipped, len(first.failed)) == (2, 0, 1)
    assert Remote(url).finished("toy") == set(metrics(there / "toy")) == set(metrics(first.folder))
    assert len(list((there / "toy").glob("*.failed/log.txt"))) == 1
    good = [i for i in first.ids if (first.folder / i).exists()]
    assert all((there / "toy" / i / f.name).read_bytes() == f.read_bytes() for i in good for f in (first.folder / i).iterdir())
    study(root, [0, 1])
    (there / "toy" / good[0] / "metrics.json").unlink()  # an upload that was cut off: the run is here, and goes there
    assert (go(root, url).skipped, started(root).count(0)) == (2, 1) and len(Remote(url).finished("toy")) == 2
    shutil.rmtree(root / ".zsemo")  # another machine
    assert (go(root, url).skipped, len(started(root))) == (2, 3)
    (there / "toy" / good[0] / "metrics.json").write_text('{"seed": ')
    shutil.rmtree(root / ".zsemo")
    again = go(root, url)
    assert (again.skipped, again.finished) == (1, 1) and metrics(there / "toy")[good[0]]["seed"] == 0


def test_runs_of_nodes_without_a_common_folder_go_to_a_server(
    root: Path, server: tuple[str, Path], cluster: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    study(root, [0, -1])
    outcome = go(root, server[0], on_ray)
    assert (outcome.finished, list(outcome.failed.values())) == (1, ["ValueError: a negative seed"])
    assert len(metrics(server[1] / "toy")) == 1 == len(metrics(outcome.folder))


def test_a_password_is_never_shown(root: Path, server: tuple[str, Path], capsys: pytest.CaptureFixture[str],
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    study(root, [0], more="scored: false\n")
    for url in (server[0].replace("s3cret", "wr0ng"), server[0]):
        with pytest.raises(SystemExit) as stopped:
            main(["run", "toy", "--out", url])
        said = "".join(capsys.readouterr())
        assert "wr0ng" not in said and "s3cret" not in said
        assert stopped.value.code == (2 if "wr0ng" in url else 0)
        assert "wr0ng" in url or "1 finished" in said
        assert "wr0ng" not in url or said.startswith("zsemo: cannot use ftp://…@127.0.0.1")
    for file in [*(root / ".zsemo").rglob("*"), *server[1].rglob("*")]:
        assert not file.is_file() or b"s3cret" not in file.read_bytes()


def test_features_made_on_nodes_are_those_of_one_machine(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zsemo_kit.cluster import connected, encode_on
    from zsemo_kit.core.cache import FeatureCache
    from zsemo_kit.training.speech_encoder import SpeechEncoder
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))
    rows = [(f"u{i}", f"d{i}", f"Number {i} is said here.", "sad") for i in range(5)]
    corpus = Corpus("toy", pd.DataFrame(rows, columns=["utterance", "dialogue", "text", "emotion"]))
    speaking.speak(corpus, open_engine("espeak"), tmp_path / "toy")
    with connected() as ray:
        assert encode_on(ray, str(tmp_path / "toy"), "four", "egemaps") == 5
    here = SpeechEncoder.load("egemaps")
    here.means(Corpus.load(tmp_path / "toy"))
    everything = [c.run(lambda con: sorted(con.execute("SELECT * FROM features"))) for c in
                  (FeatureCache(tmp_path / "cache"), here.cache)]
    assert len(everything[0]) == 5 and everything[0] == everything[1]
