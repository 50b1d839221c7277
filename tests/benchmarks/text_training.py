"""Frozen encoder every epoch against cached features: the same head, data, seed and batches, in one run.

    python tests/benchmarks/text_training.py --utterances 200 --epochs 50

Both sides run in full: nothing is extrapolated. The slow side is the published procedure (the frozen encoder
runs for every batch of every epoch), already helped by masks and by batches of similar length. The fast side
starts from an empty cache, so that computing the features once is part of its time. The exit status is 1 where
predictions differ or the ratio stays under --least.

Without --encoder the model has the shape of the published one, bert-base-uncased, with random weights where the
real ones are not to be had: time does not depend on their values.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from zsemo_kit.corpora.labels import in_space
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.generation.dialogues import recorded
from zsemo_kit.training import fit as training
from zsemo_kit.corpora.turns import texts_of
from zsemo_kit.training.encoders import TextEncoder, model_folder
from zsemo_kit.training.fit import FitConfig
from zsemo_kit.training.heads import ConvHead
from zsemo_kit.training.loop import Data, Job, optimise, probabilities


def bert_base(folder: Path) -> str:
    """A model of the published one's shape, with the same vocabulary and random weights."""
    AutoTokenizer.from_pretrained(model_folder("minilm")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    return str(folder)


def live(encoder: TextEncoder, texts: list[str]) -> Data:
    """Input of the head that runs the frozen encoder for each batch that is asked for."""
    tokens = encoder.tokens(texts)

    def batch(rows: Any) -> dict[str, torch.Tensor]:
        inputs = {k: v.to(encoder.device) for k, v in encoder.batch([tokens[i] for i in rows]).items()}
        mask = inputs.pop("pool")
        with torch.no_grad():
            return {"x": encoder.model(**inputs).last_hidden_state, "mask": mask}

    return Data([len(t) for t in tokens], batch)


def train(job: Job, width: int) -> np.ndarray:
    """The head from the same start on either input; probabilities of the dev set."""
    torch.manual_seed(job.config.seed)
    head = ConvHead(width, job.targets.shape[1])
    optimise(head, job)
    return probabilities(head, job.dev, job.targets.shape[1], job.device)


def machine() -> str:
    """What the times were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    return (f"{cpu or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}, "
            f"Python {platform.python_version()}, torch {torch.__version__}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=200, help="training utterances; a quarter more for dev")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--encoder", help="minilm, a folder or a hub name; default: the shape of bert-base-uncased")
    parser.add_argument("--card", default="meld", help="card whose recorded replies are the data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--least", type=float, default=20.0, help="ratio under which the benchmark fails")
    return parser.parse_args()


def main() -> int:
    o = options()
    corpus = in_space(recorded(o.card), "four")
    rows = np.random.default_rng(o.seed).permutation(len(corpus))
    train_rows, dev_rows = np.split(rows[: o.utterances + o.utterances // 4], [o.utterances])
    part: list[Corpus] = [replace(corpus, table=corpus.table.iloc[r]) for r in (train_rows, dev_rows)]
    config = FitConfig(classifier="conv", epochs=o.epochs, seed=o.seed)
    with tempfile.TemporaryDirectory() as folder:
        name = o.encoder or bert_base(Path(folder) / "model")
        encoder = TextEncoder.load(name, cache=Path(folder) / "cache", device=o.device).within(config.max_tokens)
        encoder.model(**{k: v.to(encoder.device) for k, v in encoder.tokenizer("warm up", return_tensors="pt").items()})
        print(f"{machine()}\nencoder {o.encoder or 'bert-base shape, random weights'} ({encoder.width} wide), "
              f"{len(part[0])} + {len(part[1])} utterances, {o.epochs} epochs, batch {config.batch}", flush=True)

        start = time.perf_counter()
        job = training._job_of(part[0], part[1], SPACES["four"], encoder, config, False)
        features = time.perf_counter() - start
        fast = train(job, encoder.width)
        cached = time.perf_counter() - start

        start = time.perf_counter()
        slow_job = replace(job, train=live(encoder, texts_of(part[0])), dev=live(encoder, texts_of(part[1])))
        slow = train(slow_job, encoder.width)
        recomputed = time.perf_counter() - start

    gap, ratio = float(np.abs(fast - slow).max()), recomputed / cached
    same = gap < 1e-3 and (fast.argmax(1) == slow.argmax(1)).all()
    table = pd.DataFrame({"seconds": [recomputed, cached, features, cached - features]},
                         index=["encoder in every epoch", "cached, all", "  of it features, once", "  of it the head"])
    print(table.round(2).to_string())
    print(f"ratio {ratio:.1f}; largest difference of a probability {gap:.1e}; same guesses: {same}")
    return 0 if same and ratio >= o.least else 1


if __name__ == "__main__":
    sys.exit(main())
