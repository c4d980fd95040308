"""The fixed point's gradient: closed form, the deep network, finite differences, bad input."""

from itertools import islice, repeat

import pytest
import torch

from mbdl_course.equilibrium import Equilibrium
from mbdl_course.fold import last
from mbdl_course.sparse import (
    LISTA,
    admm,
    gaussian_matrix,
    ista,
    kkt_residual,
    lipschitz,
    observed,
    sparse_signals,
)
from mbdl_course.unfold import Thetas, Unfolded

D = torch.float64
g = torch.Generator().manual_seed(1)
H = gaussian_matrix(20, 40, g)
S = sparse_signals(5, 40, g, sparsity=3)
X = observed(S, H, torch.randn(5, 20, 1, generator=g, dtype=D), snr_db=20)
MU, RHO = 1 / lipschitz(H).item(), 0.1


def layer(rho=RHO, depth=1, mu=MU, **slots):
    return Unfolded(ista, Thetas((mu, rho), depth, tied=True, dtype=D), H=H, **slots)


def limit(**about):
    return Equilibrium(layer(**about), tolerance=1e-13, most=20_000)


def gradients(network, x=X):
    loss = (network(x) - S).square().sum()
    return torch.autograd.grad(loss, list(network.parameters()))


def test_it_is_the_limit_of_ista():
    s = limit()(X)
    assert kkt_residual(s, X, H, RHO).max() < 1e-10
    for a, b in islice(zip(limit().states(X), ista(X, H, repeat((MU, RHO))), strict=False), 50):
        torch.testing.assert_close(a, b, atol=1e-14, rtol=0)


def test_on_the_support_the_derivative_of_the_lasso_is_known():
    """ds_S/dρ = −(H_SᵀH_S)⁻¹ sign(s_S), for a single signal; θ holds log ρ, dρ = ρ d log ρ."""
    network, x = limit(), X[0]
    s = network(x)
    on = (s != 0)[:, 0]
    assert 2 <= on.sum() <= 15
    H_S, weights = H[:, on], torch.randn(40, 1, generator=g, dtype=D)
    expected = -torch.linalg.solve(H_S.mT @ H_S, s[on].sign())
    (found,) = torch.autograd.grad((weights * s).sum(), network.layer.thetas.layers[0][1])
    torch.testing.assert_close(found, RHO * (weights[on] * expected).sum(), rtol=1e-8, atol=0)


def test_its_gradient_is_that_of_a_very_deep_network():
    mu, rho = gradients(limit())
    _, deep = gradients(layer(depth=3000))
    torch.testing.assert_close(rho, deep, rtol=1e-6, atol=0)
    assert abs(mu) < 1e-8 * abs(rho)  # where ISTA ends does not depend on its step


def test_its_gradient_is_that_of_finite_differences():
    def loss(rho):
        return (limit(rho=rho)(X) - S).square().sum().item()

    up, down = RHO * 2.718281828 ** torch.tensor([1e-5, -1e-5], dtype=D)
    numeric = (loss(up.item()) - loss(down.item())) / 2e-5
    assert gradients(limit())[1].item() == pytest.approx(numeric, rel=1e-5)


def test_matrices_and_the_observation_get_their_gradients_too():
    """Every entry of θ, and x: against the deep network, and the model's own H unmoved."""
    filled = LISTA(H, (MU, RHO), 1)
    network = Equilibrium(filled, tolerance=1e-13, most=20_000)
    deep = LISTA(H, (MU, RHO), 2000, tied=(0, 1, 2))
    for a, b in zip(gradients(network), gradients(deep), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    found = []
    for net in (network, deep):
        x = X.clone().requires_grad_()
        found += torch.autograd.grad(net(x).square().sum(), x)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


def test_a_batch_of_one_is_a_slice_of_the_batch_and_a_start_only_saves_time():
    network = limit()
    torch.testing.assert_close(network(X)[2:3], network(X[2:3]), atol=1e-10, rtol=0)
    warm = network(X).detach()
    assert len(list(network.states(X, warm))) < 5
    torch.testing.assert_close(network(X, start=warm), warm, atol=1e-10, rtol=0)


def test_what_is_kept_for_the_gradient_does_not_depend_on_the_number_of_steps():
    def kept(network):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.nbytes) or t, lambda t: t
        ):
            network(X)
        return sum(sizes)

    fast, slow = limit(), limit(mu=MU / 5)
    assert len(list(slow.states(X))) > 3 * len(list(fast.states(X)))
    assert kept(fast) == kept(slow) < kept(layer(depth=100)) / 20


def test_no_graph_without_a_gradient_and_float32():
    with torch.no_grad():
        assert not limit()(X).requires_grad
    single = Unfolded(ista, Thetas((MU, RHO), 1, dtype=torch.float32), H=H.float())
    network = Equilibrium(single, tolerance=1e-5)
    mu, rho = gradients(network, X.float())
    assert rho.dtype == torch.float32
    torch.testing.assert_close(rho.double(), gradients(limit())[1], rtol=0.02, atol=0)


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="layer: got 3 layers, expected one"):
        Equilibrium(layer(depth=3))
    with pytest.raises(ValueError, match="tolerance: got 0, expected a positive"):
        Equilibrium(layer(), tolerance=0)
    with pytest.raises(ValueError, match="most: got 20 steps, expected as many as s needs"):
        Equilibrium(layer(), most=20)(X)
    with pytest.raises(ValueError, match="most: got 500 steps"):  # beyond 2/L it diverges
        Equilibrium(layer(mu=3 * MU), most=500)(X)
    with pytest.raises(TypeError, match="got a state Split, expected one tensor"):
        Equilibrium(Unfolded(admm, Thetas((0.1, 1.0, RHO), 1, dtype=D), H=H))(X)
    with pytest.raises(ValueError, match="x: got shape"):
        limit()(X[:, :5])


def test_an_adjoint_that_does_not_settle_is_told():
    """The solution given as the start settles at once; the gradient has a fold of its own."""
    start = last(limit().states(X))
    network = Equilibrium(layer(), most=3, tolerance=1e-9)
    with pytest.raises(ValueError, match="most: got 3 steps, expected as many as u needs"):
        network(X, start=start).sum().backward()


def test_a_second_derivative_is_refused():
    network = limit()
    with pytest.raises(NotImplementedError, match="create_graph"):
        torch.autograd.grad(network(X).sum(), list(network.parameters()), create_graph=True)
