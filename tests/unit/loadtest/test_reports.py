"""Files, tables, comparisons and objectives, from results that are made up."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hdrh.log import HistogramLogReader
from rich.console import Console

from extauthz.errors import UsageError
from extauthz.loadtest import report, report_html, report_json, terminal, words
from extauthz.loadtest.compare import COMPARED, compare
from extauthz.loadtest.crew import StepSeen
from extauthz.loadtest.histogram import Histogram
from extauthz.loadtest.outcomes import RECORD, Protocol
from extauthz.loadtest.plan import LoadOptions, make_plan
from extauthz.loadtest.report_json import Sample, read_samples, sample
from extauthz.loadtest.results import StepResult, step_result
from extauthz.loadtest.run import Report
from extauthz.loadtest.slo import judge, parse_objective
from extauthz.loadtest.tally import Tally, Window

MS = 1_000_000
SECOND = 1000 * MS


def step(rate: int, latency_ms: float = 2.0, *, seed: int = 1, failures: int = 0, lag_ms: float = 0.0) -> StepResult:
    """Ten seconds at a rate, latencies spread around a median."""
    rng = np.random.default_rng(seed)
    made = np.zeros(10 * rate, RECORD)
    made["due"] = np.arange(len(made)) * (SECOND // rate)
    made["taken"] = made["due"] + round(lag_ms * MS)
    made["sent"] = made["taken"] + 1000
    made["done"] = made["sent"] + (latency_ms * MS * rng.lognormal(0, 0.3, len(made))).astype(np.int64)
    made["outcome"][::10] = 403
    made["outcome"][:failures] = -1
    window = Window(0, 10 * SECOND, SECOND, Protocol.CHECK)
    tally = Tally()
    tally.record(made, window)
    return step_result(rate, -SECOND, window, StepSeen(tally, cpu_seconds=0.5, peak_in_flight=7, connections_opened=4))


@pytest.fixture(scope="module")
def made_up() -> Report:
    plan = make_plan(LoadOptions(target="127.0.0.1:9", rate="100,200,400"))
    steps = (step(100), step(200, failures=30), step(400, lag_ms=50))
    return Report(plan, datetime(2026, 1, 2, tzinfo=UTC), False, (step(100, 0.1), step(200, 0.1)), steps)


def test_every_file_is_written_and_can_be_read(made_up, tmp_path: Path):
    report.check_directory(tmp_path / "new" / "place")
    paths = {path.name: path for path in report.write(made_up, tmp_path)}
    assert {path.suffix for path in paths.values()} == {".json", ".html", ".png", ".csv", ".hlog"}
    for path in paths.values():
        assert path.stat().st_size > 100
        if path.suffix == ".png":
            assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = list(csv.DictReader(paths["rates.csv"].open()))
    assert [row["rate"] for row in rows] == ["100", "200", "400"]
    assert [row["errors"] for row in rows] == ["0", "30", "0"]
    assert [row["valid"] for row in rows] == ["1", "1", "0"]
    assert float(rows[0]["latency_p50_us"]) == pytest.approx(2000, rel=0.05)
    slices = list(csv.DictReader(paths["slices.csv"].open()))
    assert len(slices) == 30
    assert slices[11]["at_seconds"] == "1.0"


def test_the_hdr_log_is_what_the_package_reads(made_up, tmp_path: Path):
    report.write(made_up, tmp_path)
    reader = HistogramLogReader(str(tmp_path / "latency.hlog"), Histogram().to_hdr())
    total, tags, starts = 0, set(), []
    while (interval := reader.get_next_interval_histogram()) is not None:
        total += interval.get_total_count()
        tags.add(interval.get_tag())
        starts.append(interval.get_start_time_stamp())
    assert tags == {"rate-100", "rate-200", "rate-400"}
    assert total == 7000 - 30
    assert starts[0] == pytest.approx((made_up.started.timestamp() + 1) * 1000, abs=1)


def test_the_json_holds_everything_and_serves_to_compare(made_up, tmp_path: Path):
    document = report_json.as_document(made_up)
    assert json.loads(json.dumps(document)) == document
    assert document["steps"][1]["calls"]["errors"] == {"refused": 30}
    assert document["steps"][0]["latency"]["p99.9"] >= document["steps"][0]["latency"]["p99"]
    assert document["floors"][0]["latency"]["p50"] < document["steps"][0]["latency"]["p50"]
    assert Histogram.decode(document["steps"][0]["latency_histogram"]).total == 1000
    file = tmp_path / "report.json"
    file.write_text(json.dumps(document))
    for read, own in zip(read_samples(file), map(sample, made_up.steps), strict=True):
        assert (read.rate, read.valid, read.asked, read.failed) == (own.rate, own.valid, own.asked, own.failed)
        assert [part.total for part in read.slices] == [part.total for part in own.slices]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": "extauthz-loadtest", "version": 9}',
        '{"format": "extauthz-loadtest", "version": 1}',
    ],
)
def test_other_files_are_no_reports(text, tmp_path: Path):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"--compare .*x\.json"):
        read_samples(file)
    with pytest.raises(UsageError, match="--compare"):
        read_samples(tmp_path / "missing.json")


def test_the_page_needs_nothing_else(made_up):
    page = report_html.page("<Title>", [("one & only", made_up), ("two", made_up)])
    assert "&lt;Title&gt;" in page
    assert "one &amp; only" in page
    assert "NOT VALID" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 1 + 2 * 3
    assert report_html.page("x", [("", made_up)]).count("data:image/png;base64,") == 3


def test_an_empty_report_can_be_written(made_up, tmp_path: Path):
    nothing = replace(made_up, steps=(), floors=(), interrupted=True)
    assert len(report.write(nothing, tmp_path)) == 8


def test_a_directory_that_cannot_be_written_is_refused_before_the_load_is_run(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="--report"):
        report.check_directory(file / "below")


def test_a_difference_is_significant_when_it_is_there_and_not_when_it_is_chance():
    before = [sample(step(500, 2.0, seed=1))]
    same = compare([sample(step(500, 2.0, seed=2))], before)
    slower = compare([sample(step(500, 2.4, seed=3))], before)
    assert [one.figure for one in same.differences] == ["p50", "p90", "p99", "p99.9"]
    assert not any(one.significant for one in same.differences[:3])
    assert all(one.significant and one.change > 0 for one in slower.differences[:3])
    for one in slower.differences[:2]:
        assert one.low < 0.4 * MS * one.before / (2 * MS) < one.high
    assert slower.remarks == ()


def test_confidence_intervals_hold_the_truth_about_as_often_as_they_say():
    held = 0
    for seed in range(20):
        found = compare([sample(step(200, 2.0, seed=2 * seed))], [sample(step(200, 2.0, seed=2 * seed + 1))])
        held += not found.differences[0].significant
    assert held >= 16


def test_what_cannot_be_compared_is_said():
    few = Sample(100, True, 10, 0, sample(step(100)).slices[:3])
    invalid = replace(sample(step(200)), valid=False)
    failing = sample(step(300, failures=300))
    now = [few, invalid, failing, sample(step(400))]
    found = compare(now, [sample(step(100)), sample(step(200)), sample(step(300))])
    remarks = "\n".join(found.remarks)
    for words_wanted in (
        "fewer than 5 slices",
        "this result is not valid",
        "errors 0 % before, 10 % now",
        "400/s: not in",
    ):
        assert words_wanted in remarks
    assert {one.rate for one in found.differences} == {100, 200, 300}
    assert all(one.low is None for one in found.differences if one.rate == 100)
    assert len(found.differences) == 3 * len(COMPARED)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("p50<3ms", [True, True]), ("p50 < 1000us @ 100", [False]), ("p99.9<1s@200", [True]), ("max<1us@100", [False]),
        ("mean<=3ms@100", [True]), ("errors<0.1%", [True, False]), ("errors<=1.5%@200", [True]),
        ("denied<11%@100", [True]),
        ("achieved>=99@100", [True]), ("achieved>150@100", [False]), ("p99<1s@999", [False]),
    ],
)  # fmt: skip
def test_objectives_are_judged_at_their_rates(text, met):
    steps = [step(100), step(200, failures=30)]
    assert [judgement.met for judgement in judge([parse_objective(text)], steps)] == met


def test_an_objective_is_missed_by_a_result_that_is_not_valid_or_has_no_answer():
    late, silent = step(100, lag_ms=50), step(100, failures=1000)
    assert "not valid" in judge([parse_objective("p99<1s")], [late])[0].found
    assert not judge([parse_objective("p99<1s")], [late])[0].met
    assert "no answer" in judge([parse_objective("p99<1s")], [silent])[0].found
    assert not judge([parse_objective("errors<50%")], [silent])[0].met


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<2", "p99<2%", "errors<2ms", "p0<1ms", "p101<1ms", "p99=1ms", "fast<1s", "achieved<1ms"]
)
def test_other_objectives_are_refused(text):
    with pytest.raises(UsageError, match="--slo"):
        parse_objective(text)


def test_tables_show_results_floors_and_what_is_wrong(made_up):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal.results_table(made_up))
    console.print(terminal.comparison_table(compare([sample(step(200, 3.0))], [sample(step(200, 2.0, seed=9))])))
    text = console.export_text()
    floor = words.duration(made_up.floors[0].latency.percentiles[50.0])
    for wanted in ("100/s", "400/s !", "refused 30", "100 (403)", "slower", f"{floor} / "):
        assert wanted in text
    assert "400/s: NOT VALID" in "\n".join(terminal.problem_lines(made_up))


def test_figures_are_written_with_three_digits():
    assert [words.duration(value) for value in (0, 850, 85_400, 1_234_567, 23_456_789, 1.5e9)] == [
        "0 us", "1 us", "85 us", "1.23 ms", "23.5 ms", "1.50 s",
    ]  # fmt: skip
    assert [words.rate(value) for value in (0.5, 12.34, 20_000)] == ["0.5/s", "12.3/s", "20,000/s"]
