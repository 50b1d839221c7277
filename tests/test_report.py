"""Gathering, the table and the report: over run folders made here, whole, partial and broken."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.analysis.publish import find_finished, publish
from zsemo_kit.analysis.report import Report, draw_figures, make_report
from zsemo_kit.analysis.runs import FACTS, gather, sort_rows, write_run
from zsemo_kit.analysis.scores import average_seeds, scores
from zsemo_kit.analysis.significance import NOISE
from zsemo_kit.analysis.tables import compare_rows, find_counterpart, format_markdown, make_table
from zsemo_kit.studies import Study
from zsemo_kit.cli.run import _report_study
from zsemo_kit.core.errors import InputError

LABELS = ["neutral", "happy", "sad", "angry"]


def predictions(right: float, seed: int, target: str = "drama", n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    test = pd.DataFrame({"utterance": [f"{target}{i:03}" for i in range(n)], "dialogue": [f"d{i // 10}" for i in range(n)]})
    test["speaker"] = [f"s{i % 7}" for i in range(n)]
    test["truth"] = np.random.default_rng(len(target)).choice(LABELS, n, p=[0.5, 0.2, 0.15, 0.15])
    test["guess"] = np.where(rng.random(n) < right, test.truth, rng.choice(LABELS, n))
    return test


def run(
    study: Path,
    source: str,
    right: float,
    seed: int,
    target: str = "drama",
    *,
    metrics: dict[str, Any] | None = None,
    **params: Any,
) -> Path:
    made = predictions(right, seed * 31 + len(source), target)
    folder = study / f"{len(list(study.glob('*'))):012x}"
    folder.mkdir(parents=True)
    made.to_parquet(folder / "predictions.parquet")
    known = {"study": study.name, "run_id": folder.name, "system": "zero_shot_text", "modality": "text", "source": source,
             "target": target, "space": "four", "seed": seed, "transductive": False, "n_train": 900, "n_dev": 90,
             "n_test": len(made), "seconds": {"fit": 1.5}}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(known | scores(made, LABELS, n_boot=50) | (metrics or {})))
    (folder / "params.json").write_text(
        json.dumps({"source": source, "target": target, "seed": seed, "encoder": "minilm", **params})
    )
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three sources, two seeds each."""
    folder = tmp_path / "out" / "demo"
    for seed in (0, 1):
        run(folder, "zebra", 0.9, seed)
        run(folder, "drama", 0.6, seed)
        run(folder, "apple", 0.2, seed)
    return folder


def test_rows_stand_by_name_never_by_score(study: Path) -> None:
    rows = make_table(gather(study)).rows
    assert rows["source"].tolist() == ["apple", "drama", "zebra"]  # the best one is last, the worst one first
    listed = make_table(gather(study), order={"source": ["zebra", "apple"], "seed": [0, 1]}).rows
    assert listed["source"].tolist() == ["zebra", "apple", "drama"]


def test_rank_of_rows_does_not_change_with_the_scores(study: Path) -> None:
    before = make_table(gather(study)).rows["name"].tolist()
    for folder in study.iterdir():
        if folder.is_dir():
            rows = pd.read_parquet(folder / "predictions.parquet")
            rows.assign(guess=rows.truth if "apple" in (folder / "params.json").read_text() else "sad").to_parquet(
                folder / "predictions.parquet"
            )
    assert make_table(gather(study)).rows["name"].tolist() == before


def test_means_and_intervals_come_from_all_seeds(study: Path) -> None:
    row = make_table(gather(study)).rows.iloc[0]
    wanted = average_seeds([predictions(0.2, 5), predictions(0.2, 36)])
    for key in ("uar", "uar_low", "uar_high", "uar_std", "wa", "macro_f1", "weighted_f1", "weighted_f1_low", "chance", "seeds"):
        assert row[key] == pytest.approx(wanted[key])
    assert (row["n_train"], row["n_test"], row["transductive"]) == (900, 200, False)
    assert make_table(gather(study), cluster="speaker").rows.iloc[0]["uar"] == pytest.approx(row["uar"])


