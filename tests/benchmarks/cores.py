"""What a second core brings, and speech against real time. Where other work is on, these ratios say nothing."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from material import first, sounds, written
from measure import Options, Row, Skipped, command_seconds, in_turn, load, timed, zsemo

from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import stream_audio
from zsemo_kit.synthesis.speak import Spoken, speak
from zsemo_kit.synthesis.voices import open_engine
from zsemo_kit.training.functionals import functionals

NOTE = "{}; {} against 1; load before {:.1f}"


def extraction(o: Options, jobs: int, folder: Path) -> Row:
    """eGeMAPS of sounds; workers are started and openSMILE is opened before the clock runs, and results must be equal."""
    corpus, work = sounds(folder, 600 if o.full else 200, 3.0), partial(functionals, how="trim+level")
    found: dict[int, np.ndarray] = {}

    def measured(n: int) -> float:
        with settings(jobs=n):
            list(stream_audio(first(corpus, 8 * n), work))

        def all_of_it() -> None:
            with settings(jobs=n):
                done = list(stream_audio(corpus, work))
            assert all(not why for _, why in done), done
            found[n] = np.array([values for values, _ in done])
        return timed(all_of_it)

    before = load()
    pairs = in_turn(lambda: measured(jobs), lambda: measured(1), o.times(3))
    if not np.array_equal(found[1], found[jobs]):
        raise RuntimeError("eGeMAPS differs with the number of processes")
    return Row("cores_egemaps", f"eGeMAPS, {jobs} processes", "1 process", **pairs,
               note=NOTE.format(f"{len(corpus)} utterances", jobs, before))


def speaking(o: Options, jobs: int, folder: Path) -> Iterator[Row]:
    """espeak and prosody injection; the library is loaded and processes are started before the clock runs."""
    corpus, engine = written(200 if o.full else 60), open_engine("espeak")
    made: dict[int, list[Spoken]] = {1: [], jobs: []}

    def measured(n: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            with settings(jobs=n):
                speak(written(8 * n), engine, Path(place) / "warm")
            with settings(jobs=n):
                made[n].append(speak(corpus, engine, Path(place) / "timed"))
        return made[n][-1].took

    before = load()
    pairs = in_turn(lambda: measured(jobs), lambda: measured(1), o.times(3))
    yield Row("cores_speaking", f"speaking, {jobs} processes", "1 process",
              note=NOTE.format(f"{len(corpus)} utterances", jobs, before), **pairs)
    yield Row("speaking", "espeak and injection, 1 process", "as long as the speech lasts", [s.seconds / s.took for s in made[1]],
              [s.took for s in made[1]], [s.seconds for s in made[1]], least=10.0, note="times faster than real time")


def study(o: Options, jobs: int, folder: Path) -> Row:
    """Two runs of the text study at once and one after the other: kernels, training, scores, figures; features are cached."""
    def measured(n: int) -> float:
        out = tempfile.mkdtemp(dir=folder)
        values = ("source=meld_synthetic", "target=msp_podcast_synthetic", "seed=[0, 1]")
        chosen = [word for value in values for word in ("--set", value)]
        command = [zsemo(), "run", "demo", "--jobs", str(n), "--out", out, *chosen]
        return command_seconds(command, ZSEMO_CACHE=str(folder / "cache"))

    measured(jobs)  # fills the cache
    before = load()
    return Row("cores_study", f"2 study runs, --jobs {jobs}", "--jobs 1", note=NOTE.format("two seeds of `demo`", jobs, before),
               **in_turn(lambda: measured(jobs), lambda: measured(1), o.times(2)))


def rows(o: Options) -> Iterator[Row]:
    jobs = 2  # on a machine with more, still the second core is asked for
    if (os.cpu_count() or 1) < jobs:
        raise Skipped("one core only")
    with tempfile.TemporaryDirectory() as place:
        yield extraction(o, jobs, Path(place) / "sounds")
        yield from speaking(o, jobs, Path(place))
        yield study(o, jobs, Path(place))
