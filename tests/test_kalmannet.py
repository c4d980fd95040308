"""KalmanNet: the filling law, the published sizes, what training does, and the classical rivals."""

import pytest
import torch
from torch import nn

from mbdl_course import show, tracking
from mbdl_course.fold import islice, repeat
from mbdl_course.learn import Stage, seeded, training
from mbdl_course.networks import parameters
from mbdl_course.tracking import (
    RNN,
    Belief,
    Filter,
    Gain,
    Given,
    KalmanNet,
    OneGRU,
    SplitGRUs,
    ThreeGRUs,
    canonical,
    chain,
    compressed,
    extended,
    filtered,
    history,
    innovation_error,
    lorenz,
    mse_db,
    nees,
    recovered,
    riccati,
    robust,
    simulated,
    spots,
    state_error,
    switching,
    unit,
    white,
    windows,
)

D = torch.float64
MODEL = canonical(2, 0.01, 1.0)
START = Belief(torch.zeros(2, 1, dtype=D), torch.zeros(2, 2, dtype=D))
X, S = simulated(MODEL, START, white(30, 20, MODEL, seeded(1)))
KALMAN = history(filtered(X, MODEL, riccati(MODEL), START))
NETWORKS = {
    "one": lambda g=None: OneGRU(2, 2, wide=4, hidden=2, generator=g).double(),
    "three": lambda g=None: ThreeGRUs(2, 2, 3, 4, generator=g).double(),
    "split": lambda g=None: SplitGRUs(2, 2, generator=g).double(),
}


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# ---- The filling law --------------------------------------------------------------------------


def of_riccati(model, Sigma):
    """The network's slot filled with the model's own part: the covariance is the hidden state."""

    def network(features, H, hidden):
        before = model.F @ (Sigma if hidden is None else hidden) @ model.F.mT + model.Q
        K = torch.linalg.solve(H @ before @ H.mT + model.R, H @ before).mT
        return K.expand(len(features.innovation), *K.shape), before - K @ H @ before

    return network


def test_with_the_models_own_part_it_is_the_kalman_filter():
    gain = KalmanNet(MODEL, of_riccati(MODEL, START.Sigma))
    close(history(filtered(X, MODEL, gain, START)).s, KALMAN.s)


@pytest.mark.parametrize("name", ["one", "three"])
@pytest.mark.parametrize("scaling", [unit, compressed])
def test_before_training_it_is_its_base(name, scaling):
    gain = KalmanNet(MODEL, NETWORKS[name](seeded(2)), base=riccati(MODEL), scaling=scaling)
    ours = history(filtered(X, MODEL, gain, START))
    close(ours.s, KALMAN.s)
    close(ours.Sigma, KALMAN.Sigma)
    nonlinear = lorenz(0.02, 0.1, 1.0, order=2)
    start = Belief(tracking.attractor(3, seeded(3)), torch.eye(3, dtype=D))
    x, _ = simulated(nonlinear, start, white(10, 3, nonlinear, seeded(4)))
    gain = KalmanNet(nonlinear, OneGRU(3, 3, hidden=1).double(), base=extended(nonlinear))
    theirs = history(filtered(x, nonlinear, extended(nonlinear), start))
    close(history(filtered(x, nonlinear, gain, start)).s, theirs.s)


def test_split_with_the_models_own_parts_is_the_kalman_filter():
    network = SplitGRUs(2, 2).double()
    told = iter(zip(KALMAN.gain.before, KALMAN.gain.S, strict=True))

    class Told:  # P and S⁻¹ in the two branches' places
        def __init__(self, part):
            self.part = part

        def __call__(self, rows, hidden):
            if self.part == 0:
                self.now = next(told)
                return self.now[0].expand(len(rows), 2, 2), None
            return torch.linalg.inv(p.now[1]).expand(len(rows), 2, 2), None

    p = Told(0)
    network.first, network.__dict__["of_p"], network.__dict__["of_w"] = 0.0, p, Told(1)
    del network._modules["of_p"], network._modules["of_w"]
    close(history(filtered(X, MODEL, KalmanNet(MODEL, network), START)).s, KALMAN.s)


def test_identity_features_are_the_plain_filter():
    given = Given(START.s, X)
    encoded = Filter(MODEL, riccati(MODEL), START.Sigma, encoder=nn.Identity())(given)
    close(encoded.s, KALMAN.s)
    close(encoded.Sigma, KALMAN.Sigma)


