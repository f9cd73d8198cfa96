//! The table behind `GET /internal/policy-status`, which the controller polls and compares digests with.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::limits;

const STAMP: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// Appended to an error that was cut.
const CUT: &str = "…[truncated]";

/// The health of one deployment, as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeploymentHealth {
    /// The deployment's name.
    pub deployment: String,
    /// Whether it is tried in its turn.
    pub healthy: bool,
    /// Failures in a row.
    pub failure_streak: u32,
    /// When the streak began, in Unix milliseconds; 0 without one.
    pub first_failure_at_ms: u64,
    /// The last success, in Unix milliseconds; 0 before the first.
    pub last_success_at_ms: u64,
}

#[derive(Debug, Serialize)]
struct Entry<'e> {
    kind: &'e str,
    digest: Option<&'e str>,
    source_path: &'e str,
    loaded_at: String,
    last_error: Option<&'e str>,
}

#[derive(Debug, Serialize)]
struct Document<'d> {
    schema_version: u32,
    count: usize,
    entries: Vec<Entry<'d>>,
    deployment_health: Vec<&'d DeploymentHealth>,
}

#[derive(Debug)]
struct Row {
    digest: Option<String>,
    source: String,
    loaded_at: OffsetDateTime,
    error: Option<String>,
}

/// What is loaded of each kind, or why not. One row per kind, so the table is as long as the kinds are many.
#[derive(Debug, Default)]
pub struct Status {
    rows: Mutex<BTreeMap<&'static str, Row>>,
}

impl Status {
    /// Notes that a bundle of `kind` (`InferencePolicy`, …) was loaded from `source`; ends its error.
    pub fn record_ok(&self, kind: &'static str, digest: &str, source: &str) {
        self.record_ok_at(kind, digest, source, OffsetDateTime::now_utc());
    }

    /// [`Status::record_ok`] at a given time.
    pub fn record_ok_at(&self, kind: &'static str, digest: &str, source: &str, now: OffsetDateTime) {
        let digest = Some(digest.to_owned());
        let row = Row { digest, source: source.to_owned(), loaded_at: now, error: None };
        self.rows().insert(kind, row);
    }

    /// Notes why a bundle of `kind` was refused. What was loaded before stays, with its digest and time.
    pub fn record_error(&self, kind: &'static str, source: &str, text: &str) {
        self.record_error_at(kind, source, text, OffsetDateTime::now_utc());
    }

    /// [`Status::record_error`] at a given time, which shows only when nothing was loaded before.
    pub fn record_error_at(&self, kind: &'static str, source: &str, text: &str, now: OffsetDateTime) {
        let error = Some(cut(text));
        let mut rows = self.rows();
        let row = rows.entry(kind).or_insert(Row {
            digest: None,
            source: String::new(),
            loaded_at: now,
            error: None,
        });
        source.clone_into(&mut row.source);
        row.error = error;
    }

    /// Forgets a kind whose mount went away, so that nobody takes the old digest for one in force.
    pub fn clear(&self, kind: &str) {
        self.rows().remove(kind);
    }

    /// The digest in force for a kind.
    pub fn digest(&self, kind: &str) -> Option<String> {
        self.rows().get(kind).and_then(|row| row.digest.clone())
    }

    /// The document, schema version 1: entries by kind, health by deployment, so that equal states give equal bytes.
    pub fn render_json(&self, health: &[DeploymentHealth]) -> String {
        let rows = self.rows();
        let mut deployment_health: Vec<_> = health.iter().collect();
        deployment_health.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        let entries: Vec<_> = rows.iter().map(|(kind, row)| row.entry(kind)).collect();
        let document = Document { schema_version: 1, count: entries.len(), entries, deployment_health };
        serde_json::to_string(&document).unwrap_or_default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<&'static str, Row>> {
        // Rows are replaced whole, so a panic elsewhere leaves none half written.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn entry<'e>(&'e self, kind: &'e str) -> Entry<'e> {
        Entry {
            kind,
            digest: self.digest.as_deref(),
            source_path: &self.source,
            loaded_at: self.loaded_at.to_offset(time::UtcOffset::UTC).format(STAMP).unwrap_or_default(),
            last_error: self.error.as_deref(),
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(limits::STATUS_ERROR_BYTES) {
        Some((at, _)) => text.get(..at).unwrap_or_default().to_owned() + CUT,
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn renders_the_contract_of_the_controller() {
        let status = Status::default();
        let now = datetime!(2026-02-03 04:05:06.789_123 UTC);
        status.record_ok_at("InferencePolicy", "sha256:ab", "/etc/kars/inference/p.json", now);
        status.record_error_at("EgressAllowlist", "/etc/kars/egress", "no \"file\"", now);
        let health = [
            DeploymentHealth {
                deployment: "b".into(),
                healthy: false,
                failure_streak: 3,
                first_failure_at_ms: 1,
                last_success_at_ms: 0,
            },
            DeploymentHealth {
                deployment: "a".into(),
                healthy: true,
                failure_streak: 0,
                first_failure_at_ms: 0,
                last_success_at_ms: 9,
            },
        ];
        assert_eq!(
            status.render_json(&health),
            concat!(
                r#"{"schema_version":1,"count":2,"entries":["#,
                r#"{"kind":"EgressAllowlist","digest":null,"source_path":"/etc/kars/egress","#,
                r#""loaded_at":"2026-02-03T04:05:06.789Z","last_error":"no \"file\""},"#,
                r#"{"kind":"InferencePolicy","digest":"sha256:ab","source_path":"/etc/kars/inference/p.json","#,
                r#""loaded_at":"2026-02-03T04:05:06.789Z","last_error":null}],"#,
                r#""deployment_health":[{"deployment":"a","healthy":true,"failure_streak":0,"#,
                r#""first_failure_at_ms":0,"last_success_at_ms":9},{"deployment":"b","healthy":false,"#,
                r#""failure_streak":3,"first_failure_at_ms":1,"last_success_at_ms":0}]}"#
            )
        );
    }

    #[test]
    fn an_error_keeps_the_digest_and_success_ends_the_error() {
        let status = Status::default();
        status.record_ok("InferencePolicy", "sha256:1", "p");
        status.record_error("InferencePolicy", "p", "bad");
        assert_eq!(status.digest("InferencePolicy").as_deref(), Some("sha256:1"));
        assert!(status.render_json(&[]).contains(r#""last_error":"bad""#));
        status.record_ok("InferencePolicy", "sha256:2", "p");
        assert!(status.render_json(&[]).contains(r#""last_error":null"#));
    }

    #[test]
    fn a_mount_that_went_away_leaves_no_row() {
        let status = Status::default();
        status.record_ok("Memory", "sha256:1", "m");
        status.clear("Memory");
        assert_eq!(
            status.render_json(&[]),
            r#"{"schema_version":1,"count":0,"entries":[],"deployment_health":[]}"#
        );
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        assert_eq!(cut(&"é".repeat(512)), "é".repeat(512));
        assert_eq!(cut(&"é".repeat(513)), format!("{}…[truncated]", "é".repeat(512)));
    }
}
