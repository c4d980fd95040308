"""Checks for the exercises: what is wrong is said in a sentence, never as a traceback.

An exercise's check takes the learner's answer (a number or a function), tries it on data the
learner has not seen, and returns a `Verdict`. To write one: a function of the answer that asserts
with a message for each mistake worth naming, decorated with `exercise`; see CONTRIBUTING.md.
"""

import functools
import html
import math
from itertools import islice, product, repeat
from typing import NamedTuple

import torch

from . import lowrank, mimo, smoothing, sparse, tracking
from .learn import seeded
from .prox import row_threshold, singular_value_threshold, soft_threshold


class Verdict(NamedTuple):
    """Whether an answer passed, and a sentence that says why or why not."""

    passed: bool
    message: str

    def _repr_html_(self):
        colour, sign = ("#00684A", "✓") if self.passed else ("#8A3B00", "✗")
        text = html.escape(self.message)
        return f'<p role="status" style="color:{colour};font-weight:600">{sign} {text}</p>'


def exercise(check):
    """Turn a function that asserts into a check that answers with a `Verdict`."""

    @functools.wraps(check)
    def verdict(answer):
        try:
            praise = check(answer)
        except AssertionError as wrong:
            return Verdict(False, str(wrong))
        except NotYet:
            return Verdict(False, "Not answered yet: replace the three dots.")
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            return Verdict(False, f"Your code stopped with {type(error).__name__}: {line}")
        return Verdict(True, praise)

    return verdict


class NotYet(Exception):
    """The starter's dots are still there."""


def given(answer):
    """The answer, once it is one: NotYet for the starter's dots or None."""
    if answer is ... or answer is None:
        raise NotYet
    return answer


def number(answer):
    """The answer as a finite number; a sentence if it is none."""
    try:
        value = float(given(answer))
        if not math.isfinite(value):
            raise ValueError
        return value
    except (TypeError, ValueError, RuntimeError):
        came = f"shape {tuple(answer.shape)}" if isinstance(answer, torch.Tensor) else repr(answer)
        raise AssertionError(f"Expected a number, got {came[:60]}.") from None


def tensor(answer, like):
    """The answer as a tensor shaped like another; a sentence if it is not."""
    given(answer)
    assert isinstance(answer, torch.Tensor), f"Expected a tensor, got {type(answer).__name__}."
    assert answer.shape == like.shape, (
        f"Expected the shape {tuple(like.shape)}, got {tuple(answer.shape)}."
    )
    return answer


def near(a, b, tolerance=1e-6):
    return bool((a - b).abs().max() <= tolerance)


def small_problem(seed=0):
    g = seeded(seed)
    H = sparse.gaussian_matrix(20, 40, g)
    s = sparse.sparse_signals(1, 40, g, sparsity=4)[0]
    return sparse.observed(s, H, torch.randn(20, 1, generator=g, dtype=torch.float64), 25.0), s, H


# ---- Chapter 3 ---------------------------------------------------------------------------------


@exercise
def divergence(answer):
    value = number(answer)
    assert value > 0, f"Expected a positive number, got {value:g}: at 0 nothing moves."
    assert value != 1.0, "1/L is the step that is always safe; ISTA still converges a bit beyond."
    assert not 0.2 < value < 0.5, "That looks like μ itself; the slider is μ times L."
    assert abs(value - 2.0) <= 0.11, (
        f"At {value:g} {'it still converges' if value < 2 else 'it has long diverged'}: "
        "watch what the gradient step does to the error along the top singular vector."
    )
    return "The error along the top singular vector is multiplied by 1 − μL: beyond 2 it grows."


@exercise
def complex_threshold(answer):
    v = torch.randn(50, 2, generator=seeded(1), dtype=torch.float64)
    v = torch.view_as_complex(v)
    got = tensor(answer(v.clone(), 0.7), v)
    assert got.is_complex(), "The result should be complex again: the phase has to stay."
    assert got.isfinite().all() and answer(v * 0, 0.7).isfinite().all(), (
        "There are NaN or Inf: what happens at v = 0?"
    )
    small = v.abs() <= 0.7
    assert near(got[small].abs(), torch.zeros(1)), "Entries with |v| ≤ β should become zero."
    assert near(got[~small].abs(), v[~small].abs() - 0.7), (
        "Where |v| > β the magnitude should shrink by exactly β (real and imaginary part together, "
        "not each for itself)."
    )
    assert near(got[~small].angle(), v[~small].angle()), "The phase has changed."
    return "Magnitude shrunk, phase kept; for real numbers this is the soft threshold."


@exercise
def elastic_net(answer):
    x, s, H = small_problem()
    mu, rho, gamma = 0.2, 0.1, 0.8
    got = tensor(answer(s, x, H, mu, rho, gamma), s)
    v = s + mu * H.mT @ (x - H @ s)
    right = soft_threshold(v, mu * rho) / (1 + mu * gamma)
    assert not near(got, soft_threshold(v, mu * rho)), "That is ISTA: γ is not used."
    assert not near(got, soft_threshold(v, mu * rho) / (1 + gamma)), (
        "Nearly: the scaling belongs to the step, as the threshold does. Use μγ, not γ."
    )
    assert not near(got, soft_threshold(v / (1 + mu * gamma), mu * rho)), (
        "Nearly: when v is divided by 1 + μγ, the threshold has to be, too."
    )
    assert not near(got, soft_threshold(v, rho) / (1 + mu * gamma)), "The threshold is μρ, not ρ."
    assert near(got, right), "Minimise μρ|z| + μγ z²/2 + (z − v)²/2 over one number z and compare."
    return "Shrink, then scale: its step has the zeros of ISTA's step."


@exercise
def certificate(answer):
    x, _, H = small_problem()
    mu, rho = 1 / sparse.lipschitz(H).item(), 0.05
    *_, state = islice(sparse.fista(x, H, repeat((mu, rho))), 5000)
    best = state.s
    verdict = given(answer(best, x, H, rho, 1e-6))
    assert isinstance(verdict, bool) or getattr(verdict, "ndim", 1) == 0, (
        "Return True or False, one for all entries together."
    )
    assert answer(best, x, H, rho, 1e-6), "The true LASSO solution is refused."
    assert not answer(torch.zeros_like(best), x, H, rho, 1e-6), (
        "Zero is accepted here, but some |hᵢᵀ(x − Hŝ)| exceed ρ: check the entries off the support."
    )
    assert not answer(best * 1.05, x, H, rho, 1e-6), (
        "The solution times 1.05 is accepted: on the support the correlation must equal ρ sign(ŝ)."
    )
    one = best.abs().argmax()
    flipped = best.clone()
    flipped[one] = -flipped[one]
    assert not answer(flipped, x, H, rho, 1e-6), "A flipped sign is accepted."
    *_, early = islice(sparse.ista(x, H, repeat((mu, rho))), 20)
    assert not answer(early, x, H, rho, 1e-6), "ISTA's 20th iterate is accepted; not there yet."
    assert answer(early, x, H, rho, 10.0), "This one is within a tolerance of 10."
    one, column = torch.ones(1, 1, dtype=H.dtype), 0.05 * torch.ones(1, 1, dtype=H.dtype)
    assert not answer(-one, column - one, one, rho, 1e-6), (
        "The correlation has the right size and the wrong sign, and it is accepted."
    )
    wide, s_hat = torch.eye(50, dtype=H.dtype), torch.zeros(50, 1, dtype=H.dtype)
    x_off = torch.zeros(50, 1, dtype=H.dtype)
    x_off[7] = -0.06
    assert not answer(s_hat, x_off, wide, rho, 1e-6), (
        "One entry of fifty breaks its condition, with a negative correlation, and it is accepted."
    )
    return "A solution that can be checked without knowing the right one: that is convexity."


@exercise
def useless_rho(answer):
    x, _, H = small_problem(1)
    value = number(answer(x, H))
    right = (H.mT @ x).abs().max().item()
    assert abs(value - (H.mT @ x).max().item()) > 1e-9 or abs(value - right) < 1e-9, (
        "Take magnitudes: a large negative correlation counts as well."
    )
    assert abs(number(answer(-x, H)) - value) < 1e-9, "For −x the answer should be the same."
    assert abs(value - (H.mT @ x).abs().sum().item()) > 1e-9, "Take the largest, not the sum."
    assert abs(value - right) < 1e-9, f"With ρ = {value:.4f} on a test problem " + (
        "ŝ is still not zero." if value < right else "it is not the smallest: ŝ = 0 before."
    )
    return "‖Hᵀx‖∞: the top of every useful grid of ρ."


