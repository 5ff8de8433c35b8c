//! Reads the modules of a crate: what each defines, what it imports, and which paths its code names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// The modules of a crate; the first is its root.
pub(crate) type Crate = Vec<Module>;

#[derive(Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// What it defines, as far as it is no module.
    pub(crate) items: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// The paths in its code. A single name is one if it looks like a type, a constant, a call or a macro.
    pub(crate) paths: BTreeSet<Vec<String>>,
}

/// One leaf of a `use`.
#[derive(Clone, Default)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// What it is called here; none for `*`.
    pub(crate) name: Option<String>,
    /// `pub use`, `pub(crate) use` and the like.
    pub(crate) public: bool,
}

/// Words after which a name is defined.
const DEFINING: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];

/// Reads a crate from its root file on.
pub(crate) fn read(root: &Path) -> Result<Crate, String> {
    let mut modules = vec![Module { file: root.to_owned(), ..Module::default() }];
    let folder = root.parent().expect("a file is in a folder");
    scan(&mut modules, 0, &tokens(root)?, Some(folder))?;
    Ok(modules)
}

pub(crate) fn text(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn tokens(file: &Path) -> Result<Vec<TokenTree>, String> {
    let stream: TokenStream = text(file)?.parse().map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(stream.into_iter().collect())
}

/// Reads what a module consists of, or a part of it. Items of the module itself are only where there is a `folder`, the one in
/// which its children have their files.
fn scan(modules: &mut Crate, at: usize, code: &[TokenTree], folder: Option<&Path>) -> Result<(), String> {
    let mut attributes = Vec::new();
    let mut i = 0;
    while i < code.len() {
        if let Some((attribute, after)) = attribute(code, i) {
            attributes.push(attribute);
            i = after;
            continue;
        }
        let word = ident(code, i);
        let next = ident(code, i + 1);
        let mut after = i + 1;
        match (word.as_deref(), next) {
            // A visibility belongs to what follows, and so do the attributes before it.
            (Some("pub"), _) => {
                i += 1 + usize::from(group(code, i + 1, Delimiter::Parenthesis).is_some());
                continue;
            }
            (Some("mod"), Some(name)) if folder.is_some() => {
                let folder = folder.expect("it is there");
                child(modules, at, &name, code.get(i + 2), &attributes, folder)?;
                after = i + 3;
            }
            _ if attributes.iter().any(|attribute| is_for_tests(attribute)) => after = end(code, i, folder.is_none()),
            (Some("use"), _) if !punct(code, i + 1, '<') => {
                after = (i..code.len()).find(|&end| punct(code, end, ';')).unwrap_or(code.len());
                let public = i > 0 && (ident(code, i - 1).as_deref() == Some("pub") || is_restricted(code, i));
                import(&code[i + 1..after], Import { public, ..Import::default() }, &mut modules[at].imports);
            }
            (Some("macro_rules"), None) => {
                if let Some(name) = ident(code, i + 2) {
                    modules[at].items.insert(name);
                }
                after = i + 3;
            }
            (Some(word), Some(name)) if folder.is_some() && DEFINING.contains(&word) => {
                // `const fn` is followed by the word that counts.
                if !["fn", "unsafe", "async", "extern"].contains(&name.as_str()) {
                    modules[at].items.insert(name);
                    after = i + 2;
                }
            }
            (Some("fn"), Some(_)) => after = i + 2,
            (Some(_), _) => {
                let (path, end) = path(code, i);
                if is_named(code, i, end, &path) {
                    modules[at].paths.insert(path);
                }
                after = end;
            }
            (None, _) => {
                if let TokenTree::Group(group) = &code[i] {
                    scan(modules, at, &inner(group), None)?;
                }
            }
        }
        attributes.clear();
        i = after;
    }
    Ok(())
}

/// Adds a module: one with a file of its own, or one in braces. Test code in braces is left out.
fn child(
    modules: &mut Crate,
    parent: usize,
    name: &str,
    body: Option<&TokenTree>,
    attributes: &[Vec<TokenTree>],
    folder: &Path,
) -> Result<(), String> {
    let inline = match body {
        Some(TokenTree::Group(group)) => Some(inner(group)),
        _ => None,
    };
    if inline.is_some() && attributes.iter().any(|attribute| is_for_tests(attribute)) {
        return Ok(());
    }
    let own = modules[parent].file.clone();
    let inside = folder.join(name);
    let given = attributes.iter().find(|attribute| ident(attribute, 0).as_deref() == Some("path"));
    let (file, code, folder) = match (inline, given) {
        (Some(code), _) => (own, code, inside),
        (None, Some(attribute)) => {
            let quoted = attribute.last().map(ToString::to_string).unwrap_or_default();
            let file = plain(&own.with_file_name("").join(quoted.trim_matches('"')));
            (file.clone(), tokens(&file)?, file.with_file_name(""))
        }
        (None, None) => {
            let flat = folder.join(format!("{name}.rs"));
            let file = if flat.is_file() { flat } else { inside.join("mod.rs") };
            (file.clone(), tokens(&file)?, inside)
        }
    };
    let new = modules.len();
    modules.push(Module { file, parent: Some(parent), ..Module::default() });
    modules[parent].children.insert(name.to_owned(), new);
    scan(modules, new, &code, Some(&folder))
}

/// The path without `folder/..` in it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() != ".." || !plain.pop() {
            plain.push(part);
        }
    }
    plain
}

