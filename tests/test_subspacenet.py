"""Learned covariances: laws of the slot, sizes as published, gradients, training, bad input."""

import math

import pytest
import torch

from mbdl_course import datasets, learn, weights
from mbdl_course.doa import (
    AntiRectifier,
    CovarianceCNN,
    DeepAugmentedMUSIC,
    Dense,
    EncoderDecoder,
    LeakyReLU,
    SubspaceNet,
    calibrated,
    disturbed,
    esprit,
    estimated,
    forward_backward,
    lagged,
    maximum_likelihood,
    mean_rmspe,
    music,
    narrowband,
    observed,
    rmspe,
    root_music,
    sample_covariance,
    scenes,
    smoothed,
    steering,
    through,
    uniform_linear,
)
from mbdl_course.learn import Stage, batches, seeded, training
from mbdl_course.networks import parameters
from mbdl_course.weights import doa as recipes

D, C = torch.float64, torch.complex128
LINE = uniform_linear(8)


def scene(count=6, sources=3, snapshots=40, coherence=0.0, seed=0, snr_db=10.0):
    s = scenes(count, sources, LINE, snapshots, seeded(seed))
    return observed(s, LINE, snr_db, coherence), s.doa


@pytest.mark.parametrize("lags", [1, 4])
def test_a_network_that_answers_zero_leaves_the_subspace_of_the_sample_covariance(lags):
    x, _ = scene()
    net = SubspaceNet(Dense(8, lags, generator=seeded(1)).double(), lags)
    for head in (esprit, root_music, music):
        filled, classical = estimated(x, 3, net, head), estimated(x, 3, head=head)
        torch.testing.assert_close(filled, classical, atol=1e-9, rtol=0)


def test_the_surrogate_is_positive_definite_and_does_not_depend_on_the_power():
    x, _ = scene(coherence=1.0)
    for skip in (True, False):
        net = SubspaceNet(EncoderDecoder(2, generator=seeded(2)).double(), 2, skip)
        R = net(x)
        assert torch.equal(R, R.mH) or (R - R.mH).abs().max() < 1e-12
        assert torch.linalg.eigvalsh(R).min() > 0.9e-3
        torch.testing.assert_close(net(1000 * x), R)
        torch.testing.assert_close(net(x[2]), R[2])  # a scene is a slice of its batch


def test_the_published_networks_have_the_published_sizes():
    assert parameters(EncoderDecoder(8)) == 41_761
    assert parameters(EncoderDecoder(8, activation=LeakyReLU(), factor=1)) == 21_217
    v = torch.tensor([[[-2.0]], [[3.0]]])
    assert AntiRectifier()(v).flatten().tolist() == [0, 3, 2, 0]


def test_lags_are_those_of_a_loop():
    x, _ = scene(2)
    for k, R in enumerate(lagged(x, 5).unbind(-3)):
        by_hand = sum(x[..., t + k, None] @ x[..., t, None].mH for t in range(40 - k)) / (40 - k)
        torch.testing.assert_close(R, by_hand)


def test_lagged_covariances_of_white_noise_vanish():
    noise = torch.randn(8, 20_000, generator=seeded(3), dtype=C)
    R = lagged(noise, 3)
    assert R[1:].abs().max() < 0.04 < 0.9 < R[0].diagonal().real.min()


@pytest.mark.parametrize("head", [esprit, root_music, music])
def test_gradients_through_the_heads_are_finite_differences(head):
    x, doa = scene(2, snapshots=20, coherence=1.0, seed=4)
    net = SubspaceNet(Dense(8, width=4, depth=1, generator=seeded(5)).double())
    last = net.network.body[-1].weight
    torch.nn.init.normal_(last, std=0.3, generator=seeded(6))
    loss = through(head)
    (slope,) = torch.autograd.grad(loss(net(x), doa), last)
    turn = torch.randn(last.shape, generator=seeded(7), dtype=D)
    values = []
    for h in (1e-6, -1e-6):
        with torch.no_grad():
            last += h * turn
            values.append(loss(net(x), doa))
            last -= h * turn
    assert (slope * turn).sum() == pytest.approx(((values[0] - values[1]) / 2e-6).item(), rel=1e-3)


def test_a_few_seconds_of_training_pass_forward_backward_smoothing():
    """1,000 scenes of three coherent sources, 400 steps; the shipped ones: 1,500."""
    data, test = recipes.coherent(1000, 1), recipes.coherent(500, 2)
    net = recipes.surrogate(1)
    before = mean_rmspe(estimated(test[0], 3, net, esprit), test[1])
    *_, p = training(net, batches(*data, 128, 3), through(esprit), [Stage(400, 1e-3)], clip=1.0)
    after = mean_rmspe(estimated(test[0], 3, net, esprit), test[1]).item()

    def best(x):
        return smoothed(forward_backward(sample_covariance(x)), 6)

    rival = mean_rmspe(estimated(test[0], 3, best, esprit), test[1]).item()
    assert before > 0.4 and after < 0.75 * rival and rival < 0.07


