"""Training as an iterator, and weights as files that can be checked.

    for p in training(model, batches(x, s, 128, seed=0), squared_error, stages=[Stage(500)]):
        ...

p is a Progress; stopping is `break`.
"""

import hashlib
import json
import math
import os
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

from .datasets import data_dir

__all__ = [
    "Progress", "Stage", "batches", "draws", "layerwise", "load", "squared_error", "save", "seeded",
    "training", "verify_weights",
]  # fmt: skip


def seeded(seed):
    """A generator of random numbers on the CPU: data are drawn there, then moved, so that every
    device sees the same."""
    return torch.Generator().manual_seed(seed)


def squared_error(s_hat, s):
    """‖ŝ − s‖² averaged over the batch: the empirical risk of (18)-(21)."""
    return (s_hat - s).abs().square().sum((-2, -1)).mean()  # abs: a complex error has a phase


def batches(x, s, size, seed):
    """Endless random mini-batches (x, s) of a training set: every epoch in a new order."""
    if len(x) != len(s) or len(x) == 0:
        raise ValueError(f"x, s: got {len(x)} and {len(s)} signals, expected as many, 1 or more")
    if size < 1:
        raise ValueError(f"size: got {size}, expected a batch of 1 or more")
    generator = seeded(seed)
    while True:
        for part in torch.randperm(len(x), generator=generator).split(size):
            yield x[part], s[part]


def draws(draw, size, seed):
    """Endless fresh batches: draw(size, generator) -> (x, s), never the same signal twice."""
    generator = seeded(seed)
    while True:
        yield draw(size, generator)


class Stage(NamedTuple):
    """One part of a training schedule, ended after `steps` or earlier by `patience`.

    lr falls from its value to zero along a half cosine if `cosine`, else stays. depth: train the
    output of that layer (None: the last). only: the parameters to train (None: all), each an
    iterable of parameters with its factor on lr. patience: validations without improvement.
    """

    steps: int
    lr: float = 1e-3
    cosine: bool = True
    depth: int | None = None
    only: Any = None
    patience: int | None = None


def layerwise(model, steps, lr=1e-3, refine=(0.2, 0.02), shrink=0.3):
    """The schedule of the LISTA literature as a list of stages, layer after layer.

    For each layer: its own parameters at lr; then all so far at lr times each factor of `refine`,
    where a layer's rate also shrinks by `shrink` each time one is put on top of it. Chen et al.
    2018, "Theoretical Linear Convergence of Unfolded ISTA", arXiv 1808.10038, section 5.
    Raises ValueError for a model whose layers share parameters: no layer is the first to be done.
    """
    layers = [list(layer.parameters()) for layer in model.thetas.layers]
    if len({id(p) for layer in layers for p in layer}) < sum(map(len, layers)):
        raise ValueError("model: its layers share parameters, expected each layer to have its own")
    stages = []
    for k in range(len(layers)):
        new = [(layers[k], 1.0)]
        so_far = [(layer, shrink ** (k - i)) for i, layer in enumerate(layers[: k + 1])]
        stages.append(Stage(steps, lr, False, k + 1, new))
        stages += [Stage(steps, lr * factor, False, k + 1, so_far) for factor in refine]
    return stages


class Progress(NamedTuple):
    """What is known after a step: the loss of its batch, and the newest validation figure."""

    step: int
    steps: int
    loss: float
    validation: float | None
    best: float | None
    lr: float
    stage: int
    model: torch.nn.Module


