"""How much text stands out: the contrast ratio of WCAG 2.2, of colours, figures and pages."""

import re

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.text import Text

READABLE = 4.5  # WCAG 2.2, success criterion 1.4.3 (AA)


def luminance(colour):
    """Relative luminance of colours; their last axis is red, green, blue in 0..1."""
    parts = np.asarray(colour)
    parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return parts @ [0.2126, 0.7152, 0.0722]


def contrast(text, ground):
    """Contrast ratio of text, which may let something through, on a ground: names or RGB(A)."""
    *own, alpha = np.moveaxis(to_rgba(text) if isinstance(text, str) else np.array(text), -1, 0)
    ground = np.array(to_rgba(ground) if isinstance(ground, str) else ground)[..., :3]
    own = alpha * np.stack(own, axis=-1) + (1 - alpha) * ground
    light, dark = (f(luminance(own), luminance(ground)) for f in (np.maximum, np.minimum))
    return (light + 0.05) / (dark + 0.05)


def texts_of(figure):
    """Each text of a figure with its contrast to what was drawn under it, but for a tenth of it."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent() for text in texts]
    shown = {text.get_text(): to_rgba(text.get_color(), text.get_alpha()) for text in texts}
    for text in texts:
        text.set_alpha(0)
    figure.canvas.draw()
    under = np.asarray(figure.canvas.buffer_rgba())[::-1] / 255
    for text, box in zip(texts, boxes, strict=True):
        (x, y), (right, top) = np.maximum(box.min, 0).astype(int), np.ceil(box.max).astype(int)
        if (part := under[y:top, x:right]).size:
            yield text.get_text(), np.quantile(contrast(shown[text.get_text()], part), 0.1)


# Text of a page, its colour, and the colours behind it from the nearest to the farthest.
COLOURS = r"""root => {
  const found = [], style = getComputedStyle;
  const add = (element, text, colour) => {
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.push(style(at).backgroundColor);
    if (text.trim()) found.push([text.trim().slice(0, 40), colour, behind]);
  };
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, parent = text.parentElement;
    if (parent.closest('style, script, :disabled') || !parent.checkVisibility()) continue;
    add(parent, text.data, style(parent).color);
  }
  for (const field of root.querySelectorAll('input, textarea')) {
    if (!field.checkVisibility()) continue;
    add(field, field.value || 'typed', style(field).color);
    add(field, field.placeholder.replace('\u200b', ''), style(field, '::placeholder').color);
  }
  return found;
}"""


def texts_in(locator):
    """Each text in a part of a page, fields and their hints too, with its contrast."""
    for text, colour, behind in locator.evaluate(COLOURS):
        ground = np.ones(3)
        for layer in map(_rgba, reversed(behind)):
            ground = layer[3] * layer[:3] + (1 - layer[3]) * ground
        yield text, float(contrast(_rgba(colour), ground))


def _rgba(css):
    """A computed colour, such as rgb(0, 0, 0) or color(srgb 0 0 0 / 0.5)."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", css)]
    scale = 1 if css.startswith("color(srgb") else 255
    return np.array([*(n / scale for n in numbers[:3]), *(numbers[3:] or [1.0])])
