"""What the benchmarks work on: made here, so that anybody can repeat them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from zsemo_kit.corpora.audio import save_audio
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.generation.corpus_by_name import open_corpus

LABELS = SPACES["four"]


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


def segments(corpus: Corpus, n: int) -> Corpus:
    """So many utterances on few files: each a segment of its own, so features of its own."""
    rounds = -(-n // len(corpus))
    table = pd.concat([corpus.table] * rounds, ignore_index=True).head(n)
    start = [(i // len(corpus)) * 1e-4 for i in range(n)]
    return Corpus("many", table.assign(utterance=[f"u{i}" for i in range(n)], start=start), corpus.root, "four")


def written(n: int) -> Corpus:
    """So many utterances of the recorded conversations, repeated under other ids if there are too few."""
    table = open_corpus("all_synthetic", "four").table
    rounds = -(-n // len(table))
    parts = [table.assign(utterance=table.utterance + f".{k}", dialogue=table.dialogue + f".{k}") for k in range(rounds)]
    return Corpus("written", pd.concat(parts, ignore_index=True).head(n), space="four")


def first(corpus: Corpus, n: int) -> Corpus:
    return replace(corpus, table=corpus.table.iloc[:n])
