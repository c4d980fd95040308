"""Directions of arrival: against closed forms, numpy, numerical Fisher information, and by laws."""

import math
from functools import partial
from itertools import permutations

import numpy as np
import pyroomacoustics
import pytest
import torch

from mbdl_course.doa import (
    Array,
    Scenes,
    aic,
    beamformer,
    coloured,
    deterministic_bound,
    directions,
    disturbed,
    doa_error,
    esprit,
    estimated,
    forward_backward,
    maximum_likelihood,
    mdl,
    mixing,
    music,
    mvdr,
    observed,
    parabola,
    rmspe,
    root_music,
    sample_covariance,
    scenes,
    signal_subspace,
    smoothed,
    spectrum,
    steering,
    stochastic_bound,
    subarray,
    uniform_linear,
)
from mbdl_course.doa.problem import expansion
from mbdl_course.learn import seeded

D, C = torch.float64, torch.complex128
LINE = uniform_linear(8)
FIFTEEN, WIDE = math.radians(15), math.radians(75)


def circle(sensors=7, radius=0.6):
    turn = 2 * math.pi * torch.arange(sensors, dtype=D) / sensors
    return Array(
        radius * torch.stack([turn.cos(), turn.sin()], -1), torch.ones(sensors, 1, dtype=C)
    )


def crooked(count=1, seed=5):
    noise = torch.randn(count, 8, 4, generator=seeded(seed), dtype=D)
    return disturbed(LINE, noise, position=0.05, gain_db=0.5, phase=0.1)


def draw(sources=3, count=20, snapshots=100, array=LINE, seed=0, widest=WIDE):
    return scenes(count, sources, array, snapshots, seeded(seed), widest=widest)


def clean(scene, array=LINE):
    return steering(scene.doa, array) @ scene.waveforms


# ---- The array and the scenes ------------------------------------------------------------------


def test_steering_is_the_phase_of_a_delayed_wave():
    doa = torch.tensor([[-0.4, 0.1]], dtype=D)
    phases = np.exp(-1j * np.pi * np.arange(8)[:, None] * np.sin([-0.4, 0.1]))
    np.testing.assert_allclose(steering(doa, LINE)[0], phases, atol=1e-14)
    H = steering(doa, circle())
    assert H.shape == (1, 7, 2) and (H.abs() - 1).abs().max() < 1e-14
    turned = steering(doa + 2 * math.pi / 7, circle())  # a turn by one sensor
    torch.testing.assert_close(turned.roll(1, -2), H)


@pytest.mark.parametrize("array", [LINE, circle(), crooked()], ids=["line", "circle", "crooked"])
def test_the_expansion_is_the_derivative(array):
    doa = torch.tensor([0.3, -0.7], dtype=D)
    _, once, twice = expansion(doa, array)

    def derivative(f):  # of each column in its own angle; the others do not enter
        J = torch.autograd.functional.jacobian(lambda doa: torch.view_as_real(f(doa)), doa)
        return torch.view_as_complex(J.sum(-1).contiguous())

    torch.testing.assert_close(derivative(lambda doa: steering(doa, array)), once)
    torch.testing.assert_close(derivative(lambda doa: expansion(doa, array)[1]), twice)


def test_scenes_keep_their_distance_and_have_the_stated_powers():
    s = scenes(4000, 3, LINE, 20, seeded(0))
    assert s.doa.diff(dim=-1).min() > FIFTEEN - 1e-12 and s.doa.abs().max() < math.pi / 2
    # uniform given the gaps: as a uniform draw that is rejected where they are too small
    u = ((torch.rand(60000, 3, generator=seeded(1), dtype=D) - 0.5) * math.pi).sort(-1).values
    u = u[(u.diff(dim=-1) >= FIFTEEN).all(-1)]
    assert (u.mean(0) - s.doa.mean(0)).abs().max() < 0.03
    assert (u.std(0) - s.doa.std(0)).abs().max() < 0.03
    powers = (observed(s, LINE, 10.0) - s.noise).abs().square().mean((0, 2))
    torch.testing.assert_close(powers, torch.full((8,), 30.0, dtype=D), rtol=0.03, atol=0)
    assert s.noise.abs().square().mean().sub(1).abs() < 0.01
    coherent = observed(s, LINE, 10.0, 1.0) - s.noise
    assert torch.linalg.matrix_rank(coherent[:5], rtol=1e-9).tolist() == [1] * 5


