"""Many items at once: each is worked on by its own thread, and what they ask of the models is batched.

A workflow is written for one item and calls the models through `run`. Alone, that is a jitted call. Here the
calls of many threads wait until a batch of one kind is full, or until every thread waits; then one jitted
and `vmap`ped call, split over the devices of this process, answers them all. A batch has always the same size
(its last row is repeated where there are too few), so each step compiles once, and an answer depends neither
on the other rows nor on who was quicker.
"""

import functools
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mfm_jax.axes import Params

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Function = Callable[..., Any]
Run = Callable[..., Any]  # run(function, static, params, *given) = function(*static, params, *given)
BATCH = "batch"


@functools.partial(jax.jit, static_argnums=(0, 1))
def alone(function: Function, static: tuple[Any, ...], params: Params, *given: Any) -> Any:
    """Call `function(*static, params, *given)` for one item, jitted; parameters are arguments."""
    return function(*static, params, *given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batched(function: Function, static: tuple[Any, ...], params: Params, given: Any) -> Any:
    return jax.vmap(lambda row: function(*static, params, *row))(given)


class Fault(NamedTuple):
    """What stopped an item: one line."""

    reason: str


def one_by_one(
    work: Callable[[Item], Answer], items: Iterable[Item], done: Callable[[], None] | None = None
) -> list[Answer | Fault]:
    """Do what `Together.map` does, without threads or batches."""
    outcomes: list[Answer | Fault] = []
    for item in items:
        outcomes.append(_tried(work, item))
        if done is not None:
            done()
    return outcomes


def _tried(work: Callable[[Item], Answer], item: Item) -> Answer | Fault:
    try:
        return work(item)
    except (ValueError, OSError) as error:
        return Fault(" ".join(str(error).split()))


class _Call:
    """A call that waits for its answer."""

    def __init__(self, params: Params, given: Any) -> None:
        self.params, self.given = params, given
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = False


class Together:
    """Runs a function on many items, batching what their threads ask through `run`."""

    def __init__(self, size: int, devices: Sequence[jax.Device] | None = None) -> None:
        """Take the size of a batch and the devices that share it; those of this process unless given.

        Raises:
            ValueError: the batch does not divide among the devices.
        """
        chosen = jax.local_devices() if devices is None else list(devices)
        if size < 1 or size % len(chosen):
            raise ValueError(f"batch of {size}: must be a multiple of the {len(chosen)} devices of a process")
        mesh = Mesh(np.asarray(chosen), (BATCH,))
        self.size = size
        self._rows = NamedSharding(mesh, PartitionSpec(BATCH))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._params: dict[int, tuple[Params, Params]] = {}
        self._turn = threading.Condition(threading.Lock())
        self._calls: dict[Hashable, list[_Call]] = {}
        self._busy = 0  # threads that are not waiting for an answer
        self._here = threading.local()

    def map(
        self,
        work: Callable[[Item], Answer],
        items: Iterable[Item],
        done: Callable[[], None] | None = None,
    ) -> list[Answer | Fault]:
        """Work on every item; give what came of each, in order.

        Args:
            work: of one item; a ValueError or OSError becomes a `Fault`, others end the run.
            items: what to do.
            done: called after each item.
        """
        queue = list(enumerate(items))
        outcomes: dict[int, Answer | Fault] = {}
        crashes: list[BaseException] = []
        queue.reverse()

        def go() -> None:
            self._here.inside = True
            try:
                while not crashes:
                    with self._turn:
                        if not queue:
                            return
                        number, item = queue.pop()
                    outcomes[number] = _tried(work, item)
                    if done is not None:
                        done()
            except BaseException as error:
                crashes.append(error)
            finally:
                with self._turn:
                    self._busy -= 1
                    self._turn.notify_all()

        count = min(len(queue), 2 * self.size)  # twice: some prepare and finish while others compute
        threads = [threading.Thread(target=go, daemon=True) for _ in range(count)]
        self._busy = count
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if crashes:
            raise crashes[0]
        return [outcomes[number] for number in sorted(outcomes)]

    def run(self, function: Function, static: tuple[Any, ...], params: Params, *given: Any) -> Any:
        """Answer `function(*static, params, *given)`; from a thread of `map`, in a batch with others."""
        if not getattr(self._here, "inside", False):
            return alone(function, static, params, *given)
        shapes = tuple((np.shape(leaf), _type(leaf)) for leaf in jax.tree.leaves(given))
        key = function, static, id(params), jax.tree.structure(given), shapes
        call = _Call(params, given)
        with self._turn:
            self._calls.setdefault(key, []).append(call)
            self._busy -= 1
            self._turn.notify_all()
            while not call.done:
                ready = self._ready()
                if ready is None:
                    self._turn.wait()
                    continue
                self._busy += 1
                self._turn.release()
                try:
                    self._answer(*ready)
                finally:
                    self._turn.acquire()
                for answered in ready[1]:
                    answered.done = True
                self._busy += len(ready[1]) - 1
                self._turn.notify_all()
        if call.error is not None:
            raise call.error
        return call.answer

    def _ready(self) -> tuple[Any, list[_Call]] | None:
        """Take a batch that is full; or the fullest, when nobody is left who could add to it."""
        fullest = max(self._calls, key=lambda key: len(self._calls[key]), default=None)
        if fullest is None or (len(self._calls[fullest]) < self.size and self._busy):
            return None
        waiting = self._calls.pop(fullest)
        if len(waiting) > self.size:
            self._calls[fullest] = waiting[self.size :]
        return fullest, waiting[: self.size]

    def _answer(self, key: Any, calls: list[_Call]) -> None:
        function, static, *_ = key
        try:
            rows = [call.given for call in calls]
            rows += [rows[-1]] * (self.size - len(rows))
            given = jax.tree.map(lambda *leaves: jax.device_put(_stacked(leaves), self._rows), *rows)
            made = jax.device_get(_batched(function, static, self._placed(calls[0].params), given))
            for number, call in enumerate(calls):
                call.answer = jax.tree.map(lambda leaf, row=number: leaf[row], made)
        except BaseException as error:
            for call in calls:
                call.error = error

    def _placed(self, params: Params) -> Params:
        """Put parameters on every device, once."""
        if id(params) not in self._params:
            self._params[id(params)] = params, jax.device_put(params, self._everywhere)
        return self._params[id(params)][1]


def _stacked(leaves: Sequence[Any]) -> Any:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack([jnp.asarray(leaf) for leaf in leaves])
    return np.stack([np.asarray(leaf, _type(leaf)) for leaf in leaves])


def _type(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
