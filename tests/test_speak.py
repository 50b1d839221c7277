"""Speaking a corpus: resumable, the same whatever the order, honest about what it could not say."""


import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, load_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.corpus_by_name import open_corpus
from zsemo_kit.synthesis.speak import resolve_languages, speak
from zsemo_kit.synthesis.speech_by_name import Speech, open_speech
from zsemo_kit.synthesis.voices import Engine, EngineError, Voice, open_engine

pytestmark = pytest.mark.usefixtures("own_cache")


class Hum(Engine):
    """A tone a word; can be told to fail."""

    name, licence, fingerprint, parallel = "hum", "none", "hum", "none"

    def __init__(self, fail: Callable[[int], Exception | None] = lambda n: None) -> None:
        self.asked, self.fail = 0, fail

    def voices(self, language: str) -> tuple[Voice, ...]:
        if language == "xx":
            raise InputError("no voice speaks 'xx'", expected="en, de, pl")
        return tuple(Voice(f"{language}{k}", language, "male" if k % 2 else "female", pitch=20 * k) for k in range(6))

    def say(self, text: str, voice: Voice) -> np.ndarray:
        self.asked += 1
        error = self.fail(self.asked)
        if error is not None:
            raise error
        t = np.arange(int(0.3 * RATE * len(text.split()))) / RATE
        wave = sum(np.sin(2 * np.pi * k * (100 + voice.pitch) * t) / k for k in range(1, 10))
        return (0.1 * wave * (1.1 + np.sin(8 * t))).astype(np.float32)


def sentences(n: int = 4) -> Corpus:
    rows = [(f"d{d}{e}", f"d{d}", f"Sentence number {d} is here.", e) for d in range(n) for e in ("neutral", "happy", "sad")]
    return Corpus("toy", pd.DataFrame(rows, columns=["utterance", "dialogue", "text", "emotion"]))


def files_of(corpus: Corpus) -> dict[str, str]:
    return dict(zip(corpus.table.utterance, corpus.table.audio, strict=True))


def test_a_broken_off_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    def stop(n: int) -> Exception | None:
        return EngineError("the server went away") if n == 3 else None

    with pytest.raises(EngineError, match="went away"):
        speak(sentences(), Hum(stop), tmp_path / "a")
    early = {p.name for p in (tmp_path / "a").rglob("*.flac")}
    assert early and not list((tmp_path / "a").rglob("*.part*"))
    rest = Hum()
    whole = speak(sentences(), rest, tmp_path / "a")
    once = speak(sentences(), Hum(), tmp_path / "b")
    assert 1 <= rest.asked <= 2, "two of four readings were there, or three if one was being made"
    assert files_of(whole.corpus) == files_of(once.corpus)
    for audio in whole.corpus.table.audio:
        assert (tmp_path / "a" / audio).read_bytes() == (tmp_path / "b" / audio).read_bytes()


def test_order_of_rows_and_further_takes_change_nothing(tmp_path: Path) -> None:
    corpus = sentences()
    one = files_of(speak(corpus, Hum(), tmp_path).corpus)
    two = speak(corpus, Hum(), tmp_path, takes=3).corpus
    assert {u: a for u, a in files_of(two).items() if u in one} == one
    assert two.table.groupby("script").voice.nunique().eq(3).all()
    assert two.table.groupby(["script", "take"]).voice.nunique().eq(1).all(), "one person reads a sentence in every emotion"
    assert len(two) == 3 * len(corpus) and two.table.utterance.is_unique


def test_changed_settings_never_meet_old_sounds(tmp_path: Path) -> None:
    made = [files_of(speak(sentences(1), Hum(), tmp_path, **how).corpus) for how in (
        {}, {"inject": "none"}, {"strength": 0.5}, {"seed": 1}, {"conditions": "random"}, {"calibrate": True})]
    assert len({audio for files in made for audio in files.values()}) == sum(len(set(files.values())) for files in made)


def test_without_injection_all_emotions_are_one_sound(tmp_path: Path) -> None:
    table = speak(sentences(), Hum(), tmp_path, inject="none").corpus.table
    assert table.groupby("dialogue").audio.nunique().eq(1).all()


def test_gender_is_kept_and_speakers_of_a_dialogue_differ(tmp_path: Path) -> None:
    rows = [(f"u{i}", "d", i, "AB"[i % 2], ("male", "female")[i % 2], f"Line {i} of it.", "neutral") for i in range(4)]
    table = pd.DataFrame(rows, columns=["utterance", "dialogue", "turn", "speaker", "gender", "text", "emotion"])
    said = speak(Corpus("talk", table), Hum(), tmp_path).corpus.table
    assert said.groupby("speaker").voice.nunique().eq(1).all() and said.voice.nunique() == 2
    assert [int(v[-1]) % 2 for v in said.voice] == [1, 0, 1, 0], "odd voices are men's"


