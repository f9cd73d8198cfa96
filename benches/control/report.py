"""Placeholder."""

import json


def line(name, found):
    skip = {"curve"}
    return json.dumps({k: v for k, v in found.items() if k not in skip}, indent=1)


def markdown(results):
    return ""


def svg(results):
    return ""
