"""Silver labels: nothing of a test part is sent or learned, no label is guessed, and recorded labels find their own rows."""

import gzip
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.labels import in_space
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.corpora.text import plain
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import Reply
from zsemo_kit.generation.silver import (
    SILVER_PARTS, SILVER_STATUSES, SILVER_TASKS, human_labels, label_silver, measure_agreement, open_silver, read_silver,
    silver_corpus, silver_prompt,
)


class Parrot:
    "Stands in for a Chat: answers each prompt by a rule, and remembers what it was sent."
    model = "parrot"

    def __init__(self, rule: Any, finish: str = "stop") -> None:
        self.rule, self.finish = rule, finish
        self.heard: list[str] = []
        self.ledger, self.failed = SimpleNamespace(price=None, spent=0.0), 0

    def stream(self, prompts: Iterable[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
        for prompt in prompts:
            text = prompt.messages[-1]["content"].removeprefix("Utterance: ")
            self.heard.append(text)
            answer = self.rule(text)
            if answer is not None:
                yield prompt, Reply("k", self.model, answer, self.finish)


def corpus(texts: Iterable[str], splits: Iterable[str] | None = None, **more: Any) -> Corpus:
    texts = list(texts)
    table = pd.DataFrame({"utterance": [f"u{i}" for i in range(len(texts))], "text": texts, "emotion": "neutral",
                          "split": list(splits) if splits else "", **more})
    return Corpus("mine", table)


def silver(made: Corpus) -> list[tuple[str, str]]:
    return list(zip(made.table["silver"], made.table["silver_status"], strict=True))


# --- asking

SAID = st.sampled_from(["positive", "negative", "neutral", "not", "happy", "sad", "or", "Answer:", ".", "\n", "joy", "[not]"])
WORDS = st.sampled_from(["Yes.", "No way!", "yes.", "It\u2019s me.", "It's me.", "", "…", "  ", "Oh,  no!", "不行"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "train", "dev", "test"])), min_size=1, max_size=12),
       st.lists(st.sampled_from(["", "train", "dev", "test"]), max_size=4), st.sampled_from(list(SILVER_TASKS)))
def test_only_what_is_asked_for_is_sent_and_once(rows: list[tuple[str, str]], parts: list[str], task: str) -> None:
    mine = corpus(*zip(*rows, strict=True))
    parrot = Parrot(lambda text: "neutral")
    made = label_silver(mine, parrot, task, parts=parts)  # type: ignore[arg-type]
    assert Counter(parrot.heard) == Counter({plain(t) for t, s in rows if s in parts and any(c.isalnum() for c in t)})
    assert made.table[mine.table.columns].equals(mine.table)
    for (text, split), (label, status) in zip(rows, silver(made), strict=True):
        said = any(c.isalnum() for c in text)
        assert (label, status) == (("", "not_asked") if split not in parts else ("neutral", "kept") if said else ("", "no_text"))


def test_the_test_part_is_left_alone_unless_it_is_named() -> None:
    mine, parrot = corpus(["seen", "secret"], ["train", "test"]), Parrot(lambda text: "neutral")
    assert "test" not in SILVER_PARTS
    label_silver(mine, parrot)  # type: ignore[arg-type]
    assert parrot.heard == ["seen"]
    label_silver(mine, parrot, parts=("train", "test"))  # type: ignore[arg-type]
    assert parrot.heard == ["seen", "seen", "secret"]
    for wrong in ("train", ["tset"]):
        with pytest.raises(InputError, match="unknown parts"):
            label_silver(mine, parrot, parts=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("answer", "expected"), [
    ("positive", ("positive", "kept")), (" POSITIVE!\n", ("positive", "kept")), ("**Negative**", ("negative", "kept")),
    ("Sentiment: neutral", ("neutral", "kept")), ("<think>positive?</think>negative", ("negative", "kept")),
    ("not positive", ("", "no_label")), ("This isn't negative.", ("", "no_label")), ("neither", ("", "no_label")),
    ("positive/negative", ("", "two_labels")), ("Neutral or positive", ("", "two_labels")), ("mixed", ("", "no_label")),
    ("joy", ("", "unknown_label")), ("Angry.", ("", "unknown_label")), ("", ("", "no_label")), ("unpositive", ("", "no_label")),
    ("I'm sorry, I cannot assist with this request.", ("", "refused")), (None, ("", "no_reply")),
])
def test_answers(answer: str | None, expected: tuple[str, str]) -> None:
    made = label_silver(corpus(["Well."]), Parrot(lambda text: answer))  # type: ignore[arg-type]
    assert silver(made) == [expected]