def test_what_cannot_be_said_is_told_and_kept(tmp_path: Path) -> None:
    corpus = sentences(2)
    texts = corpus.table.text.tolist()
    texts[0], texts[4] = "", "(laughs)"

    def refuse(n: int) -> Exception | None:
        return InputError("not this one") if n == 2 else None

    said = speak(replace(corpus, table=corpus.table.assign(text=texts)), Hum(refuse), tmp_path)
    assert len(said.corpus) == 6 and said.corpus.table.audio.eq("").sum() == len(said.problems) >= 3
    assert set(said.problems.columns) == {"utterance", "text", "problem"} and said.problems.problem.ne("").all()
    assert Corpus.load(tmp_path).table.audio.ne("").sum() == 6 - len(said.problems)


@pytest.mark.parametrize(("how", "told"), [
    ({"inject": "magic"}, "none or prosody"), ({"takes": 0}, "takes of 1 or more"), ({"strength": 9.0}, "strength 0 to 2"),
    ({"conditions": "moon"}, "unknown recording conditions"),
    ({"language": "xx"}, "no voice speaks 'xx', of 12 of 12 utterances"),
    ({"language": "Klingonese"}, "names no language"),
])
def test_bad_settings_end_before_anything_is_said(tmp_path: Path, how: dict[str, Any], told: str) -> None:
    engine = Hum()
    with pytest.raises(InputError, match=told):
        speak(sentences(), engine, tmp_path / "x", **how)
    assert not engine.asked and not (tmp_path / "x").exists()


def test_nothing_to_say_is_refused(tmp_path: Path) -> None:
    corpus = sentences(1)
    with pytest.raises(InputError, match="nothing of toy could be spoken"):
        speak(replace(corpus, table=corpus.table.assign(text="...")), Hum(), tmp_path)


def rows_of(*texts: str, **columns: list[Any]) -> Corpus:
    rows = pd.DataFrame([(f"u{i}", text, "") for i, text in enumerate(texts)], columns=["utterance", "text", "emotion"])
    return Corpus("t", rows.assign(**columns))


