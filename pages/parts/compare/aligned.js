// One picture laid over another: a slider mixes them, and Blink shows one and then the other.
export default function ({ data, parentElement }) {
  const [below, above] = parentElement.querySelectorAll("img");
  const slider = parentElement.querySelector("input");
  const blink = parentElement.querySelector("button");
  const over = parentElement.querySelector(".over");
  below.src = data.below;
  above.src = data.above;
  over.style.aspectRatio = `${data.size[0]} / ${data.size[1]}`;
  over.style.width = `min(100%, ${(52 * data.size[0]) / data.size[1]}vh)`;
  let timer = null;
  const show = () => { above.style.opacity = slider.value / 100; };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    blink.textContent = "Blink";
    show();
  };
  slider.oninput = stop;
  blink.onclick = () => {
    if (timer) return stop();
    blink.textContent = "Stop";
    let on = false;
    timer = setInterval(() => { on = !on; above.style.opacity = on ? 1 : 0; }, 700);
  };
  stop();
  return () => clearInterval(timer);
}
