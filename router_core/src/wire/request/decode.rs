//! The one pass over a request body.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Request, Spanned, StreamUsage, Tool, media};
use crate::error::{Error, Result};
use crate::ids::Operation;
use crate::limits;
use crate::wire::members::{Name, Repeats, members, string};

/// The keys that are read. The last two only of responses: elsewhere `input` is text.
const KEYS: [&str; 12] = [
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

pub(super) fn read(operation: Operation, body: &[u8]) -> Result<Request<'_>> {
    let text = std::str::from_utf8(body).map_err(|_| Error::bad_request("the body is not valid UTF-8"))?;
    let open = body.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len();
    if body.get(open) != Some(&b'{') {
        return Err(Error::bad_request("the body is not a JSON object"));
    }
    let names = if operation == Operation::Responses { &KEYS[..] } else { KEYS.split_at(10).0 };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Body { names }).map_err(|e| refused(&e))?;
    deserializer.end().map_err(|e| refused(&e))?;
    view(text, open.saturating_add(1), &found)
}

/// The error of a body that `serde_json` refused. Its own texts name a place and never quote the body, save for
/// values of a wrong type, of which the passes here meet none but numbers and literals.
fn refused(cause: &serde_json::Error) -> Error {
    match cause.classify() {
        serde_json::error::Category::Data => Error::bad_request(cause.to_string()),
        _ => Error::bad_request(format!("the body is not valid JSON: {cause}")),
    }
}

fn wrong_type(key: &str) -> Error {
    Error::bad_request(format!("'{key}' has a wrong type"))
}

/// The values of the keys that are read, as written.
#[derive(Default)]
struct Found<'b> {
    values: [Option<&'b RawValue>; 10],
    reasoning: Vec<&'b str>,
    members: usize,
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
            match found.values.get_mut(key) {
                Some(slot) => *slot = Some(map.next_value()?),
                None => map.next_value_seed(Elements { key: name, into: &mut found.reasoning })?,
            }
        }
        Ok(found)
    }
}

/// Picks the elements of `input` and `include` that carry reasoning; text and null have none.
struct Elements<'o, 'b> {
    key: &'static str,
    into: &'o mut Vec<&'b str>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' to be an array", self.key)
    }

    fn visit_str<E: serde::de::Error>(self, _text: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if carries_reasoning(element) {
                self.into.push(element.get());
            }
        }
        Ok(())
    }
}

fn carries_reasoning(element: &RawValue) -> bool {
    if memchr::memmem::find(element.get().as_bytes(), b"reasoning").is_none() {
        return false;
    }
    let kind = members(element.get(), ["type"], Repeats::Last).ok().and_then(|[kind]| kind);
    kind.and_then(string).is_some_and(|kind| kind == "reasoning")
        || string(element).is_some_and(|text| text == "reasoning.encrypted_content")
}

/// Decodes the values that were found.
fn view<'b>(body: &'b str, open: usize, found: &Found<'b>) -> Result<Request<'b>> {
    let [model, stream, completion_cap, cap, output_cap, n, best_of, options, tools, functions] =
        found.values;
    let mut nulls = Vec::new();
    let mut present = |key: &'static str, value: Option<&'b RawValue>| {
        let value = value?;
        if value.get() == "null" {
            nulls.push((key, span(body, value.get())));
            return None;
        }
        Some(value)
    };
    let mut caps = Vec::new();
    for (key, value) in
        [("max_completion_tokens", completion_cap), ("max_tokens", cap), ("max_output_tokens", output_cap)]
    {
        if let Some(value) = present(key, value) {
            caps.push((key, Spanned { value: number(key, value)?, span: span(body, value.get()) }));
        }
    }
    let n = present("n", n).map_or(Ok(1), |value| number("n", value))?;
    let best_of = present("best_of", best_of).map_or(Ok(1), |value| number("best_of", value))?;
    let model = present("model", model).map(|value| read_model(body, value)).transpose()?;
    let stream = present("stream", stream).map_or(Ok(false), |value| boolean("stream", value))?;
    let stream_usage = stream_usage(body, options)?;
    let tools = present("tools", tools);
    let functions = present("functions", functions);
    let (media_parts, payload) = media::scan(body.as_bytes());
    Ok(Request {
        model,
        stream,
        caps,
        choices: n.max(best_of),
        stream_usage,
        tools_span: tools.map(|value| span(body, value.get())),
        tools: tools.map_or(Ok(Vec::new()), |value| read_tools(body, "tools", value))?,
        functions: functions.map_or(Ok(Vec::new()), |value| read_tools(body, "functions", value))?,
        reasoning: found.reasoning.iter().map(|element| span(body, element)).collect(),
        nulls,
        text_bytes: (body.len() as u64).saturating_sub(payload),
        media_parts,
        open,
        empty: found.members == 0,
    })
}

/// Where `part`, a piece of `body`, stands in it.
fn span(body: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start.saturating_add(part.len())
}

fn read_model<'b>(body: &str, value: &'b RawValue) -> Result<Spanned<Cow<'b, str>>> {
    let model = string(value).ok_or_else(|| wrong_type("model"))?;
    if model.len() > limits::MODEL_BYTES {
        return Err(Error::bad_request(format!("'model' is longer than {} bytes", limits::MODEL_BYTES)));
    }
    Ok(Spanned { value: model, span: span(body, value.get()) })
}

fn number(key: &str, value: &RawValue) -> Result<u64> {
    value.get().parse().map_err(|_| wrong_type(key))
}

/// A count of answers. Zero is refused: a reservation for none would hold nothing back.
fn boolean(key: &str, value: &RawValue) -> Result<bool> {
    match value.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong_type(key)),
    }
}

fn stream_usage(body: &str, options: Option<&RawValue>) -> Result<StreamUsage> {
    let Some(options) = options else { return Ok(StreamUsage::Absent(None)) };
    let text = options.get();
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

fn read_tools<'b>(body: &str, key: &str, value: &'b RawValue) -> Result<Vec<Tool<'b>>> {
    let elements: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| wrong_type(key))?;
    elements
        .into_iter()
        .map(|element| Ok(Tool { name: tool_name(key, element.get())?, span: span(body, element.get()) }))
        .collect()
}

fn tool_name<'b>(key: &str, element: &'b str) -> Result<Option<Cow<'b, str>>> {
    if !element.starts_with('{') {
        return Err(wrong_type(key));
    }
    let [function, flat] =
        members(element, ["function", "name"], Repeats::Refuse).map_err(|e| refused(&e))?;
    let nested = match function.map(RawValue::get) {
        None | Some("null") => None,
        Some(object) if object.starts_with('{') => {
            let [name] = members(object, ["name"], Repeats::Refuse).map_err(|e| refused(&e))?;
            name
        }
        Some(_) => return Err(wrong_type("function")),
    };
    let named = |value: Option<&'b RawValue>| match value {
        Some(value) if value.get() != "null" => string(value).map(Some).ok_or_else(|| wrong_type("name")),
        _ => Ok(None),
    };
    match (named(nested)?, named(flat)?) {
        // Which of the two a provider reads depends on the API: policy must not see only the other one.
        (Some(nested), Some(flat)) if nested != flat => Err(Error::bad_request("a tool has two names")),
        (Some(name), _) | (None, Some(name)) => Ok(Some(name)),
        (None, None) => Ok(None),
    }
}