@pytest.mark.parametrize(("texts", "column", "default", "tags", "noted"), [
    (["Ich weiß nicht."], None, "", "de", ["no language is told for 1 of 1 utterances; German (de) is taken, by their words"]),
    (["Good morning to you.", "Leave me alone, will you?"], None, "", "en en", []),
    (["Hm."], None, "", "en", ["English (en) is taken, for their words do not tell"]),
    (["Привет!"], None, "", "ru", ["Russian (ru) is taken"]),
    (["你好，很高兴见到你。"], None, "", "zh", ["Chinese (zh) is taken, by"]),
    (["こんにちは。"], None, "", "ja", ["Japanese (ja)"]), (["42!", "😀", ""], None, "", "en en en", []),
    (["שלום וברכה לכולם"], None, "", "he", ["Hebrew (he)"]),
    (["<b>Guten Morgen</b>, lieber Freund"], None, "", "de", ["German (de)"]),
    (["Ich weiß nicht."], None, "deutsch", "de", []), (["Hello."] * 3, ["EN", "ENG", "en_US"], "", "en en en-US", []),
    (["Nie wiem, co powiedzieć."] * 5, [float("nan"), "und", "mul", None, "pol"], "", "pl pl pl pl pl", ["for 4 of 5"]),
    (["Guten Morgen.", "Good morning."], ["", "en"], "German", "de en", []),
    (["Hello."], ["en"], "de", "en", ["'de' is not needed"]),
    (["Ich weiß wirklich nicht, was das soll."], None, "en", "en",
     ["English (en) is told for 1 of 1 utterances, but their words look German"]),
    (["Leave me alone, please, will you?", "Go away, my friend, will you?", "Ich weiß wirklich nicht, was das soll."], None,
     "", "en en en",
     ["1 of 3 utterances look German (de), 'u2' first"]),
])
def test_languages_are_told_or_guessed_and_said(
    texts: list[str], column: list[Any] | None, default: str, tags: str, noted: list[str],
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert resolve_languages(rows_of(*texts, **({"language": column} if column else {})), default) == tags.split()
    assert len(told) == len(noted), [str(w.message) for w in told]
    for warning, part in zip(told, noted, strict=True):
        assert part in str(warning.message)


def test_a_word_that_names_no_language_is_told_with_its_row() -> None:
    with pytest.raises(InputError, match=r"row 1 \(utterance 'u1'\): bad 'language'; .*found 'Germn'; is it German \(de\)"):
        resolve_languages(rows_of("Hallo.", "Hallo.", language=["de", "Germn"]))


def test_what_always_fails_is_not_tried_to_the_end(tmp_path: Path) -> None:
    corpus = rows_of(*(f"Sentence number {i} is here." for i in range(40)))
    broken = Hum(lambda n: InputError(f"cannot say 'Sentence number {n}'"))
    with pytest.raises(EngineError, match=r"the first 10 utterances all fail in one way.*cannot say"):
        speak(corpus, broken, tmp_path)
    late = Hum(lambda n: None if n == 1 else InputError("cannot say it"))
    assert len(speak(corpus, late, tmp_path).problems) == 39, "one that can be said shows that it is the texts"


def test_a_name_before_the_words_is_not_spoken(tmp_path: Path) -> None:
    corpus = rows_of("Anna: Well, hello.", "Tom: come here!", speaker=["d1.Anna", "d1.Anna"])
    assert list(speak(corpus, Hum(), tmp_path).corpus.table.spoken) == ["Well, hello.", "Tom: come here!"]


@pytest.mark.parametrize(("card", "language"), [("ravdess", "en"), ("emodb", "de"), ("nemo", "pl")])
def test_cards_are_spoken_in_their_language(tmp_path: Path, card: str, language: str) -> None:
    corpus = open_corpus(f"{card}_synthetic", "four")
    some = replace(corpus, table=corpus.table.head(8))
    assert set(resolve_languages(some)) == {language}
    said = speak(some, open_engine("espeak"), tmp_path)
    assert said.problems.empty and said.seconds > 8
    sounds = [load_audio(tmp_path / a) for a in said.corpus.table.audio]
    assert all(0.4 * RATE < len(s) < 15 * RATE and 0.01 < np.abs(s).max() <= 0.98 for s in sounds)


def test_speech_by_name_is_spoken_once(tmp_path: Path) -> None:
    how = Speech(takes=1, inject="none")
    one = open_speech("nemo_synthetic", "four", how)
    made = sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*.flac"))
    two = open_speech("nemo_synthetic", "four", how)
    assert files_of(one) == files_of(two) and sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*.flac")) == made
    both = open_speech("nemo_synthetic+emodb_synthetic", "four", how)
    assert set(both.table.corpus) == {"nemo_synthetic", "emodb_synthetic"}
    assert all((both.root / a).is_file() for a in both.table.audio)


def test_commands_speak_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([*words])
        said = capsys.readouterr()
        return int(stopped.value.code or 0), json.loads(said.out) if said.out.startswith("{") else {}, said.err

    words = ("speak", "nemo_synthetic", "--space", "four", "--takes", "1", "--inject", "none", "--out", "said", "--json")
    code, told, _ = run(*words)
    assert code == 0 and told["utterances"] == 128 and told["problems"] == 0 and told["seconds_of_speech"] > 50
    assert run(*words)[1]["seconds_of_speech"] == 0, "all there"
    code, told, _ = run("export", "s3prl", "said", "exported", "--json")
    assert code == 0 and sorted(told["labels"]) == ["angry", "happy", "neutral", "sad"]
    assert (tmp_path / "exported" / "README.md").is_file()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "mine.csv").write_text("utterance,text,emotion\nu1,Ich weiß nicht.,sad\nu2,Guten Morgen.,happy\n")
    code, told, noted = run("speak", "mine.csv", "--takes", "1", "--voices", "f2,m3", "--out", "own", "--json")
    assert code == 0 and told["problems"] == 0 and noted.startswith("note  mine: no language is told") and "--language" in noted
    assert set(Corpus.load(tmp_path / "own").table.voice.str.split(".").str[1]) <= {"f2", "m3"}
    refusal = run("speak", "mine.csv", "--language", "zu", "--out", "zu")[2].splitlines()[-1]
    assert refusal.startswith("zsemo: espeak has no voice for the language Zulu (zu), of 2 of 2 utterances; expected one of its")
    for bad in (("speak", "nowhere"), ("speak", "nemo_synthetic", "--voice", "flute"), ("export", "s3prl", "nemo_synthetic", "x"),
                ("speak", "nemo_synthetic", "--profile", "fitted:nowhere"), ("speak", "nemo_synthetic", "--out", "taken"),
                ("speak", "nemo_synthetic", "--voices", "onyx"), ("speak", "mine.csv", "--language", "Klingonese")):
        code, _, error = run(*bad)
        assert code == 2 and error.startswith("zsemo: ") and error.count("\n") == 1
