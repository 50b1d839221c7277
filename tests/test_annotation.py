"""Annotation: thresholds of the training part, answers that read back, explanations that the measurement bears out."""

import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, save_audio
from zsemo_kit.corpora.splits import normal_text
from zsemo_kit.corpora.table import EMOTIONS, Corpus
from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import Reply, ReplyStore
from zsemo_kit.synthesis.acoustics import MEASURES, measure_corpus, to_words
from zsemo_kit.synthesis.annotation import (
    ANSWER_PARTS, ANSWER_TYPES, ATTRIBUTES, ATTRIBUTE_UNITS, CONTRADICTORY, EXPLANATION_STATUSES, GENDER_LIMIT, LEVELS,
    Annotator, add_explanations, build_explanation_prompt, check_answer_type, extract_claims, fit_gender_limit, trace_claims,
    write_answer,
)

pytestmark = pytest.mark.usefixtures("own_cache")

pytest.importorskip("parselmouth")


def voice(hz: float, a_second: float = 4, level: float = 0.05, seconds: float = 1.0) -> np.ndarray:
    """Harmonics that swell like syllables."""
    t = np.arange(int(seconds * RATE)) / RATE
    x = sum(np.sin(2 * np.pi * hz * k * t + k * k) / k for k in range(1, 9))
    return (level * x * (1 - 0.9 * np.cos(2 * np.pi * a_second * t))).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("annotation")


