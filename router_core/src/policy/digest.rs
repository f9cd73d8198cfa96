//! The digest of a mounted bundle, equal byte for byte to the one the controller computes.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The name under which an inference policy is digested, whatever its file is called.
pub const INFERENCE_NAME: &str = "inference-policy.json";

/// SHA-256 over `u64_be(len(name)) name u64_be(len(bytes)) bytes` of each file, files in the order of their names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests files given as (name, content), in any order.
    pub fn of_files<N: AsRef<str>, B: AsRef<[u8]>>(files: &[(N, B)]) -> Self {
        let mut sorted: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_ref(), b.as_ref())).collect();
        sorted.sort_unstable();
        let mut hash = Sha256::new();
        for (name, content) in sorted {
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name.as_bytes());
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        }
        Self(hash.finalize().into())
    }

    /// Digests an inference policy under its fixed name.
    pub fn of_inference(content: &[u8]) -> Self {
        Self::of_files(&[(INFERENCE_NAME, content)])
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_controllers_golden_vectors() {
        let policy = concat!(
            r#"{"appliesTo":{"sandboxName":"demo","sandboxMatchLabels":{},"action":null},"tokenBudget":null,"#,
            r#""contentSafety":null,"modelPreference":{"primary":{"provider":"azure-openai","deployment":"gpt-4.1"},"#,
            r#""fallback":[]},"displayName":null}"#
        );
        let vectors = [
            (
                "merged-allowlist.json",
                r#"{"schemaVersion":1,"endpoints":[{"host":"example.com","port":443}]}"#,
                "fe6cf9580a22eaacff45a3c8d3bb06f5f635b34c5981558b4587524c45e9c8a5",
            ),
            (
                "allowlist.json",
                r#"{"schemaVersion":1,"endpoints":[]}"#,
                "0f2e4905bcdcdf8b99ec031c7c40db8fca289b8e28707e802f8b568860d04fd3",
            ),
            (
                "agt-profile.yaml",
                "version: \"1.0\"\n",
                "d04e04f04b05dcfdbbbd4103c68ec39baf4a0d795cd78c60599c37d5f3623bf9",
            ),
            (INFERENCE_NAME, policy, "32e9516c5e059aac9ec39870fb7e14e79d6712092cd34bf332a4ddba674bc2bf"),
        ];
        for (name, body, hex) in vectors {
            assert_eq!(Digest::of_files(&[(name, body)]).to_string(), format!("sha256:{hex}"), "{name}");
        }
        assert_eq!(Digest::of_inference(policy.as_bytes()), Digest::of_files(&[(INFERENCE_NAME, policy)]));
    }

    #[test]
    fn file_order_does_not_matter_but_boundaries_do() {
        let forward = Digest::of_files(&[("a", "1"), ("b", "2")]);
        assert_eq!(forward, Digest::of_files(&[("b", "2"), ("a", "1")]));
        assert_ne!(forward, Digest::of_files(&[("a", "1b"), ("", "2")]));
        assert_ne!(Digest::of_files(&[("ab", "c")]), Digest::of_files(&[("a", "bc")]));
    }
}
