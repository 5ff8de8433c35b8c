//! `docs/semantics.md` and the suite speak of the same promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;

use delayline_conformance::{LEAK_TESTS, TESTS, Test};

/// The rules of the document, each with its text up to the next one.
fn rules() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/semantics.md");
    let text = fs::read_to_string(path).unwrap();
    let rule = |item: &str| item.split_once("**").map(|(id, rest)| (id.to_string(), rest.to_string()));
    text.split("\n- **").skip(1).filter_map(rule).collect()
}

fn tested() -> BTreeSet<String> {
    TESTS.iter().chain(LEAK_TESTS).map(Test::promise).collect()
}

#[test]
fn every_test_is_of_a_rule_and_says_so_there() {
    let rules = rules();
    for promise in tested() {
        let rule = rules.iter().find(|(id, _)| *id == promise);
        let (_, text) = rule.unwrap_or_else(|| panic!("the suite tests {promise}, which is no rule"));
        assert!(text.contains("`conform`"), "{promise} is tested by the suite; tag it `conform`");
    }
}

#[test]
fn every_rule_that_is_tagged_has_a_test() {
    let tested = tested();
    let mut tagged = 0;
    for (id, text) in rules() {
        // The section that follows the last rule of a family is not part of it.
        let text = text.split("\n\n").next().unwrap();
        if text.contains("`conform`") {
            assert!(tested.contains(&id), "{id} is tagged `conform`, and no test has its number");
            tagged += 1;
        }
    }
    assert!(tagged > 80, "{tagged} rules are tagged");
}
