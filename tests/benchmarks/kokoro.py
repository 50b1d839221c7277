"""How fast Kokoro speaks on one core, what it needs, and what Whisper understands of it, voice by voice.

``python tests/benchmarks/kokoro.py [--language fr] [--mixtures 0] [--listener whisper-base]``; the models by name.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

from zsemo_kit.synthesis.kokoro import Kokoro
from zsemo_kit.synthesis.transcription import count_edits, open_listener, wer
from zsemo_kit.synthesis.voices import estimate_pitch, guess_gender

SENTENCES = {
    "en": ("I thought the letter was on the kitchen table, next to the old radio.",
           "Nobody told me that the train would leave half an hour early today."),
    "es": ("Pensaba que la carta estaba en la mesa de la cocina.", "Nadie me dijo que el tren salía hoy media hora antes."),
    "fr": ("Je pensais que la lettre était sur la table de la cuisine.", "Personne ne m'a dit que le train partait plus tôt."),
    "it": ("Pensavo che la lettera fosse sul tavolo della cucina.", "Nessuno mi ha detto che il treno partiva prima."),
    "pt": ("Eu pensava que a carta estava na mesa da cozinha.", "Ninguém me disse que o trem sairia meia hora mais cedo."),
    "hi": ("मुझे लगा कि चिट्ठी रसोई की मेज़ पर है।", "किसी ने मुझे नहीं बताया कि गाड़ी आज जल्दी जाएगी।"),
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--language", choices=SENTENCES, default="en")
    asked.add_argument("--mixtures", type=int, default=0)
    asked.add_argument("--listener", default="whisper-base")
    given = asked.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    engine = Kokoro(mixtures=given.mixtures)
    voices, sentences = engine.voices(given.language), SENTENCES[given.language]
    print(engine.fingerprint)
    engine.say(sentences[0], voices[0])  # opens the network
    begun, cpu = time.perf_counter(), time.process_time()
    said = [(v, text, engine.say(text, v)) for v in voices for text in sentences]
    took, spent = time.perf_counter() - begun, time.process_time() - cpu
    seconds = sum(len(sound) for *_, sound in said) / 16_000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(voices)} voices x {len(sentences)} sentences: {seconds:.0f} s of speech in {took:.0f} s ({spent:.0f} s of CPU): "
          f"{took / seconds:.2f} s a second ({spent / seconds:.2f} by CPU); peak {peak:.0f} MiB, {before:.0f} before")
    heard = open_listener(given.listener, language="" if given.listener.endswith(".en") else given.language)
    words = [heard.hear(sound) for *_, sound in said]
    table = count_edits([text for _, text, _ in said], words).assign(
        voice=[v.id for v, *_ in said], gender=[v.gender for v, *_ in said], pitch=[estimate_pitch(s) for *_, s in said])
    sums = {"gender": "first", "words": "sum", "hits": "sum", "pitch": "mean"}
    by = table.groupby("voice").agg(sums)
    print(by.round(0).to_string())
    right = (pd.Series([guess_gender(p) for p in by["pitch"]], by.index) == by["gender"]).mean()
    rate = wer([text for _, text, _ in said], words)
    print(f"word error rate by {given.listener}: {rate:.3f}; gender by pitch agrees for {right:.0%}")


if __name__ == "__main__":
    main()
