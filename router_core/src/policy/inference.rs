//! `inference-policy.json`: decoded strictly, compiled once, asked on every call.

mod decode;
mod rules;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::ids::Operation;
use crate::policy::safety::Floor;

pub use rules::{Rule, Verdict};

use rules::Rules;

/// Token limits. A window's limit of 0 means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Most output tokens one call may ask for.
    pub per_request: Option<u64>,
    /// Tokens per UTC hour.
    pub hourly: u64,
    /// Tokens per UTC day.
    pub daily: u64,
    /// Tokens per UTC month.
    pub monthly: u64,
    /// Lower a call's output cap to what is left instead of refusing the call.
    pub clamp: bool,
    /// Whether the policy states `dailyTokens`, 0 included. When it does not, `TOKEN_BUDGET_DAILY` holds.
    pub daily_stated: bool,
}

/// A request rate: `per_minute` in the long run, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per minute, at least 1.
    pub per_minute: u32,
    /// Requests at once, at least 1; `per_minute` when the policy does not say.
    pub burst: u32,
}

/// A model at a provider. `provider` is of the vocabulary of [`crate::policy::provider::Provider::answers_to`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// The provider's name, such as `azure-openai`.
    pub provider: Box<str>,
    /// The deployment or model name sent to it.
    pub deployment: Box<str>,
}

/// Which model serves, and which ones when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// Tried first.
    pub primary: ModelRef,
    /// Tried next, in this order; no element equals another or `primary`.
    pub fallback: Vec<ModelRef>,
}

/// The calls that a policy is about (`appliesTo.action`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Every call: `*`, or no action given.
    #[default]
    Any,
    /// `chat`: chat, completions and messages.
    Chat,
    /// `responses`.
    Responses,
    /// `image`.
    Image,
    /// `embeddings`.
    Embeddings,
}

impl Action {
    /// Whether a call of `operation` is meant.
    pub fn covers(self, operation: Operation) -> bool {
        match self {
            Self::Any => true,
            Self::Chat => matches!(
                operation,
                Operation::Chat | Operation::Completions | Operation::Messages | Operation::CountTokens
            ),
            Self::Responses => operation == Operation::Responses,
            Self::Image => operation == Operation::Images,
            Self::Embeddings => operation == Operation::Embeddings,
        }
    }
}

/// A compiled inference policy: immutable, cheap to ask.
#[derive(Debug)]
pub struct Inference {
    sandbox: Option<Box<str>>,
    labels: BTreeMap<Box<str>, Box<str>>,
    action: Action,
    display_name: Option<Box<str>>,
    budget: Budget,
    rate: Option<Rate>,
    floor: Option<Floor>,
    preference: Option<Preference>,
    models: Rules,
    tools: Rules,
}

impl Inference {
    /// Compiles the bytes of `inference-policy.json`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Policy`] whose text names the JSON path and what is wrong there: not UTF-8, not
    /// JSON, larger than `limits::POLICY_BYTES`, an unknown or repeated field, a wrong type, a value out of
    /// range, or a rule that can never decide anything.
    pub fn compile(bytes: &[u8]) -> Result<Self> {
        decode::inference(bytes)
    }

    /// Whether a model may be called. Denials match whatever the letter case, as some providers do.
    pub fn model(&self, model: &str) -> Verdict {
        self.models.verdict(model)
    }

    /// Whether a tool may be offered to the model.
    pub fn tool(&self, name: &str) -> Verdict {
        self.tools.verdict(name)
    }

    /// Whether any tool could be denied; when not, a request's tools need no look.
    pub fn restricts_tools(&self) -> bool {
        self.tools.restrict()
    }

    /// The token limits.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The request rate, if there is one.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// The content-safety floor, if there is one.
    pub fn floor(&self) -> Option<&Floor> {
        self.floor.as_ref()
    }

    /// The preferred models, if stated.
    pub fn preference(&self) -> Option<&Preference> {
        self.preference.as_ref()
    }

    /// The sandbox that the policy names (`appliesTo.sandboxName`).
    pub fn applies_to(&self) -> Option<&str> {
        self.sandbox.as_deref()
    }

    /// The labels of `appliesTo.sandboxMatchLabels`; the controller has matched them already.
    pub fn labels(&self) -> &BTreeMap<Box<str>, Box<str>> {
        &self.labels
    }

    /// The calls that the policy is about.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The policy's name for people.
    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_deref()
    }
}

#[cfg(test)]
mod tests;
