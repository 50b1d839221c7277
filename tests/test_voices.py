"""Engines, casting and spoken text: contracts, properties, and what goes wrong."""

# ruff: noqa: RUF001 (the signs that look alike are the point)

import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.generation.written_corpus import open_recorded
from zsemo_kit.synthesis.espeak import Espeak, _data, _languages, phonemize
from zsemo_kit.synthesis.languages import language_tag
from zsemo_kit.synthesis.speakable import make_speakable, why_unspeakable
from zsemo_kit.synthesis.speech_server import OPENAI_VOICES, SpeechServer
from zsemo_kit.synthesis.voices import EngineError, Voice, cast, estimate_pitch, find_engines, guess_gender, open_engine

# ---------------------------------------------------------------- spoken text

SPOKEN = [
    ("Hello there.", "Hello there."),
    ("[laughs] Sure. {beat} Fine.", "Sure. Fine."),
    ("*sighs heavily* I *really* tried.", "I really tried."),
    ("(whispering) Don't (please) move.", "Don't, please, move."),
    ("I KNOW WHAT YOU DID!!!!", "I know what you did!"),
    ("The FBI and NASA on TV.", "The FBI and nasa on TV."),
    ("WHAT?! NO WAY... I'M OUT", "what? no way, I'm out"),
    ("See [my page](https://x.org/a) or www.y.com, now", "See my page or now"),
    ("Wait — what... you?!", "Wait, what, you?"),
    ("It\x92s \x93fine\x94\x85", "It's fine."),
    ("Donâ€™t, cafÃ©", "Don't, café"),
    ("<b>Stop</b> &amp; listen 😀 :-) <3", "Stop & listen"),
    ("Nooooo, sooo good, hmmmmm", "No, so good, hmm"),
    ("10–12 of 3.5 at -5 °C, 50 %", "10-12 of 3.5 at -5 °C, 50 %"),
    ("# Heading", "Heading"),
    ("a\x00b\x01 50P c\u200bd\ud800", "ab 50P cd"),
    ("ﬁne Ｆｕｌｌ", "fine Full"),
    ("Speaker 1: I got the job!", "I got the job!"), ("[Speaker A]: Well.", "Well."), ("Turn 3 - B: No.", "No."),
    ("A: Hi! B: Hello.", "Hi! Hello."), ("1. Person 2 (crying): Go.", "Go."), ("说话人1：你好", "你好"),
    ("Sprecherin 2 - Nein.", "Nein."),
    ("ANNA: Hi.\nBEN (low): Hello.", "Hi. Hello."), ("Scene 2: Stop!", "Stop!"), ("EXT. PARK - NIGHT\nRun!", "Run!"),
    ("Mood: sad\nI lost.", "I lost."), ("**Narrator:** Once.", "Once."), ("User: Yes.", "Yes."), ("Speaker 1:", ""), ("B:", ""),
    ("Mom: come here!", "Mom: come here!"), ("Plan B: run.", "Plan B: run."),
    ("At 10:30 she said: no.", "At 10:30 she said: no."),
    ("2 < 3 and 5 > 4", "2 3 and 5 4"), ("@anna, hi", "anna, hi"), ("…", ""), ("*sighs*", ""), ("https://x.org", ""),
    ("😀😀", ""), ("", ""), (" \n\t", ""), ("?!?!", ""),
]


@pytest.mark.parametrize(("written", "said"), SPOKEN)
def test_spoken_text(written: str, said: str) -> None:
    assert make_speakable(written) == said
    assert make_speakable(said) == said


PIECES = st.sampled_from([
    "*sighs*", "[x]", "(a b)", "...", "…", "!!!", "?!", "NOOOO", "I", "—", "--", " - ", "'", '"', "’", "<b>", "</b>", "&amp;",
    "&lt;", "â€™", "Ã¤", ":-)", "<3", "https://x.y/z", "**", "__", "~~", "#", "3", "10–12", ".5", "-5", "aaa", "eee", "\x93",
    "\u200b", "😀", "Ż", "ß", "İ", "ŉ", "ﬁ", "½", "¨", "(", "[", "*", "{", "}", "]", ")", " ", "\n", ",", ".", ";", ":",
    "TV", "A", "é", "e\u0301", "Привет", "_", "`", "´",
])
TEXTS = st.one_of(st.lists(PIECES, max_size=14).map("".join), st.text(max_size=60))


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(["en", "de", "pl"]))
def test_spoken_text_is_idempotent_and_clean(text: str, language: str) -> None:
    said = make_speakable(text, language)
    assert make_speakable(said, language) == said
    assert said == said.strip() and all(c.isprintable() for c in said)
    assert not set(said) & set("*[]{}<>_\"#")
    assert bool(said) or why_unspeakable(text)


