import math
from itertools import islice, repeat

import cvxpy
import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from mbdl_course.datasets import photograph
from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.lowrank import (
    CORONA,
    Both,
    MovieCNN,
    Parts,
    casorati,
    convolved,
    fista,
    frames_of,
    ista,
    lipschitz,
    observed,
    projection_db,
    robust_pca,
    street,
    svd_filter,
    ultrasound,
    white,
)
from mbdl_course.networks import parameters
from mbdl_course.weights import lowrank as recipes

REAL, COMPLEX = torch.float64, torch.complex128


def blur(kernel, size):
    """The periodic convolution of size x size pictures with a kernel, as a matrix."""
    unit = torch.eye(size**2, dtype=kernel.dtype)
    return convolved(as_parts(kernel)[None, None], [unit], size)[0]


def as_parts(kernel):
    return torch.stack([kernel.real, kernel.imag]) if kernel.is_complex() else kernel[None]


def small(dtype=COMPLEX, count=2, size=6, frames=5, H=None, seed=0):
    g = seeded(seed)
    p = ultrasound(count, g, size, frames, dtype=COMPLEX)
    noise = white(count, g, size, frames, dtype=COMPLEX)
    p, noise = (p, noise) if dtype.is_complex else (Parts(p.S.real, p.L.real), noise.real)
    return observed(p, noise, 3.0, 15.0, H)


def pair(size=6, dtype=COMPLEX):
    return None, blur(torch.randn(3, 3, generator=seeded(9), dtype=dtype) / 3, size)


# ---- The problem -----------------------------------------------------------------------------


def test_levels_are_what_they_say():
    g = seeded(0)
    p, noise = ultrasound(400, g, dtype=COMPLEX), white(400, g, dtype=COMPLEX)
    x, q = observed(p, noise, clutter_db=7.0, snr_db=13.0)
    power = q.L.abs().square().mean().item()
    assert abs(10 * math.log10(power) - 7) < 0.3
    assert abs(10 * math.log10((x - q.L - q.S).abs().square().mean().item()) + 13) < 0.05
    one = ultrasound(200, g, density=1.0, dtype=COMPLEX).S.abs().amax((-2, -1))
    assert one.max() <= 1 and one.median() > 0.9  # the centre of a bubble, or nearly
    assert torch.equal(observed(p, noise)[0], p.L + p.S)


def test_the_same_draw_at_every_level():
    quiet, loud = (observed(ultrasound(3, seeded(4)), white(3, seeded(5)), c, 20)[1]
                   for c in (0, 10))  # fmt: skip
    assert torch.equal(quiet.S, loud.S)
    torch.testing.assert_close(quiet.L * 10**0.5, loud.L)


def test_tissue_has_a_low_rank_and_bubbles_have_not():
    p = ultrasound(50, seeded(0), dtype=COMPLEX)
    bubbles, tissue = map(torch.linalg.svdvals, p)

    def beyond_two(sigma):
        return (sigma[:, 2:].square().sum() / sigma.square().sum()).item()

    assert beyond_two(tissue) < 1e-3 < 0.2 < beyond_two(bubbles)
    still = ultrasound(5, seeded(0), motion=0.0, dtype=COMPLEX).L
    assert torch.linalg.svdvals(still)[:, 1].max() < 1e-10


def test_a_larger_picture_holds_as_many_bubbles_per_area():
    def energy(size):
        S = ultrasound(100, seeded(0), size, speed=0.1, dtype=COMPLEX).S
        return S.abs().square().mean()

    assert 0.6 < energy(32) / energy(16) < 1.7


def test_the_street_is_exact_real_and_sparse():
    photo = photograph("camera")
    p = street(40, photo, seeded(0), dtype=REAL)
    scene = p.S + p.L
    assert scene.min() >= 0 and scene.max() <= 1
    assert (p.S == 0).double().mean() > 0.7
    still = street(3, photo, seeded(0), drift=0.0, dtype=REAL).L
    assert torch.linalg.svdvals(still)[:, 1].max() < 1e-10
    frame = frames_of(still, 16)[0, 0]
    whole = photo.unfold(0, 2, 1)  # a still crop between pixels is a mean of its neighbours
    assert whole.min() - 1e-9 <= frame.min() and frame.max() <= whole.max() + 1e-9
    with pytest.raises(ValueError, match="photo: got 10 x 512"):
        street(1, photo[:10], seeded(0))


