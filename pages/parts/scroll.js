// Where one was on a page: the way back leads there, and a click can ask for a part of the page.
const scroller = () => document.querySelector('[data-testid="stMain"]');
const MENU = 50; // pixels at the top that the menu lies over
const key = () => `scroll ${location.pathname}`;
const BY_HAND = ["wheel", "pointerdown", "keydown"]; // from then on the visitor leads

function keep() {
  let timer = null;
  document.addEventListener("scroll", (event) => {
    if (event.target !== scroller()) return;
    const page = key();
    clearTimeout(timer);
    // A page that is being left jumps to its top: what does not last is no place.
    timer = setTimeout(() => {
      if (page === key()) sessionStorage.setItem(page, String(scroller().scrollTop));
    }, 300);
  }, true);
  window.addEventListener("popstate", () => {
    const top = Number(sessionStorage.getItem(key()) || 0);
    if (!top) return;
    clearTimeout(timer);
    let ticks = 0;
    let there = 0;
    const stop = () => { clearInterval(going); };
    // The page that is left may stand here for some seconds, and the other one begins at its top.
    const going = setInterval(() => {
      const main = scroller();
      const running = document.querySelector('[data-test-script-state="running"]');
      if (running || !main || main.scrollHeight - main.clientHeight < top) there = 0;
      else if (Math.abs(main.scrollTop - top) > 2) main.scrollTop = top;
      else there += 1;
      if (there > 12 || ++ticks > 600) stop();
    }, 100);
    for (const name of BY_HAND) {
      window.addEventListener(name, stop, { once: true });
    }
  });
}

// Scroll until this part of the page is in sight: until it is drawn, there may be nowhere to go.
function bring(name) {
  let ticks = 0;
  let still = 0; // ticks in a row in which it is in sight: pictures above it may come later
  const going = setInterval(() => {
    const part = document.querySelector(name);
    const top = part?.getBoundingClientRect().top;
    // It is in sight where it begins in the upper half of the screen, and not above its place.
    const place = part && Math.max(MENU, parseFloat(getComputedStyle(part).scrollMarginTop) - 8);
    const there = top > place && top < window.innerHeight / 2;
    if (!there) part?.scrollIntoView({ behavior: "smooth", block: "start" });
    const running = document.querySelector('[data-test-script-state="running"]');
    still = there && !running ? still + 1 : 0;
    if (still > 2 || (!running && ++ticks > 25)) clearInterval(going);
  }, 400);
  for (const name of BY_HAND) {
    window.addEventListener(name, () => { clearInterval(going); }, { once: true });
  }
}

// On a phone the menu lies over the page: it goes when a page was chosen. A slow one may take a
// while to hear of it.
function closeMenu() {
  const button =
    '[data-testid="stSidebar"][data-collapsed="false"] [data-testid="stSidebarCollapseButton"] button';
  document.addEventListener("click", (event) => {
    if (window.innerWidth >= 768 || !event.target.closest('[data-testid="stSidebarNavLink"]')) return;
    let ticks = 0;
    const closing = setInterval(() => {
      document.querySelector(button)?.click();
      if (++ticks > 9) clearInterval(closing);
    }, 100);
  });
}

// A link to a part of the page scrolls there. For the browser's way back it is no step.
function followInPlace() {
  document.addEventListener("click", (event) => {
    const part = event.target.closest('a[href^="#"]')?.getAttribute("href");
    if (!part) return;
    event.preventDefault();
    bring(part);
  });
}

// An address that a page completes by itself is no step of the way back.
function completeInPlace() {
  const push = history.pushState.bind(history);
  history.pushState = (state, title, address) => {
    const to = new URL(address ?? "", document.baseURI);
    const completed = to.pathname === location.pathname && !location.search;
    (completed ? history.replaceState.bind(history) : push)(state, title, address);
  };
}

export default function ({ data }) {
  if (!window.scrollIsKept) {
    window.scrollIsKept = true;
    window.scrollShown = {};
    keep();
    closeMenu();
    followInPlace();
    completeInPlace();
  }
  if (data.show && data.number !== window.scrollShown[data.show]) {
    window.scrollShown[data.show] = data.number;
    bring(`.st-key-${data.show}`);
  }
}