@pytest.mark.parametrize("card", ["meld", "emodb", "nemo", "ravdess", "iemocap", "msp_podcast"])
def test_every_recorded_line_can_be_spoken(card: str) -> None:
    language = {"emodb": "de", "nemo": "pl"}.get(card, "en")
    texts = open_recorded(card).table["text"]
    assert not [t for t in texts if why_unspeakable(t, language)]
    words = [(len(make_speakable(t, language).split()), len(t.split())) for t in texts]
    assert all(said >= 0.6 * written for said, written in words), "almost nothing of clean dialogue is dropped"


def test_reasons() -> None:
    assert why_unspeakable("  ") == "empty"
    assert why_unspeakable("...") == "only punctuation or signs"
    assert why_unspeakable("[sobbing]") == "only directions, markup or addresses"
    assert "Cyrillic" in why_unspeakable("Привет, мир", "de") and not why_unspeakable("Привет, мир", "ru")
    assert not why_unspeakable("Привет, мир") and not why_unspeakable("Łódź", "pl")
    assert why_unspeakable("na " * 3000).startswith("too long")
    with pytest.raises(InputError):
        make_speakable(None)  # type: ignore[arg-type]


# ---------------------------------------------------------------- languages

@pytest.mark.parametrize(("tag", "names"), [
    ("zh", "zh cmn zho chi Chinese Mandarin 中文 普通话 zh-cmn"), ("zh-CN", "zh-CN zh_cn cmn-CN"),
    ("zh-Hant-TW", "zh-hant-tw zh_Hant_TW"),
    ("no", "no nor Norwegian norsk norwegisch"), ("nb", "nb nob bokmål"), ("pt-BR", "pt-BR pt_br"),
    ("en-GB", "en-GB en_GB.UTF-8"),
    ("de", "de DE deu ger GERMAN german Deutsch deutsch allemand niemiecki немецкий"), ("he", "he iw heb Hebrew עברית"),
    ("id", "id in Indonesian"), ("en", "en EN ENG eng English englisch"), ("fr", "fr fra fre français"),
    ("el", "el ell gre Greek"),
    ("fa", "fa pes Farsi Persian"), ("ro", "ro ron mo"), ("fil", "tl fil Tagalog"), ("ja", "ja jpn JP 日本語"),
    ("yue", "yue Cantonese"),
    ("", "und mul mis nan NaN None unknown ? en/de"), ("cs", "cs ces cze CZ Czech čeština"),
    ("nl", "nl nld dut Dutch Nederlands"),
])
def test_a_language_has_one_tag(tag: str, names: str) -> None:
    assert {name: language_tag(name) for name in names.split()} == dict.fromkeys(names.split(), tag)


@pytest.mark.parametrize(("name", "tag"), [
    ("Brazilian Portuguese", "pt-BR"), ("English (US)", "en-US"), ("Chinese (Taiwan)", "zh-TW"), ("Mandarin Chinese", "zh"),
    ("Low German", "nds"), (" en ", "en"), ("American English", "en-US"), ("en, de", ""),
])
def test_names_of_several_words(name: str, tag: str) -> None:
    assert language_tag(name) == tag


