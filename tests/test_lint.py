"""What lint proves, against brute force over everything a small signal can say; and each kind of finding on a config of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead import config
from fairlead.conditions import holds, parse
from fairlead.errors import ConfigError, FairleadError
from fairlead.guards import Guards
from fairlead.guards import read as read_guards
from fairlead.lint import Finding, Report, lint, routes
from fairlead.lint.fuzz import fuzz, prompts
from fairlead.lint.mistakes import read
from fairlead.lint.space import cells
from fairlead.policies.random import Random
from fairlead.policies.rules import Rules
from fairlead.pool import Eligibility
from fairlead.signals.base import Law, Range, Signal, implies
from fairlead.types import Query, Reading, Signals

pytest.importorskip("z3")

DOMAIN: dict[str, tuple[Any, ...]] = {
    "value": (0, 1, 2, 3),
    "flag": (False, True),
    "word": ("x", "y", "z"),
    "count": (None, 0, 1),
}


class Small(Signal):
    """Says one of a few things."""

    @property
    def slow(self) -> bool:
        return False

    def ranges(self) -> Mapping[str, Range]:
        return {
            "value": Range(kind="int", low=0, high=3),
            "flag": Range(kind="bool"),
            "word": Range(kind="string", among=("x", "y", "z")),
            "count": Range(kind="int", low=0, high=1, null=True),
        }

    def laws(self) -> Sequence[Law]:
        return (implies({"flag": True}, {"value": {"ge": 2}}), implies({"word": "z"}, {"count": None}))

    def _read(self, query: Query) -> Reading:
        return Reading(value=0, parts={"flag": False, "word": "x"})


class Slow(Signal):
    """May come late."""

    @property
    def slow(self) -> bool:
        return True

    def ranges(self) -> Mapping[str, Range]:
        return {"flag": Range(kind="bool", null=True)}

    def _read(self, query: Query) -> Reading:
        return Reading(parts={"flag": False})


def everything() -> list[Signals]:
    """All that the two can say together."""
    found = []
    for value, flag, word, count in itertools.product(*DOMAIN.values()):
        if (flag and value < 2) or (word == "z" and count is not None):
            continue
        parts = {"flag": flag, "word": word} | ({} if count is None else {"count": count})
        small = Reading(value=value, parts=parts)
        for slow in (
            Reading(late=True, confidence=0.0),
            Reading(),
            Reading(parts={"flag": True}),
            Reading(parts={"flag": False}),
        ):
            found.append(Signals(readings={"small": small, "slow": slow}))
    return found


ALL = everything()
LATE = [
    Signals(readings={"small": Reading(late=True, confidence=0.0), "slow": slow})
    for slow in (s.readings["slow"] for s in ALL[:4])
]
"""What they can say besides if the fast one breaks."""
TARGETS = ("a", "b", "c")


def made(rules: Rules, guards: Sequence[dict[str, Any]] = ()) -> config.Config:
    """Return a config whose only signals are the two."""
    base = config.make(
        {"targets": {n: {"type": "scripted"} for n in TARGETS}, "routes": {"auto": {"policy": "random"}}}
    )
    file = config.File(targets={}, routes={"auto": config.RouteConfig(policy=None)}, guards=list(guards))
    rules.check()
    return config.Config(
        drivers=base.drivers,
        policies={"auto": rules},
        signals={"small": Small(), "slow": Slow()},
        guards=read_guards(guards, path="$.guards"),
        file=file,
    )


leaves = st.one_of(
    st.builds(
        lambda op, v: {"small": {op: v}}, st.sampled_from(["gt", "ge", "lt", "le", "eq", "ne"]), st.integers(-1, 4)
    ),
    st.builds(lambda v: {"small.flag": v}, st.booleans()),
    st.builds(
        lambda v: {"small.word": {"in": v}}, st.lists(st.sampled_from(["x", "y", "z", "w"]), min_size=1, max_size=2)
    ),
    st.builds(lambda v: {"small.count": v}, st.sampled_from([None, 0, 1, 0.5])),
    st.builds(lambda v: {"slow.flag": v}, st.sampled_from([None, True, False])),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=5,
)
some_rules = st.lists(
    st.builds(
        lambda when, use, priority: {"when": when, "use": use, "priority": priority},
        conditions,
        st.sampled_from(TARGETS),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=5,
)
some_guards = st.lists(
    st.builds(
        lambda when, never, late: {"when": when, "never": never, "late": late},
        conditions,
        st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3, unique=True),
        st.sampled_from(["holds", "passes"]),
    ),
    max_size=3,
).map(lambda found: [{"name": f"g{i}", **g} for i, g in enumerate(found)])


def of(report: Report, kind: str) -> list[Finding]:
    return [f for f in report.findings if f.kind == kind]


def indexes(findings: Sequence[Finding]) -> set[int]:
    return {int(f.path.split("rules[")[1].split("]")[0]) for f in findings}


@settings(max_examples=60, deadline=None)
@given(some_rules)
def test_rules_against_brute_force(data: list[dict[str, Any]]) -> None:
    rules = Rules(rules=data)
    report = lint(made(rules))
    true = [[holds(rule.when, s) for rule in rules.parsed] for s in ALL]
    order = sorted(range(len(data)), key=lambda i: -data[i]["priority"])
    first = {next((i for i in order if row[i]), None) for row in true}
    never = {i for i in range(len(data)) if not any(row[i] for row in true)}
    assert indexes(of(report, "never_holds")) == never
    assert indexes(of(report, "shadowed")) == set(range(len(data))) - never - first
    assert bool(of(report, "dead_zone")) == (None in first)
    assert any("every input is covered by a rule" in said for said in report.proved) == (None not in first)
    both = {
        (i, j)
        for j in range(len(data))
        for i in range(j)
        if data[i]["priority"] == data[j]["priority"]
        and data[i]["use"] != data[j]["use"]
        and any(r[i] and r[j] for r in true)
    }
    said = {
        tuple(sorted(int(w.split("#")[1].split("'")[0]) - 1 for w in f.message.split(" and ")[:2]))
        for f in of(report, "conflict")
    }
    assert said == both
    for f in of(report, "conflict") + of(report, "dead_zone"):
        assert f.witness is not None


@settings(max_examples=60, deadline=None)
@given(some_guards, conditions, st.sampled_from(TARGETS), st.booleans())
def test_guards_against_brute_force(data: list[dict[str, Any]], when: dict[str, Any], use: str, required: bool) -> None:
    rules = Rules(rules=[{"when": when, "use": use, "required": required}], default="a")
    built = made(rules, data)
    report = lint(built)
    guards = Guards(built.guards)
    everybody = Eligibility(targets=tuple(d.target for d in built.drivers.values()), excluded={})
    outcome = [(s, guards.apply(s, everybody)) for s in ALL]
    assert bool(of(report, "impasse")) == any(not g.eligible.targets for _, g in outcome)
    never = {g.name for g in guards.guards if not any(holds(g.when, s) for s in ALL)}  # type: ignore[arg-type]
    assert {f.message.split("'")[1] for f in of(report, "guard_never")} == never
    asked = [(g, use in {t.name for t in g.eligible.targets}) for s, g in outcome if holds(rules.parsed[0].when, s)]
    taken = [f for f in of(report, "taken_away") if not f.path.endswith(".default")]
    assert bool(taken) == any(not left for _, left in asked)
    if taken:
        always = not any(left for _, left in asked)
        levels = {(True, True): "error", (True, False): "warning", (False, True): "warning", (False, False): "note"}
        assert taken[0].level == levels[always, required]


@settings(max_examples=60, deadline=None)
@given(some_guards, some_rules, st.sampled_from([None, "refuse", "a"]))
def test_what_is_covered_against_brute_force(
    guards: list[dict[str, Any]], data: list[dict[str, Any]], default: str | None
) -> None:
    rules = Rules(rules=data, default=default)
    built = made(rules, guards)
    report = lint(built)
    asked = Guards(built.guards)
    everybody = Eligibility(targets=tuple(d.target for d in built.drivers.values()), excluded={})
    left = [(s, {t.name for t in asked.apply(s, everybody).eligible.targets}) for s in ALL]
    nobody = not all(any(holds(rule.when, s) for rule in rules.parsed) for s in ALL)
    passed = [(s, who) for s, who in left if who and rules.judge(s, who).rule is rules.otherwise]
    if default == "a":
        assert bool(of(report, "dead_zone")) == nobody
        stands_in = any("a" not in who for _, who in passed)
        assert any(f.path.endswith(".default") for f in of(report, "taken_away")) == stands_in
        return
    lost = any(any(holds(rule.when, s) for rule in rules.parsed) for s, _ in passed)
    assert bool(of(report, "dead_zone")) == (nobody or lost)
    assert any("no dead zones" in said for said in report.proved) == (not lost and (not nobody or default is not None))


@settings(max_examples=60, deadline=None)
@given(some_guards, some_rules, st.sampled_from([None, "a"]))
def test_what_is_proved_holds_of_signals_that_break(
    guards: list[dict[str, Any]], data: list[dict[str, Any]], default: str | None
) -> None:
    rules = Rules(rules=data, default=default)
    built = made(rules, guards)
    report = lint(built)
    asked = Guards(built.guards)
    everybody = Eligibility(targets=tuple(d.target for d in built.drivers.values()), excluded={})

    def left(signals: Signals) -> set[str]:
        return {t.name for t in asked.apply(signals, everybody).eligible.targets}

    nobody = any(not left(s) for s in LATE)
    lost = any((who := left(s)) and rules.judge(s, who).use is None for s in LATE)
    late = of(report, "late")
    if "route auto: no guards leave a query without a target" in report.proved:
        assert not nobody
    if "rules auto: no dead zones, every input is covered by a rule" in report.proved:
        assert not lost
    assert not any(f.path.startswith("$.guards") for f in late) or nobody
    assert not any(f.path.endswith(".rules") for f in late) or lost


@settings(max_examples=40, deadline=None)
@given(conditions)
def test_single_tests_against_brute_force(when: dict[str, Any]) -> None:
    from fairlead.conditions import leaves as leaves_of

    report = lint(made(Rules(rules=[{"when": when, "use": "a"}])))
    at = "$.routes.auto.policy.rules[0].when"
    for path, test in leaves_of(when, at):
        true = {holds(test, s) for s in ALL}
        assert (path in {f.path for f in of(report, "test_always")}) == (true == {True})
        assert (path in {f.path for f in of(report, "test_never")}) == (true == {False})


@settings(max_examples=40, deadline=None)
@given(some_rules, st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_fuzzy_rules_against_brute_force(data: list[dict[str, Any]], threshold: float) -> None:
    rules = Rules(rules=data, fuzzy=True, threshold=threshold)
    report = lint(made(rules))
    steps = sorted(
        {
            0.0,
            1.0,
            threshold,
            1 - threshold,
            threshold / 2,
            (1 + threshold) / 2,
            (2 - threshold) / 2,
            (1 - threshold) / 2,
        }
    )
    first, ever = set(), set()
    for s in ALL[::1]:
        for sure in steps:
            for slow in (0.0,) if s.readings["slow"].late else (0.0, 1.0, threshold):
                import msgspec

                seen = Signals(
                    readings={
                        "small": msgspec.structs.replace(s.readings["small"], confidence=sure),
                        "slow": msgspec.structs.replace(s.readings["slow"], confidence=slow),
                    }
                )
                standing = [r.path for r, _ in rules.standing(seen)]
                ever |= set(standing)
                first.add(standing[0] if standing else None)
    every = {r.path for r in rules.parsed}
    # What brute force finds must not be denied: it tries not every confidence.
    assert {f"$.rules[{i}]" for i in indexes(of(report, "never_holds"))} <= every - ever
    if None in first:
        assert of(report, "dead_zone")
    if of(report, "dead_zone"):
        assert of(report, "dead_zone")[0].witness is not None
    assert not {f"$.rules[{i}]" for i in indexes(of(report, "shadowed"))} & first


# ------------------------------------------------------------------------------------------------------ kind by kind


def text(rules: str, more: str = "") -> str:
    return f"""
