"use strict";

const part = (id) => document.getElementById(id);

/** Show who the visitor is, as GET login says it. */
function show(visitor) {
  const { tokens, token, grants, ends, version } = visitor;
  part("version").textContent = version ?? "";
  part("login").hidden = !tokens || token !== null;
  part("logout").hidden = !ends;
  if (!tokens) {
    part("who").textContent = "There are no tokens: whoever reaches this page may do everything.";
  } else if (token === null) {
    part("who").textContent = "You are not logged in.";
  } else {
    const until = ends ? `, until ${new Date(ends).toLocaleString()}` : "";
    part("who").textContent = `You are logged in as ${token} (${grants})${until}.`;
  }
}

/** Ask this daemon; what it refuses is an Error with its sentence. */
async function ask(method, path, body) {
  const sent = body && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(path, { method, ...sent });
  const said = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(said?.detail ?? `The answer was ${answer.status}.`);
  return said;
}

/** Do something that may fail, and say why it has. */
async function attempt(work) {
  part("mistake").textContent = "";
  try {
    await work();
  } catch (error) {
    part("mistake").textContent = error.message;
  }
}

part("login").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const token = part("token").value.trim();
    part("token").value = "";
    part("token").focus();
    show(await ask("POST", "login", { token }));
    part("logout").querySelector("button").focus();
  });
});

part("logout").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    show(await ask("POST", "logout"));
    part("token").focus();
  });
});

attempt(async () => show(await ask("GET", "login")));