def test_a_movie_and_its_matrix():
    movie = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert casorati(movie).shape == (2, 20, 3)
    assert torch.equal(frames_of(casorati(movie), 4), movie)
    assert casorati(movie)[0, 7, 2] == movie[0, 2, 1, 2]


def test_a_projection_is_the_largest_value_over_the_frames():
    movie = torch.zeros(2, 3, 4, 5, dtype=COMPLEX)
    movie[0, 1, 2, 3], movie[0, 2, 2, 3], movie[0, 0, 0, 0] = 2j, -1, 0.2
    first, dark = projection_db(casorati(movie), 4)
    assert first[2, 3] == 0 and abs(first[0, 0] + 20) < 1e-12 and first[1, 1] == -60
    assert (dark == -60).all()


# ---- The algorithm ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("blurred", [False, True])
def test_limit_is_cvxpys_separation(dtype, blurred):
    H = pair(3, dtype) if blurred else None
    x, _ = small(dtype, count=1, size=3, frames=4, H=H)
    rho_S, rho_L, X = 0.3, 0.7, x[0].numpy()
    kind = {"complex": dtype.is_complex}
    S, L = cvxpy.Variable((9, 4), **kind), cvxpy.Variable((9, 4), **kind)
    H2 = H[1].numpy() if blurred else np.eye(9)
    cost = (cvxpy.sum_squares(X - L - H2 @ S) / 2 + rho_L * cvxpy.normNuc(L)
            + rho_S * cvxpy.sum(cvxpy.norm(S, 2, axis=1)))  # fmt: skip
    best = cvxpy.Problem(cvxpy.Minimize(cost)).solve(
        solver=cvxpy.CLARABEL, tol_gap_rel=1e-7, tol_gap_abs=1e-7, tol_feas=1e-7
    )
    mu = 1 / lipschitz(H).item()
    for algorithm, steps in ((ista, 6000), (fista, 2000)):
        state = last(algorithm(x, H, repeat((mu, rho_S, rho_L), steps)))
        ours = robust_pca(Parts(*state[:2]), x, H, rho_S, rho_L).item()
        assert abs(ours / best - 1) < 1e-5


@pytest.mark.parametrize("blurred", [False, True])
def test_ista_never_increases_the_objective_at_the_safe_step(blurred):
    H = pair() if blurred else None
    x, _ = small(H=H)
    states = islice(ista(x, H, repeat((1 / lipschitz(H).item(), 0.2, 0.5))), 60)
    values = [robust_pca(state, x, H, 0.2, 0.5) for state in states]
    assert all((b <= a + 1e-12).all() for a, b in zip(values, values[1:], strict=False))


def test_lipschitz_is_the_norm_of_the_pair():
    assert lipschitz(None) == lipschitz((None, None)) == 2
    H = pair()
    both = torch.cat([torch.eye(36, dtype=COMPLEX), H[1]], -1)
    torch.testing.assert_close(lipschitz(H), torch.linalg.eigvalsh(both.mH @ both)[-1])


def test_fista_needs_fewer_steps():
    x, _ = small()
    theta, many = (0.5, 0.1, 0.3), 4000
    best = robust_pca(Parts(*last(fista(x, None, repeat(theta, many)))[:2]), x, None, *theta[1:])
    slow, fast = (robust_pca(Parts(*last(f(x, None, repeat(theta, 60)))[:2]), x, None, *theta[1:])
                  for f in (ista, fista))  # fmt: skip
    assert (fast - best < slow - best).all()


