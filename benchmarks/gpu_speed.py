"""Training and inference of every kind of shipped network on a GPU, against the CPU beside it.

    python benchmarks/gpu_speed.py [--device cuda] [--seconds 2] [--tiny] [--out FILE]

Four tables, float32, one thread of Python. `networks`: a training step (loss, gradient, Adam) and
an inference, at the sizes of the papers, where they say them, else of the recipes of the shipped
weights. `graphs`: KalmanNet and DeepSIC, whose steps are small, recorded once as a CUDA graph and
replayed. `seeds`: several of them trained at once against one after the other. `crossover`: from
which batch on the GPU is faster, for ISTA and LISTA. Data are drawn on the CPU and moved; answers
agree before anything is timed; each time is the median of as many calls as fit in `--seconds`,
waited for. Writes benchmarks/results/gpu_speed.json. Without a GPU there is nothing to measure:
one line, exit code 1. --tiny runs it on tiny sizes and prints; --device cpu so, against itself.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from timing import rounded, versions
from torch import nn

from mbdl_course import doa, equalize, lowrank, mimo, sparse, tracking, weights
from mbdl_course.fold import last
from mbdl_course.learn import seeded, squared_error
from mbdl_course.networks import mlp, moved, parameters
from mbdl_course.unfold import Thetas, Unfolded

RESULTS = Path(__file__).resolve().parent / "results" / "gpu_speed.json"
BATCHES = (1, 10, 100, 1000, 10_000)


class Sized(NamedTuple):
    """What one line of the table times: an untrained network, its data (x, s), and its loss."""

    network: nn.Module
    data: tuple
    loss: Any = squared_error


# ---- The networks: make(tiny) -> Sized ----------------------------------------------------------


def recovery(make, n=250, m=500, depth=16, batch=64):
    """Sparse recovery, n measurements of m unknowns; make(H, depth) is the network."""

    def made(tiny):
        size = (10, 20) if tiny else (n, m)
        H = sparse.gaussian_matrix(*size, seeded(0), dtype=torch.float32)
        s = sparse.sparse_signals(4 if tiny else batch, size[1], seeded(1), density=0.1,
                                  dtype=torch.float32)  # fmt: skip
        return Sized(make(H, 2 if tiny else depth), (H @ s, s))

    return made


def movies(make):
    """Ultrasound, 32 x 32 pixels and 20 frames, a batch of 20."""

    def made(tiny):
        size, frames, batch = (8, 5, 2) if tiny else (32, 20, 20)
        parts = lowrank.ultrasound(batch, seeded(0), size, frames)
        x, parts = lowrank.observed(parts, lowrank.white(batch, seeded(1), size, frames), 0.0, 26.0)
        return Sized(make(size, frames, tiny), (x, parts.S))

    return made


def start(depth):
    return weights.lowrank.start(depth)


def tracked(make, draw, batch=64, steps=100):
    """Trajectories of 100 steps, a batch of 64."""

    def made(tiny):
        first, x, s = draw(4 if tiny else batch, 0, steps=5 if tiny else steps)
        return Sized(shaken(make()), (tracking.Given(first, x), s), tracking.state_error)

    return made


def shaken(network, seed=0):
    """With noise on the parameters: a gain that starts at zero answers zero."""
    generator = seeded(seed)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.02 * torch.randn(p.shape, generator=generator)
    return network


def gain(kind):
    """KalmanNet with the published wide GRU, three small ones, or Split-KalmanNet's two."""
    network = weights.tracking.walker()
    gains = {"one": tracking.OneGRU, "three": tracking.ThreeGRUs, "split": tracking.SplitGRUs}
    network.gain.network = gains[kind](2, 2, generator=seeded(2))
    return network


def smoothing(make):
    def made(tiny):
        recipes = weights.smoothing
        x, s = recipes.on_axes(10 if tiny else 1000, seeded(0))
        return Sized(make(*recipes.straight(0.175)), (x, s))

    return made


def directions(make, head=doa.esprit, batch=128):
    def made(tiny):
        x, angles = weights.doa.coherent(4 if tiny else batch, 0)
        return Sized(make(), (x, angles), doa.through(head))

    return made


def detection(make, draw, loss, batch):
    def made(tiny):
        return Sized(make(), draw(4 if tiny else batch, seeded(0)), loss)

    return made


def pilots(tiny):
    """5,000 pilots of a channel with a memory of four, in blocks of 250."""
    law, taps = equalize.gaussian(8.0), equalize.exponential(0.5)
    z = equalize.sent(20 if tiny else 250, (2 if tiny else 20,), 4, seeded(0))
    x = equalize.received(law, taps, z)
    return x, z


