# ruff: noqa: E501 (hostile lines are long)
"""Hostile input: it is read, or refused in one line. No traceback, no file outside its folder, no code that runs.

ZSEMO_FUZZ=long in the environment tries far more examples."""

import json
import os
import pickle
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.analysis.runs import gather
from zsemo_kit.core import settings as session
from zsemo_kit.studies import expand, load_study
from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import load_audio, save_audio
from zsemo_kit.corpora.catalogue import corpus_names
from zsemo_kit.corpora.own_data import read_path
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.cards import load_card
from zsemo_kit.generation.reply_lines import parse
from zsemo_kit.generation.stated_labels import read_label
from zsemo_kit.generation.reply_store import RecordedStore, Reply, ReplyStore
from zsemo_kit.generation.silver import read_silver
from zsemo_kit.synthesis.annotation import Annotator
from zsemo_kit.synthesis.injection import load_profile
from zsemo_kit.synthesis.speakable import make_speakable
from zsemo_kit.training.explain import read_scp

pytestmark = pytest.mark.usefixtures("own_cache")

_SHARED: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
settings.register_profile("short", max_examples=25, **_SHARED)
settings.register_profile("long", max_examples=1000, **{**_SHARED, "derandomize": False})
EXAMPLES = settings.get_profile("long" if os.environ.get("ZSEMO_FUZZ") == "long" else "short")

CANARY = "canary_that_must_not_sing"


