//! Finds the file that defines a name, and so which file uses which.

use std::collections::BTreeSet;

use crate::graph::Edges;
use crate::source::{Crate, Import};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq)]
enum Target<'a> {
    Module(usize),
    /// What this module defines, and as what.
    Item(usize, &'a str),
    /// Another crate's.
    Foreign,
}

/// Names on the way of a search, against `use` in circles.
type Seen<'a> = BTreeSet<(usize, &'a str, bool)>;

/// Which file uses which, by which names.
pub(crate) fn edges(modules: &Crate) -> Edges {
    let mut edges = Edges::new();
    for (at, module) in modules.iter().enumerate() {
        let imported = module.imports.iter().filter(|import| !import.public);
        // `use path::*` is of the path alone, an enum perhaps; the names that it brings are found where the code has them.
        let imported = imported.map(|import| (&import.path, import.name.is_none()));
        for (path, as_module) in imported.chain(module.paths.iter().map(|path| (path, false))) {
            let Some(Target::Item(definer, name)) = resolve(modules, at, path, as_module, &mut Seen::new()) else {
                continue;
            };
            let (from, to) = (&module.file, &modules[definer].file);
            if from != to {
                edges.entry((from.clone(), to.clone())).or_default().insert(name.to_owned());
            }
        }
    }
    edges
}

/// What a path in a module stands for. A name may be a module's and an item's as well: `as_module` says which is meant.
fn resolve<'a>(
    modules: &'a Crate,
    at: usize,
    path: &'a [String],
    as_module: bool,
    seen: &mut Seen<'a>,
) -> Option<Target<'a>> {
    let (first, rest) = path.split_first()?;
    let mut target = match first.as_str() {
        "crate" => Some(Target::Module(0)),
        "self" => Some(Target::Module(at)),
        "super" => modules[at].parent.map(Target::Module),
        "Self" | "::" => None,
        name => look_up(modules, at, name, as_module || !rest.is_empty(), seen),
    };
    for (i, name) in rest.iter().enumerate() {
        let Some(Target::Module(inside)) = target else { return target };
        target = match name.as_str() {
            "super" => modules[inside].parent.map(Target::Module),
            name => {
                let found = look_up(modules, inside, name, as_module || i + 1 < rest.len(), seen);
                // What a macro defines is not seen.
                found.or(Some(Target::Item(inside, name)))
            }
        };
    }
    target
}

/// What a name stands for in a module.
fn look_up<'a>(
    modules: &'a Crate,
    at: usize,
    name: &'a str,
    as_module: bool,
    seen: &mut Seen<'a>,
) -> Option<Target<'a>> {
    if !seen.insert((at, name, as_module)) {
        return None;
    }
    let module = &modules[at];
    let item = module.items.contains(name).then_some(Target::Item(at, name));
    let child = module.children.get(name).map(|&child| Target::Module(child));
    let named = module.imports.iter().filter(|import| import.name.as_deref() == Some(name));
    let imported = named.map(|import| {
        // `use` of a name that is no module of this crate: `use bytes::Bytes`.
        resolve(modules, at, &import.path, as_module, seen).unwrap_or(Target::Foreign)
    });
    let mut found: Vec<_> = item.into_iter().chain(child).chain(imported).collect();
    if found.is_empty() {
        let all = module.imports.iter().filter(|import| import.name.is_none());
        found.extend(all.filter_map(|import| through_all(modules, at, import, name, as_module, seen)));
    }
    let meant = |target: &&Target| **target != Target::Foreign && matches!(target, Target::Module(_)) == as_module;
    let own = found.iter().find(|target| **target != Target::Foreign);
    found.iter().find(meant).or(own).or(found.first()).copied()
}

/// What a name stands for through `use path::*`; it may be another crate's if the path is.
fn through_all<'a>(
    modules: &'a Crate,
    at: usize,
    import: &'a Import,
    name: &'a str,
    as_module: bool,
    seen: &mut Seen<'a>,
) -> Option<Target<'a>> {
    match resolve(modules, at, &import.path, true, seen).unwrap_or(Target::Foreign) {
        Target::Module(inside) => look_up(modules, inside, name, as_module, seen),
        Target::Foreign => Some(Target::Foreign),
        Target::Item(..) => None,
    }
}