@pytest.fixture(scope="module")
def train(place: Path) -> Corpus:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        who, middle = ("female", 230) if i % 2 else ("male", 125)
        save_audio(place / f"t{i}.wav", voice(rng.normal(middle, 20), 3 + i // 2 % 4, 0.02 + 0.002 * (i % 20)))
        rows.append({"utterance": f"t{i}", "audio": f"t{i}.wav", "gender": who, "emotion": "neutral"})
    return Corpus("voices", pd.DataFrame(rows), place)


@pytest.fixture(scope="module")
def new(place: Path) -> Corpus:
    sounds = {"high": voice(300, 6, 0.12), "low": voice(90, 2, 0.01), "silent": np.zeros(RATE, np.float32),
              "short": voice(200, seconds=0.05), "hiss": np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32)}
    for name, sound in sounds.items():
        save_audio(place / f"{name}.wav", sound)
    (place / "broken.wav").write_bytes(b"RIFF, but no more")
    rows = [{"utterance": f"{name} {g}", "audio": f"{name}.wav", "gender": g, "emotion": "sad", "text": "It rains again."}
            for name in (*sounds, "broken", "gone") for g in ("male", "female", "unknown")]
    return Corpus("new", pd.DataFrame(rows), place)


@pytest.fixture(scope="module")
def annotator(train: Corpus, place: Path) -> Annotator:
    with session.settings(cache=place / "cache"):
        return Annotator.fit(train)


@pytest.fixture(scope="module")
def made(annotator: Annotator, new: Corpus, place: Path) -> Corpus:
    with session.settings(cache=place / "cache"):
        return annotator.annotate(new)


# thresholds

@pytest.mark.parametrize("levels", LEVELS)
def test_thresholds_are_the_quantiles_of_each_gender_of_the_reference(train: Corpus, place: Path, levels: int) -> None:
    fitted = Annotator.fit(train, levels=levels)
    table = measure_corpus(train)
    for gender in ("male", "female"):
        own = table[train.table.gender == gender]
        for measure in ATTRIBUTES.values():
            np.testing.assert_allclose(fitted.thresholds.of(gender, measure), own[measure].quantile(list(LEVELS[levels][0])))
    assert (fitted.levels, fitted.reference) == (levels, "voices") and fitted.thresholds.words == LEVELS[levels][1]
    annotated = fitted.annotate(train).table
    words = to_words(table[list(MEASURES)], fitted.thresholds, train.table.gender.tolist())
    assert all(annotated[a].tolist() == words[m].tolist() for a, m in ATTRIBUTES.items())
    if levels == 3:
        assert 8 <= (annotated[annotated.gender == "male"].pitch == "low").sum() <= 10  # 30 % of 30


def test_what_is_annotated_changes_nothing(annotator: Annotator, new: Corpus, made: Corpus, place: Path) -> None:
    """A row has the same words alone as among others."""
    for row in (0, 4):
        alone = annotator.annotate(new.where({"utterance": new.table.utterance[row]})).table
        pd.testing.assert_frame_equal(alone, made.table.iloc[[row]].reset_index(drop=True))
    assert made.table[list(new.table)].equals(new.table) and made.space == new.space


def test_words_go_by_the_gender_of_the_row(made: Corpus) -> None:
    table = made.table.set_index("utterance")
    assert table.pitch["high male"] == table.volume["high male"] == table.speed["high male"] == "high"
    assert table.pitch["low female"] == table.pitch["low male"] == table.volume["low male"] == "low"
    assert (table.heard_gender["high unknown"], table.heard_gender["low unknown"]) == ("female", "male")
    assert (table.gender_by["high unknown"], table.gender_by["high male"]) == ("measured", "corpus")


@pytest.mark.parametrize("name", ["silent", "short", "broken", "gone"])
def test_what_cannot_be_measured_has_no_words_and_a_problem(made: Corpus, name: str) -> None:
    rows = made.table[made.table.utterance.str.startswith(name)]
    assert (rows[[*ATTRIBUTES]] == "").all(axis=None) and rows[[*ATTRIBUTES.values()]].isna().all(axis=None)
    assert (rows.problem != "").all() and rows.heard_gender.tolist() == ["male", "female", ""]


def test_noise_has_a_level_and_no_voice(made: Corpus) -> None:
    row = row_of(made, "hiss unknown")
    assert [row[c] for c in ("pitch", "speed", "heard_gender", "problem")] == [""] * 4 and row["volume"]
    assert write_answer("sad", row, "EGPSV").startswith("sad: somebody speaks with ")


def test_gender_can_be_measured_against_the_corpus(annotator: Annotator, new: Corpus, place: Path) -> None:
    table = annotator.annotate(new, gender="measured").table.set_index("utterance")
    assert table.heard_gender["high male"] == "female" and set(table.gender_by) == {"measured", ""}
    with pytest.raises(InputError, match="corpus or measured"):
        annotator.annotate(new, gender="guess")


def test_annotating_twice_is_annotating_once(annotator: Annotator, made: Corpus, place: Path) -> None:
    again = annotator.annotate(made)
    pd.testing.assert_frame_equal(again.table, made.table)


def test_an_empty_corpus_is_annotated_and_explained(annotator: Annotator, new: Corpus, place: Path) -> None:
    none = add_explanations(annotator.annotate(new.where({"utterance": "nobody"})))
    assert len(none) == 0 and {"pitch", "explanation"} <= set(none.table)


def test_nothing_to_fit_on_is_refused(new: Corpus, train: Corpus, place: Path) -> None:
    for name in ("gone", "silent"):
        with pytest.raises(InputError, match="cannot be measured"):
            Annotator.fit(new.where(new.table.utterance.str.startswith(name)))
    with pytest.raises(InputError, match="one of 3, 5"):
        Annotator.fit(train, levels=4)


# gender

def reference_limit(pitch: list[float], genders: list[str]) -> float:
    """The best recall of a limit between pitches, by trying one beside each."""
    def recall(limit: float) -> float:
        hits = [(p > limit) == (g == "female") for p, g in zip(pitch, genders, strict=True)]
        return float(pd.Series(hits).groupby(genders).mean().mean())
    return max(recall(limit) for p in pitch for limit in (p - 1e-6, p + 1e-6, GENDER_LIMIT)
               if min(pitch) < limit < max(pitch) or limit == GENDER_LIMIT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(80, 400), min_size=20, max_size=40), st.lists(st.integers(80, 400), min_size=20, max_size=40))
