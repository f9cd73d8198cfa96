//! The bodies of the fuzz targets: what must hold for any bytes whatever. They also run under proptest.
#![allow(clippy::missing_panics_doc, reason = "to panic is how a check fails")]

use std::ops::Range;

use serde_json::value::RawValue;

use crate::ids::{Host, Operation};
use crate::wire::body::{Framing, Walker};
use crate::wire::{authority, head, request, sni, sse, usage};

/// A request head: accepted parts lie in the input, obey their grammar, and a prefix never says otherwise.
pub fn request_head(bytes: &[u8]) {
    let verdict = head::request(bytes);
    let Ok(Some(head)) = verdict else {
        if verdict.is_ok() {
            let half = bytes.get(..bytes.len() / 2).unwrap_or(bytes);
            assert!(matches!(head::request(half), Ok(None)), "a prefix of an unfinished head is unfinished");
        }
        return;
    };
    let text = bytes.get(..head.len).unwrap_or(&[]);
    assert!(text.ends_with(b"\r\n\r\n") && head.target.bytes().all(|b| b.is_ascii_graphic()));
    assert_eq!(
        memchr::memmem::find(text, b"\r\n\r\n"),
        Some(text.len() - 4),
        "a head ends at its first empty line"
    );
    fields(&head.fields, text);
    assert!(head.framing != Framing::UntilClose && head.method.bytes().all(|b| b.is_ascii_graphic()));
    let early = bytes.get(..head.len - 1).unwrap_or(&[]);
    assert!(matches!(head::request(early), Ok(None)), "a head without its last byte is unfinished");
    let alone = head::request(text);
    assert!(matches!(alone, Ok(Some(again)) if again.len == head.len && again.framing == head.framing));
}

/// A response head, likewise; the first byte chooses the request's method.
pub fn response_head(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let method = ["GET", "HEAD", "CONNECT", "POST"].get(usize::from(choice & 3)).unwrap_or(&"GET");
    let Ok(Some(head)) = head::response(bytes, method) else { return };
    let text = bytes.get(..head.len).unwrap_or(&[]);
    assert!((100..=999).contains(&head.status) && text.ends_with(b"\r\n\r\n"));
    assert!(!(head.keep_alive && head.framing == Framing::UntilClose));
    fields(&head.fields, text);
    let early = bytes.get(..head.len - 1).unwrap_or(&[]);
    assert!(matches!(head::response(early, method), Ok(None)), "a head without its last byte is unfinished");
}

