"""How fast and how lean is `Chat`? Against a local server with a fixed latency, in a process of its own.

python tests/benchmarks/generation.py            # 1,000 requests, 64 at once, 200 ms: time over ideal
python tests/benchmarks/generation.py --memory   # 100,000 requests: growth of the resident memory
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from zsemo_kit.generation.cards import load_card
from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt, prompts
from zsemo_kit.generation.store import ReplyStore

SERVER = Path(__file__).parents[1] / "fake_llm.py"


def machine() -> str:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu, load = names[0] if names else platform.machine(), os.getloadavg()[0]
    return f"{cpu}, {os.cpu_count()} CPUs, load {load:.1f}, Python {platform.python_version()}"


def resident() -> float:
    "Resident memory of this process now, in MiB."
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def distinct(n: int, full: bool) -> Iterator[Prompt]:
    if full:
        yield from prompts(load_card("meld"), "scenario", n)
        return
    for i in range(n):
        yield Prompt("bench", "labels", "-", i, ({"role": "user", "content": f"request {i}"},))


def run(n: int, concurrency: int, latency: float, full: bool, folder: Path) -> None:
    log = folder / "server.log"
    command = [sys.executable, str(SERVER), "--log", str(log), "--latency", str(latency)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    try:
        with ReplyStore(folder / "replies.sqlite") as store:
            chat = Chat("fake", url, store, concurrency=concurrency)
            peak, after_warm, stop = [0.0], 0.0, threading.Event()
            watch = threading.Thread(target=lambda: [peak.append(resident()) for _ in iter(lambda: stop.wait(0.2), True)])
            watch.start()
            wall, cpu, read = time.perf_counter(), time.process_time(), 0
            marks: list[str] = []
            for read, _ in enumerate(chat.stream(distinct(n, full)), 1):
                if read == n // 20:
                    after_warm = resident()
                if read % max(n // 5, 1) == 0:
                    marks.append(f"{read:,}: {resident():.0f}")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            stop.set()
            watch.join()
            ideal = math.ceil(n / concurrency) * latency
            rows = {
                "requests (sent, failed)": f"{read:,} ({chat.sent:,}, {chat.failed})",
                "concurrency, latency": f"{concurrency}, {latency * 1000:g} ms",
                "wall time": f"{wall:.2f} s",
                "ideal, ratio": f"{ideal:.2f} s, {wall / ideal:.3f}" if ideal else "none",
                "requests a second": f"{read / wall:.0f}",
                "CPU a request": f"{cpu / read * 1000:.2f} ms",
                "memory after 5 %, peak": f"{after_warm:.0f} MiB, {max(peak):.0f} MiB (grew {max(peak) - after_warm:.1f})",
                "memory by requests, MiB": ", ".join(marks),
                "store": f"{(folder / 'replies.sqlite').stat().st_size / 2**20:.0f} MiB",
                "machine": machine(),
            }
        for name, value in rows.items():
            print(f"{name:26} {value}")
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=None, help="requests")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=None, help="seconds")
    parser.add_argument("--memory", action="store_true", help="100,000 requests with 5 ms latency")
    parser.add_argument("--full", action="store_true", help="real prompts of the meld card instead of short ones")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        n, latency = (100_000, 0.005) if o.memory else (1000, 0.2)
        run(o.n or n, o.concurrency, latency if o.latency is None else o.latency, o.full, Path(folder))


if __name__ == "__main__":
    main()
