//! See `router_core::policy::blocklist::checks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| router_core::policy::blocklist::checks::blocklist(text));
