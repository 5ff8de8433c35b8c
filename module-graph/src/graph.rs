//! The circles of a graph of files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The names by which a file uses another.
pub(crate) type Edges = BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>;

/// Files each of which reaches each other, as what they use of one another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Circle(pub(crate) Vec<(PathBuf, PathBuf, Vec<String>)>);

impl Circle {
    pub(crate) fn files(&self) -> BTreeSet<&Path> {
        self.0.iter().map(|(from, ..)| from.as_path()).collect()
    }
}

pub(crate) fn circles(edges: &Edges) -> Vec<Circle> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        edges.keys().map(|(from, _)| (from.as_path(), reached_from(from, edges))).collect();
    let reaches = |from: &Path, to: &Path| reached.get(from).is_some_and(|reached| reached.contains(to));

    let mut circles = Vec::new();
    let mut told = BTreeSet::new();
    for &file in reached.keys() {
        if !reaches(file, file) || told.contains(file) {
            continue;
        }
        let round = |other: &Path| reaches(file, other) && reaches(other, file);
        let inside = edges.iter().filter(|((from, to), _)| round(from) && round(to));
        let circle = Circle(
            inside.map(|((from, to), names)| (from.clone(), to.clone(), names.iter().cloned().collect())).collect(),
        );
        told.extend(circle.files().into_iter().map(Path::to_owned).collect::<Vec<_>>());
        circles.push(circle);
    }
    circles
}

/// The files that a file uses, and those that these use, and so on.
fn reached_from<'a>(file: &Path, edges: &'a Edges) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut left = vec![file];
    while let Some(from) = left.pop() {
        for (_, to) in edges.keys().filter(|(user, _)| user == from) {
            if reached.insert(to.as_path()) {
                left.push(to);
            }
        }
    }
    reached
}
