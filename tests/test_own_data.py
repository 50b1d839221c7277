# ruff: noqa: E501, RUF001 (tables and letters of many alphabets)
"""Tables and folders that people have are read as they mean them, or refused with the row; never wrongly in silence."""

import gzip
import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.column_names import gender_named, part_named
from zsemo_kit.corpora.encodings import decode
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.table import Corpus

HEAD = "utterance,text,emotion\n"


def put(path: Path, data: str | bytes = b"", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
    return path


def rows(path: Path, *columns: str) -> list[list[Any]]:
    return read(path).table[list(columns)].to_numpy().tolist()


# encodings

SAID = {
    "cp1252": ["Das ist ja schön. Straße!", "Où est l’école? À côté.", "¿Qué tal, señor?", "Não, obrigação", "Jeg er så glad"],
    "latin-1": ["Grüezi mitenand", "Är du där?"], "mac_roman": ["Grüezi, schön"], "cp850": ["Grüezi, schön"],
    "cp1250": ["Dzień dobry, łódź.", "Děkuji, to je hezké", "Szép napot, őszintén"], "iso8859_2": ["Dzień dobry, łódź."],
    "cp1251": ["Добрый день.", "Уйди!", "Дякую, дуже приємно"], "koi8_r": ["Добрый день."], "cp1253": ["Καλημέρα σας"],
    "cp1254": ["Bugün çok mutluyum, teşekkürler"], "cp1255": ["שלום לך"], "cp1256": ["صباح الخير"], "cp874": ["สวัสดีครับ"],
    "gb18030": ["你好，很高兴见到你。", "走开！"], "big5": ["你好，很高興見到你。"], "cp932": ["こんにちは、元気ですか。", "嬉しい"],
    "euc_jp": ["もうやめて！"], "cp949": ["안녕하세요, 반갑습니다.", "저리 가!"],
}


@pytest.mark.parametrize(("encoding", "text"), [(e, t) for e, texts in SAID.items() for t in texts])
def test_text_of_any_encoding_is_read_with_a_word_about_it(tmp_path: Path, encoding: str, text: str) -> None:
    file = put(tmp_path / "t.csv", f'{HEAD}u1,"{text}",happy\n', encoding)
    with pytest.warns(UserWarning, match=r"t\.csv is not UTF-8: read as"):
        assert rows(file, "text") == [[text]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_told_without_a_word(tmp_path: Path, encoding: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(put(tmp_path / "t.csv", f"{HEAD}u1,Grüezi 你好,happy\n", encoding), "text") == [["Grüezi 你好"]]


@pytest.mark.parametrize("data", [b"\xa7\xb6\xd7\x81\xf7", b"\xff\xfea", b"\x81\x8d\x8f"])
def test_what_cannot_be_told_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"t\.csv") as told:
        read(put(tmp_path / "t.csv", HEAD.encode() + b"u1," + data + b",happy\n"))
    assert "UTF-8" in str(told.value) and "\n" not in str(told.value)


# tables

KNOWN = [["u1", "Hello, you.", "happy", "female", "dev", 0.5, 1.5], ["002", 'He said "no".', "angry", "male", "", 2.0, 3.25]]
COLUMNS = ["utterance", "text", "emotion", "gender", "split", "start", "end"]
CALLED = {
    "utterance": ["utterance", "Utterance", "ID", "utt_id "], "text": ["text", "TEXT", "Transcript", "sentence"],
    "emotion": ["emotion", "Emotion ", "label", "\u200bEMOTION"], "gender": ["gender", "Sex"], "split": ["split", "Partition", "subset"],
    "start": ["start", "Start Time", "begin"], "end": ["end", "END", "Stop"],
}
WRITTEN = {"happy": ["happy", "Joy", " HAPPINESS", "02_happy"], "angry": ["angry", "Anger\u00a0"],
           "female": ["female", "F", "Woman", "weiblich", "w"], "male": ["male", "M ", "Male", "man"],
           "dev": ["dev", "validation", "Val", "development", "valid_set"], "": ["", " ", "\u00a0"]}


@st.composite
def saved(draw: st.DrawFn) -> tuple[bytes, str]:
    """One known table in some form that a program or a person gives it, and its file name."""
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    order = draw(st.permutations(range(len(COLUMNS))))
    decimal = separator != "," and draw(st.booleans())

    def cell(value: Any, column: str) -> str:
        word = draw(st.sampled_from(WRITTEN.get(value, [value]))) if isinstance(value, str) else str(value)
        word = word.replace(".", ",") if decimal and isinstance(value, float) else word
        bare = column != "text" and separator not in word and '"' not in word
        return word if bare and draw(st.booleans()) else '"' + word.replace('"', '""') + '"'
    more = draw(st.integers(0, 2))
    lines = [separator.join([*(draw(st.sampled_from(CALLED[COLUMNS[k]])) for k in order), *[""] * more])]
    for row in KNOWN:
        lines.append(separator.join([*(cell(row[k], COLUMNS[k]) for k in order), *[""] * more]))
        lines += [separator * draw(st.integers(0, 8))] * draw(st.integers(0, 2))
    lines = [*draw(st.sampled_from([[], [f"sep={separator}"], ["# made by hand"], [""]])), *lines]
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    packed = draw(st.booleans())
    data = (end.join(lines) + end).encode(encoding)
    name = draw(st.sampled_from(["t.csv", "T.CSV", "t.tsv", "t.txt"]))
    return (gzip.compress(data), f"{name}.gz") if packed else (data, name)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(saved())
def test_one_table_in_all_forms(tmp_path_factory: pytest.TempPathFactory, made: tuple[bytes, str]) -> None:
    file = put(tmp_path_factory.mktemp("t") / made[1], made[0])
    assert rows(file, *COLUMNS) == KNOWN


def test_records_in_all_forms(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": [1, 2], "sentence": ["None", "NA"], "label": ["joy", None], "Sex": ["F", None], "spk": [7, None],
                          "valence": [0.5, 0.25]})
    records = json.loads(table.astype({"spk": "Int64"}).to_json(orient="records"))
    table.to_parquet(tmp_path / "t.parquet")
    put(tmp_path / "t.jsonl", "\n".join(map(json.dumps, records)))
    put(tmp_path / "t.json", json.dumps(records, indent=1))
    put(tmp_path / "data.json", json.dumps({"version": 1, "data": records}))
    for name in ("t.parquet", "t.jsonl", "t.json", "data.json"):
        found = read(tmp_path / name).table
        assert found[["utterance", "text", "emotion", "gender", "speaker"]].to_numpy().tolist() == [
            ["1", "None", "happy", "female", "7"], ["2", "NA", "", "unknown", ""]], name
        assert found["valence"].tolist() == [0.5, 0.25] and found["valence"].dtype == float


@pytest.mark.parametrize(("text", "told"), [
    ("utterance,text,emotion,split\nu1,Hi,sad,\nu2,Hi,sad,soon\n", "line 3: bad 'split'"),
    ("utterance,text,emotion\nu1,Hi,sad\n,Hi,sad\n", "line 3: bad 'utterance'"),
    ("ID,text,emotion\nu1,Hi,sad\n\nu1,Hi,sad\n", "line 4: bad 'utterance'"),
    ("utterance,text,Label\nu1,Hi,0\n", "line 2: bad 'Label'"),
    ("utterance,text,emotion,text\nu1,Hi,sad,Ho\n", "has the column 'text' twice"),
    ("utterance,text,emotion,Emotion\nu1,Hi,sad,sad\n", "has the column 'emotion' twice"),
    ("path,file,emotion\na.wav,b.wav,sad\n", "more than one that could be it; found path, file"),
    ("utterance,text,emotion,start\nu1,Hi,sad,\"1,5\"\n", "line 2: bad 'start'; expected a number of seconds"),
    ("utterance,text,emotion,start,end\nu1,Hi,sad,2,1\n", "line 2: bad 'end'; expected an end after the start"),
    ("utterance,text,emotion\nu1,Fine, then,sad\n", "line 2: 4 fields; expected 3"),
    ("utterance,text,emotion\nu1,\"Hi,sad\nu2,Ho,sad\n", "line 3"),
    ("utterance,text\nu1,Hi\n", "lacks the column 'emotion'"), ("", "t.csv is empty"), ("\n\n", "t.csv is empty"),
])
def test_a_table_is_refused_with_its_row(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        read(put(tmp_path / "t.csv", text))
    assert told in str(error.value), str(error.value)


def test_a_header_alone_is_an_empty_corpus(tmp_path: Path) -> None:
    assert len(read(put(tmp_path / "t.csv", HEAD))) == 0


@pytest.mark.parametrize(("name", "told"), [("t.xlsx", "save the sheet as CSV"), ("t.zip", "unpack it"), ("t.pkl", "CSV or Parquet"),
                                            ("t.wav", "give the folder")])
def test_other_files_are_refused_with_the_mend(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(put(tmp_path / name, b"x"))


def test_odd_genders_are_unknown_and_told(tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", "utterance,text,emotion,gender\nu1,Hi,sad,2\nu2,Hi,sad,nan\nu3,Hi,sad,Female\n")
    with pytest.warns(UserWarning, match="gender 2 is read as unknown"):
        assert rows(file, "gender") == [["unknown"], ["unknown"], ["female"]]


def test_a_duration_is_the_end_of_a_part_and_says_nothing_of_a_whole_file(tmp_path: Path) -> None:
    parts = read(put(tmp_path / "p.csv", "file,start,duration,label\na.wav,0.5,1,joy\na.wav,2,1.5,joy\n")).table
    assert parts["end"].tolist() == [1.5, 3.5] and parts["utterance"].tolist() == ["a.wav_0.500", "a.wav_2.000"]
    whole = read(put(tmp_path / "w.csv", "file,duration,label\na.wav,1.2,joy\n")).table
    assert whole["end"].isna().all() and whole["duration"].tolist() == ["1.2"]


def test_words_of_people() -> None:
    parts = {"train": "Train TRAINING trainset train_data train1", "dev": "val Validation dev development valid devel val_set",
             "test": "eval Evaluation testing TEST test-2", "": "none nan"}
    assert all(part_named(w) == part for part, words in parts.items() for w in words.split())
    assert not any(part_named(w) for w in ("happy", "contest", "testament", "speaker", "eva", "devil", "1", "set"))
    assert [gender_named(w) for w in ("FEMALE", "Frau", "女", "m.", "Boy", "divers", "3")] == [
        "female", "female", "female", "male", "male", "unknown", None]


# paths


@pytest.mark.parametrize("written", [
    "Wavs/grün.wav", "Wavs\\grün.wav", ".\\Wavs\\grün.wav", "./Wavs/grün.wav", '"Wavs/grün.wav"', "wavs/GRÜN.WAV", " Wavs/grün.wav\u00a0",
    "{root}/Wavs/grün.wav", "file://{root}/Wavs/gr%C3%BCn.wav", "Wavs//grün.wav",
])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_file_is_found_however_it_is_written(tmp_path: Path, written: str, form: str) -> None:
    file = put(tmp_path / "Wavs" / unicodedata.normalize(form, "grün.wav"))
    table = pd.DataFrame({"utterance": ["u"], "audio": [written.format(root=tmp_path)], "emotion": ["sad"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    corpus = read(tmp_path / "t.csv")
    assert corpus.root / corpus.table["audio"][0] == file


@pytest.mark.parametrize("bad", ["../x.wav", "/etc/passwd", "C:\\x.wav", "\\\\server\\x.wav", "file:///etc/passwd", "{root}/../x.wav"])
def test_no_path_leaves_the_folder(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InputError, match="line 2: bad 'File'; expected a path under"):
        read(put(tmp_path / "t.csv", f"File,emotion\n{bad.format(root=tmp_path)},sad\n"))


def test_two_files_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.wav"), put(tmp_path / "A.wav")
    file = put(tmp_path / "t.csv", "audio,emotion\na.WAV,sad\n")
    if len(list(tmp_path.iterdir())) == 3:  # where the disk tells case apart
        with pytest.raises(InputError, match=r"could be more than one file; found A\.wav, a\.wav"):
            read(file)


def test_a_missing_file_is_told_with_the_one_that_is_there(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    from zsemo_kit.corpora.audio import AudioError, utterance_audio
    put(tmp_path / "one.flac")
    with pytest.raises(AudioError, match=r"no such file; found one\.flac"):
        utterance_audio(read(put(tmp_path / "t.csv", "audio,emotion\none.wav,sad\n")), 0)


def test_a_path_is_a_path_and_a_word_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "here" / "ravdess" / "happy" / "mine.wav")
    put(tmp_path / "known" / "ravdess" / "Actor_01" / "03-01-05-01-01-01-01.wav")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path / "known"))
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    for path in ("./ravdess", "ravdess/", "~/ravdess", str(tmp_path / "here" / "ravdess"), Path("ravdess"), "../here/ravdess"):
        assert read(path).table["audio"].tolist() == ["happy/mine.wav"], path
    with pytest.warns(UserWarning, match=r"write \./ravdess"):
        assert read("ravdess").table["utterance"].tolist() == ["03-01-05-01-01-01-01"]
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"was not found in ZSEMO_CORPORA; for the folder here write \./ravdess"):
        read("ravdess")


# folders


@pytest.mark.parametrize(("folder", "split"), [
    ("train", "train"), ("Training", "train"), ("val", "dev"), ("valid", "dev"), ("Validation", "dev"), ("dev", "dev"),
    ("development", "dev"), ("test", "test"), ("testing", "test"), ("eval", "test"), ("evaluation", "test"), ("test_set", "test"),
])
@pytest.mark.parametrize("form", ["{0}/Angry/a.wav", "01_angry/{0}/a.wav", "data/{0}/speaker7/anger/a.wav", "angry/{0}/s1/a.wav"])
def test_parts_are_told_at_any_level(tmp_path: Path, folder: str, split: str, form: str) -> None:
    put(tmp_path / "f" / form.format(folder))
    put(tmp_path / "f" / "sad" / "b.wav"), put(tmp_path / "f" / "__MACOSX" / "sad" / "b.wav"), put(tmp_path / "f/sad/.hidden/c.wav")
    found = {tuple(r) for r in rows(tmp_path / "f", "emotion", "split")}
    assert found == {("angry", split), ("sad", "")}


@pytest.mark.parametrize("place", ["sad/gr\udcfc\udcdfe.wav", "sad/gr\udcfcn/a.wav"])
def test_a_file_whose_name_is_no_text_is_named(tmp_path: Path, place: str) -> None:
    put(tmp_path / "f" / "sad" / "a.wav"), put(tmp_path / "f" / place)
    with pytest.raises(InputError, match=r"f holds a file whose name cannot be read; expected UTF-8; found b'sad/gr\\xfc.*; rename it"):
        read(tmp_path / "f")


def test_a_corpus_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    read(put(tmp_path / "gr\udcfcn.csv", f"{HEAD}u1,Hi,sad\n")).save(tmp_path / "saved")
    assert Corpus.load(tmp_path / "saved").name == "gr\ufffdn"


@pytest.mark.parametrize(("escaped", "text"), [
    (r"\ud83d\ude00", "😀"), (r"cut \ud83d", "cut \ufffd"), (r"\ude00 cut", "\ufffd cut"), (r"\ude00\ud83d", "\ufffd\ufffd"), (r"\\ud83d", r"\ud83d"),
])
def test_half_a_letter_is_a_damaged_one(tmp_path: Path, escaped: str, text: str) -> None:
    record = f'{{"utterance": "u1", "text": "{escaped}", "emotion": "sad"}}'
    for name, data in {"t.jsonl": record, "t.json": f"[{record}]", "d.json": f'{{"data": [{record}]}}'}.items():
        assert rows(put(tmp_path / name, data), "text") == [[text]], name


@pytest.mark.parametrize("name", ["metadata.csv", "METADATA.CSV", "metadata.jsonl", "Metadata.parquet"])
def test_metadata_above_the_parts(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"file_name": ["train/a.wav", "val/deep/b.wav"], "label": ["joy", "sad"]})
    for audio in table["file_name"]:
        put(tmp_path / "f" / audio)
    file = put(tmp_path / "f" / name)
    writers = {"csv": lambda: table.to_csv(file, index=False), "jsonl": lambda: table.to_json(file, orient="records", lines=True),
               "parquet": lambda: table.to_parquet(file)}
    writers[name.lower().split(".")[1]]()
    assert rows(tmp_path / "f", "audio", "emotion", "split") == [["train/a.wav", "happy", "train"], ["val/deep/b.wav", "sad", "dev"]]


def test_nothing_of_a_folder_is_lost_in_silence(tmp_path: Path) -> None:
    put(tmp_path / "c" / "happy" / "a.wav"), put(tmp_path / "c" / "loose.wav")
    with pytest.warns(UserWarning, match=r"1 audio files lie in no folder of a class and are left out, such as loose\.wav"):
        assert len(read(tmp_path / "c")) == 1
    put(tmp_path / "m" / "a.wav"), put(tmp_path / "m" / "b.wav")
    put(tmp_path / "m" / "metadata.csv", "file_name,label\na.wav,sad\n")
    with pytest.warns(UserWarning, match=r"1 audio files are in no metadata and are left out, such as b\.wav"):
        assert len(read(tmp_path / "m")) == 1
    put(tmp_path / "two" / "happy" / "sad" / "a.wav")
    with pytest.raises(InputError, match="folders of two emotions"):
        read(tmp_path / "two")


def test_a_folder_of_tables_called_after_parts(tmp_path: Path) -> None:
    put(tmp_path / "wavs" / "a.wav")
    put(tmp_path / "Train.csv", "id;wav;label\na;wavs\\A.wav;joy\n"), put(tmp_path / "valid.csv", "id,wav,label\nb,wavs/b.wav,sad\n")
    assert rows(tmp_path, "utterance", "audio", "split") == [["a", "wavs/a.wav", "train"], ["b", "wavs/b.wav", "dev"]]


# audformat


def base(folder: Path, **tables: dict[str, list[str]]) -> Any:
    audformat = pytest.importorskip("audformat")
    db = audformat.Database("base")
    db.schemes["emotion"] = audformat.Scheme(labels=["anger", "happiness"])
    for name, columns in tables.items():
        table = db[name.replace("__", ".")] = audformat.Table(audformat.filewise_index(columns["file"]))
        for column in [c for c in columns if c != "file"]:
            table[column] = audformat.Column(scheme_id=column if column in db.schemes else None)
            table[column].set(columns[column])
    return db


def test_audb_keeps_pickles_beside_the_tables(tmp_path: Path) -> None:
    db = base(tmp_path, files={"file": ["a.wav", "b.wav"], "emotion": ["anger", "happiness"], "sex": ["F", "other"]})
    db.save(str(tmp_path), storage_format="csv")
    put(tmp_path / "db.files.pkl", b"not a pickle, and never opened")
    assert rows(tmp_path, "emotion", "gender") == [["angry", "female"], ["happy", "unknown"]]


def test_tables_of_one_database_are_joined(tmp_path: Path) -> None:
    base(tmp_path, emotion={"file": ["a.wav", "b.wav", "c.wav"], "emotion": ["happiness", "happiness", "anger"]},
         emotion__train__gold_standard={"file": ["a.wav"], "emotion": ["anger"]},
         emotion__test__gold_standard={"file": ["b.wav"], "emotion": ["happiness"]},
         files={"file": ["a.wav", "b.wav", "c.wav"], "speaker": ["1", "2", "2"], "transcription": ["Oh", "Ah", "Hm"]},
         ).save(str(tmp_path), storage_format="parquet")
    with pytest.warns(UserWarning, match="1 of 3 rows of table emotion are in no gold standard"):
        found = sorted(rows(tmp_path, "audio", "emotion", "split", "speaker", "text"))
    assert found == [["a.wav", "angry", "train", "1", "Oh"], ["b.wav", "happy", "test", "2", "Ah"]]
    base(tmp_path / "d", one={"file": ["a.wav"], "emotion": ["anger"]}, two={"file": ["a.wav"], "emotion": ["happiness"]}).save(
        str(tmp_path / "d"), storage_format="csv")
    with pytest.raises(InputError, match=r"tables do not agree on the emotion of a\.wav; found anger in one, happiness in two"):
        read(tmp_path / "d")


@pytest.mark.parametrize("space", ["all", "four", "sentiment"])
def test_a_database_of_parts_of_files_comes_back(tmp_path: Path, space: str) -> None:
    pytest.importorskip("audformat")
    emotion = ["neutral", "positive"] if space == "sentiment" else ["sad", "happy"]
    table = pd.DataFrame({"utterance": ["a", "b"], "audio": ["x.wav", "x.wav"], "start": [0.0, 1.0], "end": [1.0, 2.0],
                          "emotion": emotion, "split": ["train", "dev"], "gender": ["female", "unknown"], "age": [31.5, 20.0]})
    corpus = Corpus("mine", table, tmp_path, space)
    corpus.to_audformat().save(str(tmp_path / "db"), storage_format="csv")
    back = read(tmp_path / "db")
    assert back.space == space
    columns = [c for c in corpus.table if c != "emotion_raw"]
    pd.testing.assert_frame_equal(back.table[columns], corpus.table[columns], check_dtype=False)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=40), st.sampled_from(["cp1252", "cp1250", "cp1251", "gb18030", "cp932", "cp949", "utf-16"]))
def test_decoding_is_right_told_or_refused(text: str, encoding: str) -> None:
    try:
        data = text.encode(encoding)
    except UnicodeError:
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = decode(data, "t.csv")
        except InputError:
            return
    mixed = any("\udc80" <= c <= "\udcff" for c in found)
    assert found == text or told or mixed or encoding == "utf-16" or found == data.decode("utf-8", errors="replace").removeprefix("\ufeff")


def test_paths_of_a_study_are_relative_to_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zsemo_kit.studies import expand, load_study
    from zsemo_kit.cli.run import override
    root = tmp_path / "project"
    for name in ("sub/mine.csv", "sub/theirs.csv", "home.csv"):
        put(root / name)
    put(tmp_path / "else.csv")
    put(root / "sub" / "own.yaml", "notebook: zero_shot_text\ngrid: {source: [./mine.csv, meld+theirs.csv], target: [../../else.csv, meld]}\n")
    monkeypatch.chdir(root / "sub")
    monkeypatch.setenv("HOME", str(tmp_path))
    study = load_study("own.yaml", root)
    assert [r["source"] for r in expand(study)][::2] == ["./sub/mine.csv", "meld+./sub/theirs.csv"]
    assert {r["target"] for r in expand(study)} == {str(tmp_path / "else.csv"), "meld"}
    for written, seen in (("theirs.csv", "./sub/theirs.csv"), ("../home.csv", "./home.csv"), ("~/else.csv", str(tmp_path / "else.csv")),
                          ("./none.csv", "./none.csv"), ("esd", "esd")):
        assert {r["source"] for r in expand(override(study, [f"source={written}"], root=root))} == {seen}, written
