"""Speech LLMs, tiny and real: the loss is of the answer, answers parse, only what was trained is kept, and it is kept once."""

import json
import math
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import RATE, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis.annotation import Annotator, extract_claims
from zsemo_kit.training import curriculum as module
from zsemo_kit.training import speechllm as speechllm_module
from zsemo_kit.training.checkpoints import Stages
from zsemo_kit.training.connectors import open_connector
from zsemo_kit.training.curriculum import Lessons, Phase, curriculum, fit_speechllm, train_phase
from zsemo_kit.training.recipes import configure
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.speech_prompts import Exchange, Sequencer, SpeechLLMConfig, collate_exchanges, prompt_text
from zsemo_kit.training.speechllm import (
    LLM, SpeechLLM, SpeechNet, add_lora, continue_answers, label_likelihoods, load_llm, tiny_llm, trained_numbers,
)
from zsemo_kit.training.text_encoder import quiet

pytest.importorskip("s3prl")

LABELS = ("angry", "sad")
TEXTS = ["Name the emotion, from the voice and from what is said. One of: angry, sad. Then say the pitch.",
         "angry: a woman speaks with high pitch.", "sad: a woman speaks with low pitch.", "Oh no.", "Oh yes.",
         "Write down what is said.", "Describe the pitch, the speed and the volume of the voice."]
LLAMA_2 = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
           "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
TINY = SpeechLLMConfig("qpmapper_small", queries=3, kind="EP", words=24)
HOW = configure("speechllm", lr=3e-3, batch=8, balance="none", seed=0)
ONE = [Phase("emotion", ("emotion",), replace(HOW, epochs=2))]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speech_llm")


@pytest.fixture(scope="session", autouse=True)
def own_cache(place: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSEMO_CACHE", str(place / "cache"))
        yield


def wave(hertz: float, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(0.2 * sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 6)) * (0.6 + 0.4 * np.sin(25 * t)))


def tones(folder: Path, n: int = 18, name: str = "tones") -> Corpus:
    "Low voices are sad, high ones angry; each its own length."
    rows = []
    for i in range(n):
        save_audio(folder / f"{i}.wav", wave((120, 230)[i % 2] + 2 * i, 0.4 + 0.02 * (i % 5)))
        rows.append({"utterance": f"u{i}", "audio": f"{i}.wav", "speaker": f"s{i // 4}", "gender": "female",
                     "dialogue": f"d{i // 4}", "text": ("Oh no.", "Oh yes.")[i % 2], "emotion": ("sad", "angry")[i % 2]})
    return Corpus(name, pd.DataFrame(rows), root=folder)


@pytest.fixture(scope="session")
def corpus(place: Path) -> Corpus:
    return tones(place / "wav")


def cut(corpus: Corpus, begin: int, end: int | None = None) -> Corpus:
    return replace(corpus, table=corpus.table.iloc[begin:end])


@pytest.fixture(scope="session")
def train(corpus: Corpus) -> Corpus:
    return cut(corpus, 0, 12)


@pytest.fixture(scope="session")
def dev(corpus: Corpus) -> Corpus:
    return cut(corpus, 12)


@pytest.fixture(scope="session")
def encoder(place: Path) -> SpeechEncoder:
    with settings(cache=place / "cache"):
        return SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")


@pytest.fixture(scope="session")
def annotator(train: Corpus) -> Annotator:
    return Annotator.fit(train)


def fresh(seed: int = 0, dropout: float = 0.1) -> LLM:
    return tiny_llm(TEXTS, width=16, heads=2, vocabulary=400, dropout=dropout, seed=seed)


def stored(folder: Path, template: str = "", seed: int = 0) -> Path:
    "A language model in a folder, as a user has it."
    llm = fresh(seed)
    llm.tokenizer.chat_template = template or None
    with quiet():
        llm.model.save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(place: Path) -> str:
    return str(stored(place / "base"))


@pytest.fixture(scope="session")
def chatty(place: Path) -> str:
    return str(stored(place / "chatty", LLAMA_2))


def weights(net: Any) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in net.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    "The same answers; likelihoods up to what float sums lose."
    numbers = ["confidence", *(c for c in one.columns.astype(str) if c.startswith("p_"))]
    return one.drop(columns=numbers).equals(other.drop(columns=numbers)) and np.allclose(
        one[numbers], other[numbers], atol=1e-4, equal_nan=True)


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(InputError) as e:
        call()
    text = str(e.value)
    assert "\n" not in text and len(text) < 700 and all(p in text for p in parts), text


def shaken(net: nn.Module, seed: int = 0) -> None:
    "LoRA begins at nothing: give it something to say."
    made = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        if "lora_" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=made)


# --- loss on the answer only

