"""What a cell of an executed notebook printed and showed, as HTML that can do no harm."""

import html
import itertools
import re
from collections.abc import Sequence
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
TAGS = frozenset(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em h1 h2 h3 h4 h5 "
    "h6 hr i img li mark ol p pre q s small span strong sub summary sup table tbody td tfoot th "
    "thead tr u ul var".split()
)
ATTRIBUTES = ("class", "style", "title", "colspan", "rowspan", "scope", "open", "start")
_FRAME = re.compile(r'(?s)<table[^>]*class="dataframe".*?</table>')


def outputs_html(outputs: Sequence[Any], markdown: Any, about: str) -> str:
    """All outputs of a cell as HTML.

    Args:
        outputs: Of the notebook format, version 4.
        markdown: A function from Markdown to safe HTML.
        about: What a figure without words of its own shows.
    """
    return "".join(_output(output, markdown, about) for output in _joined(outputs))


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """The outputs with what was printed to one stream in one piece, where its first part stood.

    A progress bar writes a piece for each state; between them may stand a figure that grows.
    """
    import nbformat

    joined, streams = [], {}
    for output in outputs:
        if output.output_type != "stream":
            joined.append(output)
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = nbformat.from_dict(output)
            joined.append(streams[output.name])
    return joined


def _output(output: Any, markdown: Any, about: str) -> str:
    """One output as HTML: a figure, a table, or text."""
    if output.output_type == "stream":
        return _plain(output.text, output.name)
    if output.output_type == "error":
        return _plain("\n".join(output.traceback) or f"{output.ename}: {output.evalue}", "error")
    data = output.data
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            encoded = re.sub(r"[^A-Za-z0-9+/=]", "", data[kind])
            words = data.get("text/plain", "<")
            words = html.escape(f"Figure: {about}" if words.startswith("<") else words)
            return f'<p class="figure"><img alt="{words}" src="data:{kind};base64,{encoded}"></p>'
    if WIDGET in data:
        return '<p class="note">Open the notebook to use the control that stands here.</p>'
    if "text/html" in data:
        safe = _FRAME.sub(_numbers_right, safe_html(data["text/html"]))
        return f'<div class="output wide">{safe}</div>'
    if "text/markdown" in data:
        return f'<div class="output">{markdown(data["text/markdown"])}</div>'
    return _plain(data.get("text/plain", ""), "stdout")


def _numbers_right(frame: re.Match) -> str:
    """A data frame of Polars whose columns of numbers have a class, by the row of their types."""
    types = re.findall(r"<td>(.*?)</td>", frame[0].partition("<tbody>")[0])
    columns = itertools.cycle([bool(re.fullmatch(r"[iuf]\d+", kind)) for kind in types] or [False])
    number = ' class="ik-n"'
    return re.sub(
        r"<(t[hd])>", lambda cell: f"<{cell[1]}{number if next(columns) else ''}>", frame[0]
    )


def _plain(text: str, kind: str) -> str:
    """Terminal text: colours go, and of a line that was written over the last state stays."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text).replace("\r\n", "\n")
    text = re.sub(r"[^\n]*\r(?!\n|$)", "", text).strip("\n")
    text = re.sub(r"(?m)^\S*ipykernel_\d+\S*:\d+: (?=\w+Warning: )", "", text)  # a file of no use
    return f'<pre class="output {kind}">{html.escape(text)}</pre>' if text.strip() else ""


def safe_html(text: str) -> str:
    """HTML with layout tags only: no script, no style sheet, no form, no picture from afar."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    text = re.sub(r"(?is)<(style|script|svg|math)\b.*?</\1\s*>", "", text)
    return bleach.clean(
        text,
        tags=TAGS,
        attributes=_may_stay,
        protocols=["data", "http", "https", "mailto"],
        css_sanitizer=CSSSanitizer(),
        strip=True,
    )


def _may_stay(tag: str, name: str, value: str) -> bool:
    """Whether an attribute stays: layout, anchors of headings, links, pictures in the file."""
    if name == "id":
        return bool(re.fullmatch(r"h\d", tag))
    if (tag, name) == ("a", "href"):
        return value.startswith(("#", "http://", "https://", "mailto:"))
    if (tag, name) == ("img", "src"):
        return value.startswith("data:image/")
    return name in ATTRIBUTES or (tag, name) == ("img", "alt")
