// A film strip that plays: one frame large, a scrubber over time, bars that follow the class in question.
(() => {
  "use strict";
  const signed = (score) => {
    const text = score.toFixed(2);
    if (Number(text) === 0) return "0.00";
    return score > 0 ? `+${text}` : text.replace("-", "−");
  };

  // The same geometry as charts.score_bars: percent of the chart, y runs down.
  const scoreBars = (scores, ci) => {
    const values = [0, ...scores, ...(ci ?? []).flat()];
    const top = Math.max(...values);
    const span = top - Math.min(...values) || 1;
    const y = (value) => (100 * (top - value)) / span;
    const bars = scores.map((score, i) => ({
      y: y(Math.max(score, 0)),
      height: (100 * Math.abs(score)) / span,
      kind: score > 0 ? "for" : "against",
      interval: ci ? ci[i].map(y) : null,
    }));
    return { zero: y(0), bars };
  };
  const whisker = (ends) => {
    const [low, high] = ends.map((end) => end.toFixed(2));
    return `M5 ${high}V${low}M3 ${high}H7M3 ${low}H7`;
  };

  // z_a − z_b from the scores of two classes. Every signed score is linear in the logits.
  const contrast = (data, a, b) => {
    const scores = a.scores.map((score, i) => data.share * (score - b.scores[i]));
    const order = scores.map((_, i) => i).sort((i, j) => scores[j] - scores[i] || i - j);
    // As select.select_keyframes: frames that were not asked about by themselves are none, and those that crowd neither.
    const distance = (i, j) => Math.abs(data.frames[i].pts - data.frames[j].pts);
    const keyframes = order
      .filter((i) => scores[i] > 0 && [a, b].every((view) => view.known === null || view.known[i]))
      .reduce((far, i) => (far.every((j) => distance(i, j) >= data.gap) ? [...far, i] : far), [])
      .slice(0, data.topk);
    const times = keyframes.map((i) => data.frames[i].pts).sort((s, t) => s - t);
    const where = times.map((second) => `${second.toFixed(2)} s`).join(", ");
    const verdict = times.length
      ? `What speaks most for ${a.name} rather than ${b.name} is seen at ${where}.`
      : `No frame speaks for ${a.name} rather than ${b.name}.`;
    return { name: `${a.name} not ${b.name}`, scores, ci: null, keyframes, verdict };
  };

  const setUp = (root) => {
    const one = (selector) => root.querySelector(selector);
    const data = JSON.parse(one(".data").textContent);
    const frames = [...root.querySelectorAll(".frame")];
    const pictures = frames.map((frame) => frame.querySelector("img").src);
    const [picture, heat, caption, scrub, clock] = [".picture", ".heat", "figcaption", ".scrub", ".clock"].map(one);
    const [play, opacity, warmth, target, rival] = [".play", ".opacity", ".warmth", ".target", ".rival"].map(one);
    const marks = [...root.querySelectorAll(".track rect")];
    let view = data.views[0];
    let chosen = frames.findIndex((frame) => frame.getAttribute("aria-pressed") === "true");
    let timer = 0;

    const describe = (i) => {
      const { index, pts } = data.frames[i];
      const rank = view.keyframes.indexOf(i);
      const ci = view.ci ? ` (${signed(view.ci[i][0])} to ${signed(view.ci[i][1])})` : "";
      const role = rank < 0 ? "" : ` · key frame ${rank + 1}`;
      return `Frame ${index} · ${pts.toFixed(2)} s · score ${signed(view.scores[i])}${ci}${role}`;
    };

    const choose = (index) => {
      chosen = Math.max(0, Math.min(frames.length - 1, index));
      frames.forEach((frame, i) => {
        frame.setAttribute("aria-pressed", String(i === chosen));
        frame.tabIndex = i === chosen ? 0 : -1; // one stop of the Tab key a strip; arrows move inside
      });
      picture.src = pictures[chosen];
      picture.alt = caption.textContent = describe(chosen);
      scrub.value = String(Math.round(1000 * data.frames[chosen].pts));
      scrub.setAttribute("aria-valuetext", describe(chosen));
      clock.textContent = `${data.frames[chosen].pts.toFixed(2)} s`;
      if (heat) heat.src = data.heat[chosen];
    };

    const draw = () => {
      const { zero, bars } = scoreBars(view.scores, view.ci);
      frames.forEach((frame, i) => {
        const [rect, line, rank] = [".score rect", ".zero", ".rank"].map((name) => frame.querySelector(name));
        for (const bar of [rect, marks[i]]) {
          bar.setAttribute("class", bars[i].kind);
          bar.setAttribute("y", bars[i].y.toFixed(2));
          bar.setAttribute("height", bars[i].height.toFixed(2));
        }
        line.setAttribute("y1", zero.toFixed(2));
        line.setAttribute("y2", zero.toFixed(2));
        const ci = frame.querySelector(".ci");
        if (ci) ci.setAttribute("d", bars[i].interval ? whisker(bars[i].interval) : "");
        const place = view.keyframes.indexOf(i);
        frame.classList.toggle("key", place >= 0);
        rank.hidden = place < 0;
        rank.textContent = place < 0 ? "" : String(place + 1);
        frame.querySelector(".value").textContent = signed(view.scores[i]);
        frame.setAttribute("aria-label", describe(i));
      });
      one(".verdict").textContent = view.verdict;
      const asked = one(".asked");
      if (asked) asked.textContent = view.name;
      if (heat) heat.hidden = warmth.hidden = view !== data.views[0]; // regions were computed for the first question
      const whiskers = one(".whiskers");
      if (whiskers) whiskers.hidden = !view.ci;
      choose(chosen);
    };

    const ask = () => {
      const of = (id) => data.views.find((known) => String(known.target) === id && known.against === null);
      for (const option of rival.options) option.disabled = option.value === target.value;
      if (rival.value === target.value) rival.value = "";
      const exact = data.views.find(
        (known) => String(known.target) === target.value && String(known.against ?? "") === rival.value,
      );
      view = exact ?? contrast(data, of(target.value), of(rival.value));
      draw();
    };

    const pause = () => {
      clearTimeout(timer);
      timer = 0;
      play.setAttribute("aria-pressed", "false");
      play.setAttribute("aria-label", "Play");
      caption.setAttribute("aria-live", "polite");
    };
    const advance = () => {
      const next = (chosen + 1) % frames.length;
      const gap = 1000 * (data.frames[next].pts - data.frames[chosen].pts);
      timer = setTimeout(() => {
        choose(next);
        advance();
      }, gap > 0 ? Math.min(Math.max(gap, 60), 1000) : 800);
    };

    play.addEventListener("click", () => {
      if (timer) return pause();
      play.setAttribute("aria-pressed", "true");
      play.setAttribute("aria-label", "Pause");
      caption.setAttribute("aria-live", "off"); // a film that is read aloud frame by frame is noise
      advance();
    });
    scrub.addEventListener("input", () => {
      pause();
      const distance = ({ pts }) => Math.abs(1000 * pts - Number(scrub.value));
      choose(data.frames.reduce((best, frame, i, all) => (distance(frame) < distance(all[best]) ? i : best), 0));
    });
    frames.forEach((frame, i) =>
      frame.addEventListener("click", () => {
        pause();
        choose(i);
      }),
    );
    if (heat) {
      const fade = () => (heat.style.opacity = String(Number(opacity.value) / 100));
      opacity.addEventListener("input", fade);
      fade();
    }
    if (target) {
      target.addEventListener("change", ask);
      rival.addEventListener("change", ask);
      ask();
    } else {
      choose(chosen);
    }
    return {
      root,
      step(key) {
        pause();
        choose({ ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: frames.length - 1 }[key]);
        if (document.activeElement !== scrub) frames[chosen].focus({ preventScroll: true });
      },
    };
  };

  const films = [...document.querySelectorAll(".film")].map(setUp);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("select, .opacity, textarea, input:not(.scrub)")) return; // they use the arrows themselves
    const inside = films.find((film) => film.root.contains(document.activeElement));
    const film = inside ?? (films.length === 1 ? films[0] : undefined);
    const keys = inside ? ["ArrowLeft", "ArrowRight", "Home", "End"] : ["ArrowLeft", "ArrowRight"];
    if (!film || !keys.includes(event.key)) return;
    event.preventDefault();
    film.step(event.key);
  });
})();
