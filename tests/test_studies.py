"""Every committed study, made small: it runs, writes what the report needs, and is honest about what it was scored on."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from zsemo_kit.studies import load_study
from zsemo_kit.cli import main
from zsemo_kit.corpora.table import SPACES

PATIENCE = 1800  # seconds; no test fails because the machine is busy
KEYS = {
    "study", "run_id", "system", "modality", "source", "target", "space", "seed", "transductive", "n_train", "n_dev", "n_test",
    "uar", "uar_low", "uar_high", "wa", "macro_f1", "weighted_f1", "recall", "seconds",
}
PAIR = {"source": "meld_synthetic", "target": "iemocap_synthetic", "seed": "0"}
HEARD = {"takes": "1", "seed": "0", "size": "120"}
CONVERSED = {**PAIR, "target": "msp_podcast_synthetic", "size": "200", "second_reading": "none", "epochs": "1", "precision": "no"}
ASKED = {
    **HEARD, "source": "nemo_synthetic", "target": "emodb_synthetic", "space": "four", "folds": "0", "epochs": "1", "batch": "16",
}
EXPLAINED = {**ASKED, "kind": "EGPSVT", "aligning": "1", "describing": "1", "size": "60"}
SMALL: dict[str, dict[str, str]] = {
    "zero_shot_text": {  # this sample has all seven classes in train and dev
        **PAIR, "target": "msp_podcast_synthetic", "space": "seven", "size": "300", "second_reading": "none",
    },
    "zero_shot_text_ablation": {**PAIR, "strategy": "conversations+utterances", "second_reading": "soft", "size": "200"},
    "zero_shot_text_curve": {**PAIR, "size": "[100, 200]"},
    "zero_shot_text_finetuned": {**PAIR, "target": "msp_podcast_synthetic", "size": "100", "epochs": "1"},
    "zero_shot_text_recipe": {
        "source": "iemocap_synthetic+msp_podcast_synthetic", "target": "meld_synthetic", "seed": "0", "size": "200",
        "strategy": "conversations", "second_reading": "agreed",
    },
    "zero_shot_text_heads": {**PAIR, "classifier": "conv", "size": "200", "epochs": "2"},
    "zero_shot_speech": {"source": "nemo_synthetic", "target": "emodb_synthetic", "normalisation": "speaker", **HEARD},
    "zero_shot_speech_ablation": {
        "source": "ravdess_synthetic", "target": "nemo_synthetic", "inject": "prosody", "profile": "documented",
        "conditions": "random", "own_terms": "trim+level+tilt", **HEARD,
    },
    "zero_shot_speech_upstreams": {"source": "nemo_synthetic", "target": "emodb_synthetic", "steps": "20", **HEARD},
    "merits_l": {
        **CONVERSED, "stage": "text_2", "silver": "iemocap_synthetic", "training": "hierarchical", "space": "four",
        "silver_epochs": "1",
    },
    "merits_l_ablation": {**CONVERSED, "stage": "text_2", "silver": "none", "causal": "true", "context": "0", "space": "four"},
    "merits_l_zero_shot": {**CONVERSED, "stage": "[text_1, text_2]", "normalisation": "source"},
    "merits_l_iemocap": {**CONVERSED, "stage": "text_1", "silver": "none", "training": "hierarchical", "fold": "official"},
    "merits_l_mosi": {
        **CONVERSED, "stage": "text_1", "silver": "none", "training": "hierarchical", "fold": "official", "space": "sentiment",
    },
    "semollm": {**EXPLAINED, "classifier": "speechllm", "edits": "2"},
    "semollm_answers": {**EXPLAINED, "kind": "EP", "aligning": "0", "edits": "0"},
    "semollm_iemocap": {**EXPLAINED, "classifier": "speechllm", "edits": "0", "describing": "0"},
    "semollm_msp_improv": {**ASKED, "kind": "E", "aligning": "0", "describing": "0", "edits": "0", "classifier": "logistic"},
    "emosllm": {**ASKED, "classifier": "speechllm", "reads": "features", "listening": "1", "size": "60"},
    "emosllm_iemocap": {**ASKED, "classifier": "speechllm", "reads": "transcript+features", "listening": "0", "size": "60"},
    "demo_speech": {"source": "nemo_synthetic", "target": "emodb_synthetic", "inject": "[none, prosody]", **HEARD},
    "corpus_datasheet": {
        "source": "meld_synthetic", "target": "none", "space": "four", "real": "none", "heard": "40", "listened": "8",
    },
}
ELSEWHERE = {"demo"}  # has tests of its own below
GOLDEN = Path(__file__).with_name("golden.json")  # what these studies measure; `pytest tests/test_studies.py --record` makes it
GOLDEN_KEYS = ("n_train", "n_dev", "n_test", "uar", "wa", "macro_f1", "weighted_f1", "recall")
GOLDEN_SLACK = 0.05  # where floats round otherwise, a few of some hundred guesses flip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    "A project of its own, so that no result and no figure of the checkout is touched; features are shared by its runs."
    root = tmp_path_factory.mktemp("project")
    for folder in ("runs/studies", "nbs/experiments"):
        shutil.copytree(project / folder, root / folder)
    return root


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ZSEMO_CORPORA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZSEMO_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def overrides(values: dict[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def check_run(folder: Path, study: str, target: str) -> dict[str, Any]:
    "One run's files: keys, ranges, columns, and figures that agree with each other."
    for name in ("params.json", "environment.json", "notebook.ipynb", "log.txt"):
        assert (folder / name).is_file(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) >= KEYS
    labels = SPACES[metrics["space"]]
    assert (metrics["study"], metrics["run_id"], metrics["target"]) == (study, folder.name, target)
    assert all(0 <= metrics[k] <= 1 for k in ("uar", "wa", "macro_f1", "weighted_f1", *[f"uar_{s}" for s in ("low", "high")]))
    assert metrics["uar_low"] <= metrics["uar"] <= metrics["uar_high"]
    assert set(metrics["recall"]) <= set(labels) and all(s >= 0 for s in metrics["seconds"].values())
    params = json.loads((folder / "params.json").read_text())
    assert metrics["transductive"] is (params.get("normalisation") in ("corpus", "speaker"))
    assert min(metrics["n_train"], metrics["n_dev"], metrics["n_test"]) > 0
    table = pd.read_parquet(folder / "predictions.parquet")
    chances = table[[f"p_{label}" for label in labels]].to_numpy()
    assert {"utterance", "dialogue", "speaker", "truth", "guess"} <= set(table) and len(table) == metrics["n_test"]
    assert table["utterance"].is_unique and set(table["guess"]) <= set(labels) and set(table["truth"]) <= set(labels)
    assert abs(chances.sum(1) - 1).max() < 1e-3 and chances.min() >= 0
    assert (table["truth"] == table["guess"]).mean() == pytest.approx(metrics["wa"], abs=1e-6)
    return metrics


def check_report(folder: Path, runs: int) -> pd.DataFrame:
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == runs and {"run_id", "source", "target", "uar", "weighted_f1"} <= set(results)
    figures = sorted(folder.glob("*.svg"))
    assert any("__forest_" in f.name for f in figures) and any("__confusion_" in f.name for f in figures)
    assert all(f.name.startswith(f"{folder.name}__") and "<svg" in f.read_text(encoding="utf-8")[:2000] for f in figures)
    assert (folder / "report.md").read_text().startswith(f"# {folder.name}")
    return results


def test_every_committed_study_is_tried(project: Path) -> None:
    assert {p.stem for p in (project / "runs" / "studies").glob("*.yaml")} == set(SMALL) | ELSEWHERE


def arithmetic() -> str:
    "How this machine rounds: two that agree here give the same metrics to the digit."
    program = """if True:
        import hashlib, numpy as np, torch
        torch.set_num_threads(1)
        a = np.random.default_rng(0).standard_normal((257, 129))
        x = torch.from_numpy(a.astype(np.float32))
        results = [a.T @ a, np.linalg.svd(a, compute_uv=False), np.exp(a), (x.T @ x).numpy(), torch.tanh(x).numpy()]
        print(hashlib.sha256(b"".join(r.tobytes() for r in results)).hexdigest()[:16])"""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    told = subprocess.run([sys.executable, "-c", program], env=os.environ | one, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def check_golden(study: str, measured: list[dict[str, Any]], record: bool) -> None:
    "The same seed gives the same number: to the digit where floats round as they did when it was recorded, nearly so elsewhere."
    here, measured = arithmetic(), sorted(({k: m[k] for k in GOLDEN_KEYS} for m in measured), key=json.dumps)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"studies": {}}
    if record:
        golden = {"arithmetic": here, "studies": {**golden["studies"], study: measured}}
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    recorded = golden["studies"][study]
    if golden["arithmetic"] == here:
        assert measured == recorded
    for now, then in zip(measured, recorded, strict=True):
        assert {k: v for k, v in now.items() if k[:2] == "n_"} == {k: v for k, v in then.items() if k[:2] == "n_"}
        assert all(now[k] == pytest.approx(then[k], abs=GOLDEN_SLACK) for k in ("uar", "wa", "macro_f1", "weighted_f1"))


@pytest.mark.parametrize("study", SMALL)
def test_study(
    study: str, place: Path, project: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:
    runs = 2 if "[" in str(SMALL[study]) else 1
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["run", study, *overrides(SMALL[study]), "--jobs", "2", "--out", str(place / "out"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (stopped.value.code, told["finished"], told["failed"]) == (0, runs, {})
    folder = place / "out" / study
    done = [p.parent for p in folder.glob("*/metrics.json")]
    assert len(done) == runs
    if not load_study(study, project).scored:
        figures = [json.loads((d / "metrics.json").read_text()) for d in done]
        assert all(m["lines"] > 0 and 0 < m["kept_share"] <= 1 for m in figures)
        assert all(any(d.glob("*.csv")) and any(d.glob("*.svg")) for d in done)
        return
    measured = [check_run(run, study, SMALL[study]["target"]) for run in done]
    assert all(m["source"] == SMALL[study]["source"] and m["n_train"] <= 300 for m in measured)
    check_golden(study, measured, request.config.getoption("--record"))
    check_report(folder, runs)
    assert not (place / "figures").exists()  # a study that was made small is not the one that is published


def demo(place: Path, out: Path, *more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from zsemo_kit.cli import main; main()", "run", "demo", "--out", str(out), *more]
    told = subprocess.run(
        command, cwd=place, env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Traceback" not in told.stderr
    return told


def test_demo_without_any_real_corpus_and_without_network(place: Path, tmp_path: Path) -> None:
    closed = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")}
    told = demo(place, tmp_path, "--set", "seed=0", "--set", "size=200", "--jobs", "2", **closed)
    assert "meld was not found in ZSEMO_CORPORA" in told.stdout
    assert "scored on msp_podcast_synthetic instead" in told.stdout
    assert re.search(r"stages +read .* s · .*train .* s", told.stdout) and "wrote " in told.stdout
    metrics = [check_run(p.parent, "demo", "msp_podcast_synthetic") for p in (tmp_path / "demo").glob("*/metrics.json")]
    assert {m["source"] for m in metrics} == {"meld_synthetic", "iemocap_synthetic"}
    assert "all_synthetic holds msp_podcast_synthetic" in told.stdout  # it would have trained on what it is scored on
    results = check_report(tmp_path / "demo", 2)
    assert set(results["target"]) == {"msp_podcast_synthetic"}
    assert not (place / ".zsemo" / "corpora" / "meld").exists()  # or the next run would take it for MELD
    again = demo(place, tmp_path, "--set", "seed=0", "--set", "size=200", **closed)
    assert "0 finished, 2 complete before, 0 failed" in again.stdout


def test_demo_on_real_meld(place: Path, tmp_path: Path, corpora_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--set", "seed=0", "--set", "size=300", "--set", "source=[meld_synthetic, all_synthetic]")
    told = demo(place, tmp_path, *small, "--jobs", "2", ZSEMO_CORPORA=str(corpora_dir))
    assert "was not found" not in told.stdout
    metrics = [check_run(p.parent, "demo", "meld") for p in (tmp_path / "demo").glob("*/metrics.json")]
    assert {m["source"] for m in metrics} == {"meld_synthetic", "all_synthetic"}
    assert all(m["n_test"] > 2000 and m["uar"] > 0.3 for m in metrics)  # chance is .25
    check_report(tmp_path / "demo", 2)
    with pytest.raises(SystemExit) as stopped:  # where the corpus has gone since, the runs are still those of the study
        main(["report", "demo", *small, "--out", str(tmp_path), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0 and {r["target"] for r in rows} == {"meld"}


def test_a_corpus_of_ones_own_with_three_classes_is_a_study(place: Path, tmp_path: Path) -> None:
    "The classes that both sides have; every file of the run can be read by any reader of JSON."
    rows = [{"utterance": f"{i}{e}", "dialogue": f"d{i}", "text": f"I feel {e}, for the {i}th time.", "emotion": e}
            for i in range(12) for e in ("neutral", "happy", "angry")]
    pd.DataFrame(rows).to_csv(tmp_path / "three.csv", index=False)
    pd.DataFrame(rows).assign(emotion=lambda t: t["emotion"].replace("neutral", "sad"), dialogue="one").to_csv(
        tmp_path / "other.csv", index=False)  # sad is not taught, neutral is not asked, and all is one dialogue
    given = {"source": str(tmp_path / "three.csv"), "target": str(tmp_path / "other.csv"), "space": "four", "seed": "0",
             "strategy": "conversations", "second_reading": "none", "size": "0", "labels": "common"}
    (place / "runs" / "studies" / "own.yaml").write_text("notebook: zero_shot_text\n")
    with pytest.raises(SystemExit) as stopped:
        main(["run", "own", *overrides(given), "--out", str(tmp_path / "out"), "--json"])
    assert stopped.value.code == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    files = sorted((tmp_path / "out").rglob("*.json"))
    read = {file.name: json.loads(file.read_text(), parse_constant=refuse) for file in files}
    metrics = read["metrics.json"]
    assert metrics["labels"] == list(metrics["recall"]) == ["happy", "angry"] and metrics["labels_from"] == "target"
    assert (metrics["uar_low"], metrics["n_test"], metrics["n_train"] + metrics["n_dev"]) == (None, 24, 24)
    page = (tmp_path / "out" / "own" / "report.md").read_text()
    assert "no interval: the test is one" in page and "labels happy + angry" in page
    assert "classes taken from the target's labels" in page


def test_figures_of_published_studies_belong_to_no_override(project: Path) -> None:
    from zsemo_kit.cli.run import override
    published = [p.stem for p in (project / "runs" / "studies").glob("*.yaml") if yaml.safe_load(p.read_text()).get("publish")]
    assert published and not any(override(load_study(s, project), ["seed=0"]).publish for s in published)
