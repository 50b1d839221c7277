"""Largest memory against the size of a corpus: the ratio is that of the smallest over that of the largest, 1 where it is flat."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from generation import server
from material import LABELS, sounds
from measure import Options, Row, in_turn, peak

JOB = Path(__file__).with_name("memory_job.py")
QUICK = {"reading": (500, 2000, 8000), "features": (500, 2000, 8000), "generation": (500, 2000, 8000)}
FULL = {"reading": (1000, 10_000, 100_000), "features": (1000, 4000, 16_000), "generation": (1000, 10_000, 100_000),
        "speaking": (250, 1000, 4000)}
LEAST = {"reading": 0.5, "features": 0.7, "generation": 0.7, "speaking": 0.7}


def prepared(folder: Path, sizes: tuple[int, ...]) -> None:
    """Tables to read, and short sounds to measure."""
    for n in sizes:
        text = [f"This is line {i}, and it says something of about this length." for i in range(n)]
        pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "dialogue": [f"d{i // 10}" for i in range(n)], "text": text,
                      "emotion": [LABELS[i % 4] for i in range(n)]}).to_csv(folder / f"{n}.csv", index=False)
    sounds(folder / "sounds", 100, 0.3).save(folder / "few")


def rows(o: Options) -> Iterator[Row]:
    chosen = FULL if o.full else QUICK
    with tempfile.TemporaryDirectory() as place, server(Path(place), 0.005) as url:
        folder = Path(place)
        prepared(folder, chosen["reading"])
        for work, sizes in chosen.items():
            def of(n: int, work: str = work) -> float:
                return peak([sys.executable, str(JOB), work, str(n), str(folder), url], PYTHONPATH=str(JOB.parent))

            few, some, many = sizes
            between = of(some)
            pair = in_turn(lambda: of(many), lambda: of(few), o.times(1))  # noqa: B023 (called at once)
            grown = 1000 * (pair["costs"][0] - pair["costs_against"][0]) / (many - few)
            yield Row(f"memory_{work}", f"{work}, {many:,}", f"{few:,}", unit="MiB", least=LEAST[work], **pair,
                      note=f"{pair['costs_against'][0]:.0f} MiB for {few:,}, {between:.0f} for {some:,}, "
                           f"{pair['costs'][0]:.0f} for {many:,} utterances, all processes together: "
                           f"{grown:.2g} MiB a further thousand")
