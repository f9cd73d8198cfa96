//! The named rewrites of a request, as edits of its bytes.

use std::ops::Range;

use super::{Request, StreamUsage};
use crate::wire::edit::Edits;

/// Collects rewrites of one request body; all of them together give valid JSON, in any combination.
///
/// Setting the same thing twice keeps the last one. Nothing that is not named changes by a byte.
#[derive(Debug, Clone)]
pub struct Rewrite<'r, 'b> {
    request: &'r Request<'b>,
    body: &'r [u8],
    model: Option<String>,
    stream_usage: bool,
    tools: Vec<usize>,
    strip_reasoning: bool,
    caps: Vec<(&'static str, u64)>,
}

impl<'r, 'b> Rewrite<'r, 'b> {
    /// No rewrites of `body`, of which `request` is the view.
    pub fn new(request: &'r Request<'b>, body: &'r [u8]) -> Self {
        Self {
            request,
            body,
            model: None,
            stream_usage: false,
            tools: Vec::new(),
            strip_reasoning: false,
            caps: Vec::new(),
        }
    }

    /// Replaces the value of `model`, or adds the key.
    pub fn set_model(&mut self, model: impl Into<String>) -> &mut Self {
        self.model = Some(model.into());
        self
    }

    /// Makes `stream_options.include_usage` true and keeps its other options.
    pub fn set_stream_usage(&mut self) -> &mut Self {
        self.stream_usage = true;
        self
    }

    /// Removes the elements of `tools` at `indexes`; when none is left, `tools` is `[]`.
    pub fn remove_tools(&mut self, indexes: &[usize]) -> &mut Self {
        self.tools.extend_from_slice(indexes);
        self
    }

    /// Removes what [`Request::reasoning`] names.
    pub fn strip_reasoning(&mut self) -> &mut Self {
        self.strip_reasoning = true;
        self
    }

    /// Replaces the value of the output cap `key` (one of those of [`Request::caps`]), or adds the key.
    pub fn set_cap(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.caps.retain(|(name, _)| *name != key);
        self.caps.push((key, value));
        self
    }

    /// The edits that make all of this.
    pub fn edits(&self) -> Edits {
        let mut edits = Edits::new();
        let mut added = Vec::new();
        let mut set = |edits: &mut Edits, key: &str, place: Option<Range<usize>>, value: String| match place {
            Some(span) => edits.replace(span, value),
            None => added.push(format!("\"{key}\":{value}")),
        };
        if let Some(model) = &self.model {
            let place = self.request.model.as_ref().map(|m| m.span.clone()).or_else(|| self.null("model"));
            set(&mut edits, "model", place, serde_json::Value::from(model.as_str()).to_string());
        }
        for (key, value) in &self.caps {
            let cap = self.request.caps.iter().find(|(name, _)| name == key);
            let place = cap.map(|(_, cap)| cap.span.clone()).or_else(|| self.null(key));
            set(&mut edits, key, place, value.to_string());
        }
        if self.stream_usage {
            match &self.request.stream_usage {
                StreamUsage::Absent(null) => {
                    set(&mut edits, "stream_options", null.clone(), "{\"include_usage\":true}".into());
                }
                StreamUsage::Unset { at, empty } => {
                    edits.replace(
                        *at..*at,
                        if *empty { "\"include_usage\":true" } else { "\"include_usage\":true," },
                    );
                }
                StreamUsage::Off(span) => edits.replace(span.clone(), "true"),
                StreamUsage::On => {}
            }
        }
        self.drop_elements(&mut edits);
        if !added.is_empty() {
            let comma = if self.request.empty { "" } else { "," };
            let open = self.request.open;
            edits.replace(open..open, added.join(",") + comma);
        }
        edits
    }

    fn null(&self, key: &str) -> Option<Range<usize>> {
        self.request.nulls.iter().find(|(name, _)| *name == key).map(|(_, span)| span.clone())
    }

    fn drop_elements(&self, edits: &mut Edits) {
        let tools = self.request.tools.iter().enumerate();
        let gone: Vec<_> =
            tools.filter(|(i, _)| self.tools.contains(i)).map(|(_, t)| t.span.clone()).collect();
        match &self.request.tools_span {
            Some(span) if !gone.is_empty() && gone.len() == self.request.tools.len() => {
                edits.replace(span.clone(), "[]");
            }
            _ => remove(edits, self.body, &gone),
        }
        if self.strip_reasoning {
            remove(edits, self.body, &self.request.reasoning);
        }
    }
}

/// Removes array elements with the commas that they leave behind. `spans` are in body order.
fn remove(edits: &mut Edits, body: &[u8], spans: &[Range<usize>]) {
    let text = |range: Range<usize>| body.get(range).unwrap_or(&[]);
    let mut rest = spans;
    while let Some((first, mut after)) = rest.split_first() {
        let mut run = first.clone();
        while let Some((next, further)) = after.split_first() {
            if text(run.end..next.start).trim_ascii() != b"," {
                break;
            }
            run.end = next.end;
            after = further;
        }
        rest = after;
        let behind = text(run.end..body.len());
        let following = behind.trim_ascii_start();
        let before = text(0..run.start).trim_ascii_end();
        if following.starts_with(b",") {
            run.end += behind.len() - following.len() + 1;
        } else if before.ends_with(b",") {
            run.start = before.len() - 1;
        }
        edits.replace(run, Vec::new());
    }
}
