//! The one pass over a request body.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::lists::{Elements, List, carries_reasoning, list_span, read_tools, value_span};
use super::{Request, Spanned, StreamUsage, media, quick};
use crate::error::{Error, Result};
use crate::ids::Operation;
use crate::limits;
use crate::wire::members::{Name, Repeats, members, string};

/// The keys that are read; the last four are lists. The last two only of responses: elsewhere `input` is text.
pub(super) const KEYS: [&str; 12] = [
    "model",
    "stream",
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "stream_options",
    "tools",
    "functions",
    "input",
    "include",
];
pub(super) const SINGLE: usize = 8;

pub(super) fn read(operation: Operation, body: &[u8]) -> Result<Request<'_>> {
    let text = std::str::from_utf8(body).map_err(|_| Error::bad_request("the body is not valid UTF-8"))?;
    let open = body.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len();
    if body.get(open) != Some(&b'{') {
        return Err(Error::bad_request("the body is not a JSON object"));
    }
    let names = if operation == Operation::Responses { &KEYS[..] } else { KEYS.split_at(SINGLE + 2).0 };
    let found = quick::find(text, names).map_or_else(|| parse(text, names), Ok)?;
    view(text, open.saturating_add(1), &found)
}

/// Finds the values in any body, or says why it is refused.
pub(super) fn parse<'b>(text: &'b str, names: &'static [&'static str]) -> Result<Found<'b>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Body { names }).map_err(|e| refused(&e))?;
    deserializer.end().map_err(|e| refused(&e))?;
    Ok(found)
}

/// The error of a body that `serde_json` refused. Its own texts name a place and never quote the body, save for
/// values of a wrong type, of which the passes here meet none but numbers and literals.
pub(super) fn refused(cause: &serde_json::Error) -> Error {
    match cause.classify() {
        serde_json::error::Category::Data => Error::bad_request(cause.to_string()),
        _ => Error::bad_request(format!("the body is not valid JSON: {cause}")),
    }
}

pub(super) fn wrong_type(key: &str) -> Error {
    Error::bad_request(format!("'{key}' has a wrong type"))
}

/// The values of the keys that are read, as written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found<'b> {
    pub(super) values: [Option<&'b str>; SINGLE],
    pub(super) tools: List<'b>,
    pub(super) functions: List<'b>,
    pub(super) reasoning: Vec<&'b str>,
    pub(super) members: usize,
}

impl<'b> Found<'b> {
    /// Takes the list of `name`, one of the last four keys.
    pub(super) fn take(&mut self, name: &str, list: List<'b>) {
        match name {
            "tools" => self.tools = list,
            "functions" => self.functions = list,
            _ => {
                self.reasoning.extend(list.elements.into_iter().filter(|element| carries_reasoning(element)));
            }
        }
    }
}

/// Whether a text may stand in the place of the list `name`.
pub(super) fn may_be_text(name: &str) -> bool {
    matches!(name, "input" | "include")
}

struct Body {
    names: &'static [&'static str],
}

impl<'de> Visitor<'de> for Body {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        let mut seen = [false; KEYS.len()];
        while let Some(key) = map.next_key_seed(Name { names: self.names, repeats: Repeats::Refuse })? {
            found.members += 1;
            let Some((key, seen)) = key.and_then(|i| Some((i, seen.get_mut(i)?))) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let name = KEYS.get(key).copied().unwrap_or_default();
            if std::mem::replace(seen, true) {
                return Err(A::Error::custom(format_args!("'{name}' is repeated")));
            }
            if let Some(slot) = found.values.get_mut(key) {
                *slot = Some(map.next_value::<&RawValue>()?.get());
                continue;
            }
            let list = map.next_value_seed(Elements { key: name, text: may_be_text(name) })?;
            found.take(name, list);
        }
        Ok(found)
    }
}

/// Decodes the values that were found.
fn view<'b>(body: &'b str, open: usize, found: &Found<'b>) -> Result<Request<'b>> {
    let [model, stream, completion_cap, cap, output_cap, n, best_of, options] = found.values;
    let mut nulls = Vec::new();
    let mut present = |key: &'static str, value: Option<&'b str>| {
        let value = value?;
        if value == "null" {
            nulls.push((key, span(body, value)));
            return None;
        }
        Some(value)
    };
    let mut caps = Vec::new();
    for (key, value) in
        [("max_completion_tokens", completion_cap), ("max_tokens", cap), ("max_output_tokens", output_cap)]
    {
        if let Some(value) = present(key, value) {
            caps.push((key, Spanned { value: number(key, value)?, span: span(body, value) }));
        }
    }
    let n = present("n", n).map_or(Ok(1), |value| number("n", value))?;
    let best_of = present("best_of", best_of).map_or(Ok(1), |value| number("best_of", value))?;
    let model = present("model", model).map(|value| read_model(body, value)).transpose()?;
    let stream = present("stream", stream).map_or(Ok(false), |value| boolean("stream", value))?;
    let stream_usage = stream_usage(body, options)?;
    let tools_span = if found.tools.present { list_span(body, "tools", &found.tools)? } else { None };
    for (key, list) in [("tools", &found.tools), ("functions", &found.functions)] {
        if list.null {
            nulls.extend(value_span(body, key)?.map(|span| (key, span)));
        }
    }
    let (media_parts, payload) = media::scan(body.as_bytes());
    Ok(Request {
        model,
        stream,
        caps,
        choices: n.max(best_of),
        stream_usage,
        tools_span,
        tools: read_tools(body, "tools", &found.tools)?,
        functions: read_tools(body, "functions", &found.functions)?,
        reasoning: found.reasoning.iter().map(|element| span(body, element)).collect(),
        nulls,
        text_bytes: (body.len() as u64).saturating_sub(payload),
        media_parts,
        open,
        empty: found.members == 0,
    })
}

/// Where `part`, a piece of `body`, stands in it.
pub(super) fn span(body: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start.saturating_add(part.len())
}

fn read_model<'b>(body: &str, value: &'b str) -> Result<Spanned<Cow<'b, str>>> {
    let model = string(value).ok_or_else(|| wrong_type("model"))?;
    if model.len() > limits::MODEL_BYTES {
        return Err(Error::bad_request(format!("'model' is longer than {} bytes", limits::MODEL_BYTES)));
    }
    Ok(Spanned { value: model, span: span(body, value) })
}

fn number(key: &str, value: &str) -> Result<u64> {
    value.parse().map_err(|_| wrong_type(key))
}

fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong_type(key)),
    }
}

fn stream_usage(body: &str, options: Option<&str>) -> Result<StreamUsage> {
    let Some(text) = options else { return Ok(StreamUsage::Absent(None)) };
    let place = span(body, text);
    if text == "null" {
        return Ok(StreamUsage::Absent(Some(place)));
    }
    if !text.starts_with('{') {
        return Err(wrong_type("stream_options"));
    }
    let [usage] = members(text, ["include_usage"], Repeats::Refuse).map_err(|e| refused(&e))?;
    let Some(usage) = usage else {
        let empty = text.get(1..).is_some_and(|rest| rest.trim_start().starts_with('}'));
        return Ok(StreamUsage::Unset { at: place.start.saturating_add(1), empty });
    };
    match usage.get() {
        "true" => Ok(StreamUsage::On),
        "false" | "null" => Ok(StreamUsage::Off(span(body, usage.get()))),
        _ => Err(wrong_type("include_usage")),
    }
}
