// Where one was on a page: the way back leads there, and a click can ask for a part of the page.
const scroller = () => document.querySelector('[data-testid="stMain"]');
const key = () => `scroll ${location.pathname}`;

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
    for (const name of ["wheel", "touchstart", "keydown"]) {
      window.addEventListener(name, stop, { once: true });
    }
  });
}

// On a phone the menu lies over the page: it goes when a page was chosen.
function closeMenu() {
  document.addEventListener("click", (event) => {
    if (window.innerWidth < 768 && event.target.closest('[data-testid="stSidebarNavLink"]')) {
      setTimeout(() => {
        document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
      }, 100);
    }
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
    window.scrollShown = 0;
    keep();
    closeMenu();
    completeInPlace();
  }
  if (data.number > window.scrollShown) {
    window.scrollShown = data.number;
    setTimeout(() => {
      document.querySelector(`.st-key-${data.show}`)
        ?.scrollIntoView({ behavior: "smooth", block: "start" });
    }, 400);
  }
}
