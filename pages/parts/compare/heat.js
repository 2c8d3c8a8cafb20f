// Two pictures, and on each what its places add to the score. A click on a place of one shows what
// that place adds together with each place of the other. data.parts: int16 in base64, all places
// of the first times all places of the second, in steps of data.step.
// data.colours: of places that add to the score, and of those that take from it.
export default function ({ data, parentElement }) {
  const bytes = Uint8Array.from(atob(data.parts), (letter) => letter.charCodeAt(0));
  const parts = new Int16Array(bytes.buffer);
  const counts = data.sides.map(({ grid }) => grid[0] * grid[1]);
  const value = (first, second) => parts[first * counts[1] + second] * data.step;
  const sides = [...parentElement.querySelectorAll(".side")];
  const note = parentElement.querySelector(".note");
  let chosen = null; // [which picture, which place]

  const map = (which) => {
    const one = (place, other) => (which ? value(other, place) : value(place, other));
    return Array.from({ length: counts[which] }, (_, place) => {
      if (chosen) return chosen[0] === which ? 0 : one(place, chosen[1]);
      let sum = 0;
      for (let other = 0; other < counts[1 - which]; other++) sum += one(place, other);
      return sum;
    });
  };

  const paint = () => {
    const maps = [map(0), map(1)];
    sides.forEach((side, which) => {
      const { size, box, grid } = data.sides[which];
      const most = Math.max(1e-9, ...maps[which].map(Math.abs));
      const small = new OffscreenCanvas(grid[1], grid[0]);
      const pixels = small.getContext("2d").createImageData(grid[1], grid[0]);
      maps[which].forEach((part, place) => {
        const strength = Math.abs(part) / most;
        pixels.data.set(data.colours[part < 0 ? 1 : 0], 4 * place);
        pixels.data[4 * place + 3] = 200 * strength;
      });
      small.getContext("2d").putImageData(pixels, 0, 0);
      const canvas = side.querySelector("canvas");
      canvas.width = 640;
      canvas.height = Math.round((640 * size[1]) / size[0]);
      const [x, y] = [canvas.width / size[0], canvas.height / size[1]];
      const area = [box[0] * x, box[1] * y, (box[2] - box[0]) * x, (box[3] - box[1]) * y];
      const pen = canvas.getContext("2d");
      pen.imageSmoothingQuality = "high";
      if (!chosen || chosen[0] !== which) pen.drawImage(small, ...area);
      else {
        const [w, h] = [area[2] / grid[1], area[3] / grid[0]];
        const [column, row] = [chosen[1] % grid[1], Math.floor(chosen[1] / grid[1])];
        for (const [width, colour] of [[7, "#000"], [4, "#f0e442"]]) {
          pen.lineWidth = width;
          pen.strokeStyle = colour;
          pen.strokeRect(area[0] + column * w, area[1] + row * h, w, h);
        }
      }
    });
    note.textContent = chosen
      ? `This place adds ${maps[1 - chosen[0]].reduce((a, b) => a + b, 0).toFixed(4)} to the score. Click it again, or press Space, to see all places.`
      : data.note;
  };

  sides.forEach((side, which) => {
    const { src, alt, size, box, grid } = data.sides[which];
    const picture = side.querySelector("img");
    if (picture.getAttribute("src") !== src) picture.src = src;
    picture.alt = alt;
    side.style.aspectRatio = `${size[0]} / ${size[1]}`;
    side.tabIndex = 0;
    side.role = "application"; // the arrow keys are for the picture
    side.ariaLabel = `Places of the picture: ${alt}`;
    side.onkeydown = (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid[1], ArrowDown: grid[1], " ": 0 };
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault(); // the dialog must not scroll
      const place = chosen && chosen[0] === which ? chosen[1] + steps[event.key] : 0;
      if (event.key === " ") chosen = null;
      else if (place >= 0 && place < counts[which]) chosen = [which, place];
      paint();
    };
    side.onclick = (event) => {
      const area = picture.getBoundingClientRect();
      const x = ((event.clientX - area.left) / area.width) * size[0];
      const y = ((event.clientY - area.top) / area.height) * size[1];
      const column = Math.floor(((x - box[0]) / (box[2] - box[0])) * grid[1]);
      const row = Math.floor(((y - box[1]) / (box[3] - box[1])) * grid[0]);
      const inside = column >= 0 && row >= 0 && column < grid[1] && row < grid[0];
      const place = row * grid[1] + column;
      const again = chosen && chosen[0] === which && chosen[1] === place;
      chosen = inside && !again ? [which, place] : null;
      paint();
    };
  });
  paint();
}
