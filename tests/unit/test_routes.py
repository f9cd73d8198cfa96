"""The cold routes, without a socket."""

import json

import pytest

from kars.router import statusz
from kars.router.routes import App


@pytest.fixture
def app(fake_engine):
    return App(fake_engine())


def answer(app, method, path, body=b""):
    reply = app.respond(method, path, body)
    return reply.status, json.loads(reply.body)


def test_the_default_model_is_shown_until_it_is_overridden(app):
    assert answer(app, "GET", "/admin/model") == (200, {"model": "gpt-4.1", "default": "gpt-4.1"})
    assert answer(app, "PUT", "/admin/model", b'{"model": "o3"}') == (200, {"model": "o3", "previous": "gpt-4.1"})
    assert answer(app, "GET", "/admin/model") == (200, {"model": "o3", "default": "gpt-4.1"})


def test_null_lifts_the_override(app):
    answer(app, "PUT", "/admin/model", b'{"model": "o3"}')
    assert answer(app, "PUT", "/admin/model", b'{"model": null}') == (200, {"model": "gpt-4.1", "previous": "o3"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"model": 3}',
        b'{"model": ""}',
        b'{"model": "a b"}',
        b'{"model": "a\\n"}',
        b'{"model": "o3", "x": 1}',
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        json.dumps({"model": "x" * 257}).encode(),
    ],
)
def test_a_bad_body_is_a_400_of_the_flat_shape_and_changes_nothing(app, body):
    status, error = answer(app, "PUT", "/admin/model", body)
    assert status == 400
    assert list(error) == ["error"]
    assert app.engine.override is None


def test_a_body_above_the_bound_is_a_413(app):
    status, error = answer(app, "PUT", "/admin/model", b" " * 5000)
    assert (status, error) == (413, {"error": "body of 5000 bytes, at most 4096"})


def test_a_wrong_method_is_a_405_that_names_the_right_ones(app):
    reply = app.respond("DELETE", "/admin/model", b"")
    assert (reply.status, reply.allow) == (405, "GET, PUT")


def test_an_unknown_path_is_a_404(app):
    assert answer(app, "GET", "/admin/other") == (404, {"error": "no such route"})


def test_configz_shows_settings_and_generation_only(app):
    status, shown = answer(app, "GET", "/configz")
    assert status == 200
    assert list(shown) == ["version", "policy", "upstreams", "settings"]


def test_statusz_is_a_page_for_people(app):
    page = app.respond("GET", "/statusz", b"").body.decode()
    assert "  generation  7" in page
    assert "upstreams:\n  (none)\n" in page
    assert "  - name  inference\n    port  8443\n" in page
    assert "daily     -" in page
    assert "draining  no" in page


def test_a_status_of_any_shape_has_a_page():
    assert statusz.page(b'{"a": [[1, "x"], []], "b": {}, "c": [true]}').startswith("kars router\n")
