//! How every Rust file looks, in whatever crate.

use crate::tidy::Finding;

/// A longer file is a design question.
const FILE_LINES: usize = 500;

/// Written in two parts, so that this file keeps its own rule.
const UNWRAP: &str = concat!(".unwrap", "()");

/// Checks one file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(path, 1, "begin with `//!`: what the module is for, and what it must not do"));
    }
    if text.lines().count() > FILE_LINES {
        findings.push(Finding::new(path, FILE_LINES, format!("longer than {FILE_LINES} lines")));
    }
    let tests_from = first_test_line(path, text);
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, code(line));
        if line.trim_start().starts_with("#[allow(") || line.trim_start().starts_with("#![allow(") {
            findings.push(Finding::new(path, number, "use #[expect(lint, reason = \"...\")] in place of allow"));
        }
        if number < tests_from && line.contains(UNWRAP) {
            findings.push(Finding::new(path, number, "no unwrap outside tests; an expect states the invariant"));
        }
    }
    findings
}

/// A line without its comment. A `//` inside of a string ends it too early, which only ever hides
/// the rest of that one line from the rules.
pub fn code(line: &str) -> &str {
    line.find("//").map_or(line, |comment| &line[..comment])
}

/// The line on which tests begin: the first for a file of tests, else that of its test module,
/// which stands last in a file.
fn first_test_line(path: &str, text: &str) -> usize {
    let in_tests = |part: &str| part == "tests" || part.ends_with("tests.rs");
    let of_tests = path.split('/').any(in_tests) || path.starts_with("kit/testkit/");
    if of_tests {
        return 1;
    }
    text.lines().position(|line| line == "#[cfg(test)]").map_or(usize::MAX, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_begins_with_what_it_is_for() {
        assert_eq!(lines("kit/db/src/lib.rs", "use std::fs;"), [1]);
        assert!(lines("kit/db/src/lib.rs", "//! Pools.").is_empty());
    }

    #[test]
    fn lints_are_expected_and_never_allowed() {
        let attribute = ["#[al", "low(dead_code)]"].concat();
        assert_eq!(lines("a.rs", &format!("//! A.\n{attribute}\n")), [2]);
        assert!(lines("a.rs", "//! A.\n#[expect(dead_code, reason = \"soon\")]").is_empty());
    }

    #[test]
    fn only_tests_unwrap() {
        let call = ["x.unw", "rap();"].concat();
        assert_eq!(lines("a.rs", &format!("//! A.\n{call}\n#[cfg(test)]\nmod tests {{ {call} }}")), [2]);
        assert!(lines("services/order/tests/place.rs", &format!("//! A.\n{call}")).is_empty());
        assert!(lines("a.rs", &format!("//! A.\n// {call}")).is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(lines("a.rs", &format!("//! A.\n{}", "\n".repeat(500))), [500]);
    }
}
