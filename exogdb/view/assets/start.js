/* ---- putting it together ---- */
let filterTimer = 0;
function laterApplyFilter() {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(applyFilter, 120);
}

function drawFromAddress() {
  viewFromAddress(location.hash);
  byId("filter").value = state.filter;
  byId("windowed").checked = state.windowed;
  for (const name of ["rows", "group"]) document.querySelector(`input[name=${name}][value=${state[name]}]`).checked = true;
  applyFilter();
  drawDetails();
}

function watchControls() {
  byId("filter").addEventListener("input", (event) => { state.filter = event.target.value; laterApplyFilter(); });
  byId("clear").addEventListener("click", () => setFilter(""));
  byId("windowed").addEventListener("change", (event) => { state.windowed = event.target.checked; applyFilter(); });
  byId("closer").addEventListener("click", () => zoom(0.5));
  byId("wider").addEventListener("click", () => zoom(2));
  byId("whole").addEventListener("click", () => setWindow(0, span));
  byId("previous").addEventListener("click", () => turnTo(page - 1));
  byId("next").addEventListener("click", () => turnTo(page + 1));
  for (const radio of document.querySelectorAll("input[type=radio]")) {
    radio.addEventListener("change", () => { state[radio.name] = radio.value; applyFilter(); });
  }
}

/* Canvases do not follow the page's colours and size by themselves. */
function watchWindow() {
  const paper = (isPaper) => { document.documentElement.classList.toggle("paper", isPaper); drawTimeline(); };
  window.addEventListener("resize", () => soon(drawTimeline));
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));
  window.addEventListener("hashchange", drawFromAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => soon(drawTimeline));
}

byId("keys").textContent = "Drag to move, Ctrl and wheel to zoom, drag above to choose a part, click a call to see it. "
  + "Keys: arrows or A D move, + − or W S zoom, 0 whole, N P next and previous call, Enter finds it in the table. "
  + "A bar lasts while nothing else is seen on the call's CPU; by process, a thin line follows while the call waits.";
drawHead();
findHeld();
watchTimeline();
watchControls();
watchWindow();
drawFromAddress();
document.documentElement.dataset.ready = "yes";
