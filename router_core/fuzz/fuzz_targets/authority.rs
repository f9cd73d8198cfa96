//! See `router_core::wire::checks::authority`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router_core::wire::checks::authority(bytes));
