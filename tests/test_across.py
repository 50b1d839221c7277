"""Sums over targets: the score is the score, differences are paired, and what cannot be compared is left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

from zsemo_kit.analysis.across import BEST, across, kind_of, shown_across


def study(folder: Path, runs: list[tuple[str, str, int, float]], speakers: int = 6) -> pd.DataFrame:
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
    made = pd.DataFrame(rows)
    made.attrs["out"] = str(folder)
    return made


RUNS = [(s, t, seed, right) for t, others in (("ravdess", ("emodb", "nemo")), ("emodb", ("ravdess", "nemo"))) for seed in (0, 1)
        for s, right in ((f"{t}_synthetic", 0.7), (others[0], 0.4), (others[1], 0.6), ("+".join(others), 0.7))]


def test_scores_are_means_of_recalls_over_seeds_sources_and_targets(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    found = across(results, n=200).set_index("kind")
    kinds = results.assign(kind=[kind_of(s, t) for s, t in zip(results.source, results.target, strict=True)])
    by_source = kinds.groupby(["kind", "target", "source"]).uar.mean()
    for kind, wanted in by_source.groupby(["kind", "target"]).mean().groupby("kind").mean().items():
        assert found.uar[kind] == pytest.approx(wanted)
    assert found.uar[BEST] == pytest.approx(by_source["one real corpus"].groupby("target").max().mean())
    assert (found.low <= found.uar).all() and (found.uar <= found.high).all() and set(found.targets) == {2}


def test_differences_are_paired_over_the_same_speakers(tmp_path: Path) -> None:
    same = [(s, t, 0, 0.6) for t in ("ravdess", "emodb") for s in (f"{t}_synthetic", "nemo")]
    results = study(tmp_path, same)
    for target in ("ravdess", "emodb"):  # the written source guesses as the real one does
        twin = pd.read_parquet(tmp_path / f"nemo_{target}_0" / "predictions.parquet")
        twin.to_parquet(tmp_path / f"{target}_synthetic_{target}_0" / "predictions.parquet")
    row = across(results, n=200).set_index("kind").loc["written, its own card"]
    assert (row.difference, row.diff_low, row.diff_high) == (0, 0, 0) and row.high > row.low


def test_a_kind_that_lacks_a_target_is_left_out_and_one_target_is_no_sum(tmp_path: Path) -> None:
    results = study(tmp_path, [r for r in RUNS if r[0] != "emodb_synthetic"])
    assert "written, its own card" not in set(across(results, n=50).kind)
    one = results[results.target == "emodb"]
    one.attrs = results.attrs
    assert across(one, n=50).empty


def test_missing_predictions_end_nothing(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    for folder in results.folder[results.source == "nemo"]:
        (tmp_path / folder / "predictions.parquet").unlink()
    assert "| all real corpora |" in shown_across(across(results, n=50))


def test_another_score_may_be_summed(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    found = across(results, n=200, metric="weighted_f1").set_index("kind")
    frames = [pd.read_parquet(tmp_path / folder / "predictions.parquet") for folder in results.folder]
    wanted = results.assign(kind=[kind_of(s, t) for s, t in zip(results.source, results.target, strict=True)],
                            f1=[f1_score(f.truth, f.guess, average="weighted") for f in frames])  # fmt: skip
    for kind, mean in wanted.groupby(["kind", "target"]).f1.mean().groupby("kind").mean().items():
        assert found.weighted_f1[kind] == pytest.approx(mean)
    assert "weighted F1" in shown_across(found.reset_index()) and "UAR" not in shown_across(found.reset_index())


def test_a_setting_that_some_runs_do_not_state_is_left_blank(tmp_path: Path) -> None:
    results = study(tmp_path, RUNS)
    results["profile"] = [None if source.endswith("_synthetic") else "fitted" for source in results.source]
    lines = shown_across(across(results, n=50)).splitlines()
    assert lines[2].startswith("|  | written, its own card |") and any(line.startswith("| fitted |") for line in lines)
