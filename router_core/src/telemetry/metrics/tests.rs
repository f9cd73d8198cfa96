use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ids::{EgressDoor, EgressReason, Operation};
use crate::limits::MODEL_LABELS;

/// One sample: name, labels, value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format 0.0.4 and insists on all that its description and `promtool check metrics` insist on.
fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'));
    let mut samples: Vec<Sample> = Vec::new();
    let mut families = BTreeSet::new();
    let mut family: Option<(String, String)> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'));
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_owned();
            assert!(["counter", "gauge", "histogram"].contains(&&*kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            family = Some((name.to_owned(), kind));
            continue;
        }
        let sample = parse_sample(line);
        let (name, kind) = family.as_ref().unwrap();
        let suffix =
            sample.name.strip_prefix(&**name).unwrap_or_else(|| panic!("{} under {name}", sample.name));
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{}", sample.name);
        assert!(
            !samples.iter().any(|other| other.name == sample.name && other.labels == sample.labels),
            "{line} comes twice"
        );
        samples.push(sample);
    }
    check_histograms(&samples);
    samples
}

fn parse_sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).unwrap();
    let name = &line[..name_end];
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
    let mut rest = &line[name_end..];
    let mut labels = BTreeMap::new();
    if let Some(after) = rest.strip_prefix('{') {
        rest = after;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("bad escape {c}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none());
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
    Sample { name: name.to_owned(), labels, value }
}

fn check_histograms(samples: &[Sample]) {
    for count in samples.iter().filter(|sample| sample.name.ends_with("_count")) {
        let name = count.name.strip_suffix("_count").unwrap();
        let buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|sample| sample.name == format!("{name}_bucket"))
            .filter_map(|sample| {
                let mut labels = sample.labels.clone();
                let le = labels.remove("le").unwrap();
                (labels == count.labels).then(|| (le.replace("+Inf", "inf").parse().unwrap(), sample.value))
            })
            .collect();
        assert!(buckets.len() > 1);
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count.value)));
        assert!(
            samples
                .iter()
                .any(|sample| sample.name == format!("{name}_sum") && sample.labels == count.labels)
        );
    }
}

fn scrape(metrics: &Metrics) -> Vec<Sample> {
    let mut text = String::new();
    metrics.render(&mut text);
    parse(&text)
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    samples.iter().find(|sample| sample.name == name && sample.labels == labels).map(|sample| sample.value)
}

fn call(model: ModelLabel) -> Call {
    Call {
        model,
        ok: true,
        latency: Duration::from_millis(250),
        first_byte: Some(Duration::from_micros(5001)),
        input_tokens: 100,
        output_tokens: 20,
        estimated: false,
    }
}

