"""Who helps whom, and the map of clients, as inline SVG."""

import math
from collections.abc import Collection, Sequence

from markupsafe import Markup

from fedpl.data.wording import readable
from fedpl.page.neighbours import Neighbours

_SIDE, _NAMED, _LONGEST = 460, 30, 13
_LETTER, _LINE = 6.6, 13.0  # a name's letter is so wide, its line so high


def graph(clients: Sequence[str], found: Neighbours, order: Sequence[int], number: int) -> Markup:
    """Clients on a circle, similar ones neighbours; an arrow from whom to who takes, as wide as the weight.

    Args:
        clients: Their ids.
        found: Edges and groups.
        order: The clients' order on the circle.
        number: The picture's own on its page.
    """
    radius = _SIDE / 2 - (104 if len(clients) <= _NAMED else 16)
    angle = {client: 2 * math.pi * place / len(order) - math.pi / 2 for place, client in enumerate(order)}
    middle = _SIDE / 2
    at = {i: (middle + radius * math.cos(a), middle + radius * math.sin(a)) for i, a in angle.items()}
    top = max((abs(edge.weight) for edge in found.edges), default=1.0)
    lines = []
    for edge in found.edges:
        (x, y), (to_x, to_y) = at[edge.giver], at[edge.taker]
        # Bent towards the middle, a little to the side so that the way back lies beside it, and short of the
        # node so that the arrow's head is seen.
        bend_x = 0.3 * (x + to_x) + 0.4 * middle + 0.08 * (to_y - y)
        bend_y = 0.3 * (y + to_y) + 0.4 * middle - 0.08 * (to_x - x)
        length = math.hypot(to_x - bend_x, to_y - bend_y) or 1.0
        end_x, end_y = (b + (c - b) * 9 / length for b, c in ((to_x, bend_x), (to_y, bend_y)))
        told = f"{readable(clients[edge.taker])} takes {edge.weight:.3g} from {readable(clients[edge.giver])}"
        lines.append(
            Markup(
                '<path class="edge{}{}" data-weight="{:.6g}" marker-end="url(#head-{})" '
                'stroke-width="{:.2f}" '
                'd="M{:.1f} {:.1f}Q{:.1f} {:.1f} {:.1f} {:.1f}"><title>{}</title></path>'
            ).format(
                " against" if edge.weight < 0 else "",
                " off" if abs(edge.weight) < found.threshold else "",
                abs(edge.weight),
                number,
                0.6 + 3 * abs(edge.weight) / top,
                x, y, bend_x, bend_y, end_x, end_y,
                told,
            )
        )  # fmt: skip
    nodes = []
    for i, (x, y) in at.items():
        name = Markup("")
        if len(clients) <= _NAMED:
            right = math.cos(angle[i]) > -0.01
            name = Markup('<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                x + (9 if right else -9),
                y + 4 + 8 * math.sin(angle[i]),
                "start" if right else "end",
                readable(clients[i], _LONGEST),
            )
        nodes.append(
            _node(clients[i], x, y, found.groups[i], False, min(5.5, 3 * radius / len(order))) + name
        )
    head = Markup(
        '<defs><marker id="head-{}" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0L6 3L0 6Z"/></marker></defs>'
    ).format(number)
    return _square("Who helps whom, last round", head + Markup("").join([*lines, *nodes]))


def scatter(clients: Sequence[str], found: Neighbours, harmed: Collection[str]) -> Markup:
    """Clients on the map: near ones are similar; harmed ones are squares with a border."""
    inner: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for place, i in sorted((tuple(map(float, place)), i) for i, place in enumerate(found.places)):
        client, (x, y) = clients[i], (_SIDE / 2 + (_SIDE / 2 - 30) * value for value in place)
        inner.append(_node(client, x, y, found.groups[i], client in harmed))
        if len(clients) <= _NAMED:
            name = readable(client, _LONGEST)
            start = x + 9 if x < _SIDE * 0.6 else x - 9 - _LETTER * len(name)
            line = _free(y, start, start + _LETTER * len(name), taken)
            inner.append(
                Markup('<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                    *((x + 9, line + 4, "start") if start > x else (x - 9, line + 4, "end")), name
                )
            )
    return _square("Map of clients, last round", Markup("").join(inner))


def _free(y: float, left: float, right: float, taken: list[tuple[float, float, float]]) -> float:
    """The line nearest to y on which a name from left to right meets no other; taken from then on."""
    for step in (side * number * _LINE / 2 for number in range(2 * _NAMED) for side in (1, -1)):
        if all(abs(y + step - line) >= _LINE or right < a or b < left for line, a, b in taken):
            taken.append((y + step, left, right))
            return y + step
    return y


def _node(client: str, x: float, y: float, group: int, harmed: bool, radius: float = 5.5) -> Markup:
    told = f"{readable(client)}, group {group + 1}{', harmed' if harmed else ''}"
    if harmed:
        return Markup(
            '<rect class="node group-{} harmed" x="{:.1f}" y="{:.1f}" width="11" height="11">'
            "<title>{}</title></rect>"
        ).format(group, x - 5.5, y - 5.5, told)
    return Markup(
        '<circle class="node group-{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    ).format(group, x, y, radius, told)


def _square(title: str, inner: Markup) -> Markup:
    return Markup('<svg class="square" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _SIDE, _SIDE, title, inner
    )
