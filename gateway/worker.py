"""A worker process: takes functions over a pipe, one at a time, and gives back what they return. The other end of
`gateway.workers`; nothing but the standard library until a job brings its own imports.

It reads what strangers wrote (bodies, images, keys), so it is expected to hang, to eat memory and to crash. It has a
ceiling on its address space, is the kernel's first choice when memory runs out, gives way to the daemon's threads,
knows nothing of the daemon's environment and files, and dies with the daemon whatever it is doing at that moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import sys
import traceback
from typing import Any, BinaryIO, Final

# A job is (function, arguments). An answer is one of these words with (value,) or (exception, traceback text).
READY: Final = "ready"
DONE: Final = "done"
FAILED: Final = "failed"
UNREAD: Final = "unread"  # the job could not be read, and neither can what follows it: the process ends

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_NICENESS: Final = 5
_OOM_SCORE: Final = 700  # of 1000


def serve(daemon_pid: int, memory_bytes: int) -> None:
    """Answer jobs until the daemon closes the pipe or is gone."""
    _die_with(daemon_pid)
    # Ctrl-C and a service manager's SIGTERM go to the whole group; it is the daemon that decides when we are done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    jobs, answers = _take_over_standard_streams()
    _limit(memory_bytes)
    _say(answers, (READY, None, ""))
    while True:
        try:
            function, arguments = pickle.load(jobs)
        except EOFError:
            return  # the daemon has no more for us
        except Exception as error:  # out of memory, or a name we cannot import: the rest of the stream is lost to us
            _say(answers, _failure(error, UNREAD))
            return
        try:
            answer: tuple[str, Any, str] = (DONE, function(*arguments), "")
        except Exception as error:
            answer = _failure(error)
        _say(answers, answer)
        del function, arguments, answer  # a large message is not kept until the next one comes


def _failure(error: Exception, word: str = FAILED) -> tuple[str, Exception, str]:
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # many exceptions can be written but not made again from what was written
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return word, error, trace


def _say(answers: BinaryIO, answer: tuple[str, Any, str]) -> None:
    """Write one answer; what cannot be pickled is told as an error, not half written."""
    try:
        # Once for nobody, to see that it can be done: a pickle in memory would be one more copy of a large message
        pickle.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(answer)
    except MemoryError as error:
        answer = _failure(error)
    except Exception as error:
        answer = _failure(TypeError(f"the answer cannot be carried back: {error}"))
    pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


class _Nowhere:
    """Takes everything and keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def _take_over_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipe's two ends, and leave stdin empty and stdout with stderr: a print must not break the stream."""
    jobs = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return jobs, answers


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a customer's mail
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(_OOM_SCORE))


def _die_with(daemon_pid: int) -> None:
    """Have the kernel kill us when the daemon goes, even in the middle of a loop that never looks at its pipe.

    The signal comes when the *thread* that started us ends; the pool keeps its threads for as long as its workers.
    """
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than Linux: the end of the pipe has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon_pid:  # it went before we asked
        os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
