"""Explained runs: answers that runs kept, pooled over seeds, in the page of a study; whole, partial, damaged and absent."""

import gc
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.analysis.answer_tables import (
    ANSWERS, ANSWER_CONDITIONS, EVIDENCE, AnswerTables, evaluate_answers, keep_answers, write_sections,
)
from zsemo_kit.analysis.faithfulness import (
    compare_edits, compare_inputs, measure_calibration, measure_parse_rate, score_attributes,
)
from zsemo_kit.analysis.report import Report, make_report
from zsemo_kit.analysis.runs import gather
from zsemo_kit.analysis.scores import scores
from zsemo_kit.analysis.tables import make_table
from zsemo_kit.core.errors import InputError
from zsemo_kit.synthesis.annotation import LEVELS, write_answer
from zsemo_kit.synthesis.counterfactual import EDITS

LABELS = ["happy", "sad", "angry"]
CONDITIONS_HEARD = ("full", "muted", "shuffled features", "free")
EDITED = ("pitch up", "slower", "louder", "none")
Frames = dict[str, pd.DataFrame]


def voices(n: int = 90, levels: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    made = pd.DataFrame({"utterance": [f"u{i:03}" for i in range(n)], "dialogue": "", "speaker": [f"s{i % 6}" for i in range(n)],
                         "heard_gender": np.resize(["male", "female"], n), "text": np.resize(["sit down", "come here"], n),
                         "audio": "a.wav"})  # fmt: skip
    return made.assign(pitch_mean=120.0, **{a: rng.choice(LEVELS[levels][1], n) for a in ("pitch", "speed", "volume")})


def answered(heard: pd.DataFrame, seed: int, kind: str = "EGPSVT", right: float = 0.7) -> pd.DataFrame:
    rng, truth = np.random.default_rng(seed), np.resize(LABELS, len(heard))
    guess = np.where(rng.random(len(heard)) < right, truth, rng.choice(LABELS, len(heard)))
    said = [write_answer(g, row, kind) for g, row in zip(guess, heard.to_dict("records"), strict=True)]
    p = {f"p_{label}": np.where(guess == label, 0.7, 0.15) for label in LABELS}
    return heard[["utterance", "dialogue", "speaker"]].assign(
        truth=truth, answer=said, guess=guess, confidence=0.7, parsed=rng.random(len(heard)) < 0.9, **p)  # fmt: skip


def moved(heard: pd.DataFrame, name: str, levels: int = 3) -> pd.DataFrame:
    edit, words = EDITS[name], list(LEVELS[levels][1])
    if not edit.attribute:
        return heard
    places = heard[edit.attribute].map(words.index) + edit.direction
    return heard.assign(**{edit.attribute: [words[i] for i in places.clip(0, len(words) - 1)]})


def everything(seed: int, levels: int = 3, kind: str = "EGPSVT") -> tuple[Frames, Frames]:
    heard = voices(levels=levels)
    some, told = heard.head(48), heard.assign(volume=np.roll(heard["volume"], 1))
    evidence = {"full": heard, "shuffled features": told} | {name: moved(some, name, levels) for name in EDITED}
    voiced = {"full": heard, "muted": heard, "no transcript": heard, "shuffled features": told, "free": heard, "original": some}
    sources = voiced | {name: evidence[name] for name in EDITED}
    answers = {n: answered(t, 100 * seed + i, kind, 0.1 if n == "muted" else 0.7) for i, (n, t) in enumerate(sources.items())}
    return answers, evidence


def make(
    study: Path,
    seed: int,
    kept: tuple[Mapping[str, pd.DataFrame], Mapping[str, pd.DataFrame] | None] | None,
    **more: Any,
) -> Path:
    folder = study / f"{len(list(study.glob('*'))):012x}"
    folder.mkdir(parents=True)
    base = answered(voices(), seed)
    base.to_parquet(folder / "predictions.parquet")
    facts = {"study": study.name, "run_id": folder.name, "system": "semollm", "modality": "speech", "source": "drama",
             "target": "drama", "space": "four", "seed": seed, "transductive": False, "n_train": 9, "n_test": 90}  # fmt: skip
    facts |= {k: v for k, v in more.items() if k in facts}
    (folder / "metrics.json").write_text(json.dumps(facts | scores(base, LABELS, n_boot=10)))
    params = {"source": "drama", "target": "drama", "seed": seed} | {k: v for k, v in more.items() if k not in facts}
    (folder / "params.json").write_text(json.dumps(params))
    if kept:
        keep_answers(folder, *kept)
    return folder


def found(study: Path, n_boot: int = 40) -> AnswerTables:
    return evaluate_answers(make_table(gather(study, write=False)), n_boot=n_boot)


@pytest.fixture(scope="session", autouse=True)
def light_collections() -> None:
    """The correction of p-values collects garbage each time, and would look through every imported library."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "demo"
    for seed in (0, 1):
        make(folder, seed, everything(seed))
    return folder


@pytest.fixture(scope="session")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("part") / "demo"
    for seed in (0, 1):
        answers, evidence = everything(seed)
        make(folder, seed, ({name: answers[name] for name in (*CONDITIONS_HEARD, "original", "slower", "none")},
                            {name: evidence[name] for name in ("full", "shuffled features", "slower", "none")}))
    return folder


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    """One row of two seeds that kept everything."""
    return shutil.copytree(whole, tmp_path / "demo")


@pytest.fixture
def brief(part: Path, tmp_path: Path) -> Path:
    """The same with one edit and its control, for what is damaged: every kind of table is there."""
    return shutil.copytree(part, tmp_path / "demo")


# ---- whole


def test_numbers_are_those_of_the_pooled_answers(study: Path) -> None:
    seeds = [everything(seed) for seed in (0, 1)]
    answers = {name: [a[name] for a, _ in seeds] for name in seeds[0][0]}
    tables = found(study).tables
    plain = score_attributes(answers["full"], voices(), n_boot=40)
    pd.testing.assert_frame_equal(tables["attributes"][plain.columns], plain)
    assert tables["attributes"]["seeds"].eq(2).all() and tables["attributes"].loc[0, "n"] == 180
    sure = measure_calibration(answers["full"], n_boot=40)
    assert tables["reliability"].loc[0, ["ece", "brier", "nll", "n"]].tolist() == [sure.ece, sure.brier, sure.nll, 180]
    assert tables["bins"]["n"].sum() == 180
    asked = {name: answers[name] for name in ("full", "muted", "no transcript", "shuffled features")}
    used = compare_inputs(asked, n_boot=40)
    pd.testing.assert_frame_equal(tables["reliance"][used.columns], used)
    evidence = {"original": voices(), **{n: moved(voices().head(48), n) for n in EDITED}}
    edits = compare_edits({n: answers[n] for n in ("original", "none", *EDITED[:3])}, EDITS, evidence=evidence, n_boot=40)
    assert set(tables["counterfactuals"]["edit"]) == set(EDITED[:3])
    both = tables["counterfactuals"].set_index("edit"), edits.set_index("edit")
    pd.testing.assert_frame_equal(*(b.sort_index()[["n", "room", "towards", "control_towards", "measured", "net"]] for b in both))
    assert tables["parse_rate"].loc[0, "parsed"] == measure_parse_rate(answers["free"], n_boot=40).loc[0, "parsed"]
    believed = tables["believed"].set_index("attribute")
    assert believed.loc["volume", "prompt"] == 1 and believed.loc["volume", "n"] > 50 and believed.loc["pitch", "n"] == 0


def test_the_page_has_tables_figures_and_whose_numbers_they_are(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zsemo_kit.analysis.report.evaluate_answers", partial(evaluate_answers, n_boot=40))
    done = make_report("demo", study.parent)
    assert isinstance(done, Report) and not done.answers.messages
    names = {p.name for p in done.files}
    for kind in ("attributes", "reliability", "counterfactuals", "reliance"):
        assert f"demo__{kind}_drama_drama_four.svg" in names and f"{kind}.csv" in names
        assert (study / f"demo__{kind}_drama_drama_four.svg").exists()
        assert f"(demo__{kind}_drama_drama_four.svg)" in done.text
    assert {"believed.csv", "parse_rate.csv", "bins.csv"} <= names and all(p.exists() for p in done.files)
    assert "6 speakers, 2 seeds, not transductive" in done.text and "SEmoLLM's, IEMOCAP" in done.text and ".979" in done.text
    assert "Free answers of drama on drama" in done.text and "(n = 180, 6 speakers, 2 seeds, not transductive)" in done.text
    assert pd.read_csv(study / "reliance.csv")["condition"].tolist() == ["full", "muted", "no transcript", "shuffled features"]
    assert str(tmp_path) not in done.text and "6 speakers." in done.figures["reliability_drama_drama_four"].get_supxlabel()
    assert "u000" not in "".join(p.read_text() for p in study.glob("*.csv"))
    before = {p.name: p.read_bytes() for p in done.files}
    assert {p.name: p.read_bytes() for p in make_report("demo", study.parent).files} == before


def test_rows_stand_apart_and_say_what_they_are(study: Path) -> None:
    for seed in (0, 1):
        make(study, seed, everything(seed + 7), connector="qformer", transductive=True)
    done = found(study)
    assert done.tables["attributes"].groupby("name").size().to_dict() == {"drama": 5, "drama, qformer": 5}
    assert {"reliance_drama_drama_four", "reliance_drama, qformer_drama_four"} <= set(done.figures)
    page = "\n".join(write_sections(done))
    assert "| row |" in page and "| drama, qformer |" in page and "| transductive |" in page
    assert "2 seeds. n:" in page and "2 seeds, transductive)" in page  # said by a column, but for the line of free answers
    small = done.figures["attributes_drama, qformer_drama_four"].get_supxlabel()
    assert "transductive" in small and "6 speakers, 2 seeds" in small.replace("\n", " ")
    assert "transductive" not in done.figures["attributes_drama_drama_four"].get_supxlabel()
    assert done.figures["attributes_drama, qformer_drama_four"].get_suptitle().startswith("Qformer, on drama: ")


def test_levels_come_from_the_runs(tmp_path: Path) -> None:
    def some(seed: int, levels: int = 3) -> tuple[Frames, Frames]:
        answers, evidence = everything(seed, levels)
        return {name: answers[name] for name in ("full", "original", "slower", "none")}, evidence

    for seed in (0, 1):
        make(tmp_path / "s", seed, some(seed, 5), levels=5)
    done = found(tmp_path / "s")
    assert not done.messages and done.tables["attributes"].set_index("attribute").loc["pitch", "accuracy"] == 1
    for seed in (0, 1):  # now the level varies: a row each
        make(tmp_path / "s", seed, some(seed), levels=3)
        make(tmp_path / "s", seed, some(seed))  # states none
    done = found(tmp_path / "s")
    assert not done.messages and len(done.tables["attributes"]) == 15
    make(tmp_path / "odd", 0, some(0), levels=7)
    told = found(tmp_path / "odd").messages
    assert told and all("levels of another kind" in line for line in told)


def test_each_seed_is_held_against_its_own_evidence(tmp_path: Path) -> None:
    """Thresholds are learnt on the training part, which is drawn anew for each seed."""
    for seed in (0, 1):
        heard = voices().assign(pitch=LEVELS[3][1][seed])
        make(tmp_path / "s", seed, ({"full": answered(heard, seed)}, {"full": heard}))
    pitch = found(tmp_path / "s").tables["attributes"].set_index("attribute").loc["pitch"]
    assert pitch["accuracy"] == 1 and pitch["floor"] == 0.5 and pitch["n"] == 180


# ---- parts


def test_a_study_that_kept_nothing_is_unchanged(tmp_path: Path) -> None:
    for seed in (0, 1):
        make(tmp_path / "s", seed, None)
    assert found(tmp_path / "s") == AnswerTables() and write_sections(AnswerTables()) == []
    done = make_report("s", tmp_path)
    assert {p.name.rsplit(".", 1)[1] for p in done.files} == {"csv", "md", "svg"} and "Answers" not in done.text
    assert [p.name for p in done.files if p.suffix == ".csv"] == ["results.csv"]
    assert not [name for name in done.figures if name.startswith(("attributes", "reli", "counter"))]


@pytest.mark.parametrize(("conditions", "kinds"), [
    (("full",), ["attributes", "reliability", "bins"]),
    (("full", "muted"), ["attributes", "reliability", "bins", "reliance"]),
    (("full", "free"), ["attributes", "reliability", "bins", "parse_rate"]),
    (("full", "original", "none"), ["attributes", "reliability", "bins"]),
    (("full", "none", "slower"), ["attributes", "reliability", "bins", "counterfactuals"]),
    (("full", "original", "slower"), ["attributes", "reliability", "bins", "counterfactuals"]),
])
def test_only_what_was_kept_is_shown(tmp_path: Path, conditions: tuple[str, ...], kinds: list[str]) -> None:
    for seed in (0, 1):
        answers, evidence = everything(seed)
        make(tmp_path / "s", seed, ({c: answers[c] for c in conditions}, evidence))
    done = found(tmp_path / "s")
    assert list(done.tables) == kinds and not done.messages
    assert "\n" not in "".join(done.messages) and write_sections(done)


def test_answers_without_claims_need_no_evidence(tmp_path: Path) -> None:
    answers, _ = everything(0, kind="E")
    make(tmp_path / "s", 0, ({n: f for n, f in answers.items() if n != "shuffled features"}, None))
    done = found(tmp_path / "s")
    assert not done.messages and "attributes" not in done.tables
    assert done.tables["counterfactuals"]["verdict"].eq("not tested").all()  # the emotion may still move
    write_sections(done)


def test_edits_of_some_seeds_are_compared_for_those(tmp_path: Path) -> None:
    answers, evidence = everything(0)
    make(tmp_path / "s", 0, (answers, evidence))
    make(tmp_path / "s", 1, ({"full": everything(1)[0]["full"]}, {"full": evidence["full"]}))
    tables = found(tmp_path / "s").tables
    assert tables["attributes"]["seeds"].eq(2).all() and tables["counterfactuals"]["seeds"].eq(1).all()
    assert "| seeds |" not in "\n".join(write_sections(found(tmp_path / "s")))


# ---- damaged


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("spoil", [
    lambda run: _torn(run / ANSWERS),
    lambda run: (run / ANSWERS).write_bytes(b""),
    lambda run: (run / ANSWERS).unlink(),
    lambda run: pd.DataFrame({"x": [1]}).to_parquet(run / ANSWERS),
    lambda run: pd.read_parquet(run / ANSWERS).drop(columns="condition").to_parquet(run / ANSWERS),
    lambda run: pd.read_parquet(run / ANSWERS).iloc[:0].to_parquet(run / ANSWERS),
    lambda run: ((run / ANSWERS).unlink(), (run / ANSWERS).mkdir()),
], ids=["torn", "empty", "missing", "other", "no condition", "no rows", "a folder"])
def test_damaged_answers_are_told_and_the_other_seed_stands(brief: Path, spoil: Any) -> None:
    spoil(sorted(p for p in brief.iterdir() if p.is_dir())[0])
    done = found(brief, n_boot=10)
    assert done.tables["attributes"]["seeds"].eq(1).all()
    assert "drama: answers of 1 of 2 seeds" in done.messages
    assert all("\n" not in line and len(line) < 300 for line in done.messages)
    assert "Answers not shown: drama: answers of 1 of 2 seeds." in write_sections(done)


@pytest.mark.parametrize("spoil", [
    lambda run: _torn(run / EVIDENCE),
    lambda run: (run / EVIDENCE).unlink(),
    lambda run: pd.read_parquet(run / EVIDENCE).assign(pitch="shrill").to_parquet(run / EVIDENCE),
    lambda run: pd.read_parquet(run / EVIDENCE).assign(utterance="one").to_parquet(run / EVIDENCE),
    lambda run: pd.read_parquet(run / EVIDENCE).drop(columns="volume").to_parquet(run / EVIDENCE),
], ids=["torn", "missing", "other words", "one utterance", "no volume"])
def test_damaged_evidence_costs_what_needs_it_only(brief: Path, spoil: Any) -> None:
    spoil(sorted(p for p in brief.iterdir() if p.is_dir())[0])
    done = found(brief, n_boot=10)
    assert {"reliability", "reliance", "parse_rate"} <= set(done.tables) and not {"attributes", "believed"} & set(done.tables)
    assert any(line.startswith("drama: attributes: ") for line in done.messages) and "\n" not in "".join(done.messages)


@pytest.mark.parametrize("change", [
    {"confidence": "sure"}, {"confidence": 7.0}, {"truth": "bored"}, {"answer": None}, {"parsed": None}, {"p_sad": None},
    {"guess": 3}, {"speaker": None}, {"utterance": "one"}, {"utterance": 5.5},
], ids=str)
def test_odd_columns_end_nothing(brief: Path, change: dict[str, Any]) -> None:
    for run in (p for p in brief.iterdir() if p.is_dir()):
        pd.read_parquet(run / ANSWERS).assign(**change).to_parquet(run / ANSWERS)
    done = found(brief, n_boot=10)
    assert all("\n" not in line for line in done.messages) and write_sections(done)


def test_the_page_tells_what_is_missing(brief: Path) -> None:
    for run in (p for p in brief.iterdir() if p.is_dir()):
        _torn(run / ANSWERS)
    done = make_report("demo", brief.parent)
    assert "Answers not shown: drama: answers.parquet of run" in done.text and "Answers not shown" in done._repr_html_()
    assert not done.answers.tables and [p.name for p in done.files if p.suffix == ".csv"] == ["results.csv"]


def test_seeds_over_different_tests_are_told(brief: Path) -> None:
    run = sorted(p for p in brief.iterdir() if p.is_dir())[0]
    pd.read_parquet(run / ANSWERS).iloc[1:].to_parquet(run / ANSWERS)
    done = found(brief, n_boot=10)
    assert any("not over the same test" in line for line in done.messages)


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    answers, evidence = everything(0)
    for wrong in ({}, {"muted": answers["muted"]}, answers | {"sung": answers["full"]},
                  {"full": answers["full"].drop(columns="guess")}, {"full": pd.concat([answers["full"]] * 2)}):
        with pytest.raises(InputError) as error:
            keep_answers(tmp_path, wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="evidence"):
        keep_answers(tmp_path, answers, {"full": evidence["full"].drop(columns="heard_gender")})
    assert not list(tmp_path.iterdir())
    assert [p.name for p in keep_answers(tmp_path, answers)] == [ANSWERS]
    keep_answers(tmp_path, answers, evidence)
    kept = pd.read_parquet(tmp_path / EVIDENCE)
    assert "audio" not in kept and "pitch_mean" in kept and set(kept["condition"]) <= set(ANSWER_CONDITIONS)
