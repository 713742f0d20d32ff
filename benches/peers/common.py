"""What every peer script shares: the thread count before torch is imported, JSON lines, peak memory."""
import json
import os
import resource
import statistics
import sys
import time

KEEP_MEMORY = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
               "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456")


def set_threads(n):
    """Fix the thread count. Call it before `import torch`: OpenMP reads its variables when it is loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
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
    until_idle()
    emit(ready=True, **ready)
    for _ in sys.stdin:
        record = repetition()
        until_idle()
        emit(**record, peak_rss_mb=peak_rss_mb())
