"""SDK clients for one base URL, as an application would make them."""

from __future__ import annotations

from dataclasses import dataclass, field

import anthropic
import httpx
import openai

CLIENT_KEY = "sk-client-own-key"
#: Azure's own stable version; the servers do not mind.
AZURE_VERSION = "2024-10-21"


@dataclass
class Clients:
    """Makes clients; `close` closes those that were made."""

    url: str
    made: list = field(default_factory=list)

    def keep(self, client):
        self.made.append(client)
        return client

    def openai(self, **more) -> openai.OpenAI:
        return self.keep(openai.OpenAI(**{**self.options("/v1"), **more}))

    def async_openai(self, **more) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**{**self.options("/v1"), **more})

    def azure(self, **more) -> openai.AzureOpenAI:
        options = {"azure_endpoint": self.url, "api_key": CLIENT_KEY, "api_version": AZURE_VERSION, "max_retries": 0}
        return self.keep(openai.AzureOpenAI(**{**options, **more}))

    def async_azure(self, **more) -> openai.AsyncAzureOpenAI:
        options = {"azure_endpoint": self.url, "api_key": CLIENT_KEY, "api_version": AZURE_VERSION, "max_retries": 0}
        return openai.AsyncAzureOpenAI(**{**options, **more})

    def anthropic(self, **more) -> anthropic.Anthropic:
        return self.keep(anthropic.Anthropic(**{**self.options(""), **more}))

    def async_anthropic(self, **more) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(**{**self.options(""), **more})

    def http(self) -> httpx.Client:
        """A plain HTTP client, for paths the SDKs do not name."""
        return self.keep(httpx.Client(base_url=self.url, timeout=15, trust_env=False))

    def options(self, suffix: str) -> dict:
        return {"base_url": self.url + suffix, "api_key": CLIENT_KEY, "max_retries": 0, "timeout": 15.0}

    def close(self) -> None:
        while self.made:
            self.made.pop().close()