@pytest.mark.parametrize(("name", "told"), [
    ("Grman", "is it German"), ("the usual", "names no language"), ("12", "names no language"),
])
def test_what_names_no_language_is_told(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        language_tag(name)


@pytest.mark.parametrize(("language", "accent"), [
    ("zh", "cmn"), ("zh-CN", "cmn"), ("Mandarin", "cmn"), ("zh-HK", "yue"), ("no", "nb"), ("nb", "nb"), ("pt-PT", "pt"),
    ("pt-BR", "pt-br"), ("en-US", "en-us"), ("en_AU", "en"), ("fr-CA", "fr"), ("fr-FR", "fr"), ("es-MX", "es-419"),
    ("iw", "he"),
    ("hbs", "hr"), ("hy-arevmda", "hyw"), ("de-AT", "de"), ("sr-Latn", "sr"), ("piqd", "piqd"),
])
def test_espeak_speaks_a_language_by_any_name(language: str, accent: str) -> None:
    assert accent in {v.accent for v in Espeak().voices(language)}


def test_what_espeak_lists_can_be_spoken() -> None:
    engine, known = Espeak(), _languages(_data())
    assert len(known) > 120
    for code in known:
        assert np.abs(engine.say("mama 7", engine.voices(code)[0])).max() > 0.01, code


def test_espeak_lies_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("a very deep folder" * 8) / ("ü" * 40)
    deep.parent.mkdir()
    deep.symlink_to(_data(), target_is_directory=True)
    there = Espeak().say("Hello.", Espeak().voices("en")[0])
    monkeypatch.setattr("zsemo_kit.synthesis.espeak._data", lambda: deep)
    assert np.array_equal(Espeak().say("Hello.", Espeak().voices("en")[0]), there)
    monkeypatch.setattr(Path, "symlink_to", refuse_links)
    with pytest.raises(InputError, match=r"path of espeak-ng's data is too long; expected at most 140 bytes; found \d+ bytes"):
        Espeak()


def refuse_links(*args: Any, **more: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


# ---------------------------------------------------------------- casting

COMPANY = [Voice(f"{g}{i}", "en", g) for g in ("male", "female") for i in range(6)]


def play(dialogues: int, genders: tuple[str, ...] = ("male", "female", "unknown")) -> pd.DataFrame:
    rows = [
        {"dialogue": f"d{d}", "speaker": f"d{d}.{s}", "gender": g, "script": "", "text": "x"}
        for d in range(dialogues) for _ in range(2) for s, g in enumerate(genders)
    ]
    return pd.DataFrame(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.integers(0, 3), st.integers(1, 30))
def test_casting_keeps_its_promises(dialogues: int, seed: int, take: int, more: int) -> None:
    table = play(dialogues)
    voices = cast(table, COMPANY, seed, take=take)
    assert all(g in ("unknown", v.gender) for v, g in zip(voices, table["gender"], strict=True))
    by = table.assign(voice=[v.id for v in voices])
    assert (by.groupby(["dialogue", "speaker"])["voice"].nunique() == 1).all()
    assert (by.groupby("dialogue")["voice"].nunique() == 3).all(), "speakers of a dialogue differ"
    assert cast(play(dialogues + more), COMPANY, seed, take=take)[: len(table)] == voices, "stable when rows are added"


def test_casting_is_even_and_takes_differ() -> None:
    table = play(60)
    takes = [cast(table, COMPANY, 3, take=k) for k in range(4)]
    for voices in takes:
        counts = Counter(v.id for v in voices)
        assert len(counts) == len(COMPANY) and max(counts.values()) - min(counts.values()) <= 4
    assert all(len({v.id for v in row}) == 4 for row in zip(*takes, strict=True))
    assert cast(table, COMPANY, 4) != takes[0] == cast(table, COMPANY, 3)


def test_more_speakers_than_voices_share() -> None:
    table = play(1, ("male",) * 9)
    counts = Counter(v.id for v in cast(table, COMPANY[:6]))
    assert len(counts) == 6 and max(counts.values()) <= 4


def test_a_gender_known_in_one_row_holds_for_all() -> None:
    table = play(1, ("unknown",)).assign(gender=["unknown", "female"])
    assert {v.gender for v in cast(table, COMPANY)} == {"female"}


def test_unknown_voices_stand_in_and_nobody_is_cast_across_gender() -> None:
    some = [Voice("a", "en", "male"), Voice("b", "en", "unknown")]
    assert {v.id for v in cast(play(3, ("female",)), some)} == {"b"}
    with pytest.raises(InputError, match="no female voice"):
        cast(play(1, ("female",)), some[:1])
    with pytest.raises(InputError):
        cast(play(1), [])


@pytest.mark.parametrize("card", ["emodb", "nemo", "ravdess"])
def test_a_sentence_has_one_voice_in_all_emotions(card: str) -> None:
    table = open_recorded(card).table
    by = table.assign(voice=[v.id for v in cast(table, Espeak().voices("en"), 0)])
    assert (by.groupby("text")["voice"].nunique() == by.groupby("text")["dialogue"].nunique()).all()
    shares = pd.crosstab(by["emotion"], by["voice"])
    assert (shares == shares.iloc[0]).all(axis=None), "the voice says nothing of the emotion"


def test_rows_without_dialogue_or_speaker_go_by_their_text() -> None:
    table = pd.DataFrame({"dialogue": "", "speaker": "", "gender": "unknown", "script": "", "text": list("aabbc")})
    ids = [v.id for v in cast(table, COMPANY)]
    assert ids[0] == ids[1] != ids[2] == ids[3] and len(set(ids)) == 3


# ---------------------------------------------------------------- espeak

SENTENCES = {
    "en": "I thought the letter was on the table.", "de": "Der Brief liegt noch im Flur.", "pl": "List leży na stole w kuchni.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_espeak_voices_are_many_and_differ(language: str) -> None:
    engine = Espeak()
    voices = engine.voices(language)
    assert len({v.id for v in voices}) == len({v for v in voices}) == len(voices) >= 24
    assert sum(v.gender == "female" for v in voices) * 2 == len(voices)
    said = {v: engine.say(SENTENCES[language], v) for v in voices}
    assert len({s.tobytes() for s in said.values()}) == len(voices), "no two voices sound the same"
    for voice, samples in said.items():
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert 1 < len(samples) / 16_000 < 5 and 0.1 < np.abs(samples).max() <= 1
        assert (np.abs(samples) > 0.999).mean() < 1e-3, "no clipping"
        pitch = estimate_pitch(samples)
        assert (75 < pitch < 155) if voice.gender == "male" else (145 < pitch < 290), voice
    pitches = {g: np.array([estimate_pitch(s) for v, s in said.items() if v.gender == g]) for g in ("male", "female")}
    assert all(np.ptp(p) > 40 and len(set(p.round())) > 15 for p in pitches.values())


def test_espeak_depends_on_text_and_voice_alone() -> None:
    engine = Espeak()
    voices = engine.voices("en")[::5] + engine.voices("de")[::9]
    first = {v: engine.say("Come in, please!", v) for v in voices}
    for v in reversed(voices):
        engine.say("Something else.", v)
        assert np.array_equal(first[v], engine.say("Come in, please!", v))


def _say(job: tuple[Any, str, Voice]) -> bytes:
    engine, text, voice = job
    return bytes(engine.say(text, voice).tobytes())


def test_espeak_in_threads_and_processes() -> None:
    engine = Espeak()
    jobs = [(engine, f"Number {i}.", v) for i, v in enumerate(engine.voices("en")[:12])]
    alone = [_say(j) for j in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_say, jobs)) == alone
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_say, jobs, chunksize=6)) == alone


