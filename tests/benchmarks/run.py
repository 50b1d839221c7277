"""Every ratio that the kit claims, in one table: `python tests/benchmarks/run.py`, or `make bench`.

    run.py                               # quick sizes, all parts: about ten minutes on two idle cores
    run.py --only cold_start generation  # some parts
    run.py --full                        # published sizes, and `make demo` by stage
    run.py --nkululeko X/bin/python      # the comparison with nkululeko too, which needs an environment of its own:
                                         # python3.11 -m venv X && X/bin/pip install nkululeko opensmile
    run.py --check                       # exit 1 where a ratio fell below the tracked baseline beyond noise
    run.py --baseline                    # write what was measured into the tracked baseline

A ratio is the other side's cost over the kit's, both measured in this run and in turn. Its spread is the lowest and the
highest of the repeats. A ratio has regressed where its median is below the baseline's lowest by more than the tolerance:
the baseline's own width (highest less lowest, over the median), at least a tenth and at most a half. A row whose own
limit is broken fails with or without --check. Ratios of `cores` mean nothing while other work is on: the load is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two sides on one core each are comparable

from measure import Options, Row, Skipped, load, machine

PARTS = ("cold_start", "text_training", "upstream", "generation", "against_nkululeko", "cores", "memory", "demo")
BASELINE = Path(__file__).with_name("baseline.json")
FLOOR, CEILING = 0.1, 0.5  # tolerances


def commit() -> str:
    """Of the code that is measured; a change that is not committed is marked."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False)
    return head + ("+" if changed.stdout.strip() else "")


def measured(names: Iterable[str], o: Options, before: float) -> tuple[list[Row], dict[str, str]]:
    """Rows of the parts, printed as they come, and why a part was skipped."""
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    mark = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "commit": commit(),
            "load": before, "size": "full" if o.full else "quick"}
    for name in names:
        print(f"{name} … (load {load():.1f})", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            for row in import_module(name).rows(o):
                rows.append(replace(row, seconds=time.perf_counter() - start, **mark))
                print(f"  {row.name}: {shown(row)}", file=sys.stderr, flush=True)
                start = time.perf_counter()
        except Skipped as why:
            skipped[name] = str(why)
            print(f"  skipped: {why}", file=sys.stderr, flush=True)
    return rows, skipped


def shown(row: Row) -> str:
    """Ratio with its spread, or the cost alone."""
    if row.ratio is None:
        return f"{row.costs[0]:.3g} {row.unit}"
    return f"{row.ratio:.3g} [{min(row.ratios):.3g}, {max(row.ratios):.3g}]"


def middle(values: list[float], unit: str) -> str:
    return f"{sorted(values)[len(values) // 2]:.3g} {unit}" if values else ""


def limits(row: Row) -> str:
    least = f"≥ {row.least:g}" if row.least is not None else ""
    most = f"≤ {row.most:g} {row.unit}" if row.most is not None else ""
    return " ".join(x for x in (least, most) if x)


def table(rows: list[Row]) -> str:
    """As text, one line a row, sizes and remarks below."""
    head = ["name", "what", "against", "ratio [low, high]", "limit", "what costs", "against costs", "took"]
    cells = [[r.name, r.what, r.against, shown(r) if r.ratios else "", limits(r) + ("" if r.within else " BROKEN"),
              middle(r.costs, r.unit), middle(r.costs_against, r.unit), f"{r.seconds:.0f} s"] for r in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (head, *cells)]
    return "\n".join([lines[0], "-" * sum(w + 2 for w in widths), *lines[1:], "",
                      *(f"{r.name}: {r.note}" for r in rows if r.note)])


def tolerance(base: dict[str, Any]) -> float:
    """How far below the lowest of the baseline a median may lie: the baseline's own width, within bounds."""
    return min(max((base["high"] - base["low"]) / base["ratio"], FLOOR), CEILING)


def regressions(rows: list[Row], baseline: dict[str, dict[str, Any]], parts: Iterable[str], skipped: Iterable[str]) -> list[str]:
    """What is worse than the baseline beyond noise, or is in the baseline and was not measured without a reason."""
    now = {key(r.record()): r for r in rows}
    told = []
    for name, base in baseline.items():
        if base["ratio"] is None or base["part"] not in parts or base["part"] in skipped or not same_size(base, rows):
            continue
        if name not in now:
            told.append(f"{base['name']}: in the baseline, and not measured")
            continue
        ratio, least = now[name].ratio, base["low"] * (1 - tolerance(base))
        if ratio is None or ratio < least:
            told.append(f"{base['name']}: ratio {ratio or 0:.3g}, under {least:.3g}: the baseline is {base['ratio']:.3g} "
                        f"[{base['low']:.3g}, {base['high']:.3g}] of {base['date']}, tolerance {tolerance(base):.0%}")
    return told


def same_size(base: dict[str, Any], rows: list[Row]) -> bool:
    return not rows or base["size"] == rows[0].size


def key(record: dict[str, Any]) -> str:
    return f"{record['name']} ({record['size']})"


def known() -> dict[str, dict[str, Any]]:
    """The tracked baseline by name and size."""
    return {key(r): r for r in json.loads(BASELINE.read_text())["rows"]} if BASELINE.exists() else {}


def written(path: Path, records: Iterable[dict[str, Any]], skipped: dict[str, str]) -> None:
    path.write_text(json.dumps({"rows": list(records), "skipped": skipped}, indent=1, ensure_ascii=False) + "\n")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=PARTS, help=f"of {', '.join(PARTS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes (the default)")
    size.add_argument("--full", action="store_true", help="published sizes; takes much longer")
    parser.add_argument("--repeats", type=int, default=0, help="of each pair; each part has its own number")
    parser.add_argument("--nkululeko", default=os.environ.get("ZSEMO_NKULULEKO", ""), metavar="PYTHON",
                        help="Python of an environment with nkululeko; ZSEMO_NKULULEKO by default")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--check", action="store_true", help="compare with the tracked baseline")
    parser.add_argument("--baseline", action="store_true", help="write the rows into the tracked baseline")
    return parser.parse_args()


def main() -> int:
    o = options()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    before = load()
    by_part: dict[str, list[Row]] = {}
    skipped: dict[str, str] = {}
    for part in o.only:
        by_part[part], why = measured([part], Options(o.full, o.repeats, o.nkululeko), before)
        skipped |= why
    rows = [r for some in by_part.values() for r in some]
    records = [{"part": part, **r.record()} for part, some in by_part.items() for r in some]
    print(table(rows))
    for part, why in skipped.items():
        print(f"{part}: skipped: {why}")
    print(f"{machine()}, load {before:.1f} before and {load():.1f} after")
    if o.out:
        written(o.out, records, skipped)
    told = [f"{r.name}: {shown(r)} breaks its limit {limits(r)}" for r in rows if not r.within]
    if o.check:
        told += regressions(rows, known(), o.only, skipped)
    if o.baseline and not told:
        merged = {**known(), **{key(r): r for r in records}}.values()  # what was not measured now stays
        written(BASELINE, sorted(merged, key=lambda r: (PARTS.index(r["part"]), r["size"])), {})
    for line in told:
        print(f"FAILED {line}")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
