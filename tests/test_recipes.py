"""Recipes: a new head is one cell and gets what it reads; encoders keep their keys; a training goes on where it was cut off."""

import ast
import json
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer, HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.training import loop, recipes
from zsemo_kit.training.checkpoints import Checkpoint
from zsemo_kit.training.classifier import Model, fit
from zsemo_kit.training.conversation import ContextRecipe, Conversation, fit_conversation
from zsemo_kit.training.features import open_encoder
from zsemo_kit.training.heads import HeadRecipe
from zsemo_kit.training.loop import Data, LoopRecipe, TrainingJob, optimise
from zsemo_kit.training.recipes import configure, find_recipe, recipe_names, register, settings_of
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.text_encoder import TextEncoder

pytest.importorskip("opensmile")
pytestmark = [pytest.mark.filterwarnings("ignore:the model .* guesses one class only"), pytest.mark.usefixtures("own_cache")]
ROOT = Path(__file__).resolve().parents[1]
WORDS = {"neutral": "table", "happy": "great", "sad": "gone", "angry": "hate"}
LABELS = list(WORDS)


@dataclass(frozen=True)
class Toy:
    "Two corpora that are read and heard, and an encoder of each kind."

    train: Corpus
    dev: Corpus
    text: TextEncoder
    measured: SpeechEncoder
    network: SpeechEncoder


def spoken(folder: Path, name: str, n: int) -> Corpus:
    "n dialogues of four turns; the word and the pitch say the emotion."
    rows = []
    for d in range(n):
        for t, emotion in enumerate(LABELS):
            file, phase = f"{name}{d}{emotion}.wav", np.arange(8000) * (0.04 + 0.03 * t + 0.001 * d)
            with wave.open(str(folder / file), "wb") as f:
                f.setparams((1, 2, 16_000, 0, "NONE", ""))
                f.writeframes((3000 * np.sin(phase) + 500 * np.sin(3 * phase)).astype("<i2").tobytes())
            rows.append((f"{name}{d}{t}", f"{name}{d}", t, f"s{d % 2}", f"yes {WORDS[emotion]}", emotion, file))
    columns = ["utterance", "dialogue", "turn", "speaker", "text", "emotion", "audio"]
    return Corpus(name, pd.DataFrame(rows, columns=columns), folder, space="four")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("recipes")
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", *WORDS.values()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=16, max_position_embeddings=32, initializer_range=0.2)
              ).save_pretrained(folder / "bert")
    HubertModel(HubertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8, conv_dim=(4, 4),
                             conv_stride=(5, 64), conv_kernel=(10, 64), num_conv_pos_embeddings=4,
                             num_conv_pos_embedding_groups=1)).save_pretrained(folder / "hubert")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "hubert")
    cache = folder / "c"
    with settings(cache=cache):
        return Toy(spoken(folder, "train", 6), spoken(folder, "dev", 3), TextEncoder.load(str(folder / "bert"), "cpu"),
                   SpeechEncoder.load("egemaps", "cpu"), SpeechEncoder.load(str(folder / "hubert"), "cpu"))


# the registry


@pytest.fixture
def registry() -> Iterator[None]:
    "What a test registers is forgotten."
    recipe_names()
    before = dict(recipes._RECIPES)
    yield
    recipes._RECIPES.clear()
    recipes._RECIPES.update(before)


