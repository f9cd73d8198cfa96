//! The content-safety floor: reads a provider's annotations and says when they exceed the policy.
//!
//! Annotations are Azure's ("Content filtering annotations" of its documentation): each category carries
//! `filtered` and either `severity` (`hate`, `self_harm`, `sexual`, `violence`) or `detected` (`jailbreak`,
//! `indirect_attack`).

mod annotations;

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem;

/// `error.code` when a severity exceeds the floor.
pub const EXCEEDED: &str = "inference_policy_content_safety_exceeded";
/// `error.code` when Prompt Shields are required and the answer shows no prompt annotation.
pub const SHIELDS_REQUIRED: &str = "inference_policy_prompt_shields_required";
/// `x-kars-decision-reason` before a violation's message.
pub const REASON_EXCEEDED: &str = "InferencePolicy content safety floor exceeded: ";
/// `x-kars-decision-reason` when Prompt Shields are required and missing.
pub const REASON_SHIELDS_REQUIRED: &str = "InferencePolicy blocked: Prompt Shields required but upstream had no prompt_filter_results (content safety)";
/// `x-kars-decision-reason` when the provider refused a jailbreak.
pub const REASON_JAILBREAK: &str =
    "Azure AI Content Safety blocked: prompt jailbreak detected (content_filter)";
/// `x-kars-decision-reason` when the provider refused a prompt for another cause.
pub const REASON_FILTERED: &str =
    "Azure AI Content Safety blocked: prompt content filter triggered (content_filter)";

/// How bad a provider finds a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing found.
    Safe,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
}

impl Severity {
    /// All severities, ascending.
    pub const ALL: [Self; 4] = [Self::Safe, Self::Low, Self::Medium, Self::High];

    /// The name in policies: `Safe`, `Low`, `Medium`, `High`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "Safe",
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
        }
    }

    /// A name in any letter case (`KARS_CONTENT_FLAG_MIN_SEVERITY`, annotations).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A category with severities, in the order in which a floor checks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// Hate and fairness.
    Hate,
    /// Self-harm.
    SelfHarm,
    /// Sexual content.
    Sexual,
    /// Violence.
    Violence,
}

impl Category {
    /// All categories, in checking order.
    pub const ALL: [Self; 4] = [Self::Hate, Self::SelfHarm, Self::Sexual, Self::Violence];

    /// The name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::SelfHarm => "selfHarm",
            other => other.wire_name(),
        }
    }

    /// The name in annotations, flags and metric labels.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Hate => "hate",
            Self::SelfHarm => "self_harm",
            Self::Sexual => "sexual",
            Self::Violence => "violence",
        }
    }
}

/// What a provider said about one category.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// The worst severity seen.
    pub severity: Option<Severity>,
    /// Whether the provider withheld the text.
    pub filtered: bool,
}

/// Attacks that a provider saw in the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attacks {
    /// `jailbreak` was detected or filtered.
    pub jailbreak: bool,
    /// `indirect_attack` was detected or filtered.
    pub indirect: bool,
}

/// The most that each category may show; `None` sets no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// Hate and fairness.
    pub hate: Option<Severity>,
    /// Self-harm.
    pub self_harm: Option<Severity>,
    /// Sexual content.
    pub sexual: Option<Severity>,
    /// Violence.
    pub violence: Option<Severity>,
    /// A successful answer must carry a prompt annotation.
    pub require_prompt_shields: bool,
}

/// Why an answer must not reach the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The category; `None` when Prompt Shields are missing.
    pub category: Option<Category>,
    /// The severity seen; `None` when Prompt Shields are missing.
    pub observed: Option<Severity>,
    /// `error.code` for the client: [`EXCEEDED`] or [`SHIELDS_REQUIRED`].
    pub code: &'static str,
    /// `error.message` for the client.
    pub message: String,
}