# ---- Chapter 0 ---------------------------------------------------------------------------------


@exercise
def first(answer):
    value = number(answer)
    assert value != 4, "That is where the model-based method stands; look at the black box."
    assert value in (1, 2, 3, 4, 5), "Expected 1 to 5, the position in the list of strategies."
    assert value == 5, "Another strategy learns more numbers: read the figure's axis."
    return "The black box learns most and knows least. So every check of the course answers."


# ---- Chapter 4 ---------------------------------------------------------------------------------


@exercise
def count_shared_lista(answer):
    value = number(answer)
    assert value != 6 * (150 * 200 + 200**2 + 1), (
        "That is LISTA with matrices of its own in every layer; here the layers share them."
    )
    assert value != 150 * 200 + 200**2, "The thresholds are missing: one in each layer."
    assert value != 150 * 200 + 200**2 + 1, "The threshold is not shared: each layer has its own."
    assert value != 150 * 200 + 150**2 + 6, "W2 maps s to s: it is m × m."
    assert value == 150 * 200 + 200**2 + 6, (
        f"Not {value:,.0f}. W1 is m × n, W2 is m × m, and there are six thresholds."
    )
    return "nm + m² for the matrices and one threshold a layer."


@exercise
def coupled(answer):
    x, s, H = small_problem(2)
    move = given(answer)(x, H)
    given(move(s, H.mT, 0.1))
    B = torch.randn(40, 20, generator=seeded(9), dtype=torch.float64)
    pair = move(s, B, 0.3)
    assert isinstance(pair, tuple) and len(pair) == 2, "The part should return two things, v and β."
    v, beta = tensor(pair[0], s), pair[1]
    assert float(beta) == 0.3, "β is handed on as it came."
    assert not near(v, s + H.mT @ (x - H @ s)), "That is ISTA's own direction: B is not used."
    assert not near(v, B @ x + s), "That ignores what Hs already explains: B works on x − Hs."
    assert not near(v, s - B @ (x - H @ s)), "The sign: move along +B(x − Hs)."
    assert near(v, s + B @ (x - H @ s)), "v should be s + B(x − Hs)."
    mu, rho = 1 / sparse.lipschitz(H).item(), 0.05
    learned = sparse.ista(x, H, repeat((mu * H.mT, mu * rho), 5), part=answer)
    for a, b in zip(learned, sparse.ista(x, H, repeat((mu, rho), 5)), strict=True):
        assert near(a, b, 1e-12), "Filled with B = μHᵀ, β = μρ it is not ISTA."
    return "One matrix a layer instead of two, and the filling law holds in all states."


@exercise
def fair_baseline(answer):
    table = {
        "train": {0.1: -10.0, 0.2: -12.0, 0.3: -11.0},
        "test": {0.1: -9.0, 0.2: -10.5, 0.3: -13},
    }
    seen = []

    def error(rho, data):
        seen.append((rho, data))
        return table[data][rho]

    value = number(answer(error, [0.1, 0.2, 0.3], "train", "test"))
    assert value != -13, "That ρ was chosen on the test data: this flatters."
    assert value != -12, "That is the error on the training data. What would you publish?"
    assert value != 0.2, "Return the figure in dB, not the ρ."
    assert value == -10.5, f"Expected one figure on the test data, got {value:g} dB."
    assert sum(data == "test" for _, data in seen) == 1, "The test data should be looked at once."
    return "Chosen on the training data, reported on the test data, looked at once."


@exercise
def early_stopping(answer):
    cases = [
        ([5, 4, 3, 2, 1], 2, 4, "an error that always falls: keep the last epoch"),
        ([3, 1, 2, 2, 0], 2, 1, "two epochs without improvement: stop, and never see the later 0"),
        ([3, 1, 2, 0, 1], 2, 3, "one bad epoch is not two: go on"),
        ([2, 2, 2, 1], 2, 0, "an equal value is no improvement"),
        ([1, 5, 0.5, 5, 0.1], 2, 4, "the count starts again with each improvement"),
    ]
    for values, patience, right, why in cases:
        got = number(answer(list(values), patience))
        assert got == right, f"{values}, patience {patience}: {why}; got {got:g}, not {right}."
    return "The best epoch before patience ran out, as `training` does with `Stage.patience`."


@exercise
def black_box_wins(answer):
    from . import weights

    value = number(answer)
    x, s = weights.test_set("matrices")
    H, mu = weights.noisy()[0], 1 / sparse.lipschitz(weights.noisy()[0]).item()
    fit = weights.training_set(weights.noisy()[1], 1000, seed=4000)[0]

    def ista_db(theta, data):
        *_, s_hat = sparse.ista(data[0], H, repeat(theta, 6))
        return weights.nmse_db(lambda _: s_hat, data)

    grid = product((mu, 1.5 * mu, 1.9 * mu, 2.5 * mu, 3 * mu), (0.02, 0.05, 0.1, 0.2, 0.3))
    tuned = ista_db(min(grid, key=lambda theta: ista_db(theta, fit)), (x, s))
    networks = weights.shipped("matrices")
    errors = {n: weights.nmse_db(networks[f"mlp_n{n}"], (x, s)) for n in weights.SIZES}
    right = next((n for n, error in errors.items() if error < tuned), 0)
    assert value in (0, *weights.SIZES), f"Expected 0 or one of {weights.SIZES}, got {value:g}."
    assert value == right, (
        f"With {value:,.0f} signals the black box has {errors[value]:.1f} dB, ISTA {tuned:.1f} dB."
        if value
        else f"It does: with {right:,} signals, {errors[right]:.1f} against {tuned:.1f} dB."
    )  # fmt: skip
    return (
        f"Tuned ISTA has {tuned:.1f} dB after six steps; it needs to see no signal but for its ρ."
    )


# ---- Chapter 5 ---------------------------------------------------------------------------------


@exercise
def count_cpss(answer):
    value = number(answer)
    assert value != 16 * (250 * 500 + 500**2 + 1), "That is LISTA: here W2 is built in."
    assert value != 250 * 500 + 16, "That is one matrix for all layers; each has its own."
    assert value != 16 * 250 * 500, "The thresholds are missing: one in each layer."
    assert value != 16 * 2, "That is ALISTA, whose matrix is computed."
    assert value == 16 * (250 * 500 + 1), f"Not {value:,.0f}. W1 is m × n; there is a threshold."
    return "Two million numbers, for what ALISTA does with 32."


@exercise
def analytic(answer):
    _, _, H = small_problem(3)
    B = tensor(answer(H.clone()), H)
    right = sparse.analytic_weights(H)
    assert B.isfinite().all(), "There are NaN or Inf."
    diagonal = (B * H).sum(0)
    assert not near(B, H), "That is H itself: right on the diagonal, but the disturbance is large."
    assert not near(B * right.norm(dim=0) / B.norm(dim=0), right, 1e-9) or near(
        diagonal, torch.ones_like(diagonal)
    ), "The direction is right. Scale each column so that b_jᵀh_j = 1."
    assert near(diagonal, torch.ones_like(diagonal)), (
        f"b_jᵀh_j should be 1 for each column; here it is {diagonal.min():.2f} to "
        f"{diagonal.max():.2f}."
    )
    energy, least = (((M.mT @ H) ** 2).sum().item() for M in (B, right))
    assert near(B, right, 1e-8), f"The energy Σ(bᵢᵀhⱼ)² is {energy:.1f}; {least:.1f} is possible."
    other = small_problem(4)[2][:, :30]
    assert near(answer(other), sparse.analytic_weights(other), 1e-8), "It fails for another H."
    return "The pseudo-inverse, transposed, with its columns scaled: that is all of ALISTA's B."


