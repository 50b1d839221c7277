"""espeak and prosody injection against real time, on one core and on all; memory while a large corpus is spoken.

python tests/benchmarks/speaking.py                      # 200 utterances, one process, then one a core
python tests/benchmarks/speaking.py --memory 10000       # resident memory of all processes while so many are spoken
Exits with 1 if one core is below 15 times real time, or if memory grows by more than 200 MiB after the first tenth.
"""

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import torch

from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.sources import open_corpus
from zsemo_kit.synthesis.speak import speak
from zsemo_kit.synthesis.voices import open_engine

WANTED, GROWTH = 15.0, 200.0


def written(n: int) -> Corpus:
    """So many utterances of the recorded conversations, repeated under other ids if there are too few."""
    table = open_corpus("all_synthetic", "four").table
    rounds = -(-n // len(table))
    parts = [table.assign(utterance=table.utterance + f".{k}", dialogue=table.dialogue + f".{k}") for k in range(rounds)]
    return Corpus("written", pd.concat(parts, ignore_index=True).head(n), space="four")


def resident() -> float:
    """MiB of this process and all below it."""
    pages, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            pages[int(stat.parent.name)], parents[int(stat.parent.name)] = int(fields[21]), int(fields[1])
        except OSError:
            continue
    below = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(pages[p] for p in below if p in pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def speed(n: int) -> bool:
    corpus, engine = written(n), open_engine("espeak")
    factors = {}
    for jobs in (1, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory() as folder:
            speak(written(20), engine, Path(folder) / "warm", jobs=jobs, progress=False)  # processes started, library loaded
            begin = time.process_time()
            made = speak(corpus, engine, Path(folder) / "timed", jobs=jobs, progress=False)
            busy = time.process_time() - begin
        factors[jobs] = made.real_time_factor
        print(f"{jobs} process(es): {made.seconds:.0f} s of speech in {made.took:.1f} s, {factors[jobs]:.1f} times real time"
              + (f"; {made.seconds / busy:.1f} by processor time" if jobs == 1 else ""))
    print(f"all cores against one: {max(factors.values()) / factors[1]:.2f}")
    return factors[1] >= WANTED


def memory(n: int) -> bool:
    corpus, engine, sizes, over = written(n), open_engine("espeak"), [], threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            sizes.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = speak(corpus, engine, folder, progress=False)
    over.set()
    watcher.join()
    early, late = max(sizes[: len(sizes) // 10 + 1]), max(sizes)
    print(f"{n} utterances, {made.seconds:.0f} s of speech in {time.perf_counter() - begin:.0f} s: "
          f"{early:.0f} MiB at most in the first tenth, {late:.0f} MiB at most")
    return late - early < GROWTH


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--utterances", type=int, default=200)
    arguments.add_argument("--memory", type=int, default=0, metavar="UTTERANCES")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    sys.exit(0 if (memory(given.memory) if given.memory else speed(given.utterances)) else 1)