def training(model, batches, loss, stages, validate=None, every=100, clip=None, checkpoint=None):
    """Train model on what arrives; yields a Progress after each step, and does nothing before.

    batches yields pairs (x, s); loss(model(x), s) is minimised by Adam through the stages, with
    the norm of the trained parameters' gradient clipped to `clip`. validate(predict) -> a number,
    smaller is better, is asked at every `every`-th step and at the end of each stage; predict is
    the function x ↦ ŝ being trained: the model, or the model cut at the stage's depth; the best of
    another depth does not count. However the training ends (run out, `break`, an error), the model
    is left at its best validated state, or as it is without `validate`. With `checkpoint` (a path)
    the state is saved at every `every`-th step and at the end of each stage, and a later call with
    the same arguments goes on from there and ends as if it had not been interrupted: what was drawn
    from `batches` before is drawn again and dropped.

    Raises ValueError or TypeError for a bad argument, FloatingPointError if the loss is not finite,
    ValueError for a checkpoint that is damaged or of another training.
    """
    stages = list(stages)
    for stage in stages:
        if not isinstance(stage, Stage):
            raise TypeError(f"stages: got {stage!r}, expected a list of Stage(steps, lr, ...)")
        for name in ("steps", "depth", "patience"):
            value = getattr(stage, name)
            if (value is not None or name == "steps") and not whole(value):
                raise ValueError(f"{name}: got {value!r}, expected a whole number, 1 or more")
        if not 0 < stage.lr < math.inf:
            raise ValueError(f"lr: got {stage.lr}, expected a positive learning rate")
        if stage.patience is not None and validate is None:
            raise ValueError("validate: got None, expected what a stage's patience waits for")
    if not stages:
        raise ValueError("stages: got none, expected one or more")
    if not whole(every):
        raise ValueError(f"every: got {every!r}, expected a number of steps, 1 or more")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip: got {clip}, expected a positive norm or None")
    return trained(model, batches, loss, stages, validate, every, clip, checkpoint)


def whole(value):
    return isinstance(value, int) and value >= 1


def trained(model, batches, loss, stages, validate, every, clip, checkpoint):
    steps = sum(stage.steps for stage in stages)
    at = {"step": 0, "stage": 0, "since": 0, "bad": 0, "best": None, "validation": None}
    at["arguments"] = json.dumps([[stage._replace(only=None) for stage in stages], every, clip])
    if checkpoint is not None and Path(checkpoint).exists():
        at, best, optimizer = resumed(checkpoint, model, stages, at["arguments"])
    else:
        best, optimizer = None, adam(model, stages[0])
    done = at["stage"] == len(stages)
    try:
        for x, s in () if done else islice(batches, at["step"], None):
            stage = stages[at["stage"]]
            if at["since"] == 0 and stage.depth != stages[max(at["stage"] - 1, 0)].depth:
                at["best"] = None
            factor = (1 + math.cos(math.pi * at["since"] / stage.steps)) / 2 if stage.cosine else 1
            for group in optimizer.param_groups:
                group["lr"] = stage.lr * factor * group["factor"]
            optimizer.zero_grad()
            predict = model if stage.depth is None else partial(model, depth=stage.depth)
            value = loss(predict(x), s)
            if not value.isfinite():
                raise FloatingPointError(f"loss: got {value.item()} at step {at['step']}")
            value.backward()
            if clip is not None:
                groups = optimizer.param_groups  # what a stage leaves alone keeps old gradients
                torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], clip)
            optimizer.step()
            at["step"] += 1
            at["since"] += 1

            over = at["since"] == stage.steps
            if validate is not None and (over or at["step"] % every == 0):
                with torch.no_grad():
                    at["validation"] = float(validate(predict))
                if at["validation"] < (math.inf if at["best"] is None else at["best"]):
                    at["best"], at["bad"], best = at["validation"], 0, snapshot(model)
                else:
                    at["bad"] += 1
                    over = over or stage.patience is not None and at["bad"] >= stage.patience
            number = at["stage"]
            if over:
                at |= {"stage": number + 1, "since": 0, "bad": 0}
                done = at["stage"] == len(stages)
                if not done:
                    optimizer = adam(model, stages[at["stage"]])
            if checkpoint is not None and (done or over or at["step"] % every == 0):
                keep(checkpoint, at, model, best, optimizer)
            yield Progress(
                at["step"], steps, value.item(), at["validation"], at["best"],
                stage.lr * factor, number, model,
            )  # fmt: skip
            if done:
                return
    finally:
        if best is not None:
            model.load_state_dict(best)


