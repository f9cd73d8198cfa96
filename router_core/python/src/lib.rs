//! `kars._core`: the thin skin over `router_core`. Nothing here decides or moves bytes.
//!
//! Every class is frozen; every call that may wait releases the GIL; serving threads never attach to Python.

use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use router_core::engine::{self, Event};
use router_core::error::{Error, Kind};
use router_core::policy::egress;
use router_core::settings::VARIABLES;
use router_core::telemetry::audit;
use serde_json::json;

mod client;

create_exception!(
    _core,
    CoreError,
    PyException,
    "An error of the core; the text is for people and holds no secret."
);

/// The one funnel from the core's errors to Python's.
fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let kind = match error.kind() {
        Kind::Config => "config",
        Kind::Policy => "policy",
        Kind::Io => "io",
        Kind::Bug => "bug",
        _ => "runtime",
    };
    let raised = CoreError::new_err(error.detail().to_owned());
    // An exception instance takes attributes; were it not so, the text would still tell.
    let _ = raised.value(py).setattr("kind", kind);
    raised
}

/// A compiled, immutable policy.
#[pyclass(frozen, module = "kars._core")]
struct Snapshot {
    compiled: engine::Compiled,
}

#[pymethods]
impl Snapshot {
    /// Decode strictly and compile files of (name, bytes). Raises `CoreError` of kind `policy` that names the field.
    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 makes the argument from Python's own")]
    fn compile(py: Python<'_>, kind: &str, files: Vec<(String, Vec<u8>)>) -> PyResult<Self> {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (&**name, &**data)).collect();
        let compiled = py.detach(|| engine::Compiled::new(kind, &files));
        Ok(Self { compiled: compiled.map_err(|e| raise(py, &e))? })
    }

    /// `sha256:<hex>` over names and bytes, as the controller computes it.
    #[getter]
    fn digest(&self) -> &str {
        self.compiled.digest()
    }

    /// What was passed over: approvals that are not valid.
    #[getter]
    fn problems(&self) -> Vec<String> {
        self.compiled.problems().to_vec()
    }
}

/// The data plane: listeners, policy handle, budgets, audit log. Serves on threads of its own.
#[pyclass(frozen, module = "kars._core")]
struct Engine {
    engine: engine::Engine,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, environment: &[u8]) -> PyResult<Self> {
        let engine = py.detach(|| engine::Engine::new(environment)).map_err(|e| raise(py, &e))?;
        Ok(Self { engine })
    }

    /// Bind the listeners and serve. Raises `CoreError` that names the address.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.engine.start()).map_err(|e| raise(py, &e))
    }

    /// Block up to `timeout` seconds for the next event: `policy`, `cold`, `stopped`, or None.
    fn wait(&self, py: Python<'_>, timeout: f64) -> Option<&'static str> {
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        py.detach(|| self.engine.wait(timeout)).map(|event| match event {
            Event::Policy => "policy",
            Event::Cold => "cold",
            Event::Stopped => "stopped",
        })
    }

    /// Swap the policy in; calls in flight keep the one they started with.
    fn apply(&self, snapshot: &Snapshot) {
        self.engine.apply(&snapshot.compiled);
    }

    /// Record that a bundle was not valid; the policy in force stays.
    fn refuse(&self, py: Python<'_>, kind: &str, source: &str, error: &str) -> PyResult<()> {
        self.engine.refuse(kind, source, error).map_err(|e| raise(py, &e))
    }

    /// Record that a bundle is not mounted (any more).
    fn clear(&self, py: Python<'_>, kind: &str) -> PyResult<()> {
        self.engine.clear(kind).map_err(|e| raise(py, &e))
    }

    /// Kind of bundle to the directory it is mounted at.
    fn policy_dirs(&self) -> std::collections::BTreeMap<&'static str, String> {
        self.engine.policy_dirs().into_iter().map(|(kind, dir)| (kind, dir.display().to_string())).collect()
    }

    /// Stop accepting, let calls finish for `grace` seconds (None: the setting), then `wait` says `stopped`.
    fn drain(&self, py: Python<'_>, grace: Option<f64>) {
        let grace = grace.map(|g| Duration::try_from_secs_f64(g).unwrap_or_default());
        py.detach(|| self.engine.drain(grace));
    }

    /// Relay cold routes to the HTTP/1.1 server on this Unix socket.
    fn attach_cold(&self, socket_path: &str) {
        self.engine.attach_cold(socket_path);
    }

    /// Return the override of the default model, if any, and the configured default.
    fn admin_model(&self) -> (Option<String>, String) {
        self.engine.admin_model()
    }

    /// Set or lift the override; returns the one before.
    fn set_admin_model(&self, model: Option<String>) -> Option<String> {
        self.engine.set_admin_model(model)
    }

    /// JSON: effective settings (redacted), generation, listeners, budgets.
    fn status(&self) -> Vec<u8> {
        self.engine.status().into_bytes()
    }

    /// Bound ports by listener: `inference`, `metrics`.
    fn ports(&self) -> std::collections::BTreeMap<&'static str, u16> {
        self.engine.ports()
    }
}

