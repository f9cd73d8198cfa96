//! Which deployments to try, and in which order: the failover registry. Pure: time is passed in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::policy::inference::Preference;
use crate::policy::snapshot::DeploymentHealth;

/// Failures in a row that make a deployment unhealthy.
pub const STREAK: u32 = 3;
/// How long a streak counts, in milliseconds from its first failure; after it the deployment is tried again.
pub const WINDOW_MS: u64 = 60_000;
/// Deployments remembered: policies name a handful, and a client's own model names must not fill memory.
const DEPLOYMENTS: usize = 256;

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
    records: Mutex<HashMap<(Box<str>, Box<str>), Record>>,
}

impl Health {
    /// Notes a success: the deployment is healthy at once.
    pub fn success(&self, candidate: Candidate<'_>, now: u64) {
        self.update(candidate, |record| *record = Record { last_success: now, ..Record::default() });
    }

    /// Notes a failure (a status of [`is_failover_trigger`], or no answer).
    pub fn failure(&self, candidate: Candidate<'_>, now: u64) {
        self.update(candidate, |record| {
            if record.streak == 0 || record.expired(now) {
                (record.streak, record.first_failure) = (1, now);
            } else {
                record.streak = record.streak.saturating_add(1);
            }
        });
    }

    /// Whether a deployment is tried in its turn.
    pub fn healthy(&self, candidate: Candidate<'_>, now: u64) -> bool {
        self.records().get(&key(candidate)).is_none_or(|record| record.healthy(now))
    }

    /// Whom to try, in order: the preference's primary, its fallbacks, then `default`; each once, healthy ones
    /// only. When all are unhealthy, the first is given: some answer is better than none. Empty only when
    /// there is neither a preference nor a default.
    pub fn candidates<'p>(
        &self,
        preference: Option<&'p Preference>,
        default: Option<&'p str>,
        now: u64,
    ) -> Vec<Candidate<'p>> {
        let stated = preference.into_iter().flat_map(|p| std::iter::once(&p.primary).chain(&p.fallback));
        let mut all: Vec<Candidate<'p>> = Vec::new();
        for model in stated {
            let next = Candidate { provider: Some(&model.provider), deployment: &model.deployment };
            if !next.deployment.is_empty() && !all.contains(&next) {
                all.push(next);
            }
        }
        if let Some(deployment) = default.filter(|d| !d.is_empty())
            && all.iter().all(|other| other.deployment != deployment)
        {
            all.push(Candidate { provider: None, deployment });
        }
        let records = self.records();
        let fit = |candidate: &Candidate<'_>| records.get(&key(*candidate)).is_none_or(|r| r.healthy(now));
        let healthy: Vec<_> = all.iter().copied().filter(fit).collect();
        if healthy.is_empty() {
            all.truncate(1);
            return all;
        }
        healthy
    }

    /// The rows for the policy status, by name. A name that two providers share is shown as `provider/name`.
    pub fn rows(&self, now: u64) -> Vec<DeploymentHealth> {
        let records = self.records();
        let shared = |name: &str| records.keys().filter(|(_, other)| other.as_ref() == name).count() > 1;
        let mut rows: Vec<_> = records
            .iter()
            .map(|((provider, name), record)| DeploymentHealth {
                deployment: match shared(name) && !provider.is_empty() {
                    true => format!("{provider}/{name}"),
                    false => name.to_string(),
                },
                healthy: record.healthy(now),
                failure_streak: record.streak,
                first_failure_at_ms: record.first_failure,
                last_success_at_ms: record.last_success,
            })
            .collect();
        rows.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        rows
    }

    fn update(&self, candidate: Candidate<'_>, change: impl FnOnce(&mut Record)) {
        let mut records = self.records();
        let key = key(candidate);
        if records.len() < DEPLOYMENTS || records.contains_key(&key) {
            change(records.entry(key).or_default());
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<(Box<str>, Box<str>), Record>> {
        // A record is written in one assignment, so a panic elsewhere leaves none half changed.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(candidate: Candidate<'_>) -> (Box<str>, Box<str>) {
    (candidate.provider.unwrap_or("").into(), candidate.deployment.into())
}