def test_the_svd_filter_removes_the_best_approximation():
    x, _ = small()
    for rank in range(6):
        parts = svd_filter(x, rank)
        torch.testing.assert_close(parts.S + parts.L, x)
        assert (torch.linalg.matrix_rank(parts.L) == rank).all()
        left = torch.linalg.svdvals(x)[:, rank:].square().sum(-1)
        torch.testing.assert_close(parts.S.abs().square().sum((-2, -1)), left)
    with pytest.raises(ValueError, match="rank: got 6, expected 0 to 5"):
        svd_filter(x, 6)


@pytest.mark.parametrize("algorithm", [ista, fista])
@pytest.mark.parametrize("blurred", [False, True])
def test_a_batch_of_one_is_a_slice_and_inputs_are_left_alone(algorithm, blurred):
    H = pair() if blurred else None
    x, _ = small(H=H)
    kept = x.clone()
    whole = last(algorithm(x, H, repeat((0.1, 0.1, 0.2), 20)))
    one = last(algorithm(x[1], H, repeat((0.1, 0.1, 0.2), 20)))
    for a, b in zip(whole[:2], one[:2], strict=True):
        torch.testing.assert_close(a[1], b, atol=1e-12, rtol=0)
    assert torch.equal(x, kept)
    half = None if H is None else (None, H[1].to(torch.complex64))
    single = last(algorithm(x.to(torch.complex64), half, repeat((0.1, 0.1, 0.2), 20)))
    assert single[0].dtype == torch.complex64
    torch.testing.assert_close(single[0], whole[0].to(torch.complex64), atol=1e-4, rtol=0)


def test_a_start_is_where_it_starts():
    x, p = small()
    states = list(ista(x, None, repeat((0.5, 0.1, 0.2), 3), start=p))
    assert torch.equal(states[0].S, p.S) and torch.equal(states[0].L, p.L)
    torch.testing.assert_close(
        last(ista(x, None, repeat((0.5, 0.1, 0.2), 2), start=states[1])).S, states[3].S
    )


