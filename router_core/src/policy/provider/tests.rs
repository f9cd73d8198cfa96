use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;
use crate::error::Kind;
use proptest::prelude::*;

/// Settings as given; key files that this machine may have are kept out.
fn configure(pairs: &[(&str, &str)]) -> Result<Vec<Provider>> {
    with_secrets(pairs, Path::new("/nonexistent"))
}

fn with_secrets(pairs: &[(&str, &str)], secrets: &Path) -> Result<Vec<Provider>> {
    let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    settings::with_secrets(&|name| map.get(name).map(|value| (*value).to_owned()), secrets)
}

fn one(pairs: &[(&str, &str)]) -> Provider {
    let mut providers = configure(pairs).unwrap();
    assert_eq!(providers.len(), 1);
    providers.remove(0)
}

fn fault(pairs: &[(&str, &str)]) -> String {
    let error = configure(pairs).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    error.detail().to_owned()
}

fn header(provider: &Provider) -> Option<(String, String)> {
    let ready = provider.authorization()?;
    Some((ready.name().to_owned(), ready.value().expose().to_owned()))
}

#[allow(clippy::unnecessary_wraps)] // Compared with an optional value.
fn pair(name: &str, value: &str) -> Option<(String, String)> {
    Some((name.to_owned(), value.to_owned()))
}

#[test]
fn openai_is_reached_as_its_sdk_does() {
    let provider = one(&[("OPENAI_API_KEY", " sk-1\n")]);
    assert_eq!(provider.name(), "openai");
    assert_eq!((provider.origin().authority.as_str(), provider.origin().port), ("api.openai.com", 443));
    assert!(provider.origin().tls);
    assert_eq!(provider.target(Operation::Chat, "chat/completions", None).unwrap(), "/v1/chat/completions");
    let items =
        provider.target(Operation::Read, "responses/resp_1/input_items", Some("limit=2&after=x")).unwrap();
    assert_eq!(items, "/v1/responses/resp_1/input_items?limit=2&after=x");
    assert_eq!(provider.target(Operation::Read, "models", Some("")).unwrap(), "/v1/models");
    assert_eq!(header(&provider), pair("authorization", "Bearer sk-1"));
    assert_eq!(provider.auth(), ("authorization", AuthForm::Bearer));
    assert!(!provider.serves(Operation::Messages) && provider.serves(Operation::Responses));
    assert_eq!(provider.quirks().stream_usage, StreamUsage::Inject);
    assert_eq!(provider.quirks().output_cap.field(), "max_completion_tokens");
    assert!(!provider.quirks().strip_reasoning);
}

#[test]
fn azure_gets_its_v1_surface_its_lists_and_its_key_header() {
    for endpoint in [
        "https://acc.openai.azure.com",
        "https://ACC.openai.azure.com//",
        "https://acc.openai.azure.com/openai/v1/",
        "https://acc.openai.azure.com/openai",
    ] {
        let provider = one(&[("AZURE_OPENAI_ENDPOINT", endpoint), ("AZURE_OPENAI_API_KEY", "k")]);
        let target = |operation, rest, query| provider.target(operation, rest, query).unwrap();
        assert_eq!(provider.name(), "azure-openai");
        assert_eq!(provider.origin().host, "acc.openai.azure.com");
        assert_eq!(target(Operation::Chat, "chat/completions", None), "/openai/v1/chat/completions");
        assert_eq!(target(Operation::Read, "models", None), "/openai/models?api-version=2024-10-21");
        assert_eq!(
            target(Operation::Read, "deployments", Some("api-version=1&limit=5")),
            "/openai/deployments?api-version=2024-10-21&limit=5"
        );
        assert_eq!(target(Operation::Read, "responses/r", None), "/openai/v1/responses/r");
        assert_eq!(header(&provider), pair("api-key", "k"));
        assert!(provider.quirks().strip_reasoning);
        assert_eq!(provider.audience(), Some("https://cognitiveservices.azure.com"));
        assert!(provider.answers_to("azure-openai") && !provider.answers_to("openai"));
    }
}

