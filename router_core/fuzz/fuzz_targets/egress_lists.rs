//! See `router_core::policy::checks::egress_lists`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router_core::policy::checks::egress_lists(bytes));
