//! Which deployments to try, and in which order: the failover registry. Pure: time is passed in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::policy::snapshot::DeploymentHealth;

/// Failures in a row that make a deployment unhealthy.
pub const STREAK: u32 = 3;
/// How long a streak counts, in milliseconds from its first failure; after it the deployment is tried again.
pub const WINDOW_MS: u64 = 60_000;
/// Deployments remembered: policies name a handful, and a client's own model names must not fill memory.
const DEPLOYMENTS: usize = 256;
/// Providers remembered of one name: a process has at most a few.
const PROVIDERS: usize = 16;

/// Whether a status asks for the next candidate: 429 and every 5xx.
pub fn is_failover_trigger(status: u16) -> bool {
    status == 429 || (500..600).contains(&status)
}

/// A deployment to try; `provider` is `None` for the process's default deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate<'p> {
    /// The provider that the policy names.
    pub provider: Option<&'p str>,
    /// The deployment or model name.
    pub deployment: &'p str,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    streak: u32,
    first_failure: u64,
    last_success: u64,
}

impl Record {
    fn healthy(self, now: u64) -> bool {
        self.streak < STREAK || self.expired(now)
    }

    fn expired(self, now: u64) -> bool {
        now.saturating_sub(self.first_failure) >= WINDOW_MS
    }
}

/// Streaks of failures by deployment. Times are Unix milliseconds.
#[derive(Debug, Default)]
pub struct Health {
    records: Mutex<Records>,
}

/// By deployment, then by provider (`""` for the process's default).
type Records = HashMap<Box<str>, Vec<(Box<str>, Record)>>;

impl Health {
    /// Notes a success: the deployment is healthy at once.
    pub fn success(&self, candidate: Candidate<'_>, now: u64) {
        self.update(candidate, now, |record| *record = Record { last_success: now, ..Record::default() });
    }

    /// Notes a failure (a status of [`is_failover_trigger`], or no answer).
    pub fn failure(&self, candidate: Candidate<'_>, now: u64) {
        self.update(candidate, now, |record| {
            if record.streak == 0 || record.expired(now) {
                (record.streak, record.first_failure) = (1, now);
            } else {
                record.streak = record.streak.saturating_add(1);
            }
        });
    }

    /// Whether a deployment is tried in its turn.
    pub fn healthy(&self, candidate: Candidate<'_>, now: u64) -> bool {
        fit(&self.records(), candidate, now)
    }

