//! What the program finds in small crates, and what it leaves alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs the program on a crate of these files; whether it passes, and what it prints.
fn run(name: &str, files: &[(&str, &str)]) -> (bool, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    for (file, code) in files.iter().chain(&[("Cargo.toml", "")]) {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, code).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_module-graph")).arg(&folder).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(2), "it could not read the crate: {printed}");
    (output.status.success(), printed)
}

fn finds(name: &str, files: &[(&str, &str)], expected: &[&str]) {
    let (passes, printed) = run(name, files);
    assert!(!passes, "it passes: {printed}");
    for line in expected {
        assert!(printed.lines().any(|found| found.trim() == *line), "no {line:?} in:\n{printed}");
    }
}

fn passes(name: &str, files: &[(&str, &str)]) {
    let (passes, printed) = run(name, files);
    assert!(passes, "{printed}");
}

#[test]
fn arrows_that_point_one_way_pass() {
    passes(
        "one_way",
        &[
            ("src/lib.rs", "mod a; mod b; mod c; pub use a::A; pub use b::B;"),
            ("src/a.rs", "use crate::b::B; use crate::c; pub struct A(B, c::C);"),
            ("src/b.rs", "use crate::c::C; pub struct B(C);"),
            ("src/c.rs", "pub struct C;"),
        ],
    );
}

#[test]
fn an_import_through_a_re_export_is_one_of_the_file_that_defines_the_name() {
    finds(
        "re_export",
        &[
            ("src/lib.rs", "mod a; mod deep; pub use deep::*; pub use a::A as Named;"),
            ("src/a.rs", "use crate::{B as Other, deep}; pub struct A(Other); fn f() -> u8 { deep::LIMIT }"),
            ("src/deep/mod.rs", "mod b; mod limit; pub(crate) use self::b::B; pub(crate) use limit::LIMIT;"),
            ("src/deep/b.rs", "use crate::Named; pub struct B(Named);"),
            ("src/deep/limit.rs", "pub(crate) const LIMIT: u8 = 1;"),
        ],
        &["a circle of 2 files:", "src/a.rs -> src/deep/b.rs: B", "src/deep/b.rs -> src/a.rs: A"],
    );
}

#[test]
fn a_child_that_uses_its_parent_makes_a_circle_if_the_parent_uses_it() {
    let parent = ("src/line/mod.rs", "mod supply; pub struct Line(supply::Supply);");
    let children = ("src/lib.rs", "mod line;");
    finds(
        "super",
        &[children, parent, ("src/line/supply.rs", "use super::Line; pub struct Supply(Box<Line>);")],
        &["src/line/mod.rs -> src/line/supply.rs: Supply", "src/line/supply.rs -> src/line/mod.rs: Line"],
    );
    // It declares the child and shows what it has to others, which is no use.
    let facade = ("src/line/mod.rs", "mod supply; pub(crate) use supply::Supply; pub struct Line;");
    passes(
        "super_of_a_facade",
        &[children, facade, ("src/line/supply.rs", "use super::*; pub struct Supply(Box<Line>);")],
    );
}

#[test]
fn a_path_in_the_code_is_a_use() {
    for (name, code) in [
        ("path_of_the_crate", "pub fn a() { crate::b::b(); }"),
        ("path_of_a_module", "use crate::b; pub fn a() { b::b(); }"),
        ("path_of_super", "pub fn a() { super::b::b() }"),
        ("path_in_a_macro", "pub fn a() { println!(\"{}\", crate::b::b()); }"),
        ("path_in_a_macro's_definition", "macro_rules! m { () => { $crate::b::b() } } pub fn a() {}"),
        ("path_of_an_import_in_a_function", "pub fn a() { use crate::b::b; b(); }"),
        ("path_through_all", "use crate::b::*; pub fn a() { b(); }"),
        ("path_of_a_type", "use crate::b; pub fn a() { b::b::<Vec<u8>>() }"),
    ] {
        finds(
            name,
            &[("src/lib.rs", "mod a; mod b;"), ("src/a.rs", code), ("src/b.rs", "pub fn b() { crate::a::a() }")],
            &["src/a.rs -> src/b.rs: b", "src/b.rs -> src/a.rs: a"],
        );
    }
}

#[test]
fn what_names_nothing_is_no_use() {
    for (name, code) in [
        ("in_a_comment", "/// [`crate::b::b`]\npub fn a() { /* crate::b::b() */ }"),
        ("in_a_string", "pub fn a() { print(r#\"crate::b::b\"#, \"crate::b::b()\", 'b') }"),
        ("a_method", "use crate::b::*; pub fn a(x: X) { x.b() }"),
        ("a_field", "use crate::b::*; pub fn a(b: X) { x.b = X { b: 1 } }"),
        ("of_another_crate", "use ::b::b; pub fn a() { bytes::b::b() }"),
        ("of_a_test", "pub fn a() {} #[cfg(test)] mod tests { use crate::b::b; } #[cfg(test)] use crate::b::b;"),
    ] {
        passes(
            name,
            &[("src/lib.rs", "mod a; mod b;"), ("src/a.rs", code), ("src/b.rs", "pub fn b() { crate::a::a() }")],
        );
    }
}

#[test]
fn names_of_another_crate_are_not_those_of_the_facade_that_shows_them() {
    let facade = ("src/lib.rs", "mod a; pub use bytes::*; pub use a::a; fn f() { a() }");
    passes("facade", &[facade, ("src/a.rs", "use crate::Bytes; pub fn a() -> Bytes { Bytes::new() }")]);
}

#[test]
fn test_modules_may_use_what_they_test() {
    let lib = ("src/lib.rs", "mod a;");
    let tested = ("src/a.rs", "pub struct A; #[cfg(test)] mod tests;");
    let tests = ("src/a/tests/mod.rs", "use super::A; mod world; use world::World;");
    passes("tests", &[lib, tested, tests, ("src/a/tests/world.rs", "use crate::a::A; pub struct World(A);")]);
    // But not each other in a circle.
    let world = ("src/a/tests/world.rs", "pub struct World(super::Seed);");
    let circle = ("src/a/tests/mod.rs", "mod world; pub struct Seed; use world::World;");
    finds("tests_in_a_circle", &[lib, tested, circle, world], &["a circle of 2 files:"]);
}

#[test]
fn each_target_is_looked_at() {
    let support = ("tests/support/mod.rs", "pub mod a; pub struct Support(a::A);");
    finds(
        "targets",
        &[("tests/it.rs", "mod support;"), support, ("tests/support/a.rs", "pub struct A(Box<super::Support>);")],
        &["tests/support/a.rs -> tests/support/mod.rs: Support"],
    );
    finds(
        "path",
        &[
            ("benches/it.rs", "#[path = \"../src/inner/mod.rs\"] mod inner;"),
            ("src/inner/mod.rs", "mod a; pub struct Inner(a::A);"),
            ("src/inner/a.rs", "pub struct A(Box<super::Inner>);"),
        ],
        &["src/inner/a.rs -> src/inner/mod.rs: Inner"],
    );
}

#[test]
fn a_file_has_600_lines_at_most() {
    passes("long_enough", &[("src/lib.rs", &"//\n".repeat(600))]);
    finds("too_long", &[("src/lib.rs", &"//\n".repeat(601))], &["src/lib.rs: 601 lines, of 600 at most"]);
    finds("too_long_outside", &[("src/lib.rs", ""), ("other/x.rs", &"//\n".repeat(601))], &[]);
}
