"""A reader of pickles that can execute nothing.

A pickle is a program for a small stack machine, and Python's own machine lets it call any function. This one
knows only the instructions that make numbers, text and containers. A call makes a `Call`: the function's name
and its arguments, to be understood by whoever reads it; names outside a short list are refused.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

MAX_STEPS = 20_000_000

# What checkpoints of torch and Lightning name. Nothing of this is imported or called.
KNOWN = {
    "collections": {"OrderedDict", "defaultdict", "Counter"},
    "torch": {"Size", "device", "dtype"},
    "torch._utils": {"_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch.jit._pickle": {
        "restore_type_tag",
        "build_intlist",
        "build_tensorlist",
        "build_doublelist",
        "build_boollist",
    },
    "torch.serialization": {"_get_layout"},
    "torch.nn.parameter": {"Parameter"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
    "argparse": {"Namespace"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "_codecs": {"encode"},
    "pytorch_lightning.utilities.parsing": {"AttributeDict"},
    "lightning_fabric.utilities.data": {"AttributeDict"},
}
TORCH_KINDS = ("Storage", "float", "int", "bool", "uint", "bfloat", "double", "half", "long", "short")


class Name(NamedTuple):
    """A function or class that the pickle names."""

    module: str
    name: str


class Call:
    """What a call would make: `name`, its arguments, and what was set on it afterwards."""

    def __init__(self, name: Name, arguments: tuple[Any, ...]):
        self.name = name
        self.arguments = arguments
        self.state: Any = None


class Stored(NamedTuple):
    """A reference to data outside of the pickle."""

    key: Any


class _Mark:
    """Where a group of items starts on the stack."""


def read_pickle(data: bytes | BinaryIO) -> Any:
    """Read a pickle; a stream is left where the pickle ends.

    Raises:
        ValueError: damaged, too long, or it names something that no checkpoint needs.
    """
    try:
        return _Machine().run(data)
    except ValueError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, MemoryError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__})") from None


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes | BinaryIO) -> Any:
        for step, (instruction, argument, position) in enumerate(pickletools.genops(data)):
            if step > MAX_STEPS:
                raise ValueError(f"pickle of more than {MAX_STEPS} instructions")
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            if name in _VALUES:
                self.stack.append(argument)
                continue
            action = _ACTIONS.get(name)
            if action is None:
                raise ValueError(f"damaged pickle (instruction {name} at byte {position})")
            action(self, argument)
        raise ValueError("damaged pickle (it does not end)")

    def since_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[start], _Mark):
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise ValueError("damaged pickle (no mark)")

    def remember(self, key: int | None) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def fill(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            (target.state if isinstance(target, Call) else target)[key] = value

    def extend(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise ValueError("damaged pickle (a call of what is no function)")
        self.stack.append(_made(name, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Call):
            target.state = state

    def named(self, module: Any, name: Any) -> None:
        self.stack.append(_known(str(module), str(name)))


def _known(module: str, name: str) -> Name:
    kinds = module == "torch" and name.startswith(TORCH_KINDS)
    storage = module in ("torch", "torch.storage") and name.endswith("Storage")
    script = module.startswith("__torch__")
    if kinds or storage or script or name in KNOWN.get(module, ()):
        return Name(module, name)
    raise ValueError(f"its pickle names {module}.{name}, which no checkpoint needs: do not trust this file")


def _made(name: Name, arguments: tuple[Any, ...]) -> Any:
    """Stand in for a call: containers are made, wrappers are looked through, the rest is kept as told."""
    if name.module == "collections" and name.name == "OrderedDict" and not arguments:
        return {}
    if name.name in ("restore_type_tag", "_rebuild_parameter") or name.name.startswith("build_"):
        return arguments[0]
    made = Call(name, arguments)
    made.state = {}
    return made


def _tuple(size: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < size:
            raise ValueError("damaged pickle (stack is empty)")
        items = tuple(machine.stack[len(machine.stack) - size :])
        del machine.stack[len(machine.stack) - size :]
        machine.stack.append(items)

    return make


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.named(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.named(module, name)


def _one_pair(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.fill([key, value])


def _one_item(machine: _Machine, _: Any) -> None:
    item = machine.stack.pop()
    machine.extend([item])


def _pairs_of(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _push(_Mark),
    "POP": lambda machine, _: machine.stack.pop() and None,
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_DICT": _push(dict),
    "EMPTY_LIST": _push(list),
    "EMPTY_SET": _push(list),
    "EMPTY_TUPLE": _push(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": lambda machine, _: machine.stack.append(_pairs_of(machine.since_mark())),
    "APPEND": _one_item,
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": _one_pair,
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stack.append(Stored(machine.stack.pop())),
}
