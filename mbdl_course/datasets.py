"""The real data of the course: read from installed packages, checked before use, cut in time."""

import csv
import hashlib
import json
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import torch

# What PyWavelets ships as pywt/data/NAME.npz: dtype, shape, SHA-256 of the array's bytes.
PACKAGED = {
    "ecg": "<i4 (1024,) 96b58a5df18fc798a1db5af5e7041d86ad0dce11f552420bf14a0cc07de66b89",
    "camera": "|u1 (512, 512) 5cb24482a53416f99052258be2b1ee38cd31c559a70c8a8b321cba231b332e21",
    "ascent": "|u1 (512, 512) c7777d46c3f4e3119ddbec92ad28c09193202a7a4aab08622bc7e4b4a3ba88e6",
}
PHOTOGRAPHS = ("camera", "ascent")
# The series of data/NAME.csv: SHA-256 of the file.
SERIES = {
    "nile": "88e97bea7249e5832a85e41aec6ce4b8f7b1b14aae930c8363da7f193286b598",
    "co2": "7d077399889a653ed32d67760860eb152bf8b0f9cec6bf0763902af010bf9dfe",
}
RECORDING = (
    "two_talkers.wav",
    "d5f96c5248373a12c2e61212d602ab6b19c9e4987cc51421de084f74b04aec08",
)
REMEDY = "bring it with: python -m pip install --force-reinstall --no-deps PyWavelets"


def data_dir():
    """The folder of the shipped data: MBDL_DATA where set, else `data` of the repository.

    Raises FileNotFoundError where it is not a folder.
    """
    repository = Path(__file__).resolve().parents[1] / "data"
    folder = Path(os.environ.get("MBDL_DATA") or repository).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data folder {folder} is missing: work in a clone of the repository "
            "(pip install -e .), or set MBDL_DATA to its data folder"
        )
    return folder


def ecg():
    """PyWavelets' bundled electrocardiogram: 1024 samples, -112 ... 250, shape (1024,), float64.

    Its documentation says "1024 points of an ECG timeseries" and no more: sampling rate, unit,
    lead and origin are not stated, so axes read "sample" and "amplitude".
    Raises FileNotFoundError or ValueError where the file is missing or not the expected one.
    """
    return _packaged("ecg")


