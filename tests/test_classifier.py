"""Training: seeds, targets, balance, what trains and what does not, and models that come back from disk."""

import json
import warnings
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.corpora.text import texts_of
from zsemo_kit.training import classifier as module
from zsemo_kit.training import loop
from zsemo_kit.training.classifier import Model, check_labels, class_weights, fit, predictions, targets_of
from zsemo_kit.training.heads import LinearHead
from zsemo_kit.training.recipes import Recipe, configure
from zsemo_kit.training.targets import weighted_loss
from zsemo_kit.training.text_encoder import TextEncoder

pytestmark = pytest.mark.usefixtures("own_cache")

CUES = {"neutral": "table chair", "happy": "great lovely", "sad": "gone alone", "angry": "hate stop"}
LABELS = list(CUES)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "so", "now", ".", *" ".join(CUES.values()).split()]
FAST = {"logistic": {}, "linear": {"epochs": 20, "lr": 2e-2, "batch": 16}, "conv": {"epochs": 12, "lr": 4e-3, "batch": 16},
        "finetune": {"epochs": 8, "lr": 3e-3, "batch": 16}}
CLASSIFIERS = tuple(FAST)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("fit") / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=64, max_position_embeddings=64, initializer_range=0.1)).save_pretrained(folder)
    with settings(cache=folder.parent / "cache"):
        return TextEncoder.load(str(folder), device="cpu")


def toy(name: str, n: int, labels: list[str] = LABELS, noise: int = 0) -> Corpus:
    rng = np.random.default_rng(noise)
    cues = [CUES[rng.choice(labels) if noise and rng.random() < 0.3 else e].split() for _ in range(n) for e in labels]
    rows = [(f"u{i}", f"d{i // 4}", i % 4, f"s{i % 2}", f"{'this is so ' * (i % 5)}{cue[i % 2]} {'now ' * (i % 3)}.",
             labels[i % len(labels)]) for i, cue in enumerate(cues)]
    return Corpus(name, pd.DataFrame(rows, columns=["utterance", "dialogue", "turn", "speaker", "text", "emotion"]),
                  space="four")


TRAIN, DEV = toy("train", 12), toy("dev", 6)
NOISY, NOISY_DEV = toy("noisy", 30, noise=1), toy("noisy_dev", 12, noise=2)


def config(classifier: str, **more: object) -> Recipe:
    return configure(classifier, **{**FAST[classifier], **more})


# settings

@pytest.mark.parametrize("bad", [
    {"epoch": 3}, {"classifier": "forest"}, {"classifier": 1}, {"epochs": 2.0}, {"epochs": 0}, {"epochs": True},
    {"batch": "8"}, {"lr": "high"}, {"lr": float("nan")}, {"lr": True}, {"lr": -1.0}, {"balance": "fair"},
    {"balance": "shares"}, {"shares": [1]}, {"shares": {"sad": "x"}}, {"soft_labels": 1}, {"smoothing": 1.0},
    {"strengths": ()}, {"strengths": (0.0,)}, {"strengths": 1.0}, {"seed": -1}, {"seed": 1.5}, {"context": -1},
    {"max_tokens": 1}, {"precision": "int8"}, {"select": "ua"}, {"dropout": 2.0}, {"decay": "yes"}, {"scale": "z"},
])
def test_a_bad_setting_is_one_clear_line(bad: dict[str, object]) -> None:
    name = next(iter(bad))
    exact = {"classifier": "logistic"} if name in ("scale", "strengths") else {"classifier": "linear"}
    with pytest.raises(InputError, match=name) as e:
        configure(**exact | bad)  # type: ignore[arg-type]
    assert "\n" not in str(e.value)


def test_defaults_are_the_published_ones() -> None:
    conv, tune = configure("conv"), configure("finetune")
    assert (conv.lr, conv.batch, conv.epochs, conv.select) == (7e-4, 128, 50, "loss")
    assert (tune.lr, tune.epochs, tune.decay) == (5e-5, 3, True) and tune.warmup and tune.clip
    with pytest.raises(FrozenInstanceError):
        conv.lr = 1.0  # type: ignore[misc]
    assert replace(conv, seed=4).lr == 7e-4
    assert configure("linear", lr=1).lr == 1


# targets, weights, loss

