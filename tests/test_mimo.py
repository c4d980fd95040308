"""MIMO detection: enumeration, theory, the filling law, and what training does."""

import math
from itertools import product, repeat

import numpy as np
import pytest
import torch
from scipy import stats

from mbdl_course import mimo, weights
from mbdl_course.fold import islice, last
from mbdl_course.learn import Stage, draws, seeded, training
from mbdl_course.mimo import (
    GAUSSIAN,
    POISSON,
    SATURATED,
    SQUARE_LAW,
    BlackBox,
    DeepSIC,
    DetNet,
    Layers,
    OAMPNet,
    Received,
    ber,
    counted,
    counts,
    cross_entropy,
    decaying,
    end_to_end,
    every_layer,
    hard,
    least_squares,
    maximum_likelihood,
    mmse,
    oamp,
    projected_gradient,
    qpsk_ser,
    rayleigh,
    real_model,
    sequentially,
    soft_interference_cancellation,
    symbols,
    uncertain,
    variance,
    zero_forcing,
)
from mbdl_course.weights import mimo as recipes

D = torch.float64
g = seeded(0)
H = rayleigh(5, 3, generator=g, dtype=D)
S = symbols(40, 3, 1, generator=g, dtype=D)
W = torch.randn(40, 5, 1, generator=g, dtype=D)
X = GAUSSIAN.observed(S, H, W, 3.0)
POSITIVE = decaying(5, 3, D)


def sic(x, H, noise, depth=5):
    return last(soft_interference_cancellation(x, H, repeat((noise,), depth)))


# ---- The problem -------------------------------------------------------------------------------


def q(z):
    return math.erfc(z / 2**0.5) / 2