@exercise
def firm(answer):
    v = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None] + 0.01
    low, high = 0.7, 1.6
    got = tensor(answer(v.clone(), low, high), v)
    assert got.isfinite().all(), "There are NaN or Inf."
    size = v.abs()
    assert near(got[size >= high], v[size >= high]), "From `high` on v should pass unchanged."
    assert near(got[size <= low], torch.zeros(1)), "Up to `low` it should be zero."
    between = (size > low) & (size < high)
    assert not near(got[between], soft_threshold(v, low)[between]), (
        "Between, that is the soft threshold: it arrives at high − low, and then jumps."
    )
    right = v.sign() * high * (size - low) / (high - low)
    assert not near(got[between], right.abs()[between]), "The sign of v is lost."
    assert near(got[between], right[between]), (
        "Between, it should rise linearly from 0 at `low` to `high` at `high`."
    )
    many = torch.stack([v, 2 * v])
    each = torch.stack([answer(one.clone(), low, high) for one in many])
    assert near(tensor(answer(many.clone(), low, high), many), each), "A batch should work as well."
    ends = [torch.tensor(value, dtype=v.dtype, requires_grad=True) for value in (low, high)]
    loss = answer(v.clone(), *ends).square().sum()
    assert loss.requires_grad, "There is no gradient in low and high: let them stay tensors."
    slopes = torch.autograd.grad(loss, ends, allow_unused=True)
    assert all(g is not None and g != 0 for g in slopes), "low or high gets no gradient."
    return "No jump, no bias on large entries, a gradient in both of its thresholds."


@exercise
def rate(answer):
    factor = 0.6
    exact = [20 * math.log10(factor) * k - 3 for k in range(12)]
    value = number(answer(list(exact)))
    assert abs(value - factor**2) > 1e-6, "That is the factor of the square: use 20, not 10."
    assert abs(value - 20 * math.log10(factor)) > 1e-6, "That is the slope in dB; a factor, please."
    assert abs(value - 1 / factor) > 1e-6, "The error falls: the factor is below 1."
    assert abs(value - factor) < 1e-6, f"The error falls by {factor} in each layer; got {value:g}."
    bent = [0.0, -1.0, -9.0, -12.0, -12.5]
    k = torch.arange(5, dtype=torch.float64) - 2
    fit = 10 ** ((k * torch.tensor(bent, dtype=torch.float64)).sum().item() / 10 / 20)
    value = number(answer(list(bent)))
    assert abs(value - 10 ** (-12.5 / 4 / 20)) > 1e-6, (
        "The ends alone depend on two values: fit a line through all of them."
    )
    assert abs(value - fit) < 1e-6, f"For a bent curve the fitted line gives {fit:.4f}."
    return "Twenty decibels are a factor of ten in the error."


@exercise
def noise_levels(answer):
    from . import weights
    from .weights import unrolling

    value, levels = number(answer), (60, 50, 40, 30, 20, 10)
    assert value in levels, f"Expected one of {levels}, got {value:g}."
    networks = weights.shipped("lista_minute"), weights.shipped("family_100")["alista_ss"]
    gain = {}
    for level in levels:
        data = unrolling.drawn(networks[0].H, level)(1000, seeded(5060))
        lista, alista = (weights.nmse_db(network, data) for network in networks)
        gain[level] = lista - alista
    right = next(level for level in levels if gain[level] < 3)
    more = "go on lowering" if value > right else f"but at {right} dB it was below 3 dB already"
    assert value == right, (
        f"At {value:.0f} dB it is {gain[value]:.1f} dB better than LISTA; {more}."
    )
    return f"{gain[right]:.1f} dB at {right} dB: noise, not the network, is now the limit."


# ---- Chapter 6 ---------------------------------------------------------------------------------


@exercise
def count_real_corona(answer):
    value = number(answer)
    assert value != 4 * (6 * 2 * 49 + 2), "That is for complex movies; here the kernels are real."
    assert value != 4 * 6 * 49, "The thresholds are missing: two in each layer."
    assert value != 6 * 49 + 2, "That is one layer."
    assert value != 4 * (6 * 49 + 2) * 12, "A kernel works on single frames: it is 7 × 7 × 1."
    assert value == 4 * (6 * 49 + 2), (
        f"Not {value:,.0f}. A layer has six kernels of 7 × 7 real numbers and two thresholds."
    )
    return "4 (6 · 49 + 2): the size of the picture and the number of frames do not matter."


@exercise
def rows_kept(answer):
    V = torch.randn(6, 4, generator=seeded(11), dtype=torch.complex128)
    got = tensor(answer(V.clone(), 2.0), V)
    right = row_threshold(V, 2.0)
    magnitude = V.abs()
    single = V * (1 - 2.0 / magnitude).clamp(min=0)
    column = torch.linalg.vector_norm(V, dim=-2, keepdim=True)
    assert not near(got, single), "That shrinks each entry for itself; a row shrinks as a whole."
    assert not near(got, V * (1 - 2.0 / column).clamp(min=0)), (
        "Those are the columns, frames: a pixel is a row, its norm is over the last dimension."
    )
    assert got.isfinite().all() and answer(0 * V, 2.0).isfinite().all(), (
        "There are NaN or Inf: what happens where a row is zero?"
    )
    small = torch.linalg.vector_norm(V, dim=-1) <= 2.0
    assert near(got[small].abs(), torch.zeros(1)), "Rows with a norm of at most β become zero."
    assert near(got, right), "A row that is kept is multiplied by 1 − β/‖row‖₂."
    assert near(answer(V.clone(), 3.0), row_threshold(V, 3.0)), "With β = 3 it is not the prox."
    stack = torch.stack([V, 2 * V])
    assert near(answer(stack, 2.0), row_threshold(stack, 2.0)), "It fails on a batch of movies."
    return "A pixel is kept with its phases, or dropped for all frames."


@exercise
def gram_threshold(answer):
    V = torch.randn(30, 5, generator=seeded(12), dtype=torch.complex128)
    got = tensor(answer(V.clone(), 5.0), V)
    U, sigma, Wh = torch.linalg.svd(V, full_matrices=False)
    square = (U * sigma * (1 - 5 / sigma.square()).clamp(min=0)) @ Wh
    assert not near(got, square), "The eigenvalues of VᴴV are σ², the threshold is for σ."
    hard = (U * sigma * (sigma > 5)) @ Wh
    assert not near(got, hard), "That keeps or drops: soft thresholding takes β off every σ."
    right = singular_value_threshold(V, 5.0)
    assert near(singular_value_threshold(V.real, 5.0), answer(V.real.clone(), 5.0)) or near(
        got, right
    ), "Already for real V it is not the prox of the nuclear norm: V f(VᵀV), f(σ²) = 1 − β/σ."
    assert near(got, right), "For real V it is right. For complex V, is it Vᴴ, and Wᴴ, everywhere?"
    assert near(answer(V, 100.0), 0 * V), "Where β is above all singular values nothing is left."
    for k in range(10):  # two singular values, three that are zero up to rounding
        low = V[:, :2] @ V[k : k + 2]
        assert near(answer(low, 5.0), singular_value_threshold(low, 5.0)), (
            "It fails where singular values are zero: rounding makes σ² a little negative."
        )
    return "A 5 × 5 eigenproblem instead of the decomposition of a 30 × 5 matrix."


@exercise
def blurred_part(answer):
    g = seeded(13)
    x, S, L = (torch.randn(9, 4, generator=g, dtype=torch.complex128) for _ in range(3))
    H2 = torch.randn(9, 9, generator=g, dtype=torch.complex128)
    H = lowrank.operators((None, H2))
    got = given(answer)(x, H)
    got = given(got(S, L, 0.3, 0.1, 0.2))
    four = isinstance(got, (tuple, list)) and len(got) == 4
    assert four, "Return four things: V_S, β_S, V_L, β_L."
    V_S, beta_S, V_L, beta_L = got
    right = lowrank.gradient(x, H)(S, L, 0.3, 0.1, 0.2)
    residual = x - L - H2 @ S
    assert abs(beta_S - 0.03) < 1e-12 and abs(beta_L - 0.06) < 1e-12, "β = μρ, for each part its ρ."
    tensor(V_S, S), tensor(V_L, L)
    assert not near(V_S, S + 0.3 * H2.mT @ residual), "H2 is complex: its adjoint is H2.mH."
    assert not near(V_S, S + 0.3 * residual), "V_S has to go back through H2."
    assert not near(V_S, S - 0.3 * H2.mH @ residual), "The sign: move along +H2ᴴR."
    assert not near(V_S, S + 0.3 * H2.mH @ (x - L + H2 @ S)), (
        "R = X − L − H2 S: both parts are taken off. (The printed objective has this slip.)"
    )
    assert near(V_S, right[0]), "V_S should be S + μ H2ᴴ R with R = X − L − H2 S."
    assert near(V_L, right[2]), "V_L should be L + μ R, with the same R."
    return "Both parts see the same residual; each goes back through its own adjoint."


