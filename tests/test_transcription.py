"""Listening: real classes of transformers with random weights, pocketsphinx on generated speech, WER by hand."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from zsemo_kit.core import settings as session
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.audio import RATE, load_audio, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.corpora.text import remember, texts_of
from zsemo_kit.synthesis import transcription
from zsemo_kit.synthesis.transcription import (
    Recogniser, count_edits, normalise_words, open_listener, transcribe, transcribe_corpus, wer,
)
from zsemo_kit.synthesis.voices import open_engine

pytestmark = pytest.mark.usefixtures("own_cache")

pytest.importorskip("jiwer")
HAS_SPHINX = importlib.util.find_spec("pocketsphinx") is not None
HAS_ESPEAK = importlib.util.find_spec("espeakng_loader") is not None


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose colour changes, so that a random model says something."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    rough = rng.normal(size=n) * (1 + np.sin(np.arange(n) / 900))
    return (0.1 * rough + 0.1 * np.sin(np.arange(n) ** 1.1 / 30)).astype(np.float32)


# models, made here

def ctc_parts(folder: Path, *, masked: bool) -> Wav2Vec2Config:
    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefgh"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=masked, do_normalize=True)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))).save_pretrained(folder)
    return Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0,
        conv_dim=(16, 16, 16), conv_stride=(5, 8, 8), conv_kernel=(10, 8, 8), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer" if masked else "group", do_stable_layer_norm=masked)


def make_ctc(folder: Path, *, masked: bool = True) -> Path:
    config = ctc_parts(folder, masked=masked)
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # so that it does not say the same letter throughout
    model.save_pretrained(folder)
    return folder


def make_whisper(folder: Path, languages: tuple[str, ...] = ("en", "de", "pl")) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={c: i for i, c in enumerate([*letters, "<|endoftext|>"])}, merges=[])
    marks = ["<|startoftranscript|>", *(f"<|{x}|>" for x in languages), "<|translate|>", "<|transcribe|>", "<|startoflm|>",
             "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    number = {t: tokenizer.convert_tokens_to_ids(t) for t in ["<|endoftext|>", *marks]}
    WhisperProcessor(WhisperFeatureExtractor(feature_size=20), tokenizer).save_pretrained(folder)
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=20, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=32,
        decoder_start_token_id=number["<|startoftranscript|>"], pad_token_id=number["<|endoftext|>"],
        bos_token_id=number["<|endoftext|>"], eos_token_id=number["<|endoftext|>"], suppress_tokens=None,
        begin_suppress_tokens=None, init_std=1.0))
    multilingual = {"lang_to_id": {f"<|{x}|>": number[f"<|{x}|>"] for x in languages},
                    "task_to_id": {t: number[f"<|{t}|>"] for t in ("translate", "transcribe")}} if languages else {}
    model.generation_config = GenerationConfig(
        is_multilingual=bool(languages), no_timestamps_token_id=number["<|notimestamps|>"], pad_token_id=number["<|endoftext|>"],
        bos_token_id=number["<|endoftext|>"], eos_token_id=number["<|endoftext|>"],
        decoder_start_token_id=number["<|startoftranscript|>"], **multilingual)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    folder = make_ctc(tmp_path_factory.mktemp("models") / "ctc")
    with session.settings(cache=folder.parent / "cache"):
        return open_listener(str(folder), device="cpu")


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("models") / "whisper")


@pytest.fixture(scope="module")
def whisper(whisper_folder: Path) -> Recogniser:
    with session.settings(cache=whisper_folder.parent / "cache"):
        return open_listener(str(whisper_folder), language="german", device="cpu")


# word error rate

@pytest.mark.parametrize(("said", "heard", "rate"), [
    ("a b c d", "a b c d", 0), ("a b c d", "a x c d", 1 / 4), ("a b c d", "a c d", 1 / 4), ("a b c d", "a b b c d", 1 / 4),
    ("a b", "", 1), ("a", "x y z", 3), ("Well-known; it's ME!", "well known its me", 1 / 4),
    ("\u201cDon\u2019t\u201d", "don't", 0),
])
def test_word_error_rate_by_hand(said: str, heard: str, rate: float) -> None:
    assert wer(said, heard) == pytest.approx(rate)


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "don't", "3.5"]), max_size=8).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_word_error_rate_is_the_pooled_edit_distance(pairs: list[tuple[str, str]]) -> None:
    said, heard = [p[0] for p in pairs], [p[1] for p in pairs]
    table = count_edits(said, heard)
    wrong = table.substitutions + table.deletions + table.insertions
    distances = [levenshtein(s.split(), h.split()) for s, h in pairs]
    assert wrong.tolist() == distances
    assert (table.hits + table.substitutions + table.deletions == table.words).all()
    words = [len(s.split()) for s in said]
    counted = sum(d for d, n in zip(distances, words, strict=True) if n)
    assert wer(said, heard) == pytest.approx(counted / sum(words)) if sum(words) else math.isnan(wer(said, heard))


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_words(text)
    assert normalise_words(once) == once
    assert once == once.strip() and "  " not in once


@pytest.mark.parametrize(("text", "clean"), [
    ("Hello, WORLD!", "hello world"), ("rock 'n' roll", "rock n roll"), ("the dogs' door", "the dogs door"),
    ("it\u2019s 10:30 \u2013 3.5%", "it's 10:30 3.5"),
    ("snake_case", "snake case"), ("Über-Übung…", "über übung"), ("[laughs]", "laughs"),
    ("1,000.", "1,000"), ("", ""),
])
def test_normalisation(text: str, clean: str) -> None:
    assert normalise_words(text) == clean


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="hypotheses"):
        count_edits(["a"], ["a", "b"])


# transformers

def test_a_ctc_model_is_decoded_as_its_own_processor_does(ctc: Recogniser) -> None:
    processor = Wav2Vec2Processor.from_pretrained(ctc.name)
    model = Wav2Vec2ForCTC.from_pretrained(ctc.name).eval()
    for seed, seconds in enumerate((0.5, 1.0, 2.0)):
        inputs = processor(sound(seconds, seed), sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            expected = processor.batch_decode(model(**inputs).logits.argmax(-1))[0].strip()
        assert ctc.hear(sound(seconds, seed)) == expected
    assert len({ctc.hear(sound(1, s)) for s in range(4)}) > 1  # the model does tell sounds apart


def test_words_do_not_depend_on_the_batch(ctc: Recogniser, whisper: Recogniser, tmp_path: Path) -> None:
    unmasked = open_listener(str(make_ctc(tmp_path / "m", masked=False)), device="cpu")
    sounds = [sound(s, i) for i, s in enumerate((1.0, 0.5, 2.0, 1.7, 0.3))]
    for listener in (ctc, unmasked, whisper):
        assert listener.hear_all(sounds) == [listener.hear(s) for s in sounds]


def test_batches_hold_sounds_of_similar_length(ctc: Recogniser) -> None:
    sizes: list[list[int]] = []
    hook = ctc.model.register_forward_pre_hook(
        lambda _m, _a, kw: sizes.append(kw["attention_mask"].sum(1).tolist()), with_kwargs=True)
    replace(ctc, batch=2).hear_all([sound(s) for s in (0.5, 2.0, 0.6, 2.1)])
    hook.remove()
    assert [[round(n / RATE, 1) for n in batch] for batch in sizes] == [[2.1, 2.0], [0.6, 0.5]]


def test_whisper_writes_what_its_own_processor_would(whisper: Recogniser, whisper_folder: Path) -> None:
    processor = WhisperProcessor.from_pretrained(whisper_folder)
    model = WhisperForConditionalGeneration.from_pretrained(whisper_folder).eval()
    inputs = processor(sound(1.5), sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    ids = model.generate(**inputs, language="de", task="transcribe", max_new_tokens=16, do_sample=False, num_beams=1)
    expected = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert whisper.hear(sound(1.5)) == expected
    assert expected, "the random model says something"


def prompts(listener: Recogniser) -> list[str]:
    """What the decoder is given before it writes."""
    seen: list[torch.Tensor] = []
    hook = listener.model.model.decoder.register_forward_pre_hook(
        lambda _m, _a, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    listener.hear(sound(1))
    hook.remove()
    return listener.tokenizer.convert_ids_to_tokens(seen[0][0])


def test_a_multilingual_whisper_is_told_the_language(whisper: Recogniser, whisper_folder: Path) -> None:
    assert prompts(whisper) == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    polish = open_listener(str(whisper_folder), language="PL", device="cpu")
    assert prompts(polish)[1] == "<|pl|>"
    assert polish.fingerprint != whisper.fingerprint  # else one language would be given the other's words


def test_a_language_that_a_model_does_not_know_is_refused(whisper_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'finnish'.*de, en, pl"):
        open_listener(str(whisper_folder), language="finnish")
    english = make_whisper(tmp_path / "english", languages=())
    assert open_listener(str(english), language="English", device="cpu").hear(sound(1)) is not None
    with pytest.raises(InputError, match="en, which is all"):
        open_listener(str(english), language="de")


def test_a_long_sound_is_heard_whole(ctc: Recogniser, whisper: Recogniser) -> None:
    long = np.concatenate([sound(27), np.zeros(RATE, np.float32), sound(10, 1)])
    for listener in (ctc, whisper):
        parts = transcription._pieces(long)
        assert len(parts) == 2 and listener.hear(long) == " ".join(t for t in listener.hear_all(parts) if t)


@settings(max_examples=25, deadline=None)
@given(seconds=st.floats(0, 130), seed=st.integers(0, 5))
def test_pieces_are_the_whole_and_none_is_too_long(seconds: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=int(seconds * RATE)).astype(np.float32)
    parts = transcription._pieces(x)
    assert np.array_equal(np.concatenate(parts), x)
    assert all(len(p) <= 30 * RATE for p in parts) and all(len(p) >= 25 * RATE for p in parts[:-1])


@pytest.mark.parametrize("quiet", [np.zeros(0), np.zeros(100), np.zeros(RATE), np.full(RATE, 1e-5), np.ones(100)])
def test_silence_and_clicks_have_no_words(ctc: Recogniser, whisper: Recogniser, quiet: np.ndarray) -> None:
    for listener in (ctc, whisper, *([open_listener()] if HAS_SPHINX else [])):
        assert listener.hear(quiet.astype(np.float32)) == ""


# what is refused

def spoilt(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        change(make_ctc(folder))
        return folder
    return make


def without_head(folder: Path) -> Path:
    config = ctc_parts(folder, masked=True)
    Wav2Vec2Model(config).save_pretrained(folder)
    return folder


def head_is_missing(folder: Path) -> Path:
    config = json.loads((without_head(folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Wav2Vec2ForCTC"]}))
    return folder


def slow(folder: Path) -> None:
    file = folder / "processor_config.json"
    file = file if file.exists() else folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace("16000", "8000"))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"weights that could run code")


@pytest.mark.parametrize(("make", "told"), [
    (without_head, "no listener"), (head_is_missing, "lacks weights"), (spoilt(slow), "16 kHz"), (spoilt(pickled), "safetensors"),
    (spoilt(lambda f: (f / "model.safetensors").write_bytes(b"cut")), "cannot be read"),
    (spoilt(lambda f: (f / "config.json").write_text("{")), "cannot be read"),
    (spoilt(lambda f: (f / "config.json").unlink()), "config.json"),
    (lambda f: f.mkdir() or f, "empty folder"), (lambda f: f, "no folder"),
], ids=["no head", "missing head", "8 kHz", "pickle", "cut weights", "bad config", "no config", "empty", "gone"])
def test_what_is_no_listener_is_refused_in_one_line(tmp_path: Path, make: Callable[[Path], Path], told: str) -> None:
    folder = make(tmp_path / "model")
    with pytest.raises(InputError, match=told) as e:
        open_listener(str(folder), device="cpu")
    assert "model" in str(e.value) and "\n" not in str(e.value)


def test_weights_that_cannot_be_fetched_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **_: object) -> str:
        raise ConnectionError("no network")
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(InputError, match=r"'openai/whisper-large-v3'.*local folder") as e:
        open_listener("openai/whisper-large-v3")
    assert "\n" not in str(e.value)


def test_a_hub_copy_without_safetensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    asked: list[bool] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download",
                        lambda name, *, local_files_only, **_: asked.append(local_files_only) or str(tmp_path))
    with pytest.raises(InputError, match="no weights as safetensors"):
        open_listener("some/model")
    assert asked == [True, False, False]  # the local copy first, pickles last


def test_no_device_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="abacus"):
        open_listener(str(tmp_path), device="abacus")


# a corpus

@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    root = tmp_path / "corpus"
    for i in range(5):
        save_audio(root / f"{i}.wav", sound(0.5 + 0.3 * i, i))
    (root / "broken.wav").write_bytes(b"RIFF, but no more")
    audio = ["0.wav", "gone.wav", "1.wav", "broken.wav", "2.wav", "", "3.wav", "4.wav"]
    return Corpus("c", pd.DataFrame({"utterance": [f"u{i}" for i in range(8)], "audio": audio, "emotion": "neutral"}), root)


def test_a_bad_file_is_a_row_with_its_problem(corpus: Corpus, ctc: Recogniser, tmp_path: Path) -> None:
    table = transcribe(corpus, ctc)
    assert list(table) == ["utterance", "text", "problem"] and table.utterance.tolist() == corpus.table.utterance.tolist()
    good = corpus.table.audio.str.fullmatch(r"\d\.wav")
    assert table.problem.eq("").tolist() == good.tolist()
    assert table.text[~good].eq("").all()
    assert table.text[good].tolist() == [ctc.hear(load_audio(corpus.root / a)) for a in corpus.table.audio[good]]
    assert not table.problem.str.contains(str(corpus.root)).any()


def test_words_are_heard_once(corpus: Corpus, ctc: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    real = Recogniser.hear_all
    monkeypatch.setattr(Recogniser, "hear_all", lambda self, sounds: heard.append(len(sounds)) or real(self, sounds))
    first = transcribe(corpus, ctc)
    assert sum(heard) == 5
    pd.testing.assert_frame_equal(transcribe(corpus, ctc), first)
    assert sum(heard) == 5
    renamed = replace(corpus, table=corpus.table.assign(utterance=[f"v{i}" for i in range(8)]))
    assert transcribe(renamed, ctc).text.tolist() == first.text.tolist() and sum(heard) == 5
    save_audio(corpus.root / "0.wav", sound(2, 9))
    assert transcribe(corpus, ctc).text[0] == ctc.hear(load_audio(corpus.root / "0.wav"))
    transcribe(corpus, replace(ctc, fingerprint="another model"))
    assert sum(heard) == 5 + 1 + 1 + 5  # the changed file, the line above, and all for another model


def test_a_sound_that_a_model_cannot_hear_ends_nothing(corpus: Corpus, ctc: Recogniser, tmp_path: Path) -> None:
    extractor = ctc.extractor
    longest = round(1.7 * RATE)

    def deaf(sounds: list[np.ndarray], **kw: object) -> object:
        if any(len(s) == longest for s in sounds):
            raise RuntimeError("out of\nmemory")
        return extractor(sounds, **kw)

    deaf.return_attention_mask = True  # type: ignore[attr-defined]
    table = transcribe(corpus, replace(ctc, extractor=deaf, fingerprint="deaf"))
    assert table.problem[7] == "RuntimeError: out of memory" and table.text[7] == ""
    assert table.problem[[0, 2, 4, 6]].eq("").all() and table.text[[0, 2, 4, 6]].ne("").any()


def test_memory_is_bounded(corpus: Corpus, ctc: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcription, "_HELD", RATE)
    sizes: list[int] = []
    real = Recogniser.hear_all
    monkeypatch.setattr(Recogniser, "hear_all", lambda self, sounds: sizes.append(len(sounds)) or real(self, sounds))
    rows = sorted(row for row, _, problem in ctc.texts(corpus) if not problem)
    assert rows == [0, 2, 4, 6, 7] and max(sizes) <= 2


def test_an_empty_corpus(corpus: Corpus, ctc: Recogniser, tmp_path: Path) -> None:
    table = transcribe(corpus.where({"utterance": "nobody"}), ctc)
    assert len(table) == 0 and list(table) == ["utterance", "text", "problem"]


@given(st.text())
def test_the_cache_keeps_any_text(text: str) -> None:
    assert transcription._as_text(transcription._as_numbers(text)) == text


class Parrot:
    """Says the row's number and its length in tenths of a second."""

    name = fingerprint = "parrot"

    def texts(self, corpus: Corpus) -> Iterator[tuple[int, str | None, str]]:
        for row, audio in enumerate(corpus.table.audio):
            try:
                yield row, f"heard {len(load_audio(corpus.root / audio)) // 1600}", ""
            except InputError as e:
                yield row, None, str(e)