def batch(answers: list[list[int]], heads: list[int] | None = None, emphasis: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    heads = heads or [0] * len(answers)
    rows = [Exchange([1, 9], [20 + i, *range(30, 33 + 2 * i)], a, h) for i, (a, h) in enumerate(zip(answers, heads, strict=True))]
    n = len(rows)
    lengths = torch.tensor([40 - 9 * i for i in range(n)])
    sounds = {"frames": torch.randn(n, 40, 1, 12), "mask": torch.arange(40) < lengths[:, None]}
    return sounds | collate_exchanges(rows, 3, 0, emphasis)


@pytest.fixture
def net() -> SpeechNet:
    torch.manual_seed(0)
    made = fresh()
    for p in made.model.parameters():  # far from even chances
        p.data *= 2
    return SpeechNet(open_connector("qpmapper_small", 1, 12, 16, queries=3), made.model).eval()


def logits_alone(net: SpeechNet, made: dict[str, Tensor], i: int, tail: list[int]) -> Tensor:
    "Row i without any padding, through the language model's own head."
    real = made["attend"][i].bool()
    ids = torch.cat([made["ids"][i][real], torch.tensor(tail, dtype=torch.long)])[None]
    sound = torch.cat([made["sound"][i][real], torch.zeros(len(tail), dtype=torch.bool)])[None]
    frames = made["frames"][i : i + 1, made["mask"][i]]
    x = net.embedded(frames, made["mask"][i : i + 1, made["mask"][i]], ids, sound)
    return net.llm(inputs_embeds=x).logits[0].log_softmax(-1)


@pytest.mark.parametrize("emphasis", [1.0, 5.0])
def test_loss_against_a_direct_transcription(net: SpeechNet, emphasis: float) -> None:
    answers, heads = [[7, 8, 2], [11, 2], [7, 8, 12, 13, 2]], [2, 1, 2]
    made = batch(answers, heads, emphasis)
    total = mass = 0.0
    for i, (answer, head) in enumerate(zip(answers, heads, strict=True)):
        said = logits_alone(net, made, i, [])
        for k, token in enumerate(answer):
            w = emphasis if k < head else 1.0
            total -= w * said[len(said) - len(answer) + k - 1, token].item()
            mass += w
    assert net(**made).item() == pytest.approx(total / mass, rel=1e-5)


def test_labels_stand_at_the_answers_and_nowhere_else() -> None:
    answers = [[7, 8, 2], [11, 2]]
    made = batch(answers, [1, 1], 3.0)
    for i, answer in enumerate(answers):
        assert made["labels"][i].tolist() == [-100] * (made["ids"].shape[1] - len(answer)) + answer
        assert made["ids"][i, -len(answer) :].tolist() == answer and not made["sound"][i, -len(answer) :].any()
        assert made["weight"][i].tolist() == [0.0] * (made["ids"].shape[1] - len(answer)) + [3.0] + [1.0] * (len(answer) - 1)
    assert made["sound"].sum(1).tolist() == [3, 3] and (made["attend"].cumsum(1)[:, -1] == torch.tensor([12, 13])).all()


def test_changing_a_prompts_labels_changes_nothing_and_an_answers_does(net: SpeechNet) -> None:
    made = batch([[7, 8, 2], [11, 2]])
    loss, width = net(**made).item(), made["labels"].shape[1]
    for place in range(width - 3):
        labels = made["labels"].clone()
        labels[0, place] = 13
        assert net(**{**made, "labels": labels}).item() == pytest.approx(loss, rel=1e-6), place
    for place in range(width - 3, width):
        labels = made["labels"].clone()
        labels[0, place] = 13
        assert abs(net(**{**made, "labels": labels}).item() - loss) > 1e-4, place


def test_gradient_reaches_what_is_before_the_last_token_only(net: SpeechNet, monkeypatch: pytest.MonkeyPatch) -> None:
    made = batch([[7, 8, 2], [11, 2]])
    x = net.embedded(*(made[k] for k in ("frames", "mask", "ids", "sound"))).detach().requires_grad_(True)
    monkeypatch.setattr(net, "embedded", lambda *_: x)
    net(**made).backward()
    felt = x.grad.abs().sum(2) > 0  # type: ignore[union-attr]
    assert torch.equal(felt[:, :-1], made["attend"].bool()[:, :-1]) and not felt[:, -1].any()


def test_left_padding_changes_nothing(net: SpeechNet) -> None:
    made = batch([[7, 8, 2], [7, 8, 2]])
    gap = 5
    wide = dict(made)
    for name, fill in (("ids", 0), ("attend", 0), ("sound", False), ("labels", -100), ("weight", 0.0)):
        wide[name] = torch.cat([torch.full((2, gap), fill, dtype=made[name].dtype), made[name]], 1)
    junk = {**wide, "ids": torch.where(wide["attend"].bool(), wide["ids"], 17)}
    asked = [{k: v for k, v in collated_again(b).items()} for b in (made, wide, junk)]
    heads, tokenizer = [[7, 2], [9, 8, 2], [11]], fresh().tokenizer
    found = [label_likelihoods(net, b, heads) for b in asked]
    texts = [continue_answers(net, b, tokenizer, 2, 0, 8) for b in asked]
    for i, b in enumerate((wide, junk), 1):
        assert net(**b).item() == pytest.approx(net(**made).item(), rel=1e-5)
        assert np.allclose(found[0], found[i], atol=1e-4) and texts[i] == texts[0]
    for i in range(2):  # each alone
        one = {k: v[i : i + 1] for k, v in asked[0].items()}
        assert np.allclose(label_likelihoods(net, one, heads), found[0][i : i + 1], atol=1e-4)
        assert continue_answers(net, one, tokenizer, 2, 0, 8) == texts[0][i : i + 1]


def collated_again(made: dict[str, Tensor], answer: int = 3) -> dict[str, Tensor]:
    "A batch without its answers."
    return {k: v[:, :-answer] if k in ("ids", "attend", "sound", "labels", "weight") else v for k, v in made.items()}


@pytest.mark.parametrize("heads", [
    [[7], [8], [9]],
    [[7, 2], [7, 8, 2], [7, 8, 9, 2]],  # each the beginning of the next one
    [[7], [7, 8], [7, 8, 9]],
    [[11], [5, 6, 7, 8, 2]],
    [[7, 8, 2]],
])
def test_likelihoods_of_labels_against_a_loop(net: SpeechNet, heads: list[list[int]]) -> None:
    asked = batch([[], []])
    found = label_likelihoods(net, asked, heads)
    for i in range(2):
        for j, head in enumerate(heads):
            said = logits_alone(net, asked, i, head)
            byhand = sum(said[len(said) - len(head) + k - 1, token].item() for k, token in enumerate(head))
            assert found[i, j] == pytest.approx(byhand, abs=1e-4)


def test_greedy_text_against_a_loop(net: SpeechNet) -> None:
    asked, tokenizer = batch([[], []]), fresh().tokenizer
    texts = continue_answers(net, asked, tokenizer, 2, 0, 7)
    for i in range(2):
        ids: list[int] = []
        while len(ids) < 7 and 2 not in ids:
            ids.append(int(logits_alone(net, asked, i, ids)[-1].argmax()))
        assert texts[i] == tokenizer.decode(ids, skip_special_tokens=True).strip()
    kept = torch.random.get_rng_state()
    continue_answers(net, asked, tokenizer, 2, 0, 7)
    assert torch.equal(torch.random.get_rng_state(), kept)


# --- prompts and templates

def test_chat_template_is_respected(chatty: str) -> None:
    tokenizer = load_llm(chatty).tokenizer
    how = Sequencer(tokenizer, 3)
    before, after = how.around("Name the emotion.")
    assert tokenizer.decode(before) == "<s>[INST] " and before[0] == tokenizer.bos_token_id and before.count(before[0]) == 1
    assert tokenizer.decode(after) == "\nName the emotion. [/INST]"
    plain = Sequencer(fresh().tokenizer, 3).around("Name the emotion.")
    assert [tokenizer.decode(p) for p in plain] == ["<s>", "Name the emotion.\n"]


def test_chat_template_reaches_training_and_answers(
    chatty: str, encoder: SpeechEncoder, train: Corpus, annotator: Annotator
) -> None:
    model = SpeechLLM.make(LABELS, encoder, load_llm(chatty), TINY, annotator)
    lesson = Lessons(model, *model.prepared(annotator.annotate(train)), ("emotion",))
    made = lesson.data.batch(np.array([0, 1]))
    told = [model.llm.tokenizer.decode(r[s.logical_not() & a.bool()]) for r, s, a in
            zip(made["ids"], made["sound"], made["attend"], strict=True)]
    assert all(t.startswith("<s>[INST] \nName the emotion") and "[/INST]" in t and t.endswith(".</s>") for t in told)
    assert [t.split("[/INST]")[1].split(":")[0] for t in told] == ["sad", "angry"]
    assert model.answer(cut(train, 0, 2)).parsed.all()


def test_templates_that_cannot_be_used(chatty: str) -> None:
    tokenizer = load_llm(chatty).tokenizer
    tokenizer.chat_template = "{{ messages[0]['content'] }} {{ messages[0]['content'] }}"
    refused(lambda: Sequencer(tokenizer, 3).around("x"), "chat template")
    tokenizer.eos_token = None
    refused(lambda: Sequencer(tokenizer, 3).end, "end-of-sequence")


@pytest.mark.parametrize("template", ["{{ raise_exception('no user turns') }}", "{% if %}"])
def test_a_template_that_fails_is_one_line(chatty: str, template: str) -> None:
    tokenizer = load_llm(chatty).tokenizer
    tokenizer.chat_template = template
    refused(lambda: Sequencer(tokenizer, 3).around("x"), "chat")


def test_a_prompt_never_holds_its_answer(annotator: Annotator, train: Corpus) -> None:
    row = {str(k): v for k, v in annotator.annotate(cut(train, 0, 1)).table.iloc[0].items()}
    config = replace(TINY, kind="EGPSVT", reads=("transcript", "features"))
    texts = {task: prompt_text(task, row, config, LABELS) for task in ("asr", "caption", "emotion")}
    assert row["text"] not in texts["asr"] and row["text"] in texts["emotion"]
    assert "The voice" not in texts["caption"] and "The voice: a woman speaks with" in texts["emotion"]
    other = {**row, "emotion": "angry"}
    assert prompt_text("emotion", other, config, LABELS) == texts["emotion"]


# --- answers

@pytest.fixture(scope="session")
def plain(encoder: SpeechEncoder, base: str, annotator: Annotator) -> SpeechLLM:
    return SpeechLLM.make(LABELS, encoder, load_llm(base), TINY, annotator)


@pytest.mark.parametrize("kind", ["E", "EP", "EGPSVT"])
def test_constrained_answers_always_parse_and_free_ones_are_counted(
    kind: str, encoder: SpeechEncoder, base: str, annotator: Annotator, dev: Corpus
) -> None:
    labels = ("angry", "sad", "fear", "happy")
    model = SpeechLLM.make(labels, encoder, load_llm(base), replace(TINY, kind=kind), annotator)
    said = model.answer(dev)
    assert said.parsed.all() and set(said.guess) <= set(labels) and list(said.utterance) == list(dev.table.utterance)
    p = said[[f"p_{x}" for x in labels]].to_numpy()
    assert np.allclose(p.sum(1), 1, atol=1e-5) and np.allclose(said.confidence, p.max(1))
    assert [labels[i] for i in p.argmax(1)] == list(said.guess)
    assert all(a == g if kind == "E" else a.startswith(f"{g}:") for a, g in zip(said.answer, said.guess, strict=True))
    free = model.answer(dev, free=True)
    assert list(free.parsed) == [g != "" for g in free.guess] and list(free.confidence.isna()) == list(~free.parsed)
    assert [extract_claims(a).get("emotion", "") in (g, *(() if g else ("", *set(_OTHER) - set(labels)))) for a, g in
            zip(free.answer, free.guess, strict=True)] == [True] * len(free)
    assert np.allclose(free[[f"p_{x}" for x in labels]], p, atol=1e-6)
    assert np.allclose(model.predict(dev), p, atol=1e-6)
    assert not model.answer(dev, words=False).answer.str.contains(":").any()


_OTHER = ("neutral", "surprise", "disgust", "contempt", "frustrated", "excited", "other", "contradictory", "calm", "boredom")


def test_free_answers_that_name_a_label_are_read(plain: SpeechLLM, dev: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["sad: a woman speaks with low pitch.", "who knows", "happy: she laughs.", "", "angry", "not sad"]
    places = iter(said)
    monkeypatch.setattr(speechllm_module, "continue_answers", lambda net, asked, *_: [next(places) for _ in asked["ids"]])
    free = plain.answer(dev, free=True, size=1)
    order = dict(zip(free.answer, free.guess, strict=True))
    assert order == {said[0]: "sad", said[1]: "", said[2]: "", said[3]: "", said[4]: "angry", said[5]: ""}
    assert free.parsed.sum() == 2


def test_batches_change_nothing(plain: SpeechLLM, dev: Corpus) -> None:
    one, many = plain.answer(dev, size=1), plain.answer(dev, size=4)
    assert alike(one, many)


def test_an_unreadable_file_ends_nothing(plain: SpeechLLM, dev: Corpus, place: Path) -> None:
    folder = place / "broken"
    shutil.copytree(dev.root, folder)
    (folder / "13.wav").write_bytes(b"no sound")
    (folder / "15.wav").unlink()
    said = plain.answer(replace(dev, root=folder, name="broken"))
    assert list(said.utterance) == ["u12", "u14", "u16", "u17"] and said.parsed.all()
    told = dict(plain.problems.to_numpy())
    assert set(told) == {"u13", "u15"} and all(told.values()) and all("\n" not in t for t in told.values())
    p = plain.predict(replace(dev, root=folder, name="broken"))
    assert np.isnan(p).any(1).tolist() == [False, True, False, True, False, False]
    whole = plain.answer(dev)
    assert plain.problems.empty
    kept = whole[whole.utterance.isin(said.utterance)].reset_index(drop=True)
    assert alike(said, kept)
    nothing = plain.answer(replace(cut(dev, 1, 2), root=folder, name="broken"))
    assert nothing.empty and list(nothing.columns) == list(said.columns)


def test_an_unlabelled_corpus_is_answered(plain: SpeechLLM, dev: Corpus) -> None:
    bare = Corpus("bare", dev.table[["utterance", "audio"]].assign(emotion=""), root=dev.root)
    said = plain.answer(bare)
    assert said.parsed.all() and set(said.truth) == {""} and list(said.guess) == list(plain.answer(dev).guess)


@pytest.mark.parametrize("reads", [("features",), ("transcript",), ("transcript", "features")])
def test_prompts_carry_what_they_should(
    reads: tuple[str, ...], encoder: SpeechEncoder, base: str, annotator: Annotator, dev: Corpus
) -> None:
    model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, reads=reads, kind="E"), annotator)
    said = model.answer(dev)
    texts = model.answer(replace(dev, table=dev.table.assign(text="something else")))
    assert (said.p_sad.to_numpy() != texts.p_sad.to_numpy()).all() == ("transcript" in reads)
    marked = annotator.annotate(dev)
    assert alike(model.answer(marked), said)
    swapped = replace(marked, table=marked.table.assign(pitch="high", speed="low", volume="high"))
    assert (model.answer(swapped).p_sad.to_numpy() != said.p_sad.to_numpy()).any() == ("features" in reads)
    if "features" in reads:
        without = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, reads=reads))
        refused(lambda: without.answer(dev), "annotator")


