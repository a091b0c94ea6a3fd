"""Writes a WAV to standard output: a few seconds of a melody, 44.1 kHz, stereo.  `python tone.py [SECONDS]`"""

from __future__ import annotations

import math
import sys
import wave
from array import array

RATE = 44_100  # samples a second
NOTE = 0.5  # seconds
MELODY = (261.63, 329.63, 392.00, 523.25, 392.00, 329.63)  # hertz: c e g c' g e


def note(frequency: float) -> array[int]:
    """Returns one note that fades out; the left channel is louder at its start, the right one at its end."""
    length = int(RATE * NOTE)
    samples = array("h")
    for index in range(length):
        done = index / length
        level = 12_000 * (1 - done) * math.sin(2 * math.pi * frequency * index / RATE)
        samples.append(int(level * (1 - 0.5 * done)))
        samples.append(int(level * (0.5 + 0.5 * done)))
    return samples


def main() -> None:
    notes = round(float(sys.argv[1] if len(sys.argv) > 1 else 6) / NOTE)
    melody = [note(frequency).tobytes() for frequency in MELODY]
    with wave.open(sys.stdout.buffer, "wb") as output:
        output.setnchannels(2)
        output.setsampwidth(2)
        output.setframerate(RATE)
        output.setnframes(notes * int(RATE * NOTE))  # written first: a pipe cannot be corrected afterwards
        for number in range(notes):
            output.writeframesraw(melody[number % len(melody)])


if __name__ == "__main__":
    main()