@exercise
def svd_filter_wins(answer):
    from .weights import lowrank as recipes

    value = number(answer)
    steps = (0.0, 0.1, 0.3, 0.8, 1.0)
    assert value in (-1, *steps), f"Expected -1 or one of {steps}, got {value:g}."
    theta, filtered, iterated = (0.5, 0.1, 0.5), {}, {}
    for motion in steps:
        x, parts = recipes.bubbles(20, seeded(14), motion=motion)
        *_, state = islice(lowrank.fista(x, None, repeat(theta)), 61)
        filtered[motion] = lowrank.separation_db(lowrank.svd_filter(x, 1).S, parts.S).item()
        iterated[motion] = lowrank.separation_db(state.S, parts.S).item()
    right = next((m for m in steps if iterated[m] < filtered[m]), -1)
    assert value == right, (
        f"At {value:g}: SVD filter {filtered[value]:.1f} dB, FISTA {iterated[value]:.1f} dB."
        if value in filtered
        else f"It is: at {right:g}, {iterated[right]:.1f} against {filtered[right]:.1f} dB."
    )
    return (
        f"At {right:g} pixels: rank one {filtered[right]:.1f} dB, FISTA {iterated[right]:.1f} dB. "
        "Tissue that moves has more than one singular value, and FISTA need not be told how many."
    )


# ---- Chapter 9 ---------------------------------------------------------------------------------


def small_tracking(seed=20):
    """A random stable Model of two states and one observation, observations of it, a start."""
    g = seeded(seed)
    A = torch.randn(2, 2, generator=g, dtype=torch.float64)
    F = torch.tensor([[0.9, 0.3], [-0.2, 0.8]], dtype=torch.float64)
    H = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    Q = A @ A.mT + 0.1 * torch.eye(2, dtype=torch.float64)
    model = tracking.Model(F, H, Q, torch.full((1, 1), 0.7, dtype=torch.float64))
    s0 = torch.randn(2, 1, generator=g, dtype=torch.float64)
    start = tracking.Belief(s0, 2 * torch.eye(2, dtype=torch.float64))
    x, _ = tracking.simulated(model, start, tracking.white(40, 30, model, g))
    return x, model, start


def pair(answer, s, Sigma):
    """The answer as (s, Sigma), alike in shape; a sentence if it is not."""
    given(answer)
    assert isinstance(answer, (tuple, list)) and len(answer) == 2, "Return two things: ŝ and Σ."
    return tensor(given(answer[0]), s), tensor(given(answer[1]), Sigma)


@exercise
def walk_gain(answer):
    value = number(answer)
    golden = (5**0.5 - 1) / 2
    assert not 1.6 < value < 1.63, "That is Σ⁻; the gain is Σ⁻/(Σ⁻ + R)."
    assert value != 0.5, "That is the first gain after a known start; Σ⁻ goes on growing."
    assert 0 < value < 1, f"A gain of a random walk lies between 0 and 1, not at {value:g}."
    assert abs(value - golden) < 2e-3, (
        f"Not {value:g}: solve Σ⁻ = Σ⁻/(Σ⁻ + 1) + 1, then K = Σ⁻/(Σ⁻ + 1)."
    )
    return "0.618: the golden ratio less one. At equal noises the newest observation weighs more."


@exercise
def kalman_step(answer):
    x, model, start = small_tracking()
    F, H, Q, R = model
    s, Sigma = start.s, start.Sigma
    _, right, *_ = tracking.filtered(x[:, 0], model, tracking.riccati(model), start)
    got_s, got_Sigma = pair(answer(s.clone(), Sigma.clone(), x[0, 0], *model), s, Sigma)
    K = right.gain.K
    assert not near(got_s, F @ s) and not near(got_s, F @ s - K @ (x[0, 0] - H @ F @ s)), (
        "The innovation x − H F ŝ should be added, times the gain."
    )
    C = Sigma @ H.mT
    K0 = C / (H @ C + R)
    assert not near(got_s, s + K0 @ (x[0, 0] - H @ s)), "Nothing is predicted: first F ŝ and Σ⁻."
    assert not near(got_s, F @ (s + K0 @ (x[0, 0] - H @ s))), (
        "That updates, then predicts: the observation belongs to the state after the step."
    )
    D = F @ Sigma @ F.mT @ H.mT
    assert not near(got_s, F @ s + D / (H @ D + R) @ (x[0, 0] - H @ F @ s)), (
        "Q is missing: Σ⁻ = F Σ Fᵀ + Q."
    )
    C = right.gain.before @ H.mT
    assert not near(got_s, F @ s + C / (H @ C) @ (x[0, 0] - H @ F @ s)), (
        "R is missing: S = H Σ⁻ Hᵀ + R."
    )
    assert not near(got_s, F @ s + C / (H @ C + R**2) @ (x[0, 0] - H @ F @ s)), (
        "R is a variance already: do not square it."
    )
    assert near(got_s, right.s), "ŝ differs: ŝ = F ŝ + K (x − H F ŝ), K = Σ⁻ Hᵀ S⁻¹."
    assert not near(got_Sigma, right.gain.before), (
        "Σ is the one before the update: take K H Σ⁻ off."
    )
    assert near(got_Sigma, right.Sigma), "ŝ is right. Σ should be Σ⁻ − K H Σ⁻."
    many = start.s.expand(30, 2, 1)
    s_many, _ = given(answer(many, Sigma, x[0], *model))
    assert s_many.shape == many.shape, "It fails on a batch of trajectories."
    H2, R2 = torch.cat([H, F[:1]]), torch.tensor([[0.7, 0.2], [0.2, 0.4]]).to(R)
    two = tracking.Model(F, H2, Q, R2)
    x2 = torch.cat([x[:1, 0], -x[:1, 0]], -2)
    _, right = tracking.filtered(x2, two, tracking.riccati(two), start)
    got_s, got_Sigma = pair(answer(s.clone(), Sigma.clone(), x2[0], *two), s, Sigma)
    assert near(got_s, right.s) and near(got_Sigma, right.Sigma), (
        "With two observations a step it fails: S is then a matrix; solve with it, do not divide."
    )
    return "Predict, gain, update: all of the filter."


@exercise
def rescaled(answer):
    x, model, start = small_tracking(21)
    start = start._replace(Sigma=0 * start.Sigma)
    wrong = model._replace(Q=model.Q / 4, R=model.R / 4)
    beliefs = tracking.history(tracking.filtered(x, wrong, tracking.riccati(wrong), start))
    got = given(answer(wrong, beliefs))
    assert isinstance(got, tracking.Model), f"Return a Model, not {type(got).__name__}."
    factor = tracking.nis(beliefs).mean()
    assert near(got.F, wrong.F) and near(got.H, wrong.H), "F and H are right: leave them."
    assert not near(got.Q, wrong.Q) or not near(got.R, wrong.R), "Nothing has changed."
    assert not (near(got.Q, wrong.Q) or near(got.R, wrong.R)), (
        "Scale both: the gain sees their ratio, and the estimates are right."
    )
    assert not near(got.Q, wrong.Q / factor), "The wrong way: NIS too large means claims too small."
    assert not near(got.Q, wrong.Q * factor.sqrt()), "Q and R are variances: no square root."
    fixed = tracking.history(tracking.filtered(x, got, tracking.riccati(got), start))
    assert abs(tracking.nis(fixed).mean() - 1) < 1e-6, (
        f"The mean NIS is then {tracking.nis(fixed).mean():.2f}, not 1."
    )
    x, model, start = torch.cat([x, x], -2), model, start
    H, R = torch.cat([model.H, -model.H]), model.R.item() / 9 * torch.eye(2, dtype=torch.float64)
    two = tracking.Model(model.F, H, model.Q / 9, R)
    beliefs = tracking.history(
        tracking.filtered(x, two, tracking.riccati(two), start._replace(Sigma=0 * start.Sigma))
    )
    scale = (tracking.nis(beliefs).mean() / 2).item()
    got = given(answer(two, beliefs))
    assert near(got.Q, scale * two.Q) and near(got.R, scale * two.R), (
        "With two observations a step the expected NIS is 2: divide by n, in Q and in R."
    )
    return "Same gain, same estimates, honest claims. The truth was not needed."