/// Takes the tree of a `use` apart.
fn import(tree: &[TokenTree], mut prefix: Import, found: &mut Vec<Import>) {
    for (i, token) in tree.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "as" => prefix.name = ident(tree, i + 1),
            TokenTree::Ident(_) if ident(tree, i.wrapping_sub(1)).as_deref() == Some("as") => {}
            TokenTree::Ident(word) => {
                let word = word.to_string();
                if word != "self" || prefix.path.is_empty() {
                    prefix.path.push(word);
                }
                prefix.name = prefix.path.last().cloned();
            }
            TokenTree::Punct(mark) if mark.as_char() == '*' => prefix.name = None,
            TokenTree::Group(group) => {
                let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
                for branch in inner(group).split(comma).filter(|branch| !branch.is_empty()) {
                    import(branch, prefix.clone(), found);
                }
                return;
            }
            // A path that begins with `::` is another crate's.
            TokenTree::Punct(_) if prefix.path.is_empty() && i == 0 => prefix.path.push("::".to_owned()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found.push(prefix);
}

/// The path that begins here, and where it ends.
fn path(code: &[TokenTree], from: usize) -> (Vec<String>, usize) {
    let mut path: Vec<_> = ident(code, from).into_iter().collect();
    let mut i = from + 1;
    while is_separator(code, i) {
        let Some(name) = ident(code, i + 2) else { break };
        path.push(name);
        i += 3;
    }
    (path, i)
}

/// Whether this path can name an item of this crate: a field, a method, a lifetime, a macro's parameter and the tail of another
/// path can't; of variables nobody knows, which is why a single small name counts only where it is called.
fn is_named(code: &[TokenTree], from: usize, end: usize, path: &[String]) -> bool {
    let before = |back: usize, mark: char| from >= back && punct(code, from - back, mark);
    if before(1, '\'') || before(1, '.') && !before(2, '.') || from >= 2 && is_separator(code, from - 2) {
        return false;
    }
    if before(1, '$') && path[0] != "crate" {
        return false;
    }
    let called =
        punct(code, end, '!') && !punct(code, end + 1, '=') || group(code, end, Delimiter::Parenthesis).is_some();
    path.len() > 1 || called || is_separator(code, end) || path[0].starts_with(char::is_uppercase)
}

/// Where the item that begins here ends; inside of an item, a comma ends it as well.
fn end(code: &[TokenTree], from: usize, inside: bool) -> usize {
    let ends =
        |&i: &usize| punct(code, i, ';') || group(code, i, Delimiter::Brace).is_some() || inside && punct(code, i, ',');
    (from..code.len()).find(ends).map_or(code.len(), |end| end + 1)
}

/// The attribute that stands here, without its brackets, and what comes after it.
fn attribute(code: &[TokenTree], at: usize) -> Option<(Vec<TokenTree>, usize)> {
    let bracket = at + 1 + usize::from(punct(code, at + 1, '!'));
    let found = group(code, bracket, Delimiter::Bracket).filter(|_| punct(code, at, '#'))?;
    Some((inner(found), bracket + 1))
}

/// `cfg(test)`, also with more conditions.
fn is_for_tests(attribute: &[TokenTree]) -> bool {
    let text: String = attribute.iter().map(ToString::to_string).collect::<String>().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Whether `pub(...)` stands before this.
fn is_restricted(code: &[TokenTree], at: usize) -> bool {
    at >= 2 && group(code, at - 1, Delimiter::Parenthesis).is_some() && ident(code, at - 2).as_deref() == Some("pub")
}

fn is_separator(code: &[TokenTree], at: usize) -> bool {
    let joint = matches!(code.get(at), Some(TokenTree::Punct(mark)) if mark.spacing() == Spacing::Joint);
    joint && punct(code, at, ':') && punct(code, at + 1, ':')
}

fn ident(code: &[TokenTree], at: usize) -> Option<String> {
    match code.get(at) {
        Some(TokenTree::Ident(word)) => Some(word.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

fn punct(code: &[TokenTree], at: usize, mark: char) -> bool {
    matches!(code.get(at), Some(TokenTree::Punct(found)) if found.as_char() == mark)
}

fn group(code: &[TokenTree], at: usize, delimiter: Delimiter) -> Option<&Group> {
    match code.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn inner(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}