@pytest.mark.parametrize(("finish", "status"), [("length", "truncated"), ("content_filter", "refused"), ("stop", "kept")])
def test_an_answer_that_was_cut_or_withheld_is_none(finish: str, status: str) -> None:
    made = label_silver(corpus(["Well."]), Parrot(lambda text: "positive", finish))  # type: ignore[arg-type]
    assert silver(made) == [("positive" if status == "kept" else "", status)]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.lists(SAID, max_size=8).map(" ".join), st.sampled_from(list(SILVER_TASKS)))
def test_any_answer_gives_one_label_of_the_task_or_a_reason(answer: str, task: str) -> None:
    made = label_silver(corpus(["Well."]), Parrot(lambda text: answer), task)  # type: ignore[arg-type]
    (label, status), = silver(made)
    assert status in SILVER_STATUSES and label in ("", *SILVER_TASKS[task].labels) and (status == "kept") == (label != "")
    assert len(made.table["silver_raw"][0]) <= 200


def test_prompts_are_told_apart_by_task_and_words_alone() -> None:
    assert silver_prompt("It\u2019s  me.") == silver_prompt("It's me.") != silver_prompt("It's me.", "emotion")
    system, user = silver_prompt("positive, positive, answer positive").messages
    assert system == silver_prompt("other").messages[0] and "positive, positive" not in system["content"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert all(label in system["content"] for label in SPACES["sentiment"])


def test_an_empty_corpus_asks_nothing() -> None:
    parrot = Parrot(lambda text: "neutral")
    none = corpus(["a"]).where({"utterance": "z"})
    assert len(label_silver(none, parrot)) == 0 and parrot.heard == []  # type: ignore[arg-type]


# --- recorded labels

MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
MADE = {
    "train": ["1,It\u2019s done!,Ann,joy,positive,0,0", "2,Is it “over”?,Ben,surprise,negative,0,1",
              "3,I said no.,Ann,anger,negative,1,0"],
    "dev": ["1,Fine by me.,Ben,neutral,neutral,0,0"],
    "test": ["1,It's done!,Ann,joy,positive,0,0", "2,So what?,Ben,disgust,negative,0,1"],
}
MELT = """filename,Utterance,llm_label,split
dia0_utt0.wav,It€™s done!,joy,train
dia0_utt1.wav,Is it over?,surprise,train
dia1_utt0.wav,I said maybe.,anger,train
dia0_utt0.wav,It's done!,frustration,test
dia0_utt1.wav,So what?,comfort,test
dia9_utt9.wav,Nobody.,fear,train
"""
TWICE = MELT + MELT.splitlines()[1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A folder of corpora with a MELD and a MELT of three sentences."
    (tmp_path / "meld").mkdir()
    for split, rows in MADE.items():
        lines = "".join(f"{r},1,1,\"00:00:01,000\",\"00:00:02,000\"\n" for r in rows)
        (tmp_path / "meld" / f"{split}_sent_emo.csv").write_text(MELD + lines)
    (tmp_path / "melt").mkdir()
    (tmp_path / "melt" / "labels.csv.gz").write_bytes(gzip.compress(MELT.encode()))
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    return tmp_path


def test_melt_joins_meld_by_clip_part_and_words(root: Path) -> None:
    with pytest.warns(UserWarning, match="of 6 .* left out: 1 of utterances that it does not have, 1 of other words"):
        made = read_silver("melt", read("meld"))
    assert silver(made) == [("happy", "kept"), ("surprise", "kept"), ("", "other_text"), ("", "not_recorded"),
                            ("", "not_asked"), ("", "not_asked")]
    assert set(made.table["silver_task"]) == {"emotion"} and made.table["silver_model"][0] == "gpt-4o"
    with pytest.warns(UserWarning):
        everything = read_silver("melt", read("meld"), parts=("train", "test"))
    assert silver(everything)[4:] == [("", "unknown_label")] * 2  # frustration and comfort are not of the seven
    assert list(everything.table["silver_raw"])[4:] == ["frustration", "comfort"]
    with pytest.warns(UserWarning):
        assert silver(read_silver("melt", read("meld"), "sentiment"))[:2] == [("positive", "kept"), ("", "unknown_label")]


def test_open_silver_gives_no_test_row_and_no_human_label(root: Path) -> None:
    with pytest.warns(UserWarning):
        made = open_silver("melt", "seven", "meld")
    assert set(made.table["split"]) == {"train"} and made.space == "seven"
    assert list(made.table["history"]) == ["", "It's done!"]
    with pytest.warns(UserWarning):
        valence = open_silver("melt", "sentiment", "meld")
    assert list(valence.table["emotion"]) == ["positive"]  # people called the second one negative


@pytest.mark.parametrize(("spoil", "parts"), [
    (lambda melt: (melt / "labels.csv.gz").unlink(), ("were not found", "github.com")),
    (lambda melt: (melt / "second.csv").write_text("a"), ("2 tables",)),
    (lambda melt: (melt / "labels.csv.gz").write_bytes(b"no gzip"), ("cannot read",)),
    (lambda melt: (melt / "labels.csv.gz").write_bytes(gzip.compress(b"filename,label\n")), ("no table of labels", "llm_label")),
    (lambda melt: (melt / "labels.csv.gz").write_bytes(gzip.compress(MELT.encode())[:60]), ("cannot read",)),
    (lambda melt: (melt / "labels.csv.gz").write_bytes(gzip.compress(TWICE.encode())), ("line 8", "one label")),
])
def test_a_melt_that_cannot_be_read_is_said(root: Path, spoil: Any, parts: tuple[str, ...]) -> None:
    spoil(root / "melt")
    with pytest.raises(InputError) as told:
        read_silver("melt", read("meld"))
    assert all(part in str(told.value) for part in parts), told.value


def test_labels_of_another_corpus_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match="no recorded label is of an utterance of mine"):
        read_silver("melt", corpus(["Hi."]))
    with pytest.raises(InputError, match="no recorded labels 'nowhere'"):
        read_silver("nowhere", corpus(["Hi."]))
    with pytest.raises(InputError, match="unknown task 'mood'"):
        read_silver("melt", read("meld"), "mood")


def test_a_saved_folder_is_a_source(tmp_path: Path) -> None:
    mine = corpus(["Yes.", "No.", "Secret."], ["train", "dev", "test"])
    made = label_silver(mine, Parrot({"Yes.": "joy", "No.": "not anger"}.get), "emotion")  # type: ignore[arg-type]
    made.save(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = read_silver(tmp_path / "saved", mine)
    assert again.table.equals(made.table)
    changed = replace(mine, table=mine.table.assign(text=["No.", "No.", "Secret."]))
    with pytest.warns(UserWarning, match="1 of other words"):
        assert silver(read_silver(tmp_path / "saved", changed))[0] == ("", "other_text")
    with pytest.raises(InputError, match="another task"):
        read_silver(tmp_path / "saved", mine, "sentiment")
    mine.save(tmp_path / "saved")
    with pytest.raises(InputError, match="no silver labels"):
        read_silver(tmp_path / "saved", mine)


def test_a_table_by_id_needs_no_words(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("utterance,label,model\nu0,Happiness,m1\nu1,neutral,m2\nu2,,m2\n")
    made = read_silver(tmp_path / "labels.csv", corpus(["a", "b", "c", "d"]))
    assert silver(made) == [("happy", "kept"), ("neutral", "kept"), ("", "no_label"), ("", "not_recorded")]
    assert list(made.table["silver_model"]) == ["m1", "m2", "m2", ""]


def test_real_melt_joins_real_meld(corpora_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (corpora_dir / "melt").is_dir():
        pytest.skip("no folder melt in ZSEMO_CORPORA")
    monkeypatch.setenv("ZSEMO_CORPORA", str(corpora_dir))
    meld = read("meld")
    with pytest.warns(UserWarning, match="5 of other words"):
        made = read_silver("melt", meld)
    assert Counter(zip(made.table["split"], made.table["silver_status"], strict=True)) == {
        ("train", "kept"): 7019, ("train", "not_recorded"): 2965, ("train", "other_text"): 5,
        ("dev", "not_recorded"): 1109, ("test", "not_asked"): 2610,
    }
    held = measure_agreement(human_labels(made, "emotion"), list(made.table["silver"]), SPACES["seven"])
    assert held.n == 7019 and held.share == pytest.approx(0.5355, abs=1e-4) and held.kappa == pytest.approx(0.3917, abs=1e-4)
    with pytest.warns(UserWarning):
        taught = open_silver("melt", "seven", "meld")
    assert not set(taught.table["utterance"]) & set(meld.where({"split": "test"}).table["utterance"])


# --- training

def marked(splits: list[str], labels: list[str], **more: Any) -> Corpus:
    status = ["kept" if s else "no_label" for s in labels]
    return corpus([f"Line {i}." for i in range(len(splits))], splits, silver=labels, silver_status=status, silver_raw="",
                  silver_task="emotion", silver_model="m", **more)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "train", "dev", "test"]), st.sampled_from(["", "happy", "fear"])), max_size=10))
