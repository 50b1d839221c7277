"""Seconds of computing per second of speech: eGeMAPS and Praat's measures, on one core and on all.

    python tests/benchmarks/acoustics.py --utterances 400 --seconds 3

The speech is made here (voices that swell in syllables, no two alike), so that anybody can repeat it; --corpus takes a
folder of WAV or FLAC files instead. Each side runs in full and is timed by the wall clock, with worker processes started
and the extractor made before the clock runs, and the results of both are compared: the exit status is 1 where they
differ, or where all cores are not --least times as fast as one. A machine that does other work at the same time shows
less than its due: the load is printed.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zsemo_kit.corpora.audio import RATE, each_audio, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis.acoustics import MEASURES, egemaps, measure


def voices(folder: Path, n: int, seconds: float) -> Corpus:
    """Harmonic sounds with a moving pitch, syllables and breath."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE)) / RATE
    for i in range(n):
        pitch = rng.uniform(90, 280) * 2 ** (0.2 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        x = sum(np.sin(k * phase + k * k) / k for k in range(1, 16)) + 0.1 * rng.normal(size=len(t))
        x *= 1 - 0.9 * np.cos(2 * np.pi * rng.uniform(3, 6) * t)
        save_audio(folder / f"{i}.wav", (0.3 * x / np.abs(x).max()).astype(np.float32))
    return named(folder)


def named(folder: Path, most: int | None = None) -> Corpus:
    """A folder of files as a corpus without labels."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in (".wav", ".flac")][:most]
    audio = [p.relative_to(folder).as_posix() for p in files]
    return Corpus("benchmark", pd.DataFrame({"utterance": audio, "audio": audio, "emotion": ""}), folder)


def ran(corpus: Corpus, work: Callable[..., Any], jobs: int) -> tuple[float, np.ndarray]:
    """Seconds, and the results as a matrix."""
    start = time.perf_counter()
    results, problems = each_audio(corpus, work, jobs=jobs)
    seconds = time.perf_counter() - start
    assert problems.empty, problems
    return seconds, np.array([[r[m] for m in MEASURES] if isinstance(r, dict) else r for r in results], float)


def machine() -> str:
    """What the times were measured on."""
    info = Path("/proc/cpuinfo")
    cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")),
               platform.machine()) if info.exists() else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a made utterance")
    parser.add_argument("--corpus", type=Path, help="folder of audio files, in place of made ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--least", type=float, default=1.4, help="speed of all cores over one under which it fails")
    return parser.parse_args()


def main() -> int:
    o = options()
    ok, rows = True, {}
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = named(o.corpus, o.utterances) if o.corpus else voices(Path(folder), o.utterances, o.seconds)
        total = sum(each_audio(corpus, len, jobs=1)[0]) / RATE
        warm = corpus.where({"utterance": corpus.table.utterance[: 8 * o.jobs].tolist()})
        for work in (egemaps, measure):
            ran(warm, work, 1), ran(warm, work, o.jobs)
            (one, a), (many, b) = ran(corpus, work, 1), ran(corpus, work, o.jobs)
            same = np.array_equal(a, b, equal_nan=True)
            rows[work.__name__] = {"one core, s": one, "real-time factor": one / total, f"{o.jobs} cores, s": many,
                                   "real-time factor ": many / total, "speed-up": one / many, "same": same}
            ok &= same and one / many >= o.least
    print(f"{len(corpus)} utterances, {total:.0f} s of speech")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda x: f"{x:.4g}"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"load {os.getloadavg()[0]:.1f}; peak memory of this process {peak:.0f} MB")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