def test_a_corpus_in_the_words_that_are_heard(corpus: Corpus, tmp_path: Path) -> None:
    said = replace(corpus, table=corpus.table.assign(text=[f"Line {i}." for i in range(8)], mine=range(8)))
    with pytest.warns(UserWarning, match=r"3 of 8 utterances of 'c' could not be heard, 'u1' first \(column text_problem"):
        made = transcribe_corpus(said, Parrot())
    t = made.table
    assert t.text.tolist() == ["heard 5", "", "heard 8", "", "heard 11", "", "heard 14", "heard 17"]
    assert t.text_problem.ne("").tolist() == t.text.eq("").tolist() and t.text_reference.tolist() == said.table.text.tolist()
    others = [c for c in said.table if c != "text"]
    pd.testing.assert_frame_equal(t[others], said.table[others])
    assert said.table.text[0] == "Line 0." and (made.name, made.root, made.space) == (said.name, said.root, said.space)
    assert wer(t.text_reference[[0, 2]], t.text[[0, 2]]) == 1


def test_a_second_listener_keeps_the_first_reference(corpus: Corpus, tmp_path: Path) -> None:
    said = replace(corpus, table=corpus.table.assign(text="Oh.")).where({"utterance": ["u0", "u2"]})
    once = transcribe_corpus(said, Parrot())
    twice = transcribe_corpus(once, Parrot())
    pd.testing.assert_frame_equal(twice.table, once.table)
    assert twice.table.text_reference.tolist() == ["Oh.", "Oh."]
    folder = once.save(tmp_path / "saved")
    assert Corpus.load(folder).table.text_reference.tolist() == ["Oh.", "Oh."]


