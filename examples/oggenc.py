"""Reads a WAV from standard input and writes OGG Vorbis to standard output, as `oggenc -Q -o- -` does.

It needs the PyPI package `soundfile`, which brings its own Vorbis encoder.
"""

from __future__ import annotations

import io
import sys

import soundfile

FRAMES = 65_536  # written at a time: libsndfile's Vorbis encoder overflows its stack on long blocks


def main() -> None:
    encoded = io.BytesIO()  # the encoder goes back to correct its output, which is impossible in a pipe
    with (
        soundfile.SoundFile(io.BytesIO(sys.stdin.buffer.read())) as source,
        soundfile.SoundFile(encoded, "w", source.samplerate, source.channels, format="OGG", subtype="VORBIS") as output,
    ):
        for block in source.blocks(FRAMES):
            output.write(block)
    sys.stdout.buffer.write(encoded.getbuffer())


if __name__ == "__main__":
    main()