def test_long_sound_is_cut(place: Path, base: str) -> None:
    encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu", "none")
    folder = place / "long"
    for name, rest in (("a", wave(300, 2.0)), ("b", wave(90, 4.0)), ("c", wave(90, 0.02))):
        save_audio(folder / f"{name}.wav", np.concatenate([wave(150, 0.5), rest]))
    rows = pd.DataFrame({"utterance": list("abc"), "audio": [f"{n}.wav" for n in "abc"], "emotion": "sad"})
    corpus = Corpus("long", rows, folder)
    model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, seconds=0.4, kind="E"))
    assert model.answer(corpus).p_sad.round(5).nunique() == 1
    longer = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, seconds=0.7, kind="E"))
    assert longer.answer(corpus).p_sad.nunique() == 3
    assert module.collate_sounds(encoder.frames(corpus), [0, 1, 2], model)["frames"].shape[1] == 40


def test_a_muted_answer_says_nothing_of_the_sound(plain: SpeechLLM, dev: Corpus, place: Path) -> None:
    folder = place / "mute"
    for i, hertz in enumerate((110, 250, 180)):
        save_audio(folder / f"{i}.wav", wave(hertz, 0.5))
    rows = pd.DataFrame({"utterance": list("abc"), "audio": [f"{i}.wav" for i in range(3)], "emotion": "sad"})
    even = Corpus("even", rows, folder)
    own = replace(plain, encoder=SpeechEncoder.load("fbank_no_cmvn", "cpu", "none"))
    assert own.answer(even, mute=True).p_sad.round(5).nunique() == 1 and own.answer(even).p_sad.nunique() == 3


