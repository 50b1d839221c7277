"""Audio: every kind of file in one form, the utterance's own terms, and many files on all cores."""

import math
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from zsemo_kit.core import settings as session
from zsemo_kit.core.cache import default_cache
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.files import file_stamp
from zsemo_kit.core.parallel import in_order
from zsemo_kit.corpora import audio
from zsemo_kit.corpora.audio import (
    OWN_TERMS, RATE, AudioError, audio_digest, audio_path, each_audio, equalised, levelled, load_audio, own_terms, save_audio,
    stream_audio, trimmed, utterance_audio,
)
from zsemo_kit.corpora.table import Corpus


def tone(seconds: float, rate: int = RATE, hertz: float = 440, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def corpus(folder: Path, names: list[str], **columns: object) -> Corpus:
    rows = {"utterance": [f"u{i}" for i in range(len(names))], "audio": names, "emotion": "sad"}
    return Corpus("toy", pd.DataFrame(rows | columns), folder)


def amplitude(samples: np.ndarray, hertz: float) -> float:
    return 2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * np.arange(len(samples)) / RATE)))


# files

WIDTHS = [
    *[("a.wav", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW")],
    *[("a.flac", s) for s in ("PCM_S8", "PCM_16", "PCM_24")], ("a.ogg", "VORBIS"),
]


@pytest.mark.parametrize(("name", "subtype"), WIDTHS, ids=lambda v: str(v))
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 96_000])
def test_any_file_is_the_same_sound(tmp_path: Path, name: str, subtype: str, rate: int) -> None:
    soundfile.write(tmp_path / name, tone(1, rate), rate, subtype=subtype)
    samples = load_audio(tmp_path / name)
    assert samples.dtype == np.float32 and samples.ndim == 1 and abs(len(samples) - RATE) <= 2
    assert amplitude(samples[2000:-2000], 440) == pytest.approx(0.5, abs=0.02)
    assert np.isfinite(samples).all()


def test_channels_are_averaged(tmp_path: Path) -> None:
    sound = np.stack([tone(1), 0 * tone(1), tone(1, hertz=1000)], 1)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    assert np.allclose(load_audio(tmp_path / "a.wav"), sound.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000, 96_000])
def test_blocks_leave_no_seams(tmp_path: Path, rate: int) -> None:
    import soxr

    sound = np.random.default_rng(0).normal(0, 0.1, 5 * (1 << 16) + 123).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, rate, subtype="FLOAT")
    whole = soxr.resample(sound, rate, RATE)
    assert np.allclose(load_audio(tmp_path / "a.wav")[: len(whole)], whole, atol=1e-4)


def test_resampling_agrees_with_scipy_in_the_band(tmp_path: Path) -> None:
    sound = tone(1, 48_000, 300) + tone(1, 48_000, 3000, 0.2)
    soundfile.write(tmp_path / "a.wav", sound, 48_000, subtype="FLOAT")
    assert np.allclose(load_audio(tmp_path / "a.wav")[500:-500], resample_poly(sound, 1, 3)[500:-500], atol=2e-3)


