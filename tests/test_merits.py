"""MERITS-L as a whole: stages kept by content, a killed run that goes on, the run notebook on corpora in their own layouts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import RATE, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.training import merits as module
from zsemo_kit.training.checkpoints import Stages, stage_name
from zsemo_kit.training.classifier import Model
from zsemo_kit.training.merits import STAGES, Merits, below_of
from zsemo_kit.training.recipes import configure
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.text_encoder import TextEncoder

pytestmark = pytest.mark.usefixtures("own_cache")

CUES = {"neutral": "table", "happy": "great", "sad": "gone", "angry": "hate"}
LABELS = tuple(CUES)
QUICK = {
    "silver": configure("finetune", lr=3e-3, epochs=2, balance="none"),
    "finetune": configure("finetune", lr=3e-3, epochs=2, balance="none"),
    "mlp": configure("mlp", lr=1e-2, batch=16, epochs=10, normalisation="source", balance="none"),
    **{c: configure(c, hidden=16, heads=2, lr=3e-3, epochs=2, batch=4, balance="none")
       for c in ("context", "fusion", "joint")},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merits") / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "words", "oh", "well", *CUES.values()]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         initializer_range=0.3)).save_pretrained(folder)
    return folder


def lines(name: str, dialogues: int, seed: int = 0) -> Corpus:
    rng = np.random.default_rng(seed)
    rows = [(f"{name}{d}_{t}", f"{name}{d}", t, f"so {CUES[e]}", e)
            for d in range(dialogues) for t, e in enumerate(rng.permutation(LABELS))]
    return Corpus(name, pd.DataFrame(rows, columns=["utterance", "dialogue", "turn", "text", "emotion"]), space="four")


def tone(path: Path, label: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(RATE // 2) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.sign(np.sin(2 * np.pi * (120 + 60 * label) * t)) * (0.05 + 0.08 * label)
    save_audio(path, sound + 0.002 * rng.standard_normal(len(t)))


def spoken(name: str, dialogues: int, root: Path, seed: int = 0) -> Corpus:
    "As `lines`; every fifth row has no sound."
    made = lines(name, dialogues, seed)
    audio = []
    for i, (utterance, emotion) in enumerate(zip(made.table.utterance, made.table.emotion, strict=True)):
        audio.append("" if i % 5 == 4 else f"{utterance}.wav")
        if audio[-1]:
            tone(root / audio[-1], LABELS.index(emotion), i)
    return Corpus(name, made.table.assign(audio=audio), root, space="four")


def whole(tiny: Path, cache: Path, **more: Any) -> Merits:
    with settings(cache=cache):
        given = {"train": lines("train", 10), "dev": lines("dev", 5, 1), "labels": LABELS, "how": QUICK,
                 "text": TextEncoder.load(str(tiny), device="cpu"), "kept": Stages.open()}
    return Merits(**given | more)


# Stages


def test_the_way_up() -> None:
    assert below_of("fusion") == ["text_1", "text_2", "audio_1", "audio_2"] and below_of("audio_2") == ["audio_1"]
    assert not below_of("text_1") and set(STAGES) == {*below_of("fusion"), "fusion"}


@pytest.mark.parametrize("change", [
    {"text": ["so table", "so hate"]}, {"emotion": ["angry", "happy"]}, {"utterance": ["x", "b"]}, {"turn": [1, 2]},
    {"audio": ["a.wav", ""]},
])
def test_a_stage_is_named_by_all_that_decides_it(change: dict[str, list[Any]]) -> None:
    table = pd.DataFrame({"utterance": ["a", "b"], "dialogue": "d", "turn": [0, 1], "text": ["so table", "so great"],
                          "emotion": ["neutral", "happy"], "audio": ""})
    one, other = (Corpus("x", t, space="four") for t in (table, table.assign(**change)))
    assert stage_name("k", one, configure()) == stage_name("k", one, configure())
    assert stage_name("k", one, configure()) != stage_name("k", other, configure())
    assert stage_name("k", "a", "b") != stage_name("k", "ab") and stage_name("k", "1") != stage_name("k", 1)
    assert stage_name("k", np.zeros(2)) != stage_name("k", np.zeros(2, np.float32))


class Note:
    def __init__(self, text: str) -> None:
        self.text = text

    def save(self, folder: Path | str) -> Path:
        Path(folder).mkdir()
        (Path(folder) / "note").write_text(self.text)
        return Path(folder)


def read_note(place: Path) -> Note:
    if not (place / "note").exists():
        raise InputError("no note")
    return Note((place / "note").read_text())


def test_two_that_need_a_stage_at_once_make_it_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Note:
        made.append(1)
        time.sleep(0.3)
        return Note("hello")

    threads = [threading.Thread(target=lambda: Stages.open().keep("s", make, read_note)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert made == [1]


def test_a_stage_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    stages = Stages.open()
    (stages.folder / "s").mkdir(parents=True)
    assert stages.keep("s", lambda: Note("again"), read_note).text == "again"


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with settings(cache=tmp_path / "file"), pytest.raises(InputError, match="ZSEMO_CACHE"):
        Stages.open().keep("s", lambda: Note("x"), read_note)


# MERITS-L


def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    "What is trained from now on."
    seen: list[str] = []
    fit, conversation = module.fit, module.fit_conversation
    monkeypatch.setattr(module, "fit", lambda *a, **k: seen.append(a[4].classifier) or fit(*a, **k))
    monkeypatch.setattr(module, "fit_conversation", lambda *a, **k: seen.append(a[4].classifier) or conversation(*a, **k))
    return seen


def test_every_stage_is_trained_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = SpeechEncoder.load("cues", device="cpu")
    train, dev = spoken("train", 8, tmp_path), spoken("dev", 4, tmp_path, 1)
    made = whole(tiny, tmp_path, train=train, dev=dev, speech=speech, silver=(lines("a", 8), lines("b", 4)))
    seen = fitted(monkeypatch)
    fusion = made.stage("fusion")
    assert seen == ["finetune", "finetune", "context", "mlp", "context", "fusion"]
    assert np.isfinite(fusion.predict(dev)).all()
    silent = made.stage("audio_2").predict(dev)
    assert np.array_equal(np.isnan(silent[:, 0]), dev.table.audio.eq("").to_numpy())
    again = whole(tiny, tmp_path, train=train, dev=dev, speech=speech, silver=(lines("a", 8), lines("b", 4)))
    assert np.array_equal(again.stage("fusion").predict(dev), fusion.predict(dev)) and len(seen) == 6
    again.stage("fusion", "joint")
    assert seen[6:] == ["joint"]
    other = whole(tiny, tmp_path, train=train, dev=dev, speech=speech)  # without silver labels: text anew, speech as it was
    other.stage("fusion")
    assert seen[7:] == ["finetune", "context", "fusion"]


def test_pre_training_is_where_the_text_stage_starts(tiny: Path, tmp_path: Path) -> None:
    plain = whole(tiny, tmp_path)
    silver = whole(tiny, tmp_path, silver=(lines("a", 8), lines("b", 4)))
    assert plain.pretrained() is plain.text and silver.pretrained().fingerprint != plain.text.fingerprint
    frozen = QUICK | {"finetune": configure("finetune", lr=0.0, epochs=1, balance="none")}
    start = whole(tiny, tmp_path, silver=silver.silver, how=frozen)
    stage, before = start.stage("text_1"), start.pretrained()
    assert isinstance(stage, Model)
    for name, weight in before.model.state_dict().items():
        assert torch.equal(stage.encoder.model.state_dict()[name], weight), name  # type: ignore[union-attr]


def test_silver_labels_may_be_of_another_space(tiny: Path, tmp_path: Path) -> None:
    words = {"negative": "hate", "neutral": "table", "positive": "great"}
    rows = [(f"u{i}{e}", f"d{i}", t, w, e) for i in range(12) for t, (e, w) in enumerate(words.items())]
    table = pd.DataFrame(rows, columns=["utterance", "dialogue", "turn", "text", "emotion"])
    made = Corpus("sentiment", table, space="sentiment")
    assert whole(tiny, tmp_path, silver=(made, made)).stage("text_1").labels == LABELS


@pytest.mark.parametrize(("stage", "training", "says"), [
    ("text_3", "hierarchical", "no stage"), ("text_2", "joint", "joint for fusion only"), ("fusion", "magic", "no stage"),
    ("audio_1", "hierarchical", "needs speech"), ("fusion", "joint", "needs speech"),
])
def test_what_cannot_be_trained_is_one_line(stage: str, training: str, says: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        whole(tiny, tmp_path).stage(stage, training)


def test_a_corpus_without_sound_is_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speech that can be read"):
        whole(tiny, tmp_path, speech=SpeechEncoder.load("cues", device="cpu")).stage("audio_1")


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_merits as t
from zsemo_kit.training import merits
real = merits.fit
def slow(*a, **k):
    print("fit", flush=True)
    return real(*a, **k)
merits.fit = slow
real_conversation = merits.fit_conversation
def stuck(*a, **k):
    print("stuck", flush=True)
    if {stuck}: __import__("time").sleep(600)
    return real_conversation(*a, **k)
merits.fit_conversation = stuck
t.whole(Path({tiny!r}), Path({cache!r})).stage("text_2")
print("done", flush=True)
"""