def test_recipes_draw_independent_scenes():
    (x, doa), (again, _), (other, _) = (recipes.coherent(20, seed) for seed in (1, 1, 2))
    assert torch.equal(x, again) and not torch.equal(x, other)
    turned, _ = recipes.coherent(20, 1, phases=True)
    assert not torch.equal(x, turned) and (doa.diff() > math.radians(14.9)).all()
    # one waveform: the covariance without noise has rank one, whatever the phases
    for kind in (False, True):
        values = torch.linalg.eigvalsh(
            sample_covariance(recipes.coherent(9, 3, 3, 400, 40, kind)[0])
        )
        assert (values[:, -1] > 100 * values[:, -2]).all()


def test_no_training_set_shares_a_seed_with_a_test_set(monkeypatch):
    """The same seed would give the first scenes of a larger set the same directions."""
    asked = []

    def noted(draw):
        return lambda count, seed, *more, **options: (
            asked.append(seed) or draw(2, seed, *more, **options)
        )

    for name in ("coherent", "apart", "bent"):
        monkeypatch.setattr(recipes, name, noted(getattr(recipes, name)))
    monkeypatch.setattr(recipes, "learned", lambda *arguments, **options: arguments[0])
    for seed in recipes.SEEDS:
        for make in (recipes.in_phase, recipes.mixed, recipes.few, recipes.at_one_array):
            make(seed)
    held_out = recipes.VALIDATION_SEED
    training = [seed for seed in asked if seed != held_out]
    assert held_out in asked
    asked.clear()
    for test_sets in recipes.TEST_SETS.values():
        test_sets()
    assert recipes.TEST_SEED in asked and held_out not in asked
    assert min(abs(a - b) for a in training for b in (held_out, *asked)) > 100


def test_scenes_across_the_ends_are_told_apart():
    doa = torch.tensor([[-85.0, 0.0, 80.0], [-60.0, 0.0, 60.0], [0.0, 40.0, 89.0]]).deg2rad()
    assert recipes.across(doa).tolist() == [True, False, False]
    found = recipes.told(torch.tensor([1.0, 0.1, 0.01]), doa)
    wanted = {"mean": 0.37, "median": 0.1, "across": 1.0, "elsewhere": 0.055}
    wanted["elsewhere_median"] = 0.01  # the lower one of two
    assert found == {name: pytest.approx(20 * math.log10(v), abs=1e-3)
                     for name, v in wanted.items()}  # fmt: skip


@pytest.mark.parametrize("name", recipes.TEST_SETS)
def test_what_the_chapter_shows_is_measured_for_every_seed(name):
    entry = learn.manifest()[name]
    found = entry["not_shipped_nmse_db_by_seed"]
    assert {len(values) for values in found.values()} == {len(recipes.SEEDS)}
    first = recipes.shown(name, weights.shipped(name))
    assert first.keys() <= found.keys()
    assert first == {key: pytest.approx(found[key][0], abs=0.05) for key in first}


