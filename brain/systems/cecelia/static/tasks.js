// @ts-check
/**
 * The live page. `/ws` sends changes; `/api/brain/tasks` lists the present tasks, with fields that no
 * message has: title, number of steps, name of the current step.
 */

/**
 * A task as the server lists it. One known from a message alone has no title.
 * @typedef {object} Task
 * @property {string} id
 * @property {string | null} [title]
 * @property {string | null} agent
 * @property {string} status
 * @property {number | null} progress
 * @property {unknown} [total_steps] whatever the payload holds
 * @property {unknown} [step_name] whatever the payload holds
 * @property {string | null} started_at
 * @property {string | null} completed_at
 * @property {string | null} error
 * @property {boolean} [isPartial] whether the list may know more about it
 */

/** @typedef {{ type: string, data: any }} Message */
/** @typedef {"Connecting" | "Live" | "Reconnecting" | "Offline"} State */

/**
 * @typedef {object} Handlers
 * @property {(signal: AbortSignal) => void} onConnected the signal ends with the connection
 * @property {(message: Message) => void} onMessage
 * @property {(state: State, retryAt?: number) => void} onState
 */

// Where Brain asks for tokens, the page is opened with one.
const token = new URLSearchParams(location.search).get("token");
const credentials = token === null ? "" : `?token=${encodeURIComponent(token)}`;

const MOST_TASKS = 200;
const FIRST_DELAY_MILLISECONDS = 500;
const LONGEST_DELAY_MILLISECONDS = 10_000;
const ANSWER_MILLISECONDS = 10_000;
const PAUSE_MILLISECONDS = 500;
const STATUS_WORDS = new Map([
  ["in_progress", "In progress"],
  ["queued", "Queued"],
  ["failed", "Failed"],
  ["completed", "Completed"],
]);

// What the tasks are. A task keeps its place whatever happens to it, and new ones come first: rows
// that change places cannot be watched.

/** @type {(tasks: readonly Task[], listed: Task[]) => readonly Task[]} */
function replaceTasks(tasks, listed) {
  const replacements = new Map(listed.map((task) => [task.id, task]));
  const known = new Set(tasks.map(({ id }) => id));
  return [
    ...listed.filter(({ id }) => !known.has(id)),
    ...tasks.flatMap(({ id }) => replacements.get(id) ?? []),
  ];
}

/** @type {(tasks: readonly Task[], message: Message) => readonly Task[]} */
function applyMessage(tasks, { type, data }) {
  switch (type) {
    case "run_update":
    case "run_complete":
    case "run_failed":
      return applyRun(tasks, data);
    case "run_deleted":
      return tasks.filter(({ id }) => id !== data.id);
    case "run_truncated":
      return [];
    default:
      return tasks;
  }
}

/** @type {(tasks: readonly Task[], run: Task) => readonly Task[]} */
function applyRun(tasks, run) {
  const known = tasks.find(({ id }) => id === run.id);
  if (!known) return [{ ...run, isPartial: true }, ...tasks].slice(0, MOST_TASKS);
  // The payload is usually written along with these two, and no message has it.
  const hasMoved = known.progress !== run.progress || known.status !== run.status;
  const changed = { ...known, ...run, isPartial: known.isPartial || hasMoved };
  return tasks.map((task) => (task === known ? changed : task));
}

// What is shown of them.

/** @type {(task: Task) => string} */
const statusOf = ({ status }) => (status === "running" ? "in_progress" : status);

/** @param {Task} task */
function present(task) {
  const status = statusOf(task);
  const progress = task.progress ?? 0;
  const step = status !== "completed" && typeof task.step_name === "string" && task.step_name;
  const moment = task.completed_at
    ? formatMoment("completed", task.completed_at)
    : formatMoment("started", task.started_at);
  return {
    status,
    fraction: fractionOf(status, progress, task.total_steps),
    texts: {
      title: task.title || task.id,
      status: STATUS_WORDS.get(status) ?? status,
      about: [task.title && task.id, task.agent, step, moment].filter(Boolean).join(" · "),
      steps: formatSteps(status, progress, task.total_steps),
      error: (status === "failed" && task.error) || "",
    },
  };
}

/** @type {(total: unknown) => total is number} */
const isCount = (total) => typeof total === "number" && total > 0;

/** @type {(status: string, progress: number, total: unknown) => number | null} */
function fractionOf(status, progress, total) {
  if (status === "completed") return 1;
  if (isCount(total)) return Math.min(progress / total, 1);
  return status === "queued" ? 0 : null;
}

