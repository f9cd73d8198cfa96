//! How the module is linked.

fn main() {
    // Relative relocations in bitmaps (DT_RELR, glibc 2.36 and musl 1.2.4 read them): a tenth of a MiB instead of a third
    // that each start would read and keep.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,pack-relative-relocs");
    println!("cargo:rerun-if-changed=build.rs");
}