class Sings:
    """A pickle of this makes a file when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def survives(work: Callable[[], Any]) -> bool:
    """Whether input was taken; if not, it was refused in one line that a user can read."""
    try:
        work()
        return True
    except InputError as told:
        assert "\n" not in str(told) and "Traceback" not in str(told)
        assert len(str(told)) < 20_000, "an error that nobody can read"
        return False


WORDS = ["utterance", "emotion", "audio", "text", "start", "end", "turn", "split", "gender", "speaker", "file_name", "label",
         "neutral", "happy", "sad", "nan", "inf", "-1", "1e999", "9" * 30, "9" * 5000, "", " ", "None", "train", "../../etc/passwd",
         "/etc/passwd", "a.wav", "..\\x.wav", "C:\\x.wav", "\x00", "\ufeff", "\u202e", "\ud83d", "é", "=1+1", '"', "a,b", "\x1f"]
cells = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))


def table_bytes(rows: list[list[str]], encoding: str, mark: bytes, separator: str) -> bytes:
    text = "\n".join(separator.join(row) for row in rows)
    return mark + text.encode(encoding, errors="surrogatepass" if encoding.startswith("utf") else "replace")


tables = st.builds(
    table_bytes, st.lists(st.lists(cells, min_size=1, max_size=6), max_size=6),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-32"]), st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
    st.sampled_from([",", "\t", ";"]),
)
good_head = st.lists(st.lists(cells, min_size=4, max_size=4), max_size=5).map(
    lambda rows: table_bytes([["utterance", "emotion", "audio", "turn"], *[[c.replace(",", "") for c in r] for r in rows]],
                             "utf-8", b"", ","))


# tables and folders that people bring


@EXAMPLES
@given(data=st.one_of(tables, good_head, st.binary(max_size=300)), name=st.sampled_from(
    ["t.csv", "t.tsv", "t.parquet", "f/metadata.csv", "f/metadata.jsonl", "f/metadata.parquet", "f/corpus.json", "f/db.yaml"]))
def test_tables(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    root = tmp_path_factory.mktemp("t")
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)

    def work() -> None:
        corpus = read_path(path if path.parent == root else path.parent)
        for audio in corpus.table["audio"]:
            assert (corpus.root / audio).resolve().is_relative_to(root.resolve())
    survives(work)


NAMES = {
    "meld": ["train_sent_emo.csv"], "emorynlp": ["emorynlp_train_final.csv"], "msp_podcast": ["Labels/labels_consensus.csv"],
    "cmu_mosi": ["label.csv"], "dailydialog": ["train/dialogues_train.txt", "train/dialogues_emotion_train.txt",
                                               "train/dialogues_act_train.txt"],
    "iemocap": ["Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", "Session1/dialog/transcriptions/Ses01F_impro01.txt"],
}
HEADS = {
    "meld": "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n",
    "msp_podcast": "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n",
    "cmu_mosi": "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n",
    "emorynlp": "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("corpus", corpus_names())
def test_readers(tmp_path_factory: pytest.TempPathFactory, corpus: str) -> None:
    @settings(EXAMPLES, max_examples=max(6, EXAMPLES.max_examples // 4))
    @given(data=st.one_of(st.binary(max_size=200), tables, st.lists(cells, min_size=1, max_size=12).map(
        lambda row: (HEADS.get(corpus, "") + ",".join(row)).encode(errors="surrogatepass"))))
    def fuzz(data: bytes) -> None:
        root = tmp_path_factory.mktemp("r")
        for name in [*NAMES.get(corpus, []), "a/03-01-01-01-01-01-01.wav", "x.txt", "speakers.tsv", "OAF_back_angry.wav",
                     "1001_DFA_ANG_XX.wav", "03a01Fa.wav", "0001_000351.wav", "wav/MSP-IMPROV-S01A-F01-P-FM01.wav"]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        survives(lambda: read(corpus, root))
    fuzz()


@EXAMPLES
@given(cut=st.integers(0, 400), at=st.integers(0, 80), value=st.binary(min_size=1, max_size=8), suffix=st.sampled_from(["wav", "flac"]))
def test_audio(tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, value: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("a") / f"x.{suffix}"
    save_audio(path, 0.1 * np.sin(np.arange(2000) * 0.1))
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(bytes(data[: len(data) - cut]))

    def work() -> None:
        assert np.isfinite(load_audio(path, longest=60.0)).all()
    survives(work)


def test_no_manifest_leads_out_of_its_folder(tmp_path: Path) -> None:
    save_audio(tmp_path / "secret.wav", 0.1 * np.ones(2000))
    inside = tmp_path / "in"
    inside.mkdir()
    for path in ("../secret.wav", str(tmp_path / "secret.wav"), "x/../../secret.wav", "..\\secret.wav", "C:\\secret.wav"):
        (inside / "t.csv").write_text(f"utterance,emotion,audio\na,sad,{path}\n")
        (inside / "metadata.csv").write_text(f"file_name,label\n{path},sad\n")
        pd.DataFrame({"utterance": ["a"], "emotion": ["sad"], "audio": [path]}).to_parquet(inside / "t.parquet")
        for what in (inside / "t.csv", inside / "t.parquet", inside):
            assert not survives(lambda what=what: read_path(what)), path
        (inside / "saved").mkdir(exist_ok=True)
        pd.DataFrame({"utterance": ["a"], "emotion": ["sad"], "audio": [path]}).to_parquet(inside / "saved/table.parquet")
        (inside / "saved/corpus.json").write_text('{"format": 1, "name": "x", "space": "all"}')
        assert not survives(lambda: Corpus.load(inside / "saved")), path


# Parquet, pickles and YAML run nothing


def hostile_parquets(folder: Path) -> list[Path]:
    sings = pickle.dumps(Sings(folder / CANARY))
    made = {
        "bytes": pa.table({"utterance": ["a"], "emotion": ["sad"], "text": [sings]}),
        "nested": pa.table({"utterance": ["a"], "emotion": [["sad"]], "text": [{"x": sings}]}),
        "twice": pa.table([["a"], ["sad"], ["x"], ["y"]], names=["utterance", "emotion", "text", "text"]),
        "numbers": pa.table({"utterance": [1], "emotion": [2], "text": [3.5], "turn": [10**18]}),
        "type": pa.table({"utterance": ["a"], "emotion": ["sad"], "text": ["x"]},
                         metadata={b"pandas": b'{"index_columns": [], "column_indexes": [], "columns": [{"name": "text", '
                                   b'"field_name": "text", "pandas_type": "object", "numpy_type": "object", "metadata": null}]}'}),
        "schema": pa.table({"utterance": ["a"], "emotion": ["sad"], "text": ["x"]}, metadata={b"pandas": b"{not json"}),
        "python": pa.table({"utterance": ["a"], "emotion": ["sad"], "text": ["x"]}, metadata={b"PANDAS_ATTRS": sings, b"pandas": sings}),
    }
    for name, table in made.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return [folder / f"{name}.parquet" for name in made]


def test_parquet_runs_nothing(tmp_path: Path) -> None:
    for path in hostile_parquets(tmp_path):
        survives(lambda path=path: read_path(path))
        (tmp_path / "saved").mkdir(exist_ok=True)
        (tmp_path / "saved/table.parquet").write_bytes(path.read_bytes())
        (tmp_path / "saved/corpus.json").write_text('{"format": 1, "name": "x", "space": "all"}')
        survives(lambda: Corpus.load(tmp_path / "saved"))
    assert not (tmp_path / CANARY).exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
YAMLS = [
    "!!python/object/apply:os.mkdir [CANARY]", "id: !!python/object/apply:os.mkdir [CANARY]",
    "notebook: !!python/object/new:os.mkdir [CANARY]", "!!python/name:os.system", "grid: !!python/object/apply:os.system ['touch CANARY']",
    BOMB, f"{BOMB}notebook: *j\n", f"{BOMB}id: *j\n", "notebook: x\nparameters: &p {x: *p}\n", "&a [*a]", "id: &a {b: *a}",
    "[" * 5000, "{a: " * 800, "- " * 3000, "id: " + "9" * 6000, "notebook: " + "9" * 6000, "id: 2024-13-45", "? [a, b]\n: c",
    "? {a: b}\n: c", "1: 2\nnotebook: x\n", "null: x\nnotebook: y", "id: x\n---\nid: y", "\x00", "\ufeffid: x", "id: .inf", "id: !!set {a}",
    "notebook: x\ngrid: {x: [1, .nan]}", "notebook: x\ngrid: {1: [2]}", "notebook: x\ngrid: [[1]]", "notebook: x\ngrid: [1]",
    "notebook: x\nparameters: {x: 2024-01-01}", "notebook: x\nparameters: {1: a, b: c}", "notebook: x\nskip: [1]",
    "notebook: x\nskip: x", "notebook: x\nparameters: {x: !!binary aGVq}", "notebook: x\nparameters: {x: !!set {a}}",
    "notebook: x\nresources: {cpus: .nan}", "notebook: x\nresources: {cpus: .inf}", "notebook: x\nresources: {1: 2}",
    "notebook: ../../x\ngrid: {}", "notebook: x\ngrid: {a: []}", "notebook: x\nname: y", "notebook: x\nmetric: [uar]",
    "notebook: x\nmetric: {}", "notebook: x\ncompare: [{against: {a: 1}, row: 3}]", "notebook: x\ncompare: {a: 1}",
]
yaml_text = st.one_of(st.sampled_from(YAMLS), st.text(max_size=60), st.lists(st.sampled_from(
    ["id: x", "notebook: x", "grid:", "  a: [1, 2]", "facts:", "- {text: a, source: b}", "labels: &l [a]", "form: *l", "speakers: 3",
     "prompt_labels: [neutral]", "form: sentences", "emotions: [a, a]", "shares: {neutral: .nan}", "turns: [1, 99999999999999]",
     "spread: {}", "neutral: {}", "ways: 3", "sources: [1]", "label_map: {neutral: [1]}", "scenarios: [{id: 1, situation: 2}]"]),
    max_size=8).map("\n".join))


@EXAMPLES
@given(text=yaml_text)
def test_yaml(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    hold(tmp_path_factory.mktemp("y"), text)


@pytest.mark.parametrize("text", YAMLS, ids=range(len(YAMLS)))
def test_each_hostile_yaml(tmp_path: Path, text: str) -> None:
    began = time.process_time()
    hold(tmp_path, text)
    assert time.process_time() - began < 10, "a few lines must not take the machine away"


def hold(root: Path, text: str) -> None:
    path = root / "x.yaml"
    path.write_text(text.replace("CANARY", str(root / CANARY)), encoding="utf-8", errors="surrogatepass")
    survives(lambda: load_card(path))
    survives(lambda: expand(load_study(str(path), root)))
    survives(lambda: load_profile(path))
    (root / "base").mkdir()
    path.rename(root / "base/db.yaml")
    survives(lambda: read_path(root / "base"))
    assert not (root / CANARY).exists() and sorted(p.name for p in root.iterdir()) == ["base"]


def test_every_yaml_of_the_project_reads_as_it_did(project: Path) -> None:
    import yaml

    from zsemo_kit.core.files import read_yaml
    found = [*(project / "runs/studies").glob("*.yaml"), *(project / "zsemo_kit/data").rglob("*.yaml")]
    assert len(found) > 20
    for path in found:
        assert read_yaml(path.read_text(encoding="utf-8"), path.name) == yaml.safe_load(path.read_text(encoding="utf-8"))


# what a language model may answer


CARD = load_card("meld")
SENTENCES = load_card("ravdess")
replies = st.one_of(
    st.text(max_size=400),
    st.lists(st.sampled_from(["A: hello [neutral]", "B: [joy]", "**A**: x [anger]", "```json", "{", "[", '"lines":', "}", "\x00", "\u202e",
                              "- ", "1. ", "neutral:", "[[neutral]]", "\ud83d", "I cannot", "A" * 300, "\r", "\x1b[31m", "|", "*" * 50]),
             max_size=20).map("\n".join),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda x: st.lists(x, max_size=4) | st.dictionaries(
        st.sampled_from(["lines", "text", "speaker", "emotion", "x"]), x, max_size=4), max_leaves=12).map(json.dumps),
)


@EXAMPLES
@given(text=replies, strategy=st.sampled_from(["labels", "scenario", "utterances", "contrast"]), finish=st.sampled_from(
    ["stop", "length", "content_filter", "", "odd"]))
def test_replies(text: str, strategy: str, finish: str) -> None:
    for card in (CARD, SENTENCES):
        lines = parse(Reply("k", "m", text, finish), card, strategy, "joy" if strategy == "utterances" else "-")
        assert lines and all(line.status != "kept" or line.text.strip() for line in lines)
    assert read_label(text, CARD.labels) in {None, *CARD.labels}
    assert isinstance(make_speakable(text[:2000]), str)


MEGABYTE = 1_000_000
LONG = {"letters": "a" * MEGABYTE, "spaces": " " * MEGABYTE, "brackets": "[" * MEGABYTE, "braces": "{" * MEGABYTE, "stars": "*" * MEGABYTE,
        "tags": "[joy]" * (MEGABYTE // 5), "quotes": '"' * MEGABYTE, "colons": "A:" * (MEGABYTE // 2), "lines": "\n" * MEGABYTE,
        "json": '{"lines": [' + '{"text": "x", ' * (MEGABYTE // 14), "nested": '[{"a":' * (MEGABYTE // 6), "dots": "." * MEGABYTE,
        "words": "not joy " * (MEGABYTE // 8), "ticks": "`" * MEGABYTE, "dashes": "- " * (MEGABYTE // 2), "digits": "1" * MEGABYTE,
        "bars": "|" * MEGABYTE, "under": "_" * MEGABYTE, "backslashes": "\\" * MEGABYTE, "escapes": '{"text": "' + '\\"' * (MEGABYTE // 2)}


@pytest.mark.parametrize("what", LONG)
def test_a_megabyte_of_anything_takes_no_more_than_its_share(what: str) -> None:
    began = time.process_time()
    for strategy in ("labels", "utterances", "contrast"):
        assert parse(Reply("k", "m", LONG[what]), CARD, strategy, "joy" if strategy == "utterances" else "-")
    read_label(LONG[what], CARD.labels)
    assert time.process_time() - began < 20, "time that grows with the square of a reply"


# stores, lists, models, results


@EXAMPLES
@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"SQLite format 3\x00", b"SQLite format 3\x00" + bytes(84)]))
def test_reply_stores(tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "r.sqlite"
    path.write_bytes(head + data)

    def work() -> None:
        with ReplyStore(path) as store:
            store.get("x")
    if not survives(work):
        assert path.read_bytes() == head + data, "what is not ours is left as it was"


@pytest.mark.parametrize("schema", ["CREATE TABLE replies (x)", "CREATE TABLE replies (key TEXT, reply BLOB)", "CREATE VIEW replies AS SELECT 1"])
def test_foreign_databases_are_no_stores(tmp_path: Path, schema: str) -> None:
    db = sqlite3.connect(tmp_path / "r.sqlite")
    db.execute(schema)
    db.commit()
    db.close()

    def work() -> None:
        with ReplyStore(tmp_path / "r.sqlite") as store:
            store.get("x")
    survives(work)


@EXAMPLES
@given(data=st.one_of(tables, st.binary(max_size=200), st.lists(st.sampled_from(
    ["a\tx.wav", "a x.wav", "\t", "a\t", "a\t../../etc/passwd", "a\t/dev/zero", "a\t.", "a\tc:d.wav", "b\tx.wav\tmore", "\x00\tx.wav",
     "a\t" + "x" * 5000, "a\tx\x00.wav", "\ufeffa\tx.wav"]), max_size=6).map(lambda x: "\n".join(x).encode())))
def test_scp_lists(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("l") / "l.scp"
    path.write_bytes(data)
    survives(lambda: read_scp(path))


json_values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=4)
                           | st.dictionaries(st.sampled_from(["format", "name", "space", "thresholds", "gender_limit", "config", "labels",
                                                              "uar", "source", "target", "recall", "seconds", "seed", "width"]), x, max_size=6),
                           max_leaves=15)
json_text = st.one_of(json_values.map(json.dumps), st.text(max_size=40), st.sampled_from(["[" * 5000, '{"a":' * 5000, "1" * 6000, "NaN"]))


@EXAMPLES
@given(text=json_text)
def test_json_of_corpora_annotators_models_and_runs(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    from zsemo_kit.training.classifier import Model
    from zsemo_kit.training.speechllm import SpeechLLM
    root = tmp_path_factory.mktemp("j")
    data = text.encode("utf-8", errors="surrogatepass")
    pd.DataFrame({"utterance": ["a"], "emotion": ["sad"], "text": ["x"]}).to_parquet(root / "table.parquet")
    for name in ("corpus.json", "annotator.json", "model.json", "speechllm.json", "metadata.jsonl", "out/run/metrics.json",
                 "out/run/params.json", "out/run/environment.json", "conversation.json", "manifest.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    survives(lambda: Corpus.load(root))
    survives(lambda: Annotator.load(root / "annotator.json"))
    survives(lambda: Model.load(root))
    survives(lambda: SpeechLLM.load(root))
    survives(lambda: gather(root / "out"))
    (root / "corpus.json").unlink()
    survives(lambda: read_path(root))


@EXAMPLES
@given(data=st.one_of(tables, st.lists(st.sampled_from(
    ["utterance,label", "a,joy", "a,[joy]", "b,\x00", ",", "filename,split,llm_label", "x.wav,train,joy", "utterance,label,text", "a,joy,x"]),
    max_size=6).map(lambda x: "\n".join(x).encode())))
@pytest.mark.filterwarnings("ignore")
def test_silver_tables(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("v") / "s.csv"
    path.write_bytes(data)
    corpus = Corpus("meld", pd.DataFrame({"utterance": ["a"], "text": ["x"], "emotion": ["sad"], "split": ["train"]}))
    survives(lambda: read_silver(path, corpus))


# checkpoints


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model, trained for a moment."""
    from zsemo_kit.training.classifier import fit
    from zsemo_kit.training.recipes import configure
    from zsemo_kit.training.text_encoder import TextEncoder
    texts = {"happy": "What a lovely day", "sad": "It is all so grey", "neutral": "The bus is here", "angry": "Leave that alone"}
    rows = pd.DataFrame([{"utterance": f"{e}{i}", "dialogue": f"d{i}", "text": f"{t} {i}.", "emotion": e}
                         for i in range(4) for e, t in texts.items()])
    corpus = Corpus("tiny", rows, space="four")
    folder = tmp_path_factory.mktemp("model")
    with session.settings(cache=folder / "cache"):
        encoder = TextEncoder.load(device="cpu")
    made = fit(corpus.where({"dialogue": ["d0", "d1", "d2"]}), corpus.where({"dialogue": ["d3"]}), tuple(texts), encoder,
               configure())
    return made.save(folder / "saved")


