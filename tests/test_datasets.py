import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pywt.data
import torch

from mbdl_course import datasets


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder in the place of PyWavelets' own, with its cache forgotten."""
    readers = [getattr(pywt.data, name) for name in datasets.PACKAGED]
    monkeypatch.setattr("pywt.data._readers._DATADIR", tmp_path)
    for reader in readers:
        reader.cache_clear()
    yield tmp_path
    for reader in readers:
        reader.cache_clear()


def test_ecg_is_the_packaged_record():
    record = datasets.ecg()
    assert record.shape == (1024,) and record.dtype == torch.float64
    assert (record.min(), record.max()) == (-112, 250)
    assert torch.equal(record, torch.tensor(pywt.data.ecg(), dtype=torch.float64))


@pytest.mark.parametrize("name", datasets.PHOTOGRAPHS)
def test_photograph_is_in_the_unit_interval(name):
    image = datasets.photograph(name)
    assert image.shape == (512, 512) and image.dtype == torch.float64
    assert image.min() == 0 and image.max() == 1
    assert torch.equal(
        (255 * image).round().to(torch.uint8), torch.tensor(getattr(pywt.data, name)())
    )


def test_a_caller_may_write_into_what_it_got():
    datasets.ecg().zero_()
    datasets.photograph().zero_()
    assert datasets.ecg().max() == 250 and datasets.photograph().max() == 1


def test_series_are_those_of_statsmodels():
    shelf = pytest.importorskip("statsmodels.datasets")
    volume = shelf.nile.load_pandas().data["volume"].to_numpy(float)
    assert torch.equal(datasets.nile(), torch.tensor(volume))
    theirs = torch.tensor(shelf.co2.load_pandas().data["co2"].to_numpy(float))
    torch.testing.assert_close(datasets.co2(), theirs, rtol=0, atol=1e-9, equal_nan=True)
    assert datasets.co2().shape == (2284,) and datasets.co2().isnan().sum() == 59


def test_a_missing_or_changed_series_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MBDL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"nile\.csv is missing"):
        datasets.nile()
    (tmp_path / "nile.csv").write_text("year,volume\n1871,1121\n")
    with pytest.raises(ValueError, match=r"nile\.csv has the SHA-256 .* expected 88e97b"):
        datasets.nile()


def test_unknown_photograph():
    with pytest.raises(ValueError, match="name is 'lena', expected one of camera, ascent"):
        datasets.photograph("lena")


def test_missing_file(shelf):
    with pytest.raises(FileNotFoundError, match=r"ecg\.npz is missing: .*pip install.*PyWavelets"):
        datasets.ecg()
    assert [ok for _, ok, _ in datasets.check()] == [True, False, False, False, True, True, True]


