"""TensorBoard's tabs: open one, wait until it has drawn, and say what is there to be seen.

Names of elements are those of TensorBoard 2.20 and 2.21; playwright's selectors see through the
shadow roots that most of it is hidden in.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

# Charts appear at once and move into place for a moment.
_SETTLE_MILLISECONDS = 1500


def open_tab(page: Any, address: str, tab: str, *, query: str = "", state: str = "") -> None:
    """Load a tab anew; TensorBoard does not look at an address that changes behind its `#`.

    Args:
        query: before the `#`: settings of the TIME SERIES tab.
        state: behind it: settings of the older tabs.
    """
    page.goto("about:blank")
    page.goto(f"{address}?{query}#{tab}{state}")


def settle(page: Any) -> None:
    """Wait for the network, then for what moves."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(_SETTLE_MILLISECONDS)


def time_series(page: Any, address: str, pinned: Sequence[str]) -> list[str]:
    """The tags of the cards in sight, `pinned` on top, without smoothing or the settings."""
    cards = json.dumps([{"plugin": "scalars", "tag": tag} for tag in pinned])
    open_tab(page, address, "timeseries", query=f"smoothing=0&pinnedCards={quote(cards)}")
    page.wait_for_selector("scalar-card line-chart canvas")
    settle(page)
    page.locator("metrics-dashboard-settings, .settings-toolbar button").first.wait_for()
    page.get_by_title("Toggle settings side pane").or_(
        page.get_by_label("Toggle settings side pane")
    ).first.click()
    settle(page)
    return _texts(page, "card-view .tag")


def custom_scalars(page: Any, address: str) -> dict[str, int]:
    """The charts of the layout by title, with the number of lines that each has drawn."""
    open_tab(page, address, "custom_scalars", state="&_smoothingWeight=0")
    card = "tf-custom-scalar-multi-line-chart-card"
    page.wait_for_selector(f"{card} path.line", state="attached")
    settle(page)
    charts = page.locator(card)
    return {
        _texts(chart, ".heading-label")[0]: chart.locator("path.line").count()
        for chart in (charts.nth(number) for number in range(charts.count()))
    }


def hparams(page: Any, address: str) -> list[dict[str, str]]:
    """The table of runs: a row for each, by the names of the columns."""
    open_tab(page, address, "hparams")
    page.wait_for_selector("vaadin-grid-cell-content:has-text('/tensorboard')", state="attached")
    settle(page)
    names = _texts(page, ".table-header")
    cells = _texts(page, "vaadin-grid-cell-content")
    # Cells that the table keeps in store come first; rows begin with the name of a run.
    starts = [number for number, text in enumerate(cells) if text.endswith("tensorboard")]
    return [dict(zip(names, cells[start : start + len(names)], strict=True)) for start in starts]


def texts(page: Any, address: str, tag: str) -> list[str]:
    """The texts of a tag, one run after the other, the newest first."""
    open_tab(page, address, "text", state=f"&tagFilter={quote(f'^{tag}')}")
    page.wait_for_selector("tf-text-loader tf-markdown-view", state="attached")
    settle(page)
    # What the filter does not match stays on the page, in categories further down.
    matching = page.locator("tf-category-paginated-view").first
    views = matching.locator("tf-text-loader tf-markdown-view #markdown").all_text_contents()
    return [text.strip() for text in views if text.strip()]


def images(page: Any, address: str) -> int:
    """How many pictures the IMAGES tab shows."""
    open_tab(page, address, "images")
    page.wait_for_selector("tf-image-loader img")
    settle(page)
    return int(page.locator("tf-image-loader img").count())


def histograms(page: Any, address: str) -> int:
    """How many charts the HISTOGRAMS tab shows."""
    open_tab(page, address, "histograms")
    page.wait_for_selector("tf-histogram-loader vz-histogram-timeseries", state="attached")
    settle(page)
    return int(page.locator("tf-histogram-loader vz-histogram-timeseries").count())


def tabs(page: Any, address: str) -> list[str]:
    """The tabs that have something to show."""
    open_tab(page, address, "timeseries")
    page.wait_for_selector("plugin-selector-component .mat-mdc-tab, plugin-selector-component a")
    settle(page)
    named = page.locator("plugin-selector-component").inner_text().splitlines()
    return [name.strip().lower() for name in named if name.strip()]


def _texts(place: Any, selector: str) -> list[str]:
    """What is written in the elements, in the order of the page."""
    return [" ".join(text.split()) for text in place.locator(selector).all_text_contents()]