#[test]
fn a_fresh_scrape_is_well_formed_and_says_what_must_be_zero() {
    let samples = scrape(&Metrics::new("s"));
    for name in [
        "kars_bugs_total",
        "kars_audit_dropped_total",
        "kars_http_in_flight",
        "kars_metric_series_dropped_total",
    ] {
        assert_eq!(value(&samples, name, &[]), Some(0.0), "{name}");
    }
    assert_eq!(value(&samples, "kars_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = value(&samples, "process_start_time_seconds", &[]).unwrap();
    // The kernel tells the start in ticks of a hundredth of a second, and the text rounds to as much.
    assert!(started < now + 0.02 && started > now - 3600.0, "{started} is not shortly before {now}");
    assert!(value(&samples, "process_resident_memory_bytes", &[]).unwrap() > 100_000.0);
    assert!(value(&samples, "process_open_fds", &[]).unwrap() >= 3.0);
    assert!(value(&samples, "process_cpu_seconds_total", &[]).unwrap() > 0.0);
}

#[test]
fn calls_show_under_the_names_that_dashboards_know() {
    let metrics = Metrics::new("box");
    let model = metrics.model("gpt-4o");
    metrics.call_done(&call(model));
    metrics.call_done(&Call { ok: false, latency: Duration::from_secs(31), first_byte: None, ..call(model) });
    metrics.call_done(&Call { estimated: true, ..call(model) });
    metrics.upstream_retried(Retry::Transport);
    let samples = scrape(&metrics);
    let labels = [("sandbox", "box"), ("model", "gpt-4o")];
    let with = |extra| [&labels[..], &[extra]].concat();
    assert_eq!(value(&samples, "kars_inference_requests_total", &with(("status", "ok"))), Some(2.0));
    assert_eq!(value(&samples, "kars_inference_requests_total", &with(("status", "error"))), Some(1.0));
    assert_eq!(value(&samples, "kars_tokens_total", &with(("direction", "input"))), Some(300.0));
    assert_eq!(value(&samples, "kars_tokens_total", &with(("direction", "output"))), Some(60.0));
    let buckets = ["0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "+Inf"]
        .map(|le| value(&samples, "kars_inference_latency_seconds_bucket", &with(("le", le))).unwrap());
    assert_eq!(buckets.map(Some), [0, 2, 2, 2, 2, 2, 2, 2, 3].map(|n| Some(f64::from(n))));
    assert_eq!(value(&samples, "kars_inference_latency_seconds_sum", &labels), Some(31.5));
    assert_eq!(value(&samples, "kars_time_to_first_byte_seconds_bucket", &[("le", "0.005")]), Some(0.0));
    assert_eq!(value(&samples, "kars_time_to_first_byte_seconds_bucket", &[("le", "0.01")]), Some(2.0));
    assert_eq!(value(&samples, "kars_time_to_first_byte_seconds_sum", &[]), Some(0.010_002));
    assert_eq!(value(&samples, "kars_usage_estimated_total", &[]), Some(1.0));
    let retries = [("sandbox", "box"), ("reason", "transport")];
    assert_eq!(value(&samples, "kars_upstream_retries_total", &retries), Some(1.0));
}

#[test]
fn every_closed_set_gives_distinct_series() {
    let metrics = Metrics::new("s");
    let routes = Operation::ALL.into_iter().map(Route::Inference).chain([
        Route::Health,
        Route::Ready,
        Route::Metrics,
        Route::PolicyStatus,
        Route::Admin,
        Route::Cold,
        Route::Egress,
        Route::Mesh,
        Route::Mcp,
        Route::None,
    ]);
    let routes: Vec<Route> = routes.collect();
    for route in &routes {
        metrics.http_begun();
        metrics.http_done(*route, 200);
    }
    let steps = labels::STEPS;
    for step in steps {
        metrics.upstream_error(step);
        metrics.stream_ended(StreamEnd::Upstream(step));
    }
    let plain = [StreamEnd::Complete, StreamEnd::ClientGone, StreamEnd::Denied, StreamEnd::Drained];
    for end in plain {
        metrics.stream_ended(end);
    }
    for kind in DenialKind::ALL {
        metrics.denied(kind);
    }
    let samples = scrape(&metrics);
    let series = |name| samples.iter().filter(|s| s.name == name && (s.value - 1.0).abs() < 0.1).count();
    assert_eq!(series("kars_http_requests_total"), routes.len());
    assert_eq!(series("kars_upstream_errors_total"), steps.len());
    assert_eq!(series("kars_stream_ends_total"), steps.len() + plain.len());
    assert_eq!(series("kars_denials_total"), DenialKind::ALL.len());
    assert_eq!(StreamEnd::Upstream(Step::Idle).name(), "idle");
    assert_eq!(StreamEnd::ClientGone.name(), "client_gone");
}

#[test]
fn any_status_has_a_code_and_only_known_ones_a_series_of_their_own() {
    let metrics = Metrics::new("s");
    for status in 0..=u16::MAX {
        metrics.http_begun();
        metrics.http_done(Route::None, status);
    }
    let samples = scrape(&metrics);
    let code = |code| value(&samples, "kars_http_requests_total", &[("route", "none"), ("code", code)]);
    assert_eq!((code("200"), code("429"), code("529")), (Some(1.0), Some(1.0), Some(1.0)));
    // 499 itself, and a client that left before any status.
    assert_eq!(code("499"), Some(2.0));
    assert_eq!((code("1xx"), code("5xx")), (Some(99.0), Some(93.0)));
    assert_eq!(code("invalid"), Some(65_536.0 - 500.0 - 1.0));
    assert_eq!(metrics.in_flight(), 0);
}

#[test]
fn gauges_add_up_over_threads_that_share_the_work() {
    let metrics = Metrics::new("s");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| metrics.http_begun()));
            scope.spawn(|| (0..990).for_each(|_| metrics.http_done(Route::Health, 200)));
            scope.spawn(|| (0..5).for_each(|_| metrics.connection_opened()));
        }
    });
    metrics.connection_closed();
    let samples = scrape(&metrics);
    assert_eq!(value(&samples, "kars_http_in_flight", &[]), Some(40.0));
    assert_eq!(value(&samples, "kars_http_connections", &[]), Some(19.0));
    assert_eq!(
        value(&samples, "kars_http_requests_total", &[("route", "health"), ("code", "200")]),
        Some(3960.0)
    );
}

