//! The Prometheus text format 0.0.4.

use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::cells::{self, Cells, at};
use super::labels::{self, DenialKind, EgressEnd, Retry, Route, STEPS, StreamEnd};
use super::process::Figures;
use super::{Budget, Bundle, EgressFigures, Metrics};
use crate::error::Step;
use crate::ids::{EgressDoor, EgressReason};

/// Appends everything.
pub(super) fn all(metrics: &Metrics, out: &mut String) {
    let mut text = Text { out };
    inference(metrics, &mut text);
    http(&metrics.cells, &mut text);
    upstream(metrics, &mut text);
    egress(&metrics.cells, &mut text);
    let figures = *metrics.egress.lock().unwrap_or_else(PoisonError::into_inner);
    egress_state(&figures, &mut text);
    let bundles = metrics.bundles.lock().unwrap_or_else(PoisonError::into_inner).clone();
    policy(&bundles, &mut text);
    let budgets = *metrics.budgets.lock().unwrap_or_else(PoisonError::into_inner);
    budget(&budgets, &mut text);
    own(metrics, &mut text);
    process(&Figures::read(), &mut text);
}

/// Writes families and samples. Label values come escaped.
struct Text<'a> {
    out: &'a mut String,
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        let mut before = '{';
        for (label, text) in labels {
            let _ = write!(self.out, "{before}{label}=\"{text}\"");
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one sample without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A counter with one label; values never counted are left out.
    fn by_label<'v>(
        &mut self,
        (name, help, label): (&str, &str, &str),
        values: impl Iterator<Item = (&'v str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (value, count) in values.filter(|(_, count)| *count > 0) {
            self.sample(name, &[(label, value)], count);
        }
    }

    /// One histogram's samples from its cells.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        cells: &Cells,
        cell: usize,
        bounds_us: &[u64],
    ) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (offset, bound) in bounds_us.iter().enumerate() {
            count += cells.total(cell + offset);
            let le = Seconds(*bound).to_string();
            self.sample(&bucket, &[labels, &[("le", &*le)]].concat(), count);
        }
        count += cells.total(cell + bounds_us.len());
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample(&format!("{name}_sum"), labels, Seconds(cells.total(cell + bounds_us.len() + 1)));
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// Microseconds, shown exactly as seconds without trailing zeros.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{part:06}").trim_end_matches('0'))
    }
}

fn inference(metrics: &Metrics, text: &mut Text<'_>) {
    let cells = &metrics.cells;
    let names = metrics.models.names();
    let used = || {
        names.iter().enumerate().filter_map(|(index, name)| {
            let cell = at::model(index);
            let (ok, error) = (cells.total(cell), cells.total(cell + 1));
            (ok + error > 0).then_some((cell, &**name, ok, error))
        })
    };
    let sandbox = ("sandbox", &*metrics.sandbox);

    let name = "kars_inference_requests_total";
    text.family(name, "counter", "Inference calls by outcome.");
    for (_, model, ok, error) in used() {
        for (status, count) in [("ok", ok), ("error", error)] {
            if count > 0 {
                text.sample(name, &[sandbox, ("model", model), ("status", status)], count);
            }
        }
    }
    let name = "kars_inference_latency_seconds";
    text.family(name, "histogram", "Time from the request's head to the end of the answer.");
    for (cell, model, ..) in used() {
        let labels = [sandbox, ("model", model)];
        text.histogram(name, &labels, cells, cell + at::MODEL_LATENCY, &cells::LATENCY_BUCKETS_US);
    }
    let name = "kars_tokens_total";
    text.family(name, "counter", "Tokens charged.");
    for (cell, model, ..) in used() {
        for (direction, offset) in [("input", at::MODEL_INPUT), ("output", at::MODEL_OUTPUT)] {
            let count = cells.total(cell + offset);
            text.sample(name, &[sandbox, ("model", model), ("direction", direction)], count);
        }
    }
    let name = "kars_time_to_first_byte_seconds";
    text.family(name, "histogram", "Time from the request's head to the first byte of the answer.");
    text.histogram(name, &[], cells, at::FIRST_BYTE, &cells::FIRST_BYTE_BUCKETS_US);
    let help = "Calls whose tokens were estimated because the provider's numbers were not seen.";
    text.single("kars_usage_estimated_total", "counter", help, cells.total(at::ESTIMATED));
}

