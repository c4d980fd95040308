"""Ready-made networks: an algorithm, a learned part, and the model's own values to start from."""

import torch

from mbdl_course.prox import select_support
from mbdl_course.unfold import Fixed, Thetas, Unfolded

from .algorithm import admm, ista
from .parts import analytic_weights, coupled, filters, matrices, with_back


def LISTA(H, theta, depth=None, tied=(), back=None, dtype=None):
    """ISTA unfolded into layers with their own matrices, filled with the model's at first.

    theta = (μ, ρ) for all `depth` layers, or a list of one for each (a trained unfolded ISTA's,
    say); `back` stands in the place of H in Hᵀ. tied=(0, 1) shares the two matrices and keeps a
    threshold for each layer. Parameters: nm + m² + 1 a layer. Example 17; Gregor, LeCun 2010.
    """
    back = H if back is None else back
    eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)

    def filled(mu, rho):
        return mu * back.mT, eye - mu * back.mT @ H, mu * rho

    theta = [filled(*t) for t in theta] if isinstance(theta, list) else filled(*theta)
    dtype = dtype or H.dtype
    thetas = Thetas(theta, depth, tied=tied, dtype=dtype, device=H.device)
    return Unfolded(ista, thetas, H=H.to(dtype), part=matrices)


def LISTA_CP(H, theta, depth=None, tied=(), back=None, kept=None, dtype=None):
    """LISTA with coupled weights, W2 = I − W1 H: one matrix W1 and a threshold a layer.

    theta, depth, tied and back as in `LISTA`. kept: a list of `depth` counts makes it LISTA-CPSS,
    in whose layer k the kept[k] largest entries pass unshrunk, see `prox.select_support`.
    Parameters: nm + 1 a layer. Chen, Liu, Wang, Yin 2018, arXiv 1808.10038.
    """
    back, dtype = H if back is None else back, dtype or H.dtype
    each = theta if isinstance(theta, list) else [theta] * depth
    layers = [(mu * back.mT, mu * rho) for mu, rho in each]
    thetas = Thetas(selecting(layers, kept), tied=tied, dtype=dtype, device=H.device)
    return Unfolded(ista, thetas, H=H.to(dtype), part=coupled, **shrinkage(kept))


def ALISTA(H, theta, depth=None, back=None, kept=None, learned=False, dtype=None):
    """ISTA with B = `analytic_weights(H)` in the place of H in Hᵀ; a step and a weight a layer.

    theta, depth and kept as in `LISTA_CP`; back: another B. learned=True: B is learned too, one for
    all layers (TiLISTA). Parameters: 2 a layer (and nm). Liu, Chen, Wang, Yin 2019, "ALISTA:
    Analytic Weights Are As Good As Learned Weights in LISTA", ICLR.
    """
    back, dtype = analytic_weights(H) if back is None else back, dtype or H.dtype
    each = theta if isinstance(theta, list) else [theta] * depth
    layers = selecting([(back, mu, rho) for mu, rho in each], kept)
    thetas = Thetas(layers, tied=(0,), frozen=() if learned else (0,), dtype=dtype, device=H.device)
    return Unfolded(ista, thetas, H=H.to(dtype), part=with_back, **shrinkage(kept))


def support_schedule(m, depth, rate=0.012, most=0.13):
    """How many of m entries may pass unshrunk in each layer: rate · m more each time, up to most.

    1.2 % and 13 % are those of the authors' code for Chen et al. 2018, arXiv 1808.10038.
    """
    return [int(min(rate * (k + 1), most) * m) for k in range(depth)]


def selecting(layers, kept):
    """Each layer's θ with its count appended, if there are counts; ValueError if not one each."""
    if kept is None:
        return layers
    if len(kept) != len(layers):
        raise ValueError(f"kept: got {len(kept)} counts, expected one for each of {len(layers)}")
    return [(*theta, Fixed(count)) for theta, count in zip(layers, kept, strict=True)]


def shrinkage(kept):
    return {} if kept is None else {"shrink": select_support}


def UnfoldedADMM(H, theta, depth=None, tied=(), dtype=None):
    """ADMM unfolded into layers with W1, W2, λ, μ, ρ, filled with the model's; Example 16.

    theta = (λ, μ, ρ) for all `depth` layers, or a list of one for each; tied as in `LISTA`.
    Parameters: nm + m² + 3 a layer.
    """
    eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)

    def filled(lam, mu, rho):
        regular = H.mT @ H + 2 * lam * eye
        W1, W2 = torch.linalg.solve(regular, H.mT), torch.linalg.solve(regular, 2 * lam * eye)
        return W1, W2, lam, mu, rho

    theta = [filled(*t) for t in theta] if isinstance(theta, list) else filled(*theta)
    dtype = dtype or H.dtype
    thetas = Thetas(theta, depth, tied=tied, dtype=dtype, device=H.device)
    return Unfolded(admm, thetas, H=H.to(dtype), part=filters)
