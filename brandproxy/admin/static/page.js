"use strict";
// Asks for the present status every two seconds (every minute once live) and shows it in place. What has not
// changed is left alone, so that focus stays where it is; a change of state is said aloud.
const status = document.getElementById("status");
const said = document.getElementById("said");

function parts(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const checked = holder.content.querySelector(".checked");
  const text = checked.textContent;
  checked.remove();
  return { body: holder.innerHTML.trim(), checked: text };
}
let shown = parts(status.innerHTML);

function show(html) {
  const fresh = parts(html);
  if (fresh.body !== shown.body) {
    const before = status.querySelector("[data-state]").dataset.state;
    status.innerHTML = html;
    const state = status.querySelector("[data-state]");
    if (state.dataset.state !== before) said.textContent = state.textContent;
  } else {
    status.querySelector(".checked").textContent = fresh.checked;
  }
  shown = fresh;
}

async function look() {
  let wait = 2000;
  try {
    const answer = await fetch(location.pathname + "/status", { cache: "no-store" });
    if (answer.status === 404) return location.reload();
    if (answer.ok) show(await answer.text());
    if (status.querySelector('[data-state="live"]')) wait = 60000;
  } catch { wait = 5000; }
  setTimeout(look, wait);
}
setTimeout(look, 2000);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {  // no clipboard without https: select the text instead
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