@pytest.mark.parametrize("text", [
    "<speak><break time='60s'/></speak> x", "\x01 99P a", "[[h@l'oU]]", "a\x00b", "Привет мир", "日本語 7", "\ud800 a", "😀 3",
    "a" * 500, "1" * 200,
])
def test_espeak_takes_any_text(text: str) -> None:
    engine = Espeak()
    samples = engine.say(text, engine.voices("en")[0])
    assert len(samples) and np.isfinite(samples).all()
    assert len(samples) / 16_000 < 10 + len(text), "text is no command"


def test_espeak_says_a_long_text_whole() -> None:
    engine = Espeak()
    voice = engine.voices("en")[0]
    one, many = (len(engine.say("The letter is on the table. " * n, voice)) for n in (1, 100))
    assert 80 * one < many < 140 * one


@pytest.mark.parametrize("text", ["", "   ", "...?!", "😀"])
def test_espeak_refuses_silence(text: str) -> None:
    engine = Espeak()
    with pytest.raises(InputError, match="nothing to say"):
        engine.say(text, engine.voices("en")[0])


def test_espeak_refuses_what_it_does_not_have() -> None:
    engine = Espeak()
    assert len(engine.voices("fr")) >= 24
    with pytest.raises(InputError, match=r"Zulu \(zu\); expected one of its \d+ languages: af, .*cmn"):
        engine.voices("zulu")
    for voices in ("onyx", "f1:tall"):
        with pytest.raises(InputError, match=r"onyx|f1:tall"):
            Espeak(voices).voices("en")
    assert {(v.variant, v.gender) for v in Espeak("F2, m3:unknown").voices("pl")} == {("f2", "female"), ("m3", "unknown")}
    with pytest.raises(InputError, match="no voice"):
        engine.say("Hello", Voice("x", "en", "male", "m1", "xx"))
    assert "GPL-3.0" in engine.licence and "1.5" in engine.fingerprint
    assert phonemize("Guten Tag", "de") == "ɡˈuːtən tˈɑːk"


