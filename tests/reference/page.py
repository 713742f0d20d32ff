"""The chat page of a running `kiln serve` in a real browser: what people and the model say stays text.

    page.py URL [--browser chromium] [--screenshot FILE.png]

URL is what `kiln serve` prints, token and all. Needs `pip install playwright` and a Chromium. 200 strings that would run a
script where they were read as HTML are said by a person and, by answers put in the server's place, by the model; afterwards
the page must hold nothing but its own elements, and no script but its own may have run. Then a real answer is asked for.
"""
import argparse
import json
import shutil
import time

from playwright.sync_api import sync_playwright

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("url")
ap.add_argument("--browser", default=shutil.which("chromium"))
ap.add_argument("--screenshot")
ap.add_argument("--width", type=int, default=900)
a = ap.parse_args()

SHAPES = [
    "<script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    "<svg><script>{}</script></svg>",
    "<iframe srcdoc='<script>parent.{}</script>'></iframe>",
    "<a href=javascript:{}>x</a>",
    "<body onload={}>",
    "<input autofocus onfocus={}>",
    "<details open ontoggle={}>",
    "<video><source onerror={}></video>",
    "<math><mtext></mtext><script>{}</script></math>",
    "</p><script>{}</script>",
    "\"><script>{}</script>",
    "'-{}-'",
    "${{{}}}",
    "{{{{{}}}}}",
    "<style>@import 'javascript:{}'</style>",
    "<object data=javascript:{}></object>",
    "<template><script>{}</script></template>",
    "data: {{\"choices\":[]}}\n\n<script>{}</script>",
]
CALLS = ["hit()", "window.hit()", "top.hit()", "hit`1`", "eval('hit()')", "setTimeout('hit()')", "[1].map(hit)",
         "fetch('/x').then(hit)", "Function('hit()')()", "location='javascript:hit()'"]
strings = [shape.format(call) for shape in SHAPES for call in CALLS]
assert len(set(strings)) == 200, len(set(strings))



def until(page, what, seconds=120):
    """Waits until an expression holds: by asking, since the page's policy lets nothing be evaluated in it."""
    end = time.time() + seconds
    while not page.evaluate(what):
        assert time.time() < end, what
        time.sleep(0.005)


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=a.browser, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": a.width, "height": 700})
    trouble = []
    page.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.add_init_script("window.hits = 0; window.hit = () => { window.hits += 1 };")
    page.goto(a.url)
    until(page, "document.querySelector('#model').textContent !== ''")
    assert "token" not in page.url, "the token stays in the address"

    answer = {"text": ""}

    def stream(route):
        events = [{"choices": [{"index": 0, "delta": {"content": answer["text"]}}]}]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/chat/completions", stream)
    for text in strings:
        answer["text"] = text
        page.fill("#say", text)
        page.press("#say", "Enter")
        until(page, "document.querySelector('#send').textContent === 'Send' && document.querySelector('#turns > :last-child')?.className === 'assistant'")
        shown = page.eval_on_selector_all("#turns > article > p", "all => all.slice(-2).map(p => p.textContent)")
        assert shown == [text.strip(), text], (text, shown)
    found = page.evaluate("""() => ({
        hits: window.hits,
        tags: [...new Set([...document.querySelectorAll('#turns *')].map(e => e.tagName))].sort(),
        scripts: document.scripts.length,
    })""")
    assert found["hits"] == 0 and not trouble, (found, trouble)
    assert set(found["tags"]) <= {"ARTICLE", "P", "DIV", "BUTTON"}, found
    assert found["scripts"] == 1, found
    print(f"{len(strings)} strings, twice each: shown as they are, nothing ran, elements {found['tags']}")

    page.unroute("**/v1/chat/completions")
    page.click("#fresh")
    page.fill("#say", "What is the capital of France?")
    page.press("#say", "Enter")
    until(page, "document.querySelector('#turns > article.assistant') && document.querySelector('#send').textContent === 'Send'")
    said = page.text_content("#turns > article.assistant > p")
    assert said, page.text_content("#trouble")
    print("asked what the capital of France is, it says:", said)
    if page.query_selector(".thumbs button"):
        page.click(".thumbs button >> nth=0")
        until(page, "document.querySelector('.thumbs button').getAttribute('aria-pressed') === 'true'")
        print("a thumb was taken")
    if a.screenshot:
        page.screenshot(path=a.screenshot)
    assert not trouble, trouble
    browser.close()
