"""Entries of chapters 09 to 11: filters, learned gains, and a smoother that is corrected."""

import math
from itertools import accumulate, islice, product

import torch

from mbdl_course import datasets, tracking, weights
from mbdl_course.evaluate import mse
from mbdl_course.fold import last
from mbdl_course.learn import Stage, seeded
from mbdl_course.networks import moved
from mbdl_course.tracking import (
    RNN,
    Belief,
    LearnedNoise,
    SplitGRUs,
    compressed,
    extended,
    filtered,
    history,
    log_likelihood,
    lorenz,
    mse_db,
    particle_filter,
    riccati,
    rotation,
    simulated,
    unscented,
    white,
)
from mbdl_course.weights import smoothing as smoothers
from mbdl_course.weights import tracking as recipes

from .entry import Entry, Scale


def on(device, value):
    """The same data, model or belief on a device."""
    return moved(value, lambda tensor: tensor.to(device))


def published():
    return datasets.reference("tracking")


# ---- Lorenz: filters tuned, gains learned -------------------------------------------------------


def flown(data, rule, q2, order=None):
    """MSE in dB of a filter on `flights`; rule: a gain's, or the number of particles."""
    begin, x, s = data
    model = on(x.device, lorenz(0.02, q2, 1.0, order, dtype=x.dtype))
    start = Belief(begin, torch.zeros(3, 3).to(x))
    try:
        run = (particle_filter(x, model, rule, start, seeded(0)) if isinstance(rule, int)
               else filtered(x, model, rule(model), start))  # fmt: skip
        return mse_db(torch.stack([b.s for b in islice(run, 1, None)]), s).item()
    except FloatingPointError:  # it diverges: the worst there is
        return math.inf


CRUDE, FINE = (0.1, 0.15, 0.3), (1e-6, 1e-5, 1e-4)  # q² for a Taylor step; for Runge-Kutta


def tuned(tune, test, rule, grid=CRUDE, order=None):
    """MSE in dB on test, with the q² that is best on tune."""
    best = min(grid, key=lambda q2: flown(tune, rule, q2, order))
    return flown(test, rule, best, order)


def flights(seed, device, horizon, n_test):
    """20 trajectories to tune on and n_test others, each from its own start, which is known."""
    drawn = (recipes.flights(n, seed + k, horizon) for k, n in ((1, 20), (2, n_test)))
    return (on(device, data) for data in drawn)


def kalmannet_lorenz(seed, device, horizon, train, n_test):
    """Filters with q² tuned, and networks, on trajectories of `horizon` steps; train: from this
    seed (on the CPU), or the shipped weights."""
    tune, test = flights(seed, device, horizon, n_test)
    if train:
        nets = {name: recipes.flown(name, seed) for name in ("kalmannet", "rnn", "relu")}
    else:
        nets = weights.shipped("kalmannet_lorenz")
    step = lorenz(0.02, 0.0, 1.0, dtype=test[1].dtype).F
    blind = accumulate(range(horizon), lambda s, _: step(s), initial=test[0])
    return {
        "EKF, J = 2": tuned(tune, test, extended, order=2),
        "UKF, J = 2": tuned(tune, test, unscented, order=2),
        "100 particles, J = 2": tuned(tune, test, 100, order=2),
        "EKF, Runge–Kutta": tuned(tune, test, extended, FINE),
        "KalmanNet": recipes.mse(nets["kalmannet"].to(device), test),
        "RNN": recipes.mse(nets["rnn"].to(device), test),
        "RNN, last ReLU": recipes.mse(nets["relu"].to(device), test),
        "no observations": mse_db(torch.stack([*blind][1:]), test[2]),
    }


def lorenz_published(horizon):
    table = published()["lorenz_table"] if horizon == 3000 else {}
    names = {"EKF": "EKF, J = 2", "UKF": "UKF, J = 2", "PF": "100 particles, J = 2",
             "KalmanNet": "KalmanNet", "RNN": "RNN, last ReLU"}  # fmt: skip
    return {names[name]: db for name, (db, _) in table.items()}


# ---- A linear model, H turned -------------------------------------------------------------------


def least_squares(x, s):
    """H from pairs: min Σ ‖x − H s‖²."""
    x, s = (v.flatten(0, -3)[..., 0] for v in (x, s))
    return torch.linalg.lstsq(s, x).solution.mT


