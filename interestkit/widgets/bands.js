// A picture, and over each of its bands a button: one of them is pressed.

function render({ model, el }) {
  const box = document.createElement("div"), image = document.createElement("div");
  box.className = "ik-bands";
  box.append(image);
  el.append(box);

  function picture() { image.innerHTML = model.get("value"); } // an image alone, escaped in Python
  function bands() {
    const names = model.get("options"), places = model.get("places");
    while (box.children.length > 1 + names.length) box.lastChild.remove();
    names.forEach((name, n) => {
      const button = box.children[n + 1] ?? box.appendChild(document.createElement("button"));
      const [top, bottom] = places[n];
      button.type = "button";
      button.title = `List the users of: ${name}`; // text, never HTML
      button.setAttribute("aria-label", button.title);
      button.setAttribute("aria-pressed", n === model.get("chosen"));
      button.style.cssText = `top:${100 * top}%;height:${100 * (bottom - top)}%`;
      button.onclick = () => { model.set("chosen", n); model.save_changes(); };
    });
  }
  picture();
  bands();
  model.on("change:value", picture);
  model.on("change", bands);
  return () => { model.off("change:value", picture); model.off("change", bands); };
}
export default { render };