# numpy leaves a truncated archive to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "content", [b"", b"not an archive", "truncated", "flipped", "empty archive"]
)
def test_damaged_file(shelf, content):
    if isinstance(content, str):
        whole = Path(pywt.data.__file__).with_name("ecg.npz").read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        np.savez(shelf / "empty.npz")
        content = {
            "truncated": whole[:middle],
            "flipped": flipped,
            "empty archive": (shelf / "empty.npz").read_bytes(),
        }[content]
    (shelf / "ecg.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"ecg\.npz cannot be read .*pip install"):
        datasets.ecg()
    name, ok, message = datasets.check()[1]
    assert (name, ok) == ("ecg", False) and "ecg.npz" in message


@pytest.mark.parametrize(
    "change", [lambda a: a + (a == 250), lambda a: a[:-1], lambda a: a.astype("<i8")]
)
def test_another_record(shelf, change):
    genuine = np.load(Path(pywt.data.__file__).with_name("ecg.npz"))["data"]
    other = change(genuine)
    np.savez(shelf / "ecg.npz", data=other)
    with pytest.raises(ValueError) as raised:
        datasets.ecg()
    for part in ("ecg.npz", hashlib.sha256(other.tobytes()).hexdigest(), datasets.PACKAGED["ecg"]):
        assert part in str(raised.value)


def test_without_pywavelets(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt.data", None)
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(FileNotFoundError, match="ecg needs PyWavelets .*pip install"):
        datasets.ecg()


def test_check_is_all_well_here():
    lines = datasets.check()
    assert [name for name, _, _ in lines] == [
        "data folder",
        "ecg",
        "camera",
        "ascent",
        "nile",
        "co2",
        "talkers",
    ]
    assert all(ok and isinstance(message, str) for _, ok, message in lines)


def test_data_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("MBDL_DATA", raising=False)
    assert datasets.data_dir() == Path(__file__).resolve().parents[1] / "data"
    monkeypatch.setenv("MBDL_DATA", "")
    assert datasets.data_dir().name == "data"
    monkeypatch.setenv("MBDL_DATA", str(tmp_path))
    assert datasets.data_dir() == tmp_path
    monkeypatch.setenv("MBDL_DATA", str(tmp_path / "typo"))
    with pytest.raises(FileNotFoundError, match="typo is missing: .*MBDL_DATA"):
        datasets.data_dir()
    name, ok, message = datasets.check()[0]
    assert (name, ok) == ("data folder", False) and "typo" in message


def test_windows_are_slices():
    signal = torch.arange(10.0)
    rows = datasets.windows(signal, 4, 3)
    assert rows.shape == (3, 4, 1)
    for i, row in enumerate(rows):
        assert torch.equal(row[:, 0], signal[3 * i : 3 * i + 4])
    assert datasets.windows(signal, 10, 1).shape == (1, 10, 1)
    assert datasets.windows(signal, 2, 20).shape == (1, 2, 1)


def test_windows_own_their_memory():
    signal = torch.arange(4.0)
    rows = datasets.windows(signal, 3, 1)
    rows[0].zero_()
    assert torch.equal(signal, torch.arange(4.0)) and torch.equal(rows[1, :, 0], signal[1:])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([1.0, 2.0], 1, 1), TypeError, "signal is list"),
        ((torch.tensor(1.0), 1, 1), ValueError, "signal has shape"),
        ((torch.zeros(0), 1, 1), ValueError, "signal has shape"),
        ((torch.zeros(4, 1), 1, 1), ValueError, r"signal has shape \(4, 1\), expected \(m,\)"),
        ((torch.zeros(4), 5, 1), ValueError, "length is 5, expected at most"),
        ((torch.zeros(4), 0, 1), ValueError, "length is 0"),
        ((torch.zeros(4), 2, 0), ValueError, "stride is 0"),
        ((torch.zeros(4), 2, -1), ValueError, "stride is -1"),
        ((torch.zeros(4), 2.0, 1), TypeError, "length is 2.0"),
        ((torch.zeros(4), 2, True), TypeError, "stride is True"),
    ],
)
def test_windows_bad_input(arguments, kind, message):
    with pytest.raises(kind, match=message):
        datasets.windows(*arguments)


@pytest.mark.parametrize("length", [5, 10, 1000, 1024])
def test_split_in_time_loses_and_shares_nothing(length):
    signal = torch.arange(length)
    pieces = datasets.split_in_time(signal)
    assert torch.equal(torch.cat(pieces), signal)
    assert all(len(piece) for piece in pieces)
    train, validation, test = datasets.split_in_time(torch.arange(1000.0).reshape(-1, 1))
    assert (len(train), len(validation), len(test)) == (500, 200, 300)


def test_no_window_overlaps_two_pieces():
    pieces = datasets.split_in_time(torch.arange(1024.0))
    seen = [set(datasets.windows(piece, 64, 8).flatten().tolist()) for piece in pieces]
    assert not seen[0] & seen[1] and not seen[1] & seen[2] and not seen[0] & seen[2]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([1.0, 2.0],), TypeError, "signal is list"),
        ((torch.tensor(1.0),), ValueError, "signal has shape"),
        ((torch.zeros(10), 0.0), ValueError, "train is 0.0"),
        ((torch.zeros(10), 1.5), ValueError, "train is 1.5"),
        ((torch.zeros(10), float("nan")), ValueError, "train is nan"),
        ((torch.zeros(10), "half"), TypeError, "train is 'half'"),
        ((torch.zeros(10), 0.5, 0.0), ValueError, "validation is 0.0"),
        ((torch.zeros(10), 0.5, 0.5), ValueError, "three pieces"),
        ((torch.zeros(10), 0.8, 0.9), ValueError, "three pieces"),
        ((torch.zeros(2),), ValueError, "three pieces"),
    ],
)
def test_split_in_time_bad_input(arguments, kind, message):
    with pytest.raises(kind, match=message):
        datasets.split_in_time(*arguments)


def test_import_is_light():
    code = "import sys, mbdl_course.datasets; assert not {'pywt', 'matplotlib'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_published_figures_are_read_or_named_as_missing(tmp_path, monkeypatch):
    published = datasets.reference("sparse")
    assert published["lasso"]["admm_steps"] == 3574 and "doi" in published["source"]
    monkeypatch.setenv("MBDL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected the published figures of 'sparse'"):
        datasets.reference("sparse")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/sparse.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        datasets.reference("sparse")
