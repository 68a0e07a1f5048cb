// This file shows the queue: the cases in the order in which they deserve a look, and how far the reviewer is.

class Queue {
  constructor(app) {
    this.app = app;
    this.list = document.getElementById("cases");
    this.buttons = app.data.cases.map((info, n) => {
      const button = element("button", { type: "button" });
      button.append(
        element("span", { className: "rank", textContent: `${info.rank ?? n + 1}.` }),
        element("span", { className: "name", textContent: info.label }),
        element("span", { className: "state" }),
        element("span", { className: "why", textContent: info.reasons[0] ?? "" }),
      );
      button.addEventListener("click", () => app.goTo(n));
      const item = element("li");
      item.append(button);
      this.list.append(item);
      return button;
    });
    if (matchMedia("(max-width: 1050px)").matches) document.getElementById("queue-box").open = false;
    this.showParts();
  }

  refresh() {
    const { app } = this;
    const done = app.reviews.filter((review) => review.verdict).length;
    const here = `case ${app.caseNumber + 1} of ${app.data.cases.length}`;
    document.getElementById("progress").textContent = `${done} of ${app.data.cases.length} reviewed (${here})`;
    document.getElementById("progress-bar").value = done / Math.max(app.data.cases.length, 1);
    this.buttons.forEach((button, n) => {
      button.setAttribute("aria-current", String(n === app.caseNumber));
      const { verdict } = app.reviews[n];
      const state = button.querySelector(".state");
      state.className = `state state-${verdict ?? "none"}`;
      state.textContent = stateWords(verdict);
    });
  }

  // The other files of a queue that was too large for one.
  showParts() {
    const { part, parts, index } = this.app.data;
    const place = document.getElementById("parts");
    if (!part || !parts?.length) return;
    place.append(`Part ${part}. The others: `);
    const links = parts.map(({ file, cases }) => element("a", { href: `./${encodeURIComponent(file)}`, textContent: `${file} (${cases.length})` }));
    if (index) links.unshift(element("a", { href: `./${encodeURIComponent(index)}`, textContent: "index" }));
    links.forEach((link, n) => place.append(n ? ", " : "", link));
  }
}

const stateWords = (verdict) => (verdict ? `${VERDICT_SIGNS[verdict]} ${VERDICT_WORDS[verdict]}` : "to do");