def test_espeak_memory_stays_flat() -> None:
    code = (
        "import resource; from zsemo_kit.synthesis.espeak import Espeak; e = Espeak(); vs = e.voices('en')\n"
        "def peak(n):\n"
        "    for i in range(n): e.say('Come in, please.', vs[i % 72])\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "a = peak(100); b = peak(300); print((b - a) / 300)"
    )
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 12, "kilobytes an utterance"


# ---------------------------------------------------------------- pitch

@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("pitch", [80, 120, 180, 260, 330])
def test_typical_pitch(pitch: int, rate: int) -> None:
    time = np.arange(rate) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    noise = np.random.default_rng(0).normal(0, 0.1, rate)
    assert estimate_pitch(buzz + noise, rate) == pytest.approx(pitch, rel=0.04)


def test_no_pitch_in_noise_or_silence() -> None:
    assert guess_gender(estimate_pitch(np.random.default_rng(0).normal(0, 1, 16_000))) == "unknown"
    assert guess_gender(estimate_pitch(np.zeros(10))) == "unknown"


# ---------------------------------------------------------------- a speech server

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def address() -> Any:
    command = [sys.executable, str(Path(__file__).with_name("fake_speech.py")), "--key", KEY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    threading.Thread(target=process.stdout.read, daemon=True).start()
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["wav", "flac", "pcm", "mp3"])
def test_server_formats(address: str, form: str) -> None:
    server = open_engine("openai", base_url=address, voices="abc:female, de", response_format=form)
    voice = server.voices("pl")[0]
    samples = server.say("Hello there.", voice)
    assert samples.dtype == np.float32 and len(samples) / 16_000 == pytest.approx(0.6, abs=0.12)
    assert estimate_pitch(samples) == pytest.approx(150, rel=0.05) and voice.gender == "female"


@pytest.mark.parametrize("kind", ["streamed", "stereo", "other", "500-once"])
def test_server_oddities_are_taken(address: str, kind: str) -> None:
    server = SpeechServer("tiny", address, "abc")
    samples = server.say(f"Hello #do:{kind}", server.voices("en")[0])
    assert len(samples) / 16_000 == pytest.approx(0.05 * len(f"Hello #do:{kind}"), abs=0.01)


@pytest.mark.parametrize("kind", ["400", "500", "text", "empty", "timeout"])
def test_a_text_that_a_server_does_not_speak(address: str, kind: str) -> None:
    server = SpeechServer("tiny", address, "abc", timeout=0.5, max_retries=1)
    with pytest.raises(InputError) as told:
        server.say(f"Hello #do:{kind}", server.voices("en")[0])
    assert not isinstance(told.value, EngineError) and KEY not in str(told.value) and "\n" not in str(told.value)


def test_a_bad_key_or_no_server_ends_a_run(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-000000000")
    for url in (address, "http://127.0.0.1:9/v1"):
        server = SpeechServer("tiny", url, max_retries=0)
        with pytest.raises(EngineError) as told:
            server.say("Hello.", server.voices("en")[0])
        assert "sk-wrong" not in str(told.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        open_engine("openai")


@pytest.mark.parametrize(("kind", "language", "voices"), [
    ("listed", "en", {"af_bella": "female", "am_adam": "male"}), ("listed", "French", {"ff_siwis": "female"}),
    ("rooted", "de", {"anna": "female", "tom": "unknown"}), ("rooted", "en", {"tom": "unknown"}),
    ("refusing", "en-US", {"af_bella": "female", "am_adam": "male"}),
])
def test_a_server_is_asked_for_its_voices(address: str, kind: str, language: str, voices: dict[str, str]) -> None:
    server = SpeechServer("tiny", address.replace("/v1", f"/{kind}/v1"))
    assert {v.id: v.gender for v in server.voices(language)} == voices
    assert len(server.say("Hello.", server.voices(language)[0])) > 1000


def test_a_server_that_takes_openai_s_voices_has_them(address: str) -> None:
    assert {v.id for v in SpeechServer("tiny", address).voices("en")} == set(OPENAI_VOICES)


def test_a_voice_that_a_server_does_not_have_ends_a_run(address: str) -> None:
    closed, listed = (address.replace("/v1", f"/{kind}/v1") for kind in ("closed", "listed"))
    with pytest.raises(EngineError, match=r"Voice 'alloy' is not supported; name its voices with --voices"):
        SpeechServer("tiny", closed).voices("en")
    with pytest.raises(EngineError, match=r"does not take the voice 'onyx'; found .*no such voice"):
        server = SpeechServer("tiny", listed, "onyx:male")
        server.say("Hello.", server.voices("en")[0])
    with pytest.raises(InputError, match=r"no voice for the language Polish \(pl\); expected one of its 2 languages: en-US, fr"):
        SpeechServer("tiny", listed).voices("pl")


def test_server_engine_travels_without_its_key(address: str) -> None:
    server = SpeechServer("tiny", address, "abc")
    server.say("Hello.", server.voices("en")[0])
    packed = pickle.dumps(server)
    assert KEY.encode() not in packed and KEY not in repr(server) + server.fingerprint + server.licence
    again = pickle.loads(packed)
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda i: len(again.say("Hello." * i, again.voices("en")[0])), range(1, 9)))
    assert said == sorted(said)


