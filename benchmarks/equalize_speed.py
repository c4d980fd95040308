"""Viterbi and BCJR of many blocks at once against hmmlearn's compiled ones and a Python loop.

    python benchmarks/equalize_speed.py

A trellis of 16 states (memory 4, BPSK, 6 dB), blocks of 1,000 steps, float32; hmmlearn block by
block in float64, on the same log-likelihoods, timed on 100 blocks at most; the loop is the
textbook's, over steps, states and predecessors, on two blocks. Equal are the states of the best
path (all but one in 10,000), and the probabilities of all states.
"""

from functools import partial

import numpy as np
import torch
from run import main
from timing import Job, Pair

from mbdl_course import equalize as eq
from mbdl_course.learn import seeded


def log_likelihoods(count, tiny):
    law, taps = eq.gaussian(6.0), eq.exponential(0.5)
    z = eq.sent(50 if tiny else 1000, (count,), 4, seeded(0))
    return eq.channel_likelihood(eq.received(law, taps, z), law, taps)


def loop(ll):
    """The best path of each block, step by step and state by state."""
    paths = []
    for block in ll.unbind(1):
        metric, came = [0.0] * 16, []
        for row in block.tolist():
            best = [max((metric[p], p) for p in (j // 2, 8 + j // 2)) for j in range(16)]
            came.append([p for _, p in best])
            metric = [m + row[j] for j, (m, _) in enumerate(best)]
        state, path = max(range(16), key=metric.__getitem__), []
        for back in reversed(came):
            path.append(state)
            state = back[state]
        paths.append(path[::-1])
    return torch.tensor(paths).mT


def other_states(ours, theirs):
    """The share of states that differ; the first one is decided by rounding."""
    return (ours.states[1:, : theirs.shape[1]] != theirs[1:]).double().mean().item()


def looped(count, tiny):
    count = 3 if tiny else count
    ll = log_likelihoods(count, tiny)
    few = ll[:, :2]
    return Job(lambda: eq.viterbi(ll), lambda: loop(few), other_states, 1e-4, count / few.shape[1])


def hmmlearn(soft, count, tiny):
    from hmmlearn import _hmmc

    full, first = np.zeros((16, 16)), np.full(16, 1 / 16)
    for state in range(16):
        full[state, [2 * state % 16, (2 * state + 1) % 16]] = 0.5
    count = 3 if tiny else count
    few = min(count, 100)
    ll = log_likelihoods(count, tiny)
    blocks = [np.ascontiguousarray(b) for b in ll[:, :few].double().numpy().swapaxes(0, 1)]

    def likeliest():
        return torch.tensor(np.stack([_hmmc.viterbi(first, full, b)[1] for b in blocks])).mT

    def probable():
        both = [(_hmmc.forward_log(first, full, b), _hmmc.backward_log(first, full, b))
                for b in blocks]  # fmt: skip
        return np.stack([before[1] + after for before, after in both], 1)

    def apart(a, b):
        return (a.states[:, :few].exp() - torch.tensor(b).softmax(-1)).abs().max().item()

    if soft:
        return Job(lambda: eq.bcjr(ll), probable, apart, 1e-3, count / few)
    return Job(lambda: eq.viterbi(ll), likeliest, other_states, 1e-4, count / few)


PAIRS = [
    *(Pair(f"equalize/{'BCJR' if soft else 'Viterbi'}-hmmlearn-{count}", "hmmlearn, compiled",
           partial(hmmlearn, soft, count), "hmmlearn")
      for soft in (False, True) for count in (1, 100, 1000)),
    *(Pair(f"equalize/Viterbi-loop-{count}", "a Python loop", partial(looped, count))
      for count in (1, 100, 1000)),
]  # fmt: skip

if __name__ == "__main__":
    main(["equalize"])
