"""A real HTTP server that speaks the speech endpoint, well or badly.

Run it as a process: ``python tests/fake_speech.py [--key K]``; it prints its port, then a line a request:
the voice, the format and how many requests there were. The text may hold ``#do:NAME``; NAME says how to misbehave,
``NAME-once`` does so on the first request for that text only. Under ``/KIND/v1`` of `OWN` lies a server with voices of its
own. The pitch of the hum is the length of the voice's name
times 50 Hz, its length 50 ms a character.
"""

import argparse
import asyncio
import io
import re
from collections import Counter

import numpy as np
import soundfile
from aiohttp import web

RATE = 24_000


def hum(text: str, voice: str) -> np.ndarray:
    time = np.arange(RATE // 20 * len(text)) / RATE
    return (0.3 * np.sin(2 * np.pi * 50 * len(voice) * time)).astype(np.float32)


def sound(samples: np.ndarray, form: str, channels: int = 1) -> bytes:
    if form == "pcm":
        return (samples * 32767).astype("<i2").tobytes()
    out = io.BytesIO()
    soundfile.write(out, np.repeat(samples[:, None], channels, axis=1), RATE, format=form.upper())
    return out.getvalue()


def streamed(body: bytes) -> bytes:
    """A WAV file whose sizes say that it never ends."""
    at = body.find(b"data")
    return body[:4] + b"\xff" * 4 + body[8:at + 4] + b"\xff" * 4 + body[at + 8:]


def error(status: int, text: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": text}}, status=status, headers=headers)


OWN = {  # kind of server: what it lists at which path, and what it says of another voice
    "listed": ("/v1/audio/voices", {"voices": ["af_bella", "am_adam", "ff_siwis"]}, "no such voice"),
    "rooted": ("/voices", [{"name": "anna", "gender": "Female", "language": "de-DE"}, {"name": "tom"}], "voice not found"),
    "refusing": ("", None, "Voice '{}' not found. Available voices: af_bella, am_adam"),
    "closed": ("", None, "Voice '{}' is not supported"),
}


def application(key: str) -> web.Application:
    seen: Counter[str] = Counter()

    async def speech(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        text, voice, form = asked["input"], asked["voice"], asked["response_format"]
        seen[text] += 1
        print(voice, form, seen.total(), flush=True)
        sent = request.headers.get("Authorization")
        if key and sent != f"Bearer {key}":
            return error(401, f"Incorrect API key provided: {sent}")
        found = re.search(r"#do:(\w+)(-once)?", text)
        kind = found[1] if found and not (found[2] and seen[text] > 1) else "ok"
        if kind in ("400", "500"):
            return error(int(kind), f"status {kind}, you sent {sent}", **{"retry-after-ms": "10"})
        if kind == "timeout":
            await asyncio.sleep(20)
        if kind == "text":
            return web.json_response({"detail": "no such voice"})
        if kind == "empty":
            return web.Response(body=b"", content_type="audio/wav")
        body = sound(hum(text, voice), {"other": "flac"}.get(kind, form), channels=2 if kind == "stereo" else 1)
        return web.Response(body=streamed(body) if kind == "streamed" else body, content_type="audio/wav")

    async def own(request: web.Request) -> web.StreamResponse:
        place, listed, no = OWN[request.match_info["kind"]]
        if request.method == "GET":
            return web.json_response(listed) if request.path.endswith(place) and place else error(404, "Not Found")
        voice = (await request.json())["voice"]
        known = ("af_bella", "am_adam", "ff_siwis", "anna", "tom")
        return await speech(request) if voice in known else error(400, no.format(voice))

    app = web.Application()
    app.router.add_post("/v1/audio/speech", speech)
    app.router.add_route("*", "/{kind}/{rest:.*}", own)
    return app


async def serve(key: str) -> None:
    runner = web.AppRunner(application(key), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", default="")
    asyncio.run(serve(parser.parse_args().key))
