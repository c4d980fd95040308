"""Channels with memory: against enumeration, hmmlearn, Q(√SNR), and by laws."""

import itertools
import math

import numpy as np
import pytest
import torch

from mbdl_course import equalize as eq
from mbdl_course.fold import last, repeat
from mbdl_course.learn import Stage, seeded, training

D = torch.float64


def random_trellis(seed, T=5, memory=2, symbols=2, blocks=3):
    g = seeded(seed)
    states = symbols**memory
    ll = torch.randn(T, blocks, states, generator=g, dtype=D) * 2
    transitions = torch.randn(states, symbols, generator=g, dtype=D).log_softmax(-1)
    start = torch.randn(states, generator=g, dtype=D).log_softmax(-1)
    return ll, transitions, start


def enumerated(ll, memory, symbols, transitions, start):
    """Every path, its states and its log-probability, one by one: (paths, T), (paths, blocks)."""
    T, states = len(ll), symbols**memory
    paths, scores = [], []
    for first in range(states):
        for s in itertools.product(range(symbols), repeat=T):
            state, path, score = first, [], start[first] + torch.zeros(ll.shape[1], dtype=D)
            for t, newest in enumerate(s):
                score = score + transitions[state, newest]
                state = (state * symbols + newest) % states
                score = score + ll[t, :, state]
                path.append(state)
            paths.append(path)
            scores.append(score)
    return torch.tensor(paths), torch.stack(scores)


def alike(states, symbols):
    """What None stands for: transitions and start, all alike."""
    return (
        torch.full((states, symbols), -math.log(symbols), dtype=D),
        torch.full((states,), -math.log(states), dtype=D),
    )


# ---- The trellis -------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("memory", "symbols"), [(1, 2), (2, 2), (3, 2), (2, 3)])
def test_path_and_marginals_are_those_of_enumeration(memory, symbols, given):
    T = {(1, 2): 1, (2, 2): 6, (3, 2): 5, (2, 3): 4}[memory, symbols]
    ll, transitions, start = random_trellis(memory * 7 + symbols, T, memory, symbols)
    arguments = (transitions, start) if given else ()
    if not given:
        transitions, start = alike(symbols**memory, symbols)
    paths, scores = enumerated(ll, memory, symbols, transitions, start)
    path, posterior = eq.viterbi(ll, symbols, *arguments), eq.bcjr(ll, symbols, *arguments)
    torch.testing.assert_close(path.score, scores.amax(0), atol=1e-10, rtol=0)
    torch.testing.assert_close(posterior.evidence, scores.logsumexp(0), atol=1e-10, rtol=0)
    weight = scores.softmax(0)
    for state in range(symbols**memory):
        p = ((paths == state)[..., None] * weight[:, None]).sum(0)
        torch.testing.assert_close(posterior.states[..., state].exp(), p, atol=1e-10, rtol=0)
    for symbol in range(symbols):
        p = ((paths % symbols == symbol)[..., None] * weight[:, None]).sum(0)
        torch.testing.assert_close(posterior.s[..., symbol].exp(), p, atol=1e-10, rtol=0)
    if given:  # else two first states may lead into the same path
        assert torch.equal(path.states, paths[scores.argmax(0)].mT)
    assert torch.equal(path.s, path.states % symbols)


def test_hmmlearn_agrees_on_a_long_chain():
    """16 states, 20,000 steps: the path exactly, the posterior and the evidence to 1e-6."""
    _hmmc = pytest.importorskip("hmmlearn._hmmc")
    g = seeded(3)
    z = eq.sent(20_000, (1,), 4, g, dtype=D)
    law, taps = eq.gaussian(6.0), eq.exponential(0.5, dtype=D)
    ll = eq.channel_likelihood(eq.received(law, taps, z), law, taps)
    transitions = torch.randn(16, 2, generator=g, dtype=D).log_softmax(-1)
    full = np.zeros((16, 16))
    for state in range(16):
        full[state, [2 * state % 16, (2 * state + 1) % 16]] = transitions[state].exp()
    first = np.full(16, 1 / 16) @ full  # of the first state: ours starts one step earlier
    score, states = _hmmc.viterbi(first, full, ll[:, 0].numpy())
    # a step earlier there are two best states that lead into the first one: the score is of one
    path = eq.viterbi(ll, transitions=transitions)
    assert np.array_equal(path.states[1:, 0].numpy(), states[1:])
    evidence, forward = _hmmc.forward_log(first, full, ll[:, 0].numpy())
    backward = _hmmc.backward_log(first, full, ll[:, 0].numpy())
    posterior = eq.bcjr(ll, transitions=transitions)
    assert abs(posterior.evidence.item() - evidence) < 1e-6
    theirs = torch.tensor(forward + backward).log_softmax(-1).exp()
    torch.testing.assert_close(posterior.states[:, 0].exp(), theirs, atol=1e-6, rtol=0)


