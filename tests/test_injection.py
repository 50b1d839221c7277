"""Injection: human bounds, what is asked for is what is measured, profiles that cannot lie about their sources."""

import copy
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, levelled, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.cards import list_cards, load_card
from zsemo_kit.synthesis.acoustics import to_praat, track_pitch
from zsemo_kit.synthesis.injection import fit_profile, inject, load_profile, open_profile
from zsemo_kit.synthesis.resynthesis import BOUNDS, Manner, Speaker, effort_level, measure_octaves, resynthesise
from zsemo_kit.synthesis.speech_by_name import open_speech, refuse_target

pytestmark = pytest.mark.usefixtures("own_cache")

DOCUMENTED = load_profile()


def voice(hertz: float = 120.0, seconds: float = 1.2) -> np.ndarray:
    """Harmonics on a moving pitch, in two syllables with a gap."""
    t = np.arange(int(seconds * RATE)) / RATE
    tune = hertz * 2 ** (np.sin(2 * np.pi * t / seconds) / 6)
    wave = sum(np.sin(k * 2 * np.pi * np.cumsum(tune) / RATE) / k for k in range(1, 25))
    gate = np.clip(1.3 * np.abs(np.sin(np.pi * t / (seconds / 2))), 0, 1)
    return (0.1 * wave * gate).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    return float(np.median(track_pitch(to_praat(samples))[1]))


manners = st.builds(Manner, **{name: st.floats(low - 1, high + 1) for name, (low, high) in BOUNDS.items()})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manners, st.integers(0, 2**31), st.sampled_from([80.0, 130.0, 240.0]))
def test_whatever_is_asked_for_stays_within_human_bounds(manner: Manner, seed: int, hertz: float) -> None:
    said = resynthesise(voice(hertz), manner, np.random.default_rng(seed))
    assert said.dtype == np.float32 and np.isfinite(said).all() and np.abs(said).max() <= 0.97
    tempo = manner.bounded().tempo
    assert 0.5 < len(said) / RATE * tempo / 1.2 < 2.0 + 2.4 * tempo, "tempo, uneven rhythm, and at most four pauses of .6 s"
    tones = track_pitch(to_praat(said))[1]
    assert not len(tones) or (np.quantile(tones, 0.05) > 45 and np.quantile(tones, 0.95) < 620)


@pytest.mark.parametrize("semitones", [-6, -2, 0, 3, 7])
def test_pitch_moves_by_what_was_asked(semitones: float) -> None:
    base = pitch(resynthesise(voice(), Manner(), np.random.default_rng(0)))
    moved = pitch(resynthesise(voice(), Manner(pitch=semitones), np.random.default_rng(0)))
    assert abs(12 * np.log2(moved / base) - semitones) < 0.4


def test_tempo_effort_and_pauses_are_measured_as_asked() -> None:
    rng = np.random.default_rng
    slow = resynthesise(voice(), Manner(tempo=0.8), rng(0))
    assert len(slow) / len(voice()) == pytest.approx(1.25, abs=0.04)
    normal, loud = (resynthesise(voice(), Manner(effort=e), rng(0)) for e in (0, 2))
    change = measure_octaves(levelled(loud)) - measure_octaves(levelled(normal))
    assert change[3] - change[1] == pytest.approx((42.16 - 25.01) - (41.55 - 34.75), abs=2.5), "ANSI S3.5: 1 kHz against 250 Hz"
    assert 0 < effort_level(1) < effort_level(2) < effort_level(3)
    assert len(resynthesise(voice(), Manner(pauses=3), rng(3))) > len(normal) + RATE // 20


def test_a_speaker_has_pitch_and_spectrum_of_a_person() -> None:
    man, woman = (Speaker.draw(g, np.random.default_rng(1)) for g in ("male", "female"))
    for person in (man, woman):
        said = resynthesise(voice(), Manner(), np.random.default_rng(0), person)
        assert abs(12 * np.log2(pitch(said) / person.pitch)) < 1
    assert 85 < man.pitch < 165 and 150 < woman.pitch < 280


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.full(RATE, np.nan), np.ones(100)])
def test_no_sound_is_one_clear_line(samples: np.ndarray) -> None:
    with pytest.raises(InputError, match="nothing to resynthesise"):
        inject(samples.astype(np.float32), "happy", DOCUMENTED, rng=np.random.default_rng(0))