def adam(model, stage):
    """Adam over the parameters of a stage; `factor` scales the learning rate of a group."""
    groups = stage.only or [(list(model.parameters()), 1.0)]
    groups = [
        {"params": [p for p in params if p.requires_grad], "factor": factor}
        for params, factor in groups
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("model: got no parameter to train in a stage, expected one or more")
    return torch.optim.Adam(groups, lr=stage.lr)


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def keep(path, at, model, best, optimizer):
    """Write a checkpoint, its SHA-256 first, in one piece: until then the old one stays."""
    tensors = {"at": torch.tensor(list(json.dumps(at).encode()), dtype=torch.uint8)}
    tensors |= {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in (best or {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{i}/{k}": v for k, v in state.items()}
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    data = safetensors.torch.save(tensors)
    replace(path, hashlib.sha256(data).digest() + data)


def resumed(path, model, stages, arguments):
    """The training state in a checkpoint: (counters, best weights or None, optimizer)."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError(f"checkpoint: {path} is damaged; delete it to start anew")
    tensors = safetensors.torch.load(data[32:])
    at = json.loads(bytes(tensors["at"].tolist()))
    found = shapes(part(tensors, "model/")) | {"stages, every, clip": at["arguments"]}
    wanted = shapes(model.state_dict()) | {"stages, every, clip": arguments}
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise ValueError(
                f"checkpoint: {path} is of another training, {key}: got {found.get(key)}, expected "
                f"{wanted.get(key)}; delete it to start anew"
            )
    model.load_state_dict(part(tensors, "model/"))
    optimizer = adam(model, stages[min(at["stage"], len(stages) - 1)])
    state = {}
    for name, tensor in part(tensors, "adam/").items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return at, part(tensors, "best/") or None, optimizer


def shapes(tensors):
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def replace(path, data):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# ---- Weights ---------------------------------------------------------------------------------


def weights_dir():
    return data_dir() / "weights"


def named_tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def save(model, name):
    """Write a model's parameters and its own matrices to data/weights/<name>.safetensors.

    H travels with the weights, exactly: CPU and GPU draw different numbers from one seed. Learned
    matrices are rounded to half precision; the manifest's figures are those of the rounded file.
    Tensors shared between layers are written once. Returns the path.
    """
    path = weights_dir() / f"{name}.safetensors"
    learned = {k for k, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
    tensors = {
        k: v.detach().to(torch.float16 if k in learned else v.dtype).contiguous()
        for k, v in named_tensors(model).items()
    }
    replace(path, safetensors.torch.save(tensors))
    return path


def load(model, name):
    """Fill a model with the shipped weights data/weights/<name>.safetensors; returns the model.

    The file is held against the manifest's checksum first. Raises FileNotFoundError or ValueError
    that name the file and the command that makes it anew.
    """
    file, ok, message = verify_file(name, manifest().get(name))
    if not ok:
        problem = FileNotFoundError if not Path(file).exists() else ValueError
        raise problem(f"{file}: {message}; make it with: python -m mbdl_course weights {name}")
    return filled(model, file)


def filled(model, path):
    """The model with the tensors of a safetensors file in it; ValueError if they do not fit."""
    tensors = read(path)
    named = named_tensors(model)
    for key in sorted(named.keys() ^ tensors.keys()):
        raise ValueError(f"model: it and the weights {path} differ in {key!r}")
    for key, tensor in named.items():
        if tensor.shape != tensors[key].shape:
            raise ValueError(
                f"model: {key} has shape {tuple(tensor.shape)}, the weights {path} have "
                f"{tuple(tensors[key].shape)}"
            )
    with torch.no_grad():
        for key, tensor in named.items():
            tensor.copy_(tensors[key])
    return model


def read(path):
    """The tensors of a safetensors file; ValueError if it is not one."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def manifest():
    """data/weights/manifest.json: name -> sha256, command, seed, problem, figures, ..."""
    path = weights_dir() / "manifest.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing, expected the manifest of the shipped weights")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(entry["sha256"], str) for entry in entries.values()):
            raise TypeError("a sha256 is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a manifest, name -> sha256, ... ({error!r})") from None
    return entries


def verify_weights():
    """[(file, ok, message)] for every weight file that the manifest names."""
    return [verify_file(name, entry) for name, entry in manifest().items()]


def verify_file(name, entry):
    path = weights_dir() / f"{name}.safetensors"
    if entry is None:
        return str(path), False, "not in the manifest"
    if not path.exists():
        return str(path), False, "missing"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != entry["sha256"]:
        return str(path), False, f"sha256 {found[:12]}…, expected {entry['sha256'][:12]}…"
    return str(path), True, "sha256 as in the manifest"