def test_a_muted_answer_says_nothing_of_its_length(base: str, place: Path) -> None:
    "Sad speech is slow: how long a sound is must be taken away too."
    encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu", "none")
    for i, seconds in enumerate((0.3, 1.0, 3.0)):
        save_audio(place / "length" / f"{i}.wav", wave(150, seconds))
    rows = pd.DataFrame({"utterance": list("abc"), "audio": [f"{i}.wav" for i in range(3)], "emotion": "sad"})
    even = Corpus("length", rows, place / "length")
    for connector in ("qformer_small", "qpmapper_small"):
        model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, connector=connector, kind="E"))
        assert np.ptp(model.answer(even, mute=True).p_sad) < 1e-5
        silence = module.collate_sounds(encoder.frames(even), [0, 1, 2], model, mute=True)
        assert silence["frames"].shape[:2] == (3, round(2 * encoder.frame_rate)) and silence["mask"].all()
        assert silence["frames"].eq(model.net.connector.mean).all()
    short = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, seconds=0.5))
    silence = module.collate_sounds(encoder.frames(even), [2], short, mute=True)
    assert silence["frames"].shape[1] == round(0.5 * encoder.frame_rate)


# --- what is trained, and what is saved

def one_step(model: SpeechLLM, train: Corpus) -> nn.Module:
    net = module._freed(model).train()
    lesson = Lessons(model, *model.prepared(train), ("emotion",))
    net(**lesson.data.batch(np.arange(4))).backward()
    return net


@pytest.mark.parametrize("tune", ["none", "lora", "all"])
def test_gradients_go_where_tune_says(
    tune: str, encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus
) -> None:
    model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, tune=tune), annotator)
    shaken(model.net)
    net = one_step(model, annotator.annotate(train))
    got = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n.split(".")[0] for n in got} == {"connector"} | ({"llm"} if tune != "none" else set())
    connector = {n for n, _ in net.named_parameters() if n.startswith("connector.")}
    assert connector - got <= {"connector.sum.weights"}  # one layer only: nothing to weigh
    if tune == "lora":
        assert {n for n in got if n.startswith("llm.")} == {n for n, _ in net.named_parameters() if "lora_" in n}
        assert len([n for n in got if n.startswith("llm.")]) == 2 * 2 * 2
        assert trained_numbers(net.llm) == 2 * 2 * 2 * (16 + 16)  # type: ignore[arg-type]
    if tune == "none":
        assert all(p.grad is None for p in net.llm.parameters())  # type: ignore[union-attr]


def test_lora_that_fits_nothing(base: str) -> None:
    refused(lambda: add_lora(load_llm(base).model, replace(TINY, tune="lora", targets=("attention",))), "LoRA", "attention")


@pytest.fixture(scope="session")
def lora(
    encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus, dev: Corpus, place: Path
) -> tuple[SpeechLLM, Path]:
    "Trained for two epochs and saved."
    model = fit_speechllm(train, dev, LABELS, encoder, load_llm(base), replace(TINY, tune="lora"), ONE)
    return model, model.save(place / "lora_model")


def test_frozen_language_model_is_bit_identical(
    base: str, lora: tuple[SpeechLLM, Path], encoder: SpeechEncoder, train: Corpus, dev: Corpus
) -> None:
    before = weights(load_llm(base).model)
    llm = load_llm(base)
    assert same(weights(llm.model), before)
    model = fit_speechllm(train, dev, LABELS, encoder, llm, TINY, ONE)
    assert same(weights(model.net.llm), before)
    under = {k.replace("base_model.model.", "").replace(".base_layer", ""): v
             for k, v in weights(lora[0].net.llm).items() if "lora_" not in k}
    assert same(under, before)
    moved = [v for k, v in lora[0].net.llm.state_dict().items() if "lora_B" in k]
    assert moved and all(v.abs().max() > 0 for v in moved)


def test_saved_is_what_was_trained_and_no_base(lora: tuple[SpeechLLM, Path], base: str) -> None:
    model, folder = lora
    names = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    assert names == {"speechllm.json", "connector.safetensors", "lora.safetensors", "annotator.json", "history.csv"}
    keys = load_file(folder / "lora.safetensors")
    assert len(keys) == 8 and all("lora_" in k for k in keys)
    assert load_file(folder / "connector.safetensors").keys() == model.net.connector.state_dict().keys()
    assert (folder / "lora.safetensors").stat().st_size < 4 * trained_numbers_of_lora(model) + 2000
    assert not any("embed" in k or "lm_head" in k or "base_layer" in k for k in keys)


def trained_numbers_of_lora(model: SpeechLLM) -> int:
    return sum(p.numel() for n, p in model.net.llm.named_parameters() if "lora_" in n)


def test_saved_goes_back_onto_its_base(
    lora: tuple[SpeechLLM, Path], place: Path, base: str, dev: Corpus, encoder: SpeechEncoder
) -> None:
    model, folder = lora
    said = model.answer(dev)
    for more in ({}, {"llm": base}, {"encoder": encoder}, {"llm": load_llm(base)}):
        back = SpeechLLM.load(folder, device="cpu", **more)
        assert alike(back.answer(dev), said) and back.labels == LABELS and back.config == model.config
        assert back.annotator == model.annotator and trained_numbers(back.net) == 0
    moved = shutil.copytree(base, place / "moved")
    assert alike(SpeechLLM.load(folder, llm=str(moved), device="cpu").answer(dev), said)
    again = back.save(place / "again")
    assert same(load_file(again / "lora.safetensors"), load_file(folder / "lora.safetensors"))
    assert back.history is not None and model.history is not None
    assert np.allclose(back.history.loss, model.history.loss)


def test_whole_and_built_models_are_saved_whole(place: Path, encoder: SpeechEncoder, dev: Corpus, annotator: Annotator) -> None:
    for tune in ("none", "all"):
        model = SpeechLLM.make(LABELS, encoder, fresh(), replace(TINY, tune=tune), annotator)
        folder = model.save(place / f"own_{tune}")
        said = model.answer(dev)
        assert alike(SpeechLLM.load(folder, device="cpu").answer(dev), said)
        moved = folder.rename(place / f"own_{tune}_moved")
        assert alike(SpeechLLM.load(moved, device="cpu").answer(dev), said)


def test_a_built_model_stays_whole_when_it_is_saved_again(place: Path, encoder: SpeechEncoder, dev: Corpus) -> None:
    first = SpeechLLM.make(LABELS, encoder, fresh(), TINY).save(place / "built")
    second = SpeechLLM.load(first, encoder=encoder).save(place / "built_again")
    said = SpeechLLM.load(first, encoder=encoder).answer(dev)
    shutil.rmtree(first)
    assert alike(SpeechLLM.load(second, encoder=encoder).answer(dev), said)


