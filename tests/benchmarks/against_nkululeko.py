"""The same eGeMAPS job by the kit and by nkululeko: whole, cold (no features, fresh process) and warm, and by stage."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import Options, Row, Skipped

JOB = Path(__file__).with_name("egemaps_job.py")
HOW = ("python3.11 -m venv X && X/bin/pip install nkululeko opensmile, then --nkululeko X/bin/python "
       "(or ZSEMO_NKULULEKO); about 8 GB, most of it torch")


def job(side: str, python: str, folder: Path, cold: bool) -> dict[str, Any]:
    """Runs a side in a process of its own; cold: without what an earlier run kept."""
    if cold:
        shutil.rmtree(folder / side, ignore_errors=True)
    done = subprocess.run([python, str(JOB), side, str(folder)], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "MPLBACKEND": "Agg"})
    line = next((x for x in reversed(done.stdout.splitlines()) if x.startswith("JOB ")), "")
    if done.returncode or not line:
        raise RuntimeError(f"{side} failed: {(done.stdout + done.stderr)[-2000:]}")
    return dict(json.loads(line.removeprefix("JOB ")))


def listed(folder: Path, part: str, rows: list[tuple[Path, str, str]]) -> None:
    with (folder / f"{part}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "emotion", "speaker"), *((str(f), e, s) for f, e, s in rows)])


def spoken(folder: Path, takes: int) -> str:
    """Sentences of a card, spoken by espeak with injected emotion; the last take, by voices of its own, is the test part."""
    from zsemo_kit.generation.corpus_by_name import open_corpus
    from zsemo_kit.synthesis.speak import speak
    from zsemo_kit.synthesis.voices import open_engine

    made = speak(open_corpus("ravdess_synthetic", "four"), open_engine("espeak"), folder / "audio", takes=takes)
    parts: dict[str, list[tuple[Path, str, str]]] = {"train": [], "test": []}
    for row in made.corpus.table.itertuples():
        if row.audio:
            part = "test" if str(row.take) == str(made.corpus.table["take"].max()) else "train"
            parts[part].append((folder / "audio" / row.audio, row.emotion, f"{row.take}_{row.speaker}"))
    for part, rows in parts.items():
        listed(folder, part, rows)
    return f"espeak, {len(parts['train'])} + {len(parts['test'])} utterances"


def emodb(folder: Path) -> str:
    """Emo-DB, four classes; its last three speakers are the test part. The audio is linked, not copied."""
    from zsemo_kit.corpora.labels import in_space
    from zsemo_kit.corpora.readers import read

    corpus = in_space(read("emodb"), "four")
    (folder / "audio").symlink_to(corpus.root, target_is_directory=True)
    last = sorted(corpus.table.speaker.unique())[-3:]
    rows = [(folder / "audio" / r.audio, r.emotion, r.speaker) for r in corpus.table.itertuples()]
    parts = {"train": [r for r in rows if r[2] not in last], "test": [r for r in rows if r[2] in last]}
    for part, some in parts.items():
        listed(folder, part, some)
    return f"Emo-DB, {len(parts['train'])} + {len(parts['test'])} utterances"


def compared(name: str, data: str, folder: Path, python: str, repeats: int) -> Iterator[Row]:
    """Cold and warm runs of both, in turn."""
    sides = {"zsemo": sys.executable, "nkululeko": python}
    runs: dict[bool, list[dict[str, dict[str, Any]]]] = {True: [], False: []}
    for side, own in sides.items():  # once before the clock runs: files of both environments are in the machine's cache then
        job(side, own, folder, True)
    for i in range(repeats):
        order = list(sides.items())[:: 1 if i % 2 else -1]
        for cold in (True, False):
            runs[cold].append({side: job(side, own, folder, cold) for side, own in order})
    uar = {side: runs[True][0][side]["uar"] for side in sides}
    note = (f"{data}; eGeMAPS, unit variance, linear SVM with balanced classes, C .001 (scikit-learn's LinearSVC here, "
            f"SVC with probabilities there); UAR {uar['zsemo']:.3f} here, {uar['nkululeko']:.3f} there")

    def row(stage: str, cold: bool, what: str, remark: str = "") -> Row:
        costs = [[r[side]["seconds"][stage] for r in runs[cold]] for side in sides]
        ratios = [b / a for a, b in zip(*costs, strict=True)]
        return Row(f"{name}_{stage}_{'cold' if cold else 'warm'}", what, "nkululeko", ratios, *costs, note=remark)

    yield row("all", True, "whole job, cold", note)
    yield row("all", False, "whole job, warm", "features are kept from the run before, on both sides")
    yield row("import", True, "  imports")
    yield row("extract", True, "  extraction")
    yield row("train", True, "  training and test", "nkululeko also draws a confusion matrix and writes a report in this time")


def rows(o: Options) -> Iterator[Row]:
    if not o.nkululeko:
        raise Skipped(f"no environment with nkululeko given: {HOW}")
    makers: list[tuple[str, Callable[[Path], str]]] = [("nkululeko", lambda f: spoken(f, 8 if o.full else 3))]
    if os.environ.get("ZSEMO_CORPORA") and (Path(os.environ["ZSEMO_CORPORA"]) / "emodb").is_dir():
        makers.append(("nkululeko_emodb", emodb))
    for name, make in makers:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            yield from compared(name, make(folder), folder, o.nkululeko, o.times(3))
