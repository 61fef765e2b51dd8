"""Learning, off the request path.

One background thread takes (trace, reward) pairs, teaches a *copy* of the serving policy, checks it, keeps a snapshot in the store
and only then swaps it in whole. Serving reads an immutable policy and is never in a half-learned state. The copy shares what learning
never changes (the prior of a bandit, a predictor that does not learn online): it may be large.

A batch that makes a policy raise or leaves a non-finite number in its state is taken apart: the pairs that do harm are quarantined
(logged and counted), the rest is learned. The last good snapshot serves on all the while.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from fairlead.component import finite
from fairlead.errors import FairleadError
from fairlead.policies.base import Policy
from fairlead.types import Reward, Trace

if TYPE_CHECKING:
    from typing import TypeAlias

    Lesson: TypeAlias = tuple[str, Trace, Reward]

log = logging.getLogger(__name__)


class Learner:
    """Teaches policies in the background.

    Args:
        serving: returns the policy that serves a route now.
        publish: takes (route, policy, note, ids of the traces learned), keeps a snapshot and swaps the policy in. Called in the
            learner's thread, like `forget`.
        forget: takes the ids of traces whose lessons are not to be tried again.
        batch: publish after this many lessons at the latest …
        seconds: … or this long after the first one.
    """

    def __init__(
        self,
        *,
        serving: Callable[[str], Policy],
        publish: Callable[[str, Policy, str, Sequence[str]], None],
        forget: Callable[[Sequence[str]], None],
        batch: int = 32,
        seconds: float = 1.0,
    ) -> None:
        self.serving, self.publish, self.forget = serving, publish, forget
        self.batch, self.seconds = batch, seconds
        self.learned = 0
        self.quarantined = 0
        self.failed = 0
        self._lessons: queue.SimpleQueue[Lesson | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Condition()
        self._waiting = 0

    def start(self) -> None:
        """Begin to learn, if that has not begun."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._work, name="fairlead-learner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Learn what is waiting, then end."""
        if self._thread is not None:
            self._lessons.put(None)
            self._thread.join()
            self._thread = None

    def submit(self, route: str, trace: Trace, reward: Reward) -> None:
        """Hand over one lesson; returns at once."""
        with self._lock:
            self._waiting += 1
        self._lessons.put((route, trace, reward))

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until everything submitted so far is learned and published. Not for the event loop."""
        with self._lock:
            return self._lock.wait_for(lambda: self._waiting == 0, timeout_seconds)

    def _work(self) -> None:
        ended = False
        while not ended:
            first = self._lessons.get()
            if first is None:
                break
            lessons, until = [first], monotonic() + self.seconds
            while len(lessons) < self.batch and (left := until - monotonic()) > 0:
                try:
                    lesson = self._lessons.get(timeout=left)
                except queue.Empty:
                    break
                if lesson is None:
                    ended = True
                    break
                lessons.append(lesson)
            for route in dict.fromkeys(route for route, _, _ in lessons):
                self._teach(route, [(t, r) for name, t, r in lessons if name == route])
            with self._lock:
                self._waiting -= len(lessons)
                self._lock.notify_all()

    def _teach(self, route: str, pairs: list[tuple[Trace, Reward]]) -> None:
        try:
            policy, good, bad = self.serving(route).copy_to_teach(), pairs, []
            problem = _learn(policy, pairs)
            if problem is not None:
                # Find the lessons that do harm, one by one, each tried on a copy of what is known to be good.
                policy, good = self.serving(route).copy_to_teach(), []
                for pair in pairs:
                    trial = policy.copy_to_teach()
                    problem = _learn(trial, [pair])
                    if problem is None:
                        policy, good = trial, [*good, pair]
                    else:
                        bad.append(pair[0].id)
                        log.error("route %s: the lesson of trace %s is quarantined: %s", route, pair[0].id, problem)
                # A store takes the lessons of an answer off oldest first, so one that does harm takes the answer's others here with it.
                harmed = set(bad)
                if any(pair[0].id in harmed for pair in good):
                    bad = [pair[0].id for pair in pairs if pair[0].id in harmed]
                    good = [pair for pair in good if pair[0].id not in harmed]
                    policy = self.serving(route).copy_to_teach()
                    problem = _learn(policy, good)
                    if problem is not None:
                        raise FairleadError(f"what is left of the lessons cannot be learned together: {problem}")
            if bad:
                self.quarantined += len(bad)
                self.forget(bad)
            if good:
                n = len({t.id for t, _ in good})
                answers = "1 answer" if n == 1 else f"{n} answers"
                self.publish(route, policy, f"learned from {answers}", [t.id for t, _ in good])
                self.learned += len(good)
        except Exception:
            # The wall of background learning: whatever breaks here, the last good policy serves on. The store still has the lessons,
            # and they are tried again at the next start, or, ever less often, by the `Replica` that leads.
            self.failed += len(pairs)
            log.exception("route %s: %d lessons could not be learned now", route, len(pairs))


def _learn(policy: Policy, pairs: list[tuple[Trace, Reward]]) -> str | None:
    """Teach `policy`; return what went wrong."""
    try:
        for trace, reward in pairs:
            policy.learn(trace, reward)
    except Exception as e:  # noqa: BLE001 - part of the wall of background learning; the caller logs it
        return f"{type(e).__name__}: {e}"
    return None if finite(policy.state()) else "the state is not finite"