def test_a_hundred_thousand_symbols_stay_finite():
    z = eq.sent(100_000, (2, 1), 2, seeded(4))
    law, taps = eq.gaussian(torch.tensor([0.0, 40.0])[:, None]), eq.exponential(0.5, 2)
    ll = eq.channel_likelihood(eq.received(law, taps, z), law, taps)
    posterior, path = eq.bcjr(ll), eq.viterbi(ll)
    sums = posterior.s.exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)
    assert posterior.evidence.isfinite().all() and path.score.isfinite().all()
    low, high = eq.ser(path.s, z.s).errors
    assert 1000 < low < 30_000 and high == 0


def test_what_does_not_depend_on_the_state_changes_nothing():
    ll, *_ = random_trellis(5, T=40, memory=3)
    shifted = ll + 100 * torch.randn(40, 3, 1, generator=seeded(6), dtype=D)
    assert torch.equal(eq.viterbi(ll).states, eq.viterbi(shifted).states)
    torch.testing.assert_close(eq.bcjr(ll).states, eq.bcjr(shifted).states, atol=1e-9, rtol=0)


def test_a_block_is_a_slice_of_the_batch_in_both_precisions_and_nothing_is_mutated():
    ll, *_ = random_trellis(7, T=30, memory=3, blocks=6)
    before = ll.clone()
    path, posterior = eq.viterbi(ll), eq.bcjr(ll)
    assert torch.equal(ll, before)
    torch.testing.assert_close(eq.viterbi(ll[:, 2:3]).states, path.states[:, 2:3])
    torch.testing.assert_close(eq.bcjr(ll[:, 2:3]).s, posterior.s[:, 2:3], atol=1e-12, rtol=0)
    grid = ll.unflatten(1, (2, 3))
    assert torch.equal(eq.viterbi(grid).states.flatten(1, 2), path.states)
    assert not any(part.is_inference() for part in path)  # it may meet tensors with gradients
    low = eq.bcjr(ll.float())
    assert low.s.dtype == torch.float32
    torch.testing.assert_close(low.s.double(), posterior.s, atol=1e-4, rtol=0)


def test_a_survivor_that_ends_elsewhere_is_the_best_path_into_that_state():
    ll, transitions, start = random_trellis(8)
    paths, scores = enumerated(ll, 2, 2, transitions, start)
    steps = list(eq.survivors(ll, 2, transitions, start))
    for state in range(4):
        states = eq.traced(steps, torch.full((3,), state), 2, transitions)
        into = torch.where((paths[:, -1] == state)[:, None], scores, -math.inf)
        assert torch.equal(states, paths[into.argmax(0)].mT)
        score = steps[-1].metric[state]
        torch.testing.assert_close(score, into.amax(0), atol=1e-10, rtol=0)


def test_impossible_symbols_are_never_decided():
    ll, *_ = random_trellis(9, T=20)
    never = torch.tensor([[0.0, -math.inf]] * 4, dtype=D)
    assert (eq.viterbi(ll, transitions=never).s == 0).all()
    assert eq.bcjr(ll, transitions=never).s[..., 0].exp().min() > 1 - 1e-12


GOOD = torch.zeros(5, 2, 4)


@pytest.mark.parametrize("detect", [eq.viterbi, eq.bcjr])
@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "log_likelihoods: got list", ([[0.0]],)),
        (TypeError, "log_likelihoods: got torch.int64", (GOOD.long(),)),
        (ValueError, "a power of 2", (GOOD[..., :3],)),
        (ValueError, "a power of 3", (GOOD, 3)),
        (ValueError, "got one state", (GOOD[..., :1],)),
        (ValueError, "(T, ..., states)", (GOOD[:0],)),
        (ValueError, "4 entries that are NaN", (torch.eye(4).where(torch.eye(4) == 0, math.nan),)),
        (ValueError, "symbols: got 1", (GOOD, 1)),
        (ValueError, "every path is impossible", (GOOD - math.inf,)),
        (ValueError, "transitions: got (4,)", (GOOD, 2, torch.zeros(4))),
        (ValueError, "transitions: its exponentials", (GOOD, 2, torch.zeros(4, 2))),
        (ValueError, "start: got (2,)", (GOOD, 2, None, torch.zeros(2))),
    ],
)  # fmt: skip
def test_bad_input_of_the_trellis_is_told(detect, error, words, arguments):
    with pytest.raises(error) as told:
        detect(*arguments)
    assert words in str(told.value)