def test_the_past_is_in_the_same_words(corpus: Corpus, tmp_path: Path) -> None:
    rows = corpus.table.assign(dialogue=list("aaaabbbb"), turn=list(range(8)), text="as written")
    whole = remember(replace(corpus, table=rows).where({"utterance": ["u0", "u2", "u4", "u6"]}), 2)
    made = transcribe_corpus(whole, Parrot())
    assert made.table.history.tolist() == ["", "heard 5", "", "heard 11"]
    assert not any("written" in t for t in texts_of(made, 2))
    alone = replace(whole, table=whole.table.assign(history=""))
    assert transcribe_corpus(alone, Parrot()).table.history.eq("").all(), "single lines stay single"


def test_a_corpus_that_cannot_be_heard_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no utterance of 'c' could be heard; found u1:") as e:
        transcribe_corpus(corpus.where({"utterance": ["u1", "u5"]}), Parrot())
    assert str(corpus.root) not in str(e.value)
    none = transcribe_corpus(corpus.where({"utterance": "nobody"}), Parrot())
    assert len(none) == 0 and {"text_reference", "text_problem"} <= set(none.table)
    empty = remember(corpus.where({"utterance": "nobody"}))
    assert len(transcribe_corpus(empty, Parrot())) == 0


# pocketsphinx

