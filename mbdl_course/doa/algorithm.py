"""The chain: snapshots, covariance, subspace, estimate, each link a slot; and the reference."""

import math
from itertools import accumulate, repeat

import torch

from mbdl_course.fold import last
from mbdl_course.operators import solve

from .parts import sample_covariance, signal_subspace
from .problem import (
    Array,
    against,
    checked_covariance,
    curvature,
    expansion,
    on_a_line,
    principal,
    projected,
    response,
    uniform_linear,
    whole,
)


def estimated(x, sources, covariance=sample_covariance, head=None):
    """doa (..., sources) of snapshots x (..., n, T): head(covariance(x), sources).

    head: `root_music` unless given; `esprit`, `music`, `mvdr` and so on. A learned covariance fills
    the other slot.
    """
    return (head or root_music)(covariance(x), sources)


# ---- Scanning: any array -----------------------------------------------------------------------
# Three methods, one scan: the sources are where f(φ) = h(φ)ᴴ C h(φ) is least, C = −R, R⁻¹, I − EEᴴ.


def beamformer(R, sources, array=None, grid=None):
    """doa (..., sources), ascending: where the power hᴴRh that arrives from φ is largest.

    R (..., n, n); array: half a wavelength on a line unless given; grid: see `directions`. Sources
    closer than the beam is wide are not resolved.
    """
    checked_covariance(R, sources)
    return least(-R, sources, array, grid)


def mvdr(R, sources, array=None, grid=None):
    """doa (..., sources), ascending: where 1/(hᴴR⁻¹h), the power that passes a filter that keeps φ
    and lets as little else through as it can, is largest.

    Capon 1969, "High-resolution frequency-wavenumber spectrum analysis",
    doi 10.1109/PROC.1969.7278. ValueError where R is singular.
    """
    checked_covariance(R, sources)
    return least(inverse(R), sources, array, grid)


def music(R, sources, array=None, grid=None, subspace=signal_subspace):
    """doa (..., sources), ascending: where h(φ) is nearest to the signal subspace, 1/(hᴴ(I − EEᴴ)h)
    largest.

    Schmidt 1986, "Multiple emitter location and signal parameter estimation",
    doi 10.1109/TAP.1986.1143830. The slot `subspace` maps (R, sources) to E.
    """
    return least(noise_projector(subspace(R, sources)), sources, array, grid)


def inverse(R):
    """R⁻¹; ValueError where R is singular."""
    if not (torch.linalg.cond(R.detach()) < 0.1 / torch.finfo(R.dtype).eps).all():
        raise ValueError(
            "R: got a singular matrix; `mvdr` needs as many snapshots as sensors, or a loaded "
            "R + δI"
        )
    return torch.linalg.solve(R, torch.eye(R.shape[-1]).to(R))


def noise_projector(E):
    """I − E Eᴴ, (..., n, n)."""
    return torch.eye(E.shape[-2]).to(E) - E @ E.mH


def spectrum(C, array, grid):
    """f(φ) = h(φ)ᴴ C h(φ) on a grid (points,), (..., points), of Hermitian C (..., n, n).

    Show −f for C = −R, else 1/f.
    """
    H = response(grid, array).mT  # (..., points, n)
    n = C.shape[-1]
    upper = torch.ones(n, n, dtype=torch.bool, device=C.device).triu()
    twice = 2 - torch.eye(n).to(C.real)  # a pair of sensors stands for its mirror image too

    def packed(A):  # a Hermitian matrix is n² real numbers
        return torch.where(upper, A.real, A.imag)

    table = twice * packed(H.unsqueeze(-1) * H.conj().unsqueeze(-2))  # h_k h̄_l
    # f is linear in C: one real product for all angles and scenes, if they share the array
    return (packed(C).flatten(-2)[..., None, :] @ table.flatten(-2).mT).squeeze(-2)


def directions(array, points=361):
    """The angles of a scan, (points,): evenly over (−π/2, π/2] on a line, (−π, π] elsewhere."""
    whole("points", points)
    most = math.pi / 2 if on_a_line(array) else math.pi
    step = 2 * most / points
    return step * torch.arange(1, points + 1).to(array.positions) - most


