"""The audit against plain reference implementations, planted copies, and real MELD where it is at hand."""

import gzip
import json
import math
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.analysis.audit import (
    Audit, _find_line_interval, compare_lines, compare_ngrams, compare_to_baseline, count_shares, count_yield, find_longest_runs,
    find_neighbours, measure_distance, measure_diversity, measure_overlap, read_shares, run_audit,
)
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.splits import LeakWarning
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.cards import load_card

WORDS = ["tea", "was", "cold", "again", "we", "laughed"]
LINE = st.lists(st.sampled_from(WORDS), min_size=0, max_size=9).map(" ".join)
LINES = st.lists(LINE, min_size=1, max_size=12)


def make(texts: list[str], name: str = "made", **columns: object) -> Corpus:
    table = pd.DataFrame({
        "utterance": [f"{name}{i}" for i in range(len(texts))], "dialogue": [f"d{i // 3}" for i in range(len(texts))],
        "text": texts, "emotion": "neutral",
    })
    return Corpus(name, table.assign(**columns))


def invented(n: int, name: str, seed: int, vocabulary: int = 400) -> Corpus:
    rng = np.random.default_rng(seed)
    return make([" ".join(f"w{i}" for i in rng.integers(0, vocabulary, rng.integers(4, 12))) for _ in range(n)], name)


def grams(line: str, n: int) -> list[tuple[str, ...]]:
    words = line.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@settings(deadline=None, max_examples=60)
@given(LINES, LINES)
def test_longest_runs_agree_with_a_plain_search(ours: list[str], theirs: list[str]) -> None:
    def plain(line: str) -> int:
        shared = (n for n in range(1, 10) for other in theirs if set(grams(line, n)) & set(grams(other, n)))
        return max(shared, default=0)

    assert find_longest_runs(ours, theirs).tolist() == [plain(line) for line in ours]


@settings(deadline=None, max_examples=40)
@given(LINES, LINES, st.integers(1, 6))
def test_ngram_shares_agree_with_sets(ours: list[str], theirs: list[str], n: int) -> None:
    if not any(ours) or not any(theirs):
        with pytest.raises(InputError, match="no text to audit"):
            compare_ngrams({"a": make(ours)}, make(theirs), [n])
        return
    row = compare_ngrams({"a": make(ours)}, make(theirs), [n]).iloc[0]
    mine, known = [g for line in ours for g in grams(line, n)], {g for line in theirs for g in grams(line, n)}
    lines = [line for line in ours if len(line.split()) >= n]
    assert (row["ngrams"], row["lines"]) == (len(mine), len(lines))
    if mine:
        assert row["share"] == pytest.approx(sum(g in known for g in mine) / len(mine))
        assert row["distinct_share"] == pytest.approx(len(set(mine) & known) / len(set(mine)))
        assert row["line_share"] == pytest.approx(sum(bool(set(grams(x, n)) & known) for x in lines) / len(lines))
    else:
        assert row[["share", "distinct_share", "line_share"]].isna().all()


def test_planted_copies_are_found_and_named() -> None:
    target, source = invented(300, "target", 1), invented(100, "source", 2)
    copied = source.table.assign(text=source.table.text.mask(source.table.index < 5, target.table.text))
    lines = compare_lines(Corpus("source", copied), target)
    assert lines.identical.tolist() == [True] * 5 + [False] * 95
    assert lines.near_id.head(5).tolist() == [f"target{i}" for i in range(5)]
    assert (lines.run == lines.words).head(5).all()
    table = measure_overlap({"source": Corpus("source", copied), "clean": source}, target).set_index(["source", "measure"])
    assert table.loc[("source", "identical"), "value"] == 0.05 and table.loc[("clean", "near_identical"), "value"] == 0
    assert (table.low <= table.value + 1e-12).all() and (table.value <= table.high + 1e-12).all()


