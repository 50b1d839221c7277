"""A frozen text encoder in every epoch, the published procedure, against features that are computed once.

Both sides train the same head on the same data, seed and batches, in full: nothing is extrapolated. The slow side is
already helped by masks and by batches of similar length. The fast side starts from an empty cache, so that computing
the features is part of its time. Both must guess the same.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Options, Row, in_turn, timed
from transformers import AutoTokenizer, BertConfig, BertModel

from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.labels import in_space
from zsemo_kit.corpora.table import SPACES, Corpus
from zsemo_kit.corpora.text import texts_of
from zsemo_kit.generation.written_corpus import open_recorded
from zsemo_kit.training import classifier as training
from zsemo_kit.training.heads import ConvHead
from zsemo_kit.training.loop import Data, TrainingJob, optimise, probabilities
from zsemo_kit.training.recipes import configure
from zsemo_kit.training.text_encoder import TextEncoder, model_folder


def bert_base(folder: Path) -> str:
    """A model of the published one's shape, with the same vocabulary and random weights: time does not depend on them."""
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


def train(job: TrainingJob, width: int) -> np.ndarray:
    """The head from the same start on either input; probabilities of the dev set."""
    torch.manual_seed(job.config.seed)
    head = ConvHead(width, job.targets.shape[1])
    optimise(head, job)
    return probabilities(head, job.dev, job.targets.shape[1], job.device)


def compared(name: str, what: str, encoder_name: str, utterances: int, epochs: int, repeats: int, least: float) -> Row:
    """Both sides on so many training utterances, and a quarter more for dev."""
    corpus = in_space(open_recorded("meld"), "four")
    order = np.random.default_rng(0).permutation(len(corpus))
    train_rows, dev_rows = np.split(order[: utterances + utterances // 4], [utterances])
    part: list[Corpus] = [replace(corpus, table=corpus.table.iloc[r]) for r in (train_rows, dev_rows)]
    config = configure("conv", epochs=epochs, seed=0)
    found: dict[str, Any] = {}

    def opened() -> TextEncoder:  # with an empty cache
        with settings(cache=Path(tempfile.mkdtemp(dir=folder))):
            encoder = TextEncoder.load(encoder_name, device="cpu").within(config.max_tokens)
        encoder.model(**encoder.tokenizer("warm up", return_tensors="pt"))
        return encoder

    def cached() -> float:
        encoder = opened()

        def work() -> None:
            found["job"] = training._job_of(part[0], part[1], SPACES["four"], encoder, config)
            found["cached"] = train(found["job"], encoder.width)
        return timed(work)

    def every_epoch() -> float:
        encoder = opened()
        job = found.get("job") or training._job_of(part[0], part[1], SPACES["four"], encoder, config)

        def work() -> None:
            slow = replace(job, train=live(encoder, texts_of(part[0])), dev=live(encoder, texts_of(part[1])))
            found["live"] = train(slow, encoder.width)
        return timed(work)

    with tempfile.TemporaryDirectory() as folder:
        measured = in_turn(cached, every_epoch, repeats)
    gap = float(np.abs(found["cached"] - found["live"]).max())
    if gap > 1e-3 or (found["cached"].argmax(1) != found["live"].argmax(1)).any():
        raise RuntimeError(f"cached and live features give other models: probabilities differ by {gap:.1e}")
    return Row(name, f"{what}, features once", "encoder in every epoch", least=least, **measured,
               note=f"{len(part[0])} + {len(part[1])} utterances, {epochs} epochs, one thread; same guesses")


def rows(o: Options) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        size = (300, 50) if o.full else (80, 50)
        yield compared("text_training", "MiniLM", "minilm", *size, o.times(3), 5.0)
        if o.full:
            with tempfile.TemporaryDirectory() as folder:
                yield compared("text_training_bert", "BERT-base (random)", bert_base(Path(folder)), 200, 50, o.times(1), 20.0)
    finally:
        torch.set_num_threads(threads)
