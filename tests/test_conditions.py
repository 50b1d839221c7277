"""Recording conditions: each number is what it says, whatever the speech, and nothing ever clips."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, levelled
from zsemo_kit.synthesis.conditions import (
    CODECS, NOISES, RECORDING_CONDITIONS, Conditions, Drawn, add_noise, apply_conditions, apply_microphone, draw_conditions,
    find_conditions, make_impulse_response, make_noise, measure_speech_level, randomise_recording,
)

NOTHING = Drawn(level=None, noise=None, snr=None, rt60=None, drr=None, low=None, high=None, tilt=None, codec=None,
                bits=None, seed=0)


def under(**parts: object) -> Drawn:
    """Conditions of one utterance, all parts but these left out."""
    return {**NOTHING, **parts}  # type: ignore[typeddict-item]


def talk(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """A buzz in syllables with pauses before, between and after."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = rng.uniform(90, 250)
    buzz = sum(np.sin(2 * np.pi * pitch * k * t + k) / k for k in range(1, int(7800 / pitch)))
    envelope = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * t), 0, None) * (t > 0.2) * (t < seconds - 0.3)
    return (0.08 * buzz * envelope).astype(np.float32)


@pytest.mark.parametrize("colour", NOISES)
@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_the_ratio_is_the_one_asked_for(colour: str, snr: float) -> None:
    speech = talk(seed=3)
    added = apply_conditions(speech, under(noise=colour, snr=snr, seed=7)) - speech
    measured = measure_speech_level(speech) - 10 * np.log10(np.mean(added.astype(float) ** 2))
    assert abs(measured - snr) < 0.1


@pytest.mark.parametrize("rt60", [0.1, 0.25, 0.5, 0.7, 1.2])
@pytest.mark.parametrize("seed", range(4))
def test_reverberation_time_by_schroeder_is_the_one_asked_for(rt60: float, seed: int) -> None:
    response = make_impulse_response(rt60, 3.0, np.random.default_rng(seed)).astype(float)
    first = np.flatnonzero(response[1:])[0] + 1
    left = 10 * np.log10(np.cumsum(response[first:][::-1] ** 2)[::-1] / np.sum(response[first:] ** 2))
    where = np.flatnonzero((left <= -5) & (left >= -35))
    assert abs(-60 / np.polyfit(where / RATE, left[where], 1)[0] / rt60 - 1) < 0.1
    assert abs(-10 * np.log10(np.sum(response[1:] ** 2)) - 3.0) < 0.01
    assert response[0] == 1, "the direct sound is not delayed"


def test_a_room_is_heard_after_the_sound_and_leaves_what_was_before() -> None:
    click = np.zeros(RATE, np.float32)
    click[4000] = 0.5
    heard = apply_conditions(click, under(rt60=0.3, drr=0.0, seed=1))
    assert np.abs(heard[:4000]).max() < 1e-6
    late = [np.sqrt(np.mean(heard[a : a + 800] ** 2)) for a in (4800, 6400, 8000)]
    assert late[0] > 2 * late[1] > 4 * late[2] > 0


@pytest.mark.parametrize(("low", "high"), [(100.0, 4000.0), (200.0, 3500.0), (20.0, 7000.0)])
def test_band_limits_take_away_outside_and_keep_inside(low: float, high: float) -> None:
    hiss = (0.1 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)
    hertz, before = welch(hiss, RATE, nperseg=4096)
    after = welch(apply_conditions(hiss, under(low=low, high=high, tilt=0.0)), RATE, nperseg=4096)[1]
    gain = 10 * np.log10(after / before)
    inside = (hertz > 2 * low) & (hertz < 0.75 * high)
    assert np.abs(gain[inside]).max() < 0.5
    assert gain[(hertz > 1.6 * high) & (hertz < 7900)].max(initial=-99) < -20
    assert gain[(hertz > 5) & (hertz < 0.3 * low)].max(initial=-99) < -15
    assert abs(gain[np.abs(hertz - high).argmin()] + 3) < 0.3


@pytest.mark.parametrize("tilt", [-2.0, 1.5])
def test_a_tilt_is_straight_over_octaves(tilt: float) -> None:
    hiss = (0.05 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)
    hertz, before = welch(hiss, RATE, nperseg=4096)
    after = welch(apply_microphone(hiss, 1.0, RATE / 2, tilt), RATE, nperseg=4096)[1]
    gain = 10 * np.log10(after / before)
    steps = np.diff([gain[(hertz > 0.97 * f) & (hertz < 1.03 * f)].mean() for f in (250, 500, 1000, 2000, 4000)])
    assert np.abs(steps - tilt).max() < 0.1


@pytest.mark.parametrize("level", [-36.0, -26.0, -20.0])
def test_the_level_is_exact(level: float) -> None:
    heard = apply_conditions(talk(seed=1), under(level=level))
    assert abs(measure_speech_level(heard) - level) < 0.01


def test_a_level_that_would_clip_gives_way_without_bending_the_wave() -> None:
    spike = talk()
    spike[9000] = 0.9
    heard = apply_conditions(spike, under(level=-12.0))
    assert np.abs(heard).max() <= 0.95 + 1e-6
    assert np.corrcoef(heard, spike)[0, 1] > 1 - 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_the_level_of_speech_is_what_levelled_sets(seed: int) -> None:
    hidden = talk(seed=seed)[: 20_000 + 37 * seed]
    assert abs(measure_speech_level(levelled(hidden, -31.0)) + 31.0) < 1e-3


