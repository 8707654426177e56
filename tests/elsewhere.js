// What a page can have a browser send to `base`, each with what the page gets to see of the answer.
(async (base) => {
  const seen = [];
  const part = (name, made) => document.body.appendChild(Object.assign(document.createElement(name), made));
  const done = (what, made) => new Promise((go) => {
    for (const event of ["load", "error"]) made.addEventListener(event, () => go([what, event]));
  });
  const fetched = (what, path, how) => fetch(base + path, { credentials: "include", ...how })
    .then(async (answer) => [what, answer.type, answer.status, await answer.text()], () => [what, "refused"]);
  const text = { "Content-Type": "text/plain" };
  seen.push(
    ...["GET", "HEAD", "POST"].map((method) =>
      fetched("no-cors " + method, "/jobs/a/b", { method, mode: "no-cors" })),
    ...["GET", "POST", "PUT", "PATCH", "DELETE"].map((method) =>
      fetched("cors " + method, "/jobs/a/b", { method })),
    fetched("put", "/jobs/a/new?interval=9", { method: "PUT" }),
    fetched("once", "/jobs/a", { method: "POST", mode: "no-cors", headers: text, body: "x" }),
    fetched("act", "/actions", { method: "POST", mode: "no-cors", headers: text,
      body: '{"do":"delete","filter":{"path":"a"}}' }),
    fetched("login", "/login", { method: "POST", mode: "no-cors", body: "token=x",
      headers: { "Content-Type": "application/x-www-form-urlencoded" } }),
    fetched("logout", "/logout", { method: "POST", mode: "no-cors" }),
    done("img", part("img", { src: base + "/jobs/a/b" })),
    done("script", part("script", { src: base + "/jobs/a/b?script" })),
    done("css", part("link", { rel: "stylesheet", href: base + "/jobs/a/b?css" })),
    ...["/jobs/a/b", "/", "/metrics"].map(async (path) => {
      const frame = part("iframe", { src: base + path });
      await done("iframe", frame);
      return ["iframe", frame.contentDocument?.body?.innerText ?? "closed"];
    }),
    ...["GET", "POST"].map(async (method) => {
      const frame = part("iframe", { name: "of" + method });
      const form = part("form", { method, action: base + "/jobs/a/b", target: "of" + method });
      const loaded = done("form", frame);
      form.submit();
      await loaded;
      return ["form", frame.contentDocument?.body?.innerText ?? "closed"];
    }),
    new Promise((go) => {
      const socket = new WebSocket(base.replace("http", "ws") + "/jobs");
      socket.onopen = () => go(["socket", "open"]);
      socket.onerror = () => go(["socket", "error"]);
    }),
    new Promise((go) => {
      const events = new EventSource(base + "/jobs/a/b", { withCredentials: true });
      events.onmessage = (event) => go(["events", event.data]);
      events.onerror = () => { events.close(); go(["events", "error"]); };
    }),
  );
  navigator.sendBeacon(base + "/jobs/a/b", "x");
  return Promise.all(seen);
})
