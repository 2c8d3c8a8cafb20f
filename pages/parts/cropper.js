// Draw, move and resize one box on a picture. Python owns the box: it comes in as data and goes
// out as a trigger, in pixels of the full picture, so a reload or a shared link shows the same one.
const REACH = 22; // how near a corner a finger must be, in screen pixels
const LEAST = 8; // smallest side that retrieval.images.check_box accepts, in picture pixels

export default function ({ data, parentElement, setTriggerValue }) {
  const stage = parentElement.querySelector(".stage");
  if (stage.drawing) return; // a new run of the page must not end a box that is being drawn
  const frame = stage.querySelector(".frame");
  const shade = stage.querySelector(".shade");
  const [width, height] = data.size;
  const crop = stage.querySelector(".crop");
  const picture = stage.querySelector("img");
  if (picture.getAttribute("src") !== data.src) {
    picture.src = data.src;
    clearTimeout(stage.pause); // a box that keys drew on another picture
    stage.pause = 0;
  }
  picture.alt = data.alt;
  // As wide as the column, but never so tall that the page cannot be scrolled beside it, or that no
  // result fits below it on a phone.
  const tall = window.innerWidth < 640 ? 26 : 38; // hundredths of the height of the screen
  stage.style.width = `min(100%, ${(tall * width) / height}vh)`;
  stage.style.aspectRatio = `${width} / ${height}`;

  const clamp = (value, top) => Math.min(Math.max(value, 0), top);
  const upright = ([x1, y1, x2, y2]) => [
    Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2),
  ];
  const whole = (box) => upright(box).map(Math.round);
  const usable = (box) => box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST;
  const shifted = ([x1, y1, x2, y2], dx, dy) => {
    dx = Math.min(Math.max(dx, -x1), width - x2);
    dy = Math.min(Math.max(dy, -y1), height - y2);
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  };

  // What keys drew meanwhile is newer than the box of this run of the page.
  let box = stage.pause ? stage.moved : data.box;
  // A finger must reach the corners of the box: the button goes where it covers none of them.
  const makeRoom = () => {
    const wide = picture.clientWidth;
    const places = [["auto 0", wide - 40], ["auto", wide / 2], ["0 auto", 40]]; // margin, middle
    const corners = box && box[3] / height > 1 - 68 / picture.clientHeight ? [box[0], box[2]] : [];
    const room = ([, middle]) =>
      Math.min(...corners.map((x) => Math.abs((x * wide) / width - middle)));
    crop.style.marginInline = places.sort((a, b) => room(b) - room(a))[0][0];
  };
  const show = () => {
    if (!stage.drawing) makeRoom();
    for (const one of [frame, shade]) {
      one.hidden = !box;
      if (!box) continue;
      const [x1, y1, x2, y2] = upright(box);
      one.style.left = `${(100 * x1) / width}%`;
      one.style.top = `${(100 * y1) / height}%`;
      one.style.width = `${(100 * (x2 - x1)) / width}%`;
      one.style.height = `${(100 * (y2 - y1)) / height}%`;
    }
  };
  const send = () => {
    clearTimeout(stage.pause);
    stage.pause = 0;
    setTriggerValue("box", box);
  };
  show();

  // A finger draws in crop mode only: else it scrolls the page. A mouse always draws.
  crop.onclick = () => {
    crop.setAttribute("aria-pressed", stage.classList.toggle("cropping"));
  };

  stage.onpointerdown = (down) => {
    if (down.button || down.target === crop) return; // the main button, a finger or a pen only
    if (down.pointerType === "touch" && !stage.classList.contains("cropping")) return;
    const area = picture.getBoundingClientRect();
    const at = (event) => [
      clamp(((event.clientX - area.left) * width) / area.width, width),
      clamp(((event.clientY - area.top) * height) / area.height, height),
    ];
    const start = at(down);
    const before = box;
    // A corner is dragged from the opposite one; inside, the box moves; elsewhere a new one starts.
    let anchor = start;
    let moving = false;
    if (box) {
      const reach = (REACH * width) / area.width;
      const [x1, y1, x2, y2] = box;
      const near = [[x1, y1, x2, y2], [x2, y1, x1, y2], [x1, y2, x2, y1], [x2, y2, x1, y1]]
        .map(([x, y, otherX, otherY]) => ({
          far: Math.hypot(x - start[0], y - start[1]), anchor: [otherX, otherY],
        }))
        .sort((a, b) => a.far - b.far)[0];
      if (near.far < reach) anchor = near.anchor;
      else moving = start[0] > x1 && start[0] < x2 && start[1] > y1 && start[1] < y2;
    }
    stage.setPointerCapture(down.pointerId);
    stage.drawing = true;
    stage.onpointermove = (event) => {
      const now = at(event);
      box = moving
        ? shifted(before, now[0] - start[0], now[1] - start[1])
        : [...anchor, ...now];
      show();
    };
    stage.onpointerup = stage.onpointercancel = (event) => {
      stage.onpointermove = stage.onpointerup = stage.onpointercancel = null;
      stage.drawing = false;
      const drawn = event.type === "pointerup" && box !== before && whole(box);
      box = drawn && usable(drawn) ? drawn : before; // a click or a hair's breadth changes nothing
      show();
      if (String(box) !== String(before)) send();
    };
  };

  // Arrow keys move the box, with Shift they resize it; Delete clears it.
  stage.onkeydown = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // Alt+ArrowLeft is Back
    if (event.key === "Delete" || event.key === "Backspace") box = null;
    else {
      const direction = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      }[event.key];
      if (!direction) return;
      const step = Math.max(1, Math.round(Math.max(width, height) / 50));
      const [dx, dy] = direction.map((value) => value * step);
      const old = box || [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4];
      const next = whole(event.shiftKey
        ? [old[0], old[1], clamp(old[2] + dx, width), clamp(old[3] + dy, height)]
        : box ? shifted(old, dx, dy) : old);
      if (usable(next)) box = next;
    }
    event.preventDefault();
    show();
    stage.moved = box;
    clearTimeout(stage.pause); // one answer after the last key, not one for each
    stage.pause = setTimeout(send, 500);
  };
}
