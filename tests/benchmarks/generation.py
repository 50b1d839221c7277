"""Requests in flight together against one after the other, at a local server with a fixed latency."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Options, Row, in_turn, timed

from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import ReplyStore

SERVER = Path(__file__).parents[1] / "fake_llm.py"
TOGETHER = 64


@contextmanager
def server(folder: Path, latency: float) -> Iterator[str]:
    """The address of a server, a process of its own, that answers after so many seconds."""
    command = [sys.executable, str(SERVER), "--log", str(folder / "server.log"), "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def distinct(n: int) -> Iterator[Prompt]:
    for i in range(n):
        yield Prompt("bench", "labels", "-", i, ({"role": "user", "content": f"request {i}"},))


def asked(url: str, n: int, concurrency: int, folder: Path) -> None:
    """So many replies, each stored before the next is read; none may fail."""
    with ReplyStore(Path(tempfile.mkdtemp(dir=folder)) / "replies.sqlite") as store:
        chat = Chat("fake", url, store, concurrency=concurrency)
        read = sum(1 for _ in chat.stream(distinct(n)))
        if read != n or chat.failed:
            raise RuntimeError(f"{n - read} replies are missing and {chat.failed} failed")


def rows(o: Options) -> Iterator[Row]:
    n, latency = (640, 0.2) if o.full else (128, 0.1)
    with tempfile.TemporaryDirectory() as place, server(Path(place), latency) as url:
        folder = Path(place)
        asked(url, 8, 8, folder)  # the client library is imported before the clock runs
        yield Row("generation", f"{TOGETHER} requests in flight", "one after the other", least=10.0,
                  **in_turn(lambda: timed(lambda: asked(url, n, TOGETHER, folder)),
                            lambda: timed(lambda: asked(url, n, 1, folder)), o.times(3)),
                  note=f"{n} requests, a server that takes {latency * 1000:.0f} ms; the ideal is "
                       f"{math.ceil(n / TOGETHER) * latency:.2g} s, a ratio of {n / math.ceil(n / TOGETHER):.0f}")
