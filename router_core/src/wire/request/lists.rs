//! The lists of a request, `tools` and the like: their elements, one by one.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Tool;
use super::decode::{refused, span, wrong_type};
use crate::error::{Error, Result};
use crate::wire::members::{Members, Name, Repeats, members, string};

/// A list's elements, as written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List<'b> {
    pub(super) elements: Vec<&'b str>,
    /// Whether the key is there, with whatever value.
    pub(super) present: bool,
    pub(super) null: bool,
}

/// Takes a list apart into its elements; null has none.
pub(super) struct Elements {
    pub(super) key: &'static str,
    /// Whether a text may stand in the list's place; it has no elements.
    pub(super) text: bool,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = List<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = List<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' to be an array", self.key)
    }

    fn visit_str<E: serde::de::Error>(self, _text: &str) -> Result<Self::Value, E> {
        if self.text {
            return Ok(List { present: true, ..List::default() });
        }
        Err(E::custom(format_args!("'{}' has a wrong type", self.key)))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(List { present: true, null: true, ..List::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List { present: true, ..List::default() };
        while let Some(element) = seq.next_element::<&RawValue>()? {
            list.elements.push(element.get());
        }
        Ok(list)
    }
}

pub(super) fn carries_reasoning(element: &str) -> bool {
    if memchr::memmem::find(element.as_bytes(), b"reasoning").is_none() {
        return false;
    }
    let kind = members(element, ["type"], Repeats::Last).ok().and_then(|[kind]| kind);
    kind.and_then(|kind| string(kind.get())).is_some_and(|kind| kind == "reasoning")
        || string(element).is_some_and(|text| text == "reasoning.encrypted_content")
}

/// The span of a list with its brackets; none for null.
pub(super) fn list_span(body: &str, key: &'static str, list: &List<'_>) -> Result<Option<Range<usize>>> {
    let (Some(first), Some(end)) = (list.elements.first(), list.elements.last()) else {
        // Nothing marks the place of an empty list: worth a second pass, as hardly anyone sends one.
        return if list.null { Ok(None) } else { value_span(body, key) };
    };
    let before = body.get(..span(body, first).start).unwrap_or("").trim_ascii_end();
    let end = span(body, end).end;
    let behind = body.get(end..).unwrap_or("");
    let gap = behind.len() - behind.trim_ascii_start().len();
    Ok(Some(before.len().saturating_sub(1)..end.saturating_add(gap).saturating_add(1)))
}

/// The span of the value of a top-level key, by a pass of its own.
pub(super) fn value_span(body: &str, key: &'static str) -> Result<Option<Range<usize>>> {
    let [value] = members(body, [key], Repeats::Refuse).map_err(|e| refused(&e))?;
    Ok(value.map(|value| span(body, value.get())))
}

pub(super) fn read_tools<'b>(body: &str, key: &str, list: &List<'b>) -> Result<Vec<Tool<'b>>> {
    let tool = |text: &&'b str| {
        if !text.starts_with('{') {
            return Err(wrong_type(key));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let [nested, flat] = deserializer.deserialize_map(Names).map_err(|e| refused(&e))?;
        Ok(Tool { name: tool_name(nested, flat)?, span: span(body, text) })
    };
    list.elements.iter().map(tool).collect()
}

/// The name of a tool from `function.name` and `name`, as written.
fn tool_name<'b>(nested: Option<&'b RawValue>, flat: Option<&'b RawValue>) -> Result<Option<Cow<'b, str>>> {
    let named = |value: Option<&'b RawValue>| match value {
        Some(value) if value.get() != "null" => {
            string(value.get()).map(Some).ok_or_else(|| wrong_type("name"))
        }
        _ => Ok(None),
    };
    match (named(nested)?, named(flat)?) {
        // Which of the two a provider reads depends on the API: policy must not see only the other one.
        (Some(nested), Some(flat)) if nested != flat => Err(Error::bad_request("a tool has two names")),
        (Some(name), _) | (None, Some(name)) => Ok(Some(name)),
        (None, None) => Ok(None),
    }
}

/// Picks `function.name` and `name` of a tool in one pass over it.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = [Option<&'de RawValue>; 2];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tool")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut nested, mut flat) = (None, None);
        while let Some(key) =
            map.next_key_seed(Name { names: &["function", "name"], repeats: Repeats::Refuse })?
        {
            let repeated = |name: &str| A::Error::custom(format_args!("'{name}' is repeated"));
            match key {
                Some(0) if nested.is_some() => return Err(repeated("function")),
                Some(0) => nested = Some(map.next_value_seed(Function)?),
                Some(_) if flat.is_some() => return Err(repeated("name")),
                Some(_) => flat = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok([nested.flatten(), flat])
    }
}

/// Picks the `name` of a tool's `function`; null has none.
struct Function;

impl<'de> DeserializeSeed<'de> for Function {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Function {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'function' to be an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, _text: &str) -> Result<Self::Value, E> {
        Err(E::custom("'function' has a wrong type"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let [name] = Members { names: ["name"], repeats: Repeats::Refuse }.visit_map(map)?;
        Ok(name)
    }
}
