"""Neural augmentation: the plain smoother with a slot, and what fills it."""

import pytest
import torch

from mbdl_course import weights
from mbdl_course.fold import last, repeat
from mbdl_course.learn import Stage, seeded
from mbdl_course.smoothing import (
    Augmented,
    GraphNetwork,
    augmented,
    by_gradient,
    changes,
    largest_step,
    messages,
    rts,
    silent,
    uncorrected,
    weighted_error,
)
from mbdl_course.tracking import (
    Belief,
    Model,
    extended,
    filtered,
    history,
    lorenz,
    riccati,
    simulated,
    white,
)
from mbdl_course.weights import smoothing as recipes

D = torch.float64
MODEL = Model(
    torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=D), torch.tensor([[1.0, 0.0]], dtype=D),
    0.2 * torch.eye(2, dtype=D), 0.25 * torch.eye(1, dtype=D),
)  # fmt: skip
START = Belief(torch.zeros(2, 1, dtype=D), 10 * torch.eye(2, dtype=D))
X, S = simulated(MODEL, START, white(12, 3, MODEL, seeded(1)))
SMOOTH = rts(history(filtered(X, MODEL, riccati(MODEL), START))).s


def graph(m=2, n=1, look=None, trained=True):
    """A network in float64; `trained` moves its last layer away from zero."""
    network = GraphNetwork(m, n, 6, look, seeded(2)).double()
    if trained:
        torch.nn.init.normal_(network.answer.network[-1].weight, generator=seeded(3))
    return network


# ---- the filling law ----


@pytest.mark.parametrize("first", [None, SMOOTH, X.expand(12, 3, 2, 1)])
def test_without_correction_it_is_the_plain_smoother(first):
    """So it is with a network that was never trained: it answers zero."""
    plain = list(by_gradient(X, MODEL, repeat(0.03, 40), START, first))
    for correction in (uncorrected, graph(trained=False)):
        ours = augmented(X, MODEL, repeat(0.03, 40), START, correction, first)
        for state, s in zip(ours, plain, strict=True):
            torch.testing.assert_close(state.s, s, atol=1e-12, rtol=0)


def test_begun_at_the_smoother_an_untrained_network_stays_there():
    network = Augmented(MODEL, START, graph(trained=False), 0.03, 20, lambda x: SMOOTH)
    torch.testing.assert_close(last(network.states(X)).s, SMOOTH, atol=1e-10, rtol=0)
    torch.testing.assert_close(network(X), MODEL.H @ SMOOTH, atol=1e-10, rtol=0)


def test_a_correction_moves_the_fixed_point():
    network = Augmented(MODEL, START, graph(), 0.03, 20, lambda x: SMOOTH)
    assert (network(X) - MODEL.H @ SMOOTH).abs().max() > 1e-3


def test_the_correction_that_knows_better_repairs_a_wrong_model():
    """ε = the true gradient less the assumed one: the fold is then the right smoother."""
    wrong = MODEL._replace(Q=4 * MODEL.Q)
    states = [SMOOTH + 1.0]

    def oracle(mu, x, memory):
        return sum(messages(states[-1], x, MODEL, START)) - sum(mu), None

    for _ in range(30):
        *_, state = augmented(X, wrong, [0.03], START, oracle, states[-1])
        states.append(state.s)
    *_, right = by_gradient(X, MODEL, repeat(0.03, 30), START, SMOOTH + 1.0)
    torch.testing.assert_close(states[-1], right, atol=1e-12, rtol=0)


# ---- messages of functions ----


