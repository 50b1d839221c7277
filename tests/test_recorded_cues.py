"""Recorded cues: joined by part and clip, never by luck; bad tables refused; the real ones where they are."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.recorded_cues import CUES, recorded_cues
from zsemo_kit.corpora.table import Corpus, concat

NAMES = ["duration", "avg_intensity", "intensity_variation", "avg_pitch", "pitch_std", "pitch_range", "articulation_rate",
         "mean_hnr"]


def table(folder: Path, split: str, clips: dict[str, list[object]], *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = pd.DataFrame([[f"{c}.wav", *v] for c, v in clips.items()], columns=["filename", *NAMES]).to_csv(index=False)
    path = folder / f"meld_{split}_audio_features.csv{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def numbers(seed: int) -> list[object]:
    return [float(x) for x in np.random.default_rng(seed).uniform(1, 100, 8).round(3)]


def meld(*ids: str, name: str = "meld", **columns: object) -> Corpus:
    return Corpus(name, pd.DataFrame({"utterance": list(ids), "text": "Oh.", "emotion": "neutral", **columns}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table(tmp_path / "meld_acoustic", "train", {"dia0_utt0": numbers(0), "dia0_utt1": numbers(1), "dia1_utt0": numbers(2)})
    table(tmp_path / "meld_acoustic", "dev", {"dia0_utt0": numbers(3)}, packed=False)
    table(tmp_path / "meld_acoustic", "test", {"dia0_utt0": numbers(4)})
    return tmp_path / "meld_acoustic"


def test_rows_are_joined_by_part_and_clip(folder: Path) -> None:
    corpus = meld("test_dia0_utt0", "train_dia1_utt0", "dev_dia0_utt0", "train_dia0_utt0", split=["test", "dev", "", "train"])
    found = recorded_cues(corpus, folder)
    assert list(found) == list(CUES) and found.index.equals(corpus.table.index)
    assert found.to_numpy().tolist() == [numbers(4), numbers(2), numbers(3), numbers(0)], "the id decides, not the split"


def test_it_is_found_in_the_folder_of_corpora_and_above_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = meld("dev_dia0_utt0")
    monkeypatch.setenv("ZSEMO_CORPORA", str(folder.parent))
    for root in (None, folder, folder.parent, str(folder)):
        assert recorded_cues(corpus, root).to_numpy().tolist() == [numbers(3)]
    monkeypatch.setenv("ZSEMO_CORPORA", str(folder))
    with pytest.raises(InputError, match=r"not found.*meld_acoustic.*SpeechCueLLM"):
        recorded_cues(corpus)


def test_only_parts_that_are_asked_for_are_read(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / f"meld_{part}_audio_features.csv.gz").unlink()
    assert recorded_cues(meld("dev_dia0_utt0"), folder).notna().all(axis=None)
    with pytest.raises(InputError, match="part test"):
        recorded_cues(meld("dev_dia0_utt0", "test_dia0_utt0"), folder)


@pytest.mark.parametrize("stranger", [
    "dia0_utt0", "dev_dia0_utt0~1", "dev_dia0_utt", "xdev_dia0_utt0", "dev_dia0_utt0_a", "dev_dia0_utt99", "labels.own.003.02",
])
def test_another_s_row_gets_nothing(folder: Path, stranger: str) -> None:
    found = recorded_cues(meld(stranger, "dev_dia0_utt0"), folder)
    assert found.isna().all(axis=1).tolist() == [True, False]


def test_a_corpus_without_clips_needs_no_tables(tmp_path: Path) -> None:
    for corpus in (meld("u1", "u2"), meld("u1").where({"utterance": "nobody"})):
        found = recorded_cues(corpus, tmp_path / "nowhere")
        assert found.shape == (len(corpus), 8) and found.isna().all(axis=None) and {str(d) for d in found.dtypes} == {"float64"}


def test_joined_corpora_keep_their_cues(folder: Path) -> None:
    both = concat([meld("dev_dia0_utt0"), meld("labels.own.003.02", name="meld_synthetic")], "both")
    assert recorded_cues(both, folder).notna().all(axis=1).tolist() == [True, False]


def test_a_machine_s_reading_has_not_the_actors_voice(folder: Path) -> None:
    read_aloud = meld("dev_dia0_utt0", "train_dia0_utt0", voice=["en+f2", ""])
    assert recorded_cues(read_aloud, folder).notna().all(axis=1).tolist() == [False, True]


def test_unknown_numbers_stay_unknown(tmp_path: Path) -> None:
    rows: dict[str, list[object]] = {
        "dia0_utt0": [0.1, 50, 1, "", 0, 0, "nan", -4], "dia0_utt1": [0.1, 50, 1, 200, 0, 0, "NaN", "inf"],
        "dia0_utt2": [1.5, 60, 7, 210, 40, 180, 4, 6.5],
    }
    table(tmp_path, "dev", rows)
    found = recorded_cues(meld("dev_dia0_utt0", "dev_dia0_utt1", "dev_dia0_utt2"), tmp_path)
    assert [[c for c in found if np.isnan(found[c][i])] for i in range(3)] == [
        ["pitch_mean", "pitch_sd", "pitch_range", "articulation_rate"], ["articulation_rate", "hnr"], []]


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda t: t.replace(b"avg_pitch", b"pitch"), "lacks the column 'avg_pitch'"),
    (lambda t: t.replace(b"filename", b"file"), "lacks the column 'filename'"),
    (lambda t: t + t.splitlines()[1] + b"\n", "'dia0_utt0' twice"),
    (lambda t: t.replace(b".wav,", b".wav,long", 1), "bad 'duration'; expected a number; found 'long"),
    (lambda t: t + b"x,1,2,3,4,5,6,7,8,9,10\n", "cannot be read as a table"),
    (lambda t: b"", "cannot be read as a table"),
    (lambda t: b"\x1f\x8b" + t[:9], "lacks the column|cannot be read"),
    (lambda t: b"\xff\xfe\x00" * 40, "cannot be read|lacks the column"),
])
def test_a_spoilt_table_is_refused_in_one_line(tmp_path: Path, spoil: Callable[[bytes], bytes], told: str) -> None:
    path = table(tmp_path, "dev", {"dia0_utt0": numbers(0)}, packed=False)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=told) as e:
        recorded_cues(meld("dev_dia0_utt0"), tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("cut", [5, 40, -3])
def test_a_download_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = table(tmp_path, "dev", {f"dia{i}_utt0": numbers(i) for i in range(50)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="cannot be read as a table"):
        recorded_cues(meld("dev_dia0_utt0"), tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)), lost=st.sets(st.integers(0, 5)))
def test_order_and_gaps_change_no_other_row(tmp_path: Path, order: list[int], lost: set[int]) -> None:
    table(tmp_path, "train", {f"dia{i}_utt{i}": numbers(i) for i in order if i not in lost})
    found = recorded_cues(meld(*(f"train_dia{i}_utt{i}" for i in range(6))), tmp_path).to_numpy()
    for i in range(6):
        assert np.isnan(found[i]).all() if i in lost else found[i].tolist() == numbers(i)


def test_meld_has_its_cues_on_record(corpora_dir: Path) -> None:
    if not (corpora_dir / "meld_acoustic").is_dir() or not (corpora_dir / "meld").is_dir():
        pytest.skip("MELD or its recorded cues are not here")
    corpus = read("meld", corpora_dir / "meld")
    found = recorded_cues(corpus, corpora_dir / "meld_acoustic")
    gone = set(corpus.table.utterance[found.isna().all(axis=1)])
    assert gone == {"train_dia125_utt3", "dev_dia110_utt7"}, "a corrupt clip, and one that MELD lacks"
    assert 0.03 < found.isna().any(axis=1).mean() < 0.05
    assert found.pitch_mean.between(75, 600).sum() == found.pitch_mean.notna().sum() and found.pitch_range.max() < 525
    seconds = corpus.table.episode_end - corpus.table.episode_start
    near = (found.duration - seconds).abs() < 0.1
    assert near.groupby(corpus.table.split).mean().min() > 0.995, "each clip is as long as its time stamps say"
