//! Which providers a process has, from its settings.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::origin::Base;
use super::{Provider, Secret, preset};
use crate::error::{Error, Kind, Result};

/// Where the pod mounts keys.
const SECRETS: &str = "/run/secrets";
/// The name of the Azure key, whichever provider it is for in truth.
const AZURE_KEY_FILE: &str = "azure-openai-key";
const OPENAI_KEY_FILE: &str = "openai-api-key";
const ANTHROPIC_KEY_FILE: &str = "anthropic-api-key";
/// The router's own port when `ROUTER_PORT` does not say.
const ROUTER_PORT: u16 = 8443;

/// A process's settings: a variable's value, if set. An empty value counts as not set.
pub type Settings<'s> = &'s dyn Fn(&str) -> Option<String>;

/// The providers that are configured, in the order in which they are asked:
///
/// | Endpoint | Key | Provider |
/// |---|---|---|
/// | `AZURE_OPENAI_ENDPOINT`, else `FOUNDRY_ENDPOINT` | file `AZURE_OPENAI_API_KEY_FILE` (`/run/secrets/azure-openai-key`), else `AZURE_OPENAI_API_KEY`, else a token pushed later | `azure-openai`, `foundry-project` or `github-models`, by host |
/// | `OPENAI_BASE_URL`, else `https://api.openai.com/v1` when there is a key | file `OPENAI_API_KEY_FILE` (`/run/secrets/openai-api-key`), else `OPENAI_API_KEY` | `openai`, `openai-compatible` or one of the above, by host |
/// | `ANTHROPIC_BASE_URL`, else `https://api.anthropic.com` when there is a key | file `ANTHROPIC_API_KEY_FILE` (`/run/secrets/anthropic-api-key`), else `ANTHROPIC_API_KEY` | `anthropic` |
///
/// Base URLs are as the SDKs read them: that of `OPENAI_BASE_URL` has `/v1`, that of `ANTHROPIC_BASE_URL` has not.
///
/// # Errors
/// [`Kind::Config`] with the variable and what to do; [`Kind::Io`] when a key file is there but cannot be read.
pub fn from_settings(settings: Settings<'_>) -> Result<Vec<Provider>> {
    with_secrets(settings, Path::new(SECRETS))
}

/// [`from_settings`] with another directory for key files that no variable names.
pub(super) fn with_secrets(settings: Settings<'_>, secrets: &Path) -> Result<Vec<Provider>> {
    let settings = Reader { settings, secrets };
    let configured = [azure(&settings)?, openai(&settings)?, anthropic(&settings)?];
    let providers: Vec<Provider> = configured.into_iter().flatten().collect();
    for provider in &providers {
        refuse_self(&settings, provider)?;
    }
    Ok(providers)
}

fn azure(settings: &Reader<'_>) -> Result<Option<Provider>> {
    let variables = ["AZURE_OPENAI_ENDPOINT", "FOUNDRY_ENDPOINT"];
    let Some((variable, url)) = variables.iter().find_map(|v| settings.get(v).map(|url| (*v, url))) else {
        return Ok(None);
    };
    let base = Base::parse(&url, variable)?;
    let name = known_host(&base).unwrap_or("azure-openai");
    let key = settings.key("AZURE_OPENAI_API_KEY", AZURE_KEY_FILE)?;
    provider(name, base, key).map(Some)
}

fn openai(settings: &Reader<'_>) -> Result<Option<Provider>> {
    const KEY: &str = "OPENAI_API_KEY";
    let key = settings.key(KEY, OPENAI_KEY_FILE)?;
    let Some(base) = settings.base("OPENAI_BASE_URL", "openai", key.is_some())? else { return Ok(None) };
    let official = base.origin.host == "api.openai.com" || base.origin.host.ends_with(".api.openai.com");
    if official && key.is_none() {
        return Err(missing(KEY, &base));
    }
    let name = known_host(&base).unwrap_or(if official { "openai" } else { "openai-compatible" });
    provider(name, base, key).map(Some)
}

