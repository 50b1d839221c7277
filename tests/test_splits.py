"""Contracts of the folds: what they keep apart, whatever the corpus looks like, and what `leaks` finds."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.splits import (
    LeakWarning, components, leaks, leave_speakers_out, near_texts, normal_text, official_splits, purge, sample, split_dev,
)
from zsemo_kit.corpora.table import Corpus

LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakWarning)
        yield


def make(rows: list[tuple[int, int, int]], **columns: object) -> Corpus:
    "A corpus of (dialogue, speaker, label) numbers; speaker 0 is unknown."
    table = pd.DataFrame({
        "utterance": [f"u{i}" for i in range(len(rows))],
        "dialogue": [f"d{d}" for d, _, _ in rows],
        "speaker": [f"s{s}" if s else "" for _, s, _ in rows],
        "turn": range(len(rows)),
        "emotion": [LABELS[e] for _, _, e in rows],
        "text": [f"line {i}" for i in range(len(rows))],
    })
    return Corpus("made", table.assign(**columns))


ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=60)


def values(corpus: Corpus, column: str) -> set[str]:
    return set(corpus.table[column]) - {""}


def ids(corpus: Corpus) -> list[str]:
    return corpus.table["utterance"].tolist()


@settings(deadline=None, max_examples=60)
@given(ROWS, st.floats(0.05, 0.9), st.integers(0, 9))
def test_split_dev_keeps_apart_what_it_says(rows: list[tuple[int, int, int]], share: float, seed: int) -> None:
    corpus = make(rows)
    if corpus.table.dialogue.nunique() < 2:
        with pytest.raises(InputError, match="two groups or more"):
            split_dev(corpus, share, seed)
        return
    train, dev = split_dev(corpus, share, seed)
    assert sorted(ids(train) + ids(dev)) == sorted(ids(corpus)) and len(train) and len(dev)
    for column in train.apart:
        assert not values(train, column) & values(dev, column)
    assert "dialogue" in train.apart
    again = split_dev(corpus, share, seed)
    assert ids(again[1]) == ids(dev)


@settings(deadline=None, max_examples=40)
@given(ROWS, st.data())
def test_sample_is_exact_nested_and_cuts_one_dialogue(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    corpus = make(rows)
    n = data.draw(st.integers(1, len(rows)))
    part, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 5))
    large, small = sample(corpus, n, seed), sample(corpus, part, seed)
    assert len(large) == n and len(small) == part and set(ids(small)) <= set(ids(large))
    whole = corpus.table.dialogue.value_counts()
    cut = [d for d, k in large.table.dialogue.value_counts().items() if k < whole[d]]
    assert len(cut) <= 1
    for d in cut:  # the first turns are kept
        kept = large.table[large.table.dialogue == d].utterance.tolist()
        assert kept == corpus.table[corpus.table.dialogue == d].utterance.tolist()[: len(kept)]


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_components_agree_with_a_plain_search(rows: list[tuple[int, int, int]]) -> None:
    corpus, n = make(rows), len(rows)
    tied = np.eye(n, dtype=bool)
    for i, (d, s, _) in enumerate(rows):
        for j, (e, t, _) in enumerate(rows):
            tied[i, j] |= d == e or (s == t != 0)
    for k in range(n):  # Warshall's closure
        tied |= np.outer(tied[:, k], tied[k])
    found = components(corpus)
    assert (np.equal.outer(found, found) == tied).all()


@settings(deadline=None, max_examples=30)
@given(ROWS.map(lambda rows: [(d, s + 1, e) for d, s, e in rows]), st.integers(2, 5), st.integers(0, 3))
def test_leave_speakers_out_tests_every_utterance_once(rows: list[tuple[int, int, int]], folds: int, seed: int) -> None:
    corpus = make(rows)
    if corpus.table.speaker.nunique() < folds:
        with pytest.raises(InputError):
            leave_speakers_out(corpus, folds, seed)
        return
    parts = list(leave_speakers_out(corpus, folds, seed))
    assert len(parts) == folds and sorted(u for _, test in parts for u in ids(test)) == sorted(ids(corpus))
    for train, test in parts:
        assert len(train) and len(test) and len(train) + len(test) == len(corpus)
        for column in train.apart:
            assert not values(train, column) & values(test, column)


def test_dev_is_stratified_and_near_its_share() -> None:
    rng = np.random.default_rng(0)
    rows = [(d, 0, int(rng.choice(4, p=[0.6, 0.2, 0.15, 0.05]))) for d in range(200) for _ in range(int(rng.integers(4, 15)))]
    corpus = make(rows)
    shares = corpus.table.emotion.value_counts(normalize=True)
    for seed in range(5):
        _, dev = split_dev(corpus, 0.2, seed)
        assert abs(len(dev) / len(corpus) - 0.2) < 0.01
        assert (dev.table.emotion.value_counts(normalize=True) - shares).abs().max() < 0.02
    assert ids(split_dev(corpus, 0.2, 0)[1]) != ids(split_dev(corpus, 0.2, 1)[1])


def test_training_keeps_a_label_that_only_one_dialogue_has() -> None:
    corpus = make([(d, 0, d % 2) for d in range(20)] + [(20, 0, 3)])
    for seed in range(10):
        assert "angry" in values(split_dev(corpus, 0.3, seed)[0], "emotion")


def test_ten_speakers_give_different_devs_by_seed() -> None:
    corpus = make([(s * 10 + k, s + 1, k % 4) for s in range(10) for k in range(8)])
    devs = {tuple(sorted(values(split_dev(corpus, 0.2, seed)[1], "speaker"))) for seed in range(10)}
    assert len(devs) > 3 and all(len(dev) == 2 for dev in devs)


def test_one_giant_component_is_split_by_dialogue_with_a_warning() -> None:
    corpus = make([(d, s, e) for d in range(20) for s, e in ((1, 0), (d % 3 + 2, 1))])
    with pytest.warns(LeakWarning, match="speakers are in both parts"):
        train, dev = split_dev(corpus)
    assert train.apart == dev.apart == ("dialogue",)
    found = leaks(train, dev).set_index("kind")
    assert found.loc["dialogue", "count"] == 0 and found.loc["speaker", "count"] == len(dev)


def test_what_was_kept_apart_is_saved_with_the_corpus(tmp_path: Path) -> None:
    train, _ = split_dev(make([(d, d + 1, d % 2) for d in range(20)]))
    again = Corpus.load(train.save(tmp_path / "train"))
    assert again.apart == ("dialogue", "speaker")


def test_a_script_split_is_refused_where_one_script_holds_all() -> None:
    corpus = make([(d, 0, d % 2) for d in range(20)], script="s")
    with pytest.raises(InputError, match="dialogue and script"):
        split_dev(corpus, script=True)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_bad_shares_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        split_dev(make([(0, 0, 0), (1, 0, 1)]), share)


@pytest.mark.parametrize("n", [0, -1, 3])
def test_a_sample_never_repeats_or_invents(n: int) -> None:
    with pytest.raises(InputError, match="1 to 2"):
        sample(make([(0, 0, 0), (1, 0, 1)]), n)


@settings(deadline=None)
@given(st.text())
def test_normal_text_is_idempotent_and_blind_to_case(text: str) -> None:
    plain = normal_text(text)
    assert normal_text(plain) == plain == " ".join(plain.split())


@pytest.mark.parametrize(("a", "b"), [
    ("DON\u2019T!", "don't"), ("don\x92t", "don\u00b4t"), ("\uff28i", "hi"), ("well -- no", "Well, no."), ("Straße", "STRASSE"),
    ("e\u0301te\u0301", "été"),
])
def test_writings_of_one_text(a: str, b: str) -> None:
    assert normal_text(a) == normal_text(b)


def test_scripts_with_combining_vowels_keep_their_words() -> None:
    assert normal_text("मैं ठीक हूँ।") == "मैं ठीक हूँ"


def test_near_texts_agree_with_a_dense_reference() -> None:
    rng = np.random.default_rng(0)
    words = ["kettle", "left", "somebody", "again", "on", "the", "has", "window", "open", "door"]
    made = [" ".join(rng.choice(words, rng.integers(4, 9))) for _ in range(120)]
    ours, theirs = made[:60], made[60:] + [t + " now" for t in made[:10]]
    found = near_texts(ours, theirs, threshold=0.6)
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(3, 4)).fit([*dict.fromkeys(ours), *dict.fromkeys(theirs)])
    cosine = (vectors.transform(ours) @ vectors.transform(theirs).T).toarray()
    assert found.text.tolist() == np.flatnonzero(cosine.max(1) >= 0.6).tolist()
    np.testing.assert_allclose(found.cosine, cosine.max(1)[found.text], atol=1e-3)
    np.testing.assert_allclose(cosine[found.text, found.match], cosine.max(1)[found.text], atol=1e-3)


def test_leaks_counts_each_kind_once() -> None:
    train = make([(0, 1, 0), (1, 2, 1), (2, 0, 2)], script=["a", "", ""])
    test = make([(0, 2, 0), (5, 0, 1), (6, 9, 2), (7, 9, 0)], script=["a", "", "", ""])
    mine = ["Yes.", "Somebody has left the kettle on", "We should paint the kitchen wall green"]
    theirs = ["yes", "somebody has left the KETTLE on!", "And we should paint the kitchen wall green", ""]
    train = Corpus("a", train.table.assign(text=mine))
    test = Corpus("b", test.table.assign(text=theirs))
    found = leaks(train, test).set_index("kind")
    assert found["count"].to_dict() == {
        "speaker": 1, "dialogue": 1, "script": 1, "text": 2, "text_long": 1, "near_text": 1}
    assert found.loc["near_text", "examples"] == ["u2 ~ u2"] and found.loc["speaker", "examples"] == ["u0 ~ u1"]
    assert leaks(train, test, ids=False).kind.tolist() == ["text", "text_long", "near_text"]
    assert ids(purge(train, test)) == ["u0"]
    assert leaks(purge(train, test), test).set_index("kind").loc[["text_long", "near_text"], "count"].sum() == 0
    assert leaks(train, test.where({"emotion": "angry"}))["count"].sum() == 0


def test_official_splits_of_part_of_a_corpus() -> None:
    corpus = make([(0, 0, 0), (1, 0, 1), (2, 0, 1)], split=["test", "train", ""])
    assert {k: ids(v) for k, v in official_splits(corpus).items()} == {"train": ["u1"], "test": ["u0"]}


def test_meld_leaks_what_it_is_known_to_leak(corpora_dir: Path) -> None:
    readers = pytest.importorskip("zsemo_kit.corpora.readers")
    meld = official_splits(readers.read("meld", corpora_dir / "meld"))
    found = leaks(meld["train"], meld["test"]).set_index("kind")
    assert found.loc["dialogue", "count"] == 0
    assert found.loc["speaker", "share"] > 0.9  # the six friends are in every part
    assert 20 <= found.loc["text_long", "count"] <= 40
    train, dev = split_dev(meld["train"])
    assert train.apart == ("dialogue",) and abs(len(dev) - 1998) < 40