#[test]
fn a_foundry_project_keeps_its_path_but_for_images() {
    let endpoint = "https://acc.services.ai.azure.com/api/projects/demo/";
    let provider = one(&[("FOUNDRY_ENDPOINT", endpoint), ("AZURE_OPENAI_API_KEY", "k")]);
    let target = |operation, rest| provider.target(operation, rest, None).unwrap();
    assert_eq!(provider.name(), "foundry-project");
    assert_eq!(target(Operation::Responses, "responses"), "/api/projects/demo/openai/v1/responses");
    assert_eq!(target(Operation::Images, "images/generations"), "/openai/v1/images/generations");
    assert_eq!(header(&provider), pair("authorization", "Bearer k"));
    assert_eq!(provider.audience(), Some("https://ai.azure.com"));
    assert!(provider.answers_to("azure-openai"));
}

#[test]
fn github_models_are_known_by_host_and_keep_reasoning() {
    let endpoint = "https://models.github.ai/inference";
    for variable in ["AZURE_OPENAI_ENDPOINT", "OPENAI_BASE_URL"] {
        let key = if variable == "OPENAI_BASE_URL" { "OPENAI_API_KEY" } else { "AZURE_OPENAI_API_KEY" };
        let provider = one(&[(variable, endpoint), (key, "ghp")]);
        assert_eq!(provider.name(), "github-models");
        let target = provider.target(Operation::Chat, "chat/completions", None).unwrap();
        assert_eq!(target, "/inference/chat/completions");
        assert_eq!(header(&provider), pair("authorization", "Bearer ghp"));
        assert!(!provider.quirks().strip_reasoning);
    }
}

#[test]
fn local_servers_need_no_key() {
    let provider = one(&[("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1/")]);
    assert_eq!(provider.name(), "openai-compatible");
    assert_eq!(header(&provider), None);
    assert_eq!(provider.origin().authority, "127.0.0.1:11434");
    assert!(!provider.origin().tls);
    assert_eq!(provider.target(Operation::Chat, "chat/completions", None).unwrap(), "/v1/chat/completions");
    assert_eq!(provider.quirks().output_cap, OutputCap::MaxTokens);
    assert!(provider.answers_to("ollama"));
}

#[test]
fn an_azure_address_in_the_openai_variable_is_azure() {
    let pairs = [("OPENAI_BASE_URL", "https://acc.openai.azure.com/openai/v1/"), ("OPENAI_API_KEY", "k")];
    let provider = one(&pairs);
    assert_eq!(provider.name(), "azure-openai");
    assert_eq!(
        provider.target(Operation::Chat, "chat/completions", None).unwrap(),
        "/openai/v1/chat/completions"
    );
}

#[test]
fn anthropic_gets_its_path_version_and_key_header() {
    let provider = one(&[("ANTHROPIC_API_KEY", "sk-ant")]);
    assert_eq!(provider.origin().authority, "api.anthropic.com");
    assert_eq!(provider.target(Operation::Messages, "messages", None).unwrap(), "/v1/messages");
    assert_eq!(
        provider.target(Operation::CountTokens, "messages/count_tokens", None).unwrap(),
        "/v1/messages/count_tokens"
    );
    assert_eq!(header(&provider), pair("x-api-key", "sk-ant"));
    let [(name, value)] = provider.default_headers() else { panic!("one header") };
    assert_eq!((name.as_ref(), value.as_ref()), ("anthropic-version", "2023-06-01"));
    assert_eq!(provider.quirks().stream_usage, StreamUsage::Native);
    let other = one(&[("ANTHROPIC_BASE_URL", "http://[::1]:9/base/")]);
    assert_eq!((other.origin().host.as_str(), other.origin().authority.as_str()), ("::1", "[::1]:9"));
    assert_eq!(other.target(Operation::Messages, "messages", None).unwrap(), "/base/v1/messages");
}