/** @type {(status: string, progress: number, total: unknown) => string} */
function formatSteps(status, progress, total) {
  const [done, all] = [progress, total].map((count) => count?.toLocaleString());
  if (isCount(total) && status !== "completed") return `${done} of ${all}`;
  return progress > 0 ? `${done} ${progress === 1 ? "step" : "steps"}` : "";
}

/** @type {(event: string, timestamp: string | null) => string} */
function formatMoment(event, timestamp) {
  const moment = new Date(timestamp ?? NaN);
  if (Number.isNaN(moment.getTime())) return "";
  const isToday = moment.toDateString() === new Date().toDateString();
  const dateStyle = isToday ? undefined : "medium";
  return `${event} ${moment.toLocaleString(undefined, { dateStyle, timeStyle: "short" })}`;
}

/** @type {(tasks: readonly Task[]) => string} */
function summarise(tasks) {
  const counts = [...STATUS_WORDS].map(([status, word]) => {
    const count = tasks.filter((task) => statusOf(task) === status).length;
    return count && `${count} ${word.toLowerCase()}`;
  });
  return counts.filter(Boolean).join(", ");
}

/** @type {<T extends Element = HTMLElement>(selector: string, within?: ParentNode) => T} */
function find(selector, within = document) {
  return /** @type {any} */ (within.querySelector(selector));
}

/** @type {(element: Element, text: string) => void} */
function setText(element, text) {
  // Setting a text to what it is would make a screen reader say it again.
  if (element.textContent !== text) element.textContent = text;
}

/** @type {(row: HTMLElement, task: Task) => void} */
function fillRow(row, task) {
  const { status, fraction, texts } = present(task);
  row.dataset.status = status;
  for (const [name, text] of Object.entries(texts)) setText(find(`.${name}`, row), text);
  const bar = /** @type {HTMLProgressElement} */ (find("progress", row));
  // In progress without a number of steps: an indeterminate bar.
  bar.hidden = fraction === null && status !== "in_progress";
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
  bar.ariaLabel = `Progress of ${texts.title}`;
  bar.ariaValueText = texts.steps || null;
}

/** @type {(row: HTMLElement) => void} */
function highlight(row) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const animation of row.getAnimations()) animation.cancel();
  const easing = isStill ? "step-end" : "ease-out";
  row.animate({ backgroundColor: ["var(--fresh)", "transparent"] }, { duration: 1600, easing });
}

/** @returns {(tasks: readonly Task[]) => void} */
function createDrawing() {
  const list = find("#tasks");
  const template = /** @type {HTMLTemplateElement} */ (find("#task"));
  /** @type {Map<string, HTMLElement>} */
  const rows = new Map();
  /** @type {Map<string, Task> | undefined} */
  let drawn;

  /** @param {string} id */
  function addRow(id) {
    const row = document.importNode(find("li", template.content), true);
    rows.set(id, row);
    return row;
  }

  return (tasks) => {
    const before = drawn;
    drawn = new Map(tasks.map((task) => [task.id, task]));
    for (const [id, row] of rows) {
      if (!drawn.has(id) && rows.delete(id)) row.remove();
    }
    tasks.forEach((task, position) => {
      const row = rows.get(task.id) ?? addRow(task.id);
      const occupant = list.children[position] ?? null;
      if (occupant !== row) list.insertBefore(row, occupant);
      const last = before?.get(task.id);
      if (last === task) return;
      fillRow(row, task);
      const looksTheSame = last && JSON.stringify(present(last)) === JSON.stringify(present(task));
      if (before && !looksTheSame) highlight(row);
    });
    list.hidden = tasks.length === 0;
    find("#empty").hidden = tasks.length > 0;
    setText(find("#summary"), summarise(tasks));
  };
}

/** @returns {Handlers["onState"]} */
function createStateDisplay() {
  /** @type {number | undefined} */
  let timer;
  return (state, retryAt = 0) => {
    const count = () => {
      const seconds = Math.ceil((retryAt - Date.now()) / 1000);
      setText(find("#countdown"), seconds > 0 ? `in ${seconds} s` : "");
    };
    find("#connection").dataset.state = state;
    setText(find("#state"), state);
    clearInterval(timer);
    count();
    if (retryAt) timer = setInterval(count, 250);
  };
}

// The connection, and what is read over it.

/** @type {(failures: number) => number} */
function backoff(failures) {
  const ceiling = FIRST_DELAY_MILLISECONDS * 2 ** failures;
  return Math.random() * Math.min(ceiling, LONGEST_DELAY_MILLISECONDS);
}