def scan(C, array, grid):
    """The array and the grid, or what stands for None; angles of the dtype and device of C."""
    n = C.shape[-1]
    array = Array(*(part.to(C.device) for part in array or uniform_linear(n)))
    if array.positions.shape[-2] != n:
        raise ValueError(f"array: got {array.positions.shape[-2]} sensors, expected {n} to fit R")
    grid = directions(array) if grid is None else grid
    if grid.ndim != 1 or len(grid) < 2 * n:
        raise ValueError(
            f"grid: got shape {tuple(grid.shape)}, expected ascending, evenly spaced radians, "
            f"({2 * n},) or more"
        )
    return array, grid.to(C.real)


def minima(f, sources):
    """The indices (..., sources) of the deepest local minima of f (..., points), first the deepest.

    The ends are neighbours; where there are fewer minima, the lowest other points stand in.
    """
    falls = f < f.roll(1, -1)
    deep = falls & ~falls.roll(-1, -1)
    spread = f.amax(-1, keepdim=True) - f.amin(-1, keepdim=True)
    return (f + spread * ~deep).topk(sources, -1, largest=False).indices


def least(C, sources, array=None, grid=None):
    """doa (..., sources), ascending: the deepest local minima of hᴴCh, freed from the grid.

    Newton's method moves each of the `minima` by one step of the grid at most; a last step carries
    the gradient.
    """
    array, grid = scan(C, array, grid)
    fixed = C.detach()
    f = spectrum(fixed, array, grid)
    start = grid[minima(f, sources)]
    step = grid[1] - grid[0]
    floor = torch.finfo(f.dtype).eps ** 0.5 * f.abs().amax(-1, keepdim=True)  # of f″

    def newton(doa, C):
        H, D, DD = expansion(doa, array)
        CH, CD = (C @ torch.cat([H, D], -1)).chunk(2, -1)
        first = 2 * (D.conj() * CH).sum(-2).real
        second = 2 * (D.conj() * CD + DD.conj() * CH).sum(-2).real.detach()
        return start + (doa - first / second.maximum(floor) - start).clamp(-step, step)

    doa = last(accumulate(repeat(fixed, 3), newton, initial=start))
    if C.requires_grad:
        doa = newton(doa, C)
    return principal(doa, array).sort(-1).values


# ---- Without a scan: a uniform line ------------------------------------------------------------


def root_music(R, sources, spacing=0.5, subspace=signal_subspace):
    """doa (..., sources), ascending: from the roots, nearest to the unit circle, of hᴴ(I − EEᴴ)h
    as a polynomial in z = exp(−2πj d sin φ).

    R (..., n, n) of a uniform line, d = spacing in wavelengths. Without noise the roots are double,
    and rounding would move them by sqrt(eps): I is taken larger by eps^(3/4), so that such a pair
    splits along a ray, and angles move by about eps^(3/4) only. Gradients follow dz = −dp(z)/p'(z),
    with |p'| no smaller than sqrt(eps). Barabell 1983, "Improving the resolution performance of
    eigenstructure-based direction-finding algorithms", doi 10.1109/ICASSP.1983.1172124.
    """
    E = subspace(R, sources)
    n, eps = E.shape[-2], torch.finfo(E.dtype).eps
    C = noise_projector(E) + eps ** (3 / 4) * torch.eye(n).to(E)
    c = torch.stack([C.diagonal(q, -2, -1).sum(-1) for q in range(1 - n, n)], -1)
    z = inner_roots(c.detach())[..., -sources:]
    powers = torch.linalg.vander(z, N=2 * n - 1)  # (..., sources, 2n − 1)
    order = torch.arange(1, 2 * n - 1).to(z)
    p_slope = (powers[..., :-1] @ (order * c.detach()[..., 1:])[..., None]).squeeze(-1)
    change = (powers @ (c - c.detach())[..., None]).squeeze(-1)
    z = z - change * p_slope.conj() / p_slope.abs().square().clamp(min=eps)
    return angles(z, spacing)


def inner_roots(c):
    """The roots of Σ_q c_q z^q inside the unit circle, outermost last; c (..., 2n − 1) reads the
    same, conjugated, from its other end, so that half of the roots are inside."""
    half, top = c.shape[-1] // 2, c[..., -1:]
    top = torch.where(top.abs() > torch.finfo(c.dtype).tiny ** 0.5, top, torch.finfo(c.dtype).eps)
    companion = torch.diag(torch.ones(2 * half - 1).to(c), -1).expand(*c.shape[:-1], -1, -1).clone()
    companion[..., -1] = -c[..., :-1] / top
    z = torch.linalg.eigvals(companion)
    inner = z.abs().argsort(-1)[..., :half]
    return z.gather(-1, inner)