def test_no_limit_tells_genders_apart_better(men: list[int], women: list[int]) -> None:
    pitch, genders = [float(p) for p in men + women], ["male"] * len(men) + ["female"] * len(women)
    limit, recall = fit_gender_limit(pitch, genders)
    above = np.array(pitch) > limit
    own = (above[len(men) :].mean() + 1 - above[: len(men)].mean()) / 2
    assert own == pytest.approx(recall) and recall >= reference_limit(pitch, genders) - 1e-9


def test_few_or_unmeasured_speakers_leave_the_documented_limit() -> None:
    for pitch, genders in (([100.0] * 50, ["male"] * 50), ([math.nan] * 50, ["male", "female"] * 25), ([], [])):
        limit, recall = fit_gender_limit(pitch, genders)
        assert limit == GENDER_LIMIT and math.isnan(recall)
    assert fit_gender_limit([100.0, 300.0] * 20, ["male", "female"] * 20) == (GENDER_LIMIT, 1.0)  # of equals, the nearest


# the file

def test_an_annotator_is_kept(annotator: Annotator, train: Corpus, tmp_path: Path) -> None:
    assert Annotator.load(annotator.save(tmp_path / "a.json")) == annotator
    alone = Annotator(annotator.thresholds)
    again = Annotator.load(alone.save(tmp_path / "b.json"))
    assert again.gender_limit == GENDER_LIMIT and math.isnan(again.gender_recall) and again.thresholds == alone.thresholds