def photograph(name="camera"):
    """A grey photograph of PyWavelets ("camera" or "ascent"), (512, 512), float64 in [0, 1].

    Raises FileNotFoundError or ValueError where the file is missing or not the expected one.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(PHOTOGRAPHS)}")
    return _packaged(name) / 255


def nile():
    """Annual volume of the Nile at Aswan, 1871 to 1970, in 10⁸ m³, shape (100,), float64.

    Cobb 1978, "The Problem of the Nile", doi 10.1093/biomet/65.2.243. Raises as `ecg` does.
    """
    return _series("nile")


def co2():
    """Atmospheric CO2 at Mauna Loa, weekly, 1958-03-29 to 2001-12-29, in ppm, (2284,), float64.

    A NaN is a week without a sample, 59 of them. Keeling, Whorf 2004, in "Trends: A Compendium of
    Data on Global Change", U.S. Department of Energy. Raises as `ecg` does.
    """
    return _series("co2")


def recording(path=None):
    """(signals (channels, time), float64; samples per second) of a multichannel recording.

    path: a .wav of 16-bit samples (-1 to 1 here), or a .npz with arrays `signals` and `rate`.
    Unless given, two talkers in a small simulated room, at 20 and -35 degrees, heard by eight
    microphones 5 cm apart (data/room.py made it). Raises FileNotFoundError where there is no file,
    ValueError where it is damaged or of another kind.
    """
    file = data_dir() / RECORDING[0] if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, expected a recording")
    if path is None and (found := hashlib.sha256(file.read_bytes()).hexdigest()) != RECORDING[1]:
        raise ValueError(f"{file} has the SHA-256 {found}, expected {RECORDING[1]}")
    try:
        signals, rate = (_npz if file.suffix == ".npz" else _wav)(file)
    except (wave.Error, EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {error}), expected a .wav of 16 bit, "
            "or a .npz with `signals` (channels, time) and `rate`"
        ) from error
    if signals.ndim != 2 or not signals.numel() or not signals.isfinite().all() or not rate > 0:
        raise ValueError(
            f"{file} holds signals of shape {tuple(signals.shape)} at {rate} samples per second, "
            "expected finite (channels, time) and a positive rate"
        )
    return signals, rate


def reference(name):
    """Published figures that a chapter compares with, from data/reference/<name>.json.

    Raises FileNotFoundError where there is no such file, ValueError where it is not JSON.
    """
    file = data_dir() / "reference" / f"{name}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, expected the published figures of {name!r}")
    return _json(file)


def benchmark(name):
    """What benchmarks/<name>.py has stored, a dict; None where it has not been run.

    Raises ValueError where the file is not JSON.
    """
    file = data_dir().parent / "benchmarks" / "results" / f"{name}.json"
    return _json(file) if file.is_file() else None


def stored_results():
    """[(entry, scale)] of the published figures computed again that are kept in data/results."""
    folders = sorted((data_dir() / "results").glob("*-*/card.json"))
    return [tuple(file.parent.name.rsplit("-", 1)) for file in folders]


def result(name, scale):
    """(rows, card) of a published figure computed again: `python -m mbdl_course reproduce`.

    rows: dicts by column, numbers where they are; the card says how they were made. Raises
    FileNotFoundError where it is not stored, ValueError where the rows are not the card's.
    """
    folder = data_dir() / "results" / f"{name}-{scale}"
    file, card = folder / "rows.csv", folder / "card.json"
    if not (file.is_file() and card.is_file()):
        raise FileNotFoundError(f"{folder} is missing: python -m mbdl_course reproduce {name}")
    card, data = _json(card), file.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != card["sha256"]:
        raise ValueError(f"{file} has the SHA-256 {found}, expected {card['sha256']}")
    rows = csv.DictReader(data.decode().splitlines()[1:])
    return [{key: _number(cell) for key, cell in row.items() if cell} for row in rows], card


def _number(cell):
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _json(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON ({error})") from None


def windows(signal, length, stride):
    """All whole windows of a signal (m,): row i holds samples i·stride ... i·stride + length - 1.

    Returns (count, length, 1), count = (m - length) // stride + 1, with memory of its own.
    """
    _check_signal(signal)
    if signal.ndim != 1:
        raise ValueError(f"signal has shape {tuple(signal.shape)}, expected (m,)")
    for name, value in (("length", length), ("stride", stride)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected an integer")
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if length > len(signal):
        raise ValueError(f"length is {length}, expected at most the signal's {len(signal)} samples")
    return signal.unfold(0, length, stride).unsqueeze(-1).clone()


def split_in_time(signal, train=0.5, validation=0.2):
    """Three contiguous pieces of a signal (T, ...), past to future: train, validation, test.

    Window the pieces, not the signal: then no window overlaps two pieces. `train` and `validation`
    are fractions of T; the test piece is the rest. The pieces are views.
    """
    _check_signal(signal)
    for name, value in (("train", train), ("validation", validation)):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected a fraction")
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}, expected a fraction between 0 and 1")
    first, second = (round(f * len(signal)) for f in (train, train + validation))
    if not 0 < first < second < len(signal):
        raise ValueError(
            f"train={train}, validation={validation} cut {len(signal)} samples at {first} and "
            f"{second}, expected three pieces with samples in each"
        )
    return signal[:first], signal[first:second], signal[second:]


def check():
    """One (name, ok, message) per thing the chapters read: the data folder, then each data set."""
    reads = {"data folder": data_dir} | {n: lambda n=n: _packaged(n) for n in PACKAGED}
    reads |= {n: lambda n=n: _series(n) for n in SERIES} | {"talkers": lambda: recording()[0]}
    lines = []
    for name, read in reads.items():
        try:
            found = read()
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else found
            lines.append((name, True, str(shape)))
        except (OSError, ValueError) as error:
            lines.append((name, False, str(error)))
    return lines


def _packaged(name):
    """The float64 tensor of an array of PyWavelets, never sharing memory with its cached copy."""
    try:
        import pywt.data
    except ImportError as error:
        raise FileNotFoundError(f"{name} needs PyWavelets ({error}): {REMEDY}") from error
    file = Path(pywt.data.__file__).with_name(f"{name}.npz")
    try:
        values = getattr(pywt.data, name)()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing: {REMEDY}") from error
    except (
        Exception
    ) as error:  # a damaged archive fails in zipfile, zlib or numpy, each its own way
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {error}): {REMEDY}"
        ) from error
    found = f"{values.dtype.str} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"
    if found != PACKAGED[name]:
        raise ValueError(f"{file} holds {found}, expected {PACKAGED[name]}: {REMEDY}")
    return torch.tensor(values, dtype=torch.float64)


def _wav(file):
    with wave.open(str(file)) as sound:
        channels, width, rate, count, *_ = sound.getparams()
        if width != 2:
            raise ValueError(f"{8 * width} bits a sample")
        samples = np.frombuffer(sound.readframes(count), "<i2").reshape(-1, channels)
    return torch.tensor(samples.T / 2**15, dtype=torch.float64), rate


def _npz(file):
    with np.load(file, allow_pickle=False) as arrays:
        signals, rate = arrays["signals"], float(arrays["rate"])
    return torch.tensor(signals, dtype=torch.float64), rate


def _series(name):
    """The last column of data/NAME.csv, an empty entry a NaN; checked before use."""
    file = data_dir() / f"{name}.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, expected the series {name!r}")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SERIES[name]:
        raise ValueError(f"{file} has the SHA-256 {found}, expected {SERIES[name]}")
    values = [line.rpartition(",")[2] for line in content.decode().split()[1:]]
    return torch.tensor([float(value or "nan") for value in values], dtype=torch.float64)


def _check_signal(signal):
    if not isinstance(signal, torch.Tensor):
        raise TypeError(f"signal is {type(signal).__name__}, expected a tensor")
    if signal.ndim == 0 or not len(signal):
        raise ValueError(f"signal has shape {tuple(signal.shape)}, expected samples along dim 0")
