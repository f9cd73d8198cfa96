//! The strict decoder: every field is known by name, and an error says where it stands.

use std::collections::BTreeMap;

use super::rules::{Names, Rules};
use super::{Action, Budget, Inference, ModelRef, Preference, Rate};
use crate::error::Result;
use crate::limits;
use crate::policy::document::{self, Fields, Node, wrong};
use crate::policy::safety::{Floor, Severity};

/// Kubernetes keeps integers as int64, so nothing above can have come through the API server.
const MOST_TOKENS: u64 = i64::MAX as u64;
/// Above any rate that one sandbox reaches; keeps rate arithmetic far from overflow.
const MOST_REQUESTS: u64 = 10_000_000;
/// Longest display name and label: Kubernetes labels are 317 bytes at most with their prefix.
const TEXT_BYTES: usize = 512;
/// A call that failed this often is better answered than tried again.
const FALLBACKS: usize = 32;

pub(super) fn inference(bytes: &[u8]) -> Result<Inference> {
    let root = document::read(bytes)?;
    let root = Fields::open(
        &root,
        String::new(),
        &[
            "schemaVersion",
            "appliesTo",
            "tokenBudget",
            "requestRate",
            "models",
            "tools",
            "contentSafety",
            "modelPreference",
            "displayName",
        ],
    )?;
    if root.number("schemaVersion", 1..=u64::MAX)?.is_some_and(|version| version != 1) {
        return Err(root.wrong("schemaVersion", "this router reads version 1 only"));
    }
    let scope = scope(&root)?;
    Ok(Inference {
        sandbox: scope.sandbox,
        labels: scope.labels,
        action: scope.action,
        display_name: root.text("displayName", 0..=TEXT_BYTES)?.map(Into::into),
        budget: budget(&root)?,
        rate: rate(&root)?,
        floor: floor(&root)?,
        preference: preference(&root)?,
        models: rules(&root, "models", Names { allow: "models.allow", deny: "models.deny" })?,
        tools: rules(&root, "tools", Names { allow: "tools.allow", deny: "tools.deny" })?,
    })
}

#[derive(Default)]
struct Scope {
    sandbox: Option<Box<str>>,
    labels: BTreeMap<Box<str>, Box<str>>,
    action: Action,
}

fn scope(root: &Fields<'_>) -> Result<Scope> {
    let Some(fields) = root.object("appliesTo", &["sandboxName", "sandboxMatchLabels", "action"])? else {
        return Ok(Scope::default());
    };
    let sandbox = fields.text("sandboxName", 1..=63)?;
    if let Some(name) = sandbox {
        crate::ids::SandboxName::parse(name).map_err(|e| fields.wrong("sandboxName", e.detail()))?;
    }
    let action = match fields.text("action", 1..=TEXT_BYTES)? {
        None | Some("*") => Action::Any,
        Some("chat") => Action::Chat,
        Some("responses") => Action::Responses,
        Some("image") => Action::Image,
        Some("embeddings") => Action::Embeddings,
        Some(_) => {
            return Err(fields.wrong("action", "expected one of chat, responses, image, embeddings, *"));
        }
    };
    Ok(Scope { sandbox: sandbox.map(Into::into), labels: labels(&fields)?, action })
}

fn labels(scope: &Fields<'_>) -> Result<BTreeMap<Box<str>, Box<str>>> {
    let Some(node) = scope.get("sandboxMatchLabels") else { return Ok(BTreeMap::new()) };
    let fields = Fields::any(node, scope.path("sandboxMatchLabels"))?;
    let label = |(key, node): &(String, Node)| match node {
        Node::Text(text) if text.len() <= TEXT_BYTES => Ok((key.as_str().into(), text.as_str().into())),
        Node::Text(_) => Err(fields.wrong(key, "is longer than any label")),
        other => Err(fields.mistyped(key, "a string", other)),
    };
    fields.members().iter().map(label).collect()
}

fn budget(root: &Fields<'_>) -> Result<Budget> {
    const FIELDS: &[&str] =
        &["perRequestTokens", "hourlyTokens", "dailyTokens", "monthlyTokens", "clampToRemaining"];
    let Some(fields) = root.object("tokenBudget", FIELDS)? else { return Ok(Budget::default()) };
    let tokens = |key| fields.number(key, 0..=MOST_TOKENS);
    let daily = tokens("dailyTokens")?;
    let budget = Budget {
        per_request: tokens("perRequestTokens")?.filter(|cap| *cap > 0),
        hourly: tokens("hourlyTokens")?.unwrap_or(0),
        daily: daily.unwrap_or(0),
        monthly: tokens("monthlyTokens")?.unwrap_or(0),
        clamp: fields.flag("clampToRemaining")?.unwrap_or(false),
        daily_stated: daily.is_some(),
    };
    // A wider window with a smaller limit leaves the narrower one without any effect.
    let windows = [
        ("perRequestTokens", budget.per_request.unwrap_or(0)),
        ("hourlyTokens", budget.hourly),
        ("dailyTokens", budget.daily),
        ("monthlyTokens", budget.monthly),
    ];
    let mut narrow = ("", 0);
    for (name, limit) in windows.into_iter().filter(|(_, limit)| *limit > 0) {
        if limit < narrow.1 {
            return Err(fields.wrong(narrow.0, &format!("can never be reached: {name} is smaller")));
        }
        narrow = (name, limit);
    }
    Ok(budget)
}

