"""Scores against a direct transcription of their formulas, and the laws that intervals must keep."""

import json
import time
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.analysis.scores import (
    METRICS, OUTSIDE, average_seeds, bootstrap, confusion, count_confusions, draw_weights, find_interval, macro_f1,
    number_clusters, recalls, score_counts, scores, uar, wa, weighted_f1,
)
from zsemo_kit.core.errors import InputError

LABELS = ("neutral", "happy", "sad", "angry")
answers = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "joyful"))), min_size=1, max_size=60)


def reference(truth: Sequence[str], guess: Sequence[str]) -> dict[str, float]:
    """The formulas, word for word, without numpy or scikit-learn."""
    recall, f1, size = {}, {}, {}
    for c in set(truth):
        hits = sum(t == c and g == c for t, g in zip(truth, guess, strict=True))
        size[c], guessed = sum(t == c for t in truth), sum(g == c for g in guess)
        recall[c] = hits / size[c]
        f1[c] = 2 * hits / (size[c] + guessed)
    right = sum(t == g for t, g in zip(truth, guess, strict=True))
    return {
        "uar": sum(recall.values()) / len(recall),
        "wa": right / len(truth),
        "macro_f1": sum(f1.values()) / len(f1),
        "weighted_f1": sum(f1[c] * size[c] for c in f1) / len(truth),
    }


def frame(pairs: Sequence[tuple[str, str | None]], per: int = 5) -> pd.DataFrame:
    rows = pd.DataFrame(pairs, columns=["truth", "guess"])
    rows["utterance"] = [f"u{i:04}" for i in range(len(rows))]
    rows["dialogue"] = [f"d{i // per}" for i in range(len(rows))]
    rows["speaker"] = [f"s{i % 3}" for i in range(len(rows))]
    return rows


def made(n: int = 300, right: float = 0.5, seed: int = 0, per: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99).choice(LABELS, n, p=[0.5, 0.2, 0.15, 0.15])
    guess = np.where(rng.random(n) < right, truth, rng.choice(LABELS, n))
    return frame(list(zip(truth.tolist(), guess.tolist(), strict=True)), per)


@settings(max_examples=40, deadline=None)
@given(answers)
def test_scores_equal_their_formulas(pairs: list[tuple[str, str]]) -> None:
    truth, guess = zip(*pairs, strict=True)
    ours = {"uar": uar, "wa": wa, "macro_f1": macro_f1, "weighted_f1": weighted_f1}
    for metric, value in reference(truth, guess).items():
        assert ours[metric](truth, guess) == pytest.approx(value)


@settings(max_examples=40, deadline=None)
@given(answers)
def test_scores_from_counts_equal_their_formulas(pairs: list[tuple[str, str]]) -> None:
    rows = frame(pairs)
    fast = score_counts(count_confusions([rows], LABELS).sum(1))
    for metric, value in reference(rows.truth, rows.guess).items():
        assert fast[metric][0] == pytest.approx(value)


@settings(max_examples=40, deadline=None)
@given(answers)
def test_confusion_loses_no_row(pairs: list[tuple[str, str]]) -> None:
    truth, guess = zip(*pairs, strict=True)
    table = confusion(truth, guess, LABELS)
    assert table.to_numpy().sum() == len(pairs)
    assert (OUTSIDE in table) == ("joyful" in guess)
    assert all(table.loc[c].sum() == truth.count(c) for c in LABELS)
    assert np.mean(list(recalls(truth, guess).values())) == pytest.approx(uar(truth, guess))


@settings(max_examples=25, deadline=None)
@given(answers, st.randoms(use_true_random=False))
def test_scores_ignore_row_order_and_label_names(pairs: list[tuple[str, str]], random) -> None:
    other = pairs.copy()
    random.shuffle(other)
    for score in (uar, wa, macro_f1, weighted_f1):
        value = score(*zip(*pairs, strict=True))
        assert 0 <= value <= 1
        assert score(*zip(*other, strict=True)) == pytest.approx(value)
        renamed = [(t[::-1], g[::-1]) for t, g in pairs]
        assert score(*zip(*renamed, strict=True)) == pytest.approx(value)