def test_mixing_is_a_root_of_the_covariance():
    G = mixing(3, [0.0, 10.0, 20.0], 0.4)
    a = torch.tensor([1.0, 10.0, 100.0], dtype=D).sqrt()
    P = torch.outer(a, a) * (0.4 + 0.6 * torch.eye(3, dtype=D))
    torch.testing.assert_close(G @ G.mH, P.to(C))


def test_coloured_waveforms():
    z = torch.randn(50, 2, 400, generator=seeded(0), dtype=C)
    s = coloured(z, 0.9)
    assert s.abs().square().mean().sub(1).abs() < 0.05
    assert ((s[..., 1:] * s[..., :-1].conj()).mean() - 0.9).abs() < 0.05
    assert torch.equal(coloured(z, 0.0), z)


def test_errors_of_sensors_scale_one_draw():
    noise = torch.randn(6, 8, 4, generator=seeded(0), dtype=D)
    once, twice = (disturbed(LINE, noise, k, k, k) for k in (0.01, 0.02))
    torch.testing.assert_close(
        2 * (once.positions - LINE.positions), twice.positions - LINE.positions
    )
    torch.testing.assert_close(once.gains**2, twice.gains)
    same = disturbed(LINE, noise)
    assert torch.equal(same.positions, LINE.positions.expand(6, 8, 2)) and (same.gains == 1).all()


# ---- Scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [math.pi, 2 * math.pi, math.inf])
@pytest.mark.parametrize("sources", [1, 2, 3, 4, 5])
def test_the_assignment_is_the_best_of_all(period, sources):
    doa, doa_hat = 3 * torch.randn(2, 300, sources, generator=seeded(sources), dtype=D)
    best = torch.full((300,), math.inf, dtype=D)
    for order in permutations(range(sources)):
        e = doa_hat[:, list(order)] - doa
        if math.isfinite(period):
            e = torch.minimum(e.remainder(period), (-e).remainder(period))
        best = torch.minimum(best, e.square().mean(-1).sqrt())
    ours = rmspe(doa_hat, doa, period)
    torch.testing.assert_close(ours, best)
    error = doa_error(doa_hat, doa, period)
    torch.testing.assert_close(error.square().mean(-1).sqrt(), ours)
    # error s of source i is that of source i: add it, and the set of estimates is there again
    again = rmspe(doa + error, doa_hat, period)
    assert again.max() < 1e-12


def test_the_end_fire_convention():
    edges = (
        torch.tensor([[math.pi / 2, 0.2]], dtype=D),
        torch.tensor([[-math.pi / 2, 0.2]], dtype=D),
    )
    assert rmspe(*edges).max() < 1e-15
    assert rmspe(*edges, period=2 * math.pi).min() > 1
    doa = torch.tensor([[0.1, 0.5]], dtype=D, requires_grad=True)
    (grad,) = torch.autograd.grad(rmspe(doa, doa.detach()).sum(), doa)
    assert (grad == 0).all()


# ---- Estimates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sources", [1, 2, 3, 4, 5])
def test_scenes_without_noise_are_recovered(sources):
    scene = draw(sources, 100)
    R = sample_covariance(clean(scene))
    for head in (esprit, root_music, music, partial(esprit, weights=parabola(8))):
        assert (head(R, sources) - scene.doa).abs().max() < 1e-8
    two = draw(2, 50)
    assert (maximum_likelihood(sample_covariance(clean(two)), 2) - two.doa).abs().max() < 1e-7
    R = sample_covariance(clean(scene) + 1e-5 * scene.noise)
    assert (mvdr(R, sources) - scene.doa).abs().max() < 1e-3