def damaged(model: Path, place: Path) -> list[Path]:
    """Copies of a model, each hostile in its own way."""
    import shutil
    manifest = json.loads(next(model.glob("*.json")).read_text())
    name, made = next(model.glob("*.json")).name, []

    def copy(what: str) -> Path:
        made.append(Path(shutil.copytree(model, place / what)))
        return made[-1]
    (copy("pickle") / "head.safetensors").write_bytes(pickle.dumps(Sings(place / CANARY)))
    head = (model / "head.safetensors").read_bytes()
    for n in (0, 4, 8, 40, len(head) - 7):
        (copy(f"cut{n}") / "head.safetensors").write_bytes(head[:n])
    (copy("huge") / "head.safetensors").write_bytes((2**62).to_bytes(8, "little") + head[8:])
    (copy("history") / "history.csv").write_bytes(b"\xff\x00,\n\"")
    changes: dict[str, Any] = {
        "encoder": "../../../etc", "width": 10**12, "labels": "sad", "config": [], "layers": "x", "own_terms": ["x"], "fingerprint": 3}
    for key, value in changes.items():
        (copy(key) / name).write_text(json.dumps({**manifest, key: value}))
    for key, value in {"classifier": "os.system", "hidden": -1, "dropout": "x", "normalisation": "source", "max_tokens": "x",
                       "unknown": 1}.items():
        (copy(f"config_{key}") / name).write_text(json.dumps({**manifest, "config": {**manifest["config"], key: value}}))
    return made