def viterbinet(tiny):
    x, z = pilots(tiny)
    return Sized(equalize.Classifier(16, generator=seeded(1)), (x, z.state), equalize.cross_entropy)


def sliding(tiny):
    x, z = pilots(tiny)
    return Sized(equalize.SlidingRNN(generator=seeded(1)), (x, z.s), equalize.cross_entropy)


def decoding(tiny):
    llr = equalize.zero_words(4 if tiny else 1000, 4.0, seeded(0))
    thetas = Thetas((torch.ones(432),), 2 if tiny else 10)
    network = Unfolded(equalize.belief_propagation, thetas, equalize.bch_63_45())
    return Sized(network, (llr, llr), equalize.bit_error)


SMALL = {"n": 150, "m": 200, "depth": 6, "batch": 128}
THETA, RIDGE, DEPTH = (0.2, 0.1), (0.05, 1.0, 0.02), 10
LARGE = partial(weights.mimo.scattered, antennas=60, users=30)
RECIPES = weights.tracking

# name: (sizes, what makes it)
NETWORKS = {
    "unfolded ISTA": ("150 x 200, 6 layers, batch 128", recovery(
        lambda H, K: Unfolded(sparse.ista, Thetas(THETA, K), H=H), **SMALL)),
    "LISTA": ("250 x 500, 16 layers, batch 64", recovery(
        lambda H, K: sparse.LISTA(H, THETA, K))),
    "LISTA-CPSS": ("250 x 500, 16 layers, batch 64", recovery(
        lambda H, K: sparse.LISTA_CP(H, THETA, K, kept=[2] * K))),
    "ALISTA": ("250 x 500, 16 layers, batch 64", recovery(
        lambda H, K: sparse.ALISTA(H, (1.0, 0.1), K))),
    "unfolded ADMM": ("150 x 200, 6 layers, batch 128", recovery(
        lambda H, K: sparse.UnfoldedADMM(H, RIDGE, K), **SMALL)),
    "unrolled greedy descent": ("100 x 200, 60 steps, batch 128", recovery(
        lambda H, K: Unfolded(sparse.greedy_descent, Thetas(
            (torch.eye(H.shape[1]) - H.mT @ H, 0.1), K, tied=(0,)), H=H, part=sparse.learned_gram),
        100, 200, 60, 128)),
    "perceptron": ("150 x 200, 512 units twice, batch 128", recovery(
        lambda H, K: mlp(len(H), 512, 512, H.shape[1], generator=seeded(3)), **SMALL)),
    "CORONA": ("32 x 32 x 20, 10 layers, batch 20", movies(
        lambda size, frames, tiny: lowrank.CORONA(start(2 if tiny else DEPTH), height=size))),
    "MovieCNN": ("32 x 32 x 20, 4 layers, batch 20", movies(
        lambda size, frames, tiny: lowrank.MovieCNN(frames, size, generator=seeded(3)))),
    "KalmanNet, one GRU": ("2 states, 100 steps, batch 64", tracked(
        partial(gain, "one"), RECIPES.walks)),
    "KalmanNet, three GRUs": ("2 states, 100 steps, batch 64", tracked(
        partial(gain, "three"), RECIPES.walks)),
    "Split-KalmanNet": ("2 states, 100 steps, batch 64", tracked(
        partial(gain, "split"), RECIPES.walks)),
    "KalmanNet on Lorenz": ("3 states, 100 steps, batch 64", tracked(
        partial(RECIPES.pilot, 0), RECIPES.flights)),
    "recurrent network": ("3 states, 100 steps, batch 64", tracked(
        partial(RECIPES.black_box, 0), RECIPES.flights)),
    "augmented smoother": ("100 steps, 10 iterations, 20 axes", smoothing(
        weights.smoothing.hybrid)),
    "SubspaceNet": ("8 sensors, 100 snapshots, 8 lags, batch 128", directions(
        partial(weights.doa.published, 0))),
    "SubspaceNet, fully connected": ("8 sensors, 100 snapshots, batch 128", directions(
        partial(weights.doa.surrogate, 0))),
    "DeepSIC": ("4 users, 5 iterations, batch 128", detection(
        lambda: mimo.DeepSIC(4, 4, generator=seeded(1)), partial(weights.mimo.pilots, users=4),
        mimo.cross_entropy, 128)),
    "DeepSIC, 32 users": ("32 users, 5 iterations, batch 128", detection(
        lambda: mimo.DeepSIC(32, 32, generator=seeded(1)), weights.mimo.pilots,
        mimo.cross_entropy, 128)),
    "DetNet": ("30 users, 60 antennas, 30 layers, batch 3000", detection(
        lambda: mimo.DetNet(30, 30, generator=seeded(1)), LARGE, squared_error, 3000)),
    "OAMP-Net": ("10 users, 20 antennas, 5 layers, batch 500", detection(
        lambda: mimo.OAMPNet(5), weights.mimo.scattered, squared_error, 500)),
    "ViterbiNet": ("16 states, 5,000 pilots", viterbinet),
    "sliding recurrent network": ("windows of 20 in 20 blocks of 250", sliding),
    "weighted belief propagation": ("BCH(63, 45), 10 iterations, batch 1000", decoding),
}  # fmt: skip
SMALL_STEPS = ("KalmanNet, one GRU", "KalmanNet, three GRUs", "DeepSIC", "DeepSIC, 32 users")


