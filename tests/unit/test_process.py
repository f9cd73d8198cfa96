"""The main thread's loop."""

from kars.router import process


def test_a_policy_event_publishes_every_mount(fake_engine, monkeypatch):
    published = []
    monkeypatch.setattr(process.publish, "publish_all", published.append)
    engine = fake_engine("policy", None, "policy")
    assert process.Loop(engine).serve() == 0
    assert published == [engine, engine]


def test_an_unknown_event_is_left_alone(fake_engine):
    assert process.Loop(fake_engine("tomorrow")).serve() == 0


def test_a_cold_event_starts_one_server_and_the_end_stops_it(fake_engine, monkeypatch):
    made = []

    class Cold:
        def __init__(self, engine):
            self.log = []
            made.append(self)

        def start(self):
            self.log.append("start")

        def stop(self):
            self.log.append("stop")

        def alive(self):
            return True

    monkeypatch.setattr("kars.router.cold.Cold", Cold)
    assert process.Loop(fake_engine("cold", "cold")).serve() == 0
    assert [cold.log for cold in made] == [["start", "stop"]]


def test_a_cold_server_that_failed_is_started_again_by_the_next_event(fake_engine, monkeypatch):
    made = []

    class Cold:
        def __init__(self, engine):
            made.append(self)

        def start(self):
            pass

        def stop(self):
            pass

        def alive(self):
            return False

    monkeypatch.setattr("kars.router.cold.Cold", Cold)
    process.Loop(fake_engine("cold", "cold")).serve()
    assert len(made) == 2