def test_unfinished_failed_and_broken_runs_are_told_and_left_out(study: Path) -> None:
    runs = sorted(p for p in study.iterdir() if p.is_dir())
    (study / "aaa.failed").mkdir()
    shutil.copytree(runs[0], study / f"{runs[0].name}.partial-123")
    (study / "empty").mkdir()
    (runs[1] / "metrics.json").write_text("{not json")
    (runs[2] / "metrics.json").write_text('{"study": "demo"}')
    (runs[3] / "metrics.json").write_text("[1]")
    results = gather(study)
    assert len(results) == 3
    told = results.left_out.set_index("folder")["why"]
    assert told["aaa.failed"] == "failed"
    assert "cut off" in told[f"{runs[0].name}.partial-123"]
    assert told["empty"] == "no metrics.json"
    assert "unreadable" in told[runs[1].name] and "unreadable" in told[runs[3].name]
    assert "no uar" in told[runs[2].name]
    page = make_report("demo", study.parent).text
    assert "aaa.failed" in page and "cut off" in page


def test_an_older_run_of_the_same_parameters_is_replaced_not_averaged(study: Path) -> None:
    old = run(study, "apple", 1.0, 0)
    os.utime(old / "metrics.json", (1, 1))
    results = gather(study)
    assert len(results) == 6
    assert results.left_out.to_dict("records") == [
        {"folder": old.name, "why": "replaced by a newer run with the same parameters"}
    ]


def test_mixed_versions_of_the_code_are_told(study: Path) -> None:
    for i, folder in enumerate(sorted(p for p in study.iterdir() if p.is_dir())):
        (folder / "environment.json").write_text(json.dumps({"code": f"v{i % 2}"}))
    assert "2 versions of the code" in make_report("demo", study.parent).text
    assert "code" not in make_table(gather(study)).rows


def test_results_csv_has_metrics_and_parameters_and_is_the_same_twice(study: Path) -> None:
    gather(study)
    first = (study / "results.csv").read_text()
    gather(study)
    assert (study / "results.csv").read_text() == first
    back = pd.read_csv(study / "results.csv")
    assert {"study", "run_id", "uar", "uar_low", "recall_sad", "seconds_fit", "encoder", "source", "seed"} <= set(back)
    assert str(study.parent) not in first
    assert not list(study.glob(".results*"))


def test_parameters_that_vary_make_rows_and_constant_ones_no_column(study: Path) -> None:
    for seed in (0, 1):
        run(study, "apple", 0.5, seed, strategy="scenario", mix=["a", "b"], shares={"sad": 0.5})
    rows = make_table(gather(study))
    assert rows.rows["name"].tolist()[0] == "apple"
    assert rows.rows["strategy"].tolist() == ["", "scenario", "", ""]
    assert rows.rows["mix"].tolist()[1] == "a + b"
    assert "encoder" not in rows.rows
    text = rows.to_markdown()
    assert "minilm" not in text and "scenario" in text and "zero_shot_text |" not in text
    assert "system zero_shot_text" in text and "chance of UAR .250" in text


def test_roles_and_transductive_are_shown(study: Path) -> None:
    for seed in (0, 1):
        run(study, "card", 0.5, seed, role="zero-shot", metrics={"transductive": True})
    rows = make_table(gather(study)).rows.set_index("source")
    assert rows["role"].to_dict() == {"apple": "", "card": "zero-shot", "drama": "ceiling", "zebra": ""}
    assert rows["transductive"].to_dict() == {"apple": False, "card": True, "drama": False, "zebra": False}
    lines = [line for line in make_table(gather(study)).to_markdown().splitlines() if line.startswith("| card")]
    assert "zero-shot" in lines[0] and lines[0].rstrip().endswith("yes |")
    assert "in-domain ceiling" in make_table(gather(study)).to_markdown()


def test_without_predictions_the_mean_stays_and_the_interval_goes(study: Path) -> None:
    results = gather(study)
    gone = results.rows[results.rows["source"] == "apple"].iloc[0]
    (study / gone["folder"] / "predictions.parquet").unlink()
    row = make_table(results).rows.iloc[0]
    assert row["uar"] == pytest.approx(results.rows[results.rows["source"] == "apple"]["uar"].mean())
    assert np.isnan(row["uar_low"]) and "missing" in row["note"] and row["chance"] == 0.25
    found = make_report("demo", study.parent, baseline="zebra")
    assert found.comparisons.rows["name"].tolist() == ["drama"]
    assert "Not compared: apple" in found.text and "nan" not in found.table.to_markdown()


