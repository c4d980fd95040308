"""How two_talkers.wav is made: two talkers in a room, heard by eight microphones on a line.

    python data/room.py [FILE]

Needs pyroomacoustics (`pip install -e .[test]`); image sources to the tenth order, no scattering,
no random numbers but those seeded here. Microphones 5 cm apart, talkers 2 m from the middle at 20
and -35 degrees from broadside; at a positive angle the first microphone hears first.
"""

import sys
from pathlib import Path

import numpy as np
import pyroomacoustics as pra
from scipy.io import wavfile

RATE, SECONDS, SPACING, DISTANCE = 16_000, 0.3, 0.05, 2.0
ANGLES_DEG = (20.0, -35.0)


def talk(pitch, seed):
    """A voiced sound: pulses at a wandering pitch, breath, and a syllable's envelope."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(RATE * (SECONDS + 0.2))) / RATE
    phase = np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 3 * time))) / RATE
    pulses = (np.diff(np.floor(phase), prepend=0) > 0).astype(float)
    breath = 0.08 * draw.standard_normal(len(time))
    return (pulses + breath) * (1 + 0.8 * np.sin(2 * np.pi * 4 * time + seed))


def recording():
    """int16 samples (time, 8), and the rate."""
    size = np.array([6.0, 5.0, 3.0])
    absorption, _ = pra.inverse_sabine(0.15, size)
    room = pra.ShoeBox(size, fs=RATE, materials=pra.Material(absorption), max_order=10)
    middle = np.array([3.1, 1.8, 1.4])
    along = (np.arange(8) - 3.5) * SPACING
    room.add_microphone_array(np.stack([middle + [x, 0, 0] for x in along], 1))
    for angle, pitch, seed in zip(np.radians(ANGLES_DEG), (120, 205), (1, 2), strict=True):
        place = middle + DISTANCE * np.array([-np.sin(angle), np.cos(angle), 0.05])
        room.add_source(place, signal=talk(pitch, seed))
    room.simulate()
    heard = room.mic_array.signals[:, int(0.1 * RATE) :][:, : int(RATE * SECONDS)]
    heard = heard / heard.std() + 0.05 * np.random.default_rng(3).standard_normal(heard.shape)
    return np.round(heard.T * 3000).clip(-32768, 32767).astype(np.int16), RATE


if __name__ == "__main__":
    default = Path(__file__).with_name("two_talkers.wav")
    samples, rate = recording()
    wavfile.write(sys.argv[1] if len(sys.argv) > 1 else default, rate, samples)
