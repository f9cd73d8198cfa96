//! Method and path to endpoint, as data.

use crate::ids::{Dialect, Operation};

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'p> {
    /// A call to a model provider.
    Model(ModelRoute<'p>),
    /// An endpoint served by the engine itself.
    Local(Local),
    /// What the engine tells about egress, and lets an operator change.
    Egress(EgressRoute),
    /// A route served by the control plane, behind the admin token.
    Cold,
}

/// A call to a model provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelRoute<'p> {
    /// What it does.
    pub operation: Operation,
    /// The path at the provider, behind its prefix.
    pub rest: &'p str,
    /// The model that the path names (Azure's deployment form).
    pub deployment: Option<&'p str>,
}

/// Endpoints of the engine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// `ok`, unconditionally: the reference's probe.
    Healthz,
    /// Liveness: the event loop answers.
    Livez,
    /// Readiness: policy loaded and listeners up.
    Readyz,
    /// Prometheus text.
    Metrics,
    /// Digests of the policies in force, for the controller.
    PolicyStatus,
    /// What coding tools ask first.
    Root,
}

/// Endpoints about what leaves the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressRoute {
    /// Turns learn mode on or off.
    Learn,
    /// What learn mode saw.
    Learned,
    /// Forgets what learn mode saw.
    ClearLearned,
    /// What was blocked lately, in the reference's older shape.
    LearnedBlocked,
    /// The hosts in force.
    Allowlist,
    /// One request on the agent's behalf.
    Fetch,
    /// How many names the blocklist has.
    BlocklistStatus,
    /// Whether the blocklist has a name.
    BlocklistCheck,
    /// What was blocked since a moment.
    Blocked,
    /// The hosts blocked most often.
    TopBlocked,
}

/// A route, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'p> {
    /// The endpoint.
    Route(Endpoint<'p>),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    /// No such path.
    Nothing,
}

/// Prefixes under which the OpenAI routes are served: the SDK's, Azure's v1, and the bare one.
const OPENAI_PREFIXES: [&str; 3] = ["/v1/", "/openai/v1/", "/openai/"];
const ANTHROPIC_PREFIXES: [&str; 2] = ["/v1/", "/anthropic/v1/"];

const POSTS: [(&str, Operation); 5] = [
    ("chat/completions", Operation::Chat),
    ("responses", Operation::Responses),
    ("completions", Operation::Completions),
    ("embeddings", Operation::Embeddings),
    ("images/generations", Operation::Images),
];

const MESSAGES: [(&str, Operation); 2] =
    [("messages", Operation::Messages), ("messages/count_tokens", Operation::CountTokens)];

const LOCALS: [(&str, Local); 6] = [
    ("/healthz", Local::Healthz),
    ("/livez", Local::Livez),
    ("/readyz", Local::Readyz),
    ("/metrics", Local::Metrics),
    ("/internal/policy-status", Local::PolicyStatus),
    ("/", Local::Root),
];

const EGRESS: [(&str, &str, EgressRoute); 10] = [
    ("/egress/learn", "POST", EgressRoute::Learn),
    ("/egress/learned", READS, EgressRoute::Learned),
    ("/egress/learned/clear", "POST", EgressRoute::ClearLearned),
    ("/egress/learned/blocked", READS, EgressRoute::LearnedBlocked),
    ("/egress/allowlist", READS, EgressRoute::Allowlist),
    ("/egress/fetch", "POST", EgressRoute::Fetch),
    ("/blocklist/status", READS, EgressRoute::BlocklistStatus),
    ("/blocklist/check", "POST", EgressRoute::BlocklistCheck),
    ("/internal/egress/blocked", READS, EgressRoute::Blocked),
    ("/internal/egress/blocked/top", READS, EgressRoute::TopBlocked),
];

/// The methods of what only tells.
const READS: &str = "GET, HEAD";

const COLD: [&str; 3] = ["/admin/model", "/statusz", "/configz"];

/// Finds the endpoint of a request.
pub fn find<'p>(method: &str, path: &'p str) -> Found<'p> {
    if let Some((_, local)) = LOCALS.iter().find(|(p, _)| *p == path) {
        return allow(method, READS, Endpoint::Local(*local));
    }
    if COLD.contains(&path) {
        return Found::Route(Endpoint::Cold);
    }
    for prefix in ANTHROPIC_PREFIXES {
        let Some(rest) = path.strip_prefix(prefix) else { continue };
        if let Some((_, operation)) = MESSAGES.iter().find(|(r, _)| *r == rest) {
            return post(method, *operation, rest, None);
        }
        if let Some(methods) = reads(rest).filter(|_| prefix != "/v1/") {
            return read(method, methods, rest);
        }
    }
    if let Some((deployment, rest)) = deployment(path) {
        return match POSTS.iter().find(|(r, _)| *r == rest) {
            Some((_, operation)) => post(method, *operation, rest, Some(deployment)),
            None => Found::Nothing,
        };
    }
    for prefix in OPENAI_PREFIXES {
        let Some(rest) = path.strip_prefix(prefix) else { continue };
        if let Some((_, operation)) = POSTS.iter().find(|(r, _)| *r == rest) {
            return post(method, *operation, rest, None);
        }
        if let Some(methods) = reads(rest) {
            return read(method, methods, rest);
        }
    }
    match EGRESS.iter().find(|(p, _, _)| *p == path) {
        Some((_, methods, route)) => allow(method, methods, Endpoint::Egress(*route)),
        None => Found::Nothing,
    }
}

