"""Judges by keyboard in a browser: 20 pairs, a reload, a server that is killed under the page, hostile texts.

    python tests/reference/review.py target/release/kiln [--screenshots DIR]

Needs playwright and Chromium. Starts kiln itself, in a temporary folder.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from playwright.sync_api import sync_playwright

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("kiln")
ap.add_argument("--browser", default=shutil.which("chromium"))
ap.add_argument("--screenshots")
a = ap.parse_args()

HOSTILE = ["<script>hit()</script>", "<img src=x onerror=hit()>", "</p><svg onload=hit()>", "{{hit()}}", "<style>*{display:none}</style>"]
TURNS = 20
dir = tempfile.mkdtemp()
with open(f"{dir}/pairs.jsonl", "w") as out:
    for i in range(TURNS):
        prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {i}: {HOSTILE[i % 5]}"}]
        pair = {"prompt": prompt, "a": f"alpha {i}\n\n{HOSTILE[i % 5]}", "b": f"beta {i}, " + "and so on, " * (5 * i), "reference": f"{i}"}
        out.write(json.dumps(pair) + "\n")


def start(port):
    """The program and the page's address; the token stays the same, so that an open page goes on."""
    call = [os.path.abspath(a.kiln), "review", "--answers", "pairs.jsonl", "--out", "r", "--port", str(port), "--json"]
    process = subprocess.Popen(call, cwd=dir, stdout=subprocess.PIPE, env={**os.environ, "KILN_TOKEN": "s3cret"})
    return process, json.loads(process.stdout.readline())


def until(page, what, seconds=30):
    """Waits until an expression holds: by asking, since the page's policy lets nothing be evaluated in it."""
    end = time.time() + seconds
    while not page.evaluate(what):
        assert time.time() < end, what
        time.sleep(0.005)


def lines(name):
    with open(f"{dir}/r/{name}") as text:
        return [json.loads(line) for line in text]


def done(page, n):
    until(page, f"document.querySelector('#done').value === {n} && !document.body.hasAttribute('aria-busy')")


with sync_playwright() as p:
    process, said = start(0)
    port = int(said["url"].rstrip("/").rsplit(":", 1)[1])
    browser = p.chromium.launch(executable_path=a.browser, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    trouble = []
    page.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if said.type == "error" and "ERR_" not in said.text else None)
    page.add_init_script("window.hits = 0; window.hit = () => { window.hits += 1 };")
    page.goto(said["page"])
    assert "s3cret" not in page.url, page.url

    # Nothing but keys from here on.
    page.keyboard.type("Anna <b>")
    page.keyboard.press("Enter")
    until(page, "!document.querySelector('#work').hidden")
    wanted = []

    def turn(i):
        """Prefers the second model, but for a tie, a pair that is bad, and four that it loses."""
        first = page.text_content("#answers > section:first-child > p")
        assert page.evaluate("document.querySelectorAll('#answers *, #prompt *').length") == 6 + 4, "texts became elements"
        side = "1" if first.startswith("beta") else "2"
        other = "2" if side == "1" else "1"
        key, verdict = {3: ("0", "tie"), 7: ("b", "bad")}.get(i, (other, "a") if i % 5 == 4 else (side, "b"))
        note = f"note {i} \"<i>\"" if i % 4 == 0 else ""
        if note:
            page.keyboard.press("n")
            page.keyboard.type(note)
            if i == 8:
                # What is not yet judged outlives a reload, too.
                page.reload()
                until(page, "document.querySelector('#note').value !== ''")
            else:
                page.keyboard.press("Escape")
        page.keyboard.press(key)
        wanted.append((verdict, note))

    for i in range(TURNS):
        turn(i)
        done(page, i + 1)
        if i == 5:
            page.keyboard.press("u")
            done(page, 5)
            page.keyboard.press("1")
            done(page, 6)
            page.keyboard.press("u")
            done(page, 5)
            wanted.pop()
            turn(5)
            done(page, 6)
        if i == 11:
            if a.screenshots:
                for width in (1280, 400):
                    for scheme in ("light", "dark"):
                        page.emulate_media(color_scheme=scheme)
                        page.set_viewport_size({"width": width, "height": 800})
                        page.screenshot(path=f"{a.screenshots}/review-{width}-{scheme}.png")
                        wide = page.evaluate("document.documentElement.scrollWidth")
                        assert wide <= width, f"{wide} pixels on {width}"
                page.emulate_media(color_scheme="light")
                page.set_viewport_size({"width": 1280, "height": 800})
            page.reload()
            done(page, 12)
        if i == 14:
            # Killed while the page is open; a judgement that is made meanwhile is kept until it is back.
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert len([line for line in lines("judgements.jsonl") if "verdict" in line]) == 15 + 2
            turn(15)
            until(page, "!document.querySelector('#trouble').hidden")
            process, _ = start(port)
            done(page, 16)
            break
    for i in range(16, TURNS):
        turn(i)
        done(page, i + 1)
    until(page, "!document.querySelector('#over').hidden")
    assert page.evaluate("window.hits") == 0 and not trouble, trouble

    standing = {}
    for line in lines("judgements.jsonl"):
        standing[line["item"]] = None if line.get("undone") else (line["verdict"], line.get("note", ""))
        assert line["reviewer"] == "Anna <b>", line
    found = [standing[i] for i in range(TURNS)]
    assert found == wanted, (found, wanted)
    pairs = lines("preferences.jsonl")
    decided = [i for i in range(TURNS) if wanted[i][0] in "ab"]
    items = lines("items.jsonl")
    assert len(pairs) == len(decided), (len(pairs), decided)
    for i, pair in zip(decided, pairs):
        chosen = items[i][wanted[i][0]]
        assert pair["prompt"] == items[i]["prompt"] and pair["chosen"] == [{"role": "assistant", "content": chosen}], pair

    # A second reviewer has their own beginning; without the token nobody has anything.
    other = browser.new_context().new_page()
    other.goto(f"{said['url']}?reviewer=bo#token=s3cret")
    done(other, 0)
    stranger = browser.new_context().new_page()
    stranger.goto(f"{said['url']}?reviewer=anna")
    until(stranger, "!document.querySelector('#trouble').hidden")
    assert "alpha" not in stranger.content() and stranger.evaluate("document.querySelector('#work').hidden")

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    summary = json.loads(out.decode().strip().splitlines()[-1])
    print("\n".join(summary["sentences"]))
    assert process.returncode == 130 and summary["judgements"] == TURNS, summary
    print(f"{TURNS} judgements by keyboard, a reload, a kill: nothing lost, nothing ran, {len(pairs)} pairs")
    browser.close()
shutil.rmtree(dir)
