"""`zsemo --help` and the help of each command, against what any Typer command with a Rich help pays."""

import re
import subprocess
import sys
from collections.abc import Iterator

from measure import Options, Row, command_seconds, in_turn, zsemo

FLOOR = """
import typer
app = typer.Typer(rich_markup_mode="rich", add_completion=False)
@app.command()
def one(): "One."
@app.command()
def two(): "Two."
app(["--help"])
"""
LIMIT = 0.5  # seconds


def commands() -> list[str]:
    """Names of the first level, read from the help itself."""
    text = subprocess.run([zsemo(), "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "120", "TERM": "dumb"})
    return re.findall(r"^│ ([a-z0-9]+) ", text.stdout, re.MULTILINE)


def rows(o: Options) -> Iterator[Row]:
    def floor() -> float:
        return command_seconds([sys.executable, "-c", FLOOR])

    floor(), command_seconds([zsemo(), "--help"])  # from now on the files are in the machine's cache
    yield Row("cold_start", "zsemo --help", "an empty Typer command", note="wall time of the process; median of the repeats",
              most=LIMIT, **in_turn(lambda: command_seconds([zsemo(), "--help"]), floor, o.times(10)))
    for name in commands() if o.full else ():
        yield Row(f"cold_start_{name}", f"zsemo {name} --help", "an empty Typer command", most=LIMIT,
                  **in_turn(lambda name=name: command_seconds([zsemo(), name, "--help"]), floor, o.times(3)))
