//! Marks the library's sources as compiled for the interleaving tests.

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=../shuttle.rs");
}
