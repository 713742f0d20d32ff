"use strict";
// Whatever is said here is shown by textContent alone: it is never read as HTML.

const $ = (id) => document.getElementById(id);
const messages = [];
let model = { chat: true, feedback: false };
let running = null;

// The token comes behind the # of the address, which is sent nowhere, and is then taken out of it.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}

const headers = () => {
  const token = sessionStorage.getItem("token");
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
};

const trouble = (text) => {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
};

const problem = async (response) => {
  const said = await response.json().catch(() => null);
  return said?.error?.message ?? `the server answered ${response.status}`;
};

const show = (role, text) => {
  const turn = document.createElement("article");
  turn.className = role;
  const said = document.createElement("p");
  said.textContent = text;
  turn.append(said);
  $("turns").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
};

const thumbs = (turn, before, answer) => {
  if (!model.feedback || !model.chat) return;
  const row = document.createElement("div");
  row.className = "thumbs";
  for (const [sign, name, good] of [["good", "This answer is good", true], ["bad", "This answer is bad", false]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.title = name;
    button.setAttribute("aria-pressed", "false");
    button.onclick = async () => {
      const body = JSON.stringify({ messages: before, answer, good });
      const response = await fetch("/v1/feedback", { method: "POST", headers: headers(), body }).catch(() => null);
      if (!response?.ok) return trouble(response ? await problem(response) : "the server does not answer");
      row.querySelectorAll("button").forEach((other) => {
        other.setAttribute("aria-pressed", String(other === button));
        other.disabled = true;
      });
    };
    row.append(button);
  }
  turn.append(row);
};

// Calls `take` with each event of a streamed answer.
const listen = async (response, take) => {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data !== "[DONE]") take(JSON.parse(data));
    }
  }
};

const conversation = () => {
  const system = $("system").value.trim();
  return [...(system ? [{ role: "system", content: system }] : []), ...messages];
};

const ask = async (text) => {
  trouble("");
  messages.push({ role: "user", content: text });
  show("user", text);
  const before = conversation();
  const turn = show("assistant", "");
  turn.classList.add("writing");
  const said = turn.firstChild;
  running = new AbortController();
  $("send").textContent = "Stop";
  let answer = "";
  try {
    const rules = { stream: true, temperature: Number($("temperature").value), max_tokens: Number($("tokens").value) };
    const [path, what] = model.chat
      ? ["/v1/chat/completions", { messages: before }]
      : ["/v1/completions", { prompt: messages.map((message) => message.content).join("") }];
    const response = await fetch(path, {
      method: "POST", headers: headers(), body: JSON.stringify({ ...what, ...rules }), signal: running.signal,
    });
    if (!response.ok) throw new Error(await problem(response));
    await listen(response, (event) => {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      answer += choice?.delta?.content ?? choice?.text ?? "";
      said.textContent = answer;
      turn.scrollIntoView({ block: "end" });
    });
  } catch (error) {
    if (error.name !== "AbortError") trouble(error.message);
  }
  running = null;
  $("send").textContent = "Send";
  turn.classList.remove("writing");
  if (answer) {
    messages.push({ role: "assistant", content: answer });
    thumbs(turn, before, answer);
  } else {
    turn.remove();
  }
};

$("ask").onsubmit = (event) => {
  event.preventDefault();
  if (running) return running.abort();
  const text = model.chat ? $("say").value.trim() : $("say").value;
  if (!text) return;
  $("say").value = "";
  ask(text);
};

$("say").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!running) $("ask").requestSubmit();
  }
};

document.onkeydown = (event) => {
  if (event.key === "Escape" && running) running.abort();
};

$("fresh").onclick = () => {
  running?.abort();
  messages.length = 0;
  $("turns").replaceChildren();
  trouble("");
  $("say").focus();
};

const start = async () => {
  const response = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  if (!response) return trouble("the server does not answer");
  if (!response.ok) return trouble(await problem(response));
  model = (await response.json()).data[0];
  $("model").textContent = model.chat ? model.id : `${model.id} (goes on with what you write; it knows no conversations)`;
};
start();