def test_lora_on_a_model_without_a_folder_is_refused_before_it_is_trained(
    place: Path, encoder: SpeechEncoder, train: Corpus, dev: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "optimise", never)
    config = replace(TINY, tune="lora")
    refused(lambda: SpeechLLM.make(LABELS, encoder, fresh(), config), "LoRA", "load_llm")
    for llm in (fresh(), None):
        for kept in (Stages(place / "refused"), None):
            refused(lambda llm=llm, kept=kept: fit_speechllm(  # type: ignore[misc]
                train, dev, LABELS, encoder, llm, config, ONE, kept=kept), "LoRA", "load_llm")
    assert not (place / "refused").exists()


def never(*_: object, **__: object) -> None:
    raise AssertionError("it is trained again")


# --- what does not fit

def damaged(folder: Path, place: Path, name: str) -> Path:
    target = place / f"damaged_{name}"
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(folder, target)


def test_wrong_bases_and_encoders(lora: tuple[SpeechLLM, Path], place: Path, encoder: SpeechEncoder, base: str) -> None:
    folder, load = lora[1], lambda **more: SpeechLLM.load(lora[1], device="cpu", **{"encoder": encoder, **more})
    refused(lambda: load(llm=str(stored(place / "other", seed=5))), "not the one", "other")
    refused(lambda: load(llm=fresh(3)), "not the one")
    refused(lambda: load(llm="./nowhere"), "nowhere")
    mel = SpeechEncoder.load("mfcc", "cpu", "trim")
    refused(lambda: load(encoder=mel), "mfcc", "not the one")
    refused(lambda: load(encoder=SpeechEncoder.load("fbank_no_cmvn", "cpu", "none")), "trim")
    gone = damaged(folder, place, "gone")
    told = json.loads((gone / "speechllm.json").read_text())
    (gone / "speechllm.json").write_text(json.dumps({**told, "llm": str(place / "gone_llm")}))
    refused(lambda: SpeechLLM.load(gone, encoder=encoder), "gone_llm")
    (gone / "speechllm.json").write_text(json.dumps({**told, "encoder": "wavlm_gone"}))
    refused(lambda: SpeechLLM.load(gone, device="cpu"), "wavlm_gone")


