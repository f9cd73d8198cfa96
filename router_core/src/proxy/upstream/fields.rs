//! Which header fields travel through the router, in both directions.

use super::{Media, Outbound};
use crate::policy::provider::forwards_header;
use crate::proxy::inbound::FieldsRef;

/// Copies the fields that go on to the client and reads what the body is.
pub(super) fn keep_fields(fields: FieldsRef<'_>, lines: &mut Vec<u8>) -> (Media, bool) {
    let mut media = Media::Other;
    let mut encoded = false;
    let listed = fields.value("connection").is_some();
    fields.each(|name, value| {
        if is_hop_by_hop(name) || stays_with_us(name) || (listed && fields.lists("connection", name)) {
            return;
        }
        if name.eq_ignore_ascii_case("content-type") {
            media = media_of(value);
        } else if name.eq_ignore_ascii_case("content-encoding") {
            encoded |= !value.eq_ignore_ascii_case(b"identity");
        }
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    });
    (media, encoded)
}

fn media_of(content_type: &[u8]) -> Media {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or(content_type).trim_ascii();
    if essence.eq_ignore_ascii_case(b"text/event-stream") {
        Media::Events
    } else if essence.to_ascii_lowercase().ends_with(b"json") {
        Media::Json
    } else {
        Media::Other
    }
}

/// RFC 9110 §7.6.1, with the proxy fields that concern one hop only.
fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Response fields that are between the upstream and us: framing, and its cookies for our address.
fn stays_with_us(name: &str) -> bool {
    const NAMES: [&str; 4] = ["content-length", "set-cookie", "alt-svc", "www-authenticate"];
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Visits every field of the upstream request.
pub(super) fn forward_fields(out: &Outbound<'_>, mut visit: impl FnMut(&str, &[u8])) {
    visit("host", out.provider.origin().authority.as_bytes());
    if let Some(authorization) = out.provider.authorization() {
        visit(authorization.name(), authorization.value().expose().as_bytes());
    }
    let fields = out.fields;
    let listed = fields.value("connection").is_some();
    let mut typed = false;
    fields.each(|name, value| {
        let stays = !forwards_header(name.as_bytes()) || name.eq_ignore_ascii_case("accept-encoding");
        if stays || (listed && fields.lists("connection", name)) {
            return;
        }
        typed |= name.eq_ignore_ascii_case("content-type");
        visit(name, value);
    });
    // A compressed answer could neither be metered nor inspected.
    visit("accept-encoding", b"identity");
    visit("x-kars-trace-id", out.trace_id.as_bytes());
    for (name, value) in out.provider.default_headers() {
        if fields.value(name).is_none() {
            visit(name, value.as_bytes());
        }
    }
    if !typed && !out.body.is_empty() {
        visit("content-type", b"application/json");
    }
}
