import pytest
import torch

from mbdl_course.networks import Cascade, mlp, parameters, residual_cnn
from mbdl_course.sparse import LISTA, UnfoldedADMM, admm, gaussian_matrix, ista
from mbdl_course.unfold import Thetas, Unfolded

H = gaussian_matrix(6, 10, torch.Generator().manual_seed(0))
x = torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_parameters_are_counted_as_the_chapter_says():
    n, m, K = 6, 10, 5
    assert parameters(Thetas((0.1, 0.2), K, tied=True)) == 2
    assert parameters(Thetas((0.1, 0.2), K)) == 2 * K
    assert parameters(Thetas((0.1, 0.2), K, frozen=(0,))) == K
    assert parameters(LISTA(H, (0.2, 0.1), K)) == K * (n * m + m * m + 1)
    assert parameters(LISTA(H, (0.2, 0.1), K, tied=(0, 1))) == n * m + m * m + K
    assert parameters(UnfoldedADMM(H, (0.1, 1.0, 0.1), K)) == K * (n * m + m * m + 3)


@pytest.mark.parametrize("bad", [-0.1, 0.0, float("nan"), float("inf")])
def test_thetas_refuse_what_cannot_be_a_step_or_a_weight(bad):
    with pytest.raises(ValueError, match=r"theta\[1\]: got"):
        Thetas((0.1, bad), 3)


@pytest.mark.parametrize("bad", [0, -2, 1.5, "3"])
def test_thetas_refuse_a_depth_that_is_none(bad):
    with pytest.raises(ValueError, match="depth: got"):
        Thetas((0.1, 0.2), bad)


def test_tied_layers_learn_together_and_untied_apart():
    for tied, count in ((True, 1), ((), 3)):
        thetas = Thetas((0.1, 0.2), 3, tied=tied)
        sum(a * b for a, b in thetas).backward()
        with torch.no_grad():
            thetas.layers[0][0].add_(1.0)
        assert len(thetas.schedule(0).unique()) == (1 if tied else 2)
        assert sum(p.grad is not None for p in thetas.parameters()) == 2 * count


def test_gradients_reach_every_parameter_but_the_last_dual_step():
    for network in (LISTA(H, (0.2, 0.1), 3), Unfolded(ista, Thetas((0.1, 0.1), 3).double(), H=H)):
        network(x).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in network.thetas.layers[-1])
    network = Unfolded(admm, Thetas((0.1, 1.0, 0.1), 3).double(), H=H)
    network(x).square().sum().backward()
    dead = [(k, i) for k, layer in enumerate(network.thetas.layers)
            for i, p in enumerate(layer) if p.grad is None or p.grad == 0]  # fmt: skip
    assert dead == [(2, 1)]  # u_K is computed after the estimate v_K


def test_forward_is_the_last_state_and_depth_cuts_it():
    network = LISTA(H, (0.2, 0.1), 5)
    states = list(network.states(x))
    assert torch.equal(network(x), states[-1])
    assert torch.equal(network(x, depth=2), states[2])
    for depth in (0, 6):
        with pytest.raises(ValueError, match=f"depth: got {depth}, expected 1 to 5"):
            network(x, depth=depth)


def test_unfolded_moves_with_its_matrix():
    network = LISTA(H, (0.2, 0.1), 2).float()
    assert network(x.float()).dtype == torch.float32
    with pytest.raises(TypeError, match="expected the dtype of x"):
        network(x)


def test_plain_networks_take_columns_and_repeat_with_a_seed():
    def make():
        return mlp(6, 20, 10, generator=torch.Generator().manual_seed(3))

    assert make()(x.float()).shape == (4, 10, 1)
    assert torch.equal(make()(x.float()), make()(x.float()))
    assert parameters(make()) == 6 * 20 + 20 + 20 * 10 + 10
    cnn = residual_cnn(4, 3, 3, generator=torch.Generator().manual_seed(3))
    network = Cascade(H.mT.float(), cnn)
    assert network(x.float()).shape == (4, 10, 1)
    with pytest.raises(ValueError, match="sizes: got"):
        mlp(3)