@pytest.mark.parametrize("change", [
    lambda d: d.pop("thresholds"), lambda d: d.update(format=2), lambda d: d.update(gender_limit="x"),
    lambda d: d.update(gender_limit=-1), lambda d: d["thresholds"].update(words=["a", "b", "c"]),
    lambda d: d["thresholds"]["limits"].pop("all"), lambda d: d["thresholds"]["limits"]["all"].pop("pitch_mean"),
    lambda d: d["thresholds"]["limits"]["male"].update(pitch_mean=[1]), lambda d: d.pop("gender_recall"),
])
def test_a_file_that_is_none_is_refused(annotator: Annotator, tmp_path: Path, change: Any) -> None:
    raw = json.loads(annotator.save(tmp_path / "a.json").read_text())
    change(raw)
    (tmp_path / "a.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="cannot read the annotator"):
        Annotator.load(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{", None])
def test_rubbish_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="cannot read the annotator"):
        Annotator.load(tmp_path / "a.json")


def row_of(made: Corpus, utterance: str) -> dict[str, Any]:
    return next({str(k): v for k, v in r.items()} for r in made.table.to_dict("records") if r["utterance"] == utterance)


# answers

WORD = st.sampled_from(["", "low", "normal", "high", "very low", "very high"])
TEXT = st.text(max_size=40) | st.sampled_from(
    ["A man said: very loud!", 'He "whispered" high pitch', "don't", "low, low", "\u201cso\u201d", "x" * 300])
ROWS = st.fixed_dictionaries({"heard_gender": st.sampled_from(["", "male", "female"]), "text": TEXT,
                              "pitch": WORD, "speed": WORD, "volume": WORD})
KIND = st.sampled_from(ANSWER_TYPES) | st.sets(st.sampled_from("GPSVT")).map(lambda s: check_answer_type("E" + "".join(s)))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([*EMOTIONS, ""]), ROWS, KIND)
def test_an_answer_reads_back_as_what_it_was_made_of(emotion: str, row: dict[str, str], kind: str) -> None:
    told = write_answer(emotion, row, kind)
    said = {"emotion": emotion} | {ANSWER_PARTS[k]: row["heard_gender" if k == "G" else ANSWER_PARTS[k]] for k in kind[1:]}
    spoken = normal_text(said.get("text", ""))
    said["text"] = spoken if any(c.isalnum() for c in spoken) else ""  # a lone accent is nothing that is said
    found = extract_claims(told)
    found |= {"text": normal_text(found["text"])} if "text" in found else {}
    assert found == {k: v for k, v in said.items() if v}
    assert "\n" not in told and (not emotion or told == emotion or told.startswith(f"{emotion}: "))


def test_the_form_of_an_answer() -> None:
    row = {"heard_gender": "female", "pitch": "high", "speed": "normal", "volume": "low", "text": "kids are talking by the door"}
    assert write_answer("happy", row) == (
        'happy: a woman says "kids are talking by the door" with high pitch, normal speed and low volume.')
    assert write_answer("", row, "EGPSV") == "a woman speaks with high pitch, normal speed and low volume."
    assert write_answer("happy", row, "E") == write_answer("happy", {}) == write_answer("happy", {"text": math.nan}) == "happy"
    assert write_answer("happy", row, "EP") == "happy: somebody speaks with high pitch."
    assert write_answer("happy", row, "EG") == "happy: a woman speaks."
    assert write_answer("happy", pd.Series(row), "ETG") == 'happy: a woman says "kids are talking by the door".'
    for wrong in ("", "G", "EE", "EX", "e", "egp"):
        with pytest.raises(InputError, match="unknown answer type"):
            write_answer("happy", row, wrong)
    with pytest.raises(InputError, match="no answer for the emotion"):
        write_answer("positive", row)


@pytest.mark.parametrize(("text", "claims"), [
    ("happy", {"emotion": "happy"}), ("Happy.", {"emotion": "happy"}), ("**Sad**: she.", {"emotion": "sad", "gender": "female"}),
    ("other", {"emotion": "other"}), ("the other one", {}), ("It sounds calm.", {"emotion": "calm"}), ("no sign of anger", {}),
    ("happy: a sad man", {"emotion": CONTRADICTORY, "gender": "male"}), ("joyful", {"emotion": "happy"}),
    ("neutral", {"emotion": "neutral"}), ("a neutral tone", {"emotion": "neutral"}), ("neutral pitch", {"pitch": "normal"}),
    ("The pitch is high and the volume is low.", {"pitch": "high", "volume": "low"}),
    ("pitch, speed and volume are all normal", {"pitch": "normal", "speed": "normal", "volume": "normal"}),
    ("normal speed and volume", {"speed": "normal", "volume": "normal"}),
    ("high pitch, and the volume is low", {"pitch": "high", "volume": "low"}),
    ("pitch high, volume low", {"pitch": "high", "volume": "low"}), ("low in pitch", {"pitch": "low"}),
    ("Pitch: low\nSpeed: fast\nVolume: normal", {"pitch": "low", "speed": "high", "volume": "normal"}),
    ("He speaks softly, at a very slow pace", {"gender": "male", "speed": "very low", "volume": "low"}),
    ("the loudness of her voice is low", {"gender": "female", "volume": "low"}),
    ("high-pitched, fast-paced, low-volume", {"pitch": "high", "speed": "high", "volume": "low"}),
    ("louder than normal", {"volume": "high"}), ("a higher than average pitch", {"pitch": "high"}),
    ("above-average pitch, below average volume", {"pitch": "high", "volume": "low"}),
    ("not loud", {}), ("isn\u2019t fast", {}), ("neither fast nor slow", {}),
    ("without high pitch", {}), ("pitch that is not high", {}),
    ("loud rather than soft", {"volume": "high"}), ("not only loud but also fast", {"speed": "high", "volume": "high"}),
    ("not loud but soft", {"volume": "low"}), ("not fast, loud", {"volume": "high"}), ("less loud", {}),
    ("fast and slow", {"speed": CONTRADICTORY}), ("he or she", {"gender": CONTRADICTORY}), ("not a man", {}),
    ("a deep voice", {"pitch": "low"}), ("in deep thought", {}), ("a high voice", {}),
    ("fastened, quietude, aloud, malevolent", {}),
    ('says "I am sad, loud and fast"', {"text": "I am sad, loud and fast"}),
    ("says \u201cGo,\u201d loudly", {"text": "Go", "volume": "high"}),
    ('"a" and "b"', {"text": CONTRADICTORY}), ('"Go." and \u201cgo\u201d', {"text": "Go."}), ('says "go', {"text": "go"}),
    ('"happy: he is loud"', {"emotion": "happy", "gender": "male", "volume": "high"}),
    ('<think>"sad", loud</think>calm', {"emotion": "calm"}), ("", {}), ("\n", {}), ('""', {}), ("…", {}),
])
def test_claims_of_free_prose(text: str, claims: dict[str, str]) -> None:
    assert extract_claims(text) == claims


PIECES = st.sampled_from(["high", "not", "pitch", "and", ",", "volume", "is", "very", "loud", "fast", '"', ".", "he", "happy",
                          ":", "or", "x"])


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=120) | st.lists(PIECES, max_size=25).map(" ".join))
def test_any_text_has_claims_in_known_words(text: str) -> None:
    levels = {*LEVELS[5][1], CONTRADICTORY}
    known = {"emotion": {*EMOTIONS, CONTRADICTORY}, "gender": {"male", "female", CONTRADICTORY}}
    known |= dict.fromkeys(ATTRIBUTES, levels)
    found = extract_claims(text)
    assert all(k == "text" or v in known[k] for k, v in found.items())
    assert [*found] == [a for a in ANSWER_PARTS.values() if a in found]


