//! Reading one policy file out of a mount that kubelet may be swapping.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::limits;

/// Tries before a mount that keeps changing is given up; kubelet swaps once a minute at most.
const ATTEMPTS: usize = 8;

/// The first `*.json` of a directory in the order of names, hidden ones left out, symbolic links followed:
/// its path and bytes, all of one version of the mount. `None` when there is no such file or directory.
///
/// # Errors
/// [`Kind::Policy`] when it is larger than `limits::POLICY_BYTES` or no plain file, [`Kind::Io`] when it
/// cannot be read.
pub fn read_inference(dir: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    // A volume's files are links through `..data`, which kubelet moves to the next version in one step.
    let version = || std::fs::read_link(dir.join("..data")).ok();
    let mut outcome = Ok(None);
    for _ in 0..ATTEMPTS {
        let before = version();
        let attempt = first_json(dir).and_then(|found| found.map(read).transpose());
        let vanished = attempt.as_ref().is_err_and(|e| e.vanished);
        outcome = attempt.map_err(|e| e.error);
        if !vanished && version() == before {
            break;
        }
    }
    outcome
}

/// An error, and whether it may be due to a swap between two steps.
struct Fault {
    error: Error,
    vanished: bool,
}

impl Fault {
    fn io(path: &Path, cause: &io::Error) -> Self {
        let vanished = cause.kind() == io::ErrorKind::NotFound;
        Self { error: Error::io(format!("read {}", path.display()), cause), vanished }
    }

    fn policy(path: &Path, what: &str) -> Self {
        Self { error: Error::new(Kind::Policy, format!("{} {what}", path.display())), vanished: false }
    }
}

fn first_json(dir: &Path) -> Result<Option<PathBuf>, Fault> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::io(dir, &e)),
    };
    let mut first = None;
    for entry in entries {
        let name = entry.map_err(|e| Fault::io(dir, &e))?.file_name();
        let shown = !name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".json");
        if shown && first.as_ref().is_none_or(|best| name < *best) {
            first = Some(name);
        }
    }
    Ok(first.map(|name| dir.join(name)))
}

fn read(path: PathBuf) -> Result<(PathBuf, Vec<u8>), Fault> {
    // Without blocking, because opening a FIFO would wait for its writer.
    #[allow(clippy::cast_possible_wrap)] // The flag is one low bit.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let open = File::options().read(true).custom_flags(nonblock).open(&path);
    let file = open.map_err(|e| Fault::io(&path, &e))?;
    let plain = file.metadata().map_err(|e| Fault::io(&path, &e))?.is_file();
    if !plain {
        return Err(Fault::policy(&path, "is no plain file"));
    }
    let mut bytes = Vec::new();
    let most = limits::POLICY_BYTES as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| Fault::io(&path, &e))?;
    if bytes.len() > limits::POLICY_BYTES {
        return Err(Fault::policy(&path, &format!("is larger than {most} bytes")));
    }
    Ok((path, bytes))
}