@pytest.mark.parametrize("snr_db", [0.0, 4.0, 8.0])
def test_on_a_flat_channel_the_errors_are_those_of_theory(snr_db):
    """σ² is per real dimension: the bit error rate is Q(√SNR), and a QPSK symbol has two bits."""
    g = seeded(7)
    flat = real_model(torch.eye(2, dtype=torch.complex128))
    s = symbols(100_000, 4, 1, generator=g, dtype=D)
    x = GAUSSIAN.observed(s, flat, torch.randn(s.shape, generator=g, dtype=D), snr_db)
    p = q(10 ** (snr_db / 20))
    bits = counted(int(mimo.wrong(x, s).sum()), s.numel())
    assert bits.low < p < bits.high
    pairs = counted(round(qpsk_ser(x, s).item() * s.numel() / 2), s.numel() // 2)
    assert pairs.low < 1 - (1 - p) ** 2 < pairs.high
    assert bits.rate == pytest.approx(ber(x, s).item()) and bits.rate < pairs.rate


def test_rates_are_what_their_names_say():
    s = torch.ones(2, 4, 1)
    s_hat = torch.tensor([[-0.1, 2, -3, 1], [1, 1, 1, 1.0]])[..., None]
    assert ber(s_hat, s) == 2 / 8  # bits 0 and 2, which are one QPSK symbol: (0, 2)
    assert qpsk_ser(s_hat, s) == 1 / 4
    assert torch.equal(hard(torch.tensor([0.0, -0.0, -1e-9])), torch.tensor([1.0, 1.0, -1.0]))


def test_the_interval_is_wilsons():
    from statsmodels.stats.proportion import proportion_confint

    for errors, trials in ((0, 100), (3, 1000), (1000, 1000)):
        low, high = proportion_confint(errors, trials, method="wilson")
        np.testing.assert_allclose(counted(errors, trials)[2:], (low, high), atol=1e-6)
    with pytest.raises(ValueError, match="errors: got 3 in 2 trials"):
        counted(3, 2)


def test_the_real_model_is_the_complex_one():
    g = seeded(1)
    H, s = (torch.randn(*shape, generator=g, dtype=torch.complex128) for shape in ((4, 3), (3, 1)))
    stacked = real_model(H) @ torch.cat([s.real, s.imag])
    torch.testing.assert_close(stacked, torch.cat([(H @ s).real, (H @ s).imag]))


def test_counts_are_poissons_quantiles():
    g = seeded(2)
    rate = 200 * torch.rand(300, generator=g, dtype=D)
    w = torch.randn(300, generator=g, dtype=D)
    expected = stats.poisson.ppf(stats.norm.cdf(w.numpy()), rate.numpy())
    np.testing.assert_array_equal(counts(rate, w).numpy(), expected)
    assert counts(torch.zeros(1), torch.zeros(1)) == 0
    for bad, end in ((-1.0, "to 700$"), (1e4, "lower the SNR$"), (math.nan, "to 700$")):
        with pytest.raises(ValueError, match=f"rate: got .*{end}"):
            counts(torch.tensor([bad]), torch.zeros(1))


def test_channels_are_scaled_as_said():
    H = rayleigh(7, 20, 10, generator=seeded(3), dtype=D)
    torch.testing.assert_close(H.square().sum((-2, -1)), torch.full((7,), 10.0, dtype=D))
    z = torch.randn(100_000, 1, 1, generator=seeded(4), dtype=D)
    assert (uncertain(torch.ones(1, 1, dtype=D), 0.1, z) - 1).square().mean() == pytest.approx(
        0.1, rel=0.02
    )
    with pytest.raises(ValueError, match="error: got -1"):
        uncertain(H, -1, 0.0)


def test_the_same_draw_moves_smoothly_with_the_snr():
    for channel in (GAUSSIAN, SATURATED, SQUARE_LAW):
        a, b = (channel.observed(S, POSITIVE, W, snr) for snr in (10.0, 10.01))
        assert 0 < (a - b).abs().max() < 0.01
    a, b = (POISSON.observed(S, POSITIVE, W, snr) for snr in (20.0, 20.01))
    assert (a - b).abs().max() <= 1


# ---- The reference: enumeration ----------------------------------------------------------------


def log_probability(channel, x, s, snr_db):
    mean = (POSITIVE @ s).numpy()
    on = (POSITIVE @ (s + 1) / 2).numpy()
    if channel is POISSON:
        return stats.poisson.logpmf(x.numpy(), 10 ** (snr_db / 20) * on + 1).sum()
    mean = {SATURATED: np.tanh(mean), SQUARE_LAW: on**2}.get(channel, mean)
    return stats.norm.logpdf(x.numpy(), mean, 10 ** (-snr_db / 20)).sum()


@pytest.mark.parametrize("channel", [GAUSSIAN, SATURATED, SQUARE_LAW, POISSON])
def test_maximum_likelihood_is_enumeration(channel):
    x = channel.observed(S, POSITIVE, W, 12.0)
    found = maximum_likelihood(x, POSITIVE, 12.0, channel.log_likelihood)
    every = [torch.tensor(v, dtype=D)[:, None] for v in product((-1.0, 1.0), repeat=3)]
    for x_one, s_hat in zip(x, found, strict=True):
        best = max(every, key=lambda s: log_probability(channel, x_one, s, 12.0))
        assert torch.equal(s_hat, best)


def test_maximum_likelihood_over_many_blocks_and_channels():
    g = seeded(5)
    H = rayleigh(6, 9, 8, generator=g, dtype=D)  # 256 candidates, four blocks
    x = torch.randn(6, 9, 1, generator=g, dtype=D)
    S = torch.tensor(list(product((-1.0, 1.0), repeat=8)), dtype=D).mT
    best = (x - H @ S).square().sum(-2).argmin(-1)
    assert torch.equal(maximum_likelihood(x, H), S.mT[best][..., None])


def test_too_many_candidates_are_refused():
    with pytest.raises(ValueError, match="17 users, 2\\^17 hypotheses, expected 16 at most"):
        maximum_likelihood(torch.zeros(17, 1), torch.eye(17))


# ---- Linear ------------------------------------------------------------------------------------


def test_linear_detectors_are_their_formulas():
    pinv = torch.linalg.pinv(H) @ X
    torch.testing.assert_close(zero_forcing(X, H), pinv)
    wiener = H.mT @ torch.linalg.solve(H @ H.mT + 0.3 * torch.eye(5, dtype=D), X)
    torch.testing.assert_close(mmse(X, H, 0.3), wiener)


def test_least_squares_is_numpys():
    x, s = X + 2, S
    fit = least_squares(x, s)
    A = np.c_[s[..., 0].numpy(), np.ones(40)]
    theirs, left, *_ = np.linalg.lstsq(A, x[..., 0].numpy(), rcond=None)
    np.testing.assert_allclose(fit.H.numpy(), theirs[:3].T, atol=1e-12)
    np.testing.assert_allclose(fit.offset[:, 0].numpy(), theirs[3], atol=1e-12)
    np.testing.assert_allclose(fit.variance[:, 0].numpy(), left / 36, atol=1e-12)
    with pytest.raises(ValueError, match="x, s: got 4 and 4 pairs"):
        least_squares(x[:4], s[:4])


# ---- Soft interference cancellation ------------------------------------------------------------


def test_one_user_is_the_matched_filter():
    h = H[:, :1]
    states = islice(soft_interference_cancellation(X, h, repeat((0.5,))), 5)
    for odds in list(states)[1:]:
        torch.testing.assert_close(odds, 2 * h.mT @ X / 0.5)


def directly(x, H, odds, noise):
    """The text's formulas, user by user."""
    e, found = torch.tanh(odds / 2), []
    for k in range(H.shape[-1]):
        z, Sigma = x, noise * torch.eye(H.shape[-2], dtype=D)
        for other in set(range(H.shape[-1])) - {k}:
            h = H[:, other : other + 1]
            z = z - h * e[..., other : other + 1, :]
            Sigma = Sigma + (1 - e[..., other : other + 1, :].square()) * (h @ h.mT)
        h = H[:, k : k + 1]
        found.append(2 * h.mT @ torch.linalg.solve(Sigma, z))
    return torch.cat(found, -2)


def test_a_step_is_the_formulas_of_the_text():
    states = list(islice(soft_interference_cancellation(X, H, repeat((0.5,))), 6))
    for before, after in zip(states, states[1:], strict=False):
        torch.testing.assert_close(after, directly(X, H, before, 0.5))
    assert torch.equal(hard(states[1]), hard(mmse(X, H, 0.5)))  # the first one decides as MMSE


def test_noise_may_differ_between_antennas():
    noise = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=D)[:, None]
    scaled = sic(X / noise.sqrt(), H / noise.sqrt(), 1.0)
    torch.testing.assert_close(sic(X, H, noise), scaled)


