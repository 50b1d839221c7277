"""Small files that only a decoder reads, made by PyAV or by ffmpeg, whichever is there."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

DECODERS = [name for name, there in {"av": find_spec("av"), "ffmpeg": shutil.which("ffmpeg")}.items() if there]
needs_a_decoder = pytest.mark.skipif(not DECODERS, reason="neither PyAV (zsemo_kit[media]) nor ffmpeg is here")


def make_media(path: Path, samples: np.ndarray, rate: int = 16_000, codec: str = "aac") -> Path:
    """Write samples, shape (frames,) or (frames, channels), in the container that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = samples.reshape(len(samples), -1).astype(np.float32)
    if "av" in DECODERS:
        _by_av(path, sound, rate, codec)
    else:
        wav = path.with_suffix(".made.wav")
        soundfile.write(wav, sound, rate)
        _ffmpeg("-i", f"file:{wav}", "-c:a", codec, "-strict", "-2", f"file:{path}")
        wav.unlink()
    return path


def make_mute_video(path: Path) -> Path:
    """A video without a sound track."""
    if "av" in DECODERS:
        import av

        with av.open(str(path), "w") as box:
            stream = box.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 32
            for _ in range(3):
                box.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            box.mux(stream.encode(None))
    else:
        _ffmpeg("-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=1", "-c:v", "mpeg4", f"file:{path}")
    return path


def _by_av(path: Path, sound: np.ndarray, rate: int, codec: str) -> None:
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
    with av.open(str(path), "w") as box:
        stream = box.add_stream(codec, rate=rate)
        stream.layout = layout
        for begin in range(0, len(sound), 960):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[begin : begin + 960].T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, begin
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))


def _ffmpeg(*options: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *options], check=True)
