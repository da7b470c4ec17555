// Improves pages that work without it: charts drawn from their tables, live figures, the reader's time zone.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) document.cookie = `brandproxy_zone=${zone}; path=/; max-age=31536000; samesite=strict`;

  const token = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const SERIES = [
    { label: "Clicks", column: 1, colour: "--people", name: "people" },
    { label: "Opens", column: 3, colour: "--opens", name: "opens" },
    { label: "Machine events", column: 5, colour: "--machines", name: "machines" },
  ];

  // The table is the data: what the chart shows and what a screen reader reads are the same cells.
  function readTable(table) {
    const rows = [...table.tBodies[0].rows];
    const at = rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000);
    const names = rows.map((row) => row.cells[0].textContent);
    return { names, data: [at, ...SERIES.map((s) => rows.map((row) => Number(row.cells[s.column].textContent)))] };
  }

  function legend(plot, names, data) {
    const list = document.createElement("ul");
    list.className = "legend";
    const items = SERIES.map((s) => {
      const item = document.createElement("li");
      item.className = s.name;
      item.append(document.createElement("i"), s.label, document.createElement("b"));
      list.append(item);
      return item.lastChild;
    });
    const when = document.createElement("li");
    when.className = "when";
    list.append(when);
    plot.before(list);
    const number = new Intl.NumberFormat("en");
    return (index) => {
      const known = index !== null && index !== undefined;
      when.textContent = known ? names[index] : "";
      items.forEach((item, i) => {
        const values = data[i + 1];
        item.textContent = number.format(known ? values[index] : values.reduce((a, b) => a + b, 0));
      });
    };
  }

  const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
  const HOUR = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const MONTH = new Intl.DateTimeFormat("en", { month: "short", year: "numeric" });
  const named = (t, step) => (step < 86400 ? HOUR : step < 27 * 86400 ? DAY : MONTH).format(new Date(t * 1000));

  function draw(section) {
    const plot = section.querySelector(".plot");
    const table = section.querySelector("table[data-chart]");
    plot.textContent = "";
    section.querySelectorAll(".legend").forEach((old) => old.remove());
    const { names, data } = readTable(table);
    if (data[0].length < 1) return;
    const tell = legend(plot, names, data);
    const quiet = token("--quiet"), line = token("--line");
    const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const few = data[0].length < 2;
    const chart = new uPlot({
      width: plot.clientWidth, height: 280, legend: { show: false },
      cursor: { y: false, points: { size: 8 }, drag: { x: false, y: false } },
      scales: { y: { range: (u, low, high) => [0, Math.max(4, high * 1.08)] } },
      axes: [{ ...axis, grid: { show: false }, space: 80, values: (u, ticks, i, space, step) => ticks.map((t) => named(t, step)) }, { ...axis, size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7],
        values: (u, ticks) => ticks.map((v) => new Intl.NumberFormat("en", { notation: "compact" }).format(v)) }],
      series: [{}, ...SERIES.map((s, i) => ({
        label: s.label, stroke: token(s.colour), width: i === 0 ? 2.5 : 1.75, points: { show: few },
        fill: i === 0 ? token(s.colour) + "22" : undefined, dash: s.name === "machines" ? [4, 4] : undefined,
        paths: uPlot.paths.spline(),
      }))],
      hooks: { setCursor: [(u) => tell(u.cursor.idx)] },
    }, data, plot);
    tell(null);
    section.chart = chart;
  }

  const drawAll = () => document.querySelectorAll("section.chart").forEach(draw);
  dark.addEventListener("change", drawAll);
  addEventListener("resize", () => document.querySelectorAll("section.chart").forEach((section) => {
    const plot = section.querySelector(".plot");
    if (section.chart) section.chart.setSize({ width: plot.clientWidth, height: 280 });
  }));

  // Times are rendered in the zone of the cookie; the first visit shows UTC until the page is asked for again.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-submit]");
    if (form) form.submit();
  });

  async function fetchPage() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok || answer.redirected) throw new Error(`page: ${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // Keep what the reader opened, scrolled to and focused while the figures change under it.
  function replaceFigures(fresh) {
    const now = document.querySelector("[data-live]"), then = fresh.querySelector("[data-live]");
    if (!now || !then) return;
    const open = [...now.querySelectorAll("details")].map((d) => d.open);
    [...then.querySelectorAll("details")].forEach((d, i) => { d.open = open[i] || false; });
    if (now.contains(document.activeElement) && document.activeElement !== document.body) {
      for (const part of [".figures", "table[data-chart]"]) {
        const a = now.querySelector(part), b = then.querySelector(part);
        if (a && b) a.replaceWith(b);
      }
    } else {
      now.replaceWith(then);
    }
    drawAll();
  }

  function stream(tenant, machines, tell, state) {
    const query = new URLSearchParams({ machines });
    if (tenant) query.set("tenant", tenant);
    const source = new EventSource(`/v1/analytics/live?${query}`);
    source.addEventListener("event", (message) => tell(JSON.parse(message.data)));
    source.addEventListener("open", () => state(true));
    source.addEventListener("error", () => state(false));
    addEventListener("pagehide", () => source.close());
  }

  function followFigures(element) {
    let waiting = false;
    stream(element.dataset.live, "include", () => {
      if (waiting) return;
      waiting = true;
      setTimeout(async () => {
        waiting = false;
        try { replaceFigures(await fetchPage()); } catch { /* the next event tries again */ }
      }, 700);
    }, () => {});
  }

  function followFeed(table) {
    const note = document.querySelector("[data-live-state]"), pulse = document.querySelector("[data-pulse]");
    let waiting = false;
    stream(table.dataset.feed, "include", () => {
      if (waiting) return;
      waiting = true;
      setTimeout(async () => {
        waiting = false;
        const body = table.tBodies[0], known = new Set([...body.rows].map((row) => row.dataset.id));
        const fresh = (await fetchPage()).querySelector("[data-feed] tbody");
        for (const row of fresh.rows) if (!known.has(row.dataset.id)) row.classList.add("fresh");
        body.replaceWith(fresh);
      }, 400);
    }, (connected) => {
      pulse.hidden = !connected;
      note.textContent = connected ? "New events appear as they happen." : "The connection is away; trying again.";
    });
  }

  addEventListener("DOMContentLoaded", () => {
    drawAll();
    const figures = document.querySelector("[data-live]"), feed = document.querySelector("[data-feed]");
    if (figures) followFigures(figures);
    if (feed) followFeed(feed);
  });
})();
