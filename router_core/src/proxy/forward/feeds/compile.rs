//! From the texts of all sources to one set.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::copies::{self, Copy};
use crate::error::{Error, Result};
use crate::policy::blocklist::{Blocklist, Builder};

/// What is known of one feed.
#[derive(Debug)]
pub struct Source {
    /// What it gave now.
    pub fresh: Option<Copy>,
    /// What it gave before.
    pub kept: Option<Arc<Copy>>,
}

/// What became of one feed.
#[derive(Debug)]
pub struct Taken {
    /// Its names in the set.
    pub names: usize,
    /// What it gave now, when that is in the set.
    pub accepted: Option<Copy>,
    /// Whether what it gave now is no list.
    pub refused: bool,
}

/// A set and where its names are from.
#[derive(Debug)]
pub struct Built {
    /// The set.
    pub list: Blocklist,
    /// Names of the seed file.
    pub seed: usize,
    /// One for each source, in their order.
    pub feeds: Vec<Taken>,
}

/// Builds a set. A feed whose new text cannot be read or has no name is taken as it was before; a seed file that is not
/// there has no names.
///
/// # Errors
/// The seed file cannot be read.
pub fn compile(seed: &Path, sources: Vec<Source>) -> Result<Built> {
    let mut builder = Builder::default();
    let told = |e: io::Error| Error::io(format_args!("cannot read {}", seed.display()), &e);
    let seed = add_seed(seed, &mut builder).map_err(told)?;
    let feeds = sources.into_iter().map(|source| take(source, &mut builder)).collect();
    Ok(Built { list: builder.build(), seed, feeds })
}

fn add_seed(seed: &Path, builder: &mut Builder) -> io::Result<usize> {
    match std::fs::metadata(seed) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
        Ok(found) if !found.is_file() => Err(io::Error::other("it is not a file")),
        Ok(_) => copies::add(&File::open(seed)?, builder),
    }
}

fn take(source: Source, builder: &mut Builder) -> Taken {
    let mut refused = false;
    if let Some(mut fresh) = source.fresh {
        match fresh.add_to(builder) {
            Ok(names) if names > 0 => {
                if let Err(error) = fresh.accept() {
                    tracing::warn!(%error, "blocklist.keep");
                }
                return Taken { names, accepted: Some(fresh), refused: false };
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "blocklist.read"),
        }
        refused = true;
    }
    let names = source.kept.map_or(0, |kept| {
        kept.add_to(builder).unwrap_or_else(|error| {
            tracing::warn!(%error, "blocklist.read");
            0
        })
    });
    Taken { names, accepted: None, refused }
}
