"""What every peer script shares: the thread count before torch is imported, JSON lines, peak memory."""
import contextlib
import json
import math
import os
import resource
import statistics
import sys
import time

KEEP_MEMORY = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
               "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456")


def add_device(parser):
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="what computes")


def set_threads(n):
    """Fix the thread count. Call it before `import torch`: OpenMP reads its variables when it is loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = str(n)


def keep_memory():
    """Start this program again with glibc told to keep freed memory and to ask for huge pages."""
    if os.environ.get("GLIBC_TUNABLES") != KEEP_MEMORY:
        os.execve(sys.executable, [sys.executable, *sys.argv], dict(os.environ, GLIBC_TUNABLES=KEEP_MEMORY))


def peak_rss_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def emit(**record):
    print(json.dumps(record), flush=True)


def spread(values):
    return dict(median=statistics.median(values), min=min(values), max=max(values), n=len(values))


def until_idle(limit=0.5, slice=0.005):
    """Return once this process's worker threads sleep (they spin for a while after the last parallel region)."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(slice)
        if time.process_time() - before < slice / 10:
            return


def serve(repetition, **ready):
    """Say that we are ready, then run one repetition for each line of standard input. See README.md."""
    serve_cases(lambda case: repetition, repetition, **ready)


def serve_cases(make, repetition=None, **ready):
    """As `serve`; a line that holds a case makes `make(case)` the repetition from then on, which may raise NotImplementedError."""
    until_idle()
    emit(ready=True, **ready)
    for line in sys.stdin:
        if line.strip():
            repetition = None  # lets go of the memory of the case before
            try:
                repetition = make(json.loads(line))
                record = repetition()
            except NotImplementedError as e:
                record = dict(skip=str(e))
        else:
            record = repetition()
        until_idle()
        emit(**record, peak_rss_mb=peak_rss_mb())


class Clock:
    """Sums the seconds of parts: by the host's clock, or on a GPU, where calls return early, by marks in its queue."""

    def __init__(self, device="cpu"):
        self.cuda, self.seconds, self.marks = device == "cuda", {}, []

    @contextlib.contextmanager
    def part(self, key):
        if self.cuda:
            import torch
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self.marks.append((key, start, end))
        else:
            start = time.perf_counter()
            yield
            self.add(key, time.perf_counter() - start)

    def add(self, key, seconds):
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds

    def take(self):
        """The seconds of each part since this was called last; waits for the GPU."""
        for key, start, end in self.marks:
            end.synchronize()
            self.add(key, start.elapsed_time(end) / 1e3)
        seconds, self.seconds, self.marks = self.seconds, {}, []
        return seconds


def repeated(call, device="cpu", lap=0.02):
    """A repetition out of as many calls as last `lap` seconds -> mean seconds of each part. `call(clock)` has the clock time
    its parts. Short calls are preceded by one that does not count. As kiln's src/bench/clock.rs does it."""
    clock = Clock(device)

    def calls(n):
        for _ in range(n):
            call(clock)
        return clock.take()
    calls(1)
    n = max(1, math.ceil(lap / max(sum(calls(1).values()), 1e-9)))
    n = min(n, 1000) if clock.cuda else n

    def repetition():
        if n > 1:
            calls(1)
        return {key: seconds / n for key, seconds in calls(n).items()}
    return repetition
