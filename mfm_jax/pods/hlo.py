"""Reading a compiled program: what it sends between devices and moves through memory, loops multiplied out.

A partitioned program's text is what one device does. XLA's own analysis counts the body of a loop once; here
every computation is weighed by how often it runs: `known_trip_count` where the compiler wrote it, else the
constant that the loop's condition compares with, else once (and the program is marked as guessed).
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

WIDTHS = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "token": 0, "opaque": 0}  # others say their bits
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota", "while", "call"),
    *("conditional", "partition-id", "replica-id", "opt-barrier", "async-start", "async-update"),
}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_CALLED = re.compile(
    r"\b(calls|body|condition|to_apply|branch_computations)=\{?%?([\w.\-]+(?:, ?%[\w.\-]+)*)"
)


class Shape(NamedTuple):
    """An array; `near` when it lies in memory on the chip (TPU: S(1) and above) and not in HBM."""

    dtype: str
    sides: tuple[int, ...]
    near: bool

    @property
    def bytes(self) -> float:
        """Size without padding."""
        bits = re.search(r"\d+", self.dtype)
        width = WIDTHS.get(self.dtype, int(bits[0]) / 8 if bits else 1)
        return float(width * math.prod(self.sides))


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    op: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str
    root: bool

    def called(self, word: str) -> list[str]:
        """Names of the computations under `calls`, `body` and so on."""
        return [
            name.strip(" %")
            for key, names in _CALLED.findall(self.text)
            if key == word
            for name in names.split(",")
        ]


class Program(NamedTuple):
    """Computations by name, and how often each runs in one call of the program."""

    computations: dict[str, list[Instruction]]
    rounds: dict[str, float]
    fused: set[str]  # computations that are part of one instruction of another
    guessed: bool  # a loop's number of rounds is unknown

    def running(self) -> Iterator[tuple[float, str, Instruction]]:
        """Give every instruction outside of fusions, how often it runs and in which computation."""
        for name, rounds in self.rounds.items():
            if name not in self.fused:
                for instruction in self.computations[name]:
                    yield rounds, name, instruction


def shapes(text: str) -> tuple[Shape, ...]:
    """Read the arrays of a type, in order; of a tuple all of them."""
    found = []
    for dtype, sides, layout in _SHAPE.findall(text):
        found.append(Shape(dtype, tuple(int(s) for s in sides.split(",") if s), "S(" in layout))
    return tuple(found)


def read(text: str) -> Program:
    """Read the text of a compiled module."""
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            root, name, kind, op, rest = found.groups()
            operands = tuple(re.findall(r"%([\w.\-]+)", _arguments(rest)))
            computations[current].append(Instruction(name, op, shapes(kind), operands, line, bool(root)))
    rounds: dict[str, float] = {}
    fused: set[str] = set()
    guessed = _weigh(computations, entry, 1.0, rounds, fused, False)
    return Program(computations, rounds, fused, guessed)


def _arguments(rest: str) -> str:
    """Cut the operands out of what follows an operation's open parenthesis."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0:
            return rest[:place]
    return rest


def _weigh(
    computations: dict[str, list[Instruction]],
    name: str,
    rounds: float,
    found: dict[str, float],
    fused: set[str],
    inside: bool,
) -> bool:
    """Add `rounds` runs of a computation and of what it calls; true when a loop's length was guessed."""
    found[name] = found.get(name, 0.0) + rounds
    if inside:
        fused.add(name)
    guessed = False
    for instruction in computations.get(name, []):
        trips = 1.0
        if instruction.op == "while":
            known = trip_count(instruction, computations)
            guessed |= known is None
            trips = float(known or 1)
        fusion = inside or instruction.op == "fusion"
        for word in ("calls", "body", "condition", "branch_computations"):
            for called in instruction.called(word):
                guessed |= _weigh(computations, called, rounds * trips, found, fused, fusion)
        if instruction.op == "call":
            for called in instruction.called("to_apply"):
                guessed |= _weigh(computations, called, rounds, found, fused, inside)
    return guessed


def trip_count(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """Give a loop's number of rounds, or None."""
    told = re.search(r'known_trip_count":?\{"n":"(\d+)"', loop.text)
    if told:
        return int(told[1])
    limits = []
    for name in loop.called("condition"):
        for instruction in computations.get(name, []):
            constant = re.search(r"= [su]32\[\][^ ]* constant\((\d+)\)", instruction.text)
            if constant:
                limits.append(int(constant[1]))
    return max(limits) if limits else None


def traffic(program: Program) -> float:
    """Bytes that one device reads from and writes to HBM in a call of the program.

    Every instruction outside of fusions reads its operands and writes its results once. What a slice, or a
    fusion that only slices, does not touch does not count; nor do arrays that are kept on the chip.
    """
    total = 0.0
    for rounds, name, instruction in program.running():
        if instruction.op in FREE or instruction.op.endswith("-done"):
            continue
        total += rounds * _moved(program, name, instruction)
    return total


def _moved(program: Program, home: str, instruction: Instruction) -> float:
    here = {i.name: i for i in program.computations[home]}
    written = sum(s.bytes for s in instruction.shapes if not s.near)
    if instruction.op in ("dynamic-slice", "gather", "slice"):
        return 2 * written
    if instruction.op == "dynamic-update-slice":
        return 2 * sum(s.bytes for s in here[instruction.operands[1]].shapes)
    touched = [
        sum(s.bytes for s in here[name].shapes if not s.near) if name in here else 0.0
        for name in instruction.operands
    ]
    if instruction.op.endswith("-start"):  # its type holds the operands too
        written = max(written - sum(touched), 0.0)
    if instruction.op == "custom-call":  # what follows the result is room to work in
        written = sum(s.bytes for s in instruction.shapes[:1] if not s.near)
    for called in instruction.called("calls") if instruction.op == "fusion" else []:
        body = program.computations.get(called, [])
        written, touched = _within(body, written, touched)
    return written + sum(touched)


def _within(body: list[Instruction], written: float, read: list[float]) -> tuple[float, list[float]]:
    """What a fusion touches of its result and operands when it only slices, or pastes into, some of them."""
    names = {}
    for instruction in body:
        number = re.search(r"parameter\((\d+)\)", instruction.text)
        if instruction.op == "parameter" and number:
            names[int(number[1])] = instruction.name
    by_name = {i.name: i for i in body}
    touched = list(read)
    for place, name in names.items():
        uses = [i for i in body if name in i.operands]
        if place < len(touched) and uses and all(i.op in ("dynamic-slice", "slice", "gather") for i in uses):
            touched[place] = min(touched[place], sum(s.bytes for i in uses for s in i.shapes))
        pasted = [i for i in uses if i.op == "dynamic-update-slice" and i.operands[0] == name]
        if place < len(touched) and pasted and len(pasted) == len(uses):
            parts = sum(s.bytes for i in pasted for s in by_name[i.operands[1]].shapes)
            whole = sum(s.bytes for i in pasted for s in i.shapes)
            written -= min(written, max(whole - parts, 0.0))
            touched[place] = 0.0
    return written, touched