# ---- Timing -------------------------------------------------------------------------------------


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(call, device, budget):
    """The median seconds of a call, waited for, after two calls to warm up."""
    for _ in range(2):
        call()
    wait(device)
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < budget and len(times) < 200:
        first = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - first)
    return statistics.median(times)


def there(sized, device):
    """The same on a device."""
    return Sized(sized.network.to(device), moved(sized.data, lambda t: t.to(device)), sized.loss)


def inference(sized):
    def call():
        with torch.no_grad():
            return estimated(sized.network(sized.data[0]))

    return call


def estimated(answer):
    return answer.s if isinstance(answer, tracking.Belief) else answer


def step(sized, **kind):
    """A training step; the learning rate is small, so that many of them change little."""
    trained = [p for p in sized.network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-6, **kind)

    def call():
        optimizer.zero_grad()
        loss = sized.loss(sized.network(sized.data[0]), sized.data[1])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def agree(ours, theirs, tolerance=2e-2):
    """AssertionError unless two answers are the same, to a part of the largest entry."""
    apart = (ours.cpu() - theirs.cpu()).abs().max() / theirs.abs().max().cpu()
    if not apart <= tolerance:
        raise AssertionError(f"the answers are {apart:.2g} of the largest entry apart")


def unchecked():
    """Without the looks at values of `filtered` and of detection: a graph cannot have them. They
    are made once, when the data are."""
    stack, at = ExitStack(), "mbdl_course.{}.algorithm.{}"
    stack.enter_context(mock.patch(at.format("tracking", "checked"), lambda *given: None))
    stack.enter_context(mock.patch(at.format("tracking", "finite"), lambda beliefs: beliefs))
    stack.enter_context(mock.patch(at.format("mimo", "checked"), lambda *given: None))
    return stack


def cell(x, h, W, U, b, c):
    """A gated recurrent unit in plain arithmetic: torch's own would be one call for each seed."""
    (r, z, n), (kept_r, kept_z, kept_n) = (x @ W.mT + b).chunk(3, -1), (h @ U.mT + c).chunk(3, -1)
    r, z = (r + kept_r).sigmoid(), (z + kept_z).sigmoid()
    n = (n + r * kept_n).tanh()
    return n + z * (h - n)


def graphed(call, device):
    """The call recorded as a CUDA graph, to be replayed; on a CPU the call itself."""
    if device.type != "cuda":
        return call
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = call()

    def replayed():
        graph.replay()
        return answer

    return replayed


# ---- The tables ---------------------------------------------------------------------------------


def networks(device, tiny, budget):
    for name, (sizes, make) in NETWORKS.items():
        here, away = make(tiny), there(make(tiny), device)
        agree(inference(away)(), inference(here)())
        row = {"network": name, "sizes": sizes, "parameters": parameters(here.network)}
        for what, way in (("inference", inference), ("training", step)):
            row[f"{what}_cpu_ms"] = 1e3 * median(way(here), torch.device("cpu"), budget)
            row[f"{what}_ms"] = 1e3 * median(way(away), device, budget)
            row[f"{what}_cpu_over_device"] = row[f"{what}_cpu_ms"] / row[f"{what}_ms"]
        yield row


def graphs(device, tiny, budget):
    """Eager over replayed time, for networks of many small steps."""
    capturable = {"capturable": True} if device.type == "cuda" else {}
    for name in SMALL_STEPS:
        row = {"network": name, "sizes": NETWORKS[name][0]}
        for what, way in (("inference", inference), ("training", partial(step, **capturable))):
            plain = there(NETWORKS[name][1](tiny), device)
            eager = median(way(plain), device, budget)
            with unchecked():
                recorded = there(NETWORKS[name][1](tiny), device)
                replayed = graphed(way(recorded), device)
                agree(replayed(), way(plain)())
                row[f"{what}_ms"] = 1e3 * eager
                row[f"{what}_graph_ms"] = 1e3 * median(replayed, device, budget)
            row[f"{what}_eager_over_graph"] = row[f"{what}_ms"] / row[f"{what}_graph_ms"]
        yield row


