"""What is made of results: rounds and failures, targets judged from them, tables, and documents that show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import documents, plots, report, results_files, tables, targets
from benchmarks.measure import Findings, Samples, interleaved


def summary(*rounds: float) -> dict:
    return Samples(rounds).summary()


def transport(ours: float, null: float) -> dict:
    """A result file in which CPU per call is as given, and rates go with it."""
    sides = {
        "extauthz, native": ours,
        "null, native": null,
        targets.NGHTTPD: 3.0,
        targets.GET: 2.5,
        "extauthz, grpcio": 200.0,
    }
    figures = {
        side: {
            "cpu_us_per_call": summary(cpu, cpu * 2, cpu),
            "calls_per_second": summary(1e6 / cpu, 5e5 / cpu, 1e6 / cpu),
        }
        for side, cpu in sides.items()
    }
    return {"transport": {"figures": {"one core": figures, "both cores": {}}, "machine": {}, "quick": False}}


def verdicts(parts: dict) -> dict[str, str]:
    return {judgement.target.name: judgement.verdict for judgement in targets.judge(parts)}


def test_sides_take_turns_and_one_that_fails_does_not_stop_the_others():
    order = []

    def side(name: str, fails_at: int = -1):
        def measure() -> dict[str, float]:
            order.append(name)
            if order.count(name) == fails_at:
                raise ValueError("broken")
            return {"x": float(order.count(name))}

        return measure

    findings = interleaved({"a": side("a"), "b": side("b", 2), "c": side("c")}, 3)
    assert "".join(order) == "abcabcac"
    assert findings.failures == {"b": "ValueError: broken"}
    assert findings.summary() == {name: {"x": summary(1.0, 2.0, 3.0)} for name in ("a", "c")}


def test_a_figure_keeps_its_rounds_and_ratios_are_of_each_round():
    assert summary(3.0, 1.0, 2.0) == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [3.0, 1.0, 2.0]}
    found = results_files.combined(lambda x, y: x / y, summary(4.0, 8.0, 6.0), summary(2.0, 4.0, 2.0))
    assert (found.value, found.low, found.high) == (3.0, 2.0, 3.0)


@pytest.mark.parametrize(("ours", "verdict"), [(9.0, "missed"), (6.5, "met"), (5.0, "met, stretch too")])
def test_verdicts_come_from_the_figures(ours, verdict):
    name = "CPU per call above `extauthz null`, native, TCP"
    assert verdicts(transport(ours, 3.0))[name] == verdict
    assert verdicts({})[name] == "not measured"


def test_a_target_may_be_a_least_value_as_well():
    assert verdicts(transport(6.0, 3.0))["native transport against nghttpd"] == "met"
    assert verdicts(transport(12.0, 3.0))["native transport against nghttpd"] == "missed"


def test_every_target_has_a_verdict_and_every_missed_one_shows_in_the_table():
    parts = transport(9.0, 3.0)
    table = list(targets.table(parts))
    assert len(table) == 2 + len(targets.TARGETS)
    assert sum("**missed**" in line for line in table) == list(verdicts(parts).values()).count("missed")
    assert [one["verdict"] for one in targets.document(parts)] == list(verdicts(parts).values())


def test_results_that_are_not_there_leave_the_rest(tmp_path: Path):
    (tmp_path / "transport.json").write_text(
        json.dumps(transport(6.0, 3.0)["transport"] | {"failures": {"x": "broken"}})
    )
    report.write(tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| extauthz, native |" in table
    assert "through_envoy: not measured" in table
    assert "transport, x: broken" in table
    assert (tmp_path / "transport.png").exists()
    assert not (tmp_path / "growth.png").exists()


def test_a_document_gets_its_tables_and_keeps_what_has_no_results():
    place = "before\n<!-- benchmarks: {} -->\nold\n<!-- end -->\nafter\n"
    parts = transport(6.0, 3.0)
    filled = documents.filled(place.format("targets"), parts)
    assert filled.startswith("before\n<!-- benchmarks: targets -->\n\n| target |")
    assert filled.endswith("\n\n<!-- end -->\nafter\n")
    assert documents.filled(filled, parts) == filled
    assert documents.filled(place.format("fetch"), parts) == place.format("fetch")


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_documents_show_the_committed_results(name):
    text = (documents.ROOT / name).read_text()
    assert documents.filled(text, results_files.read(documents.RESULTS)) == text


def test_every_committed_figure_says_what_it_was_measured_on():
    parts = results_files.read(documents.RESULTS)
    assert parts
    for name, part in parts.items():
        assert {"cpu", "cores", "kernel", "python"} <= part["machine"].keys(), name
        assert tables.section("machine", {name: part})


def test_missed_targets_stand_beside_those_that_are_met():
    assert "<!-- benchmarks: targets -->" in (documents.ROOT / "docs/performance.md").read_text()


def test_short_tables_show_some_sides_of_the_whole_ones():
    table = tables.section("transport_short", transport(6.0, 3.0))
    assert "| this service, native transport | 166,667 | 6.0 |" in table
    assert "nghttpd" not in table
    whole = {
        side: {"requests_per_second": summary(rate), "p50_us": summary(p50)}
        for side, rate, p50 in (
            ("no filter", 200.0, 100.0),
            ("built-in", 100.0, 150.0),
            ("extauthz, native, TCP", 80.0, 300.0),
        )
    }
    table = tables.section("through_envoy_short", {"through_envoy": {"figures": {"1": whole, "64": whole}}})
    assert "| asking this service, native, TCP | 80 | 0.80 | 200 |" in table
    assert len(table.splitlines()) == 5


def test_a_side_that_cannot_be_summed_up_is_a_failure_with_its_reason():
    findings = Findings()
    findings.add("a", {"x": 1.0})
    findings.fail("a", RuntimeError("gone"))
    assert findings.summary() == {}
    assert findings.failures == {"a": "RuntimeError: gone"}
    assert plots.PLOTS