def test_a_class_that_the_truth_lacks_is_left_out() -> None:
    assert uar(["sad", "sad"], ["sad", "sad"]) == 1
    assert scores(frame([("sad", "sad")] * 10), LABELS)["recall"] == {"neutral": None, "happy": None, "sad": 1.0, "angry": None}
    assert uar(["sad", "sad"], ["sad", "fear"]) == 0.5  # a guess of it is still wrong


def test_missing_guesses_are_wrong() -> None:
    rows = made().astype({"guess": object})
    rows.loc[rows.index[:100], "guess"] = None
    found = scores(rows, LABELS)
    assert found["wa"] == pytest.approx(np.mean(rows["truth"] == rows["guess"]))
    assert found["wa"] < scores(made(), LABELS)["wa"]


@settings(max_examples=20, deadline=None)
@given(answers.filter(lambda pairs: len(pairs) > 5))
def test_bootstrap_equals_drawing_rows_by_hand(pairs: list[tuple[str, str]]) -> None:
    rows = frame(pairs)
    drawn = bootstrap(count_confusions([rows], LABELS), n=3, seed=1)
    of = number_clusters(rows)
    for i, w in enumerate(np.concatenate(list(draw_weights(of.max() + 1, 3, seed=1)))):
        some = pd.concat([rows[of == k] for k, times in enumerate(w.astype(int)) for _ in range(times)])
        for metric, value in reference(some.truth.tolist(), some.guess.tolist()).items():
            assert drawn[metric][i, 0] == pytest.approx(value)


def test_weights_draw_every_cluster_alike() -> None:
    w = np.concatenate(list(draw_weights(20, 5000, memory=3000)))
    assert w.shape == (5000, 20)
    assert (w.sum(1) == 20).all()
    assert np.allclose(w.mean(0), 1, atol=0.06)
    assert np.allclose(w.var(0), 19 / 20, atol=0.12)  # binomial(20, 1/20)


def test_interval_covers_the_truth_and_utterances_would_promise_too_much() -> None:
    """Difficulty differs by dialogue: the cluster interval covers the expected UAR about 95 times in 100."""
    rng, cover, naive = np.random.default_rng(3), 0, 0
    for _ in range(120):
        ease = np.repeat(rng.beta(0.5, 0.5, 60), 10)
        truth = rng.choice(["sad", "happy"], 600)
        guess = np.where(rng.random(600) < ease, truth, np.where(truth == "sad", "happy", "sad"))
        rows = frame(list(zip(truth, guess, strict=True)), per=10)
        found = scores(rows, ["happy", "sad"], n_boot=300)
        cover += found["uar_low"] <= 0.5 <= found["uar_high"]
        alone = scores(rows.assign(dialogue=rows.utterance), ["happy", "sad"], n_boot=300)
        naive += alone["uar_low"] <= 0.5 <= alone["uar_high"]
    assert cover / 120 >= 0.86
    assert naive / 120 < 0.70


def test_speakers_and_fallbacks() -> None:
    rows = made()
    assert set(number_clusters(rows, "speaker")) == {0, 1, 2}
    assert len(set(number_clusters(rows.assign(speaker=""), "speaker"))) == 30  # its dialogues
    assert len(set(number_clusters(rows.assign(dialogue=None)))) == 300  # each utterance alone


def test_one_dialogue_gives_no_interval() -> None:
    found = scores(made(30, per=30), LABELS)
    assert (found["uar_low"], found["uar_high"]) == (None, None)
    assert 0 < found["uar"] < 1


