"""Speech LLMs: cached features against an encoder every epoch; published sizes on a GPU; parameters and FLOPs on no device.

    python tests/benchmarks/speechllm.py                                          # small, on the CPU
    python tests/benchmarks/speechllm.py --encoder fbank_no_cmvn --profile 15     # the same with log-mels, and what takes long
    python tests/benchmarks/speechllm.py --size published --device meta --connector qpmapper --llm 3b
    python tests/benchmarks/speechllm.py --size published --device cuda --connector qformer --llm 7b --batches 8 32
    python tests/benchmarks/speechllm.py --size published --device cpu --shrink 64 --count      # that code, small

small: the same model, data, seed and batches are trained twice in full, in one run. The slow side is the published
procedure, the frozen encoder for every batch of every epoch, its sounds in memory; the fast side starts from an empty
cache. Neither is charged for an encoder at its looks at dev. The exit status is 1 where the losses differ, the encoder
runs after the first epoch, or the ratio of an epoch stays under --least.

published: shapes of WavLM-large, of the connectors and of Llama-3.2-3B or Llama-2-7B; weights are random, since time does
not depend on their values. The kit's own loop trains connector and LoRA on sounds of six seconds whose frames (all 25
layers, float32, as the cache keeps them) lie in host memory. `formula` is the count of FLOPs, written out below; the
utilisation is that count over time and --peak, and does not count what checkpointing computes twice. --count holds it
against torch's own counter, and fails where they are more than 2 per cent apart.
"""

import argparse
import cProfile
import gc
import os
import platform
import pstats
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import save_audio, utterance_audio
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.training.connectors import SHAPES, Connector, QFormer, QPMapper, Shape
from zsemo_kit.training.curriculum import Lessons, _Teaching, _freed, _settle
from zsemo_kit.training.loop import Data, optimise
from zsemo_kit.training.recipes import Recipe, configure
from zsemo_kit.training.speech_encoder import SpeechEncoder, _reduced, _through
from zsemo_kit.training.speech_prompts import Exchange, SpeechLLMConfig, collate_exchanges
from zsemo_kit.training.speechllm import SpeechLLM, SpeechNet, add_lora, collate_sounds, tiny_llm, trained_numbers
from zsemo_kit.training.text_encoder import Frames, quiet

LABELS = SPACES["four"]
ORDER = ("encoder", "frames and tokens", "connector", "language model", "optimiser", "dev")


# --- time

@dataclass
class Watch:
    """Wall and processor seconds of an epoch by part: whatever passes since the last mark belongs to the part that is named."""

    device: torch.device
    on: bool = True  # off while dev is looked at: its passes are dev's
    parts: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2)))
    last: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def now(self) -> np.ndarray:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return np.array([time.perf_counter(), time.process_time()])

    def start(self) -> None:
        self.last = self.now()

    def mark(self, part: str) -> None:
        if self.on:
            now = self.now()
            self.parts[part] += now - self.last
            self.last = now

    @contextmanager
    def watching(self, net: SpeechNet) -> Iterator[None]:
        """Marks around the connector and the language model, forwards and backwards.

        The backward pass reaches the connector's output when it is through with the language model, and each of the
        connector's weights when that gradient is done.
        """
        def out(module: nn.Module, given: Any, made: Tensor) -> None:
            self.mark("connector")
            if made.requires_grad:
                made.register_hook(lambda _: self.mark("language model"))

        hooks = [net.connector.register_forward_pre_hook(lambda *_: self.mark("frames and tokens")),
                 net.connector.register_forward_hook(out),
                 net.llm.register_forward_hook(lambda *_: self.mark("language model")),
                 register_optimizer_step_pre_hook(lambda *_: self.mark("optimiser")),  # clipping
                 register_optimizer_step_post_hook(lambda *_: self.mark("optimiser")),
                 *(p.register_post_accumulate_grad_hook(lambda _: self.mark("connector"))
                   for p in net.connector.parameters() if p.requires_grad)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True, eq=False)
