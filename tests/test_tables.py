"""Sums over targets: the score is the score, differences are paired, and what cannot be compared is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

from zsemo_kit.analysis.runs import Runs
from zsemo_kit.analysis.tables import BEST_REAL, average_targets, classify_source, show_averages


def study(folder: Path, runs: list[tuple[str, str, int, float]], speakers: int = 6) -> Runs:
    """Runs of (source, target, seed, share right) with predictions on the same utterances of a target."""
    rows = []
    for source, target, seed, right in runs:
        truth = np.random.default_rng(len(target)).choice(["happy", "sad", "angry"], 300)
        rng = np.random.default_rng([seed, *map(ord, source + target)])
        guess = np.where(rng.random(300) < right, truth, rng.choice(["happy", "sad", "angry"], 300))
        place = folder / f"{source}_{target}_{seed}"
        place.mkdir()
        frame = pd.DataFrame({"utterance": range(300), "speaker": np.arange(300) % speakers, "truth": truth, "guess": guess})
        frame.to_parquet(place / "predictions.parquet")
        rows.append({"folder": place.name, "source": source, "target": target, "seed": seed,
                     "uar": recall_score(truth, guess, average="macro")})
    return Runs(pd.DataFrame(rows), folder)


RUNS = [(s, t, seed, right) for t, others in (("ravdess", ("emodb", "nemo")), ("emodb", ("ravdess", "nemo"))) for seed in (0, 1)
        for s, right in ((f"{t}_synthetic", 0.7), (others[0], 0.4), (others[1], 0.6), ("+".join(others), 0.7))]


def test_scores_are_means_of_recalls_over_seeds_sources_and_targets(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    found = average_targets(results, n=200).set_index("kind")
    rows = results.rows
    kinds = rows.assign(kind=[classify_source(s, t) for s, t in zip(rows.source, rows.target, strict=True)])
    by_source = kinds.groupby(["kind", "target", "source"]).uar.mean()
    for kind, wanted in by_source.groupby(["kind", "target"]).mean().groupby("kind").mean().items():
        assert found.uar[kind] == pytest.approx(wanted)
    assert found.uar[BEST_REAL] == pytest.approx(by_source["one real corpus"].groupby("target").max().mean())
    assert (found.low <= found.uar).all() and (found.uar <= found.high).all() and set(found.targets) == {2}


def test_differences_are_paired_over_the_same_speakers(tmp_path: Path) -> None:
    same = [(s, t, 0, 0.6) for t in ("ravdess", "emodb") for s in (f"{t}_synthetic", "nemo")]
    results = study(tmp_path, same)
    for target in ("ravdess", "emodb"):  # the written source guesses as the real one does
        twin = pd.read_parquet(tmp_path / f"nemo_{target}_0" / "predictions.parquet")
        twin.to_parquet(tmp_path / f"{target}_synthetic_{target}_0" / "predictions.parquet")
    row = average_targets(results, n=200).set_index("kind").loc["written, its own card"]
    assert (row.difference, row.diff_low, row.diff_high) == (0, 0, 0) and row.high > row.low


def test_a_kind_that_lacks_a_target_is_left_out_and_one_target_is_no_sum(tmp_path: Path) -> None:
    results = study(tmp_path, [r for r in RUNS if r[0] != "emodb_synthetic"])
    assert "written, its own card" not in set(average_targets(results, n=50).kind)
    one = replace(results, rows=results.rows[results.rows.target == "emodb"])
    assert average_targets(one, n=50).empty


def test_missing_predictions_end_nothing(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    for folder in results.rows.folder[results.rows.source == "nemo"]:
        (tmp_path / folder / "predictions.parquet").unlink()
    assert "all real corpora" in set(show_averages(average_targets(results, n=50)).kind)


def test_another_score_may_be_summed(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    found = average_targets(results, n=200, metric="weighted_f1").set_index("kind")
    frames = [pd.read_parquet(tmp_path / folder / "predictions.parquet") for folder in results.rows.folder]
    kinds = [classify_source(s, t) for s, t in zip(results.rows.source, results.rows.target, strict=True)]
    wanted = results.rows.assign(kind=kinds, f1=[f1_score(f.truth, f.guess, average="weighted") for f in frames])
    for kind, mean in wanted.groupby(["kind", "target"]).f1.mean().groupby("kind").mean().items():
        assert found.weighted_f1[kind] == pytest.approx(mean)
    assert "weighted F1" in show_averages(found.reset_index()) and "UAR" not in show_averages(found.reset_index())


def test_a_setting_that_some_runs_do_not_state_is_left_blank(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    stated = [None if source.endswith("_synthetic") else "fitted" for source in results.rows.source]
    seen = show_averages(average_targets(replace(results, rows=results.rows.assign(profile=stated)), n=50))
    assert seen.iloc[0][["profile", "kind"]].tolist() == ["", "written, its own card"] and "fitted" in set(seen.profile)
