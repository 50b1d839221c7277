"""Stages II and III: each stands on frozen ones, reads dialogues of any shape, and comes back from disk as it was."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.recorded_cues import CUES
from zsemo_kit.corpora.table import Corpus, concat
from zsemo_kit.training import conversation as module
from zsemo_kit.training import loop
from zsemo_kit.training.classifier import Model, fit, predictions
from zsemo_kit.training.conversation import Conversation, dialogues_of, fit_conversation
from zsemo_kit.training.heads import MLPHead
from zsemo_kit.training.recipes import Recipe, configure
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.text_encoder import TextEncoder

pytestmark = pytest.mark.usefixtures("own_cache")

pytest.importorskip("parselmouth")

WORDS_OF = {"neutral": "table chair", "happy": "great lovely", "sad": "gone alone", "angry": "hate stop"}
LABELS = list(WORDS_OF)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "so", "now", ".", *" ".join(WORDS_OF.values()).split()]
HEADERS = ("duration", "avg_intensity", "intensity_variation", "avg_pitch", "pitch_std", "pitch_range", "articulation_rate",
           "mean_hnr")  # of the tables of recorded cues
KINDS = ("context", "fusion", "joint")
TINY = {"hidden": 8, "heads": 2, "epochs": 3, "batch": 4, "dropout": 0.1, "patience": 0}
FAST = {"context": {"lr": 2e-2}, "fusion": {"lr": 2e-2}, "joint": {"lr": 1e-2}}


def config(classifier: str, **more: object) -> Recipe:
    return configure(classifier, **{**TINY, **FAST[classifier], **more})


def chatter(split: str, dialogues: int, turns: int, seed: int) -> Corpus:
    "Dialogues whose words and cues say the emotion; ids are those under which cues are recorded."
    rng = np.random.default_rng(seed)
    rows = []
    for d in range(dialogues):
        for t in range(turns):
            e = LABELS[(d + t * (1 + d % 3)) % 4] if rng.random() < 0.8 else str(rng.choice(LABELS))
            text = f"{'this is so ' * int(rng.integers(3))}{rng.choice(WORDS_OF[e].split())} {'now ' * int(rng.integers(3))}."
            rows.append((f"{split}_dia{d}_utt{t}", f"{split}_dia{d}", t, f"s{t % 2}", text, e))
    return Corpus("meld", pd.DataFrame(rows, columns=["utterance", "dialogue", "turn", "speaker", "text", "emotion"]),
                  space="four")


TRAIN, DEV, TARGET = chatter("train", 12, 6, 0), chatter("dev", 6, 5, 1), chatter("test", 9, 7, 2)
LONG = chatter("long", 1, 1000, 3)


def rows_of(corpus: Corpus, rows: object) -> Corpus:
    return replace(corpus, table=corpus.table.iloc[rows])


def changed(corpus: Corpus, **columns: object) -> Corpus:
    return replace(corpus, table=corpus.table.assign(**columns))


def without(corpus: Corpus, modality: str, rows: object = slice(None)) -> Corpus:
    "Text is taken away by emptying it, speech by an id under which nothing is recorded."
    table = corpus.table.copy()
    place = table.index[rows]
    if modality in ("text", "both"):
        table.loc[place, "text"] = ""
    if modality in ("speech", "both"):
        table.loc[place, "utterance"] = "mute " + table.loc[place, "utterance"]
    return replace(corpus, table=table)


# small stages, each made once

@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    "A folder of corpora with recorded cues of each row, and of rows that no corpus here has (dialogue 99)."
    folder = tmp_path_factory.mktemp("conversation")
    (folder / "meld_acoustic").mkdir()
    rng = np.random.default_rng(9)
    for split, corpus in (("train", TRAIN), ("dev", DEV), ("test", TARGET)):
        names = [u.removeprefix(f"{split}_") for u in corpus.table.utterance] + [f"dia99_utt{t}" for t in range(9)]
        level = np.array([*map(LABELS.index, corpus.table.emotion), *rng.integers(0, 4, 9)])
        values = level[:, None] * np.arange(1, 9) + rng.normal(5, 1, (len(names), 8))
        table = pd.DataFrame(values, columns=HEADERS).assign(filename=names)
        table.to_csv(folder / "meld_acoustic" / f"meld_{split}_audio_features.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSEMO_CORPORA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def encoder(place: Path) -> TextEncoder:
    folder = place / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=32, initializer_range=0.1)).save_pretrained(folder)
    with session.settings(cache=place / "cache"):
        return TextEncoder.load(str(folder), device="cpu")


@dataclass(frozen=True)
class Stack:
    "Everything below everything."

    encoder: TextEncoder
    text: Model
    speech: Model
    contexts: tuple[Conversation, Conversation]
    cache: Path

    def below(self, kind: str) -> tuple[object, ...]:
        return {"context": (self.text,), "fusion": self.contexts, "joint": (self.encoder, self.speech)}[kind]

    def bits(self) -> list[torch.Tensor]:
        "Every weight of every stage."
        nets = [self.encoder.model, self.text.encoder.model, self.text.head, self.speech.head, *(c.net for c in self.contexts)]
        return [v.clone() for net in nets for v in net.state_dict().values()]


@pytest.fixture(scope="module")
def stack(encoder: TextEncoder, place: Path) -> Stack:
    text = fit(TRAIN, DEV, LABELS, encoder, configure("linear", epochs=15, lr=2e-2, batch=16))
    with session.settings(cache=place / "cache"):
        cues = SpeechEncoder.load("cues")
    chosen = configure("mlp", epochs=15, lr=1e-2, batch=16, hidden=6, dropout=0.0, normalisation="source")
    speech = fit(TRAIN, DEV, LABELS, cues, chosen)
    contexts = tuple(fit_conversation(TRAIN, DEV, LABELS, [m], config("context")) for m in (text, speech))
    return Stack(encoder, text, speech, contexts, place / "cache")  # type: ignore[arg-type]


def made(stack: Stack, kind: str, train: Corpus = TRAIN, dev: Corpus = DEV, **more: object) -> Conversation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a net this small may collapse; that is asked elsewhere
        return fit_conversation(train, dev, LABELS, stack.below(kind), config(kind, **more))


@pytest.fixture(scope="module")
def stages(stack: Stack) -> dict[str, Conversation]:
    return {kind: made(stack, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def causal(stack: Stack) -> dict[str, Conversation]:
    "Causal from the first stage on."
    low = tuple(fit_conversation(TRAIN, DEV, LABELS, [m], config("context", causal=True))
                for m in (stack.text, stack.speech))
    past = replace(stack, contexts=low)
    return {kind: made(past, kind, causal=True) for kind in KINDS}


# dialogues

def table(**columns: list[object]) -> Corpus:
    n = len(next(iter(columns.values())))
    return Corpus("c", pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "text": "t", "emotion": "sad", **columns}))


def groups(corpus: Corpus) -> list[list[int]]:
    return sorted(g.tolist() for g in dialogues_of(corpus))


@settings(max_examples=40, deadline=None)
@given(dialogues=st.lists(st.sampled_from(["", "a", "b", "c", "1", "2"]), max_size=30), data=st.data())
def test_every_row_is_in_one_dialogue_and_in_order(dialogues: list[str], data: st.DataObject) -> None:
    n = len(dialogues)
    turns = data.draw(st.lists(st.integers(-3, 9), min_size=n, max_size=n))
    corpus = table(utterance=[f"u{i}" for i in range(n)], dialogue=dialogues, turn=turns)
    found = dialogues_of(corpus)
    assert sorted(i for g in found for i in g) == list(range(n))
    for g in found:
        assert len({dialogues[i] for i in g}) == 1 and (dialogues[g[0]] or len(g) == 1)
        assert [turns[i] for i in g] == sorted(turns[i] for i in g)
    assert len(found) == len({d for d in dialogues if d}) + dialogues.count("")


def test_lines_of_one_reply_are_dialogues_of_their_own() -> None:
    ways = ["utterances", "utterances", "contrast", "scenario", "scenario", "labels", "", None]
    corpus = table(dialogue=["r"] * 3 + ["s"] * 2 + ["t"] * 3, turn=[0, 1, 2, 1, 0, 0, 1, 2], strategy=ways)
    assert groups(corpus) == [[0], [1], [2], [4, 3], [5, 6, 7]]


def test_dialogues_of_joined_corpora_do_not_mix() -> None:
    a, b = table(dialogue=["1", "1"], turn=[0, 1]), replace(table(dialogue=["1", ""], turn=[0, 1]), name="d")
    assert groups(concat([a, b], "both")) == [[0, 1], [2], [3]]
    assert groups(table(dialogue=["1"] * 4, turn=[0, 1, 2, 3], corpus=["a", "b", "a", "b"])) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("none", ["", None, float("nan")])
def test_a_row_that_names_no_corpus_is_not_lost(none: object) -> None:
    corpus = table(dialogue=["1", "2", "", ""], turn=[0, 1, 0, 0], corpus=["a", none, none, none])
    assert groups(corpus) == [[0], [1], [2], [3]]


def test_single_lines_are_read_alone(stages: dict[str, Conversation]) -> None:
    listed = changed(TARGET, strategy="utterances")
    for kind, stage in stages.items():
        lone = changed(TARGET, dialogue="")
        assert np.abs(stage.predict(listed) - stage.predict(lone)).max() < 1e-5
        assert np.abs(stage.predict(listed) - stage.predict(TARGET)).max() > 1e-3, kind


# what must change no prediction

@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_any_order(kind: str, stages: dict[str, Conversation]) -> None:
    stage, p = stages[kind], stages[kind].predict(TARGET)
    assert p.dtype == np.float32 and p.shape == (len(TARGET), 4) and np.allclose(p.sum(1), 1, atol=1e-5)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(TARGET))
        mixed = rows_of(TARGET, order)
        assert np.abs(stage.predict(mixed) - p[order]).max() < 1e-5
        if kind != "fusion" and kind != "joint":
            assert np.abs(stage.vectors(mixed) - stage.vectors(TARGET)[order]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_dialogue_stands_alone(kind: str, stages: dict[str, Conversation]) -> None:
    "No other dialogue, no batch and no label has a say."
    stage, p = stages[kind], stages[kind].predict(TARGET)
    odd = rows_of(TARGET, [i for i in range(len(TARGET)) if i % 7 <= i // 7 % 7])  # of one to seven turns
    whole = stage.predict(odd)
    for d in odd.table.dialogue.unique()[[0, 3, 6]]:
        assert np.abs(stage.predict(odd.where({"dialogue": d})) - whole[(odd.table.dialogue == d).to_numpy()]).max() < 1e-5
    assert np.array_equal(stage.predict(changed(TARGET, emotion="")), p)
    assert np.array_equal(stage.predict(changed(TARGET, speaker="x")), p), "no speaker identity"


@pytest.mark.parametrize("kind", ["context", "fusion"])
def test_joined_corpora_are_read_apart(kind: str, stack: Stack, stages: dict[str, Conversation]) -> None:
    stage = stages[kind] if kind == "context" else made(stack, kind, epochs=1)
    a, b = rows_of(TARGET, range(21)), rows_of(TARGET, range(21, 63))
    b = changed(b, dialogue=[f"test_dia{i // 7}" for i in range(42)])  # names that the other has too
    joined = concat([replace(a, name="one"), replace(b, name="two")], "both")
    assert np.abs(stage.predict(joined) - np.concatenate([stage.predict(a), stage.predict(b)])).max() < 1e-5


# the future

@pytest.mark.parametrize("kind", KINDS)
def test_only_a_causal_stage_is_blind_to_the_future(
    kind: str, stages: dict[str, Conversation], causal: dict[str, Conversation]
) -> None:
    late = (TARGET.table.turn >= 4).to_numpy()
    names = TARGET.table.utterance.copy()
    names[late] = [f"{s}_dia99_utt{t}" for s in ("test", "train", "dev") for t in range(9)]
    other = changed(TARGET, utterance=names, text=TARGET.table.text.where(~late, "stop hate stop ."))
    short = rows_of(TARGET, ~late)
    calls: list[Callable[[Conversation, Corpus], np.ndarray]] = [lambda s, c: s.predict(c)]
    if kind == "context":
        calls.append(lambda s, c: s.vectors(c))
    for call in calls:
        past, both = (call(s[kind], TARGET)[~late] for s in (causal, stages))
        assert np.abs(call(causal[kind], other)[~late] - past).max() < 1e-5
        assert np.abs(call(causal[kind], short) - past).max() < 1e-5
        assert np.abs(call(stages[kind], other)[~late] - both).max() > 1e-3
        assert np.abs(call(stages[kind], short) - both).max() > 1e-3


def test_causal_speech_is_blind_to_the_future(causal: dict[str, Conversation]) -> None:
    early = (TARGET.table.turn < 3).to_numpy()
    for context in causal["fusion"].below:
        assert np.abs(context.vectors(rows_of(TARGET, early)) - context.vectors(TARGET)[early]).max() < 1e-5


def test_what_causal_stages_read_is_causal(stack: Stack, causal: dict[str, Conversation]) -> None:
    "A fusion that is called causal would see the future through contexts that are not."
    with pytest.raises(InputError, match="causal"):
        fit_conversation(TRAIN, DEV, LABELS, stack.contexts, config("fusion", causal=True))
    assert all(c.config.causal for c in causal["fusion"].below)


# what trains

@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_stage_trains(kind: str, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {}
    real = loop.optimise

    def watched(net: nn.Module, job: object, checkpoint: None) -> pd.DataFrame:
        before = {k: v.clone() for k, v in net.state_dict().items()}
        history = real(net, job)  # type: ignore[arg-type]
        seen["moved"] = {k for k, v in net.named_parameters() if not torch.equal(v, before[k])}
        seen["trains"] = {k for k, v in net.named_parameters() if v.requires_grad}
        seen["all"] = {k for k, _ in net.named_parameters()}
        return history

    monkeypatch.setattr(loop, "optimise", watched)
    before = stack.bits()
    stage = made(stack, kind)
    assert seen["moved"] == seen["trains"]
    idle = {f"{m}.out.{w}" for m in ("text", "speech") for w in ("weight", "bias")} | {
        "model.pooler.dense.weight", "model.pooler.dense.bias"}
    assert seen["all"] - seen["trains"] == (idle if kind == "joint" else set())
    assert all(map(torch.equal, before, stack.bits())), "stages below are bit for bit as they were"
    assert not any(p.requires_grad for p in stage.net.parameters()) and not stage.net.training
    assert not stack.encoder.model.training and not any(p.requires_grad for p in stack.encoder.model.parameters())


def test_joint_training_moves_a_copy_of_the_encoder(stack: Stack, stages: dict[str, Conversation]) -> None:
    own = stages["joint"].net.model.state_dict()
    assert any(not torch.equal(v, own[k]) for k, v in stack.encoder.model.state_dict().items())
    assert stages["joint"].below[0] is stack.encoder and stack.encoder.encode(["this is so"]).shape == (1, 16)


def test_joint_speech_starts_afresh(stack: Stack) -> None:
    "Nothing that stage I learnt is handed on: the weights of the layers are all alike again, the layers are drawn anew."
    torch.manual_seed(0)
    head = MLPHead(3, 8, 4, 6)
    nn.init.constant_(head.weights, 2.0)
    head.weights.data[0] = -2.0
    before = {k: v.clone() for k, v in head.state_dict().items()}
    net = config("joint").build_net((stack.encoder, replace(stack.speech, head=head)), [16, 6], 4)
    assert not torch.equal(net.body.projector.weight, before["projector.weight"])
    assert torch.equal(net.body.weights.softmax(0), torch.full((3,), 1 / 3))
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_stage(kind: str, stack: Stack, stages: dict[str, Conversation]) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    state = torch.get_rng_state()
    again = made(stack, kind)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is left alone"
    p = stages[kind].predict(TARGET)
    assert np.array_equal(again.predict(TARGET), p)
    assert not np.array_equal(made(stack, kind, seed=1).predict(TARGET), p)


@pytest.mark.parametrize("kind", ["context", "fusion"])
def test_stages_learn(kind: str, stack: Stack) -> None:
    stage = made(stack, kind, epochs=30)
    guess = stage.predict(TARGET).argmax(1)
    assert (guess == [LABELS.index(e) for e in TARGET.table.emotion]).mean() > 0.5
    kept = stage.history[stage.history.kept]
    assert len(kept) == 1 and kept.dev_weighted_f1.item() == stage.history.dev_weighted_f1.max()


@pytest.mark.parametrize("kind", KINDS)
def test_dev_only_chooses(kind: str, stack: Stack) -> None:
    "Other labels of dev, or another dev, may keep another epoch; what is trained is the same."
    mixed = changed(DEV, emotion=np.random.default_rng(0).permutation(DEV.table.emotion))
    losses = [made(stack, kind, dev=d).history.loss.to_numpy() for d in (DEV, mixed, TARGET)]
    assert np.array_equal(losses[0], losses[1]) and np.array_equal(losses[0], losses[2])
    one = [made(stack, kind, dev=d, epochs=1).predict(TARGET) for d in (DEV, mixed, TARGET)]
    assert np.array_equal(one[0], one[1]) and np.array_equal(one[0], one[2])


def test_the_target_is_never_met_in_training(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[str] = set()
    for name in ("_read", "_read_jointly"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda c, *a, real=real: met.update(c.table.utterance) or real(c, *a))
    for kind in KINDS:
        made(stack, kind, epochs=1)
    assert met == {*TRAIN.table.utterance, *DEV.table.utterance}


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_trains(kind: str, stack: Stack) -> None:
    p = made(stack, kind, precision="bf16", epochs=1).predict(TARGET)
    assert p.dtype == np.float32 and np.isfinite(p).all()


def test_the_kept_epoch_is_what_predicts(stack: Stack) -> None:
    for kind in KINDS:
        stage = made(stack, kind, balance="none")
        p, y = stage.predict(DEV), [LABELS.index(e) for e in DEV.table.emotion]
        kept = stage.history[stage.history.kept].iloc[0]
        assert np.isclose(kept.dev_loss, -np.log(p[range(len(y)), y]).mean(), atol=1e-4)
        assert np.isclose(kept.dev_wa, (p.argmax(1) == y).mean())


# collapse

@pytest.mark.parametrize("kind", [*KINDS, "finetune"])
def test_a_collapse_to_one_class_is_told(kind: str, stack: Stack) -> None:
    "Nothing tells the classes apart, and nine of ten are one."
    def dull(corpus: Corpus) -> Corpus:
        n = len(corpus)
        rare = {3: "happy", n // 2: "sad", n - 2: "angry"}
        return changed(without(corpus, "speech"), text="this is so .", emotion=[rare.get(i, "neutral") for i in range(n)])

    train, dev = dull(TRAIN), dull(DEV)
    with pytest.warns(UserWarning, match=rf"\({kind}\) guesses one class only"):
        if kind == "finetune":
            chosen = configure(kind, lr=1e-3, epochs=3, balance="none")
            history = fit(train, dev, LABELS, stack.encoder, chosen).history
        else:
            chosen = config(kind, balance="none", epochs=8)
            history = fit_conversation(train, dev, LABELS, stack.below(kind), chosen).history
    assert history.collapsed[history.kept].all()


def test_no_collapse_is_not_told(stack: Stack) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit_conversation(TRAIN, DEV, LABELS, stack.below("context"), config("context", epochs=10))


# dialogues and modalities of any shape

@pytest.mark.parametrize("kind", KINDS)
def test_one_turn_dialogues(kind: str, stack: Stack) -> None:
    lone, dev = changed(TRAIN, dialogue=TRAIN.table.utterance), changed(DEV, dialogue="")
    stage = made(stack, kind, train=lone, dev=dev)
    one = changed(TARGET, dialogue="")
    p = stage.predict(one)
    assert np.isfinite(p).all() and np.abs(stage.predict(rows_of(one, [5]))[0] - p[5]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_turns(kind: str, stages: dict[str, Conversation]) -> None:
    p = stages[kind].predict(LONG)  # its cues are not recorded
    assert p.shape == (1000, 4) and np.isfinite(p).all()
    both = stages[kind].predict(concat([LONG, replace(TARGET, name="other")], "both"))
    assert np.abs(both[:1000] - p).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_corpus_has_no_predictions(kind: str, stages: dict[str, Conversation]) -> None:
    none = rows_of(TARGET, [])
    assert stages[kind].predict(none).shape == (0, 4)
    if kind == "context":
        assert stages[kind].vectors(none).shape == (0, 8)


@pytest.mark.parametrize("missing", ["text", "speech"])
@pytest.mark.parametrize("kind", ["fusion", "joint"])
def test_a_modality_that_is_all_missing_is_masked(kind: str, missing: str, stack: Stack, stages: dict[str, Conversation]) -> None:
    bare = without(TARGET, missing)
    p = stages[kind].predict(bare)
    assert np.isfinite(p).all() and np.abs(p - stages[kind].predict(TARGET)).max() > 1e-3
    if missing == "speech":
        assert np.isnan(stack.speech.predict(bare)).all()
    stage = made(stack, kind, train=without(TRAIN, missing), dev=without(DEV, missing))
    assert np.isfinite(stage.predict(TARGET)).all() and np.isfinite(stage.predict(bare)).all()
    if kind == "joint" and missing == "text":
        same = stage.net.model.state_dict()
        assert all(torch.equal(v, same[k]) for k, v in stack.encoder.model.state_dict().items()), "no word, no gradient"


@pytest.mark.parametrize(("modality", "number"), [("text", 0), ("speech", 1)])
@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_context_of_nothing_is_one_clear_line(modality: str, number: int, part: str, stack: Stack) -> None:
    model = (stack.text, stack.speech)[number]
    parts = {"train": TRAIN, "dev": DEV}
    parts[part] = without(parts[part], modality)
    with pytest.raises(InputError, match=f"{part} has nothing to read") as e:
        fit_conversation(parts["train"], parts["dev"], LABELS, [model], config("context"))
    assert "\n" not in str(e.value)
    p = stack.contexts[number].predict(without(TARGET, modality))
    assert p.shape == (len(TARGET), 4) and np.isnan(p).all()


@pytest.mark.parametrize("kind", ["fusion", "joint"])
def test_nothing_in_either_modality_is_one_clear_line(kind: str, stack: Stack) -> None:
    with pytest.raises(InputError, match="train has nothing to read"):
        made(stack, kind, train=without(TRAIN, "both"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_which_nothing_is_known_get_no_guess(kind: str, stages: dict[str, Conversation]) -> None:
    stage, lost = stages[kind], [3, 4, 20, *range(28, 35)]  # the last seven are a whole dialogue
    holed = without(TARGET, "text" if kind == "context" else "both", lost)
    p = stage.predict(holed)
    there = np.setdiff1d(np.arange(len(TARGET)), lost)
    assert np.isnan(p[lost]).all() and np.isfinite(p[there]).all()
    if kind == "context":
        v = stage.vectors(holed)
        assert np.isnan(v[lost]).all() and np.isfinite(v[there]).all()
    with pytest.warns(UserWarning, match=f"{len(lost)} of {len(TARGET)} utterances"):
        found = predictions(stage, holed)  # type: ignore[arg-type]
    assert list(found.utterance) == list(holed.table.utterance.iloc[there])
    assert np.array_equal(found[[f"p_{e}" for e in LABELS]].to_numpy(), p[there])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(predictions(stage, TARGET)) == len(TARGET)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_train(kind: str, stack: Stack) -> None:
    holed = without(without(TRAIN, "text", slice(0, None, 3)), "speech", slice(0, None, 4))
    stage = made(stack, kind, train=holed)
    assert np.isfinite(stage.history.loss).all() and np.isfinite(stage.predict(TARGET)).all()


def test_a_half_measured_row_is_missing(stack: Stack, stages: dict[str, Conversation], place: Path) -> None:
    "One cue of eight is unknown: none of them is read, and nothing is put in its place."
    folder = place / "meld_acoustic" / "meld_test_audio_features.csv"
    kept, cues = folder.read_text(), pd.read_csv(folder)
    assert len(CUES) == len(HEADERS)
    try:
        cues.loc[cues.filename == "dia1_utt2", "mean_hnr"] = np.nan
        cues.to_csv(folder, index=False)
        holed = {kind: stages[kind].predict(TARGET) for kind in ("fusion", "joint")}
        vectors = stack.contexts[1].vectors(TARGET)
    finally:
        folder.write_text(kept)
    row = list(TARGET.table.utterance).index("test_dia1_utt2")
    assert np.isnan(vectors[row]).all() and np.isfinite(np.delete(vectors, row, 0)).all()
    for kind, p in holed.items():
        assert np.abs(p - stages[kind].predict(without(TARGET, "speech", [row]))).max() < 1e-6


# what does not go together

def refused(match: str, stack: Stack, kind: str, below: object = None, **more: object) -> None:
    train, dev, labels = (more.pop(k, v) for k, v in (("train", TRAIN), ("dev", DEV), ("labels", LABELS)))
    chosen = more.pop("config", None) or config(kind, **more)
    with pytest.raises(InputError, match=match) as e:
        fit_conversation(train, dev, labels, stack.below(kind) if below is None else below, chosen)
    assert "\n" not in str(e.value)


def test_the_wrong_stage_below_is_one_clear_line(stack: Stack, stages: dict[str, Conversation]) -> None:
    wrong = {"context": [(), (stack.encoder,), (stack.contexts[0],), (stack.text, stack.speech)],
             "fusion": [(), (stack.text, stack.speech), stack.contexts[:1], (stack.contexts[0], stages["fusion"]),
                        (*stack.contexts, stack.contexts[0])],
             "joint": [(), (stack.text, stack.speech), (stack.encoder,), (stack.encoder, stack.text), stack.contexts]}
    for kind, some in wrong.items():
        for below in some:
            refused("does not stand on this", stack, kind, below)
    for other in ("linear", "mlp", "finetune"):
        refused("no stage of a conversation", stack, "context", config=configure(other))


@pytest.mark.parametrize("kind", KINDS)
def test_other_labels_are_one_clear_line(kind: str, stack: Stack) -> None:
    refused("other labels", stack, kind, labels=LABELS[::-1])
    refused("other labels", stack, kind, labels=LABELS[:3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["train", "dev"])
def test_bad_data_names_part_and_class(kind: str, part: str, stack: Stack) -> None:
    good = TRAIN if part == "train" else DEV
    refused(f"{part} is empty", stack, kind, **{part: rows_of(good, [])})
    if part == "train":
        refused("train has no utterance of class angry", stack, kind, train=good.where(good.table.emotion != "angry"))
    refused(f"{part}.*no label", stack, kind, **{part: changed(good, emotion=["", *good.table.emotion[1:]])})


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_of_which_nothing_can_be_read_is_named(kind: str, stack: Stack) -> None:
    "As in training on utterances: weights of a class without a turn would not be numbers."
    holed = without(TRAIN, "both", np.flatnonzero(TRAIN.table.emotion == "angry"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        refused("train has no utterance of class angry", stack, kind, train=holed)


def test_a_class_that_dev_lacks_is_a_warning(stack: Stack) -> None:
    with pytest.warns(UserWarning, match="dev has no utterance of class angry .* its scores are over neutral, happy, sad"):
        dev = DEV.where(DEV.table.emotion != "angry")
        fit_conversation(TRAIN, dev, LABELS, stack.below("context"), config("context"))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_do_not_fit_are_one_clear_line(kind: str, stack: Stack) -> None:
    for balance in ("sampling", "shares"):  # they are for single utterances
        with pytest.raises(InputError, match="bad setting balance; expected 'none' or 'weights'"):
            configure(kind, balance=balance)
    refused("hidden is not usable", stack, kind, hidden=7, heads=1)
    refused("hidden is not usable", stack, kind, hidden=10, heads=4)


@pytest.mark.parametrize("kind", ["fusion", "joint"])
def test_only_a_context_gives_vectors(kind: str, stages: dict[str, Conversation]) -> None:
    with pytest.raises(InputError, match="no vectors"):
        stages[kind].vectors(TARGET)


def test_vectors_are_what_the_last_layer_reads(stages: dict[str, Conversation]) -> None:
    stage = stages["context"]
    logits = stage.net.out(torch.from_numpy(stage.vectors(TARGET)))
    assert np.abs(logits.softmax(1).numpy() - stage.predict(TARGET)).max() < 1e-5
    assert stage.vectors(TARGET).shape[1] == stage.vector_width == 8
    assert isinstance(stage.net.out, nn.Linear) and isinstance(stage.net.dropout, nn.Dropout), "the net itself is left whole"


def test_a_stage_tells_that_one_below_looks_at_the_target(stack: Stack, stages: dict[str, Conversation]) -> None:
    assert not any(s.transductive for s in stages.values())
    looks = replace(stack.speech, config=replace(stack.speech.config, normalisation="corpus"))
    low = replace(stack.contexts[1], below=(looks,))
    assert low.transductive and replace(stages["fusion"], below=(stack.contexts[0], low)).transductive
    assert replace(stages["joint"], below=(stack.encoder, looks)).transductive


# on disk

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_below", [True, False])
def test_a_stage_comes_back_as_it_was(
    kind: str, with_below: bool, stack: Stack, stages: dict[str, Conversation], tmp_path: Path
) -> None:
    stage = stages[kind]
    folder = stage.save(tmp_path / "deep" / "stage", below=with_below)
    given = () if with_below else stage.below
    again = Conversation.load(folder, given, device="cpu")
    assert again.config == stage.config and again.labels == stage.labels
    assert np.abs(again.predict(TARGET) - stage.predict(TARGET)).max() < 1e-6
    assert list(again.history) == list(stage.history) and len(again.history) == len(stage.history)
    assert not again.net.training and not any(p.requires_grad for p in again.net.parameters())
    again.save(folder)
    third = Conversation.load(folder, device="cpu")
    assert np.abs(third.predict(TARGET) - stage.predict(TARGET)).max() < 1e-6
    assert [p.name for p in folder.parent.iterdir()] == ["stage"]
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".joblib")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_without_what_is_below_asks_for_it(kind: str, stages: dict[str, Conversation], tmp_path: Path) -> None:
    folder = stages[kind].save(tmp_path / "stage", below=False)
    with pytest.raises(InputError, match="does not stand on this"):
        Conversation.load(folder)


def test_a_stage_on_other_stages_is_refused(stack: Stack, stages: dict[str, Conversation], tmp_path: Path) -> None:
    low, high, whole = (stages[k].save(tmp_path / k, below=False) for k in KINDS)
    with pytest.raises(InputError, match="does not stand on this"):
        Conversation.load(high, stack.below("joint"))
    with pytest.raises(InputError, match="is not the one"):
        Conversation.load(low, (stack.speech,))
    with pytest.raises(InputError, match="other labels"):
        Conversation.load(low, (replace(stack.text, labels=tuple(LABELS[::-1])),))
    with pytest.raises(InputError, match="other labels"):
        Conversation.load(whole, (stack.encoder, replace(stack.speech, labels=tuple(LABELS[::-1]))))


def test_a_stage_on_a_context_of_other_weights_is_refused(
    stack: Stack, stages: dict[str, Conversation], tmp_path: Path
) -> None:
    "Of the right shape but trained otherwise: it would answer, and wrongly."
    folder = stages["fusion"].save(tmp_path / "stage", below=False)
    other = made(replace(stack, text=stack.speech), "context", seed=8)
    with pytest.raises(InputError, match="is not the one"):
        Conversation.load(folder, (stack.contexts[0], other))


def test_a_stage_on_a_model_of_other_weights_is_refused(
    stack: Stack, stages: dict[str, Conversation], tmp_path: Path
) -> None:
    folder = stages["context"].save(tmp_path / "stage", below=False)
    torch.manual_seed(3)
    weights = BertModel(stack.encoder.model.config).eval().requires_grad_(False)
    with pytest.raises(InputError, match="is not the one"):
        Conversation.load(folder, (replace(stack.text, encoder=stack.encoder.with_model(weights, "other")),))


def test_a_relative_encoder_is_found_from_anywhere(
    stack: Stack, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    "As a saved Model, a saved joint stage names its encoder by its whole path."
    monkeypatch.chdir(place)
    encoder = TextEncoder.load("tiny", device="cpu")
    stage = made(replace(stack, encoder=encoder), "joint", epochs=1)
    folder = stage.save(tmp_path / "stage")
    monkeypatch.chdir(tmp_path)
    again = Conversation.load(folder, device="cpu")
    assert np.abs(again.predict(TARGET) - stage.predict(TARGET)).max() < 1e-6


def test_a_joint_stage_on_a_tuned_encoder_comes_back(stack: Stack, tmp_path: Path) -> None:
    "Pre-training on silver labels gives an encoder that lies nowhere but in its model."
    tuned = fit(TRAIN, DEV, LABELS, stack.encoder, configure("finetune", epochs=1, lr=1e-3))
    stage = made(replace(stack, encoder=tuned.encoder), "joint", epochs=1)
    again = Conversation.load(stage.save(tmp_path / "stage"), device="cpu")
    assert np.abs(again.predict(TARGET) - stage.predict(TARGET)).max() < 1e-6


def damaged(folder: Path, name: str, damage: str) -> None:
    file = folder / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut" or name.endswith(".csv"):
        file.write_bytes(content[: len(content) // 2] if not name.endswith(".csv") else b"")
    else:
        file.write_bytes(b"[]")


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
@pytest.mark.parametrize(("kind", "name"), [
    *((k, n) for k in KINDS for n in ("conversation.json", "net.safetensors", "history.csv")),
    ("context", "below_0/model.json"), ("context", "below_0/head.safetensors"), ("fusion", "below_0/net.safetensors"),
    ("fusion", "below_1/conversation.json"), ("fusion", "below_1/below_0/head.safetensors"), ("joint", "below_1/model.json"),
])
def test_a_damaged_stage_is_one_clear_line(
    kind: str, name: str, damage: str, stack: Stack, stages: dict[str, Conversation], tmp_path: Path
) -> None:
    folder = stages[kind].save(tmp_path / "stage")
    damaged(folder, name, damage)
    with pytest.raises(InputError) as e:
        Conversation.load(folder, device="cpu")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change", [
    {"labels": LABELS[:3]}, {"labels": None}, {"below": []}, {"below": ["Model", "Model"]}, {"below": 3}, {"widths": [3]},
    {"widths": None}, {"config": {"classifier": "linear"}}, {"config": {"colour": 1}}, {"config": None}, {"config": []},
])
def test_a_manifest_that_does_not_fit_is_one_clear_line(
    change: dict[str, object], stack: Stack, stages: dict[str, Conversation], tmp_path: Path
) -> None:
    file = stages["context"].save(tmp_path / "stage") / "conversation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError) as e:
        Conversation.load(file.parent, device="cpu")
    assert "\n" not in str(e.value)


def test_what_is_no_stage_is_one_clear_line(stack: Stack, stages: dict[str, Conversation], tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path, stack.text.save(tmp_path / "model")):
        with pytest.raises(InputError, match="cannot read the saved stage"):
            Conversation.load(folder)
    low, high = (stages[k].save(tmp_path / k) for k in ("context", "fusion"))
    shutil.copy(low / "net.safetensors", high / "net.safetensors")
    with pytest.raises(InputError, match="cannot read the saved stage"):
        Conversation.load(high, device="cpu")


def test_nothing_else_is_written_over(stages: dict[str, Conversation], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="will not write over"):
        stages["context"].save(tmp_path / "thesis")
    with pytest.raises(InputError, match="cannot write"):
        stages["context"].save(tmp_path / "thesis" / "chapter.txt" / "stage")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