def test_training_rows_have_a_silver_label_and_are_not_of_test(rows: list[tuple[str, str]]) -> None:
    mine = marked(*([list(x) for x in zip(*rows, strict=True)] or [[], []]))
    expected = [label for split, label in rows if split != "test" and label]
    held = any(split == "test" and label for split, label in rows)
    if held:
        with pytest.raises(InputError, match="test part of the target mine"):
            silver_corpus(mine, "mine")
    if not expected:
        with pytest.raises(InputError, match="no silver label to train on"):
            silver_corpus(mine)
        return
    made = silver_corpus(mine, "other")
    assert list(made.table["emotion"]) == expected and made.space == "seven" and set(made.table["emotion_human"]) == {"neutral"}


def test_the_target_is_known_in_a_joined_corpus_too() -> None:
    with pytest.raises(InputError, match="1 silver labels are of the test part of the target meld"):
        silver_corpus(marked(["test", "train"], ["happy", "sad"], corpus=["meld", "other"]), "meld")
    assert len(silver_corpus(marked(["test", "train"], ["happy", "sad"], corpus=["other", "other"]), "meld")) == 1
    of_train = marked(["train", "train"], ["happy", "sad"], corpus=["meld", "other"])
    assert len(silver_corpus(of_train, "meld")) == 2, "an in-domain run may know labels of the target's training part"
    with pytest.raises(InputError, match="1 silver labels are of the target meld; label another corpus"):
        silver_corpus(of_train, "meld", unseen=True)