/// Every variable: name, default, group, help.
#[pyfunction]
fn settings_table() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    VARIABLES.iter().map(|v| (v.name, v.default, v.group, v.help)).collect()
}

/// Verify the audit log in `directory`; JSON with the counts, the head and the first break.
#[pyfunction]
fn verify_audit(py: Python<'_>, directory: &str) -> PyResult<Vec<u8>> {
    let report = py.detach(|| audit::verify(std::path::Path::new(directory)));
    let report = report.map_err(|e| raise(py, &e))?;
    let broken = report.broken.map(|b| json!({"file": b.file, "line": b.line, "what": b.fault.to_string()}));
    let document = json!({
        "files": report.files,
        "records": report.records,
        "lost": report.lost,
        "first_seq": report.first_seq,
        "last_seq": report.last_seq,
        "first_ts": report.first_ts,
        "last_ts": report.last_ts,
        "head": report.head,
        "broken": broken,
    });
    Ok(document.to_string().into_bytes())
}

/// Call this sandbox's own router; status and body.
#[pyfunction]
#[pyo3(signature = (method, path, body, environment))]
fn probe(
    py: Python<'_>,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
    environment: &[u8],
) -> PyResult<(u16, Vec<u8>)> {
    py.detach(|| client::call(method, path, body, environment)).map_err(|e| raise(py, &e))
}

/// Judge recorded connections by egress lists; a JSON list of the rows with what is decided about each.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "what is extracted from Python is owned")]
fn replay_egress(py: Python<'_>, files: Vec<(String, Vec<u8>)>, rows: &[u8], now: u64) -> PyResult<Vec<u8>> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (&**name, &**data)).collect();
    let judged = py.detach(|| egress::replay_files(&files, rows, now));
    Ok(judged.map_err(|e| raise(py, &e))?.into_bytes())
}

/// The allowlist that allows recorded connections, and what it leaves out.
#[pyfunction]
fn propose_egress(py: Python<'_>, rows: &[u8], collapse: bool) -> PyResult<(String, Vec<String>)> {
    let proposal = py.detach(|| Ok(egress::propose(&egress::read_rows(rows)?, collapse)));
    let proposal = proposal.map_err(|e| raise(py, &e))?;
    Ok((proposal.text, proposal.left_out))
}

/// Version of the core.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The native core.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CoreError", module.py().get_type::<CoreError>())?;
    module.add_class::<Engine>()?;
    module.add_class::<Snapshot>()?;
    module.add_function(wrap_pyfunction!(settings_table, module)?)?;
    module.add_function(wrap_pyfunction!(verify_audit, module)?)?;
    module.add_function(wrap_pyfunction!(probe, module)?)?;
    module.add_function(wrap_pyfunction!(replay_egress, module)?)?;
    module.add_function(wrap_pyfunction!(propose_egress, module)?)?;
    module.add_function(wrap_pyfunction!(version, module)?)
}
