"""Breaks the protocol of coherence in many ways, one at a time; the checker must catch each within a minute."""

from tests.coherence.mutants import CATCH_S, MUTANTS, hunt


def prove(dose: float) -> dict[str, object]:
    """Hunts every mutant, or a share of them."""
    names = list(MUTANTS)[: max(1, round(len(MUTANTS) * min(dose, 1.0)))]
    caught = [hunt(name, seed=1) for name in names]
    return {
        "mutants": len(caught),
        "caught": sum(bool(one.by) for one in caught),
        "longest_s": max(one.seconds for one in caught),
        "faults": [f"{one.name}: not caught within {CATCH_S:g} s" for one in caught if not one.by],
    }
