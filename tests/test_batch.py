"""Batches: checked before they start, resumable after a kill, honest about failures."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from zsemo_kit import batch
from zsemo_kit.batch import Job, jobs_of, resolve_corpora, run_study
from zsemo_kit.run_notebooks import code_of
from zsemo_kit.studies import Study, expand, load_study
from zsemo_kit.core.errors import InputError

KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
WRITES = """import json, pathlib, time
time.sleep(wait)
if seed < 0: raise ValueError("a negative seed")
folder = pathlib.Path(out)
(folder / "predictions.parquet").write_bytes(b"")
(folder / "metrics.json").write_text(json.dumps({"seed": seed, "study": study, "run_id": run_id}))"""
PARAMETERS = 'seed: int = 0\nwait: float = 0.0\nname: str = "x"\nstudy: str = ""\nrun_id: str = ""\nout: str = ""'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("runs/studies", "nbs/experiments"):
        (tmp_path / folder).mkdir(parents=True)
    write_notebook(tmp_path, WRITES)
    return tmp_path


def write_notebook(root: Path, source: str, tags: tuple[str, ...] = ("parameters",)) -> None:
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": list(tags)}), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), root / "nbs/experiments/toy.ipynb")


def write_study(root: Path, text: str) -> None:
    (root / "runs/studies/toy.yaml").write_text(text)


def go(root: Path, workers: int = 1):
    def no_fetch(name: str) -> None:
        raise InputError(f"{name} cannot be downloaded")
    return run_study(load_study("toy", root), root=root, workers=workers, find=lambda n: None, fetch=no_fetch)


@pytest.mark.parametrize(("study", "message"), [
    ("notebook: toy\nparameters: {sead: 1}", "unknown parameter 'sead'"),
    ("notebook: toy\ngrid: {seed: ['1']}", "expected int"),
    ("notebook: toy\ngrid: {seed: [true]}", "expected int"),
    ("notebook: toy\nparameters: {out: /etc}", "unknown parameter 'out'"),
    ("notebook: toy\nparameters: {name: 3}", "expected str"),
    ("notebook: toy\nmetric: accuracy", "bad 'metric'; expected one of uar, wa"),
    ("notebook: toy\nmetric: [uar]", "bad 'metric'"),
    ("notebook: toy\ncompare: {against: {seed: 0}}", "bad 'compare'; expected a valid list"),
    ("notebook: toy\ncompare: [{row: {seed: 1}}]", "bad 'compare.0'; expected {row"),
    ("notebook: toy\ncompare: [{row: {seed: 1}, against: 0}]", "bad 'compare.0.against'; expected a valid dictionary"),
    ("notebook: toy\ncompare: [{rows: {seed: 1}, against: {seed: 0}}]", "bad 'compare.0'; expected {row"),
    ("notebook: toy\ncompare: [seed]", "bad 'compare.0'; expected a valid dictionary"),
    ("notebook: toy\ncompare: [{against: {}}]", "bad 'compare.0'"),
    ("notebook: toy\nname: other", "named by its file"),
    ("notebook: toy\nparameters: {name: 2026-01-01}", "bad 'parameters.name"),
    ("notebook: toy\ngrid: {seed: [.nan]}", "expected"),
    ("notebook: toy\nparameters: {wait: .inf}", "bad 'parameters.wait'; expected Out of range float values"),
    ("notebook: toy\nresources: {cpus: 0.5}", "bad 'resources.cpus'"),
    ("notebook: toy\npublish: 1", "bad 'publish'; expected a valid boolean"),
    ("notebook: toy\ncompare: [{row: {sead: 1}, against: {seed: 0}}]", "'compare' names 'sead'"),
    ("notebook: nowhere", "no notebook 'nowhere'"),
    ("notebook: [toy", "is not readable YAML"),
    ("- toy", "expected a mapping"),
    ("notebook: toy\ngrid: {seed: !!python/object/apply:os.system ['true']}", "is not readable YAML"),
])
def test_a_bad_study_is_refused_before_any_kernel_starts(root: Path, study: str, message: str) -> None:
    write_study(root, study)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        go(root)
    assert not (root / "runs/out").exists()


def test_a_study_says_what_its_report_is_about(root: Path) -> None:
    write_study(root, "notebook: toy\nmetric: weighted_f1\ncompare: [{row: {name: b}, against: {name: a}}, {against: {wait: 0}}]")
    study = load_study("toy", root)
    assert study.metric == "weighted_f1" and study.compare[1] == {"against": {"wait": 0}}
    assert go(root).finished == 1
    write_study(root, "notebook: toy")
    assert (load_study("toy", root).metric, load_study("toy", root).compare) == ("uar", [])


def test_a_notebook_without_the_parameters_tag_is_refused(root: Path) -> None:
    write_notebook(root, WRITES, tags=())
    write_study(root, "notebook: toy")
    with pytest.raises(InputError, match="0 cells tagged 'parameters'"):
        go(root)


def test_failures_are_named_and_the_rest_goes_on(root: Path) -> None:
    write_study(root, "notebook: toy\ngrid: {seed: [-1, 0, 1]}")
    outcome = go(root)
    assert (outcome.finished, outcome.skipped) == (2, 0)
    assert [why for why in outcome.failed.values()] == ["ValueError: a negative seed"]
    failed = next(outcome.folder.glob("*.failed"))
    assert "a negative seed" in (failed / "log.txt").read_text()
    assert (failed / "notebook.ipynb").is_file()


def test_a_notebook_that_writes_no_metrics_has_failed(root: Path) -> None:
    write_notebook(root, "seed")
    write_study(root, "notebook: toy")
    assert list(go(root).failed.values()) == ["the notebook ended without writing metrics.json and predictions.parquet"]


def test_parameters_reach_the_notebook_and_two_workers_give_the_same_runs(root: Path) -> None:
    write_study(root, "notebook: toy\ngrid: {seed: [3, 4]}")
    outcome = go(root, workers=2)
    assert outcome.finished == 2
    metrics = [json.loads((outcome.folder / i / "metrics.json").read_text()) for i in outcome.ids]
    assert [(m["seed"], m["study"], m["run_id"]) for m in metrics] == [(3, "toy", outcome.ids[0]), (4, "toy", outcome.ids[1])]
    assert go(root).skipped == 2


def test_a_killed_batch_loses_no_finished_run_and_shows_no_half_run(root: Path) -> None:
    write_study(root, "notebook: toy\ngrid: [{seed: [0]}, {seed: [1], wait: [60.0]}]")
    script = (
        "from pathlib import Path\nfrom zsemo_kit.batch import run_study\nfrom zsemo_kit.studies import load_study\n"
        f"root = Path({str(root)!r})\n"
        "run_study(load_study('toy', root), root=root, find=lambda n: None, fetch=print)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    out = root / "runs/out/toy"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (len(done(out)) == 1 and any(out.glob("*.partial-*"))):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(done(out)) == 1
    write_study(root, "notebook: toy\ngrid: [{seed: [0, 2]}]")
    outcome = go(root)
    assert (outcome.skipped, outcome.finished) == (1, 1)
    assert not list(out.glob("*.partial-*"))


def done(out: Path) -> list[Path]:
    return [p for p in out.glob("*") if "." not in p.name and (p / "metrics.json").is_file()]


def test_run_ids_change_with_what_determines_the_result(root: Path) -> None:
    write_study(root, "notebook: toy")
    first = go(root).ids
    write_notebook(root, WRITES + "\n# another source")
    assert go(root).ids != first
    assert go(root).skipped == 1


def test_every_committed_study_fits_its_notebook(project: Path) -> None:
    from zsemo_kit.batch import jobs_of

    for path in sorted((project / "runs/studies").glob("*.yaml")):
        study = load_study(path.stem, project)
        jobs = jobs_of(study, expand(study), project, project / "runs/out")
        assert jobs and all(isinstance(j, Job) for j in jobs), path.name


def alive(folder: Path) -> list[str]:
    "Processes that work in a folder: a batch, its workers, their kernels."
    found = []
    for process in psutil.process_iter(["cwd", "status", "cmdline"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or []))
    return found


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_a_batch_of_several_processes_ends_at_once_and_leaves_none_behind(root: Path, how: str) -> None:
    write_study(root, "notebook: toy\nparameters: {wait: 600}\ngrid: {seed: [0, 1, 2, 3, 4, 5]}")
    script = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
              "from zsemo_kit.cli import main\nmain(['run', 'toy', '--jobs', '2'])")
    batch = subprocess.Popen([sys.executable, "-c", script], cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True)
    kernels: list[str] = []
    end = time.monotonic() + 300
    while len(kernels) < 2 and time.monotonic() < end and batch.poll() is None:
        time.sleep(0.2)
        kernels = [words for words in alive(root) if "ipykernel" in words]
    assert len(kernels) == 2
    if how == "Ctrl-C":
        os.killpg(batch.pid, signal.SIGINT)  # as a terminal does: to all of them
    else:
        batch.kill()
    _, err = batch.communicate(timeout=300)
    assert batch.returncode == (130 if how == "Ctrl-C" else -signal.SIGKILL)
    assert "Traceback" not in err and ("goes on from there" in err) == (how == "Ctrl-C")
    end = time.monotonic() + 60
    while alive(root) and time.monotonic() < end:
        time.sleep(0.2)
    assert alive(root) == []
    assert not list((root / "runs/out/toy").glob("*.failed")) and not list((root / "runs/out/toy").rglob("metrics.json"))


def test_a_changed_module_makes_a_run_stale_however_it_is_imported(project: Path) -> None:
    used = {path.name for path in code_of(project / "nbs/experiments/zero_shot_text.ipynb")}
    assert {"zero_shot.py", "classifier.py", "loop.py", "heads.py", "labels.py", "table.py"} <= used
    assert not {"run.py", "main.py", "batch.py", "studies.py", "merits_l.py"} & used


def test_a_misspelt_corpus_is_refused_and_not_left_out(root: Path) -> None:
    with pytest.raises(InputError, match=r"no corpus 'meld_sinthetic'; expected one of .*; did you mean meld_synthetic\?"):
        resolve_corpora(Study("toy", "toy"), [{"source": "meld_sinthetic", "target": "meld"}], find=lambda n: None, fetch=str)


def toy(root: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda raw: None, form: str = "{}") -> None:
    "The toy notebook, its JSON edited, and its text put into `form`."
    raw = json.loads((root / "nbs/experiments/toy.ipynb").read_text())
    raw = edit(raw) or raw
    (root / "nbs/experiments/toy.ipynb").write_bytes(form.replace("{}", json.dumps(raw, indent=1)).encode())


def of_format_3(raw: dict[str, Any]) -> dict[str, Any]:
    book = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=[
        nbformat.v3.new_code_cell(input="".join(c["source"]), metadata=c["metadata"]) for c in raw["cells"]])])
    return json.loads(nbformat.v3.writes_json(book))


def without_ids(raw: dict[str, Any]) -> None:
    for cell in raw["cells"]:
        del cell["id"]


def bare(raw: dict[str, Any]) -> None:
    del raw["metadata"]
    for cell in raw["cells"][1:]:
        del cell["metadata"]


def in_words(*words: str) -> Callable[[dict[str, Any]], None]:
    def edit(raw: dict[str, Any]) -> None:
        raw["cells"][1]["source"] = [f"{word}\n" for word in words] + list(raw["cells"][1]["source"])
    return edit


FORMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no metadata": (lambda raw: raw.update(metadata={}), "{}"),
    "not even the field": (bare, "{}"),
    "a kernel of one's own": (lambda raw: raw.update(metadata={"kernelspec": {"name": "env", "display_name": "Mine"}}), "{}"),
    "a language without a kernel": (lambda raw: raw.update(metadata={"language_info": {"name": "python"}}), "{}"),
    "an old name of the language": (lambda raw: raw.update(metadata={"kernelspec": {"name": "py", "language": "Python3"}}), "{}"),
    "format 4.0": (lambda raw: without_ids(raw) or raw.update(nbformat_minor=0), "{}"),
    "format 4.5 without ids": (without_ids, "{}"),
    "a later minor": (lambda raw: raw.update(nbformat_minor=9), "{}"),
    "format 3": (of_format_3, "{}"),
    "a byte order mark": (lambda raw: None, "\ufeff{}"),
    "a magic": (in_words("%load_ext autoreload", "!true", "import json"), "{}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_notebook_of_any_editor_is_understood(root: Path, form: str) -> None:
    from zsemo_kit.run_notebooks import code_of, parameters_of, read_notebook
    book = root / "nbs/experiments/toy.ipynb"
    toy(root, *FORMS[form])
    if form == "no metadata":
        book.write_bytes(book.read_bytes().replace(b"\n", b"\r\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parameters_of(book)["wait"] == 0.0 and code_of(book) == [] and all(c.id for c in read_notebook(book).cells)


def test_a_run_starts_this_python_whatever_kernel_stands_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Also without metadata, with a relative cache, and in a folder whose name papermill would fill in."
    strange = tmp_path / "a {seed} b" / "project"
    for folder in ("runs/studies", "nbs/experiments"):
        (strange / folder).mkdir(parents=True)
    other = tmp_path / "jupyter/kernels/python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "other", "language": "R"}')
    write_notebook(strange, WRITES.replace('"seed": seed', '"exe": sys.executable, "cache": os.environ["ZSEMO_CACHE"]')
                   .replace("import json", "import os, sys, json"))
    toy(strange, lambda raw: raw.update(metadata={}), "\ufeff{}")
    write_study(strange, "notebook: toy")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("ZSEMO_CACHE", "here")
    monkeypatch.chdir(tmp_path)
    outcome = go(strange)
    assert not outcome.failed
    made = json.loads((outcome.folder / outcome.ids[0] / "metrics.json").read_text())
    assert made["exe"] == sys.executable and made["cache"] == str(tmp_path / "here")
    assert sorted(p.name for p in outcome.folder.iterdir()) == outcome.ids, "no lock is left"


@pytest.mark.parametrize(("edit", "told"), [
    (lambda raw: raw.update(metadata={"kernelspec": {"name": "mine", "language": "R"}}), "toy.ipynb is in R; expected"),
    (lambda raw: raw.update(metadata={"kernelspec": {"name": "ir", "display_name": "R"}}), "toy.ipynb is in R"),
    (lambda raw: raw.update(metadata={"kernelspec": {"name": "julia-1.10"}}), "toy.ipynb is in Julia"),
    (lambda raw: raw["cells"][1].update(source=["x <- c(1, 2\n"]), "holds code that is not Python"),
    (lambda raw: raw["cells"][0].update(source=["seed: int = 1 +\n"]), "holds code that is not Python"),
    (lambda raw: raw["cells"][0].update(source=["seed = int(3)\n"]), "parameter 'seed'; expected a plain value.*found int"),
    (lambda raw: {"rows": [1]}, "0 cells tagged 'parameters'"),
    (lambda raw: {**raw, "cells": [7]}, "toy.ipynb cannot be read; expected a Jupyter notebook"),
    (lambda raw: [1], "toy.ipynb cannot be read; expected a Jupyter notebook"),
])
def test_what_is_no_notebook_in_python_is_one_line(root: Path, edit: Callable[[Any], Any], told: str) -> None:
    toy(root, edit)
    write_study(root, "notebook: toy")
    with pytest.raises(InputError, match=told) as e:
        go(root)
    assert "\n" not in str(e.value) and not (root / "runs/out").exists()
    (root / "nbs/experiments/toy.ipynb").write_bytes(b"\xff\xfe\x00not json")
    with pytest.raises(InputError, match=r"toy.ipynb cannot be read"):
        go(root)


def jobs(root: Path, *seeds: int) -> list[Job]:
    write_study(root, f"notebook: toy\ngrid: {{seed: {list(seeds)}}}")
    study = load_study("toy", root)
    return jobs_of(study, expand(study), root, root / "runs/out")


def in_place_of_papermill(monkeypatch: pytest.MonkeyPatch, wait: float = 0.0) -> list[int]:
    "Runs that write their seed, without a kernel; which were executed."
    done: list[int] = []

    def run(job: Job, work: Path) -> None:
        done.append(job.parameters["seed"])
        time.sleep(wait)
        if job.parameters["seed"] < 0:
            raise ValueError("a negative seed")
        for name in ("predictions.parquet", "metrics.json"):
            (work / name).write_text("{}")
    monkeypatch.setattr(batch, "_papermill", run)
    return done


def test_two_commands_share_the_runs_of_a_study(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = in_place_of_papermill(monkeypatch, 0.2)
    write_study(root, "notebook: toy\ngrid: {seed: [0, 1, 2, 3, -1]}")
    with ThreadPoolExecutor(3) as pool:
        outcomes = [f.result() for f in [pool.submit(go, root) for _ in range(3)]]
    assert sorted(done) == [-1, 0, 1, 2, 3], "no run is done twice, not even one that fails"
    for outcome in outcomes:
        assert outcome.finished + outcome.skipped == 4 and list(outcome.failed.values()) == ["ValueError: a negative seed"]
    assert sorted(p.suffix for p in outcomes[0].folder.iterdir()) == ["", "", "", "", ".failed"]
    assert go(root).failed and sorted(done) == [-1, -1, 0, 1, 2, 3], "a later command tries what failed once more"


def test_a_run_that_another_process_holds_is_waited_for_and_taken_over_when_that_dies(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    done, (first, second) = in_place_of_papermill(monkeypatch), jobs(root, 0, 1)
    first.folder.mkdir(parents=True)
    script = (f"import time\nfrom pathlib import Path\nfrom filelock import FileLock\nfolder = Path({str(first.folder)!r})\n"
              f"with FileLock(folder / '.{first.id}-{batch._HOST}.lock'):\n"
              f"    (folder / '{first.id}.partial-{batch._HOST}-1').mkdir()\n    print('held', flush=True)\n    time.sleep(600)")
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    assert batch.execute(first, wait=False) is None
    batch._sweep(first.folder)
    assert list(first.folder.glob("*.partial-*")), "what a living process works on is left alone"
    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(batch.run_jobs, [first, second])
        until = time.monotonic() + 60
        while not second.done and time.monotonic() < until:
            time.sleep(0.05)
        assert done == [1] and not mine.done()
        other.kill()
        assert mine.result(60) == {} and done == [1, 0]
    other.wait()
    other.stdout.close()
    assert "1 runs are under way in another command: waiting for them" in capsys.readouterr().err
    batch._sweep(first.folder)
    assert sorted(p.name for p in first.folder.iterdir()) == sorted([first.id, second.id])


def test_a_disc_without_locks_loses_no_living_run_and_another_machine_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, (job,) = in_place_of_papermill(monkeypatch), jobs(root, 0)
    far = job.folder / f"{job.id}.partial-far_away-123"
    far.mkdir(parents=True)

    def no_lock(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")
    with monkeypatch.context() as without:
        without.setattr(batch.FileLock, "acquire", no_lock)
        near = job.folder / f"{job.id}.partial-{batch._HOST}-1"
        near.mkdir()
        batch._sweep(job.folder)
        assert near.exists() and far.exists()
        os.utime(near, (0, 0))
        batch._sweep(job.folder)
        assert not near.exists() and far.exists(), "nothing was written there for a day"
    assert go(root).told == ["1 of these runs seem to be under way on far_away; they are done here as well"]
    assert done == [0] and not far.exists()