EDGES: dict[str, pd.DataFrame] = {
    "one utterance": frame([("sad", "happy")]),
    "one class": frame([("sad", "sad")] * 6),
    "a class with one utterance": frame([("sad", "sad"), *[("happy", "happy")] * 9]),
    "one guess for all": frame([(label, "sad") for label in LABELS * 3]),
    "no guess at all": frame([(label, None) for label in LABELS * 3]),
    "one speaker": frame([(label, "sad") for label in LABELS]).assign(dialogue="d", speaker="x"),
    "utterances numbered": frame([("sad", "sad"), ("happy", "sad")]).assign(utterance=[1, 2], dialogue=[1, 2]),
    "categories": frame([("sad", "sad"), ("happy", "sad")] * 3).astype({"truth": "category", "guess": "category"}),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("cluster", ["dialogue", "speaker"])
def test_at_every_edge_a_score_is_a_number_or_none(edge: str, cluster: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(EDGES[edge].assign(speaker="x"), LABELS, n_boot=50, cluster=cluster)
        several = average_seeds([EDGES[edge].assign(speaker="x")] * 2, n_boot=50, cluster=cluster)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["recall"]) == set(LABELS) and 0 <= found["uar"] <= 1
    known = [value for value in found["recall"].values() if value is not None]
    assert [found["uar"], several["uar"]] == pytest.approx([np.mean(known)] * 2)
    assert (found["uar_low"] is None) == (cluster == "speaker" or edge in ("one utterance", "one speaker"))


def test_labels_may_be_numbers() -> None:
    rows = frame([("sad", "sad")] * 4).assign(truth=np.array([0, 1, 0, 1]), guess=[0, 1, 1, 1])
    found = scores(rows, np.arange(3))  # type: ignore[arg-type]
    assert found["recall"] == {"0": 0.5, "1": 1.0, "2": None} and found["uar"] == 0.75
    assert average_seeds([rows])["uar"] == 0.75


def test_counts_of_nothing_have_no_score_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(np.isnan(value).all() for value in score_counts(np.zeros((2, 3, 4))).values())
        assert np.isnan(find_interval(np.full(5, np.nan), of=5)).all()


def test_over_seeds_is_a_mean_under_shared_resamples() -> None:
    runs = [made(seed=seed) for seed in range(5)]
    found, singly = average_seeds(runs, LABELS), [scores(run, LABELS) for run in runs]
    for metric in METRICS:
        values = [s[metric] for s in singly]
        assert found[metric] == pytest.approx(np.mean(values))
        assert found[f"{metric}_std"] == pytest.approx(np.std(values, ddof=1))
        assert found[f"{metric}_low"] < found[metric] < found[f"{metric}_high"]
    counts = count_confusions(runs, LABELS)
    low, high = np.quantile(bootstrap(counts, 1000)["uar"].mean(1), [0.025, 0.975])
    assert (found["uar_low"], found["uar_high"]) == (low, high)
    same = average_seeds([runs[0]] * 4, LABELS)
    assert (same["uar_low"], same["uar_high"]) == (singly[0]["uar_low"], singly[0]["uar_high"])  # copies add no certainty


def test_results_are_the_same_twice_and_in_any_row_order() -> None:
    rows = made()
    assert scores(rows, LABELS) == scores(rows.sample(frac=1, random_state=1), LABELS)
    assert scores(rows, LABELS, seed=1) != scores(rows, LABELS, seed=2)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows.drop(columns="guess"), "lack guess"),
        (lambda rows: rows.drop(columns="dialogue"), "no column dialogue"),
        (lambda rows: rows.iloc[:0], "empty"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "u0000 is predicted twice"),
        (lambda rows: rows.assign(truth="bored"), "bored"),
    ],
)
def test_bad_predictions_get_one_line(spoil, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        scores(spoil(made()), LABELS)
    assert "\n" not in str(caught.value)


def test_seeds_over_different_utterances_are_refused() -> None:
    for other in (made().iloc[:200], made().assign(truth="sad")):
        with pytest.raises(InputError, match="differ"):
            average_seeds([made(), other], LABELS)
    with pytest.raises(InputError, match="no predictions"):
        average_seeds([], LABELS)


def test_thousands_of_resamples_take_well_under_a_second() -> None:
    counts = count_confusions([made(2610, seed=s, per=9) for s in range(5)], LABELS)
    bootstrap(counts, 10)
    start = time.perf_counter()
    assert bootstrap(counts, 5000)["uar"].shape == (5000, 5)
    assert time.perf_counter() - start < 3  # about .2 s on an idle core; room for a busy machine


def test_the_floor_is_what_the_most_frequent_class_reaches() -> None:
    rows = made()
    found, most = average_seeds([rows], LABELS), rows["truth"].mode()[0]
    for metric, floor in reference(rows["truth"].tolist(), [most] * len(rows)).items():
        assert found[f"{metric}_floor"] == pytest.approx(floor)
    assert found["uar_floor"] == pytest.approx(found["chance"])