@pytest.mark.filterwarnings("ignore")
def test_damaged_models_are_refused_and_run_nothing(model: Path, tmp_path: Path) -> None:
    from zsemo_kit.training.classifier import Model
    for folder in damaged(model, tmp_path):
        survives(lambda folder=folder: Model.load(folder, device="cpu"))
        assert not (tmp_path / CANARY).exists()


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_of_pickles_runs_nothing(tmp_path: Path) -> None:
    from zsemo_kit.training.speech_encoder import SpeechEncoder
    from zsemo_kit.training.text_encoder import TextEncoder
    for name in ("pytorch_model.bin", "model.safetensors", "model.pt"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 8, "auto_map": {"AutoModel": "evil.Evil"}}')
        (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / CANARY)!r})")
        (folder / name).write_bytes(pickle.dumps(Sings(tmp_path / CANARY)))
        survives(lambda folder=folder: TextEncoder.load(str(folder), device="cpu"))
        survives(lambda folder=folder: SpeechEncoder.load(str(folder), device="cpu"))
        assert not (tmp_path / CANARY).exists(), name


# the command line


COMMANDS = [["doctor", "generic", "X"], ["export", "datasets", "X", "out"], ["export", "audformat", "X", "out"], ["generate", "X", "--recorded"],
            ["run", "X", "--dry-run"], ["report", "X"], ["speak", "X", "--out", "out"], ["explain", "X", "--annotate"]]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda w: "_".join(w[:2]))
@pytest.mark.parametrize("name", ["x.csv", "x.yaml", "x.parquet", "x.scp", "saved"])
def test_commands_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "saved":
        Path("saved").mkdir()
        Path("saved/corpus.json").write_text("[" * 100_000)
    else:
        Path(name).write_bytes(b"\xff\xfe\x00[[[" + b"[" * 5000)
    with pytest.raises(SystemExit) as stopped:
        main([name if w == "X" else w for w in words])
    told = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and told and told[-1].startswith("zsemo: ") and "Traceback" not in "".join(told)
    assert not Path("out").exists()


def test_a_recording_store_of_nonsense_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\x1f\x8b", b"x" * 50):
        (tmp_path / "meld.jsonl.gz").write_bytes(data)
        survives(lambda: RecordedStore("meld", tmp_path))
