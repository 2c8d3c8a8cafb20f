// Two pictures side by side with their matches as lines; inliers first, outliers when asked for.
const SVG = "http://www.w3.org/2000/svg";
const make = (name, attributes) => {
  const element = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
};

let drawn = 0; // makes the ids of the page differ

export default function ({ data, parentElement }) {
  const id = `side-${drawn++}`;
  const svg = parentElement.querySelector("svg");
  const note = parentElement.querySelector(".note");
  const toggle = parentElement.querySelector("input");
  toggle.closest("label").hidden = !data.matches.some((match) => !match.inlier);
  // Pictures of one height; a phone has them one above the other.
  const wide = svg.getBoundingClientRect().width;
  const narrow = wide < 560;
  const GAP = 12;
  const place = data.sides.map(({ size }) => {
    const factor = narrow ? 1000 / size[0] : 1000 / size[1];
    return { factor, width: size[0] * factor, height: size[1] * factor, x: 0, y: 0 };
  });
  if (narrow) place[1].y = place[0].height + GAP;
  else place[1].x = place[0].width + GAP;
  const width = narrow ? 1000 : place[1].x + place[1].width;
  const height = narrow ? place[1].y + place[1].height : 1000;
  svg.setAttribute("aria-label", data.label);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const at = (which, [x, y]) => [
    place[which].x + x * place[which].factor, place[which].y + y * place[which].factor,
  ];
  svg.style.maxHeight = narrow ? "88vh" : "56vh";
  const unit = Math.max(width / wide, height / ((narrow ? 0.88 : 0.56) * window.innerHeight)); // a screen pixel
  data.sides.forEach(({ src }, which) => {
    const { x, y, width: w, height: h } = place[which];
    svg.append(make("image", { href: src, x, y, width: w, height: h }));
  });
  place.forEach(({ x, y, width: w, height: h }, which) => {
    const clip = make("clipPath", { id: `${id}-${which}` });
    clip.append(make("rect", { x, y, width: w, height: h }));
    svg.append(clip);
  });
  data.sides.forEach(({ outline }, which) => {
    if (!outline) return;
    const points = outline.map((corner) => at(which, corner).join(",")).join(" ");
    for (const [wide, stroke] of [[5, "#000"], [2.5, "#f0e442"]]) {
      svg.append(make("polygon", {
        points, fill: "none", stroke, "stroke-width": wide * unit, "clip-path": `url(#${id}-${which})`,
      }));
    }
  });
  let chosen = null; // the match that was clicked: it is shown while none is pointed at
  const draw = (match) => {
    const [[x1, y1], [x2, y2]] = [at(0, match.a), at(1, match.b)];
    const colour = match.inlier ? "#0072b2" : "#e69f00";
    const group = make("g", {});
    const line = make("line", {
      x1, y1, x2, y2, stroke: colour, "stroke-width": 1.4 * unit, "stroke-opacity": 0.8,
      "stroke-dasharray": match.inlier ? "none" : `${4 * unit} ${3 * unit}`,
    });
    const edge = make("line", { x1, y1, x2, y2, stroke: "#fff", "stroke-width": 3 * unit, "stroke-opacity": 0.5 });
    const ends = [[x1, y1], [x2, y2]].map(([cx, cy]) => make("circle", {
      cx, cy, r: 3 * unit, fill: colour, stroke: "#fff", "stroke-width": unit,
    }));
    const hit = make("line", { x1, y1, x2, y2, class: "hit", "stroke-width": 12 * unit });
    // The squares that the two keypoints see, inside their pictures.
    const fields = [match.a, match.b].flatMap(([x, y], which) => {
      const side = match.sides[which] * place[which].factor;
      const [cx, cy] = at(which, [x, y]);
      return side ? [[4, "#000"], [2, "#fff"]].map(([wide, stroke]) => make("rect", {
        x: cx - side / 2, y: cy - side / 2, width: side, height: side, fill: "none", stroke,
        "stroke-width": wide * unit, "clip-path": `url(#${id}-${which})`, visibility: "hidden",
      })) : [];
    });
    group.append(...fields, edge, line, ...ends, hit); // the pale edge is seen on a dark picture
    group.show = () => {
      group.parentNode.append(group); // above the others, and still among its kind
      fields.forEach((field) => field.setAttribute("visibility", "visible"));
      line.setAttribute("stroke-width", 4 * unit);
      line.setAttribute("stroke", "#f0e442");
      ends.forEach((end) => end.setAttribute("r", 8 * unit));
      note.textContent = `${match.inlier ? "Inlier" : "Outlier"}, similarity ${match.similarity.toFixed(2)}.`
        + (fields.length ? " The squares are what the two keypoints see." : "");
    };
    group.hide = () => {
      fields.forEach((field) => field.setAttribute("visibility", "hidden"));
      line.setAttribute("stroke-width", 1.4 * unit);
      line.setAttribute("stroke", colour);
      ends.forEach((end) => end.setAttribute("r", 3 * unit));
      note.textContent = data.note;
    };
    group.onpointerenter = () => { chosen?.hide(); group.show(); };
    group.onpointerleave = () => { group.hide(); chosen?.show(); };
    group.onclick = () => {
      chosen?.hide();
      chosen = chosen === group ? null : group;
      chosen?.show(); // a finger has left by now
    };
    return group;
  };
  const outliers = make("g", {});
  const inliers = make("g", {});
  data.matches.forEach((match) => (match.inlier ? inliers : outliers).append(draw(match)));
  svg.append(outliers, inliers);
  toggle.onchange = () => { outliers.style.display = toggle.checked ? "" : "none"; };
  toggle.onchange();
  note.textContent = data.note;
}