def test_long_and_nasty_texts_are_read_in_no_time() -> None:
    for text in ("pitch and " * 20_000, "very " * 20_000 + "high", "a " * 50_000, '"' * 20_001, "not " * 20_000,
                 "high pitch " * 5_000, "high, " * 10_000, "pitch " * 20_000, "volume is " * 10_000):
        extract_claims(text)


# tracing

def test_every_claim_comes_with_its_measurement(annotator: Annotator, made: Corpus) -> None:
    row = row_of(made, "high unknown")
    claims = {c.attribute: c for c in trace_claims('He says "it rains, again" with high pitch and low volume.', row, annotator)}
    assert {a: c.agrees for a, c in claims.items()} == {"gender": False, "pitch": row["pitch"] == "high", "volume": False,
                                                        "text": True}
    assert claims["gender"].limits == (annotator.gender_limit,) and claims["gender"].value == row["pitch_mean"]
    for a in ("pitch", "volume"):
        assert (claims[a].value, claims[a].measured, claims[a].unit) == (row[ATTRIBUTES[a]], row[a], ATTRIBUTE_UNITS[a])
        assert claims[a].limits == annotator.thresholds.of("female", ATTRIBUTES[a])
    assert claims["text"].limits == () and math.isnan(claims["text"].value)


def test_the_template_is_borne_out_always(annotator: Annotator, made: Corpus) -> None:
    for _, row in made.table.iterrows():
        assert all(c.agrees for c in trace_claims(write_answer("sad", row), row, annotator))
        assert all(c.agrees for c in trace_claims(write_answer("", row), row, annotator))


def test_what_was_not_measured_bears_nothing_out(annotator: Annotator, made: Corpus) -> None:
    row = row_of(made, "gone unknown")
    assert [c.agrees for c in trace_claims("a man with low pitch, loud and fast", row, annotator)] == [False] * 4
    with pytest.raises(InputError, match="annotate it first"):
        trace_claims("loud", {"text": ""}, annotator)
    assert [c.agrees for c in trace_claims("loud and quiet", made.table.iloc[0], annotator)] == [False]  # contradictory


# explanations