def test_a_measure_that_nothing_meets_has_an_upper_bound() -> None:
    low, high = _find_line_interval(np.zeros(100), np.arange(100) // 10, 50, 0)  # ten dialogues, none with a hit
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert all(map(math.isnan, _find_line_interval(np.full(3, np.nan), np.arange(3), 50, 0)))


def test_the_interval_respects_dialogues() -> None:
    values = np.repeat(np.random.default_rng(0).random(40), 25)  # lines of one dialogue are alike
    wide, narrow = (np.diff(_find_line_interval(values, c, 400, 0))[0] for c in (np.arange(1000) // 25, np.arange(1000)))
    assert wide > 3 * narrow


def test_neighbours_agree_with_a_dense_product() -> None:
    vectors = {f"t{i}": v for i, v in enumerate(np.random.default_rng(0).normal(size=(90, 5)))}
    ours, theirs = [f"t{i}" for i in range(40)], [f"t{i}" for i in range(40, 90)]
    found = find_neighbours(ours, theirs, lambda texts: np.array([vectors[t] for t in texts]))
    unit = {t: v / np.linalg.norm(v) for t, v in vectors.items()}
    cosine = np.array([[unit[a] @ unit[b] for b in theirs] for a in ours])
    assert found.match.tolist() == cosine.argmax(1).tolist()
    np.testing.assert_allclose(found.cosine, cosine.max(1), atol=1e-5)


def test_an_audit_encodes_each_text_once() -> None:
    asked: Counter[str] = Counter()

    def encode(texts: list[str]) -> np.ndarray:
        asked.update(texts)
        return np.array([[len(t), t.count("w1") + 1, 1.0] for t in texts])

    target = invented(60, "target", 1)
    other = {"other": invented(30, "other", 3)}
    done = run_audit(invented(30, "synthetic", 2), target, baselines=other, encode=encode, n_boot=20)
    assert max(asked.values()) == 1 and "neighbour" in set(done.overlap.measure)


@settings(deadline=None, max_examples=30)
@given(st.lists(LINE.filter(bool), min_size=6, max_size=20))
def test_diversity_of_a_whole_corpus_is_the_plain_ratio(texts: list[str]) -> None:
    have = {k: [g for line in texts for g in grams(line, k)] for k in (1, 2, 3)}
    if not have[3]:
        return
    table = measure_diversity({"a": make(texts)}, n_draws=3).set_index("measure")
    assert [table.loc[f"distinct_{k}", "size"] for k in have] == [max(1, len(have[k]) // 2) for k in have]
    fewest = len(have[3])  # no order has fewer, so trigrams are drawn whole and every draw is the corpus
    row = measure_diversity({"a": make(texts)}, size=fewest, n_draws=2).set_index("measure").loc["distinct_3"]
    assert row["value"] == row["low"] == row["high"] == pytest.approx(len(set(have[3])) / fewest)


def test_diversity_does_not_depend_on_how_much_there_is() -> None:
    large, small = invented(2000, "large", 1), invented(200, "small", 2)
    found = measure_diversity({"large": large, "small": small}, n_draws=40)
    value = found.pivot(index="measure", columns="source", values="value")
    np.testing.assert_allclose(value["large"], value["small"], rtol=0.05)
    with pytest.raises(InputError, match="at most"):
        measure_diversity({"small": small}, size=10**6)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["happy", "sad", "angry"]), min_size=1, max_size=30),
       st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_share_distance_is_the_formula(labels: list[str], weights: list[float]) -> None:
    known = {k: w / sum(weights) for k, w in zip(["happy", "sad", "angry"], weights, strict=True)}
    row = measure_distance(count_shares(make(["x"] * len(labels), emotion=labels), known)).iloc[0]
    q = {k: labels.count(k) / len(labels) for k in known}
    assert row["total_variation"] == pytest.approx(sum(abs(known[k] - q[k]) for k in known) / 2)
    kl = sum(p * math.log2(p / q[k]) if q[k] else math.inf for k, p in known.items())
    assert row["kl_bits"] == pytest.approx(kl, abs=1e-9)


def test_label_shares_of_odd_input() -> None:
    unlabelled = make(["x", "y"], emotion=["", "sad"])
    assert count_shares(unlabelled)["count"].tolist() == [1]
    assert measure_distance(count_shares(make(["x"], emotion=""), {"sad": 1.0})).isna().iloc[0, 1:].all()
    for bad in ({"sad": 0.5}, {"sad": 1.5, "happy": -0.5}, {"sad": math.nan, "happy": 1.0}):
        with pytest.raises(InputError, match="sum to 1"):
            count_shares(unlabelled, bad)


def test_documented_shares_fold_into_a_space() -> None:
    card = load_card("meld")
    if not card.shares:
        pytest.skip("the meld card documents no shares in a form that can be read")
    seven, four = read_shares(card, "seven"), read_shares(card, "four")
    assert sum(seven.values()) == pytest.approx(1) and set(four) == {"neutral", "happy", "sad", "angry"}
    assert four["neutral"] == pytest.approx(0.47 / 0.82, abs=0.01) and seven["fear"] == pytest.approx(0.03, abs=0.005)


def test_the_funnel_counts_down() -> None:
    kept = make(["a", "b", "c"], "iemocap_synthetic", emotion=["excited", "angry", "other"],
                emotion_second=["happy", "angry", "other"])
    table = count_yield(5, 4, {"kept": 3, "no_label": 2, "refused": 1}, kept, "four").set_index("stage")
    assert table["count"].to_dict() == {
        "asked": 5, "answered": 4, "lines": 6, "kept": 3, "in the space": 2, "agreed": 2}
    assert table.lost["kept"] == "no_label 2, refused 1" and table.of_previous["kept"] == 0.5
    assert "agreed" not in set(count_yield(5, 4, {"kept": 3}, make(["a"])).stage)


def test_an_audit_without_splits_holds_out_dialogues_and_escapes_its_text() -> None:
    source = make(["<script>alert(1)</script> we laughed again today", *["the tea was cold again"] * 3], "source")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakWarning)
        done = run_audit(source, invented(60, "target", 0), n_boot=20)
    assert isinstance(done, Audit) and set(done.overlap.source) == {"source", "target test"}
    assert "<script>" not in done._repr_html_() and "&lt;script&gt;" in done._repr_html_()
    assert set(compare_to_baseline(done.overlap, "source", "target test").reading) <= {"above", "within", "below"}


def test_target_text_is_never_in_the_tables() -> None:
    target, source = invented(60, "target", 1), invented(30, "source", 2)
    shown = run_audit(source, target, n_boot=20)._repr_html_()
    assert not any(text in shown for text in target.table.text)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="no text to audit"):
        run_audit(make(["", ""], "silent"), make(["a"] * 6))
    with pytest.raises(InputError, match="a baseline has the name"):
        run_audit(make(["a"], "x"), make(["b"]), baselines={"x": make(["c"])})


def conversations(project: Path) -> Corpus:
    "The recorded conversations of the meld card."
    try:
        from zsemo_kit.generation.written_corpus import open_recorded
    except ImportError:
        return _plain_conversations(project / "zsemo_kit/data/recorded/meld.jsonl.gz")
    return open_recorded("meld")


def _plain_conversations(path: Path) -> Corpus:
    card, rows = load_card("meld"), []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for k, reply in enumerate(map(json.loads, lines)):
            found = re.findall(r"^\w+: (.+) \[(\w+)\]$", reply["reply"], re.M)
            rows += [(f"{k}_{i}", f"{k}", text, card.emotion(label)) for i, (text, label) in enumerate(found)]
    return Corpus("meld_synthetic", pd.DataFrame(rows, columns=["utterance", "dialogue", "text", "emotion"]))


def test_recorded_meld_has_less_of_meld_than_its_own_test_part(corpora_dir: Path, project: Path) -> None:
    readers = pytest.importorskip("zsemo_kit.corpora.readers")
    meld = readers.read("meld", corpora_dir / "meld")
    done = run_audit(conversations(project), meld, n_boot=200)
    read = compare_to_baseline(done.overlap, "meld_synthetic", "meld test").set_index("measure")
    print("\n", read.round(4).to_string(), "\n", done.ngrams.round(4).to_string(), "\n", done.diversity.round(3).to_string())
    for measure in ("identical", "identical_long", "near_identical", "longest_run", "run_of_6"):
        assert read.loc[measure, "reading"] == "below", measure
    shares = done.ngrams[done.ngrams.against == "meld without test"].pivot(index="n", columns="source", values="share")
    assert (shares["meld_synthetic"] < shares["meld test"]).all()
    assert shares.loc[6, "meld_synthetic"] < 0.002