def test_seeds_over_different_tests_are_not_averaged_into_an_interval(study: Path) -> None:
    results = gather(study)
    file = study / results.rows.iloc[0]["folder"] / "predictions.parquet"
    pd.read_parquet(file).iloc[:100].to_parquet(file)
    assert "differ" in make_table(results).rows.iloc[0]["note"]


def test_comparisons_are_paired_corrected_and_named(study: Path) -> None:
    rows = make_table(gather(study))
    found = compare_rows(rows, "drama", n=500).rows
    assert found["name"].tolist() == ["apple", "zebra"]
    assert found["verdict"].tolist() == ["worse", "better"]
    assert (found["p_holm"] >= found["p"]).all()
    for seed in (0, 1):
        run(study, "drumm", 0.6, seed + 7)
    assert compare_rows(make_table(gather(study)), "drama", n=500).rows.set_index("name").loc["drumm", "verdict"] == NOISE


def test_the_baseline_with_the_same_settings_is_taken(study: Path) -> None:
    for seed in (0, 1):
        for classifier in ("linear", "finetune"):
            run(study, "apple", 0.3, seed, classifier=classifier)
            run(study, "zebra", 0.4, seed, classifier=classifier)
    found = compare_rows(make_table(gather(study)), "zebra", n=100).rows
    assert dict(zip(found["name"], found["baseline"], strict=True))["apple, finetune"] == "zebra, finetune"
    assert dict(zip(found["name"], found["baseline"], strict=True))["apple, linear"] == "zebra, linear"


def staged(study: Path) -> Path:
    """Two sources, three stages, with and without silver labels."""
    for seed in (0, 1):
        for k, (stage, modality) in enumerate((("text_1", "text"), ("audio_1", "speech"), ("fusion", "both"))):
            for silver in ("none", "melt") if modality != "speech" else ("none",):
                right = 0.3 + 0.15 * k + 0.05 * (silver == "melt")
                run(study, "card", right, seed + 2 * k, stage=stage, silver=silver, metrics={"modality": modality})
    return study


KINDS = [{"row": {"stage": "fusion"}, "against": {"stage": "text_1"}}, {"against": {"silver": "none"}}]


def test_each_row_is_held_against_its_own_counterpart(tmp_path: Path) -> None:
    rows = make_table(gather(staged(tmp_path / "s")))
    found = compare_rows(rows, n=100, compare=KINDS)
    pairs = {(r["name"].split(", ", 2)[2], r["baseline"].split(", ", 2)[2]) for r in found.rows.to_dict("records")}
    assert pairs == {("fusion, none", "text_1, none"), ("fusion, melt", "text_1, melt"),  # modality differs with the stage
                     ("text_1, melt", "text_1, none"), ("fusion, melt", "fusion, none")}  # fmt: skip
    assert not found.messages
    assert found.rows["p_holm"].max() <= 1 and (found.rows["p_holm"] >= found.rows["p"]).all()
    smallest = found.rows["p"].min()
    assert found.rows["p_holm"].min() == pytest.approx(min(1, smallest * len(found)))  # one family
    twice = compare_rows(rows, n=100, compare=[*KINDS, {"row": {"stage": "text_1"}, "against": {"stage": "fusion"}}])
    assert len(twice) == len(found)  # the same pair the other way round is no new test


def test_what_has_no_counterpart_is_told(tmp_path: Path) -> None:
    study = staged(tmp_path / "s")
    rows = make_table(gather(study))
    absent = [{"row": {"stage": "text_2"}, "against": {"stage": "text_1"}},
              {"row": {"stage": "audio_1"}, "against": {"silver": "melt"}}]  # fmt: skip
    told = compare_rows(rows, n=50, compare=absent).messages
    assert told[0] == "no row with stage=text_2 to hold against stage=text_1"
    assert len(told) == 2 and "card" in told[1] and told[1].endswith("no single row with silver=melt and all else equal")
    for folder in gather(study).rows.query("stage == 'fusion'")["folder"]:
        predictions = pd.read_parquet(study / folder / "predictions.parquet")
        predictions.iloc[:150].to_parquet(study / folder / "predictions.parquet")
    found = compare_rows(make_table(gather(study)), n=50, compare=KINDS[:1])
    assert not len(found) and all("not over the same test" in line for line in found.messages)


