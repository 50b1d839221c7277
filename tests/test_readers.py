"""Readers: documented layouts in small, hostile files, and the real MELD where it is there."""

import csv
import io
import json
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.catalogue import corpus_names
from zsemo_kit.corpora.labels import in_space
from zsemo_kit.corpora.own_data import read_audformat, read_audiofolder, read_path, read_table
from zsemo_kit.corpora.readers import available, corpora_root, describe_root, find, find_likely, read
from zsemo_kit.corpora.source_files import mend_text, read_rows
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.written_corpus import open_recorded

MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
PODCAST_HEAD = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
MOSI_HEAD = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
EMORY_HEAD = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time\n"


def put(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def meld_line(dialogue: int, turn: int, text: str = "Oh.", emotion: str = "neutral") -> str:
    return f'1,"{text}",Ann,{emotion},neutral,{dialogue},{turn},1,2,"00:01:02,500","00:01:03,000"\n'


# MELD


def test_real_meld(corpora_dir: Path) -> None:
    corpus = read("meld", corpora_dir / "meld")
    assert corpus.table["split"].value_counts().to_dict() == {"train": 9989, "test": 2610, "dev": 1109}
    assert len(in_space(corpus.where({"split": "train"}), "four")) == 8245
    assert corpus.table["utterance"].str.fullmatch(r"(train|dev|test)_dia\d+_utt\d+").all()
    assert not corpus.table["text"].str.contains("[\x80-\x9f\ufffd]").any()
    assert corpus.table["episode_start"].notna().all() and corpus.table["audio"].eq("").all()
    assert corpus.table["sentiment"].isin(["positive", "negative", "neutral"]).all()
    assert corpus.table["start"].isna().all()


def test_meld_parts_deeper_and_with_clips(tmp_path: Path) -> None:
    put(tmp_path, "MELD.Raw/train/train_sent_emo.csv", MELD_HEAD + meld_line(0, 0) + meld_line(0, 1))
    put(tmp_path, "MELD.Raw/dev_sent_emo.csv", MELD_HEAD + meld_line(0, 0))
    put(tmp_path, "MELD.Raw/train/train_splits/dia0_utt1.flac", b"")
    put(tmp_path, "MELD.Raw/train/train_splits/._dia0_utt0.flac", b"")
    corpus = read("MELD", tmp_path)
    assert list(corpus.table["audio"]) == ["", "MELD.Raw/train/train_splits/dia0_utt1.flac", ""]
    assert corpus.table["utterance"].is_unique and list(corpus.table["split"]) == ["train", "train", "dev"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (meld_line(0, 0, emotion="glee"), "line 2: bad 'emotion'; expected one of neutral, joy"),
        (meld_line(0, 0).replace(",0,0,1,2", ",zero,0,1,2"), "line 2: bad 'Dialogue_ID'"),
        (meld_line(0, 0) + "1,too,few\n", "line 3: 3 fields; expected 11"),
        (meld_line(0, 0) + meld_line(0, 0), "bad 'utterance'"),
        (meld_line(0, 0) + '2,"never closed,Ann\n' * 2, "line 4"),
    ],
)
def test_meld_errors_name_file_and_line(tmp_path: Path, body: str, told: str) -> None:
    put(tmp_path, "test_sent_emo.csv", MELD_HEAD + body)
    with pytest.raises(InputError) as caught:
        read("meld", tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_none_and_na_are_words(tmp_path: Path) -> None:
    put(tmp_path, "test_sent_emo.csv", MELD_HEAD + meld_line(0, 0, "None") + meld_line(0, 1, "NA"))
    assert list(read("meld", tmp_path).table["text"]) == ["None", "NA"]


@pytest.mark.parametrize("data", [b"It\x92s", "It\x92s".encode(), "It\u00e2\u20ac\u2122s".encode(), "It\u2019s".encode()])
def test_all_ways_to_break_an_apostrophe(tmp_path: Path, data: bytes) -> None:
    line = meld_line(0, 0).encode().replace(b"Oh.", data)
    put(tmp_path, "test_sent_emo.csv", MELD_HEAD.encode() + line)
    assert read("meld", tmp_path).table["text"].iloc[0] == "It\u2019s"


TRACES = st.lists(st.sampled_from(["â€™", "â", "€", "Ã¤", "\x99", "\x80", "Ã", "Â", "\udc92", "ł", "Ä™", "é", " "])).map("".join)


@given(st.one_of(st.text(), TRACES))
def test_mending_twice_changes_nothing_more(text: str) -> None:
    assert mend_text(mend_text(text)) == mend_text(text)


@pytest.mark.parametrize("card", ["emodb", "nemo"])
def test_german_and_polish_stay_and_are_mended_where_they_were_read_as_latin_1(card: str) -> None:
    for text in open_recorded(card).table["text"]:
        assert mend_text(text) == mend_text(text.encode().decode("latin-1")) == text


# EmoryNLP


def test_emorynlp_maps_the_wheel_and_keeps_repeats(tmp_path: Path) -> None:
    labels = ["Joyful", "Mad", "Peaceful", "Neutral", "Sad", "Powerful", "Scared"]
    lines = "".join(f"Line {i}.,\"['Ann Bee']\",{label},1,{i},1,2,00:00:01.000,00:00:02.500\n" for i, label in enumerate(labels))
    put(tmp_path, "data/emorynlp/emorynlp_train_final.csv", EMORY_HEAD + lines + "Again.,['Ann Bee'],Sad,1,0,1,2,,\n")
    corpus = read("emorynlp", tmp_path)
    assert list(corpus.table["emotion"][:7]) == ["happy", "angry", "calm", "neutral", "sad", "other", "fear"]
    assert corpus.table["utterance"].iloc[-1] == "train_s01_e02_c01_u000~2"
    assert list(in_space(corpus, "four").table["emotion"]) == ["happy", "angry", "neutral", "sad", "sad"]
    assert set(in_space(corpus, "polarity").table["emotion"]) == {"positive", "negative"}
    assert corpus.table["episode_end"].iloc[0] == 2.5


# DailyDialog


def daily(root: Path, part: str, words: str, emotions: str, acts: str = "") -> None:
    folder, end = (root / part, f"_{part}") if part else (root, "")
    put(folder, f"dialogues{end or '_text'}.txt", words)
    put(folder, f"dialogues_emotion{end}.txt", emotions)
    if acts:
        put(folder, f"dialogues_act{end}.txt", acts)


def test_dailydialog_forms_agree(tmp_path: Path) -> None:
    dialogues = [("train", ["A .", "B !"], [0, 4]), ("validation", ["C ?"], [6]), ("test", ["D .", "E .", "F ."], [1, 2, 3])]
    for part, words, emotions in dialogues:
        text = " __eou__ ".join(words) + " __eou__\n"
        daily(tmp_path / "text", part, text, " ".join(map(str, emotions)) + " \n", " ".join("1" for _ in words) + " \n")
        record = {"dialog": words, "act": [1] * len(words), "emotion": emotions}
        put(tmp_path / "lines", f"{part}.jsonl", json.dumps(record) + "\n")
        put(tmp_path / "parquet", f"{part}/0000.parquet", b"")
        pd.DataFrame([record]).to_parquet(tmp_path / "parquet" / part / "0000.parquet")
    text, lines, parquet = (read("dailydialog", tmp_path / form).table for form in ("text", "lines", "parquet"))
    pd.testing.assert_frame_equal(text, lines)
    pd.testing.assert_frame_equal(text, parquet)
    assert list(text["split"]) == ["train"] * 2 + ["dev"] + ["test"] * 3
    assert list(text["emotion"]) == ["neutral", "happy", "surprise", "angry", "disgust", "fear"]
    assert text.loc[text["dialogue"] == "test_00001", "speaker"].tolist() == ["test_00001_A", "test_00001_B", "test_00001_A"]


def test_dailydialog_whole_and_misaligned(tmp_path: Path) -> None:
    daily(tmp_path, "", "A . __eou__ B . __eou__\n" * 200 + "C . __eou__ D . __eou__\n", "0 0\n" * 200 + "0\n")
    with pytest.warns(UserWarning, match="line 201"):
        corpus = read("dailydialog", tmp_path)
    assert len(corpus) == 400 and set(corpus.table["split"]) == {""}
    daily(tmp_path, "", "A . __eou__ B . __eou__\n" * 10, "0\n" * 10)
    with pytest.raises(InputError, match="10 such dialogues"):
        read("dailydialog", tmp_path)
    daily(tmp_path, "", "A . __eou__\n", "9\n")
    with pytest.raises(InputError, match="line 1: bad 'emotion'"):
        read("dailydialog", tmp_path)


# IEMOCAP


def iemocap(root: Path, session: int, name: str, lines: list[tuple[float, float, str, str]]) -> None:
    rating = "[2.5000, 3.0000, 2.5000]\nC-E1:\tNeutral;\t()\n\n"
    turns = "".join(f"[{a:.4f} - {b:.4f}]\t{name}_{t}\t{e}\t{rating}" for a, b, t, e in lines)
    said = "".join(f"{name}_{t} [{a:08.4f}-{b:08.4f}]: Words of {t}.\n" for a, b, t, _ in lines)
    head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    put(root, f"Session{session}/dialog/EmoEvaluation/{name}.txt", head + turns)
    put(root, f"Session{session}/dialog/EmoEvaluation/._{name}.txt", b"\x00\x05\x16\x07")
    put(root, f"Session{session}/dialog/EmoEvaluation/Categorical/{name}_e1_cat.txt", "not this one\n")
    put(root, f"Session{session}/dialog/transcriptions/{name}.txt", said + "M: [LAUGHTER]\n")


def test_iemocap_text_audio_and_order(tmp_path: Path) -> None:
    iemocap(tmp_path, 1, "Ses01F_impro05", [(5.0, 6.0, "M000", "exc"), (1.0, 2.0, "F000", "xxx")])
    iemocap(tmp_path, 2, "Ses02M_script03_2a", [(1.0, 2.0, "MXX0", "ang")])
    text = read("iemocap", tmp_path).table
    assert list(text["utterance"]) == ["Ses01F_impro05_F000", "Ses01F_impro05_M000", "Ses02M_script03_2a_MXX0"]
    assert list(text["gender"]) == ["female", "male", "male"] and list(text["speaker"]) == ["Ses01_F", "Ses01_M", "Ses02_M"]
    assert list(text["script"]) == ["", "", "script03_2"] and list(text["session"]) == [1, 1, 2]
    assert text["audio"].eq("").all() and text["start"].isna().all() and text["dialogue_start"].tolist() == [1.0, 5.0, 1.0]
    assert list(in_space(read("iemocap", tmp_path), "four").table["emotion"]) == ["happy", "angry"]
    put(tmp_path, "Session1/sentences/wav/Ses01F_impro05/Ses01F_impro05_F000.wav", b"")
    put(tmp_path, "Session2/dialog/wav/Ses02M_script03_2a.wav", b"")
    heard = read("iemocap", tmp_path).table
    assert heard["audio"].tolist()[0].startswith("Session1/sentences") and pd.isna(heard["start"].iloc[0])
    assert heard.loc[2, ["audio", "start", "end"]].tolist() == ["Session2/dialog/wav/Ses02M_script03_2a.wav", 1.0, 2.0]


@pytest.mark.parametrize(
    ("cut", "whole", "used"),
    [(".wav", ".wav", "sentences"), (".flac", ".wav", "sentences"), (".WAV", "", "sentences"), ("", ".flac", "dialog"),
     ("", ".WAV", "dialog"), ("", "", "")],
)
def test_iemocap_prefers_cut_sentences_and_points_into_whole_dialogues(tmp_path: Path, cut: str, whole: str, used: str) -> None:
    root = tmp_path / "IEMOCAP_full_release"
    iemocap(root, 5, "Ses05F_script01_1", [(1.5, 2.0, "F000", "sad"), (3.0, 4.25, "M000", "neu")])
    cuts = ("sentences/wav/Ses05F_script01_1", "Ses05F_script01_1_F000", cut)
    for folder, stem, suffix in (cuts, ("dialog/wav", "Ses05F_script01_1", whole)):
        put(root, f"Session5/{folder}/._{stem}.wav", b"")
        if suffix:
            put(root, f"Session5/{folder}/{stem}{suffix}", b"")
    table = read("iemocap", tmp_path).table
    first, second = table.iloc[0], table.iloc[1]
    assert used in first["audio"] and bool(first["audio"]) == bool(used)
    assert [first["start"], first["end"]] == [1.5, 2.0] if used == "dialog" else pd.isna(first["start"]) and pd.isna(first["end"])
    assert bool(second["audio"]) == bool(whole) and (not whole or [second["start"], second["end"]] == [3.0, 4.25])


def test_iemocap_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Session"):
        read("iemocap", tmp_path)
    iemocap(tmp_path, 1, "Ses01F_impro05", [(5.0, 6.0, "M000", "joy")])
    with pytest.raises(InputError, match=r"Ses01F_impro05.txt, line 3: bad 'emotion'"):
        read("iemocap", tmp_path)


# MSP-Podcast and MSP-IMPROV


def test_podcast_tests_never_reach_training(tmp_path: Path) -> None:
    parts = ["Train", "Development", "Test1", "Test2", "Test3"]
    codes = "NHSAU"
    rows = "".join(f"MSP-PODCAST_0001_{i:04}.wav,{codes[i]},4,4,4,{i},Male,{part}\n" for i, part in enumerate(parts))
    extra = "".join(f"MSP-PODCAST_0002_{i:04}_0001.wav,{c},4,4,4,Unknown,Unknown,Train\n" for i, c in enumerate("FDCOX"))
    put(tmp_path, "Labels/labels_consensus.csv", PODCAST_HEAD + rows + extra)
    put(tmp_path, "Transcripts/MSP-PODCAST_0001_0002.txt", "well  then\n")
    put(tmp_path, "Audios/MSP-PODCAST_0001_0002.wav", b"")
    table = read("MSP-Podcast", tmp_path).table
    assert list(table["split"][:5]) == ["train", "dev", "test", "test", "test"] and list(table["partition"][:5]) == parts
    assert list(table["emotion"]) == ["neutral", "happy", "sad", "angry", "surprise", "fear", "disgust", "contempt", "other", ""]
    assert table.loc[2, ["text", "dialogue"]].tolist() == ["well then", "MSP-PODCAST_0001"]
    assert table.loc[2, "audio"] == "Audios/MSP-PODCAST_0001_0002.wav"
    assert table["speaker"].tolist()[5] == "" and table["gender"].tolist()[5] == "unknown"


@pytest.mark.parametrize("folder", ["Audios", "Audio", "MSP-PODCAST-Publish-1.11/Audios/part1"])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_podcast_audio(tmp_path: Path, folder: str, suffix: str) -> None:
    row = "MSP-PODCAST_0001_{:04}.wav,N,4,4,4,1,Male,Train\n"
    top = f"{folder.split('/')[0]}/" if "/" in folder else ""
    put(tmp_path, f"{top}Labels/labels_consensus.csv", PODCAST_HEAD + row.format(1) + row.format(2))
    put(tmp_path, f"{folder}/MSP-PODCAST_0001_0001{suffix}", b"")
    put(tmp_path, f"{folder}/._MSP-PODCAST_0001_0002.wav", b"")
    corpus = read("msp_podcast", tmp_path)
    assert list(corpus.table["audio"]) == [f"{folder}/MSP-PODCAST_0001_0001{suffix}", ""]
    assert corpus.table["start"].isna().all()


@pytest.mark.parametrize("bad", ["../x.wav,N", "/MSP-PODCAST_0001_0001.wav,N", "song.wav,N", "MSP-PODCAST_0001_0001.wav,Q"])
def test_podcast_refuses(tmp_path: Path, bad: str) -> None:
    put(tmp_path, "Labels/labels_consensus.csv", PODCAST_HEAD + bad + ",4,4,4,1,Male,Train\n")
    with pytest.raises(InputError, match=r"labels_consensus\.csv, line 2: bad"):
        read("msp_podcast", tmp_path)


@pytest.mark.parametrize("name", ["Evalution.txt", "Evaluation.txt"])
def test_improv(tmp_path: Path, name: str) -> None:
    turns = ["S01A-F01-R-FF01.avi; A", "S01A-F01-T-MF02.avi; N", "S01A-F01-S-FM03.avi; H", "S20S-M06-P-MM04.avi; O"]
    text = "".join(f"UTD-IMPROV-{t}; A:2.0 ; V:3.0 ; D:NaN ; N:4.0 ; \nWQ1; Angry; Angry; A:2.0; V:3.0;\n\n" for t in turns)
    put(tmp_path, f"MSP-IMPROV/{name}", text)
    put(tmp_path, "MSP-IMPROV/Audio/session1/S01A/R/MSP-IMPROV-S01A-F01-R-FF01.wav", b"")
    put(tmp_path, "MSP-IMPROV/All_human_transcriptions/session1/MSP-IMPROV-S01A-F01-R-FF01.txt", "so it is\n")
    corpus = read("msp-improv", tmp_path)
    table = corpus.table
    assert list(table["speaker"]) == ["F01", "F01", "M01", "M06"]
    assert list(table["gender"]) == ["female", "female", "male", "male"]
    assert list(table["setting"]) == ["target read", "target improvised", "other improvised", "natural interaction"]
    assert list(table["script"]) == ["S01", "S01", "", ""] and list(table["session"]) == [1, 1, 1, 6]
    assert table["text"].iloc[0] == "so it is" and (corpus.root / table["audio"].iloc[0]).is_file()


@pytest.mark.parametrize("kind", ["MSP{}.wav", "UTD{}.flac", "MSP{}.WAV"])
def test_improv_audio_under_either_name(tmp_path: Path, kind: str) -> None:
    name = kind.format("-IMPROV-S01A-F01-R-FF01")
    put(tmp_path, "Evalution.txt", "UTD-IMPROV-S01A-F01-R-FF01.avi; A;\nUTD-IMPROV-S01A-F01-S-FM02.avi; N;\n")
    put(tmp_path, f"Audio/session1/S01A/R/{name}", b"")
    put(tmp_path, f"Audio/session1/S01A/S/._{name.replace('R-FF01', 'S-FM02')}", b"")
    put(tmp_path, "Video/session1/S01A/R/MSP-IMPROV-S01A-F01-R-FF01.mp4", b"")
    assert list(read("msp_improv", tmp_path).table["audio"]) == [f"Audio/session1/S01A/R/{name}", ""]


# CMU-MOSI


def test_mosi_is_polarity(tmp_path: Path) -> None:
    lines = "-v,1,NO,-3.0,,,,Negative,train\n-v,2,HM,0.0,,,,Neutral,valid\n-v,10,YES,2.4,,,,Positive,test\n"
    put(tmp_path, "MOSI/label.csv", MOSI_HEAD + lines)
    corpus = read("cmu_mosi", tmp_path)
    assert corpus.space == "polarity" and list(corpus.table["emotion"]) == ["negative", "positive", "positive"]
    assert list(corpus.table["sentiment"]) == ["negative", "neutral", "positive"]
    assert list(in_space(corpus, "polarity").table["emotion"]) == ["negative", "positive", "positive"]
    assert list(corpus.table["split"]) == ["train", "dev", "test"] and list(corpus.table["turn"]) == [1, 2, 10]


# your own data


def test_own_audio_database_round_trip(tmp_path: Path) -> None:
    rows = pd.DataFrame({"utterance": ["a", "b"], "audio": ["x.wav", "x.wav"], "start": [0.0, 1.0], "end": [1.0, 2.0],
                         "emotion": ["sad", "happy"], "speaker": ["s", "t"], "turn": [0, 1]})
    Corpus("mine", rows).to_audformat().save(str(tmp_path))
    back = read_audformat(tmp_path).table
    assert list(back["utterance"]) == ["a", "b"] and list(back["start"]) == [0.0, 1.0]
    assert list(back["emotion"]) == ["sad", "happy"]
    assert list(back["turn"]) == [0, 1]


def test_foreign_audformat_database(tmp_path: Path) -> None:
    audformat = pytest.importorskip("audformat")
    db = audformat.Database("foreign")
    db.schemes["emotion"] = audformat.Scheme(labels=["anger", "happiness"])
    db["files"] = audformat.Table(audformat.filewise_index(["a/1.wav", "a/2.wav"]))
    db["files"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["files"]["emotion"].set(["anger", None])
    db.save(str(tmp_path))
    table = read(tmp_path).table
    assert list(table["emotion"]) == ["angry", ""] and list(table["utterance"]) == ["a/1.wav", "a/2.wav"]


@pytest.mark.parametrize("bad", ["../x.wav", "/etc/passwd", "C:\\x.wav", "a/../../x.wav", "\\\\server\\x.wav"])
def test_no_path_leaves_its_folder(tmp_path: Path, bad: str) -> None:
    put(tmp_path, "t/t.csv", f"utterance,audio,emotion\nu,{bad},sad\n")
    put(tmp_path, "f/train/metadata.csv", f"file_name,label\n{bad},sad\n")
    put(tmp_path, "j/metadata.jsonl", json.dumps({"file_name": bad, "label": "sad"}))
    for path in ("t/t.csv", "f", "j"):
        with pytest.raises(InputError, match=r"bad '(audio|file_name)'"):
            read(tmp_path / path)


def test_audiofolder_parts_and_own_columns(tmp_path: Path) -> None:
    put(tmp_path, "train/metadata.csv", "file_name,emotion,transcription,speaker_id\n1.wav,joy,Yes!,s1\n")
    put(tmp_path, "test/metadata.csv", "file_name,emotion,transcription,speaker_id\n1.wav,fear,No!,s2\n")
    table = read_audiofolder(tmp_path).table
    assert list(table["split"]) == ["test", "train"] and list(table["audio"]) == ["test/1.wav", "train/1.wav"]
    assert list(table["emotion"]) == ["fear", "happy"] and list(table["speaker"]) == ["s2", "s1"]
    put(tmp_path, "test/metadata.csv", "file_name,emotion\n1.wav,odd\n")
    with pytest.raises(InputError, match=r"metadata\.csv, line 2"):
        read_audiofolder(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), kind=st.sampled_from(["csv", "tsv", "parquet", "jsonl"]))
def test_hostile_files_are_input_errors(tmp_path: Path, data: bytes, kind: str) -> None:
    if kind == "jsonl":
        put(tmp_path, "folder/metadata.jsonl", data)
        path = tmp_path / "folder"
    else:
        head = b"utterance,text,emotion,turn,start\n" if kind == "csv" else b""
        path = put(tmp_path, f"x.{kind}", head + data)
    try:
        read_path(path)
    except InputError as e:
        assert "\n" not in str(e)


# LibriTTS


def libritts(root: Path, audio: bool = True, text: tuple[str, ...] = ("normalized", "original")) -> Path:
    "Two readers, three chapters, sentences that do not come in the order of their names."
    for subset, chapter, sentences in (("train-clean-100", "19/198", ("000010_000000", "000009_000002", "000009_000000")),
                                       ("dev-other", "700/1", ("000000_000000",)), ("dev-other", "700/122", ("000000_000000",))):
        for sentence in sentences:
            name = f"{subset}/{chapter}/{chapter.replace('/', '_')}_{sentence}"
            if audio:
                put(root, f"{name}.wav", b"")
            for kind in text:
                put(root, f"{name}.{kind}.txt", f"{kind}\n {sentence}")
        put(root, f"{subset}/{chapter}/{chapter.replace('/', '_')}.trans.tsv", "nothing of ours\n")
    return root


BARS = ";ID |SEX| SUBSET |MINUTES| NAME\n19   | F | train-clean-100  | 25.19 | Kara\n700 | M | dev-other | 8.02 | A | B\n"
TABS = "READER GENDER SUBSET NAME\n19\tF\ttrain-clean-100\tKara\n700\tM\tdev-other\n\n"


@pytest.mark.parametrize(("table", "text"), [("SPEAKERS.txt", BARS), ("speakers.tsv", TABS)])
@pytest.mark.parametrize("top", ["", "LibriTTS", "down/LibriTTS"])
def test_libritts(tmp_path: Path, table: str, text: str, top: str) -> None:
    put(libritts(tmp_path / top), table, text)
    corpus = read("LibriTTS", tmp_path)
    rows = corpus.table
    assert rows["utterance"].tolist() == ["19_198_000009_000000", "19_198_000009_000002", "19_198_000010_000000",
                                          "700_1_000000_000000", "700_122_000000_000000"]
    assert rows["turn"].tolist() == [0, 1, 2, 0, 0] and rows["dialogue"].tolist() == ["19_198"] * 3 + ["700_1", "700_122"]
    assert rows["gender"].tolist() == ["female"] * 3 + ["male"] * 2 and rows["speaker"].tolist() == ["19"] * 3 + ["700"] * 2
    assert rows["split"].tolist() == ["train"] * 3 + ["dev"] * 2
    assert rows["subset"].tolist() == ["train-clean-100"] * 3 + ["dev-other"] * 2
    assert rows["text"].tolist()[:2] == ["normalized 000009_000000", "normalized 000009_000002"]
    assert all((corpus.root / a).is_file() for a in rows["audio"])
    assert rows["emotion"].eq("").all() and len(in_space(corpus, "four")) == 0


def test_libritts_in_parts(tmp_path: Path) -> None:
    put(libritts(tmp_path, text=("original",)), "speakers.tsv", TABS)
    one = read("libritts", tmp_path / "dev-other")
    assert one.table["gender"].tolist() == ["male"] * 2 and one.table["split"].tolist() == ["dev"] * 2
    assert one.table["text"].tolist() == ["original 000000_000000"] * 2
    assert one.table["audio"][0] == "700/1/700_1_000000_000000.wav"
    written = read("libritts", put(libritts(tmp_path / "text", audio=False), "speakers.tsv", TABS).parent)
    assert written.table["audio"].eq("").all() and written.table["split"].tolist() == ["train"] * 3 + ["dev"] * 2
    silent = read("libritts", put(libritts(tmp_path / "audio", text=()), "speakers.tsv", TABS).parent)
    assert silent.table["text"].eq("").all() and silent.table["audio"].ne("").all()


def test_libritts_moved_out_of_its_folders_keeps_the_subsets_of_its_table(tmp_path: Path) -> None:
    put(tmp_path, "speakers.tsv", TABS)
    for name in ("19_198_000000_000000", "700_1_000000_000000", "5_5_5_5"):
        put(tmp_path, f"wavs/{name}.wav", b"")
    rows = read("libritts", tmp_path).table
    assert rows["subset"].tolist() == ["", "train-clean-100", "dev-other"] and rows["split"].tolist() == ["", "train", "dev"]
    assert rows["gender"].tolist() == ["unknown", "female", "male"]


def test_libritts_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="libritts: nothing to read in"):
        read("libritts", put(tmp_path, "other/song.wav", b"").parent)
    with pytest.warns(UserWarning, match=r"no speakers.tsv in .*: genders are not known"):
        assert read("libritts", libritts(tmp_path / "x")).table["gender"].eq("unknown").all()
    put(tmp_path, "x/speakers.tsv", "READER\tGENDER\tSUBSET\tNAME\n")
    with pytest.raises(InputError, match="names no reader; expected lines of reader, F or M, subset"):
        read("libritts", tmp_path / "x")