# ---- Channels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [0.0, 4.0, 8.0])
def test_a_flat_channel_has_the_error_rate_of_theory(snr_db):
    """One tap: Q(√SNR), so the noise variance is per real dimension. Inside 99.9 %."""
    z, law = eq.sent(500, (1000,), 1, seeded(10)), eq.gaussian(snr_db)
    taps = torch.ones(1)
    ll = eq.channel_likelihood(eq.received(law, taps, z), law, taps)
    rate = eq.ser(eq.viterbi(ll).s, z.s)
    theory = torch.special.ndtr(torch.tensor(-(10 ** (snr_db / 20)), dtype=D)).item()
    half = (rate.high - rate.low) / 2 * 3.3 / 1.96
    assert abs(rate.rate - theory) < half
    assert rate.errors == round(rate.rate.item() * 500_000)


@pytest.mark.parametrize("law", [eq.gaussian(3.0), eq.saturated(3.0), eq.heavy_tailed(3.0)])
def test_likelihoods_are_densities_of_what_is_drawn(law):
    u = torch.tensor([-1.0, 0.0, 2.0], dtype=D)
    grid = torch.linspace(-300, 300, 600_001, dtype=D)
    density = law.log_likelihood(grid, u).exp()
    total = torch.trapezoid(density, grid, dim=0)
    torch.testing.assert_close(total, torch.ones(3, dtype=D), atol=1e-4, rtol=0)
    noise = torch.randn(100_000, 3, generator=seeded(11), dtype=D)
    x = law.draw(u, noise)
    for k in range(3):
        below = density[grid < u[k] + 0.5, k].sum() * (grid[1] - grid[0])
        assert abs((x[:, k] < u[k] + 0.5).double().mean() - below) < 0.01


def test_poisson_likelihoods_sum_to_one_and_fit_what_is_drawn():
    law, u = eq.poisson(20.0), torch.tensor([0.0, 0.3, 2.0], dtype=D)
    counts = torch.arange(200, dtype=D)
    p = law.log_likelihood(counts, u).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(3, dtype=D))
    x = law.draw(u, torch.randn(50_000, 3, generator=seeded(12), dtype=D))
    torch.testing.assert_close(x.mean(0), 10 * u + 1, atol=0.1, rtol=0)
    torch.testing.assert_close(x.var(0), 10 * u + 1, atol=0.4, rtol=0)
    assert torch.equal(x, x.round()) and (x >= 0).all()
    assert abs((x[:, 2] <= 18).double().mean() - p[:19, 2].sum()) < 0.01


def test_states_are_the_last_symbols_newest_last():
    s = torch.tensor([1, 0, 1, 1, 0])[:, None]
    assert eq.states_of(s, 3).flatten().tolist() == [0b101, 0b011, 0b110]
    assert eq.recent(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    z = eq.sent(50, (2, 7), 3, seeded(13))
    assert z.s.shape == z.state.shape == z.noise.shape == (50, 2, 7)
    assert torch.equal(z.state % 2, z.s)
    assert torch.equal(z.state[1:], (z.state[:-1] * 2 + z.s[1:]) % 8)


def test_received_is_the_convolution():
    z, law = eq.sent(30, (2,), 3, seeded(14)), eq.gaussian(200.0)
    taps = torch.tensor([1.0, -0.4, 0.2])
    x, a = eq.received(law, taps, z), 2.0 * z.s - 1
    torch.testing.assert_close(x[2:], a[2:] - 0.4 * a[1:-1] + 0.2 * a[:-2], atol=1e-5, rtol=0)
    by_block = taps * torch.tensor([[1.0], [2.0]])
    torch.testing.assert_close(eq.received(law, by_block, z), x * torch.tensor([1.0, 2.0]))
    assert abs(eq.outputs(taps)[0b110] - (-1.0 - 0.4 + 0.2)) < 1e-6


def test_fading_stays_within_its_bounds_and_profiles_sum_to_one():
    taps = eq.exponential(0.5)
    many = eq.fading(taps, torch.arange(500)) / taps
    assert 0.599 < many.min() < 0.601 and 0.999 < many.max() <= 1.0
    torch.testing.assert_close(eq.fading(taps, 51)[0], taps[0])
    for name in eq.PROFILES:
        power = eq.profile(name, 1.0)
        assert power.shape == (4,) and abs(power.sum() - 1) < 1e-6
        assert len(eq.PROFILES[name][0]) == len(eq.PROFILES[name][1])
        assert eq.profile(name, 0.0)[0] == 1  # no spread, no memory


def test_own_taps_come_from_a_file(tmp_path):
    taps = np.array([[1.0, 0.5], [0.9, 0.4]])
    np.savez(tmp_path / "one.npz", h=taps)
    np.savez(tmp_path / "two.npz", h=taps, other=taps + 1j)
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "own.mat", {"h": taps})
    for name, key in (("one.npz", None), ("two.npz", "h"), ("own.mat", None)):
        got = eq.loaded(tmp_path / name, key)
        torch.testing.assert_close(got, torch.tensor(taps).float())
    for name, key, words in (
        ("two.npz", None, "expected one of h, other"),
        ("two.npz", "other", "complex"),
        ("own.csv", None, ".npz or .mat"),
    ):
        with pytest.raises(ValueError, match=words):
            eq.loaded(tmp_path / name, key)  # fmt: skip