def test_a_constant_setting_may_be_named_and_several_fits_are_none(tmp_path: Path) -> None:
    table = make_table(gather(staged(tmp_path / "s")))
    named = [{"row": {"stage": "fusion", "encoder": "minilm"}, "against": {"stage": "text_1", "encoder": "minilm"}}]
    assert len(compare_rows(table, n=50, compare=named)) == 2
    first = table.rows.iloc[0].to_dict()
    assert find_counterpart(first, replace(table, rows=pd.concat([table.rows] * 2)), {"stage": "fusion"}) is None
    assert not len(compare_rows(table)) and compare_rows(replace(table, rows=table.rows.iloc[:0]), "x", compare=KINDS).messages


def test_the_headline_decides_columns_caption_figures_and_tests(tmp_path: Path) -> None:
    study = staged(tmp_path / "out" / "s")
    found = make_report("s", study.parent, metric="weighted_f1", compare=KINDS, order={"stage": ["text_1", "audio_1", "fusion"]})
    head = found.text.split("\n")[2]
    assert head.index("weighted F1") < head.index("UAR") and "weighted F1 std over seeds" in head
    assert "weighted F1 of the most frequent class alone ." in found.text and "Differences of weighted F1" in found.text
    assert set(found.comparisons.rows["metric"]) == {"weighted_f1"}
    assert found.figures["forest_drama_four"].axes[0].get_xlabel().startswith("weighted F1")
    stages = found.figures["stages_drama_four"]
    assert stages.get_suptitle().startswith("Weighted F1")
    assert [t.get_text() for t in stages.axes[0].get_xticklabels()] == ["text,\nutterance", "audio,\nutterance", "fusion"]
    assert {t.get_text() for t in stages.axes[0].get_legend().get_texts()} >= {"no silver labels", "silver labels of MELT"}
    assert found.table.rows["stage"].tolist() == ["text_1", "text_1", "audio_1", "fusion", "fusion"]  # modality has no say
    detailed = [name for name in found.figures if name.startswith("confusion")]
    assert len(detailed) == 1 and "fusion" in detailed[0].removeprefix("confusion")  # what the last stage says
    usual = make_report("s", study.parent)
    assert sorted(usual.table.rows["weighted_f1_low"]) == sorted(found.table.rows["weighted_f1_low"])
    assert usual.text.split("\n")[2].index("UAR") < usual.text.split("\n")[2].index("weighted F1")
    with pytest.raises(InputError, match="unknown metric"):
        make_report("s", study.parent, metric="f1")


def test_the_command_line_hands_a_studys_choices_to_its_report(tmp_path: Path) -> None:
    folder = staged(tmp_path / "out" / "s")
    grid = [{"stage": ["fusion", "text_1"], "silver": ["none", "melt"]}, {"stage": ["audio_1"]}]
    notebook = Path(__file__).parents[1] / "nbs" / "experiments" / "merits_l.ipynb"
    chosen = Study("s", str(notebook), grid=grid, compare=KINDS, metric="weighted_f1")
    made = _report_study(chosen, folder, tmp_path, [p.name for p in folder.iterdir()])
    assert set(made.comparisons.rows["metric"]) == {"weighted_f1"} and len(made.comparisons) == 4
    assert made.table.rows["stage"].tolist()[0] == "fusion"  # as the study lists them
    ticks = made.figures["stages_drama_four"].axes[0].get_xticklabels()
    assert [t.get_text().split(",")[0] for t in ticks] == ["text", "audio", "fusion"]  # whatever order they ran in


def test_stages_fall_into_their_own_order_and_need_two(study: Path, tmp_path: Path) -> None:
    drawn = draw_figures(make_table(gather(staged(tmp_path / "s"))))
    ticks = drawn["stages_drama_four"].axes[0].get_xticklabels()
    assert [t.get_text().split(",")[0] for t in ticks] == ["text", "audio", "fusion"]
    assert "stages_drama_four" not in draw_figures(make_table(gather(study)))


