"""This file reads naming rules and applies them to cluster cards.

A *rule* describes one class in the terms of the field: conditions on facts of a cluster (`cards.FACTS`), whether
several clusters may carry the class, and which one to take where only one may. Rules are data: `rules/MODALITY.yaml`.
A rule that fits no cluster leaves its class empty; the nearest miss is said, and nothing is guessed. A class may also
be `background: true`, all clusters that no other class has taken, or lie `inside: CLASS`, where a refine step finds it.

*Distance* of a number from a bound: their difference as a share of the larger, 0 to 1; .6 and a bound of .3 are .5
apart. *Sure*: the distance from the nearest bound at which the verdict on a cluster would be another, 0 at it and 1 far
from it; it is no probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.naming.cards import FACTS, ClusterCard
from medseg.naming.classes import ClassEntry, Naming, class_entry, read_yaml, require_distinct, require_keys


@dataclass(frozen=True)
class Rule:
    """How one class is recognised.

    Attributes:
        entry: the class, without clusters.
        conditions: lower and upper bound by fact; infinite where open. All must hold.
        several: whether every cluster that fits carries the class, or one.
        prefer: the fact of which the highest value decides, where one cluster is wanted.
    """

    entry: ClassEntry
    conditions: Mapping[str, tuple[float, float]]
    several: bool
    prefer: str | None


CLOSE = 0.1
"""Distance of the preferred facts of two clusters up to which it is said that both fit a rule that wants one."""


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one cluster.

    Attributes:
        cluster: its number.
        name: of its class; None where it has none.
        sure: see above; 1 for an unused cluster.
        reason: a sentence with the numbers.
    """

    cluster: int
    name: str | None
    sure: float
    reason: str


@dataclass(frozen=True)
class _Decision:
    """One rule at its turn: the clusters that were left, those that fit, and those that it took."""

    rule: Rule
    free: Sequence[ClusterCard]
    fitting: Sequence[ClusterCard]
    taken: Sequence[ClusterCard]


def load_rules(name_or_path: str | Path) -> tuple[Rule, ...]:
    """Read rules that ride in the package (`tof_mra`) or stand in a file.

    Raises:
        MedsegError: no such rules, or the file breaks the schema; an unknown key names the nearest right one.
    """
    shipped = resources.files("medseg.naming") / "rules"
    names = sorted(Path(item.name).stem for item in shipped.iterdir() if item.name.endswith(".yaml"))
    if str(name_or_path) in names:
        with resources.as_file(shipped / f"{name_or_path}.yaml") as path:
            return _read_rules(path, where=f"rules {name_or_path}")
    if not Path(name_or_path).is_file():
        raise MedsegError(
            f"naming rules must be one of {', '.join(names)} or a YAML file, got {name_or_path}; correct `naming.rules`"
        )
    return _read_rules(Path(name_or_path), where=str(name_or_path))


def name_clusters(cards: Sequence[ClusterCard], rules: Sequence[Rule]) -> Naming:
    """Give classes to clusters by rules, in the rules' order; a cluster that a class has taken is gone for the next.

    Args:
        cards: what was measured, one card a cluster.
        rules: from `load_rules`.

    Returns:
        The naming, with a sentence for every class: which clusters carry it and by which numbers, or why none does.

    Raises:
        MedsegError: a rule asks for a fact that was not measured.
    """
    classes, reasons = [], []
    for decision in _decisions(cards, rules):
        entry = decision.rule.entry
        if entry.inside:
            classes.append(entry)
            reasons.append(f"{entry.name} has no cluster: it is found inside {entry.inside}")
            continue
        classes.append(replace(entry, clusters=tuple(sorted(card.cluster for card in decision.taken))))
        reasons += [_why(card, decision) for card in decision.taken] or [_why_none(decision.free, decision.rule)]
    return Naming(classes=tuple(classes), named_by="rules", reasons=tuple(reasons))


def verdicts(cards: Sequence[ClusterCard], rules: Sequence[Rule]) -> list[Verdict]:
    """What the rules say of each cluster, in the order of the cards; the names are those of `name_clusters`.

    Raises:
        MedsegError: a rule asks for a fact that was not measured.
    """
    decided = [decision for decision in _decisions(cards, rules) if not decision.rule.entry.inside]
    return [_verdict(card, decided) for card in cards]


