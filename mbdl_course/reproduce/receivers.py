"""Entries of chapters 14 and 15: symbols from several users, symbols through a memory, a code."""

import torch

from mbdl_course import datasets, equalize, mimo
from mbdl_course.equalize import ON_OFF, Sent, SlidingRNN, ViterbiNet, bcjr, outputs, viterbi
from mbdl_course.fold import last
from mbdl_course.learn import Stage, draws, seeded, training
from mbdl_course.mimo import GAUSSIAN, DeepSIC, DetNet, Layers, Received, ber, variance
from mbdl_course.unfold import Thetas, Unfolded
from mbdl_course.weights import shipped
from mbdl_course.weights.mimo import scattered, sic

from .entry import Entry, Scale

FRAME, CSI = 500, 0.1  # symbols that share an error of the channel; its variance

# ---- Channels with memory ----------------------------------------------------------------------


def viterbinet(
    seed, device, channel, gammas, n_train, steps, batch, box_steps, n_test, snr_db, pilots
):
    """SER averaged over γ; pilots of the true taps, or wrong anew in each frame."""
    law = {"Gaussian": equalize.gaussian, "Poisson": equalize.poisson}[channel](snr_db)
    light, g = law.levels == ON_OFF, seeded(seed)
    taps = torch.stack([equalize.exponential(gamma) for gamma in gammas])[:, None].to(device)

    def drawn(count):  # what is sent in frames, and what one believes of the taps in each
        z = equalize.sent(FRAME, (len(gammas), count // FRAME), 4, g)
        noise = torch.randn(len(gammas), count // FRAME, 4, generator=g).to(device)
        believed = equalize.disturbed(taps, noise, CSI)
        return Sent(*(v.to(device) for v in z)), believed.abs() if light else believed

    z, wrong = drawn(n_train)
    x = equalize.received(law, taps if pilots == "clean" else wrong, z)
    net = ViterbiNet(equalize.classifier_for(x, 16, g)).to(device)
    source = equalize.pilots(x, z.state, batch, seed + 1)
    last(training(net.classifier, source, equalize.cross_entropy, [Stage(steps, 1e-2)]))
    if box_steps:
        box = SlidingRNN((len(gammas),), generator=g).to(device)
        source = equalize.windows(x, z.s, box.window, 100, seed + 2)
        last(training(box, source, equalize.cross_entropy, [Stage(box_steps, 1e-2)], clip=5.0))
    straight = (x - 1) * 10 ** (-snr_db / 20) if light else x  # hᵀa + noise, for least squares
    squares, _ = equalize.least_squares(straight, z.state, law.levels, 4)
    table = equalize.by_state(x, z.state, 16)
    z, wrong = drawn(n_test)
    x = equalize.received(law, taps, z)
    with torch.no_grad():
        slots = {
            "taps known": equalize.channel_likelihood(x, law, taps),
            "least squares": law.log_likelihood(x, outputs(squares, law.levels)),
            "by state": table(x),
            "ViterbiNet": net(x),
        }
        if pilots != "clean":
            slots["one bad draw"] = equalize.channel_likelihood(x, law, wrong)
        hats = {name: viterbi(ll).s for name, ll in slots.items()}
        for name, slot in (("taps known, BCJR", "taps known"), ("BCJRNet", "ViterbiNet")):
            hats[name] = bcjr(slots[slot]).s.argmax(-1)
        if box_steps:
            hats["sliding network"] = box(x).argmax(-1)
    return {name: (s_hat != z.s).double().mean() for name, s_hat in hats.items()}


# ---- Several users -----------------------------------------------------------------------------


def deepsic(seed, device, n_train, widths, steps, batch, n_test, snr_db, pilots):
    """BER of 4 users; pilots of the true H, or wrong anew in each frame."""
    H, g = mimo.decaying(4, 4), seeded(seed)

    def drawn(count):  # symbols, noise, and what one believes of H in each frame
        s, w = mimo.symbols(count, 4, 1, generator=g), torch.randn(count, 4, 1, generator=g)
        noise = torch.randn(count // FRAME, 4, 4, generator=g)
        believed = mimo.uncertain(H, CSI, noise).repeat_interleave(FRAME, 0)
        return [v.to(device) for v in (s, w, believed)]

    noise = variance(snr_db)
    (s, w, wrong), true = drawn(n_train), H.to(device)
    x = GAUSSIAN.observed(s, true if pilots == "true H" else wrong, w, snr_db)
    model = DeepSIC(4, 4, 5, (), widths, g).to(device)
    last(mimo.sequentially(model, x, s, steps, size=batch, seed=seed + 1))
    fit = mimo.least_squares(x, s)
    s, w, wrong = drawn(n_test)
    x = GAUSSIAN.observed(s, true, w, snr_db)
    free = x - fit.offset
    with torch.no_grad():
        odds = {
            "MAP, H known": mimo.maximum_likelihood(x, true),
            "SIC, H known": sic(x, true, noise),
            "least squares + SIC": sic(free, fit.H, fit.variance),
            "least squares + MAP": mimo.maximum_likelihood(free, fit.H),
            "DeepSIC": torch.cat([model(part) for part in x.split(2000)]),
        }
        if pilots != "true H":
            odds["MAP, one wrong H"] = mimo.maximum_likelihood(x, wrong)
            odds["SIC, one wrong H"] = sic(x, wrong, noise)
    return {name: ber(o, s) for name, o in odds.items()}


def detnet(seed, device, depth, steps, batch, n_test, snr_db, users):
    """BER over a new channel for each vector; steps = 0: the shipped network."""
    g = seeded(seed)

    def moved(count, g, snr_db=None):
        received, s = scattered(count, g, snr_db, 2 * users, users)
        return Received(*(v.to(device) for v in received)), s.to(device)

    if steps:
        net = DetNet(users, depth, generator=g).to(device)
        source = draws(moved, batch, seed + 1)
        last(training(Layers(net), source, mimo.every_layer, [Stage(steps, 8e-4)]))
    else:
        large, small = shipped("detnet_large"), shipped("mimo_unfolded")["detnet"]
        net = {30: large, 10: small}[users].to(device)
    methods = {
        "MMSE": lambda received: mimo.mmse(*received),
        "SIC": lambda received: sic(*received, depth=3 if users > 10 else 5),
        "DetNet": net,
    }
    if users <= 10:
        methods["ML"] = lambda received: mimo.maximum_likelihood(*received[:2])
    wrong = dict.fromkeys(methods, 0)
    for _ in range(n_test // 1000):  # pieces that fit the cache
        received, s = moved(1000, g, snr_db)
        with torch.no_grad():
            wrong = {name: n + ber(methods[name](received), s) for name, n in wrong.items()}
    return {name: n / (n_test // 1000) for name, n in wrong.items()}


def detnet_published(snr_db, users):
    peer = datasets.reference("mimo")
    ends = dict(
        zip((peer["snr_db"][0], peer["snr_db"][-1]), peer["detnet_10x20_ends"], strict=True)
    )
    of = {30: dict(zip(peer["snr_db"], peer["detnet_30x60"], strict=True)), 10: ends}[users]
    return {"DetNet": of[snr_db]} if snr_db in of else {}


# ---- A code ------------------------------------------------------------------------------------


def weighted_bp(seed, device, steps, lr, batch, n_test, ebn0_db):
    """BER of BCH(63, 45), ten iterations: as it is, one number learned, one for each edge; both
    trained at 4 dB on the loss of all iterations."""
    H = equalize.bch_63_45().to(device)

    def decoder(theta, k=None):  # trained on the k-th stream of words
        thetas = Thetas((theta,), 10, tied=True)
        net = Unfolded(equalize.belief_propagation, thetas, H=H).to(device)
        if k is not None:
            words = equalize.noisy_words(batch, seed + k, 4.0, 4.0)
            source = ((llr.to(device), llr) for llr, _ in words)
            last(training(Layers(net), source, equalize.bit_error, [Stage(steps, lr)]))
        return net

    nets = {"plain": decoder(1.0), "one number": decoder(1.0, 1)}
    number = nets["one number"].thetas.schedule(0)[0].cpu()
    nets["432 weights, from 1"] = decoder(torch.ones(432), 2)
    nets["432 weights, number first"] = decoder(number.expand(432), 3)
    llr = equalize.zero_words(n_test, ebn0_db, seeded(seed)).to(device)
    with torch.no_grad():
        llrs = {name: torch.cat([net(part) for part in llr.split(250)])  # fits the cache
                for name, net in nets.items()}  # fmt: skip
    return {name: (v <= 0).double().mean() for name, v in llrs.items()}


def weighted_bp_published(ebn0_db):
    peer = datasets.reference("equalize")["weighted_bp"]
    k = peer["ebn0_db"].index(ebn0_db)
    found = {"plain": peer["plain"][k], "432 weights, from 1": peer["weighted"][k]}
    return found | ({"one number": peer["scalar_6_db"]} if ebn0_db == 6 else {})


# ---- Entries -----------------------------------------------------------------------------------

PILOTS, H_PILOTS = ["clean", "CSI error"], ["true H", "ten wrong H"]
ALL_GAMMAS, SOME_GAMMAS = [k / 10 for k in range(1, 21)], [0.1, 0.5, 1.0, 1.5, 2.0]
CURVES = "published as curves, no number is read off them"
COSINE = "the rate of learning falls along a half cosine, theirs stays"


def memory_entry(channel, source, some, every, note):
    sizes = {"channel": channel, "n_train": 5000, "n_test": 50_000}
    quick = {"gammas": SOME_GAMMAS, "steps": 400, "batch": 100, "box_steps": 400}
    paper = {"gammas": ALL_GAMMAS, "steps": 18_500, "batch": 27, "box_steps": 1500}
    return Entry(
        f"ViterbiNet and BCJRNet, memory 4, {channel}, mean over γ (chapter 15)",
        source,
        viterbinet,
        Scale({"snr_db": some, "pilots": PILOTS}, 5, "five γ of twenty, three SNRs; 400 steps of "
              f"100 pilots, the sliding network of 100 windows; {CURVES}", sizes | quick),
        Scale({"snr_db": every, "pilots": PILOTS}, 5, f"{note}; a hundred epochs of batches of 27; "
              f"{COSINE}; {CURVES}", sizes | paper),
        lambda snr_db, pilots: {},
        {"taps known": "truth", "taps known, BCJR": "bound", "one bad draw": "model-based",
         "least squares": "FISTA", "by state": "ADMM", "ViterbiNet": "DNN-aided",
         "BCJRNet": "augmented", "sliding network": "black box"},
        "SER",
        log=True,
    )  # fmt: skip


ENTRIES = {
    "viterbinet": memory_entry(
        "Gaussian",
        "Shlezinger, Farsad, Eldar, Goldsmith 2020, doi 10.1109/TWC.2020.2972352 and arXiv "
        "2006.03258, shown again in doi 10.1109/JPROC.2023.3247480, Figure 14",
        [2.0, 6.0, 10.0], [float(v) for v in range(-6, 11, 2)], "the published sizes",
    ),
    "viterbinet_poisson": memory_entry(
        "Poisson", "Shlezinger, Farsad, Eldar, Goldsmith 2020, doi 10.1109/TWC.2020.2972352",
        [20.0, 26.0, 32.0], [float(v) for v in range(14, 33, 2)],
        "sizes as published for the Gaussian channel, SNRs our own: no code of this one is public",
    ),
    "deepsic": Entry(
        "DeepSIC, 4 users, 4 antennas (chapter 14)",
        "Shlezinger, Fu, Eldar 2020, doi 10.1109/TWC.2020.3032663, and its public code, shown "
        "again in doi 10.1109/JPROC.2023.3247480, section IV-B",
        deepsic,
        Scale({"snr_db": [0.0, 4.0, 8.0, 10.0, 12.0], "pilots": H_PILOTS}, 5, "300 steps of 128 "
              f"for each iteration, five SNRs; all else as published; {CURVES}",
              {"n_train": 5000, "widths": [60, 30], "steps": 300, "batch": 128, "n_test": 20_000}),
        Scale({"snr_db": [float(v) for v in range(0, 15, 2)], "pilots": H_PILOTS}, 5, "the "
              "published sizes; a hundred epochs of batches of 27 for each iteration; "
              f"{COSINE}; {CURVES}",
              {"n_train": 5000, "widths": [60, 30], "steps": 18_500, "batch": 27,
               "n_test": 20_000}),
        lambda snr_db, pilots: {},
        {"MAP, H known": "truth", "SIC, H known": "bound", "MAP, one wrong H": "IHT",
         "SIC, one wrong H": "model-based", "least squares + MAP": "ADMM",
         "least squares + SIC": "FISTA", "DeepSIC": "DNN-aided"},
        "BER",
        log=True,
    ),
    "detnet": Entry(
        "DetNet, a new channel for each vector: 30 × 60 and 10 × 20 (chapter 14)",
        "Samuel, Diskin, Wiesel 2019, doi 10.1109/TSP.2019.2899805: logs in its public code",
        detnet,
        Scale({"snr_db": [8, 9, 10, 11, 12, 13], "users": [30, 10]}, 5, "shipped networks of 12 "
              "tied and 10 layers, one seed each: the spread is over draws of the test set; "
              "published: 10 × 20 with soft output, its ends only",
              {"depth": 0, "steps": 0, "batch": 0, "n_test": 10_000}),
        Scale({"snr_db": [8, 9, 10, 11, 12, 13], "users": [30, 10]}, 5, "30 layers, 200,000 steps "
              "of 3,000 vectors, as published; a network trained anew for each point",
              {"depth": 30, "steps": 200_000, "batch": 3000, "n_test": 100_000}),
        detnet_published,
        {"MMSE": "observation", "DetNet": "unfolded", "SIC": "model-based", "ML": "truth"},
        "BER",
        log=True,
    ),
    "weighted_bp": Entry(
        "Belief propagation with learned weights, BCH(63, 45), ten iterations (chapter 15)",
        "Weighted belief propagation notebook of sionna 1.2 (Apache-2.0), after Nachmani, Be'ery, "
        "Burshtein 2016, doi 10.1109/ALLERTON.2016.7852251",
        weighted_bp,
        Scale({"ebn0_db": [4.0, 5.0, 6.0]}, 5, "100 steps of 120 words at twice the rate of "
              "learning; published: 200 of 1,000",
              {"steps": 100, "lr": 2e-2, "batch": 120, "n_test": 5000}),
        Scale({"ebn0_db": [4.0, 5.0, 6.0]}, 5, f"the published sizes; {COSINE}",
              {"steps": 200, "lr": 1e-2, "batch": 1000, "n_test": 20_000}),
        weighted_bp_published,
        {"plain": "model-based", "one number": "learned", "432 weights, from 1": "unfolded",
         "432 weights, number first": "coupled"},
        "BER",
        log=True,
    ),
}  # fmt: skip
