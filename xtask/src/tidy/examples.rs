//! Rustdoc tests are enabled only for libraries with an example: otherwise rustdoc would parse each library in each
//! test run.

use crate::tidy::Finding;

/// Attributes of an example that is compiled.
const COMPILED: [&str; 5] = ["rust", "no_run", "should_panic", "compile_fail", "standalone_crate"];

/// Checks each library among these files.
pub fn check(files: &[(String, String)]) -> Vec<Finding> {
    let manifests = files.iter().filter_map(|(path, text)| Some((path.strip_suffix("Cargo.toml")?, text)));
    manifests.filter_map(|(directory, manifest)| check_crate(directory, manifest, files)).collect()
}

fn check_crate(directory: &str, manifest: &str, files: &[(String, String)]) -> Option<Finding> {
    let folder = format!("{directory}src/");
    let sources: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(&folder)).collect();
    if !sources.iter().any(|(path, _)| path.strip_prefix(&folder) == Some("lib.rs")) {
        return None;
    }
    let example = sources.iter().find_map(|(path, text)| Some((path, first_example(text)?)));
    match (example, is_read(manifest)) {
        (Some((path, line)), false) => {
            Some(Finding::new(path, line, format!("nothing compiles it: {directory}Cargo.toml has `doctest = false`")))
        }
        (None, true) => {
            let rule = "its docs have no example: `doctest = false` under [lib] keeps rustdoc from looking for one";
            Some(Finding::new(&format!("{directory}Cargo.toml"), 1, rule))
        }
        _ => None,
    }
}

/// Whether rustdoc is to look for examples. A manifest that is no TOML is named by another rule.
fn is_read(manifest: &str) -> bool {
    let manifest = manifest.parse::<toml::Table>().unwrap_or_default();
    let doctest = manifest.get("lib").and_then(|lib| lib.get("doctest")).and_then(toml::Value::as_bool);
    doctest.unwrap_or(true)
}

/// The line of the first example in a source.
fn first_example(source: &str) -> Option<usize> {
    let mut is_inside = false;
    for (index, line) in source.lines().enumerate() {
        let Some(said) = fence(line) else { continue };
        if !is_inside && is_compiled(said) {
            return Some(index + 1);
        }
        is_inside = !is_inside;
    }
    None
}

/// Returns the attributes behind the fence of a code block, if this line begins one in a doc comment.
fn fence(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    text.trim_start().strip_prefix("```")
}

fn is_compiled(said: &str) -> bool {
    said.split([',', ' ']).all(|word| word.is_empty() || COMPILED.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT_OUT: &str = "[lib]\ndoctest = false\n";

    fn owned<const N: usize>(files: [(&str, &str); N]) -> [(String, String); N] {
        files.map(|(path, text)| (path.to_owned(), text.to_owned()))
    }

    /// Returns the findings in a library of two sources.
    fn found(manifest: &str, source: &str) -> Vec<(String, usize)> {
        let files = [("kit/a/Cargo.toml", manifest), ("kit/a/src/b.rs", source), ("kit/a/src/lib.rs", "//! A.")];
        check(&owned(files)).into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn an_example_is_compiled() {
        for said in ["", "no_run", "rust,no_run"] {
            let source =
                format!("//! B.\n\n    /// Does it.\n    /// ```{said}\n    /// f();\n    /// ```\nfn f() {{}}");
            assert_eq!(found(LEFT_OUT, &source), [("kit/a/src/b.rs".to_owned(), 4)], "{said}");
            assert!(found("", &source).is_empty(), "{said}");
        }
    }

    #[test]
    fn a_library_without_an_example_is_not_read_for_one() {
        for source in ["//! B.", "//! B.\n//! ```text\n//! f()\n//! ```", "//! B.\n// ```\n// f()\n// ```"] {
            assert!(found(LEFT_OUT, source).is_empty(), "{source}");
            assert_eq!(found("[lib]\nname = \"a\"\n", source), [("kit/a/Cargo.toml".to_owned(), 1)], "{source}");
        }
    }

    #[test]
    fn a_program_is_no_library() {
        let files = owned([("Cargo.toml", "[workspace]"), ("xtask/Cargo.toml", ""), ("xtask/src/main.rs", "//! X.")]);
        assert!(check(&files).is_empty());
    }
}