def test_coherent_scenes_without_noise_are_recovered_after_smoothing():
    scene = draw(3, 50)
    R = sample_covariance(observed(scene._replace(noise=0 * scene.noise), LINE, 10.0, 1.0))
    for smooth in (smoothed(R, 5), smoothed(forward_backward(R), 6)):
        size = smooth.shape[-1]
        assert (esprit(smooth, 3) - scene.doa).abs().max() < 1e-7
        assert (root_music(smooth, 3) - scene.doa).abs().max() < 1e-6
        assert (music(smooth, 3, subarray(LINE, size)) - scene.doa).abs().max() < 1e-6
    two = draw(2, 30)
    x = observed(two._replace(noise=0 * two.noise), LINE, 10.0, 1.0)
    assert (maximum_likelihood(sample_covariance(x), 2) - two.doa).abs().max() < 1e-6


def by_numpy(R, sources):
    """MUSIC on a grid, Root-MUSIC and ESPRIT, scene by scene, as textbooks write them."""
    n, (_, U) = len(R), np.linalg.eigh(R)
    Un, Us = U[:, : n - sources], U[:, n - sources :]
    Cn = Un @ Un.conj().T
    z = np.roots([np.trace(Cn, q) for q in range(n - 1, -n, -1)])
    z = sorted(z[np.abs(z) < 1], key=abs)[-sources:]
    mu = np.linalg.eigvals(np.linalg.lstsq(Us[:-1], Us[1:], rcond=None)[0])
    return [np.sort(np.arcsin(-np.angle(v) / np.pi)) for v in (z, mu)]


def test_with_the_sample_covariance_the_chain_is_the_textbook_one():
    scene = draw(3, 10)
    x = observed(scene, LINE, 10.0)
    R = sample_covariance(x)
    roots, rotations = zip(*(by_numpy(r.numpy(), 3) for r in R), strict=True)
    for head, theirs in ((root_music, roots), (esprit, rotations)):
        ours = estimated(x, 3, sample_covariance, head)
        np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-10)
    grid = directions(LINE)
    E = signal_subspace(R, 3)
    null = spectrum(torch.eye(8) - E @ E.mH, LINE, grid)
    H = steering(grid, LINE)
    torch.testing.assert_close(null, 8 - (E.mH @ H).abs().square().sum(-2), atol=1e-10, rtol=0)
    # MUSIC leaves the grid for the minimum beside it: no point near it is lower
    best = music(R, 3)
    fine = (best[..., None] + torch.linspace(-1e-3, 1e-3, 21, dtype=D)).flatten(-2)
    near = (8 - (E.mH @ steering(fine, LINE)).abs().square().sum(-2)).unflatten(-1, (3, 21))
    assert (near.argmin(-1) == 10).all()


def test_music_is_that_of_pyroomacoustics_to_a_step_of_the_grid():
    peer = pyroomacoustics.doa.MUSIC
    scene = draw(2, 10, widest=math.radians(60))
    x = observed(scene, LINE, 10.0)
    azimuth = np.pi / 2 - directions(LINE).numpy()[::-1]
    for each, doa in zip(x, music(sample_covariance(x), 2), strict=True):
        # speed and frequency 1: lengths are wavelengths, bin 1 of 4 is the frequency
        finder = peer(LINE.positions.numpy().T, 4, 4, c=1.0, num_src=2, azimuth=azimuth)
        X = np.zeros((8, 3, 100), complex)
        X[:, 1] = each.numpy().conj()  # there an earlier wave turns the other way
        finder.locate_sources(X, freq_bins=[1])
        theirs = np.sort(np.pi / 2 - finder.azimuth_recon)
        np.testing.assert_allclose(doa, theirs, atol=math.pi / 361 / 2 * 1.01)