@pytest.mark.parametrize("snr_db", [-20.0, 60.0, 80.0])
def test_it_is_safe_at_any_snr(snr_db):
    x = GAUSSIAN.observed(S, H, W, snr_db).float()
    odds = sic(x, H.float(), variance(snr_db), 20)
    assert odds.isfinite().all()
    assert snr_db < 0 or ber(odds, S.float()) == 0


def test_it_beats_the_linear_detectors_and_not_the_search():
    g = seeded(11)
    H, s = decaying(4, 4), symbols(20_000, 4, 1, generator=g)
    x = GAUSSIAN.observed(s, H, torch.randn(s.shape, generator=g), 10.0)
    noise = variance(10.0)
    rates = [
        ber(s_hat, s)
        for s_hat in (maximum_likelihood(x, H), sic(x, H, noise), mmse(x, H, noise),
                      zero_forcing(x, H))
    ]  # fmt: skip
    assert rates == sorted(rates) and rates[1] < 2 * rates[0]


# ---- Descent and message passing ---------------------------------------------------------------


def test_projected_gradient_solves_the_box():
    from scipy.optimize import lsq_linear

    for x, s in zip(X[:5], last(projected_gradient(X[:5], H, repeat((0.3,), 3000))).s, strict=True):
        theirs = lsq_linear(H.numpy(), x[:, 0].numpy(), (-1, 1), tol=1e-12).x
        np.testing.assert_allclose(s[:, 0].numpy(), theirs, atol=1e-6)


def test_oamp_is_the_formulas_of_the_paper():
    noise, n, m = 0.4, 5, 3
    s = torch.zeros(40, 3, 1, dtype=D)
    for found in list(oamp(X, H, repeat((1.0, 1.0), 4), noise))[1:]:
        v = ((X - H @ s).square().sum((-2, -1)) - n * noise) / H.square().sum()
        v = v.clamp(min=1e-3 * noise)[:, None, None]
        W_hat = (
            v
            * H.mT
            @ torch.linalg.solve(
                v * (H @ H.mT) + noise * torch.eye(n, dtype=D),
                torch.eye(n, dtype=D).expand(40, n, n),
            )
        )
        W = m / (W_hat @ H).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * W_hat
        B = torch.eye(m, dtype=D) - W @ H
        tau = (B @ B.mT).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * v / m
        tau = tau + (W @ W.mT).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * noise / m
        s = torch.tanh((s + W @ (X - H @ s)) / tau)
        torch.testing.assert_close(found, s)


