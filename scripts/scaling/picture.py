"""The picture of docs/scaling.md."""

from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from scaling.hardware import H100, LINKS
from scaling.model import computed, efficiency
from scaling.report import VOCABULARIES, WAYS, large, short


def draw(path: Path) -> None:
    """Efficiency by devices, link and way, a panel for each vocabulary."""
    sizes, styles = [2**n for n in range(13)], ("-", "--", ":")
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for words, panel in zip(VOCABULARIES, panels, strict=True):
        for number, fields in enumerate(WAYS.values()):
            for link, style in zip(LINKS, styles, strict=True):
                setting = replace(large(words), **fields)
                shares = [efficiency(setting, H100, link, size) for size in sizes]
                panel.plot(sizes, shares, style, color=f"C{number}", lw=1.6)
        alone = large(words).tokens / computed(large(words), H100).total
        panel.set(title=f"V = {words:,}: one GPU {short(alone)} tokens/s", xlabel="GPUs")
        panel.set_xscale("log", base=2)
        panel.set_xticks([8**n for n in range(5)], [f"{8**n:,}" for n in range(5)])
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="efficiency, predicted", ylim=(0, 1.05))
    for number, way in enumerate(WAYS):
        panels[0].plot([], [], color=f"C{number}", lw=3, label=way)
    for link, style in zip(LINKS, styles, strict=True):
        panels[0].plot([], [], style, color="black", label=link.name)
    figure.legend(loc="outside lower center", ncols=7, fontsize=9)
    figure.savefig(path, dpi=110)