#[test]
fn models_beyond_the_table_share_one_series() {
    let metrics = Metrics::new("s");
    let labels: Vec<ModelLabel> = (0..1000).map(|n| metrics.model(&format!("m{n}"))).collect();
    for label in &labels {
        metrics.call_done(&call(*label));
    }
    let own: BTreeSet<usize> = labels.iter().map(|label| label.index()).collect();
    assert_eq!(own.len(), MODEL_LABELS + 1);
    assert_eq!(metrics.model("m0"), labels[0]);
    assert_eq!(metrics.model("m999"), ModelLabel::OTHER);
    let samples = scrape(&metrics);
    let others = value(
        &samples,
        "kars_inference_requests_total",
        &[("sandbox", "s"), ("model", "other"), ("status", "ok")],
    );
    let expected = f64::from(1000 - u32::try_from(MODEL_LABELS).unwrap());
    assert_eq!(others, Some(expected));
    assert_eq!(value(&samples, "kars_metric_series_dropped_total", &[]), Some(expected + 1.0));
}

#[test]
fn threads_that_meet_a_model_at_once_agree_on_its_label() {
    let metrics = Metrics::new("s");
    let seen: Vec<Vec<ModelLabel>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..MODEL_LABELS).map(|n| metrics.model(&format!("m{n}"))).collect()))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|labels| *labels == seen[0]));
    assert!(!seen[0].contains(&ModelLabel::OTHER));
}

#[test]
fn bundles_budgets_and_the_log_show_what_they_were_told() {
    let metrics = Metrics::new("s");
    metrics.bundle_loaded("InferencePolicy", 1_700_000_000);
    metrics.bundle_refused("InferencePolicy");
    metrics.bundle_refused("InferencePolicy");
    metrics.bundle_loaded("EgressAllowlist", 5);
    metrics.bundle_removed("EgressAllowlist");
    metrics.set_budgets([Budget::default(), Budget { limit: 10, spent: 7, reserved: 2 }, Budget::default()]);
    metrics.set_audit(12, 1);
    metrics.set_generation(3);
    metrics.bug();
    let samples = scrape(&metrics);
    let kind = ("kind", "InferencePolicy");
    let bundle = |name, labels: &[(&str, &str)]| value(&samples, name, labels);
    assert_eq!(bundle("kars_policy_bundle_loaded_at_seconds", &[kind]), Some(1_700_000_000.0));
    assert_eq!(bundle("kars_policy_bundle_loaded_at_seconds", &[("kind", "EgressAllowlist")]), None);
    assert_eq!(bundle("kars_policy_bundle_healthy", &[kind]), Some(0.0));
    assert_eq!(bundle("kars_policy_bundle_reload_total", &[kind, ("outcome", "error")]), Some(2.0));
    assert_eq!(bundle("kars_policy_bundle_reload_total", &[kind, ("outcome", "success")]), Some(1.0));
    let budget =
        |window, state| value(&samples, "kars_budget_tokens", &[("window", window), ("state", state)]);
    assert_eq!((budget("daily", "limit"), budget("daily", "spent")), (Some(10.0), Some(7.0)));
    assert_eq!((budget("hourly", "limit"), budget("hourly", "reserved")), (None, Some(0.0)));
    assert_eq!(value(&samples, "kars_audit_records_total", &[]), Some(12.0));
    assert_eq!(value(&samples, "kars_audit_dropped_total", &[]), Some(1.0));
    assert_eq!(value(&samples, "kars_config_generation", &[]), Some(3.0));
    assert_eq!((value(&samples, "kars_bugs_total", &[]), metrics.bugs()), (Some(1.0), 1));
}

