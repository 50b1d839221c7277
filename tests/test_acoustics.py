"""Acoustics: known sounds give known numbers, and openSMILE and Praat are used as they are."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, load_audio, save_audio
from zsemo_kit.corpora.recorded_cues import CUES
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis import acoustics
from zsemo_kit.synthesis.acoustics import (
    EGEMAPS, MEASURES, SPOKEN, Thresholds, compute_cached, extract_egemaps, find_nuclei, measure, measure_corpus, measure_cues,
    to_words, write_sentence, write_sentences,
)

pytestmark = pytest.mark.usefixtures("own_cache")

opensmile = pytest.importorskip("opensmile")
parselmouth = pytest.importorskip("parselmouth")


def sine(hz: float, seconds: float = 1.0, peak: float = 0.1, rate: int = RATE) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def voice(hz: float | np.ndarray, seconds: float = 1.0, rms: float = 0.05) -> np.ndarray:
    """Twenty harmonics with the slope of a voice."""
    n = int(seconds * RATE)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, n)) / RATE
    x = sum(np.sin(k * phase + k * k) / k for k in range(1, 21) if k * np.max(hz) < RATE / 2)
    return (rms * x / np.sqrt((x**2).mean())).astype(np.float32)


def beats(carrier: np.ndarray, a_second: float) -> np.ndarray:
    """Syllables: the carrier swells so many times a second, twenty decibels down between."""
    t = np.arange(len(carrier)) / RATE
    return (carrier * (1 - 0.9 * np.cos(2 * np.pi * a_second * t))).astype(np.float32)


def noise(seconds: float, rms: float = 0.05, seed: int = 0) -> np.ndarray:
    return (rms * np.random.default_rng(seed).normal(size=int(seconds * RATE))).astype(np.float32)


def unmeasured(m: dict[str, float]) -> set[str]:
    return {k for k, v in m.items() if math.isnan(v)}


# eGeMAPS

def test_names_and_order_are_the_library_s_own() -> None:
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    assert tuple(smile.feature_names) == EGEMAPS
    assert len(set(EGEMAPS)) == 88


@pytest.mark.parametrize("sound", [voice(120), noise(1), beats(voice(200, 2), 4)], ids=["voice", "noise", "syllables"])
def test_numbers_are_the_library_s_own(sound: np.ndarray) -> None:
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    expected = smile.process_signal(sound, RATE).to_numpy()[0]
    np.testing.assert_array_equal(extract_egemaps(sound), expected)
    np.testing.assert_array_equal(extract_egemaps(sound), expected)  # the extractor keeps nothing from one sound to the next


def test_the_extractor_is_made_once() -> None:
    assert acoustics._smile() is acoustics._smile()


@pytest.mark.parametrize("n", [0, 1, 10, 400, 1599])
def test_too_short_for_egemaps_is_nan(n: int) -> None:
    out = extract_egemaps(voice(120)[:n])
    assert out.shape == (88,) and out.dtype == np.float32 and np.isnan(out).all()


@pytest.mark.filterwarnings("error")
def test_egemaps_is_finite_from_a_tenth_of_a_second_on_and_says_nothing() -> None:
    assert np.isfinite(extract_egemaps(voice(120)[:1600])).all()
    assert np.isfinite(extract_egemaps(noise(1))).all()
    assert np.isnan(extract_egemaps(np.zeros(RATE, np.float32))).all()


# pitch

@pytest.mark.parametrize("hz", [80, 110, 150, 220, 330, 440, 550])
@pytest.mark.parametrize("make", [sine, voice])
def test_pitch_of_a_tone(make, hz: float) -> None:
    m = measure(make(hz))
    assert m["pitch_mean"] == pytest.approx(hz, rel=0.01)
    assert m["pitch_sd"] < 0.1 and m["pitch_range"] < 0.1 and m["voiced"] == 1


def test_spread_is_in_semitones_whatever_the_level() -> None:
    wave = 2 ** (np.sin(2 * np.pi * 3 * np.arange(2 * RATE) / RATE) / 6)  # two semitones up and down
    low, high = measure(voice(110 * wave, 2)), measure(voice(220 * wave, 2))
    assert low["pitch_sd"] == pytest.approx(2 / math.sqrt(2), abs=0.1)
    assert low["pitch_range"] == pytest.approx(4, abs=0.15)
    assert high["pitch_sd"] == pytest.approx(low["pitch_sd"], abs=0.1)


def test_the_second_pass_takes_octave_errors_away() -> None:
    """A creaky end, every other period weaker: one pass from 75 to 600 Hz hears an octave below."""
    creak = voice(150, 0.3) + voice(75, 0.3)
    sound = np.concatenate([voice(150, 1), creak])
    first = parselmouth.Sound(sound.astype(np.float64), float(RATE)).to_pitch_ac(pitch_floor=75, pitch_ceiling=600)
    assert np.quantile(first.selected_array["frequency"], 0.05) < 80
    m = measure(sound)
    assert m["pitch_mean"] == pytest.approx(150, rel=0.01) and m["pitch_range"] < 1


@settings(max_examples=20, deadline=None)
@given(hz=st.floats(85, 500), peak=st.floats(0.01, 0.9))
def test_pitch_does_not_depend_on_level(hz: float, peak: float) -> None:
    assert measure(sine(hz, 0.4, peak))["pitch_mean"] == pytest.approx(hz, rel=0.01)


# intensity

def test_intensity_is_that_of_praat() -> None:
    assert measure(sine(200, peak=1.0))["intensity_mean"] == pytest.approx(20 * math.log10(math.sqrt(0.5) / 2e-5), abs=0.02)


@pytest.mark.parametrize("step", [-30, -12, -6, -1, 3])
def test_known_steps_of_intensity(step: float) -> None:
    base = voice(150)
    moved = measure(base * np.float32(10 ** (step / 20)))
    assert moved["intensity_mean"] - measure(base)["intensity_mean"] == pytest.approx(step, abs=0.01)
    assert moved["pitch_mean"] == pytest.approx(150, rel=0.01)


def test_deviation_of_two_levels() -> None:
    m = measure(np.concatenate([sine(200, 2, 0.1), sine(200, 2, 0.05)]))
    assert m["intensity_sd"] == pytest.approx(6.02 / 2, abs=0.1)


def test_silence_around_speech_changes_only_the_duration() -> None:
    speech = beats(voice(150, 2), 4)
    pause = np.zeros(RATE, np.float32)
    alone, padded = measure(speech), measure(np.concatenate([pause, speech, pause]))
    assert padded["duration"] == alone["duration"] + 2
    for name in ("pitch_mean", "pitch_sd", "intensity_mean", "articulation_rate", "hnr"):
        assert padded[name] == pytest.approx(alone[name], rel=0.05, abs=0.01), name


# rate

@pytest.mark.parametrize("a_second", [2, 3, 4, 5, 6, 7])
def test_syllables_of_swelling_noise_are_counted(a_second: int) -> None:
    found = find_nuclei(beats(noise(4), a_second), voiced=False)
    assert len(found) == pytest.approx(4 * a_second, rel=0.05, abs=1)  # noise has peaks of its own


@pytest.mark.parametrize("a_second", [2, 3, 4, 5, 6, 7])
def test_syllables_of_a_swelling_voice_are_counted(a_second: int) -> None:
    sound = beats(voice(150, 4), a_second)
    found = find_nuclei(sound)
    assert len(found) == 4 * a_second
    np.testing.assert_allclose(found, (np.arange(4 * a_second) + 0.5) / a_second, atol=0.04)
    assert measure(sound)["articulation_rate"] == pytest.approx(a_second, rel=0.08)


def test_pauses_do_not_slow_the_articulation() -> None:
    speech, pause = beats(voice(150, 2), 4), np.zeros(RATE, np.float32)
    rate = measure(np.concatenate([speech, pause, speech, pause, speech]))["articulation_rate"]
    assert rate == pytest.approx(measure(speech)["articulation_rate"], rel=0.05)
    assert rate == pytest.approx(4, rel=0.08)


def test_a_short_gap_is_part_of_the_articulation() -> None:
    speech, gap = beats(voice(150, 2), 4), np.zeros(int(0.2 * RATE), np.float32)
    assert measure(np.concatenate([speech, gap, speech]))["articulation_rate"] < measure(speech)["articulation_rate"]


# voice quality

@pytest.mark.parametrize("snr", [5, 10, 15, 20, 30])
def test_harmonics_to_noise_ratio_is_the_one_that_was_mixed(snr: float) -> None:
    tone = voice(150, 3)
    breath = noise(3)
    breath *= np.sqrt((tone**2).mean() / (breath**2).mean()) * 10 ** (-snr / 20)
    assert measure(tone + breath)["hnr"] == pytest.approx(snr, abs=1)


def test_jitter_and_shimmer_of_a_perfect_and_of_a_rough_voice() -> None:
    def pulses(jitter: float, shimmer: float) -> np.ndarray:
        rng, out, at = np.random.default_rng(0), np.zeros(2 * RATE * 4), 0.0
        while at < len(out) - 1:
            out[int(at)] = 1 + shimmer * rng.choice([-1, 1])
            at += RATE * 4 / 150 * (1 + jitter * rng.choice([-1, 1]))
        smooth = np.convolve(out, np.hanning(240), "same").reshape(-1, 4).mean(1)
        return (0.2 * smooth / np.abs(smooth).max()).astype(np.float32)

    clean, rough = measure(pulses(0, 0)), measure(pulses(0.02, 0.05))
    assert clean["jitter"] < 0.3 and clean["shimmer"] < 1
    assert rough["jitter"] == pytest.approx(2, abs=0.7)  # a coin thrown each period: neighbours differ by 4 % half the time
    assert rough["shimmer"] == pytest.approx(5, abs=2)


def test_voiced_share_is_the_share_of_speech() -> None:
    m = measure(np.concatenate([voice(150, 1), noise(1), np.zeros(RATE, np.float32)]))
    assert m["voiced"] == pytest.approx(0.5, abs=0.06)


# what cannot be measured

@pytest.mark.parametrize("n", [0, 1, 100, 2000])
def test_too_short_has_a_duration_only(n: int) -> None:
    m = measure(voice(150)[:n])
    assert m["duration"] == n / RATE and unmeasured(m) == set(MEASURES) - {"duration"}


@pytest.mark.parametrize("sound", [np.zeros(RATE), np.full(RATE, 0.5), noise(1, 1e-5), np.full(RATE, np.nan)],
                         ids=["zeros", "direct current", "faint", "nan"])
def test_silence_has_a_duration_only(sound: np.ndarray) -> None:
    assert unmeasured(measure(sound)) == set(MEASURES) - {"duration"}
    assert len(find_nuclei(sound)) == 0


def test_unvoiced_sound_has_a_level_and_no_pitch() -> None:
    m = measure(noise(1) * np.float32(1))
    assert m["voiced"] < 0.1 and math.isfinite(m["intensity_mean"])
    assert {"pitch_mean", "pitch_sd", "pitch_range", "articulation_rate", "hnr", "jitter", "shimmer"} <= unmeasured(m)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 8000), gain=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0]))
def test_measure_never_fails(seed: int, n: int, gain: float) -> None:
    sound = gain * np.random.default_rng(seed).uniform(-1, 1, n)
    assert list(measure(sound)) == list(MEASURES)
    assert extract_egemaps(sound).shape == (88,)


def test_another_rate_gives_the_same_numbers() -> None:
    m, n = measure(sine(200, rate=44_100), 44_100), measure(sine(200))
    assert m["pitch_mean"] == pytest.approx(n["pitch_mean"], rel=0.001)
    assert m["intensity_mean"] == pytest.approx(n["intensity_mean"], abs=0.01)


# the eight cues

def cue(samples: np.ndarray, rate: int = RATE) -> dict[str, float]:
    return dict(zip(CUES, measure_cues(samples, rate).tolist(), strict=True))


def test_cues_are_praat_s_with_its_defaults() -> None:
    """Beside calls of Praat's own commands, with every setting that Praat offers first."""
    x = beats(voice(180 + 40 * np.sin(np.arange(3 * RATE) / 4000), 3), 4) + noise(3, 0.002)
    sound = parselmouth.Sound(x.astype(np.float64), float(RATE))
    call = parselmouth.praat.call
    pitch = call(sound, "To Pitch (ac)", 0.01, 75, 15, "no", 0.03, 0.45, 0.01, 0.35, 0.14, 600)
    level = call(sound, "To Intensity", 100, 0, "yes")
    hnr = call(sound, "To Harmonicity (cc)", 0.01, 75, 0.1, 1.0)
    low, high = (call(pitch, f"Get {what}", 0, 0, "Hertz", "none") for what in ("minimum", "maximum"))
    n = call(pitch, "Count voiced frames")
    expected = [3.0, call(level, "Get mean", 0, 0, "dB"), call(level, "Get standard deviation", 0, 0),
                call(pitch, "Get mean", 0, 0, "Hertz"), call(pitch, "Get standard deviation", 0, 0, "Hertz") * (1 - 1 / n) ** 0.5,
                high - low, len(find_nuclei(x)) / 3, call(hnr, "Get mean", 0, 0)]
    found = measure_cues(x)
    assert found.dtype == np.float32 and found.shape == (8,)
    assert np.allclose(found, expected, rtol=0.01, atol=0.05), dict(zip(CUES, zip(found, expected, strict=True), strict=True))


