"""Training is lazy, seeded, resumable and keeps the best state; weight files are checked."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from mbdl_course import __main__ as command
from mbdl_course import weights
from mbdl_course.learn import (
    Stage,
    batches,
    draws,
    layerwise,
    load,
    manifest,
    save,
    seeded,
    squared_error,
    training,
    verify_weights,
)
from mbdl_course.operators import Mask
from mbdl_course.sparse import LISTA, UnfoldedADMM, gaussian_matrix, ista, observed, sparse_signals
from mbdl_course.unfold import Thetas, Unfolded

N, M, DEPTH = 8, 12, 3
H = gaussian_matrix(N, M, seeded(0))


def draw(size, generator):
    s = sparse_signals(size, M, generator, sparsity=2)
    noise = torch.randn(size, N, 1, generator=generator, dtype=torch.float64)
    return observed(s, H, noise, 30.0), s


def data(seed=1):
    return batches(*draw(60, seeded(seed)), 16, seed)


def lista(depth=DEPTH, tied=()):
    return LISTA(H, (0.2, 0.1), depth, tied=tied)


def scalars():
    """Two numbers a layer, each with a gradient (LISTA's first W2 has none: it sees s = 0)."""
    return Unfolded(ista, Thetas((0.2, 0.1), DEPTH, dtype=torch.float64), H=H)


def error(predict, held_out=draw(50, seeded(9))):  # noqa: B008
    return squared_error(predict(held_out[0]), held_out[1]).item()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def moved(before, after, k):
    """By how much, at most, each parameter of layer k changed."""
    names = [name for name in before if name.startswith(f"thetas.layers.{k}.")]
    return [(after[name] - before[name]).abs().max().item() for name in names]


def run(model, source=None, stages=(Stage(20, 1e-2),), **options):  # noqa: B008
    """Every Progress of a training."""
    return list(training(model, source or data(), squared_error, list(stages), **options))


# ---- the iterator ----


def test_nothing_happens_before_the_first_step(tmp_path):
    model, asked = lista(), []

    def source():
        asked.append("batch")
        yield from data()

    before, path = state(model), tmp_path / "c"
    p = training(model, source(), squared_error, [Stage(3)], asked.append, checkpoint=path)
    assert asked == [] and same(before, state(model)) and not path.exists()
    p.close()
    assert asked == [] and same(before, state(model)) and not path.exists()


def test_progress_says_what_happened():
    model, figures = lista(), iter([5.0, 3.0, 4.0, 6.0])
    stages = [Stage(4, 1e-2), Stage(3, 2e-3, cosine=False)]
    x, s = next(data())
    expected = squared_error(model(x), s).item()
    seen = run(model, stages=stages, validate=lambda predict: next(figures), every=3)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert {p.steps for p in seen} == {7}
    assert [p.stage for p in seen] == [0, 0, 0, 0, 1, 1, 1]
    # asked at steps 3 and 6 and where a stage ends, 4 and 7
    assert [p.validation for p in seen] == [None, None, 5.0, 3.0, 3.0, 4.0, 6.0]
    assert [p.best for p in seen] == [None, None, 5.0, 3.0, 3.0, 3.0, 3.0]
    assert seen[0].loss == expected
    assert all(p.model is model for p in seen)


def test_the_loss_falls_and_so_does_the_error_on_fresh_signals():
    model = lista()
    before = error(model)
    seen = run(model, draws(draw, 16, 1), [Stage(150, 1e-2)])
    losses = [p.loss for p in seen]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert error(model) < 0.6 * before


def test_the_rate_falls_along_a_half_cosine_or_stays():
    seen = run(lista(), stages=[Stage(5, 0.1), Stage(3, 0.2, cosine=False)])
    cosine = [0.1 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(5)]
    assert [p.lr for p in seen] == pytest.approx([*cosine, 0.2, 0.2, 0.2])


def test_the_rate_is_what_adam_uses():
    """Adam's first step moves a parameter by lr: lr g / (|g| + 1e-8)."""
    model = scalars()
    before = state(model)
    run(model, stages=[Stage(1, 3e-3)])
    came = [d for k in range(DEPTH) for d in moved(before, state(model), k)]
    assert came == pytest.approx([3e-3] * 2 * DEPTH, rel=1e-4)


def test_a_stage_trains_the_depth_and_the_parameters_it_names():
    model = scalars()
    before, depths = state(model), []

    def validate(predict):
        depths.append(torch.equal(predict(x), model(x, depth=2)))
        return 1.0

    x, _ = draw(3, seeded(5))
    run(model, stages=[Stage(3, depth=2)], validate=validate)
    assert min(moved(before, state(model), 0) + moved(before, state(model), 1)) > 0
    assert moved(before, state(model), 2) == [0, 0] and depths == [True]
    before, only = state(model), [([model.thetas.layers[1][1]], 1.0)]
    run(model, stages=[Stage(3, only=only)])
    assert [moved(before, state(model), k) for k in (0, 2)] == [[0, 0]] * 2
    mu, rho = moved(before, state(model), 1)
    assert mu == 0 < rho


def test_the_best_of_another_depth_does_not_count():
    model, figures = lista(), iter([1.0, 3.0, 2.0])
    stages = [Stage(1, depth=1), Stage(1, depth=2), Stage(1, depth=2)]
    kept = []
    for p in training(model, data(), squared_error, stages, lambda predict: next(figures)):
        kept.append((p.best, state(model)))
    assert [best for best, _ in kept] == [1.0, 3.0, 2.0]
    assert same(state(model), kept[2][1])


def test_layerwise_goes_from_layer_to_layer():
    """The first step of each stage shows which parameters move, and how fast."""
    lr, refine, shrink = 1e-3, (0.2, 0.02), 0.3
    model = scalars()
    stages = layerwise(model, 1, lr, refine, shrink)
    assert [stage.depth for stage in stages] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for i, stage in enumerate(stages):
        before, (k, part) = state(model), divmod(i, 3)
        run(model, stages=[stage])
        for layer in range(DEPTH):
            rate = 0.0
            if part == 0 and layer == k:
                rate = lr
            elif part > 0 and layer <= k:
                rate = lr * refine[part - 1] * shrink ** (k - layer)
            came = moved(before, state(model), layer)
            assert came == pytest.approx([rate] * 2, rel=1e-2), (i, layer)


def test_layerwise_training_improves_every_layer():
    model = lista()
    before = [squared_error(model(draw(50, seeded(9))[0], depth=k), draw(50, seeded(9))[1]).item()
              for k in (1, 2, 3)]  # fmt: skip
    run(model, stages=layerwise(model, 60, 1e-2), validate=error, every=20, clip=1.0)
    x, s = draw(50, seeded(9))
    after = [squared_error(model(x, depth=k), s).item() for k in (1, 2, 3)]
    assert all(a < 0.8 * b for a, b in zip(after, before, strict=True))
    assert after[2] < after[1] < after[0]


def test_layerwise_refuses_shared_layers():
    with pytest.raises(ValueError, match="model: its layers share parameters"):
        layerwise(lista(tied=(0, 1)), 10)


def test_the_gradient_is_clipped_over_what_is_trained():
    """Not over what a stage leaves alone, whose gradients no one uses and no one resets."""
    model = lista()
    only = list(model.thetas.layers[2])

    def norm(parameters):
        return torch.cat([p.grad.flatten() for p in parameters]).norm().item()

    for _ in training(model, data(), squared_error, [Stage(5, only=[(only, 1.0)])], clip=1e-3):
        assert norm(only) == pytest.approx(1e-3, rel=1e-3)
    for _ in training(model, data(), squared_error, [Stage(5)], clip=1e6):
        assert norm(model.parameters()) > 1e-2


def test_patience_ends_a_stage_early():
    figures = iter([5.0, 4.0, 3.0, 3.5, 3.5, 3.5, 9.0, 9.0, 9.0])
    stages = [Stage(100, patience=3), Stage(3)]
    seen = run(lista(), stages=stages, validate=lambda predict: next(figures), every=1)
    assert [p.stage for p in seen] == [0] * 6 + [1] * 3
    assert seen[-1].step == 9 and seen[-1].steps == 103


# ---- what is left behind ----


@pytest.mark.parametrize("end", ["run out", "break", "exception", "validation", "no more batches"])
def test_the_best_validated_state_is_left(end):
    model, figures, kept = lista(), iter([4.0, 2.0, 3.0, 5.0]), {}

    def validate(predict):
        value = next(figures)
        if end == "validation" and value == 5.0:
            raise OSError("no")
        kept[value] = state(model)
        return value

    source = islice(data(), 7) if end == "no more batches" else data()
    try:
        for p in training(model, source, squared_error, [Stage(8)], validate, every=2):
            if p.step == 7 and end == "break":
                break
            if p.step == 7 and end == "exception":
                raise KeyError
    except (KeyError, OSError):
        assert end in ("exception", "validation")
    assert same(state(model), kept[2.0]) and not same(kept[3.0], kept[2.0])


def test_without_validation_the_model_stays_as_it_is():
    model = lista()
    for p in training(model, data(), squared_error, [Stage(9)]):
        left = state(model)
        if p.step == 4:
            break
    assert same(state(model), left)


def test_a_loss_that_is_not_finite_is_told_and_the_best_state_left():
    model, losses, kept = lista(), count(), []

    def loss(s_hat, s):
        return squared_error(s_hat, s) * (math.nan if next(losses) == 3 else 1)

    def validate(predict):
        kept.append(state(model))
        return 1.0

    with pytest.raises(FloatingPointError, match="loss: got nan at step 3"):
        list(training(model, data(), loss, [Stage(9)], validate, every=1))
    assert len(kept) == 3 and same(state(model), kept[0])


def test_a_figure_that_is_no_number_is_never_the_best():
    figures = iter([math.nan, 3.0, math.nan, 2.0])
    seen = run(lista(), stages=[Stage(4)], validate=lambda predict: next(figures), every=1)
    assert [p.best for p in seen] == [None, 3.0, 3.0, 2.0]


@pytest.mark.parametrize(("options", "problem", "words"), [
    ({"stages": []}, ValueError, "stages: got none"),
    ({"stages": Stage(3)}, TypeError, "stages: got 3, expected a list of Stage"),
    ({"stages": [Stage(0)]}, ValueError, "steps: got 0"),
    ({"stages": [Stage(2.5)]}, ValueError, "steps: got 2.5"),
    ({"stages": [Stage(None)]}, ValueError, "steps: got None"),
    ({"stages": [Stage(3, 0.0)]}, ValueError, "lr: got 0.0"),
    ({"stages": [Stage(3, math.nan)]}, ValueError, "lr: got nan"),
    ({"stages": [Stage(3, depth=0)]}, ValueError, "depth: got 0"),
    ({"stages": [Stage(3, patience=0)], "validate": error}, ValueError, "patience: got 0"),
    ({"stages": [Stage(3, patience=2)]}, ValueError, "validate: got None"),
    ({"every": 0}, ValueError, "every: got 0"),
    ({"clip": 0.0}, ValueError, "clip: got 0.0"),
    ({"clip": math.nan}, ValueError, "clip: got nan"),
])  # fmt: skip
def test_bad_arguments_are_refused_before_training(options, problem, words):
    with pytest.raises(problem, match=words):
        training(lista(), data(), squared_error, **{"stages": [Stage(3)]} | options)


def test_what_only_the_model_can_know_is_told_at_the_first_step():
    with pytest.raises(ValueError, match="depth: got 4, expected 1 to 3"):
        run(lista(), stages=[Stage(3, depth=4)])
    frozen = Unfolded(ista, Thetas((0.1, 0.1), 2, frozen=(0, 1), dtype=torch.float64), H=H)
    with pytest.raises(ValueError, match="model: got no parameter to train"):
        run(frozen)


# ---- what arrives ----


def test_every_signal_comes_once_an_epoch_endlessly():
    x = torch.arange(10.0)[:, None, None]
    parts = list(islice(batches(x, -x, 4, seed=3), 9))
    assert [len(a) for a, _ in parts] == [4, 4, 2] * 3
    epochs = [torch.cat([a for a, _ in parts[i : i + 3]]).flatten() for i in (0, 3, 6)]
    assert all(torch.equal(epoch.sort().values, x.flatten()) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    assert all(torch.equal(a, -b) for a, b in parts)
    again = list(islice(batches(x, -x, 4, seed=3), 9))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(parts, again, strict=True))
    other = next(batches(x, -x, 10, seed=4))[0]
    assert not torch.equal(other.flatten(), epochs[0])


@pytest.mark.parametrize(("x", "s", "size", "words"), [
    (3, 4, 2, "x, s: got 3 and 4 signals"), (0, 0, 2, "x, s: got 0 and 0"), (3, 3, 0, "size: got 0")
])  # fmt: skip
def test_impossible_batches_are_refused(x, s, size, words):
    with pytest.raises(ValueError, match=words):
        next(batches(torch.zeros(x, 2, 1), torch.zeros(s, 3, 1), size, seed=0))


def test_draws_are_fresh_and_seeded():
    first, second = islice(draws(draw, 5, seed=2), 2)
    assert not torch.isin(first[1][first[1] != 0], second[1]).any()
    again = list(islice(draws(draw, 5, seed=2), 2))
    assert torch.equal(again[1][0], second[0]) and torch.equal(again[1][1], second[1])
    assert not torch.equal(next(draws(draw, 5, seed=3))[0], first[0])


def test_same_seed_same_bits():
    models = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # the global seed has no say
        models.append(lista())
        run(models[-1], draws(draw, 8, seed=2), validate=error, every=5)
    other = lista()
    run(other, draws(draw, 8, seed=3), validate=error, every=5)
    assert same(state(models[0]), state(models[1])) and not same(state(models[0]), state(other))


# ---- interruption ----


def stages_of(case, model):
    return {
        "plain": [Stage(90, 1e-2)],
        "layers": layerwise(model, 10, 1e-2),
        "patience": [Stage(60, 0.3, False, patience=2), Stage(60, 1e-2, patience=1), Stage(30)],
    }[case]


def resumable(case, path):
    """A training that is slow enough to be killed, and its model."""
    model = lista()
    return model, training(
        model, data(), squared_error, stages_of(case, model), error, 10, 0.5, path
    )


@pytest.mark.parametrize("case", ["plain", "layers", "patience"])
def test_killed_and_run_again_it_ends_as_if_uninterrupted(case, tmp_path):
    path = tmp_path / "checkpoint"
    model, steps = resumable(case, None)
    whole = [(p.step, p.loss, p.validation, p.best, p.lr, p.stage) for p in steps]
    if case == "patience":
        assert [stage for *_, stage in whole].count(0) < 60  # it did end a stage early
    for stop in (13, len(whole) // 2):
        child = subprocess.Popen(
            [sys.executable, __file__, case, path], stdout=subprocess.PIPE, text=True
        )
        for line in child.stdout:
            if int(line) >= stop:
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL and path.exists()
    again, steps = resumable(case, path)
    rest = [(p.step, p.loss, p.validation, p.best, p.lr, p.stage) for p in steps]
    assert 0 < len(rest) < len(whole) and rest == whole[-len(rest) :]
    assert same(state(model), state(again))


def test_a_training_that_is_over_is_not_repeated(tmp_path):
    model, steps = resumable("plain", tmp_path / "c")
    list(steps)
    again = lista()

    def nothing():
        raise AssertionError("asked for a batch")
        yield

    stages = stages_of("plain", again)
    seen = run(again, nothing(), stages, validate=error, every=10, clip=0.5,
               checkpoint=tmp_path / "c")  # fmt: skip
    assert seen == [] and same(state(model), state(again))


def test_a_checkpoint_replaces_the_old_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "c"
    model, steps = resumable("plain", path)
    for p in steps:
        if p.step == 15:
            break
    kept = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        list(resumable("plain", path)[1])
    assert path.read_bytes() == kept
    monkeypatch.undo()
    assert [p.step for p in resumable("plain", path)[1]] == list(range(11, 91))


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "c"
    list(resumable("plain", path)[1])
    for other in (lista(4), lista().float()):
        before = state(other)
        with pytest.raises(
            ValueError, match=r"c is of another training, (H|thetas.*): got .*; delete it"
        ):
            run(other, stages=[Stage(90, 1e-2)], validate=error, every=10, clip=0.5,
                checkpoint=path)  # fmt: skip
        assert same(before, state(other))
    with pytest.raises(ValueError, match="c is of another training, stages.*delete it"):
        run(lista(), stages=[Stage(95, 1e-2)], validate=error, every=10, clip=0.5, checkpoint=path)


def damaged(whole):
    """The file cut at every seventh of its length, and with one bit changed there."""
    for at in (len(whole) * i // 7 for i in range(7)):
        yield whole[:at]
        yield whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    yield whole + b"\0"


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c"
    list(resumable("plain", path)[1])
    for bad in damaged(path.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f"{path} is damaged; delete it to start anew"):
            list(resumable("plain", path)[1])


# ---- weight files ----


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MBDL_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def listed(folder, *names):
    entries = {
        name: {"sha256": hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()}
        for name in names
    }
    (folder / "manifest.json").write_text(json.dumps(entries))


def trained_lista(**options):
    model = LISTA(H, (0.2, 0.1), DEPTH, dtype=torch.float32, **options)
    x, s = draw(60, seeded(1))
    run(model, batches(x.float(), s.float(), 16, 0))
    return model


@pytest.mark.parametrize("tied", [(), (0, 1), True])
def test_saved_and_loaded(folder, tied):
    model = trained_lista(tied=tied)
    path = save(model, "small")
    listed(folder, "small")
    assert path == folder / "small.safetensors" and os.listdir(folder).count("small.safetensors")
    back = load(
        LISTA(torch.zeros(N, M), (1.0, 1.0), DEPTH, tied=tied, dtype=torch.float32), "small"
    )
    assert torch.equal(back.H, H.float())  # the model's own matrix to the last bit
    for (name, ours), theirs in zip(model.named_parameters(), back.parameters(), strict=True):
        if ours.ndim > 1:
            assert torch.equal(ours.half().float(), theirs), name
        else:
            assert torch.equal(ours, theirs), name
    if tied:
        assert back.thetas.layers[0][0] is back.thetas.layers[2][0]
    x, s = (part.float() for part in draw(50, seeded(9)))
    ours, theirs = (10 * math.log10(squared_error(m(x), s).item()) for m in (model, back))
    assert ours == pytest.approx(theirs, abs=0.02)
    first = path.read_bytes()
    save(back, "small")  # a second rounding changes nothing
    assert path.read_bytes() == first


def test_shared_matrices_are_written_once(folder):
    tied, apart = (save(trained_lista(tied=t), n) for t, n in (((0, 1), "a"), ((), "b")))
    assert apart.stat().st_size - tied.stat().st_size > 2 * 2 * (N * M + M * M)


def test_every_kind_of_network_comes_back(folder):
    for make in (
        lambda start: Unfolded(ista, Thetas((start, 0.1), 2), H=H.float()),
        lambda start: UnfoldedADMM(H, (start, 1.0, 0.1), 2, dtype=torch.float32),
        lambda start: Unfolded(ista, Thetas((start, 0.1), 2), H=Mask([0, 3, 4], M)),
    ):
        model = make(0.3)
        save(model, "one")
        listed(folder, "one")
        assert same(state(load(make(0.2), "one")), {
            k: v.half().float() if "layers" in k and v.ndim > 1 else v
            for k, v in state(model).items()
        })  # fmt: skip


def test_damaged_weights_are_refused(folder):
    path = save(trained_lista(), "small")
    listed(folder, "small")
    assert verify_weights() == [(str(path), True, "sha256 as in the manifest")]
    whole, model = path.read_bytes(), lista().float()
    before = state(model)
    for bad in damaged(whole):
        path.write_bytes(bad)
        with pytest.raises(ValueError) as told:
            load(model, "small")
        assert str(path) in str(told.value)
        assert "python -m mbdl_course weights small" in str(told.value)
        assert not verify_weights()[0][1]
    assert same(before, state(model))


def test_a_file_that_is_no_safetensors_is_told_even_if_the_manifest_agrees(folder):
    path = save(trained_lista(), "small")
    whole = path.read_bytes()
    for bad in [whole[: len(whole) * i // 7] for i in range(7)] + [b"\xff" * 64]:
        path.write_bytes(bad)
        listed(folder, "small")
        with pytest.raises(ValueError, match="small.safetensors: not a readable safetensors file"):
            load(lista().float(), "small")


def test_a_missing_file_is_told(folder):
    path = save(trained_lista(), "small")
    listed(folder, "small")
    path.unlink()
    with pytest.raises(FileNotFoundError) as told:
        load(lista().float(), "small")
    assert f"{path}: missing; make it with: python -m mbdl_course weights small" == str(told.value)
    with pytest.raises(FileNotFoundError, match="other.safetensors: not in the manifest"):
        load(lista().float(), "other")


def test_a_missing_manifest_is_told(folder):
    with pytest.raises(FileNotFoundError, match="manifest.json: missing"):
        manifest()
    with pytest.raises(FileNotFoundError, match="manifest.json: missing"):
        load(lista(), "small")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"3", b'{"a": 1}', b'{"a": {}}', b'{"a": {"sha256": 3}}', b"\xff{}"]
)
def test_an_invalid_manifest_is_told(folder, text):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(ValueError, match="manifest.json: not a manifest"):
        manifest()


def test_weights_that_do_not_fit_are_refused_and_leave_the_model_alone(folder):
    save(trained_lista(), "small")
    listed(folder, "small")
    for other, words in (
        (LISTA(torch.zeros(N + 1, M), (1.0, 1.0), DEPTH), r"0.0 has shape \(12, 9\).*\(12, 8\)"),
        (lista(DEPTH + 1), "differ in 'thetas.layers.3.0'"),
        (lista(tied=(0, 1)), "differ in 'thetas.layers.1.0'"),
    ):
        before = state(other)
        with pytest.raises(ValueError, match=f"model: .*{words}"):
            load(other, "small")
        assert same(before, state(other))


# ---- the command ----


@pytest.fixture
def recipe(folder, monkeypatch, tmp_path):
    """A recipe of a second in the place of the shipped ones, and an empty folder to run in."""

    def lista_100():
        H, draw = weights.noiseless(100, 200)
        model = weights.blank("lista_100").requires_grad_(False)
        model.H.copy_(H)
        return [model, model], {"problem": "none", "n_train": 0}

    file = weights.FILES["lista_100"]._replace(train=lista_100)
    monkeypatch.setattr(weights, "FILES", {"lista_100": file})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def everything(path):
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def test_the_command_writes_what_it_says_and_nothing_else(recipe, tmp_path, capsys):
    other = {"sha256": "0", "seconds": 1}
    (recipe / "manifest.json").write_text(json.dumps({"other": other}))
    assert command.main(["weights", "lista_100"]) == 0
    assert everything(tmp_path) == {"weights/lista_100.safetensors", "weights/manifest.json"}
    entries = manifest()
    assert entries["other"] == other and entries.keys() == {"other", "lista_100"}
    entry = entries["lista_100"]
    assert entry["command"] == "python -m mbdl_course weights lista_100"
    assert weights.figures("lista_100", weights.shipped("lista_100")) == entry["nmse_db"]
    assert len(entry["nmse_db_by_seed"]["lista_100"]) == 2
    assert capsys.readouterr().out.startswith("lista_100: ")
    before = (recipe / "manifest.json").read_bytes()
    assert command.main(["weights", "--list"]) == 0
    assert (recipe / "manifest.json").read_bytes() == before
    assert everything(tmp_path) == {"weights/lista_100.safetensors", "weights/manifest.json"}


def test_the_command_refuses_an_unknown_name_before_anything_is_made(recipe, tmp_path, capsys):
    assert command.main(["weights", "lista_100", "lista_1000"]) == 2
    assert "names: got ['lista_1000'], expected some of lista_100" in capsys.readouterr().err
    assert everything(tmp_path) == set()
    with pytest.raises(ValueError, match="name: got 'lista_1000', expected one of"):
        weights.shipped("lista_1000")


if __name__ == "__main__":  # what the kill test kills
    torch.set_num_threads(1)
    for p in resumable(sys.argv[1], Path(sys.argv[2]))[1]:
        print(p.step, flush=True)
        time.sleep(0.01)