class Timed(_Teaching):
    """The kit's own training, timed by part and epoch, and the encoder's calls counted."""

    watch: Watch
    calls: Counter[str]  # of the encoder so far
    epochs: list[dict[str, Any]]  # what each took

    def loss(self, model: nn.Module, units: np.ndarray) -> Tensor:
        self.watch.mark("optimiser")
        loss = super().loss(model, units)
        self.watch.mark("language model")
        return loss

    def scores(self, model: nn.Module) -> dict[str, Any]:
        self.watch.mark("optimiser")
        self.watch.on = False
        found = super().scores(model)
        self.watch.on = True
        self.watch.mark("dev")
        self.epochs.append({"parts": dict(self.watch.parts), "calls": self.calls["encoder"]})
        self.watch.parts.clear()
        self.calls.clear()
        return found


# --- small: the encoder once, or every epoch

def wavlm(folder: Path) -> str:
    """A small WavLM with random weights, of the large one's build: what it says of a sound does not change with padding."""
    torch.manual_seed(0)
    with quiet():
        WavLMModel(WavLMConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024,
                               conv_dim=(128,) * 7, feat_extract_norm="layer", do_stable_layer_norm=True,
                               num_conv_pos_embeddings=32)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True).save_pretrained(folder)
    return str(folder)


def spoken(folder: Path, n: int, seconds: float, seed: int) -> Corpus:
    """Tones in noise, annotated at random: lengths as in corpora of speech (log-normal, deviation .5), six seconds at most."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        t = np.arange(int(16_000 * np.clip(seconds * rng.lognormal(-0.125, 0.5), 0.3, 6))) / 16_000
        voice = sum(np.sin(2 * np.pi * k * rng.uniform(90, 250) * t) / k for k in range(1, 8))
        save_audio(folder / f"{i}.wav", 0.1 * voice * (0.5 + 0.5 * np.sin(9 * t)) + 0.01 * rng.standard_normal(len(t)))
        words = rng.choice(["dogs", "are", "sitting", "by", "the", "door", "kids", "talk", "to", "us"], 7)
        levels = dict(zip(("pitch", "speed", "volume"), rng.choice(["low", "normal", "high"], 3), strict=True))
        rows.append({"utterance": f"{folder.name}{i}", "audio": f"{i}.wav", "emotion": LABELS[i % 4], "speaker": f"s{i % 8}",
                     "text": " ".join(words), "heard_gender": ("male", "female")[i % 2], **levels})
    return Corpus(folder.name, pd.DataFrame(rows), root=folder, space="four")


@dataclass(frozen=True)
class Live(Frames):
    """Frames that are not kept: the encoder runs for each batch that is asked for."""

    encoder: SpeechEncoder
    sounds: list[np.ndarray]
    watch: Watch

    def batch(self, rows: Sequence[int] | np.ndarray, longest: int | None = None) -> dict[str, Tensor]:
        self.watch.mark("frames and tokens")
        groups = [rows] if self.encoder.together else [[i] for i in rows]
        found = [_reduced(h, "frames all") for g in groups
                 for h in _through(self.encoder.net, [self.sounds[i] for i in g], self.encoder.device)]
        self.watch.mark("encoder")
        found = [f[:longest] for f in found]
        x = nn.utils.rnn.pad_sequence(found, batch_first=True).clone()  # no tensor of inference mode can be trained on
        lengths = torch.tensor([len(f) for f in found], device=x.device)
        return {"x": x, "mask": torch.arange(x.shape[1], device=x.device) < lengths[:, None]}


def made_model(o: argparse.Namespace, encoder: SpeechEncoder, train: Corpus) -> SpeechLLM:
    """A connector and a small Llama with fresh weights, always the same."""
    texts = [f'{r.emotion}: a man says "{r.text}" with high pitch, normal speed and low volume.'
             for r in train.table.itertuples()]
    config = SpeechLLMConfig(connector=f"{o.connector}_small", tune="all", words=o.answer, standardise=True)
    return SpeechLLM.make(LABELS, encoder, tiny_llm(texts), config)


def trained(o: argparse.Namespace, model: SpeechLLM, parts: Sequence[Corpus], live: bool, calls: Counter[str],
            ) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Training as `taught` does it, on frames that are kept or made each time."""
    learnt, judged = (Lessons(model, *model.prepared(c), ("emotion",)) for c in parts)
    watch = Watch(model.encoder.device)
    if live:
        sounds = [utterance_audio(learnt.corpus, i) for i in range(len(learnt.corpus))]
        frames = Live(learnt.frames.values, learnt.frames.starts, model.encoder, sounds, watch)
        learnt = replace(learnt, frames=frames)
    config = configure("speechllm", epochs=o.epochs, batch=o.batch, seed=o.seed)
    job = Timed(config, learnt.data, None, model.encoder.device, judged, watch, calls, [])
    torch.manual_seed(o.seed)
    net = _freed(model)
    calls.clear()
    with watch.watching(net):
        watch.start()
        history = optimise(net, job)
    net.requires_grad_(False).eval()
    return history, job.epochs


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU, or of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answering(model: SpeechLLM, corpus: Corpus, words: bool) -> tuple[np.ndarray, float]:
    """Wall and processor seconds, and the mean number of tokens that were said."""
    clock = Watch(model.encoder.device)
    clock.start()
    said = model.answer(corpus, words=words)
    seconds = clock.now() - clock.last
    return seconds, float(np.mean([len(model.sequencer.ids(a)) for a in said["answer"]]))