def test_an_interval_counts_blocks_that_fail_together():
    s = torch.zeros(100, 50, dtype=torch.long)
    spread, together = s.clone(), s.clone()
    spread[0] = 1  # one error in every block
    together[:50, 0] = 1  # the same number, all in one
    a, b = eq.ser(spread, s), eq.ser(together, s)
    assert a.rate == b.rate == 0.01 and a.errors == b.errors == 50
    assert b.high - b.low > 2 * (a.high - a.low)
    none = eq.ser(s, s)
    assert none.rate == none.low == 0 and 5e-4 < none.high < 1e-3
    covered = 0
    for seed in range(100):
        wrong = (torch.rand(50, 40, generator=seeded(seed)) < 0.03).long()
        rate = eq.ser(wrong, torch.zeros_like(wrong))
        covered += int(rate.low < 0.03 < rate.high)
    assert 88 <= covered <= 100


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: eq.sent(0, (1,), 4, seeded(0)), "horizon: got 0"),
        (lambda: eq.sent(5, (1,), 1.5, seeded(0)), "memory: got 1.5"),
        (lambda: eq.states_of(torch.zeros(5, 1), 2), "whole numbers 0 to 1"),
        (lambda: eq.states_of(torch.full((5, 1), 2), 2), "whole numbers 0 to 1"),
        (lambda: eq.states_of(torch.zeros(1, 1).long(), 2), "got 1 symbols"),
        (lambda: eq.fading(torch.ones(3), 1), "taps: got 3"),
        (lambda: eq.profile("TDL-Z", 1.0), "TDL-A, TDL-B, TDL-C"),
        (lambda: eq.profile("TDL-A", -1.0), "spread: got -1"),
        (lambda: eq.ser(torch.zeros(3, 2), torch.zeros(3, 1)), "s_hat, s"),
        (lambda: eq.least_squares(torch.zeros(9, 2), torch.zeros(9, 1), eq.BPSK, 2), "x, state"),
        (lambda: eq.least_squares(torch.zeros(9, 1), torch.zeros(9, 1).long(), eq.BPSK, 2),
         "do not determine"),
        (lambda: eq.learned_transitions(torch.zeros(1, 1).long(), 2), "two steps"),
        (lambda: eq.hamming_crc(1), "no room"),
        (lambda: eq.hamming_crc().encode(torch.zeros(3).long()), "(..., 160)"),
        (lambda: eq.hamming_crc().decode(torch.zeros(240)), "whole numbers"),
        (lambda: eq.belief_propagation(torch.zeros(2, 5), eq.bch_63_45(), []), "H, llr"),
        (lambda: eq.SlidingRNN()(torch.zeros(5, 1)), "x: got 5 steps"),
    ],
)  # fmt: skip
def test_bad_input_is_told(call, words):
    with pytest.raises(ValueError) as told:
        call()
    assert words in str(told.value)


# ---- Parts -------------------------------------------------------------------------------------


