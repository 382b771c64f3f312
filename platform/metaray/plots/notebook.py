"""How results look in a notebook: their text, and below it a picture."""

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_html(text: str, figure: "Figure | None" = None) -> str:
    """HTML of a result for a notebook, which needs nothing from elsewhere.

    Args:
        text: Text of the result, as it is printed.
        figure: Figure to show below the text; None for none.
    """
    shown = f"<pre>{html.escape(text)}</pre>"
    if figure is None:
        return shown
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return f'{shown}<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
