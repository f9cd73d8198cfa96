//! Walks a document to its annotations. Lenient: a member of an unexpected shape is passed over, the rest counts.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Category, Findings, Observed, REASON_FILTERED, REASON_JAILBREAK, Severity};

/// Which side of a call an annotation speaks about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Prompt,
    Output,
}

pub(super) fn read(json: &[u8]) -> Findings {
    let mut found = Findings::default();
    let whole = members(json, |key, value| match key {
        "prompt_filter_results" => results(value, Side::Prompt, &mut found),
        "choices" => results(value, Side::Output, &mut found),
        "content_filters" => filters(value, &mut found),
        "data" => images(value, &mut found),
        "response" => {
            members(value, |key, value| match key {
                "content_filters" => filters(value, &mut found),
                "error" => error(value, &mut found),
                _ => {}
            });
        }
        "error" => error(value, &mut found),
        _ => {}
    });
    found.unreadable = whole.is_none();
    found
}

/// A list of objects with `content_filter_results`.
fn results(list: &[u8], side: Side, found: &mut Findings) {
    elements(list, |element| {
        members(element, |key, value| match key {
            "content_filter_results" | "content_filter_result" => categories(value, side, found),
            _ => {}
        });
    });
}

/// The Responses form: a list of `{source_type, content_filter_results}`.
fn filters(list: &[u8], found: &mut Findings) {
    elements(list, |element| {
        let mut side = Side::Output;
        members(element, |key, value| {
            if key == "source_type" && text(value).as_deref() == Some("prompt") {
                side = Side::Prompt;
            }
        });
        members(element, |key, value| {
            if key == "content_filter_results" {
                categories(value, side, found);
            }
        });
    });
}

/// The images form: `data[]` with an object for each side.
fn images(list: &[u8], found: &mut Findings) {
    elements(list, |element| {
        members(element, |key, value| match key {
            "prompt_filter_results" => categories(value, Side::Prompt, found),
            "content_filter_results" => categories(value, Side::Output, found),
            _ => {}
        });
    });
}

fn error(object: &[u8], found: &mut Findings) {
    members(object, |key, value| match key {
        "innererror" | "inner_error" => {
            members(value, |key, value| match key {
                "content_filter_result" | "content_filter_results" => categories(value, Side::Prompt, found),
                _ => {}
            });
        }
        "content_filters" => filters(value, found),
        _ => {}
    });
}

fn categories(object: &[u8], side: Side, found: &mut Findings) {
    members(object, |key, value| {
        let known = match key {
            "jailbreak" => verdict(value).map(|seen| found.attacks.jailbreak |= seen.filtered),
            "indirect_attack" => verdict(value).map(|seen| found.attacks.indirect |= seen.filtered),
            _ => Category::ALL.iter().position(|category| category.wire_name() == key).and_then(|place| {
                let (seen, worst) = (verdict(value)?, found.observed.get_mut(place)?);
                worst.severity = worst.severity.max(seen.severity);
                worst.filtered |= seen.filtered;
                Some(())
            }),
        };
        found.prompt_annotated |= known.is_some() && side == Side::Prompt;
    });
}

/// One category's object; `filtered` also tells `detected`, which only attacks have.
fn verdict(object: &[u8]) -> Option<Observed> {
    let mut seen = Observed::default();
    members(object, |key, value| match key {
        "filtered" | "detected" => seen.filtered |= value == b"true",
        "severity" => seen.severity = seen.severity.max(severity(value)),
        _ => {}
    })?;
    Some(seen)
}

/// A severity by name, or on the 0 to 7 scale of Azure AI Content Safety. One that this code does not know
/// counts as the worst, so that a renamed level does not open the floor.
fn severity(value: &[u8]) -> Option<Severity> {
    if value == b"null" {
        return None;
    }
    if let Some(name) = text(value) {
        return Some(Severity::parse(&name).unwrap_or(Severity::High));
    }
    Some(match value {
        b"0" | b"1" => Severity::Safe,
        b"2" | b"3" => Severity::Low,
        b"4" | b"5" => Severity::Medium,
        _ => Severity::High,
    })
}

pub(super) fn provider_block(json: &[u8]) -> Option<&'static str> {
    let (mut blocked, mut jailbreak) = (false, false);
    members(json, |key, value| {
        if key != "error" {
            return;
        }
        members(value, |key, value| match key {
            "code" => {
                let code = text(value);
                blocked |=
                    matches!(code.as_deref(), Some("content_filter" | "responsible_ai_policy_violation"));
            }
            "message" => blocked |= says_policy(value),
            "innererror" => {
                members(value, |key, value| {
                    if key == "content_filter_result" {
                        jailbreak |= detected_jailbreak(value);
                    }
                });
            }
            _ => {}
        });
    });
    match (jailbreak, blocked) {
        (true, _) => Some(REASON_JAILBREAK),
        (false, true) => Some(REASON_FILTERED),
        (false, false) => None,
    }
}

fn says_policy(message: &[u8]) -> bool {
    let has = |message: &[u8]| {
        ["content management policy", "Responsible AI"]
            .iter()
            .any(|phrase| memchr::memmem::find(message, phrase.as_bytes()).is_some())
    };
    text(message).map_or_else(|| has(message), |text| has(text.as_bytes()))
}

fn detected_jailbreak(categories: &[u8]) -> bool {
    let mut detected = false;
    members(categories, |key, value| {
        if key == "jailbreak" {
            members(value, |key, value| detected |= key == "detected" && value == b"true");
        }
    });
    detected
}

fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_slice::<Text<'_>>(value).ok().map(|text| text.0)
}

/// Calls `each` with every member of an object, repeated ones too. `None` when the bytes are not one object.
fn members(object: &[u8], each: impl FnMut(&str, &[u8])) -> Option<()> {
    struct Members<F>(F);
    impl<'de, F: FnMut(&str, &[u8])> Visitor<'de> for Members<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                (self.0)(&key, value.get().as_bytes());
            }
            Ok(())
        }
    }
    let mut source = serde_json::Deserializer::from_slice(object);
    source.deserialize_map(Members(each)).ok()?;
    source.end().ok()
}

/// Calls `each` with every element of a list; does nothing when the bytes are not one.
fn elements(list: &[u8], each: impl FnMut(&[u8])) {
    struct Elements<F>(F);
    impl<'de, F: FnMut(&[u8])> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element::<&'de RawValue>()? {
                (self.0)(element.get().as_bytes());
            }
            Ok(())
        }
    }
    // A list that breaks off has given its elements up to there; the document as a whole was read before.
    let _ = serde_json::Deserializer::from_slice(list).deserialize_seq(Elements(each));
}
