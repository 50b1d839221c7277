"""`make demo` by stage: the seconds that its own runs write into metrics.json. Costs only: there is nothing to compare with."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from measure import Options, Row, Skipped, command_seconds, zsemo

DEMO = {"demo": (), "demo_speech": ("--jobs", "2")}  # as in the Makefile


def stages(out: Path) -> Counter[str]:
    """Seconds of each stage, all runs together."""
    total: Counter[str] = Counter()
    for file in out.rglob("metrics.json"):
        total.update(json.loads(file.read_text())["seconds"])
    return total


def rows(o: Options) -> Iterator[Row]:
    if not o.full:
        raise Skipped("minutes of work, so only with --full")
    with tempfile.TemporaryDirectory() as place:
        for name, more in DEMO.items():
            out = Path(place) / name
            wall = command_seconds([zsemo(), "run", name, "--out", str(out), *more], ZSEMO_CACHE=str(Path(place) / "cache"))
            yield Row(name, f"zsemo run {name} {' '.join(more)}".strip(), "", [], [wall], note="wall time, caches empty")
            for stage, seconds in stages(out).most_common():
                yield Row(f"{name}_{stage}", f"  {stage}", "", [], [seconds])