def test_cues_know_no_second_pass_and_count_in_hertz() -> None:
    low, high = voice(120 + 20 * np.sin(np.arange(2 * RATE) / 3000), 2), voice(240 + 40 * np.sin(np.arange(2 * RATE) / 3000), 2)
    a, b = cue(low), cue(high)
    assert abs(b["pitch_sd"] / a["pitch_sd"] - 2) < 0.05 and abs(b["pitch_range"] / a["pitch_range"] - 2) < 0.05


@pytest.mark.parametrize(("sound", "known"), [
    (np.zeros(RATE), {"duration"}), (np.zeros(0), {"duration"}), (voice(200, 0.1), {"duration"}),
    (np.full(RATE, np.nan), {"duration"}), (noise(1), {"duration", "intensity_mean", "intensity_sd", "hnr"}),
])
def test_what_has_no_cue_has_nan(sound: np.ndarray, known: set[str]) -> None:
    found = cue(sound)
    assert found["duration"] == pytest.approx(len(sound) / RATE)
    assert {c for c, v in found.items() if not math.isnan(v)} == known


def test_digital_silence_has_no_level() -> None:
    """Praat gives it -300 dB, which would drown every other frame; a synthesiser makes much of it."""
    x = voice(200, 1)
    alone, padded = cue(x), cue(np.concatenate([np.zeros(RATE), x, np.zeros(RATE)]))
    assert padded["duration"] == 3 and abs(padded["intensity_mean"] - alone["intensity_mean"]) < 3
    assert abs(padded["pitch_mean"] - alone["pitch_mean"]) < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 9000), st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
