// @ts-check
/** The test page: it connects, subscribes, sends, shows every message, and answers pings. */

const MOST_LINES = 500;

/** @template {HTMLElement} T @type {(id: string, kind: new () => T) => T} */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${kind.name} #${id}`);
  return found;
}

const url = element("url", HTMLInputElement);
const token = element("token", HTMLInputElement);
const channel = element("channel", HTMLInputElement);
const message = element("message", HTMLTextAreaElement);
const answersPings = element("pong", HTMLInputElement);
const state = element("state", HTMLElement);
const log = element("log", HTMLOListElement);
const subscriptions = element("subscriptions", HTMLElement);
const connectButton = element("connect", HTMLButtonElement);
const disconnectButton = element("disconnect", HTMLButtonElement);

/** @type {WebSocket | null} */
let socket = null;

/** @type {(kind: "sent" | "received" | "state", text: string) => void} */
function show(kind, text) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  line.className = kind;
  line.append(time, { sent: "→ ", received: "← ", state: "" }[kind] + text);
  log.append(line);
  while (log.childElementCount > MOST_LINES) log.firstElementChild?.remove();
  line.scrollIntoView({ block: "nearest" });
}

/** @type {(isOpen: boolean, text: string) => void} */
function become(isOpen, text) {
  state.textContent = text;
  connectButton.disabled = isOpen;
  disconnectButton.disabled = !isOpen;
  if (!isOpen) subscriptions.replaceChildren();
}

/** @type {(text: string) => void} */
function send(text) {
  if (socket?.readyState !== WebSocket.OPEN) return show("state", "not connected: nothing was sent");
  socket.send(text);
  show("sent", text);
}

function connect() {
  const address = new URL(url.value);
  if (token.value) address.searchParams.set("token", token.value);
  const opened = new WebSocket(address);
  socket = opened;
  become(true, "Connecting");
  opened.onopen = () => become(true, "Connected");
  opened.onclose = ({ code, reason }) => {
    if (socket !== opened) return;
    socket = null;
    become(false, "Disconnected");
    show("state", `closed: ${code} ${reason}`);
  };
  opened.onmessage = ({ data }) => receive(data);
}

/** @type {(text: string) => void} */
function receive(text) {
  show("received", text);
  const frame = JSON.parse(text);
  if (frame.type === "ping" && answersPings.checked) send('{"type":"pong"}');
  if (frame.type === "subscribed") list(frame.channel);
  if (frame.type === "unsubscribed") subscribed(frame.channel)?.remove();
}

/** @type {(name: string) => HTMLElement | undefined} */
const subscribed = (name) =>
  [...subscriptions.querySelectorAll("button")].find((one) => one.dataset.channel === name);

/** @type {(name: string) => void} */
function list(name) {
  if (subscribed(name)) return;
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.channel = name;
  button.textContent = `${name} ×`;
  button.title = `Unsubscribe from ${name}`;
  button.onclick = () => send(JSON.stringify({ type: "unsubscribe", channel: name }));
  subscriptions.append(button, " ");
}

/** @type {(form: string, submit: () => void) => void} */
function onSubmit(form, submit) {
  element(form, HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

// Behind a proxy both may be below a path.
url.value = new URL("../ws/connect", location.href).href.replace(/^http/, "ws");
onSubmit("connection", connect);
onSubmit("subscription", () => send(JSON.stringify({ type: "subscribe", channel: channel.value })));
onSubmit("custom", () => send(message.value));
disconnectButton.onclick = () => socket?.close();
element("clear", HTMLButtonElement).onclick = () => log.replaceChildren();