targets:
  local: {{type: scripted, profile: {{tags: [local]}}}}
  big: {{type: scripted}}
  small: {{type: scripted}}
{more}
routes:
  auto:
    policy:
      type: rules
{rules}
"""


def linted(rules: str, more: str = "") -> Report:
    return lint(config.make(yaml.safe_load(text(rules, more))))


def test_a_clean_config_is_proved() -> None:
    report = linted(
        """
      rules:
        - {name: long, when: {length.tokens: {gt: 4000}}, use: big}
        - {name: short, when: {length.tokens: {le: 4000}}, use: small}
"""
    )
    (late,) = report.findings
    assert (late.level, late.kind, late.witness) == ("note", "late", {"length (late)": True})
    assert report.clean
    assert report.proved == (
        "rules auto: each of the 2 rules can hold, and decides some query",
        "rules auto: no two rules that do different things hold together",
        "rules auto: no dead zones, every input is covered by a rule, as long as all signals can be read",
    )
    assert (report.rules, report.guards) == (2, 0)


def test_a_config_that_late_signals_do_not_hurt_is_proved_without_reserve() -> None:
    report = linted(
        """
      rules:
        - {name: long, when: {length.tokens: {gt: 4000}}, use: big}
        - {name: rest, when: {not: {length.tokens: {gt: 4000}}}, use: small}
