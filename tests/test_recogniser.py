"""A recogniser is made from source data only, says the same wherever it is loaded, and loses no row."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from conftest import Call
from zsemo_kit import load
from zsemo_kit.analysis.temperature import fit_temperature, temper
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.systems import recogniser
from zsemo_kit.systems.recogniser import EmotionRecogniser, pack_recogniser, train_recogniser
from zsemo_kit.systems.zero_shot import ZeroShotSpeech, ZeroShotText

SAYINGS = {"happy": "What a lovely day, I am so glad!", "sad": "I miss her and cannot stop crying.",
           "angry": "Go away, I hate this!"}


def sentences(n: int = 20) -> pd.DataFrame:
    rows = [(f"{e}{i}", f"{text} Number {i}.", e, f"d{i}") for e, text in SAYINGS.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["utterance", "text", "emotion", "dialogue"])


def tones(folder: Path, n: int, seconds: float = 0.6) -> list[Path]:
    "Recordings that differ in pitch and level."
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(n):
        t = np.arange(int(16_000 * seconds)) / 16_000
        sound = 0.05 * (1 + i % 3) * np.sin(2 * np.pi * (120 + 60 * (i % 3)) * t) * (1 + 0.3 * np.sin(2 * np.pi * 5 * t + i))
        soundfile.write(folder / f"{i:03}.wav", sound, 16_000)
        made.append(folder / f"{i:03}.wav")
    return made


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    "One recogniser of text and one of sound."
    home = tmp_path_factory.mktemp("recognisers")
    sentences().to_csv(home / "words.csv", index=False)
    train_recogniser(ZeroShotText(source=str(home / "words.csv"))).save(home / "text")
    files = tones(home / "sounds", 30)
    table = pd.DataFrame({"utterance": [f.stem for f in files], "audio": [f.name for f in files],
                          "emotion": [("happy", "sad", "angry")[i % 3] for i in range(30)],
                          "dialogue": [f"d{i // 3}" for i in range(30)]})
    table.to_csv(home / "sounds" / "table.csv", index=False)
    train_recogniser(ZeroShotSpeech(source=str(home / "sounds" / "table.csv"))).save(home / "speech")
    return {"text": home / "text", "speech": home / "speech", "home": home}


@given(nst.arrays(float, (6, 3), elements=st.floats(0.01, 1)), st.floats(0.05, 20))
def test_a_temperature_changes_no_guess(weights: np.ndarray, temperature: float) -> None:
    p = weights / weights.sum(1, keepdims=True)
    made = temper(pd.DataFrame(p, columns=["p_a", "p_b", "p_c"]), temperature)
    after, sure = made[["p_a", "p_b", "p_c"]].to_numpy(), made["confidence"].to_numpy()
    best = np.sort(p, 1)
    clear = best[:, -1] - best[:, -2] > 1e-3
    assert np.allclose(after.sum(1), 1) and np.allclose(sure, after.max(1))
    assert (after.argmax(1) == p.argmax(1))[clear].all()
    assert ((sure <= p.max(1) + 1e-9) == (temperature >= 1))[clear & (abs(np.log(temperature)) > 0.01)].all()


@pytest.mark.parametrize("drawn", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_drawn_is_found(drawn: float) -> None:
    rng = np.random.default_rng(1)
    p = pd.DataFrame(rng.dirichlet(np.ones(3), 4000), columns=["p_a", "p_b", "p_c"])
    true = temper(p, drawn)[list(p)].to_numpy()
    truth = [rng.choice(["a", "b", "c"], p=row / row.sum()) for row in true]
    guessed = p.assign(truth=truth)
    assert np.isclose(fit_temperature(guessed), drawn, rtol=0.1)
    lost = pd.concat([guessed, guessed.assign(truth=""), guessed.assign(p_a=np.nan)], ignore_index=True)
    assert np.isclose(fit_temperature(lost), fit_temperature(guessed))  # what has no truth or no guess does not count


def test_classes_that_the_source_lacks_are_not_taught(readers: dict[str, Path]) -> None:
    made = load(str(readers["text"]))
    assert made.labels == ("happy", "sad", "angry") and isinstance(made, EmotionRecogniser)
    assert made.facts["n_train"] + made.facts["n_dev"] == 60 and made.facts["dev"]["uar"] > 0.9
    with pytest.raises(InputError, match="too few classes to learn from; expected two or more of neutral"):
        rows = sentences().query("emotion == 'sad'")
        rows.to_csv(readers["home"] / "sad.csv", index=False)
        train_recogniser(ZeroShotText(source=str(readers["home"] / "sad.csv")))
    with pytest.raises(InputError, match="cannot normalise by corpus; expected none or source"):
        train_recogniser(ZeroShotSpeech(source="emodb_synthetic", normalisation="corpus"))


def test_an_official_test_part_is_in_neither_part(tmp_path: Path) -> None:
    rows = sentences().assign(split=["test" if i % 5 == 0 else "dev" if i % 5 == 1 else "train" for i in range(60)])
    rows.to_csv(tmp_path / "official.csv", index=False)
    facts = train_recogniser(ZeroShotText(source=str(tmp_path / "official.csv"))).facts
    assert (facts["n_train"], facts["n_dev"]) == (36, 12)


@pytest.mark.parametrize("reads", ["text", "speech"])
def test_it_says_the_same_wherever_it_is_loaded(readers: dict[str, Path], tmp_path: Path, reads: str) -> None:
    first = EmotionRecogniser.load(readers[reads])
    packed = EmotionRecogniser.load(pack_recogniser(readers[reads], tmp_path / "hub"))
    table = sentences(3) if reads == "text" else pd.read_csv(readers["home"] / "sounds" / "table.csv").head(9)
    corpus = Corpus("some", table, readers["home"] / "sounds")
    pd.testing.assert_frame_equal(first.predict(corpus), packed.predict(corpus))
    assert first.fingerprint == packed.fingerprint
    said = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert said.startswith("---\nlibrary_name: zsemo_kit") and "## Licences" in said and "# hub" in said


def test_an_encoder_of_this_machine_goes_with_it(tmp_path: Path) -> None:
    from zsemo_kit.training.text_encoder import model_folder
    rows = sentences(6)
    rows.to_csv(tmp_path / "words.csv", index=False)
    encoder = tmp_path / "encoder"
    encoder.symlink_to(model_folder("minilm"))
    made = train_recogniser(ZeroShotText(source=str(tmp_path / "words.csv"), encoder=str(encoder)))
    made.save(tmp_path / "mine")
    pack_recogniser(tmp_path / "mine", tmp_path / "hub")
    told = json.loads((tmp_path / "hub" / "model" / "model.json").read_text())
    assert told["encoder"] == "encoder" and (tmp_path / "hub" / "model" / "encoder" / "config.json").is_file()
    given = Corpus("c", rows)
    pd.testing.assert_frame_equal(EmotionRecogniser.load(tmp_path / "hub").predict(given), made.predict(given))


@pytest.mark.parametrize(("change", "told"), [
    (lambda f: (f / "recogniser.json").unlink(), "holds no recogniser; expected recogniser.json"),
    (lambda f: (f / "recogniser.json").write_text("[1]"), "holds no recogniser"),
    (lambda f: (f / "recogniser.json").write_text(json.dumps({"format": 7, "temperature": 1, "facts": {}})), "another version"),
    (lambda f: (f / "model" / "head.safetensors").write_bytes(b"x"), "cannot read the saved model"),
    (lambda f: (f / "model" / "model.json").unlink(), "cannot read the saved model"),
])
def test_a_damaged_folder_is_one_line(readers: dict[str, Path], tmp_path: Path, change: Callable[[Path], object],
                                      told: str) -> None:
    folder = pack_recogniser(readers["text"], tmp_path / "copy")
    change(folder)
    with pytest.raises(InputError, match=told):
        EmotionRecogniser.load(folder)


# the commands

HEAD = "utterance,emotion,confidence,p_happy,p_sad,p_angry,recogniser,problem"


def test_train_predict_push(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sentences().to_csv("words.csv", index=False)
    code, out, err = call("train", "./words.csv", "--out", "mine", "--set", "balance=none")
    assert code == 0 and "happy, sad, angry from text: train" in out and "next  zsemo predict mine words.csv" in out, err
    assert "--set balance=none --out mine" in (tmp_path / "mine" / "README.md").read_text()
    pd.DataFrame({"id": [1, 2, 3], "text": ["I am so glad!", "", "Go away!"]}).to_csv("new.csv", index=False)
    code, out, err = call("predict", "mine", "new.csv")
    lines = [line.split(",") for line in out.splitlines()]
    assert code == 1 and ",".join(lines[0]) == HEAD and [(r[0], r[1], r[-1]) for r in lines[1:]] == [
        ("1", "happy", ""), ("2", "", "no text"), ("3", "angry", "")]
    assert "not read  2: no text" in err
    code, out, _ = call("push", "mine", "hub")
    assert code == 0 and out.endswith("next  hf upload YOU/hub hub\n") and (tmp_path / "hub" / "README.md").is_file()


def test_lines_of_standard_input(call: Call, readers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("I am so glad!\n\nGo away!\n"))
    code, out, _ = call("predict", readers["text"], "-", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(r["utterance"], r["emotion"]) for r in records] == [("1", "happy"), ("2", "angry")]
    assert all(np.isclose(sum(r[f"p_{e}"] for e in SAYINGS), 1, atol=1e-5) for r in records)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_is_continued_without_loss(call: Call, readers: dict[str, Path], tmp_path: Path, form: str) -> None:
    table = sentences(10)
    table.to_csv(tmp_path / "new.csv", index=False)
    file = tmp_path / f"said.{form}"
    code, out, err = call("predict", readers["text"], tmp_path / "new.csv", "--out", file)
    assert code == 0 and "30 labelled, 0 not read" in out
    told = re.search(r"against the labels of 30: UAR (.*), weighted F1 .*, calibration error .*, tempered .*", err)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: len(whole) * 2 // 3], encoding="utf-8")  # stopped in the middle of a row
    code, out, err = call("predict", readers["text"], tmp_path / "new.csv", "--out", file)
    assert told and re.search(rf"against the labels of 30: UAR {told[1]}", err)  # of all rows, those of before too
    assert code == 0 and "were there" in out and file.read_text(encoding="utf-8") == whole
    code, out, _ = call("predict", readers["text"], tmp_path / "new.csv", "--out", file)
    assert code == 0 and "0 labelled, 30 were there" in out and file.read_text(encoding="utf-8") == whole


def test_rows_of_another_recogniser_stay(call: Call, readers: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("I am so glad!\n")
    for text in ("my notes\n", f"{HEAD}\n1,happy,1,1,0,0,0123456789ab,\n"):
        (tmp_path / "said.csv").write_text(text)
        code, _, err = call("predict", readers["text"], tmp_path / "new.txt", "--out", tmp_path / "said.csv")
        assert code == 2 and "will not write over" in err and (tmp_path / "said.csv").read_text() == text


def test_recordings_by_path_folder_list_and_table(
    call: Call, readers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(readers["home"])
    files = [f"sounds/{i:03}.wav" for i in range(30)]
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    code, out, err = call("predict", "speech", *files, "lost.wav", tmp_path / "bad.wav")
    rows = pd.read_csv(io.StringIO(out), keep_default_na=False)
    assert code == 1 and rows["utterance"].tolist() == [*files, str(tmp_path / "bad.wav"), "lost.wav"]
    assert "not read  lost.wav: there is no such file" in err and "bad.wav" in err and (rows["problem"] == "").sum() == 30
    said = out.splitlines()[1:31]
    code, out, _ = call("predict", "speech", "sounds")
    assert code == 0 and out.splitlines()[1:] == said
    (tmp_path / "list.scp").write_text("".join(f"u{i}\t{readers['home'] / f}\n" for i, f in enumerate(files)))
    for what in (tmp_path / "list.scp", "sounds/table.csv"):
        code, out, _ = call("predict", "speech", what)
        assert code == 0 and [r.split(",")[1:] for r in out.splitlines()[1:]] == [r.split(",")[1:] for r in said]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(files)))
    assert call("predict", "speech", "-")[1].splitlines()[1:] == said


def test_long_recordings_by_sentences_and_as_one(call: Call, readers: dict[str, Path], tmp_path: Path) -> None:
    parts = [soundfile.read(readers["home"] / "sounds" / f"{i:03}.wav")[0] for i in range(4)]
    silence = np.zeros(16_000)
    soundfile.write(tmp_path / "hour.wav", np.concatenate([x for p in parts for x in (silence, p)]), 16_000)
    soundfile.write(tmp_path / "mute.wav", 1e-3 * np.random.default_rng(0).standard_normal(32_000) * 0, 16_000)
    code, out, err = call("predict", readers["speech"], tmp_path / "hour.wav", tmp_path / "mute.wav", "--long", "sentences")
    rows = pd.read_csv(io.StringIO(out), keep_default_na=False)
    spoken = rows[rows["problem"] == ""]
    assert code == 1 and "nobody speaks in it" in err and len(spoken) == 4
    assert np.allclose(pd.to_numeric(spoken["start"]), 1 + 1.6 * np.arange(4), atol=0.15)
    assert (spoken["recording"] == str(tmp_path / "hour.wav")).all()
    code, out, _ = call("predict", readers["speech"], tmp_path / "hour.wav", "--limit", "2")
    rows = pd.read_csv(io.StringIO(out))
    assert code == 0 and len(rows) == 1 and np.isclose(rows[[f"p_{e}" for e in SAYINGS]].sum(axis=1)[0], 1, atol=1e-3)


@pytest.mark.parametrize(("words", "parts"), [
    (("predict", "{text}", "a.wav"), ("this recogniser reads text", "a.wav, which is sound")),
    (("predict", "{speech}", "words.csv"), ("this recogniser reads speech", "words.csv without any")),
    (("predict", "{speech}", "empty"), ("nothing to recognise", "no recording in empty")),
    (("predict", "{text}", "empty.txt"), ("nothing to recognise", "no line in empty.txt")),
    (("predict", "empty", "a.wav"), ("empty holds no recogniser",)),
    (("predict", "{text}", "words.csv", "other.csv"), ("one table or corpus at a time", "2 names")),
    (("train", "words.csv", "--out", "m", "--set", "clasifier=linear"), ("no setting 'clasifier'", "--speech has others")),
    (("train", "words.csv", "--out", "m", "--set", "seed=many"), ("bad --set seed=many", "int")),
    (("train", "words.csv", "--out", "notes"), ("will not write over notes",)),
    (("train", "words.csv", "--speech", "--out", "m", "--set", "normalisation=speaker"), ("cannot normalise by speaker",)),
    (("train", "card.yaml", "--out", "m"), ("nothing was written for card.yaml yet", "--model")),
    (("push", "empty", "hub"), ("empty holds no recogniser",)),
])
def test_bad_words(call: Call, readers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
                   parts: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir(), (tmp_path / "notes").mkdir(), (tmp_path / "notes" / "mine.txt").write_text("precious")
    (tmp_path / "empty.txt").write_text("\n\n")
    sentences(3).to_csv("words.csv", index=False)
    (tmp_path / "card.yaml").write_text(
        "id: mine\ntitle: T\nlanguage: en\nsources: {me: notes}\nfacts: [{text: Two friends talk., source: me}]\n"
        "prompt_labels: [neutral, happy]\nspeakers: {A: any, B: any}\n")
    code, out, err = call(*(w.format(**readers) for w in words))
    assert code == 2 and not out and err.startswith("zsemo: ") and all(p in err for p in parts), err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["card.yaml", "empty", "empty.txt", "notes", "words.csv"]


def test_a_score_on_what_was_seen_in_training_is_marked(call: Call, readers: dict[str, Path]) -> None:
    own = readers["home"] / "words.csv"
    assert EmotionRecogniser.load(readers["text"]).facts["seen"] == ["words"]
    assert "against the labels of 60, seen in training: no zero-shot score: UAR" in call("predict", readers["text"], own)[2]
    sentences(5).to_csv(readers["home"] / "others.csv", index=False)
    assert "against the labels of 15: UAR" in call("predict", readers["text"], readers["home"] / "others.csv")[2]


def test_corpora_that_a_profile_was_fitted_on_count_as_seen() -> None:
    system = ZeroShotSpeech(source="emodb_synthetic", profile="fitted:ravdess+nemo")
    part = Corpus("p", sentences(1))
    assert recogniser._collect_facts(system, part, part, {})["seen"] == ["emodb_synthetic", "ravdess", "nemo"]
