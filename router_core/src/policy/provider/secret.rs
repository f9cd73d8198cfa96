//! Keys: zeroed when dropped, never printed, replaced while calls run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use zeroize::Zeroizing;

use super::preset::{AuthForm, Preset};
use crate::error::{Error, Kind, Result};

/// Longest key or token: Entra tokens with many groups reach some 8 KiB; a request head holds more.
const SECRET_BYTES: usize = 16 * 1024;
/// Real keys are longer, words of ordinary text are shorter.
const TELLTALE_BYTES: usize = 16;

/// Text that must not be seen. Zeroed on drop; `Debug` prints `[redacted]`; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Takes a key or token; white space around it is cut. `what` names its source in errors.
    ///
    /// # Errors
    /// [`Kind::Config`] when it is empty, longer than 16 KiB or holds a byte that no header value may have.
    pub fn parse(text: &str, what: &str) -> Result<Self> {
        let text = text.trim();
        let fault = if text.is_empty() {
            "is empty: put the key there"
        } else if text.len() > SECRET_BYTES {
            "is longer than 16 KiB, as no key is"
        } else if text.bytes().any(|b| !b.is_ascii_graphic()) {
            "holds a space, control or non-ASCII character: put the key there alone, on one line"
        } else {
            return Ok(Self(Zeroizing::new(text.into())));
        };
        Err(Error::new(Kind::Config, format!("{what} {fault}")))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be read, [`Kind::Config`] when it holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        use std::io::Read as _;
        let what = format!("the key file {}", path.display());
        let fault = |e: std::io::Error| Error::io(format!("read {what}"), &e);
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES + 2));
        let most = SECRET_BYTES as u64 + 2;
        std::fs::File::open(path).map_err(fault)?.take(most).read_to_string(&mut text).map_err(fault)?;
        Self::parse(&text, &what)
    }

    /// The text, for the one place that writes it to the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A header ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Authorization {
    name: &'static str,
    value: Secret,
}

impl Authorization {
    /// The header's name, lower case.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The header's value, such as `Bearer <key>`.
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// The key's own bytes, by which an echo of it is known; `None` for one so short (a local server's
    /// placeholder) that ordinary text holds it too.
    pub fn telltale(&self) -> Option<&[u8]> {
        let value = self.value.expose();
        let key = value.strip_prefix("Bearer ").unwrap_or(value);
        Some(key.as_bytes()).filter(|key| key.len() >= TELLTALE_BYTES)
    }
}

/// The cell of a provider's credential: read by calls without waiting, replaced without a restart.
#[derive(Debug)]
pub struct Credential {
    preset: &'static Preset,
    cell: ArcSwapOption<Authorization>,
}

impl Credential {
    pub(super) fn new(preset: &'static Preset) -> Self {
        Self { preset, cell: ArcSwapOption::empty() }
    }

    /// The header in force.
    pub fn load(&self) -> Option<Arc<Authorization>> {
        self.cell.load_full()
    }

    /// Puts a provider key in force, in the provider's own header. Gives whether it differs from the one before.
    pub fn set_key(&self, key: &Secret) -> bool {
        let auth = &self.preset.auth;
        self.put(&auth.header, auth.form, key)
    }

    /// Puts an access token in force (`authorization: Bearer`), as Entra gives them, whatever the provider's
    /// key header is. Gives whether it differs from the one before.
    pub fn set_token(&self, token: &Secret) -> bool {
        self.put("authorization", AuthForm::Bearer, token)
    }

    /// Takes the credential away; calls go without one.
    pub fn clear(&self) {
        self.cell.store(None);
    }

    fn put(&self, name: &'static str, form: AuthForm, secret: &Secret) -> bool {
        let value = match form {
            AuthForm::Key => secret.clone(),
            AuthForm::Bearer => {
                // Sized before, so that no smaller copy is left behind unzeroed.
                let mut value = String::with_capacity("Bearer ".len() + secret.expose().len());
                value.push_str("Bearer ");
                value.push_str(secret.expose());
                Secret(Zeroizing::new(value.into_boxed_str()))
            }
        };
        let next = Authorization { name, value };
        let changed = self.cell.load().as_deref() != Some(&next);
        if changed {
            self.cell.store(Some(Arc::new(next)));
        }
        changed
    }
}