"""
    )
    assert report.findings == ()
    assert "rules auto: no dead zones, every input is covered by a rule" in report.proved


def test_guards_on_a_fast_signal_that_breaks_may_leave_nobody() -> None:
    """Of two guards that never hold together both do where the signal they read breaks."""
    guards = """
guards:
  - {name: code, when: {marks.code: true}, only: [local]}
  - {name: text, when: {marks.code: false}, never: [local]}
"""
    report = linted("\n      default: small\n", guards)
    assert not of(report, "impasse")
    (late,) = of(report, "late")
    assert (late.level, late.path, late.witness) == ("warning", "$.guards[1]", {"marks (late)": True})
    assert late.message.startswith("if marks is late, guards 'code' and 'text' together leave no target")
    assert "route auto: no guards leave a query without a target, as long as all signals can be read" in report.proved
    passes = linted("\n      default: small\n", guards.replace("only: [local]", "only: [local], late: passes"))
    assert not of(passes, "late")
    assert "route auto: no guards leave a query without a target" in passes.proved


def test_a_required_rule_may_lose_its_target_where_a_signal_breaks() -> None:
    report = linted(
        """
      rules:
        - {name: code, when: {marks.code: true}, use: big, required: true}
      default: small
""",
        "guards: [{name: long, when: {length.tokens: {gt: 9}, marks.code: false}, never: [big]}]",
    )
    (late,) = of(report, "late")
    assert (late.level, late.path) == ("note", "$.routes.auto.policy.rules[0]")
    assert late.witness == {"length (late)": True, "marks.code": True}


def test_to_ask_whether_a_signal_could_be_read_is_no_mistake() -> None:
    report = linted(
        """
      rules:
        - {name: broken, when: {length.tokens: null}, use: big}
        - {name: fine, when: {length.tokens: {ne: null}}, use: small}