# ---------------------------------------------------------------- Coqui

@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained VITS of Coqui's own classes, in the folder that training would leave, moved since."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("TTS")
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig
    from TTS.tts.models.vits import Vits
    from TTS.tts.utils.speakers import SpeakerManager

    folder = tmp_path_factory.mktemp("made") / "vits"
    folder.mkdir()
    sizes = VitsArgs(
        hidden_channels=16, hidden_channels_ffn_text_encoder=16, num_layers_text_encoder=1, num_layers_posterior_encoder=1,
        num_layers_flow=1, upsample_initial_channel_decoder=16, use_speaker_embedding=True, speaker_embedding_channels=8,
        init_discriminator=False, speakers_file=str(folder / "speakers.json"),
    )
    signs = CharactersConfig(
        characters_class="TTS.tts.models.vits.VitsCharacters", pad="_", eos="", bos="", blank="", phonemes="",
        characters="abcdefghijklmnopqrstuvwxyz", punctuations="!,.? '-",
    )
    config = VitsConfig(
        model_args=sizes, use_phonemes=False, text_cleaner="basic_cleaners", use_speaker_embedding=True, characters=signs
    )
    config.speakers_file = sizes.speakers_file
    speakers = SpeakerManager()
    speakers.name_to_id = {"p225": 0, "p226": 1, "p227": 2, "ED\n": 3}
    speakers.save_ids_to_file(sizes.speakers_file)
    torch.manual_seed(0)
    torch.save({"model": Vits(config).state_dict()}, folder / "best_model.pth")
    config.save_json(str(folder / "config.json"))
    return folder.rename(folder.parent.parent / "moved")