def kalmannet_linear(seed, device, turned, steps, n_train, n_test):
    """H turned by so many degrees in all data: told, not told, regressed, or met by learning from
    this seed with so many steps on windows of 20, 50 and 100."""
    data, test, held_out = (on(device, recipes.walks(n, seed + k, turned))
                            for k, n in ((0, n_train), (1, n_test), (2, 200)))  # fmt: skip
    truth, believed = (on(device, recipes.linear(degrees)) for degrees in (turned, 0.0))
    regressed, begin = truth._replace(H=least_squares(*data[1:])), on(device, recipes.known(2))

    def kalman(model):
        return mse_db(history(filtered(test[1], model, riccati(model), begin)).s, test[2])

    def learned(net):
        net = recipes.tracked(net.to(device), data, held_out, windows, seed, lr=1e-2)
        return recipes.mse(net, test)

    g = seeded(seed + 100)
    split = recipes.with_network(SplitGRUs(2, 2, generator=g), compressed)
    nets = {"KalmanNet": recipes.walker(seed, compressed), "Split-KalmanNet": split,
            "RNN": RNN(2, 2, 36, scale=10.0, generator=g)}  # fmt: skip
    windows = list(zip((20, 50, 100), steps, strict=True))
    return {
        "KF, told the truth": kalman(truth),
        "KF, believes H = I": kalman(believed),
        "KF, H by least squares": kalman(regressed),
    } | {name: learned(net) for name, net in nets.items()}


def linear_published(turned):
    db = published()["canonical_db"]
    if turned == 0:
        return {"KF, told the truth": db["kalman"][0]}
    if turned == 10:
        return {
            "KF, told the truth": db["turned_data"],
            "KF, believes H = I": db["believes_identity"],
        }
    return {}


# ---- Neural augmentation ------------------------------------------------------------------------


