//! Marks the library's sources as compiled for the interleaving tests.

fn main() {
    println!("cargo::rustc-cfg=delayline_interleaved");
    println!("cargo::rerun-if-changed=../mark.rs");
}
