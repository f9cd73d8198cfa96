//! Who asks and who answers, shown to each other without the token that both hold.
//!
//! The controller asks pods at their addresses. Whoever answers there may not be the router: the agent shares its
//! network, and an address goes to another pod. So the question bears a nonce and a code over it, not the token, and
//! the answer a code over nonce and body: `HMAC-SHA256` (RFC 2104) under the token.
//!
//! ```text
//! authorization: Kars <nonce> <code of "ask\n" nonce>
//! x-kars-proof: <code of "answer\n" nonce "\n" body>
//! ```

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::limits;

/// The answer's header.
pub const HEADER: &str = "x-kars-proof";
const SCHEME: &[u8] = b"Kars ";
/// Of SHA-256 (FIPS 180-4), in bytes.
const BLOCK: usize = 64;

/// The nonce of a question that the holder of the token asks; `None` for everything else.
pub fn nonce<'b>(authorization: Option<&'b [u8]>, token: &[u8]) -> Option<&'b [u8]> {
    let mut words = authorization?.strip_prefix(SCHEME)?.split(|byte| *byte == b' ');
    let (nonce, code, more) = (words.next()?, words.next()?, words.next());
    let fits = limits::PROOF_NONCE_BYTES.contains(&nonce.len()) && more.is_none();
    (fits && same(code, code_of(token, &[b"ask\n", nonce]).as_bytes())).then_some(nonce)
}

/// What shows that the holder of the token gave this answer to that question.
pub fn answer(token: &[u8], nonce: &[u8], body: &[u8]) -> String {
    code_of(token, &[b"answer\n", nonce, b"\n", body])
}

/// Compares in a time that does not depend on where the two differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    // Digests have one length and reveal nothing by their first difference.
    Sha256::digest(a) == Sha256::digest(b)
}

/// HMAC-SHA256 in lower-case hex.
fn code_of(key: &[u8], parts: &[&[u8]]) -> String {
    let digest = Sha256::digest(key);
    let short = if key.len() > BLOCK { digest.as_slice() } else { key };
    let mut block = Zeroizing::new([0u8; BLOCK]);
    for (slot, byte) in block.iter_mut().zip(short) {
        *slot = *byte;
    }
    let inner = pass(&block, 0x36, parts);
    let mut text = String::with_capacity(2 * inner.len());
    for byte in pass(&block, 0x5c, &[&inner]) {
        // Writing a string to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn pass(block: &[u8; BLOCK], mask: u8, parts: &[&[u8]]) -> [u8; 32] {
    let padded = Zeroizing::new(block.map(|byte| byte ^ mask));
    let mut digest = Sha256::new();
    digest.update(padded.as_slice());
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"00112233445566778899aabbccddeeff";

    fn asked(token: &[u8], nonce: &[u8]) -> Vec<u8> {
        [b"Kars ", nonce, b" ", code_of(token, &[b"ask\n", nonce]).as_bytes()].concat()
    }

    #[test]
    fn the_codes_are_those_of_the_rfc() {
        // RFC 4231, test cases 1, 2 and 6.
        for (key, data, code) in [
            (
                vec![0x0b; 20],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(code_of(&key, &[data]), code);
            let (head, rest) = data.split_at(3);
            assert_eq!(code_of(&key, &[head, b"", rest]), code);
        }
    }

    #[test]
    fn a_question_is_the_token_holders_or_none() {
        let good = asked(b"token", NONCE);
        assert_eq!(nonce(Some(&good), b"token"), Some(NONCE));
        assert_eq!(nonce(Some(&good), b"another"), None);
        assert_eq!(nonce(None, b"token"), None);
        assert_eq!(nonce(Some(b"Bearer token"), b"token"), None);
        assert_eq!(nonce(Some(&[&good[..], b" more"].concat()), b"token"), None);
        assert_eq!(nonce(Some(&asked(b"token", b"short")), b"token"), None);
        assert_eq!(nonce(Some(&asked(b"token", &[b'a'; 129])), b"token"), None);
        assert_eq!(nonce(Some(&[b"Kars ", NONCE].concat()), b"token"), None);
    }

    #[test]
    fn an_answer_is_to_one_question_with_one_body() {
        let one = answer(b"token", NONCE, b"{}");
        assert_eq!(one, answer(b"token", NONCE, b"{}"));
        for other in [
            answer(b"token", NONCE, b"{} "),
            answer(b"token", b"ffeeddccbbaa99887766554433221100", b"{}"),
            answer(b"another", NONCE, b"{}"),
        ] {
            assert_ne!(one, other);
        }
        // A question's code is no answer's.
        assert_ne!(code_of(b"token", &[b"ask\n", NONCE]), answer(b"token", NONCE, b""));
    }
}
