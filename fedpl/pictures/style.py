"""What pictures have in common: colours, legends."""

from matplotlib.figure import Figure

# Told apart without seeing red or green, and in grey.
COLOURS = {"local": "#9aa5b1", "fedavg": "#d98c5f", "aggregated": "#2a6f97", "tuned": "#89c2d9"}


def plain_legend(figure: Figure, ncols: int) -> None:
    """A legend below; names are what they are, also with a $ in them, which would begin a formula."""
    for text in figure.legend(fontsize=8, ncols=ncols, loc="outside lower center").get_texts():
        text.set_parse_math(False)