    /// Whom of `all` to try, in their order: the healthy ones. When there is none, the first: some answer is
    /// better than none.
    pub fn choose<'p>(&self, mut all: Vec<Candidate<'p>>, now: u64) -> Vec<Candidate<'p>> {
        let records = self.records();
        let healthy: Vec<_> = all.iter().copied().filter(|next| fit(&records, *next, now)).collect();
        if healthy.is_empty() {
            all.truncate(1);
            return all;
        }
        healthy
    }

    /// The rows for the policy status, by name. A name that two providers share is shown as `provider/name`.
    pub fn rows(&self, now: u64) -> Vec<DeploymentHealth> {
        let records = self.records();
        let mut rows = Vec::with_capacity(records.len());
        for (name, providers) in records.iter() {
            for (provider, record) in providers {
                let whole = providers.len() > 1 && !provider.is_empty();
                rows.push(DeploymentHealth {
                    deployment: if whole { format!("{provider}/{name}") } else { name.to_string() },
                    healthy: record.healthy(now),
                    failure_streak: record.streak,
                    first_failure_at_ms: record.first_failure,
                    last_success_at_ms: record.last_success,
                });
            }
        }
        rows.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        rows
    }

    fn update(&self, candidate: Candidate<'_>, now: u64, change: impl FnOnce(&mut Record)) {
        let mut records = self.records();
        if records.len() >= DEPLOYMENTS && !records.contains_key(candidate.deployment) {
            // What is healthy needs no memory to be found healthy.
            records.retain(|_, providers| providers.iter().any(|(_, record)| !record.healthy(now)));
            if records.len() >= DEPLOYMENTS {
                return;
            }
        }
        let providers = records.entry(candidate.deployment.into()).or_default();
        let provider = candidate.provider.unwrap_or("");
        if let Some((_, record)) = providers.iter_mut().find(|(name, _)| name.as_ref() == provider) {
            change(record);
        } else if providers.len() < PROVIDERS {
            let mut record = Record::default();
            change(&mut record);
            providers.push((provider.into(), record));
        }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // A record is written in one assignment, so a panic elsewhere leaves none half changed.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fit(records: &Records, candidate: Candidate<'_>, now: u64) -> bool {
    let provider = candidate.provider.unwrap_or("");
    let providers = records.get(candidate.deployment).into_iter().flatten();
    let mut own = providers.filter(|(name, _)| name.as_ref() == provider);
    own.all(|(_, record)| record.healthy(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(provider: &'static str, deployment: &'static str) -> Candidate<'static> {
        Candidate { provider: (!provider.is_empty()).then_some(provider), deployment }
    }

    fn names(candidates: &[Candidate<'_>]) -> Vec<String> {
        candidates.iter().map(|c| c.deployment.to_owned()).collect()
    }

    #[test]
    fn three_failures_within_the_window_make_unhealthy_and_the_window_heals() {
        let (health, gpt) = (Health::default(), at("azure-openai", "gpt"));
        health.failure(gpt, 1_000);
        health.failure(gpt, 2_000);
        assert!(health.healthy(gpt, 2_000));
        health.failure(gpt, 60_999);
        assert!(!health.healthy(gpt, 60_999));
        assert!(health.healthy(gpt, 61_000));
    }

    #[test]
    fn a_streak_older_than_the_window_starts_anew() {
        let (health, gpt) = (Health::default(), at("", "gpt"));
        health.failure(gpt, 0);
        health.failure(gpt, 1);
        health.failure(gpt, 60_000);
        assert!(health.healthy(gpt, 60_000));
        assert_eq!(health.rows(60_000)[0].failure_streak, 1);
        assert_eq!(health.rows(60_000)[0].first_failure_at_ms, 60_000);
    }

    #[test]
    fn one_success_ends_a_streak() {
        let (health, gpt) = (Health::default(), at("", "gpt"));
        for now in 0..3 {
            health.failure(gpt, now);
        }
        assert!(!health.healthy(gpt, 3));
        health.success(gpt, 4);
        assert!(health.healthy(gpt, 4));
        let row = &health.rows(4)[0];
        assert_eq!((row.failure_streak, row.first_failure_at_ms, row.last_success_at_ms), (0, 0, 4));
    }

    #[test]
    fn unhealthy_candidates_are_skipped_until_none_is_left() {
        let health = Health::default();
        let all = || vec![at("x", "a"), at("x", "b")];
        (0..3).for_each(|now| health.failure(at("x", "a"), now));
        assert_eq!(names(&health.choose(all(), 3)), ["b"]);
        (0..3).for_each(|now| health.failure(at("x", "b"), now));
        assert_eq!(names(&health.choose(all(), 3)), ["a"]);
        assert_eq!(names(&health.choose(all(), WINDOW_MS)), ["a", "b"]);
    }

    #[test]
    fn one_name_at_two_providers_is_two_deployments() {
        let health = Health::default();
        (0..3).for_each(|now| health.failure(at("azure-openai", "gpt"), now));
        health.success(at("openai", "gpt"), 5);
        assert!(!health.healthy(at("azure-openai", "gpt"), 5) && health.healthy(at("openai", "gpt"), 5));
        let shown: Vec<_> = health.rows(5).into_iter().map(|row| (row.deployment, row.healthy)).collect();
        assert_eq!(shown, [("azure-openai/gpt".to_owned(), false), ("openai/gpt".to_owned(), true)]);
    }

    #[test]
    fn invented_names_neither_fill_memory_nor_push_out_the_unhealthy() {
        let health = Health::default();
        (0..3).for_each(|now| health.failure(at("", "real"), now));
        for n in 0..10 * DEPLOYMENTS {
            health.success(Candidate { provider: None, deployment: &format!("made-up-{n}") }, 3);
        }
        assert!(health.rows(3).len() <= DEPLOYMENTS);
        assert!(!health.healthy(at("", "real"), 3));
    }

    #[test]
    fn only_429_and_server_errors_ask_for_the_next_candidate() {
        let asking: Vec<u16> = (100..=700).filter(|status| is_failover_trigger(*status)).collect();
        assert_eq!(asking.len(), 101);
        assert_eq!((asking[0], asking[1], asking[100]), (429, 500, 599));
    }
}
