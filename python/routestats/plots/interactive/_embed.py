"""BokehJS and layouts as HTML that needs neither network nor kernel nor extension."""

from __future__ import annotations

import json
import uuid
from html import escape
from typing import Any

from routestats.plots._draw.bokeh import require_bokeh

# Of BokehJS's bundles those that the figures use; WebGL, tables and MathJax would triple the size.
COMPONENTS = ("bokeh", "bokeh-widgets")
WAIT_MS, WAITS = 100, 600

_SHOW = """\
<div id="{id}"></div>
<p id="{id}-note"><em>Interactive figure: {text}. It needs JavaScript: open the notebook in Jupyter
and trust it, or run it.</em></p>
<script>
(function attempt(left) {{
  if (window.Bokeh === undefined) {{
    if (left > 0) setTimeout(attempt, {wait}, left - 1);
    return;
  }}
  document.getElementById("{id}-note").remove();
  window.Bokeh.embed.embed_item({item}, "{id}");
}})({waits});
</script>"""


class Html:
    """HTML that a notebook displays; `str` is the HTML, `print` in a terminal shows what it is."""

    def __init__(self, html: str, text: str) -> None:
        self.html = html
        self.text = text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"<{self.text}>"

    def __str__(self) -> str:
        return self.html


def load() -> Html:
    """BokehJS itself, about 1.7 MB: once per page, before the first `show`.

    Raises
    ------
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.resources import Resources

    scripts = Resources(mode="inline", components=list(COMPONENTS)).js_raw
    body = "\n".join(
        "<script>" + script.replace("</script", "<\\/script") + "</script>" for script in scripts
    )
    return Html(body, "BokehJS")


def show(layout: Any) -> Html:
    """A layout, to be the last expression of a notebook's cell, or part of a page after `load`.

    Raises
    ------
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.embed import json_item

    element = f"routestats-{uuid.uuid4().hex}"
    item = json.dumps(json_item(layout, element), separators=(",", ":"))
    # In strings, which is where JSON can have it, this is the same; it cannot end the script.
    item = item.replace("<", "\\u003c")
    text = layout.name or type(layout).__name__
    return Html(
        _SHOW.format(id=element, item=item, text=escape(text), wait=WAIT_MS, waits=WAITS),
        f"interactive figure: {text}",
    )