@pytest.mark.parametrize("algorithm", [ista, fista])
def test_bad_input_is_refused_before_computing(algorithm):
    x, p = small()
    H, thetas = pair(), repeat((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="x: got shape"):
        algorithm(x[0, 0], None, thetas)
    with pytest.raises(TypeError, match="x: got torch.int64"):
        algorithm(torch.ones(4, 4, dtype=torch.int64), None, thetas)
    with pytest.raises(TypeError, match="x: got ndarray"):
        algorithm(x.numpy(), None, thetas)
    with pytest.raises(TypeError, match="H: got Tensor, expected None or a pair"):
        algorithm(x, H[1], thetas)
    with pytest.raises(ValueError, match="H2: got shape"):
        algorithm(x, (None, H[1][:5]), thetas)
    with pytest.raises(TypeError, match="H1: got torch.float64 on cpu"):
        algorithm(x, (torch.eye(36, dtype=REAL), None), thetas)
    with pytest.raises(ValueError, match="start.S: got shape"):
        algorithm(x, None, thetas, start=Parts(p.S[..., :2], p.L))
    with pytest.raises(ValueError, match="mu: got 0"):
        last(algorithm(x, None, repeat((0.0, 0.1, 0.1), 1)))
    broken = x.clone()
    broken[0, 3, 1] = math.nan
    with pytest.raises(ValueError, match="x: got NaN or Inf"):
        algorithm(broken, None, thetas)


# ---- Learned parts ------------------------------------------------------------------------------


def test_complex_convolution_is_scipys():
    g = seeded(2)
    kernels = torch.randn(2, 3, 2, 5, 5, generator=g, dtype=REAL)
    movies = [torch.randn(2, 48, 3, generator=g, dtype=COMPLEX) for _ in range(3)]
    ours = convolved(kernels, movies, 6)
    complex_kernels = torch.complex(kernels[:, :, 0], kernels[:, :, 1]).numpy()
    for out, kernel in zip(ours, complex_kernels, strict=True):
        for i in range(2):
            for t in range(3):
                expected = sum(
                    convolve2d(X[i, :, t].reshape(6, 8).numpy(), k, mode="same", boundary="wrap")
                    for X, k in zip(movies, kernel, strict=True)
                )
                np.testing.assert_allclose(out[i, :, t].reshape(6, 8).numpy(), expected, atol=1e-12)


def test_a_plus_for_the_minus_is_no_complex_convolution():
    """The slip of the published code: (ac + bd) + i(ad + bc) is not even the product of i and i."""
    kernel, movie = (torch.randn(n, n, generator=seeded(3), dtype=COMPLEX) for n in (3, 6))
    right = convolve2d(movie.numpy(), kernel.numpy(), mode="same", boundary="wrap")
    ours = convolved(as_parts(kernel)[None, None], [movie.reshape(36, 1)], 6)[0].reshape(6, 6)

    def real(a, b):
        return convolve2d(a.numpy(), b.numpy(), mode="same", boundary="wrap")

    a, b, c, d = movie.real, movie.imag, kernel.real, kernel.imag
    slip = real(a, c) + real(b, d) + 1j * (real(a, d) + real(b, c))
    assert np.abs(ours.numpy() - right).max() < 1e-12
    assert np.abs(slip - right).max() > 0.1


def test_real_movies_have_real_kernels():
    kernels = torch.randn(1, 2, 1, 3, 3, generator=seeded(2), dtype=REAL)
    movies = [torch.randn(36, 4, generator=seeded(i), dtype=REAL) for i in (4, 5)]
    (ours,) = convolved(kernels, movies, 6)
    padded = torch.cat([kernels, torch.zeros_like(kernels)], 2)
    (same,) = convolved(padded, [X.to(COMPLEX) for X in movies], 6)
    torch.testing.assert_close(ours, same.real)


def test_parameters_as_published_without_the_biases():
    widths = [5] * 3 + [3] * 7
    assert parameters(CORONA((0.5, 0.1, 0.2), 10, width=widths)) == 1796 - 10 * 12
    assert parameters(CORONA((0.5, 0.1, 0.2), 3)) == 942 - 3 * 12
    real = CORONA((0.5, 0.1, 0.2), 3, dtype=REAL)
    assert parameters(real) == 3 * (6 * 25 + 2)


def test_a_kernel_has_to_hold_the_model():
    psf = torch.ones(3, 3)
    for width in (3, 4):
        with pytest.raises(ValueError, match=f"width: got {width}, expected an odd number"):
            CORONA((0.5, 0.1, 0.2), 2, width=width, psf=psf)
    CORONA((0.5, 0.1, 0.2), 2, width=5, psf=psf)


def test_every_parameter_learns_from_the_loss_on_both_parts():
    x, p = small()
    network = CORONA((0.5, 0.02, 0.1), 3, 6, dtype=COMPLEX)
    both = Both(network)(x)
    assert both.shape == (2, 2, 36, 5) and torch.equal(both[:, 0], network(x))
    (both - torch.stack(tuple(p), 1)).abs().square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_black_box_maps_a_movie_to_a_movie(dtype):
    network = MovieCNN(5, 6, channels=4, dtype=dtype, generator=seeded(0))
    x = torch.randn(3, 36, 5, generator=seeded(1), dtype=dtype)
    y = network(x)
    assert y.shape == x.shape and y.dtype == dtype
    torch.testing.assert_close(network(x[1]), y[1])
    again = MovieCNN(5, 6, channels=4, dtype=dtype, generator=seeded(0))
    assert torch.equal(again(x), y)


@pytest.mark.parametrize("clutter_db", [0.0, 10.0, 20.0])
def test_live_training_separates_at_every_clutter(clutter_db):
    def draw(count, generator):
        return recipes.bubbles(count, generator, clutter_db)

    data, held_out = recipes.movies(100, 30, draw)
    *steps, p = recipes.live(3, data, held_out, 31, clutter_db, (80, 10))
    assert [q.step for q in (*steps, p)] == list(range(1, 91)) and p.steps == 90
    x, parts = draw(50, seeded(32))
    assert recipes.error_db(p.model.network, (x, parts.S)) < -3