def test_a_matrix_as_a_function_sends_the_same_messages():
    functions = MODEL._replace(F=lambda s: MODEL.F @ s, H=lambda s: MODEL.H @ s)
    for ours, theirs in zip(messages(S, X, functions, START), messages(S, X, MODEL, START),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_messages_of_a_nonlinear_model_add_up_to_the_gradient():
    model = lorenz(0.05, 0.7, 0.25, order=2)
    start = Belief(torch.ones(3, 1, dtype=D), 2 * torch.eye(3, dtype=D))
    x, s = simulated(model, start, white(6, 2, model, seeded(4)))
    s = (s + 0.1).requires_grad_()
    mean = model.F(start.s)
    J = torch.func.jacrev(lambda v: model.F(v[:, None])[:, 0])(start.s[:, 0])
    spread = J @ start.Sigma @ J.mT + model.Q
    errors = ((s[:1] - mean, spread), (s[1:] - model.F(s[:-1]), model.Q), (x - s, model.R))
    joint = sum(-(e * torch.linalg.solve(C, e)).sum() / 2 for e, C in errors)
    (right,) = torch.autograd.grad(joint, s)
    torch.testing.assert_close(sum(messages(s.detach(), x, model, start)), right)


def test_climbing_improves_on_the_extended_smoother():
    """The joint likelihood is not less than where the extended smoother, which approximates, is."""
    model, start = recipes.taylor(1)
    x, _ = recipes.on_attractor(500, seeded(5))
    s = rts(history(filtered(x, model, extended(model), start))).s
    *_, climbed = by_gradient(x, model, repeat(0.1, 60), start, s)
    before, after = (sum(messages(v, x, model, start)).abs().mean() for v in (s, climbed))
    assert after < 1e-3 < before


def test_the_largest_step_is_where_climbing_turns_into_flying():
    one = torch.ones(1, 1, dtype=D)
    walk = Model(one, one, one, one)
    assert largest_step(walk) == pytest.approx(0.4)
    x = torch.randn(200, 1, 1, 1, generator=seeded(9), dtype=D)
    start, size = Belief(0 * one, one), []
    for factor in (0.98, 1.02):
        *_, s = by_gradient(x, walk, repeat(factor * largest_step(walk), 3000), start)
        size.append(s.abs().max())
    assert size[0] < 10 and size[1] > 1e6


# ---- the network ----


def test_nothing_is_drawn_when_it_runs():
    network = Augmented(MODEL, START, graph(), 0.03, 5, lambda x: SMOOTH)
    torch.manual_seed(0)
    one = network(X)
    torch.manual_seed(1)
    assert torch.equal(one, network(X))


def test_one_trajectory_is_a_slice_of_the_batch():
    network = Augmented(MODEL, START, graph(), 0.03, 5, lambda x: MODEL.H.mT @ x)
    torch.testing.assert_close(network(X[:, 1:2]), network(X)[:, 1:2], atol=1e-12, rtol=0)
    torch.testing.assert_close(network(X[:, 1]), network(X)[:, 1], atol=1e-12, rtol=0)


def test_what_a_node_hears_travels_one_step_for_each_iteration():
    """After k iterations an observation has reached the k − 1 nearest states, and no others."""
    for depth in (1, 2, 4):
        network = Augmented(MODEL, START, graph(), 0.03, depth, lambda x: 0 * SMOOTH, silent)
        other = X.clone()
        other[6] += 1.0
        moved = (network(X) - network(other)).abs().amax((1, 2, 3)) > 1e-12
        assert moved.nonzero()[:, 0].tolist() == list(range(6 - depth + 1, 6 + depth))


def test_it_does_not_see_where_the_point_is():
    network = Augmented(MODEL, START, graph(n=2, look=changes), 0.03, 5, lambda x: MODEL.H.mT @ x,
                        silent)  # fmt: skip
    torch.testing.assert_close(network(X + 100.0), network(X) + 100.0)


def test_the_black_box_has_the_same_parameters_and_no_model():
    model = recipes.straight(0.175)
    one, other = (sum(p.numel() for p in make(*model).parameters())
                  for make in (recipes.hybrid, recipes.alone))  # fmt: skip
    assert one == other
    network = recipes.alone(*model)
    x = X.float()
    elsewhere = recipes.alone(model[0]._replace(F=3 * model[0].F, Q=9 * model[0].Q), model[1])
    assert torch.equal(network(x), elsewhere(x))
    assert all(not mu.any() for mu in silent(S, X, MODEL, START))


def test_late_iterations_weigh_more():
    s = torch.zeros(4, 1, 1)
    iterates = torch.stack([torch.full_like(s, v) for v in (3.0, 0.0, 1.0)])
    assert weighted_error(iterates, s) == pytest.approx((1 * 9 + 2 * 0 + 3 * 1) / 6)


def test_messages_carry_no_gradient_but_the_rest_does():
    network = Augmented(MODEL, START, graph(), 0.03, 4, lambda x: SMOOTH)
    weighted_error(network.iterates(X), MODEL.H @ S).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# ---- the recipe ----


def tiny(n_train=400, seed=100):
    network = recipes.hybrid(*recipes.straight(0.175), seed=seed)
    draw = seeded(seed)
    return network, recipes.on_axes(n_train // 2, draw), recipes.on_axes(n_train // 2, draw)


def test_training_leaves_the_best_or_the_plain_smoother():
    network, data, held_out = tiny()
    before = network(held_out[0])
    *_, p = recipes.fitting(network, data, held_out, 1, Stage(40, 5e-3))
    assert p.model is network and p.step == 40 and p.validation is not None
    after = network(held_out[0])
    better = recipes.convincing(after, before, held_out[1])
    assert better or torch.equal(after, before)


def test_what_is_no_better_is_not_kept():
    network, data, (x, s) = tiny()
    for p in recipes.fitting(network, data, (x, network(x).detach()), 1, Stage(30, 5e-3)):
        if p.step == 25:
            break  # the plain smoother is the truth here: nothing can be better
    assert not any(p.any() for p in network.correction.answer.network[-1].parameters())


def test_convincing_needs_more_than_chance():
    g = seeded(6)
    s = torch.zeros(200, 4, 1, 1)
    old = torch.randn(200, 4, 1, 1, generator=g)
    assert recipes.convincing(0.8 * old, old, s)
    assert not recipes.convincing(old, old, s)
    assert not recipes.convincing(torch.randn(200, 4, 1, 1, generator=g), old, s)
    new = old.clone()
    new[:30] *= 0.5  # better in three blocks of twenty
    one, many = new[:, :1].expand(-1, 50, -1, -1), old[:, :1].expand(-1, 50, -1, -1)
    assert recipes.convincing(one, many, 0 * many)  # fifty copies look like evidence
    assert not recipes.convincing(one, many, 0 * many, alike=True)


@pytest.mark.parametrize("n_train", [100, 400, 1600])
def test_a_time_step_of_the_plane_is_one_of_each_axis(n_train):
    x, s = recipes.on_axes(n_train, seeded(7))
    assert x.shape == s.shape and x[..., 0, 0].numel() == 2 * n_train
    x, s = recipes.on_attractor(n_train, seeded(7))
    assert x.shape == s.shape and x[..., 0, 0].numel() == n_train


def test_the_classical_errors_of_the_original_setting():
    """.0708 and .0978 over one draw of ten blocks of a thousand time steps, in its public code."""
    truth, start = recipes.dragged()
    x, s = simulated(truth, start, white(1000, 60, truth, seeded(8)))
    right = rts(history(filtered(x, truth, riccati(truth), start))).s
    model, begin = recipes.straight(0.4**2)
    assumed = recipes.plain(model, begin)(x)
    assert (truth.H @ (right - s)).square().mean() == pytest.approx(0.0708, abs=0.002)
    assert (model.H @ assumed - truth.H @ s).square().mean() == pytest.approx(0.0978, abs=0.004)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="Q: got a singular"):
        augmented(X, MODEL._replace(Q=0 * MODEL.Q), [0.1], START, uncorrected)
    with pytest.raises(ValueError, match="x: got shape"):
        augmented(X.mT.expand(12, 3, 1, 2), MODEL, [0.1], START, uncorrected)
    with pytest.raises(ValueError, match="first: got shape"):
        augmented(X, MODEL, [0.1], START, uncorrected, first=X)


# ---- the shipped weights: figures of all five seeds ----


def by_seed(name):
    entry = weights.learn.manifest()[name]
    return {k: 10 ** (torch.tensor(v) / 10) for k, v in entry["nmse_db_by_seed"].items()}


def test_the_hybrid_is_never_worse_and_comes_nearer():
    mse = by_seed("augmentation_linear")
    x, s = weights.test_set("augmentation_linear")
    model, start = recipes.straight(0.175)
    plain = (model.H @ recipes.plain(model, start)(x) - s).square().mean()
    means = [mse[f"hybrid_n{n}"].mean() for n in recipes.SIZES]
    assert all(mean <= 1.001 * plain for mean in means)
    assert means == sorted(means, reverse=True) and means[-1] < 0.09 and means[-1] > 0.0708


@pytest.mark.parametrize(("order", "published"), [(1, 0.178), (2, 0.165)])
def test_on_the_attractor_it_beats_the_extended_smoother(order, published):
    mse = by_seed("augmentation_lorenz")
    x, s = weights.test_set("augmentation_lorenz")
    plain = (recipes.plain(*recipes.taylor(order))(x) - s).square().mean()
    assert plain < published
    for n in recipes.SIZES:
        assert mse[f"hybrid_j{order}_n{n}"].mean() <= 1.001 * plain
    assert mse[f"hybrid_j{order}_n1600"].max() < plain


def test_the_graph_network_alone_needs_many_times_the_data():
    """At least five times, read off between the sizes on log axes."""
    mse = by_seed("augmentation_lorenz")
    sizes = torch.tensor([*recipes.SIZES, recipes.MORE]).log()
    alone = torch.stack([mse[f"alone_n{n}"].mean().log() for n in (*recipes.SIZES, recipes.MORE)])
    assert (alone.diff() <= 0).all()
    for order in (1, 2):
        for n in recipes.SIZES:
            wanted = mse[f"hybrid_j{order}_n{n}"].mean().log()
            later = int((alone <= wanted).to(int).argmax())  # the first size that is good enough
            if later == 0:  # none is
                assert wanted < alone[-1]
                continue
            part = (alone[later - 1] - wanted) / (alone[later - 1] - alone[later])
            needed = (sizes[later - 1] + part * (sizes[later] - sizes[later - 1])).exp()
            assert needed > 5 * n, (order, n)
    for order in (1, 2):  # sixteen times
        assert mse[f"hybrid_j{order}_n1600"].mean() < mse["alone_n25600"].mean()
