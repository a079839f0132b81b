(() => {
  "use strict";
  const tip = document.getElementById("tip"), live = document.getElementById("live");
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  let onScroll = null;  // what the tooltip does when the page moves under it: follow a focused thing, or go
  const hide = () => { tip.hidden = true; onScroll = null; };
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18) + "px";
  };

  // Steps: the same tooltip by mouse and by keyboard. A rollout is one Tab stop, arrow keys move inside it.
  const stepOf = (event) => event.target.closest && event.target.closest(".step");
  const told = (step) => {
    const d = step.dataset;
    return `step ${d.k} of ${d.of}\nscore ${d.s}\nprocess reward ${d.r}\nadvantage ${d.a}\n` +
      `verdict: ${step.closest(".rollout").dataset.verdict}`;
  };
  const toldOfToken = (token) => token.dataset.t === undefined ? "" : `token score ${token.dataset.t}\n`;
  const beside = (step) => {
    const box = step.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) { tip.hidden = true; return; }
    show(told(step), Math.max(box.left + 40, box.right - 230), box.bottom - 14);
  };
  const focused = (step) => {
    beside(step);
    onScroll = () => beside(step);
    live.textContent = tip.textContent;
  };
  document.addEventListener("mousemove", (event) => {
    const step = stepOf(event);
    if (!step) return;
    show(toldOfToken(event.target) + told(step), event.clientX, event.clientY);
    onScroll = null;
  });
  document.addEventListener("mouseout", (event) => { if (stepOf(event)) hide(); });
  document.addEventListener("focusin", (event) => { const step = stepOf(event); if (step) focused(step); });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => {
    if (onScroll) onScroll(); else hide();
  }, { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const step = stepOf(event);
    if (!step) return;
    const near = all(".step", step.parentElement), at = near.indexOf(step);
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: near.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = near[Math.max(0, Math.min(near.length - 1, to))];
    step.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  // Charts: Bokeh draws each from the JSON behind it, in the colours that its models name and the style sheet has.
  const style = getComputedStyle(document.documentElement);
  const coloured = (key, model) => {
    for (const [property, name] of (model && model.tags) || []) model[property] = style.getPropertyValue(name).trim();
    return model;
  };
  const draw = (plot) => Bokeh.embed.embed_item(JSON.parse(plot.nextElementSibling.textContent, coloured), plot);
  const near = new IntersectionObserver((places) => places.filter((place) => place.isIntersecting).forEach((place) => {
    near.unobserve(place.target);
    draw(place.target);
  }), { rootMargin: "800px" });  // a page of many charts opens at once
  all(".plot").forEach((plot) => near.observe(plot));
  addEventListener("beforeprint", () => near.disconnect() || all(".plot:empty").forEach(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    Bokeh.documents.forEach((drawn) => drawn.all_models.forEach((model) => coloured("", model))));

  const colourBy = document.getElementById("colour-by"), chosen = document.getElementById("show");
  const paint = () => {
    const key = colourBy.value, steps = all(".step"), values = steps.map((step) => parseFloat(step.dataset[key]));
    const sizes = values.filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
    const top = key === "s" ? 1 : sizes[Math.floor(0.95 * (sizes.length - 1))] || 1;
    steps.forEach((step, i) => {
      const share = key === "s" ? values[i] : 0.5 + values[i] / (2 * top);
      const split = step.classList.contains("split") ? " split" : "";
      step.className = "step" + split + (Number.isFinite(share) ? " q" + Math.round(10 * Math.max(0, Math.min(1, share))) : "");
      step.querySelector(".sc").textContent = step.dataset[key];
    });
    const [low, high] = all(".scale i");
    low.textContent = key === "s" ? "0" : (-top).toPrecision(2);
    high.textContent = key === "s" ? "1" : top.toPrecision(2);
  };
  if (colourBy) {
    colourBy.addEventListener("change", paint);
    chosen.addEventListener("change", () => all(".rollout").forEach((rollout) => {
      rollout.hidden = chosen.value !== "all" && rollout.dataset.right !== chosen.value;
    }));
  }
})();