# ---- As published -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (OneGRU(2, 2), 99_444),
        (ThreeGRUs(2, 2), 5_208),
        (ThreeGRUs(3, 3), 23_928),
        (ThreeGRUs(3, 3, deep=5), 6_288),
        (ThreeGRUs(2, 2, deep=5), 1_568),
        (ThreeGRUs(5, 5), 173_400),
    ],
)
def test_sizes_are_the_published_ones(network, count):
    assert parameters(network) == count


def test_features_are_what_they_say():
    seen = []

    def spy(features, H, hidden):
        seen.append(features)
        return torch.full((20, 2, 2), 0.1, dtype=D), None

    gain = KalmanNet(MODEL, spy, scaling=lambda v: v)
    s = [START.s.expand(20, 2, 1)] + list(history(filtered(X, MODEL, gain, START)).s)
    t, F, H = 3, MODEL.F, MODEL.H
    close(seen[t].difference, (X[t] - X[t - 1])[..., 0])
    close(seen[t].innovation, (X[t] - H @ F @ s[t])[..., 0])
    close(seen[t].evolution, (s[t] - s[t - 1])[..., 0])
    close(seen[t].update, (s[t] - F @ s[t - 1])[..., 0])
    close(seen[0].difference, (X[0] - H @ s[0])[..., 0])
    assert not seen[0].evolution.any() and not seen[0].update.any()


def test_the_published_normalisation_loses_the_size():
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=D)
    close(unit(v), torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=D))
    close(unit(1000 * v), unit(v))
    assert (compressed(1000 * v) - compressed(v))[0].min() > 5
    close(compressed(1e-5 * v), 1e-5 * v)


def test_a_final_relu_cannot_answer_negative_numbers():
    given = Given(START.s, X)
    plain = RNN(2, 2, generator=seeded(3)).double()(given).s
    assert plain.shape == S.shape and (plain < 0).any()
    assert RNN(2, 2, relu=True, generator=seeded(3)).double()(given).s.min() >= 0


# ---- Laws -------------------------------------------------------------------------------------