def test_any_array_can_be_scanned():
    for array in (circle(), crooked(20)):
        sensors = array.gains.shape[-2]
        widest = math.pi - 0.1 if sensors == 7 else WIDE
        scene = scenes(20, 2, array, 50, seeded(3), separation=0.6, widest=widest)
        x = steering(scene.doa, array) @ scene.waveforms
        for head in (music, maximum_likelihood):
            doa = head(sample_covariance(x), 2, array)
            assert rmspe(doa, scene.doa, 2 * math.pi).max() < 1e-7
        one = scene._replace(doa=scene.doa[:, :1], waveforms=scene.waveforms[:, :1])
        R = sample_covariance(steering(one.doa, array) @ one.waveforms + 0.01 * one.noise)
        for head in (beamformer, mvdr):
            assert rmspe(head(R, 1, array), one.doa, 2 * math.pi).max() < 0.01


def test_spacing_and_grating_lobes():
    narrow, sparse = uniform_linear(8, 0.25), uniform_linear(8, 1.0)
    scene = draw(2, 20, array=narrow, widest=1.0)
    R = sample_covariance(steering(scene.doa, narrow) @ scene.waveforms)
    for head in (esprit, root_music):
        assert (head(R, 2, spacing=0.25) - scene.doa).abs().max() < 1e-8
    twin = torch.tensor([0.2, math.asin(math.sin(0.2) - 1)], dtype=D)  # one wavelength apart
    H = steering(twin, sparse)
    torch.testing.assert_close(H[:, 0], H[:, 1])
    assert (steering(twin, LINE)[:, 0] - steering(twin, LINE)[:, 1]).abs().max() > 1


def test_smoothing_is_the_mean_over_subarrays():
    R = sample_covariance(observed(draw(2, 4), LINE, 0.0))
    by_hand = sum(R[:, k : k + 5, k : k + 5] for k in range(4)) / 4
    torch.testing.assert_close(smoothed(R, 5), by_hand)
    assert torch.equal(smoothed(R, 8), R)
    J = torch.eye(8, dtype=C).flip(0)
    torch.testing.assert_close(forward_backward(R), (R + J @ R.conj() @ J) / 2)


def test_the_number_of_sources():
    x = observed(draw(3, 300), LINE, 10.0)
    R = sample_covariance(x)
    values = torch.linalg.eigvalsh(R[0]).flip(0)
    for k in range(8):
        noise = values[k:]
        fit = 100 * (8 - k) * (noise.mean().log() - noise.log().mean())
        torch.testing.assert_close(aic(R, 100)[0, k], fit + k * (16 - k))
        torch.testing.assert_close(mdl(R, 100)[0, k], fit + k * (16 - k) * math.log(100) / 2)
    assert (mdl(R, 100).argmin(-1) == 3).double().mean() > 0.97
    assert (aic(R, 100).argmin(-1) >= 3).double().mean() > 0.97
    nothing = sample_covariance(draw(3, 300).noise)
    assert (mdl(nothing, 100).argmin(-1) == 0).double().mean() > 0.97


# ---- Bounds ------------------------------------------------------------------------------------


def fisher_stochastic(doa, P, snapshots, array):
    """The block of the angles of the inverse Fisher information of (doa, P, noise power)."""
    m, n = len(doa), array.gains.shape[-2]

    def R(theta):
        angles, p = theta[:m], theta[m : m + m * m].reshape(m, m)
        upper, lower = p.triu(), p.tril(-1)
        Q = torch.complex(upper + upper.triu(1).mT, lower - lower.mT)
        H = steering(angles, array)
        return torch.view_as_real(H @ Q @ H.mH + theta[-1] * torch.eye(n))

    p = P.real.triu() + P.imag.tril(-1)
    theta = torch.cat([doa, p.flatten(), torch.ones(1, dtype=D)])
    J = torch.view_as_complex(
        torch.autograd.functional.jacobian(R, theta).movedim(-1, 0).contiguous()
    )
    whitened = torch.linalg.solve(torch.view_as_complex(R(theta)), J)
    F = snapshots * torch.einsum("aij,bji->ab", whitened, whitened).real
    return torch.linalg.inv(F)[:m, :m]


