// This file builds the cards of the clusters. Whatever comes from the data is text, never markup.

const CLOSE = 0.1; // below it a bound is nearly met, or nearly missed
const STATISTICS = ["median", "p10", "p90", "mean"];

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const labelOf = (card) => `${card.cluster}${card.name ? ` ${card.name}` : ""}`;

function cardOf(app, card, found, scales) {
  const node = element("article", { className: card.name ? "card named" : "card", id: `cluster-${card.cluster}` });
  node.setAttribute("aria-label", `Cluster ${labelOf(card)}`);
  node.append(aboutCluster(app, card, found, scales), stripsOf(app, card, found));
  return node;
}

function aboutCluster(app, card, found, scales) {
  const about = element("div", { className: "about" });
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = card.colour;
  const heading = element("h3");
  heading.append(swatch, element("span", { className: "number", textContent: card.cluster }), element("span", { textContent: card.name ?? "no name" }));
  about.append(heading);
  if (card.sure !== null) {
    const isClose = card.sure < CLOSE;
    const words = `Sure ${percent(card.sure)}${isClose ? ": a close call" : ""}`;
    about.append(element("p", { className: isClose ? "sure close" : "sure", textContent: words, title: "How far the numbers are from the nearest bound of the rules; no probability" }));
  }
  if (card.reason) about.append(element("p", { className: "reason", textContent: card.reason }));
  const shown = patchesWith(app.codes, found, app.pictures.inside, card.cluster);
  about.append(element("p", { className: "share", textContent: `${percent(card.share)} of the sample; seen in ${shown} of ${app.codes.patches} patches` }));
  about.append(measurementsOf(app, card, scales));
  return about;
}

// A line for each measurement: the middle four fifths of the cluster as a bar, its median as a mark, and the numbers.
function measurementsOf(app, card, scales) {
  const list = element("dl", { className: "facts" });
  for (const [name, [low, high]] of Object.entries(scales)) {
    const [median, p10, p90, mean] = STATISTICS.map((statistic) => card.facts[`${statistic}_${name}`]);
    if (median === undefined) continue;
    const at = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
    const bar = element("div", { className: "bar" });
    const [range, mark] = [element("span", { className: "range" }), element("span", { className: "mark" })];
    Object.assign(range.style, { left: at(p10), right: `${100 - parseFloat(at(p90))}%` });
    mark.style.left = at(median);
    bar.append(range, mark);
    const numbers = element("p", { className: "numbers", textContent: `median ${inFigures(median)}, 80 % from ${inFigures(p10)} to ${inFigures(p90)}, mean ${inFigures(mean)}` });
    const value = element("dd");
    value.append(bar, numbers);
    const line = element("div");
    line.append(element("dt", { textContent: app.data.words[name] ?? name }), value);
    list.append(line);
  }
  return list;
}

function inFigures(number) {
  if (!Number.isFinite(number)) return "unknown";
  return Math.abs(number) < 5e-4 ? "0" : String(Number(number.toPrecision(3)));
}

function stripsOf(app, card, found) {
  const strips = element("div", { className: "strips" });
  const { codes, data } = app;
  const kinds = [
    ["Typical", "nearest to the cluster's centre", found.distance],
    ["Borderline", "nearly in another cluster", found.margin],
  ];
  for (const [title, explained, by] of kinds) {
    const heading = element("h4", { textContent: title });
    heading.append(element("span", { className: "hint", textContent: ` ${explained}` }));
    const strip = element("div", { className: `strip ${title.toLowerCase()}` });
    const places = bestPlaces(data, codes, found, app.pictures.inside, card.cluster, by);
    strip.append(...places.map((place) => tileOf(app, card, found, place, title === "Borderline")));
    if (!places.length) strip.append(element("p", { className: "hint", textContent: "None of the patches shown has it." }));
    strips.append(heading, strip);
  }
  return strips;
}

function tileOf(app, card, found, place, isBorderline) {
  const patch = app.data.patches[place.patch];
  const tile = element("figure");
  const canvas = element("canvas");
  const colours = app.clustering.cards.map(({ cluster, colour }) => (cluster === card.cluster ? colour : null));
  app.pictures.draw(canvas, place.patch, found, app.isGrey ? null : colours, place.cell);
  const caption = element("figcaption");
  const lines = placeInWords(app.data, patch, place.cell);
  caption.append(element("span", { className: "case", textContent: patch.case, title: patch.case }), ...lines.map((textContent) => element("span", { textContent })));
  if (isBorderline) {
    const next = app.clustering.cards[place.next];
    const line = element("span", { className: "next" });
    const swatch = element("span", { className: "swatch small" });
    swatch.style.background = next.colour;
    line.append("next ", swatch, labelOf(next));
    caption.append(line);
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", [`Cluster ${labelOf(card)} in ${patch.case}`, ...lines].join(", "));
  tile.append(canvas, caption);
  return tile;
}

// Named clusters first, then the larger ones.
function inOrder(cards) {
  return [...cards].sort((one, other) => Number(!!other.name) - Number(!!one.name) || other.share - one.share || one.cluster - other.cluster);
}

// Least and largest value of the bars of each measurement.
function scalesOf(data, cards) {
  const scales = {};
  for (const name of Object.keys(data.words)) {
    const values = cards.flatMap(({ facts }) => [facts[`p10_${name}`], facts[`p90_${name}`]]).filter(Number.isFinite);
    if (values.length) scales[name] = [Math.min(...values), Math.max(...values)];
  }
  return scales;
}