fn post<'p>(method: &str, operation: Operation, rest: &'p str, deployment: Option<&'p str>) -> Found<'p> {
    allow(method, "POST", Endpoint::Model(ModelRoute { operation, rest, deployment }))
}

fn read<'p>(method: &str, methods: &'static str, rest: &'p str) -> Found<'p> {
    allow(method, methods, Endpoint::Model(ModelRoute { operation: Operation::Read, rest, deployment: None }))
}

fn allow<'p>(method: &str, methods: &'static str, endpoint: Endpoint<'p>) -> Found<'p> {
    if methods.split(", ").any(|m| m == method) {
        Found::Route(endpoint)
    } else {
        Found::WrongMethod(methods)
    }
}

/// The methods of paths that only read, or act on an answer that was already paid for.
fn reads(rest: &str) -> Option<&'static str> {
    let (first, more) = rest.split_once('/').unwrap_or((rest, ""));
    match (first, more.split_once('/')) {
        ("models", _) => Some("GET"),
        ("deployments", None) if more.is_empty() => Some("GET"),
        ("responses", None) if !more.is_empty() => Some("GET, DELETE"),
        ("responses", Some((id, "input_items"))) if !id.is_empty() => Some("GET"),
        ("responses", Some((id, "cancel"))) if !id.is_empty() => Some("POST"),
        _ => None,
    }
}

/// Azure's `/openai/deployments/{deployment}/{rest}`.
fn deployment(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/openai/deployments/")?.split_once('/').filter(|(d, _)| !d.is_empty())
}

/// The dialect for errors on a path, found or not.
pub fn dialect(path: &str, anthropic_client: bool) -> Dialect {
    if anthropic_client || path.contains("/messages") || path.starts_with("/anthropic/") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &str, path: &str) -> Option<(Operation, String, Option<String>)> {
        match find(method, path) {
            Found::Route(Endpoint::Model(m)) => {
                Some((m.operation, m.rest.to_owned(), m.deployment.map(str::to_owned)))
            }
            _ => None,
        }
    }

    #[test]
    fn every_alias_leads_to_its_operation() {
        for (method, path, want, rest, deployment) in [
            ("POST", "/v1/chat/completions", Operation::Chat, "chat/completions", None),
            ("POST", "/openai/v1/chat/completions", Operation::Chat, "chat/completions", None),
            (
                "POST",
                "/openai/deployments/gpt/chat/completions",
                Operation::Chat,
                "chat/completions",
                Some("gpt"),
            ),
            ("POST", "/v1/responses", Operation::Responses, "responses", None),
            ("GET", "/v1/responses/resp_1", Operation::Read, "responses/resp_1", None),
            (
                "GET",
                "/v1/responses/resp_1/input_items",
                Operation::Read,
                "responses/resp_1/input_items",
                None,
            ),
            ("POST", "/v1/completions", Operation::Completions, "completions", None),
            ("POST", "/v1/embeddings", Operation::Embeddings, "embeddings", None),
            ("POST", "/v1/images/generations", Operation::Images, "images/generations", None),
            (
                "POST",
                "/openai/deployments/d/images/generations",
                Operation::Images,
                "images/generations",
                Some("d"),
            ),
            ("GET", "/v1/models", Operation::Read, "models", None),
            ("GET", "/v1/models/org/name", Operation::Read, "models/org/name", None),
            ("GET", "/v1/deployments", Operation::Read, "deployments", None),
            ("GET", "/openai/models", Operation::Read, "models", None),
            ("POST", "/v1/messages", Operation::Messages, "messages", None),
            ("POST", "/anthropic/v1/messages", Operation::Messages, "messages", None),
            ("POST", "/v1/messages/count_tokens", Operation::CountTokens, "messages/count_tokens", None),
        ] {
            let want = (want, rest.to_owned(), deployment.map(str::to_owned));
            assert_eq!(operation(method, path), Some(want), "{method} {path}");
        }
    }

    #[test]
    fn wrong_methods_and_unknown_paths_are_told_apart() {
        assert_eq!(find("GET", "/v1/chat/completions"), Found::WrongMethod("POST"));
        assert_eq!(find("POST", "/healthz"), Found::WrongMethod("GET, HEAD"));
        assert_eq!(find("POST", "/v1/responses/resp_1"), Found::WrongMethod("GET, DELETE"));
        assert_eq!(find("GET", "/egress/learn"), Found::WrongMethod("POST"));
        assert_eq!(find("POST", "/internal/egress/blocked"), Found::WrongMethod("GET, HEAD"));
        assert_eq!(find("GET", "/egress/learned/"), Found::Nothing);
        assert_eq!(find("GET", "/v1/files"), Found::Nothing);
        assert_eq!(find("GET", "/v1/responses/a/b/c"), Found::Nothing);
    }

    #[test]
    fn every_egress_path_leads_to_its_own_endpoint() {
        for (path, methods, route) in EGRESS {
            let method = methods.split(", ").next().unwrap();
            assert_eq!(find(method, path), Found::Route(Endpoint::Egress(route)), "{path}");
        }
    }
}