def test_a_classifier_is_compared_by_name_nowhere() -> None:
    "What a method is stands in its recipe: no module asks for one by its name, but where the name means something else."
    names, found = set(recipe_names()), []
    for file in sorted((ROOT / "zsemo_kit").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                found += [f"{file.name}:{node.lineno}"] if words & names else []
    assert len(found) <= 3, found


def seen_by(reads: str, encoder: Any, toy: Toy, **settings: Any) -> list[tuple[int, ...]]:
    "Shapes that a head of one cell is given: at building, in training, and in guessing."
    shapes: list[tuple[int, ...]] = []

    @register("of_one_cell", reads=reads)
    class OfOneCell(HeadRecipe):
        "A head that remembers what it is given."

        epochs = 1

        def build(self, layers: int, width: int, classes: int) -> nn.Module:
            shapes.append((layers, width))

            class Head(nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.out = nn.Linear(width, classes)

                def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
                    shapes.append(tuple(x.shape[1:]))
                    return self.out(x.flatten(1)[:, :width])

            return Head()

    model = fit(toy.train, toy.dev, LABELS, encoder, configure("of_one_cell", **settings))
    shapes.append((0,))
    model.predict(toy.dev)
    return shapes


@pytest.mark.usefixtures("registry")
def test_a_head_is_given_what_it_reads_and_nothing_else(toy: Toy) -> None:
    for encoder, layers, width in ((toy.network, 3, 8), (toy.measured, 1, 88), (toy.text, 1, 16)):
        assert set(seen_by("layers", encoder, toy)) == {(layers, width), (0,)}
        assert set(seen_by("vector", encoder, toy)) == {(1, width), (width,), (0,)}
    assert set(seen_by("layers", toy.network, toy, layer=1)) == {(1, 8), (0,)}
    frames = seen_by("frames", toy.network, toy)
    assert frames[0] == (3, 8) and {s[-1] for s in frames[1:] if s != (0,)} == {24}
    assert {s[-1] for s in seen_by("frames", toy.text, toy)} == {16, 0}
    assert set(seen_by("tokens", toy.text, toy)) == {(1, 16), (16,), (0,)}
    with pytest.raises(InputError, match="no frames"):
        seen_by("frames", toy.measured, toy)
    with pytest.raises(InputError, match="gives no layer 1"):
        seen_by("layers", toy.text, toy, layer=1)
    with pytest.raises(InputError, match="gives no context"):
        seen_by("layers", toy.network, toy, context=1)


@pytest.mark.usefixtures("registry")
def test_a_new_head_comes_back_from_disk(toy: Toy, tmp_path: Path) -> None:
    @register("wide", reads="layers", modalities=("speech",))
    class WideRecipe(HeadRecipe):
        "All layers, each with its own weights."

        lr = 1e-2
        epochs = 2
        spread: int = 2

        def build(self, layers: int, width: int, classes: int) -> nn.Module:
            class Head(nn.Module):
                def __init__(self, spread: int) -> None:
                    super().__init__()
                    self.first, self.out = nn.Linear(layers * width, spread), nn.Linear(spread, classes)

                def forward(self, x: torch.Tensor) -> torch.Tensor:
                    return self.out(self.first(x.flatten(1)).relu())

            return Head(self.spread)

    model = fit(toy.train, toy.dev, LABELS, toy.network, configure("wide", spread=4, normalisation="source"))
    folder = model.save(tmp_path / "model")
    again = Model.load(folder, toy.network)
    assert again.config == WideRecipe(spread=4, normalisation="source") and model.vectors(toy.dev).shape == (12, 4)
    assert np.array_equal(again.predict(toy.dev), model.predict(toy.dev))
    assert settings_of("wide")["lr"] == 1e-2 and "context" not in settings_of("wide")
    del recipes._RECIPES["wide"]
    with pytest.raises(InputError, match=r"unknown classifier; .* found 'wide'; run the cell that registers it"):
        Model.load(folder, toy.network)


@pytest.mark.usefixtures("registry")
def test_a_head_of_another_signature_is_one_clear_line(toy: Toy) -> None:
    @register("odd", reads="layers")
    class OddRecipe(HeadRecipe):
        "Calls its input otherwise."

        def build(self, layers: int, width: int, classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(layers * width, classes))

    with pytest.raises(InputError, match=r"the head of 'odd' takes no x; expected forward\(self, x\); found input"):
        fit(toy.train, toy.dev, LABELS, toy.network, OddRecipe())
    with pytest.raises(InputError, match="reads 'pixels'"):
        register("seen", reads="pixels")
    with pytest.raises(InputError, match="two recipes are called 'conv'"):
        register("conv", reads="frames")(type("Other", (HeadRecipe,), {"__doc__": "Another."}))


@pytest.mark.parametrize(("classifier", "settings", "told"), [
    ("logistic", {"lr": 1e-3}, "'logistic' takes no lr; expected select, balance, shares, soft_labels, smoothing, seed, norm"),
    ("conv", {"layer": 3}, "'conv' takes no layer"), ("mlp", {"context": 1}, "'mlp' takes no context"),
    ("finetune", {"normalisation": "source"}, "'finetune' takes no normalisation"),
    ("attentive", {"hidden": 3}, "'attentive' takes no hidden"), ("context", {"layer": 0}, "'context' takes no layer"),
    ("linear", {"ecpochs": 3, "strengths": (1.0,)}, "'linear' takes no ecpochs, strengths; .* did you mean epochs"),
    ("forest", {}, "unknown classifier; expected one of conv, linear, .* found 'forest'"), ([], {}, "unknown classifier"),
])
def test_what_a_method_does_not_take_is_one_line_with_what_it_takes(classifier: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as e:
        configure(classifier, **settings)
    assert "\n" not in str(e.value)


def test_every_method_says_what_it_reads() -> None:
    for name in recipe_names():
        recipe = find_recipe(name)
        assert recipe.__doc__ and recipe.reads in recipes.INPUT_FORMS
        assert configure(name) == recipe() and recipe.classifier == name
        assert configure(name, **{k: None for k in settings_of(name)}) == recipe(), "None takes the default"
    assert set(recipe_names("text")) == {"logistic", "svm", "linear", "conv", "finetune"}
    assert set(recipe_names("speech")) == {"logistic", "svm", "linear", "weighted_sum", "mlp", "attentive"}


def test_a_closed_notebook_leaves_the_recipes_of_the_kit(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    "A cell that registers a name of the kit replaces it, until another notebook takes the place of `__main__`."
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    code = "from zsemo_kit.training.heads import HeadRecipe\nfrom zsemo_kit.training.recipes import register\n" \
        "@register('conv', reads='frames')\nclass MyConv(HeadRecipe):\n    'Mine.'\n"
    exec(code, vars(notebook))
    assert find_recipe("conv") is notebook.MyConv
    late = register("conv", reads="frames")(type("LateConv", (HeadRecipe,), {"__doc__": "Of a module that is imported later."}))
    assert find_recipe("conv") is notebook.MyConv
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    assert find_recipe("conv") is late and "conv" in recipe_names("text")


def test_recipes_of_other_packages_are_found(tmp_path: Path, install: Callable[..., None]) -> None:
    "A distribution as pip leaves it; a broken one is a warning."
    install(
        "their_heads",
        "from torch import nn\n"
        "from zsemo_kit.training.heads import HeadRecipe\n"
        "from zsemo_kit.training.recipes import register\n\n\n"
        "@register('theirs', reads='layers')\n"
        "class TheirRecipe(HeadRecipe):\n"
        "    'A head of theirs.'\n\n"
        "    rank: int = 8\n\n"
        "    def build(self, layers, width, classes):\n"
        "        return nn.Linear(width, classes)\n",
        "zsemo_kit.recipes", their_heads="their_heads", broken_heads="heads_that_are_gone")
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from zsemo_kit.training.recipes import configure, recipe_names\n"
            "print(configure('theirs', rank=4).rank, 'theirs' in recipe_names('text'), 'conv' in recipe_names())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "True", "True"]
    assert "recipes of heads_that_are_gone cannot be loaded (ModuleNotFoundError" in done.stderr


# encoders


KEYS = {  # under which features of these words and this tone have been kept since the cache began
    "text vector": "5c24c59078c053db5ea399efed27756e769763b627f3a14c203940b73e958743",
    "text frames": "ecaee9220a8f703160b45fc80594bd8ed2dbd5637ba6b8762bc94292e944e706",
    "measured layers": "175d98d3be09a4fca29c5042f5cce6948693f78a0ed77b7d6bfacd45c775bc80",
    "network layers": "7ee46ab3d1de07c4681795b6a7a899a52f467de9cafe9f483e85a9bfc74abc3a",
    "network frames": "35db508770219128297e4811c56ee703c3b0abcd9bdc88f11b4b114e794ba1b6",
    "network frames of a layer": "ff63e4d518f0f46b487db5f32de3aa425b191f4603aac6b619a18eec24815c8e",
}


class Spy:
    "A cache that remembers the last key that it was asked for."

    def __init__(self, cache: Any) -> None:
        self.cache, self.key = cache, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    def fill(self, keys: list[bytes], *args: Any, **more: Any) -> None:
        self.key = keys[-1].hex()
        self.cache.fill(keys, *args, **more)


def test_cached_features_are_still_found(toy: Toy, tmp_path: Path) -> None:
    "The key of each kind of feature, for weights that are pinned: raise `_VERSION` if a value changes, or leave it as it is."
    with wave.open(str(tmp_path / "a.wav"), "wb") as f:
        f.setparams((1, 2, 16_000, 0, "NONE", ""))
        f.writeframes((3000 * np.sin(np.arange(8000) / 20)).astype("<i2").tobytes())
    table = pd.DataFrame({"utterance": ["a", "b"], "dialogue": "d", "turn": [0, 1], "speaker": ["x", "y"], "emotion": "sad",
                          "text": ["Yes.", "No!"], "audio": "a.wav"})
    corpus = Corpus("c", table, tmp_path, space="four")

    def key(encoder: Any, mark: str, reads: str, **settings: Any) -> str:
        spy = Spy(encoder.cache)
        replace(encoder, fingerprint=mark * 32, cache=spy).features(corpus, reads, **settings)
        return spy.key

    text = toy.text.within(128)
    assert {
        "text vector": key(replace(text, max_tokens=128), "0", "vector", context=1),
        "text frames": key(replace(text, max_tokens=128), "0", "frames"),
        "measured layers": key(toy.measured, "1", "layers"), "network layers": key(toy.network, "2", "vector"),
        "network frames": key(toy.network, "2", "frames"),
        "network frames of a layer": key(toy.network, "2", "frames", layer=1),
    } == KEYS


def test_an_encoder_of_another_package_is_opened_by_name(tmp_path: Path, toy: Toy, install: Callable[..., None]) -> None:
    "In a study, and by a saved model that stands on it; one that cannot be opened, or reads something else, is one line."
    install(
        "their_encoders",
        "import numpy as np\n"
        "import torch\n"
        "from zsemo_kit.core.cache import FeatureCache, default_cache\n\n\n"
        "class Lengths:\n"
        "    name, modality, layers, width, fingerprint = 'lengths', 'text', 1, 2, 'lengths-1'\n\n"
        "    def __init__(self, device='auto'):\n"
        "        self.cache, self.device = FeatureCache(default_cache()), torch.device('cpu')\n\n"
        "    def features(self, corpus, reads, **settings):\n"
        "        x = np.array([[len(t), t.count('a')] for t in corpus.table['text']], np.float32)\n"
        "        return x[:, None] if reads == 'layers' else x\n\n"
        "    def within(self, max_tokens):\n"
        "        return self\n",
        "zsemo_kit.encoders", lengths="their_encoders:Lengths", gone="encoders_that_are_gone:Gone")
    encoder = open_encoder({"modality": "text", "encoder": "lengths"})
    model = fit(toy.train, toy.dev, LABELS, encoder, configure(scale="standard"))
    again = Model.load(model.save(tmp_path / "model"))
    assert again.encoder.fingerprint == "lengths-1" and np.array_equal(again.predict(toy.dev), model.predict(toy.dev))
    with pytest.raises(InputError, match="the encoder 'lengths' reads text; expected speech"):
        open_encoder({"modality": "speech", "encoder": "lengths"})
    with pytest.raises(InputError, match="the encoder 'gone' cannot be opened; expected a function or class"):
        open_encoder({"modality": "text", "encoder": "gone"})


# on disk


def test_a_model_of_the_old_format_says_how_to_make_it_again(toy: Toy, tmp_path: Path) -> None:
    model = fit(toy.train, toy.dev, LABELS, toy.text, configure())
    stage = fit_conversation(toy.train, toy.dev, LABELS, (model,), ContextRecipe(hidden=8, heads=2, epochs=1))
    for made, name, load in ((model, "model.json", Model.load), (stage, "conversation.json", Conversation.load)):
        file = made.save(tmp_path / name) / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
        told = "another version of zsemo_kit; expected format 2; found format 1; train it again"
        with pytest.raises(InputError, match=told) as e:
            load(file.parent)
        assert "\n" not in str(e.value)


# checkpoints


SHORT: dict[str, dict[str, Any]] = {
    "linear": {"epochs": 6, "lr": 1e-2, "batch": 8, "dropout": 0.3, "balance": "sampling"},
    "conv": {"epochs": 4, "batch": 8},
    "finetune": {"epochs": 4, "lr": 3e-3, "batch": 8, "dropout": 0.3},
}


def cut_off(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    "The next training is interrupted after so many rounds; a checkpoint is written after each."
    real, left = TrainingJob.scores, [rounds]

    def scores(job: TrainingJob, model: nn.Module) -> dict[str, Any]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(job, model)

    monkeypatch.setattr(Checkpoint, "is_due", lambda *_: True)
    monkeypatch.setattr(TrainingJob, "scores", scores)


@pytest.mark.parametrize("classifier", SHORT)
def test_a_training_that_was_cut_off_comes_to_the_same_numbers(
    classifier: str, toy: Toy, own_cache: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = configure(classifier, seed=2, patience=0, **SHORT[classifier])

    def train(resume: bool) -> Model:
        return fit(toy.train, toy.dev, LABELS, toy.text, recipe, resume=resume)

    whole, points = train(False), own_cache / "stages"
    with monkeypatch.context() as patch:
        cut_off(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(True)
    (point,) = points.glob(f"{classifier}-*.pt")
    assert len(torch.load(point, weights_only=True)["history"]) == 2
    judged: list[int] = []
    real = TrainingJob.scores
    monkeypatch.setattr(TrainingJob, "scores", lambda job, model: judged.append(1) or real(job, model))
    again = train(True)
    assert len(judged) == recipe.epochs - 2 and not list(points.glob("*.pt"))
    pd.testing.assert_frame_equal(again.history.drop(columns="seconds"), whole.history.drop(columns="seconds"), check_exact=True)
    assert np.array_equal(again.predict(toy.dev), whole.predict(toy.dev))


def test_a_stage_that_was_cut_off_comes_to_the_same_numbers(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = (fit(toy.train, toy.dev, LABELS, toy.text, configure()),)
    recipe, point = ContextRecipe(hidden=8, heads=2, epochs=5, batch=2, patience=0), Checkpoint(tmp_path / "point.pt")

    def train(checkpoint: Checkpoint | None = None) -> Conversation:
        return fit_conversation(toy.train, toy.dev, LABELS, below, recipe, checkpoint=checkpoint)

    whole = train()
    with monkeypatch.context() as patch:
        cut_off(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(point)
    again = train(point)
    assert np.array_equal(again.predict(toy.dev), whole.predict(toy.dev)) and not point.file.exists()


def test_a_damaged_checkpoint_is_told_and_training_begins_anew(tmp_path: Path) -> None:
    point = Checkpoint(tmp_path / "point.pt", every=0)
    point.file.write_bytes(b"no checkpoint")
    with pytest.warns(UserWarning, match="cannot be read .* begins anew"):
        assert point.read() == {}
    (tmp_path / "taken").write_text("a file")
    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        Checkpoint(tmp_path / "taken" / "point.pt").write({"history": []})


def clouds(recipe: LoopRecipe, weights: list[float]) -> nn.Module:
    "A network that was trained on two clouds of points."
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 32)
    points = torch.from_numpy((rng.standard_normal((64, 6)) + y[:, None]).astype(np.float32))
    targets, data = np.eye(2, dtype=np.float32)[y], Data(np.ones(64, int), lambda units: {"input": points[units]})
    job = TrainingJob(recipe, data, targets, np.array(weights, np.float32), None, data, targets, y, torch.device("cpu"), False)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimise(network, job)
    return network


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.2, 3.0]])
def test_eight_and_eight_are_sixteen(weights: list[float]) -> None:
    settings: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "patience": 0, "clip": 1.0}
    once, twice = (clouds(LoopRecipe(batch=b, accumulate=a, **settings), weights) for b, a in ((16, 1), (8, 2)))
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    other = clouds(LoopRecipe(batch=8, **settings), weights)
    assert not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(once.parameters(), other.parameters(), strict=True))
    assert loop.LoopRecipe().accumulate == 1
