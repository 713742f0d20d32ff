"""What every peer script shares: the thread count before torch is imported, JSON lines, peak memory."""
import json
import math
import os
import resource
import statistics
import sys
import time

KEEP_MEMORY = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
               "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456")


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


def repeated(call, lap=0.02):
    """A repetition out of as many calls as last `lap` seconds -> mean seconds of each part. `call()` gives the seconds of its
    parts by their keys. Short calls are preceded by one that does not count. As kiln's src/bench/mod.rs does it."""
    call()
    n = max(1, math.ceil(lap / max(sum(call().values()), 1e-9)))

    def repetition():
        if n > 1:
            call()
        total = call()
        for _ in range(n - 1):
            for key, seconds in call().items():
                total[key] += seconds
        return {key: seconds / n for key, seconds in total.items()}
    return repetition
