"""Exports for the hub and for audEERING's tools: what is given away comes back the same, and people's corpora are not given."""

import configparser
import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.analysis.datacard import export_audformat, export_datasets, write_data_card
from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import save_audio
from zsemo_kit.corpora.own_data import read_path
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.corpus_by_name import open_corpus

pytest.importorskip("audformat")
datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
FOUR = ("neutral", "happy", "sad", "angry")
HARD = ["None", "NA", "null", "-0", "1e5", "a,b\n\"c\"", "\ufeffzażółć", "=1+1", "  spaced  ", "x" * 5000, "\x1f", "nan"]


def spoken(root: Path, split: bool = False) -> Corpus:
    """Recorded lines with tones for voices, hard text and two lines that share one file."""
    corpus = open_corpus("meld_synthetic", "four")
    table = corpus.table.groupby("emotion", sort=False).head(6).reset_index(drop=True)
    table["text"] = [*HARD, *table["text"][len(HARD):]]
    names = [f"s{k % 3}/tone {k}.flac" for k in range(len(table))]
    names[1] = names[0]
    for k, name in enumerate(names):
        save_audio(root / name, 0.1 * np.sin(np.arange(4000 + 10 * k) * (0.05 + 0.001 * k)))
    parts = ["train", "dev", "test"] if split else [""]
    table = table.assign(audio=names, split=[parts[k % len(parts)] for k in range(len(table))])
    return Corpus("meld_synthetic", table, root, "four")


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("split", [False, True])
def test_datasets_gives_rows_labels_and_bytes_back(tmp_path: Path, split: bool) -> None:
    corpus = spoken(tmp_path / "in", split)
    made = export_datasets(corpus, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == ({"train", "validation", "test"} if split else {"train"}) == set(made.splits)
    names = {"train": "train", "validation": "dev", "test": "test"}
    for part, data in loaded.items():
        want = corpus.table[corpus.table["split"] == (names[part] if split else "")]
        assert data.features["emotion"].names == list(FOUR) and isinstance(data.features["audio"], datasets.Audio)
        assert [FOUR[e] for e in data["emotion"]] == want["emotion"].tolist()
        for column in ("utterance", "dialogue", "turn", "speaker", "text", "card", "strategy", "model", "history"):
            assert data[column][:] == want[column].tolist(), column
        raw = data.cast_column("audio", datasets.Audio(decode=False))["audio"]
        assert [a["bytes"] for a in raw] == [(corpus.root / a).read_bytes() for a in want["audio"]]


def test_audformat_gives_the_table_back(tmp_path: Path) -> None:
    corpus = spoken(tmp_path / "in")
    export_audformat(corpus, tmp_path / "out")
    back = read_path(tmp_path / "out")
    pd.testing.assert_frame_equal(
        back.table.drop(columns="audio")[corpus.table.drop(columns="audio").columns], corpus.table.drop(columns="audio"),
        check_dtype=False, check_categorical=False,
    )
    assert [(back.root / a).read_bytes() for a in back.table["audio"]] == [
        (corpus.root / a).read_bytes() for a in corpus.table["audio"]]


def test_text_alone_makes_the_round_trip_too(tmp_path: Path) -> None:
    corpus = open_corpus("ravdess_synthetic", "four")
    export_audformat(corpus, tmp_path / "a")
    export_datasets(corpus, tmp_path / "d")
    assert read_path(tmp_path / "a").table["text"].tolist() == corpus.table["text"].tolist()
    assert not (tmp_path / "a" / "nkululeko.ini").exists()
    loaded = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded["text"][:] == corpus.table["text"].tolist() and "audio" not in loaded.features


@pytest.mark.parametrize("split", [False, True])
def test_what_was_exported_is_read_back(tmp_path: Path, split: bool) -> None:
    corpus = spoken(tmp_path / "in", split)
    export_datasets(corpus, tmp_path / "out")
    back = read_path(tmp_path / "out")
    assert (back.name, back.space) == (corpus.name, corpus.space)
    want, found = (c.table.set_index("utterance", drop=False).loc[corpus.table["utterance"]] for c in (corpus, back))
    same = [c for c in want if c != "audio"]
    pd.testing.assert_frame_equal(found[same], want[same], check_dtype=False)
    assert [(back.root / a).read_bytes() for a in found["audio"]] == [(corpus.root / a).read_bytes() for a in want["audio"]]
    one = read_path(tmp_path / "out" / "data" / "train-00000.parquet")
    assert set(one.table["emotion"]) <= set(FOUR) and one.space == "four"


@pytest.mark.parametrize("parts", [False, True])
def test_what_datasets_saved_to_disk_is_read_back(tmp_path: Path, parts: bool) -> None:
    corpus = spoken(tmp_path / "in", split=True)
    data = corpus.to_datasets()
    folder, sound = tmp_path / "disk", datasets.Audio(decode=False)
    sounds = [{"bytes": (corpus.root / a).read_bytes(), "path": a} for a in corpus.table["audio"]]
    data = data.remove_columns(["audio"]).add_column("audio", sounds, feature=sound)
    if parts:
        names = {"train": "train", "dev": "validation", "test": "test"}
        halves = {new: data.filter(lambda r, old=old: r["split"] == old).remove_columns(["split"]) for old, new in names.items()}
        datasets.DatasetDict(halves).save_to_disk(folder)
    else:
        data.save_to_disk(folder)
    back = read_path(folder)
    want, found = (c.table.set_index("utterance", drop=False).loc[corpus.table["utterance"]] for c in (corpus, back))
    same = ["utterance", "text", "emotion", "speaker", "split", "turn", "history"]
    pd.testing.assert_frame_equal(found[same], want[same], check_dtype=False)
    assert [(back.root / a).read_bytes() for a in found["audio"]] == [(corpus.root / a).read_bytes() for a in want["audio"]]


@pytest.mark.parametrize("export", [export_datasets, export_audformat])
def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, export) -> None:
    corpus = spoken(tmp_path / "in")
    for where in ("a", "b"):
        export(corpus, tmp_path / where / "out")
    assert digests(tmp_path / "a/out") == digests(tmp_path / "b/out")


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import DatasetCard
    monkeypatch.delenv("ZSEMO_CORPORA", raising=False)
    corpus = spoken(tmp_path / "in")
    export_datasets(corpus, tmp_path / "out", commands=["zsemo export datasets x out"])
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    told = card.data.to_dict()
    assert told["license"] == "apache-2.0" and told["language"] == ["en"] and told["size_categories"] == ["n<1K"]
    assert told["task_categories"] == ["audio-classification"] and told["configs"][0]["config_name"] == "default"
    for part in ("Poria et al.", "Known limits", "distinct_2", "Label space `four`", "not measured",
                 "zsemo export datasets x out", "Write one complete conversation"):
        assert part in card.text, part
    asked = [json.loads(line) for line in (tmp_path / "out/prompts.jsonl").read_text().splitlines()]
    rows = zip(corpus.table["strategy"], corpus.table["scenario"], strict=True)
    assert {(p["strategy"], p["scenario"]) for p in asked} == set(rows)
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text()