fn anthropic(settings: &Reader<'_>) -> Result<Option<Provider>> {
    const KEY: &str = "ANTHROPIC_API_KEY";
    const URL: &str = "ANTHROPIC_BASE_URL";
    let key = settings.key(KEY, ANTHROPIC_KEY_FILE)?;
    let Some(base) = settings.base(URL, "anthropic", key.is_some())? else { return Ok(None) };
    if base.path.ends_with("/v1") {
        let text = format!("{URL}: ends in /v1: leave that out, Anthropic clients add it");
        return Err(Error::new(Kind::Config, text));
    }
    if base.origin.host == "api.anthropic.com" && key.is_none() {
        return Err(missing(KEY, &base));
    }
    provider("anthropic", base, key).map(Some)
}

fn missing(variable: &str, base: &Base) -> Error {
    let host = &base.origin.host;
    Error::new(
        Kind::Config,
        format!("{variable}: not set, and {host} needs a key: set it, or mount its file"),
    )
}

/// The preset of a host that tells by itself what it is.
fn known_host(base: &Base) -> Option<&'static str> {
    let host = base.origin.host.as_str();
    let within =
        |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.'));
    if within("models.github.ai") || within("models.inference.ai.azure.com") {
        return Some("github-models");
    }
    if within("services.ai.azure.com") && base.path.contains("/api/projects/") {
        return Some("foundry-project");
    }
    ["openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"]
        .into_iter()
        .any(within)
        .then_some("azure-openai")
}

fn provider(name: &str, base: Base, key: Option<Key>) -> Result<Provider> {
    let preset = preset::named(name)
        .ok_or_else(|| Error::new(Kind::Bug, format!("the preset {name} is not built in")))?;
    let mut provider = Provider::new(preset, base);
    if let Some(key) = key {
        provider.credential.set_key(&key.secret);
        provider.key_file = key.file;
    }
    Ok(provider)
}

/// Agents get this router's address in the same variables; taken for an upstream it would call itself forever.
fn refuse_self(settings: &Reader<'_>, provider: &Provider) -> Result<()> {
    let own = settings.get("ROUTER_PORT").and_then(|port| port.parse().ok()).unwrap_or(ROUTER_PORT);
    let origin = provider.origin();
    if origin.loopback() && origin.port == own {
        let text = format!(
            "the {} endpoint {} is this router: set it to the upstream",
            provider.name(),
            origin.authority
        );
        return Err(Error::new(Kind::Config, text));
    }
    Ok(())
}

struct Key {
    secret: Secret,
    file: Option<PathBuf>,
}

struct Reader<'s> {
    settings: Settings<'s>,
    secrets: &'s Path,
}

impl Reader<'_> {
    fn get(&self, variable: &str) -> Option<String> {
        (self.settings)(variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The base URL of a variable, or the preset's own when there is a key.
    fn base(&self, variable: &str, preset: &str, keyed: bool) -> Result<Option<Base>> {
        let default = || preset::named(preset).and_then(|preset| preset.base_url.clone()).map(String::from);
        let url = self.get(variable).or_else(|| keyed.then(default).flatten());
        url.map(|url| Base::parse(&url, variable)).transpose()
    }

    /// The key of a file if that is there, else of the variable.
    fn key(&self, variable: &str, default_file: &str) -> Result<Option<Key>> {
        let stated = self.get(&format!("{variable}_FILE"));
        let path = stated.as_ref().map_or_else(|| self.secrets.join(default_file), PathBuf::from);
        if stated.is_some() || exists(&path) {
            let secret = Secret::read(&path)?;
            return Ok(Some(Key { secret, file: Some(path) }));
        }
        let value = self.get(variable);
        let value = value.map(Zeroizing::new);
        value.map(|text| Ok(Key { secret: Secret::parse(&text, variable)?, file: None })).transpose()
    }
}

/// A key file that is mounted but empty counts as not there, as the pod mounts optional secrets.
fn exists(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0)
}