class Parrot:
    """Stands in for a Chat: answers each prompt by a rule, and remembers what it was sent."""
    model = "parrot"

    def __init__(self, rule: Any, finish: str = "stop") -> None:
        self.rule, self.finish = rule, finish
        self.heard: list[str] = []
        self.ledger, self.failed = SimpleNamespace(price=None, spent=0.0), 0

    def stream(self, prompts: Iterable[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
        for prompt in prompts:
            self.heard.append(prompt.messages[-1]["content"])
            answer = self.rule(self.heard[-1])
            if answer is not None:
                yield prompt, Reply("k", self.model, answer, self.finish)


EVIDENCE = {"heard_gender": "male", "pitch": "high", "speed": "normal", "volume": "low", "text": "It rains."}


def annotated(*rows: dict[str, Any]) -> Corpus:
    table = [{"utterance": f"u{i}", "emotion": "sad", **EVIDENCE, **row} for i, row in enumerate(rows)]
    return Corpus("mine", pd.DataFrame(table))


def explained(rule: Any, *rows: dict[str, Any], finish: str = "stop", **more: Any) -> tuple[pd.DataFrame, list[str]]:
    parrot = Parrot(rule, finish)
    return add_explanations(annotated(*rows), parrot, **more).table, parrot.heard  # type: ignore[arg-type]


@pytest.mark.parametrize(("answer", "status"), [
    ("Sad: his voice is quiet and high-pitched.", "kept"), ("He speaks at a normal speed.", "kept"),
    ('sad: a man says "It rains!" softly', "kept"), ("Happy: his voice is quiet.", "contradicts"), ("He is loud.", "contradicts"),
    ("She speaks softly.", "contradicts"), ('He says "It snows."', "contradicts"), ("Quiet, and loud.", "contradicts"),
    ("He speaks with very high pitch.", "contradicts"), ("sad", "no_claim"), ("Somebody speaks.", "no_claim"), ("", "no_claim"),
    ("I'm sorry, I cannot assist with this request.", "refused"), (None, "no_reply"),
    ("<think>She? No.</think> Sad: he is quiet.", "kept"),
])
def test_a_reply_is_kept_as_far_as_the_measurement_bears_it_out(answer: str | None, status: str) -> None:
    table, _ = explained(lambda _: answer, {})
    row = table.iloc[0]
    assert row.explanation_status == status in EXPLANATION_STATUSES
    assert row.explanation_by == ("parrot" if status == "kept" else "template")
    if status == "kept":
        assert row.explanation == row.explanation_reply and answer is not None and row.explanation in answer
    else:
        assert row.explanation == write_answer("sad", row)
        assert row.explanation_reply == (answer or "")


@pytest.mark.parametrize(("finish", "status"), [("length", "truncated"), ("content_filter", "refused"), ("stop", "kept")])
def test_a_reply_that_was_cut_or_withheld_is_none(finish: str, status: str) -> None:
    table, _ = explained(lambda _: "Sad: he is quiet.", {}, finish=finish)
    assert table.explanation_status.tolist() == [status]


def test_equal_evidence_is_asked_once_and_no_number_is_sent() -> None:
    rows: list[dict[str, Any]] = [{"pitch_mean": 250.123}]
    rows += [{"pitch_mean": 251.0, "text": "It  rains."}, {"pitch": "low"}, {"emotion": ""}]
    table, heard = explained(lambda _: "He is quiet.", *rows)
    assert len(heard) == len(set(heard)) == 3 and not any(c.isdigit() for text in heard for c in text)
    assert table.explanation_status.tolist() == ["kept"] * 4
    assert ["Emotion: sad" in text for text in heard] == [True, True, False]


def test_of_an_unknown_emotion_none_is_accepted() -> None:
    assert explained(lambda _: "Sad: he is quiet.", {"emotion": ""})[0].explanation_status[0] == "contradicts"
    assert explained(lambda _: "He is quiet.", {"emotion": ""})[0].explanation_status[0] == "kept"


def test_test_rows_and_rows_without_evidence_are_not_sent() -> None:
    nothing = dict.fromkeys(EVIDENCE, "")
    rows = [{"split": "test"}, {"split": "train"}, nothing, {**nothing, "text": "..."}]
    table, heard = explained(lambda _: "He is quiet.", *rows)
    assert table.explanation_status.tolist() == ["not_asked", "kept", "no_evidence", "no_evidence"] and len(heard) == 1
    assert table.explanation.tolist()[2] == "sad"
    table, heard = explained(lambda _: "He is quiet.", *rows, parts=("test",))
    assert table.explanation_status.tolist()[:2] == ["kept", "not_asked"] and len(heard) == 1
    with pytest.raises(InputError, match="unknown parts"):
        explained(lambda _: "", {}, parts="test")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80) | st.lists(PIECES, max_size=12).map(" ".join), ROWS)