def test_a_codec_loses_a_little_and_delays_nothing() -> None:
    speech = levelled(talk(seed=2), -20)
    for codec in CODECS:
        heard = apply_conditions(speech, under(codec=codec, bits=8))
        assert heard.shape == speech.shape
        assert not np.array_equal(heard, speech)
        lags = np.correlate(heard[8000:16000], speech[7990:16010], "valid")
        assert int(lags.argmax()) == 10, codec
    rough, fine = (apply_conditions(speech, under(codec="bits", bits=bits)) - speech for bits in (8, 12))
    assert 20 < 20 * np.log10(rough.std() / fine.std()) < 28, "6 dB a bit"


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6000), st.floats(1e-6, 1.0), st.sampled_from(sorted(RECORDING_CONDITIONS)))
def test_any_speech_stays_within_full_scale_and_as_long_as_it_was(seed: int, n: int, peak: float, name: str) -> None:
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(n)
    wave = (peak * wave / np.abs(wave).max()).astype(np.float32)
    heard = randomise_recording(wave, np.random.default_rng(seed), RECORDING_CONDITIONS[name])
    assert heard.shape == wave.shape and heard.dtype == np.float32
    assert np.isfinite(heard).all() and np.abs(heard).max() <= 1
    assert np.array_equal(heard, randomise_recording(wave, np.random.default_rng(seed), RECORDING_CONDITIONS[name]))


def test_silence_stays_silent_and_nothing_stays_nothing() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 319, RATE):
        for _ in range(20):
            assert not randomise_recording(np.zeros(n, np.float32), rng, RECORDING_CONDITIONS["random"]).any()
    faint = np.full(RATE, 1e-6, np.float32)
    assert np.abs(randomise_recording(faint, rng, RECORDING_CONDITIONS["random"])).max() < 1e-3, "silence is never amplified"


def test_none_changes_nothing_and_nothing_is_changed_in_place() -> None:
    speech = talk()
    kept = speech.copy()
    assert np.array_equal(randomise_recording(speech, np.random.default_rng(0), RECORDING_CONDITIONS["none"]), speech)
    randomise_recording(speech, np.random.default_rng(0), RECORDING_CONDITIONS["random"])
    assert np.array_equal(speech, kept)


def test_the_drawn_numbers_are_within_their_ranges_fit_for_json_and_repeatable() -> None:
    wide = RECORDING_CONDITIONS["random"]
    drawn = [draw_conditions(np.random.default_rng([4, i]), wide) for i in range(1000)]
    assert drawn == json.loads(json.dumps([draw_conditions(np.random.default_rng([4, i]), wide) for i in range(1000)]))
    for name in ("level", "snr", "rt60", "drr", "low", "high", "tilt", "bits"):
        values = [d[name] for d in drawn if d[name] is not None]  # type: ignore[literal-required]
        low, high = getattr(wide, name)
        assert low <= min(values) and max(values) <= high and max(values) - min(values) > 0.8 * (high - low)
    shares = {"noise": wide.noise, "rt60": wide.room, "low": wide.band, "codec": wide.codec}
    for name, share in shares.items():
        assert abs(np.mean([d[name] is not None for d in drawn]) - share) < 0.05  # type: ignore[literal-required]
    assert {d["noise"] for d in drawn} == {None, *NOISES} and {d["codec"] for d in drawn} == {None, *CODECS}


def test_one_part_left_out_leaves_the_draws_of_the_others_alone() -> None:
    random = RECORDING_CONDITIONS["random"]
    for changed in (replace(random, noise=0.0), replace(random, level=None, codec=0.0)):
        left, right = np.random.default_rng(9), np.random.default_rng(9)
        for _ in range(50):
            all_of_it, part = draw_conditions(left, RECORDING_CONDITIONS["random"]), draw_conditions(right, changed)
            assert all(value is None or value == all_of_it[key] for key, value in part.items())  # type: ignore[literal-required]


@pytest.mark.parametrize("bad", [
    {"snr": (30.0, 10.0)}, {"rt60": (0.0, 0.5)}, {"level": (-30.0, 0.0)}, {"high": (4000.0, 9000.0)}, {"noise": 1.1},
    {"room": math.nan}, {"noises": ()}, {"noises": ("white", "violet")}, {"codecs": ("mp3",)}, {"tilt": (math.nan, 1.0)},
])
def test_bad_ranges_are_one_clear_line(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"bad '{next(iter(bad))}'") as told:
        Conditions(**bad)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="unknown recording conditions 'cellar'; expected one of none, random"):
        find_conditions("cellar")
    for bad in (np.zeros((2, 100)), np.array([0.1, np.inf])):
        with pytest.raises(InputError, match="finite mono"):
            apply_conditions(bad, under(level=-26.0))


def test_noise_of_any_length() -> None:
    for colour in NOISES:
        for n in (0, 1, 7, 1601):
            wave = make_noise(colour, n, np.random.default_rng(0))
            assert len(wave) == n and np.isfinite(wave).all()
    speech = talk()
    assert add_noise(np.zeros(0, np.float32), np.zeros(0, np.float32), 10.0).shape == (0,)
    assert np.array_equal(add_noise(speech, np.zeros_like(speech), 10.0), speech)


def test_a_hundred_times_faster_than_real_time() -> None:
    speech, rng = talk(4.0), np.random.default_rng(0)
    randomise_recording(speech, rng, RECORDING_CONDITIONS["random"])
    begin = time.thread_time()
    for _ in range(25):
        randomise_recording(speech, rng, RECORDING_CONDITIONS["random"])
    assert 25 * 4.0 / (time.thread_time() - begin) > 100
