// Talks to the server: sends a video, asks a question, waits, and shows the answer.
(() => {
  "use strict";
  const root = document.querySelector(".live");
  const one = (selector) => root.querySelector(selector);
  const [work, stage, bar, cancel, trouble] = [".work", ".stage", "progress", ".cancel", ".trouble"].map(one);
  let job = null;
  let upload = null;

  const call = async (path, options) => {
    const answer = await fetch(path, options);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    return body;
  };
  const show = (text, share) => {
    work.hidden = false;
    trouble.hidden = true;
    stage.textContent = text;
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  };
  const fail = (text) => {
    work.hidden = true;
    trouble.hidden = false;
    trouble.textContent = text;
  };
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  const ask = async (question) => {
    try {
      if (job) await call(`/api/inspections/${job.id}`, { method: "DELETE" });
      const own = await call("/api/inspections", { method: "POST", body: JSON.stringify(question) });
      job = own;
      let now = own;
      for (let wait = 50; ["queued", "running"].includes(now.status); wait = Math.min(2 * wait, 800)) {
        show(now.stage || now.status, now.progress);
        await pause(wait);
        now = await call(`/api/inspections/${own.id}`);
        if (job !== own) return; // another question took its place
      }
      job = null;
      if (now.status === "done") location.assign(`/inspections/${now.id}`);
      else fail(now.error ?? "Cancelled.");
    } catch (error) {
      fail(error.message);
    }
  };
  const send = async (file) => {
    try {
      show("sending", null);
      upload = new AbortController();
      const path = `/api/videos?name=${encodeURIComponent(file.name)}`;
      const video = await call(path, { method: "POST", body: file, signal: upload.signal });
      upload = null;
      await ask({ video: video.id });
    } catch (error) {
      fail(error.name === "AbortError" ? "Cancelled." : error.message);
    }
  };

  cancel.addEventListener("click", () => {
    if (upload) upload.abort();
    else if (job) call(`/api/inspections/${job.id}`, { method: "DELETE" });
  });
  const file = one(".file");
  if (file) {
    file.addEventListener("change", () => file.files.length && send(file.files[0]));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
    });
    one(".video")?.addEventListener("change", (event) => event.target.value && ask({ video: event.target.value }));
  } else {
    const { video, against, topk, seed } = root.dataset;
    const again = ({ target }) =>
      ask({
        video,
        method: one(".method").value,
        removal: one(".removal").value,
        target: Number(one(".class").value),
        // Another class is another question; another method or removal asks the same one.
        against: against === "" || target.matches(".class") ? null : Number(against),
        topk: Number(topk),
        seed: Number(seed),
      });
    for (const select of root.querySelectorAll("select")) select.addEventListener("change", again);
  }
})();
