"use strict";
// Asks for the present status every two seconds (every minute once live) and shows it in place.
const status = document.getElementById("status");
async function look() {
  let wait = 2000;
  try {
    const answer = await fetch(location.pathname + "/status", { cache: "no-store" });
    if (answer.status === 404) return location.reload();
    if (answer.ok) {
      const text = await answer.text();
      if (text !== status.dataset.text) { status.innerHTML = text; status.dataset.text = text; }
      if (status.querySelector('[data-state="live"]')) wait = 60000;
    }
  } catch { wait = 5000; }
  setTimeout(look, wait);
}
setTimeout(look, 2000);
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