@exercise
def back_step(answer):
    x, model, start = small_tracking(22)
    F, Q = model.F, model.Q
    beliefs = tracking.history(tracking.filtered(x[:, 0], model, tracking.riccati(model), start))
    right = smoothing.rts(beliefs)
    t = 30
    s, Sigma, later = beliefs.s[t], beliefs.Sigma[t], (right.s[t + 1], right.Sigma[t + 1])
    got_s, got_Sigma = pair(answer(s, Sigma, *later, F, Q), s, Sigma)
    G = Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT + Q)
    assert not near(got_s, s), "That is the filter's estimate: the later one corrects it."
    assert not near(got_s, s + G @ (later[0] - s)), "Compare the later state with F ŝ, not with ŝ."
    without = Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT)
    assert not near(got_s, s + without @ (later[0] - F @ s)), "Q is missing in Σ⁻ = F Σ Fᵀ + Q."
    assert not near(got_s, s + G.mT @ (later[0] - F @ s)), "G is transposed."
    assert near(got_s, right.s[t]), "ŝ should be ŝ + G (ŝ_later − F ŝ), G = Σ Fᵀ (Σ⁻)⁻¹."
    assert not near(got_Sigma, Sigma), "ŝ is right. Σ becomes smaller: the later states are known."
    assert near(got_Sigma, right.Sigma[t]), "ŝ is right. Σ should be Σ + G (Σ_later − Σ⁻) Gᵀ."
    return "Forward by the filter, back by this: every state has seen every observation."


@exercise
def effective_number(answer):
    log_w = torch.randn(3, 50, generator=seeded(23), dtype=torch.float64)
    w = log_w.softmax(-1)
    right = 1 / w.square().sum(-1)
    got = tensor(answer(log_w.clone()), right)
    assert not near(got, 1 / log_w.exp().square().sum(-1)), "The weights do not sum to one yet."
    assert not near(got, w.square().sum(-1)), "That is Σw²; its inverse, please."
    assert not near(got, torch.full_like(right, 1 / w.square().sum())), "One number for each set."
    assert near(got, right), "It should be 1/Σ wᵢ², wᵢ = exp(log wᵢ)/Σ exp(log w)."
    low = answer(log_w - 2000)
    assert torch.isfinite(low).all() and near(low, right), (
        "At log weights near −2000 exp gives zero: take the largest off before."
    )
    return "Between 1 (collapsed) and N (all alike); resample where it is small."


# ---- Chapter 10 --------------------------------------------------------------------------------


@exercise
def same_direction(answer):
    value = number(answer)
    assert abs(value - 49.5) > 0.6, (
        "That is how long the innovations differ before the norm is out."
    )
    assert value not in (1, 2), "Divide (30, 40) by its norm, 50, and look at what is left."
    assert abs(value) < 1e-9, f"Not {value:g}: both become vectors of norm one. Which?"
    return "Nothing is left between them: (0.6, 0.8) twice. The size is gone."


@exercise
def observation_matrix(answer):
    g = seeded(30)
    H = torch.randn(2, 3, generator=g, dtype=torch.float64)
    s = torch.randn(20, 30, 3, 1, generator=g, dtype=torch.float64) + 2
    x = H @ s + 0.3 * torch.randn(20, 30, 2, 1, generator=g, dtype=torch.float64)
    cross, moments = (x @ s.mT).mean((0, 1)), (s @ s.mT).mean((0, 1))
    right = torch.linalg.solve(moments, cross.mT).mT
    got = given(answer(x, s))
    assert not (
        isinstance(got, torch.Tensor) and got.shape == H.mT.shape and near(got, right.mT)
    ), "Transpose it: H takes three states to two observations."
    got = tensor(got, H)
    assert not near(got, cross), "That is the mean of x sᵀ: divide by the mean of s sᵀ."
    assert not near(got, cross @ moments), "Solve with the mean of s sᵀ; do not multiply by it."
    one = torch.linalg.lstsq(s[0, ..., 0], x[0, ..., 0]).solution.mT
    assert not near(got, one), "Only the first step was used: average over time too."
    assert near(got, right), "It does not minimise the sum: E[x sᵀ] (E[s sᵀ])⁻¹."
    return "A closed form, no training, and it removes all of a turned H."


@exercise
def four_features(answer):
    model = tracking.canonical(2, 0.01, 1.0)
    g, H = seeded(31), tracking.rotation(20)
    x, before, s_hat, s_before, expected = torch.randn(
        5, 3, 2, 1, generator=g, dtype=torch.float64
    ).unbind()
    got = given(answer(x, before, s_hat, s_before, expected, model.F, H))
    assert isinstance(got, tuple | list) and len(got) == 4, "Return four tensors."
    right = x - before, x - H @ model.F @ s_hat, s_hat - s_before, s_hat - expected
    F1, F2, F3, F4 = (tensor(ours, theirs) for ours, theirs in zip(got, right, strict=True))
    assert near(F1, right[0]), "F1 is x_t − x_{t−1}."
    assert not near(F2, x - H @ s_hat), "F2: predict first, H F ŝ_{t−1}."
    assert not near(F2, x - H @ expected), "F2: the expectation handed over is of the step before."
    assert not near(F2, x - model.F @ s_hat), "F2: H is missing."
    assert near(F2, right[1]), "F2 is x_t − H F ŝ_{t−1}."
    assert not (near(F3, right[3]) and near(F4, right[2])), "F3 and F4 are swapped."
    assert near(F3, right[2]), "F3 is how the estimate moved: ŝ_{t−1} − ŝ_{t−2}."
    assert near(F4, right[3]), "F4 is what the last update did: ŝ_{t−1} − s⁻_{t−1}."
    return "F1, F3, F4 are differences in time; F2 is the innovation."


@exercise
def recovered_covariance(answer):
    g = seeded(32)
    model, H = tracking.canonical(2, 0.5, 1.0), tracking.rotation(25) * 1.7
    A = torch.randn(2, 2, generator=g, dtype=torch.float64)
    model = model._replace(H=H, R=A @ A.mT + torch.eye(2, dtype=torch.float64))
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    gain = tracking.riccati(model)(tracking.Belief(zero, eye), zero)
    K, R = gain.K, model.R
    got = tensor(answer(K, H, R), gain.Sigma)
    assert not near(got, K @ R), "H is missing: K R is Σ Hᵀ."
    assert not near(got, K @ torch.linalg.solve(R, H)), "Multiply by R: K = Σ Hᵀ R⁻¹."
    assert not near(got, torch.linalg.solve(H, K @ R)), (
        "Hᵀ stands on the right of Σ: undo it there."
    )
    assert not near(got, gain.before), "That is Σ before the update."
    assert near(got, gain.Sigma), "From K = Σ Hᵀ R⁻¹: multiply by R, then undo Hᵀ."
    return "The gain knows how sure the filter is, if it is the right gain."


@exercise
def gated_gain(answer):
    model = tracking.canonical(2, 0.01, 1.0)
    zero = torch.zeros(2, 1, dtype=torch.float64)
    start = tracking.Belief(zero, torch.zeros(2, 2, dtype=torch.float64))
    x, _ = tracking.simulated(model, start, tracking.white(12, 6, model, seeded(33)))
    x[4, ::2] += 60.0
    K = torch.eye(2, dtype=torch.float64)

    def right(belief, x, seen=None):
        s = model.F @ belief.s
        return tracking.Gain(0.3 * ((x - s).norm(dim=(-2, -1), keepdim=True) < 20) * K, s, s)

    def run(gain):
        return tracking.history(tracking.filtered(x, model, gain, start)).s

    gain = given(answer(model, 0.3, 20.0))
    got = given(gain(tracking.Belief(x[0]), x[0]))
    assert isinstance(got, tracking.Gain), f"Return a Gain, not {type(got).__name__}."
    s = model.F @ x[0]
    assert not near(got.s, x[0]), "Nothing is predicted: the expected state is F ŝ."
    assert near(got.s, s) and near(got.x, s), "The expected state and observation are both F ŝ."
    ours = run(gain)
    assert not near(ours, run(lambda b, x, seen=None: right(b, x)._replace(K=0.3 * K))), (
        "Every observation is believed: the gate does nothing."
    )
    assert not near(
        ours, run(lambda b, x, seen=None: right(b, x)._replace(K=0.3 * K - right(b, x).K))
    ), "The gate is the wrong way round."
    assert near(ours, run(right)), (
        "It differs: K = k I for each trajectory with a short innovation."
    )
    return "A value in the slot, four lines, and outliers are gone. The loop did not change."


# ---- Chapter 11 --------------------------------------------------------------------------------


@exercise
def largest_step(answer):
    value = number(answer)
    assert value != 0.2, "That is one over the curvature; up to twice that still comes closer."
    assert value != 5, "That is the curvature; a step is 2 over it."
    assert value != 0.5, "Each state pulls at both neighbours: a sign that alternates is steepest."
    assert value != 2, "That is 2 over the curvature of the observation alone."
    assert abs(value - 0.4) < 1e-3, (
        f"Not {value:g}: for s_t = (−1)ᵗ the gradient is −(1/R + 4/Q) s, and γ must stay below 2 "
        "over that."
    )
    return "2/(1/R + 4/Q). A trusted model (small Q) forces small steps: many iterations."