#[test]
fn an_operation_goes_to_the_first_provider_that_serves_it() {
    let providers = configure(&[
        ("ANTHROPIC_API_KEY", "c"),
        ("OPENAI_API_KEY", "b"),
        ("AZURE_OPENAI_ENDPOINT", "https://acc.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "a"),
    ])
    .unwrap();
    let serving = |all: &[Provider], operation| all.iter().find(|p| p.serves(operation)).map(Provider::name);
    let name = |operation| serving(&providers, operation);
    assert_eq!(
        providers.iter().map(Provider::name).collect::<Vec<_>>(),
        ["azure-openai", "openai", "anthropic"]
    );
    assert_eq!(name(Operation::Chat), Some("azure-openai"));
    assert_eq!(name(Operation::Read), Some("azure-openai"));
    assert_eq!(name(Operation::Messages), Some("anthropic"));
    let only = configure(&[("ANTHROPIC_API_KEY", "c")]).unwrap();
    assert!(serving(&only, Operation::Chat).is_none());
    assert_eq!(serving(&only, Operation::Read), Some("anthropic"));
    assert!(configure(&[("OPENAI_API_KEY", " "), ("OPENAI_BASE_URL", "")]).unwrap().is_empty());
}

#[test]
fn a_wrong_setting_is_refused_with_its_variable_and_a_way_out() {
    let cases = [
        (
            vec![("OPENAI_BASE_URL", "https://api.openai.com/v1")],
            "OPENAI_API_KEY: not set, and api.openai.com needs a key",
        ),
        (vec![("ANTHROPIC_BASE_URL", "https://api.anthropic.com")], "ANTHROPIC_API_KEY: not set"),
        (vec![("ANTHROPIC_BASE_URL", "http://h/v1/")], "ANTHROPIC_BASE_URL: ends in /v1: leave that out"),
        (
            vec![("OPENAI_BASE_URL", "http://127.0.0.1:8443/v1")],
            "the openai-compatible endpoint 127.0.0.1:8443 is this router",
        ),
        (
            vec![("OPENAI_BASE_URL", "http://localhost:9/v1"), ("ROUTER_PORT", "9")],
            "the openai-compatible endpoint localhost:9",
        ),
        (vec![("OPENAI_BASE_URL", "http://[::ffff:127.0.0.1]:8443")], "the openai-compatible endpoint"),
        (
            vec![("OPENAI_BASE_URL", "api.openai.com/v1")],
            "OPENAI_BASE_URL: is no URL: write http://host or https://host",
        ),
        (vec![("AZURE_OPENAI_ENDPOINT", "https://u:p@h")], "AZURE_OPENAI_ENDPOINT: has user info before @"),
        (vec![("FOUNDRY_ENDPOINT", "https://h?x=1")], "FOUNDRY_ENDPOINT: has a query"),
        (vec![("OPENAI_API_KEY", "two words")], "OPENAI_API_KEY holds a space"),
    ];
    for (pairs, expected) in cases {
        let text = fault(&pairs);
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("two words") && !text.contains("u:p"), "{text}");
    }
}

#[test]
fn base_urls_are_parsed_strictly() {
    for url in [
        "ftp://h",
        "https://",
        "https:///x",
        "https://h#f",
        "https://h/#",
        "https://h?",
        "https://@h",
        "https://h:0",
        "https://h:65536",
        "https://h:",
        "https://h:+1",
        "https://h:1:2",
        "https://[::1",
        "https://[::1]x",
        "https://[fe80::1%25eth0]",
        "https://[127.0.0.1]",
        "https://::1",
        "https://h..i",
        "https://.h",
        "https://h.",
        "https://-h",
        "https://h-",
        "https://h\\i",
        "https://h i",
        "https://h%2ei",
        "https://häuser",
        "https://127.1",
        "https://0x7f.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://1.2.3.4.5",
        "https://256.1.1.1",
        "https://01.2.3.4",
        "https://h/a/../b",
        "https://h/./b",
        "https://h/a//b",
        "https://h/%2e%2e",
        "https://h/a b",
        "https://h/a\\b",
        "//h",
        "h",
        "",
    ] {
        assert!(Base::parse(url, "V").is_err(), "{url}");
    }
    let long = format!("https://{}", "a".repeat(64));
    assert!(Base::parse(&long, "V").is_err());
}

