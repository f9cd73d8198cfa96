//! Why a call was not admitted, in words and numbers that a client, an operator and the audit can use.

use std::time::Duration;

use crate::gate::ledger::{Shortfall, Window};
use crate::gate::rate::RetryAfter;
use crate::policy::inference::Rule;
use crate::telemetry::metrics::DenialKind;

/// A decision against a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The kind of rule.
    pub cause: DenialKind,
    /// The rule, as a path into the policy: `tokenBudget.dailyTokens`, `models.deny[3]`.
    pub rule: String,
    /// For people, with what would help.
    pub message: String,
    /// When trying again can help.
    pub retry_after: Option<Duration>,
    /// Whether an SDK should try again by itself.
    pub retry: bool,
    /// Request-rate limit per minute, for `x-ratelimit-limit-requests`.
    pub rate_limit: Option<u32>,
}

impl Denial {
    fn new(cause: DenialKind, rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            cause,
            rule: rule.into(),
            message: message.into(),
            retry_after: None,
            retry: false,
            rate_limit: None,
        }
    }

    pub(super) fn no_policy() -> Self {
        let mut denial = Self::new(
            DenialKind::NoPolicy,
            "inference-policy",
            "No inference policy is loaded, so nothing is allowed. Mount inference-policy.json at INFERENCE_POLICY_DIR.",
        );
        denial.retry_after = Some(Duration::from_secs(5));
        denial.retry = true;
        denial
    }

    pub(super) fn model(model: &str, rule: &Rule) -> Self {
        Self::new(
            DenialKind::Model,
            rule.to_string(),
            format!("Blocked by governance policy: model '{}' is denied by {rule}", shown(model)),
        )
    }

    pub(super) fn tool(name: &str, rule: &Rule) -> Self {
        Self::new(
            DenialKind::Tool,
            rule.to_string(),
            format!("Blocked by governance policy: function '{}' is denied by {rule}", shown(name)),
        )
    }

    pub(super) fn rate(per_minute: u32, retry: &RetryAfter) -> Self {
        let mut denial = Self::new(
            DenialKind::Rate,
            "requestRate.requestsPerMinute",
            format!(
                "Request rate exceeded ({per_minute} per minute). Retry in {} s.",
                whole_seconds(retry.after)
            ),
        );
        denial.retry_after = Some(retry.after);
        denial.retry = true;
        denial.rate_limit = Some(per_minute);
        denial
    }

    pub(super) fn per_request(asked: u64, cap: u64) -> Self {
        Self::new(
            DenialKind::RequestTokens,
            "tokenBudget.perRequestTokens",
            format!(
                "Requested max_tokens={asked} exceeds InferencePolicy tokenBudget.perRequestTokens={cap}"
            ),
        )
    }

    pub(super) fn budget(short: &Shortfall) -> Self {
        let (name, field, resets) = match short.window {
            Window::Hour => ("Hourly", "hourlyTokens", "at the next full hour UTC"),
            Window::Day => ("Daily", "dailyTokens", "at the next UTC midnight"),
            Window::Month => ("Monthly", "monthlyTokens", "on the 1st of next month UTC"),
        };
        let (spent, limit) = (short.spent, short.limit);
        let mut message = format!("{name} token budget exceeded ({spent}/{limit} tokens). Resets {resets}.");
        if short.in_flight {
            message = format!(
                "{name} token budget exceeded ({spent}/{limit} tokens spent, {} reserved by calls in flight). Retry when they end.",
                short.reserved
            );
        }
        let mut denial = Self::new(DenialKind::Budget, format!("tokenBudget.{field}"), message);
        denial.retry_after = Some(if short.in_flight { Duration::from_secs(1) } else { short.resets_in });
        denial.retry = short.in_flight;
        denial
    }
}

/// Whole seconds, rounded up, at least 1: what `Retry-After` takes (RFC 9110 §10.2.3).
pub fn whole_seconds(d: Duration) -> u64 {
    (d.as_secs() + u64::from(d.subsec_nanos() > 0)).max(1)
}

/// A client's own text in a message: bounded, and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
