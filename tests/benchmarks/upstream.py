"""Published speech training, which runs the frozen upstream for every batch, against one cached mean a layer.

    python tests/benchmarks/upstream.py                      # all three parts
    python tests/benchmarks/upstream.py --only egemaps       # training | egemaps | memory

training: seconds a step of the published recipe (batches of 4, 8 accumulations, the upstream under no_grad) and
seconds an utterance of encoding once are measured on the same upstream class, s3prl's `hf_hubert_custom` with a
HuBERT of base size and random weights (time does not depend on their values), on sounds of speech-like lengths;
the 15,000 steps on cached means are measured on features of that size. The sum for 15,000 steps and a corpus of
--utterances is computed from these. The published side is not charged for its looks at dev, which would run the
upstream again: the ratio is a lower bound.
egemaps: extraction on one core and on all.
memory: peak memory of encoding --many short utterances, after the first half and after all.

The exit status is 1 where the ratio stays under --least, or memory grows with the corpus.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from zsemo_kit.corpora.audio import own_terms, save_audio, stream_audio, utterance_audio
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.training.config import FitConfig
from zsemo_kit.training.encoders import quiet
from zsemo_kit.training.fit import fit
from zsemo_kit.training.functionals import functionals
from zsemo_kit.training.upstreams import SpeechEncoder, upstream_names

LABELS = SPACES["four"]


def hubert(folder: Path, **size: int) -> str:
    """A HuBERT with random weights, as s3prl's upstream takes it."""
    torch.manual_seed(0)
    with quiet():
        HubertModel(HubertConfig(**size)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return f"hf_hubert_custom:{folder}"


def sounds(folder: Path, n: int, seconds: float) -> Corpus:
    """Tones in noise whose lengths are spread as those of acted and of spontaneous corpora (log-normal, deviation .5)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        t = np.arange(int(16_000 * np.clip(seconds * rng.lognormal(-0.125, 0.5), 0.2, 15))) / 16_000
        voice = sum(np.sin(2 * np.pi * k * rng.uniform(90, 250) * t) / k for k in range(1, 8))
        save_audio(folder / f"{i}.wav", 0.1 * voice * (0.5 + 0.5 * np.sin(9 * t)) + 0.01 * rng.standard_normal(len(t)))
    return Corpus("sounds", pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "audio": [f"{i}.wav" for i in range(n)],
                                          "emotion": [LABELS[i % 4] for i in range(n)]}), root=folder, space="four")


def first(corpus: Corpus, n: int) -> Corpus:
    return replace(corpus, table=corpus.table.iloc[:n])


def published_step(place: str, corpus: Corpus, batches: int) -> np.ndarray:
    """Seconds of one step: eight batches of four through the upstream, its Featurizer, the head, and back."""
    upstream_names()  # imports s3prl, quietly
    from s3prl.nn import Featurizer, S3PRLUpstream

    with quiet():
        upstream = S3PRLUpstream("hf_hubert_custom", path_or_url=place).eval().requires_grad_(False)
    featurizer = Featurizer(upstream)
    head = nn.ModuleList([featurizer, nn.Linear(featurizer.output_size, 256), nn.Linear(256, 4)])
    adam = torch.optim.Adam(head.parameters(), lr=1e-4)
    rng, waves = np.random.default_rng(1), [torch.from_numpy(utterance_audio(corpus, i)) for i in range(len(corpus))]

    def batch() -> None:
        some = [waves[i] for i in rng.choice(len(waves), 4, replace=False)]
        with torch.no_grad():
            hidden, n = upstream(nn.utils.rnn.pad_sequence(some, batch_first=True), torch.tensor([len(w) for w in some]))
        h, n = featurizer(hidden, n)
        h = head[1](h)
        logits = head[2](torch.stack([x[:k].mean(0) for x, k in zip(h, n.tolist(), strict=True)]))
        (nn.functional.cross_entropy(logits, torch.randint(4, (4,))) / 8).backward()

    batch()  # warm
    clock = Clock()
    for _ in range(batches):
        batch()
    nn.utils.clip_grad_norm_(head.parameters(), 1.0)
    adam.step()
    return clock() / batches * 8


class Clock:
    """Seconds of wall time and of processors since it was made; the second bears other work on the machine."""

    def __init__(self) -> None:
        self.start = self.now()

    @staticmethod
    def now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def __call__(self) -> np.ndarray:
        return self.now() - self.start


class Known(SpeechEncoder):
    """An encoder whose means are there already."""

    def means(self, corpus: Corpus, progress: bool = False, ram: int = 0) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(corpus), self.layers, self.width)).astype(np.float32)


def training(o: argparse.Namespace, folder: Path) -> bool:
    name = hubert(folder / "hubert")
    corpus = sounds(folder / "sounds", o.sample, o.seconds)
    step = published_step(name.split(":", 1)[1], corpus, o.batches)
    encoder = SpeechEncoder.load(name, cache=folder / "cache", device="cpu", own_terms="none")
    assert not encoder.together  # tried here, so that the trial is no part of an utterance's time
    clock = Clock()
    encoder.means(corpus)
    encode = clock() / len(corpus)
    n = o.utterances
    table = pd.DataFrame({"utterance": range(n), "audio": "x.wav", "emotion": [LABELS[i % 4] for i in range(n)]})
    whole = Corpus("cached", table, space="four")
    known = Known(**{k: v for k, v in vars(encoder).items() if k != "together"})
    clock = Clock()
    fit(first(whole, 4 * n // 5), replace(whole, table=whole.table.iloc[4 * n // 5 :]), LABELS, known,
        FitConfig(classifier="weighted_sum", steps=o.steps), progress=False)
    head = clock() / o.steps
    slow, fast = 15_000 * step, n * encode + 15_000 * head
    for i, kind in enumerate(("wall time", "processor time")):
        print(f"{kind}: published {step[i]:.2f} s a step of 32 utterances, {slow[i] / 3600:.1f} h for 15,000 steps; "
              f"here {1000 * encode[i]:.0f} ms an utterance, once ({n * encode[i] / 60:.1f} min for {n:,}), "
              f"then {1000 * head[i]:.2f} ms a step ({o.steps:,} measured, dev included), {fast[i] / 60:.1f} min in all")
        print(f"  ratio {slow[i] / fast[i]:.0f} (at least {o.least:.0f}); "
              f"of a further head on the same cache {slow[i] / (15_000 * head[i]):,.0f}")
    return bool((slow / fast)[1] >= o.least)


def egemaps(o: argparse.Namespace, folder: Path) -> bool:
    corpus = sounds(folder / "acoustic", o.files, o.seconds)
    hours = sum(len(utterance_audio(corpus, i)) for i in range(len(corpus))) / 16_000
    work = partial(functionals, how="trim+level")
    seconds = {}
    for jobs in (1, os.cpu_count()):
        for warm in (True, False):  # workers are started and openSMILE opened before the clock runs
            start = time.perf_counter()
            done = list(stream_audio(first(corpus, 64) if warm else corpus, work, jobs=jobs))
            seconds[jobs] = time.perf_counter() - start
        assert all(not why for _, why in done)
        print(f"eGeMAPS on {jobs} core(s): {len(corpus)} utterances ({hours:.0f} s of sound) in {seconds[jobs]:.1f} s, "
              f"{hours / seconds[jobs]:.0f} times faster than they last")
    print(f"ratio {seconds[1] / seconds[os.cpu_count()]:.2f}")
    return True


def peak(name: str, folder: str) -> None:
    """Peak memory of this process in MiB, workers not counted: at first, after half of a corpus, after all of it."""
    corpus = Corpus.load(folder)
    encoder = SpeechEncoder.load(name, cache=f"{folder}_{name[:4]}", device="cpu")
    seen = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    for part in (first(corpus, len(corpus) // 2), corpus):
        assert np.isfinite(encoder.means(part)).all()
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(*seen)


def memory(o: argparse.Namespace, folder: Path) -> bool:
    names = [hubert(folder / "tiny", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32), "egemaps"]
    small = sounds(folder / "few", 200, 0.5)
    table = pd.concat([small.table] * (o.many // 200), ignore_index=True)  # each a segment of its own, so a content of its own
    table = table.assign(utterance=[f"u{i}" for i in range(len(table))], start=[(i // 200) * 1e-4 for i in range(len(table))])
    Corpus("many", table, folder / "few", "four").save(folder / "many")
    good = True
    for name in names:
        command = [sys.executable, __file__, "--peak", name, str(folder / "many")]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        before, half, end = map(float, out.stdout.split())
        print(f"{name.split(':')[0]}: peak {before:.0f} MiB before, {half:.0f} after {o.many // 2:,} utterances, "
              f"{end:.0f} after {o.many:,}")
        good &= end < half + 64  # torch keeps a plan for each of some hundred shapes: that is in the first half
    return good


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", choices=["training", "egemaps", "memory"])
    p.add_argument("--utterances", type=int, default=5531, help="corpus that is trained on (IEMOCAP's four classes have 5,531)")
    p.add_argument("--seconds", type=float, default=3.0, help="mean length of an utterance")
    p.add_argument("--sample", type=int, default=32, help="utterances that are encoded to be timed")
    p.add_argument("--batches", type=int, default=8, help="batches of four that are timed")
    p.add_argument("--steps", type=int, default=1500, help="steps on cached means that are timed")
    p.add_argument("--files", type=int, default=400, help="utterances for eGeMAPS")
    p.add_argument("--many", type=int, default=10_000, help="utterances for memory")
    p.add_argument("--least", type=float, default=50.0)
    p.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.peak:
        peak(*o.peak)
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    good = True
    for part in (training, egemaps, memory):
        if o.only in (None, part.__name__):
            with tempfile.TemporaryDirectory() as folder:
                good &= part(o, Path(folder))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
