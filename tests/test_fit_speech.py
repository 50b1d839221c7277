"""Training on sound: the published recipe, normalisation that knows what it may know, and files that cannot be read."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.training import loop
from zsemo_kit.training.classifier import Model, fit, predictions
from zsemo_kit.training.heads import WeightedSumHead
from zsemo_kit.training.normalise import Normaliser, groups_of
from zsemo_kit.training.recipes import NORMALISATIONS, Recipe, configure, recipe_names
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.text_encoder import Frames

pytestmark = pytest.mark.usefixtures("own_cache")

LABELS = ["neutral", "happy", "sad", "angry"]
SPEECH = ("logistic", "svm", "linear", "weighted_sum", "attentive", "mlp")
FAST = {"logistic": {}, "svm": {}, "linear": {"epochs": 20, "lr": 2e-2, "batch": 16},
        "weighted_sum": {"steps": 150, "lr": 3e-3}, "attentive": {"steps": 60, "lr": 3e-3, "batch": 16, "dropout": 0.0},
        "mlp": {"lr": 1e-2, "batch": 16, "dropout": 0.0}}


def tones(folder: Path, name: str, n: int, seed: int, shift: float = 1.0) -> Corpus:
    "n tones a class and speaker, each class at its pitch."
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for k, e in enumerate(LABELS):
            t = np.arange(int(16_000 * rng.uniform(0.3, 0.6))) / 16_000
            hertz = shift * (150 + 150 * k + rng.normal(0, 15))
            save_audio(folder / f"{name}{i}{e}.wav", 0.2 * np.sin(2 * np.pi * hertz * t) + 0.02 * rng.standard_normal(len(t)))
            rows.append((f"{name}{i}{e}", f"s{i % 2}", e, f"{name}{i}{e}.wav"))
    return Corpus(name, pd.DataFrame(rows, columns=["utterance", "speaker", "emotion", "audio"]), root=folder, space="four")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit_speech")


@pytest.fixture(scope="module")
def corpora(folder: Path) -> tuple[Corpus, Corpus, Corpus]:
    return tones(folder, "train", 12, 0), tones(folder, "dev", 6, 1), tones(folder, "target", 10, 2)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SpeechEncoder:
    torch.manual_seed(0)
    HubertModel(HubertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7,
                             num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_extract_norm="layer",
                             do_stable_layer_norm=True, initializer_range=0.3)).save_pretrained(folder / "hubert")
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder / "hubert")
    with session.settings(cache=folder / "cache"):
        return SpeechEncoder.load(str(folder / "hubert"), device="cpu")


def config(classifier: str, **more: object) -> Recipe:
    return configure(classifier, **{**FAST[classifier], **more})


# the published recipe

def test_defaults_are_the_published_ones() -> None:
    for name in ("weighted_sum", "attentive"):
        c = configure(name)
        assert (c.lr, c.steps, c.batch, c.clip, c.select, c.weight_decay, c.warmup) == (1e-4, 15_000, 32, 1.0, "wa", 0.0, 0.0)
    assert configure("attentive").dropout == 0.4


def test_a_batch_of_32_is_8_accumulations_of_4() -> None:
    "s3prl divides each loss by the number of accumulations; nothing in the head looks across a batch."
    torch.manual_seed(0)
    head, x, y = WeightedSumHead(3, 20, 4), torch.randn(32, 3, 20), torch.randint(4, (32,))
    nn.functional.cross_entropy(head(x), y).backward()
    whole = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    for i in range(0, 32, 4):
        (nn.functional.cross_entropy(head(x[i : i + 4]), y[i : i + 4]) / 8).backward()
    assert all(torch.allclose(a, p.grad, atol=1e-7) for a, p in zip(whole, head.parameters(), strict=True))


def test_training_is_adam_on_shuffled_batches(
    corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    "The loop against a plain one: Adam, clipping at one, the same batches, the state that was best."
    train, dev, _ = corpora
    chosen = config("weighted_sum", steps=40, balance="none", lr=1e-2)
    seen: list[list[np.ndarray]] = []
    real = loop._plan
    monkeypatch.setattr(loop, "_plan", lambda *a: seen.append(real(*a)) or seen[-1])
    model = fit(train, dev, LABELS, encoder, chosen)
    rounds = seen[0]
    assert sum(map(len, rounds)) == 40 and len(rounds) == 20 and all(len(b) <= 32 for r in rounds for b in r)
    with torch.random.fork_rng():
        torch.manual_seed(chosen.seed)
        head = WeightedSumHead(encoder.layers, encoder.width, 4)
    x, y = torch.from_numpy(encoder.means(train)), torch.tensor([LABELS.index(e) for e in train.table.emotion])
    x_dev, y_dev = torch.from_numpy(encoder.means(dev)), torch.tensor([LABELS.index(e) for e in dev.table.emotion])
    adam, states = torch.optim.Adam(head.parameters(), lr=1e-2), []
    for batches in rounds:
        for rows in batches:
            adam.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            adam.step()
        with torch.no_grad():
            p = head(x_dev)
            states.append(((p.argmax(1) == y_dev).float().mean().item(), -nn.functional.cross_entropy(p, y_dev).item(), p))
    best = max(range(len(states)), key=lambda i: (states[i][0], states[i][1], -i))
    assert best == int(np.flatnonzero(model.history.kept)[0])
    assert np.allclose(model.history.dev_wa, [s[0] for s in states], atol=1e-6)
    assert np.abs(model.predict(dev) - states[best][2].softmax(1).numpy()).max() < 1e-4


@pytest.mark.parametrize("classifier", SPEECH)
def test_learns_repeats_and_comes_back(
    classifier: str, corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder, tmp_path: Path
) -> None:
    train, dev, target = corpora
    state = torch.get_rng_state()
    model = fit(train, dev, LABELS, encoder, config(classifier, normalisation="source", seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again = fit(train, dev, LABELS, encoder, config(classifier, normalisation="source", seed=3))
    p = model.predict(target)
    assert np.array_equal(p, again.predict(target)) and np.allclose(p.sum(1), 1, atol=1e-5)
    assert model.history.dev_uar.max() > 0.6 and model.history.kept.sum() == 1
    back = Model.load(model.save(tmp_path / "model"), device="cpu")
    assert back.config == model.config and np.abs(back.predict(target) - p).max() < 1e-6
    assert not [f for f in tmp_path.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".joblib")]
    one = np.concatenate([model.predict(target.where({"utterance": u})) for u in target.table.utterance[:5]])
    assert np.abs(one - p[:5]).max() < 1e-5, "without the target's statistics an utterance stands alone"


def test_svm_is_scikit_learns(corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder) -> None:
    from scipy.special import softmax
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC
    from sklearn.utils.class_weight import compute_sample_weight

    train, dev, target = corpora
    for labels in (LABELS, LABELS[:2]):
        a, b, c = (x.where({"emotion": labels}) for x in (train, dev, target))
        a = a.where(a.table.utterance != "train0happy")  # uneven classes
        x, z = encoder.means(a).mean(1), encoder.means(c).mean(1)
        scaler = StandardScaler().fit(x)
        y = [labels.index(e) for e in a.table.emotion]
        reference = LinearSVC(C=0.01, random_state=0, max_iter=50_000, tol=1e-6).fit(
            scaler.transform(x), y, compute_sample_weight("balanced", y))
        scores = reference.decision_function(scaler.transform(z))
        scores = scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], 1)
        model = fit(a, b, labels, encoder, configure("svm", strengths=(0.01,)))
        assert np.abs(model.predict(c) - softmax(scores, 1)).max() < 5e-3


def test_one_layer_is_one_layer(corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder) -> None:
    train, dev, target = corpora
    for chosen in (config("logistic"), config("weighted_sum", steps=60), config("attentive", steps=10)):
        by = [fit(train, dev, LABELS, encoder, replace(chosen, layer=n)).predict(target)
              for n in (0, 2, -1, None)]
        assert np.array_equal(by[1], by[2]) and np.abs(by[0] - by[1]).max() > 1e-3 and np.abs(by[3] - by[1]).max() > 1e-3
        with pytest.raises(InputError, match="no layer"):
            fit(train, dev, LABELS, encoder, replace(chosen, layer=3))


# normalisation

def test_predictions_follow_what_a_normalisation_may_know(
    corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder
) -> None:
    train, dev, target = corpora
    half = target.where(target.table.speaker == "s0")
    for how in NORMALISATIONS:
        model = fit(train, dev, LABELS, encoder, config("logistic", normalisation=how))
        whole = model.predict(target)[(target.table.speaker == "s0").to_numpy()]
        change = np.abs(model.predict(half) - whole).max()
        assert (change > 1e-4) == (how == "corpus"), how
        assert model.transductive == (how in ("corpus", "speaker")) == model.config.transductive
        unlabelled = replace(target, table=target.table.assign(emotion=""))
        assert np.array_equal(model.predict(unlabelled), model.predict(target)), "labels of the target are never read"


def test_each_source_corpus_is_normalised_by_its_own(corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder) -> None:
    train, *_ = corpora
    joined = replace(train, table=train.table.assign(corpus=["a", "b"] * (len(train) // 2)))
    x = encoder.means(joined)
    rows = np.arange(len(joined))
    y = Normaliser.of(joined, x, "corpus", rows)(torch.from_numpy(x), rows)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        assert y[part].mean(0).abs().max() < 1e-4 and (y[part].std(0, correction=0) - 1).abs().max() < 1e-3


def test_strange_features_of_the_target_are_undone(folder: Path, encoder: SpeechEncoder) -> None:
    "A target whose features are all scaled and moved is as the source to a model that may look at it."
    train, dev = tones(folder, "a", 12, 5), tones(folder, "b", 8, 6)
    x = encoder.means(dev)
    moved = 3 * x + 7
    rows = np.arange(len(dev))
    for how in ("corpus", "speaker"):
        a = Normaliser.of(dev, x, how, rows)(torch.from_numpy(x), rows)
        b = Normaliser.of(dev, moved, how, rows)(torch.from_numpy(moved), rows)
        assert (a - b).abs().max() < 1e-3
    a = Normaliser.of(train, encoder.means(train), "source", np.arange(len(train)))
    assert (a(torch.from_numpy(x), rows) - a(torch.from_numpy(moved), rows)).abs().max() > 1


@settings(max_examples=15, deadline=None)
@given(speakers=st.lists(st.sampled_from(["", "x", "y", "z"]), min_size=2, max_size=50), seed=st.integers(0, 99))
def test_speakers_with_little_go_by_the_corpus(speakers: list[str], seed: int) -> None:
    n = len(speakers)
    corpus = Corpus("c", pd.DataFrame({"utterance": range(n), "text": "t", "emotion": "sad", "speaker": speakers}))
    groups = groups_of(corpus, "speaker")
    for who in set(speakers):
        own = {g for g, s in zip(groups, speakers, strict=True) if s == who}
        assert own == ({f"c\0{who}"} if who and speakers.count(who) >= 8 else {"c"})
    x = np.random.default_rng(seed).normal(5, 2, (n, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = Normaliser.of(corpus, x, "speaker", np.arange(n))(torch.from_numpy(x), np.arange(n)).numpy()
    for g in set(groups):
        part = y[groups == g]
        assert np.abs(part.mean(0)).max() < 1e-4 and (len(part) == 1 or np.allclose(part.std(0), 1, atol=1e-3))


def test_frames_are_normalised_over_frames() -> None:
    rng = np.random.default_rng(0)
    frames = Frames(rng.normal(100, 3, (60, 4)).astype(np.float32), np.array([0, 20, 20, 35, 60]))
    corpus = Corpus("c", pd.DataFrame({"utterance": list("abcd"), "text": "t", "emotion": "sad"}))
    rows = np.array([0, 2, 3])
    source = Normaliser.of(corpus, frames, "source", rows)
    batch = frames.batch(rows)
    y = source(batch["x"], rows)[batch["mask"]]
    assert y.mean(0).abs().max() < 1e-4 and (y.std(0, correction=0) - 1).abs().max() < 1e-4


def test_too_little_to_normalise_by_is_told(corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder) -> None:
    train, dev, target = corpora
    model = fit(train, dev, LABELS, encoder, config("logistic", normalisation="corpus"))
    with pytest.warns(UserWarning, match="whole corpus"):
        model.predict(replace(target, table=target.table.iloc[:3]))
    assert model.predict(replace(target, table=target.table.iloc[:0])).shape == (0, 4)


# bad input

def test_a_bad_file_is_left_out_and_never_guessed(
    corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder, folder: Path
) -> None:
    def spoilt(corpus: Corpus) -> Corpus:
        (folder / "bad.wav").write_bytes(b"no sound")
        return replace(corpus, table=corpus.table.assign(audio=[*corpus.table.audio[:-2], "bad.wav", "gone.wav"]))

    train, dev, target = corpora
    for classifier in ("logistic", "weighted_sum", "attentive"):
        short = {"steps": min(20, FAST[classifier]["steps"])} if "steps" in FAST[classifier] else {}
        chosen = config(classifier, normalisation="corpus", **short)
        with pytest.warns(UserWarning, match="2 of 48 utterances") as said:
            model = fit(spoilt(train), dev, LABELS, encoder, chosen)
        assert "train10angry" not in str(said[0].message) and "train11sad" in str(said[0].message)
        rest = replace(train, table=train.table.iloc[:-2])
        clean = fit(rest, dev, LABELS, encoder, chosen)
        assert np.array_equal(model.predict(target), clean.predict(target))
        p = model.predict(spoilt(target))
        assert np.isnan(p[-2:]).all() and np.isfinite(p[:-2]).all()
        with pytest.warns(UserWarning, match="2 of 40"):
            table = predictions(model, spoilt(target))
        assert len(table) == 38 and set(encoder.problems.utterance) >= {"target9sad", "target9angry"}


def test_what_does_not_go_together_is_one_clear_line(
    corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder, folder: Path
) -> None:
    train, dev, _ = corpora
    for classifier in set(recipe_names()) - set(SPEECH):
        with pytest.raises(InputError, match="does not read speech"):
            fit(train, dev, LABELS, encoder, configure(classifier))
    pytest.importorskip("s3prl")
    fbank = SpeechEncoder.load("fbank", device="cpu")
    with pytest.raises(InputError, match="fbank_no_cmvn"):
        fit(train, dev, LABELS, fbank, config("weighted_sum"))
    assert fit(train, dev, LABELS, fbank, config("attentive", steps=30)).predict(dev).shape == (24, 4)
    pytest.importorskip("opensmile")
    with pytest.raises(InputError, match="no frames"):
        fit(train, dev, LABELS, SpeechEncoder.load(), config("attentive"))


def test_other_own_terms_are_refused(corpora: tuple[Corpus, Corpus, Corpus], encoder: SpeechEncoder, tmp_path: Path) -> None:
    train, dev, _ = corpora
    folder = fit(train, dev, LABELS, encoder, config("logistic")).save(tmp_path / "m")
    with pytest.raises(InputError, match="own terms"):
        Model.load(folder, encoder=replace(encoder, own_terms="none"))
    with pytest.raises(InputError, match="is not the one"):
        Model.load(folder, encoder=replace(encoder, fingerprint="other"))
    assert Model.load(folder, encoder=encoder).encoder is encoder