def test_a_killed_run_goes_on_at_its_stage(tiny: Path, tmp_path: Path) -> None:
    def code(stuck: bool) -> list[str]:
        text = _KILLED.format(tests=str(Path(__file__).parent), tiny=str(tiny), cache=str(tmp_path), stuck=stuck)
        return [sys.executable, "-c", text]

    running = subprocess.Popen(code(True), stdout=subprocess.PIPE, text=True)
    told = running.stdout
    assert told and [told.readline().strip(), told.readline().strip()] == ["fit", "stuck"]
    running.send_signal(signal.SIGKILL)
    running.wait()
    again = subprocess.run(code(False), capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["stuck", "done"]  # stage I was found; stage II is what was made


# The run notebook, on corpora in the layout of their releases


def iemocap(root: Path) -> None:
    "Five sessions of four dialogues with eight turns; every class in every session; sounds beside the words."
    codes, labels = ["neu", "hap", "sad", "ang"], list(CUES)
    for session in range(1, 6):
        for d in range(4):
            name = f"Ses{session:02}F_impro{d + 1:02}"
            rows, said = "", ""
            for t in range(8):
                k, turn = (t + d) % 4, f"{name}_{'FM'[t % 2]}{t:03}"
                rows += f"[{t}.0 - {t + 1}.0]\t{turn}\t{codes[k]}\t[2.5, 2.5, 2.5]\n"
                said += f"{turn} [{t}.0-{t + 1}.0]: so {CUES[labels[k]]} words\n"
                tone(root / f"Session{session}/sentences/wav/{name}/{turn}.wav", k, t)
            for place, text in ((f"EmoEvaluation/{name}.txt", rows), (f"transcriptions/{name}.txt", said)):
                path = root / f"Session{session}/dialog" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)