LINES = [
    "Please close the window before you go to bed.", "I have never seen anything like this before.",
    "We will meet again tomorrow morning at the station.", "My brother wants to buy a new car.",
]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Generated speech, one voice."""
    if not (HAS_SPHINX and HAS_ESPEAK):
        pytest.skip("pocketsphinx and espeakng-loader are needed")
    root = tmp_path_factory.mktemp("spoken")
    engine = open_engine("espeak")
    voice = engine.voices("en")[0]
    for i, line in enumerate(LINES):
        save_audio(root / f"{i}.wav", engine.say(line, voice))
    return Corpus("spoken", pd.DataFrame({
        "utterance": [f"u{i}" for i in range(len(LINES))], "text": LINES, "emotion": "neutral",
        "audio": [f"{i}.wav" for i in range(len(LINES))]}), root)


def test_clear_speech_is_understood_better_than_chance(spoken: Corpus, tmp_path: Path) -> None:
    """Chance: the same words heard, laid beside the sentences of others."""
    heard = transcribe(spoken, open_listener())
    assert heard.problem.eq("").all()
    rate = wer(LINES, heard.text)
    chance = np.mean([wer(LINES, np.roll(heard.text, k)) for k in range(1, len(LINES))])
    print(f"WER of pocketsphinx on espeak: {rate:.3f}, chance {chance:.3f}")
    assert rate < 0.75 * chance


def test_pocketsphinx_does_not_remember(spoken: Corpus) -> None:
    sounds = [load_audio(spoken.root / a)[: 2 * RATE] for a in spoken.table.audio[:3]]
    sphinx = open_listener()
    assert [sphinx.hear(s) for s in sounds] == [sphinx.hear(s) for s in sounds[::-1]][::-1]


def test_two_processes_hear_what_one_hears(spoken: Corpus, tmp_path: Path) -> None:
    some = spoken.where(spoken.table.utterance.isin(["u1", "u3"]))
    with session.settings(jobs=1, cache=tmp_path / "1"):
        one = transcribe(some, open_listener())
    with session.settings(jobs=2, cache=tmp_path / "2"):
        two = transcribe(some, open_listener())
    pd.testing.assert_frame_equal(one, two)


def test_pocketsphinx_knows_english_only() -> None:
    with pytest.raises(InputError, match="'polish'"):
        open_listener(language="polish")


@pytest.mark.parametrize(("package", "work"), [("pocketsphinx", "open_listener()"), ("jiwer", "wer('a', 'a')")])
def test_a_missing_extra_is_named(package: str, work: str) -> None:
    code = (f"import sys; sys.modules[{package!r}] = None\nfrom zsemo_kit.synthesis.transcription import *\n"
            f"from zsemo_kit.core.errors import InputError\ntry: {work}\nexcept InputError as e: print(e)\n"
            "assert 'torch' not in sys.modules")  # processes that run pocketsphinx stay small
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ).stdout
    assert package in told and "zsemo_kit[listen]" in told
