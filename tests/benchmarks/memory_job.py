"""One piece of work on so many utterances, in a process whose memory `memory.py` watches: memory_job.py WORK N FOLDER [URL]."""

import sys
from pathlib import Path

from zsemo_kit.core.settings import settings


def reading(n: int, folder: Path, url: str) -> None:
    from zsemo_kit.corpora.labels import in_space
    from zsemo_kit.corpora.own_data import read_table

    assert len(in_space(read_table(folder / f"{n}.csv"), "four")) == n


def features(n: int, folder: Path, url: str) -> None:
    from material import segments

    from zsemo_kit.corpora.table import Corpus
    from zsemo_kit.training.speech_encoder import SpeechEncoder

    corpus = segments(Corpus.load(folder / "few"), n)
    with settings(cache=folder / f"cache_{n}"):
        SpeechEncoder.load("egemaps", own_terms="none").means(corpus)


def generation(n: int, folder: Path, url: str) -> None:
    from generation import TOGETHER, asked

    asked(url, n, TOGETHER, folder)


def speaking(n: int, folder: Path, url: str) -> None:
    import tempfile

    from material import written

    from zsemo_kit.synthesis.speak import speak
    from zsemo_kit.synthesis.voices import open_engine

    with tempfile.TemporaryDirectory(dir=folder) as out:
        speak(written(n), open_engine("espeak"), out)


if __name__ == "__main__":
    work = {f.__name__: f for f in (reading, features, generation, speaking)}[sys.argv[1]]
    work(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "")
