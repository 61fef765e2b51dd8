"""Several workers: one parent that serves nothing, and N processes that share its listening socket and, through the store, everything else.

The parent binds the socket, starts the workers and watches them. One that dies is started again, at once the first time, then after a wait that doubles.
SIGTERM and SIGINT go to all of them, which take no new connections and drain as one process does; SIGHUP goes to all, which reload. If no worker comes up at all (a config that is
wrong, say), the parent ends with the status of the first that failed.

Workers tell the parent on a pipe, a line each: ``up 2`` by worker 2 when it serves, and ``reload 2``, ``drain 2`` or ``resume 2`` when its admin API was asked for that: the
parent passes it on to the others, so that whichever worker a call reaches all of them do it. A signal goes to none that is still coming up, which it would kill: it gets it then.
A second pipe has nothing to read while the parent lives: its end tells the workers that nobody watches them any more, and they drain and end.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from socket import socket
from types import FrameType
from typing import Final

from msgspec import Struct

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 30.0
SOUND_SECONDS: Final = 10.0
"""Whoever has lived so long may be started again at once."""
UP_SECONDS: Final = 120.0
"""How long all workers together may take to come up."""


SIGNALS: Final[Mapping[str, signal.Signals]] = (
    {"reload": signal.SIGHUP, "drain": signal.SIGUSR1, "resume": signal.SIGUSR2} if hasattr(signal, "SIGHUP") else {}
)
"""What a worker is sent when another was asked for that."""


class _Worker(Struct):
    index: int
    process: subprocess.Popen[bytes]
    began: float
    up: bool = False
    stale: bool = False
    """Whether it was still coming up when the others were told to reload."""
    rest: float = FIRST_SECONDS
    due: float | None = None
    """When it is to be started again, if it has died."""


class Workers:
    """Runs and watches the workers.

    Args:
        command: of one worker, without its own arguments ``--socket FD --ready FD --parent FD --worker INDEX``.
        count: how many.
        opened: the socket that they share, bound and listening.
        grace_seconds: how long they may take to end before they are killed.
    """

    def __init__(self, command: Sequence[str], *, count: int, opened: socket, grace_seconds: float) -> None:
        self.command, self.count, self.opened, self.grace_seconds = list(command), count, opened, grace_seconds
        self.workers: list[_Worker] = []
        self.stopping = self.draining = False
        self._heard = b""
        self._ready, self._tell = os.pipe()
        self._parent, self._alive = os.pipe()
        self._wake, self._woken = os.pipe()

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until told to stop; return the status to end with. For a process that does nothing else."""
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken)
        for number in (signal.SIGTERM, signal.SIGINT, *SIGNALS.values()):
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.workers = [self._start(i) for i in range(self.count)]
        told, until = False, time.monotonic() + UP_SECONDS
        deadline: float | None = None
        while True:
            due = [w.due for w in self.workers if w.due is not None]
            waits = [d - time.monotonic() for d in (*due, *([] if deadline is None else [deadline]))]
            found, _, _ = select.select([self._ready, self._wake], [], [], max(0.0, min(waits, default=1.0)))
            if self._wake in found:
                os.read(self._wake, 1024)
            if self._ready in found:
                *lines, self._heard = (self._heard + os.read(self._ready, 1024)).split(b"\n")
                for line in lines:
                    self._hear(line.decode())
            if not told and all(w.up for w in self.workers):
                told = True
                ready()
            status = self._look(told)
            if status is not None and not self.stopping and not told:
                log.error("a worker could not start (status %d), so none is left running", status)
                self._stop(signal.SIGTERM)
                self._await()
                return status
            if not told and time.monotonic() > until:
                log.error("the workers were not up after %g s", UP_SECONDS)
                self._stop(signal.SIGTERM)
                self._await()
                return 1
            if self.stopping:
                if all(w.process.poll() is not None for w in self.workers):
                    # One that was only starting is ended by the signal itself: it had nothing to drain.
                    codes = [w.process.returncode for w in self.workers]
                    return max((abs(c) for c in codes if -c not in (signal.SIGTERM, signal.SIGINT)), default=0)
                deadline = deadline or time.monotonic() + self.grace_seconds
                if time.monotonic() > deadline:
                    log.error("a worker did not end in %g s and is killed", self.grace_seconds)
                    self._stop(signal.SIGKILL)
                    self._await()
                    return 1

    def _start(self, index: int) -> _Worker:
        fds = (self.opened.fileno(), self._tell, self._parent)
        own = ["--socket", str(fds[0]), "--ready", str(fds[1]), "--parent", str(fds[2]), "--worker", str(index)]
        process = subprocess.Popen([*self.command, *own], pass_fds=fds)
        return _Worker(index=index, process=process, began=time.monotonic())

    def _look(self, told: bool) -> int | None:
        """Start again who has died; return the status of one that has."""
        now, status = time.monotonic(), None
        for i, worker in enumerate(self.workers):
            code = worker.process.poll()
            if code is None or self.stopping:
                continue
            status = code if code > 0 else 1
            if not told:
                continue
            if worker.due is None:
                rest = FIRST_SECONDS if now - worker.began > SOUND_SECONDS else worker.rest
                log.error(
                    "worker %d (pid %d) ended with %d; it is started again in %g s", i, worker.process.pid, code, rest
                )
                worker.due, worker.rest = now + rest, min(2 * rest, MOST_SECONDS)
            elif now >= worker.due:
                self.workers[i] = self._start(i)
                self.workers[i].rest = worker.rest
        return status

    def _hear(self, line: str) -> None:
        """Do what a worker has told."""
        what, _, index = line.partition(" ")
        worker = self.workers[int(index)]
        if what == "up":
            worker.up = True
            if worker.stale:
                worker.process.send_signal(SIGNALS["reload"])
            if self.draining:
                worker.process.send_signal(SIGNALS["drain"])
        else:
            self._share(SIGNALS[what], besides=worker)

    def _share(self, number: signal.Signals, *, besides: _Worker | None = None) -> None:
        if number != SIGNALS["reload"]:
            self.draining = number == SIGNALS["drain"]
        for worker in self.workers:
            if worker is besides:
                continue
            if not worker.up:
                worker.stale |= number == SIGNALS["reload"]
            elif worker.process.poll() is None:
                worker.process.send_signal(number)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if number in SIGNALS.values():
            self._share(signal.Signals(number))
            return
        self.stopping = True
        self.opened.close()  # else the system went on taking connections that nobody answers, while the workers drain
        self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def _await(self) -> None:
        for worker in self.workers:
            try:
                worker.process.wait(self.grace_seconds)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def command() -> list[str]:
    """Return how this very program was started, without its arguments' values for one worker."""
    return [sys.executable, "-m", "fairlead.cli"]
