"""Garbage is gone at once, whatever other threads do."""

from __future__ import annotations

import gc
import os
import threading

OLDEST = 2  # generation


def collect() -> None:
    """A whole collection: `gc.collect()` alone returns at once, with nothing done, while another thread is in one."""
    me, done = threading.get_ident(), False

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal done
        done |= phase == "stop" and info["generation"] == OLDEST and threading.get_ident() == me

    gc.callbacks.append(note)
    try:
        while not done:
            gc.collect()
            if not done:
                os.sched_yield()
    finally:
        gc.callbacks.remove(note)