#[test]
fn base_urls_are_normalised() {
    let cases = [
        ("HTTPS://Host.Example:443/", true, "host.example", 443, "host.example", ""),
        ("http://h:80/a/b//", false, "h", 80, "h", "/a/b"),
        ("https://h:80/a", true, "h", 80, "h:80", "/a"),
        ("http://[2001:DB8:0::1]/", false, "2001:db8::1", 80, "[2001:db8::1]", ""),
        ("https://10.0.0.1:8000/v1", true, "10.0.0.1", 8000, "10.0.0.1:8000", "/v1"),
        (
            "http://vllm_server:8000/api/projects/p-1_x",
            false,
            "vllm_server",
            8000,
            "vllm_server:8000",
            "/api/projects/p-1_x",
        ),
    ];
    for (url, tls, host, port, authority, path) in cases {
        let base = Base::parse(url, "V").unwrap();
        let origin = Origin { tls, host: host.into(), port, authority: authority.into() };
        assert_eq!(base, Base { origin, path: path.into() }, "{url}");
    }
}

#[test]
fn a_clients_path_cannot_leave_the_api() {
    let provider = one(&[("OPENAI_API_KEY", "k")]);
    for rest in [
        "",
        "/",
        "..",
        ".",
        "../x",
        "models/..",
        "models/../../x",
        "models/.",
        "models//x",
        "/models",
        "models/",
        "models/%2e%2e",
        "models/%2E.",
        "models/.%2e/x",
        "a%2f..%2fb",
        "a%2F%2Fb",
        "a%5c..",
        "a\\..\\b",
        "%252e%252e",
        "a%00b",
        "a%0d%0ab",
        "a%",
        "a%2",
        "a%zz",
        "a b",
        "a?b",
        "a#b",
        "a\nb",
        "models/..;x=1/y",
        "models/;/x",
        "é",
        "a%c3%28/..",
    ] {
        let refused = provider.target(Operation::Read, rest, None);
        assert_eq!(refused.map_err(|e| e.kind()), Err(Kind::BadRequest), "{rest:?}");
    }
    for rest in [
        "models/meta-llama%2FLlama-3.1",
        "models/ft:gpt-4o:org::id",
        "models/a...b",
        "models/..a",
        "x/%c3%a9",
    ] {
        assert_eq!(provider.target(Operation::Read, rest, None).unwrap(), format!("/v1/{rest}"));
    }
}

#[test]
fn a_clients_query_cannot_break_the_request_line() {
    let provider = one(&[("OPENAI_API_KEY", "k")]);
    for query in ["a b", "a#b", "a\r\nb", "é", "a\0"] {
        assert!(provider.target(Operation::Read, "models", Some(query)).is_err(), "{query:?}");
    }
}

#[test]
fn credentials_hop_by_hop_and_our_own_headers_stay_here() {
    for name in [
        "Authorization",
        "api-key",
        "X-Api-Key",
        "cookie",
        "Proxy-Authorization",
        "Connection",
        "Transfer-Encoding",
        "TE",
        "content-length",
        "Host",
        "upgrade",
        "x-kars-sandbox",
        "X-Kars-Trace-Id",
        "x-handoff-token",
        "X-Forwarded-For",
    ] {
        assert!(!forwards_header(name.as_bytes()), "{name}");
    }
    for name in [
        "content-type",
        "accept",
        "user-agent",
        "openai-organization",
        "OpenAI-Beta",
        "anthropic-version",
        "anthropic-beta",
        "x-stainless-lang",
        "idempotency-key",
        "traceparent",
        "x-kar",
        "x-ms-client-request-id",
    ] {
        assert!(forwards_header(name.as_bytes()), "{name}");
    }
}