def test_overlap_is_measured_where_the_real_corpus_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = open_corpus("meld_synthetic", "four")
    own = corpus.where({"dialogue": corpus.table["dialogue"].drop_duplicates().head(20).tolist()})
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    for part, dialogues in (("train", 6), ("dev", 2), ("test", 4)):
        lines = [f'1,"{part} words number {d} {t} went quite far away",Ann,neutral,neutral,{d},{t},1,2,"00:01:02,5","00:01:03,0"'
                 for d in range(dialogues) for t in range(3)]
        (tmp_path / "meld").mkdir(exist_ok=True)
        (tmp_path / "meld" / f"{part}_sent_emo.csv").write_text(head + "\n".join(lines) + "\n")
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    card = write_data_card(own)
    assert "not measured" not in card and "| identical |" in card and "meld test" in card
    assert "words number" not in card, "rates only, never a line of the real corpus"


def test_a_corpus_of_people_is_not_given_away(tmp_path: Path) -> None:
    corpus = spoken(tmp_path / "in")
    people = Corpus("meld", corpus.table.drop(columns=["card", "reply_id"]), corpus.root, "four")
    with pytest.raises(InputError, match="corpus of people"):
        export_datasets(people, tmp_path / "out")
    with pytest.raises(InputError, match="--real"):
        export_audformat(people, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    one = people.where({"utterance": people.table["utterance"].drop(index=1).tolist()})
    export_audformat(one, tmp_path / "out", real=True)
    import audformat
    db = audformat.Database.load(str(tmp_path / "out"))
    assert all(Path(f).is_file() and str(corpus.root) in f for f in db.files)
    assert not [p for p in (tmp_path / "out").rglob("*.flac")]
    assert "do not pass it on" in (tmp_path / "out/README.md").read_text()


def test_what_cannot_be_used_is_listed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    corpus = spoken(tmp_path / "in")
    (corpus.root / corpus.table["audio"][5]).write_bytes(b"RIFF, or so it says")
    (corpus.root / corpus.table["audio"][6]).unlink()
    made = export_datasets(corpus, tmp_path / "out")
    assert made.utterances == len(corpus) - 2
    assert pd.read_csv(tmp_path / "out/problems.csv")["utterance"].tolist() == corpus.table["utterance"].iloc[[5, 6]].tolist()
    before = digests(tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "in"):
        with pytest.raises(InputError, match="will not write over"):
            export_datasets(corpus, folder)
    with pytest.raises(InputError, match="will not write over"):
        export_audformat(corpus, tmp_path / "out", force=True)  # another form's export is not its own
    assert digests(tmp_path / "out") == before
    export_datasets(corpus.where(corpus.table["turn"] < 4), tmp_path / "out", force=True)
    assert digests(tmp_path / "out") != before and sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_own_models_lines_need_card_and_licence(tmp_path: Path) -> None:
    corpus = open_corpus("ravdess_synthetic", "four")
    own = Corpus(corpus.name, corpus.table.assign(reply_id="mine", model="mine"), space="four")
    with pytest.raises(InputError, match="--licence"):
        export_datasets(own, tmp_path / "out")
    with pytest.raises(InputError, match="bad licence"):
        export_datasets(own, tmp_path / "out", licence="my own: yes")
    export_datasets(own, tmp_path / "out", licence="cc-by-4.0")
    assert "license: cc-by-4.0" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(InputError, match="--card"):
        export_datasets(Corpus("x", own.table.assign(card="mine"), space="four"), tmp_path / "no", licence="mit")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = told(capsys, "export", "datasets", "ravdess_synthetic", "hub", "--json")
    made = json.loads(out)
    assert code == 0 and made["folder"] == "hub" and made["utterances"] == made["splits"]["train"]
    code, out, err = told(capsys, "export", "datasets", "ravdess_synthetic", "hub")
    assert code == 2 and err.startswith("zsemo: will not write over hub") and err.count("\n") == 1
    assert told(capsys, "export", "datasets", "ravdess_synthetic", "hub", "--force", "--json")[0] == 0
    code, out, _ = told(capsys, "export", "audformat", "ravdess_synthetic", "base", "--space", "seven", "--json")
    assert code == 0 and (tmp_path / "base/db.yaml").is_file()
    name = "ravdess_synthetic"
    for words in (["nowhere", "x"], [name, "x", "--space", "nine"], [name, "x", "--card", "none.yaml"]):
        code, _, err = told(capsys, "export", "datasets", *words)
        assert code == 2 and "Traceback" not in err and err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_nkululeko_trains_on_the_export_unchanged(tmp_path: Path) -> None:
    python = os.environ.get("ZSEMO_NKULULEKO", "")
    if not python:
        pytest.skip("nkululeko needs an environment of its own: ZSEMO_NKULULEKO names its python")
    from zsemo_kit.synthesis.speak import speak
    from zsemo_kit.synthesis.voices import open_engine
    corpus = open_corpus("ravdess_synthetic", "four")
    few = corpus.where({"dialogue": corpus.table["dialogue"].drop_duplicates().head(8).tolist()})
    said = speak(few, open_engine("espeak"), tmp_path / "said", takes=2)
    export_audformat(said.corpus, tmp_path / "base")
    settings = configparser.ConfigParser()
    settings.read(tmp_path / "base/nkululeko.ini")
    assert settings["DATA"]["target"] == "emotion"
    ran = subprocess.run([python, "-m", "nkululeko.nkululeko", "--config", "nkululeko.ini"], cwd=tmp_path / "base", check=False,
                         capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0 and "UAR" in ran.stdout + ran.stderr, (ran.stdout + ran.stderr)[-2000:]
    assert list((tmp_path / "base/results").rglob("*.csv"))
