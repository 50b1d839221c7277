"""The export for s3prl, read back by s3prl's own classes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import yaml

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, save_audio
from zsemo_kit.corpora.export import export_s3prl
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.table import Corpus

pytestmark = pytest.mark.filterwarnings("ignore::zsemo_kit.corpora.splits.LeakWarning")  # few speakers
FOUR = ("neutral", "happy", "sad", "angry")


def corpus_of(root: Path, name: str = "tiny", speakers: str = "ABCDE", split: bool = False) -> Corpus:
    """Two utterances of each emotion and speaker, in every form that sound comes in."""
    rng, rows = np.random.default_rng(len(name)), []
    root.mkdir(parents=True, exist_ok=True)
    for k, (s, e, i) in enumerate((s, e, i) for s in speakers for e in FOUR for i in range(2)):
        audio, wave = f"{s}/{e}.{i}.wav", 0.1 * rng.standard_normal(6000 + 100 * k)
        (root / s).mkdir(exist_ok=True)
        if k % 4 == 0:
            save_audio(root / audio, wave)
        elif k % 4 == 1:
            sf.write(root / audio, np.repeat(wave, 3), 48_000, subtype="PCM_24")
        elif k % 4 == 2:
            audio = audio.replace(".wav", ".flac")
            sf.write(root / audio, np.stack([wave, wave], 1), RATE)
        else:
            sf.write(root / audio, wave[::2], RATE // 2, subtype="FLOAT")
        part = {"A": "test", "B": "dev"}.get(s, "train") if split else ""
        rows.append({"utterance": f"{s} {e}/{i}", "speaker": s, "emotion": e, "audio": audio, "split": part})
    return Corpus(name, pd.DataFrame(rows), root, "four")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Any]:
    """A corpus with one segment of a longer file, one missing and one damaged file, and its export."""
    root = tmp_path_factory.mktemp("made")
    corpus = corpus_of(root / "tiny")
    sf.write(root / "tiny" / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(10 * RATE), RATE)
    (root / "tiny" / corpus.table["audio"][3]).unlink()
    (root / "tiny" / corpus.table["audio"][8]).write_bytes(b"RIFF, or so it says")
    table = corpus.table.copy()
    table.loc[5, ["audio", "start", "end"]] = ["long.wav", 2.0, 3.5]
    corpus = Corpus("tiny", table, corpus.root, "four")
    return corpus, export_s3prl(corpus, root / "out")


@pytest.mark.parametrize("split", [False, True])
def test_what_was_exported_is_read_back(tmp_path: Path, split: bool) -> None:
    corpus = corpus_of(tmp_path / "tiny", split=split)
    export_s3prl(corpus, tmp_path / "out")
    back = read(tmp_path / "out")
    columns = ["speaker", "emotion", "split"]
    want = corpus.table.assign(utterance=corpus.table["utterance"].str.replace(r"[ /]", "_", regex=True)).set_index("utterance")
    assert back.name == "tiny" and back.space == "four" and all((back.root / a).is_file() for a in back.table["audio"])
    pd.testing.assert_frame_equal(back.table.set_index("utterance")[columns].sort_index(), want[columns].sort_index())


def meta(folder: Path, session: int, part: str) -> dict[str, Any]:
    return json.loads((folder / "meta_data" / f"Session{session}" / f"{part}_meta_data.json").read_text())


def test_every_usable_utterance_is_tested_once_and_nobody_is_on_both_sides(made: tuple[Corpus, Any]) -> None:
    corpus, out = made
    assert len(out.sizes) == 5
    tested = []
    for k in range(1, 6):
        train, test = meta(out.folder, k, "train"), meta(out.folder, k, "test")
        assert train["labels"] == test["labels"] == {"neutral": 0, "happy": 1, "sad": 2, "angry": 3}
        assert not {r["speaker"] for r in train["meta_data"]} & {r["speaker"] for r in test["meta_data"]}
        assert len(train["meta_data"]) + len(test["meta_data"]) == len(corpus) - 2
        tested += [r["path"] for r in test["meta_data"]]
        parts = {p: pd.read_csv(out.folder / "superb_er" / f"fold{k}" / f"{p}.csv") for p in ("train", "valid", "test")}
        assert {p: list(t) for p, t in parts.items()} == {p: ["id", "label", "wav_path"] for p in parts}
        speaker = {r["path"]: r["speaker"] for r in train["meta_data"] + test["meta_data"]}
        sides = {p: set(t["wav_path"].map(speaker)) for p, t in parts.items()}
        assert not sides["train"] & sides["valid"] and not (sides["train"] | sides["valid"]) & sides["test"]
        assert sorted([*parts["train"]["wav_path"], *parts["valid"]["wav_path"]]) == sorted(r["path"] for r in train["meta_data"])
    assert len(tested) == len(set(tested)) == len(corpus) - 2


def test_bad_files_are_listed_and_left_out(made: tuple[Corpus, Any]) -> None:
    corpus, out = made
    assert out.problems["utterance"].tolist() == corpus.table["utterance"].iloc[[3, 8]].tolist()
    assert "no such file" in out.problems["problem"][0]
    assert pd.read_csv(out.folder / "problems.csv")["utterance"].tolist() == out.problems["utterance"].tolist()
    assert "2 files could not be used" in (out.folder / "README.md").read_text()
    assert len(list((out.folder / "wav").rglob("*.wav"))) == len(corpus) - 2


def test_sound_is_16_khz_mono_and_as_long_as_it_was(made: tuple[Corpus, Any]) -> None:
    corpus, out = made
    rows = {r["path"]: r for k in range(1, 6) for r in meta(out.folder, k, "test")["meta_data"]}
    assert not any(path.startswith("/") or ".." in path or " " in path for path in rows)
    names = {Path(path).stem: sf.info(out.folder / path) for path in rows}
    assert {(i.samplerate, i.channels, i.subtype) for i in names.values()} == {(RATE, 1, "PCM_16")}
    for k, row in corpus.table.iterrows():
        if k not in (3, 8):
            stem = row["utterance"].replace(" ", "_").replace("/", "_")
            want = 1.5 * RATE if k == 5 else 6000 + 100 * k  # type: ignore[operator]
            assert abs(names[stem].frames - want) <= 2
    whole = corpus.table["audio"][0]
    assert (corpus.root / whole).read_bytes() == (out.folder / "wav/tiny/A_neutral_0.wav").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_the_emotion_recipe_reads_it(made: tuple[Corpus, Any]) -> None:
    dataset = pytest.importorskip("s3prl.downstream.emotion.dataset")
    _, out = made
    for part in ("train", "test"):
        known = meta(out.folder, 2, part)["meta_data"]
        data = dataset.IEMOCAPDataset(str(out.folder), str(out.folder / f"meta_data/Session2/{part}_meta_data.json"))
        assert len(data) == len(known) and data.class_num == 4
        for (wave, label, name), row in zip((data[i] for i in range(len(data))), known, strict=True):
            assert FOUR[label] == row["label"] and name == Path(row["path"]).stem
            assert wave.shape == (sf.info(out.folder / row["path"]).frames,)


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_s_expert_learns_from_the_settings_that_were_written(
    made: tuple[Corpus, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    expert = pytest.importorskip("s3prl.downstream.emotion.expert")
    import torch

    _, out = made
    monkeypatch.chdir(out.folder)
    settings = yaml.safe_load(Path("config.yaml").read_text())["downstream_expert"]
    settings["datarc"]["num_workers"] = 0
    learner = expert.DownstreamExpert(upstream_dim=8, downstream_expert=settings, expdir=str(tmp_path))
    waves, labels, names = next(iter(learner.get_dataloader("train")))
    records: dict[str, list[Any]] = {k: [] for k in ("acc", "loss", "filename", "predict", "truth")}
    loss = learner("train", [torch.randn(5 + i, 8) for i in range(len(waves))], labels, names, records)
    loss.backward()
    assert len(waves) == 4 and set(records["truth"]) <= set(FOUR)
    assert sum(p.numel() for p in learner.parameters()) == 8 * 256 + 256 + 256 * 4 + 4
    assert len(learner.train_dataset) + len(learner.dev_dataset) == len(meta(out.folder, 1, "train")["meta_data"])


SUPERB = """
import sys, types
from unittest.mock import MagicMock
for name in ("editdistance", "sed_eval", "validators", "dcase_util", "dcase_util.containers"):  # what other tasks need
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = MagicMock()
from s3prl.dataio.dataset.load_audio import LoadAudio
from s3prl.problem.common.superb_er import SuperbER
problem = SuperbER()
train, valid, tests = problem.prepare_data(dict(iemocap="", test_fold=0), sys.argv[1], sys.argv[2], get_path_only=True)
encoder = problem.build_encoder({}, sys.argv[2], sys.argv[2], train, valid, tests)
for csv in (train, valid, *tests):
    data = problem.build_dataset({}, sys.argv[2], sys.argv[2], "test", csv, encoder, 160)
    print("\\n".join(f"{d['unique_name']} {d['label']} {d['x_len']}" for d in (data[i] for i in range(len(data)))))
