"""Viterbi and BCJR of many blocks at once against hmmlearn's compiled ones and a loop, as ratios.

    python benchmarks/equalize_speed.py [THREADS]

A trellis of 16 states (memory 4, BPSK, 6 dB), blocks of 1,000 steps, float32; hmmlearn block by
block in float64, on the same log-likelihoods; the loop is the textbook's, a Python loop over steps,
states and predecessors, on 2 blocks, its time scaled to all. The least of five runs (the loop: of
one). Then the fair comparison of chapter 15: eight networks trained together, 200,000 test symbols
for each. Writes benchmarks/results/equalize_speed.json.
"""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from hmmlearn import _hmmc
from timing import seconds

from mbdl_course import equalize as eq
from mbdl_course.learn import Stage, seeded, training


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


def fair():
    """Eight networks (four SNRs, clean and under CSI error) and their rivals, 200,000 symbols."""
    law, taps = eq.gaussian(torch.tensor([2.0, 6.0, 8.0, 10.0])[:, None]), eq.exponential(0.5)
    z, test = eq.sent(500, (2, 4, 10), 4, seeded(1)), eq.sent(250, (4, 800), 4, seeded(2))
    wrong = eq.disturbed(taps, torch.randn(1, 4, 10, 4, generator=seeded(3)), 0.1)
    pilots = eq.received(law, torch.cat([taps.expand_as(wrong), wrong]), z)
    net = eq.classifier_for(pilots, 16, seeded(4))
    list(training(net, eq.pilots(pilots, z.state, 200, 5), eq.cross_entropy, [Stage(800, 1e-2)]))
    ls, _ = eq.least_squares(pilots, z.state, eq.BPSK, 4)
    x = eq.received(law, taps, test)
    off = eq.disturbed(taps, torch.randn(800, 4, generator=seeded(6)), 0.1)
    with torch.no_grad():
        all_of = [eq.channel_likelihood(x, law, taps), eq.channel_likelihood(x, law, off)]
        all_of += [eq.ViterbiNet(net)(x[:, None].expand(-1, 2, -1, -1))]
        all_of += [law.log_likelihood(x[:, None], eq.outputs(ls))]
        return [eq.viterbi(ll).s for ll in all_of] + [eq.bcjr(ll).s for ll in all_of]


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    full, first = np.zeros((16, 16)), np.full(16, 1 / 16)
    for state in range(16):
        full[state, [2 * state % 16, (2 * state + 1) % 16]] = 0.5

    def both(block):
        return _hmmc.forward_log(first, full, block), _hmmc.backward_log(first, full, block)

    result = {"threads": threads, "steps": 1000, "states": 16, "rows": []}
    for count in (1, 100, 1000):
        law, taps, z = eq.gaussian(6.0), eq.exponential(0.5), eq.sent(1000, (count,), 4, seeded(0))
        ll = eq.channel_likelihood(eq.received(law, taps, z), law, taps)
        blocks = [np.ascontiguousarray(block) for block in ll.double().numpy().swapaxes(0, 1)]
        ours, path = seconds(lambda: eq.viterbi(ll))  # noqa: B023
        theirs, states = seconds(lambda: [_hmmc.viterbi(first, full, b)[1] for b in blocks])  # noqa: B023
        soft, _ = seconds(lambda: eq.bcjr(ll))  # noqa: B023
        their_soft, _ = seconds(lambda: [both(b) for b in blocks], 2)  # noqa: B023
        few = min(count, 2)
        slow, looped = seconds(lambda: loop(ll[:, :few]), 1)  # noqa: B023
        same = path.states[1:] == torch.tensor(np.stack(states)).mT[1:]
        assert same.float().mean() > 0.9999
        assert (path.states[1:, :few] == looped[1:]).float().mean() > 0.9999
        row = {"blocks": count, "viterbi_s": ours, "hmmlearn_over_viterbi": theirs / ours,
               "loop_over_viterbi": slow * count / few / ours, "bcjr_s": soft,
               "hmmlearn_over_bcjr": their_soft / soft}  # fmt: skip
        result["rows"].append(rounded(row))
        print(result["rows"][-1], flush=True)
    result["fair_comparison_s"], _ = seconds(fair, 1)
    result = rounded(result)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    result["machine"] |= {name: version(name).partition("+")[0] for name in ("torch", "hmmlearn")}
    print(result)
    path = Path(__file__).resolve().parent / "results/equalize_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def rounded(row):
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}


if __name__ == "__main__":
    main()