@exercise
def three_messages(answer):
    x, model, start = small_tracking(31)
    F, H, Q, R = model
    x = x[:, :4]
    s = torch.randn(*x.shape[:-2], 2, 1, generator=seeded(32), dtype=x.dtype)
    right = smoothing.messages(s, x, model, start)
    got = given(answer(s.clone(), x.clone(), *model))
    three = isinstance(got, (tuple, list)) and len(got) == 3
    assert three, "Return three: past, future, observation."
    past, future, seen = (tensor(given(v), s) for v in got)
    inner = slice(1, -1)  # the ends have one neighbour: not asked for

    def off(v, wanted):
        return not near(v[inner], wanted[inner])

    before = s - F @ s.roll(1, 0)
    after = s.roll(-1, 0) - F @ s
    assert off(past, -right[0]), "Past: the sign. It pulls s_t towards F s_{t−1}."
    assert off(past, -Q @ before), "Past: weigh by Q⁻¹, not by Q."
    assert not off(past, right[0]), "Past: −Q⁻¹(s_t − F s_{t−1})."
    assert off(future, torch.linalg.solve(Q, after)), "Future: Fᵀ is missing in front."
    assert off(future, F @ torch.linalg.solve(Q, after)), "Future: F should be transposed."
    assert off(future, -right[1]), "Future: the sign. It pulls F s_t towards s_{t+1}."
    assert not off(future, right[1]), "Future: FᵀQ⁻¹(s_{t+1} − F s_t)."
    assert off(seen, -right[2]), "Observation: the sign. It pulls H s_t towards x_t."
    assert off(seen, H.mT @ (x - H @ s)), "Observation: R⁻¹ is missing."
    assert not off(seen, right[2]), "Observation: HᵀR⁻¹(x_t − H s_t)."
    return "Three pulls on every state; where they balance is the smoother's answer."


@exercise
def corrected_step(answer):
    x, model, start = small_tracking(33)
    x, gamma = x[:, :3], 0.05
    s = torch.randn(*x.shape[:-2], 2, 1, generator=seeded(34), dtype=x.dtype)
    mu = smoothing.messages(s, x, model, start)

    def correction(mu, x, memory):
        memory = memory + 1
        return 0.3 * mu[0] + memory, memory

    epsilon, _ = correction(mu, x, 1.0)
    got = given(answer(s.clone(), 1.0, mu, x, gamma, correction))
    two = isinstance(got, (tuple, list)) and len(got) == 2
    assert two, "Return two things: s and the memory."
    new = tensor(given(got[0]), s)
    total = sum(mu)
    assert not near(new, s + gamma * total), "The correction is missing."
    assert not near(new, s + gamma * total + epsilon), "γ multiplies the correction, too: (37)."
    assert not near(new, s + gamma * epsilon), "The messages are missing: that is the black box."
    assert not near(new, s - gamma * (total + epsilon)), "Climb: the step is added."
    assert near(new, s + gamma * (total + epsilon)), "s + γ (sum of the messages + ε)."
    assert got[1] == 2.0, "s is right. Hand back the memory that the correction returned."
    return "One line more than the smoother, and with ε = 0 it is the smoother."


@exercise
def late_counts_more(answer):
    g = seeded(35)
    s = torch.randn(7, 3, 1, 1, generator=g, dtype=torch.float64)
    iterates = s + torch.randn(5, 7, 3, 1, 1, generator=g, dtype=torch.float64)
    errors = (iterates - s).square().flatten(1).mean(1)
    right = smoothing.weighted_error(iterates, s)
    got = tensor(answer(iterates.clone(), s.clone()), right)
    assert not near(got, errors.mean()), "All iterations weigh the same here."
    assert not near(got, errors[-1]), "Only the last iteration counts here."
    backward = torch.arange(5, 0, -1).to(s)
    assert not near(got, (backward * errors).sum() / 15), "The first weighs most: turn it round."
    forward = torch.arange(5).to(s)
    assert not near(got, (forward * errors).sum() / 10), "The weights start at 1/K, not at 0."
    assert not near(got, right * 3), "Divide by the sum of the weights, so that it is an error."
    assert not near(got, right * 15), "Divide by the sum of the weights, so that it is an error."
    assert near(got, right), "Σ k · (mean squared error of iterate k) / Σ k, k = 1 ... K."
    return "The end counts most, and the way there is told where to go."


@exercise
def lucky_or_better(answer):
    g = seeded(36)
    base = torch.rand(40, generator=g, dtype=torch.float64) * 10

    def trial(gain, noise, count=40):
        old = base[:count]
        return old, old - gain - noise * torch.randn(count, generator=g, dtype=torch.float64)

    def verdict(old, new):
        return bool(given(answer(old.clone(), new.clone())))

    assert verdict(*trial(0.5, 0.2)), (
        "A gain of 0.5 in each of 40 blocks is denied. Compare block by block: the differences "
        "vary much less than the errors, and their mean less still, by √N."
    )
    assert not verdict(*trial(-0.5, 0.2)), "A loss passes: mind the sign."
    old = base[:10]
    spread = torch.tensor([1.0, -1.0] * 5, dtype=torch.float64)
    assert not verdict(old, old - 0.05 - spread), "A gain well inside its standard error passes."
    assert not verdict(old, old - 0.9 - spread), (
        "A gain of 2.7 standard errors passes; three were asked for. Among the 30 states that are "
        "looked at, the luckiest is often that lucky."
    )
    assert verdict(old, old - 1.05 - spread), (
        "A gain of 3.15 standard errors is denied: the standard error of a mean is std/√N."
    )
    outlier = torch.tensor([1.0] * 9 + [-20.0], dtype=torch.float64)
    assert not verdict(old, old - outlier), "Nine blocks gain a little, one loses a lot: the mean."
    return "Paired, and three standard errors: so a handful of data seldom makes things worse."


# ---- Chapter 13 --------------------------------------------------------------------------------


def hermitian(count, n, seed):
    """Random covariances (count, n, n), and the generator they came from."""
    g = seeded(seed)
    A = torch.randn(count, n, 3 * n, generator=g, dtype=torch.complex128)
    return A @ A.mH / (3 * n), g


@exercise
def grating_lobe(answer):
    value = number(answer)
    right = math.degrees(math.asin(0.5 - 1 / 0.8))
    assert abs(value - math.radians(right)) > 1e-2, "In degrees, please."
    assert abs(value + right) > 0.6, "Mind the sign: the sine must fall by 1/0.8, not rise past 1."
    assert abs(value + 30) > 0.6, "−30° has the conjugate phases, not the same ones."
    assert abs(value - 30) > 0.6, "That is the source itself. Where do the phases come round again?"
    assert abs(value - right) < 0.6, "The sines of the two differ by 1/0.8, one turn of the phase."
    return (
        "Sine 0.5 − 1.25 = −0.75: two directions, one response. No algorithm can tell them apart."
    )


@exercise
def backwards(answer):
    R, _ = hermitian(4, 5, 50)
    got, back = tensor(answer(R.clone()), R), R.flip(-1, -2)
    assert not near(got, (R + back) / 2), "Conjugate what is read backwards."
    assert not near(got, (R + R.conj()) / 2), "Read rows and columns from the other end."
    assert not near(got, (R + R.flip(-1).conj()) / 2), "Both rows and columns are exchanged."
    assert not near(got, R + back.conj()), "The mean of two is half of their sum."
    assert near(got, (R + back.conj()) / 2), "It is not (R + J R̄ J)/2."
    return "Twice as many looks at the echoes, for one line."


@exercise
def capon(answer):
    R, g = hermitian(3, 5, 51)
    H = torch.randn(5, 7, generator=g, dtype=torch.complex128)
    right = 1 / (H.conj() * torch.linalg.solve(R, H)).sum(-2).real
    got = given(answer(R.clone(), H.clone()))
    assert not (isinstance(got, torch.Tensor) and got.is_complex()), "A power is real: take .real."
    got = tensor(got, right)
    assert not near(got, (H.conj() * (R @ H)).sum(-2).real), "That is the beam's hᴴRh."
    assert not near(got, 1 / right), "The power is one over hᴴR⁻¹h."
    assert not near(got, 1 / (H * torch.linalg.solve(R, H)).sum(-2).real), "hᴴ conjugates h."
    assert near(got, right), "It is not 1/(hᴴR⁻¹h) of each column."
    return "A beam that spends its freedom on nulls, and needs an invertible R for it."


