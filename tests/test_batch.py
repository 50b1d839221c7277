"""Batches: checked before they start, resumable after a kill, honest about failures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from zsemo_kit.batch import Job, Study, code_of, expand, load_study, resolve_corpora, run_study
from zsemo_kit.corpora.table import InputError

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
    return run_study(load_study("toy", root), root=root, workers=workers, find=lambda n: None, fetch=no_fetch, progress=False)


@pytest.mark.parametrize(("study", "message"), [
    ("notebook: toy\nparameters: {sead: 1}", "unknown parameter 'sead'"),
    ("notebook: toy\ngrid: {seed: ['1']}", "expected int"),
    ("notebook: toy\ngrid: {seed: [true]}", "expected int"),
    ("notebook: toy\nparameters: {out: /etc}", "unknown parameter 'out'"),
    ("notebook: toy\nparameters: {name: 3}", "expected str"),
    ("notebook: toy\nmetric: accuracy", "unknown metric; expected one of uar, wa"),
    ("notebook: toy\nmetric: [uar]", "bad field 'metric'"),
    ("notebook: toy\ncompare: {against: {seed: 0}}", "bad field 'compare'"),
    ("notebook: toy\ncompare: [{row: {seed: 1}}]", "bad pair in 'compare'"),
    ("notebook: toy\ncompare: [{row: {seed: 1}, against: 0}]", "bad pair in 'compare'"),
    ("notebook: toy\ncompare: [{rows: {seed: 1}, against: {seed: 0}}]", "bad pair in 'compare'"),
    ("notebook: toy\ncompare: [seed]", "bad pair in 'compare'"),
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
        "from pathlib import Path\nfrom zsemo_kit.batch import load_study, run_study\n"
        f"root = Path({str(root)!r})\n"
        "run_study(load_study('toy', root), root=root, find=lambda n: None, fetch=print, progress=False)"
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
    assert {"fit.py", "loop.py", "heads.py", "labels.py", "table.py"} <= used and not {"cli.py", "batch.py"} & used


def test_a_misspelt_corpus_is_refused_and_not_left_out(root: Path) -> None:
    with pytest.raises(InputError, match="no corpus 'meld_sinthetic'; expected one of meld, "):
        resolve_corpora(Study("toy", "toy"), [{"source": "meld_sinthetic", "target": "meld"}], find=lambda n: None, fetch=str)
