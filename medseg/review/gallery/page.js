// This file starts the page, and gives `window.medseg` to tests and to the curious. It comes last.

class App {
  constructor(data) {
    this.data = data;
    this.codes = new Codes(data.codes);
    this.pictures = new Pictures(data, this.codes);
    this.assigned = new Map(); // by K
    this.isGrey = false;
    this.row = data.patches.map((patch) => this.patchFigure(patch));
    byId("patches").append(...this.row);
  }

  get clustering() {
    return this.data.clusterings[this.number];
  }

  get found() {
    const { k, prototypes } = this.clustering;
    if (!this.assigned.has(k)) this.assigned.set(k, this.codes.assign(prototypes));
    return this.assigned.get(k);
  }

  patchFigure(patch) {
    const figure = element("figure");
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    const caption = element("figcaption");
    caption.append(element("span", { className: "case", textContent: patch.case, title: patch.case }));
    if (patch.several) caption.append(element("span", { textContent: `${patch.unit === "mm" ? "slice" : "frame"} ${patch.location[0]}` }));
    figure.append(canvas, caption);
    return figure;
  }

  // Show another number of clusters, as the slider counts them.
  setNumber(number) {
    this.number = Math.max(0, Math.min(number, this.data.clusterings.length - 1));
    this.show();
  }

  setGrey(isGrey) {
    this.isGrey = isGrey;
    this.show();
  }

  show() {
    const { data, clustering, found } = this;
    const { k, cards } = clustering;
    const isOwn = k === data.own;
    byId("slider").value = this.number;
    byId("slider").setAttribute("aria-valuetext", `${k} clusters${isOwn ? ", as the run has them" : ""}`);
    byId("k").textContent = k;
    byId("own").textContent = isOwn ? "as the run has them" : `the run has ${data.own}`;
    byId("back").disabled = isOwn;
    byId("less").disabled = this.number === 0;
    byId("more").disabled = this.number === data.clusterings.length - 1;
    byId("set").hidden = isOwn || !data.changeable;
    byId("command").textContent = `medseg clusters RUN --set-clusters ${k}`;
    byId("grey").setAttribute("aria-pressed", String(this.isGrey));
    byId("coloured").setAttribute("aria-pressed", String(!this.isGrey));
    this.pictures.clear();
    const colours = this.isGrey ? null : cards.map(({ colour }) => colour);
    this.row.forEach((figure, n) => {
      this.pictures.draw(figure.firstChild, n, found, colours);
      figure.firstChild.setAttribute("aria-label", `${data.patches[n].case}, ${this.isGrey ? "grey" : `coloured by ${k} clusters`}`);
    });
    const scales = scalesOf(data, cards);
    byId("cards").replaceChildren(...inOrder(cards).map((card) => cardOf(this, card, found, scales)));
    byId("legend").replaceChildren(...inOrder(cards).map((card) => this.legendEntry(card)));
    const named = cards.filter(({ name }) => name).length;
    byId("summary").textContent = `${plural(k, "cluster")}, ${named || "none"} with a name`;
  }

  legendEntry(card) {
    const link = element("a", { href: `#cluster-${card.cluster}` });
    const swatch = element("span", { className: "swatch small" });
    swatch.style.background = card.colour;
    link.append(swatch, labelOf(card));
    return link;
  }

  // Say what lies under the mouse in the row of patches.
  point(event) {
    const patch = this.row.findIndex((figure) => figure.firstChild === event.target);
    if (patch < 0) return;
    const cell = this.pictures.cellAt(event.target, event.clientX, event.clientY);
    const place = patch * this.codes.cells + cell;
    const where = [this.data.patches[patch].case, ...placeInWords(this.data, this.data.patches[patch], cell)].join(", ");
    const cluster = this.pictures.inside[place] ? `cluster ${labelOf(this.clustering.cards[this.found.cluster[place]])}` : "outside";
    byId("pointed").textContent = `${where}: ${cluster}`;
  }
}

function listen(app) {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on("slider", "input", (event) => app.setNumber(Number(event.target.value)));
  on("less", "click", () => app.setNumber(app.number - 1));
  on("more", "click", () => app.setNumber(app.number + 1));
  on("back", "click", () => app.setNumber(app.ownNumber));
  on("grey", "click", () => app.setGrey(true));
  on("coloured", "click", () => app.setGrey(false));
  on("patches", "pointermove", (event) => app.point(event));
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const act = {
      ArrowLeft: () => app.setNumber(app.number - 1),
      ArrowRight: () => app.setNumber(app.number + 1),
      g: () => app.setGrey(!app.isGrey),
    }[event.key];
    if (!act || (event.target === byId("slider") && event.key !== "g")) return; // the slider has its own arrows
    event.preventDefault();
    act();
  });
}

function startPage() {
  const data = JSON.parse(byId("medseg-data").textContent);
  byId("title").textContent = document.title = data.title;
  byId("origin").textContent = `${data.software}, method ${data.method}, made ${data.created}.`;
  byId("notes").append(...data.notes.map((textContent) => element("li", { textContent })));
  const app = new App(data);
  app.ownNumber = data.clusterings.findIndex(({ k }) => k === data.own);
  byId("slider").max = data.clusterings.length - 1;
  byId("least").textContent = data.clusterings[0].k;
  byId("largest").textContent = data.clusterings.at(-1).k;
  listen(app);
  app.setNumber(app.ownNumber);
  return app;
}

function apiOf(app) {
  const strip = (by) => (cluster) =>
    bestPlaces(app.data, app.codes, app.found, app.pictures.inside, cluster, app.found[by]).map(({ patch, cell, next }) => ({ patch, cell, next, position: positionOf(app.data, app.data.patches[patch], cell) }));
  return {
    get state() {
      return { k: app.clustering.k, isGrey: app.isGrey, clusters: [...app.found.cluster] };
    },
    typical: strip("distance"),
    borderline: strip("margin"),
  };
}

window.medseg = apiOf(startPage());