#[test]
fn a_rotated_key_file_takes_force_and_a_broken_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "first\n").unwrap();
    let pairs = [
        ("AZURE_OPENAI_ENDPOINT", "https://acc.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "shadowed"),
        ("AZURE_OPENAI_API_KEY_FILE", path.to_str().unwrap()),
    ];
    let provider = one(&pairs);
    assert_eq!(provider.key_file(), Some(path.as_path()));
    assert_eq!(header(&provider), pair("api-key", "first"));
    assert!(!provider.refresh().unwrap());
    std::fs::write(&path, "second").unwrap();
    let held = provider.authorization().unwrap();
    assert!(provider.refresh().unwrap());
    assert_eq!(held.value().expose(), "first");
    assert_eq!(header(&provider), pair("api-key", "second"));
    for broken in ["", "two words", "ключ"] {
        std::fs::write(&path, broken).unwrap();
        let error = provider.refresh().unwrap_err();
        assert!(broken.is_empty() || !error.detail().contains(broken));
    }
    std::fs::File::create(&path).unwrap().write_all(&vec![b'k'; 20_000]).unwrap();
    assert!(provider.refresh().is_err());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(provider.refresh().unwrap_err().kind(), Kind::Io);
    assert_eq!(header(&provider), pair("api-key", "second"));
}

#[test]
fn a_mounted_key_comes_before_the_variable_unless_it_is_empty() {
    let secrets = tempfile::tempdir().unwrap();
    let pairs = [("OPENAI_API_KEY", "variable")];
    let key = || header(&with_secrets(&pairs, secrets.path()).unwrap()[0]).unwrap().1;
    std::fs::write(secrets.path().join("openai-api-key"), "").unwrap();
    assert_eq!(key(), "Bearer variable");
    std::fs::write(secrets.path().join("openai-api-key"), "mounted\n").unwrap();
    assert_eq!(key(), "Bearer mounted");
}

#[test]
fn a_pushed_token_replaces_a_key_in_the_bearer_header() {
    let provider = one(&[("AZURE_OPENAI_ENDPOINT", "https://acc.openai.azure.com")]);
    assert_eq!(header(&provider), None);
    let token = Secret::parse("eyJ", "the token").unwrap();
    assert!(provider.credential().set_token(&token));
    assert!(!provider.credential().set_token(&token));
    assert_eq!(header(&provider), pair("authorization", "Bearer eyJ"));
    provider.credential().clear();
    assert_eq!(header(&provider), None);
}

#[test]
fn secrets_never_show() {
    let provider = one(&[("OPENAI_API_KEY", "sk-very-secret")]);
    assert!(!format!("{provider:?}").contains("very-secret"));
    assert_eq!(format!("{:?}", Secret::parse("sk-very-secret", "x").unwrap()), "[redacted]");
}

proptest! {
    #[test]
    fn a_target_stays_below_the_root_under_any_decoding(rest in "(\\.|/|%2[eEfF]|%5c|;|a|\\\\|%25|2e){0,12}") {
        let provider = one(&[("OPENAI_API_KEY", "k")]);
        if let Ok(target) = provider.target(Operation::Read, &rest, None) {
            let mut text = target;
            for _ in 0..3 {
                for (from, to) in [("%25", "%"), ("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "\\")] {
                    text = text.replace(from, to);
                }
            }
            prop_assert!(text.starts_with("/v1/"));
            prop_assert!(!text.split(['/', '\\']).any(|segment| segment == ".." || segment == "." || segment.starts_with("..;")));
        }
    }

    #[test]
    fn no_url_makes_the_parser_panic(url in "(https?://)?\\PC{0,40}") {
        if let Ok(base) = Base::parse(&url, "V") {
            // What was accepted means the same to a second reader.
            let origin = &base.origin;
            let again = format!("{}://{}{}", if origin.tls { "https" } else { "http" }, origin.authority, base.path);
            prop_assert_eq!(Base::parse(&again, "V").unwrap(), base);
        }
    }
}
