//! Named members of a JSON object as raw text: one validating pass, no tree, nothing copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What to do about a name that stands twice in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// The last one counts, as in most parsers: for answers, which are only measured.
    Last,
    /// The object is refused, as is a name that differs from a wanted one only by case (some parsers fold
    /// it): for requests, where two readings would be a way around policy.
    Refuse,
}

/// The values of `names` in the JSON object `json`, each as written. Fails when `json` is not one valid object,
/// and as `repeats` says. Names are compared decoded.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
    repeats: Repeats,
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(Members { names, repeats })?;
    deserializer.end().map(|()| found)
}

/// Picks the values of `names` from an object, as [`members`] does.
pub(super) struct Members<const N: usize> {
    pub(super) names: [&'static str; N],
    pub(super) repeats: Repeats,
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(slot) = map.next_key_seed(Name { names: &self.names, repeats: self.repeats })? {
            let Some((slot, name)) = slot.and_then(|i| found.get_mut(i).zip(self.names.get(i))) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if slot.is_some() && self.repeats == Repeats::Refuse {
                return Err(A::Error::custom(format_args!("'{name}' is repeated")));
            }
            *slot = Some(map.next_value::<&RawValue>()?);
        }
        Ok(found)
    }
}

/// Which of `names` a key is, decoded.
pub(super) struct Name<'n> {
    pub(super) names: &'n [&'static str],
    pub(super) repeats: Repeats,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let slot = self.names.iter().position(|name| *name == key);
        if slot.is_none() && self.repeats == Repeats::Refuse {
            let near = self.names.iter().find(|name| folds_to(key, name));
            return near.map_or(Ok(None), |name| {
                Err(E::custom(format_args!("'{name}' is written in another case")))
            });
        }
        Ok(slot)
    }
}

/// Whether `key` is `name` (lowercase ASCII) under simple case folding, which Go's decoder matches by.
fn folds_to(key: &str, name: &str) -> bool {
    if key.len() == name.len() {
        // No other character is one byte long.
        return key.eq_ignore_ascii_case(name);
    }
    if key.len() < name.len() || key.is_ascii() {
        return false;
    }
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(name.chars())
}

/// The string that the JSON value `text` is, decoded; `None` when it is something else.
pub(super) fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(text).ok().map(Cow::Owned)
}