"""
    )
    assert [(f.level, f.kind) for f in report.findings] == [("note", "never_holds")]
    assert "but where a signal is late" in report.findings[0].message
    assert "rules auto: no dead zones, every input is covered by a rule" in report.proved


def test_the_reason_why_a_rule_never_holds() -> None:
    report = linted(
        """
      rules:
        - {name: thin, when: {length.digits: {gt: 1.2}}, use: big}
        - {name: torn, when: {length.tokens: {gt: 9}, marks.code: true, length.words: {lt: 3, gt: 3}}, use: big}
        - {name: law, when: {marks: 0, marks.code: true}, use: big}
        - {name: gap, when: {length.tokens: {gt: 5, lt: 6}}, use: big}
      default: small
"""
    )
    said = {f.message for f in of(report, "never_holds")}
    assert said == {
        "rule 'thin' never holds: length.digits > 1.2 is never true",
        "rule 'torn' never holds: length.words < 3 and length.words > 3 cannot hold together",
        "rule 'law' never holds: marks is 0 and marks.code is true cannot hold together",
        "rule 'gap' never holds: length.tokens > 5 and length.tokens < 6 cannot hold together",
    }
    (never,) = of(report, "test_never")
    assert never.message == "never true: length.digits > 1.2; length.digits is a number from 0 to 1"
    assert never.path == "$.routes.auto.policy.rules[0].when.length.digits.gt"


def test_what_shadows_a_rule_is_named_and_no_more() -> None:
    report = linted(
        """
      rules:
        - {name: idle, when: {marks.url: true}, use: big}
        - {name: long, when: {length.tokens: {gt: 100}}, use: {refuse: "too long"}}
        - {name: short, when: {length.tokens: {le: 200}}, use: refuse}
        - {name: never, when: {marks.code: true}, use: small}
        - {name: again, when: {marks.url: true, marks.code: false}, use: small}
