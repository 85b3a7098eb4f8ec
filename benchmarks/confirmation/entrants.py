"""Who takes part in the study, in the order of its tables."""

from typing import NamedTuple

GUARD = ", guard"  # how names of entrants end whose clients choose


class Entrant(NamedTuple):
    """A method as it takes part.

    Attributes:
        preset: Its name in fedpl.
        settings: What differs from the preset.
        told: Whether it is told the number of groups.
    """

    preset: str
    settings: tuple[tuple[str, object], ...] = ()
    told: bool = False


# A client may choose what it trains alone, too.
_GUARDED = (("client.guard", "validation"), ("baselines", ("local",)))
ENTRANTS = {
    "local": Entrant("local"),
    "average": Entrant("fedavg"),
    "average by size": Entrant("fedavg_by_size"),
    "true groups": Entrant("true_groups"),
    "fedbip": Entrant("fedbip"),
    "fedbip_h": Entrant("fedbip_h"),
    "fedbip_g": Entrant("fedbip_g"),
    "fedbip_t": Entrant("fedbip_t"),
    "fedbip_l": Entrant("fedbip_l"),
    "pfedgraph": Entrant("pfedgraph"),
    "ifca, told how many": Entrant("ifca", told=True),
    "clusters": Entrant("clusters"),
    "cfl": Entrant("cfl"),
    "fedamp": Entrant("fedamp"),
    "fedper": Entrant("fedper"),
    f"fedbip_h{GUARD}": Entrant("fedbip_h", _GUARDED),
    f"average{GUARD}": Entrant("fedavg", _GUARDED),
}