def seeds(device, tiny, budget):
    """Several trainings in one, against one after the other: a step of all of them."""
    for count in (2,) if tiny else (5, 20):
        for name, made in (("KalmanNet, one GRU", together), ("DeepSIC", receivers)):
            at_once, alone = made(count, tiny, device)
            one = median(alone, device, budget)
            row = {"network": name, "seeds": count, "each_ms": 1e3 * one}
            row["together_ms"] = 1e3 * median(at_once, device, budget)
            yield row | {"one_by_one_over_together": count * one / (1e-3 * row["together_ms"])}


def together(count, tiny, device):
    """A gradient of `count` KalmanNets by vmap, and of one."""
    make = NETWORKS["KalmanNet, one GRU"][1]
    each = [make(tiny) for _ in range(count)]
    each = [there(one._replace(network=shaken(one.network, k)), device)
            for k, one in enumerate(each)]  # fmt: skip
    given, s = each[0].data
    state, buffers = torch.func.stack_module_state([sized.network for sized in each])

    def loss(state, buffers):
        beliefs = torch.func.functional_call(each[0].network, (state, buffers), (given,))
        return tracking.state_error(beliefs, s)

    def all_at_once():
        with unchecked(), mock.patch("torch.nn.modules.rnn._VF.gru_cell", cell):
            losses = torch.func.vmap(loss, randomness="error")(state, buffers)
        return torch.autograd.grad(losses.sum(), list(state.values())), losses

    def alone():
        own = [p for p in each[0].network.parameters() if p.requires_grad]
        value = tracking.state_error(each[0].network(given), s)
        return torch.autograd.grad(value, own), value

    agree(all_at_once()[1][0], alone()[1])
    return all_at_once, alone


def receivers(count, tiny, device):
    """A training step of `count` DeepSICs that lead with their number, and of one."""
    x, s = weights.mimo.pilots(4 if tiny else 128, seeded(0), users=4)
    several = tuple(v[:, None].expand(-1, count, -1, -1) for v in (x, s))
    pairs = ((count,), several), ((), (x, s))
    sized = [Sized(mimo.DeepSIC(4, 4, receivers=shape, generator=seeded(1)), data,
                   mimo.cross_entropy) for shape, data in pairs]  # fmt: skip
    return tuple(step(there(one, device)) for one in sized)


def crossover(device, tiny, budget):
    """Seconds of 16 steps for each batch: the first batch that is faster on the device, if any."""
    size, cpu = (10, 20) if tiny else (250, 500), torch.device("cpu")
    H = sparse.gaussian_matrix(*size, seeded(0), dtype=torch.float32)
    network, found = sparse.LISTA(H, THETA, 16), {}

    def ista(network, x):
        return last(sparse.ista(x, network.H, repeat(THETA, 16)))

    for name, method in (("ISTA", ista), ("LISTA", lambda network, x: network(x))):
        rows = []
        for batch in BATCHES[:2] if tiny else BATCHES:
            x = torch.randn(batch, size[0], 1, generator=seeded(1))
            row = {"batch": batch}
            for key, at in (("cpu_ms", cpu), ("device_ms", device)):
                with torch.no_grad():
                    row[key] = 1e3 * median(partial(method, network.to(at), x.to(at)), at, budget)
            rows.append(row)
        faster = [row["batch"] for row in rows if row["device_ms"] < row["cpu_ms"]]
        found[name] = {"sizes": f"{size[0]} x {size[1]}, 16 steps", "rows": rows,
                       "faster_from_batch": faster[0] if faster else None}  # fmt: skip
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--seconds", default=2.0, type=float)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    device, cpu = given.device, given.device.type == "cpu"
    tiny = given.tiny or cpu
    if not cpu and not torch.cuda.is_available():
        print("gpu_speed: torch finds no GPU here; nothing was measured", file=sys.stderr)
        return 1
    torch.backends.cudnn.allow_tf32 = False  # float32 on both
    result = {
        "device": "cpu" if cpu else torch.cuda.get_device_name(device),
        "tiny": tiny,
        "cpu": {"name": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                "threads": torch.get_num_threads()},
        "versions": versions("torch") | {"cuda": torch.version.cuda,
                                         "python": platform.python_version()},
        "crossover": crossover(device, tiny, given.seconds),
    }  # fmt: skip
    print(json.dumps(rounded(result)), flush=True)
    for table in (networks, graphs, seeds):
        result[table.__name__] = []
        for row in table(device, tiny, given.seconds):
            print(rounded(row), flush=True)
            result[table.__name__].append(row)
    out = given.out or (None if tiny else RESULTS)
    if out:
        out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
