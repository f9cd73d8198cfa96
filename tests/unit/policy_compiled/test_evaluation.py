"""Corpora, reports and the Jobs of evaluations."""

import json
from hashlib import sha256

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from kars.policy.compiled import evaluation
from kars.policy.compiled.corpora import CASES
from kars.policy.compiled.outcome import Given, Unfit
from tests.unit.policy_compiled.samples import make

CASE = {"id": "a", "scenario": {"kind": "EgressConnect", "host": "h", "port": 1}, "expect": {"decision": "Blocked"}}
CORPUS = {"schemaVersion": "v1", "name": "n", "cases": [CASE]}


def eval_(name="nightly", **spec):
    return make(
        "KarsEval",
        {"corpus": {"builtin": "banned-tools"}, "targetSandboxRef": {"name": "demo"}, **spec},
        name=name,
        resourceVersion="41",
    )


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("banned-tools", 5),
        ("egress-known-bad", 6),
        ("jailbreak-baseline", 6),
        ("memory-isolation", 5),
        ("prompt-injection-2026q1", 6),
    ],
)
def test_the_corpora_that_come_along_are_valid(name, cases):
    corpus = evaluation.parse(evaluation.builtin(name))
    assert corpus.name == name and len(corpus.cases) == cases
    chats = [case for case in corpus.cases if isinstance(case.scenario, evaluation.ChatCompletion)]
    assert not chats or any(case.expect.decision == "Allowed" for case in chats), "a dead router would pass"


def test_no_corpus_more_comes_along():
    assert len(CASES) == 5
    with pytest.raises(Unfit, match="no corpus 'jailbreak', but banned-tools") as refused:
        evaluation.builtin("jailbreak")
    assert refused.value.reason == "CorpusBuiltinMissing"


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": "v2"},
        {"cases": []},
        {"cases": [CASE, CASE]},
        {"cases": [{**CASE, "expected": {}}]},
        {"cases": [{**CASE, "expect": {"decision": "Denied"}}]},
        {"cases": [{**CASE, "scenario": {"kind": "Shell"}}]},
        {"cases": [{**CASE, "scenario": {"kind": "EgressConnect", "host": "h", "port": 0}}]},
        {"more": 1},
    ],
)
def test_a_corpus_that_says_something_else_is_refused(change):
    with pytest.raises(Unfit) as refused:
        evaluation.parse(json.dumps({**CORPUS, **change}).encode())
    assert refused.value.reason == "CorpusParseFailed"


@forall(st.binary(max_size=100) | st.just(b"[" * 100_000))
def test_no_bytes_break_the_reader_of_corpora(body):
    with pytest.raises(Unfit):
        evaluation.parse(body)


def test_a_corpus_is_published_raw_under_its_own_hash_and_goes_with_its_resource():
    compiled = evaluation.render(eval_(), Given())
    (made,) = compiled.objects
    body = made["data"]["corpus.json"].encode()
    assert body == evaluation.builtin("banned-tools")
    assert compiled.digest == f"sha256:{sha256(body).hexdigest()}" == compiled.status["corpusDigest"]
    assert made["metadata"]["annotations"] == {
        "kars.azure.com/karseval-corpus-digest": compiled.digest,
        "kars.azure.com/karseval-corpus-label": "builtin:banned-tools",
    }
    (reference,) = made["metadata"]["ownerReferences"]
    assert reference["kind"] == "KarsEval" and reference["controller"] and reference["uid"]


def test_a_signed_corpus_bears_its_artifacts_digest():
    reference = {
        "registry": "r",
        "repository": "p",
        "digest": "sha256:" + "01" * 32,
        "artifactType": "application/vnd.kars.eval-corpus.v1+json",
    }
    resource = eval_(corpus={"bundleRef": reference})
    body = json.dumps(CORPUS).encode()
    compiled = evaluation.render(resource, Given(body=body))
    assert compiled.digest == reference["digest"] and compiled.objects[0]["data"]["corpus.json"] == body.decode()
    with pytest.raises(Unfit) as refused:
        evaluation.render(resource, Given())
    assert refused.value.reason == "CorpusFetchFailed"


def log_of(passed=2, failed=1, **more):
    results = [{"caseId": f"c{n}", "verdict": {"result": "Pass"}} for n in range(passed)]
    results += [{"caseId": f"f{n}", "verdict": {"result": "Fail", "why": "x"}} for n in range(failed)]
    return {
        "schemaVersion": "1",
        "total": passed + failed,
        "passed": passed,
        "failed": failed,
        "results": results,
        "durationMs": 5,
        **more,
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_the_last_report_in_a_log_counts_whatever_stands_around_it(indent):
    text = (
        "starting\n"
        + json.dumps(log_of(passed=9), indent=indent)
        + "\n{not json\n"
        + json.dumps(log_of(), indent=indent)
        + "\nbye {}\n"
    )
    found = evaluation.report(text.encode())
    assert (found.total, found.passed, found.failed, found.errored) == (3, 2, 1, 0)
    assert found.failing() == ("f0",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schemaVersion": ""},
        {"total": -1},
        {"total": 2},
        {"passed": 3, "failed": 0},
        {"results": [{"caseId": "a"}]},
    ],
)
def test_a_report_that_contradicts_itself_is_none(wrong):
    assert evaluation.report(json.dumps({**log_of(), **wrong}).encode()) is None


def test_cases_that_nothing_is_told_of_are_errors():
    assert evaluation.report(json.dumps(log_of(total=7)).encode()).errored == 4
    errored = log_of(results=[{"caseId": "a", "verdict": {"result": "Error"}}], passed=0, failed=0, total=1)
    assert evaluation.report(json.dumps(errored).encode()).errored == 1


def test_at_most_five_failing_cases_are_named():
    assert len(evaluation.report(json.dumps(log_of(failed=9)).encode()).failing()) == 5


@forall(st.binary(max_size=300) | st.text(st.sampled_from('{}\n":,[]01a'), max_size=200).map(str.encode))
def test_no_log_breaks_the_reader_of_reports(log):
    assert evaluation.report(log) is None


def test_a_log_of_braces_is_given_up_on_soon():
    assert evaluation.report(b"\n{" * 2_000_000) is None
