"""Every scenario gives the same objects through the router as without it."""

import pytest

from tests.interop.sdk import cases_anthropic, cases_openai_chat, cases_openai_more
from tests.interop.sdk.clients import Clients
from tests.interop.sdk.scenarios import SCENARIOS, Scenario, outcome
from tests.system.router import Router

MODULES = (cases_openai_chat, cases_openai_more, cases_anthropic)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])


def test_covers_at_least_sixty_uses():
    assert MODULES
    assert len(SCENARIOS) >= 60


@every_scenario
def test_the_demo_server_answers_alike_twice(scenario: Scenario, demo_url: str):
    clients = Clients(demo_url)
    assert outcome(scenario.run, clients) == outcome(scenario.run, clients)


@every_scenario
def test_the_router_changes_nothing(scenario: Scenario, demo_url: str, demo_router: Router):
    direct = outcome(scenario.run, Clients(demo_url))
    assert outcome(scenario.run, Clients(demo_router.url)) == direct