def test_what_is_above_the_new_band_is_gone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1, 48_000, 10_000), 48_000)
    assert np.abs(load_audio(tmp_path / "a.wav")[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_part_is_the_part_of_the_whole(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(3), RATE)
    whole = load_audio(tmp_path / name)
    assert np.array_equal(load_audio(tmp_path / name, 0.5, 1.25), whole[8000:20_000])
    assert np.array_equal(load_audio(tmp_path / name, start=2), whole[32_000:])
    assert np.array_equal(load_audio(tmp_path / name, end=1), whole[:16_000])
    assert np.array_equal(load_audio(tmp_path / name, 2, 3.4), whole[32_000:])  # a transcriber's rounding


OUTSIDE = [(3, 4), (3.2, math.nan), (-1, 1), (1, 1), (2, 1), (0, 4), (0, math.inf), (-math.inf, 1), (1, 1.00001)]


@pytest.mark.parametrize(("start", "end"), OUTSIDE)
def test_a_part_that_is_not_there(tmp_path: Path, start: float, end: float) -> None:
    soundfile.write(tmp_path / "a.wav", tone(3), RATE)
    with pytest.raises(AudioError, match=r"a\.wav") as e:
        load_audio(tmp_path / "a.wav", start, end)
    assert e.value.kind in ("outside", "empty")


def test_an_hour_costs_what_its_part_costs(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 16_000, 1, "PCM_16") as file:
        minute = tone(60)
        for _ in range(60):
            file.write(minute)
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    samples = load_audio(tmp_path / "hour.wav", 3000, 3003)
    assert len(samples) == 48_000 and time.perf_counter() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; the file is 115 MB
    with pytest.raises(AudioError, match=r"3600\.0 s of sound; expected at most 300 s"):
        load_audio(tmp_path / "hour.wav", longest=300)
    assert len(load_audio(tmp_path / "hour.wav")) == 3600 * RATE
    _, problems = each_audio(corpus(tmp_path, ["hour.wav", "hour.wav"], start=[math.nan, 0], end=[math.nan, 2]), len)
    assert list(problems["utterance"]) == ["u0"]


def bad_files(folder: Path) -> dict[str, str]:
    """Files that no one should be able to use, with the kind of each."""
    good, flac = folder / "good.wav", folder / "good.flac"
    for path in (good, flac):
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(1000) == 500, np.nan, 0.1), RATE, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.where(np.arange(1000) == 500, np.inf, 0.1), RATE, subtype="FLOAT")
    soundfile.write(folder / "no_sound.wav", np.empty(0), RATE)
    soundfile.write(folder / "odd_rate.wav", np.zeros(100), 10)
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "header.wav").write_bytes(good.read_bytes()[:44])
    (folder / "cut.wav").write_bytes(good.read_bytes()[:30_000])
    (folder / "cut.flac").write_bytes(flac.read_bytes()[:20_000])
    (folder / "text.wav").write_text("this is no sound")
    (folder / "html.flac").write_text("<html>404</html>" * 100)
    (folder / "zeros.wav").write_bytes(bytes(5000))
    damaged = bytearray(flac.read_bytes())
    damaged[10_000:12_000] = bytes(2000)
    (folder / "hole.flac").write_bytes(damaged)
    (folder / "folder.wav").mkdir()
    kinds = {
        "corrupt": "nan.wav inf.wav odd_rate.wav cut.wav cut.flac hole.flac", "foreign": "text.wav html.flac zeros.wav",
        "empty": "no_sound.wav nothing.wav header.wav", "missing": "folder.wav gone.wav",
    }
    return {name: kind for kind, names in kinds.items() for name in names.split()}


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    for name, kind in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=name.replace(".", r"\.")) as e:
            load_audio(tmp_path / name)
        assert e.value.kind == kind, name
        assert "\n" not in str(e.value) and isinstance(pickle.loads(pickle.dumps(e.value)), InputError)