def stirred(name, seed=5):
    network = NETWORKS[name](seeded(seed))
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=seeded(seed + p.numel()), dtype=D)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one_is_a_slice_and_nothing_is_mutated(name):
    gain = KalmanNet(MODEL, stirred(name))
    x = X.clone()
    whole = history(filtered(x, MODEL, gain, START)).s
    assert torch.equal(x, X)
    close(history(filtered(X[:, 4], MODEL, gain, START)).s, whole[:, 4])
    close(history(filtered(X[:, 4:5], MODEL, gain, START)).s, whole[:, 4:5])
    square = X.unflatten(1, (4, 5))
    close(history(filtered(square, MODEL, gain, START)).s, whole.unflatten(1, (4, 5)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gain_gradient_is_right(name):
    given, network = Given(START.s, X[:4, :2]), stirred(name)
    module = Filter(MODEL, KalmanNet(MODEL, network, scaling=compressed))
    assert torch.autograd.gradcheck(
        lambda *_: module(given).s, tuple(network.parameters()), atol=1e-5, fast_mode=True
    )


def test_truncated_back_propagation_is_what_it_says():
    given, network = Given(START.s, X[:6, :3]), stirred("one")
    whole = Filter(MODEL, KalmanNet(MODEL, network))
    cut = Filter(MODEL, KalmanNet(MODEL, network), cut=3)
    close(whole(given).s, cut(given).s)
    state_error(cut(given), S[:6, :3]).backward()
    by_cut = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    *_, middle = filtered(X[:3, :3], MODEL, whole.gain, START)
    middle = tracking.networks.detached(middle)
    late = history(filtered(X[3:6, :3], MODEL, whole.gain, middle)).s
    early = history(filtered(X[:3, :3], MODEL, whole.gain, START)).s
    state_error(Belief(torch.cat([early, late])), S[:6, :3]).backward()
    for ours, p in zip(by_cut, network.parameters(), strict=True):
        close(ours, p.grad)


def test_windows_start_at_the_true_state():
    start = START.s.expand(20, 2, 1)
    given, s = next(windows(start, X, S, 8, [(5, 1)], seed=0))
    assert given.xs.shape == s.shape == (5, 8, 2, 1)
    path = torch.cat([start[None], S])
    for b in range(8):
        t, k = ((path == given.start[b]).all((-2, -1))).nonzero()[-1].tolist()
        if t or given.start[b].any():
            close(s[:, b], S[t : t + 5, k])
    a, b = (next(windows(start, X, S, 8, [(5, 1)], seed=0, spread=v))[0].start for v in (0.0, 2.0))
    assert 0.5 < (a - b).std() < 4
    with pytest.raises(ValueError, match="horizons: got 31"):
        windows(start, X, S, 8, [(31, 1)], seed=0)
    sizes = [len(s) for _, s in windows(start, X, S, 8, [(5, 2), (9, 1)], seed=0)]
    assert sizes == [5, 5, 9]


def test_the_kalman_gain_gives_back_its_covariance():
    close(recovered(KALMAN.gain.K[:, 0], MODEL.H, MODEL.R), KALMAN.Sigma[:, 0])
    tall = MODEL._replace(
        H=torch.randn(3, 2, generator=seeded(6), dtype=D), R=torch.eye(3, dtype=D)
    )
    x, s = simulated(tall, START, white(10, 400, tall, seeded(7)))
    b = history(filtered(x, tall, riccati(tall), START))
    claim = recovered(b.gain.K[:, 0], tall.H, tall.R)
    close(claim, b.Sigma[:, 0])
    assert abs(nees(b.s, claim[:, None], s).mean() - 2) < 0.1
    with pytest.raises(ValueError, match="H: got rank 1"):
        recovered(KALMAN.gain.K, MODEL.H[:1], MODEL.R[:1, :1])


# ---- Training ---------------------------------------------------------------------------------

TRUE = canonical(2, 0.01, 1.0, dtype=torch.float32)
ZERO = Belief(torch.zeros(2, 1), torch.zeros(2, 2))


def trained(module, loss, steps=60, seed=8):
    x, s = simulated(TRUE, ZERO, white(20, 200, TRUE, seeded(seed)))
    source = ((Given(ZERO.s, x[:, k]), s[:, k]) for k in repeat(slice(None)))
    *_, p = training(module, source, loss, [Stage(steps, 1e-2)], clip=1.0)
    return p


def test_training_brings_it_near_the_kalman_filter():
    module = Filter(TRUE, KalmanNet(TRUE, OneGRU(2, 2, wide=4, hidden=2, generator=seeded(9))))
    trained(module, state_error)
    x, s = simulated(TRUE, ZERO, white(20, 500, TRUE, seeded(10)))
    with torch.no_grad():
        ours = mse_db(module(Given(ZERO.s, x)).s, s)
    best = mse_db(history(filtered(x, TRUE, riccati(TRUE), ZERO)).s, s)
    assert best < ours < best + 1.0


def test_unsupervised_training_looks_at_no_state():
    x, s = simulated(TRUE, ZERO, white(20, 500, TRUE, seeded(10)))
    module = Filter(TRUE, KalmanNet(TRUE, OneGRU(2, 2, wide=4, hidden=2, generator=seeded(9))))
    before = mse_db(module(Given(ZERO.s, x)).s, s)
    trained(module, lambda b, _: innovation_error(b, None))
    assert mse_db(module(Given(ZERO.s, x)).s, s) < before - 1.0


# ---- Rivals and problems ----------------------------------------------------------------------


def test_a_robust_gain_that_believes_everything_is_the_kalman_filter():
    close(history(filtered(X, MODEL, robust(MODEL, most=1e9), START)).s, KALMAN.s)
    hit = X.clone()
    hit[10] += 100.0
    plain = history(filtered(hit, MODEL, riccati(MODEL), START)).s
    guarded = history(filtered(hit, MODEL, robust(MODEL), START)).s
    assert mse_db(guarded, S) < mse_db(plain, S) - 10
    with pytest.raises(ValueError, match="most"):
        robust(MODEL, 0.0)


def test_modes_that_are_all_alike_are_the_kalman_filter():
    b = history(filtered(X, MODEL, switching(MODEL, MODEL.R.expand(3, 2, 2), 0.9), START))
    close(b.s, KALMAN.s)
    close(b.Sigma, KALMAN.Sigma.expand_as(b.Sigma))
    jump = torch.full((3, 3), 0.05, dtype=D) + 0.85 * torch.eye(3, dtype=D)
    told = history(filtered(X, MODEL, switching(MODEL, MODEL.R.expand(3, 2, 2), jump), START))
    close(told.s, KALMAN.s)
    for Rs, stay in ((MODEL.R[None], 0.9), (MODEL.R.expand(3, 2, 2), 0.9 * jump)):
        with pytest.raises(ValueError, match="modes"):
            switching(MODEL, Rs, stay)


def test_modes_find_the_noise_that_changes():
    deviations = torch.tensor([0.3, 3.0], dtype=D)
    level = chain(100, 200, 2, 0.95, seeded(11))
    noise = white(100, 200, MODEL, seeded(12))
    x, s = simulated(MODEL, START, noise._replace(w=deviations[level][..., None, None] * noise.w))
    Rs = deviations.square()[:, None, None] * MODEL.R
    found = history(filtered(x, MODEL, switching(MODEL, Rs, 0.95), START))
    mean = MODEL._replace(R=Rs.mean(0))
    plain = history(filtered(x, MODEL, riccati(mean), START))
    assert mse_db(found.s, s) < mse_db(plain.s, s) - 0.8
    assert abs(nees(found.s, found.Sigma, s).mean() - 2) < 0.3


def test_chain_stays_as_often_as_it_says():
    level = chain(400, 500, 3, 0.9, seeded(13))
    assert level.shape == (400, 500) and set(level.unique().tolist()) == {0, 1, 2}
    assert abs((level[1:] == level[:-1]).double().mean() - 0.9) < 0.01
    assert abs((level == 1).double().mean() - 1 / 3) < 0.02
    for bad in ((1, 0.5), (2, 1.5)):
        with pytest.raises(ValueError, match="modes, stay"):
            chain(4, 5, *bad, seeded(0))


def test_spots_are_where_they_are():
    p = torch.tensor([[[0.5], [-1.0]], [[0.0], [2.0]]], dtype=D)
    image = spots(p, size=61)
    assert image.shape == (2, 61, 61)
    grid = torch.linspace(-3, 3, 61, dtype=D)
    w = image / image.sum((-2, -1), keepdim=True)
    close((w.sum(-1) * grid).sum(-1), p[:, 0, 0], 5e-2)
    close((w.sum(-2) * grid).sum(-1), p[:, 1, 0], 8e-2)


# ---- Bad input --------------------------------------------------------------------------------


def test_missing_observations_are_told():
    x = X.clone()
    x[3, 0] = torch.nan
    with pytest.raises(ValueError, match="missing entries"):
        list(filtered(x, MODEL, KalmanNet(MODEL, NETWORKS["one"]()), START, missing=True))


def test_a_gain_that_diverges_is_told():
    def wild(features, H, hidden):
        return torch.full((len(features.innovation), 2, 2), -1e12, dtype=D), None

    with pytest.raises(FloatingPointError, match="diverged"):
        list(islice(filtered(X.repeat(3, 1, 1, 1), MODEL, KalmanNet(MODEL, wild), START), 100))


def test_a_bad_model_is_told():
    with pytest.raises(TypeError, match="model: got str"):
        KalmanNet("model", NETWORKS["one"]())
    with pytest.raises(ValueError, match="Q: got"):
        KalmanNet(MODEL._replace(Q=-MODEL.Q), NETWORKS["one"]())


def test_a_base_answers_the_same_slot():
    def fixed(belief, x):
        return Gain(0.5 * torch.eye(2, dtype=D), None, None)

    b = history(filtered(X, MODEL, KalmanNet(MODEL, NETWORKS["one"](), base=fixed), START))
    close(b.gain.K, 0.5 * torch.eye(2, dtype=D).expand_as(b.gain.K))


# ---- Figures ----------------------------------------------------------------------------------


def test_paths_in_space_and_quiet_lines():
    points = torch.randn(20, 3, generator=seeded(14))
    figure = show.space({"one": [("truth", points)], "two": [("truth", points)]})
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 1
    figure, update = show.live_lines(
        [{"title": "a"}, {"title": "b"}],
        {"shown": (0, "truth"), "quiet": (1, "truth", {"label": "_"})},
    )
    update({"quiet": ([0, 1], [2, 3])})
    assert [axes.get_legend() is not None for axes in figure.axes] == [True, False]
