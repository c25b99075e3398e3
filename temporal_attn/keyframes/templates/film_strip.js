// Steps through the frames of a film strip and shows the chosen one large.
(() => {
  "use strict";
  const films = [...document.querySelectorAll(".film")].map((root) => {
    const frames = [...root.querySelectorAll(".frame")];
    const view = root.querySelector(".viewer img");
    const caption = root.querySelector(".viewer figcaption");
    let chosen = frames.findIndex((frame) => frame.getAttribute("aria-pressed") === "true");
    const choose = (index) => {
      chosen = Math.max(0, Math.min(frames.length - 1, index));
      frames.forEach((frame, i) => {
        frame.setAttribute("aria-pressed", String(i === chosen));
        frame.tabIndex = i === chosen ? 0 : -1; // one stop of the Tab key a strip; arrows move inside
      });
      view.src = frames[chosen].querySelector("img").src;
      view.alt = caption.textContent = frames[chosen].dataset.caption;
    };
    frames.forEach((frame, i) => frame.addEventListener("click", () => choose(i)));
    choose(chosen);
    return {
      root,
      step(key) {
        const target = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: frames.length - 1 }[key];
        choose(target);
        frames[chosen].focus({ preventScroll: true });
      },
    };
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const inside = films.find((film) => film.root.contains(document.activeElement));
    const film = inside ?? (films.length === 1 ? films[0] : undefined);
    const keys = inside ? ["ArrowLeft", "ArrowRight", "Home", "End"] : ["ArrowLeft", "ArrowRight"];
    if (!film || !keys.includes(event.key)) return;
    event.preventDefault();
    film.step(event.key);
  });
})();