def test_least_squares_finds_taps_and_noise():
    taps = torch.tensor([[[1.0, 0.5, -0.3]], [[0.8, 0.1, 0.2]]], dtype=D)  # two receivers
    z, law = eq.sent(500, (2, 20), 3, seeded(15), dtype=D), eq.gaussian(6.0)
    x = eq.received(law, taps, z)
    found, variance = eq.least_squares(x, z.state, eq.BPSK, 3)
    assert found.shape == (2, 1, 3) and variance.shape == (2, 1)
    torch.testing.assert_close(found, taps, atol=0.03, rtol=0)
    torch.testing.assert_close(variance, torch.full((2, 1), 10**-0.6, dtype=D), atol=0.02, rtol=0)
    alone, _ = eq.least_squares(x[:, 1:], z.state[:, 1:], eq.BPSK, 3)
    torch.testing.assert_close(alone, found[1:])


def test_a_gaussian_by_state_is_the_sample_mean_and_variance():
    z, law = eq.sent(400, (2, 5), 2, seeded(16), dtype=D), eq.saturated(10.0)
    x = eq.received(law, eq.exponential(0.5, 2, D), z)
    part = eq.by_state(x, z.state, 4)
    for r in range(2):
        for state in range(4):
            values = x[:, r][z.state[:, r] == state]
            assert abs(part.mean[r, 0, state] - values.mean()) < 1e-9
            assert abs(part.variance[r, 0, state] - values.var(unbiased=False)) < 1e-9
            assert abs(part.share[r, 0, state] - len(values) / 2000) < 1e-9
    grid = torch.linspace(-9, 9, 20_001, dtype=D)[:, None, None].expand(-1, 2, 1)
    total = torch.trapezoid(part.marginal(grid).exp(), grid[:, 0, 0], dim=0)
    torch.testing.assert_close(total, torch.ones(2, 1, dtype=D), atol=1e-6, rtol=0)
    rare = eq.by_state(x[:6], z.state[:6] * 0 + 1, 4)  # states that never came: no NaN
    assert rare(x).isfinite().all()


def test_learned_transitions_are_the_histogram():
    g = seeded(17)
    p = torch.tensor([0.9, 0.2, 0.5, 0.7])  # of a one, after each state
    state, seen = torch.zeros(100, dtype=torch.long), []
    for _ in range(2000):
        state = (state * 2 + (torch.rand(100, generator=g) < p[state]).long()) % 4
        seen.append(state)
    found = eq.learned_transitions(torch.stack(seen), 4).exp()
    torch.testing.assert_close(found[:, 1], p.to(D), atol=0.02, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, dtype=D))


def test_learned_transitions_help_where_symbols_are_not_alike():
    """A source that likes to stay: the trellis that has counted this makes fewer errors."""
    g = seeded(18)
    s = [torch.randint(2, (200,), generator=g)]
    for _ in range(302):
        s.append((s[-1] + (torch.rand(200, generator=g) < 0.1)) % 2)
    state = eq.states_of(torch.stack(s), 4)
    z = eq.Sent(state % 2, state, torch.randn(300, 200, generator=g))
    law, taps = eq.gaussian(2.0), eq.exponential(0.5)
    ll = eq.channel_likelihood(eq.received(law, taps, z), law, taps)
    found = eq.learned_transitions(state[:, :20], 16).float()
    informed = eq.ser(eq.viterbi(ll[:, 20:], transitions=found).s, z.s[:, 20:])
    assert informed.high < eq.ser(eq.viterbi(ll[:, 20:]).s, z.s[:, 20:]).low / 1.5


# ---- Networks ----------------------------------------------------------------------------------


def test_many_classifiers_are_as_many_alone():
    """One matrix product over receivers is each network on its own, and so is the training."""
    z, law = eq.sent(200, (3, 2), 2, seeded(19)), eq.gaussian(8.0)
    x = eq.received(law, eq.exponential(0.5, 2), z)
    many = eq.classifier_for(x, 4, seeded(20))
    alone = eq.classifier_for(x[:, 1:2], 4, seeded(21))
    for ours, theirs in zip(many.parameters(), alone.parameters(), strict=True):
        theirs.data.copy_(ours.data[1:2])
    torch.testing.assert_close(many(x)[:, 1:2], alone(x[:, 1:2]))
    for network, rows in ((many, slice(None)), (alone, slice(1, 2))):
        source = eq.pilots(x[:, rows], z.state[:, rows], 50, seed=22)
        list(training(network, source, eq.cross_entropy, [Stage(30, 1e-2)]))
    torch.testing.assert_close(many(x)[:, 1:2], alone(x[:, 1:2]), atol=1e-4, rtol=1e-4)
    assert many(x).shape == (200, 3, 2, 4)
    assert sum(p.numel() for p in eq.Classifier(16).parameters()) == 6066  # as published