def test_report_writes_page_table_and_figures(study: Path, tmp_path: Path) -> None:
    found = make_report("demo", study.parent, baseline="zebra")
    assert isinstance(found, Report)
    names = {p.relative_to(tmp_path).as_posix() for p in found.files}
    assert {"out/demo/results.csv", "out/demo/report.md", "out/demo/demo__forest_drama_four.svg",
            "out/demo/demo__confusion_apple_drama_four.svg"} <= names  # fmt: skip
    assert all(p.exists() for p in found.files)
    page = (study / "report.md").read_text()
    assert page == found.text == str(found)
    for needed in ("# demo", "Holm", "encoder = minilm", "fit", "(demo__forest_drama_four.svg)"):
        assert needed in page
    assert str(tmp_path) not in page and str(tmp_path) not in found._repr_html_()
    assert "<table" in found._repr_html_() and "<img" in found._repr_html_()
    assert make_report("demo", study).table.rows.equals(found.table.rows)  # the study's own folder will do


def test_publishing_writes_figures_and_what_is_to_be_known_about_them(study: Path, tmp_path: Path) -> None:
    shop = tmp_path / "figures"
    for folder in study.iterdir():
        told = {"commit": "abc", "code": "v1", "system": "Linux x86_64", "cores": 2, "python": "3.11.7"}
        (folder / "environment.json").write_text(json.dumps(told))
    files = publish(make_report("demo", study.parent, code="v2"), shop, about="What?", command="zsemo run demo")
    told = json.loads((shop / "demo.json").read_text())
    assert [told[k] for k in ("study", "about", "command", "commit")] == ["demo", "What?", "zsemo run demo", "abc"]
    assert [told[k] for k in ("runs", "seconds", "seeds", "metric")] == [6, 9.0, [0, 1], "UAR"]
    assert told["machine"] == "Linux x86_64, 2 cores, Python 3.11.7" and "earlier version of the code" in told["notes"][-1]
    assert [row["row"] for row in told["table"]] == ["apple", "drama", "zebra"]
    assert {f["file"] for f in told["figures"]} | {"demo.json"} == {p.name for p in shop.iterdir()} == {p.name for p in files}
    assert all(f["title"] and f["caption"] and f["alt"] for f in told["figures"])
    assert str(tmp_path) not in (shop / "demo.json").read_text()
    before = {p.name: p.read_bytes() for p in shop.iterdir()}
    (shop / "demo__gone.svg").write_text("")
    (shop / "demo_two__forest.svg").write_text("")  # of another study
    publish(make_report("demo", study.parent, code="v2"), shop, about="What?", command="zsemo run demo")
    assert (shop / "demo_two__forest.svg").exists()
    assert {p.name: p.read_bytes() for p in shop.iterdir() if p.name != "demo_two__forest.svg"} == before


def test_a_figure_that_cannot_be_drawn_here_stays_and_fewer_runs_replace_nothing(study: Path, tmp_path: Path) -> None:
    shop, found = tmp_path / "figures", make_report("demo", study.parent)
    publish(found, shop, also={"silver_drama": found.figures["forest_drama_four"]})
    before = {p.name: p.read_bytes() for p in shop.iterdir()}
    publish(found, shop, keep=["silver_drama"])
    assert set(before) == {p.name for p in shop.iterdir()}
    assert any(f["file"] == "demo__silver_drama.svg" for f in json.loads((shop / "demo.json").read_text())["figures"])
    shutil.rmtree(study / found.runs.rows["folder"].iloc[0])
    with pytest.raises(InputError, match="stands on more runs; expected 6 at least; found 5"):
        publish(make_report("demo", study.parent), shop)
    assert set(before) == {p.name for p in shop.iterdir()}


def test_runs_of_an_earlier_code_stand_in_for_those_of_the_present_one(study: Path) -> None:
    folders = sorted(p for p in study.iterdir() if p.is_dir())
    wanted = {f"new{i}": json.loads((f / "params.json").read_text()) for i, f in enumerate(folders)}
    found = find_finished(study, wanted)
    assert list(found.values()) == [f.name for f in folders]
    assert len(make_report("demo", study.parent, ids=found.values()).runs) == 6
    shutil.copytree(folders[0], study / "new0")
    os.utime(folders[0] / "metrics.json")  # however young the other is
    assert find_finished(study, wanted)["new0"] == "new0"
    assert not find_finished(study, {"other": {"source": "elsewhere"}})
    shutil.copytree(folders[0], study / "cut.partial-1")
    assert "cut.partial-1" not in find_finished(study, wanted).values()


