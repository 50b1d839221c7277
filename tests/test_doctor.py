"""The doctor: published figures add up, and a corpus that is not the published one is noticed."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora import sound_files
from zsemo_kit.corpora.catalogue import Count, corpus_facts, corpus_names
from zsemo_kit.corpora.doctor import _check_audio, _compare_counts, _facts_of, examine
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.table import Corpus

FILES = ("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv")


@pytest.fixture
def meld(corpora_dir: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in FILES:
        (tmp_path / name).write_bytes((corpora_dir / "meld" / name).read_bytes())
    return tmp_path


def status(folder: Path, check: str) -> str:
    checks = examine("meld", folder).checks.set_index("check")["status"]
    return str(checks[check])


def test_real_meld_is_the_published_one(corpora_dir: Path) -> None:
    seen = examine("meld", corpora_dir / "meld")
    assert seen.ok and seen.release
    assert set(seen.checks.loc[seen.checks["status"] != "ok", "check"]) == {"known bad item train_dia125_utt3"}
    assert str(seen).count("\n") == len(seen.checks) + 1 and "<table" in seen._repr_html_()


@pytest.mark.parametrize(("lost", "found"), [(0, "ok"), (3, "warn"), (200, "fail")])
def test_lost_lines(meld: Path, lost: int, found: str) -> None:
    lines = (meld / FILES[0]).read_bytes().split(b"\r\n")
    kept = lines if not lost else [*lines[: -lost - 1], b""]
    (meld / FILES[0]).write_bytes(b"\r\n".join(kept))
    assert status(meld, "utterances, split train") == found


def test_a_missing_part_fails(meld: Path) -> None:
    (meld / FILES[2]).unlink()
    assert status(meld, "utterances, split test") == "fail" and not examine("meld", meld).ok


def test_wrong_labels_fail(meld: Path) -> None:
    data = (meld / FILES[1]).read_bytes()
    (meld / FILES[1]).write_bytes(data.replace(b",sadness,", b",joy,"))
    assert status(meld, "utterances, split dev, emotion_raw joy") == "fail"
    assert status(meld, "utterances, split dev") == "ok"


def test_a_test_dialogue_in_train_is_seen(meld: Path) -> None:
    train, test = ((meld / FILES[i]).read_bytes().split(b"\r\n") for i in (0, 2))
    (meld / FILES[2]).write_bytes(b"\r\n".join([*test[:-1], *(x.replace(b",0,", b",999,", 1) for x in train[1:15]), b""]))
    assert status(meld, "dialogues that stand in two splits") == "warn"


def test_unreadable_is_the_readers_error(meld: Path) -> None:
    (meld / FILES[0]).write_text("something else\n")
    with pytest.raises(InputError, match="lacks the column"):
        examine("meld", meld)


def test_published_figures_add_up() -> None:
    """Figures of one column, where it partitions the corpus, sum to the total of the level above."""
    for name in corpus_names():
        assert corpus_facts(name).releases
        for release in corpus_facts(name).releases:
            assert release.citation and release.name
            sums: dict[tuple[str, ...], int] = defaultdict(int)
            for item in release.counts:
                if not item.unique:
                    *above, last = item.where or {"": ""}
                    sums[(*(f"{c}={item.where[c]}" for c in above), last)] += item.n
            totals = {k: v for k, v in sums.items() if len(k) == 1 and k != ("",)}
            whole = sums.get(("",), max(totals.values()))
            assert set(totals.values()) == {whole}, (name, release.name, totals)


def test_meld_labels_add_up_to_their_parts() -> None:
    counts = corpus_facts("meld").releases[0].counts
    for split in ("train", "dev", "test"):
        rows = [c for c in counts if c.where.get("split") == split and not c.unique]
        assert sum(c.n for c in rows if "emotion_raw" in c.where) == next(c.n for c in rows if len(c.where) == 1)


def test_a_column_that_is_not_there_counts_nothing() -> None:
    corpus = Corpus("toy", pd.DataFrame({"utterance": ["a"], "text": ["Oh."], "emotion": ["sad"]}))
    checks = list(_compare_counts(corpus, [Count(where={"session": 1}, n=3), Count(unique="nothing", n=1)]))
    assert [c["status"] for c in checks] == ["fail", "fail"]


def test_audio_of_a_table(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "whole.flac", np.concatenate([np.zeros(16000), noise]), 16000)
    soundfile.write(tmp_path / "long.wav", np.tile(noise, 61), 16000)
    (tmp_path / "mine.csv").write_text(
        "utterance,audio,start,end,emotion\nquiet,whole.flac,0,0.9,sad\ngood,whole.flac,1,2,sad\nbeyond,whole.flac,5,6,sad\n"
        "long,long.wav,,,sad\ngone,gone.wav,,,sad\nnone,,,,sad\n"
    )
    seen = examine(str(tmp_path / "mine.csv")).checks.set_index("check")
    assert seen.loc["silent audio", "found"] == "1: quiet" and seen.loc["outside audio", "found"] == "1: beyond"
    assert seen.loc["long audio", "found"] == "1: long" and seen.loc["missing audio", "found"] == "1: gone"
    assert seen.loc["utterances without audio", "status"] == "fail"
    assert "silent audio" not in set(examine(str(tmp_path / "mine.csv"), audio=False).checks["check"])


def audio_checks(folder: Path, names: list[str], corpus: str = "toy") -> pd.DataFrame:
    rows = pd.DataFrame({"utterance": [n.split(".")[0] for n in names], "audio": names, "emotion": "sad"})
    made = Corpus(corpus, rows, folder)
    return pd.DataFrame(_check_audio(made, _facts_of(made))).set_index("check")


def test_every_fault_is_counted_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 16000)
    sounds = {
        "good": noise, "long": np.tile(noise, 61), "short": noise[:2000], "empty": noise[:0],
        "silent": 0 * noise, "offset": 0 * noise + 0.2, "clipped": np.clip(20 * noise, -1, 1),
        "peak": noise / np.abs(noise).max(), "sine": np.sin(np.arange(16000) * 0.05),
    }
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, 16000)
    soundfile.write(tmp_path / "rate.wav", noise[::-1], 48000)
    soundfile.write(tmp_path / "stereo.flac", np.stack([noise, -noise], 1), 16000)
    soundfile.write(tmp_path / "twin.flac", soundfile.read(tmp_path / "good.wav", dtype="int16")[0], 16000)
    soundfile.write(tmp_path / "nan.wav", noise * np.nan, 16000, subtype="FLOAT")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:20000])
    (tmp_path / "zero.wav").write_bytes(b"")
    names = sorted(p.name for p in tmp_path.iterdir())
    for jobs in (1, 2):
        with settings(jobs=jobs):
            seen = audio_checks(tmp_path, [*names, "gone.wav"])
        found = {k.removesuffix(" audio"): v for k, v in seen["found"].items()}
        assert found["missing"] == "1: gone" and found["corrupt"] == "2: cut, nan" and found["empty"] == "2: empty, zero"
        assert found["silent"] == "2: offset, silent" and found["clipped"] == "1: clipped"
        assert found["long"] == "1: long" and found["short"] == "1: short"
        assert found["audio that stands under two names"] == "2: good, twin"
        assert found["sampling rates"] == "16,000 (10), 48,000 (1); 1: rate"
        assert found["channels"] == "1 (10), 2 (1); 1: stereo"
        assert found["hours of"].startswith("0.02, 0.12 to 61.00 s each")
        assert seen["status"].value_counts().to_dict() == {"warn": 8, "fail": 3, "ok": 3}


def test_a_rate_that_lacks_a_part_of_the_voice_warns(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    assert audio_checks(tmp_path, ["a.wav"]).loc["sampling rates", "status"] == "warn"
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48000), 48000)
    assert audio_checks(tmp_path, ["a.wav"]).loc["sampling rates", "status"] == "ok"


def test_faults_that_are_known_do_not_fail(tmp_path: Path) -> None:
    for name in ("train_dia0_utt0.wav", "train_dia125_utt3.wav"):
        soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    (tmp_path / "train_dia125_utt3.wav").write_bytes(b"RIFF")
    names = ["train_dia0_utt0.wav", "train_dia125_utt3.wav", "train_dia110_utt7.wav"]
    known = audio_checks(tmp_path, names, "meld")
    assert known.loc[["missing audio", "corrupt audio"], "status"].tolist() == ["warn", "warn"]
    rows = {"utterance": ["train_dia0_utt0", "train_dia110_utt7"], "audio": ["train_dia0_utt0.wav", ""], "emotion": "sad"}
    meld = Corpus("meld", pd.DataFrame(rows), tmp_path)
    checks = pd.DataFrame(_check_audio(meld, _facts_of(meld))).set_index("check")
    assert checks.loc["utterances without audio", "status"] == "warn"
    assert audio_checks(tmp_path, names).loc["missing audio", "status"] == "fail"
    worse = audio_checks(tmp_path, [*names, "train_dia1_utt1.wav"], "meld")
    assert worse.loc["missing audio", "status"] == "fail"


def test_nothing_that_can_be_heard(tmp_path: Path) -> None:
    seen = audio_checks(tmp_path, ["a.wav", "b.wav"])
    assert seen.loc["missing audio", "found"] == "2: a, b" and seen.loc["hours of audio", "found"] == "0.00"


def test_the_nearest_release_is_taken(tmp_path: Path) -> None:
    labels = tmp_path / "Labels" / "labels_consensus.csv"
    labels.parent.mkdir()
    rows = "".join(f"MSP-PODCAST_0001_{i:05}.wav,N,4,4,4,1,Male,Test1\n" for i in range(16903))
    labels.write_text("FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n" + rows)
    assert len(read("msp_podcast", tmp_path)) == 16903
    seen = examine("msp_podcast", tmp_path)
    assert seen.release == "1.10" and not seen.ok


def test_a_subset_of_libritts_is_known_as_a_part(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean" / "84" / "121123"
    folder.mkdir(parents=True)
    for sentence in range(3):
        name, noise = f"84_121123_00000{sentence}_000000", np.random.default_rng(sentence).normal(0, 0.1, 24000)
        soundfile.write(folder / f"{name}.wav", noise, 24000)
        (folder / f"{name}.normalized.txt").write_text(f"Sentence {sentence}.")
    (tmp_path / "speakers.tsv").write_text("READER\tGENDER\tSUBSET\tNAME\n84\tF\tdev-clean\tAnn\n")
    seen = examine("libritts", tmp_path)
    told = seen.checks.set_index("check")
    assert seen.ok and told.loc["release", "found"] == "a partial copy: 3 of 375,086 utterances"
    assert told.loc["utterances without a label", "status"] == "ok" and told.loc["sampling rates", "found"] == "24,000 (3)"


def test_odd_sound_is_read_and_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "good.wav", noise, 16000)
    whole = (tmp_path / "good.wav").read_bytes()
    soundfile.write(tmp_path / "opposite.wav", np.stack([noise[::-1], -noise[::-1]], 1), 16000)
    soundfile.write(tmp_path / "dead.wav", np.stack([noise / 2, 0 * noise], 1), 16000)
    soundfile.write(tmp_path / "mp3.mp3", noise / 3, 16000)
    (tmp_path / "mp3.mp3").replace(tmp_path / "mp3.wav")
    (tmp_path / "header.wav").write_bytes(whole[:40] + bytes(4) + whole[46:] + b"\0\0")
    (tmp_path / "page.wav").write_text("<!doctype html>")
    (tmp_path / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    seen = audio_checks(tmp_path, sorted(p.name for p in tmp_path.iterdir()))
    told = {
        "channels that cancel each other": "1: opposite", "audio with a silent channel": "1: dead",
        "audio under a wrong header": "1: header",
        "audio that is not what its name says": "1: mp3", "not audio: a web page": "1: page",
        "not audio: a pointer of Git LFS, without the sound": "1: pointer",
    }
    assert seen.loc[list(told), "found"].to_dict() == told
    assert seen.loc["not audio: a pointer of Git LFS, without the sound", "mend"] == "git lfs pull"
    assert seen.loc[list(told), "status"].tolist() == ["warn"] * 4 + ["fail"] * 2
    assert not set(told) & set(audio_checks(tmp_path, ["good.wav"]).index)


def test_videos_are_counted_by_their_endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_files, "find_decoder", lambda: "")
    for name in ("a.mp4", "b.MP4", "c.m4a"):
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftypisom" + b"\xf0\x9f" * 40)
    seen = audio_checks(tmp_path, ["a.mp4", "b.MP4", "c.m4a"], "meld")
    assert seen.loc["audio to be decoded", "found"] == "2 as .mp4, 1 as .m4a"
    assert "zsemo fetch meld --audio" in seen.loc["audio to be decoded", "mend"]
    assert seen.loc["audio that needs a decoder", "found"] == "3: a, b, c" and not seen["status"].eq("fail").any()
