"""Acted corpora: every documented layout and circulating copy in made files, and the real corpora where they are there."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.acted import read_crema_d, read_emodb, read_esd, read_nemo, read_ravdess, read_savee, read_tess
from zsemo_kit.corpora.catalogue import corpus_facts, corpus_names, find_reader
from zsemo_kit.corpora.doctor import examine
from zsemo_kit.corpora.labels import in_space, label_map
from zsemo_kit.corpora.readers import find, read
from zsemo_kit.corpora.table import Corpus

NEMO_HEAD = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
ACTED = ("ravdess", "crema_d", "tess", "savee", "emodb", "nemo", "esd")


def put(root: Path, name: str, data: str | bytes = b"") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def files(root: Path, *names: str) -> Path:
    for name in names:
        put(root, name)
    return root


def quietly(reader: Callable[[Path], Corpus], root: Path) -> Corpus:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return reader(root)


def coherent(corpus: Corpus) -> None:
    """What holds for every corpus of sentences: one dialogue a speaker and script, turns from 0, audio that is there."""
    table = corpus.table
    assert (table["dialogue"] == table["speaker"] + "_" + table["script"]).all() and table["script"].ne("").all()
    for _, turns in table.groupby("dialogue")["turn"]:
        assert sorted(turns) == list(range(len(turns)))
    assert table.loc[table["audio"] != "", "audio"].map(lambda a: (corpus.root / a).is_file()).all()
    assert table["gender"].isin(["male", "female"]).all() and table["emotion"].ne("").all()


# the real ones


@pytest.mark.parametrize(
    ("name", "n", "speakers", "scripts", "four"),
    [("ravdess", 1440, 24, 2, 672), ("emodb", 535, 10, 10, 339), ("nemo", 360, 9, None, 360)],
)
def test_real(corpora_dir: Path, name: str, n: int, speakers: int, scripts: int | None, four: int) -> None:
    if not (corpora_dir / name).is_dir():
        pytest.skip(f"no {name}")
    corpus = quietly(find_reader(name), corpora_dir / name)
    coherent(corpus)
    table = corpus.table
    assert len(table) == n and table["speaker"].nunique() == speakers and len(in_space(corpus, "four")) == four
    assert scripts is None or table["script"].nunique() == scripts
    assert table["audio"].ne("").all() and table["text"].ne("").all() and table["text"].eq(table["text"].str.strip()).all()
    assert table.groupby("script")["text"].nunique().eq(1).all() and table.groupby("text")["script"].nunique().eq(1).all()
    assert table.groupby("speaker")["gender"].nunique().eq(1).all()


def test_real_emodb_is_what_listeners_recognised(corpora_dir: Path) -> None:
    table = read("emodb", corpora_dir / "emodb").table
    assert table["recognised"].between(0.8, 1).all() and table["natural"].between(0, 1).all()
    assert table["gender"].value_counts().to_dict() == {"female": 302, "male": 233}


def test_real_nemo_ids_are_clean(corpora_dir: Path) -> None:
    table = read("nemo", corpora_dir / "nemo").table
    assert table["speaker"].str.fullmatch(r"[A-Z]{2}0").all() and table["age"].between(18, 40).all()
    assert table["emotion"].value_counts().to_dict() == {e: 90 for e in ("angry", "happy", "neutral", "sad")}


# RAVDESS


def test_ravdess_layouts_agree(tmp_path: Path) -> None:
    takes = ["03-01-01-01-01-01-01", "03-01-02-02-02-02-24", "03-01-08-01-01-01-12"]
    zipped = files(tmp_path / "a", *(f"Audio_Speech_Actors_01-24/Actor_{t[-2:]}/{t}.wav" for t in takes))
    plain = files(tmp_path / "b", *(f"Actor_{t[-2:]}/{t}.flac" for t in takes))
    flat = files(tmp_path / "c", *(f"{t}.WAV" for t in takes))
    tables = [quietly(read_ravdess, r).table.drop(columns="audio") for r in (zipped, plain, flat)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    assert list(tables[0]["emotion"]) == ["neutral", "calm", "surprise"]
    assert list(tables[0]["gender"]) == ["male", "female", "female"]
    assert list(tables[0]["intensity"]) == ["normal", "strong", "normal"] and list(tables[0]["repetition"]) == [1, 2, 1]
    assert list(tables[0]["speaker"]) == ["Actor_01", "Actor_24", "Actor_12"]


def test_ravdess_leaves_out_songs_and_strangers_with_a_count(tmp_path: Path) -> None:
    files(tmp_path, "Actor_01/03-01-01-01-01-01-01.wav", "Actor_01/03-02-01-01-01-01-01.wav", "Actor_01/03-02-03-01-01-01-01.wav",
          "Actor_01/01-01-01-01-01-01-01.wav", "Actor_01/readme.wav", "Actor_01/03-01-09-01-01-01-01.wav", "Actor_01/notes.txt",
          "Actor_01/._03-01-01-01-01-02-01.wav", "__MACOSX/Actor_01/03-01-01-01-01-02-01.wav", ".cache/03-01-01-01-01-02-01.wav")
    with pytest.warns(UserWarning, match=r"2 file\(s\) left out: song") as caught:
        table = read_ravdess(tmp_path).table
    assert list(table["utterance"]) == ["03-01-01-01-01-01-01"] and len(caught) == 1
    told = str(caught[0].message)
    assert "1 file(s) left out: of a video" in told and "2 file(s) left out: not named" in told


def test_a_copy_that_holds_everything_twice_is_read_once(tmp_path: Path) -> None:
    take = "Actor_05/03-01-05-01-01-01-05"
    files(tmp_path, f"audio_speech_actors_01-24/{take}.wav", f"{take}.wav", f"flac/{take}.flac", f"{take}.mp3")
    assert list(quietly(read_ravdess, tmp_path).table["audio"]) == [f"{take}.wav"]


def test_folders_that_are_links_are_followed_once(tmp_path: Path) -> None:
    disk = files(tmp_path / "disk", "03-01-05-01-01-01-05.wav")
    root = tmp_path / "ravdess"
    root.mkdir()
    (root / "Actor_05").symlink_to(disk)
    (disk / "loop").symlink_to(root)
    assert list(quietly(read_ravdess, root).table["audio"]) == ["Actor_05/03-01-05-01-01-01-05.wav"]


# CREMA-D


def test_crema_d_repository_and_bare_copy(tmp_path: Path) -> None:
    clips = ["1001_DFA_ANG_XX", "1002_IEO_SAD_LO", "1040_ITH_SAD_X", "1091_WSI_NEU_XX"]
    files(tmp_path, *(f"AudioWAV/{c}.wav" for c in clips), *(f"AudioMP3/{c}.mp3" for c in clips))
    files(tmp_path, "VideoFlash/1001_DFA_ANG_XX.flv")
    bare = quietly(read_crema_d, tmp_path)
    people = '"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n1040,42,"Male"\n1091,29,"Female"\n'
    put(tmp_path, "VideoDemographics.csv", people)
    votes = '"","FileName","VoiceVote","VoiceLevel"\n"1","1001_DFA_ANG_XX","A:N","60:50"\n"2","1002_IEO_SAD_LO","N","70"\n'
    put(tmp_path, "processedResults/summaryTable.csv", votes)
    whole = quietly(read_crema_d, tmp_path)
    coherent(whole)
    assert list(whole.table["gender"]) == list(bare.table["gender"]) == ["male", "female", "male", "female"]
    assert list(whole.table["age"]) == [51, 21, 42, 29] and list(whole.table["voice_vote"]) == ["A:N", "N", "", ""]
    assert list(whole.table["utterance"])[2] == "1040_ITH_SAD_XX" and whole.table["audio"].str.startswith("AudioWAV/").all()
    assert list(whole.table["intensity"]) == ["unspecified", "low", "unspecified", "unspecified"]
    assert whole.table["text"].iloc[1] == "It's eleven o'clock."


def test_crema_d_tables_are_strict(tmp_path: Path) -> None:
    files(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    put(tmp_path, "summaryTable.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks the column 'filename'"):
        read_crema_d(tmp_path)
    put(tmp_path, "summaryTable.csv", "FileName,VoiceVote\n")
    put(tmp_path, "VideoDemographics.csv", "ActorID,Age\n1001,51\n")
    with pytest.raises(InputError, match="lacks the column 'Sex'"):
        read_crema_d(tmp_path)


def test_the_women_of_crema_d() -> None:
    crema_d = corpus_facts("crema_d")
    assert len(crema_d.women) == len(set(crema_d.women)) == 43 and all(1001 <= int(w) <= 1091 for w in crema_d.women)
    assert len(crema_d.sentences) == 12 and len(corpus_facts("emodb").sentences) == 10


# TESS


@pytest.mark.parametrize("name", ["OAF_back_ps", "oaf_back_PS", "OAF_back_Pleasant_surprised", "OA_back_pleasant_surprise"])
def test_tess_names(tmp_path: Path, name: str) -> None:
    files(tmp_path, f"TESS Toronto emotional speech set data/OAF_Pleasant_surprise/{name}.wav", "YAF_angry/YAF_back_angry.wav")
    corpus = quietly(read_tess, tmp_path)
    coherent(corpus)
    assert list(corpus.table["utterance"]) == ["OAF_back_ps", "YAF_back_angry"] and list(corpus.table["age"]) == [64, 26]
    assert corpus.table["text"].eq("Say the word back.").all() and set(corpus.table["gender"]) == {"female"}
    assert list(in_space(corpus, "sentiment").table["emotion"]) == ["positive", "negative"]


# SAVEE


def test_savee_layouts_agree(tmp_path: Path) -> None:
    takes = [("DC", "a01"), ("JE", "sa15"), ("JK", "su04"), ("KL", "n30"), ("KL", "h02")]
    deep = files(tmp_path / "a", *(f"AudioData/{s}/{t}.wav" for s, t in takes), "AudioData/Info.txt")
    flat = files(tmp_path / "b", *(f"ALL/{s}_{t}.wav" for s, t in takes))
    tables = [quietly(read_savee, r).table.drop(columns="audio") for r in (deep, flat)]
    pd.testing.assert_frame_equal(*tables)
    emotions = dict(zip(tables[0]["utterance"], tables[0]["emotion"], strict=True))
    assert emotions == {"DC_a01": "angry", "JE_sa15": "sad", "JK_su04": "surprise", "KL_n30": "neutral", "KL_h02": "happy"}
    scripts = dict(zip(tables[0]["utterance"], tables[0]["script"], strict=True))
    assert scripts["DC_a01"] == "common01" and scripts["KL_h02"] == "common02" and scripts["JK_su04"] == "su04"


# Emo-DB


def test_emodb_release_two_is_no_laryngogram(tmp_path: Path) -> None:
    files(tmp_path, "wav/03a01Fa.wav", "wav/16b10Wb.wav", "laryngo/03a01Fa.wav", "laryngo/16b10Wb.wav")
    put(tmp_path, "db.emotion.categories.ambiguous.csv", "file,emotion\nwav/16b10Wb.wav,anger\n")
    with pytest.warns(UserWarning, match=r"2 file\(s\) left out: laryngogram"):
        table = read_emodb(tmp_path).table
    assert list(table["audio"]) == ["wav/03a01Fa.wav", "wav/16b10Wb.wav"] and list(table["ambiguous"]) == [False, True]


@pytest.mark.parametrize(
    ("name", "text"),
    [("perception.csv", "file,recognised_pct,natural_pct\n03a01Fa.wav,90.00,75.00\n"),
     ("erkennung.txt", "Satz\terkannt\tnatürlich\n03a01Fa.wav\t90,00\t75,00\n"),
     ("listener_judgements.txt", "sample\trecognized\tnatural\r\n03a01Fa.wav\t90,00\t75,00\r\n")],
)
def test_emodb_judgements(tmp_path: Path, name: str, text: str) -> None:
    files(tmp_path, "wav/03a01Fa.wav", "wav/08b02Tc.flac")
    put(tmp_path, name, text.encode("latin-1"))
    table = quietly(read_emodb, tmp_path).table
    assert table["recognised"].iloc[0] == 0.9 and table["natural"].iloc[0] == 0.75 and table["recognised"].isna().iloc[1]
    assert list(table["text"]) == ["Der Lappen liegt auf dem Eisschrank.",
                                   "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter."]


def test_emodb_odd_names(tmp_path: Path) -> None:
    files(tmp_path, "WAV/03A01FA.WAV", "wav/16b10Lbxx.wav", "wav/17a01Fa.wav", "wav/03a03Fa.wav", "wav/03a01Xa.wav")
    with pytest.warns(UserWarning, match=r"3 file\(s\) left out"):
        assert list(read_emodb(tmp_path).table["utterance"]) == ["03a01Fa", "16b10Lb"]


# nEMO


def nemo_line(take: str, text: str = "Dzień dobry.", speaker: str = "        AB0", gender: str = "female") -> str:
    return f"{take}.wav\t{take.split('_')[1]}\t{text}\t{text.lower()}\t{speaker}\t{gender}\t28\n"


def test_nemo_padding_missing_audio_and_repeated_sentences(tmp_path: Path) -> None:
    lines = [nemo_line("AB0_anger_2"), nemo_line("AB0_surprised_1", "Tak."), nemo_line("CD0_fear_7", "Tak. ", " CD0 ", "Male ")]
    put(tmp_path, "nEMO-main/data.tsv", NEMO_HEAD + "".join(lines))
    takes = ("AB0_anger_2.WAV", "CD0_fear_7.flac", "._CD0_fear_7.flac", "XX0_anger_1.wav")
    files(tmp_path / "nEMO-main/samples", *takes)
    corpus = quietly(read_nemo, tmp_path)
    coherent(corpus)
    assert list(corpus.table["audio"]) == ["nEMO-main/samples/AB0_anger_2.WAV", "", "nEMO-main/samples/CD0_fear_7.flac"]
    assert list(corpus.table["speaker"]) == ["AB0", "AB0", "CD0"] and list(corpus.table["gender"]) == ["female", "female", "male"]
    assert list(corpus.table["script"]) == ["02", "01", "01"] and list(corpus.table["emotion"]) == ["angry", "surprise", "fear"]


@pytest.mark.parametrize(
    ("line", "told"),
    [(nemo_line("AB0_joy_2"), "line 2: bad 'emotion'"), (nemo_line("../AB0_anger"), "line 2: bad 'file_id'"),
     (nemo_line("AB0_anger_2") * 2, "bad 'utterance'"), ("AB0_anger_2.wav\tanger\n", "line 2: 2 fields")],
)
def test_nemo_errors(tmp_path: Path, line: str, told: str) -> None:
    put(tmp_path, "data.tsv", NEMO_HEAD + line)
    with pytest.raises(InputError) as caught:
        read_nemo(tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


# ESD


def test_esd_parts_blocks_and_languages(tmp_path: Path) -> None:
    takes = {"Neutral": 1, "Angry": 351, "Happy": 720, "Sad": 1400, "Surprise": 1750}
    parts = ["evaluation", "evaluation", "test", "train", "train"]
    split = files(tmp_path / "a", *(f"ESD/0011/{e}/{p}/0011_{n:06}.wav" for (e, n), p in zip(takes.items(), parts, strict=True)))
    flat = files(tmp_path / "b", *(f"0011_{n:06}.wav" for n in takes.values()))
    files(flat, "0001_000001.wav", "0011_001751.wav", "0021_000001.wav")
    table = quietly(read_esd, split).table
    assert list(table["split"]) == ["dev", "dev", "test", "train", "train"]
    assert list(table["emotion"]) == ["neutral", "angry", "happy", "sad", "surprise"] and set(table["gender"]) == {"male"}
    assert list(table["script"]) == ["en001", "en001", "en020", "en350", "en350"] and table["text"].eq("").all()
    with pytest.warns(UserWarning, match=r"2 file\(s\) left out"):
        other = read_esd(flat)
    coherent(other)
    assert other.table["language"].tolist()[0] == "zh" and set(other.table["split"]) == {""}
    assert list(other.table["emotion"])[1:] == list(table["emotion"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb2312"])
def test_esd_mandarin_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    files(tmp_path, "0003/Sad/0003_001051.wav", "0003/Sad/0003_001052.wav")
    put(tmp_path, "0003/0003.txt", "0003_001051\t今天下雨。\t伤心\r\n0003_001052 你好。 伤心\r\n".encode(encoding))
    assert list(quietly(read_esd, tmp_path).table["text"]) == ["今天下雨。", "你好。"]


def test_esd_english_of_an_old_editor(tmp_path: Path) -> None:
    files(tmp_path, "0016/Sad/0016_001051.wav", "0016/Sad/0016_001052.wav", "0016/Happy/0016_000701.wav")
    text = "0016_001051\tIt\u2019s caf\u00e9.\tSad\n0016_001052  I am sad sad\n0016_000701\tNo label here.\n\nnothing\n"
    put(tmp_path, "0016/0016.txt", text.encode("cp1252"))
    put(tmp_path, "ReadMe.txt", "0016_001051 not this\n")
    said = quietly(read_esd, tmp_path).table.set_index("utterance")["text"]
    assert dict(said) == {"0016_000701": "No label here.", "0016_001051": "It\u2019s café.", "0016_001052": "I am sad"}


# all of them


FIRST = {
    "ravdess": "Actor_01/03-01-01-01-01-01-01.wav", "crema_d": "AudioWAV/1001_DFA_ANG_XX.wav",
    "tess": "OAF_angry/OAF_back_angry.wav", "savee": "AudioData/DC/a01.wav", "emodb": "wav/03a01Fa.wav",
    "esd": "0011/Angry/0011_000351.wav",
}


@pytest.mark.parametrize("name", ACTED)
def test_nothing_there_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as caught:
            read(name, root)
        assert name in str(caught.value) and "expected" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_folder_of_other_files_is_refused_with_their_number(tmp_path: Path, name: str) -> None:
    files(tmp_path, "a.wav", "b/c.flac", "._d.wav")
    with pytest.raises(InputError, match=r"2 file\(s\) left out"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_names_in_upper_case_and_other_formats(tmp_path: Path, name: str) -> None:
    first = Path(FIRST[name])
    files(tmp_path, f"{first.parent}/{first.stem.upper()}.FLAC", f"{first.parent}/._{first.stem}.wav")
    loud = quietly(find_reader(name), tmp_path).table.drop(columns="audio")
    plain = quietly(find_reader(name), files(tmp_path / "x", FIRST[name])).table.drop(columns="audio")
    pd.testing.assert_frame_equal(loud, plain)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stem=st.text(st.characters(min_codepoint=33, max_codepoint=591, exclude_characters="/\\"), min_size=1, max_size=30),
       name=st.sampled_from(sorted(FIRST)))
def test_any_file_name_is_read_or_left_out(tmp_path: Path, stem: str, name: str) -> None:
    root = tmp_path / name
    put(root, FIRST[name])
    odd = put(root, f"odd/{stem}.wav") if len(stem.encode()) < 200 else root
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert 1 <= len(find_reader(name)(root)) <= 2
    if odd.is_file():
        odd.unlink()


@pytest.mark.parametrize("name", ACTED)
def test_codes_and_counts_speak_of_the_same_emotions(name: str) -> None:
    counted = {str(item.where["emotion_raw"]).lower() for release in corpus_facts(name).releases for item in release.counts
               if "emotion_raw" in item.where}
    assert counted <= set(label_map(name)) and {label_map(name)[c] for c in counted} == set(label_map(name).values())


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Crema-D", "crema_d"), ("CREMA-D-master", "crema_d"), ("crema-d-mirror", "crema_d"), ("cremad", "crema_d"),
     ("TESS Toronto emotional speech set data", "tess"), ("TESS", "tess"), ("toronto-emotional-speech-set-tess", "tess"),
     ("nemo", "nemo"), ("nEMO", "nemo"), ("nEMO-main", "nemo"), ("emodb", "emodb"), ("EmoDB", "emodb"), ("Emo-DB", "emodb"),
     ("emodb_2.0", "emodb"), ("berlin-database-of-emotional-speech-emodb", "emodb"), ("ESD", "esd"),
     ("Emotional Speech Dataset (ESD)", "esd"), ("Emotion Speech Dataset", "esd"), ("RAVDESS", "ravdess"),
     ("ravdess-emotional-speech-audio", "ravdess"), ("Audio_Speech_Actors_01-24", "ravdess"), ("SAVEE", "savee"),
     ("surrey-audiovisual-expressed-emotion-savee", "savee")],
)
def test_folder_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    (tmp_path / folder).mkdir()
    assert [n for n in corpus_names() if find(n)] == [name] and find(name) == tmp_path / folder


@pytest.mark.parametrize("folder", ["ravdess_synthetic", "tesseract", "emodbx", "nemotron", "Audio_Song_Actors_01-24", "esdras"])
def test_folders_of_other_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    (tmp_path / folder).mkdir()
    assert not [n for n in corpus_names() if find(n)]


# the doctor


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


def test_doctor_passes_real_ravdess_and_names_the_take_that_stands_twice(corpora_dir: Path) -> None:
    seen = examine("ravdess", corpora_dir / "ravdess")
    bad = seen.checks[seen.checks["status"] != "ok"]
    assert seen.ok and bad["check"].str.contains("03-01-03-01-02-02-07").any(), str(seen)


def test_doctor_passes_real_emodb(corpora_dir: Path) -> None:
    seen = examine("emodb", corpora_dir / "emodb")
    assert seen.ok and "2005" in seen.release, str(seen)
    assert not seen.checks["check"].eq("known copy").any()


def test_doctor_says_that_nemo_is_partial(corpora_dir: Path) -> None:
    seen = examine("nemo", corpora_dir / "nemo", audio=False)
    first = seen.checks.iloc[0]
    assert seen.ok and first["status"] == "warn" and "360 of 4,481" in first["found"] and "partial copy" in first["found"]


def test_a_part_of_nemo_whose_audio_is_lost_still_fails(tmp_path: Path) -> None:
    put(tmp_path, "data.tsv", NEMO_HEAD + nemo_line("AB0_anger_2") + nemo_line("AB0_fear_2"))
    (tmp_path / "samples").mkdir()
    soundfile.write(tmp_path / "samples/AB0_anger_2.wav", noise(0.5, 0), 16000)
    seen = examine("nemo", tmp_path)
    assert not seen.ok and seen.checks.set_index("check").loc["utterances without audio", "found"] == "1: AB0_fear_2"


def test_a_part_of_ravdess_fails(tmp_path: Path) -> None:
    assert not examine("ravdess", files(tmp_path, FIRST["ravdess"]), audio=False).ok


def test_doctor_knows_the_copy_of_emodb_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    for i, take in enumerate(("03a01Fa", "08b02Tc", "16b10Lb")):
        soundfile.write(tmp_path / f"wav/{take}.wav", noise(2.0, i), 16000)
    told = examine("emodb", tmp_path).checks.set_index("check")
    assert told.loc["known copy", "status"] == "fail" and "cut to 2.000 s" in told.loc["known copy", "found"]
    soundfile.write(tmp_path / "wav/16b10Lb.wav", noise(2.1, 9), 16000)
    assert "known copy" not in set(examine("emodb", tmp_path).checks["check"])


RENAMED = [
    ("ravdess", "Actor_01/03-01-05-01-01-01-01_16k.wav"), ("ravdess", "03-01-05-01-01-01-01-16000.wav"),
    ("emodb", "03a01Fa_16kHz.wav"),
    ("crema_d", "AudioWAV/1001_DFA_ANG_XX_mono.wav"), ("tess", "oaf_angry/OAF_back_angry_resampled.wav"),
    ("savee", "DC_a01_16k.wav"),
    ("emodb", "wav/03a01Fa.flac"), ("esd", "Emotion Speech Dataset/0011/Angry/evaluation/0011_000351.wav"),
    ("savee", "AudioData/DC/a01.wav"), ("tess", "YAF_ANGRY/YAF_back_ANGRY.WAV"),
]


@pytest.mark.parametrize(("name", "file"), RENAMED)
def test_resampled_and_renamed_copies(tmp_path: Path, name: str, file: str) -> None:
    companion = str(Path(file).with_name(f"._{Path(file).name}"))
    for path in (file, f"__MACOSX/{file}", companion, f"{file}:Zone.Identifier", "Thumbs.db"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read(name, tmp_path).table
    assert list(table["audio"]) == [file] and table["emotion"].iloc[0] in ("angry", "happy")
    assert not table["utterance"].iloc[0].endswith(("16k", "16kHz", "16000", "mono", "resampled"))