def esprit(R, sources, spacing=0.5, subspace=signal_subspace, weights=None):
    """doa (..., sources), ascending: from the eigenvalues exp(−2πj d sin φ) of what turns the
    subspace of all sensors but the last into that of all but the first, in least squares.

    R (..., n, n) of a uniform line, d = spacing in wavelengths; weights (n − 1,) of the rows, alike
    unless given: `parabola` has the smaller error. Gradients follow dμ = wᴴ dΨ v for
    left and right eigenvectors, by a pseudo-inverse that leaves out what is below sqrt(eps): finite
    where eigenvalues meet. Roy, Kailath 1989, "ESPRIT: estimation of signal parameters via
    rotational invariance techniques", doi 10.1109/29.32276.
    """
    E = subspace(R, sources)
    first, second, eps = E[..., :-1, :], E[..., 1:, :], torch.finfo(E.dtype).eps
    rows = torch.ones(E.shape[-2] - 1) if weights is None else weights
    if rows.shape != (E.shape[-2] - 1,):
        raise ValueError(f"weights: got shape {tuple(rows.shape)}, expected ({E.shape[-2] - 1},)")
    scaled = rows.to(E)[:, None] * first
    gram = scaled.mH @ first + eps * torch.eye(sources).to(E)  # never singular
    turn = torch.linalg.solve(gram, scaled.mH @ second)
    mu, V = torch.linalg.eig(turn.detach())
    if turn.requires_grad:
        W = torch.linalg.pinv(V, rtol=eps**0.5)
        mu = mu + (W @ (turn - turn.detach()) @ V).diagonal(dim1=-2, dim2=-1)
    return angles(mu, spacing)


def parabola(sensors):
    """The weights k(n − k), k = 1, ..., n − 1, of the rows of ESPRIT.

    Neighbouring rows share a sensor, so their errors are correlated, and for one source these
    weights undo it: then ESPRIT is efficient; alike, its squared error is n(n² − 1)/(6(n − 1)²)
    times the bound, 2.3 dB for n = 8. Eriksson, Stoica 1994, "Optimally weighted ESPRIT for
    direction estimation", Signal Processing 38, has the optimum for several.
    """
    whole("sensors", sensors)
    k = torch.arange(1, sensors)
    return k * (sensors - k)


def angles(z, spacing):
    """φ with arg z = −2πd sin φ, ascending; ±π/2 where there is none."""
    if not spacing > 0:
        raise ValueError(f"spacing: got {spacing:g}, expected wavelengths, above 0")
    sine = -z.angle() / (2 * math.pi * spacing)
    most = 1 - torch.finfo(sine.dtype).eps  # where the slope of arcsin is finite
    return sine.clamp(-most, most).arcsin().sort(-1).values


# ---- The reference: maximum likelihood ---------------------------------------------------------