@exercise
def most_echoes(answer):
    value = number(answer)
    assert value != 8, "Eight sensors, and no room left for noise or subarrays."
    assert value != 7, "With L = 8 there is one subarray: rank two, however many echoes."
    assert value != 6, "L = 7 leaves two subarrays and rank four; six echoes need six."
    assert value != 4, "That is forward smoothing: read backwards, each subarray counts twice."
    assert value == 5, "Try each L: m is at most L − 1 and at most 2(9 − L)."
    return "L = 6: five echoes. Forward smoothing alone stops at four."


@exercise
def surrogate(answer):
    g = seeded(52)
    K = torch.randn(3, 5, 5, generator=g, dtype=torch.complex128)
    got = tensor(answer(K.clone(), 0.1), K)
    assert near(got, got.mH), "It is not Hermitian."
    least = torch.linalg.eigvalsh(got).min().item()
    assert least > 0.1 - 1e-9, f"Its least eigenvalue is {least:.3g}, expected 0.1 or more."
    R, _ = hermitian(3, 5, 53)
    of_R = tensor(answer(R.clone(), 0.1), R)
    assert near(of_R @ R, R @ of_R), "Of a Hermitian K it does not keep the eigenvectors."
    basis = torch.linalg.eigh(R)[1]
    values = (basis.mH @ of_R @ basis).diagonal(dim1=-2, dim2=-1).real
    assert (values.diff() > 1e-9).all(), "The order of the eigenvalues is lost: whose are largest?"
    assert near(answer(K.clone(), 0.3) - answer(K.clone(), 0.1), 0.2 * torch.eye(5).to(K)), (
        "ε must be added to every eigenvalue."
    )
    return "K Kᴴ + εI: a covariance whatever the network says, and R's subspace where it says R."


# ---- Chapter 14 --------------------------------------------------------------------------------


@exercise
def lost_noise(answer):
    value = number(answer)
    right = 10 * math.log10(2)
    assert abs(value + right) > 0.05, "The noise is too weak, so the SNR is better: positive."
    assert abs(value - 2 * right) > 0.05, "That is a factor of four: of σ², but each part has half."
    assert abs(value - right / 2) > 0.05, "Variances, not deviations: 10 log10 of their ratio."
    assert abs(value - 2) > 0.05, "That is the factor. In dB, please."
    assert abs(value - right) < 0.05, "What variance should each part have, and which does it get?"
    return "σ²/4 in the place of σ²/2: 3 dB, which no detector earns."


@exercise
def cancelled(answer):
    g = seeded(41)
    H = torch.randn(5, 3, generator=g, dtype=torch.float64)
    x = torch.randn(6, 5, 1, generator=g, dtype=torch.float64)
    e = 2 * torch.rand(6, 3, 1, generator=g, dtype=torch.float64) - 1
    right = x - H @ e + H * e.mT
    got = tensor(answer(x.clone(), H.clone(), e.clone()), right)
    assert not near(got, (x - H @ e).expand_as(got)), "User k's own part is gone as well."
    assert not near(got, x + H @ e - H * e.mT), "The sign: interference is subtracted."
    assert not near(got, x - H * e.mT), "That cancels the user itself and keeps all others."
    assert near(got, right), "z_k = x − Σ h_l e_l over all l other than k, in column k."
    return "Cancel everybody, give each its own part back: no loop over users."


@exercise
def symbol_errors(answer):
    wrong = torch.rand(500, 6, 1, generator=seeded(42)) < 0.2
    real, imaginary = wrong.chunk(2, -2)
    value = number(answer(wrong.clone()))
    right = (real | imaginary).double().mean().item()
    next_to = (wrong[:, ::2] | wrong[:, 1::2]).double().mean().item()
    assert abs(value - wrong.double().mean().item()) > 1e-6, "That is the bit error rate."
    assert abs(value - wrong.any(-2).double().mean().item()) > 1e-6, (
        "That counts vectors with an error: up to m times the symbol error rate."
    )
    assert abs(value - (real & imaginary).double().mean().item()) > 1e-6, "One wrong bit is enough."
    assert abs(value - next_to) > 1e-6, "Bits k and m + k belong together, not neighbours."
    assert abs(value - right) < 1e-6, f"Expected {right:.4f}, got {value:.4f}."
    return "A symbol is wrong where either of its bits is."


@exercise
def fair_channel(answer):
    g = seeded(43)
    H = torch.randn(4, 3, generator=g, dtype=torch.float64)
    s = mimo.symbols(60, 3, 1, generator=g, dtype=torch.float64)
    x = H @ s + 0.7 * torch.randn(60, 4, 1, generator=g, dtype=torch.float64)
    found = given(answer(x.clone(), s.clone()))
    assert isinstance(found, tuple | list) and len(found) == 2, (
        "Return two: the channel and the variance."
    )
    got, left = tensor(found[0], H), number(found[1])
    right = torch.linalg.solve((s @ s.mT).sum(0), (s @ x.mT).sum(0)).mT
    total = (x - right @ s).square().sum().item()
    assert not near(got, (x @ s.mT).mean(0)), (
        "Nearly: pilots are not exactly orthogonal. Divide by Σ s sᵀ, not by the count."
    )
    assert near(got, right), "Minimise Σ‖x − Hs‖² over H: H (Σ s sᵀ) = Σ x sᵀ."
    assert abs(left - total / (60 * 4)) > 1e-6, (
        "The channel took m of the count with it: divide less."
    )
    assert abs(left - total / 57) > 1e-6, (
        "That is of a whole vector; each of n entries has its own."
    )
    assert abs(left - (total / (57 * 4)) ** 0.5) > 1e-6, "That is the deviation, not the variance."
    assert abs(left - total / (57 * 4)) < 1e-6, f"Expected {total / 228:.4f}, got {left:.4f}."
    return "All that soft interference cancellation needs, from the pilots the network had."


@exercise
def first_inputs(answer):
    s = mimo.symbols(20, 3, 1, generator=seeded(44))
    got = tensor(answer(s.clone()), s)
    assert not near(got, s), (
        "Those are the true symbols: at detection nobody has them. All for nothing."
    )
    assert not near(got, torch.full_like(s, 0.5)), (
        "0.5 is the probability; the soft symbol is the mean of ±1."
    )
    assert near(got, torch.zeros_like(s)), "Before the first iteration nothing is known of them."
    return "Train on what will be there: e = 0."


# ---- Chapter 15 --------------------------------------------------------------------------------


@exercise
def compared_sums(answer):
    value = number(answer)
    assert value != 64, "Those are the states; several paths come into each of them."
    assert value != 12, "A state is all three symbols together: 4 · 4 · 4 of them."
    assert value != 128, "Two predecessors each belong to binary symbols; here there are four."
    assert value != 64**2, "Not every state leads to every other: all but one symbol is kept."
    assert value == 256, f"Not {value:g}: states, 4³, times the symbols that may be forgotten."
    return "symbols^(memory + 1): the memory is what makes a trellis expensive."


@exercise
def viterbi_step(answer):
    g = seeded(150)
    for states in (16, 8, 2):
        m, ll = torch.randn(2, 3, 5, states, generator=g, dtype=torch.float64)
        halves = m.unflatten(-1, (2, -1))

        def stepped(best, ll=ll):
            return best.repeat_interleave(2, -1) + ll

        right, got = stepped(halves.amax(-2)), tensor(answer(m.clone(), ll.clone()), m)
        assert not near(got, m + ll), "Nobody moves: a path goes from one state to another."
        assert not near(got, stepped(halves.logsumexp(-2))), "That is sum-product: take the best."
        pairs = m.unflatten(-1, (-1, 2)).amax(-1)
        assert not (states > 2 and near(got, stepped(pairs))), (
            "Those two differ in the newest symbol; it is the oldest that is forgotten."
        )
        assert not near(got, torch.cat([halves.amax(-2)] * 2, -1) + ll) or states == 2, (
            "The newest symbol is the last digit: states 2r and 2r + 1 come from the same two."
        )
        assert not near(got, stepped(halves.amin(-2))), "The larger log-probability survives."
        assert near(got, right), f"It differs with {states} states: best of both, each twice, + ll."
    return "One maximum and one sum: this is all of Viterbi but the memory of who won."


