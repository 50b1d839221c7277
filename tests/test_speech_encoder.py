"""Speech encoders: equal to s3prl's own, masks that hold, computed once, and bad files that end nothing."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import own_terms, save_audio, utterance_audio
from zsemo_kit.corpora.recorded_cues import CUES
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis.acoustics import measure_cues
from zsemo_kit.training import speech_encoder as module
from zsemo_kit.training.heads import WeightedSumHead
from zsemo_kit.training.speech_encoder import SpeechEncoder, upstream_names

pytestmark = pytest.mark.usefixtures("own_cache")

pytest.importorskip("s3prl")
pytest.importorskip("opensmile")

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
FAMILIES = {
    "hubert group": (HubertModel, HubertConfig(**SIZES, feat_extract_norm="group"), False),
    "hubert layer": (HubertModel, HubertConfig(**SIZES, feat_extract_norm="layer", do_stable_layer_norm=True), True),
    "wav2vec2": (Wav2Vec2Model, Wav2Vec2Config(**SIZES, feat_extract_norm="layer", do_stable_layer_norm=True), True),
    "wavlm": (WavLMModel, WavLMConfig(**SIZES, feat_extract_norm="layer", do_stable_layer_norm=True), True),
}


def saved(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    made, config, mask = FAMILIES[family]
    made(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=mask).save_pretrained(folder)
    return folder


def sounds(folder: Path, seconds: list[float], seed: int = 0, name: str = "sounds") -> Corpus:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i, s in enumerate(seconds):
        t = np.arange(int(16_000 * s)) / 16_000
        tone = sum(rng.uniform(0.02, 0.1) * np.sin(2 * np.pi * rng.uniform(90, 3000) * t) for _ in range(4))
        save_audio(folder / f"{i}.wav", tone + 0.01 * rng.standard_normal(len(t)))
    return Corpus(name, pd.DataFrame({"utterance": [f"u{i}" for i in range(len(seconds))], "emotion": "neutral",
                                      "audio": [f"{i}.wav" for i in range(len(seconds))]}), root=folder)


@pytest.fixture(scope="session", autouse=True)
def silent() -> None:
    "s3prl is imported first by the module, which keeps it quiet."
    upstream_names()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: saved(family, root / family.replace(" ", "_")) for family in FAMILIES}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return sounds(tmp_path_factory.mktemp("corpus"), [0.7, 1.31, 0.4, 2.2, 1.0, 0.52])


def counted(encoder: SpeechEncoder) -> list[int]:
    "Sounds of each pass through the network from now on."
    passes: list[int] = []
    real = encoder.net.call
    object.__setattr__(encoder.net, "call", lambda m, s: passes.append(len(s)) or real(m, s))
    return passes


# the same as s3prl

class Published(nn.Module):
    "s3prl's Featurizer, Linear, mean over the frames that it calls real, Linear: the model as published."

    def __init__(self, upstream: nn.Module, classes: int) -> None:
        super().__init__()
        from s3prl.nn import Featurizer

        self.featurizer = Featurizer(upstream)
        self.projector = nn.Linear(self.featurizer.output_size, 256)
        self.out = nn.Linear(256, classes)

    def forward(self, hidden: list[torch.Tensor], lengths: list[torch.Tensor]) -> torch.Tensor:
        h, n = self.featurizer(hidden, lengths)
        h = self.projector(h)
        return self.out(torch.stack([x[:k].mean(0) for x, k in zip(h, n.tolist(), strict=True)]))


@pytest.mark.parametrize("name", ["hf_hubert_custom:hubert group", "hf_hubert_custom:hubert layer",
                                  "hf_wav2vec2_custom:wav2vec2", "fbank_no_cmvn"])
def test_cached_means_give_s3prls_logits_and_gradients(
    name: str, models: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    """Featurizer and head on padded frames against the head on one cached vector a layer."""
    from s3prl.nn import S3PRLUpstream

    kind, _, family = name.partition(":")
    encoder = SpeechEncoder.load(f"{kind}:{models[family]}" if family else kind, device="cpu")
    upstream = S3PRLUpstream(kind, path_or_url=str(models[family]) if family else None).eval()
    waves = [torch.from_numpy(own_terms(utterance_audio(corpus, i), encoder.own_terms)) for i in range(len(corpus))]
    with torch.no_grad():
        alone = [upstream(w[None], torch.tensor([len(w)])) for w in waves]
    lengths = torch.tensor([int(n[0][0]) for _, n in alone])
    assert len(set(lengths.tolist())) == len(corpus)
    hidden = [nn.utils.rnn.pad_sequence([h[layer][0] for h, _ in alone], batch_first=True, padding_value=99.0)
              for layer in range(upstream.num_layers)]  # a batch whose padding is far from nothing
    torch.manual_seed(1)
    theirs = Published(upstream, 4)
    ours = WeightedSumHead(encoder.layers, encoder.width, 4)
    with torch.no_grad():
        if upstream.num_layers > 1:
            theirs.featurizer.weights.copy_(torch.randn(upstream.num_layers))
            ours.weights.copy_(theirs.featurizer.weights)
        ours.projector.load_state_dict(theirs.projector.state_dict())
        ours.out.load_state_dict(theirs.out.state_dict())
    y = torch.arange(len(corpus)) % 4
    a = theirs(hidden, [lengths] * len(hidden))
    b = ours(torch.from_numpy(encoder.means(corpus)))
    assert (a - b).abs().max().item() < 1e-5 * max(1.0, a.abs().max().item())
    for logits in (a, b):
        nn.functional.cross_entropy(logits, y).backward()
    pairs = [(theirs.projector, ours.projector), (theirs.out, ours.out)]
    grads = [(p.grad, q.grad) for m, n in pairs for p, q in zip(m.parameters(), n.parameters(), strict=True)]
    if upstream.num_layers > 1:
        grads.append((theirs.featurizer.weights.grad, ours.weights.grad))
    for p, q in grads:
        assert (p - q).abs().max() < 1e-5 * max(1.0, p.abs().max().item())


def test_frames_are_s3prls(models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    from s3prl.nn import S3PRLUpstream

    upstream = S3PRLUpstream("hf_hubert_custom", path_or_url=str(models["hubert group"])).eval()
    encoder = SpeechEncoder.load(f"hf_hubert_custom:{models['hubert group']}", device="cpu", own_terms="none")
    wave = torch.from_numpy(utterance_audio(corpus, 3))
    with torch.no_grad():
        hidden, n = upstream(wave[None], torch.tensor([len(wave)]))
    frames = encoder.frames(corpus)[3]
    assert frames.shape == (int(n[0]), 4 * 24)
    assert np.abs(frames - torch.cat(hidden, 2)[0].numpy()).max() < 1e-5
    assert np.abs(encoder.frames(corpus, "mean")[3] - torch.stack(hidden).mean(0)[0].numpy()).max() < 1e-5


# masks

@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_change_nothing(family: str, models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    """Normalisation over time sees padding: such a network takes one sound at a time, the others take batches."""
    with settings(cache=tmp_path / "a"):
        encoder = SpeechEncoder.load(str(models[family]), device="cpu")
    assert encoder.together == (family != "hubert group")
    passes = counted(encoder)
    means = encoder.means(corpus)
    assert (max(passes) > 1) == encoder.together and sum(passes) == len(corpus)
    with settings(cache=tmp_path / "b"):
        other = SpeechEncoder.load(str(models[family]), device="cpu")
    alone = np.concatenate([other.means(corpus.where({"utterance": u})) for u in corpus.table.utterance])
    assert np.abs(means - alone).max() < 1e-5
    frames = encoder.frames(corpus)
    assert np.abs(np.stack([f.mean(0) for f in frames]).reshape(means.shape) - means).max() < 1e-5


def test_frames_of_transformers_are_the_models_own(models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    encoder = SpeechEncoder.load(str(models["hubert layer"]), device="cpu", own_terms="none")
    model = HubertModel.from_pretrained(models["hubert layer"]).eval()
    x = utterance_audio(corpus, 1)
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
    with torch.inference_mode():
        hidden = model(torch.from_numpy(x)[None], output_hidden_states=True).hidden_states
    got = encoder.frames(corpus, -1)[1]
    assert got.shape == hidden[-1][0].shape and np.abs(got - hidden[-1][0].numpy()).max() < 1e-4


def test_whispers_filling_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    WhisperModel(WhisperConfig(d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, vocab_size=60,
                               decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=1,
                               eos_token_id=2, decoder_start_token_id=1)).save_pretrained(tmp_path / "whisper")
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path / "whisper")
    encoder = SpeechEncoder.load(str(tmp_path / "whisper"), device="cpu", own_terms="none")
    some = sounds(tmp_path / "w", [0.5, 1.0, 31.0])
    assert [len(f) for f in encoder.frames(some)] == [25, 50, 1550]
    assert encoder.means(some).shape == (3, 3, 16) and encoder.together


def test_a_sound_past_the_window_is_read_in_parts(models: dict[str, Path], tmp_path: Path) -> None:
    encoder = SpeechEncoder.load(str(models["hubert layer"]), device="cpu", own_terms="none")
    long = sounds(tmp_path / "w", [50.0])
    frames, means = encoder.frames(long)[0], encoder.means(long)[0]
    assert 2490 < len(frames) <= 2500
    assert np.abs(frames.mean(0).reshape(means.shape) - means).max() < 1e-4
    tiny = sounds(tmp_path / "t", [0.004])
    assert np.isfinite(encoder.means(tiny)).all() and len(encoder.frames(tiny)[0]) >= 1


# the cache

NAMES = ["egemaps", "fbank_no_cmvn", "hubert layer"]  # cues, which a sound may lack, have tests of their own


def opened(name: str, models: dict[str, Path], cache: Path, **more: str) -> SpeechEncoder:
    with settings(cache=cache):
        return SpeechEncoder.load(str(models.get(name, name)), device="cpu", **more)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_twice_and_a_moved_corpus_costs_nothing(
    name: str, models: dict[str, Path], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(name, models, tmp_path / "c").means(corpus)
    moved = sounds(tmp_path / "elsewhere", [0.7, 1.31, 0.4, 2.2, 1.0, 0.52], name="other")
    again = opened(name, models, tmp_path / "c")
    monkeypatch.setattr(module, "stream_audio", lambda *_a, **_k: pytest.fail("read again"))
    assert np.array_equal(again.means(corpus), first)
    assert np.array_equal(again.means(replace(moved, table=moved.table.iloc[::-1])), first[::-1])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_sound_gives_the_same_numbers(name: str, models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a = opened(name, models, tmp_path / "a")
    first = a.means(corpus)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is left alone"
    torch.manual_seed(4)
    b = opened(name, models, tmp_path / "b")
    assert b.fingerprint == a.fingerprint and np.array_equal(b.means(corpus), first)


def test_own_terms_kinds_and_networks_do_not_mix(models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    for name in ("egemaps", "fbank_no_cmvn"):
        terms = ("none", "trim+level", "trim+level+tilt")
        values = [opened(name, models, tmp_path, own_terms=how).means(corpus) for how in terms]
        assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(values) for b in values[:i])
    marks = [opened(name, models, tmp_path).fingerprint for name in ("egemaps", "fbank", "fbank_no_cmvn", *FAMILIES)]
    assert len(set(marks)) == len(marks)


def test_changed_weights_are_another_network(models: dict[str, Path], tmp_path: Path, corpus: Corpus) -> None:
    folder = saved("hubert layer", tmp_path / "m")
    for name in (str(folder), f"hf_hubert_custom:{folder}"):
        torch.manual_seed(0)
        one = SpeechEncoder.load(name, device="cpu")
        torch.manual_seed(9)
        HubertModel(FAMILIES["hubert layer"][1]).save_pretrained(folder)
        two = SpeechEncoder.load(name, device="cpu")
        assert one.fingerprint != two.fingerprint
        saved("hubert layer", folder)
    with torch.no_grad():
        next(two.net.module.parameters()).add_(1)
    with pytest.raises(InputError, match="changed"):
        two.means(corpus)


def test_a_segment_is_not_its_file(corpus: Corpus, models: dict[str, Path], tmp_path: Path) -> None:
    cut = replace(corpus, table=corpus.table.assign(start=[0.1] + [np.nan] * 5, end=[0.5] + [np.nan] * 5))
    encoder = opened("fbank_no_cmvn", models, tmp_path)
    a, b = encoder.means(corpus), encoder.means(cut)
    assert np.abs(a[0] - b[0]).max() > 1e-3 and np.array_equal(a[1:], b[1:])


def _work(name: str, cache: str, folder: str, out: "multiprocessing.Queue[bytes]") -> None:
    torch.set_num_threads(1)
    some = Corpus("s", pd.DataFrame({"utterance": [f"u{i}" for i in range(12)], "emotion": "neutral",
                                     "audio": [f"{i}.wav" for i in range(12)]}), root=Path(folder))
    with settings(cache=cache):
        out.put(SpeechEncoder.load(name, device="cpu").means(some).tobytes())


def test_two_processes_share_a_cache(models: dict[str, Path], tmp_path: Path) -> None:
    some = sounds(tmp_path / "s", [0.3 + 0.05 * i for i in range(12)])
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    name = str(models["hubert layer"])
    workers = [context.Process(target=_work, args=(name, str(tmp_path / "new"), str(some.root), out)) for _ in range(2)]
    for w in workers:
        w.start()
    a, b = (np.frombuffer(out.get(timeout=200), np.float32) for _ in workers)
    for w in workers:
        w.join(30)
    assert [w.exitcode for w in workers] == [0, 0] and np.abs(a - b).max() < 1e-6 and np.isfinite(a).all()


# cues

def voices(folder: Path, hertz: list[float], name: str = "voices") -> Corpus:
    "Four syllables a second, two seconds; none for a pitch of 0."
    folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(2 * 16_000) / 16_000
    for i, hz in enumerate(hertz):
        swell = 1 - 0.9 * np.cos(2 * np.pi * 4 * t)
        harmonics = sum(np.sin(2 * np.pi * hz * k * t + k * k) / k for k in range(1, 12)) if hz else 0 * t
        hiss = np.random.default_rng(i).standard_normal(len(t))
        save_audio(folder / f"{i}.wav", 0.05 * swell * harmonics + (0.0005 if hz else 0.05) * hiss)
    return Corpus(name, pd.DataFrame({"utterance": [f"u{i}" for i in range(len(hertz))], "emotion": "neutral",
                                      "audio": [f"{i}.wav" for i in range(len(hertz))]}), root=folder)


def on_record(folder: Path, **clips: list[float]) -> Path:
    columns = "filename,duration,avg_intensity,intensity_variation,avg_pitch,pitch_std,pitch_range,articulation_rate,mean_hnr"
    rows = [",".join([f"{c}.wav", *("" if np.isnan(x) else str(x) for x in v)]) for c, v in clips.items()]
    (folder / "meld_acoustic").mkdir(parents=True)
    (folder / "meld_acoustic" / "meld_dev_audio_features.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder


def lines(*ids: str) -> Corpus:
    return Corpus("meld", pd.DataFrame({"utterance": list(ids), "text": "Oh.", "emotion": "neutral"}))


KNOWN = [1.5, 60.0, 7.0, 210.0, 40.0, 180.0, 4.0, 6.5]


def test_cues_of_sound_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = voices(tmp_path / "s", [120, 0, 210])
    encoder = SpeechEncoder.load("cues")
    assert (encoder.layers, encoder.width, encoder.flat, encoder.own_terms) == (1, 8, False, "none")
    found = encoder.means(corpus)
    assert found.dtype == np.float32 and found.shape == (3, 1, 8) and np.isnan(found[1]).all(), "missing as a whole"
    assert all(np.array_equal(found[i, 0], measure_cues(utterance_audio(corpus, i))) for i in (0, 2))
    problem = encoder.problems.set_index("utterance").problem
    assert list(problem.index) == ["u1"] and problem["u1"].startswith("no pitch_mean")
    monkeypatch.setattr(module, "stream_audio", lambda *_a, **_k: pytest.fail("read again"))
    again = SpeechEncoder.load("cues")
    assert np.array_equal(again.means(corpus), found, equal_nan=True)
    assert again.problems.problem.tolist() == problem.tolist(), "told from the cache too"


def test_cues_on_the_utterance_s_own_terms(tmp_path: Path) -> None:
    corpus = voices(tmp_path / "s", [120])
    levelled = SpeechEncoder.load("cues", own_terms="trim+level").means(corpus)[0, 0]
    assert np.allclose(levelled, measure_cues(own_terms(utterance_audio(corpus, 0), "trim+level")), equal_nan=True)
    assert SpeechEncoder.load("fbank", device="cpu").own_terms == "trim+level"


def test_cues_on_record_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incomplete = [0.1, 50.0, 1.0, np.nan, 0.0, 0.0, np.nan, -4.0]
    monkeypatch.setenv("ZSEMO_CORPORA", str(on_record(tmp_path / "corpora", dia0_utt0=KNOWN, dia0_utt1=incomplete)))
    encoder = SpeechEncoder.load("cues")
    found = encoder.means(lines("dev_dia0_utt1", "dev_dia0_utt0", "dev_dia9_utt9"))
    assert np.isnan(found[[0, 2]]).all() and np.allclose(found[1, 0], KNOWN) and encoder.problems.empty


def test_sound_comes_before_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(on_record(tmp_path / "corpora", dia0_utt0=KNOWN, dia0_utt1=KNOWN)))
    table = voices(tmp_path / "s", [120]).table.assign(utterance="dev_dia0_utt0")
    rest = lines("dev_dia0_utt1").table
    corpus = Corpus("meld", pd.concat([table, rest], ignore_index=True), root=tmp_path / "s")
    encoder = SpeechEncoder.load("cues")
    found = encoder.means(corpus)
    assert abs(found[0, 0, list(CUES).index("pitch_mean")] - 120) < 2 and np.allclose(found[1, 0], KNOWN)
    assert encoder.problems.empty


def test_a_modality_that_is_all_missing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSEMO_CORPORA", raising=False)
    encoder = SpeechEncoder.load("cues")
    text = replace(lines("u1", "u2"), name="text")
    assert np.isnan(encoder.means(text)).all() and list(encoder.problems.utterance) == ["u1", "u2"]
    assert encoder.means(text.where({"utterance": "none"})).shape == (0, 1, 8)
    with pytest.raises(InputError, match="not found"):
        encoder.means(lines("dev_dia0_utt0"))
    some = voices(tmp_path / "s", [120])
    mixed = Corpus("meld", pd.concat([some.table, lines("dev_dia0_utt0").table], ignore_index=True), root=some.root)
    with pytest.warns(UserWarning, match="1 rows of 'meld' without audio have no cues"):
        found = encoder.means(mixed)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all() and "dev_dia0_utt0" in set(encoder.problems.utterance)


def test_cues_have_no_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cues has one vector"):
        SpeechEncoder.load("cues").frames(lines("u1"))


# bad input

@pytest.mark.parametrize("name", NAMES)
def test_bad_files_end_nothing(name: str, models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    some = sounds(tmp_path / "s", [0.5] * 5)
    (some.root / "1.wav").write_bytes(b"rubbish")
    (some.root / "2.wav").unlink()
    (some.root / "3.wav").write_bytes(b"")
    encoder = opened(name, models, tmp_path / "c")
    for _ in range(2):
        means = encoder.means(some)
        assert np.isnan(means[1:4]).all() and np.isfinite(means[[0, 4]]).all()
        assert list(encoder.problems.utterance) == ["u2", "u1", "u3"] or set(encoder.problems.utterance) == {"u1", "u2", "u3"}
        assert all("\n" not in p and p for p in encoder.problems.problem)
    if name != "egemaps":
        assert [len(f) > 0 for f in encoder.frames(some)] == [True, False, False, False, True]
    sounds(some.root, [0.5] * 5)
    assert np.isfinite(encoder.means(some)).all() and not len(encoder.problems), "a mended file is read"


def test_silence_cannot_be_measured(models: dict[str, Path], tmp_path: Path) -> None:
    some = sounds(tmp_path / "s", [0.5, 0.5])
    save_audio(some.root / "1.wav", np.zeros(8000))
    encoder = opened("egemaps", models, tmp_path / "c")
    assert np.isnan(encoder.means(some)[1]).all() and encoder.problems.problem.item().startswith("silent")


def test_no_utterances_is_no_trouble(models: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    for name in NAMES:
        encoder = opened(name, models, tmp_path)
        assert encoder.means(corpus.where({"utterance": "none"})).shape == (0, encoder.layers, encoder.width)


@pytest.mark.parametrize(("name", "says"), [
    ("fbnk", "fbank"), ("egemap", "egemaps"), ("wavlm_lrge", "wavlm_large"), ("hf_hubert_custom", "FOLDER"),
    ("hf_hubert_custom:/no/where", "no"), ("./no/where", "there is no folder"), ("data2vec", "cannot be fetched"),
    ("wavlm_large", "hf_hubert_custom"), ("someone/no-such-model", "hf_wav2vec2_custom"), ("zzzzqqq", "egemaps"),
])
def test_what_cannot_be_opened_is_one_clear_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("ConnectionError: no network\nat all")

    monkeypatch.setattr("requests.sessions.Session.request", offline)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match=says) as e:
        SpeechEncoder.load(name)
    assert "\n" not in str(e.value)


def test_no_audio_model_is_one_clear_line(models: dict[str, Path], tmp_path: Path) -> None:
    folder = saved("hubert layer", tmp_path / "m")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="preprocessor_config"):
        SpeechEncoder.load(str(folder))
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    with pytest.raises(InputError, match="16000"):
        SpeechEncoder.load(str(folder))
    (folder / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(InputError, match="cannot be read"):
        SpeechEncoder.load(str(folder))


def test_a_flat_mean_is_refused_where_it_is_asked_for(corpus: Corpus, tmp_path: Path, models: dict[str, Path]) -> None:
    for name in ("fbank", "mfcc"):
        encoder = opened(name, models, tmp_path)
        assert encoder.flat and len(encoder.frames(corpus)) == len(corpus)
        with pytest.raises(InputError, match="fbank_no_cmvn"):
            encoder.means(corpus)
    assert not any(opened(n, models, tmp_path).flat for n in NAMES)


def test_other_bad_arguments(corpus: Corpus, tmp_path: Path, models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="trim"):
        SpeechEncoder.load("egemaps", own_terms="louder")
    with pytest.raises(InputError, match="no frames"):
        opened("egemaps", models, tmp_path).frames(corpus)
    for layer in (7, "last", True):
        with pytest.raises(InputError, match="layer"):
            opened("hubert layer", models, tmp_path).frames(corpus, layer)


def test_s3prl_says_nothing_while_it_is_imported() -> None:
    code = ("import warnings; warnings.simplefilter('error', ResourceWarning)\n"
            "from zsemo_kit.training.speech_encoder import SpeechEncoder; SpeechEncoder.load('fbank', device='cpu')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_are_upstreams(models: dict[str, Path]) -> None:
    assert {"fbank", "data2vec", "wavlm_large", "hf_hubert_custom"} <= set(upstream_names())
    assert not {"Path", "FileLock"} & set(upstream_names())