fn fields(fields: &head::Fields<'_>, text: &[u8]) {
    for field in fields.iter() {
        assert!(!field.name.is_empty() && field.name.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        assert!(field.value.iter().all(|b| !b.is_ascii_control() || *b == b'\t'));
        assert_eq!(field.value, field.value.trim_ascii());
        assert!(text.as_ptr_range().contains(&field.name.as_ptr()), "a field is borrowed from the head");
    }
}

/// A body: the first two bytes choose the framing and the size of the feeds; any split gives one result.
pub fn body(bytes: &[u8]) {
    let [choice, step, bytes @ ..] = bytes else { return };
    let framing = match choice & 3 {
        0 => Framing::Length(u64::from(*choice)),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let whole = walked(framing, bytes, bytes.len());
    assert_eq!(whole, walked(framing, bytes, usize::from(*step)), "a split changes the result");
    if let Some((content, used, _)) = whole {
        assert!(content.len() <= used && used <= bytes.len());
    }
}

fn walked(framing: Framing, bytes: &[u8], step: usize) -> Option<(Vec<u8>, usize, bool)> {
    let (mut walker, mut content, mut used) = (Walker::new(framing), Vec::new(), 0);
    for part in bytes.chunks(step.max(1)) {
        let fed = walker.feed(part, |run| content.extend_from_slice(run)).ok()?;
        used += fed.used;
        if fed.done {
            break;
        }
        assert_eq!(fed.used, part.len(), "an unfinished body uses every byte");
    }
    Some((content, used, walker.done()))
}

/// An event stream: the first byte chooses the size of the feeds; the split is that of one feed.
pub fn sse(bytes: &[u8]) {
    let Some((step, stream)) = bytes.split_first() else { return };
    let (whole, rest) = split(stream, stream.len());
    assert_eq!((&whole, &rest), (&split(stream, usize::from(*step)).0, &split(stream, usize::from(*step)).1));
    assert_eq!([&whole[..], &rest[..]].concat(), stream, "every byte is in an event or unfinished");
    assert_eq!(sse::events(&whole).flatten().count(), whole.len(), "the blocks are the whole run");
    let blocks = sse::events(&whole).count() as u64;
    assert!((blocks.saturating_sub(1)..=blocks).contains(&sse::count(&whole)));
    for block in sse::events(&whole) {
        assert!(sse::event(block).data.len() <= block.len());
    }
}

fn split(stream: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut splitter, mut done) = (sse::Splitter::new(), Vec::new());
    for part in stream.chunks(step.max(1)) {
        let fed = splitter.feed(part);
        done.extend_from_slice(fed.carried);
        done.extend_from_slice(fed.whole);
        assert_eq!(fed.carried_used + fed.whole.len() + fed.rest.len(), part.len());
    }
    (done, splitter.pending().to_vec())
}

/// An answer: the first byte chooses the size of the feeds; any split gives one result, that of a full parse.
pub fn usage(bytes: &[u8]) {
    let Some((step, body)) = bytes.split_first() else { return };
    let metered = |step: usize| {
        let mut meter = usage::Meter::new();
        body.chunks(step.max(1)).for_each(|part| meter.json(part));
        meter.usage()
    };
    let seen = metered(body.len());
    assert_eq!(seen, metered(usize::from(*step)), "a split changes the usage");
    if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(body) {
        let object = tree.get("usage").filter(|usage| tree.is_object() && usage.is_object());
        let alone = object.map(|usage| format!("{{\"usage\":{usage}}}"));
        // A full parse may round a fraction; a larger usage is not kept.
        if body.len() <= crate::limits::USAGE_BYTES && memchr::memchr(b'.', body).is_none() {
            let mut meter = usage::Meter::new();
            meter.json(alone.unwrap_or_default().as_bytes());
            assert_eq!(seen, meter.usage(), "a full parse finds another usage");
        }
    }
    let mut meter = usage::Meter::new();
    for block in sse::events(body) {
        let kind = meter.event(block);
        assert!(kind == usage::EventKind::Other || block.len() > 24);
    }
    let mut looked_at = usage::Meter::new();
    for range in sse::around(body, usage::mentions(body)) {
        looked_at.event(body.get(range).unwrap_or(&[]));
    }
    assert_eq!(looked_at.usage(), meter.usage(), "an event with usage is passed over");
}

/// A model request: what is accepted is one JSON object, its spans hold what they claim, and every rewrite
/// gives JSON that is accepted again. The first byte chooses the operation and the tools to remove.
pub fn request(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let operation = *Operation::ALL.get(usize::from(choice & 7)).unwrap_or(&Operation::Chat);
    let Ok(request) = request::read(operation, body) else { return };
    let raw = |span: &Range<usize>| body.get(span.clone()).unwrap_or(&[]);
    assert!(matches!(serde_json::from_slice::<&RawValue>(body), Ok(raw) if raw.get().starts_with('{')));
    if let Some(model) = &request.model {
        assert!(serde_json::from_slice::<String>(raw(&model.span)).is_ok_and(|text| text == model.value));
    }
    for (_, cap) in &request.caps {
        assert_eq!(raw(&cap.span), cap.value.to_string().as_bytes());
    }
    for span in
        request.tools.iter().chain(&request.functions).map(|tool| &tool.span).chain(&request.reasoning)
    {
        assert!(serde_json::from_slice::<&RawValue>(raw(span)).is_ok());
    }
    assert!(request.nulls.iter().all(|(_, span)| raw(span) == b"null"));
    assert!(request.text_bytes <= body.len() as u64);
    let mut rewrite = request::Rewrite::new(&request, body);
    rewrite.set_model("m").set_stream_usage().strip_reasoning().set_cap("max_tokens", 7);
    rewrite.remove_tools(&[0, usize::from(*choice >> 3)]);
    let edited = rewrite.edits().applied(body);
    assert_eq!(edited.len(), rewrite.edits().len_of(body));
    let again = request::read(operation, &edited);
    let Ok(again) = again else { unreachable!("a rewritten request is refused") };
    assert!(again.model.is_some_and(|m| m.value == "m") && again.reasoning.is_empty());
    assert_eq!(again.stream_usage, request::StreamUsage::On);
    assert!(again.caps.iter().any(|(key, cap)| *key == "max_tokens" && cap.value == 7));
}

/// An authority and a URL: the quick check and the reader agree, what is read prints as what reads the same, and
/// nothing on which parsers differ is in it.
pub fn authority(bytes: &[u8]) {
    let named = authority::authority(bytes);
    assert_eq!(named.is_ok(), authority::well_formed(bytes), "checking is not reading");
    if let Ok(named) = named {
        assert!(bytes.is_ascii() && !bytes.iter().any(|b| b" \t\r\n\0@#\\%/?".contains(b)));
        assert_ne!(named.port, Some(0));
        let again = named.clone().destination(443).to_string();
        let again = authority::authority(again.as_bytes());
        assert!(again.is_ok_and(|again| again.host == named.host && again.port == named.port.or(Some(443))));
        if let Host::Name(name) = &named.host {
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(!last.bytes().all(|b| b.is_ascii_digit()), "a resolver reads it as an address");
            assert!(name.len() <= 253 && name.parse::<std::net::IpAddr>().is_err());
        }
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let url = authority::url(text);
    assert_eq!(url.is_ok(), authority::well_formed_url(text.as_bytes()), "checking is not reading");
    let Ok(url) = url else { return };
    assert!(url.target.starts_with('/') && text.ends_with(url.target.get(1..).unwrap_or("")));
    let scheme = if url.tls { "https" } else { "http" };
    let at = url.authority.clone().destination(url.port());
    let again = format!("{scheme}://{at}{}", url.target);
    let again = authority::url(&again);
    assert!(
        again.is_ok_and(|again| again.authority.host == url.authority.host && again.target == url.target)
    );
    let head = format!("GET {text} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    assert!(head.len() > crate::limits::HEAD_BYTES || head::request(head.as_bytes()).is_ok());
}

/// A client hello: a prefix never says otherwise, and what follows the hello changes nothing. The first byte chooses
/// the prefix, and the size of the records into which an accepted hello is cut anew.
pub fn client_hello(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let verdict = sni::client_hello(bytes);
    let cut = bytes.len() * usize::from(*choice) / 256;
    match (sni::client_hello(bytes.get(..cut).unwrap_or(bytes)), &verdict) {
        (Ok(None), _) => {}
        (early, late) => assert_eq!(early.is_ok(), late.is_ok(), "a prefix says otherwise"),
    }
    let more = sni::client_hello(&[bytes, &[*choice; 4][..]].concat());
    let Ok(Some(hello)) = verdict else { return };
    assert!(more.is_ok_and(|more| more.as_ref() == Some(&hello)), "what follows changes a hello");
    assert!(!matches!(hello.server_name, Some(Host::Ip(_))));
    let (mut message, mut rest) = (Vec::new(), bytes);
    while let [_, _, _, high, low, after @ ..] = rest {
        let (part, after) = after.split_at(after.len().min(usize::from(*high) << 8 | usize::from(*low)));
        message.extend_from_slice(part);
        rest = after;
        let [_, a, b, c, body @ ..] = &message[..] else { continue };
        if body.len() >= usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c) {
            break;
        }
    }
    let size = usize::from(*choice).max(1);
    let header = |part: &[u8]| [0x16, 3, 1, 0, u8::try_from(part.len()).unwrap_or(0)];
    let records: Vec<u8> = message.chunks(size).flat_map(|part| [&header(part), part].concat()).collect();
    match sni::client_hello(&records) {
        Ok(again) => assert_eq!(again, Some(hello), "records change a hello"),
        Err(_) => assert!(records.len() > crate::limits::CLIENT_HELLO_BYTES),
    }
}