def fisher_deterministic(doa, S, array):
    m = len(doa)

    def mean(theta):
        s = theta[m:].reshape(2, *S.shape)
        x = steering(theta[:m], array) @ torch.complex(*s)
        return torch.view_as_real(x).flatten()

    J = torch.autograd.functional.jacobian(
        mean, torch.cat([doa, S.real.flatten(), S.imag.flatten()])
    )
    return torch.linalg.inv(2 * J.mT @ J)[:m, :m]


@pytest.mark.parametrize("coherence", [0.0, 0.7])
@pytest.mark.parametrize("array", [LINE, circle(), crooked()], ids=["line", "circle", "crooked"])
def test_bounds_are_the_inverse_fisher_information(array, coherence):
    array = Array(*(part.reshape(part.shape[-2:]) for part in array))
    doa = torch.tensor([-0.6, 0.1, 0.5], dtype=D)
    G = mixing(3, [10.0, 5.0, 0.0], coherence)
    P = G @ G.mH
    P[0, 1] *= 1j
    P[1, 0] *= -1j
    ours = stochastic_bound(doa, P, 40, array)
    torch.testing.assert_close(ours, fisher_stochastic(doa, P, 40, array), rtol=1e-7, atol=0)
    S = G @ torch.randn(3, 6, generator=seeded(0), dtype=C)
    ours = deterministic_bound(doa, S, array)
    torch.testing.assert_close(ours, fisher_deterministic(doa, S, array), rtol=1e-7, atol=0)


def over_bound_db(head, snr_db, count=1000):
    """10 log10 of the mean squared error over the bound, two sources up to 60° from broadside."""
    scene = draw(2, count, seed=int(snr_db) + 40, widest=math.radians(60))
    G = mixing(2, snr_db)
    bound = stochastic_bound(scene.doa, G @ G.mH, 100, LINE).diagonal(dim1=-2, dim2=-1)
    error = doa_error(head(sample_covariance(observed(scene, LINE, snr_db)), 2), scene.doa)
    return 10 * math.log10(error.square().mean() / bound.mean())


@pytest.mark.parametrize(
    ("head", "most"),
    [
        (music, 0.6),
        (root_music, 0.6),
        (maximum_likelihood, 0.6),
        (partial(esprit, weights=parabola(8)), 0.6),
        (esprit, 2.9),  # n(n² − 1)/(6(n − 1)²) is 2.3 dB
    ],
    ids=["MUSIC", "Root-MUSIC", "ML", "weighted ESPRIT", "ESPRIT"],
)
def test_two_sources_reach_the_bound(head, most):
    """Figure 1: within 1.5 dB; the error of 1,000 scenes is known to 0.3 dB or so."""
    assert -0.6 < over_bound_db(head, 10.0) < most
    assert over_bound_db(head, -12.0) > 3  # below the threshold


def test_maximum_likelihood_reaches_the_deterministic_bound_for_coherent_sources():
    scene = draw(2, 500, widest=1.0)
    bound = deterministic_bound(scene.doa, mixing(2, 20.0, 1.0) @ scene.waveforms, LINE)
    R = sample_covariance(observed(scene, LINE, 20.0, 1.0))
    error = doa_error(maximum_likelihood(R, 2), scene.doa).square()
    ratio = 10 * (error / bound.diagonal(dim1=-2, dim2=-1)).mean().log10()
    assert -0.6 < ratio < 0.6