def _decisions(cards: Sequence[ClusterCard], rules: Sequence[Rule]) -> list[_Decision]:
    found, taken = [], set[int]()
    for rule in rules:
        free = [card for card in cards if card.voxels and card.cluster not in taken]
        fitting = [] if rule.entry.inside else [card for card in free if not _misses(card, rule)]
        chosen = fitting
        if fitting and rule.prefer:
            chosen = [max(fitting, key=_by(rule.prefer))]
        taken.update(card.cluster for card in chosen)
        found.append(_Decision(rule, free, fitting, chosen))
    return found


def _verdict(card: ClusterCard, decided: Sequence[_Decision]) -> Verdict:
    if not card.voxels:
        return Verdict(card.cluster, None, 1.0, f"cluster {card.cluster} has no name: no sampled voxel is in it")
    sure = 1.0
    beaten = None
    for decision in decided:
        sure = min(sure, _sure(card, decision))
        if card in decision.taken:
            return Verdict(card.cluster, decision.rule.entry.name, sure, _why(card, decision))
        beaten = beaten or (decision if card in decision.fitting else None)
    if beaten is not None:
        winner, prefer = beaten.taken[0], beaten.rule.prefer or ""
        why = (
            f"it fits {beaten.rule.entry.name}, but cluster {winner.cluster} has the higher {_words(prefer)} "
            f"({_fact(winner, prefer):.3g}, here {_fact(card, prefer):.3g})"
        )
    elif decided:
        nearest = max(decided, key=lambda decision: -_sure(card, decision))
        why = f"nearest is {nearest.rule.entry.name}, but {', '.join(_misses(card, nearest.rule))}"
    else:
        why = "there is no rule for clusters"
    return Verdict(card.cluster, None, sure, f"cluster {card.cluster} has no name: {why}")


def _sure(card: ClusterCard, decision: _Decision) -> float:
    """How far a cluster is from the other answer of a rule: all bounds it misses, or the nearest of those it meets."""
    rule = decision.rule
    if rule.prefer and card in decision.fitting and card not in decision.taken:
        return _distance(_fact(card, rule.prefer), _fact(decision.taken[0], rule.prefer))
    if card in decision.fitting:
        met = [_distance(_fact(card, fact), bound) for fact, bounds in rule.conditions.items() for bound in bounds]
        rivals = [other for other in decision.fitting if other is not card]
        if rule.prefer:
            met += [_distance(_fact(card, rule.prefer), _fact(rival, rule.prefer)) for rival in rivals]
        return min(met, default=1.0)
    missed = [
        _distance(number, low if number < low else high)
        for number, (low, high) in ((_fact(card, fact), bounds) for fact, bounds in rule.conditions.items())
        if not low <= number <= high
    ]
    return max(missed, default=1.0)


def _by(fact: str) -> Callable[[ClusterCard], float]:
    return lambda card: _fact(card, fact)


def _distance(number: float, bound: float) -> float:
    """See above; 1 from an open bound, 0 for what is no number."""
    if math.isinf(bound):
        return 1.0
    if math.isnan(number):
        return 0.0
    return min(1.0, abs(number - bound) / max(abs(number), abs(bound), 1e-12))


def _read_rules(path: Path, *, where: str) -> tuple[Rule, ...]:
    content = read_yaml(path)
    require_keys(content, required=("classes",), optional=(), where=where)
    if not isinstance(content["classes"], list) or not content["classes"]:
        raise MedsegError(
            f"classes of {where} must be a list of rules, got {content['classes']!r}; begin each with `- `"
        )
    rules = [_rule(entry, index, f"rule {index + 1} of {where}") for index, entry in enumerate(content["classes"])]
    require_distinct([rule.entry for rule in rules], where=where)
    names = [rule.entry.name for rule in rules]
    for entry in (rule.entry for rule in rules):
        if entry.inside is not None and (entry.inside not in names or entry.inside == entry.name):
            raise MedsegError(
                f"inside of {entry.name} in {where} must be another class there, got {entry.inside!r}; correct it"
            )
    return tuple(rules)


