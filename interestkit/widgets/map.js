// Points on a canvas: drawn pixel by pixel, so that 50,000 of them need no graphics card.

const GREY = "#B3B3B3", PALE = "#DEDEDE", STRONG = "#B34700", HEIGHT = 460, NEAR = 9;

const array = (Kind, view) =>
  new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

function pixel(hex) { // a colour as the canvas keeps it: alpha, blue, green, red
  const n = parseInt(hex.slice(1), 16);
  return (255 << 24 | (n & 255) << 16 | (n >> 8 & 255) << 8 | n >> 16) >>> 0;
}

function stamp(radius, keep) { // offsets of the pixels of a mark
  const spots = [], r = Math.ceil(radius);
  for (let y = -r; y <= r; y++)
    for (let x = -r; x <= r; x++) if (keep(x, y, radius)) spots.push([x, y]);
  return spots;
}
const disc = (x, y, r) => x * x + y * y <= r * r + 0.5;
const frame = (x, y, r) => Math.max(Math.abs(x), Math.abs(y)) <= r && Math.max(Math.abs(x), Math.abs(y)) > r - 1.2;
const ring = (x, y, r) => Math.abs(Math.hypot(x, y) - r) < 0.9;

function button(bar, text, act) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: text, className: "jupyter-button" });
  made.style.padding = "0 10px";
  made.addEventListener("click", act);
  bar.append(made);
  return made;
}