def test_noise_without_pitch_is_no_trouble() -> None:
    noise = (0.05 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    assert np.isfinite(inject(noise, "angry", DOCUMENTED, rng=np.random.default_rng(0))).all()


def test_every_emotion_that_a_card_names_has_a_profile() -> None:
    named = {e for c in list_cards() for label in load_card(c).labels if (e := load_card(c).emotion(label))}
    assert len(named) == 11
    for emotion in named:
        drawn = [DOCUMENTED.draw(emotion, np.random.default_rng(i)) for i in range(20)]
        assert all(m == m.bounded() for m in drawn) and len({m.pitch for m in drawn}) == 20
    assert named - {"neutral"} <= set(DOCUMENTED.ways)


def test_every_number_of_the_documented_profile_has_a_source() -> None:
    for ways in DOCUMENTED.ways.values():
        assert sum(w.share for w in ways) == pytest.approx(1)
        assert all(w.sources and set(w.sources) <= set(DOCUMENTED.sources) for w in ways)


def test_strength_scales_the_distance_from_neutral() -> None:
    def lift(strength: float) -> float:
        draws = [DOCUMENTED.draw("happy", np.random.default_rng(i), strength).pitch for i in range(200)]
        return float(np.mean(draws))

    assert abs(lift(0)) < 0.3 < lift(0.5) < lift(1) < lift(2)
    with pytest.raises(InputError, match="strength"):
        DOCUMENTED.draw("happy", np.random.default_rng(0), 3)
    with pytest.raises(InputError, match="does not know"):
        DOCUMENTED.draw("polarity", np.random.default_rng(0))


RAW = yaml.safe_load(files("zsemo_kit").joinpath("data/profiles/documented.yaml").read_text())


def broken(path: Path, how: str) -> Path:
    raw = copy.deepcopy(RAW)
    happy = raw["emotions"]["happy"]
    if how == "shares":
        happy[0]["share"] = 0.9
    elif how == "source":
        happy[0]["sources"] = ["somebody"]
    elif how == "emotion":
        raw["emotions"]["smug"] = happy
    elif how == "setting":
        happy[0]["loudness"] = 3
    elif how == "text":
        happy[0]["pitch"] = "high"
    elif how == "keys":
        del raw["neutral"]
    else:
        raw["emotions"]["happy"] = ["loud"]
    (path / "p.yaml").write_text(yaml.safe_dump(raw))
    return path / "p.yaml"


@pytest.mark.parametrize(("how", "told"), [
    ("shares", "do not add up"), ("source", "somebody"), ("emotion", "smug"), ("setting", "loudness"), ("text", "pitch"),
    ("keys", "not a profile"), ("list", "list of ways"),
])
def test_a_bad_profile_is_refused_by_name(tmp_path: Path, how: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_profile(broken(tmp_path, how))


def acted(folder: Path, name: str, up: float) -> Corpus:
    """Two people who say three sentences neutrally and, so many semitones higher, happily."""
    rows = []
    for person, hertz in (("a", 110.0), ("b", 200.0)):
        for k in range(3):
            for emotion, moved in (("neutral", 0.0), ("happy", up)):
                audio = f"{person}{k}{emotion}.wav"
                save_audio(folder / name / audio, voice(hertz * 2 ** (moved / 12)))
                rows.append((audio, person, f"s{k}", audio, emotion))
    return Corpus(name, pd.DataFrame(rows, columns=["utterance", "speaker", "script", "audio", "emotion"]), folder / name)


def test_a_fitted_profile_moves_speech_as_its_corpus_does(tmp_path: Path) -> None:
    fitted = fit_profile([acted(tmp_path, "one", 4), acted(tmp_path, "two", 4)])
    assert fitted.corpora == ("one", "two") and fitted.shifts is not None
    moved = [fitted.draw("happy", np.random.default_rng(i)).pitch for i in range(20)]
    assert np.median(moved) == pytest.approx(4, abs=0.4)
    assert fitted.draw("bored", np.random.default_rng(0)).pitch < 1, "an emotion that the corpus lacks stays documented"
    with pytest.raises(InputError, match="fitted on the target 'two'"):
        refuse_target(fitted.name, "two")


def test_speech_whose_profile_knew_the_target_is_refused_however_it_was_made(tmp_path: Path) -> None:
    one = acted(tmp_path, "one", 4)
    spoken = one.table.assign(profile=["fitted:nemo+emodb", *["documented"] * (len(one) - 1)])
    folder = Corpus("one", spoken, one.root).save(one.root)
    assert len(open_speech(str(folder), "all", target="ravdess")) == len(one)
    for target in ("nemo", "ravdess+emodb"):
        with pytest.raises(InputError, match=r"'fitted:nemo\+emodb' was fitted on the target"):
            open_speech(str(folder), "all", target=target)


def test_a_missing_file_does_not_end_the_fit(tmp_path: Path) -> None:
    corpus = acted(tmp_path, "one", 4)
    (corpus.root / "a0happy.wav").unlink()
    fitted = fit_profile([corpus])
    assert fitted.shifts is not None and len(fitted.shifts) == len(corpus) - 1


def test_names_of_profiles(tmp_path: Path) -> None:
    assert open_profile("documented").name == "documented"
    for name in ("fitted:nowhere", "no/such/file.yaml"):
        with pytest.raises(InputError):
            open_profile(name)


def test_another_process_makes_the_same_samples() -> None:
    script = ("import sys; sys.path.insert(0, 'tests'); from test_injection import *; "
              "print(inject(voice(), 'sad', DOCUMENTED, rng=np.random.default_rng(7)).tobytes().hex()[:4000])")
    root = Path(__file__).resolve().parents[1]
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root).stdout.strip()
    assert inject(voice(), "sad", DOCUMENTED, rng=np.random.default_rng(7)).tobytes().hex()[:4000] == other