def test_a_base_without_a_tokenizer_or_weights(place: Path, base: str) -> None:
    bare = shutil.copytree(base, place / "bare")
    for f in bare.glob("tokenizer*"):
        f.unlink()
    refused(lambda: load_llm(str(bare)), "bare", "tokenizer")
    cutoff = shutil.copytree(base, place / "cutoff")
    data = (cutoff / "model.safetensors").read_bytes()
    (cutoff / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(lambda: load_llm(str(cutoff)), "cutoff")
    (cutoff / "model.safetensors").unlink()
    refused(lambda: load_llm(str(cutoff)), "safetensors")
    deaf = shutil.copytree(base, place / "deaf")
    (deaf / "config.json").write_text("{")
    refused(lambda: load_llm(str(deaf)), "deaf")


def test_a_base_that_is_no_causal_model(place: Path) -> None:
    folder = place / "wavlm_as_llm"
    speech(folder)
    refused(lambda: load_llm(str(folder)), "wavlm_as_llm")


@pytest.mark.parametrize("file", ["speechllm.json", "connector.safetensors", "lora.safetensors", "annotator.json", "history.csv"])
@pytest.mark.parametrize("how", ["half", "junk", "gone"])
def test_damaged_checkpoints(
    file: str, how: str, lora: tuple[SpeechLLM, Path], place: Path, encoder: SpeechEncoder, base: str
) -> None:
    folder = damaged(lora[1], place, f"{file}_{how}")
    data = (folder / file).read_bytes()
    if how == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes({"half": data[: len(data) // 2], "junk": b"\xff\x00\x80junk" * 9}[how])
    if (file, how) in (("annotator.json", "gone"), ("history.csv", "gone"), ("history.csv", "half")):
        SpeechLLM.load(folder, encoder=encoder)  # a table of the training's course is no part of the model
    else:
        refused(lambda: SpeechLLM.load(folder, encoder=encoder), str(folder))


@pytest.mark.parametrize("key", [
    "config", "encoder", "fingerprint", "mark",
    "labels",
    "own_terms",
    "llm",
])
def test_manifests_that_say_odd_things(key: str, lora: tuple[SpeechLLM, Path], place: Path, encoder: SpeechEncoder) -> None:
    folder = damaged(lora[1], place, "manifest")
    told = json.loads((folder / "speechllm.json").read_text())
    odd: tuple[object, ...] = (None, 7, [], {"x": 1})
    for changed in ({k: v for k, v in told.items() if k != key}, *({**told, key: v} for v in odd)):
        (folder / "speechllm.json").write_text(json.dumps(changed))
        try:
            SpeechLLM.load(folder, encoder=encoder)
        except InputError as e:
            assert "\n" not in str(e)
        else:
            assert key == "encoder"  # it was given: its name is not needed


def test_weights_that_do_not_fit(lora: tuple[SpeechLLM, Path], place: Path, encoder: SpeechEncoder) -> None:
    folder = damaged(lora[1], place, "shapes")
    for file in ("connector", "lora"):
        whole = load_file(folder / f"{file}.safetensors")
        key = next(k for k, v in whole.items() if v.dim() == 2)
        for changed in ({**whole, key: torch.zeros(3, 5)}, {**whole, "more.lora_A.weight": torch.zeros(2)}):
            save_file(changed, folder / f"{file}.safetensors")
            refused(lambda: SpeechLLM.load(folder, encoder=encoder), "does not fit")
        save_file(whole, folder / f"{file}.safetensors")
    whole = load_file(folder / "connector.safetensors")
    save_file({k: v for k, v in whole.items() if k != "queries"}, folder / "connector.safetensors")
    refused(lambda: SpeechLLM.load(folder, encoder=encoder), "does not fit", "queries")


@pytest.mark.parametrize("keep", [0, 5])
def test_lora_that_lacks_weights_is_refused(keep: int, lora: tuple[SpeechLLM, Path], place: Path, encoder: SpeechEncoder) -> None:
    folder = damaged(lora[1], place, f"partial_{keep}")
    whole = load_file(folder / "lora.safetensors")
    save_file(dict(list(whole.items())[:keep]), folder / "lora.safetensors")
    refused(lambda: SpeechLLM.load(folder, encoder=encoder), "does not fit")


def test_a_model_that_holds_its_own_language_model_takes_no_other(place: Path, encoder: SpeechEncoder, base: str) -> None:
    stranger = str(stored(place / "stranger", seed=9))
    for name, llm, tune in (("trained", load_llm(base), "all"), ("built", fresh(), "none")):
        folder = SpeechLLM.make(LABELS, encoder, llm, replace(TINY, tune=tune)).save(place / f"whole_{name}")
        for other in (stranger, base, load_llm(base), fresh()):
            refused(lambda other=other, folder=folder: SpeechLLM.load(folder, encoder=encoder, llm=other), "of its own")  # type: ignore[misc]
        assert SpeechLLM.load(folder, encoder=encoder).config.tune == tune


def test_an_encoder_without_frames(base: str, place: Path) -> None:
    pytest.importorskip("opensmile")
    measured = SpeechEncoder.load("egemaps", "cpu")
    refused(lambda: SpeechLLM.make(LABELS, measured, load_llm(base), TINY), "egemaps", "frames")


def test_folders_that_are_none(place: Path, encoder: SpeechEncoder, plain: SpeechLLM) -> None:
    refused(lambda: SpeechLLM.load(place / "not_there"), "not_there")
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")
    refused(lambda: plain.save(place / "full"), "will not write over")
    assert (place / "full" / "mine.txt").read_text() == "mine"


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def test_no_pickle_is_ever_loaded(lora: tuple[SpeechLLM, Path], place: Path, base: str, encoder: SpeechEncoder, dev: Corpus,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    said = lora[0].answer(dev)
    monkeypatch.setenv("BOMB", str(place / "exploded"))
    mined, llm = damaged(lora[1], place, "mined"), shutil.copytree(base, place / "mined_llm")
    names = ("pytorch_model.bin", "adapter_model.bin", "connector.bin", "lora.bin", "model.pt", "optimizer.pt", "history.pkl")
    for folder in (mined, llm):
        for name in names:
            (folder / name).write_bytes(pickle.dumps(_Bomb()))
            torch.save({"x": _Bomb()}, folder / f"zip_{name}")
    assert alike(SpeechLLM.load(mined, encoder=encoder, llm=str(llm)).answer(dev), said)
    (llm / "model.safetensors").unlink()
    refused(lambda: load_llm(str(llm)), "safetensors")
    (mined / "connector.safetensors").write_bytes(pickle.dumps(_Bomb()))
    refused(lambda: SpeechLLM.load(mined, encoder=encoder), "cannot read")
    assert not (place / "exploded").exists()


# --- training

def counted(encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    "Sounds of each pass through the encoder's network from now on."
    passes: list[int] = []
    real = encoder.net.call  # type: ignore[union-attr]
    monkeypatch.setitem(encoder.net.__dict__, "call", lambda m, s: passes.append(len(s)) or real(m, s))  # type: ignore[func-returns-value]
    return passes


def test_the_encoder_runs_once(tmp_path: Path, train: Corpus, dev: Corpus, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path))
    encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")
    assert encoder.frame_rate and encoder.together is not None
    passes = counted(encoder, monkeypatch)
    at_epoch: list[int] = []
    real = module._Teaching.scores
    monkeypatch.setattr(module._Teaching, "scores", lambda job, model: at_epoch.append(sum(passes)) or real(job, model))  # type: ignore[func-returns-value]
    three = [Phase("emotion", ("emotion",), replace(HOW, epochs=3))]
    model = fit_speechllm(train, dev, LABELS, encoder, load_llm(base), TINY, three)
    assert sum(passes) == len(train) + len(dev) and at_epoch == [len(train) + len(dev)] * 3
    fit_speechllm(train, dev, LABELS, encoder, load_llm(base), replace(TINY, connector="qformer_small"), ONE)
    model.answer(dev)
    other = SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")
    assert other.frame_rate
    more = counted(other, monkeypatch)
    fit_speechllm(train, dev, LABELS, other, load_llm(base), TINY, ONE)
    assert sum(passes) == len(train) + len(dev) and not more


def fitted(encoder: SpeechEncoder, llm: LLM, train: Corpus, dev: Corpus, config: SpeechLLMConfig, phases: list[Phase],
           folder: Path | None = None) -> SpeechLLM:
    kept = Stages(folder) if folder else None
    return fit_speechllm(train, dev, LABELS, encoder, llm, config, phases, kept=kept)


@pytest.mark.parametrize("tune", ["none", "lora", "all"])
def test_same_seed_same_model_and_the_callers_random_state_is_left(
    tune: str, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    config, made = replace(TINY, tune=tune), []
    for before in (1, 2):
        torch.manual_seed(before)
        np.random.seed(before)
        random.seed(before)
        kept = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        made.append(fitted(encoder, load_llm(base), train, dev, config, ONE))
        assert torch.equal(torch.random.get_rng_state(), kept[0])
        assert np.random.get_state()[1].tolist() == kept[1] and random.getstate() == kept[2]  # type: ignore[index]
    assert same(weights(made[0].net), weights(made[1].net)) and alike(made[0].answer(dev), made[1].answer(dev))
    other = fitted(encoder, load_llm(base), train, dev, config, [Phase("emotion", ("emotion",), replace(HOW, epochs=2, seed=1))])
    assert not same(weights(made[0].net), weights(other.net))


@pytest.mark.parametrize("tune", [
    "none",
    "lora",
    "all",
])
def test_two_trainings_on_one_language_model_object_know_nothing_of_each_other(
    tune: str, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    llm, config = load_llm(base), replace(TINY, tune=tune)
    other = [Phase("emotion", ("emotion",), replace(HOW, epochs=2, seed=1))]
    first = fitted(encoder, llm, train, dev, config, ONE)
    said = first.answer(dev)
    second = fitted(encoder, llm, train, dev, config, other)
    assert alike(first.answer(dev), said)
    assert alike(second.answer(dev), fitted(encoder, load_llm(base), train, dev, config, other).answer(dev))


SEMO = curriculum("semollm", HOW, [1, 1, 2])


@pytest.mark.parametrize("tune", ["none", "lora", "all"])
def test_kept_phases_are_not_taught_again_and_go_on_where_they_were_cut_off(
    tune: str, tmp_path: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, connector="qformer_small", tune=tune)
    whole = fitted(encoder, load_llm(base), train, dev, config, SEMO, tmp_path / "whole")
    assert whole.history is not None and list(whole.history.phase) == ["align", "describe", "emotion", "emotion"]
    real, calls = module.optimise, []

    def cut_off(net: nn.Module, job: Any, checkpoint: Any) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(net, job, checkpoint)

    monkeypatch.setattr(module, "optimise", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fitted(encoder, load_llm(base), train, dev, config, SEMO, tmp_path / "cut")
    rest = fitted(encoder, load_llm(base), train, dev, config, SEMO, tmp_path / "cut")
    assert len(calls) == 4  # one, the one cut off, and the two that were left
    assert same(weights(rest.net), weights(whole.net)) and alike(rest.answer(dev), whole.answer(dev))
    monkeypatch.setattr(module, "optimise", never)
    for folder in ("whole", "cut"):
        again = fitted(encoder, load_llm(base), train, dev, config, SEMO, tmp_path / folder)
        assert same(weights(again.net), weights(whole.net))
    with pytest.raises(AssertionError, match="trained again"):
        fitted(encoder, load_llm(base), train, dev, replace(config, emphasis=2.0), SEMO, tmp_path / "whole")


def test_kept_or_not_gives_the_same(tmp_path: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus) -> None:
    config = replace(TINY, connector="qformer_small", tune="lora")
    kept, free = (fitted(encoder, load_llm(base), train, dev, config, SEMO, folder) for folder in (tmp_path / "kept", None))
    assert same(weights(kept.net), weights(free.net)) and alike(kept.answer(dev), free.answer(dev))


def test_a_built_language_model_goes_through_kept_phases_and_stands_alone(
    tmp_path: Path, encoder: SpeechEncoder, train: Corpus, dev: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = curriculum("emosllm", HOW, [1, 1])
    made = fitted(encoder, fresh(), train, dev, TINY, two, tmp_path / "stages")
    said = made.answer(dev)
    folder = made.save(tmp_path / "mine")
    monkeypatch.setattr(module, "optimise", never)
    assert alike(fitted(encoder, fresh(), train, dev, TINY, two, tmp_path / "stages").answer(dev), said)
    shutil.rmtree(tmp_path / "stages")  # a cache may be emptied
    assert alike(SpeechLLM.load(folder, encoder=encoder).answer(dev), said)


def test_phases_are_of_their_sounds(
    tmp_path: Path, place: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    "The same table over other sounds, as when a corpus is spoken again: nothing of the first is taken for the second."
    for f in train.root.iterdir():
        (tmp_path / "wav").mkdir(exist_ok=True)
        samples = np.asarray(module_audio(f))
        save_audio(tmp_path / "wav" / f.name, 0.5 * samples)
    softer = [replace(c, root=tmp_path / "wav") for c in (train, dev)]
    other = SpeechEncoder.load("fbank_no_cmvn", "cpu", "none")
    first = fitted(other, load_llm(base), train, dev, TINY, ONE, tmp_path / "stages")
    second = fitted(other, load_llm(base), softer[0], softer[1], TINY, ONE, tmp_path / "stages")
    assert not torch.equal(first.net.connector.mean, second.net.connector.mean)


def module_audio(file: Path) -> np.ndarray:
    import soundfile

    return np.asarray(soundfile.read(file)[0])


def test_first_phases_that_differ_in_their_start_are_not_shared(
    tmp_path: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    "The connector begins with the last phase's seed."
    def two(seed: int) -> list[Phase]:
        return [Phase("listen", ("asr",), replace(HOW, epochs=1, select="loss")),
                Phase("emotion", ("emotion",), replace(HOW, epochs=1, seed=seed))]

    fitted(encoder, load_llm(base), train, dev, TINY, two(0), tmp_path / "stages")
    shared = fitted(encoder, load_llm(base), train, dev, TINY, two(1), tmp_path / "stages")
    alone = fitted(encoder, load_llm(base), train, dev, TINY, two(1), tmp_path / "alone")
    assert same(weights(shared.net), weights(alone.net))


def test_only_the_cache_of_the_block_is_written_to(
    tmp_path: Path, base: str, train: Corpus, dev: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "default"))
    with settings(cache=tmp_path / "own"):
        encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")
        made = fitted(encoder, load_llm(base), train, dev, replace(TINY, reads=("features",)), ONE)
        made.answer(dev)
        SpeechLLM.load(made.save(tmp_path / "model"), device="cpu").answer(dev)
    assert (tmp_path / "own").exists() and not (tmp_path / "default").exists()


def test_alignment_changes_the_connector_only(
    encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus, dev: Corpus
) -> None:
    marked = annotator.annotate(train), annotator.annotate(dev)
    model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, connector="qformer_small", tune="lora"), annotator)
    before, llm = weights(model.net.connector), weights(model.net.llm)
    after = train_phase(model, *marked, Phase("align", ("align",), replace(HOW, epochs=2, select="loss")))
    assert same(weights(after.net.llm), llm) and set(weights(after.net.connector)) == set(before)
    moved = {k for k, v in after.net.connector.state_dict().items() if not torch.equal(v, before[k])}
    assert "queries" in moved and not any(k.startswith("out.") for k in moved)
    assert after.history is not None and np.isfinite(after.history[["loss", "dev_loss"]].to_numpy()).all()
    mapper = SpeechLLM.make(LABELS, encoder, load_llm(base), TINY, annotator)
    refused(lambda: train_phase(mapper, *marked, Phase("align", ("align",), replace(HOW, epochs=1))), "Q-Former")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tune", ["none", "lora", "all"])
def test_bf16_and_checkpointing(
    tune: str, checkpointing: bool, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    config = replace(TINY, connector="qformer_small", tune=tune, checkpointing=checkpointing)
    how = replace(HOW, epochs=1, precision="bf16", select="loss")
    phases = [Phase("align", ("align",), how), Phase("both", ("asr", "emotion"), replace(how, select="uar"))]
    made = fitted(encoder, load_llm(base), train, dev, config, phases)
    assert made.history is not None and np.isfinite(made.history[["loss", "dev_loss"]].to_numpy()).all()
    assert made.answer(dev).parsed.all()
    assert all(p.dtype == torch.float32 for p in made.net.connector.parameters())


@pytest.mark.parametrize("tune", ["none", "lora", "all"])
def test_checkpointing_gives_the_same_gradients(
    tune: str, encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus
) -> None:
    marked, found = annotator.annotate(train), []
    for checkpointing in (False, True):
        llm = load_llm(base)
        llm.model.config.attention_dropout = 0.0
        for layer in llm.model.model.layers:
            layer.self_attn.attention_dropout = 0.0
        config = replace(TINY, tune=tune, checkpointing=checkpointing, lora_dropout=0.0)
        model = SpeechLLM.make(LABELS, encoder, llm, config, annotator)
        shaken(model.net)
        torch.manual_seed(0)
        net = one_step(model, marked)
        found.append({n.removeprefix("llm."): p.grad.clone() for n, p in net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    assert all(torch.allclose(g, found[1][n], atol=1e-5) for n, g in found[0].items())


def test_a_language_model_in_bf16(encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus, tmp_path: Path) -> None:
    llm = load_llm(base, torch.bfloat16)
    half = Phase("emotion", ("emotion",), replace(HOW, epochs=1, precision="bf16"))
    made = fitted(encoder, llm, train, dev, replace(TINY, tune="lora"), [half])
    said = made.answer(dev)
    assert said.parsed.all() and np.isfinite(said.confidence).all()
    back = SpeechLLM.load(made.save(tmp_path / "half"), encoder=encoder, llm=load_llm(base, torch.bfloat16))
    assert alike(back.answer(dev), said)


def test_learns(encoder: SpeechEncoder, train: Corpus, dev: Corpus) -> None:
    config = replace(TINY, standardise=True, tune="all", kind="E")
    made = fitted(encoder, fresh(dropout=0.0), train, dev, config, [Phase("emotion", ("emotion",), replace(HOW, epochs=15))])
    said = made.answer(dev)
    assert (said.guess == said.truth).mean() == 1.0 and made.answer(dev, free=True).parsed.all()


def test_answers_longer_than_allowed_are_cut(encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus) -> None:
    for words in (2, 3, 4):
        model = SpeechLLM.make(LABELS, encoder, load_llm(base), replace(TINY, words=words), annotator)
        lesson = Lessons(model, *model.prepared(annotator.annotate(train)), ("emotion", "caption", "asr"))
        made = lesson.data.batch(np.arange(len(lesson.data)))
        assert ((made["labels"] != -100).sum(1) <= words).all() and (made["weight"] > 0).eq(made["labels"] != -100).all()
    how = Sequencer(fresh().tokenizer, 3)
    assert len(how.answer("frustrated:", " a man speaks.", 2)) == 2


def test_a_very_short_sound_alone_in_a_batch_can_be_learnt_from(
    tmp_path: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    shutil.copytree(train.root, tmp_path / "wav")
    save_audio(tmp_path / "wav" / "0.wav", wave(120, 0.06))
    short = replace(train, root=tmp_path / "wav")
    own = SpeechEncoder.load("fbank_no_cmvn", "cpu", "none")
    made = fitted(own, load_llm(base), short, dev, TINY, [Phase("emotion", ("emotion",), replace(HOW, epochs=1, batch=1))])
    assert made.history is not None and np.isfinite(made.history.loss).all()


def test_training_goes_on_without_a_bad_file(
    tmp_path: Path, encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus
) -> None:
    shutil.copytree(train.root, tmp_path / "wav")
    (tmp_path / "wav" / "3.wav").write_bytes(b"none")
    (tmp_path / "wav" / "14.wav").unlink()
    made = fitted(encoder, load_llm(base), replace(train, root=tmp_path / "wav"), replace(dev, root=tmp_path / "wav"), TINY, ONE)
    assert made.history is not None and np.isfinite(made.history.loss).all()
    (tmp_path / "none").mkdir()
    refused(lambda: fitted(encoder, load_llm(base), replace(train, root=tmp_path / "none"), dev, TINY, ONE))


def test_what_cannot_be_trained(encoder: SpeechEncoder, base: str, train: Corpus, dev: Corpus) -> None:
    llm = load_llm(base)
    refused(lambda: fit_speechllm(train, dev, ("angry", "happy"), encoder, llm, TINY, ONE), "sad")
    refused(lambda: fit_speechllm(cut(train, 0, 0), dev, LABELS, encoder, llm, TINY, ONE), "empty")
    refused(lambda: Phase("x", (), HOW), "none")
    refused(lambda: curriculum("semollm", HOW, [1, 1, 0]), "last above 0")
    refused(lambda: fit_speechllm(train, dev, LABELS, encoder, llm, replace(TINY, layer=7), ONE), "layer")


def test_rare_emotions_are_drawn_as_often(encoder: SpeechEncoder, base: str, annotator: Annotator, train: Corpus) -> None:
    few = replace(train, table=train.table.iloc[[0, 1, 3, 5, 7, 9, 11]])
    model = SpeechLLM.make(LABELS, encoder, load_llm(base), TINY, annotator)
    lesson = Lessons(model, *model.prepared(annotator.annotate(few)), ("asr", "emotion"))
    chances = module._chances(lesson, Phase("both", ("asr", "emotion"), replace(HOW, balance="sampling")))
    assert chances is not None and chances.shape == (14,) and chances.sum() == pytest.approx(1)
    assert chances[[0, 7]].sum() == pytest.approx(0.5)
    assert module._chances(lesson, Phase("both", ("asr",), replace(HOW, balance="sampling"))) is None


# --- WavLM, tiny

def speech(folder: Path) -> Path:
    torch.manual_seed(0)
    with quiet():
        WavLMModel(WavLMConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
                               conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
                               feat_extract_norm="layer",
                               do_stable_layer_norm=True)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wavlm(place: Path) -> SpeechEncoder:
    with settings(cache=place / "cache"):
        return SpeechEncoder.load(str(speech(place / "wavlm")), "cpu")


@pytest.mark.parametrize("layer", ["all", "mean", 2])
@pytest.mark.parametrize("connector", ["qformer_small", "qpmapper_small"])
def test_wavlm_with_its_layers(
    layer: str | int, connector: str, wavlm: SpeechEncoder, base: str, train: Corpus, dev: Corpus, tmp_path: Path
) -> None:
    config = replace(TINY, connector=connector, layer=layer, kind="E")
    made = fitted(wavlm, load_llm(base), train, dev, config, ONE)
    own = made.net.connector
    assert own.layers == (4 if layer == "all" else 1) and own.width == 24 and own.mean.shape == (own.layers, 24)
    assert (own.sum.weights.std() > 0).item() == (layer == "all") if own.layers > 1 else True
    said = made.answer(dev)
    back = SpeechLLM.load(made.save(tmp_path / "wavlm_model"), device="cpu")
    assert said.parsed.all() and alike(back.answer(dev), said)


def test_wavlm_weights_are_not_touched_and_run_once(wavlm: SpeechEncoder, base: str, train: Corpus, dev: Corpus,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    assert wavlm.net is not None and wavlm.frame_rate == pytest.approx(50, abs=1)
    before = weights(wavlm.net.module)
    wavlm.frames(train, "all")
    wavlm.frames(dev, "all")
    passes = counted(wavlm, monkeypatch)
    fitted(wavlm, load_llm(base), train, dev, replace(TINY, kind="E", tune="lora"), ONE)
    assert not passes and same(weights(wavlm.net.module), before) and not math.isnan(wavlm.frame_rate)


# --- two processes

def rows_of(folder: Path) -> Corpus:
    "What `tones` makes, read by another process."
    return Corpus("tones", pd.read_csv(folder / "tones.csv"), root=folder / "wav")


def one_of_two(folder: Path) -> None:
    "What each process does: all phases, not kept and kept; weights and history go to the folder."
    torch.set_num_threads(1)
    with settings(cache=folder / "cache"):
        corpus, encoder = rows_of(folder), SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")
    config, rank = replace(TINY, connector="qformer_small", tune="lora"), os.environ["RANK"]
    phases = curriculum("semollm", replace(HOW, batch=4), [1, 1, 2])
    for name, stages in (("free", None), ("kept", folder / "stages")):
        made = fitted(encoder, load_llm(str(folder / "base")), cut(corpus, 0, 12), cut(corpus, 12), config, phases, stages)
        save_file({k: v.contiguous() for k, v in weights(made.net).items()}, folder / f"{name}_{rank}.safetensors")
        assert made.history is not None
        made.history.to_csv(folder / f"{name}_{rank}.csv", index=False)


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder that two processes have trained in, once for all tests."
    folder = tmp_path_factory.mktemp("two")
    told = ["utterance", "audio", "speaker", "gender", "dialogue", "text", "emotion"]
    tones(folder / "wav").table[told].to_csv(folder / "tones.csv", index=False)
    stored(folder / "base")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__, str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ZSEMO_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(call, env=env, timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:6000]
    return folder


_STATISTICS = ("running_mean", "running_var")


def ranks(both: Path, name: str) -> list[dict[str, Tensor]]:
    return [load_file(both / f"{name}_{rank}.safetensors") for rank in (0, 1)]


def test_two_processes_end_with_the_same_weights_and_course(both: Path) -> None:
    assert not (both / "stages").exists()  # nothing is kept where processes would wait for each other's lock
    first = ranks(both, "free")[0]
    for name in ("free", "kept"):
        one, other = ({k: v for k, v in r.items() if not k.endswith(_STATISTICS)} for r in ranks(both, name))
        assert same(one, other) and all(torch.allclose(v.float(), first[k].float(), atol=1e-5) for k, v in one.items())
        told, again = (pd.read_csv(both / f"{name}_{rank}.csv").drop(columns=["loss", "seconds"]) for rank in (0, 1))
        pd.testing.assert_frame_equal(told, again)
        assert list(told.phase) == ["align", "describe", "emotion", "emotion"]
        assert told.groupby("phase", sort=False).kept.sum().tolist() == [1, 1, 1]
    assert any("lora_B" in k and v.abs().max() > 0 for k, v in first.items())


def test_two_processes_have_the_same_statistics(both: Path) -> None:
    assert same(*ranks(both, "free"))


def test_two_processes_tell_the_same_loss(both: Path) -> None:
    one, other = (pd.read_csv(both / f"free_{rank}.csv").loss for rank in (0, 1))
    assert np.allclose(one, other)


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