/** @type {(address: string, handlers: Handlers) => void} */
function keepConnected(address, { onConnected, onMessage, onState }) {
  let attempt = new AbortController();
  let failures = 0;
  let isLive = false;
  /** @type {number | undefined} */
  let timer;

  function connect() {
    end();
    attempt = new AbortController();
    const { signal } = attempt;
    const socket = new WebSocket(address);
    signal.addEventListener("abort", () => socket.close());
    socket.addEventListener("close", retryLater, { signal });
    socket.addEventListener("message", ({ data }) => receive(socket, JSON.parse(data), signal), { signal });
    timer = setTimeout(retryLater, ANSWER_MILLISECONDS);
    if (failures === 0) onState("Connecting");
  }

  /** @type {(socket: WebSocket, message: Message, signal: AbortSignal) => void} */
  function receive(socket, message, signal) {
    if (message.type === "ping") return socket.send('{"type":"pong"}');
    if (message.type !== "connected") return onMessage(message);
    clearTimeout(timer);
    failures = 0;
    isLive = true;
    onState("Live");
    onConnected(signal);
  }

  function retryLater() {
    end();
    const delay = backoff(failures++);
    timer = setTimeout(connect, delay);
    // A server on this machine is reached without a network too, so the attempts go on.
    if (navigator.onLine) onState("Reconnecting", Date.now() + delay);
    else onState("Offline");
  }

  function end() {
    clearTimeout(timer);
    isLive = false;
    attempt.abort();
  }

  addEventListener("online", () => isLive || connect());
  document.addEventListener("visibilitychange", () => document.hidden || isLive || connect());
  connect();
}

/** @type {(signal: AbortSignal) => Promise<Task[] | null>} */
async function fetchTasks(signal) {
  try {
    const ends = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MILLISECONDS)]);
    const response = await fetch(`api/brain/tasks${credentials}`, { signal: ends });
    if (!response.ok) return null;
    /** @type {{ tasks: Task[] }} */
    const { tasks } = await response.json();
    // A table that Brain did not create may have numbers for ids; messages have them as text.
    return tasks.map((task) => ({ ...task, id: String(task.id) }));
  } catch {
    return null;
  }
}

/** @type {(draw: (tasks: readonly Task[]) => void) => Omit<Handlers, "onState">} */
function followTasks(draw) {
  /** @type {readonly Task[]} */
  let tasks = [];
  /** @type {Message[] | null} */
  let receivedMeanwhile = null;
  let connection = AbortSignal.abort();
  let failures = 0;
  let isListed = false;
  let isDrawingDue = false;
  let notBefore = 0;
  /** @type {number | undefined} */
  let timer;

  async function readAll() {
    timer = undefined;
    const signal = connection;
    const received = (receivedMeanwhile = /** @type {Message[]} */ ([]));
    const begun = performance.now();
    const listed = await fetchTasks(signal);
    if (signal.aborted) return;
    receivedMeanwhile = null;
    setText(find("#notice"), listed ? "" : "The tasks cannot be read; trying again.");
    if (!listed) {
      timer = setTimeout(readAll, backoff(failures++));
      return;
    }
    failures = 0;
    isListed = true;
    tasks = received.reduce(applyMessage, replaceTasks(tasks, listed));
    // Where reading takes long, this page takes a twentieth of the database's time at most.
    const ended = performance.now();
    notBefore = ended + Math.max(PAUSE_MILLISECONDS, 20 * (ended - begun));
    drawSoon();
  }

  // While the page is hidden there are no animation frames: nothing is drawn, and nothing read.
  function drawSoon() {
    if (isDrawingDue || !isListed) return;
    isDrawingDue = true;
    requestAnimationFrame(() => {
      isDrawingDue = false;
      draw(tasks);
      const isReading = timer !== undefined || receivedMeanwhile !== null;
      if (!isReading && tasks.some(({ isPartial }) => isPartial)) {
        timer = setTimeout(readAll, notBefore - performance.now());
      }
    });
  }

  return {
    onConnected(signal) {
      connection = signal;
      failures = 0;
      clearTimeout(timer);
      readAll();
    },
    onMessage(message) {
      tasks = applyMessage(tasks, message);
      receivedMeanwhile?.push(message);
      drawSoon();
    },
  };
}

const address = new URL("ws", document.baseURI);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
setText(find("#command"), `wscat -c ${address}`);
address.search = credentials;
// Other clients with a token in the URL are not sent `connected`.
address.searchParams.set("channel", "tasks");
keepConnected(address.href, {
  ...followTasks(createDrawing()),
  onState: createStateDisplay(),
});