def augmentation(seed, device, world, n_train, length, n_test, steps):
    """MSE of smoothers in a world that their model simplifies, with n_train time steps to learn
    from, half of them to stop by, in trajectories of at most `length`. Alone and with many data
    the network improves for longer, and may."""
    velocity = world == "velocity"
    model = smoothers.straight(0.175) if velocity else smoothers.taylor(int(world[-1]))
    draw = smoothers.on_axes if velocity else smoothers.on_attractor
    g = seeded(seed)
    data, held_out, test = (on(device, draw(n, g, length)) for n in (n_train // 2,) * 2 + (n_test,))
    x, wanted = test
    errors = {"observation": mse(x, wanted)}

    def positions(model, start, x=x):
        model, start = on(device, (model, start))
        return model.H @ smoothers.plain(model, start)(x)

    errors["plain smoother"] = mse(positions(*model), wanted)
    for name, make in (("hybrid", smoothers.hybrid), ("network alone", smoothers.alone)):
        most = 3 * steps if name == "network alone" and n_train >= 6400 else steps
        net = make(*model, seed).to(device)
        last(smoothers.fitting(net, data, held_out, seed, Stage(most, 5e-3, patience=8)))
        with torch.no_grad():
            errors[name] = mse(net(x), wanted)
    if velocity:
        errors["true model"] = mse(positions(*smoothers.dragged()), wanted)
        unknown = Belief(torch.zeros(3, 1), 10 * torch.eye(3))  # of the start

        def likelihood(case):
            real, begin = on(device, (smoothers.dragged(*case)[0], unknown))
            seen = torch.cat([data[0], held_out[0]], 1)
            return log_likelihood(history(filtered(seen, real, riccati(real), begin))).sum()

        drags, springs = (0.0, 0.04, 0.08, 0.12), (0.05, 0.1, 0.15, 0.2, 0.25)
        best, _ = smoothers.dragged(*max(product(drags, springs), key=likelihood))
        errors["two numbers fitted"] = mse(positions(best, unknown), wanted)
    else:

        def runge_kutta(q2, x):
            taylor, start = smoothers.taylor(1, q2)
            return positions(taylor._replace(F=lorenz(0.05, q2, 0.25, dtype=x.dtype).F), start, x)

        best = min((1e-4, 1e-3, 1e-2), key=lambda q2: mse(runge_kutta(q2, data[0]), data[1]))
        errors["Runge–Kutta smoother"] = mse(runge_kutta(best, x), wanted)
    return errors


def augmentation_published(world, n_train):
    public = published()["augmentation"]
    if world == "velocity":
        return {"observation": public["observation"], "plain smoother": public["assumed"],
                "true model": public["optimal"]}  # fmt: skip
    return {"plain smoother": public["extended"][int(world[-1]) - 1]}


# ---- Classical filters --------------------------------------------------------------------------


def filters(seed, device, setting, n_test, horizon):
    """MSE in dB of classical filters in three published settings; horizon: steps of Lorenz."""
    if setting == "Lorenz":
        tune, test = flights(seed, device, horizon, n_test)
        return {"EKF, J = 5": tuned(tune, test, extended, order=5),
                "UKF, J = 5": tuned(tune, test, unscented, order=5),
                "100 particles, J = 5": tuned(tune, test, 100, order=5),
                "EKF, Runge–Kutta": tuned(tune, test, extended, FINE)}  # fmt: skip
    return (canonical if setting == "canonical" else velocity)(seed, device, n_test)


def canonical(seed, device, n_test):
    """The linear model of `kalmannet_linear`, as it is, and a filter that turns H by 10 degrees."""
    _, x, s = on(device, recipes.walks(n_test, seed))
    models = {"Kalman filter": recipes.linear(), "Kalman filter, H turned": recipes.linear(10.0)}
    errors = {}
    for name, model in on(device, models).items():
        b = history(filtered(x, model, riccati(model), on(device, recipes.known(2))))
        errors[name] = mse_db(b.s, s)
    return errors


def velocity(seed, device, n_test):
    """The position of constant velocity: the right filter, what others made of it, and Q learned
    from 20 trajectories; its R = 2 is the deviation in the place of the variance."""
    model = tracking.constant_velocity(0.1, 0.5**2, 2.0**2)
    start = Belief(torch.tensor([[0.0], [1.0]]).double(), torch.zeros(2, 2).double())
    g = seeded(seed)
    draws = [simulated(model, start, white(200, n, model, g)) for n in (20, n_test)]
    (fit, (x, s)), model, start = on(device, (draws, model, start))
    unit = torch.eye(2).to(x)

    def error(b, s):
        return (b.s - s)[..., 0, 0].square().mean()

    def kalman(model, start=start, times=1):
        b = history(filtered(x.repeat_interleave(times, 0), model, riccati(model), start))
        return 10 * error(b._replace(s=b.s[times - 1 :: times]), s).log10()

    learned = LearnedNoise(model._replace(Q=unit), start, learn=("Q",))
    last(tracking.fitting(learned, lambda: error(learned(fit[0]), fit[1]), 20, 1e-5))
    theirs, loose = model._replace(R=2 * unit[:1, :1]), start._replace(Sigma=unit)
    turned = theirs._replace(F=rotation(math.degrees(0.01)).to(x) @ model.F)
    return {
        "Kalman filter": kalman(model),
        "Q learned": kalman(model._replace(Q=learned.model.Q.detach())),
        "R = 2, each x taken twice": kalman(theirs, loose, 2),
        "R = 2, F turned": kalman(turned, loose),
        "R = 2, F turned, Q = I": kalman(turned._replace(Q=unit), loose),
    }


def filters_published(setting):
    public = published()
    v, c, lz = (public[name] for name in ("velocity", "canonical_db", "lorenz_db"))
    if setting == "canonical":
        return {"Kalman filter": c["kalman"][0], "Kalman filter, H turned": c["rotated_10"]}
    if setting == "Lorenz":
        return {"EKF, J = 5": lz["ekf"], "UKF, J = 5": lz["ukf"], "100 particles, J = 5": lz["pf"]}
    names = {"learned": "Q learned", "full": "R = 2, each x taken twice",
             "rotated": "R = 2, F turned",
             "rotated_and_unit": "R = 2, F turned, Q = I"}  # fmt: skip
    return {label: 10 * math.log10(v[key]) for key, label in names.items()}


# ---- The Nile -----------------------------------------------------------------------------------

SPREADS = {"variance 10⁶": 1e6, "nothing known": math.inf}


def nile(seed, device, before):
    """Variances of a drifting level by maximum likelihood, from a guess of both that is random,
    each 10² to 10⁵. before: what is known of the level before the first observation, which with
    nothing known is all there is."""
    x = datasets.nile()[:, None, None].double().to(device)
    guess = 10 ** (2 + 3 * torch.rand(2, 1, 1, generator=seeded(seed)))
    one, (Q, R) = torch.ones(1, 1).to(x), guess.to(x)
    level = LearnedNoise(tracking.Model(one, one, Q, R), None)

    def loss():
        R = level.model.R
        weight = 1 / (1 + R / SPREADS[before])
        level.start = Belief(weight * x[0], weight * R)
        return -log_likelihood(level(x[1:]))

    last(tracking.fitting(level, loss, 100))
    return {"R, of an observation": level.model.R.item(), "Q, of a step": level.model.Q.item()}


def nile_published(before):
    told = published()["nile"]
    book, package = (told["irregular"], told["level"]), told["statsmodels"]
    R, Q = book if before == "nothing known" else package
    return {"R, of an observation": R, "Q, of a step": Q}


KALMANNET = "Revach et al. 2022, KalmanNet, doi 10.1109/TSP.2022.3158588"
TABLE = "Shlezinger, Eldar, Boyd 2022, doi 10.1109/ACCESS.2022.3218802, table 1"
ENTRIES = {
    "kalmannet_lorenz": Entry(
        "The Lorenz attractor under a Taylor step, r² = 1 (chapter 10)",
        TABLE,
        kalmannet_lorenz,
        Scale({"horizon": [100, 1000, 3000]}, 3,
              "shipped weights and 100 trajectories a draw; the paper: ten draws of noise on one",
              {"train": False, "n_test": 100}),
        Scale({"horizon": [100, 1000, 3000]}, 5,
              "trained anew in each repetition; 500 trajectories, each from its own start",
              {"train": True, "n_test": 500}),
        lorenz_published,
        {"EKF, J = 2": "model-based", "UKF, J = 2": "ADMM", "100 particles, J = 2": "IHT",
         "EKF, Runge–Kutta": "FISTA", "KalmanNet": "DNN-aided", "RNN": "black box",
         "RNN, last ReLU": "learned", "no observations": "observation"},
        "MSE in dB",
    ),
    "kalmannet_linear": Entry(
        "A linear model with H known, or turned by 10 degrees (chapter 10)",
        KALMANNET + ", and the stored results of its repository",
        kalmannet_linear,
        Scale({"turned": [0, 10]}, 3, "a quarter of the training: too little for the RNN; 3 seeds",
              {"steps": [60, 60, 150], "n_train": 1000, "n_test": 1000}),
        Scale({"turned": [0, 10]}, 5, "1,000 training trajectories, as published; our networks",
              {"steps": [100, 150, 800], "n_train": 1000, "n_test": 1000}),
        linear_published,
        {"KF, told the truth": "bound", "KF, believes H = I": "model-based",
         "KF, H by least squares": "FISTA", "KalmanNet": "DNN-aided",
         "Split-KalmanNet": "augmented", "RNN": "black box"},
        "MSE in dB",
    ),
    "augmentation": Entry(
        "A smoother, a corrected one, and a network alone over n_train (chapter 11)",
        "Garcia Satorras, Akata, Welling 2019, arXiv 1906.02547: the test sets of its public code",
        augmentation,
        Scale({"world": ["velocity", "Lorenz, J = 1"], "n_train": [100, 400, 1600, 6400]}, 3,
              "three seeds, at most 6,400 time steps; ten iterations, where the paper takes 100",
              {"length": 1000, "n_test": 10_000, "steps": 300}),
        Scale({"world": ["velocity", "Lorenz, J = 1", "Lorenz, J = 2"],
               "n_train": [100, 400, 1600, 6400, 25_600, 100_000]}, 5,
              "our networks: ten iterations and 16 numbers in a node; the paper's: 100 and 48",
              {"length": 1000, "n_test": 10_000, "steps": 300}),
        augmentation_published,
        {"observation": "observation", "plain smoother": "model-based", "hybrid": "augmented",
         "network alone": "black box", "two numbers fitted": "learned",
         "Runge–Kutta smoother": "FISTA", "true model": "bound"},
        "MSE",
    ),
    "filters": Entry(
        "Classical filters in three published settings (chapter 09)",
        f"Notebooks of Shlezinger, Eldar, doi 10.1561/2000000113; {KALMANNET}; {TABLE}",
        filters,
        Scale({"setting": ["canonical", "velocity", "Lorenz"]}, 5,
              "Lorenz: 100 steps, where the table has 3,000", {"n_test": 200, "horizon": 100}),
        Scale({"setting": ["canonical", "velocity", "Lorenz"]}, 10, "nothing is smaller",
              {"n_test": 200, "horizon": 3000}),
        filters_published,
        {"Kalman filter": "model-based", "Kalman filter, H turned": "IHT", "Q learned": "learned",
         "R = 2, each x taken twice": "IHT", "R = 2, F turned": "IHT",
         "R = 2, F turned, Q = I": "IHT", "EKF, J = 5": "model-based", "UKF, J = 5": "ADMM",
         "100 particles, J = 5": "IHT", "EKF, Runge–Kutta": "FISTA"},
        "MSE in dB",
    ),
    "nile": Entry(
        "The level of the Nile by maximum likelihood (chapter 09)",
        "Durbin, Koopman 2012, Time Series Analysis by State Space Methods; and statsmodels' own "
        "example, where the variance of the first level is 10⁶",
        nile,
        *2 * [Scale({"before": list(SPREADS)}, 10, "nothing is smaller; from ten guesses")],
        nile_published,
        {"R, of an observation": "model-based", "Q, of a step": "learned"},
        "variance",
    ),
}  # fmt: skip
