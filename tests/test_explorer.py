"""Runs are read as they are, compared as the reports compare them, and never shown unescaped."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.analysis.explorer import ResultsExplorer, compare_runs, format_confusion, name_runs, read_runs
from zsemo_kit.analysis.runs import write_run
from zsemo_kit.analysis.scores import confusion, scores
from zsemo_kit.analysis.significance import compare_pair
from zsemo_kit.core.errors import InputError

LABELS = ["neutral", "happy", "sad", "angry"]


def run(out: Path, source: str, seed: int, *, space: str = "four", n: int = 60) -> pd.DataFrame:
    """A finished run with guesses that are half right; its predictions."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).choice(LABELS, n)
    guess = np.where(rng.random(n) < 0.5, truth, rng.choice(LABELS, n))
    frame = pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "dialogue": "", "speaker": [f"p{i % 6}" for i in range(n)],
                          "truth": truth, "guess": guess})
    folder = out / "s" / f"r{seed}"
    folder.mkdir(parents=True)
    scored = scores(frame, LABELS, n_boot=20, cluster="speaker")
    write_run(folder, frame, scored, study="s", run_id=folder.name, system="x", modality="text", source=source, target="t",
              space=space, seed=seed, transductive=False, n_train=1, n_dev=1, n_test=n, seconds={})
    return frame


def test_a_comparison_is_that_of_the_reports_by_speaker_where_there_are_no_dialogues(tmp_path: Path) -> None:
    frames = [run(tmp_path, "a", seed) for seed in (1, 2)]
    found = compare_runs(read_runs(tmp_path), "s/r1", "s/r2", n=300)
    expected = compare_pair(frames[0], frames[1], cluster="speaker", n=300)
    assert found.comparison == expected and found.comparison.clusters == 6
    for counts, frame in zip(found.confusions, frames, strict=True):
        pd.testing.assert_frame_equal(counts, confusion(frame["truth"], frame["guess"], LABELS))


def test_a_study_and_a_folder_of_studies_hold_the_same_runs(tmp_path: Path) -> None:
    run(tmp_path, "a", 1)
    run(tmp_path, "a", 2)
    one, several = read_runs(tmp_path / "s"), read_runs(tmp_path)
    assert one.rows["run_id"].tolist() == several.rows["run_id"].tolist() == ["r1", "r2"]
    assert not any(tmp_path.rglob("results.csv")), "reading writes nothing"


def test_names_from_outside_are_escaped_everywhere(tmp_path: Path) -> None:
    run(tmp_path, "<script>alert(1)</script>", 1)
    run(tmp_path, "<img src=x>", 2)
    page = ResultsExplorer(tmp_path, n=50).html
    assert "&lt;script&gt;" in page and "&lt;img src=x&gt;" in page
    assert "<script" not in page and "<img" not in page
    assert "<b>" not in format_confusion(pd.DataFrame({"<b>": [1]}, index=["<b>"]))


def test_a_link_leads_from_the_notebook_to_the_run(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "my out", "a", 1)
    run(tmp_path / "runs" / "my out", "a", 2)
    (tmp_path / "runs" / "my out" / "s" / "r1" / "notebook.ipynb").write_text("{}")
    start = tmp_path / "nbs" / "tour"
    start.mkdir(parents=True)
    page = ResultsExplorer(tmp_path / "runs" / "my out", start=start, n=50).html
    assert 'href="../../runs/my%20out/s/r1/notebook.ipynb"' in page and "s/r2 (no notebook)" in page


def test_what_cannot_be_compared_is_told_and_the_table_stays(tmp_path: Path) -> None:
    run(tmp_path, "a", 1)
    run(tmp_path, "a", 2, n=40)
    run(tmp_path, "a", 3, space="seven")
    explorer = ResultsExplorer(tmp_path, n=50)
    assert "not over the same test" in explorer.html and "3 of 3 runs" in explorer.html
    explorer.controls["second"].value = "s/r3"
    assert "different label spaces; found four and seven" in explorer.html
    (tmp_path / "s" / "r3" / "predictions.parquet").unlink()
    with pytest.raises(InputError, match="no predictions beside these runs"):
        compare_runs(explorer.runs, "s/r1", "s/r3")


def test_a_table_without_its_runs_is_told_apart_from_one_that_is_none(tmp_path: Path) -> None:
    run(tmp_path, "a", 1)
    run(tmp_path, "b", 2)
    found = read_runs(tmp_path)
    found.rows.to_csv(tmp_path / "moved.csv", index=False)
    assert list(name_runs(read_runs(tmp_path / "moved.csv")).values()) == ["a to t (seed=1)", "b to t (seed=2)"]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of results; expected a column folder"):
        read_runs(tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"cannot read empty\.csv"):
        read_runs(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="no such folder of runs"):
        read_runs(tmp_path / "nowhere")