@exercise
def poisson_likelihood(answer):
    g, taps, gain = seeded(151), torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64), 7.0
    x = torch.randint(0, 12, (6, 4), generator=g).double()
    digits = torch.arange(8)[:, None] // 2 ** torch.arange(3) % 2

    def of(rate):
        return x[..., None] * rate.log() - rate

    def same(got, wanted):  # up to what is the same for all states
        return near(got.log_softmax(-1), wanted.log_softmax(-1), 1e-3)  # float32 will do

    u = digits.double() @ taps
    got = tensor(answer(x.clone(), taps.clone(), gain), of(u + 1))
    assert not same(got, of(gain * (digits.double() @ taps.flip(0)) + 1)), (
        "The taps are the wrong way round: the newest symbol is the last binary digit."
    )
    assert not same(got, of(gain * (2 * u - taps.sum()).abs() + 1)), "Symbols are 0 and 1, not ±1."
    assert got.isfinite().all(), "It is not finite: the rate is g u + 1, never zero."
    assert not same(got, -of(gain * u + 1)), "The sign: log-likelihoods, not costs."
    assert not same(got, of(gain * u + 1).exp()), "The logarithm, not the probability."
    rate = gain * u + 1
    assert not same(got, x[..., None] * rate.log()), "−rate is missing: it depends on the state."
    assert not same(got, -((x[..., None] - rate) ** 2) / 2), "That is a Gaussian's."
    assert not same(got, of(u + 1)), "g is missing in the rate."
    assert same(got, of(rate)), "It should be x log(rate) − rate, rate = g Σ hₖ digitₖ + 1."
    return "Nothing else in the receiver changes: the slot is all that knows of photons."


@exercise
def bayes_slot(answer):
    g = seeded(152)
    log_p = torch.randn(5, 3, 4, generator=g, dtype=torch.float64).log_softmax(-1)
    share = torch.randn(4, generator=g, dtype=torch.float64).softmax(-1)
    got = tensor(answer(log_p.clone(), share.clone()), log_p)

    def same(wanted):
        return near(got.log_softmax(-1), wanted.log_softmax(-1))

    assert not same(log_p), "That is a posterior: it contains how rare the states are."
    assert not same(log_p + share.log()), "The wrong way: the share is divided out."
    assert not same(log_p - share), "log_p is a logarithm, the share is not."
    assert not same(log_p.exp() / share), "The slot takes logarithms."
    assert same(log_p - share.log()), "By Bayes, p(x | state) ∝ p(state | x) / p(state)."
    return "Each factor once: the likelihood in the slot, the prior in the transitions."


@exercise
def burst_error(answer):
    for seed in (153, 154):
        g = seeded(seed)
        level = torch.rand(40, generator=g) * 0.3
        wrong = torch.rand(100, 40, generator=g) < level
        each = wrong.double().mean(0)
        right = each.std() / 40**0.5
        got = given(answer(wrong.clone()))
        got = torch.as_tensor(got).double()
        assert got.ndim == 0, f"One number, please, not the shape {tuple(got.shape)}."
        p = each.mean()
        assert not near(got, (p * (1 - p) / 4000).sqrt(), 2e-3), (
            "That takes all symbols for independent: here it is far too short."
        )
        assert not near(got, each.std(), 2e-3), "That is the spread of blocks; the mean's is less."
        assert not near(got, p, 2e-3), "That is the error rate itself."
        assert 0.95 < got / right < 1.05, (
            "The standard deviation of the blocks' rates, over √blocks."
        )
    return "As many independent looks as there are blocks, not symbols."


# ---- Chapter 19 --------------------------------------------------------------------------------


@exercise
def longer(answer):
    value = number(answer)
    assert value != 4, "That would be a cost in proportion to the users: a solve costs more."
    assert value != 16, "16 is the number of HᵀH's entries; each costs a sum over the antennas."
    assert value != 256, "One power too many."
    assert value == 64, f"Not {value:g} s: how many times more users, to which power?"
    return "Four times the users, cubed. Caches may make it worse, never much better."


@exercise
def seed_of_point(answer):
    def seed(base, point, repetition):
        got = given(answer(base, dict(point), repetition))
        assert isinstance(got, int) and not isinstance(got, bool), f"Expected an int, got {got!r}."
        assert 0 <= got < 2**64, f"A generator takes 0 to 2^64 − 1, got {got}."
        return got

    todo = [getattr(answer, "__code__", None)]
    while todo:  # the functions inside too
        code = todo.pop()
        assert "hash" not in getattr(code, "co_names", ()), (
            "Python's hash of a text differs from process to process: use hashlib."
        )
        todo += [const for const in getattr(code, "co_consts", ()) if hasattr(const, "co_names")]
    point = {"snr_db": 10, "method": "ista", "n": 30}
    one = seed(0, point, 0)
    assert seed(0, point, 0) == one, "Twice the same question, two answers: no randomness here."
    turned = dict(reversed(point.items()))
    assert seed(0, turned, 0) == one, "It depends on the order of the names."
    assert seed(0, point | {"snr_db": 10.0}, 0) == one, "10 and 10.0 are one point."
    assert seed(1, point, 0) != one, "The base seed is not in it: all studies share their draws."
    assert seed(0, point, 1) != one, "The repetition is not in it: each repeats the same draw."
    for name, other in (("snr_db", 10.5), ("method", "fista"), ("n", 31)):
        assert seed(0, point | {name: other}, 0) != one, f"{name} is not in it."
    close = [seed(0, {"snr_db": value}, 0) for value in (0.1234567, 0.1234568)]
    assert close[0] != close[1], "Two numbers that differ in the seventh digit share a seed."
    assert seed(0, {"a": 1, "b": 2}, 0) != seed(0, {"a": 2, "b": 1}, 0), (
        "Two points with exchanged values share a seed: the names belong to it."
    )
    grid = [seed(b, {"a": a, "c": c}, r) for b, a, c, r in product(*[range(10)] * 4)]
    assert len(set(grid)) == len(grid), "Different points share a seed."
    return "Any worker, any order, any day: the same draw."


@exercise
def together(answer):
    value = number(answer)
    assert value != 250, "Not of one call's 5 ms times 250: 1 ms is shared by k calls of 5 ms each."
    assert value != 50, "1 ms is 2 % of 50 ms: how many calls are 50 ms?"
    assert value >= 10, f"With {value:g}, sending is {100 / (5 * value):.1f} % of the calls' time."
    assert value == 10, f"{value:g} would do; at least means the smallest."
    return "1 ms / (10 · 5 ms) = 2 %."


@exercise
def left_to_do(answer):
    jobs = [3, 1, 2, 5, 4, 6]
    rows = [{"seed": 1, "value": 0.5}, {"seed": 2, "error": "ValueError: no"},
            {"seed": 5, "error": "KilledWorker: gone"}, {"seed": 5, "value": 1.0},
            {"seed": 6, "value": 0.0}, {"seed": 6, "error": "OSError: asked twice"}]  # fmt: skip
    got = given(answer(list(jobs), [dict(row) for row in rows]))
    assert isinstance(got, list), f"Expected a list, got {type(got).__name__}."
    assert 5 not in got, "Seed 5 failed once and was done later."
    assert 6 not in got, "Seed 6 is done: its value is 0, which is a value."
    assert 1 not in got, "Seed 1 is done."
    assert 2 in got, "Seed 2 failed: it should be tried again."
    assert sorted(got) == [2, 3, 4], f"Expected 3, 2 and 4 in some order, got {got}."
    assert got == [3, 2, 4], "In the order of the jobs, please."
    assert given(answer([1], [])) == [1], "With an empty file everything is left."
    return "Whatever stopped the study, this line starts it again."


@exercise
def amdahl(answer):
    value = number(answer)
    assert abs(value - 28.8) > 0.2, "That keeps the efficiency of two workers: it falls with more."
    assert abs(value - 1.8**5) > 0.2, "That doubles the workers five times, at 1.8 each."
    assert abs(value - 32) > 0.2, "Only without a serial part."
    assert abs(value - 9) > 0.05, "That is the ceiling, for infinitely many workers."
    assert abs(value - 1 / (0.2 + 0.8 / 32)) > 0.05, (
        "The serial part is not 0.2: 1.8 = 1 / (σ + (1 − σ)/2)."
    )
    assert abs(value - 7.2) < 0.05, f"Not {value:g}: first σ from 1.8, then 1 / (σ + (1 − σ)/32)."
    return "σ = 1/9, and with it never more than nine times."
