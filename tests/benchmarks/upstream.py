"""Published speech training, which runs the frozen upstream for every batch, against one cached mean a layer.

Seconds a step of the published recipe (batches of 4, 8 accumulations, the upstream under no_grad) and seconds an
utterance of encoding once are measured on the same upstream class, s3prl's `hf_hubert_custom` with a HuBERT of base
size and random weights (time does not depend on their values), on sounds of speech-like lengths; steps on cached means
are measured on features of that size. The sum for 15,000 steps on a corpus of 5,531 utterances (IEMOCAP's four classes)
is **computed** from these: run in full, the published side takes days on a CPU. It is not charged for its looks at dev,
which would run the upstream again: the ratio is a lower bound.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from material import LABELS, first, sounds
from measure import Options, Row, in_turn, timed
from torch import nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from zsemo_kit.core.cache import FeatureCache
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import utterance_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.training.classifier import fit
from zsemo_kit.training.recipes import configure
from zsemo_kit.training.speech_encoder import SpeechEncoder, upstream_names
from zsemo_kit.training.text_encoder import quiet

STEPS, CORPUS = 15_000, 5531  # the published training, on IEMOCAP's four classes


def hubert(folder: Path, **size: int) -> str:
    """A HuBERT with random weights, as s3prl's upstream takes it."""
    torch.manual_seed(0)
    with quiet():
        HubertModel(HubertConfig(**size)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return f"hf_hubert_custom:{folder}"


def published_step(place: str, corpus: Corpus) -> Callable[[], float]:
    """What times one step: eight batches of four through the upstream, its Featurizer, the head, and back."""
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

    def step() -> None:
        for _ in range(8):
            batch()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        adam.step()

    batch()  # warm
    return lambda: timed(step)


class Known(SpeechEncoder):
    """An encoder whose means are there already."""

    def means(self, corpus: Corpus, ram: int = 0) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(corpus), self.layers, self.width)).astype(np.float32)


def cached(encoder: SpeechEncoder, corpus: Corpus, steps: int, folder: Path) -> Callable[[], float]:
    """What times the kit's way for the whole published training: an utterance encoded once, and a step on cached means."""
    table = pd.DataFrame({"utterance": range(CORPUS), "audio": "x.wav", "emotion": [LABELS[i % 4] for i in range(CORPUS)]})
    whole = Corpus("cached", table, space="four")
    known = Known(**{k: v for k, v in vars(encoder).items() if k != "together"})
    config = configure("weighted_sum", steps=steps)

    def seconds() -> float:
        fresh = replace(encoder, cache=FeatureCache(Path(tempfile.mkdtemp(dir=folder))))
        fresh.__dict__["together"] = encoder.together  # tried once: the trial is no part of an utterance's time
        encode = timed(lambda: fresh.means(corpus)) / len(corpus)
        dev = replace(whole, table=whole.table.iloc[4 * CORPUS // 5 :])
        head = timed(lambda: fit(first(whole, 4 * CORPUS // 5), dev, LABELS, known, config)) / steps
        return CORPUS * encode + STEPS * head

    return seconds


def rows(o: Options) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sample, steps = (32, 1500) if o.full else (8, 400)
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            name = hubert(folder / "hubert")
            corpus = sounds(folder / "sounds", sample, 3.0)
            step = published_step(name.split(":", 1)[1], corpus)
            with settings(cache=folder / "cache"):
                encoder = SpeechEncoder.load(name, device="cpu", own_terms="none")
            ours = cached(encoder, corpus, steps, folder)
            yield Row("upstream", "HuBERT base (random), means once", "upstream in every step", least=50.0,
                      **in_turn(ours, lambda: STEPS * step(), o.times(3)),
                      note=f"both sides computed for {STEPS:,} steps and {CORPUS:,} utterances from one measured step, "
                           f"{sample} encoded utterances and {steps} measured steps on cached means; one thread")
    finally:
        torch.set_num_threads(threads)