"""


def test_the_superb_task_reads_it(made: tuple[Corpus, Any], tmp_path: Path) -> None:
    for needed in ("s3prl", "librosa", "omegaconf"):
        pytest.importorskip(needed)
    _, out = made
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", SUPERB, "superb_er/fold3", str(tmp_path)], cwd=out.folder,
                         capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "HOME": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines() if line.count(" ") == 2}
    rows = meta(out.folder, 3, "train")["meta_data"] + meta(out.folder, 3, "test")["meta_data"]
    assert len(told) == len(rows)
    for row in rows:
        assert told[Path(row["path"]).stem] == [row["label"], str(sf.info(out.folder / row["path"]).frames)]


def test_the_corpus_own_parts_are_one_fold(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "parted", split=True)
    out = export_s3prl(corpus, tmp_path / "out")
    assert out.sizes == [{"train": 24, "dev": 8, "test": 8}]
    valid = pd.read_csv(out.folder / "superb_er/fold1/valid.csv")
    assert valid["id"].str.startswith("B_").all()
    assert len(export_s3prl(corpus, tmp_path / "out", folds=5).sizes) == 5


def test_one_corpus_trains_and_another_tests(tmp_path: Path) -> None:
    source, target = corpus_of(tmp_path / "source", "source"), corpus_of(tmp_path / "target", "target", "AB")
    out = export_s3prl(source, tmp_path / "out", target=target)
    test = meta(out.folder, 1, "test")["meta_data"]
    assert len(test) == len(target) and all(r["path"].startswith("wav/target/") for r in test)
    assert all(r["path"].startswith("wav/source/") for r in meta(out.folder, 1, "train")["meta_data"])
    assert "another corpus" in (out.folder / "README.md").read_text()


def test_a_corpus_without_speakers_is_divided_by_dialogue(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "talk")
    named = corpus.table.assign(speaker="", dialogue=[f"d{i // 4}" for i in range(len(corpus))])
    out = export_s3prl(Corpus("talk", named, corpus.root, "four"), tmp_path / "out")
    dialogue = dict(zip((u.replace(" ", "_").replace("/", "_") for u in named["utterance"]), named["dialogue"], strict=True))
    sides = [set(pd.read_csv(out.folder / f"superb_er/fold1/{p}.csv")["id"].map(dialogue)) for p in ("train", "valid", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2] and all(sides)


def test_refusals_are_one_clear_line_and_leave_nothing_behind(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "tiny", speakers="AB")
    blank = Corpus("tiny", corpus.table.assign(emotion=["", "", *corpus.table["emotion"][2:]]), corpus.root, "four")
    with pytest.raises(InputError, match=r"2 of 16 utterances have no label.*found none for 'A neutral/0'"):
        export_s3prl(blank, tmp_path / "out")
    with pytest.raises(InputError, match="will not write over"):
        export_s3prl(corpus, tmp_path / "tiny")
    with pytest.raises(InputError, match="one corpus"):
        export_s3prl(corpus, tmp_path / "out", target=corpus)
    silent = Corpus("text", corpus.table.assign(audio="", text="Well."), space="four")
    with pytest.raises(InputError, match="no audio"):
        export_s3prl(silent, tmp_path / "out")
    gone = Corpus("gone", corpus.table, tmp_path / "nowhere", "four")
    with pytest.raises(InputError, match="no file of its train part can be used"):
        export_s3prl(gone, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "tiny", speakers="ABC")
    first = export_s3prl(corpus, tmp_path / "out")
    less = corpus.where(corpus.table["speaker"] != "C")
    second = export_s3prl(less, tmp_path / "out", dev_share=0.5)
    assert len(first.sizes) == 3 and len(second.sizes) == 2
    assert not (tmp_path / "out" / "meta_data" / "Session3").exists()