def test_the_marginal_is_seen_by_the_evidence_alone():
    z, law = eq.sent(100, (5,), 2, seeded(23)), eq.gaussian(6.0)
    x = eq.received(law, eq.exponential(0.5, 2), z)
    net, part = eq.classifier_for(x, 4, seeded(24)), eq.by_state(x, z.state, 4)
    with torch.no_grad():
        bare, full = eq.ViterbiNet(net)(x), eq.ViterbiNet(net, marginal=part.marginal)(x)
    assert torch.equal(eq.viterbi(bare).states, eq.viterbi(full).states)
    torch.testing.assert_close(eq.bcjr(bare).s, eq.bcjr(full).s, atol=1e-4, rtol=0)
    gap = eq.bcjr(full).evidence - eq.bcjr(bare).evidence
    torch.testing.assert_close(gap, part.marginal(x).sum(0), atol=1e-2, rtol=0)


@pytest.fixture(scope="module")
def trained():
    """ViterbiNet at 6 and 8 dB, γ = 0.5, 5,000 pilots, clean (0) and under CSI error (1)."""
    law, taps = eq.gaussian(torch.tensor([6.0, 8.0])[:, None]), eq.exponential(0.5)
    z = eq.sent(500, (3, 2, 2, 10), 4, seeded(25))  # sets, clean or not, SNR, frames
    wrong = eq.disturbed(taps, torch.randn(3, 1, 2, 10, 4, generator=seeded(26)), 0.1)
    believed = torch.cat([taps.expand_as(wrong), wrong], 1)
    x = eq.received(law, believed, z)
    net = eq.classifier_for(x, 16, seeded(27))
    list(training(net, eq.pilots(x, z.state, 200, 28), eq.cross_entropy, [Stage(500, 1e-2)]))
    ls, _ = eq.least_squares(x, z.state, eq.BPSK, 4)
    test = eq.sent(250, (2, 400), 4, seeded(29))
    seen = eq.received(law, taps, test)
    with torch.no_grad():
        wide = seen[:, None, None].expand(-1, 3, 2, -1, -1)
        net_ll = eq.ViterbiNet(net)(wide)
    return law, taps, test, seen, net_ll, ls


def rates(ll, s):
    s_hat = eq.viterbi(ll).s
    return eq.ser(s_hat, s.expand_as(s_hat)).rate


def test_viterbinet_comes_near_the_channel_and_least_squares_does_too(trained):
    law, taps, test, x, net_ll, ls = trained
    perfect = rates(eq.channel_likelihood(x, law, taps), test.s)
    s = test.s[:, None, None]
    net = rates(net_ll, s).mean(0)  # over training sets: (clean or not, SNR)
    fair = rates(law.log_likelihood(x[:, None, None], eq.outputs(ls)), s).mean(0)
    assert (net[0] < 1.2 * perfect).all()
    off = eq.disturbed(taps, torch.randn(400, 4, generator=seeded(30)), 0.1)  # 400 draws
    noisy = rates(eq.channel_likelihood(x, law, off), test.s)
    assert net[1, 1] < noisy[1] / 5  # the published comparison
    assert (net[1] < 1.5 * fair[1]).all()  # the fair one: the same pilots, least squares
    assert (fair[1] < 1.1 * net[1]).all()


def test_bcjr_is_no_worse_than_viterbi_and_its_posterior_is_calibrated(trained):
    law, taps, test, x, *_ = trained
    ll = eq.channel_likelihood(x, law, taps)
    p = eq.bcjr(ll).s
    best = eq.ser(p.argmax(-1), test.s).rate
    assert (best <= 1.02 * eq.ser(eq.viterbi(ll).s, test.s).rate).all()
    sure, right = p.exp().amax(-1).flatten(), (p.argmax(-1) == test.s).flatten()
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.99), (0.99, 1.01)):
        of = (sure >= low) & (sure < high)
        claim, was = sure[of].mean(), right[of].float().mean()
        assert abs(claim - was) < 4 * (claim * (1 - claim) / of.sum()).sqrt() + 1e-3


def test_the_black_box_learns_without_a_trellis():
    law, taps = eq.gaussian(8.0), eq.exponential(0.5)
    z, test = eq.sent(250, (20,), 4, seeded(31)), eq.sent(205, (100,), 4, seeded(32))
    net = eq.SlidingRNN(generator=seeded(33))
    source = eq.windows(eq.received(law, taps, z), z.s, 20, 100, seed=34)
    list(training(net, source, eq.cross_entropy, [Stage(200, 1e-2)]))
    with torch.no_grad():
        p = net(eq.received(law, taps, test))
    assert p.shape == (205, 100, 2)
    torch.testing.assert_close(p.exp().sum(-1), torch.ones(205, 100), atol=1e-4, rtol=0)
    assert 4e-3 < eq.ser(p.argmax(-1), test.s).rate < 3e-2