READABLE = {
    "meld": ("train_sent_emo.csv", MELD_HEAD), "emorynlp": ("emorynlp_dev_final.csv", EMORY_HEAD),
    "dailydialog": ("train.jsonl", '{"dialog": ["a"], "emotion": [0]}\n'),
    "iemocap": ("Session1/dialog/EmoEvaluation/x.txt", "[1.0 - 2.0]\tSes01F_impro01_F000\tneu\t[1, 2, 3]\n"),
    "msp_podcast": ("Labels/labels_consensus.csv", PODCAST_HEAD),
    "msp_improv": ("Evalution.txt", "UTD-IMPROV-S01A-F01-R-FF01.avi; A;\n"),
    "cmu_mosi": ("label.csv", MOSI_HEAD), "ravdess": ("Actor_01/03-01-01-01-01-01-01.wav", ""),
    "crema_d": ("VideoDemographics.csv", "ActorID,Age,Sex\n"), "tess": ("OAF_angry/OAF_back_angry.wav", ""),
    "savee": ("DC/a01.wav", ""), "emodb": ("perception.csv", "file,recognised_pct,natural_pct\n"),
    "nemo": ("data.tsv", "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"), "esd": ("0001/0001.txt", ""),
    "libritts": ("LibriTTS/speakers.tsv", "READER\tGENDER\tSUBSET\tNAME\n"),
}
AUDIO_OF = {"crema_d": "AudioWAV/1001_DFA_ANG_XX.wav", "emodb": "wav/03a01Fa.wav", "esd": "0001/0001_000001.wav",
            "libritts": "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.text(max_size=120) | st.binary(max_size=120), name=st.sampled_from(sorted(corpus_names())))
def test_hostile_corpora_are_input_errors(tmp_path: Path, data: str | bytes, name: str) -> None:
    file, head = READABLE[name]
    tail = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    put(tmp_path / name, file, head.encode() + tail)
    put(tmp_path / name, AUDIO_OF.get(name, "none.txt"), b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(name, tmp_path / name)
        except InputError as e:
            assert "\n" not in str(e)


# by name


@pytest.mark.parametrize(
    ("folder", "name"),
    [("IEMOCAP_full_release", "iemocap"), ("MELD.Raw", "meld"), ("msp-podcast", "msp_podcast"),
     ("MSP-PODCAST-Publish-1.11", "msp_podcast"),
     ("CMU_MOSI", "cmu_mosi"), ("MOSI", "cmu_mosi"), ("Daily Dialog", "dailydialog"), ("ijcnlp_dailydialog", "dailydialog"),
     ("EmoryNLP", "emorynlp"), ("MSP-IMPROV", "msp_improv"), ("LibriTTS", "libritts"), ("libritts_corpus", "libritts")],
)
def test_folder_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    (tmp_path / folder).mkdir()
    assert find(name) == tmp_path / folder
    assert [n for n in corpus_names() if find(n)] == [name]


@pytest.mark.parametrize("folder", ["meld_acoustic", "meld_synthetic", "CMU-MOSEI", "iemocap_old_notes", "melodies",
                                    "LibriTTS-R", "LibriSpeech"])
def test_other_folders_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    (tmp_path / folder).mkdir()
    assert not [n for n in corpus_names() if find(n)]


def test_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSEMO_CORPORA", raising=False)
    assert corpora_root() is None and not available()["found"].any()
    with pytest.raises(InputError, match="zsemo fetch meld"):
        read("meld")
    with pytest.raises(InputError, match="ask for it"):
        read("iemocap")
    with pytest.raises(InputError, match="did you mean iemocap"):
        read("iemocp")


def test_reading_is_strict_about_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the column 'emotion'"):
        read_table(put(tmp_path, "x.csv", "utterance,text\nu,Oh\n"))
    with pytest.raises(InputError, match="lacks the column 'a'; expected a; found nothing"):
        read_rows(put(tmp_path, "empty.csv", ""), ["a"])
    with pytest.raises(InputError, match="bad 'start'"):
        read_table(put(tmp_path, "y.csv", "utterance,text,emotion,start\nu,Oh,sad,soon\n"))


# clips, tables and folders as copies have them

CLIPS = [
    ("train_splits/dia0_utt0.mp4", True), ("MELD.Raw/train/train_splits/dia0_utt0.mp4", True), ("audio/train/dia0_utt0.wav",
    True),
    ("train/audio/dia0_utt0.wav", True), ("wav/MELD_train_16k/dia0_utt0.flac", True), ("clips/train_dia0_utt0.wav", True),
    ("clips/dia0_utt0_train.mp3", True), ("train_splits/DIA0_UTT0.WAV", True), ("train_splits/dia0_utt0_16k.wav", True),
    ("train_splits/dia0_utt0.m4a", True), ("dev_splits_complete/dia0_utt0.mp4", False),
    ("train_splits/final_videos_testdia0_utt0.mp4", False),
    ("train_splits/._dia0_utt0.mp4", False), ("__MACOSX/train_splits/dia0_utt0.mp4", False),
    ("train_splits/dia0_utt0.wav:Zone.Identifier", False),
]


@pytest.mark.parametrize(("clip", "found"), CLIPS, ids=[c for c, _ in CLIPS])
def test_meld_finds_clips_whatever_their_folder(tmp_path: Path, clip: str, found: bool) -> None:
    for part in ("train", "test"):
        put(tmp_path, f"{part}_sent_emo.csv", MELD_HEAD + meld_line(0, 0))
    put(tmp_path, clip, b"x")
    assert list(read("meld", tmp_path).table["audio"]) == [clip if found else "", ""]


def test_meld_takes_sound_before_videos_and_tells_what_it_cannot_place(tmp_path: Path) -> None:
    for part in ("train", "test"):
        put(tmp_path, f"{part}_sent_emo.csv", MELD_HEAD + meld_line(0, 0))
    for clip in ("train_splits/dia0_utt0.mp4", "audio/train/deep/dia0_utt0.wav", "test/dia0_utt0.mp4", "test/dia0_utt0.mp3"):
        put(tmp_path, clip, b"x")
    assert list(read("meld", tmp_path).table["audio"]) == ["audio/train/deep/dia0_utt0.wav", "test/dia0_utt0.mp3"]
    put(tmp_path, "all/dia0_utt0.wav", b"x")
    with pytest.warns(UserWarning, match=r"1 clip\(s\) such as all/dia0_utt0\.wav lie there unread"):
        read("meld", tmp_path)
    (tmp_path / "test_sent_emo.csv").unlink()
    assert list(read("meld", tmp_path).table["audio"]) == ["all/dia0_utt0.wav"]  # there is but one part


CHALLENGE = [("1,0,0", "A", "angry"), ("0,.4,.6", "N", "neutral"), (".5,.5,0", "X", ""), ("0,0,0", "", ""), (",,", "", ""),
    ("0,3,1", "S", "sad")]


@pytest.mark.parametrize(("shares", "raw", "emotion"), CHALLENGE)
@pytest.mark.parametrize("name", ["processed_labels.csv", "Labels/labels_consensus.csv"])
def test_podcast_of_the_challenge(tmp_path: Path, name: str, shares: str, raw: str, emotion: str) -> None:
    head = PODCAST_HEAD.replace("EmoClass", "Angry,Sad,Neutral").replace("Split_Set", "Split")
    put(tmp_path, name, f"{head}MSP-PODCAST_0001_0008.wav,{shares},4,4,4,12,Male,Development\n")
    row = read("msp_podcast", tmp_path).table.iloc[0]
    assert (row["emotion_raw"], row["emotion"], row["split"]) == (raw, emotion, "dev")


def test_podcast_keeps_what_has_no_label(tmp_path: Path) -> None:
    put(tmp_path, "labels_consensus.csv", PODCAST_HEAD + "MSP-PODCAST_0001_0008.wav,Neutral,4,4,4,12,Male,Train\n"
        "MSP-PODCAST_0002_0033.wav,,,,,Unknown,Unknown,Test3\n")
    table = read("msp_podcast", tmp_path).table
    assert list(table["emotion"]) == ["neutral", ""] and list(table["split"]) == ["train", "test"]
    head = PODCAST_HEAD.replace("EmoClass", "Mood")
    put(tmp_path, "labels_consensus.csv", head + "MSP-PODCAST_0001_0008.wav,N,4,4,4,12,Male,Train\n")
    with pytest.raises(InputError, match="lacks the labels"):
        read("msp_podcast", tmp_path)


DAILY = {
    "numpy's lists": ("train.csv", "dialog,act,emotion\n\"['Hello .' \"\"It isn't .\"\"]\",[1 1],[0 4]\n"),
    "numpy's lists over lines": ("train.csv", "dialog,act,emotion\n\"['Hello .'\n \"\"It isn't .\"\"]\",[1 1],[0 4]\n"),
    "python's lists": ("x/train.csv", "dialog,act,emotion\n\"['Hello .', 'It isn\\'t .']\",\"[1, 1]\",\"[0, 4]\"\n"),
    "other names": ("train_data.csv", "dialogue,acts,emotions\n\"['Hello .', 'It isn\\'t .']\",\"[1, 1]\",\"[0, 4]\"\n"),
    "lines": ("train.txt", "Hello . __eou__ It isn't . __eou__ # 1 1 # 0 4\n"),
    "lines with a topic": ("en_train_human.txt", "Hello . __eou__ It isn't . __eou__ # 1 # 1 1 # 0 4\n\n"),
    "lines of Markdown": ("train.txt", "Hello . \\__eou__ It isn't . \\__eou__ #1 1#0 4\n"),
}


@pytest.mark.parametrize(("name", "text"), DAILY.values(), ids=DAILY)
def test_dailydialog_copies(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, name, text)
    put(tmp_path, "readme.txt", "A train of thought # 1\n")
    put(tmp_path, "requirements_train.csv", "package,version\n")
    table = read("dailydialog", tmp_path).table
    assert table[["utterance", "text", "emotion", "act", "split"]].values.tolist() == [
        ["train_00001_0", "Hello .", "neutral", "1", "train"], ["train_00001_1", "It isn't .", "happy", "1", "train"]]


def test_emorynlp_of_its_authors(tmp_path: Path) -> None:
    said = {"utterance_id": "s01_e03_c02_u007", "speakers": ["Ann"], "transcript": "We did it!", "emotion": "Mad"}
    file = "emotion-detection-master/json/emotion-detection-trn.json"
    put(tmp_path, file, json.dumps({"episodes": [{"scenes": [{"utterances": [said]}]}]}))
    row = read("emorynlp", tmp_path).table.iloc[0]
    assert (row["utterance"], row["emotion"], row["turn"], row["split"]) == ("train_s01_e03_c02_u007", "angry", 7, "train")
    for bad in ("{}", "[]", '{"episodes": [{"scenes": 1}]}', "nonsense", '{"episodes": [{"scenes": [{"utterances": [{}]}]}]}'):
        put(tmp_path, file, bad)
        with pytest.raises(InputError, match="is not EmoryNLP's JSON"):
            read("emorynlp", tmp_path)


def test_iemocap_that_is_only_a_table_of_others(tmp_path: Path) -> None:
    put(tmp_path, "iemocap_full_dataset.csv", "session,emotion,path\n")
    with pytest.raises(InputError, match=r"iemocap_full_dataset\.csv is a table that others made.*zsemo doctor"):
        read("iemocap", tmp_path)


# the variable of the corpora

WRITTEN = ["{}", '"{}"', "'{}'", " {} ", "{}\r", "{}\n", '"{}"\r\n', "{}/", "$CORPORA_HERE", "${{CORPORA_HERE}}", "~", "~/.",
    '"~"', "."]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_variable_is_read_as_people_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    for name in ("HOME", "CORPORA_HERE", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSEMO_CORPORA", written.format(tmp_path))
    (tmp_path / "ravdess").mkdir()
    found = find("ravdess")
    assert found is not None and found.resolve() == (tmp_path / "ravdess").resolve() and "no folder" not in describe_root()


@pytest.mark.parametrize("written", ["/no/such/folder", "~/nowhere", '"/nowhere"'])
def test_a_variable_that_names_no_folder_is_told(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", written)
    assert corpora_root() is None and describe_root().endswith(", which is no folder") and "~" not in describe_root()
    with pytest.raises(InputError, match="which is no folder"):
        read("ravdess")


@pytest.mark.parametrize("written", ["", " ", '""', "\r\n"])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", written)
    assert corpora_root() is None and describe_root() == "ZSEMO_CORPORA is not set"


COPIES = [
    ("iemocap", "IEMOCAP_full_release_withoutVideos"), ("iemocap", "iemocap_16k"), ("meld", "MELD_wav16k"), ("meld",
    "MELD.Raw.tar"),
    ("ravdess", "RAVDESS_16k"), ("ravdess", "RAVDESS-16kHz"), ("crema_d", "CREMA-D_16k"), ("emodb", "emo-db_16k"), ("esd",
    "esd_en"),
    ("emorynlp", "emotion-detection-master"), ("emorynlp", "emorynlp_emotion"), ("libritts",
    "libritts_clean"),
    ("tess", "TESS_mono_16000hz"), ("savee", "SAVEE copy"), ("nemo", "nEMO.zip"),
]


@pytest.mark.parametrize(("name", "folder"), COPIES)
def test_copies_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    assert find(name) == tmp_path / folder


LIKELY = [
    ("libritts", "LibriTTS_R/x"),
    ("crema_d", "AudioWAV/1001_DFA_ANG_XX.wav"), ("tess", "dataverse_files/TESS/OAF_back_angry.wav"), ("savee",
    "AudioData/DC_a01.wav"),
    ("emodb", "download/wav/03a01Fa.wav"), ("msp_podcast", "Release_1.11/Labels/labels_consensus.csv"), ("ravdess",
    "old ravdess (backup)/x"),
    ("ravdess", "archive/Actor_01/03-01-05-01-01-01-01.wav"), ("meld", "MELDs/train_sent_emo.csv"), ("iemocap",
    "data1/S1/Ses01F_impro01.wav"),
]


@pytest.mark.parametrize(("name", "file"), LIKELY)
def test_a_likely_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str) -> None:
    put(tmp_path, file, b"")
    for other in ("music/a.wav", "meld_acoustic/train.csv", "ravdess_synthetic/03-01-05-01-01-01-01.wav"):
        put(tmp_path, other, b"")
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    folder = tmp_path / Path(file).parts[0]
    assert find(name) is None and find_likely(name) == folder
    assert {find_likely(n) for n in corpus_names() if n != name} == {None}
    with pytest.raises(InputError, match=r"is it .*Then call that folder"):
        read(name)


# Tables of the releases, as spreadsheets save them again.

SAVED_AGAIN = {  # the separator, whether every field is quoted, the encoding, what stands before the header, and the line end
    "as it was": (",", False, "utf-8", "", "\n"),
    "semicolons": (";", False, "utf-8", "", "\n"),
    "semicolons by Excel": (";", False, "utf-8-sig", "", "\r\n"),
    "semicolons, Windows-1252": (";", False, "cp1252", "", "\r\n"),
    "semicolons, all quoted": (";", True, "utf-8", "", "\n"),
    "tabs": ("\t", False, "utf-8", "", "\n"),
    "Excel's Unicode text": ("\t", False, "utf-16", "", "\r\n"),
    "UTF-16 without a mark": (";", False, "utf-16-le", "", "\n"),
    "bars": ("|", False, "utf-8", "", "\n"),
    "the separator named": (";", False, "utf-8", "sep=;\n", "\n"),
    "the separator named, a mark before it": (";", True, "utf-8-sig", "sep=;\r\n", "\r\n"),
    "a remark and an empty line": (";", False, "utf-8", "# exported\n\n", "\n"),
    "ends of an old Mac": (";", False, "utf-8", "", "\r"),
}
LINES = (  # of conversations, with what separates fields elsewhere
    ("Oh, 10,5; that’s it | \"no\".", "Ann", "joy", "positive", "0", "0", "8", "21", "00:16:16,059", "00:16:21,731"),  # noqa: RUF001
    ("1,5", "['Bob']", "anger", "negative", "0", "1", "8", "21", "00:16:22,059", "00:16:23,5"),
)
TABLES_OF = {  # corpus: its table, the sound beside it, and rows
    "meld": ("dev_sent_emo.csv", "", [MELD_HEAD.strip().split(","), *(["1", *line] for line in LINES)]),
    "emorynlp": ("emorynlp_dev_final.csv", "", [
        EMORY_HEAD.strip().split(","), *([*line[:2], "Sad", "1", *line[5:]] for line in LINES)]),
    "msp_podcast": ("labels_consensus.csv", "", [
        PODCAST_HEAD.strip().split(","), ["MSP-PODCAST_0001_0008.wav", "N", "4.25", "3.5", "4", "127", "Male", "Train"],
        ["MSP-PODCAST_0001_0009.wav", "H", "-0.5", "3.75", "4.1", "12", "Female", "Test1"]]),
    "msp_podcast of the challenge": ("processed_labels.csv", "", [
        ["FileName", "Angry", "Sad", "Neutral", "SpkrID", "Gender", "Split_Set"],
        ["MSP-PODCAST_0001_0008.wav", "0.25", "0.5", "0.125", "127", "Male", "Train"]]),
    "cmu_mosi": ("label.csv", "", [
        MOSI_HEAD.strip().split(","), ["abc", "1", "GOOD, VERY; GOOD", "2.4", "", "", "", "Positive", "train"],
        ["abc", "2", "BAD", "-1.75", "", "", "", "Negative", "test"]]),
    "cmu_mosi of the SDK": ("OpinionLevelSentiment.csv", "", [
        ["0.5", "2.25", "abc", "1", "2.4"], ["2.25", "4.0", "abc", "2", "-0.8"]]),
    "dailydialog": ("train.csv", "", [["dialog", "act", "emotion"], ["['Hello , you ; there .' 'Hi .']", "[1 1]", "[0 4]"]]),
    "crema_d": ("VideoDemographics.csv", "AudioWAV/1001_DFA_ANG_XX.wav", [
        ["ActorID", "Age", "Sex", "Race"], ["1001", "51", "Female", "A; b, c"]]),
    "crema_d with votes": ("processedResults/summaryTable.csv", "AudioWAV/1001_DFA_ANG_XX.wav", [
        ["", "FileName", "VoiceVote", "VoiceLevel"], ["1", "1001_DFA_ANG_XX", "N:A", "55.5:60"]]),
    "emodb": ("perception.csv", "wav/03a01Fa.wav", [["file", "recognised_pct", "natural_pct"], ["03a01Fa.wav", "90.50", "100"]]),
    "nemo": ("data.tsv", "samples/KD0_anger_2.wav", [
        ["file_id", "emotion", "raw_text", "speaker_id", "gender", "age"],
        ["KD0_anger_2.wav", "anger", "Tak, to ja; no.", "KD0", "female", "24"]]),
}


def save_again(rows: list[list[str]], way: str) -> bytes:
    "The table by another program; where commas do not separate, it writes them into numbers, too."
    separator, quoted, encoding, before, end = SAVED_AGAIN[way]
    written = io.StringIO(newline="")
    kind = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    for row in rows:
        number = [re.sub(r"^(-?\d+)\.(\d+)$", r"\1,\2" if separator == ";" else r"\1.\2", field) for field in row]
        csv.writer(written, delimiter=separator, quoting=kind, lineterminator=end).writerow(number)
    return (before + written.getvalue()).encode(encoding)


@pytest.mark.parametrize("way", list(SAVED_AGAIN)[1:])
@pytest.mark.parametrize("named", TABLES_OF)
def test_a_table_of_a_release_that_was_saved_again(tmp_path: Path, named: str, way: str) -> None:
    name, sound, rows = TABLES_OF[named]
    for folder, how in (("first", "as it was"), ("again", way)):
        put(tmp_path / folder, name, save_again(rows, how))
        put(tmp_path / folder, sound or "readme.txt", b"")
    first, again = (read(named.split()[0], tmp_path / folder).table for folder in ("first", "again"))
    assert len(first) and first.notna().any().sum() > 10
    pd.testing.assert_frame_equal(first, again.assign(emotion_raw=again["emotion_raw"].str.replace(",", ".")))


HEAD = "Utterance;Speaker;Emotion;Dialogue_ID;Utterance_ID\n"


@pytest.mark.parametrize("body", [
    "a;b\n", HEAD[:39], HEAD + "Oh;Ann;joy;0\n", ";;;\n", "\x00", HEAD.replace(";", ",", 1), "sep=;\n", "sep=;", "# \n",
    HEAD + "O;h;A;j;0;0\n", HEAD + "Oh;Ann;joy;0,5;0\n", "sep=,\n" + HEAD,
])
def test_a_table_that_was_saved_wrongly_is_one_line(tmp_path: Path, body: str) -> None:
    put(tmp_path, "dev_sent_emo.csv", body)
    with pytest.raises(InputError, match=r"dev_sent_emo\.csv") as caught:
        read("meld", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("clock", "seconds"), [
    ("00:16:16,059", 976.059), ("0:16:16", 976.0), ("00:16:16.5", 976.5), (" 00:00:01,000 ", 1.0), ("", None), (" ", None),
    ("16:16,1", "lost"), ("976,059", "lost"), ("#########", "lost"), ("0,0113", "lost"), ("00:16", "lost"),
    ("12:16:16 AM", "lost"),
])
def test_times_that_a_spreadsheet_cut_short_are_counted(tmp_path: Path, clock: str, seconds: float | str | None) -> None:
    rows = [MELD_HEAD.strip().split(","), ["1", "Oh.", "Ann", "joy", "positive", "0", "0", "8", "21", clock, "00:16:21,731"]]
    put(tmp_path, "dev_sent_emo.csv", save_again(rows, "semicolons"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        begin = read("meld", tmp_path).table["episode_start"].iloc[0]
    assert begin == seconds if isinstance(seconds, float) else begin != begin
    assert [str(w.message) for w in told] == [
        f"dev_sent_emo.csv: 1 times such as {clock!r} are no h:m:s"] * (seconds == "lost")