def _rule(entry: Any, position: int, where: str) -> Rule:
    optional = ("colour", "code", "several", "prefer", "background", "conditions", "inside")
    require_keys(entry, required=("value", "name"), optional=optional, where=where)
    given = [key for key in ("conditions", "background", "inside") if entry.get(key)]
    if len(given) != 1:
        raise MedsegError(
            f"{where} must have one of conditions, background or inside, got {' and '.join(given) or 'none'}; "
            "conditions say which clusters it has, background: true takes the rest, inside: CLASS has none"
        )
    if given != ["conditions"]:
        return Rule(class_entry(entry, position=position, where=where), {}, several=True, prefer=None)
    require_keys(entry["conditions"], required=(), optional=FACTS, where=f"conditions of {where}")
    several, prefer = entry.get("several", False), entry.get("prefer")
    if not isinstance(several, bool):
        raise MedsegError(f"several of {where} must be true or false, got {several!r}; correct it")
    if several == (prefer is not None):
        raise MedsegError(
            f"{where} must have either `several: true` or `prefer`, got {'both' if several else 'neither'}; "
            "prefer names the fact whose highest value decides where one cluster is wanted"
        )
    if prefer is not None:
        require_keys({prefer: None}, required=(), optional=FACTS, where=f"prefer of {where}")
    bounds = {fact: _bounds(limit, f"{fact} of {where}") for fact, limit in entry["conditions"].items()}
    return Rule(class_entry(entry, position=position, where=where), bounds, several, prefer)


def _bounds(limit: Any, where: str) -> tuple[float, float]:
    require_keys(limit, required=(), optional=("min", "max"), where=where)
    numbers = [limit.get("min", -math.inf), limit.get("max", math.inf)]
    if not limit or any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise MedsegError(f"{where} must have numbers for min, max or both, got {limit!r}; write {{min: 0.3}}")
    if not numbers[0] <= numbers[1]:
        raise MedsegError(f"{where} must have min <= max, got {limit!r}; nothing could fit")
    return float(numbers[0]), float(numbers[1])


def _fact(card: ClusterCard, fact: str) -> float:
    if fact not in card.facts:
        raise MedsegError(
            f"naming rules must ask for measured facts ({', '.join(card.facts)}), got {fact}; "
            "change the rule or measure it"
        )
    return card.facts[fact]


def _misses(card: ClusterCard, rule: Rule) -> list[str]:
    """The conditions that a cluster does not meet, in words; a NaN meets none."""
    missed = []
    for fact, (low, high) in rule.conditions.items():
        number = _fact(card, fact)
        if not low <= number <= high:
            missed.append(f"{_words(fact)} {number:.3g} is {f'above {high:g}' if number > high else f'below {low:g}'}")
    return missed


def _why(card: ClusterCard, decision: _Decision) -> str:
    rule = decision.rule
    met = []
    for fact, (low, high) in rule.conditions.items():
        bounds = [f"at least {low:g}"] * math.isfinite(low) + [f"at most {high:g}"] * math.isfinite(high)
        met.append(f"{_words(fact)} {_fact(card, fact):.3g} ({' and '.join(bounds)})")
    if not rule.conditions:
        return f"cluster {card.cluster} is {rule.entry.name}: no other class has it"
    return f"cluster {card.cluster} is {rule.entry.name}: {', '.join(met)}{_preferred(card, decision)}"


def _preferred(card: ClusterCard, decision: _Decision) -> str:
    """Why one of several that fit was taken, and which other is about as good."""
    prefer = decision.rule.prefer
    if not prefer:
        return ""
    best = _fact(card, prefer)
    close = [
        f"{other.cluster} ({_fact(other, prefer):.3g})"
        for other in decision.fitting
        if other is not card and _distance(_fact(other, prefer), best) <= CLOSE
    ]
    words = f"; of those that fit it has the highest {_words(prefer)} ({best:.3g})"
    return f"{words}, but cluster {' and '.join(close)} fits nearly as well: look at both" if close else words


def _why_none(free: Sequence[ClusterCard], rule: Rule) -> str:
    """Why a class stays empty: the cluster that misses fewest conditions, and by what."""
    if not free:
        return f"no cluster is {rule.entry.name}: none is left"
    nearest = min(free, key=lambda card: len(_misses(card, rule)))
    misses = ", ".join(_misses(nearest, rule))
    return f"no cluster is {rule.entry.name}, its mask stays empty: nearest is cluster {nearest.cluster}, but {misses}"


def _words(fact: str) -> str:
    return fact.replace("_", " ")
