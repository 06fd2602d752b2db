"""The thread that works for all samplers of a process, and the one that watches over it.

The working thread starts with a call, runs the rounds of every sampler that has something to do, and ends when
none has. No sensor is trusted to answer: a second thread waits and, when an answer is overdue, takes over,
leaves that sensor out and has a new one watch. Should the answer come after all, it is used, and the thread
that had waited for it ends.
"""

from __future__ import annotations

import sys
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from aimeter._sampling.lock import is_held_here
from aimeter._sampling.source import SILENCE_S, Question, Source
from aimeter._support.clocks import time
from aimeter._support.log import logger

if TYPE_CHECKING:
    from aimeter._sampling.protocols import Served

_LONGEST_WAIT_S = 1.0


class Asking:
    """See `Worker.asking`. A class costs a third of a generator, and every reading needs one."""

    __slots__ = ("_claim", "_granted", "_question", "_worker")

    def __init__(self, worker: Worker, sampler: Served, question: Question, patience_s: float) -> None:
        self._worker, self._question = worker, question
        self._claim = (sampler, question, patience_s)
        self._granted = False

    def __enter__(self) -> bool:
        self._granted = self._worker.begin(*self._claim)
        return self._granted

    def __exit__(self, *_: object) -> None:
        if self._granted:
            self._worker.end(self._question)


class Worker:
    """See the module's description. Any thread may call any method, signal handlers and finalisers too."""

    def __init__(self) -> None:
        # Reentrant, as whatever interrupts its holder may make calls of its own.
        self._lock = threading.RLock()
        self._answered = threading.Condition(self._lock)
        self._releasing = 0
        self._serving: list[Served] = []
        self._thread: threading.Thread | None = None
        self._due_s: float | None = None
        """When the answer that the working thread waits for is overdue."""
        # Unlike an Event, this may be rung by whatever interrupts its ringing.
        self._bell: SimpleQueue[None] = SimpleQueue()

    after_fork = __init__
    """In a forked child there is only the thread that forked, and locks may be held by others for ever."""

    def serve(self, sampler: Served) -> bool:
        """Work for `sampler` until it has nothing left to do, and make it ready; False if no thread can be had."""
        if sys.is_finalizing():
            return False  # a thread started now would never run, and its starter wait for it for ever
        if self.is_held_here():
            return True  # this very method was interrupted, and goes on when its interruption is over
        with self._lock:
            try:
                if sampler not in self._serving:
                    sampler.resume()
                    self._serving.append(sampler)
                    self.ring()
                if not self.is_working():
                    self._thread = threading.Thread(target=self._work, name="aimeter", daemon=True)
                    self._thread.start()
                sampler.be_ready()
            except RuntimeError:
                self._thread = None
                sampler.warn_once("thread", "no thread can be started: calls read the sensors themselves.")
                return False
        return True

    def leave(self, sampler: Served) -> None:
        """Work for `sampler` no more."""
        with self._lock:
            if sampler in self._serving:
                self._serving.remove(sampler)
                self.ring()

    def release(self, source: Source) -> None:
        """Close a sensor that nobody will ask any more, after the answer that a thread may be waiting for."""
        with self._lock:
            patience_s = (
                SILENCE_S if source.asked_s is None else source.asked_s + SILENCE_S - time.monotonic()
            )
            self._releasing += 1
            source.abandoned = not self._answered.wait_for(lambda: source.asked_s is None, patience_s)
            self._releasing -= 1
        if not source.abandoned:
            source.close()

    def ring(self) -> None:
        """Have the next round begin now."""
        if self._bell.empty():
            self._bell.put(None)

    def is_working(self) -> bool:
        """Return whether there is a working thread."""
        return self._thread is not None and self._thread.is_alive()

    def is_here(self) -> bool:
        """Return whether the thread that asks is the working thread."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def is_held_here(self) -> bool:
        """Return whether this thread was interrupted while it held the lock."""
        return is_held_here(self._lock)

    def asking(self, sampler: Served, question: Question, patience_s: float = SILENCE_S) -> Asking:
        """Claim a question while it is being asked; False if it is not this thread's turn.

        Only one thread at a time waits for an answer: the working thread or, for a sampler without one, any
        thread that needs a figure.
        """
        return Asking(self, sampler, question, patience_s)

    def begin(self, sampler: Served, question: Question, patience_s: float) -> bool:
        """Claim a question, if it is this thread's turn."""
        with self._lock:
            mine = sampler in self._serving if self.is_here() else sampler.unattended or not self.is_working()
            granted = mine and question.asked_s is None
            if granted:
                question.asked_s = time.monotonic()
                if self.is_here():
                    self._due_s = question.asked_s + patience_s
            return granted

    def end(self, question: Question) -> None:
        """Let go of a question that was claimed."""
        with self._lock:
            question.asked_s = None
            if self.is_here():
                self._due_s = None
            if self._releasing:
                self._answered.notify_all()
        if isinstance(question, Source) and question.abandoned:
            question.close()

    def _work(self) -> None:
        try:
            watched = threading.current_thread()
            threading.Thread(target=self._watch, args=(watched,), name="aimeter-watch", daemon=True).start()
        except RuntimeError:
            logger.debug("nobody watches over the sensors: no thread can be started")
        while self.is_here():
            wait_s = _LONGEST_WAIT_S
            for sampler in list(self._serving):
                wait_s = min(wait_s, self._round(sampler))
            over = [sampler for sampler in list(self._serving) if sampler.try_stop()]
            with self._lock:
                if not self.is_here():
                    return
                # A call that came meanwhile has made its sampler ready again.
                self._serving = [one for one in self._serving if one not in over or one.ready]
                if not self._serving:
                    self._thread = None
                    return
            self._wait(wait_s)

    @staticmethod
    def _round(sampler: Served) -> float:
        try:
            return sampler.tick()
        except BaseException:
            sampler.warn_once("tick", "the sampler failed and goes on; this is a bug in aimeter.")
            logger.debug("sampler failed", exc_info=True)
            return _LONGEST_WAIT_S

    def _wait(self, seconds: float) -> None:
        try:
            self._bell.get(timeout=seconds)
        except Empty:
            return

    def _watch(self, watched: threading.Thread) -> None:
        """Take over from a thread whose sensor does not answer, or that something has killed.

        Whatever else keeps it, queues are bounded.
        """
        while True:
            time.sleep(SILENCE_S / 4)
            with self._lock:
                if self._thread is not watched:
                    return
                for sampler in self._serving:
                    sampler.intake.watch()
                overdue = self._due_s is not None and time.monotonic() >= self._due_s
                if overdue or not watched.is_alive():
                    self._thread, self._due_s = threading.current_thread(), None
                    self._thread.name = watched.name
                    break
        self._work()
