"""One job, by the kit or by nkululeko: import, read, extract eGeMAPS, train a linear SVM, test. Prints its seconds by stage.

    python tests/benchmarks/egemaps_job.py zsemo FOLDER       # FOLDER holds train.csv, test.csv (file, emotion, speaker)
    X/bin/python tests/benchmarks/egemaps_job.py nkululeko FOLDER

What it keeps lies in FOLDER/zsemo or FOLDER/nkululeko: a second call finds the features there. Runs in either
environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zsemo_kit.core.settings import settings

CLOCK = time.perf_counter()  # before anything of either library is imported
C = 0.001  # of the SVM; both scale features to unit variance and balance the classes
INI = """
[EXP]
root = {root}
name = out
[DATA]
databases = ['train', 'test']
train = {folder}/train.csv
train.type = csv
train.absolute_path = True
train.split_strategy = train
test = {folder}/test.csv
test.type = csv
test.absolute_path = True
test.split_strategy = test
target = emotion
labels = ['neutral', 'happy', 'sad', 'angry']
[FEATS]
type = ['os']
set = eGeMAPSv02
scale = standard
[MODEL]
type = svm
kernel = linear
C_val = {c}
class_weight = True
n_jobs = {cores}
"""


def zsemo(folder: Path) -> dict[str, Any]:
    import pandas as pd

    from zsemo_kit.analysis.scores import scores
    from zsemo_kit.corpora.table import SPACES, Corpus
    from zsemo_kit.training.classifier import fit, predictions
    from zsemo_kit.training.recipes import configure
    from zsemo_kit.training.speech_encoder import SpeechEncoder

    seconds = {"import": time.perf_counter() - CLOCK}
    begin = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal begin
        seconds[name], begin = time.perf_counter() - begin, time.perf_counter()

    def corpus(part: str) -> Corpus:
        rows = pd.read_csv(folder / f"{part}.csv", dtype=str)
        audio = [str(Path(f).relative_to(folder)) for f in rows.file]
        return Corpus(part, rows.assign(utterance=audio, audio=audio), folder, "four")

    train, test = corpus("train"), corpus("test")
    mark("read")
    with settings(cache=folder / "zsemo"):
        encoder = SpeechEncoder.load("egemaps", own_terms="none")  # nkululeko reads files as they are
    encoder.means(train), encoder.means(test)
    mark("extract")
    config = configure("svm", normalisation="source", strengths=(C,))
    model = fit(train, train, SPACES["four"], encoder, config)  # C is fixed: nothing is chosen on a dev part
    found = predictions(model, test)
    scored = scores(found, SPACES["four"], cluster="speaker")
    mark("train")
    return {"seconds": seconds, "uar": scored["uar"], "tested": len(found)}


def nkululeko(folder: Path) -> dict[str, Any]:
    from nkululeko import experiment
    from nkululeko import nkululeko as command

    seconds = {"import": time.perf_counter() - CLOCK, "read": 0.0, "extract": 0.0}

    def clocked(method: str, stage: str) -> None:
        work: Callable[..., Any] = getattr(experiment.Experiment, method)

        def run(*a: Any, **k: Any) -> Any:
            begin = time.perf_counter()
            try:
                return work(*a, **k)
            finally:
                seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin

        setattr(experiment.Experiment, method, run)

    for method, stage in {"load_datasets": "read", "fill_train_and_tests": "read", "extract_feats": "extract"}.items():
        clocked(method, stage)
    root = folder / "nkululeko"
    root.mkdir(exist_ok=True)
    (root / "job.ini").write_text(INI.format(root=root, folder=folder, c=C, cores=os.cpu_count()))
    uar, _ = command.doit(str(root / "job.ini"))  # what `python -m nkululeko.nkululeko --config job.ini` calls
    seconds["train"] = time.perf_counter() - CLOCK - sum(seconds.values())
    return {"seconds": seconds, "uar": float(uar), "tested": 0}


if __name__ == "__main__":
    made = {"zsemo": zsemo, "nkululeko": nkululeko}[sys.argv[1]](Path(sys.argv[2]).resolve())
    made["seconds"]["all"] = time.perf_counter() - CLOCK
    print("JOB", json.dumps(made))
