"""A real HTTP server that speaks the chat-completions protocol, well or badly, and logs what it was sent.

Run it as a process: ``python tests/fake_llm.py --log FILE [--latency S] [--key K] [--model M]``; it prints its port.
The last message may hold ``#do:NAME``; NAME says how to misbehave. ``NAME-once`` does so on the first attempt only.
``#say:WORDS#`` is answered with these words. Who asks for one label is answered ``neutral``.
Each log line is ``R <body hash> <last message>`` on arrival and ``A <body hash>`` once the answer has left.
"""

import argparse
import asyncio
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

GOOD = "A: I got the job! [joy]\nB: You did not. [surprise]\nA: It starts on Monday. [neutral]"
TEXTS = {
    "ok": GOOD,
    "empty": "",
    "two_tags": "A: I got the job! [joy] [surprise]\nB: Well done. [joy]",
    "capitals": "A: I got the job! [JOY]\nB: YOU DID NOT. [Surprise]",
    "markdown": "**A:** I got the job! *[joy]*\n\n- **B**: You did not. **[surprise]**",
    "chatter": "Sure! Here is a conversation for you:\n\n" + GOOD + "\n\nLet me know if you need more!",
    "broken_json": '{"lines": [{"speaker": "A", "text": "Hello.", "emotion": "neutral"}, {"speaker": "B", "te',
}


def body(text: str, finish: str = "stop", model: str = "fake", usage: bool = True) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    answer: dict[str, Any] = {
        "id": "x", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if usage:
        answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return answer


def error(status: int, text: str, code: str | None = None, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": text, "code": code}}, status=status, headers=headers)


def application(options: argparse.Namespace) -> web.Application:
    log = Path(options.log).open("a", buffering=1)  # noqa: SIM115 (open as long as the server; a line a write)
    seen: Counter[str] = Counter()

    async def misbehave(kind: str, request: web.Request, key: str) -> web.StreamResponse | None:
        if kind == "429":
            return error(429, "slow down", **{"Retry-After": "0.2"})
        if kind == "quota":
            return error(429, "no money left", code="insufficient_quota", **{"Retry-After": "0.05"})
        if kind in {"400", "500", "503"}:
            return error(int(kind), f"status {kind}", **{"retry-after-ms": "20"})
        if kind == "echo":
            return error(400, f"you sent {request.headers.get('Authorization')}")
        if kind == "timeout":
            await asyncio.sleep(30)
        if kind == "html":
            return web.Response(text="<html>bad gateway</html>", content_type="text/html")
        if kind == "badbody":
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if kind == "cut":
            cut = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "9999"})
            await cut.prepare(request)
            await cut.write(b'{"choices": [')
            assert request.transport is not None
            request.transport.close()
            return cut
        return None

    async def completions(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        last = asked["messages"][-1]["content"]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        log.write(f"R {key} {json.dumps(last[-60:])}\n")
        seen[key] += 1
        if options.key and request.headers.get("Authorization") != f"Bearer {options.key}":
            return error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        if options.model and asked["model"] != options.model:
            return error(404, f"model {asked['model']!r} not found")
        if options.no_json and "response_format" in asked:
            return error(400, "response_format is not supported here")
        await asyncio.sleep(options.latency)
        found = re.search(r"#do:(\w+)(-once)?", last)
        kind = found[1] if found and not (found[2] and seen[key] > 1) else "ok"
        bad = await misbehave(kind, request, key)
        if bad is not None:
            return bad
        finish = {"filtered": "content_filter", "length": "length"}.get(kind, "stop")
        said = re.search(r"#say:([^#]*)#", last)
        one_label = last.startswith(("Somebody says", "Utterance:"))
        text = said[1] if said else "neutral" if one_label else TEXTS.get(kind, GOOD)
        if kind == "length":
            text = text[:-10]
        answer = web.json_response(body(text, finish, asked["model"], usage=kind != "nousage"))
        await answer.prepare(request)
        await answer.write_eof()
        log.write(f"A {key}\n")
        return answer

    app = web.Application()
    app.router.add_post("/v1/chat/completions", completions)
    return app


async def serve(options: argparse.Namespace) -> None:
    runner = web.AppRunner(application(options), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=1024)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--no-json", action="store_true")
    asyncio.run(serve(parser.parse_args()))