"""
    )
    shadowed = {f.path: f.message for f in of(report, "shadowed")}
    assert "wherever it holds, 'long' or 'short' does" in shadowed["$.routes.auto.policy.rules[3]"]
    assert "never decides" in shadowed["$.routes.auto.policy.rules[3]"]
    assert len(shadowed) == 2


def test_a_backup_rule_decides_where_the_first_is_passed_over() -> None:
    report = linted(
        """
      rules:
        - {name: one, when: {marks.code: true}, use: big}
        - {name: two, when: {marks.code: true}, use: small}
      default: local
"""
    )
    (found,) = of(report, "shadowed")
    assert "decides only where 'one' is passed over" in found.message


def test_priorities_make_a_conflict_a_warning() -> None:
    two = """
      rules:
        - {{name: code, when: {{marks.code: true}}, use: big{0}}}
        - {{name: long, when: {{length.tokens: {{gt: 4000}}}}, use: small{1}}}
      default: local
"""
    (note,) = of(linted(two.format("", "")), "conflict")
    assert note.level == "note"
    (warning,) = of(linted(two.format(", priority: 1", ", priority: 1")), "conflict")
    assert warning.level == "warning"
    assert warning.witness == {"marks.code": True, "length.tokens": 4001}
    assert not of(linted(two.format(", priority: 1", ", priority: 2")), "conflict")


def test_what_falls_to_the_default_is_a_note() -> None:
    rules = "\n      rules:\n        - {name: code, when: {marks.code: true}, use: big}\n"
    (note,) = of(linted(rules + "      default: small\n"), "dead_zone")
    assert (note.level, note.witness) == ("note", {"marks.code": False})
    (warning,) = of(linted(rules), "dead_zone")
    assert (warning.level, warning.witness) == ("warning", {"marks.code": False})


LOCAL = 'guards: [{name: private, when: {pii.found: true}, only: ["tag:local"]}]'


@pytest.mark.parametrize("use", ["big", "{among: [big, small], policy: any}"])
def test_rules_that_a_guard_leaves_nobody_for_cover_nothing(use: str) -> None:
    rules = f"""
      rules:
        - {{name: long, when: {{length.tokens: {{gt: 100}}}}, use: {use}}}
        - {{name: short, when: {{length.tokens: {{le: 100}}}}, use: {use}}}
      policies: {{any: random}}