@pytest.mark.parametrize("make", [DeepAugmentedMUSIC, CovarianceCNN])
def test_black_boxes_have_the_interface_of_the_chain(make):
    x, doa = (v.to(torch.complex64 if v.is_complex() else torch.float32) for v in scene(4))
    net = make(8, 3, generator=seeded(8))
    again = make(8, 3, generator=seeded(8))
    found = net(x)
    assert found.shape == doa.shape and torch.equal(found, again(x))
    torch.testing.assert_close(net(x[1]), found[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(net(100 * x), found, atol=1e-4, rtol=0)
    mean_rmspe(found, doa).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in net.parameters())


# ---- Model-based opponents ---------------------------------------------------------------------


def test_likelihood_starts_where_it_is_told():
    s = scenes(20, 3, LINE, 40, seeded(0), widest=1.2)
    R, doa = sample_covariance(observed(s, LINE, 25.0)), s.doa
    torch.testing.assert_close(
        maximum_likelihood(R, 3, start=doa + 0.01), maximum_likelihood(R, 3), atol=1e-3, rtol=0
    )
    with pytest.raises(ValueError, match=r"start: got shape \(20, 2\)"):
        maximum_likelihood(R, 3, start=doa[:, :2])


def test_an_array_is_found_from_scenes_of_known_directions():
    wrong = disturbed(LINE, torch.randn(8, 4, generator=seeded(9), dtype=D), 0.03, 1.0, 0.2)
    s = scenes(200, 2, LINE, 50, seeded(10), widest=1.3)
    fitted = calibrated(sample_covariance(observed(s, wrong, 30.0)), s.doa, LINE)
    new = scenes(200, 2, LINE, 50, seeded(11), widest=1.3)
    x = observed(new, wrong, 30.0)
    errors = [
        rmspe(music(sample_covariance(x), 2, a), new.doa).mean() for a in (LINE, fitted, wrong)
    ]
    assert errors[1] < 1.2 * errors[2] < 0.2 * errors[0]


def test_phases_turn_the_paths():
    s = scenes(3, 2, LINE, 5, seeded(12))
    phases = torch.tensor([[0.3, 2.0]] * 3, dtype=D)
    x = observed(s, LINE, 10.0, 1.0, phases)
    H = steering(s.doa, LINE) * torch.polar(torch.ones_like(phases), phases)[:, None]
    a = observed(s, LINE, 10.0, 1.0) - s.noise
    G = torch.linalg.lstsq(steering(s.doa, LINE), a).solution  # what arrives, unturned
    torch.testing.assert_close(x, H @ G + s.noise)


# ---- Recordings --------------------------------------------------------------------------------


def test_the_recording_is_what_its_script_makes(tmp_path):
    import subprocess
    import sys

    script = datasets.data_dir() / "room.py"
    made = tmp_path / "made.wav"
    subprocess.run([sys.executable, script, made], check=True, timeout=120)
    ours, rate = datasets.recording()
    again, _ = datasets.recording(made)
    assert ours.shape == (8, 4800) and rate == 16_000
    assert (ours - again).abs().max() <= 2 / 2**15  # a last bit of rounding


def test_the_talkers_are_found():
    signals, rate = datasets.recording()
    for wanted in (1000, 1700, 2500, 3000):
        x, frequency = narrowband(signals, rate, wanted)
        R = smoothed(forward_backward(sample_covariance(x)), 6)
        found = esprit(R, 2, 0.05 * frequency / 343)
        assert (found.rad2deg() - torch.tensor([-35.0, 20.0])).abs().max() < 4, wanted


def test_a_pure_tone_has_the_phases_of_its_delays():
    rate, frequency, spacing = 16_000, 2000, 0.05
    delay = torch.arange(8) * spacing * math.sin(0.4) / 343
    time = torch.arange(2048, dtype=D) / rate
    tone = (2 * math.pi * frequency * (time - delay[:, None].double())).cos()
    x, found = narrowband(tone, rate, frequency)
    assert found == frequency
    doa = esprit(sample_covariance(x), 1, spacing * frequency / 343)
    assert doa.item() == pytest.approx(0.4, abs=1e-4)


def test_recordings_are_read_or_refused(tmp_path):
    import numpy as np

    good = tmp_path / "good.npz"
    np.savez(good, signals=np.ones((2, 300)), rate=8000)
    signals, rate = datasets.recording(good)
    assert signals.shape == (2, 300) and rate == 8000
    for name, content in (("a.wav", b"no sound"), ("b.npz", b"no archive")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            datasets.recording(tmp_path / name)
    np.savez(tmp_path / "c.npz", signals=np.ones(3), rate=8000)
    with pytest.raises(ValueError, match=r"signals of shape \(3,\)"):
        datasets.recording(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", signals=np.ones((2, 3)))
    with pytest.raises(ValueError, match="KeyError"):
        datasets.recording(tmp_path / "d.npz")
    with pytest.raises(FileNotFoundError, match="expected a recording"):
        datasets.recording(tmp_path / "none.wav")


X, DOA = scene(2)
BAD = {
    "lags, none": (lambda: lagged(X, 0), "lags: got 0"),
    "lags, too many": (lambda: lagged(X, 41), "1 to T = 40"),
    "floor": (lambda: SubspaceNet(Dense(8), floor=0.0), "floor: got 0"),
    "lags of the network": (lambda: SubspaceNet(Dense(8), lags=0), "lags: got 0"),
    "NaN": (lambda: SubspaceNet(Dense(8))(X * math.nan), "x: got NaN"),
    "frequency": (lambda: narrowband(torch.ones(2, 300), 8000, 5000), "frequency: got 5000"),
    "too short": (lambda: narrowband(torch.ones(2, 99), 8000, 1000), "signals: got shape"),
    "known directions": (lambda: calibrated(torch.eye(3, dtype=C)[None], DOA[:1], LINE), "sources"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()