fn http(cells: &Cells, text: &mut Text<'_>) {
    let name = "kars_http_requests_total";
    text.family(name, "counter", "Requests by route and status; 499 when the client left first.");
    for (index, route) in Route::names().enumerate() {
        for code in 0..labels::CODES {
            let count = cells.total(at::http(index, code));
            if count > 0 {
                let mut digits = itoa::Buffer::new();
                text.sample(name, &[("route", route), ("code", labels::code_name(code, &mut digits))], count);
            }
        }
    }
    text.single("kars_http_in_flight", "gauge", "Requests under way.", cells.level(at::IN_FLIGHT));
    text.single("kars_http_connections", "gauge", "Client connections open.", cells.level(at::CONNECTIONS));
    let counts = |base: usize| move |(index, name)| (name, cells.total(base + index));
    text.by_label(
        ("kars_stream_ends_total", "Streams by how they ended.", "reason"),
        StreamEnd::names().enumerate().map(counts(at::ENDS)),
    );
    text.by_label(
        ("kars_denials_total", "Requests denied, by the kind of rule.", "kind"),
        DenialKind::ALL.into_iter().map(DenialKind::name).enumerate().map(counts(at::DENIALS)),
    );
}

fn upstream(metrics: &Metrics, text: &mut Text<'_>) {
    let cells = &metrics.cells;
    text.by_label(
        ("kars_upstream_errors_total", "Failed attempts upstream, by step.", "step"),
        STEPS.into_iter().map(Step::name).enumerate().map(|(i, name)| (name, cells.total(at::STEPS + i))),
    );
    let name = "kars_upstream_retries_total";
    text.family(name, "counter", "Attempts upstream that were made again.");
    for retry in Retry::ALL {
        let count = cells.total(at::RETRIES + retry.index());
        if count > 0 {
            text.sample(name, &[("sandbox", &metrics.sandbox), ("reason", retry.name())], count);
        }
    }
}

fn egress(cells: &Cells, text: &mut Text<'_>) {
    let name = "kars_egress_decisions_total";
    text.family(name, "counter", "Connections that asked to leave, by door, decision and reason.");
    for door in EgressDoor::ALL {
        for reason in EgressReason::ALL {
            let count = cells.total(at::EGRESS_DECISIONS + labels::decision_index(door, reason));
            if count > 0 {
                let decision = if reason.allows() { "allow" } else { "deny" };
                let labels = [("door", door.name()), ("decision", decision), ("reason", reason.name())];
                text.sample(name, &labels, count);
            }
        }
    }
    let open = cells.level(at::EGRESS_CONNECTIONS);
    text.single("kars_egress_connections", "gauge", "Connections that leave, open now.", open);
    let name = "kars_egress_bytes_total";
    text.family(name, "counter", "Bytes of ended connections, to and from their destinations.");
    text.sample(name, &[("direction", "sent")], cells.total(at::EGRESS_SENT));
    text.sample(name, &[("direction", "received")], cells.total(at::EGRESS_RECEIVED));
    text.by_label(
        ("kars_egress_ends_total", "Connections that were let out, by how they ended.", "reason"),
        EgressEnd::ALL.into_iter().map(|end| (end.name(), cells.total(at::EGRESS_ENDS + end.index()))),
    );
    let name = "kars_egress_dial_seconds";
    text.family(name, "histogram", "Time from the decision to a connected socket.");
    text.histogram(name, &[], cells, at::EGRESS_DIAL, &cells::DIAL_BUCKETS_US);
}

