"""Many requests at once to a running `kiln serve`: each is answered with its own text or refused with 429, none is lost.

    load.py URL TOKEN [--requests 500] [--waves 3] [--pid PID]

URL as http://127.0.0.1:8080, on this machine only. Each wave sends its requests at once, each over a connection of its own, a
third of them streamed; prompts differ in text and length, and the answer has to begin with its own prompt (`echo`). With --pid
the server's resident memory is printed after each wave: it must not grow from wave to wave.
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import time
import urllib.parse

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("url")
ap.add_argument("token")
ap.add_argument("--requests", type=int, default=500)
ap.add_argument("--waves", type=int, default=3)
ap.add_argument("--pid", type=int)
a = ap.parse_args()
host = urllib.parse.urlparse(a.url).netloc
assert host.split(":")[0] in ("127.0.0.1", "localhost"), "this machine only"
assert a.requests <= 2000 and a.waves <= 10


def one(i):
    prompt = f"Request {i} counts {'and counts ' * (i % 23)}to"
    ask = dict(prompt=prompt, max_tokens=1 + i % 5, echo=True, seed=i, stream=i % 3 == 0)
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(ask),
                       {"Content-Type": "application/json", "Authorization": f"Bearer {a.token}"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status == 429:
        return "refused"
    assert response.status == 200, text
    if ask["stream"]:
        events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
        assert events.pop() == "[DONE]", text
        said = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    else:
        said = json.loads(text)["choices"][0]["text"]
    assert said.startswith(prompt), (prompt, said)
    return "answered"


def memory():
    with open(f"/proc/{a.pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


for wave in range(a.waves):
    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(a.requests) as pool:
        counts = collections.Counter(pool.map(one, range(wave * a.requests, (wave + 1) * a.requests)))
    line = dict(wave=wave + 1, **counts, seconds=round(time.time() - start, 1))
    if a.pid:
        line["resident_mb"] = memory()
    print(json.dumps(line))
    assert counts.total() == a.requests