def test_more_figures_where_the_data_allow(study: Path) -> None:
    for seed in (0, 1):
        for n in (100, 400, 800):
            run(study, "card", 0.3 + n / 2000, seed, n=n, metrics={"n_train": n})
    drawn = draw_figures(make_table(gather(study)))
    assert "learning_curve_drama_four" in drawn


def test_heat_map_ablation_and_training(tmp_path: Path) -> None:
    study = tmp_path / "s"
    for seed in (0, 1):
        for source in ("one", "two"):
            for target in ("one", "soap"):
                for strategy in ("labels", "scenario"):
                    folder = run(study, source, 0.5, seed, target, strategy=strategy)
                    (folder / "model").mkdir()
                    history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "dev_uar": [0.3, 0.4], "kept": [False, True]})
                    history.to_csv(folder / "model" / "history.csv", index=False)
    drawn = draw_figures(make_table(gather(study)))
    assert {"heat_map_four_labels", "heat_map_four_scenario", "ablation_two_one_four", "ablation_one_soap_four",
            "forest_one_four", "forest_soap_four"} <= set(drawn)  # fmt: skip
    assert any(name.startswith("training_") for name in drawn)


def test_studies_and_empty_folders(study: Path, tmp_path: Path) -> None:
    run(study.parent / "other", "apple", 0.5, 0)
    assert set(gather(study.parent).rows["study"]) == {"demo", "other"}
    with pytest.raises(InputError, match="no such folder"):
        make_report("nowhere", study.parent)
    (tmp_path / "out" / "bare" / "x.failed").mkdir(parents=True)
    with pytest.raises(InputError, match="no finished run; found 1 failed"):
        make_report("bare", study.parent)
    (tmp_path / "out" / "nothing").mkdir()
    assert not len(gather(study.parent / "nothing"))
    assert make_table(gather(study.parent / "nothing")).to_markdown() == "No finished runs."


def test_metrics_with_missing_values_and_other_keys(study: Path) -> None:
    for seed in (0, 1):
        run(
            study,
            "odd",
            0.4,
            seed,
            metrics={"uar_low": None, "uar_high": float("nan"), "recall": None, "extra": [1, 2]},
            flag=None,
        )
    assert "odd" in make_table(gather(study)).to_markdown()


def strict(file: Path) -> dict[str, Any]:
    "Reads JSON as other programs do, which do not know the word NaN."
    def refuse(word: str) -> None:
        raise AssertionError(f"{file.name} holds {word}")
    return json.loads(file.read_text(), parse_constant=refuse)


def test_what_a_run_writes_is_json_for_every_reader(tmp_path: Path) -> None:
    rows = predictions(0.5, 0).head(1)
    facts = {key: "" for key in FACTS} | {"seed": np.int64(0), "n_train": float("nan"), "seconds": {"fit": np.float32(1.5)}}
    made = strict(write_run(tmp_path, rows, scores(rows, LABELS) | {"odd": float("inf")}, labels=LABELS, **facts))
    assert (made["uar_low"], made["n_train"], made["odd"], made["seconds"]) == (None, None, None, {"fit": 1.5})
    assert sorted(made["recall"]) == sorted(LABELS) and sum(v is not None for v in made["recall"].values()) == 1


def few(study: Path, rows: pd.Series | slice, seed: int = 0, source: str = "card", **more: Any) -> Path:
    "A run whose test is a part of the usual one."
    folder = run(study, source, 0.6, seed, **more)
    made = pd.read_parquet(folder / "predictions.parquet").loc[rows]
    known = json.loads((folder / "metrics.json").read_text())
    write_run(folder, made, scores(made, LABELS, n_boot=50), **{k: known[k] for k in FACTS})
    return folder


