//! Providers as data: where an operation goes, how the call is authorized, and what the upstream is particular about.

mod origin;
mod preset;
mod secret;
mod settings;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::ids::Operation;

pub use origin::{Base, Origin};
pub use preset::{AuthForm, OutputCap, Preset, Quirks, StreamUsage};
pub use secret::{Authorization, Credential, Secret};
pub use settings::from_settings;
pub use target::forwards_header;

/// A configured upstream.
#[derive(Debug)]
pub struct Provider {
    preset: &'static Preset,
    origin: Origin,
    root: Box<str>,
    credential: Credential,
    key_file: Option<PathBuf>,
}

impl Provider {
    /// A provider at `base`, without a credential yet.
    pub fn new(preset: &'static Preset, base: Base) -> Self {
        let root = preset.root(&base.path).into();
        let credential = Credential::new(preset);
        Self { preset, origin: base.origin, root, credential, key_file: None }
    }

    /// The preset of that name: `openai`, `azure-openai`, `foundry-project`, `anthropic`, `openai-compatible`, `github-models`.
    pub fn preset(name: &str) -> Option<&'static Preset> {
        preset::named(name)
    }

    /// The preset's name, as metrics and audit records show it.
    pub fn name(&self) -> &'static str {
        &self.preset.name
    }

    /// Whether a policy that names `provider` in a model reference means this one.
    pub fn answers_to(&self, provider: &str) -> bool {
        self.preset.name.as_ref() == provider
            || self.preset.aliases.iter().any(|alias| alias.as_ref() == provider)
    }

    /// Whether it serves an operation.
    pub fn serves(&self, operation: Operation) -> bool {
        self.preset.operations.contains(&operation)
    }

    /// The path and query to ask for at [`Provider::origin`], in origin form.
    ///
    /// `rest` is the operation's path below the API root, without a leading slash: `chat/completions`,
    /// `responses/resp_1/input_items`, `models`. `query` comes without its `?`.
    ///
    /// # Errors
    /// [`crate::error::Kind::BadRequest`] when `rest` could climb out of the API root (`..`, `//`, `\`, their
    /// percent-encoded forms) or either holds a byte that a target cannot have (RFC 3986 §3.3, §3.4).
    pub fn target(&self, operation: Operation, rest: &str, query: Option<&str>) -> Result<String> {
        target::build(self.preset, &self.root, operation, rest, query)
    }

    /// Where to connect.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The header that carries a key of this provider, and its form. [`Provider::authorization`] has it ready.
    pub fn auth(&self) -> (&'static str, AuthForm) {
        (&self.preset.auth.header, self.preset.auth.form)
    }

    /// The authorization header in force; `None` for an open local server, or before a token was pushed.
    pub fn authorization(&self) -> Option<Arc<Authorization>> {
        self.credential.load()
    }

    /// The credential's cell, to rotate it while calls run.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The file whose content is the key, to be watched; [`Provider::refresh`] reads it again.
    pub fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }

    /// Reads the key file again and puts a changed key in force. Gives whether it changed.
    ///
    /// # Errors
    /// The file cannot be read or holds no key; the key in force stays.
    pub fn refresh(&self) -> Result<bool> {
        match &self.key_file {
            None => Ok(false),
            Some(path) => {
                let key = Secret::read(path)?;
                Ok(self.credential.set_key(&key))
            }
        }
    }

    /// Headers to add when the client did not send them: (lower-case name, value).
    pub fn default_headers(&self) -> &'static [(Box<str>, Box<str>)] {
        &self.preset.headers
    }

    /// What the upstream is particular about.
    pub fn quirks(&self) -> Quirks {
        self.preset.quirks
    }

    /// The audience of an Entra token for this provider; `None` when it takes none.
    pub fn audience(&self) -> Option<&'static str> {
        self.preset.audience.as_deref()
    }
}

#[cfg(test)]
mod tests;