def maximum_likelihood(R, sources, array=None, grid=None, sweeps=5, steps=30, start=None):
    """doa (..., sources), ascending: the least tr(Π R), Π = I − H(HᴴH)⁻¹Hᴴ, for signals of which
    nothing is known; coherent ones are no exception.

    One source after the other is placed on the grid, given the others, in `sweeps` rounds (Ziskind,
    Wax 1988, "Maximum likelihood localization of multiple sources by alternating projection",
    doi 10.1109/29.7543); then Levenberg's damped Newton steps, each
    taken where it helps. With `start`, doa (..., sources) of another method, these steps begin
    there, and nothing is searched. No gradients.
    """
    checked_covariance(R, sources)
    for name, value in (("sweeps", sweeps), ("steps", steps)):
        whole(name, value)
    R = R.detach()
    array, grid = scan(R, array, grid)
    eye, reach = torch.eye(R.shape[-1]).to(R), grid[1] - grid[0]

    def place(doa, k):
        others = torch.cat([doa[..., :k], doa[..., k + 1 :]], -1)
        Pi = eye - projected(response(others, array), eye)
        left = spectrum(Pi, array, grid)  # how much of h the others do not explain
        power = spectrum(Pi @ R @ Pi, array, grid) / left.clamp(min=torch.finfo(left.dtype).tiny)
        power = torch.where(left > 1e-3 * R.shape[-1], power, 0)
        return torch.cat([doa[..., :k], grid[power.argmax(-1, True)], doa[..., k + 1 :]], -1)

    def cost(doa):
        return (R - projected(response(doa, array), R)).diagonal(dim1=-2, dim2=-1).sum(-1).real

    def improve(state, R):
        doa, damping = state
        H, D, _ = expansion(doa, array)
        back = against(H, eye)
        gradient = (back @ R @ (D - projected(H, D))).diagonal(dim1=-2, dim2=-1).real
        bend = curvature(doa, back @ R @ back.mH, array)
        scale = bend.diagonal(dim1=-2, dim2=-1) + torch.finfo(doa.dtype).tiny
        bend = bend + (damping[..., None] * scale).diag_embed()
        new = doa + solve(bend, gradient).clamp(-reach, reach)
        better = cost(new) < cost(doa)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e6)
        return torch.where(better[..., None], new, doa), damping

    if start is None:
        empty = grid.new_zeros(*R.shape[:-2], 0)
        start = last(accumulate([*range(sources)] * (1 + sweeps), place, initial=empty))
    elif start.shape != (*R.shape[:-2], sources):
        raise ValueError(
            f"start: got shape {tuple(start.shape)}, expected {(*R.shape[:-2], sources)}"
        )
    doa = start.to(grid)
    doa, _ = last(accumulate(repeat(R, steps), improve, initial=(doa, 1e-3 + 0 * doa[..., 0])))
    return principal(doa, array).sort(-1).values


# ---- The array from scenes of known directions -------------------------------------------------


def calibrated(R, doa, array, steps=100):
    """The Array that fits covariances R (count, n, n) of scenes of known doa (count, sources).

    The least mean tr(Π R)/tr(R), Π = I − H(HᴴH)⁻¹Hᴴ as in `maximum_likelihood`, now over the
    positions and gains in H, by L-BFGS from `array`. What no data can tell (a turn or a shift of
    the whole array along with a common gain) stays near where it was.
    """
    checked_covariance(R, doa.shape[-1])
    R = R / R.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None]
    change = R.real.new_zeros(R.shape[-1], 4).requires_grad_()
    optimizer = torch.optim.LBFGS([change], max_iter=steps, line_search_fn="strong_wolfe")

    def moved():
        size, turn = change[:, 2:3].exp(), change[:, 3:]
        return array._replace(positions=array.positions.to(R.real) + change[:, :2],
                              gains=array.gains.to(R) * torch.polar(size, turn))  # fmt: skip

    def left():
        optimizer.zero_grad()
        unexplained = R - projected(response(doa, moved()), R)
        value = unexplained.diagonal(dim1=-2, dim2=-1).real.sum(-1).mean()
        value.backward()
        return value

    optimizer.step(left)
    with torch.no_grad():
        return moved()


# ---- How many sources --------------------------------------------------------------------------


def aic(R, snapshots):
    """Akaike's criterion, halved, for 0 to n − 1 sources, (..., n): its argmin is the estimate.

    −log-likelihood + k(2n − k), from the eigenvalues of the sample covariance R of so many
    snapshots. It keeps on guessing too many, however many snapshots there are. Wax, Kailath 1985,
    "Detection of signals by information theoretic criteria", doi 10.1109/TASSP.1985.1164557.
    """
    whole("snapshots", snapshots)
    return description(R, snapshots, 1.0)


def mdl(R, snapshots):
    """The minimum description length for 0 to n − 1 sources, (..., n): −log-likelihood +
    k(2n − k) log(T)/2. Its argmin is right with enough snapshots; with few it is too small."""
    whole("snapshots", snapshots)
    return description(R, snapshots, math.log(snapshots) / 2)


def description(R, snapshots, price):
    checked_covariance(R)
    n = R.shape[-1]
    if snapshots < n:
        raise ValueError(f"snapshots: got {snapshots}, expected as many as sensors, {n}, or more")
    values = torch.linalg.eigvalsh(R).clamp(min=torch.finfo(R.dtype).tiny)  # ascending
    size = torch.arange(1, n + 1).to(values)  # of the noise subspace
    spread = size * ((values.cumsum(-1) / size).log() - values.log().cumsum(-1) / size)
    k = n - size
    return (snapshots * spread + price * k * (2 * n - k)).flip(-1)