# ---- A code and what adapts by it --------------------------------------------------------------


def test_the_code_corrects_one_error_a_word_and_sees_more():
    code, g = eq.hamming_crc(), seeded(35)
    assert (code.length, code.info) == (240, 160)
    bits = torch.randint(2, (2000, 160), generator=g)
    sent = code.encode(bits)
    for got, ok in (
        code.decode(sent),
        code.decode(
            sent ^ torch.eye(240, dtype=torch.long)[torch.randint(240, (2000,), generator=g)]
        ),
    ):
        assert torch.equal(got, bits) and ok.all()  # fmt: skip
    burst = sent.clone()
    burst[:, 50:66] ^= 1  # sixteen in a row are one in each word
    got, ok = code.decode(burst)
    assert torch.equal(got, bits) and ok.all()
    wrong = (torch.rand(2000, 240, generator=g) < 0.03).long()
    got, ok = code.decode(sent ^ wrong)
    right = (got == bits).all(-1)
    assert 0.2 < right.float().mean() < 0.9
    assert (ok & ~right).sum() <= 1  # the flag is the code's own, and is not fooled
    assert ok[right].float().mean() > 0.9  # it may be severe: the CRC itself was hit


def test_the_crc_is_the_standard_one():
    """CRC-16/XMODEM of "123456789" is 31C3 (hexadecimal), the published check value."""
    text = [int(b) for byte in b"123456789" for b in f"{byte:08b}"]
    code = eq.hamming_crc(8)  # 8 words of 11 bits: 72 of information
    assert code.info == 72
    word = code.encode(torch.tensor(text)).unflatten(-1, (15, 8)).mT
    crc = word[:, :11].flatten()[72:]
    assert crc.tolist() == [int(b) for b in f"{0x31C3:016b}"]


def test_adapting_follows_the_channel_by_the_code_alone():
    code, law, taps = eq.hamming_crc(), eq.gaussian(10.0), eq.exponential(0.5)
    phase = torch.linspace(0, 6, 6)[:, None]
    xs, sent = [], []
    for n in range(16):
        g = seeded(40 + n)
        s = code.encode(torch.randint(2, (6, 1, 160), generator=g)).movedim(-1, 0)
        state = eq.states_of(torch.cat([torch.randint(2, (3, 6, 1), generator=g), s]), 4)
        z = eq.Sent(s, state, torch.randn(240, 6, 1, generator=g))
        xs.append(eq.received(law, eq.fading(taps, torch.tensor(n), phase), z))
        sent.append(s)
    first = eq.Linear(law, eq.fading(taps, torch.tensor(0), phase))

    def errors(update):
        heard = list(eq.adapting(xs, first, code, update, 4))[1:]
        wrong = torch.stack([h.s != s for h, s in zip(heard, sent, strict=True)]).float()
        return wrong.mean((1, 2, 3)), heard

    (still, _), (following, heard) = errors(eq.kept), errors(eq.tracked)
    assert following[8:].mean() < still[8:].mean() / 1.5
    before = first.taps
    for h in heard:  # a block that failed leaves its receiver alone
        assert torch.equal(h.receiver.taps[~h.ok[..., 0]], before[~h.ok[..., 0]])
        before = h.receiver.taps


def test_a_network_is_retrained_only_where_the_flag_is_set():
    z, law = eq.sent(237, (2, 1), 4, seeded(60)), eq.gaussian(8.0)
    x = eq.received(law, eq.exponential(0.5), z)
    net = eq.ViterbiNet(eq.classifier_for(x, 16, seeded(61)))
    ok = torch.tensor([[True], [False]])
    new = eq.retrained(steps=5)(net, x, z.state, ok)
    for old, now in zip(net.parameters(), new.parameters(), strict=True):
        assert torch.equal(old[1], now[1]) and not torch.equal(old[0], now[0])


# ---- Belief propagation ------------------------------------------------------------------------