@pytest.mark.parametrize("rows, note", [(slice(0, 9), "no interval: the test is one dialogue"), (slice(0, 0), "one dialogue")])
def test_a_test_of_one_dialogue_has_no_interval_and_a_note(tmp_path: Path, rows: slice, note: str) -> None:
    for seed in (0, 1):
        few(tmp_path / "out" / "small", rows, seed)
    made = make_report("small", tmp_path / "out")
    assert note in made.table.rows["note"].iloc[0] and note in made.text and "nan" not in made.text.lower()
    assert any("confusion" in name for name in made.figures)
    for file in tmp_path.rglob("*.json"):
        strict(file)
    for file in publish(made, tmp_path / "figures"):
        assert file.suffix != ".json" or strict(file)


def test_a_class_that_the_test_lacks_is_said_in_the_table(tmp_path: Path) -> None:
    few(tmp_path / "out" / "lacking", predictions(0, 0)["truth"] != "angry")
    found = gather(tmp_path / "out" / "lacking")
    assert np.isnan(found.rows["recall_angry"]).all() and found.rows["recall_sad"].notna().all()
    assert make_table(found).rows[["note", "chance"]].to_numpy().tolist() == [["the test has no angry", 1 / 3]]
    assert "the test has no angry" in make_report("lacking", tmp_path / "out").text


def test_runs_about_other_classes_are_rows_of_their_own(tmp_path: Path) -> None:
    study, three = tmp_path / "out" / "classes", ["neutral", "happy", "sad"]
    for seed in (0, 1):
        for source in ("card", "drama"):
            run(study, source, 0.6, seed)
            run(study, source, 0.6, seed, labels="", metrics={"labels": LABELS}, lr=1)
            folder = few(study, predictions(0, 0)["truth"] != "angry", seed, source, labels="common")
            known = json.loads((folder / "metrics.json").read_text())
            (folder / "metrics.json").write_text(json.dumps(known | {"labels": three}))
    rows = make_table(gather(study))
    assert set(rows.rows["labels"]) == {"", "neutral + happy + sad"} and rows.rows["seeds"].tolist() == [2] * 6
    assert sorted(rows.rows[rows.rows["labels"] != ""]["n_test"]) == [int((predictions(0, 0)["truth"] != "angry").sum())] * 2
    held = compare_rows(rows, "drama", n=20)
    assert len(held) == 3 and not held.messages  # each against the baseline about the same classes
    assert rows.to_markdown().count("neutral + happy + sad") == 2
    runs = gather(study)
    alone = replace(runs, rows=runs.rows.query("labels == 'neutral + happy + sad'"))
    assert "labels neutral + happy + sad" in make_table(alone).to_markdown()


def test_the_whole_space_by_name_is_no_other_study(tmp_path: Path) -> None:
    study = tmp_path / "out" / "whole"
    run(study, "card", 0.6, 0)
    run(study, "card", 0.6, 0, labels="common", metrics={"labels": LABELS})
    assert len(gather(study)) == 1 and "labels" not in gather(study).rows


@pytest.mark.parametrize("origin", ["target", "documents", "study", "space", None])
@pytest.mark.parametrize("whole", [True, False])
def test_classes_that_were_seen_in_the_targets_labels_are_marked(tmp_path: Path, origin: str | None, whole: bool) -> None:
    study, marked = tmp_path / "out" / "small", origin == "target"
    for source, labels_from in (("card", origin), ("drama", None)):
        folder = run(study, source, 0.6, 0, labels="common", metrics={"labels": LABELS, "labels_from": labels_from})
        if not whole:
            (folder / "predictions.parquet").unlink()
    made = make_report("small", tmp_path / "out")
    notes = dict(zip(made.table.rows["source"], made.table.rows["note"], strict=True))
    assert [("taken from the target's labels" in notes[source]) for source in ("card", "drama")] == [marked, False]
    assert made.text.count("classes taken from the target's labels") == marked and "labels_from" not in made.text
    assert whole or all("predictions are missing" in note for note in notes.values())


def test_cells_survive_bars_and_numbers_sort_as_numbers() -> None:
    assert format_markdown(pd.DataFrame({"a|b": ["x\ny|z"]})).splitlines()[2] == "| x y\\|z |"
    assert sort_rows(pd.DataFrame({"n": [1000, 200, 30, None]}), ["n"])["n"].tolist()[1:] == [30, 200, 1000]