def test_soft_targets_are_means_of_one_hots() -> None:
    table = DEV.table.head(5).assign(emotion=["happy", "happy", "sad", "angry", "sad"],
                                     emotion_second=["happy", "sad", "", "disgust", "excited"])
    corpus = replace(DEV, table=table)
    soft = targets_of(corpus, LABELS, soft=True)
    assert soft.tolist()[:4] == [[0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert soft.sum(1).tolist() == [1] * 5
    assert targets_of(corpus, LABELS).tolist() == np.eye(4)[[1, 1, 2, 3, 2]].tolist()
    assert np.array_equal(targets_of(DEV, LABELS, soft=True), targets_of(DEV, LABELS))


def test_the_second_reading_is_folded_as_its_own_corpus_is() -> None:
    """IEMOCAP's `four` takes excited as happy: for the second reader as for the first."""
    corpus = replace(DEV, name="iemocap_synthetic", table=DEV.table.head(1).assign(emotion="sad", emotion_second="excited"))
    assert targets_of(corpus, LABELS, soft=True).tolist() == [[0, 0.5, 0.5, 0]]
    joined = replace(corpus, name="all", table=corpus.table.assign(corpus="iemocap_synthetic"))
    assert targets_of(joined, LABELS, soft=True).tolist() == [[0, 0.5, 0.5, 0]]


@given(mass=st.lists(st.floats(0.5, 1e4), min_size=2, max_size=7), data=st.data())
def test_weights_bring_the_shares_about(mass: list[float], data: st.DataObject) -> None:
    labels = [f"c{i}" for i in range(len(mass))]
    shares = {c: data.draw(st.floats(0.01, 1)) for c in labels}
    m = np.array(mass)
    for wanted, w in ((np.full(len(m), 1 / len(m)), class_weights(m)),
                      (np.array(list(shares.values())) / sum(shares.values()), class_weights(m, shares, labels))):
        assert np.allclose(w * m / m.sum(), wanted, rtol=1e-4)
        assert np.isclose((w * m).sum(), m.sum(), rtol=1e-4)


def test_shares_need_every_label(encoder: TextEncoder) -> None:
    chosen = configure(balance="shares", shares={"sad": 0.1, "happy": 0.5, "neutral": 1})
    with pytest.raises(InputError, match="angry"):
        fit(TRAIN, DEV, LABELS, encoder, chosen)


@given(seed=st.integers(0, 200), smoothing=st.sampled_from([0.0, 0.2]))
def test_loss_is_torchs_for_hard_targets(seed: int, smoothing: float) -> None:
    g = torch.Generator().manual_seed(seed)
    logits, y, w = torch.randn(9, 4, generator=g), torch.randint(4, (9,), generator=g), torch.rand(4, generator=g) + 0.1
    ours = weighted_loss(logits, torch.eye(4)[y], w, smoothing)
    assert torch.isclose(ours, F.cross_entropy(logits, y, w, label_smoothing=smoothing), atol=1e-5)
    soft = torch.rand(9, 4, generator=g).softmax(1)
    assert torch.isclose(weighted_loss(logits, soft, torch.ones(4)), F.cross_entropy(logits, soft), atol=1e-5)


def test_shares_move_the_guesses(encoder: TextEncoder) -> None:
    even = config("logistic", strengths=(0.001,))
    often = replace(even, balance="shares", shares={"sad": 0.85, "neutral": 0.05, "happy": 0.05, "angry": 0.05})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [fit(NOISY, NOISY_DEV, LABELS, encoder, c) for c in (even, often)]
    mass = [m.predict(NOISY_DEV).mean(0)[2] for m in models]
    assert mass[1] > mass[0] + 0.3


def test_sampling_draws_equal_classes(encoder: TextEncoder) -> None:
    rows = np.flatnonzero((TRAIN.table.emotion != "sad") | (TRAIN.table.index < 8))
    skewed = replace(TRAIN, table=TRAIN.table.iloc[rows])
    job = module._job_of(skewed, DEV, LABELS, encoder, config("linear", balance="sampling"))
    assert job.draw is not None and (job.weights == 1).all()
    assert np.allclose([job.draw[(skewed.table.emotion == e).to_numpy()].sum() for e in LABELS], 0.25)
    assert len(np.concatenate(loop._epoch_batches(job, np.random.default_rng(0), 0, 1))) == len(skewed)


# bad data

@pytest.mark.parametrize("part", ["train", "dev"])
def test_bad_data_names_part_class_and_mend(part: str, encoder: TextEncoder) -> None:
    def attempt(bad: Corpus, labels: list[str] = LABELS) -> str:
        with pytest.raises(InputError) as e:
            fit(bad if part == "train" else TRAIN, bad if part == "dev" else DEV, labels, encoder, configure())
        assert "\n" not in str(e.value)
        return str(e.value)

    good = TRAIN if part == "train" else DEV
    assert f"{part} is empty" in attempt(good.where(good.table.emotion == "none"))
    if part == "train":
        told = attempt(good.where(good.table.emotion != "angry"))
        assert "train has no utterance of class angry" in told and "labels=common, or labels=neutral,happy,sad" in told
    unlabelled = replace(good, table=good.table.assign(emotion=["", *good.table.emotion[1:]]))
    assert part in attempt(unlabelled) and "no label" in attempt(unlabelled)
    with pytest.raises(InputError, match="'angry' is not a class"):
        check_labels(good, LABELS[:3], part)
    with pytest.raises(InputError, match="labels"):
        check_labels(good, ["sad", "sad"], part)


@pytest.mark.parametrize("labels, told", [
    ([], "two or more different ones"), (["sad"], "two or more different ones"), (["sad", "happy", "sad"], "different ones"),
    (["Sad", "happy"], "did you mean sad"), (["angri", "happy"], "did you mean angry"),
    (["fear", "happy"], "no class of the space four"),
    (["joy", "happy"], "'joy' is no class"), (np.arange(2), "'0' is no class"),
])
def test_labels_that_are_none_say_so_in_one_line(labels: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told) as e:
        check_labels(TRAIN, labels, "train")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("classifier", ["logistic", "linear"])
@pytest.mark.parametrize("kept", [["happy"], ["neutral", "sad"]])
def test_a_class_that_dev_lacks_is_told_and_training_goes_on(classifier: str, kept: list[str], encoder: TextEncoder) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = fit(TRAIN, DEV.where({"emotion": kept}), LABELS, encoder, config(classifier))
    missing = ", ".join(label for label in LABELS if label not in kept)
    assert [str(w.message) for w in said] == [f"dev has no utterance of class {missing} (corpus {DEV.name!r}): its scores are "
                                              f"over {', '.join(kept)}; a larger dev share may help"]
    assert model.predict(DEV).shape == (len(DEV), 4) and np.isfinite(model.history.select_dtypes("number")).all(axis=None)


def test_dev_is_judged_over_the_classes_that_it_has() -> None:
    p = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    truth = np.array([0, 1, 0, 1])  # two right, two guessed as classes that are not there
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loop.dev_scores(p, np.eye(4, dtype=np.float32)[truth], truth, np.ones(4, np.float32))
        alone = loop.dev_scores(p[:1], p[:1], truth[:1], np.ones(4, np.float32))
    assert (found["dev_uar"], found["dev_wa"], found["collapsed"]) == (0.5, 0.5, False)
    assert (alone["dev_uar"], alone["collapsed"]) == (1.0, False)


@pytest.mark.parametrize("mass, wanted", [([2, 0, 2], [1, 0, 1]), ([0, 0], [0, 0]), ([5], [1]), ([1, 99], [50, 50 / 99])])
def test_a_class_without_data_weighs_nothing(mass: list[int], wanted: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert class_weights(np.array(mass)) == pytest.approx(wanted)


# training

@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_learns_the_toy_and_repeats_itself(classifier: str, encoder: TextEncoder) -> None:
    before = encoder.fingerprint, encoder.model.state_dict()["embeddings.word_embeddings.weight"].clone()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = fit(TRAIN, DEV, LABELS, encoder, config(classifier, seed=3))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is left alone"
    torch.manual_seed(99)
    np.random.seed(1)
    again = fit(TRAIN, DEV, LABELS, encoder, config(classifier, seed=3))
    assert np.array_equal(first.predict(DEV), again.predict(DEV))
    other = fit(TRAIN, DEV, LABELS, encoder, config(classifier, seed=4))
    assert np.array_equal(first.predict(DEV), other.predict(DEV)) == (classifier == "logistic")
    assert first.history.dev_uar.max() > 0.6 and first.history.kept.sum() == 1
    assert encoder.fingerprint == before[0] and torch.equal(
        encoder.model.state_dict()["embeddings.word_embeddings.weight"], before[1])
    assert not encoder.model.training


@pytest.mark.parametrize("classifier", ["linear", "conv", "finetune"])
def test_gradients_reach_exactly_what_trains(classifier: str, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {}
    real = loop.optimise

    def watched(model: torch.nn.Module, job: loop.TrainingJob, checkpoint: None) -> pd.DataFrame:
        before = {k: v.clone() for k, v in model.state_dict().items()}
        history = real(model, job)
        seen["moved"] = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
        seen["trains"] = {k for k, v in model.named_parameters() if v.requires_grad}
        seen["all"] = {k for k, _ in model.named_parameters()}
        return history

    monkeypatch.setattr(loop, "optimise", watched)
    fit(TRAIN, DEV, LABELS, encoder, config(classifier, balance="none", patience=0))
    assert seen["moved"] == seen["trains"]
    assert seen["all"] - seen["trains"] == (
        {"model.pooler.dense.weight", "model.pooler.dense.bias"} if classifier == "finetune" else set())
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_the_kept_epoch_is_the_best_on_dev(encoder: TextEncoder) -> None:
    for select in ("uar", "loss"):
        model = fit(NOISY, NOISY_DEV, LABELS, encoder, config("linear", select=select, epochs=15))
        kept = model.history[model.history.kept].iloc[0]
        p, y = model.predict(NOISY_DEV), targets_of(NOISY_DEV, LABELS)
        assert np.isclose(kept.dev_loss, -(np.log(p) * y).sum(1).mean(), atol=1e-4)
        best = model.history.dev_uar.max() if select == "uar" else model.history.dev_loss.min()
        assert kept[f"dev_{select}"] == best


def test_patience_ends_training(encoder: TextEncoder) -> None:
    model = fit(NOISY, NOISY_DEV, LABELS, encoder, config("linear", epochs=200, patience=3))
    best = model.history.epoch[model.history.kept].item()
    assert len(model.history) == best + 3 < 200


def test_collapse_is_told(encoder: TextEncoder) -> None:
    shares = {"neutral": 0.97, "happy": 0.01, "sad": 0.01, "angry": 0.01}
    one = configure(strengths=(1e-9,), balance="shares", shares=shares)
    with pytest.warns(UserWarning, match="one class only"):
        model = fit(TRAIN, DEV, LABELS, encoder, one)
    assert model.history.collapsed.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(TRAIN, DEV, LABELS, encoder, config("logistic"))


def test_a_diverged_model_is_one_clear_line(encoder: TextEncoder) -> None:
    bad = replace(encoder, cache=encoder.cache)
    job = module._job_of(TRAIN, DEV, LABELS, bad, config("linear"))
    job.targets[:] = np.nan
    with pytest.raises(InputError, match="diverged"):
        loop.optimise(LinearHead(encoder.width, 4), job)


def test_logistic_is_scikit_learns(encoder: TextEncoder) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import Normalizer, StandardScaler

    x, x_dev = encoder.encode(texts_of(NOISY)), encoder.encode(texts_of(NOISY_DEV))
    for labels in (LABELS, LABELS[:2]):
        train, dev = (c.where(c.table.emotion.isin(labels)) for c in (NOISY, NOISY_DEV))
        a, b = (v[c.table.emotion.isin(labels)] for v, c in ((x, NOISY), (x_dev, NOISY_DEV)))
        for scale in ("standard", "unit", "none"):
            scaler = (Normalizer() if scale == "unit" else StandardScaler(with_mean=scale == "standard",
                                                                          with_std=scale == "standard")).fit(a)
            ref = LogisticRegression(C=0.1, max_iter=5000, class_weight="balanced", tol=1e-8).fit(
                scaler.transform(a), train.table.emotion)
            got = fit(train, dev, labels, encoder, configure(strengths=(0.1,), scale=scale))
            order = [list(ref.classes_).index(c) for c in labels]
            assert np.abs(got.predict(dev) - ref.predict_proba(scaler.transform(b))[:, order]).max() < 5e-3


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_context_soft_labels_and_smoothing_train(classifier: str, encoder: TextEncoder) -> None:
    corpus = replace(TRAIN, table=TRAIN.table.assign(emotion_second="sad"))
    chosen = config(classifier, context=2, soft_labels=True, smoothing=0.1, max_tokens=24, balance="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fit(corpus, DEV, LABELS, encoder, chosen)
    assert model.encoder.max_tokens == 24
    assert model.predict(DEV)[:, 2].mean() > 0.3


def test_batch_size_changes_no_prediction(encoder: TextEncoder) -> None:
    for classifier in ("conv", "finetune"):
        model = fit(TRAIN, DEV, LABELS, encoder, config(classifier))
        one = np.concatenate([model.predict(DEV.where(DEV.table.utterance == u)) for u in DEV.table.utterance])
        assert np.abs(model.predict(DEV) - one).max() < 1e-6
        assert model.predict(DEV.where(DEV.table.utterance == "none")).shape == (0, 4)


def test_bf16_after_plain_precision(encoder: TextEncoder) -> None:
    fit(TRAIN, DEV, LABELS, encoder, config("finetune", epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fit(TRAIN, DEV, LABELS, encoder, config("finetune", precision="bf16"))
    assert model.predict(DEV).dtype == np.float32 and model.history.dev_uar.max() > 0.5
    with pytest.raises(InputError, match="GPU"):
        fit(TRAIN, DEV, LABELS, encoder, config("finetune", precision="fp16"))


# on disk

@pytest.fixture(scope="module")
def tuned(encoder: TextEncoder) -> Model:
    return fit(TRAIN, DEV, LABELS, encoder, config("finetune"))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_model_comes_back_as_it_was(classifier: str, encoder: TextEncoder, tmp_path: Path) -> None:
    chosen = config(classifier, context=1, balance="shares", shares=dict.fromkeys(LABELS, 0.25))
    model = fit(TRAIN, DEV, LABELS, encoder, chosen)
    folder = model.save(tmp_path / "deep" / "model")
    again = Model.load(folder, device="cpu")
    assert again.config == model.config and again.labels == model.labels
    assert np.abs(again.predict(DEV) - model.predict(DEV)).max() < 1e-6
    assert list(again.history) == list(model.history) and len(again.history) == len(model.history)
    again.save(folder)
    assert np.abs(Model.load(folder, device="cpu").predict(DEV) - model.predict(DEV)).max() < 1e-6
    assert not [p for p in folder.parent.iterdir() if p.name != "model"]
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".joblib")]


def test_a_fine_tuned_folder_is_plain_hugging_face(tuned: Model, tmp_path: Path) -> None:
    folder = tuned.save(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "encoder")
    model = AutoModel.from_pretrained(folder / "encoder").eval()
    head = load_file(folder / "head.safetensors")
    with torch.inference_mode():
        mean = model(**tokenizer(texts_of(DEV)[3], return_tensors="pt")).last_hidden_state[0].mean(0)
        p = (mean @ head["out.weight"].T + head["out.bias"]).softmax(0).numpy()
    assert np.abs(p - tuned.predict(DEV)[3]).max() < 1e-6


def test_a_fine_tuned_model_leaves_the_cache_alone(tuned: Model, encoder: TextEncoder) -> None:
    before = encoder.cache.file.stat().st_size, encoder.cache.run(lambda c: c.execute("SELECT count(*) FROM features").fetchone())
    tuned.predict(DEV)
    assert encoder.cache.run(lambda c: c.execute("SELECT count(*) FROM features").fetchone()) == before[1]


def test_another_encoder_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    folder = fit(TRAIN, DEV, LABELS, encoder, configure()).save(tmp_path / "model")
    with pytest.raises(InputError, match="is not the one"):
        Model.load(folder, encoder=replace(encoder, fingerprint="other"))
    assert Model.load(folder, encoder=encoder).encoder.cache == encoder.cache


@pytest.mark.parametrize("name", ["model.json", "head.safetensors", "history.csv", "encoder/model.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_model_is_one_clear_line(name: str, damage: str, tuned: Model, tmp_path: Path) -> None:
    file = tuned.save(tmp_path / "model") / name
    content = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(content[: len(content) // 2] if name != "history.csv" else b"")
    with pytest.raises(InputError) as e:
        Model.load(tmp_path / "model")
    assert "\n" not in str(e.value)


def test_nothing_else_is_written_over(encoder: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    model = fit(TRAIN, DEV, LABELS, encoder, configure())
    with pytest.raises(InputError, match="will not write over"):
        model.save(tmp_path / "thesis")
    with pytest.raises(InputError, match="cannot write"):
        model.save(tmp_path / "thesis" / "chapter.txt" / "model")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_predictions_have_one_row_an_utterance(encoder: TextEncoder) -> None:
    model = fit(TRAIN, DEV, LABELS, encoder, configure())
    blank = replace(DEV, table=DEV.table.assign(emotion=""))
    out = predictions(model, blank)
    assert list(out) == ["utterance", "dialogue", "speaker", "truth", "guess", *(f"p_{e}" for e in LABELS)]
    assert (out.truth == "").all() and list(out.utterance) == list(DEV.table.utterance)
    p = out[[f"p_{e}" for e in LABELS]].to_numpy()
    assert np.allclose(p.sum(1), 1, atol=1e-5) and [LABELS[i] for i in p.argmax(1)] == list(out.guess)
    assert json.dumps(out.guess.iloc[0])