"""
    report = linted(rules, LOCAL)
    (zone,) = of(report, "dead_zone")
    assert (zone.level, report.clean) == ("warning", False)
    assert "guard 'private'" in zone.message
    assert zone.witness is not None
    assert zone.witness.get("pii.found") is True or zone.witness.get("pii (late)") is True
    assert not any("dead zones" in said for said in report.proved)
    assert of(linted(rules + "      default: refuse\n", LOCAL), "dead_zone")
    assert not of(linted(rules + "      default: local\n", LOCAL), "dead_zone")
    assert not of(linted(rules.replace("big", "local"), LOCAL), "dead_zone")


def test_a_default_that_a_guard_takes_away_or_that_blocks_is_told() -> None:
    rules = "\n      rules:\n        - {name: code, when: {marks.code: true}, use: local}\n"
    report = linted(rules + "      default: big\n", LOCAL)
    (note,) = of(report, "taken_away")
    assert note.path.endswith(".default")
    assert "stands in" in note.message
    (note,) = of(linted(rules + "      default: {use: local, do: [block]}\n"), "dead_zone")
    assert "refused by the default" in note.message


@pytest.mark.parametrize("use", ["refuse", "small", "{among: [small], policy: any}"])
def test_what_a_firm_rule_takes_does_not_get_to_the_rules_inside(use: str) -> None:
    report = linted(
        f"""
      rules:
        - {{name: closed, when: {{length.tokens: {{gt: 100}}}}, use: {use}}}
        - {{name: rest, when: {{length.tokens: {{ge: 0}}}}, use: {{policy: inner}}}}
      policies:
        any: random
        inner: {{type: rules, rules: [{{name: short, when: {{length.tokens: {{le: 100}}}}, use: big}}]}}
"""
    )
    assert not of(report, "dead_zone")
    assert any("inner: no dead zones" in said for said in report.proved)


def test_rules_that_are_asked_among_some_targets_have_no_others() -> None:
    rules = """
      rules:
        - {name: code, when: {marks.code: true}, use: {policy: inner, among: [small]}}
      default: small
      policies:
        inner: {type: rules, rules: [{name: all, when: {not: {length.tokens: null}}, use: big}]}
"""
    report = linted(rules)
    assert [f.path.rpartition("inner.")[2] for f in of(report, "dead_zone") if f.level == "warning"] == ["rules"]
    (taken,) = of(report, "taken_away")
    assert (taken.level, taken.path.rpartition(".")[2]) == ("warning", "rules[0]")
    assert not any("inner: no dead zones" in said for said in report.proved)
    both = linted(rules.replace("among: [small]", "among: [small, big]"))
    assert not of(both, "taken_away")
    assert any("inner: no dead zones" in said for said in both.proved)
    guarded = linted(rules.replace("among: [small]", "among: [small, big]"), LOCAL.replace("tag:local", "small"))
    assert of(guarded, "dead_zone")


def test_what_holds_at_every_number_is_known_of_those_in_the_config() -> None:
    """The higher of two numbers is not above both; two kinds are not one finding."""
    report = linted("""
      rules:
        - {name: user, when: {injection.user: {ge: 0.5}}, use: big}
        - {name: tool, when: {injection.tool: {ge: 0.5}}, use: big}
        - {name: calm, when: {injection: {lt: 0.5}}, use: small}
        - {name: none, when: {injection: null}, use: small}
""")
    assert not of(report, "dead_zone")
    assert "rules auto: no two rules that do different things hold together" in report.proved
    report = linted("""
      rules:
        - {name: one, when: {pii: 1}, use: big, priority: 1}
        - {name: two, when: {pii.email: true, pii.phone: true}, use: small, priority: 1}
      default: small
