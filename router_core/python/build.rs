//! How the module is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=start.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // Relative relocations as bitmaps (DT_RELR, which glibc 2.36 and musl 1.2.4 read): some KiB instead of a third of a MiB
    // that every start would read and keep.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,pack-relative-relocs");
    if let Ok(here) = std::env::var("CARGO_MANIFEST_DIR") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-T,{here}/start.ld");
    }
}
