"""Kokoro: what it says and by whom where ZSEMO_MODELS has it; names, files and refusals without it."""
# ruff: noqa: RUF001 - phonemes

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.models import find_model
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.written_corpus import open_recorded
from zsemo_kit.synthesis.espeak import Espeak
from zsemo_kit.synthesis.kokoro import Kokoro, _find_files, _phonemes, _style
from zsemo_kit.synthesis.speak import speak
from zsemo_kit.synthesis.transcription import open_listener, wer
from zsemo_kit.synthesis.voices import EngineError, cast, estimate_pitch, find_engines, guess_gender, open_engine

SENTENCE = "I thought the letter was on the kitchen table."
NAMES = ("af_bella", "af_heart", "af_sky", "am_adam", "am_puck", "bf_emma", "bm_george", "bm_lewis", "ef_dora", "ff_siwis",
         "jf_alpha", "zm_yunxi", "of_nobody", "plain")


def write(folder: Path, network: str = "model.onnx", voices: str = "voices.bin") -> Path:
    "The files of a model: an empty network, and voices of random numbers."
    styles = {n: np.random.default_rng(i).normal(size=(510, 1, 256)).astype("f4") for i, n in enumerate(NAMES)}
    for place in (folder / network, folder / voices):
        place.parent.mkdir(parents=True, exist_ok=True)
    (folder / network).touch()
    if voices.endswith("/"):
        (folder / voices).mkdir(exist_ok=True)
        for name, style in styles.items():
            style.tofile(folder / voices / f"{name}.bin")
    else:
        with (folder / voices).open("wb") as file:
            np.savez(file, **styles)
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write(tmp_path / "toy")


@pytest.fixture(scope="module")
def kokoro(models_dir: Path) -> Kokoro:
    if find_model("kokoro") is None:
        pytest.skip("kokoro is not in ZSEMO_MODELS")
    return Kokoro()


# ---------------------------------------------------------------- without the model

@pytest.mark.parametrize(("text", "phonemes"), [
    ("Well, is it 3.5 miles?", "wˈɛl, ɪz ɪt θɹˈiː pɔɪnt fˈaɪv mˈaɪlz?"), ("Yes!  No;", "jˈɛs! nˈoʊ;"), ("yes\nno", "jˈɛs nˈoʊ"),
    ("(Yes.) And?", "(jˈɛs.) ænd?"), ("wait—what", "wˈeɪt—wˌʌt"), ("", ""), ("...", "..."), ("Anna's", "ˈænəz"),
    ("x\x00y", "ˈɛks wˈaɪ"),
])
def test_phonemes_keep_the_marks_of_a_text(text: str, phonemes: str) -> None:
    assert _phonemes(text, "en-us") == phonemes