""")
    assert not of(report, "conflict")


def test_a_guard_of_one_route_is_told_to_be_one() -> None:
    made_ = yaml.safe_load(text("\n      default: small\n"))
    made_["routes"]["auto"]["guards"] = [{"name": "private", "when": {"pii.found": True}, "never": ["big"]}]
    (note,) = of(lint(config.make(made_)), "one_route")
    assert (note.level, note.path) == ("note", "$.routes.auto.guards[0]")
    assert "big" in note.message
    assert "another route" not in note.message
    made_["routes"]["other"] = {"policy": "random"}
    assert "another route" in of(lint(config.make(made_)), "one_route")[0].message
    made_["guards"] = made_["routes"]["auto"].pop("guards")
    assert not of(lint(config.make(made_)), "one_route")


def test_a_number_beyond_all_readings_is_refused() -> None:
    with pytest.raises(ConfigError, match="that large"):
        linted(f"\n      rules: [{{when: {{length: {{gt: 1{'0' * 400}}}}}, use: big}}]\n      default: small\n")


def test_a_late_signal_falls_through_rules_and_holds_in_guards() -> None:
    rules = Rules(rules=[{"when": {"slow.flag": True}, "use": "a"}, {"when": {"slow.flag": False}, "use": "b"}])
    report = lint(made(rules, [{"name": "g", "when": {"slow.flag": True}, "never": ["a", "b", "c"]}]))
    (zone,) = of(report, "dead_zone")
    assert zone.witness is not None
    assert None in zone.witness.values() or zone.witness == {"slow (late)": True}
    (impasse,) = of(report, "impasse")
    assert impasse.path == "$.guards[0]"
    never = Rules(default="a")
    (guard,) = of(lint(made(never, [{"name": "g", "when": {"slow.flag": 3}, "never": ["a"]}])), "guard_never")
    assert "but where a signal it reads is late" in guard.message


def test_confidence_is_not_proved_but_dead_zones_are() -> None:
    report = linted(
        """
      strategy: confidence
      rules:
        - {name: a, when: {marks.code: true}, use: big}
        - {name: b, when: {marks.code: true}, use: small}
        - {name: c, when: {marks.code: false}, use: small}
"""
    )
    assert [f.kind for f in report.findings] == ["not_proved", "late"]
    assert any("every input is covered" in said for said in report.proved)


def test_rules_inside_rules_are_judged_by_what_gets_there() -> None:
    report = linted(
        """
      rules:
        - {name: code, when: {marks.code: true}, use: {policy: inner}}
      default: small
      policies:
        inner:
          type: rules
          rules:
            - {name: long, when: {length.tokens: {gt: 99}}, use: big}
            - {name: rest, when: {length.tokens: {le: 99}, marks.code: true}, use: small}
            - {name: lost, when: {marks.code: false}, use: small}
"""
    )
    assert [f.message for f in of(report, "never_holds")] == [
        "rule 'lost' never holds: no query for which it could gets here"
    ]
    assert any(
        said.startswith("rules auto.policy.policies.inner: no dead zones, every input is covered by a rule")
        for said in report.proved
    )


def test_named_conditions_are_said_once_where_they_stand() -> None:
    more = """
conditions:
  odd: {length.digits: {ge: 0}}
guards:
  - {name: g, when: odd, do: [tag]}
"""
    rules = (
        "\n      rules:\n        - {name: r, when: {all: [odd, {marks.code: true}]}, use: big}\n      default: small\n"
    )
    assert [f.path for f in of(linted(rules, more), "test_always")] == ["$.conditions.odd.length.digits.ge"]


def test_a_blocking_guard_is_no_impasse() -> None:
    more = """
guards:
  - {name: stop, when: {marks.code: true}, never: [local, big, small], do: [block]}
"""
    rules = "\n      rules:\n        - {name: code, when: {marks.code: true}, use: big, required: true}\n      default: small\n"
    report = linted(rules, more)
    assert not of(report, "impasse")
    (found,) = of(report, "taken_away")
    assert (found.level, "a guard blocks the query" in found.message) == ("note", True)


def test_a_witness_that_does_not_check_is_lints_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "holds", lambda condition, signals: False)
    with pytest.raises(FairleadError, match="internal error of lint"):
        linted("\n      rules:\n        - {name: code, when: {marks.code: true}, use: big}\n      default: small\n")


def test_z3_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[rules\]'"):
        linted("\n      default: small\n      rules: [{when: {marks.code: true}, use: big}]\n")


# ----------------------------------------------------------------------------------------------------------- cells


def numbers() -> Iterator[Any]:
    return itertools.chain(range(-6, 7), (x / 4 for x in range(-24, 25)))


@given(
    st.sampled_from(["int", "number"]),
    st.one_of(st.none(), st.integers(-5, 0)),
    st.one_of(st.none(), st.integers(1, 5)),
    st.lists(st.one_of(st.integers(-5, 5), st.sampled_from([-1.5, 0.25, 0.5, 2.5])), max_size=4),
)
def test_no_value_is_told_from_all_cells(kind: Any, low: int | None, high: int | None, constants: list[float]) -> None:
    """Whatever a value passes of tests against the constants, some cell's value passes too; and every cell is within the range."""
    from fairlead.conditions import passes
    from fairlead.signals.base import within

    allowed = Range(kind=kind, low=low, high=high)
    found = cells(allowed, constants)
    assert all(within(v, allowed) for v in found)

    def passed(v: Any) -> tuple[bool, ...]:
        return tuple(passes(v, op, c) for c in constants for op in ("gt", "ge", "eq"))

    known = [passed(v) for v in found]
    assert len(set(known)) == len(known) or not constants or (low, high) != (None, None)
    for v in numbers():
        v = int(v) if kind == "int" and v == int(v) else v
        if within(v, allowed):
            assert passed(v) in known


