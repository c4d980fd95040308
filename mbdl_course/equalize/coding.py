"""A code that says whether it succeeded, and a receiver that learns only where it did."""

import copy
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import torch

from mbdl_course.learn import Stage, training

from .algorithm import viterbi
from .parts import least_squares
from .problem import Law, outputs, states_of, whole

# ---- A small code: CRC-16 inside Hamming words, interleaved ------------------------------------

POLYNOMIAL = 0x11021  # x¹⁶ + x¹² + x⁵ + 1, of CRC-16/CCITT


class Code(NamedTuple):
    """`words` Hamming words of 2^r − 1 bits, the last 16 of their information bits being a CRC.

    check (2^r − 1, r): the syndrome of a single error at each place, information first; remainder
    (info, 16): what each information bit adds to the CRC.
    """

    words: int
    check: torch.Tensor
    remainder: torch.Tensor

    @property
    def info(self):
        return len(self.remainder)

    @property
    def length(self):
        return self.words * len(self.check)

    def encode(self, bits):
        """Bits (..., info), 0 and 1, to symbols (..., length): bit i of all words, then i + 1."""
        whole_bits("bits", bits, self.info)
        bits = torch.cat([bits, parity(bits, self.remainder)], -1).unflatten(-1, (self.words, -1))
        word = torch.cat([bits, parity(bits, self.check[: bits.shape[-1]])], -1)
        return word.mT.flatten(-2)  # so that a burst of errors hits many words, each once

    def decode(self, s):
        """Symbols (..., length) to bits (..., info) and the flag `ok` (...): the CRC agrees.

        Each word has at most one error put right; two or more make it worse, and the CRC sees it
        (but for about one in 2^16). No true bit is looked at.
        """
        whole_bits("s", s, self.length)
        word = s.unflatten(-1, (len(self.check), self.words)).mT
        syndrome = parity(word, self.check)
        wrong = (syndrome[..., None, :] == self.check.to(s)).all(-1) & syndrome.any(
            -1, keepdim=True
        )
        bits = ((word + wrong) % 2)[..., : len(self.check) - self.check.shape[1]].flatten(-2)
        bits, crc = bits.split([self.info, 16], -1)
        return bits, (parity(bits, self.remainder) == crc).all(-1)


def hamming_crc(words=16, r=4):
    """The Code of so many Hamming(2^r − 1, 2^r − 1 − r) words: 240 bits for 160 as it stands."""
    if whole("r", r) < 2 or whole("words", words) * (2**r - 1 - r) <= 16:
        raise ValueError(f"words, r: got {words}, {r}: no room for a CRC of 16 bits and more")
    numbers = sorted(range(1, 2**r), key=lambda n: (n.bit_count() == 1, n))  # parity comes last
    check = torch.tensor(numbers)[:, None] >> torch.arange(r) & 1
    check[-r:] = torch.eye(r, dtype=check.dtype)
    info = words * (2**r - 1 - r) - 16

    def times_x(value, _):
        value <<= 1
        return value ^ POLYNOMIAL if value >> 16 else value

    powers = [*accumulate(range(info - 1), times_x, initial=POLYNOMIAL & 0xFFFF)][::-1]
    return Code(words, check, torch.tensor(powers)[:, None] >> torch.arange(15, -1, -1) & 1)


def parity(bits, matrix):
    return (bits.float() @ matrix.to(bits.device).float() % 2).long()  # no GPU multiplies integers


def whole_bits(name, bits, length):
    if (
        bits.shape[-1:] != (length,)
        or bits.is_floating_point()
        or ((bits != 0) & (bits != 1)).any()
    ):
        raise ValueError(
            f"{name}: got {bits.dtype} of shape {tuple(bits.shape)}, expected zeros and ones, "
            f"whole numbers, (..., {length})"
        )


# ---- Adaptation: decided symbols become pilots, where the code agrees ---------------------------


class Heard(NamedTuple):
    """After a block: the receiver for the next one, the symbols decided, (T, ...), and the flag."""

    receiver: Any
    s: torch.Tensor | None = None
    ok: torch.Tensor | None = None


def adapting(xs, receiver, code, update, memory):
    """One Heard for each block x (T, ..., 1) that arrives, the start first.

    Detect by `viterbi(receiver(x))`, decode, encode again: receiver ← update(receiver, x, states,
    ok). ok (..., 1) is the code's own flag, and what the update does where it is False is to leave
    its receiver alone. T = code.length. Algorithm 2 of Shlezinger, Farsad, Eldar, Goldsmith 2020,
    ViterbiNet, doi 10.1109/TWC.2020.2972352, with the flag in the place of an error count.
    """

    def step(heard, x):
        with torch.no_grad():
            s = viterbi(heard.receiver(x)).s
        bits, ok = code.decode(s.movedim(0, -1))
        states = states_of(code.encode(bits).movedim(-1, 0), memory)
        return Heard(update(heard.receiver, x[memory - 1 :], states, ok), s, ok)

    return accumulate(xs, step, initial=Heard(receiver))


def kept(receiver, x, states, ok):
    """The update of a receiver that is left as it is."""
    return receiver


class Linear(NamedTuple):
    """The receiver of a Law and taps (..., 1, memory): x ↦ its log-likelihoods."""

    law: Law
    taps: torch.Tensor

    def __call__(self, x):
        return self.law.log_likelihood(x, outputs(self.taps, self.law.levels))


def tracked(receiver, x, states, ok):
    """The update of a `Linear` receiver: least squares on the block, where ok."""
    taps, _ = least_squares(x, states, receiver.law.levels, receiver.taps.shape[-1])
    return receiver._replace(taps=torch.where(ok[..., None], taps, receiver.taps))


def retrained(steps=30, lr=1e-3):
    """The update of a ViterbiNet: so many steps of Adam on the block, where ok; a new network."""

    def update(receiver, x, states, ok):
        receiver = copy.deepcopy(receiver)

        def loss(log_p, state):
            per = -log_p.gather(-1, state[..., None])[..., 0].mean(0)
            return (per * ok).sum()

        if ok.any():
            for _ in training(receiver.classifier, repeat((x, states)), loss, [Stage(steps, lr)]):
                pass
        return receiver

    return update