def test_phonemes_are_those_of_the_package(tmp_path: Path) -> None:
    "In a process of its own: its tokenizer changes what espeak says in the same one."
    code = """
from kokoro_onnx.tokenizer import Tokenizer
from zsemo_kit.generation.written_corpus import open_recorded
from zsemo_kit.synthesis.kokoro import _phonemes
from zsemo_kit.synthesis.speakable import make_speakable
texts = [make_speakable(t) for t in open_recorded("meld").table["text"][::150]]
own, theirs = [_phonemes(t, "en-us") for t in texts], [Tokenizer().phonemize(t, "en-us") for t in texts]
print(len(texts), [(a, b) for a, b in zip(own, theirs) if a != b])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, differ = done.stdout.partition(" ")
    assert int(count) > 20 and differ.strip() == "[]"


def test_the_voices_of_espeak_say_the_same_before_and_after() -> None:
    engine = Espeak()
    voices = engine.voices("en")[::9]
    before = [engine.say("Come in, please!", v) for v in voices]
    _phonemes(SENTENCE, "en")
    after = [engine.say("Come in, please!", v) for v in voices]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("network", "voices", "given"), [
    ("model.onnx", "voices.bin", ""), ("kokoro-v1.0.onnx", "voices-v1.0.bin", ""),
    ("kokoro-v1.0.onnx", "voices-v1.0.bin", "file"),
    ("onnx/model_quantized.onnx", "voices/", ""), ("onnx/model_quantized.onnx", "voices/", "file"),
])
def test_a_model_is_opened_in_every_form_in_which_it_is_published(tmp_path: Path, network: str, voices: str, given: str) -> None:
    folder = write(tmp_path / "m", network, voices)
    engine = Kokoro(str(folder / network if given else folder))
    assert {v.id for v in engine.voices("en") if "+" not in v.id} == {n for n in NAMES if n[0] in "ab"}
    assert _style(engine._place, "af_heart").shape == (510, 256)
    assert engine.fingerprint == Kokoro(str(folder)).fingerprint and engine.fingerprint.startswith("kokoro-")


@pytest.mark.parametrize("name", ["kokoro", "onnx-community/Kokoro-82M-v1.0-ONNX", "hexgrad/Kokoro-82M"])
def test_a_model_is_opened_by_name(toy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_MODELS", str(toy.parent))
    toy.rename(toy.with_name("kokoro"))
    assert _find_files(name)[0] == toy.with_name("kokoro") / "model.onnx"
    assert open_engine("kokoro", model=name).name == "kokoro" and "kokoro" in find_engines()


def test_what_is_not_there_is_one_line_with_what_to_do(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSEMO_MODELS", raising=False)
    monkeypatch.setenv("HF_HOME", str(toy.parent / "hub"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(EngineError, match=r"cannot be fetched .*; found ConnectionError; hf download .* export ZSEMO_MODELS"):
        Kokoro()
    with pytest.raises(EngineError, match="there is no Kokoro model 'someone/else'"):
        Kokoro("someone/else")
    (toy / "voices.bin").rename(toy.parent / "voices.bin")
    with pytest.raises(EngineError, match=r"toy is no Kokoro model; expected one ONNX file .*; found model\.onnx"):
        Kokoro(str(toy))
    shutil.copy(toy.parent / "voices.bin", toy)
    (toy / "other.onnx").touch()
    with pytest.raises(EngineError, match=r"found model\.onnx, other\.onnx, voices\.bin; give the ONNX file itself"):
        Kokoro(str(toy))
    broken = Kokoro(str(toy / "other.onnx"))
    with pytest.raises(EngineError, match=r"other\.onnx cannot be opened as a network"):
        broken.say(SENTENCE, broken.voices("en")[0])
    with pytest.raises(InputError, match="mixtures"):
        Kokoro(str(toy / "model.onnx"), mixtures=-1)


def refuse(*args: object, **more: object) -> None:
    raise ConnectionError("no network")


@pytest.mark.parametrize("package", ["kokoro_onnx", "onnxruntime"])
def test_a_missing_package_names_its_extra(toy: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"the package {package} is missing; pip install 'zsemo_kit\[kokoro\]'"):
        Kokoro(str(toy))


def test_the_letters_of_a_name_tell_language_and_gender(toy: Path) -> None:
    engine = Kokoro(str(toy), mixtures=0)
    languages = ("en", "en-GB", "French", "es-MX")
    of = {language: {v.id: (v.gender, v.accent) for v in engine.voices(language)} for language in languages}
    assert of["en"]["af_sky"] == ("female", "en-us") and of["en"]["bm_lewis"] == ("male", "en")
    assert set(of["en-GB"]) == {"bf_emma", "bm_george", "bm_lewis"} == {v.id for v in engine.voices("British")}
    assert {v.id[0] for v in engine.voices("en-US")} == {"a"} and {v.id[0] for v in engine.voices("en-AU")} == {"a", "b"}
    assert of["French"] == {"ff_siwis": ("female", "fr")} and of["es-MX"] == {"ef_dora": ("female", "es")}


@pytest.mark.parametrize("language", ["de", "Polish", "ja", "zh", "pt"])
def test_a_language_that_it_cannot_speak_is_refused(toy: Path, language: str) -> None:
    with pytest.raises(InputError, match=r"Kokoro has no voice for the language .*; expected one of its 4 languages"):
        Kokoro(str(toy)).voices(language)


def test_mixtures_are_of_one_accent_and_gender_and_each_is_another(toy: Path) -> None:
    engine = Kokoro(str(toy))
    ids = [v.id for v in engine.voices("en")]
    mixed = [i for i in ids if "+" in i]
    assert len(set(ids)) == len(ids) and ids[: len(ids) - len(mixed)] == sorted(set(ids) - set(mixed))
    assert set(mixed) == {f"{a}+{b}" for a in NAMES for b in NAMES if a != b and a[:2] == b[:2] and a[0] in "ab"}
    place = toy / "voices.bin"
    mixture, heart, bella = (_style(place, n) for n in ("af_heart+af_bella", "af_heart", "af_bella"))
    assert np.array_equal(mixture[:, :128], heart[:, :128]) and np.array_equal(mixture[:, 128:], bella[:, 128:])
    for bad in ("af_heart+am_adam", "af_heart+bf_emma", "af_heart+", "af_heart+af_nobody", "af_heart+af_bella+af_sky"):
        with pytest.raises(InputError, match=r"no mixture .*; expected two voices of one accent and gender"):
            Kokoro(str(toy), bad).voices("en")
    some = Kokoro(str(toy), "AF_Heart+AF_sky, am_puck:female").voices("en")
    assert [(v.id, v.gender) for v in some] == [("am_puck", "female"), ("af_heart+af_sky", "female")]
    with pytest.raises(InputError, match="no voice is called 'onyx'"):
        Kokoro(str(toy), "onyx").voices("en")


def test_more_speakers_than_voices_have_distinct_ones(toy: Path) -> None:
    table = open_recorded("meld").table.head(40).assign(dialogue="one", gender="female")
    table["speaker"] = [f"s{i % 7}" for i in range(len(table))]
    voices = cast(table, Kokoro(str(toy)).voices("en"))
    assert len({v.id for v in voices}) == 7 > 4, "four women are in the file"


# ---------------------------------------------------------------- with it

def test_it_says_the_same_each_time_and_within_reason(kokoro: Kokoro) -> None:
    voices = {v.id: v for v in kokoro.voices("en")}
    assert len([v for v in voices if "+" not in v]) == 28
    first = kokoro.say(SENTENCE, voices["af_heart"])
    kokoro.say("Something else.", voices["am_adam"])
    sent = pickle.loads(pickle.dumps(kokoro))
    assert np.array_equal(first, sent.say(SENTENCE, voices["af_heart"]))
    assert first.dtype == np.float32 and first.ndim == 1 and 1.5 < len(first) / 16_000 < 4 and 0.1 < np.abs(first).max() <= 1
    mixed = kokoro.say(SENTENCE, voices["af_heart+af_jessica"])
    assert not np.array_equal(mixed[: len(first)], first[: len(mixed)])


def test_genders_are_heard(kokoro: Kokoro) -> None:
    for voice in kokoro.voices("en"):
        if voice.id in ("af_heart", "am_michael", "bf_emma", "bm_george"):
            assert guess_gender(estimate_pitch(kokoro.say(SENTENCE, voice))) == voice.gender, voice.id


def test_a_long_text_is_said_whole(kokoro: Kokoro) -> None:
    voice = next(v for v in kokoro.voices("en") if v.id == "af_heart")
    text = "".join(f"This is sentence number {n} of a long letter, and it is not the last. " for n in ("one", "two", "three"))
    assert len(_phonemes(text * 4, "en-us")) > 510
    one, four = (len(kokoro.say(text * n, voice)) for n in (1, 4))
    assert 3.5 < four / one < 4.5


@pytest.mark.parametrize("text", ["", "   ", "...?!", "😀"])
def test_silence_is_refused(kokoro: Kokoro, text: str) -> None:
    with pytest.raises(InputError, match="nothing to say"):
        kokoro.say(text, kokoro.voices("en")[0])


def test_a_corpus_is_spoken_and_understood(kokoro: Kokoro, models_dir: Path, tmp_path: Path) -> None:
    some = open_recorded("ravdess")
    some = replace(some, table=some.table.head(2))
    with settings(jobs=1):
        made = speak(some, kokoro, tmp_path, inject="none")
    assert len(made.problems) == 0 and set(made.corpus.table["voice_licence"]) == {kokoro.licence}
    assert "Apache-2.0" in kokoro.licence and Corpus.load(tmp_path).table["engine"].nunique() == 1
    if find_model("whisper-base") is None:
        pytest.skip("whisper-base is not in ZSEMO_MODELS")
    heard = [text for _, text, _ in sorted(open_listener("whisper-base", language="en").texts(made.corpus))]
    assert wer(list(made.corpus.table["text"]), [str(t) for t in heard]) < 0.2