# ------------------------------------------------------------------------------------------------- mistakes, and fuzz


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        text(
            """
      rules:
        - {name: a, when: {lenght.tokens: {gt: 1}}, use: big}
        - {name: b, when: {length.tokns: {gt: 1}}, use: big}
        - {name: c, when: {marks.code: true}, use: bigg}
        - {name: d, when: {marks.code: true}, use: {policy: nobody}}
        - {name: e, when: {marks.code: true}, use: big, do: [maskk]}
        - {name: f, when: nobody, use: big}
      default: smal
""",
            "guards:\n  - {name: g, when: {marks.cod: true}, only: [local]}\n  - {name: h, when: {marks.code: true}, only: ['tag:x']}\n"
            "conditions: {loop: {all: [loop]}}\n",
        )
    )
    built, mistakes, complete = read(path)
    assert built is None
    assert complete
    at = "$.routes.auto.policy"
    assert {e.path for e in mistakes} == {
        "$.conditions.loop.all[0]",
        f"{at}.rules[0].when",
        f"{at}.rules[1].when",
        f"{at}.rules[2].use",
        f"{at}.rules[3].use.policy",
        f"{at}.rules[4].do",
        f"{at}.rules[5].when",
        f"{at}.default",
        "$.guards[0].when",
        "$.guards[1].only",
    }


def test_a_mistake_elsewhere_ends_the_search(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("targets: {a: {type: nonsense}}\nroutes: {auto: {policy: random}}\n")
    built, mistakes, complete = read(path)
    assert (built, len(mistakes), complete) == (None, 1, False)


def test_fuzz_counts(tmp_path: Path) -> None:
    table = tmp_path / "prompts.jsonl"
    table.write_text(
        '{"text": "```print(1)```"}\n{"text": "```x``` see http://x"}\n{"text": "hello"}\n{"text": "http://y"}\n'
    )
    built = config.make(
        yaml.safe_load(
            text(
                """
      rules:
        - {name: code, when: {marks.code: true}, use: big}
        - {name: link, when: {marks.url: true}, use: refuse}
      default: small
""",
                "guards: [{name: chat, when: {length: {lt: 6}}, never: [small]}, {name: links, when: {marks.url: true}, never: [big]}]\n",
            )
        )
    )
    found = fuzz(built, "auto", prompts(table))
    rules = {
        f.name: (f.holds, f.decides, f.passed_over, f.refuses, f.example) for f in found.rules["$.routes.auto.policy"]
    }
    assert rules == {"code": (2, 1, 1, 0, "1"), "link": (2, 2, 0, 2, "2"), "default": (1, 1, 0, 0, "3")}
    assert {g.name: (g.holds, g.refuses, g.example) for g in found.guards} == {
        "chat": (1, 0, "3"),
        "links": (2, 0, "2"),
    }
    assert found.overlaps == {"$.routes.auto.policy": [("code", "link", 1, "2")]}
    assert {c.signal for c in found.signals} == {"length", "marks"}
    assert len(list(prompts(table, limit=2))) == 2


def test_policies_without_rules_have_nothing_to_prove() -> None:
    built = config.make({"targets": {"a": {"type": "scripted"}}, "routes": {"auto": {"policy": "random"}}})
    assert lint(built).findings == ()
    assert Random().orders == ()
    assert parse({"a": 1}) is not None
