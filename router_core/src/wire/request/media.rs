//! What of a request is media rather than text, from the raw bytes: an estimate that no policy decision rests on.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

/// `type` values of content parts that are media, in the `OpenAI` and Anthropic APIs.
const PARTS: [&[u8]; 10] = [
    b"image_url\"",
    b"input_image\"",
    b"image\"",
    b"input_audio\"",
    b"file\"",
    b"input_file\"",
    b"document\"",
    b"video_url\"",
    b"input_video\"",
    b"audio\"",
];
/// A `data` string shorter than this is counted as text whatever it holds.
const LONG_BYTES: usize = 64;
/// How far before `;base64,` its `data:` may stand: a media type with parameters.
const MEDIA_TYPE_BYTES: usize = 128;

/// Counts media parts, and the bytes of base64 in `data:` URLs and in long strings of a key `data`.
///
/// A quote within a JSON string is escaped, so `"type"` and `"data"` with plain quotes are keys or
/// whole strings, never a part of the prompt.
pub(super) fn scan(body: &[u8]) -> (u64, u64) {
    static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"type\""));
    static DATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"data\""));
    static ANY_DATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("data"));
    static URL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(";base64,"));
    let parts = values(body, &TYPE).filter(|value| PARTS.iter().any(|part| value.starts_with(part))).count();
    if ANY_DATA.find(body).is_none() {
        return (parts as u64, 0);
    }
    let strings = values(body, &DATA).map(|value| {
        let run = base64_len(value);
        if run >= LONG_BYTES && value.get(run) == Some(&b'"') { run } else { 0 }
    });
    let urls = URL.find_iter(body).map(|at| {
        let before = body.get(at.saturating_sub(MEDIA_TYPE_BYTES)..at).unwrap_or(&[]);
        let payload = body.get(at + 8..).unwrap_or(&[]);
        if memmem::rfind(before, b"data:").is_some() { base64_len(payload) } else { 0 }
    });
    (parts as u64, strings.chain(urls).sum::<usize>() as u64)
}

/// What follows the opening quote of each string value of `key`.
fn values<'b>(body: &'b [u8], key: &'b Finder<'static>) -> impl Iterator<Item = &'b [u8]> {
    key.find_iter(body).filter_map(move |at| {
        let after = body.get(at + key.needle().len()..)?.trim_ascii_start().strip_prefix(b":")?;
        after.trim_ascii_start().strip_prefix(b"\"")
    })
}

/// Bytes of base64 (either alphabet, `/` escaped or not) at the start of `bytes`.
fn base64_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    loop {
        let rest = bytes.get(len..).unwrap_or(&[]);
        len += plain_len(rest);
        if bytes.get(len..).is_none_or(|escape| !escape.starts_with(b"\\/")) {
            return len;
        }
        len += 2;
    }
}

fn plain_len(bytes: &[u8]) -> usize {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=');
    let (blocks, _) = bytes.as_chunks::<32>();
    let clear = blocks.iter().take_while(|block| block.iter().fold(true, |all, b| all & plain(*b))).count();
    let passed = clear * 32;
    passed + bytes.get(passed..).unwrap_or(&[]).iter().take_while(|b| plain(**b)).count()
}