def test_bad_files_end_nothing(tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    names = ["good.wav", *bad, "good.flac", ""]
    for jobs in (1, 2):
        with session.settings(jobs=jobs):
            found, problems = each_audio(corpus(tmp_path, names), len)
        assert found == [32_000, *[None] * len(bad), 32_000, None]
        assert list(problems["audio"]) == [*bad, ""] and list(problems.columns) == ["utterance", "audio", "problem"]
        assert not problems["problem"].str.contains(str(tmp_path), regex=False).any()


@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_length_that_a_pipe_left_open_is_no_damage(tmp_path: Path, length: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = length.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    assert len(load_audio(tmp_path / "a.wav")) == RATE


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_damaged_bytes_are_an_input_error_or_sound(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("junk") / "a.wav"
    soundfile.write(path, tone(0.02), RATE)
    content = bytearray(path.read_bytes())
    content[at : at + len(junk)] = junk
    path.write_bytes(content)
    try:
        assert np.isfinite(load_audio(path, longest=60)).all()
    except InputError as e:
        assert "a.wav" in str(e)


def test_a_missing_extra_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"pip install 'zsemo_kit\[audio\]'"):
        each_audio(corpus(tmp_path, ["a.wav"]), len)


# writing

@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([".wav", ".flac", ".WAV"]), st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, n: int, suffix: str, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    path = save_audio(tmp_path_factory.mktemp("w") / "deep" / f"a{suffix}", samples)
    assert np.abs(load_audio(path) - samples).max() <= 1.01 / 32767
    assert path.read_bytes() == save_audio(path, load_audio(path)).read_bytes() and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("samples", [[0, 1.01], [0, math.nan], [], [[0.1, 0.1]], [-math.inf]], ids=str)
def test_what_would_clip_or_is_no_sound_is_not_written(tmp_path: Path, samples: list[float]) -> None:
    with pytest.raises(InputError, match=r"will not write a\.wav"):
        save_audio(tmp_path / "a.wav", np.array(samples))
    assert not list(tmp_path.iterdir())


def test_a_name_or_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a name in \.wav or \.flac"):
        save_audio(tmp_path / "a.mp3", tone(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_audio(tmp_path / "file" / "a.wav", tone(1))


# an utterance of a corpus

def test_paths_that_leave_the_corpus(tmp_path: Path) -> None:
    toy = corpus(tmp_path, ["a.wav"])
    soundfile.write(tmp_path / "a.wav", tone(1), RATE)
    assert audio_path(toy, 0) == tmp_path / "a.wav" and len(utterance_audio(toy, 0)) == RATE
    for name in ("../secret.wav", "/etc/passwd", "C:\\a.wav", "x/../../a.wav"):
        object.__setattr__(toy, "table", toy.table.assign(audio=name))  # what validation would have refused
        with pytest.raises(InputError, match="leaves the corpus"):
            audio_path(toy, 0)
        assert "leaves the corpus" in each_audio(toy, len)[1]["problem"][0]


def test_digest_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.wav", "b.wav"):
        save_audio(tmp_path / name, tone(2))
    nan = math.nan
    toy = corpus(tmp_path, ["a.wav", "b.wav", "a.wav", "a.wav"], start=[nan, nan, 0, 0], end=[nan, nan, 1, 1.5])
    first = [audio_digest(toy, i) for i in range(4)]
    assert first[0] == first[1] and len({*first}) == 3 and all(len(d) == 32 for d in first)
    read = []
    monkeypatch.setattr(audio.hashlib, "file_digest", lambda *a: read.append(a))
    assert [audio_digest(toy, i) for i in range(4)] == first and not read  # remembered
    monkeypatch.undo()
    save_audio(tmp_path / "a.wav", tone(2, hertz=441))  # the same size
    assert audio_digest(toy, 0) != first[0] and audio_digest(toy, 1) == first[1]
    assert audio_digest(toy, 0, digest=lambda path: "other") != audio_digest(toy, 0)
    with pytest.raises(InputError, match="no such file"):
        file_stamp(tmp_path / "gone.wav")


# own terms

@st.composite
def sounds(draw: st.DrawFn) -> np.ndarray:
    """Bursts of noise and of tones at many levels, pauses, offsets, and clicks."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    parts = []
    for _ in range(draw(st.integers(1, 6))):
        t, level = np.arange(draw(st.integers(0, 4000))), 10 ** (draw(st.floats(-120, 0)) / 20)
        kind = draw(st.sampled_from(["noise", "tone", "zero", "click"]))
        part = {"noise": rng.uniform(-1, 1, len(t)), "tone": np.sin(t * 0.17), "zero": 0.0 * t, "click": t == len(t) // 2}
        parts.append(level * part[kind])
    return (0.5 * np.concatenate(parts) + draw(st.sampled_from([0, 0, 0.3]))).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(sounds(), st.sampled_from([20, 40, 60]))
def test_trimming_never_lengthens_and_is_done_once(samples: np.ndarray, top_db: float) -> None:
    cut = trimmed(samples, top_db)
    assert len(cut) <= len(samples) and (not len(samples) or len(cut))
    assert np.array_equal(trimmed(cut, top_db), cut)
    assert cut.tobytes() in samples.tobytes()


@settings(max_examples=150, deadline=None)
@given(sounds(), st.sampled_from([-35.0, -26.0, -10.0]))
def test_level_is_what_was_asked_or_less_and_never_clips(samples: np.ndarray, dbfs: float) -> None:
    out = levelled(samples, dbfs)
    assert out.dtype == np.float32 and out.shape == samples.shape and np.isfinite(out).all()
    energies = audio._measure_energies(out)
    active = energies[audio._find_active(energies, audio._PAUSE)]
    changed = not np.array_equal(out, samples.astype(np.float32))
    assert np.abs(out).max(initial=0) <= (0.991 if changed else 1)
    if changed:
        assert 10 * math.log10(active.mean()) <= dbfs + 0.1
        assert 10 * math.log10(active.mean()) == pytest.approx(dbfs, abs=0.1) or np.abs(out).max() > 0.98
    assert np.allclose(levelled(out, dbfs), out, atol=1e-5)


def test_a_quiet_voice_is_lifted_and_silence_is_not() -> None:
    rng = np.random.default_rng(0)
    voice = tone(1, peak=0.001) + rng.normal(0, 1e-6, RATE)
    assert 20 * math.log10(np.sqrt(np.mean(levelled(voice) ** 2))) == pytest.approx(-26, abs=0.1)
    for hiss in (np.zeros(RATE), rng.normal(0, 5e-5, RATE), np.full(RATE, 0.7), np.zeros(0), np.zeros(1)):
        for how in OWN_TERMS:
            out = own_terms(hiss, how)
            assert np.abs(out).max(initial=0) <= np.abs(hiss).max(initial=0) + 1e-7 and len(out) == len(hiss)


def test_trim_leaves_the_speech() -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, 3 * RATE)
    noise[RATE : 2 * RATE] += tone(1)
    cut = trimmed(noise)
    assert RATE <= len(cut) <= RATE + 640
    assert np.array_equal(cut, noise[RATE : RATE + len(cut)])


@pytest.mark.parametrize("how", OWN_TERMS)
def test_own_terms_know_no_level(how: str) -> None:
    rng = np.random.default_rng(1)
    voice = np.convolve(rng.normal(0, 0.05, RATE), 0.8 ** np.arange(40), "same").astype(np.float32)
    once = own_terms(voice, how)
    assert once.dtype == np.float32 and len(once) <= len(voice)
    if "level" in how:
        assert np.allclose(own_terms(voice * 0.05, how), once, atol=1e-4)
    again = own_terms(once, how)
    assert np.abs(audio._spectrum(again) - audio._spectrum(once)).max() < (1.5 if "tilt" in how else 0.01)
    assert np.array_equal(own_terms(voice, how), once)


def test_tilt_takes_a_microphone_away_and_is_bounded() -> None:
    rng = np.random.default_rng(1)
    voice = np.convolve(rng.normal(0, 0.05, 2 * RATE), 0.8 ** np.arange(40), "same")
    band = np.fft.irfft(np.fft.rfft(voice) * (np.fft.rfftfreq(len(voice), 1 / RATE) < 3400))  # a telephone
    before, after = audio._spectrum(band), audio._spectrum(equalised(band))
    assert np.ptp(after - before) <= 2 * audio._REACH + 2  # what is not there is not made of nothing
    assert np.abs(equalised(voice[:100]) - voice[:100]).max() < 1e-6


# all cores

def peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())


def test_order_is_kept_and_jobs_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}.flac" for i in range(70)]
    for name in names:
        save_audio(tmp_path / name, rng.uniform(-0.5, 0.5, rng.integers(100, 3000)))
    toy = corpus(tmp_path, names)
    free = each_audio(toy, peak)[0]
    with session.settings(jobs=1):
        one = each_audio(toy, peak)[0]
    with session.settings(jobs=2):
        two = each_audio(toy, peak)[0]
    assert one == two == free == [peak(load_audio(tmp_path / n)) for n in names]
    with session.settings(jobs=2):
        pairs = stream_audio(toy, lambda samples, more: more, given=names)
        assert next(pairs) == ("0.flac", "")  # one at a time
        assert [r for r, _ in pairs] == names[1:]
    with pytest.raises(InputError, match="expected 70 values; found 1"):
        stream_audio(toy, len, given=["a"])


def test_a_relative_root_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with session.settings(jobs=2):
        list(in_order(abs, [1]))  # processes that started in another folder
    monkeypatch.chdir(tmp_path)
    save_audio("a.wav", tone(0.1))
    with session.settings(jobs=2):
        assert each_audio(corpus(Path(), ["a.wav"]), len)[0] == [1600]


def test_nothing_to_do() -> None:
    found, problems = each_audio(corpus(Path(), []), len)
    assert found == [] and list(problems.columns) == ["utterance", "audio", "problem"]


def threads(item: int) -> tuple[int, str]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def nested(item: int) -> bool:
    with session.settings(jobs=2):
        return [r for r, _ in in_order(own_pid, [1, 2, 3])] == [os.getpid()] * 3


def own_pid(item: int) -> int:
    return os.getpid()


def test_workers_have_one_thread_and_no_workers() -> None:
    with session.settings(jobs=2):
        seen = [r for r, _ in in_order(threads, range(64))]
    assert {r[1] for r in seen} == {"1"} and os.getpid() not in {r[0] for r in seen}
    with session.settings(jobs=2):
        assert all(r for r, _ in in_order(nested, [1, 2]))


def test_a_short_job_starts_no_process() -> None:
    assert {r for r, _ in in_order(own_pid, range(200))} == {os.getpid()}


def doze(item: int) -> int:
    time.sleep(0.15)
    return os.getpid()


def test_a_long_job_does() -> None:
    with session.settings(jobs=2):
        list(in_order(abs, [1]))
    jobs = {r for r, _ in in_order(doze, range(44))}
    assert len(jobs) >= 2 or audio.cpu_count() == 1


def killed(item: int) -> int:
    if item == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def used(item: int) -> tuple[bool, str]:
    return session.current().progress, str(default_cache())


def test_workers_see_the_cache_of_the_block_and_show_no_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):  # of the same processes
        with session.settings(progress=True, jobs=2, cache=name):
            assert [r for r, _ in in_order(used, [1, 2])] == [(False, str(tmp_path / name))] * 2


def test_a_killed_worker_is_one_clear_line_and_no_hang() -> None:
    begin = time.monotonic()
    with session.settings(jobs=2), pytest.raises(InputError, match="a worker process died") as e:
        list(in_order(killed, range(100)))
    assert time.monotonic() - begin < 30 and "\n" not in str(e.value)
    with session.settings(jobs=2):
        assert [r for r, _ in in_order(own_pid, [1])] != [None]  # the next call has new workers


def forked(results: "multiprocessing.queues.Queue[object]") -> None:
    with session.settings(jobs=2):
        results.put([r for r, _ in in_order(abs, [-1, -2])])


def test_a_forked_process_has_workers_of_its_own() -> None:
    with session.settings(jobs=2):
        list(in_order(abs, [1]))
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=forked, args=(results,))
    child.start()
    assert results.get(timeout=60) == [1, 2]
    begin = time.monotonic()
    child.join(timeout=50)
    assert time.monotonic() - begin < 30, "it waits for its idle workers"


def daemonic(results: "multiprocessing.queues.Queue[object]") -> None:
    with session.settings(jobs=2):
        results.put({r for r, _ in in_order(own_pid, [1, 2])} == {os.getpid()})


def test_a_daemon_works_alone() -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    spawn.Process(target=daemonic, args=(results,), daemon=True).start()
    assert results.get(timeout=60)


class Unsendable:
    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("not to be sent")


def unsendable(item: int) -> object:
    return Unsendable()


def test_what_cannot_be_sent_is_said() -> None:
    for work in (Unsendable(), unsendable):
        with session.settings(jobs=2), pytest.raises(InputError, match="another process"):
            list(in_order(work, [1, 2]))


def test_giving_up_in_the_middle_leaves_nothing_behind() -> None:
    with session.settings(jobs=2):
        pairs = in_order(doze, range(50))
        next(pairs)
        pairs.close()
        begin = time.monotonic()
        assert len(list(in_order(own_pid, [1, 2]))) == 2
    assert time.monotonic() - begin < 10


STOPPED = """
import time
from zsemo_kit.core.parallel import in_order
from zsemo_kit.core.settings import settings

if __name__ == "__main__":
    try:
        with settings(jobs=2):
            for _ in in_order(time.sleep, [0.5] * 1000):
                print("begun", flush=True)
    except KeyboardInterrupt:
        print("stopped")
"""


def obey_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("group", [False, True])
def test_an_interrupt_is_obeyed_at_once(tmp_path: Path, group: bool) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    command = [sys.executable, "stopped.py"]
    # a background job of a shell ignores interrupts, and so would all its children
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
                           preexec_fn=obey_interrupts)
    assert run.stdout and run.stdout.readline() == "begun\n"
    os.killpg(run.pid, signal.SIGINT) if group else run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60)[0].endswith("stopped\n")


FLAT = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import save_audio, stream_audio
from zsemo_kit.corpora.table import Corpus

def work(samples):
    return np.zeros(50_000)  # 400 kB

if __name__ == "__main__":
    folder, n = Path(sys.argv[1]), 2000
    save_audio(folder / "a.wav", np.sin(np.arange(1600) / 9) / 2)
    corpus = Corpus("toy", pd.DataFrame({"utterance": [str(i) for i in range(n)], "audio": "a.wav", "emotion": "sad"}), folder)
    seen, low = 0, 0
    with settings(jobs=2):
        for result, problem in stream_audio(corpus, work):
            seen += len(result)
            low = low or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert seen == n * 50_000
    print((high - low) // 1024)
"""


def test_memory_is_flat(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(FLAT)
    done = subprocess.run([sys.executable, "flat.py", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200, "MB more at the end than at the first result; all results are 800 MB"
    assert "Warning" not in done.stderr
