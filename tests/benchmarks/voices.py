"""How many times faster than real time espeak speaks on one core: ``python tests/benchmarks/voices.py``."""

import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from zsemo_kit.generation.written_corpus import open_recorded
from zsemo_kit.synthesis.speakable import make_speakable
from zsemo_kit.synthesis.voices import cast, open_engine

CARDS = {"meld": "en", "emodb": "de", "nemo": "pl"}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    engine = open_engine("espeak")
    print(engine.fingerprint)
    for card, language in CARDS.items():
        table = open_recorded(card).table.head(1000)
        begun = time.perf_counter()
        parts = cast(table, engine.voices(language))
        texts = [make_speakable(t, language) for t in table["text"]]
        ready, begun_cpu = time.perf_counter(), time.process_time()
        seconds = sum(len(engine.say(t, v)) for t, v in zip(texts, parts, strict=True)) / 16_000
        spent, cpu = time.perf_counter() - ready, time.process_time() - begun_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{card}: {len(table)} utterances, {seconds:.0f} s of speech in {spent:.1f} s ({cpu:.1f} s of CPU): "
            f"{seconds / spent:.0f} times real time ({seconds / cpu:.0f} by CPU); cast and texts {ready - begun:.2f} s; "
            f"peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
