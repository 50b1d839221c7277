"""Opening: files of any kind and header are read, or told for what they are in one line."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from make_media import DECODERS, make_media, make_mute_video, needs_a_decoder

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora import sound_files
from zsemo_kit.corpora.audio import RATE, load_audio, open_part
from zsemo_kit.corpora.sound_files import AudioError, open_sound

TONE = (0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.float32)


def wav(path: Path, samples: np.ndarray = TONE, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path.read_bytes()


def chunk(name: bytes, body: bytes, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2 if padded else 0)


def headed(content: bytes, before: bytes, riff: int | None, data: int | None) -> bytes:
    """A WAV file whose sound begins behind `before`, with lengths in its header as given; None is the right one."""
    at = content.index(b"data")
    form = content[12:at]
    sound = content[at + 8 : at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")]
    body = b"WAVE" + form + before + b"data" + struct.pack("<I", len(sound) if data is None else data) + sound
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


# headers

BEFORE = {
    "none": b"", "list": chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf60.16.1000")), "odd": chunk(b"LIST", b"INFOodd!!"),
    "odd and not padded": chunk(b"LIST", b"INFOodd!!", padded=False), "bext": chunk(b"bext", bytes(602)),
    "two odd ones": chunk(b"junk", b"abc", padded=False) + chunk(b"id3 ", b"abcde", padded=False),
}


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW", "ALAW"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_a_wav_is_read_whatever_its_header_says(tmp_path: Path, subtype: str, before: bytes) -> None:
    path = tmp_path / "a.wav"
    content = wav(path, subtype=subtype)
    expected = load_audio(path)
    for riff in (None, 0, 36, 0x7FFF_FFFF, 0xFFFF_FFFF):
        for data in (None, 0, 0xFFFF_FFFF):
            path.write_bytes(headed(content, before, riff, data))
            np.testing.assert_array_equal(load_audio(path), expected, err_msg=f"{riff} {data}")


def test_a_mended_header_is_marked_and_others_are_not(tmp_path: Path) -> None:
    content = wav(tmp_path / "a.wav")
    with open_part(tmp_path / "a.wav", 0.25, 0.5) as part:
        assert (part.form, part.mended) == ("WAV", False)
        sound = np.concatenate([*part.mono()])
    (tmp_path / "a.wav").write_bytes(headed(content, b"", None, 0))
    with open_part(tmp_path / "a.wav", 0.25, 0.5) as part:
        assert (part.form, part.mended) == ("WAV", True)
        np.testing.assert_array_equal(np.concatenate([*part.mono()]), sound)


@pytest.mark.parametrize("behind", [b"", chunk(b"LIST", b"INFO"), chunk(b"id3 ", b"abc")], ids=["nothing", "list", "id3"])
def test_no_sound_is_no_sound(tmp_path: Path, behind: bytes) -> None:
    content = wav(tmp_path / "a.wav", TONE[:0])
    (tmp_path / "a.wav").write_bytes(content + behind)
    with pytest.raises(AudioError, match="holds no sound") as e:
        load_audio(tmp_path / "a.wav")
    assert e.value.kind == "empty"


def test_half_a_file_is_refused_behind_an_odd_header_too(tmp_path: Path) -> None:
    content = headed(wav(tmp_path / "a.wav"), BEFORE["odd and not padded"], None, None)
    (tmp_path / "a.wav").write_bytes(content[:20_000])
    with pytest.raises(AudioError, match="cut short"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(("at", "value"), [(24, 0), (24, 1), (24, 0xFFFF_FFFF), (22, 0), (22, 0xFFFF), (34, 0), (20, 0)])
def test_a_format_that_cannot_be_is_one_line(tmp_path: Path, at: int, value: int) -> None:
    content = bytearray(wav(tmp_path / "a.wav"))
    width = 4 if at == 24 else 2
    content[at : at + width] = value.to_bytes(width, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError) as e:
        load_audio(tmp_path / "a.wav")
    assert e.value.kind in ("corrupt", "empty", "undecoded") and "\n" not in str(e.value)


FORMS = {
    "rf64": {"format": "RF64"}, "w64": {"format": "W64"}, "wavex": {"format": "WAVEX"}, "aiff": {"format": "AIFF"},
    "au": {"format": "AU"}, "caf": {"format": "CAF"}, "nist": {"format": "NIST"},
    "ima": {"format": "WAV", "subtype": "IMA_ADPCM"}, "ms": {"format": "WAV", "subtype": "MS_ADPCM"},
    "gsm": {"format": "WAV", "subtype": "GSM610"},
    "flac": {"format": "FLAC"}, "mp3": {"format": "MP3"}, "ogg": {"format": "OGG"}, "opus": {"format": "OGG", "subtype": "OPUS"},
}


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a"])
@pytest.mark.parametrize("how", FORMS.values(), ids=FORMS)
def test_content_counts_and_no_name(tmp_path: Path, how: dict[str, str], name: str) -> None:
    soundfile.write(tmp_path / "made.x", TONE, RATE, **how)
    (tmp_path / "made.x").replace(tmp_path / name)
    samples = load_audio(tmp_path / name)
    assert abs(len(samples) - RATE) < 600 and 0.2 < np.abs(samples).max() < 0.4


def test_a_telephone_recorder_is_entered_anywhere(tmp_path: Path) -> None:
    rising = (np.linspace(0, 0.5, 24_000) * np.sin(np.arange(24_000) / 4)).astype(np.float32)
    wav(tmp_path / "a.wav", rising, 8000, "GSM610")
    for start in (2, 0, 1):
        part = load_audio(tmp_path / "a.wav", start, start + 1)
        assert len(part) == RATE and np.abs(part).max() == pytest.approx((start + 1) / 6, abs=0.05)


# what is no sound

NO_SOUND = {
    "a web page": b"\xef\xbb\xbf \n<!DOCTYPE html><html>", "nothing but zeros": bytes(4000), "a picture": b"\x89PNG\r\n\x1a\n",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "MIDI": b"MThd\0\0\0\6",
    "a zip archive": b"PK\x03\x04\x14\0", "a gzip archive": b"\x1f\x8b\x08\0",
    "a RAR": b"Rar!\x1a\7\0", "a 7z": b"7z\xbc\xaf\x27\x1c",
    "a PDF": b"%PDF-1.4 \xff", "a Mac's companion": b"\0\5\x16\7\0\2\0\0",
    'text that begins with \'{"error"': b'{"error": "quota"}',
    "text that begins with 'Zugriff": "Zugriff verweigert, für heute\r\n".encode(),
}


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
@pytest.mark.parametrize(("told", "head"), NO_SOUND.items(), ids=[k.replace(" ", "_") for k in NO_SOUND])
def test_what_is_no_sound_is_told_for_what_it_is(tmp_path: Path, told: str, head: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(AudioError) as e:
        load_audio(tmp_path / name)
    assert e.value.kind == "foreign" and e.value.found.startswith(told) and e.value.hint
    assert "\n" not in str(e.value) and isinstance(pickle.loads(pickle.dumps(e.value)), InputError)


MEDIA = {
    "MP4": b"\0\0\0\x20ftypisom", "AAC": b"\xff\xf1\x50\x80", "Matroska or WebM": b"\x1aE\xdf\xa3", "AMR": b"#!AMR\n",
    "Windows Media": b"0&\xb2u\x8ef\xcf\x11", "DSD": b"DSD \x1c\0\0\0", "AVI": b"RIFF\0\0\0\0AVI LIST",
    "WAV of codec 0x0161": b"RIFF\0\0\0\0WAVEfmt \x12\0\0\0\x61\1",
}


@pytest.mark.parametrize(("form", "head"), MEDIA.items(), ids=MEDIA)
def test_without_a_decoder_it_is_said_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, head: bytes,
) -> None:
    monkeypatch.setattr(sound_files, "find_decoder", lambda: "")
    (tmp_path / "a.m4a").write_bytes(head + b"\xf0\x9f" * 400)
    with pytest.raises(AudioError, match=rf"a\.m4a: {form}, which needs a decoder.*zsemo_kit\[media\].*ffmpeg") as e:
        load_audio(tmp_path / "a.m4a")
    assert e.value.kind == "undecoded" and "\n" not in str(e.value)


# decoders

decoder = pytest.mark.parametrize("decoder", DECODERS)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    monkeypatch.setattr(sound_files, "find_decoder", lambda: decoder)


CODECS = [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.mov", "aac"), ("a.aac", "aac"), ("a.mkv", "aac"), ("a.webm", "libopus"),
          ("a.mp4", "alac"), ("03:01 ü.m4a", "aac"), ("-i.m4a", "aac")]


@needs_a_decoder
@pytest.mark.usefixtures("only")
@decoder
@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_a_video_or_a_telephones_recording_is_sound(tmp_path: Path, name: str, codec: str) -> None:
    long = np.concatenate([TONE, 0 * TONE, TONE / 2])
    rate = 48_000 if codec == "libopus" else RATE
    make_media(tmp_path / name, np.repeat(long, rate // RATE) if rate != RATE else long, rate, codec)
    samples = load_audio(tmp_path / name)
    assert abs(len(samples) - len(long)) < 2500 and np.std(samples[4000:12_000]) == pytest.approx(0.212, abs=0.02)
    middle = load_audio(tmp_path / name, 1.2, 1.8)
    assert len(middle) == 9600 and np.abs(middle).max() < 0.01
    assert np.std(load_audio(tmp_path / name, 2.2, 2.8)) == pytest.approx(0.106, abs=0.02)
    (tmp_path / name).replace(tmp_path / "b.wav")
    np.testing.assert_array_equal(load_audio(tmp_path / "b.wav"), samples)


@needs_a_decoder
@pytest.mark.usefixtures("only")
@decoder
def test_a_decoded_file_may_be_open_twice(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.m4a", np.concatenate([TONE, 0 * TONE]))
    with open_part(path, 0, 1) as loud, open_part(path, 1.2, 1.8) as quiet:
        assert np.abs(np.concatenate([*quiet.mono()])).max() < 0.01 < np.abs(np.concatenate([*loud.mono()])).max()
    make_media(path, 0 * TONE)  # another file of that name
    assert np.abs(load_audio(path)).max() < 0.01


@needs_a_decoder
@pytest.mark.usefixtures("only")
@decoder
def test_many_parts_decode_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_media(tmp_path / "a.m4a", np.tile(TONE, 4))
    asked, decode = [], sound_files._decode_file
    monkeypatch.setattr(sound_files, "_decode_file", lambda *a: asked.append(a) or decode(*a))
    assert [len(load_audio(path, i / 4, i / 4 + 0.2)) for i in range(12)] == [3200] * 12
    assert len(asked) == 1


@needs_a_decoder
@pytest.mark.usefixtures("only")
@decoder
def test_videos_that_cannot_be_heard_are_one_line(tmp_path: Path) -> None:
    whole = make_media(tmp_path / "a.mp4", np.tile(TONE, 3)).read_bytes()
    bad = {"empty": {"mute.mp4": make_mute_video(tmp_path / "mute.mp4").read_bytes(), "nothing.mp4": b""},
           "corrupt": {"half.mp4": whole[: len(whole) // 2], "head.mp4": whole[:40], "noise.mp4": b"\xfe" * 999,
                       "hole.mp4": whole[:32] + bytes(len(whole) - 32)}}
    for kind, files in bad.items():
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(AudioError) as e:
                load_audio(tmp_path / name)
            assert e.value.kind == kind and "\n" not in str(e.value) and str(e.value).count(name) == 1, str(e.value)


# channels

@pytest.mark.parametrize("gain", [-1, -0.9, -0.7])
def test_channels_that_cancel_are_not_averaged(tmp_path: Path, gain: float) -> None:
    wav(tmp_path / "a.wav", np.stack([TONE, gain * TONE], 1), subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), TONE, atol=1e-6)
    wav(tmp_path / "a.wav", np.stack([gain * TONE, TONE], 1), subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav")).max() == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("gain", [-0.3, 0, 0.5, 1])
def test_other_channels_are_averaged(tmp_path: Path, gain: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, len(TONE)).astype(np.float32)
    for other in (gain * TONE, gain * noise):
        both = np.stack([TONE, other], 1).astype(np.float32)
        wav(tmp_path / "a.wav", both, subtype="FLOAT")
        np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), both.mean(axis=1))


def test_powers_are_those_of_the_part(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", np.stack([TONE, -TONE, 0 * TONE], 1), subtype="FLOAT")
    with open_part(tmp_path / "a.wav", 0.2, 0.9) as part:
        np.testing.assert_allclose(part.powers(), [0.045, 0.045, 0, 0], atol=1e-3)
        assert part.alone() in (0, 1)


# anything

HEADS = [*NO_SOUND.values(), *MEDIA.values(), b"RIFF\0\0\0\0WAVE", b"ID3\3", b"fLaC", b"OggS"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(content=st.one_of(
    st.binary(max_size=80), st.tuples(st.sampled_from(HEADS), st.binary(max_size=80)).map(b"".join),
    st.tuples(st.just(b"RIFF\xff\xff\xff\xffWAVE"), st.lists(st.tuples(
        st.sampled_from([b"fmt ", b"data", b"LIST", b"fact", b"\0\0\0\0"]), st.integers(0, 2**32 - 1) | st.integers(0, 24),
        st.binary(max_size=24)).map(lambda c: c[0] + struct.pack("<I", c[1]) + c[2]), max_size=4).map(b"".join)).map(b"".join),
))
@pytest.mark.parametrize("decoder", ["", *DECODERS[:1]])
def test_anything_is_sound_or_one_line(tmp_path_factory: pytest.TempPathFactory, decoder: str, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound_files, "find_decoder", lambda: decoder)
        try:
            with open_sound(path) as sound:
                assert sound.file.frames
        except AudioError as e:
            assert "\n" not in str(e) and str(path) in str(e)
