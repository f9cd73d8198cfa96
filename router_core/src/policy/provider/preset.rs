//! The preset files, decoded.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, de};

use crate::ids::Operation;

/// How a key stands in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthForm {
    /// `Bearer <key>` (RFC 6750 §2.1).
    Bearer,
    /// The key alone.
    Key,
}

/// Where the usage of a streamed answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamUsage {
    /// Only when asked for: `stream_options.include_usage` is set on chat and completions.
    Inject,
    /// Always sent.
    Native,
    /// Never sent, and asking for it is an error.
    None,
}

/// The field that caps the output of a chat call when the client sent none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCap {
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// `max_tokens`.
    MaxTokens,
}

impl OutputCap {
    /// The field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
        }
    }
}

/// What an upstream is particular about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// Where streamed usage comes from.
    pub stream_usage: StreamUsage,
    /// The chat field that caps output.
    pub output_cap: OutputCap,
    /// Responses: replayed `reasoning` items and `reasoning.encrypted_content` must be taken out of a request.
    pub strip_reasoning: bool,
}

/// The header of a key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) header: Box<str>,
    pub(super) form: AuthForm,
}

/// Paths that live elsewhere than the rest: Azure's model and deployment lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lists {
    /// First segments of the paths meant.
    pub(super) segments: Vec<Box<str>>,
    /// What stands before them, below the root.
    pub(super) prefix: Box<str>,
    /// The query parameter they need, `name=value`; a client's own of that name gives way.
    pub(super) query: Box<str>,
}

/// What is known of a kind of provider. A file of `router_core/providers/` each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name.
    pub name: Box<str>,
    /// Other names by which policies call it.
    #[serde(default)]
    pub aliases: Vec<Box<str>>,
    /// The base URL to use when none is set.
    #[serde(default)]
    pub base_url: Option<Box<str>>,
    /// Endings that people paste along with the endpoint and that `prefix` brings already.
    #[serde(default)]
    pub(super) pasted: Vec<Box<str>>,
    /// What stands between the base URL's path and the operation's.
    pub(super) prefix: Box<str>,
    #[serde(default)]
    pub(super) lists: Option<Lists>,
    /// Operations that live at the account, outside the path of the base URL.
    #[serde(default, deserialize_with = "operations")]
    pub(super) at_account: Vec<Operation>,
    pub(super) auth: Auth,
    #[serde(default)]
    pub(super) audience: Option<Box<str>>,
    #[serde(default)]
    pub(super) headers: Vec<(Box<str>, Box<str>)>,
    #[serde(deserialize_with = "operations")]
    pub(super) operations: Vec<Operation>,
    /// What it is particular about.
    pub quirks: Quirks,
}

impl Preset {
    /// The base URL's path without what people paste along.
    pub(super) fn root<'p>(&self, path: &'p str) -> &'p str {
        self.pasted.iter().find_map(|ending| path.strip_suffix(ending.as_ref())).unwrap_or(path)
    }
}

const FILES: [&str; 6] = [
    include_str!("../../../providers/openai.json"),
    include_str!("../../../providers/azure-openai.json"),
    include_str!("../../../providers/foundry-project.json"),
    include_str!("../../../providers/anthropic.json"),
    include_str!("../../../providers/openai-compatible.json"),
    include_str!("../../../providers/github-models.json"),
];

// A test holds every file to its shape, so none is left out here.
static PRESETS: LazyLock<Vec<Preset>> =
    LazyLock::new(|| FILES.iter().filter_map(|file| serde_json::from_str(file).ok()).collect());

pub(super) fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name.as_ref() == name)
}

fn operations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Operation>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let known = |name: &String| {
        let found = Operation::ALL.into_iter().find(|operation| operation.name() == name);
        found.ok_or_else(|| de::Error::custom(format!("{name} is no operation")))
    };
    names.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_file_decodes_and_is_found_by_its_name() {
        for file in FILES {
            let preset: Preset = serde_json::from_str(file).unwrap();
            assert!(named(&preset.name).is_some(), "{}", preset.name);
            assert_eq!(preset.auth.header, preset.auth.header.to_ascii_lowercase().into());
            assert!(preset.headers.iter().all(|(name, _)| *name == name.to_ascii_lowercase().into()));
            assert!(preset.prefix.is_empty() || preset.prefix.starts_with('/'), "{}", preset.name);
            assert!(!preset.prefix.ends_with('/'), "{}", preset.name);
        }
    }
}
