"""Every exercise: the starter fails, the solution passes, and a wrong answer is told what is wrong.

In a chapter a code cell tagged "exercise" holds the starter; its last expression calls
`exercises.<name>(...)`. The next markdown cell tagged "solution" holds one block of Python that
replaces what the starter defines. The cell tagged "setup" is the namespace of both.
"""

import ast
import functools
import json
import re
from pathlib import Path

import pytest
import torch

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
FIRST = "00_start_here"
NAMES = sorted(path.stem for path in CHAPTERS.glob("*.ipynb"))
GENERIC = re.compile(r"\s*$|Not answered yet|Your code stopped with")


def tagged(chapter, *tags):
    """(tag, source) of the cells with one of these tags, in their order."""
    text = (CHAPTERS / f"{chapter}.ipynb").read_text(encoding="utf-8")
    for cell in json.loads(text)["cells"]:
        for tag in cell["metadata"].get("tags", []):
            if tag in tags:
                yield tag, "".join(cell["source"])


def exercises_of(chapter):
    """{name of the check: (starter's definitions, call, text of the solution's cell)}."""
    found, cells = {}, list(tagged(chapter, "exercise", "solution"))
    assert [tag for tag, _ in cells] == ["exercise", "solution"] * (len(cells) // 2), chapter
    for (_, starter), (_, solution) in zip(cells[::2], cells[1::2], strict=True):
        *definitions, call = ast.parse(starter).body
        name = ast.unparse(call).removeprefix("exercises.").split("(")[0]
        assert name not in found, f"{chapter}: {name} is checked twice"
        found[name] = "\n".join(map(ast.unparse, definitions)), ast.unparse(call), solution
    return found


ALL = [(chapter, name) for chapter in NAMES for name in exercises_of(chapter)]


@functools.cache
def setup(chapter):
    names = {}
    for _, source in tagged(chapter, "setup"):
        exec(source, names)
    return names


@pytest.fixture(autouse=True)
def default_dtype():
    """A chapter's setup may change it; the other tests are not to see that."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def verdict(chapter, definitions, call):
    """What the learner sees who wrote these definitions."""
    names = dict(setup(chapter))
    torch.set_default_dtype(torch.float64)
    exec(definitions, names)
    return eval(call, names)


def solved(text):
    """The one block of Python in a solution."""
    assert text.startswith("<details>") and text.rstrip().endswith("</details>")
    assert "<summary>Solution</summary>" in text
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert "exercises." not in block
    return block


@pytest.mark.parametrize("chapter", [name for name in NAMES if name != FIRST])
def test_a_chapter_has_exercises(chapter):
    assert len(exercises_of(chapter)) >= 4
    assert list(tagged(chapter, "setup"))  # one cell or more: all are run


def test_the_chapters_are_there():
    assert {"03_sparse_recovery", "04_learning_to_optimize"} <= {chapter for chapter, _ in ALL}


@pytest.mark.parametrize(("chapter", "name"), ALL)
def test_the_starter_is_not_an_answer(chapter, name):
    definitions, call, _ = exercises_of(chapter)[name]
    said = verdict(chapter, definitions, call)
    assert said.passed is False and said.message


@pytest.mark.parametrize(("chapter", "name"), ALL)
def test_the_solution_passes(chapter, name):
    _, call, text = exercises_of(chapter)[name]
    said = verdict(chapter, solved(text), call)
    assert said.passed is True and said.message, said.message


@pytest.mark.parametrize(("chapter", "name"), ALL)
def test_the_solution_defines_what_the_starter_does(chapter, name):
    definitions, _, text = exercises_of(chapter)[name]

    def signatures(code):
        return {
            node.name: ast.unparse(node.args)
            for node in ast.parse(code).body
            if isinstance(node, ast.FunctionDef)
        }

    wanted, given = signatures(definitions), signatures(solved(text))
    assert wanted.items() <= given.items()


class Answered(ast.NodeTransformer):
    """The starter with an expression in the place of its dots."""

    def __init__(self, expression):
        self.expression = ast.parse(expression, mode="eval").body

    def visit_Constant(self, node):
        return self.expression if node.value is ... else node


def answered(definitions, wrong):
    """A wrong answer as code: an expression for the starter's dots, or definitions of its own."""
    if wrong.startswith("def "):
        return wrong
    tree = Answered(wrong).visit(ast.parse(definitions))
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize("bad", ["None", "'text'", "[]", "float('nan')", "open", "[1][1]"])
@pytest.mark.parametrize(("chapter", "name"), ALL)
def test_whatever_is_answered_there_is_a_verdict(chapter, name, bad):
    definitions, call, _ = exercises_of(chapter)[name]
    if bad == "[1][1]" and "def " not in definitions:
        bad = "object()"  # an answer that is no function would raise before any check sees it
    said = verdict(chapter, answered(definitions, bad), call)
    assert said.passed is False and said.message.strip()


# What learners write in the place of the dots, and what the message must say.
WRONG = {
    "lost_noise": [
        ("-10 * math.log10(2)", "positive"),
        ("10 * math.log10(4)", "factor of four"),
        ("5 * math.log10(2)", "not deviations"),
        ("2", "In dB, please"),
        ("10", "What variance"),
    ],
    "cancelled": [
        ("(x - H @ e).expand(-1, -1, 3)", "own part is gone"),
        ("x + H @ e - H * e.mT", "The sign"),
        ("x - H * e.mT", "cancels the user itself"),
        ("x - H @ e", "Expected the shape"),
        ("x - H @ e + H", "other than k"),
    ],
    "symbol_errors": [
        ("wrong.double().mean()", "bit error rate"),
        ("wrong.any(-2).double().mean()", "counts vectors"),
        ("(wrong[:, :3] & wrong[:, 3:]).double().mean()", "One wrong bit"),
        ("(wrong[:, ::2] | wrong[:, 1::2]).double().mean()", "not neighbours"),
        ("2 * wrong.double().mean()", "Expected 0."),
    ],
    "fair_channel": [
        ("def my_channel(x, s):\n    return (x @ s.mT).mean(0)", "Return two"),
        ("def my_channel(x, s):\n    return (x @ s.mT).mean(0), 1.0", "not exactly orthogonal"),
        ("def my_channel(x, s):\n    return (s @ x.mT).mean(0), 1.0", "Expected the shape"),
        ("def my_channel(x, s):\n    return 2 * (x @ s.mT).mean(0), 1.0", "Minimise"),
        *[
            (
                "def my_channel(x, s):\n"
                "    H = torch.linalg.solve((s @ s.mT).sum(0), (s @ x.mT).sum(0)).mT\n"
                f"    return H, {wrong}",
                said,
            )
            for wrong, said in (
                ("(x - H @ s).square().mean()", "divide less"),
                ("(x - H @ s).square().sum() / 57", "whole vector"),
                ("((x - H @ s).square().sum() / 228) ** 0.5", "the deviation"),
                ("1.0", "Expected 0."),
            )
        ],
    ],
    "first_inputs": [
        ("s", "at detection nobody has them"),
        ("0.5 * torch.ones_like(s)", "is the probability"),
        ("torch.ones_like(s)", "nothing is known"),
    ],
    "count_cpss": [
        ("16 * (250 * 500 + 500**2 + 1)", "W2 is built in"),
        ("250 * 500 + 16", "each has its own"),
        ("16 * 250 * 500", "thresholds are missing"),
        ("32", "That is ALISTA"),
    ],
    "analytic": [
        ("H", "That is H itself"),
        ("torch.linalg.solve(H @ H.mT, H)", "Scale each column"),
        (
            "torch.linalg.solve(H @ H.mT, H) / torch.linalg.solve(H @ H.mT, H).norm(dim=0)",
            "Scale each column",
        ),
        ("H.sign() / H.abs().sum(0)", "is possible"),
        ("2 * H", "should be 1"),
    ],
    "firm": [
        ("soft_threshold(v, low)", "pass unchanged"),
        ("torch.where(v.abs() > low, v, 0)", "rise linearly"),
        ("torch.where(v.abs() >= high, v, soft_threshold(v, low))", "soft threshold: it arrives"),
        ("torch.where(v.abs() >= high, v, 0 * v)", "rise linearly"),
        (
            "torch.where(v.abs() >= high, v, (high * (v.abs() - low) / (high - low)).clamp(min=0))",
            "sign of v is lost",
        ),
        ("v", "should be zero"),
        (
            "def firm(v, low, high):\n"
            "    low, high = float(low), float(high)\n"
            "    ramp = v.sign() * high * (v.abs() - low) / (high - low)\n"
            "    middle = torch.where(v.abs() > low, ramp, torch.zeros_like(v))\n"
            "    return torch.where(v.abs() >= high, v, middle)",
            "no gradient",
        ),
    ],
    "rate": [
        ("10 ** ((curve[-1] - curve[0]) / (len(curve) - 1) / 10)", "use 20, not 10"),
        ("10 ** ((curve[-1] - curve[0]) / (len(curve) - 1) / 20)", "fit a line"),
        ("(curve[-1] - curve[0]) / (len(curve) - 1)", "slope in dB"),
        ("10 ** ((curve[0] - curve[-1]) / (len(curve) - 1) / 20)", "below 1"),
    ],
    "noise_levels": [
        ("60", "go on lowering"),
        ("10", "already"),
        ("15", "Expected one of"),
    ],
    "divergence": [
        ("1.0", "always safe"),
        ("0.5", "still converges"),
        ("1.5", "still converges"),
        ("3", "long diverged"),
        ("'two'", "Expected a number"),
        ("float('nan')", "Expected a number"),
    ],
    "complex_threshold": [
        ("(v.abs() - beta).clamp(min=0)", "complex again"),
        (
            "torch.view_as_complex(soft_threshold(torch.view_as_real(v), beta))",
            "real and imaginary part together",
        ),
        ("v / v.abs() * (v.abs() - beta).clamp(min=0)", "what happens at v = 0"),
        ("v * (1 - beta / v.abs().clamp(min=1e-30))", "should become zero"),
        ("torch.where(v.abs() > beta, v, 0)", "shrink by exactly β"),
        ("v.conj() * (1 - beta / v.abs().clamp(min=beta))", "phase has changed"),
        ("v[:10]", "Expected the shape"),
    ],
    "elastic_net": [
        ("soft_threshold(v, mu * rho)", "γ is not used"),
        ("soft_threshold(v, mu * rho) / (1 + gamma)", "Use μγ, not γ"),
        ("soft_threshold(v / (1 + mu * gamma), mu * rho)", "the threshold has to be, too"),
        ("soft_threshold(v, rho) / (1 + mu * gamma)", "threshold is μρ, not ρ"),
        ("soft_threshold(v, mu * (rho + gamma))", "Minimise"),
        ("soft_threshold(v - mu * gamma * s, mu * rho)", "Minimise"),
    ],
    "certificate": [
        ("True", "Zero is accepted"),
        ("False", "true LASSO solution is refused"),
        ("bool((correlation.abs() <= rho + tolerance).all())", "times 1.05 is accepted"),
        (
            "bool(((correlation - rho * s_hat.sign())[s_hat != 0].abs() <= tolerance).all())",
            "Zero is accepted",
        ),
        (
            "bool(((correlation.abs() - rho)[s_hat != 0].abs() <= tolerance).all()"
            " and (correlation.abs() <= rho + tolerance).all())",
            "sign",
        ),
        ("correlation.abs() <= rho + tolerance", "True or False"),
        ("bool(correlation.norm() <= tolerance)", "true LASSO solution is refused"),
        (
            "torch.equal(correlation[s_hat != 0], rho * s_hat[s_hat != 0].sign())",
            "true LASSO solution is refused",
        ),
    ],
    "useless_rho": [
        ("(H.mT @ x).max()", "magnitudes"),
        ("(H.mT @ x).norm()", "not the smallest"),
        ("(H.mT @ x).abs().sum()", "not the sum"),
        ("(H.mT @ x).abs().min()", "still not zero"),
        ("x.abs().max()", "still not zero"),
        ("H.mT @ x", "Expected a number"),
    ],
    "first": [
        ("4", "look at the black box"),
        ("2", "learns more numbers"),
        ("7", "Expected 1 to 5"),
        ("'black box'", "Expected a number"),
    ],
    "count_shared_lista": [
        ("6 * (150 * 200 + 200**2 + 1)", "own in every layer"),
        ("150 * 200 + 200**2", "thresholds are missing"),
        ("150 * 200 + 200**2 + 1", "each layer has its own"),
        ("150 * 200 + 150**2 + 6", "it is m × m"),
        ("70012", "six thresholds"),
    ],
    "coupled": [
        ("(s + H.mT @ (x - H @ s), beta)", "B is not used"),
        ("(s - times(B, x - H @ s), beta)", "The sign"),
        ("(times(B, x) + s, beta)", "what Hs already explains"),
        ("s + times(B, x - H @ s)", "two things"),
        ("(s + times(B, x - H @ s), 2 * beta)", "handed on"),
        ("(times(B, x - H @ s), beta)", "should be s +"),
        ("(s.sign() * (s + times(B, x - H @ s)).abs(), beta)", "should be s +"),
    ],
    "fair_baseline": [
        ("min(error(rho, test) for rho in grid)", "chosen on the test data"),
        ("min(error(rho, train) for rho in grid)", "error on the training data"),
        ("min(grid, key=lambda rho: error(rho, train))", "in dB"),
        ("error(grid[0], test)", "one figure"),
        (
            "[error(rho, test) for rho in grid]"
            "[grid.index(min(grid, key=lambda rho: error(rho, train)))]",
            "looked at once",
        ),
    ],
    "count_real_corona": [
        ("4 * (6 * 2 * 49 + 2)", "complex movies"),
        ("4 * 6 * 49", "thresholds are missing"),
        ("6 * 49 + 2", "one layer"),
        ("4 * (6 * 49 + 2) * 12", "single frames"),
        ("1000", "two thresholds"),
    ],
    "rows_kept": [
        ("V * (1 - beta / V.abs()).clamp(min=0)", "a row shrinks as a whole"),
        (
            "V * (1 - beta / torch.linalg.vector_norm(V, dim=-2, keepdim=True)).clamp(min=0)",
            "columns",
        ),
        (
            "(V / torch.linalg.vector_norm(V, dim=-1, keepdim=True)"
            " * (torch.linalg.vector_norm(V, dim=-1, keepdim=True) - beta).clamp(min=0))",
            "a row is zero",
        ),
        ("V * (torch.linalg.vector_norm(V, dim=-1, keepdim=True) > beta)", "multiplied by"),
        (
            "V * (1 - 2 / torch.linalg.vector_norm(V, dim=-1, keepdim=True).clamp(min=2))",
            "With β = 3",
        ),
        ("V", "become zero"),
    ],
    "gram_threshold": [
        (
            "def my_threshold(V, beta):\n"
            "    energy, W = torch.linalg.eigh(V.mH @ V)\n"
            "    return V @ (W * (1 - beta / energy).clamp(min=0)) @ W.mH",
            "the threshold is for",
        ),
        (
            "def my_threshold(V, beta):\n"
            "    energy, W = torch.linalg.eigh(V.mH @ V)\n"
            "    return V @ (W * (energy > beta**2)) @ W.mH",
            "keeps or drops",
        ),
        (
            "def my_threshold(V, beta):\n"
            "    energy, W = torch.linalg.eigh(V.mT @ V)\n"
            "    return V @ (W * (1 - beta / energy.clamp(min=beta**2).sqrt())) @ W.mT",
            "For real V it is right",
        ),
        (
            "def my_threshold(V, beta):\n"
            "    energy, W = torch.linalg.eigh(V.mH @ V)\n"
            "    return V @ (W * (1 - beta / energy.sqrt()).clamp(min=0)[..., None, :]) @ W.mH",
            "a little negative",
        ),
        ("V", "Already for real V"),
    ],
    "blurred_part": [
        ("(S + mu * H2.mT @ (x - L - H2 @ S), mu * rho_S, L, mu * rho_L)", "adjoint is H2.mH"),
        ("(S + mu * (x - L - H2 @ S), mu * rho_S, L, mu * rho_L)", "back through H2"),
        ("(S - mu * H2.mH @ (x - L - H2 @ S), mu * rho_S, L, mu * rho_L)", "The sign"),
        ("(S + mu * H2.mH @ (x - L + H2 @ S), mu * rho_S, L, mu * rho_L)", "both parts are taken"),
        ("(S + mu * H2.mH @ (x - L - H2 @ S), rho_S, L, rho_L)", "β = μρ"),
        ("(S + mu * H2.mH @ (x - L - H2 @ S), mu * rho_S, L, mu * rho_L)", "V_L should be"),
        ("S + mu * H2.mH @ (x - L - H2 @ S)", "four things"),
    ],
    "svd_filter_wins": [
        ("0.1", "SVD filter"),
        ("-1", "It is"),
        ("0.5", "Expected -1 or one of"),
    ],
    "early_stopping": [
        ("values.index(min(values))", "never see the later 0"),
        ("len(values) - 1", "never see the later 0"),
        ("0", "always falls"),
        ("patience", "always falls"),
        (
            "def kept_epoch(values, patience):\n"
            "    best = bad = 0\n"
            "    for epoch, value in enumerate(values[1:], 1):\n"
            "        if value < values[best]:\n"
            "            best = epoch\n"
            "        elif (bad := bad + 1) == patience:\n"
            "            break\n"
            "    return best",
            "starts again",
        ),
        (
            "def kept_epoch(values, patience):\n"
            "    best = 0\n"
            "    for epoch, value in enumerate(values):\n"
            "        if value <= values[best]:\n"
            "            best = epoch\n"
            "        if epoch - best >= patience:\n"
            "            break\n"
            "    return best",
            "equal value",
        ),
    ],
    "walk_gain": [
        ("(1 + 5**0.5) / 2", "That is Σ⁻"),
        ("0.5", "first gain"),
        ("2", "between 0 and 1"),
        ("0.7", "solve Σ⁻"),
    ],
    "kalman_step": [
        ("(F @ s_hat, Sigma)", "innovation"),
        (
            "(s_hat + Sigma @ H.mT / (H @ Sigma @ H.mT + R) @ (x - H @ s_hat), Sigma)",
            "Nothing is predicted",
        ),
        (
            "(F @ (s_hat + Sigma @ H.mT / (H @ Sigma @ H.mT + R) @ (x - H @ s_hat)), Sigma)",
            "updates, then predicts",
        ),
        (
            "(F @ s_hat + (P := F @ Sigma @ F.mT) @ H.mT / (H @ P @ H.mT + R)"
            " @ (x - H @ F @ s_hat), P)",
            "Q is missing",
        ),
        (
            "(F @ s_hat + (P := F @ Sigma @ F.mT + Q) @ H.mT / (H @ P @ H.mT)"
            " @ (x - H @ F @ s_hat), P)",
            "R is missing",
        ),
        (
            "(F @ s_hat + (P := F @ Sigma @ F.mT + Q) @ H.mT / (H @ P @ H.mT + R**2)"
            " @ (x - H @ F @ s_hat), P)",
            "do not square",
        ),
        (
            "(F @ s_hat + (P := F @ Sigma @ F.mT + Q) @ H.mT / (H @ P @ H.mT + R)"
            " @ (x - H @ F @ s_hat), P)",
            "before the update",
        ),
        (
            "[F @ s_hat + (K := (P := F @ Sigma @ F.mT + Q) @ H.mT / (H @ P @ H.mT + R))"
            " @ (x - H @ F @ s_hat), P - K @ H @ P]",
            "do not divide",
        ),
        ("s_hat", "Return two things"),
    ],
    "rescaled": [
        ("model", "Nothing has changed"),
        ("model._replace(Q=nis(beliefs).mean() * model.Q)", "Scale both"),
        ("model._replace(Q=model.Q / (f := nis(beliefs).mean()), R=model.R / f)", "wrong way"),
        (
            "model._replace(Q=model.Q * (f := nis(beliefs).mean().sqrt()), R=model.R * f)",
            "no square root",
        ),
        ("model._replace(Q=model.Q * (f := nis(beliefs).mean()), R=model.R * f)", "divide by n"),
        (
            "model._replace(Q=model.Q * (f := nis(beliefs).mean()) / len(model.R), R=model.R * f)",
            "in Q and in R",
        ),
        ("model.Q", "Return a Model"),
    ],
    "back_step": [
        ("(s_hat, Sigma)", "filter's estimate"),
        (
            "(s_hat + (G := Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT + Q))"
            " @ (later_s - s_hat), Sigma)",
            "not with ŝ",
        ),
        (
            "(s_hat + Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT)"
            " @ (later_s - F @ s_hat), Sigma)",
            "Q is missing",
        ),
        (
            "(s_hat + (Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT + Q)).mT"
            " @ (later_s - F @ s_hat), Sigma)",
            "transposed",
        ),
        (
            "(s_hat + Sigma @ F.mT @ torch.linalg.inv(F @ Sigma @ F.mT + Q)"
            " @ (later_s - F @ s_hat), Sigma)",
            "becomes smaller",
        ),
    ],
    "effective_number": [
        ("1 / log_w.exp().square().sum(-1)", "do not sum to one"),
        ("log_w.softmax(-1).square().sum(-1)", "inverse"),
        ("1 / log_w.softmax(-1).square().sum(-1).sum().expand(3)", "One number for each"),
        (
            "log_w.exp().sum(-1) ** 2 / log_w.exp().square().sum(-1)",
            "take the largest off",
        ),
    ],
    "grating_lobe": [
        ("-0.848", "degrees"),
        ("48.59", "sign"),
        ("-30", "conjugate phases"),
        ("30", "the source itself"),
        ("90", "differ by"),
    ],
    "backwards": [
        ("(R + R.flip(-1, -2)) / 2", "Conjugate"),
        ("(R + R.conj()) / 2", "other end"),
        ("(R + R.flip(-1).conj()) / 2", "Both rows and columns"),
        ("R + R.flip(-1, -2).conj()", "half"),
        ("R", "is not"),
    ],
    "capon": [
        ("(H.conj() * (R @ H)).sum(-2).real", "the beam's"),
        ("(H.conj() * torch.linalg.solve(R, H)).sum(-2).real", "one over"),
        ("1 / (H * torch.linalg.solve(R, H)).sum(-2).real", "conjugates"),
        ("1 / (H.conj() * torch.linalg.solve(R, H)).sum(-2)", "real"),
    ],
    "most_echoes": [
        ("8", "no room"),
        ("7", "one subarray"),
        ("6", "two subarrays"),
        ("4", "forward"),
        ("3", "Try each"),
    ],
    "surrogate": [
        ("K", "not Hermitian"),
        ("K @ K.mH", "least eigenvalue"),
        ("K @ K.mH + 2 * floor * torch.eye(5).to(K)", "every eigenvalue"),
        ("floor * torch.eye(5).to(K).expand_as(K)", "order"),
        ("torch.linalg.inv(K @ K.mH) + floor * torch.eye(5).to(K)", "order"),
    ],
    "same_direction": [
        ("49.5", "before the norm"),
        ("1", "by its norm"),
        ("5", "vectors of norm one"),
    ],
    "observation_matrix": [
        ("(x @ s.mT).mean((0, 1))", "divide by"),
        ("(x @ s.mT).mean((0, 1)) @ (s @ s.mT).mean((0, 1))", "do not multiply"),
        ("torch.linalg.lstsq(s[0, ..., 0], x[0, ..., 0]).solution.mT", "first step"),
        (
            "torch.linalg.lstsq(s.flatten(0, 1)[..., 0], x.flatten(0, 1)[..., 0]).solution",
            "Transpose",
        ),
    ],
    "four_features": [
        ("(x - x_before, x - H @ s_hat, s_hat - s_before, s_hat - expected)", "predict first"),
        ("(x - x_before, x - F @ s_hat, s_hat - s_before, s_hat - expected)", "H is missing"),
        ("(x - x_before, x - H @ F @ s_hat, s_hat - expected, s_hat - s_before)", "swapped"),
        ("(x - x_before, x - H @ expected, s_hat - s_before, s_hat - expected)", "step before"),
        ("x - x_before", "four tensors"),
    ],
    "recovered_covariance": [
        ("K @ R", "H is missing"),
        ("K @ torch.linalg.solve(R, H)", "Multiply by R"),
        ("torch.linalg.solve(H, K @ R)", "on the right"),
    ],
    "gated_gain": [
        (
            "def my_gated(model, k, most):\n"
            "    def gain(belief, x, seen=None):\n"
            "        s = model.F @ belief.s\n"
            "        return Gain(k * torch.eye(2).to(x), s, s)\n"
            "    return gain",
            "gate does nothing",
        ),
        (
            "def my_gated(model, k, most):\n"
            "    def gain(belief, x, seen=None):\n"
            "        s = model.F @ belief.s\n"
            "        far = (x - s).norm(dim=(-2, -1), keepdim=True) >= most\n"
            "        return Gain(k * far * torch.eye(2).to(x), s, s)\n"
            "    return gain",
            "wrong way round",
        ),
        (
            "def my_gated(model, k, most):\n"
            "    def gain(belief, x, seen=None):\n"
            "        return Gain(k * torch.eye(2).to(x), belief.s, belief.s)\n"
            "    return gain",
            "Nothing is predicted",
        ),
    ],
    "largest_step": [
        ("0.2", "one over"),
        ("5", "the curvature"),
        ("0.5", "both neighbours"),
        ("2", "observation alone"),
        ("1", "2 over that"),
    ],
    "three_messages": [
        ("s", "Return three"),
        ("(torch.linalg.solve(Q, s - F @ s.roll(1, 0)), s, s)", "pulls s_t towards"),
        ("(-Q @ (s - F @ s.roll(1, 0)), s, s)", "not by Q"),
        (
            "(-torch.linalg.solve(Q, s - F @ s.roll(1, 0)),"
            " torch.linalg.solve(Q, s.roll(-1, 0) - F @ s), s)",
            "Fᵀ is missing",
        ),
        (
            "(-torch.linalg.solve(Q, s - F @ s.roll(1, 0)),"
            " F @ torch.linalg.solve(Q, s.roll(-1, 0) - F @ s), s)",
            "transposed",
        ),
        (
            "(-torch.linalg.solve(Q, s - F @ s.roll(1, 0)),"
            " F.mT @ torch.linalg.solve(Q, s.roll(-1, 0) - F @ s), H.mT @ (x - H @ s))",
            "R⁻¹ is missing",
        ),
    ],
    "corrected_step": [
        ("(s + gamma * sum(mu), memory)", "correction is missing"),
        ("(s + gamma * sum(mu) + correction(mu, x, memory)[0], memory)", "γ multiplies"),
        ("(s + gamma * correction(mu, x, memory)[0], memory)", "black box"),
        ("(s - gamma * (sum(mu) + correction(mu, x, memory)[0]), memory)", "Climb"),
        ("(s + gamma * (sum(mu) + correction(mu, x, memory)[0]), memory)", "Hand back"),
    ],
    "late_counts_more": [
        ("(iterates - s).square().mean()", "weigh the same"),
        ("(iterates[-1] - s).square().mean()", "Only the last"),
        (
            "(torch.arange(5, 0, -1) * (iterates - s).square().flatten(1).mean(1)).sum() / 15",
            "turn it round",
        ),
        (
            "(torch.arange(len(iterates)) * (iterates - s).square().flatten(1).mean(1)).sum() / 10",
            "not at 0",
        ),
        (
            "(torch.arange(1, 6) * (iterates - s).square().flatten(1).mean(1)).sum()",
            "sum of the weights",
        ),
    ],
    "lucky_or_better": [
        ("bool(new.mean() < old.mean())", "inside its standard error"),
        ("bool((old - new).mean() > 2 * (old - new).std() / len(old) ** 0.5)", "three were asked"),
        ("bool((old - new).mean() > 2.5 * (old - new).std() / len(old) ** 0.5)", "three were"),
        ("bool((old - new).mean() > 3 * (old - new).std())", "denied"),
        ("bool((new - old).mean() > 3 * (old - new).std() / len(old) ** 0.5)", "denied"),
        ("bool(old.mean() - new.mean() > 3 * old.std() / len(old) ** 0.5)", "block by block"),
    ],
    "black_box_wins": [
        ("10", "the black box has"),
        ("10_000", "the black box has"),
        ("500", "Expected 0 or one of"),
        ("'never'", "Expected a number"),
    ],
    "compared_sums": [
        ("64", "Those are the states"),
        ("12", "4 · 4 · 4"),
        ("128", "binary symbols"),
        ("64**2", "Not every state"),
        ("81", "times the symbols"),
    ],
    "viterbi_step": [
        ("m + log_likelihood", "Nobody moves"),
        (
            "m.unflatten(-1, (2, -1)).logsumexp(-2).repeat_interleave(2, -1) + log_likelihood",
            "sum-product",
        ),
        (
            "m.unflatten(-1, (-1, 2)).amax(-1).repeat_interleave(2, -1) + log_likelihood",
            "oldest that is forgotten",
        ),
        ("torch.cat([m.unflatten(-1, (2, -1)).amax(-2)] * 2, -1) + log_likelihood", "last digit"),
        (
            "m.unflatten(-1, (2, -1)).amin(-2).repeat_interleave(2, -1) + log_likelihood",
            "survives",
        ),
    ],
    "poisson_likelihood": [
        (
            "(lambda r: x[..., None] * r.log() - r)(g * ((torch.arange(2 ** len(taps))[:, None]"
            " // 2 ** torch.arange(len(taps)).flip(0) % 2).to(taps) @ taps) + 1)",
            "wrong way round",
        ),
        (
            "(lambda r: x[..., None] * r.log())(g * ((torch.arange(2 ** len(taps))[:, None]"
            " // 2 ** torch.arange(len(taps)) % 2).to(taps) @ taps) + 1)",
            "rate is missing",
        ),
        (
            "(lambda r: r - x[..., None] * r.log())(g * ((torch.arange(2 ** len(taps))[:, None]"
            " // 2 ** torch.arange(len(taps)) % 2).to(taps) @ taps) + 1)",
            "The sign",
        ),
        (
            "(lambda r: -(x[..., None] - r) ** 2 / 2)(g * ((torch.arange(2 ** len(taps))[:, None]"
            " // 2 ** torch.arange(len(taps)) % 2).to(taps) @ taps) + 1)",
            "Gaussian",
        ),
    ],
    "bayes_slot": [
        ("log_p", "That is a posterior"),
        ("log_p + share.log()", "divided out"),
        ("log_p - share", "is a logarithm"),
        ("log_p.exp() / share", "takes logarithms"),
    ],
    "burst_error": [
        ("(wrong.double().mean() * (1 - wrong.double().mean()) / wrong.numel()).sqrt()", "short"),
        ("wrong.double().mean(0).std()", "spread of blocks"),
        ("wrong.double().mean(1).std() / len(wrong) ** 0.5", "short"),
        ("wrong.double().mean(0).std() / len(wrong) ** 0.5", "over √blocks"),
        ("wrong.double().mean()", "rate itself"),
    ],
    "longer": [
        ("4", "in proportion"),
        ("16", "number of HᵀH's entries"),
        ("256", "One power"),
        ("8", "how many times more"),
    ],
    "seed_of_point": [
        ("hash(str(sorted(point.items())))", "differs from process to process"),
        ("repetition", "base seed is not in it"),
        ("base * 7919 + repetition", "snr_db is not in it"),
        (
            "int.from_bytes(sha256(json.dumps([base, point, repetition]).encode()).digest()[:8])",
            "order of the names",
        ),
        (
            "int.from_bytes(sha256(json.dumps([base, point, repetition], sort_keys=True)"
            ".encode()).digest()[:8])",
            "10 and 10.0",
        ),
        ("(lambda: hash(tuple(point)))()", "differs from process to process"),
        (
            "int.from_bytes(sha256(json.dumps([base, {k: f'{v:g}' if not isinstance(v, str) else v"
            " for k, v in sorted(point.items())}, repetition]).encode()).digest()[:8])",
            "seventh digit",
        ),
        ("sha256(b'').hexdigest()", "Expected an int"),
        ("torch.randint(10**9, ()).item()", "Twice the same"),
    ],
    "together": [
        ("250", "Not of one call's"),
        ("50", "how many calls are 50"),
        ("5", "sending is 4.0 %"),
        ("20", "the smallest"),
    ],
    "left_to_do": [
        ("jobs", "was done later"),
        ("[s for s in jobs if s not in {r['seed'] for r in rows}]", "tried again"),
        (
            "[s for s in jobs if s not in {r['seed'] for r in rows if r.get('value')}]",
            "which is a value",
        ),
        (
            "[s for s in jobs if s not in {r['seed'] for r in rows} or s in "
            "{r['seed'] for r in rows if 'error' in r}]",
            "done later",
        ),
        ("[s for s in jobs if 'error' in {r['seed']: r for r in rows}.get(s, 'error')]", "a value"),
        ("sorted({*jobs} - {r['seed'] for r in rows if 'error' not in r})", "order of the jobs"),
    ],
    "amdahl": [
        ("28.8", "efficiency"),
        ("18.9", "doubles the workers"),
        ("32", "Only without"),
        ("9", "ceiling"),
        ("1 / (0.2 + 0.8 / 32)", "not 0.2"),
        ("5", "first σ"),
    ],
}


@pytest.mark.parametrize(("chapter", "name"), ALL)
def test_typical_mistakes_are_named(chapter, name):
    answers = WRONG.get(name, [])
    assert len(answers) >= 3, f"{name}: try three wrong answers or more, got {len(answers)}"
    definitions, call, _ = exercises_of(chapter)[name]
    for wrong, words in answers:
        said = verdict(chapter, answered(definitions, wrong), call)
        assert said.passed is False, f"{wrong} passed"
        assert not GENERIC.match(said.message), (wrong, said.message)
        assert words in said.message, (wrong, said.message)


def test_no_exercise_is_forgotten():
    assert WRONG.keys() <= {name for _, name in ALL}
