//! JSON as policies need it: every member is known by name, none twice, and an error says where it stands.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::error::{Error, Kind, Result};
use crate::limits;

/// A JSON value with every member of its objects, repeated ones too.
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, in words.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads one JSON document of at most `limits::POLICY_BYTES`.
pub(super) fn read(bytes: &[u8]) -> Result<Node> {
    if bytes.len() > limits::POLICY_BYTES {
        let (got, most) = (bytes.len(), limits::POLICY_BYTES);
        return Err(Error::new(Kind::Policy, format!("the policy has {got} bytes, more than {most}")));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::new(Kind::Policy, format!("the policy is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    serde_json::from_str(text)
        .map_err(|e| Error::new(Kind::Policy, format!("the policy is not one JSON document: {e}")))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}

/// An object whose keys are checked, and the path to it. `null` reads as absent.
pub(super) struct Fields<'n> {
    path: String,
    members: &'n [(String, Node)],
}

impl<'n> Fields<'n> {
    /// An object with no other keys than `known`, each at most once.
    pub fn open(node: &'n Node, path: String, known: &[&str]) -> Result<Self> {
        let fields = Self::any(node, path)?;
        match fields.members.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => {
                Err(fields.wrong(key, &format!("unknown field, expected one of {}", known.join(", "))))
            }
            None => Ok(fields),
        }
    }

    /// An object with any keys, each at most once.
    pub fn any(node: &'n Node, path: String) -> Result<Self> {
        let Node::Object(members) = node else {
            return Err(wrong(&path, &format!("expected an object, found {}", node.noun())));
        };
        let fields = Self { path, members };
        let mut seen = std::collections::HashSet::with_capacity(members.len());
        match members.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            Some((key, _)) => Err(fields.wrong(key, "given twice")),
            None => Ok(fields),
        }
    }

    /// The members, as they are written.
    pub fn members(&self) -> &'n [(String, Node)] {
        self.members
    }

    /// The path of a member.
    pub fn path(&self, key: &str) -> String {
        let shown = shown(key);
        if self.path.is_empty() { shown } else { format!("{}.{shown}", self.path) }
    }

    /// The error about a member.
    pub fn wrong(&self, key: &str, what: &str) -> Error {
        wrong(&self.path(key), what)
    }

    /// The error about a member of another type.
    pub fn mistyped(&self, key: &str, expected: &str, found: &Node) -> Error {
        self.wrong(key, &format!("expected {expected}, found {}", found.noun()))
    }

    /// A member, unless it is absent or `null`.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        let member = self.members.iter().find(|(name, _)| name == key);
        member.map(|(_, node)| node).filter(|node| !matches!(node, Node::Null))
    }

    /// A member that is an object with no other keys than `known`.
    pub fn object(&self, key: &str, known: &[&str]) -> Result<Option<Self>> {
        self.get(key).map(|node| Self::open(node, self.path(key), known)).transpose()
    }

    /// A member that is a list; absent, an empty one.
    pub fn list(&self, key: &str) -> Result<&'n [Node]> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Node::List(nodes)) => Ok(nodes),
            Some(other) => Err(self.mistyped(key, "a list", other)),
        }
    }

    /// A member that is true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Node::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.mistyped(key, "true or false", other)),
        }
    }

    /// A member that is a whole number in `range`.
    pub fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>> {
        let (least, most) = (*range.start(), *range.end());
        match self.get(key) {
            None => Ok(None),
            Some(Node::Number(number)) => match number.as_u64().filter(|n| range.contains(n)) {
                Some(value) => Ok(Some(value)),
                None => Err(self
                    .wrong(key, &format!("expected a whole number from {least} to {most}, found {number}"))),
            },
            Some(other) => Err(self.mistyped(key, "a whole number", other)),
        }
    }

    /// A member that is text of so many bytes.
    pub fn text(&self, key: &str, length: std::ops::RangeInclusive<usize>) -> Result<Option<&'n str>> {
        let (least, most) = (*length.start(), *length.end());
        match self.get(key) {
            None => Ok(None),
            Some(Node::Text(text)) if length.contains(&text.len()) => Ok(Some(text)),
            Some(Node::Text(text)) => {
                let got = text.len();
                Err(self.wrong(key, &format!("expected {least} to {most} bytes of text, found {got}")))
            }
            Some(other) => Err(self.mistyped(key, "a string", other)),
        }
    }
}

/// The file's own text, cut, so that an error stays one readable line.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// The error about what stands at `path`.
pub(super) fn wrong(path: &str, what: &str) -> Error {
    let path = if path.is_empty() { "the policy" } else { path };
    Error::new(Kind::Policy, format!("{path}: {what}"))
}
