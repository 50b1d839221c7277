"""The comparison of the benchmarks with their baseline; no test measures time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "benchmarks"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import run

    return run


def row(run, ratios, **more):
    return run.Row("generation", "64 in flight", "one by one", ratios, [1.0] * len(ratios), ratios, size="quick", **more)


def baseline(run, ratios):
    return {"generation (quick)": {"part": "generation", "date": "2026-01-01", **row(run, ratios).record()}}


def judged(run, now, before, skipped=()):
    return run.regressions(now, baseline(run, before), ["generation"], skipped)


def test_a_regression_is_told_with_both_numbers(run):
    [told] = judged(run, [row(run, [4.0, 5.0, 6.0])], [20.0, 21.0, 22.0])
    assert "ratio 5" in told and "baseline is 21" in told


def test_noise_is_borne_in_the_width_that_the_baseline_had(run):
    assert not judged(run, [row(run, [18.1])], [20.0, 20.0, 20.0])  # a tenth is always borne
    assert judged(run, [row(run, [17.9])], [20.0, 20.0, 20.0])
    assert not judged(run, [row(run, [11.5])], [15.0, 20.0, 20.0])  # a width of a quarter: 15 less a quarter
    assert judged(run, [row(run, [11.0])], [15.0, 20.0, 20.0])
    assert judged(run, [row(run, [2.4])], [5.0, 20.0, 40.0])  # a wild baseline excuses half at most
    assert not judged(run, [row(run, [200.0])], [20.0, 20.0, 20.0])  # better is no regression


def test_one_slow_repeat_is_no_regression(run):
    assert not judged(run, [row(run, [5.0, 20.0, 21.0])], [20.0, 20.0, 20.0])


def test_a_missing_row_is_told_unless_its_part_was_skipped(run):
    assert judged(run, [], [20.0]) == ["generation: in the baseline, and not measured"]
    assert not judged(run, [], [20.0], {"generation": "no server"})
    assert not run.regressions([], baseline(run, [20.0]), ["memory"], {})  # not asked for


def test_sizes_are_never_compared(run):
    other = [row(run, [1.0]).__class__(**{**row(run, [1.0]).__dict__, "size": "full"})]
    assert not judged(run, other, [20.0])


def test_a_row_keeps_its_own_limits(run):
    assert row(run, [12.0], least=10.0).within and not row(run, [9.0], least=10.0).within
    assert row(run, [1.0], most=1.0).within and not row(run, [1.0], most=0.9).within


def test_each_repeat_is_a_ratio_of_neighbours_whoever_came_first(run):
    from measure import in_turn

    order, ours, others = [], iter([1.0, 2.0, 4.0]), iter([10.0, 10.0, 10.0])

    def side(name, costs):
        order.append(name)
        return next(costs)

    pairs = in_turn(lambda: side("ours", ours), lambda: side("other", others), 3)
    assert pairs == {"ratios": [10.0, 5.0, 2.5], "costs": [1.0, 2.0, 4.0], "costs_against": [10.0, 10.0, 10.0]}
    assert order == ["ours", "other", "other", "ours", "ours", "other"]


def test_the_tracked_baseline_names_parts_that_exist(run):
    for record in run.known().values():
        assert record["part"] in run.PARTS and record["machine"] and record["date"] and record["size"] in ("quick", "full")
    assert all((HERE / f"{part}.py").is_file() for part in run.PARTS)


def test_the_command_measures_a_part_and_writes_it(tmp_path):
    out = tmp_path / "rows.json"
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "cold_start", "against_nkululeko", "--repeats", "1",
                           "--nkululeko", "", "--out", str(out)], capture_output=True, text=True)
    made = json.loads(out.read_text())  # its exit status is about time, which no test judges
    assert [r["name"] for r in made["rows"]] == ["cold_start"] and made["rows"][0]["ratio"] > 0, done.stderr
    assert "zsemo --help" in done.stdout and "against_nkululeko: skipped" in done.stdout
    assert "pip install nkululeko" in made["skipped"]["against_nkululeko"]