def test_three_coherent_sources():
    """Figure 2, its classical part: the mean RMSPE over 1,000 scenes of the whole half circle."""
    scene = draw(3, 1000, widest=math.pi / 2)
    R = sample_covariance(observed(scene, LINE, 10.0, 1.0))
    both = forward_backward(R)

    def mean(doa):
        return rmspe(doa, scene.doa).mean().item()

    assert 0.40 < mean(esprit(R, 3)) < 0.46
    assert 0.37 < mean(root_music(R, 3)) < 0.44
    forward, backward = mean(esprit(smoothed(R, 5), 3)), mean(esprit(smoothed(both, 5), 3))
    assert 0.09 < forward < 0.125 and 0.045 < backward < 0.075
    assert mean(esprit(smoothed(both, 6), 3)) < backward
    assert mean(maximum_likelihood(R, 3)) < backward


# ---- Gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [esprit, root_music, music])
def test_gradients_are_right_away_from_multiple_roots(head):
    Z = torch.randn(2, 5, 12, generator=seeded(0), dtype=C, requires_grad=True)
    assert torch.autograd.gradcheck(lambda Z: head(Z @ Z.mH / 12, 2), (Z,))


@pytest.mark.parametrize("head", [esprit, root_music, music])
@pytest.mark.parametrize("dtype", [torch.complex64, C])
def test_gradients_are_finite_near_multiple_roots(head, dtype):
    g = seeded(0)
    eye, Z = torch.eye(5, dtype=dtype), torch.randn(5, 5, generator=g, dtype=dtype)
    line = uniform_linear(5)
    apart = torch.linalg.qr(steering(torch.tensor([0.0, 0.5], dtype=D), line)).Q.to(dtype)
    twins = steering(torch.tensor([0.3, 0.3 + 1e-9], dtype=D), line).to(dtype)
    for root in (
        eye,  # all eigenvalues are equal
        eye + 1e-7 * Z,
        torch.cat([apart, eye], 1),  # those of the signal are
        torch.cat([twins, 1e-2 * eye], 1),  # two sources are one
        steering(torch.tensor([0.1, 0.6], dtype=D), line).to(dtype) + 0,  # double roots
    ):
        root = root.clone().requires_grad_()
        doa = head(root @ root.mH, 2)
        (grad,) = torch.autograd.grad(doa.sum(), root)
        assert doa.isfinite().all() and grad.isfinite().all()


# ---- Laws --------------------------------------------------------------------------------------

HEADS = [beamformer, mvdr, music, root_music, esprit, maximum_likelihood]