fn egress_state(figures: &EgressFigures, text: &mut Text<'_>) {
    let names = figures.blocklist_names;
    text.single("kars_blocklist_names", "gauge", "Names on the blocklist in force.", names);
    if let Some(age) = figures.blocklist_age {
        let help = "Seconds since the blocklist's feeds were read.";
        text.single("kars_blocklist_age_seconds", "gauge", help, age);
    }
    let help = "Destinations that learn mode holds.";
    text.single("kars_egress_learned_rows", "gauge", help, figures.learned_rows);
    let help = "1 while learn mode lets unlisted connections pass.";
    text.single("kars_egress_learn_mode", "gauge", help, u8::from(figures.learns));
}

fn policy(bundles: &[Bundle], text: &mut Text<'_>) {
    let name = "kars_policy_bundle_loaded_at_seconds";
    text.family(name, "gauge", "Unix time of the last good load.");
    for bundle in bundles {
        if let Some(at) = bundle.loaded_at {
            text.sample(name, &[("kind", bundle.kind)], at);
        }
    }
    let name = "kars_policy_bundle_healthy";
    text.family(name, "gauge", "1 when the last load succeeded and its bundle is in force.");
    for bundle in bundles {
        text.sample(name, &[("kind", bundle.kind)], u8::from(bundle.healthy));
    }
    let name = "kars_policy_bundle_reload_total";
    text.family(name, "counter", "Loads by outcome.");
    for bundle in bundles {
        for (outcome, count) in [("success", bundle.loads), ("error", bundle.errors)] {
            if count > 0 {
                text.sample(name, &[("kind", bundle.kind), ("outcome", outcome)], count);
            }
        }
    }
}

fn budget(budgets: &[Budget; 3], text: &mut Text<'_>) {
    let name = "kars_budget_tokens";
    text.family(name, "gauge", "Token budget of the current windows; no limit sample when unlimited.");
    for (window, budget) in ["hourly", "daily", "monthly"].into_iter().zip(budgets) {
        let states = [("limit", budget.limit), ("spent", budget.spent), ("reserved", budget.reserved)];
        for (state, tokens) in states {
            if state != "limit" || tokens > 0 {
                text.sample(name, &[("window", window), ("state", state)], tokens);
            }
        }
    }
}

fn own(metrics: &Metrics, text: &mut Text<'_>) {
    let cells = &metrics.cells;
    let count = "counter";
    let records = metrics.audit_records.load(Relaxed);
    text.single("kars_audit_records_total", count, "Audit records appended.", records);
    let dropped = metrics.audit_dropped.load(Relaxed);
    text.single(
        "kars_audit_dropped_total",
        count,
        "Audit records lost because the disk refused them.",
        dropped,
    );
    text.single("kars_bugs_total", count, "Broken invariants; must be 0.", cells.total(at::BUGS));
    let help = "Lookups of a model whose series was folded into \"other\".";
    text.single("kars_metric_series_dropped_total", count, help, cells.total(at::LABELS_DROPPED));
    let help = "Generation of the settings and policies in force.";
    text.single("kars_config_generation", "gauge", help, metrics.generation.load(Relaxed));
    text.family("kars_build_info", "gauge", "1, labelled with the build.");
    text.sample("kars_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn process(figures: &Figures, text: &mut Text<'_>) {
    text.single("process_cpu_seconds_total", "counter", "CPU time used.", figures.cpu_seconds);
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", figures.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory.", figures.virtual_bytes),
        ("process_open_fds", "Open file descriptors.", figures.open_fds),
        ("process_threads", "Threads.", figures.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.single(name, "gauge", help, value);
        }
    }
    if let Some(start) = figures.start_seconds {
        text.single("process_start_time_seconds", "gauge", "Unix time of the start.", format!("{start:.2}"));
    }
}
