"""How a ratio is measured: both sides in one run, in turn, so that other work of the machine falls on both.

A part of the benchmarks is a module with a function `rows(o)` that yields `Row`s; `run.py` has the list of parts.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


class Skipped(Exception):
    """A part that cannot be measured here; its words say why, and what it needs."""


@dataclass(frozen=True)
class Options:
    """What a part may choose its sizes by."""

    full: bool = False  # published sizes; else those that end soon
    repeats: int = 0  # of each pair; 0 is the part's own number
    nkululeko: str = ""  # Python of an environment with nkululeko

    def times(self, own: int) -> int:
        return self.repeats or own


@dataclass(frozen=True)
class Row:
    """One line of the table. A ratio is `against` over `what`: above 1 the kit is quicker, or leaner, than the other side."""

    name: str
    what: str  # the kit's way
    against: str  # the other way
    ratios: list[float]  # one a repeat; empty where there is nothing to compare with
    costs: list[float] = field(default_factory=list)  # of the kit's way, one a repeat
    costs_against: list[float] = field(default_factory=list)
    unit: str = "s"  # of the costs: s or MiB
    least: float | None = None  # ratio under which the run fails
    most: float | None = None  # cost of the kit's way above which the run fails
    note: str = ""  # sizes, and what a reader must know to judge the ratio
    seconds: float = 0.0  # that the row took to measure
    machine: str = ""
    load: float = 0.0  # of other work, before the first row was measured
    date: str = ""
    commit: str = ""
    size: str = ""  # quick or full: two sizes are never compared

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    @property
    def within(self) -> bool:
        """Whether it keeps its own limits."""
        slow = self.most is not None and median(self.costs) > self.most
        return not slow and (self.least is None or self.ratio is None or self.ratio >= self.least)

    def record(self) -> dict[str, Any]:
        """For JSON: what was given, and median, low and high of the ratio."""
        def short(value: Any) -> Any:
            if isinstance(value, float):
                return float(f"{value:.4g}")
            return [short(v) for v in value] if isinstance(value, list) else value

        low_high = {"ratio": self.ratio, "low": min(self.ratios), "high": max(self.ratios)} if self.ratios else {"ratio": None}
        return {k: short(v) for k, v in {**asdict(self), **low_high}.items()}


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], float], other: Callable[[], float], repeats: int) -> dict[str, list[float]]:
    """Costs and ratios of two sides that are measured alternately; each repeat has its own ratio, from neighbours in time."""
    pairs = []
    for i in range(repeats):  # who comes first changes, so that neither always meets a warmer machine
        if i % 2:
            a, b = other(), ours()
            pairs.append((b, a))
        else:
            pairs.append((ours(), other()))
    return {"ratios": [b / a for a, b in pairs], "costs": [a for a, _ in pairs], "costs_against": [b for _, b in pairs]}


def machine() -> str:
    """What the numbers were measured on, and what else it was doing."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def load() -> float:
    """Processes that want a core, on average over the last minute."""
    return os.getloadavg()[0]


def _tree(root: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    below = {root}
    while more := {p for p, parent in parents.items() if parent in below} - below:
        below |= more
    return below


def _resident(process: int) -> float:
    """MiB; pages that processes share are shared out among them where the kernel tells."""
    try:
        for line in (Path("/proc") / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def peak(command: list[str], **environment: str) -> float:
    """Largest memory of a command and all that it starts, in MiB, looked at ten times a second."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise Skipped("memory is read from /proc, which only Linux has")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment})
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(map(_resident, _tree(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {process.stderr.read().decode()[-2000:]}")
    return most


def command_seconds(command: list[str], folder: Path | None = None, **environment: str) -> float:
    """Wall time of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - start


def zsemo() -> str:
    """The command of the environment that runs this."""
    return str(Path(sys.executable).parent / "zsemo")