@pytest.mark.parametrize("head", HEADS)
def test_a_scene_is_a_slice_of_its_batch_and_inputs_stay(head):
    scene = draw(2, 12, seed=4)
    R = sample_covariance(observed(scene, LINE, 10.0))
    before = R.clone()
    doa = head(R.reshape(3, 4, 8, 8), 2).reshape(12, 2)
    assert torch.equal(R, before) and (doa.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(head(R[5], 2), doa[5], atol=1e-9, rtol=0)
    single = head(R.to(torch.complex64), 2)
    assert single.dtype == torch.float32
    assert (single - doa).abs().max() < 2e-3


def test_the_same_seed_gives_the_same_draw_and_a_slider_scales_it():
    one, two = draw(seed=7), draw(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert isinstance(one, Scenes)
    low, high = (observed(one, LINE, snr) - one.noise for snr in (0.0, 20.0))
    torch.testing.assert_close(10 * low, high)


# ---- Bad input ---------------------------------------------------------------------------------

GOOD = torch.eye(8, dtype=C) + steering(torch.tensor([0.2], dtype=D), LINE) @ steering(
    torch.tensor([0.2], dtype=D), LINE
).mH  # fmt: skip
NAN = torch.full((8, 8), torch.nan, dtype=C)
SKEW = GOOD + 0.1 * torch.triu(torch.ones(8, 8, dtype=C), 1)
THREE = torch.ones(8, 3, dtype=C) * torch.arange(1, 4)
DOA = torch.tensor([0.1, 0.2], dtype=D)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: esprit(GOOD, 8), ValueError, "sources: got 8, expected fewer than the 8 sensors"),
        (lambda: maximum_likelihood(GOOD, 9), ValueError, "sources: got 9"),
        (lambda: music(GOOD, 0), ValueError, "sources: got 0, expected a whole number"),
        (lambda: root_music(GOOD, 1.0), ValueError, "sources: got 1.0"),
        (lambda: esprit(smoothed(GOOD, 3), 3), ValueError, "the 3 sensors of R"),
        (lambda: mvdr(sample_covariance(THREE), 1), ValueError, "as many snapshots as sensors"),
        (lambda: esprit(sample_covariance(THREE), 2), ValueError, "a rank below 2 sources"),
        (lambda: root_music(SKEW, 1), ValueError, "R: got a matrix that is not Hermitian"),
        (lambda: music(NAN, 1), ValueError, "R: got NaN or Inf"),
        (lambda: beamformer(GOOD.real, 1), TypeError, "R: got torch.float64, expected a complex"),
        (lambda: beamformer("R", 1), TypeError, "R: got str"),
        (lambda: mdl(GOOD[:, :5], 100), ValueError, r"R: got shape \(8, 5\), expected square"),
        (lambda: aic(GOOD, 7), ValueError, "snapshots: got 7, expected as many as sensors"),
        (lambda: mdl(GOOD, 0), ValueError, "snapshots: got 0"),
        (lambda: music(GOOD, 1, uniform_linear(7)), ValueError, "array: got 7 sensors"),
        (lambda: music(GOOD, 1, grid=DOA), ValueError, r"grid: got shape \(2,\), expected"),
        (lambda: esprit(GOOD, 1, spacing=0.0), ValueError, "spacing: got 0"),
        (lambda: esprit(GOOD, 1, weights=torch.ones(8)), ValueError, "weights: got shape"),
        (lambda: maximum_likelihood(GOOD, 1, steps=0), ValueError, "steps: got 0"),
        (lambda: sample_covariance(THREE.real), TypeError, "x: got torch.float64"),
        (lambda: sample_covariance(THREE[:, :0]), ValueError, "x: got shape"),
        (lambda: sample_covariance(NAN), ValueError, "x: got NaN"),
        (lambda: smoothed(GOOD, 9), ValueError, "size: got 9, expected a whole number, 2 to n = 8"),
        (lambda: steering(torch.tensor([30.0]), LINE), ValueError, "doa: got angles up to 30"),
        (lambda: steering(DOA * torch.nan, LINE), ValueError, "doa: got angles up to nan"),
        (lambda: steering([0.1], LINE), TypeError, "doa: got list"),
        (lambda: stochastic_bound(DOA, torch.eye(3), 9, LINE), ValueError, "2 angles and 3"),
        (lambda: deterministic_bound(DOA, THREE[:2], uniform_linear(2)), ValueError, "< 2"),
        (lambda: stochastic_bound(DOA, torch.eye(2), 0, LINE), ValueError, "snapshots: got 0"),
        (lambda: rmspe(DOA, DOA[:1]), ValueError, "doa_hat: got shape"),
        (lambda: rmspe(DOA * torch.nan, DOA), ValueError, "doa_hat: got NaN"),
        (lambda: draw(12), ValueError, "12 sources so far apart do not fit"),
        (lambda: draw(0), ValueError, "sources: got 0"),
        (lambda: uniform_linear(2.5), ValueError, "sensors: got 2.5"),
        (lambda: uniform_linear(3, -1.0), ValueError, "spacing: got -1"),
        (lambda: mixing(2, 10.0, 1.5), ValueError, "coherence: got 1.5"),
        (lambda: mixing(2, [1.0, 2.0, 3.0]), ValueError, "snr_db: got"),
        (lambda: coloured(THREE, 1.0), ValueError, "pole: got 1"),
        (lambda: disturbed(LINE, torch.zeros(8, 3)), ValueError, "noise: got shape"),
        (lambda: directions(LINE, 0), ValueError, "points: got 0"),
    ],
)  # fmt: skip
def test_bad_input_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call()
