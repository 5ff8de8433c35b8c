//! Marks the library's sources as compiled for the interleaving tests.

fn main() {
    println!("cargo::rustc-cfg=delayline_interleaved");
    // The optional features of what is compiled here stay off.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"metrics\"))");
    println!("cargo::rerun-if-changed=../mark.rs");
}