def small(o: argparse.Namespace, folder: Path) -> bool:
    calls: Counter[str] = Counter()
    begin = peak_memory(torch.device("cpu"))
    with settings(cache=folder / "cache"):
        encoder = SpeechEncoder.load(o.encoder or wavlm(folder / "wavlm"), device=o.device, own_terms="none")
    encoder.net.module.register_forward_hook(lambda *_: calls.update(["encoder"]))
    parts = [spoken(folder / name, n, o.seconds, i) for i, (name, n) in
             enumerate((("train", o.utterances), ("dev", max(1, o.utterances // 4))))]
    clock = Watch(encoder.device)
    _ = encoder.together, encoder.frame_rate  # tried now, so that the trials are no part of an epoch
    models = [made_model(o, encoder, parts[0]) for _ in range(2)]
    clock.start()
    for c in parts:
        encoder.frames(c)
    once = clock.now() - clock.last
    histories, runs, memory = [], [], []
    for model, live in zip(models, (False, True), strict=True):
        _settle(model, parts[0])
        history, epochs = trained(o, model, parts, live, calls)
        histories.append(history)
        runs.append(epochs)
        memory.append(peak_memory(encoder.device))
    print(f"encoder {o.encoder or 'WavLM, random weights'}: {encoder.layers} layers of {encoder.width}, "
          f"{sum(p.numel() for p in encoder.net.module.parameters()) / 1e6:.1f} M parameters, "
          f"batches {'as they come' if encoder.together else 'one by one, since padding changes what it says'}; "
          f"connector and Llama {trained_numbers(_freed(models[0])) / 1e6:.2f} M, all trained; {o.utterances} + "
          f"{len(parts[1])} utterances of {o.seconds} s, {o.epochs} epochs, batch {o.batch}")
    tables, ratios = [], []
    for kind, i in (("wall", 0), ("processor", 1)):
        # the first epoch bears what torch sets up
        later = [pd.DataFrame([{k: v[i] for k, v in e["parts"].items()} for e in epochs[1:]]).mean() for epochs in runs]
        table = pd.DataFrame({"every epoch": later[1], "cached": later[0]}).reindex(ORDER).fillna(0.0)
        rest = table.drop("dev").sum()
        ratios.append(rest["every epoch"] / rest["cached"])
        table.loc["training, without dev"] = rest
        table.loc["utterances a second"] = o.utterances / rest
        tables.append(table.add_prefix(f"{kind}, "))
        if kind == "wall":
            shares = table.loc[list(ORDER[:-1])] / rest
            tables.append(shares.add_prefix("share, "))
    print("seconds of an epoch after the first, mean")
    print(pd.concat(tables, axis=1).map("{:.3f}".format).replace("nan", "").to_string())
    whole = [once + sum((sum(e["parts"][k] for k in e["parts"] if k != "dev") for e in runs[0]), np.zeros(2)),
             sum((sum(e["parts"][k] for k in e["parts"] if k != "dev") for e in runs[1]), np.zeros(2))]
    print(f"ratio of an epoch {ratios[0]:.1f} by wall time, {ratios[1]:.1f} by processor time; features once {once[0]:.1f} s; "
          f"with them, of {o.epochs} epochs {whole[1][0] / whole[0][0]:.1f}, {whole[1][1] / whole[0][1]:.1f}")
    after = [sum(e["calls"] for e in epochs[1:]) for epochs in runs]
    print(f"calls of the encoder in the first epoch and after it: cached {runs[0][0]['calls']}, {after[0]}; "
          f"every epoch {runs[1][0]['calls']}, {after[1]}")
    for name, words in (("labels alone", False), ("labels, then words", True)):
        seconds, tokens = answering(models[0], parts[0], words)
        print(f"answers, {name}: {o.utterances / seconds[0]:.0f} utterances a second ({o.utterances / seconds[1]:.0f} by "
              f"processor time), {tokens:.0f} tokens each")
    gap = float((histories[0].loss - histories[1].loss).abs().max())
    print(f"peak memory {begin:.0f} MiB at the start, {memory[0]:.0f} after the cached side, {memory[1]:.0f} after the other; "
          f"largest difference of an epoch's loss {gap:.1e}")
    return gap < 0.01 and after[0] == 0 and ratios[1] >= o.least


# --- published: shapes, and the FLOPs of a sample by formula

LLAMAS: dict[str, dict[str, Any]] = {
    "3b": {"vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
           "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},  # Llama-3.2-3B
    "7b": {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "tie_word_embeddings": False},  # Llama-2-7B
}
WAVLM = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
         "feat_extract_norm": "layer", "do_stable_layer_norm": True}  # WavLM-large


def shrunk(sizes: dict[str, Any], by: int) -> dict[str, Any]:
    """A shape whose widths, layers and words are divided, with heads of at most 16 numbers."""
    if by == 1:
        return sizes
    small = dict(sizes)
    for name in ("hidden_size", "intermediate_size", "vocab_size"):
        if name in sizes:
            small[name] = max(64, sizes[name] // by // 64 * 64)
    small["num_hidden_layers"] = max(2, sizes["num_hidden_layers"] // by)
    small["num_attention_heads"] = small["hidden_size"] // 16
    if "head_dim" in sizes:
        small["head_dim"] = 16
        share = sizes["num_attention_heads"] // sizes["num_key_value_heads"]
        small["num_key_value_heads"] = max(1, small["num_attention_heads"] // share)
    return small


def shapes(o: argparse.Namespace) -> tuple[WavLMConfig, LlamaConfig, Shape]:
    """Of encoder, language model and connector."""
    shape = SHAPES[o.connector]
    if o.shrink > 1:
        width = max(64, shape.hidden // o.shrink)
        shape = replace(shape, hidden=width, inner=4 * width, heads=4, depth=2, encoder_width=shape.encoder_width and 64)
    more = {} if o.shrink == 1 else {"conv_dim": (64,) * 7, "num_conv_pos_embeddings": 16}
    return (WavLMConfig(**shrunk(WAVLM, o.shrink), **more),
            LlamaConfig(**shrunk(LLAMAS[o.llm], o.shrink), max_position_embeddings=4096, dtype="bfloat16"), shape)


def frames_of(config: WavLMConfig, seconds: float) -> list[int]:
    """Steps after each convolution of the encoder; the last are the frames."""
    steps = [round(16_000 * seconds)]
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        steps.append((steps[-1] - kernel) // stride + 1)
    return steps[1:]


def encoder_flops(c: WavLMConfig, seconds: float) -> float:
    """Forward, of one sample: convolutions, then layers of 4 h² + 2 h inner weights, 4 t² h of attention."""
    steps, widths = frames_of(c, seconds), (1, *c.conv_dim)
    front = sum(2.0 * t * k * a * b for t, k, a, b in zip(steps, c.conv_kernel, widths, widths[1:], strict=False))
    t, h = steps[-1], c.hidden_size
    place = 2.0 * t * c.num_conv_pos_embeddings * h * h / c.num_conv_pos_embedding_groups
    layer = 2.0 * t * (4 * h * h + 2 * h * c.intermediate_size) + 4.0 * t * t * h
    return front + 2.0 * t * c.conv_dim[-1] * h + place + c.num_hidden_layers * layer


def connector_flops(s: Shape, layers: int, width: int, out: int, t: int) -> tuple[float, float]:
    """Forward and backward, of one sample of t frames.

    Everything is trained, so backward costs twice forward: gradients of weights and of what they were given.
    The sum of layers has no gradient of its frames. Biases, norms and activations are not counted.
    """
    h, q = s.hidden, s.queries
    inside = s.encoder_width or h
    total = 2.0 * t * layers * width  # the sum of layers
    body = 2.0 * t * width * inside + 2.0 * q * h * out  # Linear before and after
    if s.kind == "qformer":
        crosses = -(-s.depth // 2)  # every second layer, the first of them
        body += s.depth * (2.0 * q * (4 * h * h + 2 * h * s.inner) + 4.0 * q * q * h)
        body += crosses * (2.0 * q * 2 * h * h + 2.0 * t * 2 * h * inside + 4.0 * q * t * h)
    else:
        n = t + q
        body += s.depth * (2.0 * n * (4 * h * h + 2 * h * s.inner) + 4.0 * n * n * h)
    return total + body, total + 2 * body


def llm_flops(c: LlamaConfig, tokens: int, answer: int, tune: str, rank: int) -> tuple[float, float]:
    """Forward and backward, of one sample.

    Forward: 2 x weights of the layers x tokens, 2 x weights of the head x tokens of the answer and the one before them,
    4 x tokens² x width of the heads a layer for attention (queries by keys, chances by values; the causal half is not
    taken off). Backward: the gradients of the activations cost as much again (the frozen weights have none), both
    factors of attention twice as much. LoRA on q and v: 2 x weights x tokens, and twice that backward. With `all`, the
    gradients of weights come on top.
    """
    d, inside = c.hidden_size, c.num_attention_heads * c.head_dim
    keys = c.num_key_value_heads * c.head_dim
    layer = 2 * d * inside + 2 * d * keys + 3 * d * c.intermediate_size
    dense = 2.0 * c.num_hidden_layers * layer * tokens + 2.0 * c.vocab_size * d * (answer + 1)
    attention = 4.0 * c.num_hidden_layers * tokens * tokens * inside
    lora = 2.0 * tokens * c.num_hidden_layers * rank * ((d + inside) + (d + keys)) if tune == "lora" else 0.0
    return dense + attention + lora, dense * (2 if tune == "all" else 1) + 2 * attention + 2 * lora


@dataclass(frozen=True)
class Formula:
    """FLOPs of one sample."""

    parts: dict[str, tuple[float, float]]  # part: forward, backward

    @property
    def total(self) -> float:
        return sum(map(sum, self.parts.values()))


def formula(o: argparse.Namespace) -> Formula:
    """Of a step of training, the encoder's features being there."""
    encoder, llama, shape = shapes(o)
    t = frames_of(encoder, o.sound)[-1]
    tokens = shape.queries + o.prompt + o.answer
    return Formula({"connector": connector_flops(shape, encoder.num_hidden_layers + 1, encoder.hidden_size, llama.hidden_size, t),
                    "language model": llm_flops(llama, tokens, o.answer, o.tune, o.rank)})


def network(o: argparse.Namespace, device: torch.device, checkpointing: bool) -> SpeechNet:
    """Connector in float32 and language model in bfloat16, made where they are to lie, with the kit's LoRA."""
    encoder, llama, shape = shapes(o)
    kind: type[Connector] = {"qformer": QFormer, "qpmapper": QPMapper}[shape.kind]
    config = SpeechLLMConfig(connector=o.connector, tune=o.tune, rank=o.rank, checkpointing=checkpointing)
    torch.manual_seed(0)
    with torch.device(device), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers renames its switch for checkpointing
        llm = LlamaForCausalLM._from_config(llama, dtype=torch.bfloat16).eval().requires_grad_(False)
        connector = kind(encoder.num_hidden_layers + 1, encoder.hidden_size, llama.hidden_size, shape)
        net = SpeechNet(connector, add_lora(llm, config))
    return net.eval()


def sizes(o: argparse.Namespace) -> bool:
    """Parameters and FLOPs, without weights."""
    net = network(o, torch.device("meta"), False)
    encoder, _, shape = shapes(o)
    with torch.device("meta"), quiet():
        hears = WavLMModel(encoder)
    count, made = formula(o), net.connector
    lora = [p for n, p in net.llm.named_parameters() if "lora_" in n]
    inner = [p for n, p in made.named_parameters() if n.split(".")[0] in ("body", "queries", "after")]
    owned = {"encoder": hears.parameters(), "connector, before its body": [*made.sum.parameters(), *made.linear.parameters()],
             "connector, body and queries": inner,
             "connector, to the language model": made.out.parameters(), "LoRA": lora,
             "language model": [p for n, p in net.llm.named_parameters() if "lora_" not in n]}
    numbers = {k: sum(p.numel() for p in v) for k, v in owned.items()}
    assert sum(v for k, v in numbers.items() if k.startswith("connector")) == sum(p.numel() for p in made.parameters())
    changed = {k: v if k.startswith("connector") or k == "LoRA" or (k == "language model" and o.tune == "all") else 0
               for k, v in numbers.items()}
    forward = {"encoder": encoder_flops(encoder, o.sound), **{k: v[0] for k, v in count.parts.items()}}
    backward = {"encoder": 0.0, **{k: v[1] for k, v in count.parts.items()}}
    table = pd.DataFrame({"parameters, M": numbers, "trained, M": changed}) / 1e6
    table.loc["all"] = table.sum()
    table.loc["connector"] = table.loc[[k for k in table.index if k.startswith("connector")]].sum()
    table = table.join(pd.DataFrame({"forward, GFLOP": forward, "backward, GFLOP": backward}) / 1e9)
    t = frames_of(encoder, o.sound)[-1]
    print(table.map("{:,.3f}".format).replace("nan", "").to_string())
    print(f"a sample: {o.sound} s, {t} frames, {shape.queries} + {o.prompt} + {o.answer} tokens; {count.total / 1e12:.3f} TFLOP "
          f"in training with cached features, {(count.total + forward['encoder']) / 1e12:.3f} with the encoder; at "
          f"{o.peak / 1e12:.0f} TFLOP/s at most {o.peak / count.total:.0f} samples a second; its frames take "
          f"{t * (encoder.num_hidden_layers + 1) * encoder.hidden_size * 4 / 2**20:.1f} MiB in the cache")
    return True


@dataclass(frozen=True, eq=False)
class Bench:
    """Training on random frames and tokens by the kit's loop, each step timed."""

    config: Recipe
    train: Data
    device: torch.device
    watch: Watch
    steps: list[float]  # when each step began, and the last one ended
    draw: np.ndarray | None = None

    def loss(self, model: nn.Module, units: np.ndarray) -> Tensor:
        self.watch.mark("optimiser")
        self.steps.append(float(self.watch.now()[0]))
        if len(self.steps) == 3:  # the first two are not counted
            self.watch.parts.clear()
        loss = model(**{k: v.to(self.device) for k, v in self.train.batch(units).items()})
        self.watch.mark("language model")
        return loss

    def scores(self, model: nn.Module) -> dict[str, Any]:
        self.watch.mark("optimiser")
        self.steps.append(float(self.watch.now()[0]))
        return {"dev_loss": 0.0, "dev_uar": 0.0, "collapsed": False}


def batches(o: argparse.Namespace, net: SpeechNet, device: torch.device, n: int) -> Callable[[Any], dict[str, Tensor]]:
    """Frames from host memory, cut and moved by the kit, and tokens."""
    encoder, llama, _ = shapes(o)
    rng, t = np.random.default_rng(0), frames_of(encoder, o.sound)[-1]
    numbers = (encoder.num_hidden_layers + 1) * encoder.hidden_size
    frames = Frames(rng.standard_normal((n * t, numbers), np.float32), np.arange(n + 1) * t)
    host = SimpleNamespace(config=SpeechLLMConfig(seconds=o.sound), net=net,
                           encoder=SimpleNamespace(frame_rate=(t + 1) / o.sound, device=device))

    def words(k: int) -> list[int]:
        return rng.integers(3, llama.vocab_size, k).tolist()

    rows = [Exchange(words(4), words(o.prompt - 4), words(o.answer), 2) for _ in range(n)]
    return lambda units: {**collate_sounds(frames, np.asarray(units), host),  # type: ignore[arg-type]
                          **collate_exchanges([rows[i] for i in units], net.connector.shape.queries, 0)}


def counted(o: argparse.Namespace, net: SpeechNet, batch: dict[str, Tensor]) -> float:
    """FLOPs of one step as torch counts them: matrices, convolutions and attention, with those that are computed twice."""
    trainable(o, net).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        with torch.autocast(batch["frames"].device.type, torch.bfloat16):
            loss = net(**batch)
        loss.backward()
    net.zero_grad()
    return float(counter.get_total_flops())


def trainable(o: argparse.Namespace, net: SpeechNet) -> SpeechNet:
    """What a phase trains."""
    _freed(SimpleNamespace(net=net, config=SimpleNamespace(tune=o.tune)))  # type: ignore[arg-type]
    return net


def timed_steps(o: argparse.Namespace, net: SpeechNet, device: torch.device, size: int) -> dict[str, Any]:
    """One row of the table."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch, batch = Watch(device), batches(o, net, device, size)
    config = configure("speechllm", epochs=1, batch=size, precision="bf16", select="loss", seed=o.seed)
    data = Data(np.ones(size * (o.steps + 2), int), lambda units: batch(np.arange(size)))
    job = Bench(config, data, device, watch, [])
    with watch.watching(trainable(o, net)):
        watch.start()
        optimise(net, job)
    seconds = (job.steps[-1] - job.steps[2]) / o.steps
    whole = sum(v[0] for v in watch.parts.values())
    share = {k: watch.parts[k][0] / whole for k in ORDER[1:-1]}
    return {"seconds": seconds, "samples/s": size / seconds, "TFLOP/s": formula(o).total * size / seconds / 1e12,
            "utilisation": formula(o).total * size / seconds / o.peak, "GiB": peak_memory(device) / 2**10, **share}


def alone(o: argparse.Namespace, device: torch.device, size: int) -> None:
    """The encoder as the kit runs it, in float32, against carrying its cached frames to the device."""
    config = shapes(o)[0]
    torch.manual_seed(0)
    with torch.device(device), quiet():
        hears = WavLMModel(config).eval().requires_grad_(False)
    waves = torch.randn(size, round(16_000 * o.sound), device=device)
    clock, per = Watch(device), {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        for _ in range(2):  # the first is not counted
            clock.start()
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                hears(waves, output_hidden_states=True)
            per[name] = float((clock.now() - clock.last)[0]) / size
    net = SimpleNamespace(connector=SimpleNamespace(layers=config.num_hidden_layers + 1, width=config.hidden_size,
                                                    shape=SHAPES[o.connector]))
    batch = batches(o, net, device, size)  # type: ignore[arg-type]
    for _ in range(2):
        clock.start()
        batch(range(size))
        copied = float((clock.now() - clock.last)[0]) / size
    print(f"a sample of {o.sound} s: encoder {1000 * per['float32']:.2f} ms in float32, {1000 * per['bfloat16']:.2f} ms in "
          f"bfloat16; its cached frames gathered, padded and carried to the device {1000 * copied:.2f} ms ({size} at once)")


def published(o: argparse.Namespace, folder: Path) -> bool:
    if o.device == "meta":
        return sizes(o)
    device, rows, good = torch.device(o.device), {}, True
    for checkpointing in {"off": (False,), "on": (True,), "both": (False, True)}[o.checkpointing]:
        net = network(o, device, checkpointing)
        if o.count and not checkpointing:
            size = o.batches[0]
            made = {k: v.to(device) for k, v in batches(o, net, device, size)(range(size)).items()}
            ratio = formula(o).total * size / counted(o, net, made)
            good &= abs(ratio - 1) < 0.02
            print(f"FLOPs of a step by formula, against torch's own count: {ratio:.4f}")
        for size in o.batches:
            try:
                rows["on" if checkpointing else "off", size] = timed_steps(o, net, device, size)
            except torch.cuda.OutOfMemoryError:
                rows["on" if checkpointing else "off", size] = {"seconds": float("nan")}
                print(f"checkpointing {'on' if checkpointing else 'off'}: {size} samples a step do not fit")
            net.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
        trained_m, all_m = trained_numbers(net) / 1e6, sum(p.numel() for p in net.parameters()) / 1e6
        del net
        gc.collect()
        torch.cuda.empty_cache()
    table = pd.DataFrame(rows).T
    table.index = table.index.set_names(["checkpointing", "batch"])
    encoder, _, shape = shapes(o)
    print(f"{o.connector}, Llama {o.llm}{f' shrunk by {o.shrink}' if o.shrink > 1 else ''}, tune {o.tune} (rank {o.rank}): "
          f"{trained_m:.2f} M of {all_m:.2f} M parameters trained; {frames_of(encoder, o.sound)[-1]} frames, "
          f"{shape.queries} + {o.prompt} + {o.answer} tokens, {formula(o).total / 1e12:.4g} TFLOP a sample; peak "
          f"{o.peak / 1e12:.0f} TFLOP/s; {o.steps} steps each after two; the last columns are shares of a step")
    print(table.round(4).to_string())
    alone(o, device, min(8, max(o.batches)))
    return good


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", choices=["small", "published"], default="small")
    p.add_argument("--device", default="cpu", help="cpu, cuda, or meta, which takes no memory and no time")
    p.add_argument("--connector", choices=["qformer", "qpmapper"], default="qformer")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--answer", type=int, default=32, help="tokens of an answer (at most, where it is small)")
    p.add_argument("--profile", type=int, default=0, metavar="N", help="show the N functions of the kit that take longest")
    s = p.add_argument_group("small")
    s.add_argument("--encoder", default="", help="an upstream by name, such as fbank_no_cmvn; default: a small WavLM")
    s.add_argument("--utterances", type=int, default=96, help="training utterances; a quarter more for dev")
    s.add_argument("--seconds", type=float, default=2.5, help="mean length of an utterance")
    s.add_argument("--epochs", type=int, default=5)
    s.add_argument("--batch", type=int, default=16)
    s.add_argument("--least", type=float, default=2.0, help="ratio of an epoch's processor time under which the benchmark fails")
    b = p.add_argument_group("published")
    b.add_argument("--llm", choices=list(LLAMAS), default="3b")
    b.add_argument("--tune", choices=["none", "lora", "all"], default="lora")
    b.add_argument("--rank", type=int, default=2, help="of LoRA; SEmoLLM's, EmoSLLM's is not published")
    b.add_argument("--batches", type=int, nargs="+", default=[4, 16], help="samples a step")
    b.add_argument("--steps", type=int, default=10, help="steps that are timed")
    b.add_argument("--checkpointing", choices=["off", "on", "both"], default="both")
    b.add_argument("--sound", type=float, default=6.0, help="seconds of sound a sample")
    b.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    b.add_argument("--peak", type=float, default=989e12, help="FLOP/s of the device (H100, bfloat16, dense)")
    b.add_argument("--shrink", type=int, default=1, help="divide the shapes, to try this without a GPU")
    b.add_argument("--count", action="store_true", help="hold the formula against torch's own count")
    return p.parse_args()


def main() -> int:
    o = options()
    gpu = torch.cuda.get_device_name() if o.device.startswith("cuda") else "no GPU used"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}",
          flush=True)
    watched = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        if o.profile:
            watched.enable()
        good = {"small": small, "published": published}[o.size](o, Path(folder))
        watched.disable()
    if o.profile:
        pstats.Stats(watched).sort_stats("cumulative").print_stats("zsemo_kit", o.profile)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