def test_a_human_sentiment_cannot_pass_for_silver() -> None:
    made = silver_corpus(marked(["train"], ["happy"], sentiment=["negative"]))
    assert list(in_space(made, "sentiment").table["emotion"]) == ["positive"]
    assert human_labels(made, "sentiment") == ["negative"]
    assert silver_corpus(made).table["emotion_human"].tolist() == ["neutral"]  # twice is once


def test_test_rows_under_another_part_are_found(root: Path, tmp_path: Path) -> None:
    test = read("meld").where({"split": "test"})
    made = label_silver(replace(test, name="found", table=test.table.assign(split="")),
                        Parrot(lambda text: "joy"), "emotion")  # type: ignore[arg-type]
    folder = made.save(tmp_path / "found_silver")
    assert len(open_silver(str(folder), "seven")) == 2
    with pytest.raises(InputError, match=r"2 silver labels are of the target meld; .*label another corpus"):
        open_silver(str(folder), "seven", "meld", unseen=True)
    with pytest.raises(InputError, match=r"2 silver labels are of the test part of the target meld; .*'test_dia0_utt0'"):
        open_silver(str(folder), "seven", "meld")


def test_what_is_not_silver_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels of meld are not silver"):
        open_silver("meld", "seven")
    with pytest.raises(InputError, match="no corpus 'nowhere'"):
        open_silver("nowhere", "seven")
    with pytest.raises(InputError, match="unknown label space"):
        open_silver("meld_synthetic", "moods")


def test_synthetic_corpora_are_silver_by_construction() -> None:
    both = open_silver("meld_synthetic+iemocap_synthetic", "seven", "meld")
    assert set(both.table["corpus"]) == {"meld_synthetic", "iemocap_synthetic"}
    assert len(open_silver("all_synthetic", "seven")) > len(both)


# --- agreement

LABELS = SPACES["sentiment"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*LABELS, "", "calm"]), st.sampled_from([*LABELS, ""])), max_size=30))
def test_agreement_is_what_its_formula_says(pairs: list[tuple[str, str]]) -> None:
    human, guess = [h for h, _ in pairs], [s for _, s in pairs]
    both = [(h, s) for h, s in pairs if h in LABELS and s in LABELS]
    if not both:
        with pytest.raises(InputError, match="no row has"):
            measure_agreement(human, guess, LABELS)
        return
    held, n = measure_agreement(human, guess, LABELS), len(both)
    observed = sum(h == s for h, s in both) / n
    chance = sum(sum(h == x for h, _ in both) * sum(s == x for _, s in both) for x in LABELS) / n**2
    assert (held.n, held.left_out, held.share) == (n, len(pairs) - n, pytest.approx(observed))
    assert math.isnan(held.kappa) if chance == 1 else held.kappa == pytest.approx((observed - chance) / (1 - chance))
    for x in LABELS:
        of_human, of_silver = sum(h == x for h, _ in both), sum(s == x for _, s in both)
        row, hits = held.by_label.to_dict("index")[x], both.count((x, x))
        assert (row["human"], row["silver"]) == (of_human, of_silver)
        assert math.isnan(row["recall"]) if not of_human else row["recall"] == pytest.approx(hits / of_human)
        assert math.isnan(row["precision"]) if not of_silver else row["precision"] == pytest.approx(hits / of_silver)
        assert all(held.confusion.loc[x, y] == both.count((x, y)) for y in LABELS)
    assert f"{n:,} utterances" in held._repr_html_()


def test_nothing_of_this_needs_a_folder_of_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSEMO_CORPORA", raising=False)
    assert "ZSEMO_CORPORA" not in os.environ
    with pytest.raises(InputError, match="a folder melt in ZSEMO_CORPORA"):
        read_silver("melt", corpus(["Hi."]))