def test_coqui_opens_a_folder_and_speaks(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = open_engine("coqui", model=str(model), device="cpu")
    voices = engine.voices("en")
    assert [v.id for v in voices] == ["p225", "p226", "p227"], "and not the speaker with a line break"
    said = {v.id: engine.say("Hello there. How are you?", v) for v in voices}
    assert len({s.tobytes() for s in said.values()}) == 3
    assert all(s.dtype == np.float32 and 0 < np.abs(s).max() <= 1 and s[-1] != 0 for s in said.values())
    again = open_engine("coqui", model=str(model), device="cpu")
    assert np.array_equal(again.say("Hello there. How are you?", voices[1]), said["p226"]), "the same in any order"
    assert again.fingerprint == engine.fingerprint and engine.parallel == "none"
    assert "MPL-2.0" in engine.licence and capfd.readouterr().out == ""
    kept = json.loads(next((tmp_path / "cache" / "voices").glob("*.json")).read_text())
    assert kept == {v.id: v.gender for v in voices}, "genders are measured once"


def test_coqui_refuses(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine("coqui", model=str(model), language="en", device="cpu")
    for text in ("", "...", "Привет"):
        with pytest.raises(InputError):
            print(len(engine.say(text, engine.voices("en")[0])))
    with pytest.raises(InputError, match=r"no voice for the language German \(de\); expected en$"):
        engine.voices("de")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(InputError, match="cannot clone"):
        open_engine("coqui", model=str(model), recordings=str(tmp_path), device="cpu")
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(InputError, match="no Coqui model"):
        open_engine("coqui", model=str(broken))
    (broken / "config.json").write_bytes((model / "config.json").read_bytes())
    (broken / "model.pth").write_bytes(pickle.dumps({"model": print}))
    with pytest.raises(InputError, match="cannot open"):
        open_engine("coqui", model=str(broken))


def test_coqui_never_asks_on_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the console"))
    monkeypatch.delenv("COQUI_TOS_AGREED", raising=False)
    with pytest.raises(InputError, match=r"CPML.*COQUI_TOS_AGREED=1"):
        open_engine("coqui", model="tts_models/multilingual/multi-dataset/xtts_v2")
    with pytest.raises(InputError, match="pickles"):
        open_engine("coqui", model="tts_models/multilingual/multi-dataset/bark")
    with pytest.raises(InputError, match="unknown Coqui model"):
        open_engine("coqui", model="tts_models/en/none/such")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import requests

    def refuse(*args: Any, **more: Any) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    monkeypatch.setattr("requests.get", refuse)
    with pytest.raises(InputError) as told:
        open_engine("coqui")
    assert "tts_models/en/vctk/vits" in str(told.value) and "local folder" in str(told.value) and "\n" not in str(told.value)


def test_coqui_clones_recordings(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine("coqui", model=str(model), device="cpu")
    files = [tmp_path / f"{n}.wav" for n in ("anna", "tom")]
    asked = []

    def clone(text: str, **how: Any) -> list[float]:
        asked.append(how)
        pitch = 220 if "anna" in how["speaker_wav"] else 110
        return list(0.5 * np.sign(np.sin(2 * np.pi * pitch * np.arange(22_050) / 22_050))) + [0.0] * 10_000

    monkeypatch.setattr(engine, "_clones", files)
    monkeypatch.setattr(engine._tts, "tts", clone)  # type: ignore[attr-defined]
    voices = engine.voices("en")
    assert [(v.id, v.gender) for v in voices] == [("anna", "female"), ("tom", "male")]
    assert len(engine.say("Hello.", voices[0])) == pytest.approx(16_000, abs=2), "the silence after it is cut"
    assert asked[-1] == {"speaker_wav": str(files[0])}


def test_coqui_gets_phonemes_without_an_espeak_program() -> None:
    phonemizers = pytest.importorskip("TTS.tts.utils.text.phonemizers")
    from zsemo_kit.synthesis.coqui import _use_own_phonemizer

    _use_own_phonemizer()
    made = phonemizers.get_phonemizer_by_name("espeak", language="en")
    assert made.phonemize("Hello, world!", separator="") == f"{phonemize('Hello')}, {phonemize('world')}!"
    assert made.phonemize("Hello", separator="|") == phonemize("Hello", separator="_").replace("_", "|")


# ---------------------------------------------------------------- the one door

def test_open_engine() -> None:
    assert tuple(find_engines()) == ("espeak", "kokoro", "coqui", "openai")
    for arguments in ({"name": "festival"}, {"name": "espeak", "model": "x"}, {"name": "openai", "colour": "red"}):
        with pytest.raises(InputError):
            open_engine(**arguments)  # type: ignore[arg-type]


def test_engines_of_other_packages_are_found_by_entry_points(install: Callable[..., None]) -> None:
    "A distribution as pip leaves it: a class of its own, one whose module is gone, and one that takes a name of the kit."
    install(
        "their_voices",
        "import numpy as np\n"
        "from zsemo_kit.synthesis.voices import Engine, Voice\n\n\n"
        "class Hummer(Engine):\n"
        "    name, licence, fingerprint = 'hummer', 'none', 'hummer-1'\n\n"
        "    def __init__(self, model=''):\n"
        "        self.model = model\n\n"
        "    def voices(self, language):\n"
        "        return (Voice('one', language, 'male'),)\n\n"
        "    def say(self, text, voice):\n"
        "        return np.zeros(1600, np.float32)\n",
        "zsemo_kit.engines", hummer="their_voices:Hummer", gone="voices_that_are_gone:Gone", espeak="their_voices:Hummer")
    assert tuple(find_engines()) == ("espeak", "kokoro", "coqui", "openai", "hummer", "gone")
    hummer: Any = open_engine("hummer", model="low")
    assert hummer.model == "low" and hummer.say("Mmm.", hummer.voices("en")[0]).shape == (1600,)
    assert open_engine("espeak").name == "espeak"
    with pytest.raises(InputError, match="the engine 'gone' cannot be loaded; found voices_that_are_gone:Gone"):
        open_engine("gone")
    with pytest.raises(InputError, match="unknown engine 'purrer'; expected one of espeak, kokoro, coqui, openai, hummer, gone"):
        open_engine("purrer")