function render({ model, el }) {
  const [x, y] = ["x", "y"].map((name) => array(Float32Array, model.get(name)));
  const group = array(Uint16Array, model.get("group")), isUser = array(Uint8Array, model.get("is_user"));
  const names = model.get("names"), colours = model.get("colours").map(pixel);
  const grey = pixel(GREY), pale = pixel(PALE), strong = pixel(STRONG), black = pixel("#000000");
  let [cx, cy, zoom] = model.get("view"), lasso = null, isLasso = false, from = null, waits = false;
  let ratio = 1, image = null, marks = {};

  const bar = document.createElement("div"), box = document.createElement("div");
  const canvas = document.createElement("canvas"), tip = document.createElement("div");
  bar.style.cssText = "display:flex;gap:6px;margin:4px 0";
  box.style.cssText = "position:relative;overflow:hidden;border:1px solid #767676;background:white";
  canvas.style.cssText = `display:block;width:100%;height:${HEIGHT}px;touch-action:none`;
  tip.style.cssText = "position:absolute;pointer-events:none;background:#111;color:#fff;padding:2px 6px;"
    + "font-size:12px;max-width:24em;overflow-wrap:anywhere;display:none";
  tip.setAttribute("role", "status");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", model.get("label"));
  box.append(canvas, tip);
  el.append(bar, box);
  const context = canvas.getContext("2d");

  const unit = () => zoom * Math.min(canvas.width, canvas.height) / 2.1;
  const place = (i) => [(x[i] - cx) * unit() + canvas.width / 2, (cy - y[i]) * unit() + canvas.height / 2];

  function draw() {
    waits = false;
    if (!image) return;
    const pixels = new Uint32Array(image.data.buffer), { width, height } = image;
    pixels.fill(0xffffffff);
    const wanted = model.get("highlight"), u = unit(), midX = width / 2 - cx * u, midY = height / 2 + cy * u;
    const put = (i, spots, colour) => {
      const px = Math.round(x[i] * u + midX), py = Math.round(midY - y[i] * u);
      if (px < 8 || py < 8 || px >= width - 8 || py >= height - 8) return;
      const at = py * width + px;
      for (let k = 0; k < spots.length; k++) pixels[at + spots[k]] = colour;
    };
    for (let pass = 0; pass < 2; pass++) // what stands out is drawn last
      for (let i = 0; i < x.length; i++) {
        const isOut = wanted < 0 ? group[i] < colours.length : group[i] === wanted;
        if (isOut !== (pass === 1)) continue;
        const colour = wanted < 0 ? (isOut ? colours[group[i]] : grey) : isOut ? strong : pale;
        put(i, isUser[i] ? marks.frame : marks.disc, colour);
      }
    for (const i of array(Uint32Array, model.get("selected"))) put(i, marks.ring, black);
    context.putImageData(image, 0, 0);
    if (lasso) {
      context.beginPath();
      lasso.forEach(([a, b], n) => (n ? context.lineTo(a, b) : context.moveTo(a, b)));
      context.closePath();
      context.strokeStyle = "#000";
      context.setLineDash([4 * ratio, 3 * ratio]);
      context.stroke();
    }
  }
  const redraw = () => { if (!waits) { waits = true; requestAnimationFrame(draw); } };
  canvas.redraw = draw; // for tests, and to measure it

  function resize() {
    ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(Math.round(box.clientWidth * ratio), 40);
    canvas.height = Math.round(HEIGHT * ratio);
    image = context.createImageData(canvas.width, canvas.height);
    const flat = (spots) => spots.map(([a, b]) => b * canvas.width + a);
    const size = (x.length > 20000 ? 1.4 : x.length > 5000 ? 2 : 2.6) * ratio;
    marks = { disc: flat(stamp(size, disc)), frame: flat(stamp(size + 0.6, frame)), ring: flat(stamp(size + 3, ring)) };
    draw();
  }
  const keep = () => { model.set("view", [cx, cy, zoom]); model.save_changes(); };
  function look(a, b, c) { [cx, cy, zoom] = [a, b, Math.min(Math.max(c, 0.5), 200)]; redraw(); }
  function scale(by) { look(cx, cy, zoom * by); keep(); }
  function select(found) {
    model.set("selected", new DataView(Uint32Array.from(found).buffer));
    model.save_changes();
  }
  function nearest(px, py, most) {
    let best = -1, least = most * most;
    for (let i = 0; i < x.length; i++) {
      const [a, b] = place(i), d = (a - px) ** 2 + (b - py) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  }
  function inside(px, py) {
    let odd = false;
    for (let n = 0, m = lasso.length - 1; n < lasso.length; m = n++) {
      const [a, b] = lasso[n], [c, d] = lasso[m];
      if (b > py !== d > py && px < (c - a) * (py - b) / (d - b) + a) odd = !odd;
    }
    return odd;
  }
  const spot = (e) => {
    const edge = canvas.getBoundingClientRect();
    return [(e.clientX - edge.left) * ratio, (e.clientY - edge.top) * ratio];
  };

  const lassoButton = button(bar, "Lasso", () => {
    isLasso = !isLasso;
    lassoButton.setAttribute("aria-pressed", isLasso);
    lassoButton.textContent = isLasso ? "Lasso: on" : "Lasso";
    canvas.style.cursor = isLasso ? "crosshair" : "grab";
  });
  lassoButton.setAttribute("aria-pressed", false);
  button(bar, "Zoom in", () => scale(1.5));
  button(bar, "Zoom out", () => scale(1 / 1.5));
  button(bar, "Whole map", () => { look(0, 0, 1); keep(); });
  button(bar, "List what is in view", () => {
    const seen = [];
    for (let i = 0; i < x.length; i++) {
      const [a, b] = place(i);
      if (a >= 0 && b >= 0 && a < canvas.width && b < canvas.height) seen.push(i);
    }
    select(seen);
  });

  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    const [a, b] = spot(e);
    from = { a, b, cx, cy, moved: false };
    if (isLasso || e.shiftKey) lasso = [[a, b]];
  });
  canvas.addEventListener("pointermove", (e) => {
    const [a, b] = spot(e);
    if (from) {
      from.moved ||= Math.hypot(a - from.a, b - from.b) > 4 * ratio;
      tip.style.display = "none";
      if (lasso) lasso.push([a, b]);
      else look(from.cx - (a - from.a) / unit(), from.cy + (b - from.b) / unit(), zoom);
      redraw();
      return;
    }
    const i = nearest(a, b, NEAR * ratio);
    tip.style.display = i < 0 ? "none" : "block";
    if (i < 0) return;
    tip.textContent = names[i]; // text, never HTML
    tip.style.left = `${Math.min(a / ratio + 12, box.clientWidth - 180)}px`;
    tip.style.top = `${b / ratio + 12}px`;
  });
  canvas.addEventListener("pointerup", (e) => {
    const [a, b] = spot(e);
    if (lasso && from.moved) {
      const found = [];
      for (let i = 0; i < x.length; i++) if (inside(...place(i))) found.push(i);
      select(found);
    } else if (from && !from.moved) {
      const i = nearest(a, b, NEAR * ratio);
      select(i < 0 ? [] : [i]);
    } else keep();
    from = lasso = null;
    redraw();
  });
  canvas.addEventListener("pointerleave", () => (tip.style.display = "none"));
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const [a, b] = spot(e), by = e.deltaY < 0 ? 1.2 : 1 / 1.2, before = unit();
    const [px, py] = [(a - canvas.width / 2) / before, (canvas.height / 2 - b) / before];
    look(cx + px * (1 - 1 / by), cy + py * (1 - 1 / by), zoom * by);
    keep();
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = 0.2 / zoom;
    const acts = {
      ArrowLeft: () => look(cx - step, cy, zoom), ArrowRight: () => look(cx + step, cy, zoom),
      ArrowUp: () => look(cx, cy + step, zoom), ArrowDown: () => look(cx, cy - step, zoom),
      "+": () => scale(1.5), "=": () => scale(1.5), "-": () => scale(1 / 1.5), 0: () => look(0, 0, 1),
      Enter: () => {
        const i = nearest(canvas.width / 2, canvas.height / 2, canvas.width);
        select(i < 0 ? [] : [i]);
      },
    };
    if (!acts[e.key]) return;
    e.preventDefault();
    e.stopPropagation();
    acts[e.key]();
    keep();
  });
  const follow = () => { [cx, cy, zoom] = model.get("view"); redraw(); };
  model.on("change:view", follow);
  model.on("change:selected", redraw);
  model.on("change:highlight", redraw);
  const watcher = new ResizeObserver(resize);
  watcher.observe(box);
  return () => {
    watcher.disconnect();
    for (const name of ["view", "selected", "highlight"]) model.off(`change:${name}`);
  };
}
export default { render };