impl Violation {
    /// The violation of an answer that should have shown a prompt annotation and did not.
    pub fn shields_required() -> Self {
        let message = "Prompt Shields are required and the upstream gave no prompt_filter_results".to_owned();
        Self { category: None, observed: None, code: SHIELDS_REQUIRED, message }
    }

    /// The value of `x-kars-decision-reason`, without CR and LF.
    pub fn reason(&self) -> String {
        match self.category {
            Some(_) => format!("{REASON_EXCEEDED}{}", self.message),
            None => REASON_SHIELDS_REQUIRED.to_owned(),
        }
    }
}

/// What one JSON document of an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Whether the prompt was annotated with at least one category.
    pub prompt_annotated: bool,
    /// The document has the words of an annotation but is no JSON object: nothing is known of it.
    pub unreadable: bool,
    /// The first category above the floor.
    pub violation: Option<Violation>,
    /// Attacks seen.
    pub attacks: Attacks,
    /// The categories, in the order of [`Category::ALL`].
    pub observed: [Observed; 4],
}

impl Findings {
    /// Names to flag: the attacks, then categories that were filtered or are at least `least` bad
    /// (`KARS_CONTENT_FLAG_MIN_SEVERITY`, default low).
    pub fn flags(&self, least: Severity) -> impl Iterator<Item = &'static str> {
        let attacks = [
            self.attacks.jailbreak.then_some("jailbreak"),
            self.attacks.indirect.then_some("indirect_attack"),
        ];
        let flagged = move |seen: Observed| seen.filtered || seen.severity.is_some_and(|s| s >= least);
        let categories = Category::ALL.into_iter().zip(self.observed);
        attacks.into_iter().flatten().chain(
            categories.filter(move |(_, seen)| flagged(*seen)).map(|(category, _)| category.wire_name()),
        )
    }
}

impl Floor {
    /// Reads one document: a whole buffered answer, or the data of one SSE event. Never fails: what it
    /// cannot read is [`Findings::unreadable`]. Without [`mentions`] it costs that search only.
    ///
    /// A missing prompt annotation is no violation here, because only the caller knows whether the answer
    /// is a success and whether an earlier event had one; see [`Floor::lacks_shields`].
    pub fn inspect(&self, json: &[u8]) -> Findings {
        let mut findings = observe(json);
        findings.violation = self.violation(&findings);
        findings
    }

    /// Whether a successful answer breaks `require_prompt_shields`: give whether any of its documents was
    /// annotated. Not for error answers, which providers do not annotate.
    pub fn lacks_shields(&self, prompt_annotated: bool) -> bool {
        self.require_prompt_shields && !prompt_annotated
    }

    /// The most that `category` may show.
    pub fn most(&self, category: Category) -> Option<Severity> {
        match category {
            Category::Hate => self.hate,
            Category::SelfHarm => self.self_harm,
            Category::Sexual => self.sexual,
            Category::Violence => self.violence,
        }
    }

    fn violation(self, findings: &Findings) -> Option<Violation> {
        Category::ALL.into_iter().zip(findings.observed).find_map(|(category, seen)| {
            let (most, observed) = (self.most(category)?, seen.severity?);
            (observed > most).then(|| Violation {
                category: Some(category),
                observed: Some(observed),
                code: EXCEEDED,
                message: format!("{} severity {observed} exceeds the allowed {most}", category.name()),
            })
        })
    }
}

/// Reads the annotations of a document without judging them: [`Findings::violation`] is `None`.
pub fn observe(json: &[u8]) -> Findings {
    if mentions(json) { annotations::read(json) } else { Findings::default() }
}

/// Whether bytes may hold an annotation; when not, there is no need to inspect them.
pub fn mentions(bytes: &[u8]) -> bool {
    static FINDER: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new("content_filter_result"));
    FINDER.find(bytes).is_some()
}

/// Whether the body of a failed call is the provider's own content block; gives the value of
/// `x-kars-decision-reason`.
pub fn is_provider_block(json: &[u8]) -> Option<&'static str> {
    annotations::provider_block(json)
}

#[cfg(test)]
mod tests;