def test_cues_never_fail(seed: int, n: int, gain: float) -> None:
    found = measure_cues(gain * np.random.default_rng(seed).normal(size=n))
    assert found.shape == (8,) and not np.isinf(found).any()


# a corpus

@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(24):
        save_audio(root / f"{i}.wav", beats(voice(100 + 10 * i, 1), 3 + i % 4))
        rows.append({"utterance": f"u{i}", "audio": f"{i}.wav", "emotion": "neutral", "gender": ["male", "female"][i % 2]})
    (root / "broken.wav").write_bytes(b"RIFF, but no more")
    save_audio(root / "silent.wav", np.zeros(RATE, np.float32))
    rows += [{"utterance": u, "audio": a, "emotion": "neutral", "gender": "unknown"}
             for u, a in (("broken", "broken.wav"), ("gone", "gone.wav"), ("silent", "silent.wav"), ("none", ""))]
    return Corpus("tones", pd.DataFrame(rows), root)


def test_two_processes_give_what_one_gives(corpus: Corpus, tmp_path: Path) -> None:
    with session.settings(cache=tmp_path / "one", jobs=1):
        serial = measure_corpus(corpus)
    with session.settings(cache=tmp_path / "two", jobs=2):
        both = measure_corpus(corpus)
    pd.testing.assert_frame_equal(serial, both, check_exact=True)
    assert serial.utterance.tolist() == corpus.table.utterance.tolist()
    assert list(serial) == ["utterance", *MEASURES, "problem"]
    np.testing.assert_allclose(serial.pitch_mean[:24], 100 + 10 * np.arange(24), rtol=0.01)


