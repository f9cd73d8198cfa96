"""Whether a budget holds under load: never passed, and not refused while a call still fits."""

from __future__ import annotations

from typing import Any

from .harness import Harness, say
from .loads import LOADS
from .mount import PolicyMount
from .subjects import SUBJECTS, governed_policy

LIMIT_TOKENS = 30_000
# Enough calls of 29 tokens to spend it twice.
CALLS = 2_000
# What one call reserves until its usage is known, at most: a token for every byte of the prompt, 256 of answer.
RESERVATION_TOKENS = 846 + 256


def run(harness: Harness) -> dict[str, Any]:
    """Spends a budget from 32 connections and says what was spent."""
    running = harness.start(SUBJECTS["kars"])
    try:
        before = harness.totals(running)
        policy = governed_policy(harness.site("budget").models, 1_000)
        policy["tokenBudget"] = {"perRequestTokens": 1_024, "dailyTokens": LIMIT_TOKENS}
        mount = PolicyMount(running.run / "policy")
        mount.version = 1
        mount.write(policy)
        harness.client(running, LOADS["json"].model, "--connections", "1", "--rate", "20", "--seconds", "1")
        report = harness.client(running, LOADS["json"].model, "--connections", "32", "--count", str(CALLS))
        # At 32 connections some are refused for what others have reserved; alone, a call gets what is left.
        alone = harness.client(running, LOADS["json"].model, "--connections", "1", "--count", "200")
        after = harness.totals(running)
    finally:
        harness.stop(running)
    kinds = ("input_tokens", "output_tokens")
    # The start-up call spent from the same day.
    spent = 29 + sum(after[kind] - before[kind] for kind in kinds)
    holds = LIMIT_TOKENS - RESERVATION_TOKENS <= spent <= LIMIT_TOKENS
    result = {
        "limit": LIMIT_TOKENS,
        "spent": spent,
        "is_exact": holds,
        "refusals": report.get("refusals"),
        "refusal": alone.get("refusal"),
    }
    say(f"budget        kars         {result}")
    return result
