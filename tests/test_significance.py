"""The paired test: calibrated under the null, powerful against a difference, and about the same utterances only."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.analysis.scores import METRICS, macro_f1, uar
from zsemo_kit.analysis.significance import BETTER, NOISE, WORSE, Comparison, compare_all, compare_pair, correct_holm
from zsemo_kit.core.errors import InputError

LABELS = np.array(["neutral", "happy", "sad", "angry"])


def a_test(rng: np.random.Generator, dialogues: int = 40, per: int = 10) -> pd.DataFrame:
    n = dialogues * per
    rows = pd.DataFrame({"utterance": [f"u{i:05}" for i in range(n)], "dialogue": [f"d{i // per:03}" for i in range(n)]})
    return rows.assign(truth=rng.choice(LABELS, n, p=[0.5, 0.2, 0.15, 0.15]), speaker=[f"s{i % 4}" for i in range(n)])


def answers(test: pd.DataFrame, rng: np.random.Generator, right: np.ndarray | float) -> pd.DataFrame:
    return test.assign(guess=np.where(rng.random(len(test)) < right, test.truth, rng.choice(LABELS, len(test))))


def rejections(trials: int, right, seed: int = 0, dialogues: int = 40) -> float:
    """Share of trials in which two systems, each with its own ease per dialogue, are told apart at 5 %."""
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(trials):
        test = a_test(rng, dialogues)
        ease = np.repeat(rng.uniform(-0.3, 0.3, (2, dialogues)), 10, axis=1)
        a, b = (answers(test, rng, right(test, side) + ease[side]) for side in (0, 1))
        hits += compare_pair(a, b, n=199).p < 0.05
    return hits / trials


def test_under_the_null_one_in_twenty_is_rejected() -> None:
    assert 0.017 <= rejections(300, lambda test, side: 0.5) <= 0.095  # 99.9 % of binomial(300, .05)


def test_with_six_dialogues_the_test_still_keeps_its_level() -> None:
    assert rejections(150, lambda test, side: 0.5, seed=1, dialogues=6) <= 0.09


def test_equal_uar_with_other_strengths_is_not_a_difference() -> None:
    """One system knows happy, the other sad, so their UAR is equal though they are not interchangeable."""

    def right(test: pd.DataFrame, side: int) -> np.ndarray:
        return np.where(test.truth == ("happy", "sad")[side], 0.8, np.where(test.truth == ("sad", "happy")[side], 0.3, 0.5))

    assert rejections(120, right, seed=2) <= 0.10


def test_swapping_utterances_instead_would_reject_too_often() -> None:
    rng, hits = np.random.default_rng(4), 0
    for _ in range(100):
        test = a_test(rng)
        ease = np.repeat(rng.uniform(-0.45, 0.45, (2, 40)), 10, axis=1)
        a, b = (answers(test, rng, 0.5 + e).assign(dialogue=test.utterance) for e in ease)
        hits += compare_pair(a, b, n=199).p < 0.05
    assert hits / 100 > 0.10


def test_a_real_difference_is_found() -> None:
    assert rejections(60, lambda test, side: (0.6, 0.4)[side], seed=3) > 0.8


def test_difference_is_that_of_the_scores_averaged_over_seeds() -> None:
    rng = np.random.default_rng(0)
    test = a_test(rng)
    a, b = ([answers(test, rng, right) for _ in range(n)] for right, n in ((0.5, 3), (0.4, 2)))
    for metric, score in (("uar", uar), ("macro_f1", macro_f1)):
        wanted = np.mean([score(r.truth, r.guess) for r in a]) - np.mean([score(r.truth, r.guess) for r in b])
        found = compare_pair(a, b, metric, n=200)
        assert found.diff == pytest.approx(wanted)
        assert found.low < found.diff < found.high
        assert (found.n, found.clusters, found.metric) == (400, 40, metric)


def test_p_is_the_exact_one_where_all_swaps_can_be_listed() -> None:
    """Four dialogues: sixteen swaps, listed one by one."""
    rng = np.random.default_rng(5)
    test = a_test(rng, dialogues=4)
    a, b = answers(test, rng, 0.7), answers(test, rng, 0.4)
    gaps = []
    for mask in range(16):
        swap = test.dialogue.map({d: bool(mask >> i & 1) for i, d in enumerate(sorted(set(test.dialogue)))}).to_numpy()
        one, two = np.where(swap, b.guess, a.guess), np.where(swap, a.guess, b.guess)
        gaps.append(abs(uar(test.truth, one) - uar(test.truth, two)))
    exact = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
    assert compare_pair(a, b, n=4000).p == pytest.approx(exact, abs=0.03)


def test_symmetry_identity_and_repetition() -> None:
    rng = np.random.default_rng(6)
    test = a_test(rng)
    a, b = answers(test, rng, 0.5), answers(test, rng, 0.45)
    forth, back = compare_pair(a, b), compare_pair(b, a)
    assert (forth.diff, forth.low, forth.high) == pytest.approx((-back.diff, -back.high, -back.low))
    assert forth.p == back.p
    assert compare_pair(a, b) == forth == compare_pair(a.sample(frac=1, random_state=0), b)
    assert compare_pair([a, a], b) == forth  # unequal numbers of seeds: the means decide
    for metric in METRICS:
        same = compare_pair(a, a, metric)
        assert (same.diff, same.p, same.verdict()) == (0, 1, NOISE)


def test_one_dialogue_or_speaker_decides_nothing() -> None:
    rng = np.random.default_rng(7)
    test = a_test(rng, dialogues=1, per=50)
    found = compare_pair(answers(test, rng, 1.0), answers(test, rng, 0.0))
    assert found.diff > 0.5
    assert found.p == 1
    assert np.isnan(found.low)
    assert found.verdict() == NOISE
    assert compare_pair(answers(test, rng, 1.0), answers(test, rng, 0.0), cluster="speaker").clusters == 4


def test_predictions_over_different_utterances_are_refused() -> None:
    rng = np.random.default_rng(8)
    test = a_test(rng)
    a = answers(test, rng, 0.5)
    for other in (a.iloc[1:], a.assign(utterance=a.utterance + "x"), a.assign(truth="sad")):
        with pytest.raises(InputError, match="differ"):
            compare_pair(a, other)
    with pytest.raises(InputError, match="both systems"):
        compare_pair(a, [])
    with pytest.raises(InputError, match="unknown metric"):
        compare_pair(a, a, "accuracy")
    with pytest.raises(InputError, match="unknown cluster"):
        compare_pair(a, a, cluster="session")


@settings(max_examples=15, deadline=None)  # statsmodels collects garbage in every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_its_definition(ps: list[float]) -> None:
    order, running, wanted = np.argsort(ps, kind="stable"), 0.0, [0.0] * len(ps)
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
        wanted[i] = running
    assert correct_holm(ps) == pytest.approx(wanted)
    assert all(c >= p for c, p in zip(correct_holm(ps), ps, strict=True))


@pytest.mark.parametrize("ps, wanted", [
    ([], []), ([0.04], [0.04]), ([float("nan")] * 2, [float("nan")] * 2), ([None, 0.01, 0.02], [float("nan"), 0.02, 0.02]),
])
def test_holm_counts_the_tests_that_there_are(ps: list[float | None], wanted: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert correct_holm(ps) == pytest.approx(wanted, nan_ok=True)


def test_what_was_not_tested_is_within_noise() -> None:
    assert Comparison(0.1, 0.05, 0.15, float("nan")).verdict() == NOISE
    assert Comparison(0.1, float("nan"), float("nan"), 0.01).verdict() == NOISE
    assert Comparison(0.1, 0.05, 0.15, 0.01).verdict(p=float("nan")) == NOISE


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_predictions_are_no_difference_however_few(rows: int, metric: str) -> None:
    rng = np.random.default_rng(3)
    test = a_test(rng, dialogues=2, per=6).head(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_pair(answers(test, rng, 0.0), answers(test, rng, 0.0), metric, n=50)
        same = compare_pair(test.assign(guess="sad"), test.assign(guess="sad"), metric, n=50)
    assert (same.diff, same.p, same.verdict(), found.verdict()) == (0, 1, NOISE, NOISE)


def test_verdicts() -> None:
    assert Comparison(0.1, 0.05, 0.15, 0.01).verdict() == BETTER
    assert Comparison(-0.1, -0.15, -0.05, 0.01).verdict() == WORSE
    assert Comparison(0.1, -0.01, 0.15, 0.01).verdict() == NOISE  # the interval holds 0
    assert Comparison(0.1, 0.05, 0.15, 0.05).verdict() == NOISE  # p is not below .05
    assert Comparison(0.1, 0.05, 0.15, 0.01).verdict(p=0.2) == NOISE  # it is not after correction


def test_compare_all_corrects_over_all_and_keeps_the_order() -> None:
    rng = np.random.default_rng(9)
    test = a_test(rng, dialogues=60)
    systems = {name: [answers(test, rng, right) for _ in range(2)] for name, right in
               (("base", 0.4), ("z", 0.4), ("good", 0.6), ("bad", 0.15))}  # fmt: skip
    found = compare_all(systems, "base", n=500)
    assert found["system"].tolist() == ["z", "good", "bad"]
    assert found["verdict"].tolist()[1:] == [BETTER, WORSE]
    assert found["p_holm"].tolist() == correct_holm(found["p"].tolist())
    assert compare_all({"base": systems["base"]}, "base").empty
    with pytest.raises(InputError, match="baseline"):
        compare_all(systems, "best")