def mosi(root: Path) -> None:
    "Two opinions in each of the ninety-three videos."
    from zsemo_kit.corpora.catalogue import corpus_facts
    mode = {"train": "train", "dev": "valid", "test": "test"}
    rows = [f"{v},{c},{word},{s},,,,,{mode[part]}" for part, ids in corpus_facts("cmu_mosi").parts.items() for v in ids
            for c, word, s in ((1, "hate", -0.4), (2, "great", 0.0))]
    root.mkdir(parents=True)
    head = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
    (root / "label.csv").write_text("\n".join([head, *rows]) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    root = tmp_path_factory.mktemp("project")
    for folder in ("runs/studies", "nbs/experiments"):
        shutil.copytree(project / folder, root / folder)
    iemocap(root / "corpora" / "iemocap")
    mosi(root / "corpora" / "cmu_mosi")
    return root


def run(place: Path, monkeypatch: pytest.MonkeyPatch, study: str, **values: object) -> dict[str, Any]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("ZSEMO_CORPORA", str(place / "corpora"))
    monkeypatch.setenv("ZSEMO_CACHE", str(place / "cache"))
    chosen = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    out = place / "out" / "-".join(map(str, values.values())).replace(os.sep, "_")
    with pytest.raises(SystemExit) as stopped:
        main(["run", study, *chosen, "--out", str(out), "--json"])
    assert stopped.value.code == 0, list((out / study).glob("*.failed/log.txt"))
    done = list((out / study).glob("*/metrics.json"))
    assert len(done) == 1
    return json.loads(done[0].read_text())


def test_iemocap_in_the_papers_parts(place: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Fusion with the earlier stages frozen, then the joint ablation, which finds stage I of speech."
    common = {"encoder": tiny, "features": "cues", "seed": 0, "silver": "none", "precision": "no", "lr": 3e-3, "epochs": 6}
    made = run(place, monkeypatch, "merits_l_iemocap", stage="fusion", training="hierarchical", **common)
    assert (made["system"], made["modality"], made["role"], made["space"]) == ("merits_l", "text and speech", "ceiling", "four")
    assert (made["n_train"], made["n_dev"], made["n_test"]) == (96, 32, 32) and made["transductive"] is False
    assert made["weighted_f1"] > 0.9  # the words give it away
    joint = run(place, monkeypatch, "merits_l_iemocap", stage="fusion", training="joint", **common)
    assert joint["n_test"] == 32 and joint["weighted_f1"] > 0.3


def test_mosi_has_two_classes(place: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(place, monkeypatch, "merits_l_mosi", stage="text_2", training="hierarchical", encoder=tiny, seed=0, silver="none",
               precision="no", lr=3e-3, epochs=6)
    assert made["space"] == "polarity" and set(made["recall"]) == {"negative", "positive"} and made["n_test"] == 62
    assert made["weighted_f1"] > 0.9


def test_what_was_written_is_spoken_for_a_stage_that_hears(place: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("parselmouth")
    from zsemo_kit.generation.corpus_by_name import open_corpus
    few = {}
    for card, part in (("meld_synthetic", "source"), ("msp_podcast_synthetic", "target")):
        corpus = open_corpus(card, "four", strategy="conversations", second_reading="none")
        first = corpus.table.dialogue.drop_duplicates().head(16 if part == "source" else 6)
        table = corpus.table[corpus.table.dialogue.isin(first)].drop(columns="history")
        few[part] = Corpus(f"few_{card}", table).save(place / f"few_{part}")
    made = run(place, monkeypatch, "merits_l", **few, space="four", stage="audio_2", training="hierarchical", silver="none",
               second_reading="none", encoder=tiny, seed=0, precision="no")
    assert made["role"] == "zero-shot" and 10 < made["n_test"] <= 120 and made["modality"] == "speech"