# ---- The slots ---------------------------------------------------------------------------------


def test_a_batch_of_one_is_a_slice_and_inputs_stay():
    x, channel = X.clone(), H.clone()
    model = DeepSIC(5, 3, 2, widths=(8, 4), generator=seeded(1)).double()
    for method in (
        lambda x: sic(x, H, 0.5), lambda x: maximum_likelihood(x, H), lambda x: mmse(x, H, 0.5),
        lambda x: last(projected_gradient(x, H, repeat((0.3,), 5))).s,
        lambda x: last(oamp(x, H, repeat((1.0, 1.0), 5), 0.5)), model,
    ):  # fmt: skip
        torch.testing.assert_close(method(X)[3:4], method(X[3:4]))
    assert torch.equal(X, x) and torch.equal(H, channel)


def test_many_receivers_are_each_their_own():
    model = DeepSIC(5, 3, 2, (4,), (8, 4), generator=seeded(1)).double()
    x = torch.stack([X, 2 * X, -X, X], 1)
    together = model(x)
    for i in range(4):
        alone = DeepSIC(5, 3, 2, (), (8, 4)).double()
        with torch.no_grad():
            for ours, theirs in zip(alone.parameters(), model.parameters(), strict=True):
                ours.copy_(theirs[i])
        torch.testing.assert_close(together[:, i], alone(x[:, i]))
    boxes = BlackBox(5, 3, (4,), generator=seeded(2)).double()
    assert boxes(x).shape == (40, 4, 3, 1)


def test_gradients_of_one_receiver_are_its_own():
    model = DeepSIC(5, 3, 2, (4,), (8, 4), generator=seeded(1)).double()
    odds = model(torch.stack([X] * 4, 1))
    cross_entropy(odds[:, 2], S).backward()
    for p in model.parameters():
        assert p.grad[[0, 1, 3]].abs().max() == 0 and p.grad[2].abs().sum() > 0


@pytest.mark.parametrize(("train", "most"), [(sequentially, 1.5), (end_to_end, 3.0)])
def test_training_lowers_the_errors(train, most):
    g = seeded(12)
    H, s = decaying(3, 3), symbols(2000, 2, 3, 1, generator=g)
    x = GAUSSIAN.observed(s, H, torch.randn(s.shape, generator=g), 8.0)
    model = DeepSIC(3, 3, 2, (2,), (16, 8), generator=seeded(13))
    *_, p = train(model, x[:1000], s[:1000], steps=150, seed=1)
    assert p.model is model and p.step == p.steps == (300 if train is sequentially else 150)
    with torch.no_grad():
        odds = model(x[1000:])
    assert ber(odds, s[1000:]) < most * ber(maximum_likelihood(x[1000:], H), s[1000:])
    again = DeepSIC(3, 3, 2, (2,), (16, 8), generator=seeded(13))
    *_, _ = train(again, x[:1000], s[:1000], steps=150, seed=1)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_cross_entropy_is_torchs():
    odds = torch.randn(6, 3, 1, generator=seeded(1), dtype=D)
    s = symbols(6, 3, 1, generator=seeded(2), dtype=D)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(odds, (s + 1) / 2)
    torch.testing.assert_close(cross_entropy(odds, s), 3 * theirs)


def test_every_layer_is_told():
    net = DetNet(3, 4, generator=seeded(1)).double()
    received = Received(X, H.expand(40, 5, 3), torch.full((40, 1, 1), 0.5, dtype=D))
    stack = Layers(net)(received)
    assert stack.shape == (4, 40, 3, 1) and torch.equal(stack[-1], net(received))
    error = sum(math.log(k + 2) * (stack[k] - S).square().sum((-2, -1)).mean() for k in range(4))
    torch.testing.assert_close(every_layer(stack, S), error)
    every_layer(stack, S).backward()
    unused = {id(p) for p in [*net.thetas.layers[-1]][-2:]}  # nobody reads the last memory
    for p in net.parameters():
        assert id(p) in unused or p.grad.isfinite().all()