def test_the_parity_checks_are_those_of_the_code():
    H = eq.bch_63_45()
    assert H.shape == (18, 63) and H.sum() == 432
    assert torch.linalg.matrix_rank(H.double()) == 18
    generator = torch.tensor([int(b) for b in f"{0o1701317:b}"])  # degree 18 first
    for shift in range(45):
        word = torch.zeros(63, dtype=torch.long)
        word[shift : shift + 19] = generator.flip(0)  # x^shift g(x), lowest power first
        assert not (H @ word % 2).any() or not (H @ word.flip(0) % 2).any()
    columns = {tuple(c.tolist()) for c in H.mT}
    pairs = {tuple((a ^ b).tolist()) for a, b in itertools.combinations(H.mT, 2)}
    assert len(columns) == 63 and len(pairs) == 63 * 62 // 2  # distance 5 and more: 2 corrected


def test_belief_propagation_is_exact_on_a_tree():
    """Two checks that share one bit: no cycles, so three iterations give the true marginals."""
    H = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    llr = torch.randn(7, 5, generator=seeded(62), dtype=D)
    words = torch.tensor(list(itertools.product([0, 1], repeat=5)))
    words = words[((words @ H.mT) % 2 == 0).all(-1)]
    score = (llr[:, None] * (0.5 - words)).sum(-1)
    exact = [
        score[:, words[:, k] == 0].logsumexp(-1) - score[:, words[:, k] == 1].logsumexp(-1)
        for k in range(5)
    ]
    found, _ = last(eq.belief_propagation(llr, H, repeat(1.0, 3)))
    torch.testing.assert_close(found, torch.stack(exact, -1), atol=1e-6, rtol=0)


def test_one_number_damps_belief_propagation_to_better_decisions():
    H, llr = eq.bch_63_45(), eq.zero_words(3000, 5.0, seeded(63))

    def ber(weight):
        return (last(eq.belief_propagation(llr, H, repeat(weight, 5)))[0] <= 0).double().mean()

    assert ber(1.0) < (llr <= 0).double().mean()
    assert ber(0.57) < ber(1.0) / 1.5


# ---- More parts --------------------------------------------------------------------------------


def test_what_least_squares_leaves_over_is_a_density_that_fits():
    law, taps = eq.heavy_tailed(10.0), eq.exponential(0.5, 2, D)
    z = eq.sent(2000, (2, 5), 2, seeded(64), dtype=D)
    x = eq.received(law, taps, z)
    part = eq.left_over(x, z.state, eq.outputs(taps.expand(2, 1, 2)))
    grid = torch.linspace(-60, 60, 400_001, dtype=D)[:, None, None].expand(-1, 2, 1)
    p = part(grid)[:, 0, 0]
    p = p - torch.trapezoid(p.exp(), grid[:, 0], dim=0).log()  # up to a constant
    true = law.log_likelihood(grid[:, 0, 0], eq.outputs(taps))
    near = (grid[:, 0] - eq.outputs(taps)).abs() < 2
    assert (p - true)[near].abs().max() < 0.6
    assert part(x).shape == (2000, 2, 5, 4)


def test_medians_are_the_middle_of_each_state_and_of_all_where_one_never_came():
    state = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [1, 2]], [[1, 2], [2, 2]]])  # (3, 2, 2)
    x = torch.tensor([[[1.0, 9.0], [5, 6]], [[2, 4], [7, 8]], [[5, 3], [1, 90]]])
    found = eq.medians(x, state, 4)
    assert found.shape == (2, 1, 4)
    torch.testing.assert_close(found[:, 0], torch.tensor([[2.0, 4, 3, 3], [6, 6, 8, 6]]))


def test_a_median_for_each_state_and_a_histogram_need_no_law():
    law, taps = eq.heavy_tailed(22.0, torch.tanh), eq.exponential(0.5)
    pilots, z = eq.sent(2500, (2,), 4, seeded(65)), eq.sent(1000, (40,), 4, seeded(66))
    x, seen = eq.received(law, taps, z), eq.received(law, taps, pilots)
    part = eq.left_over(seen, pilots.state, eq.medians(seen, pilots.state, 16))
    known = eq.ser(eq.viterbi(eq.channel_likelihood(x, law, taps)).s, z.s)
    rates = [eq.ser(eq.viterbi(f(x)).s, z.s).rate
             for f in (part, eq.by_state(seen, pilots.state, 16))]  # fmt: skip
    assert rates[0] < 1.3 * known.rate < rates[1] / 2


def test_left_over_says_what_does_not_fit():
    with pytest.raises(ValueError, match="x, state: got shapes"):
        eq.medians(torch.zeros(5, 2), torch.zeros(5, 3, dtype=torch.int64), 4)