fn rate(root: &Fields<'_>) -> Result<Option<Rate>> {
    let Some(fields) = root.object("requestRate", &["requestsPerMinute", "burst"])? else { return Ok(None) };
    let number = |key| -> Result<Option<u32>> {
        Ok(fields.number(key, 1..=MOST_REQUESTS)?.and_then(|n| u32::try_from(n).ok()))
    };
    let per_minute = number("requestsPerMinute")?.ok_or_else(|| {
        fields.wrong("requestsPerMinute", "is required; leave requestRate out for no limit")
    })?;
    Ok(Some(Rate { per_minute, burst: number("burst")?.unwrap_or(per_minute) }))
}

fn floor(root: &Fields<'_>) -> Result<Option<Floor>> {
    const FIELDS: &[&str] = &["hate", "selfHarm", "sexual", "violence", "requirePromptShields"];
    let Some(fields) = root.object("contentSafety", FIELDS)? else { return Ok(None) };
    let severity = |key| -> Result<Option<Severity>> {
        let Some(text) = fields.text(key, 0..=TEXT_BYTES)? else { return Ok(None) };
        let found = Severity::ALL.into_iter().find(|severity| severity.name() == text);
        found.map(Some).ok_or_else(|| fields.wrong(key, "expected one of Safe, Low, Medium, High"))
    };
    let floor = Floor {
        hate: severity("hate")?,
        self_harm: severity("selfHarm")?,
        sexual: severity("sexual")?,
        violence: severity("violence")?,
        require_prompt_shields: fields.flag("requirePromptShields")?.unwrap_or(false),
    };
    Ok((floor != Floor::default()).then_some(floor))
}

fn preference(root: &Fields<'_>) -> Result<Option<Preference>> {
    let Some(fields) = root.object("modelPreference", &["primary", "fallback"])? else { return Ok(None) };
    let primary = fields.get("primary").ok_or_else(|| fields.wrong("primary", "is required"))?;
    let primary = model_ref(primary, fields.path("primary"))?;
    let mut fallback: Vec<ModelRef> = Vec::new();
    let nodes = fields.list("fallback")?;
    if nodes.len() > FALLBACKS {
        return Err(fields.wrong("fallback", &format!("has more than {FALLBACKS} models")));
    }
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{}[{index}]", fields.path("fallback"));
        let next = model_ref(node, path.clone())?;
        if next == primary || fallback.contains(&next) {
            return Err(wrong(&path, "repeats an earlier model, so it can never be used"));
        }
        fallback.push(next);
    }
    Ok(Some(Preference { primary, fallback }))
}

fn model_ref(node: &Node, path: String) -> Result<ModelRef> {
    let fields = Fields::open(node, path, &["provider", "deployment"])?;
    let text = |key| -> Result<Box<str>> {
        let text =
            fields.text(key, 1..=limits::MODEL_BYTES)?.ok_or_else(|| fields.wrong(key, "is required"))?;
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(fields.wrong(key, "has a space or control character, as no name does"));
        }
        Ok(text.into())
    };
    Ok(ModelRef { provider: text("provider")?, deployment: text("deployment")? })
}

fn rules(root: &Fields<'_>, key: &str, names: Names) -> Result<Rules> {
    let fields = root.object(key, &["allow", "deny"])?;
    let (allow, deny) = match &fields {
        Some(fields) => (patterns(fields, "allow")?, patterns(fields, "deny")?),
        None => (None, None),
    };
    Rules::compile(names, allow.as_deref(), deny.as_deref())
        .map_err(|fault| wrong(&fault.rule.to_string(), &fault.text))
}

fn patterns<'n>(fields: &Fields<'n>, key: &str) -> Result<Option<Vec<&'n str>>> {
    if fields.get(key).is_none() {
        return Ok(None);
    }
    let mut patterns = Vec::new();
    for (index, node) in fields.list(key)?.iter().enumerate() {
        let Node::Text(text) = node else {
            let path = format!("{}[{index}]", fields.path(key));
            return Err(wrong(&path, &format!("expected a string, found {}", node.noun())));
        };
        patterns.push(text.as_str());
    }
    Ok(Some(patterns))
}