def test_detnet_and_oampnet_learn():
    def draw(count, g):
        H = rayleigh(count, 6, 4, generator=g)
        s = symbols(count, 4, 1, generator=g)
        w = torch.randn(count, 6, 1, generator=g)
        noise = torch.full((count, 1, 1), variance(8.0))
        return Received(GAUSSIAN.observed(s, H, w, 8.0), H, noise), s

    x, s = draw(5000, seeded(20))
    for net, lr in ((DetNet(4, 5, generator=seeded(1)), 3e-3), (OAMPNet(4), 3e-2)):
        before = ber(net(x), s)
        for _ in training(Layers(net), draws(draw, 200, 2), every_layer, [Stage(150, lr)]):
            pass
        assert ber(net(x), s) < before


# ---- What is shipped, and what the chapter draws -----------------------------------------------


def test_the_shipped_networks_keep_the_order_of_the_literature():
    received, s = recipes.scattered(8000, seeded(30), 10.0)
    networks = weights.shipped("mimo_unfolded")
    with torch.no_grad():
        middle = [ber(networks[name](received), s) for name in ("detnet", "oampnet")]
    linear = [ber(zero_forcing(*received[:2]), s), ber(mmse(*received), s)]
    best = ber(maximum_likelihood(*received[:2]), s)
    assert linear[0] > linear[1] > max(middle) and min(middle) > best
    assert max(middle) < 0.6 * linear[1]


def test_32_users_without_knowing_the_channel():
    x, s = recipes.pilots(2000, seeded(31), 10.0)
    with torch.no_grad():
        learned = ber(weights.shipped("deepsic_many")(x), s)
    H = decaying(32, 32)
    assert ber(sic(x, H, variance(10.0)), s) < learned < ber(mmse(x, H, variance(10.0)), s)


def test_what_the_chapter_draws():
    s, w, believed = recipes.frames(1000, 1)
    assert s.shape == w.shape == (1000, 4, 1, 5, 4, 1) and believed.shape[-2:] == (4, 4)
    assert torch.equal(believed[0], believed[499]) and not torch.equal(believed[499], believed[500])
    (x, s), (x_test, _) = recipes.laboratory("Gaussian", 300.0, 200, 0.0)
    torch.testing.assert_close(x, decaying(4, 4) @ s)
    (x_wrong, same), (x_again, _) = recipes.laboratory("Gaussian", 300.0, 700, 0.3)
    assert len(x_wrong) == 700 and torch.equal(same[:200], s)
    assert torch.equal(x_again, x_test)  # tested on the true channel, on the same draw
    assert not torch.allclose(x_wrong[:200], x)
    (x_counts, _), _ = recipes.laboratory("Poisson", 28.0, 5000, 0.5)  # beliefs stay positive
    assert x_counts.min() >= 0


# ---- Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        lambda x, H: maximum_likelihood(x, H),
        lambda x, H: mmse(x, H, 0.5),
        lambda x, H: zero_forcing(x, H),
        lambda x, H: sic(x, H, 0.5),
        lambda x, H: last(projected_gradient(x, H, repeat((0.3,), 2))),
        lambda x, H: last(oamp(x, H, repeat((1.0, 1.0), 2), 0.5)),
    ],
)
def test_bad_input_is_refused_before_computing(method):
    for x, channel, error, text in (
        (X[..., 0], H, ValueError, "x: got shape"),
        (X, H[:4], ValueError, r"H: got shape \(4, 3\), expected \(..., 5, m\)"),
        (X, H.float(), TypeError, "H: got torch.float32"),
        (X.numpy(), H, TypeError, "x: got ndarray"),
        (X, H.to(torch.complex128), TypeError, r"real_model\(H\)"),
        (X * math.nan, H, ValueError, "x: got NaN or Inf"),
        (X, H / 0, ValueError, "H: got NaN or Inf"),
    ):
        with pytest.raises(error, match=text):
            method(x, channel)


def test_other_bad_input():
    with pytest.raises(ValueError, match="variance: got 0"):
        sic(X, H, 0.0)
    with pytest.raises(ValueError, match="s_hat: got shape"):
        ber(S[:3], S)
    with pytest.raises(ValueError, match="s: got 3 entries, expected pairs"):
        qpsk_ser(S, S)
    with pytest.raises(TypeError, match="H: got torch.float64, expected a complex channel"):
        real_model(H)