#[test]
fn connections_that_leave_are_told_by_door_reason_bytes_and_end() {
    let metrics = Metrics::new("s");
    for door in EgressDoor::ALL {
        for reason in EgressReason::ALL {
            metrics.egress_decided(door, reason);
        }
    }
    metrics.egress_decided(EgressDoor::Tls, EgressReason::Fronting);
    for end in EgressEnd::ALL {
        metrics.tunnel_opened();
        metrics.tunnel_closed(10, 1000, end);
    }
    metrics.tunnel_opened();
    metrics.egress_failed(EgressEnd::ConnectTimeout);
    metrics.egress_dialled(Duration::from_millis(1));
    metrics.egress_dialled(Duration::from_secs(11));
    let samples = scrape(&metrics);
    let named = |name: &str| samples.iter().filter(|sample| sample.name == name).collect::<Vec<_>>();
    let decisions = named("kars_egress_decisions_total");
    assert_eq!(decisions.len(), EgressDoor::ALL.len() * EgressReason::ALL.len());
    let denied = |s: &&&Sample| s.labels["decision"] == "deny";
    assert_eq!(decisions.iter().filter(denied).count(), 4 * 10);
    let fronting = [("door", "tls"), ("decision", "deny"), ("reason", "fronting")];
    assert_eq!(value(&samples, "kars_egress_decisions_total", &fronting), Some(2.0));
    let learned = [("door", "http"), ("decision", "allow"), ("reason", "learn")];
    assert_eq!(value(&samples, "kars_egress_decisions_total", &learned), Some(1.0));
    assert_eq!((value(&samples, "kars_egress_connections", &[]), metrics.tunnels()), (Some(1.0), 1));
    let bytes = |direction| value(&samples, "kars_egress_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("sent"), bytes("received")), (Some(110.0), Some(11_000.0)));
    assert_eq!(named("kars_egress_ends_total").len(), EgressEnd::ALL.len());
    let end = |reason| value(&samples, "kars_egress_ends_total", &[("reason", reason)]);
    assert_eq!((end("connect_timeout"), end("bytes")), (Some(2.0), Some(1.0)));
    assert_eq!(value(&samples, "kars_egress_dial_seconds_bucket", &[("le", "0.001")]), Some(1.0));
    assert_eq!(value(&samples, "kars_egress_dial_seconds_sum", &[]), Some(11.001));
}

#[test]
fn the_egress_proxys_state_is_what_it_was_last_told() {
    let metrics = Metrics::new("s");
    let fresh = scrape(&metrics);
    assert_eq!(value(&fresh, "kars_blocklist_names", &[]), Some(0.0));
    assert_eq!(value(&fresh, "kars_blocklist_age_seconds", &[]), None, "no feed was read");
    let figures =
        EgressFigures { blocklist_names: 9, blocklist_age: Some(60), learned_rows: 3, learns: true };
    metrics.set_egress(figures);
    let samples = scrape(&metrics);
    let told = ["kars_blocklist_names", "kars_blocklist_age_seconds", "kars_egress_learned_rows"]
        .map(|name| value(&samples, name, &[]));
    assert_eq!(told, [Some(9.0), Some(60.0), Some(3.0)]);
    assert_eq!(value(&samples, "kars_egress_learn_mode", &[]), Some(1.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever names peers send, the text stays well formed, no series comes twice, and a label that is not `other`
    /// reads back as the name.
    #[test]
    fn any_model_name_keeps_the_text_well_formed(
        names in prop::collection::vec(prop_oneof![any::<String>(), "[\\\\\"\na-c,={}]{0,4}", Just("other".to_owned())], 1..80),
    ) {
        let metrics = Metrics::new("s\"\\\n");
        let mut expected = BTreeSet::new();
        for name in &names {
            let label = metrics.model(name);
            metrics.call_done(&call(label));
            expected.insert(if label == ModelLabel::OTHER { "other" } else { &**name });
        }
        let samples = scrape(&metrics);
        let seen: BTreeSet<&str> = samples.iter().filter_map(|s| s.labels.get("model").map(|m| &**m)).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!(samples.iter().all(|s| s.labels.get("sandbox").is_none_or(|name| name == "s\"\\\n")));
    }
}
