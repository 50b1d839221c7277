"""A list of recordings is explained line by line: what is wrong with one never ends the others."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.cli import main
from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, save_audio, utterance_audio
from zsemo_kit.corpora.segments import stretches
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis.annotation import Annotator
from zsemo_kit.training.explain import NOBODY, Explained, as_table, explain, open_annotator, read_scp, within
from zsemo_kit.training.speechllm import SpeechLLM, tiny_llm

Run = Callable[..., tuple[int, str, str]]


def tone(seconds: float, hertz: float = 150.0, rate: int = RATE, loud: float = 0.2, syllables: float = 4.0) -> np.ndarray:
    "Harmonics in syllables: what Praat takes for a voice."
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 9))
    return np.asarray(loud * wave / 2 * (0.55 + 0.45 * np.sin(2 * np.pi * syllables * t)), np.float32)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ZSEMO_CORPORA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    "Six voices, one of them at another rate, one of them long."
    folder = tmp_path / "wav"
    for i, hertz in enumerate([100, 120, 140, 200, 230, 260]):
        rate = 44_100 if i == 1 else RATE
        save_audio(folder / f"v{i}.wav", tone(7 if i == 2 else 1.2, hertz, rate, 0.05 + 0.03 * i, 3 + i / 2), rate)
    return folder


def scp(folder: Path, text: str | bytes, name: str = "list.scp") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def listed(folder: Path) -> Corpus:
    corpus, problems = read_scp(scp(folder.parent, "".join(f"v{i}\twav/v{i}.wav\n" for i in range(6))))
    assert problems.empty
    return corpus


class Model:
    "Says what it is told to: an answer and a probability of happy for each utterance; None is one that it cannot read."
    labels = ("sad", "happy")
    config = SimpleNamespace(kind="EGPSV", reads=(), seconds=6.0)

    def __init__(self, answers: dict[str, tuple[str, float] | None], annotator: Annotator | None = None) -> None:
        self.answers, self.annotator, self.asked = answers, annotator, [0]
        self.problems = pd.DataFrame(columns=["utterance", "problem"])

    def answer(self, corpus: Corpus, *, free: bool = False) -> pd.DataFrame:
        rows, lost = [], []
        for u in corpus.table["utterance"]:
            self.asked.append(len(corpus))
            said = self.answers.get(u, ("happy", 0.9))
            if said is None:
                lost.append({"utterance": u, "problem": "too odd to read"})
                continue
            text, p = said
            guess = text.split(":")[0] if text.split(":")[0] in self.labels else ""
            rows.append({"utterance": u, "answer": text, "guess": guess, "confidence": max(p, 1 - p) if guess else math.nan,
                         "parsed": bool(guess), "p_sad": 1 - p, "p_happy": p})
        self.problems = pd.DataFrame(lost, columns=["utterance", "problem"])
        columns = ["utterance", "answer", "guess", "confidence", "parsed", "p_sad", "p_happy"]
        return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    "Four sentences with pauses, one of them far from the microphone, in stereo; and a room in which nobody speaks."
    noise = np.random.default_rng(0)
    still = [np.zeros(round(s * RATE), np.float32) for s in (0.7, 0.5, 0.6, 1.5, 0.5)]
    said = [tone(2.0, 120), tone(1.0, 220, loud=0.02), tone(6.0, 150), tone(0.5, 200)]
    sound = np.concatenate([x for pair in zip(still, [*said, still[0]], strict=True) for x in pair])
    save_audio(tmp_path / "talk.wav", sound + 2e-4 * noise.normal(size=len(sound)))
    save_audio(tmp_path / "room.wav", 2e-4 * noise.normal(size=2 * RATE))
    return scp(tmp_path, "talk\ttalk.wav\nroom\troom.wav\n", "talk.scp")


def test_a_long_recording_is_cut_at_its_pauses(talk: Path) -> None:
    corpus, notes = within(read_scp(talk)[0], 30, "sentences")
    assert list(corpus.table["utterance"]) == ["talk#1", "talk#2", "talk#3", "talk#4"] == list(corpus.table["part_of"])
    found = corpus.table[["start", "end"]].to_numpy()
    assert np.allclose(found, [(0.6, 2.8), (3.1, 4.3), (4.7, 10.9), (12.2, 12.9)], atol=0.2)
    assert notes.to_dict("records") == [{"utterance": "room", "note": NOBODY}]
    short, _ = within(read_scp(talk)[0], 2.5, "sentences")
    lengths = short.table["end"] - short.table["start"]
    assert lengths.max() <= 2.5 and len(short) > 5 and lengths.sum() == pytest.approx((found[:, 1] - found[:, 0]).sum(), abs=0.1)
    assert (short.table["start"].to_numpy()[1:] >= short.table["end"].to_numpy()[:-1] - 1e-9).all()


def test_an_hour_needs_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    import resource

    import soundfile
    minute = np.concatenate([np.zeros(RATE // 2, np.float32), tone(1.5, 130)] * 30)
    for name, times in (("minute", 1), ("hour", 60)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", RATE, 1) as file:
            for _ in range(times):
                file.write(minute)
    assert len(stretches(tmp_path / "minute.wav")) == 30
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(stretches(tmp_path / "hour.wav")) == 1800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, "kilobytes"


@pytest.mark.parametrize(("samples", "n"), [
    (np.zeros(8000), 0), (np.full(8000, 0.5), 0), (tone(0.05), 0), (tone(1.0), 1),
    (np.concatenate([tone(1.0), np.zeros(100)]), 1),
    (0.3 * np.sin(np.arange(40_000)), 1), (np.concatenate([np.zeros(9000), [0.9], np.zeros(9000)]), 0),
])
def test_odd_sounds_have_the_stretches_that_are_heard(tmp_path: Path, samples: np.ndarray, n: int) -> None:
    found = stretches(save_audio(tmp_path / "x.wav", samples))
    assert len(found) == n and all(0 <= a < b <= len(samples) / RATE for a, b in found)


@pytest.mark.parametrize("by", [("--annotate",), ("--model", "any")])
def test_each_sentence_is_explained_with_its_seconds(
    talk: Path, by: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SpeechLLM, "load", lambda folder, **more: Model({"talk#3": ("sad", 0.1)}))
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(talk), *by, "--long", "sentences", "--json"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert stopped.value.code == 1 and records[-1] == {"utterance": "room", "line": None, "problem": NOBODY}
    sentences = records[:-1]
    assert {r["recording"] for r in sentences} == {"talk"} and all(0.1 < r["end"] - r["start"] <= 6.5 for r in sentences)
    if "--model" in by:
        assert [r["emotion"] for r in sentences[:4]] == ["happy", "happy", "sad", "happy"]
    with pytest.raises(SystemExit):
        main(["explain", str(talk), *by, "--long", "sentences", "--out", "x.jsonl"])
    table = capsys.readouterr().out
    assert "start" in table and "not explained  room: nobody speaks in it" in table and "line None" not in table


def test_a_list_in_which_nobody_speaks_is_told(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk.write_text("room\troom.wav\n")
    with pytest.raises(SystemExit):
        main(["explain", str(talk), "--annotate", "--long", "sentences"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("zsemo: nobody speaks in ") and told.endswith("found 1 recordings without a stretch of speech")


# --- lists

def test_good_lines_go_on_whatever_the_others_are(voices: Path) -> None:
    (voices / "empty.wav").touch()
    (voices / "text.wav").write_text("no sound at all")
    (voices / "short.wav").write_bytes((voices / "v0.wav").read_bytes()[:6000])
    save_audio(voices / "still.wav", np.zeros(8000))
    rows = ["a\twav/v0.wav", "", "no tab", "\twav/v0.wav", "b\t", "a\twav/v1.wav", "c\tgone.wav", "d\twav/empty.wav",
            "e\twav/text.wav", "f\twav/short.wav", "g\twav/still.wav", "h\twav", "i\twav/v1.wav\tmore", "   ",
            f" j \t {voices / 'v2.wav'} ", "k\twav/../wav/v3.wav\r"]
    corpus, problems = read_scp(scp(voices.parent, "\n".join(rows)))
    assert list(corpus.table["utterance"]) == ["a", "j", "k"]
    told = dict(zip(problems["line"], problems["problem"], strict=True))
    parts = {3: "no tab", 4: "id is empty", 5: "path is empty", 6: "id is that of line 1", 7: "gone.wav: there is no such file",
             8: "the file is empty", 9: "not audio", 10: "cut short", 11: "silent", 12: "no such file", 13: "more than one tab"}
    assert list(told) == list(parts)
    for line, part in parts.items():
        assert part in told[line] and "\n" not in told[line], told[line]
        assert str(voices.parent) not in told[line]  # paths as the list has them


def test_an_scp_may_name_files_anywhere(tmp_path: Path) -> None:
    save_audio(tmp_path / "one" / "x.wav", tone(0.5))
    save_audio(tmp_path / "two" / "deep" / "é ü.wav", tone(0.5))
    (tmp_path / "lists").mkdir()
    corpus, problems = read_scp(scp(tmp_path / "lists", "x\t../one/x.wav\nß\t../two/deep/é ü.wav\n"))
    assert problems.empty and list(corpus.table["audio"]) == ["one/x.wav", "two/deep/é ü.wav"]
    assert [len(utterance_audio(corpus, i)) for i in range(2)] == [8000, 8000]
    assert set(corpus.table["emotion"]) == {""}


def test_a_byte_order_mark_windows_ends_and_other_encodings(voices: Path) -> None:
    corpus, _ = read_scp(scp(voices.parent, b"\xef\xbb\xbfa\twav/v0.wav\r\nb\twav/v1.wav\r\n"))
    assert list(corpus.table["utterance"]) == ["a", "b"]
    corpus, problems = read_scp(scp(voices.parent, b"a\twav/v0.wav\nb\xe9\twav/v1.wav\n"))
    assert len(corpus) == 1 and problems["problem"].item() == "it is not UTF-8"
    with pytest.raises(InputError, match="no list of recordings"):
        read_scp(scp(voices.parent, "a\twav/v0.wav".encode("utf-16")))
    with pytest.raises(InputError, match="cannot read"):
        read_scp(voices)


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_name_that_a_corpus_cannot_keep_is_its_line_only(voices: Path) -> None:
    (voices / "c:d.wav").write_bytes((voices / "v0.wav").read_bytes())
    corpus, problems = read_scp(scp(voices, "a\tc:d.wav\nb\tv0.wav\n"))
    assert list(corpus.table["utterance"]) == ["b"] and "rename" in problems["problem"].item()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(tmp_path: Path, data: bytes) -> None:
    try:
        corpus, problems = read_scp(scp(tmp_path, data, "any.scp"))
    except InputError:
        return
    lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    assert len(corpus) == 0 and len(problems) == len(lines)
    assert problems["problem"].ne("").all() and problems["line"].is_monotonic_increasing


# --- too long

@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.3, 8), st.sampled_from(["cut", "split"]), st.floats(0, 1), st.floats(1.5, 7))
def test_parts_tile_an_utterance_and_none_is_too_long(voices: Path, limit: float, how: str, start: float, end: float) -> None:
    corpus = listed(voices).where({"utterance": "v2"})
    corpus = replace(corpus, table=corpus.table.assign(start=start, end=end))
    made, notes = within(corpus, limit, how)
    t = made.table
    assert (t["end"] - t["start"] <= limit + 1e-4).all() and set(t["part_of"]) == {"v2"}
    assert t["start"].iloc[0] == pytest.approx(start, abs=1e-4)
    if how == "split":
        assert t["end"].iloc[-1] == pytest.approx(end, abs=1e-4)
        assert np.allclose(t["start"].iloc[1:], t["end"].iloc[:-1])
    assert len(notes) == int(end - start > limit + 1e-4) or end - start == pytest.approx(limit, abs=1e-3)
    assert sum(len(utterance_audio(made, i)) for i in range(len(made))) <= (end - start) * RATE + 2


def test_parts_have_names_of_their_own(voices: Path) -> None:
    corpus, _ = read_scp(scp(voices.parent, "a\twav/v2.wav\na#1\twav/v0.wav\n"))
    made, _ = within(corpus, 4, "split")
    assert list(made.table["utterance"]) == ["a##1", "a##2", "a#1"]
    assert list(made.table["part_of"]) == ["a", "a", "a#1"]
    assert list(within(made, 2, "split")[0].table["part_of"]) == ["a"] * 4 + ["a#1"]  # a part of a part is one of the whole


def test_a_file_that_went_away_stays_in_the_list(voices: Path) -> None:
    corpus = listed(voices)
    (voices / "v0.wav").unlink()
    made, notes = within(corpus, 4, "split")
    assert len(made) == 7 and set(notes["utterance"]) == {"v1", "v2"}
    found = list(explain(made, Model({"v0": None}), notes=notes))
    assert found[0].problem == "too odd to read" and all(not e.problem for e in found[1:])
    alone = list(explain(made, notes=notes))
    assert "v0.wav" in alone[0].problem or "no such file" in alone[0].problem
    assert all(not e.problem and e.evidence for e in alone[1:])


# --- what is said

def test_a_split_utterance_is_one_again(voices: Path) -> None:
    parts, notes = within(listed(voices), 2.5, "split")
    model = Model({"v2#1": ("sad", 0.1), "v2#2": ("happy", 0.8), "v2#3": ("happy", 0.9)})
    found = list(explain(parts, model, notes=notes, batch=1))
    assert [e.utterance for e in found] == [f"v{i}" for i in range(6)]
    whole = found[2]
    assert whole.emotion == "happy" and whole.confidence == pytest.approx(0.6)
    assert whole.probabilities == pytest.approx({"sad": 0.4, "happy": 0.6})
    assert [p.emotion for p in whole.parts] == ["sad", "happy", "happy"]
    assert len(whole.evidence) == sum(len(p.evidence) for p in whole.parts)
    assert all(p.explanation.rstrip(".") in whole.explanation for p in whole.parts)
    assert whole.notes[0].endswith("3 parts of 2.3 s") and found[1].notes == ("resampled from 44100 Hz to 16000 Hz",)
    assert max(model.asked) == 3  # parts stay together


def test_a_part_without_an_answer_is_a_note(voices: Path) -> None:
    parts, _ = within(listed(voices).where({"utterance": "v2"}), 4, "split")
    one = next(explain(parts, Model({"v2#1": None, "v2#2": ("sad", 0.2)})))
    assert (one.emotion, one.problem) == ("sad", "") and "v2#1: too odd to read" in one.notes
    none = next(explain(parts, Model({"v2#1": None, "v2#2": None})))
    assert (none.emotion, none.problem) == ("", "too odd to read") and math.isnan(none.confidence)


def test_claims_are_held_against_what_was_measured(voices: Path) -> None:
    corpus = listed(voices)
    judge = Annotator.fit(corpus)
    said: dict[str, tuple[str, float] | None] = {
        "v0": ("happy: a man speaks with high pitch and low volume.", 0.9), "v5": ("happy: a woman speaks with high pitch.", 0.9)}
    low, high = (e for e in list(explain(corpus, Model(said), judge)) if e.utterance in said)
    assert low.written_by == high.written_by == "model" and low.explanation.startswith("happy: a man")
    agrees = {c.attribute: bool(c.agrees) for c in low.claims}
    assert agrees["pitch"] is (low_word(low, "pitch") == "high") and agrees["volume"] is (low_word(low, "volume") == "low")
    assert "emotion" not in agrees
    assert {c.attribute for c in high.claims} == {"gender", "pitch"}


def low_word(one: Explained, attribute: str) -> str:
    return next(str(e.word) for e in one.evidence if e.attribute == attribute)


def test_a_model_that_only_names_emotions_is_described(voices: Path) -> None:
    one = next(explain(listed(voices), Model({"v0": ("sad", 0.3)})))
    assert one.written_by == "template" and one.explanation.startswith("sad: ") and one.answer == "sad"
    assert one.claims and all(c.agrees for c in one.claims)


def test_an_answer_that_does_not_parse_is_no_emotion(voices: Path) -> None:
    one = next(explain(listed(voices), Model({"v0": ("what a lovely day", 0.3)}), free=True))
    assert one.emotion == "" and math.isnan(one.confidence) and one.problem == ""
    assert any("does not name an emotion" in n for n in one.notes)


def test_annotation_alone_has_no_emotion(voices: Path) -> None:
    corpus = listed(voices)
    found = list(explain(corpus, gender="measured"))
    assert {e.emotion for e in found} == {""} and all(e.written_by == "template" for e in found)
    measured = {e.attribute: e for e in found[0].evidence}
    assert measured["pitch"].value == pytest.approx(100, abs=2) and measured["pitch"].unit == "Hz"
    assert all(c.agrees for e in found for c in e.claims)


def test_answers_come_as_they_are_made(voices: Path) -> None:
    model = Model({})
    first = next(explain(listed(voices), model, batch=2))
    assert first.utterance == "v0" and len(model.asked) == 3


def test_records_are_json_without_nan(voices: Path) -> None:
    parts, notes = within(listed(voices), 4, "split")
    for one in [*list(explain(parts, Model({"v0": None, "v2#1": None}), notes=notes)), Explained("x")]:
        record = json.loads(json.dumps(one.record(), allow_nan=False))
        assert record["utterance"] == one.utterance and record["emotion"] == one.emotion
        assert [c["agrees"] for c in record["claims"]] == [c.agrees for c in one.claims]
        assert {"measure", "attribute", "word", "value", "unit", "limits"} == set().union(*record["evidence"]) or not one.evidence
        assert len(record.get("parts", [])) == len(one.parts)


def test_the_table_shows_numbers_and_agreement(voices: Path) -> None:
    shown = as_table(list(explain(listed(voices), Model({"v5": ("happy: a woman speaks with low pitch.", 0.75)}))))
    assert list(shown["utterance"]) == [f"v{i}" for i in range(6)]
    assert "Hz" in shown["pitch"].iloc[5] and shown["confidence"].iloc[5] == "0.75"
    assert " of " in shown["claims agree"].iloc[5]


def test_a_reference_is_its_training_part_only(voices: Path, tmp_path: Path) -> None:
    corpus = listed(voices)
    split = ["train"] * 3 + ["test"] * 3
    replace(corpus, table=corpus.table.assign(split=split)).save(tmp_path / "parts")
    train = Annotator.fit(corpus.where({"utterance": ["v0", "v1", "v2"]}))
    judge = open_annotator(str(tmp_path / "parts"))
    assert judge.thresholds.limits == train.thresholds.limits
    Corpus("words", pd.DataFrame({"utterance": ["a"], "text": ["hi"], "emotion": ["happy"]})).save(tmp_path / "words")
    with pytest.raises(InputError, match="no audio to measure"):
        open_annotator(str(tmp_path / "words"))


# --- the command

@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def called(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["explain", *map(str, words)])
        told = capsys.readouterr()
        return int(stopped.value.code or 0), told.out, told.err
    return called


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    made = Model({"v1": None, "v3": ("happy: a woman speaks with high speed.", 0.7)})
    monkeypatch.setattr(SpeechLLM, "load", lambda folder, **more: made)
    yield made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refused(told: tuple[int, str, str], *parts: str) -> None:
    code, out, err = told
    assert code == 2 and "Traceback" not in err and out == "", (code, out, err)
    last = err.strip().splitlines()[-1]
    assert last.startswith("zsemo: ") and all(p in last for p in parts), last


def test_command_with_a_model(run: Run, model: Model, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    with (tmp_path / "list.scp").open("a") as more:
        more.write("no tab here\nlost\tgone.wav\n")
    code, out, err = run("list.scp", "--model", "any", "--limit", 4, "--long", "split")
    assert code == 1, err  # some failed, the others are answered
    made = lines(tmp_path / "list.explained.jsonl")
    assert [r["utterance"] for r in made] == [*(f"v{i}" for i in range(6)), "no tab here", "lost"]
    assert [bool(r["problem"]) for r in made] == [False, True, False, False, False, False, True, True]
    assert made[0]["emotion"] == "happy" and made[0]["confidence"] == 0.9 and len(made[2]["parts"]) == 2
    assert "line 7: there is no tab" in out and "line 8: gone.wav: there is no such file" in out
    assert "v1: too odd to read" in out and "note  split: the probabilities of its parts are averaged: v2" in out
    assert "low and high are those of this list itself" in out and "5 of 8 utterances explained in list.explained.jsonl" in out


def test_command_annotates_without_a_model(run: Run, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    code, out, err = run("list.scp", "--annotate", "--out", "new/mine.jsonl")
    assert code == 0, err
    made = lines(tmp_path / "new" / "mine.jsonl")
    assert len(made) == 6 and all(r["emotion"] == "" and r["evidence"] and r["confidence"] is None for r in made)
    assert "resampled from 44100 Hz to 16000 Hz: v1" in out
    Annotator.fit(listed(voices), levels=5).save(tmp_path / "judge.json")
    code, out, _ = run("list.scp", "--annotate", "--reference", "judge.json", "--json")
    assert code == 0 and not (tmp_path / "list.explained.jsonl").exists()
    words = {e["word"] for r in map(json.loads, out.splitlines()) for e in r["evidence"]}
    assert "very high" in words


def test_command_writes_over_its_own_file_only(run: Run, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    assert run("list.scp", "--annotate", "--out", "x.jsonl")[0] == 0
    assert run("list.scp", "--annotate", "--out", "x.jsonl")[0] == 0
    before = (tmp_path / "list.scp").read_bytes()
    refused(run("list.scp", "--annotate", "--out", "list.scp"), "will not write over list.scp", "--out")
    refused(run("list.scp", "--annotate", "--out", "wav"), "will not write over wav")
    (tmp_path / "other.jsonl").write_text('{"mine": 1}\n')
    refused(run("list.scp", "--annotate", "--out", "other.jsonl"), "will not write over other.jsonl")
    assert (tmp_path / "list.scp").read_bytes() == before


@pytest.mark.parametrize(("words", "parts"), [
    (("list.scp",), ("--model DIR or --annotate", "neither")),
    (("list.scp", "--model", "m", "--annotate"), ("both",)),
    (("list.scp", "--annotate", "--free"), ("--free",)),
    (("list.scp", "--annotate", "--base-url", "http://127.0.0.1:9/v1"), ("--writer-model",)),
    (("none.scp", "--annotate"), ("none.scp",)),
    (("wav/v0.wav", "--annotate"), ("no list of recordings",)),
    (("list.scp", "--annotate", "--long", "fold"), ("split or sentences", "'fold'")),
    (("list.scp", "--annotate", "--limit", "0"), ("above 0",)),
    (("list.scp", "--annotate", "--reference", "nowhere"), ("nowhere",)),
    (("list.scp", "--annotate", "--reference", "none.json"), ("none.json",)),
    (("list.scp", "--annotate", "--transcripts", "./none"), ("none",)),
    (("list.scp", "--annotate", "--gender", "either"), ("either",)),
    (("list.scp", "--annotate", "--levels", "4"), ("4",)),
    (("empty.scp", "--annotate"), ("nothing in empty.scp", "an empty file")),
    (("bad.scp", "--annotate"), ("nothing in bad.scp", "line 2: there is no tab")),
])
def test_command_refuses_in_one_line(run: Run, voices: Path, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    listed(voices)
    scp(voices.parent, "", "empty.scp")
    scp(voices.parent, "\nall wrong\n", "bad.scp")
    refused(run(*words), *parts)
    assert not list(voices.parent.glob("*.jsonl"))


def test_command_where_nothing_can_be_answered(run: Run, model: Model, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    model.answers = dict.fromkeys((f"v{i}" for i in range(6)), None)
    refused(run("list.scp", "--model", "any"), "no utterance could be explained", "v0: too odd to read")
    assert not (tmp_path / "list.explained.jsonl").exists()


def test_ctrl_c_keeps_what_is_explained(run: Run, model: Model, voices: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from zsemo_kit.training import explain as module
    listed(voices)

    def stopped(*words: Any, **options: Any) -> Iterator[Explained]:
        yield from [Explained("v0", "happy"), Explained("v1", "sad")]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "explain", stopped)
    code, _, err = run("list.scp", "--model", "any")
    assert code == 130 and "2 utterances are explained in list.explained.jsonl" in err
    assert [r["utterance"] for r in lines(tmp_path / "list.explained.jsonl")] == ["v0", "v1"]


def test_a_model_that_reads_transcripts_says_so(run: Run, model: Model, voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(voices)
    monkeypatch.setattr(model, "config", SimpleNamespace(kind="E", reads=("transcript",), seconds=6.0))
    _, out, _ = run("list.scp", "--model", "any")
    assert "trained to read a transcript" in out


def test_a_model_hears_no_more_than_it_was_made_for(run: Run, model: Model, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    for words in ((), ("--limit", 20)):
        _, out, _ = run("list.scp", "--model", "any", *words)
        assert "note  cut: only the first 6 s: v2" in out
    _, out, _ = run("list.scp", "--annotate")
    assert "cut" not in out


# --- an LLM writes

def test_an_llm_writes_as_far_as_the_measurements_bear_it_out(run: Run, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    command = [sys.executable, str(Path(__file__).parent / "fake_llm.py"), "--log", str(tmp_path / "log")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        words = ("list.scp", "--annotate", "--writer-model", "fake", "--base-url", url)
        code, _, err = run(*words)
        assert code == 0, err
        asked = (tmp_path / "log").read_text().count("R ")
        assert run(*words)[0] == 0 and (tmp_path / "log").read_text().count("R ") == asked  # nothing is asked twice
    finally:
        server.kill()
        server.wait()
    made = lines(tmp_path / "list.explained.jsonl")
    assert {r["status"] for r in made} <= {"no_claim", "contradicts"} and 0 < asked <= 6  # the server writes a dialogue
    assert all(r["written_by"] == "template" and r["reply"] for r in made)
    assert [p.name for p in tmp_path.glob("*.sqlite")] == ["list.explained.replies.sqlite"]


def test_a_writer_that_is_not_there_is_one_line(run: Run, voices: Path) -> None:
    listed(voices)
    refused(run("list.scp", "--annotate", "--writer-model", "x", "--base-url", "http://127.0.0.1:9/v1"), "127.0.0.1:9")


# --- the real model, tiny

@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A speech LLM with fresh weights: it answers in form, and knows nothing."
    from zsemo_kit.training.speech_encoder import SpeechEncoder
    from zsemo_kit.training.speech_prompts import SpeechLLMConfig

    folder = tmp_path_factory.mktemp("speech_llm")
    for i, hertz in enumerate((110, 150, 220)):
        save_audio(folder / "wav" / f"{i}.wav", tone(1.2, hertz))
    table = pd.DataFrame({"utterance": list("abc"), "audio": [f"wav/{i}.wav" for i in range(3)], "emotion": "neutral"})
    with session.settings(cache=folder / "cache"):
        judge = Annotator.fit(Corpus("training", table, folder))
    texts = ["sad: a man speaks with low pitch.", "happy: a woman speaks with high pitch and normal speed.", "neutral"]
    with session.settings(cache=folder / "cache"):
        encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu")
    config = SpeechLLMConfig(connector="qpmapper", queries=4, seconds=3.0, words=6)
    made = SpeechLLM.make(("happy", "neutral", "sad"), encoder, tiny_llm(texts, width=16, heads=2), config, judge)
    return made.save(folder / "model")


def test_command_with_the_real_model(run: Run, saved: Path, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    with (tmp_path / "list.scp").open("a") as more:
        more.write("lost\tgone.wav\n")
    code, out, err = run("list.scp", "--model", saved, "--device", "cpu", "--long", "split")
    assert code == 1, err
    made = lines(tmp_path / "list.explained.jsonl")
    assert [r["utterance"] for r in made] == [*(f"v{i}" for i in range(6)), "lost"]
    for record in made[:-1]:
        assert record["emotion"] in ("happy", "neutral", "sad") and not record["problem"]
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert record["confidence"] == pytest.approx(record["probabilities"][record["emotion"]])
        assert {e["attribute"] for e in record["evidence"]} >= {"gender", "pitch", "volume"}
    assert len(made[2]["parts"]) == 3 and "low and high are those of training" in out
    again = run("list.scp", "--model", saved, "--device", "cpu", "--long", "split")
    assert again[0] == 1 and lines(tmp_path / "list.explained.jsonl") == made  # the same answers again


def test_command_refuses_broken_models_in_one_line(run: Run, saved: Path, voices: Path, tmp_path: Path) -> None:
    listed(voices)
    refused(run("list.scp", "--model", "nowhere"), "nowhere")
    for name, file in (("one", "llm/tokenizer.json"), ("two", "connector.safetensors")):
        shutil.copytree(saved, tmp_path / name)
        (tmp_path / name / file).unlink()
        refused(run("list.scp", "--model", name, "--device", "cpu"), name)
    assert not list(tmp_path.glob("*.jsonl"))