def test_whatever_is_replied_the_explanation_is_borne_out(answer: str, row: dict[str, str]) -> None:
    table, _ = explained(lambda _: answer, row)
    only = table.iloc[0]
    assert only.explanation_status in EXPLANATION_STATUSES
    claims = extract_claims(only.explanation)
    assert claims.pop("emotion", "sad") == "sad"
    seen = {**row, "gender": row["heard_gender"]}
    assert all(normal_text(v) == normal_text(seen[k]) for k, v in claims.items())


def test_the_template_needs_no_model_and_explaining_twice_replaces() -> None:
    once = add_explanations(annotated({}, {"split": "test"}))
    assert set(once.table.explanation_status) == {"template"} and set(once.table.explanation_reply) == {""}
    pd.testing.assert_frame_equal(add_explanations(once).table, once.table)
    with pytest.raises(InputError, match="annotate it first"):
        add_explanations(Corpus("raw", pd.DataFrame({"utterance": ["u"], "text": ["x"], "emotion": ["sad"]})))


def test_a_server_is_asked_once_and_never_again(tmp_path: Path) -> None:
    """Through the client, over HTTP: what was answered is in the store; a reply that contradicts is not used."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(Path(__file__).parent / "fake_llm.py"), "--log", str(tmp_path / "log"),
                               "--port", str(port)], stdout=subprocess.PIPE)
    try:
        assert server.stdout and int(server.stdout.readline()) == port
        mine = annotated({"text": "#say:Sad: he is quiet.#"}, {"text": "#say:He shouts loudly.#"}, {"text": "#do:length"},
                         {"text": "#do:filtered"})
        url = f"http://127.0.0.1:{port}/v1"
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            table = add_explanations(mine, Chat("fake", url, store, max_retries=0)).table
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            chat = Chat("fake", url, store, max_retries=0)
            pd.testing.assert_frame_equal(add_explanations(mine, chat).table, table)
            assert (chat.sent, chat.reused) == (0, 4)
    finally:
        server.terminate()
        server.wait()
    assert table.explanation_status.tolist() == ["kept", "contradicts", "truncated", "refused"]
    assert table.explanation[0] == "Sad: he is quiet." and table.explanation_by.tolist() == ["fake"] + ["template"] * 3


def test_prompts_hold_words_alone() -> None:
    system, user = build_explanation_prompt("sad", EVIDENCE).messages
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].splitlines()[:6] == ["Speaker: male", "Pitch: high", "Speed: normal", "Volume: low",
                                                'Words: "It rains."', "Emotion: sad"]


# the real corpus

def test_ravdess_is_annotated(corpora_dir: Path) -> None:
    """One actor's neutral and angry voices: anger is louder than the other actors' quantiles say is normal."""
    from zsemo_kit.corpora.readers import read

    corpus = read("ravdess")
    some = corpus.where(corpus.table.speaker.isin(sorted(corpus.table.speaker.unique())[:2])
                        & corpus.table.emotion.isin(["neutral", "angry"]))
    table = Annotator.fit(some).annotate(some).table
    loud = (table.volume == "high").groupby(table.emotion).mean()
    assert loud["angry"] > loud["neutral"] and (table.problem == "").all()