def test_a_bad_file_is_a_row_with_its_problem(corpus: Corpus) -> None:
    table = measure_corpus(corpus).set_index("utterance")
    assert (table.problem[:24] == "").all()
    assert all(table.problem[u] for u in ("broken", "gone", "none")) and table.problem["silent"] == ""
    assert table.loc[["broken", "gone", "none"], list(MEASURES)].isna().all(axis=None)
    assert table.duration["silent"] == 1 and math.isnan(table.pitch_mean["silent"])


def test_what_was_measured_is_not_measured_again(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its sound, bit for bit; a problem is told every time."""
    first = measure_corpus(corpus)
    direct = pd.DataFrame([measure(load_audio(corpus.root / f"{i}.wav")) for i in range(24)])
    pd.testing.assert_frame_equal(first[list(MEASURES)][:24], direct, check_exact=True)

    def refuse(samples: np.ndarray) -> dict[str, float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(acoustics, "measure", refuse)
    again = measure_corpus(corpus)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    turned = replace(corpus, table=corpus.table.iloc[::-1].assign(utterance=lambda t: "new " + t.utterance))
    pd.testing.assert_frame_equal(measure_corpus(turned)[list(MEASURES)],
                                  first[list(MEASURES)][::-1].reset_index(drop=True), check_exact=True)
    with session.settings(cache=tmp_path / "other"):
        assert "measured again" in measure_corpus(corpus).problem[0]


def test_measuring_that_was_cut_off_goes_on(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acoustics, "_AT_ONCE", 5)
    calls: list[int] = []

    def tiring(samples: np.ndarray) -> list[float]:
        calls.append(len(samples))
        if len(calls) == 13:
            raise KeyboardInterrupt
        return [float(len(samples))]

    with session.settings(jobs=1):
        with pytest.raises(KeyboardInterrupt):
            compute_cached(corpus, tiring, 1, "tired")
        numbers, _ = compute_cached(corpus, tiring, 1, "tired")
    assert len(calls) == 13 + 25 - 10 and np.isfinite(numbers[:24]).all()


def test_an_empty_corpus_has_an_empty_table(corpus: Corpus) -> None:
    table = measure_corpus(corpus.where({"utterance": "nobody"}))
    assert len(table) == 0 and list(table) == ["utterance", *MEASURES, "problem"]


@pytest.mark.parametrize(("package", "extra", "work"), [
    ("opensmile", "opensmile", "extract_egemaps(np.ones(16000, 'f'))"), ("parselmouth", "praat", "measure(np.ones(16000, 'f'))"),
])
def test_the_kit_imports_without_the_extras_and_says_which_is_missing(package: str, extra: str, work: str) -> None:
    code = (f"import sys; sys.modules[{package!r}] = None\nimport numpy as np\n"
            f"from zsemo_kit.synthesis.acoustics import *\nfrom zsemo_kit.core.errors import InputError\n"
            f"assert len(EGEMAPS) == 88\ntry: {work}\nexcept InputError as e: print(e)")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    assert package in told and f"zsemo_kit[{extra}]" in told


# words

def people(n: int = 400) -> tuple[pd.DataFrame, list[str]]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"pitch_mean": np.r_[rng.normal(210, 30, n), rng.normal(120, 20, n)],
                          "articulation_rate": rng.normal(4.5, 0.8, 2 * n)})
    return table, ["female"] * n + ["male"] * n


def test_shares_of_the_words_are_those_of_the_quantiles() -> None:
    table, genders = people()
    words = to_words(table, Thresholds.fit(table, genders), genders)
    for gender in ("female", "male"):
        shares = words.pitch_mean[np.array(genders) == gender].value_counts(normalize=True)
        expected = {"very low": 0.1, "low": 0.15, "normal": 0.5, "high": 0.15, "very high": 0.1}
        assert {k: pytest.approx(v, abs=0.01) for k, v in expected.items()} == shares.to_dict()


def test_three_words() -> None:
    table, genders = people()
    three = Thresholds.fit(table, genders, quantiles=(0.3, 0.7), words=("low", "normal", "high"))
    assert set(to_words(table, three, genders).pitch_mean) == {"low", "normal", "high"}


def test_an_unknown_gender_and_a_rare_one_fall_back_to_all() -> None:
    table, genders = people(30)
    few = Thresholds.fit(table.iloc[:40], genders[:40])  # 30 women, 10 men
    assert few.of("male", "pitch_mean") == few.of("unknown", "pitch_mean") == few.limits["all"]["pitch_mean"]
    assert few.of("female", "pitch_mean") != few.of("unknown", "pitch_mean")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_words_rise_with_the_number(values: list[float]) -> None:
    table = pd.DataFrame({"x": values})
    reference = Thresholds.fit(table, ["unknown"] * len(values))
    rank = {w: i for i, w in enumerate(reference.words)}
    ordered = to_words(table.sort_values("x"), reference, ["unknown"] * len(values)).x.map(rank)
    assert ordered.is_monotonic_increasing


def test_a_measure_that_never_changes_is_normal() -> None:
    table = pd.DataFrame({"x": [2.0] * 30})
    assert set(to_words(table, Thresholds.fit(table, ["male"] * 30), ["male"] * 30).x) == {"normal"}


def test_what_was_not_measured_has_no_word() -> None:
    table, genders = people()
    table.loc[0, "pitch_mean"] = math.nan
    words = to_words(table.assign(stranger=1.0), Thresholds.fit(table, genders), genders)
    assert words.pitch_mean[0] == "" and "stranger" not in words
    assert words.index.equals(table.index)


def test_thresholds_survive_a_file(tmp_path: Path) -> None:
    table, genders = people()
    made = Thresholds.fit(table, genders, reference="people")
    assert Thresholds.load(made.save(tmp_path / "t.json")) == made


@pytest.mark.parametrize("spoil", [
    lambda d: d.pop("limits"), lambda d: d["limits"].pop("all"), lambda d: d.update(words=["low", "high"]),
    lambda d: d["limits"]["all"].update(pitch_mean=[1.0]), lambda d: d.update(quantiles=[0.9, 0.1]),
    lambda d: d.update(limits=[1]), lambda d: d["limits"]["all"].update(pitch_mean=["a", "b", "c", "d"]),
])
def test_a_spoilt_file_is_refused(tmp_path: Path, spoil) -> None:
    file = Thresholds.fit(*people()).save(tmp_path / "t.json")
    raw = json.loads(file.read_text())
    spoil(raw)
    file.write_text(json.dumps(raw))
    with pytest.raises(InputError):
        Thresholds.load(file)


def test_bad_words_are_refused(tmp_path: Path) -> None:
    table, genders = people()
    for wrong in ({"quantiles": (0.5,), "words": ("low", "high")}, {"quantiles": (0.2, 0.8)}, {"quantiles": ()},
                  {"quantiles": (0, 0.2, 0.8, 1.0)}):
        with pytest.raises(InputError):
            Thresholds.fit(table, genders, **wrong)
    with pytest.raises(InputError, match="genders"):
        Thresholds.fit(table, genders[:-1])
    with pytest.raises(InputError, match="genders"):
        to_words(table, Thresholds.fit(table, genders), genders[:-1])
    with pytest.raises(InputError, match="'hnr'"):
        Thresholds.fit(table, genders).of("male", "hnr")
    with pytest.raises(InputError):
        Thresholds.load(tmp_path / "none.json")


def test_sentences() -> None:
    words = {m: "high" for m in SPOKEN}
    assert write_sentence(words, "female") == "a woman speaks with high pitch, high pitch variation, high volume and high speed"
    assert write_sentence({"hnr": "low"}, "male", {"hnr": "clarity"}) == "a man speaks with low clarity"
    assert write_sentence({}, "unknown") == write_sentence({"pitch_mean": ""}) == "somebody speaks"
    assert write_sentences(pd.DataFrame([words, words]), ["female", "male"])[1].startswith("a man")


# real speech

def test_ravdess_has_seven_syllables_a_sentence(corpora_dir: Path) -> None:
    """Both of its sentences have seven; women speak higher than men."""
    files = sorted((corpora_dir / "ravdess").rglob("*.flac"))[::48]
    if not files:
        pytest.skip("no RAVDESS here")
    from zsemo_kit.corpora.audio import load_audio
    sounds = {f: load_audio(f) for f in files}
    assert np.mean([len(find_nuclei(s)) for s in sounds.values()]) == pytest.approx(7, abs=0.7)
    pitch = {f: measure(s)["pitch_mean"] for f, s in sounds.items()}
    women, men = ([v for f, v in pitch.items() if int(f.stem[-2:]) % 2 == odd] for odd in (0, 1))
    assert np.mean(women) > np.mean(men) + 40
